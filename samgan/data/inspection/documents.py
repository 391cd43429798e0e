"""What `samgan inspect` finds in a prepared set."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from samgan.data.documents import DataUsed, Leak, LeftOut
from samgan.documents import Document

TELLS = 0.65
"""A fact tells a class if the interval of its AUC lies above this."""


@dataclass(frozen=True)
class Fact:
    """A number that every image has and that says nothing of a disease by itself."""

    name: str
    unit: str
    about: str
    """What differs if this differs, such as the detector."""


FACTS = {
    "brightness": Fact("brightness", "mean of the prepared image, 0..255", "exposure, display window or padding"),
    "contrast": Fact("contrast", "standard deviation of the prepared image", "exposure, display window or processing"),
    "sharpness": Fact("sharpness", "mean difference of neighbours, 0..255", "original size, compression or processing"),
    "black": Fact("black pixels", "share of the prepared image", "collimation, borders or padding"),
    "white": Fact("white pixels", "share of the prepared image", "burned-in letters, saturation or borders"),
    "width": Fact("width", "pixels of the original", "machine, hospital or how the files were exported"),
    "height": Fact("height", "pixels of the original", "machine, hospital or how the files were exported"),
    "shape": Fact("shape", "width / height of the original", "collimation, cropping or how the files were exported"),
    "bits": Fact("bit depth", "bits of the original", "machine or how the files were exported"),
}
"""By key. The first five are measured in the prepared image, the others come from the manifest."""


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """How a fact is distributed in one class."""

    low: float
    """5 % of the images are below."""
    median: float
    high: float
    """5 % of the images are above."""


@dataclass(frozen=True, kw_only=True)
class Telling:
    """How well one fact tells one class from all others."""

    fact: str
    class_name: str
    auc: float
    """Area under the ROC curve: 0.5 if it tells nothing, 1 if the class has all large or all small values."""
    low: float
    """Bounds of the 95 % interval; images of a patient are taken together."""
    high: float
    tells: bool
    """Whether the interval lies above `TELLS`."""


@dataclass(frozen=True, kw_only=True)
class SourceCount:
    """How many images of one class and split come from one place, in one kind of file."""

    folder: str
    """The first folder of the files' paths that is not the class; empty if there is none."""
    kind: str
    """Suffix and bit depth, such as ".png, 16 bits"."""
    class_name: str
    split: str
    images: int


@dataclass(frozen=True, kw_only=True)
class NearPair:
    """An image and an earlier one that it is like; rows of the manifest."""

    index: int
    like: int
    same_class: bool
    same_split: bool


@dataclass(frozen=True, kw_only=True)
class InspectionDocument(Document):
    """What `samgan inspect` finds in a prepared set."""

    KIND: ClassVar[str] = "an inspection"
    MADE_BY: ClassVar[str] = "samgan inspect"

    data: DataUsed
    source: str
    images: int
    resolution: int
    counts: dict[str, dict[str, int]]
    """Number of images by class, then by split."""
    patients: dict[str, dict[str, int]]
    """Number of patients by class, then by split."""
    sources: tuple[SourceCount, ...]
    facts: dict[str, dict[str, Quantiles]]
    """By fact (a key of `FACTS`), then by class."""
    tellings: tuple[Telling, ...]
    """For each fact, of the class that it tells best; the most telling fact first."""
    near_pairs: tuple[NearPair, ...]
    left_out: LeftOut
    notes: dict[str, int]
    """What was passed over in the files' metadata, with the number of images."""
    warnings: tuple[str, ...]
    """What `samgan prepare` decided or found wrong."""
    leaks: tuple[Leak, ...]
    """What is on both sides of the split."""


Values = dict[str, Float[np.ndarray, " n"]]
"""For each key of `FACTS`, a number of every image."""
