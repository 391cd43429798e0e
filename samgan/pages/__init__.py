"""Templates and charts of every HTML page, and tables in Markdown."""

from samgan.pages.page import (
    RESEARCH_ONLY,
    Curve,
    chart,
    intervals,
    markdown_table,
    picture,
    section,
    table,
    text,
    write_page,
)

__all__ = [
    "RESEARCH_ONLY",
    "Curve",
    "chart",
    "intervals",
    "markdown_table",
    "picture",
    "section",
    "table",
    "text",
    "write_page",
]
