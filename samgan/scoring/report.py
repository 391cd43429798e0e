"""One run as one self-contained HTML page: pictures, scores, curves, configuration, environment."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image

from samgan.config import Config, flatten, settings
from samgan.errors import SamganError
from samgan.pages import Curve, chart, picture, write_page
from samgan.pictures import SYNTHETIC
from samgan.runs import Environment
from samgan.scoring.documents import Scores
from samgan.scoring.table import class_table, header, remarks, verdicts
from samgan.scoring.words import about_floor, read_rows, summary

MAX_PICTURES = 64
REAL = "Real images of the data set. They are part of this file: share it as the data's terms allow."
FIRST_CHARTS = 3
"""Charts that every reader sees; the others are folded up."""
ROWS = 8
"""Snapshots to show at most in the picture of how training went."""
# Title, vertical axis, names in stats.jsonl, how to read it. The first ones are for every reader.
CHARTS = (
    (
        "Likeness within a set",
        "MS-SSIM of pairs, lower is more diverse",
        ("ms_ssim_real", "ms_ssim_generated"),
        "Generated images should become as different from each other as real ones are.",
    ),
    (
        "Frechet distance of thumbnails",
        "x 1000, lower is better",
        ("thumbnail_frechet",),
        "How far layouts are from real ones, in what they are and in how they vary.",
    ),
    (
        "Sliced Wasserstein distance",
        "SWD x 1000, lower is better",
        ("swd",),
        "How far textures are from real ones.",
    ),
    (
        "What chooses the best checkpoint",
        "root of SWD x thumbnails' distance",
        ("quick_score",),
        "Both distances in one. The snapshot where it is lowest is the best checkpoint.",
    ),
    (
        "Losses",
        "loss",
        ("loss_discriminator", "loss_generator"),
        "The two networks play against each other, so neither loss has to fall, and none tells how good images are.",
    ),
    (
        "Logits of the discriminator",
        "mean logit",
        ("logit_real", "logit_fake"),
        "How real the discriminator takes real and generated images for. Lines that part for good are a bad sign.",
    ),
    (
        "Over-fitting",
        "mean sign of real logits; share augmented",
        ("sign_real", "augment"),
        "A sign near 1: the discriminator knows its training images by heart. Then more of them are augmented.",
    ),
    ("Penalty", "penalty, before its weight", ("penalty",), "How steep the discriminator is. It should not run away."),
    (
        "MS-SSIM gap",
        "generated - real, above 0 hints at collapse",
        ("ms_ssim_gap",),
        "The distance of the lines in the first chart.",
    ),
)


NEXT_STEPS = (
    ("samgan audit RUN --data DATA", "looks for signs that the model repeats the patients that it was trained on"),
    ("samgan sample RUN --count 1000 --out samples", "makes images, and says in each of them that it is synthetic"),
    ("samgan card RUN --data DATA", "writes a model card from what is recorded"),
)
"""What to do with a model that was scored, and what each command does."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """What a page says to lead its reader, beyond the record."""

    title: str = ""
    """Heading of the page; default: the preset or the folder."""
    introduction: tuple[str, ...] = ()
    """Paragraphs that say what there is to see; default: the source of both sets of images."""
    reference: str = "Real"
    """What the images are called that generated ones are compared with."""
    reference_is: str = REAL
    """What they are, in a sentence or two."""
    examples: tuple[tuple[str, tuple[Markup, ...]], ...] = ()
    """Sections of further pictures after the two sets: a heading, and figures."""
    next_steps: tuple[tuple[str, str], ...] = NEXT_STEPS
    """Commands to try next, and what each does."""


PLAIN = Story()


def write_report(  # noqa: PLR0913 (what the page shows)
    path: Path,
    *,
    title: str,
    config: Config | None,
    stats: Iterable[dict[str, Any]] = (),
    environment: Environment | None = None,
    scores: Scores | None,
    real: UInt8[np.ndarray, "n c h w"],
    fake: UInt8[np.ndarray, "m c h w"],
    grids: Sequence[Path] = (),
    notes: Sequence[str] = (),
    story: Story = PLAIN,
) -> None:
    """Write a self-contained HTML report, atomically.

    Args:
        path: The file to write, such as `report.html` of a run.
        title: Heading of the page, if the story has none.
        config: Configuration of the model, if there is one.
        stats: Lines of `stats.jsonl`, from `Run.stats`; values that are not finite numbers are left out.
        environment: Of the run, if there is one.
        scores: The scores, if there are any.
        real: Real images, 0..255; those shown become part of the file.
        fake: Generated images, 0..255; as many are shown as of `real`, at most 64, evenly spaced in each array.
        grids: Pictures of the run's snapshots, oldest first.
        notes: Warnings to show first, such as "Phantoms are not patients."
        story: What leads the reader.

    Raises:
        SamganError: One of the two sets of images is empty.
    """
    titles, classes = class_table(scores) if scores else ([], [])
    charts = curve_charts(stats)
    write_page(
        path,
        "report.html",
        story.title or title,
        notes,
        introduction=story.introduction or _introduction(scores, config),
        summary=summary(scores) if scores else [],
        pictures=_pictures(real, fake, story),
        examples=story.examples,
        progress=_progress(grids, config),
        floor=about_floor(scores) if scores else "",
        score_header=header(scores) if scores else (),
        score_rows=read_rows(scores) if scores else [],
        class_header=titles,
        class_rows=classes,
        verdicts=verdicts(scores) if scores else [],
        remarks=remarks(scores) if scores else [],
        charts=charts[:FIRST_CHARTS],
        more_charts=charts[FIRST_CHARTS:],
        next_steps=story.next_steps if config else (),
        preset=config.preset if config else "",
        settings=_settings(config) if config else [],
        environment=_environment(environment) if environment else [],
    )


def _introduction(scores: Scores | None, config: Config | None) -> list[str]:
    """What the two sets of images are, as far as it is recorded."""
    lines = ["Real images stand beside generated ones, which show no real person."]
    if scores and scores.data and scores.generated:
        made = scores.generated
        seen = f" after {made.images_seen / 1000:g} thousand images of training" if made.images_seen else ""
        by = f", preset {config.preset}" if config else ""
        lines.append(f"Real: {scores.data.name}. Generated: {made.name}{by}{seen}.")
    return lines


def _progress(grids: Sequence[Path], config: Config | None) -> Markup | None:
    """The first images of some snapshots, a row for each, evenly spaced; None if there are fewer than two."""
    rows = []
    chosen = [grids[index * (len(grids) - 1) // (ROWS - 1)] for index in range(ROWS)] if len(grids) > ROWS else grids
    for path in chosen:
        try:
            with Image.open(path, formats=["PNG"]) as grid:
                pixels = np.atleast_3d(np.asarray(grid)).transpose(2, 0, 1)
        except (OSError, ValueError):
            continue
        rows.append(pixels[:, : config.network.resolution if config else 0])
    if len(rows) < 2 or len({row.shape for row in rows}) > 1:
        return None
    caption = (
        "The same seeds from an early snapshot (top) to the last one (bottom). Where a row looks like the one above "
        "it, training longer brings little."
    )
    magnify = 3 if rows[0].shape[1] <= 32 else 1
    return picture(np.stack(rows), 1, "How training went", caption, description=SYNTHETIC, magnify=magnify, tell=False)


def _pictures(real: np.ndarray, fake: np.ndarray, story: Story) -> list[Markup]:
    """The real grid and the generated one."""
    columns = min(8, max(4, 512 // fake.shape[-1]))
    count = min(MAX_PICTURES, columns**2, len(real), len(fake))
    if not count:
        raise SamganError(f"a report shows real and generated images; got {len(real)} real, {len(fake)} generated")
    figures = []
    for kind, images, description in (
        (story.reference, real, story.reference_is),
        ("Generated", fake, SYNTHETIC),
    ):
        # Evenly spaced, since real images often lie in order of class or patient.
        shown = images[np.arange(count) * len(images) // count]
        caption = (
            f"{count} of {len(images)}, evenly spaced, not chosen by eye; {images.shape[-1]} x {images.shape[-2]} px "
            "each, magnified."
        )
        magnify = 3 if images.shape[-1] <= 32 else 2
        figures.append(picture(shown, columns, kind, caption, description=description, magnify=magnify))
    return figures


def curve_charts(stats: Iterable[dict[str, Any]]) -> list[Markup]:
    """Every chart that the log has points for, all over the same stretch of training.

    Args:
        stats: Lines of `stats.jsonl`; values that are not finite numbers are left out.
    """
    lines = list(stats)
    curves: dict[str, Curve] = {}
    for line in lines:
        for name, value in flatten(line).items():
            if _is_number(value) and _is_number(line.get("images_seen")):
                curves.setdefault(name, []).append((line["images_seen"] / 1000, float(value)))
    gammas, gaps = (
        tuple(name for name in curves if name.startswith(group)) for group in ("gamma.", "ms_ssim_gap_by_class.")
    )
    known = {"kind", "step", "images_seen", "ms_ssim_gap_by_class"}.union(*(names for _, _, names, _ in CHARTS))
    others = {name: None for line in lines if line.get("kind") == "scores" for name in line if name not in known}
    charts = (
        *CHARTS,
        ("MS-SSIM gap by class", "generated - real, above 0 hints at collapse", gaps, "The same within each class."),
        ("Self-attention", "gamma, by network and resolution in px", gammas, "How much each layer of it is used."),
        *((name, name, (name,), "") for name in others),
    )
    end_kimg = max((kimg for curve in curves.values() for kimg, _ in curve), default=0.0) or 1.0
    return [
        chart(title, unit, {name: curves[name] for name in names if name in curves}, end_kimg, reading)
        for title, unit, names, reading in charts
        if curves.keys() & set(names)
    ]


def _settings(config: Config) -> list[tuple[str, str, str]]:
    """Every setting, its value (with the default where it differs) and its meaning."""
    document, rows = config.to_dict(), []
    for key, _, default, meaning in settings():
        group, name = key.split(".")
        value, usual = _shown(document[group][name]), _shown(default)
        rows.append((key, value if value == usual else f"{value} (default: {usual})", meaning))
    return rows


def _environment(environment: Environment) -> list[tuple[str, str]]:
    tree = {**environment.to_dict(), "command": shlex.join(environment.command)}
    return [(key, _shown(value)) for key, value in flatten(tree).items()]


def _shown(value: Any) -> str:
    """A value as it would stand in a YAML file."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _is_number(value: Any) -> bool:
    """Whether a chart can hold it: NaN and infinity are not below the bound, nor is what overflows a range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
