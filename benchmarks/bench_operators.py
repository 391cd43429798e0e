"""Time single operations of samgan-plus and r3gan on one core: by torch, by compiled kernels, and convolutions.

    python benchmarks/bench_operators.py

Features have their channels side by side in memory. Seconds are those of the processor, medians of five blocks of 40.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from lines import machine
from torch import Tensor
from torch.nn import functional as F

from samgan.devices import keep_freed_memory
from samgan.kernels import without_kernels
from samgan.networks import activate, channels_last
from samgan.networks.fused import (
    activate_and_add,
    activate_and_halve,
    activate_and_halve_backward,
    join_image,
    join_image_backward,
    modulate,
    modulate_backward,
    scale_and_activate,
    scale_and_activate_backward,
)
from samgan.networks.grouped import GROUP, grouped_conv

SHAPES = ((16, 16, 64), (16, 8, 128), (8, 4, 256))
GROUPED = ((16, 64), (64, 32), (256, 16), (1024, 8), (1024, 16))
CONVOLUTIONS = ((16, 16, 64), (32, 32, 32), (64, 64, 16), (128, 128, 8), (128, 128, 4), (1, 16, 64))


def microseconds(function: Callable[[], object], repeats: int = 40) -> float:
    """Processor time of one call."""
    blocks = []
    for _ in range(6):  # the first one warms up
        start = time.process_time()
        for _ in range(repeats):
            function()
        blocks.append((time.process_time() - start) / repeats * 1e6)
    return statistics.median(blocks[1:])


def features(n: int, c: int, side: int, dtype: torch.dtype) -> Tensor:
    """Random features."""
    return channels_last(torch.randn(n, c, side, side)).to(dtype)


def operations(n: int, c: int, side: int) -> list[str]:
    """A row for each operation between two convolutions, in bf16: the time by torch and by the compiled kernel."""
    dtype = torch.bfloat16
    x, y, g = (features(n, c, side, dtype) for _ in range(3))
    g_half, image = features(n, c, side // 2, dtype), features(n, 1, side, dtype)
    weight, bias, style = torch.randn(c, 1, 3, 3).to(dtype), torch.randn(c).to(dtype), torch.randn(n, c).to(dtype)
    strength, noise, scale = torch.randn(c, 1, 1).to(dtype), torch.randn(n, side**2).to(dtype), torch.rand(n, c)
    enlarged, of_enlarged = features(n, c, 2 * side, dtype), torch.randn(n, 4 * side**2).to(dtype)
    image_features = activate(F.conv2d(image, weight, bias, padding=1))
    all_wanted = {"wanted": (True, True, True)}
    named: dict[str, Callable[[], object]] = {
        "activate and halve": lambda: activate_and_halve(y),
        "its gradient": lambda: activate_and_halve_backward(g_half, y, bias=True),
        "activate and add": lambda: activate_and_add(y, x),
        "join an image": lambda: join_image(image, x, weight, bias),
        "its gradients": lambda: join_image_backward(
            g, g_half, image, image, weight, bias, image_features, **all_wanted
        ),
        "scale, noise, activate": lambda: scale_and_activate(x, scale, bias, strength, noise, enlarge=False),
        "its gradients ": lambda: scale_and_activate_backward(g, y, x, scale, bias, strength, noise, enlarge=False),
        "scale, enlarge, noise, activate": lambda: scale_and_activate(
            x, scale, bias, strength, of_enlarged, enlarge=True
        ),
        "its gradients  ": lambda: scale_and_activate_backward(
            enlarged, enlarged, x, scale, bias, strength, of_enlarged, enlarge=True
        ),
        "modulate": lambda: modulate(x, style),
        "its gradients   ": lambda: modulate_backward(g, x, style),
    }
    rows = []
    for name, function in named.items():
        with without_kernels():
            plain = microseconds(function)
        times = f"{plain:.0f} | {microseconds(function):.0f}"
        rows.append(f"| {name.strip()}, {n} x {c} channels x {side} px | {times} |")
    return rows


def penalty(channels: int, side: int) -> str:
    """A row: a weight's gradient of a penalty on a convolution in groups, with torch's second derivative and ours."""
    x = features(16, channels, side, torch.float32).requires_grad_()
    weight = channels_last(torch.randn(channels, GROUP, 3, 3)).requires_grad_()
    groups = channels // GROUP

    def of(convolve: Callable[[], Tensor]) -> None:
        with torch.enable_grad():
            (g_x,) = torch.autograd.grad(F.leaky_relu(convolve()).sum(), x, create_graph=True)
            torch.autograd.backward(g_x.square().sum(), inputs=[weight])

    times = (
        microseconds(lambda: of(lambda: F.conv2d(x, weight, padding=1, groups=groups)), repeats=4),
        microseconds(lambda: of(lambda: grouped_conv(x, weight, None, 1, groups)), repeats=4),
    )
    return f"| {channels} channels, {side} px | {times[0]:.0f} | {times[1]:.0f} |"


def convolution(inputs: int, outputs: int, side: int, dtype: torch.dtype) -> str:
    """A row: the rates of a 3x3 convolution of 16 images, forward and of both gradients."""
    x, g = features(16, inputs, side, dtype), features(16, outputs, side, dtype)
    weight = channels_last(torch.randn(outputs, inputs, 3, 3)).to(dtype)

    def backward(wanted: tuple[bool, bool, bool]) -> object:
        sides = [1, 1]
        return torch.ops.aten.convolution_backward(g, x, weight, None, sides, sides, sides, False, [0, 0], 1, wanted)

    runs: tuple[Callable[[], object], ...] = (
        lambda: F.conv2d(x, weight, padding=1),
        lambda: backward((True, False, False)),
        lambda: backward((False, True, False)),
    )
    gflop = 2 * 16 * inputs * outputs * 9 * side**2 / 1e9
    rates = " | ".join(f"{gflop / microseconds(run) * 1e6:.0f}" for run in runs)
    return f"| {inputs} to {outputs} channels, {side} px, {str(dtype).removeprefix('torch.')} | {rates} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    keep_freed_memory()
    print(machine(), "\n\n| operation, bf16 | torch, microseconds | kernel |\n|---|---|---|", sep="")
    for shape in SHAPES:
        print("\n".join(operations(*shape)))
    print("\n| penalty, 3x3 convolution of 16 images in groups | torch, microseconds | ours |\n|---|---|---|")
    for size in GROUPED:
        print(penalty(*size))
    print("\n| 3x3 convolution of 16 images | GFLOP/s | gradient of input | gradient of weight |\n|---|---|---|---|")
    for shape in CONVOLUTIONS:
        for dtype in (torch.bfloat16, torch.float32):
            print(convolution(*shape, dtype))


if __name__ == "__main__":
    main()
