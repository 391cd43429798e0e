"""Start: a form for a new training, what it would cost, and its start."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from samgan.config import Config
from samgan.errors import SamganError, UsageError
from samgan.files import check_new_folder
from samgan.presets import PLUS, preset_names, scale_names
from samgan.studio import processes, settings_form
from samgan.studio.choices import chosen_set, number
from samgan.studio.settings_form import FIRST, Field
from samgan.studio.view import Page, Studio, asked, form, link, respond, studio_of, words_of

PATIENCE = 180.0
"""Seconds for an answer to what a training would cost: it has to start torch."""


@dataclass(frozen=True)
class Cost:
    """What a training would need."""

    parameters: int
    """Of both networks."""
    memory_bytes: int
    kimg: float
    seconds: float | None
    """Until then, at the speed of a run with the same networks and batch on such a machine; None if there is none."""
    measured_in: str
    """That run's place."""
    unused: tuple[str, ...] = ()
    """Settings of the form that have no effect, and why."""
    limit: float | None = None
    """Seconds after which it ends in any case; None: there is no limit."""

    @property
    def ends_early(self) -> bool:
        """Whether the limit comes before all kimg are done, as far as that is known."""
        return self.limit is not None and (self.seconds is None or self.limit < self.seconds)


def start(request: Request) -> Response:
    """The empty form."""
    wanted = asked(request)
    suggested = {"name": f"runs/run-{time.strftime('%Y%m%d-%H%M%S')}", "preset": PLUS}
    return _form(request, {**suggested, **wanted})


async def cost(request: Request) -> Response:
    """What the training of the form would cost."""
    typed = await form(request)
    return await run_in_threadpool(_cost_page, request, typed)


async def begin(request: Request) -> Response:
    """Start the training of the form."""
    typed = await form(request)
    return await run_in_threadpool(_begin, request, typed)


def _form(
    request: Request, typed: Mapping[str, str], *, cost: Cost | None = None, trouble: str = "", status: int = 200
) -> Response:
    fields = settings_form.fields()
    sections: dict[str, list[Field]] = {}
    for field in fields:
        if field.key not in FIRST:
            sections.setdefault(field.key.partition(".")[0], []).append(field)
    values = {"sets": studio_of(request).catalogue.sets(), "presets": preset_names(), "scales": scale_names()}
    first = [field for field in fields if field.key in FIRST]
    return respond(
        request, "start.html", status=status, title="Start a training", page="/train", typed=typed, first=first,
        sections=sections, cost=cost, trouble=trouble, **values,
    )  # fmt: skip


def _cost_page(request: Request, typed: Mapping[str, str]) -> Response:
    found, trouble = None, ""
    try:
        found = _cost(studio_of(request), typed)
    except SamganError as error:
        trouble = str(error)
    if request.headers.get("hx-request") == "true":
        return respond(request, "cost_part.html", cost=found, trouble=trouble)
    return _form(request, typed, cost=found, trouble=trouble, status=409 if trouble else 200)


def _cost(studio: Studio, typed: Mapping[str, str]) -> Cost:
    minutes = _minutes(typed)
    text = processes.answer([*_words(studio, typed), "--dry-run", "--json"], PATIENCE)
    document = json.loads(text)
    config = Config.from_dict(document["config"])
    speed, place = 0.0, ""
    for run in studio.catalogue.look().runs:
        if not run.config or not run.environment or run.config.network != config.network:
            continue
        machine = (run.environment.device.partition(":")[0], run.environment.processor)  # cuda:0 is a cuda
        same_batch = run.config.training.batch_size == config.training.batch_size
        if same_batch and machine == (document["device"], document["processor"]):
            speed, place = run.images_per_second, run.place
        if speed:
            break
    parameters = document["generator_parameters"] + document["discriminator_parameters"]
    seconds = 1000 * config.training.kimg / speed if speed else None
    limit = 60 * float(minutes) if minutes else None
    unused = tuple(document["unused_settings"])
    return Cost(parameters, document["memory_bytes"], config.training.kimg, seconds, place, unused, limit)


def _begin(request: Request, typed: Mapping[str, str]) -> Response:
    studio = studio_of(request)
    try:
        place = typed.get("name", "").strip().strip("/")
        if not place:
            raise UsageError("Name a folder for the run, such as runs/first.")
        out = studio.root.find(place)
        check_new_folder(out)
        words = [*_words(studio, typed), f"--out={out}"]
        if minutes := _minutes(typed):
            words.append(f"--minutes={minutes}")
        processes.start(studio.root, place, words)
    except (SamganError, OSError) as error:
        return _form(request, typed, trouble=words_of(error), status=409)
    return RedirectResponse(link("/train", run=place), 303)


def _minutes(typed: Mapping[str, str]) -> str:
    """The minutes of a form, as a command takes them; empty if there is no limit.

    Raises:
        UsageError: They are no number.
    """
    minutes = typed.get("minutes", "").strip()
    return number("minutes", minutes, whole=False) if minutes else ""


def _words(studio: Studio, typed: Mapping[str, str]) -> list[str]:
    """The command for the set, preset and settings of a form.

    Raises:
        UsageError: One of them is not what it may be.
        Outside: The set, or a link in it, leads out of the root.
    """
    words = ["train", str(studio.root.find(chosen_set(studio, typed)))]
    for name, known in (("preset", preset_names()), ("scale", scale_names())):
        chosen = typed.get(name, "")
        if chosen and chosen not in known:
            raise UsageError(f"{name}: expected one of {', '.join(known)}")
        words += [f"--{name}={chosen}"] if chosen else []
    return [*words, *settings_form.words(typed)]


PAGE = Page(
    "",
    "/start",
    (
        Route("/start", start),
        Route("/start", begin, methods=["POST"]),
        Route("/start/cost", cost, methods=["POST"]),
    ),
)
