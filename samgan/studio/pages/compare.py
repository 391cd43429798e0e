"""Compare: real and synthetic images side by side, and a blinded test of readers: which is real?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from samgan.data.documents import SetInfo, read_manifest
from samgan.errors import SamganError, UsageError, one_line
from samgan.runs.readers import Rate, ReaderTest, reader_files
from samgan.studio.blinded import PICTURES, file_of
from samgan.studio.models import FoundModel, find_model, find_models
from samgan.studio.sets import Contents, choose, contents_of, sheet
from samgan.studio.tasks import Made, Sheet
from samgan.studio.view import Page, Studio, asked, form, is_part, link, respond, studio_of
from samgan.studio.worker import weights

LARGE = 256
"""Above this side, sheets have 4 images instead of 16."""
SPLITS = {"holdout": "held-out", "train": "training"}


@dataclass(frozen=True, eq=False)
class Compared:
    """A model and the set that it was trained on."""

    model: FoundModel
    place: str
    """Of the set."""
    info: SetInfo
    contents: Contents

    @property
    def columns(self) -> int:
        """Of a sheet, which has as many rows."""
        return 4 if self.model.side <= LARGE else 2

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes to compare, one by one; only "" for all together, if the model is not told the class."""
        return self.model.classes or ("",)

    def rows(self, class_name: str, split: str) -> np.ndarray:
        """Rows of real images of a class, or of all classes that the model was trained on."""
        names = (class_name,) if class_name else self.model.trained_classes or ("",)
        return np.sort(np.concatenate([self.contents.indices(name, split) for name in names]))

    def split(self, class_name: str) -> str:
        """The split of real images to show: held-out ones if there are enough for a sheet."""
        return "holdout" if len(self.rows(class_name, "holdout")) >= self.columns**2 else "train"

    def task(self, class_name: str, seed: int, sha256: str = "") -> Sheet:
        """What the worker has to do for a sheet."""
        count = self.columns**2
        seeds = tuple(range(seed * count, (seed + 1) * count))
        return Sheet(weights(self.model.path, sha256), seeds, self.columns, class_name)


@dataclass(frozen=True)
class Side:
    """Real and synthetic images of one class."""

    class_name: str
    split: str
    real: str
    """Address of the picture."""
    synthetic: str
    first: int
    last: int
    """Seeds of the synthetic images."""


@dataclass(frozen=True)
class Listed:
    """A test of the run, or why it cannot be read."""

    name: str
    test: ReaderTest | None
    problem: str = ""


def compare(request: Request) -> Response:
    """The models whose set is here, or the two sides of one."""
    wanted, studio = asked(request), studio_of(request)
    if "model" not in wanted:
        here = {found.info.sha256 for found in studio.catalogue.sets() if found.info}
        models = find_models(studio.catalogue)
        return respond(
            request, "compare_models.html", title="Compare", page="/compare",
            models=[model for model in models if model.data_sha256 in here],
        )  # fmt: skip
    found = _find(studio, wanted.get("model", ""))
    seed, sides, trouble = _number(wanted, "seed"), [], ""
    if is_part(request) or wanted.get("now") == "1":
        try:
            sides = [_side(studio, found, name, seed) for name in found.classes]
        except SamganError as error:
            trouble = str(error)
    values: dict[str, Any] = {"found": found, "seed": seed, "sides": sides, "trouble": trouble}
    if is_part(request):
        return respond(request, "sides_part.html", **values)
    return respond(
        request, "compare.html", title=f"Real and synthetic: {found.model.place}", page="/compare",
        tests=_tests(studio, found.model), count=PICTURES, splits=SPLITS, percent=percent, **values,
    )  # fmt: skip


def real_picture(request: Request) -> Response:
    """A sheet of real images."""
    wanted, studio = asked(request), studio_of(request)
    found = _find(studio, wanted.get("model", ""))
    class_name = _class(found, wanted)
    rows = choose(found.rows(class_name, found.split(class_name)), found.columns**2, _number(wanted, "seed"))
    if not len(rows):
        raise UsageError("the set has no such images")
    return Response(sheet(_folder(studio, found), found.info, rows, found.columns), media_type="image/png")


def synthetic_picture(request: Request) -> Response:
    """A sheet of synthetic images."""
    wanted, studio = asked(request), studio_of(request)
    found = _find(studio, wanted.get("model", ""))
    task = found.task(_class(found, wanted), _number(wanted, "seed"), wanted.get("sha256", ""))
    content = studio.worker.picture(task, 0)
    return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=600"})


async def start(request: Request) -> Response:
    """Start a blinded test."""
    return await run_in_threadpool(_start, studio_of(request), await form(request))


def test(request: Request) -> Response:
    """The next picture of a test, or its result."""
    wanted, studio = asked(request), studio_of(request)
    place, name = wanted.get("run", ""), wanted.get("test", "")
    model = find_model(studio.catalogue, place)
    return _next(request, model, name, ReaderTest.read(file_of(studio.root, model.path, name)))


def test_picture(request: Request) -> Response:
    """One picture of a test. Its address, its size and what is in the file do not tell whether it is real."""
    wanted, studio = asked(request), studio_of(request)
    found = _find(studio, wanted.get("run", ""))
    path = file_of(studio.root, found.model.path, wanted.get("test", ""))
    number = _number(wanted, "n")
    content = studio.readers.picture(studio.worker, found.model, found.info, _folder(studio, found), path, number)
    return Response(content, media_type="image/png")


async def answer(request: Request) -> Response:
    """Take the answer to a picture, and go on with the next."""
    typed = await form(request)
    return await run_in_threadpool(_answer, request, typed)


def _start(studio: Studio, typed: dict[str, str]) -> Response:
    found = _find(studio, typed.get("model", ""))
    if found.model.kind != "run":
        raise UsageError("A blinded test is kept in the folder of a run: choose a run, not an exported model.")
    if studio.catalogue.describe_run(found.model.place).state == "running":
        raise SamganError("This run is being trained, so its pictures change: stop it first, or wait for its end.")
    folder = _folder(studio, found)
    try:
        rows = read_manifest(studio.root.check(folder / "manifest.csv"), found.info.classes)
    except (OSError, ValueError) as error:
        raise SamganError(f"manifest.csv is damaged: {one_line(error)}") from None
    studio.root.check(found.model.path / "reader-study")
    name = studio.readers.start(studio.worker, found.model, found.info, folder, rows, typed.get("reader", ""))
    return RedirectResponse(link("/compare/test", run=found.model.place, test=name), 303)


def _answer(request: Request, typed: dict[str, str]) -> Response:
    studio = studio_of(request)
    said = typed.get("said", "")
    if said not in ("real", "synthetic"):
        raise UsageError("said: expected real or synthetic")
    model, name = find_model(studio.catalogue, typed.get("run", "")), typed.get("test", "")
    path = file_of(studio.root, model.path, name)
    done = studio.readers.answer(path, _number(typed, "n"), said == "real")
    if is_part(request):
        return _next(request, model, name, done)
    return RedirectResponse(link("/compare/test", run=model.place, test=name), 303)


def _next(request: Request, model: FoundModel, name: str, done: ReaderTest) -> Response:
    """The next picture of a test, or its result.

    The picture is made before the page, so that none is asked about that cannot be shown.
    """
    if done.result is None:
        studio, found = studio_of(request), _find(studio_of(request), model.place)
        path = file_of(studio.root, model.path, name)
        studio.readers.pictures(studio.worker, model, found.info, _folder(studio, found), path)
    values: dict[str, Any] = {"model": model, "name": name, "test": done, "splits": SPLITS, "percent": percent}
    if is_part(request):
        return respond(request, "test_part.html", **values)
    title = "Which is real?" if done.result is None else f"Result of {done.reader}"
    return respond(request, "test.html", title=title, page="/compare", **values)


def _find(studio: Studio, place: str) -> Compared:
    model = find_model(studio.catalogue, place)
    data = studio.catalogue.set_of(model.data_sha256) if model.data_sha256 else None
    if data is None or data.info is None:
        raise SamganError("The set that this model was trained on is not in the folder of this studio.")
    return Compared(model, data.place, data.info, contents_of(studio.catalogue, data.place, data.info))


def _folder(studio: Studio, found: Compared) -> Path:
    """The folder of a set whose images do not lie elsewhere."""
    return studio.root.check(studio.root.find(found.place) / "images.npy").parent


def _side(studio: Studio, found: Compared, class_name: str, seed: int) -> Side:
    task = found.task(class_name, seed)
    made: Made = studio.worker.make(task)
    common = {"model": found.model.place, "class": class_name or None, "seed": seed}
    return Side(
        class_name,
        found.split(class_name),
        link("/compare/real.png", **common),
        link("/compare/synthetic.png", **common, sha256=made.sha256),
        task.seeds[0],
        task.seeds[-1],
    )


def _tests(studio: Studio, model: FoundModel) -> list[Listed]:
    """The tests of a run, newest first."""
    found = []
    for path in reader_files(model.path) if model.kind == "run" else ():
        try:
            found.append(Listed(path.stem, ReaderTest.read(studio.root.check(path))))
        except SamganError as error:
            found.append(Listed(path.stem, None, str(error)))
    return found[::-1]


def _class(found: Compared, wanted: dict[str, str]) -> str:
    name = wanted.get("class", "")
    if name not in found.classes:
        raise UsageError("class: the model has no such class")
    return name


def _number(wanted: dict[str, str], name: str) -> int:
    text = wanted.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise UsageError(f"{name}: expected a whole number from 0 to 9999999")
    return int(text)


def percent(rate: Rate) -> str:
    """A share with its interval, for a reader."""
    return f"{100 * rate.value:.0f} % [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"


PAGE = Page(
    "Compare",
    "/compare",
    (
        Route("/compare", compare),
        Route("/compare/real.png", real_picture),
        Route("/compare/synthetic.png", synthetic_picture),
        Route("/compare/start", start, methods=["POST"]),
        Route("/compare/test", test),
        Route("/compare/picture.png", test_picture),
        Route("/compare/answer", answer, methods=["POST"]),
    ),
)
