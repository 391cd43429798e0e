"""Kill training with SIGKILL at random moments, continue it, and compare its end with that of an undisturbed run.

    python results/faults/kills.py WORK_FOLDER [--kills 1000] [--seed 0] [--only NAME ...]

Kills are shared out over the configurations below, and what became of each is added to kills.csv in this file's folder
(`--log` names another one). A later call with the same log goes on where it ends; `python results/faults/table.py`
writes its summary into README.md.

A run of 24 steps is killed and continued until it ends, then the next one begins. Half of the kills come after a random
time; half at a random call of os.open, os.fsync, os.replace or os.unlink, since nothing is more exposed than the moment
between two of them. Of two processes, both are killed, or only one: the other then has to end by itself. The processes
are forked from one that has imported samgan, so that a kill costs a second and not five; each of them then calls the
command `samgan train` with its own arguments.
"""

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from fault_log import append, read_log

import samgan.hosts
import samgan.training.snapshots
from samgan.commands.main import main as samgan_main
from samgan.data import prepare, write_phantoms
from samgan.hosts import ARRIVAL
from samgan.runs import Run

LOG = Path(__file__).parent / "kills.csv"
STEPS, BATCH = 24, 4
COMMON = (
    *(
        "--scale=cpu",
        "--device=cpu",
        "--network.resolution=32",
        "--network.max_channels=8",
        f"--training.batch_size={BATCH}",
    ),
    "--training.precision=fp32",
    *(
        f"--training.kimg={STEPS * BATCH / 1000}",
        "--training.log_every_kimg=0.008",
        "--training.snapshot_every_kimg=0.012",
    ),
)
CONFIGURATIONS = {
    "samgan-plus": ("--preset=samgan-plus",),
    "samgan-8": ("--preset=samgan-8",),
    "classes": ("--preset=samgan-plus", "--network.num_classes=2", "--data.class_sampling=balanced"),
    "augmentation": ("--preset=samgan-8", "--training.augment_target=0.6"),
    "two processes": ("--preset=samgan-plus", "--processes=2"),
}
STARTS = 0.5
"""Seconds that a training takes beside its steps, roughly; kills come within a share of all."""
CALLS = ("open", "fsync", "replace", "unlink")
HUNG, EXCEPTION = 99, 98
LEFT_ALONE = {-signal.SIGKILL: "", 0: "done", 1: "error", EXCEPTION: "exception", HUNG: "hung"}
LEFT_ALONE_SECONDS = ARRIVAL + 60
"""A process must end within this time after its partner was killed: it waits so long for one that has not come yet."""


@dataclasses.dataclass(frozen=True)
class Kill:
    """One row of the log."""

    configuration: str
    seed: int
    run: int
    kill: int
    how: str
    """When it came: `after 0.512 s`, or `at fsync 3`; of two processes also which was killed."""
    checkpoint: int
    """Step of the newest checkpoint at that moment."""
    logged: int
    """Last step in stats.jsonl."""
    temporaries: int
    """Files that were being written."""
    left_alone: str
    """How the other process ended, if only one of two was killed: `error`, `exception`, `done` or `hung`."""
    lost: str
    """What differs at the end of the run from the undisturbed one; empty if nothing does."""


def kill_runs(
    work: Path, log: Path, kills: int, seed: int = 0, names: Sequence[str] = tuple(CONFIGURATIONS)
) -> list[Kill]:
    """Kill runs until the log has `kills` kills in all, in equal shares; returns the rows of this call."""
    torch.set_num_threads(1)
    samgan.training.snapshots.SCORED_IMAGES = 16  # the scores of a snapshot would take longer than all its steps
    samgan.hosts.BEAT = 0.1  # a process that is left alone notices it sooner, and does the same then
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "set").exists():
        write_phantoms(work / "images", 12, 32)
        prepare(work / "images", work / "set", resolution=32, workers=1)
    done = [row for row in read_log(log, Kill) if row.seed == seed]
    shares = {name: kills // len(names) + (place < kills % len(names)) for place, name in enumerate(names)}
    seconds: dict[str, float] = {}
    added: list[Kill] = []
    while True:
        own = {name: [row for row in (*done, *added) if row.configuration == name] for name in names}
        names = [name for name in names if len(own[name]) < shares[name]]
        if not names:
            return added
        for name in names:  # one run of each in turn, so that a log that is cut short has all of them
            if name not in seconds:
                seconds[name] = _undisturbed(work, name)
            number = max((row.run for row in own[name]), default=0) + 1
            rows = _kill_one_run(work, name, number, seed, shares[name] - len(own[name]), seconds[name])
            append(log, *rows)
            added += rows
            told = {row.lost for row in rows} - {""}
            print(f"{name}: {len(own[name]) + len(rows)} kills{f'; LOST: {told}' if told else ''}", flush=True)


def _undisturbed(work: Path, name: str) -> float:
    """Let a run end undisturbed; returns the seconds that its training took."""
    run = work / name / "undisturbed"
    shutil.rmtree(run.parent, ignore_errors=True)
    run.parent.mkdir()
    _require(_Life(work, name, run, tells=True).ended())
    _import_all((run.parent / "modules").read_text().split())
    lines = [line["wall_seconds"] for line in Run(run).stats() if line["kind"] == "train"]
    return float(lines[-1]) + STARTS


def _kill_one_run(work: Path, name: str, number: int, seed: int, most: int, seconds: float) -> list[Kill]:
    """Kill one run up to `most` times and let it end."""
    path = work / name / f"killed-{number}"
    shutil.rmtree(path, ignore_errors=True)
    draw = random.Random(f"{seed} {name} {number}")
    rows: list[Kill] = []
    while len(rows) < most:
        after = call = None
        if draw.random() < 0.5:
            after = seconds * draw.uniform(0.0, 0.6)
        else:
            call = draw.choice(CALLS), draw.randrange(1, 15)
        victims = draw.choice(((0, 1), (0,), (1,))) if name == "two processes" else (0,)
        life = _Life(work, name, path, call, victims[0])
        if after is not None:
            life.kill_after(after, victims)
        codes = life.ended(victims)
        if set(codes) == {0} and rows:
            break
        if set(codes) == {0}:  # it ended before its first kill
            shutil.rmtree(path)
            continue
        how = f"after {after:.3f} s" if after is not None else "at {} {}".format(*call)
        how += f", process {' and '.join(map(str, victims))}" if name == "two processes" else ""
        rows.append(_row(name, seed, number, len(rows) + 1, how, path, codes))
    else:
        codes = _Life(work, name, path).ended()
    lost = _compare(Run(work / name / "undisturbed"), Run(path)) if set(codes) == {0} else f"did not end: {codes}"
    if not lost:
        shutil.rmtree(path)
    return [dataclasses.replace(row, lost="; ".join(filter(None, (row.lost, lost)))) for row in rows]


def _row(name: str, seed: int, number: int, kill: int, how: str, path: Path, codes: Sequence[int]) -> Kill:
    run = Run(path)
    last = run.last_line()
    temporaries = len(list(path.rglob(".*.tmp"))) + len(list(path.parent.glob(f".{path.name}.*.tmp")))
    left_alone = LEFT_ALONE.get(codes[1], str(codes[1])) if len(codes) > 1 else ""
    lost = f"the other process ended with {left_alone}" if left_alone not in ("", *LEFT_ALONE.values()) else ""
    lost = lost or ("the other process hung" if left_alone == "hung" else "")
    step = last["step"] if last else 0
    return Kill(name, seed, number, kill, how, run.last_step(), step, temporaries, left_alone, lost)


class _Life:
    """One start of a run: as many processes as it has, until they end or are killed."""

    def __init__(
        self,
        work: Path,
        name: str,
        path: Path,
        call: tuple[str, int] | None = None,
        victim: int = 0,
        tells: bool = False,
    ) -> None:
        words = ["train", str(work / "set"), f"--out={path}", *COMMON, *CONFIGURATIONS[name]]
        words += ["--resume"] * (path / "config.json").is_file()
        processes = 2 if name == "two processes" else 1
        variables = _torchrun(processes) if processes > 1 else {}
        self.folder = work / name
        self.tells = tells
        self.pids = []
        for rank in range(processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if variables else {}
            dies = call if rank == victim else None
            self.pids.append(_fork(lambda own=own, dies=dies: self._live(words, variables | own, dies)))

    def _live(self, words: list[str], variables: dict[str, str], call: tuple[str, int] | None) -> int:
        os.environ.update(variables)
        said = os.open(self.folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        if call:
            _die_at(*call)
        code = samgan_main(words)
        if self.tells:
            (self.folder / "modules").write_text("\n".join(sys.modules))
        return code

    def kill_after(self, seconds: float, victims: Sequence[int]) -> None:
        """Kill some of the processes in a while, if they have not ended before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not _has_ended(self.pids[victims[0]]):
            time.sleep(min(0.01, max(0.0, end - time.monotonic())))
        for rank in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids[rank], signal.SIGKILL)

    def ended(self, victims: Sequence[int] = (0,)) -> list[int]:
        """Wait for all processes; their exit statuses. Both die of a kill at a call that was meant for both."""
        first = os.waitstatus_to_exitcode(os.waitpid(self.pids[victims[0]], 0)[1])
        others = [rank for rank in range(len(self.pids)) if rank != victims[0]]
        if first == -signal.SIGKILL:
            for rank in set(others) & set(victims):
                os.kill(self.pids[rank], signal.SIGKILL)
        end, codes = time.monotonic() + LEFT_ALONE_SECONDS, [first]
        for rank in others:
            while not _has_ended(self.pids[rank]) and time.monotonic() < end:
                time.sleep(0.01)
            if not _has_ended(self.pids[rank]):
                os.kill(self.pids[rank], signal.SIGKILL)
                codes.append(HUNG)  # it would have waited for its partner for ever
            code = os.waitstatus_to_exitcode(os.waitpid(self.pids[rank], 0)[1])
            codes += [code] if len(codes) < len(self.pids) else []
        return codes


def _import_all(names: Sequence[str]) -> None:
    """Import what a training imports on its way, so that the processes forked from this one find it there."""
    for name in names:
        with contextlib.suppress(Exception):  # some can only be imported by others
            importlib.import_module(name)


def _fork(live: Callable[[], int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = EXCEPTION
    try:
        code = live()
    except SystemExit as error:  # how the processes beside the first one end
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _die_at(name: str, number: int) -> None:
    """Kill this process at a call of a function of `os`."""
    original, calls = getattr(os, name), []

    def die(*arguments: object, **options: object) -> object:
        calls.append(name)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(os, name, die)


def _torchrun(processes: int) -> dict[str, str]:
    """What torchrun tells the processes that it starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "kills"}
    return address | {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0"}


def _require(codes: Sequence[int]) -> None:
    if set(codes) != {0}:
        raise SystemExit(f"the undisturbed run ended with {codes}: see the file said in its folder")


def _compare(expected: Run, run: Run) -> str:
    """What differs between two runs that should have ended alike; empty if nothing does."""
    differ = []
    final = run.checkpoint_path(STEPS)
    if not final.is_file() or final.read_bytes() != expected.checkpoint_path(STEPS).read_bytes():
        differ.append("the last checkpoint")
    if run.best() != expected.best():
        differ.append("the best snapshot")
    if {path.name for path in run.checkpoints()} != {path.name for path in expected.checkpoints()}:
        differ.append("which checkpoints are kept")
    for grid in expected.grids():
        if not (own := run.path / "grids" / grid.name).is_file() or own.read_bytes() != grid.read_bytes():
            differ.append(grid.name)
    differ += _check_log(run.path / "stats.jsonl", expected.path / "stats.jsonl")
    differ += [f"{path.name} was left behind" for path in run.path.rglob(".*.tmp")]
    return "; ".join(differ)


def _check_log(path: Path, expected: Path) -> Iterator[str]:
    """What is wrong with a log, as it stands in the file."""
    lines, others = ([json.loads(text) for text in file.read_text("utf-8").splitlines()] for file in (path, expected))
    for kind in ("train", "scores"):
        steps, wanted = ([line["step"] for line in some if line["kind"] == kind] for some in (lines, others))
        if steps != wanted:
            yield f"steps of {kind}: {steps}"
    timed = {"wall_seconds", "images_per_second"}
    numbers, wanted = (
        {(line["step"], line["kind"]): {key: value for key, value in line.items() if key not in timed} for line in some}
        for some in (lines, others)
    )
    if numbers != wanted:
        yield "numbers of the log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line; the status is 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK_FOLDER")
    parser.add_argument(
        "--kills", type=int, default=1000, help="in all, those in the log included (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(CONFIGURATIONS), choices=CONFIGURATIONS, metavar="NAME")
    parser.add_argument("--log", type=Path, default=LOG)
    options = parser.parse_args(arguments)
    rows = kill_runs(options.work.resolve(), options.log, options.kills, options.seed, options.only)
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
