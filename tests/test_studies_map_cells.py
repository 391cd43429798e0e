"""Gains in the cells of a map: their errors against brute force, false discoveries, and what could be seen."""

import numpy as np
import pytest

from samgan.metrics.auc import grouped_auc, patient_influence, recall_influence
from samgan.metrics.classification import weighted_auc
from samgan.studies.map_cells import DrawnGain, _discoveries, decide, estimate_gains, gain_in_auc


def predictions(draw, truth, patients, strength, shared):
    """Probabilities of two classes by a score that a patient's images have a part of in common."""
    z = strength * truth + 0.5 * shared[patients] + draw.normal(size=len(truth))
    p = 1 / (1 + np.exp(-z))
    return np.stack([1 - p, p], 1)


def some(seed=0, patients=300):
    draw = np.random.default_rng(seed)
    of = np.repeat(np.arange(patients), draw.integers(1, 4, size=patients))
    truth = draw.integers(2, size=patients)[of]
    shared = draw.normal(size=patients)
    return draw, truth, of, predictions(draw, truth, of, 1.2, shared), predictions(draw, truth, of, 1.0, shared)


def test_influences_give_the_interval_of_delong_and_obuchowski():
    _, truth, of, ours, _ = some()
    area, influence = patient_influence(ours[:, 1], truth == 1, of)
    known = grouped_auc(ours[truth == 1, 1], ours[truth == 0, 1], of[truth == 1], of[truth == 0])
    assert area == pytest.approx(known.value)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    # Here no patient has images of both classes, so the variances add up, but for the factor m / (m - 1).
    assert 1.96 * np.sqrt(np.square(influence).sum()) == pytest.approx((known.high - known.low) / 2, rel=0.01)


def test_the_gain_and_its_error_over_patients_are_those_of_a_bootstrap():
    draw, truth, of, ours, theirs = some()
    gain, influence = gain_in_auc(ours, theirs, truth, of)
    times = np.stack([np.bincount(draw.integers(300, size=300), minlength=300)[of] for _ in range(400)])
    weights = np.concatenate([np.ones((1, len(of))), times])
    found = weighted_auc(ours, truth, weights) - weighted_auc(theirs, truth, weights)
    assert gain == pytest.approx(found[0])
    assert np.sqrt(np.square(influence).sum()) == pytest.approx(found[1:].std(), rel=0.15)


def test_recall_is_taken_where_enough_of_the_others_are_told_right():
    positive = np.arange(200) % 2 == 1
    score = np.linspace(0, 1, 200) + 0.3 * positive
    threshold = np.quantile(score[~positive], 0.9, method="higher")
    recall, influence = recall_influence(score, positive, np.arange(200) // 4, 0.9)
    assert recall == (score[positive] > threshold).mean()
    assert influence.shape == (50,)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    # 20 of no illness with 0 to 19, 10 ill: 18 of the others are told right at a threshold of 18, which 17.5 is below.
    score = np.array([*range(20), 17.5, 18.5, *[30] * 8])
    assert recall_influence(score, np.repeat([False, True], [20, 10]), np.arange(30), 0.9)[0] == 0.9


def test_the_error_of_a_recall_is_that_of_other_patients():
    """Of many samples of patients: the spread of the gain in recall, and how often an interval holds the true gain."""
    gains, errors = [], []
    for seed in range(600):
        _, truth, of, ours, theirs = some(seed)
        (more, influence), (less, of_other) = (
            recall_influence(probabilities[:, 1], truth == 1, of, 0.9) for probabilities in (ours, theirs)
        )
        gains.append(more - less)
        errors.append(np.sqrt(np.square(influence - of_other).sum()))
    assert np.mean(errors) == pytest.approx(np.std(gains), rel=0.1)
    held = np.abs(np.array(gains) - np.mean(gains)) < 1.96 * np.array(errors)
    assert 0.93 < held.mean() < 0.97


def test_the_gain_of_three_classes_is_the_mean_of_each_against_the_rest():
    draw = np.random.default_rng(0)
    truth, of = np.arange(90) % 3, np.arange(90)
    ours, theirs = (draw.dirichlet(np.ones(3), size=90) + weight * np.eye(3)[truth] for weight in (0.5, 0.2))
    gain, influence = gain_in_auc(ours, theirs, truth, of)
    assert gain == pytest.approx(
        (weighted_auc(ours, truth, np.ones((1, 90))) - weighted_auc(theirs, truth, np.ones((1, 90))))[0]
    )
    assert influence.sum() == pytest.approx(0, abs=1e-12)


def test_errors_are_those_of_the_formula():
    """Two folds with two draws each: the variance between draws, and that of patients, by hand."""
    parts = {0: np.array([0.01, -0.01]), 1: np.array([0.03, 0.0, -0.03])}
    gains = {0: (0.02, 0.04), 1: (0.05, 0.01)}
    draws = [DrawnGain("a", fold, n, gain, parts[fold]) for fold in gains for n, gain in enumerate(gains[fold])]
    (cell,) = estimate_gains(draws)
    between = (0.01**2 * 2 + 0.02**2 * 2) / 2
    of_patients = (2 * 2 * 0.01**2 + 1.5 * 2 * 0.03**2) / 4
    assert cell.mean == pytest.approx(0.03)
    assert cell.error == pytest.approx(np.sqrt(between / 4 + of_patients))
    low, high = cell.interval()
    assert low < 0 < high
    assert cell.detectable() > 2.8 * cell.error
    assert cell.p(1) + cell.p(-1) == pytest.approx(1)
    assert cell.draws == 4


def test_an_interval_has_the_degrees_of_freedom_of_its_draws():
    """Patients have hundreds, which do not make a spread of few draws surer."""
    noise = np.random.default_rng(0)
    gains = [DrawnGain("a", fold, draw, noise.normal(), noise.normal(size=99)) for fold in (0, 1) for draw in range(3)]
    assert estimate_gains(gains)[0].freedom == 4


def cell(name, mean, draw):
    return [
        DrawnGain(name, fold, number, mean + 0.002 * draw.normal(), 0.0001 * draw.normal(size=400))
        for fold in (0, 1)
        for number in range(3)
    ]


def test_what_is_shown_is_so_over_every_rival_and_its_interval_is_wider_where_many_were_looked_at():
    draw = np.random.default_rng(0)
    means = {**{f"{n}": 0.0 for n in range(20)}, "big": 0.02, "bad": -0.02, "one rival": 0.02}
    over = [
        estimate_gains([gain for name, mean in means.items() for gain in cell(name, mean * shares[name], draw)])
        for shares in (dict.fromkeys(means, 1), {**dict.fromkeys(means, 1), "one rival": 0})
    ]
    decisions = dict(zip(means, decide(over), strict=True))
    assert [name for name, found in decisions.items() if found.helps] == ["big"]
    assert [name for name, found in decisions.items() if found.harms] == ["bad"]
    assert decisions["0"].level == 0.95 < decisions["big"].level
    # Two are named of 46 hypotheses; a third would have needed 3 / 46 of 5 %.
    assert decisions["0"].needed == pytest.approx(0.05 * 3 / 46)
    assert decisions["big"].level == pytest.approx(1 - 2 * 0.05 * 2 / 46)
    part = dict(zip(means, decide(over, 0.25), strict=True))
    shown = sum(one.helps + one.harms for one in part.values())
    assert part["0"].needed == pytest.approx(0.25 * 0.05 * (1 + shown) / 46)
    first = over[0][0]
    assert first.detectable(decisions["0"].needed) > 1.2 * first.detectable()


def test_discoveries_are_those_of_benjamini_and_hochberg():
    # The example of their paper: 15 p-values, of which the first four are rejected.
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.324,
        0.4262,
        0.5719,
        0.6528,
        0.759,
        1.0,
    ]
    assert _discoveries(p[::-1], 0.05)[::-1] == [True] * 4 + [False] * 11
    assert _discoveries([0.5, 0.9], 0.05) == [False, False]
    # As if there were hypotheses of which nothing could be shown.
    assert _discoveries(p, 0.05 / 4) == _discoveries([*p, *[1.0] * 45], 0.05)[:15] == [True] * 3 + [False] * 12


def test_draws_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="two draws"):
        estimate_gains([DrawnGain("a", fold, 0, 0.0, np.zeros(3)) for fold in (0, 1)])
