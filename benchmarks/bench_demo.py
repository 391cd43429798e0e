"""Run `samgan demo` with several seeds: seconds, scores beside their floors, verdicts.

    python benchmarks/bench_demo.py [--seeds 5] [--kimg N] [--minutes N] [--json]

Each demo is a process of its own, in a folder that is thrown away. Wall times are those of `make demo` only if nothing
else is running; the processor's seconds, of all its threads together, say more where something is.
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

from lines import Line, machine

FRECHET_FLOORS, MINUTES = 4.0, 3.0
"""The goals: Frechet distance as a multiple of its floor, and wall minutes of the whole demo."""
HEADER = ("seed", "wall s", "CPU s", "kimg", "Frechet / floor", "recall (real)", "MS-SSIM gap [95 %]", "verdict")


def measure(seed: int, words: list[str]) -> dict[str, Any]:
    """One demo: its times, and its scores."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        command = [sys.executable, "-m", "samgan", "demo", "--out", str(out), "--seed", str(seed), "--json", *words]
        before, start = os.times(), time.perf_counter()
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        wall, after = time.perf_counter() - start, os.times()
        document = json.loads(told)
        lines = (out / "run" / "stats.jsonl").read_text("utf-8").splitlines()
    scores = document["scores"]
    test, found = scores["mode_collapse"], scores["scores"]
    return {
        "seed": seed,
        "wall_seconds": wall,
        "cpu_seconds": sum(after[2:4]) - sum(before[2:4]),
        "kimg": json.loads(lines[-1])["images_seen"] / 1000,
        "features": (scores["features"] or {"name": "none"})["name"],
        "count": scores["count"],
        "frechet_floors": found["frechet"]["value"] / found["frechet"]["floor"] if "frechet" in found else None,
        "scores": found,
        "gap": [test["difference"], test["low"], test["high"]],
        "verdict": test["verdict"],
    }


def row(found: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    scores, gap = found["scores"], found["gap"]
    frechet, recall = (
        scores.get(name, {"value": float("nan"), "floor": float("nan")}) for name in ("frechet", "recall")
    )
    return (
        str(found["seed"]),
        f"{found['wall_seconds']:.0f}",
        f"{found['cpu_seconds']:.0f}",
        f"{found['kimg']:.3g}",
        f"{frechet['value']:.3g} / {frechet['floor']:.3g} = {frechet['value'] / frechet['floor']:.2f}",
        f"{recall['value']:.2f} ({recall['floor']:.2f})",
        f"{gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]",
        found["verdict"],
    )


def goals(found: list[dict[str, Any]]) -> list[Line]:
    """What the demo promises, and whether it keeps it."""
    ratios = [one["frechet_floors"] for one in found if one["frechet_floors"] is not None]
    walls = [one["wall_seconds"] / 60 for one in found]
    collapses = sum(one["verdict"] == "mode collapse" for one in found)
    lines = [
        Line("minutes, longest", max(walls), MINUTES, note=f"median {statistics.median(walls):.2f}"),
        Line("verdicts of collapse", collapses, 0, note=f"of {len(found)} seeds"),
    ]
    if ratios:
        note = f"median {statistics.median(ratios):.2f}; {found[0]['features']}, {found[0]['count']} images a set"
        lines.append(Line("Frechet distance in floors, largest", max(ratios), FRECHET_FLOORS, note=note))
    return lines


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kimg", help="as for samgan demo")
    parser.add_argument("--minutes", help="as for samgan demo")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    asked = {"--kimg": options.kimg, "--minutes": options.minutes}
    words = [word for pair in asked.items() if pair[1] for word in pair]
    found = [measure(seed, words) for seed in range(options.seeds)]
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{machine()}\n")
    for cells in (HEADER, ("---",) * len(HEADER), *map(row, found)):
        print(f"| {' | '.join(cells)} |")
    print("\n| what | goal | measured | met | |\n|---|---|---|---|---|")
    for line in goals(found):
        print(line.row())


if __name__ == "__main__":
    main()
