"""Scores of a snapshot in seconds, without a network of features."""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from samgan.errors import SamganError
from samgan.metrics.frechet import frechet_distance
from samgan.metrics.ms_ssim import mean_ms_ssim
from samgan.metrics.swd import distances_to, real_levels
from samgan.scoring.images import Images, as_tensor, check_comparable

THUMBNAIL = 16  # px; a layout has as many values as some hundred images can tell the covariance of
PIXELS_AT_ONCE = 1 << 23
CHOOSES_BEST = "quick_score"
"""The quick score that chooses the best checkpoint; lower is better."""


@dataclass(frozen=True)
class QuickScores:
    """Texture, layout, and likeness of pairs."""

    quick_score: float
    """The geometric mean of the next two, which have no scale in common; lower is better."""
    swd: float
    """Sliced Wasserstein distance, mean over levels, x 1000: texture."""
    thumbnail_frechet: float
    """Frechet distance of images averaged to 16x16, per value of a range of 1, x 1000: layouts and their variety."""
    ms_ssim_real: float
    ms_ssim_generated: float
    ms_ssim_gap: float
    """Generated minus real: above 0 is the sign of mode collapse."""

    def to_dict(self) -> dict[str, float]:
        """By name, as a line of the log holds them."""
        return asdict(self)


class QuickScorer:
    """Scores the snapshots of a run against the same real images: what concerns only these is computed once.

    Args:
        real: Some real images.
        count: Number of generated images; as many real ones, if there are, are compared with them by SWD.
        seed: Of pairs, patches and directions.

    Raises:
        SamganError: The images are not uint8, fewer than three, or below 16 px.
    """

    def __init__(self, real: Images, count: int, *, seed: int = 0) -> None:
        real = as_tensor(real)
        check_comparable(real.shape, real.shape)
        self.shape, self.count, self.seed = real.shape, min(len(real), count), seed
        self.ms_ssim = mean_ms_ssim(real, seed=seed).mean
        self.levels = tuple(real_levels(real[: self.count], seed=seed))
        self.thumbnails = _thumbnails(real)

    def __call__(self, fake: Images) -> QuickScores:
        """Score generated images, `count` or more.

        Raises:
            SamganError: They are not uint8, differ from the real ones in shape, or are fewer than `count`.
        """
        fake = as_tensor(fake)
        check_comparable(self.shape, fake.shape)
        if len(fake) < self.count:
            raise SamganError(f"expected {self.count} generated images or more, found {len(fake)}")
        ms_ssim = mean_ms_ssim(fake, seed=self.seed).mean
        swd = distances_to(self.levels, fake[: self.count])["mean"]
        layout = 1000 * frechet_distance(self.thumbnails, _thumbnails(fake)) / self.thumbnails.shape[1]
        return QuickScores(math.sqrt(swd * layout), swd, layout, self.ms_ssim, ms_ssim, ms_ssim - self.ms_ssim)


def quick_scores(real: Images, fake: Images, *, seed: int = 0) -> QuickScores:
    """Score a snapshot; results/plus compares these scores with an Inception's.

    Args:
        real: Some real images.
        fake: As many generated ones.
        seed: Of pairs, patches and directions.

    Raises:
        SamganError: The sets are not uint8, differ in shape, hold fewer than three images, or images below 16 px.
    """
    check_comparable(as_tensor(real).shape, as_tensor(fake).shape)
    return QuickScorer(real, len(fake), seed=seed)(fake)


def _thumbnails(images: Tensor) -> Float[Tensor, "n values"]:
    some = images.split(max(1, PIXELS_AT_ONCE // images[:1].numel()))
    return torch.cat([F.adaptive_avg_pool2d(part.float() / 255, THUMBNAIL).flatten(1) for part in some])


def ms_ssim_gaps(
    real: Images, fake: Images, real_classes: np.ndarray, fake_classes: np.ndarray, *, seed: int = 0
) -> dict[str, float]:
    """MS-SSIM of generated minus that of real pairs within each class, as `quick_scores` takes it over all.

    Args:
        real: Real images.
        fake: Generated ones.
        real_classes: Name of each real image's class.
        fake_classes: The same for the generated ones.
        seed: Of pairs.

    Returns:
        The gap by class, above 0 where generated images are more alike. Classes with fewer than three images on either
        side are left out.
    """
    gaps = {}
    for name in np.unique(fake_classes):
        own_fake = as_tensor(fake)[fake_classes == name]
        own_real = as_tensor(real)[real_classes == name][: len(own_fake)]
        if len(own_real) >= 3:
            means = [mean_ms_ssim(images, seed=seed).mean for images in (own_real, own_fake)]
            gaps[str(name)] = means[1] - means[0]
    return gaps
