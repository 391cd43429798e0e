"""Compare ways to train a classifier with synthetic images and without, paired by patients and seeds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from samgan.metrics.classification import RESAMPLES, halves, interval, resample, weighted_scores
from samgan.studies.classifier import ARMS, CLASSICAL, WITH_SYNTHETIC
from samgan.trust.utility_document import (
    COMPARED,
    DECIDES,
    HARMS,
    HELPS,
    UNDECIDED,
    Chosen,
    Decision,
    Difference,
    Interval,
    Word,
)

OfArms = Mapping[str, Float[np.ndarray, "draws seeds"]]
"""One score of every arm."""
Measured = Mapping[str, OfArms]
"""By score."""

LOWER_IS_BETTER = {"brier_score"}


@dataclass(frozen=True)
class Comparison:
    """How arms differ."""

    intervals: dict[str, dict[str, Interval]]
    """By arm, then by score."""
    differences: tuple[Difference, ...]
    """Every arm with synthetic images minus every classical one."""
    decisions: dict[str, Decision]
    """By score."""
    verdict: Word
    """The verdict by AUC."""


def compare(
    predicted: Mapping[str, list[Float[np.ndarray, "n classes"]]],
    truth: Int[np.ndarray, " n"],
    patients: Sequence[str],
    smallest: int,
) -> Comparison:
    """Differences between arms with synthetic images and classical ones, paired by patients and seeds.

    Patients (all images of one together) are drawn with replacement, the same ones for all arms. Seeds add the
    error of their mean, by Student's t, since a bootstrap of so few seeds underestimates it.

    The best of several arms is best partly by luck. So the arms that decide are chosen on one half of the patients by
    all seeds but one: the arm with synthetic images and the classical one that have the best mean score there. They are
    measured on the other half with the seed left out. This is done with both halves and every seed.

    Args:
        predicted: The probabilities of every arm and seed.
        truth: The class of each image.
        patients: The patient of each image; at least two of every class.
        smallest: The class with the fewest real training images.
    """
    draw = np.random.default_rng(0)
    weights = resample(patients, draw)
    seeds = len(next(iter(predicted.values())))
    chance = draw.standard_t(seeds - 1, size=RESAMPLES)

    def measure(names: Sequence[str], of: Bool[np.ndarray, " n"]) -> Measured:
        """Scores on some images: first on all of them, then on each draw of patients."""
        found = {
            name: [weighted_scores(p[of], truth[of], smallest, weights[:, of]) for p in predicted[name]]
            for name in names
        }
        return {
            score: {name: np.stack([seed[score] for seed in found[name]], axis=1) for name in names}
            for score in COMPARED
        }

    def bounds(values: Float[np.ndarray, "draws seeds"]) -> Interval:
        return Interval(*interval(values, chance))

    whole = measure(list(predicted), np.ones(len(truth), bool))
    second = halves(patients, truth)
    uses = [name for name in WITH_SYNTHETIC if name in predicted]
    of_halves = [measure([*uses, *CLASSICAL], half) for half in (~second, second)]
    decisions = {score: _decide(score, uses, [found[score] for found in of_halves], chance) for score in COMPARED}
    return Comparison(
        intervals={name: {score: bounds(whole[score][name]) for score in COMPARED} for name in predicted},
        differences=tuple(
            Difference(name, other, {score: bounds(whole[score][name] - whole[score][other]) for score in COMPARED})
            for name in predicted
            if ARMS[name].synthetic
            for other in CLASSICAL
        ),
        decisions=decisions,
        verdict=decisions[DECIDES].verdict,
    )


def _decide(
    score: str, uses: Sequence[str], of_halves: Sequence[OfArms], chance: Float[np.ndarray, " resamples"]
) -> Decision:
    """What the best use of synthetic images gains over the best arm without them, chosen and measured separately."""
    sign = -1 if score in LOWER_IS_BETTER else 1
    draws, seeds = of_halves[0][uses[0]].shape
    pairs: Counter[tuple[str, str]] = Counter()
    differences = np.zeros((draws, seeds))
    for measured, other in (of_halves, of_halves[::-1]):
        for seed in range(seeds):
            rest = np.arange(seeds) != seed

            def merit(name: str, other: OfArms = other, rest: np.ndarray = rest) -> float:
                return sign * float(other[name][0, rest].mean())

            best, classical = (max(names, key=merit) for names in (uses, CLASSICAL))
            pairs[best, classical] += 1
            differences[:, seed] += (measured[best][:, seed] - measured[classical][:, seed]) / 2
    mean, low, high = interval(differences, chance)
    least, most = sorted((sign * low, sign * high))
    verdict: Word = HELPS if least > 0 else HARMS if most < 0 else UNDECIDED  # type: ignore[assignment]
    chosen = tuple(Chosen(best, other, times) for (best, other), times in pairs.most_common())
    return Decision(chosen, mean, low, high, verdict)
