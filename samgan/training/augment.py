"""Augmentation of all that the discriminator sees, as much of it as over-fitting asks for.

A discriminator that knows its few training images by heart tells the generator nothing but how to copy them. So it gets
to see real and generated images only through random changes, the same kinds and shares of both. As long as most images
pass unchanged, the generator can match the real ones in no other way than without them: the changes do not leak.

Source: Karras et al. 2020 (ADA), sections 2 and 3; Zhao et al. 2020 (DiffAugment).
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from samgan.devices import to_device

Pyramid = list[Tensor]
CHANGES = 7
"""Random numbers per image: flip, enlarge, turn, shift across, shift down, brightness, contrast."""
# Radiographs differ in these more than a little; a patient that is turned further than this would be taken again.
MAX_ENLARGE = math.log(1.25)
MAX_TURN = math.radians(12)
MAX_SHIFT = 0.125  # of the side
MAX_BRIGHTNESS = 0.2  # of images in [-1, 1]
MAX_CONTRAST = math.log(1.5)
MAX_PROBABILITY = 0.8  # from about here on, changes leak (ADA, section 3.1)


def augment(pyramid: Pyramid, uniform: Float[Tensor, "n 7"], probability: float | Float[Tensor, " n"]) -> Pyramid:
    """Flip, enlarge, turn, shift, brighten and stretch each image, each with `probability`; differentiable.

    Every scale of an image is changed alike: a pyramid of an image stays one, up to interpolation. What a turn or shift
    brings in from outside is the image mirrored at its edge.

    Args:
        pyramid: Images [n, channels, side, side] of every scale, around [-1, 1].
        uniform: Random numbers in [0, 1); below `probability` the change is made, and how far it lies below says how
            strongly.
        probability: Of each change, of all images or of each; the number 0 returns the pyramid itself.
    """
    if isinstance(probability, Tensor):
        probability = probability[:, None]
    elif probability <= 0:
        return pyramid
    # Uniform in [-1, 1] where the change is made; 0, which changes nothing, where it is not.
    strength = torch.where(uniform < probability, 2 * uniform / probability - 1, 0).T
    flip, enlarge, turn, across, down, brightness, contrast = strength
    mirror = torch.where(flip < 0, -1.0, 1.0)
    scale, angle = torch.exp(-MAX_ENLARGE * enlarge), MAX_TURN * turn
    cos, sin = scale * angle.cos(), scale * angle.sin()
    # From where in [-1, 1]^2 a pixel of the result is taken: half a side is 1.
    shifts = 2 * MAX_SHIFT * across, 2 * MAX_SHIFT * down
    matrix = torch.stack([mirror * cos, -mirror * sin, shifts[0], sin, cos, shifts[1]], dim=1).view(-1, 2, 3)
    gain = torch.exp(MAX_CONTRAST * contrast).view(-1, 1, 1, 1)
    offset = (MAX_BRIGHTNESS * brightness).view(-1, 1, 1, 1)
    moved = (strength[:5] != 0).any(dim=0).view(-1, 1, 1, 1)

    def change(images: Tensor) -> Tensor:
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        grid = F.affine_grid(matrix.to(images.dtype), list(images.shape), align_corners=False)
        there = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        return torch.where(moved, there, images) * gain + offset

    return [change(images) for images in pyramid]


class AdaptiveProbability:
    """The probability of `augment` that keeps a discriminator from over-fitting, of each class by itself.

    Over-fitting is measured by the mean sign of the logits of real images: 0 for a discriminator that cannot tell them,
    1 for one that knows each. Under a relativistic or Wasserstein loss, where logits have no zero, the middle between
    the mean logits of real and of generated images is taken off first, of each class its own. Every `EVERY` steps the
    probability goes up if the mean of these steps is above `target`, else down. A discriminator may know a small class
    by heart and a large one not at all: their mean would say nothing of either.

    Args:
        target: The mean sign that is aimed at; 0: the probability stays 0.
        classes: Classes that the discriminator is told of; 0: it is told of none.

    Source: Karras et al. 2020 (ADA), section 3.2, r_t; there with a target of 0.6 and 500 kimg, one kind of loss, and
        one probability whatever the class.
    """

    EVERY = 16
    KIMG = 100.0  # thousands of images, of all classes, that the probability takes from 0 to 1 at the fastest

    def __init__(self, target: float, classes: int = 0) -> None:
        self.target = target
        self.values = [0.0] * max(classes, 1)
        self._begin()

    def _begin(self) -> None:
        self._steps = 0
        self._sums = torch.zeros(2, len(self.values))  # signs, and images they are of

    def of(self, labels: Int[Tensor, " n"] | None) -> float | Float[Tensor, " n"]:
        """The probability for images of these classes; a number where it is the same for all."""
        if labels is None or len(set(self.values)) == 1:
            return self.values[0]
        return to_device(torch.tensor(self.values), labels.device)[labels]

    def update(self, signs: Float[Tensor, " n"], labels: Int[Tensor, " n"] | None) -> None:
        """Take in the signs of one step; they are read from the device in every `EVERY`-th step alone."""
        if not self.target:
            return
        place = torch.zeros_like(signs, dtype=torch.long) if labels is None else labels
        of_class = (place[:, None] == torch.arange(len(self.values), device=signs.device)).float()
        found = torch.stack([signs.detach().float() @ of_class, of_class.sum(dim=0)])
        self._sums = self._sums.to(signs.device) + found
        self._steps += 1
        if self._steps == self.EVERY:
            signs_of, counts = self._sums.tolist()
            change = sum(counts) / (1000 * self.KIMG)  # a small class, sooner known by heart, must not wait longer
            for label, (sign, count) in enumerate(zip(signs_of, counts, strict=True)):
                if count:
                    step = math.copysign(change, sign / count - self.target)
                    self.values[label] = min(max(self.values[label] + step, 0.0), MAX_PROBABILITY)
            self._begin()

    def state_dict(self) -> dict[str, Any]:
        """Plain data that `load_state_dict` reads."""
        return {
            "values": list(self.values),
            "steps": self._steps,
            "sums": self._sums.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        if "values" not in state:  # an earlier version had one value for all classes
            self.values = [state["value"]] * len(self.values)
            self._begin()
        else:
            self.values, self._steps, self._sums = list(state["values"]), state["steps"], torch.tensor(state["sums"])
