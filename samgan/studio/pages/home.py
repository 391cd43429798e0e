"""Home: what is below the root."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samgan.studio.view import Page, asked, list_seen, respond, studio_of


def home(request: Request) -> Response:
    """All sets and runs."""
    found = studio_of(request).catalogue.look()
    return respond(request, "home.html", title="Home", page="/", found=found, seen=list_seen(found))


def home_part(request: Request) -> Response:
    """Its lists; nothing if the browser shows them already."""
    found = studio_of(request).catalogue.look()
    seen = list_seen(found)
    if asked(request).get("seen") == seen:
        return Response(status_code=204)
    return respond(request, "home_part.html", found=found, seen=seen)


PAGE = Page("Home", "/", (Route("/", home), Route("/list", home_part)))
