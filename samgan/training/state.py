"""Everything that a training step changes."""

import copy
from typing import Any

import torch

from samgan.config import Config, TrainingConfig
from samgan.networks import Discriminator, Generator
from samgan.training.augment import AdaptiveProbability
from samgan.training.recipe import Recipe


class TrainingState:
    """Both networks, the averaged generator, optimizers, the share of augmented images and the number of steps.

    Args:
        config: The run's configuration.
        device: Where the networks are.
        recipe: The parts of a step; default: those the configuration names.
    """

    PARTS = (
        "generator",
        "discriminator",
        "ema_generator",
        "generator_optimizer",
        "discriminator_optimizer",
        "augment",
    )
    """The parts that a checkpoint holds, besides the number of steps."""

    def __init__(self, config: Config, device: torch.device, recipe: Recipe | None = None) -> None:
        training = config.training
        self.config = config
        self.device = device
        self.recipe = recipe or Recipe.of(training)
        self.step = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            self.generator = self.recipe.networks.generator(config.network).to(device)
            self.discriminator = self.recipe.networks.discriminator(config.network).to(device)
        self.ema_generator: Generator | None = None
        if training.ema_halflife_kimg > 0:
            self.ema_generator = copy.deepcopy(self.generator).requires_grad_(False)
        self.generator_optimizer = _optimizer(self.generator, training, training.learning_rate)
        rate = training.discriminator_learning_rate or training.learning_rate
        self.discriminator_optimizer = _optimizer(self.discriminator, training, rate)
        classes = config.network.num_classes or 0
        self.augment = AdaptiveProbability(training.augment_target, classes)

    @property
    def images_seen(self) -> int:
        """Real images shown so far."""
        return self.step * self.config.training.batch_size

    @property
    def sampling_generator(self) -> Generator:
        """The averaged generator, or the plain one if there is no averaging."""
        return self.ema_generator or self.generator

    def state_dict(self) -> dict[str, Any]:
        """Plain data, which `load_state_dict` and `samgan.sampling` read."""
        parts = {name: getattr(self, name) for name in self.PARTS}
        return {
            "config": self.config.to_dict(),
            "step": self.step,
            "images_seen": self.images_seen,
            **{name: part.state_dict() if part else None for name, part in parts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.step = state["step"]
        for name in self.PARTS:
            part = getattr(self, name)
            if part is not None:
                part.load_state_dict(state[name])
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            _lay_out_as_weights(optimizer)

    def nonfinite(self) -> str | None:
        """Name of the first weight that is NaN or infinite, or None."""
        for network in ("generator", "discriminator"):
            for name, parameter in getattr(self, network).named_parameters():
                if not torch.isfinite(parameter).all():
                    return f"{network}.{name}"
        return None


def _optimizer(network: Generator | Discriminator, training: TrainingConfig, rate: float) -> torch.optim.Optimizer:
    groups = [{"params": params, "initial_lr": factor * rate} for params, factor in network.rate_groups()]
    if training.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=training.adam_betas, fused=True)
    return torch.optim.RMSprop(groups, lr=rate, alpha=0.99)


def _lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded moments the memory layout of their weights: fused Adam assumes it, and fails silently without it."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)
