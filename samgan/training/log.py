"""The log of a run: a line at regular intervals, to stats.jsonl, to loggers and to the terminal."""

import math
import shutil
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from samgan import terminal
from samgan.distributed import on_first_process, rank
from samgan.errors import SamganError
from samgan.networks import attention_gammas
from samgan.runs import Run
from samgan.training.loggers import Logger, Loggers
from samgan.training.state import TrainingState


class Log:
    """Collects scalars on the device and reads them only when a line is due, to avoid synchronisation in between."""

    def __init__(
        self, run: Run, state: TrainingState, loggers: Sequence[str | Logger], minutes: float | None, quiet: bool
    ) -> None:
        self.run, self.state, self.minutes, self.quiet = run, state, minutes, quiet
        self.pending: list[dict[str, Tensor]] = []
        self.start_step = state.step
        before = (line for line in run.stats() if line["kind"] == "train" and line["step"] <= state.step)
        self.wall_before = max((line["wall_seconds"] for line in before), default=0.0)
        self.start = self.last = self.spoken = time.monotonic()
        self.spoken_on_terminal = False
        self.loggers = Loggers(run, loggers if rank() == 0 else ())

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the line on the terminal and close the loggers."""
        if self.spoken_on_terminal:
            terminal.write("\n")
        self.loggers.close(finished=kind is None)

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Add the scalars of one step."""
        self.pending.append(scalars)

    def seconds(self) -> float:
        """Seconds of training, including those before a resume."""
        return self.wall_before + time.monotonic() - self.start

    def flush(self) -> None:
        """Write one line for all steps since the last line."""
        on_first_process(self._write)  # the values are the same on all processes
        self.pending.clear()
        self.last = time.monotonic()

    def _write(self) -> None:
        keys = [(row, name) for row, line in enumerate(self.pending) for name in line]
        values = torch.stack([self.pending[row][name] for row, name in keys]).tolist()
        columns: dict[str, list[float]] = {}
        for (row, name), value in zip(keys, values, strict=True):
            self._require_finite(self.state.step - len(self.pending) + 1 + row, name, value)
            columns.setdefault(name, []).append(value)
        means = {name: math.fsum(column) / len(column) for name, column in columns.items()}
        now = time.monotonic()
        state, training = self.state, self.state.config.training
        gammas = {
            f"{name}_{side}": value.item()
            for name in ("generator", "discriminator")
            for side, value in attention_gammas(getattr(state, name)).items()
        }
        for name, value in gammas.items():
            if not math.isfinite(value):
                raise SamganError(
                    f"step {state.step}: gamma of {name} is {value}; training stopped, the last checkpoint is intact"
                )
        line: dict[str, Any] = {
            "kind": "train",
            "step": state.step,
            "images_seen": state.images_seen,
            "wall_seconds": round(self.seconds(), 3),
            "images_per_second": round(len(self.pending) * training.batch_size / (now - self.last), 3),
            **means,
            "augment": math.fsum(state.augment.values) / len(state.augment.values),
            "gamma": gammas,
        }
        if len(state.augment.values) > 1:
            names = state.config.data.classes or map(str, range(len(state.augment.values)))
            line["augment_by_class"] = dict(zip(names, state.augment.values, strict=True))
        self.run.log(line)
        self.loggers.line(line)
        self._speak(line, now)

    def _require_finite(self, step: int, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise SamganError(
                f"step {step}: {name} is {value}; training stopped, the last checkpoint is intact. Try a lower "
                "training.learning_rate or another loss"
            )

    def _speak(self, line: dict[str, Any], now: float) -> None:
        done, total = line["step"], self.state.config.training.total_steps
        on_terminal = terminal.is_terminal()
        if self.quiet or (not on_terminal and done < total and now - self.spoken < 30):
            return
        self.spoken = now
        remaining = (now - self.start) / (done - self.start_step) * (total - done)
        if self.minutes is not None:
            remaining = max(0.0, min(remaining, 60 * self.minutes - self.seconds()))
        kimg = [f"{steps * self.state.config.training.batch_size / 1000:.4g}" for steps in (done, total)]
        text = (
            f"{'/'.join(kimg)} kimg  "
            f"{line['images_per_second']:.1f} images/s  ETA {_clock(remaining)}  "
            f"D {line['loss_discriminator']:.3f}  G {line['loss_generator']:.3f}"
        )
        for name in ("generator", "discriminator"):
            gammas = [f"{value:+.3f}" for key, value in line["gamma"].items() if key.startswith(name)]
            text += f"  gamma {name[0].upper()} {' '.join(gammas)}" if gammas else ""
        if on_terminal:
            # A line that wraps could not be overwritten.
            terminal.write(f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}")
            self.spoken_on_terminal = True
        else:
            say(text)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def say(text: str) -> None:
    """Print a line to standard error, on the first process only."""
    if rank() == 0:
        terminal.say(text)
