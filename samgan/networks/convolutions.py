"""Plain and modulated convolutions with equalized learning rate and spectral norm, and the steps between them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

NOISE_DIRECTIONS = 64
SLOPE = 0.2  # of leaky ReLU
GAIN = math.sqrt(2)  # compensates for the mean square that a leaky ReLU takes away


class EqualizedConv2d(nn.Module):
    """Convolution with optional equalized learning rate and optional spectral norm.

        w_hat = w,                              w ~ N(0, 2 / fan_in)    (neither)
        w_hat = w * sqrt(2 / fan_in),           w ~ N(0, 1)             (equalized)
        w_hat = w / sigma(w),                   w ~ N(0, 2 / fan_in)    (spectral norm, scale "plain")
        w_hat = w / sigma(w),                   w ~ N(0, 1)             (both, scale "unit")
        w_hat = w / sigma(w) * sqrt(2 / fan_in),  w ~ N(0, 1)           (both, scale "equalized")

    The scale of w does not change w / sigma(w), but it changes how far an optimizer's step of a given length turns it.
    So "plain" and "unit" are the same function, learning at different speeds.

    sigma is estimated as u^T W v with W of shape [out, in * k * k]. Only `power_iteration` changes `u` and `v`; the
    training step calls it after each weight update. A forward pass changes nothing, so it may be repeated, and it is
    the same in training and evaluation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel.
        padding: Zeros added on each side.
        bias: Whether a bias is added.
        equalized: Whether the weight is scaled at run time; if not, it is initialised at that scale.
        spectral: Whether the weight is divided by its largest singular value.
        spectral_scale: "plain", "unit" or "equalized", see above; without `equalized`, all mean "plain".
        gain: Replaces the sqrt(2) above, which suits a layer before a leaky ReLU.
        transposed: A transposed convolution; its fan-in is `in_channels`, as in MSG-GAN's first layer.

    Source: equalized: Karras et al. 2018 (ProGAN), section 4.1; spectral norm: Miyato et al. 2018, algorithm 1.
    """

    def __init__(  # noqa: PLR0913 (switches of one layer, each with a default)
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        bias: bool = True,
        equalized: bool = True,
        spectral: bool = False,
        spectral_scale: str = "plain",
        gain: float = GAIN,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.transposed = transposed
        self.spectral = spectral
        ends = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        fan_in = in_channels if transposed else in_channels * kernel_size**2
        scale = gain / math.sqrt(fan_in)
        self.weight = nn.Parameter(channels_last(torch.randn(*ends, kernel_size, kernel_size)))  # like its inputs
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        if not equalized or (spectral and spectral_scale == "plain"):
            self.weight.data.mul_(scale)
            self.scale = 1.0
        else:
            self.scale = 1.0 if spectral and spectral_scale == "unit" else scale
        if spectral:
            self.register_buffer("u", F.normalize(torch.randn(ends[0]), dim=0))
            self.register_buffer("v", F.normalize(torch.randn(self.weight[0].numel()), dim=0))
            self.power_iteration(15)  # torch.nn.utils.spectral_norm also starts with 15

    u: Tensor
    v: Tensor

    @torch.no_grad()
    def power_iteration(self, count: int = 1) -> None:
        """Move `u` and `v` towards the leading singular vectors; do nothing without spectral norm."""
        if not self.spectral:
            return
        matrix = self.weight.flatten(1)
        for _ in range(count):
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0, eps=1e-12))
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=1e-12))

    def effective_weight(self) -> Tensor:
        """The weight that the convolution uses, w_hat above."""
        if not self.spectral:
            return self.weight * self.scale
        sigma = self.u @ self.weight.flatten(1) @ self.v
        return self.weight * (self.scale / sigma)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Convolve."""
        weight = self.effective_weight()
        if self.transposed:
            return F.conv_transpose2d(x, weight, self.bias, padding=self.padding)
        # If the output is one pixel, the convolution is a matrix product, and faster as one.
        if not self.padding and x.shape[2:] == weight.shape[2:]:
            return F.linear(x.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style, and whose output channels are scaled back.

        s = 1 + A w,    y_o = sum_i W_oi * (s_i x_i) / sqrt(sum_ijk (s_i W_oijk)^2 + 1e-8) * gain + noise_o n + bias_o

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
        weight, style = self.conv.effective_weight(), 1 + self.style(w)
        assert self.conv.bias is not None
        y = F.conv2d(x * style, weight, padding=self.conv.padding)
        squares = style.square().flatten(1) @ weight.square().sum(dim=(2, 3)).T
        scale = GAIN * torch.rsqrt(squares + 1e-8)
        # Enlarging does not change a constant, so the bias may be added first.
        y = torch.addcmul(self.conv.bias[:, None, None].to(y.dtype), y, scale[:, :, None, None].to(y.dtype))
        if self.upsample:
            y = upsample(y)
        if self.noise is not None:
            noise = z.flatten(1)[:, : self.directions.shape[1]] @ self.directions.T
            y.addcmul_(self.noise.to(y.dtype), noise.view(y.shape[0], 1, *y.shape[2:]).to(y.dtype))
        return y


def upsample(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    """Enlarge twofold, bilinearly: repeating pixels would leave a grid in the image."""
    # On a CPU, autocast would turn bf16 into fp32, and everything after this would then be fp32.
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def plain_upsample_conv(x: Float[Tensor, "n c h w"], conv: EqualizedConv2d) -> Float[Tensor, "n d 2*h 2*w"]:
    """Repeat every pixel in a square of 2x2, then convolve with a 3x3 kernel."""
    return conv(F.interpolate(x, scale_factor=2))


def upsample_conv(x: Float[Tensor, "n c h w"], conv: EqualizedConv2d) -> Float[Tensor, "n d 2*h 2*w"]:
    """Compute the same as `plain_upsample_conv`, with 16/36 of the multiplications.

    Repeating pixels is a transposed convolution of stride 2 with a 2x2 kernel of ones. The two convolutions together
    are one transposed convolution whose 4x4 kernel combines both kernels.
    """
    weight = conv.effective_weight()
    kernel = torch.stack([F.pad(weight, (j, 1 - j, i, 1 - i)) for i in (0, 1) for j in (0, 1)]).sum(dim=0)
    return F.conv_transpose2d(x, kernel.flip(2, 3).transpose(0, 1), conv.bias, stride=2, padding=1)


def plain_image_conv(
    image: Float[Tensor, "n i h w"], x: Float[Tensor, "n c h w"] | None, head: EqualizedConv2d, conv: EqualizedConv2d
) -> Float[Tensor, "n d h w"]:
    """Map an image to features by the 1x1 convolution `head`, join them to features `x`, convolve with a 3x3 kernel."""
    features = head(image)
    return conv(features if x is None else torch.cat([features, x], dim=1))


def image_conv(
    image: Float[Tensor, "n i h w"], x: Float[Tensor, "n c h w"] | None, head: EqualizedConv2d, conv: EqualizedConv2d
) -> Float[Tensor, "n d h w"]:
    """Compute the same as `plain_image_conv`, without computing the image's features.

    There is nothing between the two convolutions, so their kernels combine into one that takes the image itself: 1 or 3
    channels instead of the features. The head's bias becomes the kernel of a channel of ones, so that, like the
    features, it is zero outside the image.
    """
    assert head.bias is not None
    weight, mix = conv.effective_weight(), head.effective_weight()[:, :, 0, 0]
    own, others = weight[:, : len(mix)], weight[:, len(mix) :]
    kernel = torch.einsum("omij,mc->ocij", own, torch.cat([mix, head.bias[:, None]], dim=1))
    ones = image.new_ones(len(image), 1, *image.shape[2:])
    y = F.conv2d(channels_last(torch.cat([image, ones], dim=1)), kernel, conv.bias, padding=conv.padding)
    return y if x is None else y + F.conv2d(x, others, padding=conv.padding)


def power_iteration(network: nn.Module) -> None:
    """Do one power iteration in every layer of `network` that has spectral norm."""
    for module in network.modules():
        if isinstance(module, EqualizedConv2d):
            module.power_iteration()


def channels_last(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return the same values with the channels of a pixel side by side in memory; convolutions keep this layout.

    It is faster on a CPU than channel after channel, and tensor cores need it. Call this where the layout gets lost:
    after a tensor with one channel or one pixel, for which both layouts are the same. For one channel, only the strides
    change: they tell a convolution which layout is meant.
    """
    if x.shape[1] == 1:
        return x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def pixel_norm(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Scale each pixel's feature vector to unit root mean square: x / sqrt(mean_c(x^2) + 1e-8).

    Source: Karras et al. 2018 (ProGAN), section 4.2.
    """
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def activate(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Leaky ReLU of slope 0.2, in place, for the output of a convolution, which nothing else needs."""
    return F.leaky_relu(x, SLOPE, inplace=True)


class _ActivateAndNormalize(torch.autograd.Function):
    """y = pixel_norm(activate(x)) in place, with r = y / activate(x). Only y and r are kept for the backward pass.

    dx = leaky_relu'(x) * r * (dy - y * mean_c(dy * y)),   where y has the sign of x
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        activate(x)
        r = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
        x.mul_(r)
        ctx.save_for_backward(x, r)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        y, r = ctx.saved_tensors
        (dy,) = gradients
        dx = torch.addcmul(dy, y, (dy * y).mean(dim=1, keepdim=True), value=-1).mul_(r)
        return torch.ops.aten.leaky_relu_backward(dx, y, SLOPE, True)


def activate_and_normalize(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """`pixel_norm(activate(x))` in half the memory; its gradient cannot be differentiated again."""
    return _ActivateAndNormalize.apply(x)
