"""All weights of a network side by side in memory, so that a step handles them at once instead of one by one."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from samgan.networks import Discriminator, Generator

ALIGNED = 16  # numbers; a cache line of fp32


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a parameter is, and the factor that its convolution multiplies it by."""

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    factor: float = 1.0

    def of(self, flat: Tensor) -> Tensor:
        """The view of `flat` that the parameter is."""
        return flat.as_strided(self.shape, self.stride, self.offset)


class FlatGroup:
    """Parameters with one learning rate as views of one tensor, with the layout that each had."""

    def __init__(self, parameters: list[nn.Parameter], rate: float) -> None:
        self.parameters, self.rate = parameters, rate
        self.places, size = [], 0
        for parameter in parameters:
            self.places.append(_Place(size, tuple(parameter.shape), parameter.stride()))
            size += math.ceil(parameter.numel() / ALIGNED) * ALIGNED
        self.flat = nn.Parameter(parameters[0].detach().new_zeros(size))
        for parameter, place in zip(parameters, self.places, strict=True):
            place.of(self.flat.data).copy_(parameter.data)
            parameter.data = place.of(self.flat.data)

    def gather_gradients(self) -> None:
        """Give the whole the gradients of the parameters, which become views of it."""
        if self.flat.grad is None:
            self.flat.grad = torch.zeros_like(self.flat)
        for parameter, place in zip(self.parameters, self.places, strict=True):
            if parameter.grad is not None:
                parameter.grad = place.of(self.flat.grad).add_(parameter.grad)

    def drop_gradients(self) -> None:
        """Drop the gradients of the whole and of the parameters."""
        for parameter in (self.flat, *self.parameters):
            parameter.grad = None


class FlatNetwork:
    """The weights of a network as one tensor for each learning rate; the network keeps working as it did."""

    def __init__(self, network: Generator | Discriminator) -> None:
        self.groups = [FlatGroup(*group) for group in network.rate_groups()]
        self.tensors = [group.flat for group in self.groups]

    def gather_gradients(self) -> None:
        """Give each tensor the gradients of its parameters."""
        for group in self.groups:
            group.gather_gradients()

    def drop_gradients(self) -> None:
        """Begin a backward pass without gradients."""
        for group in self.groups:
            group.drop_gradients()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """What `optimizer.state_dict()` would be if it had the network's parameters instead of these tensors."""
        state: dict[int, dict[str, Tensor]] = {}
        groups, first = [], 0
        for told, group in zip(optimizer.state_dict()["param_groups"], self.groups, strict=True):
            moments = optimizer.state.get(group.flat, {})
            for number, place in enumerate(group.places, start=first):
                if moments:
                    state[number] = {
                        name: (place.of(value) if value.shape == group.flat.shape else value).clone()
                        for name, value in moments.items()
                    }
            groups.append({**told, "params": list(range(first, first + len(group.places)))})
            first += len(group.places)
        return {"state": state, "param_groups": groups}

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, other: torch.optim.Optimizer) -> None:
        """Take over rates and moments from an optimizer of the same kind that has the network's parameters."""
        for own, told, group in zip(optimizer.param_groups, other.param_groups, self.groups, strict=True):
            own["lr"] = told["lr"]
            optimizer.state.pop(group.flat, None)
            for parameter, place in zip(group.parameters, group.places, strict=True):
                for name, value in other.state.get(parameter, {}).items():
                    if name == "step":
                        optimizer.state[group.flat][name] = value.clone()
                    else:
                        moment = optimizer.state[group.flat].setdefault(name, torch.zeros_like(group.flat))
                        place.of(moment).copy_(value)
