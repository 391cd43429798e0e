"""One run as one self-contained HTML page: pictures, scores, curves, configuration, environment."""

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from samgan.config import Config, flatten, settings
from samgan.errors import SamganError
from samgan.pages import Curve, chart, picture, write_page
from samgan.pictures import SYNTHETIC
from samgan.runs import Environment
from samgan.scoring.documents import Scores
from samgan.scoring.table import HEADER, class_table, remarks, table_rows, verdicts

MAX_PICTURES = 64
REAL = "Real images of the data set. They are part of this file: share it as the data's terms allow."

# Title, vertical axis, names in stats.jsonl.
CHARTS = (
    ("Losses", "loss", ("loss_discriminator", "loss_generator")),
    ("Logits of the discriminator", "mean logit", ("logit_real", "logit_fake")),
    ("Over-fitting", "mean sign of real logits; share augmented", ("sign_real", "augment")),
    ("Penalty", "penalty, before its weight", ("penalty",)),
    ("What chooses the best checkpoint", "root of SWD x thumbnails' distance", ("quick_score",)),
    ("Sliced Wasserstein distance", "SWD x 1000, lower is better", ("swd",)),
    ("Frechet distance of thumbnails", "x 1000, lower is better", ("thumbnail_frechet",)),
    ("Likeness within a set", "MS-SSIM of pairs, lower is more diverse", ("ms_ssim_real", "ms_ssim_generated")),
    ("MS-SSIM gap", "generated - real, above 0 hints at collapse", ("ms_ssim_gap",)),
)


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
    notes: Sequence[str] = (),
) -> None:
    """Write a self-contained HTML report, atomically.

    Args:
        path: The file to write, such as `report.html` of a run.
        title: Heading of the page.
        config: Configuration of the model, if there is one.
        stats: Lines of `stats.jsonl`, from `Run.stats`; values that are not finite numbers are left out.
        environment: Of the run, if there is one.
        scores: The scores, if there are any.
        real: Real images, 0..255; those shown become part of the file.
        fake: Generated images, 0..255; as many are shown as of `real`, at most 64, evenly spaced in each array.
        notes: Warnings to show first, such as "Phantoms are not patients."

    Raises:
        SamganError: One of the two sets of images is empty.
    """
    titles, classes = class_table(scores) if scores else ([], [])
    write_page(
        path,
        "report.html",
        title,
        notes,
        pictures=_pictures(real, fake),
        scored=scores is not None,
        score_header=HEADER,
        score_rows=table_rows(scores) if scores else [],
        class_header=titles,
        class_rows=classes,
        verdicts=verdicts(scores) if scores else [],
        remarks=remarks(scores) if scores else [],
        charts=curve_charts(stats),
        preset=config.preset if config else "",
        settings=_settings(config) if config else [],
        environment=_environment(environment) if environment else [],
    )


def _pictures(real: np.ndarray, fake: np.ndarray) -> list[Markup]:
    """The real grid and the generated one."""
    columns = min(8, max(4, 512 // fake.shape[-1]))
    count = min(MAX_PICTURES, columns**2, len(real), len(fake))
    if not count:
        raise SamganError(f"a report shows real and generated images; got {len(real)} real, {len(fake)} generated")
    figures = []
    for kind, images, description in (("Real", real, REAL), ("Generated", fake, SYNTHETIC)):
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
    known = {"kind", "step", "images_seen", "ms_ssim_gap_by_class"}.union(*(names for _, _, names in CHARTS))
    others = {name: None for line in lines if line.get("kind") == "scores" for name in line if name not in known}
    charts = (
        *CHARTS,
        ("MS-SSIM gap by class", "generated - real, above 0 hints at collapse", gaps),
        ("Self-attention", "gamma, by network and resolution in px", gammas),
        *((name, name, (name,)) for name in others),
    )
    end_kimg = max((kimg for curve in curves.values() for kimg, _ in curve), default=0.0) or 1.0
    return [
        chart(title, unit, {name: curves[name] for name in names if name in curves}, end_kimg)
        for title, unit, names in charts
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
