"""Train on a prepared set: open the run, choose classes, device and precision, and call the loop."""

import contextlib
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from samgan.config import RESUMABLE, Config
from samgan.data import PreparedSet
from samgan.devices import choose_precision, keep_freed_memory, make_fabric
from samgan.distributed import leave, on_first_process
from samgan.errors import UsageError
from samgan.files import Location
from samgan.runs import Checkpoint, Run, choose_checkpoint, describe_environment, find_collapse
from samgan.scoring import ms_ssim_gaps, quick_scores
from samgan.training.loop import Score, check_fit, check_start
from samgan.training.loop import train as train_loop

ON_COLLAPSE = ("warn", "stop", "ignore")


def train(
    config: Config,
    data: PreparedSet,
    out: Location,
    *,
    resume: bool = False,
    device: str = "auto",
    processes: int = 1,
    hosts: int = 1,
    tensorboard: bool = False,
    minutes: float | None = None,
    start: Location | None = None,
    on_collapse: str = "warn",
    quiet: bool = False,
) -> Run:
    """Train on the train split of a prepared set; held-out images only choose the best checkpoint.

    Args:
        config: From `preset_config`, with `override` for what should differ. What is left open in it is resolved as
            `choose_classes` and `choose_precision` say, and kept like that with the run.
        data: The prepared set; `data.classes` of the configuration chooses a part of it.
        out: New run folder, or the one to continue.
        resume: Continue the run in `out`, bit for bit.
        device: "auto", "cpu", "cuda" or "mps".
        processes: Processes per host. Fabric starts the calling script once for each; all but the first end in this
            function, so that what follows it is done once.
        hosts: Hosts.
        tensorboard: Also write TensorBoard events.
        minutes: End after so many minutes of training, where `training.kimg` is not reached before.
        start: Another run whose networks this one begins with (fine-tuning); its newest checkpoint is taken.
        on_collapse: What to do when `samgan.runs.find_collapse` finds one: "warn", "stop" the run at that snapshot,
            or "ignore" it.
        quiet: Print no progress.

    Returns:
        The run.

    Raises:
        UsageError: Data and network, or configuration, data and the run to continue, do not fit.
        SamganError: `out` is in use, the prepared set is damaged, or training failed.
    """
    keep_freed_memory()
    if minutes is not None and not minutes > 0:
        raise UsageError(f"--minutes {minutes:g}: expected more than 0")
    if on_collapse not in ON_COLLAPSE:
        raise UsageError(f"--on-collapse {on_collapse}: expected one of {', '.join(ON_COLLAPSE)}")
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UsageError("TensorBoard is not installed: pip install 'samgan[tensorboard]'")
    begun = out if resume else start
    if begun and config.network.num_classes is None:
        config = config.override({"network.num_classes": Run.open(begun).config.network.num_classes})
    config = choose_classes(config, data)
    indices = data.indices("train", config.data.classes)
    check_fit(config, (len(indices), *data.images.shape[1:]), processes * hosts)
    precision = choose_precision(config.training.precision, device)
    config = config.override({"training.precision": precision})  # as it is kept with the run
    fabric = make_fabric(device, processes, hosts, precision)
    if fabric.device.type == "cpu" and config.network.max_channels > 128:
        message = f"{config.network.max_channels} channels on a CPU take weeks; --scale cpu is made for it"
        warnings.warn(message, stacklevel=2)
    fabric.launch()
    with contextlib.ExitStack() as held:
        held.callback(leave)
        goes_on = resume and bool(Run.open(out).checkpoints())
        origin = choose_checkpoint(Run.open(start), "newest") if start and not goes_on else None
        if origin:
            check_start(config, origin)

        def open_run() -> None:
            data.verify()
            run = _open_run(Path(out), config, data, resume, len(indices), str(fabric.device), origin)
            held.enter_context(run.locked())
            if resume:
                run.rewrite_config(config)

        try:
            on_first_process(open_run)
            run = Run.open(out)
            score = _quick_score(data, config)
            train_loop(
                config,
                data.images,
                run,
                fabric,
                indices=indices,
                labels=data.labels(config.data.classes) if config.network.num_classes else None,
                resume=resume,
                score=score,
                tensorboard=tensorboard,
                minutes=minutes,
                start=origin.path if origin else None,
                watch=None if on_collapse == "ignore" else _Watch(run, stops=on_collapse == "stop"),
                quiet=quiet,
            )
        except Exception as error:
            # The host's first process tells it; the launcher would kill that one if another ended with a failure.
            if fabric.local_rank > 0 and getattr(error, "on_all_processes", False):
                sys.exit(0)
            raise
    if fabric.global_rank > 0:
        sys.exit(0)
    return run


def choose_classes(config: Config, data: PreparedSet) -> Config:
    """Resolve `network.num_classes`: null becomes the number of classes with training images, or 0 if that is one.

    Where it is not 0, `data.classes` becomes their names: a label is a place in it. (A run that goes on, or begins with
    another's networks, takes their number for null.)

    Args:
        config: A configuration.
        data: The prepared set to train on.

    Raises:
        UsageError: Another number was asked for, or a class that is unknown or has no training images.
    """
    if config.network.num_classes == 0:
        return config
    data.indices("train", config.data.classes)  # refuses unknown ones
    counts = {name: splits.get("train", 0) for name, splits in data.info["counts"].items()}
    names = list(dict.fromkeys(config.data.classes)) or [name for name in data.classes if counts[name]]
    for name in names:
        if not counts[name]:
            raise UsageError(f"class {name} of {data.path} has no images to train on; leave it out with --classes")
    number = config.network.num_classes
    if number is None and len(names) < 2:
        return config.override({"network.num_classes": 0})
    number = len(names) if number is None else number
    return config.override({"network.num_classes": number, "data.classes": names})


class _Watch:
    """Looks for a collapse behind every snapshot, and says so once."""

    def __init__(self, run: Run, stops: bool) -> None:
        self.run, self.stops, self.said = run, stops, False

    def __call__(self) -> bool:
        collapse = find_collapse(self.run.stats())
        if collapse is None:
            return False
        if not self.said:
            what = "stopped" if self.stops else "it goes on (--on-collapse stop would end it)"
            message = (
                f"{self.run.path} has collapsed at {collapse.images_seen / 1000:g} kimg: {collapse.reason}; {what}"
            )
            warnings.warn(message, stacklevel=2)
            self.said = True
        return self.stops


def _open_run(
    out: Path,
    config: Config,
    data: PreparedSet,
    resume: bool,
    count: int,
    device: str,
    origin: Checkpoint | None,
) -> Run:
    if not resume:
        description = {"name": data.path.resolve().name, "sha256": data.sha256, "images": count}
        environment = describe_environment(device, description)
        if origin:
            before = Run(origin.path.parents[1])
            environment["start"] = {
                "run": before.path.resolve().name,
                "images_seen": origin.images_seen,
                "data": before.environment["data"],
                "start": before.environment.get("start"),
            }
        return Run.create(out, config, environment)
    run = Run.open(out)
    if run.environment.get("start") and not run.checkpoints() and not origin:
        name = run.environment["start"]["run"]
        raise UsageError(f"{out} was stopped before it had the networks of {name}: name that run with --start")
    trained_on = run.environment["data"].get("sha256")
    if data.sha256 != trained_on:
        raise UsageError(f"{out} was trained on other data (sha256 {str(trained_on)[:12]}, not {data.sha256[:12]})")
    fixed = {key: values for key, values in run.config.differences(config).items() if key not in RESUMABLE}
    if fixed:
        asked = "; ".join(f"{key} is {before!r}, not {after!r}" for key, (before, after) in fixed.items())
        raise UsageError(f"{out} cannot go on with other settings: {asked}. These may change: {', '.join(RESUMABLE)}")
    if run.last_step() > config.training.total_steps:
        done = run.last_step() * config.training.batch_size / 1000
        raise UsageError(f"{out} has {done:g} kimg behind it: training.kimg {config.training.kimg:g} cannot be reached")
    return run


def _quick_score(data: PreparedSet, config: Config) -> Score | None:
    """Quick scores against held-out images, or against training images where fewer than 64 are held out."""
    indices = data.indices("holdout", config.data.classes)
    if len(indices) < 64:
        indices = data.indices("train", config.data.classes)
    if len(indices) < 3:
        return None
    indices = np.random.default_rng(0).permutation(indices)  # files lie in order of class and patient
    real, real_labels = np.asarray(data.images[indices]), data.labels(config.data.classes)[indices]
    classes = np.array(config.data.classes)

    def score(fake: np.ndarray, labels: np.ndarray | None = None) -> dict[str, Any]:
        scores: dict[str, Any] = quick_scores(real=real[: len(fake)], fake=fake[: len(real)])
        if labels is None:
            return scores
        gaps = ms_ssim_gaps(real, fake, classes[real_labels], classes[labels])
        return {**scores, "ms_ssim_gap_by_class": gaps}

    return score
