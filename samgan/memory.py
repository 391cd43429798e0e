"""What the process does with memory it no longer needs."""

import ctypes


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed for the next allocation; it is told to for the rest of the process.

    It would give large blocks back to the system after each use, which then clears them page by page when the next
    step asks for them again. The largest amount ever in use stays as it is.

    Returns:
        Whether the C library (GNU's alone) took it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    mmap_threshold, trim_threshold = -3, -1  # malloc.h
    return bool(mallopt(mmap_threshold, 1 << 30) and mallopt(trim_threshold, (1 << 31) - 1))
