"""Generated and real images as scores take them; what several scores share is computed once."""

import functools
from typing import Literal

from jaxtyping import Float, UInt8
from torch import Tensor

from samgan.metrics.features import FeatureExtractor, extract
from samgan.metrics.prdc import Prdc, prdc
from samgan.metrics.swd import sliced_wasserstein_distance

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
