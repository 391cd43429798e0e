"""Convolutions with equalized learning rate and spectral norm, and the steps between them, against plain twins."""

import contextlib
import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from samgan.kernels import without_kernels
from samgan.networks import (
    EqualizedConv2d,
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
from samgan.networks.convolutions import activate_then_halve, halve, unhalve


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


@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3, 16, 64, 128])
def test_halving_equals_pooling(channels, dtype):
    x = channels_last(torch.randn(2, channels, 8, 6, dtype=dtype)).requires_grad_()
    pairs = []
    for function in (halve, partial(F.avg_pool2d, kernel_size=2)):
        y = function(x)
        pairs.append((y, *torch.autograd.grad((y * y.detach().cos()).sum(), [x])))
    for fast, plain in zip(*pairs, strict=True):
        assert fast.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(fast, plain)
    assert torch.equal(unhalve(y), pairs[1][1] * 0 + F.interpolate(y, scale_factor=2) / 4)


@pytest.mark.parametrize("function", [activate, activate_then_halve, activate_and_normalize])
@pytest.mark.parametrize("channels", [4, 48])
def test_activations_by_kernels_equal_those_of_torch(function, channels):
    """Results, gradients, and where they exist gradients of gradients, to 1e-12 in double precision."""
    x = channels_last(torch.randn(2, channels, 128, 132, dtype=torch.double))
    found = []
    for context in (contextlib.nullcontext(), without_kernels()):
        with context:
            own = x.clone(memory_format=torch.channels_last).requires_grad_()
            y = function(own * 1)
            results = [y, *torch.autograd.grad((y * y.detach().cos()).sum(), own)]
            if function is not activate_and_normalize:
                y = function(own * 1)
                (gradient,) = torch.autograd.grad(y.square().sum(), own, create_graph=True)
                results += [gradient, *torch.autograd.grad(gradient.square().sum() + y.sum(), own)]
            found.append(results)
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)


def test_a_layer_on_the_device_meta_has_no_iterations_to_do():
    """Of a model that is opened, the shapes of the weights are asked for first; the iterations took a second."""
    with torch.device("meta"):
        layer = EqualizedConv2d(4, 8, 3, spectral=True)
    with FlopCounterMode(display=False) as counted:
        layer.power_iteration()
    assert layer.u.is_meta
    assert counted.get_total_flops() == 0
