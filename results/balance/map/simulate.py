"""Check the statistics of the map on simulated maps: false positives, coverage of intervals, and power.

    python results/balance/map/simulate.py [--maps 200] [--seed 0]

Each map has the cells of the protocol: three questions, five numbers of patients at 64 px and two at 128 px; in each
cell two folds of patients, with the draws of the protocol in each; of each draw two rivals, and three uses of
synthetic images, which share these. A classifier's score of an image is the sum of its class, something of its
patient, something of the image, and noise of its own. What a use gains differs from draw to draw: more so with few
patients, and differently far in each question and for each use. Parts of that are common to the uses of a draw, which
have a generator and rivals in common, and to cells of a question, which have patients in common. Without a gain, at
most 5 % of cells and of maps may be called a gain or a loss; with gains and losses, 93 to 97 % of intervals have to
hold the true one, which is known exactly here. As in the map itself, the cells of each question are decided by
themselves.
Writes simulation.csv.
"""

import argparse
import csv
import functools
import math
from pathlib import Path

import numpy as np
from records import DRAWS, FOLDS, MAP, RIVALS, USES, Cell, decided
from scipy import optimize, stats

from samgan.studies.map_cells import CellGain, Decision, DrawnGain, area_and_influence, estimate_gains

HERE = Path(__file__).parent
SPREADS = {10: 0.30, 25: 0.20, 50: 0.14, 100: 0.10, 250: 0.07}
"""By number of patients, the standard deviation over draws of what the distance between the classes gains."""
OF_QUESTION = {"virus": 1.0, "three": 0.7, "covid": 0.4}
"""What that deviation is multiplied by."""
OF_USE = (0.5, 1.0, 1.5)
"""And what it is multiplied by for each use: uses are of different kinds, which draws may make differ unequally."""
OF_CELLS, OF_USES = 0.3, 0.4
"""Shares of its variance that cells of a question and that the uses of a cell have in common, in a fold and draw."""
PATIENTS, PREVALENCE = 700, 0.35
DISTANCE, OF_PATIENT, OF_IMAGE, OWN = 1.4, 0.5, 0.7, 0.5
"""Of the classes' means in a score, and the standard deviations of its parts."""
SECOND = 0.05
"""How much less distance the second rival has."""
GAINS = {"none": (0.0,), "some": (0.0, 0.01, 0.02, 0.04), "losses": (0.0, -0.02, -0.04, 0.0, 0.02)}
"""In AUC over the first rival, over draws, patients, images and noise; cells and uses take these by turns."""


@functools.cache
def distance_gained(gain: float, spread: float) -> float:
    """What the distance gains on average, if the expected gain in AUC is to be this."""
    width = math.sqrt(2 * (OF_PATIENT**2 + OF_IMAGE**2 + OWN**2))
    points, weights = np.polynomial.hermite_e.hermegauss(40)

    def rest(mean: float) -> float:
        areas = stats.norm.cdf((DISTANCE + mean + spread * points) / width)
        return float((weights * areas).sum() / weights.sum() - stats.norm.cdf(DISTANCE / width) - gain)

    return float(optimize.brentq(rest, -1.0, 1.0))


def simulated(draw: np.random.Generator, gains: tuple[float, ...]) -> tuple[list[list[CellGain]], list[float]]:
    """The gains that are found in one map over each of the rivals, and the true ones over the first."""
    found: list[list[DrawnGain]] = [[] for _ in range(RIVALS)]
    folds = {(question, fold): _fold(draw) for question in OF_QUESTION for fold in range(len(FOLDS))}
    of_patients = draw.normal(size=(len(OF_QUESTION), len(FOLDS), DRAWS))
    true = [gains[number % len(gains)] for number in range(len(MAP) * USES)]
    for number, cell in enumerate(MAP):
        question = list(OF_QUESTION).index(cell.question)
        for fold in range(len(FOLDS)):
            truth, of, common = folds[cell.question, fold]
            for of_draw in range(DRAWS):
                against = [_area(truth, of, common, DISTANCE - SECOND * rank, draw) for rank in range(RIVALS)]
                shared = OF_CELLS**0.5 * of_patients[question, fold, of_draw] + OF_USES**0.5 * draw.normal()
                for use in range(USES):
                    spread = _spread(cell, use)
                    deviation = shared + (1 - OF_CELLS - OF_USES) ** 0.5 * draw.normal()
                    more = distance_gained(true[USES * number + use], spread) + spread * deviation
                    area, influence = _area(truth, of, common, DISTANCE + more, draw)
                    name, kind = f"{number} {use}", f"{cell.question} {cell.patients} {use}"
                    for own, (other, of_other) in zip(found, against, strict=True):
                        own.append(DrawnGain(name, kind, fold, of_draw, area - other, influence - of_other))
    return [estimate_gains(own) for own in found], true


def decisions_of(found: list[list[CellGain]]) -> list[Decision]:
    """What a map says of each cell and use when all of them are measured."""
    questions = [cell.question for cell in MAP for _ in range(USES)]
    told = decided(questions, found, set(questions), 2 * len(questions))
    return [decision for decision in told if decision is not None]


def _spread(cell: Cell, use: int) -> float:
    return SPREADS[cell.patients] * OF_QUESTION[cell.question] * OF_USE[use]


def _area(
    truth: np.ndarray, of: np.ndarray, common: np.ndarray, distance: float, draw: np.random.Generator
) -> tuple[float, np.ndarray]:
    return area_and_influence(_scores(truth, common, distance, draw), truth, of)


def _fold(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes of images, their patients, and what all scores of an image share."""
    of = np.repeat(np.arange(PATIENTS), 1 + draw.geometric(0.5, size=PATIENTS))
    truth = (draw.random(PATIENTS) < PREVALENCE).astype(int)[of]
    common = OF_PATIENT * draw.normal(size=PATIENTS)[of] + OF_IMAGE * draw.normal(size=len(of))
    return truth, of, common


def _scores(truth: np.ndarray, common: np.ndarray, distance: float, draw: np.random.Generator) -> np.ndarray:
    z = distance * truth + common + OWN * draw.normal(size=len(truth))
    return np.stack([-z, z], 1)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    patients = [cell.patients for cell in MAP for _ in range(USES)]
    rows = []
    for name, gains in GAINS.items():
        told, maps = [], []
        for seed in range(options.seed, options.seed + options.maps):
            ranks, true = simulated(np.random.default_rng([seed, len(gains)]), gains)
            decisions = decisions_of(ranks)
            maps.append(_false(decisions, true))
            told += list(zip(patients, ranks[0], true, decisions, strict=True))
        for count in SPREADS:
            rows.append(_row(name, str(count), [own for own in told if own[0] == count], ""))
        rows.append(_row(name, "all", told, f"{np.mean(maps):.4f}"))
        print(rows[-1], flush=True)
    with open(HERE / "simulation.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _false(decisions: list[Decision], true: list[float]) -> float:
    """The share of what is called a gain or a loss that is none."""
    wrong = [
        (one.helps and value <= 0) or (one.harms and value >= 0)
        for one, value in zip(decisions, true, strict=True)
        if one.helps or one.harms
    ]
    return sum(wrong) / len(wrong) if wrong else 0.0


def _row(name: str, patients: str, cells: list[tuple[int, CellGain, float, Decision]], false: str) -> dict[str, str]:
    """How often intervals of 95 % hold the true gain, p is below 5 %, a gain is found, and how large the errors are.

    Errors are root mean squares, which is what they are compared by.
    """
    detectable = [cell.detectable(one.needed) for _, cell, _, one in cells]
    found = [(cell, value) for _, cell, value, _ in cells]
    held = [low <= value <= high for (low, high), value in ((cell.interval(), value) for cell, value in found)]
    return {
        "gains": name,
        "patients": patients,
        "cells": str(len(cells)),
        "intervals_that_hold": f"{np.mean(held):.4f}",
        "p_below_0.05": f"{np.mean([2 * min(cell.p(1), cell.p(-1)) < 0.05 for cell, _ in found]):.4f}",
        "helps": f"{np.mean([one.helps for *_, one in cells]):.4f}",
        "harms": f"{np.mean([one.harms for *_, one in cells]):.4f}",
        "false_discovery_rate": false,
        "standard_error": f"{_root_mean_square([cell.error for cell, _ in found]):.5f}",
        "true_error": f"{_root_mean_square([cell.mean - value for cell, value in found]):.5f}",
        "detectable": f"{np.mean(detectable):.5f}",
        "detectable_is_0.01": f"{np.mean(np.less_equal(detectable, 0.01)):.4f}",
    }


def _root_mean_square(errors: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


if __name__ == "__main__":
    main()
