"""A generator ready to sample, from a run folder or a file made by `samgan export`."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Int
from torch import Tensor

from samgan.config import Config, NetworkConfig
from samgan.data import PreparedSet
from samgan.errors import SamganError, UsageError, first_line, one_line
from samgan.files import atomic_write
from samgan.networks import Generator
from samgan.provenance import SOFTWARE, Mark
from samgan.runs import Checkpoint, Run, choose_checkpoint
from samgan.sampling.hub import fetch, hub_model, is_hub_name
from samgan.sampling.shipped import check_known, locate

MODEL_FORMAT = "samgan model 1"
MODEL_SUFFIX = ".safetensors"
Labels = Int[Tensor, " n"] | None
"""The class of each image, from 0; None for a generator without classes."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A generator ready to sample, and the facts that its images carry as a mark."""

    generator: Generator
    config: Config
    images_seen: int
    sha256: str
    """SHA-256 of the generator's weights, in the order of their names."""
    trained_on: tuple[str, ...] = ()
    """As `Run.trained_on`; empty if not known."""
    checkpoint: str = ""
    """Which checkpoint of the run it is: "newest", "best" by quick scores, or "named"; empty if not known."""
    hub: str = ""
    """hf:OWNER/NAME@COMMIT, if it was read from the Hugging Face Hub."""
    truncation: float = 1.0
    """How far from the mean style its images are; see `samgan.sampling.truncated`."""

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(self.generator.parameters()).device

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes in the order of their labels; empty for an unconditional generator."""
        number = self.config.network.num_classes or 0
        return (self.config.data.classes or tuple(map(str, range(number)))) if number else ()

    def labels(self, seeds: Sequence[int], class_name: str | None = None) -> Labels:
        """The class of each seed: `class_name` for all, or in turn (seed mod number of classes); None without classes.

        Raises:
            UsageError: The model has no such class.
        """
        self.require_classes([class_name] if class_name is not None else [])
        if not self.classes:
            return None
        if class_name is not None:
            return torch.full((len(seeds),), self.classes.index(class_name))
        return torch.tensor([seed % len(self.classes) for seed in seeds])

    def require_classes(self, names: Sequence[str]) -> None:
        """Raise a UsageError for the first of `names` that is not a class of this model."""
        for name in names:
            if name not in self.classes:
                known = ", ".join(self.classes) or "none: it was trained without class labels"
                raise UsageError(f"class {name}: expected one of the model's classes ({known})")

    def mark(self, seed: int, label: int | None = None) -> Mark:
        """The mark of the image of `seed` and, with classes, of class `label`.

        An unconditional model that was trained on one class only names that class.
        """
        names = self.config.data.classes
        class_name = self.classes[label] if label is not None else names[0] if len(names) == 1 else ""
        return Mark(self.sha256, self.config.preset, self.images_seen, seed, class_name, truncation=self.truncation)


def is_model(path: Path) -> bool:
    """Whether this looks like a run, a file made by `write_model` or another name of a model; nothing is downloaded."""
    found = locate(path)
    return is_run(path) or is_hub_name(path) or (found.suffix == MODEL_SUFFIX and not found.is_dir())


def is_run(path: Path) -> bool:
    """Whether this looks like a run folder."""
    return (path / "config.json").is_file() and locate(path) == path


def open_model(source: Path, checkpoint: str = "newest", device: str | torch.device = "cpu") -> Model:
    """Open a model.

    Args:
        source: A run folder, a file made by `write_model`, a folder of `samgan publish`, the name of a model that comes
            with samgan, or hf:OWNER/NAME[@REVISION], which is downloaded.
        checkpoint: As for `load_model`, for a run folder.
        device: Where to put it.

    Raises:
        UsageError: A checkpoint was named for a file.
        SamganError: See `load_model`, `read_model` and `samgan.sampling.hub.fetch`.
    """
    if checkpoint != "newest" and is_model(source) and not is_run(source):
        raise UsageError(f"--checkpoint {checkpoint}: {source} is not a run folder, so it has no checkpoints")
    file = find_file(source)
    if file is None:
        return load_model(Run.open(source), checkpoint, device)
    path, hub = file
    return dataclasses.replace(read_model(path, device), hub=hub)


def find_file(source: Path) -> tuple[Path, str] | None:
    """The file of a model that is not in a run folder, downloaded if it is on the Hub; None for anything else.

    Returns:
        The file, and hf:OWNER/NAME@COMMIT if it is from the Hub.

    Raises:
        SamganError: There is nothing of that name, or see `samgan.sampling.hub.fetch`.
    """
    found = locate(source)
    if is_hub_name(found):
        path, named = fetch(hub_model(found))
        return path, str(named)
    check_known(found)
    return (found, "") if found.suffix == MODEL_SUFFIX and not found.is_dir() else None


def load_model(run: Run, checkpoint: str = "newest", device: str | torch.device = "cpu") -> Model:
    """Load the averaged generator of a run (the plain one if averaging was off).

    Args:
        run: The run folder.
        checkpoint: "newest", "best" or a checkpoint file.
        device: Where to put it.

    Raises:
        SamganError: There is no such checkpoint, or it cannot be read.
    """
    return model_of(run, choose_checkpoint(run, checkpoint), checkpoint, device)


def model_of(
    run: Run,
    checkpoint: Checkpoint,
    which: str,
    device: str | torch.device = "cpu",
    generator: Callable[[NetworkConfig], Generator] = Generator,
) -> Model:
    """The generator of a checkpoint that `choose_checkpoint` found for `which`."""
    weights, origin = checkpoint.sampling_weights, f"the checkpoint in {run.path}"
    which = which if which in ("newest", "best") else "named"
    return _build(checkpoint.config, weights, checkpoint.images_seen, device, origin, run.trained_on, which, generator)


def write_model(model: Model, path: Path) -> None:
    """Write what sampling needs to one safetensors file: weights, with configuration and origin as metadata.

    Args:
        model: From `load_model`.
        path: The file, ending in .safetensors; written whole or not at all.

    Raises:
        UsageError: The model is truncated, which the file could not say.
    """
    weights = {name: tensor.contiguous() for name, tensor in model.generator.state_dict().items()}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(weights, {"format": MODEL_FORMAT, **metadata_of(model)}))


def metadata_of(model: Model) -> dict[str, str]:
    """Configuration and origin of a model, as every file of `samgan export` holds them: texts by name.

    Raises:
        UsageError: The model is truncated, which no file can say.
    """
    if model.truncation != 1:
        raise UsageError(
            f"expected a model without truncation, found one of {model.truncation:g}, which its file could not say; "
            "write the model as it was opened, and truncate it after reading"
        )
    return {
        "config": json.dumps(model.config.to_dict()),
        "images_seen": str(model.images_seen),
        "sha256": model.sha256,
        "data_sha256": next(iter(model.trained_on), ""),
        "started_on_data_sha256": " ".join(model.trained_on[1:]),
        "checkpoint": model.checkpoint,
        "software": SOFTWARE,
    }


def read_model(path: Path, device: str | torch.device = "cpu") -> Model:
    """Read a generator that `write_model` wrote.

    Raises:
        SamganError: The file is missing or damaged, or is not a samgan model.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise SamganError(f"{path} cannot be read as a model: {first_line(error)}") from None
    if metadata.get("format") != MODEL_FORMAT:
        raise SamganError(f"{path} is not a samgan model: expected format {MODEL_FORMAT!r}, written by samgan export")
    try:
        settings, images_seen, sha256 = json.loads(metadata["config"]), int(metadata["images_seen"]), metadata["sha256"]
        if not isinstance(settings, dict) or not 0 <= images_seen < 1 << 62:
            raise ValueError("expected an object of settings, and a number of images that is not negative")
        config = Config.from_dict(settings)
    except (KeyError, ValueError, RecursionError, UsageError) as error:
        raise SamganError(
            f"{path} is damaged: its header cannot be read ({one_line(error)}); export it again"
        ) from None
    names = f"{metadata.get('data_sha256', '')} {metadata.get('started_on_data_sha256', '')}"
    which = metadata.get("checkpoint", "")
    model = _build(config, weights, images_seen, device, str(path), names.split(), which)
    if model.sha256 != sha256:
        raise SamganError(f"{path} is damaged: its weights do not match their recorded hash; get a new copy")
    return model


def check_origin(model: Model, source: Path, data: PreparedSet) -> list[str]:
    """Refuse a model of another prepared set: it may have seen patients that are held out of this set.

    Args:
        model: The model.
        source: Where the model comes from, for messages.
        data: The prepared set.

    Returns:
        Sentences about anything its record does not tell.

    Raises:
        UsageError: The model was trained on other data.
    """
    if not model.trained_on:
        return [f"It is not known what {source.name} was trained on: its data may include held-out patients."]
    if model.trained_on[0] != data.sha256:
        raise UsageError(
            f"{source} was trained on other data than {data.path} (sha256 {model.trained_on[0][:12]}, not "
            f"{data.sha256[:12]}): it may have seen the patients that are held out here"
        )
    notes = []
    if set(model.trained_on) != {data.sha256}:
        notes.append(f"{source.name} was fine-tuned from a model of other data, which may include held-out patients.")
    if model.checkpoint == "best":
        notes.append(
            f"{source.name} is the checkpoint with the best quick scores. If 64 or more images are held out, these "
            "scores used them, so held-out images influenced the choice."
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
    constructor: Callable[[NetworkConfig], Generator] = Generator,
) -> Model:
    _check_weights(config, weights, origin, constructor)
    with torch.random.fork_rng(devices=[]):
        generator = constructor(config.network)
    try:
        generator.load_state_dict(weights)
    except RuntimeError:
        raise SamganError(f"the weights in {origin} do not fit its configuration") from None
    generator.eval().requires_grad_(False).to(device)
    return Model(generator, config, images_seen, hash_weights(weights), tuple(trained_on), checkpoint)


def _check_weights(
    config: Config, weights: dict[str, Tensor], origin: str, constructor: Callable[[NetworkConfig], Generator]
) -> None:
    """Refuse weights that do not fit, or are not numbers, before any memory is taken for them.

    A small file may ask for a network of many gigabytes. On the device "meta" a network has shapes and no values.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        own = constructor(config.network).state_dict()
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in own.items()}
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items() if isinstance(tensor, Tensor)}
    if found != expected:
        raise SamganError(f"the weights in {origin} do not fit its configuration")
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise SamganError(f"the weights in {origin} are damaged: {name} is NaN or infinite; get a new copy")


def hash_weights(weights: dict[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
