"""Generate: pictures of a model's seeds, ways from one to another, neighbours, the nearest training image, files."""

import html
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from samgan.errors import SamganError, UsageError
from samgan.provenance import FORMATS
from samgan.seeds import SEEDS
from samgan.studio.choices import weights_hash, whole_number
from samgan.studio.models import FoundModel, find_model, find_models
from samgan.studio.sets import image_of
from samgan.studio.tasks import Around, Files, Found, Made, Nearest, Packed, Seeds, Walk
from samgan.studio.view import Page, asked, is_part, link, respond, studio_of
from samgan.studio.worker import weights

SHOWN = 12
STEPS = 16
"""Of a walk; it has one picture more."""
NEIGHBOURS = 8
DEGREES = (10, 20, 40)
OFFERED = ("png", "png16", "dicom", "dicom16", "npz")
"""Formats to download; `samgan sample` has more."""

Kind = Literal["seeds", "walk", "around"]
PATHS: dict[Kind, str] = {
    "seeds": "/generate",
    "walk": "/generate/walk",
    "around": "/generate/around",
}
TITLES: dict[Kind, str] = {
    "seeds": "Pictures of seeds",
    "walk": "From one seed to another",
    "around": "Around a seed",
}


@dataclass(frozen=True)
class Wish:
    """What a form of the page asks for, checked."""

    kind: Kind
    model: FoundModel
    class_name: str
    """Empty: as `samgan sample` chooses it."""
    truncation: float
    seed: int
    """The first or only one."""
    count: int
    to: int
    """The seed at the end of a walk."""
    degrees: int

    def address(self, kind: Kind | None = None, **values: object) -> str:
        """The address of this page, or of another one for the same model."""
        kind = kind or self.kind
        own: dict[Kind, dict[str, object]] = {
            "seeds": {"count": self.count},
            "walk": {"to": self.to},
            "around": {"degrees": self.degrees},
        }
        return link(PATHS[kind], **{**self._common(), **own[kind], **values})

    def picture(self, made: Made | Found, number: int) -> str:
        """The address of one of the pictures that were made."""
        return link("/generate/picture.png", **self._of(made.sha256), n=number)

    def nearest(self, sha256: str, number: int, **values: object) -> str:
        """The address of the page with the training image that is nearest to one of the pictures."""
        return link("/generate/nearest", **{**self._of(sha256), "n": number, **values})

    def file(self, made: Made, file_format: str) -> str:
        """The address of the files of the pictures that were made."""
        return link("/generate/file", **self._of(made.sha256), format=file_format)

    @property
    def file_name(self) -> str:
        """What the name of such a file says of its pictures."""
        if self.kind == "walk":
            return f"from-{self.seed}-to-{self.to}"
        if self.kind == "around":
            return f"around-{self.seed}-{self.degrees}-degrees"
        return f"seed-{self.seed}" if self.count == 1 else f"seeds-{self.seed}-{self.seed + self.count - 1}"

    def task(self, sha256: str = "") -> Seeds | Walk | Around:
        """What the worker has to do, with weights of this hash."""
        used = weights(self.model.path, sha256, self.truncation)
        if self.kind == "walk":
            return Walk(used, self.seed, self.to, STEPS, self.class_name)
        if self.kind == "around":
            return Around(used, self.seed, NEIGHBOURS, float(self.degrees), self.class_name)
        seeds = tuple(range(self.seed, self.seed + self.count))
        return Seeds(used, seeds, (self.class_name,) * len(seeds) if self.class_name else ())

    def _of(self, sha256: str) -> dict[str, object]:
        own = {"kind": self.kind, "count": self.count, "to": self.to, "degrees": self.degrees}
        return {**self._common(), **own, "sha256": sha256}

    def _common(self) -> dict[str, object]:
        truncation = f"{self.truncation:g}" if self.truncation != 1 else None
        return {
            "model": self.model.place, "class": self.class_name or None, "truncation": truncation, "seed": self.seed
        }  # fmt: skip


def generate(request: Request) -> Response:
    """The models, or pictures of seeds of one."""
    if "model" not in asked(request):
        found = find_models(studio_of(request).catalogue)
        return respond(request, "generate_models.html", title="Generate", page="/generate", models=found)
    return _page(request, "seeds")


def walk(request: Request) -> Response:
    """Pictures between those of two seeds."""
    return _page(request, "walk")


def around(request: Request) -> Response:
    """The neighbours of a seed."""
    return _page(request, "around")


def _page(request: Request, kind: Kind) -> Response:
    """A page with a form at once; its pictures come when they are made."""
    wanted = asked(request)
    model = find_model(studio_of(request).catalogue, wanted.get("model", ""))
    wish, made, trouble, status = None, None, "", 200
    try:
        wish = _wish(model, kind, wanted)
        if is_part(request) or wanted.get("now") == "1":
            made = studio_of(request).worker.make(wish.task())
    except SamganError as error:
        trouble, status = str(error), 400 if isinstance(error, UsageError) else 409
    values: dict[str, Any] = {
        "wish": wish, "made": made, "trouble": trouble, "formats": [(name, FORMATS[name].label) for name in OFFERED]
    }  # fmt: skip
    if is_part(request):
        return respond(request, "made_part.html", **values)
    return respond(
        request, "generate.html", status=status, title=f"{TITLES[kind]}: {model.place}", page="/generate", kind=kind,
        model=model, typed={"seed": "0", "count": str(SHOWN), "to": "1", "truncation": "1", "degrees": "20", **wanted},
        action=PATHS[kind], degrees=DEGREES, default=_wish(model, kind, {}), **values,
    )  # fmt: skip


def nearest(request: Request) -> Response:
    """The training image that is nearest to a picture, beside it."""
    wanted, studio = asked(request), studio_of(request)
    wish, sha256, number = _one(request, wanted)
    features = wanted.get("features") == "1"
    data = studio.catalogue.set_of(wish.model.data_sha256) if wish.model.data_sha256 else None
    found, trouble, status = None, "", 200
    if data is not None and (is_part(request) or wanted.get("now") == "1"):
        try:
            folder = studio.root.check(studio.root.find(data.place) / "images.npy").parent
            answer, _ = studio.worker.do(Nearest(wish.task(sha256), number, bytes(folder), features))
            found = answer if isinstance(answer, Found) else None
        except SamganError as error:
            trouble, status = str(error), 409
    title, part = f"Nearest training image: {wish.model.place}", is_part(request)
    return respond(
        request, "nearest_part.html" if part else "nearest.html", status=200 if part else status, title=title,
        page="/generate", wish=wish, sha256=sha256, number=number, features=features, found=found,
        data=data, trouble=trouble,
    )  # fmt: skip


def progress(request: Request) -> Response:
    """How far the comparison is that is being made, in words."""
    return Response(html.escape(studio_of(request).worker.progress), media_type="text/html")


def picture(request: Request) -> Response:
    """One picture that was made, with its mark."""
    wish, sha256, number = _one(request, asked(request))
    content = studio_of(request).worker.picture(wish.task(sha256), number)
    return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=600"})


def training_picture(request: Request) -> Response:
    """One image of a prepared set."""
    wanted, studio = asked(request), studio_of(request)
    place = wanted.get("set", "")
    described = studio.catalogue.describe_set(place)
    if described.info is None:
        raise SamganError(described.problem)
    folder = studio.root.check(studio.root.find(place) / "images.npy").parent
    row = whole_number(wanted, "row", 0, 0, max(0, described.info.images - 1))
    return Response(image_of(folder, described.info, row), media_type="image/png")


def file(request: Request) -> Response:
    """The files of the pictures that were made: one, or an archive of several."""
    wanted, studio = asked(request), studio_of(request)
    wish, sha256, _ = _one(request, wanted)
    file_format = wanted.get("format", "")
    if file_format not in OFFERED:
        raise UsageError(f"format: expected one of {', '.join(OFFERED)}")
    folder = _new_folder()
    try:
        packed, _ = studio.worker.do(Files(wish.task(sha256), file_format, bytes(folder)))
        if not isinstance(packed, Packed) or packed.name != os.path.basename(packed.name):
            raise SamganError("The files could not be written.")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    name = f"samgan-{packed.sha256[:8]}-{wish.file_name}-{file_format}{Path(packed.name).suffix}"
    done = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    return FileResponse(folder / packed.name, filename=name, background=done, media_type="application/octet-stream")


def _new_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="samgan-studio-"))
    except OSError:
        raise SamganError(
            "No folder for temporary files can be written to, so there are no files to download. Free some space, or "
            "start samgan studio with TMPDIR set to another folder."
        ) from None


def _one(request: Request, wanted: dict[str, str]) -> tuple[Wish, str, int]:
    """The pictures that an address names, the hash of their weights, and which of them it is."""
    kind = wanted.get("kind", "")
    if kind not in PATHS:
        raise UsageError(f"kind: expected one of {', '.join(PATHS)}")
    wish = _wish(find_model(studio_of(request).catalogue, wanted.get("model", "")), kind, wanted)
    return wish, weights_hash(wanted), whole_number(wanted, "n", 0, 0, 999)


def _wish(model: FoundModel, kind: Kind, wanted: dict[str, str]) -> Wish:
    """What a form asks for.

    Raises:
        UsageError: It cannot be.
    """
    class_name = wanted.get("class", "")
    if class_name and class_name not in model.classes:
        raise UsageError("class: the model has no such class")
    count = whole_number(wanted, "count", min(SHOWN, model.most), 1, model.most)
    text = wanted.get("truncation", "").strip().replace(",", ".") or "1"
    if not re.fullmatch(r"(0?\.[0-9]{1,4}|0|1|1\.0{1,4}|0\.)", text):
        raise UsageError("truncation: expected a number from 0 (the mean image) to 1 (as trained)")
    truncation = float(text)
    if truncation != 1 and not model.can_truncate:
        raise UsageError("truncation: this model has no styles that could be moved towards their mean; leave it at 1")
    seed = whole_number(wanted, "seed", 0, 0, SEEDS - (count if kind == "seeds" else 1))
    to = whole_number(wanted, "to", min(seed + 1, SEEDS - 1), 0, SEEDS - 1)
    degrees = whole_number(wanted, "degrees", DEGREES[1], 1, 90)
    return Wish(kind, model, class_name, truncation, seed, count, to, degrees)


PAGE = Page(
    "Generate",
    "/generate",
    (
        Route("/generate", generate),
        Route("/generate/walk", walk),
        Route("/generate/around", around),
        Route("/generate/nearest", nearest),
        Route("/generate/progress", progress),
        Route("/generate/picture.png", picture),
        Route("/generate/training.png", training_picture),
        Route("/generate/file", file),
    ),
)
