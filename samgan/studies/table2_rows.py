"""The rows of the table: those of the paper, further ones, and those of its future work.

A new row is one line in `FURTHER_ROWS`; a new recipe of `samgan.presets` is a row of the future work by itself.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samgan.config import Config, flatten
from samgan.errors import UsageError
from samgan.presets import ATTENTION, PLUS, PRESETS, RECIPES, ROWS_SCALE, SCALES, preset_config

RECIPE_SCALE = {of_rows: of_recipes for of_recipes, of_rows in ROWS_SCALE.items()}
"""The scale of recipes that are no rows of the paper, in a table of each scale."""
PRECISION = "training.precision"


@dataclass(frozen=True)
class Row:
    """One row: a preset, or a preset with other settings."""

    name: str
    base: str
    """The preset."""
    settings: dict[str, Any]
    """What differs from it, as dotted keys."""
    question: str
    """The question that a further row answers; empty for rows of the paper."""
    paper_fid: float | None = None
    paper_ms_ssim_real: float | None = None
    paper_ms_ssim_generated: float | None = None
    colour: bool = False

    @property
    def is_recipe(self) -> bool:
        """Whether its networks and its training are not the paper's."""
        return self.base in RECIPES

    @property
    def copies(self) -> int:
        """How often each image is in its set: twice with its mirror image."""
        return 2 if self.settings.get("data.flip") == "double" else 1

    def config(self, scale: str, resolution: int = 64, settings: Mapping[str, Any] | None = None) -> Config:
        """The row's configuration at a scale, with settings that all rows of the paper's networks are given.

        Other recipes keep their own settings, except that they train as long as the rows of the paper, in the precision
        that is given.
        """
        if self.is_recipe:
            own = {"training.kimg": SCALES[scale]["kimg"]}
            own |= {key: value for key, value in flatten(settings or {}).items() if key == PRECISION}
            config = preset_config(self.base, RECIPE_SCALE[scale], resolution).override(own)
        else:
            config = preset_config(self.base, scale, resolution).override(settings or {})
        return config.override({**self.settings, "preset": self.name})

    def fits(self, resolution: int) -> bool:
        """Whether images of this size have the resolutions at which the row has attention."""
        sides = [self.settings.get(f"network.{network}_attention", ()) for network in ("generator", "discriminator")]
        return all(side <= resolution for side in itertools.chain(*sides))


# Without this, layers with spectral norm have no equalized rates, so equalized_lr of samgan-8 would change nothing.
EQUALIZED_TOO = {"network.spectral_norm_scale": "equalized"}
UNIT = {"network.spectral_norm_scale": "unit"}
AS_PRINTED = {"network.attention_pooled": False, "network.attention_value_reduction": 8}


def _attention(generator: Sequence[int], discriminator: Sequence[int]) -> dict[str, Any]:
    return {"network.generator_attention": list(generator), "network.discriminator_attention": list(discriminator)}


PAPER_ROWS = tuple(
    Row(
        row.name,
        row.name,
        {},
        "",
        row.paper_fid,
        row.paper_ms_ssim_real,
        row.paper_ms_ssim_generated,
        colour=row.data == "CelebA",
    )
    for row in PRESETS
)
WITHOUT_CLASSES = {"network.num_classes": 0}
ALL_SIDES = {**WITHOUT_CLASSES, "training.first_sides": []}
"""Without a beginning with smaller images, which not all recipes have: rows of the future work differ in networks."""
SEEN_BY_RADIOGRAPH = {**WITHOUT_CLASSES, "network.vision_features": "radiograph"}
# fmt: off
FURTHER_ROWS = (
    Row("samgan-8-no-attention", "samgan-8", _attention([], []), "what attention is worth"),
    Row("samgan-8-in-g", "samgan-8", {"network.discriminator_attention": []}, "attention in the generator only"),
    Row("samgan-8-in-d", "samgan-8", {"network.generator_attention": []}, "attention in the discriminator only"),
    Row("samgan-8-at-16", "samgan-8", _attention([16], [16]), "attention at 16 px only"),
    Row("samgan-8-at-32", "samgan-8", _attention([32], [32]), "attention at 32 px only"),
    Row("samgan-8-at-64", "samgan-8", _attention([64], [64]), "attention at 64 px only"),
    Row("samgan-8-unpooled", "samgan-8", {"network.attention_pooled": False}, "keys of every position"),
    Row("samgan-8-linear", "samgan-8", {"network.attention_kind": "linear"}, "attention of linear cost"),
    Row("samgan-8-dual", "samgan-8", {"network.attention_kind": "dual"}, "attention between channels as well"),
    Row("samgan-8-se", "samgan-8", {"network.attention_kind": "squeeze-excitation"}, "channel attention"),
    Row("samgan-8-cbam", "samgan-8", {"network.attention_kind": "cbam"}, "channel and position weights (CBAM)"),
    Row("samgan-8-as-printed", "samgan-8", AS_PRINTED, "attention by the equations: no pooling, C / 8 everywhere"),
    Row("samgan-8-rate-0.001", "samgan-8", {"training.learning_rate": 0.001}, "a rate between 0.0003 and 0.003"),
    Row("msg-gan-6-rate-0.0001", "msg-gan-6", {"training.learning_rate": 0.0001}, "the rate of samgan-8"),
    Row("samgan-8-no-norm", "samgan-8", {"network.spectral_norm": "none"}, "what spectral norm is worth"),
    Row("samgan-8-doubled", "samgan-8", {"data.flip": "double"}, "mirror images added, instead of random flips"),
    Row("msg-gan-7-rate-0.001", "msg-gan-7", {"training.learning_rate": 0.001}, "a rate between 0.0003 and 0.003"),
    Row("samgan-8-equalized", "samgan-8", EQUALIZED_TOO, "spectral norm and equalized rates in one layer"),
    Row("msg-gan-11-equalized", "msg-gan-11", EQUALIZED_TOO, "the same without attention, at 30 times the rate"),
    Row("samgan-8-unit", "samgan-8", UNIT, "equalized rates, which spectral norm then scales away"),
    Row("msg-gan-11-unit", "msg-gan-11", UNIT, "the same without attention, at 30 times the rate"),
    Row("msg-gan-6-unequalized", "msg-gan-6", {"network.equalized_lr": False}, "no norm and no equalized rates"),
    Row("msg-gan-4-no-penalty", "msg-gan-4", {"training.penalty": "none"}, "WGAN without penalty (MSG-GAN's code)"),
    Row(PLUS, PLUS, ALL_SIDES, "our own recipe, without classes, as in the other rows"),
    Row(f"{PLUS}-rate-0.004", PLUS, {**ALL_SIDES, "training.learning_rate": 0.004}, "half its rate"),
    Row("samgan-projected-radiograph", "samgan-projected", SEEN_BY_RADIOGRAPH, "eyes trained on chest X-rays"),
    Row("samgan-vision-weight-0.3", "samgan-vision", {**WITHOUT_CLASSES, "training.vision_weight": 0.3}, "weaker eyes"),
)
# fmt: on
FUTURE_ROWS = tuple(
    Row(name, name, ALL_SIDES, f"{name.removesuffix(ATTENTION)} with{'' if recipe.attention else 'out'} attention")
    for name, recipe in RECIPES.items()
)
"""What the paper's last paragraph asks for: self-attention in other networks, each beside the same without it."""
ROWS = {row.name: row for row in (*PAPER_ROWS, *FURTHER_ROWS, *(row for row in FUTURE_ROWS if row.name != PLUS))}
GROUPS = {
    "paper": [row.name for row in PAPER_ROWS if not row.colour],
    "further": [row.name for row in FURTHER_ROWS],
    "future": [row.name for row in FUTURE_ROWS],
}
OPTIONS = {
    "preset": "--rows",
    "data.classes": "--classes",
    "training.kimg": "--kimg",
    "training.epochs": "--epochs",
    "training.seed": "--seeds",
    "training.snapshot_every_kimg": "--snapshot-every-kimg",
}
"""Settings that the table sets itself, and the option for each."""


def choose_rows(names: Sequence[str], seeds: int, colour: bool, resolution: int = 64) -> dict[str, int]:
    """Find rows by name or by group, and the number of seeds of each.

    Args:
        names: Names and groups ("paper": the 18 X-ray rows, "further", "future", "all"); none: "paper". `NAME=N` sets
            the number of seeds of a row, or of every row of a group; if several names include a row, the last counts.
        seeds: Number of seeds of every other row.
        colour: Whether there are faces to train the CelebA row on; it is then in "paper" and "all".
        resolution: Of the images. Groups leave out rows with attention at a resolution that these images do not have.

    Returns:
        Number of seeds by name, in the order of the table.

    Raises:
        UsageError: An unknown name, no seed, or the CelebA row without faces.
    """
    groups = {**GROUPS, "all": list(dict.fromkeys(itertools.chain(*GROUPS.values())))}
    if colour:
        faces = [row.name for row in PAPER_ROWS if row.colour]
        groups |= {name: [*faces, *groups[name]] for name in ("paper", "all")}
    groups = {name: [row for row in rows if ROWS[row].fits(resolution)] for name, rows in groups.items()}
    wanted: dict[str, int] = {}
    for given in names or ["paper"]:
        name, equals, number = given.partition("=")
        count = int(number) if number.isdigit() else 0 if equals else seeds
        if count < 1:
            raise UsageError(f"--rows {given} --seeds {seeds}: expected 1 or more seeds, such as samgan-8=2")
        if name not in groups and name not in ROWS:
            raise UsageError(f"--rows {name}: expected {', '.join(groups)} or one or more of {', '.join(ROWS)}")
        wanted |= dict.fromkeys(groups.get(name, [name]), count)
    if not colour and (faces := [name for name in wanted if ROWS[name].colour]):
        raise UsageError(f"--rows {faces[0]} is the CelebA row; name a prepared set of faces with --faces")
    return {name: wanted[name] for name in ROWS if name in wanted}


def check_settings(settings: Mapping[str, Any], scale: str) -> None:
    """Refuse settings for all rows that cannot be the same in all rows.

    Raises:
        UsageError: The rows differ in a setting, or the table sets it itself.
    """
    configs = [row.config(scale) for row in ROWS.values() if not row.is_recipe]
    varied = {key for config in configs for key in config.differences(configs[0])}
    for key in flatten(settings):
        if key in OPTIONS:
            raise UsageError(f"--{key}: samgan table2 has the option {OPTIONS[key]} for it")
        if key in varied:
            raise UsageError(
                f"--{key}: the rows of the table differ in this setting; train one row with samgan train --preset ROW"
            )
