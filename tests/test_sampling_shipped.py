"""The models that come with samgan: what is said of them is true, and their names stand for their files."""

import json
from pathlib import Path

import pytest

from samgan import api
from samgan.commands.main import main
from samgan.errors import SamganError
from samgan.sampling import SHIPPED, Source, is_model, open_model
from samgan.sampling.shipped import FOLDER


@pytest.mark.parametrize("shipped", SHIPPED.values(), ids=SHIPPED)
def test_what_is_said_of_a_model_is_what_its_file_and_card_say(shipped):
    model = open_model(Path(shipped.name))
    assert model.config.network.resolution == shipped.resolution
    assert f"sha256 {model.sha256} |" in shipped.card
    assert f'license: "{shipped.licence}"' in shipped.card
    assert shipped.data.split(";")[0] in shipped.card
    for score in shipped.scores:
        assert f"{score.label} {score.value:.3f} (real {score.real:.3f})" in shipped.card
    assert shipped.scored_with.split("; ")[1] in shipped.card


def test_every_file_of_the_folder_is_listed():
    features = "radiograph-features"  # of the scores, no generator
    assert {path.stem for path in FOLDER.iterdir()} == {*SHIPPED, features}


def test_a_name_is_as_good_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    api.sample("pneumonia-64", "named", 2, device="cpu")
    api.sample(SHIPPED["pneumonia-64"].path, "by-path", 2, device="cpu")
    name = "seed-00000001.png"
    assert (tmp_path / "named" / name).read_bytes() == (tmp_path / "by-path" / name).read_bytes()
    (finding,) = api.verify([tmp_path / "named" / name], "pneumonia-64", device="cpu")
    assert finding.ok
    source = Source.open("pneumonia-64")
    assert source.model is not None
    assert source.folder("evaluation") == Path("pneumonia-64-evaluation")


def test_what_is_here_comes_before_a_shipped_model_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_model(Path("pneumonia-64"))
    (tmp_path / "pneumonia-64").mkdir()
    assert not is_model(Path("pneumonia-64"))


@pytest.mark.parametrize("name", ["pneumonia-46", "nothing"])
def test_an_unknown_name_is_told_what_there_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SamganError, match=r"or a model that comes with samgan \(pneumonia-64"):
        api.sample(name, "out", 1)


def test_the_command_lists_models_and_prints_cards(capsys):
    assert main(["models"]) == 0
    assert "samgan sample pneumonia-64" in capsys.readouterr().out
    assert main(["models", "pneumonia-64"]) == 0
    assert capsys.readouterr().out.strip() == SHIPPED["pneumonia-64"].card.strip()
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [model["bytes"] > 1_000_000 for model in listed] == [True] * len(SHIPPED)
    assert main(["models", "other"]) == 2
    assert "expected one of pneumonia-64" in capsys.readouterr().err
