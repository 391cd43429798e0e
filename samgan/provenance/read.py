"""Read the images of a file back, with their marks."""

import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samgan.data.readers import HEAD_BYTES, strict_decoders
from samgan.data.readers.dicom import is_dicom
from samgan.data.sources import MAXIMUM_ARRAY_BYTES
from samgan.errors import SamganError, one_line
from samgan.provenance.formats import number_classes
from samgan.provenance.mark import Mark, Sample, StoredSample, channels_first, json_object, wrong_description
from samgan.provenance.read_dicom import read_dicom
from samgan.provenance.read_png import NAMES_SHOWN, read_png

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile


def read_samples(path: Path) -> list[Sample]:
    """The images of a PNG, DICOM or NPZ file with their marks; as `read_stored`."""
    return [stored.sample for stored in read_stored(path)]


def read_stored(path: Path) -> list[StoredSample]:
    """The samples of a PNG, DICOM or NPZ file, and what else it says of them; none if it has no mark of samgan.

    Raises:
        SamganError: There is no such file, or it or its mark is damaged. The message does not name the file.
    """
    try:
        if not path.is_file():
            raise SamganError("not a file" if path.exists() else "there is no such file")
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
        with strict_decoders():
            for recognises, read in READERS_OF_MARKS:
                if recognises(head):
                    return read(path)
            return []
    except SamganError:
        raise
    except Exception as error:  # decoders raise almost any error on damaged input; Pillow's may be an OSError
        if isinstance(error, OSError) and error.strerror:
            raise SamganError(f"cannot be read: {error.strerror}") from None
        raise SamganError(f"damaged: {one_line(error)}") from None


def _read_archive(path: Path) -> list[StoredSample]:
    with zipfile.ZipFile(path) as archive:
        if sum(info.file_size for info in archive.infolist()) > MAXIMUM_ARRAY_BYTES:
            raise SamganError(f"it holds arrays of more than {MAXIMUM_ARRAY_BYTES // 2**30} GiB")
    with np.load(path, allow_pickle=False) as arrays:
        common = json_object(str(arrays["provenance"])) if "provenance" in arrays else {}
        rest = common.pop("Images", [{}])
        each = [{**common, **entries} for entries in rest]
        marks = [(mark, wrong_description(entries)) for entries in each if (mark := Mark.from_entries(entries))]
        if not marks:
            return []
        name = "images" if "images" in arrays else "train_images"
        stored = arrays[name].astype(arrays[name].dtype.newbyteorder("="), copy=False)
        images = stored if name == "images" else [channels_first(image) for image in stored]
        if len(images) != len(marks):
            raise SamganError(f"it holds {len(images)} images but {len(marks)} marks")
        whole, rows = _archive_faults(arrays, name, common.get("Labels"), [mark for mark, _ in marks])
    return [
        StoredSample(Sample(image, mark), (*faults, *whole, *row))
        for image, (mark, faults), row in zip(images, marks, rows, strict=True)
    ]


def _archive_faults(
    arrays: "NpzFile", images: str, labels: object, marks: Sequence[Mark]
) -> tuple[list[str], list[list[str]]]:
    """What an archive holds beside its images that their marks do not say: of the whole, and of each image."""
    whole: list[str] = []
    known: dict[str, list[Any]]
    empty: tuple[str, ...] = ()
    if images == "images":
        known = {"seeds": [mark.seed for mark in marks], "classes": [mark.class_name for mark in marks]}
    else:
        numbers = number_classes({mark.class_name for mark in marks})
        known = {"train_labels": [[numbers[mark.class_name]] for mark in marks]}
        empty = ("val_images", "val_labels", "test_images", "test_labels")
        if labels not in (None, {name: number for name, number in numbers.items() if name}):
            whole.append("its Labels are not the numbers of the classes")
    names = Counter(arrays.files)
    more = [name for name, count in names.items() if name not in (images, "provenance", *known, *empty) or count > 1]
    if more:
        whole.append(
            f"it holds arrays beside those of its format: {', '.join(name[:20] for name in more[:NAMES_SHOWN])}"
        )
    whole += [f"its {name} is not empty" for name in empty if name in names and arrays[name].size]
    rows: list[list[str]] = [[] for _ in marks]
    for name, expected in known.items():
        found = arrays[name] if name in names else np.array(expected)
        if found.shape[:1] != (len(marks),):
            whole.append(f"its {name} has not one row for each image")
        else:
            for row, value, own in zip(rows, found.tolist(), expected, strict=True):
                row += [f"its {name} says {str(value)[:20]}, and its mark says {own}"] if value != own else []
    return whole, rows


READERS_OF_MARKS: tuple[tuple[Callable[[bytes], bool], Callable[[Path], list[StoredSample]]], ...] = (
    (is_dicom, read_dicom),
    (lambda head: head.startswith(b"PK\x03\x04"), _read_archive),
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), read_png),
)
"""How the first bytes of a file are recognised, and what reads such a file."""
