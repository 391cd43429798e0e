"""Figures of pages: grids of pictures, curves, and means with intervals; parts of a page that are not escaped again."""

import base64
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup

from samgan.grids import image_grid, write_png
from samgan.pages.page import render

Curve = list[tuple[float, float]]
"""Points (x, y), in order of x."""
MAX_CURVE_POINTS = 400
MARKED_POINTS = 40
"""A curve with at most this many points has a mark at each."""
BINS = 40
"""Number of bins of a histogram."""
COLOURS, DASHES = 5, 3
"""Styles of curves; more curves than their product cannot be told apart."""
GROUPS = ("gamma.", "ms_ssim_gap_by_class.")
"""Beginnings of names of curves that a legend leaves out."""


class _Tick(NamedTuple):
    place: str
    label: str
    axis: bool
    """Whether it is the zero line."""


class HeatCell(NamedTuple):
    """One cell of a heat map."""

    value: float | None
    """None: not measured; the cell has no colour."""
    lines: tuple[str, ...]
    """What is written in it, two lines at most."""
    hatched: bool = False


def picture(
    images: UInt8[np.ndarray, "n c h w"],
    columns: int,
    heading: str,
    caption: str,
    *,
    description: str,
    magnify: int = 2,
    tell: bool = True,
) -> Markup:
    """A grid of images as a figure.

    Args:
        images: The images, 0..255; they become part of the page.
        columns: Images in a row.
        heading: Above the picture.
        caption: Below it.
        description: What the images are, such as `samgan.grids.SYNTHETIC`; kept in the picture's own metadata.
        magnify: Width of a pixel on the page.
        tell: Whether the description is also shown before the caption.
    """
    grid = image_grid(images, columns)
    file = io.BytesIO()
    write_png(file, grid, {"Description": description})
    spoken = f"{heading}: a grid of {len(images)}"
    return png_picture(file.getvalue(), heading, spoken, description * tell, caption, grid.shape[-1] * magnify)


def png_picture(
    png: bytes, heading: str, spoken: str, description: str = "", caption: str = "", width: int | None = None
) -> Markup:
    """A PNG file as a figure.

    Args:
        png: The file's content; it becomes part of the page.
        heading: Above the picture.
        spoken: What a screen reader says.
        description: In bold before the caption.
        caption: Below it.
        width: On the page, in pixels; default: as wide as the page allows.
    """
    return render(
        "picture.html",
        heading=heading,
        spoken=spoken,
        description=description,
        caption=caption,
        width=width if width is not None else "100%",
        png=base64.b64encode(png).decode(),
    )


def chart(title: str, unit: str, curves: Mapping[str, Curve], end_kimg: float, reading: str = "") -> Markup:
    """A figure of curves over kimg, with axes and legend.

    Args:
        title: Above the figure.
        unit: What the vertical axis shows.
        curves: By name.
        end_kimg: Where the horizontal axis ends.
        reading: How to read it, in a sentence or two.
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

    drawn = []
    for index, (name, curve) in enumerate(curves.items()):
        places = [(x(kimg), y(value)) for kimg, value in _thin(curve)]
        label = name
        for group in GROUPS:
            label = label.removeprefix(group)
        drawn.append(
            {
                "style": f"c{index % COLOURS} d{index // COLOURS % DASHES}",
                "path": f"M{'L'.join(f'{across} {up}' for across, up in places)}",
                "marks": places if len(places) <= MARKED_POINTS else [],
                "label": label.replace("_", " "),
                "last": f"{curve[-1][1]:.4g}",
            }
        )
    return render(
        "chart.html",
        title=title,
        unit=unit,
        reading=reading,
        spoken=f"{title} against kimg, 0 to {end_kimg:g}. Lowest {min(values):.4g}, highest {max(values):.4g}.",
        across=[_Tick(y(tick), f"{tick:g}", tick == 0) for tick in _ticks(low, high)],
        along=[_Tick(x(tick), f"{tick:g}", False) for tick in _ticks(0.0, end_kimg)],
        curves=drawn,
        left=left,
        right=right,
        bottom=bottom,
    )


def histogram(title: str, unit: str, groups: Mapping[str, Float[np.ndarray, " n"]]) -> Markup:
    """A figure of how values are distributed in each group, one outline for each; all have the same bins.

    Args:
        title: Above the figure.
        unit: What the horizontal axis shows.
        groups: By name: values, at least one.
    """
    left, right, top, bottom = 64, 470, 30, 230
    low = min(float(values.min()) for values in groups.values())
    high = max(float(values.max()) for values in groups.values())
    margin = 0.5 * (high == low) * max(1.0, abs(low))
    low, high = low - margin, high + margin
    shares = {
        name: np.histogram(values, BINS, (low, high))[0] / len(values)  # the last bin holds its right edge, too
        for name, values in groups.items()
    }
    most = max(float(share.max()) for share in shares.values())

    def x(value: float) -> str:
        return f"{left + (right - left) * (value - low) / (high - low):.1f}"

    def y(share: float) -> str:
        return f"{bottom - (bottom - top) * share / most:.1f}"

    edges = np.linspace(low, high, BINS + 1).tolist()
    drawn = []
    for index, (name, share) in enumerate(shares.items()):
        steps = "".join(f"V{y(height)}H{x(edge)}" for height, edge in zip(share.tolist(), edges[1:], strict=True))
        drawn.append(
            {
                "style": f"c{index % COLOURS} d{index // COLOURS % DASHES}",
                "path": f"M{x(low)} {y(0.0)}{steps}V{y(0.0)}",
                "label": name,
                "median": f"{float(np.median(groups[name])):.4g}",
            }
        )
    medians = "; ".join(f"{group['label']} {group['median']}" for group in drawn)
    return render(
        "histogram.html",
        title=title,
        unit=unit,
        spoken=f"{title}, from {low:.4g} to {high:.4g}. Medians: {medians}.",
        across=[_Tick(y(tick), f"{tick:g}", tick == 0) for tick in _ticks(0.0, most)],
        along=[_Tick(x(tick), f"{tick:g}", False) for tick in _ticks(low, high)],
        groups=drawn,
        left=left,
        right=right,
        bottom=bottom,
    )


def intervals(title: str, unit: str, values: Mapping[str, tuple[float, float, float]]) -> Markup:
    """A figure of means with their intervals, each below its name, which may have about 80 characters.

    Args:
        title: Above the figure.
        unit: What the horizontal axis shows.
        values: (low, mean, high), by name.
    """
    left, right, row = 12, 628, 44
    low, high = min(v[0] for v in values.values()), max(v[2] for v in values.values())
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def x(value: float) -> str:
        return f"{left + (right - left) * (value - low) / (high - low):.1f}"

    spoken = "; ".join(f"{name} {mean:.4g}, {least:.4g} to {most:.4g}" for name, (least, mean, most) in values.items())
    return render(
        "intervals.html",
        title=title,
        unit=unit,
        spoken=f"{title}: {spoken}",
        ticks=[_Tick(x(tick), f"{tick:g}", tick == 0) for tick in _ticks(low, high)],
        bars=[
            {"name": name, "y": 44 + row * index, "low": x(least), "mean": x(mean), "high": x(most)}
            for index, (name, (least, mean, most)) in enumerate(values.items())
        ],
        left=left,
        bottom=30 + row * len(values),
    )


def heat_map(
    title: str,
    above: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[HeatCell | None]],
    full: float,
    reading: str,
) -> Markup:
    """A figure of cells whose colour tells a number: one colour above 0 and another below, paler nearer to 0.

    Args:
        title: Above the figure.
        above: What the columns are.
        columns: Their names, one to five.
        rows: By name, which stands above the row and may have about 80 characters: one cell for each column; None:
            there is none.
        full: The absolute value that has the full colour, as have larger ones.
        reading: How to read it.
    """
    left, right, row, high = 12, 628, 76, 48
    width = (right - left) / len(columns)
    drawn, spoken = [], []
    for index, (name, cells) in enumerate(rows.items()):
        y = 50 + row * index
        own: list[dict[str, Any]] = []
        drawn.append({"name": name, "y": y + 14, "cells": own})
        for place, (column, cell) in enumerate(zip(columns, cells, strict=True)):
            if cell is None:
                continue
            value = cell.value or 0.0
            own.append(
                {
                    "x": f"{left + place * width + 2:.1f}",
                    "middle": f"{left + (place + 0.5) * width:.1f}",
                    "y": y + 20,
                    "style": "none" if cell.value is None else "h0" if value >= 0 else "h1",
                    "strength": f"{0.75 * min(abs(value) / full, 1.0):.2f}",
                    "hatched": cell.hatched,
                    "lines": cell.lines,
                }
            )
            spoken.append(f"{name}, {column}: {' '.join(cell.lines)}")
    return render(
        "heat_map.html",
        title=title,
        above=above,
        columns=[(f"{left + (place + 0.5) * width:.1f}", name) for place, name in enumerate(columns)],
        rows=drawn,
        width=f"{width - 4:.1f}",
        high=high,
        bottom=50 + row * len(rows) + 4,
        name="-".join(title.lower().split()),
        reading=reading,
        spoken=f"{title}. {'; '.join(spoken)}.",
    )


def _ticks(low: float, high: float) -> list[float]:
    """About 3 to 8 round numbers between `low` and `high`."""
    rough = (high - low) / 8
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= rough)
    return [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _thin(curve: Curve) -> Curve:
    """At most MAX_CURVE_POINTS points: the lowest and the highest of each stretch, so that spikes stay."""
    if len(curve) <= MAX_CURVE_POINTS:
        return curve
    edges = np.linspace(0, len(curve), MAX_CURVE_POINTS // 2 + 1).astype(int).tolist()
    stretches = (curve[start:stop] for start, stop in itertools.pairwise(edges))
    extremes = ({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])} for part in stretches)
    return [point for pair in extremes for point in sorted(pair)]
