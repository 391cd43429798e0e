"""Settings that change nothing beside others, so that nobody trains for a day with one that has no effect."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from samgan.config import Config


class Rule(NamedTuple):
    """When some settings have no effect."""

    keys: tuple[str, ...]
    """Of these settings."""
    unused: Callable[[Config], bool]
    reason: str
    """As it follows "has no effect:"; braces hold the value of a setting."""


_VISION = tuple(f"network.vision_{name}" for name in ("features", "file", "resolution", "channels"))
_BURNT_IN = ("burnt_in_learning_rate", "burnt_in_penalty_weight", "burnt_in_beta2")
_ATTENTION = tuple(f"network.attention_{name}" for name in ("kind", "pooled", "reduction", "value_reduction"))
RULES = (
    Rule(
        ("training.penalty_weight", "training.penalty_every", "training.burnt_in_penalty_weight"),
        lambda config: config.training.penalty == "none",
        "training.penalty is none",
    ),
    Rule(
        ("training.first_kimg", "training.first_penalty_power"),
        lambda config: not config.training.first_sides,
        "training.first_sides is empty",
    ),
    Rule(
        ("training.ema_ramp",),
        lambda config: config.training.ema_halflife_kimg == 0,
        "training.ema_halflife_kimg is 0",
    ),
    Rule(
        ("training.adam_betas", "training.burnt_in_beta2"),
        lambda config: config.training.optimizer != "adam",
        "training.optimizer is {training.optimizer}",
    ),
    Rule(
        ("training.vision_weight",),
        lambda config: config.network.discriminator_blocks != "vision",
        "network.discriminator_blocks is {network.discriminator_blocks}",
    ),
    Rule(
        _VISION,
        lambda config: not config.network.sees,
        "network.discriminator_blocks is {network.discriminator_blocks}",
    ),
    Rule(
        ("network.vision_tiles",),  # which are refused without such blocks
        lambda config: config.network.sees and config.network.resolution <= config.network.vision_resolution,
        "images of {network.resolution} px are seen at full size",
    ),
    Rule(
        ("network.combine",),
        lambda config: config.network.discriminator_blocks != "plain",
        "network.discriminator_blocks is {network.discriminator_blocks}",
    ),
    Rule(
        ("network.noise",),
        lambda config: config.network.generator_blocks != "modulated",
        "network.generator_blocks is {network.generator_blocks}",
    ),
    Rule(
        ("network.pixel_norm",),
        lambda config: config.network.generator_blocks != "plain",
        "network.generator_blocks is {network.generator_blocks}",
    ),
    Rule(
        ("network.minibatch_std_group",),
        lambda config: config.network.minibatch_std == "none",
        "network.minibatch_std is none",
    ),
    Rule(
        ("network.spectral_norm_layers", "network.spectral_norm_scale"),
        lambda config: config.network.spectral_norm == "none",
        "network.spectral_norm is none",
    ),
    Rule(
        ("network.spectral_norm_scale",),
        lambda config: not config.network.equalized_lr,
        "network.equalized_lr is false",
    ),
    Rule(
        _ATTENTION,
        lambda config: not (config.network.generator_attention or config.network.discriminator_attention),
        "no resolution has attention (network.generator_attention, network.discriminator_attention)",
    ),
    Rule(
        ("network.attention_pooled", "network.attention_value_reduction"),
        lambda config: config.network.attention_kind in ("squeeze-excitation", "cbam"),
        "network.attention_kind is {network.attention_kind}",
    ),
    Rule(
        ("network.attention_pooled",),
        lambda config: config.network.attention_kind == "linear",
        "network.attention_kind is linear, which pools nothing",
    ),
    Rule(
        ("network.spectral_norm",),
        lambda config: (
            (config.network.discriminator_blocks, config.network.spectral_norm) == ("projected", "discriminator")
        ),
        "heads of network.discriminator_blocks projected always have it",
    ),
    Rule(
        ("network.minibatch_std",),
        lambda config: (config.network.discriminator_blocks, config.network.minibatch_std) == ("projected", "every"),
        "heads of network.discriminator_blocks projected have one place for it, as with last",
    ),
    Rule(
        ("training.burn_in_kimg",),
        lambda config: all(getattr(config.training, name) is None for name in _BURNT_IN),
        "no training.burnt_in_* setting is given",
    ),
)
"""Every rule is tested by training: with another value of the setting, the weights come out the same."""


def unused_settings(config: Config, keys: Iterable[str]) -> tuple[str, ...]:
    """Say which settings have no effect.

    Args:
        config: All settings.
        keys: Dotted keys of settings that somebody chose; those of a preset may well be there for others to build on.

    Returns:
        A sentence for each of `keys` that changes nothing, such as "training.first_kimg has no effect:
        training.first_sides is empty".
    """
    found = {key: next((rule for rule in RULES if key in rule.keys and rule.unused(config)), None) for key in keys}
    return tuple(
        f"{key} has no effect: {rule.reason.format(training=config.training, network=config.network)}"
        for key, rule in found.items()
        if rule
    )
