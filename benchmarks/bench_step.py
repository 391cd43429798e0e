"""Compare the time of the training step with its goals, and with a reference implementation in the same run.

    python benchmarks/bench_step.py [--reference DIR] [--widths 64 128] [--rounds 15] [--kimg 8] [--json]
    python benchmarks/bench_step.py --profile | --compiled [--widths 64]

DIR: a checkout of MSG-GAN's PyTorch code (github.com/akanimax/BMSG-GAN); needed only to measure it.

All contenders take 16 images of 64x64 pixels with 3 channels, since the reference supports no others. Each is a
separate process, so that one contender's effect on the memory allocator does not help another. They take turns, step by
step, and a ratio is the median over rounds of one time / the other, so that drift of the machine cancels. First, a
check shows that ours and the reference compute the same: from the same weights, images and latents, in double
precision, the losses of five steps are compared. Last, a complete run (with scores, checkpoints, grids, log) shows
which share of its time is spent outside the step, and its peak memory.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lines import Line, add_json_option, machine, peak_gb, show
from torch import nn
from torch.nn import functional as F

from samgan.config import Config
from samgan.devices import keep_freed_memory
from samgan.networks import EqualizedConv2d, image_pyramid
from samgan.presets import preset_config
from samgan.training import Batch, Sampler, TrainingState, plan, train_step

BATCH = 16
ATTENTION = {
    "pooled at 16, 32 px": ((16, 32), True),
    "un-pooled at 16, 32 px": ((16, 32), False),
    "pooled at 4 to 64 px": ((4, 8, 16, 32, 64), True),
}
# Goals, by width where they differ.
OVER_REFERENCE = {64: 2.2, 128: 2.0}
SHARE_OF_ROOF = {128: 0.7}
OVER_MSG_GAN = {"pooled at 16, 32 px": 1.25, "un-pooled at 16, 32 px": 1.5, "pooled at 4 to 64 px": 2.0}
WGAN_GP_OVER_RAHINGE = 2.0
BESIDE_THE_STEP = 0.03
PEAK_GB = {64: 1.0, 128: 1.5}


def configuration(preset: str, width: int, **network: Any) -> Config:
    """A row of Table 2 as it is measured here."""
    settings = {"max_channels": width, "image_channels": 3, **network}
    return preset_config(preset, "cpu").override({"network": settings, "training.batch_size": BATCH})


def our_training(config: Config) -> tuple[TrainingState, Sampler]:
    """A state to train, and a sampler of random images."""
    network = config.network
    shape = (64, network.image_channels, network.resolution, network.resolution)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
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
    state, sampler = our_training(configuration("msg-gan-6", width))
    state.generator.double(), state.discriminator.double(), state.ema_generator.double()
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


# ---- contenders: processes that take turns


def our_step(config: dict[str, Any]) -> Callable[[], object]:
    """One step of ours, with the allocator as `samgan train` sets it."""
    keep_freed_memory()
    state, sampler = our_training(Config.from_dict(config))
    return lambda: train_step(state, sampler(state.step))


def compiled_step(config: dict[str, Any]) -> Callable[[], object]:
    """The same with both networks compiled by torch.compile, which samgan does not use."""
    keep_freed_memory()
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # a cache would hide the time of the first step
    state, sampler = our_training(Config.from_dict(config))
    state.generator.compile(), state.discriminator.compile()
    return lambda: train_step(state, sampler(state.step))


def reference_step(folder: str, width: int) -> Callable[[], object]:
    """One step of the reference."""
    state, sampler = our_training(configuration("msg-gan-6", width))
    return partial(Reference(Path(folder), state).step, sampler(0))


def roof() -> Callable[[], object]:
    """The best rate of this machine's convolutions: 256 channels, 3x3, forward, with nothing to allocate or keep."""
    keep_freed_memory()
    x, w = torch.randn(BATCH, 256, 32, 32), torch.randn(256, 256, 3, 3)
    return torch.inference_mode()(lambda: F.conv2d(x, w, padding=1))


ROOF_GFLOP = 2 * BATCH * 256 * 256 * 9 * 32 * 32 / 1e9
CONTENDERS: dict[str, Callable[..., Callable[[], object]]] = {
    "ours": our_step,
    "compiled": compiled_step,
    "reference": reference_step,
    "roof": roof,
}


class Contender:
    """A process that does one step on request and reports how long it took."""

    def __init__(self, kind: str, *arguments: Any) -> None:
        command = [sys.executable, __file__, "--contender", json.dumps([kind, *arguments])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds: list[float] = []

    def step(self) -> float:
        """Seconds of one step."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def contend(kind: str, *arguments: Any) -> None:
    """Run in a contender's process: do a step for each line of input and print its time."""
    step = CONTENDERS[kind](*arguments)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


def compete(contenders: dict[str, Contender], rounds: int) -> None:
    """Let the contenders take turns."""
    for contender in contenders.values():  # warm up
        contender.step(), contender.step()
    for _ in range(rounds):
        for contender in contenders.values():
            contender.seconds.append(contender.step())
    for contender in contenders.values():
        contender.close()


def ratio(contenders: dict[str, Contender], name: str, rival: str) -> float:
    """Median of the time of `name` / the time of `rival`."""
    pairs = zip(contenders[name].seconds, contenders[rival].seconds, strict=True)
    return statistics.median(a / b for a, b in pairs)


def configurations(width: int) -> dict[str, Config]:
    """The configurations to measure at one width."""
    configs = {"msg-gan-6": configuration("msg-gan-6", width)}
    if width == 64:
        for name, (sides, pooled) in ATTENTION.items():
            places = {f"{network}_attention": sides for network in ("generator", "discriminator")}
            configs[f"samgan-8 {name}"] = configuration("samgan-8", width, attention_pooled=pooled, **places)
        configs["msg-gan-4 (WGAN-GP)"] = configuration("msg-gan-4", width)
    return configs


def steps(width: int, reference: Path | None, rounds: int) -> list[Line]:
    """All results about steps at one width."""
    lines = []
    configs = configurations(width)
    contenders = {name: Contender("ours", config.to_dict()) for name, config in configs.items()}
    contenders["roof"] = Contender("roof")
    if reference:
        worst = disagreement(reference, width)
        lines.append(Line(f"L={width} losses of 5 steps, msg-gan-6 against the reference", worst, 1e-5))
        contenders["reference"] = Contender("reference", str(reference), width)
    compete(contenders, rounds)
    roof_rate = ROOF_GFLOP / min(contenders["roof"].seconds)
    for name, config in configs.items():
        gflop = plan(config).flops_per_step / 1e9
        seconds = statistics.median(contenders[name].seconds)
        note = f"{seconds:.3f} s a step, {gflop:.1f} GFLOP, {gflop / seconds:.0f} of {roof_rate:.0f} GFLOP/s"
        goal = SHARE_OF_ROOF.get(width) if name == "msg-gan-6" else None
        lines.append(
            Line(f"L={width} {name}: share of the roof", gflop / seconds / roof_rate, goal, at_least=True, note=note)
        )
    if reference:
        seconds = statistics.median(contenders["reference"].seconds)
        times = ratio(contenders, "reference", "msg-gan-6")
        name = f"L={width} msg-gan-6: times as fast as the reference"
        note = f"the reference takes {seconds:.3f} s a step"
        lines.append(Line(name, times, OVER_REFERENCE.get(width), at_least=True, note=note))
    if width == 64:
        for name, goal in OVER_MSG_GAN.items():
            times = ratio(contenders, f"samgan-8 {name}", "msg-gan-6")
            lines.append(Line(f"L={width} samgan-8 {name} / msg-gan-6", times, goal))
        times = ratio(contenders, "msg-gan-4 (WGAN-GP)", "msg-gan-6")
        lines.append(Line(f"L={width} WGAN-GP / RaHinge", times, WGAN_GP_OVER_RAHINGE))
    return lines


def profile(width: int, count: int = 5) -> str:
    """Milliseconds of a step by operator, as a Markdown table: a column for each configuration."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    columns: dict[str, dict[str, float]] = {}
    for name, config in configurations(width).items():
        step = our_step(config.to_dict())
        step(), step()
        with record(activities=[ProfilerActivity.CPU]) as recorded:
            for _ in range(count):
                step()
        columns[name] = {event.key: event.self_cpu_time_total / count / 1000 for event in recorded.key_averages()}
    operators = sorted({key for times in columns.values() for key in times if times[key] > 4})
    operators.sort(key=lambda key: -max(times.get(key, 0) for times in columns.values()))
    rows = [["operator, ms a step", *columns], ["---"] * (1 + len(columns))]
    for key in operators:
        rows.append([key.removeprefix("aten::"), *(f"{times.get(key, 0):.0f}" for times in columns.values())])
    rest = [sum(value for key, value in times.items() if key not in operators) for times in columns.values()]
    rows.append(["all others", *(f"{value:.0f}" for value in rest)])
    rows.append(["sum", *(f"{sum(times.values()):.0f}" for times in columns.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def compiled(width: int, rounds: int) -> list[Line]:
    """The gain from torch.compile, and how long the first step then takes."""
    lines = []
    for name, config in list(configurations(width).items())[:2]:
        contenders = {kind: Contender(kind, config.to_dict()) for kind in ("ours", "compiled")}
        first = contenders["compiled"].step()
        compete(contenders, rounds)
        note = f"after {first:.0f} s for the first step"
        times = ratio(contenders, "ours", "compiled")
        lines.append(Line(f"L={width} {name}, compiled: times as fast", times, note=note))
    return lines


# ---- a whole run


def train_and_tell(width: int, kimg: float) -> None:
    """Train as `samgan train` does, and print the seconds of the run and of its steps, and the peak memory."""
    from samgan.devices import make_fabric
    from samgan.runs import Run
    from samgan.scoring import CHOOSES_BEST, quick_scores
    from samgan.training import loop, step
    from samgan.training.snapshots import Scorer

    spent = {"train_step": 0.0, "_average": 0.0}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            spent[name] += time.perf_counter() - start
            return result

        return call

    # The loop calls `train_step`, which calls `_average`: each is replaced where it is looked up.
    loop.train_step = timed("train_step", loop.train_step)  # type: ignore[assignment]
    step._average = timed("_average", step._average)  # type: ignore[assignment]
    config = preset_config("msg-gan-6", "cpu").override(
        {"network.max_channels": width, "training": {"batch_size": BATCH, "kimg": kimg}}
    )
    images = np.random.default_rng(0).integers(0, 256, (3616, 1, 64, 64), dtype=np.uint8)
    keep_freed_memory()
    fabric = make_fabric("cpu")
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder, "run"), config)
        start = time.perf_counter()
        scorer = Scorer(CHOOSES_BEST, lambda fake, _: quick_scores(images[: len(fake)], fake).to_dict())
        loop.train_loop(config, images, run, fabric, loop.Options(scorer=scorer))
        wall = time.perf_counter() - start
    print(json.dumps({"wall": wall, "step": spent["train_step"] - spent["_average"], "peak_gb": peak_gb()}))


def whole_run(width: int, kimg: float) -> dict[str, float]:
    """Run `train_and_tell` in a separate process and return its results."""
    # Lightning Fabric imports torchmetrics if it is installed, as it is for our tests; users of samgan do not need it.
    script = "import sys; sys.modules['torchmetrics'] = None; import bench_step; "
    script += f"bench_step.train_and_tell({width}, {kimg})"
    command = [sys.executable, "-c", script]
    told = subprocess.run(
        command, check=True, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout
    return json.loads(told.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="checkout of the reference implementation")
    parser.add_argument("--widths", type=int, nargs="*", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kimg", type=float, default=8.0, help="length of the whole run (8: up to its first snapshot)")
    parser.add_argument("--compiled", action="store_true", help="only compare with torch.compile (a C++ compiler)")
    parser.add_argument("--profile", action="store_true", help="only report where the steps spend their time")
    add_json_option(parser)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    if options.contender:
        contend(*json.loads(options.contender))
        return
    if options.compiled:
        show([line for width in options.widths for line in compiled(width, options.rounds)], options.json)
        return
    if options.profile:
        print("\n\n".join([machine(), *(profile(width) for width in options.widths)]))
        return
    lines = [line for width in options.widths for line in steps(width, options.reference, options.rounds)]
    for width in options.widths:
        told = whole_run(width, options.kimg if width == options.widths[0] else 0.4)
        if width == options.widths[0]:
            note = f"{told['wall']:.0f} s for {options.kimg:g} kimg, first snapshot and scores included"
            share = 1 - told["step"] / told["wall"]
            lines.append(
                Line(f"L={width} msg-gan-6: share of a run outside its steps", share, BESIDE_THE_STEP, note=note)
            )
        lines.append(Line(f"L={width} msg-gan-6: peak memory of a run", told["peak_gb"], PEAK_GB.get(width), " GB"))
    show(lines, options.json)


if __name__ == "__main__":
    main()
