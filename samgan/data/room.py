"""How much memory and disk are free, asked before a lot of either is used."""

import shutil
from pathlib import Path

from samgan.errors import SamganError

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")
"""Where Linux tells a container's own limits."""
STATM = Path("/proc/self/statm")
"""Where Linux tells how much address space this process has taken."""
LEAST_SPACE = 256 << 20
"""Twice what a training of the smallest networks took, so that threads and the code of kernels find room, too."""


def free_memory() -> int | None:
    """Bytes that a process may still take without swapping; None where the system does not say (it is not Linux)."""
    try:
        told = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free = int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit, used = (int((GROUP / name).read_text()) for name in ("memory.max", "memory.current"))  # or "max"
        cached = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())["file"]
    except (OSError, KeyError, ValueError):
        return free
    return min(free, max(0, limit - used + int(cached)))


def free_address_space() -> int | None:
    """Bytes of address space that a process may still take; None without a limit (`ulimit -v`), or outside Linux."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        taken = int(STATM.read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else max(0, limit - taken)


def require_address_space() -> None:
    """Refuse a training that would end where address space does, which C libraries answer by a segmentation fault.

    Raises:
        SamganError: `ulimit -v` leaves less than `LEAST_SPACE`.
    """
    free = free_address_space()
    if free is not None and free < LEAST_SPACE:
        raise SamganError(
            f"the limit on address space (ulimit -v) leaves {free >> 20} MiB, and training needs at least "
            f"{LEAST_SPACE >> 20} MiB more; raise it: ulimit -v unlimited"
        )


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Refuse what needs more memory than there is, where the system says how much that is.

    Args:
        needed: Bytes.
        what: What needs them.
        remedy: What to choose instead.

    Raises:
        SamganError: There are not so many.
    """
    free = free_memory()
    if free is not None and needed > free:
        raise SamganError(f"{what} would take {_size(needed)} of memory, and {_size(free)} are free: {remedy}")


def require_disk(folder: Path, needed: int, what: str, remedy: str) -> None:
    """Refuse what needs more disk than there is at `folder`, or at the nearest folder above it that exists.

    Args:
        folder: Where something will be written.
        needed: Bytes.
        what: What needs them.
        remedy: What to choose instead.

    Raises:
        SamganError: There are not so many.
    """
    place = next((place for place in (folder, *folder.absolute().parents) if place.exists()), Path())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise SamganError(f"{what} needs {_size(needed)} on the disk of {folder}, and {_size(free)} are free: {remedy}")


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
