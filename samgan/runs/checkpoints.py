"""One file per checkpoint, written whole or not at all, and loaded without running any code in it."""

import dataclasses
import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from samgan.config import Config
from samgan.errors import SamganError, UsageError, first_line
from samgan.files import atomic_write
from samgan.runs.documents import Best
from samgan.runs.folder import CHECKPOINT_NAME, Run

FORMAT = "samgan checkpoint 1"
REQUIRED = {"config", "step", "images_seen", "generator", "ema_generator"}
"""The entries that sampling needs from a checkpoint; training saves more."""


class UnopenedError(SamganError):
    """A checkpoint that the system does not let be opened, for example since too many files are open."""


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a checkpoint file."""

    path: Path
    config: Config
    step: int
    images_seen: int
    state: dict[str, Any]
    """Everything in it, in the form that `TrainingState.load_state_dict` takes."""

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
        OSError: Writing failed, for example because the disk is full; an earlier file at `path` is intact.
    """
    with atomic_write(path) as file:
        try:
            torch.save(_plain({"format": FORMAT, **state}), file)
        except RuntimeError as error:  # torch's writer replaces the error of the file by one of its own
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _plain(value: Any) -> Any:
    """Copy a value, sharing only text and tensors: pickle writes an object it has already met as a reference.

    Otherwise a state after training and an equal state after loading would give different bytes.
    """
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return sys.intern(value) if isinstance(value, str) else value


def load_checkpoint(path: Path, *, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint with `weights_only=True`: no code in it is run.

    Raises:
        SamganError: The file is missing or truncated, is not a samgan checkpoint, or holds more than plain data.
        UnopenedError: It is there, and the system does not let it be opened. So nothing is known of its content.
    """
    problem: Exception
    file = _open(path)
    try:
        with file:
            with zipfile.ZipFile(file) as archive:  # torch does not check the checksums
                if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                    raise ValueError("its parts are compressed, as torch never writes them")  # few bytes may hold a lot
                damaged = archive.testzip()
            if damaged:
                raise ValueError(f"its part {damaged} is damaged")
            file.seek(0)
            state = torch.load(file, map_location=device, weights_only=True)
        if isinstance(state, dict) and state.get("format") == FORMAT and set(state) >= REQUIRED:
            counts = state["step"], state["images_seen"]
            if not all(type(count) is int and 0 <= count < 1 << 62 for count in counts):
                raise ValueError(f"expected step and images seen as whole numbers, found {counts}")
            named = CHECKPOINT_NAME.fullmatch(path.name)
            if named and int(named[1]) != counts[0]:
                raise ValueError(f"expected step {int(named[1])}, as its name says, found step {counts[0]}")
            return Checkpoint(path, Config.from_dict(state["config"]), *counts, state)
        problem = ValueError(f"expected format {FORMAT!r} with {', '.join(sorted(REQUIRED))}")
    except UsageError as error:  # in its configuration
        raise SamganError(f"{path}: {error}") from None
    except pickle.UnpicklingError as error:
        problem = ValueError(f"it holds more than plain data; none of it was run ({first_line(error)})")
    except Exception as error:  # an unpickler may raise any error on unexpected bytes
        problem = error
    reason = (str(problem).splitlines() or [type(problem).__name__])[0]
    raise SamganError(f"{path} is not a readable samgan checkpoint: {reason}")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise SamganError(f"there is no checkpoint {path}") from None
    except IsADirectoryError as error:
        raise SamganError(f"{path} is not a readable samgan checkpoint: {error}") from None
    except OSError as error:
        raise UnopenedError(
            f"{path} cannot be opened ({error.strerror}): try again later; to do without it, move it to another folder"
        ) from None


def newest_checkpoint(run: Run) -> Checkpoint | None:
    """The newest checkpoint that can be read; damaged ones are skipped with a warning. None if there are none.

    Raises:
        SamganError: There are checkpoints, but none can be read; or one cannot even be opened, so that an older one
            might be taken for no good reason.
    """
    paths = run.checkpoints()
    for path in reversed(paths):
        try:
            return load_checkpoint(path)
        except UnopenedError:
            raise
        except SamganError as error:
            warnings.warn(f"skipped a checkpoint: {error}", stacklevel=2)
    if paths:
        raise SamganError(
            f"none of the {len(paths)} checkpoints in {run.checkpoint_folder} can be read; restore one from a copy"
        )
    return None


def choose_checkpoint(run: Run, which: str) -> Checkpoint:
    """The checkpoint called "newest" or "best", or the named file.

    Raises:
        SamganError: There is no such checkpoint, or it cannot be read.
    """
    if which == "newest":
        newest = newest_checkpoint(run)
        if newest is None:
            raise SamganError(f"{run.path} has no checkpoint yet; continue samgan train to its first snapshot")
        return newest
    path = Path(which)
    if which == "best":
        best = run.best()
        if best is None:
            raise SamganError(
                f"{run.path} has no snapshot yet with scores of its largest images; use --checkpoint newest"
            )
        path = run.checkpoint_folder / best.checkpoint
    return load_checkpoint(path)


def record_best(run: Run, path: Path, name: str, value: float) -> None:
    """Record `path` as the run's best checkpoint if its score is the lowest so far.

    A best checkpoint that an earlier version chose by another score cannot be compared, so it is replaced.
    """
    best = run.best()
    stands = best is not None and best.score == name and (run.checkpoint_folder / best.checkpoint).exists()
    if best is None or not stands or value < best.value:
        Best(checkpoint=path.name, score=name, value=value).write(run.checkpoint_folder / "best.json")


def prune_checkpoints(run: Run, keep: int) -> None:
    """Delete all checkpoints except the `keep` newest and the best, and remains of interrupted writes."""
    best = run.best()
    for path in run.checkpoints()[:-keep]:
        if best is None or path.name != best.checkpoint:
            path.unlink(missing_ok=True)
    for folder in (run.checkpoint_folder, run.path / "grids"):  # only training writes here, one process at a time
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
