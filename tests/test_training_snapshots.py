"""Snapshots scored by a spare core while training goes on leave the same files as those that training waits for."""

import os
import threading
import time

import numpy as np
import pytest
import torch

import samgan.training.loop
import samgan.training.snapshots
from samgan.devices import make_fabric
from samgan.errors import SamganError
from samgan.runs import Run
from samgan.training import Options, Scorer, train_loop
from samgan.training.snapshots import spare_core

CPU = torch.device("cpu")


@pytest.fixture
def fabric():
    return make_fabric("cpu")


@pytest.fixture(autouse=True)
def a_core_is_spare(monkeypatch):
    monkeypatch.setattr(samgan.training.snapshots, "spare_core", lambda device: True)
    monkeypatch.setattr(samgan.training.snapshots, "SCORED_IMAGES", 64)


@pytest.fixture
def taken(monkeypatch):
    """The steps taken so far, as training takes them."""
    steps, original = [], samgan.training.loop.train_step

    def counted(state, *arguments):
        logged = original(state, *arguments)
        steps.append(state.step)
        return logged

    monkeypatch.setattr(samgan.training.loop, "train_step", counted)
    return steps


def after_step(taken, step):
    """A scorer that waits until training has taken this step: it would wait for ever if training waited for it."""

    def score(fake, labels):
        until = time.monotonic() + 60
        while (not taken or taken[-1] < step) and time.monotonic() < until:
            time.sleep(0.001)
        return {"swd": float(fake.mean()), "after": taken[-1]}

    return Scorer("swd", score)


class Told:
    """A logger that keeps what it is told, and by which thread."""

    def __init__(self):
        self.calls, self.threads = [], set()

    def scalars(self, images_seen, values):
        self.threads.add(threading.get_ident())
        timed = ("wall_seconds", "images_per_second")
        self.calls.append((images_seen, {key: value for key, value in values.items() if key not in timed}))

    def image(self, name, images_seen, pixels, description):
        self.threads.add(threading.get_ident())
        self.calls.append((images_seen, name, pixels.tobytes()))

    def close(self, finished):
        self.threads.add(threading.get_ident())
        self.calls.append(finished)


@pytest.mark.parametrize("classes", [None, 3])
def test_both_ways_leave_the_same_files(tiny_config, images, tmp_path, fabric, classes):
    config = tiny_config.override({"network.num_classes": classes or 0, "training.keep_checkpoints": 1})
    labels = np.arange(len(images)) % 3 if classes else None

    def score(fake, labels):
        time.sleep(0.02)  # steps are taken meanwhile
        shown = {} if labels is None else {"of 2": {"b": float(fake[labels == 2].mean())}}
        return {"swd": abs(float(fake.mean()) - 127), **shown}

    runs, told = {}, {}
    for at_once in (True, False):
        run, logger = Run.create(tmp_path / str(at_once), config), Told()
        options = Options(labels=labels, scorer=Scorer("swd", score), at_once=at_once, loggers=[logger], quiet=True)
        train_loop(config, images, run, fabric, options)
        runs[at_once], told[at_once] = run, logger
    files = [
        {path.relative_to(run.path): path.read_bytes() for path in run.path.rglob("*.[pj][tns]*") if path.is_file()}
        for run in runs.values()
    ]
    names = {path.name for path in files[0]}
    assert names >= {"best.json", "step-00000010.pt", "kimg-000000.016.png", "kimg-000000.040.png"}
    for content in files:
        for path in [path for path in content if path.name in ("stats.jsonl", "environment.json")]:
            del content[path]
    assert files[0] == files[1]
    timed = ("wall_seconds", "images_per_second")
    lines = [[{k: v for k, v in line.items() if k not in timed} for line in run.stats()] for run in runs.values()]
    assert lines[0] == lines[1]
    assert sum(line["kind"] == "scores" for line in lines[0]) == 3
    assert len(told[True].calls) == len(told[False].calls) == 5 + 3 + 3 + 1
    assert all(call in told[True].calls for call in told[False].calls)
    assert told[False].threads == {threading.get_ident()}


def test_training_goes_on_and_the_snapshot_is_finished_before_the_next(
    tiny_config, images, tmp_path, fabric, taken, monkeypatch
):
    run, before = Run.create(tmp_path / "run", tiny_config), []
    original = samgan.training.snapshots.save_checkpoint

    def seen(path, state):
        before.append([len(run.grids()), sum(line["kind"] == "scores" for line in run.stats())])
        original(path, state)

    monkeypatch.setattr(samgan.training.snapshots, "save_checkpoint", seen)
    # The snapshot of step 4 is scored after step 7, when no line of the log is due before that of step 8.
    train_loop(tiny_config, images, run, fabric, Options(scorer=after_step(taken, 7), quiet=True))
    assert before == [[0, 0], [1, 1], [2, 2]]
    scores = [line for line in run.stats() if line["kind"] == "scores"]
    assert scores[0]["after"] >= 7
    assert [line["step"] for line in scores] == [4, 8, 10]


def test_an_error_of_training_does_not_lose_the_snapshot_before(
    tiny_config, images, tmp_path, fabric, taken, monkeypatch
):
    counted = samgan.training.loop.train_step

    def step_7_is_bad(state, *arguments):
        logged = counted(state, *arguments)
        return {**logged, "loss_generator": torch.tensor(float("nan"))} if state.step == 7 else logged

    monkeypatch.setattr(samgan.training.loop, "train_step", step_7_is_bad)
    run = Run.create(tmp_path / "run", tiny_config.override({"training.log_every_kimg": 0.028}))
    with pytest.raises(SamganError, match="step 7: loss_generator is nan"):
        train_loop(run.config, images, run, fabric, Options(scorer=after_step(taken, 7), quiet=True))
    assert [path.name for path in run.checkpoints()] == ["step-00000004.pt"]
    assert run.best().checkpoint == "step-00000004.pt"
    assert run.grid_path(16).is_file()


def test_an_error_of_the_scorer_ends_the_run(tiny_config, images, tmp_path, fabric):
    def refuse(fake, labels):
        raise SamganError("cannot score")

    run = Run.create(tmp_path / "run", tiny_config)
    with pytest.raises(SamganError, match="cannot score"):
        train_loop(tiny_config, images, run, fabric, Options(scorer=Scorer("swd", refuse), quiet=True))
    assert [path.name for path in run.checkpoints()] == ["step-00000004.pt"]
    assert run.grids() == []


def test_a_watch_ends_the_run_when_it_knows(tiny_config, images, tmp_path, fabric, taken):
    run = Run.create(tmp_path / "run", tiny_config)
    options = Options(scorer=after_step(taken, 5), watch=lambda: True, quiet=True)
    state = train_loop(tiny_config, images, run, fabric, options)
    assert state.step in (6, 8)
    assert [line["step"] for line in run.stats() if line["kind"] == "scores"] == [4, state.step]
    assert run.grid_path(state.images_seen).is_file()


def test_a_watch_ends_a_run_that_was_cut_off_there(tiny_config, images, tmp_path, fabric):
    run, kwargs = Run.create(tmp_path / "run", tiny_config), {"watch": lambda: True, "at_once": True, "quiet": True}
    assert train_loop(tiny_config, images, run, fabric, Options(**kwargs)).step == 4
    run.grid_path(16).unlink()
    assert train_loop(tiny_config, images, run, fabric, Options(resume=True, **kwargs)).step == 4
    assert run.grid_path(16).is_file()


def test_scores_take_one_thread_and_training_keeps_its_own(tiny_config, images, tmp_path, fabric):
    seen = []
    scorer = Scorer("swd", lambda fake, labels: seen.append(torch.get_num_threads()) or {"swd": 1.0})
    run = Run.create(tmp_path / "run", tiny_config)
    try:
        torch.set_num_threads(3)
        train_loop(tiny_config, images, run, fabric, Options(scorer=scorer, quiet=True))
        other = []
        thread = threading.Thread(target=lambda: other.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert seen == [1, 1, 1]
    assert other == [3]


@pytest.mark.parametrize(
    ("cores", "threads", "processes", "device", "spare"),
    [
        (1, 1, 1, "cpu", False),
        (2, 1, 1, "cpu", True),
        (2, 2, 1, "cpu", False),
        (2, 1, 2, "cpu", False),
        (1, 1, 1, "cuda", False),
        (8, 8, 1, "cuda", True),
        (8, 8, 8, "cuda", False),
    ],
)
def test_a_core_is_spare_if_training_leaves_one(monkeypatch, cores, threads, processes, device, spare):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(samgan.training.snapshots, "world_size", lambda: processes)
    assert spare_core(torch.device(device)) == spare
