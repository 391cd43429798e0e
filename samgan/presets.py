"""THE TABLE: every row of the paper's Table 2, with its switches and its published scores; then other recipes.

The paper leaves much open (where attention is, Adam's betas, EMA, ...). Our choices are the defaults of `samgan.config`
or are in `SCALES` below, with their reasons. `docs/reproducing.md` lists every choice.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Literal

from samgan.config import Config
from samgan.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Preset:
    """One row of Table 2: the switches that differ between rows, and the scores that the paper reports."""

    name: str
    spectral_norm: bool
    attention: bool
    flip: bool
    optimizer: Literal["adam", "rmsprop"]
    learning_rate: float
    loss: Literal["wgan-gp", "rahinge"]
    data: Literal["CelebA", "X-ray"]
    paper_fid: float
    paper_ms_ssim_real: float | None
    paper_ms_ssim_generated: float | None


# Every row of the paper has pixel norm and minibatch std. The first row of its table (CelebA, FID 8.86) is quoted from
# MSG-GAN's own paper and is left out here; msg-gan-1 is the re-implementation.
# fmt: off
PRESETS = (
    #       name            SN     AM     FA   optimizer  rate    loss       data      FID     MR    MG
    Preset("msg-gan-1",  False, False, True,  "rmsprop", 0.003,  "wgan-gp", "CelebA",  18.5,  None, None),
    Preset("msg-gan-2",  False, False, True,  "rmsprop", 0.003,  "wgan-gp", "X-ray",  380.0,  0.50, 0.74),
    Preset("msg-gan-3",  False, False, False, "rmsprop", 0.003,  "wgan-gp", "X-ray",  310.2,  0.50, 0.51),
    Preset("msg-gan-4",  False, False, True,  "adam",    0.003,  "wgan-gp", "X-ray",  330.33, 0.50, 0.66),
    Preset("msg-gan-5",  False, False, True,  "rmsprop", 0.003,  "rahinge", "X-ray",  200.0,  0.50, 0.50),
    Preset("msg-gan-6",  False, False, True,  "adam",    0.003,  "rahinge", "X-ray",  167.1,  0.50, 0.47),
    Preset("msg-gan-7",  False, False, False, "adam",    0.003,  "rahinge", "X-ray",  194.85, 0.50, 0.51),
    Preset("msg-gan-8",  False, False, False, "adam",    0.0003, "rahinge", "X-ray",  217.3,  0.50, 0.54),
    Preset("msg-gan-9",  False, False, False, "adam",    0.0002, "rahinge", "X-ray",  272.02, 0.50, 0.53),
    Preset("msg-gan-10", False, False, False, "adam",    0.0001, "rahinge", "X-ray",  254.0,  0.50, 0.58),
    Preset("msg-gan-11", True,  False, False, "adam",    0.003,  "rahinge", "X-ray",  413.8,  0.50, 1.0),
    Preset("samgan-1",   False, True,  False, "adam",    0.003,  "rahinge", "X-ray",  557.28, 0.50, 0.99),
    Preset("samgan-2",   True,  True,  False, "adam",    0.003,  "rahinge", "X-ray",  413.8,  0.50, 1.0),
    Preset("samgan-3",   True,  True,  False, "adam",    0.0003, "rahinge", "X-ray",  387.2,  0.50, 0.55),
    Preset("samgan-4",   True,  True,  False, "adam",    0.0002, "rahinge", "X-ray",  198.8,  0.50, 0.55),
    Preset("samgan-5",   True,  True,  False, "adam",    0.0001, "rahinge", "X-ray",  282.2,  0.50, 0.54),
    Preset("samgan-6",   True,  True,  True,  "adam",    0.0003, "rahinge", "X-ray",  243.0,  0.50, 0.47),
    Preset("samgan-7",   True,  True,  True,  "adam",    0.0002, "rahinge", "X-ray",  366.2,  0.50, 0.53),
    Preset("samgan-8",   True,  True,  True,  "adam",    0.0001, "rahinge", "X-ray",  139.6,  0.50, 0.50),
)

LOSSES = {
    # lambda 10 and drift 0.001 are the values of ProGAN, which MSG-GAN's paper keeps.
    "wgan-gp": {"loss": "wgan", "penalty": "gradient-per-scale", "penalty_weight": 10.0, "drift_weight": 0.001},
    "rahinge": {"loss": "relativistic-average-hinge", "penalty": "none", "drift_weight": 0.0},
}
# fmt: on

SCALES: dict[str, dict[str, Any]] = {
    "paper": {
        "max_channels": 512,
        "attention": (4, 8, 16, 32, 64),  # "in each block" (Fig. 1)
        "kimg": 1808.0,  # 500 epochs of 3,616 images: 113,000 steps of 16
        "snapshot_every_kimg": 40.0,
        "ema_halflife_kimg": 11.08,
    },
    "cpu": {
        "max_channels": 64,
        "attention": (4, 8, 16, 32),  # at 64 px one layer costs a CPU more than the rest of the step
        "kimg": 400.0,
        "snapshot_every_kimg": 8.0,
        "ema_halflife_kimg": 2.45,  # the same share of the run as at paper scale
    },
}


# Our own recipe, which is not a row of the paper: what `samgan train` uses if no preset is named.
PLUS = "samgan-plus"
PLUS_SETTINGS: dict[str, Any] = {
    "data.flip": "none",  # a mirrored radiograph has the heart on the wrong side
    "network.generator_blocks": "modulated",
    "network.discriminator_blocks": "residual",
    "network.mapping_layers": 2,
    "network.num_classes": None,  # those of the data; the paper's networks are not conditional
    "network.minibatch_std_group": 4,
    "training.loss": "relativistic-paired",
    "training.penalty": "r1-r2",
    "training.penalty_weight": 0.02,
    "training.penalty_every": 8,
    "training.precision": "auto",
    # With some thousand images the mean sign settles near this by itself; with some hundred it rises to 1.
    "training.augment_target": 0.8,
    "training.ema_ramp": 0.05,
}
PLUS_SCALES: dict[str, dict[str, Any]] = {
    # With MSG-GAN's widths, two thirds of all arithmetic would go to 32 and 64 px; here each scale gets its share.
    "cpu": {
        "network.max_channels": 128,
        "network.channel_base": 1024,
        # In the first hours, the number of updates and their size matter more than the number of images.
        "training.batch_size": 8,
        "training.learning_rate": 0.008,
        "training.kimg": 700.0,
        "training.snapshot_every_kimg": 20.0,
        "training.ema_halflife_kimg": 4.0,
    },
    # Four times as wide below 16 px and sixteen times above, since a GPU has arithmetic to spare there; four times the
    # batch, to use it.
    "gpu": {
        "network.max_channels": 512,
        "network.channel_base": 16384,
        "training.batch_size": 32,
        "training.learning_rate": 0.002,
        "training.kimg": 5000.0,
        "training.snapshot_every_kimg": 100.0,
        "training.ema_halflife_kimg": 10.0,
    },
}

# Training that begins with smaller images reached lower Frechet distances in equal minutes at 128 px, with both seeds
# (results/sizes). At 256 px too little has been measured.
PLUS_SIDES: dict[int, dict[str, Any]] = {
    128: {"training.first_sides": [64], "training.first_kimg": 60.0},
    256: {},
}

# The same recipe with a discriminator that sees through a pretrained network, or has one beside it.
VISION_SETTINGS: dict[str, Any] = {**PLUS_SETTINGS, "network.discriminator_blocks": "vision"}
PROJECTED_SETTINGS: dict[str, Any] = {
    **PLUS_SETTINGS,
    "network.discriminator_blocks": "projected",
    "training.loss": "hinge",
    "training.penalty": "none",  # as in Projected GAN; spectral norm bounds the slope of each layer of a head
    "training.augment_target": 0.6,  # that of ADA, whose logits have a zero, as those of the hinge loss have
}
VISION_SCALES: dict[str, dict[str, Any]] = {
    "cpu": {**PLUS_SCALES["cpu"], "network.vision_resolution": 128, "network.vision_channels": 32},
    "gpu": {**PLUS_SCALES["gpu"], "network.vision_resolution": 256, "network.vision_channels": 64},
}
# With equal rates the generator's images become alike within some thousand images; with a quarter, the share that SAGAN
# takes, they did not.
PROJECTED_SCALES: dict[str, dict[str, Any]] = {
    scale: {
        **settings,
        "training.learning_rate": settings["training.learning_rate"] / 4,
        "training.discriminator_learning_rate": settings["training.learning_rate"],
    }
    for scale, settings in VISION_SCALES.items()
}

# samgan-plus with the generator of StyleGAN3-T (Karras et al. 2021). Its rates and widths have not been tuned.
ALIAS_FREE_SETTINGS = {**PLUS_SETTINGS, "network.generator_blocks": "alias-free"}
ALIAS_FREE_SCALES = {
    # Half of samgan-plus, since half of the layers compute on the grid of the largest image, and filter there.
    "cpu": {**PLUS_SCALES["cpu"], "network.channel_base": 512},
    "gpu": PLUS_SCALES["gpu"],
}

# R3GAN (Huang et al. 2024), without images of smaller scales. Values are those of its paper for faces of 64 px, where a
# comment does not say otherwise.
R3GAN_SETTINGS: dict[str, Any] = {
    "data.flip": "none",
    "network.generator_blocks": "grouped",
    "network.discriminator_blocks": "grouped",
    "network.scales": "largest",
    "network.latent_dim": 64,
    "network.num_classes": None,
    "network.equalized_lr": False,
    "network.minibatch_std": "none",
    "training.loss": "relativistic-paired",
    "training.penalty": "r1-r2",
    "training.penalty_weight": 1.0,  # half of its gamma
    "training.burnt_in_penalty_weight": 0.1,
    "training.learning_rate": 0.0002,
    "training.burnt_in_learning_rate": 0.00005,
    "training.adam_betas": [0.0, 0.9],
    "training.burnt_in_beta2": 0.99,
    "training.precision": "auto",
    "training.augment_target": 0.8,  # as in samgan-plus; there the share of augmented images is a schedule
    # There the half-life grows to 500 kimg along the burn-in of 20,000 kimg: on average with this ramp.
    "training.ema_halflife_kimg": 500.0,
    "training.ema_ramp": 0.025,
}
R3GAN_SCALES: dict[str, dict[str, Any]] = {
    "cpu": {
        "network.max_channels": 128,
        "network.channel_base": 512,  # half of samgan-plus, since each scale has five convolutions on its way
        "training.batch_size": 8,
        "training.penalty_every": 4,  # one costs as much as two steps without it
        # At the rates of the paper, images of 64 px are still grey fields after 20 kimg.
        "training.learning_rate": 0.001,
        "training.burnt_in_learning_rate": 0.00025,
        "training.kimg": 700.0,
        "training.burn_in_kimg": 700.0,
        "training.snapshot_every_kimg": 20.0,
    },
    # Two thirds of the width in its paper. Not trained yet.
    "gpu": {
        "network.max_channels": 512,
        "network.channel_base": 16384,
        "training.batch_size": 32,  # that of one of the paper's eight GPUs
        "training.kimg": 5000.0,
        "training.burn_in_kimg": 5000.0,
        "training.snapshot_every_kimg": 100.0,
    },
}
# Its gamma is 75 times as large for faces of 256 px as for those of 64 px. 128 px is half way.
R3GAN_SIDES: dict[int, dict[str, Any]] = {
    128: {"training.penalty_weight": 8.7, "training.burnt_in_penalty_weight": 0.87},
    256: {"training.penalty_weight": 75.0, "training.burnt_in_penalty_weight": 7.5},
}

FEWEST_CHANNELS = 4
"""At the largest size. Where a recipe's own widths are less there, all its scales get more, by the same factor."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A preset that is no row of the paper, with or without self-attention."""

    settings: Mapping[str, Any]
    scales: Mapping[str, Mapping[str, Any]]
    """What differs from `settings` by scale: "cpu", then "gpu"."""
    sides: Mapping[int, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """What differs from both for images of this side or more; the largest such side counts."""
    attention: bool = False


ATTENTION = "-attention"
"""End of the name of a recipe with self-attention: where the rows of the paper have it, at a scale of equal width."""
ROWS_SCALE = {"cpu": "cpu", "gpu": "paper"}
"""The scale of the paper's rows that is as wide as each scale of a recipe."""


def _with_and_without(name: str, recipe: Recipe) -> dict[str, Recipe]:
    return {name: recipe, f"{name}{ATTENTION}": dataclasses.replace(recipe, attention=True)}


RECIPES: dict[str, Recipe] = {
    **_with_and_without(PLUS, Recipe(PLUS_SETTINGS, PLUS_SCALES, PLUS_SIDES)),
    **_with_and_without("samgan-projected", Recipe(PROJECTED_SETTINGS, PROJECTED_SCALES)),
    **_with_and_without("samgan-vision", Recipe(VISION_SETTINGS, VISION_SCALES)),
    **_with_and_without("samgan-alias-free", Recipe(ALIAS_FREE_SETTINGS, ALIAS_FREE_SCALES)),
    **_with_and_without("r3gan", Recipe(R3GAN_SETTINGS, R3GAN_SCALES, R3GAN_SIDES)),
}
"""By name; each is a row of `samgan table2 --rows future`."""


def preset_names() -> list[str]:
    """Names of all presets: the rows of Table 2 in order, then the other recipes."""
    return [*(row.name for row in PRESETS), *RECIPES]


def scale_names() -> list[str]:
    """Names of all scales; a preset has some of them (see `preset_config`)."""
    return list(dict.fromkeys([*SCALES, *PLUS_SCALES]))


def scales_of(name: str) -> list[str]:
    """The scales of a preset, its default first."""
    return list(RECIPES[name].scales if name in RECIPES else SCALES)


def preset_config(name: str = PLUS, scale: str | None = None, resolution: int = 64) -> Config:
    """Make the configuration of one row of Table 2, or of another recipe.

    Args:
        name: Name of a row, such as `samgan-8`, or a key of `RECIPES`, such as `samgan-plus`.
        scale: Of a row, `paper` (512 channels, 1,808 kimg; the default) or `cpu` (64 channels, a night on a laptop). Of
            another recipe, `cpu` (the default) or `gpu`.
        resolution: Side of the images in pixels (64 in the paper), 32 to 1024. The attention layers of the scale that
            are at a higher resolution are left out. Networks of `cpu` are as wide at 512 and 1024 px as it takes for
            four channels there.

    Returns:
        The configuration; `Config.override` changes single settings of it.

    Raises:
        UsageError: Unknown name or scale; the message has the known ones.
    """
    if name not in preset_names():
        near = difflib.get_close_matches(name, preset_names(), n=1)
        advice = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown preset {name!r}; {advice}known: {', '.join(preset_names())}")
    scale = scale or scales_of(name)[0]
    if scale not in scales_of(name):
        raise UsageError(f"unknown scale {scale!r} of {name}; known: {', '.join(scales_of(name))}")
    if name in RECIPES:
        return _recipe_config(name, scale, resolution)
    narrowest = FEWEST_CHANNELS * resolution  # as a channel_base
    row, size = {row.name: row for row in PRESETS}[name], SCALES[scale]
    attention = _attention(scale, resolution) if row.attention else []
    return Config().override(
        {
            "preset": name,
            "data": {"flip": "random" if row.flip else "none"},
            "network": {
                "resolution": resolution,
                "image_channels": 3 if row.data == "CelebA" else 1,
                "max_channels": size["max_channels"],
                "channel_base": narrowest if 32 * size["max_channels"] < narrowest else None,
                "spectral_norm": "both" if row.spectral_norm else "none",
                "generator_attention": attention,
                "discriminator_attention": attention,
            },
            "training": {
                **LOSSES[row.loss],
                "optimizer": row.optimizer,
                "learning_rate": row.learning_rate,
                **{name: size[name] for name in ("kimg", "snapshot_every_kimg", "ema_halflife_kimg")},
            },
        }
    )


def _recipe_config(name: str, scale: str, resolution: int) -> Config:
    """The configuration of a recipe that is no row of the paper."""
    recipe = RECIPES[name]
    widths = recipe.scales[scale]["network.channel_base"]
    attention = _attention(ROWS_SCALE[scale], resolution) if recipe.attention else []
    side = max((side for side in recipe.sides if side <= resolution), default=None)
    return Config().override(
        {
            "preset": name,
            **recipe.settings,
            **recipe.scales[scale],
            **({} if side is None else recipe.sides[side]),
            "network.channel_base": max(widths, FEWEST_CHANNELS * resolution),
            "network.resolution": resolution,
            "network.generator_attention": attention,
            "network.discriminator_attention": attention,
        }
    )


def _attention(scale: str, resolution: int) -> list[int]:
    """The resolutions at which the rows of the paper with attention have it."""
    return [side for side in SCALES[scale]["attention"] if side <= resolution]


def preset_document() -> list[dict[str, Any]]:
    """Every row as plain JSON types: its switches, with the names of the paper's columns, and the paper's scores."""
    return [{"pixel_norm": True, "minibatch_std": True, **dataclasses.asdict(row)} for row in PRESETS]
