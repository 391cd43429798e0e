"""The balanced set as a folder: real and synthetic images with their manifest, and cards for the set and its models."""

import csv
import hashlib
import os.path
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from samgan import __version__
from samgan.errors import SamganError
from samgan.files import atomic_folder, check_new_folder, write_json
from samgan.pictures import to_integers, write_png
from samgan.provenance import FORMATS, Sample
from samgan.runs import Run
from samgan.sampling import Model, sample_batches
from samgan.studies.balance_documents import BalanceDocument, Candidate, SetImage, as_row, format_csv
from samgan.studies.balance_stages import Work, labels_of
from samgan.terminal import say
from samgan.trust import Record, write_card

AGAIN = "the same command makes it again"


def write_set(work: Work, originals: Path | None) -> None:
    """Write the folder `set`, which appears only when it is complete."""
    target = work.out / "set"
    if (target / "manifest.json").is_file():
        _check_set(work, target)
        return
    check_new_folder(target, f"remove it: {AGAIN}")
    say("samgan: writing the set")
    with atomic_folder(target) as temporary:
        images = [*_write_real(work, temporary, originals), *_write_synthetic(work, temporary)]
        (temporary / "manifest.csv").write_bytes(format_csv(SetImage, images))
        # The set may be given away, so paths of this machine are left out.
        rows = [{column: text for column, text in as_row(image).items() if text} for image in images]
        document = {"samgan": __version__, "plan": work.plan.to_give_away(), "images": rows}
        write_json(temporary / "manifest.json", document)


def _check_set(work: Work, target: Path) -> None:
    """Refuse a set that was written from another screening, or that lacks a file.

    Raises:
        SamganError: It holds other synthetic images than screening.csv keeps, lacks a file of its manifest, or the
            manifest cannot be read.
    """
    try:
        with open(target / "manifest.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
        found = Counter((row["class"], int(row["seed"])) for row in rows if row["origin"] == "synthetic")
        lost = [row["file"] for row in rows if not os.path.lexists(target / row["file"])]  # originals may be links
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise SamganError(f"{target / 'manifest.csv'} cannot be read ({error}): remove {target}; {AGAIN}") from None
    wanted = Counter((name, row.seed) for name in work.plan.missing for row in work.kept(name))
    if found != wanted:
        raise SamganError(
            f"{target} holds {found.total()} synthetic images, and not the {wanted.total()} that screening.csv kept: "
            f"remove set, audit and utility in {work.out}; {AGAIN}"
        )
    if lost:
        raise SamganError(
            f"{target}: expected the {len(rows)} files of manifest.csv, but {len(lost)} are missing, such as "
            f"{lost[0]}: remove {target}; {AGAIN}"
        )


def _write_real(work: Work, folder: Path, originals: Path | None) -> Iterator[SetImage]:
    for index in work.data.indices(None, work.names):
        row = work.data.manifest[index]
        where = folder / row.split / row.class_name
        where.mkdir(parents=True, exist_ok=True)
        if originals is None:
            path = where / f"real-{index:06d}.png"
            with open(path, "wb") as file:
                write_png(file, work.data.images[index], {"Description": "Real image, as samgan prepare made it."})
        else:
            path = where / f"real-{index:06d}-{Path(row.source).name}"
            _take(originals / row.source, row.sha256, path, work.plan.copies)
        yield SetImage(
            file=path.relative_to(folder).as_posix(),
            split=row.split,
            class_name=row.class_name,
            origin="real",
            patient=row.patient,
            source=row.source,
            source_sha256=row.sha256,
        )


def _take(original: Path, sha256: str, path: Path, copies: bool) -> None:
    """Link to an original, or copy it, if it is still the file that was prepared."""
    source = original.resolve()
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != sha256:
        raise SamganError(
            f"{source} is not the file that was prepared (sha256 {found[:12]}, not {sha256[:12]}); restore that file, "
            "or prepare the set again"
        )
    if copies:
        shutil.copyfile(source, path)
    else:
        path.symlink_to(source)


def _write_synthetic(work: Work, folder: Path) -> Iterator[SetImage]:
    chosen = FORMATS[work.plan.file_format]
    for name in work.plan.missing:
        where = folder / "train" / name
        kept = sorted(work.kept(name), key=lambda row: row.seed)
        if not kept:
            continue
        model = work.model(name)
        before = set(where.iterdir())
        chosen.write(where, _samples(model, kept, name, chosen.bits), len(kept))
        files = sorted(path.relative_to(folder).as_posix() for path in set(where.iterdir()) - before)
        for path, row in zip(files, kept, strict=True):
            yield SetImage(
                file=path,
                split="train",
                class_name=name,
                origin="synthetic",
                seed=row.seed,
                model_sha256=model.sha256,
                nearest_training_image=row.nearest_training_image,
                distance_pixels=row.distance_pixels,
                distance_features=row.distance_features,
                confidence=row.confidence,
            )


def _samples(model: Model, kept: Sequence[Candidate], name: str, bits: int) -> list[Sample]:
    seeds = [row.seed for row in kept]
    labels = labels_of(model, seeds, name)
    label = None if labels is None else int(labels[0])
    return [
        Sample(image, model.mark(seed, label).of(image))
        for few, images in sample_batches(model, seeds, labels)
        for seed, image in zip(few, to_integers(images, bits), strict=True)
    ]


def write_cards(work: Work, document: BalanceDocument) -> None:
    """Write a data card for the set, and a model card for every model that was trained here."""
    counts = {name: count.synthetic for name, count in document.counts.items()}
    of_set = _record(work, document, list(work.models), synthetic=counts, screening=document.screening)
    write_card(work.out / "set" / "DATA_CARD.md", of_set)
    classes: dict[Path, list[str]] = {}
    for name, model in work.models.items():
        if not model.given:
            classes.setdefault(work.path(name), []).append(name)
    for path, names in classes.items():
        write_card(path / "MODEL_CARD.md", _record(work, document, names))


def _record(work: Work, document: BalanceDocument, names: Sequence[str], **more: Any) -> Record:
    """What is known about the images of some classes; if several models made them, each model's card has the rest."""
    known: Mapping[str, Any] = {}
    if len({work.models[name].sha256 for name in names}) == 1:
        path = work.path(names[0])
        known = {"model": work.model(names[0]), "environment": Run.open(path).environment if path.is_dir() else None}
    info = work.data.info
    return Record(
        data=replace(info, classes=tuple(work.names), counts={name: info.counts[name] for name in work.names}),
        scores=document.scores[names[0]] if len(names) == 1 else None,  # the folder `scores` has those of several
        audits={name: found for name in names if (found := document.audit[name])},
        utility=document.utility,
        **known,
        **more,
    )
