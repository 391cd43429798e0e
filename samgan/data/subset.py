"""Take fewer training images of a prepared set: to learn what a small class is worth, or to try things quickly."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from samgan.data.dataset import PreparedSet
from samgan.data.documents import ManifestRow, SubsetOf
from samgan.data.selection import count
from samgan.data.write import finish_set
from samgan.errors import UsageError
from samgan.files import atomic_write, check_new_folder


def subset(
    data: PreparedSet,
    out: Path,
    *,
    patients: Mapping[str, int] | None = None,
    images: Mapping[str, int] | None = None,
    classes: Sequence[str] = (),
    seed: int = 0,
) -> PreparedSet:
    """Write a prepared set of some of the training images; held-out images all stay, so that results compare.

    Args:
        data: The prepared set.
        out: New folder.
        patients: By class, of how many random patients its training images stay, all of each.
        images: By class, how many random training images stay.
        classes: Classes that stay; default: all. Of one that is not named above all images stay.
        seed: Of the choice. A smaller number of the same seed is part of a larger one.

    Returns:
        The new set; `subset_of` in its dataset.json tells what it was taken from, and how.

    Raises:
        UsageError: An unknown class, one named twice, or more patients or images than there are.
        SamganError: `out` is in use, or the set is damaged.
    """
    patients, images = dict(patients or {}), dict(images or {})
    names = list(classes) or data.classes
    if twice := sorted(set(patients) & set(images)):
        raise UsageError(f"{twice[0]}: patients or images, not both")
    if unknown := sorted({*patients, *images, *names} - set(data.classes)):
        raise UsageError(f"unknown class {unknown[0]}: {data.path} has {', '.join(data.classes)}")
    if left_out := sorted({*patients, *images} - set(names)):
        raise UsageError(f"--classes leaves {left_out[0]} out, and a number of it is asked for")
    check_new_folder(out)
    data.verify()
    kept = set(data.indices("holdout", names).tolist())
    for name in names:
        own = data.indices("train", [name])
        draw = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")])
        if name in patients:
            known = sorted({data.manifest[i].patient for i in own})
            chosen = {known[i] for i in _first(draw, len(known), patients[name], f"{name}: patients")}
            own = np.array([i for i in own if data.manifest[i].patient in chosen])
        elif name in images:
            own = own[_first(draw, len(own), images[name], f"{name}: training images")]
        kept.update(own.tolist())
    order = sorted(kept)
    rows = _renumber(data.manifest, order)
    taken = SubsetOf(name=data.path.resolve().name, sha256=data.sha256, seed=seed, patients=patients, images=images)
    info = dataclasses.replace(
        data.info,
        fingerprint=hashlib.sha256(f"{data.sha256} {dataclasses.asdict(taken)}".encode()).hexdigest(),
        enlarged=None,
        subset_of=taken,
        **count(rows, data.groups(order), names),
    )
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "images.npy") as file:
        np.save(file, np.asarray(data.images[order]))
    finish_set(out, rows, info)
    return PreparedSet.open(out)


def _renumber(manifest: Sequence[ManifestRow], order: Sequence[int]) -> list[ManifestRow]:
    """The rows of the images that stay, with their new places."""
    place = {index: row for row, index in enumerate(order)}
    rows = []
    for index in order:
        near = manifest[index].near_duplicate_of
        if near is not None:
            # The image that this one is like may be left out. Then the first that stays of those like it replaces it.
            near = place.setdefault(near, place[index])
        near = None if near == place[index] else near
        rows.append(dataclasses.replace(manifest[index], index=place[index], near_duplicate_of=near))
    return rows


def _first(draw: np.random.Generator, there: int, wanted: int, what: str) -> np.ndarray:
    if wanted > there:
        raise UsageError(f"{what}: {wanted} were asked for, there are {there}")
    return draw.permutation(there)[:wanted]
