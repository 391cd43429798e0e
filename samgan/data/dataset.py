"""Open a prepared set."""

import csv
import hashlib
import json
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from samgan.data.curation import connected_groups
from samgan.errors import SamganError, UsageError, one_line

FORMAT = 1
COLUMNS = ("index", "source", "sha256", "width", "height", "bits", "class", "patient", "split", "near_duplicate_of")
SPLITS = ("train", "holdout")
KEYS: dict[str, Any] = {
    **{"images": int, "channels": int, "resolution": int, "classes": [str], "counts": {str: {str: int}}},
    **{"split_by": str, "sha256": str, "source": str, "fingerprint": str},
}
"""What dataset.json must hold for the set to be used, and of which type."""


@dataclass(frozen=True, kw_only=True)
class DataUsed:
    """What documents tell of the prepared set that something was done with."""

    name: str
    """Of its folder."""
    sha256: str
    classes: tuple[str, ...] = ()
    """Those that were used."""
    split: str | None = None
    """"train", "holdout" or "all"."""
    split_by: str | None = None
    """What the set was split by: "patient", "image", ..."""


@dataclass(frozen=True, eq=False)
class PreparedSet:
    """A folder that `samgan prepare` finished: images.npy, manifest.csv and dataset.json, which marks it complete."""

    path: Path
    info: dict[str, Any]
    """dataset.json."""
    images: np.ndarray
    """UInt8 [n, c, h, w], memory-mapped, read only."""
    manifest: list[dict[str, str]]
    """One row of manifest.csv per image, in the same order."""

    @classmethod
    def open(cls, path: str | Path) -> "PreparedSet":
        """Open a prepared set without reading its images.

        Raises:
            SamganError: no prepared set, an unfinished one, another format, or files that do not belong together.
        """
        path = Path(path)
        try:
            info = json.loads((path / "dataset.json").read_bytes())
        except FileNotFoundError:
            raise SamganError(f"{path} is not a finished prepared set (no dataset.json): run samgan prepare") from None
        except (OSError, ValueError) as error:
            raise SamganError(f"{path}/dataset.json cannot be read: {error}") from None
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            found = info.get("format") if isinstance(info, dict) else type(info).__name__
            raise SamganError(f"{path}: expected a prepared set of format {FORMAT}, found {found!r}: prepare it again")
        try:
            wrong = [name for name, kind in KEYS.items() if not _is_of(info.get(name), kind)]
            if wrong:
                raise ValueError(f"dataset.json has no usable {', '.join(wrong)}")
            images = np.lib.format.open_memmap(path / "images.npy", mode="r")  # np.load takes an .npz too
            with open(path / "manifest.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
                manifest = list(csv.DictReader(file))
            expected = (info["images"], info["channels"], info["resolution"], info["resolution"])
        except (OSError, ValueError, tokenize.TokenError, csv.Error) as error:  # TokenError: of a damaged header
            raise SamganError(f"{path} is damaged: {one_line(error)}: prepare it again") from None
        if images.shape != expected or images.dtype != np.uint8 or len(manifest) != len(images):
            raise SamganError(
                f"{path} is damaged: dataset.json says {list(expected)} uint8, images.npy holds {list(images.shape)} "
                f"{images.dtype}, manifest.csv {len(manifest)} rows: prepare it again"
            )
        if manifest and not set(COLUMNS) <= set(manifest[0]):
            lacking = ", ".join(sorted(set(COLUMNS) - set(manifest[0])))
            raise SamganError(f"{path} is damaged: manifest.csv lacks {lacking}: prepare it again")
        return cls(path, info, images, manifest)

    def verify(self) -> None:
        """Read images.npy and manifest.csv through and compare them with the hash in dataset.json.

        Raises:
            SamganError: they are not what was prepared, or cannot be read.
        """
        try:
            found = content_sha256(self.path)
        except OSError as error:
            raise SamganError(f"{self.path} is damaged: {error}: prepare it again") from None
        if found != self.sha256:
            raise SamganError(
                f"{self.path} is damaged: expected SHA-256 {self.sha256[:12]}, found {found[:12]}: prepare it again"
            )

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return int(self.info["resolution"])

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (colour)."""
        return int(self.info["channels"])

    @property
    def classes(self) -> list[str]:
        """Class names, sorted."""
        return list(self.info["classes"])

    @property
    def sha256(self) -> str:
        """Hash of images.npy followed by manifest.csv."""
        return str(self.info["sha256"])

    def used(self, classes: Sequence[str] = (), split: str | None = None) -> DataUsed:
        """What documents tell of this set, of which `classes` (default: all) of `split` were used."""
        return DataUsed(
            name=self.path.resolve().name,
            sha256=self.sha256,
            classes=tuple(classes or self.classes),
            split=split,
            split_by=self.info["split_by"],
        )

    def indices(self, split: str | None = "train", classes: Sequence[str] = ()) -> Int[np.ndarray, " n"]:
        """Return the positions of one split's images, ascending.

        Args:
            split: "train", "holdout", or None for both.
            classes: class names to take; empty for all.

        Raises:
            UsageError: an unknown split or class.
        """
        if split is not None and split not in SPLITS:
            raise UsageError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
        unknown = sorted(set(classes) - set(self.classes))
        if unknown:
            raise UsageError(f"unknown class {', '.join(unknown)}: {self.path} has {', '.join(self.classes)}")
        return np.array(
            [
                index
                for index, row in enumerate(self.manifest)
                if split in (None, row["split"]) and (not classes or row["class"] in classes)
            ],
            dtype=np.int64,
        )

    def labels(self, classes: Sequence[str]) -> Int[np.ndarray, " n"]:
        """Return the place of each image's class in `classes`, from 0; -1 for images of other classes."""
        places = {name: label for label, name in enumerate(classes)}
        return np.array([places.get(row["class"], -1) for row in self.manifest], dtype=np.int64)

    def groups(self, indices: Sequence[int] | Int[np.ndarray, " n"]) -> list[str]:
        """Whom images show, one name each: the patient; patients who share a near duplicate have one name."""
        near = ((row["near_duplicate_of"], index) for index, row in enumerate(self.manifest))
        patients = [row["patient"] for row in self.manifest]
        group = connected_groups(patients, [(int(first), index) for first, index in near if first])
        return [patients[group[index]] for index in indices]

    def select(self, split: str | None = "train", classes: Sequence[str] = ()) -> UInt8[np.ndarray, "n c h w"]:
        """Copy one split's images into memory; arguments as for `indices`."""
        return np.asarray(self.images[self.indices(split, classes)])


def content_sha256(folder: Path) -> str:
    """Hash images.npy followed by manifest.csv, in hexadecimal."""
    digest = hashlib.sha256()
    for name in ("images.npy", "manifest.csv"):
        with open(folder / name, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _is_of(value: Any, kind: Any) -> bool:
    """Tell whether a JSON value is of a type: int, [int] (a list of such) or {str: int} (a dictionary of such)."""
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is_of(item, kind[0]) for item in value)
    if isinstance(kind, dict):
        return isinstance(value, dict) and all(_is_of(item, kind[str]) for item in value.values())
    return type(value) is kind  # True is an int by isinstance
