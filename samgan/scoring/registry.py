"""One record per score: its name, how it is shown, what it needs, and the function that takes it.

Evaluation, the printed table, the page, cards and the table of a study all read these records. A new score is a
function in `samgan.metrics` and one more record here.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from samgan.metrics.features import FeatureExtractor, extract
from samgan.metrics.frechet import frechet_distance, kernel_distance
from samgan.metrics.prdc import Prdc, prdc
from samgan.metrics.swd import sliced_wasserstein_distance
from samgan.scoring.documents import FeaturesUsed

Against = Literal["fake", "other"]
"""Generated images, or other real images, which give the floor."""


class Sets:
    """Equally many images of each kind, with what scores share computed once.

    Args:
        real: Real images that both others are compared with.
        other: Other real images.
        fake: Generated images.
        seed: Of everything drawn.
        extractor: From images to features; None leaves out scores that need them.
    """

    def __init__(
        self,
        real: UInt8[Tensor, "n c h w"],
        other: UInt8[Tensor, "n c h w"],
        fake: UInt8[Tensor, "n c h w"],
        seed: int,
        extractor: FeatureExtractor | None,
    ) -> None:
        self.images = {"real": real, "other": other, "fake": fake}
        self.seed, self.extractor = seed, extractor

    def features(self, kind: str) -> Float[Tensor, "n d"]:
        """Features of the "real", "other" or "fake" images."""
        return self._features[kind]

    def prdc(self, against: Against) -> Prdc:
        """Precision, recall, density and coverage."""
        return self._prdc[against]

    def swd(self, against: Against) -> dict[str, float]:
        """Sliced Wasserstein distance x 1000 by side of the level in pixels, and "mean"."""
        return self._swd[against]

    @functools.cached_property
    def _features(self) -> dict[str, Tensor]:
        assert self.extractor is not None
        real = extract(self.extractor, torch.cat([self.images["real"], self.images["other"]]))
        # The next evaluation brings other generated images: keeping their features would only fill the disk.
        fake = extract(self.extractor, self.images["fake"], cache=False)
        count = len(self.images["real"])
        return {"real": real[:count], "other": real[count:], "fake": fake}

    @functools.cached_property
    def _prdc(self) -> dict[str, Prdc]:
        return {kind: prdc(self.features("real"), self.features(kind)) for kind in ("fake", "other")}

    @functools.cached_property
    def _swd(self) -> dict[str, dict[str, float]]:
        real = self.images["real"]
        return {
            kind: sliced_wasserstein_distance(real, self.images[kind], seed=self.seed) for kind in ("fake", "other")
        }


@dataclass(frozen=True)
class Score:
    """A score of generated images against as many real ones."""

    name: str
    """In scores.json and in the columns of tables."""
    label: str
    decimals: int
    better: Literal["lower", "higher"]
    of: Callable[[Sets, Against], float]
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


def _by_features(distance: Callable[[Tensor, Tensor], float]) -> Callable[[Sets, Against], float]:
    return lambda sets, against: distance(sets.features("real"), sets.features(against))


SCORES = {
    score.name: score
    for score in (
        Score(
            "frechet", "Frechet distance", 3, "lower", _by_features(frechet_distance), by_inception=("FID", 2),
            short="Frechet",
        ),
        Score("kid_x1000", "KID x 1000", 3, "lower", _by_features(lambda a, b: 1000 * kernel_distance(a, b))),
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
