"""Measure what several hosts bring, and how many bytes they send for each step.

    sudo python benchmarks/bench_hosts.py [--sides 64 256] [--hosts 1 2 3] [--steps 20] [--json]

The hosts are network namespaces of this machine with virtual links: the links are fast, and all cores share one memory.
Each host has one core of its own; with fewer cores than hosts, times are not given. samgan-plus of `--channels` is
trained twice for each point, with N and with 2 N steps. The bytes of a step are the difference of what all hosts have
sent, divided by N, without what they send to meet. Efficiency is images per second of N hosts, divided by N times those
of one host; the batch is the same.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from lines import add_json_option, machine

from samgan.data import prepare
from samgan.data.phantom import write_phantoms

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from hosts import Network, finish, why_not


@dataclass(frozen=True)
class Point:
    """What was measured with a number of hosts."""

    side: int
    hosts: int
    images_per_second: float | None
    """Of all hosts together, in the second half of the longer training; None with too few cores."""
    bytes_per_step: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 256], help="sides of the images in pixels")
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 3], help="numbers of hosts")
    parser.add_argument("--steps", type=int, default=20, help="steps of the shorter training")
    parser.add_argument("--batch", type=int, default=12, help="images of a step, shared among the hosts")
    parser.add_argument("--channels", type=int, default=32, help="network.max_channels")
    add_json_option(parser)
    options = parser.parse_args()
    if reason := why_not():
        parser.error(reason)
    points = [measure(side, count, options) for side in options.sides for count in options.hosts]
    print(json.dumps([asdict(point) for point in points], indent=2) if options.json else table(points))


def measure(side: int, count: int, options: argparse.Namespace) -> Point:
    with tempfile.TemporaryDirectory() as name, Network(count) as network:
        folder, sent = Path(name), []
        write_phantoms(folder / "images", 12, side)
        prepare(folder / "images", folder / "set", resolution=side)
        for steps in (options.steps, 2 * options.steps):
            before = sum(host.sent() for host in network.hosts)
            _train(network, folder, steps, options)
            sent.append(sum(host.sent() for host in network.hosts) - before)
        lines = (folder / f"run-{2 * options.steps}" / "stats.jsonl").read_text().splitlines()
        trained = [line for line in map(json.loads, lines) if line["kind"] == "train"]
    rate = trained[-1]["images_per_second"] if count <= len(os.sched_getaffinity(0)) else None
    return Point(side, count, rate, max(0, sent[1] - sent[0]) / options.steps)  # one host sends a few bytes by itself


def _train(network: Network, folder: Path, steps: int, options: argparse.Namespace) -> None:
    kimg = steps * options.batch / 1000
    words = [sys.executable, "-m", "samgan", "train", folder / "set", "--out", folder / f"run-{steps}", "--device=cpu"]
    words += [f"--training.batch_size={options.batch}", f"--network.max_channels={options.channels}"]
    words += [f"--training.kimg={kimg}", f"--training.snapshot_every_kimg={kimg}"]
    words += [f"--training.log_every_kimg={options.steps * options.batch / 1000}", f"--hosts={len(network.hosts)}"]
    cores = sorted(os.sched_getaffinity(0))
    processes = [
        host.start(words, environment=network.by_hand(host), cores=cores[host.number % len(cores)])
        for host in network.hosts
    ]
    for status, _, said in finish(processes, 3600):
        if status:
            raise subprocess.CalledProcessError(status, list(map(str, words)), stderr=said)


def table(points: list[Point]) -> str:
    rows = ["| px | hosts | images/s | efficiency | sent in a step |", "|---|---|---|---|---|"]
    for point in points:
        alone = [p.images_per_second for p in points if p.side == point.side and p.hosts == 1]
        rate = point.images_per_second
        efficiency = f"{rate / (point.hosts * alone[0]):.0%}" if rate and alone and alone[0] else "-"
        told = f"{rate:.1f}" if rate else "-"
        rows.append(f"| {point.side} | {point.hosts} | {told} | {efficiency} | {point.bytes_per_step / 1e6:.2f} MB |")
    return "\n".join([machine(), "", *rows])


if __name__ == "__main__":
    main()
