"""Snapshots of a run: a checkpoint, a grid of images, and scores that choose the best checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from samgan.errors import SamganError
from samgan.files import atomic_write
from samgan.pictures import SYNTHETIC, image_grid, to_uint8, write_png
from samgan.runs import Run, prune_checkpoints, record_best, save_checkpoint
from samgan.sampling import generate, labels_like, latents_of_seeds
from samgan.training.batches import Sampler, random_generator
from samgan.training.loggers import Loggers
from samgan.training.state import TrainingState

GRID_IMAGES = 64
SCORED_IMAGES = 512


@dataclass(frozen=True)
class Scorer:
    """How generated images are scored at a snapshot."""

    chooses: str
    """Name of the score that chooses the best checkpoint; lower is better."""
    score: Callable[[UInt8[np.ndarray, "n c h w"], Int[np.ndarray, " n"] | None], dict[str, Any]]
    """Takes generated images and their classes, or None without classes; returns the scores for the log."""


def snapshot(
    run: Run, state: TrainingState, real_labels: np.ndarray | None, scorer: Scorer | None, loggers: Loggers
) -> None:
    """Write checkpoint, scores and grid.

    The scored images have classes in the same proportions as the real images. The grid shows all classes in
    equal shares, with the images of each class side by side.

    Args:
        run: The run's folder.
        state: The state to save.
        real_labels: Classes of the training images; None without classes.
        scorer: How to score; None writes no scores.
        loggers: Are given scores and grid, unless a snapshot of this step has written them before.

    Raises:
        SamganError: A weight is NaN or infinite.
    """
    bad = state.nonfinite()
    if bad:
        raise SamganError(
            f"step {state.step}: weight {bad} is NaN or infinite; training stopped, the last checkpoint is intact"
        )
    path = run.checkpoint_path(state.step)
    save_checkpoint(path, state.state_dict())
    fake = None
    if scorer:
        labels = None if real_labels is None else _scored_labels(state, real_labels)
        fake = _images(state, range(SCORED_IMAGES), labels)
        scores = scorer.score(fake, None if labels is None else labels.numpy())
        line = {"kind": "scores", "step": state.step, "images_seen": state.images_seen, **scores}
        run.log(line)
        loggers.line(line)
        record_best(run, path, scorer.chooses, scores[scorer.chooses])
    prune_checkpoints(run, state.config.training.keep_checkpoints)
    if classes := state.config.network.num_classes:
        seeds = sorted(range(GRID_IMAGES), key=lambda seed: seed % classes)
        shown = _images(state, seeds, torch.tensor(seeds) % classes)
    else:
        shown = _images(state, range(GRID_IMAGES)) if fake is None else fake[:GRID_IMAGES]
    path = run.grid_path(state.images_seen)
    is_new = not path.exists()
    _write_grid(path, shown, SYNTHETIC)
    if is_new:
        loggers.grid(state.images_seen, image_grid(shown))


def write_real_grid(run: Run, sampler: Sampler) -> None:
    """Write the grid of real images, for comparison with the other grids."""
    _write_grid(run.path / "grids" / "real.png", sampler.first(GRID_IMAGES), "Real images of the training set.")


def _scored_labels(state: TrainingState, real_labels: np.ndarray) -> Int[Tensor, " n"]:
    order = random_generator(state.config.training.seed, "scored classes", 0)
    return labels_like(real_labels, SCORED_IMAGES)[torch.randperm(SCORED_IMAGES, generator=order)]


def _images(state: TrainingState, seeds: Sequence[int], labels: Tensor | None = None) -> np.ndarray:
    """Return uint8 images of the averaged generator."""
    latents = latents_of_seeds(seeds, state.config.network.latent_size)
    pyramids = generate(state.sampling_generator, latents, labels)
    return torch.cat([to_uint8(pyramid[-1]) for pyramid in pyramids]).numpy()


def _write_grid(path: Path, images: np.ndarray, description: str) -> None:
    with atomic_write(path) as file:
        write_png(file, image_grid(images), {"Description": description})
