"""The command that serves the local web page."""

import argparse
from pathlib import Path

from samgan.commands.command import Command, Outcome
from samgan.errors import SamganError

PORT = 8017


def _add_studio(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="folder with prepared sets and runs; nothing outside of it is shown")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help="port to listen on; 0: any that is free")
    text = "address to listen on; with any other, other machines can reach the pictures of your patients"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    text = (
        "I know that whoever has the link can then look at everything and start trainings, and that it is unencrypted"
    )
    parser.add_argument("--i-know", action="store_true", help=text)
    parser.add_argument("--read-only", action="store_true", help="look only: start, stop and change nothing")
    parser.add_argument("--no-browser", action="store_true", help="only print the link")


def check_studio() -> None:
    """Refuse to go on without the packages of the studio.

    Raises:
        SamganError: One is not installed.
    """
    try:
        import samgan.studio.serve  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "samgan":
            raise
        raise SamganError(f"{error.name} is not installed: pip install 'samgan[studio]'") from None


def _studio(options: argparse.Namespace) -> Outcome:
    check_studio()
    from samgan.studio.places import Root
    from samgan.studio.serve import check_host, describe_reach, serve
    from samgan.terminal import say

    root = Root(options.root)
    check_host(options.host, options.i_know)
    if reach := describe_reach(options.host, options.read_only):
        say(reach)
    serve(root, host=options.host, port=options.port, read_only=options.read_only, browser=not options.no_browser)
    return Outcome({"root": str(root.path)}, "The studio has ended; what it started goes on.")


COMMANDS = (
    Command("studio", "look at sets and runs, and train, in the browser on this machine", _studio, _add_studio),
)
