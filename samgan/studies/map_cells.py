"""The cells of a map: what synthetic images gain in each, how sure that is, and what could have been seen at all.

A cell is one question with one number of patients at one size. In each, few patients of the small class are drawn
several times; every draw has a generator of its own and classifiers of its own, which are tested on patients of a fold
that none of them saw. A gain in AUC is taken as

    gain[cell, fold, draw] = cell + patients of the fold + draw,

where the last has a variance that is estimated within the folds of the cell, and the second has the variance that
DeLong's influence of each patient gives.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from samgan.metrics.auc import patient_influence

LEVEL = 0.95
POWER = 0.8
FALSE_DISCOVERIES = 0.05


@dataclass(frozen=True, eq=False)
class DrawnGain:
    """What synthetic images gained with one draw of few patients."""

    cell: str
    fold: int
    """Whose patients the classifiers were tested on."""
    draw: int
    """Number of the choice of few patients. Gains of one fold and draw are not taken to be independent."""
    gain: float
    influence: Float[np.ndarray, " patients"]
    """Of each patient of the fold on the gain, in the same order in all draws of a cell and fold; their sum is 0."""


@dataclass(frozen=True)
class CellGain:
    """The gain in a cell over one rival."""

    cell: str
    draws: int
    mean: float
    error: float
    """Standard error over draws and patients."""
    freedom: float
    """Degrees of freedom of the error: those of the spread between draws. Patients have many more, but where the spread
    happens to be estimated too small, they would count for too much, and small p would come too often."""

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Of Student's t."""
        half = float(stats.t.ppf((1 + level) / 2, self.freedom)) * self.error
        return self.mean - half, self.mean + half

    def p(self, sign: int) -> float:
        """One-sided: how likely so large a gain (sign 1) or loss (-1) is if there is none."""
        if not self.error:
            return float(sign * self.mean <= 0)
        return float(stats.t.sf(sign * self.mean / self.error, self.freedom))

    def detectable(self, p: float = (1 - LEVEL) / 2) -> float:
        """The smallest gain whose one-sided p would have been at most this in four cases of five."""
        return float(stats.t.isf(p, self.freedom) + stats.t.ppf(POWER, self.freedom)) * self.error


@dataclass(frozen=True)
class Decision:
    """What a map says of one use of synthetic images in one cell."""

    helps: bool
    """Whether a gain is shown over every rival."""
    harms: bool
    """Whether a loss is shown against the first rival."""
    level: float
    """Of the intervals to tell: 95 %, and wider for what is shown, so that at most 5 % of all intervals of such cells
    miss (Benjamini and Yekutieli 2005)."""
    needed: float
    """The one-sided p that would have been enough to be shown, beside what is shown."""


def gain_in_auc(
    ours: Float[np.ndarray, "n classes"],
    theirs: Float[np.ndarray, "n classes"],
    truth: Int[np.ndarray, " n"],
    patients: Int[np.ndarray, " n"],
) -> tuple[float, Float[np.ndarray, " patients"]]:
    """How much larger the area under the ROC curve is, and the influence of each patient on this.

    Args:
        ours: Probabilities with synthetic images.
        theirs: Probabilities without.
        truth: Classes.
        patients: Whom each image belongs to, counted from 0.

    Returns:
        The difference of the areas that `area_and_influence` gives, and of its influences.
    """
    (area, influence), (other, of_other) = (area_and_influence(p, truth, patients) for p in (ours, theirs))
    return area - other, influence - of_other


def area_and_influence(
    predicted: Float[np.ndarray, "n classes"], truth: Int[np.ndarray, " n"], patients: Int[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, " patients"]]:
    """The area under the ROC curve of one classifier, and the influence of each patient on it.

    Args:
        predicted: Probabilities.
        truth: Classes.
        patients: Whom each image belongs to, counted from 0.

    Returns:
        Of more than two classes, the mean over each against the rest. The influences have the sum 0.
    """
    classes = range(predicted.shape[1]) if predicted.shape[1] > 2 else (1,)
    areas, influences = zip(*(patient_influence(predicted[:, k], truth == k, patients) for k in classes), strict=True)
    return sum(areas) / len(classes), np.mean(influences, axis=0)


def estimate_gains(draws: Sequence[DrawnGain]) -> list[CellGain]:
    """The gain in each cell, in the order in which cells occur.

    Raises:
        ValueError: A cell has no fold with two draws, so it is not known how much they differ.
    """
    of_cells: dict[str, dict[int, list[DrawnGain]]] = defaultdict(lambda: defaultdict(list))
    for draw in draws:
        of_cells[draw.cell][draw.fold].append(draw)
    found = []
    for cell, folds in of_cells.items():
        every = [draw for own in folds.values() for draw in own]
        freedom = len(every) - len(folds)
        if not freedom:
            raise ValueError(f"{cell}: expected two draws or more of a fold, to know how much they differ")
        of_draws = sum(_squares(own) for own in folds.values()) / freedom / len(every)
        of_patients = [_patient_variance(own) * (len(own) / len(every)) ** 2 for own in folds.values()]
        error = math.sqrt(of_draws + sum(of_patients))
        mean = sum(draw.gain for draw in every) / len(every)
        found.append(CellGain(cell, len(every), mean, error, float(freedom)))
    return found


def decide(over: Sequence[Sequence[CellGain]], share: float = 1.0) -> list[Decision]:
    """What is shown in a map, with at most 5 % of false discoveries among all gains and losses that are named.

    A use helps if it gains over every rival: of these one-sided p the largest counts (Berger 1982). It harms if it
    loses against the first one. All of these hypotheses, two for each use and cell, are tested together.

    A part of a map can be decided before the rest is measured, once and for all, with a share of the 5 %. If the shares
    of all parts have the sum 1, no more than 5 % of what the whole map names is false, on average.

    Args:
        over: By rival, the strongest in the pilot first: the gains, of the same cells in the same order.
        share: Of the 5 %.

    Source: Benjamini and Hochberg 1995.
    """
    cells = list(zip(*over, strict=True))
    gains = [max(gain.p(1) for gain in cell) for cell in cells]
    losses = [cell[0].p(-1) for cell in cells]
    count = max(1, 2 * len(cells))
    allowed = FALSE_DISCOVERIES * share
    shown = _discoveries([*gains, *losses], allowed)
    helps, harms = shown[: len(cells)], shown[len(cells) :]
    number = sum(shown)
    # Intervals have two sides, so each has the share of errors of both hypotheses of its cell.
    of_each = allowed * max(1, number) / count
    needed = allowed * min(count, number + 1) / count
    return [
        Decision(gain, loss, 1 - 2 * of_each if gain or loss else LEVEL, of_each if gain or loss else needed)
        for gain, loss in zip(helps, harms, strict=True)
    ]


def _squares(draws: Sequence[DrawnGain]) -> float:
    """The sum of squared differences from the mean."""
    return float(np.square(np.subtract([draw.gain for draw in draws], np.mean([draw.gain for draw in draws]))).sum())


def _patient_variance(draws: Sequence[DrawnGain]) -> float:
    """Variance of the mean gain of draws that were tested on the same patients, over such patients."""
    influence = np.mean([draw.influence for draw in draws], axis=0)
    count = len(influence)
    return float(count / (count - 1) * np.square(influence).sum())


def _discoveries(p: Sequence[float], allowed: float) -> list[bool]:
    """Which hypotheses are rejected by Benjamini and Hochberg 1995, with this rate of false discoveries."""
    order = np.argsort(p)
    below = [rank for rank, i in enumerate(order, 1) if p[i] <= allowed * rank / len(p)]
    rejected = set(order[: max(below, default=0)].tolist())
    return [i in rejected for i in range(len(p))]
