"""MS-SSIM as the paper's group published it, only for comparison with that group's numbers."""

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from PIL import Image
from torch import Tensor

from samgan.errors import SamganError

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
RESOLUTION = 128
WINDOW = 11
SIGMA = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2
CHUNK = 64


def adjacent_ms_ssim(images: UInt8[Tensor, "n c h w"]) -> Float64[Tensor, " n-1"]:
    """Compare each image with the next one in file order, after resizing both to 128x128.

    Args:
        images: two or more, in file order.

    Returns:
        One value per pair (0, 1), (1, 2), ...; lower is more diverse.

    Raises:
        SamganError: fewer than two images.

    Source: the public metric code of Saad et al. 2022 (EMBC), which calls sewar.
    """
    if len(images) < 2:
        raise SamganError(f"adjacent pairs need at least two images, found {len(images)}")
    resized = _resize(images)
    chunks = zip(resized[:-1].split(CHUNK), resized[1:].split(CHUNK), strict=True)
    return torch.cat([sewar_ms_ssim(a, b) for a, b in chunks])


def sewar_ms_ssim(
    a: UInt8[Tensor, "n c h w"], b: UInt8[Tensor, "n c h w"], *, num_scales: int = 5
) -> Float64[Tensor, " n"]:
    """Compare images pair by pair by sewar's definition of MS-SSIM.

        Re[ prod_{j<5} cs_j^w_j * ssim_5^w_5 ],   powers of negative numbers taken in the complex plane

    The window is 11 px at every scale. If the image is smaller than that (five scales of 128x128 end at 8x8), the
    convolution slides the image over the window, as sewar up to 0.4.6 did; later versions stop at the fourth scale.
    Between scales there is a 2x2 mean that starts half a pixel early and also runs over the channels.

    Args:
        a: images.
        b: images of the same shape.
        num_scales: 5, or 4 for what sewar 0.4.10 does at 128x128 (then without the fifth weight).

    Returns:
        One value per pair, -1 to 1; 1 for identical images.

    Source: sewar, full_ref.msssim (https://github.com/andrewekhalel/sewar).
    """
    a, b = a.double(), b.double()
    product = torch.ones(len(a), dtype=torch.complex128, device=a.device)
    for scale, weight in enumerate(SCALE_WEIGHTS[:num_scales]):
        if scale:
            a, b = _halve(a), _halve(b)
        mean_a, mean_b = _blur(a), _blur(b)
        variances = _blur(a * a) + _blur(b * b) - mean_a**2 - mean_b**2
        contrast_structure = (2 * (_blur(a * b) - mean_a * mean_b) + C2) / (variances + C2)
        luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
        last = scale == num_scales - 1
        term = (luminance * contrast_structure if last else contrast_structure).mean(dim=(1, 2, 3))
        product = product * term.to(torch.complex128) ** weight
    return product.real


def _resize(images: Tensor) -> UInt8[Tensor, "n c 128 128"]:
    """Resize as Pillow does by default (bicubic, antialiased)."""
    resized = [
        np.stack([np.asarray(Image.fromarray(plane).resize((RESOLUTION, RESOLUTION))) for plane in image])
        for image in images.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(resized))


def _blur(images: Tensor) -> Tensor:
    """Valid convolution with the Gaussian window, with image and window exchanged if the image is smaller."""
    offsets = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    taps = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    taps = taps / taps.sum()
    rows, columns = (_convolution_matrix(taps, size) for size in images.shape[2:])
    return rows @ images @ columns.T


def _convolution_matrix(taps: Tensor, size: int) -> Tensor:
    """Valid convolution of a side of `size` with symmetric taps, whichever is longer, as a matrix [out, size]."""
    outputs = abs(size - len(taps)) + 1
    matrix = taps.new_zeros(outputs, size)
    for row in range(outputs):
        if size >= len(taps):
            matrix[row, row : row + len(taps)] = taps
        else:
            matrix[row] = taps[row : row + size].flip(0)
    return matrix


def _halve(images: Tensor) -> Tensor:
    """scipy.ndimage.uniform_filter(image, 2)[::2, ::2] on [h w c]: means with the value before along all axes."""
    for axis in (1, 2, 3):
        before = images.index_select(axis, torch.arange(-1, images.shape[axis] - 1, device=images.device).clamp(min=0))
        images = (images + before) / 2
    return images[:, :, ::2, ::2]
