"""Scores as rows and sentences, which the command line prints and the page shows."""

from typing import NamedTuple

from samgan.pages import cell, markdown_table
from samgan.scoring.documents import MODE_COLLAPSE, FeaturesUsed, MeanOfPairs, Scored, Scores
from samgan.scoring.registry import SCORES

BETTER = {"lower": "↓ lower", "higher": "↑ higher"}


class ScoreRow(NamedTuple):
    """One score as text."""

    label: str
    value: str
    floor: str
    better: str
    by_level: bool = False
    """Whether it is one level of a score that has a row of its own."""


class Verdict(NamedTuple):
    """What the test for mode collapse says of all images, or of one class."""

    sentence: str
    collapsed: bool


def floor_label(scores: Scores) -> str:
    """What the floor is called: it says at how many images it is, where the scores are at others."""
    return "floor" if scores.floor_count is None else f"floor at {scores.floor_count} images"


def header(scores: Scores) -> tuple[str, str, str, str]:
    """Columns of the table."""
    return "score", "generated", f"real against real ({floor_label(scores)})", "better"


def score_rows(scores: Scores) -> list[ScoreRow]:
    """Each score that there is, without MS-SSIM."""
    rows = []
    for record in SCORES.values():
        found = scores.scores.get(record.name)
        if record.name == "swd":
            rows += [
                _row(f"SWD x 1000 at {level} px", 2, "lower", own, by_level=True)
                for level, own in scores.swd_by_level.items()
            ]
        if found:
            label, decimals = record.shown(scores.features)
            rows.append(_row(label, decimals, record.better, found))
    return rows


def table_rows(scores: Scores) -> list[tuple[str, str, str, str]]:
    """The rows of the table, in columns as in `header`."""
    generated, real = (_interval(mean) for mean in (scores.ms_ssim_generated, scores.ms_ssim_real))
    first = ("MS-SSIM [95 %]", generated, real, "near the real")
    return [first, *((row.label, row.value, row.floor, row.better) for row in score_rows(scores))]


def class_table(scores: Scores) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of classes: how many images a set, and each score with its floor in brackets."""
    lines: list[dict[str, str]] = []
    for name, own in _classes(scores).items():
        real, generated = own.ms_ssim_real, own.ms_ssim_generated
        cells = {"class": name, "images a set": str(own.count)}
        cells["MS-SSIM (real)"] = f"{generated.mean:.3f} ({real.mean:.3f})" if real and generated else "-"
        rows = score_rows(own)
        cells |= {f"{row.label} (floor)": f"{row.value} ({row.floor})" for row in rows if not row.by_level}
        if own.floor_count is not None:
            cells["floor"] = f"at {own.floor_count} images"
        lines.append(cells)
    titles = list(dict.fromkeys(title for cells in lines for title in cells))
    return titles, [[cells.get(title, "-") for title in titles] for cells in lines]


def verdicts(scores: Scores) -> list[Verdict]:
    """Whether generated images are more alike than real ones, overall and in each class."""
    found = []
    of_class = {f"Verdict on {name}": own for name, own in _classes(scores).items()}
    for what, own in {"Verdict": scores, **of_class}.items():
        if test := own.mode_collapse:
            sentence = (
                f"{what}: {test.verdict} (MS-SSIM generated - real = {test.difference:+.3f}, 95 % interval "
                f"{test.low:+.3f} to {test.high:+.3f})."
            )
            found.append(Verdict(sentence, test.verdict == MODE_COLLAPSE))
    return found


def about_repeats(scores: Scores) -> str:
    """How many generated images repeat an earlier one, if that is more often than real images do beyond chance."""
    found = scores.repeats
    if found is None or not found.found:
        return ""
    return (
        f"{found.generated} of {scores.count} generated images are nearly the same as an earlier one; of as many real "
        f"ones, {found.real} are."
    )


def remarks(scores: Scores) -> list[str]:
    """What the numbers rest on."""
    lines = [
        f"{scores.count} images per set at {scores.resolution} px ({scores.counts.fake} generated and "
        f"{scores.counts.real} real were given; the floor needs two sets of real ones). Compare scores only at equal "
        "numbers of images."
    ]
    if scores.floor_count is not None:
        lines.append(
            f"The floor is at {scores.floor_count} images per set, not at {scores.count}: two sets of real images can "
            "only be had as halves. Distances are larger at fewer images, so their floors are too high here."
        )
    if data := scores.data:
        lines.append(
            f"Real images: {data.name}, {data.split}, {', '.join(data.classes)}, sha256 {data.sha256}. The floor's two "
            "sets are drawn by image: a patient with several images may be in both."
        )
    if scores.features:
        lines.append(_of_features(scores.features, scores.resolution))
    if sentence := about_repeats(scores):
        lines.append(sentence)
    if scores.protocol != "legacy":
        lines.append("MS-SSIM does not depend on the number of images and takes all that were given.")
    else:
        lines.append(
            "Legacy protocol: compare with the numbers of the paper's group only, not with any other FID. MS-SSIM is "
            "of neighbours in the order of the files; of the real images it takes all that were given."
        )
    reasons: dict[str, list[str]] = {}
    for skipped in scores.skipped:
        reasons.setdefault(skipped.reason, []).append(skipped.score)
    return lines + [f"Skipped: {', '.join(names)} ({reason})." for reason, names in reasons.items()]


def _of_features(features: FeaturesUsed, resolution: int) -> str:
    """Which features were compared, and with what their scores may be compared."""
    text = f"Features: {features.name}, sha256 {features.sha256}."
    if features.name != "inception":
        text += " They are not those of published FIDs: compare these scores only with others by the same features."
    if resolution < (side := features.at_least):
        text += f" Images of {resolution} px were enlarged to {side} px; how they do on such images is not known."
    return text


def format_table(scores: Scores) -> str:
    """Scores as a Markdown table, every score beside its floor, then the verdicts and what the numbers rest on."""
    lines = [*markdown_table(header(scores), table_rows(scores)), ""]
    titles, rows = class_table(scores)
    if rows:
        lines += [*markdown_table(titles, rows), ""]
    lines += [verdict.sentence for verdict in verdicts(scores)]
    return "\n".join([*lines, *remarks(scores)]) + "\n"


def number(value: float, decimals: int) -> str:
    """Fixed decimals, so that a column compares at a glance, unless they would say nothing or run on."""
    return f"{value:.4g}" if 0 < abs(value) < 10**-decimals or abs(value) >= 1e6 else f"{value:.{decimals}f}"


def _row(label: str, decimals: int, better: str, score: Scored, by_level: bool = False) -> ScoreRow:
    return ScoreRow(label, number(score.value, decimals), number(score.floor, decimals), BETTER[better], by_level)


def _classes(scores: Scores) -> dict[str, Scores]:
    """Classes that were scored, by a name that fits into a cell of a table."""
    return {cell(name): own for name, own in scores.classes.items() if own}


def _interval(mean: MeanOfPairs | None) -> str:
    return f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]" if mean else "-"
