"""The whole of `samgan balance` on phantoms: what is made, that it goes on, and that it refuses what does not fit."""

import csv
import dataclasses
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samgan import api
from samgan.commands.main import main
from samgan.config import Config
from samgan.data import PreparedSet, prepare
from samgan.data.phantom import phantoms, write_phantoms
from samgan.data.subset import subset
from samgan.errors import SamganError, UsageError
from samgan.files import locked
from samgan.metrics.feature_networks import FeaturesUnavailable
from samgan.metrics.feature_networks.inception import INCEPTION
from samgan.metrics.feature_networks.weights import file_name
from samgan.metrics.features import FeatureExtractor
from samgan.metrics.load_features import load_features
from samgan.networks import Generator
from samgan.presets import preset_config
from samgan.sampling import Model
from samgan.studies import BalanceDocument, BalanceRequest, balance, balance_stages
from samgan.studies.balance_documents import Plan
from samgan.studies.balance_plan import keep_plan, make_plan
from samgan.trust import REASONS, Screen, Screened

module = importlib.import_module("samgan.studies.balancing")

COMMITTED = Path(__file__).parents[1] / "results" / "balance"
SETTINGS = {"network.max_channels": 8, "network.mapping_layers": 0, "training.kimg": 0.032, "training.batch_size": 8}
SETTINGS |= {"training.log_every_kimg": 0.008, "training.snapshot_every_kimg": 0.016}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 70, resolution=32)
    prepared = prepare(folder / "images", folder / "all", resolution=32, holdout=0.3, workers=1)
    subset(prepared, folder / "data", images={"NORMAL": 30})
    return folder


@pytest.fixture
def data(folder):
    return PreparedSet.open(folder / "data")


@pytest.fixture
def config():
    return preset_config("samgan-plus", None, 32).override(SETTINGS)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def unavailable(*_, **__):
        raise FeaturesUnavailable("no weights here")

    monkeypatch.setattr("samgan.metrics.load_features.load_features", unavailable)


def thumbnails():
    """Features of no network: the image, small."""

    def network(images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)

    return FeatureExtractor(network, name="thumbnails", sha256="ab" * 32, device=torch.device("cpu"))


@pytest.fixture
def lenient(monkeypatch):
    """A screen that lets four images of five through: after 32 images nothing else would be fit."""

    def screen(self, images, kept=None):
        count = len(images)
        reason = ["failed" if place % 5 == 4 else "" for place in range(count)]
        return Screened(reason, np.zeros(count, np.int64), {"pixels": np.full(count, 0.5)}, None)

    monkeypatch.setattr(Screen, "__call__", screen)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("always")
def test_the_command_makes_the_set_and_goes_on_where_it_stopped(folder, data, tmp_path, lenient, capsys, monkeypatch):
    """Long because the run is slow, so that one run is checked from end to end."""
    monkeypatch.setattr("samgan.studies.classifier.BATCH_SIZE", 8)
    out = tmp_path / "out"
    command = ["balance", str(data.path), str(out), "--originals", str(folder / "images"), "--json", "--device", "cpu"]
    command += [
        "--seeds",
        "2",
        "--steps",
        "2",
        "--minutes",
        "1",
        *(f"--{key}={value}" for key, value in SETTINGS.items()),
    ]
    stages = ("training.json", "screening.json", "set", "utility/utility.json", "balance.json")
    for name in ("screen_images", "write_set", "_test", "write_report"):  # stopped in each of its stages
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stop)
            assert main(command) == 1
        assert "stopped here" in capsys.readouterr().err
    written = [(out / name).stat().st_mtime_ns for name in ("training.json", "set/manifest.csv")]
    left = out / ".training.json.999999999.tmp"  # by a call that was killed when it wrote that file anew
    left.touch()
    assert main(command) == 0
    assert not left.exists()
    document = json.loads(capsys.readouterr().out)
    kept = ("training.json", "set/manifest.csv")
    assert [(out / name).stat().st_mtime_ns for name in kept] == written
    assert all((out / name).exists() for name in stages)
    counts = {name: len(data.indices("train", [name])) for name in data.classes}
    missing = counts["PNEUMONIA"] - counts["NORMAL"]
    assert document["counts"] == {
        "NORMAL": {"real": counts["NORMAL"], "synthetic": missing},
        "PNEUMONIA": {"real": counts["PNEUMONIA"], "synthetic": 0},
    }
    screened = read(out / "screening.csv")
    assert [int(row["seed"]) for row in screened] == list(range(len(screened)))
    assert sum(not row["reason"] for row in screened) == missing
    assert {row["reason"] for row in screened} <= {"", *REASONS}
    rows = read(out / "set" / "manifest.csv")
    assert rows == [{k: str(v) for k, v in row.items()} for row in filled(out / "set" / "manifest.json", rows[0])]
    assert {path.relative_to(out / "set").as_posix() for path in (out / "set").rglob("*.png")} == {
        r["file"] for r in rows
    }
    for row in rows:
        path = out / "set" / row["file"]
        assert row["file"].startswith(f"{row['split']}/{row['class']}/")
        if row["origin"] == "real":
            assert path.is_symlink()
            assert path.read_bytes() == (folder / "images" / row["source"]).read_bytes()
        else:
            text = Image.open(path).text
            assert (text["Synthetic"], text["Class"], text["Seed"]) == ("true", "NORMAL", row["seed"])
            assert text["Model-SHA256"] == row["model_sha256"]
            assert row["split"] == "train"
    made = [out / "set" / row["file"] for row in rows if row["origin"] == "synthetic"]
    assert len(made) == missing
    assert {found.verdict for found in api.verify(made, out / "models" / "joint", device="cpu")} == {"regenerated"}
    assert sum(row["split"] == "holdout" for row in rows) == len(data.indices("holdout"))
    assert document["utility"]["classes"]["NORMAL"]["synthetic"] == missing
    assert document["utility"]["classes"]["PNEUMONIA"]["synthetic"] == 0
    assert not document["utility"]["skipped"]  # the model makes images of every class
    held_out = len(data.indices("holdout", ["NORMAL"]))
    cards = {"Model": out / "models" / "joint" / "MODEL_CARD.md", "Data": out / "set" / "DATA_CARD.md"}
    for kind, path in cards.items():
        card = path.read_text()
        assert f"# {kind} card" in card
        assert document["training"]["NORMAL"]["sha256"] in card
        assert "with labels of 2 classes" in card
        assert str(folder) not in card
    assert document["utility"]["models"] == {"NORMAL": document["training"]["NORMAL"]["sha256"]}
    assert f"| NORMAL | {counts['NORMAL']} | {held_out} | {missing} |" in card
    assert "AUC" in card.partition("## Whether the images help")[2].partition("## Limits")[0]
    assert str(folder) not in (out / "set" / "manifest.json").read_text()
    page = (out / "report.html").read_text()
    for words in ("near-copy: nearer", "Audit of NORMAL", "utility/utility.html", "Synthetic, NORMAL"):
        assert words in page
    assert main([*command, "--method", "per-class"]) == 2
    assert "begun with --method 'joint', and this command asks for 'per-class'" in capsys.readouterr().err


def stop(*_, **__):
    raise SamganError("stopped here")


def filled(path, columns):
    return [dict.fromkeys(columns, "") | row for row in json.loads(path.read_text())["images"]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["per-class", "fine-tuned"])
def test_other_methods_train_what_they_say(data, config, tmp_path, lenient, method):
    out = tmp_path / "out"
    document, _ = balance(
        data, out, BalanceRequest(config=config, method=method, minutes=1.0, seeds=0, device="cpu", target="0.9")
    )
    runs = {path.name: json.loads((path / "config.json").read_text()) for path in (out / "models").iterdir()}
    own = {"class-0": ["NORMAL"]} | ({"all": ["NORMAL", "PNEUMONIA"]} if method == "fine-tuned" else {})
    assert {name: run["data"]["classes"] for name, run in runs.items()} == own
    assert all(run["network"]["num_classes"] == 0 for run in runs.values())
    if method == "fine-tuned":
        environment = json.loads((out / "models" / "class-0" / "environment.json").read_text())
        assert environment["start"]["run"] == "all"
    rows = read(out / "set" / "manifest.csv")
    assert {row["file"].rpartition("/")[0] for row in rows if row["origin"] == "real"} == {
        f"{split}/{name}" for split in ("train", "holdout") for name in data.classes
    }
    assert document.utility is None
    # A finished model is used as it is, if it was trained on this same set.
    given = {"NORMAL": out / "models" / "class-0"}
    again, _ = balance(
        data,
        tmp_path / "again",
        BalanceRequest(config=config, runs=given, seeds=0, device="cpu", file_format="dicom", target="0.9"),
    )
    assert again.counts == document.counts
    assert (
        len(list((tmp_path / "again" / "set" / "train" / "NORMAL").glob("*.dcm"))) == again.counts["NORMAL"].synthetic
    )
    if method == "fine-tuned":
        with pytest.raises(UsageError, match="NORMAL, PNEUMONIA, without being told which is which"):
            balance(data, tmp_path / "x", BalanceRequest(config=config, runs={"NORMAL": out / "models" / "all"}))
    with pytest.raises(UsageError, match="cannot make images of PNEUMONIA: it was trained on NORMAL"):
        balance(data, tmp_path / "x", BalanceRequest(config=config, runs={"": given["NORMAL"]}, target="300"))
    with pytest.raises(UsageError, match="trained on other data"):
        balance(
            PreparedSet.open(data.path.with_name("all")),
            tmp_path / "x",
            BalanceRequest(config=config, runs={"": given["NORMAL"]}, target="300"),
        )


@pytest.mark.filterwarnings("ignore")
def test_where_too_few_are_fit_to_stay_the_report_says_so(data, config, tmp_path, monkeypatch):
    def screen(self, images, kept=None):
        count = len(images)
        return Screened(["failed"] * count, np.zeros(count, np.int64), {"pixels": np.ones(count)}, None)

    monkeypatch.setattr(Screen, "__call__", screen)
    document, page = balance(
        data, tmp_path / "out", BalanceRequest(config=config, minutes=1.0, seeds=2, steps=1, device="cpu")
    )
    found = document.screening["NORMAL"]
    assert (found.kept, found.candidates) == (0, 5 * found.missing)
    assert "and left out the other" in page.read_text()
    assert document.utility is None
    assert "utility" in {left_out.what for left_out in document.skipped}


@pytest.mark.filterwarnings("ignore")
def test_images_are_screened_by_features_and_a_classifier_and_of_the_model_of_the_folder(
    data, config, tmp_path, monkeypatch
):
    monkeypatch.setattr(balance_stages, "choose_features", lambda *_, **__: (thumbnails(), ""))
    train = balance_stages.train_classifier
    monkeypatch.setattr(
        balance_stages, "train_classifier", lambda *given, **more: train(*given, **{**more, "steps": 2})
    )
    out = tmp_path / "out"
    document, _ = balance(
        data, out, BalanceRequest(config=config, minutes=1.0, seeds=0, confidence=0.5, device="cpu", target="0.8")
    )
    found = document.screening["NORMAL"]
    assert found.features == "thumbnails"
    assert any("a classifier trained on real images" in rule for rule in found.rules)
    assert any("distance of features" in rule for rule in found.rules)
    rows = read(out / "screening.csv")
    assert all(float(row["distance_features"]) > 0 and 0 <= float(row["confidence"]) <= 1 for row in rows)
    assert sum(found.left_out.values()) + found.kept == found.candidates == len(rows)


@pytest.mark.filterwarnings("ignore")
def test_near_duplicates_set_no_limit(data, config, tmp_path, monkeypatch):
    first, second, third = data.indices("train", ["NORMAL"])[:3].tolist()
    rows = [dataclasses.replace(row, near_duplicate_of=first) if row.index == second else row for row in data.manifest]
    seen = {}

    def init(self, training, own, patients, **_):
        seen.update(zip(data.indices("train").tolist(), patients, strict=True))
        raise SamganError("stopped here")

    monkeypatch.setattr(Screen, "__init__", init)
    with pytest.raises(SamganError, match="stopped here"):
        balance(
            dataclasses.replace(data, manifest=rows),
            tmp_path / "out",
            BalanceRequest(config=config, minutes=1.0, device="cpu"),
        )
    assert seen[first] == seen[second] == data.manifest[first].patient
    assert seen[third] == data.manifest[third].patient


def test_one_image_does_not_stay_of_two_classes(monkeypatch, tiny_config):
    images = torch.from_numpy(phantoms(60, 32, pneumonia=False))
    screen = Screen(images, np.arange(30), [str(index) for index in range(60)])
    screen.limits = {"pixels": (0.0, 2.0)}  # nothing is too near or too far
    monkeypatch.setattr(balance_stages, "sample", lambda model, seeds, labels: images[list(seeds)])
    monkeypatch.setattr(balance_stages, "to_uint8", lambda made: made)
    monkeypatch.setattr(balance_stages, "labels_of", lambda *_: None)
    model = Model(Generator(tiny_config.network), tiny_config, 0, "")
    kept = []
    first = list(balance_stages.candidates(screen, model, "a", 6, kept))
    assert [row.reason for row in first] == [""] * 6
    second = list(balance_stages.candidates(screen, model, "b", 6, kept))
    assert [row.reason for row in second] == ["duplicate"] * 6 + [""] * 6
    assert len(kept) == 12


@pytest.mark.filterwarnings("ignore")
def test_a_folder_goes_on_with_what_it_was_begun_with(folder, data, config, tmp_path, lenient):
    given = {"minutes": 1.0, "seeds": 0, "device": "cpu", "target": "0.9", "originals": folder / "images"}
    balance(data, tmp_path / "out", BalanceRequest(config=config, copies=True, **given))
    real = [row for row in read(tmp_path / "out" / "set" / "manifest.csv") if row["origin"] == "real"]
    for row in real:
        path = tmp_path / "out" / "set" / row["file"]
        assert not path.is_symlink()
        assert path.name.endswith(Path(row["source"]).name)
        assert path.read_bytes() == (folder / "images" / row["source"]).read_bytes()
    with pytest.raises(UsageError, match=r"begun with --copies true, and this command asks for false"):
        balance(data, tmp_path / "out", BalanceRequest(config=config, **given))
    path = tmp_path / "out" / "plan.json"
    plan = json.loads(path.read_text())
    del plan["config"]["training"]["rate_decay_kimg"]  # an earlier version, which had no such setting
    path.write_text(json.dumps(plan))
    balance(data, tmp_path / "out", BalanceRequest(config=config, copies=True, **given))
    plan["config"]["training"]["warmth"] = 1
    for content, words in (
        ("{", "is not valid JSON"),
        ("[]", "expected a plan"),
        (json.dumps({**plan, "minutes": "x"}), "is not a plan .*Expected float, got str - at minutes"),
        (json.dumps(plan), "belongs to another version .*warmth"),
    ):
        path.write_text(content)
        with pytest.raises(SamganError, match=rf"plan.json.* {words}.*new folder"):
            balance(data, tmp_path / "out", BalanceRequest(config=config, copies=True, **given))


@pytest.mark.filterwarnings("ignore")
def test_one_call_at_a_time_uses_a_folder_and_a_set_that_lacks_a_file_is_refused(data, config, tmp_path, lenient):
    request = BalanceRequest(config=config, seeds=0, minutes=1.0, device="cpu", target="0.9")
    out = tmp_path / "out"
    balance(data, out, request)
    with locked(out, ""), pytest.raises(SamganError, match="out is in use by another samgan balance; wait for it"):
        balance(data, out, request)
    real = next(out.glob("set/*/*/real-*.png"))
    real.unlink()
    with pytest.raises(SamganError, match=rf"set: expected the \d+ files of .* 1 are missing, such as .*{real.name}"):
        balance(data, out, request)


def test_links_that_cannot_be_made_are_refused_before_the_training(folder, data, config, tmp_path, monkeypatch):
    def refuse(path, target):
        raise OSError(22, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    given = {"minutes": 1.0, "seeds": 0, "device": "cpu", "target": "0.9", "originals": folder / "images"}
    with pytest.raises(UsageError, match=r"no links .* \(A required privilege .*\); add --copies"):
        balance(data, tmp_path / "out", BalanceRequest(config=config, **given))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_a_given_model_that_was_trained_on_is_another_model(data, config, tmp_path, lenient):
    own = config.override({"data.classes": ["NORMAL"], "training.kimg": 0.016})
    run = api.train(own, data, tmp_path / "run", device="cpu", quiet=True)
    given = {"runs": {"NORMAL": run.path}, "seeds": 0, "device": "cpu", "target": "0.9"}
    balance(data, tmp_path / "out", BalanceRequest(config=config, **given))
    api.train(own.override({"training.kimg": 0.032}), data, run.path, resume=True, device="cpu", quiet=True)
    with pytest.raises(SamganError, match=r"is no longer the model that .*out was begun with"):
        balance(data, tmp_path / "out", BalanceRequest(config=config, **given))


@pytest.mark.filterwarnings("ignore")
def test_the_last_stage_may_be_done_anew(data, config, tmp_path, lenient, monkeypatch):
    asked = []
    committed = BalanceDocument.read(COMMITTED / "100-joint" / "balance.json").utility
    monkeypatch.setattr(module, "write_report", lambda *_: None)

    hashes = {}

    def utility(*_, seeds, steps, models, **__):
        hashes.update(models)
        asked.append((seeds, steps))
        return dataclasses.replace(committed, seeds=seeds, steps=steps), None

    monkeypatch.setattr(module, "utility", utility)
    monkeypatch.setattr(module, "write_cards", lambda *_: None)
    given = {"minutes": 1.0, "device": "cpu", "target": "0.9"}
    for seeds in (2, 2, 5):
        document, _ = balance(data, tmp_path / "out", BalanceRequest(config=config, seeds=seeds, steps=3, **given))
        assert document.utility.seeds == seeds
    assert asked == [(2, 3), (5, 3)]
    earlier = tmp_path / "out" / "utility" / "utility.json"
    earlier.write_text('{"decision": {}, "verdict": ""}')  # as an earlier version wrote it
    balance(data, tmp_path / "out", BalanceRequest(config=config, seeds=5, steps=3, **given))
    assert asked == [(2, 3), (5, 3), (5, 3)]
    assert hashes == {name: model.sha256 for name, model in document.training.items()}
    (left := tmp_path / "out" / ".set.1.tmp").mkdir()
    (tmp_path / "out" / "set" / "manifest.json").unlink()
    shutil.rmtree(tmp_path / "out" / "set")
    balance(data, tmp_path / "out", BalanceRequest(config=config, seeds=5, steps=3, **given))
    assert not left.exists(), "what a killed call left is gone"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "magic"}, "--method magic"),
        ({"classes": ["NORMAL"]}, "expected two or more classes"),
        ({"confidence": 1.0}, "--confidence 1"),
        ({"file_format": "gif"}, "--format gif"),
        ({"minutes": 0.0}, "--minutes 0"),
        ({"originals": Path("nowhere")}, "--originals nowhere"),
        ({"seeds": 1}, "--seeds 1"),
        ({"steps": 0}, "--steps 0"),
        ({"features": "nowhere.pt2"}, "nowhere.pt2"),
        ({"runs": {"PNEUMONIA": Path("run")}}, "CLASS=RUN for NORMAL"),
        ({"data": "without", "target": "1000"}, "held-out images of NORMAL.* or leave the test out with --seeds 0"),
    ],
)
def test_wrong_use_is_told_before_anything_is_made(data, config, tmp_path, change, words, monkeypatch):
    if "features" in change:
        monkeypatch.setattr("samgan.metrics.load_features.load_features", load_features)
    if change.pop("data", None):
        rows = [dataclasses.replace(row, split="train") for row in data.manifest]
        data = dataclasses.replace(data, manifest=rows)
    with pytest.raises(SamganError, match=words):
        balance(data, tmp_path / "out", BalanceRequest(config=config, **change))
    assert not (tmp_path / "out").exists()


def test_a_folder_goes_on_with_the_features_that_it_was_begun_with(
    data, config, tmp_path, monkeypatch, capsys, radiograph
):
    class Planned(Exception):
        """The plan is made; the training would take long."""

    def planned(*_, **__):
        raise Planned

    monkeypatch.setattr("samgan.metrics.load_features.load_features", load_features)
    monkeypatch.setattr(module, "train_models", planned)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    out = tmp_path / "out"
    folder = tmp_path / "torch/hub/checkpoints"
    for _ in range(2):
        with pytest.raises(Planned):
            balance(data, out, BalanceRequest(config=config, seeds=0, device="cpu"))
        assert Plan.read(out / "plan.json").features == "radiograph"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file_name(INCEPTION)).touch()  # now it would be the default
    assert "features: radiograph, which come with samgan" in capsys.readouterr().err


def test_a_class_of_two_models_is_told(data, tmp_path, capsys):
    assert main(["balance", str(data.path), str(tmp_path / "out"), "--run", "one", "two"]) == 2
    assert "--run two: all classes already has one" in capsys.readouterr().err


def test_a_class_of_too_few_images_is_told_before_anything_is_made(folder, config, tmp_path):
    few = subset(PreparedSet.open(folder / "all"), tmp_path / "few", images={"NORMAL": 12})
    with pytest.raises(SamganError, match="two patients of a class for its limits; there are 12 images of 12"):
        balance(few, tmp_path / "out", BalanceRequest(config=config))
    assert not (tmp_path / "out").exists()


def test_a_folder_begun_without_features_goes_on_with_those_that_are_there_by_now(data, config, tmp_path, capsys):
    plan = dataclasses.replace(make_plan(data, BalanceRequest(config=config, seeds=0), "cpu"), features=None)
    keep_plan(plan, tmp_path / "out")
    there = dataclasses.replace(plan, features="radiograph")
    with pytest.raises(UsageError, match=r"was begun with --minutes 60.0, and this command asks for 3.0; ask"):
        keep_plan(dataclasses.replace(there, minutes=3.0), tmp_path / "out")
    longer = Config.from_dict(there.config).override({"training.kimg": 50}).to_dict()
    kimg = there.config["training"]["kimg"]
    with pytest.raises(UsageError, match=f"was begun with training.kimg {kimg}, and this command asks for 50"):
        keep_plan(dataclasses.replace(there, config=longer), tmp_path / "out")
    assert Plan.read(tmp_path / "out/plan.json") == plan
    assert "were not available" not in capsys.readouterr().err
    keep_plan(there, tmp_path / "out")
    assert Plan.read(tmp_path / "out/plan.json") == there
    assert "radiograph features were not available when this folder was begun, and are now" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_a_file_of_a_stage_that_was_edited_by_hand_is_refused_in_one_line(data, config, tmp_path, lenient):
    asked, out = BalanceRequest(config=config, minutes=1.0, seeds=0, device="cpu", target="0.9"), tmp_path / "out"
    balance(data, out, asked)
    training, screening = (json.loads((out / f"{name}.json").read_text()) for name in ("training", "screening"))
    model, screened = training["models"]["NORMAL"], screening["classes"]["NORMAL"]
    header, first, second, *rest = (out / "screening.csv").read_text().splitlines(keepends=True)

    def models(**found):
        return "training.json", json.dumps({"schema": 1, "models": found})

    def classes(**found):
        return "screening.json", json.dumps({"schema": 1, "classes": found})

    def rows(*lines):
        return "screening.csv", "".join(lines)

    again = "remove it, and run the same command again"
    unfit = "screening.csv and plan.json do not agree on NORMAL.* remove screening.json, screening.csv, set, "
    for (name, content), words in (
        (("training.json", "{"), "is not valid JSON.*after removing it"),
        (models(), rf"\(NORMAL\), found none; {again}"),
        (models(OTHER=model), f"found OTHER; {again}"),
        (models(NORMAL={**model, "given": "x"}), "Expected bool, got str.*after removing it"),
        (models(NORMAL={**model, "path": "models/none"}), "is not a run folder"),
        (models(NORMAL={**model, "sha256": "0"}), "is no longer the model"),
        (("screening.json", "[]"), "expected a screening.*after removing it"),
        (classes(), f"found none; {again}"),
        (classes(NORMAL=screened, OTHER=screened), f"found NORMAL, OTHER; {again}"),
        (classes(NORMAL={**screened, "kept": "x"}), "Expected int, got str"),
        (classes(NORMAL={**screened, "kept": 1}), unfit),
        (classes(NORMAL={**screened, "left_out": {}}), unfit),
        (rows(), unfit),
        (rows(header, first), unfit),
        (rows(header, first, first, *rest), unfit),
        (rows(header, first.replace(",0,", ",\udcff,", 1), second, *rest), "screening.csv: cannot read the list"),
        (rows(header, first.replace(",0,", f",{1 << 64},", 1), second, *rest), "screening.csv|" + unfit),
        (rows(header, first.replace(",0,", ",x,", 1), second, *rest), "Expected int, got str - at seed"),
        (rows(header.replace("seed", "sown"), first, second, *rest), "no column 'seed'"),
    ):
        whole = (out / name).read_text()
        (out / name).write_text(content, errors="surrogateescape")
        with pytest.raises(SamganError, match=words) as refused:
            balance(data, out, asked)
        assert "\n" not in str(refused.value)
        (out / name).write_text(whole)
    (out / "training.json").write_text(json.dumps(training["models"]))  # as earlier versions wrote them
    (out / "screening.json").write_text(json.dumps(screening["classes"]))
    assert balance(data, out, asked)[0].screening["NORMAL"].kept == screened["kept"]
    manifest = (out / "set" / "manifest.csv").read_text()
    for written, words in (
        (
            "\n".join(manifest.splitlines()[:-1]),
            "and not the .* that screening.csv kept: remove set, audit and utility in",
        ),
        (manifest.replace("origin", "came"), "manifest.csv cannot be read"),
    ):
        (out / "set" / "manifest.csv").write_text(written)
        with pytest.raises(SamganError, match=words):
            balance(data, out, asked)
