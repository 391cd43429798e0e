"""Sheets of many images: interpolations, scales, attention maps."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from samgan.networks import AliasFreeBlock, Generator, attention_maps
from samgan.pictures import grid_images, image_grid, to_uint8
from samgan.sampling.images import generate, latents_of_seeds, sample
from samgan.sampling.model import Labels, Model

SHEET_IMAGES, STEPS = 8, 8


def interpolate(model: Model, seeds: Sequence[int], steps: int, label: int | None = None) -> Float[Tensor, "n c h w"]:
    """`steps` images along the great circle from each seed's latent to the next seed's, including the last seed.

    All have class `label`; default: the class of the first seed. Latents lie evenly on a sphere, so straight lines
    would pass through lengths that the generator never saw.
    """
    ends = F.normalize(latents_of_seeds(seeds, model.generator.latent_size), dim=1)
    path = []
    for a, b in itertools.pairwise(ends):
        angle = torch.arccos((a @ b).clamp(-1, 1)).clamp(1e-4, math.pi - 1e-4)  # sin(angle) is a divisor
        for t in np.arange(steps) / steps:
            path.append((torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle))
    latents = torch.stack([*path, ends[-1]])
    labels = model.labels(seeds[:1]) if label is None else torch.tensor([label])
    labels = None if labels is None else labels.expand(len(latents))
    return torch.cat([pyramid[-1] for pyramid in generate(model.generator, latents, labels)])


def neighbours(
    model: Model, seed: int, count: int, degrees: float, label: int | None = None
) -> Float[Tensor, "n c h w"]:
    """`count` images of latents that lie `degrees` away from that of a seed, each in a direction of its own.

    Directions are at right angles to the latent, and drawn from the seed: the same seed has the same neighbours, and
    more of them begin with fewer. Latents of two seeds are about 90 degrees apart.

    All have class `label`; default: the class of the seed.
    """
    draw = torch.Generator().manual_seed(seed)
    centre, *directions = (torch.randn(model.generator.latent_size, generator=draw) for _ in range(1 + count))
    centre = F.normalize(centre, dim=0)  # the first draw is the latent of the seed; the generator scales latents itself
    across = F.normalize(torch.stack([d - (d @ centre) * centre for d in directions]), dim=1)
    angle = math.radians(degrees)
    latents = math.cos(angle) * centre + math.sin(angle) * across
    labels = model.labels([seed]) if label is None else torch.tensor([label])
    labels = None if labels is None else labels.expand(count)
    return torch.cat([pyramid[-1] for pyramid in generate(model.generator, latents, labels)])


def scales_sheet(model: Model, seeds: Sequence[int], labels: Labels = None) -> Float[Tensor, "m c h w"]:
    """Every scale of each seed's pyramid, enlarged by repeating pixels; a row per scale, a column per seed."""
    latents = latents_of_seeds(seeds, model.generator.latent_size)
    pyramids = list(generate(model.generator, latents, model.labels(seeds) if labels is None else labels))
    rows = [torch.cat(scale) for scale in zip(*pyramids, strict=True)]
    side = rows[-1].shape[-1]
    return torch.cat([F.interpolate(row, size=(side, side), mode="nearest") for row in rows])


@torch.no_grad()
def attention_sheet(model: Model, seeds: Sequence[int], labels: Labels = None) -> Float[Tensor, "m c h w"]:
    """The images of `seeds`; below them, a row per layer shows where the generator attends to from the image's centre.

    White is the maximum of a map. Layers are in order of resolution, smallest first.
    """
    latents = latents_of_seeds(seeds, model.generator.latent_size)
    labels = model.labels(seeds) if labels is None else labels
    images = sample(model, seeds, labels)
    maps = attention_maps(
        model.generator, latents.to(model.device), None if labels is None else labels.to(model.device), from_centre=True
    )
    rows = [images]
    for resolution, beta in maps.items():
        centre = beta[:, 0].float().cpu()
        centre = 2 * centre / centre.amax(dim=1, keepdim=True) - 1
        keys = math.isqrt(centre.shape[1])
        margin = round(keys * _margin(model.generator, resolution))
        inner = slice(margin, keys - margin)
        picture = centre.view(-1, 1, keys, keys)[:, :, inner, inner].expand(-1, images.shape[1], -1, -1)
        rows.append(F.interpolate(picture, size=images.shape[2:], mode="nearest"))
    return torch.cat(rows)


def _margin(generator: Generator, resolution: int) -> float:
    """How much of a side of a map of attention lies beyond the image, on either side."""
    block = generator.blocks[resolution.bit_length() - 3]  # 4 px is the first
    return block.attended.margin / block.attended.side if isinstance(block, AliasFreeBlock) else 0.0


def _chosen(model: Model, seeds: Sequence[int], labels: Labels, count: int) -> tuple[list[int], Labels]:
    """The first seeds, ordered by class, and their classes (None without classes)."""
    known = torch.zeros(len(seeds), dtype=torch.long) if labels is None else labels
    chosen = known[:count].sort(stable=True)
    return [seeds[i] for i in chosen.indices], chosen.values if model.classes else None


def _picture(images: Tensor, columns: int | None = None) -> UInt8[np.ndarray, "c h w"]:
    return image_grid(to_uint8(images).numpy(), columns)


def _grid(model: Model, seeds: Sequence[int], labels: Labels) -> UInt8[np.ndarray, "c h w"]:
    """Images of the first seeds."""
    return _picture(sample(model, *_chosen(model, seeds, labels, grid_images(model.config.network.resolution))))


def _interpolation(model: Model, seeds: Sequence[int], labels: Labels) -> UInt8[np.ndarray, "c h w"]:
    """From seed to seed of one class, in rows."""
    kinds = 1 if labels is None else len(labels.unique())
    few, own = _chosen(model, seeds, labels, STEPS + kinds)
    rows = []
    for label in [None] if own is None else own.unique().tolist():
        ends = few if own is None else [seed for seed, its in zip(few, own, strict=True) if its == label]
        ends = ends if len(ends) > 1 else [ends[0], ends[0] + 1]
        rows.append(interpolate(model, ends, STEPS, label)[:-1])
    return _picture(torch.cat(rows), STEPS)


def _scales(model: Model, seeds: Sequence[int], labels: Labels) -> UInt8[np.ndarray, "c h w"]:
    few, own = _chosen(model, seeds, labels, SHEET_IMAGES)
    return _picture(scales_sheet(model, few, own), len(few))


def _attention(model: Model, seeds: Sequence[int], labels: Labels) -> UInt8[np.ndarray, "c h w"]:
    few, own = _chosen(model, seeds, labels, SHEET_IMAGES)
    return _picture(attention_sheet(model, few, own), len(few))


Sheet = Callable[[Model, Sequence[int], Labels], UInt8[np.ndarray, "c h w"]]
SHEETS: dict[str, Sheet] = {
    "grid": _grid,
    "interpolation": _interpolation,
    "scales": _scales,
    "attention": _attention,
}
"""By name: a function that makes a picture of the first seeds, given their classes."""
