"""Balance: the stages of `samgan balance` with their results, a form that begins it, and a button that goes on."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samgan.errors import SamganError, UsageError
from samgan.files import check_new_folder, hash_json
from samgan.metrics.weights_here import features_here
from samgan.presets import PLUS, preset_names, scale_names
from samgan.provenance import SET_FORMATS
from samgan.studies import Advice, short_advice
from samgan.studies.balance_documents import METHODS, Plan
from samgan.studio import processes
from samgan.studio.balance import Stage, Study, words_to_continue
from samgan.studio.choices import chosen_set, features_words, number, one_of
from samgan.studio.jobs import Job, find_job, start_job
from samgan.studio.places import Outside
from samgan.studio.view import Page, Studio, asked, form, link, respond, studio_of

METHOD_WORDS = {
    "joint": "one model that is told the class",
    "per-class": "one model for each class that lacks images",
    "fine-tuned": "the same, each begun with a model of all images",
}

PATIENCE = 60.0
"""Seconds for an answer to what is known of a set, which a command reads."""


@dataclass(frozen=True)
class Now:
    """A study at this moment."""

    place: str
    problem: str
    stages: list[Stage]
    job: Job
    data: str
    """The place of its set; empty if that is not below the root."""

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return bool(self.stages) and self.stages[-1].state == "done"

    @property
    def seen(self) -> str:
        """A hash: equal if the page would show the same."""
        return hash_json([self.problem, [asdict(stage) for stage in self.stages], self.job.seen])[:16]


def balance(request: Request) -> Response:
    """The list with the form, or one study."""
    wanted, studio = asked(request), studio_of(request)
    if "at" not in wanted:
        return _list(request, wanted)
    now = _now(studio, wanted["at"])
    return respond(request, "balance.html", title=f"Balance: {now.place}", page="/balance", now=now)


def now_part(request: Request) -> Response:
    """The part of the page that changes; nothing if the browser shows it already."""
    wanted = asked(request)
    now = _now(studio_of(request), wanted.get("at", ""))
    if wanted.get("seen") == now.seen:
        return Response(status_code=204)
    return respond(request, "balance_part.html", now=now)


async def begin(request: Request) -> Response:
    """Start `samgan balance` in a new folder."""
    typed = await form(request)
    return await run_in_threadpool(_begin, request, typed)


async def advise(request: Request) -> Response:
    """What is known of whether synthetic images will help with the set of the form."""
    typed = await form(request)
    return await run_in_threadpool(_advise, request, typed)


async def go_on(request: Request) -> Response:
    """Give the command of a study again."""
    return await run_in_threadpool(_go_on, studio_of(request), (await form(request)).get("at", ""))


def _list(request: Request, typed: Mapping[str, str], trouble: str = "", advice: Sequence[str] = ()) -> Response:
    studio = studio_of(request)
    studies = studio.catalogue.documents(Plan, "plan.json")
    begun = [_now(studio, found.place) for found in studies]
    sets = [found for found in studio.catalogue.sets() if found.info and len(found.info.classes) > 1]
    suggested = {"name": f"balanced/{time.strftime('%Y%m%d-%H%M%S')}", "preset": PLUS, "minutes": "60", "seeds": "5"}
    return respond(
        request, "balance_list.html", status=409 if trouble else 200, title="Balance", page="/balance", begun=begun,
        typed={**suggested, **typed}, trouble=trouble, sets=sets, methods=METHOD_WORDS, formats=SET_FORMATS,
        presets=preset_names(), scales=scale_names(), features=features_here(), advice=advice, in_short=_in_short(),
        advice_trouble="",
    )  # fmt: skip


def _now(studio: Studio, place: str) -> Now:
    found = studio.catalogue.document(Plan, place, "plan.json")
    job = find_job(studio, f"balance {place}", link("/balance", at=place))
    if found.document is None:
        problem = "" if job.running else found.problem  # the plan is the first thing that the command writes
        return Now(place, problem, [], job, "")
    try:
        stages = Study(studio.catalogue, place, found.document).stages(job.running)
    except Outside as error:
        return Now(place, str(error), [], job, "")
    data = studio.catalogue.set_of(found.document.data.sha256)
    return Now(place, "", stages, job, data.place if data else "")


def _in_short() -> str:
    """What `samgan balance` says before it begins; on the page, a button tells more."""
    try:
        return short_advice().partition(" More:")[0]
    except SamganError as error:  # a damaged installation: the form is there all the same
        return str(error)


def _advise(request: Request, typed: Mapping[str, str]) -> Response:
    studio, trouble = studio_of(request), ""
    advice: Sequence[str] = ()
    try:
        words = ["balance", str(studio.root.find(chosen_set(studio, typed))), f"--target={_target(typed)}"]
        text = processes.answer([*words, "--advise", "--json"], PATIENCE)
        advice = msgspec.convert(json.loads(text), Advice).lines
    except (SamganError, ValueError) as error:
        trouble = str(error)
    if request.headers.get("hx-request") == "true":
        return respond(request, "advice_part.html", in_short=_in_short(), advice=advice, advice_trouble=trouble)
    return _list(request, typed, trouble, advice)


def _begin(request: Request, typed: Mapping[str, str]) -> Response:
    studio = studio_of(request)
    try:
        data = chosen_set(studio, typed)
        place = typed.get("name", "").strip().strip("/")
        if not place:
            raise UsageError("Name a new folder for the balanced set, such as balanced/first.")
        out = studio.root.find(place)
        check_new_folder(out)
        words = ["balance", str(studio.root.find(data)), str(out)]
        words.append(f"--target={_target(typed)}")
        words.append(f"--method={one_of('method', typed.get('method', METHODS[0]), METHODS)}")
        words.append(f"--format={one_of('format', typed.get('format', SET_FORMATS[0]), SET_FORMATS)}")
        for name, whole in (("minutes", False), ("seeds", True), ("confidence", False)):
            if given := typed.get(name, "").strip():
                words.append(f"--{name}={number(name, given, whole)}")
        for name, known in (("preset", preset_names()), ("scale", scale_names())):
            if chosen := typed.get(name, ""):
                words.append(f"--{name}={one_of(name, chosen, known)}")
        job = find_job(studio, f"balance {place}", link("/balance", at=place))
        return start_job(studio, job.key, [*words, *features_words(typed)], job.back)
    except SamganError as error:
        return _list(request, typed, str(error))


def _go_on(studio: Studio, place: str) -> Response:
    now = _now(studio, place)
    found = studio.catalogue.document(Plan, place, "plan.json")
    if found.document is None:
        raise SamganError(found.problem)
    if not now.data:
        raise SamganError("The set of this study is not in the folder of this studio: go on on the command line.")
    data, out = (studio.root.check_tree(studio.root.find(each)) for each in (now.data, place))
    words = words_to_continue(studio.root, found.document, data, out)
    return start_job(studio, now.job.key, words, now.job.back)


def _target(typed: Mapping[str, str]) -> str:
    given = typed.get("target", "").strip() or "equal"
    return given if given == "equal" else number("target", given, whole=given.isdigit())


PAGE = Page(
    "Balance",
    "/balance",
    (
        Route("/balance", balance),
        Route("/balance/now", now_part),
        Route("/balance/begin", begin, methods=["POST"]),
        Route("/balance/advise", advise, methods=["POST"]),
        Route("/balance/continue", go_on, methods=["POST"]),
    ),
)
