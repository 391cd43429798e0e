"""The demo: X-rays at once, a training to watch, and a report that says what was drawn and what is synthetic."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from samgan import demonstration
from samgan.commands.main import main
from samgan.demonstration import OWN, demo_config
from samgan.pictures import SYNTHETIC, image_grid

SHORT = ("--kimg", "0.1", "--device", "cpu")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A short demo: its folder, its document, and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    with pytest.MonkeyPatch.context() as patched, pytest.MonkeyPatch.context() as said:
        heard: list[str] = []
        patched.setattr(demonstration, "PHANTOMS", 60)
        patched.setattr(demonstration, "SNAPSHOTS", 1)
        said.setattr("samgan.terminal.say", heard.append)
        document = demonstration.demo(folder, seed=3, kimg=0.1, device="cpu")
    return folder, document, "\n".join(heard)


def test_first_come_x_rays_of_the_model_that_ships(done):
    folder, document, said = done
    assert len(list((folder / "xrays").glob("seed-*.png"))) == 64
    first = said.splitlines()[0]
    assert str(document.xrays) in first
    assert "pneumonia-64" in first
    with Image.open(document.xrays) as picture:
        assert picture.size == (519, 519)
        assert "SYNTHETIC" in picture.text["Description"]


def test_the_picture_grows_by_a_row_at_each_snapshot(tmp_path):
    side, factor = demonstration.RESOLUTION, demonstration.MAGNIFY
    reference = np.zeros((8, 1, side, side), np.uint8)
    watch = demonstration._Watch(tmp_path / "progress.png", 1.0, reference)
    heights = []
    for number in (1, 2):
        watch.scalars(100 * number, {"ms_ssim_generated": 0.7})
        classes = np.repeat(np.uint8([number, number + 50]), 32)[:, None, None, None]  # half of the grid each
        watch.image("grid", 100 * number, image_grid(np.tile(classes, (1, 1, side, side))), SYNTHETIC)
        with Image.open(tmp_path / "progress.png") as picture:
            heights.append(picture.height)
            assert SYNTHETIC in picture.text["Description"]
            last = [picture.getpixel((x, picture.height - 1)) for x in (0, picture.width - 1)]
            assert last == [number, number + 50]
            assert picture.getpixel((0, 0)) == 0
    assert heights == [factor * (2 * side + 4), factor * (3 * side + 8)]


def test_the_end_says_what_was_real_drawn_and_synthetic_and_what_to_try(done):
    folder, document, said = done
    assert "4/4" in said
    text = document.to_text()
    for path in (document.xrays, folder / "phantoms", document.samples, document.report):
        assert str(path) in text
    for word in ("synthetic", "drawn", "real       none", *(command for command, _ in OWN)):
        assert word in text
    page = document.report.read_text()
    for shown in (
        demonstration.NOTE,
        "How training went",
        "Drawn (phantoms)",
        "by pneumonia-64",
        "Frechet distance, radiograph",
        OWN[0][0],
        "Losses",
    ):
        assert shown in page
    assert (folder / "scores.json").is_file()
    assert len(list(document.samples.glob("seed-*.png"))) == 64


def test_a_seed_decides_phantoms_and_training(done):
    folder, document, _ = done
    assert json.loads((document.run / "config.json").read_text())["training"]["seed"] == 3
    with Image.open(folder / "phantoms" / "NORMAL" / "phantom0001_1.png") as picture:
        assert "seed 3" in picture.text["Parameters"]
    assert demo_config(1) != demo_config(2)


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--minutes", "0"), "more than 0"), (("--seed", "-1"), "--seed -1"), (("--kimg", "0"), "training.kimg")],
)
def test_what_is_out_of_range_is_refused_before_anything_is_written(capsys, tmp_path, words, message):
    assert main(["demo", "--out", str(tmp_path / "demo"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_a_folder_in_use_is_left_alone(capsys, done):
    assert main(["demo", "--out", str(done[0]), *SHORT]) == 1
    assert "not empty" in capsys.readouterr().err


def test_the_help_names_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"in thousands of images (default: {demonstration.KIMG:g})" in said
    assert f"not reached earlier (default: {demonstration.MINUTES:g})" in said


def test_the_studio_opens_on_what_the_demo_made(capsys, monkeypatch, done):
    pytest.importorskip("uvicorn", reason="the studio is not installed: pip install 'samgan[studio]'")
    from studio import make_client

    folder, document, _ = done
    shown = []
    monkeypatch.setattr(demonstration, "demo", lambda out, **options: document)
    monkeypatch.setattr("samgan.studio.serve.serve", lambda root: shown.append((root.path, capsys.readouterr().err)))
    assert main(["demo", "--out", str(folder), "--studio", *SHORT]) == 0
    ((root, said),) = shown
    assert root == folder.resolve()
    assert document.to_text().splitlines()[0] in said  # what the demo found comes first
    home = make_client(folder).get("/").text
    for place in (document.run.name, "data"):
        assert f"{place}</a>" in home


def test_without_the_packages_of_the_studio_no_minutes_are_spent(capsys, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "samgan.studio.serve", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["demo", "--out", str(tmp_path / "demo"), "--studio"]) == 1
    assert "samgan[studio]" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
