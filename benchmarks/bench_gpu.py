"""Time a step on an NVIDIA GPU: as plain code, and replayed as CUDA graphs, as `samgan train` does there.

    python benchmarks/bench_gpu.py [--rounds 6] [--json]

Steps use random images of 64 px and the precision of `samgan train`. Plain and replayed steps take turns in one
process, a multiple of `penalty_every` steps at a time, so that a lazy penalty counts in proportion. The results are
medians over the rounds.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch
from lines import machine

from samgan.config import Config
from samgan.devices import choose_precision, make_fabric
from samgan.presets import preset_config
from samgan.training import CapturedPasses, Sampler, TrainingState, train_step

PRESETS = (
    ("samgan-plus", "cpu"),
    ("samgan-plus", "gpu"),
    ("msg-gan-4", "cpu"),
    ("msg-gan-6", "cpu"),
    ("samgan-8", "cpu"),
    ("msg-gan-4", "paper"),
    ("msg-gan-6", "paper"),
    ("samgan-8", "paper"),
)
STEPS, IMAGES = 8, 256


def measure(config: Config, rounds: int) -> dict[str, float | str]:
    """Median milliseconds of a step, plain and replayed; images per second of replayed steps."""
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
    }


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("expected an NVIDIA GPU and a torch built with CUDA; found none")
    rows = []
    for preset, scale in PRESETS:
        config = preset_config(preset, scale)
        config = config.override({"network.num_classes": config.network.num_classes or 0})
        row = {"preset": preset, "scale": scale, "batch": config.training.batch_size}
        rows.append({**row, **measure(config, options.rounds)})
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{torch.cuda.get_device_name()}; {machine()}\n")
    print("| preset | batch | arithmetic | ms a step, plain | replayed | times as fast | images/s |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        faster = row["plain_ms"] / row["replayed_ms"]
        print(
            f"| {row['preset']} `--scale {row['scale']}` | {row['batch']} | {row['precision']} | "
            f"{row['plain_ms']:.1f} | {row['replayed_ms']:.2f} | {faster:.1f} | {row['images_per_second']:,.0f} |"
        )


if __name__ == "__main__":
    main()
