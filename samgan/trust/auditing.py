"""Look for signs that a generator repeats the images of its training patients.

Every number is given together with the number for held-out real images, whose patients the generator never saw.
docs/audit.md says what each one means and what it does not show.
"""

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from samgan import __version__
from samgan.data import PreparedSet, check_prepared
from samgan.devices import choose_device, keep_freed_memory
from samgan.errors import SamganError
from samgan.files import PRIVATE, Location, atomic_write
from samgan.grids import SYNTHETIC, image_grid, write_png
from samgan.metrics.features import FeatureExtractor, extract
from samgan.metrics.intervals import share_of
from samgan.metrics.load_features import choose_features, say_features
from samgan.metrics.memorisation import Sign, closer_than_held_out, nearest_is_training
from samgan.metrics.mirrored import count_mirrored, fit_sides
from samgan.metrics.nearest import ALIKE, Nearest, count_repeats, nearest_features, nearest_image
from samgan.metrics.planted import CHANGES, changed_copies
from samgan.sampling import Source
from samgan.seeds import as_seed
from samgan.trust.audit_limits import describe_limits
from samgan.trust.audit_page import Pictures, write_audit_page
from samgan.trust.audit_request import AuditRequest, check_count
from samgan.trust.audit_words import PAIRS_SHOWN, describe_verdict
from samgan.trust.documents import (
    AlikeShares,
    AuditCounts,
    AuditDocument,
    Distances,
    Estimate,
    FoundSign,
    Measured,
    MeasuredFeatures,
    MirroredShares,
    Pair,
    PairImages,
    Quantiles,
    SkippedPart,
)
from samgan.trust.membership import find_membership
from samgan.trust.real_images import RealImages

PLANTED = 100
HELD_OUT_PAIRS = 8


def audit(  # noqa: PLR0913 (options of one call, each with a default)
    source: Location | np.ndarray | Source,
    data: PreparedSet,
    *,
    count: int | None = None,
    classes: Sequence[str] = (),
    features: str | None = None,
    features_file: Location | None = None,
    seed: SupportsIndex = 0,
    checkpoint: str = "newest",
    out: Location | None = None,
    device: str = "auto",
    pictures: bool = True,
) -> tuple[AuditDocument, Path]:
    """Look for signs that synthetic images repeat training images; write audit.json, audit.html and audit.png.

    Args:
        source: A run folder, a file of `samgan export`, a folder of images or of samples.npz, an .npz, an .npy, or
            images as an array, uint8 [n c h w].
        data: The prepared set that the generator was trained on, with its held-out split.
        count: Synthetic images to audit, 8 or more; default: as many as there are training images if a model makes
            them, otherwise all.
        classes: Real images of these classes; default: the classes that the model was trained on.
        features: A name of docs/features.md, or a module file; default: what is there.
        features_file: The weights of the named network, as for `samgan.metrics.load_features`.
        seed: Seed of the first image of a model, and of every random choice.
        checkpoint: "newest", "best" or a checkpoint file; only for a run.
        out: Folder to write to; default: the run, the folder of images, or a folder beside the file.
        device: Where networks run.
        pictures: Whether the page shows the closest pairs, which contain real images.

    Returns:
        The document, as in audit.json, and the path of the page.

    Raises:
        UsageError: The generator was trained on other data, or an argument is out of range.
        SamganError: There are too few images, images of another shape, or an array that is not uint8.
    """
    keep_freed_memory()
    check_prepared(data)
    check_count(count)
    first = as_seed(seed, count or len(data.images))
    target = choose_device(device)
    data.verify()
    opened = Source.open(source, checkpoint=checkpoint, device=target)
    folder = Path(out) if out else opened.folder("audit")
    extractor, why = choose_features(features, data.images.shape[1:], features_file=features_file, device=target)
    say_features(extractor, why)
    request = AuditRequest.open(opened, data, classes=classes, count=count, seed=first)
    fake = request.synthetic_images()
    folder.mkdir(PRIVATE, parents=True, exist_ok=True)  # before the long part: if it cannot be made, fail now
    document = _compute(request, fake, extractor, why)
    if pictures:
        document = replace(document, images=_write_images(folder / "audit.png", document, fake))
    page = folder / "audit.html"
    write_audit_page(page, document, Pictures(fake, request.held_out.images, data.images) if pictures else None)
    document.write(folder / "audit.json")
    return document, page


def _compute(
    request: AuditRequest, fake: UInt8[Tensor, "n c h w"], extractor: FeatureExtractor | None, no_features: str
) -> AuditDocument:
    training, held_out, seed = request.training, request.held_out, request.seed
    skipped, features, membership = [], None, None
    planted = {name: changed_copies(training.some(PLANTED), name, seed=seed) for name in CHANGES}
    pictures = _Vectors(fake, training.images, held_out.images, planted)
    measure = "1 - correlation at half resolution, moved by up to a pixel, and mirrored"
    pixels = _measure(request, measure, nearest_image, pictures)
    if extractor is None:
        skipped.append(SkippedPart("nearest images by features", no_features))
    else:
        vectors = _features(extractor, pictures)
        by_features = _measure(request, "Euclidean distance of features", nearest_features, vectors)
        features = MeasuredFeatures(
            **vars(by_features), name=extractor.name, sha256=extractor.sha256, dim=extractor.dim
        )
    try:
        membership = find_membership(request.source, training, held_out, fake, seed=seed)
    except SamganError as error:
        skipped.append(SkippedPart("membership by the discriminator", str(error)))
    document = AuditDocument(
        verdict="",
        signs=(),
        pixels=pixels,
        features=features,
        membership=membership,
        mirrored=_mirrored(request, fake),
        alike=_alike(fake, training.images, seed),
        counts=AuditCounts(len(fake), training.counts, held_out.counts),
        generated=request.source.described,
        data=request.data.used(request.classes),
        seed=seed,
        notes=tuple(describe_limits(request)),
        skipped=tuple(skipped),
        samgan=__version__,
    )
    return replace(document, signs=tuple(_signs(document)), verdict=describe_verdict(document))


@dataclass(frozen=True)
class _Vectors:
    """Images of all kinds, or their features."""

    fake: Tensor
    training: Tensor
    held_out: Tensor
    planted: dict[str, Tensor]
    """Changed copies of training images, by change."""


def _features(extractor: FeatureExtractor, images: _Vectors) -> _Vectors:
    # The next audit has other synthetic images and copies: their features would only fill the disk.
    planted = {name: extract(extractor, copies, cache=False) for name, copies in images.planted.items()}
    return _Vectors(
        extract(extractor, images.fake, cache=False),
        extract(extractor, images.training),
        extract(extractor, images.held_out),
        planted,
    )


def _measure(
    request: AuditRequest, measure: str, nearest: Callable[[Tensor, Tensor], Nearest], of: _Vectors
) -> Measured:
    """Both signs by one measure of distance, the closest pairs, and which planted copies it would have found."""
    training, held_out = request.training, request.held_out
    of_fake, of_held_out = nearest(of.fake, of.training), nearest(of.held_out, of.training)
    closer = closer_than_held_out(of_fake.distance, of_held_out.distance, groups=held_out.patients)
    pulled = nearest_is_training(
        of_fake, nearest(of.fake, of.held_out), training.patients, held_out.patients, seed=request.seed
    )
    found = {name: nearest(copies, of.training).distance < closer.threshold for name, copies in of.planted.items()}
    names = request.names(len(of.fake))
    rows = [f"row {index}" for index in held_out.indices]
    return Measured(
        measure=measure,
        closer=_described(closer),
        nearest_is_training=_described(pulled),
        planted={name: float(hit.double().mean()) for name, hit in found.items()},
        distances=Distances(_quantiles(of_fake.distance), _quantiles(of_held_out.distance)),
        # All images that count as close, so that users can leave them out.
        pairs=_pairs(of_fake, max(PAIRS_SHOWN, closer.count), training, names, of_held_out.distance),
        held_out_pairs=_pairs(of_held_out, HELD_OUT_PAIRS, training, rows, of_held_out.distance),
    )


def _quantiles(values: Tensor) -> Quantiles:
    return Quantiles(*torch.quantile(values.double(), torch.tensor([0, 0.01, 0.5], dtype=torch.double)).tolist())


def _described(sign: Sign) -> FoundSign:
    threshold = sign.threshold if math.isfinite(sign.threshold) else None
    return FoundSign(Estimate(*sign.share), Estimate(*sign.expected), sign.count, sign.found, threshold)


def _pairs(
    nearest: Nearest, count: int, training: RealImages, names: Sequence[str], of_held_out: Float[Tensor, " m"]
) -> tuple[Pair, ...]:
    """The `count` closest pairs, closest first."""
    order = nearest.distance.argsort(stable=True)[:count].tolist()
    return tuple(
        Pair(
            place=index,
            image=names[index],
            training=int(training.indices[nearest.index[index]]),
            mirrored=bool(nearest.mirrored[index]),
            distance=float(nearest.distance[index]),
            farther=float((of_held_out > nearest.distance[index]).double().mean()),
        )
        for index in order
    )


def _write_images(path: Path, document: AuditDocument, fake: UInt8[Tensor, "n c h w"]) -> PairImages:
    """Keep the synthetic images of the pairs that are shown, so that a page needs no model to show them again."""
    found = {pair.place for measured in document.measures.values() for pair in measured.pairs[:PAIRS_SHOWN]}
    places = tuple(sorted(found))
    columns = math.ceil(math.sqrt(len(places)))
    file = io.BytesIO()
    write_png(file, image_grid(fake[list(places)].numpy(), columns, gap=0), {"Description": SYNTHETIC})
    with atomic_write(path) as opened:
        opened.write(file.getvalue())
    return PairImages(path.name, columns, places, hashlib.sha256(file.getvalue()).hexdigest())


def _mirrored(request: AuditRequest, fake: Tensor) -> MirroredShares:
    weights = fit_sides(request.training.images)
    synthetic, held_out = (
        Estimate(*share_of(count_mirrored(weights, images), len(images))) for images in (fake, request.held_out.images)
    )
    config = request.source.config
    return MirroredShares(synthetic, held_out, config.data.flip != "none" if config else None)


def _alike(fake: Tensor, real: Tensor, seed: int) -> AlikeShares:
    """How many synthetic images, and of equally many training images, are like an earlier one of their kind."""
    count = min(len(fake), len(real))
    drawn = [
        images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]]
        for images in (fake, real)
    ]
    synthetic, training = (Estimate(*share_of(count_repeats(images), count)) for images in drawn)
    return AlikeShares(ALIKE, count, synthetic, training)


def _signs(document: AuditDocument) -> list[str]:
    """Names of the signs that were found."""
    signs = ["copies"] if document.copies else []
    signs += [
        f"{space}.{name}"
        for space, measured in (("pixels", document.pixels), ("features", document.features))
        for name in ("closer", "nearest_is_training")
        if measured is not None and getattr(measured, name).found
    ]
    return signs + (["membership"] if document.membership and document.membership.found else [])
