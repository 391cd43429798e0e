"""Scores in words: what came of them, how to read each, and how to read a floor."""

from collections.abc import Sequence

from samgan.scoring.documents import MODE_COLLAPSE, Scores
from samgan.scoring.registry import SCORES
from samgan.scoring.table import Verdict, number, table_rows

FLOOR = (
    "The floor is what other real images of the same data score. No model can be expected to be better than that, so "
    "read each score beside its floor: the nearer, the better."
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
    found = []
    if test := scores.mode_collapse:
        collapsed = test.verdict == MODE_COLLAPSE
        sentence = (
            "Mode collapse: generated images are more alike than real ones. The model repeats itself."
            if collapsed
            else "No sign of mode collapse: generated images differ from each other as much as real ones do."
        )
        found.append(Verdict(sentence, collapsed))
    if (score := scores.scores.get("frechet")) and score.floor > 0:
        label, decimals = SCORES["frechet"].shown(scores.features)
        value, floor = number(score.value, decimals), number(score.floor, decimals)
        sentence = f"{label}: {score.value / score.floor:.1f} times its floor ({value} against {floor}). "
        sentence += "Real images reach about 1."
        if scores.floor_count is not None:  # a ratio of distances at different counts would flatter the model
            sentence = f"{label}: {value} at {scores.count} images per set. Real images score {floor} against other "
            sentence += f"real ones at {scores.floor_count} per set, and less at more."
        found.append(Verdict(sentence, False))
    return found


def read_rows(scores: Scores) -> list[tuple[str, str, Sequence[str]]]:
    """The rows of the table: label, how to read the score, and the other columns."""
    meaning = {record.shown(scores.features)[0]: READING.get(record.name, "") for record in SCORES.values()}
    return [(label, (READING | meaning).get(label, ""), cells) for label, *cells in table_rows(scores)]
