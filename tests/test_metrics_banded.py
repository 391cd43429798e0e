"""Products with banded matrices, in blocks and whole."""

import pytest
import torch

from samgan.metrics import banded, ms_ssim, swd


@pytest.mark.parametrize("height", [40, 300])
@pytest.mark.parametrize("width", [128, 257])
def test_blocks_give_the_product_of_the_whole(height, width):
    images = torch.rand(2, 3, height, width, dtype=torch.float64)
    for matrix_of in (
        lambda side: ms_ssim._blur_matrix(side, 11, like=images),
        lambda side: swd._blur_matrix(side).double(),
        lambda side: swd._blur_matrix(side).double()[::2],
        lambda side: swd._blur_matrix(2 * side).double()[:, ::2],
    ):
        rows, columns = matrix_of(height), matrix_of(width)
        torch.testing.assert_close(banded.between(rows, images, columns), rows @ images @ columns.T, rtol=1e-12, atol=0)


def test_large_matrices_are_taken_in_blocks_of_few_columns():
    blocks = list(banded._blocks(swd._blur_matrix(512)))
    assert len(blocks) == 512 // banded.BLOCK
    assert max(part.shape[1] for _, part in blocks) == banded.BLOCK + 4
