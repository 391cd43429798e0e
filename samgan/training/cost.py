"""What a run will cost, before it starts: parameters, floating point operations per step, memory."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from samgan.config import Config
from samgan.networks import Discriminator, Generator, image_pyramid
from samgan.training.losses import PENALTIES
from samgan.training.step import discriminator_loss, generator_loss

# Measured on a CPU (torch 2.15, 64 and 128 channels, three presets, attention up to 64 px): the resident size of a
# process that has imported everything, and what a step peaks at over the activations kept for backward. Together:
# within a tenth of the peak.
PROCESS_BYTES = 850 << 20
WORKSPACE = 1.4
# Where torch has no formula for the CPU's kernel: it does what the others do.
SAME_FORMULA = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        torch.ops.aten._scaled_dot_product_flash_attention_backward,
}  # fmt: skip


def plan(config: Config) -> dict[str, Any]:
    """Cost of one training step and of the whole run, computed on tensors without values.

    Args:
        config: The run's configuration.

    Returns:
        `generator_parameters`, `discriminator_parameters`, `flops_per_step` (the mean; 2 per multiply-add;
        convolutions, matrix products and attention, forward and backward), `memory_bytes` (an estimate for a CPU:
        process, weights, gradients, optimizer, average, activations at their peak; without the training images),
        `steps`, `kimg`.
    """
    training, network = config.training, config.network
    fake_mode = FakeTensorMode()  # unlike "meta", it takes the attention kernel that a CPU takes
    with fake_mode:
        generator, discriminator = Generator(network), Discriminator(network)
        real = image_pyramid(
            torch.empty(training.batch_size, network.image_channels, network.resolution, network.resolution),
            network.resolutions,
        )
        latents = torch.empty(training.batch_size, network.latent_size)
        mix = torch.empty(training.batch_size)
        labels = torch.empty(training.batch_size, dtype=torch.long) if network.num_classes else None
        judge = partial(discriminator, labels=labels)
    saved_by_generator, saved_by_discriminator, saved_by_both = _Bytes(), _Bytes(), _Bytes()
    with fake_mode, _Flops() as flops:
        with saved_by_generator.counted():
            fake = generator(latents, labels)
        constant = [images.detach() for images in fake]
        with saved_by_discriminator.counted():
            loss, *_ = discriminator_loss(training, judge, real, constant, labels)
            before_penalty = flops.total
            penalty = None
            if training.penalty != "none":
                penalty = PENALTIES[training.penalty](judge, real, constant, mix)
        if penalty is not None:
            penalty.backward()
        penalty_flops = flops.total - before_penalty
        loss.backward()
        discriminator.requires_grad_(False)
        if not training.shared_latents:
            fake = generator(latents, labels)
        with saved_by_both.counted():
            loss = generator_loss(training, judge, real, fake)
        loss.backward()
    sizes = [sum(p.numel() for p in part.parameters()) for part in (generator, discriminator)]
    moments = {"adam": 2, "rmsprop": 1}[training.optimizer]
    floats = sum(sizes) * (2 + moments) + (sizes[0] if training.ema_halflife_kimg else 0)
    activations = saved_by_generator.total + max(saved_by_discriminator.total, saved_by_both.total)
    return {
        "generator_parameters": sizes[0],
        "discriminator_parameters": sizes[1],
        "flops_per_step": flops.total - penalty_flops + penalty_flops // training.penalty_every,
        "memory_bytes": PROCESS_BYTES + 4 * floats + int(WORKSPACE * activations),
        "steps": training.total_steps,
        "kimg": training.total_steps * training.batch_size / 1000,
    }


class _Flops(TorchDispatchMode):
    """Counts by torch's own formulas; torch's FlopCounterMode fails on a gradient of a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(SAME_FORMULA.get(func._overloadpacket, func._overloadpacket))
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
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
