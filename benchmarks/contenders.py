"""Contenders of a benchmark: processes that take turns, so that drift of the machine cancels in their ratio.

Each is a process of its own, so that one contender's effect on the memory allocator does not help another. A contender
may be another checkout of samgan: code that makes a training step here uses only what earlier versions have too.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lines import peak_gb
from torch.nn import functional as F

import samgan
from samgan.config import Config
from samgan.devices import keep_freed_memory, make_fabric
from samgan.presets import preset_config
from samgan.training.batches import Sampler
from samgan.training.state import TrainingState
from samgan.training.step import train_step

CHECKOUT = Path(samgan.__file__).parents[1]
Step = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Training:
    """What a contender trains, as settings over a preset at CPU scale, so that every version makes it in its own way.

    `training.precision` is "fp32" or "bf16" here, never "auto".
    """

    preset: str
    resolution: int = 64
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    steps: int = 1
    """Steps that are measured as one: 8 for a penalty in every 8th."""
    augmented: float | None = None
    """The share of augmented images; None leaves it to the training."""

    def config(self) -> Config:
        """The configuration, of steps with images of the size, with which some presets do not begin."""
        return preset_config(self.preset, "cpu", self.resolution).override(
            {"training.first_sides": [], **self.settings}
        )

    def begin(self) -> tuple[TrainingState, Sampler]:
        """A state to train, and a sampler of random images."""
        config = self.config()
        shape = (64, config.network.image_channels, self.resolution, self.resolution)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return TrainingState(config, torch.device("cpu")), Sampler(images, config, torch.device("cpu"))


# ---- what contenders do: each function returns a step


def training(**fields: Any) -> Step:
    """Steps of samgan, with allocator and precision as `samgan train` sets them; takes the fields of `Training`."""
    keep_freed_memory()
    return _steps(Training(**fields))


def compiled(**fields: Any) -> Step:
    """The same with both networks compiled by torch.compile, which samgan does not use."""
    keep_freed_memory()
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # a cache would hide the time of the first step
    return _steps(Training(**fields), compile_networks=True)


def _steps(task: Training, compile_networks: bool = False) -> Step:
    state, sampler = task.begin()
    fabric = make_fabric("cpu", precision=state.config.training.precision)
    if compile_networks:
        state.generator.compile(), state.discriminator.compile()

    def work() -> None:
        if task.augmented is not None:
            state.augment.values = [task.augmented]
        for _ in range(task.steps):
            train_step(state, sampler(state.step), fabric.autocast)

    return work


ROOF_GFLOP = 2 * 16 * 256 * 256 * 9 * 32 * 32 / 1e9


def roof() -> Step:
    """The best rate of this machine's convolutions: 256 channels, 3x3, forward, with nothing to allocate or keep."""
    keep_freed_memory()
    x, w = torch.randn(16, 256, 32, 32), torch.randn(256, 256, 3, 3)
    return torch.inference_mode()(lambda: F.conv2d(x, w, padding=1))


# ---- in the contender's process


def seconds(step: Step) -> float:
    """Take a step; return its seconds."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def profile(step: Step) -> dict[str, tuple[int, float]]:
    """Take a step; return for each operator its calls and its own milliseconds."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    return {event.key: (event.count, event.self_cpu_time_total / 1000) for event in recorded.key_averages()}


def peak(_: Step) -> float:
    """Peak memory of the process so far, in GB."""
    return peak_gb()


ANSWERS: dict[str, Callable[[Step], Any]] = {"seconds": seconds, "profile": profile, "peak": peak}


def contend(module: str, function: str, fields: dict[str, Any]) -> None:
    """For each line of input, a name of `ANSWERS`, print its answer as one line of JSON; the first line is ours."""
    # Earlier versions import Lightning Fabric, and that torchmetrics if it is installed, as it is for our tests.
    sys.modules["torchmetrics"] = None  # type: ignore[assignment]
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        step = getattr(importlib.import_module(module), function)(**fields)
        print(json.dumps(str(CHECKOUT.resolve())), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(ANSWERS[line.strip()](step)), file=answers, flush=True)


# ---- in the benchmark's process


class Contender:
    """A process that takes a step on request.

    Args:
        function: A function of this file or, as "module.function", of another one in this folder; it returns the step.
        fields: Its arguments.
        checkout: A folder with the version of samgan to run; default: the one that runs here.
        threads: Threads of torch; default: as many as here.
        cores: The only cores it may use, where the system can say so; default: all.
    """

    def __init__(
        self,
        function: str,
        fields: dict[str, Any] | None = None,
        *,
        checkout: Path | None = None,
        threads: int | None = None,
        cores: Sequence[int] | None = None,
    ) -> None:
        module, _, name = function.rpartition(".")
        script = "import contenders; contenders.contend"
        if cores and hasattr(os, "sched_setaffinity"):
            script = f"import os; os.sched_setaffinity(0, {list(cores)}); {script}"
        folder = (checkout or CHECKOUT).resolve()
        path = [str(folder), str(Path(__file__).parent.resolve())]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "OMP_NUM_THREADS": str(threads or torch.get_num_threads()),
        }
        command = [sys.executable, "-P", "-c", f"{script}{(module or 'contenders', name, fields or {})!r}"]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.seconds: list[float] = []
        found = self.answer()
        if found != str(folder):
            self.close()
            raise SystemExit(f"expected the samgan in {folder}, found the one in {found}")

    def ask(self, what: str) -> Any:
        """The answer to a name of `ANSWERS`."""
        self.begin(what)
        return self.answer()

    def begin(self, what: str) -> None:
        """Ask, and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit("a contender ended early; its own words are above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


class Together:
    """Contenders that take their steps at the same time; a step ends with the slowest."""

    def __init__(self, *contenders: Contender) -> None:
        self.contenders = contenders
        self.seconds: list[float] = []

    def ask(self, what: str) -> float:
        """Seconds until all have answered."""
        start = time.perf_counter()
        for contender in self.contenders:
            contender.begin(what)
        for contender in self.contenders:
            contender.answer()
        return time.perf_counter() - start

    def close(self) -> None:
        """End the processes."""
        for contender in self.contenders:
            contender.close()


def compete(contenders: dict[str, Contender] | dict[str, Contender | Together], rounds: int, warm: int = 2) -> None:
    """Let the contenders take turns, after some steps that are not counted; close them."""
    for contender in contenders.values():
        for _ in range(warm):
            contender.ask("seconds")
    for _ in range(rounds):
        for contender in contenders.values():
            contender.seconds.append(contender.ask("seconds"))
    for contender in contenders.values():
        contender.close()


def ratio(name: Contender | Together, rival: Contender | Together) -> tuple[float, str]:
    """Median over rounds of the time of `name` / the time of `rival`, and the range of the rounds in words."""
    found = [a / b for a, b in zip(name.seconds, rival.seconds, strict=True)]
    return statistics.median(found), f"{min(found):.3g} to {max(found):.3g} in {len(found)} rounds"
