"""Training: the state, one step, and the one loop.

Every random draw is a pure function of (seed, purpose, step), never of what was drawn before. So a run needs no
generator states to resume bit for bit, and N processes draw the global batch that one process would.
"""

import contextlib
import copy
import dataclasses
import hashlib
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from samgan.augment import CHANGES, AdaptiveProbability, augment
from samgan.checkpoint import load_checkpoint, newest_checkpoint, prune_checkpoints, record_best, save_checkpoint
from samgan.config import Config, TrainingConfig
from samgan.devices import to_device
from samgan.distributed import average_gradients, gather, on_first_process, rank, world_size
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write
from samgan.graphs import CapturedParts
from samgan.layers import power_iteration
from samgan.losses import ABSOLUTE, LOSSES, PENALTIES, RELATIVISTIC
from samgan.networks import MAPPING_RATE, Discriminator, Generator, Pyramid, attention_gammas, image_pyramid
from samgan.pictures import SYNTHETIC, from_uint8, image_grid, to_uint8, write_png
from samgan.runs import Run
from samgan.sampling import generate, labels_like, latents_of_seeds

if TYPE_CHECKING:
    import lightning_fabric

# Settings that a resumed run may change: how long it is and what it keeps, not what it computes.
RESUMABLE = ("training.kimg", "training.log_every_kimg", "training.snapshot_every_kimg", "training.keep_checkpoints")
GRID_IMAGES = 64
SCORED_IMAGES = 512

Score = Callable[..., dict[str, Any]]
"""From uint8 [n, c, h, w], and their labels where there are classes, to scores; the first one chooses the best
checkpoint, lower is better."""


class Interrupted(SamganError):
    """A signal asked the run to stop; everything up to its last step is saved."""

    on_all_processes = True

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        return type(self), (self.signal_number, str(self))


def random_generator(seed: int, purpose: str, index: int) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed} {purpose} {index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclasses.dataclass
class Batch:
    """This process's slice of one global batch."""

    real: Float[Tensor, "n c h w"]
    latents: Float[Tensor, "n latent"]
    generator_latents: Float[Tensor, "n latent"] | None
    """Latents of the generator's own step; None where it shares the discriminator's."""
    mix: Float[Tensor, " n"]
    augment: Float[Tensor, "3 n changes"] | None = None
    """Random numbers for `augment`: of real images, of the discriminator's and of the generator's generated ones."""
    labels: Int[Tensor, " n"] | None = None
    """Classes of the real images. Generated image i gets that of real image i: in a paired loss the two are of one
    class, and a batch's statistics see the same mixture of classes on both sides."""


class Sampler:
    """Real images and random draws by step number: each epoch is a fresh permutation, epochs follow without gaps.

    With balanced classes, of K images in a row each is of another class, in an order drawn for each K; every class has
    epochs of its own, so that those of a small one come round more often.

    Args:
        images: uint8 [n, c, h, w], in memory or memory-mapped.
        config: The run's configuration.
        device: Where batches go. A GPU keeps a set of up to 2 GiB whole.
        indices: The images to take; default: all.
        labels: Class of each of `images`, 0 to num_classes - 1; not looked at where there are no classes.

    Raises:
        UsageError: A class has no images, or a label stands for none.
    """

    def __init__(
        self,
        images: np.ndarray,
        config: Config,
        device: torch.device,
        indices: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.images = images
        self.indices = np.arange(len(images)) if indices is None else indices
        resident = device.type != "cpu" and len(self.indices) * math.prod(images.shape[1:]) <= 2 << 30
        self.tensor = torch.from_numpy(images[self.indices]).to(device) if resident else None
        copies = 2 if config.data.flip == "double" else 1
        self.labels: np.ndarray | None = None
        self._groups = [np.arange(copies * len(self.indices))]
        classes = config.network.num_classes or 0
        if classes:
            self.labels = np.empty(0, np.int64) if labels is None else labels[self.indices]
            if set(self.labels.tolist()) != set(range(classes)):
                raise UsageError(f"network.num_classes {classes}: expected images with each label 0 to {classes - 1}")
            if config.data.class_sampling == "balanced":
                self._groups = [np.flatnonzero(np.tile(self.labels, copies) == label) for label in range(classes)]
        self._orders: dict[str, tuple[int, Tensor]] = {}

    def first(self, count: int) -> np.ndarray:
        """The first `count` images, as they are; where there are classes the first of each, class by class."""
        if self.labels is None:
            return self.images[self.indices[:count]]
        shares = np.bincount(np.arange(count) % (self.config.network.num_classes or 1))
        places = [np.flatnonzero(self.labels == label)[:share] for label, share in enumerate(shares)]
        return self.images[self.indices[np.concatenate(places)]]

    def _index(self, position: int) -> int:
        number, group = position, 0
        if len(self._groups) > 1:
            number, place = divmod(position, len(self._groups))
            group = int(self._order("classes", number, len(self._groups))[place])
        members = self._groups[group]
        epoch, offset = divmod(number, len(members))
        purpose = f"epoch of class {group}" if len(self._groups) > 1 else "epoch"
        return int(members[self._order(purpose, epoch, len(members))[offset]])

    def _order(self, purpose: str, number: int, length: int) -> Tensor:
        """A permutation; the last one of each purpose is kept."""
        if self._orders.get(purpose, (None,))[0] != number:
            draw = random_generator(self.config.training.seed, purpose, number)
            self._orders[purpose] = number, torch.randperm(length, generator=draw)
        return self._orders[purpose][1]

    def __call__(self, step: int) -> Batch:
        """The batch of `step` (0, 1, ...)."""
        training, latent_size = self.config.training, self.config.network.latent_size
        total = training.batch_size
        own = slice(rank() * total // world_size(), (rank() + 1) * total // world_size())
        index = torch.tensor([self._index(step * total + i) for i in range(own.start, own.stop)])
        count = len(self.indices)
        if self.config.data.flip == "random":
            flip = torch.rand(total, generator=random_generator(training.seed, "flip", step))[own] < 0.5
        else:
            flip = index >= count  # the second half of a doubled set
        index %= count
        if self.tensor is not None:
            real = self.tensor[to_device(index, self.device)]
        else:
            real = to_device(torch.from_numpy(self.images[self.indices[index.numpy()]]), self.device)
        real = torch.where(to_device(flip, self.device).view(-1, 1, 1, 1), real.flip(3), real)
        draw = random_generator(training.seed, "latents", step)
        latents = to_device(torch.randn(2, total, latent_size, generator=draw)[:, own], self.device)
        mix = to_device(torch.rand(total, generator=random_generator(training.seed, "mix", step))[own], self.device)
        changes = None
        if training.augment_target:
            draw = random_generator(training.seed, "augment", step)
            changes = to_device(torch.rand(3, total, CHANGES, generator=draw)[:, own], self.device)
        labels = None if self.labels is None else to_device(torch.from_numpy(self.labels[index.numpy()]), self.device)
        own_latents = None if training.shared_latents else latents[1]
        return Batch(from_uint8(real), latents[0], own_latents, mix, changes, labels)


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
        self.augment = AdaptiveProbability(training.augment_target, training.augment_kimg, classes)

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
    return torch.optim.RMSprop(groups, lr=rate, alpha=training.rmsprop_alpha)


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

    Source: MSG-GAN's order of updates; the paper's eq. 1-2 by `samgan.losses`; a penalty in every n-th step alone:
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


def check_fit(config: Config, shape: Sequence[int], processes: int = 1) -> None:
    """Check that images of `shape` (n, c, h, w), network and number of processes fit, before anything is written.

    Raises:
        UsageError: They do not.
    """
    network, batch_size = config.network, config.training.batch_size
    expected = (network.image_channels, network.resolution, network.resolution)
    if tuple(shape[1:]) != expected:
        raise UsageError(f"the network takes images of (channels, height, width) {expected}; got {tuple(shape[1:])}")
    if shape[0] < 2:
        raise UsageError(f"training takes 2 images or more; got {shape[0]}")
    if processes < 1 or batch_size % processes:
        raise UsageError(f"training.batch_size {batch_size} does not divide by {processes} processes")


def check_start(config: Config, saved: dict[str, Any]) -> None:
    """Check that a run can begin with the networks of a checkpoint, before anything is written.

    Raises:
        UsageError: Its networks have other settings.
    """
    differences = Config.from_dict(saved["config"]).differences(config)
    foreign = [f"{key} is {v[0]!r}, not {v[1]!r}" for key, v in differences.items() if key.startswith("network.")]
    if foreign:
        raise UsageError(f"--start: that run has other networks than this one asks for: {'; '.join(foreign)}")


def train(
    config: Config,
    images: np.ndarray,
    run: Run,
    fabric: "lightning_fabric.Fabric",
    *,
    indices: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    resume: bool = False,
    score: Score | None = None,
    tensorboard: bool = False,
    minutes: float | None = None,
    start: Path | None = None,
    watch: Callable[[], bool] | None = None,
    quiet: bool = False,
) -> TrainingState:
    """Train until `training.kimg` or for `minutes`; the run's files are described in `docs/run-folder.md`.

    Args:
        config: What to do; `run` holds the same in `config.json`.
        images: uint8 [n, c, h, w] of `network.resolution` and `network.image_channels`, in memory or memory-mapped.
        run: A run from `Run.create` or `Run.open`.
        fabric: From `samgan.devices.make_fabric`, launched.
        indices: The images to train on; default: all.
        labels: Class of each of `images`, where `network.num_classes` is not 0.
        resume: Continue from the newest readable checkpoint.
        score: Called on generated images at every snapshot; its first score chooses the best checkpoint.
        tensorboard: Also write TensorBoard events.
        minutes: End, with a snapshot, at the first line of the log after so many minutes of training. Those before a
            resume count, halts do not.
        start: A checkpoint of another run whose networks a new run begins with, its averaged generator too; optimizers
            and steps start afresh. A snapshot is written before the first step.
        watch: Called behind every snapshot; True ends the run there.
        quiet: Print no progress.

    Returns:
        The final state, which is also the newest checkpoint.

    Raises:
        UsageError: Images or labels do not fit the network, or the batch the processes.
        SamganError: A loss or weight became NaN or infinite; the last checkpoint is untouched.
        Interrupted: SIGINT or SIGTERM came; the last step is saved.
    """
    check_fit(config, (len(images if indices is None else indices), *images.shape[1:]), world_size())
    training = config.training
    state = TrainingState(config, fabric.device)
    path, cut_off = on_first_process(_starting_point, run, config) if resume else (None, False)
    if path:
        _restore(state, path)
        if not quiet:
            _say(f"continuing from {path.name}, {state.images_seen / 1000:.1f} kimg")
    elif start:
        _begin_from(state, start)
    sampler = Sampler(images, config, fabric.device, indices, labels)
    log = _Log(run, state, tensorboard, minutes, quiet)
    log_every, snapshot_every = training.steps(training.log_every_kimg), training.steps(training.snapshot_every_kimg)
    if state.step == 0:
        real, text = run.path / "grids" / "real.png", "Real images of the training set."
        on_first_process(_write_grid, real, sampler.first(GRID_IMAGES), text)
        if start and not path:
            on_first_process(_snapshot, run, state, sampler.labels, score)
    if cut_off:
        due = state.step % snapshot_every == 0 or state.step == training.total_steps
        on_first_process(_snapshot, run, state, sampler.labels, score if due else None)

    def out_of_time() -> bool:
        return minutes is not None and bool(_agree(int(log.seconds() >= 60 * minutes), fabric.device))

    captured = CapturedPasses(state, fabric.autocast) if captures(fabric.device) else None
    step = partial(train_step, captured=captured) if captured else train_step
    finished = state.step == training.total_steps or (state.step > 0 and out_of_time())
    with _signals() as received, contextlib.closing(log), captured.stream if captured else contextlib.nullcontext():
        while not finished:
            log.add(step(state, sampler(state.step), fabric.autocast))
            flush = state.step % log_every == 0
            finished = state.step == training.total_steps or (flush and out_of_time())
            snapshot = finished or state.step % snapshot_every == 0
            flush = flush or snapshot
            # Several processes must agree to stop, which costs a message, so they ask only when a line is written.
            stop = _agree(received[0] if received else 0, fabric.device) if world_size() == 1 or flush else 0
            if flush or stop:
                log.flush()
            if snapshot or stop:
                on_first_process(_snapshot, run, state, sampler.labels, score if snapshot else None)
                finished = finished or (snapshot and watch is not None and on_first_process(watch))
                log.last = time.monotonic()  # images/s is of steps alone
            if stop and not finished:
                name = signal.Signals(stop).name
                raise Interrupted(stop, f"stopped by {name} at {state.images_seen / 1000:.3f} kimg; --resume continues")
    return state


def _starting_point(run: Run, config: Config) -> tuple[Path | None, bool]:
    """The checkpoint to go on from, and whether the run was killed between writing it and the rest of its snapshot.

    None if the run was cut off before its first checkpoint: it starts at its first step.
    """
    newest = newest_checkpoint(run)
    if newest is None:
        return None, False
    path, saved = newest
    differences = Config.from_dict(saved["config"]).differences(config)
    foreign = [
        f"{key} is {values[0]!r}, not {values[1]!r}" for key, values in differences.items() if key not in RESUMABLE
    ]
    if foreign:
        raise SamganError(f"{path} is of another run ({'; '.join(foreign)}); take it away and resume again")
    return path, not run.grid_path(saved["images_seen"]).exists()


def _begin_from(state: TrainingState, path: Path) -> None:
    """Take the networks of another run's checkpoint."""
    saved = load_checkpoint(path, device=state.device)
    check_start(state.config, saved)
    state.generator.load_state_dict(saved["generator"])
    state.discriminator.load_state_dict(saved["discriminator"])
    if state.ema_generator is not None:
        state.ema_generator.load_state_dict(saved["ema_generator"] or saved["generator"])


def _restore(state: TrainingState, path: Path) -> None:
    try:
        state.load_state_dict(load_checkpoint(path, device=state.device))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SamganError(
            f"{path} does not hold the training state of this configuration ({reason}); take it away and resume again"
        ) from None


def _snapshot(run: Run, state: TrainingState, real_labels: np.ndarray | None, score: Score | None) -> None:
    """Write checkpoint, grid and scores.

    Classes are scored in the proportions of the real images; in the grid they come in turn, and lie side by side.
    """
    bad = state.nonfinite()
    if bad:
        raise SamganError(f"step {state.step}: weight {bad} is NaN or infinite; the last checkpoint is untouched")
    path = run.checkpoint_path(state.step)
    save_checkpoint(path, state.state_dict())
    if score:
        if real_labels is None:
            fake = _images(state, range(SCORED_IMAGES))
            scores = score(fake)
        else:
            order = random_generator(state.config.training.seed, "scored classes", 0)
            labels = labels_like(real_labels, SCORED_IMAGES)[torch.randperm(SCORED_IMAGES, generator=order)]
            scores = score(_images(state, range(SCORED_IMAGES), labels), labels.numpy())
        run.log({"kind": "scores", "step": state.step, "images_seen": state.images_seen, **scores})
        name = next(iter(scores))
        record_best(run, path, name, scores[name])
    prune_checkpoints(run, state.config.training.keep_checkpoints)
    if classes := state.config.network.num_classes:
        seeds = sorted(range(GRID_IMAGES), key=lambda seed: seed % classes)
        shown = _images(state, seeds, torch.tensor(seeds) % classes)
    else:
        shown = fake[:GRID_IMAGES] if score else _images(state, range(GRID_IMAGES))
    _write_grid(run.grid_path(state.images_seen), shown, SYNTHETIC)


def _images(state: TrainingState, seeds: Sequence[int], labels: Tensor | None = None) -> np.ndarray:
    """uint8 images of the averaged generator."""
    latents = latents_of_seeds(seeds, state.config.network.latent_size)
    pyramids = generate(state.sampling_generator, latents, labels)
    return torch.cat([to_uint8(pyramid[-1]) for pyramid in pyramids]).numpy()


def _write_grid(path: Path, images: np.ndarray, description: str) -> None:
    with atomic_write(path) as file:
        write_png(file, image_grid(images), {"Description": description})


class _Log:
    """Collects scalars on the device, and reads them only when a line is due: no synchronisation in between."""

    def __init__(self, run: Run, state: TrainingState, tensorboard: bool, minutes: float | None, quiet: bool) -> None:
        self.run, self.state, self.minutes, self.quiet = run, state, minutes, quiet
        self.pending: list[dict[str, Tensor]] = []
        self.start_step = state.step
        before = (line for line in run.stats() if line["kind"] == "train" and line["step"] <= state.step)
        self.wall_before = max((line["wall_seconds"] for line in before), default=0.0)
        self.start = self.last = self.spoken = time.monotonic()
        self.spoken_on_terminal = False
        self.writer = None
        if tensorboard and rank() == 0:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(run.path / "tensorboard"))

    def add(self, scalars: dict[str, Tensor]) -> None:
        self.pending.append(scalars)

    def close(self) -> None:
        if self.spoken_on_terminal:
            sys.stderr.write("\n")
        if self.writer is not None:
            self.writer.close()

    def seconds(self) -> float:
        """Of training, those before a resume included."""
        return self.wall_before + time.monotonic() - self.start

    def flush(self) -> None:
        on_first_process(self._write)  # what is logged is the same on all of them
        self.pending.clear()
        self.last = time.monotonic()

    def _write(self) -> None:
        keys = [(row, name) for row, line in enumerate(self.pending) for name in line]
        values = torch.stack([self.pending[row][name] for row, name in keys]).tolist()
        columns: dict[str, list[float]] = {}
        for (row, name), value in zip(keys, values, strict=True):
            self._require_finite(self.state.step - len(self.pending) + 1 + row, name, value)
            columns.setdefault(name, []).append(value)
        means = {name: math.fsum(column) / len(column) for name, column in columns.items()}
        now = time.monotonic()
        state, training = self.state, self.state.config.training
        gammas = {
            f"{name}_{side}": value.item()
            for name in ("generator", "discriminator")
            for side, value in attention_gammas(getattr(state, name)).items()
        }
        for name, value in gammas.items():
            if not math.isfinite(value):
                raise SamganError(
                    f"step {state.step}: gamma of {name} is {value}; stopped, and the last checkpoint is untouched"
                )
        line: dict[str, Any] = {
            "kind": "train",
            "step": state.step,
            "images_seen": state.images_seen,
            "wall_seconds": round(self.seconds(), 3),
            "images_per_second": round(len(self.pending) * training.batch_size / (now - self.last), 3),
            **means,
            "augment": math.fsum(state.augment.values) / len(state.augment.values),
            "gamma": gammas,
        }
        if len(state.augment.values) > 1:
            names = state.config.data.classes or map(str, range(len(state.augment.values)))
            line["augment_by_class"] = dict(zip(names, state.augment.values, strict=True))
        self.run.log(line)
        if self.writer is not None:
            for name in (*means, "augment", "images_per_second"):
                self.writer.add_scalar(name, line[name], state.images_seen)
            for name, value in gammas.items():
                self.writer.add_scalar(f"gamma/{name}", value, state.images_seen)
            self.writer.flush()
        self._speak(line, now)

    def _require_finite(self, step: int, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise SamganError(
                f"step {step}: {name} is {value}; stopped, and the last checkpoint is untouched. A lower "
                "training.learning_rate or another loss may help"
            )

    def _speak(self, line: dict[str, Any], now: float) -> None:
        done, total = line["step"], self.state.config.training.total_steps
        terminal = sys.stderr.isatty()
        if self.quiet or (not terminal and done < total and now - self.spoken < 30):
            return
        self.spoken = now
        remaining = (now - self.start) / (done - self.start_step) * (total - done)
        if self.minutes is not None:
            remaining = max(0.0, min(remaining, 60 * self.minutes - self.seconds()))
        kimg = [f"{steps * self.state.config.training.batch_size / 1000:.4g}" for steps in (done, total)]
        text = (
            f"{'/'.join(kimg)} kimg  "
            f"{line['images_per_second']:.1f} images/s  ETA {_clock(remaining)}  "
            f"D {line['loss_discriminator']:.3f}  G {line['loss_generator']:.3f}"
        )
        for name in ("generator", "discriminator"):
            gammas = [f"{value:+.3f}" for key, value in line["gamma"].items() if key.startswith(name)]
            text += f"  gamma {name[0].upper()} {' '.join(gammas)}" if gammas else ""
        if terminal:
            # A line that wraps could not be written over.
            sys.stderr.write(f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()
            self.spoken_on_terminal = True
        else:
            _say(text)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _say(text: str) -> None:
    if rank() == 0:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second SIGINT interrupts at once."""
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs us there handles signals
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agree(value: int, device: torch.device) -> int:
    """The largest value of any process; the same answer on every process."""
    if world_size() == 1:
        return value
    return int(gather(torch.tensor([float(value)], device=device)).max())
