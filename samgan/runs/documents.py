"""The small documents of a run folder: how to repeat the run, and which checkpoint is the best."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from samgan.documents import Document


@dataclass(frozen=True)
class TrainedOn:
    """The prepared set of a run."""

    name: str
    sha256: str
    images: int | None = None
    """Number of training images."""


@dataclass(frozen=True)
class Start:
    """The run whose networks another run began with."""

    run: str
    images_seen: int
    data: TrainedOn | None = None
    start: "Start | None" = None
    """The run that this one began with, if any."""


@dataclass(frozen=True, kw_only=True)
class Environment(Document):
    """environment.json: versions, machine, command, source commit and data at the start of a run."""

    KIND: ClassVar[str] = "the environment of a run"
    MADE_BY: ClassVar[str] = "samgan train"

    samgan: str = ""
    commit: str | None = None
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    """Version by name."""
    platform: str = ""
    processor: str = ""
    cores: int | None = None
    """Cores that the process may use."""
    device: str = ""
    command: tuple[str, ...] = ()
    """Without folders."""
    data: TrainedOn | None = None
    start: Start | None = None

    @classmethod
    def upgrade(cls, tree: dict[str, Any], schema: int) -> dict[str, Any]:
        """Before there were schema numbers, an unknown set was an empty object."""
        tree["data"] = tree.get("data") or None
        if tree.get("start"):
            tree["start"] = cls.upgrade(dict(tree["start"]), schema)
        return tree


@dataclass(frozen=True, kw_only=True)
class Best(Document):
    """checkpoints/best.json: the best checkpoint of a run by one score."""

    KIND: ClassVar[str] = "the best checkpoint of a run"
    MADE_BY: ClassVar[str] = "samgan train"

    checkpoint: str
    """The name of its file."""
    score: str
    """Name of the score; lower is better."""
    value: float
