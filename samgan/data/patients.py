"""Find the patient that each image shows, and the images that one patient or study joins."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from samgan.data import curation
from samgan.data.chunks import Record
from samgan.data.sources.folder_names import is_plain, says_person, spelled, split_and_rest, split_of
from samgan.errors import WARNING, shown

FILE_NAMES, FOLDERS, TABLE, PATIENT_ID, STUDY = "file names", "folders", "label table", "DICOM PatientID", "DICOM study"


MANY_FOLDERS = 10
"""From so many folders inside the classes, they may be patients."""
MANY_TIMES = 10
"""A PatientID with images in more than so many times as many folders as others have is a placeholder. All are, if more
than so many folders are usual."""


class Patients(NamedTuple):
    """The patients that the images show."""

    names: list[str]
    """One for each image: its patient, else its study, else its path."""
    published: list[str]
    """The same for the manifest: a hashed ID is replaced by a salted prefix."""
    patient_ids: list[str]
    """DICOM's hashed PatientID of each image, where it counts; otherwise empty."""
    studies: list[str]
    """DICOM's hashed StudyInstanceUID of each image, where it counts; otherwise empty."""
    joined: list[tuple[int, int]]
    """Pairs of images that belong together whatever their names are."""
    is_known: list[bool]
    """Whether the patient is known."""
    told_by: str
    """How the patients were identified, in words; "image" if they were not."""
    share: float
    """Share of the real images whose patient is known."""
    warnings: tuple[str, ...]
    """What was decided, or looks wrong; one sentence each."""


class Level(NamedTuple):
    """One way to tell the patients."""

    told_by: str
    keys: list[str]
    """One for each image; empty where this way tells nothing."""


class Key(NamedTuple):
    """A patient or a study, as one level names it."""

    level: int
    name: str


def identify_patients(records: Sequence[Record], pattern: str | None) -> Patients:
    """Find the patient that each image shows.

    The first of these that tells it: the given pattern; a label table; a folder; DICOM's PatientID; the default
    pattern, if none was given; the study (StudyInstanceUID), whose patient is that of its other images. Otherwise the
    image is its own patient, named by its path, and so is every synthetic image. The PatientID comes before folders
    of numbers if these divide the images of a patient, as those of accession numbers do.

    Images of one study belong together in any case. Images with the same key of another level do so if any of them is
    told by it: where a table lacks one image of a PatientID, the PatientID joins that image to those in the table. A
    PatientID also joins images that folders of numbers tell, since it is only a guess that these are patients.
    """
    levels, warnings = _levels(records, pattern)
    keys = [_first_key(levels, index) for index in range(len(records))]
    carriers = _carriers(levels)
    final = _resolve(levels, keys, carriers)
    used = {key for key in keys if key is not None}
    studies = levels[-1].keys
    by_number = {
        index
        for index, key in enumerate(keys)
        if key is not None and levels[key.level].told_by == FOLDERS and not says_person(key.name)
    }
    joined = []
    for key, places in carriers.items():
        way = levels[key.level].told_by
        corrects_folders = way == PATIENT_ID and pattern is None and not by_number.isdisjoint(places)
        if key in used or way == STUDY or corrects_folders:
            joined += [(places[0], place) for place in places[1:]]
    told = [final[key] if key is not None else None for key in keys]
    names = [key.name if key else record.entry.path for key, record in zip(told, records, strict=True)]
    told_by = [levels[key.level].told_by if key else "" for key in told]
    ids = next(level.keys for level in levels if level.told_by == PATIENT_ID)
    is_real = [not record.is_synthetic for record in records]
    real = [by for by, is_counted in zip(told_by, is_real, strict=True) if is_counted]
    known = sum(by not in ("", STUDY) for by in real)
    return Patients(
        names=names,
        published=_publish(records, names, told_by),
        patient_ids=ids,
        studies=studies,
        joined=joined,
        is_known=[by not in ("", STUDY) for by in told_by],
        told_by=_words(real),
        share=known / len(real) if real else 0.0,
        warnings=(*warnings, *_mixed_studies(studies, names, told_by), *_untold_folders(records, told_by)),
    )


def _levels(records: Sequence[Record], pattern: str | None) -> tuple[list[Level], tuple[str, ...]]:
    """All ways to tell the patients, the most trusted one first, and the study last. Synthetic images show none."""

    def level(told_by: str, keys: Iterable[str]) -> Level:
        return Level(told_by, ["" if record.is_synthetic else key for record, key in zip(records, keys, strict=True)])

    table = level(TABLE, (record.entry.patient_in_table for record in records))
    folders = level(FOLDERS, (record.entry.patient for record in records))
    ids = level(PATIENT_ID, (record.patient_key for record in records))
    studies = level(STUDY, (record.study_key for record in records))
    by_name = level(FILE_NAMES, curation.patients_from_names([_path(record) for record in records], pattern))
    real = sum(not record.is_synthetic for record in records)
    numbered = ["" if says_person(key) else key for key in folders.keys]  # which may be examinations
    warnings = [_clear(ids, "PatientID", real), _clear(studies, "StudyInstanceUID", real), _clear_shared(ids, numbered)]
    if pattern is not None:
        levels = [by_name, table, folders, ids, studies]
    else:
        warnings.append(_clear_series(by_name, records))
        divided, shared = _compare(ids.keys, numbered)
        levels = [table, folders, ids, by_name, studies]
        if divided > shared:
            levels = [table, ids, folders, by_name, studies]
            warnings.append(
                f"folders look like patients, but {divided} DICOM PatientIDs have images in several of them: the "
                "PatientID tells the patients"
            )
    return levels, tuple(filter(None, warnings))


def _clear(level: Level, what: str, real: int) -> str:
    """Clear keys that are all the same, and say so if there are several."""
    counts = Counter(filter(None, level.keys))
    if len(counts) != 1 or (same := counts.total()) <= real / 2:
        return ""
    level.keys[:] = [""] * len(level.keys)
    if same == 1:
        return ""
    return (
        f"{same} of {real} images have the same DICOM {what}, and no image has another: it is taken for a placeholder "
        "and does not tell patients apart"
    )


def _clear_shared(ids: Level, numbered: Sequence[str]) -> str:
    """Clear PatientIDs that stand for many more folders than others do, or all if most stand for many, and say so."""
    pairs = {(own, name) for own, name in zip(ids.keys, numbered, strict=True) if own and name}
    counts = Counter(own for own, _ in pairs)
    usual = float(np.median(list(counts.values()))) if counts else 0.0
    limit = MANY_TIMES * usual if usual <= MANY_TIMES else 0
    shared = {own for own, count in counts.items() if count > limit}
    if not shared:
        return ""
    ids.keys[:] = ["" if key in shared else key for key in ids.keys]
    return (
        f"{len(shared)} of {len(counts)} DICOM PatientIDs stand for up to {max(counts.values())} folders each: they "
        "are taken for placeholders and do not tell patients apart"
    )


def _compare(ids: Sequence[str], folders: Sequence[str]) -> tuple[int, int]:
    """How many IDs lie in several folders, and how many folders hold several IDs."""
    pairs = {(own, folder) for own, folder in zip(ids, folders, strict=True) if own and folder}
    by_id, by_folder = Counter(own for own, _ in pairs), Counter(folder for _, folder in pairs)
    return sum(count > 1 for count in by_id.values()), sum(count > 1 for count in by_folder.values())


def _clear_series(by_name: Level, records: Sequence[Record]) -> str:
    """Clear names such as IM-0001 where they number the series of each patient, and say so.

    In Kermany's set such a name lies in one folder of its class. In what viewers export, each patient has a folder of
    their own, in which series are counted from 1.
    """
    folders: dict[tuple[str, str, str], set[tuple[str, ...]]] = defaultdict(set)
    for record, name in zip(records, by_name.keys, strict=True):
        entry = record.entry
        if curation.SERIES.fullmatch(name):
            parts = _path(record).split("/")[:-1]
            telling = [part for part in parts if not (is_plain(part) or split_of(part) or split_and_rest(part)[0])]
            within = tuple(dict.fromkeys(part for part in telling if spelled(part) != spelled(entry.class_name)))
            folders[name, entry.class_name, entry.split].add(within)
    several = [(len(found), name) for (name, *_), found in folders.items() if len(found) > 1]
    if 2 * len(several) <= len(folders):
        return ""
    count, name = max(several)
    by_name.keys[:] = ["" if curation.SERIES.fullmatch(key) else key for key in by_name.keys]
    return (
        f"{WARNING}names such as {name}-... occur in {count} folders of one class, so they number series and not "
        "patients, and are not used to tell patients apart. If each folder is one patient, add --patient-regex "
        "'([^/]+)/[^/]+$'"
    )


def _path(record: Record) -> str:
    return record.entry.path.replace("\\", "/")  # some archives are written with backslashes


def _first_key(levels: Sequence[Level], index: int) -> Key | None:
    return next((Key(number, level.keys[index]) for number, level in enumerate(levels) if level.keys[index]), None)


def _carriers(levels: Sequence[Level]) -> dict[Key, list[int]]:
    """The images that have each key."""
    carriers: dict[Key, list[int]] = defaultdict(list)
    for number, level in enumerate(levels):
        for index, name in enumerate(level.keys):
            if name:
                carriers[Key(number, name)].append(index)
    return carriers


def _resolve(levels: Sequence[Level], keys: Sequence[Key | None], carriers: dict[Key, list[int]]) -> dict[Key, Key]:
    """Replace each key by that of a more trusted level, if one of its images has such a key.

    So an image with nothing but a study gets the patient of the study's other images.
    """
    final: dict[Key, Key] = {}
    for key in sorted(carriers, key=lambda key: key.level):
        best = min(filter(None, (keys[index] for index in carriers[key])), key=lambda other: other.level)
        final[key] = final[best] if best.level < key.level else key
    return final


def _words(told_by: Sequence[str]) -> str:
    """Describe what told the patients of the real images, most frequent first."""
    counts = Counter(told_by)
    by_patient = [name for name, _ in counts.most_common() if name not in ("", STUDY)]
    known, total = sum(counts[name] for name in by_patient), len(told_by)
    ways = []
    if by_patient:
        ways.append(f"patient ({' and '.join(by_patient)}{_percent(known, total)})")
    if counts[STUDY]:
        ways.append("study (DICOM)" if known else f"study (DICOM{_percent(counts[STUDY], total)})")
    if counts[""] or not ways:
        ways.append("image")
    return ", else ".join(ways)


def _percent(part: int, total: int) -> str:
    """Rounded down: less than 100 while one is missing."""
    return f"; {max(1, 100 * part // total)} % of images" if part < total else ""


def _mixed_studies(studies: Sequence[str], names: Sequence[str], told_by: Sequence[str]) -> Iterator[str]:
    patients = defaultdict(set)
    for study, name, by in zip(studies, names, told_by, strict=True):
        if study and by not in ("", STUDY):
            patients[study].add(name)
    if mixed := sum(len(found) > 1 for found in patients.values()):
        yield (
            f"{mixed} DICOM studies (StudyInstanceUID) hold images of several patients, though a study has one: all "
            "images of such patients stay on one side of the split"
        )


def _untold_folders(records: Sequence[Record], told_by: Sequence[str]) -> Iterator[str]:
    """Say that many folders inside the classes may be patients, if nothing tells any patient."""
    if any(told_by):
        return
    folders = Counter(_path(record).rpartition("/")[0] for record in records)
    named = [folder for folder in sorted(folders) if folder and not is_plain(folder.rpartition("/")[2])]
    sides = {(record.entry.class_name, record.entry.split) for record in records}
    if len(named) >= MANY_FOLDERS and len(named) > 2 * len(sides) and len(records) > len(folders):
        yield (
            f"no patient is known, and the images lie in {len(named)} folders, such as {shown(named[0])}: if each is "
            "one patient, give --patient-regex '([^/]+)/[^/]+$'; otherwise a patient may be on both sides of the split"
        )


def _publish(records: Sequence[Record], names: Sequence[str], told_by: Sequence[str]) -> list[str]:
    """Replace hashed IDs by salted prefixes; names that can be read in the paths stay as they are.

    The salt is made from all IDs of the set together. So a short ID cannot be found by trying all short IDs, and the
    same set gives the same manifest.
    """
    hashed = {name for name, by in zip(names, told_by, strict=True) if by in (TABLE, PATIENT_ID, STUDY)}
    secret = {record.patient_key for record in records} | {record.study_key for record in records} | hashed
    salt = "".join(sorted(secret))
    return [
        hashlib.sha256(f"{salt}{name}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
        if by in (TABLE, PATIENT_ID, STUDY)
        else name
        for name, by in zip(names, told_by, strict=True)
    ]
