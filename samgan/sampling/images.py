"""From seeds to images: seeds -> latents -> pyramid of the averaged generator. A seed always gives the same image."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from samgan.errors import UsageError
from samgan.networks import Generator, Pyramid
from samgan.sampling.model import Labels, Model

FORWARD_BATCH = 32
PIXELS_AT_ONCE = FORWARD_BATCH * 256**2


def forward_batch(generator: Generator) -> int:
    """How many latents every forward pass has; the last one is padded.

    So the arithmetic, and with it the last bit of a pixel, does not depend on the number of images. Above 256 px there
    are fewer, since features take a hundred times the memory of their images.
    """
    return min(FORWARD_BATCH, PIXELS_AT_ONCE // generator.resolution**2)


MEAN_SEEDS = 4096
"""The mean style is that of so many seeds, from 0 on."""


def latents_of_seeds(seeds: Sequence[int], latent_size: int) -> Float[Tensor, "n latent"]:
    """One N(0, 1) latent per seed, drawn on the CPU, each from its own generator."""
    return torch.stack([torch.randn(latent_size, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])


def labels_like(labels: Int[np.ndarray, " n"], count: int) -> Int[Tensor, " count"]:
    """`count` labels in the proportions of `labels`, in ascending order: every (n / count)-th of them."""
    return torch.from_numpy(np.sort(labels)[np.arange(count) * len(labels) // count])


def truncated(model: Model, psi: float) -> Model:
    """A model whose images are nearer to the mean one: less varied, and more often free of faults.

    Each style is moved towards the mean style of the seeds below `MEAN_SEEDS`, of its own class if there are classes.

    Args:
        model: From `open_model`.
        psi: 1 changes nothing; with 0, all images (of a class) have the mean style.

    Raises:
        UsageError: psi is not from 0 to 1, or the generator has no styles.

    Source: Karras et al. 2019 (StyleGAN), appendix B.
    """
    if not 0 <= psi <= 1:
        raise UsageError(f"--truncation {psi:g}: expected a number from 0 (the mean style) to 1 (no truncation)")
    if psi == 1:
        return model
    if not model.generator.has_styles:
        raise UsageError(
            f"--truncation {psi:g}: the generator of preset {model.config.preset} has no styles (modulated or "
            "alias-free blocks with network.mapping_layers of 1 or more) to move towards their mean; leave "
            "--truncation out, or take a model that has them, such as one of samgan-plus"
        )
    latents = latents_of_seeds(range(MEAN_SEEDS), model.generator.latent_size).to(model.device)
    return dataclasses.replace(model, generator=model.generator.truncated(psi, latents), truncation=float(psi))


@torch.no_grad()  # not inference mode: a classifier may be trained on the images
def generate(generator: Generator, latents: Float[Tensor, "n latent"], labels: Labels = None) -> Iterator[Pyramid]:
    """Yield CPU pyramids of up to `forward_batch` images, in the order of `latents`; values are not clipped.

    Raises:
        UsageError: Labels are missing or out of range, or were given to a generator without classes.
    """
    _check_labels(generator, labels)
    device, at_once = next(generator.parameters()).device, forward_batch(generator)
    for start in range(0, len(latents), at_once):
        chunk = latents[start : start + at_once]
        padding = at_once - len(chunk)
        own = None if labels is None else F.pad(labels[start : start + at_once], (0, padding)).to(device)
        pyramid = generator(F.pad(chunk, (0, 0, 0, padding)).to(device), own)
        yield [images[: len(chunk)].float().cpu() for images in pyramid]


def _check_labels(generator: Generator, labels: Labels) -> None:
    if generator.embed is None:
        if labels is not None:
            raise UsageError("labels: the generator was trained without classes, but labels were given; leave them out")
        return
    expected = f"labels: expected whole numbers from 0 to {generator.embed.num_embeddings - 1}, one for each image"
    if labels is None:
        raise UsageError(f"{expected}, found none")
    wrong = labels[(labels < 0) | (labels >= generator.embed.num_embeddings)]
    if len(wrong):
        raise UsageError(f"{expected}, found {wrong[0]}")


def sample(model: Model, seeds: Sequence[int], labels: Labels = None) -> Float[Tensor, "n c h w"]:
    """The full-size images of `seeds`, float around [-1, 1] on the CPU; without `labels`, classes take turns."""
    return torch.cat([images for _, images in sample_batches(model, seeds, labels)])


def sample_batches(
    model: Model, seeds: Sequence[int], labels: Labels = None
) -> Iterator[tuple[Sequence[int], Float[Tensor, "n c h w"]]]:
    """Yield (seeds, images), up to `forward_batch` at a time; the same images as `sample`, without keeping them all."""
    labels = model.labels(seeds) if labels is None else labels
    at_once = forward_batch(model.generator)
    for start in range(0, len(seeds), at_once):
        few = seeds[start : start + at_once]
        own = None if labels is None else labels[start : start + at_once]
        (pyramid,) = generate(model.generator, latents_of_seeds(few, model.generator.latent_size), own)
        yield few, pyramid[-1]
