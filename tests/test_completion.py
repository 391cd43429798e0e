"""The scripts of `samgan completion`, the bash one in bash itself."""

import json
import re
import shutil
import subprocess

import pytest

from samgan.commands.completion import SHELLS, completion_script
from samgan.commands.main import COMMANDS, full_parser, main
from samgan.config import settings

COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
$(complete -p samgan | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """Words that bash offers in place of the last word of a command line, in a folder of a set and a file."""
    program = shutil.which("bash")
    if program is None:
        pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("completion")
    (folder / "script.sh").write_text(completion_script(full_parser(), "bash"))
    (folder / "here").mkdir()
    (folder / "here/xrays-64").mkdir()
    (folder / "here/xrays.csv").touch()

    def offered(*words):
        command = [program, "--norc", "-c", COMPLETE, "bash", folder / "script.sh", "samgan", *words]
        result = subprocess.run(command, cwd=folder / "here", capture_output=True, text=True, check=True, timeout=60)
        assert not result.stderr
        return set(result.stdout.split())

    return offered


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("prep",), {"prepare"}),
        (("prepare", "--chan"), {"--channels"}),
        (("prepare", "--fit", "p"), {"pad"}),
        (("prepare", "--fit", ""), {"crop", "pad", "stretch"}),
        (("prepare", "xr"), {"xrays-64", "xrays.csv"}),
        (("prepare", "xrays-64", "out", "--labels", "xr"), {"xrays-64", "xrays.csv"}),
        (("audit", "run", "--out", "xr"), {"xrays-64"}),
        (("train", "--training.log_ev"), {"--training.log_every_kimg"}),
        (("completion", "b"), {"bash"}),
    ],
)
def test_bash_completes_commands_options_choices_and_files(bash, words, expected):
    assert bash(*words) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script_of_each_shell(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script == completion_script(full_parser(), shell) + "\n"
    assert all(command.name in script for command in COMMANDS)
    assert main(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": shell, "script": script.removesuffix("\n")}


def test_settings_are_offered_to_commands_that_take_them():
    text = completion_script(full_parser(), "bash")
    lines = {line.split("=")[0]: line for line in text.splitlines() if "_option_strings=" in line}
    for command in COMMANDS:
        words = set(re.findall(r"--[\w.-]+", lines[f"_shtab_samgan_{command.name}_option_strings"]))
        assert "--json" in words
        offered = words & {f"--{setting.key}" for setting in settings()}
        assert len(offered) == (len(settings()) if command.takes_settings else 0), command.name


def test_other_shells_are_refused_in_one_line(capsys):
    with pytest.raises(SystemExit):
        main(["completion", "cmd"])
    assert "invalid choice: 'cmd'" in capsys.readouterr().err
