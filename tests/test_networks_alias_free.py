"""The alias-free generator: each layer against a plain form, magnitudes, and images that move with their picture."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
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


def test_layers_see_inputs_of_unit_magnitude_once_the_averages_know_them():
    """The first update takes over what the first batch showed; then every input is divided by its magnitude."""
    generator = Generator(network())
    latents = torch.randn(2, 16)
    for _ in range(10):  # one layer after the other gets its input right
        generator(latents)
        follow_magnitudes([generator], observed_magnitudes(generator), 0, 4)
    generator(latents)
    layers = [layer for layer in generator.modules() if isinstance(layer, AliasFreeConv2d)]
    assert len(layers) == 8
    for layer, observed in zip(layers, observed_magnitudes(generator), strict=True):
        torch.testing.assert_close(layer.magnitude, observed, rtol=1e-4, atol=0)


def test_averages_move_by_their_half_life_and_the_averaged_generator_has_the_same():
    generator = Generator(network())
    average = copy.deepcopy(generator)
    observed = torch.linspace(2, 9, 8)
    follow_magnitudes([generator, average], observed, images_seen=10**9, images=MAGNITUDE_HALFLIFE)
    for one in (generator, average):
        found = [layer.magnitude for layer in one.modules() if isinstance(layer, AliasFreeConv2d)]
        torch.testing.assert_close(torch.stack(found), (1 + observed) / 2)


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
        assert torch.equal(value, expected[number])  # the first step takes over what it sees
        assert torch.equal(value, magnitudes(state.ema_generator)[name])
    state.generator(torch.randn(2, 8))  # in the mode of training: what it saw is not taken for the next step's
    train_step(state, batch)
    assert not torch.equal(observed_magnitudes(state.generator), expected)


def test_other_generators_have_no_magnitudes():
    assert observed_magnitudes(Generator(NetworkConfig(resolution=32, max_channels=8))) is None


# ---- what it is for: equivariance to translation


def moved_by_pixels(images, pixels):
    """Images moved to the right by whole pixels; what comes in from the left is not compared."""
    return torch.roll(images, pixels, dims=3)


def moved_between_pixels(images, pixels):
    """Images moved to the right by parts of a pixel, by a long sinc with a soft end (the paper: Lanczos)."""
    n = images.shape[-1]
    steps = np.arange(n)[:, None] - np.arange(n) - pixels
    sinc = np.sinc(steps) * np.cos(np.pi * np.clip(steps / 32, -0.5, 0.5)) ** 2
    return images @ torch.tensor(sinc.T, dtype=images.dtype)


def eq_t(expected, found, border):
    """EQ-T in dB: 10 log10(I^2 / mean of squared differences), with I = 2, the range of an image's values."""
    return float(10 * (4 / (expected - found)[..., border:-border].square().mean()).log10())


def alias_free_pair(generator, latents, pixels, number=-1):
    """Images as they are, and with the waves moved to the right by `pixels` of the largest image."""
    start = generator.blocks[0].start
    still = generator(latents)[number]
    start.shift = (pixels / 64, 0.0)
    moved = generator(latents)[number]
    start.shift = (0.0, 0.0)
    return still, moved


def modulated_pair(generator, latents, pixels):
    """The same, with the learned start of 4x4 pixels moved between its pixels, as if it were periodic."""
    start = generator.blocks[0].start
    still, kept = generator(latents)[-1], start.clone()
    turn = torch.exp(-2j * torch.pi * torch.fft.fftfreq(4) * 4 * pixels / 64)
    start.copy_(torch.fft.ifft(torch.fft.fft(start, dim=3) * turn, dim=3).real)
    moved = generator(latents)[-1]
    start.copy_(kept)
    return still, moved


@pytest.fixture(scope="module", params=["alias-free", "modulated"])
def calibrated(request):
    """A generator with random weights whose images have a standard deviation of 0.5, and a few latents."""
    torch.manual_seed(1)
    config = network(request.param, resolution=64, channel_base=1024, noise="none")
    generator, latents = Generator(config).requires_grad_(False), torch.randn(3, 16)
    for _ in range(10 if request.param == "alias-free" else 0):
        generator(latents)
        follow_magnitudes([generator], observed_magnitudes(generator), 0, 8)
    deviations = [images.std() for images in generator(latents)]
    for block, deviation in zip(generator.blocks, deviations, strict=True):
        block.to_image.weight.mul_(0.5 / (deviation if request.param == "alias-free" else deviations[-1]))
    return request.param, generator.eval(), latents


@pytest.mark.parametrize("pixels", [3, 0.37])
def test_a_moved_start_moves_the_image(calibrated, pixels):
    """Alias-free: as the paper reports for 256 px after training (63 dB for whole pixels) or better."""
    blocks, generator, latents = calibrated
    move = moved_by_pixels if isinstance(pixels, int) else moved_between_pixels
    pair = alias_free_pair if blocks == "alias-free" else modulated_pair
    still, moved = pair(generator, latents, pixels)
    decibels = eq_t(move(still, pixels), moved, border=18)
    assert (decibels > 63) == (blocks == "alias-free")


def test_the_image_of_every_scale_moves(calibrated):
    """By one pixel of its own; that of 4 px then moves by a quarter of the picture, which is more than the margin."""
    blocks, generator, latents = calibrated
    if blocks == "alias-free":
        for number, side in enumerate((4, 8, 16, 32, 64)):
            still, moved = alias_free_pair(generator, latents, 64 // side, number)
            assert eq_t(moved_by_pixels(still, 1), moved, border=1) > 50
