"""Write the table again from the records of its rows, with what this version says about them. Nothing is trained.

    python results/table2/again.py

`samgan table2` does so by itself while its training and scoring are those of the rows. Both have changed since these
rows were run, so it would run them anew.
"""

import shutil
import tempfile
from pathlib import Path

from samgan.studies import RowDocument
from samgan.studies.table2_document import Table
from samgan.studies.table2_write import write_table

HERE = Path(__file__).parent


def main() -> None:
    """Replace table.json, table.md and table.html; table.csv stays, whose numbers do not change."""
    stored = Table.read(HERE / "table.json")
    places = {line["name"]: place for place, line in enumerate(stored.lines)}
    rows = [RowDocument.read(path) for path in (HERE / "rows").glob("*.json")]
    rows.sort(key=lambda row: (row.seed, places[row.name]))  # as jobs were run
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows").symlink_to(HERE / "rows")
        write_table(Path(folder), rows, command=stored.command, title=stored.title)
        for suffix in ("json", "md", "html"):
            shutil.copyfile(Path(folder) / f"table.{suffix}", HERE / f"table.{suffix}")


if __name__ == "__main__":
    main()
