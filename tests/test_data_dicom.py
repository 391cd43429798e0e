"""DICOM: from stored bits to grey, in every combination, and every way in which a file can be odd or broken."""

import hashlib
import io
import json
import math
import shutil
import struct
import subprocess
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_windowing, convert_color_space, pixel_array
from pydicom.pixels.decoders import JPEGLSLosslessDecoder
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless
from test_data_readers import GREY, dicom

from samgan.data.fit import fit_image
from samgan.data.readers import HEAD_BYTES, BadImageError, is_recognised, read_radiograph
from samgan.data.readers.dicom import display as dicom_display
from samgan.data.readers.dicom import file as dicom_file
from samgan.pictures import SYNTHETIC

# files, byte by byte


class Element(NamedTuple):
    """One element, as it is to stand in the file."""

    tag: int
    vr: str
    value: bytes


def us(tag, *values, order="<"):
    return Element(tag, "US", struct.pack(f"{order}{len(values)}H", *values))


def ss(tag, *values):
    return Element(tag, "SS", struct.pack(f"<{len(values)}h", *values))


def text(tag, vr, value):
    data = value.encode("latin-1")
    return Element(tag, vr, data + (b"\0" if vr == "UI" else b" ") * (len(data) % 2))


def decimals(tag, *values):
    return text(tag, "DS", "\\".join(f"{value:.10g}" for value in values))


def written(elements, order="<", implicit=False):
    parts = []
    for tag, vr, value in sorted(elements):
        head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
        if implicit:
            head += struct.pack(f"{order}L", len(value))
        elif vr in ("OB", "OW", "SQ", "UN", "OF"):
            head += vr.encode() + struct.pack(f"{order}HL", 0, len(value))
        else:
            head += vr.encode() + struct.pack(f"{order}H", len(value))
        parts.append(head + value)
    return b"".join(parts)


def sequence(tag, elements, order="<", implicit=False):
    item = written(elements, order, implicit)
    return Element(tag, "SQ", struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(item)) + item)


def preamble(syntax="1.2.840.10008.1.2.1"):
    meta = written([text(0x00020010, "UI", syntax)] if syntax else [])
    length = written([Element(0x00020000, "UL", struct.pack("<L", len(meta)))])
    return b"\0" * 128 + b"DICM" + length + meta


PIXEL_DATA = 0x7FE00010
ROWS, COLUMNS, ALLOCATED, STORED, HIGH_BIT, SIGN = (
    0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103,
)  # fmt: skip
SAMPLES, PHOTOMETRIC, FRAMES, PADDING, PADDING_LIMIT = 0x00280002, 0x00280004, 0x00280008, 0x00280120, 0x00280121
CENTER, WIDTH, INTERCEPT, SLOPE, FUNCTION, MODALITY_LUT, VOI_LUT = (
    0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056, 0x00283000, 0x00283010,
)  # fmt: skip
LUT_DESCRIPTOR, LUT_DATA, SHAPE = 0x00283002, 0x00283006, 0x20500020


def elements_of(words, *more, stored=12, high_bit=None, signed=0, photometric="MONOCHROME2", order="<", drop=()):
    """The elements of one grey image; each of `more` replaces one, and those of the tags in `drop` are left out."""
    bits = 8 * words.itemsize
    high_bit = stored - 1 if high_bit is None else high_bit
    elements = [
        text(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.1"),
        text(0x00080018, "UI", "1.2.3"),
        us(SAMPLES, 1, order=order),
        text(PHOTOMETRIC, "CS", photometric),
        us(ROWS, words.shape[0], order=order),
        us(COLUMNS, words.shape[1], order=order),
        us(ALLOCATED, bits, order=order),
        us(STORED, stored, order=order),
        us(HIGH_BIT, high_bit, order=order),
        us(SIGN, signed, order=order),
        Element(PIXEL_DATA, "OW", words.astype(words.dtype.newbyteorder(order)).tobytes()),
    ]
    by_tag = {element.tag: element for element in (*elements, *more)}
    return [element for tag, element in by_tag.items() if tag not in drop]


def file_of(words, *more, **options):
    return preamble() + written(elements_of(words, *more, **options))


RAMP = np.linspace(0, 4095, 32 * 48).round().astype(np.uint16).reshape(32, 48)


# the arithmetic, against the standard's text for one pixel at a time


class Lut(NamedTuple):
    """A look-up table and how it is written."""

    entries: list[int]
    first: int
    declared: int
    vr: str
    packed: bool

    def element(self, tag):
        values = np.array(self.entries, np.uint16)
        data = values.astype(np.uint8).tobytes() if self.packed else values.tobytes()
        data += b"\0" * (len(data) % 2)
        sign = ss if self.first < 0 else us
        descriptor = struct.pack("<H", len(self.entries) % 65536) + sign(0, self.first).value
        descriptor += struct.pack("<H", self.declared)
        return sequence(tag, [Element(LUT_DESCRIPTOR, sign(0, 0).vr, descriptor), Element(LUT_DATA, self.vr, data)])

    def top(self):
        largest = max(self.entries)
        if self.declared < 16:
            return 2**self.declared - 1
        return next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if largest < 2**bits)

    def at(self, value):
        position = round(value) - self.first
        return self.entries[min(max(position, 0), len(self.entries) - 1)]


class Case(NamedTuple):
    """One image and the way to grey that it asks for."""

    words: np.ndarray
    stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None
    modality: tuple[float, float] | Lut | None
    voi: tuple[float, float, str] | Lut | None
    inverted: bool

    def file(self):
        more = []
        if self.padding:
            low, high = self.padding
            number = ss if low < 0 else us
            more += [number(PADDING, low)] + ([number(PADDING_LIMIT, high)] if high != low else [])
        if isinstance(self.modality, Lut):
            more.append(self.modality.element(MODALITY_LUT))
        elif self.modality:
            more += [decimals(SLOPE, self.modality[0]), decimals(INTERCEPT, self.modality[1])]
        if isinstance(self.voi, Lut):
            more.append(self.voi.element(VOI_LUT))
        elif self.voi:
            more += [decimals(CENTER, self.voi[0]), decimals(WIDTH, self.voi[1]), text(FUNCTION, "CS", self.voi[2])]
        photometric = "MONOCHROME1" if self.inverted else "MONOCHROME2"
        return file_of(
            self.words, *more, stored=self.stored, high_bit=self.high_bit, signed=int(self.signed),
            photometric=photometric,
        )  # fmt: skip

    def stored_value(self, word):
        low_bit = self.high_bit - self.stored + 1
        value = sum((word >> (low_bit + bit) & 1) << bit for bit in range(self.stored))
        return value - 2**self.stored if self.signed and value >= 2 ** (self.stored - 1) else value

    def span(self):
        ends = (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1) if self.signed else (0, 2**self.stored - 1)
        if isinstance(self.modality, Lut):
            return 0, self.modality.top()
        if self.modality:
            ends = sorted(end * self.modality[0] + self.modality[1] for end in ends)
        return ends

    def is_padding(self, word):
        if not self.padding:
            return False
        bits = 8 * self.words.itemsize
        whole = word - 2**bits if self.signed and word >= 2 ** (bits - 1) else word
        low, high = self.padding
        largest = 2 ** (self.stored - 1) - 1 if self.signed else 2**self.stored - 1
        smallest = -(2 ** (self.stored - 1)) if self.signed else 0
        beyond = low <= whole <= high and not smallest <= whole <= largest
        return low <= self.stored_value(word) <= high or beyond

    def grey(self, word):
        if self.is_padding(word):
            return 0.0
        x = float(self.stored_value(word))
        if isinstance(self.modality, Lut):
            x = float(self.modality.at(x))
        elif self.modality:
            x = self.modality[0] * x + self.modality[1]
        if isinstance(self.voi, Lut):
            y = self.voi.at(x) / self.voi.top()
        elif self.voi is None:
            low, high = self.span()
            y = (x - low) / (high - low)
        else:
            y = windowed(x, *self.voi)
        return 1 - y if self.inverted else y


def windowed(x, center, width, function):
    """PS3.3 C.11.2.1.2.1 and C.11.2.1.3, with 0 and 1 for the smallest and largest output."""
    if function == "SIGMOID":
        exponent = -4 * (x - center) / width
        return 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0
    if function == "LINEAR_EXACT":
        if x <= center - width / 2:
            return 0.0
        return 1.0 if x > center + width / 2 else (x - center) / width + 0.5
    if x <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if x > center - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (center - 0.5)) / (width - 1) + 0.5


@st.composite
def luts(draw, low, high):
    declared = draw(st.integers(8, 16))
    count = draw(st.integers(2, 300))
    entries = draw(st.lists(st.integers(0, 2**declared - 1), min_size=count, max_size=count))
    entries[:2] = [0, max(1, entries[1])]  # not all equal
    first = draw(st.integers(max(-32768, math.floor(low) - count // 2), min(32767, math.ceil(high))))
    packed = declared == 8 and draw(st.booleans())
    return Lut(entries, first, declared, draw(st.sampled_from(["OB", "OW"] if packed else ["OW", "US"])), packed)


@st.composite
def cases(draw):
    size = draw(st.sampled_from([1, 2, 2, 4]))
    stored = draw(st.integers(2, 8 * size))
    high_bit = draw(st.integers(stored - 1, 8 * size - 1))
    signed = draw(st.booleans())
    seed = draw(st.integers(0, 2**32 - 1))
    words = np.random.default_rng(seed).integers(0, 2 ** (8 * size), (8, 9), dtype=f"u{size}")
    case = Case(words, stored, high_bit, signed, None, None, None, draw(st.booleans()))
    kind = draw(st.sampled_from(["none", "rescale", "lut"]))
    if kind == "rescale":
        slope = draw(st.sampled_from([1, -1, 2, -10, 0.5, -0.25, 0.1, 3.7, -0.001]))
        case = case._replace(modality=(slope, draw(st.sampled_from([0, -1024, 4095, 0.25, -7.5, 30000]))))
    elif kind == "lut":
        case = case._replace(modality=draw(luts(*case.span())))
    low, high = case.span()
    kind = draw(st.sampled_from(["none", "LINEAR", "LINEAR_EXACT", "SIGMOID", "lut"]))
    if kind == "lut" and low < 32000 and high > -32000:
        case = case._replace(voi=draw(luts(low, high)))
    elif kind in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        center = round(draw(st.floats(low, high)), 2)
        width = round((high - low) * draw(st.sampled_from([0.003, 0.1, 0.5, 1, 3])) + 1, 2)
        if width <= 256 * (high - low):  # a wider one is passed over: tested apart
            case = case._replace(voi=(center, width, kind))
    if draw(st.booleans()):
        smallest = -(2 ** (8 * size - 1)) if signed else 0
        bottom, top = max(smallest, -32768), min(2 ** (8 * size) + smallest - 1, 32767 if signed else 65535)
        # one of the image's own values, a value that cannot be stored, or any
        own = min(max(case.stored_value(int(words[0, 0])), bottom), top)
        ends = [draw(st.sampled_from([own, bottom, top])), draw(st.sampled_from([own, own, bottom, top]))]
        if signed and max(ends) >= 0 > min(ends):
            ends = [own, own]  # one number type for both
        widened = stored == 16 and size == 2  # the depth is then taken from the picture: tested apart
        case = case if widened else case._replace(padding=(min(ends), max(ends)))
        if signed and case.padding and 2 ** (stored - 1) <= case.padding[0]:
            case = case._replace(padding=None)
        if case.padding and case.padding[1] - case.padding[0] >= 2**stored - 1:  # would be the whole picture
            case = case._replace(padding=None)
    return case


@settings(max_examples=100, deadline=None)
@given(cases())
def test_every_pixel_is_what_the_standard_says(case):
    expected = np.array([[case.grey(int(word)) for word in row] for row in case.words])
    radiograph = read_radiograph(case.file(), explain=True, allow_blank=True)
    np.testing.assert_allclose(radiograph.pixels[0], expected, atol=2e-6)
    assert radiograph.bits == case.stored
    stored = [case.stored_value(int(word)) for word in case.words.flat]
    assert radiograph.steps[0][1:] == (min(stored), max(stored))
    if not all(case.is_padding(int(word)) for word in case.words.flat):
        np.testing.assert_allclose(radiograph.steps[-1][1:], (expected.min(), expected.max()), atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_over_256_times_as_wide_as_the_values_is_passed_over(function):
    """It would show all of them in one of 256 shades; also where a small slope makes a common width that wide."""
    window = decimals(CENTER, 2000), text(FUNCTION, "CS", function)
    assert read_radiograph(file_of(RAMP, *window, decimals(WIDTH, 256 * 4095))).notes == ()
    too_wide = read_radiograph(file_of(RAMP, *window, decimals(WIDTH, 256 * 4095 + 1)))
    assert too_wide.notes == ("senseless Window Width passed over",)
    np.testing.assert_allclose(too_wide.pixels[0], RAMP / 4095, atol=2e-6)
    sloped = [decimals(SLOPE, -0.0001), decimals(INTERCEPT, 0), decimals(CENTER, 0), decimals(WIDTH, 200)]
    assert read_radiograph(file_of(RAMP, *sloped, window[1])).notes == too_wide.notes


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("block", [7, 100, 2**20])
def test_looking_up_and_computing_give_the_same(monkeypatch, function, block):
    """Words of 16 bits go through a table of all words, those of 32 bits are computed block by block."""
    monkeypatch.setattr(dicom_display, "BLOCK", block)
    more = (decimals(CENTER, 1900.5), decimals(WIDTH, 2500), text(FUNCTION, "CS", function), us(PADDING, 0))
    looked_up, computed = (read_radiograph(file_of(RAMP.astype(kind), *more)).pixels for kind in ("u2", "u4"))
    np.testing.assert_array_equal(looked_up, computed)
    assert len(np.unique(computed)) > 500


def test_the_steps_name_their_numbers_and_cost_nothing_unless_asked_for():
    data = file_of(RAMP, decimals(SLOPE, 2), decimals(INTERCEPT, -1024), decimals(CENTER, 3000), decimals(WIDTH, 4000))
    assert read_radiograph(data).steps == ()
    steps = read_radiograph(data, explain=True).steps
    assert [step.what for step in steps] == [
        "stored: 12 of 16 bits, high bit 11, unsigned",
        "rescale: 2 * value + -1024",
        "window LINEAR: center 3000, width 4000",
    ]
    assert [step[1:] for step in steps] == [(0, 4095), (-1024, 7166), (0, 1)]


# where the scale comes from


def shades(data):
    return read_radiograph(data).pixels[0]


def test_without_a_window_two_images_of_one_detector_have_one_scale():
    for top in (900, 1100):
        np.testing.assert_allclose(shades(file_of(RAMP // 4095 * top + 3)), (RAMP // 4095 * top + 3) / 4095, atol=1e-6)


def test_what_is_above_the_stored_bits_is_no_part_of_the_picture():
    plain = shades(file_of(RAMP))
    overlay = np.random.default_rng(0).integers(0, 16, RAMP.shape, dtype=np.uint16) << 12
    np.testing.assert_array_equal(shades(file_of(RAMP | overlay)), plain)
    np.testing.assert_array_equal(shades(file_of(RAMP << 4 | overlay >> 12, high_bit=15)), plain)


def jpeg2000(words, stored):
    """Compress all 16 bits, and say afterwards that only some of them are stored."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(words, bits=16)))
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = stored, stored - 1
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_overlays_in_the_unused_bits_of_jpeg2000_are_masked():
    pytest.importorskip("openjpeg", reason="pylibjpeg-openjpeg is not installed: pip install 'samgan[dicom]'")
    overlay = np.random.default_rng(0).integers(0, 16, RAMP.shape, dtype=np.uint16) << 12
    np.testing.assert_array_equal(shades(jpeg2000(RAMP | overlay, 12)), shades(file_of(RAMP)))


def with_jpeg(stored=8, allocated=8, rows=32):
    """A grey JPEG of 8 bits in a file that says otherwise of the depth."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(GREY, bits=8)))
    jpeg = io.BytesIO()
    Image.fromarray(GREY).save(jpeg, "JPEG", quality=100)
    dataset.PixelData = pydicom.encaps.encapsulate([jpeg.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.Rows, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = rows, allocated, stored, stored - 1
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_a_compressed_picture_knows_its_own_depth_and_size():
    radiograph = read_radiograph(with_jpeg(stored=12, allocated=16))
    assert radiograph.bits == 8
    assert radiograph.notes == ("compressed picture of fewer bits than Bits Stored: its own depth taken",)
    np.testing.assert_array_equal(radiograph.pixels, read_radiograph(with_jpeg()).pixels)
    np.testing.assert_allclose(radiograph.pixels[0], GREY / 255, atol=3 / 255)
    with pytest.raises(BadImageError, match="48x33 pixels with 1 samples holds a compressed picture of 48x32 with 1"):
        read_radiograph(with_jpeg(rows=33))


@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("scale", [1, 16])
def test_a_table_that_declares_16_bits_is_scaled_by_what_its_entries_reach(scale, vr):
    curve = [round(value**2 / 4095) * scale for value in range(4096)]
    data = file_of(RAMP, Lut(curve, 0, 16, vr, False).element(VOI_LUT))
    np.testing.assert_allclose(shades(data), np.array(curve)[RAMP] / (4095 if scale == 1 else 65535), atol=1e-6)


def test_a_table_of_no_entries_has_65536_of_them():
    words = np.linspace(0, 65535, 32 * 48).astype(np.uint16).reshape(32, 48)
    lut = Lut([65535 - value for value in range(65536)], 0, 16, "OW", False)
    np.testing.assert_allclose(shades(file_of(words, lut.element(VOI_LUT), stored=16)), 1 - words / 65535, atol=1e-6)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("implicit", [False, True])
def test_packed_tables_in_every_byte_order(order, implicit):
    """Two entries of 8 bits in one word: the first is in the low byte, wherever that stands in the file."""
    curve = np.arange(255, -1, -1, dtype=np.uint8)
    data = curve.tobytes() if order == "<" else curve.view("<u2").astype(">u2").tobytes()
    item = [us(LUT_DESCRIPTOR, 256, 1000, 8, order=order), Element(LUT_DATA, "OW", data)]
    voi = sequence(VOI_LUT, item, order, implicit)
    headless = written(elements_of(RAMP, voi, order=order), order, implicit)
    np.testing.assert_allclose(shades(headless), 1 - (RAMP.astype(int) - 1000).clip(0, 255) / 255, atol=1e-6)


def test_first_mapped_value_may_be_signed_whatever_its_type_says():
    words = np.linspace(-512, 511, 32 * 48).round().astype(np.int16).reshape(32, 48)
    lut = Lut(list(range(1024)), -512, 10, "OW", False).element(VOI_LUT)
    data = file_of(words.view(np.uint16), lut, stored=16, signed=1)
    for file in (data, data.replace(b"SS\x06\0", b"US\x06\0")):
        np.testing.assert_allclose(shades(file), (words + 512) / 1023, atol=1e-6)


def padded(value, words=RAMP):
    words = words.copy()
    words[:4] = value
    return words


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("value", [0, 4095, 65535])
def test_padding_is_black(photometric, value):
    picture = shades(file_of(padded(value), us(PADDING, value), photometric=photometric))
    assert (picture[:4] == 0).all()
    plain = shades(file_of(RAMP, photometric=photometric))
    np.testing.assert_array_equal(picture[4:-1], plain[4:-1])


def test_real_white_of_all_ones_is_no_padding_of_all_ones():
    assert shades(file_of(padded(4095), us(PADDING, 65535)))[0, 0] == 1


def test_padding_that_widens_the_words_does_not_darken_the_picture():
    radiograph = read_radiograph(file_of(padded(65535), us(PADDING, 65535), stored=16))
    assert radiograph.notes == ("16 bits stored only for the padding: 12 bits taken",)
    assert radiograph.bits == 12
    np.testing.assert_allclose(radiograph.pixels[0, 4:], RAMP[4:] / 4095, atol=1e-6)
    np.testing.assert_array_equal(
        shades(file_of(RAMP, us(PADDING, 65535), stored=16)), shades(file_of(RAMP))
    )  # no pixel needs padding
    deep = RAMP * 16
    np.testing.assert_allclose(
        shades(file_of(padded(65535, deep), us(PADDING, 65535), stored=16))[4:], deep[4:] / 65535
    )


def test_padding_of_the_wrong_type_is_understood():
    words = padded(-2000, (RAMP - 1000).astype(np.int16)).view(np.uint16)
    picture = shades(file_of(words, us(PADDING, 63536), stored=16, signed=1))
    assert (picture[:4] == 0).all()
    assert (picture[4:] > 0.1).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE", "LIN OD"])
def test_presentation_lut_shape_goes_with_the_polarity_or_overrules_it(photometric, shape):
    radiograph = read_radiograph(file_of(RAMP, text(SHAPE, "CS", shape), photometric=photometric))
    inverse = shape == "INVERSE" if shape != "LIN OD" else photometric == "MONOCHROME1"
    np.testing.assert_allclose(radiograph.pixels[0], 1 - RAMP / 4095 if inverse else RAMP / 4095, atol=1e-6)
    agree = (photometric, shape) in (("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY"))
    assert bool(radiograph.notes) is not agree


# what is empty or makes no sense

UNSEEN = [
    ([text(SLOPE, "DS", ""), text(INTERCEPT, "DS", "")], "empty Rescale Slope passed over"),
    ([text(SLOPE, "DS", "x"), text(INTERCEPT, "DS", "1")], "unreadable Rescale Slope passed over"),
    ([text(SLOPE, "DS", "0"), text(INTERCEPT, "DS", "1")], "zero Rescale Slope passed over"),
    ([text(SLOPE, "DS", "nan"), text(INTERCEPT, "DS", "1")], "unreadable Rescale Slope passed over"),
    ([text(SLOPE, "DS", "1e300"), text(INTERCEPT, "DS", "-inf")], "unreadable Rescale Intercept passed over"),
    ([text(SLOPE, "DS", "1e-30"), text(INTERCEPT, "DS", "1000")], "senseless Rescale Slope passed over"),
    ([text(INTERCEPT, "DS", "-1024")], "Rescale Intercept without Rescale Slope passed over"),
    ([text(CENTER, "DS", "0"), text(WIDTH, "DS", "0")], "senseless Window Width passed over"),
    ([text(CENTER, "DS", "500"), text(WIDTH, "DS", "0.5")], "senseless Window Width passed over"),
    ([text(CENTER, "DS", "2000"), text(WIDTH, "DS", "1e300")], "senseless Window Width passed over"),
    ([text(CENTER, "DS", "1e9"), text(WIDTH, "DS", "100")], "senseless Window Width passed over"),
    ([text(CENTER, "DS", "-500"), text(WIDTH, "DS", "-100")], "senseless Window Width passed over"),
    ([text(CENTER, "DS", "2000,5"), text(WIDTH, "DS", "100")], "unreadable Window Center passed over"),
    ([text(CENTER, "DS", "9\\"), text(WIDTH, "DS", "\\9")], "senseless Window Center passed over"),
    ([us(PADDING, 5000), us(PADDING_LIMIT, 0)], "Pixel Padding that is every value passed over"),
    ([text(CENTER, "DS", ""), text(WIDTH, "DS", "")], "empty Window Width passed over"),
    ([text(CENTER, "DS", "5,5"), text(WIDTH, "DS", "20")], "unreadable Window Center passed over"),
    (
        [text(CENTER, "DS", "9"), text(WIDTH, "DS", "0"), text(FUNCTION, "CS", "SIGMOID")],
        "senseless Window Width passed over",
    ),
    ([text(CENTER, "DS", "500")], "Window Center and Window Width are not both there: passed over"),
    ([Element(VOI_LUT, "SQ", b"")], "empty VOI LUT Sequence passed over"),
    ([Lut([7] * 20, 0, 12, "OW", False).element(VOI_LUT)], "senseless VOI LUT Sequence passed over"),
    (
        [sequence(VOI_LUT, [us(LUT_DESCRIPTOR, 4096, 0, 12), us(LUT_DATA, 1, 2, 3)])],
        "senseless VOI LUT Sequence passed over",
    ),
    ([sequence(VOI_LUT, [us(LUT_DESCRIPTOR, 4096)])], "senseless VOI LUT Sequence passed over"),
    (
        [sequence(MODALITY_LUT, [us(LUT_DESCRIPTOR, 9, 0, 16), us(LUT_DATA, 1)])],
        "senseless Modality LUT Sequence passed over",
    ),
    ([text(FRAMES, "IS", "")], "empty Number of Frames passed over"),
    ([text(FRAMES, "IS", "one")], "unreadable Number of Frames passed over"),
    ([text(FRAMES, "IS", "0")], "senseless Number of Frames passed over"),
    ([us(PADDING)], "empty Pixel Padding Value passed over"),
    ([text(PADDING, "LO", "none")], "unreadable Pixel Padding Value passed over"),
    ([us(PADDING_LIMIT, 5)], "Pixel Padding Range Limit without Pixel Padding Value passed over"),
    ([text(SHAPE, "CS", "ODD")], "unknown Presentation LUT Shape passed over"),
    ([us(HIGH_BIT, 5)], "senseless High Bit passed over"),
    ([us(HIGH_BIT)], "empty High Bit passed over"),
    ([us(STORED)], "no usable Bits Stored: taken from High Bit"),
    ([us(STORED, 0)], "no usable Bits Stored: taken from High Bit"),
    ([us(SIGN, 7)], "no usable Pixel Representation: taken as unsigned"),
    ([text(0x00185101, "CS", "a/b;c")], "unreadable View Position passed over"),
]


@pytest.mark.parametrize(("elements", "note"), UNSEEN)
def test_what_is_empty_or_senseless_counts_as_absent_with_a_note(elements, note):
    radiograph = read_radiograph(file_of(RAMP, *elements))
    assert note in radiograph.notes
    np.testing.assert_allclose(radiograph.pixels[0], RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("vr", [b"O ", b"O\0", b"OG"])
def test_a_table_of_an_unknown_type_is_passed_over(vr):
    data = file_of(RAMP, Lut([0, 1, 2], 0, 12, "OW", False).element(VOI_LUT))
    at = data.index(b"\x28\0\x06\x30OW") + 4
    radiograph = read_radiograph(data[:at] + vr + data[at + 2 :])
    assert radiograph.notes == ("senseless VOI LUT Sequence passed over",)
    np.testing.assert_allclose(radiograph.pixels[0], RAMP / 4095, atol=1e-6)


def test_an_odd_function_leaves_the_window():
    window = decimals(CENTER, 2000), decimals(WIDTH, 1000)
    expected = shades(file_of(RAMP, *window))
    for function in ("", "CUBIC"):
        radiograph = read_radiograph(file_of(RAMP, *window, text(FUNCTION, "CS", function)))
        np.testing.assert_array_equal(radiograph.pixels[0], expected)
        assert len(radiograph.notes) == 1


@pytest.mark.parametrize(
    ("centers", "widths"),
    [
        ("2000\\9", "1000\\9"),
        ("2000\\", "1000\\"),
        ("\\2000", "\\1000"),
        ("0\\2000", "0\\1000"),
        ("x\\2000", "9\\1000"),
        ("90000\\2000", "50\\1000"),
        ("2000\\9", "1000"),
        ("2000", "1000\\9"),
    ],
)
def test_of_several_windows_the_first_that_is_usable_is_taken_and_a_note_says_so(centers, widths):
    radiograph = read_radiograph(file_of(RAMP, text(CENTER, "DS", centers), text(WIDTH, "DS", widths)))
    if centers.count("\\") == widths.count("\\"):
        assert radiograph.notes == ("several windows: the first that is usable taken",)
    else:
        assert radiograph.notes == ("Window Center and Window Width differ in their number of values: taken in pairs",)
    np.testing.assert_array_equal(
        radiograph.pixels[0], shades(file_of(RAMP, decimals(CENTER, 2000), decimals(WIDTH, 1000)))
    )


@pytest.mark.parametrize(("tag", "other"), [(VOI_LUT, CENTER), (MODALITY_LUT, SLOPE)])
def test_of_several_tables_the_first_that_is_usable_is_taken_before_the_alternative(tag, other):
    flat, good, late = (
        Lut(entries, 0, 12, "OW", False).element(tag).value
        for entries in ([7] * 20, [value // 2 for value in range(4096)], [0, 4095])
    )
    expected = shades(file_of(RAMP, Element(tag, "SQ", good)))
    assert expected.max() < 0.51
    for items in (flat + good + late, good + late):
        radiograph = read_radiograph(file_of(RAMP, Element(tag, "SQ", items)))
        assert len(radiograph.notes) == 1
        assert radiograph.notes[0].endswith("LUT Sequence: the first that is usable taken")
        np.testing.assert_array_equal(radiograph.pixels[0], expected)
    both = decimals(other, 2000), decimals({CENTER: WIDTH, SLOPE: INTERCEPT}[other], 1000)
    radiograph = read_radiograph(file_of(RAMP, Element(tag, "SQ", good), *both))
    assert radiograph.notes[0].endswith("LUT taken")
    np.testing.assert_array_equal(radiograph.pixels[0], expected)


def test_of_several_values_the_first_is_taken_and_a_note_says_so():
    for element, name in (
        (text(PHOTOMETRIC, "CS", "MONOCHROME2\\MONOCHROME1"), "Photometric Interpretation"),
        (us(ROWS, 32, 48), "Rows"),
        (text(SHAPE, "CS", "IDENTITY\\INVERSE"), "Presentation LUT Shape"),
    ):
        radiograph = read_radiograph(file_of(RAMP, element))
        assert radiograph.notes == (f"several values of {name}: the first taken",)
        np.testing.assert_allclose(radiograph.pixels[0], RAMP / 4095, atol=1e-6)


def test_pixels_that_are_not_square_are_named():
    for tag, kind in ((0x00280030, "DS"), (0x00181164, "DS"), (0x00280034, "IS")):
        for values, noted in (("2\\1", True), ("1\\1", False), ("", False), ("0\\1", False)):
            notes = read_radiograph(file_of(RAMP, text(tag, kind, values))).notes
            assert ("pixels that are not square: shown as they are stored" in notes) is noted


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "RGB"])
def test_where_the_planes_of_colours_stand_is_never_guessed_in_silence(photometric):
    colours = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    data = colours.tobytes()[: 32 * 48 * 2] if photometric == "YBR_FULL_422" else colours.tobytes()
    options = {"stored": 8, "photometric": photometric}
    elements = us(SAMPLES, 3), Element(PIXEL_DATA, "OB", data)
    expected = read_radiograph(file_of(colours[..., 0], *elements, us(0x00280006, 0), **options), 3)
    assert expected.notes == ()
    odd = us(0x00280006, 1) if photometric == "YBR_FULL_422" else us(0x00280006, 5)
    radiograph = read_radiograph(file_of(colours[..., 0], *elements, odd, **options), 3)
    np.testing.assert_array_equal(radiograph.pixels, expected.pixels)
    assert any("Planar Configuration" in note for note in radiograph.notes)


@pytest.mark.parametrize("tag", [HIGH_BIT, SIGN, STORED])
def test_a_missing_attribute_with_a_safe_value_is_filled_in(tag):
    radiograph = read_radiograph(file_of(RAMP, drop=(tag,)))
    assert len(radiograph.notes) == 1
    np.testing.assert_allclose(radiograph.pixels[0], RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("tag", "name"),
    [(ROWS, "Rows"), (COLUMNS, "Columns"), (ALLOCATED, "Bits Allocated"), (PHOTOMETRIC, "Photometric Interpretation")],
)
def test_a_missing_attribute_that_nothing_can_stand_for_is_named(tag, name):
    with pytest.raises(BadImageError, match=f"without {name}"):
        read_radiograph(file_of(RAMP, drop=(tag,)))


def test_polarity_is_taken_from_the_presentation_lut_if_it_is_nowhere_else():
    data = file_of(RAMP, text(SHAPE, "CS", "INVERSE"), drop=(PHOTOMETRIC,))
    np.testing.assert_allclose(shades(data), 1 - RAMP / 4095, atol=1e-6)


def test_notes_hold_nothing_of_the_patient():
    secret = "MRN-4711"
    elements = [
        text(tag, "DS", secret) for tag in (SLOPE, INTERCEPT, CENTER, WIDTH)
    ] + [text(tag, "CS", secret) for tag in (FUNCTION, SHAPE, 0x00185101, 0x0008001C)]  # fmt: skip
    radiograph = read_radiograph(file_of(RAMP, *elements, text(FRAMES, "IS", secret), text(0x00100020, "LO", secret)))
    assert len(radiograph.notes) >= 6
    assert secret not in " ".join(radiograph.notes)
    assert radiograph.patient_key == hashlib.sha256(secret.encode()).hexdigest()


# files without their head, and broken ones


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("head", ["nothing", "group length", "character set"])
def test_a_file_without_preamble_is_recognised_and_read(order, implicit, head):
    first = {
        "nothing": [],
        "group length": [Element(0x00080000, "UL", struct.pack(f"{order}L", 300))],
        "character set": [text(0x00080005, "CS", "ISO_IR 100"), text(0x00080008, "CS", "ORIGINAL\\PRIMARY")],
    }[head]
    data = written(elements_of(RAMP, *first, order=order), order, implicit)
    assert is_recognised(data[:HEAD_BYTES])
    radiograph = read_radiograph(data)
    np.testing.assert_allclose(radiograph.pixels[0], RAMP / 4095, atol=1e-6)
    assert radiograph.notes[:2] == ("no DICOM preamble", "no usable Transfer Syntax UID: guessed from the elements")


@pytest.mark.parametrize("implicit", [False, True])
def test_a_file_without_a_transfer_syntax_or_only_without_the_preamble_is_read(implicit):
    elements = written(elements_of(RAMP), implicit=implicit)
    for data in (preamble("")[:132] + elements, preamble("1.2.840.10008.1.2" + ".1" * (not implicit))[132:] + elements):
        assert is_recognised(data[:HEAD_BYTES])
        np.testing.assert_allclose(shades(data), RAMP / 4095, atol=1e-6)


def test_what_is_no_dicom_is_not_recognised():
    rng = np.random.default_rng(0)
    heads = [rng.bytes(HEAD_BYTES) for _ in range(20_000)]
    heads += [bytes((8, 0)) + rng.bytes(HEAD_BYTES - 2) for _ in range(20_000)]
    heads += [bytes(HEAD_BYTES), b"\x08\0" * 66, b"\x08\0\x05\0" * 33, b"text, just text " * 9, b"", b"\x08\0\x05\0"]
    heads += [np.arange(count, dtype=kind).tobytes()[:HEAD_BYTES] for count in (99,) for kind in ("u1", "u2", "f4")]
    assert not [head for head in heads if is_recognised(head)]


def test_reasons_are_true():
    whole = file_of(RAMP)
    twice = Element(PIXEL_DATA, "OW", RAMP.tobytes() * 2)
    waveform = [text(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.9.1.1")]
    floating = Element(0x7FE00008, "OF", RAMP.astype(np.float32).tobytes())
    jpeg = with_jpeg()
    pixels = jpeg.index(b"\xe0\x7f\x10\x00")
    for data, reason in (
        (whole[:-100], "truncated: expected 3072 bytes of pixels, found 2972"),
        (whole[: whole.index(b"\x28\0\x11\0") + 9], "truncated: the file ends before its pixels"),
        (file_of(RAMP, twice), "6144 bytes of pixels, expected 3072: several frames, or Rows, Columns or Bits All"),
        (preamble() + written(waveform), r"without pixel data \(12-lead ECG Waveform Storage\)"),
        (preamble(), "DICOM without pixel data"),
        (file_of(RAMP, floating, drop=(PIXEL_DATA,)), "FloatPixelData"),
        (file_of(RAMP, text(FRAMES, "IS", "3")), r"multi-frame DICOM \(3 frames\)"),
        (file_of(RAMP, us(ALLOCATED, 12)), "Bits Allocated 12: expected 1, 8, 16 or 32"),
        (file_of(RAMP, photometric="HSV"), "1 samples per pixel with an unknown Photometric"),
        (file_of(RAMP, photometric="RGB"), "1 samples per pixel with RGB"),
        (jpeg[:-40], "truncated: the compressed pixels end before their last item"),
        (jpeg[: pixels + 12], "truncated: the compressed pixels end before their last item"),
        (jpeg[: pixels + 24] + b"\xfe\xff\xdd\xe0\0\0\0\0", "without compressed pixels"),
        (preamble("1.2.840.10008.1.2.4.70") + written(elements_of(RAMP)), "pixels that are not compressed, but"),
        (preamble("1.2.3") + written(elements_of(RAMP)), "an unknown transfer syntax: export it again as Explicit VR"),
        (preamble() + jpeg[jpeg.index(b"\x08\0\x16\0") :], "compressed pixels, but its transfer syntax is Explicit VR"),
    ):
        with pytest.raises(BadImageError, match=reason):
            read_radiograph(data)


def test_a_few_bytes_after_the_pixels_are_passed_over():
    radiograph = read_radiograph(file_of(RAMP, Element(PIXEL_DATA, "OW", RAMP.tobytes() + bytes(500))))
    assert radiograph.notes == ("bytes after the last pixel passed over",)
    np.testing.assert_allclose(radiograph.pixels[0], RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("keep", np.linspace(0.02, 0.99, 23))
def test_a_file_cut_anywhere_is_refused_in_one_line(keep):
    for data in (file_of(RAMP), written(elements_of(RAMP)), with_jpeg()):
        with pytest.raises(BadImageError) as caught:
            read_radiograph(data[: int(len(data) * keep)])
        assert "\n" not in str(caught.value)


def deflated(elements):
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return preamble("1.2.840.10008.1.2.1.99") + deflater.compress(elements) + deflater.flush()


def test_a_deflated_file_is_read_up_to_a_limit(monkeypatch):
    elements = written(elements_of(RAMP))
    np.testing.assert_allclose(shades(deflated(elements)), RAMP / 4095, atol=1e-6)
    monkeypatch.setattr(dicom_file, "MAXIMUM_BYTES", len(elements) - 1)
    with pytest.raises(BadImageError, match="deflated DICOM of more than"):
        read_radiograph(deflated(elements))


def test_decoders_say_nothing_by_themselves(caplog, capfd):
    """What pydicom logs would reach the terminal through any handler of the root logger."""
    with pytest.raises(BadImageError):
        read_radiograph(real_dicom("JPEG-lossy.dcm")[:-2000] + bytes(2000))
    with pytest.raises(BadImageError):
        read_radiograph(file_of(RAMP)[:200])
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


# colour


@pytest.mark.parametrize("high_bit", [11, 15])
def test_colour_is_scaled_by_its_stored_bits(high_bit):
    words = np.stack([RAMP, RAMP[::-1], RAMP // 2], axis=2)
    data = dicom(words << (high_bit - 11), photometric="RGB", HighBit=high_bit)
    np.testing.assert_allclose(read_radiograph(data, 3).pixels, words.transpose(2, 0, 1) / 4095, atol=1e-6)


def test_colour_differences_become_rgb_as_pydicom_has_it():
    words = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    expected = convert_color_space(words, "YBR_FULL", "RGB").transpose(2, 0, 1) / 255
    pixels = read_radiograph(dicom(words, bits=8, photometric="YBR_FULL"), 3).pixels
    np.testing.assert_allclose(pixels, expected, atol=0.51 / 255)


@pytest.mark.parametrize(("declared", "reach"), [(8, 255), (16, 65535), (16, 4095), (16, 255)])
def test_a_palette_is_scaled_by_what_its_table_reaches(declared, reach):
    words = np.arange(64, dtype=np.uint8).reshape(8, 8)  # a dark image, that uses a quarter of the table
    table = np.linspace(0, reach, 256).round().astype("<u2")
    palette = {}
    for colour, values in (("Red", table), ("Green", table[::-1]), ("Blue", table * 0)):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, declared]
        packed = values.astype(np.uint8) if declared == 8 else values
        palette[f"{colour}PaletteColorLookupTableData"] = packed.tobytes()
    pixels = read_radiograph(dicom(words, bits=8, photometric="PALETTE COLOR", **palette), 3).pixels
    expected = np.stack([table[words], table[::-1][words], table[words] * 0]) / reach
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_a_palette_that_is_missing_is_named():
    with pytest.raises(BadImageError, match="without a usable palette"):
        read_radiograph(dicom(GREY, bits=8, photometric="PALETTE COLOR"))


# whom it shows


def test_study_view_and_whether_it_is_synthetic():
    radiograph = read_radiograph(file_of(RAMP, text(0x0020000D, "UI", "1.2.34"), text(0x00185101, "CS", " pa ")))
    assert radiograph.study_key == hashlib.sha256(b"1.2.34").hexdigest()
    assert (radiograph.view, radiograph.is_synthetic) == ("PA", False)
    mark = json.dumps({"Software": "samgan 1.0"})
    for attributes in (
        {"SyntheticData": "YES"},
        {"ImageComments": SYNTHETIC},
        {"DerivationDescription": mark},
        {"DerivationDescription": f"Lossless JPEG compression [{mark}]"},
    ):
        assert read_radiograph(dicom(GREY, bits=8, **attributes)).is_synthetic
    for attributes in ({"SyntheticData": "NO"}, {"DerivationDescription": "{}"}, {"DerivationDescription": ""}):
        assert not read_radiograph(dicom(GREY, bits=8, **attributes)).is_synthetic


def test_an_odd_character_set_does_not_lose_the_patient():
    patient = Element(0x00100020, "LO", b"M\xfcller 1")
    for name in ("ISO_IR 999", "ISO_IR 100\b\0CS", "\0\0", ""):
        for implicit in (False, True):
            elements = elements_of(RAMP, text(0x00080005, "CS", name), patient)
            radiograph = read_radiograph(written(elements, implicit=implicit))
            assert len(radiograph.patient_key) == 64
            np.testing.assert_allclose(radiograph.pixels[0], RAMP / 4095, atol=1e-6)


# against others


OURS = Path(pydicom.data.__file__).parent / "test_files"
WHEEL = sorted(path.name for path in OURS.glob("*.dcm"))


@pytest.mark.parametrize("name", WHEEL)
def test_files_that_come_with_pydicom_are_read_as_by_pydicom_or_refused(name):
    data = (OURS / name).read_bytes()
    try:
        radiograph = read_radiograph(data, 3)
    except BadImageError as error:
        reason = str(error)
    else:
        reason = ""
        compare_with_pydicom(data, radiograph)
    assert not reason.startswith("damaged")


def compare_with_pydicom(data, radiograph):
    """Take the same steps with pydicom, where it has them."""
    with warnings.catch_warnings(action="ignore"):
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        stored = pixel_array(dataset)
    if stored.ndim == 3:
        np.testing.assert_allclose(radiograph.pixels, stored.transpose(2, 0, 1) / (2**radiograph.bits - 1), atol=0.003)
    elif dataset.PhotometricInterpretation != "PALETTE COLOR":
        assert "VOILUTSequence" not in dataset
        assert dataset.PhotometricInterpretation == "MONOCHROME2"
        half = 2 ** (radiograph.bits - 1)
        ends = [-half, half - 1] if dataset.PixelRepresentation else [0, 2 * half - 1]
        low, high = apply_modality_lut(np.array(ends), dataset)
        dataset.BitsStored = radiograph.bits
        values = apply_windowing(apply_modality_lut(stored, dataset), dataset)
        np.testing.assert_allclose(radiograph.pixels[0], (values - low) / (high - low), atol=1e-5)


@pytest.mark.skipif(not shutil.which("dcm2pnm"), reason="dcm2pnm of dcmtk is not installed")
@pytest.mark.parametrize(
    "elements",
    [
        [],
        [decimals(CENTER, 2000), decimals(WIDTH, 2400)],
        [decimals(CENTER, 2000), decimals(WIDTH, 2400), decimals(SLOPE, -1), decimals(INTERCEPT, 4095)],
        [decimals(CENTER, 0), decimals(WIDTH, 0)],
        [decimals(CENTER, 2000), decimals(WIDTH, 900), text(FUNCTION, "CS", "SIGMOID")],
        [text(SHAPE, "CS", "INVERSE")],
        [Lut([value**2 // 4095 for value in range(4096)], 0, 12, "OW", False).element(VOI_LUT)],
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dcm2pnm_shows_the_same(tmp_path, elements, photometric):
    (tmp_path / "a.dcm").write_bytes(file_of(RAMP, *elements, photometric=photometric))
    voi = "+Wl" if any(element.tag == VOI_LUT for element in elements) else "+Wi"
    windowed = any(element.tag in (VOI_LUT, CENTER) for element in elements)
    options = [voi, "1"] if windowed else []
    command = ["dcm2pnm", *options, "+opb", str(tmp_path / "a.dcm"), str(tmp_path / "a.pgm")]
    subprocess.run(command, check=True, capture_output=True)
    shown = np.asarray(Image.open(tmp_path / "a.pgm")).astype(float)
    np.testing.assert_allclose(
        shades((tmp_path / "a.dcm").read_bytes()),
        shown / shown.dtype.type(255),
        atol=1.1 / 255,  # it truncates
    )


def test_dicom_modality_rescale_then_window_then_inversion():
    stored = np.linspace(0, 4095, 32 * 48).round().astype(np.uint16).reshape(32, 48)
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1000, "RescaleType": "US"}
    window = {"WindowCenter": 3000, "WindowWidth": 4000}  # in rescaled values: 1000 to 5000
    shown = ((stored * 2.0 - 1000 - (3000 - 0.5)) / (4000 - 1) + 0.5).clip(0, 1)  # DICOM PS3.3 C.11.2.1.2.1
    for photometric, expected in (("MONOCHROME2", shown), ("MONOCHROME1", 1 - shown)):
        pixels = read_radiograph(dicom(stored, photometric=photometric, **rescale, **window)).pixels
        np.testing.assert_allclose(pixels[0], expected, atol=1e-5)


@pytest.mark.parametrize("shape", [None, "INVERSE"])
def test_dicom_monochrome1_is_inverted_once_with_and_without_presentation_lut_shape(shape):
    stored = np.linspace(0, 4095, 32 * 48).round().astype(np.uint16).reshape(32, 48)
    attributes = {"PresentationLUTShape": shape} if shape else {}
    pixels = read_radiograph(dicom(stored, photometric="MONOCHROME1", **attributes)).pixels
    np.testing.assert_allclose(pixels[0], 1 - stored / 4095, atol=1e-6)


def test_dicom_voi_lut_sequence_is_applied():
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    item = Dataset()
    item.LUTDescriptor = [256, 0, 12]
    item.LUTData = (np.arange(256) ** 2 // 16).astype("<u2").tobytes()
    pixels = read_radiograph(dicom(stored, bits=8, VOILUTSequence=Sequence([item]))).pixels
    np.testing.assert_allclose(pixels[0], (stored.astype(int) ** 2 // 16) / 4095, atol=1e-6)


@pytest.mark.parametrize("missing", ["WindowCenter", "WindowWidth"])
def test_dicom_with_half_a_window_is_read_without_it(missing):
    stored = np.linspace(0, 4095, 400).astype(np.uint16).reshape(20, 20)
    window = {"WindowCenter": 100, "WindowWidth": 50} | {missing: None}
    np.testing.assert_allclose(read_radiograph(dicom(stored, **window)).pixels[0], stored / 4095, atol=1e-6)


def test_dicom_patient_id_leaves_the_reader_hashed_only():
    radiograph = read_radiograph(dicom(GREY, bits=8, PatientID=" MRN 4711 "))
    assert radiograph.patient_key == hashlib.sha256(b"MRN 4711").hexdigest()
    assert read_radiograph(dicom(GREY, bits=8, PatientID="")).patient_key == ""


def real_dicom(name):
    path = pydicom.data.get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom-data with {name} is not installed")
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("number", [1, 3])
def test_real_radiograph_is_the_same_from_jpeg2000(number):
    plain = read_radiograph(real_dicom(f"RG{number}_UNCR.dcm"))
    compressed = read_radiograph(real_dicom(f"RG{number}_J2KR.dcm"))
    np.testing.assert_array_equal(plain.pixels, compressed.pixels)
    assert plain.bits == {1: 15, 3: 10}[number]


@pytest.mark.parametrize(
    "syntax", ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "RLELossless"]
)
def test_real_radiograph_is_the_same_from_what_hospitals_compress_with(tmp_path, syntax):
    gdcm = pytest.importorskip("gdcm", reason="python-gdcm, which compresses here, is not installed")
    pytest.importorskip("imagecodecs", reason="imagecodecs is not installed: pip install 'samgan[dicom]'")
    (tmp_path / "plain.dcm").write_bytes(real_dicom("RG3_UNCR.dcm"))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(tmp_path / "plain.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "compressed.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    compressed = (tmp_path / "compressed.dcm").read_bytes()
    assert pydicom.dcmread(tmp_path / "compressed.dcm").file_meta.TransferSyntaxUID.is_compressed
    plain = read_radiograph(real_dicom("RG3_UNCR.dcm"))
    np.testing.assert_array_equal(plain.pixels, read_radiograph(compressed).pixels)


def test_what_decodes_is_named(monkeypatch):
    monkeypatch.setattr(type(JPEGLSLosslessDecoder), "available_plugins", ("gdcm",))
    with pytest.raises(BadImageError, match=r"no decoder for DICOM JPEG-LS.*pip install 'samgan\[dicom\]'"):
        read_radiograph(dicom(GREY, bits=8, syntax=JPEGLSLossless))
    monkeypatch.setattr(type(JPEGLSLosslessDecoder), "available_plugins", ("gdcm", "pillow"))  # of all decoders
    with pytest.raises(BadImageError, match=r"12-bit JPEG: to read it, pip install 'samgan\[dicom\]'"):
        read_radiograph(real_dicom("JPEG-lossy.dcm"))


def test_real_radiograph_has_bright_spine_between_dark_lungs():
    image = fit_image(read_radiograph(real_dicom("RG1_UNCR.dcm")).pixels, 64)[0].astype(float)
    rows = slice(20, 36)
    left_lung, spine, right_lung = (
        image[rows, columns].mean() for columns in (slice(14, 22), slice(29, 35), slice(44, 52))
    )
    assert spine > left_lung + 30
    assert spine > right_lung + 30
    assert image.min() < 60
    assert image.max() > 180
