"""Run folders: settings, log, checkpoints, and signs of a collapse in the log."""

from typing import TYPE_CHECKING, Any

from samgan.runs.collapse import Collapse, CollapseWatch, find_collapse
from samgan.runs.documents import Best, Environment, Start, TrainedOn
from samgan.runs.folder import Run, describe_environment, processor_name

if TYPE_CHECKING:
    from samgan.runs.checkpoints import (
        Checkpoint,
        choose_checkpoint,
        load_checkpoint,
        newest_checkpoint,
        prune_checkpoints,
        record_best,
        save_checkpoint,
    )

__all__ = [
    "Best",
    "Checkpoint",
    "Collapse",
    "CollapseWatch",
    "Environment",
    "Run",
    "Start",
    "TrainedOn",
    "choose_checkpoint",
    "describe_environment",
    "find_collapse",
    "load_checkpoint",
    "newest_checkpoint",
    "processor_name",
    "prune_checkpoints",
    "record_best",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    """Import what reads and writes checkpoints when it is first used: it needs torch, a look at a run does not."""
    if name in __all__:
        from samgan.runs import checkpoints

        return getattr(checkpoints, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
