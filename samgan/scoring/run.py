"""Score a run, or any set of images, against a prepared set, and write the scores and a report."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samgan import __version__
from samgan.data import PreparedSet
from samgan.data.images import load_images
from samgan.devices import choose_device, keep_freed_memory
from samgan.errors import UsageError
from samgan.files import Location, write_json
from samgan.metrics.features import find_features
from samgan.pictures import to_uint8
from samgan.runs import Run
from samgan.sampling import (
    SEEDS,
    is_model,
    labels_like,
    open_model,
)
from samgan.sampling import sample as sample_seeds
from samgan.scoring.evaluate import check_inputs
from samgan.scoring.evaluate import evaluate as score_images
from samgan.scoring.report import write_report


def evaluate(
    source: Location,
    data: PreparedSet,
    *,
    count: int | None = None,
    split: str = "train",
    classes: Sequence[str] = (),
    features: str | None = None,
    inception_weights: Path | None = None,
    protocol: str = "standard",
    seed: int = 0,
    checkpoint: str = "newest",
    out: Location | None = None,
    device: str = "auto",
    notes: Sequence[str] = (),
) -> tuple[dict[str, Any], Path]:
    """Score a run, or a set of images, against real ones; write scores.json and report.html.

    Args:
        source: A run folder, a file of `export`, a folder of images or of samples.npz, a .npz or a .npy.
        data: The prepared set of real images.
        count: Images per set; default: half the real ones, since the floor needs two halves of them.
        split: Real images to compare with: "train", "holdout" or "all".
        classes: Of these classes; default: the run's. A run with classes is scored on images of them in the proportions
            of the real ones, and on every class by itself.
        features: "inception" or a module file; default: what the protocol asks for.
        inception_weights: A file of the Inception's weights, where there is no network.
        protocol: "standard" or "legacy".
        seed: Of samples, pairs and projections.
        checkpoint: "newest", "best" or a file, of a run.
        out: Where to write; default: the run, the folder of images, or beside the file.
        device: Where networks run.
        notes: Banners of the report.

    Returns:
        The scores (`samgan.scoring.evaluate` describes them; here with `samgan` (version), `generated` and `data`,
        which tell what was scored) and the path of the report.

    Raises:
        SamganError: What is missing or does not fit, in one line.
    """
    keep_freed_memory()
    source = Path(source)
    if count is not None and count < 1:
        raise UsageError(f"--count {count}: expected 1 or more")
    if not 0 <= seed <= SEEDS - (count or len(data.images)):
        raise UsageError(f"--seed {seed}: expected 0 to 2^32 - {count or len(data.images)}")
    if split not in ("train", "holdout", "all"):
        raise UsageError(f"--split {split}: expected train, holdout or all")
    target = choose_device(device)
    run = model = None
    if is_model(source):
        model = open_model(source, checkpoint, target)
        run = Run(source) if source.is_dir() else None
    elif checkpoint != "newest":
        raise UsageError(f"--checkpoint {checkpoint}: {source} is not a run")
    folder = Path(out) if out else source if source.is_dir() else source.with_name(f"{source.stem}-scores")
    config = model.config if model else None
    classes = tuple(classes) or (model.classes or model.config.data.classes if model else ())
    data.verify()
    indices = data.indices(None if split == "all" else split, classes)
    real, real_classes, fake_classes = np.asarray(data.images[indices]), None, None
    generated: dict[str, Any] = {"name": source.resolve().name}
    if model:
        network = model.config.network
        shape = (count or len(real) // 2, network.image_channels, network.resolution, network.resolution)
        check_inputs(real.shape, shape, protocol=protocol, count=count)
        generated |= {"preset": model.config.preset, "images_seen": model.images_seen, "model_sha256": model.sha256}
        labels = None
        if model.classes:
            model.require_classes(classes)
            real_labels, names = data.labels(model.classes)[indices], np.array(model.classes)
            labels = labels_like(real_labels, shape[0])
            real_classes, fake_classes = names[real_labels], names[labels.numpy()]
        fake = to_uint8(sample_seeds(model, range(seed, seed + shape[0]), labels)).numpy()
    else:
        fake = load_images(source).numpy()
        check_inputs(real.shape, fake.shape, protocol=protocol, count=count)
    default = "imagenet-inception" if protocol == "legacy" else "inception"
    extractor, reason = find_features(features, default, inception_weights=inception_weights, device=target)
    if extractor is None:
        print(f"samgan: scores that need features are skipped: {reason}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)  # before the long part: a place that cannot be written is told now
    scores = score_images(
        real=real,
        fake=fake,
        features=extractor,
        protocol=protocol,
        seed=seed,
        count=count,
        skip_reason=reason,
        real_classes=real_classes,
        fake_classes=fake_classes,
    )
    scores |= {
        "samgan": __version__,
        "generated": generated,
        "data": {
            "name": data.path.resolve().name,
            "sha256": data.sha256,
            "split": split,
            "classes": list(classes or data.classes),
        },
    }
    suffix = "" if protocol == "standard" else f"-{protocol}"
    report = folder / f"report{suffix}.html"
    write_report(
        report,
        title=f"samgan: {config.preset if config else source.resolve().name}",
        config=config,
        environment=run.environment.to_dict() if run else None,
        stats=run.stats() if run else [],
        scores=scores,
        real=real,
        fake=fake,
        notes=notes,
    )
    write_json(folder / f"scores{suffix}.json", scores)
    return scores, report
