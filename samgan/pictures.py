"""Turn the networks' output into pictures of 8 or 16 bits; and the words, grids and files of `samgan.grids`."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from samgan.grids import GRID_IMAGES, RESEARCH_ONLY, SYNTHETIC, grid_images, image_grid, write_png

__all__ = [
    "GRID_IMAGES",
    "RESEARCH_ONLY",
    "SYNTHETIC",
    "from_uint8",
    "grid_images",
    "image_grid",
    "to_integers",
    "to_uint8",
    "to_uint16",
    "write_png",
]


def from_uint8(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """0..255 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """[-1, 1] to 0..255, rounded; values outside are clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_uint16(images: Float[Tensor, "n c h w"]) -> np.ndarray:
    """[-1, 1] to 0..65535, rounded; values outside are clipped. NumPy, since torch's uint16 supports few operations."""
    return ((images.double() + 1) * 32767.5).round().clamp(0, 65535).numpy().astype(np.uint16)


def to_integers(images: Float[Tensor, "n c h w"], bits: int) -> np.ndarray:
    """`to_uint16` for 16 bits, else `to_uint8`."""
    return to_uint16(images) if bits == 16 else to_uint8(images).numpy()
