"""Convolutions with equalized learning rate and spectral norm, and the steps between them."""

import contextlib
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from samgan.kernels import kernels_fit, run

SLOPE = 0.2  # of leaky ReLU
WIDE = 64  # channels from which on torch's pooling is as fast as oneDNN's convolutions
LARGE = 1 << 17  # numbers; below, a function of our own takes longer to call than it saves
GAIN = math.sqrt(2)  # compensates for the mean square that a leaky ReLU takes away


def as_they_are(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Within it, operations compute in the precision of their operands, whatever `torch.autocast` says."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):  # graphs of torch.export have no place for a context that changes nothing
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


class EqualizedConv2d(nn.Module):
    """Convolution with optional equalized learning rate and optional spectral norm.

        w_hat = w,                              w ~ N(0, 2 / fan_in)    (neither)
        w_hat = w * sqrt(2 / fan_in),           w ~ N(0, 1)             (equalized)
        w_hat = w / sigma(w),                   w ~ N(0, 2 / fan_in)    (spectral norm, scale "plain")
        w_hat = w / sigma(w),                   w ~ N(0, 1)             (both, scale "unit")
        w_hat = w / sigma(w) * sqrt(2 / fan_in),  w ~ N(0, 1)           (both, scale "equalized")

    The scale of w does not change w / sigma(w), but it changes how far an optimizer's step of a given length turns it.
    So "plain" and "unit" are the same function, learning at different speeds.

    sigma is estimated as u^T W v with W of shape [out, in * k * k]; of a transposed convolution [in, out * k * k], what
    it does to one pixel, where torch's spectral norm has its outputs first. Only `power_iteration` changes `u` and `v`;
    the training step calls it after each weight update. A forward pass changes nothing: it may be repeated, and is the
    same in training and evaluation.

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
            if type(self.weight.data) is Tensor:  # not one without values, with which `samgan.training.cost` plans
                self.power_iteration(15)  # torch.nn.utils.spectral_norm also starts with 15

    u: Tensor
    v: Tensor
    gains: tuple[float, float] = (1.0, 1.0)
    """Factors of weight and bias in `operands`."""
    ready: tuple[Tensor, Tensor | None] | None = None
    """What `operands` returns, if it was computed for all layers of a network at once."""

    @torch.no_grad()
    def power_iteration(self, count: int = 1) -> None:
        """Move `u` and `v` towards the leading singular vectors; nothing without spectral norm, or without values."""
        if not self.spectral or self.weight.is_meta:
            return
        matrix = self.weight.flatten(1)
        for _ in range(count):
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0, eps=1e-12))
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=1e-12))

    def effective_weight(self) -> Tensor:
        """The weight that the convolution uses, w_hat above."""
        return self.weight * (self.scale / self.singular_value() if self.spectral else self.scale)

    def singular_value(self) -> Tensor:
        """The estimate of the weight's largest singular value; with spectral norm only."""
        with as_they_are(self.weight):  # bf16 would keep two digits of it
            return self.u @ self.weight.flatten(1) @ self.v

    def operands(self) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias that the convolution uses, times `gains`; a block may have moved factors there."""
        if self.ready is not None:
            return self.ready
        weight, bias = self.effective_weight(), self.bias
        of_weight, of_bias = self.gains
        if of_weight != 1:
            weight = weight * of_weight
        return weight, bias if bias is None or of_bias == 1 else bias * of_bias

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Convolve."""
        weight, bias = self.operands()
        if self.transposed:
            return F.conv_transpose2d(x, weight, bias, padding=self.padding)
        # If the output is one pixel, the convolution is a matrix product, and faster as one.
        if not self.padding and x.shape[2:] == weight.shape[2:]:
            x, weight = (one.permute(0, 2, 3, 1).flatten(1) for one in (x, weight))  # as they lie in memory
            return F.linear(x, weight, bias)[:, :, None, None]
        return F.conv2d(x, weight, bias, padding=self.padding)


def upsample(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    """Enlarge twofold, bilinearly: repeating pixels would leave a grid in the image."""
    # On a CPU, autocast would turn bf16 into fp32, and everything after this would then be fp32.
    with as_they_are(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def precision_of(x: Tensor) -> torch.dtype:
    """What a convolution of x computes in: that of `torch.autocast`, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def halve(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h/2 w/2"]:
    """Average each square of 2x2 pixels."""
    if x.device.type != "cpu" or x.dtype == torch.double or x.shape[1] > WIDE:
        return F.avg_pool2d(x, 2)
    return _Halve.apply(x)


def unhalve(g: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    """The gradient of `halve`: a quarter of each pixel, in a square of 2x2."""
    n, c, h, w = g.shape
    rows = (g * 0.25).permute(0, 2, 3, 1)
    twice = torch.cat([rows, rows], dim=3).view(n, h, 1, 2 * w * c)
    return twice.expand(-1, -1, 2, -1).reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


class _Halve(torch.autograd.Function):
    """`F.avg_pool2d` of few channels, several times as fast: oneDNN's convolution of each channel on its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.conv2d(x, x.new_full((x.shape[1], 1, 2, 2), 0.25), stride=2, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return unhalve(*gradients)  # which can be differentiated again


def plain_upsample_conv(x: Float[Tensor, "n c h w"], conv: EqualizedConv2d) -> Float[Tensor, "n d 2*h 2*w"]:
    """Repeat every pixel in a square of 2x2, then convolve with a 3x3 kernel."""
    return conv(F.interpolate(x, scale_factor=2))


def upsample_conv(x: Float[Tensor, "n c h w"], conv: EqualizedConv2d) -> Float[Tensor, "n d 2*h 2*w"]:
    """Compute the same as `plain_upsample_conv`, with 16/36 of the multiplications.

    Repeating pixels is a transposed convolution of stride 2 with a 2x2 kernel of ones. The two convolutions together
    are one transposed convolution whose 4x4 kernel combines both kernels.
    """
    weight, bias = conv.operands()
    kernel = torch.stack([F.pad(weight, (j, 1 - j, i, 1 - i)) for i in (0, 1) for j in (0, 1)]).sum(dim=0)
    return F.conv_transpose2d(x, kernel.flip(2, 3).transpose(0, 1), bias, stride=2, padding=1)


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
    (weight, bias), (mix, head_bias) = conv.operands(), head.operands()
    assert head_bias is not None
    mix = mix[:, :, 0, 0]
    own, others = weight[:, : len(mix)], weight[:, len(mix) :]
    kernel = torch.einsum("omij,mc->ocij", own, torch.cat([mix, head_bias[:, None]], dim=1))
    ones = image.new_ones(len(image), 1, *image.shape[2:])
    y = F.conv2d(channels_last(torch.cat([image, ones], dim=1)), kernel, bias, padding=conv.padding)
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
        if x.stride() == (x.shape[2] * x.shape[3], 1, x.shape[3], 1):
            return x
        return x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def pixel_norm(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Scale each pixel's feature vector to unit root mean square: x / sqrt(mean_c(x^2) + 1e-8).

    Source: Karras et al. 2018 (ProGAN), section 4.2.
    """
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def activate(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Leaky ReLU of slope 0.2, in place, for the output of a convolution, which nothing else needs."""
    # In this order: a graph that is traced for any number of images must not depend on how many numbers there are.
    if x.requires_grad and x.numel() >= LARGE and kernels_fit(x):
        return _Activate.apply(x)
    return F.leaky_relu(x, SLOPE, inplace=True)


class _Activate(torch.autograd.Function):
    """`F.leaky_relu` in place; its gradient is computed by a kernel unless it is to be differentiated itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        F.leaky_relu(x, SLOPE, inplace=True)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        (g,) = gradients
        if torch.is_grad_enabled():
            return torch.ops.aten.leaky_relu_backward(g, y, SLOPE, True)
        n, c, h, w = y.shape
        before = torch.empty_like(y)
        run("activate_backward", y.dtype, channels_last(g), y, before, None, n, h, w, c)
        return before


def activate_then_halve(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h/2 w/2"]:
    """`halve(activate(x))`, of which only the result is needed further on."""
    if x.requires_grad and x.numel() >= LARGE and kernels_fit(x):
        return _ActivateThenHalve.apply(x)
    return halve(activate(x))


class _ActivateThenHalve(torch.autograd.Function):
    """By kernels in one pass each; its gradient can be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        half = torch.empty((n, c, h // 2, w // 2), dtype=x.dtype, memory_format=torch.channels_last)
        run("activate_and_halve", x.dtype, x, half, n, h, w, c)
        ctx.save_for_backward(x)  # activated, in place: nothing else needs it
        return half

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        (g,) = gradients
        if torch.is_grad_enabled():
            return torch.ops.aten.leaky_relu_backward(unhalve(g), y, SLOPE, True)
        n, c, h, w = y.shape
        before = torch.empty_like(y)
        run("activate_and_halve_backward", y.dtype, channels_last(g), y, before, None, n, h, w, c)
        return before


class _ActivateAndNormalize(torch.autograd.Function):
    """y = pixel_norm(activate(x)) in place, with r = y / activate(x). Only y and r are kept for the backward pass.

    dx = leaky_relu'(x) * r * (dy - y * mean_c(dy * y)),   where y has the sign of x
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        n, c, h, w = x.shape
        if kernels_fit(x):
            r = torch.empty((n, 1, h, w), dtype=torch.promote_types(x.dtype, torch.float32))
            run("activate_and_normalize", x.dtype, x, r, n, h, w, c)
            ctx.save_for_backward(x, r)
            return x
        F.leaky_relu(x, SLOPE, inplace=True)
        r = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
        x.mul_(r)
        ctx.save_for_backward(x, r)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        y, r = ctx.saved_tensors
        (dy,) = gradients
        if kernels_fit(y) and r.dtype == torch.promote_types(y.dtype, torch.float32):
            n, c, h, w = y.shape
            before = torch.empty_like(y)
            run("activate_and_normalize_backward", y.dtype, channels_last(dy), y, r, before, n, h, w, c)
            return before
        dx = torch.addcmul(dy, y, (dy * y).mean(dim=1, keepdim=True), value=-1).mul_(r)
        return torch.ops.aten.leaky_relu_backward(dx, y, SLOPE, True)


def activate_and_normalize(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """`pixel_norm(activate(x))` in half the memory; its gradient cannot be differentiated again."""
    return _ActivateAndNormalize.apply(x)
