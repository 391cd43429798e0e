"""Batches of real images and random numbers, each a pure function of (seed, purpose, step).

Nothing depends on earlier draws. So a run can resume bit for bit without saved generator states, and N processes draw
the same global batch as one process.
"""

import dataclasses
import hashlib
import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from samgan.config import Config
from samgan.data import take
from samgan.devices import to_device
from samgan.distributed import rank, world_size
from samgan.errors import UsageError
from samgan.networks import tiles_of
from samgan.pictures import from_uint8
from samgan.training.augment import CHANGES


def random_generator(seed: int, purpose: str, index: int) -> torch.Generator:
    """A CPU generator that depends only on its arguments."""
    digest = hashlib.blake2b(f"{seed} {purpose} {index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclasses.dataclass
class Batch:
    """This process's slice of one global batch."""

    real: Float[Tensor, "n c h w"]
    latents: Float[Tensor, "n latent"]
    generator_latents: Float[Tensor, "n latent"] | None
    """Latents of the generator's own step; None if it shares the discriminator's."""
    mix: Float[Tensor, " n"]
    augment: Float[Tensor, "3 n changes"] | None = None
    """Random numbers for `augment`: for real images, and for generated images in the discriminator's and in the
    generator's step."""
    labels: Int[Tensor, " n"] | None = None
    """Classes of the real images. Generated image i has the class of real image i: a paired loss then compares images
    of one class, and batch statistics see the same mixture of classes in both."""
    tiles: Int[Tensor, " n"] | None = None
    """For `with_tiles`, of real and of generated images. In the global batch, every second image is seen whole."""


class Sampler:
    """Real images and random draws by step number. Each epoch is a new permutation; epochs follow without gaps.

    With balanced classes, every K images in a row have one image of each of the K classes, in an order drawn anew for
    each K images. Every class has its own epochs, so the images of a small class are repeated more often.

    Args:
        images: uint8 [n, c, h, w], in memory or memory-mapped.
        config: The run's configuration.
        device: Where batches go. A set of up to 2 GiB is kept on a GPU as a whole.
        indices: The images to use; default: all.
        labels: Class of each of `images`, 0 to num_classes - 1; ignored without classes.

    Raises:
        UsageError: A class has no images, or a label is out of range.
    """

    def __init__(
        self,
        images: np.ndarray,
        config: Config,
        device: torch.device,
        indices: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.images = images
        self.indices = np.arange(len(images)) if indices is None else indices
        resident = device.type != "cpu" and len(self.indices) * math.prod(images.shape[1:]) <= 2 << 30
        self.tensor = torch.from_numpy(take(images, self.indices)).to(device) if resident else None
        copies = 2 if config.data.flip == "double" else 1
        self.labels: np.ndarray | None = None
        self._groups = [np.arange(copies * len(self.indices))]
        classes = config.network.num_classes or 0
        if classes:
            self.labels = np.empty(0, np.int64) if labels is None else labels[self.indices]
            if set(self.labels.tolist()) != set(range(classes)):
                raise UsageError(
                    f"network.num_classes {classes}: expected images of every label from 0 to {classes - 1}"
                )
            if config.data.class_sampling == "balanced":
                self._groups = [np.flatnonzero(np.tile(self.labels, copies) == label) for label in range(classes)]
        self._orders: dict[str, tuple[int, Tensor]] = {}

    def first(self, count: int) -> np.ndarray:
        """The first `count` images, unchanged; with classes, the first of each class, class by class."""
        if self.labels is None:
            return take(self.images, self.indices[:count])
        shares = np.bincount(np.arange(count) % (self.config.network.num_classes or 1))
        places = [np.flatnonzero(self.labels == label)[:share] for label, share in enumerate(shares)]
        return take(self.images, self.indices[np.concatenate(places)])

    def _index(self, position: int) -> int:
        number, group = position, 0
        if len(self._groups) > 1:
            number, place = divmod(position, len(self._groups))
            group = int(self._order("classes", number, len(self._groups))[place])
        members = self._groups[group]
        epoch, offset = divmod(number, len(members))
        purpose = f"epoch of class {group}" if len(self._groups) > 1 else "epoch"
        return int(members[self._order(purpose, epoch, len(members))[offset]])

    def _order(self, purpose: str, number: int, length: int) -> Tensor:
        """A permutation; the latest one for each purpose is kept."""
        if self._orders.get(purpose, (None,))[0] != number:
            draw = random_generator(self.config.training.seed, purpose, number)
            self._orders[purpose] = number, torch.randperm(length, generator=draw)
        return self._orders[purpose][1]

    def __call__(self, step: int) -> Batch:
        """The batch of `step` (0, 1, ...)."""
        training, latent_size = self.config.training, self.config.network.latent_size
        total = training.batch_size
        own = slice(rank() * total // world_size(), (rank() + 1) * total // world_size())
        index = torch.tensor([self._index(step * total + i) for i in range(own.start, own.stop)])
        count = len(self.indices)
        if self.config.data.flip == "random":
            flip = torch.rand(total, generator=random_generator(training.seed, "flip", step))[own] < 0.5
        else:
            flip = index >= count  # the second half of a doubled set
        index %= count
        if self.tensor is not None:
            real = self.tensor[to_device(index, self.device)]
        else:
            real = to_device(torch.from_numpy(take(self.images, self.indices[index.numpy()])), self.device)
        real = torch.where(to_device(flip, self.device).view(-1, 1, 1, 1), real.flip(3), real)
        draw = random_generator(training.seed, "latents", step)
        latents = to_device(torch.randn(2, total, latent_size, generator=draw)[:, own], self.device)
        mix = to_device(torch.rand(total, generator=random_generator(training.seed, "mix", step))[own], self.device)
        changes = None
        if training.augment_target:
            draw = random_generator(training.seed, "augment", step)
            changes = to_device(torch.rand(3, total, CHANGES, generator=draw)[:, own], self.device)
        labels = None if self.labels is None else to_device(torch.from_numpy(self.labels[index.numpy()]), self.device)
        own_latents = None if training.shared_latents else latents[1]
        tiles = None
        if count := tiles_of(self.config.network):
            tiles = torch.randint(count, (total,), generator=random_generator(training.seed, "tiles", step))
            tiles[::2] = -1
            tiles = to_device(tiles[own], self.device)
        return Batch(from_uint8(real), latents[0], own_latents, mix, changes, labels, tiles)
