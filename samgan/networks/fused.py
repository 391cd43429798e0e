"""What lies between the convolutions of a block, as single operations: by a compiled kernel, or by torch.

None of these keeps what automatic differentiation needs; blocks with hand-written gradients are made of them.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from samgan.kernels import has_kernels, kernels_fit, run
from samgan.networks.convolutions import GAIN, SLOPE, activate, channels_last, halve, unhalve, upsample

_has_bf16 = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", bool)  # no such function in builds without oneDNN
IN_ONEDNN = frozenset({torch.float32, torch.bfloat16} if _has_bf16() else {torch.float32})
"""Precisions in which oneDNN convolves on this CPU; torch has slow convolutions of its own for the others."""
FEW = 16  # channels; a product with fewer of them wastes most of a register
Features = Float[Tensor, "n c h w"]
Half = Float[Tensor, "n c half_h half_w"]


def through(g: Features, y: Features) -> Features:
    """The gradient g of an activation's output y, before the activation."""
    return torch.ops.aten.leaky_relu_backward(g, y, SLOPE, True)


def back(g: Tensor, x: Tensor, weight: Tensor, padding: int, wanted: tuple[bool, bool, bool]) -> Any:
    """The gradients of a convolution's input, weight and bias, where wanted."""
    sides = [padding, padding]
    return torch.ops.aten.convolution_backward(
        g, x, weight, [len(weight)] if wanted[2] else None, [1, 1], sides, [1, 1], False, [0, 0], 1, wanted
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve with a 1x1 or 3x3 kernel, keeping the sides; oneDNN is called at once, without the layers above it."""
    padding = weight.shape[2] // 2
    if has_kernels(x) and torch.backends.mkldnn.enabled and x.dtype in IN_ONEDNN:
        return torch.mkldnn_convolution(x, weight, bias, [padding, padding], [1, 1], [1, 1], 1)
    return F.conv2d(x, weight, bias, padding=padding)


def _sizes(x: Features) -> tuple[int, int, int, int]:
    n, c, h, w = x.shape
    return n, h, w, c


def _half_of(x: Features) -> Half:
    n, c, h, w = x.shape
    assert h % 2 == w % 2 == 0, "squares of 2x2 pixels need even sides"
    return torch.empty((n, c, h // 2, w // 2), dtype=x.dtype, memory_format=torch.channels_last)


def activate_and_halve(y: Features) -> Half:
    """Activate y in place; return the mean of each 2x2 pixels."""
    if not kernels_fit(y):
        return halve(activate(y))
    half = _half_of(y)
    run("activate_and_halve", y.dtype, y, half, *_sizes(y))
    return half


def activate_and_halve_backward(g: Half, y: Features, *, bias: bool) -> tuple[Features, Float[Tensor, " c"] | None]:
    """The gradient before `activate_and_halve`, from that behind it; if wanted, also its sums by channels."""
    if not kernels_fit(y):
        before = through(unhalve(g), y)
        return before, before.sum(dim=(0, 2, 3)) if bias else None
    return _before("activate_and_halve_backward", g, y, bias=bias)


def slope_and_halve(v: Features, y: Features) -> Half:
    """The change of `activate_and_halve` whose result was y, for a change v of what it was given."""
    if not kernels_fit(y):
        return halve(through(v, y))
    half = _half_of(y)
    run("slope_and_halve", y.dtype, channels_last(v), y, half, *_sizes(y))
    return half


def activate_backward(g: Features, y: Features, *, bias: bool) -> tuple[Features, Float[Tensor, " c"] | None]:
    """The gradient before an activation whose output was y; if wanted, also its sums by channels."""
    if not kernels_fit(y):
        before = through(g, y)
        return before, before.sum(dim=(0, 2, 3)) if bias else None
    return _before("activate_backward", g, y, bias=bias)


def _before(kernel: str, g: Tensor, y: Features, *, bias: bool) -> tuple[Features, Float[Tensor, " c"] | None]:
    before = torch.empty_like(y)
    sums = y.new_empty(y.shape[1]) if bias else None
    run(kernel, y.dtype, channels_last(g), y, before, sums, *_sizes(y))
    return before, sums


def activate_and_add(y: Features, out: Features) -> Features:
    """Activate y in place and add it to `out`; return that."""
    if not (kernels_fit(y) and out.stride() == y.stride()):
        return out.add_(activate(y))
    run("activate_and_add", y.dtype, y, out, y.numel())
    return out


def slope_and_add(v: Features, y: Features, out: Features) -> Features:
    """Add to `out` the change of an activation with result y, for a change v of what it was given; return `out`."""
    if not (kernels_fit(y) and out.stride() == y.stride()):
        return out.add_(through(v, y))
    run("slope_and_add", y.dtype, channels_last(v), y, out, y.numel())
    return out


def join_image(
    image: Float[Tensor, "n i h w"], x: Features | None, weight: Float[Tensor, "c i 3 3"], bias: Float[Tensor, " c"]
) -> tuple[Features, Half, Features | None]:
    """Add to x the features act(W image + b) of an image.

    Returns:
        The sum; its mean over 2x2 pixels; the features, unless a kernel computes them again when they are needed.
    """
    joined = _like(image, len(weight)) if x is None else torch.empty_like(x)
    if not kernels_fit(joined):
        features = activate(F.conv2d(image, weight, bias, padding=1))
        joined = features if x is None else x + features
        return joined, halve(joined), features
    half = _half_of(joined)
    weight, image = _kernel(weight), channels_last(image)
    run("image_forward", image.dtype, image, None, weight, bias, x, joined, half, *_sizes(joined), image.shape[1])
    return joined, half, None


def join_change(
    image: Float[Tensor, "n i h w"],
    change: Float[Tensor, "n i h w"],
    x: Features,
    weight: Float[Tensor, "c i 3 3"],
    bias: Float[Tensor, " c"],
    features: Features | None,
) -> tuple[Features, Half]:
    """The changes of the results of `join_image` for a change of the image, and a change x of the features above."""
    x = channels_last(x)
    if features is not None:
        joined = through(F.conv2d(change, weight, padding=1), features).add_(x)
        return joined, halve(joined)
    joined, half = torch.empty_like(x), _half_of(x)
    weight, image, change = _kernel(weight), channels_last(image), channels_last(change)
    run("image_forward", image.dtype, image, change, weight, bias, x, joined, half, *_sizes(x), image.shape[1])
    return joined, half


def join_image_backward(
    g: Features,
    g_half: Half | None,
    image: Float[Tensor, "n i h w"],
    patches: Float[Tensor, "n i h w"],
    weight: Float[Tensor, "c i 3 3"],
    bias: Float[Tensor, " c"],
    features: Features | None,
    *,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of the image, the weight and the bias of `join_image`, where wanted.

    Args:
        g: Gradient of the sum. That of the means is added to it in place, and it is then the gradient of x.
        g_half: Gradient of the means; None: nothing to add.
        image: As before.
        patches: What the weight was multiplied with: the image, or its change in `join_change`.
        weight: As before.
        bias: As before.
        features: As `join_image` returned them.
        wanted: Which gradients to compute.
    """
    if features is not None:
        if g_half is not None:
            g.add_(unhalve(g_half))
        g_features = through(g, features)
        found = back(g_features, patches, weight, 1, wanted)
        return found[0], found[1], found[2]
    g_image = torch.empty_like(image) if wanted[0] else None
    g_weight = torch.empty_like(weight, memory_format=torch.channels_last) if wanted[1] else None
    g_bias = torch.empty_like(bias) if wanted[2] else None
    same = patches is image
    image = channels_last(image)
    assert kernels_fit(g), "features that a kernel did not keep have gradients that lie channels last"
    g_half = None if g_half is None else channels_last(g_half)
    arrays = (g, g_half, image, image if same else channels_last(patches), _kernel(weight), bias)
    run("image_backward", g.dtype, *arrays, g_weight, g_bias, g_image, *_sizes(g), image.shape[1])
    return g_image, g_weight, g_bias


def modulate(x: Features, style: Float[Tensor, "n c"]) -> Features:
    """Multiply each channel of each image by its style."""
    if not kernels_fit(x):
        return _times(x, style)
    out = torch.empty_like(x)
    run("modulate", x.dtype, x, style.contiguous(), out, *_sizes(x))
    return out


def modulate_backward(g: Features, x: Features, style: Float[Tensor, "n c"]) -> tuple[Features, Float[Tensor, "n c"]]:
    """The gradients of `modulate`'s arguments; g may be overwritten. That of the style is at least in fp32."""
    exact = torch.promote_types(x.dtype, torch.float32)
    if not (kernels_fit(x) and kernels_fit(g)):
        return _times(g, style), (g * x).sum(dim=(2, 3), dtype=exact)
    g_style = torch.empty(style.shape, dtype=exact)
    run("modulate_backward", x.dtype, g, x, style.contiguous(), g, g_style, *_sizes(x))
    return g, g_style


def demodulation(
    weight: Float[Tensor, "d c 3 3"], style: Float[Tensor, "n c"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "d c"]]:
    """The scale of each output channel of a modulated convolution, gain / sqrt(r), and q, at least in fp32.

    q = sum_jk W^2 and r = s^2 q^T + 1e-8.
    """
    exact = torch.promote_types(style.dtype, torch.float32)
    if not (has_kernels(weight) and weight.is_contiguous(memory_format=torch.channels_last)):
        squares = weight.square().sum(dim=(2, 3), dtype=exact)
        return GAIN * torch.rsqrt(style.to(exact).square() @ squares.T + 1e-8), squares
    d, c, h, w = weight.shape
    squares, scale = torch.empty((d, c), dtype=exact), torch.empty((len(style), d), dtype=exact)
    run("demodulate", weight.dtype, weight, style.contiguous(), squares, scale, len(style), d, c, h * w, GAIN)
    return scale, squares


def demodulation_backward(
    g_scale: Float[Tensor, "n d"],
    weight: Float[Tensor, "d c 3 3"],
    style: Float[Tensor, "n c"],
    squares: Float[Tensor, "d c"],
    scale: Float[Tensor, "n d"],
    g_style: Float[Tensor, "n c"],
    g_weight: Float[Tensor, "d c 3 3"],
) -> tuple[Float[Tensor, "n c"], Float[Tensor, "d c 3 3"]]:
    """Add what goes back through `demodulation` to the gradients of style and weight; g_weight may be overwritten.

    With the gradient g_d of the scale d: g_r = -d^3 / (2 gain^2) g_d, g_s = 2 s (g_r q), g_W = 2 W (g_r^T s^2).
    """
    ordered = all(one.is_contiguous(memory_format=torch.channels_last) for one in (weight, g_weight))
    if not (has_kernels(weight) and ordered):
        g_r = g_scale * scale.pow(3).mul_(-0.5 / GAIN**2)
        s = style.to(scale.dtype)
        g_style = g_style.addcmul(s, g_r @ squares, value=2)
        g_squares = 2 * (g_r.T @ s.square())
        return g_style.to(style.dtype), g_weight.addcmul(weight, g_squares.to(weight.dtype)[:, :, None, None])
    d, c, h, w = weight.shape
    style = style.contiguous()
    of_style = torch.empty_like(style)
    arrays = (g_scale, weight, style, squares, scale, g_style, of_style, g_weight)
    run("demodulate_backward", weight.dtype, *arrays, len(style), d, c, h * w, GAIN)
    return of_style, g_weight


def scale_and_activate(
    x: Features,
    scale: Float[Tensor, "n c"],
    bias: Float[Tensor, " c"],
    strength: Float[Tensor, "c 1 1"] | None,
    noise: Float[Tensor, "n pixels"] | None,
    *,
    enlarge: bool,
) -> Float[Tensor, "n c out_h out_w"]:
    """Multiply by a scale of at least fp32, add the bias, enlarge twofold if asked, add strength * noise, activate."""
    if not kernels_fit(x):
        y = _times(x, scale.to(x.dtype), bias)
        if enlarge:
            y = upsample(y)
        if strength is not None and noise is not None:
            _pixels(y).addmm_(noise.reshape(-1, 1), strength.view(1, -1))
        return activate(y)
    n, c, h, w = x.shape
    side = 1 + enlarge
    y = torch.empty((n, c, side * h, side * w), dtype=x.dtype, memory_format=torch.channels_last)
    noise = None if noise is None else noise.contiguous()
    run("modulated_forward", x.dtype, x, scale, bias, strength, noise, y, *_sizes(x), int(enlarge))
    return y


def scale_and_activate_backward(
    g: Float[Tensor, "n c out_h out_w"],
    y: Float[Tensor, "n c out_h out_w"],
    x: Features,
    scale: Float[Tensor, "n c"],
    bias: Float[Tensor, " c"],
    strength: Float[Tensor, "c 1 1"] | None,
    noise: Float[Tensor, "n pixels"] | None,
    *,
    enlarge: bool,
) -> tuple[Features, Float[Tensor, "n c"], Float[Tensor, " c"], Float[Tensor, "c 1 1"] | None]:
    """The gradients of x, scale, bias and strength of `scale_and_activate`, whose result was y."""
    if not (kernels_fit(x) and kernels_fit(y)):
        g = through(g, y)
        g_strength = None
        if strength is not None and noise is not None:
            g_strength = (noise.reshape(1, -1) @ _pixels(g)).view(strength.shape)
        if enlarge:
            g = torch.ops.aten.upsample_bilinear2d_backward(g, list(g.shape[2:]), list(x.shape), False)
        g_scale = (g * x).sum(dim=(2, 3), dtype=scale.dtype)
        return _times(g, scale.to(g.dtype)), g_scale, g.sum(dim=(0, 2, 3)), g_strength
    g_x, g_scale, g_bias = torch.empty_like(x), torch.empty_like(scale), torch.empty_like(bias)
    g_strength = None if strength is None else torch.empty_like(strength)
    noise = None if noise is None else noise.contiguous()
    arrays = (channels_last(g), y, x, scale, noise, g_x, g_bias, g_strength, g_scale)
    run("modulated_backward", x.dtype, *arrays, *_sizes(x), int(enlarge))
    return g_x, g_scale, g_bias, g_strength


def _times(x: Features, factors: Float[Tensor, "n c"], bias: Float[Tensor, " c"] | None = None) -> Features:
    """Multiply each feature by its factor, and add its bias; x is channels_last."""
    n, c, h, w = x.shape
    if c >= FEW:
        factors = factors[:, :, None, None]
        return x * factors if bias is None else torch.addcmul(bias[:, None, None], x, factors)
    # In rows of pixels as they lie in memory, few channels cost no more than many.
    rows, factors = x.permute(0, 2, 3, 1).flatten(2), factors.repeat(1, w)[:, None]
    rows = rows * factors if bias is None else torch.addcmul(bias.repeat(w), rows, factors)
    return rows.view(n, h, w, c).permute(0, 3, 1, 2)


def _pixels(x: Features) -> Float[Tensor, "pixels c"]:
    """The same memory, as features of pixels; x is channels_last."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])


def _like(image: Tensor, channels: int) -> Tensor:
    n, _, h, w = image.shape
    return torch.empty((n, channels, h, w), dtype=image.dtype, device=image.device, memory_format=torch.channels_last)


def _kernel(weight: Tensor) -> Tensor:
    """The weight in the order that kernels read; one channel lies the same in memory in both orders."""
    return weight if weight.shape[1] == 1 else channels_last(weight)
