"""Differences between rows of a table within seeds: intervals, a permutation test, and how many seeds it takes.

Two rows of one seed are shown the same images in the same order, with equal latents; rows that differ in no layer begin
with equal weights, too. So a seed may be lucky for all rows, and rows are compared within seeds. A value is taken as

    value[row, seed] = row + seed + rest,

and the rest is assumed to spread equally everywhere, and independently. Few seeds are run, so it is estimated from all
rows together. Where a seed is lucky for one kind of rows and not for another, intervals that rest on this are too
narrow. With two rows alone, the interval is that of a paired t-test, which needs no such assumption.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
POWER = 0.8
MOST_SEEDS = 12  # of which all patterns of signs are tried

Values = Mapping[str, Mapping[int, float]]
"""By row, then by seed."""


class Rest(NamedTuple):
    """The standard deviation of what row and seed do not explain, and its degrees of freedom."""

    deviation: float
    freedom: int

    def factor(self, probability: float) -> float:
        """Student's t of a one-sided probability."""
        return float(stats.t.ppf(probability, self.freedom))


def rest_of(values: Values) -> Rest:
    """Estimate the rest by least squares, from the rows with several seeds that differ.

    Seeds of a row that are all at the end of a scale, such as a recall of 0, say nothing about the spread elsewhere.

    Returns:
        Deviation and freedom; both are 0 if there are too few such rows.
    """
    points = [
        (row, seed, value)
        for row, found in values.items()
        if len(set(found.values())) > 1
        for seed, value in found.items()
    ]
    rows, seeds = (sorted({point[axis] for point in points}) for axis in (0, 1))
    design = np.zeros((len(points), len(rows) + len(seeds)))
    for line, (row, seed, _) in enumerate(points):
        design[line, rows.index(row)] = design[line, len(rows) + seeds.index(seed)] = 1
    measured = np.array([value for *_, value in points])
    effects, _, rank, _ = np.linalg.lstsq(design, measured, rcond=None)
    freedom = len(points) - int(rank)
    if freedom < 1:
        return Rest(0.0, 0)
    return Rest(float(np.sqrt(np.square(measured - design @ effects).sum() / freedom)), freedom)


class Difference(NamedTuple):
    """The mean of a first row minus that of a second one, or the mean of several such differences."""

    value: float
    error: float
    """Its standard error."""
    rest: Rest

    def interval(self, pairs: int = 1) -> tuple[float, float]:
        """Of 95 %; for one of so many pairs, such that all of them err no more often than one (Bonferroni)."""
        half = self.rest.factor(1 - (1 - LEVEL) / 2 / pairs) * self.error
        return self.value - half, self.value + half


def differences(values: Values, first: str, second: str) -> list[float]:
    """A row minus another, for each seed that both have."""
    ours, theirs = values.get(first, {}), values.get(second, {})
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def mean_difference(values: Values, pairs: Sequence[tuple[str, str]], rest: Rest) -> Difference:
    """The mean over pairs of rows of their mean differences within seeds; each pair has a seed in common.

    A run may be in several pairs, so their differences are not independent. Therefore the standard error is that of
    the sum over runs.
    """
    weights: dict[tuple[str, int], float] = {}
    for pair in pairs:
        seeds = values[pair[0]].keys() & values[pair[1]].keys()
        for row, sign in zip(pair, (1, -1), strict=True):
            for seed in seeds:
                weights[row, seed] = weights.get((row, seed), 0.0) + sign / len(seeds) / len(pairs)
    value = sum(weight * values[row][seed] for (row, seed), weight in weights.items())
    return Difference(value, rest.deviation * math.sqrt(sum(weight**2 for weight in weights.values())), rest)


def sign_flip_p(found: Sequence[float]) -> float:
    """The two-sided p of differences whose signs are due to chance: the share of all patterns with as large a mean.

    It needs no spread, but with n seeds it is never below 2 / 2^n. For more than twelve seeds, Student's t.

    Source: Fisher 1935, The Design of Experiments, section 21.
    """
    if len(found) > MOST_SEEDS:
        return float(stats.ttest_1samp(found, 0.0).pvalue)
    least = abs(statistics.fmean(found)) - 1e-12
    patterns = itertools.product((1, -1), repeat=len(found))
    means = [abs(sum(sign * value for sign, value in zip(signs, found, strict=True))) for signs in patterns]
    return sum(mean / len(found) >= least for mean in means) / len(means)


def seen_with(seeds: int, rest: Rest) -> float:
    """The smallest difference between two rows that so many seeds show in four cases of five."""
    return (rest.factor(1 - (1 - LEVEL) / 2) + rest.factor(POWER)) * rest.deviation * math.sqrt(2 / seeds)


def seeds_to_see(difference: float, rest: Rest, seeds: int) -> int | None:
    """How many seeds show a difference of this size in four cases of five; None if there is none.

    Args:
        difference: Of two rows.
        rest: As it is known from the seeds that were run.
        seeds: How many of the two rows those were: each further one adds a degree of freedom.
    """
    if difference == 0 or not math.isfinite(difference):
        return None

    def is_seen(number: int) -> bool:
        return seen_with(number, rest._replace(freedom=max(1, rest.freedom + number - seeds))) <= abs(difference)

    too_few, enough = 0, 1
    while not is_seen(enough):
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if is_seen(middle) else (middle, enough)
    return enough
