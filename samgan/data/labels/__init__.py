"""Give the images of a source the classes, patients, splits and views that tables tell."""

import contextlib
import gc
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from samgan.data.documents import BadFile, LabelsUsed, TableUsed, UnusedRow
from samgan.data.labels import cells as label_cells
from samgan.data.labels.columns import (
    Columns,
    check_named,
    find_columns,
    may_be_used,
    no_labels,
    tells_patients,
    unknown_findings,
)
from samgan.data.labels.match import NO_STUDY, SEVERAL_STUDIES, Files, Matches, Studies
from samgan.data.labels.rows import Facts, Read, facts_by_name
from samgan.data.labels.tables import Table, read_table
from samgan.data.options import LabelOptions
from samgan.data.sources import Entry, Source
from samgan.errors import SamganError, UsageError

UNUSED_ROWS_NAMED = 100
COLUMNS_NAMED = 3
FRONTAL = ("frontal", "pa", "ap", "ap axial", "ap_horizontal", "ap horizontal", "ap supine", "ap erect")
LATERAL = ("lateral", "l", "ll", "rl", "lat")
VIEW_GROUPS = {"frontal": FRONTAL, "lateral": LATERAL}
"""Words of --views that stand for several views: of DICOM, CheXpert, MIMIC-CXR and PadChest."""

NO_ROW = "no row of the tables gives it a label"
NO_LABEL = "its rows in the tables have no label"
UNCERTAIN = "an uncertain label"
NO_SPLIT = "the tables do not say which split it is in"
NO_VIEW = "the tables do not tell its view"
REMEDIES = {
    "several labels": "name one --label-column, or take the first label with --several first",
    UNCERTAIN: "read it as present or absent with --uncertain positive or negative",
    NO_SPLIT: "give the tables that tell it, or --split-column none",
    NO_VIEW: "give a table that tells it, or no --views",
}
"""What to do if a reason leaves out all images."""


class _Joined(NamedTuple):
    """What all tables say, brought to the images."""

    facts: list[Facts]
    """One for each image."""
    rows_matched: int
    unused_rows: list[UnusedRow]
    warnings: list[str]
    idle: list[str]
    """A sentence for each table of which no row belongs to an image."""


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
    tables = [read_table(file, may_be_used(options)) for file in options.files]
    check_named(tables, options)
    reads = [Read(table, find_columns(table, options)) for table in tables]
    if not any(read.columns.labels for read in reads):
        raise no_labels(tables)
    views_said = _check_views(reads, options)
    joined = _join(source, reads, options)
    if not joined.rows_matched:
        raise _nothing_matches(source, reads)
    label_counts = label_cells.merge(facts.labels for facts in joined.facts)
    class_of, renamed = label_cells.name_classes(label_counts)
    entries, unused = _choose(source, reads, joined.facts, class_of, options)
    if not entries:
        reasons = Counter(re.sub(": .*", "", file.reason) for file in unused).most_common(3)
        told = ", ".join(f"{count} for {reason!r}" for reason, count in reasons)
        remedy = REMEDIES.get(reasons[0][0], "give a table that tells them, or other columns of it")
        idle = "".join(f"; {sentence.rstrip('.')}" for sentence in joined.idle)
        raise SamganError(f"{source.name}: the tables leave out all {len(unused)} images: {told}{idle}: {remedy}")
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
    if untrained := _untrained(entries):
        splits_said = [f"The tables give no training images of {_named(untrained)}."]
    guesses = [sentence for read in reads if (sentence := _guess_sentence(read))]
    guesses += [sentence for read in reads if (sentence := unknown_findings(*read))]
    said = [sentence for table in tables for sentence in table.warnings]
    said += [*guesses, *views_said, *joined.warnings, *joined.idle, *renamed]
    return source._replace(
        entries=entries,
        unused=(*source.unused, *unused),
        warnings=(*source.warnings, *said, *splits_said),
        labels=used,
    )


# from rows to images


def _join(source: Source, reads: Sequence[Read], options: LabelOptions) -> _Joined:
    """Match each table by itself, so that the same name in two tables is the same image."""
    paths = [entry.path for entry in source.entries]
    files = Files(paths)
    studies = Studies(paths) if any(read.columns.image is None for read in reads) else None
    joined = _Joined([Facts() for _ in paths], 0, [], [], [])
    for read in reads:
        named = facts_by_name(read, options, joined.warnings)
        nameless = named.pop("", None)
        if nameless:
            joined.unused_rows.append(UnusedRow("", f"{nameless.rows} rows of {read.table.name} name no image"))
        if studies is None or read.columns.image is not None:
            matches = files.match(named)
            if not matches.files:
                matches = _match_folders(read, named, paths, joined.warnings) or matches
        else:
            matches = studies.match((name, *_study_of(name)) for name in named)
        rows_matched = sum(named[name].rows for name in matches.files)
        if not rows_matched:
            joined.idle.append(f"{read.table.name}: none of its {len(read.table.rows)} rows belongs to an image.")
        joined = joined._replace(rows_matched=joined.rows_matched + rows_matched)
        for name, indices in matches.files.items():
            for index in indices:
                joined.facts[index].add(named[name])
        is_private = read.columns.names_patients or tells_patients(*read)
        joined.unused_rows.extend(
            UnusedRow(f"row {named[name].first_row}" if is_private else name, reason)
            for name, reason in matches.reasons.items()
        )
        joined.warnings.extend(_match_sentences(read.table, matches))
    return joined


def _match_folders(read: Read, named: dict[str, Facts], paths: Sequence[str], warnings: list[str]) -> Matches | None:
    """Match rows that name folders instead of files, as in a hospital's table of patients; None if no row does."""
    matches = Studies(paths).match((name, "", name) for name in named)
    if not matches.files:
        return None
    reasons = {
        NO_STUDY: "no such folder in the source",
        SEVERAL_STUDIES: "several folders of the source have this name",
    }
    matches = matches._replace(reasons={name: reasons[reason] for name, reason in matches.reasons.items()})
    has_patients = tells_patients(*read)
    for name in matches.files if has_patients else ():
        named[name].patients = named[name].patients or (name,)
    of_one = ", each of one patient" if has_patients else ""
    warnings.append(f"{read.table.name}: its rows name folders, not files{of_one}: they hold for all images in them.")
    return matches


def _untrained(entries: Sequence[Entry]) -> list[str]:
    """Classes of a split source that no training image has."""
    splits: dict[str, set[str]] = {}
    for entry in entries:
        splits.setdefault(entry.class_name, set()).add(entry.split)
    return sorted(name for name, found in splits.items() if found == {"holdout"})


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


# from images to classes


def _choose(
    source: Source, reads: Sequence[Read], facts: Sequence[Facts], class_of: dict[str, str], options: LabelOptions
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
                patient_in_table=_hashed(own.patients[0]) if own.patients else "",
                view=own.views[0] if own.views else entry.view,
            )
        )
    return entries, unused


def _why_unlabelled(own: Facts, classes: Sequence[str], options: LabelOptions) -> str:
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


def _why_unfit(own: Facts, has_splits: bool, wanted: frozenset[str]) -> str:
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


def _check_views(reads: Sequence[Read], options: LabelOptions) -> list[str]:
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


def _image_places(columns: Columns) -> tuple[int | None, int | None]:
    if columns.image is None:
        return columns.patient, columns.study
    return columns.folder, columns.image


def _describe(read: Read) -> TableUsed:
    table, columns = read
    return TableUsed(
        name=table.name,
        sha256=table.sha256,
        rows=len(table.rows),
        images=_names(table, _image_places(columns)),
        labels=_names(table, columns.labels),
        patient="".join(_names(table, (columns.patient,))),
        split="".join(_names(table, (columns.split,))),
        views=_names(table, columns.views),
        guessed=columns.guessed,
    )


def _guess_sentence(read: Read) -> str:
    """Say which columns were guessed; empty if all were named."""
    used = _describe(read)
    found = {
        "image": used.images,
        "label": used.labels,
        "patient": (used.patient,),
        "split": (used.split,),
        "view": used.views,
    }
    parts = [f"{role} from {_named(found[role])}" for role in used.guessed]
    if not parts:
        return ""
    return f"{used.name}: columns were guessed by their names: {'; '.join(parts)}. Name them if this is wrong."


def _named(columns: Sequence[str]) -> str:
    """Names of columns or classes, the first of them if there are many: CheXpert has 14 findings, VinDr-CXR 28."""
    if len(columns) > COLUMNS_NAMED:
        return f"{', '.join(columns[:COLUMNS_NAMED])} and {len(columns) - COLUMNS_NAMED} more"
    return " and ".join(columns)


def _nothing_matches(source: Source, reads: Sequence[Read]) -> SamganError:
    table, columns = reads[0]
    held = " and ".join(
        f"{table.header[place]} holds {table.rows[0][place][:80]!r}"
        for place in _image_places(columns)
        if place is not None
    )
    return SamganError(
        f"{table.name}: no row belongs to an image of {source.name}: column {held}, an image is "
        f"{source.entries[0].path!r}: give --image-column"
    )
