"""The training images nearest to a few images, and how near held-out images are to training images.

It is the comparison of `samgan.trust.audit`, for one image instead of thousands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from samgan.data import PreparedSet
from samgan.errors import SamganError
from samgan.metrics.features import CACHE_CHUNK, FeatureExtractor, extract
from samgan.metrics.nearest import Nearest, nearest_features, nearest_image

READ_AT_ONCE = 1024
"""Training images that are in memory at once."""
HELD_OUT = 300
"""Held-out images that are compared, at most."""


@dataclass(frozen=True, eq=False)
class RealSplit:
    """The real images of a prepared set that a model was trained on, and those held out from it.

    Attributes:
        training: Rows of training images.
        held_out: Rows of held-out images, evenly spaced if there are more than `HELD_OUT`.
    """

    data: PreparedSet
    training: Int[np.ndarray, " n"]
    held_out: Int[np.ndarray, " m"]

    @classmethod
    def of(cls, data: PreparedSet, classes: Sequence[str] = ()) -> "RealSplit":
        """Choose the images.

        Args:
            data: The prepared set.
            classes: Those that the model was trained on; empty: all.

        Raises:
            SamganError: There are no such training images.
        """
        training, held_out = (data.indices(split, classes) for split in ("train", "holdout"))
        if not len(training):
            raise SamganError(f"{data.path} has no training images of {', '.join(classes) or 'any class'}")
        few = min(HELD_OUT, len(held_out))
        return cls(data, training, held_out[np.arange(few) * len(held_out) // max(1, few)])

    def parts(self) -> list[Int[np.ndarray, " k"]]:
        """The rows of training images in parts that fit into memory."""
        return np.split(self.training, range(READ_AT_ONCE, len(self.training), READ_AT_ONCE))


def nearest_by_pixels(images: UInt8[Tensor, "n c h w"], real: RealSplit) -> Nearest:
    """The nearest training image of each image by `nearest_image`; `index` is the row of the manifest.

    Raises:
        SamganError: The images have another shape than those of the set.
    """
    return _over_parts(real, lambda part: nearest_image(images, torch.from_numpy(real.data.take(part))))


def training_features(
    real: RealSplit, extractor: FeatureExtractor, tell: Callable[[int], None] = lambda done: None
) -> Float[Tensor, "n d"]:
    """The features of all training images, in the order of `real.training`.

    They are kept in the cache of `extract`, which audits and scores share. So only the first call for a set computes
    them, even if it was interrupted.

    Args:
        real: The images.
        extractor: From `samgan.metrics.load_features`.
        tell: Called with the number of images that are done, every `CACHE_CHUNK` images.
    """
    found = []
    for start in range(0, len(real.training), CACHE_CHUNK):
        tell(start)
        rows = real.training[start : start + CACHE_CHUNK]
        found.append(extract(extractor, torch.from_numpy(real.data.take(rows))))
    return torch.cat(found)


def nearest_by_features(features: Float[Tensor, "n d"], real: RealSplit, training: Float[Tensor, "m d"]) -> Nearest:
    """The nearest training image of each image by `nearest_features`; `index` is the row of the manifest.

    Args:
        features: Of the images.
        real: The real images.
        training: From `training_features`.
    """
    found = nearest_features(features, training)
    return Nearest(found.distance, torch.from_numpy(real.training)[found.index], found.mirrored)


def _over_parts(real: RealSplit, find: Callable[[Int[np.ndarray, " k"]], Nearest]) -> Nearest:
    """The nearest of all parts, with rows of the manifest as indices."""
    best: Nearest | None = None
    for part in real.parts():
        found = find(part)
        rows = torch.from_numpy(part)[found.index]
        if best is None:
            best = Nearest(found.distance, rows, found.mirrored)
            continue
        nearer = found.distance < best.distance
        best = Nearest(
            torch.where(nearer, found.distance, best.distance),
            torch.where(nearer, rows, best.index),
            torch.where(nearer, found.mirrored, best.mirrored),
        )
    assert best is not None
    return best
