"""What a synthetic image says of itself: its mark, the files that carry it, and how it is read back.

A mark names model and seed, from which the image can be made again. Anybody can remove it or write another one: only
making the image again proves it (`samgan.verification`).
"""

import csv
import dataclasses
import hashlib
import json
import re
import uuid
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from samgan import __version__
from samgan.data.readers import PIL_FORMATS, is_dicom, one_line, strict_decoders
from samgan.data.sources import MAXIMUM_ARRAY_BYTES, NPZ_CLASSES
from samgan.errors import SamganError
from samgan.pictures import SYNTHETIC, write_png

SOFTWARE = f"samgan {__version__}"
UID_NAMESPACE = uuid.UUID("6f0e9a52-6d0b-4c52-9d0c-0d8a1b1f7c3e")
"""Drawn once: what is named in it gets the same UID everywhere."""
DICOM_TEXT = 1024
"""Characters of a Derivation Description."""
DICOM_INTEGER = 1 << 31
"""Instance numbers are below it, and so are half of all seeds."""
PNG_MAGIC, ZIP_MAGIC = b"\x89PNG\r\n\x1a\n", b"PK\x03\x04"


@dataclasses.dataclass(frozen=True)
class Mark:
    """Of which model and seed an image is."""

    model_sha256: str
    """Of the generator's weights."""
    preset: str
    images_seen: int
    seed: int
    class_name: str = ""
    """Empty where the model is neither of one class nor told of them."""
    pixels_sha256: str = ""
    """`hash_pixels` of the image; empty where the mark is of several."""
    software: str = SOFTWARE

    def of(self, image: np.ndarray) -> "Mark":
        """The mark with the hash of `image` in it."""
        return dataclasses.replace(self, pixels_sha256=hash_pixels(image))

    def entries(self) -> dict[str, str]:
        """The mark as text: keys of PNG's text chunks and of JSON."""
        entries = {
            "Description": SYNTHETIC,
            "Synthetic": "true",
            "Software": self.software,
            "Model-SHA256": self.model_sha256,
            "Model-Preset": self.preset,
            "Model-Images-Seen": str(self.images_seen),
            "Seed": str(self.seed),
        }
        optional = {"Class": self.class_name, "Pixels-SHA256": self.pixels_sha256}
        return entries | {key: value for key, value in optional.items() if value}

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> "Mark | None":
        """Read what `entries` wrote; None where there is no mark of samgan.

        Raises:
            SamganError: There is one that says too little, or nonsense; the message is the reason.
        """
        if not str(entries.get("Software", "")).startswith("samgan "):
            if entries.get("Description") == SYNTHETIC:
                raise SamganError("it says that samgan made it, but not of which model and seed")
            return None
        if str(entries.get("Seed", "")).endswith("..."):
            raise SamganError("a sheet of several images: name the images themselves")
        try:
            mark = cls(
                str(entries["Model-SHA256"]),
                str(entries["Model-Preset"]),
                int(entries["Model-Images-Seen"]),
                int(entries["Seed"]),
                str(entries.get("Class", "")),
                str(entries.get("Pixels-SHA256", "")),
                str(entries["Software"]),
            )
        except (KeyError, ValueError, TypeError):
            raise SamganError("its mark of samgan is damaged: expected model, seed and images seen") from None
        if entries.get("Synthetic") != "true":
            raise SamganError("its mark is of samgan, and yet it does not say that it is synthetic")
        if not re.fullmatch("[0-9a-f]{64}", mark.model_sha256) or not 0 <= mark.seed < 1 << 32:
            raise SamganError("its mark of samgan is damaged: no model has such a hash, or no image such a seed")
        return mark


class Sample(NamedTuple):
    """One image and its mark."""

    image: np.ndarray
    """uint8 or uint16 [c h w]."""
    mark: Mark

    @property
    def name(self) -> str:
        """Of its file, without the ending."""
        return f"seed-{self.mark.seed:08d}"


def hash_pixels(image: np.ndarray) -> str:
    """SHA-256 of type, shape [c h w] and values, the low byte first."""
    values = image.astype(image.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{image.dtype.name} {image.shape}\n".encode() + values.tobytes()).hexdigest()


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


def _write_dicoms(folder: Path, samples: Iterable[Sample], count: int) -> None:
    for sample in samples:
        _write_dicom(folder / f"{sample.name}.dcm", sample)


def _write_dicom(path: Path, sample: Sample) -> None:
    """One Secondary Capture image, without identity, dates or anything else that a patient has.

    UIDs are 2.25 with a name-based UUID (PS3.5, B.2; RFC 9562, version 5), which needs no registered root. That of
    the instance is named by model, seed and pixels: the same image gets the same one from whoever makes it, and one
    that came out differently, in another depth or on another machine, another one.

    Source:
        DICOM PS3.3, A.8.1 (Secondary Capture Image IOD), C.12.1 (Synthetic Data).
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    image, mark = sample
    text = json.dumps(mark.entries())
    if len(text) > DICOM_TEXT:
        raise SamganError(
            f"the mark has {len(text)} characters, and DICOM takes {DICOM_TEXT}: shorten the preset's label"
        )
    bits = 8 * image.itemsize
    dataset = Dataset()
    # patient: none
    dataset.PatientName = dataset.PatientID = "SYNTHETIC"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    # study: what one model makes
    dataset.StudyInstanceUID = _uid("study", mark.model_sha256)
    dataset.StudyID = "SYNTHETIC"
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    # series: of it, what one version of this software makes in one depth
    dataset.SeriesInstanceUID = _uid("series", mark.model_sha256, mark.software, str(bits))
    dataset.SeriesNumber = bits
    dataset.SeriesDescription = "SYNTHETIC, not a patient"
    dataset.Modality = "OT"  # other: no device of any modality was there
    dataset.Laterality = ""  # unknown; what is validated asks for it where no body part is named
    # equipment
    dataset.ConversionType = "SYN"  # synthetic image
    dataset.Manufacturer = dataset.ManufacturerModelName = dataset.SecondaryCaptureDeviceManufacturer = "samgan"
    dataset.SoftwareVersions = dataset.SecondaryCaptureDeviceSoftwareVersions = mark.software
    # image
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = _uid("image", mark.model_sha256, str(mark.seed), hash_pixels(image))
    dataset.SyntheticData = "YES"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.InstanceNumber = mark.seed if mark.seed < DICOM_INTEGER else None
    dataset.PatientOrientation = ""
    dataset.DerivationDescription = text
    dataset.ImageComments = SYNTHETIC
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.SamplesPerPixel = len(image)
    dataset.PhotometricInterpretation = "MONOCHROME2" if len(image) == 1 else "RGB"
    if len(image) == 1:  # the whole range: a viewer, or `samgan prepare`, is not to stretch what it finds in it
        dataset.WindowCenter, dataset.WindowWidth = 1 << bits - 1, 1 << bits
    else:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = image.shape[1:]
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    values = np.moveaxis(image, 0, -1)
    dataset.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


def _uid(*names: str) -> str:
    return f"2.25.{uuid.uuid5(UID_NAMESPACE, ' '.join(names)).int}"


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


def _read_dicom(path: Path) -> list[Sample]:
    import pydicom
    from pydicom.pixels import pixel_array

    dataset = pydicom.dcmread(path)
    entries = _json_object(str(dataset.get("DerivationDescription", "")))
    mark = Mark.from_entries({**entries, "Synthetic": "true" if dataset.get("SyntheticData") == "YES" else "no"})
    return [Sample(_channels_first(pixel_array(dataset)), mark)] if mark else []


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


def _json_object(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _channels_first(values: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.atleast_3d(values), -1, 0)
