"""The residual discriminator's block with hand-written gradients: the same function in half the time.

Automatic differentiation keeps more, copies more and, for a penalty on gradients, computes each of three passes anew.
Between its kinks a block is linear in its inputs, which makes the gradients short:

    f = act(F image),  x0 = x + f,  y1 = act(W1 x0),  y2 = act(W2 half(y1)),  out = S half(x0) + y2

With m_f, m_1 and m_2 for the slopes of the activations, and T for transposed, an output's gradient g goes back as

    g2 = m_2 g,  g1 = m_1 half^T(W2^T g2),  g_x = W1^T g1 + half^T(S^T g),  g_f = m_f g_x,  g_image = F^T g_f

and a weight's gradient is that of its convolution, from its input and the gradient of its output. A penalty needs the
gradients of these gradients. They are linear in g, so a change v_x of g_x and v_image of g_image goes forward through
the block, without biases and with the same slopes; each weight gets what its convolution gives for that input.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from samgan.networks.convolutions import SLOPE, activate, halve, unhalve

Weights = tuple[Tensor, ...]
"""Weight and bias of F, W1 and W2, and the weight of S."""


def residual_block(
    x: Float[Tensor, "n c h w"] | None, image: Float[Tensor, "n i h w"], weights: Weights
) -> Float[Tensor, "n d h/2 w/2"]:
    """Compute a block from the features x of the block above, which the first block lacks, and the image of this scale.

    Only gradients of x and of the image can be differentiated again, and only once; those of the weights are then NaN.
    """
    return _Block.apply(x, image, *weights)


def plain_residual_block(
    x: Float[Tensor, "n c h w"] | None, image: Float[Tensor, "n i h w"], weights: Weights
) -> Float[Tensor, "n d h/2 w/2"]:
    """Compute the same as `residual_block`, by automatic differentiation."""
    of_image, image_bias, weight_1, bias_1, weight_2, bias_2, skip = weights
    features = activate(F.conv2d(image, of_image, image_bias, padding=1))
    x = features if x is None else x + features
    y = activate(F.conv2d(x, weight_1, bias_1, padding=1))
    y = activate(F.conv2d(halve(y), weight_2, bias_2, padding=1))
    return F.conv2d(halve(x), skip).add_(y)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor | None, image: Tensor, *weights: Tensor) -> Tensor:
        of_image, image_bias, weight_1, bias_1, weight_2, bias_2, skip = weights
        features = activate(F.conv2d(image, of_image, image_bias, padding=1))
        joined = features if x is None else x + features
        y1 = activate(F.conv2d(joined, weight_1, bias_1, padding=1))
        half = halve(y1)
        y2 = activate(F.conv2d(half, weight_2, bias_2, padding=1))
        half_joined = halve(joined)
        ctx.has_x = x is not None
        ctx.save_for_backward(image, *weights, features, joined, y1, half, y2, half_joined)
        return F.conv2d(half_joined, skip).add_(y2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        image, *kept = ctx.saved_tensors
        weights, (features, joined, y1, half, y2, half_joined) = kept[:7], kept[7:]
        of_image, _, weight_1, _, weight_2, _, skip = weights
        if torch.is_grad_enabled():  # the gradients will be differentiated
            g_x, g_image = _Adjoint.apply(g, of_image, weight_1, weight_2, skip, features, y1, y2)
            none = g.new_full((), torch.nan)
            return (g_x if ctx.has_x else None, g_image, *(none.expand_as(weight) for weight in weights))
        needs_x, needs_image, *needs_weights = ctx.needs_input_grad
        wanted = any(needs_weights)
        g_half_joined, g_skip, _ = _back(g, half_joined, skip, 0, (True, wanted, False))
        g2 = _through(g, y2)
        g_half, g_weight_2, g_bias_2 = _back(g2, half, weight_2, 1, (True, wanted, wanted))
        g1 = _through(unhalve(g_half), y1)
        g_x, g_weight_1, g_bias_1 = _back(g1, joined, weight_1, 1, (True, wanted, wanted))
        g_x = g_x.add_(unhalve(g_half_joined))
        g_f = _through(g_x, features)
        g_image, g_of_image, g_image_bias = _back(g_f, image, of_image, 1, (needs_image, wanted, wanted))
        return (
            g_x if needs_x else None,
            g_image if needs_image else None,
            *(g_of_image, g_image_bias, g_weight_1, g_bias_1, g_weight_2, g_bias_2, g_skip),
        )


class _Adjoint(torch.autograd.Function):
    """The gradients of a block's features and image, as a function of the output's gradient and of the weights."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, of_image: Tensor, weight_1: Tensor, weight_2: Tensor, skip: Tensor, *outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        features, y1, y2 = outputs
        g2 = _through(g, y2)
        g1 = _through(unhalve(_transposed(g2, weight_2)), y1)
        g_x = _transposed(g1, weight_1).add_(unhalve(_transposed(g, skip, 0)))
        g_f = _through(g_x, features)
        ctx.save_for_backward(g, of_image, weight_1, weight_2, skip, *outputs, g2, g1, g_f)
        return g_x, _transposed(g_f, of_image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        v_x, v_image = gradients
        g, of_image, weight_1, weight_2, skip, features, y1, y2, g2, g1, g_f = ctx.saved_tensors
        x = _through(F.conv2d(v_image, of_image, padding=1), features).add_(v_x)
        half = halve(_through(F.conv2d(x, weight_1, padding=1), y1))
        half_x = halve(x)
        v = F.conv2d(half_x, skip).add_(_through(F.conv2d(half, weight_2, padding=1), y2))
        pairs = ((g_f, v_image, of_image, 1), (g1, x, weight_1, 1), (g2, half, weight_2, 1), (g, half_x, skip, 0))
        return (v, *(_back(*pair, (False, True, False))[1] for pair in pairs), None, None, None)


def _through(g: Tensor, y: Tensor) -> Tensor:
    """The gradient g of an activation's output y, before the activation."""
    return torch.ops.aten.leaky_relu_backward(g, y, SLOPE, True)


def _back(g: Tensor, x: Tensor, weight: Tensor, padding: int, wanted: tuple[bool, bool, bool]) -> Any:
    """The gradients of a convolution's input, weight and bias, where wanted."""
    sides = [padding, padding]
    return torch.ops.aten.convolution_backward(
        g, x, weight, [len(weight)] if wanted[2] else None, [1, 1], sides, [1, 1], False, [0, 0], 1, wanted
    )


def _transposed(g: Tensor, weight: Tensor, padding: int = 1) -> Tensor:
    """The gradient of the input of a convolution whose output has the same sides."""
    shape = (len(g), weight.shape[1], *g.shape[2:])
    x = torch.empty(
        shape, dtype=g.dtype, device=g.device, memory_format=torch.channels_last
    )  # its values do not matter
    return _back(g, x, weight, padding, (True, False, False))[0]
