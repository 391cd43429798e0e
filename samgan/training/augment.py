"""Augment everything that the discriminator sees, more or less often depending on how much it over-fits.

A discriminator that has memorised a small training set teaches the generator only to copy it. So it sees real and
generated images only after random changes, of the same kinds and at the same rate for both. As long as most images
stay unchanged, the generator can match the real images only by making images without the changes: they do not leak.

Source: Karras et al. 2020 (ADA), sections 2 and 3; Zhao et al. 2020 (DiffAugment).
"""

import math
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from samgan.devices import to_device
from samgan.kernels import has_kernels, run

Pyramid = list[Tensor]
CHANGES = 7
"""Random numbers per image: flip, enlarge, turn, shift across, shift down, brightness, contrast."""
# Radiographs vary in all of these; an image with a patient turned further than this would be taken again.
MAX_ENLARGE = math.log(1.25)
MAX_TURN = math.radians(12)
MAX_SHIFT = 0.125  # of the side
MAX_BRIGHTNESS = 0.2  # of images in [-1, 1]
MAX_CONTRAST = math.log(1.5)
MAX_PROBABILITY = 0.8  # changes leak from about here on (ADA, section 3.1)


def augment(pyramid: Pyramid, uniform: Float[Tensor, "n 7"], probability: float | Float[Tensor, " n"]) -> Pyramid:
    """Flip, enlarge, rotate, shift, and change brightness and contrast of each image, each with `probability`.

    An image is mirrored with half of `probability`, as in ADA: most are not, so the side of the heart can be learnt.

    Differentiable. Every scale of an image is changed in the same way, so the scales still show one image, up to
    interpolation. Where a rotation or shift reaches beyond the edge, the image is mirrored.

    Args:
        pyramid: Images [n, channels, side, side] of every scale, around [-1, 1].
        uniform: Random numbers in [0, 1). A number below `probability` makes the change; how far below sets its
            strength.
        probability: Probability of each change, one for all images or one per image. The number 0 returns the pyramid
            itself.
    """
    if isinstance(probability, Tensor):
        probability = probability[:, None]
    elif probability <= 0:
        return pyramid
    # Uniform in [-1, 1] where the change is made, else 0, which changes nothing.
    strength = torch.where(uniform < probability, 2 * uniform / probability - 1, 0).T
    flip, enlarge, turn, across, down, brightness, contrast = strength
    mirror = torch.where(flip < 0, -1.0, 1.0)
    scale, angle = torch.exp(-MAX_ENLARGE * enlarge), MAX_TURN * turn
    cos, sin = scale * angle.cos(), scale * angle.sin()
    # The position in [-1, 1]^2 that a pixel of the result is taken from: half a side is 1.
    shifts = 2 * MAX_SHIFT * across, 2 * MAX_SHIFT * down
    matrix = torch.stack([mirror * cos, -mirror * sin, shifts[0], sin, cos, shifts[1]], dim=1).view(-1, 2, 3)
    gain = torch.exp(MAX_CONTRAST * contrast).view(-1, 1, 1, 1)
    offset = (MAX_BRIGHTNESS * brightness).view(-1, 1, 1, 1)
    moved = (strength[:5] != 0).any(dim=0).view(-1, 1, 1, 1)

    exact = torch.promote_types(pyramid[0].dtype, torch.float32)
    matrix, gain, offset = (one.to(exact) for one in (matrix, gain, offset))
    if has_kernels(pyramid[0], exact):
        return list(_Change.apply(matrix, gain, offset, moved, *(images.to(exact) for images in pyramid)))
    return [_change(images.to(exact), matrix, gain, offset, moved) for images in pyramid]


def _change(
    images: Float[Tensor, "n c h w"],
    matrix: Float[Tensor, "n 2 3"],
    gain: Float[Tensor, "n 1 1 1"],
    offset: Float[Tensor, "n 1 1 1"],
    moved: Bool[Tensor, "n 1 1 1"],
) -> Float[Tensor, "n c h w"]:
    """Take each pixel of the images that are `moved` from where the matrix says, then multiply and add."""
    with torch.autocast(images.device.type, enabled=False):  # bf16 cannot tell one pixel from the next
        grid = _centres(images.shape[-1], images.dtype, images.device) @ matrix.transpose(1, 2)
    grid = grid.view(len(images), *images.shape[2:], 2)
    there = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return torch.addcmul(offset, torch.where(moved, there, images), gain)


class _Change(torch.autograd.Function):
    """`_change` for each scale, by a compiled kernel; only gradients of the images are computed."""

    @staticmethod
    def forward(
        ctx: Any, matrix: Tensor, gain: Tensor, offset: Tensor, moved: Tensor, *pyramid: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(matrix, gain, moved)
        changed = []
        for images in pyramid:
            images = images.contiguous()
            changed.append(torch.empty_like(images))
            run("augment", images.dtype, images, matrix, gain, offset, moved, changed[-1], *images.shape)
        return tuple(changed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        matrix, gain, moved = ctx.saved_tensors
        found = []
        for g in gradients:
            g = g.contiguous()
            found.append(torch.empty_like(g))
            run("augment_backward", g.dtype, g, matrix, gain, moved, found[-1], *g.shape)
        return (None, None, None, None, *found)


@lru_cache(maxsize=64)
def _centres(side: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "pixels 3"]:
    """(x, y, 1) of the centre of each pixel, as `F.affine_grid` has it: an image reaches from -1 to 1."""
    along = (2 * torch.arange(side, dtype=dtype) + 1) / side - 1
    places = torch.stack([along.expand(side, side), along[:, None].expand(side, side), torch.ones(side, side)], dim=2)
    return to_device(places.to(dtype).view(-1, 3), device)


class AdaptiveProbability:
    """The probability of `augment` that keeps a discriminator from over-fitting, adapted for each class separately.

    Over-fitting is measured by the mean sign of the logits of real images: 0 for a discriminator that cannot tell real
    from generated, 1 for one that recognises every real image. Relativistic and Wasserstein losses give logits no
    fixed zero; there, the midpoint between the mean logits of real and of generated images is subtracted first, for
    each class separately. Every `EVERY` steps the probability goes up if the mean over these steps is above `target`,
    else down. Each class has its own probability, since a discriminator may have memorised a small class but not a
    large one, and a mean over both would describe neither.

    Args:
        target: The mean sign to aim for; 0 keeps the probability at 0.
        classes: Number of classes of a conditional discriminator; 0 for an unconditional one.

    Source: Karras et al. 2020 (ADA), section 3.2, r_t; there with a target of 0.6 and 500 kimg, one kind of loss, and
        one probability for all classes.
    """

    EVERY = 16
    KIMG = 100.0  # thousands of images, over all classes, in which the probability can rise from 0 to 1

    def __init__(self, target: float, classes: int = 0) -> None:
        self.target = target
        self.values = [0.0] * max(classes, 1)
        self._begin()

    def _begin(self) -> None:
        self._steps = 0
        self._sums = torch.zeros(2, len(self.values))  # sums of signs, and numbers of images

    def of(self, labels: Int[Tensor, " n"] | None) -> float | Float[Tensor, " n"]:
        """The probability for images of these classes; a single number if it is the same for all."""
        if labels is None or len(set(self.values)) == 1:
            return self.values[0]
        return to_device(torch.tensor(self.values), labels.device)[labels]

    def update(self, signs: Float[Tensor, " n"], labels: Int[Tensor, " n"] | None) -> None:
        """Add the signs of one step; they are read from the device only in every `EVERY`-th step."""
        if not self.target:
            return
        place = torch.zeros_like(signs, dtype=torch.long) if labels is None else labels
        of_class = (place[:, None] == torch.arange(len(self.values), device=signs.device)).float()
        found = torch.stack([signs.detach().float() @ of_class, of_class.sum(dim=0)])
        self._sums = self._sums.to(signs.device) + found
        self._steps += 1
        if self._steps == self.EVERY:
            signs_of, counts = self._sums.tolist()
            change = sum(counts) / (1000 * self.KIMG)  # the same for all: a small class is memorised sooner
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
        """Continue from what `state_dict` returned."""
        if "values" not in state:  # an earlier version had one value for all classes
            self.values = [state["value"]] * len(self.values)
            self._begin()
        else:
            values, steps, sums = list(state["values"]), state["steps"], torch.tensor(state["sums"])
            fits = len(values) == len(self.values) and all(0 <= value <= MAX_PROBABILITY for value in values)
            if not fits or type(steps) is not int or not 0 <= steps < self.EVERY or sums.shape != self._sums.shape:
                raise ValueError("the share of augmented images is not that of these classes")
            self.values, self._steps, self._sums = values, steps, sums
