"""Measure for how long a snapshot (checkpoint, images, scores, grid) holds up training at 64 px.

    python benchmarks/bench_snapshot.py [--presets samgan-plus msg-gan-6] [--threads 1 2] [--rounds 5] [--json]

Each preset and number of threads is a separate process. It takes steps during which a snapshot is taken; what these
take longer than as many steps before and after is the time that the snapshot holds up training. Snapshots that
training waits for take turns with those that a spare core scores, where there is one.
"""

import argparse
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
from lines import Line, add_json_option, peak_gb, show

GOAL = 1.0
STEPS = 16


def measure(preset: str, threads: int, rounds: int) -> dict[str, Any]:
    """Run `hold_up` in a separate process and return its results."""
    script = f"import bench_snapshot; bench_snapshot.hold_up({preset!r}, {rounds})"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    return json.loads(run.stdout.splitlines()[-1])


def hold_up(preset: str, rounds: int) -> None:
    """Train and take snapshots; print the seconds that these hold up training, by whether it waits for the scores."""
    from samgan.devices import choose_precision, keep_freed_memory, make_fabric
    from samgan.presets import preset_config
    from samgan.runs import Run
    from samgan.scoring import CHOOSES_BEST, QuickScorer
    from samgan.training import Sampler, Scorer, TrainingState, train_step
    from samgan.training.loggers import Loggers
    from samgan.training.snapshots import SCORED_IMAGES, Snapshots, spare_core

    keep_freed_memory()
    config = preset_config(preset, "cpu", 64)
    precision = choose_precision(config.training.precision, "cpu")
    config = config.override({"training.precision": precision, "network.num_classes": 0})
    images = np.random.default_rng(0).integers(0, 256, (3616, 1, 64, 64), dtype=np.uint8)
    device, fabric = torch.device("cpu"), make_fabric("cpu", precision=precision)
    state, sampler = TrainingState(config, device), Sampler(images, config, device)

    def step() -> float:
        start = time.perf_counter()
        train_step(state, sampler(state.step), fabric.autocast)
        return time.perf_counter() - start

    held: dict[bool, list[float]] = {True: [], **({False: []} if spare_core(device) else {})}
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder, "run"), config)
        quick = QuickScorer(images[:SCORED_IMAGES], SCORED_IMAGES)
        scorer = Scorer(CHOOSES_BEST, lambda fake, _: quick(fake).to_dict())
        ways = {wait: Snapshots(run, state, None, Loggers(run, ()), scorer, at_once=wait) for wait in held}
        for _ in range(rounds):
            for wait, snapshots in ways.items():
                usual, taken = [step() for _ in range(STEPS)], 0
                start = time.perf_counter()
                snapshots.take()
                while snapshots.begun is not None:
                    step()
                    taken += 1
                    snapshots.finish(wait=False)
                wall = time.perf_counter() - start
                usual += [step() for _ in range(STEPS)]
                held[wait].append(wall - taken * statistics.median(usual))
    told = {"waits" if wait else "beside": values for wait, values in held.items()}
    print(json.dumps({"held": told, "peak_gb": peak_gb()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", default=["samgan-plus", "msg-gan-6"])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    add_json_option(parser)
    options = parser.parse_args()
    lines = []
    for preset in options.presets:
        for threads in options.threads:
            told = measure(preset, threads, options.rounds)
            ways = told["held"]
            seconds = {way: statistics.median(values) for way, values in ways.items()}
            best = ways.get("beside", ways["waits"])
            note = f"{min(best):.2f} to {max(best):.2f} s"
            if "beside" in ways:
                note += f"; {seconds['waits']:.2f} s where training waits for the scores"
            name = f"{preset}, threads of torch: {threads}; training held up by a snapshot"
            lines.append(Line(name, seconds.get("beside", seconds["waits"]), GOAL, " s", note=note))
            lines.append(Line(f"{preset}, threads of torch: {threads}; peak memory", told["peak_gb"], unit=" GB"))
    show(lines, options.json)


if __name__ == "__main__":
    main()
