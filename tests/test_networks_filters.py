"""Filters against those of SciPy, and the filtered activation against its definition and its own derivatives."""

import numpy as np
import pytest
import scipy.signal
import torch
from plain_filters import plain_activation, plain_thinning, resampled
from torch.nn import functional as F

from samgan.networks import FilteredActivation, Grid
from samgan.networks.alias_free import grids
from samgan.networks.filters import FINER, TAPS, Thinning, enlarge, lowpass, reduce


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("taps", [12, 24])
@pytest.mark.parametrize("number", range(10))
def test_a_filter_is_that_of_scipy(taps, number):
    grid = grids(64, 10)[number]
    rate = FINER * grid.rate
    expected = scipy.signal.firwin(taps, cutoff=grid.cutoff, width=2 * grid.half_width, fs=rate)
    np.testing.assert_allclose(lowpass(taps, grid, rate), expected, atol=1e-7)


def test_a_filter_lets_low_frequencies_through_and_stops_high_ones():
    """Beyond the slope a twentieth is left; at the cutoff a half, where the filter is long enough to draw the line."""
    for grid in grids(256, 14):
        rate = FINER * grid.rate
        frequencies = [0, grid.cutoff, *np.linspace(grid.cutoff + grid.half_width, rate / 2, 20)]
        _, response = scipy.signal.freqz(lowpass(TAPS * FINER, grid, rate).double().numpy(), worN=frequencies, fs=rate)
        direct, half, *stopped = abs(response)
        assert direct == pytest.approx(1, abs=1e-6)
        assert half == pytest.approx(0.5, abs=0.05) or grid.cutoff < rate / 8
        assert max(stopped) < 0.05


@pytest.mark.parametrize(("factor", "crop"), [(2, 0), (2, 5), (4, 7)])
def test_enlarging_is_that_of_scipy(factor, crop):
    x, kernel = torch.randn(2, 3, 9, 7, dtype=torch.double), torch.randn(6 * factor, dtype=torch.double)
    inner = np.s_[..., crop : 8 * factor + len(kernel) - crop, crop : 6 * factor + len(kernel) - crop]
    expected = resampled(x, kernel, factor, 1)[inner]
    np.testing.assert_allclose(enlarge(x, kernel, factor, crop), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_reducing_is_that_of_scipy(factor):
    x, kernel = torch.randn(2, 3, 30, 29, dtype=torch.double), torch.rand(6 * factor, dtype=torch.double)
    everywhere = resampled(x, kernel.flip(0), 1, 1)
    kept = everywhere[..., len(kernel) - 1 : 30, len(kernel) - 1 : 29][..., ::factor, ::factor]
    np.testing.assert_allclose(reduce(x, kernel, factor), kept, rtol=1e-12, atol=1e-12)


PAIRS = {
    "the same rate": (Grid(8, 6, 2.0, 2.0), Grid(8, 6, 2.5, 1.5)),
    "twice the rate": (Grid(8, 6, 2.0, 2.0), Grid(16, 6, 4.0, 4.0)),
    "without margin": (Grid(8, 6, 2.0, 2.0), Grid(8, 0, 4.0, 1.0)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_the_filtered_activation_is_what_it_says(pair):
    """Zeros between pixels, filter, activation, filter, every other pixel: the pixels in the places of the grid behind.

    Places are found from the positions of pixels in the image, not from the sizes that the layer uses.
    """
    before, behind = PAIRS[pair]
    layer = FilteredActivation(before, behind).double()
    x = torch.randn(2, 3, before.side, before.side, dtype=torch.double)
    expected = plain_activation(x.numpy(), layer, before, behind)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-9, atol=1e-12)


def test_a_constant_stays_constant():
    """Away from the sides, where the signal ends."""
    layer = FilteredActivation(Grid(16, 10, 2.0, 6.0), Grid(32, 10, 4.0, 12.0))
    for value, expected in ((3.0, 3.0), (-3.0, -0.6)):
        inner = layer(torch.full((1, 1, 36, 36), value))[:, :, 10:-10, 10:-10]
        torch.testing.assert_close(inner, torch.full_like(inner, expected), rtol=0.02, atol=0)


def test_the_filtered_activation_has_gradients_of_gradients():
    layer = FilteredActivation(Grid(4, 1, 1.0, 1.0), Grid(4, 0, 1.0, 1.0)).double()
    x = torch.randn(1, 2, 6, 6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_between_pixels_the_activation_is_the_same():
    """A wave that is moved by a part of a pixel: what comes out is moved too. A plain leaky ReLU lags 20 dB behind."""
    grid = Grid(32, 10, 6.0, 10.0)
    layer = FilteredActivation(grid, grid)
    places = (torch.arange(grid.side) + 0.5 - grid.margin) / grid.rate

    def wave(moved):
        return torch.sin(2 * torch.pi * (4.3 * (places[None] - moved) + 2.1 * places[:, None]))[None, None]

    def between(y, parts):
        """y, moved to the right by parts of a pixel: by a sinc over the whole length, with a soft end."""
        n = y.shape[-1]
        steps = np.arange(n)[:, None] - np.arange(n) - parts
        sinc = torch.tensor(np.sinc(steps) * np.cos(np.pi * np.clip(steps / 40, -0.5, 0.5)) ** 2, dtype=y.dtype)
        return y @ sinc.T

    def error(function):
        difference = function(wave(0.4 / 32)) - between(function(wave(0.0)), 0.4)
        return 10 * difference[..., 15:-15, 15:-15].square().mean().log10()

    assert error(layer) < -40
    assert error(layer) < error(lambda x: F.leaky_relu(x, 0.2)) - 10


@pytest.mark.parametrize(("rate", "side"), [(16, 4), (16, 8), (32, 16), (32, 32)])
def test_the_image_of_a_scale_has_its_pixels_in_their_places(rate, side):
    """A slow wave, sampled at the centres of the pixels of the image; such a steep filter has a ripple of 6 %."""
    thin = Thinning(Grid(rate, 10, rate / 4, rate / 4), side, 0.1 * side)

    def wave(pixels, margin):
        places = (torch.arange(pixels + 2 * margin) + 0.5 - margin) / pixels
        return torch.sin(2 * torch.pi * (0.3 * places[None] + 0.2 * places[:, None]))[None, None]

    image = thin(wave(rate, 10))
    assert image.shape == (1, 1, side, side)
    torch.testing.assert_close(image, wave(side, 0), rtol=0, atol=0.06)


@pytest.mark.parametrize(("rate", "side"), [(16, 4), (16, 8), (32, 16), (32, 32)])
def test_the_image_of_a_scale_is_what_it_says(rate, side):
    grid = Grid(rate, 10, rate / 4, rate / 4)
    thin = Thinning(grid, side, 0.1 * side).double()
    x = torch.randn(2, 3, grid.side, grid.side, dtype=torch.double)
    np.testing.assert_allclose(thin(x), plain_thinning(x.numpy(), thin, grid, side), rtol=1e-9, atol=1e-12)


def test_the_image_of_a_scale_has_gradients_of_gradients():
    grid = Grid(8, 10, 2.0, 2.0)
    thin, x = Thinning(grid, 4, 0.4).double(), torch.randn(1, 1, 28, 28, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(thin, x)
    assert torch.autograd.gradgradcheck(thin, x)
