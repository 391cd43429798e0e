"""Write synthetic images, with their marks, to a folder that appears when it is complete."""

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from samgan.errors import UsageError
from samgan.files import check_new_folder, write_json
from samgan.networks import SelfAttention
from samgan.pictures import to_integers, write_png
from samgan.provenance import FORMATS, Sample
from samgan.sampling.images import FORWARD_BATCH, sample_batches
from samgan.sampling.model import Labels, Model
from samgan.sampling.sheets import SHEETS, _sheet


def write_samples(
    model: Model,
    out: Path,
    count: int,
    *,
    seed: int = 0,
    file_format: str = "png",
    sheets: Sequence[str] = (),
    class_name: str | None = None,
) -> dict[str, Any]:
    """Write images of seeds `seed` ... `seed + count - 1` into the new folder `out`, which appears when it is complete.

    Of a model with K classes, the image of seed s is of class s mod K, or all are of the one named. The seed decides
    the latent, whatever the class.

    Args:
        model: From `load_model`.
        out: Folder to make.
        count: Number of images.
        seed: Seed of the first image.
        file_format: A key of `samgan.provenance.FORMATS`: "png", "png16" (16 bit, 1 channel), "npz" (`images` uint8,
            `seeds`, `provenance`, and with classes `classes`, the name of each image's), "dicom", "dicom16", "medmnist"
            (one NPZ) or "imagefolder" (Hugging Face's).
        sheets: Extra pictures in the folder `sheets`: "grid", "interpolation" (from seed to seed), "scales" (the
            pyramid of each seed), "attention" (where the generator looks); images of one class side by side.
        class_name: The class of all images; default: classes in turn.

    Returns:
        What `samples.json` in the folder holds: the provenance of its images.

    Raises:
        SamganError: `out` exists and is not empty.
        UsageError: An unknown format, sheet or class, 16 bit with 3 channels, attention of a generator without it.
    """
    for name, known in ((file_format, FORMATS), *((sheet, SHEETS) for sheet in sheets)):
        if name not in known:
            raise UsageError(f"{name!r} is not one of {', '.join(known)}")
    check_new_folder(out)
    network = model.config.network
    chosen = FORMATS[file_format]
    if chosen.bits == 16 and network.image_channels != 1:
        raise UsageError(f"--format {file_format} is for 1 channel; use {file_format.removesuffix('16')} or npz")
    if "attention" in sheets and not any(isinstance(layer, SelfAttention) for layer in model.generator.modules()):
        raise UsageError(f"the generator of preset {model.config.preset} has no attention between positions to show")
    seeds = range(seed, seed + count)
    labels = model.labels(seeds, class_name)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        chosen.write(temporary, _marked_samples(model, seeds, labels, chosen.bits), count)
        if sheets:
            (temporary / "sheets").mkdir()  # apart, so that the folder itself holds nothing but samples
        for name in sheets:
            with open(temporary / "sheets" / f"{name}.png", "wb") as file:
                mark = model.mark(seed).entries()
                write_png(file, _sheet(model, seeds, labels, name), {**mark, "Seed": f"{seed}..."})
        document = {**model.mark(seed).entries(), "count": count, "first_seed": seed, "last_seed": seed + count - 1}
        document = {"format": file_format, **{key: value for key, value in document.items() if key != "Seed"}}
        if labels is not None:
            counts = torch.bincount(labels, minlength=len(model.classes)).tolist()
            rule = class_name or f"in turn: seed mod {len(model.classes)}"
            document |= {"Class": rule, "classes": dict(zip(model.classes, counts, strict=True))}
        write_json(temporary / "samples.json", document)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return document


def _marked_samples(model: Model, seeds: Sequence[int], labels: Labels, bits: int) -> Iterator[Sample]:
    steps = math.ceil(len(seeds) / FORWARD_BATCH)
    batches = sample_batches(model, seeds, labels)
    own = iter([None] * len(seeds) if labels is None else labels.tolist())
    for few, images in track(batches, "sampling", steps, console=Console(stderr=True), transient=True):
        for seed, image in zip(few, to_integers(images, bits), strict=True):
            yield Sample(image, model.mark(seed, next(own)).of(image))
