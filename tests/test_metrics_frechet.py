import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from samgan.errors import SamganError
from samgan.metrics.frechet import check_features, frechet_distance, frechet_distance_per_batch, kernel_distance


def features(n, d, *, seed=0, shift=0.0):
    """Correlated positive features with a long tail, as pooled activations are."""
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(99)) * torch.logspace(0, -2, d)
    return (torch.randn(n, d, generator=random) @ mixing.T / d**0.5 + 0.3 + shift).relu()


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 32), (40, 60, 64), (100, 30, 64), (65, 64, 64)])
def test_frechet_distance_equals_torch_fidelity(n, m, d):
    real, fake = features(n, d), features(m, d, seed=1, shift=0.05)
    statistics = [fid_features_to_statistics(x.double()) for x in (real, fake)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("n", "d"), [(400, 16), (150, 48)])
def test_frechet_distance_equals_the_matrix_root(n, d):
    real, fake = features(n, d).double().numpy(), features(n, d, seed=1, shift=0.1).double().numpy()
    covariances = [np.cov(x, rowvar=False) for x in (real, fake)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = real.mean(axis=0) - fake.mean(axis=0)
    expected = shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(torch.from_numpy(real), torch.from_numpy(fake)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [20, 200])
def test_frechet_distance_to_itself_is_zero(n):
    real = features(n, 64)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(real, real.flip(0)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n", [20, 200])
def test_frechet_distance_of_a_shift_is_its_square(n):
    real = features(n, 64).double()
    shift = torch.linspace(-1, 1, 64, dtype=torch.float64)
    assert frechet_distance(real, real + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)


def test_frechet_distance_of_gaussians_is_the_closed_form():
    random = torch.Generator().manual_seed(0)
    real = torch.randn(200_000, 2, generator=random, dtype=torch.float64)
    assert frechet_distance(real, 3 * real + 1) == pytest.approx(2 * (3 - 1) ** 2 + 2 * 1, rel=0.02)


def test_frechet_distance_is_symmetric_and_ignores_order():
    real, fake = features(80, 32), features(50, 32, seed=1, shift=0.2)
    distance = frechet_distance(real, fake)
    assert frechet_distance(fake, real) == pytest.approx(distance)
    assert frechet_distance(real[torch.randperm(80)], fake.flip(0)) == pytest.approx(distance)


def test_frechet_distance_per_batch_averages_full_batches():
    real, fake = features(50, 24), features(45, 24, seed=1, shift=0.2)
    expected = (frechet_distance(real[:20], fake[:20]) + frechet_distance(real[20:40], fake[20:40])) / 2
    assert frechet_distance_per_batch(real, fake) == pytest.approx(expected)
    with pytest.raises(SamganError, match="20"):
        frechet_distance_per_batch(real[:19], fake)


def test_kernel_distance_equals_brute_force():
    real, fake = features(12, 5).double(), features(9, 5, seed=1, shift=0.3).double()

    def k(x, y):
        return float((x @ y / 5 + 1) ** 3)

    within_real = np.mean([k(x, y) for i, x in enumerate(real) for j, y in enumerate(real) if i != j])
    within_fake = np.mean([k(x, y) for i, x in enumerate(fake) for j, y in enumerate(fake) if i != j])
    across = np.mean([k(x, y) for x in real for y in fake])
    assert kernel_distance(real, fake) == pytest.approx(within_real + within_fake - 2 * across, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(150, 32), (40, 64)])
def test_kernel_distance_equals_torch_fidelity(n, d):
    real, fake = features(n, d), features(n, d, seed=1, shift=0.1)
    # one subset, of all images
    scores = kid_features_to_metric(real.double(), fake.double(), kid_subsets=1, kid_subset_size=n, verbose=False)
    assert kernel_distance(real, fake) == pytest.approx(scores["kernel_inception_distance_mean"], rel=1e-6)


def test_kernel_distance_does_not_depend_on_blocks(monkeypatch):
    real, fake = features(50, 8), features(40, 8, seed=1)
    whole = kernel_distance(real, fake)
    monkeypatch.setattr("samgan.metrics.frechet.BLOCK_ROWS", 7)
    assert kernel_distance(real, fake) == pytest.approx(whole)


def test_kernel_distance_is_unbiased():
    draws = [kernel_distance(features(30, 8, seed=2 * i), features(30, 8, seed=2 * i + 1)) for i in range(400)]
    standard_error = np.std(draws) / len(draws) ** 0.5
    assert abs(np.mean(draws)) < 3 * standard_error
    assert min(draws) < 0  # a biased estimate never is
    assert kernel_distance(features(30, 8), features(30, 8, seed=1, shift=0.5)) > max(draws)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_refuse_what_has_no_distance(distance):
    real = features(10, 4)
    with pytest.raises(SamganError, match="at least two images"):
        distance(real, real[:1])
    with pytest.raises(SamganError, match="not finite"):
        distance(real, real.masked_fill(real == real.max(), torch.nan))


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_features_of_two_widths_are_refused(distance):
    with pytest.raises(SamganError, match=r"found \[60, 8\] and \[50, 1\]; compute both with one extractor"):
        distance(features(60, 8), features(50, 1))


def test_what_is_no_table_of_features_is_refused():
    with pytest.raises(SamganError, match=r"expected features \[n, d\] and \[m, d\], found \[9\] and \[9\]"):
        check_features(torch.zeros(9), torch.zeros(9))
