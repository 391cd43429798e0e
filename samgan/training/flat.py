"""All weights of a network side by side in memory, so that a step handles them at once instead of one by one."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from samgan.networks import Discriminator, EqualizedConv2d, Generator

ALIGNED = 32  # numbers; a cache line of bf16, two of fp32


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a parameter is."""

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, flat: Tensor) -> Tensor:
        """The view of `flat` that the parameter is."""
        return flat.as_strided(self.shape, self.stride, self.offset)


class _Layers(NamedTuple):
    """Convolutions of a group, the places of their weights and biases in turn, and the factor of each number."""

    layers: list[EqualizedConv2d]
    places: list[_Place]
    factors: Tensor


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
        """Add the gradients of the parameters to that of the whole, and make them views of it."""
        if self.flat.grad is None:
            self.flat.grad = torch.zeros_like(self.flat)
        for parameter, place in zip(self.parameters, self.places, strict=True):
            of_whole = place.of(self.flat.grad)
            parameter.grad = of_whole if parameter.grad is None else of_whole.add_(parameter.grad)

    def drop_gradients(self) -> None:
        """Drop the gradients of the whole and of the parameters."""
        for parameter in (self.flat, *self.parameters):
            parameter.grad = None


class _Operands(torch.autograd.Function):
    """Weights and biases of convolutions, scaled and in the precision of a pass, from the tensor that has them all."""

    @staticmethod
    def forward(
        ctx: Any, flat: Tensor, factors: Tensor, places: list[_Place], dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        ctx.factors, ctx.places = factors, places
        values = (flat * factors).to(dtype)
        return tuple(place.of(values) for place in places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        whole = torch.zeros_like(ctx.factors)
        for place, gradient in zip(ctx.places, gradients, strict=True):
            if gradient is not None:
                place.of(whole).copy_(gradient)
        return whole.mul_(ctx.factors), None, None, None


class FlatNetwork:
    """The weights of a network as one tensor for each learning rate; the network keeps working as it did."""

    def __init__(self, network: Generator | Discriminator) -> None:
        self.groups = [FlatGroup(*group) for group in network.rate_groups()]
        self.tensors = [group.flat for group in self.groups]
        layers = [layer for layer in network.modules() if isinstance(layer, EqualizedConv2d) and not layer.spectral]
        self.layers = [self._layers_of(group, layers) for group in self.groups]

    def _layers_of(self, group: FlatGroup, layers: list[EqualizedConv2d]) -> "_Layers":
        """The convolutions of a group, the places of their weights and biases, and the factors of these."""
        place_of = {id(parameter): place for parameter, place in zip(group.parameters, group.places, strict=True)}
        own = [layer for layer in layers if id(layer.weight) in place_of]
        factors, places = torch.ones_like(group.flat.data), []
        for layer in own:
            for parameter, factor in ((layer.weight, layer.scale * layer.gains[0]), (layer.bias, layer.gains[1])):
                if parameter is not None:
                    places.append(place_of[id(parameter)])
                    places[-1].of(factors).fill_(factor)
        return _Layers(own, places, factors)

    @contextlib.contextmanager
    def ready(self, dtype: torch.dtype | None = None, *, frozen: bool = False) -> Iterator[None]:
        """Within it, convolutions without spectral norm have their scaled weights, computed once for all of them.

        Args:
            dtype: Precision of the weights; default: that of the parameters.
            frozen: Compute no gradients of the weights.
        """
        for group, layers in zip(self.groups, self.layers, strict=True):
            flat = group.flat.detach() if frozen else group.flat
            operands = iter(_Operands.apply(flat, layers.factors, layers.places, dtype or flat.dtype))
            for layer in layers.layers:
                layer.ready = (next(operands), None if layer.bias is None else next(operands))
        try:
            yield
        finally:
            for layers in self.layers:
                for layer in layers.layers:
                    layer.ready = None

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
