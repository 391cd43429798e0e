"""The linear classifier of features: it finds what is there, ignores what is not, and fills small classes."""

import numpy as np
import pytest

from samgan.metrics.classification import scores
from samgan.studies.probe import PENALTIES, _choose_penalty, _fit, _folds, probe, smote


def clouds(counts, dim=20, gap=1.5, seed=0):
    """Points of each class around a mean of its own; two images of each patient."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    x = draw.normal(size=(len(labels), dim))
    x[np.arange(len(labels)), labels] += gap
    return x, labels, [f"{k}-{i // 2}" for k, count in enumerate(counts) for i in range(count)]


def test_a_probe_tells_classes_of_unequal_size():
    x, labels, groups = clouds((200, 12, 60))
    test, truth, _ = clouds((100, 100, 100), seed=1)
    found = probe(x, labels, groups, test, 3)
    assert found.sum(1) == pytest.approx(1)
    told = scores(found, truth, 1)
    assert told["auc"] > 0.85
    assert told["minority_recall"] > 0.4  # unweighted, it would be near zero


def test_the_fit_is_at_the_minimum():
    """The gradient of each weight is zero there, by finite differences of a loss written anew."""
    x, labels, _ = clouds((30, 10), dim=4)
    weights, bias = _fit(x, labels, 2, 1.0)

    def loss(w):
        z = x @ w + bias
        logp = z - np.log(np.exp(z).sum(1, keepdims=True))
        each = np.array([1 / 60, 1 / 20])[labels]
        return -(each * logp[np.arange(40), labels]).sum() + (w**2).sum() / 8

    for place in np.ndindex(weights.shape):
        step = np.zeros_like(weights)
        step[place] = 1e-4
        assert abs(loss(weights + step) - loss(weights - step)) / 2e-4 < 1e-3


def test_noise_gets_a_large_penalty():
    x, labels, groups = clouds((60, 20), gap=0.0)
    assert _choose_penalty(x, labels, groups, 2) >= 10


def test_a_penalty_at_an_end_of_those_tried_is_told():
    """Of noise the largest one, if it does not happen to tell the classes; of clear classes the smallest."""
    x, labels, groups = clouds((60, 20), gap=0.0, seed=3)
    with pytest.warns(UserWarning, match=r"the penalty 1e\+06 is at an end of those tried \(0.01 to 1e\+06\)"):
        assert _choose_penalty(x, labels, groups, 2) == PENALTIES[-1]
    x, labels, groups = clouds((60, 20), gap=8.0)
    with pytest.warns(UserWarning, match="the penalty 0.01 is at an end"):
        assert _choose_penalty(x, labels, groups, 2) == PENALTIES[0]


def test_many_noisy_features_that_all_tell_a_little_do_not_get_the_largest_penalty():
    """As many as a network has, and as few images as the map has."""
    labels = np.repeat([0, 1], [880, 28])
    x = np.random.default_rng(0).normal(size=(908, 1280)) + 0.15 * labels[:, None]
    x = (x - x.mean(0)) / x.std(0)
    assert 100 < _choose_penalty(x, labels, [f"{k}-{i // 2}" for i, k in enumerate(labels)], 2) < PENALTIES[-1]


def test_folds_share_out_patients_by_the_rarest_class_that_they_have():
    """Eight patients have both classes; images of the other class come first."""
    groups = [f"one-{i}" for i in range(41)] + 2 * [f"both-{i}" for i in range(8)]
    labels = np.repeat([0, 1], [49, 8])
    fold = _folds(labels, groups, 2)
    assert np.bincount(fold[labels == 1]).tolist() == [2, 2, 2, 2]
    assert (fold[41:49] == fold[49:]).all()  # a patient is in one fold


def test_synthetic_images_do_not_choose_the_penalty_but_are_learnt_from():
    x, labels, groups = clouds((60, 4))
    more, of_more, _ = clouds((0, 56), seed=5)
    test, truth, _ = clouds((100, 100), seed=1)
    both = np.concatenate([x, more]), np.concatenate([labels, of_more]), [*groups, *[""] * 56]
    real = np.arange(120) < 64
    alone, helped = probe(x, labels, groups, test, 2), probe(*both, test, 2, of_real=real)
    assert scores(helped, truth, 1)["auc"] > scores(alone, truth, 1)["auc"] + 0.02


def test_smote_fills_classes_with_points_between_neighbours():
    x = np.array([[0.0, 0], [1, 0], [5, 5], [6, 6], [7, 7], [8, 8], [20, 0]])
    labels = np.array([0, 0, 1, 1, 1, 1, 2])
    filled, of = smote(x, labels, 3, seed=0)
    assert np.bincount(of).tolist() == [4, 4, 4]
    assert np.array_equal(filled[:7], x)
    new = filled[7:9]
    assert new[:, 1].tolist() == [0, 0]
    assert (new[:, 0] > 0).all()
    assert (new[:, 0] < 1).all()
    assert (filled[9:] == [20, 0]).all()  # a single image has no neighbour
    assert np.array_equal(smote(x, labels, 3, seed=0)[0], filled)


def test_smote_of_a_class_with_one_image_repeats_it_and_a_probe_takes_it():
    x, labels, groups = clouds((40, 3))
    found = probe(x, labels, groups, x, 2, smote_seed=1)
    assert scores(found, labels, 1)["auc"] > 0.9
