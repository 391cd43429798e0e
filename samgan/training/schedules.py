"""What changes with the number of images seen: the sides of images, learning rates, the penalty and Adam's beta2."""

import math
from typing import NamedTuple

from samgan.config import Config


def sides_at(config: Config, images_seen: int) -> tuple[int, ...]:
    """The sides of the images that a step after `images_seen` images uses, smallest first.

    Source: Karras et al. 2018 (ProGAN), section 2: training that begins with small images.
    """
    training, sides = config.training, config.network.image_sides
    past = int(images_seen // round(1000 * training.first_kimg, 6))  # 1000 * 4.03 > 4030
    if past >= len(training.first_sides):
        return sides
    return tuple(side for side in sides if side <= training.first_sides[past])


class Scheduled(NamedTuple):
    """What a step uses."""

    rate_factor: float
    """Of the learning rates of both networks."""
    penalty_weight: float
    """In a step with a penalty: its weight, times the number of steps from one penalty to the next."""
    beta2: float


def scheduled(config: Config, images_seen: int) -> Scheduled:
    """What a step uses after `images_seen` images. It does not depend on how long the run will be.

    During the burn-in, a value goes from its first to its last along half a cosine,

        v = first + (last - first) (1 - cos(pi images_seen / burn_in)) / 2,

    and stays there. Besides, learning rates may fall with the square root of the images seen, from a reference on, and
    the penalty may weigh less while training begins with smaller images.

    Source: burn-in: Huang et al. 2024 (R3GAN), appendix; the half-life of its averaged generator grows in the same way,
        for which there is `training.ema_ramp` here. Square root: Karras et al. 2024 (EDM2).
    """
    training = config.training
    share = images_seen / (1000 * training.burn_in_kimg) if training.burn_in_kimg else 1.0
    burnt_in = 0.5 - 0.5 * math.cos(math.pi * min(share, 1.0))

    def between(first: float, last: float | None) -> float:
        return first if last is None else first + (last - first) * burnt_in

    rate_factor = between(training.learning_rate, training.burnt_in_learning_rate) / training.learning_rate
    reference = 1000 * training.rate_decay_kimg
    if reference:
        rate_factor *= max(images_seen / reference, 1.0) ** -0.5
    weight = between(training.penalty_weight, training.burnt_in_penalty_weight)
    weight *= (sides_at(config, images_seen)[-1] / config.network.resolution) ** training.first_penalty_power
    return Scheduled(
        rate_factor, weight * training.penalty_every, between(training.adam_betas[1], training.burnt_in_beta2)
    )
