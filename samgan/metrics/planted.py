"""Changed copies of training images, planted to see which kinds of copy a test finds."""

import math
from collections.abc import Callable

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F


def _blurred(images: Tensor, generator: torch.Generator) -> Tensor:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3, 1)


def _noisy(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + 10 * torch.randn(images.shape, generator=generator)


def _warped(images: Tensor, *, shift: float = 0.0, turn: float = 0.0, zoom: float = 1.0) -> Tensor:
    """Moved right and down by `shift` 64ths of the side, turned by degrees, enlarged."""
    cos, sin = math.cos(math.radians(turn)) / zoom, math.sin(math.radians(turn)) / zoom
    matrix = torch.tensor([[cos, -sin, -2 * shift / 64], [sin, cos, -2 * shift / 64]]).expand(len(images), 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


Change = Callable[[Tensor, torch.Generator], Tensor]
CHANGES: dict[str, Change] = {
    "exact": lambda images, _: images,
    "mirrored": lambda images, _: images.flip(-1),
    "brighter, less contrast": lambda images, _: 0.7 * images + 60,
    "blurred, 3x3 mean": _blurred,
    "noise, sd 10 of 255": _noisy,
    "moved by 1/64 of the side": lambda images, _: _warped(images, shift=1.0),
    "moved by 3/64 of the side": lambda images, _: _warped(images, shift=3.0),
    "turned by 2 degrees": lambda images, _: _warped(images, turn=2.0),
    "turned by 5 degrees": lambda images, _: _warped(images, turn=5.0),
    "enlarged by 5 %": lambda images, _: _warped(images, zoom=1.05),
}
"""What `changed_copies` makes of training images, by name."""


def changed_copies(images: UInt8[Tensor, "n c h w"], change: str, *, seed: int = 0) -> UInt8[Tensor, "n c h w"]:
    """Copies of images as a generator might reproduce them, to see which of them a test finds.

    Args:
        images: the images.
        change: a key of `CHANGES`.
        seed: of the noise.
    """
    changed = CHANGES[change](images.float(), torch.Generator().manual_seed(seed))
    return changed.round().clamp(0, 255).to(torch.uint8)
