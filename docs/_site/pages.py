"""What Sphinx needs for the pages of samgan: commands, settings and presets as they are, diagrams, links to the code.

Commands come from the parsers, settings from their schema, presets from their table: nothing is written down twice.
"""

import argparse
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diagrams
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from samgan.commands.main import COMMANDS, full_parser
from samgan.config import json_schema, settings

ROOT = diagrams.DOCS.parent
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\[\]]*\])*)\]\((\.\./[^)\s#]*)(#[^)\s]*)?\)")
CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", flags=re.S | re.M)
logger = logging.getLogger(__name__)


def plain(text: str) -> str:
    """Text as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~^$@])", r"\\\1", text)


class Made(SphinxDirective):
    """A directive that writes Markdown, which is then read as if it stood on the page."""

    def markdown(self) -> Iterator[str]:
        """The lines."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Nodes of these lines, sections among them."""
        container = nodes.section()
        container.document = self.state.document
        lines = list(self.markdown())
        self.state.nested_parse(StringList(lines, self.env.docname), 0, container, match_titles=True)
        return container.children


def shown_default(action: argparse.Action) -> str:
    """The default of an option, if it has one and its help does not name it."""
    if not action.option_strings or action.default in (None, False, argparse.SUPPRESS, [], (), ""):
        return ""
    return "" if "default" in (action.help or "") else f"; default: `{action.default}`"


def described(action: argparse.Action, parser: argparse.ArgumentParser) -> Iterator[str]:
    """An argument of a command as an item of a list of definitions."""
    formatter = parser._get_formatter()
    if action.option_strings:
        value = "" if action.nargs == 0 else " " + formatter._format_args(action, action.dest.upper())
        name = f"{', '.join(action.option_strings)}{value}"
    else:
        name = formatter._format_args(action, action.dest) or action.dest
    text = plain((action.help or "") % vars(action) if "%" in (action.help or "") else action.help or "")
    yield f"`{name}`"
    yield f": {text}{shown_default(action)}"
    yield ""


class Commands(Made):
    """Every command with every option, from the parsers of the program."""

    def markdown(self) -> Iterator[str]:
        """A section for each command."""
        full = full_parser()
        (choices,) = [action.choices for action in full._actions if isinstance(action, argparse._SubParsersAction)]
        known = {f"--{setting.key}" for setting in settings()}
        for command in COMMANDS:
            parser = choices[command.name]
            yield from (f"## samgan {command.name}", "", f"{plain(parser.description or '')}", "")
            for group in parser._action_groups:
                actions = [
                    action
                    for action in group._group_actions
                    if action.help != argparse.SUPPRESS
                    and action.dest != "help"
                    and known.isdisjoint(action.option_strings)
                ]
                if not actions:
                    continue
                if group.title not in ("positional arguments", "options"):
                    yield from (f"**{plain((group.title or '').capitalize())}.** {plain(group.description or '')}", "")
                for action in actions:
                    yield from described(action, parser)
            if command.takes_settings:
                yield from ("Takes [settings](settings.md) too, such as `--training.kimg=50`.", "")
            elif parser.epilog:
                yield from (plain(parser.epilog), "")


class Settings(Made):
    """Every setting, from the schema."""

    def markdown(self) -> Iterator[str]:
        """A section for each section of the settings."""
        schema = json_schema()["properties"]
        section = ""
        for setting in settings():
            top = setting.key.partition(".")[0]
            if top != section:
                section = top
                yield from (f"## {top}", "", plain(schema[top]["description"]), "")
            yield f"`{setting.key}`"
            default = f"`{json.dumps(setting.default)}`"
            yield f": {plain(setting.help)}.  \n  {plain(setting.allowed)}; default: {default}".replace("\n", "\n  ")
            yield ""


def prepare_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put drawings in place of Mermaid's source, and lead links out of docs/ to the repository."""
    page = Path(app.env.doc2path(docname))
    number = 0

    def drawn(found: re.Match[str]) -> str:
        nonlocal number
        number += 1
        name = f"{page.stem}-{number}"
        svg = diagrams.drawing(name, found[1])
        if svg is None:
            logger.warning("%s: no drawing of this diagram; run docs/_site/draw_diagrams.py", name, location=docname)
            return found[0]
        return f'```{{raw}} html\n<div class="diagram" tabindex="0">{svg}</div>\n```\n'

    text = diagrams.FENCE.sub(drawn, source[0])
    pieces, end = [], 0
    for block in CODE.finditer(text):
        pieces += [_outside(text[end : block.start()], app, page), block[0]]
        end = block.end()
    source[0] = "".join([*pieces, _outside(text[end:], app, page)])


def _outside(text: str, app: Sphinx, page: Path) -> str:
    """Text with links to files beyond docs/ as links to the repository, or without its address as names of files."""

    def link(found: re.Match[str]) -> str:
        path = Path(os.path.normpath(page.parent / found[2]))
        if found[1].startswith("!") or path.is_relative_to(diagrams.DOCS):
            return found[0]
        if not path.exists():
            logger.warning("no such file: %s", found[1], location=str(page))
        address, inside = app.config.repository, path.relative_to(ROOT).as_posix()
        if address:
            kind = "tree" if path.is_dir() else "blob"
            return f"{found[1]}]({address}/{kind}/main/{inside}{found[3] or ''})"
        return f"{found[1]}](#in-the-repository:{inside})"

    return LINK.sub(link, text)


def name_files(app: Sphinx, doctree: nodes.document) -> None:
    """Turn links to files of a repository whose address is not known into their text, with the file's name to see."""
    for reference in list(doctree.findall(nodes.Element)):
        target = reference.get("refuri") or reference.get("reftarget") or ""
        marker, _, inside = str(target).partition("in-the-repository:")
        if marker in ("#", "") and inside and reference.parent is not None:
            shown = nodes.inline(classes=["in-repository"])
            shown += reference.children
            if inside not in reference.astext():
                shown += [nodes.Text(" ("), nodes.literal(text=inside), nodes.Text(")")]
            reference.replace_self(shown)


class Docstrings:
    """Handlers of Sphinx's event for docstrings, before and after Napoleon; the arguments are those of the event."""

    def __init__(self) -> None:
        self.attribute: list[str] | None = None

    def before(self, app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
        """Leave out why a function is long; keep what an attribute says."""
        lines[:] = [line for line in lines if not line.startswith("Long because")]
        self.attribute = list(lines) if what in ("attribute", "property") and "Raises:" not in lines else None

    def after(self, app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
        """Undo what Napoleon does to an attribute: it takes the words before a colon for its type."""
        if self.attribute is not None:
            lines[:] = self.attribute


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_config_value("repository", "", "env", str)
    app.add_directive("samgan-commands", Commands)
    app.add_directive("samgan-settings", Settings)
    docstrings = Docstrings()
    app.connect("autodoc-process-docstring", docstrings.before, priority=400)
    app.connect("autodoc-process-docstring", docstrings.after, priority=600)
    app.connect("source-read", prepare_source)
    app.connect("doctree-read", name_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
