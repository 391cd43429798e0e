"""Compare the ways to attend on a CPU, at the sizes of samgan-8 with at most 64 channels.

    python benchmarks/bench_attention.py [--threads 1 2] [--rounds 15] [--json]

Batches of 16 images; keys are a quarter of the positions where they are pooled. The ways take turns, and a ratio is the
median over rounds of one time / the other. `plain` keeps the map of scores, so it is not an option for large images;
`fused` is torch's kernel, with queries and keys padded to the width of values, as it needs them; `tiles` are torch's
products, and `compiled` is the kernel of samgan-kernels.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable

import torch
from lines import Line, add_json_option, show
from torch import Tensor
from torch.nn import functional as F

from samgan.devices import keep_freed_memory
from samgan.kernels import kernels_version, without_kernels
from samgan.networks.attention_tiles import plain_attend, tiled_attend

BATCH = 16
SIZES = {
    "16 px pooled": (16, True, 64),
    "16 px": (16, False, 64),
    "32 px pooled": (32, True, 64),
    "32 px": (32, False, 64),
    "64 px pooled": (64, True, 32),
}
"""Side, whether keys are pooled, channels of the features: queries and keys have an eighth of them, values half."""


def fused_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend by torch's fused kernel."""
    missing = v.shape[2] - q.shape[2]
    q, k, v = (t.unsqueeze(1) for t in (F.pad(q, (0, missing)), F.pad(k, (0, missing)), v))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)


def torch_tiles(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend in tiles, by torch's products."""
    with without_kernels():
        return tiled_attend(q, k, v)


WAYS = {"plain": plain_attend, "fused": fused_attend, "tiles": torch_tiles, "compiled": tiled_attend}


def seconds(attend: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: list[Tensor], gradient: Tensor) -> list[float]:
    """Of one forward and one backward pass."""
    start = time.perf_counter()
    out = attend(*inputs)
    middle = time.perf_counter()
    with without_kernels() if attend is torch_tiles else contextlib.nullcontext():
        torch.autograd.grad(out, inputs, gradient)
    return [middle - start, time.perf_counter() - middle]


def measure(side: int, pooled: bool, channels: int, rounds: int) -> dict[str, list[list[float]]]:
    """Seconds of each way, by way: one pair a round."""
    positions, keys = side**2, side**2 // (4 if pooled else 1)
    shapes = ((positions, channels // 8), (keys, channels // 8), (keys, channels // 2))
    inputs = [(0.5 * torch.randn(BATCH, *shape)).requires_grad_() for shape in shapes]
    gradient = torch.randn(BATCH, positions, channels // 2)
    times: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for attend in WAYS.values():  # warm up
        seconds(attend, inputs, gradient)
    for _ in range(rounds):
        for name, attend in WAYS.items():
            times[name].append(seconds(attend, inputs, gradient))
    return times


def lines_of(name: str, times: dict[str, list[list[float]]]) -> list[Line]:
    """The kernel against each other way, with milliseconds forward + backward."""
    medians = {
        way: [1e3 * statistics.median(part) for part in zip(*pairs, strict=True)] for way, pairs in times.items()
    }
    lines = []
    for way in ("plain", "fused", "tiles"):
        faster = statistics.median(sum(a) / sum(b) for a, b in zip(times[way], times["compiled"], strict=True))
        note = ", ".join(f"{which} {forward:.2f} + {back:.2f} ms" for which, (forward, back) in medians.items())
        lines.append(Line(f"{name}: compiled, times as fast as {way}", faster, note=note if way == "plain" else ""))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    add_json_option(parser)
    options = parser.parse_args()
    if kernels_version() is None:
        parser.error("samgan-kernels is not installed: pip install ./kernels")
    keep_freed_memory()
    lines = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, size in SIZES.items():
            lines += lines_of(f"{name}, threads: {threads}", measure(*size, options.rounds))
    show(lines, options.json)


if __name__ == "__main__":
    main()
