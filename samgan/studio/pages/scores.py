"""Scores: what was evaluated, each score beside its floor; several runs beside each other; and a form to evaluate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samgan.errors import SamganError, UsageError
from samgan.metrics.weights_here import features_here
from samgan.pages import intervals
from samgan.scoring.documents import Scores
from samgan.scoring.table import Verdict, class_table, header, remarks, table_rows, verdicts
from samgan.scoring.words import about_floor, read_rows, summary
from samgan.studio.catalogue import FoundDocument
from samgan.studio.choices import features_words, number, one_of, run_and_set, trained_runs
from samgan.studio.jobs import Job, find_job, start_job
from samgan.studio.view import Page, Studio, asked, asked_all, form, link, respond, studio_of

FILES = {"standard": "scores.json", "paper": "scores-paper.json", "legacy": "scores-legacy.json"}
"""By protocol, the document of `samgan evaluate`."""
SPLITS = {"train": "training", "holdout": "held out", "all": "both"}
MOST = 12
"""Runs that are compared at once."""


@dataclass(frozen=True)
class Compared:
    """Several scores beside each other."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    """A row for each score, with a value and its floor for each run."""
    differences: list[str]
    """Why the numbers must not be compared; empty if they may be."""
    outcomes: list[tuple[str, list[Verdict]]]
    """By run, what came of it, in words."""
    chart: Markup | None
    """Likeness with its intervals."""


def scores(request: Request) -> Response:
    """The list with the form, or one document."""
    wanted = asked(request)
    if "at" in wanted:
        return _one(request, wanted["at"], wanted.get("file", FILES["standard"]))
    return _list(request, wanted)


def compare(request: Request) -> Response:
    """Several documents beside each other."""
    studio, chosen = studio_of(request), asked_all(request, "of")
    if len(chosen) > MOST:
        raise UsageError(f"Choose at most {MOST} to compare.")
    found = [_document(studio, *_parted(words)) for words in chosen]
    problems = [each.problem for each in found if each.document is None]
    known = {_name(each): each.document for each in found if each.document}
    compared = _compared(known) if known else None
    return respond(
        request, "scores_compared.html", title="Scores beside each other", page="/scores", compared=compared,
        problems=problems, chosen=len(known),
    )  # fmt: skip


async def evaluate(request: Request) -> Response:
    """Start `samgan evaluate`."""
    typed = await form(request)
    return await run_in_threadpool(_evaluate, request, typed)


def _list(request: Request, typed: Mapping[str, str], trouble: str = "") -> Response:
    studio = studio_of(request)
    found = studio.catalogue.documents(Scores, *FILES.values())
    listed = [(each, _name(each), _short(each.document) if each.document else None) for each in found]
    return respond(
        request, "scores_list.html", status=409 if trouble else 200, title="Scores", page="/scores", listed=listed,
        typed=typed, trouble=trouble, runs=trained_runs(studio), sets=studio.catalogue.sets(), protocols=FILES,
        splits=SPLITS, features=features_here(),
    )  # fmt: skip


def _one(request: Request, place: str, name: str) -> Response:
    studio = studio_of(request)
    found, job = _document(studio, place, name), _job(studio, place, name)
    document = found.document
    values: dict[str, Any] = {
        "title": f"Scores: {place}",
        "page": "/scores",
        "found": found,
        "job": job,
        "asked": False,
    }
    if document is None:
        return respond(request, "scores.html", scores=None, **values)
    class_header, class_rows = class_table(document)
    return respond(
        request, "scores.html", scores=document, summary=summary(document), floor=about_floor(document),
        header=header(document), rows=read_rows(document), class_header=class_header, class_rows=class_rows,
        verdicts=verdicts(document), remarks=remarks(document), chart=_chart({place: document}), **values,
    )  # fmt: skip


def _evaluate(request: Request, typed: Mapping[str, str]) -> Response:
    studio = studio_of(request)
    try:
        run, data = run_and_set(studio, typed)
        protocol = one_of("protocol", typed.get("protocol", "standard"), FILES)
        words = ["evaluate", str(studio.root.find(run)), f"--data={studio.root.find(data)}", f"--protocol={protocol}"]
        words.append(f"--split={one_of('split', typed.get('split', 'train'), SPLITS)}")
        if count := typed.get("count", "").strip():
            words.append(f"--count={number('count', count)}")
        words += features_words(typed)
        job = _job(studio, run, FILES[protocol])
        return start_job(studio, job.key, words, job.back)
    except SamganError as error:
        return _list(request, typed, str(error))


def _job(studio: Studio, place: str, name: str) -> Job:
    return find_job(studio, f"evaluate {place} {name}", link("/scores", at=place, file=name))


def _document(studio: Studio, place: str, name: str) -> FoundDocument[Scores]:
    return studio.catalogue.document(Scores, place, one_of("file", name, FILES.values()))


def _name(found: FoundDocument[Scores]) -> str:
    """What a document is called beside others."""
    protocol = next(protocol for protocol, name in FILES.items() if name == found.name)
    return found.place if protocol == "standard" else f"{found.place} ({protocol})"


def _parted(words: str) -> tuple[str, str]:
    """The place and the name of a file, of a value of the form."""
    place, _, name = words.rpartition("/")
    return place, name


def _short(document: Scores) -> tuple[str, str, str]:
    """Cells of the list: images a set, the first distance beside its floor, and the verdict."""
    rows = {label: (value, floor) for label, value, floor, _ in table_rows(document)[1:]}
    first = next(((label, *pair) for label, pair in rows.items()), None)
    distance = f"{first[0]} {first[1]} (floor {first[2]})" if first else "-"
    test = document.mode_collapse
    return f"{document.count:,}", distance, test.verdict if test else "not tested"


def _compared(known: Mapping[str, Scores]) -> Compared:
    rows: dict[str, dict[str, str]] = {}
    for name, document in known.items():
        for label, value, floor, _ in table_rows(document):
            rows.setdefault(label, {})[name] = f"{value} ({floor})"
    return Compared(
        header=("score (floor)", *known),
        rows=[(label, *(cells.get(name, "-") for name in known)) for label, cells in rows.items()],
        differences=_differences(list(known.values())),
        outcomes=[(name, summary(document)) for name, document in known.items()],
        chart=_chart(known),
    )


def _differences(documents: Sequence[Scores]) -> list[str]:
    """What makes scores no longer comparable, in words."""
    kinds: dict[str, list[str]] = {
        "protocol": [document.protocol for document in documents],
        "images a set": [str(document.count) for document in documents],
        "size of the images": [f"{document.resolution} px" for document in documents],
        "features": [document.features.name if document.features else "none" for document in documents],
        "real images": [
            f"{data.name} ({data.sha256[:8]}), {data.split}, {', '.join(data.classes)}"
            if (data := document.data)
            else "not known"
            for document in documents
        ],
    }
    return [f"{what}: {'; '.join(dict.fromkeys(values))}" for what, values in kinds.items() if len(set(values)) > 1]


def _chart(known: Mapping[str, Scores]) -> Markup | None:
    """Likeness of generated and of real images with their intervals."""
    values = {}
    for name, document in known.items():
        for kind, mean in (("generated", document.ms_ssim_generated), ("real", document.ms_ssim_real)):
            if mean:
                values[f"{name}: {kind}"] = (mean.low, mean.mean, mean.high)
    return intervals("How alike pairs of images are", "MS-SSIM with its 95 % interval", values) if values else None


PAGE = Page(
    "Scores",
    "/scores",
    (
        Route("/scores", scores),
        Route("/scores/compare", compare),
        Route("/scores/evaluate", evaluate, methods=["POST"]),
    ),
)
