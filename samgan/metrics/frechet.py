"""Frechet distance (FID on Inception features) and kernel distance (KID) between two sets of features."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from samgan.errors import SamganError

BLOCK_ROWS = 2048


def frechet_distance(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> float:
    """Measure the distance between the Gaussians fitted to two sets of features.

        d^2 = |mu_r - mu_f|^2 + tr(C_r) + tr(C_f) - 2 tr((C_r C_f)^(1/2))

    With C = A^T A the last trace is the sum of the singular values of A_r A_f^T: no matrix root is taken, and
    rank-deficient covariances (fewer images than features) need no special care. Biased upwards at small n: compare at
    equal n only.

    Args:
        real: features of two or more real images.
        fake: features of two or more generated images.

    Returns:
        The squared distance, >= 0 up to rounding; lower is better, and 0 is equal means and covariances.

    Raises:
        SamganError: fewer than two images in a set, or features that are not finite.

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
    """Average the Frechet distance over batches of equal position, the last incomplete one left out.

    Rank-deficient by far, and not comparable with any FID; it exists to be set beside numbers made this way.

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
        raise SamganError(f"batches of {batch_size} need as many images, there are {len(real)} and {len(fake)}")
    starts = range(0, batches * batch_size, batch_size)
    return sum(frechet_distance(real[i : i + batch_size], fake[i : i + batch_size]) for i in starts) / batches


def kernel_distance(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> float:
    """Estimate the squared maximum mean discrepancy of two sets of features (KID) from all their images.

        MMD^2 = mean_{i!=j} k(r_i, r_j) + mean_{i!=j} k(f_i, f_j) - 2 mean k(r_i, f_j),   k(x, y) = (x.y / d + 1)^3

    Args:
        real: features of two or more real images.
        fake: features of two or more generated images.

    Returns:
        An unbiased estimate, so that it lies around 0 (also below) for sets of one distribution; lower is better.

    Raises:
        SamganError: fewer than two images in a set, or features that are not finite.

    Source: Binkowski et al. 2018, section 4 (arXiv:1801.01401).
    """
    real, fake = _checked(real, fake)
    everything = (real.new_ones(1, len(real)), fake.new_ones(1, len(fake)))
    return float(_mmd2_of_subsets(real, fake, *everything))


def kernel_distance_over_subsets(
    real: Float[Tensor, "n d"],
    fake: Float[Tensor, "m d"],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> tuple[float, float]:
    """Estimate KID as torch-fidelity does: the mean over random subsets, drawn in the same order from the same seed.

    Args:
        real: features.
        fake: features.
        subsets: number of subsets.
        subset_size: images of each set in a subset.
        seed: of the drawing; the default is torch-fidelity's.

    Returns:
        Mean and standard deviation over the subsets (overlapping ones: the latter is no standard error).

    Raises:
        SamganError: fewer images than a subset takes, or as for `kernel_distance`.

    Source: Binkowski et al. 2018, section 4 (arXiv:1801.01401).
    """
    real, fake = _checked(real, fake)
    if min(len(real), len(fake)) < subset_size:
        raise SamganError(f"KID subsets of {subset_size} need as many images, there are {len(real)} and {len(fake)}")
    random = np.random.RandomState(seed)
    chosen_real, chosen_fake = real.new_zeros(subsets, len(real)), fake.new_zeros(subsets, len(fake))
    for subset in range(subsets):
        chosen_real[subset, random.choice(len(real), subset_size, replace=False)] = 1
        chosen_fake[subset, random.choice(len(fake), subset_size, replace=False)] = 1
    distances = _mmd2_of_subsets(real, fake, chosen_real, chosen_fake)
    return float(distances.mean()), float(distances.std(correction=0))


def _checked(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in float64, if a distance between them is defined."""
    if min(len(real), len(fake)) < 2:
        raise SamganError(f"a distance needs features of two images or more, there are {len(real)} and {len(fake)}")
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise SamganError("features are not finite: check the feature extractor and the images given to it")
    return real.double(), fake.double()


def _covariance_root(centred: Tensor) -> Tensor:
    """A matrix A [min(n, d), d] with A^T A = covariance."""
    factor = centred / math.sqrt(len(centred) - 1)
    return torch.linalg.qr(factor, mode="r").R if len(factor) > factor.shape[1] else factor


def _mmd2_of_subsets(real: Tensor, fake: Tensor, chosen_real: Tensor, chosen_fake: Tensor) -> Tensor:
    """Unbiased MMD^2 of every subset; `chosen_*` [subsets, n] hold 1 where an image belongs to the subset.

    Each entry of the kernel matrices is computed once for all subsets, a block of rows at a time.
    """
    n, m = chosen_real.sum(dim=1), chosen_fake.sum(dim=1)
    within_real = _kernel_sums(real, real, chosen_real, chosen_real) - chosen_real @ _kernel(real * real)
    within_fake = _kernel_sums(fake, fake, chosen_fake, chosen_fake) - chosen_fake @ _kernel(fake * fake)
    across = _kernel_sums(real, fake, chosen_real, chosen_fake)
    return within_real / (n * (n - 1)) + within_fake / (m * (m - 1)) - 2 * across / (n * m)


def _kernel(products: Tensor) -> Tensor:
    """k(x, y) from the elementwise products x * y [n d], summed over d."""
    return (products.mean(dim=1) + 1) ** 3


def _kernel_sums(x: Tensor, y: Tensor, chosen_x: Tensor, chosen_y: Tensor) -> Tensor:
    """Sum k(x_i, y_j) over the chosen i and j of every subset."""
    total = chosen_x.new_zeros(len(chosen_x))
    for rows, chosen in zip(x.split(BLOCK_ROWS), chosen_x.split(BLOCK_ROWS, dim=1), strict=True):
        kernel = (rows @ y.T / x.shape[1] + 1) ** 3
        total += ((chosen @ kernel) * chosen_y).sum(dim=1)
    return total
