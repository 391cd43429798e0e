"""The tutorials: every block of commands is run, in a short form and on phantoms, or read by the program's parser."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from samgan.commands.main import _parse, main
from samgan.data.phantom import write_phantoms

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs/tutorials"
PAGES = sorted(path.name for path in TUTORIALS.glob("*.md") if path.name != "index.md")
BLOCK = re.compile(r"^(<!-- not run: .+? -->\n)?```(sh|python|bash)\n(.*?)^```$", flags=re.S | re.M)

# The same commands for seconds instead of hours: each text is in the tutorials, so that none is forgotten here.
TINY = "--network.max_channels=8 --training.batch_size=4 --training.kimg=0.04 --training.snapshot_every_kimg=0.02"
SHORT = {
    "--minutes 60 --out runs/first --resume": "--out runs/first --resume",
    "--minutes 60 --out runs/first": f"{TINY} --out runs/first",
    "--minutes 60 --originals": f"{TINY} --seeds 2 --steps 1 --originals",
    "--minutes 20": TINY,
    "--kimg 30 --network.max_channels=32": "--kimg 0.04 --network.max_channels=8",
    "--training.batch_size=8 --snapshot-every-kimg 5 --count 500": "--training.batch_size=4 --count 16",
    "msg-gan-6=2 samgan-8=2": "msg-gan-6=1 samgan-8=1",
    "--dry-run --scale paper --rows paper": "--dry-run --scale cpu --rows msg-gan-2",
    "--dry-run --scale paper --rows msg-gan-6 samgan-8": "--dry-run --scale cpu --rows msg-gan-6 samgan-8",
    "range(240)": "range(64)",
    "--count 1000": "--count 8",
    "--count 100\n": "--count 20\n",
}
# Slurm's commands, for scripts: what samgan would be given is written down.
STAND_INS = {
    "srun": '#!/bin/sh\nexec "$@"\n',
    "samgan": f'#!/bin/sh\nexec {sys.executable} -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"\n',
}


def blocks(name):
    """Why a block is not run ("" if it is), its language and its text, of each block of a page."""
    return [(found[0], found[1], found[2]) for found in BLOCK.findall((TUTORIALS / name).read_text("utf-8"))]


def commands(block):
    """The lines of a block, joined where they end with a backslash."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with phantoms in the place of real X-rays, no network, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path


def write_xrays(count, normal):
    """Phantoms in place of the public set, fewer of the class NORMAL."""
    write_phantoms("chest_xray/train", count, 64)
    for path in sorted(Path("chest_xray/train/NORMAL").iterdir())[normal:]:
        path.unlink()


def run(line):
    """Run one line as it stands, but `samgan` in this process, which has torch already."""
    words = shlex.split(line)
    if words[0] == "samgan" and not re.search(r"[$<>|`]", line):
        paths = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words[1:]]
        assert main([word for group in paths for word in group or [""]]) == 0, line
        return
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def shortened(text):
    for long, short in SHORT.items():
        text = text.replace(long, short)
    return text


LONG = ("cluster.md", "dicom-to-dicom.md", "table2-row.md", *(name for name in PAGES if "balance" in name))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in PAGES]
)
def test_every_block_runs(name, folder):
    write_xrays(*((110, 90) if "balance" in name else (40, 32)))  # a test of balance wants 16 held-out ones of a class
    for why, language, text in blocks(name):
        first = re.match(r"(?:#!.*\n)?# (\S+)\n", text)
        if language in ("python", "bash"):
            assert first, f"which file is this? {text[:60]}"
            Path(first[1]).write_text(shortened(text), "utf-8")
        elif not why:
            for line in commands(shortened(text)):
                run(line)
        for model in re.findall(r"--run (\S+)", text):  # also of a command that is not run
            assert model == "pneumonia-64" or Path(model).is_dir(), model


def test_what_is_not_run_is_what_cannot_be():
    """Downloads, Slurm, and what needs their results or a good model; what is samgan's is read by its parser."""
    for name in PAGES:
        for why, _, text in blocks(name):
            for line in commands(text) if why else []:
                words = shlex.split(line)
                if words[0] == "samgan":
                    _parse(words[1:])
                else:
                    assert words[0] in ("unzip", "sbatch", "tail", "export"), line


@pytest.mark.parametrize("name", PAGES)
def test_scripts_for_slurm_give_samgan_what_it_understands(name, tmp_path):
    for command, text in STAND_INS.items():
        (tmp_path / command).write_text(text)
        (tmp_path / command).chmod(0o755)
    for _, language, text in blocks(name):
        if language != "bash":
            continue
        environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-ec", text], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines
        for line in lines:
            _parse(json.loads(line))


def test_no_replacement_is_left_over():
    text = "\n".join(block for name in PAGES for _, _, block in blocks(name))
    for long in SHORT:
        assert long in text or long.replace(" --", " \\\n    --") in text, long


def test_every_samgan_command_stands_in_a_block():
    """A command in another kind of block would not be tested."""
    for name in PAGES:
        rest = BLOCK.sub("", (TUTORIALS / name).read_text("utf-8"))
        assert not re.search(r"^ {4}samgan |^```\w*\nsamgan ", rest, flags=re.M), name
