"""Synthetic images from any source: a run, an exported model, a folder, an archive or an array."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from samgan.config import Config, NetworkConfig
from samgan.data import PreparedSet
from samgan.data.images import Pictures, read_pictures
from samgan.errors import SamganError, UsageError
from samgan.files import Location
from samgan.networks import Generator
from samgan.pictures import to_uint8
from samgan.runs import Checkpoint, Run, choose_checkpoint
from samgan.sampling.hub import hub_model, is_hub_name
from samgan.sampling.images import sample_batches
from samgan.sampling.model import Labels, Model, check_origin, is_model, is_run, model_of, open_model
from samgan.sampling.origin import Origin


class Source:
    """Synthetic images, and what is known about them.

    Attributes:
        path: The run, file or folder; None for an array.
        run: The run folder, if the source is one.
        checkpoint: The run's checkpoint that `model` was read from.
        model: The generator of a run or an exported model; None for stored images.
        described: What documents record about the source.
        said: What was done to stored images when they were read, one sentence each.
    """

    said: tuple[str, ...] = ()

    def __init__(
        self,
        described: Origin,
        *,
        path: Path | None = None,
        run: Run | None = None,
        checkpoint: Checkpoint | None = None,
        model: Model | None = None,
        stored: UInt8[Tensor, "n c h w"] | None = None,
    ) -> None:
        self.described, self.path, self.run, self.checkpoint, self.model = described, path, run, checkpoint, model
        self._pictures = None if stored is None else Pictures(stored, ())
        self._like: PreparedSet | None = None

    @classmethod
    def open(
        cls,
        source: "Location | np.ndarray | Source",
        *,
        checkpoint: str = "newest",
        device: str | torch.device = "cpu",
        generator: Callable[[NetworkConfig], Generator] = Generator,
    ) -> "Source":
        """Open a source of synthetic images; images in files are read only when needed.

        Args:
            source: What `open_model` takes, a folder with images or a samples.npz, an .npz or .npy file, or images as
                an array, uint8 [n c h w]. A source that is already open is returned.
            checkpoint: "newest", "best" or a checkpoint file; only for a run.
            device: Where the generator runs.
            generator: Its constructor, for a run that was trained with another recipe.

        Raises:
            UsageError: A checkpoint was named, but the source is not a run.
            SamganError: The run or model cannot be read, or an array is not uint8 [n c h w].
        """
        if isinstance(source, Source):
            return source
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8 or source.ndim != 4:
                raise SamganError(
                    f"expected uint8 images [n c h w], got {source.dtype} {list(source.shape)}: convert them first"
                )
            return cls(Origin("images"), stored=torch.from_numpy(np.require(source, requirements=["C", "W"])))
        path = Path(source)
        name = path.resolve().name
        run = state = model = None
        if is_run(path):
            run = Run.open(path)
            state = choose_checkpoint(run, checkpoint)
            model = model_of(run, state, checkpoint, device, generator)
        elif checkpoint != "newest":
            raise UsageError(f"--checkpoint {checkpoint}: {path} is not a run folder, so it has no checkpoints")
        elif is_model(path):
            model = open_model(path, device=device)
        described = Origin(name)
        if model:
            described = Origin(model.hub or name, model.config.preset, model.images_seen, model.sha256)
        return cls(described, path=path, run=run, checkpoint=state, model=model)

    @property
    def config(self) -> Config | None:
        """Configuration of the model; None for stored images."""
        return self.model.config if self.model else None

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that the model was trained on, if its configuration names them."""
        if self.model is None:
            return ()
        return self.model.classes or self.model.config.data.classes

    def folder(self, suffix: str) -> Path:
        """Where to write documents about this source: its folder, or a new one next to it, named with `suffix`.

        Those of a folder of `samgan publish` are not written into it, since they can show real images.

        Raises:
            UsageError: The source is an array.
        """
        if self.path is None:
            raise UsageError("images in memory have no folder of their own; name one with out")
        if is_hub_name(self.path):
            return Path(f"{hub_model(self.path).repository.split('/')[1]}-{suffix}")
        if self.path.is_dir():
            return self.path if self.run or not self.model else self.path.with_name(f"{self.path.name}-{suffix}")
        return self.path.with_name(f"{self.path.stem}-{suffix}")

    def check_origin(self, data: PreparedSet) -> list[str]:
        """Refuse a model that was trained on another prepared set; report anything its record does not tell.

        Returns:
            Sentences about what is not known; for stored images, that it is not known what made them.

        Raises:
            UsageError: The model was trained on other data: it may have seen patients that are held out here.
        """
        if self.model is None:
            return [f"It is not known what made {self.described.name}; it must not have seen any held-out patient."]
        assert self.path is not None
        return check_origin(self.model, self.path, data)

    def images(
        self, count: int | None = None, labels: Labels = None, *, seed: int = 0, like: PreparedSet | None = None
    ) -> UInt8[Tensor, "n c h w"]:
        """The synthetic images.

        Args:
            count: Number of images; a model needs one. For stored images, None takes all, and a smaller number than
                there are takes that many at random, in their order.
            labels: Class of each image, for a conditional model; default: the classes take turns. Ignored for stored
                images.
            seed: For a model, the seed of the first image; image i has seed + i. For stored images, the seed of the
                random choice.
            like: The set that the images will be compared with. Stored images of another size are prepared as it was,
                and `said` says so (`samgan.data.images.read_pictures`). None: they stay as they are.

        Raises:
            UsageError: The source is a model, but no count was given.
            SamganError: The files hold no images, or images that cannot be used.
        """
        if self.model is not None:
            if count is None:
                raise UsageError(f"{self.described.name}: say how many images to make; a model has no fixed number")
            batches = sample_batches(self.model, range(seed, seed + count), labels)
            return torch.cat([to_uint8(images) for _, images in batches])
        stored = self._read(like).images
        return stored[self._chosen(len(stored), count, seed)]

    def names(self, count: int, labels: Labels = None, *, seed: int = 0) -> list[str]:
        """A name for each image that `images` returns for the same arguments: its seed, its file, or its position.

        A model with classes makes another image of the same seed for each class: "seed 7, class NORMAL".
        """
        if self.model is not None:
            seeds = range(seed, seed + count)
            labels = self.model.labels(seeds) if labels is None else labels
            if labels is None:
                return [f"seed {one}" for one in seeds]
            of_class = [self.model.classes[label] for label in labels.tolist()]
            return [f"seed {one}, class {name}" for one, name in zip(seeds, of_class, strict=True)]
        stored = self._pictures or self._read(None)
        chosen = self._chosen(len(stored.images), count, seed).tolist()
        return [stored.names[index] if stored.names else f"image {index}" for index in chosen]

    def _read(self, like: PreparedSet | None) -> Pictures:
        if self.path is not None and (self._pictures is None or self._like is not like):
            self._pictures, self._like = read_pictures(self.path, like), like
            self.said = self._pictures.said
        if self._pictures is None:
            raise SamganError("there are no images")
        return self._pictures

    @staticmethod
    def _chosen(total: int, count: int | None, seed: int) -> Int[Tensor, " m"]:
        if count is None or count >= total:
            return torch.arange(total)
        return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values
