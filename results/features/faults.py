"""Faults that generators make, planted in X-rays: what `train.py` teaches the built-in features to see."""

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Fault = Callable[[Tensor, Tensor, float, torch.Generator], Tensor]
"""From images [1 1 h w], 0 to 255, another image, and a strength from 0 to 1."""


def between(low: float, high: float, share: float) -> float:
    """A number from `low` to `high` on a logarithmic scale."""
    return low * (high / low) ** share


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian of `sigma` pixels."""
    radius = max(1, math.ceil(3 * sigma))
    places = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (places / max(sigma, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image, (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def chance(generator: torch.Generator) -> float:
    """A random number from 0 to 1."""
    return float(torch.rand((), generator=generator))


def _blur(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return blurred(image, between(0.3, 2.5, strength))


def _noise(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return image + between(1, 25, strength) * torch.randn(image.shape, generator=generator)


def _grain(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    grain = blurred(torch.randn(image.shape, generator=generator), 0.5 + 1.5 * chance(generator))
    return image + between(1, 20, strength) * grain / grain.std()


def _grid(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    period = (2, 2, 4, 8)[int(4 * chance(generator))]
    y, x = torch.meshgrid(torch.arange(image.shape[2]), torch.arange(image.shape[3]), indexing="ij")
    across, down = (x % period < period / 2).float() * 2 - 1, (y % period < period / 2).float() * 2 - 1
    pattern = (across * down, across, down, torch.maximum(across, down))[int(4 * chance(generator))]
    weight = image / 128 if chance(generator) < 0.5 else 1.0
    return image + between(0.7, 20, strength) * weight * pattern


def _coarse(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    small = F.interpolate(image, scale_factor=1 / between(1.3, 4, strength), mode="bilinear", antialias=True)
    mode = "nearest" if chance(generator) < 0.5 else "bilinear"
    return F.interpolate(small, size=image.shape[2:], mode=mode)


def _jpeg(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    file = io.BytesIO()
    pixels = image[0, 0].round().clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=round(between(70, 8, strength)))
    return torch.from_numpy(np.asarray(Image.open(file)).astype(np.float32))[None, None]


def _posterised(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    step = between(4, 50, strength)
    return (image / step).round() * step


def _exposure(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    sign = 1 if chance(generator) < 0.5 else -1
    kind = chance(generator)
    if kind < 1 / 3:
        return 255 * (image.clamp(0, 255) / 255) ** (2 ** (sign * 1.3 * strength))
    if kind < 2 / 3:
        return (image - image.mean()) * 2 ** (sign * strength) + image.mean()
    return image + sign * 70 * strength


def _ghost(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    share = between(0.1, 0.5, strength)
    return (1 - share) * image + share * other


def _warped(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    points = 3 + int(6 * chance(generator))
    shift = torch.randn(1, 2, points, points, generator=generator) * between(0.01, 0.12, strength)
    shift = F.interpolate(shift, size=image.shape[2:], mode="bicubic").permute(0, 2, 3, 1)
    grid = F.affine_grid(torch.eye(2, 3)[None], list(image.shape), align_corners=False)
    return F.grid_sample(image, grid + shift, mode="bicubic", padding_mode="border", align_corners=False)


def _sharpened(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return image + between(0.2, 2, strength) * (image - blurred(image, 0.7 + chance(generator)))


def _patched(image: Tensor, other: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    height, width = image.shape[2:]
    side = between(0.15, 0.6, strength)
    mask = torch.zeros_like(image)
    top, left = int(chance(generator) * (1 - side) * height), int(chance(generator) * (1 - side) * width)
    mask[..., top : top + int(side * height), left : left + int(side * width)] = 1
    mask = blurred(mask, 0.01 * width + 1)
    return image + mask * (other - image)


FAULTS: dict[str, Fault] = {
    "blur": _blur,
    "noise": _noise,
    "grain": _grain,
    "grid": _grid,
    "coarse": _coarse,
    "jpeg": _jpeg,
    "posterised": _posterised,
    "exposure": _exposure,
    "ghost": _ghost,
    "warped": _warped,
    "sharpened": _sharpened,
    "patched": _patched,
}
