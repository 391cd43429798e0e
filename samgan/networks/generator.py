"""The generator: from a latent to an image at every scale."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.networks.alias_free import AliasFreeBlock, styles_of
from samgan.networks.blocks import GENERATOR_BLOCKS
from samgan.networks.configured import convolutions
from samgan.networks.convolutions import activate
from samgan.networks.modulated import ModulatedConv2d, modulations
from samgan.networks.pyramid import Pyramid, check_labels

MAPPING_RATE = 0.1  # learning rate of the mapping's layers, relative to the rest of the generator


class Generator(nn.Module):
    """Map a latent to an image at every scale.

    The latent is scaled to length sqrt(latent_size) here, so that every user of the network treats it in the same way.
    The style is the latent itself, or the output of the layers of `mapping`, which learn at `MAPPING_RATE`.

    With classes, the latent z becomes [z, e_y], where e_y is a learned vector of class y, scaled to the same length.

    Source: Karnewar and Wang 2020 (MSG-GAN), section 2; attention in each block: the paper's Fig. 1. Mapping: Karras et
    al. 2019 (StyleGAN), section 2; there at a hundredth of the rate. Classes: the code of Karras et al. 2020 (ADA).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.latent_size, self.resolution = config.latent_size, config.resolution
        self.resolutions = config.resolutions
        conv, _ = convolutions(config, "generator")
        self.embed = nn.Embedding(config.num_classes, self.latent_size) if config.num_classes else None
        sizes = [config.input_size] + [self.latent_size] * config.mapping_layers
        self.mapping = nn.ModuleList(conv(before, behind, 1) for before, behind in itertools.pairwise(sizes))
        block = GENERATOR_BLOCKS[config.generator_blocks]
        self.blocks = nn.ModuleList(block(config, side) for side in config.resolutions)
        self.modulated = [layer for layer in self.modules() if isinstance(layer, ModulatedConv2d)]
        self.tanh = config.image_activation == "tanh"

    truncation: tuple[float, Float[Tensor, "m s 1 1"]] | None = None
    """How far styles are moved, and where to: the mean style of each class, or one for all."""

    @property
    def has_styles(self) -> bool:
        """Whether a style, which is not the latent itself, modulates the layers."""
        return len(self.mapping) > 0

    @property
    def is_alias_free(self) -> bool:
        """Whether its blocks are those of `samgan.networks.alias_free`."""
        return isinstance(self.blocks[0], AliasFreeBlock)

    @torch.no_grad()
    def truncated(self, psi: float, latents: Float[Tensor, "n latent"]) -> "Generator":
        """A network of the same weights whose styles w are moved towards their mean m, to m + psi (w - m).

        With classes, m is the mean style of the image's own class.

        Args:
            psi: 1 changes nothing; with 0, all images (of a class) have the mean style.
            latents: Those whose styles are averaged.

        Source: Karras et al. 2019 (StyleGAN), appendix B.
        """
        means = []
        for label in range(1 if self.embed is None else self.embed.num_embeddings):
            labels = None if self.embed is None else torch.full((len(latents),), label, device=latents.device)
            means.append(self._styles(self._inputs(latents, labels)).mean(dim=0))
        other = copy.copy(self)
        other.truncation = psi, torch.stack(means)
        return other

    def rate_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Groups of parameters, each with a factor for the learning rate."""
        mapping = list(self.mapping.parameters())
        slow = {id(parameter) for parameter in mapping}
        others = [parameter for parameter in self.parameters() if id(parameter) not in slow]
        return [(others, 1.0), (mapping, MAPPING_RATE)] if mapping else [(others, 1.0)]

    def forward(
        self, latents: Float[Tensor, "n latent"], labels: Int[Tensor, " n"] | None = None, scales: int | None = None
    ) -> Pyramid:
        """Return the images [n, channels, side, side] of all scales, or of the largest alone, smallest first.

        Args:
            latents: What the images are made of.
            labels: Class of each image.
            scales: Compute only so many of the smallest images; default: all.

        Raises:
            ValueError: Labels (0 to num_classes - 1) are missing, or were given to a network without classes.
        """
        check_labels(labels, wanted=self.embed is not None)
        latents = self._inputs(latents, labels)
        styles = self._styles(latents)
        if self.truncation is not None:
            psi, means = self.truncation
            mean = means if labels is None else means[labels]
            styles = mean + psi * (styles - mean)
        x = image = None
        pyramid = []
        count = len(self.blocks) if scales is None else scales
        modulation = self._modulation(styles, latents, count)
        for block, of_block in zip(itertools.islice(self.blocks, count), modulation, strict=True):
            x, image = block(x, latents, of_block, image)
            if image is not None:
                pyramid.append(image)
        return [image.tanh() for image in pyramid] if self.tanh else pyramid

    def _inputs(
        self, latents: Float[Tensor, "n latent"], labels: Int[Tensor, " n"] | None
    ) -> Float[Tensor, "n inputs 1 1"]:
        """The latents, and the vectors of the classes, each scaled to one length."""
        latents = F.normalize(latents, dim=1) * self.latent_size**0.5
        if self.embed is not None:
            embedded = F.normalize(self.embed(labels), dim=1) * self.latent_size**0.5
            latents = torch.cat([latents, embedded], dim=1)
        return latents[:, :, None, None]

    def _styles(self, styles: Float[Tensor, "n inputs 1 1"]) -> Float[Tensor, "n s 1 1"]:
        """The mapping of inputs, or the inputs themselves."""
        for layer in self.mapping:
            styles = activate(layer(styles))
        return styles

    def _modulation(
        self, styles: Float[Tensor, "n s 1 1"], latents: Float[Tensor, "n l 1 1"], count: int
    ) -> list[Sequence[Any]]:
        """What the styles, and the latents by noise, do to the layers of the first blocks; nothing for plain blocks."""
        if self.is_alias_free:
            return list(styles_of(self.blocks, styles))[:count]
        found = modulations(self.modulated[: 2 * count], styles, latents) if self.modulated else []
        return [found[2 * number : 2 * number + 2] for number in range(count)]
