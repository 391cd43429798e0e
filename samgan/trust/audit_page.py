"""The page of an audit: its table, its sentences, and the closest pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from markupsafe import Markup
from torch import Tensor

from samgan.data import PreparedSet
from samgan.pages import picture, write_page
from samgan.trust.audit_words import HEADER, remarks, table_rows
from samgan.trust.documents import AuditDocument, Pair

PAIRS_SHOWN = 16
PICTURES = "This page contains REAL training and held-out images. Share it only as the terms of the data allow."
NO_PICTURES = "This page contains no images, but numbers of training images. Protect it as you protect the data."
PAIR = "A SYNTHETIC image (left) beside a REAL training image (right)."
REAL_PAIR = "A REAL held-out image (left) beside a REAL training image (right)."


@dataclass(frozen=True)
class PairGroup:
    """The closest pairs of one kind of images by one measure: as figures, or as rows without images."""

    heading: str
    figures: Sequence[Markup]
    rows: Sequence[tuple[str, ...]]


def write_audit_page(
    path: Path, document: AuditDocument, images: Mapping[str, UInt8[Tensor, "n c h w"]] | None, data: PreparedSet
) -> None:
    """Write audit.html.

    Args:
        path: The file.
        document: What the audit found.
        images: By "pairs" the synthetic images, by "held_out_pairs" the held-out ones; None: the page shows no image.
        data: The prepared set.
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
        [PICTURES if images else NO_PICTURES],
        document=document,
        header=HEADER,
        rows=table_rows(document),
        remarks=remarks(document),
        planted_header=("change", *measures),
        planted_rows=planted,
        groups=list(_groups(document, images, data)),
    )


def _groups(document: AuditDocument, images: Mapping[str, Tensor] | None, data: PreparedSet) -> Iterator[PairGroup]:
    for label, measured in document.measures.items():
        for key, pairs, heading, description in (
            ("pairs", measured.pairs, "The synthetic images closest to a training image", PAIR),
            (
                "held_out_pairs",
                measured.held_out_pairs,
                "For comparison: held-out images of other patients",
                REAL_PAIR,
            ),
        ):
            shown = pairs[:PAIRS_SHOWN]
            figures = [_figure(pair, images[key][pair.place], description, data) for pair in shown] if images else []
            rows = [(p.image, str(p.training), "yes" if p.mirrored else "no", f"{p.distance:.4f}") for p in shown]
            yield PairGroup(f"{heading}, {label}", figures, rows)


def _figure(pair: Pair, image: UInt8[Tensor, "c h w"], description: str, data: PreparedSet) -> Markup:
    """The image and its training image side by side, turned if it is nearer then."""
    real = torch.from_numpy(np.array(data.images[pair.training]))
    shown = torch.stack([image, real.flip(-1) if pair.mirrored else real]).numpy()
    turned = ", mirrored for the comparison" if pair.mirrored else ""
    heading, caption = f"{pair.image}: distance {pair.distance:.4f}", f"row {pair.training} of the manifest{turned}"
    magnify = max(1, 160 // shown.shape[-1])
    return picture(shown, 2, heading, f"Training image: {caption}.", description=description, magnify=magnify)
