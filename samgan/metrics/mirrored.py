"""How many chest X-rays have the heart on the wrong side, by a linear classifier fitted to real ones."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from samgan.errors import SamganError

RIDGE = 10.0
"""Weight of the penalty, of images in [0, 1]."""
SIDE = 64
CHUNK = 4096


def asymmetry(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n half"]:
    """The left half of each image minus its mirror image; the right half is the same, negated.

    Images above 64 px are averaged down to 64 px first: the side of the heart can be seen there, and the system of
    equations stays small.
    """
    values = images.double() / 255
    sides = min(values.shape[2], SIDE), min(values.shape[3], SIDE)
    if sides != values.shape[2:]:
        values = F.adaptive_avg_pool2d(values, sides)
    return (values - values.flip(-1))[..., : sides[1] // 2].flatten(1)


def fit_sides(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " half"]:
    """Weights w with which the asymmetry a of real images sums to about 1: ridge regression of 1 on a.

        w = argmin sum_i (a_i w - 1)^2 + 10 |w|^2

    An image and its mirror image have asymmetries a and -a, so they get opposite answers.

    Args:
        images: real images; nearly all must show the heart on its usual side.

    Raises:
        SamganError: no images.
    """
    if not len(images):
        raise SamganError("expected real images to learn the side of the heart from, found none")
    size = asymmetry(images[:1]).shape[1]
    gram, total = torch.zeros(size, size, dtype=torch.double), torch.zeros(size, dtype=torch.double)
    for part in images.split(CHUNK):
        a = asymmetry(part)
        gram += a.T @ a
        total += a.sum(0)
    return torch.linalg.solve(gram + RIDGE * torch.eye(len(gram), dtype=gram.dtype), total)


def count_mirrored(weights: Float[Tensor, " half"], images: UInt8[Tensor, "n c h w"]) -> int:
    """Number of images that look mirrored.

    Among held-out real images these are the classifier's errors, and patients whose heart is on the right.
    """
    return sum(int((asymmetry(part) @ weights < 0).sum()) for part in images.split(CHUNK))
