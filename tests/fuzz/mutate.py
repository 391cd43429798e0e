"""Damage the bytes of a file: anywhere, or inside its structure, so that length fields and checksums stay right."""

import contextlib
import csv
import io
import json
import random
import struct
import warnings
import zipfile
import zlib

import pydicom

SCRIPT = "<script>alert(1)</script>"
VALUES = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, -1e308, float("nan"), float("inf")),
    *(2**31, 2**32, 2**63, -(2**63), 2**64, 10**25, 10**400),
    *("", " ", "0", "-1", "nan", "1e999", "\u0661\u0662", "\0", "\x1b[2J", "a\nb\rc", "\ud800", "\u202e", "x" * 10_000),
    *("../../etc/passwd", "/dev/zero", "CON", SCRIPT, "{{ 7 * 7 }}", "=1+1", "[x](javascript:alert(1))"),
    *([], {}, [[]], [None], {"": None}, {"schema": 2}),
)
"""Values that are seldom what a reader expects."""
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
DEEP = 100_000


def damage(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes: one to four small faults, anywhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(FAULTS)(data, rng)
    return data


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    # The first bytes of a file say most about how the rest is read.
    changed[rng.randrange(min(len(data), rng.choice((16, 256, len(data)))))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _edge(data: bytes, rng: random.Random) -> bytes:
    size, order = rng.choice((1, 2, 4)), rng.choice(("little", "big"))
    place = rng.randrange(max(1, min(len(data), rng.choice((64, 512, len(data) or 1)))))
    value = rng.choice(EDGES) & ((1 << 8 * size) - 1)
    return data[:place] + value.to_bytes(size, order) + data[place + size :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + data[place + rng.choice((1, 2, 7, 64, 1000)) :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 2, 7, 64, 1000))) + data[place:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data) + 1), rng.choice((1, 8, 100, 5000))
    return data[:start] + data[start : start + length] * rng.choice((2, 3, 50)) + data[start + length :]


def _zeros(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data) + 1), rng.choice((1, 16, 512))
    return data[:start] + bytes(length) + data[start + length :]


def _other(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b"\0" * 4096, rng.randbytes(500), b"\xff" * 100, data + data, data + rng.randbytes(64)))


FAULTS = (_flip, _flip, _flip, _edge, _edge, _cut, _remove, _insert, _repeat, _zeros, _other)


def damage_json(data: bytes, rng: random.Random) -> bytes:
    """Change the tree of a JSON document, or its text."""
    if rng.random() < 0.1:
        return damage(data, rng)
    if rng.random() < 0.05:
        return rng.choice((b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP))
    tree = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        tree = _change(tree, rng)
    return json.dumps(tree).encode()


def damage_lines(data: bytes, rng: random.Random) -> bytes:
    """Change one of several JSON documents, each on a line, or their order."""
    lines = data.splitlines()
    number = rng.randrange(len(lines))
    lines[number] = damage_json(lines[number], rng)
    if rng.random() < 0.2:
        rng.shuffle(lines)
    return b"\n".join(lines) + rng.choice((b"\n", b"", b"\n\n"))


def _change(tree: object, rng: random.Random) -> object:
    """A copy of a tree with one place of it changed."""
    places = list(_places(tree, ()))
    place = rng.choice(places)
    if not place or not isinstance(tree, dict | list):
        return rng.choice(VALUES)
    root = json.loads(json.dumps(tree))
    holder = root
    for key in place[:-1]:
        holder = holder[key]
    key, what = place[-1], rng.random()
    if what < 0.6:
        holder[key] = rng.choice(VALUES)
    elif what < 0.7:
        del holder[key]
    elif what < 0.8 and isinstance(holder, dict):
        holder[str(rng.choice(VALUES))] = holder.pop(key)
    elif what < 0.9:
        other = root
        for step in rng.choice(places):
            other = other[step]
        holder[key] = json.loads(json.dumps(other))
    else:
        holder[key] = [holder[key]] * rng.choice((1, 2, 300))
    return root


def _places(tree: object, so_far: tuple) -> "list[tuple]":
    found = [so_far]
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += _places(value, (*so_far, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree[:20]):
            found += _places(value, (*so_far, number))
    return found


def damage_text(data: bytes, rng: random.Random) -> bytes:
    """Change words or lines of a text, such as YAML or Markdown."""
    if rng.random() < 0.2:
        return damage(data, rng)
    lines = data.decode(errors="replace").splitlines()
    number = rng.randrange(len(lines))
    what = rng.random()
    if what < 0.5:
        head, mark, _ = lines[number].partition(":")
        lines[number] = f"{head}{mark} {rng.choice(TEXTS)}"
    elif what < 0.65:
        lines.insert(number, rng.choice(TEXTS))
    elif what < 0.75:
        lines.insert(number, lines[rng.randrange(len(lines))])
    elif what < 0.85:
        del lines[number]
    else:
        lines[number] = rng.choice((" ", "  ", "\t", "- ")) + lines[number]
    return "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"


TEXTS = (
    *map(str, VALUES),
    *("!!python/object/apply:os.system ['true']", "!!int x", "!!float _", "!!binary x", "&a [*a]", "*b", "<<: *a"),
    *("2024-13-45", "1:60", "0x", "0b", "1_0", "%", "@", "`", "? x", "|", ">", "'", '"', "{", "[1, 2", "---", "..."),
    *("&a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]", "\ufeff", "~", "yes", ".inf", "=", "<<"),
)


def damage_table(data: bytes, rng: random.Random) -> bytes:
    """Change cells, rows or columns of a CSV file."""
    if rng.random() < 0.2:
        return damage(data, rng)
    rows = list(csv.reader(io.StringIO(data.decode())))
    number = rng.randrange(len(rows))
    column = rng.randrange(max(1, len(rows[number])))
    what = rng.random()
    if what < 0.5 and rows[number]:
        rows[number][column] = str(rng.choice(VALUES))
    elif what < 0.6:
        rows.insert(number, rows[rng.randrange(len(rows))])
    elif what < 0.7:
        del rows[number]
    elif what < 0.8:
        for row in rows:
            del row[column : column + 1]
    elif what < 0.9 and rows[number]:
        rows[number].append(rng.choice(rows[number]))
    else:
        rng.shuffle(rows)
    table = io.StringIO()
    csv.writer(table, lineterminator=rng.choice(("\n", "\r\n", "\r"))).writerows(rows)
    return table.getvalue().encode("utf-8", "surrogatepass")


def damage_png(data: bytes, rng: random.Random) -> bytes:
    """Change a part of a PNG and give it the right checksum, or change any bytes."""
    if rng.random() < 0.3:
        return damage(data, rng)
    parts, place = [], 8
    while place + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        parts.append([name, data[place + 8 : place + 8 + length]])
        place += 12 + length
    part, what = rng.choice(parts), rng.random()
    if what < 0.7:
        part[1] = _inside_zlib(part[1], rng) if part[0] == b"IDAT" and rng.random() < 0.7 else damage(part[1], rng)
    elif what < 0.8:
        parts.insert(rng.randrange(len(parts) + 1), list(part))
    elif what < 0.9:
        parts.remove(part)
    else:
        part[0] = rng.choice((b"IDAT", b"tRNS", b"PLTE", b"gAMA", b"iCCP", b"acTL", b"fcTL", b"eXIf", b"zTXt", b"sBIT"))
    made = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    return data[:8] + made


def _inside_zlib(packed: bytes, rng: random.Random) -> bytes:
    with contextlib.suppress(zlib.error):
        return zlib.compress(damage(zlib.decompress(packed), rng))
    return damage(packed, rng)


def damage_dicom(data: bytes, rng: random.Random) -> bytes:
    """Change an element of a DICOM file, or any bytes."""
    if rng.random() < 0.4:
        return damage(data, rng)
    with contextlib.suppress(Exception), warnings.catch_warnings():  # what pydicom refuses to write is made from bytes
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(data))
        element = rng.choice(list(dataset))
        what = rng.random()
        if what < 0.5:
            value = rng.choice((*VALUES[:20], "a\\b\\c", "\u00e4", "19990101", "1\\2", "5\\-5", "1e400"))
            dataset[element.tag] = pydicom.DataElement(element.tag, element.VR, value, already_converted=True)
        elif what < 0.7:
            del dataset[element.tag]
        elif what < 0.85:
            name = rng.choice(("Rows", "Columns", "BitsStored", "BitsAllocated", "HighBit", "SamplesPerPixel"))
            setattr(dataset, name, rng.choice((0, 1, 7, 8, 12, 15, 16, 17, 31, 32, 33, 64, 255, 65535)))
        else:
            name = rng.choice(("RescaleSlope", "RescaleIntercept", "WindowWidth", "WindowCenter", "NumberOfFrames"))
            setattr(dataset, name, rng.choice((0, -1, 1, 1e-30, 1e30, 2, 100)))
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()
    return damage(data, rng)


def damage_zip(data: bytes, rng: random.Random) -> bytes:
    """Change a member of an archive, its name or how it is packed, or any bytes."""
    if rng.random() < 0.25:
        return damage(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [[part.filename, archive.read(part), part.compress_type] for part in archive.infolist()]
    member, what = rng.choice(members), rng.random()
    if what < 0.6:
        member[1] = damage_array(member[1], rng) if member[1].startswith(b"\x93NUMPY") else damage(member[1], rng)
    elif what < 0.7:
        members.remove(member)
    elif what < 0.8:
        member[0] = rng.choice(
            ("../x.png", "/x.png", "a\x1b[2J.png", "\\x.png", "x" * 300, "a/" * 200 + "x.png", "a\nb")
        )
    elif what < 0.9:
        member[2] = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED))
    else:
        members.append([rng.choice(members)[0] + rng.choice(("", "x", "/", ".png")), rng.choice(members)[1], 0])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, body, packing in members:
            archive.writestr(zipfile.ZipInfo(name), body, packing)  # which has no time in it
    return file.getvalue()


def damage_array(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a NumPy array, and keep its length right, or any bytes."""
    if rng.random() < 0.4 or not data.startswith(b"\x93NUMPY"):
        return damage(data, rng)
    length = int.from_bytes(data[8:10], "little")
    header, body = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    old, new = rng.choice(
        (
            *(("|u1", "|O"), ("|u1", "<f8"), ("|u1", "<U4"), ("|u1", "<c16"), ("|u1", "<M8[s]"), ("|u1", ">i2")),
            *(("False", "True"), ("(", "(0, "), ("(", "(-1, "), ("(", "(99999999, "), ("(", "(1, 1, 1, ")),
            *(("}", ""), ("shape", "shap"), ("(", "(" * 200), ("|u1", "|V7"), ("|u1", "|b1"), ("|u1", "<f2")),
        )
    )
    header = header.replace(old, new, 1).rstrip() + "\n"
    return data[:8] + len(header).to_bytes(2, "little") + header.encode("latin-1") + body


def damage_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the header of a file of weights, and keep its length right, or the weights, or any bytes."""
    what, length = rng.random(), int.from_bytes(data[:8], "little")
    if what < 0.2:
        return damage(data, rng)
    header, body = data[8 : 8 + length], data[8 + length :]
    if what < 0.4:
        place = rng.randrange(len(body) // 4) * 4
        value = struct.pack("<f", rng.choice((float("nan"), float("inf"), 1e38, -1e38, 0.0)))
        body = body[:place] + value + body[place + 4 :]
    elif what < 0.7:
        tree = json.loads(header)
        name = rng.choice(list(tree["__metadata__"]))
        text = tree["__metadata__"][name]
        with contextlib.suppress(ValueError):
            text = damage_json(text.encode(), rng).decode(errors="replace")
        tree["__metadata__"][name] = text if text != tree["__metadata__"][name] else str(rng.choice(VALUES))
        header = json.dumps(tree).encode()
    else:
        header = damage_json(header, rng)
    return len(header).to_bytes(8, "little") + header + body
