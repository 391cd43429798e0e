"""Open a prepared set."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from samgan.errors import SamganError, UsageError

FORMAT = 1
COLUMNS = ("index", "source", "sha256", "width", "height", "bits", "class", "patient", "split", "near_duplicate_of")
SPLITS = ("train", "holdout")


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
            images = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
            with open(path / "manifest.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
                manifest = list(csv.DictReader(file))
            expected = (info["images"], info["channels"], info["resolution"], info["resolution"])
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise SamganError(f"{path} is damaged: {type(error).__name__}: {error}: prepare it again") from None
        if images.shape != expected or images.dtype != np.uint8 or len(manifest) != len(images):
            raise SamganError(
                f"{path} is damaged: dataset.json says {list(expected)} uint8, images.npy holds {list(images.shape)} "
                f"{images.dtype}, manifest.csv {len(manifest)} rows: prepare it again"
            )
        if manifest and not set(COLUMNS) <= set(manifest[0]):
            raise SamganError(f"{path} is damaged: manifest.csv lacks {sorted(set(COLUMNS) - set(manifest[0]))}")
        return cls(path, info, images, manifest)

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

    def select(self, split: str | None = "train", classes: Sequence[str] = ()) -> UInt8[np.ndarray, "n c h w"]:
        """Copy one split's images into memory; arguments as for `indices`."""
        return np.asarray(self.images[self.indices(split, classes)])
