import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from samgan.errors import SamganError
from samgan.metrics import swd
from samgan.metrics.swd import _laplacian_pyramid, _sliced_distance, sliced_wasserstein_distance
from samgan.scoring.quick import QuickScorer


def blobs(n, c=1, size=64, *, seed=0, sigma=2.0):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(n, c, size, size)), (0, 0, sigma, sigma))
    return torch.from_numpy((smooth / smooth.std() * 40 + 128).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("size", "levels"), [(64, ["64", "32", "16"]), (16, ["16"]), (28, ["28"]), (44, ["44", "22"])])
def test_swd_names_its_levels(size, levels):
    scores = sliced_wasserstein_distance(blobs(8, size=size), blobs(8, size=size, seed=1))
    assert list(scores) == [*levels, "mean"]
    assert scores["mean"] == pytest.approx(np.mean([scores[level] for level in levels]))


def test_fewer_images_than_planned_are_refused():
    """What was not filled would be whatever was in memory."""
    with pytest.raises(SamganError, match="expected 12 generated images, as many as real ones, found 5"):
        swd.distances_to(swd.real_levels(blobs(12)), blobs(5))
    with pytest.raises(SamganError, match="expected 12 generated images or more, found 5"):
        QuickScorer(blobs(12), 12)(blobs(5))


def test_swd_is_deterministic_by_seed():
    real, fake = blobs(8), blobs(8, seed=1)
    assert sliced_wasserstein_distance(real, fake, seed=3) == sliced_wasserstein_distance(real, fake, seed=3)
    assert sliced_wasserstein_distance(real, fake, seed=3) != sliced_wasserstein_distance(real, fake, seed=4)


def test_swd_of_one_distribution_is_small_and_falls_with_n():
    small, large = (sliced_wasserstein_distance(blobs(n), blobs(n, seed=1))["mean"] for n in (8, 128))
    assert large < small / 2


def test_swd_sees_blur_at_the_finest_level_most():
    real, fake = blobs(64, sigma=1.0), blobs(64, seed=1, sigma=1.0)
    blurred = torch.from_numpy(ndimage.gaussian_filter(fake.numpy(), (0, 0, 2, 2)))
    floor, scores = (sliced_wasserstein_distance(real, other) for other in (fake, blurred))
    excess = {level: scores[level] - floor[level] for level in ("64", "32", "16")}
    assert excess["64"] > 5 * floor["64"]
    assert excess["64"] > excess["32"] > excess["16"]


def test_swd_ignores_brightness_and_contrast():
    real, fake = blobs(32), blobs(32, seed=1)
    dimmed = (fake.float() / 2 + 20).to(torch.uint8)
    plain, dimmed = (sliced_wasserstein_distance(real, other)["mean"] for other in (fake, dimmed))
    assert dimmed == pytest.approx(plain, rel=0.1)


def test_swd_of_constant_images_is_finite_and_large():
    real = blobs(16)
    constant = torch.full_like(real, 128)
    assert 300 < sliced_wasserstein_distance(real, constant)["mean"] < 1000


@pytest.mark.parametrize(("channels", "height"), [(1, 64), (3, 64), (1, 96)])
def test_laplacian_pyramid_adds_up_to_the_image(channels, height):
    """Enlarging and adding from the last level up gives the image back; the enlarging is scipy's here."""
    images = blobs(2, channels, 96)[:, :, :height, :64]
    levels = _laplacian_pyramid(images)
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    rebuilt = levels[-1].numpy()
    for level in reversed(levels[:-1]):
        enlarged = np.zeros(level.shape)
        enlarged[:, :, ::2, ::2] = rebuilt
        rebuilt = level.numpy() + ndimage.convolve(enlarged, 4 * kernel[None, None], mode="mirror")
    np.testing.assert_allclose(rebuilt, images.numpy(), atol=1e-3)
    down = ndimage.convolve(images.double().numpy(), kernel[None, None], mode="mirror")[:, :, ::2, ::2]
    down = ndimage.convolve(down, kernel[None, None], mode="mirror")[:, :, ::2, ::2]
    np.testing.assert_allclose(levels[-1].numpy(), down, atol=1e-3)


def test_swd_of_some_images_at_a_time_is_that_of_all(monkeypatch):
    real, fake = blobs(20, 3), blobs(20, 3, seed=1)
    whole = sliced_wasserstein_distance(real, fake)
    monkeypatch.setattr(swd, "PIXELS_AT_ONCE", 7 * real[:1].numel())
    assert sliced_wasserstein_distance(real, fake) == pytest.approx(whole, rel=1e-5)


def test_sliced_distance_is_the_mean_wasserstein_distance_of_projections():
    random = torch.Generator().manual_seed(0)
    real, fake = torch.randn(200, 5, generator=random), 1.5 * torch.randn(200, 5, generator=random)
    directions = torch.randn(5, 40, generator=random)
    expected = np.mean([stats.wasserstein_distance(real @ u, fake @ u) for u in directions.T])
    assert _sliced_distance(real, fake, directions) == pytest.approx(expected, rel=1e-5)


def test_swd_refuses_what_it_cannot_compare():
    with pytest.raises(SamganError, match="same shape"):
        sliced_wasserstein_distance(blobs(4), blobs(4, size=32))
    with pytest.raises(SamganError, match="at least 16 px"):
        sliced_wasserstein_distance(blobs(4, size=8), blobs(4, size=8))
