"""A form from the settings' schema: fields, and what was typed into them as words of a command."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from samgan.config import json_schema
from samgan.errors import UsageError
from samgan.studio.choices import read_number

HIDDEN = ("network.vision_file", "network.resolution", "network.image_channels")
"""A file, which no form names; and what the set decides."""
FIRST = ("training.kimg", "training.batch_size", "training.snapshot_every_kimg", "training.seed")
"""Shown without unfolding anything."""

Kind = Literal["choice", "number", "list"]


@dataclass(frozen=True)
class Field:
    """One setting in a form. An empty field leaves the setting to the preset."""

    key: str
    help: str
    kind: Kind
    choices: tuple[str, ...] = ()
    whole: bool = False
    """Whether a number, or each item of a list, is a whole number."""
    text: bool = False
    """Whether each item of a list is text."""

    @property
    def label(self) -> str:
        """Its name for a reader."""
        return self.key.partition(".")[2].replace("_", " ")

    def word(self, typed: str) -> str:
        """What was typed, as an option of a command.

        Raises:
            UsageError: It is no number, or none of the choices.
        """
        typed = typed.strip()
        if self.kind == "choice":
            if typed not in self.choices:
                raise UsageError(f"{self.key}: expected one of {', '.join(self.choices)}")
            return f"--{self.key}={typed}"
        if self.kind == "number":
            return f"--{self.key}={self._number(typed)}"
        if ";" in typed:
            between = ";"
        elif self.whole or self.text:
            between = ","
        else:
            between = r",\s"  # one without a space may be a decimal comma
        parts = [part.strip() for part in re.split(between, typed)]
        items = [part if self.text else self._number(part) for part in parts if part]
        return f"--{self.key}={json.dumps(items)}"

    def _number(self, typed: str) -> int | float:
        """A number, with a point or a comma."""
        try:
            return read_number(self.key, typed, self.whole)
        except ValueError:
            expected = "a whole number" if self.whole else "a number"
            if self.kind == "list":
                expected += ", or several with a semicolon between them"
            raise UsageError(f"{self.key}: expected {expected}, found {typed!r}") from None


def fields() -> list[Field]:
    """All settings that a form may have, in the order of the schema."""
    return [
        _field(f"{section}.{name}", described)
        for section, group in json_schema()["properties"].items()
        if group["type"] == "object"
        for name, described in group["properties"].items()
        if f"{section}.{name}" not in HIDDEN
    ]


def words(form: Mapping[str, str]) -> list[str]:
    """Options for all settings of a form that are not empty.

    Raises:
        UsageError: One of them is not what it may be.
    """
    return [field.word(typed) for field in fields() if (typed := form.get(field.key, ""))]


def _field(key: str, described: Mapping[str, Any]) -> Field:
    kinds = described["type"] if isinstance(described["type"], list) else [described["type"]]
    text = described["description"]
    if "boolean" in kinds:
        return Field(key, text, "choice", ("true", "false"))
    if "enum" in described:
        return Field(key, text, "choice", tuple(map(str, described["enum"])))
    if "array" in kinds:
        item = described["items"]["type"]
        return Field(key, text, "list", whole=item == "integer", text=item == "string")
    return Field(key, text, "number", whole="integer" in kinds)
