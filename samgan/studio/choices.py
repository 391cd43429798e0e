"""What forms choose from, and how a choice becomes words of a command."""

import math
import re
from collections.abc import Collection, Mapping

from samgan.errors import UsageError
from samgan.metrics.weights_here import features_here
from samgan.studio.catalogue import FoundRun
from samgan.studio.view import Studio


def trained_runs(studio: Studio) -> list[FoundRun]:
    """Runs that have a checkpoint, those that changed last first."""
    return [run for run in studio.catalogue.look().runs if run.saved_step]


def run_and_set(studio: Studio, typed: Mapping[str, str]) -> tuple[str, str]:
    """The places of the run and of the set of a form, for a command to read.

    Raises:
        UsageError: One of them is none.
        Outside: One of them, or a link in it, leads out of the root.
    """
    run = studio.catalogue.describe_run(typed.get("run", ""))
    if not run.saved_step:
        raise UsageError("Choose a run that has a checkpoint.")
    studio.root.check_tree(studio.root.find(run.place))
    return run.place, chosen_set(studio, typed)


def chosen_set(studio: Studio, typed: Mapping[str, str]) -> str:
    """The place of the prepared set of a form, for a command to read.

    Raises:
        UsageError: It is none.
        Outside: It, or a link in it, leads out of the root.
    """
    described = studio.catalogue.describe_set(typed.get("set", ""))
    if described.info is None:
        raise UsageError(f"Choose a prepared set. {described.problem}")
    studio.root.check_tree(studio.root.find(described.place))
    return described.place


def one_of(name: str, chosen: str, known: Collection[str]) -> str:
    """What was chosen.

    Raises:
        UsageError: It is none of what there is.
    """
    if chosen not in known:
        raise UsageError(f"{name}: expected one of {', '.join(known)}")
    return chosen


THOUSANDS = re.compile(r"([1-9][0-9]{0,2})[.,]([0-9]{3})")
"""What is a thousand or more in one language, and less in another."""


def check_one_meaning(name: str, typed: str) -> None:
    """Refuse a number such as 10,000 or 2.500, which some read as thousands and others as a fraction.

    Raises:
        UsageError: It is such a number.
    """
    if found := THOUSANDS.fullmatch(typed.strip()):
        one, other = found.groups()
        raise UsageError(
            f"{name}: {found[0]} can be read in two ways: write {one}{other}, or {one}.{other}0 for a fraction"
        )


def read_number(name: str, typed: str, whole: bool) -> int | float:
    """A number as people type it, with a point or a comma.

    Raises:
        ValueError: It is none, or not finite.
        UsageError: It can be read in two ways.
    """
    check_one_meaning(name, typed)
    if whole:
        return int(typed)
    value = float(typed.replace(",", "."))
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {typed!r}")
    return value


def number(name: str, typed: str, whole: bool = True) -> str:
    """A number from 0 on, with a point or a comma, as a command takes it.

    Raises:
        UsageError: It is no number, is too long, or can be read in two ways.
    """
    check_one_meaning(name, typed)
    typed = typed.strip().replace(",", ".")
    if not re.fullmatch(r"[0-9]{1,9}" if whole else r"[0-9]{1,9}(\.[0-9]{1,9})?", typed):
        raise UsageError(f"{name}: expected a {'whole ' if whole else ''}number, found {typed!r}")
    return typed


def whole_number(wanted: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """A number that an address or a form asks for; `default` if it is left out.

    Raises:
        UsageError: It is no whole number, or not from `low` to `high`.
    """
    text = wanted.get(name, "").strip() or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 11 and low <= int(text) <= high):
        raise UsageError(f"{name}: expected a whole number from {low} to {high}")
    return int(text)


def weights_hash(wanted: Mapping[str, str]) -> str:
    """The whole hash of a model's weights, as the addresses of its pictures name them.

    Raises:
        UsageError: It is none.
    """
    text = wanted.get("sha256", "")
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise UsageError("sha256: expected the hash of the model's weights")
    return text


def features_words(typed: Mapping[str, str]) -> list[str]:
    """The option of the features; none if the command is to choose.

    Raises:
        UsageError: There is no network of this name, or its weights would have to be downloaded first.
    """
    chosen = typed.get("features", "")
    return [f"--features={one_of('features', chosen, features_here())}"] if chosen else []
