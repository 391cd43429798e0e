"""The page of an audit: its table, its sentences, and the closest pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from torch import Tensor

from samgan.pages import picture, write_page
from samgan.trust.audit_words import HEADER, PAIR, PAIRS_SHOWN, REAL_PAIR, remarks, table_rows
from samgan.trust.documents import AuditDocument, Pair

PICTURES = "This page contains REAL training and held-out images. Share it only as the terms of the data allow."
NO_PICTURES = "This page shows no images, but lists row numbers of training images. Protect it as you protect the data."


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images that a page may show."""

    synthetic: UInt8[Tensor, "n c h w"]
    held_out: UInt8[Tensor, "m c h w"]
    prepared: UInt8[np.ndarray, "k c h w"]
    """All images of the prepared set."""


@dataclass(frozen=True)
class PairGroup:
    """The closest pairs of one kind of images by one measure: as figures, or as rows without images."""

    heading: str
    figures: Sequence[Markup]
    rows: Sequence[tuple[str, ...]]


def write_audit_page(path: Path, document: AuditDocument, pictures: Pictures | None) -> None:
    """Write audit.html.

    Args:
        path: The file.
        document: What the audit found.
        pictures: Images for the pairs; None for a page without images.
    """
    measures = document.measures
    planted = [
        (change, *(f"{100 * measured.planted[change]:.0f} %" for measured in measures.values()))
        for change in document.pixels.planted
    ]
    write_page(
        path,
        "audit.html",
        f"samgan audit: {document.generated.name}",
        [PICTURES if pictures else NO_PICTURES],
        document=document,
        header=HEADER,
        rows=table_rows(document),
        remarks=remarks(document),
        planted_header=("change", *measures),
        planted_rows=planted,
        groups=list(_groups(document, pictures)),
    )


def _groups(document: AuditDocument, pictures: Pictures | None) -> Iterator[PairGroup]:
    synthetic, held_out = (pictures.synthetic, pictures.held_out) if pictures else (None, None)
    for label, measured in document.measures.items():
        of_fake, of_held_out = measured.pairs, measured.held_out_pairs
        for pairs, images, heading, description in (
            (of_fake, synthetic, "The synthetic images closest to a training image", PAIR),
            (of_held_out, held_out, "For comparison: held-out images, of other patients", REAL_PAIR),
        ):
            shown = pairs[:PAIRS_SHOWN]
            figures = []
            if pictures is not None and images is not None:
                figures = [_figure(p, images[p.place], pictures.prepared[p.training], description) for p in shown]
            rows = [(p.image, str(p.training), "yes" if p.mirrored else "no", f"{p.distance:.4f}") for p in shown]
            yield PairGroup(f"{heading}, {label}", figures, rows)


def _figure(
    pair: Pair, image: UInt8[Tensor, "c h w"], training: UInt8[np.ndarray, "c h w"], description: str
) -> Markup:
    """The image and its training image side by side, the latter mirrored if this makes it nearer."""
    real = np.array(training)
    shown = np.stack([image.numpy(), real[..., ::-1] if pair.mirrored else real])
    turned = ", mirrored for the comparison" if pair.mirrored else ""
    heading, caption = f"{pair.image}: distance {pair.distance:.4f}", f"row {pair.training} of the manifest{turned}"
    magnify = max(1, 160 // shown.shape[-1])
    return picture(shown, 2, heading, f"Training image: {caption}.", description=description, magnify=magnify)
