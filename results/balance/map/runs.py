"""Train the generators and classifiers of the map, one draw of few patients at a time.

    python results/balance/map/runs.py pilot SETS WORK --questions virus --patients 25 [--draws 0 1] [--only WAY ...]
    python results/balance/map/runs.py pilot-table

`pilot` trains on fold 1 and tests on fold 0, which the map never tests on. For each draw of patients it trains the
generators that the ways of ways.py ask for, makes their images, trains each classifier with each seed, and adds a line
to pilot.csv. What is there is not done again, so it can be stopped at any time and called on another machine.
Generators and images are under WORK. SETS is the folder that sets.py wrote.
"""

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ways import PRETRAINED, RIVALS, WAYS, Way

from samgan.data import PreparedSet
from samgan.metrics.classification import scores
from samgan.metrics.features import extract
from samgan.metrics.load_features import load_features
from samgan.pictures import to_uint8
from samgan.sampling import Model, open_model, sample
from samgan.sampling.images import generate, latents_of_seeds, truncated
from samgan.studies import classify, predict, train_classifier
from samgan.studies.downstream import training_images
from samgan.studies.probe import probe

HERE = Path(__file__).parent
PILOT = HERE / "pilot.csv"
SMALL = {"virus": "VIRUS", "three": "VIRUS", "covid": "COVID"}
STEPS, SEEDS = 250, 2
"""Of each classifier of the pilot, and classifiers of each way."""
TOLD = ["--data.class_sampling=balanced", "--training.augment_target=0.6"]
KIMG, FINE_TUNED_KIMG = 120, 30
PSI = 0.7
MARGIN = 2
"""Of a choice among synthetic images, so many times as many as are missing are made."""
METHODS = {"joint": "joint", "truncated": "joint", "between patients": "joint", "fine-tuned": "fine-tuned"}


@dataclass(frozen=True)
class Draw:
    """Few patients of the small class, and all of the others."""

    question: str
    folds: str
    side: int
    patients: int
    number: int
    sets: Path
    work: Path

    @property
    def small(self) -> str:
        """The class with few patients."""
        return SMALL[self.question]

    @property
    def folder(self) -> Path:
        """Where its set, generators and images are."""
        return self.work / self.question / self.folds / str(self.side) / f"{self.patients}-{self.number}"

    def open(self) -> PreparedSet:
        """The prepared set of this draw; the same patients at every size."""
        out = self.folder / "set"
        if not (out / "dataset.json").exists():
            source = self.sets / self.question / self.folds / str(self.side)
            few = ["--patients", f"{self.small}={self.patients}", "--seed", self.number]
            call(["subset", source, out, *few])
        return PreparedSet.open(out)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("pilot")
    step.add_argument("sets", type=Path)
    step.add_argument("work", type=Path)
    step.add_argument("--questions", nargs="+", choices=SMALL, default=list(SMALL))
    step.add_argument("--patients", nargs="+", type=int, default=[25, 100])
    step.add_argument("--draws", nargs="+", type=int, default=[0, 1])
    step.add_argument("--side", type=int, default=64)
    step.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    step.add_argument("--core", type=int)
    steps.add_parser("pilot-table")
    options = parser.parse_args()
    if options.step == "pilot-table":
        print(pilot_table())
        return
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"
    for question in options.questions:
        for patients in options.patients:
            for number in options.draws:
                draw = Draw(question, "1-0", options.side, patients, number, options.sets, options.work)
                pilot(draw, options.only)


def pilot(draw: Draw, names: Sequence[str]) -> None:
    """Test all ways with one draw on fold 0."""
    data = draw.open()
    tested = data.indices("holdout")
    truth = data.labels(data.classes)[tested]
    for name in names:
        for seed in range(SEEDS):
            key = {
                "question": draw.question,
                "side": str(draw.side),
                "patients": str(draw.patients),
                "draw": str(draw.number),
                "way": name,
                "seed": str(seed),
            }
            if any(key.items() <= row.items() for row in read(PILOT)):
                continue
            predicted = classified(draw, data, WAYS[name], seed)
            found = scores(predicted, truth, data.classes.index(draw.small))
            row = {**key, **{score: f"{value:.4f}" for score, value in found.items()}}
            row["date"] = datetime.now(UTC).date().isoformat()
            add(PILOT, row)
            print(" ".join(row.values()), flush=True)


def classified(draw: Draw, data: PreparedSet, way: Way, seed: int) -> np.ndarray:
    """Probabilities of the held-out images, by one classifier."""
    names = data.classes
    real = {name: data.select("train", [name]) for name in names}
    largest = max(map(len, real.values()))
    lacking = {name: largest - len(images) for name, images in real.items()}
    made = {}
    if way.arm.synthetic:
        for name in names if way.arm.whole else [name for name, count in lacking.items() if count]:
            wanted = largest if way.arm.whole else lacking[name]
            made[name] = chosen(draw, data, way, name, wanted)
    images, labels, of_real = training_images(way.arm, real, made, lacking)
    test = data.select("holdout")
    if not way.probe:
        return classify(images, labels, of_real, test, way.arm, len(names), seed=seed, steps=STEPS)
    eyes = load_features("lite0")
    features, of_test = (extract(eyes, torch.from_numpy(part)).double().numpy() for part in (images, test))
    patients = [data.manifest[i].patient for name in names for i in data.indices("train", [name])]
    groups = np.full(len(labels), "", object)
    groups[of_real] = patients
    smote_seed = seed if way.smote else None
    return probe(features, labels, list(groups), of_test, len(names), of_real=of_real, smote_seed=smote_seed)


def chosen(draw: Draw, data: PreparedSet, way: Way, name: str, count: int) -> np.ndarray:
    """The synthetic images of one class that a way takes."""
    if way.choice == "all":
        return synthetic(draw, data, way.images, name, count)[:count]
    pool = synthetic(draw, data, way.images, name, MARGIN * count)
    real = [data.select("train", [other]) for other in data.classes]
    labels = np.repeat(np.arange(len(real)), [len(part) for part in real])
    judge = train_classifier(np.concatenate(real), labels, PRETRAINED, len(real), seed=1000, steps=STEPS)
    sure = predict(judge, pool)[:, data.classes.index(name)]
    return pool[np.sort(np.argsort(np.abs(sure - 0.5))[:count])]


def synthetic(draw: Draw, data: PreparedSet, kind: str, name: str, count: int) -> np.ndarray:
    """At least `count` synthetic images of a class, of one kind of `IMAGES`; they are kept."""
    path = draw.folder / f"{kind}-{name}-{count}.npy".replace(" ", "-")
    if not path.exists():
        if kind == "three models":
            share = -(-count // 3)
            parts = [
                images_of(generator(draw, data, "joint", name, seed), kind, name, share, data) for seed in range(3)
            ]
            found = np.concatenate(parts)[:count]
        else:
            found = images_of(generator(draw, data, METHODS[kind], name, 0), kind, name, count, data)
        new = path.with_suffix(".new.npy")
        np.save(new, found)
        new.replace(path)
    return np.load(path)


def images_of(model: Model, kind: str, name: str, count: int, data: PreparedSet) -> np.ndarray:
    """Images of the seeds from 0 on."""
    labels = model.labels(range(count), name) if model.classes else None
    if kind == "between patients":
        return between(model, name, count, data)
    made = sample(truncated(model, PSI) if kind == "truncated" else model, range(count), labels)
    return to_uint8(made).numpy()


def between(model: Model, name: str, count: int, data: PreparedSet) -> np.ndarray:
    """Images halfway between two seeds, each of them the nearest one to a real image by Lite0's features."""
    pool = range(2048)
    label = None if not model.classes else model.labels(pool, name)
    eyes = load_features("lite0")
    real = extract(eyes, torch.from_numpy(data.select("train", [name])))
    of_seeds = extract(eyes, to_uint8(sample(model, pool, label)))
    nearest = torch.cdist(real, of_seeds).argmin(1).numpy()
    draw = np.random.default_rng(0)
    pairs = np.stack([draw.choice(nearest, size=2, replace=len(nearest) < 2) for _ in range(count)])
    ends = latents_of_seeds(pairs.ravel().tolist(), model.generator.latent_size).unflatten(0, (count, 2))
    # Latents lie near a sphere, so the middle of two is brought back to their usual length.
    middle = ends.sum(1) / 2**0.5
    own = None if label is None else label[:1].expand(count)
    return to_uint8(torch.cat([pyramid[-1] for pyramid in generate(model.generator, middle, own)])).numpy()


def generator(draw: Draw, data: PreparedSet, method: str, name: str, seed: int) -> Model:
    """The model of a method, trained if it is not there; for `fine-tuned` that of a class."""
    base = draw.folder / f"{method}-{seed}"
    if method == "joint":
        return open_model(train(base, data, KIMG, [*TOLD, f"--training.seed={seed}"]))
    train(base, data, KIMG, ["--network.num_classes=0", f"--training.seed={seed}"])
    start = ["--start", base, "--classes", name, "--training.augment_target=0.6", f"--training.seed={seed}"]
    return open_model(train(draw.folder / f"{method}-{seed}-{name}", data, FINE_TUNED_KIMG, start))


def train(out: Path, data: PreparedSet, kimg: int, settings: list[Any]) -> Path:
    """Train a run, or go on with it."""
    begun = (out / "config.json").exists()
    more = ["--resume"] if begun else [*settings, f"--training.kimg={kimg}"]
    call(["train", data.path, "--out", out, *more])
    return out


def call(words: Sequence[Any]) -> None:
    """Run samgan."""
    done = subprocess.run([sys.executable, "-m", "samgan", *map(str, words)], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(f"samgan {' '.join(map(str, words))}: status {done.returncode}")


def pilot_table() -> str:
    """The mean AUC of each way over draws and seeds, by question, side and patients."""
    rows = read(PILOT)
    cells = list(dict.fromkeys((row["question"], row["side"], row["patients"]) for row in rows))
    lines = ["| way | " + " | ".join(f"{q}, {n} patients, {side} px" for q, side, n in cells) + " |"]
    lines.append("|---|" + "---|" * len(cells))
    for name in WAYS:
        values = []
        for cell in cells:
            own = [float(row["auc"]) for row in rows if (*cell, name) == tuple(row[key] for key in KEYS)]
            values.append(f"{np.mean(own):.3f} ± {np.std(own):.3f}" if own else "")
        if any(values):
            lines.append(f"| {name}{'' if name in RIVALS else ' *'} | " + " | ".join(values) + " |")
    return "\n".join(lines)


KEYS = ("question", "side", "patients", "way")


def read(path: Path) -> list[dict[str, str]]:
    """Lines of a table."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def add(path: Path, row: dict[str, str]) -> None:
    """Add a line to a table."""
    begun = path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if not begun:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
