"""Settings on the command line and in YAML files."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samgan.config import Config, flatten, settings
from samgan.errors import UsageError
from samgan.presets import PLUS, preset_config

if TYPE_CHECKING:
    from samgan.data import PreparedSet


def split_settings(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Separate settings (`--training.kimg=50`, `--network.generator_attention 8,16`) from the other words.

    A value is read as JSON (`50`, `1e-4`, `true`, `null`, `[8, 16]`), else as a list where it has commas, else as text.

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
    except ValueError:
        return [_parse_value(part) for part in text.split(",") if part] if "," in text else text


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a YAML file: sections of keys, dotted keys, or both.

    Raises:
        UsageError: Not there, not YAML, or not a mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.1 takes 1e-4 for text; everybody else takes it for a number. And the last of equal keys wins."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            repeated = [key for key in keys if keys.count(key) > 1]
            if repeated:
                raise yaml.constructor.ConstructorError(None, None, f"{repeated[0]} stands there twice")
            return super().construct_mapping(node, deep)

    number = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        document = yaml.load(path.read_text("utf-8"), Loader)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"--config {path}: expected settings such as 'training: {{kimg: 50}}', got {document!r}")
    return document


def _configuration(options: argparse.Namespace, prepared: "PreparedSet | None") -> Config:
    """Settings, the later ones first: flags, YAML, the prepared set's shape, the preset or the run to continue."""
    asked = {**(flatten(read_settings(options.config)) if options.config else {}), **options.settings}
    if options.classes:
        asked["data.classes"] = options.classes
    preset, scale = (getattr(options, name) or asked.pop(name, None) for name in ("preset", "scale"))
    for name, value in (("preset", preset), ("scale", scale)):
        asked.pop(name, None)
        if not isinstance(value, str | None):
            raise UsageError(f"{name}: {value!r} is not allowed; expected text")
    if options.resume and preset is None and scale is None:
        from samgan.runs import Run

        return Run.open(options.out).config.override(asked)
    resolution = asked.get("network.resolution", prepared.resolution if prepared else 64)
    if type(resolution) is not int:  # the override below says what is wrong with it
        resolution = 64
    if {key for key, *_ in settings()} <= set(asked):  # as in a run's config.json: the row has nothing to add
        return Config().override({"preset": preset or "custom", **asked})
    base = preset_config(preset or PLUS, scale, resolution)
    return base.override({**({"network.image_channels": prepared.channels} if prepared else {}), **asked})
