"""Decode DICOM's pixels to words as they are stored: no bit is shifted or masked here."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt

from samgan.data.readers.dicom.attributes import Attributes, name_of
from samgan.data.readers.dicom.codecs import JPEG_12_BIT, Decoder, find_decoder
from samgan.data.readers.dicom.file import PixelElement
from samgan.data.readers.radiograph import BadImageError, check_size

JPEG_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}  # markers of a frame's head; F7: JPEG-LS
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
JPEG_SIGNED = ("1.2.840.10008.1.2.4.8", "1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
"""JPEG-LS and JPEG 2000: a codestream of fewer bits than Bits Stored has its sign in its own highest bit."""
JPEG_SEQUENTIAL = ("1.2.840.10008.1.2.4.50", JPEG_12_BIT)
GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


class PixelFormat(NamedTuple):
    """How the pixels are stored (DICOM PS3.3, C.7.6.3; PS3.5, 8.1.1)."""

    rows: int
    columns: int
    samples: int
    """1 or 3 per pixel."""
    photometric: str
    planar: int
    allocated: int
    """Bits of a word: 1, 8, 16 or 32."""
    stored: int
    """Bits that are used of each word."""
    high_bit: int
    """Number of the highest bit that is used."""
    signed: bool

    @property
    def shift(self) -> int:
        """Number of bits below those that are used."""
        return self.high_bit + 1 - self.stored

    @property
    def frame_bytes(self) -> int:
        """Length of one frame that is not compressed."""
        pixels = self.rows * self.columns
        if self.photometric == "YBR_FULL_422":
            return 2 * pixels * self.allocated // 8  # two pixels share their colour
        return (pixels * self.samples * self.allocated + 7) // 8


class Codestream(NamedTuple):
    """What a compressed picture says of itself."""

    bits: int
    width: int
    height: int
    samples: int


def read_format(attributes: Attributes) -> PixelFormat:
    """Read the format of the pixels; what is missing or senseless is filled in where that is safe, with a note.

    Raises:
        BadImageError: an attribute is missing or senseless without which the picture cannot be told.
    """
    rows, columns = (_needed(attributes, keyword, 1, 65535) for keyword in ("Rows", "Columns"))
    check_size(columns, rows)
    if _is_stretched(attributes):
        attributes.note("pixels that are not square: shown as they are stored")
    frames = attributes.whole("NumberOfFrames", 1, 2**31)
    if (frames or 1) > 1:
        raise BadImageError(f"multi-frame DICOM ({frames} frames); expected one radiograph")
    photometric = attributes.text("PhotometricInterpretation").upper()
    samples = attributes.whole("SamplesPerPixel", 1, 4)
    if samples is None:
        samples = 3 if photometric in COLOUR else 1
        attributes.note(f"no {name_of('SamplesPerPixel')}: taken from the colour space")
    if not photometric:
        shape = attributes.text("PresentationLUTShape").upper()
        photometric = {"IDENTITY": "MONOCHROME2", "INVERSE": "MONOCHROME1"}.get(shape, "") if samples == 1 else ""
        if not photometric:
            raise BadImageError("DICOM without Photometric Interpretation: cannot tell black from white")
        attributes.note("no Photometric Interpretation: taken from Presentation LUT Shape")
    expected = {1: GREY, 3: COLOUR}.get(samples, ())
    if photometric not in expected:
        known = photometric if photometric in (*GREY, *COLOUR) else "an unknown Photometric Interpretation"
        raise BadImageError(
            f"DICOM of {samples} samples per pixel with {known}: expected 1 with {', '.join(GREY)} or 3 with "
            f"{', '.join(COLOUR)}"
        )
    allocated = _needed(attributes, "BitsAllocated", 1, 64)
    if allocated not in (1, 8, 16, 32):
        raise BadImageError(f"DICOM with Bits Allocated {allocated}: expected 1, 8, 16 or 32")
    stored, high_bit = _bits(attributes, allocated)
    signed = attributes.whole("PixelRepresentation", 0, 1)
    if signed is None:
        attributes.note("no usable Pixel Representation: taken as unsigned")
    if samples == 3 and signed:
        attributes.pass_over("senseless", "PixelRepresentation")
    planar = attributes.whole("PlanarConfiguration", 0, 1) if samples == 3 else 0
    if planar is None:
        attributes.note("no usable Planar Configuration: taken as colour by pixel")
    if planar and photometric == "YBR_FULL_422":  # two pixels share their colour: there are no planes of one size
        attributes.note("Planar Configuration by plane of YBR_FULL_422 passed over")
        planar = 0
    signed = bool(signed) and samples == 1
    return PixelFormat(rows, columns, samples, photometric, planar or 0, allocated, stored, high_bit, signed)


def _is_stretched(attributes: Attributes) -> bool:
    """Whether rows and columns are more than 1 % differently far apart (DICOM PS3.3, 10.7.1.3 and C.7.6.3.1.7)."""
    silent = Attributes(attributes.dataset, [], attributes.little_endian)  # most files have one of these at most
    pairs = (silent.numbers(keyword) for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"))
    return any(len(pair) == 2 and min(pair) > 0 and max(pair) > 1.01 * min(pair) for pair in pairs)


def _needed(attributes: Attributes, keyword: str, low: int, high: int) -> int:
    value = attributes.whole(keyword, low, high)
    if value is None:
        raise BadImageError(f"DICOM without {name_of(keyword)}, or with an impossible one")
    return value


def _bits(attributes: Attributes, allocated: int) -> tuple[int, int]:
    """Bits Stored and High Bit; from each other or from Bits Allocated where one is missing or impossible."""
    stored = attributes.whole("BitsStored", 1, allocated)
    high_bit = attributes.whole("HighBit", (stored or 1) - 1, allocated - 1)
    if stored is None:
        # a High Bit below the top tells the depth; the top one may belong to values at the upper end of each word
        stored = allocated if high_bit is None else high_bit + 1
        attributes.note(f"no usable Bits Stored: taken from {'Bits Allocated' if high_bit is None else 'High Bit'}")
    if high_bit is None:
        high_bit = stored - 1
        attributes.note("no usable High Bit: Bits Stored - 1 taken")
    return stored, high_bit


def decode(
    element: PixelElement, syntax: str, pixels: PixelFormat, attributes: Attributes
) -> tuple[UInt[np.ndarray, "h w *c"], PixelFormat]:
    """Decode the one frame.

    Long because pydicom's decoder takes the format as one argument per line.

    Returns:
        The words, and their format: a compressed picture tells some of it itself.

    Raises:
        BadImageError: cut short, more than one frame, no decoder, or the decoder failed.
    """
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    if not UID(syntax).is_transfer_syntax or UID(syntax).is_private:
        raise BadImageError("DICOM with an unknown transfer syntax: export it again as Explicit VR Little Endian")
    name = UID(syntax).name
    if syntax in NATIVE:
        if element.is_encapsulated:
            raise BadImageError(f"DICOM with compressed pixels, but its transfer syntax is {name}")
        pixels = _check_length(len(element.value), pixels, attributes)
        buffer: memoryview | bytes = element.value
        found = Decoder(get_decoder(UID(syntax)), "")
    else:
        if not element.is_encapsulated:
            raise BadImageError(f"DICOM with pixels that are not compressed, but its transfer syntax is {name}")
        found = find_decoder(syntax)
        frame = _encapsulated_frame(element.value)
        pixels = _agree(pixels, _codestream(frame), syntax, attributes)
        if syntax in JPEG_SEQUENTIAL:
            frame = _mend_scan(frame, attributes)
        buffer = encapsulate([frame])
    try:
        words, properties = found.decoder.as_array(
            buffer,
            index=0,
            raw=True,
            decoding_plugin=found.plugin,
            view_only=True,
            correct_unused_bits=False,
            allow_excess_frames=False,
            number_of_frames=1,
            rows=pixels.rows,
            columns=pixels.columns,
            samples_per_pixel=pixels.samples,
            photometric_interpretation=pixels.photometric,
            planar_configuration=pixels.planar,
            bits_allocated=pixels.allocated,
            bits_stored=pixels.stored,
            pixel_representation=int(pixels.signed),
            pixel_keyword="PixelData",
            pixel_vr=element.vr,
        )
    except RuntimeError as error:
        raise _decoder_failed(syntax, name, error) from None
    photometric = str(properties["photometric_interpretation"])
    if pixels.samples == 3 and photometric not in COLOUR:
        photometric = "RGB"
    words = words.view(words.dtype.str.replace("i", "u"))  # the sign is told from the bits, later
    return words, pixels._replace(photometric=photometric if pixels.samples == 3 else pixels.photometric)


def _check_length(found: int, pixels: PixelFormat, attributes: Attributes) -> PixelFormat:
    """Check the number of bytes of pixels that are not compressed."""
    if pixels.photometric == "YBR_FULL_422" and found >= pixels._replace(photometric="YBR_FULL").frame_bytes:
        pixels = pixels._replace(photometric="YBR_FULL")
        attributes.note("YBR_FULL_422 pixels in full: taken as YBR_FULL")
    expected = pixels.frame_bytes
    if found < expected:
        raise BadImageError(f"truncated: expected {expected} bytes of pixels, found {found}")
    if found >= 2 * expected:
        raise BadImageError(
            f"{found} bytes of pixels, expected {expected}: several frames, or Rows, Columns or Bits Allocated is wrong"
        )
    if found > expected + expected % 2:
        attributes.note("bytes after the last pixel passed over")
    return pixels


def _encapsulated_frame(value: memoryview) -> bytes:
    """Join the items of the one compressed frame (DICOM PS3.5, A.4)."""
    fragments: list[memoryview] = []
    at = 0
    while True:
        tag, length = bytes(value[at : at + 4]), int.from_bytes(value[at + 4 : at + 8], "little")
        if tag == DELIMITER:
            break
        if len(value) < at + 8 or (tag == ITEM and len(value) < at + 8 + length):
            raise BadImageError("truncated: the compressed pixels end before their last item")
        if tag != ITEM:
            raise BadImageError("damaged: expected an item of compressed pixels, found something else")
        fragments.append(value[at + 8 : at + 8 + length])
        at += 8 + length
    if len(fragments) < 2:
        raise BadImageError("DICOM without compressed pixels: their items are missing")
    if len(fragments[0]) > 4 and len(fragments) > 2:
        raise BadImageError(f"multi-frame DICOM ({len(fragments[0]) // 4} frames); expected one radiograph")
    return b"".join(fragments[1:])


def _codestream(frame: bytes) -> Codestream | None:
    """Read the head of a JPEG, JPEG-LS or JPEG 2000 picture; None if there is none, as of RLE."""
    if frame[:2] == b"\xff\xd8":
        at = 2
        while at + 10 <= len(frame) and frame[at] == 0xFF:
            marker = frame[at + 1]
            if marker in JPEG_FRAMES:
                height, width = (int.from_bytes(frame[at + start : at + start + 2], "big") for start in (5, 7))
                return Codestream(frame[at + 4], width, height, frame[at + 9])
            at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        return None
    start = frame[:512].find(b"\xff\x4f\xff\x51")  # there may be boxes of JP2 before it
    if start < 0 or len(frame) < start + 43:
        return None
    right, bottom, left, top = np.frombuffer(frame, ">u4", 4, start + 8).tolist()
    samples = int.from_bytes(frame[start + 40 : start + 42], "big")
    return Codestream((frame[start + 42] & 0x7F) + 1, right - left, bottom - top, samples)


def _mend_scan(frame: bytes, attributes: Attributes) -> bytes:
    """Let the scan of a sequential JPEG end at coefficient 63, the only end there is; some writers leave it at 0."""
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF and frame[at + 1] != 0xDA:
        at += 1 if frame[at + 1] == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    end = at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big") - 2  # the last but one byte of the scan's head
    if frame[at : at + 2] == b"\xff\xda" and end < len(frame) and frame[end] == 0:
        attributes.note("JPEG scan that ends at coefficient 0: read to 63")
        return frame[:end] + b"\x3f" + frame[end + 1 :]
    return frame


def _agree(pixels: PixelFormat, codestream: Codestream | None, syntax: str, attributes: Attributes) -> PixelFormat:
    """Settle what the attributes and the compressed picture say differently."""
    if codestream is None:
        return pixels
    inside = codestream._replace(height=codestream.height or pixels.rows)  # 0: told after the picture
    if inside[1:] != (pixels.columns, pixels.rows, pixels.samples):
        raise BadImageError(
            f"DICOM of {pixels.columns}x{pixels.rows} pixels with {pixels.samples} samples holds a compressed "
            f"picture of {codestream.width}x{codestream.height} with {codestream.samples}"
        )
    if codestream.bits > 8 * ((pixels.allocated + 7) // 8):
        raise BadImageError(f"DICOM with Bits Allocated {pixels.allocated} holds a compressed picture of more bits")
    given = next(bits for bits in (8, 16, 32, 64) if codestream.bits <= bits)  # the words that decoders give
    if given < pixels.allocated:
        pixels = pixels._replace(allocated=given, high_bit=min(pixels.high_bit, given - 1))
    if codestream.bits > pixels.stored:
        return pixels  # what is above Bits Stored is no part of the picture: overlays, or rubbish
    if codestream.bits < pixels.stored:
        attributes.note("compressed picture of fewer bits than Bits Stored: its own depth taken")
        signed = pixels.signed and syntax.startswith(JPEG_SIGNED)
        pixels = pixels._replace(stored=codestream.bits, signed=signed)
    return pixels._replace(high_bit=pixels.stored - 1)


def _decoder_failed(syntax: str, name: str, error: RuntimeError) -> BadImageError:
    """Say what the decoder said; of 12-bit JPEG, what could read it."""
    reasons = [line.strip() for line in str(error).splitlines()[1:] if line.strip()] or ["no reason given"]
    if syntax == JPEG_12_BIT and any("12-bit" in reason for reason in reasons):  # Pillow reads 8 bits only
        return BadImageError("DICOM with 12-bit JPEG: to read it, pip install 'samgan[dicom]'")
    return BadImageError(f"damaged: DICOM {name} cannot be decoded ({' '.join('; '.join(reasons).split())[:200]})")
