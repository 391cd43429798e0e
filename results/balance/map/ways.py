"""Ways to train a classifier with few images of a class that the pilot tries: rivals, and uses of synthetic images."""

from dataclasses import dataclass, replace

from samgan.studies import Arm

USUAL = Arm(augmented=True, balanced=True)
"""Small turns, shifts and changes of exposure; every class drawn equally often."""
PRETRAINED = replace(USUAL, network="lite0")


@dataclass(frozen=True)
class Way:
    """One way to train a classifier."""

    arm: Arm = USUAL
    """Of a network that is trained; of a probe only whether it takes synthetic images."""
    probe: bool = False
    """A linear classifier of Lite0's frozen features instead of a network."""
    smote: bool = False
    images: str = "fine-tuned"
    """Which synthetic images: a name of `IMAGES`."""
    choice: str = "all"
    """Of twice as many as are missing: all: the first half. boundary: the half of which a classifier of the real
    images, trained by `PRETRAINED`, is least sure."""
    members: int = 1
    """Networks that are trained, each with a seed of its own; their probabilities are averaged."""
    family: str = ""
    """Of a use of synthetic images: ways that are much alike, of which the pilot chooses one at most."""


IMAGES = {
    "fine-tuned": "one model of all classes but the small one, which is not told the class, fine-tuned to one class",
    "truncated": "as fine-tuned, with a truncation of 0.7",
    "between patients": "as fine-tuned, somewhere between two seeds, each of them the nearest one to a real image",
    "joint": "one model that is told the class and sees all classes equally often",
}


def _with(arm: Arm, family: str, **changes: object) -> Way:
    return Way(replace(arm, synthetic=True, **changes), family=family)


ALIKE = {"mixed": True}
EVERYWHERE = {"mixed": True, "everywhere": True}
FIRST = {"synthetic_first": True, "real_last": True}
RIVALS: dict[str, Way] = {
    "augmentation, oversampling": Way(),
    "augmentation, class-balanced loss": Way(Arm(augmented=True, loss="class-balanced")),
    "augmentation, logit adjustment": Way(Arm(augmented=True, loss="logit-adjusted")),
    "augmentation, oversampling, focal loss": Way(replace(USUAL, loss="focal")),
    "augmentation, oversampling, mixup": Way(replace(USUAL, blend="mixup")),
    "augmentation, oversampling, CutMix": Way(replace(USUAL, blend="cutmix")),
    "pretrained, augmentation, oversampling": Way(PRETRAINED),
    "pretrained, augmentation, logit adjustment": Way(Arm(augmented=True, network="lite0", loss="logit-adjusted")),
    "pretrained, augmentation, oversampling, mixup": Way(replace(PRETRAINED, blend="mixup")),
    "pretrained, augmentation, oversampling, CutMix": Way(replace(PRETRAINED, blend="cutmix")),
    "pretrained, augmentation, oversampling, mean of four": Way(PRETRAINED, members=4),
    "linear": Way(Arm(), probe=True),
    "linear, SMOTE": Way(Arm(), probe=True, smote=True),
}
USES: dict[str, Way] = {
    "synthetic fill up": _with(USUAL, "from random weights"),
    "synthetic and real alike": _with(USUAL, "from random weights", **ALIKE),
    "synthetic and real alike in every class": _with(USUAL, "from random weights", **EVERYWHERE),
    "pre-trained on synthetic": _with(USUAL, "first on synthetic", **FIRST),
    "pretrained, synthetic fill up": _with(PRETRAINED, "pretrained"),
    "pretrained, synthetic and real alike": _with(PRETRAINED, "pretrained", **ALIKE),
    "pretrained, synthetic and real alike in every class": _with(PRETRAINED, "pretrained", **EVERYWHERE),
    "pretrained, then on synthetic, then on real": _with(PRETRAINED, "first on synthetic", **FIRST),
    "linear, synthetic fill up": replace(_with(Arm(), "linear"), probe=True),
    "pretrained, synthetic and real alike: of the boundary": replace(
        _with(PRETRAINED, "pretrained, other images", **ALIKE), choice="boundary"
    ),
    **{  # the last one needs a generator of its own, and is tried when all of the first one's have been used
        f"pretrained, synthetic and real alike: {images}": replace(
            _with(PRETRAINED, "pretrained, other images", **ALIKE), images=images
        )
        for images in IMAGES
        if images != "fine-tuned"
    },
}
WAYS = {**RIVALS, **USES}
