"""Completion of commands, options, choices and files by the shell, in a script that shtab writes."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from samgan.config import settings

SHELLS = ("bash", "zsh", "tcsh")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the argument of `samgan completion`."""
    text = "shell to write the script for, such as: samgan completion bash > "
    text += "~/.local/share/bash-completion/completions/samgan, which new shells read"
    parser.add_argument("shell", choices=SHELLS, help=text)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add each setting of training as an option, which only completion needs: see `split_settings`."""
    for setting in settings():
        parser.add_argument(f"--{setting.key}", metavar="VALUE", help=setting.help.replace("%", "%%"))


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script for a shell that completes commands, their options and choices, and names of files and folders.

    Args:
        parser: The parser of all commands, with all their arguments; it is changed.
        shell: One of `SHELLS`.
    """
    import shtab

    for action in _actions(parser):
        if kind := _kind(action):
            action.complete = shtab.DIRECTORY if kind == "folder" else shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Arguments of a parser and of the commands below it."""
    for action in parser._actions:  # argparse has no public list; shtab reads this one too
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _kind(action: argparse.Action) -> str | None:
    """Whether an argument is a "folder", a "file" (or either), or neither: None."""
    name = str(action.metavar or "")
    if action.choices is not None or action.nargs == 0:
        return None
    if name == "FOLDER":
        return "folder"
    return "file" if action.type is Path or action.dest == "source" or "FILE" in name else None
