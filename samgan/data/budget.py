"""Share memory between threads: those that need much take turns."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

FILE_BYTES = 256 * 2**20
"""Of files that are in memory at a time, in all threads together."""
PICTURE_BYTES = 1024 * 2**20
"""That decoded pictures may need at a time, in all threads together."""


class Budget:
    """A number of bytes that may be in use at a time. Who needs more than is left waits, in the order of asking.

    A request that is larger than the whole is let in when nothing else is in use, so every request is met in the end.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait for `size` bytes. Nobody may wait while holding bytes of the same budget."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self._has_room(size))
                self._used += size
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold `size` bytes for the length of a block."""
        self.take(size)
        try:
            yield
        finally:
            self.give(size)

    @contextlib.contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """A function that holds as many bytes as it was last called with, until the block ends."""
        held = 0

        def reserve(size: int) -> None:
            nonlocal held
            if size > held:
                self.give(held)  # first, since two threads that hold and wait would wait for ever
                held = 0
                self.take(size)
                held = size

        try:
            yield reserve
        finally:
            self.give(held)

    def _has_room(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._total


FILES = Budget(FILE_BYTES)
PICTURES = Budget(PICTURE_BYTES)
"""A thread takes of FILES first and of PICTURES second, never the other way, so that all of them come to an end."""
