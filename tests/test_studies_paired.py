"""Differences within seeds against plain formulas, and against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from samgan.studies.paired import (
    Difference,
    Rest,
    differences,
    mean_difference,
    rest_of,
    seeds_to_see,
    seen_with,
    sign_flip_p,
)


def test_the_rest_of_a_full_table_is_that_of_an_analysis_of_variance():
    table = np.random.default_rng(0).normal(size=(5, 4))
    values = {f"row {r}": dict(enumerate(map(float, line))) for r, line in enumerate(table)}
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    found = rest_of(values)
    assert found.freedom == 4 * 3
    assert found.deviation == pytest.approx(math.sqrt(np.square(left).sum() / 12))


def test_two_rows_of_equal_seeds_give_the_paired_t_test():
    ours, theirs = np.random.default_rng(1).normal(size=(2, 6))
    values = {"a": dict(enumerate(map(float, ours))), "b": dict(enumerate(map(float, theirs)))}
    found = mean_difference(values, [("a", "b")], rest_of(values))
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found.interval() == pytest.approx((expected.low, expected.high))
    assert differences(values, "a", "b") == pytest.approx(list(ours - theirs))


def test_a_table_with_holes_uses_what_is_there():
    values = {"a": {0: 1.0, 1: 2.0}, "b": {0: 5.0, 1: 6.5, 2: 9.0}, "c": {2: 3.0}}
    found = rest_of(values)  # of a and b, seeds 0 and 1: c has one seed, and only b has seed 2
    assert found.freedom == 1
    assert found.deviation == pytest.approx(0.25)
    assert rest_of({"a": {0: 1.0, 1: 2.0}}) == Rest(0.0, 0)
    assert rest_of({}) == Rest(0.0, 0)


def test_signs_are_permuted_exactly():
    assert sign_flip_p([1.0, 2.0, 3.0]) == pytest.approx(2 / 8)
    assert sign_flip_p([1.0, -1.0]) == 1.0
    assert sign_flip_p([3.0, 2.0, -1.0, 4.0]) == pytest.approx(4 / 16)  # its mean of 2, and that with -1 turned
    many = list(np.random.default_rng(2).normal(0.5, size=30))
    assert sign_flip_p(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Two rows without a difference, beside others; seeds have luck of their own, four times the rest."""
    random = np.random.default_rng(3)
    covered = wrong = 0
    for _ in range(400):
        rows = np.array([[1.0], [1.0], [5.0], [-2.0]])
        table = rows + 4 * random.normal(size=(1, 3)) + random.normal(size=(4, 3))
        values = {str(r): dict(enumerate(map(float, line))) for r, line in enumerate(table)}
        low, high = mean_difference(values, [("0", "1")], rest_of(values)).interval()
        covered += low < 0 < high
        wrong += sign_flip_p(differences(values, "0", "1")) < 0.05
    assert 0.92 < covered / 400 < 0.98
    assert wrong == 0, "three seeds cannot give a p below 0.25"


def test_the_number_of_seeds_shows_the_difference_that_it_was_made_for():
    def seen(seeds):  # two of them were run
        return seen_with(seeds, Rest(0.3, 12 + seeds - 2))

    for difference in (0.1, 0.5, -0.5, 3.0):
        seeds = seeds_to_see(difference, Rest(0.3, 12), 2)
        assert seen(seeds) <= abs(difference)
        assert seeds == 1 or seeds > 100 or seen(seeds - 1) > abs(difference)
    assert seeds_to_see(0.0, Rest(0.3, 12), 2) is None


def test_what_four_seeds_leave_open_may_take_two_more():
    """With the freedom of four seeds of two rows, six could never be enough: those of six have more of it."""
    rest = Rest(1.0, 3)
    low, high = Difference(2.2, (2 / 4) ** 0.5, rest).interval()
    assert low < 0 < high
    assert seeds_to_see(2.2, rest, 4) == 6
