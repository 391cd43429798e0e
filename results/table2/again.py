"""Write table.json again from the records of its rows, with what this version says about them. Nothing is trained.

    python results/table2/again.py

`samgan table2` does so by itself while its training and scoring are those of the rows. Both have changed since these
rows were run, so it would run them anew.
"""

import tempfile
from pathlib import Path

from samgan.studies import RowDocument
from samgan.studies.table2_document import Table
from samgan.studies.table2_write import write_table

HERE = Path(__file__).parent


def main() -> None:
    """Replace table.json; the other files of the table stay."""
    stored = Table.read(HERE / "table.json")
    places = {line["name"]: place for place, line in enumerate(stored.lines)}
    rows = [RowDocument.read(path) for path in (HERE / "rows").glob("*.json")]
    rows.sort(key=lambda row: (row.seed, places[row.name]))  # as jobs were run
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows").symlink_to(HERE / "rows")
        table, _ = write_table(Path(folder), rows, command=stored.command, title=stored.title)
    table.write(HERE / "table.json")


if __name__ == "__main__":
    main()
