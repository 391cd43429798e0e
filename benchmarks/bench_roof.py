"""Draw the roofline of one core in bf16: how fast the operations of samgan-plus run, and how fast they could.

    python benchmarks/bench_roof.py [--plot docs/pictures/roof.svg]

The roofs are measured: the rate of a product of two 2048 x 2048 matrices, and of adding two arrays of 128 MB. An
operation that does I operations for each byte it moves can do no more than the lower of the first, and of I times the
second. Bytes are counted as if each array were read or written once; small ones stay in the cache, so they may lie
above the sloping roof. The plot needs matplotlib (pip install matplotlib).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from bench_operators import CONVOLUTIONS, SHAPES, features, microseconds
from lines import machine
from torch.nn import functional as F

from samgan.devices import keep_freed_memory
from samgan.networks.fused import (
    activate_and_halve,
    activate_and_halve_backward,
    back,
    join_image,
    modulate_backward,
    scale_and_activate,
)

BF16 = 2  # bytes


class Point(NamedTuple):
    """An operation."""

    kind: str
    name: str
    flop: float
    moved: float
    """Bytes."""
    microseconds: float

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flop / self.moved

    @property
    def rate(self) -> float:
        """GFLOP/s."""
        return self.flop / self.microseconds / 1e3


def roofs() -> tuple[float, float]:
    """GFLOP/s of a large product in bf16, and GB/s of memory."""
    a, b = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    product = 2 * 2048**3 / microseconds(lambda: a @ b, repeats=4) / 1e3
    x, y, z = (torch.randn(1 << 25) for _ in range(3))
    return product, 3 * x.nbytes / microseconds(lambda: torch.add(x, y, out=z), repeats=4) / 1e3


def convolutions() -> list[Point]:
    """3x3 convolutions of 16 images, forward and both gradients."""
    points = []
    for inputs, outputs, side in CONVOLUTIONS:
        x, g = features(16, inputs, side, torch.bfloat16), features(16, outputs, side, torch.bfloat16)
        weight = torch.randn(outputs, inputs, 3, 3).bfloat16().contiguous(memory_format=torch.channels_last)
        flop, moved = 2 * 16 * inputs * outputs * 9 * side**2, BF16 * (x.numel() + g.numel() + weight.numel())
        runs: dict[str, Callable[[], object]] = {
            "convolution": lambda x=x, weight=weight: F.conv2d(x, weight, padding=1),
            "gradient of input": lambda g=g, x=x, weight=weight: back(g, x, weight, 1, (True, False, False)),
            "gradient of weight": lambda g=g, x=x, weight=weight: back(g, x, weight, 1, (False, True, False)),
        }
        size = f"{inputs} to {outputs} channels, {side} px"
        points += [Point(kind, size, flop, moved, microseconds(run)) for kind, run in runs.items()]
    return points


def between() -> list[Point]:
    """What lies between convolutions, with the operations and the bytes of each number of the features."""
    points = []
    for n, c, side in SHAPES:
        x, y = (features(n, c, side, torch.bfloat16) for _ in range(2))
        half, image = features(n, c, side // 2, torch.bfloat16), features(n, 1, side, torch.bfloat16)
        weight, bias, style = (torch.randn(*shape).bfloat16() for shape in ((c, 1, 3, 3), (c,), (n, c)))
        scale, strength, noise = torch.rand(n, c), torch.randn(c, 1, 1).bfloat16(), torch.randn(n, side**2).bfloat16()
        runs: dict[str, tuple[float, float, Callable[[], object]]] = {
            "activate and halve": (3, 2.25, lambda y=y: activate_and_halve(y)),
            "its gradient": (2, 2.25, lambda half=half, y=y: activate_and_halve_backward(half, y, bias=False)),
            "join an image": (21, 2.25 + 1 / c, lambda i=image, x=x, w=weight, b=bias: join_image(i, x, w, b)),
            "scale, noise, activate": (
                *(5, 2),
                lambda x=x, s=scale, b=bias, t=strength, z=noise: scale_and_activate(x, s, b, t, z, enlarge=False),
            ),
            "gradient of modulating": (3, 3, lambda y=y, x=x, s=style: modulate_backward(y, x, s)),
        }
        for name, (flop, arrays, run) in runs.items():
            size = f"{name}, {n} x {c} channels x {side} px"
            points.append(Point("kernel", size, flop * x.numel(), BF16 * arrays * x.numel(), microseconds(run)))
    return points


def plot(points: list[Point], product: float, memory: float, path: Path) -> None:
    """Write the picture."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "samgan"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    ends = [0.3, product / memory, 1000]
    axes.plot(ends, [min(product, memory * end) for end in ends], color="black", linewidth=1)
    axes.annotate(f"{product:.0f} GFLOP/s, large product", (1000, 0.75 * product), ha="right", va="top", fontsize=8)
    axes.annotate(f"{memory:.0f} GB/s", (1.2, 0.9 * memory), fontsize=8, va="top")
    for kind, marker in (
        ("convolution", "o"),
        ("gradient of input", "<"),
        ("gradient of weight", ">"),
        ("kernel", "x"),
    ):
        own = [point for point in points if point.kind == kind]
        label = "between convolutions" if kind == "kernel" else kind
        axes.scatter([p.intensity for p in own], [p.rate for p in own], marker=marker, s=22, label=label)
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte", ylabel="GFLOP/s")
    axes.set_title("One core, bf16: operations of samgan-plus", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="write the picture to this file, as SVG")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    keep_freed_memory()
    product, memory = roofs()
    points = [*convolutions(), *between()]
    print(f"{machine()}\n\nLarge product: {product:.0f} GFLOP/s in bf16; memory: {memory:.1f} GB/s.\n")
    print("| operation | FLOP per byte | GFLOP/s | GB/s | share of its roof |\n|---|---|---|---|---|")
    for point in points:
        roof = min(product, point.intensity * memory)
        name = point.name if point.kind == "kernel" else f"{point.kind}, {point.name}"
        speed = point.moved / point.microseconds / 1e3
        print(f"| {name} | {point.intensity:.1f} | {point.rate:.0f} | {speed:.0f} | {100 * point.rate / roof:.0f} % |")
    if options.plot:
        plot(points, product, memory, options.plot)


if __name__ == "__main__":
    main()
