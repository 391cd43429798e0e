"""Time: the same seeds at every snapshot of a run, on a slider; what is within the generator of a checkpoint."""

from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samgan.errors import SamganError, UsageError, shown
from samgan.grids import grid_images
from samgan.seeds import SEEDS
from samgan.studio.choices import weights_hash, whole_number
from samgan.studio.grids import Grid, find_grids, has_real_grid
from samgan.studio.models import FoundCheckpoint, FoundModel, find_checkpoints, find_model
from samgan.studio.places import Root
from samgan.studio.tasks import Inside, Made
from samgan.studio.view import Page, Studio, asked, explain, is_part, link, respond, studio_of
from samgan.studio.worker import weights

COLUMNS = 8
"""Seeds of which what is within the generator is shown; fewer for large images."""


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


@dataclass(frozen=True)
class Kept:
    """What a run has kept of its generator."""

    model: FoundModel | None
    """The run as a model; None if it has no checkpoint, or is damaged."""
    checkpoints: tuple[FoundCheckpoint, ...] = ()
    """The oldest first; at least one if there is a model."""
    problem: str = ""
    """Why there is none."""


@dataclass(frozen=True)
class Look:
    """What is to be shown of a checkpoint."""

    model: FoundModel
    checkpoint: FoundCheckpoint
    what: Literal["scales", "attention"]
    seed: int
    """The first."""
    class_name: str
    """Empty: classes take turns."""

    @property
    def seeds(self) -> range:
        """Of the columns."""
        return range(self.seed, self.seed + _columns(self.model))

    def task(self, sha256: str = "") -> Inside:
        """What the worker has to do, with weights of this hash."""
        used = weights(self.model.path, sha256, checkpoint=self.checkpoint.name)
        return Inside(used, tuple(self.seeds), self.what, self.class_name)

    def address(self, path: str = "/time", **values: object) -> str:
        """The address of the page that shows it, or of a part of it."""
        common = {"run": self.model.place, "show": self.what, "checkpoint": self.checkpoint.name, "seed": self.seed}
        return link(path, **common, **{"class": self.class_name or None}, **values)

    def picture(self, made: Made, number: int) -> str:
        """The address of one of the rows that were made."""
        return self.address("/time/inside.png", sha256=made.sha256, n=number)


def times(request: Request) -> Response:
    """The slider of one run, or the list of runs."""
    wanted, studio = asked(request), studio_of(request)
    if "run" not in wanted:
        return respond(request, "times_runs.html", title="Time", page="/time", found=studio.catalogue.look())
    place = wanted["run"]
    frame = _frame(studio.root, place, wanted)
    if not frame.grids and studio.catalogue.describe_run(place).state == "absent":
        words = f"There is no run in {shown(place)}, or not any more."
        return explain(request, words, status=200, title=f"Time: {place}")
    kept = _kept(studio, place)
    look, made, trouble = None, None, ""
    if "show" in wanted:
        try:
            look = _look(kept, wanted)
            if is_part(request) or wanted.get("now") == "1":
                made = studio.worker.make(look.task())
        except SamganError as error:
            trouble = str(error)
    values: dict[str, Any] = {"look": look, "made": made, "trouble": trouble}
    if is_part(request):
        return respond(request, "inside_part.html", **values)
    return respond(
        request, "times.html", status=409 if trouble else 200, title=f"Time: {place}", page="/time", place=place,
        frame=frame, kept=kept, chosen=_chosen(kept, frame, wanted), typed={"seed": "0", **wanted},
        columns=_columns(kept.model) if kept.model else 0, **values,
    )  # fmt: skip


def frame_part(request: Request) -> Response:
    """The picture at another place of the slider."""
    wanted = asked(request)
    place = wanted.get("run", "")
    return respond(request, "frame_part.html", place=place, frame=_frame(studio_of(request).root, place, wanted))


def inside_picture(request: Request) -> Response:
    """A row of pictures of what is within the generator."""
    wanted, studio = asked(request), studio_of(request)
    look = _look(_kept(studio, wanted.get("run", "")), wanted)
    sha256, number = weights_hash(wanted), whole_number(wanted, "n", 0, 0, 99)
    content = studio.worker.picture(look.task(sha256), number)
    return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=600"})


def _frame(root: Root, place: str, wanted: dict[str, str]) -> Frame:
    grids = find_grids(root, place)
    at = wanted.get("at", str(len(grids)))
    if not (at.isascii() and at.isdigit() and len(at) < 10):
        raise UsageError("at: expected a whole number, the place on the slider")
    has_real = has_real_grid(root, place)
    return Frame(tuple(grids), min(int(at), max(0, len(grids) - 1)), has_real, has_real and wanted.get("real") == "1")


def _columns(model: FoundModel) -> int:
    return min(COLUMNS, grid_images(model.side))


def _kept(studio: Studio, place: str) -> Kept:
    try:
        model = find_model(studio.catalogue, place)
        if model.kind != "run":
            raise UsageError("This is no run, so it has no checkpoints.")
        return Kept(model, tuple(find_checkpoints(studio.catalogue, model)))
    except SamganError as error:
        return Kept(None, problem=str(error))


def _chosen(kept: Kept, frame: Frame, wanted: dict[str, str]) -> str:
    """The checkpoint that a form offers first: the one that was asked for, that of the snapshot, or the newest."""
    names = [checkpoint.name for checkpoint in kept.checkpoints]
    if wanted.get("checkpoint") in names:
        return wanted["checkpoint"]
    kimg = frame.grids[frame.at].kimg if frame.grids else None
    same = (checkpoint.name for checkpoint in kept.checkpoints if checkpoint.kimg == kimg)
    return next(same, names[-1] if names else "")


def _look(kept: Kept, wanted: dict[str, str]) -> Look:
    """What a form asks for.

    Raises:
        UsageError: It cannot be.
        SamganError: There is no such checkpoint any more.
    """
    model = kept.model
    if model is None:
        raise SamganError(kept.problem)
    name = wanted.get("checkpoint") or kept.checkpoints[-1].name
    checkpoint = next((one for one in kept.checkpoints if one.name == name), None)
    if checkpoint is None:
        raise SamganError("This checkpoint is not there any more: load the page again for those that are.")
    what, class_name = wanted.get("show"), wanted.get("class", "")
    if what not in ("scales", "attention"):
        raise UsageError("show: expected scales or attention")
    if what == "attention" and not model.attends:
        raise UsageError("The generator of this run has no attention that compares places of an image.")
    if class_name and class_name not in model.classes:
        raise UsageError("class: the model has no such class")
    seed = whole_number(wanted, "seed", 0, 0, SEEDS - _columns(model))
    return Look(model, checkpoint, "scales" if what == "scales" else "attention", seed, class_name)


PAGE = Page(
    "Time",
    "/time",
    (Route("/time", times), Route("/time/frame", frame_part), Route("/time/inside.png", inside_picture)),
)
