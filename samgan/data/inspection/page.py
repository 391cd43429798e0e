"""The page of an inspection: what to look at first, counts, sources, facts by class, near duplicates, samples."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from samgan.data.dataset import PreparedSet
from samgan.data.documents import SPLITS
from samgan.data.findings import told_leaks
from samgan.data.inspection.documents import FACTS, InspectionDocument, Telling, Values
from samgan.errors import WARNING
from samgan.pages import histogram, picture, write_page

PICTURES = "This page contains REAL images of the set. Share it only as the terms of the data allow."
NO_PICTURES = "This page contains no images, but names of files and numbers of patients. Protect it as you do the data."
REAL = "REAL images of the set."
PAIRS_SHOWN = 24
SHEET = 48
"""Images of a class that are shown."""
FILES_SHOWN = 200
"""Files that were left out; dataset.json names all of them."""
ROWS_SHOWN = 40
"""Rows of a table that may be long."""
CLASSES_DRAWN = 12
"""In one figure, the largest classes; more outlines could not be told apart."""


def write_inspection_page(
    path: Path, document: InspectionDocument, data: PreparedSet, values: Values, *, pictures: bool, seed: int
) -> None:
    """Write data.html.

    Args:
        path: The file.
        document: What was found.
        data: The set.
        values: The facts of all images.
        pictures: Whether the page may contain images.
        seed: Of the choice of the images that are shown.
    """
    left_out = list(_left_out(document))
    sources = [(s.folder or "-", s.kind, s.class_name, s.split, str(s.images)) for s in document.sources]
    write_page(
        path,
        "inspection.html",
        f"samgan inspect: {document.data.name}",
        [PICTURES if pictures else NO_PICTURES],
        document=document,
        findings=list(findings(document)),
        count_rows=list(_counts(document)),
        source_rows=sources[:ROWS_SHOWN],
        more_sources=max(0, len(sources) - ROWS_SHOWN),
        left_out=left_out[:FILES_SHOWN],
        more_left_out=max(0, len(left_out) - FILES_SHOWN),
        passed_over=[(note, str(images)) for note, images in sorted(document.notes.items(), key=lambda item: -item[1])],
        fact_header=("fact", *document.counts, "tells best"),
        fact_rows=list(_facts(document)),
        figures=list(_histograms(document, data, values)),
        pairs=list(_pairs(document, data)) if pictures else [],
        pair_rows=[] if pictures else list(_pair_rows(document, data)),
        near_duplicates=len(document.near_pairs),
        sheets=list(_sheets(document, data, seed)) if pictures else [],
    )


def findings(document: InspectionDocument) -> Iterator[str]:
    """What to look at before training, the gravest first; one sentence each. Nothing if nothing stands out."""
    leaks = (
        f"{WARNING}{sentence}: scores on held-out images will be too good" for sentence in told_leaks(document.leaks)
    )
    yield from sorted([*leaks, *document.warnings], key=lambda sentence: not sentence.startswith(WARNING))
    across = sum(not pair.same_class for pair in document.near_pairs)
    if across:
        yield (
            f"{_images_look(across)} like an earlier image of another class: one of the two labels may be wrong. "
            "See the near duplicates below."
        )
    across = sum(not pair.same_split for pair in document.near_pairs)
    if across:
        yield (
            f"{_images_look(across)} like an earlier image on the other side of the split: scores on held-out images "
            "will be too good."
        )
    for found in document.tellings:
        if found.tells:
            yield (
                f"A classifier could tell {found.class_name} by {FACTS[found.fact].name} only "
                f"({_auc(found)}). Check that this shows the disease, and not {FACTS[found.fact].about}."
            )
    for name, counts in document.counts.items():
        if not counts["holdout"]:
            yield f"{name} has no held-out images, so nothing can be tested on it."
        elif document.patients[name]["train"] < 20:
            yield f"{name} has only {document.patients[name]['train']} patients to train on."


def _images_look(count: int) -> str:
    return "1 image looks" if count == 1 else f"{count} images look"


def _auc(found: Telling) -> str:
    return f"AUC {found.auc:.2f}, 95 % {found.low:.2f} to {found.high:.2f}"


def _counts(document: InspectionDocument) -> Iterator[tuple[str, ...]]:
    for name, counts in document.counts.items():
        patients = document.patients[name]
        yield (name, *(f"{counts[split]} of {patients[split]} patients" for split in SPLITS), str(sum(counts.values())))


def _left_out(document: InspectionDocument) -> Iterator[tuple[str, str]]:
    left_out = document.left_out
    for file in (*left_out.unused, *left_out.bad_files):
        yield file.source, file.reason
    for duplicate in left_out.exact_duplicates:
        yield duplicate.source, f"the same image as {duplicate.same_as}"
    for suffix, count in left_out.ignored_by_suffix.items():
        yield f"{count} files {suffix or 'without suffix'}", "not images"


def _facts(document: InspectionDocument) -> Iterator[tuple[str, ...]]:
    told = {found.fact: found for found in document.tellings}
    for key, by_class in document.facts.items():
        cells = []
        for name in document.counts:
            found = by_class.get(name)
            cells.append(f"{found.median:.4g} [{found.low:.4g}, {found.high:.4g}]" if found else "-")
        best = f"{told[key].class_name}: {_auc(told[key])}" if key in told else "the same in all, or too few patients"
        yield (f"{FACTS[key].name} ({FACTS[key].unit})", *cells, best)


def _histograms(document: InspectionDocument, data: PreparedSet, values: Values) -> Iterator[Markup]:
    """One figure for each fact that differs between images."""
    names = np.array([row.class_name for row in data.manifest])
    largest = sorted(document.counts, key=lambda name: -sum(document.counts[name].values()))[:CLASSES_DRAWN]
    for key, found in values.items():
        if found.min() < found.max():
            groups = {name: found[names == name] for name in document.counts if name in largest}
            yield histogram(FACTS[key].name.capitalize(), FACTS[key].unit, groups)


def _pairs(document: InspectionDocument, data: PreparedSet) -> Iterator[Markup]:
    """Near duplicates side by side; first those that have two labels or are on two sides of the split."""
    for pair in sorted(document.near_pairs, key=lambda pair: (pair.same_class, pair.same_split))[:PAIRS_SHOWN]:
        left, right = data.manifest[pair.like], data.manifest[pair.index]
        caption = (
            f"{left.source} ({left.class_name}, {left.split}) and {right.source} ({right.class_name}, {right.split})"
        )
        shown = np.stack([data.images[pair.like], data.images[pair.index]])
        yield picture(
            shown,
            2,
            f"Rows {pair.like} and {pair.index}" + ("" if pair.same_class else ": two labels"),
            caption,
            description=REAL,
            magnify=max(1, 160 // data.resolution),
        )


def _pair_rows(document: InspectionDocument, data: PreparedSet) -> Iterator[tuple[str, ...]]:
    for pair in document.near_pairs[:ROWS_SHOWN]:
        left, right = data.manifest[pair.like], data.manifest[pair.index]
        yield right.source, left.source, right.class_name, left.class_name, right.split, left.split


def _sheets(document: InspectionDocument, data: PreparedSet, seed: int) -> Iterator[Markup]:
    draw = np.random.default_rng(seed)
    for name in document.counts:
        own = data.indices(None, [name])
        if not len(own):
            continue
        chosen = draw.permutation(own)[:SHEET]
        columns = min(8, max(4, 512 // data.resolution))
        caption = f"{len(chosen)} of {len(own)}, drawn at random with seed {seed}."
        magnify = 3 if data.resolution <= 32 else max(1, 128 // data.resolution)
        yield picture(_of(data, chosen), columns, name, caption, description=REAL, magnify=magnify)


def _of(data: PreparedSet, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.stack([data.images[int(index)] for index in indices])
