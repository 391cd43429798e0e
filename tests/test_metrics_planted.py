import pytest
import torch

from samgan.metrics.planted import CHANGES, changed_copies


def test_copies_are_changed_as_they_say():
    images = torch.randint(60, 196, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(changed_copies(images, "exact"), images)
    assert torch.equal(changed_copies(images, "mirrored"), images.flip(-1))
    moved = changed_copies(images, "moved by 1/64 of the side")
    assert torch.equal(moved[..., 4:-4, 4:-4], changed_half(images)[..., 4:-4, 4:-4])
    noise = changed_copies(images, "noise, sd 10 of 255", seed=3)
    assert (noise.float() - images.float()).std() == pytest.approx(10, rel=0.05)
    assert torch.equal(noise, changed_copies(images, "noise, sd 10 of 255", seed=3))
    for change in CHANGES:
        changed = changed_copies(images, change)
        assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
        assert torch.equal(changed, images) == (change == "exact")


def changed_half(images):
    """At 32 px, 1/64 of the side is half a pixel, right and down."""
    x = images.float()
    x = (x + x.roll(1, -1)) / 2
    return ((x + x.roll(1, -2)) / 2).round().to(torch.uint8)
