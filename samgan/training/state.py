"""Everything that a training step changes."""

import copy
import math
from collections.abc import Sequence
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
        """Continue from what `state_dict` returned.

        Raises:
            AttributeError, KeyError, RuntimeError, TypeError, ValueError: It is of another configuration, or damaged.
        """
        self.step = state["step"]
        for name in self.PARTS:
            part = getattr(self, name)
            if isinstance(part, torch.optim.Optimizer):
                _load_optimizer(part, state[name])
            elif part is not None:
                part.load_state_dict(state[name])
        if bad := self.nonfinite():
            raise ValueError(f"weight {bad} is NaN or infinite")

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


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load moments and learning rates; everything else is decided by the configuration.

    torch checks neither shapes nor options, and fused Adam would read and write past moments of another shape.

    Raises:
        KeyError, TypeError, ValueError: The state is not one of this optimizer and these weights.
    """
    own = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, options in zip(optimizer.param_groups, own, strict=True):
        rate = group["lr"]
        if type(rate) is not float or not 0 < rate < math.inf:
            raise ValueError(f"expected a learning rate above 0, found {rate!r}")
        group.update(options, lr=rate)
        for key in group.keys() - options.keys() - {"params"}:
            del group[key]
    known = MOMENTS[type(optimizer)]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            moments = optimizer.state.get(parameter)
            if moments:  # a weight without a gradient has none
                _check_moments(parameter, moments, known)
    for parameter, moments in optimizer.state.items():
        for name in known:  # fused Adam assumes the layout of the weights, and fails silently without it
            moments[name] = torch.empty_like(parameter).copy_(moments[name])


def _check_moments(parameter: torch.Tensor, moments: dict[str, Any], known: Sequence[str]) -> None:
    if set(moments) != {"step", *known} or not all(isinstance(value, torch.Tensor) for value in moments.values()):
        raise ValueError(f"expected the moments step, {', '.join(known)}, found {', '.join(map(str, moments))}")
    for name, value in moments.items():
        shape = torch.Size() if name == "step" else parameter.shape
        if value.shape != shape or value.dtype != torch.float32:
            found = f"{list(value.shape)} {value.dtype}"
            raise ValueError(f"expected {name} of shape {list(shape)} torch.float32, found {found}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} of the optimizer is NaN or infinite")


MOMENTS: dict[type, tuple[str, ...]] = {
    torch.optim.Adam: ("exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("square_avg",),
}
"""What an optimizer keeps for each weight, with the shape of the weight; besides, the number of its steps."""
