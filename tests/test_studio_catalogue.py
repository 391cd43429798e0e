"""Sets and runs are found and described as they are: half-written, damaged, running, many."""

import json
import os
import shutil
import threading

import pytest

pytest.importorskip("starlette", reason="the studio is not installed: pip install 'samgan[studio]'")
from studio import held, line, make_run

from samgan import locks
from samgan.data import prepare
from samgan.errors import SamganError
from samgan.studio import processes
from samgan.studio.catalogue import DEPTH, FOLDERS, REMEMBERED, Catalogue
from samgan.studio.places import Root

TOTAL = 10
"""Steps of tiny_config."""


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def look(root):
    return Catalogue(Root(root)).look()


def test_sets_and_runs_are_found_wherever_they_are(root, tiny_config, twelve_phantoms):
    prepare(twelve_phantoms, root / "a" / "b" / "set", resolution=32, workers=1)
    make_run(root / "runs" / "one", tiny_config)
    make_run(root / "läufe" / "zwei und drei", tiny_config)
    make_run(root / "/".join("d" * (DEPTH + 1)), tiny_config)
    (root / ".hidden").mkdir()
    make_run(root / ".hidden" / "run", tiny_config)
    (root / "other").mkdir()
    (root / "other" / "config.json").write_text("{}", "utf-8")  # of another program
    found = look(root)
    assert [each.place for each in found.sets] == ["a/b/set"]
    assert {each.place for each in found.runs} == {"runs/one", "läufe/zwei und drei"}
    assert found.notes == (f"1 folder is more than {DEPTH} levels deep and not looked into.",)


def test_the_root_may_be_a_run_itself(root, tiny_config):
    make_run(root / "run", tiny_config)
    (described,) = look(root / "run").runs
    assert (described.place, described.state) == (".", "stopped")


@pytest.mark.parametrize(("checkpoint", "state"), [(None, "stopped"), (5, "stopped"), (TOTAL, "finished")])
def test_a_run_that_nobody_trains_was_stopped_or_is_finished(root, tiny_config, checkpoint, state):
    make_run(root / "run", tiny_config, checkpoint=checkpoint, lines=5)
    (run,) = look(root).runs
    assert (run.state, run.saved_step, run.kimg) == (state, checkpoint or 0, 0.02)
    assert run.seconds_left == pytest.approx(2.5)


def test_a_run_whose_lock_is_held_is_running(root, tiny_config):
    run = make_run(root / "run", tiny_config)
    catalogue = Catalogue(Root(root))
    with held(run) as process:
        described = catalogue.describe_run("run")
        assert described.state == "running"
        assert described.pid in (process.pid, None)  # only Linux tells it
        again = catalogue.describe_run("run")  # the look did not take the lock away
        assert again.state == "running"
    assert catalogue.describe_run("run").state == "stopped"  # killed; its .lock stays
    assert (run / ".lock").exists()


def test_a_run_that_another_user_trains_is_running(root, tiny_config, monkeypatch):
    run = make_run(root / "run", tiny_config)
    opened = os.open

    def refuse_to_write(path, flags, *mode, **named):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *mode, **named)

    with held(run):
        monkeypatch.setattr(os, "open", refuse_to_write)
        monkeypatch.setattr(locks, "PROCESSES", root / "nothing")  # nor does it tell which files are open
        described = Catalogue(Root(root)).describe_run("run")
        assert (described.state, described.pid) == ("running", None)


def test_a_look_keeps_nobody_from_beginning_to_train(root, tiny_config):
    run = make_run(root / "run", tiny_config)
    with open(run / ".lock", "wb") as looking, open(run / ".lock", "rb") as training:
        assert locks._try_lock(looking.fileno(), shared=True)
        threading.Timer(locks.PATIENCE / 4, looking.close).start()
        assert locks.find_holder(run / ".lock") is None  # several may look at the same time
        assert locks.lock(training.fileno())
        assert locks.find_holder(run / ".lock") == locks.Holder(os.getpid())


NEEDS_LOCKS = pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="only Linux tells who holds a lock")


@pytest.mark.parametrize(
    ("first", "now", "seconds", "later"),
    [
        ((), ("train", "--minutes=0.05"), 1.0, 3.0),  # 2 of 3 seconds are over
        (("samgan", "train", "--minutes=9"), ("train", "--minutes", "0.05"), 1.0, 3.0),
        (("samgan", "train", "--minutes=0.05"), ("train", "--resume"), 3.0, 1.0),  # continued, to the end
        (("samgan", "train", "--minutes=0.02"), ("train", "--resume"), 3.0, 3.0),  # these are over
        ((), ("balance", "--minutes=0.05"), 3.0, 3.0),  # several models share these
        ((), ("balance", "train", "demo", "--minutes=0.05"), 3.0, 3.0),  # a set and a folder of these names
        ((), ("train", "--minutes=9"), 3.0, 3.0), ((), ("train", "--minutes=nan"), 3.0, 3.0),
        ((), ("train", "--minutes"), 3.0, 3.0), ((), ("train", "--minutes=0.01"), 0.0, 3.0),
    ],
)  # fmt: skip
@NEEDS_LOCKS
def test_a_run_ends_when_the_minutes_of_its_process_are_over(root, tiny_config, first, now, seconds, later):
    """Nobody limits it any more when that process has ended, but the command that began it, which is continued."""
    run = make_run(root / "run", tiny_config.override({"training.kimg": 0.04}), lines=4)
    tree = json.loads((run / "environment.json").read_text("utf-8"))
    (run / "environment.json").write_text(json.dumps(tree | {"command": first}), "utf-8")
    catalogue = Catalogue(Root(root))
    with held(run, *now):
        assert catalogue.describe_run("run").seconds_left == pytest.approx(seconds)
    assert catalogue.describe_run("run").seconds_left == pytest.approx(later)


def test_where_processes_keep_their_words_the_minutes_are_those_of_the_first_command(root, tiny_config, monkeypatch):
    run = make_run(root / "run", tiny_config, lines=4)
    tree = json.loads((run / "environment.json").read_text("utf-8"))
    (run / "environment.json").write_text(json.dumps(tree | {"command": ["samgan", "train", "--minutes=1"]}), "utf-8")
    monkeypatch.setattr(processes, "command_of", lambda pid: ())
    with held(run):
        assert Catalogue(Root(root)).describe_run("run").minutes == 1.0


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="this system does not tell who holds a lock")
def test_whoever_trains_is_asked_to_stop_and_nobody_else(root, tiny_config):
    run = make_run(root / "run", tiny_config)
    with held(run) as process:
        processes.stop(run)
        process.wait(20)
        assert (run / "stopped").read_text() == "15"
    with pytest.raises(SamganError, match="Nobody is training"):
        processes.stop(run)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"network": 3}', '{"unknown": 1}', "\x00", "null"])
def test_damaged_settings_are_said_and_not_raised(root, tiny_config, text):
    make_run(root / "run", tiny_config)
    (root / "run" / "config.json").write_text(text, "utf-8")
    (run,) = look(root).runs
    assert run.state == "damaged"
    assert run.problem


@pytest.mark.parametrize("name", ["environment.json", "stats.jsonl", "checkpoints", "grids"])
@pytest.mark.parametrize("damage", ["missing", "half", "folder"])
def test_whatever_else_is_damaged_the_run_is_shown(root, tiny_config, name, damage):
    path = make_run(root / "run", tiny_config) / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if damage == "half":
        path.write_text('{"a', "utf-8")
    elif damage == "folder":
        path.mkdir()
    described = Catalogue(Root(root)).describe_run("run")
    assert described.state == "stopped"
    assert described.config


def test_what_is_not_there_is_absent(root):
    assert Catalogue(Root(root)).describe_run("nothing").state == "absent"
    assert "no prepared set" in Catalogue(Root(root)).describe_set("nothing").problem


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', "[]"])
def test_damaged_sets_are_said_and_not_raised(root, text):
    (root / "set").mkdir()
    (root / "set" / "dataset.json").write_text(text, "utf-8")
    (described,) = look(root).sets
    assert described.info is None
    assert described.problem


def test_what_changes_is_read_again(root, tiny_config):
    run = make_run(root / "run", tiny_config, lines=3)
    catalogue = Catalogue(Root(root))
    assert catalogue.describe_run("run").line["step"] == 3
    with open(run / "stats.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(line(4)) + "\n")
    assert catalogue.describe_run("run").line["step"] == 4
    shutil.rmtree(run)
    assert catalogue.describe_run("run").state == "absent"
    assert catalogue.look().runs == ()


def test_folders_that_cannot_be_read_are_said(root, tiny_config, monkeypatch):
    make_run(root / "run", tiny_config)
    for number in range(5):
        (root / f"closed {number}").mkdir()
    closed = [root / "closed 4"]
    look_into = os.scandir

    def refuse(path):
        if path in closed:
            raise PermissionError(13, "Permission denied")
        return look_into(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = look(root)
    assert [run.place for run in found.runs] == ["run"]
    assert found.notes == ("1 folder cannot be read: closed 4.",)
    closed[:] = [root / f"closed {number}" for number in range(5)]
    assert look(root).notes == ("5 folders cannot be read: closed 0, closed 1, closed 2, and 2 more.",)


def test_files_of_a_large_folder_that_were_not_looked_at_are_said(root, monkeypatch):
    monkeypatch.setattr("samgan.studio.catalogue.ENTRIES", 3)
    for number in range(3):
        (root / f"{number}.png").touch()
    assert look(root).notes == ()
    (root / "3.png").touch()
    assert look(root).notes == (
        "1 folder has more than 3 files, and not all were looked at: the folder of this studio.",
    )


def test_a_folder_with_too_many_folders_hides_nothing_beside_it(root, tiny_config, monkeypatch):
    monkeypatch.setattr("samgan.studio.catalogue.FOLDERS", 9)
    for place in ("dicom/a run", "runs/first", "second"):
        make_run(root / place, tiny_config)
    for number in range(20):
        (root / "dicom" / f"patient {number}").mkdir()
    found = look(root)
    assert {run.place for run in found.runs} == {"dicom/a run", "runs/first", "second"}  # the limit is used up
    assert found.notes == ("More than 9 folders are here, and not all were looked into: name a smaller one.",)
    shutil.rmtree(root / "dicom")
    assert look(root).notes == ()


def test_more_is_remembered_than_a_walk_asks_for(root, tiny_config):
    for number in range(3):
        make_run(root / f"run-{number}", tiny_config, checkpoint=5)
    catalogue = Catalogue(Root(root))
    catalogue.look()
    assert len(catalogue.known) / 4 < REMEMBERED / FOLDERS


def test_a_root_that_is_gone_is_not_an_empty_one(root, tiny_config):
    make_run(root / "run", tiny_config)
    catalogue = Catalogue(Root(root))
    moved = root.rename(root.with_name("moved"))
    for ask in (catalogue.look, catalogue.sets, catalogue.folders, catalogue.models):
        with pytest.raises(SamganError, match=r"The folder of this studio, .*root, cannot be read: No such file"):
            ask()
    moved.rename(root)
    assert [run.place for run in catalogue.look().runs] == ["run"]


QUICK = """
import json, sys, time
from samgan.studio.catalogue import Catalogue
from samgan.studio.places import Root
opened = []
def hear(event, words):
    if event == "open" and str(words[0]).startswith(sys.argv[1]):
        opened.append(words[0])
sys.addaudithook(hear)
catalogue, found = Catalogue(Root(sys.argv[1])), []
for _ in range(2):
    start = time.process_time()
    assert len(catalogue.look().runs) == 200
    found.append((len(opened), time.process_time() - start))
    opened.clear()
print(json.dumps(found))
"""


def test_two_hundred_runs_are_found_quickly_and_remembered(root, tiny_config, run_script):
    """In a process without checks of types, which make tests slow. A processor of 2021 takes 0.2 s; the limit is wide,
    because a slow machine is no defect.
    """
    first = make_run(root / "run-0", tiny_config, lines=30, grids=0)
    for number in range(1, 200):
        shutil.copytree(first, root / f"run-{number}")
    (read, seconds), (read_again, _) = run_script(QUICK, root)
    assert read >= 200
    assert seconds < 2
    assert read_again == 0
