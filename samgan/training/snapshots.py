"""Snapshots of a run: a checkpoint, a grid of images, and scores that choose the best checkpoint."""

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from samgan.config import Config
from samgan.distributed import rank, world_size
from samgan.errors import SamganError
from samgan.files import atomic_write
from samgan.pictures import SYNTHETIC, grid_images, image_grid, to_uint8, write_png
from samgan.runs import Run, prune_checkpoints, record_best, save_checkpoint
from samgan.sampling import generate, labels_like, latents_of_seeds
from samgan.training.batches import Sampler, random_generator
from samgan.training.loggers import Loggers
from samgan.training.schedules import sides_at
from samgan.training.state import TrainingState

SCORED_IMAGES = 512
DUE = "snapshot_due"
"""The entry of a checkpoint that says whether its snapshot is one to score and to watch, should the run be killed."""


@dataclass(frozen=True)
class Scorer:
    """How generated images are scored at a snapshot."""

    chooses: str
    """Name of the score that chooses the best checkpoint; lower is better."""
    score: Callable[[UInt8[np.ndarray, "n c h w"], Int[np.ndarray, " n"] | None], dict[str, Any]]
    """Takes generated images and their classes, or None without classes; returns the scores for the log.

    It may be called in another thread, while training goes on: it must not change anything that training uses.
    """


@dataclass(frozen=True)
class _Begun:
    """A snapshot whose checkpoint is written, and whose scores are being computed."""

    checkpoint: Path
    step: int
    images_seen: int
    shown: UInt8[np.ndarray, "n c h w"]
    """The images of the grid."""
    due: bool
    score: Callable[[], dict[str, Any]] | None
    """Returns the scores, when they are done if another thread computes them."""
    future: "Future[dict[str, Any]] | None"
    """Of the other thread, if it computes them."""


class Snapshots:
    """Takes the snapshots of a run; where a core is spare, their images are scored on it while training goes on.

    Training waits for the checkpoint and for the images of that moment. The other thread only computes. All files are
    written, and all loggers called, in the thread of the training: at the next line of the log that finds the scores
    done, and always before the next snapshot. So at most one snapshot is unfinished, the one of the newest checkpoint.
    It has no grid yet, and a run that was killed then finishes it on resume.

    Args:
        run: The run's folder.
        state: What to save.
        real_labels: Classes of the training images; None without classes.
        loggers: Are given scores and grids, unless a snapshot of the same step has written them before.
        scorer: How to score; None writes no scores.
        watch: Called after every snapshot that was due; True ends the run.
        at_once: Whether training waits for the scores even if a core is spare.
        complete: Whether the networks are complete before the first step: those of another run, of the same size.
    """

    def __init__(
        self,
        run: Run,
        state: TrainingState,
        real_labels: np.ndarray | None,
        loggers: Loggers,
        scorer: Scorer | None = None,
        watch: Callable[[], bool] | None = None,
        at_once: bool = False,
        complete: bool = False,
    ) -> None:
        self.run, self.state, self.real_labels, self.loggers = run, state, real_labels, loggers
        self.scorer, self.watch, self.complete = scorer, watch, complete
        self.begun: _Begun | None = None
        beside = rank() == 0 and scorer is not None and not at_once and spare_core(state.device)
        self.worker = _one_thread() if beside else None

    def __enter__(self) -> "Snapshots":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish what was begun before an error, which is the one to report; not before a second SIGINT."""
        if isinstance(error, Exception):
            with contextlib.suppress(Exception):
                self.finish()
        if self.worker is not None:
            self.worker.shutdown(wait=False)

    def take(self, due: bool = True, wait: bool = False) -> bool:
        """Write the checkpoint, and begin the rest.

        The scored images have classes in the same proportions as the real images. The grid shows all classes in
        equal shares, with the images of each class side by side.

        Args:
            due: Whether to score and to watch; otherwise a signal asked for this snapshot.
            wait: Finish it at once.

        Returns:
            Whether the watch ends the run, after this snapshot or the one before.

        Raises:
            SamganError: A weight is NaN or infinite.
        """
        ended = self.finish()
        state = self.state
        bad = state.nonfinite()
        if bad:
            raise SamganError(
                f"step {state.step}: weight {bad} is NaN or infinite; training stopped, the last checkpoint is intact"
            )
        path = self.run.checkpoint_path(state.step)
        save_checkpoint(path, {**state.state_dict(), DUE: due})
        fake = future = None
        score: Callable[[], dict[str, Any]] | None = None
        if due and self.scorer:
            labels = None if self.real_labels is None else _scored_labels(state, self.real_labels)
            fake = _images(state, range(SCORED_IMAGES), labels)
            score = partial(self.scorer.score, fake, None if labels is None else labels.numpy())
            if self.worker is not None:
                future = self.worker.submit(score)
                score = future.result
        self.begun = _Begun(path, state.step, state.images_seen, _shown(state, fake), due, score, future)
        if wait or ended or future is None:
            ended = self.finish() or ended
        return ended

    def finish(self, wait: bool = True) -> bool:
        """Write scores, best checkpoint and grid of the snapshot that was begun, if there is one.

        Args:
            wait: Wait for its scores; otherwise leave it for later if they are not done.

        Returns:
            Whether the watch ends the run.
        """
        begun = self.begun
        if begun is None or not (wait or begun.future is None or begun.future.done()):
            return False
        self.begun = None
        run, loggers = self.run, self.loggers
        if begun.score and self.scorer:
            scores = begun.score()
            line = {"kind": "scores", "step": begun.step, "images_seen": begun.images_seen, **scores}
            run.log(line)
            loggers.line(line)
            if self.complete if begun.images_seen == 0 else in_full(self.state.config, begun.images_seen):
                record_best(run, begun.checkpoint, self.scorer.chooses, scores[self.scorer.chooses])
        prune_checkpoints(run, self.state.config.training.keep_checkpoints)
        path = run.grid_path(begun.images_seen)
        is_new = not path.exists()
        _write_grid(path, begun.shown, SYNTHETIC)
        if is_new:
            loggers.grid(begun.images_seen, image_grid(begun.shown))
        return begun.due and self.watch is not None and self.watch()


def in_full(config: Config, images_seen: int) -> bool:
    """Whether the last step trained the largest images; enlarged smaller ones may score well for a while."""
    return sides_at(config, images_seen - config.training.batch_size)[-1] == config.network.resolution


def spare_core(device: torch.device) -> bool:
    """Whether training leaves a core of this machine free.

    Threads of torch on all cores wait for each other in every operation: another thread beside them costs more than
    it saves (benchmarks/snapshot.md).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return cores > world_size() * threads


def _one_thread() -> ThreadPoolExecutor:
    """Another thread, in which torch has one thread: it takes one core."""
    threads = torch.get_num_threads()
    worker = ThreadPoolExecutor(1, "scores")
    worker.submit(torch.set_num_threads, 1).result()
    worker.submit(torch.get_num_threads).result()  # a thread takes the number at its first use of torch, and keeps it
    torch.set_num_threads(threads)  # of this thread, and of those that are yet to be started
    return worker


def write_real_grid(run: Run, sampler: Sampler) -> None:
    """Write the grid of real images, for comparison with the other grids."""
    _write_grid(
        run.path / "grids" / "real.png",
        sampler.first(grid_images(run.config.network.resolution)),
        "Real images of the training set.",
    )


def _scored_labels(state: TrainingState, real_labels: np.ndarray) -> Int[Tensor, " n"]:
    order = random_generator(state.config.training.seed, "scored classes", 0)
    return labels_like(real_labels, SCORED_IMAGES)[torch.randperm(SCORED_IMAGES, generator=order)]


def _shown(state: TrainingState, scored: np.ndarray | None) -> np.ndarray:
    """The images of the grid; without classes, the first of those that are scored."""
    count = grid_images(state.config.network.resolution)
    if classes := state.config.network.num_classes:
        seeds = sorted(range(count), key=lambda seed: seed % classes)
        return _images(state, seeds, torch.tensor(seeds) % classes)
    return _images(state, range(count)) if scored is None else scored[:count]


def _images(state: TrainingState, seeds: Sequence[int], labels: Tensor | None = None) -> np.ndarray:
    """Return uint8 images of the averaged generator."""
    latents = latents_of_seeds(seeds, state.config.network.latent_size)
    pyramids = generate(state.sampling_generator, latents, labels)
    return torch.cat([to_uint8(pyramid[-1]) for pyramid in pyramids]).numpy()


def _write_grid(path: Path, images: np.ndarray, description: str) -> None:
    with atomic_write(path) as file:
        write_png(file, image_grid(images), {"Description": description})
