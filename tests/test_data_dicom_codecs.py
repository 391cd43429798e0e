"""Compressed DICOM: exact where it is lossless, and damage of any kind costs one file, never the process."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless
from scipy.ndimage import gaussian_filter
from test_data_dicom import elements_of, file_of, preamble, us, written

from samgan.data.readers import BadImageError, read_radiograph
from samgan.data.readers.dicom import codecs

imagecodecs = pytest.importorskip("imagecodecs", reason="imagecodecs is not installed: pip install 'samgan[dicom]'")

LOSSLESS = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless)
NOISE = gaussian_filter(np.random.default_rng(0).random((40, 50)), 1)
NOISE = (NOISE - NOISE.min()) / (NOISE.max() - NOISE.min())


def words_of(bits):
    return (NOISE * (2**bits - 1)).round().astype(np.uint8 if bits <= 8 else np.uint16)


def compress(words, syntax, bits, predictor=1):
    if syntax in (JPEGLSLossless, JPEGLSNearLossless):
        return imagecodecs.jpegls_encode(words, level=2 if syntax == JPEGLSNearLossless else 0)
    if syntax == JPEGExtended12Bit:
        return imagecodecs.jpeg8_encode(words, level=100, bitspersample=bits)
    colours = {"colorspace": "RGB", "outcolorspace": "RGB"} if words.ndim == 3 else {}
    return imagecodecs.jpeg8_encode(words, lossless=True, predictor=predictor, bitspersample=bits, **colours)


def file_with(frame, words, syntax, bits, *more, **options):
    """A DICOM file with one compressed frame."""
    end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    elements = written(elements_of(words, *more, stored=bits, drop=(0x7FE00010,), **options))
    pixels = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + encapsulate([frame]) + end
    return preamble(str(syntax)) + elements + pixels


@pytest.mark.parametrize(
    ("syntax", "bits"),
    [(syntax, bits) for syntax in LOSSLESS[:2] for bits in (2, 5, 8, 9, 10, 12, 13, 15, 16)]
    + [(JPEGLSLossless, 8), (JPEGLSLossless, 16)],  # imagecodecs writes no others
)
@pytest.mark.parametrize("signed", [0, 1])
def test_lossless_pixels_are_exact_at_every_depth(syntax, bits, signed):
    words = words_of(bits)
    compressed = file_with(compress(words, syntax, bits), words, syntax, bits, signed=signed)
    plain = file_of(words, stored=bits, signed=signed)
    np.testing.assert_array_equal(read_radiograph(compressed).pixels, read_radiograph(plain).pixels)
    assert read_radiograph(compressed).bits == bits


@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_predictor_of_jpeg_lossless(predictor):
    words = words_of(12)
    compressed = file_with(compress(words, JPEGLossless, 12, predictor), words, JPEGLossless, 12)
    np.testing.assert_array_equal(read_radiograph(compressed).pixels, read_radiograph(file_of(words)).pixels)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_colour_stays_in_the_colour_space_that_dicom_names(syntax):
    words = np.stack([words_of(8), words_of(8)[::-1], words_of(8) // 2], axis=2)
    for photometric in ("RGB", "YBR_FULL"):
        colour = us(0x00280002, 3), us(0x00280006, 0)
        plain = file_of(words, *colour, stored=8, photometric=photometric)
        frame = compress(words, syntax, 8)
        if frame[2:4] == b"\xff\xee" and photometric != "RGB":  # Adobe's mark of RGB, and the names of its components
            frame = frame[:2] + frame[18:]
            for number, letter in enumerate(b"RGB", 1):
                head = frame.index(b"\xff\xda") + 14
                frame = frame[:head].replace(bytes([letter]), bytes([number])) + frame[head:]
        compressed = file_with(frame, words, syntax, 8, *colour, photometric=photometric)
        np.testing.assert_array_equal(read_radiograph(compressed, 3).pixels, read_radiograph(plain, 3).pixels)


def test_12_bit_jpeg_and_near_lossless_jpeg_ls_are_close():
    words = words_of(12)
    for syntax, most in ((JPEGExtended12Bit, 8), (JPEGLSNearLossless, 2)):
        bits = 12 if syntax == JPEGExtended12Bit else 16
        shown = read_radiograph(file_with(compress(words, syntax, 12), words, syntax, bits)).pixels[0]
        assert np.abs(shown * (2**bits - 1) - words).max() <= most + 0.01


@pytest.mark.parametrize("allocated", [16, 32])
def test_a_picture_of_fewer_bits_than_its_words(allocated):
    """Bits Stored 12 at the top of each word, as the attributes say, is not what the decoder gives."""
    words = words_of(12)
    for syntax in LOSSLESS[:2]:
        data = file_with(
            compress(words, syntax, 12), words, syntax, 12, us(0x00280100, allocated), us(0x00280102, allocated - 1)
        )
        np.testing.assert_array_equal(read_radiograph(data).pixels, read_radiograph(file_of(words)).pixels)


@st.composite
def damages(draw):
    words = words_of(12)
    syntax = draw(st.sampled_from([*LOSSLESS, JPEGExtended12Bit]))
    frame = bytearray(compress(words, syntax, 12, draw(st.integers(1, 7))))
    at = draw(st.integers(2, len(frame) - 1) | st.integers(2, min(80, len(frame) - 1)))
    kind = draw(st.sampled_from(["change", "cut", "remove", "insert", "fill", "double"]))
    if kind == "change":
        frame[at] ^= draw(st.integers(1, 255))
    elif kind == "cut":
        del frame[at:]
    elif kind == "remove":
        del frame[at : at + draw(st.integers(1, 60))]
    elif kind == "insert":
        frame[at:at] = draw(st.binary(min_size=1, max_size=60))
    elif kind == "fill":
        frame[at : at + 200] = bytes([draw(st.sampled_from([0, 255]))]) * 200
    else:
        frame[at:at] = frame[2:at]
    return bytes(frame), words, syntax


@settings(max_examples=100, deadline=None)  # CharLS takes 3 s to refuse one that ends early
@given(damages())
def test_a_damaged_picture_is_read_or_refused_in_one_line(damage):
    frame, words, syntax = damage
    reason = ""
    try:
        radiograph = read_radiograph(file_with(frame, words, syntax, 12), allow_blank=True)
    except BadImageError as error:
        reason = str(error)
    else:
        assert radiograph.pixels.shape == (1, 40, 50)
    assert "\n" not in reason


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGExtended12Bit])
@pytest.mark.parametrize("predictor", [1, 2, 7])
def test_jpeg_that_ends_too_early_is_refused_whether_or_not_it_says_that_it_ends(syntax, predictor):
    words = words_of(12)
    frame = compress(words, syntax, 12, predictor)
    for keep in (0.6, 0.8, 0.95):
        cut = frame[: int(len(frame) * keep)]
        for data in (cut, cut + codecs.END, cut.rstrip(b"\xff") + b"\xff"):
            with pytest.raises(BadImageError, match=r"^damaged: .*(ends before the last pixel)"):
                read_radiograph(file_with(data, words, syntax, 12))


def test_jpeg_that_lacks_only_its_end_marker_is_read():
    words = words_of(12)
    whole = compress(words, JPEGLosslessSV1, 12)
    assert whole.endswith(codecs.END)
    for frame in (whole[:-2], whole + bytes(1000), whole[:-1]):
        shown = read_radiograph(file_with(frame, words, JPEGLosslessSV1, 12)).pixels
        np.testing.assert_array_equal(shown, read_radiograph(file_of(words)).pixels)


def test_many_threads_read_at_once():
    words = words_of(12)
    files = [file_with(compress(words, syntax, 16), words, syntax, 16) for syntax in LOSSLESS] * 20
    with ThreadPoolExecutor(8) as pool:
        shown = list(pool.map(lambda data: read_radiograph(data).pixels, files))
    expected = read_radiograph(file_of(words, stored=16)).pixels
    assert all((pixels == expected).all() for pixels in shown)


def test_gdcm_is_never_asked():
    """Where it is installed too, and pydicom would take it by itself."""
    for syntax in (*LOSSLESS, JPEGLSNearLossless, JPEGExtended12Bit):
        found = codecs.find_decoder(syntax)
        assert found.plugin == codecs.PLUGIN
        assert found.plugin in get_decoder(syntax).available_plugins
    assert "gdcm" not in codecs.PLUGINS
    with pytest.raises(BadImageError, match="no decoder for DICOM JPEG Spectral"):
        codecs.find_decoder("1.2.840.10008.1.2.4.53")


def test_it_reads_without_standard_error(tmp_path):
    words = words_of(12)
    frame = compress(words, JPEGLosslessSV1, 12)
    for name, data in (("whole", frame), ("cut", frame[:700])):
        (tmp_path / name).write_bytes(file_with(data, words, JPEGLosslessSV1, 12))
    program = """
        import os, sys
        os.close(2)
        from samgan.data.readers import BadImageError, read_radiograph
        print(read_radiograph(open("whole", "rb").read()).bits)
        try:
            read_radiograph(open("cut", "rb").read())
        except BadImageError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "12"
    assert lines[1].startswith("damaged: DICOM JPEG Lossless")
