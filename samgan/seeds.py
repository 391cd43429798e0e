"""The seeds that commands and functions take: one range, checked in one place."""

import operator
from typing import Any, SupportsIndex

from samgan.errors import UsageError

SEEDS = 1 << 32
"""A seed is a whole number from 0 to less than this. torch's CPU generator uses the lower 32 bits of a seed, so seeds
from here on would repeat others."""


def check_seed(seed: object, images: int = 1) -> None:
    """Refuse a seed that is out of range.

    Args:
        seed: Of the first image, or of whatever is drawn.
        images: Number of images, if image i has the seed `seed` + i.

    Raises:
        UsageError: It is not a whole number from 0 to 2^32 - `images`.
    """
    if type(seed) is not int or not 0 <= seed <= SEEDS - images:
        since = ", since image i has seed + i" if images > 1 else ""
        found = "" if type(seed) is int else f"; found one of type {type(seed).__name__}, not int"
        raise UsageError(f"--seed {seed}: expected a whole number from 0 to 2^32 - {images}{since}{found}")


def as_seed(seed: SupportsIndex, images: int = 1) -> int:
    """A seed as an int, which JSON can hold; whole numbers of other types, such as numpy's, are taken too.

    Raises:
        UsageError: As for `check_seed`.
    """
    try:
        whole: Any = seed if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        whole = seed
    check_seed(whole, images)
    return whole
