"""Convolutions modulated by a style, in the plain form and in one with hand-written gradients that is faster."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from samgan.networks.convolutions import GAIN, SLOPE, EqualizedConv2d, activate, precision_of, upsample

NOISE_DIRECTIONS = 64


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
            matrix = np.random.RandomState(2 * resolution + upsample).standard_normal((resolution**2, directions))
            scaled = torch.tensor(matrix / directions**0.5, dtype=torch.float)
            self.register_buffer("directions", scaled, persistent=False)

    directions: Tensor

    def forward(
        self, x: Float[Tensor, "n c h w"], w: Float[Tensor, "n s 1 1"], z: Float[Tensor, "n l 1 1"]
    ) -> Float[Tensor, "n d r r"]:
        """Return [n, out_channels, resolution, resolution]; x has that resolution, or half of it."""
        (weight, bias), style = self.conv.operands(), 1 + self.style(w)
        assert bias is not None
        squares = style.square().flatten(1) @ weight.square().sum(dim=(2, 3)).T
        scale = (GAIN * torch.rsqrt(squares + 1e-8))[:, :, None, None]
        operands = (x, style, scale, weight, bias, self.noise, self.noise_maps(z))
        if x.device.type != "cpu":
            return plain_modulated_conv(*operands, enlarge=self.upsample)
        dtype = precision_of(x)
        return modulated_conv(*(None if one is None else one.to(dtype) for one in operands), enlarge=self.upsample)

    def noise_maps(self, z: Float[Tensor, "n l 1 1"]) -> Float[Tensor, "n 1 r r"] | None:
        """The map n of each latent z; None without noise."""
        if self.noise is None:
            return None
        side = round(len(self.directions) ** 0.5)
        return (z.flatten(1)[:, : self.directions.shape[1]] @ self.directions.T).view(-1, 1, side, side)


def plain_modulated_conv(
    x: Float[Tensor, "n c h w"],
    style: Float[Tensor, "n c 1 1"],
    scale: Float[Tensor, "n d 1 1"],
    weight: Float[Tensor, "d c 3 3"],
    bias: Float[Tensor, " d"],
    strength: Float[Tensor, "d 1 1"] | None,
    noise: Float[Tensor, "n 1 i j"] | None,
    *,
    enlarge: bool,
) -> Float[Tensor, "n d i j"]:
    """Convolve x * style, scale, add the bias, enlarge twofold if asked, add strength * noise, and activate."""
    y = F.conv2d(x * style, weight, padding=1)
    # Enlarging does not change a constant, so the bias may be added first.
    y = torch.addcmul(bias[:, None, None].to(y.dtype), y, scale.to(y.dtype))
    if enlarge:
        y = upsample(y)
    if strength is not None and noise is not None:
        y.addcmul_(strength.to(y.dtype), noise.to(y.dtype))
    return activate(y)


def modulated_conv(*operands: Tensor | None, enlarge: bool) -> Float[Tensor, "n d i j"]:
    """Compute the same as `plain_modulated_conv`, on a CPU; its gradients cannot be differentiated again."""
    return _Modulated.apply(*operands, enlarge)


class _Modulated(torch.autograd.Function):
    """Rows of pixels are taken as they lie in memory, so that few channels cost no more than many."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> Tensor:
        x, style, scale, weight, bias, strength, noise, enlarge = operands
        modulated = _times(x, style)
        convolved = F.conv2d(modulated, weight, padding=1)
        width = convolved.shape[3]
        rows = torch.addcmul(bias.repeat(width), _rows(convolved), _row(scale, width))
        y = rows.view(*convolved.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        if enlarge:
            y = upsample(y)
        if strength is not None and noise is not None:
            _pixels(y).addmm_(noise.reshape(-1, 1), strength.view(1, -1))
        y = activate(y)
        ctx.enlarge = enlarge
        ctx.save_for_backward(x, style, scale, weight, strength, noise, modulated, convolved, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, style, scale, weight, strength, noise, modulated, convolved, y = ctx.saved_tensors
        g = torch.ops.aten.leaky_relu_backward(gradients[0], y, SLOPE, True)
        g_strength = None if strength is None else (noise.reshape(1, -1) @ _pixels(g)).view(strength.shape)
        if ctx.enlarge:
            g = torch.ops.aten.upsample_bilinear2d_backward(g, list(g.shape[2:]), list(convolved.shape), False)
        g_bias = g.sum(dim=(0, 2, 3))
        g_scale = (g * convolved).sum(dim=(2, 3), keepdim=True)
        g_modulated, g_weight, _ = torch.ops.aten.convolution_backward(
            _times(g, scale), modulated, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, (True, True, False)
        )
        g_style = (g_modulated * x).sum(dim=(2, 3), keepdim=True)
        return _times(g_modulated, style), g_style, g_scale, g_weight, g_bias, g_strength, None, None


def _pixels(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "pixels c"]:
    """The same memory, as features of pixels; x is channels_last."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])


def _rows(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h row"]:
    """The same memory, as rows of pixels; x is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(2)


def _row(factors: Float[Tensor, "n c 1 1"], width: int) -> Float[Tensor, "n 1 row"]:
    """Factors of channels, for each pixel of a row."""
    return factors[:, :, 0, 0].repeat(1, width)[:, None]


def _times(x: Float[Tensor, "n c h w"], factors: Float[Tensor, "n c 1 1"]) -> Float[Tensor, "n c h w"]:
    n, c, h, w = x.shape
    return (_rows(x) * _row(factors, w)).view(n, h, w, c).permute(0, 3, 1, 2)
