"""rows/KEY.json: what is known about one job of a sweep after it has ended."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from samgan.documents import Document
from samgan.metrics.feature_networks.inception import INCEPTION
from samgan.runs import Collapse
from samgan.scoring import Scores

Curve = tuple[tuple[float, float], ...]
"""Points (kimg, value)."""


@dataclass(frozen=True, kw_only=True)
class ScoredBy:
    """What decides the scores of a run."""

    features: str | tuple[float, ...] | None = None
    """The name of a network, or what a module computes from fixed images."""
    weights_sha256: str | None = None
    """Of the weights of a named network."""
    count: int | None = None
    protocol: str = "standard"
    computes: int
    """`samgan.scoring.SCORING` at that time."""

    def equals(self, other: "ScoredBy") -> bool:
        """Whether both give the same scores; what equal modules compute may differ by rounding."""
        first, second = self.features, other.features
        if isinstance(first, tuple) and isinstance(second, tuple):
            same = len(first) == len(second) and np.allclose(first, second, rtol=1e-3)
        else:
            same = first == second
        rest = [(by.weights_sha256, by.count, by.protocol, by.computes) for by in (self, other)]
        return bool(same) and rest[0] == rest[1]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is known about the training of a job."""

    config: dict[str, Any]
    """As it was resolved on the machine, so that `training.precision` is never "auto"."""
    commit: str | None
    processor: str | None
    device: str | None
    kimg: float
    wall_minutes: float
    images_per_second: float
    """Median over the lines of the log."""
    gamma: dict[str, float]
    """By attention layer, the weight of attention at the end."""
    curves: dict[str, Curve]
    """By name of a logged number or a quick score."""
    collapse: Collapse | None
    """The alarm, if the run was recognised as collapsed while it trained."""
    ended_early: bool = False
    """Whether training ended at the alarm of its collapse."""


@dataclass(frozen=True, kw_only=True)
class ScoredAt:
    """Scores of a job on its way."""

    kimg: float
    scores: Scores
    second_scores: Scores | None = None
    """By other features, if they were asked for."""


@dataclass(frozen=True, kw_only=True)
class RowDocument(Document):
    """What is known about one job. Its schema number goes up whenever that of the scores in it does."""

    SCHEMA: ClassVar[int] = 2
    SCORES_SCHEMA: ClassVar[int] = 2
    """The schema of `scores`."""
    KIND: ClassVar[str] = "a row of a sweep"
    MADE_BY: ClassVar[str] = "samgan table2 after deleting this file"

    name: str
    seed: int
    key: str
    scoring: ScoredBy
    on_collapse: Literal["warn", "stop", "ignore"] = "warn"
    trained: Trained | None = None
    """Of a run that failed, up to its last checkpoint; None if it has none."""
    scores: Scores | None = None
    """None if training or scoring failed."""
    second_scores: Scores | None = None
    """By other features, if they were asked for."""
    scored_at: tuple[ScoredAt, ...] = ()
    """Smallest length first."""
    failed: str | None = None
    """Why it failed."""
    failures: int = 0
    """How many calls in a row have failed to train or to score it; records from before this was counted say 0."""

    @classmethod
    def upgrade(cls, tree: dict[str, Any], schema: int) -> dict[str, Any]:
        """Schema 1 knew only weights of the Inception; in schema 0 all facts about the training were keys of the row.

        Schema 0 also had a version that said what scores compute.
        """
        scoring = dict(tree["scoring"])
        given = scoring.pop("inception_weights", None)
        scoring["weights_sha256"] = given or (INCEPTION.sha256 if scoring.get("features") == "inception" else None)
        if schema == 0:
            names = set(Trained.__dataclass_fields__)
            tree["trained"] = {name: tree.pop(name) for name in names & tree.keys()} or None
            if scoring.pop("version", None) != "0.1.0":
                raise ValueError("scoring.version is not 0.1.0")
            scoring["computes"] = 1
            if tree.get("scores"):
                tree["scores"] = Scores.upgrade(dict(tree["scores"]), 0)
        return {**tree, "scoring": scoring}

    @property
    def title(self) -> str:
        """For messages, tables and pages."""
        return f"{self.name}, seed {self.seed}"


def row_path(out: Path, key: str) -> Path:
    """The file of a job's row."""
    return out / "rows" / f"{key}.json"


def keep_row(row: RowDocument, out: Path) -> RowDocument:
    """Write a row to its file; one that failed does not take the place of earlier scores.

    Returns:
        The row; of one that failed, with the number of failures so far.
    """
    path = row_path(out, row.key)
    earlier = RowDocument.read(path) if row.failed is not None and path.exists() else None
    if row.failed is not None:
        before = max(1, earlier.failures) if earlier and earlier.failed is not None else 0
        row = replace(row, failures=before + 1)
    if earlier is None or earlier.scores is None:
        row.write(path)
    return row


class Finished(NamedTuple):
    """A job that was trained and scored."""

    row: RowDocument
    trained: Trained
    scores: Scores


def finished_rows(rows: Iterable[RowDocument]) -> list[Finished]:
    """The rows of jobs that did not fail."""
    return [Finished(row, row.trained, row.scores) for row in rows if row.trained and row.scores]
