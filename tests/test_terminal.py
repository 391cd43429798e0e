"""Nobody has to listen, and nothing that is said controls the terminal."""

import contextlib
import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samgan import terminal
from samgan.commands.main import main


class Deaf(io.StringIO):
    """A stream of which every write fails, as on a full disk or into a closed pipe."""

    encoding = "utf-8"

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, _):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("stream", [None, Deaf(errno.ENOSPC), Deaf(errno.EPIPE), Deaf(errno.EIO), io.StringIO()])
def test_nothing_that_is_said_fails(monkeypatch, stream):
    if type(stream) is io.StringIO:
        stream.close()
    monkeypatch.setattr("sys.stderr", stream)
    terminal.say("words")
    terminal.console().print("words")
    assert not terminal.is_terminal()


def test_what_is_said_arrives(capsys):
    terminal.say("one\ttwo\nthree")
    terminal.console().print("four")
    assert capsys.readouterr().err == "one\ttwo\nthree\nfour\n"


def test_progress_on_a_terminal_does_not_speak_to_itself(monkeypatch):
    """While a bar is shown, rich puts itself in the place of standard error."""
    from rich.progress import track

    written = io.StringIO()
    written.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", written)
    for _ in track(range(3), "work", console=terminal.console()):
        terminal.say("in between")
    assert "in between" in written.getvalue()
    assert "work" in written.getvalue()


@given(st.text())
def test_no_character_controls_the_terminal(text):
    shown = terminal.printable(text)
    assert all(letter.isprintable() or letter in "\n\t\u3000\u00a0" or letter.isspace() for letter in shown)
    assert not set(shown) & {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\u2066"} - {"\n", "\t"}
    assert terminal.printable(shown) == shown
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize("words", [["train"], ["verify"], ["card"], ["presets"], ["inspect-nothing"]])
def test_messages_about_names_with_escapes(words, capsys, tmp_path):
    name = f"{tmp_path}/a\x1b]0;owned\x07\x1b[2J\r\n\x9b31m"
    with contextlib.suppress(SystemExit):  # of argparse
        main([*words, name, *(["--out", name] if words == ["train"] else [])])
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert r"\x1b" in text or "invalid choice" in text
    assert not set(text) & {"\x1b", "\x07", "\r", "\x9b"}
    if not text.startswith("usage"):
        assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("redirections", "status"),
    [("2>&-", 0), ("2>/dev/full", 0), (">&-", 0), (">&- 2>&- <&-", 0), (">/dev/full", 1), ("| true", 141)],
)
def test_commands_without_listeners(redirections, status):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = f'"$0" -m samgan presets {redirections}'
    if "|" in redirections:  # true ends at once, long before the table is printed
        command = f"set -o pipefail; {command}"
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        ["bash", "-c", command, sys.executable],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_closed_descriptor_is_not_given_to_the_next_file(tmp_path):
    script = (
        "import os, sys; from samgan.terminal import open_standard_files as o; o(); "
        f"f = open({str(tmp_path / 'file')!r}, 'w'); print(f.fileno(), sys.stderr is None)"
    )
    root = str(Path(__file__).parents[1])
    command = ["bash", "-c", '"$0" -c "$1" 2>&- <&-', sys.executable, script]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "PYTHONPATH": root})
    number, is_none = done.stdout.split()
    assert int(number) > 2
    assert is_none == b"False"
