"""Cards for a model or a set of images: they state what the record knows, and mark as open what a person has to add."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from samgan import __version__
from samgan.errors import shown
from samgan.files import atomic_write, without_folders
from samgan.pages import markdown_table
from samgan.pictures import RESEARCH_ONLY
from samgan.trust import answers
from samgan.trust.card_form import CardForm, OpenItem
from samgan.trust.checklists import CHECKLISTS, Checklist, Item
from samgan.trust.record import ATTRIBUTION, LICENCE, Record

OPEN = "**OPEN**"
NOT_MEASURED = "not measured, or not given to this card"
USE = OpenItem("intended use", "Intended use", "by whom, and for which question")
SECTIONS = {
    "Scores": answers.results,
    "Memorisation": answers.memorisation,
    "Whether the images help": answers.utility,
    "Limits": answers.limits,
}
"""Headings, and what the record says below each."""
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
    by_whom = _written(record, USE.key) or f"{OPEN}: {USE.asks}."
    lines += [
        f"## {USE.section}",
        "",
        f"{answers.goal(record) or 'Research on radiographs'}. {by_whom}",
        "",
        "Not for diagnosis, not as test images, and not to be presented as images of patients.",
        "",
    ]
    for heading, answer in SECTIONS.items():
        words = escape(answer(record)) or _written(record, heading) or f"{OPEN}: {NOT_MEASURED}."
        lines += [f"## {heading}", "", words, ""]
        if heading == "Memorisation" and (signed := escape(answers.sign_offs(record))):
            lines += ["## Sign-off of the audit", "", signed, ""]
        if heading == "Memorisation" and record.readers:
            lines += ["## Readers", "", READERS, "", escape(answers.readers(record)), ""]
    for name, checklist in CHECKLISTS.items():
        lines += _answered(name, checklist, record)
    return "\n".join(lines)


def write_card(path: Path, record: Record) -> None:
    """Write `format_card`, atomically."""
    with atomic_write(path) as file:
        file.write(_encoded(record))


def make_form(card: str, record: Record) -> CardForm:
    """The places that a card leaves open, with the answers that there are.

    Args:
        card: The name of its file.
        record: What the card states.
    """
    places = list(_open_items(record))
    known = {place.key: record.answers.get(place.key, "") for place in places}
    known |= {LICENCE: record.licence, ATTRIBUTION: record.attribution}
    return CardForm(
        card=card,
        card_sha256=hashlib.sha256(_encoded(record)).hexdigest(),
        items=tuple(replace(place, answer=known[place.key]) for place in places),
        unused={key: answer for key, answer in record.answers.items() if key not in known},
    )


def _encoded(record: Record) -> bytes:
    return format_card(record).encode("utf-8", "surrogateescape")  # file names need not be UTF-8


def _open_items(record: Record) -> Iterator[OpenItem]:
    """Places that the record does not fill, in the order of the card."""
    yield OpenItem(LICENCE, "General", "licence of the model or of the set, such as cc-by-4.0")
    yield OpenItem(ATTRIBUTION, "General", "who made the images, and the terms they are under")
    yield USE
    for heading, answer in SECTIONS.items():
        if not answer(record):
            yield OpenItem(heading, heading, NOT_MEASURED)
    for name, checklist in CHECKLISTS.items():
        for item in checklist.items:
            if not (item.answer and item.answer(record)):
                yield OpenItem(_key(name, item), name, f"{item.number}: {item.asks}")


def _key(checklist: str, item: Item) -> str:
    return f"{checklist}: {item.asks}"


def _written(record: Record, key: str) -> str:
    """What a person wrote at an open place, safe for a card."""
    return escape(record.answers.get(key, ""))


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
        "command": " ".join(without_folders(environment.command)) if environment else "",
    }
    always = {"licence": record.licence or OPEN, "attribution of the images": record.attribution or OPEN}
    return {name: value for name, value in facts.items() if value} | always


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
    written = [_written(record, _key(name, item)) for item in checklist.items]
    total, done = len(found), sum(map(bool, found))
    by_hand = sum(bool(own) and not answer for own, answer in zip(written, found, strict=True))
    rows = [
        (item.number, item.asks, escape(answer) if answer else own or OPEN)
        for item, answer, own in zip(checklist.items, found, written, strict=True)
    ]
    of_people = f"{by_hand} by a person, " if by_hand else ""
    left = total - done - by_hand
    return [
        f"## {name}",
        "",
        f"{done} of {total} answered from the record, {of_people}{left} left to you. {checklist.note}",
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
