"""Sound files of every kind that samgan reads or writes, small, made by its own commands and by other libraries."""

import contextlib
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from samgan.commands.main import main
from samgan.data.phantom import write_phantoms

TINY = (
    *("--preset=msg-gan-8", "--scale=cpu", "--network.resolution=32", "--network.max_channels=8"),
    *("--network.num_classes=2", "--network.generator_attention=[8]", "--training.batch_size=4"),
    *("--training.kimg=0.016", "--training.log_every_kimg=0.004", "--training.snapshot_every_kimg=0.008"),
)
BALANCE = "--run other --seeds 0 --target 22"
TABLE2 = "--rows msg-gan-8 --kimg 0.016 --count 8 --features radiograph --network.max_channels=8"
SETTINGS = """network:
  resolution: 32
  max_channels: 16
  generator_attention: [8, 16]
training:
  loss: hinge
  batch_size: 8
  kimg: 1.5
  adam_betas: [0.0, 0.99]
  learning_rate: 3e-4
data:
  flip: random
"""


def make_world(folder: Path) -> None:
    """Write everything into a new folder, and in the file `modules` what was imported for it."""
    folder.mkdir()
    write_phantoms(folder / "images", 40, 32)
    _make_pictures(folder)
    (folder / "settings.yaml").write_text(SETTINGS)
    set_, run = str(folder / "set"), str(folder / "run")
    commands = [
        ["prepare", str(folder / "images"), set_, "--resolution", "32", "--holdout", "0.4", "--workers", "1"],
        ["train", set_, "--out", run, *TINY],
        ["export", run, str(folder / "model.safetensors")],
        *(["sample", run, "--count", "2", "--out", str(folder / name), "--format", name] for name in FORMATS),
        ["sample", run, "--count", "8", "--out", str(folder / "many")],
        ["evaluate", run, "--data", set_, "--split", "all", "--count", "8", "--features", "radiograph"],
        ["audit", run, "--data", set_, "--count", "8", "--no-pictures", "--features", "radiograph"],
        ["card", run, "--data", set_],
        ["publish", run, str(folder / "published"), "--draft"],
        ["subset", set_, str(folder / "lacking"), "--images", "NORMAL=21"],
        ["train", str(folder / "lacking"), "--out", str(folder / "other"), *TINY],
        ["balance", "lacking", "balanced", *BALANCE.split()],
        ["table2", set_, "--out", str(folder / "table"), *TABLE2.split()],
    ]
    os.chdir(folder)  # a study keeps the path of a model as it was given
    for words in commands:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            status = main(words)
        if status:
            raise RuntimeError(f"{words} ended with status {status}: {said.getvalue()}")
    (folder / "modules").write_text("\n".join(sys.modules))


FORMATS = ("png", "png16", "npz", "dicom", "medmnist", "imagefolder")


def _make_pictures(folder: Path) -> None:
    """One radiograph in every format that samgan reads; a table of labels, a .zip and an .npz of all."""
    (folder / "pictures").mkdir()
    files = sorted((folder / "images").glob("*/*.png"))
    with Image.open(files[0]) as opened:
        grey = opened.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 16)
    encoded = {
        "grey.png": (grey, {}),
        "deep.png": (deep, {}),
        "colour.png": (grey.convert("RGB"), {}),
        "palette.png": (grey.convert("P"), {}),
        "alpha.png": (grey.convert("LA"), {}),
        "grey.jpg": (grey, {"quality": 90}),
        "progressive.jpg": (grey.convert("RGB"), {"progressive": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08" + bytes(8)}),
        "grey.tif": (grey, {}),
        "packed.tif": (grey, {"compression": "tiff_lzw"}),
        "deep.tif": (deep, {}),
        "grey.bmp": (grey, {}),
        "grey.webp": (grey.convert("RGB"), {"lossless": True}),
    }
    for name, (image, options) in encoded.items():
        image.save(folder / "pictures" / name, **options)
    values = np.asarray(grey).astype(np.uint16) * 16
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless):
        _write_dicom(folder / "pictures" / f"{syntax.name.split()[0].lower()}.dcm", values, syntax)
    shutil.make_archive(str(folder / "pictures/set"), "zip", folder, "images")
    pixels = np.stack([np.asarray(Image.open(file).convert("L")) for file in files[:8]])
    labels = np.arange(8, dtype=np.uint8)[:, None] % 2
    np.savez(folder / "pictures/set.npz", train_images=pixels, train_labels=labels)
    rows = [
        f"{file.name},{file.parent.name},p{number},{'PA' if number % 3 else 'AP'}" for number, file in enumerate(files)
    ]
    (folder / "labels.csv").write_text("\n".join(["Image Index,Finding Labels,Patient ID,View Position", *rows]) + "\n")


def _write_dicom(path: Path, values: np.ndarray, syntax: pydicom.uid.UID) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    packed = syntax == RLELossless
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if packed else syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME1"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PatientID, dataset.StudyInstanceUID, dataset.ViewPosition = "p1", "1.2.4", "PA"
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.WindowCenter, dataset.WindowWidth = [2048, 1000], [4096, 2000]
    dataset.PixelData = values.tobytes()
    if packed:
        dataset.compress(RLELossless)
    dataset.save_as(path, enforce_file_format=True)
