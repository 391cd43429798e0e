"""The paper's claims about its settings, each tested on measured rows.

Scores differ between seeds, and few seeds are run. So the spread of seeds is estimated from all rows with several seeds
together, as a pooled standard deviation. A difference counts if its 95 % interval excludes zero; otherwise it is
undecided.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from scipy import stats

from samgan.scoring import MODE_COLLAPSE, Scores

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "not confirmed", "undecided at this scale"
LEVEL = 0.95
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
FRECHET = Measure("Frechet distance", "log", _log_frechet, math.exp)
LIKENESS = Measure("MS-SSIM of generated pairs", "-log(1 - MS-SSIM)", _likeness, lambda value: 1 - math.exp(-value))
MISSED = Measure("1 - recall", "acos(sqrt(recall))", _missed, lambda value: math.sin(value) ** 2)


class Pair(NamedTuple):
    """Two rows that differ only in what a claim is about; the claim says that the first is better."""

    better: str
    worse: str
    measure: Measure = FRECHET


@dataclasses.dataclass(frozen=True)
class Claim:
    """One sentence of the paper, and the pairs of rows that test it."""

    sentence: str
    pairs: tuple[Pair, ...]


# Pairs differ in one setting only. The paper's own numbers contradict some of them (FID 380 with flips against 310.2
# without, for WGAN-GP). They are here nevertheless, because the sentence is general.
CLAIMS = (
    Claim("Spectral norm hurts MSG-GAN", (Pair("msg-gan-7", "msg-gan-11"),)),
    Claim("Spectral norm helps SAMGAN", (Pair("samgan-2", "samgan-1"),)),
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
    Claim(
        "Attention improves diversity",
        tuple(
            Pair(better, worse, measure)
            for better, worse in (
                ("samgan-1", "msg-gan-7"),
                ("samgan-2", "msg-gan-11"),
                ("samgan-8", "samgan-8-no-attention"),
            )
            for measure in (LIKENESS, MISSED)
        ),
    ),
)
SIGN = "MS-SSIM of generated pairs above that of real ones marks a collapse"


class Verdict(NamedTuple):
    """A claim, the verdict on it in a word, and lines of evidence."""

    sentence: str
    word: str
    evidence: list[str]


def judge_claims(runs: Mapping[str, Sequence[Scores]]) -> list[Verdict]:
    """Test every claim.

    A pair is "confirmed" if the 95 % interval of its difference (better minus worse) is below zero. It is "not
    confirmed" if a wider interval, which holds for all pairs of the claim together (Bonferroni), is above zero.
    A claim is "confirmed" if all its pairs are, and "not confirmed" if one or more are; otherwise it is undecided.

    The evidence also has the mean over several pairs with its interval. It decides nothing, because it may hide a pair
    that contradicts the claim.

    Args:
        runs: Scores of every seed of a row, by the row's name. All are of one data set, and of networks whose seeds
            may be assumed to spread equally.

    Returns:
        A verdict for each of `CLAIMS`, and one on the sign of a collapse.
    """
    verdicts = []
    for claim in CLAIMS:
        words, evidence = [], []
        for pair in claim.pairs:
            word, line = _compare(pair, len(claim.pairs), runs)
            words.append(word)
            evidence.append(line)
        for measure in dict.fromkeys(pair.measure for pair in claim.pairs):
            evidence += _average([pair for pair in claim.pairs if pair.measure is measure], runs)
        verdicts.append(Verdict(claim.sentence, _joined(words), evidence))
    return [*verdicts, _sign(runs)]


def _joined(words: Sequence[str]) -> str:
    if REFUTED in words:
        return REFUTED
    return CONFIRMED if set(words) == {CONFIRMED} else UNDECIDED


def _compare(pair: Pair, pairs: int, runs: Mapping[str, Sequence[Scores]]) -> tuple[str, str]:
    """The verdict on one of the `pairs` pairs of a claim, and a line that says why."""
    values = {name: _values(pair.measure, runs.get(name, ())) for name in (pair.better, pair.worse)}
    title = f"{pair.measure.name}: {pair.better} below {pair.worse}"
    missing = [name for name, found in values.items() if not found]
    if missing:
        return UNDECIDED, f"{title}: no score of {', '.join(missing)}"
    better, worse = values[pair.better], values[pair.worse]
    difference = statistics.fmean(better) - statistics.fmean(worse)

    def shown(values: Sequence[float]) -> str:
        return " and ".join(f"{pair.measure.shown(x):.3f}" for x in values)

    line = f"{title}: {shown(better)} against {shown(worse)}"
    deviation, freedom = _pooled(pair.measure, runs)
    if not freedom:
        return UNDECIDED, f"{line}; no row has two seeds that differ, so their spread is not known"
    unit = deviation * math.sqrt(1 / len(better) + 1 / len(worse))
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * unit
    high = difference + half
    line += f"; {_with_interval(pair.measure, difference, half)}"
    # One pair is enough to contradict a claim, so all pairs together must not err more often than one (Bonferroni).
    against = difference - stats.t.ppf(1 - (1 - LEVEL) / 2 / pairs, freedom) * unit
    word = CONFIRMED if high < 0 else REFUTED if against > 0 else UNDECIDED
    return word, f"{line}: {word}"


def _average(pairs: Sequence[Pair], runs: Mapping[str, Sequence[Scores]]) -> list[str]:
    """A line on the mean over pairs of one measure, if several of them have scores."""
    measure = pairs[0].measure
    values = {name: _values(measure, runs.get(name, ())) for pair in pairs for name in (pair.better, pair.worse)}
    pairs = [pair for pair in pairs if values[pair.better] and values[pair.worse]]
    deviation, freedom = _pooled(measure, runs)
    if len(pairs) < 2 or not freedom:
        return []
    weights: dict[str, float] = {}  # a row may be in several pairs
    for pair in pairs:
        weights[pair.better] = weights.get(pair.better, 0.0) + 1 / len(pairs)
        weights[pair.worse] = weights.get(pair.worse, 0.0) - 1 / len(pairs)
    difference = sum(weight * statistics.fmean(values[name]) for name, weight in weights.items())
    unit = deviation * math.sqrt(sum(weight**2 / len(values[name]) for name, weight in weights.items()))
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * unit
    return [f"{measure.name}, mean over {len(pairs)} pairs: {_with_interval(measure, difference, half)}"]


def _with_interval(measure: Measure, difference: float, half: float) -> str:
    low, high = difference - half, difference + half
    if measure is FRECHET:
        return f"ratio {math.exp(difference):.2f} [{math.exp(low):.2f}, {math.exp(high):.2f}]"
    return f"difference of {measure.scale} {difference:+.3f} [{low:+.3f}, {high:+.3f}]"


def _values(measure: Measure, scores: Sequence[Scores]) -> list[float]:
    return [value for one in scores if (value := measure.of(one)) is not None]


def _pooled(measure: Measure, runs: Mapping[str, Sequence[Scores]]) -> tuple[float, int]:
    """Standard deviation between seeds of a row, over all rows whose seeds differ, and its degrees of freedom.

    Seeds that are all at the end of a scale, such as a recall of 0, say nothing about the spread elsewhere.
    """
    groups = [values for scores in runs.values() if len(set(values := _values(measure, scores))) > 1]
    freedom = sum(len(values) - 1 for values in groups)
    squares = sum((len(values) - 1) * statistics.variance(values) for values in groups)
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)


def _sign(runs: Mapping[str, Sequence[Scores]]) -> Verdict:
    """Test by ranks whether rows with the sign in most of their seeds cover less than rows without it."""
    evidence, words = [], []
    for name in ("recall", "coverage"):
        rows = [row for scores in runs.values() if (row := _row_of_sign(name, scores))]
        with_sign, without = ([row.covered for row in rows if row.sign is sign] for sign in (True, False))
        line = f"{name}: {len(with_sign)} rows with the sign, {len(without)} without"
        if with_sign and without:
            p = float(stats.mannwhitneyu(with_sign, without).pvalue)
            lower = statistics.fmean(with_sign) < statistics.fmean(without)
            word = UNDECIDED if not p <= 1 - LEVEL else CONFIRMED if lower else REFUTED
            line += f"; medians {statistics.median(with_sign):.3f} and {statistics.median(without):.3f}, p {p:.2g}"
        else:
            word = UNDECIDED
        if len({row.gap for row in rows}) > 3 and len({row.covered for row in rows}) > 1:
            rho, p = rank_correlation([(row.gap, row.covered) for row in rows])
            line += f" (against the size of the gap: rank correlation {rho:+.2f}, p {p:.2g})"
        words.append(word)
        evidence.append(f"{line}: {word}")
    return Verdict(SIGN, _joined(words), evidence)


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
