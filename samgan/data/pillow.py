"""Read PNG, JPEG, TIFF, BMP and WebP with Pillow."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageOps

from samgan.data.radiograph import BadImageError, Radiograph, Reading, check_size, full_scale_of

PIL_FORMATS = (
    "PNG",
    "JPEG",
    "TIFF",
    "BMP",
    "WEBP",
)  # a closed list, so that Pillow's other readers (PostScript, ...) never run
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR_CONFIGURATION = 258, 262, 284  # tags of TIFF
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DEPTH_REMEDY = "save it as 16-bit grey or 8-bit colour"


def read_pillow(data: bytes, reading: Reading) -> Radiograph:
    """Decode one file; a TIFF or PNG of 16-bit grey keeps its depth, everything else has 8 bits."""
    with Image.open(io.BytesIO(data), formats=PIL_FORMATS) as opened:
        check_size(*opened.size)
        if opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1:  # MPO: a JPEG with a preview after it
            raise BadImageError(f"holds {opened.n_frames} frames; expected one radiograph")  # type: ignore[attr-defined]
        deep_colour = _is_deep_colour(opened, data)
        tags: Mapping[int, Any] = opened.tag_v2 if opened.format == "TIFF" else {}  # type: ignore[attr-defined]
        if deep_colour and tags.get(PLANAR_CONFIGURATION) == 2 and opened.info.get("compression") == "raw":
            raise BadImageError(f"16-bit colour TIFF in separate planes, which Pillow reads wrongly: {DEPTH_REMEDY}")
        opened.load()
        is_synthetic = str(opened.info.get("Synthetic", "")).lower() == "true"  # a PNG's text may come after its pixels
        image: Image.Image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I") or image.mode == "F":
        pixels, bits = full_scale_of(np.asarray(image))
        if tags.get(PHOTOMETRIC) == 0:  # white is zero: Pillow inverts 8 bits and fewer, not these
            pixels = 1 - pixels
        return Radiograph(pixels[None], bits, is_synthetic=is_synthetic)
    values = _eight_bit_values(image, reading.channels)
    if deep_colour:
        # Pillow keeps only the high byte. That is exact enough, unless the picture is in the low byte.
        used_bits = 8 + int(values.max()).bit_length()
        if used_bits < 14:
            raise BadImageError(f"16-bit colour or alpha with only {used_bits} bits used: {DEPTH_REMEDY}")
    return Radiograph((values / np.float32(255)).transpose(2, 0, 1), 8, is_synthetic=is_synthetic)


def _is_deep_colour(image: Image.Image, data: bytes) -> bool:
    """Tell whether Pillow reduces 16 bits per channel to 8, as it does for everything but plain grey."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if image.format == "PNG":
        return data[24] == 16  # bit depth in IHDR, always the first chunk
    if image.format == "TIFF":
        return image.tag_v2.get(BITS_PER_SAMPLE, (8,))[0] == 16  # type: ignore[attr-defined]
    return False


def _eight_bit_values(image: Image.Image, channels: int) -> Float32[np.ndarray, "h w c"]:
    """Convert any mode of 8 bits or fewer to grey or RGB in [0, 255]; transparency is composited on black."""
    if channels == 1 and image.mode in ("RGB", "YCbCr"):
        image = image.convert("L")  # the common case, three times faster than with floating point
    if image.has_transparency_data or image.mode == "PA":
        grey = image.mode in ("LA", "La")
        values = np.asarray(image.convert("LA" if grey else "RGBA"), dtype=np.float32)
        return values[..., :-1] * (values[..., -1:] / 255)
    grey = image.mode in ("1", "L")
    return np.atleast_3d(np.asarray(image.convert("L" if grey else "RGB"), dtype=np.float32))
