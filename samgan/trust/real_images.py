"""Real images of one split of a prepared set, with the patient of each."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from samgan.data import PreparedSet
from samgan.trust.documents import RealCounts


class RealImages:
    """Some real images of a prepared set.

    Attributes:
        indices: Their rows in the manifest.
        images: The images.
        patients: The patient of each.
    """

    def __init__(self, data: PreparedSet, indices: Int[np.ndarray, " n"]) -> None:
        self.data, self.indices = data, indices
        self.images: UInt8[Tensor, "n c h w"] = torch.from_numpy(data.take(indices))
        self.patients = [data.manifest[i].patient for i in indices]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def counts(self) -> RealCounts:
        """How many images and patients."""
        return RealCounts(len(self), len(set(self.patients)))

    def with_shares_of(self, other: "RealImages") -> "RealImages":
        """As many of these images as possible, with the classes in the same shares as in `other`.

        If the shares differ, the class of an image is enough to tell training images from held-out ones, and synthetic
        images of a class are closer to the split that holds more of that class.
        """
        wanted, own = other.by_class(), self.by_class()
        shared = sorted(set(wanted) & set(own))
        times = min((len(own[name]) / len(wanted[name]) for name in shared), default=0)
        chosen = [_evenly(own[name], round(times * len(wanted[name]))) for name in shared]
        return RealImages(self.data, np.sort(np.concatenate([*chosen, np.array([], int)])))

    def by_class(self) -> dict[str, list[int]]:
        """Rows in the manifest, by class."""
        found: dict[str, list[int]] = {}
        for index in self.indices:
            found.setdefault(self.data.manifest[index].class_name, []).append(int(index))
        return found

    def labels(self, classes: Sequence[str]) -> Int[Tensor, " n"]:
        """The index of each image's class in `classes`."""
        return torch.from_numpy(self.data.labels(classes)[self.indices])

    def some(self, count: int) -> UInt8[Tensor, "m c h w"]:
        """At most `count` images, evenly spaced, since the images are sorted by class and patient."""
        return self.images[_evenly(range(len(self)), min(count, len(self)))]


def _evenly(values: Sequence[int], count: int) -> Int[np.ndarray, " n"]:
    return np.array(values, dtype=int)[np.arange(count) * len(values) // max(count, 1)]
