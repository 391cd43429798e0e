"""Read DICOM: from stored values to what a viewer shows."""

import hashlib
import io
from typing import Any

import numpy as np

from samgan.data.radiograph import BadImageError, Radiograph, Reading, check_size, full_scale_of


def is_dicom(data: bytes) -> bool:
    """Tell whether the bytes begin with DICOM's 128-byte preamble and magic word."""
    return data[128:132] == b"DICM"


def read_dicom(data: bytes, reading: Reading) -> Radiograph:
    """Apply modality LUT, then VOI LUT, then invert MONOCHROME1."""
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
    from pydicom.uid import JPEGExtended12Bit

    dataset = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in dataset:
        raise BadImageError("DICOM without pixel data")
    check_size(int(dataset.Columns), int(dataset.Rows))
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
        pixels, bits = full_scale_of(apply_color_lut(stored, dataset))
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
            pixels, bits = full_scale_of(values, stored_bits=bits)
        if photometric == "MONOCHROME1":
            pixels = 1 - pixels
        pixels = pixels[None]
    return Radiograph(
        pixels,
        bits,
        patient_key=_hashed(dataset.get("PatientID")),
        study_key=_hashed(dataset.get("StudyInstanceUID")),
        is_synthetic=dataset.get("SyntheticData") == "YES",
    )


def _hashed(name: Any) -> str:
    words = str(name or "").strip()
    return hashlib.sha256(words.encode()).hexdigest() if words else ""


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
