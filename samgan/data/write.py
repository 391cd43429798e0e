"""Write the three files of a prepared set."""

import csv
import dataclasses
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from samgan.data.chunks import load_chunk
from samgan.data.dataset import content_sha256
from samgan.data.documents import COLUMNS, OPTIONAL_COLUMNS, ManifestRow, SetInfo
from samgan.data.selection import Selection
from samgan.files import atomic_write, write_json
from samgan.terminal import say

CARD = ("DATA_CARD.md", "card.json")
"""What `samgan card` writes into the folder of a set."""
OLDER_CARD = re.compile(rf"older-\d+-({'|'.join(map(re.escape, CARD))})")


def write_set(out: Path, chunks: list[Path], selection: Selection) -> None:
    """Write images.npy (streamed from the chunks), manifest.csv and dataset.json, in this order."""
    for leftover in out.glob(".*.tmp"):
        leftover.unlink()

    info = selection.info
    with atomic_write(out / "images.npy") as file:
        write_images(file, (info.images, info.channels, info.resolution, info.resolution), _kept(chunks, selection))
        _put_away(out)  # as late as can be: an older set stays whole if the images cannot be written
    finish_set(out, selection.rows, info)


def _put_away(out: Path) -> None:
    """Make an older set of the folder unfinished. Its card gets another name: a person may have added to it."""
    if not (out / "dataset.json").exists():
        return
    say(f"{out}: replacing the set in it")
    (out / "dataset.json").unlink()
    (out / "data.html").unlink(missing_ok=True)  # it shows the older images
    for name in CARD:
        if (out / name).exists():
            older = next(place for k in itertools.count(1) if not (place := out / f"older-{k}-{name}").exists())
            os.replace(out / name, older)
            say(f"{out / name} is about the older set: it is now {older.name}")


def _kept(chunks: list[Path], selection: Selection) -> Iterator[UInt8[np.ndarray, "n c h w"]]:
    start = 0
    for chunk in chunks:
        images, _ = load_chunk(chunk)
        yield images[selection.is_kept[start : start + len(images)]]
        start += len(images)


def write_images(
    file: BinaryIO, shape: tuple[int, int, int, int], parts: Iterable[UInt8[np.ndarray, "n c h w"]]
) -> None:
    """Write images.npy, of `shape` in all, one part after another: only one of them is in memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    file.write(header.getvalue())
    for part in parts:
        file.write(np.ascontiguousarray(part).data)


def finish_set(out: Path, rows: list[ManifestRow], info: SetInfo) -> None:
    """Write manifest.csv and dataset.json next to images.npy; dataset.json gets the hash of the other two files."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    told = [name for name in OPTIONAL_COLUMNS if any(getattr(row, name) for row in rows)]
    fields = [field.name for field in dataclasses.fields(ManifestRow) if field.name not in OPTIONAL_COLUMNS]
    writer.writerow((*COLUMNS, *told))
    writer.writerows(map(attrgetter(*fields, *told), rows))  # None: empty
    with atomic_write(out / "manifest.csv") as file:
        file.write(table.getvalue().encode("utf-8", "surrogateescape"))
    write_json(out / "dataset.json", dataclasses.replace(info, sha256=content_sha256(out)).to_dict())
