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
from samgan.data import SetInfo, prepare
from samgan.data.phantom import write_phantoms
from samgan.data.subset import subset
from samgan.errors import SamganError
from samgan.networks import Generator
from samgan.runs import Run, Start, TrainedOn, describe_environment, save_checkpoint
from samgan.scoring import Scores
from samgan.trust import AuditDocument
from samgan.trust.utility_document import UtilityDocument

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


def paths(tree, depth=3):
    """Places in a tree of JSON and what is there: every key, and the first item of every list."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in items if depth else ():
        yield (key,), value
        yield from (((key, *rest), there) for rest, there in paths(value, depth - 1))


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


def try_all(tmp_path, tree, path, read, *arguments):
    """Write every wrong value at every place of a document; `read` refuses it, or the command gets it."""
    refusals = []
    for place, there in paths(tree):
        for value in WRONG:
            if value in ("x", -1) and type(value) is type(there):
                continue  # another value of the same kind
            path.write_text(json.dumps(changed(tree, place, value)))
            try:
                read()
            except SamganError as error:
                refusals.append(str(error))
            else:
                check(tmp_path, *arguments)
    assert not [message for message in refusals if "\n" in message or str(path.parent) not in message]
    return len(refusals)


@pytest.mark.parametrize(("name", "kind"), [("scores", Scores), ("audit", AuditDocument), ("utility", UtilityDocument)])
def test_a_document_with_a_wrong_value_is_no_traceback(run, documents, tmp_path, monkeypatch, name, kind):
    from samgan.trust import record

    opened = record.open_model(run.path)
    monkeypatch.setattr(record, "open_model", lambda _, checkpoint: opened)
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(documents[name]))
    assert check(tmp_path, run.path, f"--{name}", path) == (0, "")
    tree = documents[name]
    if name == "utility":  # of many alike, one is enough
        tree = {**tree, "differences": tree["differences"][:1]}
        tree |= {key: {"real": tree[key]["real"]} for key in ("arms", "intervals")}
    assert try_all(tmp_path, tree, path, lambda: kind.read(path), run.path, f"--{name}", path) > 50
    path.write_text(json.dumps({**tree, "data": [1]}))
    assert check(tmp_path, run.path, f"--{name}", path)[0] == 1


def test_an_environment_with_a_wrong_value_is_no_traceback(run, tmp_path):
    path = run.path / "environment.json"
    whole = path.read_text()
    refused = try_all(tmp_path, json.loads(whole), path, lambda: run.environment, run.path)
    path.write_text(json.dumps({**json.loads(whole), "packages": 3}))
    status, _ = check(tmp_path, run.path)
    path.write_text(whole)
    assert refused > 50
    assert status == 1


def test_a_prepared_set_with_a_wrong_value_is_no_traceback(data, tmp_path):
    path = data.path / "dataset.json"
    whole = path.read_text()
    refused = try_all(tmp_path, json.loads(whole), path, lambda: SetInfo.read(data.path), data.path)
    path.write_text(json.dumps({**json.loads(whole), "left_out": True}))
    status, _ = check(tmp_path, data.path)
    path.write_text(whole)
    assert refused > 50
    assert status == 1


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
