"""Templates and figures of every HTML page, and tables in Markdown."""

from samgan.pages.figures import Curve, HeatCell, chart, heat_map, histogram, intervals, picture, png_picture
from samgan.pages.markdown import cell, markdown_table
from samgan.pages.page import render, write_page

__all__ = [
    "Curve",
    "HeatCell",
    "cell",
    "chart",
    "heat_map",
    "histogram",
    "intervals",
    "markdown_table",
    "picture",
    "png_picture",
    "render",
    "write_page",
]
