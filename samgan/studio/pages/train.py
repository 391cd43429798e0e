"""Train: a run as it goes, with its curves; stop it, or continue it."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from samgan.config import flatten
from samgan.errors import SamganError, UsageError, shown
from samgan.files import hash_json
from samgan.runs import Collapse
from samgan.studio import processes
from samgan.studio.catalogue import FoundRun, FoundSet
from samgan.studio.grids import Grid, find_grids, grid_file
from samgan.studio.logs import Alarm, curves, read_piece
from samgan.studio.view import Page, Studio, asked, asked_all, form, link, list_seen, respond, studio_of

MOST_TOGETHER = 15
"""Runs whose curves are told apart by colour and dashes."""


@dataclass(frozen=True)
class Now:
    """A run at this moment, as its page shows it."""

    run: FoundRun
    collapse: Collapse | None
    read: float
    """Share of the log in which a collapse was looked for."""
    grid: Grid | None
    """The newest."""
    said: str
    """The end of what the commands have said that the studio started for this run."""
    data: FoundSet | None
    """The set that it trains on, if it is below the root."""
    at_work: bool
    """Whether a command that the studio started for this run is still running; it may not train yet, or any more."""
    study: str
    """Place of the balanced set that it is a model of; empty if it belongs to none."""

    @property
    def seen(self) -> str:
        """A hash: equal if the page would show the same."""
        run, grid = self.run, self.grid
        number = self.collapse.step if self.collapse else None
        parts = [run.state, run.problem, run.pid, run.line.get("step"), run.changed, run.saved_step, number]
        parts += [round(self.read, 3), grid.name if grid else None, self.said]
        parts += [bool(self.data), self.at_work, self.study]
        return hash_json(parts)[:16]


def train(request: Request) -> Response:
    """One run, or the list of runs."""
    wanted, studio = asked(request), studio_of(request)
    if "run" not in wanted:
        found = studio.catalogue.look()
        return respond(
            request, "runs.html", title="Train", page="/train", found=found, seen=list_seen(found), chosen=[]
        )
    place = wanted["run"]
    now = _now(studio, place)
    tree = now.run.config.to_dict() if now.run.config else {}
    settings = [(key, json.dumps(value)) for key, value in flatten(tree).items()]
    return respond(
        request, "train.html", title=f"Run: {place}", page="/train", place=place, now=now, settings=settings,
        more=_more(studio, place) if now.run.saved_step else [],
    )  # fmt: skip


def runs_part(request: Request) -> Response:
    """The list of runs, with the boxes that were ticked; nothing if the browser shows it already."""
    found = studio_of(request).catalogue.look()
    seen = list_seen(found)
    if asked(request).get("seen") == seen:
        return Response(status_code=204)
    return respond(request, "runs_part.html", found=found, seen=seen, chosen=asked_all(request, "run"))


def together(request: Request) -> Response:
    """Curves of several runs over each other."""
    studio, places = studio_of(request), asked_all(request, "run")
    if len(places) > MOST_TOGETHER:
        raise UsageError(f"Choose at most {MOST_TOGETHER} runs.")
    for place in places:
        studio.root.find(place)
    runs = studio.catalogue.look().runs
    return respond(request, "together.html", title="Runs over each other", page="/train", places=places, runs=runs)


def now_part(request: Request) -> Response:
    """The part of the page that changes; nothing if the browser shows it already."""
    wanted, studio = asked(request), studio_of(request)
    now = _now(studio, wanted.get("run", ""))
    if wanted.get("seen") == now.seen:
        return Response(status_code=204)
    return respond(request, "now_part.html", place=now.run.place, now=now)


def curves_json(request: Request) -> Response:
    """The next piece of a run's curves, from `after` bytes of `file` on."""
    wanted, studio = asked(request), studio_of(request)
    path = studio.root.check(studio.root.find(wanted.get("run", "")) / "stats.jsonl")
    try:
        file, after = int(wanted.get("file", "0")), int(wanted.get("after", "0"))
    except ValueError:
        raise UsageError("file, after: expected whole numbers") from None
    try:
        piece = read_piece(path, file, after)
    except FileNotFoundError:
        return JSONResponse({"file": 0, "after": 0, "again": True, "more": False, "curves": curves([])})
    return JSONResponse(
        {
            "file": piece.file,
            "after": piece.after,
            "again": piece.start == 0,
            "more": piece.start < piece.after < piece.size,
            "curves": curves(piece.lines),
        }
    )


def grid_picture(request: Request) -> Response:
    """One grid of a run as it lies in its folder."""
    wanted = asked(request)
    name = wanted.get("name", "")
    path = grid_file(studio_of(request).root, wanted.get("run", ""), name)
    keep = "no-store" if name == "real.png" else "private, max-age=600"
    return FileResponse(path, media_type="image/png", headers={"cache-control": keep})


async def stop(request: Request) -> Response:
    """Ask the process that trains to stop."""
    return await run_in_threadpool(_stop, studio_of(request), (await form(request)).get("run", ""))


async def resume(request: Request) -> Response:
    """Continue a run that was stopped."""
    return await run_in_threadpool(_resume, studio_of(request), (await form(request)).get("run", ""))


def _more(studio: Studio, place: str) -> list[tuple[str, str]]:
    """Words and addresses of what else there is about a run, or can be made of it."""
    folder = studio.root.find(place)
    found = []
    for path, file, there, to_make in (
        ("/scores", "scores.json", "Scores", "Score it"),
        ("/audit", "audit.json", "Audit", "Audit it"),
    ):
        is_there = (folder / file).is_file()
        if is_there or not studio.read_only:
            found.append((there if is_there else to_make, link(path, **{"at" if is_there else "run": place})))
    return [*found, ("Card", link("/card", at=place))]


def _stop(studio: Studio, place: str) -> Response:
    processes.stop(studio.root.find(place))
    return RedirectResponse(link("/train", run=place), 303)


def _resume(studio: Studio, place: str) -> Response:
    run = studio.catalogue.describe_run(place)
    data = _data_of(studio, run)
    if run.state != "stopped" or data is None:
        raise SamganError("Only a run that was stopped, and whose set is in the folder of this studio, can continue.")
    if study := _study_of(studio, place):
        raise SamganError(f"This is a model of the balanced set {shown(study)}: continue the balanced set.")
    root = studio.root
    folder, out = (root.check_tree(root.find(each)) for each in (data.place, place))
    if run.config and (file := run.config.network.vision_file):
        root.check(Path(file))
    limit = [f"--minutes={run.minutes!r}"] if run.minutes is not None else []
    processes.start(root, place, ["train", str(folder), f"--out={out}", "--resume", *limit])
    return RedirectResponse(link("/train", run=place), 303)


def _now(studio: Studio, place: str) -> Now:
    run = studio.catalogue.describe_run(place)
    grids = find_grids(studio.root, place)
    said, at_work = processes.said(studio.root, place), processes.is_running(studio.root, place)
    collapse, read = None, 1.0
    if run.config and run.line:
        training = run.config.training
        every = training.steps(training.snapshot_every_kimg)
        alarm = studio.alarms.setdefault(place, Alarm(every))
        try:
            path = studio.root.check(studio.root.find(place) / "stats.jsonl")
            collapse, read = alarm.look(path), alarm.read
        except (OSError, SamganError):
            pass  # gone since; the next look says so
    return Now(
        run,
        collapse,
        read,
        grids[-1] if grids else None,
        said,
        _data_of(studio, run),
        at_work,
        _study_of(studio, place),
    )


def _study_of(studio: Studio, place: str) -> str:
    """The balanced set that has this run among its models."""
    if PurePosixPath(place).parent.name != "models":
        return ""
    folder = studio.root.find(place).parent.parent
    return studio.root.place(folder) if (folder / "plan.json").is_file() else ""


def _data_of(studio: Studio, run: FoundRun) -> FoundSet | None:
    """The set below the root that a run trains on."""
    sha256 = run.environment.data.sha256 if run.environment and run.environment.data else ""
    return studio.catalogue.set_of(sha256) if sha256 else None


PAGE = Page(
    "Train",
    "/train",
    (
        Route("/train", train),
        Route("/train/together", together),
        Route("/train/list", runs_part),
        Route("/train/now", now_part),
        Route("/train/curves", curves_json),
        Route("/train/grid.png", grid_picture),
        Route("/train/stop", stop, methods=["POST"]),
        Route("/train/resume", resume, methods=["POST"]),
    ),
)
