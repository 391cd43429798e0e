"""From files to DICOM at 512 px: every step takes the size, and what grows with it is kept within bounds."""

import numpy as np
import pydicom
import pytest
from PIL import Image

import samgan
from samgan.config import Config
from samgan.networks import Generator
from samgan.pictures import grid_images
from samgan.presets import preset_config
from samgan.sampling import FORWARD_BATCH, forward_batch

SIDE = 512


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    images = np.random.default_rng(0).integers(0, 256, (24, 24, 24), np.uint8)
    np.savez(folder / "few.npz", train_images=images, train_labels=np.arange(24) % 2)
    return samgan.prepare(folder / "few.npz", folder / "set", resolution=SIDE, workers=1)


@pytest.fixture(scope="module")
def run(prepared, tmp_path_factory):
    """Two steps of the narrowest samgan-plus."""
    settings = {
        "network": {"max_channels": 8, "channel_base": 4 * SIDE, "num_classes": 0, "minibatch_std_group": 2},
        "training": {"batch_size": 2, "kimg": 0.004, "snapshot_every_kimg": 1.0},
    }
    config = preset_config("samgan-plus", "cpu", SIDE).override(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samgan.training.snapshots.SCORED_IMAGES", 16)
        patch.setattr("samgan.training.cost.ASK_FROM", 1 << 30)  # the plan would take longer than the training
        return samgan.train(config, prepared, tmp_path_factory.mktemp("runs") / "run", device="cpu", quiet=True)


def test_a_run_has_scores_and_a_grid_that_can_be_opened(run):
    (scores,) = [line for line in run.stats() if line["kind"] == "scores"]
    assert scores["quick_score"] > 0
    for path in (*run.grids(), run.path / "grids/real.png"):
        with Image.open(path) as grid:
            assert grid.size == (4 * SIDE + 3, 4 * SIDE + 3)


def test_samples_are_dicom_of_that_size_with_sheets(run, tmp_path):
    samgan.sample(run.path, tmp_path / "out", 2, file_format="dicom", sheets=["grid", "scales"], device="cpu")
    for path in sorted((tmp_path / "out").glob("*.dcm")):
        read = pydicom.dcmread(path)
        assert (read.Rows, read.Columns, read.SyntheticData) == (SIDE, SIDE, "YES")
        assert len(read.PixelData) == SIDE**2
    assert {path.name for path in (tmp_path / "out/sheets").iterdir()} == {"grid.png", "scales.png"}


def test_a_run_is_evaluated(run, prepared, tmp_path):
    scores, report = samgan.evaluate(run.path, prepared, count=8, features="radiograph", out=tmp_path, device="cpu")
    assert scores.resolution == SIDE
    assert scores.scores["swd"].value > 0
    assert report.exists()


def test_what_is_in_memory_at_a_time_does_not_grow_with_the_size():
    assert [grid_images(side) for side in (32, 64, 256, 512, 1024)] == [64, 64, 64, 16, 4]
    batches = {}
    for side in (32, 256, 512, 1024):
        network = {"resolution": side, "max_channels": 8, "channel_base": 4 * side}
        batches[side] = forward_batch(Generator(Config().override({"network": network}).network))
    assert batches == {32: FORWARD_BATCH, 256: FORWARD_BATCH, 512: 8, 1024: 2}
