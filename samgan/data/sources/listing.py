"""List the image files of a folder or a .zip, in one form and one order, without those that systems put there."""

import contextlib
import filecmp
import functools
import lzma
import os
import stat
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from samgan.data.documents import BadFile
from samgan.data.readers import HEAD_BYTES, IMAGE_SUFFIXES, is_recognised
from samgan.errors import SamganError, shown
from samgan.files import is_system_name

OTHER_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".pdf", ".xlsx")
DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, ValueError, IndexError)
"""What zipfile and its decompressors raise on archives that are damaged, encrypted or compressed in an unknown way."""
PACKED = (".gz", ".bz2", ".xz")
"""Suffixes that say only that a file is packed; the one before says what is in it."""
PICTURE_HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
ENCRYPTED = 0x1
UTF8 = 0x800
"""Bits of a member's flags (APPNOTE.TXT, section 4.4.4)."""


class Found(NamedTuple):
    """One image file of a folder or archive."""

    path: str
    """Relative to the source, as it is stored: it is read by this name."""
    parts: tuple[str, ...]
    """Its folders and its name, in Unicode's form NFC, without empty parts and dots."""
    size: int
    version: int
    """Modification time in ns; the CRC of an archive's member."""


@dataclass
class Listing:
    """What a folder or archive holds."""

    files: list[Found] = field(default_factory=list)
    """In the order of their paths."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Number of files that are not images, by suffix."""
    unused: list[BadFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)
    """Files that begin like a picture but have no suffix of one; they are counted in `ignored`."""
    hidden: set[str] = field(default_factory=set)
    """Names of the hidden and system folders, and hidden images, that were passed over."""

    def finish(self) -> "Listing":
        """Sort what was found, and say what was passed over."""
        self.files.sort(key=lambda file: file.path)
        self.ignored = Counter(dict(sorted(self.ignored.items())))
        if self.hidden:
            names = sorted(self.hidden)
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            named = ", ".join(map(shown, names[:5]))
            self.warnings.append(f"hidden files and folders of the system are left out: {named}{more}")
        if self.misnamed:
            named = shown(min(self.misnamed))
            self.warnings.append(
                f"{len(self.misnamed)} file(s), such as {named}, begin like a PNG or JPEG but are not named like one, "
                "so they are not read: add .png or .jpg to their names if they are radiographs"
            )
        return self


def images_in_folder(folder: Path) -> list[Path]:
    """The image files of one folder, in the order of their names, without hidden files and those of the system.

    Sub-folders are not read. A file is an image if its suffix says so, or its first bytes do.

    Raises:
        OSError: the folder cannot be listed.
    """
    files = [file for file in folder.iterdir() if not _is_hidden(file.name) and not file.is_dir()]
    return sorted(file for file in files if _is_image(file.name, functools.partial(head_of_file, file)))


def list_folder(root: Path) -> Listing:
    """List the images of a folder and all folders below it.

    Links are followed after everything else, in the order of their names. So a folder that a link leads to as well is
    listed once, under its own name.

    Raises:
        SamganError: a folder cannot be listed.
    """
    listing = Listing()
    seen: set[str] = set()
    waiting = [root]
    for top in waiting:
        links = []
        if os.path.realpath(top) in seen:
            link = shown(top.relative_to(root).as_posix())
            listing.warnings.append(f"the link {link} leads to a folder that is listed already, so it is not followed")
            continue
        for folder, subfolders, names in os.walk(top, onerror=_refuse_folder):
            real = os.path.realpath(folder)
            if real in seen:  # what a link to a folder above leads back to
                subfolders.clear()
                continue
            seen.add(real)
            listing.hidden.update(_surprising(name for name in subfolders))
            subfolders[:] = sorted(name for name in subfolders if not _is_hidden(name))
            links += [Path(folder, name) for name in subfolders if os.path.islink(Path(folder, name))]
            for name in names:
                _add_file(listing, root, Path(folder, name))
        waiting += sorted(links)
    return listing.finish()


def _add_file(listing: Listing, root: Path, file: Path) -> None:
    path = file.relative_to(root)
    if _is_hidden(file.name):
        if suffix_of(file.name) in IMAGE_SUFFIXES:
            listing.hidden.update(_surprising([file.name]))
    elif _is_image(file.name, lambda: head_of_file(file), lambda: listing.misnamed.append(path.as_posix())):
        size, version = 0, 0
        with contextlib.suppress(OSError):  # a broken link is listed, so that reading it gives the reason
            size, version = file.stat().st_size, file.stat().st_mtime_ns
        parts = tuple(unicodedata.normalize("NFC", part) for part in path.parts)
        listing.files.append(Found(path.as_posix(), parts, size, version))
    else:
        listing.ignored[suffix_of(file.name)] += 1


def _refuse_folder(error: OSError) -> None:
    raise SamganError(f"{shown(str(error.filename))}: cannot be listed ({error.strerror})") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_system_name(name)


def _surprising(names: Iterator[str] | list[str]) -> list[str]:
    """Those hidden names that a person may have given, or that hold pictures: they are said."""
    return [name for name in names if _is_hidden(name) and not name.startswith(("._", "__MACOSX", ".git"))]


def suffix_of(name: str) -> str:
    """A file's suffix in lower case; both of them where the last only says that it is packed, as in .csv.gz."""
    stem, suffix = os.path.splitext(name.strip().lower())
    if suffix not in PACKED:
        return suffix
    inner = os.path.splitext(stem)[1]
    return inner + suffix if inner in (".csv", ".tsv", ".tar", ".json", ".jsonl", ".nii") else suffix


def _is_image(name: str, head: Callable[[], bytes], note_misnamed: Callable[[], None] = lambda: None) -> bool:
    """Decide by the suffix, otherwise by the first bytes of the file; note what begins like a picture and is none."""
    suffix = suffix_of(name)
    if suffix in IMAGE_SUFFIXES or suffix in OTHER_SUFFIXES:
        return suffix in IMAGE_SUFFIXES
    first = head()
    if first.startswith(PICTURE_HEADS):
        note_misnamed()
    return is_recognised(first) and name.upper() != "DICOMDIR"


def head_of_file(file: Path) -> bytes:
    """The first `HEAD_BYTES` bytes of a file; nothing if it cannot be read."""
    try:
        if not file.is_file():  # reading a named pipe would wait for ever
            return b""
        with open(file, "rb") as opened:
            return opened.read(HEAD_BYTES)
    except OSError:
        return b""


def is_same_file(root: Path, left: Found, right: Found) -> bool:
    """Whether two files of a folder hold the same bytes."""
    try:
        return left.size == right.size and filecmp.cmp(root / left.path, root / right.path, shallow=False)
    except OSError:
        return False


# zip


def list_zip(archive: Path) -> Listing:
    """List the images of a .zip. No member is unpacked; of those without a known suffix the first bytes are read.

    Raises:
        SamganError: the archive is damaged, or holds a path outside itself, a link, an encrypted image, or two
            different images of one name.
    """
    listing = Listing()
    by_parts: dict[tuple[str, ...], Found] = {}
    guessed = ""
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                name, is_guessed = _name_of(info)
                _refuse_unsafe(archive, info, name)
                parts = tuple(part for part in unicodedata.normalize("NFC", name).split("/") if part not in ("", "."))
                if name.endswith("/") or not _is_wanted(listing, opened, info, parts):
                    continue
                if info.flag_bits & ENCRYPTED:
                    remedy = "unpack it with its password, and give the folder"
                    raise SamganError(f"{archive} was refused: {shown(name)} in it is encrypted: {remedy}")
                found = Found(info.filename, parts, info.file_size, info.CRC)
                guessed = guessed or (name if is_guessed else "")
                before = by_parts.setdefault(parts, found)
                if before is found:
                    listing.files.append(found)
                elif is_same_member(before, found):
                    listing.unused.append(BadFile(info.filename, "the archive holds it twice"))
                else:
                    remedy = "unpack it and look which is right, then give the folder"
                    raise SamganError(f"{archive} was refused: it holds two different {shown(name)}: {remedy}")
    except DAMAGE as error:
        raise SamganError(f"{archive}: not a readable zip archive ({error})") from error
    if guessed:
        listing.warnings.append(
            f"the archive does not say how its names are encoded: {shown(guessed)} was read as code page 437"
        )
    return listing.finish()


def _name_of(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """A member's name with forward slashes, and whether its encoding was guessed.

    zipfile takes names for code page 437 unless a flag says UTF-8. macOS writes UTF-8 without that flag.
    .NET before 4.6.1 wrote backslashes.
    """
    name, is_guessed = info.filename, False
    if not info.flag_bits & UTF8 and not name.isascii():
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            is_guessed = True
    return name.replace("\\", "/"), is_guessed


def _refuse_unsafe(archive: Path, info: zipfile.ZipInfo, name: str) -> None:
    """Refuse the whole archive if unpacking it would write one member outside its folder."""
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    if is_link or name.startswith("/") or ".." in name.split("/") or name[1:2] == ":":
        kind = "a symbolic link" if is_link else "a path outside the archive"
        raise SamganError(f"{archive} was refused: its member {info.filename!r} is {kind}")


def _is_wanted(listing: Listing, archive: zipfile.ZipFile, info: zipfile.ZipInfo, parts: tuple[str, ...]) -> bool:
    """Whether a member is an image that is not hidden; what else it is goes into `listing`."""
    if not parts:
        listing.unused.append(BadFile("(no name)", "a member of the archive without a name"))
        return False
    suffix = suffix_of(parts[-1])
    if any(map(_is_hidden, parts)):
        if any(map(_is_hidden, parts[:-1])) or suffix in IMAGE_SUFFIXES:
            listing.hidden.update(_surprising([next(filter(_is_hidden, parts))]))
        return False
    path = "/".join(parts)
    if _is_image(parts[-1], lambda: head_of_member(archive, info), lambda: listing.misnamed.append(path)):
        return True
    listing.ignored[suffix] += 1
    return False


def head_of_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The first `HEAD_BYTES` bytes of a member; nothing if it cannot be read."""
    try:
        with archive.open(info) as opened:
            return opened.read(HEAD_BYTES)
    except DAMAGE:
        return b""


def is_same_member(left: Found, right: Found) -> bool:
    """Whether two members of an archive hold the same bytes, as their checksums say."""
    return (left.size, left.version) == (right.size, right.version)
