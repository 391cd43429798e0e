"""Models below the root that can make pictures, and those that come with samgan; found without reading weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors

import samgan
from samgan.config import Config
from samgan.errors import SamganError, UsageError, shown
from samgan.grids import grid_images
from samgan.runs import Run
from samgan.studio.catalogue import MODEL_SUFFIX, Catalogue

SHIPPED = Path(samgan.__file__).with_name("models")
"""Where the models lie that come with samgan; in forms, the name of one stands for it if nothing here has that name."""
FORMAT = "samgan model 1"
"""What a file of `samgan export` says of itself (`samgan.sampling.model`, which needs torch)."""
COMPARING = ("self", "linear", "dual")
"""Kinds of attention that compare places of an image, so that there are maps to show."""


@dataclass(frozen=True)
class FoundModel:
    """A model, by what is written beside its weights."""

    place: str
    """Below the root, or the name of a model that comes with samgan."""
    path: Path
    kind: Literal["run", "file", "shipped"]
    config: Config
    images_seen: int
    data_sha256: str = ""
    """Of the prepared set that it was trained on; empty if not known."""

    @property
    def side(self) -> int:
        """Height and width of its images in pixels."""
        return self.config.network.resolution

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that it can be asked for; empty for an unconditional model."""
        number = self.config.network.num_classes or 0
        return (self.config.data.classes or tuple(map(str, range(number)))) if number else ()

    @property
    def trained_classes(self) -> tuple[str, ...]:
        """Classes of the images that it was trained on; empty for all."""
        return self.classes or self.config.data.classes

    @property
    def can_truncate(self) -> bool:
        """Whether its images can be moved towards the mean style."""
        return self.config.network.mapping_layers > 0

    @property
    def attends(self) -> bool:
        """Whether its generator has attention of which maps can be shown."""
        network = self.config.network
        return bool(network.generator_attention) and network.attention_kind in COMPARING

    @property
    def most(self) -> int:
        """Pictures that a page shows at once."""
        return grid_images(self.side)


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint of a run."""

    name: str
    """Of its file."""
    kimg: float
    """Thousands of images that were seen before."""


def find_checkpoints(catalogue: Catalogue, model: FoundModel) -> list[FoundCheckpoint]:
    """The checkpoints that a run has kept, oldest first.

    Raises:
        Outside: A link leads one out of the root.
    """
    run = Run(model.path)
    for path in run.checkpoints():
        catalogue.root.check(path)
    batch = model.config.training.batch_size
    steps = ((path.name, int(path.stem.removeprefix("step-"))) for path in run.checkpoints())
    return [FoundCheckpoint(name, step * batch / 1000) for name, step in steps]


def find_models(catalogue: Catalogue) -> list[FoundModel]:
    """All models below the root that have weights, then those that come with samgan."""
    found = []
    for path, kind in catalogue.models():
        try:
            place = catalogue.root.place(path)
            found.append(_run(catalogue, place) if kind == "run" else _file(catalogue, place, path))
        except (OSError, SamganError):
            continue  # without weights, damaged, or weights of something else
    return sorted(found, key=lambda model: model.place) + [_read(path.stem, path, "shipped") for path in _shipped()]


def find_model(catalogue: Catalogue, place: str) -> FoundModel:
    """The model of this name.

    Raises:
        Outside: It is not below the root.
        SamganError: There is none, or it cannot be read.
    """
    path = catalogue.root.find(place)
    if path.is_dir():
        return _run(catalogue, place)
    if path.is_file():
        return _file(catalogue, place, path)
    for file in _shipped():
        if file.stem == place:
            return _read(place, file, "shipped")
    raise SamganError(f"There is no model {shown(place)} in the folder of this studio.")


def _shipped() -> list[Path]:
    return [
        path for path in sorted(SHIPPED.glob(f"*{MODEL_SUFFIX}")) if path.with_suffix(".md").is_file() and _is(path)
    ]


def _is(path: Path) -> bool:
    try:
        return _metadata(path).get("format") == FORMAT
    except SamganError:
        return False


def _run(catalogue: Catalogue, place: str) -> FoundModel:
    run = catalogue.describe_run(place)
    if run.config is None:
        raise SamganError(f"There is no run in {shown(place)}, or it is damaged. {run.problem}")
    path = catalogue.root.find(place)
    if not run.saved_step:
        raise SamganError(f"{shown(place)} has no checkpoint yet: wait for its first snapshot.")
    for file in (path / "checkpoints").iterdir():
        catalogue.root.check(file)
    images_seen = run.saved_step * run.config.training.batch_size
    sha256 = run.environment.data.sha256 if run.environment and run.environment.data else ""
    return FoundModel(place, path, "run", run.config, images_seen, sha256)


def _file(catalogue: Catalogue, place: str, path: Path) -> FoundModel:
    if path.suffix != MODEL_SUFFIX:
        raise UsageError(f"{shown(place)} is not a model: expected a run, or a file of samgan export ({MODEL_SUFFIX})")
    return catalogue.remembered(path, "model", lambda: _read(place, path, "file"))


def _read(place: str, path: Path, kind: Literal["file", "shipped"]) -> FoundModel:
    metadata = _metadata(path)
    if metadata.get("format") != FORMAT:
        raise SamganError(f"{shown(place)} is not a model of samgan: expected a file written by samgan export")
    try:
        config = Config.from_dict(json.loads(metadata["config"]))
        return FoundModel(place, path, kind, config, int(metadata["images_seen"]), metadata.get("data_sha256", ""))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, SamganError):
        raise SamganError(f"{shown(place)} is damaged: its header cannot be read; export it again") from None


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safetensors.safe_open(path, "np") as file:
            return file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise SamganError(f"{shown(path.name)} cannot be read as a model: {error}") from None
