"""What the map is made of: its cells, a record of every classifier, and from these the gain in each cell."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import msgspec
import numpy as np

from samgan.studies.map_cells import CellGain, DrawnGain, estimate_gains

HERE = Path(__file__).parent
PILOT, CELLS, CHOICES = HERE / "pilot.jsonl", HERE / "cells.jsonl", HERE / "choices.json"
SMALL = {"virus": "VIRUS", "three": "VIRUS", "covid": "COVID"}
"""By question, the class of which there are few patients."""
PATIENTS = {64: (10, 25, 50, 100, 250), 128: (25, 100)}
"""By side of the images in pixels, the numbers of patients of the small class that have a cell."""
PILOT_FOLDS, FOLDS = "1-0", ("1-2", "2-1")
"""Trained on and tested on."""
PILOT_SIDE, PILOT_PATIENTS = 64, (25, 100)
DRAWS, SEEDS, GENERATORS = 2, 2, 1
"""In each fold: draws of few patients. Of each draw: classifiers of each way, and generators."""
USES = 3
"""Uses of synthetic images that the pilot chooses for each question."""


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
    """After `kimg` of all classes."""
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
class Classifier:
    """What one classifier came to."""

    key: Key
    scores: dict[str, float]
    """Those of `samgan.metrics.classification.scores`."""
    influence: tuple[float, ...]
    """Of each held-out patient on the AUC, by `samgan.studies.map_cells.area_and_influence`."""
    held_out: str
    """Hash of the names of the held-out images: only records with the same one can be compared."""
    samgan: str
    date: str


@dataclass(frozen=True)
class Choice:
    """What the pilot chose for a question, before the first cell was measured."""

    rival: str
    """The strongest way without synthetic images."""
    uses: tuple[str, ...]
    """The best uses of synthetic images, the best one first."""


@dataclass(frozen=True)
class UseGain:
    """What one use of synthetic images gained in a cell."""

    cell: Cell
    use: str
    rival: str
    rival_auc: float
    gain: CellGain


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
    with open(path, "ab+", buffering=0) as file:
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.truncate(path.read_bytes().rfind(b"\n") + 1)
        file.write(msgspec.json.encode(record) + b"\n")
        os.fsync(file.fileno())


def read_choices() -> dict[str, Choice]:
    """What the pilot chose, by question; empty before the pilot.

    Raises:
        SystemExit: The file is damaged.
    """
    if not CHOICES.exists():
        return {}
    try:
        return msgspec.json.decode(CHOICES.read_bytes(), type=dict[str, Choice])
    except msgspec.DecodeError as error:
        raise SystemExit(f"{CHOICES}: expected what the pilot chose ({error}); run choose again") from None


def choose(records: Sequence[Classifier], rivals: Iterable[str], uses: Iterable[str]) -> dict[str, Choice]:
    """For each question whose pilot is complete: the rival and the uses with the best mean AUC."""
    rivals, uses = list(rivals), list(uses)
    choices = {}
    for question in SMALL:
        places = {
            (Cell(question, PILOT_SIDE, count), draw, seed)
            for count, draw, seed in product(PILOT_PATIENTS, range(DRAWS), range(SEEDS))
        }
        tried: dict[str, dict[tuple[Cell, int, int], float]] = defaultdict(dict)
        for record in records:
            key = record.key
            place = key.cell, key.draw, key.seed
            if place in places and (key.folds, key.budget) == (PILOT_FOLDS, Budget()) and not key.generator:
                tried[key.way][place] = record.scores["auc"]
        if all(tried[way].keys() == places for way in (*rivals, *uses)):
            means = {way: float(np.mean(list(found.values()))) for way, found in tried.items()}
            best = sorted(uses, key=means.__getitem__, reverse=True)[:USES]
            choices[question] = Choice(max(rivals, key=means.__getitem__), tuple(best))
    return choices


def gains(records: Sequence[Classifier], choices: dict[str, Choice]) -> list[UseGain]:
    """The gain of every chosen use in the cells that are complete: `DRAWS` or more whole draws in each of the folds.

    Raises:
        SystemExit: Classifiers that are compared were not tested on the same images.
    """
    of_draws: dict[tuple[Cell, str, str], dict[int, list[Classifier]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        key = record.key
        if key.budget == Budget():
            of_draws[key.cell, key.folds, key.way][key.draw].append(record)
    drawn, told, rivals = [], [], []
    for cell in MAP:
        choice = choices.get(cell.question)
        for rank, use in enumerate(choice.uses if choice else ()):
            whole = []
            for folds in FOLDS:
                ours, theirs = (of_draws[cell, folds, way] for way in (use, choice.rival))
                pairs = [(_whole(ours[draw]), theirs[draw]) for draw in sorted(ours.keys() & theirs.keys())]
                whole.append([pair for pair in pairs if pair[0] and len(pair[1]) >= SEEDS])
            if min(map(len, whole)) < DRAWS:
                continue
            # Uses of one draw share its patients and its rival, so each estimates the spread of draws by itself.
            spread = f"{cell.patients} patients, use {rank}"
            for fold, own in enumerate(whole):
                drawn += [_gain(f"{len(told)}", spread, fold, *pair) for pair in own]
            told.append((cell, use, choice.rival))
            rivals.append(float(np.mean([_mean(theirs)[0] for own in whole for _, theirs in own])))
    found = estimate_gains(drawn)
    return [UseGain(*what, auc, gain) for what, auc, gain in zip(told, rivals, found, strict=True)]


def _whole(ours: Sequence[Classifier]) -> list[Classifier]:
    """Those of generators with as many classifiers as the protocol asks for; none if there are too few generators."""
    counts = Counter(record.key.generator for record in ours)
    whole = {generator for generator, count in counts.items() if count >= SEEDS}
    return [record for record in ours if record.key.generator in whole] if len(whole) >= GENERATORS else []


def _gain(name: str, spread: str, fold: int, ours: Sequence[Classifier], theirs: Sequence[Classifier]) -> DrawnGain:
    """What a draw gains: a mean over generators and classifiers."""
    if len({record.held_out for record in (*ours, *theirs)}) > 1:
        raise SystemExit(f"{ours[0].key.cell}: expected one set of held-out images, found several; prepare it again")
    (area, influence), (other, of_other) = _mean(ours), _mean(theirs)
    return DrawnGain(name, spread, fold, area - other, influence - of_other)


def _mean(records: Sequence[Classifier]) -> tuple[float, np.ndarray]:
    areas, influences = zip(*((record.scores["auc"], record.influence) for record in records), strict=True)
    return float(np.mean(areas)), np.mean(influences, axis=0)
