"""A sweep does everything once, whatever stops it, in this process or on Ray."""

import contextlib
import dataclasses
import errno
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from samgan import api
from samgan.config import Config
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError, UsageError
from samgan.metrics import load_features
from samgan.metrics.feature_networks import NETWORKS
from samgan.metrics.load_features import Default
from samgan.runs import Collapse, Run
from samgan.scoring import Scores
from samgan.studies import Job, Resources, RowDocument, ScoredBy, Scoring, finished, run_sweep, sweep_ray
from samgan.studies.sweep import _fits
from samgan.studies.sweep_ray import cores_of_a_job
from samgan.studies.sweep_row import finished_rows
from samgan.studies.sweep_status import Status
from samgan.training import Interrupted

TINY = {
    "network": {"resolution": 32, "max_channels": 8},
    "training": {"batch_size": 4, "kimg": 0.04, "log_every_kimg": 0.008, "snapshot_every_kimg": 0.02},
}
HERE = Resources(device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 24, resolution=32)
    return prepare(folder / "images", folder / "data", resolution=32, workers=1)


@pytest.fixture
def no_features(monkeypatch):
    monkeypatch.setattr(load_features, "default_features", lambda shape: Default(None, "no weights here"))


def job(data, name="row", minutes=None, **training):
    config = Config().override(TINY).override({"training": training})
    return Job(name, config, str(data.path), data.sha256, minutes)


def forbidden(*_, **__):
    raise AssertionError("nothing is left to do")


def test_everything_is_done_once(data, tmp_path, no_features, monkeypatch):
    jobs = [job(data), job(data, seed=1), job(data, "other", learning_rate=0.001)]
    reported = []
    documents = run_sweep(jobs, tmp_path, Scoring(), HERE, report=reported.append)
    assert reported == [documents[:1], documents[:2], documents]
    assert [(found.name, found.seed) for found in documents] == [("row", 0), ("row", 1), ("other", 0)]
    for found, wanted in zip(documents, jobs, strict=True):
        assert found.key == wanted.key
        assert found.trained.config == wanted.config.to_dict()
        assert found.trained.kimg == 0.04
        assert found.trained.wall_minutes > 0
        assert found.scores.ms_ssim_generated.mean <= 1
        assert found.trained.curves["loss_generator"][-1][0] == 0.04
        path = tmp_path / "rows" / f"{wanted.key}.json"
        assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
        assert RowDocument.read(path) == found
    assert len({found.key for found in documents}) == 3
    monkeypatch.setattr(api, "train", forbidden)
    monkeypatch.setattr(api, "evaluate", forbidden)
    assert run_sweep(jobs, tmp_path, Scoring(), HERE) == documents


def test_another_way_to_score_trains_nothing_again(data, tmp_path, no_features, monkeypatch):
    (before,) = run_sweep([job(data)], tmp_path, Scoring(), HERE)
    monkeypatch.setattr(api, "train", forbidden)
    (after,) = run_sweep([job(data)], tmp_path, Scoring(count=8), HERE)
    assert (before.scores.count, after.scores.count) == (19, 8)


def test_rows_can_be_scored_by_the_papers_protocol(data, tmp_path, no_features, monkeypatch):
    (before,) = run_sweep([job(data)], tmp_path, Scoring(), HERE)
    (tree,) = (json.loads(path.read_text()) for path in (tmp_path / "rows").glob("*.json"))
    del tree["scoring"]["protocol"], tree["scores"]["floor_count"]  # rows from before there were two protocols
    assert RowDocument.from_dict(tree, "row.json") == before
    monkeypatch.setattr(api, "train", forbidden)
    assert not Scoring(protocol="paper").scored(before)
    (after,) = run_sweep([job(data)], tmp_path, Scoring(protocol="paper"), HERE)
    assert (after.scores.protocol, after.scores.count, after.scores.floor_count) == ("paper", 38, 19)
    assert Scoring(protocol="paper").scored(after)
    monkeypatch.undo()
    monkeypatch.setattr(load_features, "default_features", lambda shape: Default(None, "no weights here"))
    one = dataclasses.replace(job(data), score_at=(0.02,))
    (row,) = run_sweep([one], tmp_path / "parts", Scoring(protocol="paper"), HERE)
    (at,) = row.scored_at
    assert (at.kimg, at.scores.protocol, at.scores.floor_count) == (0.02, "paper", 19)
    assert row.scores.scores == after.scores.scores


def module_file(path, factor=1.0):
    """A module of features; what the file holds besides the module depends on its name."""

    class Thumbnails(torch.nn.Module):
        def forward(self, images):
            return factor * torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)

    images = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    program = torch.export.export(Thumbnails(), (images,), dynamic_shapes={"images": {0: torch.export.Dim("n")}})
    torch.export.save(program, path, extra_files={"name": path.name})
    return str(path)


def test_a_module_of_features_is_known_by_what_it_computes(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same = [module_file(tmp_path / name) for name in ("a.pt2", "b.pt2")]
        other = module_file(tmp_path / "c.pt2", 1.01)
    assert Path(same[0]).read_bytes() != Path(same[1]).read_bytes()
    first, second, third = (Scoring(name, None, 8, (1, 32, 32)) for name in (*same, other))
    row = RowDocument(name="row", seed=0, key="row-seed0", scoring=first.key)
    row = RowDocument.from_dict(json.loads(json.dumps(row.to_dict())), "row.json")
    assert second.scored(row)
    assert not third.scored(row)
    assert not Scoring(same[0], None, 9, (1, 32, 32)).scored(row)
    assert not Scoring(None, None, 8).scored(row)
    assert not first.scored(dataclasses.replace(row, scoring=ScoredBy(computes=first.key.computes)))
    assert not first.scored(dataclasses.replace(row, scoring=dataclasses.replace(first.key, computes=0)))


def test_a_named_network_is_known_by_its_weights(tmp_path, radiograph):
    assert Scoring("radiograph").key.weights_sha256 == radiograph
    (tmp_path / "other.pth").write_bytes(b"other weights")
    row = RowDocument(name="row", seed=0, key="row-seed0", scoring=Scoring("radiograph").key)
    assert Scoring("radiograph").scored(row)
    assert not Scoring("radiograph", str(tmp_path / "other.pth")).scored(row)
    assert not Scoring("inception").scored(row)


def test_rows_of_the_first_schema_knew_weights_of_the_inception_only():
    for features, given, expected in (
        ("inception", None, NETWORKS["inception"].sha256),
        ("inception", "ab" * 32, "ab" * 32),
        ([0.25, 0.5], None, None),
        (None, None, None),
    ):
        scoring = {"features": features, "inception_weights": given, "count": 8, "computes": 1}
        tree = {"schema": 1, "name": "row", "seed": 0, "key": "row-seed0", "scoring": scoring}
        assert RowDocument.from_dict(tree, "row.json").scoring.weights_sha256 == expected
    old = {"features": "inception", "inception_weights": None, "computes": Scoring().key.computes}
    row = RowDocument.from_dict({**tree, "scoring": old}, "row.json")
    assert Scoring("inception").scored(row)


def test_a_row_is_not_lost_to_a_way_of_scoring_that_fails(data, tmp_path, no_features):
    (before,) = run_sweep([job(data)], tmp_path, Scoring(), HERE)
    (after,) = run_sweep([job(data)], tmp_path, Scoring(count=1000), HERE)
    assert "--count 1000" in after.failed
    assert run_sweep([job(data)], tmp_path, Scoring(), HERE) == [before]


def test_a_row_whose_run_is_gone_is_not_trained_again_without_being_asked(data, tmp_path, no_features):
    (before,) = run_sweep([job(data)], tmp_path, Scoring(), HERE)
    shutil.rmtree(tmp_path / "runs")
    assert run_sweep([job(data)], tmp_path, Scoring(), HERE) == [before]
    for folder in ([], ["runs", job(data).key]):  # all of it, and what is left where checkpoints were cleared away
        if folder:
            run = Run(tmp_path.joinpath(*folder))
            run.path.mkdir(parents=True)
            (run.path / "config.json").write_text("{}")
        with pytest.raises(SamganError, match=f"{job(data).key}.json was made with other .*--count"):
            run_sweep([job(data)], tmp_path, Scoring(count=8), HERE)


def test_a_run_that_ended_at_its_alarm_is_finished_only_if_that_was_asked_for(data, tmp_path, no_features, monkeypatch):
    def alarm(stats):
        lines = [line for line in stats if line["kind"] == "scores"]
        return Collapse(lines[0]["step"], lines[0]["images_seen"], 1.0, "made up") if lines else None

    for module in ("samgan.studies.sweep", "samgan.runs.collapse"):
        monkeypatch.setattr(f"{module}.find_collapse", alarm)
    (ended,) = run_sweep([job(data)], tmp_path, Scoring(), HERE, on_collapse="stop")
    assert ended.trained.kimg == 0.02
    assert ended.scores
    assert ended.trained.ended_early
    assert finished(job(data), tmp_path, Scoring(), "stop") == ended
    assert finished(job(data), tmp_path, Scoring(), "warn") is None
    (whole,) = run_sweep([job(data)], tmp_path, Scoring(), HERE, on_collapse="warn")
    assert (whole.trained.kimg, whole.on_collapse) == (0.04, "warn")
    assert not whole.trained.ended_early
    assert finished(job(data), tmp_path, Scoring(), "stop") == whole
    (tmp_path / "rows" / f"{job(data).key}.json").unlink()
    (trained,) = run_sweep([job(data)], tmp_path, Scoring(), HERE, on_collapse="stop")
    assert not trained.trained.ended_early, "it was trained to its end before"


def test_a_job_is_scored_on_its_way_and_trains_as_it_would_without(data, tmp_path, no_features, capsys):
    (plain,) = run_sweep([job(data)], tmp_path / "plain", Scoring(), HERE)
    one = dataclasses.replace(job(data), score_at=(0.012, 0.024))
    assert one.key == plain.key
    (row,) = run_sweep([one], tmp_path / "parts", Scoring(), HERE)
    assert os.name == "nt" or (tmp_path / "parts").stat().st_mode & 0o777 == 0o700  # its runs show real images
    assert row.scores == plain.scores
    assert [(at.kimg, at.scores.count) for at in row.scored_at] == [
        (0.012, row.scores.count),
        (0.024, row.scores.count),
    ]
    assert row.scored_at[0].scores.scores != row.scored_at[1].scores.scores != row.scores.scores
    assert row.trained.kimg == 0.04
    path = tmp_path / "parts" / "rows" / f"{one.key}.json"
    assert RowDocument.read(path) == row

    path.unlink()  # as if it had been killed before the row was written
    assert run_sweep([one], tmp_path / "parts", Scoring(), HERE) == [row]
    path.unlink()
    shutil.rmtree(tmp_path / "parts" / "runs" / one.key / "scores-0.012")
    (less,) = run_sweep([one], tmp_path / "parts", Scoring(), HERE)
    assert less.scored_at == row.scored_at[1:]
    assert "has passed 0.012 kimg, and cannot be scored there any more" in capsys.readouterr().err
    (other,) = run_sweep([one], tmp_path / "parts", Scoring(count=10), HERE)
    assert other.scored_at == (), "scores of other numbers of images are not mixed"
    assert f"{one.key} has no scores at 0.012, 0.024 kimg" in capsys.readouterr().err
    run_sweep([one], tmp_path / "plain", Scoring(), HERE)  # asked for when it was done
    assert f"{one.key} has no scores at 0.012, 0.024 kimg" in capsys.readouterr().err


def test_a_run_that_stands_at_a_length_is_scored_there_in_the_way_that_is_asked_for_now(data, tmp_path, no_features):
    one = dataclasses.replace(job(data), score_at=(0.012,))
    short = one.config.override({"training.kimg": 0.012})
    run = api.train(short, data, tmp_path / "runs" / one.key, quiet=True)
    api.evaluate(run.path, data, count=8, out=run.path / "scores-0.012")  # by an earlier call
    (row,) = run_sweep([one], tmp_path, Scoring(count=10), HERE)
    assert [(at.kimg, at.scores.count) for at in row.scored_at] == [(0.012, 10)]


def test_scores_on_the_way_that_were_computed_in_an_older_way_are_not_taken(data, tmp_path, no_features, monkeypatch):
    one = dataclasses.replace(job(data), score_at=(0.012,))
    (first,) = run_sweep([one], tmp_path, Scoring(), HERE)
    assert len(first.scored_at) == 1
    for module in ("sweep", "sweep_job"):
        monkeypatch.setattr(f"samgan.studies.{module}.SCORING", 2)
    (again,) = run_sweep([one], tmp_path, Scoring(), HERE)
    assert again.scoring.computes == 2
    assert again.scored_at == ()


def test_a_run_that_fails_on_its_way_keeps_what_it_had_trained_and_scored(data, tmp_path, no_features, monkeypatch):
    train = api.train

    def diverges(config, prepared, out, **more):
        run = train(config.override({"training.kimg": 0.012}), prepared, out, **more)
        if config.training.kimg > 0.012:
            raise SamganError("loss is nan")
        return run

    monkeypatch.setattr(api, "train", diverges)
    (row,) = run_sweep([dataclasses.replace(job(data), score_at=(0.012,))], tmp_path, Scoring(), HERE)
    assert (row.failed, row.scores, row.trained.kimg) == ("loss is nan", None, 0.012)
    assert [at.kimg for at in row.scored_at] == [0.012]
    assert row.trained.config["training"]["kimg"] == job(data).config.training.kimg, "that of the job, not of a part"
    assert finished_rows([row]) == []


def test_scores_fit_by_the_name_of_their_features(data, tmp_path, no_features):
    run = api.train(job(data).config, data, tmp_path / "run", quiet=True)
    scores, _ = api.evaluate(run.path, data, count=8, features="radiograph")
    assert _fits(scores, Scoring(features="radiograph", count=8))
    assert _fits(scores, Scoring())
    assert not _fits(scores, Scoring(features="radiograph", count=9))
    assert not _fits(scores, Scoring(features="lite0"))
    plain, _ = api.evaluate(run.path, data, count=8)
    assert not _fits(plain, Scoring(features="radiograph"))
    named = dataclasses.replace(scores, features=dataclasses.replace(scores.features, name="mine.pt2 (sha256:0123)"))
    assert _fits(named, Scoring(features="/somewhere/mine.pt2"))


def test_a_row_keeps_scores_by_second_features(data, tmp_path, no_features):
    (row,) = run_sweep([job(data)], tmp_path, Scoring(second_features="radiograph"), HERE)
    assert row.scores.features is None
    assert row.second_scores.features.name == "radiograph"
    assert row.second_scores.scores["frechet"].value > 0
    assert RowDocument.read(tmp_path / "rows" / f"{row.key}.json") == row
    assert finished(job(data), tmp_path, Scoring()) == row, "it was scored in this way, too"
    one = dataclasses.replace(job(data, "on-the-way"), score_at=(0.012,))
    (row,) = run_sweep([one], tmp_path, Scoring(second_features="radiograph"), HERE)
    (at,) = row.scored_at
    assert (at.scores.features, at.second_scores.features.name) == (None, "radiograph")
    assert at.second_scores.scores["frechet"].value != row.second_scores.scores["frechet"].value
    path = tmp_path / "rows" / f"{row.key}.json"
    assert RowDocument.read(path) == row
    # As if an earlier call had scored it by other second features: these are not mixed.
    document = tmp_path / "runs" / row.key / "second-scores-0.012" / "scores.json"
    features = dataclasses.replace(at.second_scores.features, sha256="0" * 64)
    dataclasses.replace(at.second_scores, features=features).write(document)
    path.unlink()
    (row,) = run_sweep([one], tmp_path, Scoring(second_features="radiograph"), HERE)
    assert row.scored_at == (dataclasses.replace(at, second_scores=None),)
    assert row.second_scores


def test_what_goes_wrong_in_one_row_ends_that_row(data, tmp_path, no_features, monkeypatch):
    train = api.train

    wrong = {
        "bad": RuntimeError("CUDA out of memory.\nTried to allocate"),
        "gone": OSError(errno.EIO, "Input/output error"),
        "full": OSError(errno.ENOSPC, "No space left on device"),
    }

    def fails(config, prepared, out, **more):
        if error := wrong.get(Path(out).name.split("-")[0]):
            raise error
        return train(config, prepared, out, **more)

    monkeypatch.setattr(api, "train", fails)
    names = ("bad", "gone", "good")
    bad, gone, good = run_sweep([job(data, name) for name in names], tmp_path, Scoring(), HERE)
    assert bad.failed == "RuntimeError: CUDA out of memory."
    assert gone.failed == "OSError: [Errno 5] Input/output error"
    assert good.scores
    with pytest.raises(OSError, match="No space left"):  # no row could be written
        run_sweep([job(data, "full")], tmp_path, Scoring(), HERE)


def test_a_set_that_was_prepared_again_does_not_get_under_the_key_of_the_one_before(tmp_path, no_features, monkeypatch):
    write_phantoms(tmp_path / "images", 16, resolution=32)
    before = prepare(tmp_path / "images", tmp_path / "set", resolution=32, workers=1)
    jobs = [job(before, kimg=0.012), job(before, "other", kimg=0.012)]

    def prepare_again(rows):
        if len(rows) == 1:
            shutil.rmtree(before.path)
            prepare(tmp_path / "images", before.path, resolution=32, holdout=0.4, workers=1)

    one, other = run_sweep(jobs, tmp_path / "sweep", Scoring(), HERE, report=prepare_again)
    assert one.scores.data.sha256 == before.sha256
    assert other.failed.startswith(f"{before.path}: expected the set {before.sha256[:12]} that this sweep began with")
    path = tmp_path / "sweep" / "rows" / f"{one.key}.json"
    wrong = dataclasses.replace(one.scores.data, sha256="ab" * 32)
    dataclasses.replace(one, scores=dataclasses.replace(one.scores, data=wrong)).write(path)
    with pytest.raises(SamganError, match=rf"found those of {'ab' * 6}; delete this file and .*{one.key}"):
        finished(jobs[0], tmp_path / "sweep", Scoring())


def test_a_lost_workers_lock_is_waited_for(data, tmp_path, no_features, monkeypatch):
    run_sweep([job(data)], tmp_path, Scoring(), HERE)
    run = Run(tmp_path / "runs" / job(data).key)
    (tmp_path / "rows" / f"{job(data).key}.json").unlink()
    lock = contextlib.ExitStack()
    lock.enter_context(run.locked())
    monkeypatch.setattr("samgan.studies.sweep.time.sleep", lambda seconds: lock.close())
    (document,) = run_sweep([job(data)], tmp_path, Scoring(), HERE)
    assert document.scores


@pytest.mark.parametrize(
    ("resources", "cores"),
    [
        (Resources(), 32),
        (Resources(cores=4), 4),
        (Resources(gpus=1.0), 8),
        (Resources(gpus=0.5), 4),
        (Resources(gpus=2.0), 16),
    ],
)
def test_a_job_takes_what_one_machine_has(resources, cores):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 32.0}},
        {"Alive": False, "Resources": {"CPU": 256.0, "GPU": 16.0}},
    ]
    assert cores_of_a_job(nodes, resources) == cores
    with pytest.raises(UsageError, match="20 CPU and 1 GPU of one machine, but the machines have 16 CPU and 2 GPU, 32"):
        cores_of_a_job(nodes, Resources(cores=20, gpus=1.0))


def test_lost_machines_of_a_cluster_are_named_once_and_a_lost_head_ends_the_sweep(monkeypatch, capsys):
    nodes = [{"Alive": name != "b", "NodeID": name, "NodeManagerAddress": name} for name in "ab"]
    left = []
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        context = SimpleNamespace(gcs_address=address)
        ray = SimpleNamespace(get_runtime_context=lambda: context, nodes=lambda: nodes, shutdown=lambda: left.append(1))
        health = sweep_ray._Health(ray)
        health.look()
        health.look()
        health.close()
    assert capsys.readouterr().err == "samgan: b is lost from the Ray cluster; its jobs go on elsewhere\n"
    assert left == [1]
    health.look()  # it may come back
    monkeypatch.setattr(sweep_ray, "SILENCE", 0.0)
    with pytest.raises(SamganError, match=f"head of the Ray cluster, {address}, is lost .*the same command goes on"):
        health.look()
    health.close()
    assert left == [1], "Ray would wait for the head, and end the process"


def test_a_job_that_runs_out_of_memory_on_ray_is_not_started_again_without_end(monkeypatch):
    class OutOfMemoryError(Exception):
        pass

    found = []
    ray = SimpleNamespace(exceptions=SimpleNamespace(OutOfMemoryError=OutOfMemoryError))
    ray.init = lambda **_: found.append(os.environ["RAY_task_oom_retries"])  # noqa: SIM112 (so Ray spells it)
    error = OutOfMemoryError("Task was killed.\nSet RAY_memory_usage_threshold")
    assert sweep_ray._reason(ray, error).startswith("out of memory on its machine; ")
    assert sweep_ray._reason(ray, OSError("first\nlast")) == "last"
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setitem(sys.modules, "ray", ray)
    sweep_ray._start(Resources(ray="local"))
    os.environ["RAY_task_oom_retries"] = "7"  # noqa: SIM112 (so Ray spells it)
    sweep_ray._start(Resources(ray="local"))
    assert found == ["3", "7"]


def test_a_stop_from_outside_survives_pickling_by_a_worker():
    told = pickle.loads(pickle.dumps(Interrupted(15, "stopped by SIGTERM")))
    assert (told.signal_number, str(told)) == (15, "stopped by SIGTERM")


def test_a_row_of_another_version_or_edited_by_hand_is_refused_in_one_line(data, tmp_path, no_features):
    run_sweep([job(data)], tmp_path, Scoring(), HERE)
    path = tmp_path / "rows" / f"{job(data).key}.json"
    text = path.read_text()
    whole = json.loads(text)
    trained = {**whole["trained"], "kimg": "all"}
    for damaged, words in (
        (text[:-20], "is not valid JSON"),
        ("[]", "expected a row of a sweep (a JSON object), found list"),
        (json.dumps({**whole, "schema": 99}), "found schema 99; use the version of samgan that wrote it"),
        (json.dumps({**whole, "trained": trained}), "Expected `float`, got `str` - at trained.kimg".replace("`", "")),
        (json.dumps({"seed": 0}), "is not a row of a sweep that this version of samgan can read: KeyError: 'scoring'"),
        (json.dumps({**whole, "key": "other-seed0-01234567"}), ", found other-seed0-01234567; rename the file"),
    ):
        path.write_text(damaged)
        with pytest.raises(SamganError) as caught:
            run_sweep([job(data)], tmp_path, Scoring(), HERE)
        assert str(caught.value).startswith(str(path))
        assert words in str(caught.value)
        assert "delet" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert path.read_text() == damaged


def test_a_row_names_the_schema_of_the_scores_in_it():
    """A change of the scores' schema changes that of the row."""
    assert RowDocument.SCORES_SCHEMA == Scores.SCHEMA, "raise RowDocument.SCHEMA too, and upgrade its scores"


@pytest.mark.parametrize(
    "change", [{"preset": "a label"}, {"training.log_every_kimg": 0.1}, {"training.snapshot_every_kimg": 0.01}]
)
def test_a_key_does_not_depend_on_labels_and_logs(data, change):
    own = job(data)
    assert dataclasses.replace(own, config=own.config.override(change)).key == own.key


def test_a_key_changes_with_what_training_computes(data, monkeypatch):
    before = job(data).key
    monkeypatch.setattr("samgan.studies.sweep_job.ARITHMETIC", -1)
    assert job(data).key != before


def test_a_key_stays_when_a_setting_comes_or_goes_whose_default_changes_nothing(data, monkeypatch):
    before = job(data).key
    computed = Config.computed
    monkeypatch.setattr(Config, "computed", lambda config: {**computed(config), "new": {"setting": "off"}})
    assert job(data).key == before


@pytest.mark.parametrize("change", [{"seed": 7}, {"learning_rate": 0.1}, {"kimg": 0.05}])
def test_a_key_tells_configurations_apart(data, change):
    assert job(data, **change).key != job(data).key
    assert job(data, minutes=1.0).key != job(data).key
    assert Job("row", job(data).config, str(data.path), "0" * 64, None).key != job(data).key
    assert Job("row", job(data).config, "elsewhere", data.sha256, None).key == job(data).key


def test_a_job_that_fails_is_reported_kept_and_tried_again(data, tmp_path, no_features, monkeypatch):
    jobs = [job(data, "bad"), job(data, "good")]
    train = api.train

    def fails(config, prepared, out, **more):
        if Path(out).name.startswith("bad"):
            raise SamganError("loss is nan")
        return train(config, prepared, out, **more)

    monkeypatch.setattr(api, "train", fails)
    bad, good = run_sweep(jobs, tmp_path, Scoring(), HERE)
    assert (bad.failed, bad.failures) == ("loss is nan", 1)
    assert good.scores
    bad, good = run_sweep(jobs, tmp_path, Scoring(), HERE)
    assert (bad.failures, good.failures) == (2, 0)
    assert RowDocument.read(tmp_path / "rows" / f"{bad.key}.json") == bad
    monkeypatch.setattr(api, "train", train)
    bad, _ = run_sweep(jobs, tmp_path, Scoring(), HERE)
    assert (bad.failed, bad.failures) == (None, 0)
    assert bad.scores


SCRIPT = """
import json, signal, sys
from samgan.config import Config
from samgan.data import PreparedSet
from samgan.studies.sweep import Job, Resources, Scoring, run_sweep
from samgan import api

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # as every command does
data, out, ray = PreparedSet.open(sys.argv[1]), sys.argv[2], sys.argv[3]
from pathlib import Path
jobs = [
    Job(name, Config().override(json.loads(sys.argv[4])), str(data.path), data.sha256, None) for name in sys.argv[5:]
]
resources = Resources(ray=None if ray == "none" else ray, cores=1, device="cpu")
documents = run_sweep(jobs, Path(out), Scoring(), resources)
print(json.dumps([document.to_dict() for document in documents]))
"""


def sweep(folder, data, out, ray, settings, *names):
    """A sweep in a process of its own, without the weights of any features."""
    folder.mkdir(exist_ok=True)
    script = folder / "sweep.py"
    script.write_text(SCRIPT)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "TORCH_HOME": str(folder),
        "https_proxy": "http://127.0.0.1:9",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, str(script), str(data.path), str(out), ray, json.dumps(settings), *names]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def documents_of(process):
    output, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    return json.loads(output.splitlines()[-1])


def wait_for(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


LONGER = {**TINY, "training": {**TINY["training"], "kimg": 0.8, "snapshot_every_kimg": 0.04}}


def checkpoints(out):
    return sorted(out.glob("runs/*/checkpoints/step-*.pt"))


@pytest.mark.slow
def test_a_sweep_that_was_killed_continues_to_the_same_result(data, tmp_path, no_features):
    out = tmp_path / "killed"
    process = sweep(tmp_path / "scripts", data, out, "none", LONGER, "row")
    wait_for(lambda: checkpoints(out))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()
    assert not list(out.glob("rows/*.json"))
    jobs = [Job("row", Config().override(LONGER), str(data.path), data.sha256, None)]
    reached = checkpoints(out)[-1].name
    assert reached < "step-00000200.pt"
    (resumed,) = run_sweep(jobs, out, Scoring(), Resources(cores=1, device="cpu"))
    (whole,) = run_sweep(jobs, tmp_path / "whole", Scoring(), Resources(cores=1, device="cpu"))
    assert resumed.scores == whole.scores


def worker_of(key):
    """Process number of the Ray worker that runs a task of this name."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::" + key.encode()):
                return int(path.parent.name)
        except OSError:
            continue
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc")
def test_two_workers_of_ray_share_a_sweep_and_a_lost_one_is_replaced(data, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'samgan[sweep]'")
    assert ray.__version__
    out = tmp_path / "out"
    process = sweep(tmp_path / "scripts", data, out, "local", LONGER, "first", "second")
    job = Job("first", Config().override(LONGER), str(data.path), data.sha256, None)
    wait_for(lambda: list((out / "runs" / job.key).glob("checkpoints/step-*.pt")))
    lost = wait_for(lambda: worker_of(job.key), 10)
    os.kill(lost, signal.SIGKILL)
    if len(os.sched_getaffinity(0)) > 1:
        assert worker_of("second")
    first, second = documents_of(process)
    assert (first["name"], second["name"]) == ("first", "second")
    assert first["trained"]["kimg"] == second["trained"]["kimg"] == 0.8
    run = Run(out / "runs" / job.key)
    assert run.last_step() == 200
    # Equal seeds, equal weights: the lost worker left no trace in the result.
    assert first["scores"]["generated"]["model_sha256"] == second["scores"]["generated"]["model_sha256"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 1), (signal.SIGINT, -signal.SIGINT)])
def test_a_sweep_on_ray_that_is_asked_to_end_saves_its_jobs_and_leaves_no_worker(data, tmp_path, number, status):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'samgan[sweep]'")
    training = {**TINY["training"], "kimg": 80.0, "snapshot_every_kimg": 80.0, "log_every_kimg": 0.004}
    settings, out = {**TINY, "training": training}, tmp_path / "out"
    process = sweep(tmp_path / "scripts", data, out, "local", settings, "asked", "later")
    job = Job("asked", Config().override(settings), str(data.path), data.sha256, None)
    log = out / "runs" / job.key / "stats.jsonl"
    wait_for(lambda: log.is_file() and log.stat().st_size)
    process.send_signal(number)
    error = process.communicate(timeout=90)[1]
    assert process.returncode == status, error  # Ray makes it 1, whatever the script's own was
    assert "SIGTERM" not in error  # nor a trace of Ray's
    wait_for(lambda: worker_of(job.key) is None, 10)
    run = Run(out / "runs" / job.key)
    assert run.last_step() > 0
    assert [path.name for path in run.checkpoints()] == [f"step-{run.last_step():08d}.pt"]


def test_a_missing_ray_cluster_is_reported_in_one_line(data, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'samgan[sweep]'")
    process = sweep(tmp_path / "scripts", data, tmp_path / "out", "nonsense://1", TINY, "row")
    _, error = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "SamganError: --ray nonsense://1: cannot reach a Ray cluster there (" in error.splitlines()[-1]


def test_without_ray_the_extra_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"samgan\[sweep\]"):
        run_sweep([job(data)], tmp_path, Scoring(), Resources(ray="local"))


def test_a_sweep_keeps_others_out_of_its_folder(data, tmp_path):
    with Run(tmp_path).locked(), pytest.raises(SamganError, match="in use by another sweep"):
        run_sweep([job(data)], tmp_path, Scoring(), HERE)


def test_the_status_shows_how_far_each_job_is_and_when_the_rest_will_be_done(data, tmp_path):
    jobs = [job(data, "done", minutes=20.0), job(data, "half", minutes=20.0), job(data, "waiting", minutes=20.0)]
    run = Run(tmp_path / "runs" / jobs[1].key)
    run.path.mkdir(parents=True)
    line = {"kind": "train", "step": 3, "images_seen": 12, "wall_seconds": 600.0, "images_per_second": 50.0}
    run.log({**line, "loss_discriminator": 1.0, "loss_generator": 2.0})
    done = RowDocument(name="done", seed=0, key=jobs[0].key, scoring=Scoring().key)
    status = Status(jobs, tmp_path, {jobs[0].key: done, jobs[1].key: None, jobs[2].key: None}, 1)
    table, summary = status.table()
    assert summary == "1 of 3 jobs done, 1 running, about 30 minutes left"
    (cells,) = zip(*(column.cells for column in table.columns), strict=True)
    assert cells == (jobs[1].key, "0.0", "10.0", "50.0", "1.000", "2.000", "50%", "10")
