"""Train variants of samgan-plus for the same minutes each, score them, and print one line for each.

    python results/plus/ablation.py cxr64 WORK_FOLDER --features FEATURES.pt [--minutes 20] [--lanes 2] [NAME ...]

Each variant trains on one core, `--lanes` of them at a time; its last step is what is scored.
What is there already is not trained or scored again. Needs Linux (cores are chosen with taskset).
"""

import argparse
import concurrent.futures
import os
import queue
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from samgan.scoring import Scores

HERE = Path(__file__).parent
FIRST = [
    "--training.batch_size=16",
    "--training.learning_rate=0.002",
    "--training.penalty_weight=0.1",
    "--network.mapping_layers=0",
    "--training.precision=fp32",
    "--training.loss=non-saturating",
    "--training.penalty=r1",
    "--training.augment_target=0",
]
"""What samgan-plus started from."""
OLD_RATE = ["--training.learning_rate=0.004"]  # samgan-plus's own, up to commit b122678
BATCH_8 = [*FIRST, "--training.batch_size=8"]
FASTER = [*BATCH_8, *OLD_RATE]
PAIRED = ["--training.loss=relativistic-paired", "--training.penalty=r1-r2"]
NON_SATURATING = ["--training.loss=non-saturating", "--training.penalty=r1", "--training.augment_target=0", *OLD_RATE]
SLOW = ["--training.learning_rate=0.002", "--training.discriminator_learning_rate=0.004"]


def attention(kind: str) -> list[str]:
    """One kind in every block up to 32 px of both networks, as the paper's rows have theirs on a CPU."""
    places = [f"--network.{network}_attention=[4, 8, 16, 32]" for network in ("generator", "discriminator")]
    return [f"--network.attention_kind={kind}", *places]


VARIANTS: dict[str, list[str]] = {
    # The way from the first recipe to samgan-plus.
    "first recipe": FIRST,
    "first, rate 0.004": [*FIRST, *OLD_RATE],
    "first, batch of 8": BATCH_8,
    "first, batch of 4": [*FIRST, "--training.batch_size=4"],
    "first, batch of 8, rate 0.004": FASTER,
    "first, batch of 4, rate 0.004": [*FASTER, "--training.batch_size=4"],
    "first, batch of 8, rate 0.004, R1 of 0.5": [*FASTER, "--training.penalty_weight=0.5"],
    "first, batch of 8, rate 0.004, R1 of 0.02": [*FASTER, "--training.penalty_weight=0.02"],
    "first, batch of 8, rate 0.004, mapping of 2 layers": [*FASTER, "--network.mapping_layers=2"],
    "first, batch of 8, rate 0.004, bf16": [*FASTER, "--training.precision=bf16"],
    "first, batch of 8, rate 0.004, relativistic paired, R1 + R2": [*FASTER, *PAIRED],
    "non-saturating, R1, fp32": [*NON_SATURATING, "--training.precision=fp32"],
    "non-saturating, R1, fp32, generator's rate 0.002": [*NON_SATURATING, "--training.precision=fp32", *SLOW],
    "non-saturating, R1": NON_SATURATING,
    "non-saturating, R1, generator's rate 0.002": [*NON_SATURATING, *SLOW],
    "samgan-plus": [],
    # Networks.
    "without noise": ["--network.noise=none"],
    "noise at 64 px as well": ["--network.noise=all"],
    "generator of MSG-GAN's blocks": ["--network.generator_blocks=plain", "--network.mapping_layers=0"],
    "discriminator of MSG-GAN's blocks": ["--network.discriminator_blocks=plain"],
    "twice as wide from 16 px on": ["--network.channel_base=2048"],
    "half as wide up to 8 px": ["--network.max_channels=64"],
    "latent of 32": ["--network.latent_dim=32"],
    "mapping of 4 layers": ["--network.mapping_layers=4"],
    "minibatch std in every block": ["--network.minibatch_std=every"],
    "attention at 16 px": ["--network.generator_attention=[16]", "--network.discriminator_attention=[16]"],
    "attention at 32 px": ["--network.generator_attention=[32]", "--network.discriminator_attention=[32]"],
    **{f"{kind} attention up to 32 px": attention(kind) for kind in ("linear", "dual", "squeeze-excitation", "cbam")},
    # Losses and penalties.
    "R1 alone": ["--training.penalty=r1"],
    "relativistic average hinge": ["--training.loss=relativistic-average-hinge"],
    "hinge": ["--training.loss=hinge"],
    "no penalty": ["--training.penalty=none"],
    "R1 + R2 of 0.005": ["--training.penalty_weight=0.005"],
    "R1 + R2 every 4 steps": ["--training.penalty_every=4"],
    "R1 + R2 every 16 steps": ["--training.penalty_every=16"],
    # Optimisation.
    "rate 0.004": OLD_RATE,
    "rate 0.016": ["--training.learning_rate=0.016"],
    "rate that falls from 10 kimg on": ["--training.rate_decay_kimg=10"],
    "Adam's beta2 0.999": ["--training.adam_betas=[0, 0.999]"],
    "batch of 4": ["--training.batch_size=4"],
    "batch of 16": ["--training.batch_size=16"],
    "latents drawn for each step": ["--training.shared_latents=false"],
    "average without ramp": ["--training.ema_ramp=0"],
    "half-life of 1 kimg": ["--training.ema_halflife_kimg=1"],
    "random flips": ["--data.flip=random"],
    "without augmentation": ["--training.augment_target=0"],
    "augmentation, target 0.6": ["--training.augment_target=0.6"],
    "augmentation, target 0.3": ["--training.augment_target=0.3"],
    "generator's rate 0.002": SLOW,
    "fp32": ["--training.precision=fp32"],
    # Of several classes (`--classes NORMAL PNEUMONIA`), where samgan-plus is told of them behind its last block.
    "not told of classes": ["--network.num_classes=0"],
    "told of classes behind every block": ["class-at-every-scale"],
    "classes drawn alike": ["--data.class_sampling=balanced"],
    "drawn alike, told behind every block": ["class-at-every-scale", "--data.class_sampling=balanced"],
    "drawn alike, minibatch std over both": ["mixed-groups", "--data.class_sampling=balanced"],
    # Ideas that are in no setting; the first word is one of tried.py.
    "LeCam": ["lecam"],
    "cutout of every image": ["cutout"],
    "DiffAugment of every image": ["diffaugment"],
    "low resolution first": ["low-resolution-first"],
    "pixel shuffle to 64 px": ["pixel-shuffle"],
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
    parser.add_argument("--classes", nargs="+", default=["PNEUMONIA"], metavar="CLASS", help="(default: PNEUMONIA)")
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
    print("| what changed | kimg | Frechet | precision | recall | coverage | MS-SSIM gap | Frechet by class |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with concurrent.futures.ThreadPoolExecutor(options.lanes) as pool:
        for row in pool.map(lambda name: measure(name, options, cores), options.names or VARIANTS):
            print(row, flush=True)


def measure(name: str, options: argparse.Namespace, cores: "queue.Queue[int]") -> str:
    """Train and score one variant on one core, or read what an earlier call left; its line of the table."""
    out = options.work / f"{re.sub(r'[^a-zA-Z0-9.]+', '-', name)}-{options.seed}"
    core = cores.get()
    try:
        if not (out / "scores.json").exists():
            settings = [argument for argument in VARIANTS[name] if argument.startswith("--")]
            idea = [argument for argument in VARIANTS[name] if argument not in settings]
            program = [HERE / "tried.py", *idea] if idea else ["-m", "samgan"]
            train = ["train", options.data, "--classes", *options.classes, "--out", out, *settings]
            length = ["--training.kimg=100000", f"--minutes={options.minutes}"]
            call(core, [*program, *train, f"--training.seed={options.seed}", *length])
            score = ["--features", options.features, "--count", options.count, "--checkpoint", "newest"]
            call(core, [*program, "evaluate", out, "--data", options.data, *score])
    finally:
        cores.put(core)
    scores = Scores.read(out / "scores.json")
    values = [scores.scores[key].value for key in COLUMNS]
    by_class = ", ".join(f"{label} {own.scores['frechet'].value:.3f}" for label, own in scores.classes.items() if own)
    assert scores.generated is not None
    assert scores.generated.images_seen is not None
    assert scores.mode_collapse is not None
    kimg, gap = scores.generated.images_seen / 1000, scores.mode_collapse.difference
    return (
        f"| {name} | {kimg:.0f} | {' | '.join(f'{value:.3f}' for value in values)} | {gap:+.3f} | {by_class or '-'} |"
    )


def call(core: int, arguments: list[Any]) -> None:
    """Run a Python program on one core."""
    command = ["taskset", "-c", str(core), sys.executable, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    status = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode
    if status:
        raise SystemExit(f"{' '.join(command)}: status {status}")


if __name__ == "__main__":
    main()
