"""Multi-scale structural similarity (MS-SSIM): how alike the images of one set are."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from scipy import special
from torch import Tensor
from torch.nn import functional as F

from samgan.errors import SamganError
from samgan.metrics.banded import between

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2; they sum to 1.0001
MIN_RESOLUTION = 2 ** (len(SCALE_WEIGHTS) - 1)
MAX_WINDOW = 11
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2
CHUNK_PIXELS = 1 << 19  # intermediate results then stay in the processor's cache


class PairMean(NamedTuple):
    """The mean of a similarity over pairs of images, with its 95 % interval."""

    mean: float
    low: float
    high: float
    standard_error: float
    pairs: int


def ms_ssim(
    a: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"],
    b: UInt8[Tensor, "_ _ _ _"] | Float[Tensor, "_ _ _ _"],
) -> Float[Tensor, " n"]:
    """Compare images pair by pair over five scales, by the definition of ProGAN, which needs only 16 px.

        MS-SSIM(a, b) = prod_{j<5} max(cs_j, 0)^w_j * max(ssim_5, 0)^w_5

    cs_j is the contrast-structure term and ssim_5 the whole SSIM, each averaged over pixels and channels. Gaussian
    window of side s = min(11, h, w) at that scale and standard deviation 1.5 s / 11, valid convolution, 2x2 means
    between scales. The usual five-scale definition keeps s = 11 and therefore needs 161 px; the two agree if s is 11 at
    every scale (from 176 px).

    Args:
        a: images, values 0-255, sides of 16 px or more (an odd side loses its last row before it is halved).
        b: images of the same shape and range.

    Returns:
        One value per pair, 0 to 1; 1 for identical images. float64 if the images are, else float32.

    Raises:
        SamganError: the shapes differ, or a side is below 16 px.

    Source: Wang, Simoncelli, Bovik 2003, eq. 7; Karras et al. 2018, section 5 (arXiv:1710.10196) and its public code.
    """
    if a.shape != b.shape:
        raise SamganError(f"MS-SSIM compares images of the same shape, found {tuple(a.shape)} and {tuple(b.shape)}")
    if min(a.shape[2:]) < MIN_RESOLUTION:
        raise SamganError(f"MS-SSIM needs images of at least {MIN_RESOLUTION} px, found {a.shape[2]}x{a.shape[3]}")
    if not len(a):
        return a.new_zeros(0, dtype=torch.float64 if a.dtype == torch.float64 else torch.float32)
    chunk = max(1, CHUNK_PIXELS // a[:1].numel())
    values = [_ms_ssim(x, y) for x, y in zip(a.split(chunk), b.split(chunk), strict=True)]
    return torch.cat(values)


def mean_ms_ssim(images: UInt8[Tensor, "n c h w"], *, pairs: int | None = None, seed: int = 0) -> PairMean:
    """Average MS-SSIM over random pairs of different images of one set.

    No pair occurs twice. By default, every image is in two pairs. If `pairs` is no multiple of the number of images,
    some may be in more pairs than others.

    Args:
        images: three or more.
        pairs: number of pairs, two or more, by default one per image; at most all pairs.
        seed: of the pairing.

    Returns:
        Mean, 0 to 1; lower is more diverse, and 1 is a set of copies. Its 95 % interval is the mean plus or minus a
        margin, and is not cut off at 0 or 1.

    Raises:
        SamganError: fewer than three images or two pairs, or images too small for MS-SSIM.

    Source: Odena et al. 2017, section 4.2 (arXiv:1610.09585) for the use of MS-SSIM as a measure of diversity.
    """
    if len(images) < 3:
        raise SamganError(f"the mean MS-SSIM of a set needs at least three images, found {len(images)}")
    if pairs is not None and pairs < 2:
        raise SamganError(f"the mean MS-SSIM of a set needs at least two pairs for its interval, found {pairs}")
    drawn = random_pairs(len(images), len(images) if pairs is None else pairs, seed=seed)
    drawn = drawn.to(images.device)
    chunk = max(1, CHUNK_PIXELS // images[:1].numel())
    values = torch.cat([ms_ssim(images[i], images[j]) for i, j in (part.unbind(1) for part in drawn.split(chunk))])
    return pair_mean(values, drawn)


def random_pairs(num_images: int, num_pairs: int, *, seed: int = 0) -> Int[Tensor, "pairs 2"]:
    """Draw pairs of different images: neighbours at distance 1, 2, ... on a ring in random order.

    Args:
        num_images: size of the set.
        num_pairs: number of pairs, at most all num_images (num_images - 1) / 2.
        seed: of the order.

    Returns:
        Indices of the two images of each pair.
    """
    num_pairs = min(num_pairs, num_images * (num_images - 1) // 2)
    ring = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    distances = range(1, math.ceil(num_pairs / num_images) + 1)
    return torch.cat([torch.stack([ring, ring.roll(-distance)], dim=1) for distance in distances])[:num_pairs]


def pair_mean(values: Float[Tensor, " pairs"], pairs: Int[Tensor, "pairs 2"]) -> PairMean:
    """Average values over pairs and give the interval that allows for images shared between pairs.

        Var(mean) = 1/m^2 [ sum_i (sum_{p contains i} e_p)^2 - sum_p e_p^2 ],   e_p = value_p - mean

    This is the double sum over all couples of pairs with an image in common. Plain standard errors take these pairs as
    independent, but one odd image affects all its pairs. The variance is never below the plain estimate; the interval
    is by Student's t with (images - 1) degrees of freedom.
    Simulated coverage of the 95 % interval: 95 % with 100 images and more, 93 % with 50, 91 % with 20.

    Args:
        values: the similarity of each pair.
        pairs: indices of the two images of each pair, no pair twice.

    Returns:
        Mean, 95 % interval of the mean over the population that the images come from, and its standard error.

    Source: Aronow, Samii, Assenova 2015 (doi:10.1093/pan/mpv018), the dyadic cluster-robust variance.
    """
    values = values.double()
    mean = values.mean()
    residuals = values - mean
    images, where = pairs.unique(return_inverse=True)
    per_image = residuals.new_zeros(len(images)).index_add(0, where.flatten(), residuals.repeat_interleave(2))
    plain = residuals.square().sum()
    variance = torch.maximum(per_image.square().sum() - plain, plain) / len(values) ** 2
    degrees = max(len(images) - 1, 1)
    standard_error = math.sqrt(float(variance) * len(images) / degrees)
    half = float(special.stdtrit(degrees, 0.975)) * standard_error
    return PairMean(float(mean), float(mean) - half, float(mean) + half, standard_error, len(values))


def _ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM of one chunk of pairs."""
    dtype = a.dtype if a.dtype == torch.float64 else torch.float32
    a, b = a.to(dtype), b.to(dtype)
    product = torch.ones(len(a), dtype=dtype, device=a.device)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        ssim, contrast_structure = _ssim(a, b)
        term = ssim if scale == len(SCALE_WEIGHTS) - 1 else contrast_structure
        product = product * term.clamp(min=0) ** weight
    return product


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure term, averaged over pixels and channels."""
    window = min(MAX_WINDOW, *a.shape[2:])
    rows, columns = (_blur_matrix(size, window, like=a) for size in a.shape[2:])

    def blur(x: Tensor) -> Tensor:
        return between(rows, x, columns)

    mean_a, mean_b = blur(a), blur(b)
    twice_product, squares = 2 * mean_a * mean_b, mean_a**2 + mean_b**2
    contrast_structure = (2 * blur(a * b) - twice_product + C2) / (blur(a * a + b * b) - squares + C2)
    luminance = (twice_product + C1) / (squares + C1)
    return (luminance * contrast_structure).mean(dim=(1, 2, 3)), contrast_structure.mean(dim=(1, 2, 3))


def _blur_matrix(size: int, window: int, *, like: Tensor) -> Tensor:
    """The Gaussian window's valid convolution along one side, as a banded matrix [size - window + 1, size].

    One product of matrices is four times faster on a CPU than a convolution of one channel.
    """
    offsets = torch.arange(window, dtype=like.dtype, device=like.device) - (window - 1) / 2
    sigma = 1.5 * window / MAX_WINDOW
    taps = torch.exp(-(offsets**2) / (2 * sigma**2))
    taps = taps / taps.sum()
    matrix = like.new_zeros(size - window + 1, size)
    matrix.as_strided((len(matrix), window), (size + 1, 1)).copy_(taps)  # row i from column i on
    return matrix
