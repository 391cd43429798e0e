"""Minibatch standard deviation: of the batch, of groups and of classes."""

import pytest
import torch

from samgan.networks import (
    MinibatchStdDev,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("group", [0, 2])
def test_minibatch_std_of_identical_images_is_the_square_root_of_epsilon(group):
    x = torch.randn(1, 3, 4, 4).expand(4, -1, -1, -1)
    y = MinibatchStdDev(group)(x)
    assert y.shape == (4, 4, 4, 4)
    assert torch.equal(y[:, :3], x)
    torch.testing.assert_close(y[:, 3], torch.full((4, 4, 4), 1e-4))


def test_minibatch_std_is_the_mean_population_deviation():
    x = torch.randn(6, 3, 4, 4)
    y = MinibatchStdDev()(x)
    expected = x.numpy().std(axis=0).mean()  # numpy's default divides by n
    torch.testing.assert_close(y[:, 3], torch.full((6, 4, 4), float(expected)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_minibatch_std_of_each_group(group):
    x = torch.randn(6, 3, 4, 4)
    y = MinibatchStdDev(group)(x)
    groups = 6 // group
    for number in range(groups):
        members = torch.arange(number, 6, groups)
        assert len(members) == group
        torch.testing.assert_close(y[members], MinibatchStdDev()(x[members]))


def test_minibatch_std_of_a_batch_that_does_not_divide():
    with pytest.raises(ValueError, match="5 images cannot be divided into groups of 2"):
        MinibatchStdDev(2)(torch.randn(5, 3, 4, 4))


@pytest.mark.parametrize("group", [0, 2])
def test_minibatch_std_of_a_class_does_not_see_the_others(group):
    x, labels = torch.randn(7, 3, 4, 4), torch.tensor([2, 0, 2, 2, 0, 1, 2])
    y = MinibatchStdDev(group)(x, labels)
    groups = {0: [[0, 2, 3, 6], [1, 4], [5]], 2: [[0, 3], [2, 6], [1, 4], [5]]}[group]
    for members in groups:
        torch.testing.assert_close(y[members], MinibatchStdDev()(x[members]))


def test_minibatch_std_of_classes_has_groups_of_the_size_asked_for_or_more():
    x, labels = torch.randn(9, 3, 4, 4), torch.tensor([0, 1, 0, 0, 1, 0, 0, 0, 0])  # seven and two
    y = MinibatchStdDev(3)(x, labels)
    zeros = torch.arange(9)[labels == 0]
    for members in (zeros[::2], zeros[1::2], torch.tensor([1, 4])):
        torch.testing.assert_close(y[members], MinibatchStdDev()(x[members]))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_minibatch_std_shows_a_class_that_collapsed_beside_one_that_did_not(precision):
    x, labels = torch.randn(6, 3, 4, 4).to(precision), torch.arange(6) % 2
    x[1::2] = x[1]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        told, untold = MinibatchStdDev()(x, labels)[:, 3, 0, 0], MinibatchStdDev()(x)[:, 3, 0, 0]
    torch.testing.assert_close(told[1::2], torch.full((3,), 1e-4, dtype=precision))
    assert told[0] > 0.3
    assert untold.min() > 0.3


def test_minibatch_std_of_several_batches_with_classes():
    x, labels = torch.randn(8, 3, 4, 4), torch.tensor([0, 1, 0, 1, 1, 1, 1, 0])
    y = MinibatchStdDev(2)(x, labels, batches=2)
    for half in (slice(4), slice(4, 8)):
        torch.testing.assert_close(y[half], MinibatchStdDev(2)(x[half], labels[half]))


def test_minibatch_std_has_a_finite_second_derivative_for_identical_images():
    x = torch.ones(3, 2, 4, 4, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(MinibatchStdDev()(x).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert torch.isfinite(x.grad).all()
