"""Train samgan-plus and its rivals for the same minutes, score them along the way, and draw the curves.

    python results/plus/runs.py subset cxr64 XRAYS xrays-300
    python results/plus/runs.py train cxr64 WORK_FOLDER --small xrays-300 [--only NAME ...]
    python results/plus/runs.py score cxr64 WORK_FOLDER --features FEATURES.pt [--only NAME ...]
    python results/plus/runs.py nearest cxr64 WORK_FOLDER --small xrays-300 --features FEATURES.pt [--only NAME ...]
    python results/plus/runs.py quick cxr64 WORK_FOLDER [--only NAME ...]
    python results/plus/runs.py grids cxr64 WORK_FOLDER [--only NAME ...]
    python results/plus/runs.py draw

`subset` prepares 300 random training images of class PNEUMONIA from the folder that cxr64 was prepared from. `train`
gives every run a core of its own, as many side by side as there are cores. It can be stopped at any time and called
again: a run goes on where it stopped, and minutes are those of training alone (`wall_seconds` of stats.jsonl). Needs
Linux (cores are chosen with taskset). `score` adds lines to curves.csv beside this file, against all training images
of the class, also where a run saw 300 of them. `nearest` adds to nearest.csv how far the newest images of a run lie
from its training images, beside the distance of held-out patients' images. `quick` writes to quick.csv what the quick
scores of training, against held-out images, are at the checkpoints that `score` scored, and prints how they rank with
the Frechet distance there. `grids` puts images of runs after the same minutes beside this file, and real ones. `draw`
makes curves.svg (needs matplotlib).
"""

import argparse
import concurrent.futures
import csv
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

import samgan
from samgan.data import PreparedSet
from samgan.metrics.features import extract
from samgan.metrics.load_features import load_features
from samgan.pictures import image_grid, to_uint8, write_png
from samgan.runs import Run
from samgan.sampling import load_model, sample
from samgan.scoring import Scores, quick_scores
from samgan.training import SCORED_IMAGES

HERE = Path(__file__).parent
PNEUMONIA = ["--classes", "PNEUMONIA"]
PLUS = ["--training.snapshot_every_kimg=10", "--training.keep_checkpoints=1000", "--training.kimg=100000"]
HALF_RATE = [*PLUS, "--training.learning_rate=0.004"]  # what samgan-plus was up to commit b122678


def rival(preset: str) -> list[str]:
    """A row of the paper's table, at the width that a CPU can train, with the same snapshots."""
    return [f"--preset={preset}", "--scale=cpu", *PLUS]


class Training(NamedTuple):
    """One run: how long it trains, and with which arguments."""

    minutes: float
    arguments: list[str]


# Seeds 0 to 2 of half the rate are the runs of 60 minutes, 0 that of 150, 0 to 4 those of 20. The rivals have twice the
# minutes or more, for they use a second core better than samgan-plus does: what one core does in 120 minutes, two
# cannot in 60.
RUNS: dict[str, Training] = {
    "samgan-plus-1": Training(60, [*PNEUMONIA, *PLUS, "--training.seed=1"]),
    "samgan-plus-2": Training(60, [*PNEUMONIA, *PLUS, "--training.seed=2"]),
    "half-rate-0": Training(150, [*PNEUMONIA, *HALF_RATE]),
    "msg-gan-6": Training(150, [*PNEUMONIA, *rival("msg-gan-6")]),
    "half-rate-1": Training(60, [*PNEUMONIA, *HALF_RATE, "--training.seed=1"]),
    "half-rate-2": Training(60, [*PNEUMONIA, *HALF_RATE, "--training.seed=2"]),
    "half-rate-3": Training(20, [*PNEUMONIA, *HALF_RATE, "--training.seed=3"]),
    "half-rate-4": Training(20, [*PNEUMONIA, *HALF_RATE, "--training.seed=4"]),
    "samgan-8": Training(120, [*PNEUMONIA, *rival("samgan-8")]),
    "half-rate-normal": Training(60, ["--classes", "NORMAL", *HALF_RATE]),
    "half-rate-300": Training(60, HALF_RATE),
    "msg-gan-6-normal": Training(60, ["--classes", "NORMAL", *rival("msg-gan-6")]),
    "msg-gan-6-300": Training(60, rival("msg-gan-6")),
}
SMALL = 300
MARKS = (5, 10, 15, 20, 30, 60, 100, 120, 150)
"""Minutes at which runs are scored."""
GRID_MARKS = (15, 60)
GRID = 25
ATTRIBUTION = (
    "Kermany, Zhang and Goldbaum (2018), Mendeley Data, doi 10.17632/rscbjbr9sj.2, CC BY 4.0; resized to 64 px"
)
SCORES = ("frechet", "kid_x1000", "precision", "recall", "density", "coverage")
QUICK = ("quick_score", "swd", "thumbnail_frechet", "ms_ssim_gap")
COLUMNS = ("run", "minutes", "kimg", "count", *SCORES, "frechet_floor", "swd", "ms_ssim_gap")


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("subset")
    for name in ("data", "source", "out"):
        step.add_argument(name, type=Path)
    for name in ("train", "score", "nearest", "quick", "grids"):
        step = steps.add_parser(name)
        step.add_argument("data", type=Path)
        step.add_argument("work", type=Path)
        step.add_argument("--only", nargs="+", default=list(RUNS), metavar="NAME", choices=RUNS, help=", ".join(RUNS))
        if name in ("train", "nearest"):
            step.add_argument("--small", type=Path, required=True, help="what subset prepared")
        if name in ("score", "nearest"):
            step.add_argument("--features", type=Path, required=True, help="TorchScript of the Inception that scores")
            step.add_argument("--count", type=int, default=1000, help="images scored")
        if name in ("score", "grids"):
            marks = MARKS if name == "score" else GRID_MARKS
            step.add_argument("--minutes", type=float, nargs="+", default=marks)
    steps.add_parser("draw")
    options = parser.parse_args()
    whole = {"draw": lambda options: draw(), "subset": subset, "train": train_all}
    if options.step in whole:
        whole[options.step](options)
        return
    if options.step == "grids":
        write_grid("real", real_images(options.data, GRID), {"Description": "Real X-rays. " + ATTRIBUTION})
    for name in options.only:
        if (options.work / name).exists():
            {"score": score, "nearest": nearest, "quick": quick, "grids": grids}[options.step](name, options)
        if options.step == "quick":
            tell_correlations()


def subset(options: argparse.Namespace) -> None:
    """Prepare `SMALL` random training images of class PNEUMONIA as a set of their own, none held out."""
    data = PreparedSet.open(options.data)
    indices = data.indices("train", ["PNEUMONIA"])
    chosen = indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))[:SMALL].numpy()]
    with tempfile.TemporaryDirectory() as folder:
        for index in chosen:
            source = Path(data.manifest[index].source)
            target = Path(folder) / source
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(options.source / source, target)
        samgan.prepare(folder, options.out, resolution=data.resolution, holdout=0)


def training_set(name: str, options: argparse.Namespace) -> Path:
    """The prepared set that a run learns from."""
    return options.small if name.endswith(f"-{SMALL}") else options.data


def class_of(name: str) -> str:
    """The class that a run learns from."""
    return "NORMAL" if name.endswith("-normal") else "PNEUMONIA"


def train_all(options: argparse.Namespace) -> None:
    """Train the runs, as many at a time as there are cores."""
    cores: queue.Queue[int] = queue.Queue()
    for core in os.sched_getaffinity(0):
        cores.put(core)

    def on_a_core(name: str) -> None:
        core = cores.get()
        try:
            train(name, options, core)
        finally:
            cores.put(core)

    with concurrent.futures.ThreadPoolExecutor(cores.qsize()) as pool:
        list(pool.map(on_a_core, options.only))


def train(name: str, options: argparse.Namespace, core: int) -> None:
    """Train one run on one core until it has its minutes."""
    minutes, arguments = RUNS[name]
    out = options.work / name
    if max(walls(out).values(), default=0.0) >= 60 * minutes:
        return
    command = [sys.executable, "-m", "samgan", "train", str(training_set(name, options)), "--out", str(out), *arguments]
    command += ["--minutes", str(minutes)] + ["--resume"] * out.exists()
    command = ["taskset", "-c", str(core), *command]
    status = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
    if status:
        raise SystemExit(f"{name}: training ended with status {status}")


def walls(run: Path) -> dict[int, float]:
    """Seconds of training by step, of a run that has begun."""
    return {line["step"]: line["wall_seconds"] for line in Run(run).stats() if line["kind"] == "train"}


def checkpoint_at(run: Path, mark: float) -> tuple[Path, float] | None:
    """The newest checkpoint before so many minutes of training, and its minutes; None where the run ended before."""
    by_step = walls(run)
    checkpoints = {int(file.stem.split("-")[1]): file for file in (run / "checkpoints").glob("step-*.pt")}
    minutes = {step: by_step[step] / 60 for step in checkpoints if step in by_step}
    step = max((step for step in minutes if minutes[step] <= mark + 0.2), default=None)
    return None if step is None or mark > max(minutes.values()) + 5 else (checkpoints[step], minutes[step])


def score(name: str, options: argparse.Namespace) -> None:
    """Score the newest checkpoint before each mark, unless that was done."""
    run, path = options.work / name, HERE / "curves.csv"
    for mark in options.minutes:
        known = read(path)
        found = checkpoint_at(run, mark)
        if found is None:
            continue
        checkpoint, minutes = found
        key = (name, f"{minutes:.1f}", str(options.count))
        if key in {(row["run"], row["minutes"], row["count"]) for row in known}:
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "samgan", "evaluate", str(run), "--data", str(options.data)]
            command += ["--checkpoint", str(checkpoint), "--out", folder, "--count", str(options.count)]
            command += ["--classes", class_of(name)]
            subprocess.run([*command, "--features", str(options.features)], check=True, stdout=subprocess.DEVNULL)
            scores = Scores.read(Path(folder) / "scores.json")
        row: dict[str, Any] = {"run": name, "minutes": key[1], "count": key[2]}
        assert scores.generated is not None
        assert scores.generated.images_seen is not None
        assert scores.mode_collapse is not None
        row["kimg"] = f"{scores.generated.images_seen / 1000:.1f}"
        row |= {column: f"{scores.scores[column].value:.4f}" for column in SCORES}
        row["frechet_floor"] = f"{scores.scores['frechet'].floor:.4f}"
        row["swd"] = f"{scores.scores['swd'].value:.2f}"
        row["ms_ssim_gap"] = f"{scores.mode_collapse.difference:+.4f}"
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if not known:
                writer.writeheader()
            writer.writerow(row)
        print(", ".join(f"{column} {value}" for column, value in row.items()), flush=True)


def nearest(name: str, options: argparse.Namespace) -> None:
    """Distances to the nearest training image, of generated images and of those of held-out patients."""
    held_out, seen = PreparedSet.open(options.data), PreparedSet.open(training_set(name, options))
    extractor = load_features(options.features)
    model = load_model(Run(options.work / name))
    fake = to_uint8(sample(model, range(options.count)))
    images = {
        "training": torch.from_numpy(seen.select("train", [class_of(name)])),
        "generated": fake,
        "held out": torch.from_numpy(held_out.select("holdout", [class_of(name)])),
    }
    features = {key: extract(extractor, values) for key, values in images.items()}
    pixels = {key: values.flatten(1).float() / 255 for key, values in images.items()}
    known = read(HERE / "nearest.csv")
    with open(HERE / "nearest.csv", "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not known:
            writer.writerow(["run", "kimg", "of", "space", "images", "percentile_1", "percentile_5", "median"])
        for space, points in {"Inception": features, "pixels": pixels}.items():
            for key in ("generated", "held out"):
                distance = torch.cdist(points[key], points["training"]).amin(1)
                quantiles = [f"{distance.quantile(q):.3f}" for q in (0.01, 0.05, 0.5)]
                writer.writerow([name, f"{model.images_seen / 1000:.0f}", key, space, len(distance), *quantiles])


def quick(name: str, options: argparse.Namespace) -> None:
    """Quick scores, as `samgan train` makes them, of the checkpoints that were scored by features."""
    real = PreparedSet.open(options.data).select("holdout", [class_of(name)])
    real = real[np.random.default_rng(0).permutation(len(real))][:SCORED_IMAGES]
    known = read(HERE / "quick.csv")
    done = {(row["run"], row["minutes"]) for row in known}
    scored = [row for row in read(HERE / "curves.csv") if row["run"] == name and int(row["count"]) <= 1000]
    with open(HERE / "quick.csv", "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not known:
            writer.writerow(["run", "minutes", "kimg", "frechet", *QUICK])
        for row in sorted(scored, key=lambda row: float(row["minutes"])):
            found = checkpoint_at(options.work / name, float(row["minutes"]))
            if found is not None and (name, row["minutes"]) not in done:
                model = load_model(Run(options.work / name), str(found[0]))
                fake = to_uint8(sample(model, range(len(real))))
                values = quick_scores(real, fake)
                writer.writerow(
                    [name, row["minutes"], row["kimg"], row["frechet"], *(f"{values[k]:.4f}" for k in QUICK)]
                )


def tell_correlations() -> None:
    """Rank correlation of each quick score with the Frechet distance of features, over quick.csv, on the screen."""
    rows = read(HERE / "quick.csv")
    for preset in ("samgan-plus", "half-rate", "msg-gan-6", "samgan-8", ""):
        own = [row for row in rows if row["run"].startswith(preset) and not row["run"].endswith("-normal")]
        values = [[abs(float(row[name])) for row in own] for name in ("frechet", *QUICK)]
        ranks = [spearmanr(values[0], value).statistic for value in values[1:]]
        found = [f"{name} {rank:+.2f}" for name, rank in zip(QUICK, ranks, strict=True)]
        print(f"{preset or 'all'} ({len(own)}): {', '.join(found)}")


def grids(name: str, options: argparse.Namespace) -> None:
    """Images of the first seeds, not chosen, after the same minutes of training."""
    for mark in options.minutes:
        found = checkpoint_at(options.work / name, mark)
        if found is not None:
            model = load_model(Run(options.work / name), str(found[0]))
            images = to_uint8(sample(model, range(GRID))).numpy()
            write_grid(f"{name}-{mark:g}", images, {**model.mark(0).entries(), "Seed": "0..."})


def real_images(data: Path, count: int) -> np.ndarray:
    """Training images of class PNEUMONIA drawn at random."""
    images = PreparedSet.open(data).select("train", ["PNEUMONIA"])
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count].numpy()]


def write_grid(name: str, images: np.ndarray, text: dict[str, str]) -> None:
    """Write a square of images to grid-NAME.png beside this file."""
    with open(HERE / f"grid-{name}.png", "wb") as file:
        write_png(file, image_grid(images), text)


def read(path: Path) -> list[dict[str, str]]:
    """Lines of curves.csv."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def draw() -> None:
    """Frechet distance, recall, coverage and MS-SSIM gap against minutes, a line per run."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "samgan"  # equal numbers, equal bytes
    rows = read(HERE / "curves.csv")
    figure, axes = pyplot.subplots(1, 4, figsize=(16, 4), layout="constrained")
    panels = (("frechet", "Frechet distance, lower is better"), ("recall", "recall, higher is better"))
    panels += (("coverage", "coverage, higher is better"), ("ms_ssim_gap", "MS-SSIM gap, near 0 is better"))
    colours = {"samgan-plus": "C0", "half-rate": "C3", "msg-gan-6": "C1", "samgan-8": "C2"}
    for axis, (column, title) in zip(axes, panels, strict=True):
        for name in dict.fromkeys(row["run"] for row in rows):
            preset = next(preset for preset in colours if name.startswith(preset))
            style = {"normal": ":", str(SMALL): "--"}.get(name.rpartition("-")[2], "-")
            own = [row for row in rows if row["run"] == name]
            count = min(int(row["count"]) for row in own)  # scores of more images are no point of the same curve
            points = sorted((float(row["minutes"]), float(row[column])) for row in own if int(row["count"]) == count)
            axis.plot(*zip(*points, strict=True), style, color=colours[preset], marker=".", label=name)
        axis.set(title=title, xlabel="minutes of training", yscale="log" if column == "frechet" else "linear")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.savefig(HERE / "curves.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
