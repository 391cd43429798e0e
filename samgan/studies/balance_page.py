"""The page of `samgan balance`."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from samgan.pages import picture, write_page
from samgan.pictures import SYNTHETIC
from samgan.studies.balance_documents import BalanceDocument
from samgan.studies.balance_stages import Work
from samgan.studies.balance_words import HEADER, describe_plan, sentences, table_rows
from samgan.studies.downstream_page import differences_chart

SHOWN = 40
LIMITS = (
    "Scores compare unscreened images with training images of the class. The result for the classifier holds for "
    "these patients, this size of image and this network; it may differ for images of another hospital."
)
BOTH = "This page contains REAL and SYNTHETIC images. Share it only as the data's terms allow."


@dataclass(frozen=True)
class Screened:
    """What the page shows of a class that got images."""

    name: str
    candidates: int
    rules: tuple[str, ...]
    figures: list[Markup]


def write_report(work: Work, document: BalanceDocument) -> None:
    """Write report.html."""
    pages = [path for folder in ("scores", "audit", "utility") for path in (work.out / folder).rglob("*.html")]
    write_page(
        work.out / "report.html",
        "balance.html",
        "samgan: a balanced set",
        [BOTH],
        header=HEADER,
        rows=list(table_rows(document)),
        sentences=list(sentences(document)),
        plan=describe_plan(work.plan),
        screened=[
            Screened(name, found.candidates, found.rules, _figures(work, name))
            for name, found in document.screening.items()
        ],
        utility=[differences_chart(document.utility)] if document.utility else [],
        links=sorted(path.relative_to(work.out).as_posix() for path in pages),
        limits=LIMITS,
    )


def _figures(work: Work, name: str) -> list[Markup]:
    """Some synthetic images that were kept, and some real ones."""
    shown = work.images(name, SHOWN)
    real = work.data.select("train", [name])
    real = real[np.random.default_rng(0).permutation(len(real))[:SHOWN]]
    figures = [picture(real, 8, f"Real, {name}", "Drawn at random.", description="Real training images.")]
    if len(shown):
        first = picture(shown, 8, f"Synthetic, {name}", "The first that were kept.", description=SYNTHETIC)
        figures.insert(0, first)
    return figures
