"""Check the statistics of the map on simulated maps: false positives, coverage of intervals, and power.

    python results/balance/map/simulate.py [--maps 200] [--seed 0]

Each map has the cells, folds and draws of the protocol; of each draw two rivals, and one use of synthetic images. A
classifier's score of an image is the sum of its class, something of its patient, something of the image, and noise of
its own. What a use gains differs from draw to draw: more so with few patients, and differently far in each question. A
part of that is common to draws whose generators began with the same one, in all cells of a question and size, and to
cells of a question, which have patients in common. Without a gain, at most 5 % of cells and of maps may be called a
gain or a loss; with gains and losses, 93 to 97 % of intervals have to hold the true one, which is known exactly here.
Families of cells are decided as in the map itself. Last, every cell has the gain that would have been detectable in it
without one: four in five should be found. Writes simulation.csv.
"""

import argparse
import csv
import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from records import BASES, DRAWS, FAMILIES, FOLDS, MAP, RIVALS, Cell, decided, units
from scipy import optimize, stats

from samgan.studies.map_cells import CellGain, Decision, DrawnGain, area_and_influence, estimate_gains

HERE = Path(__file__).parent
SPREADS = {10: 0.30, 25: 0.20, 50: 0.14, 100: 0.10}
"""By number of patients, the standard deviation over draws of what the distance between the classes gains."""
OF_QUESTION = {"virus": 1.0, "three": 0.7, "covid": 0.4}
"""What that deviation is multiplied by."""
OF_CELLS, OF_BASES = 0.3, 0.15
"""Shares of its variance that cells of a question have in common in a fold and draw, and draws with one base."""
PATIENTS = {
    "virus": ((88, 265, 169), (107, 279, 196)),
    "three": ((88, 265, 502), (107, 279, 522)),
    "covid": ((492, 0, 1555), (466, 0, 1665)),
}
"""Held-out patients of each fold, as the sets have them: with images of the small class alone, of both kinds, and of
the others alone."""
IMAGES = {"virus": (1.22, 1.87), "three": (1.22, 1.65), "covid": (1.04, 1.54)}
"""Images of a patient in the small class, and in the others, on average."""
DISTANCE, OF_PATIENT, OF_IMAGE, OWN = 1.4, 0.5, 0.7, 0.5
"""Of the classes' means in a score, and the standard deviations of its parts."""
SECOND = 0.05
"""How much less distance the second rival has."""
WIDTH = math.sqrt(2 * (OF_PATIENT**2 + OF_IMAGE**2 + OWN**2))
GAINS = {"none": (0.0,), "some": (0.0, 0.01, 0.02, 0.04), "losses": (0.0, -0.02, -0.04, 0.0, 0.02)}
"""In AUC over the first rival, over draws, patients, images and noise; the cells of the maps take these by turns."""


@functools.cache
def distance_gained(gain: float, spread: float) -> float:
    """What the distance gains on average, if the expected gain in AUC is to be this."""
    points, weights = np.polynomial.hermite_e.hermegauss(40)

    def rest(mean: float) -> float:
        areas = stats.norm.cdf((DISTANCE + mean + spread * points) / WIDTH)
        return float((weights * areas).sum() / weights.sum() - stats.norm.cdf(DISTANCE / WIDTH) - gain)

    return float(optimize.brentq(rest, -1.0, 1.0))


def simulated(draw: np.random.Generator, gains: Sequence[float]) -> list[list[CellGain]]:
    """The gains that are found in one map over each of the rivals.

    Args:
        draw: What is drawn from.
        gains: The true ones over the first rival, by cell of the map.
    """
    found: list[list[DrawnGain]] = [[] for _ in range(RIVALS)]
    folds = {(question, fold): _fold(draw, question, fold) for question in PATIENTS for fold in range(len(FOLDS))}
    bases = {(cell.question, cell.side): draw.normal(size=(len(FOLDS), BASES)) for cell in MAP}
    of_patients = draw.normal(size=(len(PATIENTS), len(FOLDS), max(DRAWS.values())))
    for number, (cell, gain) in enumerate(zip(MAP, gains, strict=True)):
        question, spread = list(PATIENTS).index(cell.question), _spread(cell)
        of_cell: list[list[DrawnGain]] = [[] for _ in range(RIVALS)]
        for fold in range(len(FOLDS)):
            truth, of, common = folds[cell.question, fold]
            for of_draw in range(DRAWS[cell]):
                against = [_area(truth, of, common, DISTANCE - SECOND * rank, draw) for rank in range(RIVALS)]
                deviation = (
                    OF_CELLS**0.5 * of_patients[question, fold, of_draw]
                    + OF_BASES**0.5 * bases[cell.question, cell.side][fold, of_draw % BASES]
                    + (1 - OF_CELLS - OF_BASES) ** 0.5 * draw.normal()
                )
                more = distance_gained(gain, spread) + spread * deviation
                area, influence = _area(truth, of, common, DISTANCE + more, draw)
                for own, (other, of_other) in zip(of_cell, against, strict=True):
                    own.append(DrawnGain(f"{number}", fold, of_draw, area - other, influence - of_other))
        for every, own in zip(found, of_cell, strict=True):
            every += units(own)
    return [estimate_gains(own) for own in found]


def decisions_of(found: list[list[CellGain]]) -> list[Decision]:
    """What a map says of each cell when all of them are measured."""
    return [decision for decision in decided(MAP, found, FAMILIES) if decision is not None]


def over_rival(gain: float, rank: int) -> float:
    """The true gain over a rival, from that over the first."""
    first, own = (float(stats.norm.cdf((DISTANCE - SECOND * place) / WIDTH)) for place in (0, rank))
    return gain + first - own


def _spread(cell: Cell) -> float:
    return SPREADS[cell.patients] * OF_QUESTION[cell.question]


def _area(
    truth: np.ndarray, of: np.ndarray, common: np.ndarray, distance: float, draw: np.random.Generator
) -> tuple[float, np.ndarray]:
    return area_and_influence(_scores(truth, common, distance, draw), truth, of)


def _fold(draw: np.random.Generator, question: str, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes of images, their patients, and what all scores of an image share."""
    small, both, others = PATIENTS[question][fold]
    count = small + both + others
    of, truth = [], []
    for first, last, mean, label in ((0, small + both, IMAGES[question][0], 1), (small, count, IMAGES[question][1], 0)):
        own = np.repeat(np.arange(first, last), draw.geometric(1 / mean, size=last - first))
        of.append(own)
        truth.append(np.full(len(own), label))
    of, truth = np.concatenate(of), np.concatenate(truth)
    common = OF_PATIENT * draw.normal(size=count)[of] + OF_IMAGE * draw.normal(size=len(of))
    return truth, of, common


def _scores(truth: np.ndarray, common: np.ndarray, distance: float, draw: np.random.Generator) -> np.ndarray:
    z = distance * truth + common + OWN * draw.normal(size=len(truth))
    return np.stack([-z, z], 1)


class Told:
    """What one simulated map says of one cell."""

    def __init__(self, number: int, gain: float, found: list[list[CellGain]], decision: Decision) -> None:
        self.cell, self.gain, self.decision = MAP[number], gain, decision
        self.over = [of_rank[number] for of_rank in found]
        strongest = min(range(RIVALS), key=lambda rank: self.over[rank].mean)
        self.decisive = 0 if decision.harms else strongest

    @property
    def first(self) -> CellGain:
        """The gain over the first rival."""
        return self.over[0]

    @property
    def detectable(self) -> float:
        """As the page tells it, of the rival that it names."""
        return self.over[self.decisive].detectable(self.decision.needed)

    @property
    def holds(self) -> bool:
        """Whether the 95 % interval over the first rival holds the true gain."""
        low, high = self.first.interval()
        return low <= self.gain <= high

    @property
    def as_told_holds(self) -> bool:
        """The same of the interval that the page tells: of the rival that it names, and wider for what is shown."""
        low, high = self.over[self.decisive].interval(self.decision.level)
        return low <= over_rival(self.gain, self.decisive) <= high

    @property
    def wrong(self) -> bool:
        """Whether it is called a gain or a loss that it is not."""
        return (self.decision.helps and self.gain <= 0) or (self.decision.harms and self.gain >= 0)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seeds, rows, detectable = range(options.seed, options.seed + options.maps), [], defaultdict[Cell, list[float]](list)
    for name, gains in GAINS.items():
        by_turns = {seed: [gains[(number + seed) % len(gains)] for number in range(len(MAP))] for seed in seeds}
        told = [one for seed in seeds for one in _map(seed, len(gains), by_turns[seed])]
        rows += _rows(name, told)
        if name == "none":
            for one in told:
                detectable[one.cell].append(one.detectable)
    means = [float(np.mean(detectable[cell])) for cell in MAP]
    rows += _rows("detectable", [one for seed in seeds for one in _map(seed, 99, means)])
    with open(HERE / "simulation.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _map(seed: int, scenario: int, gains: Sequence[float]) -> list[Told]:
    found = simulated(np.random.default_rng([seed, scenario]), gains)
    decisions = decisions_of(found)
    return [Told(number, gains[number], found, decision) for number, decision in enumerate(decisions)]


def _rows(name: str, told: Sequence[Told]) -> list[dict[str, str]]:
    """One for each cell, and one for all, with the share of false discoveries."""
    maps = [told[start : start + len(MAP)] for start in range(0, len(told), len(MAP))]
    rows = [_row(name, f"{c.question}, {c.side} px, {c.patients}", [one for one in told if one.cell == c]) for c in MAP]
    rows.append(_row(name, "all", told) | {"false_discovery_rate": f"{np.mean([_false(own) for own in maps]):.4f}"})
    print(rows[-1], flush=True)
    return rows


def _false(told: Sequence[Told]) -> float:
    """The share of what is called a gain or a loss that is none."""
    wrong = [one.wrong for one in told if one.decision.helps or one.decision.harms]
    return sum(wrong) / len(wrong) if wrong else 0.0


def _row(name: str, cell: str, told: Sequence[Told]) -> dict[str, str]:
    """How often intervals hold the true gain, p is below 5 %, a gain is found, and how large the errors are.

    Errors are root mean squares, which is what they are compared by.
    """
    return {
        "gains": name,
        "cell": cell,
        "cells": str(len(told)),
        "intervals_that_hold": f"{np.mean([one.holds for one in told]):.4f}",
        "intervals_as_told_that_hold": f"{np.mean([one.as_told_holds for one in told]):.4f}",
        "p_below_0.05": f"{np.mean([2 * min(one.first.p(1), one.first.p(-1)) < 0.05 for one in told]):.4f}",
        "helps": f"{np.mean([one.decision.helps for one in told]):.4f}",
        "harms": f"{np.mean([one.decision.harms for one in told]):.4f}",
        "false_discovery_rate": "",
        "standard_error": f"{_root_mean_square([one.first.error for one in told]):.5f}",
        "true_error": f"{_root_mean_square([one.first.mean - one.gain for one in told]):.5f}",
        "detectable": f"{np.mean([one.detectable for one in told]):.5f}",
        "detectable_is_0.01": f"{np.mean([one.detectable <= 0.01 for one in told]):.4f}",
    }


def _root_mean_square(errors: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


if __name__ == "__main__":
    main()
