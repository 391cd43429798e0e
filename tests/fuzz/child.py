"""Run commands in a process of its own that may die, and judge how each of them ended."""

import contextlib
import io
import json
import os
import re
import resource
import shutil
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from samgan.commands.main import main
from samgan.data import PreparedSet
from samgan.errors import LONGEST, SamganError

from .kinds import Case, make_case
from .mutate import SCRIPT

SECONDS = 30
"""Of processor time; a busy machine makes nothing fail."""
MEMORY = 2 << 30
ADDRESS_SPACE = 3 << 30  # more than MEMORY, so that a command that takes it is noticed, and ends
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ERROR = re.compile(r"samgan( [a-z0-9]+)?: error: ")


@dataclass(frozen=True)
class Verdict:
    """How one input ended."""

    number: int
    kind: str
    words: list[str]
    status: int | None
    wrong: str
    """What should not be; empty if all is well."""
    seconds: float
    """Of processor time."""
    megabytes: int
    said: str
    """The last line on standard error."""


def work(world: Path, folder: Path, seed: int, numbers: list[int], pipe: int, keep: Path | None) -> None:
    """Try inputs one after another, and write to `pipe` what becomes of each; a number alone says that it begins."""
    size = resource.getrusage(
        resource.RUSAGE_SELF
    ).ru_maxrss  # the address space is larger by libraries that are mapped
    with contextlib.suppress(OSError, ValueError):
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE,) * 2)
    for number in numbers:
        box = folder / str(number)
        case = make_case(world, box, seed, number)
        os.write(pipe, f"{json.dumps({'number': number, 'kind': case.kind, 'words': case.words})}\n".encode())
        verdict = _try(case, box, number)
        if verdict.wrong and keep is not None:
            shutil.copytree(box, keep / str(number), dirs_exist_ok=True, symlinks=True)
        os.write(pipe, f"{json.dumps(asdict(verdict))}\n".encode())
        shutil.rmtree(box, ignore_errors=True)


def _try(case: Case, box: Path, number: int) -> Verdict:
    os.chdir(box)
    before = {path for path in box.rglob("*") if path.is_file()}
    _forget_peak()
    start, status, wrong = time.process_time(), None, ""
    with _captured(box.parent / "said") as said:
        try:
            status = main(case.words)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            wrong = f"{type(error).__name__}: {str(error)[:200]!r} at {Path(place.filename).name}:{place.lineno}"
    seconds, megabytes = time.process_time() - start, _peak() >> 20
    out, err = said
    os.chdir(box.parent)
    if not wrong and seconds > SECONDS:
        wrong = f"took {seconds:.1f} s"
    if not wrong and megabytes << 20 > MEMORY:
        wrong = f"took {megabytes} MB"
    try:
        wrong = wrong or _judge_words(status, out, err) or (_judge_files(box, before) if status == 0 else "")
    except Exception as error:
        wrong = f"what it wrote cannot be read: {type(error).__name__}: {str(error)[:200]}"
    last = (err.strip().splitlines() or [""])[-1][:300]
    return Verdict(number, case.kind, case.words, status, wrong, round(seconds, 2), megabytes, last)


def _judge_words(status: int | None, out: str, err: str) -> str:
    """What is wrong with the status, or with what was said."""
    if status not in (0, 1, 2):
        return f"status {status}"
    if "Traceback" in err:
        return "a traceback"
    for text in (out, err):
        if found := CONTROL.search(text):
            return f"printed the control character {found[0]!r}"
    errors = [line for line in err.splitlines() if ERROR.match(line)]
    if status and not errors and not out:
        return f"status {status}, and no reason"
    if len(errors) != (1 if status and not out else 0) and not (status and out):
        return f"status {status}, and {len(errors)} lines of errors"
    if errors and errors[0] != err.splitlines()[-1]:
        return "an error of several lines"
    if errors and len(errors[0]) > LONGEST:
        return f"an error of {len(errors[0])} characters"
    if "out of memory" in err:
        return "out of memory"
    return ""


def _judge_files(box: Path, before: set[Path]) -> str:
    """What is wrong with the files of a command that says that all went well; opens each of them."""
    for path in sorted(set(box.rglob("*")) - before):
        if path.name.endswith(".tmp"):
            return f"left {path.name} behind"
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"), parse_constant=_refuse)
        elif path.suffix == ".jsonl":
            [json.loads(line, parse_constant=_refuse) for line in path.read_text("utf-8").splitlines()]
        elif path.suffix in (".html", ".md") and SCRIPT in path.read_text("utf-8"):
            return f"a script in {path.name}"
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        if path.name == "dataset.json":
            PreparedSet.open(path.parent).verify()
    return ""


def _refuse(constant: str) -> float:
    raise SamganError(f"{constant} in JSON")


@contextlib.contextmanager
def _captured(file: Path) -> "contextlib.Iterator[list[str]]":
    """Collect what is written to the descriptors 1 and 2, also by libraries in C; yields both texts at the end."""
    said: list[str] = []
    saved = [os.dup(1), os.dup(2)]
    files = [open(f"{file}{number}", "w+b") for number in (1, 2)]  # noqa: SIM115
    streams = sys.stdout, sys.stderr
    try:
        for number, opened in enumerate(files, 1):
            os.dup2(opened.fileno(), number)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(open(number, "wb", closefd=False), "utf-8", errors=errors, write_through=True)  # noqa: SIM115
            for number, errors in ((1, "strict"), (2, "backslashreplace"))
        )
        yield said
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = streams
        for number, opened in enumerate(files, 1):
            os.dup2(saved[number - 1], number)
            os.close(saved[number - 1])
            opened.seek(0)
            said.append(opened.read().decode("utf-8", "replace"))
            opened.close()


def _forget_peak() -> None:
    """Let Linux measure the largest memory of this process anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The largest memory of this process since `_forget_peak`, in bytes; of its whole life on other systems."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
