"""Adversarial losses on raw logits and gradient penalties over all scales. Pure functions; `real` before `fake`."""

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

Logits = Float[Tensor, " n"]
Scalar = Float[Tensor, ""]
Pyramid = list[Tensor]


def relativistic_average_hinge(real: Logits, fake: Logits) -> tuple[Scalar, Scalar]:
    """Relativistic average hinge losses of discriminator and generator, the paper's choice ("RLHinge").

        D~(x_r) = C(x_r) - E[C(x_g)],  D~(x_g) = C(x_g) - E[C(x_r)]
        L_D = E relu(1 - D~(x_r)) + E relu(1 + D~(x_g))
        L_G = E relu(1 - D~(x_g)) + E relu(1 + D~(x_r))

    There is no factor 1/2. The generator's loss also needs real images. A constant added to all logits changes nothing.

    Args:
        real: Raw logits C of real images.
        fake: Raw logits C of generated images.

    Returns:
        L_D and L_G, each 0 or more; each network's update uses its own.

    Source: the paper's eq. 1-2 (the P and Q under E in its eq. 2 are swapped by a typo); Jolicoeur-Martineau 2018.
    """
    real_against_fake = real - fake.mean()
    fake_against_real = fake - real.mean()
    discriminator = F.relu(1 - real_against_fake).mean() + F.relu(1 + fake_against_real).mean()
    generator = F.relu(1 - fake_against_real).mean() + F.relu(1 + real_against_fake).mean()
    return discriminator, generator


def relativistic_paired(real: Logits, fake: Logits) -> tuple[Scalar, Scalar]:
    """RpGAN: L_D = E softplus(C(x_g) - C(x_r)), L_G = E softplus(C(x_r) - C(x_g)), image i against image i.

    Source: Jolicoeur-Martineau 2018, eq. 8; Huang et al. 2024 (R3GAN), eq. 2.
    """
    return F.softplus(fake - real).mean(), F.softplus(real - fake).mean()


def wasserstein(real: Logits, fake: Logits) -> tuple[Scalar, Scalar]:
    """Wasserstein losses: L_D = E C(x_g) - E C(x_r), L_G = -E C(x_g). Use with a gradient penalty.

    Source: Arjovsky et al. 2017; Gulrajani et al. 2017, eq. 3.
    """
    return fake.mean() - real.mean(), -fake.mean()


def hinge(real: Logits, fake: Logits) -> tuple[Scalar, Scalar]:
    """Hinge losses: L_D = E relu(1 - C(x_r)) + E relu(1 + C(x_g)), L_G = -E C(x_g).

    Source: Lim and Ye 2017; Zhang et al. 2019 (SAGAN), eq. 4.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean(), -fake.mean()


def non_saturating(real: Logits, fake: Logits) -> tuple[Scalar, Scalar]:
    """Original GAN losses: L_D = -E log sigmoid(C(x_r)) - E log(1 - sigmoid(C(x_g))), L_G = -E log sigmoid(C(x_g)).

    Source: Goodfellow et al. 2014, section 3.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean(), F.softplus(-fake).mean()


def per_map(
    loss: Callable[[Logits, Logits], tuple[Scalar, Scalar]],
    real: Float[Tensor, "n ..."],
    fake: Float[Tensor, "n ..."],
) -> tuple[Scalar, Scalar]:
    """Compute a loss of logits [n], or its mean over maps of logits [n, maps, places], each place like an image."""
    if real.ndim == 1:
        return loss(real, fake)
    of_maps = zip(real.unbind(1), fake.unbind(1), strict=True)
    losses = [loss(of_real.flatten(), of_fake.flatten()) for of_real, of_fake in of_maps]
    discriminator, generator = (torch.stack(parts).mean() for parts in zip(*losses, strict=True))
    return discriminator, generator


@dataclasses.dataclass(frozen=True)
class Loss:
    """An adversarial loss, and what a training step needs to know about it."""

    of: Callable[[Logits, Logits], tuple[Scalar, Scalar]]
    """Takes logits of real and of generated images; returns the losses of the discriminator and of the generator."""
    relativistic: bool = False
    """Whether the generator's loss needs the logits of real images."""
    absolute: bool = False
    """Whether logit 0 separates real from generated. If not, a constant added to all logits changes nothing."""


LOSSES = {
    "relativistic-average-hinge": Loss(relativistic_average_hinge, relativistic=True),
    "relativistic-paired": Loss(relativistic_paired, relativistic=True),
    "wgan": Loss(wasserstein),
    "hinge": Loss(hinge, absolute=True),
    "non-saturating": Loss(non_saturating, absolute=True),
}
"""By the names that `training.loss` takes."""


def _squared_gradients(discriminator: Callable[[Pyramid], Tensor], pyramid: Pyramid) -> Float[Tensor, "scales n"]:
    """Squared norm of d(sum of logits) / d(images), per scale and image; differentiable."""
    inputs = [images.detach().requires_grad_() for images in pyramid]
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
        logits = discriminator(inputs)
        if logits.ndim > 1:  # maps: the logit of an image is their mean
            logits = logits.flatten(1).mean(dim=1)
        gradients = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return torch.stack([gradient.square().sum(dim=(1, 2, 3)) for gradient in gradients])


def _mixture(real: Pyramid, fake: Pyramid, mix: Tensor) -> Pyramid:
    mix = mix.view(-1, 1, 1, 1)
    return [mix * r + (1 - mix) * f.detach() for r, f in zip(real, fake, strict=True)]


def gradient_penalty_per_scale(
    discriminator: Callable[[Pyramid], Tensor], real: Pyramid, fake: Pyramid, mix: Logits
) -> Scalar:
    """WGAN-GP's penalty, averaged over the scales: mean_s E (||dC/dx_s|| - 1)^2 at x = mix * real + (1 - mix) * fake.

    Each scale's image counts as a separate input with its own gradient norm. A critic with slope k at every scale
    gives (k - 1)^2.

    Args:
        discriminator: Maps a pyramid, smallest image first, to logits.
        real: Real pyramid.
        fake: Generated pyramid; no gradient flows to it.
        mix: One number in [0, 1] per image, the same at every scale.

    Returns:
        The penalty without its weight, 0 or more.

    Source: Gulrajani et al. 2017, eq. 3; average over scales: Karnewar and Wang 2020 (MSG-GAN), section 3.
    """
    squares = _squared_gradients(discriminator, _mixture(real, fake, mix))
    return ((squares + 1e-12).sqrt() - 1).square().mean()


def r1_penalty(discriminator: Callable[[Pyramid], Tensor], real: Pyramid, fake: Pyramid, mix: Logits) -> Scalar:
    """R1: E ||dC/dx||^2 on real images, summed over the scales. Source: Mescheder et al. 2018, eq. 9."""
    return _squared_gradients(discriminator, real).sum(dim=0).mean()


def r1_r2_penalty(discriminator: Callable[..., Tensor], real: Pyramid, fake: Pyramid, mix: Logits) -> Scalar:
    """R1 on real images plus R2 on as many generated images, in one pass.

    Source: Mescheder et al. 2018, eq. 9 and 10; Huang et al. 2024 (R3GAN), section 2.2.
    """
    both = [torch.cat(images) for images in zip(real, fake, strict=True)]
    return 2 * _squared_gradients(partial(discriminator, batches=2), both).sum(dim=0).mean()


Penalty = Callable[[Callable[..., Tensor], Pyramid, Pyramid, Logits], Scalar]
"""Takes a discriminator, a real and a generated pyramid, and `mix`; returns a penalty without its weight."""
PENALTIES: dict[str, Penalty] = {
    "gradient-per-scale": gradient_penalty_per_scale,
    "r1": r1_penalty,
    "r1-r2": r1_r2_penalty,
}
