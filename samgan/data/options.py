"""The options of `prepare`: one record, checked once."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from samgan.data.curation import patients_from_names
from samgan.data.fit import FITS, NORMALIZERS
from samgan.errors import UsageError
from samgan.seeds import check_seed

ALGORITHM = 6
"""Increased whenever the same files and options would give other pixels or another manifest."""
RESOLUTIONS = tuple(2**power for power in range(3, 11))
DUPLICATES = ("drop", "keep")
BITS = range(8, 17)
"""Bit depths that may be declared."""
CLASSES_FROM = ("folder", "none", "labels")
"""What `prepare` may be told to take the classes from."""
SEVERAL = ("only-single", "first")
UNCERTAIN = ("drop", "positive", "negative")
CHOICES: dict[str, tuple[Any, ...]] = {
    "resolution": RESOLUTIONS,
    "channels": (1, 3),
    "fit": FITS,
    "normalize": tuple(NORMALIZERS),
    "duplicates": DUPLICATES,
    "classes_from": (None, *CLASSES_FROM),
}
"""What options of `PrepareOptions` may be, where that is one of a few."""
HELP = {
    "resolution": "side in pixels",
    "channels": "1 (grey) or 3 (colour)",
    "fit": "how an image becomes square: its centre, black bars, or other proportions",
    "normalize": "contrast of each image: as it is, 0.5 to 99.5 % of its values, or adaptive histogram equalisation",
    "bits": "bit depth of 16-bit grey PNG and TIFF and of arrays, which do not declare it (default: the smallest that "
    "holds the largest value of the source)",
    "duplicates": "what to do with exact duplicates, and with a picture that lies in several classes",
    "holdout": "share of the images of each class to hold out; all images of a patient stay together",
    "patient_regex": "the first group that matches is the patient's name in a file's path (default: folders or a label "
    "table that name patients, the PatientID of DICOM, or file names like those of the sets of Kermany and the NIH)",
    "max_bad": "largest share of unreadable files; with more of them, nothing is written",
    "classes_from": "take each folder as a class, all images as one class, or the classes of a table; default: the "
    "folders, unless they look like patients, splits, masks or something else",
    "seed": "seed of the split into training and held-out images",
    "allow_synthetic": "take images that say that they show no patient, as training images; otherwise they are "
    "an error",
}
"""What each option of `PrepareOptions` but the tables is, for a command and for a form."""


class PixelOptions(NamedTuple):
    """The options that determine an image's pixels. Finished chunks made with the same values can be used again."""

    resolution: int
    channels: int
    fit: str
    normalize: str
    bits: int | None = None


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Tables that tell what each image shows, and how to read them.

    A column that is not named is guessed from the header; "none" stands for no column. A name holds for all tables that
    have such a column. Each guess is one of `Source.warnings`.
    """

    files: tuple[str, ...]
    """Paths of the tables; in a prepared set's documents, their names without folders."""
    image_column: str | None = None
    """File name, path or identifier of the image."""
    label_columns: tuple[str, ...] = ()
    """One column of labels, or columns with 1, 0, -1 (uncertain) or nothing, each named after a finding."""
    patient_column: str | None = None
    split_column: str | None = None
    view_column: str | None = None
    views: tuple[str, ...] = ()
    """The views that stay, such as PA and AP; empty: all."""
    several: str = "only-single"
    """Images with several labels: "only-single" leaves them out, "first" takes the label named first."""
    uncertain: str = "drop"
    """Images with an uncertain label (-1): "drop" leaves them out, "positive" reads it as 1, "negative" as 0."""
    sha256: tuple[str, ...] = ()
    """Hash of each table; `prepare` fills it in."""

    def check(self) -> None:
        """Raise UsageError for the first option that is out of range."""
        if not self.files:
            raise UsageError("labels: expected one table or more, found none")
        for name, values in (("several", SEVERAL), ("uncertain", UNCERTAIN)):
            value = getattr(self, name)
            if value not in values:
                raise UsageError(f"--{name} {value!r}: expected one of {', '.join(values)}")


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """The options that determine a prepared set; `prepare` describes each."""

    resolution: int = 64
    channels: int = 1
    fit: str = "crop"
    normalize: str = "none"
    bits: int | None = None
    duplicates: str = "drop"
    holdout: float = 0.2
    patient_regex: str | None = None
    max_bad: float = 0.01
    classes_from: str | None = None
    seed: int = 0
    allow_synthetic: bool = False
    labels: LabelOptions | None = None

    @property
    def pixels(self) -> PixelOptions:
        """The options that determine an image's pixels."""
        return PixelOptions(self.resolution, self.channels, self.fit, self.normalize, self.bits)

    def check(self) -> None:
        """Raise UsageError for the first option that is out of range."""
        for name, values in CHOICES.items():
            value = getattr(self, name)
            if value not in values:
                option, allowed = name.replace("_", "-"), ", ".join(str(each) for each in values if each is not None)
                raise UsageError(f"--{option} {value!r}: expected one of {allowed}")
        if self.bits is not None and self.bits not in BITS:
            raise UsageError(f"--bits {self.bits!r}: expected a whole number from {BITS[0]} to {BITS[-1]}")
        if not 0 <= self.holdout < 1:
            raise UsageError(f"--holdout {self.holdout}: expected a number from 0 to below 1, such as 0.2")
        if not 0 <= self.max_bad <= 1:
            raise UsageError(f"--max-bad {self.max_bad}: expected a share from 0 to 1, such as 0.05")
        check_seed(self.seed)
        patients_from_names([], self.patient_regex)
        if self.labels is not None:
            self.labels.check()
            if self.classes_from not in (None, "labels"):
                raise UsageError(
                    f"--classes-from {self.classes_from}: tables of labels were given, which tell the classes"
                )
        elif self.classes_from == "labels":
            raise UsageError("--classes-from labels: expected a table of labels, found none; give --labels FILE")
