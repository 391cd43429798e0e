"""A classifier's scores, what they may be compared by, and the word on synthetic images."""

import csv
import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from samgan.commands.main import main
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError, UsageError
from samgan.metrics.classification import halves, interval, scores, weighted_auc, weighted_scores
from samgan.networks import Generator
from samgan.pictures import to_uint8
from samgan.provenance import FORMATS, Sample
from samgan.runs import Run, save_checkpoint
from samgan.sampling import Model, load_model, sample, write_model
from samgan.studies import (
    ARMS,
    CLASSICAL,
    COMPARED,
    SCORES,
    WITH_SYNTHETIC,
    compare,
    format_utility,
    utility,
)
from samgan.studies.downstream import read_synthetic, training_images
from samgan.trust.utility_document import UtilityDocument


def probabilities(positive):
    positive = np.asarray(positive, float)
    return np.stack([1 - positive, positive], axis=1)


def test_auc_is_that_of_mann_and_whitney_with_ties():
    draw = np.random.default_rng(0)
    truth = draw.integers(2, size=60)
    values = np.round(draw.random(60) + 0.2 * truth, 1)  # many ties
    expected = stats.mannwhitneyu(values[truth == 1], values[truth == 0]).statistic
    expected /= (truth == 1).sum() * (truth == 0).sum()
    assert weighted_auc(probabilities(values), truth, np.ones((1, 60)))[0] == pytest.approx(expected)


def test_a_weight_is_a_repetition():
    draw = np.random.default_rng(1)
    truth, values, times = draw.integers(2, size=40), draw.random(40), draw.integers(4, size=40)
    repeated = scores(probabilities(values.repeat(times)), truth.repeat(times), smallest=1)
    weighted = weighted_scores(probabilities(values), truth, 1, np.stack([np.ones(40), times]))
    for score in COMPARED:
        assert weighted[score][1] == pytest.approx(repeated[score])
    without = weighted_scores(probabilities(values), truth, 1, (truth == 0)[None].astype(float))
    assert np.isnan([without[score][0] for score in ("auc", "balanced_accuracy", "minority_recall")]).all()


def test_of_three_classes_it_is_the_mean_of_each_against_the_rest():
    draw = np.random.default_rng(2)
    truth, predicted = draw.integers(3, size=50), draw.dirichlet(np.ones(3), size=50)
    ones = np.ones((1, 50))
    each = [weighted_auc(probabilities(predicted[:, k]), (truth == k).astype(int), ones)[0] for k in range(3)]
    assert weighted_auc(predicted, truth, ones)[0] == pytest.approx(np.mean(each))


def test_scores_by_hand():
    truth = np.array([0, 0, 0, 1])
    found = scores(probabilities([0.1, 0.1, 0.9, 0.9]), truth, smallest=1)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["minority_recall"] == 1
    assert found["auc"] == pytest.approx(2.5 / 3)
    assert found["calibration_error"] == pytest.approx(abs(0.75 - 0.9))
    assert found["brier_score"] == pytest.approx(2 * (3 * 0.1**2 + 0.9**2) / 4)
    perfect = scores(probabilities([0, 0, 0, 1]), truth, smallest=1)
    assert perfect == {
        "auc": 1, "balanced_accuracy": 1, "minority_recall": 1, "brier_score": 0, "calibration_error": 0
    }  # fmt: skip
    assert set(perfect) == set(SCORES)


def arms_of(quality, seeds=4, images=200):
    """Made-up probabilities: the higher the quality, the farther the classes lie apart."""
    truth = np.arange(images) % 2
    patients = [f"patient {index // 2}" for index in range(images)]
    predicted = {}
    for name in ARMS:
        draws = [np.random.default_rng([seed, len(name)]).normal(size=images) for seed in range(seeds)]
        predicted[name] = [
            probabilities(1 / (1 + np.exp(-(noise + quality.get(name, 1.0) * truth)))) for noise in draws
        ]
    return predicted, truth, patients


@pytest.mark.parametrize(("gain", "word"), [(4.0, "helps"), (1.0, "no difference shown"), (0.0, "harms")])
def test_the_word_comes_from_the_interval(gain, word):
    quality = dict.fromkeys(WITH_SYNTHETIC, gain)
    found = compare(*arms_of(quality), smallest=1)
    assert found.verdict == found.decisions["auc"].verdict == word
    for decision in found.decisions.values():
        assert {arms.classical for arms in decision.chosen} <= set(CLASSICAL)
        assert {arms.synthetic for arms in decision.chosen} <= set(WITH_SYNTHETIC)
    assert len(found.differences) == len(CLASSICAL) * sum(arm.synthetic for arm in ARMS.values())
    for difference in [*(found.scores for found in found.differences), found.decisions]:
        for score in COMPARED:
            assert difference[score].low <= difference[score].mean <= difference[score].high


def test_of_the_brier_score_less_is_better():
    """Of every arm the likelier class is right 80 times in 100; only what these were said to be likely by differs."""
    truth = np.arange(400) % 2
    right = np.arange(400) // 2 % 5 > 0
    patients = [str(index) for index in range(400)]

    def predicted(confidence):
        return probabilities(np.where(right == (truth == 1), confidence, 1 - confidence))

    by_arm = {name: [predicted(0.8 if arm.synthetic else 0.99)] * 3 for name, arm in ARMS.items()}
    found = compare(by_arm, truth, patients, smallest=1)
    expected = sum(sign * 2 * (0.8 * (1 - p) ** 2 + 0.2 * p**2) for sign, p in ((1, 0.8), (-1, 0.99)))
    assert found.differences[0].scores["brier_score"].mean == pytest.approx(expected)
    assert found.decisions["brier_score"].verdict == "helps"
    assert found.decisions["balanced_accuracy"].verdict == "no difference shown"
    swapped = {name: [predicted(0.99 if arm.synthetic else 0.8)] * 3 for name, arm in ARMS.items()}
    assert compare(swapped, truth, patients, smallest=1).decisions["brier_score"].verdict == "harms"


def test_an_interval_lies_around_the_score_of_all_images():
    """That of the calibration error would not: of calibrated probabilities it is all noise, and drawing adds some."""
    draw = np.random.default_rng(0)
    sure = draw.random(600)
    truth = (draw.random(600) < sure).astype(int)
    predicted = {name: [probabilities(np.clip(sure + shift, 0, 1)) for shift in (0, 0.01, 0.02)] for name in ARMS}
    found = compare(predicted, truth, [str(index) for index in range(600)], smallest=1)
    for score in COMPARED:
        interval_of = found.intervals["real"][score]
        middle = (interval_of.low + interval_of.high) / 2
        assert abs(interval_of.mean - middle) < 0.1 * (interval_of.high - interval_of.low)


def test_of_a_few_patients_some_draws_have_none_of_a_half():
    predicted, truth, _ = arms_of({}, images=16)
    patients = [f"patient {2 * (index // 8) + index % 2}" for index in range(16)]
    found = compare(predicted, truth, patients, smallest=1)
    for score in COMPARED:
        assert np.isfinite([getattr(found.decisions[score], bound) for bound in ("low", "mean", "high")]).all()


def test_patients_stay_whole_and_each_class_is_shared_out_evenly():
    patients = [f"{index // 3}" for index in range(90)]
    truth = np.repeat([0, 1], [60, 30])
    second = halves(patients, truth)
    assert all(len(set(second[start : start + 3])) == 1 for start in range(0, 90, 3))
    assert [int(second[truth == k].sum()) for k in (0, 1)] == [30, 15]


def test_arms_are_measured_on_other_patients_than_those_they_are_chosen_by():
    """One arm knows every patient of one half and nobody of the other: what chooses it there must not count there."""
    predicted, truth, patients = arms_of({})
    second = halves(patients, truth)
    lucky, plain = WITH_SYNTHETIC[1], CLASSICAL[0]
    predicted[lucky] = [probabilities(np.where(second, truth, 0.5))] * 4
    for name in set(ARMS) - {lucky, plain, WITH_SYNTHETIC[0]}:
        predicted[name] = [probabilities(1 - truth)] * 4  # worse than anything
    decision = compare(predicted, truth, patients, smallest=1).decisions["auc"]
    chosen = {arms.synthetic: (arms.classical, arms.times) for arms in decision.chosen}
    assert chosen == {lucky: (plain, 4), WITH_SYNTHETIC[0]: (plain, 4)}
    ones = np.ones((1, 100))
    gains = [
        weighted_auc(predicted[name][seed][half], truth[half], ones)[0]
        - weighted_auc(predicted[plain][seed][half], truth[half], ones)[0]
        for seed in range(4)
        for name, half in ((lucky, ~second), (WITH_SYNTHETIC[0], second))
    ]
    assert decision.mean == pytest.approx(np.mean(gains))


def test_arms_are_measured_with_other_seeds_than_those_they_are_chosen_by():
    """One arm is perfect with one seed and blank with the others: chosen by that one, it is measured blank."""
    predicted, truth, patients = arms_of({}, seeds=2)
    lucky = WITH_SYNTHETIC[1]
    predicted[lucky] = [probabilities(truth), probabilities(0.5 * np.ones(len(truth)))]
    for name in set(ARMS) - {lucky, CLASSICAL[0]}:
        predicted[name] = [probabilities(1 - truth)] * 2
    decision = compare(predicted, truth, patients, smallest=1).decisions["auc"]
    assert max(arms.times for arms in decision.chosen) == 4
    plain = [weighted_auc(p, truth, np.ones((1, 200)))[0] for p in predicted[CLASSICAL[0]]]
    assert decision.low < np.mean([1 - plain[0], 0.5 - plain[1]]) < decision.high


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("patients_share", [0.1, 0.9])
def test_an_interval_holds_the_truth_as_often_as_it_says(seeds, patients_share):
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        deviation = np.sqrt(patients_share)
        of_seeds = deviation * draw.normal() + np.sqrt((1 - patients_share) * seeds) * draw.normal(size=seeds)
        found = np.concatenate([of_seeds[None], of_seeds + deviation * draw.normal(size=(400, 1))])
        limits = interval(found, draw.standard_t(seeds - 1, size=400))
        held += limits.low <= 0 <= limits.high
    assert 930 <= held <= 1000


def test_images_of_one_patient_are_drawn_together():
    """A hundred copies of each image are no more patients than one: the interval must not shrink."""
    predicted, truth, patients = arms_of({}, images=40)
    many = {name: [p.repeat(20, axis=0) for p in found] for name, found in predicted.items()}
    once = compare(predicted, truth, patients, smallest=1).intervals["real"]
    again = compare(many, truth.repeat(20), np.repeat(patients, 20).tolist(), smallest=1).intervals["real"]
    for score in COMPARED:
        width = once[score].high - once[score].low
        assert again[score].high - again[score].low == pytest.approx(width, rel=1e-6)


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


def test_a_model_that_is_told_of_classes_makes_images_of_the_one_that_lacks_some(
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
    with pytest.raises(UsageError, match="their marks say that there are images of PNEUMONIA"):
        read_synthetic("NORMAL", tmp_path / "NORMAL-PNEUMONIA", 1, data, "cpu")
    with pytest.raises(UsageError, match="their marks say that there are images of NORMAL"):
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
    assert "What made images.npy" in note
    assert "must not have seen any held-out patient" in note


def test_the_command_tests_every_arm_on_held_out_patients_alone(data, tmp_path, capsys):
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
    assert "What made normal.npy" in format_utility(read)
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


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"classes": ["NORMAL"]}, UsageError, "two classes or more"),
        ({"seeds": 1}, UsageError, "--seeds 1"),
        ({"synthetic": {"HEART": "normal.npy"}}, UsageError, "--synthetic HEART"),
        ({"synthetic": {"NORMAL": "few.npy"}}, SamganError, "NORMAL needs [0-9]+ synthetic images"),
        ({"synthetic": {"NORMAL": "large.npy"}}, SamganError, "expected images of"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_trained(data, tmp_path, change, error, words, monkeypatch):
    np.save(tmp_path / "normal.npy", np.zeros((200, 32, 32), np.uint8))
    np.save(tmp_path / "few.npy", np.zeros((1, 32, 32), np.uint8))
    np.save(tmp_path / "large.npy", np.zeros((200, 64, 64), np.uint8))
    given = {"synthetic": {"NORMAL": "normal.npy"}, **change}
    sources = {name: tmp_path / path for name, path in given.pop("synthetic").items()}
    monkeypatch.setattr("samgan.studies.downstream.classify", None)
    with pytest.raises(error, match=words):
        utility(data, sources, tmp_path / "out", **given)
