"""What the cells of a table of labels say: several labels in one, findings as 1, 0 and -1, and names of classes."""

import ast
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from samgan.errors import SamganError

BLANKS = ("", "nan", "null", "n/a", "na", "#n/a", "<na>")
STATES = (
    dict.fromkeys(("1", "1.0", "true", "yes", "y", "x", "pos", "positive", "ja"), 1)
    | dict.fromkeys(("0", "0.0", "false", "no", "n", "neg", "negative", "nein"), 0)
    | dict.fromkeys(("-1", "-1.0", "uncertain", "u"), -1)
)
"""What a cell of a column of a finding may hold: 1 there is the finding, 0 there is none, -1 uncertain (CheXpert)."""
NO_FINDING = "no_finding"
NO_FINDING_NAMES = ("nofinding", "nofindings", "normal", "healthy")
LONGEST_NAME = 100
MOST_CLASSES = 1000


class Said(NamedTuple):
    """What one row says about its image."""

    labels: tuple[str, ...]
    """In the order of the cell or the columns, each once."""
    is_uncertain: bool = False


def is_blank(cell: str) -> bool:
    """Whether a cell says nothing, in the words of a spreadsheet or of pandas."""
    return cell.lower() in BLANKS


def split_labels(cell: str) -> tuple[str, ...]:
    """The labels in one cell: `A`, `A|B`, `A; B`, a list of JSON or of Python; each once, in their order."""
    cell = cell.strip()
    parts: Iterable[object] = re.split(r"[|;]", cell)
    if cell.startswith("[") and cell.endswith("]"):
        parts = _read_list(cell)
    names = (" ".join(str(part).split()) for part in parts)
    return tuple(dict.fromkeys(name for name in names if not is_blank(name)))


def _read_list(cell: str) -> Sequence[object]:
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if all(isinstance(part, str | int | float | None) for part in found):
            return ["" if part is None else part for part in found]
    return [part.strip(" '\"") for part in re.split(r"[,|;]", cell[1:-1])]  # [normal, scoliosis]


def read_findings(states: Sequence[int | None], names: Sequence[str], uncertain: str) -> Said:
    """What columns of findings say.

    Args:
        states: for each column 1, 0, -1 (uncertain) or None (not mentioned).
        names: names of the columns.
        uncertain: "drop", "positive" or "negative".

    Returns:
        The columns with 1. If every column is 0, "no finding": the absence of all of them. Nothing if no column is 1
        and some are empty, or if a column of normal images is there and 0: nothing tells then what the image shows.
    """
    replaced = {"positive": 1, "negative": 0}.get(uncertain, -1)
    states = [replaced if state == -1 else state for state in states]
    found = tuple(dict.fromkeys(name for name, state in zip(names, states, strict=True) if state == 1))
    if -1 in states:
        return Said(found, is_uncertain=True)
    if found or any(state is None for state in states) or any(_is_normal(name) for name in names):
        return Said(found)
    return Said((none_of(names),))


def none_of(names: Sequence[str]) -> str:
    """The class of images for which every column of findings is 0."""
    return f"no_{names[0]}" if len(names) == 1 else NO_FINDING


def _is_normal(name: str) -> bool:
    return re.sub(r"[\W_]", "", name.lower()) in NO_FINDING_NAMES


def safe_name(label: str) -> str:
    """The name of a class, which may become that of a folder: no slashes, no control characters, no leading dots."""
    name = unicodedata.normalize("NFC", label)
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    name = " ".join(re.sub(r"\s*[/\\]\s*", "_", name).split())
    name = re.sub(r"^-(?=\d)", "minus_", name)  # -1 is not 1
    return name.lstrip(".- ") or "unnamed"


def name_classes(counts: Mapping[str, int]) -> tuple[dict[str, str], list[str]]:
    """Name the class of each label; labels that differ only in capitals or spaces are one class.

    Args:
        counts: number of images of each label as read.

    Returns:
        The class of each label, and sentences about those that had to be changed.

    Raises:
        SamganError: a name is very long, or there are very many: the column is not one of labels.
    """
    if len(counts) > MOST_CLASSES:
        first, second = sorted(counts)[:2]
        raise SamganError(
            f"the labels of the tables are {len(counts)} different ones, such as {first[:40]!r} and {second[:40]!r}: "
            "name the --label-column that holds labels"
        )
    if long := [label for label in counts if len(label) > LONGEST_NAME]:
        raise SamganError(
            f"a label has {len(long[0])} characters ({long[0][:40]!r}...), expected at most {LONGEST_NAME}: "
            "name the --label-column that holds labels"
        )
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        alike[safe_name(label).casefold()].append(label)
    classes = {label: safe_name(labels[0]) for labels in alike.values() for label in labels}
    renamed = [f"{label!r} is {name!r}" for label, name in sorted(classes.items()) if label != name]
    said = []
    if renamed:
        more = f", and {len(renamed) - 5} more" if len(renamed) > 5 else ""
        said.append(f"Labels were renamed to be safe or equal names of classes: {', '.join(renamed[:5])}{more}.")
    return classes, said


def name_numbers(counts: Mapping[str, int], column: str) -> dict[str, str] | None:
    """Name labels that are numbers after their column, such as Target_1; None unless all of them are numbers."""
    if not counts or not all(re.fullmatch(r"-?\d+(\.0+)?", label) for label in counts):
        return None
    return {label: f"{column}_{re.sub('[.]0+$', '', label)}" for label in counts}


def merge(labels: Iterable[Sequence[str]]) -> Counter[str]:
    """Count labels."""
    return Counter(label for of_one in labels for label in of_one)
