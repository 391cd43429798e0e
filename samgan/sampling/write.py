"""Write synthetic images, with their marks, to a folder that appears only when it is complete."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from rich.progress import track

from samgan.errors import UsageError
from samgan.files import atomic_folder, check_new_folder, write_json
from samgan.networks import SelfAttention
from samgan.pictures import to_integers, write_png
from samgan.provenance import FORMATS, Format, Sample
from samgan.sampling.images import forward_batch, sample_batches
from samgan.sampling.model import Labels, Model
from samgan.sampling.sheets import SHEETS
from samgan.terminal import console


@dataclass(frozen=True)
class Written:
    """samples.json: the provenance of the images in a folder."""

    format: str
    mark: dict[str, str]
    """The part of the mark that all images share."""
    count: int
    first_seed: int
    last_seed: int
    class_rule: str = ""
    """Which class each image has, for a conditional model."""
    classes: dict[str, int] = field(default_factory=dict)
    """Number of images of each class."""
    hub: str = ""
    """As `Model.hub`."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; the entries of the mark are on the same level as the others."""
        counts = {"count": self.count, "first_seed": self.first_seed, "last_seed": self.last_seed}
        of_class = {"Class": self.class_rule, "classes": self.classes} if self.classes else {}
        of_hub = {"Model-Hub": self.hub} if self.hub else {}
        return {"format": self.format, **self.mark, **of_hub, **counts, **of_class}


def write_samples(
    model: Model,
    out: Path,
    count: int,
    *,
    seed: int = 0,
    file_format: str = "png",
    sheets: Sequence[str] = (),
    class_name: str | None = None,
) -> Written:
    """Write images of seeds `seed` ... `seed + count - 1` to the new folder `out`, which appears when it is complete.

    For a model with K classes, the image of seed s has class s mod K, unless `class_name` sets one class for all. The
    latent depends only on the seed, not on the class.

    Args:
        model: From `load_model`.
        out: Folder to create.
        count: Number of images.
        seed: Seed of the first image.
        file_format: A key of `samgan.provenance.FORMATS`.
        sheets: Keys of `samgan.sampling.sheets.SHEETS`: extra pictures in the folder `sheets`, with images of one class
            side by side.
        class_name: The class of all images; default: the classes take turns.

    Raises:
        SamganError: `out` exists and is not empty.
        UsageError: Unknown format, sheet or class, 16 bits with 3 channels, or no attention maps to show.
    """
    form = check_format(model, file_format)
    if unknown := [name for name in sheets if name not in SHEETS]:
        raise UsageError(f"sheet {unknown[0]!r} is not one of {', '.join(SHEETS)}")
    check_new_folder(out)
    if "attention" in sheets and not any(isinstance(layer, SelfAttention) for layer in model.generator.modules()):
        raise UsageError(f"the generator of preset {model.config.preset} has no layer that makes attention maps")
    seeds = range(seed, seed + count)
    labels = model.labels(seeds, class_name)
    written = _describe(model, seeds, labels, file_format, class_name)
    with atomic_folder(out) as folder:
        form.write(folder, _marked_samples(model, seeds, labels, form.bits), count)
        _write_sheets(folder / "sheets", model, seeds, labels, sheets)
        write_json(folder / "samples.json", written.to_dict())
    return written


def check_format(model: Model, file_format: str) -> Format:
    """The format of this name, in which images of the model can be written.

    Raises:
        UsageError: There is none, or it has 16 bits and the images have several channels.
    """
    if file_format not in FORMATS:
        raise UsageError(f"file format {file_format!r} is not one of {', '.join(FORMATS)}")
    form = FORMATS[file_format]
    if form.bits == 16 and model.config.network.image_channels != 1:
        raise UsageError(f"--format {file_format} supports only 1 channel; use {file_format.removesuffix('16')} or npz")
    return form


def _describe(model: Model, seeds: range, labels: Labels, file_format: str, class_name: str | None) -> Written:
    mark = {key: value for key, value in model.mark(seeds[0]).entries().items() if key != "Seed"}
    rule, classes = "", {}
    if labels is not None:
        counts = torch.bincount(labels, minlength=len(model.classes)).tolist()
        rule = class_name or f"in turn: seed mod {len(model.classes)}"
        classes = dict(zip(model.classes, counts, strict=True))
    return Written(file_format, mark, len(seeds), seeds[0], seeds[-1], rule, classes, model.hub)


def _write_sheets(folder: Path, model: Model, seeds: range, labels: Labels, sheets: Sequence[str]) -> None:
    """Write sheets to a separate folder, so that the folder above holds only samples."""
    if sheets:
        folder.mkdir()
    for name in sheets:
        with open(folder / f"{name}.png", "wb") as file:
            write_sheet(file, name, model, seeds, labels)


def write_sheet(file: IO[bytes], name: str, model: Model, seeds: Sequence[int], labels: Labels) -> None:
    """Write one of `samgan.sampling.sheets.SHEETS` as PNG, with the mark that its images share."""
    mark = model.mark(seeds[0]).entries()
    write_png(file, SHEETS[name](model, seeds, labels), {**mark, "Seed": f"{seeds[0]}..."})


def _marked_samples(model: Model, seeds: Sequence[int], labels: Labels, bits: int) -> Iterator[Sample]:
    steps = math.ceil(len(seeds) / forward_batch(model.generator))
    batches = sample_batches(model, seeds, labels)
    own = iter([None] * len(seeds) if labels is None else labels.tolist())
    for few, images in track(batches, "sampling", steps, console=console(), transient=True):
        for seed, image in zip(few, to_integers(images, bits), strict=True):
            yield Sample(image, model.mark(seed, next(own)).of(image))
