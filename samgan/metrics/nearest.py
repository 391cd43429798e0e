"""Find the nearest image to each of others, by correlation of pixels or by distance of features."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from samgan.errors import SamganError

SIDE = 64
"""Larger images are averaged down to this side before they are compared."""
ALIKE = 0.02
"""Distance below which two images count as one; the nearest two of 5,190 chest X-rays at 64 px are 0.026 apart."""
BLOCK_QUERIES, BLOCK_REFERENCES = 512, 4096
CHUNK_LARGE = 128  # images above SIDE that are float at once


@dataclasses.dataclass(frozen=True)
class Nearest:
    """For each image, the reference image that is nearest to it."""

    distance: Float[Tensor, " n"]
    """Lower is nearer."""
    index: Int[Tensor, " n"]
    """Place among the references."""
    mirrored: Bool[Tensor, " n"]
    """Whether the mirror image of the reference is nearer than the reference."""


def nearest_image(
    images: UInt8[Tensor, "n c h w"],
    references: UInt8[Tensor, "m _ _ _"],
    *,
    mirrored: bool = True,
    shift: int = 1,
    same: bool = False,
) -> Nearest:
    """Find for each image the nearest of all references, by correlation.

        distance(a, b) = 1 - max corr(half(move(a)), half(b))

    corr is Pearson's correlation over pixels and channels, so neither brightness nor contrast counts. The maximum is
    over moves by up to `shift` pixels, and over a and its mirror image. half averages 2x2 pixels, since noise and the
    finest edges hide a copy that is moved by a fraction of a pixel. Images above 64 px are averaged down to 64 px
    first. Every pair is compared; an image of a single grey level is near to none.

    Args:
        images: the images.
        references: the images to search, of the same shape.
        mirrored: whether a mirrored copy is a copy.
        shift: largest move in pixels (of 64), each way.
        same: whether the references are the images themselves; then no image is its own neighbour.

    Returns:
        Distances from 0 (a copy, except for brightness and contrast) to 2.

    Raises:
        SamganError: the shapes differ, or there are too few references.
    """
    if images.shape[1:] != references.shape[1:] or len(references) < 1 + same:
        raise SamganError(f"nearest images: cannot compare {list(images.shape)} with {list(references.shape)}")
    best = torch.full((len(images),), -torch.inf)
    index = torch.zeros(len(images), dtype=torch.long)
    is_mirrored = torch.zeros(len(images), dtype=torch.bool)
    for first, block in _blocks(references, BLOCK_REFERENCES):
        (candidates,) = _standardised(block, shift, [(0, 0)])
        for start, queries in _blocks(images, BLOCK_QUERIES):
            rows = slice(start, start + len(queries))
            for turned in (False, True) if mirrored else (False,):
                similarity = _similarity(queries.flip(-1) if turned else queries, candidates, shift)
                if same:
                    similarity.diagonal(start - first).fill_(-torch.inf)
                value, place = similarity.max(dim=1)
                nearer = value > best[rows]
                best[rows] = torch.where(nearer, value, best[rows])
                index[rows] = torch.where(nearer, place + first, index[rows])
                is_mirrored[rows] = torch.where(nearer, torch.tensor(turned), is_mirrored[rows])
    return Nearest((1 - best).clamp_min(0), index, is_mirrored)


def _similarity(queries: Tensor, candidates: Tensor, shift: int) -> Float[Tensor, "n m"]:
    """The largest correlation over all moves."""
    moves = [(down, across) for down in range(-shift, shift + 1) for across in range(-shift, shift + 1)]
    largest = None
    for moved in _standardised(queries, shift, moves):
        product = moved @ candidates.T
        largest = product if largest is None else torch.maximum(largest, product, out=largest)
    assert largest is not None
    return largest


def _standardised(
    images: UInt8[Tensor, "n c h w"], margin: int, moves: Sequence[tuple[int, int]]
) -> Iterator[Float[Tensor, "n d"]]:
    """The moved images at half their resolution, without the margin, each with mean 0 and length 1."""
    sides = min(images.shape[2], SIDE), min(images.shape[3], SIDE)
    if sides == images.shape[2:]:
        x = images.float()
    else:
        x = torch.cat([F.adaptive_avg_pool2d(part.float(), sides) for part in images.split(CHUNK_LARGE)])
    height, width = (side - 2 * margin for side in sides)
    for down, across in moves:
        part = x[:, :, margin + down : margin + down + height, margin + across : margin + across + width]
        flat = F.avg_pool2d(part, 2).flatten(1)
        flat = flat - flat.mean(dim=1, keepdim=True)
        yield flat / flat.norm(dim=1, keepdim=True).clamp_min(1.0)  # a single grey level is near none


def _blocks(images: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(images), size):
        yield start, images[start : start + size]


def nearest_features(features: Float[Tensor, "n d"], references: Float[Tensor, "m _"]) -> Nearest:
    """Find for each feature vector the nearest of all references, by Euclidean distance.

    The distance is Euclidean, as in precision and recall and in the data-copying test of Meehan et al.: features after
    a ReLU all lie in one orthant, where angles say little.

    Args:
        features: of the images.
        references: of the images to search.

    Returns:
        Distances >= 0, exactly 0 for equal vectors; none is mirrored.

    Raises:
        SamganError: the numbers of features differ, or there are no references.
    """
    if features.shape[1:] != references.shape[1:] or not len(references):
        raise SamganError(f"nearest features: cannot compare {list(features.shape)} with {list(references.shape)}")
    if not len(features):
        return Nearest(torch.zeros(0), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))
    # Shifting both sets changes no distance, and less is lost to cancellation in |x|^2 + |y|^2 - 2 x.y.
    centre = references.double().mean(dim=0)
    x, y = features.double() - centre, references.double() - centre
    squares = y.square().sum(dim=1)
    index = torch.cat([(squares - 2 * (part @ y.T)).argmin(dim=1) for _, part in _blocks(x, BLOCK_QUERIES)])
    distance = (x - y[index]).norm(dim=1)
    return Nearest(distance.float(), index, torch.zeros(len(x), dtype=torch.bool))


def count_repeats(images: UInt8[Tensor, "n c h w"]) -> int:
    """How many images are like an earlier one of the set, by `first_alike`."""
    return int((first_alike(images) != torch.arange(len(images))).sum())


def first_alike(
    images: UInt8[Tensor, "n c h w"], *, distance: float = ALIKE, mirrored: bool = True
) -> Int[Tensor, " n"]:
    """Leave out near-copies within one set: in the order of the set, an image is kept if it is like none kept so far.

    Args:
        images: the set.
        distance: of `nearest_image` without moves, below which two images are alike.
        mirrored: whether a mirrored copy is a copy.

    Returns:
        For each image the place of the first kept image that it is like; its own, if it is kept.
    """
    place = torch.arange(len(images))
    kept: list[Tensor] = []  # standardised vectors, by block
    kept_at: list[Tensor] = []  # and their places
    for start, block in _blocks(images, BLOCK_QUERIES):
        (own,) = _standardised(block, 0, [(0, 0)])
        views = [own, *(_standardised(block.flip(-1), 0, [(0, 0)]) if mirrored else ())]
        for earlier, earlier_at in zip(kept, kept_at, strict=True):
            alike = torch.stack([view @ earlier.T for view in views]).amax(dim=0) > 1 - distance
            hit = alike.any(dim=1) & (place[start : start + len(block)] >= start)
            places = earlier_at[alike.int().argmax(dim=1)]
            place[start : start + len(block)] = torch.where(hit, places, place[start : start + len(block)])
        within = (torch.stack([view @ own.T for view in views]).amax(dim=0) > 1 - distance).numpy()
        is_kept = np.zeros(len(block), dtype=bool)
        for row in range(len(block)):
            if place[start + row] < start:
                continue
            earlier_ones = np.flatnonzero(within[row, :row] & is_kept[:row])
            if len(earlier_ones):
                place[start + row] = start + int(earlier_ones[0])
            else:
                is_kept[row] = True
        chosen = torch.from_numpy(np.flatnonzero(is_kept))
        if len(chosen):
            kept.append(own[chosen])
            kept_at.append(start + chosen)
    return place
