"""Locks on open files, which end with the process that holds them: flock, or on Windows a lock on one byte."""

import contextlib
import os
import time
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
PATIENCE = 0.1
"""Seconds until a lock counts as held: `find_holder` may have taken it for a moment."""


class HeldError(Exception):
    """Another process, or another descriptor, holds the lock."""


def can_lock_folders() -> bool:
    """Whether a folder can be opened and locked; it cannot on Windows."""
    return fcntl is not None


def lock(descriptor: int) -> bool:
    """Lock an open file, without waiting for longer than `PATIENCE`.

    Args:
        descriptor: Of a file, or of a folder where `can_lock_folders`. The lock ends when it is closed.

    Returns:
        Whether it is locked now; False on a file system without locks, such as some network file systems have.

    Raises:
        HeldError: Somebody else holds the lock.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return _try_lock(descriptor)
        except HeldError:
            if time.monotonic() > end:
                raise
            time.sleep(PATIENCE / 20)


def _try_lock(descriptor: int, shared: bool = False) -> bool:
    """As `lock`, once; or, but for Windows, share the lock with others who do so, and with no one else."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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

    Linux tells it if the process is ours. If not, it may be another user's, or in another container or on another
    host: the lock is tried, which takes it for a moment, for which `lock` is patient.
    """
    try:
        inode = os.stat(path, follow_symlinks=False).st_ino
        # Only to read: the file may be another user's, and a shared lock needs no more, on network file systems too.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | NON_BLOCKING)
    except OSError:
        return None
    try:
        for pid in _flock_holders(inode):
            if _has_opened(pid, path):
                return Holder(pid)
        _try_lock(descriptor, shared=True)
        unlock(descriptor)
    except HeldError:
        return Holder(None)
    finally:
        os.close(descriptor)
    return None


def _flock_holders(inode: int) -> list[int]:
    """Processes that hold the lock of a file with this number, on any file system, and do not only share it."""
    try:
        rows = [line.split() for line in (PROCESSES / "locks").read_text("utf-8").splitlines()]
    except OSError:
        return []
    # 1: FLOCK  ADVISORY  WRITE 3565 fe:00:2162768 0 EOF
    held = [row for row in rows if row[1] == "FLOCK" and row[3] == "WRITE"]
    return [int(row[4]) for row in held if row[5].rpartition(":")[2] == str(inode)]


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
