"""Score generated images against real ones, every score beside what real images get against other real images."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from samgan.errors import SamganError, UsageError
from samgan.metrics.feature_networks import NETWORKS
from samgan.metrics.features import FeatureExtractor, extract
from samgan.metrics.frechet import frechet_distance_per_batch
from samgan.metrics.intervals import share_of
from samgan.metrics.legacy import adjacent_ms_ssim
from samgan.metrics.ms_ssim import PairMean, mean_ms_ssim, pair_mean
from samgan.metrics.nearest import count_repeats
from samgan.scoring.documents import (
    MODE_COLLAPSE,
    NO_MODE_COLLAPSE,
    CollapseTest,
    Counts,
    FeaturesUsed,
    MeanOfPairs,
    Repeats,
    Scored,
    Scores,
    Skipped,
    short_name,
)
from samgan.scoring.registry import SCORES
from samgan.scoring.sets import Sets

Images = Tensor | np.ndarray  # uint8 [n c h w], checked when called

MIN_COUNT = 8
MS_SSIM_PAIRS = 10_000  # that many add little to the error that the images themselves bring


@dataclass(frozen=True)
class Classes:
    """Name of each image's class. The generated images have the classes in the proportions of the real ones."""

    real: np.ndarray
    fake: np.ndarray


def score_images(
    *,
    real: Images,
    fake: Images,
    features: FeatureExtractor | None,
    protocol: str = "standard",
    seed: int = 0,
    count: int | None = None,
    skip_reason: str = "no feature extractor was given",
    classes: Classes | None = None,
) -> Scores:
    """Score a set of generated images.

    Scores of distributions depend on the number of images, so all are taken at m = min(count, fakes, reals // 2):
    `value` is m reals against m fakes, `floor` the same m reals against m other reals. A generator that cannot be told
    from the data scores its floor. MS-SSIM takes all images given: their number does not bias a mean over pairs.

    The paper's protocol keeps no half of the real images for the floor: m = min(count, fakes, reals). The floor is then
    at min(m, reals // 2), which `Scores.floor_count` says where it is less than m.

    Long because it has many options, each described below.

    Args:
        real: The images to compare with, the training set or a held-out split.
        fake: The generated images, of the same channels and resolution.
        features: From `samgan.metrics.load_features.load_features`; None leaves out the scores that need features. For
            the legacy protocol load "imagenet-inception".
        protocol: "standard"; "paper" for all images against all; or "legacy" for comparison with the numbers of the
            paper's group only.
        seed: Of everything drawn: halves, pairs, patches, directions.
        count: Images to use of each set, at most; default: all.
        skip_reason: Why scores that need features are left out.
        classes: Classes of the images, to score every class by itself as well.

    Raises:
        UsageError: An unknown protocol.
        SamganError: Too few images, not uint8, or real and generated ones differ in channels or resolution.

    Source: the rule for mode collapse, generated images more alike than real ones (MG > MR), is the paper's; here the
        difference also has to leave its 95 % interval.
    """
    real, fake = as_tensor(real), as_tensor(fake)
    m = check_inputs(real.shape, fake.shape, protocol=protocol, count=count)
    of_floor = min(m, len(real) // 2)
    if features is not None and classes is not None:
        features = _remembering(features)
    scores = Scores(
        protocol=protocol,
        resolution=real.shape[2],
        seed=seed,
        count=m,
        floor_count=None if of_floor == m else of_floor,
        counts=Counts(len(real), len(fake)),
        features=None,
        ms_ssim_real=None,
        ms_ssim_generated=None,
        mode_collapse=None,
        scores={},
        skipped=(),
    )
    scores = PROTOCOLS[protocol](scores, real, fake, features, skip_reason)
    if classes is None:
        return scores
    of_class: dict[str, Scores | None] = {}
    for name in map(str, np.unique(classes.real)):
        try:
            of_class[name] = score_images(
                real=real[classes.real == name],
                fake=fake[classes.fake == name],
                features=features,
                protocol=protocol,
                seed=seed,
                skip_reason=skip_reason,
            )
        except SamganError as error:
            of_class[name] = None
            scores = _skip(scores, [f"class {name}"], str(error))
    return replace(scores, classes=of_class)


def most_images(real: int, protocol: str) -> int:
    """How many of so many real images a protocol compares with generated ones: half, if the others give the floor."""
    return real if protocol == "paper" else real // 2


def check_inputs(
    real: Sequence[int], fake: Sequence[int], *, protocol: str = "standard", count: int | None = None
) -> int:
    """Refuse what `score_images` cannot score, by shapes only: before images are sampled or features are loaded.

    Args:
        real: Shape [n c h w] of the real images.
        fake: Shape of the generated ones.
        protocol: As for `score_images`.
        count: As for `score_images`.

    Returns:
        m, the number of images that `score_images` will use of each set.

    Raises:
        UsageError: An unknown protocol, or a count that cannot be had.
        SamganError: Too few images, or real and generated ones differ in channels or resolution.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"--protocol {protocol}: expected one of {', '.join(PROTOCOLS)}")
    check_comparable(real, fake)
    most = min(fake[0], most_images(real[0], protocol))
    if count is not None and count > most >= MIN_COUNT:
        why = "" if protocol == "paper" else ", since the floor needs two sets of real ones"
        raise UsageError(f"--count {count}: {fake[0]} generated and {real[0]} real images allow at most {most}{why}")
    m = most if count is None else min(count, most)
    if min(m, real[0] // 2) < MIN_COUNT:
        raise SamganError(
            f"scores need at least {MIN_COUNT} generated and {2 * MIN_COUNT} real images; there are {fake[0]} and "
            f"{real[0]} (count: {count if count is not None else 'all'})"
        )
    return m


def _standard(
    scores: Scores, real: Tensor, fake: Tensor, features: FeatureExtractor | None, skip_reason: str
) -> Scores:
    """Add the scores of the standard protocol, or of the paper's, which differs in the numbers of images."""
    m, seed = scores.count, scores.seed
    of_floor = scores.floor_count or m

    def ms_ssim() -> tuple[PairMean, PairMean]:
        means = [mean_ms_ssim(images, pairs=MS_SSIM_PAIRS, seed=seed) for images in (real, fake)]
        return means[0], means[1]

    scores = _with_ms_ssim(scores, ms_ssim)
    # Random, since files often lie in order of class or patient; a prefix of one order, so one cache serves every m.
    drawn_real, drawn_fake = (_order(len(images), seed) for images in (real, fake))
    taken = drawn_real[: max(m, 2 * of_floor)]
    sets = Sets(real[taken], fake[drawn_fake[:m]], of_floor, seed, features)
    scores = replace(scores, repeats=_repeats(sets.fake, sets.real[:m]))
    found: dict[str, Scored] = {}
    for score in SCORES.values():
        if score.needs_features and features is None:
            scores = _skip(scores, [score.name], skip_reason)
            continue
        try:
            found[score.name] = Scored(score.of(sets, "fake"), score.of(sets, "other"))
        except SamganError as error:
            if score.needs_features:  # a network that was asked for has failed
                raise
            scores = _skip(scores, [score.name], str(error))
    levels: dict[str, Scored] = {}
    if "swd" in found:
        value, floor = sets.swd("fake"), sets.swd("other")
        levels = {level: Scored(value[level], floor[level]) for level in value if level != "mean"}
    return replace(
        scores, scores=found, swd_by_level=levels, features=None if features is None else _describe(features)
    )


def _legacy(scores: Scores, real: Tensor, fake: Tensor, features: FeatureExtractor | None, skip_reason: str) -> Scores:
    """Add the scores of the legacy protocol, which goes by the order of the files."""
    m = scores.count

    def ms_ssim() -> tuple[PairMean, PairMean]:
        def mean(images: Tensor) -> PairMean:
            adjacent = torch.stack([torch.arange(len(images) - 1), torch.arange(1, len(images))], dim=1)
            return pair_mean(adjacent_ms_ssim(images), adjacent)

        return mean(real), mean(fake[:m])  # all real ones: the first m may be of one class

    scores = _with_ms_ssim(scores, ms_ssim)
    if features is None:
        return _skip(scores, ["frechet"], skip_reason)
    # Halves drawn at random, each left in file order: the first and the last files may be of different classes.
    order = _order(len(real), scores.seed)
    first, second = (extract(features, real[half.sort().values]) for half in (order[:m], order[m : 2 * m]))
    features_fake = extract(features, fake[:m], cache=False)
    scores = replace(scores, features=_describe(features))
    try:
        value, floor = (frechet_distance_per_batch(first, other) for other in (features_fake, second))
    except SamganError as error:
        return _skip(scores, ["frechet"], str(error))
    return replace(scores, scores={"frechet": Scored(value, floor)})


PROTOCOLS = {"standard": _standard, "paper": _standard, "legacy": _legacy}


def _skip(scores: Scores, names: Sequence[str], reason: str) -> Scores:
    return replace(scores, skipped=(*scores.skipped, *(Skipped(name, reason) for name in names)))


def _with_ms_ssim(scores: Scores, compute: Callable[[], tuple[PairMean, PairMean]]) -> Scores:
    """Add MS-SSIM of both sets and the verdict on mode collapse, or say why they cannot be had of such images."""
    try:
        real, generated = compute()
    except SamganError as error:
        return _skip(scores, ["ms_ssim_real", "ms_ssim_generated", "mode_collapse"], str(error))
    difference = generated.mean - real.mean
    half = float(special.stdtrit(scores.count - 1, 0.975))
    half *= (real.standard_error**2 + generated.standard_error**2) ** 0.5
    verdict: Any = MODE_COLLAPSE if difference - half > 0 else NO_MODE_COLLAPSE
    return replace(
        scores,
        ms_ssim_real=MeanOfPairs(**real._asdict()),
        ms_ssim_generated=MeanOfPairs(**generated._asdict()),
        mode_collapse=CollapseTest(verdict, difference, difference - half, difference + half),
    )


def _repeats(fake: Tensor, real: Tensor) -> Repeats:
    generated, others = count_repeats(fake), count_repeats(real)
    found = share_of(generated, len(fake)).low > share_of(others, len(real)).high
    return Repeats(generated, others, found)


def _remembering(features: FeatureExtractor) -> FeatureExtractor:
    """The same features, computed once for every image, however many sets it is in."""
    known: dict[bytes, Tensor] = {}

    def network(images: Tensor) -> Tensor:
        names = [hashlib.sha256(image.cpu().numpy().tobytes()).digest() for image in images]
        new = [number for number, name in enumerate(names) if name not in known]
        if new:
            known.update(zip((names[number] for number in new), features(images[new]), strict=True))
        return torch.stack([known[name] for name in names])

    own = {name: getattr(features, name) for name in ("name", "sha256", "device", "dim")}
    return FeatureExtractor(network, **own)


def _order(length: int, seed: int) -> Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))


def _describe(features: FeatureExtractor) -> FeaturesUsed:
    network = NETWORKS.get(short_name(features.name))
    return FeaturesUsed(features.name, features.sha256, features.dim, network.input.at_least if network else 0)


def as_tensor(images: Images) -> Tensor:
    """Images as a tensor.

    Raises:
        SamganError: They are not uint8 [n c h w].
    """
    if images.ndim != 4 or images.dtype not in (torch.uint8, np.uint8):
        raise SamganError(f"expected uint8 images [n c h w], got {images.dtype} {list(images.shape)}")
    # np.require copies read-only arrays (memory maps), which torch would warn about.
    return images if isinstance(images, Tensor) else torch.from_numpy(np.require(images, requirements=["C", "W"]))


def check_comparable(real: Sequence[int], fake: Sequence[int]) -> None:
    """Refuse images of different sizes or channels, by their shapes [n c h w].

    Raises:
        SamganError: They differ.
    """

    def say(shape: Sequence[int]) -> str:
        _, c, h, w = shape
        return f"{w}x{h} px with {c} channel{'s' if c > 1 else ''}"

    if tuple(real[1:]) != tuple(fake[1:]):
        raise SamganError(
            f"the real images are {say(real)}, the generated ones {say(fake)}: bring both to one shape first"
        )
