"""Locks on open files, which end with the process that holds them: flock, or on Windows a lock on one byte."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # not Windows
    msvcrt = None  # type: ignore[assignment]

NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)
"""Flag of `os.open` that does not wait for the other end of a pipe; Windows lacks it."""
BYTE = 0x7FFFFFFF - 1
"""The byte that is locked on Windows: nobody may read or write a locked byte, so it lies behind what files hold."""
PROCESSES = Path("/proc")
"""Where Linux tells who holds which lock."""


class HeldError(Exception):
    """Another process, or another descriptor, holds the lock."""


def can_lock_folders() -> bool:
    """Whether a folder can be opened and locked; it cannot on Windows."""
    return fcntl is not None


def lock(descriptor: int) -> bool:
    """Lock an open file, without waiting.

    Args:
        descriptor: Of a file, or of a folder where `can_lock_folders`. The lock ends when it is closed.

    Returns:
        Whether it is locked now; False on a file system without locks, such as some network file systems have.

    Raises:
        HeldError: Somebody else holds the lock.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            _lock_byte(descriptor)
        else:
            return False
    except OSError as error:
        if isinstance(error, BlockingIOError if fcntl is not None else PermissionError):
            raise HeldError from error
        return False
    return True


@dataclass(frozen=True)
class Holder:
    """Somebody who holds the lock of a file."""

    pid: int | None
    """The process; None if the system does not tell, or it is on another host or in another container."""


def find_holder(path: Path) -> Holder | None:
    """Tell who holds the lock of a file; None if nobody does, or there is no such file.

    Linux tells it without a look at the lock itself. Elsewhere the lock is taken and given back at once, so that a
    process that asks for it in that moment is refused.
    """
    try:
        inode = os.stat(path, follow_symlinks=False).st_ino
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | NON_BLOCKING)
    except OSError:
        return None
    try:
        for pid in _flock_holders(inode):
            if _has_opened(pid, path):
                return Holder(pid)
        lock(descriptor)
        unlock(descriptor)
    except HeldError:
        return Holder(None)
    finally:
        os.close(descriptor)
    return None


def _flock_holders(inode: int) -> list[int]:
    """Processes that hold the lock of a file with this number, on any file system."""
    try:
        rows = [line.split() for line in (PROCESSES / "locks").read_text("utf-8").splitlines()]
    except OSError:
        return []
    # 1: FLOCK  ADVISORY  WRITE 3565 fe:00:2162768 0 EOF
    return [int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(inode)]


def _has_opened(pid: int, path: Path) -> bool:
    """Whether a process has this very file open; False for one of another user, which cannot be stopped either."""
    try:
        opened = [os.readlink(link) for link in os.scandir(PROCESSES / str(pid) / "fd")]
    except OSError:
        return False
    return str(path.resolve()) in opened


def unlock(descriptor: int) -> None:
    """Give a lock back; for Windows, which frees the locks of a closed file only in its own time."""
    if fcntl is None and msvcrt is not None:
        with contextlib.suppress(OSError):
            _lock_byte(descriptor, free=True)


def _lock_byte(descriptor: int, free: bool = False) -> None:
    """Lock or free `BYTE`, and leave the position in the file as it was."""
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK if free else msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)
