"""The tables of this folder from the records of its runs (see protocol.md and run.sh).

    python results/verdict/verdict.py

For each length at which rows were scored, it writes at-LENGTH/ (table.md, table.csv, table.json, table.html) with all
rows that have scores there, whichever part of the protocol they are from, and tests the claims that the protocol judges
at this length. second.csv has the scores by the radiograph features, which decide nothing.
"""

import dataclasses
from pathlib import Path

from samgan.config import Config
from samgan.files import atomic_write
from samgan.studies import CLAIMS, HEADLINE, ROWS, RowDocument, write_table
from samgan.studies.claims import Claim

HERE = Path(__file__).parent
PARTS = ("headline", "factors", "rest", "full", "faces")
FACTORS = (
    "Attention improves diversity",
    "Attention degrades at the large rate of 0.003",
    "Spectral norm hurts MSG-GAN",
    "Spectral norm helps SAMGAN",
    "Flips help",
)
OF_FACTORS = (("msg-gan-6", "msg-gan-7"), ("samgan-8", "samgan-5"))
"""The pairs of the last of these that have two seeds; all five of its pairs are in the whole table."""
NOT_RUN = ("msg-gan-7-rate-0.001", "samgan-8-rate-0.001")
"""Rows that claims name and the protocol leaves out."""
SECOND = ("frechet", "recall", "coverage")
SET = "318c3605837bad1f4a40f3731fddb2725ae74ac4357464e8d4c6e6766fae6359"
"""The prepared set of the protocol, for all rows but that of faces."""
WIDTH, BATCH = 32, 8


def claims_at(kimg: float) -> list[Claim]:
    """The claims that the protocol judges at a length."""
    if kimg == 400:
        return [claim for claim in CLAIMS if claim.sentence == HEADLINE]
    if kimg == 200:
        own = [claim for claim in CLAIMS if claim.sentence in FACTORS]
        flips = own.pop()
        pairs = tuple(pair for pair in flips.pairs if (pair.better, pair.worse) in OF_FACTORS)
        return [*own, dataclasses.replace(flips, pairs=pairs)]
    if kimg == 100:
        others = [claim for claim in CLAIMS if claim.sentence not in (HEADLINE, *FACTORS[:-1])]
        return [
            dataclasses.replace(claim, pairs=tuple(pair for pair in claim.pairs if pair.worse not in NOT_RUN))
            for claim in others
        ]
    return []  # one pair of one seed is described


LENGTHS = (100.0, 200.0, 400.0, 1808.0)


def main() -> None:
    """See the module's text."""
    for kimg in LENGTHS:
        rows = rows_at(kimg)
        if rows:
            folder = HERE / f"at-{kimg:g}"
            folder.mkdir(exist_ok=True)
            title = f"Table 2 on the paper's own images, {kimg:g} kimg"
            command = "results/verdict/run.sh, results/verdict/verdict.py"
            write_table(folder, rows, command=command, title=title, claims=claims_at(kimg))
            write_second(folder / "second.csv", rows)


def write_second(path: Path, rows: list[RowDocument]) -> None:
    """Scores by the radiograph features, beside the floor of the distance."""
    lines = [["row", "seed", "frechet", "frechet_floor", "recall", "coverage"]]
    for row in rows:
        if found := row.second_scores:
            distance, *others = (found.scores[name] for name in SECOND)
            values = [distance.value, distance.floor, *(one.value for one in others)]
            lines.append([row.name, str(row.seed), *(f"{value:.4f}" for value in values)])
    with atomic_write(path) as file:
        file.write("".join(f"{','.join(line)}\n" for line in lines).encode())


def rows_at(kimg: float) -> list[RowDocument]:
    """All rows as they were after so many thousand images, in the order of the table; one for each row and seed.

    Raises:
        SystemExit: A part has two runs of one row and seed, a row is of another set, width, batch or precision than
            the protocol says, or rows were scored in several ways.
    """
    found: dict[tuple[str, int], RowDocument] = {}
    for part in PARTS:
        own = [RowDocument.read(path) for path in sorted((HERE / part / "rows").glob("*.json"))]
        if len({(row.name, row.seed) for row in own}) < len(own):
            raise SystemExit(f"{part}/rows: expected one run of each row and seed; remove those of other settings")
        for row in own:
            check(row, part)
            if cut := row_at(row, kimg):
                found.setdefault((row.name, row.seed), cut)
    first, *others = [row for row in found.values() if not ROWS[row.name].colour] or [None]
    if first and not all(row.scoring.equals(first.scoring) for row in others):
        raise SystemExit("expected rows that were scored in one way, by the same features and number of images")
    order = list(ROWS)
    return [found[key] for key in sorted(found, key=lambda key: (order.index(key[0]), key[1]))]


def check(row: RowDocument, part: str) -> None:
    """Refuse a row that is not of the protocol.

    Raises:
        SystemExit: It is not.
    """
    if not row.trained or not row.scores:
        return
    name, config = f"{part}/rows/{row.key}.json", Config.from_dict(row.trained.config)
    expected: tuple[object, ...] = (WIDTH, BATCH, "fp32")
    found: tuple[object, ...] = (config.network.max_channels, config.training.batch_size, config.training.precision)
    if not ROWS[row.name].colour:
        expected += (SET,)
        found += (row.scores.data.sha256 if row.scores.data else None,)
    if found != expected:
        raise SystemExit(f"{name}: expected channels, batch, precision and set {expected}, found {found}; remove it")


def row_at(row: RowDocument, kimg: float) -> RowDocument | None:
    """A row as it was after so many thousand images of a set that is not doubled; None without scores there.

    Of a row that went on, the weights of attention are not known, and an alarm counts only if it was there by then.
    """
    if not row.trained or not row.scores:
        return None
    copies = ROWS[row.name].copies
    if round(row.trained.kimg / copies, 1) == kimg:
        return dataclasses.replace(row, scored_at=())
    at = next((at for at in row.scored_at if at.kimg == kimg), None)
    if at is None:
        return None
    alarm, seen = row.trained.collapse, copies * kimg
    trained = dataclasses.replace(
        row.trained,
        kimg=seen,
        wall_minutes=round(row.trained.wall_minutes * seen / row.trained.kimg, 2),
        gamma={},
        curves={
            name: tuple(point for point in points if point[0] <= seen) for name, points in row.trained.curves.items()
        },
        collapse=alarm if alarm and alarm.images_seen <= 1000 * seen else None,
    )
    return dataclasses.replace(row, trained=trained, scores=at.scores, second_scores=at.second_scores, scored_at=())


if __name__ == "__main__":
    main()
