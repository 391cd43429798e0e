"""What a command is: a record that each file of this folder makes of its own commands, and `main` collects."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a command has to say when it is done."""

    document: Any
    """For `--json`: plain JSON types, an object with `to_dict`, or a list of such objects."""
    text: str
    """For a reader."""
    status: int = 0
    """The exit status."""


@dataclass(frozen=True)
class Command:
    """One command of `samgan`."""

    name: str
    help: str
    """What it does, in one line."""
    run: Callable[[argparse.Namespace], Outcome]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    """Called only if this command was typed: what it imports, `samgan --help` does not wait for."""
    takes_settings: bool = False
    """Whether `--training.kimg=50` and the like may be given; `run` finds them in `options.settings`."""
