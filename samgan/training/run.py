"""Train on a prepared set: check the request, open the run, and call the loop."""

import contextlib
import dataclasses
import functools
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samgan.config import RESUMABLE, Config
from samgan.data import PreparedSet, check_prepared
from samgan.devices import SLOW, OneProcess, choose_precision, keep_freed_memory, make_fabric, usable_precision
from samgan.distributed import leave, on_first_process
from samgan.errors import UsageError, shown
from samgan.files import Location
from samgan.hosts import attended
from samgan.networks import load_pretrained
from samgan.runs import (
    CollapseWatch,
    Run,
    Start,
    TrainedOn,
    choose_checkpoint,
    describe_environment,
)
from samgan.sampling import find_file, open_model
from samgan.scoring import CHOOSES_BEST, QuickScorer, ms_ssim_gaps
from samgan.training.cost import check_memory
from samgan.training.log import say
from samgan.training.loggers import Logger, check_loggers
from samgan.training.loop import Options, check_fit, check_start, train_loop
from samgan.training.recipe import Recipe
from samgan.training.snapshots import Scorer

if TYPE_CHECKING:
    import lightning_fabric

ON_COLLAPSE = ("warn", "stop", "ignore")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Request:
    """A training request that has been checked."""

    config: Config
    data: PreparedSet
    out: Path
    indices: np.ndarray
    resume: bool
    start: Location | None
    on_collapse: str
    minutes: float | None
    loggers: Sequence[str | Logger]
    quiet: bool
    recipe: Recipe | None


def train(  # noqa: PLR0913 (options of one run, each with a default)
    config: Config,
    data: PreparedSet,
    out: Location,
    *,
    resume: bool = False,
    device: str = "auto",
    processes: int = 1,
    hosts: int = 1,
    loggers: Sequence[str | Logger] = (),
    minutes: float | None = None,
    start: Location | None = None,
    on_collapse: str = "warn",
    recipe: Recipe | None = None,
    quiet: bool = False,
) -> Run:
    """Train on the train split of a prepared set; held-out images only choose the best checkpoint.

    Long because it has many options, each described below.

    Args:
        config: From `preset_config`; use `override` to change settings. `choose_classes`, `choose_length` and
            `usable_precision` resolve what it leaves open, and the run keeps the result.
        data: The prepared set; `data.classes` of the configuration selects a part of it.
        out: New run folder, or the one to continue.
        resume: Continue the run in `out`, bit for bit.
        device: "auto", "cpu", "cuda" or "mps".
        processes: Processes per host. The calling script is started once for each. All but the first end in this
            function, so that the code after it runs once.
        hosts: Number of hosts.
        loggers: Who is told what happens: names of `samgan.training.LOGGERS`, which write into the run folder, or
            objects with the methods of `samgan.training.Logger`. One that fails is left out, with a warning.
        minutes: End after this many minutes of training, unless `training.kimg` is reached first.
        start: Another run whose networks this one begins with (fine-tuning); its newest checkpoint is taken. Or another
            model that `samgan.sample` takes: these have no discriminator, so that one is new. Networks of samgan-plus
            may be those of smaller images.
        on_collapse: What to do when `samgan.runs.find_collapse` finds one: "warn", "stop" the run at that snapshot, or
            "ignore" it.
        recipe: What a step computes; default: what the configuration names. It is not saved with the run.
        quiet: Print no progress.

    Returns:
        The run.

    Raises:
        UsageError: The data do not fit the network, configuration, data or processor do not fit the run to continue,
            or a logger is not installed.
        SamganError: `out` is in use, the prepared set is damaged, or training failed.
    """
    keep_freed_memory()
    check_prepared(data)
    if minutes is not None and not minutes > 0:
        raise UsageError(f"--minutes {minutes:g}: expected more than 0")
    if on_collapse not in ON_COLLAPSE:
        raise UsageError(f"--on-collapse {on_collapse}: expected one of {', '.join(ON_COLLAPSE)}")
    loggers = check_loggers(loggers)
    config = _resolve(config, data, begun=out if resume else start)
    config = _resolve_precision(config, device, goes_on=out if resume else None)
    if start and (sides := list(config.training.first_sides)):
        say(f"samgan: --start brings networks that have begun: training.first_sides {sides} is left out")
        config = config.override({"training.first_sides": []})
    _say_never_full(config)
    indices = data.indices("train", config.data.classes)
    check_fit(config, (len(indices), *data.images.shape[1:]), processes * hosts)
    if config.network.sees:
        load_pretrained(config.network)  # before anything is written, on whether it is there
    fabric = make_fabric(device, processes, hosts, config.training.precision)
    if fabric.device.type == "cpu" and processes * hosts == 1:
        check_memory(config)
    if fabric.device.type == "cpu" and config.network.max_channels > 128:
        message = f"training {config.network.max_channels} channels on a CPU takes weeks; use --scale cpu"
        warnings.warn(message, stacklevel=2)
    request = _Request(
        config=config,
        data=data,
        out=Path(out),
        indices=indices,
        resume=resume,
        start=start,
        on_collapse=on_collapse,
        minutes=minutes,
        loggers=loggers,
        quiet=quiet,
        recipe=recipe,
    )
    try:
        fabric.launch()
        run = _train(request, fabric)
    except Exception as error:
        # The host's first process reports it; the launcher would kill that process if another one failed.
        if fabric.local_rank > 0 and getattr(error, "on_all_processes", False):
            sys.exit(0)
        raise
    if fabric.global_rank > 0:
        sys.exit(0)
    return run


def _resolve(config: Config, data: PreparedSet, begun: Location | None) -> Config:
    """The configuration that the run keeps; `begun` is the run to continue or to begin with."""
    if begun and config.network.num_classes is None:
        own = Run.open(begun).config if find_file(Path(begun)) is None else open_model(Path(begun)).config
        config = config.override({"network.num_classes": own.network.num_classes})
    return choose_length(choose_classes(config, data), data)


def _say_never_full(config: Config) -> None:
    """Say that a run will end before its largest images are trained."""
    training, side = config.training, config.network.resolution
    if training.first_sides and training.kimg <= training.first_kimg * len(training.first_sides):
        say(
            f"samgan: training.kimg {training.kimg:g} ends before images of {side} px are trained: those of "
            f"{max(training.first_sides)} px are enlarged. Train longer, or give --training.first_sides=[], or a "
            f"training.first_kimg below {training.first_kimg:g}"
        )


def _resolve_precision(config: Config, device: str, goes_on: Location | None) -> Config:
    """What the run computes in, and keeps as its setting: a run that goes on never changes it.

    Raises:
        UsageError: The run `goes_on` computes in bf16, and this processor is no good at it.
    """
    usable = usable_precision(config.training.precision, device)
    if goes_on is not None:
        own = Run.open(goes_on).config.training.precision
        if config.training.precision == "auto":
            usable = own
        if usable_precision(own, device) != own:
            raise UsageError(
                f"{goes_on} computes in {own}, and {SLOW}; continue it on one with AVX-512 or on a GPU, or begin "
                f"another run from it, in {usable}, with --start {goes_on}"
            )
    elif usable != choose_precision(config.training.precision, device):
        say(f"samgan: {SLOW}, so the run computes in {usable}")
    return config.override({"training.precision": usable})


def _train(request: _Request, fabric: "OneProcess | lightning_fabric.Fabric") -> Run:
    """Open the run on the first process and train on all of them."""
    config, data = request.config, request.data
    with contextlib.ExitStack() as held:
        held.callback(leave)
        held.enter_context(attended(getattr(fabric.strategy, "watch", None)))
        goes_on = request.resume and bool(Run.open(request.out).checkpoints())
        origin = _find_origin(request.start) if request.start and not goes_on else None
        if origin:
            check_start(config, origin.config)
            say_new_classes(config, origin.config)

        def open_run() -> None:
            data.verify()
            run = _open_run(request, str(fabric.device), origin)
            held.enter_context(run.locked())
            if request.resume:
                run.rewrite_config(config)

        on_first_process(open_run)
        run = Run.open(request.out)
        watch = None if request.on_collapse == "ignore" else CollapseWatch(run, stops=request.on_collapse == "stop")
        options = Options(
            indices=request.indices,
            labels=data.labels(config.data.classes) if config.network.num_classes else None,
            resume=request.resume,
            start=origin.path if origin else None,
            minutes=request.minutes,
            scorer=_scorer(data, config),
            watch=watch,
            at_once=request.on_collapse == "stop",
            recipe=request.recipe,
            loggers=request.loggers,
            quiet=request.quiet,
        )
        train_loop(config, data.images, run, fabric, options)
    return run


def say_new_classes(config: Config, before: Config) -> None:
    """Say which class begins as which other one, in a run that begins with the networks of another run."""
    names = config.data.classes if config.network.num_classes else ()
    for name, old in zip(names, before.data.classes, strict=False):
        if name != old:
            say(f"samgan: class {shown(name)} begins as {shown(old)} of that run")


def choose_classes(config: Config, data: PreparedSet) -> Config:
    """Resolve `network.num_classes`: null becomes the number of classes with training images, or 0 if that is 1.

    If it is not 0, `data.classes` becomes the names of the classes; a label is an index into it. (For a run that is
    resumed, or begins with the networks of another run, null becomes the number of those networks.)

    Args:
        config: A configuration.
        data: The prepared set to train on.

    Raises:
        UsageError: The number does not fit the data, or a class is unknown or has no training images.
    """
    if config.network.num_classes == 0:
        return config
    data.indices("train", config.data.classes)  # refuses unknown classes
    counts = {name: splits.get("train", 0) for name, splits in data.info.counts.items()}
    names = list(dict.fromkeys(config.data.classes)) or [name for name in data.classes if counts[name]]
    for name in names:
        if not counts[name]:
            raise UsageError(f"class {name} of {data.path} has no images to train on; leave it out with --classes")
    number = config.network.num_classes
    if number is None and len(names) < 2:
        return config.override({"network.num_classes": 0})
    number = len(names) if number is None else number
    return config.override({"network.num_classes": number, "data.classes": names})


def choose_length(config: Config, data: PreparedSet) -> Config:
    """Resolve `training.epochs`: so many passes over the training images become `training.kimg`.

    Args:
        config: A configuration.
        data: The prepared set to train on.
    """
    if config.training.epochs is None:
        return config
    copies = 2 if config.data.flip == "double" else 1
    images = copies * len(data.indices("train", config.data.classes))
    return config.override({"training.kimg": config.training.epochs * images / 1000, "training.epochs": None})


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What a run begins with."""

    path: Path
    """A checkpoint, or a file of `samgan export`."""
    config: Config
    start: Start
    """What the record says about it."""


def _find_origin(start: Location) -> _Origin:
    """The newest checkpoint of a run, or the file of a model."""
    file = find_file(Path(start))
    if file is None:
        run = Run.open(start)
        checkpoint, begun = choose_checkpoint(run, "newest"), run.environment
        told = Start(run.path.resolve().name, checkpoint.images_seen, begun.data, begun.start)
        return _Origin(checkpoint.path, checkpoint.config, told)
    model, known = open_model(Path(start)), None
    name = model.hub or file[0].stem
    for sha256 in reversed(model.trained_on):
        known = Start(name, model.images_seen, TrainedOn("", sha256), known)
    return _Origin(file[0], model.config, known or Start(name, model.images_seen))


def _open_run(request: _Request, device: str, origin: _Origin | None) -> Run:
    """Create the run, or open the one to continue and refuse anything that would make it a different run."""
    out, config, data = request.out, request.config, request.data
    if not request.resume:
        trained_on = TrainedOn(data.path.resolve().name, data.sha256, len(request.indices))
        return Run.create(out, config, describe_environment(device, trained_on, origin.start if origin else None))
    run = Run.open(out)
    begun = run.environment
    if begun.start and not run.checkpoints() and not origin:
        name = begun.start.run
        raise UsageError(f"{out} was stopped before it had loaded the networks of {name}: name that run with --start")
    if begun.data is None or begun.data.sha256 != data.sha256:
        told = begun.data.sha256[:12] if begun.data else "unknown"
        raise UsageError(f"{out} was trained on other data (sha256 {told}, not {data.sha256[:12]})")
    fixed = {key: values for key, values in run.config.differences(config).items() if key not in RESUMABLE}
    if fixed:
        asked = "; ".join(f"{key} is {before!r}, not {after!r}" for key, (before, after) in fixed.items())
        raise UsageError(
            f"{out} cannot continue with different settings: {asked}. Only these may change: {', '.join(RESUMABLE)}"
        )
    if run.last_step() > config.training.total_steps:
        done = run.last_step() * config.training.batch_size / 1000
        raise UsageError(
            f"{out} has already trained for {done:g} kimg, more than training.kimg {config.training.kimg:g}"
        )
    return run


def _scorer(data: PreparedSet, config: Config) -> Scorer | None:
    """Quick scores against held-out images, or against training images if fewer than 64 are held out."""
    indices = data.indices("holdout", config.data.classes)
    if len(indices) < 64:
        indices = data.indices("train", config.data.classes)
    if len(indices) < 3:
        return None
    indices = np.random.default_rng(0).permutation(indices)  # images are stored in order of class and patient
    real_labels, classes = data.labels(config.data.classes)[indices], np.array(config.data.classes)

    @functools.cache
    def quick(count: int) -> QuickScorer:
        return QuickScorer(data.take(indices[:count]), count)

    def score(fake: np.ndarray, labels: np.ndarray | None = None) -> dict[str, Any]:
        scores = quick(len(fake))(fake[: len(indices)]).to_dict()
        if labels is None:
            return scores
        # Of each class as many real images as there are generated ones.
        own = [np.flatnonzero(real_labels == label)[:count] for label, count in enumerate(np.bincount(labels))]
        places = np.concatenate(own)
        real = data.take(indices[places])
        gaps = ms_ssim_gaps(real, fake, classes[real_labels[places]], classes[labels])
        return {**scores, "ms_ssim_gap_by_class": gaps}

    return Scorer(CHOOSES_BEST, score)
