"""Check the statistics of the map on simulated maps: false positives, coverage of intervals, and power.

    python results/balance/map/simulate.py [--maps 400]

Each map has the cells of the protocol: three questions, five numbers of patients at 64 px and two at 128 px, in each
cell two folds of patients with two draws each. A classifier's score of an image is the sum of its class, something of
its patient, something of the image, and noise of its own; those with and without synthetic images share the patients
and images. What a draw of patients gains differs from draw to draw, more so with few patients. Without a gain, at most
5 % of cells and maps may be called a gain; with gains, 93 to 97 % of intervals have to hold the true gain, which is
known exactly here. Writes simulation.csv.
"""

import argparse
import csv
import functools
import math
from pathlib import Path

import numpy as np
from scipy import optimize, stats

from samgan.studies.map_cells import CellGain, DrawnGain, estimate_gains, gain_in_auc

HERE = Path(__file__).parent
QUESTIONS = ("virus", "three", "covid")
SPREADS = {10: 0.30, 25: 0.20, 50: 0.14, 100: 0.10, 250: 0.07}
"""By number of patients, the standard deviation over draws of what the distance between the classes gains."""
CELLS = [(q, 64, n) for q in QUESTIONS for n in SPREADS] + [(q, 128, n) for q in QUESTIONS for n in (25, 100)]
PATIENTS, PREVALENCE = 700, 0.35
DISTANCE, OF_PATIENT, OF_IMAGE, OWN = 1.4, 0.5, 0.7, 0.5
"""Of the classes' means in a score, and the standard deviations of its parts."""
GAINS = {"none": (0.0,), "some": (0.0, 0.01, 0.02, 0.04)}
"""In AUC, over draws, patients, images and noise; the cells take these by turns."""


@functools.cache
def distance_gained(gain: float, spread: float) -> float:
    """What the distance gains on average, if the expected gain in AUC is to be this."""
    width = math.sqrt(2 * (OF_PATIENT**2 + OF_IMAGE**2 + OWN**2))
    points, weights = np.polynomial.hermite_e.hermegauss(40)

    def rest(mean: float) -> float:
        areas = stats.norm.cdf((DISTANCE + mean + spread * points) / width)
        return float((weights * areas).sum() / weights.sum() - stats.norm.cdf(DISTANCE / width) - gain)

    return float(optimize.brentq(rest, -1.0, 1.0))


def simulated(draw: np.random.Generator, gains: tuple[float, ...]) -> tuple[list[CellGain], list[float]]:
    """The gains that are found in one map, and the true ones."""
    found, true = [], []
    folds = {(question, fold): _fold(draw) for question in QUESTIONS for fold in (0, 1)}
    for number, (question, side, patients) in enumerate(CELLS):
        gain, spread = gains[number % len(gains)], SPREADS[patients]
        true.append(gain)
        for fold in (0, 1):
            truth, of, common = folds[question, fold]
            for _ in range(2):
                more = distance_gained(gain, spread) + spread * draw.normal()
                ours, theirs = (_scores(truth, common, distance, draw) for distance in (DISTANCE + more, DISTANCE))
                difference, influence = gain_in_auc(ours, theirs, truth, of)
                found.append(DrawnGain(f"{question}-{side}-{patients}", str(patients), fold, difference, influence))
    return estimate_gains(found), true


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
    parser.add_argument("--maps", type=int, default=400)
    count = parser.parse_args().maps
    rows = []
    for name, gains in GAINS.items():
        cells, maps = [], []
        for seed in range(count):
            found, true = simulated(np.random.default_rng([seed, len(gains)]), gains)
            maps.append([value for cell, value in zip(found, true, strict=True) if cell.shown])
            cells += list(zip(found, true, strict=True))
        for patients in SPREADS:
            own = [(cell, value) for cell, value in cells if cell.cell.endswith(f"-{patients}")]
            rows.append(_row(name, str(patients), own, maps=""))
        false = [shown.count(0.0) / len(shown) if shown else 0.0 for shown in maps]
        rows.append(_row(name, "all", cells, maps=f"{np.mean(false):.4f}"))
        print(rows[-1], flush=True)
    with open(HERE / "simulation.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _row(name: str, patients: str, cells: list[tuple[CellGain, float]], maps: str) -> dict[str, str]:
    """How often intervals of 95 % hold the true gain, p is below 5 %, and how large the errors are."""
    held = [abs(cell.mean - value) <= stats.t.ppf(0.975, cell.freedom) * cell.error for cell, value in cells]
    small = [cell.p < 0.05 for cell, _ in cells]
    return {
        "gains": name,
        "patients": patients,
        "cells": str(len(cells)),
        "intervals_that_hold": f"{np.mean(held):.4f}",
        "p_below_0.05": f"{np.mean(small):.4f}",
        "shown": f"{np.mean([cell.shown for cell, _ in cells]):.4f}",
        "false_discovery_rate": maps,
        "standard_error": f"{np.mean([cell.error for cell, _ in cells]):.5f}",
        "true_deviation": f"{np.std([cell.mean - value for cell, value in cells]):.5f}",
        "detectable": f"{np.mean([cell.detectable for cell, _ in cells]):.5f}",
    }


if __name__ == "__main__":
    main()
