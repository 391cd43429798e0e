"""Give the images of a source the classes, patients, splits and views that tables tell."""

import contextlib
import gc
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from samgan.data import label_cells
from samgan.data.documents import BadFile, LabelsUsed, TableUsed, UnusedRow
from samgan.data.label_cells import Said
from samgan.data.label_columns import Columns, check_named, find_columns, no_labels
from samgan.data.label_match import Files, Matches, Studies
from samgan.data.label_tables import Table, read_table
from samgan.data.options import LabelOptions
from samgan.data.sources import SPLITS, Entry, Source
from samgan.errors import SamganError, UsageError

UNUSED_ROWS_NAMED = 100
SPLIT_WORDS = SPLITS | dict.fromkeys(("validate", "dev", "eval", "evaluation"), "holdout")  # MIMIC-CXR: validate
FRONTAL = ("frontal", "pa", "ap", "ap axial", "ap_horizontal", "ap horizontal", "ap supine", "ap erect")
LATERAL = ("lateral", "l", "ll", "rl", "lat")
VIEW_GROUPS = {"frontal": FRONTAL, "lateral": LATERAL}
"""Words of --views that stand for several views: of DICOM, CheXpert, MIMIC-CXR and PadChest."""
PATIENT_FOLDER = re.compile(r"(?:^|[/\\])(patient\d+)[/\\]", re.IGNORECASE)  # CheXpert, which has no such column

NO_ROW = "no row of the tables gives it a label"
NO_LABEL = "its rows in the tables have no label"
UNCERTAIN = "an uncertain label"
NO_SPLIT = "the tables do not say which split it is in"
NO_VIEW = "the tables do not tell its view"


@dataclass(slots=True)
class _Facts:
    """What rows say about one image, or about one name of a table. Tuples hold each text once, in the order read."""

    rows: int = 0
    labels: tuple[str, ...] = ()
    is_uncertain: bool = False
    has_label_column: bool = False
    patients: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    views: tuple[str, ...] = ()

    def add(self, other: "_Facts") -> None:
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


class _Read(NamedTuple):
    """A table with its columns."""

    table: Table
    columns: Columns


class _Joined(NamedTuple):
    """What all tables say, brought to the images."""

    facts: list[_Facts]
    """One for each image."""
    rows_matched: int
    unused_rows: list[UnusedRow]
    warnings: list[str]


def label_source(source: Source, options: LabelOptions) -> Source:
    """Replace the classes of a source by those of tables.

    Rows of all tables that belong to the same image are joined: different labels are several labels. The splits of the
    tables replace those of the source's folders. `Source.unused` names each image that is left out, with the reason;
    `Source.warnings` says each guess; `Source.labels` has the counts.

    Args:
        source: a folder or .zip.
        options: the tables, and how to read them.

    Returns:
        The source with the images that stay. Patients are SHA-256 hashes of the tables' IDs, as of DICOM's PatientID.

    Raises:
        UsageError: a column, a word for a split or a view is unknown.
        SamganError: a table cannot be read, or no image gets a class.
    """
    options.check()
    with _paused_collector():
        return _label_source(source, options)


@contextlib.contextmanager
def _paused_collector() -> Iterator[None]:
    """Pause the search for circles of objects: there are none, and it would look through millions of cells each time.

    With the 377,000 images of MIMIC-CXR it takes half of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _label_source(source: Source, options: LabelOptions) -> Source:
    """See `label_source`."""
    if source.path.suffix.lower() == ".npz":
        raise UsageError(f"{source.name}: tables of labels belong to a folder or .zip; the labels of an .npz are in it")
    tables = [read_table(file) for file in options.files]
    check_named(tables, options)
    reads = [_Read(table, find_columns(table, options)) for table in tables]
    if not any(read.columns.labels for read in reads):
        raise no_labels(tables)
    views_said = _check_views(reads, options)
    joined = _join(source, reads, options)
    if not joined.rows_matched:
        raise _nothing_matches(source, reads, joined)
    label_counts = label_cells.merge(facts.labels for facts in joined.facts)
    class_of, renamed = label_cells.name_classes(label_counts)
    entries, unused = _choose(source, reads, joined.facts, class_of, options)
    if not entries:
        reasons = Counter(re.sub(": .*", "", file.reason) for file in unused).most_common(3)
        told = ", ".join(f"{count} for {reason!r}" for reason, count in reasons)
        raise SamganError(f"{source.name}: the tables leave out all {len(unused)} images: {told}")
    splits_said: list[str] = []
    if {entry.split for entry in entries} not in ({"train", "holdout"}, {""}):  # a single part is not a split
        splits_said = [f"All images that stay are in one split ({entries[0].split}), so they are split again."]
        entries = [entry._replace(split="") for entry in entries]
    used = LabelsUsed(
        tables=tuple(_describe(read) for read in reads),
        several=options.several,
        uncertain=options.uncertain,
        rows=sum(len(table.rows) for table in tables),
        rows_matched=joined.rows_matched,
        unused_rows=tuple(joined.unused_rows[:UNUSED_ROWS_NAMED]),
        files=len(source.entries),
        files_used=len(entries),
        files_without_row=sum(not facts.has_label_column for facts in joined.facts),
        several_labels=sum(len({class_of[label] for label in facts.labels}) > 1 for facts in joined.facts),
        uncertain_labels=sum(facts.is_uncertain for facts in joined.facts),
        label_counts=dict(sorted(label_counts.items())),
    )
    guesses = [sentence for read in reads if (sentence := _guess_sentence(read))]
    said = (
        [sentence for table in tables for sentence in table.warnings] + guesses + views_said + joined.warnings + renamed
    )
    return source._replace(
        entries=entries,
        unused=(*source.unused, *unused),
        warnings=(*source.warnings, *said, *splits_said),
        labels=used,
    )


# from rows to images


def _join(source: Source, reads: Sequence[_Read], options: LabelOptions) -> _Joined:
    """Match each table by itself, so that the same name in two tables is the same image."""
    paths = [entry.path for entry in source.entries]
    files = Files(paths)
    studies = Studies(paths) if any(read.columns.image is None for read in reads) else None
    joined = _Joined([_Facts() for _ in paths], 0, [], [])
    for read in reads:
        named = _facts_by_name(read, options, joined.warnings)
        nameless = named.pop("", None)
        if nameless:
            joined.unused_rows.append(UnusedRow("", f"{nameless.rows} rows of {read.table.name} name no image"))
        if studies is None or read.columns.image is not None:
            matches = files.match(named)
        else:
            matches = studies.match((name, *_study_of(name)) for name in named)
        joined = joined._replace(rows_matched=joined.rows_matched + sum(named[name].rows for name in matches.files))
        for name, indices in matches.files.items():
            for index in indices:
                joined.facts[index].add(named[name])
        joined.unused_rows.extend(UnusedRow(name, reason) for name, reason in matches.reasons.items())
        joined.warnings.extend(_match_sentences(read.table, matches))
    return joined


def _study_of(name: str) -> tuple[str, str]:
    patient, _, study = name.rpartition("/")
    return patient, study


def _match_sentences(table: Table, matches: Matches) -> list[str]:
    said = []
    if found := matches.by_name:
        said.append(
            f"{table.name}: {len(found)} images were found although their folders have other names than in the table, "
            f"such as {found[0]!r}."
        )
    if found := matches.by_number:
        said.append(f"{table.name}: {len(found)} images were found without leading zeros, such as {found[0]!r}.")
    return said


def _facts_by_name(read: _Read, options: LabelOptions, warnings: list[str]) -> dict[str, _Facts]:
    """Gather what the rows of one table say, by what they call the image (patient/study for tables of studies)."""
    table, columns = read
    say = _sayer(read, options, warnings)
    facts: dict[str, _Facts] = {}
    splits: dict[str, tuple[str, ...]] = {}
    known: dict[str, tuple[str, ...]] = {}  # each text is kept in memory once
    folder_tells = columns.patient is None and options.patient_column is None
    by_folder = 0
    for row in table.rows:
        if columns.image is not None:
            name = "" if label_cells.is_blank(row[columns.image]) else row[columns.image]
        else:
            study = "" if columns.study is None else row[columns.study]
            name = f"{_cell(row, columns.patient)}/{study}" if study else ""
        own = facts.get(name)
        if own is None:
            own = facts[name] = _Facts()
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


def _cell(row: Sequence[str], place: int | None) -> str:
    """A cell's text; nothing if there is no such column or the cell is blank."""
    return "" if place is None or label_cells.is_blank(row[place]) else row[place]


def _identifier(cell: str) -> str:
    return cell[:-2] if cell.endswith(".0") and cell[:-2].isdecimal() else cell  # as Excel and pandas write numbers


def _sayer(read: _Read, options: LabelOptions, warnings: list[str]) -> Callable[[Sequence[str]], Said] | None:
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
        known = ", ".join(SPLIT_WORDS)
        raise UsageError(
            f"{table.name}: {word[:40]!r} in column {column} is no split: expected one of {known}; or give "
            "--split-column none"
        )
    return split


# from images to classes


def _choose(
    source: Source, reads: Sequence[_Read], facts: Sequence[_Facts], class_of: dict[str, str], options: LabelOptions
) -> tuple[list[Entry], list[BadFile]]:
    """The images that stay, and those that do not with the reason."""
    has_splits = any(read.columns.split is not None for read in reads)
    wanted = _wanted_views(options)
    entries, unused = [], []
    for entry, own in zip(source.entries, facts, strict=True):
        classes = tuple(dict.fromkeys(class_of[label] for label in own.labels))
        reason = _why_unlabelled(own, classes, options) or _why_unfit(own, has_splits, wanted)
        if reason:
            unused.append(BadFile(entry.path, reason))
            continue
        entries.append(
            entry._replace(
                class_name=classes[0],
                split=own.splits[0] if has_splits else entry.split,
                patient=_hashed(own.patients[0]) if own.patients else entry.patient,
                view=own.views[0] if own.views else entry.view,
            )
        )
    return entries, unused


def _why_unlabelled(own: _Facts, classes: Sequence[str], options: LabelOptions) -> str:
    """Why an image has no class; empty if it has one."""
    if not own.has_label_column:
        return NO_ROW
    if own.is_uncertain:
        return UNCERTAIN
    if not classes:
        return NO_LABEL
    if len(classes) > 1 and options.several == "only-single":
        return f"several labels: {', '.join(classes)}"
    return ""


def _why_unfit(own: _Facts, has_splits: bool, wanted: frozenset[str]) -> str:
    """Why an image is left out although its class is known; empty if it stays."""
    for what, found in (("patients", own.patients), ("splits", own.splits), ("views", own.views)):
        if len(found) > 1:
            return f"its rows in the tables give different {what}"
    if has_splits and not own.splits:
        return NO_SPLIT
    if wanted and not own.views:
        return NO_VIEW
    if wanted and own.views[0].casefold() not in wanted:
        return f"view {own.views[0]}"
    return ""


def _hashed(patient: str) -> str:
    return hashlib.sha256(patient.encode()).hexdigest()


def _wanted_views(options: LabelOptions) -> frozenset[str]:
    return frozenset(
        view for wanted in options.views for view in (wanted.casefold(), *VIEW_GROUPS.get(wanted.casefold(), ()))
    )


def _check_views(reads: Sequence[_Read], options: LabelOptions) -> list[str]:
    """Refuse views of which no row has any; return a sentence if some are there, and others, maybe misspelt, not."""
    if not options.views:
        return []
    with_views = [read for read in reads if read.columns.views]
    if not with_views:
        names = ", ".join(name for read in reads for name in read.table.header if name)
        raise UsageError(f"--views: no column is known to tell views: give --view-column, one of {names[:300]}")
    found = Counter(
        cell for read in with_views for row in read.table.rows for place in read.columns.views if (cell := row[place])
    )
    present = {view.casefold() for view in found}
    missing = [
        wanted for wanted in options.views if not present & {wanted.casefold(), *VIEW_GROUPS.get(wanted.casefold(), ())}
    ]
    known = ", ".join(view for view, _ in found.most_common(10)) or "all empty"
    if len(missing) == len(options.views):
        raise UsageError(f"--views {' '.join(missing)}: no row has this view; those of the table are {known}")
    return [f"No row has the view {wanted}; those of the table are {known}." for wanted in missing]


# what is said


def _names(table: Table, places: Sequence[int | None]) -> tuple[str, ...]:
    return tuple(table.header[place] for place in places if place is not None)


def _describe(read: _Read) -> TableUsed:
    table, columns = read
    return TableUsed(
        name=table.name,
        sha256=table.sha256,
        rows=len(table.rows),
        images=_names(table, (columns.image,) if columns.image is not None else (columns.patient, columns.study)),
        labels=_names(table, columns.labels),
        patient="".join(_names(table, (columns.patient,))),
        split="".join(_names(table, (columns.split,))),
        views=_names(table, columns.views),
        guessed=columns.guessed,
    )


def _guess_sentence(read: _Read) -> str:
    """Say which columns were guessed; empty if all were named."""
    used = _describe(read)
    found = {
        "image": used.images,
        "label": used.labels,
        "patient": (used.patient,),
        "split": (used.split,),
        "view": used.views,
    }
    parts = [f"{role} from {' and '.join(found[role])}" for role in used.guessed]
    if not parts:
        return ""
    return f"{used.name}: columns were guessed by their names: {'; '.join(parts)}. Name them if this is wrong."


def _nothing_matches(source: Source, reads: Sequence[_Read], joined: _Joined) -> SamganError:
    columns = " and ".join(_describe(reads[0]).images)
    called = next((row.row for row in joined.unused_rows if row.row), "")
    return SamganError(
        f"{reads[0].table.name}: no row belongs to an image of {source.name}: column {columns} holds {called[:80]!r}, "
        f"an image is {source.entries[0].path!r}: give --image-column"
    )
