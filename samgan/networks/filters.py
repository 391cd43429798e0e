"""Low-pass filters of features on grids of pixels, and a leaky ReLU that respects what a grid can hold."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.networks.convolutions import activate, as_they_are

TAPS = 6  # of a filter, for every step by which it changes the rate
FINER = 2  # how much finer than its output's the grid is on which an activation is computed


@dataclass(frozen=True)
class Grid:
    """The grid of a layer's output, and the frequencies that its low-pass filter lets through."""

    rate: int
    """Pixels along a side of the image."""
    margin: int
    """Pixels beyond the image, on each side."""
    cutoff: float
    """Frequency, in cycles along a side of the image, of which half the amplitude is let through."""
    half_width: float
    """How far from the cutoff, to either side, the filter's slope reaches."""

    @property
    def side(self) -> int:
        """Pixels along a side, with both margins."""
        return self.rate + 2 * self.margin


def lowpass(taps: int, grid: Grid, rate: int) -> Tensor:
    """A low-pass filter of `taps` numbers with sum 1: a sinc times Kaiser's window.

        h_k ~ sinc(2 f_c t_k) kaiser(k; beta),   t_k = (k - (taps - 1) / 2) / rate
        A = 2.285 (taps - 1) pi (4 f_h / rate) + 7.95,   beta by Kaiser's formula for A decibels

    Args:
        taps: Its length.
        grid: f_c and f_h are its cutoff and half-width.
        rate: Pixels along a side of the image where the filter is used.

    Source: Karras et al. 2021 (StyleGAN3), appendix C; Kaiser 1974.
    """
    damping = 2.285 * (taps - 1) * math.pi * 4 * grid.half_width / rate + 7.95
    if damping > 50:
        beta = 0.1102 * (damping - 8.7)
    else:
        above = max(damping - 21, 0.0)
        beta = 0.5842 * above**0.4 + 0.07886 * above
    times = (np.arange(taps) - (taps - 1) / 2) / rate
    kernel = np.sinc(2 * grid.cutoff * times) * np.kaiser(taps, beta)
    return torch.tensor(kernel / kernel.sum(), dtype=torch.float)


def enlarge(
    x: Float[Tensor, "n c h w"], kernel: Float[Tensor, " taps"], factor: int, crop: int = 0
) -> Float[Tensor, "n c i j"]:
    """Put factor - 1 zeros behind each pixel, filter along both axes, and leave out `crop` pixels on each side.

    Beyond its sides, x is zero. Pixels of x lie in the middle of the `factor` pixels that it becomes, and these begin
    (taps - factor) / 2 - crop pixels from the sides of the result.
    """
    c = x.shape[1]
    y = F.conv_transpose2d(x, _rows(kernel, c), stride=(factor, 1), padding=(crop, 0), groups=c)
    return F.conv_transpose2d(y, _columns(kernel, c), stride=(1, factor), padding=(0, crop), groups=c)


def reduce(x: Float[Tensor, "n c h w"], kernel: Float[Tensor, " taps"], factor: int) -> Float[Tensor, "n c i j"]:
    """Filter along both axes, and keep every factor-th pixel; where the filter would reach beyond x, there are none."""
    c = x.shape[1]
    y = F.conv2d(x, _rows(kernel, c), stride=(factor, 1), groups=c)
    return F.conv2d(y, _columns(kernel, c), stride=(1, factor), groups=c)


def _rows(kernel: Tensor, channels: int) -> Tensor:
    return kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1)


def _columns(kernel: Tensor, channels: int) -> Tensor:
    return kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1)


class FilteredActivation(nn.Module):
    """Leaky ReLU of a signal between pixels too, and the step from one grid to the next.

    A kink makes frequencies without end, and those that a grid cannot hold come back as others (aliases), which stay
    with the pixels when the image moves. So the signal is enlarged to `FINER` times the rate of the output first, and
    low-pass filtered after the activation.

    Args:
        before: The grid of the input.
        behind: The grid of the output.

    Source: Karras et al. 2021 (StyleGAN3), section 3.1 and Fig. 4b.
    """

    def __init__(self, before: Grid, behind: Grid) -> None:
        super().__init__()
        fine = FINER * behind.rate
        self.factor = fine // before.rate
        # Not saved: it follows from the configuration.
        rise = self.factor * lowpass(TAPS * self.factor, before, fine)
        self.register_buffer("rise", rise, persistent=False)
        self.register_buffer("fall", lowpass(TAPS * FINER, behind, fine), persistent=False)
        reach = (TAPS - 1) * (self.factor - FINER) // 2  # of the first filter, beyond that of the second
        self.crop = self.factor * before.margin - FINER * behind.margin + reach

    rise: Tensor
    fall: Tensor

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c i j"]:
        """Map [n, c, before.side, before.side] to [n, c, behind.side, behind.side], in fp32 or double precision.

        Filters in bf16 would round more than the aliases are loud, and on a CPU they would be slower.
        """
        with as_they_are(x):
            y = activate(enlarge(x.to(self.rise.dtype), self.rise, self.factor, self.crop))
            return reduce(y, self.fall, FINER)


class Thinning(nn.Module):
    """The image of a scale, from a picture on a finer grid: low-pass filtered, every n-th pixel kept, without margins.

    The cutoff is the highest frequency that an image of this side can hold, and the slope is that of the last layer.

    Args:
        grid: The grid of the picture.
        side: Of the image; the grid's rate is a multiple of it.
        half_width: Of the slope, in cycles along a side of the image.
    """

    def __init__(self, grid: Grid, side: int, half_width: float) -> None:
        super().__init__()
        self.factor = grid.rate // side
        self.crop = grid.margin
        if self.factor > 1:
            self.crop -= (TAPS - 1) * self.factor // 2
            own = Grid(side, 0, side / 2, half_width)
            self.register_buffer("kernel", lowpass(TAPS * self.factor, own, grid.rate), persistent=False)

    kernel: Tensor

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c s s"]:
        """Map [n, c, grid.side, grid.side] to [n, c, side, side], in fp32 or double precision."""
        inner = slice(self.crop, x.shape[2] - self.crop)
        x = x[:, :, inner, inner].to(torch.promote_types(x.dtype, torch.float32))
        with as_they_are(x):
            return reduce(x, self.kernel, self.factor) if self.factor > 1 else x
