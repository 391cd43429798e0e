"""Read a table of labels: CSV, TSV, either of them as .gz, or a sheet of Excel or OpenDocument; any common encoding."""

import codecs
import csv
import gzip
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from samgan.data.labels.cells import STATES, is_blank
from samgan.data.readers import IMAGE_SUFFIXES
from samgan.data.sources.folder_names import split_and_rest, split_of, words_of
from samgan.errors import SamganError, UsageError, first_line

JSON_SUFFIXES = (".jsonl", ".ndjson")
LIST_WORDS = ("list", "lists", "ids", "names", "filenames")
"""Words that may stand beside a split's word in the name of a list of images: train_val_list.txt."""
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
    flags: tuple[str, ...] = ()
    """Columns that were not kept and hold nothing but words for present and absent."""
    is_list: bool = False
    """Whether the file was a list of images without a header, and its name told their split."""


def read_table(file: str | Path, keep: Callable[[str], bool] = bool) -> Table:
    """Read a table with a header.

    Args:
        file: .csv or .tsv (delimited by comma, semicolon, tab or vertical bar; UTF-8, UTF-16, UTF-32 or Windows-1252)
            or .jsonl (one object a line), each of them maybe as .gz; or .xlsx, .xlsm, .xls or .ods, of which the first
            sheet is read. A list of one image a line needs no header if its file's name tells a split:
            train_val_list.txt.
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
    elif any(suffix.lower() in JSON_SUFFIXES for suffix in path.suffixes[-2:]):
        lines = _json_lines(path, data)
    else:
        lines = _text_lines(path, data, _encoding_of(path, data, warnings))
    table = _regular(path, lines, keep)
    return table._replace(sha256=sha256, warnings=(*warnings, *table.warnings))


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
    is_tsv = ".tsv" in path.suffixes and "\t" in head.partition("\n")[0]
    delimiter = told or ("\t" if is_tsv else _delimiter_of(head))
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


def _json_lines(path: Path, data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield the names of all keys, then the values of each line's object, as a table's cells."""
    found: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            tree = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SamganError(f"{path.name}, line {number}: not JSON ({first_line(error)}): correct the line") from None
        if not isinstance(tree, dict):
            raise SamganError(f'{path.name}, line {number}: expected an object, such as {{"file_name": ...}}')
        found.append((number, tree))
    header = list(dict.fromkeys(key for _, tree in found for key in tree))
    yield 0, header
    yield from ((number, [_json_text(tree.get(key)) for key in header]) for number, tree in found)


def _json_text(value: Any) -> str:
    """A value as the text of a cell: nothing for null; lists and objects as JSON."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, bool | list | dict) else _text_of(value)


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


def _regular(path: Path, lines: Iterator[tuple[int, list[str]]], keep: Callable[[str], bool]) -> Table:
    """Separate the header; make all rows as long as it."""
    header: tuple[str, ...] = ()
    rows = []
    kept: list[int] = []
    known: dict[str, str] = {}
    flags: dict[int, set[int | None]] = {}  # columns that are not kept, and what all their cells so far say
    for number, cells in lines:
        if not any(cells):
            continue
        if not header:
            header = tuple(cells)
            kept = [place for place, name in enumerate(header) if keep(name)]
            _check_header(path, header)
            is_list = len(header) == 1
            kept = [0] if is_list else kept
            flags = {place: set() for place, name in enumerate(header) if name and place not in kept}
            continue
        if tuple(cells) == header and not is_list:  # of another table that was appended
            continue
        if len(cells) > len(header) and any(cells[len(header) :]):  # the cells behind it would all be shifted
            raise _too_many_cells(path, number, cells, header)
        row = [""] * len(header)
        for place in kept:
            if place < len(cells) and (cell := cells[place]):
                row[place] = known.setdefault(cell, cell) if len(cell) < 5 else cell  # short ones are in memory once
        rows.append(row)
        for place in list(flags):
            cell = cells[place].lower() if place < len(cells) else ""
            if cell not in STATES and not is_blank(cell):
                del flags[place]
            else:
                flags[place].add(STATES.get(cell))
    if header and sum(map(bool, header)) < 2:
        return _list_of_images(path, header, rows)
    if not rows:
        raise SamganError(f"{path.name}: expected a header and rows below it, found {'a header' if header else 'none'}")
    binary = tuple(header[place] for place, said in flags.items() if 1 in said and len(said) > 1)
    return Table(path.name, "", header, rows, flags=binary)


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    """Refuse a first line that is a row of a table without a header."""
    if sum(map(bool, header)) > 1 and any(cell.lower().endswith(IMAGE_SUFFIXES) for cell in header):
        raise SamganError(
            f"{path.name}: its first line, {', '.join(header)[:80]!r}, is a row and no header: put a line with the "
            "names of the columns above it, such as image,label"
        )


def _too_many_cells(path: Path, number: int, cells: list[str], header: tuple[str, ...]) -> SamganError:
    if sum(map(bool, header)) == 1:
        return _no_columns(path, header)
    return SamganError(
        f"{path.name}, line {number}: {len(cells)} cells, but the header has {len(header)}: put text with delimiters "
        "in quotes"
    )


def _no_columns(path: Path, header: tuple[str, ...]) -> SamganError:
    found = next(filter(None, header))
    if len(found.split()) > 1 and any(word.lower().endswith(IMAGE_SUFFIXES) for word in found.split()):
        return SamganError(  # COVIDx: 1 ARDSSevere.png negative cohen
            f"{path.name}: its cells are separated by spaces, as in {found[:80]!r}: put commas between them, and above "
            "them a line with the names of the columns, such as patient,image,label"
        )
    return SamganError(
        f"{path.name}: expected two columns or more, separated by comma, semicolon or tab, or a list of images whose "
        f"file name tells their split, such as train_list.txt; found {found[:80]!r}. If this line is a title, delete it"
    )


def _list_of_images(path: Path, header: tuple[str, ...], rows: list[list[str]]) -> Table:
    """A table of images and their split from a list of images, one a line: NIH's train_val_list.txt and test_list.txt.

    The first line may be a header.
    """
    stem = path.name.partition(".")[0]
    words = [word for word in words_of(stem) if word not in LIST_WORDS]
    split = split_of("_".join(words)) or split_and_rest(stem)[0]
    names = [row[0] for row in rows if row[0]]
    if header[0].lower().endswith(IMAGE_SUFFIXES):
        names.insert(0, header[0])
    if not split or len(header) > 1 or not any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
        raise _no_columns(path, header)
    which = "training" if split == "train" else "held-out"
    said = f"{path.name}: a list of {len(names)} image(s); its name says that they are {which} images."
    return Table(path.name, "", ("image", "split"), [[name, split] for name in names], (said,), is_list=True)


def repeated(names: tuple[str, ...]) -> set[str]:
    """The names that occur more than once."""
    return {name for name, count in Counter(names).items() if count > 1}
