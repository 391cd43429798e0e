"""Check the statistics of the map on simulated maps: false positives, coverage of intervals, and power.

    python results/balance/map/simulate.py [--maps 200] [--seed 0]

Each map has the cells of the protocol: three questions, five numbers of patients at 64 px and two at 128 px; in each
cell two folds of patients, with the draws of the protocol in each; of each draw two rivals, and three uses of synthetic
images, which share these. A classifier's score of an image is the sum of its class, something of its patient, something
of the image, and noise of its own. What a use gains differs from draw to draw: more so with few patients, differently
far in each question, and half of it is common to all cells that have a draw's patients in common. Without a gain, at
most 5 % of cells and of maps may be called a gain; with gains, 93 to 97 % of intervals have to hold the true gain,
which is known exactly here. Writes simulation.csv.
"""

import argparse
import csv
import functools
import math
from pathlib import Path

import numpy as np
from records import DRAWS, FOLDS, MAP, RIVALS, USES, Cell
from scipy import optimize, stats

from samgan.studies.map_cells import CellGain, DrawnGain, area_and_influence, estimate_gains

HERE = Path(__file__).parent
SPREADS = {10: 0.30, 25: 0.20, 50: 0.14, 100: 0.10, 250: 0.07}
"""By number of patients, the standard deviation over draws of what the distance between the classes gains."""
OF_QUESTION = {"virus": 1.0, "three": 0.7, "covid": 0.4}
"""What that deviation is multiplied by."""
COMMON = 0.5
"""Share of its variance that cells of a question have in common, in the same fold and draw."""
PATIENTS, PREVALENCE = 700, 0.35
DISTANCE, OF_PATIENT, OF_IMAGE, OWN = 1.4, 0.5, 0.7, 0.5
"""Of the classes' means in a score, and the standard deviations of its parts."""
SECOND = 0.05
"""How much less distance the second rival has."""
GAINS = {"none": (0.0,), "some": (0.0, 0.01, 0.02, 0.04)}
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
    together = draw.normal(size=(len(OF_QUESTION), len(FOLDS), DRAWS, USES))
    true = [gains[number % len(gains)] for number in range(len(MAP) * USES)]
    for number, cell in enumerate(MAP):
        spread, question = _spread(cell), list(OF_QUESTION).index(cell.question)
        for fold in range(len(FOLDS)):
            truth, of, common = folds[cell.question, fold]
            for of_draw in range(DRAWS):
                against = [_area(truth, of, common, DISTANCE - SECOND * rank, draw) for rank in range(RIVALS)]
                for use in range(USES):
                    shared = COMMON**0.5 * together[question, fold, of_draw, use]
                    deviation = shared + (1 - COMMON) ** 0.5 * draw.normal()
                    more = distance_gained(true[USES * number + use], spread) + spread * deviation
                    area, influence = _area(truth, of, common, DISTANCE + more, draw)
                    name, kind = f"{number} {use}", f"{cell.question} {cell.patients}"
                    for own, (other, of_other) in zip(found, against, strict=True):
                        own.append(DrawnGain(name, kind, fold, of_draw, area - other, influence - of_other))
    return [estimate_gains(own) for own in found], true


def _spread(cell: Cell) -> float:
    return SPREADS[cell.patients] * OF_QUESTION[cell.question]


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
        first, helped = [], []
        for seed in range(options.seed, options.seed + options.maps):
            ranks, true = simulated(np.random.default_rng([seed, len(gains)]), gains)
            over_all = [all(cell.shown and cell.mean > 0 for cell in ranked) for ranked in zip(*ranks, strict=True)]
            helped.append([value for value, found in zip(true, over_all, strict=True) if found])
            first += list(zip(patients, ranks[0], true, over_all, strict=True))
        for count in SPREADS:
            rows.append(_row(name, str(count), [own for own in first if own[0] == count], maps=""))
        false = [shown.count(0.0) / len(shown) if shown else 0.0 for shown in helped]
        rows.append(_row(name, "all", first, maps=f"{np.mean(false):.4f}"))
        print(rows[-1], flush=True)
    with open(HERE / "simulation.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _row(name: str, patients: str, cells: list[tuple[int, CellGain, float, bool]], maps: str) -> dict[str, str]:
    """How often intervals of 95 % hold the true gain, p is below 5 %, a gain is found, and how large the errors are."""
    found = [(cell, value) for _, cell, value, _ in cells]
    held = [abs(cell.mean - value) <= stats.t.ppf(0.975, cell.freedom) * cell.error for cell, value in found]
    return {
        "gains": name,
        "patients": patients,
        "cells": str(len(cells)),
        "intervals_that_hold": f"{np.mean(held):.4f}",
        "p_below_0.05": f"{np.mean([cell.p < 0.05 for cell, _ in found]):.4f}",
        "helps": f"{np.mean([helps for *_, helps in cells]):.4f}",
        "false_discovery_rate": maps,
        "standard_error": f"{np.mean([cell.error for cell, _ in found]):.5f}",
        "true_deviation": f"{np.std([cell.mean - value for cell, value in found]):.5f}",
        "detectable": f"{np.mean([cell.detectable for cell, _ in found]):.5f}",
    }


if __name__ == "__main__":
    main()
