"""Filters along both sides of images, as products with banded matrices, without most of the zeros."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

DENSE = 128  # rows; up to here a whole matrix costs less than its parts
BLOCK = 64


def between(
    rows: Float[Tensor, "i h"], images: Float[Tensor, "n c h w"], columns: Float[Tensor, "j w"]
) -> Float[Tensor, "n c i j"]:
    """Compute rows @ images @ columns^T, where both matrices have values only near their diagonals.

    The products of a whole matrix grow with the cube of the side. A block of its rows needs few columns, so the time
    grows with the number of pixels.
    """
    filtered = [part @ images[:, :, near] for near, part in _blocks(rows)]
    some = filtered[0] if len(filtered) == 1 else torch.cat(filtered, dim=2)
    filtered = [some[..., near] @ part.T for near, part in _blocks(columns)]
    return filtered[0] if len(filtered) == 1 else torch.cat(filtered, dim=3)


def _blocks(matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows, each with the columns in which it has values."""
    for rows in matrix.split(len(matrix) if len(matrix) <= DENSE else BLOCK):
        used = rows.any(dim=0).nonzero()
        near = slice(int(used[0]), int(used[-1]) + 1) if len(matrix) > DENSE else slice(None)
        yield near, rows[:, near]
