"""Which synthetic images may stand beside real ones: no near-copies of training images, no failures, none twice.

All limits are taken from training images, never from held-out ones, which stay unseen for what is measured later.
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
LEAST = 20
"""Training images of a class, below which their distances give no limits."""
REASONS = ("near-copy", "failed", "unsure", "duplicate")
"""Why an image is left out; the first that holds is given."""

Extractor = Callable[[UInt8[Tensor, "n c h w"]], Float[Tensor, "n d"]]
Classifier = Callable[[UInt8[np.ndarray, "n c h w"]], Float[np.ndarray, " n"]]


@dataclasses.dataclass(frozen=True)
class Screened:
    """What was found of each image, in the order of the images."""

    reason: list[str]
    """One of `REASONS`; empty for an image that may stay."""
    nearest: Int[np.ndarray, " n"]
    """Place of the nearest training image, by pixels."""
    distance: dict[str, Float[np.ndarray, " n"]]
    """To the nearest training image, by "pixels" and, where there is an extractor, "features"."""
    confidence: Float[np.ndarray, " n"] | None
    """Of the classifier, that the image is of its class."""


def check_enough(patients: Sequence[str]) -> None:
    """Refuse training images of a class, given by their patients, that are too few to take limits from."""
    if len(patients) < LEAST or len(set(patients)) < 2:
        raise SamganError(
            f"screening takes its limits from {LEAST} training images of a class and two patients or more, got "
            f"{len(patients)} of {len(set(patients))}"
        )


class Screen:
    """The rules for synthetic images of one class.

    With d(x) the distance of an image to its nearest training image (of any class, mirrored or not), and the quantiles
    those of distances between training images of the class and training images of *other* patients (ten folds):

        near-copy   d(x) < 1 % quantile, in pixels or in features
        failed      d(x) > 99 % quantile, in features; in pixels where there is no extractor
        unsure      the classifier's probability of the class < confidence
        duplicate   nearer than 0.02 in pixels to an image that was kept before

    So of real images of new patients two in a hundred would be left out by the first two, with features up to three:
    that is their price.

    Args:
        training: All training images.
        own: Places of those of the class.
        patients: Of each training image, as `PreparedSet.groups` names them; images of one are never compared. Near
            duplicates have one name, or the limits would be those of copies.
        features: Of the training images; None leaves features out.
        extract: From images to features.
        classify: From images to the probability that they are of the class; None leaves `unsure` out.
        confidence: Probability below which an image is unsure.
        seed: Of the folds.

    Raises:
        SamganError: Fewer than 20 images of the class, or of fewer than two patients.

    Source: the limits follow the data-copying test of Meehan et al. 2020 (arXiv:2004.05675), which holds distances of
        generated images against those of fresh real ones.
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
        names = sorted({patients[i] for i in own})
        self.features = features
        fold_of = {
            names[i]: k % FOLDS for k, i in enumerate(np.random.default_rng(seed).permutation(len(names)).tolist())
        }
        distances: dict[str, list[Tensor]] = {
            name: [] for name in ("pixels", *(["features"] if features is not None else []))
        }
        for fold in range(min(FOLDS, len(names))):
            held = np.array([fold_of.get(patient) == fold for patient in patients])
            queries, others = own[held[own]], np.flatnonzero(~held)
            for space, found in self._nearest(training[queries], self._some(queries), others).items():
                distances[space].append(found.distance)
        tails = torch.tensor([TAIL, 1 - TAIL], dtype=torch.double)
        self.limits = {
            space: tuple(torch.quantile(torch.cat(parts).double(), tails).tolist())
            for space, parts in distances.items()
        }
        """By space the least and the largest distance that is let through."""

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
        """Screen images, some of which may be like those that were `kept` before."""
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
            "near-copy: nearer to a training image than 99 % of real images are to those of other patients, by one "
            f"measure ({either})",
            f"failed: further from all training images than 99 % of real images are from those of other patients "
            f"({named[judged]} > {self.limits[judged][1]:.4g})",
        ]
        if self.classify:
            sentences.append(f"unsure: a classifier of the real images gives its class less than {self.confidence:g}")
        return [*sentences, f"duplicate: nearer than {ALIKE} (1 - correlation of pixels) to one that was kept before"]
