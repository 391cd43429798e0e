"""Measure a newcomer's first minutes with the wheel: built here, installed in an empty environment, and used.

    python benchmarks/first_minute.py [--repeats 5] [--demos 3] > benchmarks/first_minute.md

It needs a package index for what samgan depends on. Nothing else may be running. Installing is not part of the times.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from lines import Line, machine

ROOT = Path(__file__).parents[1]
SAMPLE = ("sample", "pneumonia-64", "--count", "64", "--sheets", "grid", "--out")
NEW = "NEW"


def run(*words: object, cwd: Path) -> tuple[float, str]:
    """Seconds that a command takes, and what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command, start = [str(word) for word in words], time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def install(folder: Path) -> Path:
    """Build the wheel and install it; the folder of the new environment's programs."""
    venv.create(folder / "builder", with_pip=True)
    builder = programs(folder / "builder")
    run(builder / "python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    venv.create(folder / "empty", with_pip=True)
    empty = programs(folder / "empty")
    run(empty / "python", "-m", "pip", "install", "--quiet", next(folder.glob("samgan-*.whl")), cwd=folder)
    return empty


def programs(environment: Path) -> Path:
    """Where an environment has its programs."""
    return environment / ("Scripts" if sys.platform == "win32" else "bin")


def spread(name: str, seconds: list[float], goal: float | None = None) -> Line:
    """The median of some times beside its goal, with their range."""
    note = f"{len(seconds)} times, from {min(seconds):.2f} to {max(seconds):.2f} s" if len(seconds) > 1 else "once"
    return Line(name, statistics.median(seconds), goal, " s", note=note)


def measure(empty: Path, folder: Path, repeats: int, demos: int) -> list[Line]:
    """Time each command some times, one after the other."""

    def times(count: int, *words: object) -> list[float]:
        """How long each turn takes; NEW stands for a folder that each makes."""
        named = [[f"{words[1]}-{turn}" if word == NEW else word for word in words] for turn in range(count)]
        return [run(*turn, cwd=folder)[0] for turn in named]

    python, samgan = empty / "python", empty / "samgan"
    nothing = statistics.median(times(repeats, python, "-c", "pass"))
    imported = [seconds - nothing for seconds in times(repeats, python, "-c", "import samgan")]
    run(samgan, "--version", cwd=folder)  # byte code is written once
    lines = [
        spread("`import samgan`, beyond Python's own start", imported, 0.15),
        spread("`samgan --help`", times(repeats, samgan, "--help"), 0.3),
        spread(f"`samgan {' '.join(SAMPLE)} xrays`", times(repeats, samgan, *SAMPLE, NEW), 30),
    ]
    if demos:
        lines.append(spread("`samgan demo`", times(demos, samgan, "demo", "--out", NEW), 180))
    return lines


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--demos", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        empty = install(folder)
        size = next(folder.glob("samgan-*.whl")).stat().st_size / 1e6
        torch = run(empty / "python", "-c", "import torch; print(torch.__version__)", cwd=folder)[1].strip()
        lines = measure(empty, folder, options.repeats, options.demos)
    print("# The first minute\n\n    python benchmarks/first_minute.py > benchmarks/first_minute.md\n")
    print(f"The wheel ({size:.1f} MB), in an empty environment with torch {torch}. Medians.\n")
    print(f"{machine()}\n\n| what | goal | measured | met | |\n|---|---|---|---|---|")
    for line in lines:
        print(line.row())


if __name__ == "__main__":
    main()
