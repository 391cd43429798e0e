"""The seeds that commands and functions take: one range, checked in one place."""

from samgan.errors import UsageError

SEEDS = 1 << 32
"""A seed is a whole number from 0 to less than this. torch's CPU generator uses the lower 32 bits of a seed, so seeds
from here on would repeat others."""


def check_seed(seed: int, images: int = 1) -> None:
    """Refuse a seed that is out of range.

    Args:
        seed: Of the first image, or of whatever is drawn.
        images: Number of images, if image i has the seed `seed` + i.

    Raises:
        UsageError: It is not a whole number from 0 to 2^32 - `images`.
    """
    if type(seed) is not int or not 0 <= seed <= SEEDS - images:
        since = ", since image i has seed + i" if images > 1 else ""
        raise UsageError(f"--seed {seed}: expected a whole number from 0 to 2^32 - {images}{since}")
