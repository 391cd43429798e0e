"""Modulated convolutions against StyleGAN2's equations, and the fast form against the plain one."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from samgan.networks import EqualizedConv2d, ModulatedConv2d, channels_last
from samgan.networks.modulated import add_image, modulated_conv, modulations, plain_add_image, plain_modulated_conv


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("upsampled", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"spectral": True}, {"equalized": False}], ids=["equalized", "spectral", "no"]
)
def test_modulation_equals_a_kernel_for_every_image(settings, upsampled):
    """StyleGAN2, eq. 1 and 3, on the kernel itself."""
    side = 12 if upsampled else 6
    layer = ModulatedConv2d(5, 7, side, 4, partial(EqualizedConv2d, **settings), upsample=upsampled).double()
    torch.nn.init.normal_(layer.conv.bias), torch.nn.init.normal_(layer.style.bias)
    x, w = torch.randn(3, 5, 6, 6, dtype=torch.double), torch.randn(3, 4, 1, 1, dtype=torch.double)
    y = layer(x, w, w)
    for image, style, out in zip(x, (1 + layer.style(w)).flatten(1), y, strict=True):
        kernel = layer.conv.effective_weight() * style[None, :, None, None]
        kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt() * math.sqrt(2)
        expected = F.conv2d(image[None], kernel, padding=1)
        if upsampled:
            expected = F.interpolate(expected, scale_factor=2, mode="bilinear", align_corners=False)
        expected = F.leaky_relu(expected + layer.conv.bias[:, None, None], 0.2)
        torch.testing.assert_close(out, expected[0])


@pytest.mark.parametrize("style_size", [128, 32])
def test_noise_is_independent_normal_and_a_function_of_the_latent(style_size):
    """Over latents: mean 0, variance 1, no correlation of pixels. Over one image's pixels: the same."""
    layer, other = (ModulatedConv2d(1, 1, 16, style_size, upsample=upsampled) for upsampled in (False, True))
    w = torch.randn(2000, style_size, 1, 1)
    (_, noise), (_, others) = modulations([layer, other], w, w)
    torch.testing.assert_close(noise[:5], modulations([layer], w[:5], w[:5])[0][1])
    assert noise.mean().abs() < 0.02
    assert noise.var(dim=0).mean().item() == pytest.approx(1, abs=0.05)
    assert noise.var(dim=1).mean().item() == pytest.approx(1, abs=0.05)
    correlation = torch.corrcoef(noise.T) - torch.eye(256)
    expected = 1 / min(style_size, 64)  # of unit vectors in so many dimensions: mean square cosine
    assert correlation.square().sum().item() / (256 * 255) == pytest.approx(expected, abs=0.005)
    between = (noise * others).mean()
    assert between.abs() < 0.05


def test_noise_is_the_same_in_every_process_and_version():
    assert ModulatedConv2d(1, 1, 4, 64).directions[0, :3].tolist() == pytest.approx(
        (np.random.RandomState(8).standard_normal(3) / 8).tolist(), rel=1e-6
    )


def test_shapes_alone_are_known_without_drawing_noise(monkeypatch):
    """A file of weights may claim a size whose noise takes gigabytes."""
    monkeypatch.setattr(np.random, "RandomState", None)
    with torch.device("meta"):
        layer = ModulatedConv2d(2, 2, 4096, 64)
    assert layer.directions.shape == (4096**2, 64)
    with pytest.raises(TypeError):
        ModulatedConv2d(2, 2, 4, 4)


def test_a_modulated_convolution_keeps_the_mean_square_after_activation():
    layer = ModulatedConv2d(64, 64, 16, 16)
    w = torch.randn(8, 16, 1, 1)
    y = layer(torch.randn(8, 64, 16, 16), w, w)
    inner = y[:, :, 1:-1, 1:-1]  # zeros are added at the border
    assert inner.square().mean().item() == pytest.approx(1.04, abs=0.1)  # 2 * (1 + 0.2^2) / 2


def operands(channels, dtype, enlarge, noisy, d=7, w=6):
    n, h = 3, 4
    shapes = ((n, channels, h, w), (d, channels, 3, 3))
    x, weight = (channels_last(torch.randn(*shape, dtype=dtype)) for shape in shapes)
    pixels = (4 if enlarge else 1) * h * w
    noise = (torch.randn(d, 1, 1, dtype=dtype), torch.randn(n, pixels, dtype=dtype))
    style, bias = torch.randn(n, channels, dtype=dtype), torch.randn(d, dtype=dtype)
    return [x, style, weight, bias, *(noise if noisy else (None, None))]


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("enlarge", [False, True])
@pytest.mark.parametrize("sizes", [(1, 7, 6), (5, 7, 6), (64, 7, 6), (16, 4, 4), (4, 8, 12), (8, 16, 1), (32, 48, 6)])
def test_the_fast_form_equals_the_plain_one(sizes, enlarge, noisy):
    """Outputs and all gradients to 1e-12 in double precision."""
    found = []
    channels, d, w = sizes
    made = operands(channels, torch.double, enlarge, noisy, d, w)
    for function in (modulated_conv, plain_modulated_conv):
        own = [None if one is None else one.clone().requires_grad_(index < 5) for index, one in enumerate(made)]
        y = function(*own, enlarge=enlarge)
        asked = [one for one in own if one is not None and one.requires_grad]
        found.append((y, *torch.autograd.grad((y * y.detach().cos()).sum(), asked)))
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
        if fast.dim() == 4 and fast.shape[1] > 1:
            assert fast.is_contiguous(memory_format=torch.channels_last)


def test_features_keep_their_precision():
    layer = ModulatedConv2d(4, 4, 8, 4, upsample=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(1, 4, 4, 4), torch.randn(1, 4, 1, 1), torch.randn(1, 4, 1, 1))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert {parameter.grad.dtype for parameter in layer.parameters()} == {torch.float}


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("shape", [(4, 8, 8), (8, 4, 6), (48, 2, 4), (5, 4, 4)], ids=str)
def test_adding_an_image_equals_the_plain_form(shape, below):
    channels, h, w = shape
    made = [torch.randn(3, *shape), torch.randn(1, channels, 1, 1), torch.randn(1)]
    made += [torch.randn(3, 1, h // 2, w // 2)] * below
    made = [(channels_last(one) if one.dim() == 4 else one).double().requires_grad_() for one in made]
    found = []
    for function in (add_image, plain_add_image):
        image = function(*made, *[None] * (not below))
        found.append((image, *torch.autograd.grad((image * image.detach().cos()).sum(), made)))
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
