"""Scores in words: what came of them, how to read each, and how to read a floor."""

from collections.abc import Iterator, Sequence

from samgan.pages import cell
from samgan.scoring.documents import MODE_COLLAPSE, Scores
from samgan.scoring.registry import SCORES
from samgan.scoring.table import Verdict, about_repeats, number, table_rows

BELOW_FLOOR = 0.8
"""A distance below this share of its floor is better than other real images can be expected to be."""

FLOOR = (
    "The floor is what other real images of the same data score. No model can be expected to be better than that, so "
    "read each score beside its floor: the nearer, the better. A score clearly better than its floor can mean that "
    "training images are repeated."
)
FLOOR_OF_HALVES = (
    "The floor is what real images of the same data score against each other, at {half} images per set. The generated "
    "ones are scored at {count}. Distances are larger at fewer images, so real images at {count} would be below this "
    "floor: a distance equal to it is not yet that of real images."
)
READING = {
    "MS-SSIM [95 %]": "How alike two images of a set are, from 0 to 1, with the 95 % interval. Generated images that "
    "are more alike than real ones repeat themselves: that is mode collapse.",
    "frechet": "How far both sets are apart, by what a network sees in them: quality and variety in one number.",
    "kid_x1000": "The same question by another measure, which hardly depends on the number of images.",
    "precision": "The share of generated images that could pass for real ones. Low: bad images.",
    "recall": "The share of real images that the model could have made. Low: variety is missing.",
    "density": "How crowded real images are around generated ones. High, with a low coverage: only the usual is made.",
    "coverage": "The share of real images with a generated one close by. Low: variety is missing.",
    "swd": "How far textures are apart, from fine (first) to coarse (last).",
}
"""How to read each score of `SCORES`, in a sentence or two; and MS-SSIM, by its label in the table."""


def about_floor(scores: Scores) -> str:
    """How to read a score beside its floor."""
    half = scores.floor_count
    return FLOOR if half is None else FLOOR_OF_HALVES.format(half=half, count=scores.count)


def summary(scores: Scores) -> list[Verdict]:
    """The outcome in words, for a reader who goes no further."""
    found = list(_variety(scores))
    if (score := scores.scores.get("frechet")) and score.floor > 0:
        label, decimals = SCORES["frechet"].shown(scores.features)
        value, floor = number(score.value, decimals), number(score.floor, decimals)
        sentence = f"{label}: {score.value / score.floor:.1f} times its floor ({value} against {floor}). "
        sentence += (
            "Below the floor: training images may be repeated; run samgan audit."
            if score.value < BELOW_FLOOR * score.floor
            else "Real images reach about 1."
        )
        if scores.floor_count is not None:  # a ratio of distances at different counts would flatter the model
            sentence = f"{label}: {value} at {scores.count} images per set. Real images score {floor} against other "
            sentence += f"real ones at {scores.floor_count} per set, and less at more."
        found.append(Verdict(sentence, False))
    return found


def _variety(scores: Scores) -> Iterator[Verdict]:
    """Whether generated images, or those of a class, repeat themselves."""
    classes = [cell(name) for name, own in scores.classes.items() if own and (_is_collapsed(own) or _repeats(own))]
    repeats = _repeats(scores)
    if _is_collapsed(scores):
        yield Verdict("Mode collapse: generated images are more alike than real ones. The model repeats itself.", True)
    elif (test := scores.mode_collapse) and not classes and not repeats:
        sentence = (
            "No sign of mode collapse: generated images were not found to be more alike than real ones (MS-SSIM "
            f"generated - real = {test.difference:+.3f}, 95 % interval {test.low:+.3f} to {test.high:+.3f})."
        )
        yield Verdict(sentence, False)
    if classes:
        yield Verdict(
            f"Mode collapse in {', '.join(classes)}: generated images repeat themselves within the class.", True
        )
    if sentence := about_repeats(scores):
        yield Verdict(sentence, repeats)


def _is_collapsed(scores: Scores) -> bool:
    return scores.mode_collapse is not None and scores.mode_collapse.verdict == MODE_COLLAPSE


def _repeats(scores: Scores) -> bool:
    """Whether most generated images repeat an earlier one. Fewer may: small smooth images are often alike."""
    found = scores.repeats
    return found is not None and found.found and 2 * found.generated > scores.count


def read_rows(scores: Scores) -> list[tuple[str, str, Sequence[str]]]:
    """The rows of the table: label, how to read the score, and the other columns."""
    meaning = {record.shown(scores.features)[0]: READING.get(record.name, "") for record in SCORES.values()}
    return [(label, (READING | meaning).get(label, ""), cells) for label, *cells in table_rows(scores)]
