"""Time one training step of msg-gan-6 and samgan-8, and of a reference implementation beside them in the same run.

    python benchmarks/bench_step.py [--reference DIR] [--widths 64 128] [--json]

DIR: a checkout of MSG-GAN's PyTorch code (github.com/akanimax/BMSG-GAN), measured and not needed otherwise. Ours and
the reference take turns, step by step, on the same 3-channel images (the reference knows no others); a ratio is the
median over rounds of reference time / our time, so that drift of the machine cancels. That both compute the same is
seen first: from the same weights, images and latents, in double precision, the losses of five steps are compared.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from samgan.distributed import world_size
from samgan.layers import EqualizedConv2d
from samgan.networks import image_pyramid
from samgan.pictures import to_uint8
from samgan.planning import plan
from samgan.presets import preset_config
from samgan.training import Batch, Sampler, TrainingState, train_step

BATCH = 16
# Of msg-gan-6, by width: how many times as fast as the reference a step is to be; its share of the convolution roof.
GOAL_RATIO = {64: 2.2, 128: 2.0}
GOAL_ROOF = {128: 0.7}


def measure(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def roof_gflops() -> float:
    """Best rate of a 256-channel 3x3 convolution, forward: what this machine's convolutions can reach."""
    x, w = torch.randn(BATCH, 256, 32, 32), torch.randn(256, 256, 3, 3)
    flops = 2 * BATCH * 256 * 256 * 9 * 32 * 32
    with torch.inference_mode():
        return flops / min(measure(lambda: F.conv2d(x, w, padding=1)) for _ in range(8)) / 1e9


def our_training(preset: str, width: int) -> tuple[TrainingState, Sampler]:
    config = preset_config(preset, "cpu").override(
        {"network.max_channels": width, "network.image_channels": 3, "training.batch_size": BATCH}
    )
    assert world_size() == 1
    images = to_uint8(torch.rand(64, 3, 64, 64) * 2 - 1).numpy()
    return TrainingState(config, torch.device("cpu")), Sampler(images, config, torch.device("cpu"))


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


def disagreement(folder: Path, width: int, steps: int = 5) -> float:
    """Largest relative difference between our losses and the reference's, from the same weights and batches."""
    state, sampler = our_training("msg-gan-6", width)
    state.generator.double(), state.discriminator.double(), state.ema_generator.double()
    reference = Reference(folder, state)
    worst = 0.0
    for number in range(steps):
        batch = sampler(number)
        batch = dataclasses.replace(batch, real=batch.real.double(), latents=batch.latents.double())
        logged = train_step(state, batch)
        ours = [logged[name].item() for name in ("loss_discriminator", "loss_generator")]
        # A hinge loss may be 0, so what is below 1 counts as it is.
        worst = max(worst, *(abs(a - b) / max(1, abs(b)) for a, b in zip(ours, reference.step(batch), strict=True)))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="checkout of the reference implementation")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print a list of name, goal, measured, met")
    options = parser.parse_args()
    lines, rows = [], []
    lines.append(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, batch {BATCH}, 64x64"
    )
    for width in options.widths:
        steps: dict[str, Callable[[], object]] = {}
        flops = {}
        for preset in ("msg-gan-6", "samgan-8"):
            state, sampler = our_training(preset, width)
            steps[preset] = partial(lambda state, sampler: train_step(state, sampler(state.step)), state, sampler)
            flops[preset] = plan(state.config)["flops_per_step"]
        if options.reference:
            worst = disagreement(options.reference, width)
            lines.append(f"L={width}: losses of 5 steps differ from the reference's by {worst:.1e}, relative, at most")
            rows.append(
                {"name": f"L={width} losses, relative", "goal": 1e-5, "measured": worst, "met": bool(worst <= 1e-5)}
            )
            state, sampler = our_training("msg-gan-6", width)
            reference, batch = Reference(options.reference, state), sampler(0)
            steps["reference"] = partial(reference.step, batch)
        for step in steps.values():  # warm up
            step()
            step()
        times: dict[str, list[float]] = {name: [] for name in steps}
        roofs = []
        for _ in range(options.rounds):
            for name, step in steps.items():
                times[name].append(measure(step))
            roofs.append(roof_gflops())
        roof = max(roofs)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, work in flops.items():
            rate = work / medians[name] / 1e9
            lines.append(
                f"L={width} {name}: {medians[name]:.3f} s a step, {work / 1e9:.1f} GFLOP, {rate:.0f} GFLOP/s, "
                f"{rate / roof:.0%} of the convolution roof ({roof:.0f} GFLOP/s)"
            )
            goal = GOAL_ROOF.get(width) if name == "msg-gan-6" else None
            met = None if goal is None else rate / roof >= goal
            rows.append({"name": f"{name} L={width} share of roof", "goal": goal, "measured": rate / roof, "met": met})
        if options.reference:
            ratio = statistics.median(r / o for r, o in zip(times["reference"], times["msg-gan-6"], strict=True))
            lines.append(f"L={width} reference: {medians['reference']:.3f} s a step; ours is {ratio:.2f} times as fast")
            goal = GOAL_RATIO.get(width, 1.0)
            rows.append(
                {"name": f"msg-gan-6 L={width} over reference", "goal": goal, "measured": ratio, "met": ratio >= goal}
            )
    print(json.dumps(rows, indent=2) if options.json else "\n".join(lines))


if __name__ == "__main__":
    main()
