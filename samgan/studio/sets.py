"""What is in a prepared set: rows of its manifest, counted, and some of its images."""

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from samgan.data.dataset import take
from samgan.data.documents import SPLITS, ManifestRow, SetInfo, read_manifest
from samgan.errors import SamganError, UsageError, one_line
from samgan.grids import image_grid, write_png
from samgan.studio.catalogue import Catalogue

SOURCES_SHOWN = 40
PAIRS_KEPT = 2000
"""Near duplicates of a set that can be looked at, those with something wrong first."""
REAL = "Real images of patients. Share them only as the terms of the data allow."


@dataclass(frozen=True)
class SourceCount:
    """Images of one folder of the source, of one class and one side of the split."""

    folder: str
    class_name: str
    split: str
    images: int


@dataclass(frozen=True)
class Pair:
    """A near duplicate and the earlier image that it is like."""

    image: int
    """Row of the manifest."""
    like: int
    wrong: str
    """What is wrong with the two, in words; empty if nothing is."""
    files: str
    """Both, in words."""


@dataclass(frozen=True, eq=False)
class Contents:
    """The manifest of a set, without its rows."""

    classes: tuple[str, ...]
    class_of: np.ndarray
    """Of each image, its place in `classes`."""
    held_out: np.ndarray
    """Of each image, whether it is held out."""
    sources: tuple[SourceCount, ...]
    """The largest first."""
    more_sources: int
    """How many are left out of `sources`."""
    pairs: tuple[Pair, ...]
    """Near duplicates, those with something wrong first; `PAIRS_KEPT` at most."""
    near_duplicates: int
    """How many there are."""
    wrong_pairs: int
    """Near duplicates of another class or on the other side of the split."""
    row_of: dict[str, int]
    """Rows of the files that dataset.json names as contradictions or examples of leaks, if they are in the set."""

    def indices(self, class_name: str, split: str) -> np.ndarray:
        """Indices of images; empty text stands for all classes, or both sides of the split.

        Raises:
            UsageError: There is no such class or side.
        """
        if class_name not in ("", *self.classes) or split not in ("", *SPLITS):
            raise UsageError("this set has no such class, or no such side of the split")
        chosen = np.ones(len(self.class_of), dtype=bool)
        if class_name:
            chosen &= self.class_of == self.classes.index(class_name)
        if split:
            chosen &= self.held_out == (split == "holdout")
        return np.flatnonzero(chosen)


@dataclass(frozen=True)
class Contradicted:
    """A picture, or near duplicates, in more than one class."""

    files: tuple[tuple[str, str], ...]
    """Each with its class."""
    exact: bool
    """Whether the pixels are the same."""
    rows: tuple[int, int] | None
    """Of two of its images that have different classes; None if they are not in the set."""


def contradicted(info: SetInfo, contents: Contents | None) -> list[Contradicted]:
    """All contradictions of a set, exact ones first."""
    rows = contents.row_of if contents else {}
    kinds = ((info.contradictions or (), True), (info.near_contradictions or (), False))
    every = []
    for found, exact in ((found, exact) for kind, exact in kinds for found in kind):
        first_of: dict[str, int] = {}
        files = tuple(zip(found.files, found.classes, strict=False))
        for file, name in files:
            if file in rows:
                first_of.setdefault(name, rows[file])
        one, other = [*first_of.values(), None, None][:2]
        every.append(Contradicted(files, exact, None if one is None or other is None else (one, other)))
    return every


def read_contents(folder: Path, info: SetInfo) -> Contents:
    """Read the manifest of a set.

    Raises:
        SamganError: It is missing or damaged.
    """
    try:
        rows = read_manifest(folder / "manifest.csv", info.classes)
    except (OSError, ValueError) as error:
        raise SamganError(f"manifest.csv is damaged: {one_line(error)}") from None
    counted = Counter((row.source.rpartition("/")[0] or ".", row.class_name, row.split) for row in rows)
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    near = [(row, rows[row.near_duplicate_of]) for row in rows if row.near_duplicate_of is not None]
    wrong = [_wrong(*pair) for pair in near]
    order = sorted(range(len(near)), key=lambda place: not wrong[place])[:PAIRS_KEPT]
    # new texts and numbers only: a few objects of the rows that stay would keep the memory of all of them
    numbers = np.array([(image.index, like.index) for image, like in near]).reshape(-1, 2)[order].tolist()
    words = [f"{near[place][0].source} is like {near[place][1].source}" for place in order]
    named = {
        file for found in (*(info.contradictions or ()), *(info.near_contradictions or ())) for file in found.files
    }
    named |= {file for leak in info.leaks or () for example in leak.examples for file in example}
    places = {name: place for place, name in enumerate(info.classes)}
    return Contents(
        classes=info.classes,
        class_of=np.array([places[row.class_name] for row in rows], dtype=np.int32),
        held_out=np.array([row.split == "holdout" for row in rows], dtype=bool),
        sources=tuple(SourceCount(*key, number) for key, number in ordered[:SOURCES_SHOWN]),
        more_sources=max(0, len(ordered) - SOURCES_SHOWN),
        pairs=tuple(
            Pair(image, like, wrong[place], files)
            for place, (image, like), files in zip(order, numbers, words, strict=True)
        ),
        near_duplicates=len(near),
        wrong_pairs=sum(map(bool, wrong)),
        row_of={row.source: row.index for row in rows if row.source in named},
    )


def _wrong(image: ManifestRow, like: ManifestRow) -> str:
    """What is wrong with near duplicates; empty if nothing is."""
    wrong = []
    if image.class_name != like.class_name:
        wrong.append(f"two classes: {image.class_name} and {like.class_name}")
    if image.split != like.split:
        wrong.append("on both sides of the split")
    return "; ".join(wrong)


def contents_of(catalogue: Catalogue, place: str, info: SetInfo) -> Contents:
    """What is in a set below the root, remembered until it changes.

    Raises:
        SamganError: The manifest is missing or damaged.
    """
    folder = catalogue.root.find(place)
    try:
        return catalogue.remembered(
            folder / "manifest.csv", f"contents {info.sha256}", lambda: read_contents(folder, info)
        )
    except FileNotFoundError:
        raise SamganError("manifest.csv is missing: prepare the set again") from None


def choose(indices: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` of the indices, at random."""
    return np.random.default_rng(seed).permutation(indices)[:count]


def image_of(folder: Path, info: SetInfo, row: int) -> bytes:
    """One image of a set; as `sheet`."""
    return sheet(folder, info, np.array([row]), 1)


def sheet(folder: Path, info: SetInfo, indices: np.ndarray, columns: int) -> bytes:
    """Some images of a set as a grid, in a PNG file that says whose pictures they are.

    Raises:
        SamganError: The images are missing or damaged, or there is no image with such an index.
    """
    file = io.BytesIO()
    write_png(file, image_grid(images_of(folder, info, indices), columns), {"Description": REAL})
    return file.getvalue()


def images_of(folder: Path, info: SetInfo, indices: np.ndarray) -> UInt8[np.ndarray, "n c h w"]:
    """Some images of a set.

    Raises:
        UsageError: There is no image with such an index.
        SamganError: The images are missing or damaged.
    """
    try:
        images = np.lib.format.open_memmap(folder / "images.npy", mode="r")
        if images.shape != (info.images, info.channels, info.resolution, info.resolution) or images.dtype != np.uint8:
            raise ValueError(f"expected {info.images} images of {info.resolution} px, found {images.shape}")
        return take(images, indices)
    except IndexError:
        raise UsageError("there is no image with this number in the set") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise SamganError(f"images.npy is damaged: {one_line(error)}") from None
