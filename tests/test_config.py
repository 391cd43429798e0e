"""The configuration: what is accepted, what is refused and in which words, and that it survives a file."""

import dataclasses
import json
import math
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import safe_open

from samgan.commands.settings import split_settings
from samgan.config import (
    RESUMABLE,
    Config,
    DataConfig,
    NetworkConfig,
    TrainingConfig,
    flatten,
    json_schema,
    settings,
)
from samgan.errors import UsageError
from samgan.presets import preset_config, preset_names, scales_of
from samgan.retired import RETIRED
from samgan.sampling import SHIPPED
from samgan.studies.table2_study import ROWS

RESULTS = Path(__file__).parents[1] / "results"


def test_round_trip_through_json():
    config = Config().override(
        {
            "preset": "x",
            "data.classes": ["a", "b"],
            "network": {"latent_dim": 7, "generator_attention": [4, 32], "resolution": 32},
            "training": {"adam_betas": [0.5, 0.9], "discriminator_learning_rate": 4e-4, "kimg": 3},
        }
    )
    document = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    assert Config.from_dict(document) == config
    assert document == config.to_dict()  # nothing but JSON types
    assert config.network.generator_attention == (4, 32)
    assert isinstance(config.training.kimg, float)


def test_missing_keys_take_their_defaults():
    assert Config.from_dict({}) == Config()
    assert Config.from_dict({"training": {"seed": 5}}).training == TrainingConfig(seed=5)


def test_whole_numbers_of_numpy_become_ints():
    config = Config().override({"training.seed": np.int64(3)})
    assert type(config.training.seed) is int
    assert config == Config().override({"training.seed": 3})
    with pytest.raises(UsageError, match="whole number"):
        Config().override({"training.seed": np.True_})


def test_override_leaves_the_original_and_its_argument_alone():
    changes = {"training": {"kimg": 5}, "training.seed": 3, "network": {"resolution": 32}}
    before = json.dumps(changes)
    config = Config()
    changed = config.override(changes)
    assert (changed.training.kimg, changed.training.seed, changed.network.resolution) == (5.0, 3, 32)
    assert config == Config()
    assert json.dumps(changes) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.preset = "y"


# Each message names the key, the value and what is allowed.
REFUSED = [
    # unknown keys, with the nearest known one
    ("training.learning_rat", 0.1, ("training.learning_rat", "0.1", "did you mean training.learning_rate?")),
    ("trainin.kimg", 5, ("trainin", "kimg", "did you mean training")),
    ("kimg", 5, ("kimg", "5", "training.kimg")),
    ("network.xyzzy", 5, ("network.xyzzy", "5", "network.resolution")),
    # wrong types
    ("training.kimg", "long", ("training.kimg", "'long'", "number")),
    ("training.kimg", True, ("training.kimg", "True", "number")),
    ("training.kimg", float("nan"), ("training.kimg", "nan", "number")),
    ("training.kimg", float("inf"), ("training.kimg", "inf", "number")),
    ("training.kimg", None, ("training.kimg", "None", "number")),
    ("training.kimg", {"a": 1}, ("training.kimg", "'a'", "number")),
    ("training.seed", 1.5, ("training.seed", "1.5", "whole number")),
    ("training.seed", True, ("training.seed", "True", "whole number")),
    ("training.batch_size", "16", ("training.batch_size", "'16'", "whole number")),
    ("training.shared_latents", 1, ("training.shared_latents", "1", "true or false")),
    (
        "training.discriminator_learning_rate",
        "x",
        ("training.discriminator_learning_rate", "'x'", "number above 0 up to 1e9, or null"),
    ),
    ("training.adam_betas", [0.5], ("training.adam_betas", "[0.5]", "a list of 2 values, each a number from 0")),
    ("training.adam_betas", 0.5, ("training.adam_betas", "0.5", "a list of 2 values, each a number from 0")),
    ("network.generator_attention", "8", ("network.generator_attention", "'8'", "one of 4, 8")),
    ("network.generator_attention", [8.0], ("network.generator_attention", "8.0", "one of 4, 8")),
    ("data.classes", None, ("data.classes", "None", "a list of text")),
    ("data.classes", {}, ("data.classes", "{}", "a list of text")),
    ("data.classes", [1], ("data.classes", "1", "text")),
    ("preset", 3, ("preset", "3", "text")),
    ("training", 3, ("training", "3", "a section of settings")),
    ("training", None, ("training", "None", "a section of settings")),
    # outside the set
    ("training.loss", "ragan", ("training.loss", "'ragan'", "relativistic-average-hinge", "non-saturating")),
    ("training.optimizer", "sgd", ("training.optimizer", "'sgd'", "adam, rmsprop")),
    ("network.combine", 3, ("network.combine", "3", "simple, lin_cat, cat_lin")),
    ("data.flip", "yes", ("data.flip", "'yes'", "none, random, double")),
    # out of range
    ("network.resolution", 48, ("network.resolution", "48", "one of 32, 64, 128, 256, 512, 1024")),
    ("network.image_channels", 2, ("network.image_channels", "2", "one of 1, 3")),
    ("network.max_channels", 100, ("network.max_channels", "100", "one of 8, 16")),
    ("network.max_channels", 4, ("network.max_channels", "4", "one of 8, 16")),
    ("network.max_channels", 0, ("network.max_channels", "0", "one of 8")),
    ("network.max_channels", 8192, ("network.max_channels", "8192", "2048, 4096")),
    ("network.num_classes", 1, ("network.num_classes", "1", "from 0 to 65536, but not 1, or null")),
    ("network.num_classes", 65537, ("network.num_classes", "65537", "from 0 to 65536, but not 1, or null")),
    ("network.num_classes", 2.0, ("network.num_classes", "2.0", "whole number")),
    ("data.class_sampling", "equal", ("data.class_sampling", "'equal'", "natural, balanced")),
    ("data.class_sampling", "balanced", ("data.class_sampling", "'balanced'", "natural without classes")),
    ("network.latent_dim", 0, ("network.latent_dim", "0", "from 1 to 65536, or null")),
    ("network.latent_dim", 65537, ("network.latent_dim", "65537", "from 1 to 65536, or null")),
    ("network.attention_reduction", 0, ("network.attention_reduction", "0", "from 1 to 4096")),
    ("network.attention_value_reduction", 4097, ("network.attention_value_reduction", "4097", "from 1 to 4096")),
    ("network.generator_attention", [5], ("network.generator_attention", "5", "4, 8, 16, 32, 64")),
    ("network.discriminator_attention", [128], ("network.discriminator_attention", "128", "4, 8, 16, 32, 64")),
    (
        "network.discriminator_attention",
        [8, 8],
        ("network.discriminator_attention", "[8, 8]", "a list of different values, each one of 4, 8"),
    ),
    ("network.minibatch_std_group", -1, ("network.minibatch_std_group", "-1", "0 or more")),
    ("network.minibatch_std_group", 3, ("network.minibatch_std_group", "3", "a divisor of training.batch_size, 16")),
    ("training.kimg", 0, ("training.kimg", "0", "above 0")),
    ("training.learning_rate", -0.1, ("training.learning_rate", "-0.1", "above 0")),
    ("training.discriminator_learning_rate", 0, ("training.discriminator_learning_rate", "0", "above 0 up")),
    ("training.discriminator_learning_rate", 2e9, ("training.discriminator_learning_rate", "up to 1e9, or null")),
    ("training.batch_size", 1, ("training.batch_size", "1", "from 2 to 65536")),
    ("training.batch_size", 65537, ("training.batch_size", "65537", "from 2 to 65536")),
    (
        "network.channel_base",
        255,
        ("network.channel_base", "255", "256 or more, so that the width at 64 px is at least 4, or null"),
    ),
    ("network.mapping_layers", 17, ("network.mapping_layers", "17", "from 0 to 16")),
    ("network.mapping_layers", 2, ("network.mapping_layers", "2", "0, unless the generator has modulated or")),
    ("training.penalty_every", 0, ("training.penalty_every", "0", "from 1 to 65536")),
    ("training.ema_ramp", -0.1, ("training.ema_ramp", "-0.1", "from 0 to 1e9")),
    ("training.penalty_weight", -1, ("training.penalty_weight", "-1", "from 0 to 1e9")),
    ("training.penalty_weight", 2e9, ("training.penalty_weight", "2000000000.0", "from 0 to 1e9")),
    ("training.drift_weight", 2e9, ("training.drift_weight", "2000000000.0", "from 0 to 1e9")),
    ("training.ema_halflife_kimg", -1, ("training.ema_halflife_kimg", "-1", "from 0 to 1e9")),
    ("training.ema_halflife_kimg", 2e9, ("training.ema_halflife_kimg", "2000000000.0", "from 0 to 1e9")),
    ("training.adam_betas", [0, 1], ("training.adam_betas", "[0, 1]", "from 0 to less than 1")),
    ("training.keep_checkpoints", 0, ("training.keep_checkpoints", "0", "1 or more")),
    ("training.seed", -1, ("training.seed", "-1", "from 0")),
    ("training.seed", 1 << 32, ("training.seed", str(1 << 32), "less than 4294967296")),
]


@pytest.mark.parametrize(("key", "value", "words"), REFUSED)
def test_refused_in_words_that_help(key, value, words):
    for settings_ in ({key: value}, nested(key, value)):
        with pytest.raises(UsageError) as caught:
            Config().override(settings_)
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message


def nested(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def test_one_value_is_a_list_of_one():
    config = Config().override({"data.classes": "normal", "network.generator_attention": 8})
    assert (config.data.classes, config.network.generator_attention) == (("normal",), (8,))


def test_empty_text_is_an_empty_list_where_a_list_is_asked_for():
    config = Config().override({"data.classes": ["a"], "network.generator_attention": [8]})
    config = config.override({"data.classes": "", "network.generator_attention": ""})
    assert (config.data.classes, config.network.generator_attention) == ((), ())
    with pytest.raises(UsageError, match=r"training\.adam_betas: '' is not allowed"):
        config.override({"training.adam_betas": ""})


def test_sections_and_dotted_keys_add_up_in_any_order():
    parts = [("training", {}), ("training.kimg", 3), ("network", {"resolution": 32})]
    for settings_ in (dict(parts), dict(reversed(parts))):
        config = Config().override(settings_)
        assert (config.training.kimg, config.network.resolution) == (3.0, 32)
        assert settings_ == dict(parts)  # left as it was


def test_differences_are_dotted_keys_with_both_values():
    config = Config()
    other = config.override({"training.kimg": 3, "network": {"generator_attention": [8]}, "preset": "x"})
    assert config.differences(other) == {
        "network.generator_attention": ([], [8]),
        "training.kimg": (config.training.kimg, 3.0),
    }
    assert config.differences(Config()) == {}


def test_dotted_key_into_a_value():
    with pytest.raises(UsageError):
        Config().override({"training.kimg.x": 1})
    with pytest.raises(UsageError, match="kimg"):
        Config().override({"training": {"kimg": 3}, "training.kimg.x": 1})


def test_width_has_to_reach_the_largest_images():
    NetworkConfig(resolution=256, max_channels=32)
    with pytest.raises(UsageError, match=r"network\.max_channels: 16 is not allowed; expected 32 or more"):
        NetworkConfig(resolution=256, max_channels=16)
    with pytest.raises(UsageError, match=r"expected 128 or more, .* 1024 px is at least 4, or a network\.channel_base"):
        NetworkConfig(resolution=1024, max_channels=64)
    assert NetworkConfig(resolution=1024, max_channels=64, channel_base=4096).channels(1024) == 4
    with pytest.raises(UsageError, match=r"network\.channel_base: 2048 is not allowed; expected 4096 or more"):
        NetworkConfig(resolution=1024, max_channels=64, channel_base=2048)


def test_attention_has_to_fit_the_resolution_it_ends_with():
    config = Config().override({"network.generator_attention": [64]})
    with pytest.raises(UsageError, match=r"network\.generator_attention"):
        config.override({"network.resolution": 32})


@pytest.mark.parametrize("names", [["a", "b", "c"], ["a"], ["a", "a"]])
def test_as_many_classes_as_names(names):
    with pytest.raises(UsageError, match=r"network\.num_classes: 2 is not allowed; expected [0123], for the classes a"):
        Config().override({"network.num_classes": 2, "data.classes": names})
    for fits in (0, None, len(names)):
        if fits == len(set(names)) > 1 or not fits:
            Config().override({"network.num_classes": fits, "data.classes": names})


def test_classes_may_be_shown_equally_often_where_there_may_be_some():
    for number in (2, None):
        Config().override({"network.num_classes": number, "data.class_sampling": "balanced"})


@pytest.mark.parametrize(
    ("resolution", "sides", "widths"),
    [
        (32, (4, 8, 16, 32), (512, 512, 512, 512)),
        (64, (4, 8, 16, 32, 64), (512, 512, 512, 512, 256)),
        (128, (4, 8, 16, 32, 64, 128), (512, 512, 512, 512, 256, 128)),
        (256, (4, 8, 16, 32, 64, 128, 256), (512, 512, 512, 512, 256, 128, 64)),
        (1024, (4, 8, 16, 32, 64, 128, 256, 512, 1024), (512, 512, 512, 512, 256, 128, 64, 32, 16)),  # as in MSG-GAN
    ],
)
def test_scales_and_widths(resolution, sides, widths):
    network = NetworkConfig(resolution=resolution)
    assert network.resolutions == sides
    assert tuple(network.channels(side) for side in sides) == widths


def test_latent_size():
    assert NetworkConfig(max_channels=64).latent_size == 64
    assert NetworkConfig(latent_dim=5).latent_size == 5


def test_steps():
    training = TrainingConfig()
    assert training.total_steps == 113_000  # 500 epochs of 226 steps
    assert training.steps(20.0) == 1250
    assert training.steps(1e-6) == 1
    assert TrainingConfig(kimg=0.1, batch_size=16).total_steps == 7  # 6.25 rounded up
    # MSG-GAN's decay of 0.999 per step of 16 images.
    assert 0.5 ** (16 / (1000 * training.ema_halflife_kimg)) == pytest.approx(0.999, abs=1e-6)


@given(steps=st.integers(1, 200_000), batch_size=st.integers(2, 512))
@example(steps=223, batch_size=9)  # 2.007 * 1000 > 2007
def test_total_steps_do_not_suffer_from_rounding(steps, batch_size):
    assert TrainingConfig(kimg=steps * batch_size / 1000, batch_size=batch_size).total_steps == steps
    assert TrainingConfig(kimg=(steps * batch_size + 1) / 1000, batch_size=batch_size).total_steps == steps + 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
    st.sampled_from([row[0] for row in settings()] + ["training", "preset", "a.b", ""]),
)
def test_any_value_is_either_kept_exactly_or_refused(value, key):
    try:
        config = Config().override({key: value})
    except UsageError:
        return
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    if "." in key:
        section, name = key.split(".")
        assert config.to_dict()[section][name] in (value, [] if value == "" else [value])


def test_settings_list_every_field_with_help():
    rows = settings()
    keys = [row.key for row in rows]
    sections = {"data": DataConfig, "network": NetworkConfig, "training": TrainingConfig}
    assert keys == [f"{name}.{field.name}" for name, part in sections.items() for field in dataclasses.fields(part)]
    for key, allowed, default, text in rows:
        section, name = key.split(".")
        assert getattr(getattr(Config(), section), name) == default
        assert allowed
        assert text


# ---- what a setting decides


def test_a_label_is_no_difference():
    assert Config().differences(Config().override({"preset": "x"})) == {}


def test_what_is_computed_leaves_out_labels_and_what_is_logged_and_kept():
    config = Config()
    same = {"preset": "x", "training.log_every_kimg": 3, "training.snapshot_every_kimg": 3}
    assert config.override({**same, "training.keep_checkpoints": 3}).computed() == config.computed()
    assert config.override({"training.kimg": 3}).computed() != config.computed()
    left_out = {"preset", "training.log_every_kimg", "training.snapshot_every_kimg", "training.keep_checkpoints"}
    assert set(flatten(config.to_dict())) - set(flatten(config.computed())) == left_out
    assert {*RESUMABLE} == left_out - {"preset"} | {"training.kimg", "training.epochs"}


# ---- JSON Schema


def fits(value, rule):
    """Whether a value is valid by the few keywords of JSON Schema that settings have."""
    kinds = {"integer": int, "number": int | float, "string": str, "boolean": bool, "array": list, "object": dict}
    kinds["null"] = type(None)
    known = {"type", "enum", "not", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "default", "title"}
    known |= {"items", "minItems", "maxItems", "uniqueItems", "properties", "additionalProperties", "description"}
    assert rule.keys() <= known | {"$schema"}
    names = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    if not any(isinstance(value, kinds[name]) and (name == "boolean") == (type(value) is bool) for name in names):
        return False
    if isinstance(value, dict):
        properties = rule["properties"]
        return value.keys() <= properties.keys() and all(fits(own, properties[name]) for name, own in value.items())
    if isinstance(value, list):
        within = rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", math.inf)
        different = not rule.get("uniqueItems") or len(set(value)) == len(value)
        return within and different and all(fits(item, rule["items"]) for item in value)
    if isinstance(value, str):
        return value in rule.get("enum", [value])
    return value is None or (
        value in rule.get("enum", [value])
        and rule.get("minimum", -math.inf) <= value <= rule.get("maximum", math.inf)
        and rule.get("exclusiveMinimum", -math.inf) < value < rule.get("exclusiveMaximum", math.inf)
        and value != rule.get("not", {}).get("const")
    )


def test_every_preset_satisfies_the_schema():
    rules = json_schema()
    assert rules["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for name in preset_names():
        assert fits(json.loads(json.dumps(preset_config(name).to_dict())), rules)
    assert fits(Config().to_dict(), rules)


def test_the_schema_holds_type_range_default_and_description_of_every_setting():
    rules = json.loads(json.dumps(json_schema(), allow_nan=False))
    for key, _, default, text in settings():
        section, name = key.split(".")
        rule = rules["properties"][section]["properties"][name]
        assert rule["default"] == json.loads(json.dumps(default))
        assert rule["description"] == text
        assert rule["type"] in ("integer", "number", "string", "boolean", "array") or rule["type"][1] == "null"
    training = rules["properties"]["training"]["properties"]
    assert training["optimizer"]["enum"] == ["adam", "rmsprop"]
    assert (training["batch_size"]["minimum"], training["batch_size"]["maximum"]) == (2, 65536)
    assert training["learning_rate"]["exclusiveMinimum"] == 0


@given(st.data())
def test_the_schema_refuses_what_is_refused_of_one_setting(data):
    """The same record checks and describes; only rules that span settings are not in the schema."""
    key, _, default, _ = data.draw(st.sampled_from(settings()))
    number = st.integers(-9, 99) | st.sampled_from([128, 4096, 65536, 65537, 1 << 20, 1 << 32, 1.0, 0.5, -0.5, 2e9])
    words = st.sampled_from(["none", "auto", "last", "adam", ""])
    value = data.draw(st.none() | st.booleans() | number | words | st.lists(number, max_size=3))
    if isinstance(default, tuple) and not isinstance(value, list):
        return  # one value becomes a list of one when it is read
    section, name = key.split(".")
    rule = json_schema()["properties"][section]["properties"][name]
    try:
        Config().override({key: value})
    except UsageError as error:
        if any(word in str(error) for word in ("or more, so that", "some of", "divisor", "without classes", "unless")):
            return  # a rule that spans settings
        whole = type(value) is float and value.is_integer()  # JSON Schema takes 1.0 for an integer, samgan does not
        assert whole or not fits(value, rule)
    else:
        assert fits(value, rule)


# ---- settings that are gone


@pytest.mark.parametrize("key", RETIRED)
def test_a_retired_setting_loads_where_it_means_what_is_done_today(key):
    section, name = key.split(".")
    retired = RETIRED[key]
    if not retired.values:
        assert key not in [row.key for row in settings()]
        for tree in ({key: retired.same}, {section: {name: retired.same}}):
            assert Config.from_dict(tree) == Config()
    others = retired.values or (0.5, "every", None, [retired.same], {"a": 1}, True)
    for value in others:
        with pytest.raises(UsageError, match=rf"^{key}.* is not allowed; this \w+ is gone: ") as caught:
            Config.from_dict({section: {name: value}})
        assert "\n" not in str(caught.value)


def committed():
    """Where they stand, and the trees of settings of results that are kept, as they were written."""
    for path in (*RESULTS.rglob("config.json"), *RESULTS.glob("table2/rows/*.json"), *RESULTS.rglob("balance.json")):
        document = json.loads(path.read_text())
        tree = document.get("plan", document)
        yield path, tree.get("config", tree)
    for shipped in SHIPPED.values():
        with safe_open(shipped.path, framework="numpy") as file:
            yield shipped.path, json.loads(file.metadata()["config"])


def test_settings_of_committed_results_still_load():
    trees = dict(committed())
    assert len(trees) > 60
    assert len([tree for tree in trees.values() if "rmsprop_alpha" in tree["training"]]) > 60
    for tree in trees.values():
        config = Config.from_dict(tree)
        kept = {key: value for key, value in flatten(tree).items() if key not in RETIRED or RETIRED[key].values}
        assert kept.items() <= flatten(config.to_dict()).items()


# ---- the budget: what nobody uses goes


OPEN_POINTS = {
    "network.attention_reduction": "width of queries and keys, of values",
    "network.spectral_norm_layers": "layers under spectral norm",
    "network.image_activation": "linear or tanh images",
    "network.combine": "combine function",
    "network.minibatch_std": "minibatch std",
}
"""Settings, or some of their values, that answer a point that the paper leaves open; the point as
docs/reproducing.md names it."""
TABLE_2 = {
    "network.pixel_norm": "PN, which every row has",
    "network.spectral_norm": "SN, which rows have in both networks or in none: which of them needs it is open",
    "network.resolution": "of the images; presets take it, and attention with it",
}
"""Columns of Table 2, and its image size, for which rows have one value only."""


FREE = {
    "training.log_every_kimg",  # samgan demo has one
    "network.vision_file",  # a file of the user's own
    "training.epochs",  # becomes training.kimg before training begins
}


def used_values():
    """Every value of every setting that a preset, a row of table2 or a committed result has."""
    configs = [preset_config(name, scale) for name in preset_names() for scale in scales_of(name)]
    configs += [row.config(scale) for row in ROWS.values() for scale in ("cpu", "paper")]
    configs += [Config.from_dict(tree) for _, tree in committed()]
    variants = runpy.run_path(str(RESULTS / "plus" / "ablation.py"))["VARIANTS"]
    configs += [preset_config().override(split_settings(words)[1]) for words in variants.values()]
    lengths = runpy.run_path(str(RESULTS / "plus" / "runs.py"))["PLUS"]
    configs.append(preset_config().override(split_settings(lengths)[1]))
    trials = runpy.run_path(str(RESULTS / "sizes" / "trials.py"))
    words = [[*variant.arguments, *variant.last] for variant in trials["VARIANTS"].values()]
    words.append(trials["begin_with"]([(64, 61), (128, 9)]))
    for told in words:
        rest, changed = split_settings(told)
        presets = [word.partition("=")[2] for word in rest if word.startswith("--preset=")]
        configs.append(preset_config(*presets, resolution=128).override(changed))
    used = {row.key: set() for row in settings()}
    for config in configs:
        for key in used:
            section, name = key.split(".")
            used[key].add(getattr(getattr(config, section), name))
    return used


def test_every_setting_is_used():
    """Each has two values or more among presets, rows and committed results, or answers an open point of the paper."""
    used = used_values()
    idle = {key for key, values in used.items() if len(values) < 2} - FREE
    assert idle <= OPEN_POINTS.keys() | TABLE_2.keys()
    document = (RESULTS.parent / "docs" / "reproducing.md").read_text()
    for key, point in OPEN_POINTS.items():
        line = re.search(rf"^\| {point} \|.*", document, flags=re.M)
        assert line, point
        assert key.split(".")[1] in line[0]


def test_every_value_of_a_choice_is_used():
    used = used_values()
    for key, values in used.items():
        section, name = key.split(".")
        allowed = json_schema()["properties"][section]["properties"][name].get("enum", [])
        idle = set(allowed) - values
        if isinstance(values.copy().pop(), str) and idle:
            assert key in OPEN_POINTS.keys() | TABLE_2.keys(), f"{key}: nothing uses {', '.join(sorted(idle))}"
