"""Decide which images of a source stay, and which split each is in."""

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
from samgan.data.findings import (
    check_synthetic,
    contradictions,
    find_leaks,
    left_out_for,
    warn_of_classes,
    warn_of_darkness,
    warn_of_split,
    warn_of_synthetic,
)
from samgan.data.options import PrepareOptions
from samgan.data.patients import Patients, identify_patients
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


class Alike(NamedTuple):
    """Which images are equal, and which are near duplicates."""

    first: Int[np.ndarray, " n"]
    """For each image the position of the first equal one, which may be its own."""
    near: Int[np.ndarray, " n"]
    """For each image the position of an earlier one that it is equal or nearly equal to; -1 if there is none."""
    group: Int[np.ndarray, " n"]
    """For each image the number of its group of equal images and near duplicates."""


def select(
    source: Source,
    records: list[Record],
    bad_files: Sequence[BadFile],
    options: PrepareOptions,
    fingerprint: str,
) -> Selection:
    """Find duplicates and patients, split, and describe what stays.

    Long because it names everything that is recorded about a set.

    Raises:
        SamganError: fewer than two distinct images, or synthetic images that were not allowed.
    """
    check_synthetic(source.name, records, options)
    alike = find_alike(records)
    is_duplicate = alike.first != np.arange(len(records))
    contradicted = contradictions(records, alike.first.tolist())
    drops = options.duplicates == "drop"
    unknown = {file for found in contradicted for file in found.files} if drops else set()
    is_unknown = np.array([record.entry.path in unknown for record in records], dtype=bool)
    _check_distinct(source, is_duplicate, is_unknown, len(bad_files))
    patients = identify_patients(records, options.patient_regex)
    same = [(int(other), index) for index, other in enumerate(alike.near) if other >= 0]
    same += [(int(other), index) for index, other in enumerate(alike.group) if other != index]
    groups = curation.connected_groups(patients.names, same + patients.joined)

    is_kept = ~(is_duplicate | is_unknown) if drops else np.ones_like(is_duplicate)
    kept = np.flatnonzero(is_kept)
    by_source = all(records[index].entry.split for index in kept)
    splits = split(records, patients.names, groups, kept, options)
    rows = _rows(records, patients.published, kept, splits, alike.near)
    kept_groups = [groups[index] for index in kept]
    exact = set(contradicted)
    near = [
        found
        for found in contradictions([records[index] for index in kept], alike.group[kept].tolist())
        if found not in exact
    ]
    classes = {row.class_name for row in rows}
    lost = sorted({record.entry.class_name for record in records} - classes)
    leaks = find_leaks(rows, _may_leak(patients, alike, kept))
    info = SetInfo(
        samgan=__version__,
        source=source.name,
        source_id=source.id,
        channels=options.channels,
        resolution=options.resolution,
        split_by="source" if by_source else patients.told_by,
        matched_share=patients.share,
        enlarged=sum(_is_enlarged(records[index], options) for index in kept),
        leaks=tuple(leaks),
        contradictions=tuple(contradicted),
        near_contradictions=tuple(near),
        left_out=LeftOut(
            exact_duplicates=tuple(
                Duplicate(records[index].entry.path, same_as=records[alike.first[index]].entry.path)
                for index in np.flatnonzero(is_duplicate & ~is_kept & ~is_unknown).tolist()
            ),
            bad_files=tuple(bad_files),
            ignored_by_suffix=source.ignored,
            unused=(*source.unused, *(file for found in contradicted if drops for file in left_out_for(found))),
        ),
        notes=dict(Counter(note for index in kept for note in records[index].notes)),
        warnings=(
            *source.warnings,
            *patients.warnings,
            *warn_of_darkness([records[index] for index in kept]),
            *warn_of_classes(contradicted, near, not drops, lost),
            *(() if by_source else warn_of_split(rows, kept_groups, options)),
            *warn_of_synthetic(rows),
        ),
        labels=source.labels,
        options=options,
        fingerprint=fingerprint,
        sha256="",
        **count(rows, kept_groups, classes),
    )
    return Selection(is_kept, rows, info)


def find_alike(records: Sequence[Record]) -> Alike:
    """Find equal images and near duplicates. Of equal images only the first is compared with others."""
    if not records:
        return Alike(*(np.empty(0, dtype=np.int64) for _ in Alike._fields))
    first = curation.duplicates_of_first([record.pixel_hash for record in records])  # equal files have equal pixels
    distinct = np.flatnonzero(first == np.arange(len(records)))
    found = curation.near_duplicates(np.stack([records[index].thumbnail for index in distinct.tolist()]))
    near, group = np.full(len(records), -1), np.arange(len(records))
    near[distinct] = np.where(found.first < 0, -1, distinct[found.first])
    group[distinct] = distinct[found.group]
    # A copy is like the image that its original is like, or else like its original.
    is_copy = first != np.arange(len(records))
    near[is_copy] = np.where(near[first] < 0, first, near[first])[is_copy]
    return Alike(first, near, group[first])


def split(
    records: Sequence[Record],
    patients: Sequence[str],
    groups: Sequence[int],
    kept: Int[np.ndarray, " k"],
    options: PrepareOptions,
) -> list[str]:
    """Return the split of each image that stays: the source's own if it has one, else whole groups at random.

    Synthetic images are training images. So are, in a split at random, the real images of their groups.
    """
    own = [records[index].entry.split for index in kept]
    made = {groups[index] for index, record in enumerate(records) if record.is_synthetic}
    if all(own):
        return ["train" if records[index].is_synthetic else side for index, side in zip(kept, own, strict=True)]
    free = [index for index in kept if groups[index] not in made]
    if not free:
        return ["train"] * len(kept)
    chosen = curation.split_by_group(
        [groups[index] for index in free],
        [patients[index] for index in free],
        [records[index].entry.class_name for index in free],
        options.holdout,
        options.seed,
    )
    side = dict(zip(free, chosen, strict=True))
    return [side.get(index, "train") for index in kept]


def _may_leak(patients: Patients, alike: Alike, kept: Int[np.ndarray, " k"]) -> list[tuple[str, list[Hashable]]]:
    """What may be on both sides of a split: the name of each kind, and for each image that stays its key."""
    return [
        ("patients", [patients.names[index] if patients.is_known[index] else "" for index in kept]),
        (
            "DICOM PatientIDs",  # where something more trusted tells the patients
            [
                "" if patients.patient_ids[index] == patients.names[index] else patients.patient_ids[index]
                for index in kept
            ],
        ),
        ("studies", [patients.studies[index] for index in kept]),
        ("groups of near duplicates", alike.group[kept].tolist()),
    ]


def _check_distinct(
    source: Source, is_duplicate: Bool[np.ndarray, " n"], is_unknown: Bool[np.ndarray, " n"], bad: int
) -> None:
    distinct = int((~is_duplicate & ~is_unknown).sum())
    if distinct < 2:
        duplicates, unknown = int((is_duplicate & ~is_unknown).sum()), int(is_unknown.sum())
        raise SamganError(
            f"{source.name}: expected at least 2 distinct images, found {distinct} in {len(source.entries)} files "
            f"({duplicates} exact duplicates, {bad} that cannot be read"
            + (f", {unknown} whose picture lies in more than one class)" if unknown else ")")
        )


def _rows(
    records: list[Record],
    patients: Sequence[str],
    kept: Int[np.ndarray, " k"],
    splits: Sequence[str],
    near: Int[np.ndarray, " n"],
) -> list[ManifestRow]:
    """The rows of the manifest, one for each image that stays."""
    place = {int(index): row for row, index in enumerate(kept)}
    rows = []
    for row, (index, side) in enumerate(zip(kept.tolist(), splits, strict=True)):
        record, other = records[index], int(near[index])
        while other >= 0 and other not in place and near[other] >= 0:
            other = int(near[other])
        # If the image that this one is a near duplicate of is left out, its first near duplicate replaces it.
        partner = place.setdefault(other, row) if other >= 0 else row
        rows.append(
            ManifestRow(
                index=row,
                source=record.entry.path,
                sha256=record.sha256,
                width=record.width,
                height=record.height,
                bits=record.bits,
                class_name=record.entry.class_name,
                patient=patients[index],
                split=side,
                near_duplicate_of=partner if partner != row else None,
                view=record.view,
                notes="; ".join(record.notes),
                synthetic="yes" if record.is_synthetic else "",
            )
        )
    return rows


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
        "patients": len({row.patient for row in rows if not row.synthetic}),
        "synthetic": sum(bool(row.synthetic) for row in rows),
        "near_duplicates": sum(row.near_duplicate_of is not None for row in rows),
        "groups_on_both_sides": len(sides) - len(set(groups)),
    }
