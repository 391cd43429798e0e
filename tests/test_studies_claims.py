"""Claims are decided by differences against the spread between seeds, never by a single run."""

import math
from itertools import permutations

import pytest
from scipy import stats

from samgan.scoring import MODE_COLLAPSE, NO_MODE_COLLAPSE, Scores
from samgan.studies import CLAIMS, CONFIRMED, HEADLINE, REFUTED, ROWS, SIGN, UNDECIDED, judge_claims, rank_correlation
from samgan.studies.claims import Pair, describe_pairs


def scored(frechet, *, likeness=0.6, recall=0.5, gap=0.0, coverage=0.5, sign=False):
    found = {"frechet": frechet, "recall": recall, "coverage": coverage}
    mean = {"mean": likeness, "low": likeness, "high": likeness, "standard_error": 0.0, "pairs": 1}
    verdict = MODE_COLLAPSE if sign else NO_MODE_COLLAPSE
    tree = {
        "schema": Scores.SCHEMA,
        "protocol": "standard",
        "resolution": 64,
        "seed": 0,
        "count": 500,
        "counts": {"real": 1000, "fake": 500},
        "features": None,
        "ms_ssim_real": None,
        "ms_ssim_generated": mean,
        "mode_collapse": {"verdict": verdict, "difference": gap, "low": gap, "high": gap},
        "scores": {name: {"value": value, "floor": 0.03} for name, value in found.items() if value is not None},
    }
    return Scores.from_dict(tree, "scores.json")


def judge(runs):
    """Of lists of seeds 0, 1, ..."""
    return judge_claims({name: dict(enumerate(found)) for name, found in runs.items()})


def verdict(sentence, runs):
    return next(found for found in judge(runs) if found.sentence == sentence)


SPREAD = {
    "other": [scored(1.0), scored(1.1)],
    "another": [scored(2.2), scored(2.0)],
    "third": [scored(3.0), scored(3.3)],
    "fourth": [scored(4.4), scored(4.0)],
}
DEVIATION = math.log(1.1) * math.sqrt(2 / 3)
"""Of what rows and seeds of SPREAD do not explain, with three degrees of freedom: the seeds have no effect."""
ADAM = "Adam beats RMSprop"


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [([1.0], [3.0], CONFIRMED), ([3.0], [1.0], REFUTED), ([1.0], [1.05], UNDECIDED), ([1.0], [], UNDECIDED)],
)
def test_a_difference_counts_when_it_leaves_the_spread_of_seeds(ours, theirs, word):
    runs = {**SPREAD, "samgan-8": [scored(x) for x in ours], "msg-gan-6": [scored(x) for x in theirs]}
    assert verdict(HEADLINE, runs).word == word


def test_the_headline_is_the_first_claim():
    assert CLAIMS[0].sentence == HEADLINE
    assert CLAIMS[0].pairs == (("samgan-8", "msg-gan-6", CLAIMS[0].pairs[0].measure),)


def test_the_interval_is_students_with_the_deviation_of_all_rows_within_seeds():
    runs = {**SPREAD, "samgan-8": [scored(1.0)], "msg-gan-6": [scored(1.5)]}
    half = stats.t.ppf(0.975, 3) * DEVIATION * math.sqrt(2)
    low, high = (math.exp(math.log(1 / 1.5) + sign * half) for sign in (-1, 1))
    assert f"ratio 0.67 [{low:.2f}, {high:.2f}]" in verdict(HEADLINE, runs).evidence[0]


def test_beside_the_interval_stands_a_t_test_of_the_two_rows_alone():
    ours, theirs = [1.0, 1.5, 1.2], [2.0, 2.1, 3.0]
    runs = {**SPREAD, "samgan-8": [scored(x) for x in ours], "msg-gan-6": [scored(x) for x in theirs]}
    p = stats.ttest_rel(*([math.log(x) for x in row] for row in (ours, theirs))).pvalue
    assert f"paired t-test of these two rows alone: p {p:.2g})" in verdict(HEADLINE, runs).evidence[0]
    alone = {"samgan-8": [scored(1.0), scored(2.0)], "msg-gan-6": [scored(2.0), scored(4.0)]}
    assert "t-test" not in verdict(HEADLINE, {**SPREAD, **alone}).evidence[0]  # two equal differences have no spread


def test_luck_that_all_rows_of_a_seed_share_does_not_widen_the_interval():
    runs = {name: [first, scored(9 * second.scores["frechet"].value)] for name, (first, second) in SPREAD.items()}
    pair = {"samgan-8": [scored(1.0)], "msg-gan-6": [scored(1.5)]}
    assert verdict(HEADLINE, {**runs, **pair}).evidence == verdict(HEADLINE, {**SPREAD, **pair}).evidence


def test_only_seeds_that_both_rows_have_are_compared():
    runs = {name: dict(enumerate(found)) for name, found in SPREAD.items()}
    one = judge_claims({**runs, "samgan-8": {1: scored(1.0)}, "msg-gan-6": {0: scored(9.0), 1: scored(1.5)}})
    line = one[0].evidence[0]
    assert "1.000 against 1.500; ratio 0.67" in line
    none = judge_claims({**runs, "samgan-8": {1: scored(1.0)}, "msg-gan-6": {0: scored(9.0)}})
    assert none[0].word == UNDECIDED
    assert "the two rows have no seed in common" in none[0].evidence[0]


def test_a_claim_has_the_interval_of_each_of_its_pairs_that_is_known():
    runs = {**SPREAD, "samgan-8": [scored(1.0)] * 2, "samgan-8-no-attention": [scored(3.0, recall=0.1)] * 2}
    found = verdict("Attention improves diversity", runs)
    name = "log(Frechet distance): samgan-8 - samgan-8-no-attention"
    assert list(found.intervals) == [name]  # of the other measures all seeds are equal
    low, mean, high = found.intervals[name]
    assert mean == pytest.approx(-math.log(3))
    assert f"[{math.exp(low):.2f}, {math.exp(high):.2f}]" in found.evidence[0]
    assert verdict(ADAM, runs).intervals == {}


def test_one_seed_of_every_row_decides_nothing():
    runs = {"samgan-8": [scored(1.0)], "msg-gan-6": [scored(100.0)]}
    assert verdict(HEADLINE, runs).word == UNDECIDED
    assert "no rows have two seeds that differ" in verdict(HEADLINE, runs).evidence[0]


def test_a_claim_says_what_its_seeds_could_show_and_what_it_would_take():
    runs = {**SPREAD, "samgan-8": [scored(1.0)] * 2, "msg-gan-6": [scored(1.2)] * 2}

    def shown(seeds, freedom):
        return (stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)) * DEVIATION * math.sqrt(2 / seeds)

    visible = shown(2, 3)
    needed = next(seeds for seeds in range(2, 99) if shown(seeds, 3 + seeds - 2) <= math.log(1.2))
    told = f"(2 seeds would show a ratio of {math.exp(visible):.2f} in 4 cases of 5; this one takes {needed}; "
    assert told + "permutation of signs: p 0.5, at least 0.5 with 2 seeds)" in verdict(HEADLINE, runs).evidence[0]


def test_a_claim_needs_all_its_pairs_and_fails_with_one():
    sentence = "The relativistic hinge loss beats WGAN-GP"
    good = {"msg-gan-5": [scored(1.0)], "msg-gan-2": [scored(5.0)]}
    assert verdict(sentence, {**SPREAD, **good}).word == UNDECIDED
    assert (
        verdict(sentence, {**SPREAD, **good, "msg-gan-6": [scored(1.0)], "msg-gan-4": [scored(5.0)]}).word == CONFIRMED
    )
    assert verdict(sentence, {**SPREAD, **good, "msg-gan-6": [scored(5.0)], "msg-gan-4": [scored(1.0)]}).word == REFUTED


def test_the_mean_over_pairs_counts_a_row_that_stands_in_several_once():
    """The rates of MSG-GAN: one row against others."""
    sentence = "The best learning rate of MSG-GAN is 0.003"
    runs = {**SPREAD, "msg-gan-7": [scored(1.0)], "msg-gan-8": [scored(2.0)]}
    assert not any("mean over" in line for line in verdict(sentence, runs).evidence)  # one pair is its own mean
    runs |= {"msg-gan-9": [scored(3.0)], "msg-gan-10": [scored(4.0)]}
    half = stats.t.ppf(0.975, 3) * DEVIATION * math.sqrt(1 + 3 / 3**2)
    mean, low, high = (math.exp(-math.log(24) / 3 + sign * half) for sign in (0, -1, 1))
    expected = f"Frechet distance, mean over 3 pairs: ratio {mean:.2f} [{low:.2f}, {high:.2f}]"
    assert verdict(sentence, runs).evidence[-1] == expected


def test_the_mean_over_pairs_decides_nothing():
    sentence = "The relativistic hinge loss beats WGAN-GP"
    runs = {**SPREAD, "msg-gan-5": [scored(1.0)], "msg-gan-2": [scored(9.0)]}
    runs |= {"msg-gan-6": [scored(1.0)], "msg-gan-4": [scored(1.05)]}
    assert verdict(sentence, runs).word == UNDECIDED
    assert "ratio 0.33" in verdict(sentence, runs).evidence[-1]


def test_seeds_that_do_not_differ_decide_nothing():
    sentence = "Attention improves diversity"
    runs = {"samgan-8": [scored(1.0, recall=0.002)] * 2, "samgan-8-no-attention": [scored(1.0, recall=0.0)] * 2}
    assert verdict(sentence, runs).word == UNDECIDED
    assert all("no rows have two seeds that differ" in line for line in verdict(sentence, runs).evidence[:3])


def test_seeds_at_the_end_of_a_scale_say_nothing_of_the_spread_elsewhere():
    sentence = "Attention improves diversity"
    runs = {"a": [scored(1.0, recall=0.01), scored(1.0, recall=0.03)], "samgan-8": [scored(1.0, recall=0.002)]}
    runs["b"] = [scored(1.0, recall=0.02), scored(1.0, recall=0.01)]
    runs["samgan-8-no-attention"] = [scored(1.0, recall=0.0)]
    alone = verdict(sentence, runs).evidence[1]
    assert "difference of acos" in alone
    stuck = {f"stuck {k}": [scored(1.0, recall=0.0)] * 2 for k in range(9)}
    assert verdict(sentence, {**runs, **stuck}).evidence[1] == alone


def test_one_of_many_pairs_against_a_claim_has_to_be_clearer_than_one_alone():
    sentence = "Flips help"  # five pairs
    (claim,) = (claim for claim in CLAIMS if claim.sentence == sentence)
    deviation = DEVIATION * math.sqrt(2)
    for level, word in ((0.975, UNDECIDED), (1 - 0.025 / len(claim.pairs), REFUTED)):
        above = math.exp(1.01 * stats.t.ppf(level, 3) * deviation)
        runs = {**SPREAD, "msg-gan-6": [scored(above)], "msg-gan-7": [scored(1.0)]}
        assert verdict(sentence, runs).word == word


def test_images_that_are_all_one_are_as_alike_as_can_be():
    runs = {"samgan-8": [scored(1.0, likeness=1.0), scored(1.0, likeness=0.99)]}
    runs["samgan-8-no-attention"] = [scored(1.0, likeness=0.5), scored(1.0, likeness=0.52)]
    line = verdict("Attention improves diversity", runs).evidence[2]
    assert "1.000 and 0.990 against 0.500 and 0.520" in line


def test_rows_scored_without_features_are_no_evidence():
    blind = scored(None, recall=None, coverage=None)
    runs = {"samgan-8": [blind, blind], "msg-gan-6": [blind]}
    assert all(found.word == UNDECIDED for found in judge(runs))


@pytest.mark.parametrize(("share", "word"), [(0.1, CONFIRMED), (0.5, UNDECIDED), (0.9, REFUTED)])
def test_the_sign_of_a_collapse_is_judged_by_what_rows_with_it_cover(share, word):
    runs = {}
    for k in range(12):
        sign = k % 2 == 0
        covered = (share if sign else 1 - share) + 0.001 * k
        runs[f"row {k}"] = [scored(1.0, gap=0.1 * sign + 0.001 * k, recall=covered, coverage=covered, sign=sign)]
    assert verdict(SIGN, runs).word == word
    assert "6 rows with the sign, 6 without" in verdict(SIGN, runs).evidence[0]
    few = dict(list(runs.items())[:2])
    assert verdict(SIGN, few).word == UNDECIDED
    seeds = {name: 3 * found for name, found in runs.items()}  # of one row are no further evidence
    assert verdict(SIGN, seeds) == verdict(SIGN, runs)


def test_a_sign_has_to_be_clearer_to_contradict_the_claim_than_to_confirm_it():
    """One of two scores is enough to contradict it, so each may err half as often."""
    covered = [0.61, 0.62, 0.63, 0.64, 0.65, 0.305], [0.6, 0.3, 0.31, 0.32, 0.34, 0.35]
    p = stats.mannwhitneyu(*covered).pvalue
    assert 0.025 < p < 0.05
    for with_sign, without, word in ((*covered, UNDECIDED), (*covered[::-1], CONFIRMED)):
        runs = {f"with {k}": [scored(1.0, recall=x, coverage=x, sign=True)] for k, x in enumerate(with_sign)}
        runs |= {f"without {k}": [scored(1.0, recall=x, coverage=x)] for k, x in enumerate(without)}
        assert verdict(SIGN, runs).word == word


def test_nothing_is_claimed_of_a_row_of_which_a_run_failed():
    runs = {
        "samgan-8": {0: scored(1.0), 1: scored(1.01)},
        "msg-gan-6": {0: scored(3.0), 1: scored(3.02), 2: scored(3.0)},
    }
    claims = [claim for claim in CLAIMS if claim.sentence == HEADLINE]
    (sure,) = judge_claims(runs, claims)
    assert sure.word == CONFIRMED
    (open_now,) = judge_claims(runs, claims, {"samgan-8": [2]})
    assert open_now.word == UNDECIDED
    assert "seed 2 of samgan-8 failed, so the other seeds are not compared" in open_now.evidence[0]
    assert open_now.intervals == {}
    (described,) = describe_pairs(runs, [Pair("samgan-8", "msg-gan-6")], {"samgan-8": [2]})
    assert described == open_now.evidence[0]


def test_means_and_ranks_leave_out_a_row_of_which_a_run_failed():
    names = "msg-gan-2", "msg-gan-3", "msg-gan-6", "msg-gan-7", "samgan-8", "samgan-5"
    runs = {name: {seed: scored(1.0 + 0.01 * seed + k) for seed in range(2)} for k, name in enumerate(names)}
    flips = [claim for claim in CLAIMS if claim.sentence == "Flips help"]

    def means(failed):
        (found,) = judge_claims(runs, flips, failed)
        return [line for line in found.evidence if line.startswith("Frechet distance, mean over ")]

    assert "mean over 3 pairs" in means({})[0]
    assert "mean over 2 pairs" in means({"msg-gan-7": [2]})[0]
    assert means({"msg-gan-7": [2], "samgan-8": [0]}) == []
    runs = {f"row {k}": {0: scored(1.0, sign=k < 3)} for k in range(6)}
    (found,) = judge_claims(runs, [claim for claim in CLAIMS if claim.sentence == SIGN], {"row 0": [1], "row 9": [0]})
    assert "2 rows with the sign, 3 without; left out, since a run of them failed: row 0" in found.evidence[0]


def test_pairs_are_described_without_a_verdict():
    runs = {"samgan-8": {0: scored(1.0), 1: scored(1.01)}, "msg-gan-6": {0: scored(3.0), 1: scored(3.02)}}
    (line,) = describe_pairs(runs, [Pair("samgan-8", "msg-gan-6")])
    assert line.startswith(
        "Frechet distance: samgan-8 below msg-gan-6: 1.000 and 1.010 against 3.000 and 3.020; ratio "
    )
    assert not any(word in line for word in (CONFIRMED, REFUTED, UNDECIDED))


def test_a_row_has_the_sign_when_most_of_its_seeds_have():
    runs = {"half": [scored(1.0, sign=True), scored(1.0)], "all": [scored(1.0, sign=True)] * 2}
    assert "1 rows with the sign, 1 without" in verdict(SIGN, runs).evidence[1]


def test_ranks_of_few_points_are_judged_by_all_their_orders():
    assert rank_correlation([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0)]) == pytest.approx((1.0, 2 / 24))
    points = [(1.0, 2.0), (2.0, 1.0), (3.0, 5.0), (4.0, 3.0), (5.0, 4.0)]
    rho = 1 - 6 * sum((a - b) ** 2 for a, b in points) / (5 * 24)
    orders = [1 - 6 * sum((a - b) ** 2 for a, b in enumerate(order, 1)) / 120 for order in permutations(range(1, 6))]
    share = sum(other >= rho - 1e-9 for other in orders) / 120
    assert rank_correlation(points) == pytest.approx((rho, 2 * share))
    many = [(float(k), float(7 * k % 20)) for k in range(20)]
    assert rank_correlation(many) == pytest.approx(tuple(stats.spearmanr(*zip(*many, strict=True))))


def test_every_pair_is_of_rows_that_differ_in_one_thing():
    for claim in CLAIMS[1:]:  # the headline compares whole settings
        for pair in claim.pairs:
            first, second = (ROWS[name].config("cpu") for name in (pair.better, pair.worse))
            names = {key.split(".")[-1] for key in first.differences(second) if key != "preset"}
            together = {"loss", "penalty", "drift_weight"}, {"generator_attention", "discriminator_attention"}
            assert len(names) == 1 or names in together, (claim.sentence, pair, names)
