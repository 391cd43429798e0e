"""Read the paper's Table 2 closely: what its own numbers support, and how its MS-SSIM of real images could come out.

    python results/verdict/paper_table.py fit
    python results/verdict/paper_table.py likeness FOLDER [--only READING ...]
    python results/verdict/paper_table.py table

`fit` needs no data: it prints the first tables of docs/reproducing.md, "The paper's table, read closely", from the
numbers in `samgan.presets.PRESETS`. `likeness` takes the paper's 3,616 images (the COVID-19 class of the COVID-19
Radiography Database, COVID-1.png to COVID-3616.png) and writes their MS-SSIM by each reading to likeness.csv beside
this file. Readings that are there are kept, so it can be stopped and called again. `table` prints them as the last
table of that section.
"""

import argparse
import csv
import dataclasses
import itertools
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from readings import READINGS
from scipy import stats

from samgan.metrics.ms_ssim import pair_mean
from samgan.presets import PRESETS, Preset

HERE = Path(__file__).parent
LIKENESS = HERE / "likeness.csv"
ROWS = {row.name: row for row in PRESETS if row.data == "X-ray"}
CHUNK_PIXELS = 1 << 21
PRINTED = (0.495, 0.505)
"""What the paper rounds to 0.50."""


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("fit")
    step = steps.add_parser("likeness")
    step.add_argument("folder", type=Path)
    step.add_argument("--only", nargs="+", choices=READINGS, default=list(READINGS), metavar="READING")
    steps.add_parser("table")
    options = parser.parse_args()
    if options.step == "fit":
        print("\n".join([fit_table(), groups_table(), pairs_table()]))
    elif options.step == "likeness":
        torch.set_num_threads(1)
        for name in options.only:
            measure(options.folder, name)
    else:
        print(likeness_table())


# ---- the table against itself


SWEEP = tuple(f"samgan-{number}" for number in range(3, 9))
"""Three rates, each without and with flips; all else is equal."""
HEADLINE = ("msg-gan-6", "samgan-8")


@dataclasses.dataclass(frozen=True)
class Fit:
    """A least-squares fit of ln FID over the rows of SWEEP."""

    degrees: int
    """Of freedom that the residual has."""
    residual: float
    """Standard deviation of the residual: root of its squares by its degrees of freedom."""
    flips: tuple[float, float] | None
    """Effect of flips on ln FID and its standard error."""


def _rates(rows: list[Preset]) -> list[list[float]]:
    """Each rate but one as a switch of its own."""
    return [[float(row.learning_rate == rate) for row in rows] for rate in (0.0002, 0.0003)]


MODELS: dict[str, Callable[[list[Preset]], list[list[float]]]] = {
    "a mean": lambda rows: [],
    "flips": lambda rows: [[float(row.flip) for row in rows]],
    "ln rate": lambda rows: [[math.log(row.learning_rate) for row in rows]],
    "flips, ln rate": lambda rows: [*MODELS["flips"](rows), *MODELS["ln rate"](rows)],
    "flips, rate": lambda rows: [*MODELS["flips"](rows), [row.learning_rate for row in rows]],
    "flips, ln rate, their product": lambda rows: [
        *MODELS["flips, ln rate"](rows),
        [row.flip * math.log(row.learning_rate) for row in rows],
    ],
    "each rate by itself": _rates,
    "flips, each rate by itself": lambda rows: [*MODELS["flips"](rows), *_rates(rows)],
}
"""What ln FID is explained by, beside a constant."""


def fit(model: str) -> Fit:
    """Fit one of MODELS."""
    rows = [ROWS[name] for name in SWEEP]
    design = np.array([[1.0] * len(rows), *MODELS[model](rows)]).T
    known = np.log([row.paper_fid for row in rows])
    found, *_ = np.linalg.lstsq(design, known, rcond=None)
    degrees = len(rows) - design.shape[1]
    residual = math.sqrt(float(np.square(known - design @ found).sum()) / degrees)
    error = residual * math.sqrt(np.linalg.inv(design.T @ design)[1, 1]) if model.startswith("flips") else 0.0
    return Fit(degrees, residual, (float(found[1]), error) if error else None)


def headline() -> float:
    """By how much the paper's best row beats its best MSG-GAN, in ln FID."""
    return math.log(ROWS[HEADLINE[0]].paper_fid / ROWS[HEADLINE[1]].paper_fid)


def seeds_that_decide(spread: float, power: float = 0.8) -> int:
    """Seeds of each row for which the headline's difference would be found at 5 % with this power (normal theory)."""
    needed = stats.norm.ppf(0.975) + stats.norm.ppf(power)
    return math.ceil(2 * (needed * spread / headline()) ** 2)


def fit_table() -> str:
    """The fits, and what they make of the headline."""
    lines = [
        "| ln FID of samgan-3 to 8 explained by | degrees of freedom | residual | its 95 % interval | effect of flips |"
        " headline / spread of a difference | seeds a row that would decide it |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        found = fit(model)
        low, high = (
            found.residual * math.sqrt(found.degrees / stats.chi2.ppf(tail, found.degrees)) for tail in (0.975, 0.025)
        )
        flips = "" if found.flips is None else f"{found.flips[0]:+.2f} ± {found.flips[1]:.2f}"
        ratio = headline() / (math.sqrt(2) * found.residual)
        lines.append(
            f"| {model} | {found.degrees} | {found.residual:.2f} | {low:.2f} to {high:.2f} | {flips} | {ratio:.2f} |"
            f" {seeds_that_decide(found.residual)} |"
        )
    return "\n".join([*lines, ""])


GROUPS = {
    "MSG-GAN, hinge loss, no spectral norm": [f"msg-gan-{number}" for number in range(5, 11)],
    "SAMGAN, small rates": list(SWEEP),
    "MSG-GAN, small rates, no flips": ["msg-gan-8", "msg-gan-9", "msg-gan-10"],
    "SAMGAN, small rates, no flips": ["samgan-3", "samgan-4", "samgan-5"],
}


def groups_table() -> str:
    """Best and average of the rows from which each half of the headline was taken."""
    lines = ["| rows | number | best FID | geometric mean | spread of ln FID |", "|---|---|---|---|---|"]
    for title, names in GROUPS.items():
        known = np.log([ROWS[name].paper_fid for name in names])
        best, mean = math.exp(known.min()), math.exp(known.mean())
        lines.append(f"| {title} | {len(names)} | {best:.1f} | {mean:.0f} | {known.std(ddof=1):.2f} |")
    return "\n".join([*lines, ""])


SWITCHES = ("flip", "loss", "optimizer", "spectral_norm", "attention", "learning_rate")
BEST_RATE = {False: 0.003, True: 0.0001}
"""By the paper, without and with attention."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two rows, in the order in which the paper expects an effect."""

    switch: str
    first: Preset
    second: Preset
    claim: str
    """What the second is by the paper: "better", "worse", or "" where it says nothing."""

    def verdict(self, score: str) -> str:
        """What a published score, lower being better, says of the claim."""
        first, second = getattr(self.first, score), getattr(self.second, score)
        if first == second:
            return "equal"
        return "agrees" if (second < first) == (self.claim == "better") else "**contradicts**"


def claimed(switch: str, first: Preset, second: Preset) -> str:
    """What the paper says of the second row, which has the switch on, or the other value, against the first."""
    if switch == "learning_rate":
        return "better" if second.learning_rate == BEST_RATE[second.attention] else ""
    if switch == "spectral norm and attention" or switch == "attention":
        return "worse" if second.learning_rate == 0.003 else "better"
    if switch == "spectral_norm":
        return "better" if second.attention else "worse"
    return "better"  # flips, the relativistic hinge loss, Adam


def find_pairs() -> list[Pair]:
    """All pairs of rows on X-rays that differ in one switch, or in spectral norm and attention together."""
    found = []
    for one, other in itertools.combinations(ROWS.values(), 2):
        differing = [name for name in SWITCHES if getattr(one, name) != getattr(other, name)]
        both = set(differing) == {"spectral_norm", "attention"} and one.spectral_norm == one.attention
        if len(differing) != 1 and not both:
            continue
        switch = "spectral norm and attention" if both else differing[0]
        has = {"loss": "rahinge", "optimizer": "adam", "learning_rate": BEST_RATE[one.attention]}.get(switch, True)
        first, second = (other, one) if getattr(one, differing[0]) == has else (one, other)
        found.append(Pair(switch, first, second, claimed(switch, first, second)))
    order = [*SWITCHES, "spectral norm and attention"]
    return sorted(found, key=lambda pair: order.index(pair.switch))


def pairs_table() -> str:
    """Every pair of which the paper says something, and how many others there are."""
    pairs = find_pairs()
    lines = [
        "| switch | rows | by the paper the second is | FID | ln ratio | by FID | MS-SSIM | by MS-SSIM |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        if not pair.claim:
            continue
        first, second = pair.first, pair.second
        fids = f"{first.paper_fid:g}, {second.paper_fid:g} | {math.log(second.paper_fid / first.paper_fid):+.2f}"
        alike = f"{first.paper_ms_ssim_generated:.2f}, {second.paper_ms_ssim_generated:.2f}"
        lines.append(
            f"| {pair.switch.replace('_', ' ')} | {first.name}, {second.name} | {pair.claim} |"
            f" {fids} | {pair.verdict('paper_fid')} | {alike} | {pair.verdict('paper_ms_ssim_generated')} |"
        )
    silent = sum(not pair.claim for pair in pairs)
    return "\n".join([*lines, "", f"Of {silent} further pairs, of two other rates each, the paper claims nothing.", ""])


# ---- MS-SSIM of the paper's own images


def measure(folder: Path, name: str) -> None:
    """Measure one reading, unless likeness.csv has it."""
    rows = read()
    if name in {row["reading"] for row in rows}:
        return
    reading = READINGS[name]
    images, couples = reading.images(folder), reading.couples(folder)
    chunk = max(1, CHUNK_PIXELS // images[0].numel())
    values = torch.cat([reading.measure(images[i], images[j]) for i, j in (c.unbind(1) for c in couples.split(chunk))])
    found = pair_mean(values, couples)
    row = {
        "reading": name,
        "value": f"{found.mean:.4f}",
        "standard_error": f"{found.standard_error:.4f}",
        "low": f"{found.low:.4f}",
        "high": f"{found.high:.4f}",
        "spread": f"{float(values.std()):.4f}",
        "pairs": str(found.pairs),
        "images": str(len(couples.unique())),
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(", ".join(row.values()), flush=True)
    known = {entry["reading"]: entry for entry in [*rows, row]}
    write([known[each] for each in READINGS if each in known])


def gives_what_is_printed(row: dict[str, str]) -> str:
    """Whether the value is rounded to 0.50, or at least its 95 % interval has such values."""
    low, high = PRINTED
    if low <= float(row["value"]) < high:
        return "**yes**"
    return "within the interval" if float(row["low"]) < high and float(row["high"]) >= low else "no"


def likeness_table() -> str:
    """All readings in their order."""
    lines = ["| reading | MS-SSIM | 95 % interval | pairs | 0.50? |", "|---|---|---|---|---|"]
    for row in read():
        interval = f"{float(row['low']):.3f} to {float(row['high']):.3f}"
        lines.append(
            f"| {row['reading']} | {float(row['value']):.3f} | {interval} | {int(row['pairs']):,} |"
            f" {gives_what_is_printed(row)} |"
        )
    return "\n".join([*lines, ""])


def read() -> list[dict[str, str]]:
    """Lines of likeness.csv."""
    if not LIKENESS.exists():
        return []
    with open(LIKENESS, newline="") as file:
        return list(csv.DictReader(file))


def write(rows: list[dict[str, str]]) -> None:
    """Replace likeness.csv; its first line has the names."""
    new = LIKENESS.with_suffix(".new")
    with open(new, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    new.replace(LIKENESS)


if __name__ == "__main__":
    main()
