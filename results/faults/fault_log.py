"""Logs of the scripts in this folder: CSV files with a row, a dataclass of text and numbers, for each thing done."""

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

Row = TypeVar("Row")


def read_log(log: Path, kind: type[Row]) -> list[Row]:
    """All rows so far; none if there is no such file."""
    if not log.is_file():
        return []
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    with open(log, encoding="utf-8", newline="") as file:
        return [kind(**{name: types[name](text) for name, text in row.items()}) for row in csv.DictReader(file)]


def append(log: Path, *rows: object) -> None:
    """Add rows of one kind; the first line of a new file has their names."""
    is_new = not log.is_file()
    with open(log, "a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(field.name for field in dataclasses.fields(rows[0]))
        writer.writerows(map(dataclasses.astuple, rows))


def replace(log: Path, rows: Iterable[object]) -> None:
    """Write a log anew."""
    new = log.with_suffix(".new")
    new.unlink(missing_ok=True)
    append(new, *rows)
    new.replace(log)
