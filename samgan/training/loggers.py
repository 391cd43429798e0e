"""What happens while a run trains, for the tools that show it: TensorBoard, MLflow, Weights & Biases, or your own.

Everything is written into the run folder, and nothing is sent over a network. Pictures are synthetic, never those of
patients.
"""

import contextlib
import importlib.util
import os
import re
import secrets
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from samgan.config import RESUMABLE, flatten
from samgan.errors import UsageError, one_line
from samgan.pictures import SYNTHETIC, write_png
from samgan.runs import Run

GRID = "synthetic_grid"
"""Name of the picture of a snapshot."""
NOT_A_CURVE = ("kind", "step", "images_seen", "wall_seconds")
"""What a line of `stats.jsonl` says about itself."""


@runtime_checkable
class Logger(Protocol):
    """Takes what happens in a run. An error that it raises ends the logger, not the training."""

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Take values by name, such as `loss_generator` or `gamma/generator_16`; all are finite.

        `images_seen` does not decrease. Several calls may have the same, with other names.
        """

    def image(self, name: str, images_seen: int, pixels: UInt8[np.ndarray, "c h w"], description: str) -> None:
        """Take a picture of 1 or 3 channels; the description says that it is synthetic, and belongs beside it."""

    def close(self, finished: bool) -> None:
        """Write what is left; `finished` is False if the run was stopped or failed, and may be resumed."""


class TensorBoard:
    """Event files, for `tensorboard --logdir RUN`."""

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.path / "tensorboard"))

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, images_seen)
        self.writer.flush()

    def image(self, name: str, images_seen: int, pixels: UInt8[np.ndarray, "c h w"], description: str) -> None:
        """Add the picture, and under the same name its description."""
        self.writer.add_image(name, pixels, images_seen)
        self.writer.add_text(name, description, images_seen)
        self.writer.flush()

    def close(self, finished: bool) -> None:
        """Close the file."""
        self.writer.close()


class MLflow:
    """One run of the experiment "samgan" in MLflow's file store; a resumed run continues it."""

    def __init__(self, run: Run) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when MLflow is imported; else it reports its use
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.tracking import MlflowClient

        self.metric = Metric
        root = run.path.resolve() / "mlruns"
        _follow_the_folder(root)
        # Since MLflow 3 the file store is kept but not developed, and has to be allowed.
        with _environment("MLFLOW_ALLOW_FILE_STORE", "true"):
            self.client = MlflowClient(tracking_uri=root.as_uri())
        experiment = self.client.get_experiment_by_name("samgan")
        number = experiment.experiment_id if experiment else self.client.create_experiment("samgan")
        before = self.client.search_runs([number], max_results=1)
        settings = flatten(run.config.to_dict())
        if before:
            self.id = before[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
        else:
            self.id = self.client.create_run(number, run_name=run.path.resolve().name).info.run_id
            fixed = [Param(key, str(value)) for key, value in settings.items() if key not in RESUMABLE]
            self.client.log_batch(self.id, params=fixed)
        # MLflow never changes a parameter, but these a resumed run may change.
        self.client.log_batch(self.id, tags=[RunTag(key, str(settings[key])) for key in RESUMABLE])

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Add one point to each metric; its step is the number of images seen."""
        self.client.log_batch(self.id, [self.metric(name, value, 0, images_seen) for name, value in values.items()])

    def image(self, name: str, images_seen: int, pixels: UInt8[np.ndarray, "c h w"], description: str) -> None:
        """Add a PNG file that holds its description, as an artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"kimg-{images_seen / 1000:010.3f}.png"
            with open(path, "wb") as file:
                write_png(file, pixels, {"Description": description})
            self.client.log_artifact(self.id, str(path), name)

    def close(self, finished: bool) -> None:
        """Say how the run ended."""
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


class WandB:
    """A run of Weights & Biases, offline: `wandb sync RUN/wandb/offline-run-*` would send it.

    A resumed run is another offline run with the same id.
    """

    def __init__(self, run: Run) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at import; else its own errors are reported
        import wandb

        self.picture = wandb.Image
        before = sorted((run.path / "wandb").glob("offline-run-*-*"))
        while before and time.strftime("%Y%m%d_%H%M%S") in before[-1].name:
            time.sleep(0.1)  # W&B would write over the files of a run that began in the same second
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, save_code=False,
            x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
        )  # fmt: skip
        # Its process writes logs of its own there, in the home folder by default.
        with _environment("WANDB_CACHE_DIR", str(run.path.resolve() / "wandb" / "cache")):
            self.run = wandb.init(
                mode="offline",  # before WANDB_MODE
                dir=str(run.path),
                project="samgan",
                name=run.path.resolve().name,
                id=before[-1].name.rpartition("-")[2] if before else secrets.token_hex(4),
                config=run.config.to_dict(),
                reinit="create_new",  # leaves a run of the calling program alone
                settings=settings,
            )
        self.run.define_metric("*", step_metric="images_seen")

    def scalars(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Add a row. W&B wants each row to have a higher step, so the axis is the column `images_seen`."""
        row = {"images_seen": images_seen, **values}
        self.run.log(row, step=max(images_seen, self.run.step), commit=True)

    def image(self, name: str, images_seen: int, pixels: UInt8[np.ndarray, "c h w"], description: str) -> None:
        """Add a row with the picture, under which its description is shown."""
        shown = self.picture(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1), caption=description)
        row = {"images_seen": images_seen, name: shown}
        self.run.log(row, step=max(images_seen, self.run.step), commit=True)

    def close(self, finished: bool) -> None:
        """Write the rest, and how the run ended."""
        self.run.finish(exit_code=0 if finished else 1)


class LoggerKind(NamedTuple):
    """A logger that can be asked for by name; `pip install 'samgan[NAME]'` installs what it needs."""

    label: str
    package: str
    """Module to import."""
    folder: str
    """Where in the run folder it writes."""
    start: Callable[[Run], Logger]
    """Starts it, or continues what is in `folder`."""


LOGGERS = {
    "tensorboard": LoggerKind("TensorBoard", "tensorboard", "tensorboard", TensorBoard),
    "mlflow": LoggerKind("MLflow", "mlflow", "mlruns", MLflow),
    "wandb": LoggerKind("Weights & Biases", "wandb", "wandb", WandB),
}


def check_loggers(loggers: Sequence[object]) -> tuple[str | Logger, ...]:
    """Check, before anything is written, that loggers exist and are installed; each is kept once.

    Args:
        loggers: Names of `LOGGERS` and objects with the methods of `Logger`; one name may stand for itself.

    Raises:
        UsageError: One does not, or is not.
    """
    checked: list[str | Logger] = []
    for logger in [loggers] if isinstance(loggers, str) else loggers:
        if isinstance(logger, str):
            _check_installed(logger)
        elif not isinstance(logger, Logger):
            raise UsageError(f"logger {logger!r}: expected a name, or an object with scalars, image and close")
        if logger not in checked:
            checked.append(logger)
    return tuple(checked)


def _check_installed(name: str) -> None:
    if name not in LOGGERS:
        raise UsageError(f"--log {name}: expected one of {', '.join(LOGGERS)}")
    found = importlib.util.find_spec(LOGGERS[name].package)
    if found is None or found.origin is None:  # no origin: a folder of that name, such as one that W&B has made
        raise UsageError(f"{LOGGERS[name].label} is not installed: pip install 'samgan[{name}]'")


class Loggers:
    """The loggers of a run, as one that does not fail: a logger that raises an error is left out, with one warning.

    What the run had already written when it was resumed is not given again: a resumed run repeats the steps after its
    checkpoint, and they come out the same.
    """

    def __init__(self, run: Run, asked: Sequence[str | Logger]) -> None:
        self.started: list[tuple[str, Logger]] = []
        before = list(run.stats()) if asked else []
        self.told = {line["kind"]: line["images_seen"] for line in before}  # in order of step: the last one counts
        for logger in asked:
            if not isinstance(logger, str):
                self.started.append((type(logger).__name__, logger))
                continue
            kind = LOGGERS[logger]
            with _going_on_without(kind.label):
                missed = before if not (run.path / kind.folder).exists() else []
                new = kind.start(run)
                for line in missed:
                    new.scalars(line["images_seen"], _curves(line))
                self.started.append((kind.label, new))

    def line(self, line: dict[str, Any]) -> None:
        """Give a line of `stats.jsonl` to all loggers."""
        if line["images_seen"] > self.told.get(line["kind"], -1):
            self._each(lambda logger: logger.scalars(line["images_seen"], _curves(line)))

    def grid(self, images_seen: int, pixels: UInt8[np.ndarray, "c h w"]) -> None:
        """Give the picture of a snapshot to all loggers."""
        self._each(lambda logger: logger.image(GRID, images_seen, pixels, SYNTHETIC))

    def close(self, finished: bool) -> None:
        """Close all loggers; see `Logger.close`."""
        self._each(lambda logger: logger.close(finished))
        self.started.clear()

    def _each(self, call: Callable[[Logger], None]) -> None:
        going, self.started = self.started, []
        for label, logger in going:
            with _going_on_without(label):
                call(logger)
                self.started.append((label, logger))


@contextlib.contextmanager
def _going_on_without(label: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a package of others, on a disk that may be full
        warnings.warn(f"{label} failed, and training goes on without it: {one_line(error)}", stacklevel=4)


def _curves(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of `stats.jsonl`; what is inside of others is named like a file in a folder."""
    curves: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            # Names of classes: MLflow allows few characters.
            curves |= {f"{name}/{_plain(key)}": number for key, number in value.items() if _is_number(number)}
        elif name not in NOT_A_CURVE and _is_number(value):
            curves[name] = value
    return curves


def _plain(name: str) -> str:
    return re.sub(r"[^\w -]", lambda found: f"_{ord(found[0]):x}", name)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _follow_the_folder(root: Path) -> None:
    """Correct the absolute paths in MLflow's files: the pictures of a copied run would go to the original."""
    for path in (*root.glob("*/meta.yaml"), *root.glob("*/*/meta.yaml")):
        text, here = path.read_text(encoding="utf-8"), path.parent.as_uri()  # a URI has no backslash
        moved = re.sub(r"(?m)^(artifact_location): .*$", rf"\g<1>: {here}", text)
        moved = re.sub(r"(?m)^(artifact_uri): .*$", rf"\g<1>: {here}/artifacts", moved)
        if moved != text:
            path.write_text(moved, encoding="utf-8")
