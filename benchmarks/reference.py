"""MSG-GAN's own PyTorch code as a contender, and a check that samgan's msg-gan-6 computes the same."""

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contenders import Step, Training
from torch import nn
from torch.nn import functional as F

from samgan.networks import EqualizedConv2d, image_pyramid
from samgan.training import Batch, TrainingState, train_step


class Reference:
    """MSG-GAN's own code, with our weights in it."""

    def __init__(self, folder: Path, state: TrainingState) -> None:
        sys.path.insert(0, str(folder / "sourcecode"))
        from MSG_GAN import GAN, Losses  # type: ignore[import-not-found]

        network, training = state.config.network, state.config.training
        self.resolutions = network.resolutions
        self.gan = GAN.MSG_GAN(len(self.resolutions), network.latent_size, device=torch.device("cpu"))
        self.gan.gen.train(), self.gan.dis.train()
        theirs: list[nn.Module] = []
        for block, head in zip(self.gan.gen.layers, self.gan.gen.rgb_converters, strict=True):
            theirs += [block.conv_1, block.conv_2, head]
        last = self.gan.dis.final_block
        theirs += [self.gan.dis.final_converter, last.conv_1, last.conv_2, last.conv_3]
        for block, head in zip(self.gan.dis.layers, self.gan.dis.rgb_to_features, strict=True):
            theirs += [head, block.conv_1, block.conv_2]
        ours = [layer for part in (state.generator, state.discriminator) for layer in part.modules()]
        ours = [layer for layer in ours if isinstance(layer, EqualizedConv2d)]
        for their, our in zip(theirs, ours, strict=True):
            their.weight.data, their.bias.data = our.weight.data.clone(), our.bias.data.clone()
        rates = {"lr": training.learning_rate, "betas": training.adam_betas}
        self.generator_optimizer = torch.optim.Adam(self.gan.gen.parameters(), **rates)
        self.discriminator_optimizer = torch.optim.Adam(self.gan.dis.parameters(), **rates)
        self.loss = Losses.RelativisticAverageHingeGAN(self.gan.dis)

    def step(self, batch: Batch) -> tuple[float, float]:
        """Losses of the discriminator and of the generator."""
        real = image_pyramid(batch.real, self.resolutions)
        latents = F.normalize(batch.latents, dim=1) * batch.latents.shape[1] ** 0.5
        return (
            self.gan.optimize_discriminator(self.discriminator_optimizer, latents, real, self.loss),
            self.gan.optimize_generator(self.generator_optimizer, latents, real, self.loss),
        )


def reference(folder: str, **fields: Any) -> Step:
    """A contender: one step of the reference; takes the fields of `Training` for its weights and images."""
    state, sampler = Training(**fields).begin()
    return partial(Reference(Path(folder), state).step, sampler(0))


def disagreement(folder: Path, task: Training, steps: int = 5) -> float:
    """Largest relative difference between our losses and the reference's, from the same weights and batches."""
    state, sampler = task.begin()
    state.double()
    reference = Reference(folder, state)
    worst = 0.0
    for number in range(steps):
        batch = sampler(number)
        batch = dataclasses.replace(batch, real=batch.real.double(), latents=batch.latents.double())
        logged = train_step(state, batch)
        ours = [logged[name].item() for name in ("loss_discriminator", "loss_generator")]
        # A hinge loss may be 0, so for values below 1 the difference is absolute.
        worst = max(worst, *(abs(a - b) / max(1, abs(b)) for a, b in zip(ours, reference.step(batch), strict=True)))
    return worst
