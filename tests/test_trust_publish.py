"""A published folder holds the model, its card and synthetic images, and no more; what is sent comes back the same."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import TOKEN, Repository
from PIL import Image

import samgan
from samgan.commands.main import main
from samgan.config import Config
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError, UsageError
from samgan.networks import Generator
from samgan.pictures import SYNTHETIC
from samgan.runs import Run, TrainedOn, describe_environment, save_checkpoint
from samgan.sampling import Origin, Source, load_model, open_model
from samgan.scoring import FeaturesUsed, MeanOfPairs, Scored, Scores
from samgan.scoring.documents import Counts
from samgan.trust import OPEN, AuditDocument
from samgan.trust.front_matter import LICENCES, join_card, split_card
from samgan.trust.publishing import BEGIN, FILES
from samgan.trust.sign_off import SignOff, add_sign_off, hash_audit

NAME = "ward/x-rays"
BALANCE = json.loads((Path(__file__).parents[1] / "results/balance/as-it-is/balance.json").read_text())
AUDIT = AuditDocument.from_dict(BALANCE["audit"]["NORMAL"], "an audit")
# What huggingface_hub 2.4 does with its own HTTP library when it uploads.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 12, resolution=32)
    return prepare(folder / "images", folder / "data", resolution=32, holdout=0.3, workers=1)


@pytest.fixture
def run(data, tiny_config, tmp_path, monkeypatch):
    """A run that was scored, seen from the folder it is in."""
    monkeypatch.chdir(tmp_path)
    config = tiny_config.override({"preset": "tiny", "data.classes": ["NORMAL"], "network.spectral_norm": "none"})
    run = Run.create("run", config, describe_environment("cpu", TrainedOn("data", data.sha256, 9)))
    torch.manual_seed(0)
    weights = Generator(config.network).state_dict()
    state = {"config": config.to_dict(), "step": 3, "images_seen": 12_000}
    save_checkpoint(run.checkpoint_path(3), {**state, "generator": weights, "ema_generator": weights})
    mean = MeanOfPairs(mean=0.55, low=0.5, high=0.6, standard_error=0.01, pairs=40)
    scores = Scores(
        protocol="standard",
        resolution=32,
        seed=0,
        count=40,
        counts=Counts(80, 40),
        features=FeaturesUsed("net", "cd" * 32, 8),
        ms_ssim_real=mean,
        ms_ssim_generated=replace(mean, mean=0.58),
        mode_collapse=None,
        scores={"frechet": Scored(0.123456, 0.031), "recall": Scored(0.5, 0.9)},
        generated=Origin("run", model_sha256=load_model(run).sha256),
        data=data.used(split="train"),
    )
    scores.write(run.path / "scores.json")
    return run


def fill_in(path):
    path.write_text(path.read_text().replace(OPEN, "said by a person"))


def front_matter(folder="shared"):
    return split_card(Path(folder, "README.md").read_text(), "README.md")[0]


def finished(run, **options):
    """The folder of a model whose card is filled in."""
    samgan.publish(run.path, "shared", licence="cc-by-4.0", draft=True, **options)
    fill_in(Path("shared/README.md"))
    return samgan.publish(run.path, "shared")


def test_a_folder_holds_the_model_its_card_and_synthetic_images(run, data):
    assert finished(run, data=data, datasets=["ward/chests"]).open == 0
    assert {path.name for path in Path("shared").iterdir()} == set(FILES)
    model = load_model(run)
    assert open_model(Path("shared/model.safetensors")).sha256 == model.sha256
    assert Config.from_dict(json.loads(Path("shared/config.json").read_text())) == model.config
    with Image.open("shared/grid.png") as grid:
        assert grid.text["Description"] == SYNTHETIC
        assert grid.text["Model-SHA256"] == model.sha256
        assert grid.size == (8 * 33 - 1, 8 * 33 - 1)
    front = front_matter()
    assert {name: front[name] for name in ("library_name", "license", "pipeline_tag", "datasets")} == {
        "library_name": "samgan",
        "license": "cc-by-4.0",
        "pipeline_tag": "unconditional-image-generation",
        "datasets": ["ward/chests"],
    }
    assert {"synthetic", "samgan", "medical-imaging"} <= set(front["tags"])
    assert "draft" not in front["tags"]
    card = Path("shared/README.md").read_text()
    assert "![Synthetic images made by this model, of no real person](grid.png)" in card
    assert "samgan sample hf:OWNER/NAME" in card
    assert "DRAFT" not in card


def test_each_score_stands_beside_its_floor_in_the_schema_of_the_hub(run, data):
    finished(run, data=data)
    (entry,) = front_matter()["model-index"]
    assert entry["name"] == "tiny, 32 px"
    (result,) = entry["results"]
    assert result["task"]["type"] == "unconditional-image-generation"
    assert result["dataset"] == {"type": "unknown", "name": "data", "split": "train"}
    found = [(metric["type"], metric["value"]) for metric in result["metrics"]]
    assert found == [
        *(("ms_ssim", 0.58), ("ms_ssim_floor", 0.55)),
        *(("frechet", 0.1235), ("frechet_floor", 0.031)),
        *(("recall", 0.5), ("recall_floor", 0.9)),
    ]
    assert result["metrics"][3]["name"] == "Frechet distance, net, real against real (floor)"
    assert result["metrics"][2]["args"] == {"images": 40, "features": "net", "features_sha256": "cd" * 32}


def test_a_floor_at_fewer_images_says_so_on_the_card(run, data):
    paper = replace(Scores.read(run.path / "scores.json"), protocol="paper", count=80, floor_count=41)
    paper.write(run.path / "scores.json")
    finished(run, data=data)
    metrics = front_matter()["model-index"][0]["results"][0]["metrics"]
    assert metrics[1]["name"] == "MS-SSIM of pairs, real against real (floor)"  # it does not depend on the count
    assert metrics[3]["name"] == "Frechet distance, net, real against real (floor at 41 images)"
    assert metrics[2]["args"]["images"] == 80
    card = Path("shared/README.md").read_text()
    assert "80 images against 80 of split train (real: 41 against 41, other than MS-SSIM)" in card
    assert "equally many real images" not in card


def test_the_hub_s_own_classes_read_the_card(run, data, hub):
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import eval_results_to_model_index

    finished(run, data=data, datasets=["ward/chests"])
    card = ModelCard.load("shared/README.md", ignore_metadata_errors=False)
    assert (card.data.library_name, card.data.license) == ("samgan", "cc-by-4.0")
    assert card.data.pipeline_tag == "unconditional-image-generation"
    results = {result.metric_type: result for result in card.data.eval_results}
    assert (results["frechet"].metric_value, results["frechet_floor"].metric_value) == (0.1235, 0.031)
    assert {(result.task_type, result.dataset_type) for result in results.values()} == {
        ("unconditional-image-generation", "ward/chests")
    }
    again = eval_results_to_model_index(card.data.model_name, card.data.eval_results)
    assert again == front_matter()["model-index"]


def test_open_places_are_refused_and_a_draft_says_what_it_is(run, capsys):
    command = ["publish", "run", "shared", "--licence", "cc-by-4.0"]
    assert main(command) == 1
    assert "places of its card are open; write a --draft" in capsys.readouterr().err
    assert not Path("shared").exists()
    assert main([*command, "--draft"]) == 0
    number = Path("shared/README.md").read_text().count(OPEN)
    assert f"A draft: {number} places of README.md marked {OPEN}" in capsys.readouterr().out
    assert front_matter()["tags"][-1] == "draft"
    assert f"**DRAFT: {number} places of this card are open." in Path("shared/README.md").read_text()
    before = Path("shared/README.md").read_bytes()
    assert main(["publish", "run", "shared"]) == 1
    (lines,) = re.findall(r"\(lines ([0-9, ]+), ...\)", capsys.readouterr().err)
    for line in map(int, lines.split(", ")):
        assert OPEN in before.decode().splitlines()[line - 1]
    assert main(["publish", "run", "shared", "--draft"]) == 0
    assert Path("shared/README.md").read_bytes() == before


def test_a_card_that_a_person_filled_in_is_used_and_kept(run, data):
    assert main(["card", "run", "--data", str(data.path), "--attribution", "Phantoms, drawn here"]) == 0
    card = run.path / "MODEL_CARD.md"
    fill_in(card)
    own, body = split_card(card.read_text(), "card")
    card.write_text(join_card({**own, "language": "en", "tags": ["chest", *own["tags"]]}, body))
    samgan.publish(run.path, "shared", licence="Ward's own 1.0")
    assert body.partition("\n\n")[2] in Path("shared/README.md").read_text()
    front = front_matter()
    assert (front["license"], front["license_name"], front["language"]) == ("other", "ward-s-own-1.0", "en")
    assert front["tags"][0] == "chest"
    samgan.publish(run.path, "shared")
    assert front_matter() == front
    elsewhere = card.rename("elsewhere.md")
    samgan.publish(run.path, "again", card=elsewhere, licence="mit")
    assert front_matter("again")["license"] == "mit"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--public"], "name the repository to upload to with --push"),
        (["--push", "ward"], "--push ward: "),
        (["--datasets", "a b"], "--datasets a b: expected OWNER/NAME"),
        (["--attribution", "me"], "--attribution: shared/README.md is used as it is"),
        (["--audit", "x.json"], "x.json does not exist"),
        (["--licence", "mit"], "--licence mit: the card says cc-by-4.0"),
        (["--card", "missing.md"], "missing.md cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(run, capsys, options, words):
    finished(run)
    capsys.readouterr()
    assert main(["publish", "run", "shared", *options]) in (1, 2)
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_card_of_another_model_or_of_other_scores_is_refused(run, capsys):
    finished(run)
    card = Path("shared/README.md")
    text = card.read_text()
    card.write_text(text.replace(load_model(run).sha256, "0" * 64))
    with pytest.raises(SamganError, match="is not the card of this model"):
        samgan.publish(run.path, "shared")
    card.write_text(text.replace("(real 0.031)", "(real 0.131)"))
    with pytest.raises(SamganError, match="has other scores than the run has now"):
        samgan.publish(run.path, "shared")
    for active in (
        *(
            "<Script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            '<img title=">" onerror="x()">',
            '<a href="java&#115;cript:x()">',
            '<a href="JavaScript:alert(1)">',
            "<iframe src=x>",
        ),
        *("[a](javascript:alert(1))", "<svg/onload=alert(1)>", "<meta http-equiv=refresh>", '<p\nonclick = "x()">'),
    ):
        card.write_text(f"{text}\n{active}\n")
        with pytest.raises(SamganError, match=r"README\.md holds '.*', which may run or load something in a browser"):
            samgan.publish(run.path, "shared")
    harmless = "\n<details><summary>once = 1</summary></details> <img src=grid.png alt='on = x'> 1 <b, on = off\n"
    card.write_text(text + harmless)
    samgan.publish(run.path, "shared")
    assert harmless in card.read_text()
    text = card.read_text()
    card.write_text(text.replace("license: cc-by-4.0\n", ""))
    with pytest.raises(SamganError, match="no licence; name it with --licence"):
        samgan.publish(run.path, "shared")
    for front in ("- a", "a: [", "tags: synthetic", "datasets: [[1]]"):
        card.write_text(f"---\n{front}\n---\n{text}")
        with pytest.raises(SamganError, match="between the lines ---"):
            samgan.publish(run.path, "shared")


def test_a_card_of_an_earlier_audit_or_without_its_sign_off_is_refused(run, data):
    def write(**changes):
        document = replace(AUDIT, generated=Origin("run", model_sha256=load_model(run).sha256), data=data.used())
        replace(document, **changes).write(run.path / "audit.json")

    def sign(decision):
        own = hash_audit(run.path / "audit.json")
        add_sign_off(run.path, SignOff("Dr. A", "2026-01-31", decision, "", own))

    write()
    sign("accepted")
    finished(run, data=data)
    assert "2026-01-31: accepted" in Path("shared/README.md").read_text()
    sign("not accepted")
    with pytest.raises(SamganError, match="has other sign-offs than the run has now; make the card again"):
        samgan.publish(run.path, "shared")
    write(verdict="Signs of memorisation: 45 % ...")
    with pytest.raises(SamganError, match=r"README\.md has another audit than the run has now"):
        samgan.publish(run.path, "shared")


def test_a_folder_that_holds_something_else_is_left_alone(run, tmp_path):
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("x")
    with pytest.raises(SamganError, match="samgan publish did not write it"):
        samgan.publish(run.path, "mine", draft=True)
    finished(run)
    Path("shared/patient.png").write_bytes(b"x")
    with pytest.raises(SamganError, match=r"holds patient\.png: expected only README\.md, "):
        samgan.publish(run.path, "shared")
    Path("shared/patient.png").unlink()
    Path("shared/grid.png").write_bytes(b"a picture of a patient")
    Path("shared/.git").mkdir()
    samgan.publish(run.path, "shared")
    with Image.open("shared/grid.png") as grid:
        assert grid.text["Description"] == SYNTHETIC
    with pytest.raises(SamganError, match="holds another model"):
        samgan.publish("pneumonia-64", "shared", draft=True)
    with pytest.raises(SamganError, match="is not empty"):
        samgan.publish(run.path, "shared/README.md", draft=True)


def test_a_call_that_was_killed_does_not_stand_in_the_way(run, tmp_path):
    out = tmp_path / "killed"
    samgan.publish(run.path, out, draft=True)
    (out / ".config.json.4242.tmp").write_text("{")  # of a process that is gone
    samgan.publish(run.path, out, draft=True)
    assert {path.name for path in out.iterdir()} == set(FILES)


def test_a_published_folder_is_a_model_and_nothing_is_written_into_it(run, data):
    finished(run)
    source = Source.open("shared")
    assert source.run is None
    assert source.model.sha256 == load_model(run).sha256
    assert source.folder("evaluation") == Path("shared-evaluation")
    samgan.sample("shared", "samples", 2, device="cpu")
    (finding,) = samgan.verify(["samples/seed-00000001.png"], "shared", device="cpu")
    assert finding.ok
    copied = samgan.publish("shared", "copy", draft=True)
    assert Path("copy/README.md").read_text().partition(BEGIN)[2].count("grid.png") == 1
    assert copied.sha256 == load_model(run).sha256
    with pytest.raises(UsageError, match="is a prepared set"):
        samgan.publish(data.path, "other")


def test_a_model_that_comes_with_samgan_can_be_published(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    published = samgan.publish("pneumonia-64", "shared", draft=True)
    front = front_matter()
    assert front["license"] == "apache-2.0"
    metrics = front["model-index"][0]["results"][0]["metrics"]
    (shipped,) = [model for model in samgan.sampling.SHIPPED.values() if model.name == "pneumonia-64"]
    assert [metric["value"] for metric in metrics[::2]] == [score.value for score in shipped.scores]
    assert [metric["value"] for metric in metrics[1::2]] == [score.real for score in shipped.scores]
    assert published.sha256 in Path("shared/README.md").read_text()


def test_licences_are_written_as_the_hub_knows_them(run):
    samgan.publish(run.path, "shared", licence="CC BY-NC 4.0", draft=True)
    assert front_matter()["license"] == "cc-by-nc-4.0"
    assert {"apache-2.0", "cc-by-4.0", "openrail++", "other"} <= LICENCES


def test_a_front_matter_is_read_as_it_was_written():
    front = {"license": "mit", "tags": ["a", "é: b", "- c"], "x": {"y": [1, None]}}
    assert split_card(join_card(front, "\n# Title\n"), "card") == (front, "\n# Title\n")
    assert split_card("# Title\n---\na: b\n---\n", "card") == ({}, "# Title\n---\na: b\n---\n")
    assert split_card("---\n---\nx", "card") == ({}, "x")


def test_what_is_sent_comes_back_image_for_image(run, hub, capsys):
    finished(run)
    command = ["publish", "run", "shared", "--push", NAME]
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr()
    repository = hub.repositories[NAME]
    assert repository.private
    assert f"{hub.endpoint}/{NAME} (private: only you" in said.out
    assert f"commit {repository.head}" in said.out
    assert TOKEN not in said.out + said.err
    sent = repository.commits[repository.head]
    assert {name: content for name, content in sent.items() if name != ".gitattributes"} == {
        name: Path("shared", name).read_bytes() for name in FILES
    }
    assert f"samgan sample hf:{NAME} --count 64".encode() in sent["README.md"]
    assert yaml.safe_load(sent["README.md"].split(b"---\n")[1])["license"] == "cc-by-4.0"
    samgan.sample("run", "from-run", 5, device="cpu")
    samgan.sample(f"hf:{NAME}", "from-hub", 5, device="cpu")
    for path in sorted(Path("from-run").glob("*.png")):
        assert Path("from-hub", path.name).read_bytes() == path.read_bytes()
    assert main([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["commit"] == repository.head  # nothing changed, so there is no new commit
    assert (again["repository"], again["private"], len(repository.commits)) == (NAME, True, 2)


def test_small_files_are_sent_as_such_where_the_hub_wants_that(run, hub):
    finished(run)
    hub.large = ()
    samgan.publish(run.path, "shared", push=NAME)
    assert not [request for request in hub.requests if "lfs" in request]
    assert open_model(Path(f"hf:{NAME}")).sha256 == load_model(run).sha256


def test_nothing_becomes_public_by_accident(run, hub):
    finished(run)
    hub.repositories[NAME] = Repository(private=False)
    with pytest.raises(UsageError, match="is public on the Hub: to upload to it, say --public as well"):
        samgan.publish(run.path, "shared", push=NAME)
    assert len(hub.repositories[NAME].commits) == 1
    assert samgan.publish(run.path, "shared", push=NAME, public=True).private is False
    assert samgan.publish(run.path, "shared", push="ward/new", public=True).private is False
    hub.repositories["ward/own"] = Repository(private=True)
    assert samgan.publish(run.path, "shared", push="ward/own", public=True).private is True


def test_a_repository_that_may_not_be_written_to(run, hub, monkeypatch, capsys):
    finished(run)
    for name, token, words in (
        ("others/x-rays", TOKEN, "refuses (403): set HF_TOKEN, or run hf auth login, with a token that may do this"),
        (NAME, "hf_wrong", "refuses (401): set HF_TOKEN"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        assert main(["publish", "run", "shared", "--push", name]) == 1
        error = capsys.readouterr().err
        assert words in error
        assert "shared is complete: the same command tries the upload again" in error
        assert error.count("\n") == 1
        assert token not in error


def test_a_hub_that_refuses_the_card_says_why(run, hub):
    finished(run)
    card = Path("shared/README.md")
    card.write_text(card.read_text().replace("license: cc-by-4.0", "license: cc-by-4.0\nlanguage: klingon"))
    with pytest.raises(
        SamganError, match=r'^hf:ward/x-rays: ValueError: Invalid metadata in README.* "language" must be'
    ):
        samgan.publish(run.path, "shared", push=NAME)


def test_a_folder_that_cannot_be_written_is_not_half_written(run, monkeypatch):
    def full(*_):
        raise OSError(28, "no space")

    monkeypatch.setattr(sys.modules["samgan.trust.publishing"], "write_sheet", full)
    with pytest.raises(OSError, match="no space"):
        samgan.publish(run.path, "shared", draft=True)
    assert not Path("shared").exists()
