"""The cells of a map: what synthetic images gain in each, how sure that is, and what could have been seen at all.

A cell is one question with one number of patients at one size. In each, few patients of the small class are drawn
several times; every draw has a generator of its own and classifiers of its own, which are tested on patients of a fold
that none of them saw. A gain in AUC is taken as

    gain[cell, fold, draw] = cell + patients of the fold + draw,

where the last has a variance that cells of the same `spread` share, estimated within folds, and the second
has the variance that DeLong's influence of each patient gives.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    spread: str
    """Cells with the same name here are taken to have equal variance between draws, such as those of one question with
    the same number of patients."""
    fold: int
    """Whose patients the classifiers were tested on."""
    draw: int
    """Number of the choice of few patients. Gains of one fold and draw are not taken to be independent."""
    gain: float
    influence: Float[np.ndarray, " patients"]
    """Of each patient of the fold on the gain, in the same order in all draws of a cell and fold; their sum is 0."""


@dataclass(frozen=True)
class CellGain:
    """The gain in a cell."""

    cell: str
    draws: int
    mean: float
    error: float
    """Standard error over draws and patients."""
    freedom: float
    """Degrees of freedom of the error."""
    low: float
    high: float
    """Of 95 %; for a cell that is shown, such that at most 5 % of all intervals of such cells miss (Benjamini and
    Yekutieli 2005)."""
    p: float
    shown: bool
    """Whether it differs from 0, with at most 5 % of false discoveries over the map (Benjamini and Hochberg 1995)."""
    detectable: float
    """The smallest gain that would have been shown, beside those that are, in four cases of five."""


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
        ValueError: Cells with the same spread have no fold with two draws, so their spread is not known.
    """
    of_cells: dict[str, dict[int, list[DrawnGain]]] = defaultdict(lambda: defaultdict(list))
    for draw in draws:
        of_cells[draw.cell][draw.fold].append(draw)
    spreads = _spreads(draws)
    raw = []
    for cell, folds in of_cells.items():
        every = [draw for own in folds.values() for draw in own]
        variance, freedom = spreads[every[0].spread]
        of_draws = variance / len(every)
        of_patients = [_patient_variance(own) * (len(own) / len(every)) ** 2 for own in folds.values()]
        counts = [len(own[0].influence) - 1 for own in folds.values()]
        error = math.sqrt(of_draws + sum(of_patients))
        satterthwaite = of_draws**2 / freedom + sum(v**2 / n for v, n in zip(of_patients, counts, strict=True))
        df = error**4 / satterthwaite if satterthwaite else float(freedom)
        mean = sum(draw.gain for draw in every) / len(every)
        p = float(2 * stats.t.sf(abs(mean) / error, df)) if error else float(mean == 0)
        raw.append(_Raw(cell, len(every), mean, error, df, p))
    shown = _discoveries([found.p for found in raw])
    # Of k that are shown among m: their intervals, and what one more would have needed.
    of_shown, of_next = (1 - (1 - LEVEL) * count / max(1, len(raw)) for count in (max(1, sum(shown)), sum(shown) + 1))
    return [
        _cell_gain(found, is_shown, of_shown if is_shown else LEVEL, max(LEVEL, of_shown if is_shown else of_next))
        for found, is_shown in zip(raw, shown, strict=True)
    ]


class _Raw(NamedTuple):
    """What is known of a cell by itself."""

    cell: str
    draws: int
    mean: float
    error: float
    freedom: float
    p: float


def _cell_gain(found: _Raw, shown: bool, level: float, needed: float) -> CellGain:
    half = float(stats.t.ppf((1 + level) / 2, found.freedom)) * found.error
    least = float(stats.t.ppf((1 + needed) / 2, found.freedom) + stats.t.ppf(POWER, found.freedom)) * found.error
    low, high = found.mean - half, found.mean + half
    return CellGain(found.cell, found.draws, found.mean, found.error, found.freedom, low, high, found.p, shown, least)


def _spreads(draws: Sequence[DrawnGain]) -> dict[str, tuple[float, float]]:
    """The variance between draws within a cell and fold, and its degrees of freedom, by `spread`.

    It is a mean over all cells. Cells share draws, so m of them have between once and m times the degrees of freedom of
    one: the geometric mean of the two is taken, which results/balance/map/simulate.py checks.
    """
    together: dict[str, dict[tuple[str, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    drawn: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for draw in draws:
        together[draw.spread][draw.cell, draw.fold].append(draw.gain)
        drawn[draw.spread][draw.fold].add(draw.draw)
    found = {}
    for spread, groups in together.items():
        count = sum(len(gains) - 1 for gains in groups.values())
        if not count:
            raise ValueError(f"{spread}: expected two draws or more of a cell and fold, to know how much draws differ")
        squares = sum(float(np.square(np.subtract(gains, np.mean(gains))).sum()) for gains in groups.values())
        of_one = sum(len(numbers) - 1 for numbers in drawn[spread].values())
        found[spread] = squares / count, math.sqrt(count * of_one)
    return found


def _patient_variance(draws: Sequence[DrawnGain]) -> float:
    """Variance of the mean gain of draws that were tested on the same patients, over such patients."""
    influence = np.mean([draw.influence for draw in draws], axis=0)
    count = len(influence)
    return float(count / (count - 1) * np.square(influence).sum())


def _discoveries(p: Sequence[float]) -> list[bool]:
    """Which hypotheses are rejected by Benjamini and Hochberg 1995."""
    order = np.argsort(p)
    below = [rank for rank, i in enumerate(order, 1) if p[i] <= FALSE_DISCOVERIES * rank / len(p)]
    rejected = set(order[: max(below, default=0)].tolist())
    return [i in rejected for i in range(len(p))]
