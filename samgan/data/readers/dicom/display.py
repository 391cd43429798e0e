"""From stored words of a DICOM image to what a viewer shows, in [0, 1].

The steps are described for one word. An image of up to 16 bits has at most 65,536 different words: they go through the
steps once, in float64, and every pixel is looked up in the result.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Num, UInt

from samgan.data.readers.dicom.pixels import PixelFormat
from samgan.data.readers.dicom.tables import Table
from samgan.data.readers.radiograph import Step

BLOCK = 2**20
"""Pixels that are computed at once, so that 60 million of them need little more memory than the result."""


class Padding(NamedTuple):
    """Stored values from `low` to `high` are no part of the picture."""

    low: int
    high: int


class Rescale(NamedTuple):
    """slope * value + intercept."""

    slope: float
    intercept: float


class Window(NamedTuple):
    """The values that are spread from black to white."""

    center: float
    width: float
    function: str
    """LINEAR, LINEAR_EXACT or SIGMOID."""


class Display(NamedTuple):
    """All that lies between a stored word and grey."""

    pixels: PixelFormat
    padding: Padding | None = None
    modality: Rescale | Table | None = None
    voi: Window | Table | None = None
    inverted: bool = False
    """Whether the smallest value is white."""


class Stage(NamedTuple):
    """One step, for all values at once."""

    what: str
    apply: Callable[[Num[np.ndarray, "*shape"]], Float64[np.ndarray, "*shape"]]


def show(
    words: UInt[np.ndarray, "*shape"], display: Display, explain: bool = False
) -> tuple[Float32[np.ndarray, "*shape"], tuple[Step, ...]]:
    """Compute the picture: modality LUT, then VOI LUT or window, then polarity; padding becomes black.

    Without VOI LUT and window, black to white are the smallest and largest value that the pixels can have.

    Args:
        words: as stored, unsigned; at least two axes.
        display: from `read_display`.
        explain: whether to describe the steps.

    Returns:
        Values in [0, 1], 1 being white, and the steps if they were asked for.

    Source:
        DICOM PS3.3, C.7.5.1.1.2 (padding), C.7.6.3.1.2 (polarity), C.11.1 (modality LUT), C.11.2 (VOI LUT).
    """
    steps = _explain(words, display) if explain else ()
    return by_word(words, functools.partial(_shades, display=display)), steps


def by_word(
    words: UInt[np.ndarray, "*shape"], function: Callable[[UInt[np.ndarray, "*n"]], Num[np.ndarray, "*n"]]
) -> Float32[np.ndarray, "*shape"]:
    """Apply a function of one word to all of them, block by block; up to 16 bits through a table of all words."""
    shades = np.empty(words.shape, np.float32)
    table = function(every_word(words)).astype(np.float32) if words.itemsize <= 2 else None
    for index in _blocks(words.shape):
        if table is None:
            shades[index] = function(words[index])
        else:
            np.take(table, words[index], out=shades[index], mode="clip")
    return shades


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[int | slice, ...]]:
    """Parts of an array [h w] or [c h w] that have few pixels each."""
    rows = max(1, BLOCK // shape[-1])
    for plane in np.ndindex(shape[:-2]):
        for start in range(0, shape[-2], rows):
            yield (*plane, slice(start, start + rows))


def every_word(words: UInt[np.ndarray, "*shape"]) -> UInt[np.ndarray, " n"]:
    """All words of this size."""
    return np.arange(2 ** (8 * words.itemsize), dtype=f"u{words.itemsize}")


def stored_values(words: UInt[np.ndarray, "*shape"], pixels: PixelFormat) -> Int64[np.ndarray, "*shape"]:
    """Take the bits that are used, and extend the sign; the others may hold anything (DICOM PS3.5, 8.1.1)."""
    values = (words.astype(np.int64) >> pixels.shift) & (2**pixels.stored - 1)
    if pixels.signed:
        values -= (values >> (pixels.stored - 1)) << pixels.stored
    return values


def stored_range(pixels: PixelFormat) -> tuple[int, int]:
    """Smallest and largest value that can be stored."""
    if pixels.signed:
        return -(2 ** (pixels.stored - 1)), 2 ** (pixels.stored - 1) - 1
    return 0, 2**pixels.stored - 1


def modality_range(pixels: PixelFormat, modality: Rescale | Table | None) -> tuple[float, float]:
    """Smallest and largest value that the pixels can have after the modality LUT."""
    if isinstance(modality, Table):
        return 0.0, float(modality.top)
    low, high = stored_range(pixels)
    if modality is None:
        return float(low), float(high)
    ends = [end * modality.slope + modality.intercept for end in (low, high)]
    return min(ends), max(ends)


def is_padding(
    words: UInt[np.ndarray, "*shape"], values: Int64[np.ndarray, "*shape"], pixels: PixelFormat, padding: Padding
) -> Bool[np.ndarray, "*shape"]:
    """Tell which pixels are padding; limits beyond Bits Stored are compared with the whole word."""
    low, high = stored_range(pixels)
    found = (values >= padding.low) & (values <= padding.high)
    whole = words.astype(np.int64)
    if pixels.signed:
        whole -= (whole >> (8 * words.itemsize - 1)) << (8 * words.itemsize)
    if padding.high > high:
        found |= (whole >= max(padding.low, high + 1)) & (whole <= padding.high)
    if padding.low < low:
        found |= (whole >= padding.low) & (whole <= min(padding.high, low - 1))
    return found


def window_shades(values: Num[np.ndarray, "*shape"], window: Window) -> Float64[np.ndarray, "*shape"]:
    """Spread a window's values over [0, 1].

    Source:
        DICOM PS3.3, C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT).
    """
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        with np.errstate(over="ignore"):  # exp of a large number is infinite, and 1 / infinity is 0
            return 1 / (1 + np.exp(-4 * ((values - center) / width)))
    if window.function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return ((values - center) / width + 0.5).clip(0, 1)


def _stages(display: Display) -> list[Stage]:
    """The steps after the stored value, in order."""
    stages: list[Stage] = []
    modality, voi = display.modality, display.voi
    if isinstance(modality, Table):
        stages.append(Stage(f"modality LUT: {len(modality.entries)} entries from {modality.first}", modality.apply))
    elif modality is not None:
        slope, intercept = modality
        stages.append(Stage(f"rescale: {slope:g} * value + {intercept:g}", lambda values: values * slope + intercept))
    if isinstance(voi, Table):
        what = f"VOI LUT: {len(voi.entries)} entries from {voi.first}, divided by {voi.top}"
        stages.append(Stage(what, lambda values: voi.apply(values) / voi.top))
    elif voi is not None:
        what = f"window {voi.function}: center {voi.center:g}, width {voi.width:g}"
        stages.append(Stage(what, lambda values: window_shades(values, voi)))
    else:
        low, high = modality_range(display.pixels, modality)
        what = f"no window: all that the pixels can be, {low:g} to {high:g}"
        stages.append(Stage(what, lambda values: ((values - low) / (high - low)).clip(0, 1)))
    if display.inverted:
        stages.append(Stage("inverted: the smallest value is white", lambda values: 1 - values))
    return stages


def _shades(words: UInt[np.ndarray, "*shape"], display: Display) -> Float64[np.ndarray, "*shape"]:
    values = stored_values(words, display.pixels)
    shades = values.astype(np.float64)
    for stage in _stages(display):
        shades = stage.apply(shades)
    if display.padding:
        shades = np.where(is_padding(words, values, display.pixels, display.padding), 0.0, shades)
    return shades


def present_words(words: UInt[np.ndarray, "*shape"]) -> UInt[np.ndarray, " n"]:
    """The words that the image holds, each once."""
    if words.itemsize > 2:
        return np.unique(words)
    found = np.zeros(2 ** (8 * words.itemsize), bool)
    for index in _blocks(words.shape):
        found[words[index]] = True
    return every_word(words)[found]


def _explain(words: UInt[np.ndarray, "*shape"], display: Display) -> tuple[Step, ...]:
    """Take the image's own words through the steps, and keep the extremes."""
    pixels, padding = display.pixels, display.padding
    present = present_words(words)
    values = stored_values(present, pixels)
    sign = "signed" if pixels.signed else "unsigned"
    what = f"stored: {pixels.stored} of {pixels.allocated} bits, high bit {pixels.high_bit}, {sign}"
    steps = [_step(what, values)]
    outside = is_padding(present, values, pixels, padding) if padding else np.zeros(len(values), bool)
    if padding:
        values = values[~outside]
        steps.append(_step(f"padding set aside: {padding.low} to {padding.high}", values))
    shades = values.astype(np.float64)
    for stage in _stages(display):
        shades = stage.apply(shades)
        steps.append(_step(stage.what, shades))
    if outside.any():
        steps.append(_step("padding painted black", np.append(shades, 0.0)))
    return tuple(steps)


def _step(what: str, values: Num[np.ndarray, " n"]) -> Step:
    return Step(what, float(values.min()), float(values.max())) if len(values) else Step(what, 0.0, 0.0)
