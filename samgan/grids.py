"""Pictures as arrays, without torch: words that stand on each, grids, PNG files with a description of what they are."""

import io
import math
from typing import IO

import numpy as np
from PIL import Image, PngImagePlugin

RESEARCH_ONLY = "For research only, not for diagnosis."
"""Shown on every page, card and image of samgan."""
SYNTHETIC = f"SYNTHETIC IMAGE made by a generative model (samgan). Not a patient. {RESEARCH_ONLY}"
"""Written into every synthetic image."""
GRID_IMAGES = 64
"""In a grid of samples, up to 256 px."""


def grid_images(side: int) -> int:
    """The number of images of `side` px in a square grid that people can open: a quarter for twice the side."""
    return min(GRID_IMAGES, max(4, GRID_IMAGES * 256**2 // side**2))


def image_grid(images: np.ndarray, columns: int | None = None, gap: int = 1) -> np.ndarray:
    """Lay out uint8 [n, c, h, w] row by row, with white lines of `gap` px in between: uint8 [c, H, W]."""
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        grid[:, top : top + height, left : left + width] = image
    return grid


def write_png(file: IO[bytes] | io.BytesIO, image: np.ndarray, text: dict[str, str]) -> None:
    """Write uint8 [c, h, w] (c 1 or 3) or uint16 [1, h, w] with `text` in the file's metadata.

    `file` is any binary file. io.BytesIO has no mode and name, so type checking at run time needs it in the annotation.

    Raises:
        ValueError: The image has 16 bits and 3 channels, which the PNG writer does not support.
    """
    if image.dtype == np.uint16 and len(image) != 1:
        raise ValueError("a 16-bit PNG must have 1 channel")
    pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", pnginfo=info)
