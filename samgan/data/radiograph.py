"""One decoded radiograph: what every reader gives, and the arithmetic that they share."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Num

from samgan.errors import SamganError

MINIMUM_SIDE = 8
MAXIMUM_PIXELS = 200_000_000  # the largest mammography detectors have 30 million
MAXIMUM_BYTES = 512 * 2**20
"""Of one file, also after inflating it."""
BIT_DEPTHS = (8, 10, 12, 14, 16)
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as PIL's "L"


class BadImageError(SamganError):
    """An image cannot be used; the message is the reason, without the file's name."""


class Step(NamedTuple):
    """One step from stored values to the picture, for people to read."""

    what: str
    """Such as "rescale: 2 * value - 1024"."""
    low: float
    """Smallest value after the step."""
    high: float


class Reading(NamedTuple):
    """How one file is to be read."""

    channels: int = 1
    """That will be used: 1 (grey) or 3."""
    explain: bool = False
    """Whether to describe every step from stored values to the picture."""


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
    """Grey from colour (BT.601 luma), or three equal channels from grey."""
    if pixels.shape[0] == channels:
        return pixels
    if channels == 1:
        return np.tensordot(LUMA_WEIGHTS, pixels, axes=1)[None]
    return np.repeat(pixels, channels, axis=0)


def check_size(width: int, height: int) -> None:
    """Raise BadImageError for a picture that is too small to show a chest, or too large for memory."""
    if min(width, height) < MINIMUM_SIDE:
        raise BadImageError(f"{width}x{height} is smaller than {MINIMUM_SIDE}x{MINIMUM_SIDE}")
    if width * height > MAXIMUM_PIXELS:
        raise BadImageError(f"{width}x{height} is more than {MAXIMUM_PIXELS:,} pixels")


def full_scale_of(
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
