"""Find duplicates and patients, and split the images so that no patient is on both sides."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from samgan.errors import UsageError

# One alternative per public set: Kermany (two naming schemes), this package's phantoms, NIH ChestX-ray14, whose numbers
# go up to 00030805: eight digits may also be a date.
PATIENT_REGEX = r"(?:^|/)(?:(person\d+)_|(?:NORMAL\d*-)?(IM-\d+)-\d+|(phantom\d+)_|(000\d{5})_\d{3}\.)[^/]*$"
SERIES = re.compile(r"IM-\d+")
"""A patient of Kermany's set by PATIENT_REGEX; but viewers such as Horos number the series of a patient like this."""

HASH_DISTANCE_BITS = 10
CORRELATION = 0.98
# Measured on Kermany's 5,216 radiographs: two different ones have a correlation of 0.974 at most. A copy stays above
# 0.98 and within 8 bits after JPEG of quality 10, half or double size, a change of exposure, noise, and nearly always
# after a crop by 1 %. After a crop by 4 % it does not.
BLOCK, PAIRS_AT_ONCE = 1024, 2048  # images, and pairs of them, that are compared at a time: they bound the memory
MANY_PAIRS = 5000  # of a block; above it, one product for all pairs is faster than gathering those that are close


def duplicates_of_first(keys: Sequence[Hashable]) -> Int[np.ndarray, " n"]:
    """Return for each position the first position with the same key, which may be the position itself."""
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, index) for index, key in enumerate(keys)], dtype=np.int64)


def perceptual_hashes(thumbnails: UInt8[np.ndarray, "n s s"]) -> Bool[np.ndarray, "n 64"]:
    """Hash each thumbnail's coarse structure to 64 bits.

        bit_k = [DCT_k > median(DCT)],   over the 8x8 lowest frequencies; the mean grey's bit is 0

    Two images that differ by compression, scale or exposure differ in few bits.

    Args:
        thumbnails: grey images in [0, 255], side 8 or more.

    Returns:
        One hash per image; compare by Hamming distance.

    Source: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions" (pHash).
    """
    side = thumbnails.shape[-1]
    positions = np.arange(side) + 0.5
    basis = np.cos(np.pi / side * np.arange(8)[:, None] * positions).astype(np.float32)  # DCT-II, rows by frequency
    coefficients = (basis @ thumbnails.astype(np.float32) @ basis.T).reshape(len(thumbnails), 64)
    bits = coefficients > np.median(coefficients[:, 1:], axis=1, keepdims=True)
    bits[:, 0] = False
    return bits


class NearDuplicates(NamedTuple):
    """Which images show the same exposure as others."""

    first: Int[np.ndarray, " n"]
    """For each image the position of the earliest one that it is a near duplicate of; -1 if there is none before it."""
    group: Int[np.ndarray, " n"]
    """For each image the smallest position in its group; chains of near duplicates are one group."""


def near_duplicates(thumbnails: UInt8[np.ndarray, "n s s"]) -> NearDuplicates:
    """Find the images that show the same exposure, whatever the file format, scale or contrast.

    Two images are near duplicates if their hashes differ in at most 10 of 64 bits and the correlation of their
    thumbnails is 0.98 or more.

    Pairs are not listed, since n like images have n^2 / 2 of them. A pair is compared only as long as its images are
    in different groups: afterwards it cannot tell anything new.
    """
    count = len(thumbnails)
    found = NearDuplicates(np.full(count, -1), np.arange(count))
    signs = np.where(perceptual_hashes(thumbnails), np.float32(1), np.float32(-1))
    # 5e9 pairs of hashes (100,000 images) take about ten seconds.
    for top in range(0, count, BLOCK):
        for left in range(top, count, BLOCK):
            rows, columns = slice(top, top + BLOCK), slice(left, left + BLOCK)
            close = signs[rows] @ signs[columns].T >= 64 - 2 * HASH_DISTANCE_BITS  # product = 64 - 2 * distance
            if top == left:
                close = np.triu(close, 1)
            if np.count_nonzero(close) > MANY_PAIRS:  # few blocks; comparing the groups of all pairs takes longer
                close &= found.group[rows, None] != found.group[columns]
            if np.count_nonzero(close) > MANY_PAIRS:
                # One product for all pairs. Its last digits are not those of the sum below, which decides.
                product = _standardized(thumbnails[rows]) @ _standardized(thumbnails[columns]).T
                close &= product >= CORRELATION - 1e-4
            # For a block without pairs, nearly every one, this takes 0.03 ms, and np.nonzero 4 ms.
            earlier, later = np.divmod(np.flatnonzero(close), close.shape[1])
            earlier, later = earlier + top, later + left
            apart = found.group[earlier] != found.group[later]
            _join(thumbnails, found, earlier[apart], later[apart])
    return found


def _join(
    thumbnails: UInt8[np.ndarray, "n s s"],
    found: NearDuplicates,
    earlier: Int[np.ndarray, " m"],
    later: Int[np.ndarray, " m"],
) -> None:
    """Compare pairs of images, in order of the earlier one, and enter into `found` those that are near duplicates."""
    for start in range(0, len(earlier), PAIRS_AT_ONCE):
        left, right = (places[start : start + PAIRS_AT_ONCE] for places in (earlier, later))
        apart = found.group[left] != found.group[right]
        left, right = left[apart], right[apart]
        if not len(left):
            continue
        near = (_standardized(thumbnails[left]) * _standardized(thumbnails[right])).sum(axis=1) >= CORRELATION
        for one, other in zip(left[near].tolist(), right[near].tolist(), strict=True):
            if found.first[other] < 0:  # all images before `other` were compared with it before those after it
                found.first[other] = one
            low, high = sorted((int(found.group[one]), int(found.group[other])))
            if low != high:
                found.group[found.group == high] = low


def _standardized(images: UInt8[np.ndarray, "n s s"]) -> Float32[np.ndarray, "n p"]:
    """Shift and scale each image to mean 0 and norm 1; a constant image becomes zeros."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def patients_from_names(paths: Sequence[str], pattern: str | None = None) -> list[str]:
    """Return the patient that each path names, or an empty string.

    Args:
        paths: relative paths with forward slashes.
        pattern: regular expression to search for in the path; its first non-empty group is the patient. None: the
            default.

    Raises:
        UsageError: the pattern is not a regular expression or has no group.
    """
    try:
        regex = re.compile(PATIENT_REGEX if pattern is None else pattern)
    except re.error as error:
        raise UsageError(f"--patient-regex {pattern!r} is not a valid regular expression: {error}") from None
    if not regex.groups:
        raise UsageError(
            f"--patient-regex {pattern!r} has no group: put parentheses around the part that names the patient, "
            "such as '(P[0-9]+)_'"
        )
    matches = (regex.search(path) for path in paths)
    return [next((group for group in match.groups() if group), "") if match else "" for match in matches]


def connected_groups(patients: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Group the images of one patient, and those of patients who share a duplicate.

    Args:
        patients: one name per image.
        pairs: positions of images that are duplicates of each other.

    Returns:
        For each image the number of its group: the position of the group's first image.
    """
    from scipy.cluster.hierarchy import DisjointSet  # imported here, since opening a set does not need it

    joined = DisjointSet(patients)
    for left, right in pairs:
        joined.merge(patients[left], patients[right])
    return duplicates_of_first([joined[patient] for patient in patients]).tolist()


def split_by_group(
    groups: Sequence[int], patients: Sequence[str], classes: Sequence[str], holdout: float, seed: int
) -> list[str]:
    """Choose whole groups for the holdout until every class has about its share.

    Groups are visited in the order of SHA-256(seed, patient). A group is taken if that brings the classes' shares
    closer to `holdout`. Nothing else counts, so the order of the files does not matter.

    Args:
        groups: one number per image; images of one group stay together.
        patients: one name per image; the hash of a group is the smallest hash of its patients.
        classes: one class per image.
        holdout: wanted share of each class, in [0, 1).
        seed: another seed gives another split.

    Returns:
        "train" or "holdout" per image. With two groups or more and `holdout` above 0, both occur.
    """
    names = sorted(set(classes))
    order: dict[int, str] = {}
    counts: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(len(names)))
    for group, patient, class_name in zip(groups, patients, classes, strict=True):
        key = hashlib.sha256(f"{seed}\0{patient}".encode("utf-8", "surrogateescape")).hexdigest()
        order[group] = min(order.get(group, key), key)
        counts[group][names.index(class_name)] += 1
    totals = np.sum(list(counts.values()), axis=0)
    shares = {group: count / totals for group, count in counts.items()}
    ranked = sorted(order, key=order.__getitem__)

    missing = np.full(len(names), float(holdout))
    chosen = set()
    for group in ranked:
        if np.square(missing - shares[group]).sum() < np.square(missing).sum():
            chosen.add(group)
            missing = missing - shares[group]
    if holdout > 0 and not chosen and len(ranked) > 1:
        chosen.add(min(ranked, key=lambda group: float(np.square(missing - shares[group]).sum())))
    if len(chosen) == len(ranked):
        chosen.discard(ranked[-1])
    return ["holdout" if group in chosen else "train" for group in groups]
