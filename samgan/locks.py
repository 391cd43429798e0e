"""Locks on open files, which end with the process that holds them: flock, or on Windows a lock on one byte."""

import contextlib
import os

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
