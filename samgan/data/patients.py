"""Find the patient that each image shows, and the images that one patient or study joins."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from samgan.data import curation
from samgan.data.chunks import Record
from samgan.data.sources.folder_names import is_plain
from samgan.errors import shown

FILE_NAMES, FOLDERS, TABLE, PATIENT_ID, STUDY = "file names", "folders", "label table", "DICOM PatientID", "DICOM study"


MANY_FOLDERS = 10
"""From so many folders inside the classes, they may be patients."""


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

    The first of these that tells it: the given pattern; a folder or a label table; DICOM's PatientID; the default
    pattern, if none was given; the study (StudyInstanceUID), whose patient is that of its other images. Otherwise the
    image is its own patient, named by its path, and so is every synthetic image.

    Images of one study belong together in any case. Images with the same key of another level do so if any of them is
    told by it: where a table lacks one image of a PatientID, the PatientID joins that image to those in the table.
    """
    levels, warnings = _levels(records, pattern)
    keys = [_first_key(levels, index) for index in range(len(records))]
    carriers = _carriers(levels)
    final = _resolve(levels, keys, carriers)
    used = {key for key in keys if key is not None}
    studies = levels[-1].keys
    joined = [
        (places[0], place)
        for key, places in carriers.items()
        if key in used or levels[key.level].told_by == STUDY
        for place in places[1:]
    ]
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
    """All ways to tell the patients, the most trusted one first, and the study last."""
    is_real = [not record.is_synthetic for record in records]
    paths = [record.entry.path.replace("\\", "/") for record in records]  # some archives are written with backslashes
    given = [record.entry.patient for record in records]
    in_path = [patient in path.split("/") for patient, path in zip(given, paths, strict=True)]
    ids, studies = [record.patient_key for record in records], [record.study_key for record in records]
    warnings = []
    for what, keys in (("PatientID", ids), ("StudyInstanceUID", studies)):
        counts = Counter(key for key, counts in zip(keys, is_real, strict=True) if key and counts)
        if len(counts) == 1 and (same := counts.total()) > sum(is_real) / 2:
            keys[:] = [""] * len(keys)
            if same > 1:
                warnings.append(
                    f"{same} of {sum(is_real)} images have the same DICOM {what}, and no image has another: it is "
                    "taken for a placeholder and does not tell patients apart"
                )
    by_name = Level(FILE_NAMES, curation.patients_from_names(paths, pattern))
    levels = [
        Level(FOLDERS, [patient if told else "" for patient, told in zip(given, in_path, strict=True)]),
        Level(TABLE, ["" if told else patient for patient, told in zip(given, in_path, strict=True)]),
        Level(PATIENT_ID, ids),
    ]
    levels = [*levels, by_name] if pattern is None else [by_name, *levels]
    levels.append(Level(STUDY, studies))
    return [
        level._replace(keys=[key if counts else "" for key, counts in zip(level.keys, is_real, strict=True)])
        for level in levels
    ], tuple(warnings)


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
    folders = Counter(record.entry.path.replace("\\", "/").rpartition("/")[0] for record in records)
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
