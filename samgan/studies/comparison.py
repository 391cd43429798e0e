"""Scores of classifiers on held-out patients, and how much they differ."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from samgan.studies.classifier import ARMS, CLASSICAL, WITH_SYNTHETIC

RESAMPLES = 2000
LEVEL = 0.95
AT_ONCE = 1 << 24  # weights of a bootstrap
CALIBRATION_BINS = 15

OfArms = Mapping[str, Float[np.ndarray, "draws seeds"]]
"""One score of every arm."""
Measured = Mapping[str, OfArms]
"""By score."""

SCORES = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "minority_recall": "recall of the smallest class",
    "brier_score": "Brier score",
    "calibration_error": "calibration error",
}
COMPARED = ("auc", "balanced_accuracy", "minority_recall", "brier_score")
"""The scores that have intervals and are compared. Calibration error is none of them: a sum of sizes of deviations, it
grows by any noise, and once more where images are drawn again, so that its interval would not hold its mean.
"""
DECIDES = "auc"
"""The score whose interval gives the verdict, named before anything was tested."""
LOWER_IS_BETTER = {"brier_score"}


def scores(predicted: np.ndarray, truth: np.ndarray, smallest: int) -> dict[str, float]:
    """Scores of one classifier on held-out images.

    Args:
        predicted: Probabilities [n, classes].
        truth: Classes [n].
        smallest: The class with the fewest real training images.

    Returns:
        Those of `weighted_scores`, of each image once, and `calibration_error` (expected calibration error of the
        likeliest class over 15 equal bins; lower is better).

    Source: Guo et al. 2017 for the calibration error.
    """
    found = weighted_scores(predicted, truth, smallest, np.ones((1, len(truth))))
    chosen, confidence = predicted.argmax(1), predicted.max(1)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [
        (bins == b).mean() * abs((chosen == truth)[bins == b].mean() - confidence[bins == b].mean()) for b in set(bins)
    ]
    return {**{name: float(values[0]) for name, values in found.items()}, "calibration_error": float(sum(gaps))}


def weighted_scores(
    predicted: Float[np.ndarray, "n classes"],
    truth: Int[np.ndarray, " n"],
    smallest: int,
    weights: Float[np.ndarray, "resamples n"],
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """Scores of one classifier on draws of held-out images.

    Args:
        predicted: Probabilities.
        truth: Classes.
        smallest: The class with the fewest real training images.
        weights: How often each image counts.

    Returns:
        `auc` (area under the ROC curve, the mean over classes of each against the rest; higher is better),
        `balanced_accuracy` (mean recall), `minority_recall`, and `brier_score` (squared distance of the probabilities
        from the truth, 0 to 2, which a lack of calibration and one of knowledge make larger; lower is better); NaN
        where a class does not occur.

    Source: Brier 1950 for the Brier score.
    """
    of_class = truth[:, None] == np.arange(predicted.shape[1])
    right = of_class & (predicted.argmax(1) == truth)[:, None]
    with np.errstate(invalid="ignore"):
        recalls = weights @ right / (weights @ of_class)
        brier = weights @ np.square(predicted - of_class).sum(1) / weights.sum(1)
    return {
        "auc": weighted_auc(predicted, truth, weights),
        "balanced_accuracy": recalls.mean(1),
        "minority_recall": recalls[:, smallest],
        "brier_score": brier,
    }


def weighted_auc(predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, mean over classes of each against the rest; of two classes both are equal.

    Args:
        predicted: Probabilities [n, classes].
        truth: Classes [n].
        weights: How often each image counts, [resamples, n].

    Returns:
        [resamples]; NaN where a class does not occur.
    """
    areas = []
    for k in range(predicted.shape[1]) if predicted.shape[1] > 2 else (1,):
        order = np.argsort(predicted[:, k])
        _, starts = np.unique(predicted[order, k], return_index=True)  # ties count half
        found = []
        for part in np.array_split(weights[:, order], math.ceil(weights.size / AT_ONCE)):
            positive, negative = (
                np.add.reduceat(part * ((truth == k)[order] == side), starts, axis=1) for side in (True, False)
            )
            below = np.cumsum(negative, axis=1) - negative / 2
            with np.errstate(invalid="ignore"):
                found.append((positive * below).sum(1) / (positive.sum(1) * negative.sum(1)))
        areas.append(np.concatenate(found))
    return np.mean(areas, axis=0)


def halves(patients: Sequence[str], truth: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Which half of the patients each image is of; the patients of every class are shared out evenly."""
    groups, first, member = np.unique(patients, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(0).permutation(len(groups)), truth[first]))
    second = np.empty(len(groups), bool)
    second[order] = np.arange(len(groups)) % 2 == 1
    return second[member]


def compare(
    predicted: Mapping[str, list[np.ndarray]], truth: np.ndarray, patients: Sequence[str], smallest: int
) -> dict[str, Any]:
    """Differences between arms with synthetic images and classical ones, paired by patients and seeds.

    Patients (all images of one together) are drawn with replacement, the same ones for all arms; what seeds add is
    their mean's, by Student's t, for of so few a bootstrap sees too little.

    The best of several arms owes something to chance, so what is decided by is chosen on one half of the patients and
    by all seeds but one, and measured on the other half and with that seed, every way round: the arm with synthetic
    images and the classical one that have the best mean of the score there.

    Args:
        predicted: Of every arm and seed, probabilities [n, classes].
        truth: Classes [n].
        patients: Of each image; of every class at least two.
        smallest: The class with the fewest real training images.

    Returns:
        `intervals` (by arm and score: `mean`, `low`, `high`), `differences` (`arm`, `against`, and by score `mean`,
        `low`, `high` of the first minus the second), `decisions` (by score `chosen`: the pairs of arms measured, and
        how often; `mean` of these differences, `low`, `high`, and the `verdict`: "helps", "harms" or "no difference
        shown"), and `verdict`: that of AUC.
    """
    draw = np.random.default_rng(0)
    weights = resample(patients, draw)
    seeds = len(next(iter(predicted.values())))
    chance = draw.standard_t(seeds - 1, size=RESAMPLES)

    def measure(names: Sequence[str], of: Bool[np.ndarray, " n"]) -> Measured:
        """Scores on some images: of all these images, then of each draw of patients."""
        found = {
            name: [weighted_scores(p[of], truth[of], smallest, weights[:, of]) for p in predicted[name]]
            for name in names
        }
        return {
            score: {name: np.stack([seed[score] for seed in found[name]], axis=1) for name in names}
            for score in COMPARED
        }

    whole = measure(list(predicted), np.ones(len(truth), bool))
    second = halves(patients, truth)
    uses = [name for name in WITH_SYNTHETIC if name in predicted]
    of_halves = [measure([*uses, *CLASSICAL], half) for half in (~second, second)]
    decisions = {score: _decide(score, uses, [found[score] for found in of_halves], chance) for score in COMPARED}
    return {
        "intervals": {name: {score: interval(whole[score][name], chance) for score in COMPARED} for name in predicted},
        "differences": [
            {"arm": name, "against": other}
            | {score: interval(whole[score][name] - whole[score][other], chance) for score in COMPARED}
            for name in predicted
            if ARMS[name].synthetic
            for other in CLASSICAL
        ],
        "decisions": decisions,
        "verdict": decisions[DECIDES]["verdict"],
    }


def _decide(
    score: str, uses: Sequence[str], of_halves: Sequence[OfArms], chance: Float[np.ndarray, " resamples"]
) -> dict[str, Any]:
    """What the best use of synthetic images gains over the best without them, chosen and measured apart."""
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
    found = interval(differences, chance)
    least, most = sorted((sign * found["low"], sign * found["high"]))
    return {
        "chosen": [
            {"synthetic": best, "classical": other, "times": times} for (best, other), times in pairs.most_common()
        ],
        **found,
        "verdict": "helps" if least > 0 else "harms" if most < 0 else "no difference shown",
    }


def resample(patients: Sequence[str], draw: np.random.Generator) -> Float[np.ndarray, "draws n"]:
    """How often each image counts: once each, then as often as its patient is drawn, with replacement, 2,000 times."""
    groups, member = np.unique(patients, return_inverse=True)
    times = [np.bincount(draw.integers(len(groups), size=len(groups)), minlength=len(groups)) for _ in range(RESAMPLES)]
    return np.concatenate([np.ones((1, len(patients))), np.stack(times)[:, member]])


def interval(found: Float[np.ndarray, "draws seeds"], chance: Float[np.ndarray, " resamples"]) -> dict[str, float]:
    """A mean over seeds with its 95 % interval over patients and seeds.

    Args:
        found: A value of every seed, first of all patients, then of each draw of them.
        chance: Of each draw, a value of Student's t with seeds - 1 degrees of freedom.

    Returns:
        `mean`, `low`, `high`.
    """
    deviation = found[0].std(ddof=1) / math.sqrt(found.shape[1])
    low, high = np.nanquantile(found[1:].mean(1) + chance * deviation, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"mean": float(found[0].mean()), "low": float(low), "high": float(high)}
