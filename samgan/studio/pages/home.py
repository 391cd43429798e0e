"""Home: what is below the root."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samgan.studio.view import Page, respond, studio_of


def home(request: Request) -> Response:
    """All sets and runs."""
    studio = studio_of(request)
    return respond(request, "home.html", title="Home", page="/", found=studio.catalogue.look())


PAGE = Page("Home", "/", (Route("/", home),))
