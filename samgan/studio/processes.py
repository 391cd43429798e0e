"""Start commands of samgan as processes of their own, which live on without the studio, and ask a training to stop."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from samgan.errors import SamganError, first_line
from samgan.files import NO_FOLLOW
from samgan.locks import HeldError, find_holder, lock
from samgan.studio.places import Root

FOLDER = ".studio"
"""Below the root: what the commands say that were started here."""
SHOWN_BYTES = 4000
DETACHED: dict[str, Any] = {"start_new_session": True}
if os.name == "nt":
    names = ("DETACHED_PROCESS", "CREATE_NEW_PROCESS_GROUP")
    DETACHED = {"creationflags": sum(getattr(subprocess, name) for name in names)}
"""Away from the terminal of the studio, whose Ctrl-C ends no training then."""
_children: list["subprocess.Popen[bytes]"] = []


def log_path(root: Root, place: str) -> Path:
    """The file that has what the commands for a place say."""
    name = quote(place, safe="", errors="surrogateescape")[-80:]
    digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return root.path / FOLDER / f"{name}-{digest}.log"


def start(root: Root, place: str, words: Sequence[str]) -> None:
    """Start `samgan WORDS`, with its output at the end of `log_path(root, place)`.

    The command holds the lock of its log as long as it runs, so that `is_running` can tell it.

    Raises:
        SamganError: One that was started for this place is still running; or it cannot be started, or its log cannot
            be written, as on a full disk.
    """
    path = log_path(root, place)
    try:
        path.parent.mkdir(exist_ok=True)
        root.check(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_FOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as log:
            lock(descriptor)
            log.write(f"$ samgan {' '.join(words)}\n".encode("utf-8", "surrogateescape"))
            log.flush()
            process = subprocess.Popen(_command(words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, **DETACHED)
    except HeldError:
        raise SamganError("What was started here before is still running: wait until it has ended.") from None
    except OSError as error:
        raise SamganError(f"samgan {words[0]} could not be started: {first_line(error)}") from None
    _children[:] = [*(child for child in _children if child.poll() is None), process]


def is_running(root: Root, place: str) -> bool:
    """Whether a command that was started for a place is still running; on Windows never, where no child has a lock."""
    return find_holder(log_path(root, place)) is not None


def said(root: Root, place: str) -> str:
    """The end of what the commands for a place have said; empty if none was started here."""
    try:
        with open(root.check(log_path(root, place)), "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - SHOWN_BYTES))
            text = log.read().decode("utf-8", "replace")
    except (OSError, SamganError):
        return ""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    lines = (line.rsplit("\r", 1)[-1] for line in text.split("\n"))  # progress overwrites itself
    return "\n".join(line for line in lines if line.strip())


def answer(words: Sequence[str], seconds: float) -> str:
    """Run `samgan WORDS` and return what it prints; for questions that are answered soon.

    Raises:
        SamganError: It fails, with its own words, or takes longer.
    """
    try:
        done = subprocess.run(
            _command(words), stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise SamganError(f"samgan {words[0]} gave no answer in {seconds:g} seconds") from None
    except OSError as error:
        raise SamganError(f"samgan {words[0]} could not be started: {first_line(error)}") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [
            f"it ended with status {done.returncode}"
        ]
        raise SamganError(re.sub("^samgan( [a-z0-9-]+)?: error: ", "", lines[-1]))
    return done.stdout.decode("utf-8", "replace")


def command_of(pid: int) -> tuple[str, ...]:
    """The words of a process; none if this system does not tell them."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ()
    return tuple(word.decode("utf-8", "replace") for word in words[:-1])


def stop(run: Path) -> None:
    """Ask the process that trains in a run folder to stop: it finishes its step and writes a checkpoint.

    Raises:
        SamganError: Nobody trains there, or the process cannot be reached from here.
    """
    holder = find_holder(run / ".lock")
    if holder is None:
        raise SamganError("Nobody is training in this run any more.")
    if holder.pid is None:
        raise SamganError("The process that trains here belongs to somebody else or to another machine; stop it there.")
    try:
        os.kill(holder.pid, signal.SIGTERM)
    except ProcessLookupError:
        raise SamganError("Nobody is training in this run any more.") from None
    except OSError as error:
        raise SamganError(f"The process {holder.pid} could not be stopped: {first_line(error)}") from None


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-P", "-m", "samgan", *words]  # -P: nothing is imported from the current folder
