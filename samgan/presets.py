"""THE TABLE: every row of the paper's Table 2, its switches and its published scores side by side.

The paper leaves much open (attention's place, Adam's betas, EMA, ...): what was chosen is the default of
`samgan.config`, or stands in `SCALES` below with its reason. `docs/reproducing.md` lists every choice.
"""

import dataclasses
from typing import Any, Literal

from samgan.config import Config
from samgan.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Preset:
    """One row of Table 2: the switches that differ between rows, and what the paper measured with them."""

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


# Pixel norm and minibatch std are on in every row of the paper. MSG-GAN's own published row (CelebA, FID 8.86) is
# somebody else's run; msg-gan-1 is the paper's re-implementation of it.
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
    # lambda 10 and drift 0.001 are ProGAN's, which MSG-GAN's paper keeps.
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


def preset_names() -> list[str]:
    """Names of all rows, in the order of Table 2 by family."""
    return [row.name for row in PRESETS]


def preset_config(name: str, scale: str = "paper", resolution: int = 64) -> Config:
    """The configuration of one row of Table 2.

    Args:
        name: A row's name, such as `samgan-8`.
        scale: `paper` (512 channels, 1,808 kimg) or `cpu` (64 channels, a night on a laptop).
        resolution: Side of the images in pixels (the paper: 64); attention stays where the scale puts it, if it fits.

    Raises:
        UsageError: Unknown name or scale, with the known ones.
    """
    rows = {row.name: row for row in PRESETS}
    if name not in rows:
        raise UsageError(f"unknown preset {name!r}; known: {', '.join(rows)}")
    if scale not in SCALES:
        raise UsageError(f"unknown scale {scale!r}; known: {', '.join(SCALES)}")
    row, size = rows[name], SCALES[scale]
    attention = [side for side in size["attention"] if row.attention and side <= resolution]
    return Config().override(
        {
            "preset": name,
            "data": {"flip": "random" if row.flip else "none"},
            "network": {
                "resolution": resolution,
                "image_channels": 3 if row.data == "CelebA" else 1,
                "max_channels": size["max_channels"],
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


def preset_document() -> list[dict[str, Any]]:
    """Every row as plain JSON types: its switches as the paper's columns name them, and the paper's scores."""
    return [{"pixel_norm": True, "minibatch_std": True, **dataclasses.asdict(row)} for row in PRESETS]
