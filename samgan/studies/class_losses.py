"""Losses of a classifier that has few images of one class and many of another.

Each takes the number of training images of every class and returns a function from logits [n classes] and the
probabilities that are wanted, [n classes], to the mean loss. Wanted are probabilities, since mixup and CutMix mix them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Counts = Float[Tensor, " classes"]
ClassLoss = Callable[[Float[Tensor, "n classes"], Float[Tensor, "n classes"]], Float[Tensor, ""]]

BETA = 0.999
"""Of the class-balanced loss: a thousand images of a class are worth as much as 632 that have nothing in common."""
FOCUS = 2.0
"""Of the focal loss, as in the paper."""


def cross_entropy(counts: Counts) -> ClassLoss:
    """The usual one, the same for every class."""
    return _weighted(torch.ones_like(counts))


def class_weights(counts: Counts) -> ClassLoss:
    """Cross-entropy in which every class has the same weight, whatever the number of its images."""
    return _weighted(1 / counts)


def class_balanced(counts: Counts) -> ClassLoss:
    """Cross-entropy weighted by the effective number of images, since the images of a class overlap.

    Source: Cui et al. 2019 (arXiv:1901.05555), equation 8.
    """
    return _weighted((1 - BETA) / (1 - BETA**counts))


def focal(counts: Counts) -> ClassLoss:
    """Cross-entropy that an image which is already classified well hardly takes part in.

    Source: Lin et al. 2017 (arXiv:1708.02002), equation 4.
    """
    return lambda logits, wanted: (
        -((wanted * (1 - logits.softmax(1)) ** FOCUS * F.log_softmax(logits, 1)).sum(1).mean())
    )


def logit_adjusted(counts: Counts) -> ClassLoss:
    """Cross-entropy of logits to which each class's share was added; without it, as in a prediction, classes are equal.

    Source: Menon et al. 2021 (arXiv:2007.07314), equation 10.
    """
    shares = (counts / counts.sum()).log()
    plain = cross_entropy(counts)
    return lambda logits, wanted: plain(logits + shares, wanted)


CLASS_LOSSES: dict[str, Callable[[Counts], ClassLoss]] = {
    "cross-entropy": cross_entropy,
    "class weights": class_weights,
    "class-balanced": class_balanced,
    "focal": focal,
    "logit-adjusted": logit_adjusted,
}


def _weighted(weights: Counts) -> ClassLoss:
    """The weighted mean over images, so that weights do not change the size of a step."""

    def loss(logits: Tensor, wanted: Tensor) -> Tensor:
        of_images = wanted * weights
        return -(of_images * F.log_softmax(logits, 1)).sum() / of_images.sum()

    return loss
