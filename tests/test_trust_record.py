"""Whatever somebody wrote into a document by hand, `samgan card` writes a card or says in one line what is wrong."""

import contextlib
import copy
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from samgan.commands.main import main
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.data.subset import subset
from samgan.networks import Generator
from samgan.runs import Run, Start, TrainedOn, describe_environment, save_checkpoint

BALANCE = Path(__file__).parents[1] / "results" / "balance" / "as-it-is" / "balance.json"
WRONG = (None, True, "x", "\ud800", -1, 10**400, float("nan"), [], [1], {}, {"x": 1})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 12, resolution=32)
    whole = prepare(folder / "images", folder / "data", resolution=32, holdout=0.3, workers=1)
    return subset(whole, folder / "few", images={"NORMAL": 5})


@pytest.fixture(scope="module")
def run(data, tiny_config, tmp_path_factory):
    start = Start("earlier", 12_000, TrainedOn("data", data.sha256, 9))
    environment = replace(describe_environment("cpu", TrainedOn("data", data.sha256, 9), start), commit="ab" * 20)
    run = Run.create(tmp_path_factory.mktemp("record") / "run", tiny_config, environment)
    torch.manual_seed(0)
    weights = Generator(tiny_config.network).state_dict()
    state = {"config": tiny_config.to_dict(), "step": 3, "images_seen": 12_000}
    save_checkpoint(run.checkpoint_path(3), {**state, "generator": weights, "ema_generator": weights})
    return run


@pytest.fixture(scope="module")
def documents(run, data):
    """One valid document of each kind, about no model and set in particular."""
    found = json.loads(BALANCE.read_text())
    documents = {"scores": found["scores"]["NORMAL"], "audit": found["audit"]["NORMAL"], "utility": found["utility"]}
    for document in documents.values():
        for name in {"generated", "models"} & set(document):
            document[name] = {"name": "run"} if name == "generated" else {}
        document["data"] = {**document["data"], "sha256": data.sha256}
    return documents


def paths(tree, depth=4):
    """Places in a tree of JSON: every key, and the first item of every list."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in items if depth else ():
        yield (key,)
        yield from ((key, *rest) for rest in paths(value, depth - 1))


def changed(tree, path, value):
    tree = copy.deepcopy(tree)
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return tree


def check(tmp_path, source, *options):
    """Run the command: it may succeed, or fail with one line; anything else it raises fails the test."""
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        status = main(["card", str(source), "--out", str(tmp_path / "card.md"), *map(str, options)])
    error = stream.getvalue()
    assert status in (0, 1, 2)
    assert error.count("\n") == (status > 0), error
    return status, error


def try_all(tmp_path, tree, path, *arguments, watched=lambda _: True):
    """Write every wrong value at every place of a document; returns how often the command failed."""
    failures = 0
    for place in filter(watched, paths(tree)):
        for value in WRONG:
            path.write_text(json.dumps(changed(tree, place, value)))
            failures += check(tmp_path, *arguments)[0] > 0
    return failures


@pytest.mark.parametrize("name", ["scores", "audit", "utility"])
def test_a_document_with_a_wrong_value_is_no_traceback(run, documents, tmp_path, monkeypatch, name):
    from samgan.trust import record

    opened = record.open_model(run.path)
    monkeypatch.setattr(record, "open_model", lambda _: opened)
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(documents[name]))
    assert check(tmp_path, run.path, f"--{name}", path) == (0, "")
    read = {"arms", "intervals", "notes", "skipped", "classes", "synthetic", "smallest", "seeds", "steps"}
    unread = read if name == "utility" else set()
    failures = try_all(
        tmp_path, documents[name], path, run.path, f"--{name}", path, watched=lambda p: p[0] not in unread
    )
    assert failures > 50


def test_an_environment_with_a_wrong_value_is_no_traceback(run, tmp_path):
    path = run.path / "environment.json"
    whole = path.read_text()
    failures = try_all(tmp_path, json.loads(whole), path, run.path)
    path.write_text(whole)
    assert failures > 50


def test_a_prepared_set_with_a_wrong_value_is_no_traceback(data, tmp_path):
    path = data.path / "dataset.json"
    whole = path.read_text()
    failures = try_all(tmp_path, json.loads(whole), path, data.path)
    path.write_text(whole)
    assert failures > 50


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff", b'{"schema": 99}', b'{"schema": "x"}'])
@pytest.mark.parametrize("name", ["scores", "audit", "utility"])
def test_what_is_no_document_is_refused(run, tmp_path, name, content):
    path = tmp_path / f"{name}.json"
    path.write_bytes(content)
    status, error = check(tmp_path, run.path, f"--{name}", path)
    assert status == 1
    assert f"{name}.json" in error


def test_the_message_names_the_file_the_field_and_the_remedy(run, documents, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({**documents["scores"], "ms_ssim_real": {"mean": "x"}}))
    status, error = check(tmp_path, run.path, "--scores", path)
    assert status == 1
    for words in (str(path), "Expected float, got str - at ms_ssim_real.mean", "samgan evaluate"):
        assert words in error
