"""Losses against values worked out by hand, penalties against critics of known slope and a plain loop."""

import math

import pytest
import torch
from torch.nn import functional as F

from samgan.config import Config
from samgan.networks import Discriminator, Generator, image_pyramid
from samgan.training import LOSSES, PENALTIES, losses

SIDES = (4, 8, 16, 32)


def softplus(x):
    return math.log1p(math.exp(x))


# Means: real 1, fake 2. Relativistic: real (0, -2, -1), fake (2, -2, 3).
REAL, FAKE = [2.0, 0.0, 1.0], [3.0, -1.0, 4.0]
BY_HAND = {
    "relativistic-average-hinge": ((1 + 3 + 2) / 3 + (3 + 0 + 4) / 3, (0 + 3 + 0) / 3 + (1 + 0 + 0) / 3),
    "relativistic-paired": (
        (softplus(1) + softplus(-1) + softplus(3)) / 3,
        (softplus(-1) + softplus(1) + softplus(-3)) / 3,
    ),
    "wgan": (2 - 1, -2),
    "hinge": ((0 + 1 + 0) / 3 + (4 + 0 + 5) / 3, -2),
    "non-saturating": (
        (softplus(-2) + softplus(0) + softplus(-1)) / 3 + (softplus(3) + softplus(-1) + softplus(4)) / 3,
        (softplus(-3) + softplus(1) + softplus(-4)) / 3,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_values_by_hand(name):
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    discriminator, generator = LOSSES[name].of(real, fake)
    assert discriminator.item() == pytest.approx(BY_HAND[name][0], abs=1e-6)
    assert generator.item() == pytest.approx(BY_HAND[name][1], abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_maps_is_the_mean_over_the_maps_with_every_place_an_image(name):
    real, fake = torch.randn(3, 2, 5), torch.randn(3, 2, 5)
    loss = LOSSES[name].of
    first, second = (loss(real[:, k].reshape(-1), fake[:, k].reshape(-1)) for k in (0, 1))
    for found, a, b in zip(losses.per_map(loss, real, fake), first, second, strict=True):
        torch.testing.assert_close(found, (a + b) / 2)
    alone = real[:, 0, 0], fake[:, 0, 0]
    for found, same in zip(losses.per_map(loss, *alone), loss(*alone), strict=True):
        assert torch.equal(found, same)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_of_maps_is_that_of_their_mean(name):
    weights = torch.randn(6, 3 * 16)

    def maps(pyramid, batches=1):
        return (pyramid[0].flatten(1).square() @ weights.T).view(-1, 2, 3)

    def mean(pyramid, batches=1):
        return maps(pyramid).mean(dim=(1, 2))

    real, fake = [torch.randn(4, 3, 4, 4)], [torch.randn(4, 3, 4, 4)]
    mix = torch.rand(4)
    torch.testing.assert_close(PENALTIES[name](maps, real, fake, mix), PENALTIES[name](mean, real, fake, mix))


def test_relativistic_average_hinge_at_perfect_separation_and_confusion():
    real, fake = torch.tensor([4.0, 5.0]), torch.tensor([0.0, 1.0])
    assert [loss.item() for loss in losses.relativistic_average_hinge(real, fake)] == [0.0, 10.0]
    same = torch.zeros(3)
    assert [loss.item() for loss in losses.relativistic_average_hinge(same, same)] == [2.0, 2.0]


@pytest.mark.parametrize("name", LOSSES)
def test_relativistic_losses_do_not_see_a_constant(name):
    real, fake = torch.randn(2, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    before, after = LOSSES[name].of(real, fake), LOSSES[name].of(real + 7.5, fake + 7.5)
    unchanged = all(torch.allclose(a, b) for a, b in zip(before, after, strict=True))
    assert unchanged == LOSSES[name].relativistic


@pytest.mark.parametrize("name", LOSSES)
def test_losses_pull_logits_apart(name):
    """Following the discriminator's loss parts real from fake, following the generator's raises fake."""
    logits = torch.zeros(2, 4, requires_grad=True)
    discriminator, generator = LOSSES[name].of(*logits)
    (d,) = torch.autograd.grad(discriminator, logits, retain_graph=True)
    (g,) = torch.autograd.grad(generator, logits)
    assert (d[0] < 0).all()
    assert (d[1] > 0).all()
    assert (g[1] < 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_wrong_shape_is_refused(name):
    """[n, 1] against [n] would broadcast to a plausible number."""
    with pytest.raises(Exception, match="Type-check error"):
        LOSSES[name].of(torch.zeros(4, 1), torch.zeros(4))


# ---- penalties


def pyramids(count=3, dtype=torch.double, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(count, 1, side, side, dtype=dtype, generator=generator) for side in SIDES]
        for _ in ("real", "fake")
    ]


def linear_critic(slope):
    """C(x) = sum over scales of slope * <direction, x_s> with directions of length 1."""

    def critic(pyramid, batches=1):
        return sum(slope / side * images.sum(dim=(1, 2, 3)) for side, images in zip(SIDES, pyramid, strict=True))

    return critic


MIX = torch.tensor([0.0, 0.3, 1.0], dtype=torch.double)


@pytest.mark.parametrize("slope", [0.0, 0.25, 1.0, 3.0])
def test_linear_critic_of_slope_k(slope):
    real, fake = pyramids()
    scales = len(SIDES)
    expected = {
        "gradient-per-scale": (slope - 1) ** 2,
        "r1": scales * slope**2,
        "r1-r2": 2 * scales * slope**2,
    }
    assert expected.keys() == PENALTIES.keys()
    for name, value in expected.items():
        assert PENALTIES[name](linear_critic(slope), real, fake, MIX).item() == pytest.approx(value, abs=1e-5)


def test_different_slopes_per_scale_are_penalised_each_and_averaged():
    slopes = dict(zip(SIDES, (0.0, 1.0, 2.0, 4.0), strict=True))
    real, fake = pyramids()

    def critic(pyramid, batches=1):
        return sum(slopes[s] / s * images.sum(dim=(1, 2, 3)) for s, images in zip(SIDES, pyramid, strict=True))

    value = losses.gradient_penalty_per_scale(critic, real, fake, MIX).item()
    assert value == pytest.approx((1 + 0 + 1 + 9) / 4, abs=1e-5)


def quadratic_critic(pyramid, batches=1):
    """C(x) = sum_s |x_s|^2 / 2: the gradient at x is x itself, so a penalty tells where it was taken."""
    return sum(images.square().sum(dim=(1, 2, 3)) / 2 for images in pyramid)


def squared_norm(pyramid):
    return sum(images.square().sum(dim=(1, 2, 3)) for images in pyramid)


def test_r1_is_taken_at_real_and_r2_at_generated_images():
    real, fake = pyramids()
    r1, both = (PENALTIES[name](quadratic_critic, real, fake, MIX) for name in ("r1", "r1-r2"))
    torch.testing.assert_close(r1, squared_norm(real).mean())
    torch.testing.assert_close(both, squared_norm(real).mean() + squared_norm(fake).mean())


def test_gradient_penalty_is_taken_between_real_and_generated_images():
    real, fake = pyramids()
    between = [
        torch.stack([m * r + (1 - m) * f for m, r, f in zip(MIX, rs, fs, strict=True)])
        for rs, fs in zip(real, fake, strict=True)
    ]
    expected = [(images.square().sum(dim=(1, 2, 3)).sqrt() - 1).square().mean() for images in between]
    penalty = losses.gradient_penalty_per_scale(quadratic_critic, real, fake, MIX)
    torch.testing.assert_close(penalty, torch.stack(expected).mean())


@pytest.fixture(scope="module")
def networks():
    config = Config().override(
        {
            "network": {
                "resolution": 32,
                "max_channels": 8,
                "generator_attention": [8],
                "discriminator_attention": [8, 16],
                "minibatch_std": "none",
            }
        }
    )
    torch.manual_seed(0)
    generator, discriminator = Generator(config.network).double(), Discriminator(config.network).double()
    for network in (generator, discriminator):
        for module in network.modules():
            if hasattr(module, "gamma"):
                torch.nn.init.constant_(module.gamma, 0.7)
    return generator, discriminator


def test_penalty_equals_a_plain_loop_over_samples_and_scales(networks):
    _, discriminator = networks
    real, fake = pyramids()
    value = losses.gradient_penalty_per_scale(discriminator, real, fake, MIX)
    plain = 0.0
    for i, m in enumerate(MIX):
        for scale in range(len(SIDES)):
            x = [(m * r[i : i + 1] + (1 - m) * f[i : i + 1]).requires_grad_() for r, f in zip(real, fake, strict=True)]
            (gradient,) = torch.autograd.grad(discriminator(x).sum(), x[scale])
            plain += (gradient.norm().item() - 1) ** 2
    assert value.item() == pytest.approx(plain / (3 * len(SIDES)), rel=1e-9)


def test_both_penalties_in_one_pass_are_their_sum():
    """Also where images of a batch see each other, through minibatch std."""
    network = {"resolution": 32, "max_channels": 8, "minibatch_std": "every"}
    discriminator = Discriminator(Config().override({"network": network}).network).double()
    real, fake = pyramids(3)
    gradients = []
    for passes in ([("r1-r2", real, fake)], [("r1", real, fake), ("r1", fake, real)]):
        discriminator.zero_grad()
        sum(PENALTIES[name](discriminator, first, second, MIX) for name, first, second in passes).backward()
        gradients.append([p.grad.clone() for p in discriminator.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_of_attention_has_the_right_second_derivative(networks, name):
    """Its gradient in the weights equals finite differences: the double backward goes through attention."""
    _, discriminator = networks
    real, fake = pyramids()
    attention = discriminator.blocks[1].attention
    for parameter in (attention.query.weight, attention.gamma, discriminator.blocks[2].conv_1.weight):
        discriminator.zero_grad()
        PENALTIES[name](discriminator, real, fake, MIX).backward()
        direction = torch.randn(parameter.shape, dtype=torch.double, generator=torch.Generator().manual_seed(3))
        expected = (parameter.grad * direction).sum().item()
        values = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                parameter += step * direction
            values.append(PENALTIES[name](discriminator, real, fake, MIX).item())
        with torch.no_grad():
            parameter += 1e-5 * direction
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(expected, rel=1e-4, abs=1e-9)
        assert expected != 0


@pytest.mark.parametrize("penalty", [None, *PENALTIES])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_with_every_penalty_reaches_every_weight(networks, loss, penalty):
    generator, discriminator = networks
    generator.zero_grad()
    discriminator.zero_grad()
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(3, 1, 32, 32, dtype=torch.double, generator=draw) * 2 - 1
    real = image_pyramid(images, SIDES)
    fake = generator(torch.randn(3, 8, dtype=torch.double, generator=draw))
    total, _ = LOSSES[loss].of(discriminator(real), discriminator([f.detach() for f in fake]))
    if penalty:
        total = total + PENALTIES[penalty](discriminator, real, fake, MIX)
    total.backward()
    assert all(p.grad is None for p in generator.parameters()), "a penalty reached the generator"
    assert all(torch.isfinite(p.grad).all() for p in discriminator.parameters())
    LOSSES[loss].of(discriminator(real), discriminator(fake))[1].backward()
    assert all(torch.isfinite(p.grad).all() for p in generator.parameters())
    assert sum(p.grad.abs().sum() for p in generator.parameters()) > 0


def test_gradient_of_a_constant_critic_is_finite():
    """sqrt has no derivative at 0."""
    weight = torch.zeros((), dtype=torch.double, requires_grad=True)
    real, fake = pyramids()

    def critic(pyramid, batches=1):
        return sum(weight * images.sum(dim=(1, 2, 3)) for images in pyramid)

    for name in PENALTIES:
        weight.grad = None
        PENALTIES[name](critic, real, fake, MIX).backward()
        assert torch.isfinite(weight.grad)


def test_softplus_forms_are_log_sigmoids():
    real, fake = torch.linspace(-3, 3, 7), torch.linspace(2, -4, 7)
    discriminator, generator = losses.non_saturating(real, fake)
    ones, zeros = torch.ones(7), torch.zeros(7)
    expected = F.binary_cross_entropy_with_logits(real, ones) + F.binary_cross_entropy_with_logits(fake, zeros)
    torch.testing.assert_close(discriminator, expected)
    torch.testing.assert_close(generator, F.binary_cross_entropy_with_logits(fake, ones))
