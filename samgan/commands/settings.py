"""Settings on the command line and in YAML files; the commands that list settings and presets."""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgan.commands.command import Command, Outcome
from samgan.config import Config, flatten, json_schema, settings
from samgan.errors import UsageError, one_line
from samgan.presets import PLUS, PRESETS, RECIPES, SCALES, preset_config, preset_document

if TYPE_CHECKING:
    from samgan.data import PreparedSet


def split_settings(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Separate settings (`--training.kimg=50`, `--network.generator_attention 8,16`) from the other words.

    A value is read as JSON (`50`, `1e-4`, `true`, `null`, `[8, 16]`), else as a list if it has commas, else as text.

    Raises:
        UsageError: A setting without a value.
    """
    words: list[str] = []
    flags: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.partition("=")
        if not key.startswith("--") or "." not in key:
            words.append(word)
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"{key} needs a value: {key}=VALUE")
            value = rest.pop(0)
        flags[key[2:]] = _parse_value(value)
    return words, flags


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return [_parse_value(part) for part in text.split(",") if part] if "," in text else text


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a YAML file: sections of keys, dotted keys, or both.

    Raises:
        UsageError: The file is missing, is not YAML, or does not hold settings.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 1e-4 as a number, which YAML 1.1 takes for text; refuses aliases, and a key that is given twice."""

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):  # a few lines of aliases to aliases stand for billions of values
                name = self.peek_event().anchor
                raise yaml.composer.ComposerError(None, None, f"*{name}: aliases are not used here, write the value")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if repeated := [key for key, count in counts.items() if count > 1]:
                raise yaml.constructor.ConstructorError(None, None, f"{repeated[0]} is given twice")
            return super().construct_mapping(node, deep)

    number = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        document = yaml.load(path.read_text("utf-8"), Loader)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except Exception as error:  # PyYAML's constructors raise nearly anything on a value that does not fit its tag
        known = isinstance(error, yaml.YAMLError | ValueError | RecursionError)
        reason = " ".join(str(error).split()) if known else one_line(error)
        raise UsageError(f"--config {path} is not valid YAML: {reason}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        found = " ".join(repr(document).split())
        raise UsageError(f"--config {path}: expected settings such as 'training: {{kimg: 50}}', found {found[:100]}")
    return document


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Settings as flat dotted keys: those of --config, and over them those of the command line.

    --preset and --scale are among them, as "preset" and "scale".

    Raises:
        UsageError: As `read_settings`; a preset or scale that is not text; or a length in kimg and in epochs.
    """
    asked = {**(flatten(read_settings(options.config)) if options.config else {}), **options.settings}
    for name in ("preset", "scale"):
        value = getattr(options, name) or asked.pop(name, None)
        if not isinstance(value, str | None):
            raise UsageError(f"{name}: {value!r} is not allowed; expected text")
        asked |= {name: value} if value is not None else {}
    typed = [key for key in ("training.kimg", "training.epochs") if key in options.settings]
    if typed == ["training.kimg"] and "training.epochs" in asked:
        asked["training.epochs"] = None  # of a file: what is typed counts
    if len(typed) != 1 and asked.get("training.epochs") is not None and "training.kimg" in asked:
        raise UsageError("training.kimg and training.epochs both give the length; give only one of them")
    return asked


def configuration(asked: Mapping[str, Any], data: "PreparedSet | None" = None) -> Config:
    """The configuration that settings, and a preset below them, make for a prepared set.

    Args:
        asked: From `given_settings`. Without "preset" it is our own recipe.
        data: The set to train on: image size and channels are taken from it, if no setting gives them.

    Raises:
        UsageError: An unknown preset, scale or setting, or a value that is not allowed.
    """
    changes = {key: value for key, value in asked.items() if key not in ("preset", "scale")}
    preset, scale = asked.get("preset"), asked.get("scale")
    if {setting.key for setting in settings()} <= changes.keys():  # a run's config.json: the preset has nothing to add
        return Config().override({"preset": preset or "custom", **changes})
    resolution = changes.get("network.resolution", data.resolution if data else 64)
    if type(resolution) is not int:  # the override below says what is wrong with it
        resolution = 64
    base = preset_config(preset or PLUS, scale, resolution)
    return base.override({**({"network.image_channels": data.channels} if data else {}), **changes})


def describe_settings() -> Iterator[str]:
    """All settings as lines of text."""
    yield "Settings of training. Give one as --KEY=VALUE, or in a YAML file with --config; presets decide the defaults."
    for setting in settings():
        yield f"\n  --{setting.key}\n      {setting.help}\n      {setting.allowed}"


def _settings(options: argparse.Namespace) -> Outcome:
    lines = [
        f"{setting.key} = {json.dumps(setting.default)}\n    {setting.help}\n    {setting.allowed}"
        for setting in settings()
    ]
    return Outcome(json_schema(), "\n".join(lines))


def _presets(options: argparse.Namespace) -> Outcome:
    lines = [f"{'preset':<11} SN AM FA  optimizer  rate    loss     data     paper's FID   MR    MG"]
    mark = {True: "y ", False: ". "}
    for row in PRESETS:
        real, generated = (
            f"{x:.2f}" if x is not None else "-" for x in (row.paper_ms_ssim_real, row.paper_ms_ssim_generated)
        )
        lines.append(
            f"{row.name:<11} {mark[row.spectral_norm]} {mark[row.attention]} {mark[row.flip]}  {row.optimizer:<9}  "
            f"{row.learning_rate:<6g}  {row.loss:<7}  {row.data:<7}  {row.paper_fid:>11g}  {real:>4}  {generated:>4}"
        )
    lines += [
        "",
        "SN: spectral norm. AM: self-attention. FA: random flips. MR, MG: MS-SSIM of real and of generated pairs, from",
        "the paper. All rows have pixel norm, minibatch std, 64x64 images and batches of 16.",
        "--scale paper: 512 channels, 1,808 kimg (500 epochs of 3,616 images).",
        f"--scale cpu: {SCALES['cpu']['max_channels']} channels, {SCALES['cpu']['kimg']:g} kimg.",
        "",
        f"No rows of the paper, with scales cpu and gpu: {', '.join(RECIPES)}.",
        f"{PLUS} is our own recipe. samgan train --dry-run prints the settings of a preset.",
    ]
    return Outcome(preset_document(), "\n".join(lines))


COMMANDS = (
    Command("presets", "list the rows of the paper's Table 2 with their published scores", _presets),
    Command("settings", "list all settings of training; with --json, print a JSON Schema of them", _settings),
)
