"""A model on the Hugging Face Hub is as good as a file of it; whatever goes wrong is one line."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from hub_server import Repository

import samgan
from samgan.commands.main import main
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError, UsageError
from samgan.networks import Generator
from samgan.sampling import Model, Source, hash_weights, is_model, open_model, write_model
from samgan.sampling.hub import HubModel, hub_model, is_hub_name

NAME = "ward/x-rays"


@pytest.fixture(scope="module")
def model(tiny_config):
    torch.manual_seed(0)
    config = tiny_config.override({"preset": "tiny", "data.classes": ["NORMAL"], "network.spectral_norm": "none"})
    generator = Generator(config.network).eval()
    return Model(generator, config, 4000, hash_weights(generator.state_dict()), ("ab" * 32,))


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    write_model(model, path)
    return path


@pytest.fixture
def repository(hub, file, tmp_path, monkeypatch):
    """A public repository with the model, seen from a new folder."""
    monkeypatch.chdir(tmp_path)
    hub.repositories[NAME] = Repository(private=False)
    hub.repositories[NAME].commit({"model.safetensors": file.read_bytes()})
    return hub.repositories[NAME]


def fails(source, *words):
    """What the command says about a model that cannot be had: one line, in which all `words` are."""
    with pytest.raises(SamganError) as caught:
        open_model(Path(source))
    message = str(caught.value)
    assert "\n" not in message
    for word in (source, *words):
        assert word in message
    return message


@pytest.mark.parametrize(
    ("source", "repository", "revision"),
    [
        ("hf:ward/x-rays", "ward/x-rays", ""),
        ("hf:Ward-1/x.rays_64@v1.0", "Ward-1/x.rays_64", "v1.0"),
        ("hf:a/b@refs/pr/1", "a/b", "refs/pr/1"),
    ],
)
def test_a_name_is_read_and_written(source, repository, revision):
    named = hub_model(Path(source))
    assert named == HubModel(repository, revision)
    assert str(named) == source
    assert is_hub_name(Path(source))
    assert is_model(Path(source))  # and nothing was downloaded


@pytest.mark.parametrize(
    "source", ["hf:", "hf:x", "hf:a/b/c", "hf:a/b@", "hf:a/../b", "hf:a/b@../../x", "hf:-a/b", "hf:a b/c"]
)
def test_a_wrong_name_is_refused_before_anything_is_imported(source):
    with pytest.raises(UsageError, match="expected hf:OWNER/NAME"):
        open_model(Path(source))


def test_samples_are_those_of_the_file_and_say_where_the_model_is_from(repository, file, capsys):
    named = f"hf:{NAME}@{repository.head}"
    assert main(["sample", f"hf:{NAME}", "--count", "3", "--out", "from-hub", "--device", "cpu"]) == 0
    assert f"; model {named}" in capsys.readouterr().out
    written = samgan.sample(file, "from-file", 3, device="cpu")
    assert written.hub == ""
    for path in sorted(Path("from-file").glob("*.png")):
        assert Path("from-hub", path.name).read_bytes() == path.read_bytes()
    described = json.loads(Path("from-hub/samples.json").read_text())
    assert described.pop("Model-Hub") == named
    assert described == json.loads(Path("from-file/samples.json").read_text())
    (finding,) = samgan.verify(["from-hub/seed-00000001.png"], named, device="cpu")
    assert finding.ok


def test_a_name_stands_wherever_a_model_can_be_named(repository, model):
    source = Source.open(f"hf:{NAME}")
    assert source.described.name == f"hf:{NAME}@{repository.head}"
    assert source.described.model_sha256 == model.sha256
    assert source.folder("evaluation") == Path("x-rays-evaluation")
    assert samgan.export(f"hf:{NAME}", "copy.safetensors").sha256 == model.sha256
    assert main(["card", f"hf:{NAME}"]) == 0
    assert model.sha256 in Path("MODEL_CARD.md").read_text()
    with pytest.raises(UsageError, match="so it has no checkpoints"):
        open_model(Path(f"hf:{NAME}"), "best")


def test_a_revision_is_that_revision_also_when_there_is_a_newer_one(repository, hub, model, tmp_path):
    first = repository.head
    other = dataclasses.replace(model, images_seen=8000)
    write_model(other, tmp_path / "other.safetensors")
    repository.commit({"model.safetensors": (tmp_path / "other.safetensors").read_bytes()})
    assert open_model(Path(f"hf:{NAME}")).images_seen == 8000
    assert open_model(Path(f"hf:{NAME}@{first}")).images_seen == 4000
    fails(f"hf:{NAME}@v9", "no branch, tag or commit v9")


def test_it_is_downloaded_once_and_only_the_weights_are(repository, hub):
    open_model(Path(f"hf:{NAME}"))
    open_model(Path(f"hf:{NAME}"))
    assert sum(request.startswith("GET /cdn/") for request in hub.requests) == 1
    assert {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request} == {"model.safetensors"}


def test_without_network_the_copy_in_the_cache_is_used(repository, hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits longer each time that it tries
    open_model(Path(f"hf:{NAME}"))
    repository.commit({"README.md": b"newer"})
    hub.status = 503
    assert open_model(Path(f"hf:{NAME}")).hub == f"hf:{NAME}@{list(repository.commits)[1]}"
    fails("hf:ward/others", f"{hub.endpoint} cannot be reached", "503")


def test_where_nobody_answers(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.close()
    fails("hf:ward/x-rays", f"{hub.endpoint} cannot be reached", "onnect")


def test_offline_mode(repository, hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fails(f"hf:{NAME}", "HF_HUB_OFFLINE is set")
    assert not hub.requests


def test_what_may_not_be_read(repository, hub, monkeypatch):
    fails("hf:ward/nothing", f"no such repository at {hub.endpoint}, or it is private", "HF_TOKEN")
    hub.repositories["ward/gated"] = Repository(private=False, gated=True)
    fails("hf:ward/gated", f"ask for it at {hub.endpoint}/ward/gated")
    repository.private = True
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    message = fails(f"hf:{NAME}", "or it is private")
    assert "hf_of" not in message


def test_a_repository_without_a_model_of_samgan(repository, hub, file):
    hub.repositories["ward/text"] = Repository(private=False)
    fails("hf:ward/text", "holds no model.safetensors, so it is not a model of samgan")
    hub.repositories["ward/text"].commit({"model.safetensors": b"\x80\x04N."})
    fails_in_cache(hub, "hf:ward/text", "cannot be read as a model")
    import safetensors.torch

    other = safetensors.torch.save({"weight": torch.zeros(2)}, {"format": "pt"})
    hub.repositories["ward/text"].commit({"model.safetensors": other})
    fails_in_cache(hub, "hf:ward/text", "is not a samgan model")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    hub.repositories["ward/text"].commit({"model.safetensors": bytes(content)})
    fails_in_cache(hub, "hf:ward/text", "do not match their recorded hash")


def fails_in_cache(hub, source, words):
    with pytest.raises(SamganError, match=words) as caught:
        open_model(Path(source))
    assert os.environ["HF_HOME"] in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="the cache has no links there")
def test_a_file_that_was_changed_in_the_cache_is_refused(repository, hub):
    open_model(Path(f"hf:{NAME}"))
    (blob,) = Path(os.environ["HF_HOME"]).glob("hub/models--*/blobs/*")
    content = blob.read_bytes()
    blob.write_bytes(content.replace(b"NORMAL", b"NORMEL"))  # weights that are damaged have a hash of their own
    message = fails(f"hf:{NAME}", "is damaged", f"delete {blob}")
    assert message.count("damaged") == 1
    blob.unlink()
    assert open_model(Path(f"hf:{NAME}")).config.data.classes == ("NORMAL",)


def test_a_server_that_is_no_hub(hub):
    hub.status = 200
    fails("hf:ward/x-rays", "cannot be reached", "X-Repo-Commit")


def test_without_the_package(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["sample", "hf:ward/x-rays", "--out", "samples"]) == 2
    assert "hf:ward/x-rays: huggingface_hub is missing: pip install 'samgan[hub]'" in capsys.readouterr().err


def test_a_training_can_begin_with_it(repository, model, file):
    write_phantoms("phantoms", 8, 32)
    data = samgan.prepare("phantoms", "data", resolution=32)
    run = samgan.train(model.config, data, "run", start=f"hf:{NAME}", device="cpu")
    start = run.environment.start
    assert (start.run, start.images_seen) == (f"hf:{NAME}@{repository.head}", 4000)
    by_file = samgan.train(model.config, data, "by-file", start=file, device="cpu")
    assert open_model(run.path).sha256 == open_model(by_file.path).sha256
