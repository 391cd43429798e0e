"""What the map is made of: its cells, a record of every classifier, and from these the gain in each cell."""

import base64
import functools
import hashlib
import itertools
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from scipy.special import softmax

from samgan.errors import SamganError
from samgan.files import atomic_write, locked
from samgan.metrics.auc import recall_influence
from samgan.studies.map_cells import (
    FALSE_DISCOVERIES,
    CellGain,
    Decision,
    DrawnGain,
    area_and_influence,
    decide,
    estimate_gains,
)

HERE = Path(__file__).parent
OF_PILOT, CELLS, CHOICES = HERE / "pilot.jsonl", HERE / "cells.jsonl", HERE / "choices.json"
HELD_OUT = HERE / "held_out"
"""A file for each set of held-out images: their classes, and whom they belong to, by numbers."""
SMALL = {"virus": "VIRUS", "three": "VIRUS", "covid": "COVID"}
"""By question, the class of which there are few patients."""
FOLDS = "1-2", "2-1"
"""Trained on and tested on."""
PILOT_FOLDS = "1-0"
SEEDS = 1
"""Classifiers of each way and draw: a further draw tells more than a further classifier."""
BASES = 7
"""Generators that are fine-tuned have so many in a fold to begin with, which draws take in turn. Draws that share one
are not independent, so the mean of their gains counts as one value (`units`)."""
USES, RIVALS = 1, 2
"""How many the pilot chooses: uses of synthetic images, and the strongest ways without them."""
BUSY = "another process adds a record"
SPECIFICITY = 0.9
"""At which the recall of the small class is told."""


@dataclass(frozen=True, order=True)
class Cell:
    """One question with one number of patients at one size."""

    question: str
    side: int
    patients: int


@dataclass(frozen=True)
class Family:
    """Cells that are decided together, once all of them are measured."""

    name: str
    draws: dict[Cell, int]
    """Of few patients, in each fold of a cell: no two of a fold have a patient in common. Each has a generator."""
    share: float
    """Of the false discoveries that the whole map may have."""


FAMILIES = (
    Family("first", {Cell("virus", 64, 10): 14, Cell("virus", 64, 25): 14}, 0.8),
    Family("more patients", {Cell("virus", 64, 50): 7, Cell("virus", 64, 100): 3}, 0.05),
    Family("three classes", {Cell("three", 64, 25): 7}, 0.05),
    Family("another disease", {Cell("covid", 64, 25): 7}, 0.05),
    Family("larger images", {Cell("virus", 128, 25): 7}, 0.05),
)
"""In the order in which they are measured. What the map is for stands first, and has most of the 5 %."""
MAP = [cell for family in FAMILIES for cell in family.draws]
DRAWS = {cell: count for family in FAMILIES for cell, count in family.draws.items()}
WITH_USES = Cell("virus", 64, 25)
PILOT = {
    WITH_USES: 4,
    Cell("virus", 64, 100): 3,
    Cell("three", 64, 25): 4,
    Cell("covid", 64, 25): 4,
    Cell("virus", 128, 25): 4,
}
"""Where the pilot tries the ways without synthetic images, and with how many draws: its fold has 386 patients with a
virus, so no four draws of 100. In the first, it tries uses of synthetic images, too."""


@dataclass(frozen=True)
class Budget:
    """How long generators and classifiers are trained."""

    kimg: float = 120.0
    fine_tuned_kimg: float = 30.0
    """After `kimg` of the other classes."""
    steps: int = 250
    """Of each classifier."""


@dataclass(frozen=True)
class Key:
    """Which classifier it is."""

    cell: Cell
    folds: str
    draw: int
    way: str
    generator: int | None
    """Seed of the generator; None: no synthetic image was used."""
    seed: int
    budget: Budget


@dataclass(frozen=True)
class Machine:
    """What a classifier was trained on, and by which version."""

    processor: str
    device: str
    """cpu; of a GPU also its name."""
    precision: str
    """Of classifiers."""
    samgan: str
    commit: str
    torch: str
    procedure: int
    """`samgan.studies.classifier.PROCEDURE`."""


@dataclass(frozen=True)
class Generator:
    """A generator whose images were used, or one with whose networks such a one began."""

    run: str
    """Name of its folder."""
    seed: int
    """That it was trained with: another one than the draw's if that diverged."""
    sha256: str
    swd: float | None = None
    """The last quick scores in its log, of images against held-out ones; nothing is chosen by them. None: it has
    none."""
    ms_ssim_gap: float | None = None


@dataclass(frozen=True)
class OtherHospital:
    """What a classifier makes of another hospital's images."""

    auc: float
    """Of the probability that an image is not normal."""
    predicted: str
    """As in `Classifier`, of two classes: normal, and not."""
    held_out: str


@dataclass(frozen=True)
class Classifier:
    """What one classifier came to."""

    key: Key
    """Its draw and seed are numbers within a fold and a draw: `Draw.seed` makes those that are drawn by of them."""
    scores: dict[str, float]
    """Those of `samgan.metrics.classification.scores`."""
    predicted: str
    """Logarithms of the probabilities of all classes for each held-out image, float16 in base64: `probabilities`."""
    held_out: str
    """Hash of the names of the held-out images: only records with the same one can be compared."""
    trained_on: str
    """SHA-256 of the draw's prepared set, its images and their list: only records with the same one can be compared."""
    seconds: float
    """Of training and testing the classifier; of each network when that was done, also if the cache had it."""
    machine: Machine
    date: str
    other_hospital: OtherHospital | None = None
    """None: there are no such images for this question."""
    recipe: str = ""
    """Hash of the generator's settings but its seed; empty: no synthetic image was used."""
    generator_seconds: float = 0.0
    """Of training the generators of its images; other ways of the draw, and other draws, may share them."""
    image_seconds: float = 0.0
    """Of making these images, and of choosing among them; other ways of the draw may share them."""
    generators: tuple[Generator, ...] = ()
    """Those of its images, and those that they began with."""


@dataclass(frozen=True)
class Lost:
    """A classifier that cannot be trained: a generator of its images diverged with every seed that is tried."""

    key: Key
    machine: Machine
    date: str


@dataclass(frozen=True)
class HeldOut:
    """Held-out images, in the order of the records' probabilities."""

    classes: tuple[str, ...]
    truth: tuple[int, ...]
    patients: tuple[int, ...]
    """Whom each image belongs to, counted from 0."""

    def write(self, name: str) -> None:
        """Keep it under the hash that records have.

        Raises:
            SystemExit: Another machine prepared these images in another way.
        """
        path, content = HELD_OUT / f"{name}.json", msgspec.json.encode(self) + b"\n"
        if not path.exists():
            HELD_OUT.mkdir(exist_ok=True)
            with atomic_write(path) as file:
                file.write(content)
        elif path.read_bytes() != content:
            raise SystemExit(
                f"{path}: expected its classes and patients, found others; prepare SETS from the same folders, by the "
                "same version of samgan"
            )

    @staticmethod
    @functools.cache
    def read(name: str) -> "HeldOut":
        """The images of the records with this hash.

        Raises:
            SystemExit: They are not there.
        """
        path = HELD_OUT / f"{name}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=HeldOut)
        except (OSError, msgspec.DecodeError) as error:
            raise SystemExit(f"{path}: expected the held-out images of some records ({error})") from None


@dataclass(frozen=True)
class RivalsOf:
    """The strongest ways without synthetic images in a cell of the pilot."""

    cell: Cell
    ways: tuple[str, ...]
    """The best one first."""


@dataclass(frozen=True)
class Choices:
    """What the pilot chose, before the first cell of a family was measured."""

    uses: tuple[str, ...]
    """The best uses of synthetic images, the best one first."""
    rivals: tuple[RivalsOf, ...]

    def rivals_of(self, cell: Cell) -> tuple[str, ...] | None:
        """Those of the cell of the pilot that is nearest; None until that has chosen.

        Of the same question and size, with the nearest ratio of patients, the smaller of two.
        """
        nearest = nearest_pilot(cell)
        return next((own.ways for own in self.rivals if own.cell == nearest), None)


def nearest_pilot(cell: Cell) -> Cell:
    """The cell of the pilot that chooses for a cell."""
    own = [one for one in PILOT if (one.question, one.side) == (cell.question, cell.side)]
    return min(sorted(own), key=lambda one: abs(np.log(one.patients / cell.patients)))


@dataclass(frozen=True)
class Rival:
    """One way without synthetic images in a cell, and what a use gained over it."""

    way: str
    auc: float
    gain: CellGain
    of_folds: tuple[float, ...]
    """The gain in each half of the patients: trained on one, tested on the other."""


@dataclass(frozen=True)
class UseGain:
    """What one use of synthetic images gained in a cell."""

    cell: Cell
    use: str
    rivals: tuple[Rival, ...]
    """In the order of the pilot."""
    decision: Decision | None
    """None: not all cells of its family are measured, so nothing is decided yet."""
    recall: CellGain
    """In recall of the small class at `SPECIFICITY`, over the first rival."""
    calibration: float
    """Change of the calibration error against the first rival; lower is better."""
    other_hospital: float | None
    """Gain in AUC on another hospital's images, over the first rival; None: there are none."""
    minutes: float
    """Of training a draw's generators, making its images and training one classifier of these, on average."""

    @property
    def strongest(self) -> Rival:
        """The rival over which the gain is smallest."""
        return min(self.rivals, key=lambda rival: rival.gain.mean)

    @property
    def decisive(self) -> Rival:
        """The rival to tell the gain over: the strongest, or the pilot's first if there is a loss against that."""
        return self.rivals[0] if self.decision and self.decision.harms else self.strongest


def encoded(probabilities: np.ndarray) -> str:
    """Probabilities [images, classes] as in `Classifier`: by logarithms, so that those near 1 keep their order."""
    logs = np.log(np.maximum(probabilities, 1e-30)).astype("<f2")
    return base64.b64encode(logs.tobytes()).decode()


def probabilities(record: Classifier | OtherHospital) -> np.ndarray:
    """Of the held-out images, [images, classes]."""
    known = HeldOut.read(record.held_out)
    logs = np.frombuffer(base64.b64decode(record.predicted), "<f2").astype(float)
    if len(logs) != len(known.truth) * len(known.classes):
        what = record.key if isinstance(record, Classifier) else "another hospital"
        raise SystemExit(f"{what}: expected probabilities of {len(known.truth)} images in {known.classes}")
    return softmax(logs.reshape(len(known.truth), -1), axis=1)


def read(path: Path) -> list[Classifier]:
    """The records of a file, each classifier once: by the newest procedure, the first of several.

    Raises:
        SystemExit: A line is no record.
    """
    found: dict[Key, Classifier] = {}
    for record in _lines(path, Classifier):
        before = found.get(record.key)
        if before is None or record.machine.procedure > before.machine.procedure:
            found[record.key] = record
    return list(found.values())


def lost_beside(path: Path) -> Path:
    """The file of what is `Lost`, beside the records."""
    return path.with_name(f"{path.stem}-lost.jsonl")


def read_lost(path: Path) -> list[Lost]:
    """What could not be trained, of the records of a file.

    Raises:
        SystemExit: A line is no such record.
    """
    return list(_lines(lost_beside(path), Lost))


R = TypeVar("R", Classifier, Lost)


def _lines(path: Path, kind: type[R]) -> Iterator[R]:
    """Of a file, if there is one. A last line that was cut off is left out."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        try:
            yield msgspec.json.decode(line, type=kind)
        except msgspec.DecodeError as error:
            raise SystemExit(f"{path}, line {number}: expected a record of a classifier ({error}); remove it") from None


def add(path: Path, record: Classifier | Lost) -> None:
    """Add a record in one piece; a line that an earlier process did not finish is removed first."""
    for _ in range(600):  # tenths of a second, while another process adds one
        try:
            with locked(path.parent, BUSY):
                _append(path, msgspec.json.encode(record) + b"\n")
                return
        except SamganError as error:
            if str(error) != BUSY:
                raise
        time.sleep(0.1)
    raise SystemExit(f"{path.parent}: another process has held its lock for a minute")


def _append(path: Path, line: bytes) -> None:
    with open(path, "ab+", buffering=0) as file:
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.truncate(path.read_bytes().rfind(b"\n") + 1)
        file.write(line)
        os.fsync(file.fileno())


def read_choices() -> Choices | None:
    """What the pilot chose; None before that.

    Raises:
        SystemExit: The file is damaged.
    """
    if not CHOICES.exists():
        return None
    try:
        return msgspec.json.decode(CHOICES.read_bytes(), type=Choices)
    except msgspec.DecodeError as error:
        raise SystemExit(f"{CHOICES}: expected what the pilot chose ({error}); run choose again") from None


def pilot_ways(cell: Cell, rivals: Iterable[str], uses: Iterable[str]) -> list[str]:
    """What the pilot tries in one of its cells."""
    return [*rivals, *(uses if cell == WITH_USES else ())]


def missing(
    records: Sequence[Classifier], lost: Iterable[Lost], cell: Cell, ways: Iterable[str]
) -> dict[str, list[int]]:
    """What a cell of the pilot lacks: the draws of each way. One of which a draw is lost lacks nothing any more."""
    done = {
        (record.key.way, record.key.draw, record.key.seed) for record in _of_pilot(of_newest_procedure(records), cell)
    }
    gone = {one.key.way for one in _of_pilot(lost, cell) if (one.key.way, one.key.draw, one.key.seed) not in done}
    lacking = {
        way: [draw for draw in range(PILOT[cell]) if any((way, draw, seed) not in done for seed in range(SEEDS))]
        for way in ways
        if way not in gone
    }
    return {way: draws for way, draws in lacking.items() if draws}


def choose(
    records: Sequence[Classifier], rivals: Iterable[str], uses: dict[str, str], lost: Sequence[Lost] = ()
) -> Choices | None:
    """The rivals of each cell of the pilot that is complete, and the uses; None before `WITH_USES` is.

    What has been chosen stays, since cells may have been measured by it: only cells of the pilot are added.

    Args:
        records: Of the pilot.
        rivals: Ways without synthetic images.
        uses: Ways with them, and the family of each: of a family, at most one is chosen.
        lost: What could not be trained: such a use counts as tried, and is not chosen.
    """
    rivals, chosen, best = list(rivals), list[RivalsOf](), tuple[str, ...]()
    for cell in PILOT:
        found = _means(of_newest_procedure(records), cell)
        if not missing(records, lost, cell, pilot_ways(cell, rivals, uses)):
            chosen.append(RivalsOf(cell, tuple(sorted(rivals, key=found.__getitem__, reverse=True)[:RIVALS])))
            if cell == WITH_USES:
                for use in (use for use in uses if use not in found):
                    print(f"{use}: not chosen, since a generator of it diverged with every seed")
                ranked = sorted((use for use in uses if use in found), key=found.__getitem__, reverse=True)
                first = {uses[use]: use for use in reversed(ranked)}  # the best of each family
                best = tuple(use for use in ranked if first[uses[use]] == use)[:USES]
    if before := read_choices():
        known = {own.cell for own in before.rivals}
        return Choices(before.uses, (*before.rivals, *(own for own in chosen if own.cell not in known)))
    return Choices(best, tuple(chosen)) if best else None


def _means(records: Sequence[Classifier], cell: Cell) -> dict[str, float]:
    """The mean AUC in a cell of the pilot of each way that was tried in full."""
    places = set(product(range(PILOT[cell]), range(SEEDS)))
    tried: dict[str, dict[tuple[int, int], float]] = defaultdict(dict)
    for record in _of_pilot(records, cell):
        tried[record.key.way][record.key.draw, record.key.seed] = record.scores["auc"]
    return {way: float(np.mean(list(found.values()))) for way, found in tried.items() if found.keys() == places}


@dataclass(frozen=True)
class Spread:
    """How much the gain of one use differs in the pilot."""

    gain: float
    of_draws: float
    """Standard deviation between draws, over all uses of the cell."""
    of_patients: float
    """Standard error over the held-out patients of one fold."""

    def detectable(self, draws: int) -> float:
        """What so many draws in each of two folds would show in four cases of five, first in the first family."""
        error = (self.of_draws**2 / (2 * draws) + self.of_patients**2 / 2) ** 0.5
        first = FAMILIES[0]
        p = FALSE_DISCOVERIES * first.share / (2 * USES * len(first.draws))
        return CellGain("", draws, 0.0, error, 2.0 * (min(draws, BASES) - 1)).detectable(p)


def pilot_spreads(
    records: Sequence[Classifier], cell: Cell, rivals: Iterable[str], uses: Iterable[str]
) -> dict[str, Spread]:
    """Of each use that was tried in full in a cell of the pilot: its gain over the strongest rival, and its spread."""
    means = _means(records, cell)
    tried = [way for way in rivals if way in means]
    if not tried:
        return {}
    best = max(tried, key=means.__getitem__)
    own: dict[str, dict[int, list[Classifier]]] = defaultdict(lambda: defaultdict(list))
    for record in _of_pilot(records, cell):
        own[record.key.way][record.key.draw].append(record)
    gained, of_patients = {}, {}
    for use in uses:
        if use in means:
            drawn = [_gain("", own[use][draw], own[best][draw]) for draw in range(PILOT[cell])]
            gained[use] = [draw.gain for draw in drawn]
            influence = np.mean([draw.influence for draw in drawn], axis=0)
            of_patients[use] = float(np.sqrt(np.square(influence).sum()))
    # Few draws of one use tell little of how far draws differ, so the uses of a cell are taken together.
    of_draws = float(np.sqrt(np.mean([np.var(gains, ddof=1) for gains in gained.values()]))) if gained else 0.0
    return {use: Spread(float(np.mean(gains)), of_draws, of_patients[use]) for use, gains in gained.items()}


def _of_pilot(records: Iterable[R], cell: Cell) -> list[R]:
    """Those that count in a cell of the pilot."""
    return [
        record
        for record in records
        if (record.key.cell, record.key.folds, record.key.budget) == (cell, PILOT_FOLDS, Budget())
        and record.key.draw < PILOT[cell]
        and record.key.seed < SEEDS
    ]


Compared = dict[tuple[Cell, str], dict[str, list[Classifier]]]
"""By cell and way, and then by fold and draw: the classifiers."""


def gains(records: Sequence[Classifier], choices: Choices | None) -> list[UseGain]:
    """The gain of every chosen use in the cells that are complete: all their draws, in each of the folds.

    Raises:
        SystemExit: Classifiers that are compared were not tested, or those of a draw not trained, on the same images.
    """
    if choices is None:
        return []
    complete = _complete(records)
    measured = [
        (cell, use, ways)
        for cell in MAP
        if (ways := choices.rivals_of(cell))
        for use in choices.uses
        if all((cell, way) in complete for way in (use, *ways))
    ]
    told = [
        (cell, use, ways)
        for cell, use, ways in measured
        if _comparable(complete[cell, use], [complete[cell, way] for way in ways])
    ]
    drawn: list[list[DrawnGain]] = [[] for _ in range(RIVALS)]
    for number, (cell, use, ways) in enumerate(told):
        for rank, way in enumerate(ways):
            pairs = zip(complete[cell, use], complete[cell, way], strict=True)
            drawn[rank] += units([_gain(f"{number}", ours, theirs) for ours, theirs in pairs])
    found = [estimate_gains(own) for own in drawn]
    there = {(cell, use) for cell, use, _ in told}  # one that is left out keeps its family undecided
    ready = [family for family in FAMILIES if there.issuperset(product(family.draws, choices.uses))]
    decisions = decided([cell for cell, *_ in told], found, ready)
    return [
        _use_gain(*what, [of_rank[number] for of_rank in found], decision, complete)
        for number, (what, decision) in enumerate(zip(told, decisions, strict=True))
    ]


def of_newest_procedure(records: Sequence[Classifier]) -> list[Classifier]:
    """Ways are compared only where their classifiers were trained by one procedure; `runs.py` replaces older ones."""
    newest = max((record.machine.procedure for record in records), default=0)
    return [record for record in records if record.machine.procedure == newest]


def _complete(records: Sequence[Classifier]) -> dict[tuple[Cell, str], list[list[Classifier]]]:
    """Of each cell and way of which all draws are done: the classifiers, by fold and draw."""
    of: Compared = defaultdict(lambda: defaultdict(list))
    for record in of_newest_procedure(records):
        key = record.key
        if key.budget == Budget() and key.draw < DRAWS.get(key.cell, 0) and key.seed < SEEDS:
            of[key.cell, key.way][f"{key.folds} {key.draw}"].append(record)
    places = {cell: [f"{folds} {draw}" for folds in FOLDS for draw in range(DRAWS[cell])] for cell in MAP}
    return {
        (cell, way): [found[place] for place in places[cell]]
        for (cell, way), found in of.items()
        if all(len(found[place]) == SEEDS for place in places[cell])
    }


def decided(
    cells: Sequence[Cell], found: Sequence[Sequence[CellGain]], ready: Sequence[Family]
) -> list[Decision | None]:
    """What is shown of each gain: the cells of a family are decided together, once all of them are measured.

    So it does not matter which are done first, and what was decided stays: each family has its share of the false
    discoveries that the whole map may have.
    """
    decisions: list[Decision | None] = [None] * len(cells)
    for family in ready:
        own = [number for number, cell in enumerate(cells) if cell in family.draws]
        own_decisions = decide([[of_rank[number] for number in own] for of_rank in found], family.share)
        for number, decision in zip(own, own_decisions, strict=True):
            decisions[number] = decision
    return decisions


def _use_gain(
    cell: Cell,
    use: str,
    ways: tuple[str, ...],
    found: list[CellGain],
    decision: Decision | None,
    complete: dict[tuple[Cell, str], list[list[Classifier]]],
) -> UseGain:
    ours, first = (list(itertools.chain.from_iterable(complete[cell, way])) for way in (use, ways[0]))
    rivals = tuple(
        Rival(
            way,
            float(np.mean([_area(record)[0] for own in complete[cell, way] for record in own])),
            gain,
            _of_folds(complete[cell, use], complete[cell, way]),
        )
        for way, gain in zip(ways, found, strict=True)
    )
    pairs = zip(complete[cell, use], complete[cell, ways[0]], strict=True)
    (recall,) = estimate_gains(units([_gain(found[0].cell, *pair, _recall) for pair in pairs]))
    calibration = np.mean([_error(r) for r in ours]) - np.mean([_error(r) for r in first])
    elsewhere = [[r.other_hospital.auc for r in own if r.other_hospital is not None] for own in (ours, first)]
    other = float(np.mean(elsewhere[0]) - np.mean(elsewhere[1])) if all(elsewhere) else None
    minutes = np.mean([record.generator_seconds + record.image_seconds + record.seconds for record in ours]) / 60
    return UseGain(cell, use, rivals, decision, recall, float(calibration), other, float(minutes))


def _of_folds(ours: list[list[Classifier]], theirs: list[list[Classifier]]) -> tuple[float, ...]:
    drawn = [_gain("", *pair) for pair in zip(ours, theirs, strict=True)]
    return tuple(float(np.mean([one.gain for one in drawn if one.fold == fold])) for fold in range(len(FOLDS)))


def _error(record: Classifier) -> float:
    return record.scores["calibration_error"]


def _comparable(ours: list[list[Classifier]], rivals: list[list[list[Classifier]]]) -> bool:
    """Whether generators and classifiers of a use were trained alike; if not, that is told, and the use is left out."""
    recipes = Counter(record.recipe for own in ours for record in own)
    every = [record for draws in (ours, *rivals) for own in draws for record in own]
    procedures = Counter((record.machine.procedure, record.machine.precision) for record in every)
    reasons = [
        f"its generators have several recipes: {dict(recipes)}" if len(recipes) > 1 else "",
        f"its classifiers were trained in several ways: {dict(procedures)}" if len(procedures) > 1 else "",
    ]
    key = ours[0][0].key
    for reason in filter(None, reasons):
        print(f"{key.cell}, {key.way}: left out, since {reason}")
    return not any(reasons)


def units(drawn: Sequence[DrawnGain]) -> list[DrawnGain]:
    """The gains of a cell, one for all draws of a fold whose generators began with the same one: their mean."""
    of: dict[tuple[int, int], list[DrawnGain]] = defaultdict(list)
    for one in drawn:
        of[one.fold, one.draw % BASES].append(one)
    return [
        replace(
            own[0],
            draw=base,
            gain=float(np.mean([one.gain for one in own])),
            influence=np.mean([one.influence for one in own], axis=0),
        )
        for (_, base), own in of.items()
    ]


Measured = tuple[float, np.ndarray]
"""What a classifier reaches, and the influence of each held-out patient on it."""


def _area(record: Classifier) -> Measured:
    """The AUC."""
    known = HeldOut.read(record.held_out)
    return area_and_influence(probabilities(record), np.array(known.truth), np.array(known.patients))


def _recall(record: Classifier) -> Measured:
    """The recall of the small class at `SPECIFICITY`."""
    known = HeldOut.read(record.held_out)
    small = known.classes.index(SMALL[record.key.cell.question])
    positive, patients = np.array(known.truth) == small, np.array(known.patients)
    return recall_influence(probabilities(record)[:, small], positive, patients, SPECIFICITY)


def _gain(
    name: str,
    ours: Sequence[Classifier],
    theirs: Sequence[Classifier],
    of: Callable[[Classifier], Measured] = _area,
) -> DrawnGain:
    """What a draw gains: a mean over classifiers."""
    every, key = (*ours, *theirs), ours[0].key
    if len({record.held_out for record in every}) > 1:
        raise SystemExit(f"{key.cell}: expected one set of held-out images, found several; prepare it again")
    if len({record.trained_on for record in every}) > 1:
        ways = f"{key.way} and {theirs[0].key.way}"
        raise SystemExit(
            f"{key.cell}, {key.folds}, draw {key.draw}, {ways}: expected one set of training images, found several; "
            "remove the lines of one and train these again"
        )
    (reached, influence), (other, of_other) = _mean(ours, of), _mean(theirs, of)
    fold = (*FOLDS, PILOT_FOLDS).index(key.folds)
    return DrawnGain(name, fold, key.draw, reached - other, influence - of_other)


def _mean(records: Sequence[Classifier], of: Callable[[Classifier], Measured]) -> Measured:
    values, influences = zip(*map(of, records), strict=True)
    return float(np.mean(values)), np.mean(influences, axis=0)


def name_of(images: Iterable[str]) -> str:
    """The hash of the names of held-out images."""
    return hashlib.sha256("\n".join(images).encode()).hexdigest()[:12]
