"""The layers of MSG-GAN and SAGAN: equalized convolution with spectral norm, pixel norm, minibatch std, attention."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from samgan.distributed import gather, rank

# Scores of an image (positions x keys) up to which two plain products beat the fused kernel: those of 16 px.
FEW_SCORES = 1 << 16
NOISE_DIRECTIONS = 64
SLOPE = 0.2  # of leaky ReLU
GAIN = math.sqrt(2)  # makes up for what a leaky ReLU takes away of the mean square


class EqualizedConv2d(nn.Module):
    """Convolution with equalized learning rate and spectral norm, each of them optional.

        w_hat = w,                              w ~ N(0, 2 / fan_in)    (neither)
        w_hat = w * sqrt(2 / fan_in),           w ~ N(0, 1)             (equalized)
        w_hat = w / sigma(w),                   w ~ N(0, 2 / fan_in)    (spectral norm, scale "plain")
        w_hat = w / sigma(w),                   w ~ N(0, 1)             (both, scale "unit")
        w_hat = w / sigma(w) * sqrt(2 / fan_in),  w ~ N(0, 1)           (both, scale "equalized")

    Scale does not change w / sigma(w) but how far an optimizer's step of a given length turns it, so "plain" and "unit"
    are one function learning at two speeds.

    sigma is estimated as u^T W v with W of shape [out, in * k * k]. `u` and `v` move only in `power_iteration`, which
    the training step calls after each weight update: a forward pass changes nothing, so it may be repeated, and it is
    the same in training and evaluation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel.
        padding: Zeros added on each side.
        bias: Whether a bias is added.
        equalized: Whether the weight is scaled at run time; if not, it is drawn at that scale.
        spectral: Whether the weight is divided by its largest singular value.
        spectral_scale: "plain", "unit" or "equalized", see above; without `equalized` all are "plain".
        gain: Takes the place of sqrt(2), which is right before a leaky ReLU.
        transposed: A transposed convolution; its fan-in is `in_channels`, as in MSG-GAN's first layer.

    Source: equalized: Karras et al. 2018 (ProGAN), section 4.1; spectral norm: Miyato et al. 2018, algorithm 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        bias: bool = True,
        equalized: bool = True,
        spectral: bool = False,
        spectral_scale: str = "plain",
        gain: float = GAIN,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.transposed = transposed
        self.spectral = spectral
        ends = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        fan_in = in_channels if transposed else in_channels * kernel_size**2
        scale = gain / math.sqrt(fan_in)
        self.weight = nn.Parameter(channels_last(torch.randn(*ends, kernel_size, kernel_size)))  # as its inputs
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        if not equalized or (spectral and spectral_scale == "plain"):
            self.weight.data.mul_(scale)
            self.scale = 1.0
        else:
            self.scale = 1.0 if spectral and spectral_scale == "unit" else scale
        if spectral:
            self.register_buffer("u", F.normalize(torch.randn(ends[0]), dim=0))
            self.register_buffer("v", F.normalize(torch.randn(self.weight[0].numel()), dim=0))
            self.power_iteration(15)  # torch.nn.utils.spectral_norm also starts with 15

    u: Tensor
    v: Tensor

    @torch.no_grad()
    def power_iteration(self, count: int = 1) -> None:
        """Move `u` and `v` towards the leading singular vectors; does nothing without spectral norm."""
        if not self.spectral:
            return
        matrix = self.weight.flatten(1)
        for _ in range(count):
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0, eps=1e-12))
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=1e-12))

    def effective_weight(self) -> Tensor:
        """The weight that the convolution uses, w_hat above."""
        if not self.spectral:
            return self.weight * self.scale
        sigma = self.u @ self.weight.flatten(1) @ self.v
        return self.weight * (self.scale / sigma)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Convolve."""
        weight = self.effective_weight()
        if self.transposed:
            return F.conv_transpose2d(x, weight, self.bias, padding=self.padding)
        # Where one pixel is left, it is a matrix product, and faster as one.
        if not self.padding and x.shape[2:] == weight.shape[2:]:
            return F.linear(x.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style, and whose output channels are scaled back.

        s = 1 + A w,    y_o = sum_i W_oi * (s_i x_i) / sqrt(sum_ijk (s_i W_oijk)^2 + 1e-8) * gain + noise_o n + bias_o

    Scaling the features before and after one convolution with one kernel is what scaling the kernel of every image
    would give, without a kernel for every image. With `upsample`, the result is enlarged twofold (bilinearly) before
    noise and bias are added: the convolution is computed at the lower resolution.

    n is one map of noise, the same for all channels: n = P z[:64] / 8 of the latent z, with a fixed random matrix P.
    For an observer of many images it is independent N(0, 1) in every pixel, and yet an image is a function of its
    latent, on any device.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        resolution: Side of the output.
        style_size: Channels of the style w.
        conv: Constructor of the convolution and of A, `EqualizedConv2d` or that with some arguments given.
        upsample: Whether the output has twice the resolution.
        noise: Whether noise is added.
        latent_size: Channels of the latent z that are N(0, 1), its first ones; default: style_size.

    Source: Karras et al. 2020 (StyleGAN2), section 2.2; there n is drawn anew.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        resolution: int,
        style_size: int,
        conv: Callable[..., EqualizedConv2d] = EqualizedConv2d,
        *,
        upsample: bool = False,
        noise: bool = True,
        latent_size: int | None = None,
    ) -> None:
        super().__init__()
        self.style = conv(style_size, in_channels, 1, gain=1.0)
        self.conv = conv(in_channels, out_channels, 3, padding=1)
        self.upsample = upsample
        self.noise = nn.Parameter(torch.zeros(out_channels, 1, 1)) if noise else None
        if noise:
            # Not saved: NumPy promises that this stream of numbers stays as it is.
            directions = min(NOISE_DIRECTIONS, latent_size or style_size)
            matrix = np.random.RandomState(2 * resolution + upsample).standard_normal((resolution**2, directions))
            scaled = torch.tensor(matrix / directions**0.5, dtype=torch.float)
            self.register_buffer("directions", scaled, persistent=False)

    directions: Tensor

    def forward(
        self, x: Float[Tensor, "n c h w"], w: Float[Tensor, "n s 1 1"], z: Float[Tensor, "n l 1 1"]
    ) -> Float[Tensor, "n d r r"]:
        """Return [n, out_channels, resolution, resolution]; x has that resolution, or half of it."""
        weight, style = self.conv.effective_weight(), 1 + self.style(w)
        assert self.conv.bias is not None
        y = F.conv2d(x * style, weight, padding=self.conv.padding)
        squares = style.square().flatten(1) @ weight.square().sum(dim=(2, 3)).T
        scale = GAIN * torch.rsqrt(squares + 1e-8)
        # The bias is what it is after enlarging, too.
        y = torch.addcmul(self.conv.bias[:, None, None].to(y.dtype), y, scale[:, :, None, None].to(y.dtype))
        if self.upsample:
            y = upsample(y)
        if self.noise is not None:
            noise = z.flatten(1)[:, : self.directions.shape[1]] @ self.directions.T
            y.addcmul_(self.noise.to(y.dtype), noise.view(len(y), 1, *y.shape[2:]).to(y.dtype))
        return y


def upsample(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    """Enlarge twofold, bilinearly: pixels that are repeated leave a grid behind."""
    # On a CPU, autocast would make fp32 of bf16, which all behind it would then be.
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def plain_upsample_conv(x: Float[Tensor, "n c h w"], conv: EqualizedConv2d) -> Float[Tensor, "n d 2*h 2*w"]:
    """Repeat every pixel in a square of 2x2, then convolve with a 3x3 kernel."""
    return conv(F.interpolate(x, scale_factor=2))


def upsample_conv(x: Float[Tensor, "n c h w"], conv: EqualizedConv2d) -> Float[Tensor, "n d 2*h 2*w"]:
    """What `plain_upsample_conv` computes, in 16/36 of the multiplications.

    Repeating pixels is a transposed convolution of stride 2 with a 2x2 kernel of ones, so both together are one with
    the 4x4 kernel that the two kernels make.
    """
    weight = conv.effective_weight()
    kernel = torch.stack([F.pad(weight, (j, 1 - j, i, 1 - i)) for i in (0, 1) for j in (0, 1)]).sum(dim=0)
    return F.conv_transpose2d(x, kernel.flip(2, 3).transpose(0, 1), conv.bias, stride=2, padding=1)


def plain_image_conv(
    image: Float[Tensor, "n i h w"], x: Float[Tensor, "n c h w"] | None, head: EqualizedConv2d, conv: EqualizedConv2d
) -> Float[Tensor, "n d h w"]:
    """Map an image to features by the 1x1 convolution `head`, join them to features `x`, convolve with a 3x3 kernel."""
    features = head(image)
    return conv(features if x is None else torch.cat([features, x], dim=1))


def image_conv(
    image: Float[Tensor, "n i h w"], x: Float[Tensor, "n c h w"] | None, head: EqualizedConv2d, conv: EqualizedConv2d
) -> Float[Tensor, "n d h w"]:
    """What `plain_image_conv` computes, without making the image's features.

    Nothing stands between the two convolutions, so their kernels make one that takes the image itself: 1 or 3 channels
    in place of the features. The head's bias becomes the kernel of a channel of ones, which ends where the image ends.
    """
    assert head.bias is not None
    weight, mix = conv.effective_weight(), head.effective_weight()[:, :, 0, 0]
    own, others = weight[:, : len(mix)], weight[:, len(mix) :]
    kernel = torch.einsum("omij,mc->ocij", own, torch.cat([mix, head.bias[:, None]], dim=1))
    ones = image.new_ones(len(image), 1, *image.shape[2:])
    y = F.conv2d(channels_last(torch.cat([image, ones], dim=1)), kernel, conv.bias, padding=conv.padding)
    return y if x is None else y + F.conv2d(x, others, padding=conv.padding)


def power_iteration(network: nn.Module) -> None:
    """One power iteration in every layer of `network` that has spectral norm."""
    for module in network.modules():
        if isinstance(module, EqualizedConv2d):
            module.power_iteration()


def channels_last(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The same values with a pixel's channels side by side in memory; convolutions keep to it.

    Faster than maps side by side on a CPU, and what tensor cores take. To be called where the layout is lost: after
    what has one channel or one pixel, where both layouts are the same. Of one channel, only the strides are changed:
    they tell a convolution which layout is meant.
    """
    if x.shape[1] == 1:
        return x.reshape(len(x), *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def pixel_norm(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Scale each pixel's feature vector to unit root mean square: x / sqrt(mean_c(x^2) + 1e-8).

    Source: Karras et al. 2018 (ProGAN), section 4.2.
    """
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def activate(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Leaky ReLU of slope 0.2, in place: of a convolution's output, which nothing else needs."""
    return F.leaky_relu(x, SLOPE, inplace=True)


class _ActivateAndNormalize(torch.autograd.Function):
    """y = pixel_norm(activate(x)) in place, with r = y / activate(x): all that is kept is y and r.

    dx = leaky_relu'(x) * r * (dy - y * mean_c(dy * y)),   where y has the sign of x
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        activate(x)
        r = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
        x.mul_(r)
        ctx.save_for_backward(x, r)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        y, r = ctx.saved_tensors
        (dy,) = gradients
        dx = torch.addcmul(dy, y, (dy * y).mean(dim=1, keepdim=True), value=-1).mul_(r)
        return torch.ops.aten.leaky_relu_backward(dx, y, SLOPE, True)


def activate_and_normalize(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """`pixel_norm(activate(x))` in half the memory; its gradient cannot be differentiated again."""
    return _ActivateAndNormalize.apply(x)


class MinibatchStdDev(nn.Module):
    """Append one map: the standard deviation over the batch, averaged over features and pixels.

    Over the global batch of all processes. With groups, image i belongs to group i mod (n / group) and each group has
    its own value. Of images with labels each class is a batch of its own, cut into as many groups of `group` or more as
    it fills: images of two classes differ however alike those of one are, so a value over both hides a class that has
    collapsed.

    Args:
        group: Images per statistic; 0: the whole batch, as in MSG-GAN.

    Source: Karras et al. 2018 (ProGAN), section 3; groups: its code.
    """

    def __init__(self, group: int = 0) -> None:
        super().__init__()
        self.group = group

    def forward(
        self, x: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"] | None = None, batches: int = 1
    ) -> Float[Tensor, "n d h w"]:
        """Return [n, c + 1, h, w]; of several batches in one, each has its own statistics."""
        classes = [None] * batches if labels is None else labels.chunk(batches)
        return torch.cat([self._append(*batch) for batch in zip(x.chunk(batches), classes, strict=True)])

    def _append(self, x: Tensor, labels: Tensor | None) -> Tensor:
        batch = gather(x)
        y = self._of_groups(batch) if labels is None else self._of_classes(batch, gather(labels))
        own = y[rank() * len(x) : (rank() + 1) * len(x)]
        return torch.cat([x, own.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])], dim=1)

    def _of_groups(self, batch: Tensor) -> Float[Tensor, " n"]:
        group = self.group or len(batch)
        if len(batch) % group:
            raise ValueError(f"minibatch std: a batch of {len(batch)} images is not divisible into groups of {group}")
        y = batch.reshape(group, -1, *batch.shape[1:])
        variance = (y - y.mean(dim=0)).square().mean(dim=0)  # many times as fast as y.var(dim=0)
        return (variance + 1e-8).sqrt().mean(dim=(1, 2, 3)).repeat(group)

    def _of_classes(self, batch: Tensor, labels: Tensor) -> Float[Tensor, " n"]:
        same = labels[:, None] == labels
        place, count = same.tril(-1).sum(dim=1), same.sum(dim=1)  # of an image in its class, and of its class
        number = place % (count // (self.group or len(labels))).clamp(min=1)
        together = (same & (number[:, None] == number)).to(torch.promote_types(batch.dtype, torch.float32))
        together = together / together.sum(dim=1, keepdim=True)
        with torch.autocast(batch.device.type, enabled=False):  # images that are the same are to differ by nothing
            y = batch.flatten(1).to(together.dtype)
            variance = together @ (y - together @ y).square()
            return (variance + 1e-8).sqrt().mean(dim=1).to(batch.dtype)


class SelfAttention(nn.Module):
    """Self-attention with a gate that starts closed.

        s_ij = f(x_i)^T g(x_j),  beta_ji = softmax_i(s_ij)
        o_j = v(sum_i beta_ji h(x_i)),  y = gamma * o + x,  gamma = 0 at the start

    f, g, h, v are 1x1 convolutions without bias; in this class they are `key`, `query`, `value` and `out`. The scores
    are not divided by sqrt(d). With `pooled`, i runs over the 2x2 max-pooled positions.

    Args:
        channels: Channels of the input.
        reduction: k: queries and keys have channels / k, at least 1.
        value_reduction: Values have channels / this, at least 1.
        pooled: Whether keys and values are max-pooled.
        conv: Constructor of the four convolutions, `EqualizedConv2d` or that with some arguments given.

    Source: the paper's eq. 3-5; Zhang et al. 2019 (SAGAN), section 3. Pooling and the width of values: SAGAN's code.
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
        """Attend; memory grows with the number of positions, not with its square, where the fused kernel runs."""
        x = channels_last(x)  # then rows of positions below are no copies, and what the fused kernel takes
        query, key, value, out = (layer.effective_weight() for layer in (self.query, self.key, self.value, self.out))
        keys = x[0, 0].numel() // (4 if self.pooled else 1)
        fused = x[0, 0].numel() * keys > FEW_SCORES
        # The fused CPU kernel asks for equal widths; zeros change no score.
        missing = max(0, len(value) - len(query)) if fused else 0
        projected = F.conv2d(x, torch.cat([F.pad(query, (0, 0, 0, 0, 0, 0, 0, missing)), key, value]))
        q, kv = projected.split([len(query) + missing, len(key) + len(value)], dim=1)
        k, v = (F.max_pool2d(kv, 2) if self.pooled else kv).split([len(key), len(value)], dim=1)
        q, k, v = (t.flatten(2).mT for t in (q, k, v))
        if fused:
            q, k, v = (t.unsqueeze(1) for t in (q, F.pad(k, (0, missing)), v))
            o = F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)
        else:
            o = (q @ k.mT).softmax(dim=2) @ v
        return F.conv2d(o.mT.unflatten(2, x.shape[2:]), self.gamma * out) + x

    def attention_maps(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n queries keys"]:
        """Beta of eq. 3, for pictures and as the plain reference: rows are query positions j and sum to 1."""
        query, key = self.query(x), self.key(x)
        if self.pooled:
            key = F.max_pool2d(key, 2)
        return torch.einsum("ncj,nci->nji", query.flatten(2), key.flatten(2)).softmax(dim=-1)


class LinearAttention(SelfAttention):
    """Self-attention without scores of pairs: its cost grows with the number of positions, not with its square.

        o_j = v(sum_d softmax_d(g(x_j)) (sum_i softmax_i(f(x_i)) h(x_i)^T)_d),  y = gamma * o + x

    Keys are never pooled, since there is nothing to save.

    Source: Shen et al. 2021 (Efficient Attention), eq. 5-6; the gate is the paper's eq. 5.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Attend: one summary of all values per channel of the keys, mixed anew at every position."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        summaries = value @ key.softmax(dim=2).mT
        o = (summaries @ query.softmax(dim=1)).unflatten(2, x.shape[2:])
        return F.conv2d(o, self.gamma * self.out.effective_weight()) + x

    def attention_maps(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n queries keys"]:
        """The weights of pairs that this comes to, never formed in `forward`: rows sum to 1."""
        query, key = self.query(x).flatten(2), self.key(x).flatten(2)
        return query.softmax(dim=1).mT @ key.softmax(dim=2)


class DualAttention(SelfAttention):
    """Self-attention between positions, and beside it between channels, behind one gate.

        A = softmax(X X^T / (h w)),  y = gamma * (o + A X) + x,  X: channels x positions

    Source: Fu et al. 2019 (DANet), eq. 1-4. Differs: one gate instead of two, and scores of channels are means over the
    positions, so that they do not depend on the resolution.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Attend between positions, then add what channels take from each other."""
        rows = x.flatten(2)
        between_channels = (rows @ rows.mT / rows.shape[2]).softmax(dim=2) @ rows
        return super().forward(x) + self.gamma * between_channels.unflatten(2, x.shape[2:])


class SqueezeExcitation(nn.Module):
    """Channel attention: every channel is weighed by what all channels are on average.

        y = gamma * x sigmoid(W_2 relu(W_1 mean(x))) + x,  gamma = 0 at the start

    Args:
        channels: Channels of the input.
        conv: Constructor of the convolutions.
        reduction: The hidden layer has channels / this, at least 1.

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
        """Weigh the channels."""
        weights = self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3), keepdim=True)))).sigmoid()
        return x * (1 + self.gamma * weights)


class ConvolutionalBlockAttention(SqueezeExcitation):
    """CBAM: channels are weighed by their mean and their maximum, then positions by those over the channels.

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
        """Weigh channels, then positions."""
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
