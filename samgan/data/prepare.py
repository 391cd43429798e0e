"""Turn a source of radiographs into a prepared set: images.npy, manifest.csv, dataset.json."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from samgan import __version__
from samgan.data import curation
from samgan.data.dataset import COLUMNS, FORMAT, SPLITS, PreparedSet, content_sha256
from samgan.data.readers import BadImageError, read_radiograph, strict_decoders
from samgan.data.sources import Entry, Source, close_sources, open_source, read_entries
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write, hash_json, write_json

ALGORITHM = 2
"""Raised whenever the same files and options would give other pixels or another manifest."""

FITS = ("crop", "pad", "stretch")
NORMALIZATIONS = ("none", "percentile", "clahe")
CHUNK_IMAGES = 128
THUMBNAIL_SIDE = 32
PARTIAL = ".partial"


class PixelOptions(NamedTuple):
    """The options that decide an image's pixels, and so which finished chunks can be taken up again."""

    resolution: int
    channels: int
    fit: str
    normalize: str


@dataclass
class Record:
    """What is known of one image of the source, in the order of the source."""

    entry: Entry
    sha256: str
    width: int
    height: int
    bits: int
    patient_key: str
    pixel_hash: bytes
    thumbnail: UInt8[np.ndarray, "s s"]
    patient: str = ""
    """Set once all are known."""


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    resolution: int = 64,
    channels: int = 1,
    fit: str = "crop",
    normalize: str = "none",
    duplicates: str = "drop",
    holdout: float = 0.2,
    patient_regex: str | None = None,
    max_bad: float = 0.01,
    workers: int | None = None,
    seed: int = 0,
) -> PreparedSet:
    """Read, fit, de-duplicate and split a source of radiographs into the folder `out`.

    An interrupted run is taken up where it stopped; a finished set of the same files and options is returned at once if
    its hash is right.

    Args:
        source: a folder with one sub-folder per class, a .zip of one, an .npz, or "medmnist:pneumoniamnist".
        out: folder to write; new, empty, unfinished, or prepared from this source where it now lies.
        resolution: side of the square images in pixels, a power of two from 8 to 1024.
        channels: 1 (grey) or 3.
        fit: "crop" (centre square), "pad" (black bars) or "stretch".
        normalize: "none", "percentile" (0.5 to 99.5 of each image) or "clahe" (adaptive histogram equalisation).
        duplicates: "drop" leaves exact duplicates out, "keep" keeps them together in one split.
        holdout: share of each class to hold out, in [0, 1).
        patient_regex: its first non-empty group in a file's relative path is the patient; None knows common namings.
        max_bad: share of unreadable files, in [0, 1], above which nothing is written.
        workers: threads that read images; None for one per core.
        seed: of the split.

    Returns:
        The prepared set, opened.

    Raises:
        UsageError: an option out of range, no such source, or `out` holds something else.
        SamganError: no images, too many bad ones, fewer than two distinct ones, or no space left.
    """
    options = {
        **{"resolution": resolution, "channels": channels, "fit": fit, "normalize": normalize},
        **{"duplicates": duplicates, "holdout": holdout, "patient_regex": patient_regex},
        **{"max_bad": max_bad, "seed": seed},
    }
    _check_options(options, workers)
    out = Path(out)
    opened = open_source(source)
    fingerprint = hash_json({"algorithm": ALGORITHM, "options": options, "files": opened.entries})
    finished = _finished_set(out, opened)
    if finished and finished.info["fingerprint"] == fingerprint and content_sha256(out) == finished.sha256:
        shutil.rmtree(out / PARTIAL, ignore_errors=True)
        return finished
    pixel_options = PixelOptions(resolution, channels, fit, normalize)
    try:
        with strict_decoders():  # here once, around all threads
            chunks = _prepare_chunks(opened, out / PARTIAL, pixel_options, workers)
        _assemble(opened, out, chunks, options, fingerprint)
    except OSError as error:
        remedy = "free some and run the same command again: " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        reason = error.strerror or str(error)
        raise SamganError(f"{out} cannot be written ({reason}): {remedy}finished images are kept") from error
    finally:
        close_sources()
    shutil.rmtree(out / PARTIAL)
    return PreparedSet.open(out)


def _check_options(options: dict[str, Any], workers: int | None) -> None:
    """Raise UsageError for the first option out of range."""
    powers = tuple(2**power for power in range(3, 11))
    allowed: dict[str, tuple[Any, ...]] = {
        "resolution": powers,
        "channels": (1, 3),
        "fit": FITS,
        "normalize": NORMALIZATIONS,
        "duplicates": ("drop", "keep"),
    }
    for name, values in allowed.items():
        if options[name] not in values:
            raise UsageError(f"{name} {options[name]!r} is not one of {', '.join(map(str, values))}")
    if not 0 <= options["holdout"] < 1:
        raise UsageError(f"holdout {options['holdout']} is not in [0, 1)")
    if not 0 <= options["max_bad"] <= 1:
        raise UsageError(f"max_bad {options['max_bad']} is not in [0, 1]")
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers} is not 1 or more")
    curation.patients_from_names([], options["patient_regex"])


def _finished_set(out: Path, source: Source) -> PreparedSet | None:
    """Return the set that `out` already holds, or None where there is none yet; refuse a folder of anything else."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise UsageError(f"{out} is not a folder")
    try:
        finished = PreparedSet.open(out)
    except SamganError:
        foreign = sorted(path.name for path in out.iterdir() if not _is_ours(path.name))
        if foreign:
            raise UsageError(f"{out} holds other files ({foreign[0]}): choose a new or empty folder") from None
        return None
    before = finished.info["source"]
    if before != source.name:
        raise UsageError(f"{out} was prepared from {before}, not {source.name}: choose another folder or remove it")
    if finished.info.get("source_id", source.id) != source.id:  # older sets have none
        raise UsageError(
            f"{out} was prepared from another {before}, not {source.path.resolve()}: choose another folder or remove it"
        )
    return finished


def _is_ours(name: str) -> bool:
    finished = name in (PARTIAL, "images.npy", "manifest.csv", "dataset.json")
    return finished or (name.startswith(".") and name.endswith(".tmp"))


# one image


def fit_image(
    pixels: Float32[np.ndarray, "c h w"], resolution: int, fit: str = "crop", normalize: str = "none"
) -> UInt8[np.ndarray, "c r r"]:
    """Resize one image to a square of `resolution` pixels, with antialiasing, and quantise it last.

    "crop" takes the largest centred square, "pad" keeps all and adds black bars, "stretch" keeps all and changes the
    proportions. Normalisation comes after resizing and before the bars, which would otherwise count as dark anatomy.

    Args:
        pixels: values in [0, 1].
        resolution: side of the result in pixels.
        fit: one of FITS.
        normalize: one of NORMALIZATIONS.

    Returns:
        The image in [0, 255].
    """
    height, width = pixels.shape[1:]
    side = min(height, width)
    top, left = ((height - side) / 2, (width - side) / 2) if fit == "crop" else (0, 0)
    box = (left, top, width - left, height - top)
    size = (resolution, resolution)
    if fit == "pad":
        longest = max(height, width)
        size = (max(1, round(resolution * width / longest)), max(1, round(resolution * height / longest)))
    resized = np.stack(
        [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS, box=box)) for plane in pixels]
    )
    normalized = _NORMALIZERS[normalize](resized.clip(0, 1))
    fitted = np.zeros((len(pixels), resolution, resolution), dtype=np.float32)
    top, left = (resolution - size[1]) // 2, (resolution - size[0]) // 2
    fitted[:, top : top + size[1], left : left + size[0]] = normalized
    return np.rint(fitted.clip(0, 1) * 255).astype(np.uint8)


def _stretch_percentiles(pixels: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c h w"]:
    low, high = np.percentile(pixels, (0.5, 99.5))
    return (pixels - np.float32(low)) / np.float32(high - low) if high > low else pixels


def _equalize_adaptively(pixels: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c h w"]:
    """Contrast-limited adaptive histogram equalisation; of the brightness alone in a colour image."""
    from skimage.exposure import equalize_adapthist

    if pixels.max() <= pixels.min():
        return pixels
    planes = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    equalized = np.atleast_3d(equalize_adapthist(planes)).astype(np.float32)
    return equalized.transpose(2, 0, 1)


_NORMALIZERS: dict[str, Callable[[Float32[np.ndarray, "c h w"]], Float32[np.ndarray, "c h w"]]] = {
    "none": lambda pixels: pixels,
    "percentile": _stretch_percentiles,
    "clahe": _equalize_adaptively,
}


# chunks: the unit of work, of progress and of restart


def _prepare_chunks(source: Source, partial: Path, options: PixelOptions, workers: int | None) -> list[Path]:
    """Write every chunk that is not yet there; return the chunks' files in the order of the source."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    jobs: list[tuple[Path, list[Entry]]] = []
    for start in range(0, len(source.entries), CHUNK_IMAGES):
        entries = source.entries[start : start + CHUNK_IMAGES]
        jobs.append((partial / f"{hash_json([ALGORITHM, options, source.name, entries])}.npz", entries))
    missing = [(file, entries) for file, entries in jobs if not file.exists()]
    partial.mkdir(parents=True, exist_ok=True)
    threads = min(workers or os.cpu_count() or 1, max(1, len(missing)))
    if source.path.suffix.lower() == ".npz" and source.path.is_file():
        threads = 1  # nothing is left to decode, and the arrays are loaded once
    columns = ("preparing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        done = len(source.entries) - sum(len(entries) for _, entries in missing)
        task = progress.add_task("", total=len(source.entries), completed=done)
        for count in _run_chunks(source.path, missing, options, threads):
            progress.advance(task, count)
    return [file for file, _ in jobs]


def _run_chunks(path: Path, jobs: list[tuple[Path, list[Entry]]], options: PixelOptions, threads: int) -> Iterator[int]:
    """Yield the number of images of each chunk as it is finished.

    In threads, since processes would import the caller's script again; decoders and numpy let them run side by side.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(_prepare_chunk, path, file, entries, options, stop) for file, entries in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            stop.set()  # Ctrl-C and a full disk wait for the images being read, not for their chunks
            pool.shutdown(cancel_futures=True)


def _prepare_chunk(path: Path, file: Path, entries: list[Entry], options: PixelOptions, stop: threading.Event) -> int:
    """Read and fit one chunk's images and write them, with what is known of each, to `file`."""
    images: list[UInt8[np.ndarray, "c r r"]] = []
    facts: list[dict[str, Any]] = []
    for entry, data in zip(entries, read_entries(path, entries), strict=True):
        if stop.is_set():
            raise CancelledError
        try:
            if isinstance(data, Exception):
                reason = str(data) or type(data).__name__  # zipfile's EOFError says nothing
                raise BadImageError(reason.replace(str(path / entry.path), entry.path)) from data
            radiograph = read_radiograph(data, options.channels)
        except BadImageError as error:
            facts.append({"bad": str(error)})
            continue
        images.append(fit_image(radiograph.pixels, options.resolution, options.fit, options.normalize))
        facts.append(
            {
                "sha256": hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest(),
                "height": radiograph.pixels.shape[1],
                "width": radiograph.pixels.shape[2],
                "bits": radiograph.bits,
                "patient_key": radiograph.patient_key,
            }
        )
    shape = (len(images), options.channels, options.resolution, options.resolution)
    with atomic_write(file) as opened:
        np.savez(
            opened,
            images=np.array(images, dtype=np.uint8).reshape(shape),
            facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
        )
    return len(entries)


def _load_chunk(file: Path) -> tuple[UInt8[np.ndarray, "n c h w"], list[dict[str, Any]]]:
    with np.load(file, allow_pickle=False) as chunk:
        return chunk["images"], json.loads(chunk["facts"].tobytes())


# from chunks to a set


def _assemble(source: Source, out: Path, chunks: list[Path], options: dict[str, Any], fingerprint: str) -> None:
    """Decide what stays and on which side, and write the three files, dataset.json last."""
    records, bad_files = _collect(source, chunks)
    if len(bad_files) > options["max_bad"] * len(source.entries):
        _forget_bad(source, chunks, bad_files)
        named = "; ".join(f"{bad['source']}: {bad['reason']}" for bad in bad_files[:3])
        raise SamganError(
            f"{len(bad_files)} of {len(source.entries)} files cannot be used, more than max_bad {options['max_bad']:g} "
            f"allows: {named}{'; ...' if len(bad_files) > 3 else ''}"
        )
    first = curation.duplicates_of_first([record.pixel_hash for record in records])  # equal files have equal pixels
    is_duplicate = first != np.arange(len(records))
    distinct = int((~is_duplicate).sum())
    if distinct < 2:
        raise SamganError(
            f"{source.name}: {distinct} distinct image left of {len(source.entries)} files ({int(is_duplicate.sum())} "
            f"exact duplicates, {len(bad_files)} bad): at least 2 are needed"
        )
    exact_pairs = [(int(first[index]), int(index)) for index in np.flatnonzero(is_duplicate)]
    near_pairs = curation.near_duplicates(np.stack([record.thumbnail for record in records]))
    split_by, matched_share = _identify_patients(records, options["patient_regex"])
    groups = curation.connected_groups([record.patient for record in records], exact_pairs + near_pairs)
    near_duplicate_of: dict[int, int] = {}
    for left, right in near_pairs:
        near_duplicate_of.setdefault(right, left)

    is_kept = ~is_duplicate if options["duplicates"] == "drop" else np.ones_like(is_duplicate)
    kept = np.flatnonzero(is_kept).tolist()
    patients = [records[index].patient for index in kept]
    classes = [records[index].entry.class_name for index in kept]
    splits = [records[index].entry.split for index in kept]
    kept_groups = [groups[index] for index in kept]
    if all(splits):
        split_by = "source"
    else:
        splits = curation.split_by_group(kept_groups, patients, classes, options["holdout"], options["seed"])

    place = {index: row for row, index in enumerate(kept)}
    published = _publishable_patients(records)
    rows = [
        {
            "index": place[index],
            "source": records[index].entry.path,
            "sha256": records[index].sha256,
            "width": records[index].width,
            "height": records[index].height,
            "bits": records[index].bits,
            "class": class_name,
            "patient": published.get(patient, patient),
            "split": split,
            # the first of several near ones is never a duplicate that was dropped
            "near_duplicate_of": place[near_duplicate_of[index]] if index in near_duplicate_of else "",
        }
        for index, class_name, patient, split in zip(kept, classes, patients, splits, strict=True)
    ]
    counts = Counter(zip(classes, splits, strict=True))
    info = {
        "format": FORMAT,
        "samgan": __version__,
        "source": source.name,
        "source_id": source.id,
        "images": len(rows),
        "channels": options["channels"],
        "resolution": options["resolution"],
        "classes": sorted(set(classes)),
        "counts": {name: {split: counts[name, split] for split in SPLITS} for name in sorted(set(classes))},
        "patients": len(set(patients)),
        "split_by": split_by,
        "matched_share": matched_share,
        "near_duplicates": sum(row["near_duplicate_of"] != "" for row in rows),
        "groups_on_both_sides": len(set(zip(kept_groups, splits, strict=True))) - len(set(kept_groups)),
        "enlarged": sum(_is_enlarged(records[index], options) for index in kept),
        "left_out": {
            "exact_duplicates": [
                {"source": records[right].entry.path, "same_as": records[left].entry.path}
                for left, right in exact_pairs
                if not is_kept[right]
            ],
            "bad_files": bad_files,
            "ignored_by_suffix": source.ignored,
        },
        "options": options,
        "fingerprint": fingerprint,
    }
    _write_set(out, chunks, is_kept, rows, info)


def _is_enlarged(record: Record, options: dict[str, Any]) -> bool:
    side = max if options["fit"] == "pad" else min
    return side(record.width, record.height) < options["resolution"]


def _write_set(
    out: Path, chunks: list[Path], is_kept: Bool[np.ndarray, " n"], rows: list[dict[str, Any]], info: dict[str, Any]
) -> None:
    """Write images.npy (streamed from the chunks), manifest.csv and dataset.json, in this order."""
    if (out / "dataset.json").exists():
        print(f"{out}: files or options have changed, or it is damaged: replacing the set", file=sys.stderr)
        (out / "dataset.json").unlink()
    for leftover in out.glob(".*.tmp"):
        leftover.unlink()

    header = io.BytesIO()
    shape = (info["images"], info["channels"], info["resolution"], info["resolution"])
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with atomic_write(out / "images.npy") as file:
        file.write(header.getvalue())
        start = 0
        for chunk in chunks:
            images, _ = _load_chunk(chunk)
            file.write(images[is_kept[start : start + len(images)]].tobytes())
            start += len(images)
    finish_set(out, rows, info)


def finish_set(out: Path, rows: list[dict[str, Any]], info: dict[str, Any]) -> None:
    """Write manifest.csv and dataset.json beside an images.npy; `rows` and `info` are what they hold."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(out / "manifest.csv") as file:
        file.write(table.getvalue().encode("utf-8", "surrogateescape"))
    write_json(out / "dataset.json", {**info, "sha256": content_sha256(out)})


def _forget_bad(source: Source, chunks: list[Path], bad_files: list[dict[str, str]]) -> None:
    """Delete the chunks with bad files, so that the next run reads them again: it may have the decoder they lack."""
    bad_paths = {bad["source"] for bad in bad_files}
    for number, chunk in enumerate(chunks):
        start = number * CHUNK_IMAGES
        if any(entry.path in bad_paths for entry in source.entries[start : start + CHUNK_IMAGES]):
            chunk.unlink()


def _collect(source: Source, chunks: list[Path]) -> tuple[list[Record], list[dict[str, str]]]:
    """Gather from the chunks all but the images themselves."""
    records: list[Record] = []
    bad_files: list[dict[str, str]] = []
    for number, file in enumerate(chunks):
        images, facts = _load_chunk(file)
        pending = iter(zip(images, _thumbnails(images), strict=True))
        start = number * CHUNK_IMAGES
        for entry, fact in zip(source.entries[start : start + CHUNK_IMAGES], facts, strict=True):
            if "bad" in fact:
                bad_files.append({"source": entry.path, "reason": fact["bad"]})
                continue
            image, thumbnail = next(pending)
            pixel_hash = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            records.append(Record(entry=entry, pixel_hash=pixel_hash, thumbnail=thumbnail, **fact))
    return records, bad_files


def _thumbnails(images: UInt8[np.ndarray, "n c h w"]) -> UInt8[np.ndarray, "n s s"]:
    """Average the channels, and blocks of pixels down to 32x32 (less where the images are smaller)."""
    count, channels, resolution, _ = images.shape
    side = min(THUMBNAIL_SIDE, resolution)
    blocks = images.reshape(count, channels, side, resolution // side, side, resolution // side)
    return np.rint(blocks.mean(axis=(1, 3, 5), dtype=np.float32)).astype(np.uint8)


def _identify_patients(records: list[Record], pattern: str | None) -> tuple[str, float]:
    """Set each record's patient; return what told, and for which share of the images.

    A pattern that was asked for goes before DICOM's PatientID, and that before the default pattern. An image that
    tells nothing is its own patient, named by its path.
    """
    named = curation.patients_from_names([record.entry.path for record in records], pattern)
    keys = [record.patient_key for record in records]
    if len(set(keys) - {""}) < 2:  # the one ID of an anonymised set tells nothing
        keys = [""] * len(records)
    from_dicom, from_names = 0, 0
    for record, name, key in zip(records, named, keys, strict=True):
        by_name = bool(name) and (pattern is not None or not key)
        record.patient = (name if by_name else key) or record.entry.path
        from_names += by_name
        from_dicom += bool(key) and not by_name
    told = from_names + from_dicom
    if told == 0:
        return "image", 0.0
    by = "DICOM PatientID" if from_dicom > from_names else "file names"
    if told < len(records):
        percent = max(1, 100 * told // len(records))  # rounded down: not 100 while one is missing
        return f"patient ({by}; {percent} % of images), else image", told / len(records)
    return f"patient ({by})", 1.0


def _publishable_patients(records: list[Record]) -> dict[str, str]:
    """Map each hashed PatientID to a salted prefix.

    The salt is made of all the set's IDs together: a short ID cannot be found by trying all short IDs, and the same
    set gives the same manifest.
    """
    keys = sorted({record.patient_key for record in records} - {""})
    salt = "".join(keys)
    return {key: hashlib.sha256(f"{salt}{key}".encode()).hexdigest()[:16] for key in keys}
