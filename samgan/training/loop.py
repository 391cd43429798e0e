"""The training loop: steps, log, snapshots, stopping and resuming."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from samgan.config import RESUMABLE, Config
from samgan.devices import OneProcess
from samgan.distributed import gather, on_first_process, world_size
from samgan.errors import SamganError, UsageError
from samgan.networks import load_smaller, reason_not_to_grow
from samgan.runs import Run, load_checkpoint, newest_checkpoint
from samgan.sampling import MODEL_SUFFIX, read_model
from samgan.terminal import ending_signals
from samgan.training.batches import Sampler
from samgan.training.log import Log, say
from samgan.training.loggers import Logger
from samgan.training.recipe import Recipe
from samgan.training.snapshots import DUE, Scorer, Snapshots, write_real_grid
from samgan.training.state import TrainingState
from samgan.training.step import CapturedPasses, can_capture, train_step

if TYPE_CHECKING:
    import lightning_fabric


ASK_SECONDS = 2.0
"""How often several processes ask each other whether one of them was told to stop. Slurm and torchrun kill a process
30 seconds after the signal, and the checkpoint takes its time too."""


class Interrupted(SamganError):
    """A signal asked the run to stop; everything up to its last step is saved."""

    on_all_processes = True

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        return type(self), (self.signal_number, str(self))


def check_fit(config: Config, shape: Sequence[int], processes: int = 1) -> None:
    """Check, before anything is written, that images of `shape` (n, c, h, w), network and number of processes fit.

    Raises:
        UsageError: They do not fit.
    """
    network, batch_size = config.network, config.training.batch_size
    expected = (network.image_channels, network.resolution, network.resolution)
    if tuple(shape[1:]) != expected:
        raise UsageError(
            f"the network expects images of (channels, height, width) {expected}; got {tuple(shape[1:])}: give "
            "network.resolution and network.image_channels those of the set, or prepare it with another --resolution"
        )
    if shape[0] < 2:
        raise UsageError(f"training needs at least 2 images; got {shape[0]}")
    if processes < 1 or batch_size % processes:
        raise UsageError(f"training.batch_size {batch_size} cannot be divided evenly among {processes} processes")


MAY_GROW = tuple(f"network.{name}" for name in ("resolution", "channel_base", "min_channels", "noise", "vision_tiles"))
"""What may differ between networks and those for smaller images with which they begin."""
OF_EYES = (
    "network.discriminator_blocks",
    *(f"network.vision_{name}" for name in ("features", "file", "resolution", "channels", "tiles")),
)
"""What may differ where vision blocks begin as residual ones, without heads."""


def check_start(config: Config, saved: Config) -> None:
    """Check, before anything is written, that a run can begin with networks of another configuration.

    Raises:
        UsageError: These networks have different settings, or classes in another order.
    """
    grows = saved.network.resolution != config.network.resolution
    allowed = set(MAY_GROW) if grows else set()
    if (saved.network.discriminator_blocks, config.network.discriminator_blocks) == ("residual", "vision"):
        allowed.update(OF_EYES)
    differences = {key: values for key, values in saved.differences(config).items() if key not in allowed}
    foreign = [f"{key} is {v[0]!r}, not {v[1]!r}" for key, v in differences.items() if key.startswith("network.")]
    if foreign:
        raise UsageError(f"--start: the networks of that run have different settings: {'; '.join(foreign)}")
    if grows and (reason := reason_not_to_grow(saved.network, config.network)):
        raise UsageError(f"--start: these networks cannot begin with those of that run: {reason}")
    _check_places(config.data.classes if config.network.num_classes else (), saved.data.classes)


def _check_places(classes: Sequence[str], before: Sequence[str]) -> None:
    """Check that classes have the number that they had: networks know them by it."""
    moved = [name for place, name in enumerate(classes) if name in before and before.index(name) != place]
    if not moved:
        return
    new = iter([name for name in classes if name not in before])
    kept = [name if name in classes else next(new) for name in before]  # there are as many
    raise UsageError(
        f"--start: the networks of that run know its classes ({', '.join(before)}) by their order, and {moved[0]} has "
        f"another place here: give --classes {' '.join(kept)}"
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run a training, apart from what it computes."""

    indices: np.ndarray | None = None
    """Indices of the images to train on; default: all."""
    labels: np.ndarray | None = None
    """Class of each image, if `network.num_classes` is not 0."""
    resume: bool = False
    """Continue from the newest readable checkpoint."""
    start: Path | None = None
    """A checkpoint of another run; a new run begins with its networks, including the averaged generator. Or a file of
    `samgan export`, which has a generator only: the discriminator is new. Both may be of smaller images, or have
    residual blocks where the new ones are vision (`samgan.networks.load_smaller`). Optimizers and steps start
    afresh. With `training.ema_ramp` so does the average, at the first step: the old one would keep images of the other
    data for thousands of steps. A snapshot is written before the first step."""
    minutes: float | None = None
    """End, with a snapshot, at the first line of the log after this many minutes of training. Minutes before a resume
    count; time between runs does not."""
    scorer: Scorer | None = None
    """Scores generated images at every snapshot, to choose the best checkpoint."""
    watch: Callable[[], bool] | None = None
    """Called after every snapshot, the last one included; True ends the run there if `at_once`, otherwise at the line
    of the log that finds the scores done."""
    at_once: bool = False
    """Training waits for the scores of a snapshot. Otherwise a core that it does not use computes them meanwhile."""
    recipe: Recipe | None = None
    """What a step computes; default: what the configuration names."""
    loggers: Sequence[str | Logger] = ()
    """Who is told what happens: names of `LOGGERS` that `check_loggers` has checked, or loggers of your own."""
    quiet: bool = False
    """Print no progress."""


def train_loop(
    config: Config,
    images: np.ndarray,
    run: Run,
    fabric: "OneProcess | lightning_fabric.Fabric",
    options: Options = Options(),
) -> TrainingState:
    """Train until `training.kimg` or for some minutes; the run's files are described in `docs/run-folder.md`.

    Args:
        config: The configuration; `run` holds the same in `config.json`.
        images: uint8 [n, c, h, w] of `network.resolution` and `network.image_channels`, in memory or memory-mapped.
        run: A run from `Run.create` or `Run.open`.
        fabric: From `samgan.devices.make_fabric`, launched.
        options: How to run it.

    Returns:
        The final state, which is also the newest checkpoint.

    Raises:
        UsageError: Images or labels do not fit the network, or the batch does not fit the processes.
        SamganError: A loss or weight became NaN or infinite; the last checkpoint is intact.
        Interrupted: SIGINT, SIGTERM or SIGHUP arrived, at any process; the last step is saved.
    """
    indices = options.indices
    check_fit(config, (len(images if indices is None else indices), *images.shape[1:]), world_size())
    state = TrainingState(config, fabric.device, options.recipe)
    begin = on_first_process(_starting_point, run, config) if options.resume else _StartingPoint()
    path, complete = begin.path, False
    if path:
        _restore(state, path)
        if not options.quiet:
            say(f"continuing from {path.name}, {state.images_seen / 1000:.1f} kimg")
    elif options.start:
        complete = _begin_from(state, options.start)
    elif config.training.first_sides and not options.quiet:
        sides = " px, then ".join(map(str, config.training.first_sides))
        say(f"beginning with images of {sides} px, {config.training.first_kimg:g} kimg each (training.first_sides)")
    sampler = Sampler(images, config, fabric.device, indices, options.labels)
    with (
        Log(run, state, options.loggers, options.minutes, options.quiet) as log,
        Snapshots(
            run, state, sampler.labels, log.loggers, options.scorer, options.watch, options.at_once, complete
        ) as snapshots,
    ):
        if options.resume:
            scores_again = begin.cut_off and begin.due and options.scorer is not None
            on_first_process(run.cut_log, state.step, scored=not scores_again)
        if state.step == 0:
            on_first_process(write_real_grid, run, sampler)
            if options.start and not path:
                on_first_process(snapshots.take, wait=True)
        ended = False
        if begin.cut_off:
            ended = on_first_process(snapshots.take, begin.due, wait=True)
        if not ended:
            _run(state, sampler, log, snapshots, fabric, options)
    return state


def _every(config: Config) -> int:
    return config.training.steps(config.training.snapshot_every_kimg)


def _run(
    state: TrainingState,
    sampler: Sampler,
    log: Log,
    snapshots: Snapshots,
    fabric: "OneProcess | lightning_fabric.Fabric",
    options: Options,
) -> None:
    """Take steps, write log lines and snapshots when due, and stop when time is up or a signal arrives."""
    training, device = state.config.training, fabric.device
    log_every, snapshot_every = training.steps(training.log_every_kimg), _every(state.config)

    def out_of_time() -> bool:
        return options.minutes is not None and bool(_agree([float(log.seconds() >= 60 * options.minutes)], device)[0])

    captured = CapturedPasses(state, fabric.autocast) if can_capture(state) else None
    step = partial(train_step, captured=captured) if captured else train_step
    finished = state.step >= training.total_steps or (state.step > 0 and out_of_time())
    if finished and not options.quiet:
        on_first_process(say, _why_nothing(state, options))
    with _signals() as received, captured.stream if captured else contextlib.nullcontext():
        stopping = _Stopping(received, state.step, device)
        while not finished:
            log.add(step(state, sampler(state.step), fabric.autocast))
            flush = state.step % log_every == 0
            ended = flush and on_first_process(snapshots.finish, wait=False)
            finished = ended or state.step >= training.total_steps or (flush and out_of_time())
            due = finished or state.step % snapshot_every == 0
            flush = flush or due
            stop = stopping.signal_at(state.step, ask=flush)
            if flush or stop:
                log.flush()
            if due or stop:
                ended = on_first_process(snapshots.take, due, wait=finished or bool(stop))
                finished = finished or ended
                log.last = time.monotonic()  # so that images/s counts only steps
            if stop and not finished:
                name = signal.Signals(stop).name
                kimg = f"{state.images_seen / 1000:.3f} kimg"
                raise Interrupted(stop, f"stopped by {name} at {kimg}; continue with --resume")


def _why_nothing(state: TrainingState, options: Options) -> str:
    """Why there is nothing left to train."""
    training, done = state.config.training, f"{state.images_seen / 1000:g} kimg"
    if state.step >= training.total_steps:
        return f"nothing left to train: {done} are done, and training.kimg is {training.kimg:g}"
    minutes = f"{options.minutes or 0:g} minutes"
    return f"nothing left to train: {done} took the {minutes} asked for, which count from the start of the run"


@dataclass(frozen=True)
class _StartingPoint:
    """Where a run begins or goes on."""

    path: Path | None = None
    """The checkpoint to continue from; None begins at the first step."""
    cut_off: bool = False
    """Whether the run was killed between writing that checkpoint and the rest of its snapshot."""
    due: bool = False
    """Whether that snapshot is one to score and to watch."""


def _starting_point(run: Run, config: Config) -> _StartingPoint:
    """Where to continue. Checkpoints that are newer, but cannot be read, get another name."""
    newest = newest_checkpoint(run)
    if newest is None:
        return _StartingPoint()
    differences = newest.config.differences(config)
    foreign = [
        f"{key} is {values[0]!r}, not {values[1]!r}" for key, values in differences.items() if key not in RESUMABLE
    ]
    if foreign:
        raise SamganError(f"{newest.path} belongs to another run ({'; '.join(foreign)}); move it away and resume again")
    for path in run.checkpoints():
        if path.name > newest.path.name:  # else it would count as the newest, and be kept in place of a good one
            os.replace(path, path.with_name(f"{path.name}.damaged"))
            say(f"samgan: {path} cannot be read: it is now {path.name}.damaged")
    by_its_step = newest.step % _every(config) == 0 or newest.step == config.training.total_steps
    due = bool(newest.state.get(DUE, by_its_step))  # checkpoints of earlier versions do not say it
    return _StartingPoint(newest.path, not run.grid_path(newest.images_seen).exists(), due)


def _begin_from(state: TrainingState, path: Path) -> bool:
    """Load the networks of another run's checkpoint, or the generator of a file; tell whether they are of this size."""
    side = state.config.network.resolution
    if path.suffix == MODEL_SUFFIX:
        model = read_model(path, state.device)
        check_start(state.config, model.config)
        for network in filter(None, (state.generator, state.ema_generator)):
            load_smaller(network, model.generator.state_dict())
        return model.config.network.resolution == side
    saved = load_checkpoint(path, device=state.device)
    check_start(state.config, saved.config)
    load_smaller(state.generator, saved.state["generator"])
    load_smaller(state.discriminator, saved.state["discriminator"])
    if state.ema_generator is not None:
        load_smaller(state.ema_generator, saved.sampling_weights)
    return saved.config.network.resolution == side


def _restore(state: TrainingState, path: Path) -> None:
    try:
        state.load_state_dict(load_checkpoint(path, device=state.device).state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SamganError(
            f"{path} does not hold the training state of this configuration ({reason}); move it away and resume again"
        ) from None


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of exiting; a second SIGINT interrupts at once."""
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, *ending_signals())}
    except ValueError:  # not in the main thread: the caller handles signals
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stopping:
    """Whether to stop for a signal: all processes get the same answer after the same step.

    Several processes must ask each other, which costs a message. They do so every `ASK_SECONDS`, counted in steps,
    since their clocks differ.

    Args:
        received: From `_signals`.
        step: Of the state, before the first step.
        device: Of this process.
    """

    def __init__(self, received: list[int], step: int, device: torch.device) -> None:
        self.received, self.device = received, device
        self.asked, self.asked_at = step, time.monotonic()
        self.next = step + 1

    def signal_at(self, step: int, *, ask: bool) -> int:
        """The signal to stop for after this step, or 0. Several processes may learn of it later, unless they `ask`."""
        own = self.received[0] if self.received else 0
        if world_size() == 1:
            return own
        if step < self.next and not ask:
            return 0
        seconds = (time.monotonic() - self.asked_at) / (step - self.asked)
        agreed, slowest = _agree([float(own), seconds], self.device)
        self.asked, self.asked_at = step, time.monotonic()
        self.next = step + max(1, int(ASK_SECONDS / max(slowest, 1e-6)))
        return int(agreed)


def _agree(values: Sequence[float], device: torch.device) -> list[float]:
    """The largest of each value on any process; the same answer on every process."""
    if world_size() == 1:
        return list(values)
    return gather(torch.tensor([values], dtype=torch.float32, device=device)).amax(0).tolist()
