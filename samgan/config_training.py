"""The section `training` of the configuration: losses, optimizers, length, what is logged and kept."""

import dataclasses
import math
from typing import Literal

from samgan.schema import check_section, setting

SIDES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Of images in the two networks; a pyramid ends with the side of its image, 32 px or more."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Losses, optimizers, length, what is logged and kept."""

    loss: Literal["relativistic-average-hinge", "relativistic-paired", "wgan", "hinge", "non-saturating"] = setting(
        "relativistic-average-hinge", "adversarial loss"
    )
    penalty: Literal["none", "gradient-per-scale", "r1", "r1-r2"] = setting(
        "none", "penalty on the discriminator's gradient at all scales (WGAN-GP: wgan with gradient-per-scale)"
    )
    penalty_weight: float = setting(
        10.0, "weight of the penalty: lambda of WGAN-GP, gamma / 2 of R1 and R2", minimum=0, maximum=1e9
    )
    penalty_every: int = setting(
        1,
        "compute the penalty in every n-th step, with n times its weight (a lazy penalty: 4 to 16)",
        minimum=1,
        maximum=1 << 16,
    )
    drift_weight: float = setting(
        0.0, "weight of the mean squared logit of real images (ProGAN: 0.001 with WGAN-GP)", minimum=0, maximum=1e9
    )
    vision_weight: float = setting(
        1.0,
        "weight of the hinge loss of the small discriminators of vision blocks, each with the same share; the loss "
        "above is that of the discriminator they stand beside",
        minimum=0,
        maximum=1e9,
    )
    optimizer: Literal["adam", "rmsprop"] = setting("adam", "optimizer of both networks")
    learning_rate: float = setting(0.003, "learning rate of both networks", above=0, maximum=1e9)
    discriminator_learning_rate: float | None = setting(
        None, "the discriminator's own learning rate; null: the same as learning_rate", above=0, maximum=1e9
    )
    rate_decay_kimg: float = setting(
        0.0,
        "after this, learning rates fall with the square root of the images seen: at four times this they are half; "
        "0: constant rates",
        minimum=0,
        maximum=1e9,
    )
    burn_in_kimg: float = setting(
        0.0,
        "over this many images, the three settings below go from their first values to these, along half a cosine "
        "(R3GAN); 0: they have these from the first step",
        minimum=0,
        maximum=1e9,
    )
    burnt_in_learning_rate: float | None = setting(
        None,
        "learning rate after the burn-in; null: the same as learning_rate. The discriminator's own rate changes by "
        "the same factor",
        above=0,
        maximum=1e9,
    )
    burnt_in_penalty_weight: float | None = setting(
        None, "weight of the penalty after the burn-in; null: the same as penalty_weight", minimum=0, maximum=1e9
    )
    burnt_in_beta2: float | None = setting(
        None, "Adam's beta2 after the burn-in; null: the same as in adam_betas", minimum=0, below=1
    )
    adam_betas: tuple[float, float] = setting((0.0, 0.99), "Adam's beta1, beta2 (MSG-GAN: 0, 0.99)", minimum=0, below=1)
    batch_size: int = setting(16, "images per step, over all processes together", minimum=2, maximum=1 << 16)
    kimg: float = setting(
        1808.0, "length of training, in thousands of real images shown", above=0, maximum=1e9, decides="length"
    )
    epochs: float | None = setting(
        None,
        "length in passes over the training images (over twice as many with data.flip double), in place of kimg; a run "
        "keeps it as kimg",
        above=0,
        maximum=1e9,
        decides="length",
    )
    first_sides: tuple[int, ...] = setting(
        (),
        "smaller images that training begins with, such as [64] or [64, 128]: first, only the blocks up to that size "
        "learn",
        choices=SIDES[1:-1],
        unique=True,
    )
    first_kimg: float = setting(
        60.0, "how many thousand images are shown at each of first_sides", minimum=0.001, maximum=1e9
    )
    first_penalty_power: float = setting(
        0.0,
        "at each of first_sides, the weight of the penalty is multiplied by (side / resolution) to this power; 0: not "
        "changed, 2: in proportion to the pixels",
        minimum=0,
        maximum=8,
    )
    augment_target: float = setting(
        0.0,
        "the share of augmented images of each class is adapted until the mean sign of the discriminator's logits of "
        "real images is this; 0: no augmentation",
        minimum=0,
        below=1,
    )
    shared_latents: bool = setting(True, "the generator's step uses the latents of the discriminator's step")
    ema_ramp: float = setting(
        0.0,
        "the half-life of the averaged generator is at most this share of the images seen (StyleGAN2: 0.05); 0: no "
        "such limit",
        minimum=0,
        maximum=1e9,
    )
    ema_halflife_kimg: float = setting(
        11.08,
        "half-life of the averaged generator (11.08: MSG-GAN's 0.999 per step); 0: no averaging",
        minimum=0,
        maximum=1e9,
    )
    precision: Literal["fp32", "bf16", "auto"] = setting(
        "fp32",
        "arithmetic of the networks; weights are always fp32. auto: bf16 if the device has instructions for it, else "
        "fp32; a CPU without AVX-512 always uses fp32",
    )
    seed: int = setting(0, "seed of weights, order of images, flips and latents", minimum=0, below=1 << 32)
    log_every_kimg: float = setting(0.8, "how often losses are logged", above=0, maximum=1e9, decides="records")
    snapshot_every_kimg: float = setting(
        20.0,
        "how often a checkpoint, a sample grid and quick scores are written",
        above=0,
        maximum=1e9,
        decides="records",
    )
    keep_checkpoints: int = setting(
        2, "number of newest checkpoints to keep; the best one is kept too", minimum=1, decides="records"
    )

    def __post_init__(self) -> None:
        """Check each setting."""
        check_section(self, "training")

    @property
    def total_steps(self) -> int:
        """Steps of `batch_size` images that reach `kimg`."""
        return math.ceil(round(self.kimg * 1000, 6) / self.batch_size)  # 2.007 * 1000 > 2007

    def steps(self, kimg: float) -> int:
        """`kimg` as a number of steps, at least one."""
        return max(1, round(kimg * 1000 / self.batch_size))
