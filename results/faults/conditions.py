"""Let commands meet bad conditions of a machine, and compare what they leave with an undisturbed run.

    unshare --user --map-root-user --mount python results/faults/conditions.py WORK_FOLDER [--only NAME ...]

Linux; `unshare` gives a right to mount small disks that nobody else sees (root needs only --mount), and libfaketime
(`apt install faketime`) sets the clock. What became of each condition is a row of conditions.csv in this file's folder
(`--log` names another one), and a later call replaces the rows of the conditions that it tries.

A run has 24 steps at 32 px. At its end it is compared with an undisturbed one as in kills.py: checkpoints, grids and
log byte for byte. A command that cannot go on must say so in one line, without a traceback.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from commands import ERROR
from fault_log import read_log, replace
from kills import COMMON, CONFIGURATIONS, _compare

from samgan.data import PreparedSet, prepare, write_phantoms
from samgan.errors import LONGEST, SamganError
from samgan.runs import Run, load_checkpoint

LOG = Path(__file__).parent / "conditions.csv"
ROOT = Path(__file__).parents[2]
SECONDS = 300
OF_LOG = ("steps of train", "numbers of the log")
"""How what differs in a log begins."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One row of the log."""

    condition: str
    happened: str
    said: str
    """The line with which a command ended that could not go on."""
    lost: str
    """What should not be; empty if all is well."""


class Box:
    """A folder for one condition, and an undisturbed run to compare with."""

    def __init__(self, work: Path, name: str) -> None:
        self.set, self.undisturbed, self.images = work / "set", Run(work / "undisturbed"), work / "images"
        self.path = work / re.sub(r"\W+", "-", name)
        self.run = Run(self.path / "run")
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()

    def start(self, words: Sequence[object], limit: Callable[[], None] | None = None, **variables: str):
        """Start a command in a process of its own."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
        environment["SAMGAN_CACHE"] = str(self.path / "cache")
        return subprocess.Popen(
            [sys.executable, "-m", "samgan", *map(str, words)],
            cwd=self.path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=open(self.path / "said", "wb"),
            preexec_fn=limit,
        )

    def ended(self, process: subprocess.Popen) -> tuple[int, str, str]:
        """Wait for a command: its status, its line of error, and what is wrong with how it ended."""
        status = process.wait(SECONDS)
        text = (self.path / "said").read_text("utf-8", errors="replace").replace(f"{self.path}/", "")
        lines = [line for line in text.splitlines() if line.startswith("samgan: ")]
        errors = [line for line in lines if ERROR.match(line)]
        wrong = ""
        if "Traceback" in text or any(len(line) > LONGEST for line in lines):
            wrong = f"a traceback, or a long line: {text[-300:]}"
        elif (status == 1) != (len(errors) == 1):
            wrong = f"status {status} with {len(errors)} errors: {text[-300:]}"
        return status, (errors or lines or [""])[-1], wrong

    def call(self, *words: object, limit: Callable[[], None] | None = None, **variables: str) -> tuple[int, str, str]:
        """Start a command and wait for it."""
        return self.ended(self.start(words, limit, **variables))

    def train(self, set_: Path | None = None) -> list[object]:
        """The command that trains, or continues, the run of this box."""
        resumed = ["--resume"] * (self.run.path / "config.json").is_file()
        return ["train", set_ or self.set, f"--out={self.run.path}", *COMMON, *CONFIGURATIONS["samgan-plus"], *resumed]

    def when_logged(self, process: subprocess.Popen, step: int = 4) -> None:
        """Wait until the run has written a line of its log."""
        end = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < end:
            last = self.run.last_line()
            if last is not None and last["step"] >= step:
                return
            time.sleep(0.002)
        raise SystemExit(f"training ended, or took too long: {(self.path / 'said').read_text(errors='replace')}")

    def continued(self, *wrong: str, log: bool = True) -> str:
        """Continue the run to its end; what is wrong then, or was before.

        A run that was asked to stop has one line more in its log, for the step at which it stopped: `log=False`.
        """
        status, said, bad = self.call(*self.train())
        differs = _compare(self.undisturbed, self.run) if status == 0 else f"it did not go on: {said}"
        if not log:
            differs = "; ".join(one for one in differs.split("; ") if not one.startswith(OF_LOG))
        return "; ".join(filter(None, (*wrong, bad, differs)))


@contextlib.contextmanager
def small_disk(path: Path, size: int, *options: str) -> Iterator[None]:
    """Mount a disk in memory of `size` bytes at a folder."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def full_disk(box: Box) -> Outcome:
    """The disk becomes full while training runs; then there is room again."""
    with small_disk(box.run.path, 64 << 20):
        ballast = box.run.path / "ballast"
        process = box.start(box.train())
        box.when_logged(process)
        _fill(ballast)
        first = box.ended(process)
        again = box.call(*box.train())
        kept = box.run.checkpoints()
        wrong = [end[2] or ("" if end[0] == 1 else f"status {end[0]} on a full disk") for end in (first, again)]
        wrong += [f"{path.name} cannot be read" for path in kept if not _is_readable(path)]
        wrong += [] if kept else ["no checkpoint was there"]
        ballast.unlink()
        lost = box.continued(*wrong)
    told = "ended with one line, and again while the disk was full; all checkpoints could be read; then went on"
    return Outcome("", f"{told} to its end", first[1], lost)


def _fill(path: Path) -> None:
    """Fill the disk that a file is on, to the last byte."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def _is_readable(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except SamganError:
        return False
    return True


def clock_set_back(box: Box) -> Outcome:
    """The clock goes back by two days while training runs, and by a year before it is continued."""
    library = next(Path("/usr/lib").rglob("faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise SystemExit("libfaketime is missing: apt install faketime")
    offset = box.path / "clock"
    offset.write_text("+0\n")
    clock = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
    clock["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"  # Linux never sets that one back
    process = box.start(box.train(), **clock)
    box.when_logged(process)
    offset.write_text("-2d\n")
    box.when_logged(process, 8)
    process.kill()
    process.wait()
    offset.write_text("-365d\n")
    status, said, wrong = box.call(*box.train(), **clock)
    lines = [json.loads(line) for line in (box.run.path / "stats.jsonl").read_text().splitlines()]
    walls = [line["wall_seconds"] for line in lines if line["kind"] == "train"]
    wrong = wrong or ("" if walls == sorted(walls) and walls[-1] < SECONDS else f"seconds of training: {walls}")
    differs = _compare(box.undisturbed, box.run) if status == 0 else f"status {status}: {said}"
    return Outcome(
        "", "trained to its end; seconds of training only grow", "", "; ".join(filter(None, (wrong, differs)))
    )


def hung_up(box: Box) -> Outcome:
    """The terminal is closed: SIGHUP."""
    process = box.start(box.train())
    box.when_logged(process)
    process.send_signal(signal.SIGHUP)
    status, said, wrong = box.ended(process)
    saved = box.run.last_step()
    wrong = wrong or ("" if status == 128 + signal.SIGHUP and saved else f"status {status}, checkpoint {saved}")
    return Outcome(
        "", "wrote a checkpoint and ended with status 129; continued to its end", said, box.continued(wrong, log=False)
    )


def stopped(box: Box) -> Outcome:
    """SIGSTOP, and SIGCONT two seconds later."""
    process = box.start(box.train())
    box.when_logged(process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    process.send_signal(signal.SIGCONT)
    status, said, wrong = box.ended(process)
    differs = _compare(box.undisturbed, box.run) if status == 0 else f"status {status}: {said}"
    return Outcome("", "trained to its end", "", "; ".join(filter(None, (wrong, differs))))


def strict_umask(box: Box) -> Outcome:
    """Umask 077: nothing may be readable for others."""
    limit = lambda: os.umask(0o077)  # noqa: E731
    ends = [
        box.call("prepare", box.images, "set", "--resolution=32", "--workers=1", limit=limit),
        box.call(*box.train(), limit=limit),
        box.call("sample", box.run.path, "--count=2", "--out=samples", limit=limit),
    ]
    open_ = [path for path in box.path.rglob("*") if path.name != "said" and stat.S_IMODE(path.stat().st_mode) & 0o077]
    wrong = [end[2] or end[1] for end in ends if end[0]] + [f"{path.name} can be read by others" for path in open_]
    wrong += [_compare(box.undisturbed, box.run)]
    told = "prepare, train and sample ended well; no file can be read by others"
    return Outcome("", told, "", "; ".join(filter(None, wrong)))


def few_files(box: Box) -> Outcome:
    """64 open files (ulimit -n 64)."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    ends = [
        box.call("prepare", box.images, "set", "--resolution=32", "--workers=2", limit=limit),
        box.call(*box.train(), limit=limit),
        box.call("sample", box.run.path, "--count=2", "--out=samples", limit=limit),
    ]
    wrong = [end[2] or end[1] for end in ends if end[0]] + [_compare(box.undisturbed, box.run)]
    if not any(wrong):
        PreparedSet.open(box.path / "set").verify()
    return Outcome("", "prepare with two workers, train and sample ended well", "", "; ".join(filter(None, wrong)))


def read_only(box: Box) -> Outcome:
    """A disk that cannot be written to: the set on it is read, and every place for results on it is refused."""
    disk = box.path / "disk"
    with small_disk(disk, 64 << 20):
        shutil.copytree(box.set, disk / "set")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refusals = [
            box.call("prepare", box.images, disk / "new", "--resolution=32", "--workers=1"),
            box.call("train", disk / "set", "--out", disk / "run", *COMMON, *CONFIGURATIONS["samgan-plus"]),
            box.call("sample", box.undisturbed.path, "--count=2", "--out", disk / "samples"),
            box.call("card", disk / "set"),
        ]
        status, said, wrong = box.call(*box.train(disk / "set"))
        bad = [end[2] or ("" if end[0] == 1 else f"status {end[0]}") for end in refusals]
        bad += [wrong, _compare(box.undisturbed, box.run) if status == 0 else f"status {status}: {said}"]
    told = "the set was trained on; prepare, train, sample and card refused to write there, in one line each"
    return Outcome("", told, refusals[1][1], "; ".join(filter(None, bad)))


def little_memory(box: Box) -> Outcome:
    """Address spaces of many sizes (ulimit -v), up to what training takes; then without a limit."""
    ends: dict[str, list[int]] = {}
    said = wrong = ""
    for size in (1000, 2000, 3000, *range(3400, 4001, 25), 4500, 5000, 6000):

        def limit(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (size << 20,) * 2)

        shutil.rmtree(box.run.path, ignore_errors=True)
        status, line, bad = box.call(*box.train(), limit=limit)
        end = {0: "to its end", 1: "one line"}.get(
            status, f"ended by signal {-status}" if status < 0 else "an exception"
        )
        ends.setdefault(end, []).append(size)
        said = line if status == 1 else said
        wrong = wrong or (bad if status == 1 else "")
    told = "; ".join(f"{end} with {len(sizes)} of {sizes[0]} to {sizes[-1]} MiB" for end, sizes in ends.items())
    return Outcome("", told, said, box.continued(wrong))


CONDITIONS: Mapping[str, Callable[[Box], Outcome]] = {
    "the disk is full for a while": full_disk,
    "the clock is set back": clock_set_back,
    "SIGHUP": hung_up,
    "SIGSTOP and SIGCONT": stopped,
    "umask 077": strict_umask,
    "64 open files": few_files,
    "a read-only disk": read_only,
    "little address space": little_memory,
}


def try_conditions(work: Path, log: Path, names: Sequence[str]) -> list[Outcome]:
    """Try conditions, and write a row of each; returns these rows."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "set").exists():
        write_phantoms(work / "images", 12, 32)
        prepare(work / "images", work / "set", resolution=32, workers=1)
    if not (work / "undisturbed").exists():
        box = Box(work, "first")
        status, said, _ = box.call(*box.train())
        if status:
            raise SystemExit(f"the undisturbed run ended with {status}: {said}")
        box.run.path.rename(work / "undisturbed")
    rows = []
    for name in names:
        row = dataclasses.replace(CONDITIONS[name](Box(work, name)), condition=name)
        rows.append(row)
        known = {old.condition: old for old in read_log(log, Outcome)} | {name: row}
        replace(log, (known[each] for each in CONDITIONS if each in known))
        print(f"{name}: {row.lost or row.happened}", flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line; the status is 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK_FOLDER")
    parser.add_argument("--only", nargs="+", default=list(CONDITIONS), choices=CONDITIONS, metavar="NAME")
    parser.add_argument("--log", type=Path, default=LOG)
    options = parser.parse_args(arguments)
    rows = try_conditions(options.work.resolve(), options.log.resolve(), options.only)
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
