"""The part of a page that follows a command which was started there."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samgan.studio.jobs import find_job
from samgan.studio.view import Page, asked, respond, studio_of


def job_part(request: Request) -> Response:
    """What a command says by now; nothing if the browser shows it already."""
    wanted = asked(request)
    job = find_job(studio_of(request), wanted.get("job", ""), wanted.get("back", ""))
    if wanted.get("seen") == job.seen:
        return Response(status_code=204)
    return respond(request, "job_part.html", job=job, asked=True)


PAGE = Page("", "/job", (Route("/job", job_part),))
