"""One training step: the losses of both networks, their updates, and the same passes replayed as CUDA graphs."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from samgan.config import TrainingConfig
from samgan.distributed import average_gradients, gather, world_size
from samgan.networks import Generator, Pyramid, follow_magnitudes, image_pyramid, observed_magnitudes
from samgan.training.batches import Batch
from samgan.training.cuda_graphs import CapturedParts
from samgan.training.losses import Loss, per_map
from samgan.training.recipe import Recipe
from samgan.training.schedules import Scheduled, scheduled, sides_at
from samgan.training.state import TrainingState

ARITHMETIC = 6
"""Version of the computations of training: raised whenever the same configuration and data give different weights.

It is part of the key of each row of a study, so that rows of another version are computed again. The settings that
differ from their defaults are also part of the key, so raise it whenever the default of a setting changes.
"""

Autocast = Callable[[], contextlib.AbstractContextManager]


def discriminator_loss(
    recipe: Recipe,
    training: TrainingConfig,
    discriminator: Callable[..., Tensor],
    real: Pyramid,
    fake: Pyramid,
    labels: Tensor | None = None,
    beside: Callable[..., Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The discriminator's loss without penalty, over the global batch.

    Args:
        recipe: Its loss and regularizer are used.
        training: Its `drift_weight` is used.
        discriminator: Maps a pyramid to logits.
        real: Real pyramid of this process.
        fake: Generated pyramid of this process.
        labels: Classes of the global batch, for a conditional discriminator. It may add a constant to the logits of a
            class, which says nothing about over-fitting, so signs are taken within each class.
        beside: `Discriminator.beside`, if there is one; its loss is added.

    Returns:
        The loss, the scalars to log, and the sign of each real logit: +1 if the discriminator is right about the image.
        Of an image with maps of logits, it is the mean sign.
    """
    # One pass over both: convolutions are larger, and each weight gets one gradient instead of two to add.
    both = [torch.cat(images) for images in zip(real, fake, strict=True)]
    real_logits, fake_logits = (gather(logits) for logits in _at_least_fp32(discriminator(both, batches=2)).chunk(2))
    loss = per_map(recipe.loss.of, real_logits, fake_logits)[0]
    if beside is not None:
        seen = [gather(logits) for logits in _at_least_fp32(beside(both, batches=2)).chunk(2)]
        loss = loss + recipe.beside_weight * per_map(recipe.beside.of, *seen)[0]
    if training.drift_weight:
        loss = loss + training.drift_weight * real_logits.square().mean()
    if recipe.regularizer is not None:
        loss = loss + recipe.regularizer(real_logits, fake_logits)
    logged = {"loss_discriminator": loss, "logit_real": real_logits.mean(), "logit_fake": fake_logits.mean()}
    middle = torch.zeros_like(real_logits)
    if not recipe.loss.absolute:
        middle = _mean_of_class((real_logits + fake_logits).detach() / 2, labels)
    signs = (real_logits - middle).sign()
    signs = signs.view(len(signs), -1).mean(dim=1) if signs.ndim > 1 else signs
    return loss, {**logged, "sign_real": signs.mean()}, signs


def _at_least_fp32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _mean_of_class(values: Tensor, labels: Tensor | None) -> Tensor:
    """For each value, the mean over its class; without labels, the mean over all values."""
    if values.ndim > 1:  # maps: each place by itself
        return torch.stack([_mean_of_class(one, labels) for one in values.flatten(1).unbind(1)], 1).view_as(values)
    if labels is None:
        return values.mean().expand_as(values)
    same = (labels[:, None] == labels).to(values.dtype)
    return same @ values / same.sum(dim=1)


def generator_loss(
    recipe: Recipe,
    discriminator: Callable[..., Tensor],
    real: Pyramid,
    fake: Pyramid,
    beside: Callable[..., Tensor] | None = None,
) -> Tensor:
    """The generator's loss over the global batch; only relativistic losses use real images."""

    def against(judge: Callable[..., Tensor], chosen: Loss) -> Tensor:
        fake_logits = gather(_at_least_fp32(judge(fake)))
        real_logits = torch.zeros_like(fake_logits)
        if chosen.relativistic:
            with torch.no_grad():
                real_logits = gather(_at_least_fp32(judge(real)))
        return per_map(chosen.of, real_logits, fake_logits)[1]

    loss = against(discriminator, recipe.loss)
    return loss if beside is None else loss + recipe.beside_weight * against(beside, recipe.beside)


def train_step(
    state: TrainingState,
    batch: Batch,
    autocast: Autocast | None = None,
    captured: "CapturedPasses | None" = None,
) -> dict[str, Tensor]:
    """One discriminator update, then one generator update against the updated discriminator.

    Args:
        state: Changed in place; its recipe says what the step computes.
        batch: This process's slice of the global batch.
        autocast: Context for the networks' forward passes (bf16).
        captured: Computes the passes instead of the plain code; made from the same state and autocast.

    Returns:
        Scalars to log, on the device, not synchronised; "penalty" only in steps with a penalty.

    Source: MSG-GAN for the order of updates; the paper's eq. 1-2 in `samgan.training.losses`; a penalty only in every
        n-th step: Karras et al. 2020 (StyleGAN2), section 3.1, without its change of Adam's settings.
    """
    if state.recipe.before_step is not None:
        state.recipe.before_step(state.images_seen)
    probability = state.augment.of(batch.labels)
    now = scheduled(state.config, state.images_seen)
    scales = len(sides_at(state.config, state.images_seen))
    penalised = state.recipe.penalty is not None and state.step % state.config.training.penalty_every == 0
    weight = now.penalty_weight if penalised else None
    labels = None if batch.labels is None else gather(batch.labels)
    if captured is None:
        passes = _passes(state, batch, labels, probability, weight, autocast or contextlib.nullcontext, scales)
    else:
        passes = captured(batch, probability, weight, scales)
    logged = next(passes)
    signs = logged.pop("signs")
    logged["gradient_discriminator"] = _update(state, "discriminator", now)
    logged |= next(passes)
    magnitudes = logged.pop("magnitudes", None)
    logged["gradient_generator"] = _update(state, "generator", now)
    _average(state)
    if magnitudes is not None:
        networks = [state.generator, *filter(None, [state.ema_generator])]
        follow_magnitudes(networks, magnitudes, state.images_seen, state.config.training.batch_size)
    next(passes, None)
    state.augment.update(signs, labels)
    state.step += 1
    return logged


def _passes(
    state: TrainingState,
    batch: Batch,
    labels: Tensor | None,
    probability: float | Tensor,
    penalty_weight: float | Tensor | None,
    autocast: Autocast,
    scales: int,
) -> Iterator[dict[str, Tensor]]:
    """Compute a step in parts; after each part, the caller updates the network whose gradients it set.

    First come the discriminator's loss (with the signs of real logits) and gradients, then the generator's. With
    spectral norm, a third part follows the update of the generator and its average. Only values of tensors change from
    step to step, which `CapturedPasses` relies on. `labels` are those of the global batch. `penalty_weight` is None in
    a step without a penalty. Only the smallest images, as many as `scales`, are used.
    """
    recipe, generator, discriminator = state.recipe, _making(state, scales), state.discriminator

    def shown(pyramid: Pyramid, draw: int) -> Pyramid:
        return pyramid if batch.augment is None else recipe.augmentation(pyramid, batch.augment[draw], probability)

    state.drop_gradients()
    judge = partial(discriminator, labels=batch.labels)
    beside = discriminator.beside and partial(discriminator.beside, labels=batch.labels, tiles=batch.tiles)
    real = shown(image_pyramid(batch.real, state.config.network.image_sides)[:scales], 0)
    shared = batch.generator_latents is None
    with autocast(), torch.set_grad_enabled(shared), state.ready("generator"):
        fake = generator(batch.latents, batch.labels)

    state.freeze_discriminator(False)
    constant = shown([images.detach() for images in fake], 1)
    with autocast(), state.ready("discriminator"):
        loss, logged, signs = discriminator_loss(recipe, state.config.training, judge, real, constant, labels, beside)
    if penalty_weight is not None and recipe.penalty is not None:
        constant = [images.float() for images in constant]
        with autocast(), state.ready("discriminator"):
            penalty = recipe.penalty(judge, real, constant, batch.mix)
        loss = loss + penalty_weight * penalty
        logged["penalty"] = gather(penalty.detach().view(1)).mean()  # every process has to see a NaN of any process
    loss.backward()
    yield {**{name: value.detach() for name, value in logged.items()}, "signs": signs}

    # The fake batch above still comes from the current generator, so it is reused if latents are shared.
    if state.discriminator_is_spectral:
        state.power_iteration("discriminator")
    state.freeze_discriminator(True)
    with autocast():
        if not shared:
            with state.ready("generator"):
                fake = generator(batch.generator_latents, batch.labels)
        with state.ready("discriminator", frozen=True):
            loss = generator_loss(recipe, judge, real, shown(fake, 2), beside)
    loss.backward()
    yield {"loss_generator": loss.detach(), **_magnitudes(state.generator)}

    if state.config.network.spectral_norm != "none":
        state.power_iteration("generator")
        if state.ema_generator is not None:
            state.power_iteration("ema_generator")
        yield {}


def _making(state: TrainingState, scales: int) -> Callable[..., Pyramid]:
    """The generator, or the part of it that makes so many of the smallest images."""
    every = scales == len(state.config.network.image_sides)
    return state.generator if every else partial(state.generator, scales=scales)


def _magnitudes(generator: Generator) -> dict[str, Tensor]:
    """What the layers of an alias-free generator saw, over the global batch; nothing of another generator."""
    observed = observed_magnitudes(generator) if generator.is_alias_free else None
    return {} if observed is None else {"magnitudes": gather(observed[None]).mean(dim=0)}


def can_capture(state: TrainingState) -> bool:
    """Whether steps can be replayed as CUDA graphs: one process on a GPU, since messages are not captured."""
    return state.device.type == "cuda" and world_size() == 1 and state.recipe.repeatable


class CapturedPasses:
    """`_passes` as CUDA graphs, for one process on a GPU, where launching kernels takes most of a step's time.

    The first step with a penalty and the first without one run as plain code, for each number of scales; the next ones
    are captured.

    Args:
        state: The state that the steps change.
        autocast: As for `train_step`.
    """

    def __init__(self, state: TrainingState, autocast: Autocast) -> None:
        self.state, self.autocast = state, autocast
        self.parts: dict[tuple[bool, int], CapturedParts | None] = {}
        torch.cuda.synchronize(state.device)
        self.stream = torch.cuda.stream(torch.cuda.Stream(state.device))
        """Enter it around all steps: the default stream cannot be captured."""

    def __call__(
        self, batch: Batch, probability: float | Tensor, penalty_weight: float | None, scales: int
    ) -> Iterator[dict[str, Tensor]]:
        """Yield what `_passes` yields."""
        penalised = penalty_weight is not None
        key = penalised, scales
        tensors = [getattr(batch, field.name) for field in dataclasses.fields(Batch)]
        values = [batch.mix.new_zeros(len(batch.mix)) + probability, batch.mix.new_full((), penalty_weight or 0.0)]

        def make(chances: Tensor, weight: Tensor, *tensors: Any) -> Iterator[dict[str, Tensor]]:
            own = Batch(*tensors)
            return _passes(self.state, own, own.labels, chances, weight if penalised else None, self.autocast, scales)

        if key not in self.parts:
            self.parts = {known: parts for known, parts in self.parts.items() if known[1] == scales}
            self.parts[key] = None
            return make(*values, *tensors)
        parts = self.parts[key]
        if parts is None:
            after = [None] if self.state.config.network.spectral_norm != "none" else []
            networks = [self.state.discriminator, self.state.generator, *after]
            parts = self.parts[key] = CapturedParts(make, [*values, *tensors], networks)
        return parts([*values, *tensors])


def _update(state: TrainingState, name: str, now: Scheduled) -> Tensor:
    """One step of a network's optimizer along the gradients; returns their length."""
    optimizer: torch.optim.Optimizer = getattr(state, f"{name}_optimizer")
    if name in state.flat:
        state.flat[name].collect_gradients()
    average_gradients([parameter for group in optimizer.param_groups for parameter in group["params"]])
    gradients = []
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * now.rate_factor
        if "betas" in group:
            group["betas"] = (group["betas"][0], now.beta2)
        gradients += [parameter.grad for parameter in group["params"] if parameter.grad is not None]
    norms = torch._foreach_norm(gradients)
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
    if state.flat:
        averages, weights = (state.flat[name].tensors for name in ("ema_generator", "generator"))
    else:
        averages, weights = (list(network.parameters()) for network in (state.ema_generator, state.generator))
    with torch.no_grad():
        torch._foreach_lerp_(list[Tensor](averages), list[Tensor](weights), 1 - decay)
