"""Without a place for a cache, everything goes on, and says so once."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import samgan.cache
from samgan.cache import cache_folder, download_folder, tell_without_cache
from samgan.metrics.features import FeatureExtractor, extract
from samgan.studies.classifier import Arm, classify


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    monkeypatch.setattr(samgan.cache, "_told", [])


def homeless():
    raise RuntimeError("Could not determine home directory.")


@pytest.fixture(params=["no home", "read-only", "a file in its place"])
def no_cache(request, monkeypatch, tmp_path):
    if request.param == "no home":
        monkeypatch.delenv("SAMGAN_CACHE", raising=False)
        monkeypatch.setattr(Path, "home", homeless)
    else:
        place = tmp_path / "cache"
        if request.param == "read-only":
            place.mkdir(mode=0o500)
            if os.access(place, os.W_OK):
                pytest.skip("nothing is read-only for this user")
        else:
            place.touch()
        monkeypatch.setenv("SAMGAN_CACHE", str(place / "samgan"))


def test_features_and_classifiers_do_without(no_cache):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 1, 32, 32), dtype=np.uint8))
    extractor = FeatureExtractor(
        lambda x: x.flatten(1).float(), name="own", sha256="0" * 64, device=torch.device("cpu")
    )
    labels, test = np.array([0, 1] * 3), images.numpy()[:2]

    def use_both():
        classify(images.numpy(), labels, np.ones(6, bool), test, Arm(), 2, seed=0, steps=1)
        return [extract(extractor, images) for _ in range(2)][1]

    with pytest.warns(UserWarning, match="nothing is cached") as told:
        features = use_both()
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    torch.testing.assert_close(features, images.flatten(1).float())


def test_the_variable_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SAMGAN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("SAMGAN_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "samgan"


def test_downloads_go_where_they_can(tmp_path):
    assert download_folder(tmp_path / "new", "file") == tmp_path / "new"
    (tmp_path / "taken").touch()
    for usual in (tmp_path / "taken" / "folder", Path("~/.cache/samgan")):
        samgan.cache._told.clear()
        with pytest.warns(UserWarning, match="nothing is cached"):
            folder = download_folder(usual, "file")
        assert folder.is_dir()
        assert list(folder.iterdir()) == []
    assert not Path("~").exists()


def test_it_is_said_once():
    with pytest.warns(UserWarning, match="reason 0") as told:
        [tell_without_cache(f"reason {number}") for number in range(3)]
    assert len(told) == 1
