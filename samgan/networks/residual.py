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

from samgan.networks.convolutions import activate, halve
from samgan.networks.fused import (
    activate_and_add,
    activate_and_halve,
    activate_and_halve_backward,
    activate_backward,
    back,
    convolve,
    join_change,
    join_image,
    join_image_backward,
    slope_and_add,
    slope_and_halve,
)

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
        joined, half_joined, features = join_image(image, x, of_image, image_bias)
        y1 = convolve(joined, weight_1, bias_1)
        half = activate_and_halve(y1)
        y2 = convolve(half, weight_2, bias_2)
        ctx.has_x = x is not None
        out = activate_and_add(y2, convolve(half_joined, skip))
        ctx.save_for_backward(image, *weights, features, joined, y1, half, y2, half_joined)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        image, *kept = ctx.saved_tensors
        weights, (features, joined, y1, half, y2, half_joined) = kept[:7], kept[7:]
        of_image, image_bias, weight_1, _, weight_2, _, skip = weights
        if torch.is_grad_enabled():  # the gradients will be differentiated
            g_x, g_image = _Adjoint.apply(g, image, of_image, image_bias, weight_1, weight_2, skip, features, y1, y2)
            none = g.new_full((), torch.nan)
            return (g_x if ctx.has_x else None, g_image, *(none.expand_as(weight) for weight in weights))
        needs_x, needs_image, *needs_weights = ctx.needs_input_grad
        wanted = any(needs_weights)
        g_half_joined, g_skip, _ = back(g, half_joined, skip, 0, (True, wanted, False))
        g2, g_bias_2 = activate_backward(g, y2, bias=wanted)
        g_half, g_weight_2, _ = back(g2, half, weight_2, 1, (True, wanted, False))
        g1, g_bias_1 = activate_and_halve_backward(g_half, y1, bias=wanted)
        g_x, g_weight_1, _ = back(g1, joined, weight_1, 1, (True, wanted, False))
        g_image, g_of_image, g_image_bias = join_image_backward(
            *(g_x, g_half_joined, image, image, of_image, image_bias, features), wanted=(needs_image, wanted, wanted)
        )
        return (
            g_x if needs_x else None,
            g_image,
            *(g_of_image, g_image_bias, g_weight_1, g_bias_1, g_weight_2, g_bias_2, g_skip),
        )


class _Adjoint(torch.autograd.Function):
    """The gradients of a block's features and image, as a function of the output's gradient and of the weights."""

    @staticmethod
    def forward(  # noqa: PLR0913 (what a block keeps)
        ctx: Any,
        g: Tensor,
        image: Tensor,
        of_image: Tensor,
        image_bias: Tensor,
        weight_1: Tensor,
        weight_2: Tensor,
        skip: Tensor,
        features: Tensor | None,
        *outputs: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        y1, y2 = outputs
        g2, _ = activate_backward(g, y2, bias=False)
        g1, _ = activate_and_halve_backward(_transposed(g2, weight_2), y1, bias=False)
        g_x, g_half = _transposed(g1, weight_1), _transposed(g, skip, 0)
        g_image, _, _ = join_image_backward(
            g_x, g_half, image, image, of_image, image_bias, features, wanted=(True, False, False)
        )
        ctx.save_for_backward(g, image, of_image, image_bias, weight_1, weight_2, skip, features, *outputs, g2, g1, g_x)
        return g_x, g_image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        v_x, v_image = gradients
        g, image, of_image, image_bias, weight_1, weight_2, skip, features, y1, y2, g2, g1, g_x = ctx.saved_tensors
        x, half_x = join_change(image, v_image, v_x, of_image, image_bias, features)
        half = slope_and_halve(convolve(x, weight_1), y1)
        v = slope_and_add(convolve(half, weight_2), y2, convolve(half_x, skip))
        _, g_of_image, _ = join_image_backward(
            g_x, None, image, v_image, of_image, image_bias, features, wanted=(False, True, False)
        )
        pairs = ((g1, x, weight_1, 1), (g2, half, weight_2, 1), (g, half_x, skip, 0))
        of_weights = (back(*pair, (False, True, False))[1] for pair in pairs)
        return (v, None, g_of_image, None, *of_weights, None, None, None)


def _transposed(g: Tensor, weight: Tensor, padding: int = 1) -> Tensor:
    """The gradient of the input of a convolution whose output has the same sides."""
    shape = (len(g), weight.shape[1], *g.shape[2:])
    x = torch.empty(
        shape, dtype=g.dtype, device=g.device, memory_format=torch.channels_last
    )  # its values do not matter
    return back(g, x, weight, padding, (True, False, False))[0]
