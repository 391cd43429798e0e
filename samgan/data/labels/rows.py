"""What the rows of a table of labels say, gathered by what they call the image."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from samgan.data.labels import cells as label_cells
from samgan.data.labels.cells import Said
from samgan.data.labels.columns import Columns
from samgan.data.labels.tables import Table
from samgan.data.options import LabelOptions
from samgan.data.sources.folder_names import SPLITS
from samgan.errors import UsageError

SPLIT_WORDS = SPLITS | dict.fromkeys(("validate", "dev", "eval", "evaluation"), "holdout")  # MIMIC-CXR: validate
PATIENT_FOLDER = re.compile(r"(?:^|[/\\])(patient\d+)[/\\]", re.IGNORECASE)  # CheXpert, which has no such column


@dataclass(slots=True)
class Facts:
    """What rows say about one image, or about one name of a table. Tuples hold each text once, in the order read."""

    first_row: int = 0
    """Number of the first row, from 1, empty ones not counted."""
    rows: int = 0
    labels: tuple[str, ...] = ()
    is_uncertain: bool = False
    has_label_column: bool = False
    patients: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    views: tuple[str, ...] = ()

    def add(self, other: "Facts") -> None:
        """Add what other rows say."""
        self.rows += other.rows
        self.labels = _join_texts(self.labels, other.labels)
        self.is_uncertain |= other.is_uncertain
        self.has_label_column |= other.has_label_column
        self.patients = _join_texts(self.patients, other.patients)
        self.splits = _join_texts(self.splits, other.splits)
        self.views = _join_texts(self.views, other.views)


def _join_texts(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    if not right or left == right:
        return left
    return tuple(dict.fromkeys(left + right)) if left else right


class Read(NamedTuple):
    """A table with its columns."""

    table: Table
    columns: Columns


def facts_by_name(read: Read, options: LabelOptions, warnings: list[str]) -> dict[str, Facts]:
    """Gather what the rows of one table say, by what they call the image (patient/study for tables of studies)."""
    table, columns = read
    say = _sayer(read, options, warnings)
    facts: dict[str, Facts] = {}
    splits: dict[str, tuple[str, ...]] = {}
    known: dict[str, tuple[str, ...]] = {}  # each text is kept in memory once
    folder_tells = columns.patient is None and options.patient_column is None
    by_folder = 0
    for number, row in enumerate(table.rows, start=1):
        name = _name_of(row, columns)
        own = facts.get(name)
        if own is None:
            own = facts[name] = Facts(first_row=number)
        own.rows += 1
        if say is not None:
            said = say(row)
            own.has_label_column = True
            own.is_uncertain |= said.is_uncertain
            own.labels = _join_texts(own.labels, said.labels)
        patient = _identifier(_cell(row, columns.patient))
        if folder_tells and (found := PATIENT_FOLDER.search(name)):
            patient = found[1]
            by_folder += 1
        if patient:
            own.patients = _join_texts(own.patients, known.setdefault(patient, (patient,)))
        if word := _cell(row, columns.split):
            if word not in splits:
                splits[word] = (_split_of(table, columns, word),)
            own.splits = _join_texts(own.splits, splits[word])
        if view := next((cell for place in columns.views if (cell := _cell(row, place))), ""):
            own.views = _join_texts(own.views, known.setdefault(view, (view,)))
    if by_folder:
        warnings.append(f"{table.name}: patients were read from folders such as patient00001 in its paths.")
    return facts


def _name_of(row: Sequence[str], columns: Columns) -> str:
    """What a row calls its image; empty if it names none."""
    if columns.image is None:
        study = _cell(row, columns.study)
        return f"{_cell(row, columns.patient)}/{study}" if study else ""
    name, folder = _cell(row, columns.image), _cell(row, columns.folder)
    return f"{folder}/{name}" if name and folder else name


def _cell(row: Sequence[str], place: int | None) -> str:
    """A cell's text; nothing if there is no such column or the cell is blank."""
    return "" if place is None or label_cells.is_blank(row[place]) else row[place]


def _identifier(cell: str) -> str:
    return cell[:-2] if cell.endswith(".0") and cell[:-2].isdecimal() else cell  # as Excel and pandas write numbers


def _sayer(read: Read, options: LabelOptions, warnings: list[str]) -> Callable[[Sequence[str]], Said] | None:
    """What reads the labels of a row; None if the table has none. Each combination of cells is read once."""
    table, columns = read
    if not columns.labels:
        return None
    names = [table.header[place] for place in columns.labels]
    known: dict[tuple[str, ...], Said] = {}
    numbers: dict[str, str] = {}
    if not columns.one_hot:
        cells = {row[columns.labels[0]] for row in table.rows}
        labels = label_cells.merge(label_cells.split_labels(cell) for cell in cells)
        numbers = label_cells.name_numbers(labels, names[0]) or {}
        if numbers:
            warnings.append(
                f"{table.name}: {names[0]} holds numbers: its classes are {', '.join(sorted(numbers.values()))}."
            )
    places = columns.labels

    def say(row: Sequence[str]) -> Said:
        cells = tuple([row[place] for place in places])
        said = known.get(cells)
        if said is None:
            if columns.one_hot:
                said = label_cells.read_findings(_states(table, names, cells), names, options.uncertain)
            else:
                said = Said(
                    tuple(dict.fromkeys(numbers.get(name, name) for name in label_cells.split_labels(cells[0])))
                )
            known[cells] = said
            none = label_cells.none_of(names)
            if columns.one_hot and said.labels == (none,):
                sentence = f"{table.name}: {none} means that all of {', '.join(names)} are 0."
                if sentence not in warnings:
                    warnings.append(sentence)
        return said

    return say


def _states(table: Table, names: Sequence[str], cells: Sequence[str]) -> list[int | None]:
    """1, 0, -1 or None for each cell of columns of findings."""
    states: list[int | None] = []
    for name, cell in zip(names, cells, strict=True):
        if label_cells.is_blank(cell):
            states.append(None)
            continue
        state = label_cells.STATES.get(cell.lower())
        if state is None:
            raise UsageError(
                f"{table.name}: column {name} holds {cell[:40]!r}: expected 1, 0, -1 or nothing; "
                "or give one --label-column that names labels"
            )
        states.append(state)
    return states


def _split_of(table: Table, columns: Columns, word: str) -> str:
    split = SPLIT_WORDS.get(word.lower())
    if split is None:
        column = "" if columns.split is None else table.header[columns.split]
        raise UsageError(
            f"{table.name}: {word[:40]!r} in column {column} is no split: expected a word such as train, "
            "val or test; if the column is not one of splits, give --split-column none"
        )
    return split
