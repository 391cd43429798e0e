import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, signal
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from samgan.errors import SamganError
from samgan.metrics.ms_ssim import mean_ms_ssim, ms_ssim, pair_mean, random_pairs


def blobs(n, c, h, w, *, seed=0, sigma=3.0):
    """Smooth random images with some grain."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(n, c, h, w)), (0, 0, sigma, sigma))
    smooth = (smooth / smooth.std() * 50 + 128 + random.normal(size=smooth.shape) * 8).clip(0, 255)
    return torch.from_numpy(smooth.astype(np.uint8))


def reference_ms_ssim(a, b):
    """The definition in plain numpy: a two-dimensional window, Fourier convolution, one image at a time."""
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    values = []
    for x, y in zip(a.numpy().astype(np.float64), b.numpy().astype(np.float64), strict=True):
        result = 1.0
        for scale, weight in enumerate(weights):
            side = min(11, *x.shape[1:])
            grid = np.linspace(-(side - 1) / 2, (side - 1) / 2, side)
            window = np.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (2 * (1.5 * side / 11) ** 2))
            window /= window.sum()
            ssims, structures = [], []
            for p, q in zip(x, y, strict=True):
                mean_p, mean_q, pp, qq, pq = (
                    signal.fftconvolve(image, window, mode="valid") for image in (p, q, p * p, q * q, p * q)
                )
                structure = (2 * (pq - mean_p * mean_q) + 58.5225) / (pp + qq - mean_p**2 - mean_q**2 + 58.5225)
                structures.append(structure)
                ssims.append((2 * mean_p * mean_q + 6.5025) / (mean_p**2 + mean_q**2 + 6.5025) * structure)
            result *= max(np.mean(ssims if scale == 4 else structures), 0) ** weight
            if scale < 4:
                x, y = (image.reshape(len(x), x.shape[1] // 2, 2, -1, 2).mean(axis=(2, 4)) for image in (x, y))
        values.append(result)
    return np.array(values)


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 32, 32), (3, 64, 64), (1, 64, 96), (1, 256, 256)])
def test_ms_ssim_equals_a_plain_implementation(shape):
    a, b = blobs(4, *shape, seed=1), blobs(4, *shape, seed=2)
    mixed = ((a.float() + b.float()) / 2).to(torch.uint8)
    for first, second in ((a, b), (a, mixed)):
        expected = reference_ms_ssim(first, second)
        np.testing.assert_allclose(ms_ssim(first, second).numpy(), expected, atol=1e-4)
        np.testing.assert_allclose(ms_ssim(first.double(), second.double()).numpy(), expected, atol=1e-9)
    assert expected.min() > 0.1  # the second comparison is between images that are alike


def test_ms_ssim_equals_pytorch_msssim_where_that_is_defined():
    # From 176 px on all five windows are 11 px and nothing but rounding is left between the two definitions.
    pytorch_msssim = pytest.importorskip("pytorch_msssim")
    a, b = blobs(4, 1, 256, 256, seed=1), blobs(4, 1, 256, 256, seed=2)
    mixed = (0.7 * a + 0.3 * b).to(torch.uint8)
    expected = pytorch_msssim.ms_ssim(a.double(), mixed.double(), data_range=255, size_average=False)
    torch.testing.assert_close(ms_ssim(a.double(), mixed.double()), expected, atol=1e-6, rtol=0)


def test_ms_ssim_equals_torchmetrics_where_that_is_defined():
    # Looser: torchmetrics averages the last scale's SSIM over the mirrored border as well.
    a, b = blobs(4, 1, 256, 256, seed=1), blobs(4, 1, 256, 256, seed=2)
    mixed = (0.7 * a + 0.3 * b).to(torch.uint8)
    expected = multiscale_structural_similarity_index_measure(
        mixed.double(), a.double(), data_range=255.0, reduction="none"
    )
    torch.testing.assert_close(ms_ssim(a.double(), mixed.double()), expected, atol=0.01, rtol=0)


def test_ms_ssim_is_one_for_identical_images_and_symmetric():
    a, b = blobs(5, 1, 64, 64, seed=3), blobs(5, 1, 64, 64, seed=4)
    torch.testing.assert_close(ms_ssim(a, a), torch.ones(5))
    torch.testing.assert_close(ms_ssim(a, b), ms_ssim(b, a))
    assert (ms_ssim(a, 255 - a) == 0).all()  # negative structure is clipped


def test_ms_ssim_does_not_depend_on_the_chunk(monkeypatch):
    a, b = blobs(7, 1, 32, 32, seed=3), blobs(7, 1, 32, 32, seed=4)
    whole = ms_ssim(a, b)
    monkeypatch.setattr("samgan.metrics.ms_ssim.CHUNK_PIXELS", 2 * 32 * 32)
    torch.testing.assert_close(ms_ssim(a, b), whole)


def test_ms_ssim_falls_with_noise():
    a = blobs(8, 1, 64, 64)
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=a.shape)).float()
    values = [ms_ssim(a.float(), (a + level * noise).clamp(0, 255)).mean() for level in (0, 10, 30, 90)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("shape", [(2, 1, 15, 64), (2, 1, 8, 8)])
def test_ms_ssim_refuses_what_is_too_small(shape):
    images = torch.zeros(shape, dtype=torch.uint8)
    with pytest.raises(SamganError, match="at least 16 px"):
        ms_ssim(images, images)


def test_no_images_have_no_ms_ssim():
    none = blobs(1, 1, 32, 32)[:0]
    assert ms_ssim(none, none).shape == (0,)
    assert ms_ssim(none.double(), none.double()).dtype == torch.float64


def test_ms_ssim_refuses_images_of_two_shapes():
    with pytest.raises(SamganError, match="same shape"):
        ms_ssim(blobs(2, 1, 32, 32), blobs(1, 1, 32, 32))


def test_ms_ssim_works_with_odd_sides():
    a = blobs(2, 1, 75, 41)
    torch.testing.assert_close(ms_ssim(a, a), torch.ones(2))


@pytest.mark.parametrize(
    ("num_images", "num_pairs"), [(2, 1), (3, 3), (10, 10), (10, 30), (11, 55), (10, 45), (6, 999)]
)
def test_random_pairs_are_distinct_and_balanced(num_images, num_pairs):
    pairs = random_pairs(num_images, num_pairs, seed=5)
    assert len(pairs) == min(num_pairs, num_images * (num_images - 1) // 2)
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    uses = pairs.flatten().bincount(minlength=num_images)
    assert uses.max() - uses.min() <= 1
    assert not torch.equal(random_pairs(30, 30, seed=1), random_pairs(30, 30, seed=2))


def test_mean_ms_ssim_of_copies_is_one():
    result = mean_ms_ssim(blobs(1, 1, 32, 32).repeat(6, 1, 1, 1))
    assert result.mean == pytest.approx(1)
    assert result.high - result.low < 1e-5
    assert result.pairs == 6


def test_mean_ms_ssim_is_the_mean_over_its_pairs():
    images = blobs(12, 1, 32, 32)
    every = mean_ms_ssim(images, pairs=66)
    i, j = torch.triu_indices(12, 12, 1)
    assert every.mean == pytest.approx(float(ms_ssim(images[i], images[j]).mean()), abs=1e-6)
    assert every.pairs == 66
    assert every.low < every.mean < every.high
    assert mean_ms_ssim(images, seed=1) == mean_ms_ssim(images, seed=1)


def test_mean_ms_ssim_needs_three_images():
    with pytest.raises(SamganError, match="three images"):
        mean_ms_ssim(blobs(2, 1, 32, 32))


@pytest.mark.parametrize("pairs", [1, 0, -1])
def test_mean_ms_ssim_needs_two_pairs(pairs):
    """The interval of a single value would have no width."""
    with pytest.raises(SamganError, match=f"at least two pairs for its interval, found {pairs}"):
        mean_ms_ssim(blobs(4, 1, 32, 32), pairs=pairs)


@pytest.mark.parametrize(("num_images", "num_pairs"), [(60, 60), (60, 90), (40, 780), (200, 200)])
def test_interval_covers_the_mean_although_pairs_share_images(num_images, num_pairs):
    """Similarities with a part of either image, as an atypical image has with all others: 95 % must be 95 %."""
    random = torch.Generator().manual_seed(0)
    covered, covered_plain, repeats = 0, 0, 600
    for repeat in range(repeats):
        pairs = random_pairs(num_images, num_pairs, seed=repeat)
        image_part = torch.randn(num_images, generator=random, dtype=torch.float64)
        own_part = torch.randn(num_pairs, generator=random, dtype=torch.float64)
        values = image_part[pairs].sum(dim=1) + 0.5 * own_part
        result = pair_mean(values, pairs)
        covered += result.low <= 0 <= result.high
        covered_plain += abs(result.mean) <= 1.96 * float(values.std()) / num_pairs**0.5
    assert 0.92 <= covered / repeats <= 0.985
    assert covered_plain / repeats < 0.88  # what the sharing does to a plain interval


@pytest.mark.parametrize(("label", "expected"), [("PNEUMONIA", 0.577), ("NORMAL", 0.673)])
def test_mean_ms_ssim_of_radiographs(real_images_folder, label, expected):
    files = sorted((real_images_folder / label).glob("*.jpeg"))
    chosen = np.random.default_rng(0).choice(len(files), 500, replace=False)
    images = np.stack([np.asarray(Image.open(files[i]).convert("L").resize((64, 64))) for i in chosen])
    result = mean_ms_ssim(torch.from_numpy(images)[:, None], pairs=1000)
    assert result.mean == pytest.approx(expected, abs=0.03)
    assert 0.002 < result.high - result.mean < 0.03
