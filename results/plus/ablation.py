"""Train variants of samgan-plus for the same minutes each, score them, and print one line for each.

    python results/plus/ablation.py cxr64 WORK_FOLDER --features FEATURES.pt [--minutes 20] [--lanes 2] [NAME ...]

Each variant trains on one core, `--lanes` of them at a time, until it is sent SIGTERM; its last step is what is scored.
What is there already is not trained or scored again. Needs Linux (cores are chosen with taskset).
"""

import argparse
import concurrent.futures
import json
import os
import queue
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

VARIANTS: dict[str, list[str]] = {
    "samgan-plus": [],
    # Networks.
    "without noise": ["--network.noise=none"],
    "noise at 64 px as well": ["--network.noise=all"],
    "generator of MSG-GAN's blocks": ["--network.generator_blocks=plain"],
    "discriminator of MSG-GAN's blocks": ["--network.discriminator_blocks=plain"],
    "twice as wide from 16 px on": ["--network.channel_base=2048"],
    "half as wide up to 8 px": ["--network.max_channels=64"],
    "latent of 32": ["--network.latent_dim=32"],
    "mapping of 2 layers": ["--network.mapping_layers=2"],
    "minibatch std over the batch": ["--network.minibatch_std_group=0"],
    "attention at 16 px": ["--network.generator_attention=[16]", "--network.discriminator_attention=[16]"],
    "attention at 32 px": ["--network.generator_attention=[32]", "--network.discriminator_attention=[32]"],
    # Losses and penalties.
    "relativistic paired, R1 + R2": ["--training.loss=relativistic-paired", "--training.penalty=r1-r2"],
    "relativistic average hinge": ["--training.loss=relativistic-average-hinge"],
    "hinge": ["--training.loss=hinge"],
    "no penalty": ["--training.penalty=none"],
    "R1 of 0.02": ["--training.penalty_weight=0.02"],
    "R1 of 0.5": ["--training.penalty_weight=0.5"],
    "R1 every 4 steps": ["--training.penalty_every=4"],
    "R1 every 16 steps": ["--training.penalty_every=16"],
    # Optimisation.
    "rate 0.001": ["--training.learning_rate=0.001"],
    "rate 0.004": ["--training.learning_rate=0.004"],
    "discriminator's rate 0.001": ["--training.discriminator_learning_rate=0.001"],
    "batch of 8": ["--training.batch_size=8"],
    "batch of 32": ["--training.batch_size=32"],
    "latents drawn for each step": ["--training.shared_latents=false"],
    "average without ramp": ["--training.ema_ramp=0"],
    "half-life of 1 kimg": ["--training.ema_halflife_kimg=1"],
    "random flips": ["--data.flip=random"],
    "bf16": ["--training.precision=bf16"],
    # The rivals.
    "msg-gan-6": ["--preset=msg-gan-6", "--scale=cpu"],
    "samgan-8": ["--preset=samgan-8", "--scale=cpu"],
}
COLUMNS = ("frechet", "precision", "recall", "coverage")


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="variants (default: all)")
    parser.add_argument("--features", type=Path, required=True, help="TorchScript of the Inception that scores")
    parser.add_argument("--classes", default="PNEUMONIA")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--count", type=int, default=1000, help="images scored")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_intermixed_args()  # names may follow the options
    unknown = set(options.names) - set(VARIANTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(VARIANTS)}")
    cores: queue.Queue[int] = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[: options.lanes]:
        cores.put(core)
    options.work.mkdir(parents=True, exist_ok=True)
    print("| what changed | kimg | Frechet | precision | recall | coverage | MS-SSIM gap |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with concurrent.futures.ThreadPoolExecutor(options.lanes) as pool:
        for row in pool.map(lambda name: measure(name, options, cores), options.names or VARIANTS):
            print(row, flush=True)


def measure(name: str, options: argparse.Namespace, cores: "queue.Queue[int]") -> str:
    """Train and score one variant on one core, or read what an earlier call left; its line of the table."""
    out = options.work / f"{name.replace(' ', '-').replace(chr(39), '')}-{options.seed}"
    core = cores.get()
    try:
        if not (out / "scores.json").exists():
            train = ["train", options.data, "--classes", options.classes, "--out", out, *VARIANTS[name]]
            samgan(core, [*train, f"--training.seed={options.seed}", "--training.kimg=100000"], options.minutes)
            score = ["--features", options.features, "--count", options.count, "--checkpoint", "newest"]
            samgan(core, ["evaluate", out, "--data", options.data, *score])
    finally:
        cores.put(core)
    scores: dict[str, Any] = json.loads((out / "scores.json").read_text())
    values = [scores[key]["value"] for key in COLUMNS]
    kimg, gap = scores["generated"]["images_seen"] / 1000, scores["mode_collapse"]["difference"]
    return f"| {name} | {kimg:.0f} | {' | '.join(f'{value:.3f}' for value in values)} | {gap:+.3f} |"


def samgan(core: int, arguments: list[Any], minutes: float | None = None) -> None:
    """Run a command of samgan on one core; after `minutes` it is asked to stop, and saves its last step."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "samgan", *map(str, arguments)]
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=nowhere)
        if minutes is not None:
            time.sleep(60 * minutes)
            process.terminate()
        status = process.wait()
    if status not in ((0,) if minutes is None else (0, 143, -15)):
        raise SystemExit(f"{' '.join(command)}: status {status}")


if __name__ == "__main__":
    main()
