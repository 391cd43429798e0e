"""The training loop: steps, log, snapshots, stopping and resuming."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from samgan.config import RESUMABLE, Config
from samgan.distributed import gather, on_first_process, world_size
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write
from samgan.pictures import SYNTHETIC, image_grid, to_uint8, write_png
from samgan.runs import (
    Checkpoint,
    Run,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    record_best,
    save_checkpoint,
)
from samgan.sampling import generate, labels_like, latents_of_seeds

if TYPE_CHECKING:
    import lightning_fabric

from samgan.training.batches import Sampler, random_generator
from samgan.training.log import _Log, _say
from samgan.training.step import CapturedPasses, TrainingState, captures, train_step

GRID_IMAGES = 64
SCORED_IMAGES = 512

Score = Callable[..., dict[str, Any]]
"""From uint8 [n, c, h, w], and their labels where there are classes, to scores; the first one chooses the best
checkpoint, lower is better."""


class Interrupted(SamganError):
    """A signal asked the run to stop; everything up to its last step is saved."""

    on_all_processes = True

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        return type(self), (self.signal_number, str(self))


def check_fit(config: Config, shape: Sequence[int], processes: int = 1) -> None:
    """Check that images of `shape` (n, c, h, w), network and number of processes fit, before anything is written.

    Raises:
        UsageError: They do not.
    """
    network, batch_size = config.network, config.training.batch_size
    expected = (network.image_channels, network.resolution, network.resolution)
    if tuple(shape[1:]) != expected:
        raise UsageError(f"the network takes images of (channels, height, width) {expected}; got {tuple(shape[1:])}")
    if shape[0] < 2:
        raise UsageError(f"training takes 2 images or more; got {shape[0]}")
    if processes < 1 or batch_size % processes:
        raise UsageError(f"training.batch_size {batch_size} does not divide by {processes} processes")


def check_start(config: Config, saved: Checkpoint) -> None:
    """Check that a run can begin with the networks of a checkpoint, before anything is written.

    Raises:
        UsageError: Its networks have other settings.
    """
    differences = saved.config.differences(config)
    foreign = [f"{key} is {v[0]!r}, not {v[1]!r}" for key, v in differences.items() if key.startswith("network.")]
    if foreign:
        raise UsageError(f"--start: that run has other networks than this one asks for: {'; '.join(foreign)}")


def train(
    config: Config,
    images: np.ndarray,
    run: Run,
    fabric: "lightning_fabric.Fabric",
    *,
    indices: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    resume: bool = False,
    score: Score | None = None,
    tensorboard: bool = False,
    minutes: float | None = None,
    start: Path | None = None,
    watch: Callable[[], bool] | None = None,
    quiet: bool = False,
) -> TrainingState:
    """Train until `training.kimg` or for `minutes`; the run's files are described in `docs/run-folder.md`.

    Args:
        config: What to do; `run` holds the same in `config.json`.
        images: uint8 [n, c, h, w] of `network.resolution` and `network.image_channels`, in memory or memory-mapped.
        run: A run from `Run.create` or `Run.open`.
        fabric: From `samgan.devices.make_fabric`, launched.
        indices: The images to train on; default: all.
        labels: Class of each of `images`, where `network.num_classes` is not 0.
        resume: Continue from the newest readable checkpoint.
        score: Called on generated images at every snapshot; its first score chooses the best checkpoint.
        tensorboard: Also write TensorBoard events.
        minutes: End, with a snapshot, at the first line of the log after so many minutes of training. Those before a
            resume count, halts do not.
        start: A checkpoint of another run whose networks a new run begins with, its averaged generator too; optimizers
            and steps start afresh. A snapshot is written before the first step.
        watch: Called behind every snapshot; True ends the run there.
        quiet: Print no progress.

    Returns:
        The final state, which is also the newest checkpoint.

    Raises:
        UsageError: Images or labels do not fit the network, or the batch the processes.
        SamganError: A loss or weight became NaN or infinite; the last checkpoint is untouched.
        Interrupted: SIGINT or SIGTERM came; the last step is saved.
    """
    check_fit(config, (len(images if indices is None else indices), *images.shape[1:]), world_size())
    training = config.training
    state = TrainingState(config, fabric.device)
    path, cut_off = on_first_process(_starting_point, run, config) if resume else (None, False)
    if path:
        _restore(state, path)
        if not quiet:
            _say(f"continuing from {path.name}, {state.images_seen / 1000:.1f} kimg")
    elif start:
        _begin_from(state, start)
    sampler = Sampler(images, config, fabric.device, indices, labels)
    log = _Log(run, state, tensorboard, minutes, quiet)
    log_every, snapshot_every = training.steps(training.log_every_kimg), training.steps(training.snapshot_every_kimg)
    if state.step == 0:
        real, text = run.path / "grids" / "real.png", "Real images of the training set."
        on_first_process(_write_grid, real, sampler.first(GRID_IMAGES), text)
        if start and not path:
            on_first_process(_snapshot, run, state, sampler.labels, score)
    if cut_off:
        due = state.step % snapshot_every == 0 or state.step == training.total_steps
        on_first_process(_snapshot, run, state, sampler.labels, score if due else None)

    def out_of_time() -> bool:
        return minutes is not None and bool(_agree(int(log.seconds() >= 60 * minutes), fabric.device))

    captured = CapturedPasses(state, fabric.autocast) if captures(fabric.device) else None
    step = partial(train_step, captured=captured) if captured else train_step
    finished = state.step == training.total_steps or (state.step > 0 and out_of_time())
    with _signals() as received, contextlib.closing(log), captured.stream if captured else contextlib.nullcontext():
        while not finished:
            log.add(step(state, sampler(state.step), fabric.autocast))
            flush = state.step % log_every == 0
            finished = state.step == training.total_steps or (flush and out_of_time())
            snapshot = finished or state.step % snapshot_every == 0
            flush = flush or snapshot
            # Several processes must agree to stop, which costs a message, so they ask only when a line is written.
            stop = _agree(received[0] if received else 0, fabric.device) if world_size() == 1 or flush else 0
            if flush or stop:
                log.flush()
            if snapshot or stop:
                on_first_process(_snapshot, run, state, sampler.labels, score if snapshot else None)
                finished = finished or (snapshot and watch is not None and on_first_process(watch))
                log.last = time.monotonic()  # images/s is of steps alone
            if stop and not finished:
                name = signal.Signals(stop).name
                raise Interrupted(stop, f"stopped by {name} at {state.images_seen / 1000:.3f} kimg; --resume continues")
    return state


def _starting_point(run: Run, config: Config) -> tuple[Path | None, bool]:
    """The checkpoint to go on from, and whether the run was killed between writing it and the rest of its snapshot.

    None if the run was cut off before its first checkpoint: it starts at its first step.
    """
    newest = newest_checkpoint(run)
    if newest is None:
        return None, False
    differences = newest.config.differences(config)
    foreign = [
        f"{key} is {values[0]!r}, not {values[1]!r}" for key, values in differences.items() if key not in RESUMABLE
    ]
    if foreign:
        raise SamganError(f"{newest.path} is of another run ({'; '.join(foreign)}); take it away and resume again")
    return newest.path, not run.grid_path(newest.images_seen).exists()


def _begin_from(state: TrainingState, path: Path) -> None:
    """Take the networks of another run's checkpoint."""
    saved = load_checkpoint(path, device=state.device)
    check_start(state.config, saved)
    state.generator.load_state_dict(saved.state["generator"])
    state.discriminator.load_state_dict(saved.state["discriminator"])
    if state.ema_generator is not None:
        state.ema_generator.load_state_dict(saved.sampling_weights)


def _restore(state: TrainingState, path: Path) -> None:
    try:
        state.load_state_dict(load_checkpoint(path, device=state.device).state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SamganError(
            f"{path} does not hold the training state of this configuration ({reason}); take it away and resume again"
        ) from None


def _snapshot(run: Run, state: TrainingState, real_labels: np.ndarray | None, score: Score | None) -> None:
    """Write checkpoint, grid and scores.

    Classes are scored in the proportions of the real images; in the grid they come in turn, and lie side by side.
    """
    bad = state.nonfinite()
    if bad:
        raise SamganError(f"step {state.step}: weight {bad} is NaN or infinite; the last checkpoint is untouched")
    path = run.checkpoint_path(state.step)
    save_checkpoint(path, state.state_dict())
    if score:
        if real_labels is None:
            fake = _images(state, range(SCORED_IMAGES))
            scores = score(fake)
        else:
            order = random_generator(state.config.training.seed, "scored classes", 0)
            labels = labels_like(real_labels, SCORED_IMAGES)[torch.randperm(SCORED_IMAGES, generator=order)]
            scores = score(_images(state, range(SCORED_IMAGES), labels), labels.numpy())
        run.log({"kind": "scores", "step": state.step, "images_seen": state.images_seen, **scores})
        name = next(iter(scores))
        record_best(run, path, name, scores[name])
    prune_checkpoints(run, state.config.training.keep_checkpoints)
    if classes := state.config.network.num_classes:
        seeds = sorted(range(GRID_IMAGES), key=lambda seed: seed % classes)
        shown = _images(state, seeds, torch.tensor(seeds) % classes)
    else:
        shown = fake[:GRID_IMAGES] if score else _images(state, range(GRID_IMAGES))
    _write_grid(run.grid_path(state.images_seen), shown, SYNTHETIC)


def _images(state: TrainingState, seeds: Sequence[int], labels: Tensor | None = None) -> np.ndarray:
    """uint8 images of the averaged generator."""
    latents = latents_of_seeds(seeds, state.config.network.latent_size)
    pyramids = generate(state.sampling_generator, latents, labels)
    return torch.cat([to_uint8(pyramid[-1]) for pyramid in pyramids]).numpy()


def _write_grid(path: Path, images: np.ndarray, description: str) -> None:
    with atomic_write(path) as file:
        write_png(file, image_grid(images), {"Description": description})


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second SIGINT interrupts at once."""
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs us there handles signals
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agree(value: int, device: torch.device) -> int:
    """The largest value of any process; the same answer on every process."""
    if world_size() == 1:
        return value
    return int(gather(torch.tensor([float(value)], device=device)).max())
