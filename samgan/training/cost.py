"""Estimate the cost of a run before it starts: parameters, floating point operations per step, memory."""

import dataclasses
import math
import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, register_flop_formula

from samgan.config import Config, NetworkConfig
from samgan.data.room import require_address_space, require_memory
from samgan.devices import usable_precision
from samgan.errors import UsageError
from samgan.metrics.swd import MIN_RESOLUTION, PATCH_SIZE, PATCHES_PER_IMAGE
from samgan.networks import Networks, tiles_of
from samgan.sampling import forward_batch
from samgan.training.augment import CHANGES, MAX_PROBABILITY, _centres
from samgan.training.batches import Batch
from samgan.training.recipe import Recipe
from samgan.training.snapshots import SCORED_IMAGES, spare_core
from samgan.training.state import TrainingState
from samgan.training.step import train_step

# Measured on a CPU by benchmarks/bench_cost.py: the resident size of a process that has imported and begun everything,
# what scoring takes besides images and patches, and the ratio of resident memory to the tensors that are there, by
# precision: freed memory is not always where the next tensor fits, and convolutions have memory of their own.
PROCESS_BYTES = 760 << 20
SCORING_BYTES = 60 << 20
FRAGMENTED = {"bf16": 1.05, "fp32": 1.25}
BLOCKED = 16
"""Channels that oneDNN computes with at a time: a convolution copies what it reads and writes to multiples of that."""
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
    """Estimate for a CPU, of the larger of a step with everything that is kept and a snapshot with its scores; the
    training images are not read into memory."""
    steps: int
    kimg: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)


ASK_FROM = 1 << 19
"""Pixels of a batch from which on it is asked whether memory is free for a training."""


def plan(config: Config) -> Cost:
    """Estimate the cost of a training step and of the whole run, by taking steps with tensors that hold no values.

    A step with images of all sizes: those of a training that begins with smaller ones cost less.

    Raises:
        UsageError: The length is in epochs, which `choose_length` resolves.
    """
    if config.training.epochs is not None:
        raise UsageError("training.epochs: the length depends on the number of images: name the prepared set")
    config = config.override({"training.first_sides": []})
    training = config.training
    precision = usable_precision(training.precision, "cpu")
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    recipe = Recipe.of(training)
    networks = Networks(_staying(recipe.networks.generator, config), _staying(recipe.networks.discriminator, config))
    recipe = dataclasses.replace(recipe, networks=networks)
    _centres.cache_clear()  # what it keeps of a real training cannot be mixed with tensors without values, nor
    try:
        with FakeTensorMode(), _Meter() as meter:  # unlike "meta", it selects the attention kernel of a CPU
            state = TrainingState(config, torch.device("cpu"), recipe)
            state.augment.values = [MAX_PROBABILITY * (training.augment_target > 0)] * len(state.augment.values)
            sizes = [sum(p.numel() for p in part.parameters()) for part in (state.generator, state.discriminator)]
            batch, flops = _batch(config), {}
            _begin_moments(state)
            for penalised in (False, True) if training.penalty_every > 1 else (True,):
                state.step = 0 if penalised else 1
                before, meter.peak = meter.flops, meter.now
                train_step(state, batch, autocast)
                flops[penalised] = meter.flops - before
            _sample(state)
            # Another thread, where there is one, has memory of its own.
            beside = spare_core(state.device)
            scoring = _scoring_bytes(config.network)
            peak = max(meter.peak, meter.now + (0 if beside else scoring))
    finally:
        _centres.cache_clear()  # the other way round
    plain = flops.get(False, flops[True])
    return Cost(
        generator_parameters=sizes[0],
        discriminator_parameters=sizes[1],
        flops_per_step=plain + (flops[True] - plain) // training.penalty_every,
        memory_bytes=PROCESS_BYTES + int(FRAGMENTED[precision] * peak) + (scoring if beside else 0),
        steps=training.total_steps,
        kimg=training.total_steps * training.batch_size / 1000,
    )


def _staying(network: Any, config: Config) -> Any:
    """A network that is neither moved nor copied, which torch cannot do without values, but built anew."""
    own = {"to": lambda self, *_: self, "__deepcopy__": lambda self, _: type(self)(config.network)}
    return type(network.__name__, (network,), own)


def _begin_moments(state: TrainingState) -> None:
    """Make the optimizers' moments, which are there from the end of the first step on."""
    state.drop_gradients()  # they are zero then
    for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
        optimizer.step()


def _batch(config: Config) -> Batch:
    training, network = config.training, config.network
    count = training.batch_size
    latents = torch.empty(count, network.latent_size)
    return Batch(
        real=torch.empty(count, network.image_channels, network.resolution, network.resolution),
        latents=latents,
        generator_latents=None if training.shared_latents else torch.empty_like(latents),
        mix=torch.empty(count),
        augment=torch.empty(3, count, CHANGES) if training.augment_target else None,
        labels=torch.empty(count, dtype=torch.long) if network.num_classes else None,
        tiles=torch.empty(count, dtype=torch.long) if tiles_of(network) else None,
    )


def _scoring_bytes(network: NetworkConfig) -> int:
    """What a snapshot scores: generated images beside as many real ones, and the patches of both."""
    images = SCORED_IMAGES * network.image_channels * network.resolution**2
    levels = sum(side >= MIN_RESOLUTION for side in network.resolutions)
    patches = 4 * levels * SCORED_IMAGES * PATCHES_PER_IMAGE * network.image_channels * PATCH_SIZE**2
    return 2 * images + 2 * patches + SCORING_BYTES


def _sample(state: TrainingState) -> None:
    """Make the images that are made at a time for a snapshot."""
    network, generator = state.config.network, state.sampling_generator
    count = forward_batch(generator)
    labels = torch.empty(count, dtype=torch.long) if network.num_classes else None
    with torch.no_grad():
        generator(torch.empty(count, network.latent_size), labels)


def check_memory(config: Config) -> None:
    """Refuse a training on a CPU for which there is not enough memory; small images always have enough.

    Raises:
        SamganError: There is not enough.
    """
    require_address_space()
    training, side = config.training, config.network.resolution
    if training.batch_size * side**2 < ASK_FROM:
        return
    what = f"training at {side} px in batches of {training.batch_size}"
    remedy = (
        "choose a smaller training.batch_size or network.channel_base, or a set prepared with a smaller --resolution"
    )
    require_memory(plan(config).memory_bytes - PROCESS_BYTES, what, remedy)


class _Meter(TorchDispatchMode):
    """Counts operations, and the bytes of all tensors that are there at a time.

    Operations by torch's own formulas; torch's FlopCounterMode fails on a gradient of a gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.now = 0
        """Bytes."""
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(SAME_FORMULA.get(func._overloadpacket, func._overloadpacket))
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
            if func._overloadpacket is torch.ops.aten.convolution_backward and (groups := args[9]) > 1 and args[10][1]:
                # torch's formula for the gradient of the weight knows no groups.
                of_weight = formula(*args[:10], (False, True, False), out_val=out)
                self.flops -= of_weight - of_weight // groups
        tensors = [leaf for leaf in tree_leaves((args, out)) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self._count(tensor.untyped_storage())
        if func._overloadpacket in (torch.ops.aten.convolution, torch.ops.aten.convolution_backward):
            self.peak = max(self.peak, self.now + sum(map(_blocked_bytes, tensors)))
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._sizes:
            return
        self._sizes[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, name: int) -> None:
        self.now -= self._sizes.pop(name)


def _blocked_bytes(tensor: Tensor) -> int:
    """Bytes of the copy that a convolution makes of features; those of kernels and of small features are small."""
    if tensor.dim() != 4 or tensor.shape[2] < BLOCKED:
        return 0
    return tensor[:, :1].numel() * math.ceil(tensor.shape[1] / BLOCKED) * BLOCKED * tensor.element_size()
