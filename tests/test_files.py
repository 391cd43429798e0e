"""Writing: old or new, never half; nothing is left behind for long; one process at a time."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from samgan.errors import SamganError
from samgan.files import (
    PRIVATE,
    atomic_folder,
    atomic_write,
    check_new_folder,
    hash_json,
    is_full,
    locked,
    without_folders,
    write_json,
)


def test_writes_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, b"old"])
def test_failure_leaves_the_old_file(tmp_path, error, old):
    path = tmp_path / "file.bin"
    if old:
        path.write_bytes(old)

    def write():
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert os.listdir(tmp_path) == (["file.bin"] if old else [])
    assert not old or path.read_bytes() == old


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_names_the_file(tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def write():
        with atomic_write(path) as file:
            file.write(b"new")
            if call == "write":
                fail()

    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    if call != "write":
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert is_full(caught.value)
    assert caught.value.filename == str(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["file.bin"]
    assert path.read_bytes() == b"old"


def test_old_content_stands_until_the_end(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_content_is_synchronised_before_it_takes_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(("fsync", os.fstat(fd).st_size)), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("replace", b)), replace(a, b)))
    with atomic_write(tmp_path / "file.bin") as file:
        file.write(b"12345")
    assert calls == [("fsync", 5), ("replace", tmp_path / "file.bin")]


def test_json(tmp_path):
    document = {"b": [1, 2.5, None], "a": {"ü": True}}
    write_json(tmp_path / "x.json", document)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == document
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_json_refuses_what_json_cannot_hold(tmp_path, value):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "x.json", {"a": value})
    assert (tmp_path / "x.json").read_text() == "{}"


def test_the_hash_of_json_ignores_the_order_of_keys_and_keeps_its_value():
    document = {"b": [1, 2.5, None], "a": {"ä": True}}
    expected = "dafeb1d1c1b0066589787cea493102c170e6f2960d00290de27023d89d345904"
    assert hash_json(document) == hash_json(dict(sorted(document.items()))) == expected
    assert hash_json({**document, "b": [1, 2.5]}) != expected


def test_a_new_folder_is_one_that_is_missing_or_empty(tmp_path):
    check_new_folder(tmp_path / "missing")
    check_new_folder(tmp_path)
    (tmp_path / "file").write_text("x")
    for used in (tmp_path, tmp_path / "file"):
        with pytest.raises(SamganError, match=r"exists and is not empty; choose another"):
            check_new_folder(used, "choose another")


JUNK = (".DS_Store", "Thumbs.db", "desktop.ini", ".directory", "@eaDir", "._x")


@pytest.mark.parametrize("name", JUNK)
def test_a_folder_with_files_of_the_system_counts_as_empty_and_keeps_them(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).touch()
    check_new_folder(tmp_path / "out")
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "result").touch()
    assert sorted(os.listdir(tmp_path)) == ["out"]
    assert sorted(os.listdir(tmp_path / "out")) == sorted([name, "result"])
    with pytest.raises(SamganError, match="not empty"):
        check_new_folder(tmp_path / "out")


def test_files_of_the_system_come_back_if_the_folder_cannot_be_renamed(tmp_path, monkeypatch):
    (tmp_path / "out/#recycle").mkdir(parents=True)
    (tmp_path / "out/#recycle/theirs").touch()
    rename = Path.rename

    def refuse(path, target):
        if Path(target) == tmp_path / "out":
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="busy"):
        write_folder(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out/#recycle/theirs").exists()


def write_file(path):
    with atomic_write(path) as file:
        file.write(b"new")


def write_folder(path):
    with atomic_folder(path) as folder:
        (folder / "file").write_bytes(b"new")


WAIT = """
import sys
from pathlib import Path
from samgan.files import atomic_folder, atomic_write
with (atomic_write if sys.argv[1] == "write_file" else atomic_folder)(Path(sys.argv[2])):
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_what_a_killed_process_left_behind_is_removed_by_the_next(tmp_path, write):
    path = tmp_path / "name.with.dots"
    command = [sys.executable, "-c", WAIT, write.__name__, str(path)]
    mine = tmp_path / ".other.12345.tmp"  # of another name
    mine.touch()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"begun\n"
        (left,) = (name for name in os.listdir(tmp_path) if name != mine.name)
        assert left == f".{path.name}.{other.pid}.tmp"
        if write is write_file:
            write(path)
            assert left in os.listdir(tmp_path)  # its process is at work
        other.kill()
    assert left in os.listdir(tmp_path)
    write(path)
    assert sorted(os.listdir(tmp_path)) == [mine.name, path.name]


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_without_locks_everything_is_written_and_nothing_of_others_removed(tmp_path, write, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / ".name.1.tmp").touch()
    write(tmp_path / "name")
    assert sorted(os.listdir(tmp_path)) == [".name.1.tmp", "name"]


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("kind", ["link", "file", "folder"])
def test_what_lies_in_the_place_of_the_temporary_is_not_written_through(tmp_path, write, kind):
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    place = tmp_path / f".name.{os.getpid()}.tmp"
    {"link": lambda: place.symlink_to(victim), "file": place.touch, "folder": place.mkdir}[kind]()
    write(tmp_path / "name")
    assert victim.read_bytes() == b"untouched"
    assert sorted(os.listdir(tmp_path)) == ["name", "victim"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_appears_complete_or_not_at_all(tmp_path, error):
    def fail():
        with atomic_folder(tmp_path / "new" / "folder") as folder:
            (folder / "file").touch()
            assert not (tmp_path / "new" / "folder").exists()
            raise error

    with pytest.raises(error):
        fail()
    assert os.listdir(tmp_path / "new") == []
    write_folder(tmp_path / "new" / "folder")
    with pytest.raises(SamganError, match="not empty"):
        write_folder(tmp_path / "new" / "folder")


def test_a_folder_that_somebody_filled_meanwhile_is_left_alone(tmp_path):
    def race():
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "file").touch()
            (tmp_path / "folder").mkdir()
            (tmp_path / "folder" / "theirs").touch()

    with pytest.raises(SamganError, match="not empty"):
        race()
    assert os.listdir(tmp_path / "folder") == ["theirs"]
    assert os.listdir(tmp_path) == ["folder"]


def test_one_at_a_time_and_the_lock_is_gone_afterwards(tmp_path):
    with locked(tmp_path, "busy"):
        with pytest.raises(SamganError, match="busy"), locked(tmp_path, "busy"):
            pytest.fail("entered")
        assert os.listdir(tmp_path) == [".lock"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["link", "link to nothing", "folder", "pipe"])
def test_a_lock_is_a_regular_file_and_is_never_written_to(tmp_path, kind):
    victim, path = tmp_path / "victim", tmp_path / ".lock"
    victim.write_bytes(b"untouched")
    {
        "link": lambda: path.symlink_to(victim),
        "link to nothing": lambda: path.symlink_to(tmp_path / "nothing"),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    with pytest.raises(SamganError, match="not a regular file"), locked(tmp_path, "busy"):
        pytest.fail("entered")
    assert victim.read_bytes() == b"untouched"
    assert not (tmp_path / "nothing").exists()


def test_a_lock_that_was_left_behind_keeps_its_content(tmp_path):
    other = tmp_path / "other"
    (tmp_path / ".lock").write_bytes(b"whose?")
    os.link(tmp_path / ".lock", other)
    with locked(tmp_path, "busy"):
        pass
    assert other.read_bytes() == b"whose?"


def rights(path):
    return path.stat().st_mode & 0o777


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
@pytest.mark.parametrize("made_by_hand", [None, 0o750, 0o700])
def test_a_private_folder_is_for_its_user_unless_they_made_it(tmp_path, made_by_hand):
    out = tmp_path / "set"
    if made_by_hand:
        out.mkdir()
        out.chmod(made_by_hand)
    with atomic_folder(out, PRIVATE) as folder:
        assert rights(folder) == 0o700  # also while it is written
        (folder / "images.npy").touch()
    assert rights(out) == (made_by_hand or 0o700)


def test_a_command_is_published_without_folders():
    words = [
        "train",
        "/home/ann/set",
        "--out=../ann/run/",
        "--run",
        "A=/ann/x",
        r"C:\ann\set",
        "--training.kimg=1",
        "/",
    ]
    told = ("train", "set", "--out=run", "--run", "A=x", "set", "--training.kimg=1", "/")
    assert without_folders(words) == told
