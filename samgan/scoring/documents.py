"""scores.json: the scores of one set of generated images, each beside its floor."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from samgan.data import DataUsed
from samgan.documents import Document
from samgan.sampling import Origin

MODE_COLLAPSE = "mode collapse"
NO_MODE_COLLAPSE = "no sign of mode collapse"
SCORING = 1
"""What scores compute, as a number: raised whenever the same images would get other scores.

The rows of a study are known by it, so that rows scored in an earlier way are scored again.
"""


@dataclass(frozen=True)
class Scored:
    """One score of generated images against real ones, beside that of real images against other real ones."""

    value: float
    floor: float


@dataclass(frozen=True)
class MeanOfPairs:
    """A mean over pairs of images, with its 95 % interval."""

    mean: float
    low: float
    high: float
    standard_error: float
    pairs: int


@dataclass(frozen=True)
class CollapseTest:
    """Whether generated pairs are more alike than real ones (MG > MR), beyond the 95 % interval of the difference."""

    verdict: Literal["mode collapse", "no sign of mode collapse"]
    difference: float
    """MS-SSIM of generated pairs minus that of real ones."""
    low: float
    high: float


@dataclass(frozen=True)
class FeaturesUsed:
    """The network whose features were compared."""

    name: str
    sha256: str
    dim: int | None
    at_least: int = 0
    """Side in pixels to which smaller images were enlarged; 0 also for documents of earlier versions."""

    @property
    def short(self) -> str:
        """The name without a hash, for the labels of scores."""
        return short_name(self.name)


def short_name(features: str) -> str:
    """The name of features without the hash of their weights."""
    return features.partition(" (")[0]


@dataclass(frozen=True)
class Repeats:
    """How many images are like an earlier one of their set, among as many generated and real ones."""

    generated: int
    real: int
    found: bool
    """Whether generated images are so more often than real ones: their 95 % intervals do not overlap."""


@dataclass(frozen=True)
class Counts:
    """Images that were given."""

    real: int
    fake: int


@dataclass(frozen=True)
class Skipped:
    """A score that was left out, and why."""

    score: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Scores(Document):
    """The scores of one set of generated images against real ones."""

    SCHEMA: ClassVar[int] = 2
    KIND: ClassVar[str] = "scores"
    MADE_BY: ClassVar[str] = "samgan evaluate"

    protocol: str
    resolution: int
    """Side of the images in pixels."""
    seed: int
    count: int
    """Images of each set that scores of distributions compare."""
    floor_count: int | None = None
    """Images of each of the two sets of real ones that give the floor; None: `count`."""
    counts: Counts
    features: FeaturesUsed | None
    ms_ssim_real: MeanOfPairs | None
    ms_ssim_generated: MeanOfPairs | None
    mode_collapse: CollapseTest | None
    repeats: Repeats | None = None
    """Of `count` images each; None in documents of earlier versions and by the legacy protocol."""
    scores: dict[str, Scored]
    """By the name of its record in `samgan.scoring.registry`; a score that could not be taken is in `skipped`."""
    swd_by_level: dict[str, Scored] = field(default_factory=dict)
    """Sliced Wasserstein distance by side of the level in pixels; `scores` holds their mean."""
    skipped: tuple[Skipped, ...] = ()
    classes: dict[str, "Scores | None"] = field(default_factory=dict)
    """By class, the scores of its images only; None where it has too few."""
    samgan: str = ""
    """The version that took the scores."""
    generated: Origin | None = None
    data: DataUsed | None = None

    @classmethod
    def upgrade(cls, tree: dict[str, Any], schema: int) -> dict[str, Any]:
        """Schema 0 had every score as a key of its own, and the mean of SWD among its levels."""
        if schema == 0:
            levels = dict(tree.pop("swd", None) or {})
            names = ("frechet", "kid_x1000", "precision", "recall", "density", "coverage")
            tree["scores"] = {name: found for name in names if (found := tree.pop(name, None))}
            if mean := levels.pop("mean", None):
                tree["scores"]["swd"] = mean
            tree["swd_by_level"] = levels
            tree["classes"] = {
                name: own and cls.upgrade(dict(own), 0) for name, own in (tree.get("classes") or {}).items()
            }
        return tree
