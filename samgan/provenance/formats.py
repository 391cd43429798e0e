"""The files that carry synthetic images and their marks: how each format is written and read back."""

import csv
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from samgan.data.readers import PIL_FORMATS, is_dicom, strict_decoders
from samgan.data.sources import MAXIMUM_ARRAY_BYTES, NPZ_CLASSES
from samgan.errors import SamganError, one_line
from samgan.pictures import write_png
from samgan.provenance.dicom import _read_dicom, _write_dicoms
from samgan.provenance.mark import PNG_MAGIC, ZIP_MAGIC, Mark, Sample, _channels_first, _json_object

# what is written


def _write_pngs(folder: Path, samples: Iterable[Sample], count: int) -> None:
    for sample in samples:
        _write_png(folder / f"{sample.name}.png", sample)


def _write_png(path: Path, sample: Sample) -> None:
    with open(path, "wb") as file:
        write_png(file, sample.image, sample.mark.entries())


def _write_image_folder(folder: Path, samples: Iterable[Sample], count: int) -> None:
    """The layout of Hugging Face's imagefolder: train/*.png, and train/metadata.csv with a row for each."""
    (folder / "train").mkdir()
    with open(folder / "train" / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("file_name", "label", "seed", "model_sha256", "synthetic"))
        for sample in samples:
            mark = sample.mark
            _write_png(folder / "train" / f"{sample.name}.png", sample)
            table.writerow((f"{sample.name}.png", mark.class_name, mark.seed, mark.model_sha256, "true"))


def _write_archive(folder: Path, samples: Iterable[Sample], count: int) -> None:
    """samples.npz: `images` [n c h w], `seeds`, `classes` (names, where there are any), `provenance`."""
    images, marks = _collect(samples, count)
    arrays: dict[str, Any] = {"images": images, "seeds": np.array([mark.seed for mark in marks])}
    if any(mark.class_name for mark in marks):
        arrays["classes"] = np.array([mark.class_name for mark in marks])
    np.savez_compressed(folder / "samples.npz", **arrays, provenance=_pack(marks))


def _write_medmnist(folder: Path, samples: Iterable[Sample], count: int) -> None:
    """medmnist.npz: {train,val,test}_images uint8 [n h w] or [n h w 3], _labels uint8 [n 1]; all images in train.

    What is synthetic has no place in a test, so val and test are empty. Readers pass `provenance` over.
    """
    images, marks = _collect(samples, count)
    images = images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1)
    numbers = number_classes({mark.class_name for mark in marks})
    labels = np.array([[numbers[mark.class_name]] for mark in marks], np.uint8)
    named = {name: number for name, number in numbers.items() if name}
    if not named:
        warnings.warn("the model knows several classes as one: the labels are all 0 and mean nothing", stacklevel=2)
    np.savez_compressed(
        folder / "medmnist.npz",
        train_images=images,
        val_images=images[:0],
        test_images=images[:0],
        train_labels=labels,
        val_labels=labels[:0],
        test_labels=labels[:0],
        provenance=_pack(marks, {"Labels": named}),
    )


def number_classes(names: Collection[str]) -> dict[str, int]:
    """MedMNIST's number of each class: as in the set whose classes these are, else N of class_N, else by the alphabet.

    `samgan prepare` gives a MedMNIST file's classes these names, so that what is trained on them gets its numbers back.
    """
    for known in NPZ_CLASSES.values():
        if {name.lower() for name in names} <= set(known):
            return {name: known.index(name.lower()) for name in names}
    numbered = {name: int(match[1]) for name in names if (match := re.fullmatch("class_([0-9]{1,3})", name))}
    if len(numbered) == len(names) and max(numbered.values()) < 256:
        return numbered
    return {name: number for number, name in enumerate(sorted(names))}


def _collect(samples: Iterable[Sample], count: int) -> tuple[np.ndarray, list[Mark]]:
    images, marks = np.empty(0), []
    for number, sample in enumerate(samples):
        if number == 0:
            images = np.empty((count, *sample.image.shape), sample.image.dtype)
        images[number] = sample.image
        marks.append(sample.mark)
    return images, marks


def _pack(marks: Sequence[Mark], more: Mapping[str, Any] | None = None) -> str:
    """Marks as one JSON text: what they have in common once, and the rest for each image under "Images"."""
    first, *others = all_entries = [mark.entries() for mark in marks]
    own = {"Seed", "Pixels-SHA256"}
    common = {key: value for key, value in first.items() if key not in own and all(e.get(key) == value for e in others)}
    rest = [{key: value for key, value in entries.items() if key not in common} for entries in all_entries]
    return json.dumps({**common, **(more or {}), "Images": rest})


class Format(NamedTuple):
    """A way to write samples."""

    write: Callable[[Path, Iterable[Sample], int], None]
    """Takes the folder to fill, the samples and their number."""
    bits: int = 8


FORMATS = {
    "png": Format(_write_pngs),
    "png16": Format(_write_pngs, 16),
    "npz": Format(_write_archive),
    "dicom": Format(_write_dicoms),
    "dicom16": Format(_write_dicoms, 16),
    "medmnist": Format(_write_medmnist),
    "imagefolder": Format(_write_image_folder),
}


# what is read back


def read_samples(path: Path) -> list[Sample]:
    """The images of a PNG, DICOM or NPZ file with their marks; none where it has no mark of samgan.

    Raises:
        SamganError: No such file, damaged, or its mark is; the message is the reason, without the file's name.
    """
    try:
        if not path.is_file():
            raise SamganError("not a file" if path.exists() else "there is no such file")
        with open(path, "rb") as file:
            head = file.read(132)
        with strict_decoders():
            if is_dicom(head):
                return _read_dicom(path)
            if head.startswith(ZIP_MAGIC):
                return _read_archive(path)
            if head.startswith(PNG_MAGIC):
                return _read_png(path)
            return []
    except SamganError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged input, Pillow OSError too
        if isinstance(error, OSError) and error.strerror:
            raise SamganError(f"cannot be read: {error.strerror}") from None
        raise SamganError(f"damaged: {one_line(error)}") from None


def _read_png(path: Path) -> list[Sample]:
    with Image.open(path, formats=PIL_FORMATS) as image:
        image.load()  # text may stand behind the pixels
        mark = Mark.from_entries(image.text)  # type: ignore[attr-defined]
        return [Sample(_channels_first(np.asarray(image)), mark)] if mark else []


def _read_archive(path: Path) -> list[Sample]:
    with zipfile.ZipFile(path) as archive:
        if sum(info.file_size for info in archive.infolist()) > MAXIMUM_ARRAY_BYTES:
            raise SamganError(f"arrays of more than {MAXIMUM_ARRAY_BYTES // 2**30} GiB")
    with np.load(path, allow_pickle=False) as arrays:
        common = _json_object(str(arrays["provenance"])) if "provenance" in arrays else {}
        rest = common.pop("Images", [{}])
        marks = [mark for entries in rest if (mark := Mark.from_entries({**common, **entries}))]
        if not marks:
            return []
        name = "images" if "images" in arrays else "train_images"
        images = arrays[name] if name == "images" else [_channels_first(image) for image in arrays[name]]
    if len(images) != len(marks):
        raise SamganError(f"it holds {len(images)} images, and its marks are of {len(marks)}")
    return [Sample(image, mark) for image, mark in zip(images, marks, strict=True)]
