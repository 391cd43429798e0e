"""The result of a test of utility as rows, sentences and a page."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from markupsafe import Markup

from samgan import pages
from samgan.pages import intervals, markdown_table
from samgan.trust.utility_document import COMPARED, DECIDES, UTILITY_SCORES, Decision, Interval, UtilityDocument

Shown = Mapping[str, Interval | Decision]
"""By score."""


def format_utility(document: UtilityDocument) -> str:
    """The table and the sentences that `samgan utility` prints."""
    header = ["training images", *(f"{label} (± seeds)" for label in UTILITY_SCORES.values())]
    return "\n".join([*markdown_table(header, _rows(document)), "", *utility_sentences(document)])


def utility_sentences(document: UtilityDocument) -> list[str]:
    """What was found, and what it is based on."""
    decision, held_out, seeds = document.decisions[DECIDES], document.held_out, document.seeds
    pairs = [f"'{arms.synthetic}' against '{arms.classical}'" for arms in decision.chosen]
    others = [
        f"{UTILITY_SCORES[score]} {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] ({found.verdict})"
        for score, found in document.decisions.items()
        if score != DECIDES
    ]
    lines = [
        f"Synthetic images: {document.verdict}. The best classifier with them has an AUC of {decision.mean:+.4f} "
        f"[{decision.low:+.4f}, {decision.high:+.4f}] relative to the best one without them (above 0: they help; 95 % "
        "interval over patients and seeds). The best ways are chosen on one half of the held-out patients "
        "by all seeds but one, and measured on the other half "
        f"with that seed, every way round: {'; '.join(pairs)}.",
        f"The same by other scores, which do not decide: {'; '.join(others)}. A lower Brier score is better.",
        f"{seeds} ResNet-18 per line, {document.steps} steps each, tested on {held_out.images} held-out images of "
        f"{held_out.patients} patients (split by {document.data.split_by}).",
    ]
    return [*lines, *document.notes, *(f"Left out: {name} ({why})." for name, why in document.skipped.items())]


def write_page(path: Path, document: UtilityDocument) -> None:
    """Write utility.html."""
    bars = {name: _bar(found[DECIDES]) for name, found in document.intervals.items()}
    pages.write_page(
        path,
        "utility.html",
        "samgan: do synthetic images help?",
        score_header=("training images", *UTILITY_SCORES.values()),
        score_rows=_rows(document),
        sentences=utility_sentences(document),
        figures=[intervals("AUC", "95 % over patients and seeds", bars), differences_chart(document)],
        difference_header=("", *(UTILITY_SCORES[score] for score in COMPARED)),
        difference_rows=list(_differences(document)),
    )


def differences_chart(document: UtilityDocument) -> Markup:
    """A figure of the decision, and of every difference."""
    bars = {name: _bar(found[DECIDES]) for name, found in _shown(document).items()}
    return intervals("Differences of AUC", "95 % over patients and seeds; above 0: better with synthetic images", bars)


def _rows(document: UtilityDocument) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{arm.mean[key]:.3f} ± {arm.deviation[key]:.3f}" for key in UTILITY_SCORES))
        for name, arm in document.arms.items()
    ]


def _bar(found: Interval | Decision) -> tuple[float, float, float]:
    return found.low, found.mean, found.high


def _shown(document: UtilityDocument) -> dict[str, Shown]:
    """The differences by name, the decisions first."""
    return {"best use - best without": document.decisions} | {
        f"{found.arm} - {found.against}": found.scores for found in document.differences
    }


def _differences(document: UtilityDocument) -> Iterator[tuple[str, ...]]:
    for name, found in _shown(document).items():
        cells = (found[score] for score in COMPARED)
        yield (name, *(f"{cell.mean:+.4f} [{cell.low:+.4f}, {cell.high:+.4f}]" for cell in cells))
