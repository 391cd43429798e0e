"""Estimate the cost of a run before it starts: parameters, floating point operations per step, memory."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, register_flop_formula

from samgan.config import Config
from samgan.networks import Discriminator, Generator, image_pyramid
from samgan.training.recipe import Recipe
from samgan.training.step import discriminator_loss, generator_loss

# Measured on a CPU (torch 2.15, 64 and 128 channels, three presets, attention up to 64 px): the resident size of a
# process that has imported everything, and the ratio of a step's peak memory to the activations kept for backward.
# Together they are within a tenth of the measured peak.
PROCESS_BYTES = 850 << 20
WORKSPACE = 1.4
# torch has no formula for these CPU kernels; they compute the same as the others.
SAME_FORMULA = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        torch.ops.aten._scaled_dot_product_flash_attention_backward,
}  # fmt: skip


@register_flop_formula(torch.ops.samgan.attend)
def _attend_flops(q: Any, k: Any, v: Any, **_: Any) -> int:
    return 2 * q[0] * q[1] * k[1] * (q[2] + v[2])


@register_flop_formula(torch.ops.samgan.attend_backward)
def _attend_backward_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """The scores again, and four gradients: of the weights, values, queries and keys."""
    return 2 * q[0] * q[1] * k[1] * (3 * q[2] + 2 * v[2])


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of training a configuration."""

    generator_parameters: int
    discriminator_parameters: int
    flops_per_step: int
    """Mean over steps with and without a penalty; 2 per multiply-add. Counts convolutions, matrix products and
    attention, forward and backward."""
    memory_bytes: int
    """Estimate for a CPU: process, weights, gradients, optimizer, averaged generator, peak activations; without the
    training images."""
    steps: int
    kimg: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)


def plan(config: Config) -> Cost:
    """Estimate the cost of a training step and of the whole run, with tensors that hold no values."""
    training, network = config.training, config.network
    with FakeTensorMode():  # unlike "meta", it selects the attention kernel of a CPU
        generator, discriminator = Generator(network), Discriminator(network)
        step = _count_step(config, generator, discriminator)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (generator, discriminator)]
    moments = {"adam": 2, "rmsprop": 1}[training.optimizer]
    floats = sum(sizes) * (2 + moments) + (sizes[0] if training.ema_halflife_kimg else 0)
    return Cost(
        generator_parameters=sizes[0],
        discriminator_parameters=sizes[1],
        flops_per_step=step.flops + step.penalty_flops // training.penalty_every,
        memory_bytes=PROCESS_BYTES + 4 * floats + int(WORKSPACE * step.activation_bytes),
        steps=training.total_steps,
        kimg=training.total_steps * training.batch_size / 1000,
    )


@dataclasses.dataclass(frozen=True)
class _StepCount:
    flops: int
    """Without the penalty."""
    penalty_flops: int
    activation_bytes: int


def _count_step(config: Config, generator: Generator, discriminator: Discriminator) -> _StepCount:
    """Run one step on tensors without values and count its operations and bytes."""
    training, network, recipe = config.training, config.network, Recipe.of(config.training)
    side = network.resolution
    images = torch.empty(training.batch_size, network.image_channels, side, side)
    real = image_pyramid(images, network.image_sides)
    latents = torch.empty(training.batch_size, network.latent_size)
    mix = torch.empty(training.batch_size)
    labels = torch.empty(training.batch_size, dtype=torch.long) if network.num_classes else None
    judge = partial(discriminator, labels=labels)
    of_generator, of_discriminator, of_both = _Bytes(), _Bytes(), _Bytes()
    with _Flops() as flops:
        with of_generator.counted():
            fake = generator(latents, labels)
        constant = [images.detach() for images in fake]
        with of_discriminator.counted():
            loss, *_ = discriminator_loss(recipe, training, judge, real, constant, labels)
            before_penalty = flops.total
            penalty = recipe.penalty(judge, real, constant, mix) if recipe.penalty is not None else None
        if penalty is not None:
            penalty.backward()
        penalty_flops = flops.total - before_penalty
        loss.backward()
        discriminator.requires_grad_(False)
        if not training.shared_latents:
            fake = generator(latents, labels)
        with of_both.counted():
            loss = generator_loss(recipe, judge, real, fake)
        loss.backward()
    activations = of_generator.total + max(of_discriminator.total, of_both.total)
    return _StepCount(flops.total - penalty_flops, penalty_flops, activations)


class _Flops(TorchDispatchMode):
    """Counts with torch's own formulas; torch's FlopCounterMode fails on a gradient of a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(SAME_FORMULA.get(func._overloadpacket, func._overloadpacket))
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
            if func._overloadpacket is torch.ops.aten.convolution_backward and (groups := args[9]) > 1 and args[10][1]:
                # torch's formula for the gradient of the weight knows no groups.
                of_weight = formula(*args[:10], (False, True, False), out_val=out)
                self.total -= of_weight - of_weight // groups
        return out


@dataclasses.dataclass
class _Bytes:
    """Bytes of the tensors that autograd keeps for the backward pass, each storage once."""

    total: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        seen: set[int] = set()

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if not isinstance(tensor, torch.nn.Parameter) and storage._cdata not in seen:
                seen.add(storage._cdata)
                self.total += storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
