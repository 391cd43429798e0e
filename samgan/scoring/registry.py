"""One record per score: its name, how it is shown, what it needs, and the function that takes it.

Evaluation, the printed table, the page, cards and the table of a study all read these records. A new score is a
function in `samgan.metrics` and one more record here. Who only shows scores does not wait for torch: a function imports
what it computes with when it is called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from samgan.scoring.documents import FeaturesUsed

if TYPE_CHECKING:
    from samgan.scoring.sets import Against, Sets


@dataclass(frozen=True)
class Score:
    """A score of generated images against as many real ones."""

    name: str
    """In scores.json and in the columns of tables."""
    label: str
    decimals: int
    better: Literal["lower", "higher"]
    of: "Callable[[Sets, Against], float]"
    """The score of one kind of images against the real ones."""
    needs_features: bool = True
    by_inception: tuple[str, int] | None = None
    """Label and decimals if the features are those of the standard Inception, where it has a name of its own."""
    short: str = ""
    """Label where there is little room; default: `label`."""

    def shown(self, features: FeaturesUsed | None) -> tuple[str, int]:
        """Label and decimals of the score by these features, which the label names unless they are those of the FID."""
        if not self.needs_features or features is None:
            return self.label, self.decimals
        if features.name == "inception":
            return self.by_inception or (self.label, self.decimals)
        return f"{self.label}, {features.short}", self.decimals


def _frechet(sets: "Sets", against: "Against") -> float:
    from samgan.metrics.frechet import frechet_distance

    return frechet_distance(*sets.features(against))


def _kid_x1000(sets: "Sets", against: "Against") -> float:
    from samgan.metrics.frechet import kernel_distance

    return 1000 * kernel_distance(*sets.features(against))


SCORES = {
    score.name: score
    for score in (
        Score(
            "frechet", "Frechet distance", 3, "lower", _frechet, by_inception=("FID", 2),
            short="Frechet",
        ),
        Score("kid_x1000", "KID x 1000", 3, "lower", _kid_x1000),
        Score("precision", "precision", 3, "higher", lambda sets, against: sets.prdc(against).precision),
        Score("recall", "recall", 3, "higher", lambda sets, against: sets.prdc(against).recall),
        Score("density", "density", 3, "higher", lambda sets, against: sets.prdc(against).density),
        Score("coverage", "coverage", 3, "higher", lambda sets, against: sets.prdc(against).coverage),
        Score(
            "swd", "SWD x 1000, mean", 2, "lower", lambda sets, against: sets.swd(against)["mean"],
            needs_features=False, short="SWD x 1000",
        ),
    )
}  # fmt: skip
"""By name, in the order of tables."""
