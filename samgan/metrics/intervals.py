"""Shares with the interval in which the true share lies."""

from typing import NamedTuple

LEVEL = 0.95
"""Confidence level of all intervals."""


class Share(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


def share_of(count: int, total: int) -> Share:
    """Return count / total with its 95 % interval by Wilson's score, which also holds for shares near 0 and 1.

    Args:
        count: in [0, total].
        total: 1 or more.

    Source: Wilson 1927 (doi:10.1080/01621459.1927.10502953).
    """
    from scipy import stats  # takes a second, which a training need not wait for

    interval = stats.binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return Share(count / total, float(interval.low), float(interval.high))
