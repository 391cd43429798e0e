"""Sheets of many images: interpolations, scales, attention maps."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from samgan.networks import attention_maps
from samgan.pictures import image_grid, to_uint8
from samgan.sampling.images import generate, latents_of_seeds, sample
from samgan.sampling.model import Labels, Model

SHEETS = ("grid", "interpolation", "scales", "attention")


def interpolate(model: Model, seeds: Sequence[int], steps: int, label: int | None = None) -> Float[Tensor, "n c h w"]:
    """`steps` images along the great circle from each seed's latent to the next one's, the last seed included.

    All are of class `label`; default: the first seed's. Latents are spread evenly over a sphere, so straight lines
    would pass through lengths the generator never saw.
    """
    ends = F.normalize(latents_of_seeds(seeds, model.generator.latent_size), dim=1)
    path = []
    for a, b in itertools.pairwise(ends):
        angle = torch.arccos((a @ b).clamp(-1, 1)).clamp(1e-4, math.pi - 1e-4)  # sin(angle) stands below
        for t in np.arange(steps) / steps:
            path.append((torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle))
    latents = torch.stack([*path, ends[-1]])
    labels = model.labels(seeds[:1]) if label is None else torch.tensor([label])
    labels = None if labels is None else labels.expand(len(latents))
    return torch.cat([pyramid[-1] for pyramid in generate(model.generator, latents, labels)])


def scales_sheet(model: Model, seeds: Sequence[int], labels: Labels = None) -> Float[Tensor, "m c h w"]:
    """Every scale of every seed's pyramid, enlarged to full size by repetition: scales in rows, seeds in columns."""
    latents = latents_of_seeds(seeds, model.generator.latent_size)
    pyramids = list(generate(model.generator, latents, model.labels(seeds) if labels is None else labels))
    rows = [torch.cat(scale) for scale in zip(*pyramids, strict=True)]
    side = rows[-1].shape[-1]
    return torch.cat([F.interpolate(row, size=(side, side), mode="nearest") for row in rows])


@torch.inference_mode()
def attention_sheet(model: Model, seeds: Sequence[int], labels: Labels = None) -> Float[Tensor, "m c h w"]:
    """The images of `seeds`, and below them where the generator looks from the image's centre, a row per layer.

    White is the strongest of a map; layers from small to large.
    """
    latents = latents_of_seeds(seeds, model.generator.latent_size)
    labels = model.labels(seeds) if labels is None else labels
    maps = attention_maps(
        model.generator, latents.to(model.device), None if labels is None else labels.to(model.device)
    )
    images = sample(model, seeds, labels)
    rows = [images]
    for side, beta in maps.items():
        centre = beta[:, side * side // 2 + side // 2].float().cpu()
        centre = 2 * centre / centre.amax(dim=1, keepdim=True) - 1
        keys = math.isqrt(centre.shape[1])
        picture = centre.view(-1, 1, keys, keys).expand(-1, images.shape[1], -1, -1)
        rows.append(F.interpolate(picture, size=images.shape[2:], mode="nearest"))
    return torch.cat(rows)


def _sheet(model: Model, seeds: Sequence[int], labels: Labels, name: str) -> np.ndarray:
    """A picture of the first seeds; those of one class side by side, one class after the other."""
    labels = torch.zeros(len(seeds), dtype=torch.long) if labels is None else labels
    kinds = len(labels.unique())
    chosen = labels[: {"grid": 64, "interpolation": 8 + kinds}.get(name, 8)].sort(stable=True)
    few, own = [seeds[i] for i in chosen.indices], chosen.values if model.classes else None
    columns: int | None = 8
    if name == "interpolation":
        rows = []
        for label in chosen.values.unique().tolist():
            ends = [one for one, its in zip(few, chosen.values, strict=True) if its == label]
            ends = ends if len(ends) > 1 else [ends[0], ends[0] + 1]
            rows.append(interpolate(model, ends, 8, label if model.classes else None)[:-1])
        images = torch.cat(rows)
    elif name == "grid":
        images, columns = sample(model, few, own), None
    else:
        images = {"scales": scales_sheet, "attention": attention_sheet}[name](model, few, own)
        columns = len(few)
    return image_grid(to_uint8(images).numpy(), columns)
