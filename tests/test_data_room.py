"""What is free, and the one line that says that it is not enough."""

import sys

import pytest

from samgan.data import room
from samgan.errors import SamganError
from samgan.presets import preset_config
from samgan.training.cost import check_memory


def test_free_memory_is_that_of_the_system_or_of_the_container(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(room, "GROUP", tmp_path)
    assert room.free_memory() is None
    room.require_memory(1 << 60, "this", "that")  # not known: not refused
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemFree: 1 kB\nMemAvailable:  8000 kB\n")
    assert room.free_memory() == 8000 << 10
    (tmp_path / "memory.max").write_text("max\n")
    assert room.free_memory() == 8000 << 10
    for name, text in (("max", "5000000\n"), ("current", "3000000\n"), ("stat", "anon 5\nfile 1000000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert room.free_memory() == 3_000_000  # files that are cached make room


def test_too_little_is_told_with_what_to_choose(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "free_memory", lambda: 2 * 10**9)
    room.require_memory(2 * 10**9, "this", "that")
    told = "these images would take 21.0 GB of memory, and 2.0 GB are free: choose fewer"
    with pytest.raises(SamganError, match=told):
        room.require_memory(21 * 10**9, "these images", "choose fewer")
    room.require_disk(tmp_path / "not/there/yet", 1, "this", "that")
    with pytest.raises(SamganError, match=r"this needs 1,000,000\.0 GB on the disk of .*yet, and .* are free: that"):
        room.require_disk(tmp_path / "not/there/yet", 10**15, "this", "that")


@pytest.mark.skipif(sys.platform != "linux", reason="the address space that is taken is known on Linux only")
def test_too_little_address_space_is_told_before_a_training(tmp_path, monkeypatch):
    import resource

    page = resource.getpagesize()
    monkeypatch.setattr(room, "STATM", tmp_path / "statm")
    (tmp_path / "statm").write_text(f"{(4000 << 20) // page} 7 7\n")
    for limit, free in ((resource.RLIM_INFINITY, None), (4100 << 20, 100 << 20), (4000 << 20, 0), (1 << 20, 0)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert room.free_address_space() == free
        if free is None:
            room.require_address_space()
        else:
            told = rf"\(ulimit -v\) leaves {free >> 20} MiB, and training needs at least 256 MiB more; raise it"
            with pytest.raises(SamganError, match=told):
                check_memory(preset_config())
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4256 << 20, 4256 << 20))
    room.require_address_space()
    (tmp_path / "statm").unlink()
    assert room.free_address_space() is None
