"""Decide which images of a source stay, which patient each shows, and which split it is in."""

import hashlib
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from samgan import __version__
from samgan.data import curation
from samgan.data.chunks import Record
from samgan.data.documents import SPLITS, BadFile, Duplicate, LeftOut, ManifestRow, SetInfo
from samgan.data.options import PrepareOptions
from samgan.data.sources import Source
from samgan.errors import SamganError


@dataclass(frozen=True)
class Selection:
    """What a prepared set will hold."""

    is_kept: Bool[np.ndarray, " n"]
    """Whether each record's image stays."""
    rows: list[ManifestRow]
    info: SetInfo
    """Without the hash of the files."""


class Patients(NamedTuple):
    """The patients that the images show."""

    names: list[str]
    """One for each image: its patient, or its path if the patient is not known."""
    told_by: str
    """How the patients were identified, in words; "image" if they were not."""
    share: float
    """Share of the images whose patient is known."""


def select(
    source: Source,
    records: list[Record],
    bad_files: Sequence[BadFile],
    options: PrepareOptions,
    fingerprint: str,
) -> Selection:
    """Find duplicates and patients, split, and describe what stays.

    Long because it fills the whole record.

    Raises:
        SamganError: fewer than two distinct images.
    """
    first = curation.duplicates_of_first([record.pixel_hash for record in records])  # equal files have equal pixels
    is_duplicate = first != np.arange(len(records))
    _check_distinct(source, is_duplicate, len(bad_files))
    exact_pairs = [(int(first[index]), int(index)) for index in np.flatnonzero(is_duplicate)]
    near_pairs = curation.near_duplicates(np.stack([record.thumbnail for record in records]))
    patients = identify_patients(records, options.patient_regex)
    groups = curation.connected_groups(patients.names, exact_pairs + near_pairs)

    is_kept = ~is_duplicate if options.duplicates == "drop" else np.ones_like(is_duplicate)
    kept = np.flatnonzero(is_kept)
    splits = [records[index].entry.split for index in kept]
    by_source = all(splits)
    if not by_source:
        splits = curation.split_by_group(
            [groups[index] for index in kept],
            [patients.names[index] for index in kept],
            [records[index].entry.class_name for index in kept],
            options.holdout,
            options.seed,
        )
    rows = _rows(records, patients, kept, splits, near_pairs)
    info = SetInfo(
        samgan=__version__,
        source=source.name,
        source_id=source.id,
        channels=options.channels,
        resolution=options.resolution,
        split_by="source" if by_source else patients.told_by,
        matched_share=patients.share,
        enlarged=sum(_is_enlarged(records[index], options) for index in kept),
        left_out=LeftOut(
            exact_duplicates=tuple(
                Duplicate(records[right].entry.path, same_as=records[left].entry.path)
                for left, right in exact_pairs
                if not is_kept[right]
            ),
            bad_files=tuple(bad_files),
            ignored_by_suffix=source.ignored,
            unused=source.unused,
        ),
        notes=dict(Counter(note for index in kept for note in records[index].notes)),
        warnings=source.warnings,
        labels=source.labels,
        options=options,
        fingerprint=fingerprint,
        sha256="",
        **count(rows, [groups[index] for index in kept], {row.class_name for row in rows}),
    )
    return Selection(is_kept, rows, info)


def _check_distinct(source: Source, is_duplicate: Bool[np.ndarray, " n"], bad: int) -> None:
    distinct = int((~is_duplicate).sum())
    if distinct < 2:
        duplicates = int(is_duplicate.sum())
        raise SamganError(
            f"{source.name}: expected at least 2 distinct images, found {distinct} in {len(source.entries)} files "
            f"({duplicates} exact duplicates, {bad} that cannot be read)"
        )


def identify_patients(records: list[Record], pattern: str | None) -> Patients:
    """Find the patient that each image shows.

    A given pattern takes precedence over what a table tells, that over DICOM's PatientID, and the PatientID over the
    default pattern. An image for which none gives a patient is its own patient, named by its path.
    """
    named = curation.patients_from_names([record.entry.path for record in records], pattern)
    told_keys = [record.entry.patient for record in records]
    keys = [record.entry.patient or record.patient_key for record in records]
    if len(set(keys) - {""}) < 2:  # an anonymised set may have the same ID everywhere
        keys = [""] * len(records)
    names = []
    from_dicom, from_names = 0, 0
    for record, name, key in zip(records, named, keys, strict=True):
        by_name = bool(name) and (pattern is not None or not key)
        names.append((name if by_name else key) or record.entry.path)
        from_names += by_name
        from_dicom += bool(key) and not by_name
    told = from_names + from_dicom
    if told == 0:
        return Patients(names, "image", 0.0)
    by = "file names"
    if from_dicom > from_names:
        by = "label table" if sum(map(bool, told_keys)) > from_dicom / 2 else "DICOM PatientID"
    if told < len(records):
        percent = max(1, 100 * told // len(records))  # rounded down: less than 100 while one is missing
        return Patients(names, f"patient ({by}; {percent} % of images), else image", told / len(records))
    return Patients(names, f"patient ({by})", 1.0)


def _rows(
    records: list[Record],
    patients: Patients,
    kept: Int[np.ndarray, " k"],
    splits: Sequence[str],
    near_pairs: Sequence[tuple[int, int]],
) -> list[ManifestRow]:
    """The rows of the manifest, one for each image that stays."""
    place = {int(index): row for row, index in enumerate(kept)}
    near_duplicate_of: dict[int, int] = {}
    for left, right in near_pairs:
        near_duplicate_of.setdefault(right, left)
    published = _publishable_patients(records)
    rows = []
    for (index, row), split in zip(place.items(), splits, strict=True):
        record, patient = records[index], patients.names[index]
        rows.append(
            ManifestRow(
                index=row,
                source=record.entry.path,
                sha256=record.sha256,
                width=record.width,
                height=record.height,
                bits=record.bits,
                class_name=record.entry.class_name,
                patient=published.get(patient, patient),
                split=split,
                # The first of several near duplicates is never an exact duplicate that was dropped.
                near_duplicate_of=place[near_duplicate_of[index]] if index in near_duplicate_of else None,
                view=record.view,
                notes="; ".join(record.notes),
            )
        )
    return rows


def _publishable_patients(records: list[Record]) -> dict[str, str]:
    """Map each hashed PatientID, of DICOM or a table, to a salted prefix.

    The salt is made from all IDs of the set together. So a short ID cannot be found by trying all short IDs, and the
    same set gives the same manifest.
    """
    keys = sorted({key for record in records for key in (record.entry.patient, record.patient_key) if key})
    salt = "".join(keys)
    return {key: hashlib.sha256(f"{salt}{key}".encode()).hexdigest()[:16] for key in keys}


def _is_enlarged(record: Record, options: PrepareOptions) -> bool:
    side = max if options.fit == "pad" else min
    return side(record.width, record.height) < options.resolution


def count(rows: Sequence[ManifestRow], groups: Sequence[Hashable], classes: Collection[str]) -> dict[str, Any]:
    """Count the images of a set; the result holds those fields of `SetInfo` that are counts.

    Args:
        rows: the manifest.
        groups: for each row, its patient or group of near duplicates.
        classes: names of the set's classes.
    """
    counts = Counter((row.class_name, row.split) for row in rows)
    sides = {(group, row.split) for group, row in zip(groups, rows, strict=True)}
    return {
        "images": len(rows),
        "classes": tuple(sorted(classes)),
        "counts": {name: {split: counts[name, split] for split in SPLITS} for name in sorted(classes)},
        "patients": len({row.patient for row in rows}),
        "near_duplicates": sum(row.near_duplicate_of is not None for row in rows),
        "groups_on_both_sides": len(sides) - len(set(groups)),
    }
