"""What is known, before hours are spent, of whether synthetic images will help with a set, in plain words."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from samgan.data import PreparedSet
from samgan.studies.utility_map import Question, UtilityMap, Verdict, read_utility_map, sizes
from samgan.trust.utility_document import HARMS, HELPS, UNDECIDED

ALIKE = 2.0
"""A measured case is like a set of the same size of images if the small class has at most so many times as many, or as
few, patients."""


@dataclass(frozen=True)
class SmallClass:
    """A class that lacks training images."""

    name: str
    images: int
    patients: int
    missing: int


@dataclass(frozen=True)
class Advice:
    """What the map says of a set."""

    side: int
    """Of its images, in pixels."""
    small: tuple[SmallClass, ...]
    measured: int
    """How many verdicts there are, over all questions."""
    helps: int
    """How many of them say that synthetic images help."""
    lines: tuple[str, ...]


def advise(data: PreparedSet, missing: dict[str, int], known: UtilityMap | None = None) -> Advice:
    """Say what the map knows of a set, and what it does not know.

    Args:
        data: The prepared set.
        missing: By class, how many images it lacks, as from `samgan.studies.missing_images`.
        known: The map; default: the one that came with samgan.

    Returns:
        The small classes, how many verdicts there are, and what they say of such a set, in sentences.

    Raises:
        SamganError: The map that came with samgan is damaged.
    """
    known = known or read_utility_map()
    small = []
    for name, count in missing.items():
        if count:
            index = data.indices("train", [name])
            small.append(SmallClass(name, len(index), len(set(data.groups(index))), count))
    verdicts = [found for question in known.questions for found in question.verdicts]
    return Advice(
        side=data.resolution,
        small=tuple(small),
        measured=len(verdicts),
        helps=sum(found.verdict == HELPS for found in verdicts),
        lines=tuple(_lines(small, data.resolution, known)),
    )


def short_advice(known: UtilityMap | None = None) -> str:
    """What `samgan balance` says before it begins."""
    known = known or read_utility_map()
    measured = [question for question in known.questions if question.verdicts]
    verdicts = [found for question in measured for found in question.verdicts]
    kinds = {question.difficulty for question in measured}
    where = f"Measured on {'easy' if kinds == {'easy'} else 'some'} questions only: {_told(verdicts)}."
    hard = "" if "hard" in kinds else " Not measured on hard questions."
    answer = f"{where}{hard}" if verdicts else "Not measured yet."
    return f"Do synthetic images help a classifier? {answer} More: samgan balance DATA --advise"


def _told(verdicts: Sequence[Verdict]) -> str:
    """How often there was which verdict."""
    counts = Counter[str](found.verdict for found in verdicts)
    return (
        f"of {len(verdicts)} cases, they helped in {counts[HELPS]}, harmed in {counts[HARMS]}, and no difference was "
        f"shown in {counts[UNDECIDED]}"
    )


def _lines(small: Sequence[SmallClass], side: int, known: UtilityMap) -> Iterator[str]:
    for one in small:
        patients = f"{one.patients:,} patient{'s' * (one.patients != 1)}"
        yield f"Your set: {one.name} has {one.images:,} training images of {patients}, and lacks {one.missing:,}."
    yield "samgan does not know what your classes mean, nor how hard it is to tell them apart."
    measured = [question for question in known.questions if question.verdicts]
    for question in measured:
        yield _measured(question)
    if unknown := [question for question in known.questions if not question.verdicts]:
        names = "; ".join(f"{question.text} ({question.difficulty})" for question in unknown)
        yield f"Not measured: {names}."
    if any(question.open for question in measured):
        yield "Some cases of the measured questions are not measured yet; docs/balance.md lists them."
    for one in small:
        yield _nearest(one, side, measured)
    yield from _what_follows(measured)


def _measured(question: Question) -> str:
    cases = question.verdicts
    where = ", ".join(f"{px} px" for px in sorted({case.side for case in cases}))
    auc, seen = min(case.rival_auc for case in cases), max(case.detectable for case in cases)
    single = (
        " Each case used one random choice of patients, so its interval says nothing about other patients. Each was "
        "tested by itself at 95 %, so one of so many may differ by chance."
    )
    return (
        f"Measured: {question.text} ({question.difficulty}), {where}, {sizes(cases)} of the small class: "
        f"{_told(cases)}. The AUC without synthetic images was {auc:.3f} or more, and a gain of {seen:.4f} would have "
        f"been shown in four cases of five.{single * (max(case.draws for case in cases) == 1)}"
    )


def _nearest(one: SmallClass, side: int, measured: Sequence[Question]) -> str:
    """What was found with a class of about the same size, on any question."""
    near = [(question, case) for question in measured for case in question.verdicts if _is_alike(one, side, case)]
    if not near:
        return f"No measured case has {side} px and about as many patients or images as {one.name}."
    questions = "; ".join(dict.fromkeys(f"{question.text}, {question.difficulty}" for question, _ in near))
    best = max((case for _, case in near), key=lambda case: case.gain)
    return (
        f"With {side} px and about as many as {one.name} has ({questions}): {_told([case for _, case in near])}. The "
        f"largest gain in AUC was {best.gain:+.4f} [{best.low:+.4f}, {best.high:+.4f}]. Another question may come out "
        "differently."
    )


def _is_alike(one: SmallClass, side: int, case: Verdict) -> bool:
    ours, theirs = (one.patients, case.patients) if case.patients else (one.images, case.images or 0)
    return side == case.side and 1 / ALIKE <= ours / max(theirs, 1) <= ALIKE


def _what_follows(measured: Sequence[Question]) -> Iterator[str]:
    cases = [(question, case) for question in measured for case in question.verdicts]
    helped = [(question, case) for question, case in cases if case.verdict == HELPS]
    for question, case in helped:
        few = f"{case.patients} patients" if case.patients else f"{case.images} images"
        yield f"They helped with: {question.text}, {few}, {case.side} px, by {case.use} ({case.gain:+.4f} in AUC)."
    if not helped:
        yield "Where a classifier of your real images is already nearly right, expect no gain."
    if not any(question.difficulty == "hard" for question in measured):
        yield "On a hard question they may help or harm: nobody has measured it with samgan."
    rivals = Counter(case.rival for _, case in cases)
    if rivals:
        best = rivals.most_common(1)[0][0]
        yield f"Try first what needs no synthetic images. The best way without them was most often: {best}."
    yield "samgan balance ends with a test on your own held-out patients. Trust that more than anything said here."
