"""Compare what `samgan train --dry-run` says of memory and operations with real trainings.

    python benchmarks/bench_cost.py [--points samgan-plus:cpu:64 ...] [--steps 9] [--json]

Memory: each point is a training in a process of its own, from a prepared set of random images: imports, steps with and
without a penalty, two snapshots, and scores of the first one beside the steps that follow, where a core is spare.
Images are augmented as they are later in a long run. The peak of resident memory is compared with the estimate.

Operations: a step without penalty is counted by torch's FlopCounterMode. That fails on gradients of gradients, so a
penalty is counted by hand. The discriminator is piecewise linear, so the penalty of a set of images takes four times
the operations of a forward pass: the pass, its gradient for the images, and two for the gradient of that. Automatic
differentiation takes two more, which carry zeros back through the first pass.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lines import machine
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from samgan.config import Config
from samgan.data import prepare
from samgan.data.write import finish_set, write_images
from samgan.devices import choose_precision
from samgan.kernels import without_kernels
from samgan.presets import PLUS, preset_config
from samgan.training import Sampler, TrainingState, plan, train_step

POINTS = (
    *(f"{PLUS}:cpu:{side}" for side in (64, 128, 256, 512)),
    f"{PLUS}:cpu:128:fp32",
    *(f"msg-gan-6:cpu:{side}" for side in (64, 128, 256)),
    *(f"samgan-8:cpu:{side}" for side in (64, 128)),
    "msg-gan-2:cpu:64",
    *(
        f"{name}:cpu:{side}"
        for name in ("samgan-vision", "samgan-projected", "samgan-alias-free", "r3gan")
        for side in (128, 256)
    ),
)
IMAGES = 1100
"""Half of them held out, so that as many as in a real training are scored."""
TRAIN = """
import json, sys
from lines import peak_gb
import samgan
from samgan.config import Config
from samgan.data import PreparedSet
from samgan.training.augment import AdaptiveProbability
AdaptiveProbability.of = lambda self, labels: 0.5 * (self.target > 0)
config = Config.from_dict(json.loads(sys.argv[1]))
samgan.train(config, PreparedSet.open(sys.argv[2]), sys.argv[3], device="cpu", quiet=True)
print(peak_gb())
"""
PENALISED_SETS = {"none": 0, "r1": 1, "gradient-per-scale": 1, "r1-r2": 2}
"""Sets of images that the gradient is taken at."""
PASSES = {"plain": 6, "residual": 4, "vision": 4, "projected": 4, "grouped": 4}
"""By blocks of the discriminator, what a penalty takes for each forward pass of its images."""


def configuration(point: str, steps: int) -> Config:
    """A point such as samgan-plus:cpu:64, as a training of some steps without classes."""
    name, scale, side, *precision = point.split(":")
    config = preset_config(name, scale, int(side))
    if precision:
        config = config.override({"training.precision": precision[0]})
    kimg = steps * config.training.batch_size / 1000
    # Steps with images of the full size, which the estimate is about.
    length = {"training.kimg": kimg, "training.snapshot_every_kimg": kimg / 2, "training.first_sides": []}
    return config.override({"network.num_classes": 0, **length})


def prepared(folder: Path, config: Config) -> Path:
    """A prepared set of random images for a configuration."""
    side, channels, draw = config.network.resolution, config.network.image_channels, np.random.default_rng(0)
    out = folder / f"set-{side}-{channels}"
    if not out.exists():
        images = draw.integers(0, 256, (IMAGES, 32, 32), np.uint8)
        np.savez(folder / "images.npz", train_images=images, train_labels=np.arange(IMAGES) % 2)
        small = prepare(folder / "images.npz", out, resolution=32, channels=channels, holdout=0.5)
        parts = (draw.integers(0, 256, (1, channels, side, side), np.uint8) for _ in range(IMAGES))
        rows, info = small.manifest, small.info
        with open(out / "images.npy", "wb") as file:
            write_images(file, (IMAGES, channels, side, side), parts)
        finish_set(out, rows, dataclasses.replace(info, resolution=side))
    return out


def measured_memory(config: Config, folder: Path) -> float:
    """The peak of a training in a process of its own, in GB."""
    data = prepared(folder, config)
    out = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, "-c", TRAIN, json.dumps(config.to_dict()), str(data), f"{out}/run"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path.cwd())])}
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return float(told.stdout.splitlines()[-1])


def counted_operations(config: Config) -> float:
    """Operations of a real step, with the share of a penalty that is not computed in every step."""
    network, training, device = config.network, config.training, torch.device("cpu")
    config = config.override({"training.precision": "fp32"})  # which has no effect on their number
    plain = config.override({"training.penalty": "none"})
    shape = (training.batch_size, network.image_channels, network.resolution, network.resolution)
    state, sampler = TrainingState(plain, device), Sampler(np.zeros(shape, np.uint8), plain, device)
    # The counter knows torch's own operations only, and takes the gradient of a grouped weight for that of a whole one.
    gradients = {torch.ops.aten.convolution_backward: gradient_operations}
    with without_kernels(), FlopCounterMode(display=False, custom_mapping=gradients) as step:
        train_step(state, sampler(0))
    fake = [images.detach() for images in state.generator(sampler(0).latents)]
    with without_kernels(), FlopCounterMode(display=False) as once, torch.no_grad():
        state.discriminator(fake)
    penalty = PASSES[network.discriminator_blocks] * PENALISED_SETS[training.penalty] * once.get_total_flops()
    return step.get_total_flops() + penalty / training.penalty_every


def gradient_operations(grad: torch.Size, images: torch.Size, weight: torch.Size, *others: Any, **_: Any) -> int:
    """Operations of a convolution's gradients: those of its forward pass for the input, and again for the weight."""
    transposed, (of_input, of_weight, _) = others[4], others[7]
    return (of_input + of_weight) * conv_flop_count(images, weight, grad, transposed=transposed)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", default=POINTS, metavar="PRESET:SCALE:SIDE[:PRECISION]")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if not options.json:
        print(f"{machine()}\n")
        print("| preset | side | batch | arithmetic | memory | measured | ratio | GFLOP of a step | counted | ratio |")
        print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for point in options.points:
            config = configuration(point, options.steps)
            cost = plan(config)
            rows.append(
                {
                    "point": point,
                    "batch": config.training.batch_size,
                    "precision": choose_precision(config.training.precision, "cpu"),
                    "estimated_gb": cost.memory_bytes / 1e9,
                    "measured_gb": measured_memory(config, Path(folder)),
                    "estimated_gflop": cost.flops_per_step / 1e9,
                    "counted_gflop": counted_operations(config) / 1e9,
                }
            )
            if not options.json:
                print(line(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))


def line(row: dict[str, Any]) -> str:
    """A row of a Markdown table."""
    name, scale, side, *_ = row["point"].split(":")
    cells = [f"{name} `--scale {scale}`", f"{side} px", str(row["batch"]), row["precision"]]
    for unit, known, decimals, shown in (("gb", "measured", 2, " GB"), ("gflop", "counted", 1, "")):
        estimated, found = row[f"estimated_{unit}"], row[f"{known}_{unit}"]
        cells += [f"{estimated:.{decimals}f}{shown}", f"{found:.{decimals}f}{shown}", f"{estimated / found:.2f}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
