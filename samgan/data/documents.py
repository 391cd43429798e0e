"""The documents that describe a prepared set: dataset.json, and the rows of manifest.csv."""

import contextlib
import csv
from collections.abc import Collection
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from samgan.data.options import PrepareOptions
from samgan.documents import explain, read_json
from samgan.errors import SamganError, first_line

FORMAT = 1
"""Version of the three files of a prepared set. It stays the same when keys are added to dataset.json."""
SPLITS = ("train", "holdout")
COLUMNS = ("index", "source", "sha256", "width", "height", "bits", "class", "patient", "split", "near_duplicate_of")
"""The columns of manifest.csv, in the order of the fields of `ManifestRow`."""
OPTIONAL_COLUMNS = ("view", "notes", "synthetic")
"""Come after the others, if any row has something to say there."""
REMEDY = "prepare it again"


@dataclass(frozen=True)
class Duplicate:
    """A file that was left out because another file has the same pixels."""

    source: str
    same_as: str


@dataclass(frozen=True)
class BadFile:
    """A file that was left out, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """The files of the source that are not in the set."""

    exact_duplicates: tuple[Duplicate, ...] = ()
    bad_files: tuple[BadFile, ...] = ()
    ignored_by_suffix: dict[str, int] = field(default_factory=dict)
    """Number of files that are not images, by suffix."""
    unused: tuple[BadFile, ...] = ()
    """Images that were left out for where they lie, or for what a table or another file says of them."""


@dataclass(frozen=True)
class Contradiction:
    """Files of one picture, or of near duplicates, that are in more than one class."""

    files: tuple[str, ...]
    classes: tuple[str, ...]
    """Of each file."""


@dataclass(frozen=True)
class Leak:
    """What is on both sides of a split."""

    what: str
    """In the plural: "patients", "studies", "groups of near duplicates" or "DICOM PatientIDs"."""
    count: int
    examples: tuple[tuple[str, str], ...]
    """A training file and a held-out file of the first ones, three at most."""


@dataclass(frozen=True)
class SubsetOf:
    """The prepared set that `samgan subset` took images from."""

    name: str
    """Name of its folder."""
    sha256: str
    seed: int
    patients: dict[str, int]
    """Number of patients that were chosen, by class."""
    images: dict[str, int]
    """Number of training images that were chosen, by class."""
    resolution: int | None = None
    """The side to which images were reduced, if they were."""
    part: int = 0
    """Which of the choices by the same seed and numbers, that have no patient and no image in common."""


@dataclass(frozen=True, kw_only=True)
class TableUsed:
    """A table of labels, and its columns that were used."""

    name: str
    """Of the file, without folders."""
    sha256: str
    """Of the file's bytes."""
    rows: int
    images: tuple[str, ...]
    """The column that names images; for a table of studies, those of patient and study."""
    labels: tuple[str, ...] = ()
    patient: str = ""
    split: str = ""
    views: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()
    """Which of the columns above were guessed from the header: "image", "label", "patient", "split", "view"."""


@dataclass(frozen=True)
class UnusedRow:
    """Rows of a table that no image of the source belongs to, and why."""

    row: str
    """What they call the image."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class LabelsUsed:
    """What was read from tables of labels. `LeftOut.unused` names the images that they leave out."""

    tables: tuple[TableUsed, ...]
    several: str
    """What was done with images of several labels; one of SEVERAL in `samgan.data.options`."""
    uncertain: str
    """What was done with uncertain labels; one of UNCERTAIN there."""
    rows: int
    """Of all tables."""
    rows_matched: int
    """Rows that belong to an image, or a study, of the source."""
    unused_rows: tuple[UnusedRow, ...] = ()
    """The first of the other rows."""
    files: int
    """Images of the source."""
    files_used: int
    """Images that have a class by the tables."""
    files_without_row: int
    """Images that no row with a label belongs to."""
    several_labels: int
    """Images with several labels."""
    uncertain_labels: int
    """Images with an uncertain label."""
    label_counts: dict[str, int]
    """Images by label as read, before any were left out; an image of several labels counts for each."""


@dataclass(frozen=True, kw_only=True)
class SetInfo:
    """The content of dataset.json. None: does not apply, or an earlier version did not record it; not written."""

    format: int = FORMAT
    samgan: str | None = None
    """Version of samgan that prepared the set."""
    source: str
    """Name of the folder or file that the images come from."""
    source_id: str | None = None
    """`Source.id`."""
    images: int
    channels: int
    resolution: int
    """Height and width in pixels."""
    classes: tuple[str, ...]
    """Names, sorted."""
    counts: dict[str, dict[str, int]]
    """Number of images by class, then by split."""
    patients: int | None = None
    """Patients that the real images show; an image whose patient is not known counts as one."""
    synthetic: int | None = None
    """Number of images that show no patient, by their files' own words. They are training images."""
    split_by: str
    """What the set was split by: "patient (file names)", "study (DICOM)", "image", "source", ..."""
    matched_share: float | None = None
    """Share of the real images whose patient is known."""
    near_duplicates: int | None = None
    """Number of images that are near duplicates of an earlier one."""
    groups_on_both_sides: int | None = None
    """Number of patients, or groups of near duplicates, that the source's own split has on both sides."""
    leaks: tuple[Leak, ...] | None = None
    """What is on both sides of the split, by kind; None for subsets."""
    contradictions: tuple[Contradiction, ...] | None = None
    """Pictures that lie in more than one class. They are left out, unless exact duplicates are kept."""
    near_contradictions: tuple[Contradiction, ...] | None = None
    """Near duplicates in more than one class. They are kept."""
    enlarged: int | None = None
    """Number of images that were smaller than the resolution; None for subsets."""
    left_out: LeftOut | None = None
    notes: dict[str, int] | None = None
    """What was passed over in the files' metadata, with the number of images that it concerns."""
    warnings: tuple[str, ...] | None = None
    """What was decided, or looks wrong; one sentence each."""
    labels: LabelsUsed | None = None
    """The tables that the classes come from; None if folders or arrays tell them."""
    options: PrepareOptions | None = None
    fingerprint: str
    """Hash of the algorithm, the options and the source's files: the same fingerprint gives the same set."""
    subset_of: SubsetOf | None = None
    sha256: str
    """Hash of images.npy followed by manifest.csv; empty until these are written."""

    def to_dict(self) -> dict[str, Any]:
        """The document as plain JSON types."""
        tree: dict[str, Any] = msgspec.to_builtins(self)
        return {key: value for key, value in tree.items() if value is not None}

    @classmethod
    def read(cls, folder: Path) -> "SetInfo":
        """Read and check dataset.json.

        Raises:
            SamganError: It is missing, damaged, edited by hand or of another format.
        """
        path = folder / "dataset.json"
        with contextlib.suppress(PermissionError):  # reading the file then reports it
            if not folder.exists():
                raise SamganError(f"{folder}: no such folder: samgan prepare XRAYS {folder} makes a prepared set there")
            if not path.exists():
                raise SamganError(
                    f"{folder} is not a finished prepared set (no dataset.json). If it holds your images, make a set "
                    f"of them first: samgan prepare {folder} NEW_FOLDER; then name NEW_FOLDER here. If samgan prepare "
                    "was interrupted, run it again"
                )
        tree = read_json(path, REMEDY)
        if not isinstance(tree, dict) or tree.get("format") != FORMAT:
            found = tree.get("format") if isinstance(tree, dict) else type(tree).__name__
            raise SamganError(f"{folder}: expected a prepared set of format {FORMAT}, found {found!r}: {REMEDY}")
        try:
            info = msgspec.convert(tree, cls)
            if odd := [name for name in info.classes if name in ("", ".", "..") or "/" in name]:
                raise ValueError(f"{odd[0]!r} is not the name of a class")  # it could be the path of another folder
            if set(info.counts) != set(info.classes):
                raise ValueError("classes and counts name different classes")
            for name, counts in info.counts.items():
                if set(counts) != set(SPLITS):
                    raise ValueError(
                        f"counts of {name}: expected {' and '.join(SPLITS)}, found {', '.join(counts) or 'none'}"
                    )
        except msgspec.ValidationError as error:
            raise SamganError(f"{path} is damaged: {explain(error)}: {REMEDY}") from None
        except ValueError as error:
            raise SamganError(f"{path} is damaged: {error}: {REMEDY}") from None
        return info


@dataclass(frozen=True, kw_only=True)
class DataUsed:
    """What a document says about the prepared set that was used."""

    name: str
    """Name of its folder."""
    sha256: str
    classes: tuple[str, ...] = ()
    """The classes that were used."""
    split: str | None = None
    """"train", "holdout" or "all"."""
    split_by: str | None = None
    """What the set was split by: "patient", "image", ..."""


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One row of manifest.csv: where an image comes from."""

    index: int
    """Position of the image in images.npy."""
    source: str
    """Path of the file in the source."""
    sha256: str
    """Hash of the file, or of the array's bytes."""
    width: int
    height: int
    bits: int
    """Bit depth as read."""
    class_name: str
    patient: str
    split: str
    """One of SPLITS."""
    near_duplicate_of: int | None = None
    """Index of an earlier image that this one is a near duplicate of."""
    view: str = ""
    """Such as PA or AP; empty if nothing tells it."""
    notes: str = ""
    """What was passed over in the file's metadata, with semicolons between."""
    synthetic: str = ""
    """"yes" if the file says that it shows no patient; otherwise empty."""


def read_manifest(path: Path, classes: Collection[str]) -> list[ManifestRow]:
    """Read manifest.csv. Its columns may be in any order, and there may be other columns.

    Args:
        path: The file.
        classes: Names of the set's classes.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a valid manifest; the message says what is wrong.
    """
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = csv.reader(file)
        try:
            header = next(lines, [])
            if lacking := sorted(set(COLUMNS) - set(header)):
                raise ValueError(f"there is no column {', '.join(lacking)}")
            in_order = itemgetter(*(header.index(name) for name in COLUMNS))
            others = [(name, header.index(name)) for name in OPTIONAL_COLUMNS if name in header]
            rows = []
            for line in lines:  # positions, for speed: a set may have 100,000 rows
                i, source, sha256, w, h, bits, name, patient, split, near = in_order(line)
                more = {column: line[place] for column, place in others}
                rows.append(
                    ManifestRow(
                        int(i), source, sha256, int(w), int(h), int(bits), name, patient, split, _optional(near), **more
                    )
                )
        except (csv.Error, IndexError, ValueError) as error:
            raise ValueError(f"manifest.csv, line {lines.line_num}: {first_line(error)}") from None
    for what, found, known in (
        ("split", {row.split for row in rows}, SPLITS),
        ("class", {row.class_name for row in rows}, classes),
        ("near_duplicate_of", {row.near_duplicate_of for row in rows} - {None}, range(len(rows))),
    ):
        if unknown := [value for value in found if value not in known]:
            raise ValueError(f"manifest.csv has an unknown {what} {unknown[0]!r}")
    if outside := [row.source for row in rows if row.source.startswith("/") or ".." in row.source.split("/")]:
        raise ValueError(f"manifest.csv has the source {outside[0]!r}, which is outside of the folder of images")
    return rows


def _optional(cell: str) -> int | None:
    return int(cell) if cell else None
