"""Training: from a prepared set to a run folder."""

from samgan.training.augment import CHANGES, MAX_PROBABILITY, AdaptiveProbability, augment
from samgan.training.batches import Batch, Sampler, random_generator
from samgan.training.cost import plan
from samgan.training.loop import SCORED_IMAGES, Interrupted, Score, check_fit, check_start, train
from samgan.training.losses import ABSOLUTE, LOSSES, PENALTIES, RELATIVISTIC, relativistic_average_hinge
from samgan.training.run import choose_classes
from samgan.training.step import CapturedPasses, TrainingState, discriminator_loss, train_step

__all__ = [
    "ABSOLUTE",
    "CHANGES",
    "LOSSES",
    "MAX_PROBABILITY",
    "PENALTIES",
    "RELATIVISTIC",
    "SCORED_IMAGES",
    "AdaptiveProbability",
    "Batch",
    "CapturedPasses",
    "Interrupted",
    "Sampler",
    "Score",
    "TrainingState",
    "augment",
    "check_fit",
    "check_start",
    "choose_classes",
    "discriminator_loss",
    "plan",
    "random_generator",
    "relativistic_average_hinge",
    "train",
    "train_step",
]
