"""Read DICOM: from stored values to what a viewer shows.

The steps are in the files beside this one: `file` (bytes to attributes), `pixels` and `codecs` (decoding), `settings`
(which steps a file asks for) and `display` (their arithmetic).
"""

import functools
import hashlib
import json
import re

import numpy as np
from jaxtyping import Float32, Float64, UInt

from samgan.data.readers.dicom.attributes import Attributes
from samgan.data.readers.dicom.display import by_word, show, stored_range, stored_values
from samgan.data.readers.dicom.file import HEADLESS_REMEDY, DicomFile, is_dicom, open_dicom
from samgan.data.readers.dicom.pixels import PixelFormat, decode, read_format
from samgan.data.readers.dicom.settings import fit_depth, note_darkness, read_display
from samgan.data.readers.dicom.tables import Table, depth_of, read_table
from samgan.data.readers.radiograph import BadImageError, NoImageError, Radiograph, Reading, Step
from samgan.grids import SYNTHETIC

__all__ = ["is_dicom", "open_dicom", "read_dicom"]

MADE_BY_SAMGAN = SYNTHETIC.partition(".")[0]
"""How the comment of a sample begins."""
RGB_FROM_YBR = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], dtype=np.float32)
"""ITU-R BT.601, full range, as DICOM PS3.3, C.7.6.3.1.2 has it."""


def read_dicom(data: bytes, reading: Reading) -> Radiograph:
    """Apply modality LUT, then VOI LUT or window, then polarity; see `display.show`.

    An attribute that is empty or makes no sense counts as absent, and is named in the notes.

    Raises:
        BadImageError: without pixels, cut short, several frames, no decoder, or an attribute is missing without which
            the picture cannot be told.
    """
    file = open_dicom(data)
    little_endian = bool(file.dataset.original_encoding[1])
    attributes = Attributes(file.dataset, list(file.notes), little_endian)
    if file.pixels is None:
        raise _without_pixels(file, attributes)
    if file.pixels.keyword != "PixelData":
        raise BadImageError(f"DICOM with {file.pixels.keyword}, no radiograph: expected PixelData of whole numbers")
    declared = read_format(attributes)
    reading.reserve(16 * declared.columns * declared.rows)  # the file's bytes, the words and the shades, colour too
    words, pixels = decode(file.pixels, file.syntax, declared, attributes)
    steps: tuple[Step, ...] = ()
    if pixels.photometric == "PALETTE COLOR":
        shades, bits = _from_palette(words, pixels, attributes)
        steps = _colour_steps(reading, f"palette of {bits} bits", shades)
    elif pixels.samples == 3:
        shades, bits = _from_colour(words, pixels), pixels.stored
        steps = _colour_steps(reading, f"{pixels.photometric} of {bits} bits, divided by {2**bits - 1}", shades)
    else:
        display = fit_depth(words, read_display(attributes, pixels), attributes)
        grey, steps = show(words, display, reading.explain)
        note_darkness(grey, display, attributes)
        shades, bits = grey[None], display.pixels.stored
    return Radiograph(
        shades,
        bits,
        _hash(attributes, "PatientID"),
        _hash(attributes, "StudyInstanceUID"),
        _view(attributes),
        _is_synthetic(attributes),
        tuple(attributes.notes),
        steps,
    )


def _without_pixels(file: DicomFile, attributes: Attributes) -> BadImageError:
    """Say what the file is, if it says so itself."""
    from pydicom.uid import UID

    if file.is_cut:
        return BadImageError("truncated: the file ends before its pixels")
    kind = UID(attributes.text("SOPClassUID"))
    if kind.name != kind:  # a name that the standard has
        error = BadImageError if "Image" in kind.name else NoImageError  # archives export reports beside images
        return error(f"DICOM without pixel data ({kind.name}); expected a radiograph")
    if len(file.dataset) == 0 and "no DICOM preamble" in file.notes:
        return BadImageError(f"damaged DICOM without a preamble: {HEADLESS_REMEDY}")
    return BadImageError("DICOM without pixel data; expected a radiograph")


def _from_palette(
    words: UInt[np.ndarray, "h w"], pixels: PixelFormat, attributes: Attributes
) -> tuple[Float32[np.ndarray, "c h w"], int]:
    """Look the colours up; full scale is what the tables can reach (DICOM PS3.3, C.7.6.3.1.5)."""
    if words.itemsize > 2:
        raise BadImageError(f"PALETTE COLOR of {pixels.allocated} bits; expected 8 or 16")
    if "SegmentedRedPaletteColorLookupTableData" in attributes.dataset:
        tables = _segmented_palette(attributes, pixels)
    else:
        low, high = stored_range(pixels)
        names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
        tables = [table for name in names if (table := read_table(attributes, low, high, name))]
    if len(tables) != 3:
        raise BadImageError("PALETTE COLOR without a usable palette")
    bits = max(table.bits for table in tables)

    def shades(words: UInt[np.ndarray, "*n"], table: Table) -> Float64[np.ndarray, "*n"]:
        return table.apply(stored_values(words, pixels)) / (2**bits - 1)

    return np.stack([by_word(words, functools.partial(shades, table=table)) for table in tables]), bits


def _segmented_palette(attributes: Attributes, pixels: PixelFormat) -> list[Table]:
    """Let pydicom expand a palette that is stored in segments (DICOM PS3.3, C.7.9.2)."""
    from pydicom.pixels import apply_color_lut

    low, high = stored_range(pixels)
    colours = apply_color_lut(np.arange(low, high + 1), attributes.dataset)
    declared = attributes.numbers("RedPaletteColorLookupTableDescriptor")[-1]
    bits = depth_of(int(colours.max()), int(declared))
    return [Table(colour.astype(np.uint16), low, bits) for colour in colours.T]


def _from_colour(words: UInt[np.ndarray, "h w 3"], pixels: PixelFormat) -> Float32[np.ndarray, "c h w"]:
    """Scale each channel by what it can be, and convert YBR to RGB."""
    top = 2**pixels.stored - 1
    shades = by_word(words.transpose(2, 0, 1), lambda each: stored_values(each, pixels) / top)
    if pixels.photometric.startswith("YBR_FULL"):
        shades[1:] -= np.float32(2 ** (pixels.stored - 1) / top)
        for row in range(shades.shape[1]):  # in place
            shades[:, row] = RGB_FROM_YBR @ shades[:, row]
        np.clip(shades, 0, 1, out=shades)
    return shades


def _colour_steps(reading: Reading, what: str, shades: Float32[np.ndarray, "c h w"]) -> tuple[Step, ...]:
    return (Step(what, float(shades.min()), float(shades.max())),) if reading.explain else ()


def _hash(attributes: Attributes, keyword: str) -> str:
    """SHA-256 of an identifier; of its bytes if its character set cannot be told."""
    if keyword in attributes.dataset:
        raw = None
        try:
            raw = attributes.dataset.get_item(keyword).value
            identifier = str(attributes.dataset[keyword].value or "").strip(" \0\t\r\n").encode()
        except Exception:  # pydicom raises nearly anything on damaged values
            identifier = raw.strip(b" \0") if isinstance(raw, bytes) else b""
            attributes.note("text in an unknown character set: taken as it is")
        if identifier:
            return hashlib.sha256(identifier).hexdigest()
    return ""


def _view(attributes: Attributes) -> str:
    view = attributes.text("ViewPosition").upper() if "ViewPosition" in attributes.dataset else ""
    if view and not re.fullmatch(r"[A-Z0-9_ ]{1,16}", view):  # what DICOM's code strings may hold
        attributes.pass_over("unreadable", "ViewPosition")
        return ""
    return view


def _is_synthetic(attributes: Attributes) -> bool:
    """Whether the file says so (DICOM PS3.3, C.12.1), or has SamGAN's own mark."""
    silent = Attributes(attributes.dataset, [], attributes.little_endian)  # most files leave these out, or empty
    if silent.text("SyntheticData").upper() == "YES" or silent.text("ImageComments").startswith(MADE_BY_SAMGAN):
        return True
    described = silent.text("DerivationDescription")
    try:
        mark = json.loads(described[described.index("{") : described.rindex("}") + 1])
    except ValueError:
        return False
    return isinstance(mark, dict) and str(mark.get("Software", "")).startswith("samgan ")
