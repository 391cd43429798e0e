"""Signs that a generator gives its training images back: nearest neighbours, beside those of held-out real images."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy import special, stats
from torch import Tensor
from torch.nn import functional as F

from samgan.errors import SamganError

SIDE = 64
"""Larger images are averaged down to this side before they are compared."""
ALIKE = 0.02
"""Distance below which two images count as one; no two of 5,190 chest X-rays at 64 px are that near (0.026)."""
PERCENTILE = 0.01
LEVEL = 0.95
PERMUTATIONS = 2000
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
    """Whether the reference is nearer turned left to right than as it is."""


class Share(NamedTuple):
    """A share of images with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Sign:
    """A share of synthetic images, beside what it would be of a generator that knows nothing of its training images."""

    share: Share
    expected: Share
    """The interval holds the share of as many images in 95 % of cases."""
    count: int
    threshold: float = math.inf
    """Distance below which an image counts."""

    @property
    def found(self) -> bool:
        """Whether the share is above what is expected, by more than chance."""
        return self.share.value > self.expected.high


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

    corr is Pearson's over pixels and channels, so neither brightness nor contrast counts; the maximum is over moves by
    up to `shift` pixels, and a turned left to right as well; half averages 2x2 pixels, since noise and the finest edges
    hide a copy that is moved by a fraction of a pixel. Images above 64 px are averaged down to 64 px first. Every pair
    is compared; an image of one grey is near to none.

    Args:
        images: the images to look up.
        references: the images to find, of the same shape.
        mirrored: whether a mirrored copy is a copy.
        shift: largest move in pixels (of 64), each way.
        same: the references are the images themselves: none is its own neighbour.

    Returns:
        Distances 0 (a copy but for brightness and contrast) to 2.

    Raises:
        SamganError: the shapes differ, or there is nothing to find.
    """
    if images.shape[1:] != references.shape[1:] or len(references) < 1 + same:
        raise SamganError(f"nearest images: {list(images.shape)} cannot be looked up among {list(references.shape)}")
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
    """The images at half their resolution, moved, without what has no counterpart, each of mean 0 and length 1."""
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
        yield flat / flat.norm(dim=1, keepdim=True).clamp_min(1.0)  # one grey is near none


def _blocks(images: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(images), size):
        yield start, images[start : start + size]


def nearest_features(features: Float[Tensor, "n d"], references: Float[Tensor, "m _"]) -> Nearest:
    """Find for each feature vector the nearest of all references, by Euclidean distance.

    Euclidean, as precision and recall and the data-copying test of Meehan et al. take it: features behind a ReLU all
    point into one corner, where angles say little.

    Args:
        features: of the images to look up.
        references: of the images to find.

    Returns:
        Distances >= 0, exactly 0 for equal vectors; none is mirrored.

    Raises:
        SamganError: the numbers of features differ, or there is nothing to find.
    """
    if features.shape[1:] != references.shape[1:] or not len(references):
        raise SamganError(f"nearest features: {list(features.shape)} cannot be looked up in {list(references.shape)}")
    # Distances do not change when both sets move together, and the cancellation in |x|^2 + |y|^2 - 2 x.y shrinks.
    centre = references.double().mean(dim=0)
    x, y = features.double() - centre, references.double() - centre
    squares = y.square().sum(dim=1)
    index = torch.cat([(squares - 2 * (part @ y.T)).argmin(dim=1) for _, part in _blocks(x, BLOCK_QUERIES)])
    distance = (x - y[index]).norm(dim=1)
    return Nearest(distance.float(), index, torch.zeros(len(x), dtype=torch.bool))


def first_alike(
    images: UInt8[Tensor, "n c h w"], *, distance: float = ALIKE, mirrored: bool = True
) -> Int[Tensor, " n"]:
    """Leave out near-copies within one set, in its order: an image is kept if it is like none that was kept before.

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


def share_of(count: int, total: int) -> Share:
    """A share with its 95 % interval by Wilson's score, which holds for shares near 0 and 1 too.

    Source: Wilson 1927 (doi:10.1080/01621459.1927.10502953).
    """
    z = float(special.ndtri((1 + LEVEL) / 2))
    value = count / total
    middle = (count + z**2 / 2) / (total + z**2)
    half = z / (total + z**2) * math.sqrt(total * value * (1 - value) + z**2 / 4)
    # At a share of 0 or 1 rounding would leave the bound on the wrong side of it.
    return Share(value, min(max(middle - half, 0.0), value), max(min(middle + half, 1.0), value))


def closer_than_held_out(
    distances: Float[Tensor, " n"], held_out: Float[Tensor, " m"], *, groups: Sequence[str] | None = None
) -> Sign:
    """Count the synthetic images that are closer to the training set than the closest 1 % of held-out real ones.

        threshold = k-th smallest held-out distance,   k = floor((m + 1) / 100), 1 at least
        expected share = k / (m + 1)

    If synthetic and held-out images were of one distribution, the number would be beta-binomial with parameters n, k
    and m + 1 - k, whatever the distances: so the interval allows for the chance in which images were held out. Images
    of one patient count as one there: k and m + 1 - k are multiplied with patients / images. A share of 1 % exists
    from 99 held-out images on; of fewer, the closest one is the threshold.

    A larger share is a sign, no proof: smooth images are closer to everything.

    Args:
        distances: of synthetic images to the nearest training image.
        held_out: of held-out real images to the nearest training image, in the same measure.
        groups: the patient of each held-out image; default: each image by itself.

    Raises:
        SamganError: no images.
    """
    total, m = len(distances), len(held_out)
    if not total or not m:
        raise SamganError(f"closeness needs synthetic and held-out images, there are {total} and {m}")
    rank = max(1, math.floor(PERCENTILE * (m + 1)))
    threshold = float(held_out.sort().values[rank - 1])
    count = int((distances < threshold).sum())
    weight = 1.0 if groups is None else len(set(groups)) / m
    chance = stats.betabinom(total, rank * weight, (m + 1 - rank) * weight)
    low, high = (float(bound) / total for bound in chance.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Sign(share_of(count, total), Share(rank / (m + 1), low, high), count, threshold)


def nearest_is_training(
    training: Nearest,
    held_out: Nearest,
    training_groups: Sequence[str],
    held_out_groups: Sequence[str],
    *,
    seed: int = 0,
) -> Sign:
    """Count the synthetic images whose nearest real image, of training and held-out ones together, is a training image.

    A generator that knows nothing of single training images has no reason to come closer to them than to held-out ones,
    however smooth its images are: the share is that of training images among the real ones. The interval is of 2,000
    other splits of the same patients, since a few real images may be the nearest of many.

    Args:
        training: of each synthetic image, its nearest training image.
        held_out: of the same, its nearest held-out image, in the same measure.
        training_groups: the patient of each training image.
        held_out_groups: the patient of each held-out image.
        seed: of the splits.

    Raises:
        SamganError: no images.

    Source: Platzer and Reutterer 2021, section 2.2 (arXiv:2104.00635), there with two sets of equal size.
    """
    total, n, m = len(training.distance), len(training_groups), len(held_out_groups)
    if not total or not n or not m:
        raise SamganError(f"nearness needs synthetic, training and held-out images, there are {total}, {n} and {m}")
    is_training = training.distance < held_out.distance
    count = int(is_training.sum())
    _, group = np.unique([*training_groups, *held_out_groups], return_inverse=True)
    nearest = torch.where(is_training, training.index, n + held_out.index).numpy()
    hits, sizes = np.bincount(group[nearest], minlength=group.max() + 1), np.bincount(group)
    draw = np.random.default_rng(seed)
    shares = []
    for _ in range(PERMUTATIONS):
        order = draw.permutation(len(sizes))
        split = np.abs(np.cumsum(sizes[order]) - m).argmin() + 1
        shares.append(1 - hits[order[:split]].sum() / total)
    low, high = (float(bound) for bound in np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Sign(share_of(count, total), Share(n / (n + m), low, high), count)


def membership_auc(
    members: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " m"],
    member_groups: Sequence[str] | None = None,
    other_groups: Sequence[str] | None = None,
) -> Share:
    """Area under the ROC curve of an attack that takes images of a high score for training images.

        AUC = P(score of a training image > score of another one) + P(equal) / 2

    The interval is DeLong's; images of one patient are taken together, as by Obuchowski.

    Args:
        members: scores of training images, such as the logits of a discriminator.
        others: scores of held-out images.
        member_groups: the patient of each training image; default: each image by itself.
        other_groups: the same of the held-out ones.

    Returns:
        0.5: the score cannot tell, 1: it tells every training image; and the 95 % interval, of no width where the
        scores are apart without exception.

    Raises:
        SamganError: fewer than two patients on a side, or scores that are not finite.

    Source: Hayes et al. 2019 (LOGAN, arXiv:1705.07663), white-box attack; DeLong et al. 1988; Obuchowski 1997.
    """
    groups = [
        np.arange(len(scores)) if given is None else np.unique(list(given), return_inverse=True)[1]
        for scores, given in ((members, member_groups), (others, other_groups))
    ]
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        raise SamganError("the scores of a membership test are not finite")
    if any(len(np.unique(group)) < 2 for group in groups):
        raise SamganError("a membership test needs two training and two held-out patients or more")
    below = _placements(members, others)
    above = 1 - _placements(others, members)
    area = float(below.mean())
    variance = sum(
        _clustered_variance(placed - area, group) for placed, group in zip((below, above), groups, strict=True)
    )
    half = float(special.ndtri((1 + LEVEL) / 2)) * math.sqrt(variance)
    return Share(area, max(area - half, 0.0), min(area + half, 1.0))


def _placements(scores: np.ndarray, others: np.ndarray) -> Float[np.ndarray, " n"]:
    """Share of the others that lie below each score; equal ones count half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / (2 * len(others))


def _clustered_variance(residuals: np.ndarray, group: np.ndarray) -> float:
    """Variance of the mean of residuals that depend on each other within groups."""
    sums = np.bincount(group, residuals)
    return float(len(sums) / (len(sums) - 1) * np.square(sums).sum() / len(residuals) ** 2)


def _blurred(images: Tensor, generator: torch.Generator) -> Tensor:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3, 1)


def _noisy(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + 10 * torch.randn(images.shape, generator=generator)


def _warped(images: Tensor, *, shift: float = 0.0, turn: float = 0.0, zoom: float = 1.0) -> Tensor:
    """Moved right and down by `shift` 64ths of the side, turned by degrees, enlarged."""
    cos, sin = math.cos(math.radians(turn)) / zoom, math.sin(math.radians(turn)) / zoom
    matrix = torch.tensor([[cos, -sin, -2 * shift / 64], [sin, cos, -2 * shift / 64]]).expand(len(images), 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


Change = Callable[[Tensor, torch.Generator], Tensor]
CHANGES: dict[str, Change] = {
    "exact": lambda images, _: images,
    "mirrored": lambda images, _: images.flip(-1),
    "brighter, less contrast": lambda images, _: 0.7 * images + 60,
    "blurred, 3x3 mean": _blurred,
    "noise, sd 10 of 255": _noisy,
    "moved by 1/64 of the side": lambda images, _: _warped(images, shift=1.0),
    "moved by 3/64 of the side": lambda images, _: _warped(images, shift=3.0),
    "turned by 2 degrees": lambda images, _: _warped(images, turn=2.0),
    "turned by 5 degrees": lambda images, _: _warped(images, turn=5.0),
    "enlarged by 5 %": lambda images, _: _warped(images, zoom=1.05),
}
"""What `changed_copies` makes of training images, by name."""


def changed_copies(images: UInt8[Tensor, "n c h w"], change: str, *, seed: int = 0) -> UInt8[Tensor, "n c h w"]:
    """Copies of images as a generator might give them back, to see which of them a test would find.

    Args:
        images: the images.
        change: a key of `CHANGES`.
        seed: of the noise.
    """
    changed = CHANGES[change](images.float(), torch.Generator().manual_seed(seed))
    return changed.round().clamp(0, 255).to(torch.uint8)
