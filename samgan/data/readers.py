"""Read one radiograph (PNG, JPEG, TIFF, BMP, WebP, DICOM or a bare array) as grey or colour values in [0, 1].

To add a format, add an entry to `READERS` before the last one, which takes every file that is left. If Pillow reads the
format, add its name to `PIL_FORMATS` and its suffix to the last entry instead.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from samgan.data.dicom import is_dicom, read_dicom
from samgan.data.pillow import DEPTH_REMEDY, TIFF_MAGIC, read_pillow
from samgan.data.radiograph import MAXIMUM_BYTES as MAXIMUM_BYTES  # for who reads files
from samgan.data.radiograph import (
    MAXIMUM_PIXELS,
    BadImageError,
    Radiograph,
    Reading,
    check_size,
    full_scale_of,
    to_channels,
)
from samgan.errors import one_line

DECODER_LOGGERS = ("pydicom", "pylibjpeg", "openjpeg", "libjpeg", "PIL")
HEAD_BYTES = 132
"""Number of bytes at the start of a file that show what it is."""


class Reader(NamedTuple):
    """How files of one kind are found and read."""

    label: str
    """Name of the kind, for messages."""
    suffixes: tuple[str, ...]
    """In lower case. A file whose name ends in one of these, in any case, is taken as an image."""
    recognises: Callable[[bytes], bool] | None
    """Tells from a file's first `HEAD_BYTES` bytes whether it is of this kind; None: takes every file that is left."""
    read: Callable[[bytes, Reading], Radiograph]
    """Takes all bytes of the file."""


def read_radiograph(data: bytes | Shaped[np.ndarray, "..."], channels: int = 1, *, explain: bool = False) -> Radiograph:
    """Decode one file's bytes, or take one array, as values in [0, 1].

        pixels = values / (2^bits - 1),   bits = the smallest of 8, 10, 12, 14, 16 that holds the image's maximum

    so that a 12-bit image saved as a 16-bit PNG does not turn black. Pillow reads only the high byte of 16-bit colour
    and of 16-bit grey with alpha: such an image counts as 8-bit, and is refused if it uses too little of its range.

    Args:
        data: the whole file, or an array of numbers [h, w], [h, w, 1] or [h, w, 3].
        channels: 1 (grey, BT.601 luma) or 3.
        explain: whether to describe every step from stored values to the picture.

    Returns:
        The image, its bit depth, and the hashed DICOM PatientID if the file has one.

    Raises:
        BadImageError: it is not an image, damaged, truncated, too small or too large, has several frames, or has no
            decoder.
    """
    reading = Reading(channels, explain)
    try:
        with strict_decoders():
            if isinstance(data, np.ndarray):
                radiograph = _from_array(data)
            else:
                radiograph = next(
                    reader for reader in READERS if reader.recognises is None or reader.recognises(data)
                ).read(data, reading)
    except BadImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(f"more than {MAXIMUM_PIXELS:,} pixels") from None
    except Image.UnidentifiedImageError:
        if isinstance(data, bytes) and data.startswith(TIFF_MAGIC):
            raise BadImageError(f"damaged TIFF, or a TIFF of an unsupported depth: {DEPTH_REMEDY}") from None
        known = ", ".join(reader.label for reader in READERS)
        raise BadImageError(f"not an image (expected {known})") from None
    except Exception as error:  # decoders raise nearly anything on damaged input: struct.error, KeyError, SyntaxError
        raise BadImageError(f"damaged: {one_line(error)}") from error
    return radiograph._replace(pixels=to_channels(radiograph.pixels, channels))


def is_recognised(head: bytes) -> bool:
    """Tell whether the first `HEAD_BYTES` bytes of a file show that it is an image, whatever its name."""
    return any(reader.recognises is not None and reader.recognises(head) for reader in READERS)


@contextlib.contextmanager
def strict_decoders() -> Iterator[None]:
    """Make oversized images an error, and keep off the terminal what decoders say of a file without naming it.

    These settings apply to the whole process: if several threads read, enter this block once around all of them. Inside
    it `read_radiograph` does not set them again.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit == MAXIMUM_PIXELS:
        yield
        return
    loggers = [logging.getLogger(name) for name in DECODER_LOGGERS]
    levels = [logger.level for logger in loggers]
    Image.MAX_IMAGE_PIXELS = MAXIMUM_PIXELS
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _from_array(values: Shaped[np.ndarray, "..."]) -> Radiograph:
    if values.dtype.kind not in "uif" or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3))):
        raise BadImageError(
            f"expected an array of numbers [h, w], [h, w, 1] or [h, w, 3], found {values.dtype} {list(values.shape)}"
        )
    values = np.atleast_3d(values).transpose(2, 0, 1)
    check_size(values.shape[2], values.shape[1])
    pixels, bits = full_scale_of(values)
    return Radiograph(pixels, bits)


READERS = (
    Reader("DICOM", (".dcm", ".dicom", ".dic", ".ima"), is_dicom, read_dicom),
    Reader(
        "PNG, JPEG, TIFF, BMP or WebP",
        (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp"),
        None,
        read_pillow,
    ),
)
"""Tried in this order."""
IMAGE_SUFFIXES = tuple(suffix for reader in READERS for suffix in reader.suffixes)
