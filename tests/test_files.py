"""Writing: old or new, never half."""

import json
import os

import pytest

from samgan.errors import SamganError
from samgan.files import atomic_write, check_new_folder, hash_json, move_into_place, write_json


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
    (tmp_path / "made").mkdir()
    (tmp_path / "made/result").touch()
    move_into_place(tmp_path / "made", tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["out"]
    assert sorted(os.listdir(tmp_path / "out")) == sorted([name, "result"])
    with pytest.raises(SamganError, match="not empty"):
        check_new_folder(tmp_path / "out")
    (tmp_path / "made").mkdir()
    with pytest.raises(OSError, match="not empty"):
        move_into_place(tmp_path / "made", tmp_path / "out")
    assert (tmp_path / "out/result").exists()
