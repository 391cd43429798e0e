"""Whether synthetic images help a classifier, on patients that nothing was trained on or chosen by.

A ResNet-18 learns to tell the classes of a prepared set from real images, from real ones with what is commonly done
about too few of a class, and from real and synthetic ones together; all for the same number of steps, with several
seeds. Everything is measured on the held-out split, once, at the last step.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8
from rich.console import Console
from rich.progress import track

from samgan import __version__
from samgan.data import PreparedSet
from samgan.data.images import image_files, load_images
from samgan.devices import choose_device
from samgan.errors import SamganError, UsageError
from samgan.files import write_json
from samgan.pages import intervals, markdown_table
from samgan.pages.legacy import section, table, text, write_page
from samgan.pictures import RESEARCH_ONLY, to_uint8
from samgan.provenance import read_samples
from samgan.sampling import check_origin, is_model, open_model, sample
from samgan.studies.classifier import ARMS, Arm, classify
from samgan.studies.comparison import COMPARED, DECIDES, SCORES, compare, halves, scores

LEAST = 16
"""Held-out images of a class, below which nothing can be said."""


def utility(
    data: PreparedSet,
    synthetic: Mapping[str, Path | np.ndarray],
    out: Path,
    *,
    classes: Sequence[str] = (),
    beside: Mapping[str, int] | None = None,
    seeds: int = 5,
    steps: int = 500,
    device: str = "auto",
) -> tuple[dict[str, Any], Path]:
    """Train and test every arm with every seed; write utility.json and utility.html.

    Args:
        data: Prepared set with two classes or more; its held-out split is what is tested on.
        synthetic: By class, where its synthetic images are: a run, a .safetensors file of `samgan export`, a folder of
            images, .npz, .npy, or images themselves, uint8 [n c h w]. A model makes as many as the largest class has,
            and if it is told of classes of that one. A class that lacks none may be left out: then nothing learns from
            synthetic images alone, not at first either.
        out: Folder to write.
        classes: Classes to tell apart; default: all.
        beside: By class, how many of its synthetic images stand beside real ones; default: as many as it lacks of the
            largest class.
        seeds: Classifiers per arm; seeds 0 to this, not included.
        steps: Steps of 64 images per classifier.
        device: Where they are trained.

    Returns:
        The document (`models`: by class the hash of the weights, where a model made the images; `arms`: by name the
        scores of every seed and their means; `intervals`, `differences`, `decisions` and `verdict`, as `compare` makes
        them) and the page.

    Raises:
        UsageError: One class, an unknown one, fewer than two seeds or one step, a model of another prepared set, or
            synthetic images of another class.
        SamganError: No training images of a class, too few held-out ones, or synthetic images of another shape or too
            few.
    """
    names = list(classes) or data.classes
    if len(names) < 2:
        raise UsageError(f"--classes {' '.join(names)}: a classifier tells two classes or more apart")
    if seeds < 2 or steps < 1:
        raise UsageError(f"--seeds {seeds} --steps {steps}: expected 2 or more seeds and 1 or more steps")
    unknown = sorted(set(synthetic) - set(names))
    if unknown:
        raise UsageError(f"--synthetic {unknown[0]}=...: the classes are {', '.join(names)}")
    device = choose_device(device)
    data.verify()
    real = {name: data.select("train", [name]) for name in names}
    check_held_out(data, names)
    test_indices, patients, truth = _held_out(data, names)
    test = np.asarray(data.images[test_indices])
    if none := [name for name, images in real.items() if not len(images)]:
        raise SamganError(f"{data.path} has no training images of {none[0]}: leave it out with --classes")
    largest = max(map(len, real.values()))
    made, notes, models = {}, [], {}
    for name, source in synthetic.items():
        made[name], unknown_origin, models[name] = _synthetic(name, source, largest, data, device)
        notes += unknown_origin
    lacking = {name: (beside or {}).get(name, largest - len(images)) for name, images in real.items()}
    short = [name for name, count in lacking.items() if count and len(made.get(name, ())) < count]
    if short:
        raise SamganError(
            f"{short[0]} is to get {lacking[short[0]]} synthetic images (the largest class has {largest} real ones), "
            f"{len(made.get(short[0], ()))} were given: --synthetic {short[0]}=RUN"
        )
    bare = [name for name in names if not len(made.get(name, ()))]
    reason = f"no synthetic images of {', '.join(bare)}"
    skipped = {name: reason for name, arm in ARMS.items() if bare and arm.whole}
    arms = {name: arm for name, arm in ARMS.items() if name not in skipped}
    out.mkdir(parents=True, exist_ok=True)
    predicted: dict[str, list[np.ndarray]] = {name: [] for name in arms}
    jobs = [(seed, name) for seed in range(seeds) for name in arms]
    console = Console(stderr=True)
    for seed, name in track(jobs, "classifiers", console=console, disable=not console.is_terminal):
        images, labels, of_real = _training_images(arms[name], real, made, lacking)
        options: dict[str, Any] = {"seed": seed, "steps": steps, "device": device}
        predicted[name].append(classify(images, labels, of_real, test, arms[name], len(names), **options))
    smallest = min(range(len(names)), key=lambda k: len(real[names[k]]))
    document = {
        "samgan": __version__,
        "data": {"name": data.path.resolve().name, "sha256": data.sha256, "split_by": data.info.split_by},
        "classes": {name: {"real": len(real[name]), "synthetic": lacking[name]} for name in names},
        "smallest": names[smallest],
        "synthetic": {
            name: "images" if isinstance(source, np.ndarray) else Path(source).resolve().name
            for name, source in synthetic.items()
        },
        "models": {name: sha256 for name, sha256 in models.items() if sha256},
        "held_out": {"images": len(test), "patients": len(set(patients))},
        "seeds": seeds,
        "steps": steps,
        "arms": {name: _summary(found, truth, smallest) for name, found in predicted.items()},
        "skipped": skipped,
        "notes": notes,
    }
    document |= compare(predicted, truth, patients, smallest)
    page = out / "utility.html"
    _write_page(page, document)
    write_json(out / "utility.json", document)
    return document, page


def check_held_out(data: PreparedSet, names: Sequence[str]) -> None:
    """Refuse a set whose held-out images are too few to test on.

    Raises:
        SamganError: Fewer than 16 of a class, or all of one patient, or of patients of one half (`halves`).
    """
    _, patients, truth = _held_out(data, names)
    half = halves(patients, truth)
    few = [name for k, name in enumerate(names) if (truth == k).sum() < LEAST or len(set(half[truth == k])) < 2]
    if few:
        raise SamganError(
            f"{data.path}: expected {LEAST} or more held-out images of {few[0]}, of two patients or more; prepare with "
            "--holdout"
        )


def _held_out(
    data: PreparedSet, names: Sequence[str]
) -> tuple[Int[np.ndarray, " n"], list[str], Int[np.ndarray, " n"]]:
    """Places of held-out images, their patients and their classes."""
    indices = data.indices("holdout", names)
    truth = np.array([names.index(data.manifest[i].class_name) for i in indices], dtype=np.int64)
    return indices, [data.manifest[i].patient for i in indices], truth


def _synthetic(
    name: str, source: Path | np.ndarray, count: int, data: PreparedSet, device: str
) -> tuple[UInt8[np.ndarray, "n c h w"], list[str], str]:
    """Synthetic images of one class, of a model `count`; what is not known of their origin; the model's hash."""
    notes, sha256 = [], ""
    if isinstance(source, np.ndarray):
        images = source
    elif is_model(source):
        model = open_model(source, device=device)
        sha256, notes = model.sha256, check_origin(model, source, data)
        learnt = model.config.data.classes or (data.classes if model.trained_on else [name])
        if not model.classes and list(learnt) != [name]:
            raise UsageError(f"--synthetic {name}={source}: it was trained on {', '.join(learnt)}, not on {name} alone")
        labels = model.labels(range(count), name) if model.classes else None
        images = to_uint8(sample(model, range(count), labels)).numpy()
    else:
        images = load_images(source).numpy()
        if others := sorted(_marked_classes(source) - {name}):
            raise UsageError(
                f"--synthetic {name}={source}: their marks say that there are images of {', '.join(others)}"
            )
        notes = [
            f"What made {source.name}, the synthetic images of {name}, is not known here: it must not have seen any "
            "held-out patient."
        ]
    if images.shape[1:] != data.images.shape[1:]:
        raise SamganError(
            f"{name}: expected images of {list(data.images.shape[1:])}, got {list(images.shape[1:])}"
            + ("" if isinstance(source, np.ndarray) else f" from {source}")
        )
    return images, notes, sha256


def _marked_classes(source: Path) -> set[str]:
    """Classes that samples of samgan say they are of; none of other images."""
    files = image_files(source) if source.is_dir() else [source]
    if source.is_dir() and not files:
        files = [source / "samples.npz"]
    found = set()
    for file in files:
        with contextlib.suppress(SamganError):  # a damaged mark tells nothing, and `samgan verify` says so
            found |= {sample.mark.class_name for sample in read_samples(file)}
    return found - {""}


def _training_images(
    arm: Arm, real: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray], lacking: Mapping[str, int]
) -> tuple[UInt8[np.ndarray, "n c h w"], Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Images, their classes, and which are real."""
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


def _summary(predicted: list[np.ndarray], truth: np.ndarray, smallest: int) -> dict[str, Any]:
    found = [scores(p, truth, smallest) for p in predicted]
    return {
        "seeds": found,
        "mean": {name: float(np.mean([s[name] for s in found])) for name in SCORES},
        "deviation": {name: float(np.std([s[name] for s in found], ddof=1)) for name in SCORES},
    }


def format_utility(document: dict[str, Any]) -> str:
    """The table and the sentence that `samgan utility` prints."""
    header = ["training images", *(f"{label} (± seeds)" for label in SCORES.values())]
    return "\n".join([*markdown_table(header, _rows(document)), "", *utility_sentences(document)])


def _rows(document: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{arm['mean'][key]:.3f} ± {arm['deviation'][key]:.3f}" for key in SCORES))
        for name, arm in document["arms"].items()
    ]


def utility_sentences(document: dict[str, Any]) -> list[str]:
    """What was found, and on what it rests."""
    decision, held_out = document["decisions"][DECIDES], document["held_out"]
    pairs = [f"'{arms['synthetic']}' against '{arms['classical']}'" for arms in decision["chosen"]]
    others = [
        f"{SCORES[score]} {found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}] ({found['verdict']})"
        for score, found in document["decisions"].items()
        if score != DECIDES
    ]
    seeds = document["seeds"]
    lines = [
        f"Synthetic images: {document['verdict']}. AUC with the best use of them minus that of the best without: "
        f"{decision['mean']:+.4f} [{decision['low']:+.4f}, {decision['high']:+.4f}], 95 % over patients and seeds. "
        "What is best is chosen on one half of the held-out patients by all seeds but one, and measured on the other "
        f"half with that one, every way round: {'; '.join(pairs)}.",
        f"The same by other scores, which do not decide: {'; '.join(others)}. Of the Brier score less is better.",
        f"{seeds} ResNet-18 per line, {document['steps']} steps each, tested on {held_out['images']} "
        f"held-out images of {held_out['patients']} patients (split by {document['data']['split_by']}).",
    ]
    return [*lines, *document["notes"], *(f"Left out: {name} ({why})." for name, why in document["skipped"].items())]


def _write_page(path: Path, document: dict[str, Any]) -> None:
    header = ("training images", *SCORES.values())
    compared = [SCORES[score] for score in COMPARED]
    paragraphs = "".join(f"<p>{text(line)}</p>" for line in utility_sentences(document))
    bars = {name: _bar(found[DECIDES]) for name, found in document["intervals"].items()}
    figures = intervals("AUC", "95 % over patients and seeds", bars) + differences_chart(document)
    sections = [
        section("Scores on held-out patients", table(header, _rows(document)) + paragraphs),
        section("Intervals", f'<div class="row">{figures}</div>', "wide"),
        section("Every difference", table(("", *compared), _differences(document)), "wide"),
    ]
    write_page(path, "samgan: do synthetic images help?", sections, [RESEARCH_ONLY])


def _bar(found: Mapping[str, Any]) -> tuple[float, float, float]:
    return found["low"], found["mean"], found["high"]


def _shown(document: dict[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By name the differences, first those that were decided by."""
    return {"best use - best without": document["decisions"]} | {
        f"{found['arm']} - {found['against']}": found for found in document["differences"]
    }


def _differences(document: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, found in _shown(document).items():
        cells = (found[score] for score in COMPARED)
        yield (name, *(f"{cell['mean']:+.4f} [{cell['low']:+.4f}, {cell['high']:+.4f}]" for cell in cells))


def differences_chart(document: dict[str, Any]) -> str:
    """A figure of what was decided by, and of every difference."""
    bars = {name: _bar(found[DECIDES]) for name, found in _shown(document).items()}
    return intervals("Differences of AUC", "95 % over patients and seeds; above 0: better with synthetic images", bars)
