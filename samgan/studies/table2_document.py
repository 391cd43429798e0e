"""table.json: the table of a sweep, for pages and for other programs."""

from dataclasses import dataclass
from typing import ClassVar

from samgan.documents import Document

Cell = str | int | float | dict[str, float] | None


@dataclass(frozen=True)
class JudgedClaim:
    """A claim of the paper, and what was measured."""

    sentence: str
    word: str
    """Whether it was confirmed."""
    evidence: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table(Document):
    """The lines of the table, and what is said about them."""

    KIND: ClassVar[str] = "a table of rows"
    MADE_BY: ClassVar[str] = "samgan table2"

    title: str
    command: str
    lines: tuple[dict[str, Cell], ...]
    """Values by the names of `samgan.studies.COLUMNS`."""
    header: tuple[str, ...] = ()
    """Columns for readers; empty in tables of earlier versions, as is all that follows."""
    cells: tuple[tuple[str, ...], ...] = ()
    """The lines as text, by `header`."""
    claims: tuple[JudgedClaim, ...] = ()
    ranks: tuple[str, ...] = ()
    """Rank correlations with the paper, in sentences."""
    alarms: str = ""
    """Which rows collapsed, and when it was noticed, in a sentence."""
    notes: tuple[str, ...] = ()
    """What the numbers rest on."""
