import pytest
from scipy import stats

from samgan.metrics.intervals import share_of


@pytest.mark.parametrize(("count", "total"), [(1, 3), (1, 50), (13, 100), (99, 100), (400_000, 1_000_000)])
def test_the_bounds_are_the_shares_from_which_the_count_is_1_96_standard_deviations_away(count, total):
    share = share_of(count, total)
    assert share.value == count / total
    assert 0 < share.low < share.value < share.high < 1
    for bound in (share.low, share.high):
        deviation = (bound * (1 - bound) / total) ** 0.5
        assert abs(share.value - bound) / deviation == pytest.approx(stats.norm.ppf(0.975))


@pytest.mark.parametrize("total", [1, 50, 100_000])
def test_a_share_of_0_or_1_is_in_its_own_interval(total):
    none, all_of_them = share_of(0, total), share_of(total, total)
    assert none.value == none.low == 0 < none.high < 1
    assert all_of_them.value == all_of_them.high == 1 > all_of_them.low > 0
