import pytest
import torch

from samgan.errors import SamganError
from samgan.metrics import mirrored
from samgan.metrics.mirrored import asymmetry, count_mirrored, fit_sides


def hearts(count, seed, size=16):
    images = torch.randint(0, 128, (count, 1, 16, 16), generator=torch.Generator().manual_seed(seed))
    images[:, :, 6:12, 9:13] += 64
    times = size // 16
    return images.to(torch.uint8).repeat_interleave(times, 2).repeat_interleave(times, 3)


def test_images_with_the_heart_on_the_wrong_side_are_counted(monkeypatch):
    weights, others = fit_sides(hearts(200, 0)), hearts(40, 1)
    assert count_mirrored(weights, others) == 0
    assert count_mirrored(weights, others.flip(-1)) == 40
    assert count_mirrored(weights, torch.cat([others[:30], others[30:].flip(-1)])) == 10
    monkeypatch.setattr(mirrored, "CHUNK", 7)
    torch.testing.assert_close(fit_sides(hearts(200, 0)), weights)
    assert count_mirrored(weights, others.flip(-1)) == 40


def test_the_weights_are_those_of_ridge_regression():
    images = hearts(50, 0)
    a = asymmetry(images)
    torch.testing.assert_close(asymmetry(images.flip(-1)), -a)
    # The penalty as further observations: sqrt(10) of each weight is to be 0.
    rows = torch.cat([a, 10**0.5 * torch.eye(a.shape[1], dtype=a.dtype)])
    goal = torch.cat([torch.ones(len(a)), torch.zeros(a.shape[1])]).double()
    torch.testing.assert_close(fit_sides(images), torch.linalg.lstsq(rows, goal[:, None]).solution[:, 0])


def test_large_images_are_judged_at_64_px():
    torch.testing.assert_close(asymmetry(hearts(3, 0, 256)), asymmetry(hearts(3, 0, 64)))


def test_sides_are_learnt_from_images():
    with pytest.raises(SamganError, match="found none"):
        fit_sides(hearts(1, 0)[:0])
