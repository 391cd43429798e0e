"""The blocks of both networks, one per scale: those of MSG-GAN and those of our own presets."""

from functools import partial

import torch
from torch import Tensor, nn

from samgan.config import NetworkConfig
from samgan.networks.alias_free import AliasFreeBlock
from samgan.networks.configured import attention, convolutions
from samgan.networks.convolutions import (
    activate,
    activate_and_normalize,
    activate_then_halve,
    channels_last,
    halve,
    image_conv,
    precision_of,
    upsample_conv,
)
from samgan.networks.grouped import GroupedDiscriminatorBlock, GroupedGeneratorBlock
from samgan.networks.minibatch_std import MinibatchStdDev
from samgan.networks.modulated import ModulatedConv2d, Modulation, add_image
from samgan.networks.residual import plain_residual_block, residual_block

HALF = 0.5**0.5  # keeps the mean square when two are added
IMAGE_GAIN = 0.3  # for heads whose images add up: the sum of five starts within [-1, 1]


class _GeneratorBlock(nn.Module):
    """One scale of MSG-GAN: [upsample, or unfold the latent], two convolutions, attention, and the head to_image."""

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = convolutions(config, "generator")
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
        self.attention = attention(config, width, conv, resolution in config.generator_attention)
        self.to_image = end(width, config.image_channels, 1)

    def forward(
        self, x: Tensor | None, latents: Tensor, modulation: Modulation, image: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x = channels_last(self.conv_1(latents)) if x is None else upsample_conv(x, self.conv_1)
        x = self.activate_1(x)
        x = self.activate_2(self.conv_2(x))
        x = self.attention(x)
        return x, self.to_image(x)


class _ModulatedBlock(nn.Module):
    """One scale of the style-based generator: [upsample, or a learned start], two modulated convolutions, attention.

    The head adds to the image of the scale below, so that each scale draws only what the scale below could not.

    Source: Karras et al. 2020 (StyleGAN2), Fig. 7, output skips; here every image is an output, as in MSG-GAN.
    """

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = convolutions(config, "generator")
        width, style = config.channels(resolution), config.latent_size if config.mapping_layers else config.input_size
        self.start = nn.Parameter(torch.randn(1, width, 4, 4)) if resolution == 4 else None
        below = config.channels(max(4, resolution // 2))
        # Noise in every pixel of the largest image becomes grain, which radiographs do not have at this size.
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
        self.attention = attention(config, width, conv, resolution in config.generator_attention)
        self.to_image = end(width, config.image_channels, 1, gain=IMAGE_GAIN)

    def forward(
        self, x: Tensor | None, latents: Tensor, modulation: Modulation, image: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.start is not None:
            x = channels_last(self.start.expand(latents.shape[0], -1, -1, -1))
        assert x is not None
        for layer, (style, noise) in zip((self.conv_1, self.conv_2), modulation, strict=True):
            x = layer.modulate(x, style, noise)
        x = self.attention(x)
        weight, bias = self.to_image.operands()
        assert bias is not None
        return x, add_image(x, weight, bias, image)


GENERATOR_BLOCKS = {
    "plain": _GeneratorBlock,
    "modulated": _ModulatedBlock,
    "grouped": GroupedGeneratorBlock,
    "alias-free": AliasFreeBlock,
}


class _DiscriminatorBlock(nn.Module):
    """One scale of MSG-GAN: join the image to the features from above, attention, std, two convolutions, halve.

    The last block (4 px) ends in one pixel instead, and holds the convolution that turns it into a logit.
    """

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = convolutions(config, "discriminator")
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
        self.attention = attention(config, joined, conv, resolution in config.discriminator_attention)
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
        x = self.conv_2(activate(x))
        return activate(x) if self.last else activate_then_halve(x)


class _ResidualBlock(nn.Module):
    """One scale of the residual discriminator: add the image's features, attention, minibatch std, two convolutions.

    The second convolution follows the halving, so it is computed at the lower resolution. The skip path is a 1x1
    convolution of the halved input. The last block (4 px) ends in one pixel and has no skip path.

    Source: Karras et al. 2020 (StyleGAN2), Fig. 7, residual discriminator; here an image enters every block, as in
    MSG-GAN.
    """

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = convolutions(config, "discriminator")
        width = config.channels(resolution)
        self.last = resolution == 4
        self.from_image = end(config.image_channels, width, 3, padding=1, gain=1.0)
        self.attention = attention(config, width, conv, resolution in config.discriminator_attention)
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
        has_attention = not isinstance(self.attention, nn.Identity)
        self.is_plain = not self.last and not has_attention and not has_std
        # The largest image is joined with nothing. If training begins with a smaller one, that does not know it.
        self.joined = joined = 1.0 if resolution == config.resolution else HALF
        if self.is_plain:
            # A positive factor may be moved past an activation and a convolution, into the weights.
            self.conv_1.gains, self.conv_2.gains, self.skip.gains = (joined, 1.0), (HALF, HALF), (joined * HALF, 1.0)

    def forward(self, image: Tensor, x: Tensor | None, labels: Tensor | None = None, batches: int = 1) -> Tensor:
        image = channels_last(image)
        if self.is_plain:
            layers = (self.from_image, self.conv_1, self.conv_2, self.skip)
            weights = [one for layer in layers for one in layer.operands() if one is not None]
            dtype = precision_of(image)
            block = residual_block if image.device.type == "cpu" else plain_residual_block
            return block(
                None if x is None else x.to(dtype), image.to(dtype), tuple(weight.to(dtype) for weight in weights)
            )
        features = activate(self.from_image(image))
        features = features if x is None else x + features
        x = self.attention(features if self.joined == 1 else features * self.joined)
        y = activate(self.conv_1(self.minibatch_std(x, labels, batches) if self.minibatch_std else x))
        if self.last:
            return activate(self.conv_2(y))
        return self.skip(halve(x)).add_(activate(self.conv_2(halve(y)))).mul_(HALF)


DISCRIMINATOR_BLOCKS: dict[str, type[_DiscriminatorBlock | _ResidualBlock | GroupedDiscriminatorBlock] | None] = {
    "plain": _DiscriminatorBlock,
    "residual": _ResidualBlock,
    "grouped": GroupedDiscriminatorBlock,
    "projected": None,  # nothing but the heads of samgan.networks.projected
    "vision": _ResidualBlock,  # and those heads beside it
}
