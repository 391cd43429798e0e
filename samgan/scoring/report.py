"""One run as one self-contained HTML page: pictures, scores, curves, configuration, environment."""

import itertools
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from samgan.config import Config, flatten, settings
from samgan.errors import SamganError
from samgan.pages import Curve, chart, picture, section, table, text, write_page
from samgan.pictures import SYNTHETIC
from samgan.scoring.evaluate import COLLAPSE, format_table

MAX_PICTURES = 64

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


def write_report(
    path: Path,
    *,
    title: str,
    config: Config | None,
    stats: Iterable[dict[str, Any]],
    scores: dict[str, Any] | None,
    real: UInt8[np.ndarray, "n c h w"],
    fake: UInt8[np.ndarray, "m c h w"],
    notes: Sequence[str] = (),
    environment: dict[str, Any] | None = None,
) -> None:
    """Write a self-contained HTML report, atomically.

    Args:
        path: The file to write, such as `report.html` of a run.
        title: Heading of the page.
        config: Configuration of the run, if there is one.
        stats: Lines of `stats.jsonl`, from `Run.stats`; values that are not finite numbers are left out.
        scores: From `samgan.scoring.evaluate`, or read back from `scores.json`.
        real: Real images, 0..255; those shown become part of the file.
        fake: Generated images, 0..255; as many are shown as of `real`, 64 at most, evenly spaced in each array.
        notes: Warnings to show first, such as "Phantoms are not patients."
        environment: Versions, device, commit and data, from `environment.json`.

    Raises:
        SamganError: One of the two sets of images is empty.
    """
    sections = [_pictures(real, fake), _scores(scores), _curves(list(stats))]
    if config is not None:
        document = config.to_dict()
        rows = []
        for key, _, default, meaning in settings():
            group, name = key.split(".")
            value = _shown(document[group][name])
            rows.append((key, value if value == _shown(default) else f"{value} (default: {_shown(default)})", meaning))
        settings_table = table(("setting", "value", "meaning"), rows)
        sections.append(section("Configuration", f"<p>Preset: {text(config.preset)}.</p>{settings_table}"))
    if environment is not None:
        if isinstance(command := environment.get("command"), list):
            environment = {**environment, "command": shlex.join(map(str, command))}
        rows_of_two = [(key, _shown(value)) for key, value in flatten(environment).items()]
        sections.append(section("Environment", table(("what", "value"), rows_of_two)))
    write_page(path, title, sections, notes)


def _pictures(real: np.ndarray, fake: np.ndarray) -> str:
    """The real grid beside the generated one."""
    columns = min(8, max(4, 512 // fake.shape[-1]))
    count = min(MAX_PICTURES, columns**2, len(real), len(fake))
    if not count:
        raise SamganError(f"a report shows real and generated images; got {len(real)} real, {len(fake)} generated")
    figures = []
    for kind, images, description in (
        ("Real", real, "Real images of the data set. They are part of this file: share it as the data's terms allow."),
        ("Generated", fake, SYNTHETIC),
    ):
        # Evenly spaced, since real images often lie in order of class or patient.
        shown = images[np.arange(count) * len(images) // count]
        caption = (
            f"<strong>{text(description)}</strong> {count} of {len(images)}, evenly spaced, not chosen by eye; "
            f"{images.shape[-1]} x {images.shape[-2]} px each, magnified."
        )
        magnify = 3 if images.shape[-1] <= 32 else 2
        figures.append(picture(shown, columns, kind, caption, description=description, magnify=magnify))
    return section("Real and generated images", f'<div class="row">{"".join(figures)}</div>', "wide")


def _scores(scores: dict[str, Any] | None) -> str:
    """The table the command line prints, as HTML, so that both always say the same."""
    if scores is None:
        return section("Scores", "<p>Not scored.</p>")
    parts = []
    for is_table, lines in itertools.groupby(format_table(scores).splitlines(), lambda line: line.startswith("|")):
        if is_table:
            header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
            parts.append(table(header, rows))
            continue
        for line in filter(None, lines):
            banner = ' class="banner"' if re.match(f"Verdict.*: {COLLAPSE} ", line) else ""
            strong = line.startswith("Verdict")
            parts.append(f"<p{banner}><strong>{text(line)}</strong></p>" if strong else f"<p>{text(line)}</p>")
    return section("Scores", "".join(parts))


def _curves(stats: list[dict[str, Any]]) -> str:
    """Every chart that `stats` has points for, all over the same stretch of training."""
    curves: dict[str, Curve] = {}
    for line in stats:
        for name, value in flatten(line).items():
            if _is_number(value) and _is_number(line.get("images_seen")):
                curves.setdefault(name, []).append((line["images_seen"] / 1000, float(value)))
    gammas, gaps = (
        tuple(name for name in curves if name.startswith(group)) for group in ("gamma.", "ms_ssim_gap_by_class.")
    )
    known = {"kind", "step", "images_seen", "ms_ssim_gap_by_class"}.union(*(names for _, _, names in CHARTS))
    others = {name: None for line in stats if line.get("kind") == "scores" for name in line if name not in known}
    charts = (
        *CHARTS,
        ("MS-SSIM gap by class", "generated - real, above 0 hints at collapse", gaps),
        ("Self-attention", "gamma, by network and resolution in px", gammas),
        *((name, name, (name,)) for name in others),
    )
    end_kimg = max((kimg for curve in curves.values() for kimg, _ in curve), default=0.0) or 1.0
    drawn = [
        chart(title, unit, {name: curves[name] for name in names if name in curves}, end_kimg)
        for title, unit, names in charts
        if curves.keys() & set(names)
    ]
    return section(
        "Training", f'<div class="row">{"".join(drawn)}</div>' if drawn else "<p>Nothing logged.</p>", "wide"
    )


def _shown(value: Any) -> str:
    """A value as it would stand in a YAML file."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _is_number(value: Any) -> bool:
    """Whether a chart can hold it: NaN and infinity are not below the bound, nor is what overflows a range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
