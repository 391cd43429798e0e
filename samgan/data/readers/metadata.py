"""Take the metadata out of image files, so that what is broken in it does not lose the picture."""

import struct
import zlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
PASSED_OVER = "broken or very large metadata"
LARGEST_CHUNK = 64 * 1024
"""Bytes of a chunk of PNG's metadata that is kept."""
TIFF_TAGS = frozenset(
    (
        *(254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
        *(338, 339, 347, 512, 513, 514, 519, 520, 521, 529, 530, 532),
    )
)
"""Those that describe the pixels and how they are stored."""
ADOBE = b"Adobe"
"""Begins the APP14 segment, which says how a JPEG's colours are coded."""


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Yield the same picture with less and less metadata; nothing if there is none to take out.

    The parts that hold pixels are copied as they are, so that damage in them is still found.
    """
    if data.startswith(PNG_MAGIC):
        versions = [_png_of(data, kept) for kept in ((b"tRNS", b"eXIf", b"tEXt", b"acTL"), (b"tRNS",), ())]
    elif data.startswith(JPEG_MAGIC):
        versions = [_jpeg_of(data)]
    elif data[:4] in (b"II*\0", b"MM\0*"):
        versions = [_tiff_of(data)]
    else:
        return
    last = data
    for version in versions:
        if version != last:
            yield version
        last = version


def png_texts(data: bytes) -> dict[str, str]:
    """The short uncompressed texts of a PNG: what an image says of itself, without decoding it."""
    texts = {}
    for chunk in _png_chunks(data):
        if chunk.kind == b"tEXt" and chunk.size <= LARGEST_CHUNK:
            key, _, value = data[chunk.start + 8 : chunk.start + 8 + chunk.size].partition(b"\0")
            texts[key.decode("latin-1")] = value.decode("latin-1")
    return texts


def png_pixels_are_sound(data: bytes) -> bool:
    """Whether the checksums of the chunks that hold pixels are right, which Pillow does not check."""
    view = memoryview(data)
    return all(
        zlib.crc32(view[chunk.start + 4 : chunk.start + 8 + chunk.size])
        == int.from_bytes(view[chunk.start + 8 + chunk.size : chunk.start + 12 + chunk.size], "big")
        for chunk in _png_chunks(data)
        if chunk.kind == b"IDAT" and chunk.start + 12 + chunk.size <= len(data)  # Pillow finds what is missing
    )


class _Chunk(NamedTuple):
    kind: bytes
    start: int
    """Of its length field; its content begins 8 bytes later."""
    size: int
    """Of its content."""


def _png_chunks(data: bytes) -> Iterator[_Chunk]:
    position = len(PNG_MAGIC)
    while position + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        yield _Chunk(kind, position, size)
        position += 12 + size


def _png_of(data: bytes, kept: Collection[bytes]) -> bytes:
    """The chunks that are critical, whatever their state, and those of `kept` that are sound."""
    parts = [PNG_MAGIC]
    for chunk in _png_chunks(data):
        is_critical = not chunk.kind[0] & 0x20  # as the PNG specification marks them
        whole = data[chunk.start : chunk.start + 12 + chunk.size]
        if is_critical or (chunk.kind in kept and chunk.size <= LARGEST_CHUNK and _is_sound(whole)):
            parts.append(whole)
    return b"".join(parts)


def _is_sound(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _jpeg_of(data: bytes) -> bytes:
    """The segments without APPn (but Adobe's, which tells the colours) and comments, up to the first scan."""
    parts = [data[:2]]
    position = 2
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0xDA:  # the scan, or no marker where one has to be
            break
        if marker == 0xFF:  # padding
            position += 1
            continue
        size = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position : position + 2 + size]
        is_metadata = marker == 0xFE or 0xE0 <= marker <= 0xEF
        if not is_metadata or (marker == 0xEE and segment[4:9] == ADOBE and len(segment) >= 16):
            parts.append(segment)
        position += 2 + size
    parts.append(data[position:])
    return b"".join(parts)


def _tiff_of(data: bytes) -> bytes:
    """The first page with the tags that describe the pixels, in the order of the file. Source: TIFF 6.0, section 2."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        entries = [data[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12)]
        kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in TIFF_TAGS]
    except struct.error:
        return data
    page = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)  # no further page
    return data[:start] + page + data[start + len(page) :] if len(page) <= 6 + 12 * count else data
