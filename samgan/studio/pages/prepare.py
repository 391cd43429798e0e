"""Prepare: a form that makes a set of a folder of radiographs, and says beforehand what would become of it."""

import json
import time
from collections.abc import Mapping

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samgan.data.foresee import NOT_KNOWN, Foreseen
from samgan.errors import SamganError, UsageError
from samgan.files import check_new_folder
from samgan.studio import prepare_form, processes
from samgan.studio.jobs import find_job, start_job
from samgan.studio.view import Page, Studio, asked, form, link, respond, studio_of, words_of

PATIENCE = 300.0
"""Seconds for an answer to what would become of a folder: it may hold 100,000 files on a slow disk."""
FOLDERS = 200
"""Suggested sources."""


def prepare(request: Request) -> Response:
    """The empty form."""
    return _form(request, {"name": f"sets/set-{time.strftime('%Y%m%d-%H%M%S')}", **asked(request)})


async def foresee(request: Request) -> Response:
    """What would become of the folder of the form."""
    typed = await form(request)
    return await run_in_threadpool(_foresee_page, request, typed)


async def begin(request: Request) -> Response:
    """Start `samgan prepare`."""
    typed = await form(request)
    return await run_in_threadpool(_begin, request, typed)


def _form(
    request: Request, typed: Mapping[str, str], *, found: Foreseen | None = None, trouble: str = "", status: int = 200
) -> Response:
    studio, fields = studio_of(request), prepare_form.fields()
    first = [field for field in fields if field.name in prepare_form.FIRST]
    more = [field for field in fields if field.name not in prepare_form.FIRST]
    return respond(
        request, "prepare.html", status=status, title="Prepare a set", page="/data", typed=typed, first=first,
        more=more, table_fields=prepare_form.TABLE, sources=studio.catalogue.folders()[:FOLDERS], found=found,
        trouble=trouble,
        not_known=NOT_KNOWN,
    )  # fmt: skip


def _foresee_page(request: Request, typed: Mapping[str, str]) -> Response:
    found, trouble = None, ""
    try:
        text = processes.answer([*_words(studio_of(request), typed), "--dry-run", "--json"], PATIENCE)
        found = msgspec.convert(json.loads(text), Foreseen)
    except (SamganError, ValueError) as error:
        trouble = str(error)
    if request.headers.get("hx-request") == "true":
        return respond(request, "foreseen_part.html", found=found, trouble=trouble, not_known=NOT_KNOWN)
    return _form(request, typed, found=found, trouble=trouble, status=409 if trouble else 200)


def _begin(request: Request, typed: Mapping[str, str]) -> Response:
    studio = studio_of(request)
    try:
        words = _words(studio, typed)
        place = typed.get("name", "").strip().strip("/")
        check_new_folder(studio.root.find(place))
        job = find_job(studio, f"prepare {place}", link("/data", set=place))
        return start_job(studio, job.key, words, job.back)
    except (SamganError, OSError) as error:
        return _form(request, typed, trouble=words_of(error), status=409)


def _words(studio: Studio, typed: Mapping[str, str]) -> list[str]:
    """The command of a form.

    Raises:
        UsageError: Something is missing, or is not what it may be.
        Outside: A place is not below the root, or a link in the source leads out of it.
    """
    source, place = (typed.get(name, "").strip().strip("/") for name in ("source", "name"))
    if not source:
        raise UsageError("Name the folder of the radiographs, below the folder of this studio.")
    if not place:
        raise UsageError("Name a new folder for the set, such as sets/first.")
    path = studio.root.find(source)
    if not path.exists():
        raise UsageError(f"{source}: there is no such folder or file below the folder of this studio")
    studio.root.check_tree(path)
    return ["prepare", str(path), str(studio.root.find(place)), *prepare_form.words(studio.root, typed)]


PAGE = Page(
    "",
    "/prepare",
    (
        Route("/prepare", prepare),
        Route("/prepare", begin, methods=["POST"]),
        Route("/prepare/foresee", foresee, methods=["POST"]),
    ),
)
