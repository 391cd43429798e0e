"""The training state and one step."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from samgan.config import Config, TrainingConfig
from samgan.distributed import average_gradients, gather, world_size
from samgan.networks import (
    MAPPING_RATE,
    Discriminator,
    Generator,
    Pyramid,
    image_pyramid,
    power_iteration,
)
from samgan.training.augment import AdaptiveProbability, augment
from samgan.training.batches import Batch
from samgan.training.cuda_graphs import CapturedParts
from samgan.training.losses import ABSOLUTE, LOSSES, PENALTIES, RELATIVISTIC


class TrainingState:
    """Everything a step changes: networks, averaged generator, optimizers, share of augmentation, number of steps."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.step = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed)
            self.generator = Generator(config.network).to(device)
            self.discriminator = Discriminator(config.network).to(device)
        self.ema_generator: Generator | None = None
        if config.training.ema_halflife_kimg > 0:
            self.ema_generator = copy.deepcopy(self.generator).requires_grad_(False)
        rate = config.training.learning_rate
        self.generator_optimizer = _optimizer(self.generator, config.training, rate)
        rate = config.training.discriminator_learning_rate or rate
        self.discriminator_optimizer = _optimizer(self.discriminator, config.training, rate)
        training = config.training
        classes = config.network.num_classes or 0
        self.augment = AdaptiveProbability(training.augment_target, classes)

    _parts = (
        "generator",
        "discriminator",
        "ema_generator",
        "generator_optimizer",
        "discriminator_optimizer",
        "augment",
    )

    @property
    def images_seen(self) -> int:
        """Real images shown so far."""
        return self.step * self.config.training.batch_size

    @property
    def sampling_generator(self) -> Generator:
        """The averaged generator, or the plain one where averaging is off."""
        return self.ema_generator or self.generator

    def state_dict(self) -> dict[str, Any]:
        """Plain data that `load_state_dict` and `samgan.sampling` read."""
        parts = {name: getattr(self, name) for name in self._parts}
        return {
            "config": self.config.to_dict(),
            "step": self.step,
            "images_seen": self.images_seen,
            **{name: part.state_dict() if part else None for name, part in parts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.step = state["step"]
        for name in self._parts:
            part = getattr(self, name)
            if part is not None:
                part.load_state_dict(state[name])
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            _lay_out_as_weights(optimizer)

    def nonfinite(self) -> str | None:
        """Name of the first weight that is NaN or infinite, if there is one."""
        for network in ("generator", "discriminator"):
            for name, parameter in getattr(self, network).named_parameters():
                if not torch.isfinite(parameter).all():
                    return f"{network}.{name}"
        return None


def _optimizer(network: nn.Module, training: TrainingConfig, rate: float) -> torch.optim.Optimizer:
    mapping = [p for name, p in network.named_parameters() if name.startswith("mapping.")]
    others = [p for name, p in network.named_parameters() if not name.startswith("mapping.")]
    groups: list[dict[str, Any]] = [{"params": others, "initial_lr": rate}]
    if mapping:
        groups.append({"params": mapping, "initial_lr": MAPPING_RATE * rate})
    if training.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=training.adam_betas, fused=True)
    return torch.optim.RMSprop(groups, lr=rate, alpha=0.99)


def _lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded moments the memory layout of their weights: fused Adam takes it for granted, and fails silently."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def _at_least_fp32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def discriminator_loss(
    training: TrainingConfig,
    discriminator: Callable[..., Tensor],
    real: Pyramid,
    fake: Pyramid,
    labels: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The discriminator's loss without penalty, over the global batch; what is logged of it; the signs of real logits.

    `labels` are the classes of the global batch's real and generated images, where the discriminator is told of them:
    it may then add a constant of its own to the logits of each class, which says nothing of over-fitting.
    """
    # One pass over both: larger convolutions, and one gradient of each weight instead of two to add.
    both = discriminator([torch.cat(images) for images in zip(real, fake, strict=True)], batches=2)
    real_logits, fake_logits = (gather(logits) for logits in _at_least_fp32(both).chunk(2))
    loss = LOSSES[training.loss](real_logits, fake_logits)[0]
    if training.drift_weight:
        loss = loss + training.drift_weight * real_logits.square().mean()
    logged = {"loss_discriminator": loss, "logit_real": real_logits.mean(), "logit_fake": fake_logits.mean()}
    middle = torch.zeros_like(real_logits)
    if training.loss not in ABSOLUTE:
        middle = _mean_of_class((real_logits + fake_logits).detach() / 2, labels)
    signs = (real_logits - middle).sign()
    return loss, {**logged, "sign_real": signs.mean()}, signs


def _mean_of_class(values: Tensor, labels: Tensor | None) -> Tensor:
    """In place of each value the mean of those of its class; without labels, of all."""
    if labels is None:
        return values.mean().expand_as(values)
    same = (labels[:, None] == labels).to(values.dtype)
    return same @ values / same.sum(dim=1)


def generator_loss(
    training: TrainingConfig, discriminator: Callable[..., Tensor], real: Pyramid, fake: Pyramid
) -> Tensor:
    """The generator's loss over the global batch; real images are looked at only by relativistic losses."""
    fake_logits = gather(_at_least_fp32(discriminator(fake)))
    real_logits = torch.zeros_like(fake_logits)
    if training.loss in RELATIVISTIC:
        with torch.no_grad():
            real_logits = gather(_at_least_fp32(discriminator(real)))
    return LOSSES[training.loss](real_logits, fake_logits)[1]


def train_step(
    state: TrainingState,
    batch: Batch,
    autocast: Callable[[], contextlib.AbstractContextManager] | None = None,
    captured: "CapturedPasses | None" = None,
) -> dict[str, Tensor]:
    """One discriminator update, then one generator update against the updated discriminator.

    Args:
        state: Changed in place.
        batch: This process's slice of the global batch.
        autocast: Context for the networks' forward passes (bf16); penalties are always computed in fp32.
        captured: Takes the passes' place, and computes the same; of the same state and autocast.

    Returns:
        Scalars to log, on the device, not synchronised; "penalty" in the steps that have one.

    Source: MSG-GAN's order of updates; the paper's eq. 1-2 by `samgan.training.losses`; a lazy penalty:
    Karras et al. 2020 (StyleGAN2), section 3.1, without its change of Adam's settings.
    """
    training = state.config.training
    probability = state.augment.of(batch.labels)
    penalised = training.penalty != "none" and state.step % training.penalty_every == 0
    labels = None if batch.labels is None else gather(batch.labels)
    if captured is None:
        passes = _passes(state, batch, labels, probability, penalised, autocast or contextlib.nullcontext)
    else:
        passes = captured(batch, probability, penalised)
    rate_factor = _rate_factor(state)
    logged = next(passes)
    signs = logged.pop("signs")
    logged["gradient_discriminator"] = _update(state.discriminator, state.discriminator_optimizer, rate_factor)
    logged |= next(passes)
    logged["gradient_generator"] = _update(state.generator, state.generator_optimizer, rate_factor)
    _average(state)
    next(passes, None)
    state.augment.update(signs, labels)
    state.step += 1
    return logged


def _passes(
    state: TrainingState,
    batch: Batch,
    labels: Tensor | None,
    probability: float | Tensor,
    penalised: bool,
    autocast: Callable[[], contextlib.AbstractContextManager],
) -> Iterator[dict[str, Tensor]]:
    """What a step computes between its updates, in parts; whoever takes one updates the network it left gradients in.

    The discriminator's loss (with the signs of real logits) and gradients; the generator's; at last, with spectral
    norm alone, what follows an update of the generator and its average. All that changes from step to step are values
    of tensors: `CapturedPasses` counts on it. `labels` are those of the global batch.
    """
    training = state.config.training
    generator, discriminator = state.generator, state.discriminator

    def shown(pyramid: Pyramid, draw: int) -> Pyramid:
        return pyramid if batch.augment is None else augment(pyramid, batch.augment[draw], probability)

    judge = partial(discriminator, labels=batch.labels)
    real = shown(image_pyramid(batch.real, state.config.network.resolutions), 0)
    shared = batch.generator_latents is None
    with autocast(), torch.set_grad_enabled(shared):
        fake = generator(batch.latents, batch.labels)

    discriminator.requires_grad_(True)
    constant = shown([images.detach() for images in fake], 1)
    with autocast():
        loss, logged, signs = discriminator_loss(training, judge, real, constant, labels)
    if penalised:
        constant = [images.float() for images in constant]
        penalty = PENALTIES[training.penalty](judge, real, constant, batch.mix)
        loss = loss + training.penalty_weight * training.penalty_every * penalty
        logged["penalty"] = gather(penalty.detach().view(1)).mean()  # every process is to see a NaN of any of them
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    loss.backward()
    yield {**{name: value.detach() for name, value in logged.items()}, "signs": signs}

    # The fake batch above is still that of the current generator, so it is used again where latents are.
    power_iteration(discriminator)
    discriminator.requires_grad_(False)
    with autocast():
        if not shared:
            fake = generator(batch.generator_latents, batch.labels)
        loss = generator_loss(training, judge, real, shown(fake, 2))
    state.generator_optimizer.zero_grad(set_to_none=True)
    loss.backward()
    yield {"loss_generator": loss.detach()}

    if state.config.network.spectral_norm != "none":
        power_iteration(generator)
        if state.ema_generator is not None:
            power_iteration(state.ema_generator)
        yield {}


def captures(device: torch.device) -> bool:
    """Whether `train` replays its steps: messages between processes are not captured."""
    return device.type == "cuda" and world_size() == 1


class CapturedPasses:
    """`_passes` as CUDA graphs, for one process on a GPU: there it is launching kernels that takes a step's time.

    The first step with a penalty and the first without are computed as they are; the next ones are captured.

    Args:
        state: Whose steps they are.
        autocast: As for `train_step`.
    """

    def __init__(self, state: TrainingState, autocast: Callable[[], contextlib.AbstractContextManager]) -> None:
        self.state, self.autocast = state, autocast
        self.parts: dict[bool, CapturedParts | None] = {}
        torch.cuda.synchronize(state.device)
        self.stream = torch.cuda.stream(torch.cuda.Stream(state.device))
        """To be entered around all steps: no default stream can be captured."""

    def __call__(self, batch: Batch, probability: float | Tensor, penalised: bool) -> Iterator[dict[str, Tensor]]:
        """What `_passes` gives."""
        tensors = [getattr(batch, field.name) for field in dataclasses.fields(Batch)]
        chances = batch.mix.new_zeros(len(batch.mix)) + probability

        def make(chances: Tensor, *tensors: Any) -> Iterator[dict[str, Tensor]]:
            own = Batch(*tensors)
            return _passes(self.state, own, own.labels, chances, penalised, self.autocast)

        if penalised not in self.parts:
            self.parts[penalised] = None
            return make(chances, *tensors)
        parts = self.parts[penalised]
        if parts is None:
            after = [None] if self.state.config.network.spectral_norm != "none" else []
            networks = [self.state.discriminator, self.state.generator, *after]
            parts = self.parts[penalised] = CapturedParts(make, [chances, *tensors], networks)
        return parts([chances, *tensors])


def _rate_factor(state: TrainingState) -> float:
    """What the learning rates are multiplied by: 1, later 1 / sqrt(images seen / reference).

    Unlike a schedule that ends with the run, it does not depend on how long the run will be.

    Source: Karras et al. 2024 (EDM2), its inverse square root schedule.
    """
    reference = 1000 * state.config.training.rate_decay_kimg
    return 1.0 if not reference else max(state.images_seen / reference, 1.0) ** -0.5


def _update(network: nn.Module, optimizer: torch.optim.Optimizer, rate_factor: float) -> Tensor:
    """One step of the optimizer along the gradients that are there; returns their length."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * rate_factor
    average_gradients(list(network.parameters()))
    norms = torch._foreach_norm([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    optimizer.step()
    return torch.stack(norms).norm()


def _average(state: TrainingState) -> None:
    """Move the averaged generator towards the generator."""
    if state.ema_generator is None:
        return
    training = state.config.training
    halflife = training.ema_halflife_kimg * 1000
    if training.ema_ramp:
        halflife = min(halflife, training.ema_ramp * max(state.images_seen, 1))
    decay = 0.5 ** (training.batch_size / halflife)
    with torch.no_grad():
        averages: list[Tensor] = list(state.ema_generator.parameters())
        torch._foreach_lerp_(averages, list[Tensor](state.generator.parameters()), 1 - decay)
