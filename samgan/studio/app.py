"""The pages of the studio as one application. A new page is a file in `pages/` and a line in `PAGES`."""

from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from samgan.errors import SamganError
from samgan.studio.catalogue import Catalogue
from samgan.studio.guard import Guard
from samgan.studio.pages import (
    audit,
    balance,
    card,
    compare,
    data,
    generate,
    home,
    job,
    prepare,
    scores,
    start,
    table2,
    times,
    train,
)
from samgan.studio.places import Root
from samgan.studio.view import TEMPLATES, Studio, explain, trouble
from samgan.studio.worker import Worker

PAGES = (
    home.PAGE,
    prepare.PAGE,
    data.PAGE,
    train.PAGE,
    start.PAGE,
    times.PAGE,
    compare.PAGE,
    scores.PAGE,
    generate.PAGE,
    audit.PAGE,
    balance.PAGE,
    table2.PAGE,
    card.PAGE,
    job.PAGE,
)
"""All pages, in the order of a user's day."""
STATIC = {path.name: path for path in sorted(Path(__file__).with_name("static").iterdir()) if path.suffix != ".md"}
STATIC["page.css"] = TEMPLATES[1] / "style.css"
"""Files of ours that a browser may load, by name."""


def make_app(
    root: Root,
    *,
    hosts: Sequence[str],
    token: str,
    read_only: bool = False,
    open_to_others: bool = False,
    worker: Worker | None = None,
) -> Guard:
    """Make the application: all pages, behind the guard.

    Args:
        root: The folder to show.
        hosts: What a browser may call this server, such as "127.0.0.1:8017"; the first with its port.
        token: The key of the first link.
        read_only: Whether to refuse everything but looking.
        open_to_others: Whether other machines can reach it; every page then says so.
        worker: Makes pictures; default: a new one.
    """
    app = Starlette(
        routes=[
            *(route for page in PAGES for route in page.routes),
            Route("/static/{name}", _static),
            Route("/favicon.ico", _icon),
        ],
        exception_handlers={SamganError: trouble, OSError: trouble, HTTPException: _unknown, Exception: _bug},
    )
    app.state.studio = Studio(root, Catalogue(root), read_only, PAGES, open_to_others, worker=worker or Worker())
    return Guard(app, hosts=hosts, token=token, read_only=read_only)


def _static(request: Request) -> Response:
    path = STATIC.get(request.path_params["name"])
    if path is None:
        raise HTTPException(404)
    return FileResponse(path, headers={"cache-control": "private, max-age=600"})


def _icon(request: Request) -> Response:
    """The icon for browsers that ask for it by itself."""
    return FileResponse(STATIC["icon.svg"])


def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return explain(request, "There is no such page.", status=status, title="Not found")


def _bug(request: Request, error: Exception) -> Response:
    words = f"samgan studio made a mistake ({type(error).__name__}); its terminal says more. Trainings go on."
    return explain(request, words, status=500)
