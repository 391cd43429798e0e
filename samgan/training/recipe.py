"""The recipe: the functions and networks that make up a training step, as one value.

By default the configuration names them. To try an idea that no setting covers, pass another recipe to `samgan.train`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from samgan.config import TrainingConfig
from samgan.networks import Networks, Pyramid
from samgan.training.augment import augment
from samgan.training.losses import LOSSES, PENALTIES, Logits, Loss, Penalty, Scalar

Augmentation = Callable[[Pyramid, Float[Tensor, "n changes"], float | Tensor], Pyramid]
"""Takes a pyramid, random numbers in [0, 1) and a probability; returns what the discriminator sees. Differentiable."""


@dataclass(frozen=True)
class Recipe:
    """The parts of one training step; `TrainingState` keeps it, so that networks and step cannot disagree.

    A run stores its configuration, not its recipe. To resume a run, pass the same recipe again. The commands
    that sample, export or verify build the generator that the configuration names, so they cannot read a run with
    another one; in Python, open such a run with `Source.open(..., generator=...)`.
    """

    loss: Loss
    penalty: Penalty | None
    augmentation: Augmentation = augment
    beside: Loss = LOSSES["hinge"]
    """The loss of discriminators beside the blocks of the discriminator (`Discriminator.beside`)."""
    beside_weight: float = 1.0
    networks: Networks = field(default_factory=Networks)
    regularizer: Callable[[Logits, Logits], Scalar] | None = None
    """An extra term of the discriminator's loss, computed from the logits of real and of generated images."""
    before_step: Callable[[int], None] | None = None
    """Called before each step with the number of images seen."""
    repeatable: bool = True
    """Whether the step depends only on tensors, so that a GPU may replay it as a CUDA graph."""

    @classmethod
    def of(cls, training: TrainingConfig) -> "Recipe":
        """The recipe that a configuration names."""
        penalty = None if training.penalty == "none" else PENALTIES[training.penalty]
        return cls(LOSSES[training.loss], penalty, beside_weight=training.vision_weight)
