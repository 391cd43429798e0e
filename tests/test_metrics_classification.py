"""Scores of a classifier: areas, weights, halves of the patients and intervals."""

import numpy as np
import pytest
from scipy import stats

from samgan.metrics.classification import halves, interval, scores, weighted_auc, weighted_scores
from samgan.studies import COMPARED, UTILITY_SCORES


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
    assert set(perfect) == set(UTILITY_SCORES)


def test_patients_stay_whole_and_each_class_is_shared_out_evenly():
    patients = [f"{index // 3}" for index in range(90)]
    truth = np.repeat([0, 1], [60, 30])
    second = halves(patients, truth)
    assert all(len(set(second[start : start + 3])) == 1 for start in range(0, 90, 3))
    assert [int(second[truth == k].sum()) for k in (0, 1)] == [30, 15]


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
