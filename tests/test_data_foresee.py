"""What `samgan prepare --dry-run` says is what `samgan prepare` does, as far as names tell it; nothing is written."""

import json
import shutil

import pytest

from samgan.commands.main import main
from samgan.data import prepare


@pytest.fixture
def source(twelve_phantoms, tmp_path):
    shutil.copytree(twelve_phantoms, tmp_path / "xrays")
    (tmp_path / "xrays" / "notes.txt").write_text("no image", "utf-8")
    return tmp_path / "xrays"


def test_counts_are_those_of_the_set_that_comes_of_it(source, tmp_path, capsys):
    assert main(["prepare", str(source), str(tmp_path / "set"), "--resolution", "32", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "set").exists()
    prepared = prepare(source, tmp_path / "set", resolution=32, workers=1)
    counts = {name: sum(splits.values()) for name, splits in prepared.info.counts.items()}
    assert {name: sum(splits.values()) for name, splits in told["classes"].items()} == counts
    assert told["images"] == 12
    assert told["bytes"] == prepared.images.nbytes
    assert told["ignored"] == {".txt": 1}
    assert told["there"] == ""


def test_a_folder_that_would_be_refused_is_told(source, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.doc").write_text("mine", "utf-8")
    assert main(["prepare", str(source), str(tmp_path / "set"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "It would be refused: " in text
    assert "thesis.doc" in text
    assert "Only reading the images tells which are damaged" in text


def test_what_prepare_refuses_is_refused(source, tmp_path, capsys):
    assert main(["prepare", str(source), str(tmp_path / "set"), "--holdout", "1.5", "--dry-run"]) == 2
    assert main(["prepare", str(tmp_path / "nothing"), str(tmp_path / "set"), "--dry-run"]) == 2
    assert "nothing" in capsys.readouterr().err
