"""A form from the options of `samgan prepare`: its fields, and what was typed into them as words of the command."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from samgan.config import SIDES
from samgan.data.options import CHOICES, HELP, PrepareOptions
from samgan.errors import UsageError
from samgan.studio.choices import read_number
from samgan.studio.places import Root

FIRST = ("resolution", "holdout", "classes_from")
"""Shown without unfolding anything."""
OFFERED = {**CHOICES, "resolution": SIDES[3:]}
"""What an option may be, as the command takes it: it makes no sets that are too small to train on."""
TABLE = {
    "labels": "table that names each image's labels, instead of folders: .csv, .tsv, .csv.gz or .xlsx, below the "
    "folder of this studio",
    "image_column": "column with the file name, path or identifier of the image",
    "label_column": "column of labels; or several, with commas in between",
    "patient_column": "column of patients; the set has hashes only",
    "split_column": "column with train, val, test, ...",
}
"""Fields of a label table: what each is."""


@dataclass(frozen=True)
class Field:
    """One option in a form. An empty field leaves it to the command."""

    name: str
    help: str
    kind: typing.Literal["choice", "whole", "number", "text", "yes"]
    default: str
    choices: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its name for a reader."""
        return self.name.replace("_", " ")

    def word(self, typed: str) -> str:
        """What was typed, as an option of the command.

        Raises:
            UsageError: It is no number, or none of the choices.
        """
        option, typed = f"--{self.name.replace('_', '-')}", typed.strip()
        if self.kind in ("choice", "yes"):
            known = self.choices or ("yes",)
            if typed not in known:
                raise UsageError(f"{self.label}: expected one of {', '.join(known)}")
            return option if self.kind == "yes" else f"{option}={typed}"
        if self.kind in ("whole", "number"):
            try:
                value = read_number(self.label, typed, whole=self.kind == "whole")
            except ValueError:
                raise UsageError(f"{self.label}: expected a number, found {typed!r}") from None
            return f"{option}={value}"
        return f"{option}={typed}"


def fields() -> list[Field]:
    """All options of `samgan prepare` but those of tables, in their order."""
    hints = typing.get_type_hints(PrepareOptions)
    return [_field(own, hints[own.name]) for own in dataclasses.fields(PrepareOptions) if own.name in HELP]


def words(root: Root, typed: Mapping[str, str]) -> list[str]:
    """Options for all fields of a form that are not empty.

    Raises:
        UsageError: One of them is not what it may be.
        Outside: The table is not below the root.
    """
    found = [field.word(typed[field.name]) for field in fields() if typed.get(field.name, "").strip()]
    return [*found, *_table_words(root, typed)]


def _table_words(root: Root, typed: Mapping[str, str]) -> Iterator[str]:
    given = {name: typed[name].strip() for name in TABLE if typed.get(name, "").strip()}
    if not given:
        return
    if "labels" not in given:
        raise UsageError("Columns of a table need the table: name its file.")
    table = root.find(given.pop("labels"))
    if not table.is_file():
        raise UsageError(f"labels: there is no file {typed['labels'].strip()} below the folder of this studio")
    yield f"--labels={table}"
    columns = [part.strip() for part in given.pop("label_column", "").split(",") if part.strip()]
    yield from (f"--{name.replace('_', '-')}={value}" for name, value in given.items())
    yield from (f"--label-column={column}" for column in columns)  # alone, one with a dash would be another option


def _field(own: "dataclasses.Field[object]", kind: object) -> Field:
    default = "" if own.default is None else str(own.default)
    if own.name in OFFERED:
        choices = tuple(str(choice) for choice in OFFERED[own.name] if choice is not None)
        return Field(own.name, HELP[own.name], "choice", default, choices)
    plain = next(part for part in typing.get_args(kind) if part is not type(None)) if _is_optional(kind) else kind
    kinds: dict[object, typing.Literal["whole", "number", "yes"]] = {bool: "yes", int: "whole", float: "number"}
    found = kinds.get(plain)
    return Field(own.name, HELP[own.name], found or "text", "" if found == "yes" else default)


def _is_optional(kind: object) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)
