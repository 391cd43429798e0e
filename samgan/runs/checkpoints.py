"""One file per checkpoint, written whole or not at all, loaded without running anything that is in it."""

import dataclasses
import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from samgan.config import Config
from samgan.errors import SamganError, UsageError, first_line
from samgan.files import atomic_write
from samgan.runs.documents import Best
from samgan.runs.folder import Run

FORMAT = "samgan checkpoint 1"
REQUIRED = {"config", "step", "images_seen", "generator", "ema_generator"}
"""What sampling needs of a checkpoint; training keeps more in it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint that was read."""

    path: Path
    config: Config
    step: int
    images_seen: int
    state: dict[str, Any]
    """Everything in it, as `TrainingState.load_state_dict` takes it."""

    @property
    def sampling_weights(self) -> dict[str, torch.Tensor]:
        """Weights of the averaged generator, or of the plain one if there was no averaging."""
        return self.state["ema_generator"] or self.state["generator"]

    @property
    def discriminator_weights(self) -> dict[str, torch.Tensor] | None:
        """Weights of the discriminator; None if the checkpoint does not hold them."""
        return self.state.get("discriminator") or None


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, lists, dicts) to `path`, atomically. Equal states give equal bytes.

    Raises:
        OSError: No space is left, or the like; what `path` held is untouched.
    """
    with atomic_write(path) as file:
        try:
            torch.save(_plain({"format": FORMAT, **state}), file)
        except RuntimeError as error:  # torch's writer hides what the file raised behind a report of its own
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _plain(value: Any) -> Any:
    """A copy that shares nothing but text and tensors: pickle writes an object it has met before as a reference.

    Without it the bytes would tell a state that was trained from an equal one that was loaded.
    """
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return sys.intern(value) if isinstance(value, str) else value


def load_checkpoint(path: Path, *, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint with `weights_only=True`: no code in it is run.

    Raises:
        SamganError: The file is missing, truncated, no checkpoint of ours, or holds anything but plain data.
    """
    problem: Exception
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"{damaged} is damaged in it")
        state = torch.load(path, map_location=device, weights_only=True)
        if isinstance(state, dict) and state.get("format") == FORMAT and set(state) >= REQUIRED:
            counts = state["step"], state["images_seen"]
            if all(type(count) is int and 0 <= count < 1 << 62 for count in counts):
                return Checkpoint(path, Config.from_dict(state["config"]), *counts, state)
            raise ValueError(f"expected step and images seen as whole numbers, found {counts}")
        problem = ValueError(f"expected format {FORMAT!r} with {', '.join(sorted(REQUIRED))}")
    except UsageError as error:  # its configuration
        raise SamganError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise SamganError(f"there is no checkpoint {path}") from None
    except pickle.UnpicklingError as error:
        problem = ValueError(f"it holds what plain data cannot be; nothing was run ({first_line(error)})")
    except Exception as error:  # an unpickler may raise anything on bytes that are not what it expects
        problem = error
    reason = (str(problem).splitlines() or [type(problem).__name__])[0]
    raise SamganError(f"{path} is not a readable samgan checkpoint: {reason}")


def newest_checkpoint(run: Run) -> Checkpoint | None:
    """The newest checkpoint that can be read; unreadable ones are passed over with a warning. None if none was written.

    Raises:
        SamganError: There are some, and none can be read.
    """
    paths = run.checkpoints()
    for path in reversed(paths):
        try:
            return load_checkpoint(path)
        except SamganError as error:
            warnings.warn(f"passed over: {error}", stacklevel=2)
    if paths:
        raise SamganError(
            f"none of the {len(paths)} checkpoints in {run.checkpoint_folder} can be read; restore a copy"
        )
    return None


def choose_checkpoint(run: Run, which: str) -> Checkpoint:
    """The checkpoint called `newest` or `best`, or the file named.

    Raises:
        SamganError: It is not there or not readable.
    """
    if which == "newest":
        newest = newest_checkpoint(run)
        if newest is None:
            raise SamganError(f"{run.path} has no checkpoint yet; let samgan train reach its first snapshot")
        return newest
    path = Path(which)
    if which == "best":
        best = run.best()
        if best is None:
            raise SamganError(f"{run.path} has no scored snapshot yet; use --checkpoint newest")
        path = run.checkpoint_folder / best.checkpoint
    return load_checkpoint(path)


def record_best(run: Run, path: Path, name: str, value: float) -> None:
    """Note `path` as the run's best checkpoint if its score is the lowest so far.

    A best one by another score, which an earlier version chose by, cannot be compared and gives way.
    """
    best = run.best()
    stands = best is not None and best.score == name and (run.checkpoint_folder / best.checkpoint).exists()
    if best is None or not stands or value < best.value:
        Best(checkpoint=path.name, score=name, value=value).write(run.checkpoint_folder / "best.json")


def prune_checkpoints(run: Run, keep: int) -> None:
    """Delete all checkpoints but the `keep` newest and the best, and what writes that were cut off have left."""
    best = run.best()
    for path in run.checkpoints()[:-keep]:
        if best is None or path.name != best.checkpoint:
            path.unlink(missing_ok=True)
    for folder in (run.checkpoint_folder, run.path / "grids"):  # only training writes here, one process at a time
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
