"""Train samgan-plus for the minutes of a goal, on the cores of the machine at hand, and score it.

    python results/sizes/goals.py run GOAL SETS WORK --features FEATURES.pt [--seed N] [--processes N]
                                  [--from-side N] [--by-pace] [SETTING ...]
    python results/sizes/goals.py keep GOAL SETS WORK --features FEATURES.pt ... (as for run) [--core N]
    python results/sizes/goals.py table

Unlike trials.py, `run` goes by the clock: it needs a machine that does nothing else, and says which one it was. It can
be stopped and called again, and goes on with the minutes that are left. With --by-pace it trains as many images as
pace.csv says that two threads of a quiet machine (of goals at 64 px: one) train in those minutes, however long that
takes. SETS is a folder with
prepared sets, such as SETS/kermany/64 and SETS/kermany/128. SETTINGs such as --network.noise=all go to all parts of the
training, or to those of --from-side and larger ones. Each run adds a line to goals.csv beside this file. `keep` writes
what else a run leaves here, with one core: scores by the radiograph features, to goals.csv; signs of memorised images,
to audits.csv; its spectrum, to spectra.csv; and a picture. `table` prints the tables of README.md.
"""

import argparse
import dataclasses
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import spectrum
from trials import (
    AUDITS,
    PRECISION,
    SCORES,
    audited,
    check_precision,
    draw_grid,
    kimg_of,
    origin,
    read,
    replace_lines,
    scored,
    slug_of,
    suffix_of,
    write,
)

from samgan.devices import usable_precision
from samgan.runs import Run
from samgan.scoring import Scores

HERE = Path(__file__).parent
GOALS_FILE = HERE / "goals.csv"
KIMG = 100_000
"""More than any of them trains: the clock ends each part."""
SECOND = tuple(f"radiograph_{key}" for key in ("frechet", "frechet_floor", "recall", "coverage"))
"""Scores by the second judge, where they were asked for."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """What to train on, how long, and what to reach."""

    data: str
    classes: tuple[str, ...]
    parts: tuple[tuple[int, float], ...]
    """Side of the images and minutes of each part; each begins with the networks of the one before."""
    least: dict[str, float]
    floors: float | None = None
    """The Frechet distance in multiples of that of real images to other real ones."""
    distance: float | None = None
    """The Frechet distance itself. With neither, a change of settings is compared with the recipe as it is."""
    threads: int = 2
    """Of the pace by which it may go."""

    @property
    def minutes(self) -> float:
        """Of all parts."""
        return sum(minutes for _, minutes in self.parts)


GOALS = {
    "kermany-64-quarter": Goal("kermany", ("PNEUMONIA",), ((64, 15),), {}, threads=1),
    "kermany-64-hour": Goal("kermany", ("PNEUMONIA",), ((64, 60),), {}, distance=0.07, threads=1),
    "kermany-128": Goal(
        "kermany",
        ("PNEUMONIA",),
        ((64, 50), (128, 100)),
        {"precision": 0.8, "recall": 0.6, "coverage": 0.8},
        floors=4,
    ),
    "covid-256": Goal(
        "covid", ("COVID",), ((64, 30), (128, 50), (256, 70)), {"recall": 0.35, "coverage": 0.6}, floors=10
    ),
    "covid-256-night": Goal(
        "covid", ("COVID",), ((64, 90), (128, 180), (256, 330)), {"recall": 0.55, "coverage": 0.8}, floors=5
    ),
}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument("goal", choices=GOALS)
    one.add_argument("sets", type=Path)
    one.add_argument("work", type=Path)
    one.add_argument("--features", type=Path, required=True)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--from-side", type=int, default=0)
    one.add_argument("--by-pace", action="store_true")
    one.add_argument("--count", type=int, default=1000)
    told = "in which networks are trained (default: bf16 by pace, as paces are; else what --training.precision=auto is)"
    one.add_argument("--arithmetic", choices=("bf16", "fp32"), default="", help=told)
    one.add_argument("--processes", type=int, default=1)
    steps.add_parser("run", parents=[one])
    step = steps.add_parser("keep", parents=[one])
    step.add_argument("--core", type=int, default=0, help="the core that scores (default: 0)")
    steps.add_parser("table")
    options, settings = parser.parse_known_args()
    if options.step == "table":
        print(table(), second_table(), sep="\n\n")
    else:
        if not options.arithmetic:
            options.arithmetic = PRECISION if options.by_pace else usable_precision("auto", "cpu")
        {"run": run, "keep": keep}[options.step](options.goal, settings, options)


def described(name: str, settings: list[str], options: argparse.Namespace) -> dict[str, str]:
    """What tells a run from all others."""
    told = [*settings, f"from {options.from_side} px on"] if options.from_side else settings
    by = "pace" if options.by_pace else "clock"
    own = {"goal": name, "settings": " ".join(told), "seed": str(options.seed)}
    return {**own, "by": by, "arithmetic": options.arithmetic}


def place_of(own: dict[str, str], work: Path) -> Path:
    """The folder of a run's parts, each named by its side."""
    slug = slug_of(own["settings"]) or "plus"
    by = "-by-pace" if own["by"] == "pace" else ""
    return work / own["goal"] / f"{slug}{by}{suffix_of(own['arithmetic'])}-{own['seed']}"


def run(name: str, settings: list[str], options: argparse.Namespace) -> None:
    """Train and score one goal, unless goals.csv has it."""
    own = described(name, settings, options)
    if any(own.items() <= row.items() for row in read(GOALS_FILE)):
        return
    goal, begin, shown = GOALS[name], list[Any](), list[str]()
    of_side = {side: settings if side >= options.from_side else [] for side, _ in goal.parts}
    kimg = {side: KIMG for side in of_side}
    if options.by_pace:  # all of them now, so that a pace that is missing is told before hours of training
        kimg = {side: kimg_of(side, tuple(of_side[side]), minutes, goal.threads) for side, minutes in goal.parts}
    for side, minutes in goal.parts:
        out = place_of(own, options.work) / str(side)
        train(out, side, minutes, [*of_side[side], *begin, f"--training.kimg={kimg[side]}"], options)
        shown.append(f"{side} px: {Run(out).last_step() * Run(out).config.training.batch_size // 1000}")
        begin = ["--start", out]
    score = ["--features", options.features, "--count", options.count, "--checkpoint", "newest"]
    call(["evaluate", out, "--data", options.sets / goal.data / str(goal.parts[-1][0]), *score])
    scores, environment = Scores.read(out / "scores.json"), Run(out).environment
    assert scores.mode_collapse is not None
    row = {
        **own,
        "minutes": f"{goal.minutes:g}",
        "kimg": ", ".join(shown),
        "processes": options.processes,
        "processor": environment.processor,
        "count": scores.count,
        **{key: f"{scores.scores[key].value:.4f}" for key in SCORES},
        "frechet_floor": f"{scores.scores['frechet'].floor:.4f}",
        "ms_ssim_gap": f"{scores.mode_collapse.difference:+.4f}",
        "date": datetime.now(UTC).date().isoformat(),
        **dict.fromkeys(SECOND, ""),
    }
    write(GOALS_FILE, [*read(GOALS_FILE), row])


def keep(name: str, settings: list[str], options: argparse.Namespace) -> None:
    """Write what a run leaves beside its scores; of one that goals.csv has."""
    own, goal = described(name, settings, options), GOALS[name]
    if not any(own.items() <= row.items() for row in read(GOALS_FILE)):
        raise SystemExit(f"{GOALS_FILE.name} has no run {', '.join(own.values())}: call `goals.py run` first")
    side = goal.parts[-1][0]
    out, sets = place_of(own, options.work) / str(side), options.sets / goal.data
    told = f"goal {name}{' by pace' if options.by_pace else ''}, {own['settings'] or 'as it is'}"
    told += suffix_of(own["arithmetic"]).replace("-", ", ")
    draw_grid(HERE / f"{slug_of(f'{told} {options.seed}')}.png", out, sets, side)
    given = ["--features", "radiograph", "--checkpoint", "newest", "--out", out / "radiograph"]
    scores = scored(out, sets / str(side), given, options)
    found = {key: scores[key.removeprefix("radiograph_")] for key in SECOND}
    write(GOALS_FILE, [row | found if own.items() <= row.items() else row for row in read(GOALS_FILE)])
    asked = {"run": out, "data": sets / str(side), "name": f"{told}, seed {options.seed}", "classes": goal.classes}
    spectrum.compare(argparse.Namespace(**asked, count=256))
    size = {"data": goal.data, "size": str(side), "variant": told}
    key = {**size, "seed": own["seed"], "minutes": f"{goal.minutes:g}", "arithmetic": own["arithmetic"]}
    replace_lines(AUDITS, key, [audited(out, sets / str(side), options)])


def train(out: Path, side: int, minutes: float, settings: list[Any], options: argparse.Namespace) -> None:
    """Train one part until its minutes are over or its images are trained, or go on with it."""
    goal = GOALS[options.goal]
    data = ["train", options.sets / goal.data / str(side), "--out", out, "--processes", options.processes]
    check_precision(options.arithmetic)
    settings = [*settings, f"--training.precision={options.arithmetic}"]
    if not options.by_pace:
        data += ["--minutes", minutes]
    if not (out / "config.json").exists():
        first = ["--training.first_sides=[]", f"--training.seed={options.seed}"]
        call([*data, *first, *settings, "--classes", *goal.classes])
        return
    if not Run(out).is_over(None if options.by_pace else minutes):
        call([*data, "--resume", *origin(settings)])


def call(arguments: list[Any]) -> None:
    """Run samgan."""
    command = [sys.executable, "-m", "samgan", *map(str, arguments)]
    if status := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit(f"{' '.join(command)}: status {status}")


def table() -> str:
    """All runs, each beside its goal."""
    head = ("goal", "changed", "seed", "minutes", "by", "arithmetic", "kimg", "Frechet / floor", *SCORES[1:])
    lines = [f"| {' | '.join([*head, 'MS-SSIM gap'])} |", f"|{'---|' * (len(head) + 1)}"]
    for row in read(GOALS_FILE):
        goal = GOALS[row["goal"]]
        ratio = float(row["frechet"]) / float(row["frechet_floor"])
        cells = [row[key] for key in ("goal", "settings", "seed", "minutes", "by", "arithmetic", "kimg")]
        aim = f" (goal: {goal.floors:g})" if goal.floors else ""
        aim = f" (goal: a distance of {goal.distance:g}, not {float(row['frechet']):.3f})" if goal.distance else aim
        cells += [f"{ratio:.1f}{aim}"]
        for key in ("precision", "recall", "coverage"):
            least = f" (goal: {goal.least[key]:g})" if key in goal.least else ""
            cells.append(f"{float(row[key]):.3f}{least}")
        lines.append(f"| {' | '.join([*cells, row['ms_ssim_gap']])} |")
    return "\n".join(lines)


def second_table() -> str:
    """What the radiograph features say of the runs that they have judged."""
    rows = [row for row in read(GOALS_FILE) if row[SECOND[0]]]
    if not rows:
        return "The radiograph features have not judged any of these."
    head = ("goal", "changed", "seed", "radiograph features: Frechet / floor", "recall", "coverage")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        distance, floor, recall, coverage = (float(row[key]) for key in SECOND)
        cells = [
            row["goal"],
            row["settings"],
            row["seed"],
            f"{distance / floor:.1f}",
            f"{recall:.2f}",
            f"{coverage:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
