"""The compiled kernels: when they are used, and what does not change their results. What they compute is tested where
they are called, against torch."""

import importlib
import os
import subprocess
import sys
import types

import pytest
import torch

from samgan import kernels
from samgan.kernels import VERSION, has_kernels, kernels_fit, kernels_version, without_kernels
from samgan.networks import channels_last
from samgan.networks.fused import (
    activate_and_halve,
    activate_and_halve_backward,
    join_image,
    join_image_backward,
    scale_and_activate,
    scale_and_activate_backward,
)

INSTALLED = importlib.util.find_spec("samgan_kernels") is not None
needed = pytest.mark.skipif(not INSTALLED, reason="samgan-kernels is not installed (pip install ./kernels)")


def features(*shape, dtype=torch.float32):
    return channels_last(torch.randn(*shape)).to(dtype)


@needed
def test_the_installed_version_is_the_one_that_fits():
    assert kernels_version() == VERSION


@needed
def test_another_version_is_told_and_not_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "samgan_kernels", types.SimpleNamespace(__version__="0.0.1"))
    kernels._library.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"samgan-kernels 0.0.1 is not used, .* pip install ./kernels"):
            assert kernels_version() is None
        assert not kernels_fit(features(2, 16, 8, 8))
    finally:
        kernels._library.cache_clear()


def test_a_library_that_cannot_be_loaded_is_told_and_not_used(monkeypatch, tmp_path):
    broken = tmp_path / "kernels_default.so"
    broken.write_bytes(b"no library")
    package = types.SimpleNamespace(__version__=VERSION, library=lambda _: broken)
    monkeypatch.setitem(sys.modules, "samgan_kernels", package)
    monkeypatch.setattr(kernels, "_off", False)
    kernels._library.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"samgan-kernels cannot be loaded .* pip install --force-reinstall"):
            assert kernels_version() is None
    finally:
        kernels._library.cache_clear()


@needed
def test_they_fit_what_they_know():
    assert kernels_fit(features(2, 16, 8, 8))
    assert kernels_fit(features(2, 4, 8, 8, dtype=torch.bfloat16))
    assert kernels_fit(features(2, 48, 2, 2).double())
    assert not kernels_fit(features(2, 12, 8, 8))  # neither a part nor a multiple of 16
    assert not kernels_fit(features(2, 4, 2, 2))  # a row is too short
    assert not kernels_fit(torch.randn(2, 16, 8, 8))  # channel after channel
    assert not kernels_fit(features(2, 16, 8, 8).half())
    assert not kernels_fit(features(2, 16, 8, 8).to("meta"))
    assert not kernels_fit(features(1, 512, 8, 128))  # a row is too long
    with without_kernels():
        assert not has_kernels(features(2, 16, 8, 8))


def test_a_variable_leaves_them_out():
    code = "from samgan.kernels import kernels_version; print(kernels_version())"
    environment = {**os.environ, kernels.SWITCH: "0"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "None"


def results(dtype, exact=None):
    """What the kernels give for fixed numbers of one precision, in that precision or another."""
    torch.manual_seed(0)
    x, y, g = (features(5, 16, 64, 64, dtype=dtype) for _ in range(3))
    half, image = features(5, 16, 32, 32, dtype=dtype), features(5, 1, 64, 64, dtype=dtype)
    weight, bias = torch.randn(16, 1, 3, 3).to(dtype), torch.randn(16).to(dtype)
    scale, strength = torch.rand(5, 16), torch.randn(16, 1, 1).to(dtype)
    noise = torch.randn(5, 128**2).to(dtype)
    if exact:
        made = (x, y, g, half, image, weight, bias, scale, strength, noise)
        x, y, g, half, image, weight, bias, scale, strength, noise = (one.to(exact) for one in made)
    found = [activate_and_halve(y.clone(memory_format=torch.channels_last))]
    found += activate_and_halve_backward(half, y, bias=True)
    joined, _, image_features = join_image(image, x, weight, bias)
    own = g.clone(memory_format=torch.channels_last)
    gradients = join_image_backward(own, half, image, image, weight, bias, image_features, wanted=(True, True, True))
    enlarged = scale_and_activate(x, scale, bias, strength, noise, enlarge=True)
    of_enlarged = scale_and_activate_backward(enlarged, enlarged, x, scale, bias, strength, noise, enlarge=True)
    return [*found, joined, own, *gradients, enlarged, *of_enlarged]


@needed
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_results_do_not_depend_on_threads(dtype):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results(dtype)
        torch.set_num_threads(2)
        two = results(dtype)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@needed
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_they_round_no_worse_than_torch(dtype):
    """Largest errors, against torch in double precision; twice torch's, or the last digit, is allowed."""
    fast = results(dtype)
    with without_kernels():
        plain, exact = results(dtype), results(dtype, torch.double)
    for one, other, true in zip(fast, plain, exact, strict=True):
        allowed = 2 * (other - true).abs().max() + torch.finfo(dtype).eps * true.abs().max()
        assert (one - true).abs().max() <= allowed


@needed
def test_an_array_of_another_type_is_refused():
    y, half = features(2, 16, 4, 4), features(2, 16, 2, 2, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match=r"activate_and_halve: array 1 is torch.bfloat16, expected torch.float32"):
        kernels.run("activate_and_halve", y.dtype, y, half, 2, 4, 4, 16)


@needed
def test_not_a_number_stays_one_in_bf16():
    y = features(2, 16, 4, 4, dtype=torch.bfloat16)
    y[0, 3, 1, 1] = torch.nan
    half = activate_and_halve(y)
    assert half.isnan().sum() == 1
    assert y.isnan().sum() == 1
