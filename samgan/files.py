"""Write files so that a reader never sees half of one; hash JSON; tell which folders are new and which files junk."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from samgan.errors import SamganError

Location = str | os.PathLike[str]
"""A file or folder that a function of `samgan.api` reads or writes."""

SYSTEM_NAMES = frozenset(
    {
        *(".ds_store", ".localized", ".spotlight-v100", ".trashes", ".fseventsd", ".apdisk", "icon\r"),  # macOS
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
        *(".directory", "lost+found"),  # KDE, Linux
        *("@eadir", "#recycle", "#snapshot", "@tmp"),  # Synology
        *("@recycle", "@recently-snapshot", ".@__thumb"),  # QNAP
    }
)
"""Files and folders, in lower case, that operating systems and file servers put beside a user's own."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on success sync it and rename it to `path`, on failure remove it.

    Whatever happens (an exception, a full disk, kill -9), `path` holds all of its old or all of its new content.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Write `document` as indented JSON, atomically. NaN and infinity are refused with ValueError."""
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    with atomic_write(path) as file:
        file.write(text.encode())


def hash_json(document: Any) -> str:
    """SHA-256 of `document` as JSON, in hexadecimal; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def is_system_name(name: str) -> bool:
    """Whether an operating system or a file server made the file or folder of this name, and not a person."""
    return name.lower() in SYSTEM_NAMES or name.startswith(("._", "__MACOSX"))  # ._x: what macOS knows about x


def holds_something(folder: Path) -> bool:
    """Whether a folder holds any file or folder that a person, or a program of theirs, put there."""
    return any(not is_system_name(path.name) for path in folder.iterdir())


def check_new_folder(path: Path, remedy: str = "name a new folder") -> None:
    """Refuse a path that is in use.

    Args:
        path: Must not exist, or must be a folder that is empty but for files of the system, such as .DS_Store.
        remedy: What to do otherwise, for the message.

    Raises:
        SamganError: It is a file, or a folder that holds something.
    """
    if path.exists() and (not path.is_dir() or holds_something(path)):
        raise SamganError(f"{path} exists and is not empty; {remedy}")


def move_into_place(made: Path, out: Path) -> None:
    """Rename a finished folder to `out`, which `check_new_folder` has let pass; files of the system in `out` stay.

    Raises:
        OSError: `out` holds something by now, or the folder cannot be renamed.
    """
    if out.exists():
        for path in list(out.iterdir()):
            if is_system_name(path.name):
                path.rename(made / path.name)
        out.rmdir()
    made.rename(out)
