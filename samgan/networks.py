"""Generator and Discriminator: MSG-GAN with every switch of the paper's Table 2, and blocks of our own recipe.

A pyramid is a list of images of sides 4, 8, ..., resolution, smallest first, float32 around [-1, 1].
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.layers import (
    ATTENTION,
    EqualizedConv2d,
    MinibatchStdDev,
    ModulatedConv2d,
    SelfAttention,
    SqueezeExcitation,
    activate,
    activate_and_normalize,
    channels_last,
    image_conv,
    upsample,
    upsample_conv,
)

Pyramid = list[Tensor]
HALF = 0.5**0.5  # keeps the mean square of a sum of two
MAPPING_RATE = 0.1  # of the mapping's layers, over the generator's learning rate
IMAGE_GAIN = 0.3  # of heads whose images add up: with five, they start within [-1, 1]


def _convolutions(config: NetworkConfig, network: str) -> tuple[Callable[..., EqualizedConv2d], ...]:
    """Constructors of a hidden convolution and of one at the network's ends (images, logits)."""
    spectral = config.spectral_norm in (network, "both")
    conv = partial(EqualizedConv2d, equalized=config.equalized_lr, spectral_scale=config.spectral_norm_scale)
    return partial(conv, spectral=spectral), partial(conv, spectral=spectral and config.spectral_norm_layers == "all")


def _check_labels(labels: Tensor | None, wanted: bool) -> None:
    if (labels is not None) != wanted:
        raise ValueError("labels are wanted where network.num_classes is not 0, and only there")


def _attention(config: NetworkConfig, channels: int, conv: Callable[..., EqualizedConv2d], used: bool) -> nn.Module:
    if not used:
        return nn.Identity()
    kind = ATTENTION[config.attention_kind]
    if not issubclass(kind, SelfAttention):
        return kind(channels, conv, reduction=config.attention_reduction)
    return kind(
        channels,
        conv,
        reduction=config.attention_reduction,
        value_reduction=config.attention_value_reduction,
        pooled=config.attention_pooled,
    )


class _GeneratorBlock(nn.Module):
    """One scale of MSG-GAN: [up-sample or unfold the latent], two convolutions, attention, and the head to_image."""

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = _convolutions(config, "generator")
        width = config.channels(resolution)
        self.first = resolution == 4
        self.activate_2 = activate_and_normalize if config.pixel_norm else activate
        # MSG-GAN normalises the 4x4 block once, after its second convolution.
        self.activate_1 = activate if self.first else self.activate_2
        if self.first:
            self.conv_1 = conv(config.input_size, width, 4, transposed=True)
        else:
            self.conv_1 = conv(config.channels(resolution // 2), width, 3, padding=1)
        self.conv_2 = conv(width, width, 3, padding=1)
        self.attention = _attention(config, width, conv, resolution in config.generator_attention)
        self.to_image = end(width, config.image_channels, 1)

    def forward(self, x: Tensor | None, latents: Tensor, styles: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor]:
        x = channels_last(self.conv_1(latents)) if x is None else upsample_conv(x, self.conv_1)
        x = self.activate_1(x)
        x = self.activate_2(self.conv_2(x))
        x = self.attention(x)
        return x, self.to_image(x)


class _ModulatedBlock(nn.Module):
    """One scale of the style-based generator: [up-sample or the learned start], two modulated convolutions, attention.

    The head adds to the image of the scale below, so that each scale draws only what the one below could not.

    Source: Karras et al. 2020 (StyleGAN2), Fig. 7, output skips; every image is an output here, as in MSG-GAN.
    """

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = _convolutions(config, "generator")
        width, style = config.channels(resolution), config.latent_size if config.mapping_layers else config.input_size
        self.start = nn.Parameter(torch.randn(1, width, 4, 4)) if resolution == 4 else None
        below = config.channels(max(4, resolution // 2))
        # Noise in every pixel of the largest image ends as grain in it, which radiographs do not have at this size.
        noise = config.noise == "all" or (config.noise == "lower" and resolution < config.resolution)
        modulated = partial(
            ModulatedConv2d,
            resolution=resolution,
            style_size=style,
            latent_size=config.latent_size,
            conv=conv,
            noise=noise,
        )
        self.conv_1 = modulated(below, width, upsample=resolution > 4)
        self.conv_2 = modulated(width, width)
        self.attention = _attention(config, width, conv, resolution in config.generator_attention)
        self.to_image = end(width, config.image_channels, 1, gain=IMAGE_GAIN)

    def forward(self, x: Tensor | None, latents: Tensor, styles: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.start is not None:
            x = channels_last(self.start.expand(len(latents), -1, -1, -1))
        assert x is not None
        x = activate(self.conv_1(x, styles, latents))
        x = activate(self.conv_2(x, styles, latents))
        x = self.attention(x)
        own = self.to_image(x)
        own = own.to(torch.promote_types(own.dtype, torch.float32))  # images add up, and meet real ones, unrounded
        return x, own if image is None else own + upsample(image)


GENERATOR_BLOCKS = {"plain": _GeneratorBlock, "modulated": _ModulatedBlock}


class Generator(nn.Module):
    """From a latent to an image at every scale.

    The latent is scaled to length sqrt(latent_size) here, so that every user of the network feeds it alike. What
    modulates is the latent itself, or what the layers of `mapping` make of it; they learn at `MAPPING_RATE`.

    With classes, the latent z becomes [z, e_y]: beside it stands a learned vector of class y, scaled to that length.

    Source: Karnewar and Wang 2020 (MSG-GAN), section 2; attention in each block: the paper's Fig. 1. Mapping: Karras et
    al. 2019 (StyleGAN), section 2; there at a hundredth of the rate. Classes: Karras et al. 2020 (ADA), its code.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.latent_size = config.latent_size
        conv, _ = _convolutions(config, "generator")
        self.embed = nn.Embedding(config.num_classes, self.latent_size) if config.num_classes else None
        sizes = [config.input_size] + [self.latent_size] * config.mapping_layers
        self.mapping = nn.ModuleList(conv(before, behind, 1) for before, behind in itertools.pairwise(sizes))
        block = GENERATOR_BLOCKS[config.generator_blocks]
        self.blocks = nn.ModuleList(block(config, side) for side in config.resolutions)
        self.tanh = config.image_activation == "tanh"

    def forward(self, latents: Float[Tensor, "n latent"], labels: Int[Tensor, " n"] | None = None) -> Pyramid:
        """Return the pyramid [n, channels, side, side], smallest first.

        Raises:
            ValueError: Labels (0 to num_classes - 1) are missing, or there are no classes.
        """
        _check_labels(labels, wanted=self.embed is not None)
        latents = F.normalize(latents, dim=1) * self.latent_size**0.5
        if self.embed is not None:
            embedded = F.normalize(self.embed(labels), dim=1) * self.latent_size**0.5
            latents = torch.cat([latents, embedded], dim=1)
        latents = latents[:, :, None, None]
        styles = latents
        for layer in self.mapping:
            styles = activate(layer(styles))
        x = image = None
        pyramid = []
        for block in self.blocks:
            x, image = block(x, latents, styles, image)
            pyramid.append(image)
        return [image.tanh() for image in pyramid] if self.tanh else pyramid


class _DiscriminatorBlock(nn.Module):
    """One scale of MSG-GAN: join the image to the features from above, attention, std, two convolutions, halve.

    The last block (4 px) ends in one pixel instead, and holds the convolution that makes a logit of it.
    """

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = _convolutions(config, "discriminator")
        width, images = config.channels(resolution), config.image_channels
        self.last = resolution == 4
        self.combine = "first" if resolution == config.resolution else config.combine
        joined = width + images if self.combine == "simple" else width
        if self.combine == "first":
            self.from_image = end(images, width, 1)
        elif self.combine == "lin_cat":
            self.from_image = end(images, width // 2, 1)
        elif self.combine == "cat_lin":
            self.from_image = end(width + images, width, 1)
        self.attention = _attention(config, joined, conv, resolution in config.discriminator_attention)
        has_std = config.minibatch_std == "every" or (config.minibatch_std == "last" and self.last)
        self.minibatch_std = MinibatchStdDev(config.minibatch_std_group) if has_std else None
        has_attention = not isinstance(self.attention, nn.Identity)
        self.starts_linear = self.combine in ("first", "lin_cat") and not has_attention and not has_std
        self.conv_1 = conv(joined + has_std, width, 3, padding=1)
        if self.last:
            self.conv_2 = conv(width, width, 4)
            self.to_logit = end(width, 1, 1)
        else:
            below = config.channels(resolution // 2)
            self.conv_2 = conv(width, below // 2 if config.combine == "lin_cat" else below, 3, padding=1)

    def _join(self, image: Tensor, x: Tensor | None) -> Tensor:
        if x is None:
            return channels_last(self.from_image(image))
        if self.combine == "lin_cat":
            return torch.cat([channels_last(self.from_image(image)), x], dim=1)
        x = torch.cat([x, image], dim=1)
        return self.from_image(x) if self.combine == "cat_lin" else x

    def forward(self, image: Tensor, x: Tensor | None, labels: Tensor | None = None, batches: int = 1) -> Tensor:
        if self.starts_linear:
            x = image_conv(image, x, self.from_image, self.conv_1)
        else:
            x = self.attention(self._join(image, x))
            x = self.conv_1(self.minibatch_std(x, labels, batches) if self.minibatch_std else x)
        x = activate(x)
        x = activate(self.conv_2(x))
        return x if self.last else F.avg_pool2d(x, 2)


class _ResidualBlock(nn.Module):
    """One scale of the residual discriminator: add the image's features, attention, minibatch std, two convolutions.

    The second convolution follows the halving, so that it is computed at the lower resolution; beside both runs a 1x1
    convolution of the halved input. The last block (4 px) ends in one pixel instead.

    Source: Karras et al. 2020 (StyleGAN2), Fig. 7, residual discriminator; an image enters every block, as in MSG-GAN.
    """

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = _convolutions(config, "discriminator")
        width = config.channels(resolution)
        self.last = resolution == 4
        self.from_image = end(config.image_channels, width, 3, padding=1, gain=1.0)
        self.attention = _attention(config, width, conv, resolution in config.discriminator_attention)
        has_std = config.minibatch_std == "every" or (config.minibatch_std == "last" and self.last)
        self.minibatch_std = MinibatchStdDev(config.minibatch_std_group) if has_std else None
        self.conv_1 = conv(width + has_std, width, 3, padding=1)
        if self.last:
            self.conv_2 = conv(width, width, 4)
            self.to_logit = end(width, 1, 1, gain=1.0)
        else:
            below = config.channels(resolution // 2)
            self.conv_2 = conv(width, below, 3, padding=1)
            self.skip = conv(width, below, 1, bias=False, gain=1.0)

    def forward(self, image: Tensor, x: Tensor | None, labels: Tensor | None = None, batches: int = 1) -> Tensor:
        features = activate(self.from_image(channels_last(image)))
        x = self.attention(features if x is None else (x + features).mul_(HALF))
        y = activate(self.conv_1(self.minibatch_std(x, labels, batches) if self.minibatch_std else x))
        if self.last:
            return activate(self.conv_2(y))
        return self.skip(F.avg_pool2d(x, 2)).add_(activate(self.conv_2(F.avg_pool2d(y, 2)))).mul_(HALF)


DISCRIMINATOR_BLOCKS = {"plain": _DiscriminatorBlock, "residual": _ResidualBlock}


class Discriminator(nn.Module):
    """From a pyramid to one raw logit per image; every scale's image enters at its own block.

    With classes, the logit of an image with class y is

        C(x, y) = C(x) + sum_s <e_sy, h_s(x)>

    with h_s the features behind block s, averaged over their pixels, for the last block alone or for every one: then
    the class reaches each scale's image by its own way, as the logit does. e is drawn and normed as the weight of the
    logit is.

    Source: Karnewar and Wang 2020 (MSG-GAN), section 2; the combine functions: its section 2.2. Classes: Miyato and
    Koyama 2018, section 3, there behind the last block; a condition at every scale: Zhang et al. 2018 (StackGAN++).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.resolutions = config.resolutions
        block = DISCRIMINATOR_BLOCKS[config.discriminator_blocks]
        self.blocks = nn.ModuleList(block(config, side) for side in config.resolutions)
        self.projections = nn.ModuleDict()  # by resolution
        if config.num_classes:
            _, end = _convolutions(config, "discriminator")
            sides = {"last": self.resolutions[:1], "every": self.resolutions}[config.class_projection]
            for side, seen in zip(sides, self.blocks, strict=False):
                channels = len(seen.get_parameter("conv_2.weight"))
                self.projections[str(side)] = end(channels, config.num_classes, 1, bias=False, gain=1.0)

    def forward(
        self, pyramid: Pyramid, labels: Int[Tensor, " m"] | None = None, batches: int = 1
    ) -> Float[Tensor, " n"]:
        """Return the logits of a pyramid given smallest first.

        Args:
            pyramid: Images [n, channels, side, side] of every scale.
            labels: Class of each image, 0 to num_classes - 1; or of those of one batch, if image i of each batch has
                the same class.
            batches: Number of batches of equal size that lie in the pyramid one after the other. They do not see each
                other: minibatch std is of each batch alone.

        Raises:
            ValueError: The images are not of the sides this network was built for, in that order; labels are missing,
                or there are no classes.
        """
        _check_labels(labels, wanted=len(self.projections) > 0)
        sides = tuple(image.shape[-1] for image in pyramid)
        if sides != self.resolutions:
            raise ValueError(f"expected images of sides {self.resolutions}, smallest first; got {sides}")
        if labels is not None:
            labels = labels.repeat(len(pyramid[0]) // len(labels))
        x, terms = None, []
        for side, block, image in zip(reversed(sides), reversed(self.blocks), reversed(pyramid), strict=True):
            x = block(image, x, labels, batches)
            if labels is not None and str(side) in self.projections:
                # <e_k, h> of every class k, of which an image's own is taken.
                products = self.projections[str(side)](x.mean(dim=(2, 3), keepdim=True)).flatten(1)
                terms.append(products.gather(1, labels[:, None]).flatten())
        logits = self.blocks[0].get_submodule("to_logit")(x).flatten()
        return logits + sum(terms) if terms else logits


def image_pyramid(images: Float[Tensor, "n c h w"], resolutions: tuple[int, ...]) -> Pyramid:
    """Average `images` down to every side of `resolutions`, smallest first. Source: MSG-GAN, section 2."""
    pyramid = [images]
    for _ in resolutions[1:]:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return pyramid[::-1]


def attention_gammas(network: Generator | Discriminator) -> dict[int, Tensor]:
    """The gate gamma of each attention layer by its resolution."""
    return {
        4 << scale: block.attention.gamma.detach()
        for scale, block in enumerate(network.blocks)
        if isinstance(block.attention, SelfAttention | SqueezeExcitation)
    }


def attention_maps(network: Generator | Discriminator, *inputs: Any) -> dict[int, Tensor]:
    """Where each layer of self, linear or dual attention looks, for pictures.

    Args:
        network: Either network.
        inputs: What its forward pass takes.

    Returns:
        Per resolution beta of eq. 3, [n, queries, keys] over positions row by row; half a side of keys if pooled. Empty
        for kinds of attention that compare no positions.
    """
    maps: dict[int, Tensor] = {}
    hooks = []
    for scale, block in enumerate(network.blocks):
        if isinstance(block.attention, SelfAttention):  # or a kind derived from it

            def keep(layer: SelfAttention, arguments: tuple[Tensor], side: int = 4 << scale) -> None:
                maps[side] = layer.attention_maps(arguments[0])

            hooks.append(block.attention.register_forward_pre_hook(keep))
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
