"""A folder to share a model with, as the Hugging Face Hub shows it: card, weights, settings and synthetic images."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from samgan import __version__
from samgan.data import PreparedSet
from samgan.errors import SamganError, UsageError, shown
from samgan.files import (
    Location,
    atomic_folder,
    atomic_write,
    check_new_folder,
    holds_something,
    is_system_name,
    remove_leftovers,
    write_json,
)
from samgan.pictures import GRID_IMAGES
from samgan.sampling import SHIPPED, Model, is_run, read_model, write_model, write_sheet
from samgan.sampling.hub import REPOSITORY, WEIGHTS_FILE, check_repository, send
from samgan.trust import answers
from samgan.trust.cards import OPEN, escape, format_card
from samgan.trust.front_matter import front_matter, join_card, split_card
from samgan.trust.record import Record, read_record

CARD, CONFIG, GRID = "README.md", "config.json", "grid.png"
FILES = (CARD, WEIGHTS_FILE, CONFIG, GRID)
"""All that a published folder holds, and all that is uploaded."""
LINES_NAMED = 8
BEGIN, END = "<!-- samgan publish writes this part anew -->", "<!-- end of that part -->"
NO_NAME = "OWNER/NAME"
ACTIVE = {"base", "embed", "form", "iframe", "link", "meta", "object", "script", "style", "svg"}
"""Elements of HTML that run a script, or load or hide something. A hub does not show them, but other readers may."""


@dataclass(frozen=True)
class Published:
    """A folder that was published, and where it was uploaded to."""

    folder: Path
    sha256: str
    """Of the weights."""
    open: int
    """Places of the card that a person has to fill in; 0 unless it is a draft."""
    draft: bool
    repository: str = ""
    """OWNER/NAME on the Hub; empty, as all below, if nothing was uploaded."""
    commit: str = ""
    url: str = ""
    private: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**vars(self), "folder": str(self.folder)}

    def to_text(self) -> str:
        """For a reader."""
        files = ", ".join(FILES)
        text = f"{self.folder}: {files}"
        if self.draft:
            text += f"\nA draft: {self.open} places of {CARD} marked {OPEN} are left for you to fill in"
        if not self.repository:
            return f"{text}\nLook at it, then upload it with the same command and --push {NO_NAME}"
        seen = "private: only you, or your organisation, can see it" if self.private else "public"
        use = f"samgan sample hf:{self.repository} --out samples"
        return f"{text}\n{self.url} ({seen}), commit {self.commit}\nUse it with: {use}"


def publish(  # noqa: PLR0913 (options of one call, each with a default)
    run: Location,
    folder: Location,
    *,
    data: PreparedSet | None = None,
    documents: Mapping[str, Path | None] | None = None,
    attribution: str = "",
    licence: str = "",
    datasets: Sequence[str] = (),
    card: Location | None = None,
    checkpoint: str = "newest",
    draft: bool = False,
    push: str = "",
    public: bool = False,
) -> Published:
    """Write a folder ready for the Hugging Face Hub, and upload it if asked to.

    The folder holds README.md (the model card), model.safetensors, config.json and grid.png (synthetic images), and
    nothing else. A folder of the same model is brought up to date; what a person wrote into its card stays.

    Long because it has many options, each described below.

    Args:
        run: The run folder, a .safetensors file made by `export`, or another name of a model, as for `sample`.
        folder: A new folder, or one that this function wrote of the same model.
        data: The prepared set that the model was trained on, for the card.
        documents: Files by "scores", "audit" and "utility"; default: those in the run folder, if there are any.
        attribution: Who made the images, and the terms they are under, for the card.
        licence: Of the model, best as the Hub names it, such as "cc-by-4.0"; default: the one in the card.
        datasets: Data sets of the Hub that the model was trained on.
        card: The card of `samgan card`, filled in; default: README.md of the folder, else MODEL_CARD.md of the run,
            else a new one.
        checkpoint: "newest", "best" or a checkpoint file, if `run` is a run folder.
        draft: Publish although places of the card are open. The card and its tags say that it is a draft.
        push: OWNER/NAME of a repository to upload to (needs the extra `hub`). A new one is private, unless `public`.
        public: Allow everybody to see the repository.

    Returns:
        The folder, the number of open places, and where it was uploaded to.

    Raises:
        UsageError: The options contradict each other or the card, or huggingface_hub is missing.
        SamganError: Places of the card are open and it is no draft, the card is of another model or has other scores,
            another audit or other sign-offs than the run has, the folder is in use, or the upload failed.
    """
    source, folder = Path(run), Path(folder)
    if push:
        check_repository(push)
    elif public:
        raise UsageError("--public: name the repository to upload to with --push")
    record = read_record(source, data, documents, attribution=attribution, licence=licence, checkpoint=checkpoint)
    if record.model is None:
        raise UsageError(f"{source} is a prepared set: only models are published")
    model, there = record.model, _is_there(folder)
    if there:
        _check_same(folder, model)
    found = _find_card(source, folder if there else None, None if card is None else Path(card))
    if found is not None:
        _check_unused(found, attribution, documents or {})
    readme, left = _readme(record, source, found, datasets, push, draft)
    if there:
        _write(folder, model, readme)
    else:
        with atomic_folder(folder) as new:
            _write(new, model, readme)
    done = Published(folder, model.sha256, left, draft)
    if not push:
        return done
    try:
        sent = send(folder, FILES, push, f"samgan {__version__}: weights {model.sha256[:12]}", public=public)
    except SamganError as error:
        raise type(error)(f"{error} ({folder} is complete: the same command tries the upload again)") from None
    return replace(done, repository=sent.repository, commit=sent.commit, url=sent.url, private=sent.private)


def _is_there(folder: Path) -> bool:
    """Whether the folder is one of `publish`; a new one is not."""
    if not folder.is_dir() or not holds_something(folder):
        check_new_folder(folder)
        return False
    if not (folder / CARD).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise SamganError(f"{folder} is not empty, and samgan publish did not write it; name a new folder")
    return True


def _check_same(folder: Path, model: Model) -> None:
    """Refuse a folder of another model, and files that would be shared with it by mistake."""
    for name in FILES:
        remove_leftovers(folder / name)  # of a call that was killed
    known = (*FILES, ".git", ".gitattributes", ".cache")  # of git, and of the Hub's own programs
    others = [path.name for path in folder.iterdir() if path.name not in known and not is_system_name(path.name)]
    if others:
        raise SamganError(f"{folder} holds {sorted(others)[0]}: expected only {', '.join(FILES)}; move it elsewhere")
    found = read_model(folder / WEIGHTS_FILE)
    if (found.sha256, found.config) != (model.sha256, model.config):
        raise SamganError(
            f"{folder} holds another model (sha256 {found.sha256[:12]}, not {model.sha256[:12]}); name a new folder"
        )


def _find_card(source: Path, folder: Path | None, card: Path | None) -> Path | None:
    """The card that a person may have filled in; None if there is none yet."""
    if card is not None:
        return card
    places = [folder / CARD] if folder else []
    places.append(source / ("MODEL_CARD.md" if is_run(source) else CARD))
    return next((path for path in places if path.is_file()), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SamganError(f"{path} cannot be read: {error.strerror}") from None


def _check_unused(card: Path, attribution: str, documents: Mapping[str, Path | None]) -> None:
    """Refuse options that only a new card can hold."""
    given = {"attribution": attribution, **{name: documents.get(name) for name in ("audit", "utility")}}
    if unused := [name for name, value in given.items() if value]:
        raise UsageError(
            f"--{unused[0]}: {card} is used as it is; write that into it, or give the option to samgan card and name "
            "the new card with --card"
        )


class _Active(HTMLParser):
    """Finds HTML that may run or load something: elements in `ACTIVE`, handlers of events, addresses of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""

    @classmethod
    def first(cls, text: str) -> str:
        """The first such place of a text; empty: there is none."""
        if re.search(r"\bjavascript:", text, re.IGNORECASE):  # a link of Markdown is no HTML
            return "javascript:"
        parser = cls()
        parser.feed(text)
        parser.close()
        return parser.found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember the tag, if it is the first of its kind."""
        handlers = [name for name, _ in attrs if name.startswith("on")]
        scripts = [name for name, value in attrs if "javascript:" in "".join((value or "").split()).lower()]
        if not self.found and (tag in ACTIVE or handlers or scripts):
            self.found = (self.get_starttag_text() or f"<{tag}>")[:80]


def _check_card(body: str, record: Record, where: str) -> None:
    """Refuse the card of another model, one that contradicts the run's documents, and active HTML."""
    assert record.model is not None
    if found := _Active.first(body):
        raise SamganError(f"{where} holds {shown(found)!r}, which may run or load something in a browser: remove it")
    if record.model.sha256 not in body:
        raise SamganError(
            f"{where} is not the card of this model: expected its sha256 {record.model.sha256[:12]}... in it; make one "
            "with samgan card, and name it with --card"
        )
    found_now = [("another audit", audit.verdict) for audit in record.audits.values()]
    found_now += [("other scores", answers.results(record)), ("other sign-offs", answers.sign_offs(record))]
    for what, answer in found_now:
        if escape(answer) not in body:
            raise SamganError(
                f"{where} has {what} than the run has now; make the card again with samgan card, and name it "
                "with --card"
            )


def _check_open(text: str, licensed: bool, card: Path | None, source: Path, draft: bool) -> int:
    """Count the open places of a card; refuse any, and a missing licence, unless it is a draft."""
    count = text.count(OPEN)
    if draft or (licensed and not count):
        return count
    if not licensed:
        raise SamganError(f"{card or source}: no licence; name it with --licence, such as cc-by-4.0, or say --draft")
    if card is None:
        raise SamganError(
            f"{source}: {count} places of its card are open; write a --draft, fill in its {CARD}, then publish again "
            "without --draft"
        )
    lines = [str(number) for number, line in enumerate(text.splitlines(), 1) if OPEN in line]
    more = ", ..." if len(lines) > LINES_NAMED else ""
    raise SamganError(
        f"{card}: {count} places are marked {OPEN} (lines {', '.join(lines[:LINES_NAMED])}{more}); fill them in, or "
        "say --draft"
    )


def _take_head(body: str) -> tuple[str, str]:
    """The repository that the part of an earlier `publish` names, if any, and the card without that part."""
    part = re.compile(rf"{re.escape(BEGIN)}(.*?){re.escape(END)}\n*", re.DOTALL)
    found = part.search(body)
    named = re.search(rf"hf:({REPOSITORY})", found[1], re.ASCII) if found else None
    return named[1] if named else "", part.sub("", body)


def _readme(
    record: Record, source: Path, card: Path | None, datasets: Sequence[str], push: str, draft: bool
) -> tuple[str, int]:
    """README.md, and how many places of it are open; `card` is what a person may have filled in, None: a new one."""
    assert record.model is not None
    shipped = SHIPPED.get(str(source))
    text = _read(card) if card else shipped.card if shipped else format_card(record)
    own, body = split_card(text, str(card or source))
    repository, body = _take_head(body)
    _check_card(body, record, str(card or source))
    front = front_matter(own, record, shipped, datasets, draft)
    left = _check_open(text, "license" in front, card, source, draft)
    return join_card(front, _add_head(body, push or repository or NO_NAME, left, draft)), left


def _add_head(body: str, repository: str, left: int, draft: bool) -> str:
    """The card with a picture and how to use the model, below its title."""
    title, rest = "", body.lstrip()
    if rest.startswith("# "):
        title, _, rest = rest.partition("\n")
    note = f"> **DRAFT: {left} places of this card are open. Do not rely on it.**\n\n" if draft else ""
    return f"""
{title}

{BEGIN}
{note}![Synthetic images made by this model, of no real person]({GRID})

    pip install 'samgan[hub]'
    samgan sample hf:{repository} --count 64 --out samples

{END}

{rest.lstrip()}"""


def _write(folder: Path, model: Model, readme: str) -> None:
    if not (folder / WEIGHTS_FILE).exists():  # those that are there were checked, and would get another hash as a file
        write_model(model, folder / WEIGHTS_FILE)
    write_json(folder / CONFIG, model.config.to_dict())
    seeds = range(GRID_IMAGES)  # of which a grid shows those that it has room for
    with atomic_write(folder / GRID) as file:
        write_sheet(file, "grid", model, seeds, model.labels(seeds))
    with atomic_write(folder / CARD) as file:
        file.write(readme.encode())
