"""utility.json: whether synthetic images help a classifier, measured on held-out patients."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from samgan.data import DataUsed
from samgan.documents import Document

HELPS, HARMS, UNDECIDED = "helps", "harms", "no difference shown"
Word = Literal["helps", "harms", "no difference shown"]

UTILITY_SCORES = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "minority_recall": "recall of the smallest class",
    "brier_score": "Brier score",
    "calibration_error": "calibration error",
}
"""Labels of the scores of every classifier."""
COMPARED = ("auc", "balanced_accuracy", "minority_recall", "brier_score")
"""The scores that have intervals and are compared. The calibration error is not among them: it is a sum of absolute
deviations, so any noise makes it larger, and the resampling of a bootstrap adds more noise. Its interval would not hold
its mean.
"""
DECIDES = "auc"
"""The score whose interval gives the verdict, named before anything was tested."""


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
    """One for each seed, by score."""
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
    """The images and patients of the test."""

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
    """By score."""
    verdict: Word
    """The decision by the score that was named before anything was tested."""
    skipped: dict[str, str]
    """Arms that were left out, and why."""
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that every table has the scores that pages, cards and studies read."""
        for name, arm in self.arms.items():
            for found in (arm.mean, arm.deviation, *arm.seeds):
                _check_names(f"arms, {name}", found, UTILITY_SCORES)
        _check_names("intervals", self.intervals, self.arms)
        for name, compared in self.intervals.items():
            _check_names(f"intervals, {name}", compared, COMPARED)
        for difference in self.differences:
            _check_names(f"differences, {difference.arm}", difference.scores, COMPARED)
        _check_names("decisions", self.decisions, COMPARED)

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


def _check_names(where: str, found: Collection[str], expected: Collection[str]) -> None:
    """Refuse a table that does not have exactly the names expected."""
    if missing := [name for name in expected if name not in found]:
        raise ValueError(f"{where}: expected {missing[0]!r}, which is missing")
    if unknown := [name for name in found if name not in expected]:
        raise ValueError(f"{where}: found {unknown[0]!r}, which is unknown")
