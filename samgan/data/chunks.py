"""Read a source in chunks of images. A chunk is the unit of work, of progress and of restart."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from samgan.data.documents import BadFile
from samgan.data.fit import fit_image
from samgan.data.options import ALGORITHM, PixelOptions
from samgan.data.readers import BadImageError, read_radiograph
from samgan.data.sources import Entry, Source, read_entries
from samgan.files import atomic_write, hash_json
from samgan.terminal import console

CHUNK_IMAGES = 128
THUMBNAIL_SIDE = 32


@dataclass(frozen=True)
class Record:
    """What is known about one image of the source."""

    entry: Entry
    sha256: str
    width: int
    height: int
    bits: int
    patient_key: str
    study_key: str
    view: str
    is_synthetic: bool
    notes: tuple[str, ...]
    pixel_hash: bytes
    thumbnail: UInt8[np.ndarray, "s s"]


def prepare_chunks(source: Source, partial: Path, options: PixelOptions, workers: int | None) -> list[Path]:
    """Write the chunks that are missing in `partial`; return the files of all chunks, in the order of the source."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    jobs: list[tuple[Path, list[Entry]]] = []
    for start in range(0, len(source.entries), CHUNK_IMAGES):
        entries = source.entries[start : start + CHUNK_IMAGES]
        jobs.append((partial / f"{hash_json([ALGORITHM, options, source.name, entries])}.npz", entries))
    missing = [(file, entries) for file, entries in jobs if not file.exists()]
    partial.mkdir(parents=True, exist_ok=True)
    threads = min(workers or os.cpu_count() or 1, max(1, len(missing)))
    if source.path.suffix.lower() == ".npz" and source.path.is_file():
        threads = 1  # there is nothing to decode, and the arrays are loaded once
    columns = ("preparing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console()) as progress:
        done = len(source.entries) - sum(len(entries) for _, entries in missing)
        task = progress.add_task("", total=len(source.entries), completed=done)
        for count in _run_chunks(source.path, missing, options, threads):
            progress.advance(task, count)
    return [file for file, _ in jobs]


def _run_chunks(path: Path, jobs: list[tuple[Path, list[Entry]]], options: PixelOptions, threads: int) -> Iterator[int]:
    """Yield the number of images of each chunk as it is finished.

    The workers are threads: processes would import the caller's script again, and decoders and numpy release the GIL.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(_prepare_chunk, path, file, entries, options, stop) for file, entries in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            stop.set()  # after Ctrl-C or on a full disk, finish only the image being read, not its chunk
            pool.shutdown(cancel_futures=True)


def _prepare_chunk(path: Path, file: Path, entries: list[Entry], options: PixelOptions, stop: threading.Event) -> int:
    """Read and fit one chunk's images; write them to `file` with what is known about each."""
    images: list[UInt8[np.ndarray, "c r r"]] = []
    facts: list[dict[str, Any]] = []
    for entry, data in zip(entries, read_entries(path, entries), strict=True):
        if stop.is_set():
            raise CancelledError
        try:
            if isinstance(data, Exception):
                reason = str(data) or type(data).__name__  # zipfile's EOFError has no message
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
                "study_key": radiograph.study_key,
                "view": entry.view or radiograph.view,
                "is_synthetic": radiograph.is_synthetic,
                "notes": radiograph.notes,
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


def load_chunk(file: Path) -> tuple[UInt8[np.ndarray, "n c h w"], list[dict[str, Any]]]:
    """Return a chunk's images, and what is known about each of its files."""
    with np.load(file, allow_pickle=False) as chunk:
        return chunk["images"], json.loads(chunk["facts"].tobytes())


def collect(source: Source, chunks: list[Path]) -> tuple[list[Record], list[BadFile]]:
    """Gather what is known about each image, and the files that cannot be read."""
    records: list[Record] = []
    bad_files: list[BadFile] = []
    for number, file in enumerate(chunks):
        images, facts = load_chunk(file)
        pending = iter(zip(images, _thumbnails(images), strict=True))
        start = number * CHUNK_IMAGES
        for entry, fact in zip(source.entries[start : start + CHUNK_IMAGES], facts, strict=True):
            if "bad" in fact:
                bad_files.append(BadFile(entry.path, fact["bad"]))
                continue
            image, thumbnail = next(pending)
            pixel_hash = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            fact["notes"] = tuple(fact["notes"])  # JSON knows lists only
            records.append(Record(entry=entry, pixel_hash=pixel_hash, thumbnail=thumbnail, **fact))
    return records, bad_files


def _thumbnails(images: UInt8[np.ndarray, "n c h w"]) -> UInt8[np.ndarray, "n s s"]:
    """Average the channels and blocks of pixels, down to 32x32 (less if the images are smaller)."""
    count, channels, resolution, _ = images.shape
    side = min(THUMBNAIL_SIDE, resolution)
    blocks = images.reshape(count, channels, side, resolution // side, side, resolution // side)
    return np.rint(blocks.mean(axis=(1, 3, 5), dtype=np.float32)).astype(np.uint8)


def forget_bad(source: Source, chunks: list[Path], bad_files: list[BadFile]) -> None:
    """Delete the chunks with bad files, so that the next run reads them again: it may have the missing decoder."""
    bad_paths = {bad.source for bad in bad_files}
    for number, chunk in enumerate(chunks):
        start = number * CHUNK_IMAGES
        if any(entry.path in bad_paths for entry in source.entries[start : start + CHUNK_IMAGES]):
            chunk.unlink()
