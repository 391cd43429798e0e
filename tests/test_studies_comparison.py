"""How classifiers with synthetic images and without are compared, and the verdict on synthetic images."""

import numpy as np
import pytest

from samgan.metrics.classification import halves, weighted_auc
from samgan.studies import ARMS, CLASSICAL, COMPARED, WITH_SYNTHETIC, compare


def probabilities(positive):
    positive = np.asarray(positive, float)
    return np.stack([1 - positive, positive], axis=1)


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


def test_images_of_one_patient_are_drawn_together():
    """A hundred copies of each image are no more patients than one: the interval must not shrink."""
    predicted, truth, patients = arms_of({}, images=40)
    many = {name: [p.repeat(20, axis=0) for p in found] for name, found in predicted.items()}
    once = compare(predicted, truth, patients, smallest=1).intervals["real"]
    again = compare(many, truth.repeat(20), np.repeat(patients, 20).tolist(), smallest=1).intervals["real"]
    for score in COMPARED:
        width = once[score].high - once[score].low
        assert again[score].high - again[score].low == pytest.approx(width, rel=1e-6)
