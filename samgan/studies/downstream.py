"""Whether synthetic images help a classifier, on patients that were not used to train or choose anything.

A ResNet-18 learns to tell the classes of a prepared set apart: from real images, from real images with the usual
remedies for a small class, and from real and synthetic images together. All classifiers take the same number of steps,
each with several seeds. Everything is measured on the held-out split, once, after the last step.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8
from rich.progress import track

from samgan import __version__
from samgan.data import PreparedSet
from samgan.data.images import picture_files
from samgan.devices import choose_device
from samgan.errors import SamganError, UsageError
from samgan.files import Location
from samgan.metrics.classification import halves, scores
from samgan.provenance import read_samples
from samgan.sampling import Source
from samgan.studies.classifier import ARMS, Arm, classify
from samgan.studies.comparison import compare
from samgan.studies.downstream_page import write_page
from samgan.terminal import console
from samgan.trust.utility_document import UTILITY_SCORES, ArmScores, ClassImages, HeldOut, UtilityDocument

LEAST = 16
"""The fewest held-out images of a class that can be tested on."""
LEAST_PATIENTS = 8
"""The fewest held-out patients of a class. They are drawn again for the interval: of two to four, draws hardly differ,
and it is far too narrow."""


@dataclass(frozen=True)
class Tested:
    """The held-out images that classifiers are tested on."""

    images: UInt8[np.ndarray, "n c h w"]
    patients: list[str]
    truth: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Synthetic:
    """The synthetic images of one class."""

    images: UInt8[np.ndarray, "n c h w"]
    notes: list[str]
    """What is not known about their origin."""
    source: str
    """Name of the run, file or folder."""
    model_sha256: str = ""


@dataclass(frozen=True)
class _Request:
    """The inputs of a test, after they were checked."""

    data: PreparedSet
    real: dict[str, UInt8[np.ndarray, "n c h w"]]
    made: dict[str, Synthetic]
    lacking: dict[str, int]
    """How many synthetic images are added to the real ones, by class."""
    tested: Tested
    seeds: int
    steps: int
    device: str

    @property
    def names(self) -> list[str]:
        """The classes in the order of their labels."""
        return list(self.real)


def utility(  # noqa: PLR0913 (options of one test)
    data: PreparedSet,
    synthetic: Mapping[str, Location | np.ndarray],
    out: Location,
    *,
    classes: Sequence[str] = (),
    beside: Mapping[str, int] | None = None,
    seeds: int = 5,
    steps: int = 500,
    device: str = "auto",
    models: Mapping[str, str] | None = None,
) -> tuple[UtilityDocument, Path]:
    """Train and test every arm with every seed; write utility.json and utility.html.

    Args:
        data: Prepared set with two classes or more; classifiers are tested on its held-out split.
        synthetic: By class, where its synthetic images are: a run, a .safetensors file of `samgan export`, a folder of
            images, .npz, .npy, or images themselves, uint8 [n c h w]. A model makes as many as the largest class has;
            if it was told the class, it makes images of that class. A class that lacks no images may be left out: then
            arms that need synthetic images of every class are skipped.
        out: Folder to write.
        classes: Classes to tell apart; default: all.
        beside: By class, how many of its synthetic images are added to the real ones; default: as many as it lacks
            of the largest class.
        seeds: Classifiers per arm: seeds 0 to `seeds` - 1.
        steps: Steps of 64 images per classifier.
        device: Where they are trained.
        models: By class, the SHA-256 of the model that made its images, for the document; default: those of the
            models that are read here.

    Returns:
        The document and the path of the page.

    Raises:
        UsageError: Only one class, an unknown class, fewer than two seeds, no step, a model of another prepared set,
            or synthetic images of another class.
        SamganError: No training images of a class, too few held-out ones, or synthetic images of another shape or too
            few.
    """
    names = list(classes) or data.classes
    if len(names) < 2:
        raise UsageError(f"--classes {' '.join(names)}: a classifier needs two classes or more to tell apart")
    if seeds < 2 or steps < 1:
        raise UsageError(f"--seeds {seeds} --steps {steps}: expected 2 or more seeds and 1 or more steps")
    if unknown := sorted(set(synthetic) - set(names)):
        raise UsageError(f"--synthetic {unknown[0]}=...: expected one of the classes {', '.join(names)}")
    data.verify()
    request = _request(data, names, synthetic, dict(beside or {}), choose_device(device))
    request = replace(request, seeds=seeds, steps=steps)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    document = _test(request)
    if models is not None:
        document = replace(document, models=dict(models))
    page = folder / "utility.html"
    write_page(page, document)
    document.write(folder / "utility.json")
    return document, page


def _request(
    data: PreparedSet,
    names: list[str],
    synthetic: Mapping[str, Location | np.ndarray],
    beside: dict[str, int],
    device: str,
) -> _Request:
    """Read all images, and refuse what does not fit before anything is trained."""
    real = {name: data.select("train", [name]) for name in names}
    check_held_out(data, names)
    if none := [name for name, images in real.items() if not len(images)]:
        raise SamganError(f"{data.path} has no training images of {none[0]}: leave it out with --classes")
    largest = max(map(len, real.values()))
    made = {name: read_synthetic(name, source, largest, data, device) for name, source in synthetic.items()}
    lacking = {name: beside.get(name, largest - len(images)) for name, images in real.items()}
    given = {name: len(made[name].images) if name in made else 0 for name in names}
    if short := [name for name, count in lacking.items() if given[name] < count]:
        name = short[0]
        raise SamganError(
            f"{name} needs {lacking[name]} synthetic images (the largest class has {largest} real ones), but "
            f"{given[name]} were given; name a model or more images with --synthetic {name}=..."
        )
    return _Request(data, real, made, lacking, _held_out(data, names), 0, 0, device)


def _test(request: _Request) -> UtilityDocument:
    """Train and test every arm with every seed, and compare."""
    names, tested = request.names, request.tested
    bare = [name for name in names if name not in request.made or not len(request.made[name].images)]
    reason = f"no synthetic images of {', '.join(bare)}"
    skipped = {name: reason for name, arm in ARMS.items() if bare and arm.whole}
    arms = {name: arm for name, arm in ARMS.items() if name not in skipped}
    made = {name: own.images for name, own in request.made.items()}
    predicted: dict[str, list[np.ndarray]] = {name: [] for name in arms}
    jobs = [(seed, name) for seed in range(request.seeds) for name in arms]
    progress = console()
    for seed, name in track(jobs, "classifiers", console=progress, disable=not progress.is_terminal):
        images, labels, of_real = training_images(arms[name], request.real, made, request.lacking)
        options: dict[str, Any] = {"seed": seed, "steps": request.steps, "device": request.device}
        predicted[name].append(classify(images, labels, of_real, tested.images, arms[name], len(names), **options))
    smallest = min(range(len(names)), key=lambda k: len(request.real[names[k]]))
    compared = compare(predicted, tested.truth, tested.patients, smallest)
    return UtilityDocument(
        samgan=__version__,
        data=request.data.used(names),
        classes={name: ClassImages(len(request.real[name]), request.lacking[name]) for name in names},
        smallest=names[smallest],
        synthetic={name: own.source for name, own in request.made.items()},
        models={name: own.model_sha256 for name, own in request.made.items() if own.model_sha256},
        held_out=HeldOut(len(tested.images), len(set(tested.patients))),
        seeds=request.seeds,
        steps=request.steps,
        arms={name: _summary(found, tested.truth, smallest) for name, found in predicted.items()},
        intervals=compared.intervals,
        differences=compared.differences,
        decisions=compared.decisions,
        verdict=compared.verdict,
        skipped=skipped,
        notes=tuple(note for own in request.made.values() for note in own.notes),
    )


def check_held_out(data: PreparedSet, names: Sequence[str]) -> None:
    """Refuse a set that has too few held-out images to test on.

    Raises:
        SamganError: A class has fewer than 16, or they are of fewer than 8 patients or of patients of one half
            (`halves`).
    """
    tested = _held_out(data, names)
    half = halves(tested.patients, tested.truth)
    for k, name in enumerate(names):
        own = np.flatnonzero(tested.truth == k)
        people = len({tested.patients[i] for i in own})
        if len(own) < LEAST or people < LEAST_PATIENTS or len(set(half[own])) < 2:
            raise SamganError(
                f"{data.path}: expected {LEAST} or more held-out images of {name}, of {LEAST_PATIENTS} or more "
                f"patients; found {len(own)} of {people}; prepare the set again with a larger --holdout"
            )


def _held_out(data: PreparedSet, names: Sequence[str]) -> Tested:
    indices = data.indices("holdout", names)
    truth = np.array([names.index(data.manifest[i].class_name) for i in indices], dtype=np.int64)
    return Tested(data.take(indices), [data.manifest[i].patient for i in indices], truth)


def read_synthetic(name: str, source: Location | np.ndarray, count: int, data: PreparedSet, device: str) -> Synthetic:
    """The synthetic images of one class; `count` of them if a model makes them.

    Raises:
        UsageError: The images are of another class, or the model was trained on another set.
        SamganError: They have another shape.
    """
    opened = Source.open(source, device=device)
    notes = [] if opened.path is None else opened.check_origin(data)
    if opened.model is not None:
        model = opened.model
        learnt = model.config.data.classes or (data.classes if model.trained_on else [name])
        if not model.classes and list(learnt) != [name]:
            raise UsageError(
                f"--synthetic {name}={source}: it was trained on {', '.join(learnt)}, not only on {name}; name a model "
                f"of {name} only, or one that was told the class"
            )
        images = opened.images(count, model.labels(range(count), name) if model.classes else None).numpy()
    else:
        images = opened.images(like=data).numpy()
        notes += [f"{name}: {sentence}." for sentence in opened.said]
        if opened.path is not None and (others := sorted(_marked_classes(opened.path) - {name})):
            raise UsageError(
                f"--synthetic {name}={source}: expected images of {name} only, but their marks name {', '.join(others)}"
            )
    if images.shape[1:] != data.images.shape[1:]:
        raise SamganError(
            f"{name}: expected images of shape {list(data.images.shape[1:])}, got {list(images.shape[1:])}"
            + ("" if opened.path is None else f" from {source}")
        )
    return Synthetic(images, notes, opened.described.name, opened.described.model_sha256 or "")


def _marked_classes(source: Path) -> set[str]:
    """Classes in the marks of samgan's samples; none for other images."""
    found = set()
    for file in picture_files(source):
        with contextlib.suppress(SamganError):  # a damaged mark names no class; `samgan verify` reports it
            found |= {sample.mark.class_name for sample in read_samples(file)}
    return found - {""}


def training_images(
    arm: Arm, real: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray], lacking: Mapping[str, int]
) -> tuple[UInt8[np.ndarray, "n c h w"], Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The training images of an arm, their classes, and which are real."""
    parts, labels, of_real = [], [], []
    for label, name in enumerate(real):
        own = made.get(name) if arm.synthetic else None
        if own is not None and not arm.whole:
            own = own[: lacking[name]]
        for images, is_real in ((real[name] if arm.real else None, True), (own, False)):
            if images is not None:
                parts.append(images)
                labels += [label] * len(images)
                of_real += [is_real] * len(images)
    return np.concatenate(parts), np.array(labels), np.array(of_real)


def _summary(predicted: list[np.ndarray], truth: np.ndarray, smallest: int) -> ArmScores:
    found = [scores(p, truth, smallest) for p in predicted]
    return ArmScores(
        seeds=tuple(found),
        mean={name: float(np.mean([s[name] for s in found])) for name in UTILITY_SCORES},
        deviation={name: float(np.std([s[name] for s in found], ddof=1)) for name in UTILITY_SCORES},
    )
