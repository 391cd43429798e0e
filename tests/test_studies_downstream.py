"""The whole of `samgan utility` on phantoms: what it reads, trains, writes and refuses."""

import contextlib
import csv
import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from samgan.commands.main import main
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError, UsageError
from samgan.networks import Generator
from samgan.pictures import to_uint8
from samgan.provenance import FORMATS, Sample
from samgan.runs import Run, save_checkpoint
from samgan.sampling import Model, load_model, sample, write_model
from samgan.studies import (
    ARMS,
    format_utility,
    utility,
)
from samgan.studies.downstream import check_held_out, read_synthetic, training_images
from samgan.trust.utility_document import UtilityDocument


def test_synthetic_images_fill_up_what_is_missing():
    real = {"a": np.zeros((5, 1, 2, 2), np.uint8), "b": np.zeros((2, 1, 2, 2), np.uint8)}
    made = {"a": np.ones((5, 1, 2, 2), np.uint8), "b": np.ones((5, 1, 2, 2), np.uint8)}
    lacking = {"a": 0, "b": 3}

    def counts(arm):
        images, labels, of_real = training_images(arm, real, made, lacking)
        assert of_real.tolist() == [value == 0 for value in images[:, 0, 0, 0]]
        return Counter(zip(labels.tolist(), images[:, 0, 0, 0].tolist(), strict=True))

    assert counts(ARMS["real"]) == {(0, 0): 5, (1, 0): 2}
    assert counts(ARMS["real and synthetic"]) == {(0, 0): 5, (1, 0): 2, (1, 1): 3}
    assert counts(ARMS["synthetic alone"]) == {(0, 1): 5, (1, 1): 5}
    pre_trained = ARMS["augmentation, pre-trained on synthetic, then real"]
    assert counts(pre_trained) == {(0, 0): 5, (1, 0): 2, (0, 1): 5, (1, 1): 5}
    assert counts(ARMS["augmentation, real and synthetic drawn alike"]) == counts(ARMS["real and synthetic"])
    in_every_class = ARMS["augmentation, real and synthetic drawn alike in every class"]
    assert counts(in_every_class) == counts(pre_trained)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Phantoms of two classes, half of one class taken away."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 80, resolution=32)
    prepared = prepare(folder / "images", folder / "data", resolution=32, holdout=0.3, workers=1)
    with open(prepared.path / "manifest.csv", newline="") as file:
        kept = [row for row in csv.DictReader(file) if row["split"] == "train" and row["class"] == "NORMAL"][30:]
    for row in kept:
        (folder / "images" / row["source"]).unlink()
    return prepare(folder / "images", folder / "less", resolution=32, holdout=0.3, workers=1)


def test_a_model_that_is_told_the_class_makes_images_of_the_one_that_lacks_some(
    data, tiny_config, tmp_path, monkeypatch
):
    config = tiny_config.override({"network.num_classes": 2, "data.classes": ["NORMAL", "PNEUMONIA"]})
    run = Run.create(tmp_path / "run", config)
    weights = Generator(config.network).state_dict()
    state = {"config": config.to_dict(), "step": 1, "images_seen": 4}
    save_checkpoint(run.checkpoint_path(1), {**state, "generator": weights, "ema_generator": weights})
    model = load_model(run)
    write_model(model, tmp_path / "model.safetensors")
    expected = to_uint8(sample(model, range(3), model.labels(range(3), "PNEUMONIA"))).numpy()
    assert (expected != to_uint8(sample(model, range(3), model.labels(range(3), "NORMAL"))).numpy()).any()
    for source in (run.path, tmp_path / "model.safetensors"):
        np.testing.assert_array_equal(read_synthetic("PNEUMONIA", source, 3, data, "cpu").images, expected)
    untold = config.override({"network.num_classes": 0})
    untold_model = Model(Generator(untold.network), untold, 4, "0" * 64)
    monkeypatch.setattr("samgan.sampling.source.open_model", lambda *_, **__: untold_model)
    with pytest.raises(UsageError, match="trained on NORMAL, PNEUMONIA, not only on PNEUMONIA"):
        read_synthetic("PNEUMONIA", tmp_path / "untold.safetensors", 3, data, "cpu")
    of_all = untold.override({"data.classes": []})  # as a row of the paper without --classes
    untold_model = Model(Generator(of_all.network), of_all, 4, "0" * 64, (data.sha256,))
    with pytest.raises(UsageError, match="trained on NORMAL, PNEUMONIA, not only on PNEUMONIA"):
        read_synthetic("PNEUMONIA", tmp_path / "untold.safetensors", 3, data, "cpu")


@pytest.mark.parametrize("file_format", ["png", "npz"])
def test_samples_that_say_they_are_of_another_class_are_refused(data, tiny_config, tmp_path, file_format):
    config = tiny_config.override({"network.num_classes": 2, "data.classes": ["NORMAL", "PNEUMONIA"]})
    model = Model(Generator(config.network), config, 4, "0" * 64)
    for names in (("NORMAL",), ("NORMAL", "PNEUMONIA")):
        marks = [model.mark(seed, model.classes.index(name)) for seed, name in enumerate(names)]
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        FORMATS[file_format].write(
            folder, [Sample(np.zeros((1, 32, 32), np.uint8), mark) for mark in marks], len(marks)
        )
    assert len(read_synthetic("NORMAL", tmp_path / "NORMAL", 1, data, "cpu").images) == 1
    with pytest.raises(UsageError, match="expected images of NORMAL only, but their marks name PNEUMONIA"):
        read_synthetic("NORMAL", tmp_path / "NORMAL-PNEUMONIA", 1, data, "cpu")
    with pytest.raises(UsageError, match="expected images of PNEUMONIA only, but their marks name NORMAL"):
        read_synthetic("PNEUMONIA", tmp_path / "NORMAL", 1, data, "cpu")


def test_a_class_without_training_images_is_told(data, tmp_path):
    images = {name: np.zeros((200, 1, 32, 32), np.uint8) for name in data.classes}
    rows = data.manifest
    held_out = [dataclasses.replace(row, split="holdout") if row.class_name == "NORMAL" else row for row in rows]
    without = dataclasses.replace(data, manifest=held_out)
    with pytest.raises(SamganError, match="no training images of NORMAL: leave it out with --classes"):
        utility(without, images, tmp_path / "out", seeds=2, steps=1)


def test_images_of_unknown_origin_are_said_to_be(data, tmp_path):
    images = data.select("train", ["NORMAL"])
    np.save(tmp_path / "images.npy", images)
    assert read_synthetic("NORMAL", images, 3, data, "cpu").notes == []
    (note,) = read_synthetic("NORMAL", tmp_path / "images.npy", 3, data, "cpu").notes
    assert "It is not known what made images.npy" in note
    assert "must not have seen any held-out patient" in note


def test_the_command_tests_every_arm_on_held_out_patients_only(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("samgan.studies.classifier.BATCH_SIZE", 8)
    counts = data.info.counts
    lacking = counts["PNEUMONIA"]["train"] - counts["NORMAL"]["train"]
    assert lacking > 0
    np.save(tmp_path / "normal.npy", data.select("train", ["NORMAL"])[:lacking].repeat(2, axis=0))
    command = [
        "utility",
        str(data.path),
        "--synthetic",
        f"NORMAL={tmp_path / 'normal.npy'}",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--seeds", "2", "--steps", "3", "--json", "--device", "cpu"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document["arms"]) == [name for name, arm in ARMS.items() if not arm.whole]
    assert set(document["skipped"]) == {name for name, arm in ARMS.items() if arm.whole}
    assert {"synthetic alone", "augmentation, pre-trained on synthetic, then real"} < set(document["skipped"])
    assert "PNEUMONIA" in document["skipped"]["synthetic alone"]
    assert document["smallest"] == "NORMAL"
    assert document["held_out"]["images"] == sum(split["holdout"] for split in counts.values())
    assert document["classes"]["NORMAL"] == {"real": counts["NORMAL"]["train"], "synthetic": lacking}
    read = UtilityDocument.read(tmp_path / "out" / "utility.json")
    assert document["verdict"] in format_utility(read)
    assert "It is not known what made normal.npy" in format_utility(read)
    page = (tmp_path / "out" / "utility.html").read_text()
    assert "real and synthetic" in page
    assert json.loads((tmp_path / "out" / "utility.json").read_text()) == document


def test_a_stopped_test_goes_on_and_other_images_are_other_classifiers(data, tmp_path, monkeypatch):
    monkeypatch.setenv("SAMGAN_CACHE", str(tmp_path / "cache"))
    counts = data.info.counts
    synthetic = {"NORMAL": data.select("train", ["NORMAL"])[: counts["PNEUMONIA"]["train"] - counts["NORMAL"]["train"]]}
    asked = []

    def train_classifier(images, labels, arm, classes, *, seed, **_):
        asked.append((arm, seed))
        if len(asked) == 6:
            raise KeyboardInterrupt
        return len(asked)

    monkeypatch.setattr("samgan.studies.classifier.train_classifier", train_classifier)
    monkeypatch.setattr(
        "samgan.studies.classifier.predict",
        lambda network, test: np.random.default_rng(network).dirichlet([1, 1], len(test)),
    )
    with pytest.raises(KeyboardInterrupt):
        utility(data, synthetic, tmp_path / "out", seeds=2, steps=1)
    document, _ = utility(data, synthetic, tmp_path / "out", seeds=2, steps=1)
    arms = sum(not arm.whole for arm in ARMS.values())
    assert len(asked) == 2 * arms + 1  # the one that was cut off was done again, no other
    assert utility(data, synthetic, tmp_path / "out", seeds=2, steps=1)[0] == document
    assert len(asked) == 2 * arms + 1
    other = {"NORMAL": synthetic["NORMAL"] // 2}
    utility(data, other, tmp_path / "other", seeds=2, steps=1)
    mixed = {arm for arm in ARMS.values() if arm.synthetic and not arm.whole}
    assert {arm for arm, _ in asked[2 * arms + 1 :]} == mixed
    damaged = next((tmp_path / "cache" / "classifiers").iterdir())
    damaged.write_bytes(b"nothing")
    utility(data, other, tmp_path / "other", seeds=2, steps=1)
    utility(data, synthetic, tmp_path / "other", seeds=2, steps=1)
    assert len(asked) == 2 * arms + 1 + 8 + 1


def test_as_many_as_asked_for_stand_beside_real_ones_and_all_of_them_alone(data, tmp_path, monkeypatch):
    seen = {}

    def classify(images, labels, of_real, test, arm, classes, **_):
        seen[arm] = Counter(zip(labels.tolist(), of_real.tolist(), strict=True))
        return np.full((len(test), classes), 1 / classes)

    monkeypatch.setattr("samgan.studies.downstream.classify", classify)
    synthetic = {name: data.select("train", [name])[:20] for name in data.classes}
    beside = {"NORMAL": 7, "PNEUMONIA": 0}
    document, _ = utility(data, synthetic, tmp_path / "out", beside=beside, seeds=2, steps=1)
    assert not document.skipped
    assert seen.keys() == set(ARMS.values())
    real = {(label, True): data.info.counts[name]["train"] for label, name in enumerate(data.classes)}
    alone = {(0, False): 20, (1, False): 20}
    assert seen[ARMS["real and synthetic"]] == {**real, (0, False): 7}
    assert seen[ARMS["synthetic alone"]] == alone
    assert seen[ARMS["augmentation, pre-trained on synthetic, then real"]] == real | alone
    assert {name: counts.synthetic for name, counts in document.classes.items()} == beside


def test_the_first_document_that_is_written_names_the_models_that_were_given(data, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("samgan.studies.classifier.BATCH_SIZE", 8)
    monkeypatch.setattr(UtilityDocument, "write", lambda document, path: written.append(document.models))
    images = data.select("train", ["PNEUMONIA"])
    utility(data, {"NORMAL": images}, tmp_path, seeds=2, steps=1, device="cpu", models={"NORMAL": "ab" * 32})
    assert written == [{"NORMAL": "ab" * 32}]


def test_images_of_another_size_are_fitted_and_that_is_noted(data, tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (20, 64, 64), np.uint8)
    np.save(tmp_path / "large.npy", large)
    read = read_synthetic("NORMAL", tmp_path / "large.npy", 20, data, "cpu")
    assert read.images.shape == (20, 1, 32, 32)
    assert read.notes[-1].startswith("NORMAL: 20 images of 64x64 px were fitted to 32x32 px as ")


def test_few_held_out_patients_are_refused(data):
    """Of two to four patients the interval is far too narrow, whatever the number of images."""
    rows = data.manifest
    held_out = [row.index for row in rows if (row.split, row.class_name) == ("holdout", "NORMAL")]
    for people, words in ((7, "of 8 or more patients; found .* of 7;"), (8, None)):
        of = {index: f"p{place % people}" for place, index in enumerate(held_out)}
        few = dataclasses.replace(
            data, manifest=[dataclasses.replace(r, patient=of.get(r.index, r.patient)) for r in rows]
        )
        with pytest.raises(SamganError, match=words) if words else contextlib.nullcontext():
            check_held_out(few, data.classes)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"classes": ["NORMAL"]}, UsageError, "two classes or more"),
        ({"seeds": 1}, UsageError, "--seeds 1"),
        ({"synthetic": {"HEART": "normal.npy"}}, UsageError, "--synthetic HEART"),
        ({"synthetic": {"NORMAL": "few.npy"}}, SamganError, "NORMAL needs [0-9]+ synthetic images"),
        ({"synthetic": {"NORMAL": np.zeros((200, 1, 64, 64), np.uint8)}}, SamganError, "expected images of"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_trained(data, tmp_path, change, error, words, monkeypatch):
    np.save(tmp_path / "normal.npy", np.zeros((200, 32, 32), np.uint8))
    np.save(tmp_path / "few.npy", np.zeros((1, 32, 32), np.uint8))
    given = {"synthetic": {"NORMAL": "normal.npy"}, **change}
    named = given.pop("synthetic").items()
    sources = {name: tmp_path / source if isinstance(source, str) else source for name, source in named}
    monkeypatch.setattr("samgan.studies.downstream.classify", None)
    with pytest.raises(error, match=words):
        utility(data, sources, tmp_path / "out", **given)
