"""Read one radiograph (PNG, JPEG, TIFF, BMP, WebP, DICOM or a bare array) as grey or colour values in [0, 1].

To add a format, add an entry to `READERS` before the last one, which takes every file that is left. If Pillow reads the
format, add its name to `PIL_FORMATS` and its suffix to the last entry instead.
"""

import contextlib
import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Num, Shaped
from PIL import Image, ImageOps

from samgan.errors import SamganError, one_line

MINIMUM_SIDE = 8
MAXIMUM_PIXELS = 200_000_000  # the largest mammography detectors have 30 million
MAXIMUM_BYTES = 512 * 2**20
BIT_DEPTHS = (8, 10, 12, 14, 16)
PIL_FORMATS = (
    "PNG",
    "JPEG",
    "TIFF",
    "BMP",
    "WEBP",
)  # a closed list, so that Pillow's other readers (PostScript, ...) never run
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR_CONFIGURATION = 258, 262, 284  # tags of TIFF
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEAD_BYTES = 132
"""Number of bytes at the start of a file that show what it is."""
DEPTH_REMEDY = "save it as 16-bit grey or 8-bit colour"
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as PIL's "L"


class BadImageError(SamganError):
    """An image cannot be used; the message is the reason, without the file's name."""


class Radiograph(NamedTuple):
    """One decoded image: bones bright, lungs dark, full scale at 1."""

    pixels: Float32[np.ndarray, "c h w"]
    bits: int
    """Bit depth as read; 32 for floating point or larger integers."""
    patient_key: str
    """SHA-256 of DICOM's PatientID, empty if there is none. The ID itself never leaves the reader."""


class Reader(NamedTuple):
    """How files of one kind are found and read."""

    label: str
    """Name of the kind, for messages."""
    suffixes: tuple[str, ...]
    """In lower case. A file whose name ends in one of these, in any case, is taken as an image."""
    recognises: Callable[[bytes], bool] | None
    """Tells from a file's first `HEAD_BYTES` bytes whether it is of this kind; None: takes every file that is left."""
    read: Callable[[bytes, int], Radiograph]
    """Takes all bytes of the file, and the number of channels that will be used."""


def read_radiograph(data: bytes | Shaped[np.ndarray, "..."], channels: int = 1) -> Radiograph:
    """Decode one file's bytes, or take one array, as values in [0, 1].

        pixels = values / (2^bits - 1),   bits = the smallest of 8, 10, 12, 14, 16 that holds the image's maximum

    so that a 12-bit image saved as a 16-bit PNG does not turn black. Pillow reads only the high byte of 16-bit colour
    and of 16-bit grey with alpha: such an image counts as 8-bit, and is refused if it uses too little of its range.

    Args:
        data: the whole file, or an array of numbers [h, w], [h, w, 1] or [h, w, 3].
        channels: 1 (grey, BT.601 luma) or 3.

    Returns:
        The image, its bit depth, and the hashed DICOM PatientID if the file has one.

    Raises:
        BadImageError: it is not an image, damaged, truncated, too small or too large, has several frames, or has no
            decoder.
    """
    try:
        with strict_decoders():
            if isinstance(data, np.ndarray):
                radiograph = _from_array(data)
            else:
                radiograph = next(
                    reader for reader in READERS if reader.recognises is None or reader.recognises(data)
                ).read(data, channels)
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
    return radiograph._replace(pixels=_to_channels(radiograph.pixels, channels))


def is_dicom(data: bytes) -> bool:
    """Tell whether the bytes begin with DICOM's 128-byte preamble and magic word."""
    return data[128:132] == b"DICM"


def is_recognised(head: bytes) -> bool:
    """Tell whether the first `HEAD_BYTES` bytes of a file show that it is an image, whatever its name."""
    return any(reader.recognises is not None and reader.recognises(head) for reader in READERS)


@contextlib.contextmanager
def strict_decoders() -> Iterator[None]:
    """Make oversized images an error, and keep the decoders' warnings about odd metadata off the terminal.

    These settings apply to the whole process: if several threads read, enter this block once around all of them. Inside
    it `read_radiograph` does not set them again.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit == MAXIMUM_PIXELS:
        yield
        return
    Image.MAX_IMAGE_PIXELS = MAXIMUM_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _to_channels(pixels: Float32[np.ndarray, "c h w"], channels: int) -> Float32[np.ndarray, "d h w"]:
    if pixels.shape[0] == channels:
        return pixels
    if channels == 1:
        return np.tensordot(LUMA_WEIGHTS, pixels, axes=1)[None]
    return np.repeat(pixels, channels, axis=0)


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MINIMUM_SIDE:
        raise BadImageError(f"{width}x{height} is smaller than {MINIMUM_SIDE}x{MINIMUM_SIDE}")
    if width * height > MAXIMUM_PIXELS:
        raise BadImageError(f"{width}x{height} is more than {MAXIMUM_PIXELS:,} pixels")


def _full_scale(
    values: Num[np.ndarray, "*shape"], stored_bits: int | None = None
) -> tuple[Float32[np.ndarray, "*shape"], int]:
    """Divide by the full scale of the smallest bit depth that holds the maximum; negative values are shifted to 0."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BadImageError("some values are not finite")
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return values.astype(np.float32), 32
    shift = min(low, 0.0)
    depths = sorted({*BIT_DEPTHS, stored_bits} if stored_bits else BIT_DEPTHS)
    bits = next((depth for depth in depths if high - shift < 2**depth), 32)
    full_scale = 2**bits - 1 if bits < 32 else high - shift
    return ((values.astype(np.float64) - shift) / full_scale).astype(np.float32), bits


def _from_array(values: Shaped[np.ndarray, "..."]) -> Radiograph:
    if values.dtype.kind not in "uif" or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3))):
        raise BadImageError(
            f"expected an array of numbers [h, w], [h, w, 1] or [h, w, 3], found {values.dtype} {list(values.shape)}"
        )
    values = np.atleast_3d(values).transpose(2, 0, 1)
    _check_size(values.shape[2], values.shape[1])
    pixels, bits = _full_scale(values)
    return Radiograph(pixels, bits, "")


# PIL


def _from_pillow(data: bytes, channels: int) -> Radiograph:
    with Image.open(io.BytesIO(data), formats=PIL_FORMATS) as opened:
        _check_size(*opened.size)
        if opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1:  # MPO: a JPEG with a preview after it
            raise BadImageError(f"holds {opened.n_frames} frames; expected one radiograph")  # type: ignore[attr-defined]
        deep_colour = _is_deep_colour(opened, data)
        tags: Mapping[int, Any] = opened.tag_v2 if opened.format == "TIFF" else {}  # type: ignore[attr-defined]
        if deep_colour and tags.get(PLANAR_CONFIGURATION) == 2 and opened.info.get("compression") == "raw":
            raise BadImageError(f"16-bit colour TIFF in separate planes, which Pillow reads wrongly: {DEPTH_REMEDY}")
        opened.load()
        image: Image.Image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I") or image.mode == "F":
        pixels, bits = _full_scale(np.asarray(image))
        if tags.get(PHOTOMETRIC) == 0:  # white is zero: Pillow inverts 8 bits and fewer, not these
            pixels = 1 - pixels
        return Radiograph(pixels[None], bits, "")
    values = _eight_bit_values(image, channels)
    if deep_colour:
        # Pillow keeps only the high byte. That is exact enough, unless the picture is in the low byte.
        used_bits = 8 + int(values.max()).bit_length()
        if used_bits < 14:
            raise BadImageError(f"16-bit colour or alpha with only {used_bits} bits used: {DEPTH_REMEDY}")
    return Radiograph((values / np.float32(255)).transpose(2, 0, 1), 8, "")


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


# DICOM


def _from_dicom(data: bytes) -> Radiograph:
    """Apply modality LUT, then VOI LUT, then invert MONOCHROME1."""
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
    from pydicom.uid import JPEGExtended12Bit

    dataset = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in dataset:
        raise BadImageError("DICOM without pixel data")
    _check_size(int(dataset.Columns), int(dataset.Rows))
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise BadImageError(f"multi-frame DICOM ({frames} frames); expected one radiograph")
    _check_decoder(dataset.file_meta.TransferSyntaxUID)
    try:
        stored = pixel_array(dataset)  # colour comes as RGB
    except RuntimeError as error:
        if dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit and "12-bit" in str(error):
            raise BadImageError("DICOM with 12-bit JPEG: to read it, pip install pylibjpeg-libjpeg (GPL)") from None
        raise
    photometric, bits = str(dataset.PhotometricInterpretation), int(dataset.BitsStored)
    if photometric == "PALETTE COLOR":
        pixels, bits = _full_scale(apply_color_lut(stored, dataset))
        pixels = pixels.transpose(2, 0, 1)
    elif stored.ndim == 3:
        pixels = (stored / np.float32(2**bits - 1)).transpose(2, 0, 1)
    else:
        values = apply_modality_lut(stored, dataset)
        low, high = _voi_range(dataset)
        if low < high:
            values = apply_voi_lut(values, dataset)
            pixels = ((values - low) / (high - low)).clip(0, 1).astype(np.float32)
        else:
            pixels, bits = _full_scale(values, stored_bits=bits)
        if photometric == "MONOCHROME1":
            pixels = 1 - pixels
        pixels = pixels[None]
    patient = str(dataset.get("PatientID") or "").strip()
    return Radiograph(pixels, bits, hashlib.sha256(patient.encode()).hexdigest() if patient else "")


def _check_decoder(transfer_syntax: Any) -> None:
    from pydicom.pixels import get_decoder

    if not transfer_syntax.is_compressed:
        return
    try:
        decoder = get_decoder(transfer_syntax)
    except NotImplementedError:
        raise BadImageError(f"no decoder for DICOM {transfer_syntax.name}") from None
    if not decoder.is_available:
        missing = "; ".join(decoder.missing_dependencies)
        raise BadImageError(f"no decoder for DICOM {transfer_syntax.name}: pip install 'samgan[dicom]' ({missing})")


def _voi_range(dataset: Any) -> tuple[float, float]:
    """Return the range of values that the VOI LUT or window gives (DICOM PS3.3 C.11.2); (0, 0) if there is none."""
    if dataset.get("VOILUTSequence"):
        return 0.0, float(2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return 0.0, 0.0
    if dataset.get("ModalityLUTSequence"):
        return 0.0, float(2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    bits = int(dataset.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None:
        return float(low), float(high)
    return low * float(slope) + float(intercept), high * float(slope) + float(intercept)


READERS = (
    Reader("DICOM", (".dcm", ".dicom", ".dic", ".ima"), is_dicom, lambda data, channels: _from_dicom(data)),
    Reader(
        "PNG, JPEG, TIFF, BMP or WebP",
        (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp"),
        None,
        _from_pillow,
    ),
)
"""Tried in this order."""
IMAGE_SUFFIXES = tuple(suffix for reader in READERS for suffix in reader.suffixes)
