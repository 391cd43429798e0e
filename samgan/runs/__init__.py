"""Run folders: settings, log, checkpoints, and signs of a collapse in the log."""

from samgan.runs.checkpoints import (
    Checkpoint,
    choose_checkpoint,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    record_best,
    save_checkpoint,
)
from samgan.runs.collapse import Collapse, CollapseWatch, find_collapse
from samgan.runs.documents import Best, Environment, Start, TrainedOn
from samgan.runs.folder import Run, describe_environment

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
    "prune_checkpoints",
    "record_best",
    "save_checkpoint",
]
