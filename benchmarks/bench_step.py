"""Compare the training step of the paper's rows with its goals, and with a reference implementation in the same run.

    python benchmarks/bench_step.py [GROUP ...] [--reference DIR] [--before CHECKOUT] [--widths 64 128] [--rounds 15]

Groups, the first three if none is named:

    steps      msg-gan-6 over the reference and over the machine's convolutions; samgan-8 over msg-gan-6
    precision  bf16 over fp32
    run        a complete run (scores, checkpoints, grids, log): the share outside its steps, and its peak memory
    losses     how far bf16 leads the losses away from fp32's, beside how far another seed does (drawn phantoms)
    profile    milliseconds of a step by operator
    compiled   the gain from torch.compile, which needs a C++ compiler

DIR: a checkout of MSG-GAN's PyTorch code (github.com/akanimax/BMSG-GAN). CHECKOUT: another version of samgan. Both are
measured only if they are named. All take 16 images of 64x64 pixels with 3 channels, since the reference supports no
others, and take turns, step by step: a ratio is the median over rounds of one time / the other. First, a check shows
that ours and the reference compute the same: from the same weights, images and latents, in double precision, the
losses of five steps are compared. samgan-plus is measured by bench_plus.py.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import ROOF_GFLOP, Contender, Training, compete, ratio
from lines import Line, add_json_option, machine, peak_gb, show
from reference import disagreement

from samgan.data.phantom import phantoms
from samgan.devices import choose_precision, keep_freed_memory, make_fabric
from samgan.presets import preset_config
from samgan.training import Sampler, TrainingState, plan, train_step

GROUPS = ("steps", "precision", "run", "losses", "profile", "compiled")
BATCH = 16
ATTENTION = {
    "pooled at 16, 32 px": ((16, 32), True),
    "un-pooled at 16, 32 px": ((16, 32), False),
    "pooled at 4 to 64 px": ((4, 8, 16, 32, 64), True),
}
# Goals, by width where they differ.
OVER_REFERENCE = {64: 2.5, 128: 2.5}
SHARE_OF_ROOF = {128: 0.7}
OVER_MSG_GAN = {"pooled at 16, 32 px": 1.25, "un-pooled at 16, 32 px": 1.5, "pooled at 4 to 64 px": 2.2}
WGAN_GP_OVER_RAHINGE = 2.0
BF16_OVER_FP32 = 1.6
BESIDE_THE_STEP = 0.03
PEAK_GB = {64: 1.0, 128: 1.5}


def row(preset: str, width: int, **network: Any) -> Training:
    """A row of Table 2 as it is measured here."""
    settings = {"max_channels": width, "image_channels": 3, **network}
    return Training(preset, 64, {"network": settings, "training.batch_size": BATCH})


def row_in(task: Training, precision: str) -> Training:
    """The same in another precision."""
    return dataclasses.replace(task, settings={**task.settings, "training.precision": precision})


def rows(width: int) -> dict[str, Training]:
    """The rows to measure at one width."""
    found = {"msg-gan-6": row("msg-gan-6", width)}
    if width == 64:
        for name, (sides, pooled) in ATTENTION.items():
            places = {f"{network}_attention": sides for network in ("generator", "discriminator")}
            found[f"samgan-8 {name}"] = row("samgan-8", width, attention_pooled=pooled, **places)
        found["msg-gan-4 (WGAN-GP)"] = row("msg-gan-4", width)
    return found


def start(task: Training, function: str = "training", before: Path | None = None, **fields: Any) -> Contender:
    """A contender that trains."""
    return Contender(function, {**dataclasses.asdict(task), **fields}, checkout=before)


def steps(width: int, options: argparse.Namespace) -> list[Line]:
    """All results about fp32 steps at one width."""
    lines = []
    tasks = rows(width)
    contenders = {name: start(task) for name, task in tasks.items()}
    contenders["roof"] = Contender("roof")
    if options.before:
        contenders |= {f"before: {name}": start(task, before=options.before) for name, task in tasks.items()}
    if options.reference:
        worst = disagreement(options.reference, tasks["msg-gan-6"])
        lines.append(Line(f"L={width} losses of 5 steps, msg-gan-6 against the reference", worst, 1e-5))
        contenders["reference"] = start(tasks["msg-gan-6"], "reference.reference", folder=str(options.reference))
    compete(contenders, options.rounds)
    roof_rate = ROOF_GFLOP / min(contenders["roof"].seconds)
    for name, task in tasks.items():
        gflop = plan(task.config()).flops_per_step / 1e9
        seconds = statistics.median(contenders[name].seconds)
        note = f"{seconds:.3f} s a step, {gflop:.1f} GFLOP, {gflop / seconds:.0f} of {roof_rate:.0f} GFLOP/s"
        goal = SHARE_OF_ROOF.get(width) if name == "msg-gan-6" else None
        lines.append(
            Line(f"L={width} {name}: share of the roof", gflop / seconds / roof_rate, goal, at_least=True, note=note)
        )
        if options.before:
            times, note = ratio(contenders[f"before: {name}"], contenders[name])
            lines.append(Line(f"L={width} {name}: times as fast as before", times, at_least=True, note=note))
    if options.reference:
        seconds = statistics.median(contenders["reference"].seconds)
        times, note = ratio(contenders["reference"], contenders["msg-gan-6"])
        name = f"L={width} msg-gan-6: times as fast as the reference"
        note = f"{note}; the reference takes {seconds:.3f} s a step"
        lines.append(Line(name, times, OVER_REFERENCE.get(width), at_least=True, note=note))
    if width == 64:
        for name, goal in OVER_MSG_GAN.items():
            times, note = ratio(contenders[f"samgan-8 {name}"], contenders["msg-gan-6"])
            lines.append(Line(f"L={width} samgan-8 {name} / msg-gan-6", times, goal, note=note))
        times, note = ratio(contenders["msg-gan-4 (WGAN-GP)"], contenders["msg-gan-6"])
        lines.append(Line(f"L={width} WGAN-GP / RaHinge", times, WGAN_GP_OVER_RAHINGE, note=note))
    return lines


def precision(width: int, options: argparse.Namespace) -> list[Line]:
    """How much faster the precision "auto" is, where the processor has bf16."""
    if choose_precision("auto", "cpu") != "bf16":
        return [Line(f"L={width} in bf16: this processor has no instructions for it", 1.0)]
    lines = []
    for preset in ("msg-gan-6", "samgan-8"):
        contenders = {name: start(row_in(row(preset, width), name)) for name in ("fp32", "bf16")}
        compete(contenders, options.rounds)
        times, note = ratio(contenders["fp32"], contenders["bf16"])
        name = f"L={width} {preset}: bf16, times as fast as fp32"
        lines.append(Line(name, times, BF16_OVER_FP32, at_least=True, note=note))
    return lines


def losses(width: int, options: argparse.Namespace) -> list[Line]:
    """The distance of bf16's curves of losses from fp32's, over the distance that another seed makes."""
    drawn = np.concatenate([phantoms(128, 64, pneumonia=pneumonia) for pneumonia in (False, True)])
    lines = []
    for preset in ("msg-gan-6", "samgan-8"):
        plain, short = (row_in(row(preset, width), precision) for precision in ("fp32", "bf16"))
        other = dataclasses.replace(plain, settings={**plain.settings, "training.seed": 1})
        curves = [loss_curve(task, drawn, options.loss_steps) for task in (plain, short, other)]
        for place, name in enumerate(("discriminator", "generator")):
            of_plain, of_short, of_other = (curve[:, place] for curve in curves)
            by_bf16, by_seed = (np.sqrt(np.mean((of_plain - curve) ** 2)) for curve in (of_short, of_other))
            note = f"{by_bf16:.3g} and {by_seed:.3g}; mean loss {of_plain.mean():.3g}, {options.loss_steps} steps"
            lines.append(
                Line(f"L={width} {preset}, {name}: bf16's way from fp32 / a seed's", by_bf16 / by_seed, 1.0, note=note)
            )
    return lines


def loss_curve(task: Training, images: np.ndarray, steps: int) -> np.ndarray:
    """The losses of discriminator and generator, each averaged over ten steps: [steps / 10, 2]."""
    config = task.config()
    state = TrainingState(config, torch.device("cpu"))
    sampler = Sampler(images.repeat(config.network.image_channels, axis=1), config, torch.device("cpu"))
    autocast = make_fabric("cpu", precision=config.training.precision).autocast
    logged = (train_step(state, sampler(number), autocast) for number in range(steps // 10 * 10))
    values = [[step[f"loss_{name}"].item() for name in ("discriminator", "generator")] for step in logged]
    return np.array(values).reshape(-1, 10, 2).mean(axis=1)


def profile(width: int, count: int = 5) -> str:
    """Milliseconds of a step by operator, as a Markdown table: a column for each row of Table 2."""
    columns: dict[str, dict[str, float]] = {}
    for name, task in rows(width).items():
        contender = start(dataclasses.replace(task, steps=count))
        contender.ask("seconds")
        found = contender.ask("profile")
        contender.close()
        columns[name] = {key: milliseconds / count for key, (_, milliseconds) in found.items()}
    operators = sorted({key for times in columns.values() for key in times if times[key] > 4})
    operators.sort(key=lambda key: -max(times.get(key, 0) for times in columns.values()))
    table = [["operator, ms a step", *columns], ["---"] * (1 + len(columns))]
    for key in operators:
        table.append([key.removeprefix("aten::"), *(f"{times.get(key, 0):.0f}" for times in columns.values())])
    rest = [sum(value for key, value in times.items() if key not in operators) for times in columns.values()]
    table.append(["all others", *(f"{value:.0f}" for value in rest)])
    table.append(["sum", *(f"{sum(times.values()):.0f}" for times in columns.values())])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def compiled(width: int, options: argparse.Namespace) -> list[Line]:
    """The gain from torch.compile, and how long the first step then takes."""
    lines = []
    for name, task in list(rows(width).items())[:2]:
        contenders = {kind: start(task, kind) for kind in ("training", "compiled")}
        first = contenders["compiled"].ask("seconds")
        compete(contenders, options.rounds)
        times, note = ratio(contenders["training"], contenders["compiled"])
        note = f"{note}; after {first:.0f} s for the first step"
        lines.append(Line(f"L={width} {name}, compiled: times as fast", times, note=note))
    return lines


# ---- a whole run


def train_and_tell(width: int, kimg: float) -> None:
    """Train as `samgan train` does, and print the seconds of the run and of its steps, and the peak memory."""
    from samgan.runs import Run
    from samgan.scoring import CHOOSES_BEST, quick_scores
    from samgan.training import loop
    from samgan.training.snapshots import Scorer

    spent = 0.0
    take = loop.train_step

    def timed(*arguments: Any) -> Any:
        nonlocal spent
        start = time.perf_counter()
        result = take(*arguments)
        spent += time.perf_counter() - start
        return result

    loop.train_step = timed  # type: ignore[assignment]  # where the loop looks it up
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
    print(json.dumps({"wall": wall, "step": spent, "peak_gb": peak_gb()}))


def whole_run(width: int, kimg: float) -> dict[str, float]:
    """Run `train_and_tell` in a separate process and return its results."""
    script = f"import bench_step; bench_step.train_and_tell({width}, {kimg})"
    command = [sys.executable, "-c", script]
    told = subprocess.run(
        command, check=True, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout
    return json.loads(told.splitlines()[-1])


def run(widths: list[int], kimg: float) -> list[Line]:
    """The share of a run outside its steps, at the first width, and its peak memory, at each."""
    lines = []
    for width in widths:
        told = whole_run(width, kimg if width == widths[0] else 0.4)
        if width == widths[0]:
            note = f"{told['wall']:.0f} s for {kimg:g} kimg, first snapshot and scores included"
            share = 1 - told["step"] / told["wall"]
            lines.append(
                Line(f"L={width} msg-gan-6: share of a run outside its steps", share, BESIDE_THE_STEP, note=note)
            )
        lines.append(Line(f"L={width} msg-gan-6: peak memory of a run", told["peak_gb"], PEAK_GB.get(width), " GB"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--reference", type=Path, help="checkout of the reference implementation")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="checkout of another version of samgan")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kimg", type=float, default=8.0, help="length of the whole run (8: up to its first snapshot)")
    parser.add_argument("--loss-steps", type=int, default=150, metavar="N", help="steps of each curve of losses")
    add_json_option(parser)
    options = parser.parse_args()
    unknown = set(options.groups) - set(GROUPS)
    if unknown:
        parser.error(f"group {', '.join(sorted(unknown))}: expected one of {', '.join(GROUPS)}")
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    groups = options.groups or GROUPS[:3]
    lines = []
    for name, measure in (("steps", steps), ("precision", precision), ("losses", losses), ("compiled", compiled)):
        if name in groups:
            lines += [line for width in options.widths for line in measure(width, options)]
    if "run" in groups:
        lines += run(options.widths, options.kimg)
    if lines:
        show(lines, options.json)
    if "profile" in groups:
        print("\n\n".join([machine(), *(profile(width) for width in options.widths)]))


if __name__ == "__main__":
    main()
