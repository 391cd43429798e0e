"""A linear classifier of frozen features: what can be told with few images before anything is trained."""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

PENALTIES = tuple(10.0**power for power in range(-2, 7))
"""Of the sum of squared weights, of which cross-validation chooses one. With 1,280 features of few images it takes 1e4
or 1e5."""
FOLDS = 4
NEIGHBOURS = 5
"""Of `smote`, as in the paper."""


def probe(
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    groups: Sequence[str],
    test: Float[np.ndarray, "m d"],
    classes: int,
    *,
    of_real: Bool[np.ndarray, " n"] | None = None,
    smote_seed: int | None = None,
) -> Float[np.ndarray, "m classes"]:
    """Fit a multinomial logistic regression in which every class has the same weight, and predict `test`.

    Features are standardised by the training images. The penalty is chosen by the log-likelihood of real images in
    cross-validation: patients are left out in turn. Synthetic images may have been made of patients that are left out,
    so only the fits of real images choose it.

    Args:
        features: Of the training images.
        labels: Their classes, 0 to `classes` - 1; real images of every class.
        groups: The patient of each image; of synthetic images anything.
        test: Features of the images to predict.
        classes: Number of classes.
        of_real: Which images are real; default: all.
        smote_seed: Fill each class with `smote` up to the largest one, by this seed; default: not.

    Returns:
        Probabilities of the classes.
    """
    real = np.ones(len(labels), bool) if of_real is None else of_real
    mean, spread = features[real].mean(0), features[real].std(0) + 1e-6
    x, shown = (features - mean) / spread, (test - mean) / spread
    penalty = _choose_penalty(x[real], labels[real], [g for g, kept in zip(groups, real, strict=True) if kept], classes)
    if smote_seed is not None:
        x, labels = smote(x, labels, classes, smote_seed)
    weights, bias = _fit(x, labels, classes, penalty)
    return softmax(shown @ weights + bias, axis=1)


def smote(
    x: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], classes: int, seed: int
) -> tuple[Float[np.ndarray, "m d"], Int[np.ndarray, " m"]]:
    """Fill every class up to the largest one with points between a random one and one of its five nearest.

    A class with a single image repeats it.

    Source: Chawla et al. 2002.
    """
    draw = np.random.default_rng(seed)
    largest = np.bincount(labels, minlength=classes).max()
    points, of = [x], [labels]
    for k in range(classes):
        own = x[labels == k]
        missing = largest - len(own)
        if not missing:
            continue
        squares = np.square(own).sum(1)
        distances = squares[:, None] + squares - 2 * own @ own.T
        np.fill_diagonal(distances, np.inf)
        near = np.argsort(distances, axis=1)[:, : max(1, min(NEIGHBOURS, len(own) - 1))]
        first = draw.integers(len(own), size=missing)
        second = near[first, draw.integers(near.shape[1], size=missing)]
        share = draw.random((missing, 1))
        points.append(own[first] + share * (own[second] - own[first]))
        of.append(np.full(missing, k))
    return np.concatenate(points), np.concatenate(of)


def _choose_penalty(
    x: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], groups: Sequence[str], classes: int
) -> float:
    """The penalty by which patients that were left out are told best; each class counts alike."""
    fold = _folds(labels, groups, classes)
    merit = dict.fromkeys(PENALTIES, 0.0)
    for left_out in range(FOLDS):
        train, tested = fold != left_out, fold == left_out
        if len(np.unique(labels[train])) < classes:
            continue
        for penalty in PENALTIES:
            weights, bias = _fit(x[train], labels[train], classes, penalty)
            found = log_softmax(x[tested] @ weights + bias, axis=1)[np.arange(tested.sum()), labels[tested]]
            merit[penalty] += sum(found[labels[tested] == k].mean() for k in np.unique(labels[tested]))
    best = max(PENALTIES, key=merit.__getitem__)
    if best in (PENALTIES[0], PENALTIES[-1]):
        warnings.warn(
            f"the penalty {best:g} is at an end of those tried ({PENALTIES[0]:g} to {PENALTIES[-1]:g}): expected one "
            "between; the features tell nothing, or everything, or samgan.studies.probe.PENALTIES is too short",
            stacklevel=3,
        )
    return best


def _folds(labels: Int[np.ndarray, " n"], groups: Sequence[str], classes: int) -> Int[np.ndarray, " n"]:
    """The fold of each image. Patients are shared out by the rarest class that they have: so each class is in all."""
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    has = np.zeros((len(names), classes), bool)
    has[member, labels] = True
    rarest = np.where(has, has.sum(0), len(names) + 1).argmin(1)
    fold_of = np.empty(len(names), int)
    order = np.lexsort((np.random.default_rng(0).permutation(len(names)), rarest))
    fold_of[order] = np.arange(len(names)) % FOLDS
    return fold_of[member]


def _fit(
    x: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], classes: int, penalty: float
) -> tuple[Float[np.ndarray, "d classes"], Float[np.ndarray, " classes"]]:
    """Weights and biases by L-BFGS; the penalty is shared out over features, so that their number matters little."""
    dim = x.shape[1]
    wanted = np.eye(classes)[labels]
    each = 1 / (np.bincount(labels, minlength=classes) * classes)
    of_images = each[labels][:, None]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[: dim * classes].reshape(dim, classes), flat[dim * classes :]
        logp = log_softmax(x @ weights + bias, axis=1)
        rest = of_images * (np.exp(logp) - wanted)
        value = -(of_images * wanted * logp).sum() + penalty / dim / 2 * np.square(weights).sum()
        gradient = np.concatenate([(x.T @ rest + penalty / dim * weights).ravel(), rest.sum(0)])
        return float(value), gradient

    found = minimize(loss, np.zeros((dim + 1) * classes), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return found[: dim * classes].reshape(dim, classes), found[dim * classes :]
