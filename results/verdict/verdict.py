"""The tables of this folder from the records of its runs (see protocol.md and run.sh).

    python results/verdict/verdict.py
    python results/verdict/verdict.py check SET FEATURES.pt    # are these the protocol's? run.sh asks before it trains
    python results/verdict/verdict.py more                     # does the stopping rule add seeds to the headline?

For each length at which rows were scored, it writes at-LENGTH/ (table.md, table.csv, table.json, table.html) with all
rows that have scores there, whichever part of the protocol they are from. When all runs that are scored at this length
have ended, it tests the claims that the protocol judges there. further.md then has what decides nothing: the same pairs
by other measures, and by the radiograph features, whose scores are in second.csv. A run that failed twice has ended,
too; what was scored before counts. full.csv has the pair at full length, on its way and at its end.
"""

import dataclasses
import hashlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from samgan.config import Config, flatten
from samgan.data import PreparedSet
from samgan.files import atomic_write
from samgan.scoring import Scores
from samgan.studies import CLAIMS, HEADLINE, ROWS, RowDocument, write_table
from samgan.studies.claims import FRECHET, LIKENESS, MISSED, UNDECIDED, Claim, Pair, describe_pairs, judge_claims
from samgan.studies.paired import differences, rest_of, seeds_to_see
from samgan.studies.sweep_job import Job

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Part:
    """Runs of one length, as run.sh starts them."""

    seeds: dict[str, int]
    """By row."""
    kimg: float
    """Of a set that is not doubled."""
    score_at: tuple[float, ...] = ()
    more_seeds: int = 0
    """That the stopping rule may add."""

    @property
    def lengths(self) -> tuple[float, ...]:
        """At which it is scored."""
        return (*self.score_at, self.kimg)


REST = (
    *("msg-gan-2", "msg-gan-3", "msg-gan-4", "msg-gan-5", "msg-gan-8", "msg-gan-9", "msg-gan-10"),
    *("samgan-3", "samgan-4", "samgan-6", "samgan-7"),
    *("samgan-8-as-printed", "samgan-8-doubled", "samgan-8-unit", "samgan-8-equalized"),
    *("samgan-plus", "samgan-plus-attention", "samgan-vision"),
)
OF_FACTORS = (
    *("samgan-8-no-attention", "samgan-8-no-norm", "msg-gan-6-rate-0.0001"),
    *("samgan-1", "samgan-2", "msg-gan-7", "msg-gan-11", "samgan-5"),
)
PARTS = {
    "headline": Part(dict.fromkeys(("samgan-8", "msg-gan-6"), 4), 400.0, (100.0, 200.0), more_seeds=2),
    "factors": Part(dict.fromkeys(OF_FACTORS, 2), 200.0, (100.0,)),
    "rest": Part(dict.fromkeys(REST, 1), 100.0),
    "full": Part(dict.fromkeys(("samgan-8", "msg-gan-6"), 1), 1808.0, (100.0, 200.0, 400.0)),
    "faces": Part({"msg-gan-1": 1}, 100.0),
}
DESCRIBED = ("full", "faces")
"""Parts that no claim waits for. Scores of "full" on its way are those of a run of its own, and no second seed 0."""
FACTORS = (
    "Attention improves diversity",
    "Attention degrades at the large rate of 0.003",
    "Spectral norm hurts MSG-GAN",
    "Spectral norm helps SAMGAN",
    "Flips help",
)
FLIPS = (("msg-gan-6", "msg-gan-7"), ("samgan-8", "samgan-5"))
"""The pairs of the last of these that have two seeds, and decide. The other three have one, and are described."""
NOT_RUN = ("msg-gan-7-rate-0.001", "samgan-8-rate-0.001")
"""Rows that claims name and the protocol leaves out."""
SECOND = ("frechet", "recall", "coverage")
SET = "318c3605837bad1f4a40f3731fddb2725ae74ac4357464e8d4c6e6766fae6359"
"""The prepared set of the protocol, for all rows but that of faces."""
STAND_IN = "2bc9e920563d781c36a37fb24319c161b16bc2d4d7d1ac2186c69598ef5ce863"
"""The file of features that results/stand_in.py writes."""
RADIOGRAPH = "a843e2a22055c1fde3cedfc0de90f217a2000e3124c8f2724f1f269c6cfcbe92"
"""The radiograph features, the second network."""
ENOUGH_FAILURES = 2
"""A run that failed so often has ended; until then it is tried again."""
COUNT = 1500
SETTINGS = {"network.max_channels": 32, "training.batch_size": 8, "training.precision": "fp32"}
"""What run.sh gives to all rows; recipes that are no rows of the paper take the precision alone."""


def claims_at(kimg: float) -> list[Claim]:
    """The claims that the protocol judges at a length."""
    if kimg == 400:
        return [claim for claim in CLAIMS if claim.sentence == HEADLINE]
    if kimg == 200:
        own = [claim for claim in CLAIMS if claim.sentence in FACTORS]
        flips = own.pop()
        pairs = tuple(pair for pair in flips.pairs if (pair.better, pair.worse) in FLIPS)
        return [*own, dataclasses.replace(flips, pairs=pairs)]
    if kimg == 100:
        others = [claim for claim in CLAIMS if claim.sentence not in (HEADLINE, *FACTORS)]
        return [
            dataclasses.replace(claim, pairs=tuple(pair for pair in claim.pairs if pair.worse not in NOT_RUN))
            for claim in others
        ]
    return []  # one pair of one seed is described


LENGTHS = (100.0, 200.0, 400.0, 1808.0)


def planned_at(kimg: float) -> set[tuple[str, int]]:
    """Row and seed of all runs that are scored at a length and that claims wait for, but for those that are added."""
    return {
        (row, seed)
        for name, part in PARTS.items()
        if name not in DESCRIBED and kimg in part.lengths
        for row, seeds in part.seeds.items()
        for seed in range(seeds)
    }


def added_at(kimg: float) -> set[tuple[str, int]]:
    """Those that the stopping rule has added: all of them as soon as one is there.

    They count at the end of their part alone, since claims at shorter lengths were decided before.
    """
    return {
        (row, seed)
        for name, part in PARTS.items()
        if kimg == part.kimg and added(name)
        for row, seeds in part.seeds.items()
        for seed in range(seeds, seeds + part.more_seeds)
    }


def added(name: str) -> bool:
    """Whether a part has a run of a seed that the stopping rule adds."""
    rows = map(RowDocument.read, (HERE / name / "rows").glob("*.json"))
    return any(row.seed >= PARTS[name].seeds.get(row.name, 0) for row in rows)


def main() -> None:
    """See the module's text."""
    if sys.argv[1:2] == ["check"]:
        check_given(*map(Path, sys.argv[2:]))
    elif sys.argv[1:] == ["more"]:
        print(first_look(rows_at(PARTS["headline"].kimg)))
    else:
        write_tables()


def write_tables() -> None:
    """Those of all lengths, and how far the runs have got."""
    for kimg in LENGTHS:
        rows = rows_at(kimg)
        if rows:
            folder = HERE / f"at-{kimg:g}"
            folder.mkdir(exist_ok=True)
            planned = planned_at(kimg) | added_at(kimg)
            waiting = planned - {(row.name, row.seed) for row in rows if has_ended(row)}
            claims = [] if waiting else claims_at(kimg)
            write_table(
                folder,
                rows,
                command="results/verdict/run.sh, results/verdict/verdict.py",
                title=f"Table 2 on the paper's own images, {kimg:g} kimg",
                jobs=len(planned | described_at(kimg) | {(row.name, row.seed) for row in rows}),
                claims=claims,
                pictures=pictures_at(kimg),
                notes=notes_at(kimg, rows, waiting),
            )
            write_second(folder / "second.csv", rows)
            if claims:
                write_further(folder / "further.md", kimg, rows, claims)
    write_full()
    print(progress())


def check_given(path: Path, features: Path) -> None:
    """Refuse a set, or features, that are not those of the protocol; before hours of training, not after them."""
    data, weights = PreparedSet.open(path).sha256, hashlib.sha256(features.read_bytes()).hexdigest()
    if data != SET:
        raise SystemExit(f"{path}: expected the set {SET} of protocol.md, found {data}; prepare it as told there")
    if weights != STAND_IN:
        raise SystemExit(f"{features}: expected the file {STAND_IN} of results/stand_in.py, found {weights}")


def has_ended(row: RowDocument) -> bool:
    """Whether nothing more is to come of a run: it was scored, or has failed again when it was tried again."""
    return row.failed is None or row.failures >= ENOUGH_FAILURES


def failed_of(rows: Sequence[RowDocument]) -> dict[str, list[int]]:
    """Seeds whose runs failed, by row."""
    failed = [row for row in rows if row.failed is not None]
    return {name: [row.seed for row in failed if row.name == name] for name in {row.name for row in failed}}


def described_at(kimg: float) -> set[tuple[str, int]]:
    """Row and seed of the runs that end at a length where nothing but them is scored."""
    ending = [part for name, part in PARTS.items() if name in DESCRIBED and part.kimg == kimg]
    return set() if planned_at(kimg) else {(row, 0) for part in ending for row in part.seeds}


def notes_at(kimg: float, rows: Sequence[RowDocument], waiting: set[tuple[str, int]]) -> list[str]:
    """What a reader of a table has to know of its claims."""
    first = [first_look(rows)] if added_at(kimg) else []
    if waiting and claims_at(kimg):
        told = ", ".join(f"{row}, seed {seed}" for row, seed in sorted(waiting)[:3])
        more = f" and {len(waiting) - 3} others" if len(waiting) > 3 else ""
        return [f"Claims wait for {told}{more}.", *first]
    return first


def first_look(rows: Sequence[RowDocument]) -> str:
    """What the headline was after its first seeds; it has more by now, for which the stopping rule has to be met.

    Raises:
        SystemExit: It is not met: the headline was decided, or its estimate said that more seeds would not do.
    """
    (claim,), part = claims_at(400.0), PARTS["headline"]
    names, runs = {name for pair in claim.pairs for name in pair[:2]}, dict[str, dict[int, Scores]]()
    first = [row for row in rows if row.name in names and row.seed < part.seeds[row.name]]
    if not {(row.name, row.seed) for row in first if has_ended(row)} >= planned_at(400.0):
        raise SystemExit(f"headline/rows: the first {max(part.seeds.values())} seeds of both rows have not ended")
    for row in first:
        if row.scores:
            runs.setdefault(row.name, {})[row.seed] = row.scores
    (found,) = judge_claims(runs, [claim], failed_of(first))
    allowed, needed = max(part.seeds.values()) + part.more_seeds, None
    if not failed_of(first):
        values = {name: {seed: FRECHET.of(one) or 0.0 for seed, one in own.items()} for name, own in runs.items()}
        seen = differences(values, claim.pairs[0].better, claim.pairs[0].worse)
        needed = seeds_to_see(statistics.fmean(seen), rest_of(values), len(seen)) if seen else None
    if found.word != UNDECIDED or needed is None or needed > allowed:
        raise SystemExit(
            f"headline/rows has seeds that its stopping rule does not add: after the first, {HEADLINE} was "
            f"{found.word}, {found.evidence[0]}; remove the records of the others"
        )
    return f"Looked at twice. After the first {max(part.seeds.values())} seeds: {found.word}, {found.evidence[0]}"


def progress() -> str:
    """How many runs have been made, for README.md; those that failed have not."""
    rows = {name: list(map(RowDocument.read, (HERE / name / "rows").glob("*.json"))) for name in PARTS}
    made = {name: sum(row.scores is not None for row in own) for name, own in rows.items()}
    planned = {
        name: sum(part.seeds.values()) + len(part.seeds) * part.more_seeds * added(name) for name, part in PARTS.items()
    }
    parts = ", ".join(f"{made[name]} of {planned[name]} of the part {name}" for name in PARTS)
    return f"Of its {sum(planned.values())} runs {sum(made.values())} have been made: {parts}."


def pictures_at(kimg: float) -> dict[str, Path]:
    """Pictures of the runs that end at a length, by key: a picture is of the end of a run. No face is shown."""
    return {
        path.stem: path
        for name, part in PARTS.items()
        if part.kimg == kimg and name != "faces"
        for path in (HERE / name / "rows").glob("*.png")
    }


def write_further(path: Path, kimg: float, rows: Sequence[RowDocument], claims: Sequence[Claim]) -> None:
    """Pairs of the claims by further measures and by the second network, which decide nothing.

    All five pairs of flips are there at 100 kimg, the only length that all of them have, by the first measure, too.
    """
    described = [claim for claim in CLAIMS if claim.sentence == FACTORS[-1] and kimg == 100]
    of_paper = [row for row in rows if not ROWS[row.name].is_recipe and not ROWS[row.name].colour]
    first: dict[str, dict[int, Scores]] = {}
    second: dict[str, dict[int, Scores]] = {}
    for row in of_paper:
        if row.scores:
            first.setdefault(row.name, {})[row.seed] = row.scores
        if row.second_scores:
            second.setdefault(row.name, {})[row.seed] = row.second_scores
    lines = ["# The same pairs by other measures", "", "These decide nothing; see the protocol."]
    for title, runs, measures in (
        ("Stand-in Inception", first, (MISSED, LIKENESS)),
        ("Radiograph features", second, (FRECHET, MISSED)),
    ):
        lines += ["", f"## {title}", ""]
        for claim in [*claims, *described]:
            compared = dict.fromkeys((pair.better, pair.worse) for pair in claim.pairs)
            in_table = {pair.measure for pair in claim.pairs} if runs is first and claim in claims else set()
            wanted = measures if claim in claims else dict.fromkeys((FRECHET, *measures))
            pairs = [Pair(*names, measure) for names in compared for measure in wanted if measure not in in_table]
            if pairs:
                told = describe_pairs(runs, pairs, failed_of(rows))
                lines += [f"* {claim.sentence}", *(f"  * {line}" for line in told)]
    with atomic_write(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


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


def write_full() -> None:
    """The pair at full length: scores on its way and at its end, in full.csv."""
    lines = ["row,kimg,frechet,frechet_floor,recall,ms_ssim_gap"]
    for path in sorted((HERE / "full" / "rows").glob("*.json")):
        row = RowDocument.read(path)
        check(row, "full", path.stem)
        for kimg, found in scores_of(row, PARTS["full"].kimg):
            frechet, gap = found.scores["frechet"], found.mode_collapse and found.mode_collapse.difference
            values = (frechet.value, frechet.floor, found.scores["recall"].value, gap)
            lines.append(f"{row.name},{kimg:g}," + ",".join("" if one is None else f"{one:.4f}" for one in values))
    if len(lines) > 1:
        with atomic_write(HERE / "full.csv") as file:
            file.write(("\n".join(lines) + "\n").encode())


def scores_of(row: RowDocument, kimg: float) -> Iterator[tuple[float, Scores]]:
    """Scores of a run of so many thousand images, with their lengths: on its way, then at its end."""
    yield from ((at.kimg, at.scores) for at in row.scored_at)
    if row.scores:
        yield kimg, row.scores


def rows_at(kimg: float) -> list[RowDocument]:
    """All rows as they were after so many thousand images, in the order of the table; one for each row and seed.

    Those that failed are there at all lengths of their part, without scores at those that they had not reached.

    Raises:
        SystemExit: A part has two runs of one row and seed, or one that is not of the protocol, or rows were scored in
            several ways.
    """
    found: dict[tuple[str, int], RowDocument] = {}
    for name, part in PARTS.items():
        paths = sorted((HERE / name / "rows").glob("*.json"))
        own = {path: RowDocument.read(path) for path in paths}
        if len({(row.name, row.seed) for row in own.values()}) < len(own):
            raise SystemExit(f"{name}/rows: expected one run of each row and seed; remove those of other settings")
        for path, row in own.items():
            check(row, name, path.stem)
            cut = row_at(row, kimg) or (row if row.failed and kimg in part.lengths else None)
            further = name == "full" or row.seed >= part.seeds[row.name]
            if cut and (kimg == part.kimg or not further):
                found[row.name, row.seed] = cut
    first, *others = [row for row in found.values() if row.scores and not ROWS[row.name].colour] or [None]
    if first and not all(row.scoring.equals(first.scoring) for row in others):
        raise SystemExit("expected rows that were scored in one way, by the same features and number of images")
    order = list(ROWS)
    return [found[key] for key in sorted(found, key=lambda key: (order.index(key[0]), key[1]))]


def check(row: RowDocument, name: str, stem: str) -> None:
    """Refuse a record that is not of a run of its part.

    Args:
        row: The record.
        name: The part.
        stem: The name of its file.

    Raises:
        SystemExit: It is not.
    """
    part, where = PARTS[name], f"{name}/rows/{stem}.json"

    def expect(what: str, expected: object, found: object) -> None:
        if found != expected:
            raise SystemExit(f"{where}: expected {what} {expected}, found {found}; remove it")

    seeds = part.seeds.get(row.name, 0) and part.seeds[row.name] + part.more_seeds
    expect("a row and seed of the part", True, 0 <= row.seed < seeds)
    expect("the key", stem, row.key)
    if row.scores or not ROWS[row.name].colour:  # the key has the arithmetic and the set, too
        expect("a run of this arithmetic, with the key", key_of(row, part.kimg), row.key)
    if row.trained:
        found, wanted = (
            flatten(config.computed())
            for config in (Config.from_dict(row.trained.config), expected_config(row.name, row.seed, part.kimg))
        )
        for key in sorted(found.keys() | wanted.keys()):
            expect(key, wanted.get(key), found.get(key))
        expect("a run to its end", False, row.trained.ended_early)
    if row.scores:  # a length that the run has passed is not scored any more
        expect("scores on its way at", part.score_at, tuple(at.kimg for at in row.scored_at))
    second = None if ROWS[row.name].colour else RADIOGRAPH
    ended = (part.kimg, row.scores, row.second_scores)
    for kimg, first, other in (ended, *((at.kimg, at.scores, at.second_scores) for at in row.scored_at)):
        expect("a length of the part", True, kimg in part.lengths)
        for features, scores in ((STAND_IN, first), (second, other)):
            if scores is None:
                continue
            expect("images", COUNT, scores.count)
            expect("features", features, scores.features and scores.features.sha256)
            expect("the protocol and seed", ("standard", 0), (scores.protocol, scores.seed))
            seen = scores.generated and scores.generated.images_seen
            expect(f"scores at {kimg:g} kimg: images seen", ROWS[row.name].copies * 1000 * kimg, seen)
            if not ROWS[row.name].colour:
                expect("the set", SET, scores.data and scores.data.sha256)


def key_of(row: RowDocument, kimg: float) -> str:
    """The key of a row's run, by the protocol, and by what this version of samgan computes."""
    data = row.scores.data if row.scores and ROWS[row.name].colour else None
    return Job(row.name, expected_config(row.name, row.seed, kimg), "", data.sha256 if data else SET, None).key


def expected_config(name: str, seed: int, kimg: float) -> Config:
    """What a run of a row computes, by the protocol."""
    row = ROWS[name]
    own = {"training.kimg": row.copies * kimg, "training.seed": seed, "network.image_channels": 3 if row.colour else 1}
    return row.config("cpu", 64, SETTINGS).override(own)


def row_at(row: RowDocument, kimg: float) -> RowDocument | None:
    """A row as it was after so many thousand images of a set that is not doubled; None without scores there.

    Of a row that went on, the weights of attention are not known, and an alarm counts only if it was there by then.
    """
    if not row.trained:
        return None
    copies = ROWS[row.name].copies
    if row.scores and round(row.trained.kimg / copies, 1) == kimg:
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
    scores = {"scores": at.scores, "second_scores": at.second_scores, "failed": None}
    return dataclasses.replace(row, trained=trained, **scores, scored_at=())


if __name__ == "__main__":
    main()
