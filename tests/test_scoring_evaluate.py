"""What an evaluation says beside its scores."""

import json

import numpy as np
import pytest
import torch

from samgan import api
from samgan.commands.main import main
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError
from samgan.metrics import load_features
from samgan.metrics.feature_networks.radiograph import RADIOGRAPH
from samgan.metrics.features import FeatureExtractor
from samgan.metrics.load_features import Default
from samgan.networks import Generator
from samgan.presets import preset_config
from samgan.runs import Run, TrainedOn, describe_environment, save_checkpoint
from samgan.sampling import Source
from samgan.scoring import Scores
from samgan.scoring.evaluation import flattered


@pytest.fixture
def data(tmp_path):
    write_phantoms(tmp_path / "images", 24, resolution=32)
    return prepare(tmp_path / "images", tmp_path / "data", resolution=32, workers=1, holdout=0.0)


@pytest.fixture
def no_features(monkeypatch):
    monkeypatch.setattr(load_features, "default_features", lambda shape: Default(None, "no weights here"))


@pytest.fixture
def run(data, tiny_config, tmp_path):
    config = tiny_config.override({"network.spectral_norm": "none"})
    run = Run.create(tmp_path / "run", config, describe_environment("cpu", TrainedOn("data", data.sha256, 9)))
    weights = Generator(config.network).state_dict()
    state = {"config": config.to_dict(), "step": 3, "images_seen": 12_000}
    save_checkpoint(run.checkpoint_path(3), {**state, "generator": weights, "ema_generator": weights})
    return run


def test_the_papers_protocol_draws_as_many_images_as_there_are_real_ones(run, data, tmp_path, capsys, no_features):
    assert main(["evaluate", str(run.path), "--data", str(data.path), "--protocol", "paper", "--device", "cpu"]) == 0
    table = capsys.readouterr().out
    scores = Scores.read(run.path / "scores-paper.json")
    assert (scores.counts.real, scores.counts.fake, scores.count, scores.floor_count) == (48, 48, 48, 24)
    assert scores.data.split == "train"
    assert "real against real (floor at 24 images)" in table
    assert "The floor is at 24 images per set, not at 48" in table
    assert "floor at 24 images" in (run.path / "report-paper.html").read_text()
    assert not (run.path / "scores.json").exists()
    standard, _ = api.evaluate(run.path, data, device="cpu")
    assert (standard.counts.fake, standard.count, standard.floor_count) == (24, 24, None)
    assert json.loads((run.path / "scores.json").read_text())["floor_count"] is None
    some, _ = api.evaluate(run.path, data, device="cpu", protocol="paper", count=30, out=tmp_path / "some")
    assert (some.counts.fake, some.count, some.floor_count) == (30, 30, 24)


def test_more_real_images_than_there_is_memory_for_are_refused_before_any_is_made(run, data, monkeypatch, no_features):
    monkeypatch.setattr("samgan.data.dataset.ASK_FROM", 0)
    monkeypatch.setattr("samgan.data.room.free_memory", lambda: 100)
    monkeypatch.setattr(Source, "images", lambda *arguments, **options: pytest.fail("images were made"))
    with pytest.raises(SamganError, match=r"images of 32 px from .* are free: choose .*samgan subset") as told:
        api.evaluate(run.path, data, count=8)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--count", "49"], 2, "--count 49: 49 generated and 48 real images allow at most 48"),
        (["--count", "7"], 1, "at least 8 generated and 16 real images; there are 7 and 48"),
    ],
)
def test_what_the_papers_protocol_cannot_score_is_refused_in_one_line(run, data, capsys, arguments, status, words):
    command = ["evaluate", str(run.path), "--data", str(data.path), "--protocol", "paper", "--device", "cpu"]
    assert main([*command, *arguments]) == status
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("preset", "eyes", "features", "told"),
    [
        ("samgan-projected", "lite0", "lite0", True),
        ("samgan-vision", "lite0", "lite0 (non-standard weights sha256:01234567)", True),
        ("samgan-vision", "radiograph", "radiograph", True),
        ("samgan-vision", "lite0", "radiograph", False),
        ("samgan-plus", "lite0", "lite0", False),
    ],
)
def test_scores_by_the_features_a_discriminator_saw_are_said_to_flatter(preset, eyes, features, told):
    config = preset_config(preset).override({"network.vision_features": eyes})
    extractor = FeatureExtractor(torch.nn.Identity(), name=features, sha256="", device=torch.device("cpu"))
    said = flattered(config, extractor)
    assert len(said) == told
    assert all(f"scores by {eyes} flatter this model" in sentence for sentence in said)


def test_images_without_settings_and_scores_without_features_are_not_flattered():
    extractor = FeatureExtractor(torch.nn.Identity(), name="lite0", sha256="", device=torch.device("cpu"))
    assert flattered(None, extractor) == flattered(preset_config("samgan-vision"), None) == []


def test_numpys_seeds_and_names_of_files_are_taken(run, data):
    options = {"features": RADIOGRAPH.name, "features_file": str(RADIOGRAPH.find(RADIOGRAPH)), "device": "cpu"}
    before = torch.get_rng_state()
    scores, _ = api.evaluate(run.path, data, seed=np.int64(3), **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(Scores.read(run.path / "scores.json").seed) is type(scores.seed) is int
