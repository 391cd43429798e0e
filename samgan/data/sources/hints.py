"""What lies in a source beside its images, or is missing there, and should be looked at."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from samgan.data.readers import IMAGE_SUFFIXES
from samgan.data.sources.folder_names import is_plain, split_of
from samgan.data.sources.layout import Entry
from samgan.data.sources.listing import PACKED, suffix_of
from samgan.errors import shown

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".xlsx", ".xlsm", ".xls", ".ods", ".jsonl")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
DICOM = (".dcm", ".dicom", ".dic", ".ima")
KINDS_NAMED = 8


def not_a_source(path: Path) -> str:
    """What is wrong with a path that is neither a folder nor a .zip or .npz, and what to do; empty if nothing known."""
    suffix = suffix_of(path.name)
    if not path.exists():
        return "there is no such file or folder"
    if suffix in (*ARCHIVES, *PACKED):
        return f"unpack this {suffix} and give the folder"
    if suffix in TABLES:
        return "this is a table: give the folder of its images, and the table with --labels"
    if suffix in IMAGE_SUFFIXES:
        return "this is one image: give the folder that it lies in, or look at it with --explain"
    return "this is another kind of file"


def no_images(path: Path, ignored: Mapping[str, int]) -> str:
    """Say that a source holds no images, what it holds instead, and what to do."""
    suffixes = " ".join(IMAGE_SUFFIXES)
    if not ignored:
        return f"{path}: no images found: it is empty, or everything in it is hidden; known suffixes: {suffixes}"
    remedy = ": unpack the archives in it, or give one .zip itself" if any(map(ignored.get, ARCHIVES)) else ""
    named = [f"{count} {shown(suffix) or 'without suffix'}" for suffix, count in ignored.items()]
    more = ", ..." if len(named) > KINDS_NAMED else ""
    return (
        f"{path}: no images found, but {', '.join(named[:KINDS_NAMED])}{more} (known suffixes: {suffixes}; DICOM files "
        f"need none){remedy}"
    )


def hints(entries: Collection[Entry], ignored: Mapping[str, int], classes_from: str | None) -> Iterator[str]:
    """Sentences about what lies beside the images.

    Args:
        entries: the images.
        ignored: number of other files by suffix.
        classes_from: where the user wants the classes from; None: not said.
    """
    names = {entry.class_name for entry in entries}
    if classes_from is None and len(names) == 1:
        yield from _of_one_class(entries, ignored, next(iter(names)))
    if packed := [f"{ignored[suffix]} {suffix}" for suffix in ARCHIVES if ignored.get(suffix)]:
        yield f"archives in the source are not read ({', '.join(packed)}): unpack them if they hold images of the set"
    yield from _of_viewers(entries)
    if classes_from is None:
        yield from _of_folders(entries)


def _of_one_class(entries: Collection[Entry], ignored: Mapping[str, int], name: str) -> Iterator[str]:
    """Say where the labels may be, if all images became one class."""
    if tables := [f"{ignored[suffix]} {suffix}" for suffix in TABLES if ignored.get(suffix)]:
        yield (
            f"all images are of one class, {shown(name)}, since no folders name classes; a table in the source "
            f"({', '.join(tables)}) may tell them: --labels FILE"
        )
    stems = [re.fullmatch(r"(.+[_-])([01])", os.path.splitext(entry.path.rpartition("/")[2])[0]) for entry in entries]
    ends = {found[2] for found in stems if found}
    if all(stems) and len(ends) == 2 and len({found[1] for found in stems if found}) == len(stems):
        yield (  # the sets of Montgomery and Shenzhen: MCUCXR_0001_0.png
            "the names of all files end in 0 or 1, which may be their labels; a table with the columns image and label "
            "makes them classes: --labels FILE"
        )


def _of_folders(entries: Collection[Entry]) -> Iterator[str]:
    """Say that all classes hold one folder of one name, which may be the class: site_A/NORMAL, site_B/NORMAL."""
    inside: dict[str, set[str]] = {}
    for entry in entries:
        folders = entry.path.replace("\\", "/").split("/")[:-1]
        if entry.class_name not in folders:
            return
        below = folders[folders.index(entry.class_name) + 1 :]
        inside.setdefault(entry.class_name, set()).add(below[0] if below else "")
    names = set().union(*inside.values())
    (name,) = names if len(names) == 1 else ("",)
    if len(inside) > 1 and name and not is_plain(name) and not split_of(name):
        yield (
            f"every class, such as {shown(min(inside))}, holds one folder, {shown(name)}, which is passed over: if "
            "that is the class, prepare with --classes-from none"
        )


def _of_viewers(entries: Collection[Entry]) -> Iterator[str]:
    """Say that some pictures lie among DICOM files: exported media hold a viewer with its buttons and logos."""
    pictures = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in DICOM)
    others = [entry.path for entry in entries if entry.path.lower().endswith(pictures)]
    if 0 < len(others) < len(entries) / 2:
        yield (
            f"{len(others)} of {len(entries)} images, such as {shown(others[0])}, are no DICOM files as the others "
            "are: look whether they are radiographs, since exported media hold pictures of a viewer"
        )
