"""Compare samgan-plus with its goals of speed and memory, and with an earlier version of samgan in the same run.

    python benchmarks/bench_plus.py GROUP [...] [--before CHECKOUT] [--sides 64 128 256] [--rounds 7] [--data DATA]

Groups:

    speed      images/s with one thread and two, over those of the version in CHECKOUT; two threads over one
    pair       two trainings side by side, a core each, over one on two cores and over twice one core
    operators  calls of operators a step; the share of convolutions and matrix products in its time
    memory     peak memory, beside that of the version in CHECKOUT
    snapshots  seconds that a snapshot takes from training at 64 px (checkpoint, grid, scores)
    evaluate   seconds of `samgan evaluate` of 1,000 images of 64 px with built-in features, none of them cached

CHECKOUT: a folder with another version of samgan, measured only if it is named. DATA: a prepared set of 64 px with
2,000 images or more for the last two groups; phantoms are drawn if it is not named.

Steps are of 8 images, with an augmentation share of 0.3, in bf16 where the processor has it. Eight steps in a row count
as one measurement, since every 8th has a penalty. Contenders are processes that take turns, and a ratio is the median
over rounds.
"""

import argparse
import dataclasses
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contenders import CHECKOUT, Contender, Together, Training, compete, ratio
from lines import Line, add_json_option, show

from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.devices import choose_precision

STEPS = 8
BATCH = 8
# Goals, by side where they differ.
OVER_BEFORE = {64: 1.8, 128: 2.0, 256: 2.0}
SECOND_THREAD = {64: 1.6, 256: 1.8}
SIDE_BY_SIDE = 0.9
CALLS = 4000
PRODUCTS = {64: 0.65, 256: 0.6}
SNAPSHOT_SECONDS = 1.0
EVALUATE_SECONDS = 40.0
# Convolutions and matrix products, as torch's profiler names them. (upsample_bilinear2d is none of them.)
IS_PRODUCT = re.compile(
    r"(aten|mkldnn|onednn)::_?(mkldnn_|fused_|thnn_|slow_)?"
    r"(conv(olution|\d).*|linear(_.*)?|(b?add)?b?mm(_.*)?|(add)?mv|dot|scaled_dot_product.*attention.*)"
)
KIMG = 1.152
"""Length of the runs of `snapshots`: 144 steps."""


def plus(side: int) -> Training:
    """Eight steps of samgan-plus as it is measured here."""
    precision = choose_precision("auto", "cpu")
    settings = {"network.num_classes": 0, "training.precision": precision, "training.batch_size": BATCH}
    return Training("samgan-plus", side, settings, STEPS, augmented=0.3)


def start(
    side: int, checkout: Path | None = None, threads: int | None = None, cores: tuple[int, ...] = ()
) -> Contender:
    """A contender that takes these steps."""
    return Contender("training", dataclasses.asdict(plus(side)), checkout=checkout, threads=threads, cores=cores)


def rate(contender: Contender | Together, trainings: int = 1) -> str:
    """Images per second, in words."""
    return f"{trainings * STEPS * BATCH / statistics.median(contender.seconds):.1f} images/s"


def versions(options: argparse.Namespace) -> dict[str, Path]:
    """The checkouts to measure, by name."""
    return {"now": CHECKOUT, **({"before": options.before} if options.before else {})}


def speed(options: argparse.Namespace) -> list[Line]:
    """Images per second over those of another version, and of two threads over one."""
    lines = []
    for side in options.sides:
        found = {
            f"{name} {threads}": start(side, checkout, threads)
            for threads in (1, 2)
            for name, checkout in versions(options).items()
        }
        compete(found, options.rounds, warm=1)
        for threads in (1, 2):
            now, name = found[f"now {threads}"], f"{side} px, {threads} thread{'s' * (threads > 1)}"
            if not options.before:
                lines.append(Line(f"{name}: images/s", STEPS * BATCH / statistics.median(now.seconds)))
                continue
            before = found[f"before {threads}"]
            times, note = ratio(before, now)
            note = f"{note}; {rate(now)}, before {rate(before)}"
            lines.append(
                Line(f"{name}: times as fast as before", times, OVER_BEFORE.get(side), at_least=True, note=note)
            )
        for version in versions(options):
            times, note = ratio(found[f"{version} 1"], found[f"{version} 2"])
            goal = SECOND_THREAD.get(side) if version == "now" else None
            lines.append(Line(f"{side} px, {version}: two threads over one", times, goal, at_least=True, note=note))
    return lines


def pair(options: argparse.Namespace) -> list[Line]:
    """Two trainings side by side, with a core each."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if len(cores) < 2:
        return [Line("two trainings side by side: this machine has one core", 0.0)]
    first, second = cores[:2]
    lines = []
    for side in options.sides:
        one, two = start(side, threads=1, cores=(first,)), start(side, threads=2, cores=(first, second))
        both = Together(*(start(side, threads=1, cores=(core,)) for core in (first, second)))
        compete({"one": one, "two": two, "both": both}, options.rounds, warm=1)
        over_two, note = ratio(two, both)
        note = f"{note}; {rate(both, 2)} and {rate(two)}"
        lines.append(Line(f"{side} px: two side by side, over one on two cores", 2 * over_two, note=note))
        over_one, note = ratio(one, both)
        note = f"{note}; one on one core: {rate(one)}"
        name = f"{side} px: two side by side, over twice one core"
        lines.append(Line(name, over_one, SIDE_BY_SIDE, at_least=True, note=note))
    return lines


def operators(options: argparse.Namespace) -> list[Line]:
    """Calls of operators a step, and the share of convolutions and matrix products."""
    lines = []
    for side in options.sides:
        for version, checkout in versions(options).items():
            contender = start(side, checkout, threads=1)
            contender.ask("seconds")
            plain = 1000 * min(contender.ask("seconds") for _ in range(2))
            found: dict[str, tuple[int, float]] = contender.ask("profile")
            contender.close()
            calls = sum(count for name, (count, _) in found.items() if name.startswith("aten::")) / STEPS
            products = sum(own for name, (_, own) in found.items() if IS_PRODUCT.fullmatch(name))
            whole = sum(own for _, own in found.values())
            now = version == "now"
            lines.append(Line(f"{side} px, {version}: operator calls a step", calls, CALLS if now else None))
            note = f"{products / STEPS:.0f} of {whole / STEPS:.0f} ms a step; {plain / STEPS:.0f} ms without profiler"
            goal = PRODUCTS.get(side) if now else None
            name = f"{side} px, {version}: share of convolutions and products"
            lines.append(Line(name, products / whole, goal, at_least=True, note=note))
            print(f"\n{side} px, {version}\n\n{most(found)}\n", file=sys.stderr)
    return lines


def most(found: dict[str, tuple[int, float]], count: int = 25) -> str:
    """The operators that take the most time, as a Markdown table."""
    whole = sum(own for _, own in found.values())
    rows = ["| operator | calls a step | ms a step | share |", "|---|---|---|---|"]
    for name, (calls, own) in sorted(found.items(), key=lambda item: -item[1][1])[:count]:
        rows.append(f"| {name} | {calls / STEPS:,.0f} | {own / STEPS:.2f} | {100 * own / whole:.1f} % |")
    return "\n".join(rows)


def memory(options: argparse.Namespace) -> list[Line]:
    """Peak memory of sixteen steps: the median of three processes, beside the largest of three of another version."""
    lines = []
    for side in options.sides:
        peaks: dict[str, list[float]] = {name: [] for name in versions(options)}
        for _ in range(3):
            for name, checkout in versions(options).items():
                contender = start(side, checkout)
                contender.ask("seconds"), contender.ask("seconds")
                peaks[name].append(contender.ask("peak"))
                contender.close()
        goal = round(max(peaks["before"]), 3) if options.before else None
        note = "; ".join(f"{name} {min(found):.3g} to {max(found):.3g} GB" for name, found in peaks.items())
        lines.append(Line(f"{side} px: peak memory", statistics.median(peaks["now"]), goal, " GB", note=note))
    return lines


# ---- commands


def command(checkout: Path, folder: str, *words: str | Path) -> float:
    """Seconds of a samgan command of a checkout with two threads, which finds no cached features."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout.resolve()),
        "OMP_NUM_THREADS": "2",
        "SAMGAN_CACHE": tempfile.mkdtemp(dir=folder),
    }
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", "-m", "samgan", *map(str, words)], check=True, env=environment, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - begun


def prepared(options: argparse.Namespace, folder: str) -> Path:
    """The prepared set that was named, or one of 2,000 phantoms."""
    if options.data:
        return options.data
    write_phantoms(Path(folder, "phantoms"), 1000, 64)
    prepare(Path(folder, "phantoms"), Path(folder, "data"), resolution=64, allow_synthetic=True)
    return Path(folder, "data")


def snapshots(options: argparse.Namespace) -> list[Line]:
    """What a snapshot adds to the time of a run: runs of one length with three snapshots against runs with one."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        data = prepared(options, folder)

        def run(checkout: Path, every: float) -> float:
            settings = ["--network.num_classes=0", f"--training.kimg={KIMG}", f"--training.snapshot_every_kimg={every}"]
            out = Path(tempfile.mkdtemp(dir=folder), "run")
            return command(checkout, folder, "train", data, "--out", out, *settings)

        added: dict[str, list[float]] = {name: [] for name in versions(options)}
        for _ in range(options.rounds):
            for name, checkout in versions(options).items():
                added[name].append((run(checkout, KIMG / 3) - run(checkout, KIMG)) / 2)
    for name, found in added.items():
        note = f"{min(found):.2f} to {max(found):.2f} in {len(found)} rounds"
        goal = SNAPSHOT_SECONDS if name == "now" else None
        lines.append(
            Line(f"64 px, {name}: a snapshot, of training's time", statistics.median(found), goal, " s", note=note)
        )
    return lines


def evaluate(options: argparse.Namespace) -> list[Line]:
    """The whole command, from its start to its report."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        data = prepared(options, folder)
        taken: dict[str, list[float]] = {name: [] for name in versions(options)}
        for _ in range(options.rounds):
            for name, checkout in versions(options).items():
                words = ["--count", "1000", "--split", "all", "--classes", "NORMAL", "PNEUMONIA"]
                words += ["--features", "radiograph", "--device", "cpu", "--out", tempfile.mkdtemp(dir=folder)]
                taken[name].append(command(checkout, folder, "evaluate", "pneumonia-64", "--data", data, *words))
    for name, found in taken.items():
        note = f"{min(found):.1f} to {max(found):.1f} in {len(found)} rounds"
        goal = EVALUATE_SECONDS if name == "now" else None
        lines.append(Line(f"{name}: evaluate 1,000 images of 64 px", statistics.median(found), goal, " s", note=note))
    return lines


GROUPS = {
    "speed": speed,
    "pair": pair,
    "operators": operators,
    "memory": memory,
    "snapshots": snapshots,
    "evaluate": evaluate,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", choices=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="checkout of another version of samgan")
    parser.add_argument("--sides", type=int, nargs="+", choices=(64, 128, 256), default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, help="prepared set of 64 px")
    add_json_option(parser)
    options = parser.parse_args()
    show([line for group in options.groups for line in GROUPS[group](options)], options.json)


if __name__ == "__main__":
    main()
