"""What changes with the number of images seen, and that a step uses it."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

import samgan.networks.grouped
from samgan.config import Config, TrainingConfig
from samgan.errors import UsageError
from samgan.presets import preset_config
from samgan.training import Sampler, TrainingState, train_step
from samgan.training.schedules import scheduled, sides_at

CPU = torch.device("cpu")
BURN_IN = {
    "learning_rate": 0.002,
    "burnt_in_learning_rate": 0.0005,
    "penalty_weight": 8.0,
    "burnt_in_penalty_weight": 2.0,
    "penalty_every": 4,
    "adam_betas": (0.0, 0.9),
    "burnt_in_beta2": 0.99,
}


def test_training_may_begin_with_smaller_images():
    config = preset_config(resolution=128).override({"training.first_sides": [32, 64], "training.first_kimg": 2})
    sides = {images: sides_at(config, images)[-1] for images in (0, 1999, 2000, 3999, 4000, 10**9)}
    assert sides == {0: 32, 1999: 32, 2000: 64, 3999: 64, 4000: 128, 10**9: 128}
    assert sides_at(config, 0) == (4, 8, 16, 32)
    assert sides_at(config.override({"training.first_kimg": 4.03}), 4030)[-1] == 64  # 1000 * 4.03 > 4030
    assert sides_at(preset_config(resolution=128), 0)[-1] == 64


def test_blocks_above_the_first_images_wait():
    config = preset_config(resolution=32).override(
        {"network.max_channels": 8, "network.num_classes": 0, "training.batch_size": 4}
    )
    config = config.override({"training.first_sides": [8], "training.first_kimg": 0.008})
    state = TrainingState(config, CPU)
    images = np.random.RandomState(0).randint(0, 256, (8, 1, 32, 32)).astype(np.uint8)
    sampler = Sampler(images, config, CPU)

    def weights():
        networks = (state.generator, state.discriminator, state.ema_generator)
        return [{name: one.clone() for name, one in network.named_parameters()} for network in networks]

    before = weights()
    for step, moving in enumerate(({"0", "1"}, {"0", "1"}, {"0", "1", "2", "3"})):
        train_step(state, sampler(step))
        after = weights()
        moved = {
            name.split(".")[1]
            for old, new in zip(before, after, strict=True)
            for name in old
            if name.startswith("blocks.") and not torch.equal(old[name], new[name])
        }
        assert moved == moving
        before = after


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"training.first_sides": [64]}, "training.first_sides"),
        ({"training.first_sides": [32, 16]}, "smallest first"),
        (
            {"training.first_sides": [32], "network.generator_blocks": "plain", "network.mapping_layers": 0},
            "blocks are modulated and residual",
        ),
        ({"training.first_sides": [32], "network.spectral_norm": "both"}, "with spectral norm"),
    ],
)
def test_first_sides_that_cannot_be(settings, words):
    with pytest.raises(UsageError, match=words):
        preset_config(resolution=64).override(settings)


def test_without_a_burn_in_nothing_changes():
    training = TrainingConfig(penalty_every=8)
    expected = (1.0, training.penalty_weight * 8, training.adam_betas[1])
    for images in (0, 1000, 10**8):
        assert scheduled(Config(training=training), images) == expected


def test_a_burn_in_is_half_a_cosine_and_ends():
    training = TrainingConfig(burn_in_kimg=12.0, **BURN_IN)
    expected = {
        0: (1, 32, 0.9),
        3000: (0.25 + 0.75 * (1 + math.sqrt(0.5)) / 2, 8 + 24 * (1 + math.sqrt(0.5)) / 2, None),
        6000: (0.625, 20, 0.945),
        12000: (0.25, 8, 0.99),
        10**9: (0.25, 8, 0.99),
    }
    for images, values in expected.items():
        for found, value in zip(scheduled(Config(training=training), images), values, strict=True):
            if value is not None:
                assert found == pytest.approx(value, rel=1e-12)


def test_a_burn_in_of_no_length_is_over():
    assert scheduled(Config(training=TrainingConfig(**BURN_IN)), 0) == pytest.approx((0.25, 8, 0.99))


def test_both_falls_of_the_rate_multiply():
    training = TrainingConfig(burn_in_kimg=4.0, rate_decay_kimg=10.0, **BURN_IN)
    assert scheduled(Config(training=training), 40_000).rate_factor == pytest.approx(0.25 / 2)


def test_a_penalty_may_weigh_less_at_smaller_images():
    config = preset_config(resolution=256).override(
        {"training.first_sides": [64, 128], "training.first_kimg": 2, "training.penalty_weight": 0.32}
    )
    times = (0, 1999, 2000, 4000, 10**9)
    every = config.training.penalty_every
    assert [scheduled(config, images).penalty_weight / every for images in times] == [0.32] * 5
    config = config.override({"training.first_penalty_power": 2})
    found = [scheduled(config, images).penalty_weight / every for images in times]
    assert found == pytest.approx([0.02, 0.02, 0.08, 0.32, 0.32])


def small(name="r3gan", **changes):
    settings = {
        "network.max_channels": 16,
        "network.channel_base": 256,
        "network.num_classes": 0,
        "training.batch_size": 4,
        "training.burn_in_kimg": 0.032,
        "training.penalty_every": 2,
        "training.precision": "fp32",
    }
    return preset_config(name, "cpu", 32).override({**settings, **changes})


@pytest.fixture(scope="module")
def pictures():
    return np.random.RandomState(0).randint(0, 256, (40, 1, 32, 32)).astype(np.uint8)


def trained(config, pictures, steps, state=None):
    state, sampler = state or TrainingState(config, CPU), Sampler(pictures, config, CPU)
    for step in range(state.step, steps):
        train_step(state, sampler(step))
    return state


def weights_of(state):
    networks = (state.generator, state.discriminator, state.ema_generator)
    return torch.cat([parameter.detach().flatten() for network in networks for parameter in network.parameters()])


@pytest.mark.parametrize("name", ["r3gan", "r3gan-attention"])
def test_a_run_within_its_burn_in_continues_bit_for_bit(name, pictures):
    config = small(name)
    whole, half = trained(config, pictures, 6), trained(config, pictures, 3)
    resumed = TrainingState(config, CPU)
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    assert torch.equal(weights_of(trained(config, pictures, 6, resumed)), weights_of(whole))


def test_a_step_uses_the_rates_and_beta2_of_its_time(pictures):
    config = small()
    state = trained(config, pictures, 5)
    now = scheduled(config, 16)  # of the last step
    for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
        (group,) = optimizer.param_groups
        assert group["lr"] == pytest.approx(now.rate_factor * config.training.learning_rate)
        assert group["betas"] == (0.0, now.beta2)
    assert 0.9 < now.beta2 < 0.99


def test_a_step_uses_the_weight_of_the_penalty_of_its_time(pictures):
    """Another weight is another step; after a burn-in, only the last counts."""
    ends = {"training.burn_in_kimg": 0.0, "training.learning_rate": 1e-3, "training.burnt_in_learning_rate": 1e-3}
    ends |= {"training.burnt_in_beta2": 0.9}

    def after(first, last):
        weights = {"training.penalty_weight": first, "training.burnt_in_penalty_weight": last}
        return weights_of(trained(small(**ends, **weights), pictures, 3))

    assert torch.equal(after(50.0, 100.0), after(100.0, None))
    assert not torch.equal(after(50.0, 100.0), after(50.0, None))


def test_steps_equal_those_with_torchs_own_gradients(pictures, monkeypatch):
    """Weights as one tensor, and our second derivative of convolutions in groups, against neither."""
    config = small()

    def steps(plain):
        if plain:
            monkeypatch.setattr(samgan.networks.grouped, "grouped_conv", plain_conv)
        state = TrainingState(config, CPU).double()
        if plain:
            state.flat = {}
            state.generator_optimizer, state.discriminator_optimizer = map(
                state._optimizer, ("generator", "discriminator")
            )
        sampler = Sampler(pictures, config, CPU)
        for step in range(4):
            train_step(state, in_double(sampler(step)))
        return weights_of(state)

    torch.testing.assert_close(steps(plain=False), steps(plain=True), rtol=1e-9, atol=1e-11)


def plain_conv(x, weight, bias, padding, groups):
    return torch.nn.functional.conv2d(x, weight, bias, padding=padding, groups=groups)


def in_double(batch):
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    double = {name: v.double() if v is not None and v.is_floating_point() else v for name, v in values.items()}
    return type(batch)(**double)
