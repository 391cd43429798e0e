"""Which synthetic images may join real ones: no near-copies of training images, no failures, no duplicates.

All limits come from training images. Held-out images are not used: they are for the measurements that follow.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from samgan.errors import SamganError
from samgan.metrics.nearest import ALIKE, Nearest, first_alike, nearest_features, nearest_image

FOLDS = 10
TAIL = 0.01
"""Share of the distances between real images that lies beyond each limit."""
LEAST = 20
"""The smallest number of training images of a class to take limits from."""
REASONS = ("near-copy", "failed", "unsure", "duplicate")
"""Why an image is left out; the first one that applies is recorded."""

Extractor = Callable[[UInt8[Tensor, "n c h w"]], Float[Tensor, "n d"]]
Classifier = Callable[[UInt8[np.ndarray, "n c h w"]], Float[np.ndarray, " n"]]


@dataclasses.dataclass(frozen=True)
class Screened:
    """What was found for each image, in the order of the images."""

    reason: list[str]
    """One of `REASONS`; empty for an image that is kept."""
    nearest: Int[np.ndarray, " n"]
    """Place of the nearest training image, by pixels."""
    distance: dict[str, Float[np.ndarray, " n"]]
    """Distance to the nearest training image, by "pixels" and, with an extractor, by "features"."""
    confidence: Float[np.ndarray, " n"] | None
    """The classifier's probability that the image is of its class."""


def check_enough(patients: Sequence[str]) -> None:
    """Check that a class has enough training images to take limits from.

    Args:
        patients: The patient of each training image of the class.

    Raises:
        SamganError: There are fewer than 20 images, or fewer than two patients.
    """
    if len(patients) < LEAST or len(set(patients)) < 2:
        raise SamganError(
            f"screening needs at least {LEAST} training images and two patients of a class for its limits; there are "
            f"{len(patients)} images of {len(set(patients))} patients"
        )


class Screen:
    """The rules for synthetic images of one class.

    Let d(x) be the distance of an image to its nearest training image (of any class, mirrored or not). The quantiles
    are those of distances between training images of the class and training images of *other* patients (ten folds):

        near-copy   d(x) < 1 % quantile, in pixels or in features
        failed      d(x) > 99 % quantile, in features; in pixels if there is no extractor
        unsure      the classifier's probability of the class < confidence
        duplicate   closer than 0.02 in pixels to an image that was kept earlier

    The first two rules would also leave out 2 % of real images of new patients, and up to 3 % with features.

    Args:
        training: All training images.
        own: Places of the images of the class.
        patients: The patient of each training image, as `PreparedSet.groups` names them. Images of one patient are
            never compared. Near duplicates must have the same name; otherwise the limits are distances of copies.
        features: Features of the training images; None to screen by pixels only.
        extract: From images to features.
        classify: From images to the probability that they are of the class; None to leave out the rule `unsure`.
        confidence: Probability below which an image is unsure.
        seed: Of the folds.

    Raises:
        SamganError: There are fewer than 20 images of the class, or fewer than two patients.

    Source: the limits follow the data-copying test of Meehan et al. 2020 (arXiv:2004.05675), which compares distances
        of generated images with those of fresh real ones.
    """

    def __init__(
        self,
        training: UInt8[Tensor, "n c h w"],
        own: Int[np.ndarray, " m"],
        patients: Sequence[str],
        *,
        features: Float[Tensor, "n d"] | None = None,
        extract: Extractor | None = None,
        classify: Classifier | None = None,
        confidence: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.training, self.extract, self.classify, self.confidence = training, extract, classify, confidence
        check_enough([patients[i] for i in own])
        self.features = features
        self.limits = self._take_limits(own, patients, seed)
        """The smallest and the largest distance that are accepted, by "pixels" and "features"."""

    def _take_limits(
        self, own: Int[np.ndarray, " m"], patients: Sequence[str], seed: int
    ) -> dict[str, tuple[float, float]]:
        """Quantiles of the distances between images of the class and training images of other patients."""
        names = sorted({patients[i] for i in own})
        order = np.random.default_rng(seed).permutation(len(names)).tolist()
        fold_of = {names[i]: k % FOLDS for k, i in enumerate(order)}
        spaces = ("pixels",) if self.features is None else ("pixels", "features")
        distances: dict[str, list[Tensor]] = {space: [] for space in spaces}
        for fold in range(min(FOLDS, len(names))):
            held = np.array([fold_of.get(patient) == fold for patient in patients])
            queries, others = own[held[own]], np.flatnonzero(~held)
            for space, found in self._nearest(self.training[queries], self._some(queries), others).items():
                distances[space].append(found.distance)
        tails = torch.tensor([TAIL, 1 - TAIL], dtype=torch.double)
        limits = {}
        for space, parts in distances.items():
            low, high = torch.quantile(torch.cat(parts).double(), tails).tolist()
            limits[space] = (low, high)
        return limits

    def _some(self, index: np.ndarray) -> Tensor | None:
        return None if self.features is None else self.features[index]

    def _nearest(
        self, images: Tensor, features: Tensor | None, among: Int[np.ndarray, " k"] | None = None
    ) -> dict[str, Nearest]:
        chosen = slice(None) if among is None else among
        found = {"pixels": nearest_image(images, self.training[chosen])}
        if features is not None and self.features is not None:
            found["features"] = nearest_features(features, self.features[chosen])
        return found

    def __call__(self, images: UInt8[Tensor, "n c h w"], kept: UInt8[Tensor, "k c h w"] | None = None) -> Screened:
        """Screen images; those that are like one of the images `kept` earlier are duplicates."""
        found = self._nearest(images, self.extract(images) if self.extract else None)
        distance = {space: nearest.distance.double().numpy() for space, nearest in found.items()}
        near = np.any([distance[space] < low for space, (low, _) in self.limits.items()], axis=0)
        judged = "features" if "features" in distance else "pixels"
        failed = distance[judged] > self.limits[judged][1]
        sure = self.classify(images.numpy()) if self.classify else None
        unsure = np.zeros(len(images), bool) if sure is None else sure < self.confidence
        fit = np.flatnonzero(~(near | failed | unsure))
        before = images[:0] if kept is None else kept
        place = first_alike(torch.cat([before, images[fit]])).numpy()[len(before) :]
        again = np.zeros(len(images), bool)
        again[fit] = place != len(before) + np.arange(len(fit))
        reason = [
            next((name for name, hit in zip(REASONS, row, strict=True) if hit), "")
            for row in zip(near, failed, unsure, again, strict=True)
        ]
        return Screened(reason, found["pixels"].index.numpy(), distance, sure)

    def rules(self) -> list[str]:
        """The rules with their numbers, as sentences."""
        named = {"pixels": "1 - correlation of pixels", "features": "distance of features"}
        either = " or ".join(f"{named[space]} < {low:.4g}" for space, (low, _) in self.limits.items())
        judged = "features" if "features" in self.limits else "pixels"
        sentences = [
            "near-copy: nearer to a training image than 99 % of real images are to images of other patients, by one "
            f"measure or more ({either})",
            "failed: further from all training images than 99 % of real images are from images of other patients "
            f"({named[judged]} > {self.limits[judged][1]:.4g})",
        ]
        if self.classify:
            sentences.append(
                f"unsure: a classifier trained on real images gives its class less than {self.confidence:g}"
            )
        return [
            *sentences,
            f"duplicate: nearer than {ALIKE} (1 - correlation of pixels) to an image that was kept earlier",
        ]
