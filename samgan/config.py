"""The configuration tree: frozen dataclasses, checked where data enters, written as JSON with every run.

Every setting stands here once, with its default, its allowed values and its help text. Command line, YAML files and
`config.json` all pass through `Config.override` and `Config.from_dict`, so they give the same errors.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from samgan.errors import UsageError


def _setting(default: Any, help_text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which images of a prepared set are trained on."""

    classes: tuple[str, ...] = _setting((), "classes to train on; none named: all")
    flip: Literal["none", "random", "double"] = _setting(
        "none", "horizontal flips: none, at random when loaded, or the set doubled by its mirror images"
    )
    class_sampling: Literal["natural", "balanced"] = _setting(
        "natural", "how often a class is shown: as often as it has images, or each as often as any other"
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Generator and discriminator."""

    resolution: int = _setting(64, "side of the largest image in pixels: 32, 64, 128 or 256")
    image_channels: int = _setting(1, "1 (grey) or 3 (colour)")
    max_channels: int = _setting(512, "largest width (MSG-GAN: 512)")
    channel_base: int | None = _setting(
        None, "width at r px: channel_base / r, at most max_channels; null: 32 x max_channels, as in MSG-GAN"
    )
    generator_blocks: Literal["plain", "modulated"] = _setting(
        "plain", "plain: MSG-GAN's; modulated: the latent scales every convolution, each image adds to the one below"
    )
    mapping_layers: int = _setting(0, "layers between the latent and what modulates (modulated blocks)")
    noise: Literal["none", "lower", "all"] = _setting(
        "lower", "noise in modulated convolutions, drawn by the latent: at no scale, at all but the largest, at all"
    )
    discriminator_blocks: Literal["plain", "residual"] = _setting(
        "plain", "plain: MSG-GAN's; residual: with a shortcut around each, images are added (combine is not used)"
    )
    latent_dim: int | None = _setting(None, "length of the latent vector; null: as max_channels")
    num_classes: int | None = _setting(
        0, "classes that both networks are told of; 0: none; null: those of the data, if there are two or more"
    )
    class_projection: Literal["last", "every"] = _setting(
        "last", "where the discriminator compares an image with its class: behind the last block, or behind every one"
    )
    pixel_norm: bool = _setting(True, "pixel norm after each plain generator convolution (PN of Table 2)")
    equalized_lr: bool = _setting(True, "N(0, 1) weights scaled by sqrt(2 / fan_in) at run time")
    spectral_norm: Literal["none", "generator", "discriminator", "both"] = _setting(
        "none", "which networks have spectral norm (SN of Table 2)"
    )
    spectral_norm_layers: Literal["all", "hidden"] = _setting(
        "all", "every convolution, or all but to_image, from_image and the last one"
    )
    spectral_norm_scale: Literal["plain", "unit", "equalized"] = _setting(
        "plain",
        "layers with spectral norm under equalized_lr. plain: drawn as without it, as in SAGAN; unit: drawn from "
        "N(0, 1), so that rates count less; equalized: that, and the equalized scale on top (a very quiet network)",
    )
    minibatch_std: Literal["none", "last", "every"] = _setting(
        "last", "minibatch standard deviation in the discriminator's last block, in every block, or not (MBD)"
    )
    minibatch_std_group: int = _setting(0, "images per statistic; 0: the whole batch")
    generator_attention: tuple[int, ...] = _setting((), "resolutions (4, 8, ...) with attention in the generator")
    discriminator_attention: tuple[int, ...] = _setting((), "the same for the discriminator (AM)")
    attention_kind: Literal["self", "linear", "dual", "squeeze-excitation", "cbam"] = _setting(
        "self", "self: the paper's; linear, dual: other ways to compare positions; the last two weigh channels"
    )
    attention_pooled: bool = _setting(True, "keys and values 2x2 max-pooled, as in SAGAN's code")
    attention_reduction: int = _setting(8, "k: queries and keys have channels / k")
    attention_value_reduction: int = _setting(2, "values have channels / this (SAGAN's code: 2, its paper: 8)")
    combine: Literal["simple", "lin_cat", "cat_lin"] = _setting(
        "lin_cat", "how the discriminator joins an image to its features (MSG-GAN, section 2.2)"
    )
    image_activation: Literal["linear", "tanh"] = _setting("linear", "last operation of to_image")

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        _require(self.resolution in (32, 64, 128, 256), "network.resolution", self.resolution, "32, 64, 128 or 256")
        _require(self.image_channels in (1, 3), "network.image_channels", self.image_channels, "1 or 3")
        power = self.max_channels > 0 and self.max_channels & (self.max_channels - 1) == 0
        smallest = max(8, 4 * self.resolution // 32)
        _require(
            power and smallest <= self.max_channels <= 4096,
            "network.max_channels",
            self.max_channels,
            f"a power of two from {smallest} to 4096 (the width at {self.resolution} px is to be 4 at least)",
        )
        if self.latent_dim is not None:
            size = self.latent_dim
            _require(1 <= size <= 1 << 16, "network.latent_dim", size, "from 1 to 65536, or null")
        number = self.num_classes
        known = number in (None, 0) or 2 <= number <= 1 << 16
        _require(known, "network.num_classes", number, "0, from 2 to 65536, or null")
        _require(0 <= self.mapping_layers <= 16, "network.mapping_layers", self.mapping_layers, "from 0 to 16")
        base, least = self.channel_base, 4 * self.resolution
        if base is not None:
            expected = f"from {least} (4 channels at {self.resolution} px) to 1048576, or null"
            _require(least <= base <= 1 << 20, "network.channel_base", base, expected)
        _require(self.minibatch_std_group >= 0, "network.minibatch_std_group", self.minibatch_std_group, "0 or more")
        for name in ("attention_reduction", "attention_value_reduction"):
            _require(1 <= getattr(self, name) <= 4096, f"network.{name}", getattr(self, name), "from 1 to 4096")
        allowed = self.resolutions
        for name in ("generator_attention", "discriminator_attention"):
            value = getattr(self, name)
            known = set(value) <= set(allowed) and len(set(value)) == len(value)
            _require(known, f"network.{name}", value, f"a set of {', '.join(map(str, allowed))}")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The sides of the image pyramid, smallest first: 4, 8, ..., resolution."""
        return tuple(4 << scale for scale in range(int(math.log2(self.resolution)) - 1))

    @property
    def latent_size(self) -> int:
        """Length of the latent vector, with null resolved."""
        return self.max_channels if self.latent_dim is None else self.latent_dim

    @property
    def input_size(self) -> int:
        """Length of what the generator starts from: the latent, and where there are classes as much of the class."""
        return 2 * self.latent_size if self.num_classes else self.latent_size

    def channels(self, resolution: int) -> int:
        """Feature channels at `resolution` px: channel_base / resolution, at most max_channels."""
        base = 32 * self.max_channels if self.channel_base is None else self.channel_base
        return min(self.max_channels, base // resolution)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Losses, optimizers, length, what is logged and kept."""

    loss: Literal["relativistic-average-hinge", "relativistic-paired", "wgan", "hinge", "non-saturating"] = _setting(
        "relativistic-average-hinge", "adversarial loss"
    )
    penalty: Literal["none", "gradient-per-scale", "gradient-joint", "r1", "r2", "r1-r2"] = _setting(
        "none", "penalty on the discriminator's gradient over all scales (WGAN-GP: wgan with gradient-per-scale)"
    )
    penalty_weight: float = _setting(10.0, "weight of the penalty: lambda of WGAN-GP, gamma / 2 of R1 and R2")
    penalty_every: int = _setting(1, "the penalty comes in every n-th step, with n times its weight (lazy: 4 to 16)")
    drift_weight: float = _setting(0.0, "weight of the mean squared logit of real images (ProGAN: 0.001 with WGAN-GP)")
    optimizer: Literal["adam", "rmsprop"] = _setting("adam", "optimizer of both networks")
    learning_rate: float = _setting(0.003, "learning rate of both networks")
    discriminator_learning_rate: float | None = _setting(None, "the discriminator's, if it differs")
    rate_decay_kimg: float = _setting(
        0.0,
        "from here on rates fall with the square root of the images seen: half of them at four times this; 0: never",
    )
    adam_betas: tuple[float, float] = _setting((0.0, 0.99), "Adam's beta1, beta2 (MSG-GAN: 0, 0.99)")
    rmsprop_alpha: float = _setting(0.99, "RMSprop's smoothing constant")
    batch_size: int = _setting(16, "images per step, over all processes together")
    kimg: float = _setting(1808.0, "length of training in thousands of real images shown")
    augment_target: float = _setting(
        0.0,
        "what the discriminator sees of a class is augmented until the mean sign of real logits is this; 0: not at all",
    )
    augment_kimg: float = _setting(100.0, "what the share of augmented images takes from 0 to 1 at the fastest")
    shared_latents: bool = _setting(True, "the generator's step uses the latents of the discriminator's step")
    ema_ramp: float = _setting(0.0, "the half-life is at most this share of the images seen (StyleGAN2: 0.05); 0: off")
    ema_halflife_kimg: float = _setting(11.08, "half-life of the averaged generator; 0: no averaging (MSG-GAN: 0.999)")
    precision: Literal["fp32", "bf16", "auto"] = _setting(
        "fp32", "arithmetic of the networks; weights stay fp32. auto: bf16 where the device has instructions for it"
    )
    seed: int = _setting(0, "seed of weights, order of images, flips and latents")
    log_every_kimg: float = _setting(0.8, "how often losses are written")
    snapshot_every_kimg: float = _setting(20.0, "how often a checkpoint, a sample grid and scores are written")
    keep_checkpoints: int = _setting(2, "newest checkpoints kept, beside the best one")

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(2 <= self.batch_size <= 1 << 16, "training.batch_size", self.batch_size, "from 2 to 65536")
        for name in ("learning_rate", "kimg", "augment_kimg", "log_every_kimg", "snapshot_every_kimg"):
            _require(
                0 < getattr(self, name) <= 1e9, f"training.{name}", getattr(self, name), "a number above 0, up to 1e9"
            )
        if self.discriminator_learning_rate is not None:
            rate = self.discriminator_learning_rate
            allowed = "a number above 0, up to 1e9, or null"
            _require(0 < rate <= 1e9, "training.discriminator_learning_rate", rate, allowed)
        for name in ("rate_decay_kimg", "penalty_weight", "drift_weight", "ema_halflife_kimg", "ema_ramp"):
            _require(0 <= getattr(self, name) <= 1e9, f"training.{name}", getattr(self, name), "from 0 to 1e9")
        _require(0 <= self.seed < 1 << 32, "training.seed", self.seed, "from 0 up to, not including, 2^32")
        betas = all(0 <= beta < 1 for beta in self.adam_betas)
        _require(betas, "training.adam_betas", self.adam_betas, "two numbers from 0 up to, not including, 1")
        _require(0 <= self.rmsprop_alpha < 1, "training.rmsprop_alpha", self.rmsprop_alpha, "from 0 up to 1")
        target = self.augment_target
        _require(0 <= target < 1, "training.augment_target", target, "from 0 up to, not including, 1")
        every = self.penalty_every
        _require(1 <= every <= 1 << 16, "training.penalty_every", every, "from 1 to 65536")
        _require(self.keep_checkpoints >= 1, "training.keep_checkpoints", self.keep_checkpoints, "1 or more")

    @property
    def total_steps(self) -> int:
        """Steps of `batch_size` images that reach `kimg`."""
        return math.ceil(round(self.kimg * 1000, 6) / self.batch_size)  # 2.007 * 1000 > 2007

    def steps(self, kimg: float) -> int:
        """`kimg` as a number of steps, at least one."""
        return max(1, round(kimg * 1000 / self.batch_size))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything that decides what a run computes."""

    preset: str = _setting("custom", "the row this configuration started from; a label, nothing depends on it")
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        """Check what spans sections."""
        group, batch_size = self.network.minibatch_std_group, self.training.batch_size
        fits = group == 0 or batch_size % group == 0
        _require(fits, "network.minibatch_std_group", group, f"a divisor of training.batch_size, {batch_size}")
        number, names = self.network.num_classes, self.data.classes
        if number and names:
            different = len(set(names))
            expected = f"{different if different > 1 else 0}, for the classes {', '.join(names)}"
            _require(number == different == len(names), "network.num_classes", number, expected)
        sampling = self.data.class_sampling
        _require(number != 0 or sampling == "natural", "data.class_sampling", sampling, "natural without classes")

    def override(self, settings: Mapping[str, Any]) -> "Config":
        """Return a copy with `settings` applied.

        Args:
            settings: Dotted keys (`{"training.kimg": 50}`), nested mappings (`{"training": {"kimg": 50}}`) or both.

        Raises:
            UsageError: An unknown key (with the nearest known one), a wrong type or a value out of range.
        """
        nested: dict[str, Any] = {}
        for key, value in flatten(settings).items():
            *parents, leaf = key.split(".")
            branch = nested
            for parent in parents:
                branch = branch.setdefault(parent, {})
                if not isinstance(branch, dict):
                    raise UsageError(f"{key}: {parent} was given a value already")
            if isinstance(value, Mapping):  # an empty section
                branch.setdefault(leaf, {})
            else:
                branch[leaf] = value
        return _merge(self, nested, "")

    def differences(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """Dotted keys whose values differ, as (own value, the other's)."""
        own, others = flatten(self.to_dict()), flatten(other.to_dict())
        return {key: (value, others[key]) for key, value in own.items() if value != others[key]}

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain JSON types: `Config.from_dict(config.to_dict()) == config`."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Config":
        """Read what `to_dict` wrote; missing keys take their defaults.

        Raises:
            UsageError: As `override`.
        """
        return cls().override(document)


def flatten(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys: `{"training": {"kimg": 50}}` becomes `{"training.kimg": 50}`.

    Raises:
        UsageError: A key is not text.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if not isinstance(key, str):
            raise UsageError(f"{prefix}{key!r}: a key must be text, such as training.kimg")
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def settings() -> list[tuple[str, str, Any, str]]:
    """All settings as (dotted key, allowed values, default, help), in the order of the tree."""
    rows = []
    for section in dataclasses.fields(Config):
        if section.name == "preset":
            continue
        default = getattr(Config(), section.name)
        hints = get_type_hints(type(default))
        for field in dataclasses.fields(default):
            allowed = _describe(hints[field.name])
            rows.append((f"{section.name}.{field.name}", allowed, field.default, field.metadata["help"]))
    return rows


def _require(condition: bool, key: str, value: object, allowed: str) -> None:
    if not condition:
        raise UsageError(f"{key}: {value!r} is not allowed; expected {allowed}")


def _merge(node: Any, changes: Mapping[str, Any], path: str) -> Any:
    hints = get_type_hints(type(node))
    values = {}
    for name, value in changes.items():
        key = f"{path}{name}"
        if name not in hints:
            raise UsageError(f"unknown setting {key} (value {value!r}); {_advice(name, hints, path)}")
        current = getattr(node, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UsageError(f"{key}: expected a section of settings, got {value!r}")
            values[name] = _merge(current, value, f"{key}.")
        else:
            values[name] = _checked(value, hints[name], key)
    return dataclasses.replace(node, **values)


def _advice(name: str, hints: Mapping[str, Any], path: str) -> str:
    everywhere = {row[0].rpartition(".")[2]: row[0] for row in settings()}
    for known in ({hint: f"{path}{hint}" for hint in hints}, everywhere):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        if near:
            return f"did you mean {known[near[0]]}?"
    return f"known: {', '.join(f'{path}{hint}' for hint in hints)}" + ("" if path else " (each with its settings)")


def _checked(value: Any, hint: Any, key: str) -> Any:
    """`value` as the type `hint` asks for; the only conversions are int to float and list to tuple."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
    elif origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return _checked(value, option, key)
            except UsageError:
                continue
    elif origin is tuple:
        if arguments[-1] is Ellipsis and not isinstance(value, list | tuple | Mapping | None):
            value = () if value == "" else (value,)  # one value is a list of one, an empty text (--KEY=) of none
        if isinstance(value, list | tuple) and (arguments[-1] is Ellipsis or len(value) == len(arguments)):
            return tuple(_checked(item, arguments[0], key) for item in value)
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
    elif type(value) is hint:
        return value
    raise UsageError(f"{key}: {value!r} is not allowed; expected {_describe(hint)}")


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list of {_describe(arguments[0])}"
        return f"a list of {len(arguments)} x {_describe(arguments[0])}"
    names = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}
    return names[hint]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
