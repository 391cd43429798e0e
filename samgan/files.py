"""Write files so that a reader never sees half of one; hash JSON; tell which folders are new and which files junk."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from samgan.errors import SamganError
from samgan.locks import NON_BLOCKING, HeldError, can_lock_folders, lock, unlock

Location = str | os.PathLike[str]
"""A file or folder that a function of `samgan.api` reads or writes."""

PRIVATE = 0o700
"""Mode of a folder that will hold pictures or names of patients. A folder that is there already keeps its own."""

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


# Names of temporary files and folders: .NAME.PID.tmp, beside NAME. Whoever writes one holds a lock on it, and the lock
# ends with its process. So a temporary without a lock was left behind by a process that was killed, on this host or
# another: the next write of NAME removes it. On Windows folders have no locks, and such a folder stays.
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Flag of `os.open` that refuses a symbolic link; Windows lacks it."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on success sync it and rename it to `path`, on failure remove it.

    Whatever happens (an exception, a full disk, kill -9), `path` holds all of its old or all of its new content. What
    earlier calls for `path` left behind when they were killed is removed.

    Raises:
        OSError: It cannot be written; the error names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = _temporary(path)
    try:
        with naming(path):
            with _create(temporary) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of writing name the file. The system does when a file is opened, but not when a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def is_full(error: OSError) -> bool:
    """Whether no space is left on a disk, or none of what a user may take of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def atomic_folder(path: Path, mode: int = 0o777) -> Iterator[Path]:
    """Make a temporary folder beside `path`; on success rename it to `path`, on failure remove it.

    So `path` is missing, as it was or complete, whatever happens. What earlier calls for `path` left behind when they
    were killed is removed.

    Args:
        path: A new folder, or one that is empty; that keeps the rights that its maker gave it.
        mode: Rights of a new folder, before the umask; `PRIVATE` if it will hold pictures of patients.

    Raises:
        SamganError: `path` is in use, at the start or at the end.
    """
    check_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = _temporary(path)
    _clear(temporary)
    temporary.mkdir(mode)
    try:
        with _held(temporary):
            yield temporary
            check_new_folder(path)
            if path.exists():
                shutil.copymode(path, temporary)
            _move_into_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _move_into_place(made: Path, out: Path) -> None:
    """Rename a folder to `out`. If that is there, its files of the system, such as @eaDir, stay in it."""
    moved = []
    try:
        if out.exists():
            for path in [path for path in out.iterdir() if is_system_name(path.name)]:
                path.rename(made / path.name)
                moved.append(path)
            out.rmdir()
        made.rename(out)
    except BaseException:
        for path in moved:
            with contextlib.suppress(OSError):
                path.parent.mkdir(exist_ok=True)
                (made / path.name).rename(path)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove temporary files and folders of `path` whose process was killed; others, and all that cannot be, stay."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9]+\.tmp")
    with contextlib.suppress(OSError):
        for entry in [entry for entry in os.scandir(path.parent) if pattern.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                if entry.is_symlink():
                    os.unlink(entry)
                elif _is_abandoned(entry.path, os.O_RDONLY if entry.is_dir() else os.O_RDWR):
                    shutil.rmtree(entry) if entry.is_dir() else os.unlink(entry)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _clear(temporary: Path) -> None:
    """Remove what an earlier process with the number of this one left behind, where files cannot be locked."""
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary)
    else:
        temporary.unlink(missing_ok=True)


def _create(temporary: Path) -> BinaryIO:
    """Create and lock a file; never through a link that somebody has put in its place."""
    _clear(temporary)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(temporary, flags, 0o666), "wb")
    with contextlib.suppress(HeldError):  # by who looks just now whether it was left behind
        lock(file.fileno())
    return file


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the lock of a temporary folder."""
    if not can_lock_folders():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(HeldError):
            lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _is_abandoned(path: str, flags: int) -> bool:
    """Whether nobody holds the lock of a temporary file or folder; False where it cannot be locked."""
    descriptor = os.open(path, flags | NO_FOLLOW | NON_BLOCKING)
    try:
        return lock(descriptor)
    except HeldError:
        return False
    finally:
        unlock(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Keep other processes out of `folder`, which must exist, by a lock on the file `.lock` in it.

    The lock ends with the process that holds it, however that ends. The file is never written to. It is removed at the
    end; one that a killed process left behind does no harm. Without effect on network file systems that have no locks.

    Args:
        folder: Where to work.
        busy: The error if another process holds the lock.

    Raises:
        SamganError: Another process holds it, or `.lock` is not a regular file but, say, a link.
    """
    path = folder / ".lock"
    descriptor = _lock(path, busy)
    try:
        yield
    finally:
        _unlock(path, descriptor)


def _unlock(path: Path, descriptor: int) -> None:
    """Remove a file that this process holds the lock of, and end the lock."""
    if can_lock_folders():
        path.unlink(missing_ok=True)  # first: whoever opened it meanwhile finds that it is gone
        os.close(descriptor)
        return
    unlock(descriptor)
    os.close(descriptor)
    with contextlib.suppress(OSError):  # Windows removes no file that somebody has opened: it is theirs then
        path.unlink(missing_ok=True)


def _lock(path: Path, busy: str) -> int:
    """Open and lock a file that is still there when it is locked; returns its descriptor."""
    while True:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise SamganError(f"{path} is not a regular file, as a lock of samgan is: remove it, then try again")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW | NON_BLOCKING, 0o666)
        try:
            if not lock(descriptor):
                return descriptor
        except HeldError:
            os.close(descriptor)
            raise SamganError(busy) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # the process that held it has removed it: take the lock of the new file


def without_folders(words: Sequence[str]) -> tuple[str, ...]:
    """A command as it may be published: of each path only the last name, since folders tell names of people."""
    return tuple(re.sub(r"^((?:--[^=]*|\w+)=)?.*[/\\](?=[^/\\])", r"\1", word.rstrip("/\\") or word) for word in words)


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
