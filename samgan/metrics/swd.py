"""Sliced Wasserstein distance between patches of Laplacian pyramids: structure and texture, scale by scale."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from samgan.errors import SamganError
from samgan.metrics.banded import between

MIN_RESOLUTION = 16
PATCH_SIZE = 7
PATCHES_PER_IMAGE = 128
DIRECTIONS = 512
DIRECTIONS_AT_ONCE = 32
PIXELS_AT_ONCE = 1 << 23
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def sliced_wasserstein_distance(
    real: UInt8[Tensor, "n c h w"], fake: UInt8[Tensor, "m _ _ _"], *, seed: int = 0
) -> dict[str, float]:
    """Measure the distance between the patches of two sets of images at every level of their Laplacian pyramids.

        SWD = 1000 * mean_theta mean_i | sort(R theta)_i - sort(F theta)_i |,   theta: 512 random unit vectors

    R and F hold 128 random 7x7 patches of each image, each set shifted and scaled to mean 0 and standard deviation 1
    per channel, so that neither the overall brightness nor the contrast counts. Levels are halved down to 16 px (or to
    an odd side). No weights are needed.

    Args:
        real: images of the same shape as the generated ones. The larger set is cut to the size of the smaller one.
        fake: images.
        seed: of the patches and directions; the same seed gives the same number.

    Returns:
        One distance per level, keyed by its resolution in pixels (as text), and their "mean"; >= 0, lower is better.
        High levels show texture, the lowest one anatomy and shape. Two sets of one distribution give more than 0.

    Raises:
        SamganError: the shapes differ, an empty set, or images below 16 px.

    Source: Karras et al. 2018, section 5 (arXiv:1710.10196).
    """
    if real.shape[1:] != fake.shape[1:] or not len(real) or not len(fake):
        raise SamganError(f"SWD compares images of the same shape, found {tuple(real.shape)} and {tuple(fake.shape)}")
    if min(real.shape[2:]) < MIN_RESOLUTION:
        raise SamganError(f"SWD needs images of at least {MIN_RESOLUTION} px, found {real.shape[2]}x{real.shape[3]}")
    count = min(len(real), len(fake))
    return distances_to(real_levels(real[:count], seed=seed), fake[:count])


class RealLevel(NamedTuple):
    """What one level of the distance takes from the real images, and all random draws."""

    size: int
    """Its resolution in pixels."""
    patches: Float[Tensor, "patches features"]
    places: Int[Tensor, "2 patches"]
    """Rows and columns of the patches of the generated images."""
    directions: Float[Tensor, "features directions"]


def real_levels(real: UInt8[Tensor, "n c h w"], *, seed: int = 0) -> Iterator[RealLevel]:
    """The real half of `sliced_wasserstein_distance`, level by level; a tuple of it serves for many `distances_to`."""
    random = torch.Generator().manual_seed(seed)
    features = real.shape[1] * PATCH_SIZE**2
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    sides = _sides(real.shape)
    for shape in sides:
        own, others = _places(len(real), shape, random), _places(len(real), shape, random)
        directions = F.normalize(torch.randn(features, DIRECTIONS, generator=random), dim=0)
        drawn.append((own, others, directions))
    patches = _patches(real, [own for own, *_ in drawn])
    for shape, patch, (_, others, directions) in zip(sides, patches, drawn, strict=True):
        yield RealLevel(min(shape), patch, others, directions)


def distances_to(real: Iterable[RealLevel], fake: UInt8[Tensor, "n c h w"]) -> dict[str, float]:
    """As `sliced_wasserstein_distance`, of real images that `real_levels` was given and as many generated ones.

    Raises:
        SamganError: There are not as many.
    """
    distances, levels = {}, tuple(real)
    expected = levels[0].places.shape[1] // PATCHES_PER_IMAGE
    if len(fake) != expected:
        raise SamganError(f"expected {expected} generated images, as many as real ones, found {len(fake)}")
    for level, patches in zip(levels, _patches(fake, [level.places for level in levels]), strict=True):
        distances[str(level.size)] = 1000 * _sliced_distance(level.patches, patches, level.directions)
    return distances | {"mean": sum(distances.values()) / len(distances)}


def _sides(shape: torch.Size) -> list[tuple[int, int]]:
    """Height and width of every level, largest first."""
    height, width = shape[2:]
    sides = [(height, width)]
    while min(height, width) // 2 >= MIN_RESOLUTION and not height % 2 and not width % 2:
        height, width = height // 2, width // 2
        sides.append((height, width))
    return sides


def _laplacian_pyramid(images: Tensor) -> list[Float[Tensor, "n c h w"]]:
    """Each level's detail, largest first; the last level is what remains, blurred."""
    level = images.cpu().float()
    levels = []
    for _ in _sides(images.shape)[1:]:
        rows, columns = (_blur_matrix(side) for side in level.shape[2:])
        smaller = between(rows[::2], level, columns[::2])
        # Three in four pixels of the enlarged image are zeros, left out here; the others count twice along each side.
        levels.append(level - 4 * between(rows[:, ::2], smaller, columns[:, ::2]))
        level = smaller
    return [*levels, level]


def _blur_matrix(side: int) -> Float[Tensor, "side side"]:
    """The binomial filter along one side, mirrored at the border without repeating the edge, as a banded matrix.

    On a CPU, products with it are ten times faster than convolutions of one channel, and its even rows give only
    every other pixel.
    """
    pixels, last = torch.arange(side), side - 1
    matrix = torch.zeros(side, side)
    for offset, tap in enumerate(BINOMIAL, -(len(BINOMIAL) // 2)):
        mirrored = last - ((pixels + offset).abs() - last).abs()
        matrix[pixels, mirrored] += tap
    return matrix


def _places(count: int, sides: tuple[int, int], random: torch.Generator) -> Int[Tensor, "2 patches"]:
    """Rows and columns of random patches, `PATCHES_PER_IMAGE` of each image."""
    return torch.stack(
        [torch.randint(side - PATCH_SIZE + 1, (count * PATCHES_PER_IMAGE,), generator=random) for side in sides]
    )


def _patches(images: UInt8[Tensor, "n c h w"], places: Sequence[Tensor]) -> list[Float[Tensor, "patches features"]]:
    """For each level the patches of every image at its places, normalised per channel over the whole set.

    Pyramids take many times the memory of their images, so only some are there at a time.
    """
    at_once = max(1, PIXELS_AT_ONCE // images[:1].numel())
    found = [torch.empty(where.shape[1], images.shape[1], PATCH_SIZE, PATCH_SIZE) for where in places]
    for start in range(0, len(images), at_once):
        some = images[start : start + at_once]
        image = torch.arange(len(some)).repeat_interleave(PATCHES_PER_IMAGE)
        own = slice(start * PATCHES_PER_IMAGE, (start + len(some)) * PATCHES_PER_IMAGE)
        for patches, level, where in zip(found, _laplacian_pyramid(some), places, strict=True):
            windows = level.unfold(2, PATCH_SIZE, 1).unfold(3, PATCH_SIZE, 1)  # n c y x 7 7, a view
            patches[own] = windows[image, :, *where[:, own]]
    return [_normalised(patches) for patches in found]


def _normalised(patches: Float[Tensor, "patches c 7 7"]) -> Float[Tensor, "patches features"]:
    std, mean = torch.std_mean(patches, dim=(0, 2, 3), correction=0, keepdim=True)
    # A constant set (a collapsed generator) keeps its zeros.
    return patches.sub_(mean).div_(torch.where(std > 0, std, 1)).flatten(1)


def _sliced_distance(real: Tensor, fake: Tensor, directions: Tensor) -> float:
    """Mean Wasserstein distance of the one-dimensional projections."""
    total, threads = 0.0, torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        for some in directions.split(DIRECTIONS_AT_ONCE, dim=1):
            projected = [(some.T @ patches.T).numpy() for patches in (real, fake)]
            means = pool.map(_row_distances, *(np.array_split(rows, threads) for rows in projected))
            total += float(np.concatenate(list(means)).sum())
    return total / directions.shape[1]


def _row_distances(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """Row by row; the arguments are overwritten.

    numpy's vectorised sort is many times faster than torch's on a CPU, and lets other threads run.
    """
    real.sort(axis=1)
    fake.sort(axis=1)
    real -= fake
    return np.abs(real, out=real).mean(axis=1, dtype=np.float64)
