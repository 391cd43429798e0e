"""Time a step on an NVIDIA GPU: as plain code, and replayed as CUDA graphs, as `samgan train` does there.

    python benchmarks/bench_gpu.py [--rounds 6] [--json]

Steps use random images of 64 px and the precision of `samgan train`; the paper's rows also have "auto". Plain and
replayed steps take turns in one process, a multiple of `penalty_every` steps at a time, so that a lazy penalty counts
in proportion. The results are medians over the rounds. Waits are operations of torch, in replayed steps, that wait for
the GPU. Rows are printed as they are measured.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lines import machine

from samgan.config import Config
from samgan.devices import choose_precision, make_fabric
from samgan.presets import preset_config
from samgan.training import CapturedPasses, Sampler, TrainingState, train_step

PRESETS = (
    ("msg-gan-6", "paper", "auto"),
    ("samgan-8", "paper", "auto"),
    ("msg-gan-6", "paper", "fp32"),
    ("samgan-8", "paper", "fp32"),
    ("msg-gan-4", "paper", "fp32"),
    ("samgan-plus", "cpu", "auto"),
    ("samgan-plus", "gpu", "auto"),
    ("msg-gan-4", "cpu", "fp32"),
    ("msg-gan-6", "cpu", "fp32"),
    ("samgan-8", "cpu", "fp32"),
)
"""Presets, scales and precisions; those that matter most come first, for a run that is cut short."""
GOALS = {("msg-gan-6", "paper", "auto"): 3 * 773, ("samgan-8", "paper", "auto"): 3 * 302}
"""Images per second on an H200: three times what its TF32 gave on 2026-11-27."""
STEPS, IMAGES = 8, 256


def waits(work: Callable[[], None], count: int) -> float:
    """How often a step makes Python wait for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught) / count


def measure(config: Config, rounds: int) -> dict[str, float | str]:
    """Median milliseconds of a step, plain and replayed; images per second and waits of replayed steps."""
    device, network = torch.device("cuda"), config.network
    precision = choose_precision(config.training.precision, "cuda")
    autocast = make_fabric("cuda", precision=precision).autocast
    shape = (IMAGES, network.image_channels, network.resolution, network.resolution)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    sampler = Sampler(images, config, device)
    every = config.training.penalty_every
    count = every * -(-STEPS // every)
    plain, state = TrainingState(config, device), TrainingState(config, device)
    captured = CapturedPasses(state, autocast)

    def replay() -> None:
        with captured.stream:
            for _ in range(count):
                train_step(state, sampler(state.step), autocast, captured)

    def step() -> None:
        for _ in range(count):
            train_step(plain, sampler(plain.step), autocast)

    seconds: dict[str, list[float]] = {"plain": [], "replayed": []}
    for turn in range(rounds + 2):
        for name, work in (("plain", step), ("replayed", replay)):
            torch.cuda.synchronize()
            start = time.perf_counter()
            work()
            torch.cuda.synchronize()
            if turn >= 2:  # the first two rounds set up and capture
                seconds[name].append((time.perf_counter() - start) / count)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "precision": precision,
        "plain_ms": 1e3 * medians["plain"],
        "replayed_ms": 1e3 * medians["replayed"],
        "images_per_second": config.training.batch_size / medians["replayed"],
        "waits": waits(replay, count),
    }


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("expected an NVIDIA GPU and a torch built with CUDA; found none")
    if not options.json:
        print(f"{torch.cuda.get_device_name()}; {machine()}\n\n{HEAD}", flush=True)
    rows = []
    for preset, scale, precision in PRESETS:
        config = preset_config(preset, scale).override({"training.precision": precision})
        config = config.override({"network.num_classes": config.network.num_classes or 0})
        measured = measure(config, options.rounds)
        rows.append({"preset": preset, "scale": scale, "batch": config.training.batch_size, **measured})
        if not options.json:
            print(text(rows[-1], GOALS.get((preset, scale, precision))), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))


HEAD = """| preset | batch | arithmetic | ms a step, plain | replayed | times as fast | images/s | goal | waits a step |
|---|---|---|---|---|---|---|---|---|"""


def text(row: dict[str, Any], goal: float | None) -> str:
    """A row of the Markdown table."""
    faster = row["plain_ms"] / row["replayed_ms"]
    target = "" if goal is None else f"≥ {goal:,}"
    return (
        f"| {row['preset']} `--scale {row['scale']}` | {row['batch']} | {row['precision']} | {row['plain_ms']:.1f} | "
        f"{row['replayed_ms']:.2f} | {faster:.1f} | {row['images_per_second']:,.0f} | {target} | {row['waits']:g} |"
    )


if __name__ == "__main__":
    main()
