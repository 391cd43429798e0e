"""From seeds to images: seeds -> latents -> pyramid of the averaged generator. A seed always gives the same image."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from samgan.networks import Generator, Pyramid
from samgan.sampling.model import Labels, Model

# Every forward pass has this many latents; the last one is padded. So the arithmetic, and with it the last bit of a
# pixel, does not depend on the number of images.
FORWARD_BATCH = 32


def latents_of_seeds(seeds: Sequence[int], latent_size: int) -> Float[Tensor, "n latent"]:
    """One N(0, 1) latent per seed, drawn on the CPU, each from its own generator."""
    return torch.stack([torch.randn(latent_size, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])


def labels_like(labels: Int[np.ndarray, " n"], count: int) -> Int[Tensor, " count"]:
    """`count` labels in the proportions of `labels`, in ascending order: every (n / count)-th of them."""
    return torch.from_numpy(np.sort(labels)[np.arange(count) * len(labels) // count])


@torch.inference_mode()
def generate(generator: Generator, latents: Float[Tensor, "n latent"], labels: Labels = None) -> Iterator[Pyramid]:
    """Yield CPU pyramids of up to `FORWARD_BATCH` images, in the order of `latents`; values are not clipped."""
    device = next(generator.parameters()).device
    for start in range(0, len(latents), FORWARD_BATCH):
        chunk = latents[start : start + FORWARD_BATCH]
        padding = FORWARD_BATCH - len(chunk)
        own = None if labels is None else F.pad(labels[start : start + FORWARD_BATCH], (0, padding)).to(device)
        pyramid = generator(F.pad(chunk, (0, 0, 0, padding)).to(device), own)
        yield [images[: len(chunk)].float().cpu() for images in pyramid]


def sample(model: Model, seeds: Sequence[int], labels: Labels = None) -> Float[Tensor, "n c h w"]:
    """The full-size images of `seeds`, float around [-1, 1] on the CPU; without `labels`, classes take turns."""
    return torch.cat([images for _, images in sample_batches(model, seeds, labels)])


def sample_batches(
    model: Model, seeds: Sequence[int], labels: Labels = None
) -> Iterator[tuple[Sequence[int], Float[Tensor, "n c h w"]]]:
    """Yield (seeds, images), up to `FORWARD_BATCH` at a time; the same images as `sample`, without keeping them all."""
    labels = model.labels(seeds) if labels is None else labels
    for start in range(0, len(seeds), FORWARD_BATCH):
        few = seeds[start : start + FORWARD_BATCH]
        own = None if labels is None else labels[start : start + FORWARD_BATCH]
        (pyramid,) = generate(model.generator, latents_of_seeds(few, model.generator.latent_size), own)
        yield few, pyramid[-1]
