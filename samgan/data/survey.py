"""Find the bit depth of a source: one for all images whose format does not declare it."""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from samgan.data.budget import FILES, PICTURES
from samgan.data.jobs import Job, bytes_of, is_arrays, run_jobs
from samgan.data.options import ALGORITHM, BITS
from samgan.data.readers import lacks_depth, read_extremes
from samgan.data.readers.metadata import PNG_MAGIC
from samgan.data.readers.radiograph import FEW_LEVELS, Extremes, Scale, Scales, scale_for
from samgan.data.sources import Entry, Source, read_entries, read_heads
from samgan.errors import WARNING, shown
from samgan.files import atomic_write, hash_json

SURVEYED_IMAGES = 128
"""In one job, whose result is kept for a restart."""
DARK = 1 / 16
"""An image whose largest value is below this share of the full scale is counted as dark."""
RARE = 0.05
"""If at most this share of the images has values that need the depth, it is said which they are."""
FOUND = "one depth for the source"
DECLARED = "declared with --bits"


class _Measured(NamedTuple):
    """One image whose format does not declare a bit depth."""

    extremes: Extremes
    path: str
    """In the source."""


class Survey(NamedTuple):
    """What was found."""

    scales: Scales
    sentences: tuple[str, ...]
    """What was decided, for people."""


def survey_depth(source: Source, partial: Path, bits: int | None, workers: int | None) -> Survey:
    """Find the scales of a source.

    Only images whose format does not declare the depth are read (16-bit grey PNG and TIFF, arrays that are not uint8).
    A declared depth still leaves open where negative values and floating-point numbers lie, so those are read then too.

    Args:
        source: what `open_source` gave.
        partial: folder in which the result is kept for a restart.
        bits: the declared depth; None: the smallest that holds the largest value of the source.
        workers: number of threads; None for one per core.
    """
    entries = _candidates(source, bits, workers)
    jobs = []
    for start in range(0, len(entries), SURVEYED_IMAGES):
        part = entries[start : start + SURVEYED_IMAGES]
        jobs.append(Job(partial / f"survey-{hash_json([ALGORITHM, source.name, part])}.json", part))

    def measure(job: Job, stop: threading.Event) -> None:
        _measure(source.path, job, stop)

    if jobs:
        run_jobs("finding the bit depth", source, jobs, measure, workers)
    found = [_Measured(Extremes(*row), path) for job in jobs for *row, path in json.loads(job.file.read_text("utf-8"))]
    integers = _decide("16-bit and 32-bit images", [each for each in found if not each.extremes.is_float], bits)
    floats = _decide("floating-point images", [each for each in found if each.extremes.is_float], bits)
    if bits is not None and integers.scale is None:
        integers = _Decision(Scale(0.0, 2.0**bits - 1, bits, DECLARED), ())
    return Survey(Scales(integers.scale, floats.scale), (*integers.sentences, *floats.sentences))


def forget_survey(partial: Path) -> None:
    """Delete the kept result: some file that could not be read may be readable next time."""
    for file in partial.glob("survey-*.json"):
        file.unlink()


def _candidates(source: Source, bits: int | None, workers: int | None) -> list[Entry]:
    """The entries whose first bytes say that they may have to be measured."""

    def choose(entries: Sequence[Entry]) -> list[Entry]:
        heads = read_heads(source.path, entries)
        return [entry for entry, head in zip(entries, heads, strict=True) if _must_be_measured(head, bits)]

    parts = [source.entries[start : start + 1024] for start in range(0, len(source.entries), 1024)]
    if is_arrays(source.path):
        return [entry for part in parts for entry in choose(part)]
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return [entry for part in pool.map(choose, parts) for entry in part]


def _must_be_measured(head: bytes | Shaped[np.ndarray, "..."], bits: int | None) -> bool:
    if not lacks_depth(head):
        return False
    if bits is None:
        return True
    return head.dtype.kind != "u" if isinstance(head, np.ndarray) else not head.startswith(PNG_MAGIC)


def _measure(path: Path, job: Job, stop: threading.Event) -> None:
    """Write the extremes of those images of a job that do not declare their depth."""
    found: list[tuple[float | str, ...]] = []
    contents = read_entries(path, job.entries)
    for entry in job.entries:
        if stop.is_set():
            raise CancelledError
        with FILES.holding(bytes_of(path, entry)), PICTURES.reservation() as reserve:
            data = next(contents)
            extremes = None if isinstance(data, Exception) else read_extremes(data, reserve)
            data = b""
        if extremes is not None:
            found.append((*extremes, entry.path))
    with atomic_write(job.file) as opened:
        opened.write(json.dumps(found).encode())


class _Decision(NamedTuple):
    scale: Scale | None
    sentences: tuple[str, ...]


def _decide(what: str, found: list[_Measured], bits: int | None) -> _Decision:
    """The scale of images of one kind, and what is to be said about it."""
    if not found:
        return _Decision(None, ())
    low, high = min(each.extremes.low for each in found), max(each.extremes.high for each in found)
    scale = scale_for(low, high, is_float := found[0].extremes.is_float)
    black = f"the smallest value in the source, {low:,.10g}, is shown black"
    if is_float and scale.bits == 32 and scale.low >= -1 and scale.high <= 1:
        if scale.low == 0:
            return _Decision(scale, (f"{what}: values are within 0 and 1, and stay as they are",))
        return _Decision(scale, (f"{what}: values are within -1 and 1; -1 is shown black and 1 white",))
    if is_float and scale.high - scale.low < FEW_LEVELS:
        scale = scale._replace(origin=FOUND)
        said = [f"{what}: white is the largest value in the source, {high:,.10g}, since the values span less than "]
        said[0] += f"{FEW_LEVELS}" + (f"; {black}" if low < 0 else "")
    elif bits is not None:
        scale = Scale(scale.low, scale.low + 2**bits - 1, bits, DECLARED)
        said = [] if low >= 0 else [f"{what}: {black}"]
    else:
        scale = scale._replace(origin=FOUND)
        depth = f"depth {scale.bits} bits" if scale.bits < 32 else f"white is {high:,.10g}"
        black = f" and the smallest, {low:,.10g}, is shown black" if low < 0 else ""
        said = [
            f"{what}: {depth}, since the largest value in the source is {high:,.10g}{black}; --bits declares another"
        ]
    return _Decision(scale, (*said, *_warn_of_dark(what, found, scale)))


def _warn_of_dark(what: str, found: list[_Measured], scale: Scale) -> Iterator[str]:
    """Say that images will be dark because others have much larger values, such as marks that were burned in."""
    span = scale.high - scale.low
    dark = [each for each in found if each.extremes.high - scale.low < DARK * span]
    if scale.origin == DECLARED:
        if dark:
            yield f"{WARNING}{what}: {len(dark)} of {len(found)} use less than 1/16 of the declared depth: nearly black"
        return
    brightest = max(found, key=lambda each: each.extremes.high)
    others = [each for each in found if each.extremes.high - scale.low <= span / 4]
    if not dark and not len(found) * (1 - RARE) <= len(others) < len(found):
        return
    few = f"{len(dark)} of {len(found)} use less than 1/16 of this depth and will be nearly black"
    if not dark:
        few = f"{len(others)} of {len(found)} use less than a quarter of this depth and will be dark"
    fitting = scale_for(scale.low, max(each.extremes.high for each in dark or others), found[0].extremes.is_float).bits
    declare = f", or add --bits {fitting}, which leaves this file out" if fitting in BITS else ""
    yield (
        f"{WARNING}{what}: {few}. The largest value is in {shown(brightest.path)}. If that value is an error, "
        f"such as a burned-in mark, correct or remove the file{declare}. If the images come from several detectors, "
        "prepare one set for each"
    )
