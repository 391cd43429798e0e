"""One record per score: its name, how it is shown, what it needs, and the function that takes it.

Evaluation, the printed table, the page, cards and the table of a study all read these records. A new score is a
function in `samgan.metrics` and one more record here.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
    """Generated images and as many real ones, and two equal sets of real ones; what scores share is computed once.

    Args:
        real: Real images in the order in which they are taken: as many as `fake` to compare with these; for the floor
            the first `floor_count` to compare with the next `floor_count`.
        fake: Generated images.
        floor_count: Images of each of the two sets of the floor.
        seed: Of everything drawn.
        extractor: From images to features; None leaves out scores that need them.
    """

    def __init__(
        self,
        real: UInt8[Tensor, "n c h w"],
        fake: UInt8[Tensor, "m c h w"],
        floor_count: int,
        seed: int,
        extractor: FeatureExtractor | None,
    ) -> None:
        self.real, self.fake, self.floor_count = real, fake, floor_count
        self.seed, self.extractor = seed, extractor

    def features(self, against: Against) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d"]]:
        """Features of real images, and of those that they are compared with."""
        return self._features[against]

    def prdc(self, against: Against) -> Prdc:
        """Precision, recall, density and coverage."""
        return self._prdc[against]

    def swd(self, against: Against) -> dict[str, float]:
        """Sliced Wasserstein distance x 1000 by side of the level in pixels, and "mean"."""
        return self._swd[against]

    def _compared(self, real: Tensor, fake: Tensor) -> dict[Against, tuple[Tensor, Tensor]]:
        """The two sets that are compared, of all images or of all their features."""
        half = self.floor_count
        return {"fake": (real[: len(fake)], fake), "other": (real[:half], real[half : 2 * half])}

    @functools.cached_property
    def _features(self) -> dict[Against, tuple[Tensor, Tensor]]:
        assert self.extractor is not None
        # The next evaluation brings other generated images: keeping their features would only fill the disk.
        return self._compared(extract(self.extractor, self.real), extract(self.extractor, self.fake, cache=False))

    @functools.cached_property
    def _prdc(self) -> dict[Against, Prdc]:
        return {against: prdc(*pair) for against, pair in self._features.items()}

    @functools.cached_property
    def _swd(self) -> dict[Against, dict[str, float]]:
        pairs = self._compared(self.real, self.fake)
        return {against: sliced_wasserstein_distance(*pair, seed=self.seed) for against, pair in pairs.items()}


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
    return lambda sets, against: distance(*sets.features(against))


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
