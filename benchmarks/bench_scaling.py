"""Measure how time per image and memory grow with resolution, batch, width, size of the set, and processes.

    python benchmarks/bench_scaling.py [--rounds 5] [--plot benchmarks/scaling.svg] [--json]

Each point is a training step of msg-gan-6 in a separate process, by default with 64 px, 64 channels and a batch of 16.
Memory is the peak of the process. The plot needs matplotlib (pip install matplotlib).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lines import add_json_option, machine, peak_gb

from samgan.config import Config
from samgan.devices import keep_freed_memory
from samgan.presets import preset_config
from samgan.training import Sampler, TrainingState, plan, train_step

USUAL = {"resolution": 64, "batch": 16, "width": 64, "images": 3616, "processes": 1}
VALUES = {
    "resolution": [32, 64, 128, 256],
    "batch": [4, 8, 16, 32, 64, 128],
    "width": [32, 64, 128, 256],
    "images": [1000, 3616, 10_000, 30_000, 100_000],
    "processes": [1, 2],
}


def measure(point: dict[str, int], rounds: int) -> dict[str, Any]:
    """Run `step` for one point in a separate process and return its results."""
    # Lightning Fabric imports torchmetrics if it is installed, as it is for our tests; users of samgan do not need it.
    script = "import sys; sys.modules['torchmetrics'] = None; import bench_scaling; "
    script += f"bench_scaling.step({point!r}, {rounds})"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, check=True, stdout=subprocess.PIPE, text=True
    )
    told = json.loads(run.stdout.splitlines()[-1])
    return {**point, **told}


def step(point: dict[str, int], rounds: int) -> None:
    """Train a few steps, and print seconds per image, peak memory and operations per image."""
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder, "images.npy"), (point["images"], 1, point["resolution"], point["resolution"]))
        told = (_train if point["processes"] == 1 else _train_together)(point, rounds, folder)
        told["gflop_per_image"] = plan(configuration(point)).flops_per_step / point["batch"] / 1e9
        print(json.dumps(told))


def configuration(point: dict[str, int]) -> Config:
    """Configuration of msg-gan-6 at one point."""
    return preset_config("msg-gan-6", "cpu", point["resolution"]).override(
        {"network.max_channels": point["width"], "training.batch_size": point["batch"]}
    )


def write_images(path: Path, shape: tuple[int, ...]) -> None:
    """Write a set of random images without holding it in memory."""
    random = np.random.default_rng(0)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for _ in range(shape[0]):
            file.write(random.bytes(shape[2] * shape[3]))


def _train(point: dict[str, int], rounds: int, folder: str) -> dict[str, float]:
    keep_freed_memory()
    config = configuration(point)
    state = TrainingState(config, torch.device("cpu"))
    sampler = Sampler(np.load(Path(folder, "images.npy"), mmap_mode="r"), config, torch.device("cpu"))
    seconds = []
    for number in range(rounds + 2):
        start = time.perf_counter()
        train_step(state, sampler(number))
        seconds.append(time.perf_counter() - start)
    return {
        "seconds_per_image": statistics.median(seconds[2:]) / point["batch"],
        "peak_gb": peak_gb(),
    }


def _train_together(point: dict[str, int], rounds: int, folder: str) -> dict[str, float]:
    """Train with several processes, as `samgan train --processes` does; each gets a share of the processor's cores."""
    from torch.multiprocessing import spawn

    threads = max(1, torch.get_num_threads() // point["processes"])
    spawn(_member, (point, rounds, folder, threads), point["processes"])
    return json.loads(Path(folder, "told.json").read_text())


def _member(rank: int, point: dict[str, int], rounds: int, folder: str, threads: int) -> None:
    torch.set_num_threads(threads)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=point["processes"])
    told = _train(point, rounds, folder)
    if rank == 0:
        Path(folder, "told.json").write_text(json.dumps(told))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def plot(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Plot time per image and memory against each quantity, with logarithmic axes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "samgan"
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, axes = pyplot.subplots(
        2, len(results), figsize=(2.6 * len(results), 5.5), sharey="row", layout="constrained"
    )
    rows = (("seconds_per_image", "seconds per image"), ("peak_gb", "peak memory, GB"))
    for axis, (_, label) in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(label)
    for column, (name, points) in zip(axes.T, results.items(), strict=True):
        x = [point[name] for point in points]
        for axis, (key, _) in zip(column, rows, strict=True):
            axis.loglog(x, [point[key] for point in points], "o-", color="black")
            axis.set_xticks(x, [f"{value:,}" for value in x], rotation=30 if x[-1] > 1000 else 0)
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
            axis.margins(y=0.2)
        column[1].set_xlabel(name)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="write the plot to this file, as SVG")
    add_json_option(parser)
    options = parser.parse_args()
    measured: dict[tuple[int, ...], dict[str, Any]] = {}
    results: dict[str, list[dict[str, Any]]] = {}
    for name, values in VALUES.items():
        results[name] = []
        for value in values:
            point = {**USUAL, name: value}
            key = tuple(point.values())
            if key not in measured:
                measured[key] = measure(point, options.rounds)
                print(f"{name} {value}: {measured[key]['seconds_per_image']:.4f} s per image", file=sys.stderr)
            results[name].append(measured[key])
    if options.plot:
        plot(results, options.plot)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(machine())
    for name, points in results.items():
        print(f"\n| {name} | ms per image | GFLOP per image | GFLOP/s | peak memory |\n|---|---|---|---|---|")
        for point in points:
            rate = point["gflop_per_image"] / point["seconds_per_image"]
            print(
                f"| {point[name]:,} | {1000 * point['seconds_per_image']:.1f} | {point['gflop_per_image']:.2f} | "
                f"{rate:.0f} | {point['peak_gb']:.2f} GB |"
            )


if __name__ == "__main__":
    main()
