"""Cards for a model or a set of images: they state what the record knows, and mark as open what a person has to add."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from samgan import __version__
from samgan.errors import shown
from samgan.files import atomic_write
from samgan.pages import markdown_table
from samgan.pictures import RESEARCH_ONLY
from samgan.trust import answers
from samgan.trust.checklists import CHECKLISTS, Checklist
from samgan.trust.record import Record

OPEN = "**OPEN**"
SYNTHETIC = "Every image that samgan makes is synthetic, shows no real person, and says so in its metadata."

READERS = "In a blinded test of real and synthetic pictures, half of all are named rightly by guessing."


def format_card(record: Record) -> str:
    """The card as Markdown: a model card, or a data card for a set of images.

    Items of the checklists that the record answers are filled in; the others are marked `OPEN`, and counted.
    """
    lines = [*_head(record), f"# {_title(record)}", ""]
    if record.is_of_model or record.holds_synthetic:
        lines += [f"**{RESEARCH_ONLY} {SYNTHETIC}**", ""]
    lines += [*markdown_table(("", ""), [(name, escape(value)) for name, value in _facts(record).items()]), ""]
    if record.synthetic or (record.is_of_model and record.data):
        lines += _classes(record)
    lines += [
        "## Intended use",
        "",
        f"{answers.goal(record) or 'Research on radiographs'}. {OPEN}: by whom, and for which question.",
        "",
        "Not for diagnosis, not as test images, and not to be presented as images of patients.",
        "",
    ]
    for heading, answer in (
        ("Scores", answers.results),
        ("Memorisation", answers.memorisation),
        ("Whether the images help", answers.utility),
        ("Limits", answers.limits),
    ):
        words = escape(answer(record)) or f"{OPEN}: not measured, or not given to this card."
        lines += [f"## {heading}", "", words, ""]
        if heading == "Memorisation" and record.readers:
            lines += ["## Readers", "", READERS, "", escape(answers.readers(record)), ""]
    for name, checklist in CHECKLISTS.items():
        lines += _answered(name, checklist, record)
    return "\n".join(lines)


def write_card(path: Path, record: Record) -> None:
    """Write `format_card`, atomically."""
    with atomic_write(path) as file:
        file.write(format_card(record).encode("utf-8", "surrogateescape"))  # file names need not be UTF-8


def _head(record: Record) -> Iterator[str]:
    """The front matter, which model hubs read."""
    yield "---"
    if record.licence:
        yield f"license: {json.dumps(record.licence)}"
    made = ("synthetic",) if record.is_of_model or record.holds_synthetic else ()
    software = ("gan", "samgan") if made else ()
    yield from ("tags:", *(f"- {tag}" for tag in (*made, "medical-imaging", "research-only", *software)))
    yield from ("---", "")


def _title(record: Record) -> str:
    if record.model is not None and record.is_of_model:
        config = record.model.config
        return f"Model card: {config.preset}, {config.network.resolution} px"
    images = "Real and synthetic radiographs" if record.holds_synthetic else "Radiographs"
    return f"Data card: {images}" + (f", {record.data.resolution} px" if record.data else "")


def _facts(record: Record) -> dict[str, str]:
    environment = record.environment
    facts = {
        "made by": f"samgan {__version__}",
        "model": answers.network(record),
        "weights": f"sha256 {record.model.sha256}" if record.model else "",
        "training": answers.training(record),
        "began with": answers.initial_weights(record),
        "data": answers.source(record),
        "labels": answers.labels(record),
        "preprocessing": answers.preprocessing(record),
        "split": answers.split_level(record),
        "patients of the set": str(record.data.patients) if record.data and record.data.patients is not None else "",
        "synthetic images of the set": answers.synthetic_images(record),
        "left out": answers.exclusions(record),
        "pictures in several classes": answers.contradictions(record),
        "on both sides of the split": answers.leaks(record),
        "quality of the files": answers.file_quality(record),
        "passed over in metadata": answers.notes(record),
        "warnings of samgan prepare": answers.warnings(record),
        "command": _command(environment.command) if environment else "",
    }
    always = {"licence": record.licence or OPEN, "attribution of the images": record.attribution or OPEN}
    return {name: value for name, value in facts.items() if value} | always


def _command(words: Sequence[str]) -> str:
    """The command without folders, which are private."""
    return " ".join(re.sub(r"^((?:--[^=]*|\w+)=)?.*/", r"\1", word) for word in words)


def _classes(record: Record) -> list[str]:
    """A table of classes, and how synthetic images of each were screened."""
    rows = []
    trained_on = record.model.config.data.classes if record.model is not None and record.is_of_model else ()
    for name, splits in (record.data.counts if record.data else {}).items():
        if trained_on and name not in trained_on:
            continue
        made = record.synthetic.get(name, 0) if record.synthetic else "-"
        rows.append((escape(name), str(splits.get("train", 0)), str(splits.get("holdout", 0)), str(made)))
    lines = markdown_table(("class", "training images", "held out", "synthetic"), rows)
    for name, screened in record.screening.items():
        left_out = ", ".join(f"{count} {reason}" for reason, count in screened.left_out.items()) or "none"
        kept = f"{screened.kept} of {screened.candidates} images kept; left out: {left_out}."
        lines += ["", f"Screening of {escape(name)}: {escape(kept)}"]
        lines += [f"* {escape(rule)}" for rule in screened.rules]
    return [*lines, ""]


def _answered(name: str, checklist: Checklist, record: Record) -> list[str]:
    """A checklist with its answers."""
    found = [item.answer(record) if item.answer else "" for item in checklist.items]
    total, done = len(found), sum(map(bool, found))
    rows = [
        (item.number, item.asks, escape(answer) if answer else OPEN)
        for item, answer in zip(checklist.items, found, strict=True)
    ]
    return [
        f"## {name}",
        "",
        f"{done} of {total} answered from the record, {total - done} left to you. {checklist.note}",
        "",
        *markdown_table(("", "asks for", "answer"), rows),
        "",
    ]


def escape(words: str) -> str:
    """Make text from files and people safe for a table cell: no markup, one line. `OPEN` stays as it is."""
    if words == OPEN:
        return words
    # JSON may hold lone surrogates, which cannot be written. U+DC80 to U+DCFF can: they are bytes of a file name.
    flat = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", " ".join(words.split()))
    flat = re.sub("[\x00-\x1f\x7f-\x9f]", lambda found: shown(found[0]), flat)
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!~" else letter for letter in flat)
