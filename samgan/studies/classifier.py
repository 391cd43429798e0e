"""A small standard classifier, and the ways to train it with few images of a class: with and without synthetic ones."""

import contextlib
import dataclasses
import hashlib
import time
import zipfile
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from samgan.cache import cache_folder, tell_without_cache
from samgan.devices import usable_precision
from samgan.files import atomic_write
from samgan.studies.class_losses import CLASS_LOSSES
from samgan.studies.classifier_networks import CLASSIFIER_NETWORKS

PROCEDURE = 3
"""Raised when anything about training a classifier changes, so that no older result is taken from the cache. It covers
the linear classifier of `samgan.studies.probe`, too: records of both have it."""
WEIGHT_DECAY = 1e-2
BATCH_SIZE = 64
Blend = Literal["mixup", "cutmix"]
MIXUP_ALPHA, CUTMIX_ALPHA = 0.2, 1.0
"""Of the Beta distributions of the shares, as in the papers."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train the classifier."""

    real: bool = True
    synthetic: bool = False
    """Synthetic images fill each class up to the size of the largest one; without real images they replace them."""
    network: str = "resnet18"
    """One of `CLASSIFIER_NETWORKS`."""
    loss: str = "cross-entropy"
    """One of `CLASS_LOSSES`."""
    blend: Blend | None = None
    """How images of a batch are blended with each other, and their classes with them."""
    balanced: bool = False
    """Every class is drawn equally often."""
    augmented: bool = False
    mixed: bool = False
    """Real and synthetic images of a class that has both are drawn equally often; for `balanced` arms only."""
    everywhere: bool = False
    """Every class has all its synthetic images beside real ones, so that an image's origin tells less about its
    class."""
    real_last: bool = False
    """The second half of the steps uses no synthetic images."""
    synthetic_first: bool = False
    """The first half of the steps uses no real images, but all synthetic ones of every class."""

    @property
    def whole(self) -> bool:
        """Whether every class needs synthetic images, and all of them are used, not only as many as the class lacks."""
        return self.synthetic and (self.everywhere or self.synthetic_first or not self.real)


ARMS = {
    "real": Arm(),
    "class weights": Arm(loss="class weights"),
    "oversampling": Arm(balanced=True),
    "augmentation": Arm(augmented=True),
    "augmentation, oversampling": Arm(augmented=True, balanced=True),
    "real and synthetic": Arm(synthetic=True),
    "augmentation, real and synthetic": Arm(synthetic=True, augmented=True, balanced=True),
    "augmentation, real and synthetic drawn alike": Arm(synthetic=True, augmented=True, balanced=True, mixed=True),
    "augmentation, real and synthetic drawn alike in every class": Arm(
        synthetic=True, augmented=True, balanced=True, mixed=True, everywhere=True
    ),
    "augmentation, synthetic at first, real at last": Arm(
        synthetic=True, augmented=True, balanced=True, real_last=True
    ),
    "augmentation, pre-trained on synthetic, then real": Arm(
        synthetic=True, augmented=True, balanced=True, synthetic_first=True, real_last=True
    ),
    "synthetic alone": Arm(real=False, synthetic=True),
}
CLASSICAL = tuple(name for name, arm in ARMS.items() if not arm.synthetic)
WITH_SYNTHETIC = tuple(name for name, arm in ARMS.items() if arm.real and arm.synthetic)


@dataclasses.dataclass(frozen=True, eq=False)
class Classified:
    """What a classifier says, and what it took."""

    predicted: Float[np.ndarray, "m classes"]
    """Probabilities."""
    seconds: float
    """Of training and predicting, when that was done: the cache keeps it."""


def classify(  # noqa: PLR0913 (options of one classifier)
    images: UInt8[np.ndarray, "n c h w"],
    labels: Int[np.ndarray, " n"],
    of_real: Bool[np.ndarray, " n"],
    test: UInt8[np.ndarray, "m c h w"],
    arm: Arm,
    classes: int,
    *,
    seed: int,
    steps: int,
    device: str = "cpu",
    precision: str = "auto",
) -> Float[np.ndarray, "m classes"]:
    """The probabilities of `classify_timed`."""
    options: dict[str, Any] = {"seed": seed, "steps": steps, "device": device, "precision": precision}
    return classify_timed(images, labels, of_real, test, arm, classes, **options).predicted


def classify_timed(  # noqa: PLR0913 (options of one classifier)
    images: UInt8[np.ndarray, "n c h w"],
    labels: Int[np.ndarray, " n"],
    of_real: Bool[np.ndarray, " n"],
    test: UInt8[np.ndarray, "m c h w"],
    arm: Arm,
    classes: int,
    *,
    seed: int,
    steps: int,
    device: str = "cpu",
    precision: str = "auto",
) -> Classified:
    """Train a classifier by `train_classifier` and predict `test`, or take the probabilities from the cache.

    A test takes hours and may be stopped, so probabilities are kept. Tests of the same real images with different
    synthetic ones share the arms without synthetic images. The cache ($SAMGAN_CACHE, else ~/.cache/samgan) may be
    deleted at any time.
    """
    options: dict[str, Any] = {"seed": seed, "steps": steps, "device": device, "precision": precision}
    digest = hashlib.sha256(f"{PROCEDURE} {torch.__version__} {arm} {classes} {sorted(options.items())}".encode())
    for array in (images, labels, of_real, test):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    folder = cache_folder()
    path = folder / "classifiers" / f"{digest.hexdigest()}.npz" if folder else None
    if path:
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # missing or damaged
            with np.load(path, allow_pickle=False) as known:
                kept = Classified(known["predicted"], float(known["seconds"]))
            if kept.predicted.shape == (len(test), classes):
                return kept
    begun = time.perf_counter()
    predicted = predict(train_classifier(images, labels, arm, classes, of_real=of_real, **options), test)
    done = Classified(predicted, time.perf_counter() - begun)
    if path:
        try:
            with atomic_write(path) as file:
                np.savez(file, predicted=done.predicted, seconds=done.seconds)
        except OSError as error:  # a full disk costs the cache, not the test
            tell_without_cache(error.strerror or str(error))
    return done


def train_classifier(  # noqa: PLR0913 (options of one classifier)
    images: UInt8[np.ndarray, "n c h w"],
    labels: Int[np.ndarray, " n"],
    arm: Arm,
    classes: int,
    *,
    seed: int,
    steps: int,
    device: str = "cpu",
    precision: str = "auto",
    of_real: Bool[np.ndarray, " n"] | None = None,
) -> torch.nn.Module:
    """Train a classifier from random weights, or from those of ImageNet.

    AdamW (1e-3, for ImageNet's weights 3e-4; weight decay 1e-2), a rate that falls to 0 by a cosine, batches of 64:
    the same for every arm, chosen before any was tested. Initial weights, batches, augmentation and blending depend on
    the seed only.

    Long because the whole recipe of training is in one place.

    Args:
        images: Training images.
        labels: Their classes, 0 to `classes` - 1; images of every class.
        arm: How to train.
        classes: Number of classes.
        seed: Of weights, batches, augmentation and blending.
        steps: Steps of 64 images.
        device: Where it is trained.
        precision: "fp32", or "bf16" or "auto": bf16 where the device can compute in it, otherwise fp32.
        of_real: Which images are real; default: all.

    Returns:
        The network, ready for `predict`.

    Raises:
        FeaturesUnavailable: The weights of the arm's network are not installed.

    Source: Loshchilov and Hutter 2019 (AdamW), Zhang et al. 2018 (mixup), Yun et al. 2019 (CutMix).
    """
    where, kind = torch.device(device), CLASSIFIER_NETWORKS[arm.network]
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(seed)
        network = kind.make(images.shape[1], classes).to(where).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=kind.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        counts = torch.tensor(np.bincount(labels, minlength=classes), dtype=torch.float32, device=where)
        loss_of = CLASS_LOSSES[arm.loss](counts)
        change = _augmentation() if arm.augmented else None
        blend = _blending(arm.blend, classes)
        draw = np.random.default_rng(seed)
        every = np.arange(len(labels))
        half_bits = usable_precision(precision, device) == "bf16"
        real = np.ones(len(labels), bool) if of_real is None else of_real
        first = np.flatnonzero(~real) if arm.synthetic_first else every
        last = np.flatnonzero(real) if arm.real_last else every
        for step in range(steps):
            own = first if 2 * step < steps else last
            index = own[_batch(draw, labels[own], real[own] if arm.mixed else None, classes, arm.balanced)]
            batch = torch.from_numpy(images[index])
            if change is not None:
                batch = torch.stack([change(image) for image in batch])
            batch, wanted = blend(batch, torch.from_numpy(labels[index]))
            with torch.autocast(where.type, torch.bfloat16, enabled=half_bits):
                logits = network(batch.to(where)).float()
            loss = loss_of(logits, wanted.to(where))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.inference_mode()
def predict(network: torch.nn.Module, images: UInt8[np.ndarray, "n c h w"]) -> Float[np.ndarray, "n classes"]:
    """Probabilities of the classes."""
    where = next(network.parameters()).device
    parts = [network(part.to(where)).softmax(dim=1) for part in torch.from_numpy(images).split(256)]
    return torch.cat(parts).cpu().double().numpy()


def _batch(
    draw: np.random.Generator, labels: np.ndarray, of_real: np.ndarray | None, classes: int, balanced: bool
) -> np.ndarray:
    """Indices of a batch's images; with `of_real`, real and synthetic ones of a class are drawn equally often."""
    if not balanced:
        return draw.integers(len(labels), size=BATCH_SIZE)
    kinds = np.zeros(len(labels), bool) if of_real is None else of_real
    groups = [
        [np.flatnonzero((labels == k) & (kinds == kind)) for kind in np.unique(kinds[labels == k])]
        for k in range(classes)
    ]
    chosen = [groups[k] for k in draw.integers(classes, size=BATCH_SIZE)]
    return np.array([draw.choice(of_class[draw.integers(len(of_class))]) for of_class in chosen])


def _blending(blend: Blend | None, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """From a batch and its classes to the batch that is shown and the probabilities that are wanted."""
    if blend is None:
        return lambda images, labels: (images, F.one_hot(labels, classes).float())
    from torchvision.transforms import v2

    if blend == "cutmix":
        cut: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = v2.CutMix(alpha=CUTMIX_ALPHA, num_classes=classes)
        return cut
    mix = v2.MixUp(alpha=MIXUP_ALPHA, num_classes=classes)

    def mixed(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        shown, wanted = mix(images.float(), labels)
        return shown.round().to(torch.uint8), wanted

    return mixed


def _augmentation() -> Callable[[Tensor], Tensor]:
    """Small rotations, shifts, zooms and exposure changes, image by image; no flips, so hearts stay on their side."""
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomAffine(degrees=10, translate=(0.08, 0.08), scale=(0.9, 1.1)), v2.ColorJitter(0.2, 0.2)])
