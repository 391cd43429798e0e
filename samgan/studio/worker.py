"""The process that makes pictures, as the server sees it: started when it is needed, used again, gone when it is idle.

The server itself has no torch: it would need seconds to start, and a gigabyte.
"""

import contextlib
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from samgan.errors import SamganError, UsageError, first_line
from samgan.studio.tasks import Answer, Failed, Made, Making, Progress, Said, Task, Weights

PATIENCE = 600.0
"""Seconds for one task; the features of a large set take the longest."""
WAITING = 8
"""Requests that may wait for one another. More would take the threads that all pages need."""
KEPT_BYTES = 1 << 26
"""Of pictures that were made, so that a page and its pictures need one task together."""
COMMAND = (sys.executable, "-P", "-m", "samgan.studio.maker")
"""With -P nothing is imported from the current folder, which may be anybody's."""
AGAIN = "Try again; the terminal of the studio may say more."


class Worker:
    """Does tasks in a process of its own, one after the other.

    The process ends by itself when it had nothing to do for two minutes, and when this process ends, however that is.

    Args:
        command: The words that start it.
        patience: Seconds that a task may take; then the process is ended.
    """

    def __init__(self, command: Sequence[str] = COMMAND, patience: float = PATIENCE) -> None:
        self.command, self.patience = tuple(command), patience
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._waiting = threading.BoundedSemaphore(WAITING)
        self._kept: OrderedDict[tuple[Making, int], bytes] = OrderedDict()
        self._keeping = threading.Lock()
        self.progress = ""
        """How far the present task is, in words; empty if it has not said so."""

    def do(self, task: Task) -> tuple[Answer, list[bytes]]:
        """Do a task.

        Returns:
            The answer and, if pictures were made, their files.

        Raises:
            UsageError: What was asked for cannot be, as a class that the model does not have.
            SamganError: It failed, it took too long, or too many requests are waiting.
        """
        if not self._waiting.acquire(blocking=False):
            raise SamganError("Too many pictures are being asked for at once. Wait a moment, then try again.")
        try:
            with self._turn:
                answer, files = self._ask(task)
        finally:
            self._waiting.release()
        if isinstance(answer, Failed):
            raise (UsageError if answer.usage else SamganError)(answer.words)
        return answer, files

    def make(self, task: Making) -> Made:
        """Make pictures, and keep them for `picture` as those of the weights that were there.

        Raises:
            UsageError, SamganError: As for `do`.
        """
        made, files = self.do(task)
        if not isinstance(made, Made) or len(files) != len(made.pictures):
            raise SamganError(f"The process that makes pictures gave another answer than was asked for. {AGAIN}")
        own = msgspec.structs.replace(task, weights=msgspec.structs.replace(task.weights, sha256=made.sha256))
        with self._keeping:
            for number, content in enumerate(files):
                self._kept[own, number] = content
            while len(self._kept) > len(files) and sum(map(len, self._kept.values())) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return made

    def picture(self, task: Making, number: int) -> bytes:
        """The PNG file of one of the pictures of a task that names its weights by their whole hash.

        It is made again if it is not kept any more.

        Raises:
            UsageError: There is no such picture, or as for `do`.
            SamganError: The model has other weights by now, or as for `do`.
        """
        for made in (False, True):
            if made:
                self.make(task)
            with self._keeping:
                if (task, number) in self._kept:
                    return self._kept[task, number]
        raise UsageError("There is no such picture.")

    def close(self) -> None:
        """End the process; whoever waits for it gets an error."""
        process = self._process
        if process is not None:
            process.kill()
            with self._turn:
                if self._process is process:
                    self._forget(process)

    def _ask(self, task: Task) -> tuple[Answer, list[bytes]]:
        line = msgspec.json.encode(task) + b"\n"
        for _ in range(2):  # one that was idle may end just now
            process = self._running()
            late = threading.Event()
            timer = threading.Timer(self.patience, _end, (process, late))
            timer.daemon = True
            timer.start()
            try:
                with contextlib.suppress(OSError):  # it has ended: reading tells
                    _stream(process.stdin).write(line)
                    _stream(process.stdin).flush()
                answered = self._read(_stream(process.stdout))
            finally:
                timer.cancel()
                self.progress = ""
            if answered is not None:
                return answered
            self._forget(process)
            if late.is_set():
                raise SamganError(f"Making the pictures took more than {self.patience / 60:g} minutes and was ended.")
            if status := process.returncode:
                raise SamganError(f"The process that makes pictures ended {_how(status)}. {AGAIN}")
        raise SamganError(f"The process that makes pictures gives no answer. {AGAIN}")

    def _read(self, stream: IO[bytes]) -> tuple[Answer, list[bytes]] | None:
        """The answer to a task, and its files; None if the stream ends before."""
        while True:
            line = stream.readline()
            if not line.endswith(b"\n"):
                return None
            try:
                said = msgspec.json.decode(line, type=Said)
            except msgspec.MsgspecError:
                return None
            if not isinstance(said, Progress):
                break
            self.progress = said.words
        files = [stream.read(size) for size in said.sizes] if isinstance(said, Made) else []
        complete = not isinstance(said, Made) or tuple(map(len, files)) == said.sizes
        return (said, files) if complete else None

    def _running(self) -> "subprocess.Popen[bytes]":
        process = self._process
        if process is not None and process.poll() is not None:
            self._forget(process)
            process = None
        if process is None:
            try:
                process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            except OSError as error:
                raise SamganError(f"The process that makes pictures cannot be started: {first_line(error)}") from None
            self._process = process
        return process

    def _forget(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait for a process whose pipe has ended, and close ours."""
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                _stream(stream).close()
        self._process = None


def weights(path: Path, sha256: str = "", truncation: float = 1.0, checkpoint: str = "") -> Weights:
    """The weights of a task."""
    return Weights(bytes(path), sha256, truncation, checkpoint)


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _end(process: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    process.kill()


def _how(status: int) -> str:
    return f"with status {status}" if status > 0 else f"by signal {-status}, perhaps for lack of memory"
