"""Checkpoints: what comes back, what is refused without running it, what survives a full disk."""

import itertools
import os
import pickle
import random
import zipfile

import pytest
import torch

from samgan.errors import SamganError
from samgan.runs import (
    Best,
    Run,
    choose_checkpoint,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    record_best,
    save_checkpoint,
)

STATE = {
    "config": {},
    "generator": {},
    "ema_generator": None,
    "images_seen": 48,
    "step": 3,
    "rate": 0.1,
    "name": "x",
    "none": None,
    "betas": (0.0, 0.99),
    "parts": {"weight": torch.arange(1200.0).view(30, 40), "list": [1, {"deep": torch.tensor(2.5)}]},
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.fixture
def run(tmp_path, tiny_config):
    return Run.create(tmp_path / "run", tiny_config)


def test_round_trip(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    loaded = load_checkpoint(path).state
    assert loaded.pop("format") == "samgan checkpoint 1"
    assert same(loaded, STATE)
    assert os.listdir(tmp_path) == ["a.pt"]


def test_equal_states_give_equal_bytes(tmp_path):
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    save_checkpoint(first, STATE)
    loaded = load_checkpoint(first).state
    del loaded["format"]
    save_checkpoint(second, loaded)
    assert first.read_bytes() == second.read_bytes()


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def written(tmp_path, document, **options):
    torch.save(document, tmp_path / "other.pt", **options)
    return (tmp_path / "other.pt").read_bytes()


def compressed(tmp_path):
    written(tmp_path, WHOLE)
    with zipfile.ZipFile(tmp_path / "other.pt") as stored, zipfile.ZipFile(tmp_path / "small.pt", "w") as small:
        for part in stored.infolist():
            small.writestr(part.filename, stored.read(part), zipfile.ZIP_DEFLATED)
    return (tmp_path / "small.pt").read_bytes()


WHOLE = {**STATE, "format": "samgan checkpoint 1"}
FOREIGN = {
    "empty": lambda path: b"",
    "text": lambda path: b"not a checkpoint at all\n",
    "png": lambda path: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "foreign dict": lambda path: written(path, {"state_dict": torch.ones(2)}),
    "foreign format": lambda path: written(path, {**WHOLE, "format": "samgan checkpoint 0"}),
    "foreign list": lambda path: written(path, [torch.ones(2)]),
    "module": lambda path: written(path, torch.nn.Linear(2, 2)),
    "no weights": lambda path: written(path, {key: value for key, value in WHOLE.items() if key != "generator"}),
    "legacy": lambda path: written(path, WHOLE, _use_new_zipfile_serialization=False),
    "compressed": compressed,
    "pickle": lambda path: pickle.dumps(WHOLE),
    "malicious pickle": lambda path: pickle.dumps({**WHOLE, "x": Malicious(path / "made")}),
    "malicious torch file": lambda path: written(path, {**WHOLE, "x": Malicious(path / "made")}),
    "malicious legacy file": lambda path: written(
        path, {**WHOLE, "x": Malicious(path / "made")}, _use_new_zipfile_serialization=False
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_checkpoint_is_refused_and_not_run(tmp_path, kind):
    path = tmp_path / "step-00000001.pt"
    path.write_bytes(FOREIGN[kind](tmp_path))
    with pytest.raises(SamganError, match=r"step-00000001\.pt is not a readable samgan checkpoint: .") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_the_malicious_file_is_one(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "made"))).close()
    assert (tmp_path / "made").exists()


def test_missing_file(tmp_path):
    with pytest.raises(SamganError, match=r"there is no checkpoint .*gone\.pt"):
        load_checkpoint(tmp_path / "gone.pt")


def test_folder_instead_of_a_file(tmp_path):
    with pytest.raises(SamganError, match="not a readable"):
        load_checkpoint(tmp_path)


def test_truncated_anywhere(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(SamganError, match=r"a\.pt is not a readable"):
            load_checkpoint(path)


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path):
    path, draw = tmp_path / "a.pt", random.Random(0)
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(path).state
        except SamganError:
            refused += 1
        else:
            del loaded["format"]
            assert same(loaded, STATE)
    assert refused > 200  # the rest hit padding


@pytest.mark.parametrize("kind", ["random bytes", "first byte"])
def test_nothing_but_samgan_error_escapes(tmp_path, kind):
    path, draw = tmp_path / "a.pt", random.Random(1)
    for first in range(256):
        body = draw.randbytes(200) if kind == "random bytes" else b"ello, some text\n"
        path.write_bytes(bytes([first]) + body)
        with pytest.raises(SamganError, match="not a readable"):
            load_checkpoint(path)


FULL_DISK = """
import json, os, resource, signal, sys
from pathlib import Path
import torch
from samgan.runs import load_checkpoint, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1]) / "step-00000001.pt"
common = {"config": {}, "generator": {}, "ema_generator": None, "images_seen": 0}
save_checkpoint(path, {**common, "step": 1})
old, outcome = path.read_bytes(), []
for limit in (100, 50_000, 1_500_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for name in (path.name, "step-00000002.pt"):
        try:
            weights = [torch.ones(300_000), torch.ones(200_000)]
            save_checkpoint(path.with_name(name), {**common, "step": 2, "weights": weights})
            error = None
        except OSError as caught:
            error = caught.strerror
        outcome.append([error, path.read_bytes() == old, os.listdir(path.parent)])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps([load_checkpoint(path).step, outcome]))
"""


def test_no_space_left_keeps_the_old_checkpoint(tmp_path, run_script):
    (tmp_path / "checkpoints").mkdir()
    step, outcome = run_script(FULL_DISK, tmp_path / "checkpoints", folder=tmp_path)
    assert step == 1
    assert outcome == [["File too large", True, ["step-00000001.pt"]]] * 6


# ---- which one


def fill(run, steps):
    for step in steps:
        save_checkpoint(run.checkpoint_path(step), {**STATE, "step": step})


def test_newest_is_none_before_the_first(run):
    assert newest_checkpoint(run) is None
    with pytest.raises(SamganError, match=r"no (readable )?checkpoint"):
        choose_checkpoint(run, "newest")


def test_newest_passes_over_a_truncated_one_with_a_warning(run):
    fill(run, [5, 10, 100])
    path = run.checkpoint_path(100)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.warns(UserWarning, match=r"skipped a checkpoint: .*step-00000100\.pt"):
        found = newest_checkpoint(run)
    assert (found.path, found.step) == (run.checkpoint_path(10), 10)


def test_newest_takes_no_older_one_where_a_file_cannot_be_opened(run):
    """As with too many open files: nothing tells that it is damaged."""
    fill(run, [5, 10])
    path = run.checkpoint_path(10)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(SamganError, match=r"step-00000010\.pt cannot be opened \(Too many .*links\S*\): try again"):
        newest_checkpoint(run)


def test_newest_refuses_when_all_are_damaged(run):
    for step in (1, 2):
        run.checkpoint_path(step).write_bytes(b"torn")
    with (
        pytest.warns(UserWarning, match="skipped a") as warned,
        pytest.raises(SamganError, match="none of the 2"),
    ):
        newest_checkpoint(run)
    assert len(warned) == 2


def test_choose(run, tmp_path):
    fill(run, [1, 2, 3])
    with pytest.raises(SamganError, match="no snapshot yet with scores of its largest images"):
        choose_checkpoint(run, "best")
    record_best(run, run.checkpoint_path(2), "fid", 10.0)
    assert choose_checkpoint(run, "newest").step == 3
    assert choose_checkpoint(run, "best").step == 2
    assert choose_checkpoint(run, str(run.checkpoint_path(1))).step == 1
    with pytest.raises(SamganError, match="there is no checkpoint"):
        choose_checkpoint(run, str(tmp_path / "gone.pt"))


@pytest.mark.parametrize("order", list(itertools.permutations([3.0, 1.0, 2.0])))
def test_best_is_the_lowest_score(run, order):
    for step, value in enumerate(order):
        fill(run, [step])
        record_best(run, run.checkpoint_path(step), "fid", value)
    assert run.best() == Best(checkpoint=run.checkpoint_path(order.index(1.0)).name, score="fid", value=1.0)


def test_best_moves_on_when_its_file_is_gone(run):
    fill(run, [1, 2])
    record_best(run, run.checkpoint_path(1), "fid", 1.0)
    run.checkpoint_path(1).unlink()
    record_best(run, run.checkpoint_path(2), "fid", 5.0)
    assert run.best().checkpoint == "step-00000002.pt"


def test_best_by_another_score_gives_way(run):
    fill(run, [1, 2])
    record_best(run, run.checkpoint_path(1), "swd", 0.1)
    record_best(run, run.checkpoint_path(2), "quick_score", 9.0)
    assert run.best() == Best(checkpoint="step-00000002.pt", score="quick_score", value=9.0)


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_prune_keeps_the_newest_and_the_best(run, keep):
    fill(run, [1, 2, 3, 4])
    record_best(run, run.checkpoint_path(1), "fid", 1.0)
    torn = run.checkpoint_folder / ".step-00000004.pt.1.tmp"
    torn.write_bytes(b"torn")
    (run.path / ".samples.7.tmp").mkdir()  # what another command is writing
    (run.path / ".scores.json.7.tmp").write_bytes(b"half")
    prune_checkpoints(run, keep)
    assert [int(path.stem[5:]) for path in run.checkpoints()] == sorted({1, *range(max(1, 5 - keep), 5)})
    assert not torn.exists()
    assert (run.path / ".samples.7.tmp").exists()
    assert (run.path / ".scores.json.7.tmp").exists()
    assert run.best() is not None
