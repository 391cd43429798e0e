"""One class for synthetic images, wherever they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from samgan import api
from samgan.data import prepare
from samgan.devices import make_fabric
from samgan.errors import SamganError, UsageError
from samgan.pictures import to_uint8
from samgan.runs import Run
from samgan.sampling import Source, load_model, sample
from samgan.training import train_loop


@pytest.fixture(scope="module")
def run(tiny_config, images, tmp_path_factory):
    config = tiny_config.override({"training.kimg": 0.008})
    run = Run.create(tmp_path_factory.mktemp("source") / "run", config)
    train_loop(config, images, run, make_fabric("cpu"))
    return run


def test_a_run_an_exported_model_and_their_samples_are_one_set_of_images(run, tmp_path):
    expected = to_uint8(sample(load_model(run), range(3, 8)))
    api.export(run.path, tmp_path / "model.safetensors")
    api.sample(run.path, tmp_path / "folder", 5, seed=3)
    api.sample(run.path, tmp_path / "archive", 5, seed=3, file_format="npz")
    for source in (run.path, tmp_path / "model.safetensors"):
        opened = Source.open(source)
        assert torch.equal(opened.images(5, seed=3), expected)
        assert opened.names(2, seed=3) == ["seed 3", "seed 4"]
        assert opened.described.name == source.name
        assert (opened.described.preset, opened.described.images_seen) == ("custom", 8)
        assert opened.described.model_sha256 == opened.model.sha256
        with pytest.raises(UsageError, match="say how many images"):
            opened.images()
    for source in (tmp_path / "folder", tmp_path / "archive", tmp_path / "archive" / "samples.npz", expected.numpy()):
        opened = Source.open(source)
        assert torch.equal(opened.images(), expected)
        assert torch.equal(opened.images(99), expected)
        assert opened.model is None
        assert opened.config is None
        chosen = opened.images(2, seed=1)
        places = [next(i for i in range(5) if torch.equal(image, expected[i])) for image in chosen]
        assert places == sorted(set(places))
        assert len(opened.names(2, seed=1)) == 2
    assert Source.open(tmp_path / "folder").names(5) == [f"seed-{seed:08d}.png" for seed in range(3, 8)]
    assert Source.open(run.path).run.path == run.path
    assert Source.open(run.path).checkpoint.step == 2
    assert Source.open(tmp_path / "model.safetensors").run is None


def test_documents_go_into_a_folder_or_beside_a_file(run, tmp_path):
    assert Source.open(run.path).folder("scores") == run.path
    np.save(tmp_path / "made.npy", np.zeros((2, 1, 8, 8), np.uint8))
    assert Source.open(tmp_path / "made.npy").folder("scores") == tmp_path / "made-scores"
    with pytest.raises(UsageError, match="have no folder"):
        Source.open(np.zeros((2, 1, 8, 8), np.uint8)).folder("scores")


def test_what_has_no_checkpoints_is_asked_for_none(run, tmp_path):
    api.export(run.path, tmp_path / "model.safetensors")
    for source in (tmp_path / "model.safetensors", tmp_path):
        with pytest.raises(UsageError, match=r"--checkpoint best: .* is not a run folder"):
            Source.open(source, checkpoint="best")
    with pytest.raises(SamganError, match="expected an existing folder"):
        Source.open(tmp_path / "gone").images()


def test_stored_images_are_prepared_like_the_set_they_are_compared_with(tmp_path):
    (tmp_path / "files").mkdir()
    for index, image in enumerate(np.random.default_rng(0).integers(0, 256, (4, 48, 40), np.uint8)):
        Image.fromarray(image).save(tmp_path / "files" / f"{index}.png")
    data = prepare(tmp_path / "files", tmp_path / "set", resolution=16, workers=1)
    opened = Source.open(tmp_path / "files")
    assert opened.said == ()
    assert np.array_equal(opened.images(like=data).numpy(), data.images)
    assert opened.said == ("4 images of 40x48 px were fitted to 16x16 px as set was prepared: crop, normalize none",)
    assert opened.names(4) == ["0.png", "1.png", "2.png", "3.png"]
    assert opened.images().shape == (4, 1, 48, 40)
    assert opened.said == ()
