"""Measure the cost of presets at several image sizes: images per second, minutes for 100 kimg, and peak memory.

    python benchmarks/bench_presets.py [--steps 30] [--json] [--only 128 256]

Each measurement is a separate process that takes steps on random images with the allocator and precision of
`samgan train`. Snapshots and their scores are not included.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from lines import machine, peak_gb

from samgan.config import Config
from samgan.devices import choose_precision, keep_freed_memory, make_fabric
from samgan.presets import ATTENTION, PLUS, preset_config
from samgan.training import Sampler, TrainingState, plan, train_step

NARROW = {"network.max_channels": 32, "training.batch_size": 8}  # what results/table2 was trained with
OTHERS = ("samgan-projected", "samgan-vision", "samgan-alias-free", "r3gan")
PRESETS: tuple[tuple[str, tuple[int, ...], dict[str, int]], ...] = (
    (PLUS, (32, 64, 128, 256, 512), {}),
    *((f"{name}{suffix}", (64, 128, 256), {}) for name in OTHERS for suffix in ("", ATTENTION)),
    (f"{PLUS}{ATTENTION}", (64, 128, 256), {}),
    *((name, (64, 128), {}) for name in ("msg-gan-6", "samgan-8")),
    *((name, (64,), NARROW) for name in ("msg-gan-6", "samgan-8")),
)
IMAGES = 256


def measure(config: Config, steps: int) -> dict[str, float]:
    """Median images per second and peak memory of some steps in this process."""
    keep_freed_memory()
    network = config.network
    precision = choose_precision(config.training.precision, "cpu")
    fabric = make_fabric("cpu", precision=precision)
    shape = (IMAGES, network.image_channels, network.resolution, network.resolution)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    state, sampler = TrainingState(config, torch.device("cpu")), Sampler(images, config, torch.device("cpu"))
    every = config.training.penalty_every  # so that a lazy penalty counts in proportion
    seconds = []
    for _ in range(3):
        train_step(state, sampler(state.step), fabric.autocast)
    for _ in range(max(1, steps // every)):
        start = time.perf_counter()
        for _ in range(every):
            train_step(state, sampler(state.step), fabric.autocast)
        seconds.append(time.perf_counter() - start)
    rate = every * config.training.batch_size / statistics.median(seconds)
    return {"images_per_second": rate, "peak_gb": peak_gb(), "precision_bits": 16 if precision == "bf16" else 32}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--only", type=int, nargs="+", help="sides of the images (default: all)")
    parser.add_argument("--presets", nargs="+", help="names of presets (default: all)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Config.from_dict(json.loads(options.measure)), options.steps)))
        return
    rows = []
    if not options.json:
        print(f"{machine()}\n")
        print("| preset | side | batch | arithmetic | GFLOP an image | images/s | minutes for 100 kimg | peak memory |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
    for preset, resolutions, settings in (row for row in PRESETS if row[0] in (options.presets or row)):
        for resolution in (side for side in resolutions if options.only is None or side in options.only):
            # Steps with images of the size, with which some presets do not begin.
            config = preset_config(preset, "cpu", resolution).override({**settings, "training.first_sides": []})
            command = [sys.executable, __file__, "--steps", str(options.steps), "--measure"]
            told = subprocess.run(
                [*command, json.dumps(config.to_dict())], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            rows.append(
                {
                    "preset": preset,
                    "settings": settings,
                    "resolution": resolution,
                    "batch": config.training.batch_size,
                    "gflop_per_image": plan(config).flops_per_step / config.training.batch_size / 1e9,
                    **json.loads(told.splitlines()[-1]),
                }
            )
            if not options.json:
                print(line(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    minutes = 100_000 / row["images_per_second"] / 60
    precision = {16: "bf16", 32: "fp32"}[row["precision_bits"]]
    name = " ".join((row["preset"], "--scale cpu", *(f"--{key}={value}" for key, value in row["settings"].items())))
    return (
        f"| {name} | {row['resolution']} px | {row['batch']} | {precision} | {row['gflop_per_image']:.2f} | "
        f"{row['images_per_second']:.1f} | {minutes:.0f} | {row['peak_gb']:.1f} GB |"
    )


if __name__ == "__main__":
    main()
