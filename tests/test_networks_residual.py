"""The residual block's hand-written gradients against automatic differentiation."""

import math

import pytest
import torch

from samgan.config import NetworkConfig
from samgan.networks import channels_last
from samgan.networks.blocks import DISCRIMINATOR_BLOCKS
from samgan.networks.residual import plain_residual_block, residual_block


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def operands(joined, channels=5, below=7, width=6, images=1):
    shapes = ((channels, images, 3, 3), (channels,), (channels, channels, 3, 3), (channels,))
    shapes += ((below, channels, 3, 3), (below,), (below, channels, 1, 1))
    inputs = [torch.randn(3, channels, 8, width)] * joined + [torch.randn(3, images, 8, width)]
    made = inputs + [torch.randn(s) / math.prod(s[1:]) ** 0.5 for s in shapes]
    made = [(channels_last(one) if one.dim() == 4 else one).double().requires_grad_() for one in made]
    return (made[0] if joined else None, made[joined], tuple(made[joined + 1 :])), made


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "first"])
@pytest.mark.parametrize(
    "sizes", [(5, 7, 6, 1), (4, 8, 12, 1), (8, 16, 2, 1), (16, 48, 2, 3), (48, 16, 6, 1), (32, 1, 4, 2)], ids=str
)
def test_the_fast_form_equals_the_plain_one(sizes, joined):
    """Outputs, gradients, and the gradients of a penalty on gradients, to 1e-12 in double precision."""
    arguments, made = operands(joined, *sizes)
    found = []
    for function in (residual_block, plain_residual_block):
        y = function(*arguments)
        first = torch.autograd.grad((y * y.detach().cos()).sum(), made)
        inputs = made[: joined + 1]
        y = function(*arguments)
        gradients = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)  # they depend on y, too
        penalty = sum(gradient.square().sum() for gradient in gradients)
        found.append((y, *first, *gradients, *torch.autograd.grad(penalty + y.sum(), made)))
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)


def test_second_derivatives_of_weights_are_nan_not_wrong():
    arguments, made = operands(joined=True)
    y = residual_block(*arguments)
    for gradient in torch.autograd.grad(y.sum(), made[2:], create_graph=True):
        assert gradient.isnan().all()


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "first"])
@pytest.mark.parametrize("spectral", ["none", "both"])
def test_a_block_without_attention_computes_what_one_with_attention_does(spectral, joined):
    """Its factors are in its weights. Attention begins with a factor of 0, and then changes nothing."""
    side, found = 16 if joined else 32, []
    x, image = torch.randn(2, 8, side, side).double() if joined else None, torch.randn(2, 1, side, side).double()
    for attention in ((), (side,)):
        places = {"discriminator_attention": attention}
        config = NetworkConfig(resolution=32, max_channels=8, spectral_norm=spectral, **places)
        block = DISCRIMINATOR_BLOCKS["residual"](config, side).double()
        if not attention:
            for parameter in block.parameters():
                parameter.data.normal_()
            known = block.state_dict()
        block.load_state_dict(known, strict=False)  # with its singular vectors
        assert block.is_plain == (not attention)
        y = block(image, x)
        layers = (block.from_image, block.conv_1, block.conv_2, block.skip)
        weights = [parameter for layer in layers for parameter in layer.parameters()]
        found.append((y, *torch.autograd.grad((y * y.detach().cos()).sum(), weights)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
