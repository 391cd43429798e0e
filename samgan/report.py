"""One run as one self-contained HTML page: pictures, scores, curves, configuration, environment.

Nothing is loaded from anywhere and no script runs, which the page's content security policy also demands. Every text
that comes from outside (titles, notes, settings, file names) is escaped by `_text`.
"""

import base64
import html
import io
import itertools
import json
import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from jaxtyping import UInt8

from samgan import __version__
from samgan.config import Config, settings
from samgan.errors import SamganError
from samgan.evaluation import COLLAPSE, format_table
from samgan.files import atomic_write
from samgan.pictures import SYNTHETIC, image_grid, write_png

Curve = list[tuple[float, float]]
"""Points (kimg, value), in order."""

MAX_PICTURES = 64
MAX_CURVE_POINTS = 400
COLOURS, DASHES = 5, 3

# Title, vertical axis, names in stats.jsonl.
CHARTS = (
    ("Losses", "loss", ("loss_discriminator", "loss_generator")),
    ("Logits of the discriminator", "mean logit", ("logit_real", "logit_fake")),
    ("Over-fitting", "mean sign of real logits; share augmented", ("sign_real", "augment")),
    ("Penalty", "penalty, before its weight", ("penalty",)),
    ("What chooses the best checkpoint", "SWD x 1000 + 100 x MS-SSIM gap", ("quick_score",)),
    ("Sliced Wasserstein distance", "SWD x 1000, lower is better", ("swd",)),
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
        scores: From `samgan.evaluation.evaluate`, or read back from `scores.json`.
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
            section, name = key.split(".")
            value = _shown(document[section][name])
            rows.append((key, value if value == _shown(default) else f"{value} (default: {_shown(default)})", meaning))
        table = _table(("setting", "value", "meaning"), rows)
        sections.append(_section("Configuration", f"<p>Preset: {_text(config.preset)}.</p>{table}"))
    if environment is not None:
        if isinstance(command := environment.get("command"), list):
            environment = {**environment, "command": shlex.join(map(str, command))}
        rows_of_two = [(key, _shown(value)) for key, value in _flat(environment)]
        sections.append(_section("Environment", _table(("what", "value"), rows_of_two)))
    page = Template(PAGE).substitute(
        title=_text(title),
        notes="".join(f'<p class="banner">{_text(note)}</p>' for note in notes),
        sections="".join(sections),
        version=_text(__version__),
    )
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "backslashreplace"))  # a file name may hold bytes that are no UTF-8


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
        grid = image_grid(shown, columns)
        file = io.BytesIO()
        write_png(file, grid, {"Description": description})
        encoded = base64.b64encode(file.getvalue()).decode()
        width = grid.shape[-1] * (3 if images.shape[-1] <= 32 else 2)
        figures.append(
            f'<figure><h3>{kind}</h3><img class="grid" width="{width}" alt="{kind} images: a grid of {count}" '
            f'src="data:image/png;base64,{encoded}"><figcaption>'
            f"<strong>{_text(description)}</strong> {count} of {len(images)}, evenly spaced, not chosen by eye; "
            f"{images.shape[-1]} x {images.shape[-2]} px each, magnified.</figcaption></figure>"
        )
    return _section("Real and generated images", f'<div class="row">{"".join(figures)}</div>', "wide")


def _scores(scores: dict[str, Any] | None) -> str:
    """The table the command line prints, as HTML, so that both always say the same."""
    if scores is None:
        return _section("Scores", "<p>Not scored.</p>")
    lines = [line for line in format_table(scores).splitlines() if line]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[0] == "|"]
    banner = ' class="banner"' if (scores.get("mode_collapse") or {}).get("verdict") == COLLAPSE else ""
    remarks = [
        f"<p{banner}><strong>{_text(line)}</strong></p>" if line.startswith("Verdict") else f"<p>{_text(line)}</p>"
        for line in lines
        if line[0] != "|"
    ]
    return _section("Scores", _table(header, rows) + "".join(remarks))


def _curves(stats: list[dict[str, Any]]) -> str:
    """Every chart that `stats` has points for, all over the same stretch of training."""
    curves: dict[str, Curve] = {}
    for line in stats:
        for name, value in _flat(line):
            if _is_number(value) and _is_number(line.get("images_seen")):
                curves.setdefault(name, []).append((line["images_seen"] / 1000, float(value)))
    gammas = tuple(name for name in curves if name.startswith("gamma."))
    known = {"kind", "step", "images_seen"}.union(*(names for _, _, names in CHARTS))
    others = {name: None for line in stats if line.get("kind") == "scores" for name in line if name not in known}
    charts = (
        *CHARTS,
        ("Self-attention", "gamma, by network and resolution in px", gammas),
        *((name, name, (name,)) for name in others),
    )
    end_kimg = max((kimg for curve in curves.values() for kimg, _ in curve), default=0.0) or 1.0
    drawn = [
        _chart(title, unit, {name: curves[name] for name in names if name in curves}, end_kimg)
        for title, unit, names in charts
        if curves.keys() & set(names)
    ]
    return _section(
        "Training", f'<div class="row">{"".join(drawn)}</div>' if drawn else "<p>Nothing logged.</p>", "wide"
    )


def _chart(title: str, unit: str, curves: dict[str, Curve], end_kimg: float) -> str:
    """Line chart with axes and legend; colours and dashes come from the style sheet, so they follow the theme."""
    left, right, top, bottom = 64, 470, 30, 230
    values = [value for curve in curves.values() for _, value in curve]
    low, high = min(values), max(values)
    size = max(abs(low), abs(high))
    constant = high - low <= max(1e-9 * size, 1e-12)
    margin = (size / 2 if size > 1e-12 else 1.0) if constant else 0.05 * (high - low)
    low, high = low - margin, high + margin

    def x(kimg: float) -> str:
        return f"{left + (right - left) * kimg / end_kimg:.1f}"

    def y(value: float) -> str:
        return f"{bottom - (bottom - top) * ((value - low) / (high - low)):.1f}"

    marks, legend = [], []
    for tick in _ticks(low, high):
        axis = ' class="axis"' if tick == 0 else ""
        marks.append(f'<path{axis} d="M{left} {y(tick)}H{right}"/>')
        marks.append(f'<text x="{left - 8}" y="{y(tick)}" dy="0.35em" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(0.0, end_kimg):
        marks.append(f'<path d="M{x(tick)} {bottom}v5"/>')
        marks.append(f'<text x="{x(tick)}" y="{bottom + 20}" text-anchor="middle">{tick:g}</text>')
    for index, (name, curve) in enumerate(curves.items()):
        style = f"c{index % COLOURS} d{index // COLOURS % DASHES}"
        places = [(x(kimg), y(value)) for kimg, value in _thin(curve)]
        marks.append(f'<path class="{style}" d="M{"L".join(f"{across} {up}" for across, up in places)}"/>')
        if len(places) <= 40:
            marks += [f'<circle class="{style}" cx="{across}" cy="{up}" r="2.5"/>' for across, up in places]
        swatch = f'<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true"><path class="{style}" d="M0 4H28"/></svg>'
        label = name.removeprefix("gamma.").replace("_", " ")
        legend.append(f"<li>{swatch} {_text(label)}: {curve[-1][1]:.4g}</li>")
    alt = f"{title} against kimg, 0 to {end_kimg:g}. Lowest {min(values):.4g}, highest {max(values):.4g}."
    return (
        f'<figure><h3>{_text(title)}</h3><svg class="chart" viewBox="0 0 480 275" role="img" aria-label="{_text(alt)}">'
        f'<text x="4" y="16">{_text(unit)}</text>{"".join(marks)}'
        f'<text x="{(left + right) // 2}" y="270" text-anchor="middle">real images shown, thousands (kimg)</text>'
        f"</svg><figcaption>Last values:<ul>{''.join(legend)}</ul></figcaption></figure>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Some 3 to 8 round numbers between `low` and `high`."""
    rough = (high - low) / 8
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= rough)
    return [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _thin(curve: Curve) -> Curve:
    """At most MAX_CURVE_POINTS points: lowest and highest of each stretch, so that spikes stay."""
    if len(curve) <= MAX_CURVE_POINTS:
        return curve
    edges = np.linspace(0, len(curve), MAX_CURVE_POINTS // 2 + 1).astype(int).tolist()
    stretches = (curve[start:stop] for start, stop in itertools.pairwise(edges))
    extremes = ({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])} for part in stretches)
    return [point for pair in extremes for point in sorted(pair)]


def _section(heading: str, body: str, style: str = "text") -> str:
    return f'<section class="{style}"><h2>{heading}</h2>{body}</section>'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{_text(first)}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    # Reachable by keyboard, so that a table wider than the screen can be scrolled.
    label = _text(", ".join(header))
    return (
        f'<div class="scroll" role="region" aria-label="Table: {label}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _flat(document: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a tree under dotted keys."""
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    """A value as it would stand in a YAML file."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _is_number(value: Any) -> bool:
    """Whether a chart can hold it: NaN and infinity are not below the bound, nor is what overflows a range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { --back: #fff; --fore: #1b1f24; --faint: #57606a; --line: #d0d7de; --panel: #f6f8fa; --warn: #fff1c9;
  --edge: #9a6700; --c0: #0a5cad; --c1: #c2410c; --c2: #08745a; --c3: #a3196b; --c4: #6d3fd1; }
@media (prefers-color-scheme: dark) { :root { --back: #0f1318; --fore: #e6edf3; --faint: #9aa5b1; --line: #333c47;
  --panel: #171d24; --warn: #3a2d05; --edge: #d4a72c; --c0: #6cb6ff; --c1: #ff9c5b; --c2: #4fd1a5; --c3: #ff8cc6;
  --c4: #b9a2ff; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1.5rem 1rem 3rem; background: var(--back); color: var(--fore);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
header, section, footer { max-width: 60rem; margin: 0 auto; }
section.wide { max-width: 110rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.75rem; padding-bottom: 0.25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 0.5rem; }
.banner { background: var(--warn); border-left: 0.35rem solid var(--edge); padding: 0.75rem 1rem; margin: 0.75rem 0;
  font-weight: 600; }
.row { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; padding: 1rem; background: var(--panel); border: 1px solid var(--line); border-radius: 0.5rem; }
figcaption, footer { color: var(--faint); font-size: 0.9rem; }
figcaption strong { color: var(--fore); }
.grid { display: block; max-width: 100%; height: auto; margin: 0 auto 0.75rem; image-rendering: pixelated; }
.chart { display: block; width: 100%; height: auto; }
.chart text { fill: var(--faint); font-size: 14px; }
.chart path, .swatch path { fill: none; stroke: var(--line); }
.chart path.axis { stroke: var(--faint); }
figure .c0 { stroke: var(--c0); stroke-width: 1.6; } figure .c1 { stroke: var(--c1); stroke-width: 1.6; }
figure .c2 { stroke: var(--c2); stroke-width: 1.6; } figure .c3 { stroke: var(--c3); stroke-width: 1.6; }
figure .c4 { stroke: var(--c4); stroke-width: 1.6; }
path.d1 { stroke-dasharray: 8 4; } path.d2 { stroke-dasharray: 2 4; }
circle { fill: var(--panel); }
.swatch { width: 28px; height: 8px; vertical-align: middle; }
figcaption ul { list-style: none; margin: 0.25rem 0 0; padding: 0; display: flex; flex-wrap: wrap;
  gap: 0.15rem 1.25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.4rem 0.75rem 0.4rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; min-width: 6rem; }
thead th { color: var(--faint); } tbody th { font-weight: 500; }
footer { margin-top: 3rem; }
</style>
</head>
<body>
<header><h1>$title</h1>$notes</header>
<main>$sections</main>
<footer>Written by samgan $version. For research only, not for diagnosis.</footer>
</body>
</html>
"""
