"""Read a synthetic image and its mark from DICOM, also after others have stored the file again.

An archive may compress the pixels, write the elements in another order of bytes, or put words of its own around the
Derivation Description. So the mark is looked for anywhere in the texts, and the pixels are compared decoded. What
would show another picture from the same pixels is a fault.
"""

from pathlib import Path
from typing import Any

import numpy as np

from samgan.data.readers.dicom import open_dicom
from samgan.data.readers.dicom.codecs import find_decoder
from samgan.data.readers.radiograph import check_size
from samgan.errors import SamganError
from samgan.grids import SYNTHETIC
from samgan.provenance.mark import Mark, Sample, StoredSample, channels_first, find_entries, is_cut, wrong_description

TEXTS = {"DerivationDescription": "Derivation Description", "ImageComments": "Image Comments"}
"""Attributes in which a mark is looked for, in this order, and their names."""
DISPLAY = {
    "VOILUTSequence": "a VOI LUT",
    "PresentationLUTSequence": "a Presentation LUT",
    "PixelPaddingValue": "a Pixel Padding Value",
    "PixelAspectRatio": "a Pixel Aspect Ratio",
}
"""Attributes that `samgan sample` does not write, and that change how the image is displayed."""
COLOUR = ("RGB", "YBR_RCT", "YBR_FULL", "YBR_FULL_422")
"""Decoded to RGB before the pixels are compared."""


def read_dicom(path: Path) -> list[StoredSample]:
    """The image of a DICOM file with its mark; none if it has no mark of samgan.

    Raises:
        SamganError: the mark is damaged or cut off, there are several frames, or no decoder is installed.

    Source:
        DICOM PS3.3, C.7.6.3 (Image Pixel), C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.9.2 (Overlay Plane).
    """
    import pydicom
    from pydicom.uid import UID

    opened = open_dicom(path.read_bytes())  # not the pixels yet: most files have no mark
    entries = _entries(opened.dataset)
    mark = Mark.from_entries(
        {**entries, "Synthetic": "true" if _word(opened.dataset, "SyntheticData") == "YES" else "no"}
    )
    if mark is None:
        return []
    dataset = pydicom.dcmread(path, force=True)
    dataset.file_meta.setdefault("TransferSyntaxUID", UID(opened.syntax))
    check_size(int(dataset.Columns), int(dataset.Rows))
    values = _pixels(dataset)
    faults = [*wrong_description(entries), *_faults(dataset)]
    if values.dtype.kind == "i":
        values = values.view(values.dtype.str.replace("i", "u"))
        faults.append("Pixel Representation calls its values signed")
    return [StoredSample(Sample(channels_first(values), mark), tuple(faults), tuple(_notes(dataset)))]


def _entries(dataset: Any) -> dict[str, Any]:
    """The mark's entries, wherever they are written; empty if there are none.

    Raises:
        SamganError: only a part of them is left.
    """
    texts = {name: _text(dataset, keyword) for keyword, name in TEXTS.items()}
    for text in texts.values():
        if entries := find_entries(text):
            return entries
    for name, text in texts.items():
        if is_cut(text):
            raise SamganError(
                f"its mark is cut off or damaged: the {name} holds only a part of it, in {len(text)} characters: ask "
                "for the file as it was sampled, since another program stored this one again"
            )
    return {"Description": SYNTHETIC} if SYNTHETIC in texts["Image Comments"] else {}


def _pixels(dataset: Any) -> np.ndarray:
    """The decoded values [h w] or [h w 3]."""
    from pydicom.pixels import pixel_array

    if (frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
        raise SamganError(f"it holds {frames} frames: expected one image")
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = find_decoder(syntax).plugin if syntax.is_compressed else ""
    values: np.ndarray = pixel_array(dataset, decoding_plugin=plugin)
    if values.dtype.kind == "u" and values.itemsize > 1 and int(dataset.BitsStored) == 8 and values.max() < 256:
        values = values.astype(np.uint8)  # stored in wider words
    return values


def _faults(dataset: Any) -> list[str]:
    """What shows another picture than the pixels, or says that the image shows a patient."""
    faults = []
    photometric = _word(dataset, "PhotometricInterpretation")
    is_grey = int(dataset.SamplesPerPixel) == 1
    if photometric == "MONOCHROME1":
        faults.append("Photometric Interpretation MONOCHROME1 shows it inverted")
    elif photometric not in (("MONOCHROME2",) if is_grey else COLOUR):
        faults.append("its Photometric Interpretation shows it in other colours")
    if _word(dataset, "PresentationLUTShape") not in ("", "IDENTITY"):
        faults.append("Presentation LUT Shape shows it inverted")
    rescale = [_numbers(dataset, keyword) for keyword in ("RescaleSlope", "RescaleIntercept")]
    if rescale[0] not in ([], [1.0]) or rescale[1] not in ([], [0.0]) or dataset.get("ModalityLUTSequence"):
        faults.append("Rescale Slope, Rescale Intercept or a Modality LUT changes its values")
    if int(dataset.BitsStored) not in (8, 16) or int(dataset.HighBit) != int(dataset.BitsStored) - 1:
        faults.append("Bits Stored or High Bit hides a part of its values")
    if any(element.tag.group & 0xFF01 == 0x6000 and element.tag.element == 0x3000 for element in dataset):
        faults.append("an overlay is drawn over it")
    if {_text(dataset, "PatientName"), _text(dataset, "PatientID")} != {"SYNTHETIC"}:
        faults.append("its Patient's Name or ID is not SYNTHETIC")
    return faults


def _notes(dataset: Any) -> list[str]:
    """What changes the display only, which a viewer may change as well."""
    notes = []
    bits = int(dataset.BitsStored)
    windows = [_numbers(dataset, keyword) for keyword in ("WindowCenter", "WindowWidth")]
    if int(dataset.SamplesPerPixel) == 1 and windows != [[2.0 ** (bits - 1)], [2.0**bits]]:
        notes.append("its window is not the whole range, which changes the contrast of the display only")
    notes += [f"{name} changes the display only" for keyword, name in DISPLAY.items() if keyword in dataset]
    if _word(dataset, "LossyImageCompression") == "01":
        notes.append("it says that it was compressed with loss")
    return notes


def _text(dataset: Any, keyword: str) -> str:
    """The value as text. Several values are joined again: a backslash may stand in the text itself."""
    value = dataset.get(keyword)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip(" \0")
    several = value is not None and not isinstance(value, str) and hasattr(value, "__iter__") and keyword in TEXTS
    return "\\".join(map(str, value)) if several else str(value or "").strip(" \0")


def _word(dataset: Any, keyword: str) -> str:
    return _text(dataset, keyword).upper()


def _numbers(dataset: Any, keyword: str) -> list[float | str]:
    """The numbers of an attribute; empty if it is absent or empty. What is no number comes as text."""
    value = dataset.get(keyword)
    values = [] if value in (None, "") else [value] if isinstance(value, int | float | str) else list(value)
    try:
        return [float(each) for each in values]
    except (TypeError, ValueError):
        return [str(each) for each in values]
