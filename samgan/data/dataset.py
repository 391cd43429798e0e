"""Open a prepared set."""

import hashlib
import math
import mmap
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from samgan.data.curation import connected_groups
from samgan.data.documents import REMEDY, SPLITS, DataUsed, ManifestRow, SetInfo, read_manifest
from samgan.data.room import require_memory
from samgan.errors import SamganError, UsageError, one_line

READ_AT_ONCE = 1 << 26
"""Bytes of a memory map that a process holds in addition to what it has copied from there."""
ASK_FROM = 1 << 28
"""Bytes of images from which on it is asked whether memory is free for them."""


def check_prepared(data: object) -> None:
    """Refuse what is no prepared set in a function that a user calls, who may have given the path of one."""
    if not isinstance(data, PreparedSet):
        raise UsageError(f"data: expected a prepared set, found {data!r}; open it with samgan.PreparedSet.open")


@dataclass(frozen=True, eq=False)
class PreparedSet:
    """A folder that `samgan prepare` finished: images.npy, manifest.csv and dataset.json, which marks it complete."""

    path: Path
    info: SetInfo
    """The content of dataset.json."""
    images: np.ndarray
    """UInt8 [n, c, h, w], memory-mapped, read-only."""
    manifest: list[ManifestRow]
    """One row per image, in the same order."""

    @classmethod
    def open(cls, path: str | Path) -> "PreparedSet":
        """Open a prepared set without reading its images.

        Raises:
            SamganError: no prepared set, an unfinished one, another format, or files that do not belong together.
        """
        path = Path(path)
        info = SetInfo.read(path)
        try:
            images = np.lib.format.open_memmap(path / "images.npy", mode="r")  # np.load would accept an .npz too
            manifest = read_manifest(path / "manifest.csv", info.classes)
        except (OSError, OverflowError, ValueError, tokenize.TokenError) as error:  # the second and last: its header
            raise SamganError(f"{path} is damaged: {one_line(error)}: {REMEDY}") from None
        expected = (info.images, info.channels, info.resolution, info.resolution)
        if images.shape != expected or images.dtype != np.uint8 or len(manifest) != len(images):
            raise SamganError(
                f"{path} is damaged: dataset.json says {list(expected)} uint8, images.npy holds {list(images.shape)} "
                f"{images.dtype}, manifest.csv has {len(manifest)} rows: {REMEDY}"
            )
        return cls(path, info, images, manifest)

    def verify(self) -> None:
        """Hash images.npy and manifest.csv, and compare the result with the hash in dataset.json.

        Raises:
            SamganError: they have changed since they were written, or cannot be read.
        """
        try:
            found = content_sha256(self.path)
        except OSError as error:
            raise SamganError(f"{self.path} is damaged: {error}: {REMEDY}") from None
        if found != self.sha256:
            raise SamganError(
                f"{self.path} is damaged: expected SHA-256 {self.sha256[:12]}, found {found[:12]}: {REMEDY}"
            )

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return self.info.resolution

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (colour)."""
        return self.info.channels

    @property
    def classes(self) -> list[str]:
        """Class names, sorted."""
        return list(self.info.classes)

    @property
    def sha256(self) -> str:
        """Hash of images.npy followed by manifest.csv."""
        return self.info.sha256

    def used(self, classes: Sequence[str] = (), split: str | None = None) -> DataUsed:
        """Return what documents say about this set when `classes` (default: all) of `split` were used."""
        return DataUsed(
            name=self.path.resolve().name,
            sha256=self.sha256,
            classes=tuple(classes or self.classes),
            split=split,
            split_by=self.info.split_by,
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
                if split in (None, row.split) and (not classes or row.class_name in classes)
            ],
            dtype=np.int64,
        )

    def labels(self, classes: Sequence[str]) -> Int[np.ndarray, " n"]:
        """Return the position of each image's class in `classes`, from 0; -1 for images of other classes."""
        places = {name: label for label, name in enumerate(classes)}
        return np.array([places.get(row.class_name, -1) for row in self.manifest], dtype=np.int64)

    def groups(self, indices: Sequence[int] | Int[np.ndarray, " n"]) -> list[str]:
        """Return the patient that each image shows. Patients who share a near duplicate get the same name."""
        patients = [row.patient for row in self.manifest]
        near = [(row.near_duplicate_of, index) for index, row in enumerate(self.manifest)]
        group = connected_groups(patients, [(first, index) for first, index in near if first is not None])
        return [patients[group[index]] for index in indices]

    def select(self, split: str | None = "train", classes: Sequence[str] = ()) -> UInt8[np.ndarray, "n c h w"]:
        """Copy one split's images into memory; arguments as for `indices`."""
        return self.take(self.indices(split, classes))

    def take(self, indices: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n c h w"]:
        """Copy some images into memory.

        Raises:
            SamganError: they do not fit into it.
        """
        needed = len(indices) * math.prod(self.images.shape[1:])
        if needed >= ASK_FROM:
            what = f"{len(indices):,} images of {self.resolution} px from {self.path}"
            require_memory(needed, what, "choose fewer with samgan subset, or prepare with a smaller --resolution")
        return take(self.images, indices)


def take(images: UInt8[np.ndarray, "m c h w"], indices: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n c h w"]:
    """Copy some images into memory.

    Of a memory map, the pages that were read for it are given back, so that a process does not seem to grow by all that
    it has ever read. The system keeps them for the next reader as long as it has room.
    """
    taken = np.empty((len(indices), *images.shape[1:]), images.dtype)
    mapped = images.base if isinstance(images, np.memmap) else None
    at_once = max(1, READ_AT_ONCE // max(1, taken[:1].nbytes))
    for start in range(0, len(indices), at_once):
        part = slice(start, start + at_once)
        taken[part] = images[indices[part]]
        if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)
    return taken


def content_sha256(folder: Path) -> str:
    """Return the SHA-256 of images.npy followed by manifest.csv, in hexadecimal."""
    digest = hashlib.sha256()
    for name in ("images.npy", "manifest.csv"):
        with open(folder / name, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
