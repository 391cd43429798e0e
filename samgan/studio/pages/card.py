"""Cards: the open places of a model card or data card as fields of a form; the answers are kept, the card rewritten."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samgan.errors import SamganError, shown
from samgan.files import hash_json
from samgan.studio.jobs import Job, find_job, start_job
from samgan.studio.places import Outside
from samgan.studio.view import Page, Studio, asked, form, link, respond, studio_of, words_of
from samgan.trust.card_form import FILE, CardForm, OpenItem

LONGEST = 4000
"""Characters of an answer."""
CARD_BYTES = 1 << 20
PREFIX = "answer:"


@dataclass(frozen=True)
class Now:
    """The card of a run or of a set at this moment."""

    place: str
    form: CardForm | None
    problem: str
    edited: bool
    """Whether somebody edited the card by hand since samgan wrote it."""
    text: str
    """The card; empty if it is not there."""
    is_run: bool

    @property
    def sections(self) -> dict[str, list[OpenItem]]:
        """The places by the heading they stand under."""
        found: dict[str, list[OpenItem]] = {}
        for item in self.form.items if self.form else ():
            found.setdefault(item.section, []).append(item)
        return found

    @property
    def seen(self) -> str:
        """A hash of the answers: another one means that they were changed since."""
        return hash_json(self.form.to_dict())[:16] if self.form else ""


def card(request: Request) -> Response:
    """The list, or one card."""
    wanted, studio = asked(request), studio_of(request)
    if "at" in wanted:
        return _one(request, wanted["at"])
    found = studio.catalogue.look()
    places = [run.place for run in found.runs if run.saved_step] + [each.place for each in found.sets if each.info]
    return respond(request, "card_list.html", title="Cards", page="/card", cards=[_now(studio, at) for at in places])


async def write(request: Request) -> Response:
    """Keep the answers, and start `samgan card`."""
    typed = await form(request)
    return await run_in_threadpool(_write, request, typed)


def _one(request: Request, place: str, typed: Mapping[str, str] | None = None, trouble: str = "") -> Response:
    studio = studio_of(request)
    now = _now(studio, place)
    if problem := _absent(studio, place):
        now = replace(now, problem=problem)
    if typed is not None and now.form:
        items = tuple(replace(item, answer=typed.get(PREFIX + item.key, "")) for item in now.form.items)
        now = replace(now, form=replace(now.form, items=items))
    return respond(
        request, "card.html", status=409 if trouble else 200, title=f"Card: {place}", page="/card", now=now,
        seen=_now(studio, place).seen, job=_job(studio, place), asked=False, trouble=trouble, prefix=PREFIX,
        longest=LONGEST,
    )  # fmt: skip


def _now(studio: Studio, place: str) -> Now:
    folder = studio.root.find(place)
    is_run = studio.catalogue.describe_run(place).state != "absent"
    try:
        return _card(studio, place, folder, is_run)
    except Outside as error:  # the card is a link
        return Now(place, None, str(error), False, "", is_run)


def _card(studio: Studio, place: str, folder: Path, is_run: bool) -> Now:
    path = folder / FILE
    if not path.is_file():
        text = _text(studio, folder / ("MODEL_CARD.md" if is_run else "DATA_CARD.md"))
        return Now(place, None, "", bool(text), text, is_run)
    found = studio.catalogue.document(CardForm, place, FILE)
    if found.document is None:
        return Now(place, None, found.problem, False, "", is_run)
    own = found.document
    if Path(own.card).name != own.card or own.card.startswith("."):
        return Now(place, None, f"{FILE} names a card outside of its folder: {own.MADE_BY}", False, "", is_run)
    try:
        edited = own.is_edited(studio.root.check(folder / own.card).parent)
    except OSError:
        edited = False
    return Now(place, own, "", edited, _text(studio, folder / own.card), is_run)


def _absent(studio: Studio, place: str) -> str:
    """Why a place can have no card; empty if it can."""
    folder = studio.root.find(place)
    if not folder.is_dir():
        return f"There is no folder {shown(place)} in the folder of this studio, or not any more."
    if studio.catalogue.describe_run(place).state == "absent" and not (folder / "dataset.json").is_file():
        return f"{shown(place)} is neither a run nor a prepared set, so it has no card."
    return ""


def _text(studio: Studio, path: Path) -> str:
    try:
        with open(studio.root.check(path), "rb") as opened:
            return opened.read(CARD_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _write(request: Request, typed: Mapping[str, str]) -> Response:
    studio, place = studio_of(request), typed.get("at", "")
    try:
        now = _now(studio, place)
        if problem := _absent(studio, place) or now.problem:
            raise SamganError(problem)
        if now.edited and typed.get("replace") != "yes":
            raise SamganError("The card was edited by hand. Say below that it may be replaced, or edit it there.")
        if now.form:
            if typed.get("seen") != now.seen:
                raise SamganError("The answers were changed elsewhere since you opened this page: open it again.")
            answers = {key.removeprefix(PREFIX): words for key, words in typed.items() if key.startswith(PREFIX)}
            if any(len(words) > LONGEST for words in answers.values()):
                raise SamganError(f"An answer is longer than {LONGEST} characters.")
            now.form.answered(answers).write(studio.root.find(place) / FILE)
        job = _job(studio, place)
        return start_job(studio, job.key, _words(studio, now), job.back)
    except (SamganError, OSError) as error:
        return _one(request, place, typed, words_of(error))


def _words(studio: Studio, now: Now) -> list[str]:
    root = studio.root
    words = ["card", str(root.check_tree(root.find(now.place)))]
    environment = studio.catalogue.describe_run(now.place).environment
    if now.is_run and environment and environment.data:
        data = studio.catalogue.set_of(environment.data.sha256)
        words += [f"--data={root.check_tree(root.find(data.place))}"] if data else []
    return [*words, "--replace"] if now.edited else words


def _job(studio: Studio, place: str) -> Job:
    return find_job(studio, f"card {place}", link("/card", at=place))


PAGE = Page("Cards", "/card", (Route("/card", card), Route("/card/write", write, methods=["POST"])))
