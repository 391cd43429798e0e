"""The ROC curve of one number: the area under it and one point on it, and how sure they are."""

import math

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from samgan.metrics.intervals import LEVEL, Share

SLOPE_OVER = 0.1
"""Of the specificity: over how much of it the slope of a ROC curve is taken."""


def grouped_auc(
    scores: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " m"],
    groups: Int[np.ndarray, " n"],
    other_groups: Int[np.ndarray, " m"],
) -> Share:
    """Probability that a score of the first kind is larger than one of the other kind; equal ones count half.

    Args:
        scores: of the first kind, finite.
        others: of the other kind, finite.
        groups: whom each score belongs to, such as its patient, counted from 0; two or more.
        other_groups: the same of the others.

    Returns:
        0.5 if the scores cannot tell the two kinds apart, 1 if they always can; and the 95 % interval by DeLong, with
        the scores of a group taken together as in Obuchowski. It has no width if the scores do not overlap.

    Source: DeLong et al. 1988 (doi:10.2307/2531595); Obuchowski 1997 (doi:10.2307/2533958).
    """
    below = _placements(scores, others)
    above = 1 - _placements(others, scores)
    area = float(below.mean())
    variance = sum(
        _clustered_variance(placed - area, group) for placed, group in ((below, groups), (above, other_groups))
    )
    half = float(special.ndtri((1 + LEVEL) / 2)) * math.sqrt(variance)
    return Share(area, max(area - half, 0.0), min(area + half, 1.0))


def patient_influence(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], patients: Int[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, " patients"]]:
    """The area under the ROC curve, and how much each patient pulls it up or down.

    The sum of the squares of the second, over many patients, is the variance of the first. Influences of areas of the
    same patients may be subtracted, and give the variance of the difference.

    Args:
        scores: of each image, finite.
        positive: whether it is of the class that should score higher; both kinds occur.
        patients: whom each image belongs to, counted from 0.

    Returns:
        The area; the influences, whose sum is 0.

    Source: DeLong et al. 1988 (doi:10.2307/2531595); Obuchowski 1997 (doi:10.2307/2533958).
    """
    own, others = scores[positive], scores[~positive]
    below, above = _placements(own, others), 1 - _placements(others, own)
    area = float(below.mean())
    of_images = np.empty(len(scores))
    of_images[positive] = (below - area) / len(own)
    of_images[~positive] = (above - area) / len(others)
    return area, np.bincount(patients, of_images)


def recall_influence(
    scores: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    patients: Int[np.ndarray, " n"],
    specificity: float,
) -> tuple[float, Float[np.ndarray, " patients"]]:
    """The recall at a specificity, and how much each patient pulls it up or down, as `patient_influence` does.

    The threshold is one of the scores of those that are not positive, so it is not known exactly either. What this adds
    goes by the slope of the ROC curve, which is taken over 0.1 of the specificity.

    Args:
        scores: of each image, finite.
        positive: whether it is of the class that should score higher; both kinds occur.
        patients: whom each image belongs to, counted from 0.
        specificity: share of the others that are told right, from 0.05 to 0.95.

    Returns:
        The share of the positive ones that score above the threshold; the influences, whose sum is 0.

    Source: Hsieh and Turnbull 1996 (doi:10.1214/aos/1033066197), of patients as in Obuchowski 1997.
    """
    own, others = scores[positive], scores[~positive]

    def above(share: float) -> tuple[float, Bool[np.ndarray, " n"]]:
        told = scores > np.quantile(others, share, method="higher")
        return float(told[positive].mean()), told

    recall, told = above(specificity)
    slope = (above(specificity - SLOPE_OVER / 2)[0] - above(specificity + SLOPE_OVER / 2)[0]) / SLOPE_OVER
    of_images = np.empty(len(scores))
    of_images[positive] = (told[positive] - recall) / len(own)
    of_images[~positive] = -slope * (told[~positive] - told[~positive].mean()) / len(others)
    return recall, np.bincount(patients, of_images)


def _placements(scores: np.ndarray, others: np.ndarray) -> Float[np.ndarray, " n"]:
    """Share of the others that lie below each score; equal ones count half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / (2 * len(others))


def _clustered_variance(residuals: np.ndarray, group: np.ndarray) -> float:
    """Variance of the mean of residuals that depend on each other within groups."""
    sums = np.bincount(group, residuals)
    sums = sums[np.bincount(group) > 0]
    return float(len(sums) / (len(sums) - 1) * np.square(sums).sum() / len(residuals) ** 2)
