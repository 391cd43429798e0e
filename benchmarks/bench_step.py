"""Time one training step of msg-gan-6 and samgan-8, and of a reference implementation beside them in the same run.

    python benchmarks/bench_step.py [--reference DIR] [--widths 64 128] [--json]

DIR: a checkout of MSG-GAN's PyTorch code (github.com/akanimax/BMSG-GAN), measured and not needed otherwise. Ours and
the reference take turns, step by step, on the same 3-channel images (the reference knows no others); a ratio is the
median over rounds of reference time / our time, so that drift of the machine cancels.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from samgan.distributed import world_size
from samgan.networks import image_pyramid
from samgan.pictures import to_uint8
from samgan.planning import plan
from samgan.presets import preset_config
from samgan.training import Sampler, TrainingState, train_step

BATCH = 16


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


def our_step(preset: str, width: int, channels: int) -> tuple[Callable[[], object], float]:
    config = preset_config(preset, "cpu").override(
        {"network.max_channels": width, "network.image_channels": channels, "training.batch_size": BATCH}
    )
    assert world_size() == 1
    state = TrainingState(config, torch.device("cpu"))
    images = to_uint8(torch.rand(64, channels, 64, 64) * 2 - 1).numpy()
    sampler = Sampler(images, config, torch.device("cpu"))
    return lambda: train_step(state, sampler(state.step)), plan(config)["flops_per_step"]


def reference_step(folder: Path, width: int) -> Callable[[], object]:
    sys.path.insert(0, str(folder / "sourcecode"))
    from MSG_GAN import GAN, Losses  # type: ignore[import-not-found]

    gan = GAN.MSG_GAN(depth=5, latent_size=width, device=torch.device("cpu"))
    gan.gen.train(), gan.dis.train()
    rates = {"lr": 0.003, "betas": (0.0, 0.99), "eps": 1e-8}
    optimizers = torch.optim.Adam(gan.gen.parameters(), **rates), torch.optim.Adam(gan.dis.parameters(), **rates)
    loss = Losses.RelativisticAverageHingeGAN(gan.dis)
    images = torch.rand(BATCH, 3, 64, 64) * 2 - 1

    def step() -> None:
        real = image_pyramid(images, (4, 8, 16, 32, 64))
        latents = torch.randn(BATCH, width)
        latents = latents / latents.norm(dim=-1, keepdim=True) * width**0.5
        gan.optimize_discriminator(optimizers[1], latents, real, loss)
        gan.optimize_generator(optimizers[0], latents, real, loss)

    return step


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
        msg_gan, flops = our_step("msg-gan-6", width, 3)
        samgan, samgan_flops = our_step("samgan-8", width, 3)
        steps = {"msg-gan-6": msg_gan, "samgan-8": samgan}
        if options.reference:
            steps["reference"] = reference_step(options.reference, width)
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
        for name, work in (("msg-gan-6", flops), ("samgan-8", samgan_flops)):
            rate = work / medians[name] / 1e9
            lines.append(
                f"L={width} {name}: {medians[name]:.3f} s a step, {work / 1e9:.1f} GFLOP, {rate:.0f} GFLOP/s, "
                f"{rate / roof:.0%} of the convolution roof ({roof:.0f} GFLOP/s)"
            )
            rows.append({"name": f"{name} L={width} share of roof", "goal": None, "measured": rate / roof, "met": None})
        if options.reference:
            ratio = statistics.median(r / o for r, o in zip(times["reference"], times["msg-gan-6"], strict=True))
            lines.append(f"L={width} reference: {medians['reference']:.3f} s a step; ours is {ratio:.2f} times as fast")
            rows.append(
                {"name": f"msg-gan-6 L={width} over reference", "goal": 1.0, "measured": ratio, "met": ratio >= 1}
            )
    print(json.dumps(rows, indent=2) if options.json else "\n".join(lines))


if __name__ == "__main__":
    main()
