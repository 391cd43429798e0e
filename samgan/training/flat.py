"""All weights of a network side by side in memory, so that a step handles them at once instead of one by one."""

import contextlib
import dataclasses
import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from samgan.kernels import has_kernels, run
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

    def laid_out(self, gradient: Tensor) -> Tensor:
        """The same numbers in the order in which the parameter has them."""
        if gradient.stride() == self.stride:
            return gradient
        return torch.empty_strided(self.shape, self.stride, dtype=gradient.dtype).copy_(gradient)


class _Layers:
    """The convolutions of a group: the places of their weights and biases in turn, and the factor of each."""

    def __init__(self, group: "FlatGroup", layers: list[EqualizedConv2d]) -> None:
        place_of = {id(parameter): place for parameter, place in zip(group.parameters, group.places, strict=True)}
        self.layers = [layer for layer in layers if id(layer.weight) in place_of]
        self.places: list[_Place] = []
        self.numbers: list[float] = []  # the factors; the tensors of a plan hold no values
        self.firsts: list[int] = []  # which of the places is that of a layer's weight
        for layer in self.layers:
            self.firsts.append(len(self.places))
            for parameter, factor in ((layer.weight, layer.scale * layer.gains[0]), (layer.bias, layer.gains[1])):
                if parameter is not None:
                    self.places.append(place_of[id(parameter)])
                    self.numbers.append(factor)
        self.factors = torch.tensor(self.numbers, dtype=group.flat.dtype)
        self.offsets = torch.tensor([place.offset for place in self.places])
        self.sizes = torch.tensor([math.prod(place.shape) for place in self.places])
        self.spectral = _Spectral(self)

    def scale(self, flat: Tensor, values: Tensor) -> "_Scale":
        """Write all weights and biases, times their factors, where they are in `flat`; what lies between stays."""
        dtype = values.dtype
        now = self.spectral.divided(flat, self.factors) if self.spectral.layers else _Scale(self.factors)
        if has_kernels(flat, dtype) and dtype in (flat.dtype, torch.bfloat16):
            run("scale_weights", dtype, flat, values, now.factors, self.offsets, self.sizes, len(self.places))
            return now
        for place, factor in zip(self.places, self.numbers if now.sigmas is None else now.factors, strict=True):
            place.of(values).copy_(place.of(flat) * factor)
        return now

    def collect(self, leaves: list[Tensor], flat: Tensor, gradients: Tensor, now: "_Scale") -> None:
        """Add to `gradients`, those of the parameters `flat`, what those of the scaled weights and biases give."""
        found = [
            None if leaf.grad is None else place.laid_out(leaf.grad)
            for leaf, place in zip(leaves, self.places, strict=True)
        ]
        dtype = leaves[0].dtype
        if has_kernels(flat, dtype) and dtype in (flat.dtype, torch.bfloat16):
            addresses = torch.tensor([0 if gradient is None else gradient.data_ptr() for gradient in found])
            run("collect_gradients", dtype, addresses, gradients, now.factors, self.offsets, self.sizes, len(found))
            if now.sigmas is not None:
                self.spectral.collect_by_kernel(addresses, flat, gradients, now, dtype)
            return
        for gradient, place, factor, number in zip(found, self.places, now.factors, self.numbers, strict=True):
            if gradient is None:
                continue
            if now.sigmas is None:
                place.of(gradients).add_(gradient, alpha=number)
            else:
                place.of(gradients).add_(gradient.to(gradients.dtype) * factor)
        if now.sigmas is not None:
            self.spectral.collect(found, flat, gradients, now)


@dataclasses.dataclass(frozen=True)
class _Scale:
    """What weights and biases were multiplied by in a pass."""

    factors: Tensor
    sigmas: Tensor | None = None
    """The singular values by which the factors of layers with spectral norm are divided."""


class _Spectral:
    """The layers of a group that have spectral norm."""

    def __init__(self, layers: _Layers) -> None:
        pairs = [pair for pair in zip(layers.firsts, layers.layers, strict=True) if pair[1].spectral]
        self.layers = [layer for _, layer in pairs]
        for layer in self.layers:
            assert layer.weight.permute(0, 2, 3, 1).is_contiguous(), "the kernels take weights with channels last"
        self.places = [layers.places[number] for number, _ in pairs]
        self.numbers = [number for number, _ in pairs]
        self.offsets = torch.tensor([place.offset for place in self.places])
        shapes = [(place.shape[0], math.prod(place.shape[2:]), place.shape[1]) for place in self.places]
        self.shapes = torch.tensor(shapes, dtype=torch.long)

    def _where(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """What the kernels ask for: addresses of u and of v, places and shapes of weights, and how many there are."""
        us = torch.tensor([layer.u.data_ptr() for layer in self.layers])
        vs = torch.tensor([layer.v.data_ptr() for layer in self.layers])
        return us, vs, self.offsets, self.shapes, len(self.layers)

    def divided(self, flat: Tensor, factors: Tensor) -> _Scale:
        """The factors of all layers, with those of these layers divided by their singular values."""
        if has_kernels(flat):
            sigmas = torch.empty(len(self.layers), dtype=flat.dtype)
            run("singular_values", flat.dtype, flat, sigmas, *self._where())
        else:
            sigmas = torch.stack([layer.singular_value().detach() for layer in self.layers])
        factors = factors.clone()
        factors[self.numbers] /= sigmas
        return _Scale(factors, sigmas)

    def collect(self, found: list[Tensor | None], flat: Tensor, gradients: Tensor, now: _Scale) -> None:
        """Add to `gradients` how the scaled weights depend on the weights through the singular values."""
        assert now.sigmas is not None
        factors = now.factors[self.numbers] / now.sigmas
        for number, layer, place, factor in zip(self.numbers, self.layers, self.places, factors, strict=True):
            if (gradient := found[number]) is not None:
                along = (gradient * place.of(flat)).sum() * factor
                place.of(gradients).sub_((along * layer.u[:, None] * layer.v).view(place.shape))

    def collect_by_kernel(
        self, addresses: Tensor, flat: Tensor, gradients: Tensor, now: _Scale, dtype: torch.dtype
    ) -> None:
        """The same for gradients of `dtype` at the addresses."""
        own, factors = addresses[self.numbers], now.factors[self.numbers]
        run("spectral_gradients", dtype, own, flat, gradients, factors, now.sigmas, *self._where())

    def power_iteration(self, flat: Tensor) -> None:
        """One power iteration in each of these layers."""
        if has_kernels(flat):
            run("power_iteration", flat.dtype, flat, *self._where())
            return
        for layer in self.layers:
            layer.power_iteration()


class FlatGroup:
    """Parameters with one learning rate as views of one tensor, with the layout that each had; so are gradients."""

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

    def drop_gradients(self) -> None:
        """Set all gradients to zero; automatic differentiation then adds to them."""
        if self.flat.grad is not None:
            self.flat.grad.zero_()
            return
        self.flat.grad = torch.zeros_like(self.flat)
        for parameter, place in zip(self.parameters, self.places, strict=True):
            parameter.grad = place.of(self.flat.grad)


@dataclasses.dataclass
class _Pass:
    """The scaled weights and biases of a group for one pass through the network, kept for that pass of later steps."""

    group: FlatGroup
    layers: _Layers
    values: Tensor
    leaves: list[Tensor]
    scale: _Scale | None = None

    @classmethod
    def of(cls, group: FlatGroup, layers: _Layers, dtype: torch.dtype, *, wanted: bool) -> "_Pass":
        """Room for them; `wanted`: they shall get gradients."""
        values = torch.empty_like(group.flat.detach(), dtype=dtype)
        return cls(group, layers, values, [place.of(values).requires_grad_(wanted) for place in layers.places])

    def begin(self) -> None:
        """Compute them from the parameters of now."""
        self.scale = self.layers.scale(self.group.flat.detach(), self.values.detach())

    def collect(self) -> None:
        """Add their gradients to those of the parameters."""
        assert self.group.flat.grad is not None, "drop_gradients comes first"
        assert self.scale is not None, "begin comes first"
        self.layers.collect(self.leaves, self.group.flat.detach(), self.group.flat.grad, self.scale)
        self.drop()

    def drop(self) -> None:
        """Forget their gradients."""
        for leaf in self.leaves:
            leaf.grad = None


class FlatNetwork:
    """The weights of a network as one tensor for each learning rate; the network keeps working as it did.

    Args:
        network: Its parameters are moved to these tensors.
        groups: Parameters, each group with a factor for the learning rate; default: the network's `rate_groups`.
    """

    def __init__(
        self, network: Generator | Discriminator, groups: Sequence[tuple[list[nn.Parameter], float]] | None = None
    ) -> None:
        self.groups = [FlatGroup(*group) for group in groups or network.rate_groups()]
        self.tensors = [group.flat for group in self.groups]
        layers = [layer for layer in network.modules() if isinstance(layer, EqualizedConv2d)]
        self.layers = [_Layers(group, layers) for group in self.groups]
        self._kept: dict[tuple[int, torch.dtype, bool], list[_Pass]] = {}
        """Passes of a step by their number among those of a kind, their precision, and whether they have gradients."""
        self._numbers = {True: 0, False: 0}
        self._wanted: list[_Pass] = []
        """Those of this step with gradients that have not been collected."""

    @contextlib.contextmanager
    def ready(self, dtype: torch.dtype | None = None, *, frozen: bool = False) -> Iterator[None]:
        """Within it, convolutions have their scaled weights, computed once for all of them.

        Their gradients are those of these weights until `collect_gradients` is called. After `drop_gradients`, weights
        are written to the same place again, so no gradients of an earlier step can be computed then.

        Args:
            dtype: Precision of the weights; default: that of the parameters.
            frozen: Compute no gradients of the weights.
        """
        wanted = torch.is_grad_enabled() and not frozen
        dtype = dtype or self.tensors[0].dtype
        key = self._numbers[wanted], dtype, wanted
        self._numbers[wanted] += 1
        if key not in self._kept:
            pairs = zip(self.groups, self.layers, strict=True)
            self._kept[key] = [_Pass.of(*pair, dtype, wanted=wanted) for pair in pairs if pair[1].layers]
        for one in self._kept[key]:
            one.begin()
            operands = iter(one.leaves)
            for layer in one.layers.layers:
                pair = next(operands), None if layer.bias is None else next(operands)
                layer.__dict__["ready"] = pair  # a module looks through all its weights at each assignment
        if wanted:
            self._wanted += self._kept[key]
        try:
            yield
        finally:
            for layers in self.layers:
                for layer in layers.layers:
                    layer.__dict__["ready"] = None

    def drop_gradients(self) -> None:
        """Begin a step without gradients."""
        for one in self._wanted:
            one.drop()
        self._numbers, self._wanted = {True: 0, False: 0}, []
        for group in self.groups:
            group.drop_gradients()

    def collect_gradients(self) -> None:
        """Add what passes since `drop_gradients` gave to the gradients of the parameters, which must be as then."""
        for one in self._wanted:
            one.collect()
        self._wanted = []

    def power_iteration(self) -> None:
        """Do one power iteration in every layer that has spectral norm, once gradients have been collected."""
        for group, layers in zip(self.groups, self.layers, strict=True):
            if layers.spectral.layers:
                layers.spectral.power_iteration(group.flat.detach())

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


class FlatAdam(torch.optim.Adam):
    """Adam for a few tensors on a CPU: the same step, without torch's search for a GPU, which takes longer than it."""

    # torch wraps these for torch.compile, which it then imports: two seconds, and nothing here is compiled.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)

    some_wait = False
    """Some parameters may have no gradient in the first steps; the first one that they have begins their moments."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the parameters along their gradients."""
        for group in self.param_groups:
            parameters = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if not self.state.get(parameter):
                    if self.some_wait and not parameter.grad.any():
                        continue
                    moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                    self.state[parameter] = {"step": torch.zeros((), dtype=torch.float32), **moments}
                parameters.append(parameter)
            states = [self.state[parameter] for parameter in parameters]
            adam(
                parameters,
                [parameter.grad for parameter in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=0.0,
                eps=group["eps"],
                maximize=False,
            )
