"""Commands that were started from a page, other than trainings: whether they still run, and what they say."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from samgan.errors import UsageError
from samgan.files import hash_json
from samgan.studio import processes
from samgan.studio.view import Studio


@dataclass(frozen=True)
class Job:
    """A command at this moment."""

    key: str
    """What it is for, such as "evaluate runs/first"."""
    back: str
    """The address of the page that shows what it found."""
    running: bool
    said: str
    """The end of what it has said; empty if it was never started here."""

    @property
    def seen(self) -> str:
        """A hash: equal if a page would show the same."""
        return hash_json([self.running, self.said])[:16]


def find_job(studio: Studio, key: str, back: str) -> Job:
    """Look at a command.

    Raises:
        UsageError: `back` is no address of this studio.
    """
    if not re.match(r"/(?![/\\])[!-~]*\Z", back):  # browsers read a backslash as a slash, and leave out tabs
        raise UsageError("back: expected an address of this studio")
    return Job(key, back, processes.is_running(studio.root, key), processes.said(studio.root, key))


def start_job(studio: Studio, key: str, words: Sequence[str], back: str) -> Response:
    """Start `samgan WORDS` and go back to its page.

    Raises:
        SamganError: It could not be started, or is running already.
    """
    processes.start(studio.root, key, words)
    return RedirectResponse(back, 303)
