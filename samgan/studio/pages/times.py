"""Time: the same seeds at every snapshot of a run, on a slider."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samgan.errors import UsageError
from samgan.studio.grids import Grid, find_grids, has_real_grid
from samgan.studio.places import Root
from samgan.studio.view import Page, asked, respond, studio_of


@dataclass(frozen=True)
class Frame:
    """What the slider shows."""

    grids: tuple[Grid, ...]
    at: int
    """Which of them."""
    has_real: bool
    """Whether there is a grid of real images."""
    real: bool
    """Whether it is shown, too."""


def times(request: Request) -> Response:
    """The slider of one run, or the list of runs."""
    wanted, studio = asked(request), studio_of(request)
    if "run" not in wanted:
        return respond(request, "times_runs.html", title="Time", page="/time", found=studio.catalogue.look())
    place = wanted["run"]
    frame = _frame(studio.root, place, wanted)
    return respond(request, "times.html", title=f"Time: {place}", page="/time", place=place, frame=frame)


def frame_part(request: Request) -> Response:
    """The picture at another place of the slider."""
    wanted = asked(request)
    place = wanted.get("run", "")
    return respond(request, "frame_part.html", place=place, frame=_frame(studio_of(request).root, place, wanted))


def _frame(root: Root, place: str, wanted: dict[str, str]) -> Frame:
    grids = find_grids(root, place)
    at = wanted.get("at", str(len(grids)))
    if not (at.isascii() and at.isdigit() and len(at) < 10):
        raise UsageError("at: expected a whole number, the place on the slider")
    has_real = has_real_grid(root, place)
    return Frame(tuple(grids), min(int(at), max(0, len(grids) - 1)), has_real, has_real and wanted.get("real") == "1")


PAGE = Page("Time", "/time", (Route("/time", times), Route("/time/frame", frame_part)))
