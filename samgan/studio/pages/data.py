"""Data: a prepared set, what is in it, what was left out, and some of its images."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samgan.data.documents import SPLITS, LeftOut, SetInfo
from samgan.errors import SamganError, UsageError
from samgan.studio.jobs import find_job
from samgan.studio.sets import Contents, choose, contents_of, contradicted, sheet
from samgan.studio.view import Page, asked, link, respond, studio_of


@dataclass(frozen=True)
class Choice:
    """Which images a sheet shows."""

    class_name: str
    """Empty: all classes."""
    split: str
    """Empty: both sides."""
    seed: int
    images: int
    """How many there are to choose from."""


@dataclass(frozen=True)
class Some:
    """Some of many things, which a page shows part by part."""

    name: str
    """In addresses."""
    shown: Sequence[object]
    first: int
    """Place of the first of them, from 0."""
    total: int
    size: int
    """The largest number that is shown at once."""

    @property
    def before(self) -> int | None:
        """The part before this one, counted from 0; None if there is none."""
        return self.first // self.size - 1 if self.first else None

    @property
    def after(self) -> int:
        """The part after this one; the first after the last."""
        return (self.first // self.size + 1) % max(1, -(-self.total // self.size))


SHEET = 48
"""Images of a sheet; fewer of large ones."""
COLUMNS = 8
ROWS_SHOWN = 20
PAIRS_SHOWN = 12
"""Of near duplicates, and of contradictions."""


def data(request: Request) -> Response:
    """One set, or the list of sets."""
    wanted = asked(request)
    studio = studio_of(request)
    if "set" not in wanted:
        return respond(request, "sets.html", title="Data", page="/data", found=studio.catalogue.look())
    place = wanted["set"]
    described = studio.catalogue.describe_set(place)
    info, problem, contents = described.info, described.problem, None
    job = find_job(studio, f"prepare {place}", link("/data", set=place))
    if job.running:
        problem = ""  # the set is about to be there
    if info:
        try:
            contents = _contents(request, place, info)
        except SamganError as error:
            problem = str(error)
    return respond(
        request,
        "data.html",
        title=f"Data: {place}",
        page="/data",
        place=place,
        info=info,
        problem=problem,
        contents=contents,
        pairs=_some("pairs", contents.pairs if contents else (), wanted),
        contradictions=_some("contradictions", contradicted(info, contents) if info else (), wanted),
        choice=_choice(wanted, contents),
        splits=SPLITS,
        counts=list(_counts(info)) if info else [],
        sources=[astuple(found) for found in contents.sources] if contents else [],
        left_out=list(_left_out(info.left_out)) if info and info.left_out else [],
        job=job,
        asked=False,
    )


def sheet_part(request: Request) -> Response:
    """The part of the page with random images, after another choice."""
    wanted = asked(request)
    info, place = _set(request, wanted)
    choice = _choice(wanted, _contents(request, place, info))
    return respond(request, "sheet_part.html", place=place, info=info, choice=choice, splits=SPLITS)


def pairs_part(request: Request) -> Response:
    """The part of the page with near duplicates, other ones."""
    wanted = asked(request)
    info, place = _set(request, wanted)
    contents = _contents(request, place, info)
    return respond(
        request, "pairs_part.html", place=place, contents=contents, pairs=_some("pairs", contents.pairs, wanted)
    )


def contradictions_part(request: Request) -> Response:
    """The part of the page with pictures in several classes, other ones."""
    wanted = asked(request)
    info, place = _set(request, wanted)
    every = contradicted(info, _contents(request, place, info))
    return respond(
        request, "contradictions_part.html", place=place, contradictions=_some("contradictions", every, wanted)
    )


def _some(name: str, every: Sequence[object], wanted: dict[str, str]) -> Some:
    """The part of them that the address asks for; the last one, if the set has fewer by now."""
    last = max(0, len(every) - 1) // PAIRS_SHOWN
    first = PAIRS_SHOWN * min(last, _number({name: "0", **wanted}, name))
    return Some(name, every[first : first + PAIRS_SHOWN], first, len(every), PAIRS_SHOWN)


def sheet_picture(request: Request) -> Response:
    """Random images of a set as a PNG file."""
    wanted = asked(request)
    info, place = _set(request, wanted)
    contents = _contents(request, place, info)
    choice = _choice(wanted, contents)
    if not choice.images:
        raise UsageError("the set has no such images")
    indices = contents.indices(choice.class_name, choice.split)
    count = min(SHEET, max(4, SHEET * 128**2 // info.resolution**2))
    chosen = choose(indices, count, choice.seed)
    return _png(sheet(_folder(request, place), info, chosen, min(COLUMNS, count // 2)))


def pair_picture(request: Request) -> Response:
    """Two images of a set side by side."""
    wanted = asked(request)
    info, place = _set(request, wanted)
    numbers = [_number(wanted, name) for name in ("a", "b")]
    return _png(sheet(_folder(request, place), info, np.array(numbers), 2))


def _png(content: bytes) -> Response:
    return Response(content, media_type="image/png")


def _set(request: Request, wanted: dict[str, str]) -> tuple[SetInfo, str]:
    """The set that was asked for, and its place."""
    place = wanted.get("set", "")
    described = studio_of(request).catalogue.describe_set(place)
    if described.info is None:
        raise SamganError(described.problem)
    return described.info, place


def _folder(request: Request, place: str) -> Path:
    """The folder of a set whose images do not lie elsewhere."""
    root = studio_of(request).root
    return root.check(root.find(place) / "images.npy").parent


def _contents(request: Request, place: str, info: SetInfo) -> Contents:
    return contents_of(studio_of(request).catalogue, place, info)


def _choice(wanted: dict[str, str], contents: Contents | None) -> Choice:
    class_name, split = wanted.get("class", ""), wanted.get("split", "")
    images = len(contents.indices(class_name, split)) if contents else 0
    return Choice(class_name, split, _number({"seed": "0", **wanted}, "seed"), images)


def _number(wanted: dict[str, str], name: str) -> int:
    text = wanted.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"{name}: expected a whole number from 0 to 999999999")
    return int(text)


def _counts(info: SetInfo) -> Iterator[tuple[str, int, int, int]]:
    """Rows of a table: images of each class by split, and of all."""
    all_train = all_held_out = 0
    for name in info.classes:
        train, held_out = (info.counts[name].get(split, 0) for split in SPLITS)
        yield name, train, held_out, train + held_out
        all_train, all_held_out = all_train + train, all_held_out + held_out
    yield "all", all_train, all_held_out, all_train + all_held_out


def _left_out(left_out: LeftOut) -> Iterator[tuple[str, str]]:
    """Rows of a table: what was left out, and why."""
    if copies := left_out.exact_duplicates:
        named = "; ".join(f"{copy.source} is the same as {copy.same_as}" for copy in copies[:3])
        rest = f"; and {len(copies) - 3:,} more, which dataset.json names" if len(copies) > 3 else ""
        yield f"{len(copies):,} exact duplicates", f"Another file has the same pixels: {named}{rest}"
    by_reason = Counter(file.reason.split(":")[0] for file in left_out.unused).most_common()
    for reason, number in by_reason[:ROWS_SHOWN]:
        first = next(file for file in left_out.unused if file.reason.startswith(reason))
        yield f"{number:,} images", f"{reason}, such as {first.source}"
    if others := sum(number for _, number in by_reason[ROWS_SHOWN:]):
        yield f"{others:,} images more", "For other reasons; dataset.json names them."
    for file in left_out.bad_files[:ROWS_SHOWN]:
        yield file.source, file.reason
    if (more := len(left_out.bad_files) - ROWS_SHOWN) > 0:
        yield f"{more:,} files more", "They cannot be read; dataset.json names them."
    if left_out.ignored_by_suffix:
        ordered = sorted(left_out.ignored_by_suffix.items(), key=lambda item: -item[1])[:ROWS_SHOWN]
        named = ", ".join(f"{number:,} {suffix or 'without suffix'}" for suffix, number in ordered)
        number = sum(left_out.ignored_by_suffix.values())
        yield f"{number:,} other file{'' if number == 1 else 's'}", f"No image{'' if number == 1 else 's'}: {named}"


PAGE = Page(
    "Data",
    "/data",
    (
        Route("/data", data),
        Route("/data/sheet", sheet_part),
        Route("/data/pairs", pairs_part),
        Route("/data/contradictions", contradictions_part),
        Route("/data/sheet.png", sheet_picture),
        Route("/data/pair.png", pair_picture),
    ),
)
