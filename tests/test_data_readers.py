"""Every file format, pixel mode and way of being broken that a radiograph comes in."""

import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pydicom
import pydicom.data
import pytest
import skimage.io
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import MPEG2MPML, ExplicitVRLittleEndian, JPEGLSLossless

from samgan.data import prepare, readers
from samgan.data.readers import READERS, BadImageError, Radiograph, Reader, read_radiograph
from samgan.data.readers.radiograph import BAND_PIXELS

GREY = np.add.outer(np.arange(32) * 4, np.arange(48) * 2).astype(np.uint8)  # 0 to 218, no symmetry


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(values, before=b"", after=b""):
    """Write a PNG of 8 or 16 bits from an array [h, w] or [h, w, 3], with whole chunks before and after the pixels."""
    colour, bits = 2 * (values.ndim == 3), 8 * values.dtype.itemsize
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", zlib.compress(rows, 1)) + after
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def dicom(values, *, bits=12, photometric="MONOCHROME2", **attributes):
    """Build a DICOM file in memory."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = attributes.pop("syntax", ExplicitVRLittleEndian)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = values.shape[2] if values.ndim == 3 else 1
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = values.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 nothing"])
        dataset["PixelData"].is_undefined_length = True
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def palette_image():
    image = Image.fromarray(255 - GREY).convert("P")
    image.putpalette([255 - value for value in range(256) for _ in range(3)])  # index 0 is white
    return image


def floating(image):
    return Image.fromarray(np.asarray(image, dtype=np.float32) / 255)


SMOOTH = Image.fromarray(GREY)
ENCODED = {
    "png grey": encode(SMOOTH),
    "png grey and alpha": encode(SMOOTH.convert("LA")),
    "png palette": encode(palette_image()),
    "png palette with transparency": encode(palette_image(), transparency=0),
    "png colour": encode(SMOOTH.convert("RGB")),
    "png colour and alpha": encode(SMOOTH.convert("RGBA")),
    "jpeg grey": encode(SMOOTH, "JPEG", quality=98),
    "jpeg colour": encode(SMOOTH.convert("RGB"), "JPEG", quality=98),
    "jpeg cmyk": encode(SMOOTH.convert("RGB").convert("CMYK"), "JPEG", quality=98),
    "tiff grey": encode(SMOOTH, "TIFF"),
    "tiff deflate": encode(SMOOTH, "TIFF", compression="tiff_deflate"),
    "tiff cmyk": encode(SMOOTH.convert("RGB").convert("CMYK"), "TIFF"),
    "tiff float": encode(floating(SMOOTH), "TIFF"),
    "bmp": encode(SMOOTH, "BMP"),
    "bmp colour": encode(SMOOTH.convert("RGB"), "BMP"),
    "webp": encode(SMOOTH.convert("RGB"), "WEBP", lossless=True),
    "dicom 8 bit": dicom(GREY, bits=8),
    "dicom colour": dicom(np.repeat(GREY[..., None], 3, axis=2), bits=8, photometric="RGB"),
}


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_encoding_gives_the_same_picture(name, channels):
    radiograph = read_radiograph(ENCODED[name], channels)
    assert radiograph.pixels.shape == (channels, 32, 48)
    assert radiograph.pixels.dtype == np.float32
    assert radiograph.bits == (32 if name == "tiff float" else 8)
    tolerance = 4 / 255 if "jpeg" in name or "palette" in name else 1 / 255
    np.testing.assert_allclose(radiograph.pixels, np.broadcast_to(GREY / 255, (channels, 32, 48)), atol=tolerance)


def test_one_bit_images_are_black_and_white():
    pixels = read_radiograph(encode(SMOOTH.point(lambda value: 255 * (value > 100)).convert("1"))).pixels
    np.testing.assert_array_equal(pixels[0], GREY > 100)


def test_alpha_is_composited_on_black():
    image = Image.merge("LA", [Image.new("L", (16, 16), 200), Image.new("L", (16, 16), 51)])
    image.putpixel((3, 4), (100, 255))
    expected = np.full((1, 16, 16), 200 / 255 * 0.2)
    expected[0, 4, 3] = 100 / 255
    for mode in ("LA", "RGBA"):
        np.testing.assert_allclose(read_radiograph(encode(image.convert(mode))).pixels, expected, atol=1e-5)


def test_colour_becomes_luma():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    pixels = read_radiograph(encode(image)).pixels
    np.testing.assert_allclose(pixels[0], np.asarray(image.convert("L")) / 255, atol=1 / 255)


@pytest.mark.parametrize(
    ("maximum", "bits"),
    [
        (1, 8),
        (255, 8),
        (256, 10),
        (1023, 10),
        (1024, 12),
        (4095, 12),
        (4096, 14),
        (16383, 14),
        (16384, 16),
        (65535, 16),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "TIFF big-endian", "array"])
def test_bit_depth_is_the_smallest_that_holds_the_maximum(maximum, bits, format):
    values = np.linspace(0, maximum, 20 * 30).round().astype(np.uint16).reshape(20, 30)
    if format == "array":
        data = values
    elif format == "TIFF big-endian":
        data = encode(Image.frombytes("I;16B", (30, 20), values.astype(">u2").tobytes()), "TIFF")
    else:
        data = encode(Image.fromarray(values), format)
        np.testing.assert_array_equal(skimage.io.imread(io.BytesIO(data)), values)  # a stranger reads the same file
    radiograph = read_radiograph(data)
    assert radiograph.bits == bits
    np.testing.assert_allclose(radiograph.pixels[0], values / (2**bits - 1), rtol=1e-6)


def test_32_bit_integers_and_negative_values_are_shifted_and_scaled():
    values = np.linspace(-1000, 100_000, 400).astype(np.int32).reshape(20, 20)
    radiograph = read_radiograph(encode(Image.fromarray(values), "TIFF"))
    assert radiograph.bits == 32
    np.testing.assert_allclose(radiograph.pixels[0], (values + 1000) / 101_000, rtol=1e-6)


def test_values_that_are_not_finite_are_refused():
    values = np.full((16, 16), 0.5, dtype=np.float32)
    values[3, 4] = np.nan
    with pytest.raises(BadImageError, match=r"infinite or not a number .NaN.: replace them"):
        read_radiograph(encode(Image.fromarray(values), "TIFF"))


DEEP = np.linspace(0, 65535, 400).round().reshape(20, 20).astype(np.uint16)
DEEP_COLOUR = np.repeat(DEEP[..., None], 3, axis=2)


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


@pytest.mark.parametrize("encode_colour", [png, lambda values: tiff(values, photometric="rgb")])
def test_16_bit_colour_is_read_as_8_bits_where_the_high_byte_is_enough_and_else_refused(encode_colour):
    radiograph = read_radiograph(encode_colour(DEEP_COLOUR))
    assert radiograph.bits == 8
    np.testing.assert_allclose(radiograph.pixels[0], DEEP / 65535, atol=1 / 255)
    with pytest.raises(BadImageError, match="only 12 bits used: save it as 16-bit grey or 8-bit colour"):
        read_radiograph(encode_colour(DEEP_COLOUR // 16))  # 12 bits: the high byte has 16 levels


PLANES = DEEP_COLOUR.transpose(2, 0, 1).copy()
UNSUPPORTED = {
    "separate planes": tiff(PLANES, photometric="rgb", planarconfig="separate"),
    "32-bit colour": tiff(DEEP_COLOUR.astype(np.uint32), photometric="rgb"),
    "16-bit grey and alpha": tiff(DEEP_COLOUR[..., :2], photometric="minisblack", extrasamples=["unassalpha"]),
    "64-bit grey": tiff(DEEP / 65535),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_tiff_that_pillow_does_not_read_is_refused_with_a_remedy(name):
    with pytest.raises(BadImageError, match=r"TIFF.*: save it as 16-bit grey or 8-bit colour"):
        read_radiograph(UNSUPPORTED[name])


def test_16_bit_colour_in_compressed_planes_is_read():
    data = tiff(PLANES, photometric="rgb", planarconfig="separate", compression="zlib")
    np.testing.assert_allclose(read_radiograph(data).pixels[0], DEEP / 65535, atol=1 / 255)


@pytest.mark.parametrize("values", [GREY, DEEP, DEEP // 16, DEEP / np.float32(65535)])
def test_tiff_of_white_zeros_is_inverted_at_every_depth(values):
    plain, inverted = (read_radiograph(tiff(values, photometric=name)) for name in ("minisblack", "miniswhite"))
    assert inverted.bits == plain.bits
    np.testing.assert_allclose(inverted.pixels, 1 - plain.pixels, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_honoured(orientation, format):
    undo = {  # how to store an upright image so that the tag turns it upright
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = SMOOTH if orientation == 1 else SMOOTH.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, format, exif=exif, **({"quality": 98} if format == "JPEG" else {}))
    pixels = read_radiograph(data).pixels
    assert pixels.shape == (1, 32, 48)
    np.testing.assert_allclose(pixels[0], GREY / 255, atol=8 / 255)


def packed(values, bits):
    """The rows of a PNG's pixels of fewer than 8 bits."""
    return b"".join(
        b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].reshape(-1)).tobytes() for row in values
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_black_at_every_depth_of_png(bits):
    values = np.arange(16 * 32).reshape(16, 32) * 120 >> (16 - bits)
    grey = 5 << (bits - 3) if bits > 2 else 1
    values[3:5, 8:20] = grey
    values[0, 0] = 2**bits - 1  # else 16 bits would count as 14
    if bits == 1:
        values[:, ::2] = 0
    rows = packed(values.astype(np.uint8), bits) if bits < 16 else png_rows(values.astype(">u2"))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 16, bits, 0, 0, 0, 0))
    transparent = png_chunk(b"tRNS", struct.pack(">H", grey if bits > 1 else 0))
    data = b"\x89PNG\r\n\x1a\n" + header + transparent + png_chunk(b"IDAT", zlib.compress(rows))
    expected = np.where(values == (grey if bits > 1 else 0), 0, values) / (2**bits - 1)
    radiograph = read_radiograph(data + png_chunk(b"IEND", b""), explain=True)
    np.testing.assert_allclose(radiograph.pixels[0], expected, atol=1e-6)
    assert sum("transparency on black" in step.what for step in radiograph.steps) == 1


def png_rows(values):
    return b"".join(b"\0" + row.tobytes() for row in values)


@pytest.mark.parametrize(("kind", "top"), [(np.uint32, 2**32 - 1), (np.uint32, 70_000), (np.int32, 2**31 - 1)])
def test_32_bit_grey_keeps_its_sign(kind, top):
    values = (GREY / GREY.max() * top).astype(kind)
    if kind == np.int32:
        values -= 2**30
    low, high = min(0, int(values.min())), int(values.max())
    radiograph = read_radiograph(tiff(values), explain=True)
    np.testing.assert_allclose(radiograph.pixels[0], (values.astype(float) - low) / (high - low), atol=1e-6)
    assert (radiograph.steps[0].low, radiograph.steps[0].high) == (values.min(), high)


def test_only_the_transparent_colour_is_black_and_not_others_as_bright():
    colours = np.repeat(GREY[..., None], 3, axis=2)
    colours[10, 10], colours[20, 20] = (200, 0, 0), (60, 60, 60)  # as luma, both are 60
    data = png(colours, png_chunk(b"tRNS", struct.pack(">3H", 200, 0, 0)))
    expected = np.array(colours[..., 1])
    expected[10, 10] = 0
    np.testing.assert_allclose(read_radiograph(data).pixels[0], expected / 255, atol=1e-6)


def test_a_small_tiff_of_very_many_pages_is_refused_at_once():
    data = bytearray(tiff(GREY))
    start = struct.unpack_from("<I", data, 4)[0]
    page = data[start : start + 2 + 12 * struct.unpack_from("<H", data, start)[0]]
    place = start + len(page)
    for _ in range(30_000):
        data[place : place + 4] = struct.pack("<I", len(data))
        data += page + bytes(4)
        place = len(data) - 4
    with pytest.raises(BadImageError, match=r"holds more than 1,000 frames; expected one radiograph"):
        read_radiograph(bytes(data))


IN_ONE_STRIP = {"compression": "tiff_deflate", "tiffinfo": {278: 32}}


@pytest.mark.parametrize(
    ("format", "options", "each"),  # bytes of a pixel: Pillow's 4, ours 4, and the decoder's
    [("PNG", {}, 8), ("TIFF", {}, 8), ("TIFF", IN_ONE_STRIP, 8 + 3), ("WEBP", {"lossless": True}, 8 + 12)],
)
def test_the_memory_of_decoders_is_reserved_beside_that_of_the_picture(format, options, each):
    asked = []
    read_radiograph(encode(Image.merge("RGB", [SMOOTH] * 3), format, **options), reserve=asked.append)
    assert asked == [each * 48 * 32]


def multipage():
    return encode(SMOOTH, "TIFF", save_all=True, append_images=[SMOOTH])


def bomb():
    """A PNG of 60 bytes that claims 400 million pixels."""
    data = bytearray(encode(SMOOTH))
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def large(side):
    data = bytearray(encode(SMOOTH))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


JPEG = ENCODED["jpeg grey"]
BAD = {
    "empty": (b"", "an empty file"),
    "text": (b"this is no image at all\n" * 20, "text, not an image"),
    "truncated jpeg": (JPEG[:-60], "truncated"),
    "truncated png": (ENCODED["png grey"][:-40], "damaged"),
    "broken png": (ENCODED["png grey"][:60] + b"\0" * 9 + ENCODED["png grey"][69:], "damaged"),
    "truncated dicom": (ENCODED["dicom 8 bit"][:-100], "truncated: expected 1536 bytes of pixels, found 1436"),
    "1x1": (encode(Image.new("L", (1, 1))), "1x1 is smaller than 8x8"),
    "7 high": (encode(Image.new("L", (100, 7))), "100x7 is smaller than 8x8"),
    "bomb": (bomb(), "pixels"),
    "just too large": (large(14_500), "pixels"),
    "large but no bomb": (large(10_000), "truncated"),  # PIL by itself warns from 89 million pixels on
    "several pages": (multipage(), "holds 2 frames"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "PostScript, which is not read here"),
    "gif": (encode(SMOOTH, "GIF"), "GIF, which is not read here: convert it to PNG"),
    "dicom without pixels": (dicom(GREY)[:132] + dicom(GREY)[132:].split(b"\xe0\x7f\x10\x00")[0], "without pixel data"),
    "multi-frame dicom": (dicom(np.vstack([GREY, GREY]), bits=8, NumberOfFrames=2, Rows=32), "multi-frame"),
    "tiny dicom": (dicom(GREY[:4]), "48x4 is smaller"),
    "no decoder": (dicom(GREY, bits=8, syntax=MPEG2MPML), "no decoder for DICOM MPEG2"),
    "not what it says": (dicom(GREY, bits=8, syntax=JPEGLSLossless), "damaged"),
    "several pages, cut off": (multipage()[:1700], "a TIFF of several pages, and page 2 is damaged or cut off: copy"),
    "signed bytes": (tiff(GREY.astype(np.int8)), "8-bit signed TIFF, .*: save it as unsigned 8-bit or 16-bit grey"),
    "64 bits": (
        tiff(GREY.astype(np.float64)),
        "TIFF, or one of a depth or compression that is not",
    ),
    "deep colour, one transparent": (
        png(np.repeat(GREY.astype(np.uint16)[..., None] * 257, 3, axis=2), png_chunk(b"tRNS", bytes(6))),
        "16-bit colour PNG with a transparent colour, which is not read: save it as 16-bit grey",
    ),
    "array of three dimensions": (np.zeros((16, 16, 16), dtype=np.uint8), r"expected .* \[h, w, 3\], found"),
    "array of text": (np.full((16, 16), "x"), r"expected .* \[h, w, 3\], found"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_with_its_reason_in_one_line(name):
    data, reason = BAD[name]
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(BadImageError, match=reason) as caught:
        read_radiograph(data)
    assert "\n" not in str(caught.value)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("keep", np.linspace(0.02, 0.97, 12))
@pytest.mark.parametrize("name", ["jpeg grey", "png grey", "tiff grey", "bmp", "webp", "dicom 8 bit"])
def test_a_file_cut_anywhere_gives_no_part_of_a_picture(name, keep):
    whole = read_radiograph(ENCODED[name]).pixels
    try:
        pixels = read_radiograph(ENCODED[name][: int(len(ENCODED[name]) * keep)]).pixels
    except BadImageError:
        return
    np.testing.assert_array_equal(pixels, whole)  # a lost checksum behind the last pixel loses nothing


BLANK = {
    "8-bit grey": (png(np.full((16, 16), 7, np.uint8)), 7),
    "colour": (png(np.full((16, 16, 3), 255, np.uint8)), 255),
    "16-bit grey": (png(np.zeros((16, 16), np.uint16)), 0),
    "jpeg": (encode(Image.new("L", (16, 16), 0), "JPEG"), 0),
    "tiff of white zeros": (tiff(np.zeros((16, 16), np.uint16), photometric="miniswhite"), 255),
    "dicom": (dicom(np.zeros((16, 16), np.uint16)), 0),
    "array": (np.full((16, 16), 255, np.uint8), 255),
}


@pytest.mark.parametrize("name", BLANK)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_one_value_is_refused(name, channels):
    data, value = BLANK[name]
    with pytest.raises(BadImageError, match=f"every pixel has the value {value} "):
        read_radiograph(data, channels)


def test_one_odd_pixel_anywhere_makes_a_picture():
    for place in (0, 100, 255):
        values = np.zeros(256, np.uint8)
        values[place] = 1
        assert read_radiograph(png(values.reshape(16, 16))).pixels.max() > 0


def with_frame(marker, bits):
    """The grey JPEG, whose header now says that it is coded in another way."""
    data = bytearray(JPEG)
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = marker, bits
    return bytes(data)


KINDS = {
    "12-bit jpeg": (
        with_frame(0xC1, 12),
        r"a kind of JPEG that is not read here \(12-bit\): convert it to 8-bit JPEG or",
    ),
    "lossless jpeg": (with_frame(0xC3, 16), r"not read here \(16-bit, lossless\): convert"),
    "arithmetic jpeg": (with_frame(0xC9, 12), r"not read here \(12-bit, arithmetic coding\)"),
    "jpeg-ls": (with_frame(0xF7, 8), "JPEG-LS, which is not read here: convert it to PNG"),
    "jpeg 2000": (encode(SMOOTH, "JPEG2000"), "JPEG 2000, which is not read here: convert it to PNG"),
    "avif": (encode(SMOOTH, "AVIF"), "AVIF, which is not read here"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(300), "HEIC, which is not read here"),
    "photoshop": (b"8BPS\0\1" + bytes(300), "a Photoshop file"),
    "nifti": (b"\x5c\1\0\0" + bytes(340) + b"n+1\0" + bytes(99), "NIfTI, which is not read here: export its images"),
    "gzip": (b"\x1f\x8b\x08" + bytes(range(200)), "a compressed file"),
    "web page": (b"\r\n<!DOCTYPE html>\n<html>" + b"x" * 200, "a web page, not an image: download again"),
    "web page without doctype": (b"<HTML><body>404" + b"x" * 200, "a web page, not an image: download again"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a pointer of Git LFS"),
    "nothing but zeros": (bytes(5000), "nothing but zero bytes: copy or download it again"),
    "pdf": (b"%PDF-1.7\n" + bytes(200), "PDF, which is not read here"),
    "zip": (b"PK\3\4" + bytes(200), "unpack it"),
    "macos": (b"\0\5\x16\7" + bytes(200), "what macOS notes about another file"),
    "png with a broken header": (png(GREY)[:20] + bytes(9) + png(GREY)[29:], "damaged PNG: copy or download it again"),
    "jpeg that ends early": (JPEG[:30], "damaged .*Truncated.*: copy or download it again"),
    "bmp of an unknown kind": (b"BM" + bytes(range(200)), "damaged"),
    "unknown": (bytes(range(7, 200)), "not an image .expected DICOM, PNG"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_is_no_image_here_is_called_what_it_is(name):
    data, reason = KINDS[name]
    with pytest.raises(BadImageError, match=reason):
        read_radiograph(data)


def test_what_decoders_print_about_damaged_files_never_shows(capfd):
    data = bytearray(tiff(np.tile(DEEP, (9, 9)), compression="zlib"))
    for place in range(len(data) // 2, len(data) // 2 + 30):
        data[place] ^= 255
    with Image.open(io.BytesIO(bytes(data))) as image, pytest.raises(OSError, match="decoder error"):
        image.load()
    assert "ZIPDecode" in capfd.readouterr().err  # so it would show
    with pytest.raises(BadImageError, match="damaged"):
        read_radiograph(bytes(data))
    os.write(2, b"back again")
    assert capfd.readouterr().err == "back again"


def test_what_python_prints_meanwhile_does_show(run_script):
    script = """
import json, os, subprocess, sys
code = "import os, sys; from samgan.data.readers import strict_decoders\\n"
code += "with strict_decoders():\\n print('seen', file=sys.stderr); os.write(2, b'dropped')\\nos.write(2, b'after')"
print(json.dumps(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr))
"""
    assert run_script(script) == "seen\nafter"


def test_a_large_picture_with_transparency_needs_little_memory():
    """In bands, so beside the stored picture there is one value of 4 bytes for each pixel."""
    image = Image.fromarray(np.tile(GREY, (100, 60))).convert("RGBA")  # 9 million pixels
    data = encode(image, compress_level=1)
    tracemalloc.start()
    pixels = read_radiograph(data).pixels
    _, peak = tracemalloc.get_traced_memory()  # of numpy's arrays; Pillow's own 4 bytes are not counted
    tracemalloc.stop()
    assert peak < 4 * pixels.size + 60 * BAND_PIXELS
    np.testing.assert_allclose(pixels[0, :32, :48], GREY / 255, atol=1e-6)


def test_a_reader_is_one_entry(tmp_path, monkeypatch):
    """What it recognises is found in a folder without a suffix, and read."""

    def read(data, channels):
        return Radiograph(np.tile(np.float32([0, data[4] / 255]), (1, 16, 8)), 8)

    monkeypatch.setattr(readers, "READERS", (Reader("toy", (), lambda head: head[:4] == b"TOY!", read), *READERS))
    (tmp_path / "A").mkdir()
    for shade in (50, 200):
        (tmp_path / "A" / f"{shade}").write_bytes(b"TOY!" + bytes([shade]))
    prepared = prepare(tmp_path, tmp_path.with_name("out"), resolution=8, workers=1)
    assert [round(image.mean()) for image in prepared.images] == [100, 25]
    with pytest.raises(BadImageError, match="expected toy, DICOM, PNG, JPEG, TIFF, BMP or WebP"):
        read_radiograph(b"\xaa" * 200)
