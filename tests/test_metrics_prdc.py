import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from samgan.errors import SamganError
from samgan.metrics.prdc import prdc


def features(n, d, *, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def reference_prdc(real, fake, k):
    """The papers' formulas, one ball at a time."""
    real, fake = real.double().numpy(), fake.double().numpy()

    def radii(x):
        return [sorted(np.linalg.norm(x - point, axis=1))[k] for point in x]

    radii_real, radii_fake = radii(real), radii(fake)
    in_real = np.array(
        [[np.linalg.norm(f - r) <= radius for r, radius in zip(real, radii_real, strict=True)] for f in fake]
    )
    in_fake = np.array(
        [[np.linalg.norm(f - r) <= radius for f, radius in zip(fake, radii_fake, strict=True)] for r in real]
    )
    return (
        in_real.any(axis=1).mean(),
        in_fake.any(axis=1).mean(),
        in_real.sum() / (k * len(fake)),
        in_real.any(axis=0).mean(),
    )


@pytest.mark.parametrize(("n", "m", "d", "k", "shift"), [(60, 50, 3, 5, 0.0), (40, 70, 8, 3, 0.8), (30, 30, 2, 1, 2.0)])
def test_prdc_equals_brute_force(n, m, d, k, shift):
    real, fake = features(n, d), features(m, d, seed=1, shift=shift)
    np.testing.assert_allclose(prdc(real, fake, k=k), reference_prdc(real, fake, k))


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_precision_and_recall_equal_torch_fidelity(shift):
    real, fake = features(300, 16), features(250, 16, seed=1, shift=shift)
    expected = prc_features_to_metric(
        fake.double(), real.double(), prc_neighborhood=3, verbose=False
    )  # fake first there
    scores = prdc(real, fake, k=3)
    assert scores.precision == pytest.approx(expected["precision"], abs=1e-3)
    assert scores.recall == pytest.approx(expected["recall"], abs=1e-3)


def test_prdc_of_equal_distributions():
    scores = prdc(features(1000, 8), features(1000, 8, seed=1))
    assert scores.density == pytest.approx(1, abs=0.05)
    assert scores.coverage == pytest.approx(1 - 0.5**5, abs=0.03)  # its expectation at n = m (Naeem et al., section 3)
    assert scores.precision == pytest.approx(scores.recall, abs=0.05)


def test_mode_collapse_lowers_recall_and_coverage_but_not_precision():
    real, fake = features(400, 8), features(400, 8, seed=1)
    collapsed = fake[:10].repeat(40, 1)
    healthy, collapsed = prdc(real, fake), prdc(real, collapsed)
    assert collapsed.recall < 0.1 * healthy.recall
    assert collapsed.coverage < 0.5 * healthy.coverage
    assert collapsed.precision > 0.8 * healthy.precision


def test_poor_images_lower_precision_and_density():
    real, fake = features(400, 8), features(400, 8, seed=1)
    healthy, poor = prdc(real, fake), prdc(real, 3 * fake)
    assert poor.precision < 0.2 * healthy.precision
    assert poor.density < 0.2 * healthy.density


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_identical_sets_with_duplicates_score_full(offset):
    real = features(50, 16).repeat(8, 1) + offset  # more copies than k: every radius is 0
    scores = prdc(real, real.flip(0))
    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1)
    assert scores.density == pytest.approx(8 / 5)


def test_prdc_does_not_depend_on_blocks_or_order(monkeypatch):
    real, fake = features(90, 4), features(70, 4, seed=1, shift=0.3)
    whole = prdc(real, fake)
    monkeypatch.setattr("samgan.metrics.prdc.BLOCK_ROWS", 13)
    assert prdc(real, fake) == whole
    assert prdc(real.flip(0), fake[torch.randperm(70)]) == pytest.approx(whole)


def test_prdc_refuses_sets_without_a_kth_neighbour():
    with pytest.raises(SamganError, match="more than k = 5"):
        prdc(features(6, 3), features(5, 3))
    with pytest.raises(SamganError, match="not finite"):
        prdc(features(9, 3), features(9, 3) * torch.inf)


@pytest.mark.parametrize("k", [0, -1])
def test_prdc_refuses_what_is_no_neighbour(k):
    with pytest.raises(SamganError, match=f"1 or more, found {k}"):
        prdc(features(9, 3), features(9, 3), k=k)


@pytest.mark.parametrize("width", [1, 4])
def test_prdc_refuses_features_of_two_widths(width):
    """Those of width 1 would be broadcast."""
    with pytest.raises(SamganError, match=rf"found \[60, 8\] and \[50, {width}\]"):
        prdc(features(60, 8), features(50, width))
