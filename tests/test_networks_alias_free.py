"""The alias-free generator: each layer against a plain form, magnitudes, and images that move with their picture."""

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_filters import plain_activation, plain_thinning
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.networks import (
    AliasFreeConv2d,
    FourierFeatures,
    Generator,
    Grid,
    attention_maps,
    follow_magnitudes,
    observed_magnitudes,
)
from samgan.networks.alias_free import MAGNITUDE_HALFLIFE, MARGIN, grids
from samgan.training import Sampler, TrainingState, train_step

CPU = torch.device("cpu")
GRID = Grid(8, 4, 2.0, 2.0)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def network(blocks="alias-free", **settings):
    return NetworkConfig(**{"resolution": 32, "max_channels": 16, "generator_blocks": blocks, **settings})


# ---- the schedule


def test_with_fourteen_layers_of_1024_px_the_canvases_are_those_of_the_paper():
    sides = [grid.side for grid in grids(1024, 14)]
    assert sides == [36, 36, 52, 52, 84, 148, 148, 276, 276, 532, 1044, 1044, 1044, 1024]


@pytest.mark.parametrize("side", [32, 64, 128, 256, 512, 1024])
def test_the_image_of_each_scale_comes_from_the_layer_that_has_its_highest_frequency(side):
    scales = int(math.log2(side)) - 1
    found = grids(side, 2 * scales)
    for scale in range(scales):
        own = 4 << scale
        grid = found[2 * scale if own < side else -1]
        assert grid.cutoff == pytest.approx(own / 2)
        assert grid.rate % own == 0
        # A filter reaches (6 n - n) / 2 pixels when it thins out to every n-th: no further than the margin.
        assert grid.rate == own or 5 * grid.rate // own // 2 <= grid.margin == MARGIN
    assert all(grid.cutoff + grid.half_width >= grid.rate / 2 - 1e-9 for grid in found)
    assert all(before.rate <= behind.rate <= 2 * before.rate for before, behind in itertools.pairwise(found))


# ---- layers


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.07, -0.11)])
def test_fourier_features_are_waves_turned_and_moved(shift):
    """Pixel by pixel, with the rotation as a product of complex numbers."""
    layer = FourierFeatures(5, GRID, 3).double()
    layer.shift = shift
    style = torch.randn(2, 4, dtype=torch.double)
    x = layer(style)
    mix = layer.mix.effective_weight()[:, :, 0, 0].detach().numpy()
    frequencies, phases = layer.frequencies.numpy(), layer.phases.numpy()
    for n, (cosine, sine, right, down) in enumerate(style.numpy()):
        size = abs(complex(cosine, sine))
        for row, column in ((0, 0), (3, 11), (15, 7)):
            there = complex((column + 0.5 - 4) / 8 - 0.5 - shift[0], (row + 0.5 - 4) / 8 - 0.5 - shift[1])
            place = there * complex(cosine, sine) / size + complex(right, down) / size
            cycles = frequencies[0] * place.real + frequencies[1] * place.imag + phases
            np.testing.assert_allclose(x[n, :, row, column].detach(), mix @ np.sin(2 * np.pi * cycles), atol=1e-12)


def test_at_the_start_the_style_neither_turns_nor_moves_the_waves():
    config = network(mapping_layers=1)
    generator = Generator(config)
    start = generator.blocks[0].start
    assert (start.frequencies.norm(dim=0) <= 2).all()
    seen = []
    start.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    generator(torch.randn(2, 16))
    torch.testing.assert_close(seen[0], torch.tensor([[1.0, 0, 0, 0]] * 2))


@pytest.mark.parametrize("magnitude", [1.0, 0.3])
def test_a_layer_is_a_kernel_of_its_own_for_each_image(magnitude):
    layer = AliasFreeConv2d(5, 7, GRID, GRID, 3).double()
    layer.magnitude.fill_(magnitude)
    torch.nn.init.normal_(layer.conv.bias)
    x, style = torch.randn(2, 5, 16, 16, dtype=torch.double), torch.randn(2, 5, dtype=torch.double)
    for image, own, y in zip(x, style, layer(x, style), strict=True):
        kernel = layer.conv.effective_weight() * own[:, None, None]
        kernel = kernel / kernel.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        plain = F.conv2d(image[None] / math.sqrt(magnitude), math.sqrt(2) * kernel, layer.conv.bias, padding=1)
        torch.testing.assert_close(y[None], layer.activation(plain), rtol=1e-6, atol=1e-6)  # for the 1e-8


def test_a_layer_has_gradients_of_gradients():
    layer = AliasFreeConv2d(2, 2, Grid(4, 1, 1.0, 1.0), Grid(4, 0, 1.0, 1.0), 3).double()
    x, style = (torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in ((1, 2, 6, 6), (1, 2)))
    assert torch.autograd.gradcheck(layer, (x, style))
    assert torch.autograd.gradgradcheck(layer, (x, style))


def plain_layer(layer, x, style, before, behind):
    """A layer in plain form: a kernel of its own for each image, then SciPy's filters."""
    weight, bias = layer.conv.effective_weight(), layer.conv.bias
    rows = []
    for image, own in zip(x, style, strict=True):
        kernel = weight * own[:, None, None]
        kernel = math.sqrt(2) * kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        rows.append(F.conv2d(image[None] / layer.magnitude.sqrt(), kernel, bias, padding=1))
    return torch.tensor(plain_activation(torch.cat(rows).numpy(), layer.activation, before, behind))


def plain_start(start, style):
    """The waves of each image, at the positions of the grid as complex numbers."""
    grid = start.grid
    positions = (torch.arange(grid.side, dtype=torch.double) + 0.5 - grid.margin) / grid.rate - 0.5
    there = torch.complex(*torch.broadcast_tensors(positions[None, :], positions[:, None]))
    images = []
    for cosine, sine, right, down in style:
        size = torch.hypot(cosine, sine)
        turned = (there * torch.complex(cosine, sine) + torch.complex(right, down)) / size
        cycles = [
            fx * turned.real + fy * turned.imag + phase
            for (fx, fy), phase in zip(start.frequencies.T, start.phases, strict=True)
        ]
        images.append(torch.stack(cycles))
    waves = torch.sin(2 * math.pi * torch.stack(images))
    return torch.einsum("oi,nihw->nohw", start.mix.effective_weight()[:, :, 0, 0], waves)


def plain_attention(attention, x):
    """Every position against every pooled one."""
    beta = attention.attention_maps(x)
    values = F.max_pool2d(attention.value(x), 2).flatten(2)
    return x + attention.gamma * attention.out(torch.einsum("nji,nci->ncj", beta, values).unflatten(2, x.shape[2:]))


@torch.no_grad()
def test_the_whole_generator_is_its_layers_in_plain_form():
    """In float64, with a mapping, open attention, and magnitudes, biases and styles that are not those of the start."""
    generator = Generator(network(mapping_layers=2, generator_attention=(8,))).double()
    generator.blocks[1].attention.gamma.fill_(0.7)
    for name, parameter in generator.named_parameters():
        if name.endswith("bias") or "start.style" in name:
            parameter += 0.3 * torch.randn_like(parameter)
    for layer in generator.modules():
        if isinstance(layer, AliasFreeConv2d):
            layer.magnitude.fill_(float(torch.rand(())) + 0.2)
    latents = torch.randn(2, 16, dtype=torch.double)

    w = latents / latents.norm(dim=1, keepdim=True) * 4
    for layer in generator.mapping:
        w = F.leaky_relu(F.linear(w, layer.effective_weight()[:, :, 0, 0], layer.bias), 0.2)

    def style(layer):
        return 1 + F.linear(w, layer.style.effective_weight()[:, :, 0, 0], layer.style.bias)

    every = grids(32, 2 * len(generator.blocks))
    x, expected = plain_start(generator.blocks[0].start, style(generator.blocks[0].start)), []
    before = every[0]
    for number, block in enumerate(generator.blocks):
        own, behind = every[2 * number : 2 * number + 2]
        shown = plain_layer(block.conv_1, x, style(block.conv_1), before, own)
        shown = plain_attention(block.attention, shown) if number == 1 else shown
        x = plain_layer(block.conv_2, shown, style(block.conv_2), own, behind)
        picture, grid = (x, behind) if block.is_last else (shown, own)
        expected.append(plain_thinning(block.to_image(picture).numpy(), block.thin, grid, 4 << number))
        before = behind
    for image, plain in zip(generator(latents), expected, strict=True):
        assert np.abs(plain).max() > 0.05
        np.testing.assert_allclose(image, plain, rtol=1e-8, atol=1e-10)


def test_attention_is_where_the_setting_says_and_sees_the_margins():
    config = network(generator_attention=(4, 16))
    generator = Generator(config)
    maps = attention_maps(generator, torch.randn(2, 16))
    assert {side: tuple(beta.shape) for side, beta in maps.items()} == {
        4: (2, 36 * 36, 18 * 18),
        16: (2, 52 * 52, 26 * 26),
    }
    before = generator(torch.randn(2, 16))
    torch.nn.init.ones_(generator.blocks[2].attention.gamma)
    behind = generator(torch.randn(2, 16))
    assert [image.shape for image in before] == [image.shape for image in behind]


def test_open_attention_changes_its_own_scale_and_those_above():
    generator, latents = Generator(network(generator_attention=(8,))).eval(), torch.randn(2, 16)
    before = generator(latents)
    torch.nn.init.ones_(generator.blocks[1].attention.gamma)
    changed = [not torch.equal(a, b) for a, b in zip(before, generator(latents), strict=True)]
    assert changed == [False, True, True, True]


# ---- magnitudes


def test_inputs_get_unit_magnitude_without_a_swing():
    """From twice to a hundredfold too large an input: all layers settle, and on the way none gets worse."""
    generator = Generator(network()).requires_grad_(False)
    layers = [layer for layer in generator.modules() if isinstance(layer, AliasFreeConv2d)]
    assert len(layers) == 8
    generator.blocks[0].start.mix.weight.mul_(10)
    latents = torch.randn(2, 16)

    def errors():
        """Of each layer's input, as it is divided: the logarithm of its mean square."""
        generator(latents)
        observed = observed_magnitudes(generator)
        return observed, (observed / torch.stack([layer.magnitude for layer in layers])).log().abs()

    observed, worst = errors()[0], errors()[1].max()
    for _ in range(150):
        follow_magnitudes([generator], observed, 0, 4)
        observed, found = errors()
        assert found.max() <= 1.05 * worst
    assert found.max() < 0.05 * worst


def test_averages_move_by_their_half_life_and_the_averaged_generator_has_the_same():
    generator = Generator(network())
    average = copy.deepcopy(generator)
    observed = torch.linspace(2, 9, 8)
    follow_magnitudes([generator, average], observed, images_seen=10**9, images=int(MAGNITUDE_HALFLIFE / 20))
    for one in (generator, average):
        found = [layer.magnitude for layer in one.modules() if isinstance(layer, AliasFreeConv2d)]
        torch.testing.assert_close(torch.stack(found), observed ** (1 - 0.5 ** (1 / 20)))


def test_a_step_moves_them_and_samples_do_not(tiny_config, images):
    config = tiny_config.override({"network": {"generator_blocks": "alias-free", "spectral_norm": "none"}})
    state = TrainingState(config, CPU)

    def magnitudes(generator):
        return {name: value.clone() for name, value in generator.state_dict().items() if name.endswith("magnitude")}

    before = magnitudes(state.generator)
    assert len(before) == 8
    for generator in (state.generator, state.ema_generator):
        generator(torch.randn(2, 8))
    assert magnitudes(state.generator) == before
    batch = Sampler(images, config, CPU)(0)
    train_step(state, batch)
    expected = observed_magnitudes(state.generator)
    for number, (name, value) in enumerate(magnitudes(state.generator).items()):
        torch.testing.assert_close(value, expected[number] ** 0.05)  # no more of the first batch
        assert torch.equal(value, magnitudes(state.ema_generator)[name])
    state.generator(torch.randn(2, 8))  # in the mode of training: what it saw is not taken for the next step's
    train_step(state, batch)
    assert not torch.equal(observed_magnitudes(state.generator), expected)


def test_other_generators_have_no_magnitudes():
    assert observed_magnitudes(Generator(NetworkConfig(resolution=32, max_channels=8))) is None


# ---- what it is for: equivariance to translation


@pytest.fixture(scope="module")
def equivariance():
    """The benchmark that measures it, for random weights and for trained models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        import bench_equivariance
    return bench_equivariance


@pytest.fixture(scope="module", params=["alias-free", "modulated"])
def generator(request, equivariance):
    return equivariance.random_generator(request.param, 64)


@pytest.mark.parametrize("pixels", [(3, 0), (-1, 5), (0.37, 4.6), (2.5, -3.25)])
def test_a_moved_start_moves_the_image(generator, equivariance, pixels):
    """The paper reports 63 dB for 256 px after training; these are random weights of a network of 16 channels."""
    decibels = equivariance.decibels(equivariance.squared_error(generator, torch.randn(2, 16), pixels))
    assert decibels > 50 if generator.is_alias_free else decibels < 35


def test_the_image_of_every_scale_moves(equivariance):
    """By one pixel of its own; that of 4 px then moves by a quarter of the picture."""
    generator, latents = equivariance.random_generator("alias-free", 64), torch.randn(2, 16)
    for scale in range(5):
        assert equivariance.decibels(equivariance.squared_error(generator, latents, (1, 1), scale=scale)) > 45


def test_moving_an_image_is_what_it_says(equivariance):
    """A slow wave, between pixels; and whole pixels, by any filter."""
    places = (torch.arange(64) + 0.5) / 64
    wave = torch.sin(2 * torch.pi * (5.3 * places[None] + 3.1 * places[:, None]))[None, None]
    expected = torch.sin(2 * torch.pi * (5.3 * (places[None] - 2.4 / 64) + 3.1 * (places[:, None] + 1.7 / 64)))[
        None, None
    ]
    found = equivariance.moved(wave, (2.4, -1.7))
    torch.testing.assert_close(found[..., 20:-20, 20:-20], expected[..., 20:-20, 20:-20], rtol=0, atol=1e-3)
    assert torch.equal(equivariance.moved(wave, (2, -1)), torch.roll(wave, (-1, 2), dims=(2, 3)))
