import pytest
import torch

from samgan.config import Config
from samgan.training import Sampler, TrainingState, train_step, unused_settings
from samgan.training.unused import RULES

TINY = {
    "network.resolution": 32,
    "network.max_channels": 8,
    "training.batch_size": 4,
    "training.kimg": 0.04,
    "training.ema_halflife_kimg": 0.02,
}
PENALIZED = {"training.penalty": "r1", "training.penalty_weight": 1.0}
MODULATED = {"network.generator_blocks": "modulated", "network.discriminator_blocks": "residual"}
ATTENTIVE = {"network.generator_attention": [8], "network.discriminator_attention": [8]}
PROJECTED = {
    **MODULATED,
    "network.discriminator_blocks": "projected",
    "network.vision_features": "radiograph",
    "network.vision_resolution": 64,
}
# Of each rule: settings by which it holds, and another value of each of its settings.
CASES = (
    (
        {},
        {"training.penalty_weight": 3.0, "training.penalty_every": 2, "training.burnt_in_penalty_weight": 2.0},
    ),
    (MODULATED | PENALIZED, {"training.first_kimg": 0.008, "training.first_penalty_power": 2.0}),
    ({"training.ema_halflife_kimg": 0}, {"training.ema_ramp": 0.05}),
    ({"training.optimizer": "rmsprop"}, {"training.adam_betas": [0.5, 0.9], "training.burnt_in_beta2": 0.9}),
    (MODULATED, {"training.vision_weight": 2.0}),
    (
        MODULATED,
        {
            "network.vision_features": "radiograph",
            "network.vision_file": "nowhere.pt",
            "network.vision_resolution": 64,
            "network.vision_channels": 32,
        },
    ),
    (
        {
            **MODULATED,
            "network.discriminator_blocks": "vision",
            "network.vision_features": "radiograph",
            "network.vision_resolution": 64,
        },
        {"network.vision_tiles": True},
    ),
    (MODULATED, {"network.combine": "cat_lin"}),
    ({"network.generator_blocks": "alias-free"}, {"network.noise": "all"}),
    (MODULATED, {"network.pixel_norm": False}),
    ({"network.minibatch_std": "none"}, {"network.minibatch_std_group": 2}),
    ({}, {"network.spectral_norm_layers": "hidden", "network.spectral_norm_scale": "unit"}),
    ({"network.spectral_norm": "both", "network.equalized_lr": False}, {"network.spectral_norm_scale": "unit"}),
    (
        {},
        {
            "network.attention_kind": "linear",
            "network.attention_pooled": False,
            "network.attention_reduction": 2,
            "network.attention_value_reduction": 1,
        },
    ),
    (
        {**ATTENTIVE, "network.attention_kind": "cbam"},
        {"network.attention_pooled": False, "network.attention_value_reduction": 1},
    ),
    ({**ATTENTIVE, "network.attention_kind": "linear"}, {"network.attention_pooled": False}),
    (PROJECTED, {"network.spectral_norm": "discriminator"}),
    ({**PROJECTED, "network.minibatch_std": "last"}, {"network.minibatch_std": "every"}),
    ({}, {"training.burn_in_kimg": 0.5}),
)


@torch.no_grad()
def weights_after(config, images):
    """All weights after three steps, with every gate of attention opened before."""
    state = TrainingState(config, torch.device("cpu"))
    for network in (state.generator, state.discriminator):
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
    sampler = Sampler(images, config, torch.device("cpu"))
    with torch.enable_grad():
        for _ in range(3):
            train_step(state, sampler(state.step))
    networks = (state.generator, state.discriminator, state.ema_generator)
    return [tensor for network in networks if network is not None for tensor in network.state_dict().values()]


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [
        pytest.param(rule, key, value, id=f"{number}-{key}")
        for number, (rule, others) in enumerate(CASES)
        for key, value in others.items()
    ],
)
def test_what_is_said_to_have_no_effect_has_none(base, key, value, images):
    config = Config().override({**TINY, **base})
    other = config.override({key: value})
    (sentence,) = unused_settings(other, [key])
    assert sentence.startswith(f"{key} has no effect: ")
    one, two = weights_after(config, images), weights_after(other, images)
    assert len(one) == len(two)
    assert all(map(torch.equal, one, two))


def test_every_rule_has_a_case():
    assert [set(rule.keys) for rule in RULES] == [set(others) for _, others in CASES]
    for rule, (base, others) in zip(RULES, CASES, strict=True):
        assert rule.unused(Config().override({**TINY, **base, **others}))


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [
        (PENALIZED, "training.penalty_weight", 3.0),
        (PENALIZED, "training.penalty_every", 2),
        (MODULATED | PENALIZED | {"training.first_sides": [16]}, "training.first_penalty_power", 2.0),
        (MODULATED | {"training.first_sides": [16]}, "training.first_kimg", 0.004),
        ({}, "training.ema_ramp", 0.05),
        ({}, "training.adam_betas", [0.5, 0.9]),
        ({}, "network.combine", "cat_lin"),
        (MODULATED, "network.mapping_layers", 2),
        (MODULATED, "network.noise", "all"),
        ({}, "network.pixel_norm", False),
        ({}, "network.minibatch_std_group", 2),
        ({"network.spectral_norm": "both"}, "network.spectral_norm_layers", "hidden"),
        ({"network.spectral_norm": "both"}, "network.spectral_norm_scale", "unit"),
        (ATTENTIVE, "network.attention_kind", "linear"),
        (ATTENTIVE, "network.attention_pooled", False),
        (PROJECTED, "network.minibatch_std", "none"),
        ({"training.burnt_in_learning_rate": 0.0001}, "training.burn_in_kimg", 0.01),
    ],
)
def test_what_is_not_said_to_have_no_effect_has_one(base, key, value, images):
    config = Config().override({**TINY, **base})
    other = config.override({key: value})
    assert unused_settings(other, [key]) == ()
    one, two = weights_after(config, images), weights_after(other, images)
    assert len(one) != len(two) or not all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, two, strict=True)
    )


def test_only_settings_that_were_chosen_are_named():
    config = Config().override(TINY)
    assert unused_settings(config, []) == ()
    assert unused_settings(config, ["training.seed", "training.first_kimg", "training.vision_weight"]) == (
        "training.first_kimg has no effect: training.first_sides is empty",
        "training.vision_weight has no effect: network.discriminator_blocks is plain",
    )
