"""The paper's claims about its settings, each tested on measured rows.

Scores differ between seeds, and few seeds are run. So rows are compared within seeds, and the spread of what is left is
estimated from all rows together (`samgan.studies.paired`). A difference counts if its 95 % interval excludes zero;
otherwise it is undecided.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from scipy import stats

from samgan.scoring import MODE_COLLAPSE, Scores
from samgan.studies.paired import (
    LEVEL,
    Difference,
    Rest,
    Values,
    differences,
    mean_difference,
    rest_of,
    seeds_to_see,
    seen_with,
    sign_flip_p,
)

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "not confirmed", "undecided at this scale"
MANY_SEEDS = 100  # beyond this, a number says no more
FEW_POINTS = 7  # 5,040 permutations


class Measure(NamedTuple):
    """A score of one run, on a scale on which seeds spread about equally everywhere; a claim predicts a lower value."""

    name: str
    scale: str
    of: Callable[[Scores], float | None]
    """The value on the scale; None for a run without this score."""
    shown: Callable[[float], float]
    """From the scale to the value that is shown."""


def _log_frechet(scores: Scores) -> float | None:
    found = scores.scores.get("frechet")
    return math.log(found.value) if found and found.value > 0 else None


def _likeness(scores: Scores) -> float | None:
    found = scores.ms_ssim_generated
    return -math.log(max(1 - found.mean, 1e-6)) if found else None  # at 1 all images are the same


def _missed(scores: Scores) -> float | None:
    found = scores.scores.get("recall")
    return math.acos(math.sqrt(found.value)) if found else None


# The arc cosine gives proportions near 0 the same spread as others (Anscombe 1948, for binomial proportions).
FRECHET = Measure("Frechet distance", "log(Frechet distance)", _log_frechet, math.exp)
LIKENESS = Measure("MS-SSIM of generated pairs", "-log(1 - MS-SSIM)", _likeness, lambda value: 1 - math.exp(-value))
MISSED = Measure("1 - recall", "acos(sqrt(recall))", _missed, lambda value: math.sin(value) ** 2)


class Pair(NamedTuple):
    """Two rows that differ in what a claim is about; the claim says that the first is better."""

    better: str
    worse: str
    measure: Measure = FRECHET


@dataclasses.dataclass(frozen=True)
class Claim:
    """One sentence of the paper, and the pairs of rows that test it."""

    sentence: str
    pairs: tuple[Pair, ...]
    """None for `SIGN`, which is a question to all rows."""


def _by_all(*pairs: tuple[str, str]) -> tuple[Pair, ...]:
    """Pairs by all three measures, as the paper speaks of quality and of diversity."""
    return tuple(Pair(*pair, measure) for pair in pairs for measure in (FRECHET, MISSED, LIKENESS))


# Pairs differ in one setting only. The exceptions: the headline compares two whole settings; spectral norm takes the
# place of the equalized learning rate, so that layers also learn at other speeds. The paper's own numbers contradict
# some of them (FID 380 with flips against 310.2 without, for WGAN-GP). They are here nevertheless, because the sentence
# is general.
HEADLINE = "SAMGAN_8 beats MSG-GAN_6"
SIGN = "MS-SSIM of generated pairs above that of real ones marks a collapse"
CLAIMS = (
    Claim(HEADLINE, (Pair("samgan-8", "msg-gan-6"),)),
    Claim(
        "Attention improves diversity",
        _by_all(("samgan-8", "samgan-8-no-attention"), ("samgan-8-no-norm", "msg-gan-6-rate-0.0001")),
    ),
    Claim(
        "Attention degrades at the large rate of 0.003",
        (Pair("msg-gan-7", "samgan-1"), Pair("msg-gan-11", "samgan-2")),
    ),
    Claim(
        "Spectral norm hurts MSG-GAN",
        (Pair("msg-gan-7", "msg-gan-11"), Pair("msg-gan-6-rate-0.0001", "samgan-8-no-attention")),
    ),
    Claim("Spectral norm helps SAMGAN", (Pair("samgan-2", "samgan-1"), Pair("samgan-8", "samgan-8-no-norm"))),
    Claim(
        "Flips help",
        (
            Pair("msg-gan-2", "msg-gan-3"),
            Pair("msg-gan-6", "msg-gan-7"),
            Pair("samgan-6", "samgan-3"),
            Pair("samgan-7", "samgan-4"),
            Pair("samgan-8", "samgan-5"),
        ),
    ),
    Claim(
        "The relativistic hinge loss beats WGAN-GP", (Pair("msg-gan-5", "msg-gan-2"), Pair("msg-gan-6", "msg-gan-4"))
    ),
    Claim("Adam beats RMSprop", (Pair("msg-gan-4", "msg-gan-2"), Pair("msg-gan-6", "msg-gan-5"))),
    Claim(
        "The best learning rate of MSG-GAN is 0.003",
        tuple(Pair("msg-gan-7", name) for name in ("msg-gan-8", "msg-gan-9", "msg-gan-10", "msg-gan-7-rate-0.001")),
    ),
    Claim(
        "The best learning rate of SAMGAN is 0.0001",
        (
            Pair("samgan-8", "samgan-6"),
            Pair("samgan-8", "samgan-7"),
            Pair("samgan-8", "samgan-8-rate-0.001"),
            Pair("samgan-5", "samgan-2"),
            Pair("samgan-5", "samgan-3"),
            Pair("samgan-5", "samgan-4"),
        ),
    ),
    Claim(SIGN, ()),
)


class Verdict(NamedTuple):
    """A claim, the verdict on it in a word, and lines of evidence."""

    sentence: str
    word: str
    evidence: list[str]
    intervals: dict[str, tuple[float, float, float]]
    """By pair and measure, whose scale it is on: the difference as (low, mean, high), 95 %; those that are known."""


class _Compared(NamedTuple):
    """What is known of a pair."""

    word: str
    line: str
    difference: Difference | None = None
    power: str = ""

    @property
    def evidence(self) -> str:
        """The line, with its verdict if there is an interval."""
        return f"{self.line}: {self.word}{self.power}" if self.difference else self.line


def judge_claims(
    runs: Mapping[str, Mapping[int, Scores]],
    claims: Sequence[Claim] = CLAIMS,
    failed: Mapping[str, Sequence[int]] | None = None,
) -> list[Verdict]:
    """Test claims.

    A pair is "confirmed" if the 95 % interval of its difference within seeds (better minus worse) is below zero. It is
    "not confirmed" if a wider interval, which holds for all pairs of the claim together (Bonferroni), is above zero.
    A claim is "confirmed" if all its pairs are, and "not confirmed" if one or more are; otherwise it is undecided.
    Nothing is claimed of a row of which a run failed, since a row that diverges with one seed would be judged by its
    good seeds alone: a pair with it is undecided, and no mean has it.

    The evidence also has, for each pair, the p of a permutation test and of a t-test of its own seeds alone, and how
    many seeds its difference would take to be seen; and the mean over several pairs with its interval. These decide
    nothing: the tests hardly can with few seeds, and the mean may hide a pair that contradicts the claim.

    Args:
        runs: Scores by the row's name and the seed. All are of one data set, and of networks whose seeds may be assumed
            to spread equally.
        claims: Default: all.
        failed: By the row's name, the seeds whose runs failed.

    Returns:
        A verdict for each.
    """
    verdicts, failed = [], failed or {}
    for claim in claims:
        if claim.sentence == SIGN:
            verdicts.append(_sign(runs, failed))
            continue
        found = [_compare(pair, len(claim.pairs), runs, failed) for pair in claim.pairs]
        words, evidence = [one.word for one in found], [one.evidence for one in found]
        intervals = {}
        for pair, one in zip(claim.pairs, found, strict=True):
            if one.difference:
                low, high = one.difference.interval()
                intervals[f"{pair.measure.scale}: {pair.better} - {pair.worse}"] = (low, one.difference.value, high)
        for measure in dict.fromkeys(pair.measure for pair in claim.pairs):
            whole = [pair for pair in claim.pairs if not {pair.better, pair.worse} & failed.keys()]
            evidence += _average([pair for pair in whole if pair.measure is measure], runs)
        verdicts.append(Verdict(claim.sentence, _joined(words), evidence, intervals))
    return verdicts


def _joined(words: Sequence[str]) -> str:
    if REFUTED in words:
        return REFUTED
    return CONFIRMED if set(words) == {CONFIRMED} else UNDECIDED


def describe_pairs(
    runs: Mapping[str, Mapping[int, Scores]],
    pairs: Sequence[Pair],
    failed: Mapping[str, Sequence[int]] | None = None,
) -> list[str]:
    """Lines on pairs of which nothing is claimed: what `judge_claims` says of them, without a verdict."""
    found = [_compare(pair, 1, runs, failed or {}) for pair in pairs]
    return [f"{one.line}{one.power}" for one in found]


def _compare(
    pair: Pair, pairs: int, runs: Mapping[str, Mapping[int, Scores]], failed: Mapping[str, Sequence[int]]
) -> _Compared:
    """The verdict on one of the `pairs` pairs of a claim, and a line that says why."""
    measure, values = pair.measure, _values(pair.measure, runs)
    title = f"{measure.name}: {pair.better} below {pair.worse}"
    missing = [name for name in (pair.better, pair.worse) if not values.get(name)]
    if missing:
        return _Compared(UNDECIDED, f"{title}: no score of {', '.join(missing)}")
    found = differences(values, pair.better, pair.worse)
    if not found:
        return _Compared(UNDECIDED, f"{title}: the two rows have no seed in common")
    seeds = sorted(values[pair.better].keys() & values[pair.worse].keys())

    def shown(row: str) -> str:
        return " and ".join(f"{measure.shown(values[row][seed]):.3f}" for seed in seeds)

    line = f"{title}: {shown(pair.better)} against {shown(pair.worse)}"
    if lost := [f"seed {seed} of {name}" for name in (pair.better, pair.worse) for seed in failed.get(name, ())]:
        return _Compared(UNDECIDED, f"{line}; {', '.join(lost)} failed, so the other seeds are not compared")
    rest = rest_of(values)
    if not rest.freedom:
        return _Compared(UNDECIDED, f"{line}; no rows have two seeds that differ, so their spread is not known")
    difference = mean_difference(values, [(pair.better, pair.worse)], rest)
    # One pair is enough to contradict a claim, so all pairs together must not err more often than one.
    confirmed, refuted = difference.interval()[1] < 0, difference.interval(pairs)[0] > 0
    word = CONFIRMED if confirmed else REFUTED if refuted else UNDECIDED
    line = f"{line}; {_with_interval(measure, difference)}"
    return _Compared(word, line, difference, _power(measure, found, rest))


def _power(measure: Measure, found: Sequence[float], rest: Rest) -> str:
    """What these seeds could show, and how many it would take."""
    few = f"{len(found)} seed{'s' if len(found) > 1 else ''}"
    told = f" ({few} would show {_size(measure, seen_with(len(found), rest))} in 4 cases of 5"
    needed = seeds_to_see(statistics.fmean(found), rest, len(found))
    told += "" if needed is None else f"; this one takes {needed if needed <= MANY_SEEDS else f'over {MANY_SEEDS}'}"
    if len(found) > 1:
        told += f"; permutation of signs: p {sign_flip_p(found):.2g}, at least {2 / 2 ** len(found):.2g} with {few}"
    if len(set(found)) > 1:
        told += f"; paired t-test of these two rows alone: p {stats.ttest_1samp(found, 0.0).pvalue:.2g}"
    return f"{told})"


def _average(pairs: Sequence[Pair], runs: Mapping[str, Mapping[int, Scores]]) -> list[str]:
    """A line on the mean over pairs of one measure, if several of them have scores."""
    if not pairs:
        return []
    measure = pairs[0].measure
    values, names = _values(measure, runs), [(pair.better, pair.worse) for pair in pairs]
    names, rest = [pair for pair in names if differences(values, *pair)], rest_of(values)
    if len(names) < 2 or not rest.freedom:
        return []
    found = mean_difference(values, names, rest)
    return [f"{measure.name}, mean over {len(names)} pairs: {_with_interval(measure, found)}"]


def _with_interval(measure: Measure, difference: Difference) -> str:
    low, high = difference.interval()
    if measure is FRECHET:
        return f"ratio {math.exp(difference.value):.2f} [{math.exp(low):.2f}, {math.exp(high):.2f}]"
    return f"difference of {measure.scale} {difference.value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _size(measure: Measure, difference: float) -> str:
    return f"a ratio of {math.exp(difference):.2f}" if measure is FRECHET else f"a difference of {difference:.3f}"


def _values(measure: Measure, runs: Mapping[str, Mapping[int, Scores]]) -> Values:
    """Values of a measure by row and seed, without runs that have none."""
    found = {
        row: {seed: value for seed, scores in seeds.items() if (value := measure.of(scores)) is not None}
        for row, seeds in runs.items()
    }
    return {row: seeds for row, seeds in found.items() if seeds}


def _sign(runs: Mapping[str, Mapping[int, Scores]], failed: Mapping[str, Sequence[int]]) -> Verdict:
    """Test by ranks whether rows with the sign in most of their seeds cover less than rows without it.

    As with pairs, one of the two scores is enough to contradict the claim, so for that its p has to be half as large.
    """
    evidence, words = [], []
    names = ("recall", "coverage")
    left_out = sorted(runs.keys() & failed.keys())
    for name in names:
        whole = [scores for row, scores in runs.items() if row not in left_out]
        rows = [row for scores in whole if (row := _row_of_sign(name, list(scores.values())))]
        with_sign, without = ([row.covered for row in rows if row.sign is sign] for sign in (True, False))
        line = f"{name}: {len(with_sign)} rows with the sign, {len(without)} without"
        line += f"; left out, since a run of them failed: {', '.join(left_out)}" if left_out else ""
        if with_sign and without:
            p = float(stats.mannwhitneyu(with_sign, without).pvalue)
            lower = statistics.fmean(with_sign) < statistics.fmean(without)
            allowed = (1 - LEVEL) / (1 if lower else len(names))
            word = UNDECIDED if not p <= allowed else CONFIRMED if lower else REFUTED
            line += f"; medians {statistics.median(with_sign):.3f} and {statistics.median(without):.3f}, p {p:.2g}"
        else:
            word = UNDECIDED
        if len({row.gap for row in rows}) > 3 and len({row.covered for row in rows}) > 1:
            rho, p = rank_correlation([(row.gap, row.covered) for row in rows])
            line += f" (against the size of the gap: rank correlation {rho:+.2f}, p {p:.2g})"
        words.append(word)
        evidence.append(f"{line}: {word}")
    return Verdict(SIGN, _joined(words), evidence, {})


class _Signed(NamedTuple):
    """A row's mean gap and mean share covered, and whether most of its seeds have the sign."""

    gap: float
    covered: float
    sign: bool


def _row_of_sign(name: str, scores: Sequence[Scores]) -> _Signed | None:
    tests = [(one.scores[name].value, one.mode_collapse) for one in scores if name in one.scores and one.mode_collapse]
    if not tests:
        return None
    signs = [test.verdict == MODE_COLLAPSE for _, test in tests]
    covered = statistics.fmean(value for value, _ in tests)
    return _Signed(statistics.fmean(test.difference for _, test in tests), covered, 2 * sum(signs) > len(signs))


def rank_correlation(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Spearman's rank correlation and its two-sided p: by all permutations for few points, otherwise by Student's t."""
    first, second = zip(*points, strict=True)
    rho, p = stats.spearmanr(first, second)
    if len(points) <= FEW_POINTS:
        ranks, others = (stats.rankdata(values) - (len(points) + 1) / 2 for values in (first, second))
        p = stats.permutation_test(
            (ranks,), lambda ranks: ranks @ others, permutation_type="pairings", n_resamples=math.inf
        ).pvalue
    return float(rho), float(p)
