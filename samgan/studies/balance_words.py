"""What `samgan balance` found, as rows and sentences."""

from collections.abc import Iterator

from samgan.pages import markdown_table
from samgan.scoring import Scores
from samgan.studies.balance_documents import BalanceDocument, Plan, name_of
from samgan.studies.downstream_page import utility_sentences

SWD_TIMES, COLLAPSE_GAP = 3.0, 0.05
"""Above these a model is in doubt. For comparison: samgan-plus has 2.1 and +0.03 after 20 kimg of 3,080 X-rays."""
HEADER = ("class", "real", "synthetic", "candidates", "left out", "Frechet (floor)", "recall", "MS-SSIM gap")


def format_balance(document: BalanceDocument) -> str:
    """What `samgan balance` prints."""
    return "\n".join([*markdown_table(HEADER, table_rows(document)), "", *sentences(document)])


def table_rows(document: BalanceDocument) -> Iterator[tuple[str, ...]]:
    """A row for each class, by `HEADER`."""
    for name, counts in document.counts.items():
        screening, scores = document.screening.get(name), document.scores.get(name)
        if screening is None:
            yield (name, str(counts.real), "0", *["-"] * 5)
            continue
        left_out = ", ".join(f"{count} {reason}" for reason, count in screening.left_out.items()) or "none"
        frechet, recall = (scores.scores.get(key) if scores else None for key in ("frechet", "recall"))
        gap = scores.mode_collapse if scores else None
        yield (
            name,
            str(counts.real),
            str(counts.synthetic),
            str(screening.candidates),
            left_out,
            f"{frechet.value:.3f} ({frechet.floor:.3f})" if frechet else "-",
            f"{recall.value:.3f}" if recall else "-",
            f"{gap.difference:+.3f}" if gap else "-",
        )


def doubts(scores: Scores) -> list[str]:
    """Reasons to doubt a model as a whole, which single images cannot show."""
    swd, collapse, found = scores.scores.get("swd"), scores.mode_collapse, []
    if swd and swd.value > SWD_TIMES * swd.floor:
        found.append(
            f"its sliced Wasserstein distance is {swd.value / swd.floor:.1f} times that of real images, more than "
            f"{SWD_TIMES:g}"
        )
    if collapse and collapse.low > 0 and collapse.difference > COLLAPSE_GAP:
        found.append(f"its images are more alike than real ones (MS-SSIM {collapse.difference:+.3f})")
    return found


def sentences(document: BalanceDocument) -> Iterator[str]:
    """What a reader has to know about the numbers."""
    yield from dict.fromkeys(note for model in document.training.values() for note in model.notes)
    used = sorted({scores.features.name for scores in document.scores.values() if scores and scores.features})
    if used:
        yield f"Frechet distance and recall are of {' and '.join(used)} features."
    for name, scores in document.scores.items():
        if scores and (found := doubts(scores)):
            yield f"The model of {name} is not ready: {' and '.join(found)}. Train longer; screening cannot repair it."
    for name, screened in document.screening.items():
        if screened.kept < screened.missing:
            yield (
                f"{name}: screening kept only {screened.kept} of {screened.missing} missing images, and left out the "
                f"other {screened.candidates - screened.kept} candidates. Train longer, or ask for fewer with --target."
            )
        if not screened.features:
            yield (
                f"{name} was screened by pixels only, since no features were available (to screen by features, use a "
                "new folder with --features NAME and --run RUN for the models that are here)."
            )
    for name, audit in document.audit.items():
        if audit:
            yield f"Audit of {name}, before screening: {audit.verdict}"
    if document.utility:
        yield from utility_sentences(document.utility)
    for left_out in document.skipped:
        yield f"Left out: {left_out.what} ({left_out.reason})."


def describe_plan(plan: Plan) -> list[tuple[str, str]]:
    """What was asked for, as rows of a name and a value."""
    split_by = f", split by {plan.data.split_by}" if plan.data.split_by else ""
    return [
        ("prepared set", f"{plan.data.name}, sha256 {plan.data.sha256[:12]}{split_by}"),
        ("target", plan.target),
        ("method", plan.method),
        ("training", "given models" if plan.runs else f"{plan.minutes:g} minutes, preset {plan.config['preset']}"),
        ("synthetic images", plan.file_format),
        ("real images", f"files of {name_of(plan.originals)}" if plan.originals else "as prepared, PNG"),
        ("samgan", plan.samgan),
    ]
