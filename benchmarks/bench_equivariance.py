"""Measure EQ-T: how well an image moves with the start of its generator, in decibels; more is better.

    python benchmarks/bench_equivariance.py [--sizes 64 128] [--model RUN_OR_FILE] [--json]

EQ-T is 10 log10(4 / mean of squared differences) between the moved image and the image of the moved start, over images,
shifts of up to an eighth of the side along both axes, and the pixels that are in both. Without a model, weights are
random, with magnitudes calibrated and images scaled to a standard deviation of 0.5. The learned start of modulated
blocks is moved between its 4x4 pixels as if it were periodic.

Source: Karras et al. 2021 (StyleGAN3), EQ-T and, for shifts by parts of a pixel, EQ-T frac; there with a shorter filter
(Lanczos of 3 pixels).
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from lines import Line, add_json_option, machine
from torch import Tensor

from samgan.config import NetworkConfig
from samgan.networks import AliasFreeConv2d, Generator
from samgan.sampling import open_model

REACH = 16  # pixels of the sinc that moves an image by parts of a pixel
ALIAS_FREE = "alias-free"


@torch.no_grad()
def random_generator(blocks: str, side: int, seed: int = 1, **settings: object) -> Generator:
    """A generator with random weights whose images of every scale have a standard deviation of 0.5."""
    torch.manual_seed(seed)
    config = NetworkConfig(
        resolution=side, max_channels=16, channel_base=1024, generator_blocks=blocks, noise="none", **settings
    )
    generator, latents = Generator(config), torch.randn(4, 16)
    layers = [layer for layer in generator.modules() if isinstance(layer, AliasFreeConv2d)]
    hooks = [layer.register_forward_pre_hook(_know_magnitude) for layer in layers]
    deviations = [images.std() for images in generator(latents)]
    for block, deviation in zip(generator.blocks, deviations, strict=True):
        # Images of modulated blocks add up.
        block.to_image.weight.mul_(0.5 / (deviation if blocks == ALIAS_FREE else deviations[-1]))
    for hook in hooks:
        hook.remove()
    return generator.eval().requires_grad_(False)


def _know_magnitude(layer: AliasFreeConv2d, inputs: tuple[Tensor, Tensor]) -> None:
    """Give a layer what training would find in many steps: the magnitude of its input."""
    layer.magnitude.copy_(inputs[0].square().mean())


@contextmanager
def moved_start(generator: Generator, shift: tuple[float, float]) -> Iterator[None]:
    """Within it, the start is moved to the right and down, by shares of the image's side."""
    start = generator.blocks[0].start
    if not isinstance(start, torch.nn.Parameter):
        start.shift = shift
        yield
        start.shift = (0.0, 0.0)
        return
    kept, frequencies = start.clone(), torch.fft.fftfreq(4) * 4
    turns = [torch.exp(-2j * torch.pi * frequencies * share) for share in shift]
    start.copy_(torch.fft.ifft2(torch.fft.fft2(start) * turns[0] * turns[1][:, None]).real)
    yield
    start.copy_(kept)


def moved(images: Tensor, pixels: tuple[float, float]) -> Tensor:
    """Images moved to the right and down; by parts of a pixel with a long sinc that ends softly."""
    for axis, by in zip((3, 2), pixels, strict=True):
        if by == round(by):
            images = torch.roll(images, round(by), dims=axis)
            continue
        steps = np.arange(images.shape[axis])[:, None] - np.arange(images.shape[axis]) - by
        sinc = np.sinc(steps) * np.cos(np.pi * np.clip(steps / (2 * REACH), -0.5, 0.5)) ** 2
        images = (images.transpose(axis, 3) @ torch.tensor(sinc.T, dtype=images.dtype)).transpose(axis, 3)
    return images


@torch.no_grad()
def squared_error(
    generator: Generator,
    latents: Tensor,
    pixels: tuple[float, float],
    labels: Tensor | None = None,
    scale: int = -1,
) -> float:
    """The mean squared difference of one shift, in pixels of the image of a scale."""
    still = generator(latents, labels)[scale]
    side = still.shape[-1]
    with moved_start(generator, (pixels[0] / side, pixels[1] / side)):
        found = generator(latents, labels)[scale]
    whole = all(by == round(by) for by in pixels)
    border = int(max(map(abs, pixels))) + (0 if whole else REACH)
    inner = slice(border, side - border)
    return float((moved(still, pixels) - found)[:, :, inner, inner].square().mean())


def decibels(error: float) -> float:
    """EQ-T of a mean squared difference."""
    return 10 * math.log10(4 / error)


def measure(name: str, generator: Generator, shifts: int, labels: Tensor | None = None) -> list[Line]:
    """EQ-T and EQ-T frac, of the mean squared difference over images and shifts."""
    latents = torch.randn(4, generator.latent_size, generator=torch.Generator().manual_seed(0))
    side = 4 << (len(generator.blocks) - 1)
    drawn = np.random.RandomState(0).uniform(-side / 8, side / 8, (shifts, 2))
    lines = []
    for kind, pixels in (("EQ-T", drawn.round()), ("EQ-T frac", drawn)):
        found = [squared_error(generator, latents, tuple(by.tolist()), labels) for by in pixels]
        note = f"{decibels(max(found)):.1f} to {decibels(min(found)):.1f} by single shifts, of {shifts}"
        lines.append(Line(f"{name}, {side} px: {kind}", decibels(float(np.mean(found))), None, " dB", True, note))
    return lines


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--model", type=Path, help="a trained model, instead of random weights")
    parser.add_argument("--shifts", type=int, default=8)
    add_json_option(parser)
    options = parser.parse_args()
    if options.model:
        model = open_model(options.model)
        lines = measure(str(options.model.name), model.generator, options.shifts, model.labels(range(4)))
    else:
        lines = []
        for side in options.sizes:
            for blocks in (ALIAS_FREE, "modulated"):
                lines += measure(f"{blocks}, random weights", random_generator(blocks, side), options.shifts)
            attending = random_generator(ALIAS_FREE, side, generator_attention=(8, 16))
            for block in attending.blocks[1:3]:
                block.attention.gamma.fill_(0.5)
            lines += measure("alias-free with open attention at 8 and 16 px", attending, options.shifts)
    if options.json:
        sys.stdout.write(json.dumps([line.document() for line in lines], indent=2) + "\n")
        return
    head = "| what | goal | measured | met | note |\n|---|---|---|---|---|\n"
    sys.stdout.write(f"{machine()}\n\n{head}" + "".join(f"{line.row()}\n" for line in lines))


if __name__ == "__main__":
    main()
