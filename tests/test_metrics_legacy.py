import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from sewar import full_ref

from samgan.errors import SamganError
from samgan.metrics.legacy import adjacent_ms_ssim, sewar_ms_ssim


def blobs(n, c, size, *, seed=0):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(n, c, size, size)), (0, 0, 3, 3))
    return torch.from_numpy((smooth / smooth.std() * 50 + 128).clip(0, 255).astype(np.uint8))


def pairs(c, size):
    """Images that are alike, that are not, and that are opposite (negative structure)."""
    a, b = blobs(3, c, size), blobs(3, c, size, seed=1)
    return torch.cat([a, a, a]), torch.cat([(0.7 * a + 0.3 * b).to(torch.uint8), b, 255 - a])


def hwc(image):
    return image.permute(1, 2, 0).numpy()


def sewar_scales(a, b, num_scales):
    """MS-SSIM put together from sewar's own SSIM, also below the window's size."""
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    window = {"fltr": full_ref.Filter.GAUSSIAN, "sigma": 1.5, "ws": 11}
    a, b = a.astype(np.float64), b.astype(np.float64)
    product = 1
    for scale in range(num_scales):
        ssim, structure = full_ref.ssim(a, b, ws=11, MAX=255, fltr_specs=window)
        product *= complex(ssim if scale == num_scales - 1 else structure) ** weights[scale]
        a, b = (ndimage.uniform_filter(image, 2)[::2, ::2] for image in (a, b))
    return product.real


@pytest.mark.parametrize(("c", "size"), [(1, 192), (3, 192), (1, 256)])
def test_sewar_ms_ssim_equals_sewar(c, size):
    a, b = pairs(c, size)
    expected = [float(np.real(full_ref.msssim(hwc(x), hwc(y)))) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(sewar_ms_ssim(a, b).numpy(), expected, atol=1e-6)
    assert min(expected) < 0.2
    assert max(expected) > 0.8


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("num_scales", [4, 5])
def test_sewar_ms_ssim_equals_sewar_below_its_window(c, num_scales):
    a, b = pairs(c, 128)
    expected = [sewar_scales(hwc(x), hwc(y), num_scales) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(sewar_ms_ssim(a, b, num_scales=num_scales).numpy(), expected, atol=1e-6)


def test_sewar_ms_ssim_at_four_scales_is_what_new_versions_of_sewar_give():
    a, b = pairs(1, 128)
    with pytest.warns(UserWarning, match="Reducing to 4 scales"):
        expected = [full_ref.msssim(hwc(x), hwc(y)) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(sewar_ms_ssim(a, b, num_scales=4).numpy(), expected, atol=1e-6)


def test_adjacent_ms_ssim_compares_neighbours_at_128_px():
    images = blobs(70, 1, 64)
    values = adjacent_ms_ssim(images)
    assert values.shape == (69,)
    resized = [np.asarray(Image.fromarray(image[0].numpy()).resize((128, 128))) for image in images]
    for i in (0, 63, 68):
        assert float(values[i]) == pytest.approx(
            sewar_scales(resized[i][..., None], resized[i + 1][..., None], 5), abs=1e-6
        )
    torch.testing.assert_close(adjacent_ms_ssim(images[:1].repeat(4, 1, 1, 1)), torch.ones(3, dtype=torch.float64))


def test_adjacent_ms_ssim_needs_two_images():
    with pytest.raises(SamganError, match="two images"):
        adjacent_ms_ssim(blobs(1, 1, 64))
