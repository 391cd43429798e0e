"""What is said on standard error: nothing that a program says may end it, and nothing may control the terminal."""

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from samgan.errors import shown

if TYPE_CHECKING:
    from rich.console import Console

DEAF = (OSError, ValueError)
"""What writing to a stream raises when nobody can hear it: a full disk, a closed pipe, a closed file."""


def ending_signals() -> tuple[int, ...]:
    """Signals that ask to end: SIGTERM, and SIGHUP of a terminal that is closed, unless it is ignored (nohup)."""
    hang_up: int | None = getattr(signal, "SIGHUP", None)
    if hang_up is None or signal.getsignal(hang_up) == signal.SIG_IGN:  # Windows has none
        return (signal.SIGTERM,)
    return signal.SIGTERM, hang_up


def printable(text: str) -> str:
    """`text` with every line as `samgan.errors.shown` has it; tabs stay."""
    return "\n".join("\t".join(map(shown, line.split("\t"))) for line in text.split("\n"))


def say(text: str) -> None:
    """Print a line, or several, to standard error. If it is closed, or its disk is full, the text is lost."""
    write(f"{printable(text)}\n")


def write(text: str) -> None:
    """Write `text`, which may hold control characters, to standard error, if it can be written to."""
    _write(sys.stderr, text)


def is_terminal() -> bool:
    """Whether standard error is a terminal, on which a line can be written again."""
    return _is_terminal(sys.stderr)


def console() -> "Console":
    """A console of rich on standard error, for progress. Like `say`, it goes on when nobody can hear it."""
    from rich.console import Console

    # In Jupyter, rich would ask for ipywidgets with a warning; there, progress is shown as in a file: not at all.
    return Console(file=_Patient(sys.stderr), force_jupyter=False)  # type: ignore[arg-type]


class _Patient:
    """A stream as rich needs it, whose writing never fails."""

    def __init__(self, stream: Any) -> None:
        self.stream = getattr(stream, "rich_proxied_file", stream)  # another progress bar may be in between
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        _write(self.stream, text)
        return len(text)

    def flush(self) -> None:
        """Everything has been written."""

    def isatty(self) -> bool:
        return _is_terminal(self.stream)


def _write(stream: Any, text: str) -> None:
    with contextlib.suppress(*DEAF):
        if stream is not None:  # None: it was closed when Python started
            stream.write(text)
            stream.flush()


def _is_terminal(stream: Any) -> bool:
    with contextlib.suppress(*DEAF):
        return stream is not None and bool(stream.isatty())
    return False


def open_standard_files() -> None:
    """Give input, output and errors a descriptor each if they were closed when the program started.

    Otherwise the next file that is opened gets the number 1 or 2, and what a C library prints ends up in it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:  # argparse would print errors as results
        sys.stderr = open(2, "w", encoding="locale", closefd=False)  # noqa: SIM115


def forget_unwritten(stream: Any) -> OSError | None:
    """Flush a standard stream before Python ends; what cannot be written goes to the null device.

    Otherwise Python tries again when it ends, prints a traceback and changes the exit status.

    Returns:
        Why it could not be written; None if it could.
    """
    try:
        if stream is not None and not stream.closed:
            stream.flush()
    except OSError as error:
        with contextlib.suppress(*DEAF):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        return error
    return None
