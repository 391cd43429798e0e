"""Convolutions modulated by a style, in the plain form and in one with hand-written gradients that is faster."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from samgan.kernels import kernels_fit, run
from samgan.networks.convolutions import GAIN, EqualizedConv2d, activate, precision_of, upsample
from samgan.networks.fused import (
    back,
    convolve,
    demodulation,
    demodulation_backward,
    modulate,
    modulate_backward,
    scale_and_activate,
    scale_and_activate_backward,
)

NOISE_DIRECTIONS = 64


Modulation = Sequence[tuple[Tensor, Tensor | None]]
"""The style and the map of noise of each modulated convolution of a block, as `modulations` computes them."""


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style, and whose output channels are scaled back.

        s = 1 + A w,    y_o = sum_i W_oi * (s_i x_i) / sqrt(sum_ijk (s_i W_oijk)^2 + 1e-8) * gain + noise_o n + bias_o

    The output is act(y), with the leaky ReLU that follows each of these convolutions.

    Scaling the features before and after the convolution gives the same result as scaling the kernel for every image,
    but needs only one kernel. With `upsample`, the result is enlarged twofold (bilinearly) before noise and bias are
    added, so the convolution is computed at the lower resolution.

    n is one map of noise, the same for all channels: n = P z[:64] / 8 of the latent z, with a fixed random matrix P.
    Over many images it looks like independent N(0, 1) noise in every pixel, but an image remains a function of its
    latent, on any device.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        resolution: Side of the output.
        style_size: Channels of the style w.
        conv: Constructor of the convolution and of A: `EqualizedConv2d`, perhaps with some arguments already given.
        upsample: Whether the output has twice the resolution.
        noise: Whether noise is added.
        latent_size: How many of the first channels of the latent z are N(0, 1); default: style_size.

    Source: Karras et al. 2020 (StyleGAN2), section 2.2; there n is drawn anew for every image.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        resolution: int,
        style_size: int,
        conv: Callable[..., EqualizedConv2d] = EqualizedConv2d,
        *,
        upsample: bool = False,
        noise: bool = True,
        latent_size: int | None = None,
    ) -> None:
        super().__init__()
        self.style = conv(style_size, in_channels, 1, gain=1.0)
        self.conv = conv(in_channels, out_channels, 3, padding=1)
        self.upsample = upsample
        self.noise = nn.Parameter(torch.zeros(out_channels, 1, 1)) if noise else None
        if noise:
            # Not saved: NumPy guarantees that this stream of numbers does not change.
            directions = min(NOISE_DIRECTIONS, latent_size or style_size)
            scaled = torch.empty(resolution**2, directions)
            if not scaled.is_meta:
                matrix = np.random.RandomState(2 * resolution + upsample).standard_normal(tuple(scaled.shape))
                scaled = torch.tensor(matrix / directions**0.5, dtype=torch.float)
            self.register_buffer("directions", scaled, persistent=False)

    directions: Tensor

    def forward(
        self, x: Float[Tensor, "n c h w"], w: Float[Tensor, "n s 1 1"], z: Float[Tensor, "n l 1 1"]
    ) -> Float[Tensor, "n d r r"]:
        """Return [n, out_channels, resolution, resolution]; x has that resolution, or half of it."""
        return self.modulate(x, *modulations([self], w, z)[0])

    def modulate(
        self, x: Float[Tensor, "n c h w"], style: Float[Tensor, "n c"], noise: Float[Tensor, "n pixels"] | None
    ) -> Float[Tensor, "n d r r"]:
        """The same from the style s and the map of noise that `modulations` computes."""
        weight, bias = self.conv.operands()
        assert bias is not None
        dtype = precision_of(x)
        function: Callable[..., Tensor] = modulated_conv if x.device.type == "cpu" else plain_modulated_conv
        operands = (x, style, weight, bias, self.noise, noise)
        with torch.autocast(x.device.type, enabled=False):  # all have their precision now
            return function(*(None if one is None else one.to(dtype) for one in operands), enlarge=self.upsample)


def modulations(
    layers: Sequence[ModulatedConv2d], w: Float[Tensor, "n s 1 1"], z: Float[Tensor, "n l 1 1"]
) -> list[tuple[Float[Tensor, "n c"], Float[Tensor, "n pixels"] | None]]:
    """The style and the map of noise of each layer, all styles in one product, and all maps in another."""
    weights, biases = zip(*(layer.style.operands() for layer in layers), strict=True)
    sizes = [len(weight) for weight in weights]
    styles = 1 + F.linear(w.flatten(1), torch.cat(weights).flatten(1), torch.cat(biases))
    noisy = [layer for layer in layers if layer.noise is not None]
    maps: Iterator[Tensor] = iter(())
    if noisy:
        directions = torch.cat([layer.directions for layer in noisy]) if len(noisy) > 1 else noisy[0].directions
        noise = z.flatten(1)[:, : directions.shape[1]].to(directions.dtype) @ directions.T
        maps = iter(noise.split([len(layer.directions) for layer in noisy], dim=1))
    return [
        (style, None if layer.noise is None else next(maps))
        for layer, style in zip(layers, styles.split(sizes, dim=1), strict=True)
    ]


def plain_modulated_conv(
    x: Float[Tensor, "n c h w"],
    style: Float[Tensor, "n c"],
    weight: Float[Tensor, "d c 3 3"],
    bias: Float[Tensor, " d"],
    strength: Float[Tensor, "d 1 1"] | None,
    noise: Float[Tensor, "n pixels"] | None,
    *,
    enlarge: bool,
) -> Float[Tensor, "n d i j"]:
    """Convolve x * style, scale back, add the bias, enlarge twofold if asked, add strength * noise, and activate."""
    squares = style.square() @ weight.square().sum(dim=(2, 3)).T
    scale = GAIN * torch.rsqrt(squares + 1e-8)
    y = F.conv2d(x * style[:, :, None, None], weight, padding=1)
    # Enlarging does not change a constant, so the bias may be added first.
    y = torch.addcmul(bias[:, None, None], y, scale[:, :, None, None])
    if enlarge:
        y = upsample(y)
    if strength is not None and noise is not None:
        y.addcmul_(strength, noise.view(len(y), 1, *y.shape[2:]))
    return activate(y)


def modulated_conv(*operands: Tensor | None, enlarge: bool) -> Float[Tensor, "n d i j"]:
    """Compute the same as `plain_modulated_conv`, on a CPU; its gradients cannot be differentiated again."""
    return _Modulated.apply(*operands, enlarge)


class _Modulated(torch.autograd.Function):
    """Hand-written gradients."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> Tensor:
        x, style, weight, bias, strength, noise, enlarge = operands
        style, noise = style.contiguous(), None if noise is None else noise.contiguous()  # once, not in each kernel
        scale, squares = demodulation(weight, style)
        modulated = modulate(x, style)
        convolved = convolve(modulated, weight)
        y = scale_and_activate(convolved, scale, bias, strength, noise, enlarge=enlarge)
        ctx.enlarge = enlarge
        ctx.save_for_backward(x, style, scale, squares, weight, bias, strength, noise, modulated, convolved, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, style, scale, squares, weight, bias, strength, noise, modulated, convolved, y = ctx.saved_tensors
        g, g_scale, g_bias, g_strength = scale_and_activate_backward(
            gradients[0], y, convolved, scale, bias, strength, noise, enlarge=ctx.enlarge
        )
        g_modulated, g_weight, _ = back(g, modulated, weight, 1, (True, True, False))
        g_x, g_style = modulate_backward(g_modulated, x, style)
        g_style, g_weight = demodulation_backward(g_scale, weight, style, squares, scale, g_style, g_weight)
        return g_x, g_style, g_weight, g_bias, g_strength, None, None


def plain_add_image(
    x: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "i c 1 1"],
    bias: Float[Tensor, " i"],
    below: Float[Tensor, "n i half_h half_w"] | None,
) -> Float[Tensor, "n i h w"]:
    """Map features to an image by a 1x1 convolution, at least in fp32, and add that of half the sides, enlarged."""
    own = F.conv2d(x, weight, bias)
    own = own.to(torch.promote_types(own.dtype, torch.float32))  # avoid rounding when images are added
    return own if below is None else own + upsample(below)


def add_image(
    x: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "i c 1 1"],
    bias: Float[Tensor, " i"],
    below: Float[Tensor, "n i half_h half_w"] | None,
) -> Float[Tensor, "n i h w"]:
    """Compute the same as `plain_add_image`, in one pass where there is a kernel; its gradients have no derivatives."""
    dtype = precision_of(x)
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    if len(weight) == 1 and kernels_fit(x):
        return _AddImage.apply(x, weight, bias, below)
    return plain_add_image(x, weight, bias, below)


class _AddImage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, below: Tensor | None) -> Tensor:
        n, c, h, w = x.shape
        image = torch.empty((n, 1, h, w), dtype=torch.promote_types(x.dtype, torch.float32))
        run("head_forward", x.dtype, x, weight, bias, None if below is None else below.contiguous(), image, n, h, w, c)
        ctx.has_below = below is not None
        ctx.save_for_backward(x, weight)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        n, c, h, w = x.shape
        g = gradients[0].contiguous()
        g_below = g.new_empty(n, 1, h // 2, w // 2) if ctx.has_below else None
        g_x, g_weight, g_bias = torch.empty_like(x), torch.empty_like(weight), weight.new_empty(1)
        run("head_backward", x.dtype, g, x, weight, g_x, g_weight, g_bias, g_below, n, h, w, c)
        return g_x, g_weight, g_bias, g_below
