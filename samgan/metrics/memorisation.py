"""Signs that a generator reproduces its training images, each beside what chance would give."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from samgan.errors import SamganError
from samgan.metrics.auc import grouped_auc
from samgan.metrics.constants import PERCENTILE
from samgan.metrics.intervals import LEVEL, Share, share_of
from samgan.metrics.nearest import Nearest

PERMUTATIONS = 2000


@dataclasses.dataclass(frozen=True)
class Sign:
    """A share of synthetic images, beside that expected of a generator that knows nothing of its training images."""

    share: Share
    expected: Share
    """Its interval holds the share of the same number of images in 95 % of cases."""
    count: int
    threshold: float = math.inf
    """Distance below which an image counts."""

    @property
    def found(self) -> bool:
        """Whether the share is above the expected one by more than chance."""
        return self.share.value > self.expected.high


def closer_than_held_out(
    distances: Float[Tensor, " n"], held_out: Float[Tensor, " m"], *, groups: Sequence[str] | None = None
) -> Sign:
    """Count the synthetic images that are closer to the training set than the closest 1 % of held-out real ones.

        threshold = k-th smallest held-out distance,   k = floor((m + 1) / 100), 1 at least
        expected share = k / (m + 1)

    If synthetic and held-out images had the same distribution, the number would be beta-binomial with parameters n, k
    and m + 1 - k, whatever the distances. So the interval allows for the chance in which images were held out. There,
    images of one patient count as one: k and m + 1 - k are multiplied by patients / images. A share of 1 % needs 99
    held-out images; with fewer, the closest one is the threshold.

    A larger share is a sign, not a proof: smooth images are closer to everything.

    Args:
        distances: of synthetic images to the nearest training image.
        held_out: of held-out real images to the nearest training image, in the same measure.
        groups: the patient of each held-out image; default: each image by itself.

    Raises:
        SamganError: no images.
    """
    from scipy import stats  # takes a second, which a training need not wait for

    total, m = len(distances), len(held_out)
    if not total or not m:
        raise SamganError(f"closeness needs synthetic and held-out images, found {total} and {m}")
    rank = max(1, math.floor(PERCENTILE * (m + 1)))
    threshold = float(held_out.sort().values[rank - 1])
    count = int((distances < threshold).sum())
    weight = 1.0 if groups is None else len(set(groups)) / m
    chance = stats.betabinom(total, rank * weight, (m + 1 - rank) * weight)
    low, high = (float(bound) / total for bound in chance.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Sign(share_of(count, total), Share(rank / (m + 1), low, high), count, threshold)


def nearest_is_training(
    training: Nearest,
    held_out: Nearest,
    training_groups: Sequence[str],
    held_out_groups: Sequence[str],
    *,
    seed: int = 0,
) -> Sign:
    """Count the synthetic images whose nearest real image, among training and held-out ones, is a training image.

    A generator that knows nothing of single training images has no reason to come closer to them than to held-out ones,
    however smooth its images are. The expected share is that of training images among the real ones. The interval comes
    from 2,000 other splits of the same patients, since a few real images may be the nearest of many.

    Args:
        training: for each synthetic image, its nearest training image.
        held_out: for each synthetic image, its nearest held-out image, in the same measure.
        training_groups: the patient of each training image.
        held_out_groups: the patient of each held-out image.
        seed: of the splits.

    Raises:
        SamganError: no images.

    Source: Platzer and Reutterer 2021, section 2.2 (arXiv:2104.00635), there with two sets of equal size.
    """
    total, n, m = len(training.distance), len(training_groups), len(held_out_groups)
    if not total or not n or not m:
        raise SamganError(f"nearness needs synthetic, training and held-out images, found {total}, {n} and {m}")
    is_training = training.distance < held_out.distance
    count = int(is_training.sum())
    _, group = np.unique([*training_groups, *held_out_groups], return_inverse=True)
    nearest = torch.where(is_training, training.index, n + held_out.index).numpy()
    hits, sizes = np.bincount(group[nearest], minlength=group.max() + 1), np.bincount(group)
    draw = np.random.default_rng(seed)
    shares = []
    for _ in range(PERMUTATIONS):
        order = draw.permutation(len(sizes))
        split = np.abs(np.cumsum(sizes[order]) - m).argmin() + 1
        shares.append(1 - hits[order[:split]].sum() / total)
    low, high = (float(bound) for bound in np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Sign(share_of(count, total), Share(n / (n + m), low, high), count)


def membership_auc(
    members: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " m"],
    member_groups: Sequence[str] | None = None,
    other_groups: Sequence[str] | None = None,
) -> Share:
    """Area under the ROC curve of an attack that takes images with high scores for training images.

        AUC = P(score of a training image > score of another one) + P(equal) / 2

    See `samgan.metrics.auc.grouped_auc` for the interval.

    Args:
        members: scores of training images, such as the logits of a discriminator.
        others: scores of held-out images.
        member_groups: the patient of each training image; default: each image by itself.
        other_groups: the same of the held-out ones.

    Returns:
        0.5 if the score cannot tell training images, 1 if it tells all of them; and the 95 % interval, which has no
        width if the scores do not overlap.

    Raises:
        SamganError: fewer than two patients on a side, or scores that are not finite.

    Source: Hayes et al. 2019 (LOGAN, arXiv:1705.07663), white-box attack.
    """
    groups = [
        np.arange(len(scores)) if given is None else np.unique(list(given), return_inverse=True)[1]
        for scores, given in ((members, member_groups), (others, other_groups))
    ]
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        raise SamganError("membership test: some scores are not finite")
    if any(len(np.unique(group)) < 2 for group in groups):
        raise SamganError("a membership test needs at least two training and two held-out patients")
    return grouped_auc(members, others, *groups)
