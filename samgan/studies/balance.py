"""From an imbalanced set to a balanced one, in stages that each leave a file behind.

plan.json, training.json (and the runs under `models`), scores/, screening.json and .csv, audit/, set/, utility/ and
report.html: a stage whose file is there is not done again.
"""

import csv
import dataclasses
import functools
import hashlib
import io
import json
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from samgan import __version__, api
from samgan.config import Config
from samgan.data import PreparedSet
from samgan.devices import choose_device
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write, write_json
from samgan.metrics.features import extract, find_features
from samgan.pages import markdown_table, picture
from samgan.pages.legacy import section, table, text, write_page
from samgan.pictures import RESEARCH_ONLY, to_integers, to_uint8, write_png
from samgan.provenance import FORMATS, SET_FORMATS, Sample
from samgan.runs import Run
from samgan.sampling import Model, check_origin, open_model, sample, sample_batches
from samgan.scoring import schema_0
from samgan.studies.classifier import ARMS, predict, train_classifier
from samgan.studies.downstream import check_held_out, differences_chart, utility, utility_sentences
from samgan.trust import Record, Screen, audit, check_enough, describe, write_card

METHODS = ("joint", "per-class", "fine-tuned")
NAMES = "surrogateescape"  # files may have names that are no UTF-8
CANDIDATES = 5
"""Images made for each one that is missing, at most."""
SHOWN = 40
SWD_TIMES, COLLAPSE_GAP = 3.0, 0.05
"""What a model's scores are to stay below; samgan-plus has 2.1 and +0.03 after 20 kimg of 3,080 X-rays."""
MANIFEST = (
    *("file", "split", "class", "origin", "patient", "source", "source_sha256", "seed", "model_sha256"),
    *("nearest_training_image", "distance_pixels", "distance_features", "confidence"),
)
HEADER = ("class", "real", "synthetic", "candidates", "left out", "Frechet (floor)", "recall", "MS-SSIM gap")
LIMITS = (
    "Scores are of images as they come, against training images of the class. What is said of a classifier holds for "
    "these patients, this size of image and this network; images of another hospital may tell otherwise."
)
NOTES = (
    RESEARCH_ONLY,
    "This page contains REAL and SYNTHETIC images. Share it as the data's terms allow, and not otherwise.",
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be made, and how: what a later call with the same folder has to ask for again."""

    samgan: str
    data: dict[str, Any]
    target: str
    classes: dict[str, dict[str, int]]
    """By class: `real` training images, `missing` ones."""
    method: str
    runs: dict[str, str]
    """By class, or "" for all: models that were given; the others are trained."""
    minutes: float
    config: dict[str, Any]
    features: str | None
    confidence: float
    file_format: str
    originals: str | None
    copies: bool
    utility: dict[str, int]

    @property
    def missing(self) -> dict[str, int]:
        """Images to make, of the classes that lack some."""
        return {name: counts["missing"] for name, counts in self.classes.items() if counts["missing"]}


def missing_images(counts: Mapping[str, int], target: str) -> dict[str, int]:
    """How many images each class lacks.

    Args:
        counts: Training images by class.
        target: "equal": as many as the largest class has; a whole number: at least so many; a number with a point,
            above 0 and up to 1: that share of the largest class.

    Raises:
        UsageError: Another target, or one that every class has reached.
    """
    largest = max(counts.values())
    try:
        wanted = (
            largest if target == "equal" else int(target) if target.isdigit() else math.ceil(float(target) * largest)
        )
        if wanted < 1 or (not target.isdigit() and wanted > largest):
            raise ValueError
    except (ValueError, OverflowError):
        raise UsageError(
            f"--target {target}: expected equal, a number of images such as 2000, or a share of the largest class "
            "such as 0.5"
        ) from None
    missing = {name: max(0, wanted - count) for name, count in counts.items()}
    if not any(missing.values()):
        there = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(f"--target {target}: no class has fewer than {wanted} training images ({there})")
    return missing


def balance(
    data: PreparedSet,
    out: Path,
    config: Config,
    *,
    target: str = "equal",
    classes: Sequence[str] = (),
    method: str = "joint",
    runs: Mapping[str, Path] | None = None,
    minutes: float = 60.0,
    features: str | None = None,
    inception_weights: Path | None = None,
    confidence: float = 0.0,
    file_format: str = "png",
    originals: Path | None = None,
    copies: bool = False,
    seeds: int = 5,
    steps: int = 500,
    device: str = "auto",
) -> tuple[dict[str, Any], Path]:
    """Make the images that classes lack, screen and audit them, write the set, and test whether it helps a classifier.

    Args:
        data: Prepared set with two classes or more; its held-out images are looked at by scores, audit and utility
            alone, and no image is made or chosen by them.
        out: The folder: new, or one that a call with the same arguments has begun.
        config: Of the models to train, from `preset_config`; classes are set by the method.
        target: As for `missing_images`.
        classes: Classes of the set; default: all.
        method: "joint": one model that is told of classes, which sees all of them equally often; "per-class": one for
            each class that lacks images, of its images alone; "fine-tuned": one of all images, not told of classes,
            and from it one for each class that lacks images.
        runs: Models to take instead, trained on this very set: by class, or under "" for all.
        minutes: Training in all, shared evenly among the models; fine-tuning has half of it.
        features: "inception" or a module file, for scores, screening and audit; default: the standard Inception, if it
            can be had.
        inception_weights: A file of the Inception's weights, where there is no network.
        confidence: Also leave out images whose class a classifier of the real training images holds for less likely
            than this; 0: do not ask one.
        file_format: Of synthetic images: one of `SET_FORMATS`.
        originals: The folder that `data` was prepared from, to put its files into the set; default: the prepared
            images as PNG.
        copies: Copy the originals instead of linking to them.
        seeds: Classifiers per arm of the utility test; 0 leaves it out.
        steps: Steps of each.
        device: Where networks run.

    Returns:
        The document (`plan`, `screening`, `scores`, `audit`, `utility`, `skipped`) and the report's path.

    Raises:
        UsageError: What is asked for cannot be had, or differs from what the folder was begun with.
        SamganError: Too few training images of a class that lacks some, or too few held-out ones; or a stage failed:
            what is finished stays, and the next call goes on from there.
    """
    names = list(dict.fromkeys(classes)) or data.classes
    for flag, value, known in (("method", method, METHODS), ("format", file_format, SET_FORMATS)):
        if value not in known:
            raise UsageError(f"--{flag} {value}: expected one of {', '.join(known)}")
    if not 0 <= confidence < 1 or minutes <= 0:
        raise UsageError(
            f"--confidence {confidence:g} --minutes {minutes:g}: expected 0 to below 1, and more than 0 minutes"
        )
    if seeds < 0 or seeds == 1 or steps < 1:
        raise UsageError(f"--seeds {seeds} --steps {steps}: expected 2 or more seeds, or 0, and 1 or more steps")
    if file_format.endswith("16") and data.channels != 1:
        raise UsageError(f"--format {file_format}: 16 bit is written of one channel, {data.path} has {data.channels}")
    if len(names) < 2:
        raise UsageError(f"{data.path} has one class here ({', '.join(names)}): two or more can be balanced")
    data.verify()
    counts = {name: len(data.indices("train", [name])) for name in names}
    missing = missing_images(counts, target)
    runs = dict(runs or {})
    _check_runs(runs, data, [name for name, count in missing.items() if count])
    for name in (name for name, count in missing.items() if count):
        check_enough(data.groups(data.indices("train", [name])))
    if seeds:
        try:
            check_held_out(data, names)
        except SamganError as error:
            raise SamganError(f"{error}, or leave the test out with --seeds 0") from None
    if originals:
        _check_originals(originals, data, names)
    device = choose_device(device)
    # What is named and cannot be had is told now, not in an hour.
    find_features(features, inception_weights=inception_weights, device=device)
    plan = Plan(
        samgan=__version__,
        data={"name": data.path.resolve().name, "sha256": data.sha256, "split_by": data.info.split_by},
        target=target,
        classes={name: {"real": counts[name], "missing": missing[name]} for name in names},
        method="given" if runs else method,
        runs={name: str(path) for name, path in runs.items()},
        minutes=minutes,
        config=config.to_dict(),
        features=str(features) if features else None,
        confidence=confidence,
        file_format=file_format,
        originals=str(originals) if originals else None,
        copies=copies,
        utility={"seeds": seeds, "steps": steps},
    )
    _keep(plan, out)
    work = _Work(data, out, plan, device, inception_weights)
    document: dict[str, Any] = {"plan": dataclasses.asdict(plan)}
    document["training"] = _stage(out / "training.json", "training", lambda: _train(work, config, device))
    work.models = document["training"]
    document["scores"] = {name: _scores(work, name) for name in plan.missing}
    document["screening"] = _stage(out / "screening.json", "screening", lambda: _screen(work))
    document["audit"] = {name: _audit(work, name) for name in plan.missing}
    _write_set(work, originals)
    document["utility"] = _utility(work, seeds, steps)
    document["skipped"] = work.skipped
    document["counts"] = {
        name: {"real": counts["real"], "synthetic": document["screening"].get(name, {}).get("kept", 0)}
        for name, counts in plan.classes.items()
    }
    _write_cards(work, document)
    page = out / "report.html"
    _write_report(work, document, page)
    write_json(out / "balance.json", document)
    return document, page


class _Work:
    """What the stages share."""

    def __init__(self, data: PreparedSet, out: Path, plan: Plan, device: str, inception_weights: Path | None) -> None:
        self.data, self.out, self.plan, self.device = data, out, plan, device
        self.models: dict[str, dict[str, Any]] = {}
        self.skipped: list[dict[str, str]] = []
        self.inception_weights = inception_weights
        self.names = list(plan.classes)

    @property
    def of_features(self) -> dict[str, Any]:
        return {"features": self.plan.features, "inception_weights": self.inception_weights}

    def optional(self, path: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A stage that others do without: where it cannot be done the report says why, and nothing is returned."""
        try:
            return _stage(path, name, make)
        except UsageError:
            raise
        except SamganError as error:
            self.skipped.append({"what": name, "reason": str(error)})
            return {}

    def model(self, name: str) -> Model:
        """The model that makes images of a class."""
        path, sha256 = self.path(name), self.models[name]["sha256"]
        model = open_model(path, device=self.device)
        if model.sha256 != sha256:
            raise SamganError(
                f"{path} is not the model any more that {self.out} was begun with (sha256 {model.sha256[:12]}, not "
                f"{sha256[:12]}); name a new folder"
            )
        return model

    def path(self, name: str) -> Path:
        """Where the model of a class is."""
        found = self.models[name]
        return Path(found["path"]) if found["given"] else self.out / found["path"]

    def kept(self, name: str) -> list[dict[str, str]]:
        """Rows of screening.csv of the images that stay."""
        with open(self.out / "screening.csv", newline="", encoding="utf-8", errors=NAMES) as file:
            return [row for row in csv.DictReader(file) if row["class"] == name and not row["reason"]]

    def images(self, name: str, count: int | None = None) -> UInt8[np.ndarray, "n c h w"]:
        """The synthetic images that stay, or the first `count` of them."""
        model, seeds = self.model(name), [int(row["seed"]) for row in self.kept(name)[:count]]
        if not seeds:
            return np.empty((0, *self.data.images.shape[1:]), np.uint8)
        return to_uint8(sample(model, seeds, _labels(model, seeds, name))).numpy()

    def counterparts(self, count: int) -> dict[str, UInt8[np.ndarray, "n c h w"]]:
        """Synthetic images, unscreened, of the classes that lack none: by a model that is told of every class."""
        others = [name for name in self.names if name not in self.plan.missing]
        model = self.model(next(iter(self.plan.missing)))
        if not set(others) <= set(model.classes):
            return {}
        return {
            name: to_uint8(sample(model, range(count), _labels(model, range(count), name))).numpy() for name in others
        }


def _labels(model: Model, seeds: Sequence[int], name: str) -> Tensor | None:
    return model.labels(seeds, name) if model.classes else None


def _stage(path: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a stage found: from its file, or by doing it and writing the file."""
    if path.is_file():
        return _read(path, "remove it, and the stage is done again")
    print(f"samgan: {name}", file=sys.stderr, flush=True)
    document = make()
    write_json(path, document)
    return document


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise SamganError(f"{path} is damaged ({error}); {remedy}") from None


# --- plan


def _check_runs(runs: Mapping[str, Path], data: PreparedSet, lacking: Sequence[str]) -> None:
    """Refuse models of other classes, and those that may have seen held-out patients."""
    if runs and set(runs) not in ({""}, set(lacking)):
        raise UsageError(f"--run: expected one model that is told of all classes, or CLASS=RUN of {', '.join(lacking)}")
    for name in lacking if runs else ():
        path = runs.get(name) or runs[""]
        model = open_model(path)
        check_origin(model, path, data)
        config = model.config
        learnt = config.data.classes
        if name not in learnt or (len(learnt) > 1 and not config.network.num_classes):
            told = "" if config.network.num_classes else ", without being told which is which"
            raise UsageError(
                f"{path} cannot make images of {name}: it was trained on {', '.join(learnt) or 'all classes'}{told}"
            )


def _keep(plan: Plan, out: Path) -> None:
    """Write the plan, or compare it with the one that is there."""
    path, asked = out / "plan.json", json.loads(json.dumps(dataclasses.asdict(plan)))
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SamganError(f"{out} exists, is not empty and was not begun by samgan balance; name a new folder")
        write_json(path, asked)
        return
    before = _read(path, "name a new folder")
    try:
        before["config"] = Config.from_dict(before["config"]).to_dict()  # an earlier version had fewer settings
    except (KeyError, UsageError) as error:
        raise SamganError(f"{path} is of another version of samgan ({error}); name a new folder") from None
    for key, value in asked.items():
        if key not in ("samgan", "utility") and before.get(key) != value:
            raise UsageError(
                f"{out} was begun with another {key} ({_short(before.get(key))}, not {_short(value)}): "
                "ask for the same again, or name a new folder"
            )
    if before.get("utility") != asked["utility"]:  # it is the last stage, and may be done anew
        (out / "utility" / "utility.json").unlink(missing_ok=True)
        write_json(path, {**before, "utility": asked["utility"]})


def _short(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) < 80 else f"{shown[:77]}..."


# --- training


def _train(work: _Work, config: Config, device: str) -> dict[str, Any]:
    """Train what the method says; by class `path`, whether it was `given`, `sha256` of the weights, `notes`."""
    plan, lacking = work.plan, list(work.plan.missing)

    def described(path: str, given: bool = False) -> dict[str, Any]:
        source = Path(path) if given else work.out / path
        model = open_model(source)
        notes = check_origin(model, source, work.data)
        return {"path": path, "given": given, "sha256": model.sha256, "notes": notes}

    if plan.runs:
        return {name: described(plan.runs.get(name) or plan.runs[""], given=True) for name in lacking}
    common = {"network.num_classes": 0, "data.classes": work.names}

    def train(name: str, settings: dict[str, Any], minutes: float, start: Path | None = None) -> str:
        path = work.out / "models" / name
        begun = (path / "config.json").is_file()
        if not begun or not Run.open(path).is_over(minutes):
            own = config.override({**common, **settings})
            api.train(own, work.data, path, resume=begun, minutes=minutes, device=device, start=start)
        return f"models/{name}"

    if plan.method == "joint":
        told = {"network.num_classes": len(work.names), "data.class_sampling": "balanced"}
        path = train("joint", told, plan.minutes)
        return {name: described(path) for name in lacking}
    share, start = plan.minutes / len(lacking), None
    if plan.method == "fine-tuned":
        share /= 2
        start = work.out / train("all", {}, plan.minutes / 2)
    # A class's name may hold what a folder's may not.
    folders = {name: f"class-{work.names.index(name)}" for name in lacking}
    return {name: described(train(folders[name], {"data.classes": [name]}, share, start)) for name in lacking}


def _scores(work: _Work, name: str) -> dict[str, Any]:
    """Scores of a class's model against its real training images, beside the floor."""
    folder = work.out / "scores" / f"class-{work.names.index(name)}"

    def make() -> dict[str, Any]:
        scores, _ = api.evaluate(
            work.path(name), work.data, classes=[name], out=folder, device=work.device, **work.of_features
        )
        return schema_0(scores)

    return work.optional(folder / "scores.json", f"scores of {name}", make)


# --- screening


def _screen(work: _Work) -> dict[str, Any]:
    """Make candidates until enough of them stay; writes screening.csv."""
    plan, data = work.plan, work.data
    indices = data.indices("train", work.names)
    training = torch.from_numpy(np.asarray(data.images[indices]))
    patients = data.groups(indices)
    labels = data.labels(work.names)[indices]
    extractor, _ = find_features(plan.features, inception_weights=work.inception_weights, device=work.device)
    classifier = None
    if plan.confidence:
        arm, number = ARMS["augmentation, oversampling"], len(work.names)
        classifier = train_classifier(training.numpy(), labels, arm, number, seed=0, steps=500, device=work.device)
    found, rows = {}, []
    kept: list[Tensor] = []  # of all classes: models that tell them badly apart make one image for two of them
    of_training = None if extractor is None else extract(extractor, training)
    for name, missing in plan.missing.items():
        label = work.names.index(name)
        screen = Screen(
            training,
            np.flatnonzero(labels == label),
            patients,
            features=of_training,
            # Nobody will ask for the features of candidates again.
            extract=None if extractor is None else functools.partial(extract, extractor, cache=False),
            classify=None if classifier is None else functools.partial(_probability, classifier, label),
            confidence=plan.confidence,
        )
        own = list(_candidates(screen, work.model(name), name, missing, kept))
        reasons = Counter(row["reason"] for row in own)
        for row in own:
            row["nearest_training_image"] = data.manifest[indices[row["nearest_training_image"]]].source
        rows += own
        found[name] = {
            "missing": missing,
            "candidates": len(own),
            "kept": reasons.pop("", 0),
            "left_out": dict(reasons),
            "features": extractor.name if extractor else None,
            "rules": screen.rules(),
        }
    columns = ("class", "seed", "reason", *MANIFEST[-4:])
    with atomic_write(work.out / "screening.csv") as file:
        file.write(_csv(columns, rows).encode("utf-8", NAMES))
    return found


def _probability(classifier: torch.nn.Module, label: int, images: np.ndarray) -> np.ndarray:
    return predict(classifier, images)[:, label]


def _candidates(screen: Screen, model: Model, name: str, missing: int, kept: list[Tensor]) -> Iterator[dict[str, Any]]:
    """Rows of screening.csv, of the seeds 0, 1, ... until `missing` images stay; the last row is of one that does.

    `kept` are images that stay, and grows by them.
    """
    seed, still, rate = 0, missing, 1.0
    while still and seed < CANDIDATES * missing:
        seeds = range(seed, min(seed + math.ceil(still / max(rate, 0.1)), CANDIDATES * missing))
        images = to_uint8(sample(model, seeds, _labels(model, seeds, name)))
        screened = screen(images, torch.cat(kept) if kept else None)
        for place, reason in enumerate(screened.reason):
            if not still:
                return
            row = {
                "class": name,
                "seed": seeds[place],
                "reason": reason,
                "nearest_training_image": int(screened.nearest[place]),
                **{f"distance_{space}": f"{values[place]:.4f}" for space, values in screened.distance.items()},
            }
            if screened.confidence is not None:
                row["confidence"] = f"{screened.confidence[place]:.4f}"
            yield row
            if not reason:
                kept.append(images[place : place + 1])
                still -= 1
        seed = seeds.stop
        rate = (missing - still) / seed


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


# --- audit


def _audit(work: _Work, name: str) -> dict[str, Any]:
    """Look for signs of memorisation in the images of a class as they come, before screening."""
    folder = work.out / "audit" / f"class-{work.names.index(name)}"

    counts = work.plan.classes[name]

    def make() -> dict[str, Any]:
        count = max(counts["missing"], counts["real"])  # few copies are seen only where many images are looked at
        document, _ = audit(
            work.path(name), work.data, count=count, classes=[name], out=folder, device=work.device, **work.of_features
        )
        return document

    return work.optional(folder / "audit.json", f"audit of {name}", make)


# --- the set


def _check_originals(originals: Path, data: PreparedSet, names: Sequence[str]) -> None:
    """Refuse originals that are not there, before the long part."""
    for index in data.indices(None, names):
        row = data.manifest[index]
        path = originals / row.source
        if not path.is_file():
            raise UsageError(f"--originals {originals}: {row.source} is not there; name the folder that was prepared")


def _write_set(work: _Work, originals: Path | None) -> None:
    """Write the folder `set`, which appears when it is complete."""
    target = work.out / "set"
    if (target / "manifest.json").is_file():
        return
    print("samgan: writing the set", file=sys.stderr, flush=True)
    for left in work.out.glob(".set.*.tmp"):  # of a call that was killed; it holds images of patients
        shutil.rmtree(left)
    temporary = work.out / f".set.{os.getpid()}.tmp"
    try:
        rows = [*_write_real(work, temporary, originals), *_write_synthetic(work, temporary)]
        (temporary / "manifest.csv").write_text(_csv(MANIFEST, rows), encoding="utf-8", errors=NAMES)
        # The set may be given away: names of folders stay here.
        plan = dataclasses.asdict(work.plan) | {
            "runs": {name: Path(path).name for name, path in work.plan.runs.items()},
            "features": _name(work.plan.features),
            "originals": _name(work.plan.originals),
        }
        document = {"samgan": __version__, "plan": plan, "images": rows}
        write_json(temporary / "manifest.json", document)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _name(path: str | None) -> str | None:
    return Path(path).name if path else None


def _write_cards(work: _Work, document: Mapping[str, Any]) -> None:
    """A data card of the set, and a model card of every model that was trained here."""
    counts = {name: count["synthetic"] for name, count in document["counts"].items()}
    of_set = _record(work, document, list(work.models), synthetic=counts, screening=document["screening"])
    write_card(work.out / "set" / "DATA_CARD.md", of_set)
    classes: dict[Path, list[str]] = {}
    for name, model in work.models.items():
        if not model["given"]:
            classes.setdefault(work.path(name), []).append(name)
    for path, names in classes.items():
        write_card(path / "MODEL_CARD.md", _record(work, document, names))


def _record(work: _Work, document: Mapping[str, Any], names: Sequence[str], **more: Any) -> Record:
    """What is known of the images of some classes; where several models made them their cards tell the rest."""
    model, scores = {}, [document["scores"][name] for name in names]
    if len({work.models[name]["sha256"] for name in names}) == 1:
        model = describe(work.model(names[0]))
        if (path := work.path(names[0])).is_dir():
            model["environment"] = Run.open(path).environment.to_dict()
    verdicts = [f"{name}: {found['verdict']}" for name in names if (found := document["audit"][name])]
    return Record(
        data={**work.data.info.to_dict(), "counts": {name: work.data.info.counts[name] for name in work.names}},
        scores=scores[0] if len(scores) == 1 else {},  # of several classes the folder `scores` tells
        audit={"verdict": " ".join(verdicts)},
        utility=document["utility"],
        **model,
        **more,
    )


def _write_real(work: _Work, folder: Path, originals: Path | None) -> Iterator[dict[str, Any]]:
    for index in work.data.indices(None, work.names):
        row = work.data.manifest[index]
        where = folder / row.split / row.class_name
        where.mkdir(parents=True, exist_ok=True)
        if originals is None:
            path = where / f"real-{index:06d}.png"
            with open(path, "wb") as file:
                write_png(file, work.data.images[index], {"Description": "Real image, as samgan prepare made it."})
        else:
            source = (originals / row.source).resolve()
            found = hashlib.sha256(source.read_bytes()).hexdigest()
            if found != row.sha256:
                raise SamganError(
                    f"{source} is not the file that was prepared (sha256 {found[:12]}, not {row.sha256[:12]})"
                )
            path = where / f"real-{index:06d}-{Path(row.source).name}"
            if work.plan.copies:
                shutil.copyfile(source, path)
            else:
                path.symlink_to(source)
        yield {
            "file": path.relative_to(folder).as_posix(),
            "split": row.split,
            "class": row.class_name,
            "origin": "real",
            "patient": row.patient,
            "source": row.source,
            "source_sha256": row.sha256,
        }


def _write_synthetic(work: _Work, folder: Path) -> Iterator[dict[str, Any]]:
    chosen = FORMATS[work.plan.file_format]
    for name in work.plan.missing:
        where = folder / "train" / name
        kept = work.kept(name)
        if not kept:
            continue
        model, seeds = work.model(name), [int(row["seed"]) for row in kept]
        labels = _labels(model, seeds, name)
        label = None if labels is None else int(labels[0])
        samples = [
            Sample(image, model.mark(seed, label).of(image))
            for few, images in sample_batches(model, seeds, labels)
            for seed, image in zip(few, to_integers(images, chosen.bits), strict=True)
        ]
        before = set(where.iterdir())
        chosen.write(where, samples, len(samples))
        files = sorted(path.relative_to(folder).as_posix() for path in set(where.iterdir()) - before)
        for path, row in zip(files, sorted(kept, key=lambda row: int(row["seed"])), strict=True):
            yield {
                "file": path,
                "split": "train",
                "class": name,
                "origin": "synthetic",
                "seed": row["seed"],
                "model_sha256": model.sha256,
                **{key: row[key] for key in MANIFEST[-4:]},
            }


# --- utility and report


def _utility(work: _Work, seeds: int, steps: int) -> dict[str, Any]:
    """Test on held-out patients whether the images that stay help a classifier."""
    if not seeds:
        return {}
    folder = work.out / "utility"
    path = folder / "utility.json"
    if path.is_file() and "decisions" not in _read(path, "remove it, and the stage is done again"):
        path.unlink()  # of an earlier version; most of it is in the cache

    def make() -> dict[str, Any]:
        synthetic = {name: work.images(name) for name in work.plan.missing}
        if none := [name for name, images in synthetic.items() if not len(images)]:
            raise SamganError(f"no synthetic image of {none[0]} was fit to stay")
        beside = {name: len(synthetic.get(name, ())) for name in work.names}
        synthetic |= work.counterparts(max(beside.values()))
        document, _ = utility(
            work.data,
            synthetic,
            folder,
            classes=work.names,
            beside=beside,
            seeds=seeds,
            steps=steps,
            device=work.device,
        )
        return document | {"models": {name: model["sha256"] for name, model in work.models.items()}}

    return work.optional(path, "utility", make)


def format_balance(document: dict[str, Any]) -> str:
    """What `samgan balance` prints."""
    return "\n".join([*markdown_table(HEADER, _rows(document)), "", *_sentences(document)])


def _rows(document: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, counts in document["counts"].items():
        screening, scores = document["screening"].get(name), document["scores"].get(name) or {}
        if screening is None:
            yield (name, str(counts["real"]), "0", *["-"] * 5)
            continue
        left_out = ", ".join(f"{count} {reason}" for reason, count in screening["left_out"].items()) or "none"
        frechet, recall, gap = scores.get("frechet"), scores.get("recall"), scores.get("mode_collapse")
        yield (
            name,
            str(counts["real"]),
            str(counts["synthetic"]),
            str(screening["candidates"]),
            left_out,
            f"{frechet['value']:.3f} ({frechet['floor']:.3f})" if frechet else "-",
            f"{recall['value']:.3f}" if recall else "-",
            f"{gap['difference']:+.3f}" if gap else "-",
        )


def _doubts(scores: Mapping[str, Any]) -> list[str]:
    """What speaks against a model as a whole, which no look at single images tells."""
    swd, collapse = scores["swd"]["mean"], scores["mode_collapse"]
    doubts = []
    if swd["value"] > SWD_TIMES * swd["floor"]:
        doubts.append(
            f"its sliced Wasserstein distance is {swd['value'] / swd['floor']:.1f} times that of real images, more "
            f"than {SWD_TIMES:g}"
        )
    if collapse["low"] > 0 and collapse["difference"] > COLLAPSE_GAP:
        doubts.append(f"its images are more alike than real ones (MS-SSIM {collapse['difference']:+.3f})")
    return doubts


def _sentences(document: dict[str, Any]) -> Iterator[str]:
    yield from dict.fromkeys(note for model in document["training"].values() for note in model["notes"])
    for name, scores in document["scores"].items():
        if scores and (doubts := _doubts(scores)):
            yield (
                f"The model of {name} is not there yet: {' and '.join(doubts)}. Train longer; screening does not "
                "mend it."
            )
    for name, found in document["screening"].items():
        if found["kept"] < found["missing"]:
            yield (
                f"{name}: {found['kept']} of {found['missing']} missing images; of {found['candidates']} candidates no "
                "more were fit to stay. Train longer, or ask for fewer with --target."
            )
        if not found["features"]:
            yield (
                f"{name} was screened by pixels alone, for want of features (in a new folder: --features FILE.pt "
                "--run RUN, with the models that are here)."
            )
    for name, found in document["audit"].items():
        if found:
            yield f"Audit of {name}, before screening: {found['verdict']}"
    if document["utility"]:
        yield from utility_sentences(document["utility"])
    for left_out in document["skipped"]:
        yield f"Left out: {left_out['what']} ({left_out['reason']})."


def _write_report(work: _Work, document: dict[str, Any], page: Path) -> None:
    plan, parts = work.plan, []
    sentences = "".join(f"<p>{text(line)}</p>" for line in _sentences(document))
    parts.append(section("What was made", table(HEADER, _rows(document)) + sentences))
    facts = {
        "prepared set": f"{plan.data['name']}, sha256 {plan.data['sha256'][:12]}, split by {plan.data['split_by']}",
        "target": plan.target,
        "method": plan.method,
        "training": "given models" if plan.runs else f"{plan.minutes:g} minutes, preset {plan.config['preset']}",
        "synthetic images": plan.file_format,
        "real images": f"files of {_name(plan.originals)}" if plan.originals else "as prepared, PNG",
        "samgan": plan.samgan,
    }
    parts.append(section("The plan", table(("", ""), facts.items())))
    for name, found in document["screening"].items():
        left_out = "".join(f"<li>{text(rule)}</li>" for rule in found["rules"])
        parts.append(
            section(f"Screening of {text(name)}", f"<p>Left out, of {found['candidates']}:</p><ul>{left_out}</ul>")
        )
        shown = work.images(name, SHOWN)
        real = work.data.select("train", [name])
        real = real[np.random.default_rng(0).permutation(len(real))[:SHOWN]]
        figures = picture(real, 8, f"Real, {name}", "Drawn at random.", description="Real training images.")
        if len(shown):
            figures = (
                picture(shown, 8, f"Synthetic, {name}", "The first that stayed.", description="Synthetic images.")
                + figures
            )
        parts.append(section(f"Images of {text(name)}", f'<div class="row">{figures}</div>', "wide"))
    if document["utility"]:
        chart = differences_chart(document["utility"])
        parts.append(section("Whether they help a classifier", f'<div class="row">{chart}</div>', "wide"))
    pages = [path for folder in ("scores", "audit", "utility") for path in (work.out / folder).rglob("*.html")]
    names = sorted(text(path.relative_to(work.out).as_posix()) for path in pages)
    links = "".join(f'<li><a href="{name}">{name}</a></li>' for name in names)
    parts.append(section("More", f"<ul>{links}</ul><p>{text(LIMITS)}</p>"))
    write_page(page, "samgan: a balanced set", parts, NOTES)
