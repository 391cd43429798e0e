"""From a run to images: seeds -> latents -> pyramid of the averaged generator. The same seed, the same image."""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from samgan.checkpoint import choose_checkpoint
from samgan.config import Config
from samgan.data import PreparedSet
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write, write_json
from samgan.layers import SelfAttention
from samgan.networks import Generator, Pyramid, attention_maps
from samgan.pictures import image_grid, to_integers, to_uint8, write_png
from samgan.provenance import FORMATS, SOFTWARE, Mark, Sample
from samgan.runs import Run

# Every forward pass has this many latents, the last one padded: the arithmetic, and with it the last bit of a pixel,
# then does not depend on how many images were asked for.
FORWARD_BATCH = 32
SEEDS = 1 << 32
"""torch's CPU generator takes the lower 32 bits of a seed: from here on they would repeat."""
MODEL_FORMAT = "samgan model 1"
MODEL_SUFFIX = ".safetensors"
SHEETS = ("grid", "interpolation", "scales", "attention")
Labels = Int[Tensor, " n"] | None
"""Of each image its class, from 0; None for a generator without classes."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A generator ready to sample, and what its images say of themselves."""

    generator: Generator
    config: Config
    images_seen: int
    sha256: str
    """Of the generator's weights, in the order of their names."""
    trained_on: tuple[str, ...] = ()
    """As `Run.trained_on`; none: it is not known."""
    checkpoint: str = ""
    """Which one of the run it is: "newest", "best" by quick scores, or "named"; empty: it is not known."""

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(self.generator.parameters()).device

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes in the order of their labels; none: it is not told of classes."""
        number = self.config.network.num_classes or 0
        return (self.config.data.classes or tuple(map(str, range(number)))) if number else ()

    def labels(self, seeds: Sequence[int], class_name: str | None = None) -> Labels:
        """The class of each seed: all `class_name`, or classes in turn: seed mod their number; None without classes.

        Raises:
            UsageError: There is no such class.
        """
        self.require_classes([class_name] if class_name is not None else [])
        if not self.classes:
            return None
        if class_name is not None:
            return torch.full((len(seeds),), self.classes.index(class_name))
        return torch.tensor([seed % len(self.classes) for seed in seeds])

    def require_classes(self, names: Sequence[str]) -> None:
        """Raise a UsageError that names the first of `names` that it has not learnt."""
        for name in names:
            if name not in self.classes:
                known = ", ".join(self.classes) or "none: it was trained without"
                raise UsageError(f"class {name}: expected one of the model's classes ({known})")

    def mark(self, seed: int, label: int | None = None) -> Mark:
        """What the image of `seed`, and of class `label` if there are classes, says of itself.

        A model without classes that was trained on one alone names that one.
        """
        names = self.config.data.classes
        class_name = self.classes[label] if label is not None else names[0] if len(names) == 1 else ""
        return Mark(self.sha256, self.config.preset, self.images_seen, seed, class_name)


def is_model(path: Path) -> bool:
    """Whether this is a run folder or a file of `write_model`, by its looks."""
    return (path / "config.json").is_file() or (path.suffix == MODEL_SUFFIX and not path.is_dir())


def open_model(source: Path, checkpoint: str = "newest", device: str | torch.device = "cpu") -> Model:
    """The model of a run folder or of a file of `write_model`.

    Raises:
        UsageError: A file and a checkpoint.
        SamganError: As `load_model` and `read_model`.
    """
    if source.suffix != MODEL_SUFFIX or source.is_dir():
        return load_model(Run.open(source), checkpoint, device)
    if checkpoint != "newest":
        raise UsageError(f"--checkpoint {checkpoint}: {source} is not a run")
    return read_model(source, device)


def load_model(run: Run, checkpoint: str = "newest", device: str | torch.device = "cpu") -> Model:
    """The averaged generator of a run (the plain one where averaging was off).

    Args:
        run: The run folder.
        checkpoint: "newest", "best" or a checkpoint file.
        device: Where to put it.

    Raises:
        SamganError: No such checkpoint, or not readable.
    """
    _, state = choose_checkpoint(run, checkpoint)
    return model_of(run, state, checkpoint, device)


def model_of(run: Run, state: dict[str, Any], checkpoint: str, device: str | torch.device = "cpu") -> Model:
    """The generator of what `choose_checkpoint` found."""
    config, weights = Config.from_dict(state["config"]), state["ema_generator"] or state["generator"]
    origin = f"the checkpoint in {run.path}"
    which = checkpoint if checkpoint in ("newest", "best") else "named"
    return _build(config, weights, state["images_seen"], device, origin, run.trained_on, which)


def write_model(model: Model, path: Path) -> None:
    """Write what sampling needs as one safetensors file: weights, and as its metadata configuration and origin.

    Args:
        model: From `load_model`.
        path: The file, ending in .safetensors; written whole or not at all.
    """
    weights = {name: tensor.contiguous() for name, tensor in model.generator.state_dict().items()}
    metadata = {
        "format": MODEL_FORMAT,
        "config": json.dumps(model.config.to_dict()),
        "images_seen": str(model.images_seen),
        "sha256": model.sha256,
        "data_sha256": next(iter(model.trained_on), ""),
        "started_on_data_sha256": " ".join(model.trained_on[1:]),
        "checkpoint": model.checkpoint,
        "software": SOFTWARE,
    }
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(weights, metadata))


def read_model(path: Path, device: str | torch.device = "cpu") -> Model:
    """The generator that `write_model` wrote.

    Raises:
        SamganError: The file is missing, damaged or no model of ours.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise SamganError(f"{path} cannot be read as a model: {str(error).splitlines()[0]}") from None
    if metadata.get("format") != MODEL_FORMAT:
        raise SamganError(f"{path} is no model of samgan: expected format {MODEL_FORMAT!r}, as samgan export writes")
    config = Config.from_dict(json.loads(metadata["config"]))
    names = f"{metadata.get('data_sha256', '')} {metadata.get('started_on_data_sha256', '')}"
    which = metadata.get("checkpoint", "")
    model = _build(config, weights, int(metadata["images_seen"]), device, str(path), names.split(), which)
    if model.sha256 != metadata["sha256"]:
        raise SamganError(f"{path} is damaged: its weights are not those that were written; get it again")
    return model


def check_origin(model: Model, source: Path, data: PreparedSet) -> list[str]:
    """Refuse a model of another prepared set: it may have seen patients that are held out of this one.

    Args:
        model: The model.
        source: Where it is from, for the messages.
        data: The prepared set.

    Returns:
        Sentences on what its record leaves open.

    Raises:
        UsageError: It was trained on other data.
    """
    if not model.trained_on:
        return [f"What {source.name} was trained on is not known: held-out patients may be among it."]
    if model.trained_on[0] != data.sha256:
        raise UsageError(
            f"{source} was trained on other data than {data.path} (sha256 {model.trained_on[0][:12]}, not "
            f"{data.sha256[:12]}): it may have seen the patients that are held out here"
        )
    notes = []
    if set(model.trained_on) != {data.sha256}:
        notes.append(
            f"{source.name} began with a model of other data: whether held-out patients are in it is not known."
        )
    if model.checkpoint == "best":
        notes.append(
            f"{source.name} is the best of several checkpoints by quick scores, against held-out images where 64 or "
            "more are: these had a say in which one it is."
        )
    return notes


def _build(
    config: Config,
    weights: dict[str, Tensor],
    images_seen: int,
    device: str | torch.device,
    origin: str,
    trained_on: Sequence[str],
    checkpoint: str,
) -> Model:
    with torch.random.fork_rng(devices=[]):
        generator = Generator(config.network)
    try:
        generator.load_state_dict(weights)
    except RuntimeError:
        raise SamganError(f"{origin} holds other weights than its configuration says") from None
    generator.eval().requires_grad_(False).to(device)
    return Model(generator, config, images_seen, hash_weights(weights), tuple(trained_on), checkpoint)


def hash_weights(weights: dict[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def latents_of_seeds(seeds: Sequence[int], latent_size: int) -> Float[Tensor, "n latent"]:
    """One N(0, 1) latent per seed, drawn on the CPU, each from its own generator."""
    return torch.stack([torch.randn(latent_size, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])


def labels_like(labels: Int[np.ndarray, " n"], count: int) -> Int[Tensor, " count"]:
    """`count` labels in the proportions of `labels`, ascending: every (n / count)-th of them."""
    return torch.from_numpy(np.sort(labels)[np.arange(count) * len(labels) // count])


@torch.inference_mode()
def generate(generator: Generator, latents: Float[Tensor, "n latent"], labels: Labels = None) -> Iterator[Pyramid]:
    """Yield CPU pyramids of up to `FORWARD_BATCH` images, in the order of `latents`; values are not clipped."""
    device = next(generator.parameters()).device
    for start in range(0, len(latents), FORWARD_BATCH):
        chunk = latents[start : start + FORWARD_BATCH]
        padding = FORWARD_BATCH - len(chunk)
        own = None if labels is None else F.pad(labels[start : start + FORWARD_BATCH], (0, padding)).to(device)
        pyramid = generator(F.pad(chunk, (0, 0, 0, padding)).to(device), own)
        yield [images[: len(chunk)].float().cpu() for images in pyramid]


def sample(model: Model, seeds: Sequence[int], labels: Labels = None) -> Float[Tensor, "n c h w"]:
    """The full-size images of `seeds`, float around [-1, 1] on the CPU; of classes in turn if `labels` do not say."""
    return torch.cat([images for _, images in sample_batches(model, seeds, labels)])


def sample_batches(
    model: Model, seeds: Sequence[int], labels: Labels = None
) -> Iterator[tuple[Sequence[int], Float[Tensor, "n c h w"]]]:
    """Yield (seeds, images) of up to `FORWARD_BATCH`, as `sample` gives them, without keeping them all."""
    labels = model.labels(seeds) if labels is None else labels
    for start in range(0, len(seeds), FORWARD_BATCH):
        few = seeds[start : start + FORWARD_BATCH]
        own = None if labels is None else labels[start : start + FORWARD_BATCH]
        (pyramid,) = generate(model.generator, latents_of_seeds(few, model.generator.latent_size), own)
        yield few, pyramid[-1]


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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SamganError(f"{out} exists and is not empty; name a new folder")
    network = model.config.network
    write, bits = FORMATS[file_format]
    if bits == 16 and network.image_channels != 1:
        raise UsageError(f"--format {file_format} is for 1 channel; use {file_format.removesuffix('16')} or npz")
    if "attention" in sheets and not any(isinstance(layer, SelfAttention) for layer in model.generator.modules()):
        raise UsageError(f"the generator of preset {model.config.preset} has no attention between positions to show")
    seeds = range(seed, seed + count)
    labels = model.labels(seeds, class_name)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        write(temporary, _marked_samples(model, seeds, labels, bits), count)
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
