"""One decoded radiograph: what every reader gives, and the arithmetic that they share."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Num

from samgan.errors import SamganError

MINIMUM_SIDE = 8
MAXIMUM_PIXELS = 100_000_000  # the largest detectors have 30 million; some mammograms are stitched to 60 million
MAXIMUM_BYTES = 512 * 2**20
"""Of one file, also after inflating it."""
BAND_PIXELS = 1 << 20
"""Large pictures are converted and resized so many pixels at a time, so that no second copy of them is in memory."""
BIT_DEPTHS = (8, 10, 12, 14, 16)
FEW_LEVELS = 16
"""Floating-point values that span less than this are no whole grey levels: in a bit depth they would all be black."""
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as PIL's "L"


class BadImageError(SamganError):
    """An image cannot be used; the message is the reason, without the file's name."""


class NoImageError(BadImageError):
    """The file is whole and holds no image by its kind, such as a DICOM report: nothing is lost without it."""


class Step(NamedTuple):
    """One step from stored values to the picture, for people to read."""

    what: str
    """Such as "rescale: 2 * value - 1024"."""
    low: float
    """Smallest value after the step."""
    high: float


class Scale(NamedTuple):
    """Which stored values are shown as black and as white."""

    low: float
    """Black."""
    high: float
    """White."""
    bits: int
    """Bit depth; 32 for floating point or larger integers."""
    origin: str = "the smallest depth that holds this image's largest value; a set has one depth for all of its images"
    """Where the scale comes from, in words."""


class Scales(NamedTuple):
    """The scales of images whose format does not declare a bit depth; None: each image's own values decide."""

    integers: Scale | None = None
    """Of 16-bit and 32-bit grey images and arrays of integers."""
    floats: Scale | None = None
    """Of images and arrays of floating-point numbers."""

    def of(self, values: Num[np.ndarray, "*shape"]) -> Scale | None:
        """The scale for the type of these values."""
        return self.floats if values.dtype.kind == "f" else self.integers


GUESSED = Scales()
"""Each image's own values decide."""


class Extremes(NamedTuple):
    """The smallest and the largest stored value of an image whose format does not declare a bit depth."""

    low: float
    high: float
    is_float: bool


def reserve_nothing(size: int) -> None:
    """Let any number of bytes be used at once."""


class Reading(NamedTuple):
    """How one file is to be read."""

    channels: int = 1
    """That will be used: 1 (grey) or 3."""
    explain: bool = False
    """Whether to describe every step from stored values to the picture."""
    scales: Scales = GUESSED
    """For images whose format does not declare a bit depth."""
    reserve: Callable[[int], None] = reserve_nothing
    """A reader calls it before it decodes, with the number of bytes that decoding needs; it may wait for its turn."""


class Radiograph(NamedTuple):
    """One decoded image: bones bright, lungs dark, full scale at 1."""

    pixels: Float32[np.ndarray, "c h w"]
    bits: int
    """Bit depth as read; 32 for floating point or larger integers."""
    patient_key: str = ""
    """SHA-256 of DICOM's PatientID, empty if there is none. The ID itself never leaves the reader."""
    study_key: str = ""
    """SHA-256 of DICOM's StudyInstanceUID, empty if there is none."""
    view: str = ""
    """DICOM's ViewPosition, such as PA or AP; empty if there is none."""
    is_synthetic: bool = False
    """Whether the file says that no patient is shown, as those of `samgan sample` do."""
    notes: tuple[str, ...] = ()
    """What was passed over in the file's metadata, a few words each; the manifest names it."""
    steps: tuple[Step, ...] = ()
    """From stored values to the picture, in order; only if they were asked for."""


def to_channels(pixels: Float32[np.ndarray, "c h w"], channels: int) -> Float32[np.ndarray, "d h w"]:
    """Grey from colour (BT.601 luma), or three equal channels, not to be written to, from grey."""
    if pixels.shape[0] == channels:
        return pixels
    if channels == 1:
        return np.tensordot(LUMA_WEIGHTS, pixels, axes=1)[None]
    return np.broadcast_to(pixels, (channels, *pixels.shape[1:]))


def check_size(width: int, height: int) -> None:
    """Raise BadImageError for a picture that is too small to show a chest, or too large for memory."""
    if min(width, height) < MINIMUM_SIDE:
        raise BadImageError(f"{width}x{height} is smaller than {MINIMUM_SIDE}x{MINIMUM_SIDE}")
    if width * height > MAXIMUM_PIXELS:
        raise BadImageError(f"{width}x{height} is more than {MAXIMUM_PIXELS:,} pixels")


def check_not_blank(pixels: Float32[np.ndarray, "c h w"]) -> None:
    """Raise BadImageError for a picture that is the same everywhere."""
    corner = pixels[:, :1, :1]
    if (pixels[:, :1] == corner).all() and (pixels == corner).all():  # the first row alone decides nearly always
        shown = " ".join(f"{255 * value:.0f}" for value in np.unique(corner))
        raise BadImageError(f"every pixel has the value {shown} (0 is black, 255 white): nothing to see")


def bands(height: int, width: int) -> Iterator[slice]:
    """Rows of a picture, about BAND_PIXELS pixels at a time."""
    rows = max(1, BAND_PIXELS // max(1, width))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def scale_for(low: float, high: float, is_float: bool, stored_bits: int | None = None) -> Scale:
    """The scale of values from `low` to `high`.

    Floating-point values within [0, 1] stay as they are; of those within [-1, 1], -1 is black and 1 is white. Those of
    another small range, such as optical densities or standard scores, have their largest value as white. Otherwise
    white is the full scale of the smallest bit depth (of 8, 10, 12, 14, 16 and `stored_bits`) that holds the largest
    value. Negative values are shifted to 0.

    Raises:
        BadImageError: A value is infinite or not a number.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BadImageError("some values are infinite or not a number (NaN): replace them, or leave this image out")
    if is_float and low >= 0 and high <= 1:
        return Scale(0.0, 1.0, 32, "floating-point values within 0 and 1 stay as they are")
    if is_float and low >= -1 and high <= 1:
        return Scale(-1.0, 1.0, 32, "floating-point values within -1 and 1: -1 is black, 1 is white")
    shift = min(low, 0.0)
    if is_float and 0 < high - shift < FEW_LEVELS:
        return Scale(shift, high, 32, f"floating-point values that span less than {FEW_LEVELS}: the largest is white")
    depths = sorted({*BIT_DEPTHS, stored_bits} if stored_bits else BIT_DEPTHS)
    bits = next((depth for depth in depths if high - shift < 2**depth), 32)
    return Scale(shift, shift + 2**bits - 1 if bits < 32 else high, bits)


def apply_scale(values: Num[np.ndarray, "*shape"], scale: Scale) -> Float32[np.ndarray, "*shape"]:
    """(value - low) / (high - low); computed in float64, in parts, so that no float64 copy of a large image is made."""
    scaled = np.empty(values.shape, dtype=np.float32)
    parts = max(1, values.size // BAND_PIXELS)
    axis = int(np.argmax(values.shape)) if values.ndim else 0
    for source, target in zip(np.array_split(values, parts, axis), np.array_split(scaled, parts, axis), strict=True):
        target[...] = (source.astype(np.float64) - scale.low) / (scale.high - scale.low)
    return scaled


def scale_values(
    values: Num[np.ndarray, "*shape"], given: Scale | None = None, stored_bits: int | None = None
) -> tuple[Float32[np.ndarray, "*shape"], Scale]:
    """Scale values to [0, 1] by the given scale; without one, by `scale_for` of these values.

    Raises:
        BadImageError: A value is not finite, or outside the given scale.
    """
    low, high = float(values.min()), float(values.max())
    own = scale_for(low, high, values.dtype.kind == "f", stored_bits)
    if given is not None:
        check_fits(low, high, given)
    scale = given or own
    return apply_scale(values, scale), scale


def check_fits(low: float, high: float, scale: Scale) -> None:
    """Raise BadImageError for values outside a scale."""
    if low < scale.low or high > scale.high:
        value = high if high > scale.high else low
        raise BadImageError(
            f"holds the value {value:,.10g}, outside {scale.bits} bits ({scale.low:,.10g} to {scale.high:,.10g}): "
            "declare more bits, or leave this image out"
        )
