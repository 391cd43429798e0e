"""Self-contained HTML pages: a template of `templates/` for each, filled with rows, records and figures.

A page is a template that extends `page.html` and puts `section`s of `parts.html` into its block `main`. Whatever is not
a figure of this wing is escaped. A page loads nothing from anywhere and runs no script, and its content security
policy forbids both.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from samgan import __version__
from samgan.files import atomic_write
from samgan.grids import RESEARCH_ONLY


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> Markup:
    """A filled template, as a part that is not escaped again."""
    return Markup(_templates().get_template(template).render(**values))


def write_page(path: Path, template: str, title: str, notes: Sequence[str] = (), **values: Any) -> None:
    """Write one page, atomically.

    Args:
        path: The file to write.
        template: A template that extends `page.html`.
        title: Heading of the page.
        notes: Warnings to show first, such as "Phantoms are not patients."
        values: What the template asks for.
    """
    page = render(template, title=title, notes=notes, version=__version__, research_only=RESEARCH_ONLY, **values)
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "backslashreplace"))  # a file name may hold bytes that are not UTF-8
