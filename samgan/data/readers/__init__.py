"""Read one radiograph (PNG, JPEG, TIFF, BMP, WebP, DICOM or a bare array) as grey or colour values in [0, 1].

To add a format, add an entry to `READERS` before the last one, which takes every file that is left. If Pillow reads the
format, add its name to `PIL_FORMATS` and its suffix to the last entry instead.
"""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from samgan.data.readers.dicom import is_dicom, read_dicom
from samgan.data.readers.kinds import AGAIN, name_kind
from samgan.data.readers.metadata import JPEG_MAGIC
from samgan.data.readers.pillow import DEPTH_REMEDY, TIFF_MAGIC, extremes_of_file, may_lack_depth, read_pillow
from samgan.data.readers.radiograph import (
    GUESSED,
    MAXIMUM_PIXELS,
    BadImageError,
    Extremes,
    Radiograph,
    Reading,
    Scales,
    Step,
    check_not_blank,
    check_size,
    reserve_nothing,
    scale_values,
    to_channels,
)
from samgan.errors import one_line

DECODER_LOGGERS = ("pydicom", "pylibjpeg", "openjpeg", "libjpeg", "PIL")
BLOCK_BYTES = 512 * 2**20
"""Pillow stores an image in blocks of this size at most. The C library gives large blocks back to the system when they
are freed. Of Pillow's usual 16 MiB every thread would keep some: 2 GB for twelve threads and 60-megapixel images."""
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
    may_lack_depth: Callable[[bytes], bool] = lambda head: False
    """Tells from the first bytes whether the format may leave open how many bits are used."""
    extremes: Callable[[bytes, Reading], Extremes | None] = lambda data, reading: None
    """Takes all bytes of such a file; gives the stored extremes, or None if the bit depth is declared after all."""


def read_radiograph(
    data: bytes | Shaped[np.ndarray, "..."],
    channels: int = 1,
    *,
    explain: bool = False,
    scales: Scales = GUESSED,
    reserve: Callable[[int], None] = reserve_nothing,
    allow_blank: bool = False,
) -> Radiograph:
    """Decode one file's bytes, or take one array, as values in [0, 1].

    16-bit and 32-bit grey images and arrays do not declare how many of their bits are used. By default that is guessed
    from this one image, so that a 12-bit image saved as a 16-bit PNG does not turn black:

        pixels = values / (2^bits - 1),   bits = the smallest of 8, 10, 12, 14, 16 that holds the image's maximum

    Two exposures of one detector may then differ in brightness. `samgan.data.prepare` gives the `scales` of the whole
    source instead. Pillow reads only the high byte of 16-bit colour and of 16-bit grey with alpha: such an image counts
    as 8-bit, and is refused if it uses too little of its range.

    Args:
        data: the whole file, or an array of numbers [h, w], [h, w, 1] or [h, w, 3].
        channels: 1 (grey, BT.601 luma) or 3.
        explain: whether to describe every step from stored values to the picture.
        scales: which values are black and white in images whose format does not say so.
        reserve: called with the number of bytes that decoding needs, before it begins; may wait.
        allow_blank: whether an image of one value is read too, which no patient gives but a generator may.

    Returns:
        The image, its bit depth, and the hashed DICOM PatientID if the file has one. Broken metadata is passed over,
        and named in its notes.

    Raises:
        BadImageError: it is not an image, damaged, truncated, blank, too small or too large, has several frames, has no
            decoder, or has values outside the given scale.
    """
    reading = Reading(channels, explain, scales, reserve)
    try:
        with strict_decoders():
            if isinstance(data, np.ndarray):
                radiograph = _from_array(data, reading)
            else:
                radiograph = _reader_of(data).read(data, reading)
    except BadImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(f"more than {MAXIMUM_PIXELS:,} pixels") from None
    except Image.UnidentifiedImageError:
        raise BadImageError(_why_unidentified(data)) from None
    except Exception as error:  # decoders raise nearly anything on damaged input: struct.error, KeyError, SyntaxError
        coding = name_kind(data) if isinstance(data, bytes) and data.startswith(JPEG_MAGIC) else ""
        raise BadImageError(coding or f"damaged ({_plainly(error)}): {AGAIN}") from error
    radiograph = radiograph._replace(pixels=to_channels(radiograph.pixels, channels))
    if not allow_blank:
        check_not_blank(radiograph.pixels)
    return radiograph


def lacks_depth(head: bytes | Shaped[np.ndarray, "..."]) -> bool:
    """Tell from a file's first `HEAD_BYTES` bytes, or an array, whether its bit depth may not be declared."""
    if isinstance(head, np.ndarray):
        return head.dtype != np.uint8
    return _reader_of(head).may_lack_depth(head)


def read_extremes(
    data: bytes | Shaped[np.ndarray, "..."], reserve: Callable[[int], None] = reserve_nothing
) -> Extremes | None:
    """The smallest and largest stored value; None if the bit depth is declared, or the image cannot be used."""
    try:
        if isinstance(data, np.ndarray):
            extremes = Extremes(float(data.min()), float(data.max()), data.dtype.kind == "f")
        else:
            with strict_decoders():
                found = _reader_of(data).extremes(data, Reading(reserve=reserve))
            if found is None:
                return None
            extremes = found
    except Exception:  # whoever reads the image for good gives the reason
        return None
    return extremes if np.isfinite([extremes.low, extremes.high]).all() else None


def _plainly(error: Exception) -> str:
    """What a decoder says; its type only if the words alone would not tell that they are a decoder's."""
    words = one_line(error)
    return words.removeprefix("OSError: ") if isinstance(error, OSError) else words


def _reader_of(head: bytes) -> Reader:
    return next(reader for reader in READERS if reader.recognises is None or reader.recognises(head))


def _why_unidentified(data: bytes | Shaped[np.ndarray, "..."]) -> str:
    if isinstance(data, bytes):
        if data.startswith(TIFF_MAGIC):
            return f"damaged TIFF, or one of a depth or compression that is not read here: {DEPTH_REMEDY}, uncompressed"
        if kind := name_kind(data):
            return kind
        if data.startswith(JPEG_MAGIC):
            return f"damaged JPEG: {AGAIN}"
    known = ", ".join(reader.label for reader in READERS)
    return f"not an image (expected {known})"


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
    block_size = Image.core.get_block_size()
    Image.core.set_block_size(BLOCK_BYTES)
    try:
        with warnings.catch_warnings(), _quiet_libraries():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.core.set_block_size(block_size)
        Image.MAX_IMAGE_PIXELS = limit
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Drop what libraries in C, such as libtiff, write to standard error about a file that they do not name.

    They write to descriptor 2, so that is closed off for the block; what Python writes there takes another way. The
    exception that follows such a message has the reason, and the caller names the file.
    """
    if sys.__stderr__ is None:  # closed when Python started, so descriptor 2 may be any file by now
        yield
        return
    try:
        shown, dropped = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # no standard error, or no descriptors left
        yield
        return
    python_stderr = sys.stderr
    is_plain = False
    with contextlib.suppress(Exception):  # in a notebook or a test it is something else, which stays as it is
        is_plain = python_stderr.fileno() == 2
        python_stderr.flush()
    os.dup2(dropped, 2)
    os.close(dropped)
    try:
        if is_plain:
            with open(shown, "w", 1, encoding="locale", errors="backslashreplace", closefd=False) as rerouted:
                sys.stderr = rerouted
                yield
        else:
            yield
    finally:
        sys.stderr = python_stderr
        os.dup2(shown, 2)
        os.close(shown)


def _from_array(values: Shaped[np.ndarray, "..."], reading: Reading) -> Radiograph:
    if values.dtype.kind not in "uif" or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3))):
        raise BadImageError(
            f"expected an array of numbers [h, w], [h, w, 1] or [h, w, 3], found {values.dtype} {list(values.shape)}"
        )
    values = np.atleast_3d(values).transpose(2, 0, 1)
    check_size(values.shape[2], values.shape[1])
    given = None if values.dtype == np.uint8 else reading.scales.of(values)
    pixels, scale = scale_values(values, given)
    if not reading.explain:
        return Radiograph(pixels, scale.bits)
    stored = Step(f"stored: array of {values.dtype}", float(values.min()), float(values.max()))
    words = f"scale: (value - {scale.low:,.10g}) / {scale.high - scale.low:,.10g}, {scale.bits} bits ({scale.origin})"
    return Radiograph(pixels, scale.bits, steps=(stored, Step(words, float(pixels.min()), float(pixels.max()))))


READERS = (
    Reader("DICOM", (".dcm", ".dicom", ".dic", ".ima"), is_dicom, read_dicom),
    Reader(
        "PNG, JPEG, TIFF, BMP or WebP",
        (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp"),
        None,
        read_pillow,
        may_lack_depth,
        extremes_of_file,
    ),
)
"""Tried in this order."""
IMAGE_SUFFIXES = tuple(suffix for reader in READERS for suffix in reader.suffixes)
