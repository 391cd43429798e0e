"""The recipe: which functions and networks a training step is made of, as one value.

The configuration names the usual ones. An idea that is in no setting is another recipe, handed to `samgan.train`.
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
"""From a pyramid, random numbers in [0, 1) and a probability to what the discriminator is shown; differentiable."""


@dataclass(frozen=True)
class Recipe:
    """What one training step consists of; `TrainingState` keeps it, so that networks and step cannot disagree."""

    loss: Loss
    penalty: Penalty | None
    augmentation: Augmentation = augment
    networks: Networks = field(default_factory=Networks)
    regularizer: Callable[[Logits, Logits], Scalar] | None = None
    """A further term of the discriminator's loss, from the logits of real and of generated images."""
    before_step: Callable[[int], None] | None = None
    """Called before each step with the number of images seen."""
    repeatable: bool = True
    """Whether the step depends on tensors only, so that a GPU may replay it as a CUDA graph."""

    @classmethod
    def of(cls, training: TrainingConfig) -> "Recipe":
        """The recipe that a configuration names."""
        return cls(LOSSES[training.loss], None if training.penalty == "none" else PENALTIES[training.penalty])
