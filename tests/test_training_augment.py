"""Augmentation: what it changes and how far, alike at every scale, and the probability that follows over-fitting."""

import contextlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from samgan.kernels import without_kernels
from samgan.networks import Discriminator, image_pyramid
from samgan.training import (
    CHANGES,
    LOSSES,
    MAX_PROBABILITY,
    AdaptiveProbability,
    Recipe,
    Sampler,
    TrainingState,
    augment,
    discriminator_loss,
    train_step,
)

CPU = torch.device("cpu")
FLIP, ENLARGE, TURN, ACROSS, DOWN, BRIGHTNESS, CONTRAST = range(CHANGES)
NONE, LOW, HIGH = 0.9, 0.0, 0.5 - 1e-7
"""Random numbers of a change that is not made at probability 0.5, and of its two ends."""


def draw(n=1, **changes):
    uniform = torch.full((n, CHANGES), NONE)
    for name, value in changes.items():
        uniform[:, globals()[name.upper()]] = value
    return uniform


def smooth(n=3, side=64):
    """Pictures of a few waves: interpolation hardly changes them."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    return torch.stack([torch.sin(2 * x + i) * torch.cos(3 * y - i) for i in range(n)])[:, None]


def test_nothing_changes_where_no_change_is_drawn():
    pyramid = image_pyramid(torch.rand(2, 3, 32, 32), (4, 8, 16, 32))
    assert augment(pyramid, draw(2), 0.0) is pyramid
    for before, after in zip(pyramid, augment(pyramid, draw(2), 0.5), strict=True):
        assert torch.equal(before, after)


def test_each_change_does_what_its_name_says():
    images = smooth()

    def changed(**changes):
        return augment([images], draw(3, **changes), 0.5)[0]

    torch.testing.assert_close(changed(flip=LOW), images.flip(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(changed(flip=HIGH), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(changed(across=HIGH)[..., :-8], images[..., 8:], rtol=0, atol=1e-4)
    torch.testing.assert_close(changed(down=LOW)[:, :, 8:], images[:, :, :-8], rtol=0, atol=1e-4)
    torch.testing.assert_close(changed(across=LOW)[..., :8], images[..., :8].flip(3), rtol=0, atol=1e-4)  # mirrored in
    torch.testing.assert_close(changed(brightness=HIGH), images + 0.2, rtol=0, atol=1e-5)
    torch.testing.assert_close(changed(contrast=HIGH), images * 1.5, rtol=0, atol=1e-5)
    y, x = torch.meshgrid(*[(torch.arange(64) + 0.5) / 32 - 1] * 2, indexing="ij")
    inner = slice(16, 48)
    for change, gain, degrees in (("enlarge", 1.25, 0), ("turn", 1, 12)):
        there = changed(**{change: HIGH})[0, 0]
        c, s = math.cos(math.radians(degrees)) / gain, math.sin(math.radians(degrees)) / gain
        wave = torch.sin(2 * (c * x - s * y) * 64 / 63) * torch.cos(3 * (s * x + c * y) * 64 / 63)
        torch.testing.assert_close(there[inner, inner], wave[inner, inner], rtol=0, atol=5e-3)


def test_the_scales_of_an_image_are_changed_alike():
    sides = (16, 32, 64)
    images, uniform = smooth(), torch.rand(3, CHANGES, generator=torch.Generator().manual_seed(1))
    alike = image_pyramid(augment([images], uniform, 0.99)[0], sides)
    for one, other in zip(augment(image_pyramid(images, sides), uniform, 0.99), alike, strict=True):
        assert (one - other)[..., 2:-2, 2:-2].abs().max() < 0.05
    assert (alike[-1] - images).abs().mean() > 0.1


def test_as_many_changes_as_the_probability_says():
    uniform = torch.rand(4000, CHANGES, generator=torch.Generator().manual_seed(0))
    images = torch.rand(4000, 1, 4, 4)
    unchanged = ((augment([images], uniform, 0.2)[0] - images).abs() < 1e-5).all(dim=3).all(dim=2).float().mean()
    assert unchanged == pytest.approx(0.9 * 0.8**6, abs=0.02)  # every second flip leaves an image as it is
    bright = augment([torch.zeros(4000, 1, 4, 4)], uniform, 0.2)[0][:, 0, 0, 0]
    assert (bright != 0).float().mean() == pytest.approx(0.2, abs=0.02)
    assert bright.abs().max() <= 0.2
    assert bright.mean().abs() < 0.01


def test_gradients_flow_through_every_change():
    images = torch.rand(2, 1, 8, 8, dtype=torch.double, requires_grad=True)
    uniform = torch.rand(2, CHANGES) * 0.5
    augment([images], uniform, 0.5)[0].square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).float().mean() > 0.8


def test_the_probability_follows_the_sign_of_real_logits(monkeypatch):
    monkeypatch.setattr(AdaptiveProbability, "KIMG", 1.0)

    def update(probability, mean):
        probability.update(torch.full((10,), mean), None)

    probability = AdaptiveProbability(target=0.6)
    for step in range(32):
        assert probability.of(None) == pytest.approx(0.16 * (step // 16))
        update(probability, 0.7)
    for _ in range(16):  # their mean counts
        update(probability, 0.5)
    assert probability.of(None) == pytest.approx(0.16)
    for _ in range(208):
        update(probability, 1.0)
    assert probability.of(None) == MAX_PROBABILITY
    for _ in range(304):
        update(probability, -1.0)
    assert probability.of(None) == 0
    for _ in range(5):
        update(probability, 0.8)
    loaded = AdaptiveProbability(target=0.6)
    loaded.load_state_dict(probability.state_dict())
    for _ in range(11):
        assert loaded.of(None) == 0
        update(loaded, 0.6)
    assert loaded.of(None) == pytest.approx(0.16)
    off = AdaptiveProbability(target=0.0)
    for _ in range(100):
        update(off, 1.0)
    assert off.of(None) == 0


def test_a_class_that_is_known_by_heart_is_augmented_whatever_the_others_are(monkeypatch):
    monkeypatch.setattr(AdaptiveProbability, "KIMG", 1.0)
    probability = AdaptiveProbability(target=0.6, classes=3)
    labels = torch.tensor([0, 1, 0, 0, 0, 0])
    for _ in range(32):
        probability.update(torch.where(labels == 1, 1.0, 0.2), labels)
    assert probability.values == pytest.approx([0.0, 2 * 16 * 6 / 1000, 0.0])  # of class 2 no image was seen
    torch.testing.assert_close(probability.of(labels), 0.192 * (labels == 1))
    assert AdaptiveProbability(target=0.6, classes=3).of(labels) == 0.0
    for _ in range(5):
        probability.update(torch.ones(6), labels)
    loaded = AdaptiveProbability(target=0.6, classes=3)
    loaded.load_state_dict(probability.state_dict())
    for one in (probability, loaded):
        for _ in range(11):
            one.update(torch.ones(6), labels)
    assert loaded.values == probability.values == pytest.approx([0.096, 0.288, 0.0])
    loaded.load_state_dict({"value": 0.3, "steps": 4, "signs": 2.0})  # of an earlier version
    assert loaded.values == [0.3] * 3


def test_each_image_is_changed_with_a_probability_of_its_own():
    images, uniform = smooth(), torch.rand(3, CHANGES, generator=torch.Generator().manual_seed(2))
    (changed,) = augment([images], uniform, torch.tensor([0.0, 0.5, 0.8]))
    assert torch.equal(changed[0], images[0])
    for place, probability in ((1, 0.5), (2, 0.8)):
        own = slice(place, place + 1)
        torch.testing.assert_close(changed[own], augment([images[own]], uniform[own], probability)[0])
        assert not torch.equal(changed[own], images[own])


def test_a_step_augments_every_class_as_much_as_it_asks_for(tiny_config, images):
    config = tiny_config.override({"training": {"loss": "relativistic-paired", "augment_target": 0.5}})
    config = config.override({"network.num_classes": 2, "data.classes": ["a", "b"], "training.batch_size": 4})
    seen = []
    recipe = replace(Recipe.of(config.training), augmentation=lambda pyramid, uniform, p: (seen.append(p), pyramid)[1])
    state = TrainingState(config, CPU, recipe)
    batch = Sampler(images, config, CPU, labels=np.arange(len(images)) % 2)(0)
    state.augment.values = [0.0, MAX_PROBABILITY]
    train_step(state, batch)
    assert len(seen) == 3
    for probability in seen:  # of real images and of both generated batches
        torch.testing.assert_close(probability, MAX_PROBABILITY * batch.labels)


@pytest.mark.parametrize(
    ("loss", "offset", "sign"),
    [
        ("hinge", 0.0, 0.5),
        ("non-saturating", 10.0, 1.0),
        *((name, 10.0, 0.5) for name in sorted(name for name, loss in LOSSES.items() if not loss.absolute)),
    ],
)
def test_over_fitting_is_measured_whatever_the_loss_makes_of_a_constant(tiny_config, loss, offset, sign):
    config = tiny_config.override({"training": {"loss": loss}})
    discriminator = Discriminator(config.network)
    discriminator.forward = lambda pyramid, batches: pyramid[0]
    real, fake = torch.tensor([-1.0, 2.0, 3.0, 4.0]) + offset, torch.tensor([-4.0, 0.0, -1.0, -3.0]) + offset
    _, logged, signs = discriminator_loss(Recipe.of(config.training), config.training, discriminator, [real], [fake])
    assert logged["sign_real"] == signs.mean() == sign


@pytest.mark.parametrize("loss", sorted(name for name, loss in LOSSES.items() if not loss.absolute))
def test_what_a_discriminator_adds_to_all_logits_of_a_class_is_no_over_fitting(tiny_config, loss):
    config = tiny_config.override({"training": {"loss": loss}})
    discriminator = Discriminator(config.network)
    discriminator.forward = lambda pyramid, batches: pyramid[0]
    labels = torch.tensor([0, 1, 0, 1, 0, 2])
    of_class = torch.tensor([10.0, -20.0, 5.0])[labels]
    real = torch.tensor([1.0, 2.0, 3.0, 4.0, -2.0, 1.0]) + of_class
    fake = torch.tensor([0.0, -1.0, -1.0, -3.0, -1.0, 0.0]) + of_class
    given = Recipe.of(config.training), config.training, discriminator, [real], [fake]
    signs = [discriminator_loss(*given, known)[1] for known in (labels, None)]
    assert signs[0]["sign_real"] == pytest.approx(2 / 3)  # of six real images one lies below its class's middle
    assert signs[1]["sign_real"] == pytest.approx(1 / 3)  # both of class 1 lie below the middle of all
    one_class = discriminator_loss(*given, torch.zeros_like(labels))[1]
    assert one_class["sign_real"] == signs[1]["sign_real"]


def test_a_step_shows_the_discriminator_augmented_images_alone(tiny_config, images, monkeypatch):
    config = tiny_config.override({"training": {"loss": "hinge", "penalty": "r1", "augment_target": 0.5}})
    state = TrainingState(config, CPU)
    batch = Sampler(images, config, CPU)(0)
    state.augment.values = [MAX_PROBABILITY]
    seen = []
    forward = state.discriminator.forward
    monkeypatch.setattr(
        state.discriminator, "forward", lambda p, *args, **more: (seen.append(p), forward(p, *args, **more))[1]
    )
    real = image_pyramid(batch.real, config.network.resolutions)
    fake = state.generator(batch.latents)
    kinds = [augment(pyramid, batch.augment[kind], MAX_PROBABILITY) for kind, pyramid in enumerate((real, fake, fake))]
    train_step(state, batch)
    both, penalised, generated = seen
    for scale in range(4):
        torch.testing.assert_close(both[scale], torch.cat([kinds[0][scale], kinds[1][scale]]))
        assert torch.equal(penalised[scale], kinds[0][scale])
        torch.testing.assert_close(generated[scale], kinds[2][scale])
        assert not torch.allclose(both[scale][:4], real[scale])


def test_draws_differ_between_steps_and_kinds_and_are_made_only_where_needed(tiny_config, images):
    assert Sampler(images, tiny_config, CPU)(0).augment is None
    sampler = Sampler(images, tiny_config.override({"training": {"loss": "hinge", "augment_target": 0.5}}), CPU)
    first, second = sampler(0).augment, sampler(1).augment
    assert first.shape == (3, 4, CHANGES)
    assert len({value.item() for value in torch.cat([first, second]).flatten()}) == first.numel() + second.numel()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_kernels_equal_torch(channels):
    """Images of every scale and their gradients, to 1e-12 in double precision."""
    torch.manual_seed(0)
    pyramid = [torch.randn(9, channels, side, side, dtype=torch.double, requires_grad=True) for side in (4, 16, 32)]
    pyramid[1] = pyramid[1].detach().to(memory_format=torch.channels_last).requires_grad_()
    uniform, found = torch.rand(9, 7), []
    for context in (contextlib.nullcontext(), without_kernels()):
        with context:
            changed = augment(pyramid, uniform, 0.4)
            total = sum((images * images.detach().cos()).sum() for images in changed)
            found.append([*changed, *torch.autograd.grad(total, pyramid)])
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
