"""Read a source in chunks of images. A chunk is the unit of work, of progress and of restart."""

import hashlib
import json
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from samgan.data.budget import FILES, PICTURES
from samgan.data.documents import BadFile
from samgan.data.fit import fit_image
from samgan.data.jobs import Job, bytes_of, run_jobs
from samgan.data.options import ALGORITHM, PixelOptions
from samgan.data.readers import BadImageError, read_radiograph
from samgan.data.readers.radiograph import NoImageError, Scales
from samgan.data.sources import Entry, Source, read_entries
from samgan.files import atomic_write, hash_json

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


def prepare_chunks(
    source: Source, partial: Path, options: PixelOptions, scales: Scales, workers: int | None
) -> list[Path]:
    """Write the chunks that are missing in `partial`; return the files of all chunks, in the order of the source."""
    jobs: list[Job] = []
    for start in range(0, len(source.entries), CHUNK_IMAGES):
        entries = source.entries[start : start + CHUNK_IMAGES]
        name = hash_json([ALGORITHM, options, scales, source.name, entries])
        jobs.append(Job(partial / f"{name}.npz", entries))

    def prepare_chunk(job: Job, stop: threading.Event) -> None:
        _prepare_chunk(source.path, job.file, job.entries, options, scales, stop)

    run_jobs("preparing", source, jobs, prepare_chunk, workers)
    return [job.file for job in jobs]


def _prepare_chunk(
    path: Path, file: Path, entries: list[Entry], options: PixelOptions, scales: Scales, stop: threading.Event
) -> None:
    """Read and fit one chunk's images; write them to `file` with what is known about each."""
    images: list[UInt8[np.ndarray, "c r r"]] = []
    facts: list[dict[str, Any]] = []
    contents = iter(read_entries(path, entries))
    for entry in entries:
        if stop.is_set():
            raise CancelledError
        try:
            with FILES.holding(bytes_of(path, entry)), PICTURES.reservation() as reserve:
                data = next(contents)
                if isinstance(data, Exception):
                    reason = str(data) or type(data).__name__  # zipfile's EOFError has no message
                    raise BadImageError(reason.replace(str(path / entry.path), entry.path)) from data
                radiograph = read_radiograph(data, options.channels, scales=scales, reserve=reserve)
                image = fit_image(radiograph.pixels, options.resolution, options.fit, options.normalize)
                height, width = radiograph.pixels.shape[1:]
                sha256 = hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest()
                radiograph, data = radiograph._replace(pixels=image[:0]), b""  # let go of what was reserved
        except BadImageError as error:
            facts.append({"no_image" if isinstance(error, NoImageError) else "bad": str(error)})
            continue
        images.append(image)
        facts.append(
            {
                "sha256": sha256,
                "height": height,
                "width": width,
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


def load_chunk(file: Path) -> tuple[UInt8[np.ndarray, "n c h w"], list[dict[str, Any]]]:
    """Return a chunk's images, and what is known about each of its files."""
    with np.load(file, allow_pickle=False) as chunk:
        return chunk["images"], json.loads(chunk["facts"].tobytes())


class Collected(NamedTuple):
    """What was found in the files of a source."""

    records: list[Record]
    bad_files: list[BadFile]
    """Files that cannot be read."""
    no_images: list[BadFile]
    """Files that hold no image by their kind."""


def collect(source: Source, chunks: list[Path]) -> Collected:
    """Gather what is known about each file."""
    records: list[Record] = []
    bad_files: list[BadFile] = []
    no_images: list[BadFile] = []
    for number, file in enumerate(chunks):
        images, facts = load_chunk(file)
        pending = iter(zip(images, _thumbnails(images), strict=True))
        start = number * CHUNK_IMAGES
        for entry, fact in zip(source.entries[start : start + CHUNK_IMAGES], facts, strict=True):
            if "bad" in fact:
                bad_files.append(BadFile(entry.path, fact["bad"]))
                continue
            if "no_image" in fact:
                no_images.append(BadFile(entry.path, fact["no_image"]))
                continue
            image, thumbnail = next(pending)
            pixel_hash = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            fact["notes"] = tuple(fact["notes"])  # JSON knows lists only
            fact["is_synthetic"] = fact["is_synthetic"] or source.is_synthetic
            records.append(Record(entry=entry, pixel_hash=pixel_hash, thumbnail=thumbnail, **fact))
    return Collected(records, bad_files, no_images)


def _thumbnails(images: UInt8[np.ndarray, "n c h w"]) -> UInt8[np.ndarray, "n s s"]:
    """Average the channels and blocks of pixels, down to 32x32 (less if the images are smaller)."""
    count, channels, resolution, _ = images.shape
    side = min(THUMBNAIL_SIDE, resolution)
    blocks = images.reshape(count, channels, side, resolution // side, side, resolution // side)
    return np.rint(blocks.mean(axis=(1, 3, 5), dtype=np.float32)).astype(np.uint8)


def forget_bad(partial: Path) -> bool:
    """Delete the chunks with files that could not be read, so that they are read again: a decoder may be there now.

    Returns:
        Whether there were any.
    """
    found = False
    for file in partial.glob("*.npz"):
        with np.load(file, allow_pickle=False) as chunk:
            facts = json.loads(chunk["facts"].tobytes()) if "facts" in chunk else []
        if any("bad" in fact for fact in facts):
            file.unlink()
            found = True
    return found
