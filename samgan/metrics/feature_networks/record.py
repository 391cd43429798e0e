"""What is known about a feature network: where its weights come from, what it sees, and under which terms."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.errors import UsageError

StateDict = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Input:
    """The images that a network takes, made of ours: channels, then grey levels, then size."""

    channels: int | None
    """1, or 3: grey images are repeated. None: whatever they have."""
    mean: tuple[float, ...] = ()
    """In grey levels, 0 to 255; of every channel, or of all. It is subtracted."""
    std: tuple[float, ...] = ()
    """In grey levels, as `mean`; images are divided by it. Empty: the network takes uint8."""
    size: int | None = None
    """Side in pixels that images are resized to; None: the network takes any size."""
    at_least: int = 0
    """Smaller images are enlarged to this side."""
    mode: str = "bilinear"
    antialias: bool = True
    """Whether an image is smoothed before it is made smaller."""

    def __call__(self, images: UInt8[Tensor, "n c h w"]) -> Shaped[Tensor, "n _ _ _"]:
        """Images as the network takes them.

        Raises:
            UsageError: Colour images for a network of grey ones.
        """
        self.check(images.shape[1])
        if self.channels == 3 and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if not self.std:
            return images
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (self.mean, self.std))
        x = images.float() / std - mean / std
        side = self.side(x.shape[-1])
        if x.shape[-2:] == (side, side):
            return x
        x = F.interpolate(x, size=(side, side), mode=self.mode, antialias=self.antialias)
        # Bicubic curves overshoot; files of eight bits, which the networks saw in training, cannot.
        return x.clamp(-mean / std, (255 - mean) / std) if self.mode == "bicubic" else x

    def side(self, of_images: int) -> int:
        """Side in pixels of what the network sees of images of this side."""
        return self.size or max(of_images, self.at_least)

    def check(self, channels: int) -> None:
        """Refuse images of this many channels if the network cannot take them."""
        if self.channels == 1 and channels != 1:
            raise UsageError(f"expected grey images, found {channels} channels; use features of colour images")


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """One network of `--features NAME`. CONTRIBUTING.md says how to add another."""

    name: str
    """What is printed beside every number."""
    description: str
    """The network and what it was trained on, in a line."""
    dim: int
    """Features of an image."""
    input: Input
    url: str
    """The file of weights, or the page that it is on; empty: it comes with samgan."""
    megabytes: int
    """Size of that file."""
    licence: str
    """Of the weights."""
    sha256: str | None
    """Of that file, or its first digits if its publisher states no more; None: its publisher states none."""
    build: Callable[[StateDict], nn.Module]
    """The network with these weights; raises RuntimeError, TypeError or KeyError if they are not its own."""
    find: "Callable[[FeatureNetwork], Path]"
    """Where the weights are if no file was given; raises `FeaturesUnavailable`."""
    extra: str = ""
    """The extra of samgan's package that installs the weights."""
    convert: str = ""
    """A Python program that makes a file which can be given, where that from `url` cannot."""
