"""The tables of this folder from the records of its runs (see protocol.md and run.sh).

    python results/verdict/verdict.py

For each length at which rows were scored, it writes at-LENGTH/ (table.md, table.csv, table.json, table.html) with all
rows that have scores there, whichever part of the protocol they are from, and the claims tested on them.
"""

import dataclasses
from pathlib import Path

from samgan.scoring import Scores
from samgan.studies import ROWS, RowDocument, write_table

HERE = Path(__file__).parent
PARTS = ("headline", "factors", "rest", "full", "faces")
LENGTHS = (100.0, 200.0, 400.0, 1808.0)


def main() -> None:
    """See the module's text."""
    for kimg in LENGTHS:
        rows = rows_at(kimg)
        if rows:
            folder = HERE / f"at-{kimg:g}"
            folder.mkdir(exist_ok=True)
            title = f"Table 2 on the paper's own images, {kimg:g} kimg"
            write_table(folder, rows, command="results/verdict/run.sh, results/verdict/verdict.py", title=title)


def rows_at(kimg: float) -> list[RowDocument]:
    """All rows as they were after so many thousand images, in the order of the table; one for each row and seed."""
    found: dict[tuple[str, int], RowDocument] = {}
    for part in PARTS:
        for path in sorted((HERE / part / "rows").glob("*.json")):
            row = RowDocument.read(path)
            if (scores := scores_at(row, kimg)) and row.trained:
                shown = kimg * ROWS[row.name].copies
                at = dataclasses.replace(row.trained, kimg=shown, wall_minutes=minutes_at(row, kimg))
                cut = dataclasses.replace(row, trained=at, scores=scores, scored_at=(), second_scores=None)
                found.setdefault((row.name, row.seed), cut)
    order = list(ROWS)
    return [found[key] for key in sorted(found, key=lambda key: (order.index(key[0]), key[1]))]


def scores_at(row: RowDocument, kimg: float) -> Scores | None:
    """The scores of a row after so many thousand images of a set that is not doubled."""
    if row.trained and row.scores and round(row.trained.kimg / ROWS[row.name].copies, 1) == kimg:
        return row.scores
    return next((at.scores for at in row.scored_at if at.kimg == kimg), None)


def minutes_at(row: RowDocument, kimg: float) -> float:
    """About how long the row had trained by then."""
    assert row.trained is not None
    copies = ROWS[row.name].copies
    return round(row.trained.wall_minutes * min(1.0, copies * kimg / row.trained.kimg), 2)


if __name__ == "__main__":
    main()
