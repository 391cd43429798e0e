"""The page of an audit: its table, its sentences, and the closest pairs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samgan.data import PreparedSet
from samgan.pages import RESEARCH_ONLY, picture, section, table, text, write_page
from samgan.trust.audit_words import HEADER, remarks, table_rows
from samgan.trust.documents import AuditDocument, Pair

PAIRS_SHOWN = 16
PICTURES = "This page contains REAL training and held-out images. Share it only as the terms of the data allow."
NO_PICTURES = "This page contains no images, but numbers of training images. Protect it as you protect the data."
PAIR = "A SYNTHETIC image (left) beside a REAL training image (right)."
REAL_PAIR = "A REAL held-out image (left) beside a REAL training image (right)."


def write_audit_page(
    path: Path, document: AuditDocument, images: Mapping[str, Tensor] | None, data: PreparedSet
) -> None:
    """Write audit.html.

    Args:
        path: The file.
        document: What the audit found.
        images: By "pairs" the synthetic images, by "held_out_pairs" the held-out ones; None: no image is shown.
        data: The prepared set.
    """
    names = list(document.pixels.planted)
    planted = [
        (name, *(f"{100 * measured.planted[name]:.0f} %" for measured in document.measures.values())) for name in names
    ]
    banner = ' class="banner"' if document.signs else ""
    verdict = f"<p{banner}><strong>{text(document.verdict)}</strong></p>"
    sections = [
        section("Result", verdict + table(HEADER, table_rows(document))),
        section("What to know about it", "".join(f"<p>{text(line)}</p>" for line in remarks(document))),
        section(
            "Copies of training images that this would have found",
            "<p>Training images were changed as a generator might change them, and looked up like synthetic ones. A "
            "change that is not found here would not be found in a generator's images either.</p>"
            + table(("change", *document.measures), planted),
        ),
    ]
    for label, measured in document.measures.items():
        for key, pairs, heading, description in (
            ("pairs", measured.pairs, "The synthetic images closest to a training image", PAIR),
            (
                "held_out_pairs",
                measured.held_out_pairs,
                "For comparison: held-out images, of other patients",
                REAL_PAIR,
            ),
        ):
            shown = images[key] if images else None
            sections.append(_pair_section(f"{heading}, {label}", description, pairs[:PAIRS_SHOWN], shown, data))
    title = f"samgan audit: {document.generated.name}"
    write_page(path, title, sections, [PICTURES if images else NO_PICTURES, RESEARCH_ONLY])


def _pair_section(
    heading: str, description: str, pairs: tuple[Pair, ...], images: Tensor | None, data: PreparedSet
) -> str:
    if images is None:
        rows = [(p.image, str(p.training), "yes" if p.mirrored else "no", f"{p.distance:.4f}") for p in pairs]
        return section(heading, table(("image", "training image (row of the manifest)", "mirrored", "distance"), rows))
    figures = []
    for pair in pairs:
        real = torch.from_numpy(np.array(data.images[pair.training]))
        shown = torch.stack([images[pair.place], real.flip(-1) if pair.mirrored else real])
        turned = ", mirrored for the comparison" if pair.mirrored else ""
        caption = f"<strong>{text(description)}</strong> Training image: row {pair.training} of the manifest{turned}."
        figures.append(
            picture(
                shown.numpy(),
                2,
                f"{pair.image}: distance {pair.distance:.4f}",
                caption,
                description=description,
                magnify=max(1, 160 // shown.shape[-1]),
            )
        )
    return section(heading, f'<div class="row">{"".join(figures)}</div>', "wide")
