"""Audit: the closest pairs beside each other, with their place among held-out images; who has signed it off."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from samgan.errors import SamganError
from samgan.metrics.weights_here import features_here
from samgan.studio.audits import AuditFolder, ShownPair, measured_by, pair_png, shown_pairs
from samgan.studio.choices import features_words, number, one_of, run_and_set, trained_runs
from samgan.studio.jobs import Job, find_job, start_job
from samgan.studio.view import Page, Studio, asked, form, link, respond, studio_of, words_of
from samgan.trust.audit_words import HEADER, remarks, table_rows
from samgan.trust.documents import AuditDocument
from samgan.trust.sign_off import DECISIONS, SignOff, add_sign_off, hash_audit, read_sign_offs
from samgan.trust.sign_off import FILE as SIGN_OFFS

FILE = "audit.json"


@dataclass(frozen=True)
class PairGroup:
    """The closest pairs of one kind of images, by one measure."""

    heading: str
    space: str
    kind: str
    pairs: list[ShownPair]
    pictures: bool
    """Whether their pictures can be shown."""


@dataclass(frozen=True)
class Signed:
    """A decision on an audit."""

    sign_off: SignOff
    earlier: bool
    """Whether it is about an audit that was in the folder before this one."""


def audit(request: Request) -> Response:
    """The list with the form, or one audit."""
    wanted = asked(request)
    return _one(request, wanted["at"]) if "at" in wanted else _list(request, wanted)


async def start(request: Request) -> Response:
    """Start `samgan audit`."""
    typed = await form(request)
    return await run_in_threadpool(_start, request, typed)


async def sign(request: Request) -> Response:
    """Record somebody's decision."""
    typed = await form(request)
    return await run_in_threadpool(_sign, request, typed)


def pair_picture(request: Request) -> Response:
    """A pair side by side, as a PNG file."""
    wanted, studio = asked(request), studio_of(request)
    place = wanted.get("at", "")
    document = studio.catalogue.document(AuditDocument, place, FILE)
    if document.document is None:
        raise SamganError(document.problem)
    data = studio.catalogue.set_of(document.document.data.sha256)
    if data is None or data.info is None:
        raise SamganError("The set of this audit is not in the folder of this studio.")
    root = studio.root
    opened = AuditFolder(
        path=root.find(place), document=document.document, data=root.check(root.find(data.place) / "images.npy").parent,
        info=data.info,
    )  # fmt: skip
    if document.document.images:
        root.check(opened.path / document.document.images.file)
    content = pair_png(opened, wanted.get("by", ""), wanted.get("kind", ""), int(number("n", wanted.get("n", "0"))))
    return Response(content, media_type="image/png")


def _list(request: Request, typed: Mapping[str, str], trouble: str = "") -> Response:
    studio = studio_of(request)
    listed = []
    for found in studio.catalogue.documents(AuditDocument, FILE):
        try:
            signed = _signed(studio, found.place)
        except SamganError:
            signed = []  # the page of this audit says what is wrong with them
        listed.append((found, next((one for one in signed if not one.earlier), None)))
    return respond(
        request, "audit_list.html", status=409 if trouble else 200, title="Audit", page="/audit", listed=listed,
        typed=typed, trouble=trouble, runs=trained_runs(studio), sets=studio.catalogue.sets(), features=features_here(),
    )  # fmt: skip


def _one(request: Request, place: str, typed: Mapping[str, str] | None = None, trouble: str = "") -> Response:
    studio = studio_of(request)
    found, job = studio.catalogue.document(AuditDocument, place, FILE), _job(studio, place)
    document, signed, sha256, problem = found.document, [], "", trouble
    if document:
        try:
            sha256 = hash_audit(studio.root.find(place) / FILE)
            signed = _signed(studio, place)
        except SamganError as error:
            problem = problem or str(error)
    data = studio.catalogue.set_of(document.data.sha256) if document else None
    groups = list(_groups(document, data is not None)) if document else []
    return respond(
        request, "audit.html", status=409 if trouble else 200, title=f"Audit: {place}", page="/audit", place=place,
        found=found, document=document, job=job, asked=False, problem=problem, typed=typed or {}, signed=signed,
        sha256=sha256, data=data, groups=groups, patients=any(group.pictures for group in groups), header=HEADER,
        rows=table_rows(document) if document else [], remarks=remarks(document) if document else [],
        decisions=DECISIONS, today=time.strftime("%Y-%m-%d"),
    )  # fmt: skip


def _groups(document: AuditDocument, has_set: bool) -> Iterator[PairGroup]:
    spaces = ("pixels", "features") if document.features else ("pixels",)
    for space, label in zip(spaces, document.measures, strict=True):
        measured = measured_by(document, space)
        heading = f"Synthetic images closest to a training image, {label}"
        pictures = has_set and document.images is not None
        yield PairGroup(heading, space, "synthetic", shown_pairs(measured, "synthetic"), pictures)
        heading = f"For comparison: held-out images, of other patients, {label}"
        yield PairGroup(heading, space, "held_out", shown_pairs(measured, "held_out"), pictures)


def _start(request: Request, typed: Mapping[str, str]) -> Response:
    studio = studio_of(request)
    try:
        run, data = run_and_set(studio, typed)
        words = ["audit", str(studio.root.find(run)), f"--data={studio.root.find(data)}"]
        if count := typed.get("count", "").strip():
            words.append(f"--count={number('count', count)}")
        if typed.get("pictures") == "no":
            words.append("--no-pictures")
        job = _job(studio, run)
        return start_job(studio, job.key, [*words, *features_words(typed)], job.back)
    except SamganError as error:
        return _list(request, typed, str(error))


def _sign(request: Request, typed: Mapping[str, str]) -> Response:
    studio, place = studio_of(request), typed.get("at", "")
    folder = studio.root.find(place)
    try:
        studio.root.check(folder / SIGN_OFFS)
        decision = one_of("decision", typed.get("decision", ""), DECISIONS)
        sign_off = SignOff(
            name=typed.get("name", "").strip(),
            date=typed.get("date", "").strip(),
            decision=next(known for known in DECISIONS if known == decision),
            remark=typed.get("remark", "").strip(),
            audit_sha256=typed.get("audit", ""),
        )
        add_sign_off(folder, sign_off)
    except (SamganError, OSError) as error:
        return _one(request, place, typed, words_of(error))
    return RedirectResponse(f"{link('/audit', at=place)}#signed", 303)


def _signed(studio: Studio, place: str) -> list[Signed]:
    """Decisions on the audits of a folder, the newest first."""
    folder = studio.root.find(place)
    studio.root.check(folder / SIGN_OFFS)
    known, sha256 = read_sign_offs(folder).sign_offs, hash_audit(folder / FILE)
    return [Signed(one, one.audit_sha256 != sha256) for one in reversed(known)]


def _job(studio: Studio, place: str) -> Job:
    return find_job(studio, f"audit {place}", link("/audit", at=place))


PAGE = Page(
    "Audit",
    "/audit",
    (
        Route("/audit", audit),
        Route("/audit/pair.png", pair_picture),
        Route("/audit/start", start, methods=["POST"]),
        Route("/audit/sign", sign, methods=["POST"]),
    ),
)
