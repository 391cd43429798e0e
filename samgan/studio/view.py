"""What every page uses: the studio's state, what a request asks for, and templates to answer with."""

import functools
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

import samgan.pages
from samgan import __version__
from samgan.errors import SamganError, UsageError, shown
from samgan.files import hash_json, is_full
from samgan.grids import RESEARCH_ONLY, SYNTHETIC
from samgan.studio.blinded import Readers
from samgan.studio.catalogue import Catalogue, Found
from samgan.studio.logs import Alarm
from samgan.studio.places import Root
from samgan.studio.worker import Worker
from samgan.terminal import printable

FORM_BYTES = 1 << 18
TEMPLATES = (Path(__file__).with_name("templates"), Path(samgan.pages.__file__).with_name("templates"))
"""Those of the studio, and those of the reports, whose parts and colours it shares."""


@dataclass(frozen=True)
class Page:
    """A page of the studio."""

    name: str
    """In the navigation; empty if it is not there."""
    path: str
    routes: tuple[Route, ...]


@dataclass(frozen=True)
class Studio:
    """What the pages know: the root, what is in it, and whether anything may be changed."""

    root: Root
    catalogue: Catalogue
    read_only: bool
    pages: tuple[Page, ...]
    open_to_others: bool = False
    """Whether other machines can reach it."""
    alarms: dict[str, Alarm] = field(default_factory=dict)
    """By place of a run."""
    worker: Worker = field(default_factory=Worker)
    """Makes pictures."""
    readers: Readers = field(default_factory=Readers)
    """Their blinded tests."""


def studio_of(request: Request) -> Studio:
    """The studio that a request was sent to."""
    studio: Studio = request.app.state.studio
    return studio


def asked(request: Request) -> dict[str, str]:
    """What the address asks for, after `?`. Names of files may hold bytes that are no text."""
    return dict(parse_qsl(request.url.query, errors="surrogateescape"))


def asked_all(request: Request, name: str) -> list[str]:
    """All values of a name that the address asks for several times, in order and without repeats."""
    pairs = parse_qsl(request.url.query, errors="surrogateescape")
    return list(dict.fromkeys(value for key, value in pairs if key == name))


async def form(request: Request) -> dict[str, str]:
    """The fields of a form that was sent; those that are empty are left out.

    Raises:
        UsageError: It is too long.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES:
            raise UsageError("the form is too long")
    return dict(parse_qsl(body.decode("latin-1"), errors="surrogateescape"))


def is_part(request: Request) -> bool:
    """Whether a script of the page asks for a part of it, and not the browser for the whole, as when going back."""
    given = request.headers
    return given.get("hx-request") == "true" and given.get("hx-history-restore-request") != "true"


def link(path: str, **values: object) -> str:
    """An address of the studio; values of None are left out."""
    given = {name: value for name, value in values.items() if value is not None}
    return f"{path}?{urlencode(given, errors='surrogateescape')}" if given else path


def respond(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Answer with a filled template; one that extends `studio.html` also wants `title` and, as `page`, its path."""
    studio = studio_of(request)
    known = {"studio": studio, "version": __version__, "research_only": RESEARCH_ONLY, "synthetic": SYNTHETIC}
    text = _templates().get_template(template).render(**known, **values)
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)


def trouble(request: Request, error: Exception) -> HTMLResponse:
    """Answer with what went wrong, as a page, or as a part of one if a part was asked for."""
    status = 400 if isinstance(error, UsageError) else 404 if isinstance(error, FileNotFoundError) else 409
    return explain(request, shown(words_of(error)), status=status)


def words_of(error: Exception) -> str:
    """What went wrong, for a reader."""
    if isinstance(error, SamganError):
        return str(error)
    remedy = " Free some space, then do it again." if isinstance(error, OSError) and is_full(error) else ""
    return f"A file could not be read or written: {getattr(error, 'strerror', None) or type(error).__name__}.{remedy}"


ASKING = ("/job", "/list", "/train/list", "/train/now", "/balance/now")
"""Addresses of parts of pages that ask for themselves again and again."""


def explain(request: Request, words: str, *, status: int, title: str = "This did not work") -> HTMLResponse:
    """Answer with a page that says what is wrong; or with a part of one that does, in place of the one asked for."""
    if request.headers.get("hx-request") != "true":
        own = {"title": title, "page": "", "words": words, "place": "", "again": ""}
        return respond(request, "trouble.html", status=status, **own)
    place = request.headers.get("hx-target", "")  # the next answer goes there, too
    # A part that asks by itself has to go on with it, and without saying what it has seen: it no longer shows that.
    url = request.url.remove_query_params("seen")
    again = f"{url.path}?{url.query}" if request.method == "GET" and url.path in ASKING else ""
    # Status 200: htmx shows nothing else.
    return respond(request, "trouble_part.html", words=words, place=place, again=again)


def list_seen(found: Found) -> str:
    """A hash: equal if lists of sets and runs would show the same."""
    sets = [(each.place, repr(each.info), each.problem) for each in found.sets]
    runs = [
        (run.place, run.state, run.problem, run.kimg, run.goal_kimg, run.images_per_second, ago(run.changed))
        for run in found.runs
    ]
    return hash_json([sets, runs, found.notes])[:16]


def named(place: str) -> str:
    """What the place of a file is called within a page, in letters that fit there."""
    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def clock(seconds: float | None) -> str:
    """A duration for a reader: "3 min", "2 h 05 min", "4 days"."""
    if seconds is None:
        return "not known"
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes / 60 / 24:.1f} days"


def ago(moment: float) -> str:
    """How long ago something was, in seconds since 1970; 0: never."""
    return f"{clock(max(0.0, time.time() - moment))} ago" if moment else "never"


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, Any] = {"shown": shown, "printable": printable, "clock": clock, "ago": ago, "named": named}
    environment.filters.update(filters)
    environment.globals["link"] = link
    return environment
