"""Train variants of samgan-plus at 128 or 256 px, each for what one core trains in equal minutes, and score them.

    python results/sizes/trials.py pace 128 256 [--only NAME ...] [--threads 1]
    python results/sizes/trials.py run SIZE SETS WORK --features FEATURES.pt [--only NAME ...] [--seed N] [--minutes N]
    python results/sizes/trials.py keep SIZE SETS WORK --only NAME ... [--seed N] [--minutes N] [--grid]
    python results/sizes/trials.py judge SIZE SETS WORK --only NAME ... [--seed N] [--minutes N]
    python results/sizes/trials.py parts SIZE SETS WORK --features FEATURES.pt --only NAME ... [--seed N] [--minutes N]
    python results/sizes/trials.py audit SIZE SETS WORK --features FEATURES.pt --only NAME ... [--seed N] [--minutes N]
    python results/sizes/trials.py short SIZE SETS WORK [--only NAME ...] [--seeds 5] [--minutes N]
    python results/sizes/trials.py table
    python results/sizes/trials.py plot

`pace` measures how many images a second one quiet core (or more, by --threads) trains with each variant, all of one
size by turns, and writes pace.csv beside this file. `run` trains each variant for as many images as that core trains in
the minutes given, so the load of the machine changes how long a trial takes, but not what it trains; it can be stopped
and called again. SETS is a folder with prepared sets of the same images, named by their sides: SETS/64, SETS/128,
SETS/256. `keep` writes what a trained run leaves here: its quick scores, to curves.csv, and with --grid a picture of
its images, beside real ones where their terms allow it. `judge` scores a trained run by the radiograph features, and
writes judged.csv. `parts` scores the network of each smaller size that a trained run began with, at its own size, and
writes parts.csv. `audit` looks for signs that a trained run memorised images, and writes audits.csv. `short` trains a
variant with several seeds without scoring it, and writes to short.csv whether the training diverged or collapsed. Lines
of trials.csv are kept; `table` prints the tables of README.md, and `plot` draws its curves.svg.
"""

import argparse
import collections
import csv
import dataclasses
import io
import json
import os
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samgan.data import PreparedSet
from samgan.devices import keep_freed_memory, make_fabric, usable_precision
from samgan.files import atomic_write
from samgan.grids import image_grid, write_png
from samgan.pictures import to_uint8
from samgan.presets import preset_config
from samgan.runs import Run, describe_environment, find_collapse
from samgan.runs.collapse import PATIENCE, YOUNG_KIMG
from samgan.sampling import open_model, sample
from samgan.scoring import Scores
from samgan.training import Sampler, TrainingState, train_step
from samgan.trust import AuditDocument

HERE = Path(__file__).parent
PACE, TRIALS, CURVES = HERE / "pace.csv", HERE / "trials.csv", HERE / "curves.csv"
JUDGED, PARTS, AUDITS, SHORT = (HERE / f"{name}.csv" for name in ("judged", "parts", "audits", "short"))
SCORES = ("frechet", "precision", "recall", "coverage")
PRECISION = "bf16"
"""In which paces are measured, so that what is trained by pace is trained in it unless --arithmetic says otherwise."""
STEPS, WARM_UP = 24, 16
"""Of `pace`: steps of each variant in a round, and before the first; every eighth step has a penalty."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """What differs from samgan-plus, and how much of the time goes to networks of a smaller size first."""

    arguments: tuple[str, ...] = ()
    first: tuple[tuple[int, float], ...] = ()
    """Sides of the images with which training begins, and the share of the minutes of each."""
    in_one_run: bool = False
    """By `training.first_sides`, which goes on with one optimizer and one average; else by `samgan train --start`.

    All smaller sides then get as many images as each other, in the sum of their shares of the minutes.
    """
    last: tuple[str, ...] = ()
    """What differs at the last size alone, so that several variants go on from the same smaller networks."""


SMALL_FIRST = ((64, 0.4),)
TWO_FIRST = ((64, 0.2), (128, 0.3))
LOSSES = ("loss_discriminator", "loss_generator")
KEYS = ("data", "size", "variant", "seed", "minutes", "arithmetic")
"""What tells a trial from all others. The arithmetic is empty where it was not recorded."""
GRID = {64: 32, 128: 16, 256: 8, 512: 4}
"""How many synthetic images a picture has, in two rows; of the seeds from 0 on."""
SHOWN = {"kermany": "D. Kermany, K. Zhang, M. Goldbaum (2018), Mendeley Data, doi 10.17632/rscbjbr9sj.2, CC BY 4.0"}
"""Sets whose real images may be shown beside, and whose they are."""
PRESETS = (
    "samgan-plus-attention",
    "samgan-projected",
    "samgan-projected-attention",
    "samgan-vision",
    "samgan-vision-attention",
    "samgan-alias-free",
    "samgan-alias-free-attention",
    "r3gan",
    "r3gan-attention",
)
CHANGES: dict[str, tuple[str, ...]] = {
    "twice as wide": ("--network.channel_base=2048",),
    "16 channels or more": ("--network.min_channels=16",),
    "8 channels or more": ("--network.min_channels=8",),
    "penalty of 0.1": ("--training.penalty_weight=0.1",),
    "rate 0.004": ("--training.learning_rate=0.004",),
    "rate that falls from 60 kimg on": ("--training.rate_decay_kimg=60",),
    "batch of 16": ("--training.batch_size=16",),
    "batch of 4": ("--training.batch_size=4",),
    "noise in the largest images": ("--network.noise=all",),
    "augmentation, target 0.6": ("--training.augment_target=0.6",),
    "half-life of 1 kimg": ("--training.ema_halflife_kimg=1",),
    "half-life of 20 kimg": ("--training.ema_halflife_kimg=20",),
}
LATE = {
    **CHANGES,
    "penalty of 0.08": ("--training.penalty_weight=0.08",),
    "pretrained eyes beside it": ("--preset=samgan-vision",),
    "pretrained eyes of weight 0.25": ("--preset=samgan-vision", "--training.vision_weight=0.25"),
    "pretrained eyes that see tiles": ("--preset=samgan-vision", "--network.vision_tiles=true"),
    "noise, and pretrained eyes": ("--preset=samgan-vision", "--network.noise=all"),
}
"""What the last size alone may have, where training goes on from a smaller network."""
GROWING_128 = ("--training.penalty_weight=0.08", "--training.first_penalty_power=2")
GROWING_256 = ("--training.penalty_weight=0.32", "--training.first_penalty_power=2")
"""A penalty in proportion to the pixels, which is that of samgan-plus at 64 px."""
SAME_PACE = tuple(
    f"--training.{name}="
    for name in (
        "learning_rate",
        "rate_decay_kimg",
        "ema_halflife_kimg",
        "penalty_weight",
        "first_penalty_power",
        "vision_weight",
    )
)
"""Settings that change numbers and no operation, so that the pace is that of the recipe as it is."""
WITH_ATTENTION = {
    "as it is": "samgan-plus-attention",
    **{name: f"{name}-attention" for name in PRESETS if f"{name}-attention" in PRESETS},
}
"""Trials that differ in self-attention alone: without it, and with it."""
VARIANTS: dict[str, Variant] = {
    "as it is": Variant(),
    "64 px first": Variant(first=SMALL_FIRST),
    "64 px first, in one run": Variant(first=SMALL_FIRST, in_one_run=True),
    "64 and 128 px first": Variant(first=TWO_FIRST),
    "64 and 128 px first, in one run": Variant(first=TWO_FIRST, in_one_run=True),
    **{name: Variant(change) for name, change in CHANGES.items()},
    **{f"{name}, 64 px first": Variant(change, SMALL_FIRST, True) for name, change in CHANGES.items()},
    **{f"{name}, 64 and 128 px first": Variant(change, TWO_FIRST, True) for name, change in CHANGES.items()},
    "growing penalty, 64 px first": Variant(GROWING_128, SMALL_FIRST, True),
    "growing penalty, half-life of 20 kimg, 64 px first": Variant(
        (*GROWING_128, "--training.ema_halflife_kimg=20"), SMALL_FIRST, True
    ),
    "growing penalty, 64 and 128 px first": Variant(GROWING_256, TWO_FIRST, True),
    "growing penalty, noise in the largest images, 64 and 128 px first": Variant(
        (*GROWING_256, "--network.noise=all"), TWO_FIRST, True
    ),
    "growing penalty, noise, half-life of 20 kimg, 64 and 128 px first": Variant(
        (*GROWING_256, "--network.noise=all", "--training.ema_halflife_kimg=20"), TWO_FIRST, True
    ),
    **{f"64 px first, then {name}": Variant((), SMALL_FIRST, last=change) for name, change in LATE.items()},
    **{f"64 and 128 px first, then {name}": Variant((), TWO_FIRST, last=change) for name, change in LATE.items()},
    **{name: Variant((f"--preset={name}",)) for name in PRESETS},
}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("pace")
    step.add_argument("sizes", type=int, nargs="+")
    step.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    step.add_argument("--rounds", type=int, default=5, help="each has some steps of every variant (default: 5)")
    step.add_argument("--threads", type=int, default=1)
    trial = argparse.ArgumentParser(add_help=False)
    trial.add_argument("size", type=int)
    trial.add_argument("sets", type=Path)
    trial.add_argument("work", type=Path)
    trial.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", help="default: all that are for SIZE")
    trial.add_argument("--classes", nargs="+", default=["PNEUMONIA"])
    trial.add_argument("--minutes", type=float, default=20)
    trial.add_argument("--seed", type=int, default=0)
    told = "in which networks are trained; paces are of bf16, so fp32 is for machines that lack it (default: bf16; of "
    told += "short, where nothing is compared, what the processor is good at)"
    trial.add_argument("--arithmetic", choices=("bf16", "fp32"), help=told)
    trial.add_argument("--core", type=int, default=0, help="the core that trains (default: 0)")
    step = steps.add_parser("run", parents=[trial])
    step.add_argument("--features", type=Path, required=True)
    step.add_argument("--count", type=int, default=1000)
    step = steps.add_parser("keep", parents=[trial])
    step.add_argument("--grid", action="store_true")
    step = steps.add_parser("judge", parents=[trial])
    step.add_argument("--count", type=int, default=1000)
    for name in ("parts", "audit"):
        step = steps.add_parser(name, parents=[trial])
        step.add_argument("--features", type=Path, required=True)
        step.add_argument("--count", type=int, default=1000)
    step = steps.add_parser("short", parents=[trial])
    step.add_argument("--seeds", type=int, default=5, help="their number, from 0 on (default: 5)")
    steps.add_parser("table")
    steps.add_parser("plot")
    options = parser.parse_args()
    if "work" in options:
        complete(options)
    done = {"run": run, "keep": keep, "judge": judge, "parts": score_parts, "audit": audit, "short": short}
    if options.step == "pace":
        for size in options.sizes:
            measure_paces(size, options)
    elif options.step == "plot":
        plot(HERE / "curves.svg")
    elif options.step == "table":
        print(
            table(),
            attention_table(),
            "",
            judges_table(),
            "",
            parts_table(),
            "",
            audits_table(),
            "",
            short_table(),
            sep="\n",
        )
    else:
        for name in options.only:
            done[options.step](name, options)


def complete(options: argparse.Namespace) -> None:
    """What depends on the step: one may share no default of another."""
    is_short = options.step == "short"
    options.more = ["--training.snapshot_every_kimg=4"] if is_short else []  # a collapse must show in three of them
    options.trains = is_short or options.step == "run"
    options.arithmetic = options.arithmetic or (usable_precision("auto", "cpu") if is_short else PRECISION)
    options.only = options.only or [name for name in VARIANTS if not why_not(name, options.size)]


def measure_paces(size: int, options: argparse.Namespace) -> None:
    """Measure each variant's images a second, and those of the smaller networks that some begin with."""
    check_precision(PRECISION)
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    variants = [VARIANTS[name] for name in options.only]
    settings = {
        (side, paced(arguments)) for variant in variants for side, arguments in arguments_of(variant, size).items()
    }
    machine = describe_environment("cpu", None).processor
    known = {(row["side"], row["settings"], row["threads"]): row for row in read(PACE)}
    for side, arguments in settings:
        before = known.get((str(side), " ".join(arguments), str(options.threads)), {}).get("processor", machine)
        if before != machine:
            raise SystemExit(
                f"{PACE.name} has {side} px {' '.join(arguments)} of another processor ({before}); to measure all "
                f"anew, remove its lines with {options.threads} threads"
            )
    steppers = {key: stepper(*key) for key in sorted(settings)}
    times: dict[Any, list[float]] = {key: [] for key in steppers}
    for _ in range(options.rounds):
        for key, step in steppers.items():
            begun = time.perf_counter()
            images = sum(step() for _ in range(STEPS))
            times[key].append(images / (time.perf_counter() - begun))
    for (side, arguments), found in times.items():
        row = {
            "side": str(side),
            "settings": " ".join(arguments),
            "threads": str(options.threads),
            "images_per_second": f"{statistics.median(found):.2f}",
            "lowest": f"{min(found):.2f}",
            "highest": f"{max(found):.2f}",
            "processor": machine,
            "date": datetime.now(UTC).date().isoformat(),
        }
        known[row["side"], row["settings"], row["threads"]] = row
        print(" ".join(row.values()), flush=True)
    write(PACE, list(known.values()))


def arguments_of(variant: Variant, size: int) -> dict[int, tuple[str, ...]]:
    """What differs from samgan-plus at each side of the images."""
    smaller = {side: variant.arguments for side, _ in variant.first}
    return {**smaller, size: variant.arguments + variant.last}


def stepper(side: int, arguments: tuple[str, ...]) -> Any:
    """A function that trains one step on noise and returns the number of images."""
    settings = dict(given_setting(argument) for argument in arguments)
    config = preset_config(settings.pop("preset", "samgan-plus"), "cpu", side)
    fixed = {"network.num_classes": 0, "training.precision": PRECISION, "training.first_sides": []}
    config = config.override({**settings, **fixed})
    fabric = make_fabric("cpu", precision=PRECISION)
    state = TrainingState(config, fabric.device)
    images = np.random.default_rng(0).integers(0, 256, (256, 1, side, side), dtype=np.uint8)
    sampler = Sampler(images, config, fabric.device, None, None)

    def step() -> int:
        train_step(state, sampler(state.step), fabric.autocast)
        return config.training.batch_size

    for _ in range(WARM_UP):
        step()
    return step


def given_setting(argument: str) -> tuple[str, Any]:
    """The name and the value of --NAME=VALUE."""
    name, _, value = argument.removeprefix("--").partition("=")
    return name, json.loads(value) if value[0].isdigit() or value in ("true", "false") else value


def why_not(name: str, size: int) -> str:
    """Why a variant is none of this size, or would be another one under its name; empty if it is one."""
    if "--network.vision_tiles=true" in VARIANTS[name].last and size <= 128:
        return f"at {size} px the pretrained network sees whole images at full size"
    if any(side >= size for side, _ in VARIANTS[name].first):
        return f"it begins with images that are no smaller than {size} px"
    return ""


def run(name: str, options: argparse.Namespace) -> None:
    """Train and score one variant, unless trials.csv has it."""
    if reason := why_not(name, options.size):
        raise SystemExit(f"{name}: {reason}")
    own = described(name, options)
    for row in read(TRIALS):
        if own.items() <= row.items():
            if int(row["count"]) != options.count:
                raise SystemExit(f"{TRIALS.name} has {name} with --count {row['count']}, not {options.count}")
            return
    runs = trained(name, options)
    out = list(runs)[-1]
    given = ["--features", options.features, "--checkpoint", "newest"]
    scores = scored(out, options.sets / str(options.size), given, options)
    today = datetime.now(UTC).date().isoformat()
    row = {**own, "kimg": sum(runs.values()), "count": options.count, **scores, "date": today}
    write(TRIALS, [*read(TRIALS), row])


def scored(run: Path, data: Path, given: list[Any], options: argparse.Namespace) -> dict[str, str]:
    """Scores of a run, by the features and into the folder that are given."""
    call(options.core, ["evaluate", run, "--data", data, "--count", options.count, *given])
    out = given[given.index("--out") + 1] if "--out" in given else run
    found = Scores.read(out / "scores.json")
    row = {key: f"{found.scores[key].value:.4f}" for key in SCORES}
    row["frechet_floor"] = f"{found.scores['frechet'].floor:.4f}"
    return row if found.mode_collapse is None else {**row, "ms_ssim_gap": f"{found.mode_collapse.difference:+.4f}"}


def described(name: str, options: argparse.Namespace) -> dict[str, str]:
    """The values of `KEYS` of a trial."""
    values = (options.sets.name, options.size, name, options.seed, f"{options.minutes:g}", options.arithmetic)
    return dict(zip(KEYS, map(str, values), strict=True))


def recorded(name: str, options: argparse.Namespace) -> dict[Path, int]:
    """The runs of a trial that trials.csv has; refused if the pace of today would make it another trial."""
    own = described(name, options)
    rows = [row for row in read(TRIALS) if own.items() <= row.items()]
    if not rows:
        raise SystemExit(f"{TRIALS.name} has no trial {', '.join(own.values())}: call `trials.py run` first")
    now = sum(kimg for _, kimg in parts_of(name, options))
    if now != int(rows[0]["kimg"]):
        raise SystemExit(f"{TRIALS.name} has {rows[0]['kimg']} kimg of it, and by {PACE.name} it now has {now}")
    return trained(name, options)


def trained(name: str, options: argparse.Namespace) -> dict[Path, int]:
    """The runs of a trial, smallest images first, and their thousands of images.

    Each but the first began with the networks of the one before. `run` and `short` train what is lacking.
    """
    variant, runs, past = VARIANTS[name], dict[Path, int](), ""
    settings = arguments_of(variant, options.size)
    parts = parts_of(name, options)
    begin: list[Any] = begin_with(parts) if variant.in_one_run else []
    if variant.in_one_run:
        parts = [(options.size, sum(kimg for _, kimg in parts))]
    for side, kimg in parts:
        past += f"-{side}x{kimg}"
        out = train(side, kimg, [*settings[side], *begin], past, options)
        runs[out], begin = kimg, ["--start", out]
    return runs


def keep(name: str, options: argparse.Namespace) -> None:
    """Write the quick scores and last losses at each snapshot to curves.csv, and a picture of the images.

    They take the place of older ones of the same run.
    """
    out = list(recorded(name, options))[-1]
    own, rows = described(name, options), []
    losses: dict[str, str] = {}
    for line in Run(out).stats():
        if line["kind"] == "train":
            losses = {key: f"{line[key]:.4f}" for key in LOSSES}
        else:
            values = {key: f"{line[key]:.4f}" for key in ("thumbnail_frechet", "swd", "ms_ssim_gap")}
            kimg = line["images_seen"] / 1000
            minute = f"{minute_at(kimg, name, options):.1f}"
            rows.append({"kimg": f"{kimg:g}", "minute": minute, **values, **losses})
    replace_lines(CURVES, own, rows)
    if options.grid:
        draw_grid(HERE / f"{slug_of(' '.join(own.values()))}.png", out, options.sets, options.size)


def draw_grid(path: Path, run: Path, sets: Path, size: int) -> None:
    """Write two rows of a run's images, and below them, of a set whose images may be shown, two rows of real ones."""
    model, count = open_model(run), GRID[size]
    shown, told = to_uint8(sample(model, range(count), model.labels(range(count)))).numpy(), model.mark(0).entries()
    if sets.name in SHOWN:
        data, classes = PreparedSet.open(sets / str(size)), Run(run).config.data.classes
        indices = data.indices("train", classes or data.classes)
        drawn = np.sort(np.random.default_rng(0).permutation(indices)[:count])
        shown = np.concatenate([shown, data.take(drawn)])
        told |= {"Description": f"Rows 1 and 2: {told['Description']} Rows 3 and 4: real images, {SHOWN[sets.name]}"}
    with open(path, "wb") as file:
        write_png(file, image_grid(shown, columns=count // 2), told)


def slug_of(name: str) -> str:
    """A name for a file."""
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def judge(name: str, options: argparse.Namespace) -> None:
    """Score a trained run by the radiograph features, which have not seen what the stand-in Inception has."""
    out = list(recorded(name, options))[-1]
    given = ["--features", "radiograph", "--checkpoint", "newest", "--out", out / "radiograph"]
    scores = scored(out, options.sets / str(options.size), given, options)
    scores.pop("ms_ssim_gap", None)
    replace_lines(JUDGED, described(name, options), [scores])


def score_parts(name: str, options: argparse.Namespace) -> None:
    """Score each network that a trained run of larger images began with at its own size, and the last one, too."""
    rows = []
    for out, kimg in recorded(name, options).items():
        side = Run(out).config.network.resolution
        given = ["--features", options.features, "--checkpoint", "newest"]
        scores = scored(out, options.sets / str(side), given, options)
        rows.append({"side": side, "kimg_of_part": kimg, **scores})
    replace_lines(PARTS, described(name, options), rows)


def audit(name: str, options: argparse.Namespace) -> None:
    """Write what an audit of a trained run found."""
    out = list(recorded(name, options))[-1]
    replace_lines(AUDITS, described(name, options), [audited(out, options.sets / str(options.size), options)])


def audited(run: Path, data: Path, options: argparse.Namespace) -> dict[str, str]:
    """What an audit of a run finds: each share beside the highest to expect of a generator that knows no image."""
    given = ["--features", options.features, "--count", options.count, "--checkpoint", "newest", "--no-pictures"]
    call(options.core, ["audit", run, "--data", data, *given])
    document = AuditDocument.read(run / "audit.json")
    row = {"count": str(document.counts.synthetic)}
    for space, measured in (("pixels", document.pixels), ("features", document.features)):
        if measured is not None:
            for key, sign in (("closer", measured.closer), ("nearest", measured.nearest_is_training)):
                row[f"{space}_{key}"] = f"{sign.share.value:.4f}"
                row[f"{space}_{key}_expected"] = f"{sign.expected.high:.4f}"
    assert document.membership is not None
    auc = document.membership.auc
    row |= {"auc": f"{auc.value:.3f}", "auc_low": f"{auc.low:.3f}", "auc_high": f"{auc.high:.3f}"}
    return {**row, "date": datetime.now(UTC).date().isoformat()}


def short(name: str, options: argparse.Namespace) -> None:
    """Train a variant with each seed, and write whether the last part of its training diverged or collapsed."""
    for seed in range(options.seeds):
        options.seed = seed
        own = described(name, options)
        if any(own.items() <= row.items() for row in read(SHORT)):
            continue
        row = {**own, "kimg": "", "kimg_of_size": ""}
        row |= {"diverged": "no", "collapsed": "no", "thumbnail_frechet": "", "ms_ssim_gap": ""}
        try:
            runs = trained(name, options)
        except SystemExit as stopped:
            if "training stopped" not in str(stopped):  # samgan's word for a loss or weight that is NaN
                raise
            row["diverged"] = "yes"
        else:
            row |= {"kimg": str(sum(runs.values())), "kimg_of_size": str(parts_of(name, options)[-1][1])}
            row |= how_it_ended(list(Run(list(runs)[-1]).stats()))
        write(SHORT, [*read(SHORT), row])


def how_it_ended(stats: list[dict[str, Any]]) -> dict[str, str]:
    """Whether a log shows a collapse, and its last quick scores."""
    scores = [line for line in stats if line["kind"] == "scores"]
    seen = [line for line in scores if line["images_seen"] >= 1000 * YOUNG_KIMG]
    if len(seen) < PATIENCE:
        raise SystemExit(f"a collapse shows in {PATIENCE} snapshots after {YOUNG_KIMG:g} kimg: take more --minutes")
    last = {key: f"{scores[-1][key]:.4f}" for key in ("thumbnail_frechet", "ms_ssim_gap")}
    return {"collapsed": "yes" if find_collapse(stats) else "no", **last}


def judges_table() -> str:
    """Trials that the radiograph features have judged, too, by both judges."""
    first = ("stand-in Inception: Frechet / floor", "recall", "coverage")
    second = ("radiograph features: Frechet / floor", "recall", "coverage")
    lines = [f"| data, size | what changed | seed | minutes | {' | '.join(first + second)} |", f"|{'---|' * 10}"]
    for row in read(JUDGED):
        own = {key: row[key] for key in KEYS}
        (other,) = (trial for trial in read(TRIALS) if own.items() <= trial.items())
        cells = [f"{row['data']}, {row['size']} px", row["variant"], row["seed"], row["minutes"]]
        for scores in (other, row):
            cells.append(f"{float(scores['frechet']) / float(scores['frechet_floor']):.1f}")
            cells += [f"{float(scores[key]):.3f}" for key in ("recall", "coverage")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parts_table() -> str:
    """Networks of smaller images that trials began with, each scored at its own size."""
    head = ("data", "trial", "network", "Frechet", "floor", "times the floor", "precision", "recall", "coverage", "gap")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in read(PARTS):
        distance, floor = float(row["frechet"]), float(row["frechet_floor"])
        cells = [row["data"], f"{row['variant']}, {row['minutes']} minutes, seed {row['seed']}"]
        cells += [f"{row['side']} px, {row['kimg_of_part']} kimg"]
        cells += [f"{distance:.3f}", f"{floor:.3f}", f"{distance / floor:.1f}"]
        cells += [f"{float(row[key]):.3f}" for key in ("precision", "recall", "coverage")]
        lines.append(f"| {' | '.join([*cells, row['ms_ssim_gap']])} |")
    return "\n".join(lines)


def audits_table() -> str:
    """What audits found: shares of images, each beside the highest to expect of a generator that knows none."""
    head = ("data, size", "what changed", "seed", "minutes")
    spaces = [f"{what}, {space}" for space in ("pixels", "features") for what in ("closer", "nearest is training")]
    lines = [f"| {' | '.join([*head, *spaces, 'membership AUC'])} |", f"|{'---|' * (len(head) + len(spaces) + 1)}"]
    for row in read(AUDITS):
        cells = [f"{row['data']}, {row['size']} px", row["variant"], row["seed"], row["minutes"]]
        for key in ("pixels_closer", "pixels_nearest", "features_closer", "features_nearest"):
            cells.append(f"{100 * float(row[key]):.1f} % (at most {100 * float(row[f'{key}_expected']):.1f} %)")
        cells.append(f"{row['auc']} [{row['auc_low']}, {row['auc_high']}]")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def short_table() -> str:
    """How many of the short trainings diverged or collapsed, and how far the quick scores of their seeds differ."""
    head = ("data, size", "what changed", "minutes", "kimg, of them at this size", "arithmetic", "seeds")
    head += ("diverged", "collapsed", "thumbnail Frechet", "gap")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    rows = read(SHORT)
    names = ("data", "size", "variant", "minutes", "arithmetic")
    for values in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        key = dict(zip(names, values, strict=True))
        own = [row for row in rows if key.items() <= row.items()]
        lengths = {f"{row['kimg']}, {row['kimg_of_size']}" for row in own if row["kimg"]}
        cells = [f"{key['data']}, {key['size']} px", key["variant"], key["minutes"], "; ".join(sorted(lengths))]
        cells += [key["arithmetic"], str(len(own))]
        cells += [str(sum(row[what] == "yes" for row in own)) for what in ("diverged", "collapsed")]
        for score, form in (("thumbnail_frechet", ".2f"), ("ms_ssim_gap", "+.3f")):
            values = [float(row[score]) for row in own if row[score]]
            cells.append(f"{min(values):{form}} to {max(values):{form}}" if values else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parts_of(name: str, options: argparse.Namespace) -> list[tuple[int, int]]:
    """The sides of a trial's images, smallest first, and the thousands of images of each."""
    variant = VARIANTS[name]
    settings = arguments_of(variant, options.size)
    last = kimg_of(options.size, settings[options.size], options.minutes * (1 - sum(part for _, part in variant.first)))
    if variant.in_one_run:
        sides = [side for side, _ in variant.first]
        minutes = options.minutes * sum(share for _, share in variant.first)
        kimg = round(minutes / sum(minutes_of(side, variant.arguments) for side in sides))
        return [*((side, kimg) for side in sides), (options.size, last)]
    first = [(side, kimg_of(side, settings[side], share * options.minutes)) for side, share in variant.first]
    return [*first, (options.size, last)]


def minute_at(kimg: float, name: str, options: argparse.Namespace) -> float:
    """When the last run of a trial has seen so many thousand images, by the paces; 0 is the start of the first one."""
    variant = VARIANTS[name]
    settings, minute = arguments_of(variant, options.size), 0.0
    for side, length in parts_of(name, options):
        each = minutes_of(side, settings[side])
        if variant.in_one_run and side < options.size:
            minute, kimg = minute + each * min(kimg, length), max(kimg - length, 0)
        else:
            minute += each * (length if side < options.size else kimg)
    return minute


def begin_with(parts: list[tuple[int, int]]) -> list[Any]:
    """Arguments of a training that begins with smaller images, by the parts of a trial in one run."""
    sides = [side for side, _ in parts[:-1]]
    return [f"--training.first_sides={sides}".replace(" ", ""), f"--training.first_kimg={parts[0][1]}"]


def paced(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the settings that the pace depends on."""
    return tuple(argument for argument in arguments if not argument.startswith(SAME_PACE))


def kimg_of(side: int, arguments: tuple[str, ...], minutes: float, threads: int = 1) -> int:
    """What one quiet core, or several, train in so many minutes."""
    return round(minutes / minutes_of(side, arguments, threads))


def minutes_of(side: int, arguments: tuple[str, ...], threads: int = 1) -> float:
    """What one quiet core, or several, take for a thousand images."""
    settings = " ".join(paced(arguments))
    for row in read(PACE):
        if (row["side"], row["settings"], row["threads"]) == (str(side), settings, str(threads)):
            return 1000 / 60 / float(row["images_per_second"])
    raise SystemExit(
        f"{PACE.name} has no pace of {side} px {settings} with {threads} threads: run `trials.py pace` first"
    )


def train(side: int, kimg: int, settings: list[Any], past: str, options: argparse.Namespace) -> Path:
    """Train one run, or go on with it; one that is there in full is taken as it is. `past` tells sides and lengths."""
    changed = " ".join(
        word.removeprefix("--") for word in [*settings, *options.more] if str(word).startswith("--") and "=" in word
    )
    kind = re.sub(r"[^a-z0-9.]+", "-", changed) or "plus"
    own = f"{kind}{past}{suffix_of(options.arithmetic)}-{options.seed}"
    out: Path = options.work / options.sets.name / str(side) / own
    data = ["train", options.sets / str(side), "--out", out]
    if not any(str(word).startswith("--training.first_sides") for word in settings):
        data.append("--training.first_sides=[]")  # which samgan-plus has by default
    settings = [
        *settings,
        *options.more,
        "--classes",
        *options.classes,
        f"--training.seed={options.seed}",
        f"--training.kimg={kimg}",
    ]
    is_new = not (out / "config.json").exists()
    if not is_new and Run(out).config.data.classes != tuple(options.classes):
        raise SystemExit(f"{out} was trained on {', '.join(Run(out).config.data.classes)}: name another WORK")
    if not is_new and Run(out).last_step() >= Run(out).config.training.total_steps:
        return out
    if not options.trains:
        raise SystemExit(f"{out} is not there in full: name the WORK in which it was trained, or call `trials.py run`")
    check_precision(options.arithmetic)
    settings.append(f"--training.precision={options.arithmetic}")
    if is_new:
        call(options.core, [*data, *settings])
    else:
        call(options.core, [*data, "--resume", *origin(settings)])
    return out


def check_precision(precision: str) -> None:
    """Refuse a processor that cannot compute in it.

    Raises:
        SystemExit: It would compute in another one.
    """
    if usable_precision(precision, "cpu") != precision:
        raise SystemExit(
            f"paces are those of {PRECISION}, which this processor cannot compute in: take one that can, or train what "
            "is to be compared with --arithmetic fp32"
        )


def suffix_of(arithmetic: str) -> str:
    """What the folder of a run ends in, so that it is not taken for one in the arithmetic of the paces."""
    return "" if arithmetic == PRECISION else f"-{arithmetic}"


def origin(settings: list[Any]) -> list[Any]:
    """The run to start from, which a run needs again that was stopped before its first checkpoint."""
    place = settings.index("--start") if "--start" in settings else len(settings)
    return settings[place : place + 2]


def call(core: int, arguments: list[Any]) -> None:
    """Run samgan on one core; what it says on standard error is shown, and its end is part of an error."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "samgan", *map(str, arguments)]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    last: collections.deque[str] = collections.deque(maxlen=5)
    with subprocess.Popen(command, env=one, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            last.append(line)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: status {process.returncode}: {''.join(last)}")


def table() -> str:
    """All trials, by data and size."""
    lines = []
    rows = read(TRIALS)
    for data, size in dict.fromkeys((row["data"], row["size"]) for row in rows):
        own = [row for row in rows if (row["data"], row["size"]) == (data, size)]
        floors = sorted({f"{float(row['frechet_floor']):.3f}" for row in own})
        lines += [f"{data}, {size} px; Frechet distance of real images to other real ones: {' or '.join(floors)}", ""]
        head = ("what changed", "seed", "minutes", "arithmetic", "kimg", "Frechet", *SCORES[1:], "MS-SSIM gap")
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for row in own:
            scores = " | ".join(f"{float(row[key]):.3f}" for key in SCORES)
            told = " | ".join(row[key] for key in ("variant", "seed", "minutes", "arithmetic", "kimg"))
            lines.append(f"| {told} | {scores} | {float(row['ms_ssim_gap']):+.3f} |")
        lines.append("")
    return "\n".join(lines)


def attention_table() -> str:
    """Trials with self-attention beside those without, where both are there: at equal minutes, and at equal kimg."""
    lines = [
        "| preset | data, size | seed | minutes | kimg | Frechet | recall | coverage | at kimg | thumbnail Frechet |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    rows, curves = read(TRIALS), read(CURVES)
    for plain in (row for row in rows if row["variant"] in WITH_ATTENTION):
        own = {key: plain[key] for key in KEYS}
        other = {**own, "variant": WITH_ATTENTION[plain["variant"]]}
        for attended in (row for row in rows if other.items() <= row.items()):
            told = [plain["variant"].replace("as it is", "samgan-plus"), f"{plain['data']}, {plain['size']} px"]
            told += [plain["seed"], plain["minutes"]]
            told += [f"{plain['kimg']}, {attended['kimg']}"]
            told += [
                f"{float(plain[key]):.3f}, {float(attended[key]):.3f}" for key in ("frechet", "recall", "coverage")
            ]
            without, with_attention = (
                {row["kimg"]: float(row["thumbnail_frechet"]) for row in curves if of.items() <= row.items()}
                for of in (own, other)
            )
            common = sorted(without.keys() & with_attention.keys(), key=float)
            at = common[-1] if common else ""
            told += [at, f"{without[at]:.2f}, {with_attention[at]:.2f}" if common else "not kept"]
            lines.append(f"| {' | '.join(told)} |")
    return "\n".join(lines)


def plot(path: Path) -> None:
    """Quick scores against minutes of one core, a line per trial, a panel for each set and size."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "samgan"  # equal numbers, equal bytes
    curves = collections.defaultdict(list)
    for row in read(CURVES):
        if float(row["kimg"]) > 0:
            curves[tuple(row[key] for key in KEYS)].append((float(row["minute"]), float(row["thumbnail_frechet"])))
    panels = sorted({(data, int(size)) for data, size, *_ in curves})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(16, 7), layout="constrained")
    for axis, (data, size) in zip(axes, panels, strict=True):
        for key, points in curves.items():
            if key[:2] == (data, str(size)):
                told = f"{key[2]}, seed {key[3]}, {key[4]} min{', fp32' if key[5] == 'fp32' else ''}"
                axis.plot(*zip(*points, strict=True), marker=".", label=told)
        axis.set(title=f"{data}, {size} px", xlabel="minutes of one core", yscale="log")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.1))
    axes[0].set_ylabel("quick score (thumbnail Frechet distance), lower is better")
    figure.savefig(path, metadata={"Date": None})


def read(path: Path) -> list[dict[str, str]]:
    """Lines of a table."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def replace_lines(path: Path, own: dict[str, str], rows: list[dict[str, Any]]) -> None:
    """The lines of one run, told by `own`, take the place of older ones of it.

    Called when they are known, since another core may have added lines of other runs while that took its time.
    """
    others = [row for row in read(path) if not own.items() <= row.items()]
    write(path, [*others, *({**own, **row} for row in rows)])


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace a table; its first line has the names."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


if __name__ == "__main__":
    main()
