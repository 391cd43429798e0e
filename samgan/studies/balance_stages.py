"""The stages of `samgan balance` up to the set: models, their scores, screening, audits."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from samgan.config import Config
from samgan.data import PreparedSet
from samgan.documents import Document
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write, remove_leftovers
from samgan.metrics.features import extract
from samgan.metrics.load_features import choose_features
from samgan.pictures import to_uint8
from samgan.runs import Run
from samgan.sampling import Labels, Model, check_origin, open_model, sample
from samgan.scoring import Scores, evaluate
from samgan.studies.balance_documents import (
    Candidate,
    Plan,
    TrainedModel,
    TrainingDocument,
    format_csv,
    read_candidates,
)
from samgan.studies.classifier import ARMS, predict, train_classifier
from samgan.terminal import say
from samgan.training import train
from samgan.trust import AuditDocument, Screen, ScreenedClass, ScreeningDocument, audit
from samgan.trust.documents import SkippedPart

CANDIDATES = 5
"""At most this many candidates are made for each missing image."""

D = TypeVar("D", bound=Document)


class Work:
    """What the stages share: the set, the folder, the plan and the models."""

    def __init__(self, data: PreparedSet, out: Path, plan: Plan, device: str, features_file: Path | None) -> None:
        self.data, self.out, self.plan, self.device = data, out, plan, device
        self.models: dict[str, TrainedModel] = {}
        self.skipped: list[SkippedPart] = []
        self.features_file = features_file
        self.of_features: dict[str, Any] = {"features": plan.features, "features_file": features_file}
        self.names = list(plan.classes)

    def folder(self, kind: str, name: str) -> Path:
        """Where the documents of a class go; a class's name may contain characters that a folder's name must not."""
        return self.out / kind / f"class-{self.names.index(name)}"

    def optional(self, path: Path, name: str, kind: type[D], make: Callable[[], D]) -> D | None:
        """Do a stage that no other stage needs; if it fails, the report says why."""
        try:
            return stage(path, name, kind, make)
        except UsageError:
            raise
        except SamganError as error:
            self.skipped.append(SkippedPart(name, str(error)))
            return None

    def model(self, name: str) -> Model:
        """The model that makes images of a class."""
        path, sha256 = self.path(name), self.models[name].sha256
        model = open_model(path, device=self.device)
        if model.sha256 != sha256:
            raise SamganError(
                f"{path} is no longer the model that {self.out} was begun with (sha256 {model.sha256[:12]}, not "
                f"{sha256[:12]}); name a new folder"
            )
        return model

    def path(self, name: str) -> Path:
        """Where the model of a class is."""
        found = self.models[name]
        return Path(found.path) if found.given else self.out / found.path

    def kept(self, name: str) -> list[Candidate]:
        """The candidates of a class that were kept."""
        rows = read_candidates(self.out / "screening.csv")
        return [row for row in rows if row.class_name == name and not row.reason]

    def images(self, name: str, count: int | None = None) -> UInt8[np.ndarray, "n c h w"]:
        """The synthetic images that were kept, or the first `count` of them."""
        model, seeds = self.model(name), [row.seed for row in self.kept(name)[:count]]
        if not seeds:
            return np.empty((0, *self.data.images.shape[1:]), np.uint8)
        return to_uint8(sample(model, seeds, labels_of(model, seeds, name))).numpy()

    def counterparts(self, count: int) -> dict[str, UInt8[np.ndarray, "n c h w"]]:
        """Unscreened synthetic images of the classes that lack none, if a model was told every class."""
        others = [name for name in self.names if name not in self.plan.missing]
        model = self.model(next(iter(self.plan.missing)))
        if not set(others) <= set(model.classes):
            return {}
        return {
            name: to_uint8(sample(model, range(count), labels_of(model, range(count), name))).numpy() for name in others
        }


def labels_of(model: Model, seeds: Sequence[int], name: str) -> Labels:
    """Labels of one class, for a model that was told the class."""
    return model.labels(seeds, name) if model.classes else None


def stage(path: Path, name: str, kind: type[D], make: Callable[[], D]) -> D:
    """Return what a stage found: read its file, or do the stage and write the file."""
    if path.is_file():
        remove_leftovers(path)  # of a call that was killed when it wrote the file anew
        return kind.read(path)
    say(f"samgan: {name}")
    document = make()
    document.write(path)
    return document


def check_classes(path: Path, found: Mapping[str, object], plan: Plan) -> None:
    """Refuse a file of a stage that does not have exactly the classes that lack images.

    Raises:
        SamganError: The file was edited.
    """
    if set(found) != set(plan.missing):
        raise SamganError(
            f"{path}: expected the classes that lack images in plan.json ({', '.join(plan.missing)}), found "
            f"{', '.join(found) or 'none'}; remove it, and run the same command again"
        )


def check_screening(out: Path, found: Mapping[str, ScreenedClass], plan: Plan) -> None:
    """Refuse screening.json and screening.csv if they do not agree with each other and with the plan.

    Raises:
        SamganError: One of them was edited, or is missing.
    """
    path = out / "screening.json"
    check_classes(path, found, plan)
    rows = read_candidates(out / "screening.csv")
    for name, screened in found.items():
        own = [row for row in rows if row.class_name == name]
        reasons = Counter(row.reason for row in own)
        counts = plan.missing[name], len(own), reasons.pop("", 0), reasons
        told = screened.missing, screened.candidates, screened.kept, screened.left_out
        # Candidates have seeds 0, 1, ..., so a repeated or removed row is noticed.
        if counts != told or [row.seed for row in own] != list(range(len(own))):
            raise SamganError(
                f"{path}, screening.csv and plan.json do not agree on {name}: one of them was edited; remove "
                "screening.json, screening.csv, set, audit and utility, and run the same command again"
            )


def train_models(work: Work) -> TrainingDocument:
    """Train what the method says, or describe the models that were given."""
    plan, lacking = work.plan, list(work.plan.missing)

    def described(path: str, given: bool = False) -> TrainedModel:
        source = Path(path) if given else work.out / path
        model = open_model(source)
        return TrainedModel(path, given, model.sha256, tuple(check_origin(model, source, work.data)))

    if plan.runs:
        models = {name: described(plan.runs.get(name) or plan.runs[""], given=True) for name in lacking}
        return TrainingDocument(models=models)
    if plan.method == "joint":
        told = {"network.num_classes": len(work.names), "data.class_sampling": "balanced"}
        path = _train(work, "joint", told, plan.minutes)
        return TrainingDocument(models={name: described(path) for name in lacking})
    share, start = plan.minutes / len(lacking), None
    if plan.method == "fine-tuned":
        share /= 2
        start = work.out / _train(work, "all", {}, plan.minutes / 2)
    models = {}
    for name in lacking:
        folder = f"class-{work.names.index(name)}"
        models[name] = described(_train(work, folder, {"data.classes": [name]}, share, start))
    return TrainingDocument(models=models)


def _train(work: Work, name: str, settings: dict[str, Any], minutes: float, start: Path | None = None) -> str:
    """Train one model, or go on training it; returns its path in the folder."""
    path = work.out / "models" / name
    begun = (path / "config.json").is_file()
    if not begun or not Run.open(path).is_over(minutes):
        common = {"network.num_classes": 0, "data.classes": work.names}
        config = Config.from_dict(work.plan.config).override({**common, **settings})
        train(config, work.data, path, resume=begun, minutes=minutes, device=work.device, start=start)
    return f"models/{name}"


def score_model(work: Work, name: str) -> Scores | None:
    """Scores of a class's model against the real training images of the class, with their floor."""
    folder = work.folder("scores", name)

    def make() -> Scores:
        scores, _ = evaluate(
            work.path(name), work.data, classes=[name], out=folder, device=work.device, **work.of_features
        )
        return scores

    return work.optional(folder / "scores.json", f"scores of {name}", Scores, make)


def audit_model(work: Work, name: str) -> AuditDocument | None:
    """Look for signs of memorisation in the images of a class, before screening."""
    folder, counts = work.folder("audit", name), work.plan.classes[name]

    def make() -> AuditDocument:
        count = max(counts.missing, counts.real)  # rare copies show only among many images
        document, _ = audit(
            work.path(name), work.data, count=count, classes=[name], out=folder, device=work.device, **work.of_features
        )
        return document

    return work.optional(folder / "audit.json", f"audit of {name}", AuditDocument, make)


def screen_images(work: Work) -> ScreeningDocument:
    """Make candidates until enough of them are kept; writes screening.csv."""
    plan, data = work.plan, work.data
    indices = data.indices("train", work.names)
    training = torch.from_numpy(data.take(indices))
    labels = data.labels(work.names)[indices]
    extractor, _ = choose_features(
        plan.features, data.images.shape[1:], features_file=work.features_file, device=work.device
    )
    of_training = None if extractor is None else extract(extractor, training)
    classifier = None
    if plan.confidence:
        arm, number = ARMS["augmentation, oversampling"], len(work.names)
        classifier = train_classifier(training.numpy(), labels, arm, number, seed=0, steps=500, device=work.device)
    found: dict[str, ScreenedClass] = {}
    rows: list[Candidate] = []
    kept: list[Tensor] = []  # of all classes: a model that confuses them may make the same image for two
    for name, missing in plan.missing.items():
        label = work.names.index(name)
        screen = Screen(
            training,
            np.flatnonzero(labels == label),
            data.groups(indices),
            features=of_training,
            # Features of candidates are not needed again.
            extract=None if extractor is None else functools.partial(extract, extractor, cache=False),
            classify=None if classifier is None else functools.partial(_probability, classifier, label),
            confidence=plan.confidence,
        )
        own = [
            replace(row, nearest_training_image=data.manifest[indices[int(row.nearest_training_image)]].source)
            for row in candidates(screen, work.model(name), name, missing, kept)
        ]
        reasons = Counter(row.reason for row in own)
        stayed = reasons.pop("", 0)
        network = extractor.name if extractor else None
        found[name] = ScreenedClass(missing, len(own), stayed, dict(reasons), network, tuple(screen.rules()))
        rows += own
    with atomic_write(work.out / "screening.csv") as file:
        file.write(format_csv(Candidate, rows))
    return ScreeningDocument(classes=found)


def _probability(classifier: torch.nn.Module, label: int, images: np.ndarray) -> np.ndarray:
    return predict(classifier, images)[:, label]


def candidates(screen: Screen, model: Model, name: str, missing: int, kept: list[Tensor]) -> Iterator[Candidate]:
    """Make candidates of seeds 0, 1, ...; end with the one that completes `missing` kept images, or at the limit.

    The limit is `CANDIDATES` times `missing`. `kept` has the images kept so far; new ones are appended. Training images
    are named by their index.
    """
    seed, still, rate = 0, missing, 1.0
    while still and seed < CANDIDATES * missing:
        seeds = range(seed, min(seed + math.ceil(still / max(rate, 0.1)), CANDIDATES * missing))
        images = to_uint8(sample(model, seeds, labels_of(model, seeds, name)))
        screened = screen(images, torch.cat(kept) if kept else None)
        distance = screened.distance
        for place, reason in enumerate(screened.reason):
            if not still:
                return
            yield Candidate(
                class_name=name,
                seed=seeds[place],
                reason=reason,
                nearest_training_image=str(int(screened.nearest[place])),
                distance_pixels=float(distance["pixels"][place]),
                distance_features=float(distance["features"][place]) if "features" in distance else None,
                confidence=None if screened.confidence is None else float(screened.confidence[place]),
            )
            if not reason:
                kept.append(images[place : place + 1])
                still -= 1
        seed = seeds.stop
        rate = (missing - still) / seed
