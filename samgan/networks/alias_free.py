"""The blocks of an alias-free generator: images whose details move with the picture, not with the pixels.

Two layers for each scale are the schedule of StyleGAN3: then its cutoff rises by half an octave from layer to layer,
and the first layer of the block of r px has the cutoff r / 2, which is the highest frequency that an image of r px can
hold. So this is where the image of that scale comes from, low-pass filtered and thinned out to r px. The last two
layers share one cutoff, and the last image comes from the last of them, as in StyleGAN3.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.networks.configured import attention, convolutions
from samgan.networks.convolutions import GAIN, EqualizedConv2d, as_they_are, channels_last, precision_of
from samgan.networks.filters import FilteredActivation, Grid, Thinning

MARGIN = 10  # pixels beyond the image: the reach of the longest filter
FIRST_CUTOFF = 2.0  # cycles along a side: what an image of 4 px can hold
FIRST_STOP = 2**2.1  # frequency from which on the first layer's filter lets nothing through
LAST_STOP = 2**0.3  # that of the last layers, as a multiple of their cutoff
LAST_LAYERS = 2  # those at the end, which share one cutoff
IMAGE_GAIN = 0.25  # of heads: images start within [-1, 1]
MAGNITUDE_HALFLIFE = 20_000  # images; of the averages of magnitudes
MAGNITUDE_RAMP = 0.05  # the half-life is at most this share of the images seen
MAGNITUDE_STEP = 0.05  # the largest part of the way that a step goes


def grids(side: int, layers: int) -> list[Grid]:
    """The grid of each layer's output, where the last image has side R.

        f_c = 2 (R / 4)^t,   f_t = 2^2.1 (2^0.3 R / 2 / 2^2.1)^t,   t = min(i / (layers - 2), 1)
        rate = 2^ceil(log2(min(2 f_t, R))),   f_h = max(rate / 2, f_t) - f_c

    Source: Karras et al. 2021 (StyleGAN3), section 3.2 and Fig. 4a; "flexible layers" is its name for it.
    """
    found = []
    for number in range(layers):
        t = min(number / (layers - LAST_LAYERS), 1.0)
        cutoff = FIRST_CUTOFF * (side / 2 / FIRST_CUTOFF) ** t
        stop = FIRST_STOP * (LAST_STOP * side / 2 / FIRST_STOP) ** t
        rate = min(side, 1 << math.ceil(round(math.log2(2 * stop), 6)))
        margin = MARGIN if number < layers - 1 else 0
        found.append(Grid(rate, margin, cutoff, max(rate / 2, stop) - cutoff))
    return found


class FourierFeatures(nn.Module):
    """Waves, turned and moved as the style says: a start that has no pixels of its own.

        q = R(w) (p - shift) + t(w),   x = M sin(2 pi (f q + phase)),   |f| <= the cutoff

    p runs over the grid, with the image's centre at 0 and its sides at 1/2. Frequencies f (uniform in the circle) and
    phases are drawn once. M is a matrix between channels. The layer that makes R and t of the style starts with a zero
    weight, so that they are 1 and 0, and thus never has spectral norm.

    Args:
        channels: Number of waves, and of channels.
        grid: Where they are computed.
        style_size: Channels of the style w.
        conv: Constructor of M.

    Source: Karras et al. 2021 (StyleGAN3), section 3.2, "Fourier features" and "transformed Fourier features".
    """

    def __init__(
        self, channels: int, grid: Grid, style_size: int, conv: Callable[..., EqualizedConv2d] = EqualizedConv2d
    ) -> None:
        super().__init__()
        self.grid = grid
        radius, angle = grid.cutoff * torch.rand(channels).sqrt(), 2 * math.pi * torch.rand(channels)
        self.register_buffer("frequencies", radius * torch.stack([angle.cos(), angle.sin()]))
        self.register_buffer("phases", torch.rand(channels))
        self.style = EqualizedConv2d(style_size, 4, 1, gain=1.0)
        nn.init.zeros_(self.style.weight)
        self.style.bias = nn.Parameter(torch.tensor([0.0, -1.0, -1.0, -1.0]))  # 1 is added to every style
        self.mix = conv(channels, channels, 1, bias=False)

    frequencies: Tensor
    phases: Tensor
    shift: tuple[float, float] = (0.0, 0.0)
    """How far the picture is moved to the right and down, as a share of the image's side."""

    def forward(self, style: Float[Tensor, "n 4"]) -> Float[Tensor, "n c h w"]:
        """Return [n, channels, grid.side, grid.side]."""
        kind = self.frequencies.dtype
        cosine, sine, right, down = (style.to(kind) / style.to(kind)[:, :2].norm(dim=1, keepdim=True)).unbind(dim=1)
        places = torch.arange(self.grid.side, device=style.device, dtype=kind) + 0.5
        places = (places - self.grid.side / 2) / self.grid.rate
        across, along = (places - moved for moved in self.shift)
        fx, fy = self.frequencies  # of the turned picture: f R
        turned_x = torch.outer(cosine, fx) + torch.outer(sine, fy)
        turned_y = torch.outer(cosine, fy) - torch.outer(sine, fx)
        phases = self.phases + torch.outer(right, fx) + torch.outer(down, fy)
        cycles = turned_x[:, :, None, None] * across + turned_y[:, :, None, None] * along[:, None]
        waves = torch.sin(2 * math.pi * (cycles + phases[:, :, None, None]))
        return self.mix(channels_last(waves))


class AliasFreeConv2d(nn.Module):
    """Convolution modulated by a style, of an input of unit magnitude, with the filtered activation that follows it.

        s = 1 + A w,   y_o = gain sum_i W_oi * (s_i x_i / sigma) / sqrt(sum_ijk (s_i W_oijk)^2 + 1e-8) + bias_o

    sigma^2 is a moving average of x^2 over all images, channels and pixels. A forward pass does not change it;
    `follow_magnitudes` does, once in each training step. It is a buffer, saved with the weights.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        before: The grid of the input.
        behind: The grid of the output.
        style_size: Channels of the style w.
        conv: Constructor of the convolution and of A.

    Source: Karras et al. 2021 (StyleGAN3), section 3.2; sigma: its appendix on normalisation, where sigma is also
    divided out of the input and carries no gradient.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        before: Grid,
        behind: Grid,
        style_size: int,
        conv: Callable[..., EqualizedConv2d] = EqualizedConv2d,
    ) -> None:
        super().__init__()
        self.style = conv(style_size, in_channels, 1, gain=1.0)
        self.conv = conv(in_channels, out_channels, 3, padding=1)
        self.activation = FilteredActivation(before, behind)
        self.register_buffer("magnitude", torch.ones(()))

    magnitude: Tensor
    """sigma^2."""
    observed: Tensor | None = None
    """The mean square of the last input in training."""

    def forward(self, x: Float[Tensor, "n c h w"], style: Float[Tensor, "n c"]) -> Float[Tensor, "n d i j"]:
        """Map features on the grid before to features on the grid behind, with the style s."""
        if self.training:
            self.observed = x.detach().square().mean(dtype=self.magnitude.dtype)
        weight, bias = self.conv.operands()
        assert bias is not None
        dtype = precision_of(x)
        with as_they_are(x):
            squares = style.square() @ weight.to(style.dtype).square().sum(dim=(2, 3)).T
            scale = GAIN * torch.rsqrt(self.magnitude * (squares + 1e-8))
            y = F.conv2d(x.to(dtype) * style.to(dtype)[:, :, None, None], weight.to(dtype), padding=1)
            y = torch.addcmul(bias.to(dtype)[:, None, None], y, scale.to(dtype)[:, :, None, None])
        return self.activation(y)


class AliasFreeBlock(nn.Module):
    """One scale of the alias-free generator: [waves,] a layer, attention, the head of this scale, another layer.

    The head is the last one's only after the second layer. Images do not add up, as in StyleGAN3. Heads are not
    modulated, as in our modulated blocks; in StyleGAN3 its only head is.

    Source: Karras et al. 2021 (StyleGAN3), config T. Attention and images of smaller scales are not in it.
    """

    def __init__(self, config: NetworkConfig, resolution: int) -> None:
        super().__init__()
        conv, end = convolutions(config, "generator")
        style = config.latent_size if config.mapping_layers else config.input_size
        number = 2 * config.resolutions.index(resolution)
        every = grids(config.resolution, 2 * len(config.resolutions))
        before, own, behind = every[max(0, number - 1)], every[number], every[number + 1]
        below, width = config.channels(max(4, resolution // 2)), config.channels(resolution)
        self.start = FourierFeatures(width, before, style, conv) if number == 0 else None
        self.conv_1 = AliasFreeConv2d(below, width, before, own, style, conv)
        self.attention = attention(config, width, conv, resolution in config.generator_attention)
        self.conv_2 = AliasFreeConv2d(width, width, own, behind, style, conv)
        self.is_last = resolution == config.resolution
        self.to_image = end(width, config.image_channels, 1, gain=IMAGE_GAIN)
        self.thin = Thinning(behind if self.is_last else own, resolution, (LAST_STOP - 1) * resolution / 2)
        self.attended = own
        """The grid of the features that attention sees."""

    def styled(self) -> "list[FourierFeatures | AliasFreeConv2d]":
        """The layers that have styles, in the order of their use."""
        return [layer for layer in (self.start, self.conv_1, self.conv_2) if layer is not None]

    def forward(
        self, x: Tensor | None, latents: Tensor, modulation: Sequence[Tensor], image: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return features on the grid behind the second layer, and the image of this scale."""
        if self.start is not None:
            x = self.start(modulation[0])
        x = self.attention(self.conv_1(x, modulation[-2]))
        shown = x
        x = self.conv_2(x, modulation[-1])
        return x, self.thin(self.to_image(x if self.is_last else shown))


def styles_of(blocks: Iterable[nn.Module], w: Float[Tensor, "n s 1 1"]) -> list[Sequence[Tensor]]:
    """For each alias-free block, the styles of its layers; all in one product, in fp32 or double precision.

    In bf16, waves could only be moved by steps of a hundredth of the image.
    """
    layers = [block.styled() for block in blocks if isinstance(block, AliasFreeBlock)]
    weights, biases = zip(*(layer.style.operands() for few in layers for layer in few), strict=True)
    operands = (w.flatten(1), torch.cat(weights).flatten(1), torch.cat(biases))
    exact = torch.promote_types(w.dtype, torch.float32)
    with as_they_are(w):
        styles = 1 + F.linear(*(one.to(exact) for one in operands))
    own = iter(styles.split([len(weight) for weight in weights], dim=1))
    return [[next(own) for _ in few] for few in layers]


def observed_magnitudes(network: nn.Module) -> Float[Tensor, " layers"] | None:
    """The mean squares that the layers saw in the last forward pass in training; None if no layer keeps an average."""
    found = [layer.observed for layer in network.modules() if isinstance(layer, AliasFreeConv2d)]
    return torch.stack([one for one in found if one is not None]) if found else None


@torch.no_grad()
def follow_magnitudes(
    networks: Sequence[nn.Module], observed: Float[Tensor, " layers"], images_seen: int, images: int
) -> None:
    """Move the averages of the first network towards what its layers saw, and give them to the others.

    Averages are of logarithms, where the paper's are of the values. Early in a run they are short, but no step goes
    more than a twentieth of the way: a layer that corrects its input also corrects those of all layers above, which
    correct their own at the same time. With larger steps these corrections would add up from layer to layer, and swing.

    Args:
        networks: The generator, and perhaps the averaged generator.
        observed: From `observed_magnitudes`, as a mean over all processes.
        images_seen: Before this step.
        images: Of this step.
    """
    halflife = min(MAGNITUDE_HALFLIFE, MAGNITUDE_RAMP * max(images_seen, 1))
    part = min(1 - 0.5 ** (images / halflife), MAGNITUDE_STEP)
    every = [
        [layer.magnitude for layer in network.modules() if isinstance(layer, AliasFreeConv2d)] for network in networks
    ]
    logarithms = torch.stack(every[0]).log().lerp(observed.clamp(min=1e-8).log(), part)
    for magnitudes in every:
        torch._foreach_copy_(magnitudes, list(logarithms.exp().unbind()))
