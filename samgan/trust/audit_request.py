"""What to audit, and the real images to compare it with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from samgan.data import PreparedSet
from samgan.errors import SamganError, UsageError
from samgan.sampling import Labels, Source, labels_like
from samgan.trust.real_images import RealImages

LEAST = 8
"""The smallest number of images of each kind for an audit."""


@dataclass(frozen=True)
class AuditRequest:
    """What to audit, opened and checked."""

    source: Source
    data: PreparedSet
    classes: tuple[str, ...]
    """Real images of these classes; empty for all."""
    training: RealImages
    held_out: RealImages
    """Of other patients than the training images, with the classes in the same shares as in `training`."""
    all_held_out: int
    """Number of held-out images of other patients, before some were left out to get these shares."""
    known_held_out: int
    """Number of held-out images that were left out because their patient, or a near duplicate, is in training."""
    count: int | None
    seed: int
    origin_notes: tuple[str, ...]
    """What is not known about the origin of the synthetic images."""

    @classmethod
    def open(
        cls, source: Source, data: PreparedSet, *, classes: Sequence[str] = (), count: int | None = None, seed: int = 0
    ) -> "AuditRequest":
        """Choose the real images to compare with.

        Args:
            source: Where the synthetic images are.
            data: The prepared set that the generator was trained on.
            classes: Real images of these classes; default: the classes that the model was trained on.
            count: Synthetic images to audit.
            seed: Seed of the first image of a model, and of every random choice.

        Raises:
            UsageError: The model was trained on other data, or there is no such class.
            SamganError: There are too few real images.
        """
        origin_notes = source.check_origin(data)
        names = tuple(classes) or source.classes
        if source.model is not None and source.model.classes:
            source.model.require_classes(names)
        training, rows = RealImages(data, data.indices("train", names)), data.indices("holdout", names)
        # A near duplicate of a training image would set a threshold that no changed copy can fall below.
        known = set(data.groups(data.indices("train")))
        is_known = np.array([group in known for group in data.groups(rows)], dtype=bool)
        held_out = RealImages(data, rows[~is_known])
        compared = held_out.with_shares_of(training)
        if min(len(training), len(compared)) < LEAST:
            raise SamganError(
                f"an audit needs at least {LEAST} training images and {LEAST} held-out images of other patients; "
                f"{data.path} has {len(training)} and {len(compared)}: prepare it again "
                "and hold out more, such as samgan prepare --holdout 0.3"
            )
        return cls(
            source=source,
            data=data,
            classes=names,
            training=training,
            held_out=compared,
            all_held_out=len(held_out),
            known_held_out=int(is_known.sum()),
            count=count,
            seed=seed,
            origin_notes=tuple(origin_notes),
        )

    def synthetic_images(self) -> UInt8[Tensor, "n c h w"]:
        """The synthetic images; a model with classes makes each class in the same share as among the training images.

        Raises:
            SamganError: There are too few, or they have another shape than the real images.
        """
        count = self.count
        if self.source.model is not None:
            count = count or len(self.training)
        images = self.source.images(count, self._labels(count), seed=self.seed, like=self.data)
        shape = list(self.training.images.shape[1:])
        if list(images.shape[1:]) != shape or len(images) < LEAST:
            raise SamganError(
                f"{self.source.path or self.source.described.name}: expected at least {LEAST} images of shape {shape}, "
                f"as in {self.data.path}; found {len(images)} of shape {list(images.shape[1:])}"
            )
        return images

    def names(self, count: int) -> list[str]:
        """A name for each of the `count` images of `synthetic_images`, as `samgan.sampling.Source.names`."""
        return self.source.names(count, self._labels(count), seed=self.seed)

    def _labels(self, count: int | None) -> Labels:
        """The class of each image that a model makes; None for a model without classes and for stored images."""
        model = self.source.model
        if count is None or model is None or not model.classes:
            return None
        return labels_like(self.training.labels(model.config.data.classes).numpy(), count)


def check_count(count: int | None) -> None:
    """Refuse a number of synthetic images that is too small for an audit; None is the default.

    Raises:
        UsageError: It is.
    """
    if count is not None and count < LEAST:
        raise UsageError(f"--count {count}: expected {LEAST} or more")
