"""The residual block's hand-written gradients against automatic differentiation."""

import pytest
import torch

from samgan.config import NetworkConfig
from samgan.networks import channels_last
from samgan.networks.blocks import DISCRIMINATOR_BLOCKS
from samgan.networks.residual import plain_residual_block, residual_block


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def operands(joined, channels=5, below=7):
    shapes = ((channels, 1, 3, 3), (channels,), (channels, channels, 3, 3), (channels,))
    shapes += ((below, channels, 3, 3), (below,), (below, channels, 1, 1))
    made = [torch.randn(3, channels, 8, 6)] * joined + [torch.randn(3, 1, 8, 6)] + [torch.randn(*s) / 3 for s in shapes]
    made = [(channels_last(one) if one.dim() == 4 else one).double().requires_grad_() for one in made]
    return (made[0] if joined else None, made[joined], tuple(made[joined + 1 :])), made


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "first"])
def test_the_fast_form_equals_the_plain_one(joined):
    """Outputs, gradients, and the gradients of a penalty on gradients, to 1e-12 in double precision."""
    arguments, made = operands(joined)
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
def test_a_block_of_the_discriminator_takes_it(monkeypatch, spectral, joined):
    """With its factors in its weights, it computes what the general code does, which other blocks take."""
    block = DISCRIMINATOR_BLOCKS["residual"](NetworkConfig(resolution=32, max_channels=8, spectral_norm=spectral), 8)
    for name, parameter in block.double().named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_()
    x = torch.randn(2, block.conv_1.weight.shape[1], 8, 8, dtype=torch.double) if joined else None
    image = torch.randn(2, 1, 8, 8, dtype=torch.double)
    found = []
    for fast in (True, False):
        monkeypatch.setattr(block, "is_residual", fast)
        y = block(image, x)
        found.append((y, *torch.autograd.grad((y * y.detach().cos()).sum(), list(block.parameters()))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
