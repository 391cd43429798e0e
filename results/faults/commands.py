"""Kill each command at a random system call, or let one of its writes fail; then look at what is there, and try again.

    python results/faults/commands.py WORK_FOLDER [--faults 20] [--seed 0] [--only NAME ...]

For each command, that many faults of `FAULTS`, at system calls that are drawn at random from all that it makes. strace
(Linux) does it: the kernel kills the process, or answers "no space left" or "input/output error". What became of each
fault is added to commands.csv in this file's folder (`--log` names another one); a later call with the same log goes on
where it ends.

Afterwards, a file with a final name must be whole: as it was before, or as the undisturbed command leaves it. The
command must have said one line, unless it was killed. The same command again (`train` with `--resume`) must end as
if nothing had happened, or say in one line what to remove.
"""

import argparse
import dataclasses
import hashlib
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from fault_log import append, read_log

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from fuzz.world import BALANCE, TABLE2, TINY, make_world

from samgan.commands.main import main as samgan_main

LOG = Path(__file__).parent / "commands.csv"
SOURCE = Path(__file__).resolve().parents[2]
COMMANDS = {
    "prepare": "prepare images new/set --resolution 32 --holdout 0.4 --workers 1",
    "train": f"train set --out new/run {' '.join(TINY)}",
    "subset": "subset set new/part --images NORMAL=5",
    "sample": "sample run --out new/samples --count 3 --sheets grid",
    "sample, arrays": "sample run --out new/samples --count 3 --format npz",
    "export": "export run new/model.safetensors",
    "evaluate": "evaluate many --data set --split all --count 8 --features radiograph --out new/scores",
    "audit": "audit many --data set --count 8 --features radiograph --out new/audit",
    "card": "card run --data set --out new/CARD.md",
    "publish": "publish run new/published --draft",
    "publish again": "publish run published --draft",
    "inspect": "inspect set --out new/data.html",
    "balance": f"balance lacking new/balanced {BALANCE}",
    "table2": f"table2 set --out new/table {TABLE2}",
}
"""Each writes to the folder `new`, which is there and empty, or to `published`."""
CALLS = {
    "write": ("write", "pwrite64", "writev"),
    "sync": ("fsync", "fdatasync"),
    "rename": ("rename", "renameat", "renameat2"),
    "create": ("openat", "mkdir", "mkdirat"),
}
FAULTS = {
    "killed": "signal=KILL",
    "no space left": "error=ENOSPC",
    "input/output error": "error=EIO",
}
SECONDS = 300
AGAIN = re.compile(r"best\.json$|status\.json$|table\.(json|csv|md|html)$")
"""Files that one command writes more than once: they are compared only when it is done."""
OF_SOURCE = re.compile(r"environment\.json$|report\.html$")
"""Files that name the commit of the source, which may change meanwhile: only whether they are there counts."""
UNHEARD = re.compile(r"write\(2<.*\(INJECTED\)")
"""In what strace tells: a write to standard error that failed."""
ERROR = re.compile(r"samgan: error: ")
OF_NO_USE = re.compile(r"(\.lock|\..*\.tmp|\.partial)$")
"""Names of files and folders that a command that was killed may leave, since no reader takes them."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One row of the log."""

    command: str
    seed: int
    number: int
    fault: str
    call: str
    """Which system call, and which one of those the command makes after its start."""
    status: int
    """Of the command; below 0 if it was killed."""
    said: str
    """Its error."""
    again: str
    """How the same command ended afterwards: `same` as undisturbed, or the line with which it refused."""
    wrong: str
    """What should not be; empty if all is well."""


def try_commands(work: Path, log: Path, faults: int, seed: int, names: Sequence[str]) -> list[Fault]:
    """Try faults until the log has `faults` of each command; returns the rows of this call."""
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    os.environ["SAMGAN_CACHE"] = str(work / "cache")
    if not (work / "world/modules").exists():
        shutil.rmtree(work / "world", ignore_errors=True)
        if os.waitstatus_to_exitcode(os.waitpid(_fork(lambda: make_world(work / "world"), None), 0)[1]):
            raise SystemExit("the sound files could not be made")
    for name in (work / "world/modules").read_text().split():
        try:
            importlib.import_module(name)
        except Exception:  # some can only be imported by others
            continue
    done, added = read_log(log, Fault), []
    plain: dict[str, tuple[dict[str, int], list[dict[str, str]]]] = {}
    for number in range(1, faults + 1):
        for name in names:
            if any((row.command, row.seed, row.number) == (name, seed, number) for row in done):
                continue
            if name not in plain:
                plain[name] = _undisturbed(work, name)
            row = _try(work, name, number, seed, *plain[name])
            append(log, row)
            added.append(row)
            print(f"{name} {number}: {row.fault} at {row.call}: {row.wrong or 'well'}", flush=True)
    return added


def _undisturbed(work: Path, name: str) -> tuple[dict[str, int], list[dict[str, str]]]:
    """How often a command makes each system call, and the files after it, of two calls of it."""
    trees = []
    for _ in range(2):
        box = _box(work, name)
        trace = ",".join(call for calls in CALLS.values() for call in calls)
        status, said = _run(work, box, name, ["-e", f"trace={trace}", "-o", str(work / "trace")])
        if status:
            raise SystemExit(f"samgan {COMMANDS[name]} ended with {status}: {said}")
        trees.append(_tree(box))
    lines = (work / "trace").read_text(errors="replace").splitlines()
    made = [found[1] for line in lines if (found := re.match(r"(?:\d+ +)?(\w+)\(", line))]
    return {kind: sum(call in calls for call in made) for kind, calls in CALLS.items()}, trees


def _try(work: Path, name: str, number: int, seed: int, counts: dict[str, int], plain: list[dict[str, str]]) -> Fault:
    draw = random.Random(f"{seed} {name} {number}")
    fault = draw.choice(list(FAULTS))
    kind = draw.choice([kind for kind, count in counts.items() if count])
    place = draw.randrange(1, counts[kind] + 1)
    box = _box(work, name)
    before = _tree(box)
    # strace counts the calls of each name, and of each thread, by itself; nearly all of a kind have one name.
    inject = f"inject={','.join(CALLS[kind])}:{FAULTS[fault]}:when={place}"
    tracing = ["-y", "-e", f"trace={','.join(CALLS[kind])}", "-e", inject, "-o", str(work / "trace")]
    status, said = _run(work, box, name, tracing)
    unheard = UNHEARD.search((work / "trace").read_text(errors="replace")) is not None
    wrong = [_judge_end(status, said, unheard)]
    if status == 0:  # what failed was of no use to anybody, such as a line on the terminal
        wrong += _differences(_tree(box), plain, whole=True)
    else:
        wrong += _differences(
            {path: hashed for path, hashed in _tree(box).items() if hashed != before.get(path)}, plain
        )
    again, words = _run(work, box, name, None, ["--resume"] * (box / "new/run/config.json").is_file())
    if again == 0:
        wrong += _differences(_tree(box), plain, whole=True)
    elif len(words.splitlines()) != 1 or not ERROR.match(words):
        wrong.append(f"the same command again ended with {again}: {words[-300:]}")
    shown = said.replace(sys.prefix, ".venv").replace(f"{SOURCE}/", "")  # nothing of the machine's folders
    errors = [line for line in shown.splitlines() if ERROR.match(line)]
    refused = "same" if again == 0 else words.strip().replace(f"{SOURCE}/", "")
    shutil.rmtree(box)
    return Fault(
        *(name, seed, number, fault, f"{kind} {place}", status, " ".join(errors)[:200], refused[:200]),
        wrong="; ".join(filter(None, wrong)),
    )


def _judge_end(status: int, said: str, unheard: bool) -> str:
    """What is wrong with how a disturbed command ended; if it was `unheard`, its line may have been refused, too."""
    errors = [line for line in said.splitlines() if ERROR.match(line)]
    if "Traceback" in said:
        return f"a traceback: {said.strip().splitlines()[-1][:200]}"
    if status in (0, -signal.SIGKILL):
        return ""
    return (
        ""
        if status == 1 and (len(errors) == 1 or (unheard and not errors))
        else f"status {status} with {len(errors)} errors: {said[-200:]}"
    )


def _differences(tree: dict[str, str], plain: list[dict[str, str]], whole: bool = False) -> list[str]:
    """Files with final names that no undisturbed command leaves so; and those that are missing, if all should be there.

    Files that differ between two undisturbed calls are compared by name only.
    """
    found = []
    for path, hashed in tree.items():
        if any(OF_NO_USE.search(part) for part in path.split("/")):
            found += [f"{path} was left behind"] if whole and path.endswith(".tmp") else []
        elif path not in plain[0]:
            found.append(f"{path} should not be there")
        elif plain[0][path] == plain[1].get(path) != hashed and _is_due(path, whole):
            found.append(f"{path} is half-written, or another")
    return found + ([f"{path} is missing" for path in plain[0] if path not in tree] if whole else [])


def _is_due(path: str, whole: bool) -> bool:
    """Whether the content of a file must be that of an undisturbed command."""
    return not OF_SOURCE.search(path) and (whole or not AGAIN.search(path))


def _box(work: Path, name: str) -> Path:
    """A folder with what a command reads, and an empty folder `new`."""
    box = work / "box"
    shutil.rmtree(box, ignore_errors=True)
    (box / "new").mkdir(parents=True)
    shutil.rmtree(work / "cache", ignore_errors=True)
    for word in COMMANDS[name].replace("=", " ").split():
        if (source := work / "world" / word).exists() and "/" not in word:
            shutil.copytree(source, box / word)
    return box


def _tree(box: Path) -> dict[str, str]:
    """The hash of each file in a box."""
    paths = sorted(path for path in box.rglob("*") if path.is_file())
    return {str(path.relative_to(box)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _run(work: Path, box: Path, name: str, strace: list[str] | None, more: Sequence[str] = ()) -> tuple[int, str]:
    """Call a command in a process of its own, traced from its start on; its status and what it said as errors."""
    said = work / "said"

    def live() -> int:
        if strace is not None:
            os.kill(os.getpid(), signal.SIGSTOP)  # until strace is there
        return samgan_main([*COMMANDS[name].split(), *more])

    pid = _fork(live, box, said)
    if strace is None:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.read_text(errors="replace")
    os.waitpid(pid, os.WUNTRACED)
    tracer = subprocess.Popen(["strace", "-f", *strace, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    if "attached" not in (line := tracer.stderr.readline()):
        raise SystemExit(f"strace cannot trace: {line}")
    os.kill(pid, signal.SIGCONT)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    tracer.communicate(timeout=SECONDS)
    return status, said.read_text(errors="replace")


def _fork(live, folder: Path | None, said: Path | None = None) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 98
    try:
        if folder is not None:
            os.chdir(folder)
        file = os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(file, 2)
        code = live() or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line; the status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK_FOLDER")
    parser.add_argument("--faults", type=int, default=20, help="of each command, those in the log included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(COMMANDS), choices=COMMANDS, metavar="NAME")
    parser.add_argument("--log", type=Path, default=LOG)
    options = parser.parse_args(arguments)
    if shutil.which("strace") is None:
        raise SystemExit("strace is missing: apt install strace")
    rows = try_commands(options.work.resolve(), options.log.resolve(), options.faults, options.seed, options.only)
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
