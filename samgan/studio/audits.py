"""The pictures of an audit: its synthetic images, which lie beside it, and the real ones, which lie in the set."""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from samgan.data.documents import SetInfo
from samgan.errors import SamganError, UsageError, one_line
from samgan.grids import image_grid, write_png
from samgan.studio.sets import images_of
from samgan.trust.audit_words import PAIR, PAIRS_SHOWN, REAL_PAIR
from samgan.trust.documents import AuditDocument, Measured, Pair

Space = Literal["pixels", "features"]
Kind = Literal["synthetic", "held_out"]


@dataclass(frozen=True)
class ShownPair:
    """A pair as the page shows it."""

    number: int
    """From 0, the closest."""
    pair: Pair
    words: str
    """How close it is, beside held-out images."""
    close: bool
    """Whether it counts as close."""


def measured_by(document: AuditDocument, space: str) -> Measured:
    """What one measure found.

    Raises:
        UsageError: The audit has no such measure.
    """
    found = {"pixels": document.pixels, "features": document.features}.get(space)
    if found is None:
        raise UsageError("measure: this audit has none of this name")
    return found


def shown_pairs(measured: Measured, kind: Kind) -> list[ShownPair]:
    """The closest pairs with their place among held-out images, the closest first."""
    pairs, limit = _pairs(measured, kind), measured.closer.threshold
    return [
        ShownPair(number, pair, _words(pair, kind), kind == "synthetic" and limit is not None and pair.distance < limit)
        for number, pair in enumerate(pairs)
    ]


@dataclass(frozen=True)
class AuditFolder:
    """An audit and the set that it compared with."""

    path: Path
    document: AuditDocument
    data: Path
    """Folder of the set."""
    info: SetInfo


def pair_png(audit: AuditFolder, space: str, kind: str, number: int) -> bytes:
    """One pair side by side, as a PNG file that says what it shows.

    Args:
        audit: The audit.
        space: "pixels" or "features".
        kind: "synthetic" or "held_out".
        number: Which pair, from 0.

    Raises:
        UsageError: There is no such pair.
        SamganError: A picture is missing or damaged.
    """
    if kind not in ("synthetic", "held_out"):
        raise UsageError("kind: expected synthetic or held_out")
    measured = measured_by(audit.document, space)
    pairs = _pairs(measured, "synthetic" if kind == "synthetic" else "held_out")
    if number >= len(pairs):
        raise UsageError("there is no pair of this number")
    pair = pairs[number]
    if kind == "synthetic":
        first = _synthetic(audit, pair.place)
        real = images_of(audit.data, audit.info, np.array([pair.training]))[0]
    else:
        row = re.fullmatch("row ([0-9]{1,9})", pair.image)
        if row is None:
            raise SamganError(f"audit.json names {pair.image} as a held-out image: make it again with samgan audit")
        first, real = images_of(audit.data, audit.info, np.array([int(row[1]), pair.training]))
    shown = real[..., ::-1] if pair.mirrored else real
    if first.shape != shown.shape:
        raise SamganError("audit.png does not fit the set: make the audit again with samgan audit")
    file = io.BytesIO()
    write_png(
        file, image_grid(np.stack([first, shown]), 2), {"Description": PAIR if kind == "synthetic" else REAL_PAIR}
    )
    return file.getvalue()


def _pairs(measured: Measured, kind: Kind) -> tuple[Pair, ...]:
    return (measured.pairs if kind == "synthetic" else measured.held_out_pairs)[:PAIRS_SHOWN]


def _words(pair: Pair, kind: Kind) -> str:
    """Where the distance lies among those of held-out images."""
    if pair.farther is None:
        return f"Distance {pair.distance:.4f}"
    others = "other " if kind == "held_out" else ""
    return f"Closer than {100 * pair.farther:.1f} % of {others}held-out images (distance {pair.distance:.4f})"


def _synthetic(audit: AuditFolder, place: int) -> UInt8[np.ndarray, "c h w"]:
    """One synthetic image of an audit."""
    images = audit.document.images
    if images is None or place not in images.places:
        raise SamganError("The synthetic images were not kept: make the audit again with samgan audit.")
    if "/" in images.file or images.file.startswith("."):
        raise SamganError("audit.json names a file outside of its folder: make it again with samgan audit")
    try:
        content = (audit.path / images.file).read_bytes()
        if hashlib.sha256(content).hexdigest() != images.sha256:
            raise ValueError("it is not the file that the audit wrote")
        with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            pixels = np.asarray(opened)
    except (OSError, ValueError, SyntaxError) as error:
        raise SamganError(f"{images.file} is missing or damaged: {one_line(error)}") from None
    whole = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    side, number = whole.shape[-1] // images.columns, images.places.index(place)
    top, left = number // images.columns * side, number % images.columns * side
    return whole[:, top : top + side, left : left + side]
