"""What a sweep runs, how it scores, and where: the records that `run_sweep` is given."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

from samgan.config import Config
from samgan.files import hash_json
from samgan.metrics.load_features import load_features, weights_sha256
from samgan.scoring import SCORING
from samgan.studies.sweep_row import RowDocument, ScoredBy
from samgan.training import ARITHMETIC


@dataclass(frozen=True)
class Job:
    """One configuration, to be trained on one prepared set."""

    name: str
    config: Config
    data: str
    """Folder of the prepared set."""
    data_sha256: str
    minutes: float | None
    """Length in minutes of training; None: `training.kimg` is the length."""
    score_at: tuple[float, ...] = ()
    """Lengths in kimg at which it is scored on the way, smallest first; they decide nothing about the training."""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.training.seed

    @property
    def key(self) -> str:
        """Name, seed and a hash of everything that decides what the run computes.

        Only settings that differ from their defaults are hashed (`Config.chosen`).
        """
        settings = self.config.chosen()
        decides = {"settings": settings, "data": self.data_sha256, "minutes": self.minutes, "arithmetic": ARITHMETIC}
        return f"{self.name}-seed{self.seed}-{hash_json(decides)[:8]}"


@dataclass(frozen=True)
class Scoring:
    """How runs are scored: arguments of `samgan.api.evaluate`."""

    features: str | None = None
    features_file: str | None = None
    count: int | None = None
    shape: tuple[int, int, int] = (1, 64, 64)
    """[c h w] of the images that a module of features is tried on."""
    second_features: str | None = None
    """A named network whose scores are kept beside these; a row that has been scored without it is not scored again."""
    protocol: str = "standard"

    @functools.cached_property
    def key(self) -> ScoredBy:
        """What decides the scores: a module of features by what it computes, a named network by its weights."""
        features: str | tuple[float, ...] | None = self.features
        sha256 = None
        if self.features and Path(self.features).is_file():
            features = tuple(load_features(self.features).fingerprint(self.shape))
        elif self.features:
            sha256 = weights_sha256(self.features, Path(self.features_file) if self.features_file else None)
        return ScoredBy(
            features=features, weights_sha256=sha256, count=self.count, protocol=self.protocol, computes=SCORING
        )

    def scored(self, row: RowDocument) -> bool:
        """Whether a row was scored in this way."""
        return self.key.equals(row.scoring)


@dataclass(frozen=True)
class Resources:
    """Where jobs run, and what each of them takes."""

    ray: str | None = None
    """None: in this process. "local": workers of this machine. Otherwise the address of a Ray cluster, or "auto"."""
    cores: int | None = None
    """CPU cores of each job; None: all of this machine."""
    gpus: float = 0.0
    """GPUs of each job, on Ray or Slurm."""
    device: str = "auto"
    slurm: bool = False
    """Whether jobs run as an array of Slurm."""

    @property
    def here(self) -> bool:
        """Whether jobs run in this process."""
        return self.ray is None and not self.slurm

    def on_another_machine(self) -> "Resources":
        """The same for a job on another machine, which takes no GPU that it was not given."""
        device = "cpu" if self.device == "auto" and not self.gpus else self.device
        return dataclasses.replace(self, device=device)
