"""Broken metadata never loses a picture; damaged pixels do."""

import struct
import zlib

import numpy as np
import pytest
import skimage.io
from PIL import Image
from test_data_readers import DEEP, GREY, encode, png, png_chunk, tiff

from samgan.data.readers import BadImageError, read_radiograph
from samgan.data.readers.metadata import PASSED_OVER, without_metadata

LARGE = zlib.compress(bytes(2_000_000))
WRONG_SUM = b"\0\0\0\0"
PNG_CHUNKS = {
    "compressed text of 2 MB": png_chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "international text of 2 MB": png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    "profile of 2 MB": png_chunk(b"iCCP", b"profile\0\0" + LARGE),
    "profile of an unknown compression": png_chunk(b"iCCP", b"profile\0\7nothing"),
    "many texts": b"".join(png_chunk(b"tEXt", b"Comment\0" + bytes([65 + n]) * 900_000) for n in range(80)),
    "text with a wrong checksum": png_chunk(b"tEXt", b"Comment\0text")[:-4] + WRONG_SUM,
    "physical size with a wrong checksum": png_chunk(b"pHYs", struct.pack(">IIB", 1, 1, 1))[:-4] + WRONG_SUM,
    "short physical size": png_chunk(b"pHYs", b"\1"),
    "short gamma": png_chunk(b"gAMA", b""),
    "unknown chunk with a wrong checksum": png_chunk(b"abCd", b"?")[:-4] + WRONG_SUM,
}


@pytest.mark.parametrize("name", PNG_CHUNKS)
@pytest.mark.parametrize("values", [GREY, DEEP])
def test_broken_metadata_of_a_png_is_passed_over_with_a_note(name, values):
    radiograph = read_radiograph(png(values, PNG_CHUNKS[name]))
    np.testing.assert_array_equal(radiograph.pixels, read_radiograph(png(values)).pixels)
    assert radiograph.notes == (PASSED_OVER,)


@pytest.mark.parametrize("name", PNG_CHUNKS)
def test_metadata_after_the_pixels_does_not_matter_either(name):
    radiograph = read_radiograph(png(GREY, after=PNG_CHUNKS[name]))
    np.testing.assert_array_equal(radiograph.pixels[0], GREY / np.float32(255))


def test_what_is_sound_beside_broken_metadata_is_kept():
    exif = Image.Exif()
    exif[0x0112] = 3
    upright = png_chunk(b"eXIf", exif.tobytes()[6:])
    synthetic = png_chunk(b"tEXt", b"Synthetic\0true")
    radiograph = read_radiograph(png(GREY, PNG_CHUNKS["profile of 2 MB"] + upright + synthetic))
    np.testing.assert_array_equal(radiograph.pixels[0], GREY[::-1, ::-1] / np.float32(255))
    assert radiograph.is_synthetic
    assert not read_radiograph(png(GREY, upright)).is_synthetic


def test_a_turn_that_cannot_be_read_leaves_the_picture_as_it_is():
    radiograph = read_radiograph(png(GREY, png_chunk(b"eXIf", b"no EXIF at all")))
    np.testing.assert_array_equal(radiograph.pixels[0], GREY / np.float32(255))
    assert radiograph.notes == ("broken EXIF, so perhaps not upright",)


@pytest.mark.parametrize("name", PNG_CHUNKS)
def test_damaged_pixels_are_refused_whatever_the_metadata(name):
    whole = png(np.tile(GREY, (8, 8)), PNG_CHUNKS[name])
    with pytest.raises(BadImageError):
        read_radiograph(whole[:-200])
    broken = bytearray(whole)
    place = broken.index(b"IDAT") + 40
    broken[place : place + 30] = bytes(30)
    with pytest.raises(BadImageError):
        read_radiograph(bytes(broken))


def test_a_changed_value_that_decompresses_is_damage_too():
    stored = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY), 0)
    plain = png(GREY)
    header, end = plain[: plain.index(b"IDAT") - 4], plain[-12:]
    whole = header + png_chunk(b"IDAT", stored) + end
    np.testing.assert_array_equal(read_radiograph(whole).pixels[0], GREY / np.float32(255))
    changed = bytearray(whole)
    changed[len(header) + 400] ^= 64
    with pytest.raises(BadImageError, match="damaged"):
        read_radiograph(bytes(changed))
    summed = bytearray(whole)
    summed[-13] ^= 1
    with pytest.raises(BadImageError, match="checksum of its pixels"):
        read_radiograph(bytes(summed))


JPEG = encode(Image.fromarray(GREY), "JPEG", quality=98)


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


JPEG_SEGMENTS = {
    "JFIF without content": segment(0xE0, b"JFIF"),
    "EXIF without content": segment(0xE1, b"Exif\0\0"),
    "EXIF of noise": segment(0xE1, b"Exif\0\0" + bytes(range(200))),
    "EXIF that points beyond its end": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
    "profile without numbers": segment(0xE2, b"ICC_PROFILE\0"),
    "profile of noise": segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(range(200))),
    "index of pictures of noise": segment(0xE2, b"MPF\0" + bytes(range(200))),
    "Photoshop without content": segment(0xED, b"Photoshop 3.0\0008BIM"),
    "resolution that is cut": segment(0xED, b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0\0\2ab"),
    "Adobe without content": segment(0xEE, b"Adobe"),
    "comment of 60 kB": segment(0xFE, bytes(60_000)),
}


@pytest.mark.parametrize("name", JPEG_SEGMENTS)
@pytest.mark.parametrize("end", [b"", b"trailing garbage" * 50])
def test_broken_metadata_of_a_jpeg_is_passed_over(name, end):
    radiograph = read_radiograph(JPEG[:2] + JPEG_SEGMENTS[name] + JPEG[2:] + end)
    np.testing.assert_array_equal(radiograph.pixels, read_radiograph(JPEG).pixels)
    with pytest.raises(BadImageError):
        read_radiograph(JPEG[:2] + JPEG_SEGMENTS[name] + JPEG[2:-60])


@pytest.mark.parametrize("seed", range(40))
def test_noise_in_the_tags_of_a_tiff_that_do_not_describe_the_pixels_loses_nothing(seed):
    data = bytearray(tiff(GREY, description="x" * 50, software="y" * 30, datetime=True, resolution=(300, 300)))
    expected = read_radiograph(bytes(data)).pixels
    start = int.from_bytes(data[4:8], "little")
    random = np.random.default_rng(seed)
    for place in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        if int.from_bytes(data[place : place + 2], "little") in (270, 282, 283, 296, 305, 306):
            data[place + 2 : place + 12] = random.integers(0, 256, 10, dtype=np.uint8).tobytes()
    np.testing.assert_array_equal(read_radiograph(bytes(data)).pixels, expected)


@pytest.mark.parametrize(
    ("name", "data"),
    [("x.jpg", JPEG), ("x.png", png(GREY, PNG_CHUNKS["short gamma"])), ("x.tif", tiff(GREY, software="x"))],
)
def test_the_picture_without_metadata_is_the_same_for_a_stranger(name, data, tmp_path):
    versions = list(without_metadata(data))
    assert versions
    for version in versions:
        assert len(version) < len(data) or b"tifffile" not in version
        (tmp_path / name).write_bytes(version)
        np.testing.assert_allclose(skimage.io.imread(tmp_path / name), GREY, atol=8)
