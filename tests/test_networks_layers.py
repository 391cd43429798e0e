"""Layers: the property that defines each one, and a plain reference."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from samgan.networks import (
    ATTENTION,
    EqualizedConv2d,
    LinearAttention,
    MinibatchStdDev,
    ModulatedConv2d,
    SelfAttention,
    activate,
    activate_and_normalize,
    channels_last,
    image_conv,
    pixel_norm,
    plain_image_conv,
    plain_upsample_conv,
    power_iteration,
    upsample,
    upsample_conv,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def singular_values(weight):
    return torch.linalg.svdvals(weight.detach().flatten(1))


# ---- EqualizedConv2d

CONVOLUTIONS = {
    "3x3": {"in_channels": 12, "out_channels": 16, "kernel_size": 3, "padding": 1},
    "1x1": {"in_channels": 16, "out_channels": 5, "kernel_size": 1},
    "4x4 transposed": {"in_channels": 12, "out_channels": 10, "kernel_size": 4, "transposed": True},
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_equalized_scale(kind):
    arguments = CONVOLUTIONS[kind]
    layer = EqualizedConv2d(**arguments)
    fan_in = arguments["in_channels"] * (1 if arguments.get("transposed") else arguments["kernel_size"] ** 2)
    torch.testing.assert_close(layer.effective_weight(), layer.weight * math.sqrt(2 / fan_in))
    assert layer.weight.std().item() == pytest.approx(1, abs=0.15)
    assert not layer.bias.any()


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_not_equalized_starts_at_the_same_scale(kind):
    layers = []
    for equalized in (True, False):
        torch.manual_seed(0)
        layers.append(EqualizedConv2d(**CONVOLUTIONS[kind], equalized=equalized))
    torch.testing.assert_close(layers[0].effective_weight(), layers[1].effective_weight())
    torch.testing.assert_close(layers[1].effective_weight(), layers[1].weight)


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolution_equals_torch(kind, spectral):
    arguments = CONVOLUTIONS[kind]
    layer = EqualizedConv2d(**arguments, spectral=spectral)
    torch.nn.init.normal_(layer.bias)
    reference = torch.nn.ConvTranspose2d if arguments.get("transposed") else torch.nn.Conv2d
    other = reference(*(v for k, v in arguments.items() if k in ("in_channels", "out_channels", "kernel_size")))
    other.padding = (layer.padding, layer.padding)
    with torch.no_grad():
        other.weight.copy_(layer.effective_weight())
        other.bias.copy_(layer.bias)
    x = torch.randn(2, arguments["in_channels"], 6, 6)
    torch.testing.assert_close(layer(x), other(x))


def test_unit_variance_is_kept():
    layer = EqualizedConv2d(64, 64, 3)
    x = F.leaky_relu(layer(torch.randn(4, 64, 16, 16)))
    assert x.square().mean().item() == pytest.approx(1, abs=0.1)  # He's gain of sqrt(2) undoes the activation's loss


@pytest.mark.parametrize("equalized", [True, False])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_spectral_norm_takes_the_top_singular_value_to_1(kind, equalized):
    layer = EqualizedConv2d(**CONVOLUTIONS[kind], spectral=True, equalized=equalized)
    assert singular_values(layer.effective_weight())[0].item() == pytest.approx(1, abs=0.1)  # from the first step on
    layer.power_iteration(300)
    values = singular_values(layer.effective_weight())
    assert values[0].item() == pytest.approx(1, abs=1e-3)
    own = singular_values(layer.weight)
    torch.testing.assert_close(values, own / own[0], rtol=1e-3, atol=1e-3)


def test_spectral_norm_recovers_after_a_perturbation():
    layer = EqualizedConv2d(12, 16, 3, spectral=True)
    layer.power_iteration(300)
    with torch.no_grad():
        layer.weight += 3 * torch.outer(F.normalize(torch.randn(16), dim=0), torch.randn(108)).view(16, 12, 3, 3)
    assert singular_values(layer.effective_weight())[0].item() > 1.1
    for _ in range(50):
        power_iteration(torch.nn.Sequential(torch.nn.Identity(), layer))
    assert singular_values(layer.effective_weight())[0].item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("scale", "spread"), [("plain", math.sqrt(2 / 288)), ("unit", 1.0)])
def test_scale_of_the_stored_weight_under_spectral_norm(scale, spread):
    torch.manual_seed(0)
    layer = EqualizedConv2d(32, 64, 3, spectral=True, spectral_scale=scale)
    assert layer.weight.std().item() == pytest.approx(spread, rel=0.02)
    layer.power_iteration(300)
    assert singular_values(layer.effective_weight())[0].item() == pytest.approx(1, abs=1e-3)


def test_one_step_turns_a_weight_of_scale_unit_as_much_less_as_it_is_longer():
    turned = {}
    for scale in ("plain", "unit"):
        torch.manual_seed(0)
        layer = EqualizedConv2d(32, 64, 3, spectral=True, spectral_scale=scale)
        layer.power_iteration(300)
        before = layer.effective_weight().detach()
        optimizer = torch.optim.Adam([layer.weight], lr=1e-4)
        (layer.effective_weight() * torch.sin(torch.arange(before.numel()).view_as(before))).sum().backward()
        optimizer.step()
        layer.power_iteration(300)
        turned[scale] = (layer.effective_weight() - before).norm().item()
    assert turned["plain"] / turned["unit"] == pytest.approx(math.sqrt(288 / 2), rel=0.05)


def test_spectral_norm_with_the_equalized_scale():
    layer = EqualizedConv2d(12, 16, 3, spectral=True, spectral_scale="equalized")
    layer.power_iteration(300)
    assert singular_values(layer.effective_weight())[0].item() == pytest.approx(math.sqrt(2 / 108), rel=1e-3)


def test_forward_moves_neither_u_nor_v():
    layer = EqualizedConv2d(4, 4, 3, spectral=True)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    x = torch.randn(2, 4, 8, 8)
    first = layer.train()(x)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), first)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    layer.power_iteration()
    assert not torch.equal(before["u"], layer.u)


def test_spectral_norm_equals_torch():
    """Weight and gradient, with the u and v of torch's own implementation (which moves them in forward)."""
    ours = EqualizedConv2d(4, 6, 3, spectral=True)
    theirs = torch.nn.Conv2d(4, 6, 3)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
    theirs = torch.nn.utils.parametrizations.spectral_norm(theirs).eval()
    ours.u.copy_(theirs.parametrizations.weight[0]._u)
    ours.v.copy_(theirs.parametrizations.weight[0]._v)
    torch.testing.assert_close(ours.effective_weight(), theirs.weight)
    direction = torch.randn(6, 4, 3, 3)
    (ours.effective_weight() * direction).sum().backward()
    (theirs.weight * direction).sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.parametrizations.weight.original.grad)


def test_power_iteration_without_spectral_norm_does_nothing():
    layer = EqualizedConv2d(4, 4, 3)
    before = layer.weight.clone()
    power_iteration(layer)
    assert torch.equal(before, layer.weight)
    assert set(layer.state_dict()) == {"weight", "bias"}


# ---- pixel norm, MinibatchStdDev


def test_pixel_norm_gives_unit_root_mean_square():
    x = torch.randn(2, 8, 3, 5) * torch.logspace(-1, 2, 5)
    y = pixel_norm(x)
    torch.testing.assert_close(y.square().mean(dim=1), torch.ones(2, 3, 5), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(y, x / x.square().mean(dim=1, keepdim=True).sqrt(), rtol=1e-4, atol=1e-4)
    assert not pixel_norm(torch.zeros(1, 8, 2, 2)).any()


@pytest.mark.parametrize("group", [0, 2])
def test_minibatch_std_of_identical_images_is_the_square_root_of_epsilon(group):
    x = torch.randn(1, 3, 4, 4).expand(4, -1, -1, -1)
    y = MinibatchStdDev(group)(x)
    assert y.shape == (4, 4, 4, 4)
    assert torch.equal(y[:, :3], x)
    torch.testing.assert_close(y[:, 3], torch.full((4, 4, 4), 1e-4))


def test_minibatch_std_is_the_mean_population_deviation():
    x = torch.randn(6, 3, 4, 4)
    y = MinibatchStdDev()(x)
    expected = x.numpy().std(axis=0).mean()  # numpy's default divides by n
    torch.testing.assert_close(y[:, 3], torch.full((6, 4, 4), float(expected)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_minibatch_std_of_each_group(group):
    x = torch.randn(6, 3, 4, 4)
    y = MinibatchStdDev(group)(x)
    groups = 6 // group
    for number in range(groups):
        members = torch.arange(number, 6, groups)
        assert len(members) == group
        torch.testing.assert_close(y[members], MinibatchStdDev()(x[members]))


def test_minibatch_std_of_a_batch_that_does_not_divide():
    with pytest.raises(ValueError, match="5 images cannot be divided into groups of 2"):
        MinibatchStdDev(2)(torch.randn(5, 3, 4, 4))


@pytest.mark.parametrize("group", [0, 2])
def test_minibatch_std_of_a_class_does_not_see_the_others(group):
    x, labels = torch.randn(7, 3, 4, 4), torch.tensor([2, 0, 2, 2, 0, 1, 2])
    y = MinibatchStdDev(group)(x, labels)
    groups = {0: [[0, 2, 3, 6], [1, 4], [5]], 2: [[0, 3], [2, 6], [1, 4], [5]]}[group]
    for members in groups:
        torch.testing.assert_close(y[members], MinibatchStdDev()(x[members]))


def test_minibatch_std_of_classes_has_groups_of_the_size_asked_for_or_more():
    x, labels = torch.randn(9, 3, 4, 4), torch.tensor([0, 1, 0, 0, 1, 0, 0, 0, 0])  # seven and two
    y = MinibatchStdDev(3)(x, labels)
    zeros = torch.arange(9)[labels == 0]
    for members in (zeros[::2], zeros[1::2], torch.tensor([1, 4])):
        torch.testing.assert_close(y[members], MinibatchStdDev()(x[members]))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_minibatch_std_shows_a_class_that_collapsed_beside_one_that_did_not(precision):
    x, labels = torch.randn(6, 3, 4, 4).to(precision), torch.arange(6) % 2
    x[1::2] = x[1]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        told, untold = MinibatchStdDev()(x, labels)[:, 3, 0, 0], MinibatchStdDev()(x)[:, 3, 0, 0]
    torch.testing.assert_close(told[1::2], torch.full((3,), 1e-4, dtype=precision))
    assert told[0] > 0.3
    assert untold.min() > 0.3


def test_minibatch_std_of_several_batches_with_classes():
    x, labels = torch.randn(8, 3, 4, 4), torch.tensor([0, 1, 0, 1, 1, 1, 1, 0])
    y = MinibatchStdDev(2)(x, labels, batches=2)
    for half in (slice(4), slice(4, 8)):
        torch.testing.assert_close(y[half], MinibatchStdDev(2)(x[half], labels[half]))


def test_minibatch_std_has_a_finite_second_derivative_for_identical_images():
    x = torch.ones(3, 2, 4, 4, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(MinibatchStdDev()(x).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert torch.isfinite(x.grad).all()


# ---- SelfAttention


def attention(pooled, value_reduction=2, channels=16, gamma=0.8, conv=EqualizedConv2d):
    layer = SelfAttention(channels, conv, reduction=8, value_reduction=value_reduction, pooled=pooled).double()
    torch.nn.init.constant_(layer.gamma, gamma)
    return layer


def plain(layer, x):
    """The paper's eq. 3-5 written out, i a key position and j a query position."""
    n, c, height, width = x.shape
    weight = {name: getattr(layer, name).effective_weight()[:, :, 0, 0] for name in ("key", "query", "value", "out")}
    f, g, h = (torch.einsum("dc,nchw->ndhw", weight[name], x) for name in ("key", "query", "value"))
    if layer.pooled:
        f, h = (t.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax(dim=(3, 5)) for t in (f, h))
    f, g, h = f.flatten(2), g.flatten(2), h.flatten(2)
    s = torch.einsum("ndi,ndj->nij", f, g)
    beta = torch.exp(s) / torch.exp(s).sum(dim=1, keepdim=True)
    o = torch.einsum("cd,ndj->ncj", weight["out"], torch.einsum("nij,ndi->ndj", beta, h))
    return layer.gamma * o.view(n, c, height, width) + x, beta.transpose(1, 2)


@pytest.mark.parametrize("pooled", [True, False])
def test_attention_is_the_identity_at_first(pooled):
    layer, x = SelfAttention(16, pooled=pooled), torch.randn(2, 16, 8, 8)
    assert torch.equal(layer(x), x)
    assert layer.gamma.item() == 0
    assert {name for name, _ in layer.named_parameters()} == {
        "gamma", "query.weight", "key.weight", "value.weight", "out.weight",
    }  # fmt: skip


# Values of C/2 are wider than queries of C/8, which are then padded; of C/8 as wide, of C/16 narrower.
@pytest.mark.parametrize("value_reduction", [2, 8, 16])
@pytest.mark.parametrize("few_scores", [0, 1 << 16], ids=["fused", "two products"])
@pytest.mark.parametrize("pooled", [True, False])
def test_attention_equals_the_equations(pooled, value_reduction, few_scores, monkeypatch):
    monkeypatch.setattr("samgan.networks.attention.FEW_SCORES", few_scores)
    layer = attention(pooled, value_reduction)
    x = 2 * torch.randn(2, 16, 8, 6, dtype=torch.double)
    expected, beta = plain(layer, x)
    torch.testing.assert_close(layer(x), expected)
    maps = layer.attention_maps(x)
    torch.testing.assert_close(maps, beta)
    assert maps.shape == (2, 48, 12 if pooled else 48)
    torch.testing.assert_close(maps.sum(dim=2), torch.ones(2, 48, dtype=torch.double))
    assert layer.query.weight.shape[0] == 2
    assert layer.value.weight.shape[0] == 16 // value_reduction


@pytest.mark.parametrize("few_scores", [0, 1 << 16], ids=["fused", "two products"])
@pytest.mark.parametrize("pooled", [True, False])
def test_attention_gradients_equal_those_of_the_equations(pooled, few_scores, monkeypatch):
    monkeypatch.setattr("samgan.networks.attention.FEW_SCORES", few_scores)
    layer = attention(pooled)
    x = torch.randn(2, 16, 4, 4, dtype=torch.double, requires_grad=True)
    inputs = [x, *layer.parameters()]
    direction = torch.randn(2, 16, 4, 4, dtype=torch.double)
    ours = torch.autograd.grad((layer(x) * direction).sum(), inputs)
    theirs = torch.autograd.grad((plain(layer, x)[0] * direction).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_scores_are_not_divided():
    """Scaled by 1/sqrt(d), d = 2, the result would be another one."""
    layer = attention(pooled=False)
    x = 2 * torch.randn(1, 16, 4, 4, dtype=torch.double)
    scaled = attention(pooled=False)
    scaled.load_state_dict(layer.state_dict())
    with torch.no_grad():
        scaled.query.weight /= math.sqrt(2)
    assert (scaled(x) - layer(x)).abs().max() > 1e-3
    torch.testing.assert_close(layer(x), plain(layer, x)[0])


# ---- written for speed, and as it is defined


def derivatives(function, inputs, weights):
    """Value, first derivatives, and those of their squares, by all that it depends on."""
    y = function()
    everything = [*inputs, *weights]
    first = torch.autograd.grad(y.square().sum(), everything, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), everything)
    return [y, *first, *second]


def test_activation_and_pixel_norm_in_one_equal_one_after_the_other():
    x = torch.randn(2, 5, 3, 4, dtype=torch.double, requires_grad=True)
    direction = torch.randn(2, 5, 3, 4, dtype=torch.double)
    pairs = []
    for function in (activate_and_normalize, lambda x: pixel_norm(activate(x))):
        y = function(1 * x)
        pairs.append([y, torch.autograd.grad((y * direction).sum(), x)[0]])
    for fast, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(fast, plain)


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
        torch.testing.assert_close(out, (expected + layer.conv.bias[:, None, None])[0])


@pytest.mark.parametrize("style_size", [128, 32])
def test_noise_is_independent_normal_and_a_function_of_the_latent(style_size):
    """Over latents: mean 0, variance 1, no correlation of pixels. Over one image's pixels: the same."""
    layer, other = (ModulatedConv2d(1, 1, 16, style_size, upsample=upsampled) for upsampled in (False, True))
    torch.nn.init.ones_(layer.noise), torch.nn.init.ones_(other.noise)
    w = torch.randn(2000, style_size, 1, 1)
    noise = layer(torch.zeros(2000, 1, 16, 16), w, w).flatten(1)
    assert torch.equal(noise[:5], layer(torch.zeros(5, 1, 16, 16), w[:5], w[:5]).flatten(1))
    assert noise.mean().abs() < 0.02
    assert noise.var(dim=0).mean().item() == pytest.approx(1, abs=0.05)
    assert noise.var(dim=1).mean().item() == pytest.approx(1, abs=0.05)
    correlation = torch.corrcoef(noise.T) - torch.eye(256)
    expected = 1 / min(style_size, 64)  # of unit vectors in so many dimensions: mean square cosine
    assert correlation.square().sum().item() / (256 * 255) == pytest.approx(expected, abs=0.005)
    between = (noise * other(torch.zeros(2000, 1, 8, 8), w, w).flatten(1)).mean()
    assert between.abs() < 0.05


def test_noise_is_the_same_in_every_process_and_version():
    assert ModulatedConv2d(1, 1, 4, 64).directions[0, :3].tolist() == pytest.approx(
        (np.random.RandomState(8).standard_normal(3) / 8).tolist(), rel=1e-6
    )


def test_a_modulated_convolution_keeps_the_mean_square_after_activation():
    layer = ModulatedConv2d(64, 64, 16, 16)
    w = torch.randn(8, 16, 1, 1)
    y = activate(layer(torch.randn(8, 64, 16, 16), w, w))
    inner = y[:, :, 1:-1, 1:-1]  # zeros are added at the border
    assert inner.square().mean().item() == pytest.approx(1.04, abs=0.1)  # 2 * (1 + 0.2^2) / 2


@pytest.mark.parametrize("settings", [{}, {"spectral": True}], ids=["equalized", "spectral"])
@pytest.mark.parametrize("size", [(4, 4), (5, 3), (1, 1)])
def test_upsample_conv_equals_repeating_and_convolving(settings, size):
    conv = EqualizedConv2d(3, 5, 3, padding=1, **settings).double()
    conv.bias.data.normal_()
    x = torch.randn(2, 3, *size, dtype=torch.double, requires_grad=True)
    pairs = [
        derivatives(partial(function, x, conv), [x], conv.parameters())
        for function in (upsample_conv, plain_upsample_conv)
    ]
    assert pairs[0][0].shape == (2, 5, 2 * size[0], 2 * size[1])
    for fast, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(fast, plain)


@pytest.mark.parametrize("settings", [{}, {"spectral": True}], ids=["equalized", "spectral"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("joined", [True, False])
def test_image_conv_equals_two_convolutions(settings, channels, joined):
    head = EqualizedConv2d(channels, 4, 1, **settings).double()
    conv = EqualizedConv2d(4 + 2 * joined, 5, 3, padding=1, **settings).double()
    head.bias.data.normal_(), conv.bias.data.normal_()
    image = torch.randn(2, channels, 6, 6, dtype=torch.double, requires_grad=True)
    x = torch.randn(2, 2, 6, 6, dtype=torch.double, requires_grad=True) if joined else None
    inputs = [image, x] if joined else [image]
    pairs = [
        derivatives(partial(function, image, x, head, conv), inputs, [*head.parameters(), *conv.parameters()])
        for function in (image_conv, plain_image_conv)
    ]
    for fast, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(fast, plain)


class Operators(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("pooled", [True, False])
def test_attention_keeps_no_map(pooled):
    attention = SelfAttention(16, pooled=pooled)
    with Operators() as operators:
        attention(torch.randn(2, 16, 32, 32)).sum().backward()
    fused = [name for name in operators.names if "flash_attention" in name]
    assert len(fused) == 2  # forward and backward
    assert not [name for name in operators.names if "softmax" in name]


def test_unpooled_attention_does_not_see_the_order_of_positions():
    layer = attention(pooled=False)
    x = torch.randn(2, 16, 4, 4, dtype=torch.double)
    order = torch.randperm(16)

    def shuffled(t):
        return t.flatten(2)[:, :, order].unflatten(2, (4, 4))

    torch.testing.assert_close(layer(shuffled(x)), shuffled(layer(x)))
    pooled = attention(pooled=True)
    assert not torch.allclose(pooled(shuffled(x)), shuffled(pooled(x)))


def test_attention_reaches_across_the_image():
    """The output at one corner depends on the opposite one: what a 1x1 convolution cannot do."""
    layer = attention(pooled=True)
    x = torch.randn(1, 16, 8, 8, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0, :, 0, 0].sum(), x)
    assert gradient[0, :, 6:, 6:].abs().sum() > 0


@pytest.mark.parametrize("channels", [4, 6])
def test_narrow_attention_keeps_one_channel_at_least(channels):
    layer = attention(pooled=True, channels=channels, value_reduction=8)
    assert layer.query.weight.shape[0] == 1
    x = torch.randn(1, channels, 4, 4, dtype=torch.double)
    torch.testing.assert_close(layer(x), plain(layer, x)[0])


def test_attention_takes_the_convolution_it_is_given():
    layer = attention(pooled=True, conv=partial(EqualizedConv2d, spectral=True))
    assert all(getattr(layer, name).spectral for name in ("query", "key", "value", "out"))
    power_iteration(layer)
    x = torch.randn(1, 16, 4, 4, dtype=torch.double)
    torch.testing.assert_close(layer(x), plain(layer, x)[0])


@pytest.mark.parametrize("side", [1, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_that_leaves_one_pixel_equals_its_plain_twin(side, bias):
    conv = EqualizedConv2d(3, 5, side, bias=bias).double()
    x = channels_last(torch.randn(2, 3, side, side, dtype=torch.double)).requires_grad_()
    fast = derivatives(partial(conv, x), [x], conv.parameters())
    plain = derivatives(partial(F.conv2d, x, conv.weight * conv.scale, conv.bias), [x], conv.parameters())
    assert fast[0].shape == (2, 5, 1, 1)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_convolution_keeps_to_the_layout_that_channels_last_tells(channels):
    images = torch.randn(2, channels, 8, 8)
    for told in (channels_last(images), channels_last(images[:, :, ::2])):  # side by side in memory or not
        assert told.stride(1) == 1
        y = F.conv2d(told, torch.randn(16, channels, 3, 3), padding=1)
        assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last(images), images)


def test_enlarging_keeps_the_precision_of_features():
    with torch.autocast("cpu", torch.bfloat16):
        assert upsample(torch.randn(1, 2, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
        layer = ModulatedConv2d(4, 4, 8, 4, upsample=True)
        assert layer(torch.randn(1, 4, 4, 4), torch.randn(1, 4, 1, 1), torch.randn(1, 4, 1, 1)).dtype == torch.bfloat16


# ---- other kinds of attention


def opened(kind, channels=16, conv=EqualizedConv2d):
    layer = ATTENTION[kind](channels, conv).double()
    torch.nn.init.constant_(layer.gamma, 0.8)
    return layer


@pytest.mark.parametrize("kind", ATTENTION)
def test_every_kind_of_attention_is_the_identity_at_first_and_opens(kind):
    layer, x = ATTENTION[kind](16), torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(layer(x), x, rtol=0, atol=0)
    layer(x).square().sum().backward()
    assert layer.gamma.grad.abs() > 0
    spectral = opened(kind, conv=partial(EqualizedConv2d, spectral=True))
    assert all(part.spectral for part in spectral.modules() if isinstance(part, EqualizedConv2d))
    x = torch.randn(2, 16, 8, 8, dtype=torch.double)
    spectral(x).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in spectral.parameters())


def test_linear_attention_equals_its_equation_written_out():
    layer, x = opened("linear"), torch.randn(2, 16, 6, 4, dtype=torch.double)
    weight = {name: getattr(layer, name).effective_weight()[:, :, 0, 0] for name in ("key", "query", "value", "out")}
    f, g, h = (torch.einsum("dc,ncp->ndp", weight[name], x.flatten(2)) for name in ("key", "query", "value"))
    f = torch.exp(f) / torch.exp(f).sum(dim=2, keepdim=True)
    g = torch.exp(g) / torch.exp(g).sum(dim=1, keepdim=True)
    pairs = torch.einsum("ndj,ndi->nji", g, f)
    o = torch.einsum("cd,nji,ndi->ncj", weight["out"], pairs, h)
    torch.testing.assert_close(layer(x), 0.8 * o.view_as(x) + x)
    maps = layer.attention_maps(x)
    torch.testing.assert_close(maps, pairs)
    torch.testing.assert_close(maps.sum(dim=2), torch.ones(2, 24, dtype=torch.double))


def test_linear_attention_forms_no_map():
    layer, x, sizes = LinearAttention(16), torch.randn(1, 16, 32, 32), []

    def pack(tensor):
        sizes.append(tensor.untyped_storage().nbytes() // 4)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    assert max(sizes) <= x.numel()


def test_dual_attention_adds_channels_that_attend_to_each_other():
    layer, x = opened("dual"), torch.randn(2, 16, 4, 4, dtype=torch.double)
    rows = x.flatten(2)
    scores = torch.einsum("ncp,ndp->ncd", rows, rows) / 16
    weights = torch.exp(scores) / torch.exp(scores).sum(dim=2, keepdim=True)
    channels = torch.einsum("ncd,ndp->ncp", weights, rows).view_as(x)
    torch.testing.assert_close(layer(x), SelfAttention.forward(layer, x) + 0.8 * channels)


def test_squeeze_excitation_equals_torchvisions():
    layer, x = opened("squeeze-excitation"), torch.randn(2, 16, 4, 6, dtype=torch.double)
    theirs = torchvision.ops.SqueezeExcitation(16, 2).double()
    for ours, other in ((layer.squeeze, theirs.fc1), (layer.excite, theirs.fc2)):
        torch.nn.init.normal_(ours.bias)
        other.load_state_dict({"weight": ours.effective_weight(), "bias": ours.bias})
    torch.testing.assert_close(layer(x), 0.8 * theirs(x) + x)


def test_cbam_weighs_channels_then_positions():
    layer, x = opened("cbam"), torch.randn(2, 16, 8, 8, dtype=torch.double)
    hidden, back = (part.effective_weight()[:, :, 0, 0] for part in (layer.squeeze, layer.excite))
    logits = sum((summary @ hidden.T).relu() @ back.T for summary in (x.mean(dim=(2, 3)), x.amax(dim=(2, 3))))
    weighed = x * logits.sigmoid()[:, :, None, None]
    maps = torch.stack([weighed.mean(dim=1), weighed.amax(dim=1)], dim=1)
    where = F.conv2d(maps, layer.locate.effective_weight(), padding=3).sigmoid()
    torch.testing.assert_close(layer(x), 0.8 * weighed * where + x)
