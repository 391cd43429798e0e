"""Sections put together in Python, for pages that are not templates yet."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup, escape

from samgan.pages.page import render
from samgan.pages.page import write_page as write_template


def write_page(path: Path, title: str, sections: Iterable[str], notes: Sequence[str] = ()) -> None:
    """Write a page of `section`s."""
    write_template(path, "sections.html", title, notes, sections=[Markup(part) for part in sections])


def section(heading: str, body: str, style: str = "text") -> str:
    """A part of a page: `body` is HTML."""
    return f'<section class="{style}"><h2>{heading}</h2>{body}</section>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text, which is escaped here."""
    return str(render("table.html", header=list(header), rows=[list(row) for row in rows]))


def text(value: str) -> str:
    """Escape what is not HTML."""
    return str(escape(value))
