"""Scores of classifiers on held-out patients, each with its interval over patients and seeds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

RESAMPLES = 2000
LEVEL = 0.95
AT_ONCE = 1 << 24  # weights of a bootstrap
CALIBRATION_BINS = 15


class Bounds(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def scores(predicted: Float[np.ndarray, "n classes"], truth: Int[np.ndarray, " n"], smallest: int) -> dict[str, float]:
    """Scores of one classifier on held-out images.

    Args:
        predicted: Probabilities.
        truth: Classes.
        smallest: The class with the fewest real training images.

    Returns:
        Those of `weighted_scores`, counting each image once, and `calibration_error` (expected calibration error of the
        likeliest class over 15 equal bins; lower is better).

    Source: Guo et al. 2017 for the calibration error.
    """
    found = weighted_scores(predicted, truth, smallest, np.ones((1, len(truth))))
    chosen, confidence = predicted.argmax(1), predicted.max(1)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [
        (bins == b).mean() * abs((chosen == truth)[bins == b].mean() - confidence[bins == b].mean()) for b in set(bins)
    ]
    return {**{name: float(values[0]) for name, values in found.items()}, "calibration_error": float(sum(gaps))}


def weighted_scores(
    predicted: Float[np.ndarray, "n classes"],
    truth: Int[np.ndarray, " n"],
    smallest: int,
    weights: Float[np.ndarray, "resamples n"],
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """Scores of one classifier on draws of held-out images.

    Args:
        predicted: Probabilities.
        truth: Classes.
        smallest: The class with the fewest real training images.
        weights: How often each image counts.

    Returns:
        `auc` (area under the ROC curve, the mean over classes of each against the rest; higher is better),
        `balanced_accuracy` (mean recall), `minority_recall`, and `brier_score` (squared distance of the probabilities
        from the truth, 0 to 2, which poor calibration and poor knowledge both make larger; lower is better); NaN if a
        class does not occur.

    Source: Brier 1950 for the Brier score.
    """
    of_class = truth[:, None] == np.arange(predicted.shape[1])
    right = of_class & (predicted.argmax(1) == truth)[:, None]
    with np.errstate(invalid="ignore"):
        recalls = weights @ right / (weights @ of_class)
        brier = weights @ np.square(predicted - of_class).sum(1) / weights.sum(1)
    return {
        "auc": weighted_auc(predicted, truth, weights),
        "balanced_accuracy": recalls.mean(1),
        "minority_recall": recalls[:, smallest],
        "brier_score": brier,
    }


def weighted_auc(
    predicted: Float[np.ndarray, "n classes"], truth: Int[np.ndarray, " n"], weights: Float[np.ndarray, "resamples n"]
) -> Float[np.ndarray, " resamples"]:
    """Area under the ROC curve, mean over classes of each against the rest; of two classes both are equal.

    `samgan.metrics.memorisation.membership_auc` has the interval of one area by DeLong; this one takes thousands of
    weighted draws at once.

    Args:
        predicted: Probabilities.
        truth: Classes.
        weights: How often each image counts.

    Returns:
        The areas; NaN if a class does not occur.
    """
    areas = []
    for k in range(predicted.shape[1]) if predicted.shape[1] > 2 else (1,):
        order = np.argsort(predicted[:, k])
        _, starts = np.unique(predicted[order, k], return_index=True)  # ties count half
        found = []
        for part in np.array_split(weights[:, order], math.ceil(weights.size / AT_ONCE)):
            positive, negative = (
                np.add.reduceat(part * ((truth == k)[order] == side), starts, axis=1) for side in (True, False)
            )
            below = np.cumsum(negative, axis=1) - negative / 2
            with np.errstate(invalid="ignore"):
                found.append((positive * below).sum(1) / (positive.sum(1) * negative.sum(1)))
        areas.append(np.concatenate(found))
    return np.mean(areas, axis=0)


def halves(patients: Sequence[str], truth: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which half of the patients each image belongs to; the patients of every class are shared out evenly."""
    groups, first, member = np.unique(patients, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(0).permutation(len(groups)), truth[first]))
    second = np.empty(len(groups), bool)
    second[order] = np.arange(len(groups)) % 2 == 1
    return second[member]


def resample(patients: Sequence[str], draw: np.random.Generator) -> Float[np.ndarray, "draws n"]:
    """How often each image counts: once each, then as often as its patient is drawn, with replacement, 2,000 times."""
    groups, member = np.unique(patients, return_inverse=True)
    times = [np.bincount(draw.integers(len(groups), size=len(groups)), minlength=len(groups)) for _ in range(RESAMPLES)]
    return np.concatenate([np.ones((1, len(patients))), np.stack(times)[:, member]])


def interval(found: Float[np.ndarray, "draws seeds"], chance: Float[np.ndarray, " resamples"]) -> Bounds:
    """A mean over seeds with its 95 % interval over patients and seeds.

    Args:
        found: A value of every seed, first of all patients, then of each draw of them.
        chance: For each draw, a value of Student's t with seeds - 1 degrees of freedom.
    """
    deviation = found[0].std(ddof=1) / math.sqrt(found.shape[1])
    low, high = np.nanquantile(found[1:].mean(1) + chance * deviation, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Bounds(float(found[0].mean()), float(low), float(high))
