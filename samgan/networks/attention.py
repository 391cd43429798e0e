"""SAGAN's self-attention and other kinds of attention, each with a gate that starts closed."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.kernels import has_kernels
from samgan.networks.attention_tiles import plain_attend, tiled_attend
from samgan.networks.convolutions import EqualizedConv2d, channels_last

# Up to this many scores of an image (positions x keys), those of 16 px, two plain products are the fastest way; beside
# compiled kernels up to those of 8 px.
FEW_SCORES = 1 << 16
FEW_FOR_KERNELS = 1 << 12
# The fused kernel shares images out among threads, our tiles only the work within a tile. A second thread makes the
# first 1.95 times as fast, the second 1.6 times where an image fills a tile, and 1.3 times where it fills half, which
# is no gain any more. By this, the fused kernel catches up with full tiles at about 4 threads.
MANY_SCORES = 1 << 18
MOST_THREADS = 4


def _attend_how(x: Tensor, scores: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The fastest way to attend that this place allows; `scores` are those of one image.

    Only plain products can be differentiated twice, so they take over where `sdpa_kernel` excludes the fused kernels.
    Other programs, for which graphs are made, know the fused kernel but not our tiles.
    """
    if scores <= (FEW_FOR_KERNELS if has_kernels(x) else FEW_SCORES):
        return plain_attend
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return _fused_attend
    if not torch.backends.cuda.flash_sdp_enabled():  # despite its name, this is the setting of all devices
        return plain_attend
    if has_kernels(x):
        return tiled_attend
    threads = torch.get_num_threads()
    return tiled_attend if threads == 1 or (threads <= MOST_THREADS and scores > MANY_SCORES) else _fused_attend


def _fused_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend by torch's fused kernel; q is already as wide as v."""
    k = F.pad(k, (0, q.shape[2] - k.shape[2]))
    q, k, v = (t.unsqueeze(1) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)


class SelfAttention(nn.Module):
    """Self-attention with a gate that starts closed.

        s_ij = f(x_i)^T g(x_j),  beta_ji = softmax_i(s_ij)
        o_j = v(sum_i beta_ji h(x_i)),  y = gamma * o + x,  gamma = 0 at the start

    f, g, h, v are 1x1 convolutions without bias; in this class they are `key`, `query`, `value` and `out`. The scores
    are not divided by sqrt(d). With `pooled`, i runs over the 2x2 max-pooled positions.

    Args:
        channels: Channels of the input.
        reduction: k: queries and keys have channels / k, at least 1.
        value_reduction: Values have channels / value_reduction, at least 1.
        pooled: Whether keys and values are max-pooled.
        conv: Constructor of the four convolutions: `EqualizedConv2d`, perhaps with some arguments already given.

    Source: the paper's eq. 3-5; Zhang et al. 2019 (SAGAN), section 3. Pooling and width of the values: SAGAN's code.
    """

    def __init__(
        self,
        channels: int,
        conv: Callable[..., EqualizedConv2d] = EqualizedConv2d,
        *,
        reduction: int = 8,
        value_reduction: int = 2,
        pooled: bool = True,
    ) -> None:
        super().__init__()
        narrow, middle = max(1, channels // reduction), max(1, channels // value_reduction)
        self.pooled = pooled
        self.query = conv(channels, narrow, 1, bias=False)
        self.key = conv(channels, narrow, 1, bias=False)
        self.value = conv(channels, middle, 1, bias=False)
        self.out = conv(middle, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Attend. Memory grows with the number of positions, not with its square, but for a second derivative."""
        x = channels_last(x)  # the rows of positions below are then views, in the layout the fused kernel needs
        query, key, value, out = (layer.effective_weight() for layer in (self.query, self.key, self.value, self.out))
        keys = x[0, 0].numel() // (4 if self.pooled else 1)
        attend = _attend_how(x, x[0, 0].numel() * keys)
        # The fused kernel needs equal widths; padding with zeros does not change the scores.
        missing = max(0, len(value) - len(query)) if attend is _fused_attend else 0
        projected = F.conv2d(x, torch.cat([F.pad(query, (0, 0, 0, 0, 0, 0, 0, missing)), key, value]))
        q, kv = projected.split([len(query) + missing, len(key) + len(value)], dim=1)
        k, v = (F.max_pool2d(kv, 2) if self.pooled else kv).split([len(key), len(value)], dim=1)
        o = attend(*(t.flatten(2).mT for t in (q, k, v)))
        y = F.conv2d(o.mT.unflatten(2, x.shape[2:]), self.gamma * out)
        return y.add_(x) if y.dtype == x.dtype else y + x

    def attention_maps(
        self, x: Float[Tensor, "n c h w"], queries: slice = slice(None)
    ) -> Float[Tensor, "n queries keys"]:
        """Beta of eq. 3, for pictures and as a plain reference. Rows are query positions j and sum to 1.

        Args:
            x: The input.
            queries: Which positions, counted row by row; default: all.
        """
        query, key = self.query(x), self.key(x)
        if self.pooled:
            key = F.max_pool2d(key, 2)
        return torch.einsum("ncj,nci->nji", query.flatten(2)[:, :, queries], key.flatten(2)).softmax(dim=-1)


class LinearAttention(SelfAttention):
    """Self-attention without scores for pairs: its cost grows with the number of positions, not with its square.

        o_j = v(sum_d softmax_d(g(x_j)) (sum_i softmax_i(f(x_i)) h(x_i)^T)_d),  y = gamma * o + x

    Keys are never pooled, since there is nothing to save.

    Source: Shen et al. 2021 (Efficient Attention), eq. 5-6; the gate is the paper's eq. 5.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Attend: summarise all values once per key channel, and mix these summaries at every position."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        summaries = value @ key.softmax(dim=2).mT
        o = (summaries @ query.softmax(dim=1)).unflatten(2, x.shape[2:])
        return F.conv2d(o, self.gamma * self.out.effective_weight()) + x

    def attention_maps(
        self, x: Float[Tensor, "n c h w"], queries: slice = slice(None)
    ) -> Float[Tensor, "n queries keys"]:
        """The equivalent weights of pairs, which `forward` never forms; rows sum to 1."""
        query, key = self.query(x).flatten(2)[:, :, queries], self.key(x).flatten(2)
        return query.softmax(dim=1).mT @ key.softmax(dim=2)


class DualAttention(SelfAttention):
    """Self-attention between positions and between channels, in parallel, with one gate.

        A = softmax(X X^T / (h w)),  y = gamma * (o + A X) + x,  X: channels x positions

    Source: Fu et al. 2019 (DANet), eq. 1-4. Differs: one gate instead of two, and the scores between channels are means
    over the positions, so that they do not depend on the resolution.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Attend between positions, then add the attention between channels."""
        rows = x.flatten(2)
        between_channels = (rows @ rows.mT / rows.shape[2]).softmax(dim=2) @ rows
        return super().forward(x) + self.gamma * between_channels.unflatten(2, x.shape[2:])


class SqueezeExcitation(nn.Module):
    """Channel attention: weight each channel by a function of the means of all channels.

        y = gamma * x sigmoid(W_2 relu(W_1 mean(x))) + x,  gamma = 0 at the start

    Args:
        channels: Channels of the input.
        conv: Constructor of the convolutions.
        reduction: The hidden layer has channels / reduction, at least 1.

    Source: Hu et al. 2018 (SENet), eq. 2-4; the gate is the paper's eq. 5.
    """

    def __init__(
        self, channels: int, conv: Callable[..., EqualizedConv2d] = EqualizedConv2d, *, reduction: int = 8
    ) -> None:
        super().__init__()
        self.squeeze = conv(channels, max(1, channels // reduction), 1)
        self.excite = conv(max(1, channels // reduction), channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Weight the channels."""
        weights = self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3), keepdim=True)))).sigmoid()
        return x * (1 + self.gamma * weights)


class ConvolutionalBlockAttention(SqueezeExcitation):
    """CBAM: weight channels by their mean and maximum, then positions by the mean and maximum over channels.

        x' = x sigmoid(M(mean_hw x) + M(max_hw x)),  M(z) = W_2 relu(W_1 z)
        y = gamma * x' sigmoid(conv7x7[mean_c x', max_c x']) + x

    Source: Woo et al. 2018 (CBAM), eq. 2-3; the gate is the paper's eq. 5.
    """

    def __init__(
        self, channels: int, conv: Callable[..., EqualizedConv2d] = EqualizedConv2d, *, reduction: int = 8
    ) -> None:
        super().__init__(channels, conv, reduction=reduction)
        self.locate = conv(2, 1, 7, padding=3)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Weight channels, then positions."""
        mean, peak = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        mean, peak = (self.excite(F.relu(self.squeeze(summary))) for summary in (mean, peak))
        weighed = x * (mean + peak).sigmoid()
        maps = torch.cat([weighed.mean(dim=1, keepdim=True), weighed.amax(dim=1, keepdim=True)], dim=1)
        return self.gamma * weighed * self.locate(maps).sigmoid() + x


ATTENTION: dict[str, type[SelfAttention | SqueezeExcitation]] = {
    "self": SelfAttention,
    "linear": LinearAttention,
    "dual": DualAttention,
    "squeeze-excitation": SqueezeExcitation,
    "cbam": ConvolutionalBlockAttention,
}
