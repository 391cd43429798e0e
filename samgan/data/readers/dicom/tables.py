"""Look-up tables of DICOM: modality, VOI and palette."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Num, UInt16

from samgan.data.readers.dicom.attributes import Attributes
from samgan.data.readers.radiograph import BIT_DEPTHS


class Table(NamedTuple):
    """A look-up table; what lies beyond its ends has the value of the end."""

    entries: UInt16[np.ndarray, " n"]
    first: int
    """Input value of the first entry."""
    bits: int
    """Smallest depth that holds what the entries can reach."""

    @property
    def top(self) -> int:
        """Full scale of the entries."""
        return 2**self.bits - 1

    @property
    def is_flat(self) -> bool:
        """Whether all entries are equal, so that it would leave no picture."""
        return bool((self.entries == self.entries[0]).all())

    def apply(self, values: Num[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
        """Look the values up, each rounded to a whole number."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.int64)].astype(np.float64)


def read_table(attributes: Attributes, low: int | float, high: int | float, prefix: str = "LUT") -> Table | None:
    """Read LUT Descriptor and LUT Data of an item.

    Entries of 8 bits come packed in bytes, or one in each word. The depth is that which is declared, if the entries fit
    in it; 16 bits say nothing, since that is also how 12 bits are stored: then it is the smallest of 8, 10, 12, 14, 16
    that holds the largest entry.

    Args:
        attributes: of the item.
        low: smallest value that can come in; it tells whether the first mapped value is signed.
        high: largest value that can come in.
        prefix: of the keywords of descriptor and data.

    Returns:
        The table, or None if it is incomplete.

    Source:
        DICOM PS3.3, C.11.1.1 (modality), C.11.2.1.1 (VOI), C.7.6.3.1.5 and C.7.6.3.1.6 (palette).
    """
    descriptor = attributes.numbers(f"{prefix}Descriptor")
    if len(descriptor) != 3:
        return None
    count = int(descriptor[0]) % 2**16 or 2**16
    declared = int(descriptor[2])
    entries = _entries(attributes, f"{prefix}Data", count, declared)
    if entries is None:
        return None
    first = int(descriptor[1])
    other = first + 2**16 if first < 0 else first - 2**16
    if not _overlaps(first, count, low, high) and _overlaps(other, count, low, high):
        first = other  # the type, US or SS, was written or guessed wrongly
    return Table(entries, first, depth_of(int(entries.max()), declared))


def depth_of(largest: int, declared: int) -> int:
    """The declared depth if it says something and is enough, else the smallest usual depth that is enough."""
    if 8 <= declared < 16 and largest < 2**declared:
        return declared
    return next(depth for depth in BIT_DEPTHS if largest < 2**depth)


def _overlaps(first: int, count: int, low: int | float, high: int | float) -> bool:
    return first <= high and first + count > low


def _entries(attributes: Attributes, keyword: str, count: int, declared: int) -> UInt16[np.ndarray, " n"] | None:
    """Take `count` entries from the bytes as they stand in the file: the type that they are given is often wrong."""
    if keyword not in attributes.dataset:
        return None
    try:
        element = attributes.dataset.get_item(keyword)
    except Exception:  # pydicom knows no such type
        return None
    value = element.value
    if not isinstance(value, (bytes, bytearray)):
        return None
    words = np.frombuffer(value, "<u2" if attributes.little_endian else ">u2", len(value) // 2)
    if len(words) >= count:
        return words[:count].astype(np.uint16)
    if declared <= 8 and len(value) >= count:
        # two entries in each word, the first in the low byte; in bytes (OB) they stand in order
        in_order = element.VR == "OB" or attributes.little_endian
        packed = np.frombuffer(value, np.uint8) if in_order else words.astype("<u2").view(np.uint8)
        return packed[:count].astype(np.uint16) if len(packed) >= count else None
    return None
