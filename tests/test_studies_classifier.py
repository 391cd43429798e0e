"""The classifier: it learns, its seed decides everything, and it sees what its arm says."""

import numpy as np
import pytest
import torch

from samgan.metrics.classification import scores
from samgan.studies import Arm, predict, train_classifier
from samgan.studies.classifier import _batch


def stripes(count, seed, bright):
    """Noise, brighter in the left half for one class and in the right half for the other."""
    images = np.random.default_rng(seed).integers(0, 120, (count, 1, 32, 32))
    images[..., :16] += 60 * bright
    images[..., 16:] += 60 * (not bright)
    return images.astype(np.uint8)


def test_a_classifier_learns_and_its_seed_decides_everything():
    images = np.concatenate([stripes(40, 0, True), stripes(40, 1, False)])
    labels = np.repeat([0, 1], 40)
    test, truth = np.concatenate([stripes(16, 2, True), stripes(16, 3, False)]), np.repeat([0, 1], 16)
    arm = Arm(augmented=True, balanced=True, weighted=True)
    state = torch.random.get_rng_state()
    first, second = (predict(train_classifier(images, labels, arm, 2, seed=0, steps=8), test) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, predict(train_classifier(images, labels, arm, 2, seed=1, steps=8), test))
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
    monkeypatch.setattr(
        "samgan.studies.classifier._normalised", lambda batch: seen.append(batch.clone()) or batch.float() / 255
    )
    arm = Arm(synthetic=True, balanced=True, real_last=True, synthetic_first=first)
    train_classifier(images, labels, arm, 2, seed=0, steps=4, of_real=of_real)
    greys = [set(batch.unique().tolist()) for batch in seen]
    assert greys[:2] == [{20, 40} if first else {20, 40, 120, 240}] * 2
    assert greys[2:] == [{120, 240}] * 2
