"""Everything that a training step changes."""

import contextlib
import copy
import math
from collections.abc import Sequence
from typing import Any

import torch

from samgan.config import Config
from samgan.networks import Discriminator, Generator, begin_small, groups_by_part, power_iteration
from samgan.training.augment import AdaptiveProbability
from samgan.training.flat import FlatAdam, FlatNetwork
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
        if training.first_sides:
            begin_small(self.generator, self.discriminator, training.first_sides)
        self.ema_generator: Generator | None = None
        if training.ema_halflife_kimg > 0:
            self.ema_generator = copy.deepcopy(self.generator).requires_grad_(False)
        self._begin()
        classes = config.network.num_classes or 0
        self.augment = AdaptiveProbability(training.augment_target, classes)

    def _begin(self) -> None:
        """Lay out the weights, and make optimizers without moments."""
        self.flat: dict[str, FlatNetwork] = {}
        """On a CPU, the weights of each network as a few tensors, by the network's name."""
        if self.device.type == "cpu":
            networks = {name: getattr(self, name) for name in ("generator", "discriminator", "ema_generator")}
            self.flat = {
                name: FlatNetwork(network, self._groups(network))
                for name, network in networks.items()
                if network is not None
            }
        self.generator_optimizer = self._optimizer("generator")
        self.discriminator_optimizer = self._optimizer("discriminator")
        self.discriminator_is_spectral = any(
            getattr(module, "spectral", False) for module in self.discriminator.modules()
        )
        self._judging = list(self.discriminator.parameters())  # a network looks for them anew at each question

    def double(self) -> "TrainingState":
        """Compute in double precision, from the first step on: two forms of a step then agree to many digits."""
        for network in filter(None, (self.generator, self.discriminator, self.ema_generator)):
            network.double()
        self._begin()
        return self

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
        saved: dict[str, Any] = {name: part.state_dict() if part else None for name, part in parts.items()}
        for name, flat in self.flat.items():
            # Views of one tensor would be saved as that whole tensor.
            saved[name] = {key: value.clone() for key, value in getattr(self, name).state_dict().items()}
            if optimizer := parts.get(f"{name}_optimizer"):
                saved[f"{name}_optimizer"] = flat.optimizer_state(optimizer)
        return {"config": self.config.to_dict(), "step": self.step, "images_seen": self.images_seen, **saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            AttributeError, KeyError, RuntimeError, TypeError, ValueError: It is of another configuration, or damaged.
        """
        self.step = state["step"]
        for name in self.PARTS:
            part = getattr(self, name)
            if isinstance(part, torch.optim.Optimizer):
                self._load_optimizer(name.removesuffix("_optimizer"), part, state[name])
            elif part is not None:
                part.load_state_dict(state[name])
        for name in ("generator", "discriminator", "ema_generator"):
            network = getattr(self, name)
            for key, value in network.state_dict().items() if network else ():
                if not torch.isfinite(value).all():
                    raise ValueError(f"weight {name}.{key} is NaN or infinite")

    def _groups(self, network: Generator | Discriminator) -> list[tuple[list[torch.nn.Parameter], float]]:
        """Parameters that have one rate, and begin to learn at the same time."""
        return groups_by_part(network, self.config.training.first_sides)

    def _optimizer(self, name: str, *, flat: bool = True) -> torch.optim.Optimizer:
        """The optimizer of a network; it sees the network's weights one by one if not `flat`, or on a GPU."""
        training = self.config.training
        rate = training.learning_rate
        if name == "discriminator":
            rate = training.discriminator_learning_rate or rate
        flat = flat and name in self.flat
        if flat:
            rates = [([group.flat], group.rate) for group in self.flat[name].groups]
        else:
            rates = self._groups(getattr(self, name))
        groups = [{"params": parameters, "initial_lr": factor * rate} for parameters, factor in rates]
        if training.optimizer == "adam":
            kind = FlatAdam if self.flat else torch.optim.Adam
            adam = kind(groups, lr=rate, betas=training.adam_betas, fused=True)
            if isinstance(adam, FlatAdam):
                adam.some_wait = bool(training.first_sides)
            return adam
        return torch.optim.RMSprop(groups, lr=rate, alpha=0.99)

    def _load_optimizer(self, name: str, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        if name not in self.flat:
            _load_optimizer(optimizer, state)
            return
        checked = self._optimizer(name, flat=False)
        _load_optimizer(checked, state)
        self.flat[name].load_optimizer_state(optimizer, checked)

    def ready(self, name: str, *, frozen: bool = False) -> contextlib.AbstractContextManager[None]:
        """Within it, the weights of a network are scaled and cast, once for all its layers, where that is faster."""
        if name not in self.flat:
            return contextlib.nullcontext()
        kind = self.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return self.flat[name].ready(dtype, frozen=frozen)

    def power_iteration(self, name: str) -> None:
        """Do one power iteration in every layer of a network that has spectral norm."""
        if name in self.flat:
            self.flat[name].power_iteration()
        else:
            power_iteration(getattr(self, name))

    def freeze_discriminator(self, frozen: bool) -> None:
        """Compute no gradients of its weights, or compute them again."""
        for parameter in self._judging:
            parameter.requires_grad = not frozen

    def drop_gradients(self) -> None:
        """Begin a step of both networks without gradients."""
        for name in ("generator", "discriminator"):
            if name in self.flat:
                self.flat[name].drop_gradients()
            else:
                getattr(self, f"{name}_optimizer").zero_grad(set_to_none=True)

    def nonfinite(self) -> str | None:
        """Name of the first weight that is NaN or infinite, or None."""
        for network in ("generator", "discriminator"):
            for name, parameter in getattr(self, network).named_parameters():
                if not torch.isfinite(parameter).all():
                    return f"{network}.{name}"
        return None


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
    FlatAdam: ("exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("square_avg",),
}
"""What an optimizer keeps for each weight, with the shape of the weight; besides, the number of its steps."""
