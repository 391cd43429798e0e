"""utility_map.json: where it was measured whether synthetic images help a classifier, and what was found.

It travels with the package, so that `samgan balance` can say what is known before hours are spent. The command
`python results/balance/map/table.py write` makes it from the records in results/balance.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from samgan.documents import Document
from samgan.trust.utility_document import HARMS, HELPS, UNDECIDED, Word

PATH = Path(__file__).with_name("utility_map.json")
KNOWN_HEADER = ("question", "expected to be", "px", "small class", "verdicts", HELPS, UNDECIDED, HARMS, "detectable")


@dataclass(frozen=True)
class Verdict:
    """What one use of synthetic images gained in one case, in AUC, over the strongest way without them."""

    source: str
    """The folder or file of results/balance that has the record."""
    side: int
    """Of the images, in pixels."""
    images: int | None
    """Real training images of the small class; None: they differ between draws of patients."""
    patients: int | None
    """Of the small class; None: not recorded."""
    use: str
    """How synthetic images were used; where several were chosen in turn, the one chosen most often."""
    rival: str
    """The way without synthetic images; where several were chosen in turn, the one chosen most often."""
    rival_auc: float
    """Of the way without synthetic images."""
    gain: float
    low: float
    """Of its interval: 95 %, and wider for a gain that is shown on the map."""
    high: float
    verdict: Word
    detectable: float
    """The smallest gain that would have been shown in four cases of five."""
    draws: int
    """How many choices of few patients; with 1, the interval does not say how much these differ."""


@dataclass(frozen=True)
class PlannedCell:
    """A case that is to be measured."""

    side: int
    """Of the images, in pixels."""
    patients: int
    """Of the small class."""


@dataclass(frozen=True)
class Question:
    """What a classifier was, or will be, asked."""

    name: str
    text: str
    difficulty: Literal["easy", "hard", "unclear"]
    """As expected before any verdict."""
    verdicts: tuple[Verdict, ...]
    open: tuple[PlannedCell, ...]
    """Planned cells that have no verdict."""

    def count(self, word: Word) -> int:
        """How many verdicts say so."""
        return sum(found.verdict == word for found in self.verdicts)


@dataclass(frozen=True, kw_only=True)
class UtilityMap(Document):
    """Everything that was measured, and what is planned."""

    KIND: ClassVar[str] = "a map of utility"
    MADE_BY: ClassVar[str] = "python results/balance/map/table.py write"

    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        """Check what types cannot: intervals that hold their gain, areas, and counts."""
        for question in self.questions:
            for found in question.verdicts:
                fits = found.low <= found.gain <= found.high and 0 <= found.rival_auc <= 1 and found.detectable > 0
                counted = min(found.side, found.draws, found.images or 1, found.patients or 1) > 0
                if not fits or not counted or (found.images is None and found.patients is None):
                    raise ValueError(f"{question.name}, {found.source}: the numbers of this verdict cannot be true")


@functools.cache
def read_utility_map() -> UtilityMap:
    """The map that came with this version of samgan.

    Raises:
        SamganError: It is missing or damaged.
    """
    return UtilityMap.read(PATH)


def known_rows(known: UtilityMap) -> Iterator[tuple[str, ...]]:
    """What is known, as rows by `KNOWN_HEADER`: one for each question and size."""
    for question in known.questions:
        for side in sorted({case.side for case in question.verdicts} | {cell.side for cell in question.open}):
            found = [case for case in question.verdicts if case.side == side]
            planned = [case.patients for case in question.open if case.side == side]
            if found:
                counts = [str(sum(case.verdict == word for case in found)) for word in (HELPS, UNDECIDED, HARMS)]
                seen = _range([case.detectable for case in found], "{:.4f}")
                yield question.text, question.difficulty, str(side), sizes(found), str(len(found)), *counts, seen
            if planned:
                numbers = ", ".join(map(str, sorted(planned)))
                yield question.text, question.difficulty, str(side), f"{numbers} patients", "not measured", *["-"] * 4


def sizes(cases: Sequence[Verdict]) -> str:
    """How large the small class was: patients if they were counted in every case, else images."""
    patients = [case.patients for case in cases if case.patients is not None]
    if len(patients) == len(cases):
        return f"{_range(patients, '{:,}')} patients"
    return f"{_range([case.images for case in cases if case.images is not None], '{:,}')} images"


def _range(values: Sequence[int] | Sequence[float], style: str) -> str:
    low, high = (style.format(value) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
