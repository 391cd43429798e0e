"""reader-study/*.json: what readers said in a blinded test of real and synthetic pictures, one file for each test."""

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from samgan.documents import Document
from samgan.errors import SamganError
from samgan.runs.documents import TrainedOn

FOLDER = "reader-study"
"""In the run folder."""
NAME = re.compile(r"[a-z0-9]{1,20}-[0-9]{8}-[0-9]{6}")
"""Of a test: its file without the suffix."""


@dataclass(frozen=True)
class Shown:
    """One picture of a test, and what the reader said of it."""

    real: bool
    number: int
    """Row of the manifest of a real image; seed of a synthetic one."""
    class_name: str = ""
    """Empty if the model is not told the class of its images."""
    said_real: bool | None = None
    """None: not answered yet."""
    seconds: float | None = None
    """From the picture to the answer; None if it is not known."""

    @property
    def right(self) -> bool:
        """Whether the reader was right."""
        return self.said_real == self.real


@dataclass(frozen=True)
class Rate:
    """A share of pictures, with its 95 % interval by Wilson's score."""

    count: int
    total: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Iterable[bool]) -> "Rate":
        """The share of those that are true; there must be one at least."""
        from samgan.metrics.intervals import share_of  # scipy, which only the end of a test needs

        each = list(found)
        return cls(sum(each), len(each), *share_of(sum(each), len(each)))


@dataclass(frozen=True)
class ReaderResult:
    """The result of a test that was finished."""

    accuracy: Rate
    """Of all pictures: those that the reader named rightly. By guessing, half of them would be."""
    real_called_real: Rate
    synthetic_called_synthetic: Rate
    median_seconds: float | None
    """Of a picture; None if no time is known."""
    classes: dict[str, Rate] = field(default_factory=dict)
    """Accuracy by class, if there are several."""


@dataclass(frozen=True, kw_only=True)
class ReaderTest(Document):
    """A blinded test: equally many real and synthetic pictures, in random order, each called real or synthetic."""

    KIND: ClassVar[str] = "a reader's test"
    MADE_BY: ClassVar[str] = "samgan studio, page Compare"

    reader: str
    """Name or initials."""
    started: str
    """Date and time, as in 2026-11-29T10:15:00+00:00."""
    model_sha256: str
    preset: str
    images_seen: int
    data: TrainedOn
    split: str
    """Of the real images: "holdout" or "train"."""
    seed: int
    """From which pictures and their order were drawn."""
    pictures: tuple[Shown, ...]
    """In the order in which they are shown."""
    result: ReaderResult | None = None
    """None until the last picture is answered."""
    samgan: str = ""

    @property
    def answered(self) -> int:
        """Number of pictures that were answered; the next one has this place."""
        return next((n for n, shown in enumerate(self.pictures) if shown.said_real is None), len(self.pictures))

    def answer(self, said_real: bool, seconds: float | None) -> "ReaderTest":
        """The test after an answer to its next picture; after the last one, with its result.

        Raises:
            SamganError: All pictures have been answered.
        """
        place = self.answered
        if place == len(self.pictures):
            raise SamganError("All pictures of this test have been answered.")
        known = None if seconds is None else round(seconds, 2)
        shown = replace(self.pictures[place], said_real=said_real, seconds=known)
        pictures = (*self.pictures[:place], shown, *self.pictures[place + 1 :])
        return replace(self, pictures=pictures, result=judge(pictures) if place + 1 == len(pictures) else None)


def judge(pictures: tuple[Shown, ...]) -> ReaderResult:
    """The result of pictures that have all been answered, with real and synthetic ones among them."""
    classes = sorted({shown.class_name for shown in pictures})
    seconds = [shown.seconds for shown in pictures if shown.seconds is not None]
    return ReaderResult(
        accuracy=Rate.of(shown.right for shown in pictures),
        real_called_real=Rate.of(shown.right for shown in pictures if shown.real),
        synthetic_called_synthetic=Rate.of(shown.right for shown in pictures if not shown.real),
        median_seconds=statistics.median(seconds) if seconds else None,
        classes={name: Rate.of(shown.right for shown in pictures if shown.class_name == name) for name in classes}
        if len(classes) > 1
        else {},
    )


def reader_files(run: Path) -> list[Path]:
    """The files of all tests of a run, oldest first."""
    found = [path for path in (run / FOLDER).glob("*.json") if NAME.fullmatch(path.stem)]
    return sorted(found, key=lambda path: (path.stem[-15:], path.stem))


def read_reader_tests(run: Path) -> tuple[ReaderTest, ...]:
    """All tests of a run that are finished, oldest first.

    Raises:
        SamganError: One cannot be read.
    """
    tests = (ReaderTest.read(path) for path in reader_files(run))
    return tuple(test for test in tests if test.result is not None)
