"""A part of a prepared set, or a smaller copy of it: to try things quickly, to study small classes, to begin small."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from samgan.data.dataset import PreparedSet, take
from samgan.data.documents import ManifestRow, SubsetOf
from samgan.data.options import RESOLUTIONS
from samgan.data.selection import count
from samgan.data.write import finish_set, write_images
from samgan.errors import WARNING, UsageError
from samgan.files import PRIVATE, atomic_folder, check_new_folder, naming
from samgan.seeds import check_seed

AT_ONCE = 64
"""Images that are copied at a time."""


def subset(
    data: PreparedSet,
    out: Path,
    *,
    patients: Mapping[str, int] | None = None,
    images: Mapping[str, int] | None = None,
    classes: Sequence[str] = (),
    resolution: int | None = None,
    seed: int = 0,
    part: int = 0,
) -> PreparedSet:
    """Write a prepared set of some of the training images. All held-out images stay, so that results can be compared.

    Long because it has many options, each described below.

    Args:
        data: The prepared set.
        out: New folder.
        patients: For some classes, the number of random patients whose training images stay (all images of each).
        images: For other classes, the number of random training images that stay.
        classes: The classes that stay; default: all. A class that is in neither of the above keeps all its images.
        resolution: Side of the new images, by means over squares of pixels; default: that of the set. Preparing the
            source again might find other near duplicates, and hold out other images.
        seed: Seed of the choice. In part 0, that of a smaller number is part of that of a larger one by the same seed.
        part: 0 or more: which of the choices by one seed and numbers. They have no patient of a class in `patients`
            in common, and no image of one in `images`; a patient may have images in another class.

    Returns:
        The new set. `subset_of` in its dataset.json says which set it was taken from, and how.

    Raises:
        UsageError: A class is unknown, left out, or has both numbers; there are too few patients or images; the images
            are not larger than asked for, or it is no side that a set can have; or seed or part is out of range.
        SamganError: `out` is in use, or the set is damaged.
    """
    side = data.resolution if resolution is None else resolution
    patients, images, names = dict(patients or {}), dict(images or {}), list(classes) or data.classes
    check_seed(seed)
    if part < 0:
        raise UsageError(f"--part {part}: expected 0 or more")
    if part and not (patients or images):
        raise UsageError(f"--part {part}: expected a number of patients or of images, such as --patients NORMAL=125")
    _check(data, names, patients, images, side)
    check_new_folder(out)
    data.verify()
    order = _choose(data, names, patients, images, seed, part)
    rows = _renumber(data.manifest, order)
    taken = SubsetOf(
        name=data.path.resolve().name,
        sha256=data.sha256,
        seed=seed,
        patients=patients,
        images=images,
        resolution=side if side < data.resolution else None,
        part=part,
    )
    decides = dataclasses.asdict(taken)
    if not part:  # as before there were parts
        del decides["part"]
    info = dataclasses.replace(
        data.info,
        fingerprint=hashlib.sha256(f"{data.sha256} {decides}".encode()).hexdigest(),
        resolution=side,
        enlarged=None,
        leaks=None,
        notes=_notes(rows) if data.info.notes is not None else None,
        warnings=data.info.warnings and tuple(map(_of_whole, data.info.warnings)),
        subset_of=taken,
        **count(rows, data.groups(order), names),
    )
    if data.info.synthetic is None:  # prepared by an earlier version, which did not look
        info = dataclasses.replace(info, synthetic=None)
    with atomic_folder(out, PRIVATE) as folder:
        with naming(out), open(folder / "images.npy", "wb") as file:
            shape = (len(order), data.channels, side, side)
            parts = (take(data.images, np.array(order[at : at + AT_ONCE])) for at in range(0, len(order), AT_ONCE))
            write_images(file, shape, (_reduced(part, side) for part in parts))
        finish_set(folder, rows, info)
    return PreparedSet.open(out)


OF_WHOLE = "of the whole set: "


def _of_whole(sentence: str) -> str:
    """A warning about the set that the images are taken from: its numbers are not those of the new set."""
    rest = sentence.removeprefix(WARNING)
    return sentence if rest.startswith(OF_WHOLE) else f"{sentence[: len(sentence) - len(rest)]}{OF_WHOLE}{rest}"


def _notes(rows: Sequence[ManifestRow]) -> dict[str, int]:
    return dict(Counter(note for row in rows for note in row.notes.split("; ") if note))


def _check(
    data: PreparedSet, names: Sequence[str], patients: Mapping[str, int], images: Mapping[str, int], side: int
) -> None:
    """Refuse what cannot be taken."""
    if side not in RESOLUTIONS or side > data.resolution:
        allowed = ", ".join(str(one) for one in RESOLUTIONS if one <= data.resolution)
        raise UsageError(f"--resolution {side}: expected one of {allowed}, for images of {data.resolution} px")
    if len(set(names)) < len(names):
        raise UsageError(f"--classes {' '.join(names)}: a class is named twice")
    if twice := sorted(set(patients) & set(images)):
        raise UsageError(f"{twice[0]}: give a number of patients or of images, not both")
    if unknown := sorted({*patients, *images, *names} - set(data.classes)):
        raise UsageError(f"unknown class {unknown[0]}: {data.path} has {', '.join(data.classes)}")
    if left_out := sorted({*patients, *images} - set(names)):
        raise UsageError(f"{left_out[0]}: a number was given, but --classes leaves {left_out[0]} out: add it there")


def _reduced(images: UInt8[np.ndarray, "n c h w"], side: int) -> UInt8[np.ndarray, "n c side side"]:
    """Means over squares of pixels."""
    factor = images.shape[-1] // side
    if factor == 1:
        return images
    squares = images.reshape(*images.shape[:2], side, factor, side, factor)
    return np.rint(squares.mean(axis=(3, 5), dtype=np.float32)).astype(np.uint8)


def _renumber(manifest: Sequence[ManifestRow], order: Sequence[int]) -> list[ManifestRow]:
    """The rows of the images that stay, with their new positions."""
    place = {index: row for row, index in enumerate(order)}
    rows = []
    for index in order:
        near = manifest[index].near_duplicate_of
        if near is not None:
            # If the image that this one is a near duplicate of is left out, its first near duplicate replaces it.
            near = place.setdefault(near, place[index])
        near = None if near == place[index] else near
        rows.append(dataclasses.replace(manifest[index], index=place[index], near_duplicate_of=near))
    return rows


def _choose(
    data: PreparedSet,
    names: Sequence[str],
    patients: Mapping[str, int],
    images: Mapping[str, int],
    seed: int,
    part: int,
) -> list[int]:
    """Positions of the images that stay, ascending."""
    kept = set(data.indices("holdout", names).tolist())
    for name in names:
        own = data.indices("train", [name])
        draw = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")])
        if name in patients:
            own = np.array([i for i in own if not data.manifest[i].synthetic], dtype=int)  # they show no patient
            known = sorted({data.manifest[i].patient for i in own})
            chosen = {known[i] for i in _part(draw, len(known), patients[name], part, f"{name}: patients")}
            own = np.array([i for i in own if data.manifest[i].patient in chosen])
        elif name in images:
            own = own[_part(draw, len(own), images[name], part, f"{name}: training images")]
        kept.update(own.tolist())
    return sorted(kept)


def _part(draw: np.random.Generator, there: int, wanted: int, part: int, what: str) -> np.ndarray:
    if wanted * (part + 1) > there:
        parts = f" in part {part}" if part else ""
        raise UsageError(f"{what}: {wanted} were asked for{parts}, but there are only {there}")
    return draw.permutation(there)[wanted * part : wanted * (part + 1)]
