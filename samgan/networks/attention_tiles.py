"""Softmax attention on a CPU, a tile of the scores at a time: no map is kept.

A compiled kernel does it, where there is one (`samgan.kernels`); otherwise torch, as follows.

A tile has all keys and some queries, and stays in a cache. Both passes are products and element-wise operations:

    forward:   S = K Q^T / ln 2,  P = 2^S,  O = V^T P / sum P,  l = log2 sum P
    backward:  P = 2^(S - l),  dS = P * (V dO^T - sum dO O),  dQ^T = K^T dS,  dK^T = Q^T dS^T,  dV = P dO

One more channel spares passes over the tile: ones beside V sum P, and l beside Q and sum dO O beside dO are subtracted
within the products. Keys are the rows, since the products are fastest with many rows and few columns. Powers of two
take a quarter of the time of torch's exponentials on processors that are not Intel's.

Source: Dao et al. 2022 (FlashAttention), algorithms 1 and 4.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from samgan.kernels import has_kernels, run

KEYS_TOGETHER = 16  # a kernel takes a multiple of them
TILE = 1 << 19
"""Scores in a tile, 2 MB: of half to twice as many, none was faster on one core or two with 1 MB of L2 cache each."""
FEWEST_QUERIES = 64
"""Queries of a tile at least. With fewer, the products wait for keys and values from memory."""
LARGEST_SCORE = 64.0
"""Up to this bound of all |S|, no maximum needs to be subtracted: 2^S keeps all its digits, and no sum overflows."""
LOG2_E = 1 / math.log(2)


def plain_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with the whole map, softmax(Q K^T) V: the twin of `tiled_attend`, differentiable any number of times."""
    return (q @ k.mT).softmax(dim=2) @ v


def _fits(q: Tensor, k: Tensor) -> bool:
    """Whether a kernel attends; the widths of rows do not matter."""
    return has_kernels(q) and q.dtype != torch.bfloat16 and k.shape[1] % KEYS_TOGETHER == 0


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A B^T. MKL has no AVX-512 for processors that are not Intel's; oneDNN has, but is slow where B is a slice."""
    if a.dtype == torch.float32 and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return a @ b.mT


def _tiles(keys: int, *rows_of_queries: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Slices of tensors [positions, any], those of one tile at a time."""
    return zip(*(rows.split(max(FEWEST_QUERIES, TILE // keys)) for rows in rows_of_queries), strict=True)


def _with_ones(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1), value=1.0)


@torch.library.custom_op("samgan::attend", mutates_args=(), device_types="cpu")
def _attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return O and l."""
    if _fits(q, k):
        q, k, v = (t.contiguous() for t in (q, k, v))
        out, logs = v.new_empty(*q.shape[:2], v.shape[2]), q.new_empty(*q.shape[:2], 1)
        run("attend", q.dtype, q, k, v, out, logs, *q.shape[:2], *k.shape[1:], v.shape[2])
        return out, logs
    q, k, v = q * LOG2_E, k.contiguous(), _with_ones(v)
    out, logs = v.new_empty(*q.shape[:2], v.shape[2] - 1), q.new_empty(*q.shape[:2], 1)
    # |q| |k| is no less than any |q^T k|.
    bounded = float(q.norm(dim=2).amax() * k.norm(dim=2).amax()) <= LARGEST_SCORE
    for image in zip(q, k, v, out, logs, strict=True):
        keys, values = image[1], image[2].mT.contiguous()
        for queries, out_tile, logs_tile in _tiles(len(keys), image[0], image[3], image[4]):
            scores = _product(keys, queries)
            peaks = None if bounded else scores.amax(dim=0)
            weights = (scores if peaks is None else scores.sub_(peaks)).exp2_()
            mixed = _product(values, weights.mT)
            sums = mixed[-1]
            out_tile.copy_(mixed[:-1].div_(sums).mT)
            logs_tile[:, 0] = sums.log2() if peaks is None else sums.log2().add_(peaks)
    return out, logs


@torch.library.custom_op("samgan::attend_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, logs: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dQ, dK and dV."""
    if _fits(q, k):
        q, k, v, gradient = (t.contiguous() for t in (q, k, v, gradient))
        dq, dk, dv = (torch.empty_like(t) for t in (q, k, v))
        sizes = *q.shape[:2], *k.shape[1:], v.shape[2]
        run("attend_backward", q.dtype, q, k, v, out, logs, gradient, dq, dk, dv, *sizes)
        return dq, dk, dv
    q, k, v, gradient = q * LOG2_E, _with_ones(k), _with_ones(v), gradient.contiguous()
    of_scores = torch.cat([q, -logs], dim=2)
    of_weights = torch.cat([gradient, -(gradient * out).sum(dim=2, keepdim=True)], dim=2)
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k[:, :, :-1].mT), torch.zeros_like(v[:, :, :-1])
    for image in zip(k, v, dk, dv, q, of_scores, gradient, of_weights, dq, strict=True):
        keys, values, dk_sum, dv_sum, *rows = image
        keys_t = keys[:, :-1].mT.contiguous()
        for q_tile, q_logs, do_tile, do_sums, dq_tile in _tiles(len(keys), *rows):
            weights = _product(keys, q_logs).exp2_()
            of_tile = _product(values, do_sums).mul_(weights)
            dv_sum += _product(weights, do_tile.mT)
            dk_sum += _product(q_tile.mT.contiguous(), of_tile)
            dq_tile.copy_(_product(keys_t, of_tile.mT).mT)
    return dq, dk.mT.div(LOG2_E), dv


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return v.new_empty(*q.shape[:2], v.shape[2]), q.new_empty(*q.shape[:2], 1)


@_attend_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor, ...]:
    return _attend_backward(*ctx.saved_tensors, gradient)


_attend.register_autograd(_backward, setup_context=_save)


def tiled_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute `plain_attend` in tiles, on a CPU. It can be differentiated once.

    Half precision is computed in single precision, which is faster here than torch's fused kernel in bf16.

    Args:
        q: Queries [n, positions, d].
        k: Keys [n, keys, d].
        v: Values [n, keys, e].

    Returns:
        [n, positions, e], of the type of `v`.
    """
    full = torch.promote_types(v.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        return _attend(q.to(full), k.to(full), v.to(full))[0].to(v.dtype)
