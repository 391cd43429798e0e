"""Frechet distance (FID on Inception features) and kernel distance (KID) between two sets of features."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from samgan.errors import SamganError

BLOCK_ROWS = 2048


def frechet_distance(real: Float[Tensor, "n d"], fake: Float[Tensor, "m _"]) -> float:
    """Measure the distance between the Gaussians fitted to two sets of features.

        d^2 = |mu_r - mu_f|^2 + tr(C_r) + tr(C_f) - 2 tr((C_r C_f)^(1/2))

    With C = A^T A the last trace is the sum of the singular values of A_r A_f^T. So no matrix root is needed, and
    rank-deficient covariances (fewer images than features) need no special treatment. The estimate is biased upwards
    for small n: compare only numbers of equal n.

    Args:
        real: features of two or more real images.
        fake: features of two or more generated images.

    Returns:
        The squared distance, >= 0 up to rounding; lower is better, and 0 is equal means and covariances.

    Raises:
        SamganError: fewer than two images in a set, or features that differ in number or are not finite.

    Source: Heusel et al. 2017, eq. 6 (arXiv:1706.08500); covariances with n - 1, as in its public code.
    """
    real, fake = _checked(real, fake)
    mean_real, mean_fake = real.mean(dim=0), fake.mean(dim=0)
    root_real, root_fake = _covariance_root(real - mean_real), _covariance_root(fake - mean_fake)
    cross = torch.linalg.svdvals(root_real @ root_fake.T).sum()  # = tr((C_r C_f)^(1/2))
    shift = (mean_real - mean_fake).square().sum()
    return max(0.0, float(shift + root_real.square().sum() + root_fake.square().sum() - 2 * cross))


def frechet_distance_per_batch(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], *, batch_size: int = 20
) -> float:
    """Average the Frechet distance over batches of equal position, leaving out the last incomplete one.

    The covariances are far from full rank, and the number cannot be compared with any FID. It is only for comparison
    with numbers that were made the same way.

    Args:
        real: features in file order.
        fake: features in file order.
        batch_size: images in a batch, two or more.

    Returns:
        The mean squared distance, >= 0; lower is better.

    Raises:
        SamganError: not one full batch in a set.
    """
    batches = min(len(real), len(fake)) // batch_size
    if not batches:
        raise SamganError(
            f"expected at least {batch_size} images (one batch) in each set, found {len(real)} and {len(fake)}"
        )
    starts = range(0, batches * batch_size, batch_size)
    return sum(frechet_distance(real[i : i + batch_size], fake[i : i + batch_size]) for i in starts) / batches


def kernel_distance(real: Float[Tensor, "n d"], fake: Float[Tensor, "m _"]) -> float:
    """Estimate the squared maximum mean discrepancy of two sets of features (KID) from all their images.

        MMD^2 = mean_{i!=j} k(r_i, r_j) + mean_{i!=j} k(f_i, f_j) - 2 mean k(r_i, f_j),   k(x, y) = (x.y / d + 1)^3

    Args:
        real: features of two or more real images.
        fake: features of two or more generated images.

    Returns:
        An unbiased estimate: for sets of one distribution it lies around 0 and may be negative. Lower is better.

    Raises:
        SamganError: fewer than two images in a set, or features that differ in number or are not finite.

    Source: Binkowski et al. 2018, section 4 (arXiv:1801.01401).
    """
    real, fake = _checked(real, fake)
    n, m = len(real), len(fake)
    within_real = (_kernel_sum(real, real) - _kernel(real.square().mean(dim=1)).sum()) / (n * (n - 1))
    within_fake = (_kernel_sum(fake, fake) - _kernel(fake.square().mean(dim=1)).sum()) / (m * (m - 1))
    return float(within_real + within_fake - 2 * _kernel_sum(real, fake) / (n * m))


def check_features(real: Tensor, fake: Tensor) -> None:
    """Refuse two sets that cannot be compared.

    Raises:
        SamganError: They are not [n, d] and [m, d], or not finite.
    """
    if real.ndim != 2 or real.shape[1:] != fake.shape[1:]:
        raise SamganError(
            f"expected features [n, d] and [m, d], found {list(real.shape)} and {list(fake.shape)}; "
            "compute both with one extractor"
        )
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise SamganError("features are not finite: check the feature extractor and the images given to it")


def _checked(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in float64, if a distance between them is defined."""
    check_features(real, fake)
    if min(len(real), len(fake)) < 2:
        raise SamganError(f"expected features of at least two images in each set, found {len(real)} and {len(fake)}")
    return real.double(), fake.double()


def _covariance_root(centred: Tensor) -> Tensor:
    """A matrix A [min(n, d), d] with A^T A = covariance."""
    factor = centred / math.sqrt(len(centred) - 1)
    return torch.linalg.qr(factor, mode="r").R if len(factor) > factor.shape[1] else factor


def _kernel(products: Tensor) -> Tensor:
    """k(x, y) from x.y / d."""
    return (products + 1) ** 3


def _kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """Sum k(x_i, y_j) over all i and j, a block of rows at a time."""
    blocks = [_kernel(rows @ y.T / x.shape[1]).sum() for rows in x.split(BLOCK_ROWS)]
    return torch.stack(blocks).sum()
