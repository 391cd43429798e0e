"""The output of every benchmark: measured values with their goals, the machine, and the version of the code."""

import argparse
import dataclasses
import json
import platform
import subprocess
from datetime import date
from pathlib import Path

import torch

from samgan import __version__


@dataclasses.dataclass(frozen=True)
class Line:
    """One measured value; `goal` is None if there is no goal."""

    name: str
    measured: float
    goal: float | None = None
    unit: str = ""
    at_least: bool = False
    """Whether the goal is a minimum; otherwise it is a maximum."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached."""
        if self.goal is None:
            return None
        return bool(self.measured >= self.goal if self.at_least else self.measured <= self.goal)

    def document(self) -> dict[str, object]:
        """As plain JSON types."""
        return {"name": self.name, "goal": self.goal, "measured": self.measured, "met": self.met, "unit": self.unit}

    def row(self) -> str:
        """As a row of a Markdown table."""
        goal = "" if self.goal is None else f"{'≥' if self.at_least else '≤'} {self.goal:g}{self.unit}"
        met = {None: "", True: "yes", False: "**no**"}[self.met]
        measured = f"{self.measured:,.0f}" if self.measured >= 100 else f"{self.measured:.3g}"
        return f"| {self.name} | {goal} | {measured}{self.unit} | {met} | {self.note} |"


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that all benchmarks share."""
    parser.add_argument("--json", action="store_true", help="print a list of name, goal, measured, met")


def machine() -> str:
    """Describe the machine, the date and the version of the code of a measurement."""
    from samgan.kernels import kernels_version  # a contender's version of samgan may have none

    folder = Path(__file__).parent
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True)
    commit = found.stdout.strip() or "unknown"
    return (
        f"{processor()}, {torch.get_num_threads()} threads; torch {torch.__version__}; "
        f"kernels {kernels_version() or 'none'}; Python {platform.python_version()}; "
        f"samgan {__version__}, commit {commit}; {date.today()}"
    )


INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16"),
    *("asimd", "sve", "sve2", "bf16", "i8mm"),  # Arm
)
"""The sets of instructions that decide how fast convolutions are, as Linux names them."""


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name the processor and its sets of instructions; where the system does not say, the one that torch uses."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = facts.get("flags", facts.get("Features", "")).split()
    found = [name for name in INSTRUCTIONS if name in flags] or [torch.backends.cpu.get_cpu_capability()]
    return f"{facts.get('model name', platform.machine())} ({', '.join(found)})"


def peak_gb() -> float:
    """Peak resident memory of this process, on Linux.

    Not the maximum from getrusage, which a process inherits from its parent.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e9


def show(lines: list[Line], as_json: bool) -> None:
    """Print lines as a Markdown table or as JSON."""
    if as_json:
        print(json.dumps([line.document() for line in lines], indent=2))
        return
    print(f"{machine()}\n\n| what | goal | measured | met | |\n|---|---|---|---|---|")
    print("\n".join(line.row() for line in lines))
