"""Score a run, or any set of images, against a prepared set, and write the scores and a report."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from samgan import __version__
from samgan.config import Config
from samgan.data import PreparedSet, check_prepared
from samgan.devices import choose_device, keep_freed_memory
from samgan.errors import UsageError
from samgan.files import PRIVATE, Location
from samgan.metrics.features import FeatureExtractor
from samgan.metrics.load_features import choose_features, say_features
from samgan.sampling import Source, labels_like
from samgan.scoring.documents import Scores
from samgan.scoring.images import Classes, check_inputs, most_images, score_images
from samgan.scoring.report import PLAIN, Story, write_report
from samgan.seeds import as_seed
from samgan.terminal import say

SPLITS = {"train": "train", "holdout": "holdout", "all": None}
"""What `split` may be, and the split of the prepared set."""


@dataclass(frozen=True)
class _Request:
    """What is compared with what, checked."""

    source: Source
    data: PreparedSet
    classes: tuple[str, ...]
    split: str
    count: int | None
    protocol: str
    seed: int
    folder: Path
    story: Story


def scores_file(protocol: str) -> str:
    """The name of the document that holds the scores of a protocol."""
    return f"scores{_suffix(protocol)}.json"


def _suffix(protocol: str) -> str:
    return "" if protocol == "standard" else f"-{protocol}"


def evaluate(  # noqa: PLR0913 (options of one evaluation, each with a default)
    source: Location | Source | np.ndarray,
    data: PreparedSet,
    *,
    count: int | None = None,
    split: str = "train",
    classes: Sequence[str] = (),
    features: str | None = None,
    features_file: Location | None = None,
    protocol: str = "standard",
    seed: SupportsIndex = 0,
    checkpoint: str = "newest",
    out: Location | None = None,
    device: str = "auto",
    notes: Sequence[str] = (),
    story: Story = PLAIN,
) -> tuple[Scores, Path]:
    """Score a run, or a set of images, against real ones; write scores.json and report.html.

    Long because it has many options, each described below.

    Args:
        source: As for `samgan.sampling.Source.open`.
        data: The prepared set of real images.
        count: Images per set; default: half the real ones, since the floor needs two halves of them, or all of them
            with the paper's protocol.
        split: Real images to compare with: "train", "holdout" or "all".
        classes: Of these classes; default: the run's. A run with classes is scored on images of them in the proportions
            of the real ones, and on every class by itself.
        features: A name of docs/features.md, or a module file; default: what is there, or what the protocol asks for.
        features_file: The weights of the named network, as for `samgan.metrics.load_features`.
        protocol: "standard", "paper" or "legacy", as for `samgan.scoring.score_images`.
        seed: Of samples, pairs and projections.
        checkpoint: "newest", "best" or a file, of a run.
        out: Where to write; default: the run, the folder of images, or beside the file.
        device: Where networks run.
        notes: Banners of the report.
        story: What else the report says to lead its reader.

    Returns:
        The scores and the path of the report.

    Raises:
        SamganError: What is missing or does not fit, in one line.
    """
    keep_freed_memory()
    if count is not None and count < 1:
        raise UsageError(f"--count {count}: expected 1 or more")
    check_prepared(data)
    first = as_seed(seed, count or len(data.images))
    if split not in SPLITS:
        raise UsageError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    target = choose_device(device)
    opened = Source.open(source, checkpoint=checkpoint, device=target)
    folder = Path(out) if out else opened.folder("scores")
    request = _Request(opened, data, tuple(classes) or opened.classes, split, count, protocol, first, folder, story)
    data.verify()
    real, fake, of_class = _images(request)
    default = "imagenet-inception" if protocol == "legacy" else None
    extractor, reason = choose_features(
        features, real.shape[1:], default=default, features_file=features_file, device=target
    )
    said = [*opened.said, *flattered(opened.config, extractor)]
    for sentence in said:
        say(f"samgan: {sentence}")
    say_features(extractor, reason)
    folder.mkdir(PRIVATE, parents=True, exist_ok=True)  # before the long part: if it cannot be made, fail now
    scores = score_images(
        real=real,
        fake=fake,
        features=extractor,
        protocol=protocol,
        seed=first,
        count=count,
        skip_reason=reason,
        classes=of_class,
    )
    used = data.used(request.classes, split)
    scores = replace(scores, samgan=__version__, generated=opened.described, data=replace(used, split_by=None))
    return scores, _write(request, scores, real, fake, (*notes, *(f"{sentence}." for sentence in said)))


def flattered(config: Config | None, extractor: FeatureExtractor | None) -> list[str]:
    """What to say about scores by the features that a model's discriminator looked at in training; else nothing."""
    if config is None or extractor is None or not config.network.sees:
        return []
    seen = config.network.vision_features
    if extractor.name.split(" (")[0] != seen:
        return []
    return [f"scores by {seen} flatter this model, whose discriminator saw by {seen}: judge it by other --features"]


def _images(request: _Request) -> tuple[UInt8[np.ndarray, "n c h w"], UInt8[Tensor, "m _ _ _"], Classes | None]:
    """Real and generated images, and their classes if the model was told the class."""
    source, data = request.source, request.data
    indices = data.indices(SPLITS[request.split], request.classes)
    there = (len(indices), *data.images.shape[1:])
    check = functools.partial(check_inputs, there, protocol=request.protocol, count=request.count)
    if source.model is None:
        fake = source.images(like=data)
        check(fake.shape)
        return data.take(indices), fake, None
    network, model = source.model.config.network, source.model
    count = request.count or most_images(len(indices), request.protocol)
    shape = (count, network.image_channels, network.resolution, network.resolution)
    check(shape)
    real = data.take(indices)
    if not model.classes:
        return real, source.images(shape[0], seed=request.seed), None
    model.require_classes(request.classes)
    real_labels, names = data.labels(model.classes)[indices], np.array(model.classes)
    labels = labels_like(real_labels, shape[0])
    fake = source.images(shape[0], labels, seed=request.seed)
    return real, fake, Classes(names[real_labels], names[labels.numpy()])


def _write(request: _Request, scores: Scores, real: np.ndarray, fake: Tensor, notes: Sequence[str]) -> Path:
    """Write scores.json and the report, whose path is returned."""
    source = request.source
    report = request.folder / f"report{_suffix(request.protocol)}.html"
    write_report(
        report,
        title=f"samgan: {source.config.preset if source.config else source.described.name}",
        config=source.config,
        stats=source.run.stats() if source.run else (),
        environment=source.run.environment if source.run else None,
        scores=scores,
        real=real,
        fake=fake.numpy(),
        grids=source.run.grids() if source.run else (),
        notes=notes,
        story=request.story,
    )
    scores.write(request.folder / scores_file(request.protocol))
    return report
