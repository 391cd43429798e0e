"""The blocks of R3GAN: residual, with convolutions in groups of channels and without any norm, for both networks."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.networks.configured import attention, convolutions
from samgan.networks.convolutions import SLOPE, EqualizedConv2d, activate, channels_last, halve, precision_of, upsample
from samgan.networks.modulated import Modulation

GROUP = 16  # channels of a group: 1,536 / 96 in the paper's networks, the same at all scales
EXPANSION = 2  # how many times wider the convolution in groups is
DEPTH = 2  # residual paths of a scale
LAYERS = 3  # convolutions of a residual path
ACTIVE = math.sqrt(2 / (1 + SLOPE**2))  # keeps the mean square across a leaky ReLU
HALF = 0.5**0.5  # keeps the mean square when two are added


class GroupedConv2d(EqualizedConv2d):
    """A convolution in groups: each group of output channels sees its own group of input channels only.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel.
        groups: Number of groups; it divides both numbers of channels.
        options: Those of `EqualizedConv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, groups: int, **options: Any) -> None:
        super().__init__(in_channels // groups, out_channels, kernel_size, **options)
        self.groups = groups

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Convolve."""
        dtype = precision_of(x)
        weight, bias = (None if one is None else one.to(dtype) for one in self.operands())
        assert weight is not None
        if not torch.is_grad_enabled():
            return F.conv2d(x.to(dtype), weight, bias, padding=self.padding, groups=self.groups)
        with torch.autocast(x.device.type, enabled=False):  # all have their precision now
            return grouped_conv(x.to(dtype), weight, bias, self.padding, self.groups)


def grouped_conv(
    x: Float[Tensor, "n c h w"], weight: Float[Tensor, "d e k k"], bias: Tensor | None, padding: int, groups: int
) -> Float[Tensor, "n d i j"]:
    """`F.conv2d` in groups, whose second derivative does not go through the groups one by one, as torch's does.

    Only the gradient of x can be differentiated again, and only once; those of weight and bias are then NaN.
    """
    return _Grouped.apply(x, weight, bias, padding, groups)


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.groups, ctx.has_bias = padding, groups, bias is not None
        return F.conv2d(x, weight, bias, padding=padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradients will be differentiated
            none = g.new_full((), torch.nan)
            g_bias = none.expand(len(weight)) if ctx.has_bias else None
            return _Adjoint.apply(g, x, weight, ctx.padding, ctx.groups), none.expand_as(weight), g_bias, None, None
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        return (*_back(ctx, g, x, weight, (needs_x, needs_weight, needs_bias)), None, None)


class _Adjoint(torch.autograd.Function):
    """The gradient of x, as a function of the output's gradient and of the weight; the values of x do not matter."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(g, weight)
        ctx.padding, ctx.groups = padding, groups
        return _back(ctx, g, x, weight, (True, False, False))[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = gradients
        g, weight = ctx.saved_tensors
        g_weight = _back(ctx, g, v, weight, (False, True, False))[1]
        return F.conv2d(v, weight, padding=ctx.padding, groups=ctx.groups), None, g_weight, None, None


def _back(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> Any:
    """The gradients of a convolution's input, weight and bias, where wanted."""
    sizes = [len(weight)] if wanted[2] else None
    padding = [ctx.padding, ctx.padding]
    return torch.ops.aten.convolution_backward(
        g, x, weight, sizes, [1, 1], padding, [1, 1], False, [0, 0], ctx.groups, wanted
    )


class Residual(nn.Module):
    """An inverted bottleneck beside a shortcut: x + W3 act(W2 act(W1 x + b1) + b2).

    W1 (1x1) leads to `EXPANSION` times as many channels, W2 (3x3) is in groups, and W3 (1x1) leads back. Without a
    norm, what L such paths add could grow with every one of them. So W3 starts at zero, and W1 and W2 start smaller
    than usual, by the factor L^(-1 / (2 m - 2)) for m = 3 convolutions.

    Args:
        channels: Channels of the input and of the output.
        paths: L, the number of residual paths of the network.
        equalized: As for `EqualizedConv2d`.

    Source: Huang et al. 2024 (R3GAN), section 4; Zhang et al. 2019 (Fixup), section 3.
    """

    def __init__(self, channels: int, paths: int, *, equalized: bool = True) -> None:
        super().__init__()
        wide, gain = EXPANSION * channels, ACTIVE * paths ** (-1 / (2 * LAYERS - 2))
        groups = wide // math.gcd(wide, GROUP)
        self.expand = EqualizedConv2d(channels, wide, 1, equalized=equalized, gain=gain)
        self.mix = GroupedConv2d(wide, wide, 3, groups=groups, padding=1, equalized=equalized, gain=gain)
        self.reduce = EqualizedConv2d(wide, channels, 1, equalized=equalized, gain=1.0, bias=False)
        nn.init.zeros_(self.reduce.weight)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Add the path to x."""
        return x + self.reduce(activate(self.mix(activate(self.expand(x)))))


def _paths(config: NetworkConfig, channels: int) -> nn.Sequential:
    """The residual paths of a scale."""
    total = DEPTH * len(config.resolutions)
    return nn.Sequential(*(Residual(channels, total, equalized=config.equalized_lr) for _ in range(DEPTH)))


def _change(conv: Callable[..., EqualizedConv2d], before: int, behind: int) -> nn.Module:
    """To the number of channels of the next scale."""
    return nn.Identity() if before == behind else conv(before, behind, 1, bias=False, gain=1.0)


class GroupedGeneratorBlock(nn.Module):
    """One scale of R3GAN's generator: [enlarge, or scale a learned start by the latent], residual paths, attention.

    With `network.scales: largest`, only the last block has a head that makes an image.

    Source: Huang et al. 2024 (R3GAN), section 4, its config E. Attention and images of smaller scales are not in it.
    """

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = convolutions(config, "generator")
        width = config.channels(resolution)
        self.start = nn.Parameter(torch.randn(1, width, 4, 4)) if resolution == 4 else None
        if resolution == 4:
            self.scale = conv(config.input_size, width, 1, bias=False, gain=1.0)
        else:
            self.change = _change(conv, config.channels(resolution // 2), width)
        self.paths = _paths(config, width)
        self.attention = attention(config, width, conv, resolution in config.generator_attention)
        has_image = resolution in config.image_sides
        self.to_image = end(width, config.image_channels, 1, bias=False, gain=1.0) if has_image else None

    def forward(
        self, x: Tensor | None, latents: Tensor, modulation: Modulation, image: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The features of this scale from those below, and the image of this scale, if it has one."""
        if self.start is not None:
            scales = self.scale(latents)
            x = channels_last(self.start.to(scales.dtype) * scales)
        else:
            assert x is not None
            x = upsample(self.change(x))
        x = self.attention(self.paths(x))
        if self.to_image is None:
            return x, None
        image = self.to_image(x)
        return x, image.to(torch.promote_types(image.dtype, torch.float32))


class GroupedDiscriminatorBlock(nn.Module):
    """One scale of R3GAN's discriminator: [add the image's features,] attention, residual paths, halve.

    The last block (4 px) ends in one pixel instead: each channel is a weighted sum of its pixels. Halving is bilinear,
    which is the mean of 2x2 pixels; the authors' code weighs neighbours by 1, 2, 1.

    Source: Huang et al. 2024 (R3GAN), section 4, its config E. Attention and images of smaller scales are not in it.
    """

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = convolutions(config, "discriminator")
        width = config.channels(resolution)
        self.last = resolution == 4
        has_image = resolution in config.image_sides
        self.from_image = end(config.image_channels, width, 1, bias=False, gain=1.0) if has_image else None
        self.attention = attention(config, width, conv, resolution in config.discriminator_attention)
        self.paths = _paths(config, width)
        if self.last:
            self.weights = EqualizedConv2d(1, width, 4, bias=False, gain=1.0, equalized=config.equalized_lr)
            self.to_logit = end(width, 1, 1, bias=False, gain=1.0)
        else:
            self.change = _change(conv, width, config.channels(resolution // 2))

    def forward(self, image: Tensor | None, x: Tensor | None, labels: Tensor | None = None, batches: int = 1) -> Tensor:
        """The features for the block below, from those of the block above and the image of this scale."""
        if self.from_image is not None and image is not None:
            features = self.from_image(channels_last(image))
            x = features if x is None else (x + features) * HALF
        assert x is not None
        x = self.paths(self.attention(x))
        if self.last:
            weights, _ = self.weights.operands()
            return (x * weights[:, 0]).sum(dim=(2, 3), keepdim=True)  # as a convolution, it would be slow
        return self.change(halve(x))
