"""card.json: the places of a card that a person has to fill in, and what was filled in.

`samgan card` writes it beside the card, and takes the answers from it when it writes the card again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from samgan.documents import Document

FILE = "card.json"


@dataclass(frozen=True)
class OpenItem:
    """One place of a card that the record does not fill."""

    key: str
    """Names it in every version of the card, such as "CLAIM: funding"."""
    section: str
    """The heading it stands under."""
    asks: str
    answer: str = ""
    """What a person wrote; empty: still open."""


@dataclass(frozen=True, kw_only=True)
class CardForm(Document):
    """The open places of one card, and the answers to them."""

    KIND: ClassVar[str] = "the open places of a card"
    MADE_BY: ClassVar[str] = "samgan card, after you have moved it away"

    card: str
    """The name of the card's file, in the same folder."""
    card_sha256: str
    """Of that file as samgan wrote it; another hash means that it was edited by hand since."""
    items: tuple[OpenItem, ...]
    unused: dict[str, str]
    """By key, answers to places that this card does not leave open; they are kept for another."""

    @property
    def answers(self) -> dict[str, str]:
        """All answers by key."""
        return self.unused | {item.key: item.answer for item in self.items if item.answer}

    @property
    def left(self) -> int:
        """How many places are still open."""
        return sum(not item.answer for item in self.items)

    def answered(self, answers: Mapping[str, str]) -> "CardForm":
        """The form with other answers; an item without one is open again."""
        items = tuple(replace(item, answer=" ".join(answers.get(item.key, "").split())) for item in self.items)
        return replace(self, items=items)

    def is_edited(self, folder: Path) -> bool:
        """Whether the card in a folder is not the one that samgan wrote.

        Raises:
            OSError: It cannot be read.
        """
        path = folder / self.card
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != self.card_sha256


def read_form(folder: Path) -> CardForm | None:
    """Read the form of a folder; None if there is none.

    Raises:
        SamganError: It is damaged.
    """
    path = folder / FILE
    return CardForm.read(path) if path.is_file() else None
