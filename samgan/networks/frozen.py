"""Frozen eyes: maps of a pretrained network, mixed at random between channels and between scales."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.errors import SamganError
from samgan.metrics.feature_networks import NETWORKS
from samgan.metrics.feature_networks.lite0 import EfficientNetLite0
from samgan.metrics.load_features import load_network
from samgan.metrics.radiograph import Radiograph
from samgan.networks.convolutions import channels_last, upsample
from samgan.seeds import SEEDS

HALF = 0.5**0.5  # keeps the mean square when two are added


@dataclass(frozen=True)
class Pretrained:
    """The maps that a network of `NETWORKS` makes, each of half the side of the one before."""

    layers: Callable[[], nn.Module]
    """Makes the network without its weights. Its method `maps` gives a list of maps."""
    channels: tuple[int, ...]
    scales: tuple[float, ...]
    """Root mean square of each map on chest X-rays, roughly; maps are divided by it."""


PRETRAINED = {
    "lite0": Pretrained(EfficientNetLite0, (24, 40, 112, 320), (8.0, 7.0, 6.0, 3.0)),
    "radiograph": Pretrained(Radiograph, (160, 160, 192), (0.7, 0.7, 0.7)),
}
"""By the names that `network.vision_features` takes. The first map has a quarter of the side of what they see."""


class Projection(nn.Module):
    """Map images to maps of features by weights that are never trained.

        m_l = A_l f_l(x) / r_l                                        mixing between channels
        y_L = B_L up(m_L),  y_l = B_l up((m_l + y_(l+1)) / sqrt(2))   mixing between scales, L: the smallest map

    f_l are the maps of a pretrained network, r_l their usual size. A_l and B_l are random 1x1 convolutions, drawn from
    torch's seed of the time when this is made. None of these weights is a parameter or part of a checkpoint. A
    checkpoint holds the seed and the hashes: loading it draws the mixing again, and refuses other weights.

    Attributes:
        channels: Channels of the maps y_l, largest map first.
        sides: Their sides: half of what the pretrained network sees, a quarter, and so on.

    Source: Sauer et al. 2021 (Projected GAN), section 3.2. Differs: weights are uniform and keep the mean square; maps
        are scaled first, and enlarged by a factor of two without aligned corners.
    """

    seed: Tensor
    features_sha256: Tensor
    mixing_sha256: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        record, known = NETWORKS[config.vision_features], PRETRAINED[config.vision_features]
        self.seen, self.scales = config.vision_resolution, known.scales
        # From [-1, 1] to what the network takes.
        self.gain = 127.5 / record.input.std[0]
        self.offset = (127.5 - record.input.mean[0]) / record.input.std[0]
        self.colours = record.input.channels
        levels = range(len(known.channels))
        mixed = [config.vision_channels << level for level in levels]
        self.channels = [max(config.vision_channels, width // 2) for width in mixed]
        self.sides = [self.seen // 2 >> level for level in levels]
        for level, before in enumerate(known.channels):
            across, along = (mixed[level], before, 1, 1), (self.channels[level], mixed[level], 1, 1)
            self.register_buffer(f"across_{level}", torch.empty(across), persistent=False)
            self.register_buffer(f"along_{level}", torch.empty(along), persistent=False)
        self.register_buffer("seed", torch.tensor(torch.initial_seed() % SEEDS))
        for name in ("features_sha256", "mixing_sha256"):
            self.register_buffer(name, torch.zeros(hashlib.sha256().digest_size, dtype=torch.uint8))
        if _have_values():
            network, sha256 = load_pretrained(config)
            self.features_sha256.copy_(torch.tensor(list(bytes.fromhex(sha256))))
            self._draw()
        else:
            network = known.layers()
        self.network: Any = freeze(network)

    def _draw(self) -> None:
        """Draw the mixing from `seed`, in the order of the levels, and hash it."""
        draw, digest = torch.Generator().manual_seed(int(self.seed)), hashlib.sha256()
        for level, scale in enumerate(self.scales):
            for name, divisor in ((f"across_{level}", scale), (f"along_{level}", 1.0)):
                buffer = self.get_buffer(name)
                # Uniform numbers are the same on every machine, to the last bit.
                values = torch.rand(buffer.shape, generator=draw) * 2 - 1
                values *= math.sqrt(3 / buffer.shape[1]) / divisor
                digest.update(values.numpy().tobytes())
                buffer.copy_(values)
        self.mixing_sha256.copy_(torch.tensor(list(digest.digest())))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Take the seed of a checkpoint, draw the mixing again, and compare hashes."""
        own = self.features_sha256.tolist()
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if arguments[-1]:  # errors of shapes and names, which the caller raises
            return
        features, mixing = self.features_sha256.tolist(), self.mixing_sha256.tolist()
        if features != own:
            raise SamganError(
                f"the discriminator was trained on features of weights with SHA-256 {_told(features)}, and those at "
                f"hand have {_told(own)}: put back the weights that the run began with"
            )
        self._draw()
        if self.mixing_sha256.tolist() != mixing:
            raise SamganError(
                f"the discriminator was trained on a frozen mixing with SHA-256 {_told(mixing)}, and its seed "
                f"{int(self.seed)} now gives {_told(self.mixing_sha256.tolist())}: continue with the version of samgan "
                "and torch that the run began with"
            )

    def forward(self, images: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Return the maps y_l of images in [-1, 1], largest first. Differentiable, any number of times."""
        x = resize(images, self.seen) * self.gain + self.offset
        if self.colours == 3 and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        found = self.network.maps(channels_last(x))
        mixed: list[Tensor] = []
        for level in reversed(range(len(found))):
            y = F.conv2d(found[level], self.get_buffer(f"across_{level}"))
            if mixed:
                y = (y + mixed[-1]) * HALF
            # Before it is enlarged, which gives the same map with a quarter of the multiplications.
            mixed.append(upsample(F.conv2d(y, self.get_buffer(f"along_{level}"))))
        return mixed[::-1]


def load_pretrained(config: NetworkConfig) -> tuple[nn.Module, str]:
    """The pretrained network that a configuration names, and the SHA-256 of its file of weights.

    Raises:
        SamganError: Its weights are not installed, or the file that was given does not hold them.
    """
    record, file = NETWORKS[config.vision_features], config.vision_file
    try:
        return load_network(record, Path(file) if file else None)
    except SamganError as error:
        told = str(error).replace("--features-file", "--network.vision_file")
        raise SamganError(f"network.vision_features {record.name}: {told}") from error


def freeze(network: nn.Module) -> nn.Module:
    """Make all weights of a network constants: neither parameters nor in a state dict."""
    if isinstance(network, EfficientNetLite0):
        network.merge_batch_norms()
    for module in network.modules():
        values = {**module._parameters, **module._buffers}
        for name, value in values.items():
            delattr(module, name)
            if value is None:
                module.register_buffer(name, None)
            else:
                value = value.detach()
                module.register_buffer(name, channels_last(value) if value.ndim == 4 else value, persistent=False)
    return network.eval()


def resize(images: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n c _ _"]:
    """Images at another side, both powers of two: averaged down, or enlarged bilinearly."""
    own = images.shape[-1]
    if own > side:
        return F.avg_pool2d(images, own // side)
    while images.shape[-1] < side:
        images = upsample(images)
    return images


def _have_values() -> bool:
    """Whether tensors made here have values, and not only shapes, as in a dry run."""
    probe = torch.empty(0)
    return type(probe) is Tensor and not probe.is_meta


def _told(digest: list[int]) -> str:
    return bytes(digest).hex()[:12]
