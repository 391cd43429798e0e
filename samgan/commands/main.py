"""The command line. Results go to standard output, progress and messages to standard error.

Every command imports what it needs when it is called, so that `samgan --help` does not wait for torch.
"""

import argparse
import contextlib
import io
import json
import re
import signal
import sys
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from samgan import __version__
from samgan.commands import data, images, scores, settings, studies, studio, train
from samgan.commands.command import Command, Outcome
from samgan.commands.completion import add_completion, add_settings, completion_script
from samgan.commands.settings import split_settings
from samgan.config import settings as known_settings
from samgan.errors import LONGEST, SamganError, UsageError, shortened, shown
from samgan.files import is_full
from samgan.terminal import ending_signals, forget_unwritten, open_standard_files, printable, say


def _completion(options: argparse.Namespace) -> Outcome:
    script = completion_script(full_parser(), options.shell)
    return Outcome({"shell": options.shell, "script": script}, script)


COMMANDS: tuple[Command, ...] = (
    *data.COMMANDS,
    *train.COMMANDS,
    *images.COMMANDS,
    *scores.COMMANDS,
    *studies.COMMANDS,
    *studio.COMMANDS,
    *settings.COMMANDS,
    Command("completion", "print a script that lets bash, zsh or tcsh complete commands", _completion, add_completion),
)
"""All commands, in the order of `samgan --help`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words of the command line; default: those of this process.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong use, 128 + n stopped by signal n.
    """
    open_standard_files()
    warnings.showwarning = lambda message, *_, **__: say(shortened(f"samgan: warning: {shown(str(message))}"))
    try:
        return _run(arguments)
    finally:  # argparse ends by SystemExit, and may have printed
        forget_unwritten(sys.stdout)
        forget_unwritten(sys.stderr)


NO_MEMORY = re.compile("OutOfMemory|allocate memory|bad_alloc|start new thread|could not create a primitive")
"""What errors say where memory is short. torch's own is an OutOfMemoryError on a GPU, and a plain RuntimeError on a
CPU; threads and the primitives of oneDNN need some, too."""


def _is_of_memory(error: Exception) -> bool:
    if isinstance(error, SystemError):  # an extension module found no memory, and forgot to say so
        return _address_space_is_limited()
    return isinstance(error, MemoryError) or NO_MEMORY.search(repr(error)) is not None


def _address_space_is_limited() -> bool:
    """Whether `ulimit -v` has set a limit."""
    try:
        import resource
    except ImportError:  # Windows has none
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _run(arguments: Sequence[str] | None) -> int:
    """Run one command and print what comes of it; returns the exit status."""
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        with _termination_unwinds():
            outcome = options.command.run(options)
    except UsageError as error:
        return _fail(error, 2)
    except SamganError as error:
        number = getattr(error, "signal_number", None)
        return _stopped(error, 128 + number) if number else _fail(error, 1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        remedy = ": free some space, then run the same command again" if is_full(error) else ""
        return _fail(f"{error.strerror or error}{where}{remedy}", 1)
    except KeyboardInterrupt:
        return _stopped("interrupted", 130)
    except ImportError as error:
        if "map segment" not in str(error):  # the loader's words where address space is short
            raise
        return _fail(f"out of memory while libraries were loaded ({error}): free some, or raise ulimit -v", 1)
    except (MemoryError, RuntimeError, SystemError) as error:
        if not _is_of_memory(error):
            raise
        if _address_space_is_limited():
            return _fail("out of memory: raise ulimit -v, or choose a smaller training.batch_size or --count", 1)
        smaller = "training.batch_size, network.channel_base, network.max_channels or --count"
        return _fail(f"out of memory: choose a smaller {smaller}, or a set prepared with a smaller --resolution", 1)
    text = json.dumps(_plain(outcome.document), indent=2) if options.json else outcome.text
    return _print(printable(text)) or outcome.status


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options of the command that was typed, with `command` and `settings` (dotted keys) among them."""
    words, settings = split_settings(arguments)
    typed = next((word for word in words if not word.startswith("-")), None)
    parser, commands = _make_parser({typed})
    options, unknown = parser.parse_known_args(words)
    if unknown:
        commands[options.command.name].error(
            f"unrecognized arguments: {' '.join(unknown)}{_setting_of(options, unknown)}"
        )
    options.settings = settings
    if settings and not options.command.takes_settings:
        takers = ", ".join(command.name for command in COMMANDS if command.takes_settings)
        parser.error(f"--{next(iter(settings))}: samgan {options.command.name} takes no settings; these do: {takers}")
    return options


def _setting_of(options: argparse.Namespace, unknown: Sequence[str]) -> str:
    """The settings that an unknown option may mean, such as --training.kimg for --kimg."""
    word = unknown[0].partition("=")[0].removeprefix("--").replace("-", "_")
    meant = [known.key for known in known_settings() if known.key.partition(".")[2] == word]
    if not (meant and options.command.takes_settings):
        return ""
    return f"; did you mean --{' or --'.join(meant)}?"


def full_parser() -> argparse.ArgumentParser:
    """The parser of all commands with all their arguments, settings among them. To make it takes seconds."""
    parser, commands = _make_parser({command.name for command in COMMANDS})
    for command in COMMANDS:
        if command.takes_settings:
            add_settings(commands[command.name])
    return parser


def _make_parser(
    names: Collection[str | None],
) -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of the command line, and that of each command; only the commands `names` have their arguments."""
    parser = _Parser(
        prog="samgan",
        description="SAMGAN / MSG-SAGAN: diverse synthetic radiographs. For research only, not for diagnosis.",
        epilog="The four steps are prepare, train, sample and evaluate. samgan COMMAND --help describes a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"samgan {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = subparsers.add_parser(
            command.name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        if command.name in names:
            command.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print one JSON document on standard output")
        sub.set_defaults(command=command)
    return parser, subparsers.choices


def _plain(document: Any) -> Any:
    """A document as plain JSON types."""
    if isinstance(document, list | tuple):
        return [_plain(item) for item in document]
    if isinstance(document, dict):
        return {key: _plain(value) for key, value in document.items()}
    return document.to_dict() if hasattr(document, "to_dict") else document


def _print(text: str) -> int:
    """Print a result; returns the exit status of a terminal that cannot take it, else 0."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names, and arrows, that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    failure: OSError | None
    try:
        print(text)
        failure = forget_unwritten(sys.stdout)
    except OSError as error:
        failure = forget_unwritten(sys.stdout) or error
    if failure is None:
        return 0
    return 141 if isinstance(failure, BrokenPipeError) else _fail(f"standard output: {failure.strerror}", 1)


@contextlib.contextmanager
def _termination_unwinds() -> Iterator[None]:
    """On SIGTERM or SIGHUP, run every `finally`, so that no temporary files stay. Training handles them itself."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return
    before = {number: signal.signal(number, leave) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: object, status: int) -> int:
    say(shortened(f"samgan: error: {shown(str(message))}"))
    return status


def _stopped(message: object, status: int) -> int:
    """Say that somebody stopped the command, which is no error of it."""
    say(shortened(f"samgan: {shown(str(message))}"))
    return status


class _Parser(argparse.ArgumentParser):
    """Prints words of the command line without control characters: the shell may have put names of files among them."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(printable(message) if message else message, file)

    def error(self, message: str) -> NoReturn:
        """Print the usage and one line, also if there are line breaks in a word of the command line, or it is long."""
        super().error(shortened(shown(message), LONGEST - len(f"{self.prog}: error: ")))


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks of an epilog, and shows the default of an option whose help does not name it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        none = action.default is False or action.default in (None, argparse.SUPPRESS, [], (), "")
        shown = action.option_strings and not none and "default" not in text
        return text + " (default: %(default)s)" if shown else text
