"""Balance Kermany's X-rays with a class of few: NORMAL as it is, and with fewer of it, by three methods side by side.

    python results/balance/runs.py balance cxr64 WORK_FOLDER --features FEATURES.pt [--only NAME ...]
    python results/balance/runs.py balance pneumonia-64 WORK_FOLDER --features FEATURES.pt --only virus-125-patients
    python results/balance/runs.py worth pneumonia-64 WORK_FOLDER --only virus-125-patients
    python results/balance/runs.py collapse cxr64 WORK_FOLDER --features FEATURES.pt [--seeds 2]
    python results/balance/runs.py table WORK_FOLDER

The second uses PNEUMONIA only: its causes, BACTERIA and VIRUS, are harder to tell apart.

`balance` makes subsets of the prepared set (held-out patients stay the same: 268 images of NORMAL, 770 of PNEUMONIA;
268 of VIRUS, 512 of BACTERIA), calls `samgan balance` on each, one after another, and scores the models once more,
against all training images of the class of few, also where they saw a part of them. It can be stopped at any time and
called again; two calls with other names may run side by side. `table` copies balance.json of every finished case to
this file's folder, and the pages of three, and writes table.csv of all cases that are there, also those of an earlier
WORK_FOLDER, and arms.csv of every way to train the classifier. `worth` trains the classifiers of real images only on
the whole set as well, and writes worth.csv into a case's folder: what the patients that the case left out are worth,
which is what synthetic images could be hoped to replace. `collapse` trains models of two classes, of which one has 100
images, in the ways of `WAYS`, and writes collapse.csv: how many images of that class repeat each other.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from samgan.data import PreparedSet
from samgan.metrics.classification import interval, resample, weighted_scores
from samgan.metrics.nearest import first_alike
from samgan.pictures import to_uint8
from samgan.runs import Environment
from samgan.sampling import open_model, sample
from samgan.scoring import Scores
from samgan.studies import ARMS, CLASSICAL, BalanceDocument, classify
from samgan.studies.balance_documents import TrainingDocument

HERE = Path(__file__).parent


class Case(NamedTuple):
    """One set, balanced in one way."""

    subset: list[str]
    """Arguments of `samgan subset`; none: the set as it is."""
    arguments: list[str]
    """Arguments of `samgan balance`."""
    features: bool = True
    """Whether screening and audit look at features as well as pixels."""
    models_of: str = ""
    """The case whose model is taken; none: its own is trained."""
    few: str = "NORMAL"
    """The class of few."""


SEEDS = 5  # as samgan balance has them
PAGES = ("as-it-is", "125-patients", "virus-125-patients")
METHODS = ("joint", "per-class", "fine-tuned")
LONG, SHORT = ["--minutes", "60", "--steps", "500"], ["--minutes", "30", "--steps", "250"]
FEW = ["--training.augment_target=0.6"]  # as docs/choosing.md says of some hundred images
PATIENTS = ["--patients", "NORMAL=125"]
TOLD = ["--data.class_sampling=balanced"]
CASES = {
    "as-it-is": Case([], LONG),
    "125-patients": Case(PATIENTS, [*LONG, *FEW]),
    "125-patients-confident": Case(PATIENTS, [*LONG, "--confidence", "0.5"], models_of="125-patients"),
    "125-patients-fine-tuned": Case(PATIENTS, [*LONG, *FEW, "--method", "fine-tuned"]),
    **{
        f"{count}-{method}": Case(
            ["--images", f"NORMAL={count}"],
            [*SHORT, *(FEW if count < 1000 else []), "--method", method],
            features=False,
        )
        for count in (100, 300, 1000)
        for method in METHODS
    },
    "virus-125-patients": Case(["--patients", "VIRUS=125"], [*LONG, *FEW], few="VIRUS"),
}
SCORES = {"auc": "auc", "balanced_accuracy": "balanced", "minority_recall": "recall_of_few", "brier_score": "brier"}
COMPARED = {
    "real": "real",
    "classical": "augmentation, oversampling",
    "synthetic": "augmentation, real and synthetic",
}
"""The arms whose scores stand in the table, named before any was tested; differences are of arms chosen as
`samgan.studies.compare` does."""
WAYS: dict[str, tuple[str, list[str]]] = {
    "of each class by itself": ("", TOLD),
    "of both classes": ("mixed-groups", TOLD),
    "of each class by itself, classes told bit by bit": ("fading-classes", TOLD),
    "of both classes, classes told bit by bit": ("mixed-groups,fading-classes", TOLD),
    "a model of NORMAL alone": ("", ["--classes", "NORMAL"]),
}
"""Of what minibatch std is; words for results/plus/tried.py, arguments of samgan train."""
COLLAPSE_KIMG, COLLAPSE_IMAGES = 60, 600
# fmt: off
COLUMNS = (
    "case", "method", "minutes", "kimg", "screened_by", "classifiers", "classifier_steps",
    "real", "synthetic", "candidates", "left_out",
    "frechet", "frechet_floor", "recall", "ms_ssim_gap", "closer_than_held_out", "membership_auc",
    *(f"{score}_{kind}" for score in SCORES.values() for kind in COMPARED),
    *(f"{score}_{what}" for score in SCORES.values() for what in ("difference", "low", "high", "verdict")),
)
# fmt: on


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    normal = [name for name, case in CASES.items() if case.few == "NORMAL"]
    for name in ("balance", "worth"):
        step = steps.add_parser(name)
        step.add_argument("data", type=Path)
        step.add_argument("work", type=Path)
        step.add_argument("--only", nargs="+", default=normal, metavar="NAME", choices=CASES, help=", ".join(CASES))
        if name == "balance":
            step.add_argument("--features", type=Path, required=True, help="TorchScript of the Inception that scores")
    step = steps.add_parser("collapse")
    step.add_argument("data", type=Path)
    step.add_argument("work", type=Path)
    step.add_argument("--features", type=Path, required=True, help="TorchScript of the Inception that scores")
    step.add_argument("--seeds", type=int, default=2, help="models of each way (default: 2)")
    step = steps.add_parser("table")
    step.add_argument("work", type=Path)
    options = parser.parse_args()
    options.work = options.work.resolve()
    if options.step == "table":
        table(options.work)
        return
    if options.step == "collapse":
        collapse(options)
        return
    if options.step == "worth":
        for name in options.only:
            worth(name, options.data, options.work)
        return
    failed = []
    for name in options.only:
        try:
            balance(name, options)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:  # hours of other cases are to follow
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {' '.join(failed)}")


def balance(name: str, options: argparse.Namespace) -> None:
    """Balance the set of one case, and score its model against all training images of the class."""
    case, data, out = CASES[name], options.data, options.work / name
    if case.subset:
        data = make_part(case, options.data, options.work)
    features = ["--features", options.features]
    models = ["--run", _model(options.work / case.models_of, case.few)] if case.models_of else []
    more = [*models, *(features if case.features else [])]
    samgan("balance", data, out, *case.arguments, "--device", "cpu", *more)
    if not (out / "against-all" / "scores.json").exists():
        asked = ["--data", options.data, "--classes", case.few, "--out", out / "against-all"]
        samgan("evaluate", _model(out, case.few), *asked, *features, "--device", "cpu")


def part_of(case: Case, work: Path) -> Path:
    """Where the training images of a case are, of a part of the set."""
    return work / "sets" / "-".join(case.subset).replace("--", "").replace("=", "-")


def make_part(case: Case, whole: Path, work: Path) -> Path:
    """The part of the set that a case has, made where it is not there."""
    part = part_of(case, work)
    if not part.exists():
        own = part.with_name(f"{part.name}.{os.getpid()}")  # another call may be making the same
        samgan("subset", whole, own, *case.subset)
        if part.exists():
            shutil.rmtree(own)
        else:
            own.rename(part)
    return part


def collapse(options: argparse.Namespace) -> None:
    """Train a small class beside a large one in the ways of `WAYS`; how alike its images are, and their scores."""
    data, rows = make_part(CASES["100-joint"], options.data, options.work), []
    for seed in range(options.seeds):
        for way, (ideas, more) in WAYS.items():
            out = options.work / "collapse" / f"{re.sub('[^A-Za-z]+', '-', way)}-{seed}"
            program = [HERE.parent / "plus" / "tried.py", ideas] if ideas else ["-m", "samgan"]
            if not (out / "scores" / "scores.json").exists():
                shutil.rmtree(out, ignore_errors=True)  # what an idea remembers is in no checkpoint
                length = [f"--training.kimg={COLLAPSE_KIMG}", f"--training.seed={seed}", "--device", "cpu"]
                run(*program, "train", data, "--out", out, *length, *FEW, *more)
                asked = ["--classes", "NORMAL", "--features", options.features, "--out", out / "scores"]
                run(
                    *program,
                    "evaluate",
                    out,
                    "--data",
                    options.data,
                    *asked,
                    "--checkpoint",
                    "newest",
                    "--device",
                    "cpu",
                )
            model = open_model(out)
            seeds = range(COLLAPSE_IMAGES)
            images = to_uint8(sample(model, seeds, model.labels(seeds, "NORMAL") if model.classes else None))
            again = int((first_alike(images) != torch.arange(len(images))).sum())
            scores = Scores.read(out / "scores" / "scores.json")
            assert scores.mode_collapse is not None
            row: dict[str, Any] = {"minibatch_std": way, "seed": seed, "duplicates": round(again / len(images), 4)}
            row |= {name: round(scores.scores[name].value, 4) for name in ("frechet", "precision", "recall")}
            rows.append({**row, "ms_ssim_gap": round(scores.mode_collapse.difference, 4)})
            print(rows[-1], flush=True)
            write(HERE / "collapse.csv", list(rows[0]), rows)


def worth(name: str, whole: Path, work: Path) -> None:
    """Scores of classifiers of real images only, of a case's images and of the whole set's; paired differences."""
    case, steps = CASES[name], int(CASES[name].arguments[CASES[name].arguments.index("--steps") + 1])
    sets = [PreparedSet.open(path) for path in (part_of(case, work), whole)]
    names, rows = sets[0].classes, []
    held_out = sets[1].indices("holdout", names)
    truth = sets[1].labels(names)[held_out]
    draw = np.random.default_rng(0)
    weights = resample([sets[1].manifest[i].patient for i in held_out], draw)
    chance = draw.standard_t(SEEDS - 1, size=len(weights) - 1)
    for arm in CLASSICAL:
        found = []
        for data in sets:
            label = np.concatenate([[k] * len(data.indices("train", [name])) for k, name in enumerate(names)])
            images = np.concatenate([data.select("train", [name]) for name in names])
            given = images, label, np.ones(len(label), bool), data.select("holdout", names), ARMS[arm], len(names)
            predicted = [classify(*given, seed=seed, steps=steps) for seed in range(SEEDS)]
            by_seed = [weighted_scores(p, truth, names.index(case.few), weights) for p in predicted]
            found.append({score: np.stack([one[score] for one in by_seed], axis=1) for score in SCORES})
        row: dict[str, Any] = {"arm": arm}
        for score in SCORES:
            few, every = (one[score] for one in found)
            row |= {score: round(float(few[0].mean()), 4), f"{score}_of_all": round(float(every[0].mean()), 4)}
            gain = interval(every - few, chance)
            row |= {f"{score}_{what}": round(getattr(gain, what), 4) for what in ("low", "high")}
        rows.append(row)
        print(row, flush=True)
    (HERE / name).mkdir(exist_ok=True)
    write(HERE / name / "worth.csv", list(rows[0]), rows)


def _model(case: Path, few: str) -> Path:
    """The model that makes the images of a class; the path of one that was given is whole."""
    return case / TrainingDocument.read(case / "training.json").models[few].path


def samgan(*arguments: object) -> None:
    """Run a command of samgan."""
    run("-m", "samgan", *arguments)


def run(*arguments: object) -> None:
    """Run a Python program."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


def table(work: Path) -> None:
    """Keep what every finished case came to, and write the table."""
    for name in CASES:
        if (work / name / "against-all" / "scores.json").exists():
            keep(work / name, HERE / name, pages=name in PAGES)
    kept = {name: HERE / name / "balance.json" for name in CASES}
    documents = {name: BalanceDocument.read(path) for name, path in kept.items() if path.exists()}
    write(HERE / "table.csv", COLUMNS, [describe(name, document) for name, document in documents.items()])
    ways = [row for name, document in documents.items() for row in arms(name, document)]
    write(HERE / "arms.csv", list(ways[0]), ways)
    print(f"{len(documents)} of {len(CASES)} cases in {HERE / 'table.csv'}")


def write(path: Path, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    """Write a table."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def arms(name: str, document: BalanceDocument) -> list[dict[str, Any]]:
    """The scores of every way to train the classifier, with 95 % intervals over patients and seeds."""
    utility = document.utility
    if utility is None:
        return []
    return [
        {"case": name, "arm": arm}
        | {
            f"{score}{suffix}": round(getattr(found[score], key), 4)
            for score in SCORES
            for suffix, key in (("", "mean"), ("_low", "low"), ("_high", "high"))
        }
        | {"calibration_error": round(utility.arms[arm].mean["calibration_error"], 4)}
        for arm, found in utility.intervals.items()
    ]


def keep(case: Path, out: Path, pages: bool) -> None:
    """Copy a finished case's document, with the scores against all training images in it, and its pages."""
    document = BalanceDocument.read(case / "balance.json")
    plan, training = document.plan, {}  # names of folders belong to this machine only
    plan = replace(
        plan,
        features=plan.features and Path(plan.features).name,
        runs={label: Path(path).name for label, path in plan.runs.items()},
    )
    folders = {f"{Path.home()}/": "~/"}
    for name, model in document.training.items():
        environment = Environment.read(case / model.path / "environment.json")
        training[name] = replace(model, path=Path(model.path).name, start=environment.start)
        folders |= {f"{Path(word).parent}/": "" for word in environment.command if Path(word).is_absolute()}
    against_all = Scores.read(case / "against-all" / "scores.json")
    document = replace(document, plan=plan, training=training, against_all=against_all)
    out.mkdir(exist_ok=True)
    texts = {out / "balance.json": json.dumps(document.to_dict(), indent=2) + "\n"}
    if pages:
        texts |= {out / page.relative_to(case): page.read_text("utf-8") for page in case.rglob("*.html")}
    for path, text in texts.items():
        for folder, short in folders.items():
            text = text.replace(folder, short)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def describe(name: str, document: BalanceDocument) -> dict[str, Any]:
    """One line of the table, of the class of few."""
    few = CASES[name].few
    counts, screening, plan = document.counts[few], document.screening[few], document.plan
    audit, scores, start = document.audit[few], document.against_all, document.training[few].start
    assert scores is not None
    assert scores.generated is not None
    assert scores.generated.images_seen is not None
    assert scores.mode_collapse is not None
    seen = (start.images_seen if start else 0) + scores.generated.images_seen
    frechet = scores.scores["frechet"]
    row: dict[str, Any] = {
        "case": name,
        "method": plan.method,
        "minutes": plan.minutes if plan.method != "given" else "",
        "kimg": round(seen / 1000, 1),
        "screened_by": "pixels, features" if screening.features else "pixels",
        "classifiers": plan.utility.seeds,
        "classifier_steps": plan.utility.steps,
        "real": counts.real,
        "synthetic": counts.synthetic,
        "candidates": screening.candidates,
        "left_out": " ".join(f"{reason} {count}" for reason, count in sorted(screening.left_out.items())),
        "frechet": round(frechet.value, 4),
        "frechet_floor": round(frechet.floor, 4),
        "recall": round(scores.scores["recall"].value, 4),
        "ms_ssim_gap": round(scores.mode_collapse.difference, 4),
        "closer_than_held_out": round(audit.pixels.closer.share.value, 4) if audit else "",
        "membership_auc": round(audit.membership.auc.value, 4) if audit and audit.membership else "",
    }
    return row | _compared(document)


def _compared(document: BalanceDocument) -> dict[str, Any]:
    """What the classifiers came to."""
    utility, row = document.utility, dict[str, Any]()
    if utility is None:
        return row
    for score, short in SCORES.items():
        decision = utility.decisions[score]
        row |= {f"{short}_{kind}": round(utility.intervals[arm][score].mean, 4) for kind, arm in COMPARED.items()}
        row |= {f"{short}_difference": round(decision.mean, 4)}
        row |= {f"{short}_low": round(decision.low, 4), f"{short}_high": round(decision.high, 4)}
        row[f"{short}_verdict"] = decision.verdict
    return row


if __name__ == "__main__":
    main()
