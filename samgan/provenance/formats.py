"""The files that carry synthetic images and their marks: one record for each format that is written.

The command line takes the names of formats from here, so torch and pydicom are imported only when they are used.
"""

import csv
import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samgan.data.sources import NPZ_CLASSES

if TYPE_CHECKING:
    from samgan.provenance.mark import Mark, Sample


def _write_pngs(folder: Path, samples: Iterable["Sample"], count: int) -> None:
    for sample in samples:
        _write_png(folder / f"{sample.name}.png", sample)


def _write_png(path: Path, sample: "Sample") -> None:
    from samgan.grids import write_png

    with open(path, "wb") as file:
        write_png(file, sample.image, sample.mark.entries())


def _write_dicoms(folder: Path, samples: Iterable["Sample"], count: int) -> None:
    from samgan.provenance.dicom import write_dicom

    for sample in samples:
        write_dicom(folder / f"{sample.name}.dcm", sample)


def _write_image_folder(folder: Path, samples: Iterable["Sample"], count: int) -> None:
    """The layout of Hugging Face's imagefolder: train/*.png, and train/metadata.csv with a row for each."""
    (folder / "train").mkdir()
    with open(folder / "train" / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("file_name", "label", "seed", "model_sha256", "synthetic"))
        for sample in samples:
            mark = sample.mark
            _write_png(folder / "train" / f"{sample.name}.png", sample)
            table.writerow((f"{sample.name}.png", mark.class_name, mark.seed, mark.model_sha256, "true"))


def _write_archive(folder: Path, samples: Iterable["Sample"], count: int) -> None:
    """samples.npz: `images` [n c h w], `seeds`, `classes` (names, if there are any), `provenance`."""
    images, marks = _collect(samples, count)
    arrays: dict[str, Any] = {"images": images, "seeds": np.array([mark.seed for mark in marks])}
    if any(mark.class_name for mark in marks):
        arrays["classes"] = np.array([mark.class_name for mark in marks])
    np.savez_compressed(folder / "samples.npz", **arrays, provenance=_pack(marks))


def _write_medmnist(folder: Path, samples: Iterable["Sample"], count: int) -> None:
    """medmnist.npz: {train,val,test}_images uint8 [n h w] or [n h w 3], _labels uint8 [n 1]; all images in train.

    Synthetic images do not belong in a test set, so val and test are empty. Readers of MedMNIST ignore `provenance`.
    """
    images, marks = _collect(samples, count)
    images = images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1)
    numbers = number_classes({mark.class_name for mark in marks})
    labels = np.array([[numbers[mark.class_name]] for mark in marks], np.uint8)
    named = {name: number for name, number in numbers.items() if name}
    if not named:
        warnings.warn("the model was not told the class of its images: all labels are 0 and mean nothing", stacklevel=2)
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
    """MedMNIST's number of each class: that of its set with these classes, else N of class_N, else alphabetical.

    `samgan prepare` names the classes of a MedMNIST file like this, so models trained on it write the same numbers.
    """
    for known in NPZ_CLASSES.values():
        if {name.lower() for name in names} <= set(known):
            return {name: known.index(name.lower()) for name in names}
    numbered = {name: int(match[1]) for name in names if (match := re.fullmatch("class_([0-9]{1,3})", name))}
    if len(numbered) == len(names) and max(numbered.values()) < 256:
        return numbered
    return {name: number for number, name in enumerate(sorted(names))}


def _collect(samples: Iterable["Sample"], count: int) -> tuple[np.ndarray, list["Mark"]]:
    images, marks = np.empty(0), []
    for number, sample in enumerate(samples):
        if number == 0:
            images = np.empty((count, *sample.image.shape), sample.image.dtype)
        images[number] = sample.image
        marks.append(sample.mark)
    return images, marks


def _pack(marks: Sequence["Mark"], more: Mapping[str, Any] | None = None) -> str:
    """Marks as one JSON text: common entries once, the others for each image under "Images"."""
    first, *others = all_entries = [mark.entries() for mark in marks]
    own = {"Seed", "Pixels-SHA256"}
    common = {key: value for key, value in first.items() if key not in own and all(e.get(key) == value for e in others)}
    rest = [{key: value for key, value in entries.items() if key not in common} for entries in all_entries]
    return json.dumps({**common, **(more or {}), "Images": rest})


@dataclasses.dataclass(frozen=True)
class Format:
    """A way to write samples."""

    label: str
    """What it is, in a few words, for help texts."""
    write: Callable[[Path, Iterable["Sample"], int], None]
    """Takes the folder to fill, the samples and their number."""
    bits: int = 8
    """Bits of each value of the images; 16 is for one channel only."""
    in_sets: bool = False
    """Whether `samgan balance` may write it: one file for each image, straight into the folder."""


FORMATS = {
    "png": Format("PNG", _write_pngs, in_sets=True),
    "png16": Format("16-bit PNG", _write_pngs, bits=16, in_sets=True),
    "npz": Format("one NumPy archive", _write_archive),
    "dicom": Format("DICOM", _write_dicoms, in_sets=True),
    "dicom16": Format("16-bit DICOM", _write_dicoms, bits=16, in_sets=True),
    "medmnist": Format("one archive in the format of MedMNIST", _write_medmnist),
    "imagefolder": Format("PNG and a table, for Hugging Face's imagefolder", _write_image_folder),
}
SET_FORMATS = tuple(name for name, known in FORMATS.items() if known.in_sets)
