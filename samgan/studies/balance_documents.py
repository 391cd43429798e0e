"""The documents of `samgan balance`: what was planned, trained, screened and found."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from samgan.data import DataUsed
from samgan.documents import Document, explain
from samgan.errors import SamganError
from samgan.runs import Start
from samgan.scoring import Scores
from samgan.trust import AuditDocument, ScreenedClass
from samgan.trust.documents import SkippedPart
from samgan.trust.utility_document import ClassImages, UtilityDocument

METHODS = ("joint", "per-class", "fine-tuned")
"""How the models of a balanced set are trained; `BalanceRequest.method` says what each means."""
NAMES = "surrogateescape"  # files may have names that are not UTF-8


@dataclass(frozen=True)
class ClassPlan:
    """Training images of a class: how many there are, and how many to make."""

    real: int
    missing: int


@dataclass(frozen=True)
class UtilityPlan:
    """How the test of utility is done; with 0 seeds it is left out."""

    seeds: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Plan(Document):
    """plan.json: what is made, and how. A later call with the same folder must ask for the same."""

    KIND: ClassVar[str] = "a plan"
    MADE_BY: ClassVar[str] = "samgan balance, in a new folder"

    samgan: str
    data: DataUsed
    target: str
    classes: dict[str, ClassPlan]
    method: str
    runs: dict[str, str]
    """Models that were given: by class, or under "" for all classes. Empty if models are trained."""
    minutes: float
    config: dict[str, Any]
    features: str | None
    """None: there are none for such images."""
    confidence: float
    file_format: str
    originals: str | None
    copies: bool
    utility: UtilityPlan

    @property
    def missing(self) -> dict[str, int]:
        """Number of images to make, by class; only classes that lack some."""
        return {name: counts.missing for name, counts in self.classes.items() if counts.missing}

    def to_give_away(self) -> dict[str, Any]:
        """The plan with only the names of folders, not their paths on this machine."""
        return self.to_dict() | {
            "runs": {name: Path(path).name for name, path in self.runs.items()},
            "features": name_of(self.features),
            "originals": name_of(self.originals),
        }


def name_of(path: str | None) -> str | None:
    """The last part of a path."""
    return Path(path).name if path else None


@dataclass(frozen=True)
class TrainedModel:
    """The model that makes images of a class."""

    path: str
    """Relative to the folder of the study; of a given model, as it was given."""
    given: bool
    sha256: str
    """Of its weights."""
    notes: tuple[str, ...]
    """What is not known about its origin."""
    start: Start | None = None
    """The run whose networks its training began with, if a study recorded it."""


@dataclass(frozen=True, kw_only=True)
class TrainingDocument(Document):
    """training.json: the models, by class."""

    KIND: ClassVar[str] = "a list of models"
    MADE_BY: ClassVar[str] = "samgan balance, after removing it"

    models: dict[str, TrainedModel]

    @classmethod
    def upgrade(cls, tree: dict[str, Any], schema: int) -> dict[str, Any]:
        """Before there were schema numbers, the document was the models themselves."""
        return {"models": tree}


@dataclass(frozen=True, kw_only=True)
class BalanceDocument(Document):
    """balance.json: everything that was found."""

    KIND: ClassVar[str] = "the record of a balanced set"
    MADE_BY: ClassVar[str] = "samgan balance"

    plan: Plan
    training: dict[str, TrainedModel]
    scores: dict[str, Scores | None]
    screening: dict[str, ScreenedClass]
    audit: dict[str, AuditDocument | None]
    utility: UtilityDocument | None
    skipped: tuple[SkippedPart, ...]
    counts: dict[str, ClassImages]
    against_all: Scores | None = None
    """Scores against all images of the class, if a study computed them."""

    @classmethod
    def upgrade(cls, tree: dict[str, Any], schema: int) -> dict[str, Any]:
        """Before there were schema numbers, a part that was left out was an empty object."""
        tree["scores"] = {name: Scores.upgrade(dict(own), 0) if own else None for name, own in tree["scores"].items()}
        tree["audit"] = {
            name: AuditDocument.upgrade(dict(own), 0) if own else None for name, own in tree["audit"].items()
        }
        tree["utility"] = UtilityDocument.upgrade(dict(tree["utility"]), 0) if tree["utility"] else None
        if tree.get("against_all"):
            tree["against_all"] = Scores.upgrade(dict(tree["against_all"]), 0)
        return tree


@dataclass(frozen=True)
class Candidate:
    """A row of screening.csv: one image that was made, and the reason if it was left out."""

    class_name: str = field(metadata={"column": "class"})
    seed: int
    reason: str
    """Empty for an image that was kept."""
    nearest_training_image: str
    distance_pixels: float
    distance_features: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class SetImage:
    """A row of the set's manifest; fields that do not apply to an image are empty."""

    file: str
    split: str
    class_name: str = field(metadata={"column": "class"})
    origin: str
    """"real" or "synthetic"."""
    patient: str = ""
    source: str = ""
    source_sha256: str = ""
    seed: int | None = None
    model_sha256: str = ""
    nearest_training_image: str = ""
    distance_pixels: float | None = None
    distance_features: float | None = None
    confidence: float | None = None


def columns(kind: type[Candidate] | type[SetImage]) -> dict[str, str]:
    """The columns of a file, each with the name of its field."""
    return {own.metadata.get("column", own.name): own.name for own in fields(kind)}


def as_row(record: Candidate | SetImage) -> dict[str, str]:
    """A record as text by column: distances and probabilities with four decimals, empty if they do not apply."""

    def text(value: object) -> str:
        return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    return {column: text(getattr(record, name)) for column, name in columns(type(record)).items()}


def format_csv(kind: type[Candidate] | type[SetImage], records: Sequence[Candidate | SetImage]) -> bytes:
    """Records as CSV with a header."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns(kind)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(as_row, records))
    return file.getvalue().encode("utf-8", NAMES)


def read_candidates(path: Path) -> list[Candidate]:
    """Read screening.csv.

    Raises:
        SamganError: It is missing, or cannot be read because it was edited.
    """
    remedy = "remove it and screening.json, and run the same command again"
    try:
        with open(path, newline="", encoding="utf-8", errors=NAMES) as file:
            rows = list(csv.DictReader(file))
        return [msgspec.convert(_values(row), Candidate, strict=False) for row in rows]
    except (OSError, csv.Error, KeyError, UnicodeError, msgspec.ValidationError) as error:
        told = explain(error) if isinstance(error, msgspec.ValidationError) else str(error)
        reason = f"no column {told}" if isinstance(error, KeyError) else " ".join(told.split())
        raise SamganError(f"{path}: cannot read the list of screened images ({reason}); {remedy}") from None


def _values(row: Mapping[str, str]) -> dict[str, str | None]:
    """Fields of a candidate; an empty cell of an optional number becomes None."""
    optional = ("distance_features", "confidence")
    return {
        name: None if name in optional and not row[column] else row[column]
        for column, name in columns(Candidate).items()
    }
