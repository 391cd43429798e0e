"""Say what a file is that cannot be read as an image: the reason that a person gets."""

import re
from typing import NamedTuple


class Kind(NamedTuple):
    """Files of one kind, which begin the same."""

    pattern: re.Pattern[bytes]
    """Of the first bytes."""
    words: str
    """What such a file is, and what to do."""


def _kind(pattern: bytes, words: str) -> Kind:
    return Kind(re.compile(pattern, re.DOTALL | re.IGNORECASE), words)


TO_PNG = "convert it to PNG"
AGAIN = "copy or download it again"
TO_ARRAY = "export its images as PNG or DICOM"
KINDS = (
    _kind(rb"version https://git-lfs", "a pointer of Git LFS, not the image itself: run git lfs pull"),
    _kind(
        rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)",
        "a web page, not an image: download again",
    ),
    _kind(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ", f"JPEG 2000, which is not read here: {TO_PNG}"),
    _kind(rb"\xff\x0a|\0\0\0\x0cJXL ", f"JPEG XL, which is not read here: {TO_PNG}"),
    _kind(rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", f"HEIC, which is not read here: {TO_PNG}"),
    _kind(rb"....ftypavi[fs]", f"AVIF, which is not read here: {TO_PNG}"),
    _kind(rb"....ftyp", "a video, not an image"),
    _kind(rb"GIF8[79]a", f"GIF, which is not read here: {TO_PNG}"),
    _kind(rb"8BPS", f"a Photoshop file, which is not read here: {TO_PNG}"),
    _kind(rb"(\x5c\x01\0\0|\0\0\x01\x5c).{340}(n\+1|ni1)\0", f"NIfTI, which is not read here: {TO_ARRAY}"),
    _kind(rb"(\x1c\x02\0\0|\0\0\x02\x1c)n\+2\0", f"NIfTI, which is not read here: {TO_ARRAY}"),
    _kind(rb"NRRD000", f"NRRD, which is not read here: {TO_ARRAY}"),
    _kind(rb"\x89HDF\r\n\x1a\n", f"HDF5, which is not read here: {TO_ARRAY}"),
    _kind(rb"MATLAB 5.0", f"a MATLAB file, which is not read here: {TO_ARRAY}"),
    _kind(rb"\x93NUMPY", f"a NumPy array, which is not read here: {TO_ARRAY}, or put all arrays into one .npz"),
    _kind(rb"\0\0\x01\0", f"an icon, which is not read here: {TO_PNG}"),
    _kind(rb"P[1-6]\s", f"PBM, PGM or PPM, which is not read here: {TO_PNG}"),
    _kind(rb"%!PS|\xc5\xd0\xd3\xc6", f"PostScript, which is not read here: {TO_PNG}"),
    _kind(rb"%PDF-", f"PDF, which is not read here: {TO_PNG}"),
    _kind(rb"PK\x03\x04", "a .zip or office document, not an image: unpack it"),
    _kind(
        rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd",
        "a compressed file (perhaps .nii.gz), not an image: unpack it",
    ),
    _kind(rb"\0\x05\x16[\0\x07]", "what macOS notes about another file, not an image: delete it"),
    _kind(rb"\0+\Z", f"nothing but zero bytes: {AGAIN}"),
    _kind(rb"\s*<(\?xml|svg)", "XML, not an image"),
    _kind(rb"\s*[{\[]\s*[\"{\[\]}\d]", "JSON, not an image"),
    _kind(rb"[\t\n\r\x20-\x7e]+\Z", "text, not an image"),
)
"""Tried in this order."""
DAMAGED = (
    _kind(rb"\x89PNG", f"damaged PNG: {AGAIN}"),
    _kind(rb"BM", f"damaged BMP, or one of an unsupported kind: {TO_PNG}"),
    _kind(rb"RIFF....WEBP", f"damaged WebP: {AGAIN}"),
)
"""Files that would be read if they were sound."""
SHOWN_BYTES = 4096


def name_kind(data: bytes) -> str:
    """What a file that no reader takes is and what to do with it; empty if it is not known."""
    if not data:
        return f"an empty file (0 bytes): {AGAIN}"
    head = data[:SHOWN_BYTES]
    if head.startswith(b"\xff\xd8"):
        return _name_jpeg(data)
    return next((kind.words for kind in (*KINDS, *DAMAGED) if kind.pattern.match(head)), "")


def _name_jpeg(data: bytes) -> str:
    """The reason for a JPEG that Pillow does not read: its coding (ITU-T T.81, table B.1), or nothing."""
    position = 2
    while position + 5 <= len(data):
        if data[position] != 0xFF:
            return ""
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xF7:
            return f"JPEG-LS, which is not read here: {TO_PNG}"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits = data[position + 4]
            words = [f"{bits}-bit"] if bits in (12, 16) or (marker % 4 == 3 and 2 <= bits < 8) else []
            words += ["lossless"] if marker % 4 == 3 else []
            words += ["hierarchical"] if marker & 7 > 4 else []
            words += ["arithmetic coding"] if marker >= 0xC9 else []
            if not words:
                return ""
            return f"a kind of JPEG that is not read here ({', '.join(words)}): convert it to 8-bit JPEG or 16-bit PNG"
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return ""
