"""Read what a DICOM file says of the way from stored values to grey: padding, modality LUT, VOI LUT, polarity."""

import math

import numpy as np
from jaxtyping import Num, UInt

from samgan.data.readers.dicom.attributes import Attributes, name_of
from samgan.data.readers.dicom.display import (
    Display,
    Padding,
    Rescale,
    Window,
    is_padding,
    modality_range,
    present_words,
    stored_range,
    stored_values,
)
from samgan.data.readers.dicom.pixels import PixelFormat
from samgan.data.readers.dicom.tables import Table, read_table

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
NEARLY_ONE_SHADE = "no window, and less than 1/16 of the depth used: nearly one shade"
DETECTOR_DEPTHS = (12, 14)


def read_display(attributes: Attributes, pixels: PixelFormat) -> Display:
    """Read the steps of a grey image; one that is incomplete or senseless is left out, with a note."""
    modality = _read_modality(attributes, pixels)
    low, high = modality_range(pixels, modality)
    return Display(
        pixels,
        _read_padding(attributes, pixels),
        modality,
        _read_voi(attributes, low, high),
        _is_inverted(attributes, pixels.photometric),
    )


def fit_depth(words: UInt[np.ndarray, "*shape"], display: Display, attributes: Attributes) -> Display:
    """Take the depth of the picture where a word was widened to 16 bits only for a padding value.

    A detector of 12 bits that pads with 65535 has to declare 16 bits. Without a window the picture would be shown over
    these, and be black. The padding value tells, whether or not this picture needs any padding.
    """
    pixels, padding = display.pixels, display.padding
    widened = padding is not None and pixels.stored == pixels.allocated == 16
    if padding is None or not widened or display.voi is not None or isinstance(display.modality, Table):
        return display
    present = present_words(words)
    values = stored_values(present, pixels)
    outside = is_padding(present, values, pixels, padding)
    if outside.all():
        return display
    for depth in DETECTOR_DEPTHS:
        narrow = pixels._replace(stored=depth, high_bit=depth - 1)
        low, high = stored_range(narrow)
        beyond = padding.low > high or padding.high < low
        if beyond and low <= values[~outside].min() and values[~outside].max() <= high:
            attributes.note(f"16 bits stored only for the padding: {depth} bits taken")
            return display._replace(pixels=narrow)
    return display


def note_darkness(shades: Num[np.ndarray, "*shape"], display: Display, attributes: Attributes) -> None:
    """Note that an image without a window uses so little of its range that hardly anything can be seen."""
    if display.voi is None and float(shades.max()) - float(shades.min()) < 1 / 16:
        attributes.note(NEARLY_ONE_SHADE)


def _read_padding(attributes: Attributes, pixels: PixelFormat) -> Padding | None:
    """Read Pixel Padding Value and Range Limit, each of either type, US or SS (DICOM PS3.3, C.7.5.1.1.2)."""
    top = 2**pixels.allocated
    first = attributes.whole("PixelPaddingValue", -top // 2, top - 1)
    limit = attributes.whole("PixelPaddingRangeLimit", -top // 2, top - 1)
    if first is None:
        if limit is not None:
            attributes.note("Pixel Padding Range Limit without Pixel Padding Value passed over")
        return None
    ends = [_with_sign(end, pixels) for end in (first, first if limit is None else limit)]
    beyond = 2 ** (pixels.stored - 1) <= ends[0] < 2**pixels.stored
    if limit is None and pixels.signed and beyond:  # the bits of a negative value, without their sign
        ends = [ends[0] - 2**pixels.stored]
    low, high = stored_range(pixels)
    if min(ends) <= low and max(ends) >= high:
        attributes.note("Pixel Padding that is every value passed over")
        return None
    return Padding(min(ends), max(ends))


def _with_sign(value: int, pixels: PixelFormat) -> int:
    """Give a padding value that was written with the other type the sign of the pixels."""
    top = 2**pixels.allocated
    if not pixels.signed:
        return value % top
    return value - top if value >= top // 2 else value


def _read_modality(attributes: Attributes, pixels: PixelFormat) -> Rescale | Table | None:
    """Read the Modality LUT, else slope and intercept (DICOM PS3.3, C.11.1.1)."""
    table = _first_table(attributes, "ModalityLUTSequence", *stored_range(pixels))
    if table is not None:
        if "RescaleSlope" in attributes.dataset:
            attributes.note("Modality LUT and Rescale Slope: the Modality LUT taken")
        return table
    slope, intercept = attributes.number("RescaleSlope"), attributes.number("RescaleIntercept")
    if slope is not None and slope == 0:
        attributes.pass_over("zero", "RescaleSlope")
        slope = None
    if slope is None or intercept is None:
        if slope is not None:
            attributes.note("Rescale Slope without Rescale Intercept passed over")
        elif intercept is not None:
            attributes.note("Rescale Intercept without Rescale Slope passed over")
        return None
    low, high = modality_range(pixels, Rescale(slope, intercept))
    if not low < high or not math.isfinite(high - low):  # too small or too large for floating point
        attributes.pass_over("senseless", "RescaleSlope")
        return None
    return Rescale(slope, intercept)


def _read_voi(attributes: Attributes, low: float, high: float) -> Table | Window | None:
    """Read the VOI LUT, else the window; both are alternatives (DICOM PS3.3, C.11.2.1)."""
    table = _first_table(attributes, "VOILUTSequence", low, high)
    if table is None:
        return _read_window(attributes, low, high)
    if "WindowCenter" in attributes.dataset:
        attributes.note("VOI LUT and window: the VOI LUT taken")
    return table


def _first_table(attributes: Attributes, keyword: str, low: int | float, high: int | float) -> Table | None:
    """Read the first table of a sequence that is complete and shows anything."""
    items = attributes.items(keyword)
    tables = (read_table(item, low, high) for item in items)
    table = next((table for table in tables if table is not None and not table.is_flat), None)
    if items and table is None:
        attributes.pass_over("senseless", keyword)
    elif len(items) > 1:
        attributes.note(f"several items of {name_of(keyword)}: the first that is usable taken")
    return table


def _read_window(attributes: Attributes, low: float, high: float) -> Window | None:
    """Read the first window that is usable (DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3).

    Args:
        attributes: of the image.
        low: smallest value that can come in.
        high: largest value that can come in; of a window that none of them reaches nothing can be seen.
    """
    centers, widths = attributes.numbers_or_gaps("WindowCenter"), attributes.numbers_or_gaps("WindowWidth")
    if not centers or not widths:
        if centers or widths:
            attributes.note("Window Center and Window Width are not both there: passed over")
        return None
    function = attributes.text("VOILUTFunction").upper() or "LINEAR"
    if function not in FUNCTIONS:
        attributes.note("unknown VOI LUT Function: LINEAR taken")
        function = "LINEAR"
    if len(centers) != len(widths):
        attributes.note("Window Center and Window Width differ in their number of values: taken in pairs")
    pairs = zip(centers, widths, strict=False)
    windows = [Window(at, wide, function) for at, wide in pairs if at is not None and wide is not None]
    usable = [window for window in windows if _shows_anything(window, low, high)]
    if not usable:
        attributes.pass_over("senseless", "WindowWidth" if windows else "WindowCenter")
        return None
    if min(len(centers), len(widths)) > 1:
        attributes.note("several windows: the first that is usable taken")
    return usable[0]


def _shows_anything(window: Window, low: float, high: float) -> bool:
    """Whether a window has a width, reaches a value that can come in, and gives these more than one of 256 shades."""
    smallest = 1 if window.function == "LINEAR" else math.ulp(0.0)
    reaches = window.center - window.width / 2 <= high and low <= window.center + window.width / 2
    return smallest <= window.width <= 256 * (high - low) and reaches


def _is_inverted(attributes: Attributes, photometric: str) -> bool:
    """Tell whether the smallest value is white.

    Presentation LUT Shape goes with the polarity (PS3.3, C.7.6.1: IDENTITY with MONOCHROME2, INVERSE with
    MONOCHROME1). Where they contradict each other the shape counts, as in dcmtk, dcm4che and pydicom.
    """
    by_photometric = photometric == "MONOCHROME1"
    shape = attributes.text("PresentationLUTShape").upper()
    if shape not in ("IDENTITY", "INVERSE"):
        if shape:
            attributes.note("unknown Presentation LUT Shape passed over")
        return by_photometric
    if (shape == "INVERSE") != by_photometric:
        attributes.note("Presentation LUT Shape contradicts Photometric Interpretation: the shape taken")
    return shape == "INVERSE"
