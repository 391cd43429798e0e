"""The four steps as functions: prepare, train, sample, evaluate; and export and verify."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

from samgan.data import PreparedSet, prepare
from samgan.devices import choose_device, keep_freed_memory
from samgan.errors import SamganError, UsageError
from samgan.files import Location
from samgan.presets import preset_config
from samgan.runs import Run
from samgan.sampling import (
    MODEL_SUFFIX,
    Model,
    Written,
    check_suffix,
    is_model,
    is_run,
    load_model,
    open_model,
    truncated,
    write_graph,
    write_model,
    write_samples,
)
from samgan.scoring import evaluate
from samgan.seeds import as_seed
from samgan.training.run import train
from samgan.trust import Finding, verify_files

__all__ = ["PreparedSet", "evaluate", "export", "prepare", "preset_config", "sample", "train", "verify"]


@dataclass(frozen=True)
class Exported:
    """A generator that was exported as one file."""

    model: Path
    sha256: str
    """SHA-256 of the weights."""
    images_seen: int
    largest_difference: int | None = None
    """In grey levels, between images of a graph and of `sample` that were compared; None for .safetensors."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        seen = {"images_seen": self.images_seen, "largest_difference": self.largest_difference}
        return {"model": str(self.model), "sha256": self.sha256, **seen}


def export(run: Location, out: Location, *, checkpoint: str = "newest") -> Exported:
    """Write the averaged generator of a run as one file, for samgan on another machine or for other programs.

    A graph (.onnx, .pt2) maps latents, and labels if there are classes, to uint8 images. It is written only if its
    images differ from those of `sample` by at most one grey level.

    Args:
        run: The run folder, a .safetensors file made by `export`, or the name of a model that comes with samgan.
        out: The new file, with a name that ends in .safetensors (for `sample` and `evaluate`), .onnx (for ONNX Runtime
            and others; needs the extra `onnx`) or .pt2 (for `torch.export.load`). It holds weights, configuration and
            hashes, but no image.
        checkpoint: "newest", "best" or a checkpoint file, if `run` is a run folder.

    Returns:
        The file, the hash of its weights and the number of images seen in training.

    Raises:
        UsageError: The name of `out` ends differently, or packages for its format are missing.
        SamganError: There is no such run or checkpoint, `out` exists, or a graph makes other images than the model.
    """
    out = Path(out)
    check_suffix(out)
    if out.exists():
        raise SamganError(f"{out} exists; name a new file")
    model = open_model(Path(run), checkpoint)
    difference = None
    if out.suffix == MODEL_SUFFIX:
        write_model(model, out)
    else:
        difference = write_graph(model, out)
    return Exported(out, model.sha256, model.images_seen, difference)


def sample(  # noqa: PLR0913 (options of one call, each with a default)
    source: Location,
    out: Location,
    count: int = 64,
    *,
    seed: SupportsIndex = 0,
    file_format: str = "png",
    sheets: Sequence[str] = (),
    class_name: str | None = None,
    truncation: float = 1.0,
    checkpoint: str = "newest",
    device: str = "auto",
) -> Written:
    """Write synthetic images from a run or from a file made by `export`.

    Args:
        source: The run folder, a file made by `export`, the name of a model that comes with samgan, or
            "hf:OWNER/NAME" or "hf:OWNER/NAME@REVISION" of the Hugging Face Hub (needs the extra `hub`).
        out: New folder.
        count: Number of images.
        seed: Seed of the first image; image i has seed + i.
        file_format: A key of `samgan.provenance.FORMATS`, such as "png", "npz" or "dicom".
        sheets: Keys of `samgan.sampling.sheets.SHEETS`: overview pictures to write in addition.
        class_name: The class of all images; default: the classes take turns, so that each has as many images.
        truncation: How far from the mean style (of its class) each image is: 1: as it was trained; less: less varied,
            and more often free of faults.
        checkpoint: "newest", "best" or a checkpoint file, if the source is a run.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        The content of `samples.json` in the folder: the provenance of its images.

    Raises:
        UsageError: The count is below 1, the seed is not from 0 to 2^32 - count, the class is unknown, or the generator
            cannot be truncated.
        SamganError: There is no such checkpoint, or `out` is in use.
    """
    keep_freed_memory()
    if count < 1:
        raise UsageError(f"--count {count}: expected 1 or more")
    first = as_seed(seed, count)
    model = truncated(open_model(Path(source), checkpoint, choose_device(device)), truncation)
    return write_samples(
        model, Path(out), count, seed=first, file_format=file_format, sheets=sheets, class_name=class_name
    )


def verify(files: Location | Sequence[Location], run: Location | None = None, *, device: str = "auto") -> list[Finding]:
    """Read which model and seed images come from; with the run, regenerate them and compare bit for bit.

    Args:
        files: PNG, DICOM or NPZ files, or one of them.
        run: The run folder, whose checkpoints are all tried, or a file made by `export`.
        device: Where to regenerate the images.

    Returns:
        A finding for each image; its `ok` says whether the image is what it claims to be.

    Raises:
        SamganError: The run cannot be read. If an image cannot be read, its finding says so.
    """
    keep_freed_memory()
    models = None if run is None else _all_models(Path(run), choose_device(device))
    if isinstance(files, str | os.PathLike):  # one file, whose name would otherwise be taken letter by letter
        files = [files]
    return verify_files([Path(file) for file in files], models)


def _all_models(source: Path, device: str) -> Iterator[Model]:
    """The model of a file, or the models of a run's checkpoints, newest first; each is read only when needed."""
    if is_model(source) and not is_run(source):
        return iter([open_model(source, device=device)])
    run = Run.open(source)
    if not run.checkpoints():
        raise SamganError(f"{source} has no checkpoint yet; continue samgan train to its first snapshot")

    def load() -> Iterator[Model]:
        for path in reversed(run.checkpoints()):
            try:
                yield load_model(run, str(path), device)
            except SamganError as error:
                warnings.warn(f"skipped a checkpoint: {error}", stacklevel=2)

    return load()
