"""Try many inputs: `python -m tests.fuzz --count 10000`. The status is 1 if any of them ended wrongly."""

import argparse
import collections
import contextlib
import importlib
import json
import multiprocessing
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

import samgan.training.snapshots
import samgan.trust.auditing

from .child import SECONDS, Verdict, work
from .world import make_world

BATCH = 100
"""Inputs that one process tries, unless one of them ends it."""
HANGS = 6 * SECONDS
"""Seconds by the clock after which an input has hung."""


def main() -> int:
    """Read the command line, try the inputs, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="number of inputs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all inputs (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="folder for inputs that ended wrongly")
    parser.add_argument("--world", type=Path, help="folder of sound files, made if it is not there")
    parser.add_argument("--log", type=Path, help="file to which what became of each input is added, as lines of JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Sound inputs are worked on as usual, but of fewer images.
    samgan.training.snapshots.SCORED_IMAGES, samgan.trust.auditing.PLANTED = 16, 4
    with tempfile.TemporaryDirectory(prefix="samgan-fuzz-") as name:
        folder = Path(name).resolve()
        os.environ["SAMGAN_CACHE"] = str(folder / "cache")
        world = (options.world or folder / "world").resolve()
        if not world.is_dir():
            _in_a_process(make_world, world)
        _import_all((world / "modules").read_text().split())
        (folder / "boxes").mkdir()
        start, verdicts = time.monotonic(), []
        numbers = list(range(options.first, options.first + options.count))
        for verdict in _all(world, folder / "boxes", options.seed, numbers, options.keep):
            verdicts.append(verdict)
            if options.log:
                with open(options.log, "a", encoding="utf-8") as log:
                    log.write(f"{json.dumps(vars(verdict))}\n")
            if verdict.wrong:
                told = f"{verdict.number} ({verdict.kind}): {verdict.wrong}: samgan {' '.join(verdict.words)}"
                print(told[:600].encode(errors="backslashreplace").decode(), flush=True)
        return _sum_up(verdicts, time.monotonic() - start)


def _sum_up(verdicts: list[Verdict], seconds: float) -> int:
    """Print a table of all kinds; returns the exit status."""
    print(f"{'kind':28} {'tried':>6} {'taken':>6} {'refused':>7} {'wrong':>5} {'longest':>8} {'largest':>8}")
    by_kind: dict[str, list[Verdict]] = collections.defaultdict(list)
    for verdict in verdicts:
        by_kind[verdict.kind].append(verdict)
    for kind, some in [*sorted(by_kind.items()), ("all", verdicts)]:
        ends = collections.Counter("wrong" if one.wrong else "refused" if one.status else "taken" for one in some)
        longest, largest = (max(getattr(one, name) for one in some) for name in ("seconds", "megabytes"))
        counts = f"{len(some):6} {ends['taken']:6} {ends['refused']:7} {ends['wrong']:5}"
        print(f"{kind:28} {counts} {longest:6.1f} s {largest:5} MB")
    print(f"{len(verdicts)} inputs in {seconds:.0f} s")
    return int(any(verdict.wrong for verdict in verdicts))


def _all(world: Path, folder: Path, seed: int, numbers: list[int], keep: Path | None) -> Iterator[Verdict]:
    """Try all inputs, in processes that are replaced when one of them dies or hangs."""
    while numbers:
        batch, done = numbers[:BATCH], 0
        for verdict in _batch(world, folder, seed, batch, keep):
            yield verdict
            done += 1
        numbers = numbers[done:]


def _batch(world: Path, folder: Path, seed: int, numbers: list[int], keep: Path | None) -> Iterator[Verdict]:
    """Try inputs in one process until all are done, or one of them ends it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(reading)
            work(world, folder, seed, numbers, writing, keep)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    begun, buffer = {"number": numbers[0], "kind": "", "words": []}, b""
    try:
        while True:
            if not select.select([reading], [], [], HANGS)[0]:
                os.kill(pid, signal.SIGKILL)
                yield _lost(begun, f"hung for {HANGS} s", folder, keep)
                return
            piece = os.read(reading, 1 << 16)
            if not piece:
                break
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in map(json.loads, lines):
                if "status" in line:
                    begun = {}
                    yield Verdict(**line)
                else:
                    begun = line
    finally:
        os.close(reading)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        yield _lost(begun or {"number": -1, "kind": "", "words": []}, f"the process ended with {code}", folder, keep)


def _lost(begun: dict, why: str, folder: Path, keep: Path | None) -> Verdict:
    box = folder / str(begun["number"])
    if keep is not None and box.is_dir():
        shutil.copytree(box, keep / box.name, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(box, ignore_errors=True)
    return Verdict(**begun, status=None, wrong=why, seconds=0.0, megabytes=0, said="")


def _in_a_process(make, folder: Path) -> None:
    """Call `make` in a process of its own: threads that it starts must not be there when this one forks."""
    process = multiprocessing.get_context("fork").Process(target=make, args=(folder,))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit("the sound files could not be made")


def _import_all(names: list[str]) -> None:
    """Import what commands import when they are called, once for all processes."""
    for name in names:
        with contextlib.suppress(Exception):  # some can only be imported by others
            importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
