"""Pieces of self-contained HTML pages: sections, tables, pictures, charts; and tables as Markdown.

Nothing is loaded from anywhere and no script runs, which a page's content security policy also demands. Every text
that comes from outside (titles, notes, settings, file names) is to be escaped by `text`.
"""

import base64
import html
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import numpy as np
from jaxtyping import UInt8

from samgan import __version__
from samgan.files import atomic_write
from samgan.pictures import image_grid, write_png

Curve = list[tuple[float, float]]
"""Points (x, y), in order of x."""

RESEARCH_ONLY = "Research only: images of this size diagnose nobody."
MAX_CURVE_POINTS = 400
COLOURS, DASHES = 5, 3


def write_page(path: Path, title: str, sections: Iterable[str], notes: Sequence[str] = ()) -> None:
    """Write one page, atomically.

    Args:
        path: The file to write.
        title: Heading of the page.
        sections: From `section`.
        notes: Warnings to show first, such as "Phantoms are not patients."
    """
    page = Template(PAGE).substitute(
        title=text(title),
        notes="".join(f'<p class="banner">{text(note)}</p>' for note in notes),
        sections="".join(sections),
        version=text(__version__),
    )
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "backslashreplace"))  # a file name may hold bytes that are no UTF-8


def section(heading: str, body: str, style: str = "text") -> str:
    """A part of a page: `body` is HTML, `style` is "text" or, for pictures, "wide"."""
    return f'<section class="{style}"><h2>{heading}</h2>{body}</section>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text, which is escaped here; the first cell of a row names it."""
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{text(first)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    # Reachable by keyboard, so that a table wider than the screen can be scrolled.
    label = text(", ".join(header))
    return (
        f'<div class="scroll" role="region" aria-label="Table: {label}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown; what comes from outside is to be rid of "|" and line breaks before."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def picture(
    images: UInt8[np.ndarray, "n c h w"],
    columns: int,
    heading: str,
    caption: str,
    *,
    description: str,
    magnify: int = 2,
) -> str:
    """A grid of images as a figure.

    Args:
        images: The images, 0..255; they become part of the page.
        columns: Images in a row.
        heading: Above the picture.
        caption: Below it, HTML; escape what comes from outside.
        description: Kept in the picture's own metadata, such as `samgan.pictures.SYNTHETIC`.
        magnify: Width of a pixel on the page.
    """
    grid = image_grid(images, columns)
    file = io.BytesIO()
    write_png(file, grid, {"Description": description})
    encoded = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><h3>{text(heading)}</h3><img class="grid" width="{grid.shape[-1] * magnify}" '
        f'alt="{text(heading)}: a grid of {len(images)}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def chart(title: str, unit: str, curves: dict[str, Curve], end_kimg: float) -> str:
    """A figure of curves over kimg, with axes and legend.

    Args:
        title: Above the figure.
        unit: What the vertical axis shows.
        curves: By name; colours and dashes come from the style sheet, so they follow the reader's theme.
        end_kimg: Where the horizontal axis ends.
    """
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
        label = name.removeprefix("gamma.").removeprefix("ms_ssim_gap_by_class.").replace("_", " ")
        legend.append(f"<li>{swatch} {text(label)}: {curve[-1][1]:.4g}</li>")
    alt = f"{title} against kimg, 0 to {end_kimg:g}. Lowest {min(values):.4g}, highest {max(values):.4g}."
    return (
        f'<figure><h3>{text(title)}</h3><svg class="chart" viewBox="0 0 480 275" role="img" aria-label="{text(alt)}">'
        f'<text x="4" y="16">{text(unit)}</text>{"".join(marks)}'
        f'<text x="{(left + right) // 2}" y="270" text-anchor="middle">real images shown, thousands (kimg)</text>'
        f"</svg><figcaption>Last values:<ul>{''.join(legend)}</ul></figcaption></figure>"
    )


def intervals(title: str, unit: str, values: dict[str, tuple[float, float, float]]) -> str:
    """A figure of means with their intervals, each below its name, which may have some 80 characters.

    Args:
        title: Above the figure.
        unit: What the horizontal axis shows.
        values: By name (low, mean, high).
    """
    left, right, row = 12, 628, 44
    low, high = min(v[0] for v in values.values()), max(v[2] for v in values.values())
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def x(value: float) -> str:
        return f"{left + (right - left) * (value - low) / (high - low):.1f}"

    bottom = 30 + row * len(values)
    marks = []
    for tick in _ticks(low, high):
        axis = ' class="axis"' if tick == 0 else ""
        marks.append(f'<path{axis} d="M{x(tick)} 24V{bottom}"/>')
        marks.append(f'<text x="{x(tick)}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    for index, (name, (least, mean, most)) in enumerate(values.items()):
        y = 44 + row * index
        marks.append(f'<text x="{left}" y="{y}">{text(name)}</text>')
        marks.append(f'<path class="c0" d="M{x(least)} {y + 14}H{x(most)}"/>')
        marks.append(f'<circle class="c0" cx="{x(mean)}" cy="{y + 14}" r="3.5"/>')
    spoken = "; ".join(f"{name} {mean:.4g}, {least:.4g} to {most:.4g}" for name, (least, mean, most) in values.items())
    return (
        f'<figure><h3>{text(title)}</h3><svg class="chart" viewBox="0 0 640 {bottom + 26}" role="img" '
        f'aria-label="{text(f"{title}: {spoken}")}"><text x="4" y="14">{text(unit)}</text>{"".join(marks)}</svg>'
        "</figure>"
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


def text(value: str) -> str:
    """Escape what is no HTML."""
    return html.escape(value, quote=True)


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
  overflow-wrap: anywhere; min-width: 6rem; white-space: pre-line; }
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
