"""Turn an image of any size into a square of a given resolution, and normalise its contrast."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from samgan.data.readers.radiograph import bands

FITS = ("crop", "pad", "stretch")


def fit_image(
    pixels: Float32[np.ndarray, "c h w"], resolution: int, fit: str = "crop", normalize: str = "none"
) -> UInt8[np.ndarray, "c r r"]:
    """Resize one image to a square of `resolution` pixels, with antialiasing; round to 8 bits as the last step.

    "crop" takes the largest centred square, "pad" keeps the whole image and adds black bars, "stretch" keeps the whole
    image and changes its proportions. The contrast is normalised after resizing and before the bars are added, which
    would otherwise count as dark anatomy.

    Args:
        pixels: values in [0, 1].
        resolution: side of the result in pixels.
        fit: one of FITS.
        normalize: one of NORMALIZERS.

    Returns:
        The image in [0, 255].
    """
    height, width = pixels.shape[1:]
    side = min(height, width)
    top, left = ((height - side) / 2, (width - side) / 2) if fit == "crop" else (0, 0)
    box = (float(left), float(top), float(width - left), float(height - top))
    size = (resolution, resolution)
    if fit == "pad":
        longest = max(height, width)
        size = (max(1, round(resolution * width / longest)), max(1, round(resolution * height / longest)))
    resized = np.stack([_resize(plane, size, box) for plane in pixels])
    normalized = NORMALIZERS[normalize](resized.clip(0, 1))
    fitted = np.zeros((len(pixels), resolution, resolution), dtype=np.float32)
    top, left = (resolution - size[1]) // 2, (resolution - size[0]) // 2
    fitted[:, top : top + size[1], left : left + size[0]] = normalized
    return np.rint(fitted.clip(0, 1) * 255).astype(np.uint8)


def _resize(
    plane: Float32[np.ndarray, "h w"], size: tuple[int, int], box: tuple[float, float, float, float]
) -> Float32[np.ndarray, "s r"]:
    """Resize the box (left, top, right, bottom) of a plane to `size` (width, height).

    Pillow resizes the rows first and then the columns, and copies the plane for it. So the rows of a large plane are
    resized in bands, which gives the same values without the copies.
    """
    left, top, right, bottom = box
    parts = list(bands(*plane.shape))
    if len(parts) == 1:
        return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS, box=box))
    narrow = np.empty((len(plane), size[0]), dtype=np.float32)
    for part in parts:
        rows = part.stop - part.start
        band = Image.fromarray(plane[part])
        narrow[part] = np.asarray(band.resize((size[0], rows), Image.Resampling.LANCZOS, box=(left, 0, right, rows)))
    return np.asarray(Image.fromarray(narrow).resize(size, Image.Resampling.LANCZOS, box=(0, top, size[0], bottom)))


def _stretch_percentiles(pixels: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c h w"]:
    low, high = np.percentile(pixels, (0.5, 99.5))
    return (pixels - np.float32(low)) / np.float32(high - low) if high > low else pixels


def _equalize_adaptively(pixels: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c h w"]:
    """Contrast-limited adaptive histogram equalisation; in a colour image, of the brightness only."""
    from skimage.exposure import equalize_adapthist

    if pixels.max() <= pixels.min():
        return pixels
    planes = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    equalized = np.atleast_3d(equalize_adapthist(planes)).astype(np.float32)
    return equalized.transpose(2, 0, 1)


NORMALIZERS: dict[str, Callable[[Float32[np.ndarray, "c h w"]], Float32[np.ndarray, "c h w"]]] = {
    "none": lambda pixels: pixels,
    "percentile": _stretch_percentiles,
    "clahe": _equalize_adaptively,
}
"""Functions by name. Each maps an image's values in [0, 1] to new values, which the caller clips to [0, 1]."""
