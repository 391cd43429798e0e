"""Read a table of labels: CSV, TSV, either of them as .gz, or a sheet of Excel or OpenDocument; any common encoding."""

import codecs
import csv
import gzip
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from samgan.errors import SamganError, UsageError, first_line

SHEET_SUFFIXES = (".xlsx", ".xlsm", ".xls", ".ods")
MAXIMUM_BYTES = 2 * 2**30
PIECE_BYTES = 2**20
DELIMITERS = ",;\t|"
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Table(NamedTuple):
    """A table as it was read: text in every cell, without space around it."""

    name: str
    """Of the file, without folders."""
    sha256: str
    """Of the file's bytes."""
    header: tuple[str, ...]
    rows: list[list[str]]
    """As many cells as the header has; rows without any text are left out."""
    warnings: tuple[str, ...] = ()
    """What was decided in reading it; one sentence each."""


def read_table(file: str | Path, keep: Callable[[str], bool] = bool) -> Table:
    """Read a table with a header.

    Args:
        file: .csv or .tsv (delimited by comma, semicolon, tab or vertical bar; UTF-8, UTF-16, UTF-32 or Windows-1252),
            either of them as .gz, or .xlsx, .xlsm, .xls or .ods, of which the first sheet is read.
        keep: tells by its name whether a column is to be read; the cells of others are empty, which saves memory.

    Raises:
        UsageError: there is no such file.
        SamganError: it is damaged, empty, has one column only, or needs a package that is not installed.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError(f"{file}: expected a table of labels, a .csv, .tsv or .xlsx file; there is no such file")
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise SamganError(f"{path.name}: larger than {MAXIMUM_BYTES // 2**30} GiB: is it a table of labels?")
        data = path.read_bytes()
    except OSError as error:
        raise SamganError(f"{file} cannot be read ({error.strerror or error})") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if data.startswith(b"\x1f\x8b"):
        data = _unpack(path, data)
    warnings: list[str] = []
    if path.suffix.lower() in SHEET_SUFFIXES or data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        lines = _sheet_lines(path, data, warnings)
    else:
        lines = _text_lines(path, data, _encoding_of(path, data, warnings))
    header, rows = _regular(path, lines, keep)
    return Table(path.name, sha256, header, rows, tuple(warnings))


def _unpack(path: Path, data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as opened:
            unpacked = opened.read(MAXIMUM_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SamganError(f"{path.name}: not a readable .gz file ({first_line(error)})") from error
    if len(unpacked) > MAXIMUM_BYTES:
        raise SamganError(f"{path.name}: larger than {MAXIMUM_BYTES // 2**30} GiB: is it a table of labels?")
    return unpacked


def _encoding_of(path: Path, data: bytes, warnings: list[str]) -> str:
    marked = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), "")
    if not marked and data[:1000].count(0) > len(data[:1000]) // 4:  # every other byte of ASCII text in UTF-16
        marked = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    if _is_text(data, marked or "utf-8"):
        return marked or "utf-8"
    if marked:
        raise SamganError(f"{path.name}: damaged text in {marked}: save it as UTF-8")
    warnings.append(f"{path.name} is not UTF-8 and was read as Windows-1252 (Latin-1): look at names with accents.")
    return "cp1252" if _is_text(data, "cp1252") else "latin-1"  # five bytes mean nothing in cp1252


def _is_text(data: bytes, encoding: str) -> bool:
    """Whether all bytes are text, tried piece by piece: as one text, a large table would need much memory."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for start in range(0, len(data), PIECE_BYTES):
            decoder.decode(data[start : start + PIECE_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


def _text_lines(path: Path, data: bytes, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line in the file and its cells."""
    head = codecs.getincrementaldecoder(encoding)().decode(data[: PIECE_BYTES // 4]).lstrip("\r\n")
    if "\0" in head:
        raise SamganError(f"{path.name}: not a table but a binary file: expected .csv, .tsv or .xlsx")
    told = head[4] if head[:4].lower() == "sep=" and head[5:6] in ("\r", "\n") else ""  # for Excel
    delimiter = told or ("\t" if ".tsv" in path.suffixes else _delimiter_of(head))
    if delimiter in "\r\n":
        raise SamganError(f"{path.name}: its first line, sep=, names no delimiter: remove the line")
    text = io.TextIOWrapper(io.BytesIO(data), encoding=encoding, newline="")
    reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            if told and any(cells):
                told = ""
                continue
            yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise SamganError(f"{path.name}, line {reader.line_num}: {first_line(error)}: correct the table") from None


def _delimiter_of(text: str) -> str:
    """The delimiter that gives the header the most columns, if the lines below have as many; else the next best."""
    best, most = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        widths: list[int] = []
        try:
            for cells in reader:
                if any(cells):
                    widths.append(len(cells))
                if len(widths) > 20:
                    break
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        fitting = sum(width == widths[0] for width in widths) / len(widths)
        if (fitting, widths[0]) > most:
            best, most = delimiter, (fitting, widths[0])
    return best


def _sheet_lines(path: Path, data: bytes, warnings: list[str]) -> Iterator[tuple[int, list[str]]]:
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise SamganError(
            f"{path.name}: reading a spreadsheet needs a package: pip install 'samgan[tables]', or save it as .csv"
        ) from None
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheet = book.get_sheet_by_index(0)
        lines = sheet.to_python(skip_empty_area=False)
    except (CalamineError, IndexError, OSError, ValueError) as error:
        raise SamganError(f"{path.name}: not a readable spreadsheet ({first_line(error)}): save it as .csv") from None
    if len(book.sheet_names) > 1:
        warnings.append(
            f"{path.name} has {len(book.sheet_names)} sheets; the first, {book.sheet_names[0]!r}, was read."
        )
    return ((number, [_text_of(value) for value in line]) for number, line in enumerate(lines, start=1))


def _text_of(value: Any) -> str:
    """A cell's text; 123 for 123.0, since a sheet keeps every number as floating point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return value.isoformat() if isinstance(value, date) else str(value).strip()


def _regular(
    path: Path, lines: Iterator[tuple[int, list[str]]], keep: Callable[[str], bool]
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Separate the header; make all rows as long as it."""
    header: tuple[str, ...] = ()
    rows = []
    kept: list[int] = []
    known: dict[str, str] = {}
    for number, cells in lines:
        if not any(cells):
            continue
        if not header:
            header = tuple(cells)
            kept = [place for place, name in enumerate(header) if keep(name)]
            continue
        if tuple(cells) == header:  # of another table that was appended
            continue
        if len(cells) > len(header) and any(cells[len(header) :]):  # the cells behind it would all be shifted
            raise SamganError(
                f"{path.name}, line {number}: {len(cells)} cells, but the header has {len(header)}: put text with "
                "delimiters in quotes"
            )
        row = [""] * len(header)
        for place in kept:
            if place < len(cells) and (cell := cells[place]):
                row[place] = known.setdefault(cell, cell) if len(cell) < 5 else cell  # short ones are in memory once
        rows.append(row)
    if not rows:
        raise SamganError(f"{path.name}: expected a header and rows below it, found {'a header' if header else 'none'}")
    if sum(map(bool, header)) < 2:
        raise SamganError(
            f"{path.name}: expected two columns or more, separated by comma, semicolon or tab; found {header[0]!r}"
        )
    return header, rows


def repeated(names: tuple[str, ...]) -> set[str]:
    """The names that occur more than once."""
    return {name for name, count in Counter(names).items() if count > 1}
