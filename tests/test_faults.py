"""The scripts of results/faults: fifty kills of training lose nothing; what they compare; tables and logs agree."""

import csv
import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from samgan.runs import Best, Run

FOLDER = Path(__file__).parents[1] / "results/faults"


def script(name):
    spec = importlib.util.spec_from_file_location(f"faults_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(FOLDER))  # where the scripts find each other
fault_log = script("fault_log")
kills = script("kills")


def call(name, *words):
    variables = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, words)]
    return subprocess.run(words, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks processes")
@pytest.mark.parametrize(
    ("count", "names"),
    [(1, ["samgan-8"]), pytest.param(50, list(kills.CONFIGURATIONS), marks=pytest.mark.slow)],
)
def test_kills_lose_nothing(count, names, tmp_path):
    words = ["--kills", count, "--log", tmp_path / "log.csv", "--only", *names]
    result = call("kills", tmp_path / "work", *words)
    rows = fault_log.read_log(tmp_path / "log.csv", kills.Kill)
    assert [row for row in rows if row.lost] == [], result.stderr
    assert result.returncode == 0, result.stdout + result.stderr
    assert {row.configuration for row in rows} == set(names)
    assert len(rows) == count
    if count == 50:
        assert len({row.checkpoint for row in rows}) > 3  # kills came early and late
        assert any(row.temporaries for row in rows)  # and in the middle of a write


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_commands_that_are_killed_or_refused_a_write_lose_nothing(tmp_path):
    result = call("commands", tmp_path / "work", "--faults", 2, "--log", tmp_path / "log.csv")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("strace") is None, reason="for Linux")
def test_a_run_that_is_stopped_or_hung_up_loses_nothing(tmp_path):
    names = ["SIGHUP", "SIGSTOP and SIGCONT", "umask 077", "64 open files"]
    result = call("conditions", tmp_path / "work", "--log", tmp_path / "log.csv", "--only", *names)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def ended(tmp_path, tiny_config):
    """Two runs that ended alike."""
    runs = []
    for name in ("one", "two"):
        run = Run.create(tmp_path / name, tiny_config)
        (run.path / "grids").mkdir()
        run.grid_path(96).write_bytes(b"grid")
        run.checkpoint_path(kills.STEPS).write_bytes(b"weights")
        Best(checkpoint="step-00000024.pt", score="swd", value=1.0).write(run.checkpoint_folder / "best.json")
        for step in (12, 24):
            wall = {"wall_seconds": step + len(runs), "images_per_second": 1.0}
            run.log({"kind": "train", "step": step, "images_seen": 4 * step, "loss_generator": 0.5, **wall})
        run.log({"kind": "scores", "step": 24, "images_seen": 96, "swd": 1.0})
        runs.append(run)
    return runs


def test_runs_that_ended_alike_differ_in_nothing(ended):
    assert kills._compare(*ended) == ""


def again(run):
    line = json.loads((run.path / "stats.jsonl").read_text().splitlines()[0])
    run.log(line)


LOSSES = {
    "another weight": (lambda run: run.checkpoint_path(24).write_bytes(b"weightz"), "the last checkpoint"),
    "no weights": (lambda run: run.checkpoint_path(24).unlink(), "the last checkpoint"),
    "another best": (lambda run: (run.checkpoint_folder / "best.json").unlink(), "the best snapshot"),
    "one more checkpoint": (lambda run: run.checkpoint_path(12).touch(), "which checkpoints are kept"),
    "another grid": (lambda run: run.grid_path(96).write_bytes(b"other"), "kimg-"),
    "no grid": (lambda run: run.grid_path(96).unlink(), "kimg-"),
    "a step twice": (again, r"steps of train: [12, 24, 12]"),
    "another number": (
        lambda run: run.log({"kind": "scores", "step": 24, "images_seen": 96, "swd": 2.0}),
        "numbers of the log",
    ),
    "something left behind": (lambda run: (run.checkpoint_folder / ".x.1.tmp").touch(), "was left behind"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_comparison_notices(ended, name):
    lose, word = LOSSES[name]
    lose(ended[1])
    assert word in kills._compare(*ended)


def test_the_tables_are_those_of_the_logs():
    made = subprocess.run(
        [sys.executable, "-c", "import table; print(table.table())"],
        env={**os.environ, "PYTHONPATH": f"{FOLDER}:{FOLDER.parents[1]}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert made.strip() in (FOLDER / "README.md").read_text("utf-8")
    rows = fault_log.read_log(FOLDER / "kills.csv", kills.Kill)
    assert len(rows) == len({dataclasses.astuple(row)[:4] for row in rows})  # no kill is counted twice
    assert [row for row in rows if row.lost] == []
    with open(FOLDER / "conditions.csv", encoding="utf-8", newline="") as file:
        assert [row for row in csv.DictReader(file) if row["lost"]] == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.csv")), ids=lambda path: path.name)
def test_logs_tell_nothing_of_the_folders_of_a_machine(path):
    """What they quote has paths within the work folder or the source; /proc and such are the same everywhere."""
    words = re.findall(r"(?<![\w./])/\w[\w.-]*/[\w./-]+", path.read_text())
    assert [word for word in words if not word.startswith(("/proc/", "/dev/", "/sys/"))] == []
