"""What the map is made of: its cells, a record of every classifier, and from these the gain in each cell."""

import base64
import functools
import hashlib
import itertools
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
from scipy import stats
from scipy.special import softmax

from samgan.errors import SamganError
from samgan.files import atomic_write, locked
from samgan.studies.map_cells import CellGain, Decision, DrawnGain, area_and_influence, decide, estimate_gains

HERE = Path(__file__).parent
PILOT, CELLS, CHOICES = HERE / "pilot.jsonl", HERE / "cells.jsonl", HERE / "choices.json"
HELD_OUT = HERE / "held_out"
"""A file for each set of held-out images: their classes, and whom they belong to, by numbers."""
SMALL = {"virus": "VIRUS", "three": "VIRUS", "covid": "COVID"}
"""By question, the class of which there are few patients."""
PATIENTS = {64: (10, 25, 50, 100, 250), 128: (25, 100)}
"""By side of the images in pixels, the numbers of patients of the small class that have a cell."""
PILOT_FOLDS, FOLDS = "1-0", ("1-2", "2-1")
"""Trained on and tested on."""
PILOT_SIDE, PILOT_PATIENTS, PILOT_DRAWS = 64, (25, 100), 2
USES_FROM = "virus"
"""The question whose pilot tries uses of synthetic images; of the others, it tries the ways without them."""
DRAWS, SEEDS = 3, 2
"""In each fold: draws of few patients, each with a generator of its own. Of each draw: classifiers of each way."""
USES, RIVALS = 3, 2
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


MAP = [Cell(question, side, count) for question in SMALL for side in PATIENTS for count in PATIENTS[side]]


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
    precision: str
    """Of classifiers."""
    samgan: str
    commit: str
    torch: str
    procedure: int
    """`samgan.studies.classifier.PROCEDURE`."""


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
    seconds: float
    """Of training and testing the classifier."""
    machine: Machine
    date: str
    other_hospital: float | None = None
    """AUC on images of another hospital, of the classes that these have; None: there are none for this question."""
    recipe: str = ""
    """Hash of the generator's settings but its seed; empty: no synthetic image was used."""
    generator_seconds: float = 0.0
    """Of training the generators of its images; other ways of the draw, and other draws, may share them."""
    models: tuple[str, ...] = ()
    """SHA-256 of these generators."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out images, in the order of the records' probabilities."""

    classes: tuple[str, ...]
    truth: tuple[int, ...]
    patients: tuple[int, ...]
    """Whom each image belongs to, counted from 0."""

    def write(self, name: str) -> None:
        """Keep it under the hash that records have."""
        path = HELD_OUT / f"{name}.json"
        if not path.exists():
            HELD_OUT.mkdir(exist_ok=True)
            with atomic_write(path) as file:
                file.write(msgspec.json.encode(self) + b"\n")

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
class Choices:
    """What the pilot chose, before the first cell was measured."""

    uses: tuple[str, ...]
    """The best uses of synthetic images, the best one first."""
    rivals: dict[str, dict[int, tuple[str, ...]]]
    """By question and number of patients of the pilot: the strongest ways without synthetic images, the best first."""
    draws: int = DRAWS
    """Of few patients, in each fold of each cell. Others are not counted."""

    def rivals_of(self, cell: Cell) -> tuple[str, ...]:
        """Those that the pilot found at the number of patients with the nearest ratio, the smaller of two."""
        own = self.rivals[cell.question]
        return own[min(sorted(own), key=lambda count: abs(np.log(count / cell.patients)))]


@dataclass(frozen=True)
class Rival:
    """One way without synthetic images in a cell, and what a use gained over it."""

    way: str
    auc: float
    gain: CellGain


@dataclass(frozen=True)
class UseGain:
    """What one use of synthetic images gained in a cell."""

    cell: Cell
    use: str
    rivals: tuple[Rival, ...]
    """In the order of the pilot."""
    decision: Decision | None
    """None: not all cells of its question are measured, so nothing is decided yet."""
    recall: float
    """Gain in recall of the small class at `SPECIFICITY`, over the first rival."""
    calibration: float
    """Change of the calibration error against the first rival; lower is better."""
    other_hospital: float | None
    """Gain in AUC on another hospital's images, over the first rival; None: there are none."""
    minutes: float
    """Of training a draw's generators and one classifier of its images, on average."""

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


def probabilities(record: Classifier) -> np.ndarray:
    """Of the held-out images, [images, classes]."""
    known = HeldOut.read(record.held_out)
    logs = np.frombuffer(base64.b64decode(record.predicted), "<f2").astype(float)
    if len(logs) != len(known.truth) * len(known.classes):
        raise SystemExit(f"{record.key}: expected probabilities of {len(known.truth)} images in {known.classes}")
    return softmax(logs.reshape(len(known.truth), -1), axis=1)


def recall_at(predicted: np.ndarray, truth: np.ndarray, small: int, specificity: float = SPECIFICITY) -> float:
    """Recall of a class where this share of the others is told to be none of it."""
    threshold = np.quantile(predicted[truth != small, small], specificity, method="higher")
    return float((predicted[truth == small, small] > threshold).mean())


def read(path: Path) -> list[Classifier]:
    """The records of a file, each classifier once. A last line that was cut off is left out.

    Raises:
        SystemExit: A line is no record.
    """
    found: dict[Key, Classifier] = {}
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        try:
            record = msgspec.json.decode(line, type=Classifier)
        except msgspec.DecodeError as error:
            raise SystemExit(f"{path}, line {number}: expected a record of a classifier ({error}); remove it") from None
        found.setdefault(record.key, record)
    return list(found.values())


def add(path: Path, record: Classifier) -> None:
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


def pilot_ways(question: str, rivals: Iterable[str], uses: Iterable[str]) -> list[str]:
    """What the pilot tries for a question."""
    return [*rivals, *(uses if question == USES_FROM else ())]


def choose(records: Sequence[Classifier], rivals: Iterable[str], uses: dict[str, str], draws: int) -> Choices | None:
    """The rivals of each question whose pilot is complete, and the uses; None before the pilot of `USES_FROM` is.

    What has been chosen stays, since cells may have been measured by it: only questions are added.

    Args:
        records: Of the pilot.
        rivals: Ways without synthetic images.
        uses: Ways with them, and the family of each: of a family, at most one is chosen.
        draws: How many draws the cells will have in each fold.
    """
    rivals, chosen, best = list(rivals), dict[str, dict[int, tuple[str, ...]]](), tuple[str, ...]()
    for question in SMALL:
        means = {count: _means(records, Cell(question, PILOT_SIDE, count)) for count in PILOT_PATIENTS}
        if all(way in found for found in means.values() for way in pilot_ways(question, rivals, uses)):
            chosen[question] = {
                count: tuple(sorted(rivals, key=found.__getitem__, reverse=True)[:RIVALS])
                for count, found in means.items()
            }
            if question == USES_FROM:
                together = {use: sum(found[use] for found in means.values()) for use in uses}
                ranked = sorted(uses, key=together.__getitem__, reverse=True)
                first = {uses[use]: use for use in reversed(ranked)}  # the best of each family
                best = tuple(use for use in ranked if first[uses[use]] == use)[:USES]
    if before := read_choices():
        return Choices(before.uses, chosen | before.rivals, before.draws)
    return Choices(best, chosen, draws) if best else None


def _means(records: Sequence[Classifier], cell: Cell) -> dict[str, float]:
    """The mean AUC in a cell of the pilot of each way that was tried in full."""
    places = set(product(range(PILOT_DRAWS), range(SEEDS)))
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
        """What so many draws in each of two folds would show in four cases of five, taken by itself."""
        error = (self.of_draws**2 / (2 * draws) + self.of_patients**2 / 2) ** 0.5
        freedom = 2 * (draws - 1)
        return float(stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)) * error


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
            drawn = [_gain("", "", own[use][draw], own[best][draw]) for draw in range(PILOT_DRAWS)]
            gained[use] = [draw.gain for draw in drawn]
            influence = np.mean([draw.influence for draw in drawn], axis=0)
            of_patients[use] = float(np.sqrt(np.square(influence).sum()))
    # Two draws of one use tell next to nothing of how far draws differ, so the uses of a cell are taken together.
    of_draws = float(np.sqrt(np.mean([np.var(gains, ddof=1) for gains in gained.values()]))) if gained else 0.0
    return {use: Spread(float(np.mean(gains)), of_draws, of_patients[use]) for use, gains in gained.items()}


def _of_pilot(records: Iterable[Classifier], cell: Cell) -> list[Classifier]:
    """Those that count in a cell of the pilot."""
    return [
        record
        for record in records
        if (record.key.cell, record.key.folds, record.key.budget) == (cell, PILOT_FOLDS, Budget())
        and record.key.draw < PILOT_DRAWS
        and record.key.seed < SEEDS
    ]


Compared = dict[tuple[Cell, str], dict[str, list[Classifier]]]
"""By cell and way, and then by fold and draw: the classifiers."""


def gains(records: Sequence[Classifier], choices: Choices | None) -> list[UseGain]:
    """The gain of every chosen use in the cells that are complete: all draws that were decided, in each of the folds.

    Raises:
        SystemExit: Classifiers that are compared were not tested on the same images.
    """
    if choices is None:
        return []
    complete = _complete(records, choices)
    measured = [
        (cell, use, choices.rivals_of(cell))
        for cell in MAP
        if cell.question in choices.rivals
        for use in choices.uses
        if all((cell, way) in complete for way in (use, *choices.rivals_of(cell)))
    ]
    told = [
        (cell, use, ways)
        for cell, use, ways in measured
        if _comparable(complete[cell, use], [complete[cell, way] for way in ways])
    ]
    drawn: list[list[DrawnGain]] = [[] for _ in range(RIVALS)]
    for number, (cell, use, ways) in enumerate(told):
        spread = f"{cell.question}, {cell.patients} patients, {use}"
        for rank, way in enumerate(ways):
            for ours, theirs in zip(complete[cell, use], complete[cell, way], strict=True):
                drawn[rank].append(_gain(f"{number}", spread, ours, theirs))
    found = [estimate_gains(own) for own in drawn]
    count = Counter(cell.question for cell, *_ in measured)
    ready = {
        question
        for question in choices.rivals
        if count[question] == len(choices.uses) * sum(cell.question == question for cell in MAP)
    }
    decisions = decided([cell.question for cell, *_ in told], found, ready, 2 * len(MAP) * len(choices.uses))
    return [
        _use_gain(*what, [of_rank[number] for of_rank in found], decision, complete)
        for number, (what, decision) in enumerate(zip(told, decisions, strict=True))
    ]


def _complete(records: Sequence[Classifier], choices: Choices) -> dict[tuple[Cell, str], list[list[Classifier]]]:
    """Of each cell and way of which all draws are done: the classifiers, by fold and draw."""
    of: Compared = defaultdict(lambda: defaultdict(list))
    for record in records:
        key = record.key
        if key.budget == Budget() and key.draw < choices.draws and key.seed < SEEDS:
            of[key.cell, key.way][f"{key.folds} {key.draw}"].append(record)
    places = [f"{folds} {draw}" for folds in FOLDS for draw in range(choices.draws)]
    return {
        what: [found[place] for place in places]
        for what, found in of.items()
        if all(len(found[place]) == SEEDS for place in places)
    }


def decided(
    questions: Sequence[str], found: Sequence[Sequence[CellGain]], ready: set[str], hypotheses: int
) -> list[Decision | None]:
    """What is shown of each gain: the cells of a question are decided together, once all of them are measured.

    So it does not matter which are done first, and what was decided stays: each question has its share of the false
    discoveries that the whole map may have.
    """
    decisions: list[Decision | None] = [None] * len(questions)
    for question in ready:
        own = [number for number, name in enumerate(questions) if name == question]
        own_decisions = decide([[of_rank[number] for number in own] for of_rank in found], hypotheses)
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
        Rival(way, float(np.mean([_area(record)[0] for own in complete[cell, way] for record in own])), gain)
        for way, gain in zip(ways, found, strict=True)
    )
    recall, calibration = (np.mean([of(r) for r in ours]) - np.mean([of(r) for r in first]) for of in (_recall, _error))
    elsewhere = [[r.other_hospital for r in own if r.other_hospital is not None] for own in (ours, first)]
    other = float(np.mean(elsewhere[0]) - np.mean(elsewhere[1])) if all(elsewhere) else None
    minutes = np.mean([record.generator_seconds + record.seconds for record in ours]) / 60
    return UseGain(cell, use, rivals, decision, float(recall), float(calibration), other, float(minutes))


def _recall(record: Classifier) -> float:
    known = HeldOut.read(record.held_out)
    small = known.classes.index(SMALL[record.key.cell.question])
    return recall_at(probabilities(record), np.array(known.truth), small)


def _error(record: Classifier) -> float:
    return record.scores["calibration_error"]


def _comparable(ours: list[list[Classifier]], rivals: list[list[list[Classifier]]]) -> bool:
    """Whether generators and classifiers of a use were trained alike; if not, that is told, and the use is left out."""
    recipes = Counter(record.recipe for own in ours for record in own)
    every = [record for draws in (ours, *rivals) for own in draws for record in own]
    procedures = Counter((record.machine.procedure, record.machine.precision) for record in every)
    models = max(len({record.models for record in own}) for own in ours)
    reasons = [
        f"its generators have several recipes: {dict(recipes)}" if len(recipes) > 1 else "",
        f"its classifiers were trained in several ways: {dict(procedures)}" if len(procedures) > 1 else "",
        "classifiers of one draw have images of several generators" if models > 1 else "",
    ]
    key = ours[0][0].key
    for reason in filter(None, reasons):
        print(f"{key.cell}, {key.way}: left out, since {reason}")
    return not any(reasons)


def _gain(name: str, spread: str, ours: Sequence[Classifier], theirs: Sequence[Classifier]) -> DrawnGain:
    """What a draw gains: a mean over classifiers."""
    if len({record.held_out for record in (*ours, *theirs)}) > 1:
        raise SystemExit(f"{ours[0].key.cell}: expected one set of held-out images, found several; prepare it again")
    (area, influence), (other, of_other) = _mean(ours), _mean(theirs)
    key = ours[0].key
    fold = (*FOLDS, PILOT_FOLDS).index(key.folds)
    return DrawnGain(name, spread, fold, key.draw, area - other, influence - of_other)


def _mean(records: Sequence[Classifier]) -> tuple[float, np.ndarray]:
    areas, influences = zip(*map(_area, records), strict=True)
    return float(np.mean(areas)), np.mean(influences, axis=0)


def _area(record: Classifier) -> tuple[float, np.ndarray]:
    """The AUC of a classifier, and the influence of each held-out patient on it."""
    known = HeldOut.read(record.held_out)
    return area_and_influence(probabilities(record), np.array(known.truth), np.array(known.patients))


def name_of(images: Iterable[str]) -> str:
    """The hash of the names of held-out images."""
    return hashlib.sha256("\n".join(images).encode()).hexdigest()[:12]
