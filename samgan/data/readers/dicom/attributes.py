"""Read DICOM attributes so that one which is empty or makes no sense counts as absent, and is named in a note."""

import math
from collections.abc import Iterable, MutableSequence
from typing import Any


class Attributes:
    """The attributes of a data set or of an item of a sequence, with notes on what was passed over.

    A note has the same words for every file, and no value: it may be printed and counted.
    """

    def __init__(self, dataset: Any, notes: list[str], little_endian: bool):
        self.dataset = dataset
        self.notes = notes
        self.little_endian = little_endian

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def pass_over(self, what: str, keyword: str) -> None:
        """Note that an attribute counts as absent: it is "empty", "unreadable", ..."""
        self.note(f"{what} {name_of(keyword)} passed over")

    def value(self, keyword: str) -> Any:
        """What pydicom makes of the attribute; None if it is absent, empty or unreadable."""
        if keyword not in self.dataset:
            return None
        try:
            value = self.dataset[keyword].value
        except Exception:  # pydicom raises nearly anything on damaged values
            self.pass_over("unreadable", keyword)
            return None
        if value is None or (hasattr(value, "__len__") and len(value) == 0):
            self.pass_over("empty", keyword)
            return None
        return value

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """All values as finite numbers; none of them if the attribute is absent or one is not a number."""
        numbers = self.numbers_or_gaps(keyword)
        if None in numbers:
            self.pass_over("unreadable", keyword)
            return ()
        return tuple(number for number in numbers if number is not None)

    def numbers_or_gaps(self, keyword: str) -> tuple[float | None, ...]:
        """All values, None for each that is empty or no finite number; nothing if all are that."""
        value = self.value(keyword)
        if value is None:
            return ()
        if isinstance(value, bytes):  # of an unknown type, or the ambiguous "US or SS"
            order = "little" if self.little_endian else "big"
            value = [int.from_bytes(value[at : at + 2], order) for at in range(0, len(value), 2)]  # type: ignore[arg-type]
        values = [value] if isinstance(value, (int, float, str)) or not isinstance(value, Iterable) else list(value)
        numbers = tuple(_finite(each) for each in values)
        if any(number is not None for number in numbers):
            return numbers
        self.pass_over("unreadable", keyword)
        return ()

    def number(self, keyword: str) -> float | None:
        """The first value as a finite number."""
        numbers = self.numbers(keyword)
        if len(numbers) > 1:
            self.note(f"several values of {name_of(keyword)}: the first taken")
        return numbers[0] if numbers else None

    def whole(self, keyword: str, low: int, high: int) -> int | None:
        """The first value as a whole number; None if it is not one from `low` to `high`."""
        number = self.number(keyword)
        if number is None:
            return None
        if not low <= number <= high or number != int(number):
            self.pass_over("senseless", keyword)
            return None
        return int(number)

    def text(self, keyword: str) -> str:
        """The first value without spaces around it; empty if it is absent."""
        value = self.value(keyword)
        if isinstance(value, MutableSequence):  # pydicom's MultiValue
            self.note(f"several values of {name_of(keyword)}: the first taken")
            value = value[0]
        return "" if value is None else str(value).strip(" \0\t\r\n")

    def items(self, keyword: str) -> list["Attributes"]:
        """The items of a sequence; they share the notes."""
        value = self.value(keyword)
        if value is None:
            return []
        try:
            return [Attributes(item, self.notes, self.little_endian) for item in value]
        except (TypeError, AttributeError):
            self.pass_over("unreadable", keyword)
            return []


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def name_of(keyword: str) -> str:
    """The name of an attribute in the standard, such as Rescale Slope."""
    from pydicom.datadict import dictionary_description

    return dictionary_description(keyword)
