"""Gains in the cells of a map: their errors against brute force, false discoveries, and what could be seen."""

import numpy as np
import pytest

from samgan.metrics.auc import grouped_auc, patient_influence
from samgan.metrics.classification import weighted_auc
from samgan.studies.map_cells import DrawnGain, _discoveries, estimate_gains, gain_in_auc


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
    draws = [DrawnGain("a", "25", fold, n, gain, parts[fold]) for fold in gains for n, gain in enumerate(gains[fold])]
    (cell,) = estimate_gains(draws)
    between = (0.01**2 * 2 + 0.02**2 * 2) / 2
    of_patients = (2 * 2 * 0.01**2 + 1.5 * 2 * 0.03**2) / 4
    assert cell.mean == pytest.approx(0.03)
    assert cell.error == pytest.approx(np.sqrt(between / 4 + of_patients))
    assert cell.low < 0 < cell.high
    assert cell.detectable > 2.8 * cell.error
    assert (cell.draws, cell.shown) == (4, False)


def test_a_large_gain_is_shown_and_its_interval_is_wider_where_many_were_looked_at():
    draw = np.random.default_rng(0)

    def cell(name, mean):
        return [
            DrawnGain(name, "25", fold, number, mean + 0.002 * draw.normal(), 0.0001 * draw.normal(size=400))
            for fold in (0, 1)
            for number in range(2)
        ]

    alone = estimate_gains(cell("big", 0.02))[0]
    beside = estimate_gains([g for n in range(20) for g in cell(f"{n}", 0.0)] + cell("big", 0.02))
    assert alone.shown
    assert [found.cell for found in beside if found.shown] == ["big"]
    assert alone.low > 0 < beside[-1].low
    of_others = [found.high - found.low for found in beside[:-1]]
    assert (
        beside[0].detectable > 1.2 * estimate_gains(cell("0", 0.0))[0].detectable
    )  # of 21, the second needs p < 0.005
    assert beside[-1].high - beside[-1].low > 1.2 * max(of_others)


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
    assert _discoveries(p[::-1])[::-1] == [True] * 4 + [False] * 11
    assert _discoveries([0.5, 0.9]) == [False, False]


def test_draws_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="two draws"):
        estimate_gains([DrawnGain("a", "25", fold, 0, 0.0, np.zeros(3)) for fold in (0, 1)])
