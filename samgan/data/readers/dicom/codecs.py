"""Which program decodes which compressed pixels; JPEG lossless, 12-bit JPEG and JPEG-LS by imagecodecs.

imagecodecs (libjpeg-turbo and CharLS) is here because it refuses damaged pictures: gdcm, which pydicom takes by itself,
ends the whole process on some of them. It is added to pydicom as a decoder of the name `PLUGIN`; pydicom calls
`is_available`, `DECODER_DEPENDENCIES` and `decode_frame`.
"""

import functools
import threading
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt

from samgan.data.readers.radiograph import BadImageError

JPEG_12_BIT = "1.2.840.10008.1.2.4.51"
JPEG = (JPEG_12_BIT, "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
"""JPEG Extended, and both kinds of JPEG Lossless."""
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
DECODER_DEPENDENCIES = {syntax: ("imagecodecs>=2024.12.30",) for syntax in (*JPEG, *JPEG_LS)}
PLUGIN = "imagecodecs"
PLUGINS = (PLUGIN, "pylibjpeg", "pillow", "pydicom", "pyjpegls")
"""Of pydicom's decoders, those that end no process on damaged pictures, the preferred one first. Not gdcm."""
END = b"\xff\xd9"
TAIL = b"\x55" * 64
"""What stands for the bytes behind a JPEG picture, to see whether they count; holds no marker."""
LOCK = threading.Lock()


class Decoder(NamedTuple):
    """What decodes a transfer syntax."""

    decoder: Any
    """pydicom.pixels.decoders.base.Decoder."""
    plugin: str
    """Name of the program that it is to use; empty if it needs none."""


def find_decoder(syntax: str) -> Decoder:
    """Find what decodes a compressed transfer syntax.

    Raises:
        BadImageError: nothing that is installed does.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    name = UID(syntax).name
    try:
        decoder = get_decoder(UID(syntax))
    except NotImplementedError:
        raise BadImageError(f"no decoder for DICOM {name}: export it again as Explicit VR Little Endian") from None
    with LOCK:  # pydicom refuses a name twice
        _add_plugin()
    plugin = next((plugin for plugin in PLUGINS if plugin in decoder.available_plugins), None)
    if plugin is None:
        wanted = [item for plugin in PLUGINS for item in decoder.missing_dependencies if item.startswith(plugin)]
        missing = wanted[0] if wanted else "nothing that is safe decodes it"
        raise BadImageError(f"no decoder for DICOM {name}: pip install 'samgan[dicom]' ({missing})")
    return Decoder(decoder, plugin)


@functools.cache
def _add_plugin() -> None:
    """Make imagecodecs known to pydicom, once in a process."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    for syntax in DECODER_DEPENDENCIES:
        get_decoder(UID(syntax)).add_plugin(PLUGIN, (__name__, "decode_frame"))


def is_available(syntax: str) -> bool:
    """Tell whether imagecodecs is installed, with a libjpeg that knows JPEG of all depths."""
    try:
        import imagecodecs
    except ImportError:
        return False
    return bool(imagecodecs.JPEGLS.available if syntax in JPEG_LS else getattr(imagecodecs.JPEG8, "all_precisions", 0))


def decode_frame(frame: bytes, runner: Any) -> bytes:
    """Decode one frame for pydicom's DecodeRunner.

    Raises:
        ValueError: damaged, or of another size than the DICOM attributes say.
    """
    words = decode_jpeg_ls(frame) if runner.transfer_syntax in JPEG_LS else decode_jpeg(frame, runner.samples_per_pixel)
    expected = (runner.rows, runner.columns) + (3,) * (runner.samples_per_pixel == 3)
    if words.shape != expected:
        raise ValueError(f"expected a picture of {list(expected)}, found {list(words.shape)}")
    runner.set_option("bits_allocated", 8 * words.itemsize)
    runner.set_option("planar_configuration", 0)
    return words.tobytes()


def decode_jpeg(frame: bytes, samples: int) -> UInt[np.ndarray, "h w *c"]:
    """Decode JPEG of 2 to 16 bits, lossless or not; colours stay in the colour space they are stored in.

    libjpeg fills what is missing at the end of a picture with flat grey, and warns, which imagecodecs does not pass on.
    So the picture is decoded twice, with different bytes behind it: these change nothing unless something is missing.

    Raises:
        ValueError: damaged, or it ends too early.
    """
    import imagecodecs

    # from one colour space to the same: DICOM's attributes tell which it is
    space = "RGB" if samples == 3 else "GRAYSCALE"
    try:
        words = imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace=space)
        body = frame[: frame.rindex(END)] if END in frame else frame
        other = imagecodecs.jpeg8_decode(body.rstrip(b"\xff") + TAIL, colorspace=space, outcolorspace=space)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    if not np.array_equal(words, other):
        raise ValueError("the JPEG data ends before the last pixel")
    return words


def decode_jpeg_ls(frame: bytes) -> UInt[np.ndarray, "h w *c"]:
    """Decode JPEG-LS of 2 to 16 bits.

    Raises:
        ValueError: damaged.
    """
    import imagecodecs

    try:
        return imagecodecs.jpegls_decode(frame)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
