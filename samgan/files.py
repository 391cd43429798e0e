"""Write files so that a reader never sees half of one; hash JSON; check that a folder is new."""

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


def check_new_folder(path: Path, remedy: str = "name a new folder") -> None:
    """Refuse a path that is in use.

    Args:
        path: Must not exist, or must be an empty folder.
        remedy: What to do otherwise, for the message.

    Raises:
        SamganError: It is a file, or a folder that holds something.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SamganError(f"{path} exists and is not empty; {remedy}")
