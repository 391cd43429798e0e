"""Look at a prepared set before anything is trained on it: counts, what is wrong, and what could give a class away."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from samgan.data.dataset import PreparedSet, check_prepared, take
from samgan.data.documents import Leak, LeftOut, ManifestRow
from samgan.data.findings import find_leaks
from samgan.data.inspection.documents import (
    TELLS,
    InspectionDocument,
    NearPair,
    Quantiles,
    SourceCount,
    Telling,
    Values,
)
from samgan.data.inspection.page import write_inspection_page
from samgan.errors import UsageError
from samgan.files import Location

AT_ONCE = 1 << 22
"""Pixels that are measured at a time, those of 1,024 images of 64 px."""
FEW = 5
"""With fewer patients, a class is too small to say what tells it."""


def inspect(
    data: PreparedSet, *, out: Location | None = None, pictures: bool = True, seed: int = 0
) -> tuple[InspectionDocument, Path]:
    """Look at a prepared set before anything is trained on it, and write what is found as a page.

    Args:
        data: The set.
        out: The page to write; default: data.html in the set's folder. An older page is replaced.
        pictures: Whether the page may contain images of the set.
        seed: Of the choice of the images that are shown.

    Returns:
        What was found, and the page.

    Raises:
        UsageError: `out` is a folder.
        SamganError: The set is damaged.
    """
    check_prepared(data)
    path = Path(out) if out is not None else data.path / "data.html"
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder: name a file")
    data.verify()
    values = measure(data)
    document = describe(data, values)
    write_inspection_page(path, document, data, values, pictures=pictures, seed=seed)
    return document, path


def describe(data: PreparedSet, values: Values) -> InspectionDocument:
    """What there is to say of a set, from its documents and the facts of its images."""
    rows, info = data.manifest, data.info
    members = {name: np.array([row.class_name == name for row in rows]) for name in data.classes}
    patients = {name: {split: set[str]() for split in info.counts[name]} for name in data.classes}
    for row in rows:
        if not row.synthetic:
            patients[row.class_name][row.split].add(row.patient)
    return InspectionDocument(
        data=data.used(split="all"),
        source=info.source,
        images=info.images,
        resolution=info.resolution,
        counts=info.counts,
        patients={name: {split: len(known) for split, known in found.items()} for name, found in patients.items()},
        sources=tuple(_sources(rows)),
        facts={
            key: {name: _quantiles(found[is_member]) for name, is_member in members.items() if is_member.any()}
            for key, found in values.items()
        },
        tellings=tuple(sorted(_tellings(rows, values, data.classes), key=lambda found: -found.auc)),
        near_pairs=tuple(
            NearPair(
                index=row.index,
                like=like,
                same_class=rows[like].class_name == row.class_name,
                same_split=rows[like].split == row.split,
            )
            for row in rows
            if (like := row.near_duplicate_of) is not None
        ),
        left_out=info.left_out or LeftOut(),
        notes=info.notes or {},
        warnings=info.warnings or (),
        leaks=_leaks(data),
    )


def _leaks(data: PreparedSet) -> tuple[Leak, ...]:
    """What `samgan prepare` found on both sides of the split; of a subset, what can be told from its manifest."""
    if data.info.leaks is not None:
        return data.info.leaks
    real = [row for row in data.manifest if not row.synthetic]
    return tuple(find_leaks(real, [("patients", [row.patient for row in real])]))


def measure(data: PreparedSet) -> Values:
    """The facts of every image, in the order of the manifest."""
    of_pixels: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "brightness": lambda images: images.mean(axis=(1, 2)),
        "contrast": lambda images: images.std(axis=(1, 2)),
        "sharpness": lambda images: (
            (np.abs(np.diff(images, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(images, axis=2)).mean(axis=(1, 2))) / 2
        ),
        "black": lambda images: (images == 0).mean(axis=(1, 2)),
        "white": lambda images: (images == 255).mean(axis=(1, 2)),
    }
    found: dict[str, list[np.ndarray]] = {key: [] for key in of_pixels}
    at_once = max(1, AT_ONCE // data.resolution**2)
    for start in range(0, len(data.images), at_once):
        part = np.arange(start, min(start + at_once, len(data.images)))
        images = take(data.images, part).mean(axis=1, dtype=np.float32)  # channels
        for key, function in of_pixels.items():
            found[key].append(function(images))
    values: Values = {key: np.concatenate(parts).astype(np.float64) for key, parts in found.items()}
    width, height = (np.array([getattr(row, side) for row in data.manifest], float) for side in ("width", "height"))
    bits = np.array([row.bits for row in data.manifest], float)
    return values | {"width": width, "height": height, "shape": width / height, "bits": bits}


def _quantiles(values: Float[np.ndarray, " n"]) -> Quantiles:
    low, median, high = (float(value) for value in np.quantile(values, (0.05, 0.5, 0.95)))
    return Quantiles(low=low, median=median, high=high)


def _tellings(rows: Sequence[ManifestRow], values: Values, classes: Sequence[str]) -> Iterator[Telling]:
    """For each fact that is not the same everywhere, the class that it tells best."""
    from samgan.metrics.auc import grouped_auc  # scipy takes a second, which `prepare` need not wait for

    _, patients = np.unique([row.patient for row in rows], return_inverse=True)
    names = np.array([row.class_name for row in rows])
    sides = []
    for name in classes if len(classes) > 2 else classes[:1]:
        inside = names == name
        if min(len(np.unique(patients[inside])), len(np.unique(patients[~inside]))) >= FEW:
            sides.append((name, inside))
    for key, found in values.items():
        if not sides or found.min() == found.max():
            continue
        best: Telling | None = None
        for name, inside in sides:
            share = grouped_auc(found[inside], found[~inside], patients[inside], patients[~inside])
            value, low, high = share.value, share.low, share.high
            if value < 0.5:
                value, low, high = 1 - value, 1 - high, 1 - low
            if best is None or value > best.auc:
                best = Telling(fact=key, class_name=name, auc=value, low=low, high=high, tells=low > TELLS)
        if best:
            yield best


def _sources(rows: Sequence[ManifestRow]) -> Iterator[SourceCount]:
    folders: Counter[tuple[str, str, str, str]] = Counter()
    for row in rows:
        suffix = PurePosixPath(row.source).suffix.lower() or "no suffix"
        folders[_folder(row), f"{suffix}, {row.bits} bits", row.class_name, row.split] += 1
    for (folder, kind, name, split), images in sorted(folders.items()):
        yield SourceCount(folder=folder, kind=kind, class_name=name, split=split, images=images)


def _folder(row: ManifestRow) -> str:
    return next((part for part in PurePosixPath(row.source).parts[:-1] if part != row.class_name), "")
