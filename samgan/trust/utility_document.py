"""utility.json: whether synthetic images help a classifier, measured on held-out patients."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from samgan.data import DataUsed
from samgan.documents import Document

HELPS, HARMS, UNDECIDED = "helps", "harms", "no difference shown"
Word = Literal["helps", "harms", "no difference shown"]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmScores:
    """Scores of the classifiers of one arm."""

    seeds: tuple[dict[str, float], ...]
    """Of every seed, by score."""
    mean: dict[str, float]
    deviation: dict[str, float]
    """Standard deviation over seeds."""


@dataclass(frozen=True)
class Difference:
    """An arm with synthetic images minus a classical one."""

    arm: str
    against: str
    scores: dict[str, Interval]


@dataclass(frozen=True)
class Chosen:
    """A pair of arms that was measured, and how often."""

    synthetic: str
    classical: str
    times: int


@dataclass(frozen=True)
class Decision:
    """The best use of synthetic images minus the best arm without them, chosen and measured on different patients."""

    chosen: tuple[Chosen, ...]
    mean: float
    low: float
    high: float
    verdict: Word


@dataclass(frozen=True)
class ClassImages:
    """Training images of a class."""

    real: int
    synthetic: int


@dataclass(frozen=True)
class HeldOut:
    """What was tested on."""

    images: int
    patients: int


@dataclass(frozen=True, kw_only=True)
class UtilityDocument(Document):
    """Scores of every arm and seed, what they differ by, and the verdict on synthetic images."""

    KIND: ClassVar[str] = "a test of utility"
    MADE_BY: ClassVar[str] = "samgan utility"

    samgan: str = ""
    data: DataUsed
    classes: dict[str, ClassImages]
    smallest: str
    """The class with the fewest real training images."""
    synthetic: dict[str, str]
    """Name of each class's source of synthetic images."""
    models: dict[str, str]
    """SHA-256 of the weights by class, if a model made the images."""
    held_out: HeldOut
    seeds: int
    steps: int
    arms: dict[str, ArmScores]
    intervals: dict[str, dict[str, Interval]]
    """By arm, then by score."""
    differences: tuple[Difference, ...]
    decisions: dict[str, Decision]
    """By score; that by "auc" is there always."""
    verdict: Word
    """The decision by the score that was named before anything was tested."""
    skipped: dict[str, str]
    """Arms that were left out, and why."""
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check what spans fields."""
        if "auc" not in self.decisions:
            raise ValueError("it has no decision by AUC")

    @classmethod
    def upgrade(cls, tree: dict[str, Any], schema: int) -> dict[str, Any]:
        """Before schema numbers, the scores of a difference stood beside its names."""
        tree["differences"] = [
            {
                "arm": found["arm"],
                "against": found["against"],
                "scores": {name: value for name, value in found.items() if name not in ("arm", "against")},
            }
            for found in tree["differences"]
        ]
        return tree
