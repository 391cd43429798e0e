"""Precision, recall, density and coverage: fidelity and diversity as separate scores."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from samgan.errors import SamganError
from samgan.metrics.frechet import check_features

BLOCK_ROWS = 1024


class Prdc(NamedTuple):
    """The four scores of `prdc`."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Float[Tensor, "n d"], fake: Float[Tensor, "m _"], *, k: int = 5) -> Prdc:
    """Compare two sets of features by balls that reach to each image's k-th nearest neighbour in its own set.

        precision = share of fakes inside any real ball        recall   = share of reals inside any fake ball
        density   = (number of (fake, real ball) hits) / (k m)  coverage = share of real balls with a fake inside

    An image is not its own neighbour. A point on the surface is inside, so copies of one image stay neighbours at
    radius 0. Memory is bounded by 1,024 rows of distances.

    Args:
        real: features of more than k real images.
        fake: features of more than k generated images.
        k: which neighbour sets the radius: 5 in Naeem et al.; 3 in Kynkaanniemi et al. and torch-fidelity.

    Returns:
        Precision, recall and coverage 0 to 1, density >= 0 with expectation near 1 for equal distributions; higher is
        better. Mode collapse lowers recall and coverage, poor images lower precision and density.

    Raises:
        SamganError: k is below 1, k or fewer images in a set, or features that differ in number or are not finite.

    Source: Kynkaanniemi et al. 2019, eq. 1-2 (arXiv:1904.06991); Naeem et al. 2020, section 3 (arXiv:2002.09797).
    """
    check_features(real, fake)
    if k < 1:
        raise SamganError(f"k: expected the number of a neighbour, 1 or more, found {k}")
    if min(len(real), len(fake)) <= k:
        raise SamganError(f"precision and recall need more than k = {k} images, found {len(real)} and {len(fake)}")
    # Shifting both sets changes no distance, and less is lost to cancellation in |x|^2 + |y|^2 - 2 x.y.
    centre = real.double().mean(dim=0)
    real, fake = real.double() - centre, fake.double() - centre
    radius_real, radius_fake = _squared_radii(real, k), _squared_radii(fake, k)

    inside_real = fake.new_zeros(len(fake))  # for each fake: in how many real balls
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    recalled = torch.zeros_like(covered)
    for rows, squared in _squared_distances(real, fake):
        inside = squared <= radius_real[rows, None]
        inside_real += inside.sum(dim=0)
        covered[rows] = inside.any(dim=1)
        recalled[rows] = (squared <= radius_fake).any(dim=1)
    return Prdc(
        precision=float((inside_real > 0).double().mean()),
        recall=float(recalled.double().mean()),
        density=float(inside_real.mean() / k),
        coverage=float(covered.double().mean()),
    )


def _squared_radii(x: Tensor, k: int) -> Tensor:
    """Squared distance to the k-th nearest neighbour, widened so that rounding leaves the neighbour inside."""
    # k + 1, since the smallest distance is that to the image itself.
    radii = [squared.kthvalue(k + 1, dim=1).values for _, squared in _squared_distances(x, x)]
    return torch.cat(radii) * (1 + 1e-9)


def _squared_distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of rows of the matrix of squared distances; 0 where only a rounding error is left."""
    squares_x, squares_y = x.square().sum(dim=1), y.square().sum(dim=1)
    for start in range(0, len(x), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        scale = squares_x[rows, None] + squares_y
        squared = scale - 2 * (x[rows] @ y.T)
        yield rows, squared.masked_fill(squared <= 1e-12 * scale, 0.0)
