"""The run folder: what is written, what is read back from a torn file, what is refused."""

import errno
import json
import os
import subprocess
import sys

import pytest

from samgan import __version__
from samgan.errors import SamganError
from samgan.runs import Environment, Run, Start, TrainedOn, describe_environment


def line(step, kind="train", **more):
    always = {"images_seen": 4 * step, "wall_seconds": 0.5 * step, "images_per_second": 8.0}
    return {"kind": kind, "step": step, **always, **more}


@pytest.fixture
def run(tmp_path, tiny_config):
    return Run.create(tmp_path / "run", tiny_config, Environment(device="cpu"))


def test_create_and_open(run, tiny_config):
    opened = Run.open(run.path)
    assert opened.config == tiny_config
    assert opened.environment == Environment(device="cpu")
    assert opened.checkpoints() == []
    assert opened.best() is None
    assert list(opened.stats()) == []


def test_create_takes_an_empty_folder(tmp_path, tiny_config):
    Run.create(tmp_path, tiny_config)
    assert Run.open(tmp_path).config == tiny_config


@pytest.mark.parametrize("content", ["file", "folder", "is a file", "run"])
def test_create_refuses_what_is_not_empty(tmp_path, tiny_config, content):
    path = tmp_path / "run"
    if content == "is a file":
        path.write_text("precious")
    elif content == "run":
        Run.create(path, tiny_config)
    else:
        path.mkdir()
        (path / "notes.txt").mkdir() if content == "folder" else (path / "notes.txt").write_text("precious")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(SamganError, match=r"not empty; name a new folder, or .*--resume"):
        Run.create(path, tiny_config.override({"training.seed": 9}))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("content", [None, "empty"])
def test_open_refuses_what_is_no_run(tmp_path, content):
    if content:
        (tmp_path / "run").mkdir()
    with pytest.raises(SamganError, match="not a run folder"):
        Run.open(tmp_path / "run")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00" * 20])
def test_damaged_config(run, text):
    (run.path / "config.json").write_text(text)
    with pytest.raises(SamganError, match=r"config\.json"):
        _ = Run.open(run.path).config


def test_checkpoints_are_listed_oldest_first(run):
    for step in (100, 20, 3):
        run.checkpoint_path(step).touch()
    (run.checkpoint_folder / ".step-00000200.pt.77.tmp").touch()
    assert [path.name for path in run.checkpoints()] == [f"step-{step:08d}.pt" for step in (3, 20, 100)]


def test_stats_come_in_order_of_step_and_the_later_line_counts(run):
    for entry in (line(1, x=1), line(2, x=2), line(2, "scores", y=9), line(3, x=3), line(2, x=20), line(3, x=30)):
        run.log(entry)
    expected = [line(1, x=1), line(2, "scores", y=9), line(2, x=20), line(3, x=30)]
    assert list(run.stats()) == expected
    assert len((run.path / "stats.jsonl").read_text().splitlines()) == 6  # append-only


@pytest.mark.parametrize("scored", [True, False])
def test_a_resumed_run_cuts_its_log_back_to_what_is_saved(run, scored):
    """Steps after the checkpoint of step 4 are done again, and its scores if the snapshot was cut off."""
    kept = [line(2, x=1.1), line(2, "scores", y=2), line(4, x=3)]
    for entry in (*kept, line(6, x=4), line(4, "scores", y=5), line(8, x=6)):
        run.log(entry)
    with open(run.path / "stats.jsonl", "ab") as file:
        file.write(b'{"kind": "train", "st')
    run.cut_log(4, scored=scored)
    written = [json.loads(text) for text in (run.path / "stats.jsonl").read_text().splitlines()]
    assert [entry for entry in written if entry["kind"] == "train"] == [line(2, x=1.1), line(4, x=3)]
    assert [entry["step"] for entry in written if entry["kind"] == "scores"] == ([2, 4] if scored else [2])
    before = (run.path / "stats.jsonl").stat()
    run.cut_log(4, scored=scored)
    assert (run.path / "stats.jsonl").stat() == before  # nothing to cut


def test_the_last_line_is_of_training_and_found_in_a_long_file(run):
    assert run.last_line() is None
    for step in range(1, 2001):
        run.log(line(step, x=step))
    run.log(line(2000, "scores", y=1))
    with open(run.path / "stats.jsonl", "ab") as file:
        file.write(b'{"kind": "train", "step": 20')
    assert run.last_line() == line(2000, x=2000)


def test_a_run_is_over_when_its_end_or_its_minutes_are_saved(run):
    end = run.config.training.total_steps
    assert not run.is_over(0.0)
    run.log(line(1, wall_seconds=61.0))
    assert not run.is_over(1.0)  # nothing is saved
    run.checkpoint_path(1).touch()
    assert run.is_over(1.0)
    assert not run.is_over(1.1)
    assert not run.is_over()
    run.log(line(2, wall_seconds=90.0))
    assert not run.is_over(1.0)  # what followed is not
    run.log(line(end, wall_seconds=99.0))
    run.checkpoint_path(end).touch()
    assert run.is_over()


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.995])
def test_a_torn_last_line_is_passed_over_and_does_not_swallow_the_next(run, keep):
    path = run.path / "stats.jsonl"
    run.log(line(1, x=1))
    whole = path.read_bytes()
    torn = (json.dumps(line(2, x=2.125)) + "\n").encode()
    path.write_bytes(whole + torn[: int(len(torn) * keep)])
    before = [entry["step"] for entry in run.stats()]
    assert before == ([1, 2] if keep == 0.995 else [1])  # only the line's end was torn off: it is whole
    run.log(line(3, x=3))
    assert [entry["step"] for entry in run.stats()] == [*before, 3]


ODD_LINES = [
    {"wall_seconds": None},
    {"wall_seconds": "long"},
    {"wall_seconds": float("nan")},
    {"wall_seconds": 1e300},
    {"images_per_second": [8.0]},
    {"images_seen": 1.5},
    {"images_seen": True},
    {"step": "x"},
    {"step": 10**30},
    {"loss_generator": "high"},
    {"gamma": [0.5]},
    {"gamma": {"generator_8": None}},
]
"""Changes to a line, each of which makes it something that training never writes."""


@pytest.mark.parametrize(
    "damage",
    [b"\x00" * 30, b"\xff\xfe torn", b"12", b"null", b'{"loss": 1}', b'{"step": 2, "kind": 5}', b"[" * 9000]
    + [b'{"kind": "train", "step": 1}']
    + [json.dumps({**line(1), **odd}).encode() for odd in ODD_LINES],
)
def test_other_damage_to_a_line_is_passed_over(run, damage):
    run.log(line(1))
    with open(run.path / "stats.jsonl", "ab") as file:
        file.write(damage)
    run.log(line(2))
    assert list(run.stats()) == [line(1), line(2)]
    assert run.last_line() == line(2)


def test_log_refuses_nan(run):
    run.log(line(1))
    with pytest.raises(ValueError, match="JSON"):
        run.log(line(2, x=float("nan")))
    assert list(run.stats()) == [line(1)]


def test_environment_tells_versions_machine_and_data():
    start = Start("before", 5, TrainedOn("other", "cd" * 32), Start("first", 3))
    environment = describe_environment("cpu", TrainedOn("set", "ab" * 32, 3), start)
    assert Environment.from_dict(json.loads(json.dumps(environment.to_dict())), "environment.json") == environment
    assert (environment.data.images, environment.device) == (3, "cpu")
    assert environment.samgan == __version__
    assert environment.processor
    assert environment.cores > 0
    assert environment.packages.keys() >= {"torch", "numpy"}


def test_an_environment_from_before_schema_numbers_is_read():
    old = {"device": "cpu", "data": {}, "start": {"run": "a", "images_seen": 3, "data": {}, "start": None}}
    expected = Environment(device="cpu", start=Start("a", 3))
    assert Environment.from_dict(old, "environment.json") == expected
    with pytest.raises(SamganError, match=r"environment\.json .* - at data\.|environment\.json .* at data"):
        Environment.from_dict({**old, "data": {"name": "set", "sha256": 5}}, "environment.json")


def test_a_source_tree_without_git_has_no_commit(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert describe_environment("cpu", None).commit is None


HOLD_AND_WAIT = """
import sys
from samgan.runs import Run
with Run(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_trains_and_a_killed_one_leaves_no_lock(run):
    command = [sys.executable, "-c", HOLD_AND_WAIT, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(SamganError, match="another process"), run.locked():
            pytest.fail("entered")
        other.kill()
    for _ in range(2):
        with run.locked():
            pass


def test_a_file_system_without_locks_is_no_obstacle(run, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with run.locked():
        run.log(line(1))
    assert list(run.stats()) == [line(1)]


@pytest.mark.parametrize("name", ["stats.jsonl", "grids", "checkpoints", "tensorboard", "mlruns", "wandb"])
def test_a_run_whose_files_lie_elsewhere_is_not_trained(run, tmp_path, name):
    place = run.path / name
    outside = tmp_path / "outside"
    if name == "stats.jsonl":
        outside.write_text("theirs\n")
    else:
        outside.mkdir()
    if place.is_dir():
        place.rmdir()
    place.symlink_to(outside)
    with pytest.raises(SamganError, match=rf"{name} is a link to .*outside"), run.locked():
        pytest.fail("entered")
    if name == "stats.jsonl":
        with pytest.raises(OSError, match="symbolic links"):
            run.log(line(1))
        assert outside.read_text() == "theirs\n"


def test_a_run_that_is_itself_behind_a_link_is_trained(run, tmp_path):
    (tmp_path / "link").symlink_to(run.path)
    other = Run.open(tmp_path / "link")
    with other.locked():
        other.log(line(1))
    assert list(run.stats()) == [line(1)]


def test_a_pipe_in_place_of_the_log_is_refused(run):
    os.mkfifo(run.path / "stats.jsonl")
    with pytest.raises(SamganError, match="expected a file"), run.locked():
        pytest.fail("entered")
