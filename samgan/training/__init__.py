"""Training: from a prepared set to a run folder."""

from samgan.training.augment import CHANGES, MAX_PROBABILITY, AdaptiveProbability, augment
from samgan.training.batches import Batch, Sampler, random_generator
from samgan.training.cost import Cost, plan
from samgan.training.loggers import LOGGERS, Logger, LoggerKind, check_loggers
from samgan.training.loop import Interrupted, Options, check_fit, check_start, train_loop
from samgan.training.losses import LOSSES, PENALTIES, Loss, relativistic_average_hinge
from samgan.training.recipe import Recipe
from samgan.training.run import choose_classes, choose_length, train
from samgan.training.snapshots import SCORED_IMAGES, Scorer
from samgan.training.state import TrainingState
from samgan.training.step import ARITHMETIC, CapturedPasses, discriminator_loss, train_step
from samgan.training.unused import unused_settings

__all__ = [
    "ARITHMETIC",
    "CHANGES",
    "LOGGERS",
    "LOSSES",
    "MAX_PROBABILITY",
    "PENALTIES",
    "SCORED_IMAGES",
    "AdaptiveProbability",
    "Batch",
    "CapturedPasses",
    "Cost",
    "Interrupted",
    "Logger",
    "LoggerKind",
    "Loss",
    "Options",
    "Recipe",
    "Sampler",
    "Scorer",
    "TrainingState",
    "augment",
    "check_fit",
    "check_loggers",
    "check_start",
    "choose_classes",
    "choose_length",
    "discriminator_loss",
    "plan",
    "random_generator",
    "relativistic_average_hinge",
    "train",
    "train_loop",
    "train_step",
    "unused_settings",
]
