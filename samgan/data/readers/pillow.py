"""Read PNG, JPEG, TIFF, BMP and WebP with Pillow."""

import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Num
from PIL import Image

from samgan.data.readers.metadata import PASSED_OVER, PNG_MAGIC, png_pixels_are_sound, png_texts, without_metadata
from samgan.data.readers.radiograph import (
    BadImageError,
    Extremes,
    NoImageError,
    Radiograph,
    Reading,
    Scale,
    Step,
    apply_scale,
    bands,
    check_fits,
    check_size,
    scale_for,
    to_channels,
)

PIL_FORMATS = (
    "PNG",
    "JPEG",
    "TIFF",
    "BMP",
    "WEBP",
)  # a closed list, so that Pillow's other readers (PostScript, ...) never run
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR_CONFIGURATION = 258, 262, 284  # tags of TIFF
ROWS_PER_STRIP, TILE_LENGTH, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 278, 323, 277, 339
SIGNED = 2
"""Value of SAMPLE_FORMAT."""
MOST_FRAMES = 1000
"""Frames of a TIFF are counted up to here: Pillow reads the tags of each, and a small file may name 100,000."""
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
DEPTH_REMEDY = "save it as 16-bit grey or 8-bit colour"
UNSIGNED_REMEDY = "save it as unsigned 8-bit or 16-bit grey"
ORIENTATION = 0x0112  # tag of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF's Orientation."""
TURN_PASSED_OVER = "broken EXIF, so perhaps not upright"
STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""Of a pixel in memory, by Pillow's mode; 4 for all others."""
WEBP_BYTES = 12
"""Of a pixel, while WebP is decoded: two canvases of libwebp and their copy as bytes, beside Pillow's own."""

MODE_NAMES = {
    "1": "black and white",
    "L": "8-bit grey",
    "LA": "8-bit grey with transparency",
    "P": "8-bit palette",
    "RGB": "8-bit colour",
    "RGBA": "8-bit colour with transparency",
    "CMYK": "8-bit CMYK",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "I": "32-bit or signed grey",
    "F": "floating-point grey",
}
"""Pillow's modes in words."""


TO_COLOUR = {
    "P": "palette: the red, green and blue of each index",
    "PA": "palette: the red, green and blue of each index",
    "CMYK": "colour from CMYK: (255 - ink) * (255 - black) / 255",
    "LAB": "colour from CIELAB, by Pillow",
}
"""Modes that Pillow turns into red, green and blue, and how."""


class _Picture(NamedTuple):
    """An opened file."""

    image: Image.Image
    """Upright."""
    is_unsigned: bool
    """Whether the values are unsigned integers of 32 bits, which Pillow holds as signed."""
    format: str
    stored_bits: int
    """Of a grey value or an index of a palette, as the file has them; 8 for everything else."""
    deep_colour: bool
    declared_bits: int
    """0: the format does not declare how many bits are used."""
    white_is_zero: bool
    orientation: int
    notes: tuple[str, ...]


def read_pillow(data: bytes, reading: Reading) -> Radiograph:
    """Decode one file; a TIFF or PNG of 16-bit grey keeps its depth, everything else has 8 bits."""
    picture = _open(data, reading)
    is_grey_deep = _is_deep_grey(picture.image)
    steps = tuple(_steps_of_file(picture)) if reading.explain else ()
    if is_grey_deep:
        pixels, bits, more = _read_deep_grey(picture, reading)
    else:
        pixels, bits, more = _read_eight_bits(picture, reading)
    is_png = data.startswith(PNG_MAGIC)
    if is_png and not png_pixels_are_sound(data):
        raise BadImageError("damaged (the checksum of its pixels is wrong): copy or download it again")
    texts = png_texts(data) if is_png else {}
    is_synthetic = texts.get("Synthetic", "").lower() == "true"
    if is_synthetic and texts.get("Seed", "").endswith("...") and "Latent" not in texts:
        raise NoImageError("an overview of several synthetic images, made by samgan sample --sheets")
    return Radiograph(
        pixels, bits, is_synthetic=is_synthetic, notes=picture.notes, steps=(*steps, *more) if reading.explain else ()
    )


def may_lack_depth(head: bytes) -> bool:
    """Tell from a file's first 32 bytes whether it may be an image whose format does not declare its bit depth."""
    if head.startswith(PNG_MAGIC):
        return head[24:26] == b"\x10\0"  # 16 bits, grey
    return head.startswith(TIFF_MAGIC)


def extremes_of_file(data: bytes, reading: Reading) -> Extremes | None:
    """The extremes of an image whose format does not declare its bit depth; None for every other image."""
    with Image.open(io.BytesIO(data), formats=PIL_FORMATS) as opened:
        if not _is_deep_grey(opened) or _declared_bits(opened):
            return None
    picture = _open(data, reading)
    return Extremes(*_extremes(picture), picture.image.mode == "F")


def _open(data: bytes, reading: Reading) -> _Picture:
    """Decode a file; if that fails, without its metadata."""
    try:
        return _load(data, reading)
    except (BadImageError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception as error:  # decoders raise nearly anything
        problem = error
    for version in without_metadata(data):
        try:
            picture = _load(version, reading)
            return picture._replace(notes=(PASSED_OVER, *picture.notes))
        except Image.UnidentifiedImageError:
            continue  # the first problem says more
        except (BadImageError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise
        except Exception as error:
            problem = error
    raise problem


def _load(data: bytes, reading: Reading) -> _Picture:
    with Image.open(io.BytesIO(data), formats=PIL_FORMATS) as opened:
        check_size(*opened.size)
        _check_one_frame(opened)
        deep_colour = _is_deep_colour(opened, data)
        tags: Mapping[int, Any] = opened.tag_v2 if opened.format == "TIFF" else {}  # type: ignore[attr-defined]
        if deep_colour and tags.get(PLANAR_CONFIGURATION) == 2 and opened.info.get("compression") == "raw":
            raise BadImageError(f"16-bit colour TIFF in separate planes, which Pillow reads wrongly: {DEPTH_REMEDY}")
        if opened.mode == "L" and SIGNED in _values(tags.get(SAMPLE_FORMAT)):
            raise BadImageError(f"8-bit signed TIFF, which Pillow reads wrongly: {UNSIGNED_REMEDY}")
        if deep_colour and "transparency" in opened.info:
            raise BadImageError(f"16-bit colour PNG with a transparent colour, which is not read: {DEPTH_REMEDY}")
        reading.reserve(opened.width * opened.height * 4 * reading.channels + _bytes_to_decode(opened, tags))
        bits = _declared_bits(opened)
        opened.load()
        _scale_transparency(opened, data)
        orientation = 1
        notes: tuple[str, ...] = ()
        try:
            orientation = opened.getexif().get(ORIENTATION, 1)
        except Exception:
            notes = (TURN_PASSED_OVER,)
        turn = TURNS.get(orientation) if isinstance(orientation, int) else None
        return _Picture(
            image=opened.transpose(turn) if turn is not None else opened,
            is_unsigned=opened.mode == "I"
            and opened.format == "TIFF"
            and SIGNED not in _values(tags.get(SAMPLE_FORMAT)),
            format=opened.format or "",
            stored_bits=_stored_bits(opened, data),
            deep_colour=deep_colour,
            declared_bits=bits,
            white_is_zero=tags.get(PHOTOMETRIC) == 0,
            orientation=orientation if turn is not None else 1,
            notes=notes,
        )


def _check_one_frame(opened: Image.Image) -> None:
    """Raise BadImageError for an animation or a file of several pages."""
    if opened.format == "MPO" or not getattr(opened, "is_animated", False):  # MPO: a JPEG with a preview after it
        return
    if opened.format == "TIFF":
        frames = 1
        try:
            while frames <= MOST_FRAMES:
                opened.seek(frames)
                frames += 1
        except EOFError:
            pass
        except Exception as error:
            raise BadImageError(
                f"expected one radiograph, found a TIFF of several pages, and page {frames + 1} is damaged or cut "
                "off: copy or download it again, or save its right page alone"
            ) from error
        if frames == 1:
            return
        found = str(frames) if frames <= MOST_FRAMES else f"more than {MOST_FRAMES:,}"
    else:
        found = str(opened.n_frames)  # type: ignore[attr-defined]
    raise BadImageError(f"holds {found} frames; expected one radiograph")


def _values(tag: Any) -> tuple[Any, ...]:
    """The values of a TIFF's tag: Pillow gives a single one without a tuple."""
    return tag if isinstance(tag, tuple) else (tag,)


def _bytes_to_decode(opened: Image.Image, tags: Mapping[int, Any]) -> int:
    """Memory that Pillow and the decoder need at a time for the stored pixels."""
    pixels = opened.width * opened.height
    size = pixels * STORED_BYTES.get(opened.mode, 4)
    if opened.format == "WEBP":
        return size + WEBP_BYTES * pixels
    if opened.format == "TIFF" and opened.info.get("compression") != "raw":  # libtiff decodes a whole strip or tile
        rows = _values(tags.get(TILE_LENGTH, tags.get(ROWS_PER_STRIP)))[0]
        rows = min(rows, opened.height) if isinstance(rows, int) else opened.height
        bits = _values(tags.get(BITS_PER_SAMPLE, 8))[0] * _values(tags.get(SAMPLES_PER_PIXEL, 1))[0]
        return size + opened.width * rows * bits // 8
    return size


def _scale_transparency(image: Image.Image, data: bytes) -> None:
    """Scale the transparent grey of a PNG of 2 or 4 bits to 8 bits, which Pillow does for its pixels only."""
    grey = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(grey, int):
        image.info["transparency"] = grey * {2: 85, 4: 17}.get(data[24], 1)


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _stored_bits(image: Image.Image, data: bytes) -> int:
    if image.mode not in ("1", "L", "P"):
        return 8
    if image.mode == "1":
        return 1
    if image.format == "PNG":
        return data[24]
    return _values(image.tag_v2.get(BITS_PER_SAMPLE, 8))[0] if image.format == "TIFF" else 8  # type: ignore[attr-defined]


def _is_deep_colour(image: Image.Image, data: bytes) -> bool:
    """Tell whether Pillow reduces 16 bits per channel to 8, as it does for everything but plain grey."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if image.format == "PNG":
        return data[24] == 16  # bit depth in IHDR, always the first chunk
    if image.format == "TIFF":
        return image.tag_v2.get(BITS_PER_SAMPLE, (8,))[0] == 16  # type: ignore[attr-defined]
    return False


def _declared_bits(image: Image.Image) -> int:
    """The depth of deep grey if the format declares it, else 0: 16 and 32 only say how many bits were set aside."""
    if image.format != "TIFF":
        return 0
    bits = image.tag_v2.get(BITS_PER_SAMPLE, (8,))[0]  # type: ignore[attr-defined]
    return bits if 8 < bits < 16 else 0


def _parts(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """The rows of an image in bands, so that no second copy of the whole is made."""
    for band in bands(image.height, image.width):
        yield band, image.crop((0, band.start, image.width, band.stop))


def _stored_parts(picture: _Picture) -> Iterator[tuple[slice, Num[np.ndarray, "h w ..."]]]:
    """The rows of an image in bands, with the values as the file has them."""
    for band, part in _parts(picture.image):
        values = np.asarray(part)
        yield band, values.view(np.uint32) if picture.is_unsigned else values


def _extremes(picture: _Picture) -> tuple[float, float]:
    """The smallest and largest stored value; not a number if there is such a value."""
    found = [(values.min(), values.max()) for _, values in _stored_parts(picture)]
    return float(np.min([low for low, _ in found])), float(np.max([high for _, high in found]))


def _read_deep_grey(picture: _Picture, reading: Reading) -> tuple[Float32[np.ndarray, "1 h w"], int, list[Step]]:
    """Scale 16-bit and 32-bit integers and floating-point numbers."""
    image, is_float = picture.image, picture.image.mode == "F"
    transparent = image.info.get("transparency") if picture.format == "PNG" else None
    low, high = _extremes(picture)
    scale = scale_for(low, high, is_float)
    if picture.declared_bits:
        scale = Scale(0.0, 2.0**picture.declared_bits - 1, picture.declared_bits, "declared by the TIFF")
    elif given := (reading.scales.floats if is_float else reading.scales.integers):
        scale = given
        check_fits(low, high, scale)
    pixels = np.empty((1, image.height, image.width), dtype=np.float32)
    for band, values in _stored_parts(picture):
        scaled = apply_scale(values, scale)
        # White is zero: Pillow inverts 8 bits and fewer, not these.
        pixels[0, band] = 1 - scaled if picture.white_is_zero else scaled
        if transparent is not None:
            pixels[0, band][values == transparent] = 0
    if not reading.explain:
        return pixels, scale.bits, []
    top = (scale.high - scale.low) or 1.0
    steps = [
        Step(
            f"scale: (value - {scale.low:,.10g}) / {top:,.10g}, {scale.bits} bits ({scale.origin})",
            (low - scale.low) / top,
            (high - scale.low) / top,
        )
    ]
    if picture.white_is_zero:
        steps.append(Step("white is zero: 1 - value", float(pixels.min()), float(pixels.max())))
    if transparent is not None:
        words = f"transparency on black: the stored value {transparent:,} is transparent"
        steps.append(Step(words, float(pixels.min()), float(pixels.max())))
    return pixels, scale.bits, steps


def _read_eight_bits(picture: _Picture, reading: Reading) -> tuple[Float32[np.ndarray, "c h w"], int, list[Step]]:
    """Scale every other mode to grey or RGB; transparency is composited on black."""
    image = picture.image
    grey = image.mode in ("1", "L", "LA", "La") and not (image.mode in ("1", "L") and image.has_transparency_data)
    channels = 1 if grey or reading.channels == 1 else 3
    pixels = np.empty((channels, image.height, image.width), dtype=np.float32)
    for band, part in _parts(image):
        values = _eight_bit_values(part, reading.channels) / np.float32(255)
        pixels[:, band] = to_channels(values.transpose(2, 0, 1), channels)
    if picture.deep_colour:
        # Pillow keeps only the high byte. That is exact enough, unless the picture is in the low byte.
        used_bits = 8 + round(255 * float(pixels.max())).bit_length()
        if used_bits < 14:
            raise BadImageError(f"16-bit colour or alpha with only {used_bits} bits used: {DEPTH_REMEDY}")
    if not reading.explain:
        return pixels, 8, []
    low, high = float(pixels.min()), float(pixels.max())
    steps = []
    if _has_alpha(image):
        steps.append(Step("transparency on black: value * alpha / 255", 255 * low, 255 * high))
    if not grey and channels == 1:
        steps.append(Step("grey from colour: 0.299 red + 0.587 green + 0.114 blue", 255 * low, 255 * high))
    return pixels, 8, [*steps, Step("scale: value / 255, 8 bits (8-bit images always have this scale)", low, high)]


def _has_alpha(image: Image.Image) -> bool:
    return image.has_transparency_data or image.mode == "PA"


def _eight_bit_values(image: Image.Image, channels: int) -> Float32[np.ndarray, "h w c"]:
    """Convert any mode of 8 bits or fewer to grey or RGB in [0, 255]; transparency is composited on black."""
    if channels == 1 and image.mode in ("RGB", "YCbCr") and not _has_alpha(image):
        image = image.convert("L")  # the common case, three times faster than with floating point
    if _has_alpha(image):
        grey = image.mode in ("LA", "La")
        values = np.asarray(image.convert("LA" if grey else "RGBA"), dtype=np.float32)
        return values[..., :-1] * (values[..., -1:] / 255)
    grey = image.mode in ("1", "L")
    return np.atleast_3d(np.asarray(image.convert("L" if grey else "RGB"), dtype=np.float32))


def _steps_of_file(picture: _Picture) -> Iterator[Step]:
    """What was stored, the turn, and what Pillow itself does to the values of 8 bits and fewer."""
    image, bits = picture.image, picture.stored_bits
    low, high = _extremes(picture)
    depth = " of 16 bits, of which the high 8 are read" if picture.deep_colour else ""
    kind = MODE_NAMES.get(image.mode, f"mode {image.mode}").replace("8-bit", f"{bits}-bit")
    stored = f"stored: {picture.format}, {kind}{depth}, {image.width}x{image.height} pixels"
    if image.mode not in ("1", "L"):
        yield Step(stored, low, high)
    else:
        top = 2**bits - 1
        low, high = (round(value * top / (1 if image.mode == "1" else 255)) for value in (low, high))
        yield Step(stored, top - high, top - low) if picture.white_is_zero else Step(stored, low, high)
        if picture.white_is_zero:
            yield Step(f"white is zero: {top} - value", low, high)
        if bits < 8:
            yield Step(f"to 8 bits: {255 // top} * value", 255 // top * low, 255 // top * high)
    if picture.orientation != 1:
        yield Step(f"turned upright: EXIF orientation {picture.orientation}", low, high)
    if image.mode in TO_COLOUR:
        ends = [
            (values.min(), values.max()) for values in (np.asarray(part.convert("RGB")) for _, part in _parts(image))
        ]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        yield Step(TO_COLOUR[image.mode], float(low), float(high))
