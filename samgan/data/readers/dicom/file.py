"""From the bytes of a DICOM file to its attributes and its pixel data, also without preamble or transfer syntax."""

import io
import re
import struct
import zlib
from typing import Any, NamedTuple

from samgan.data.readers.radiograph import MAXIMUM_BYTES, BadImageError

PREAMBLE, MAGIC = 128, b"DICM"
HEAD_BYTES = PREAMBLE + len(MAGIC)
UNDEFINED = 0xFFFFFFFF
PIXEL_ELEMENTS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
FIRST_TAGS = frozenset(
    {0x00020000, 0x00020001, 0x00020002, 0x00020010, 0x00080000, 0x00080001, 0x00080005, 0x00080008}
    | {0x00080012, 0x00080013, 0x00080014, 0x00080016, 0x00080018, 0x00080020}
)
"""What a file without preamble may begin with."""
HEADLESS_REMEDY = "add the preamble that PS3.10 7.1 asks for with dcmtk: dcmconv FILE OUT"


class Encoding(NamedTuple):
    """How the elements of a data set are written (DICOM PS3.5, section 7)."""

    implicit: bool
    """Without the type (VR) of each value."""
    little_endian: bool


class PixelElement(NamedTuple):
    """The element that holds the pixels."""

    keyword: str
    """PixelData, FloatPixelData or DoubleFloatPixelData."""
    vr: str
    is_encapsulated: bool
    """Compressed, in items, of undefined length."""
    value: memoryview
    """To the end of the file if it is encapsulated, or cut short."""


class DicomFile(NamedTuple):
    """One file, its pixels not yet decoded."""

    dataset: Any
    """pydicom.Dataset of what stands before the pixels."""
    syntax: str
    """Transfer Syntax UID, told or guessed."""
    pixels: PixelElement | None
    is_cut: bool
    """The file ends within an element before the pixels."""
    notes: tuple[str, ...]


def is_dicom(data: bytes) -> bool:
    """Tell whether a file's first `HEAD_BYTES` bytes are DICOM's preamble and magic word, or elements without them.

    Without a preamble, the first element must be one that a file may begin with, and all elements of these bytes must
    be well formed and in ascending order.
    """
    if data[PREAMBLE:HEAD_BYTES] == MAGIC:
        return True
    encoding = _guess_encoding(data[:8])
    return encoding is not None and _has_elements(data[:HEAD_BYTES], encoding)


def open_dicom(data: bytes) -> DicomFile:
    """Read the attributes that stand before the pixels, and find the pixels.

    Raises:
        BadImageError: no element can be made out, or the file inflates to more than `MAXIMUM_BYTES`.

    Source:
        DICOM PS3.10, 7.1 (preamble and file meta information), PS3.5, 7.1 (elements) and A.5 (deflated).
    """
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

    notes = []
    stream = io.BytesIO(data)
    if data[PREAMBLE:HEAD_BYTES] == MAGIC:
        stream.seek(HEAD_BYTES)
    else:
        notes.append("no DICOM preamble")
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    syntax = _syntax_of(meta)
    start = stream.tell()
    if syntax == DeflatedExplicitVRLittleEndian:
        data = _inflate(data[start:])
        stream, start = io.BytesIO(data), 0
    if syntax:
        encoding = Encoding(UID(syntax) == "1.2.840.10008.1.2", UID(syntax) != "1.2.840.10008.1.2.2")
    else:
        guess = _guess_encoding(data[start : start + 8])
        if guess is None and start < len(data):
            raise BadImageError("DICOM without a transfer syntax, and its elements cannot be read: export it again")
        encoding = guess or Encoding(False, True)
        syntax = "1.2.840.10008.1.2" if encoding.implicit else "1.2.840.10008.1.2.1"
        syntax = syntax if encoding.little_endian else "1.2.840.10008.1.2.2"
        notes.append("no usable Transfer Syntax UID: guessed from the elements")
    try:
        dataset = _read_elements(stream, encoding)
    except (ValueError, LookupError):  # pydicom looks up no name with a null character in it
        data = _blank_character_set(data, start, encoding)
        stream = io.BytesIO(data)
        stream.seek(start)
        dataset = _read_elements(stream, encoding)
        notes.append("unreadable Specific Character Set passed over")
    pixels = _pixel_element(data, stream.tell(), encoding)
    return DicomFile(dataset, syntax, pixels, pixels is None and _is_cut(dataset), tuple(notes))


def _is_cut(dataset: Any) -> bool:
    """Tell whether the last element is shorter than it says."""
    last: Any = next(reversed(list(dataset.values())), None)
    length = getattr(last, "length", 0)
    return length not in (0, UNDEFINED) and length > len(last.value or b"")


def _read_elements(stream: io.BytesIO, encoding: Encoding) -> Any:
    from pydicom.filereader import read_dataset

    return read_dataset(
        stream, encoding.implicit, encoding.little_endian, stop_when=lambda tag, vr, length: tag in PIXEL_ELEMENTS
    )


def _blank_character_set(data: bytes, start: int, encoding: Encoding) -> bytes:
    order = "<" if encoding.little_endian else ">"
    at = data.find(struct.pack(f"{order}HH", 0x0008, 0x0005), start)
    if at < 0:
        return data
    long = data[at + 4 : at + 6] not in SHORT_VRS
    length = struct.unpack(f"{order}{'L' if long else 'H'}", data[at + (4 if long else 6) : at + 8])[0]
    return data[: at + 8] + b" " * length + data[at + 8 + length :]


def _syntax_of(meta: Any) -> str:
    try:
        syntax = str(meta.get("TransferSyntaxUID") or "").strip(" \0")
    except Exception:  # pydicom raises nearly anything on damaged values
        return ""
    return syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else ""


def _inflate(deflated: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, MAXIMUM_BYTES + 1)
    if len(inflated) > MAXIMUM_BYTES:
        raise BadImageError(f"deflated DICOM of more than {MAXIMUM_BYTES // 2**20} MiB")
    return inflated


def _guess_encoding(head: bytes) -> Encoding | None:
    """Guess how elements are written from the first 8 bytes; None if these begin no plausible element."""
    if len(head) < 8:
        return None
    little_endian = head[0] != 0  # the first groups are below 0x0100
    group, element = struct.unpack("<HH" if little_endian else ">HH", head[:4])
    if not 0x0002 <= group <= 0x0028 or (group % 2 == 1 and element < 0x10):
        return None
    return Encoding(head[4:6] not in LONG_VRS | SHORT_VRS, little_endian)


def _has_elements(head: bytes, encoding: Encoding) -> bool:
    """Tell whether the bytes are well-formed elements, in ascending order, as far as they reach."""
    order = "<" if encoding.little_endian else ">"
    at, last, implicit = 0, 0, encoding.implicit
    while at + 12 <= len(head):
        group, number, vr, short = struct.unpack(f"{order}HH2sH", head[at : at + 8])
        tag = group << 16 | number
        if last >> 16 == 2 != group:  # file meta information has types; what comes after it need not
            implicit = vr not in LONG_VRS | SHORT_VRS
        if implicit:
            length, at = struct.unpack(f"{order}L", head[at + 4 : at + 8])[0], at + 8
        elif vr in LONG_VRS and short == 0:
            length, at = struct.unpack(f"{order}L", head[at + 8 : at + 12])[0], at + 12
        elif vr in SHORT_VRS:
            length, at = short, at + 8
        else:
            return False
        well_formed = length % 2 == 0 and (length < 2**16 or not implicit)
        if tag <= last or (last == 0 and tag not in FIRST_TAGS) or group > 0x7FE0 or not well_formed:
            return False
        last, at = tag, at + length
    return last > 0


def _pixel_element(data: bytes, start: int, encoding: Encoding) -> PixelElement | None:
    """Read the head of the element at `start`, without copying its value; None if it holds no pixels."""
    order = "<" if encoding.little_endian else ">"
    head = data[start : start + 12].ljust(12, b"\0")
    group, number = struct.unpack(f"{order}HH", head[:4])
    keyword = PIXEL_ELEMENTS.get(group << 16 | number)
    if keyword is None or start + 8 > len(data):
        return None
    vr = head[4:6]
    if vr in LONG_VRS:
        length, start = struct.unpack(f"{order}L", head[8:])[0], start + 12
    elif vr in SHORT_VRS and not encoding.implicit:
        length, start = struct.unpack(f"{order}H", head[6:8])[0], start + 8
    else:
        length, start, vr = struct.unpack(f"{order}L", head[4:8])[0], start + 8, b"OW"
    value = memoryview(data)[start:]
    return PixelElement(keyword, vr.decode(), length == UNDEFINED, value if length == UNDEFINED else value[:length])
