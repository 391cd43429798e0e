"""What the scripts behind results/ measure."""

from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "results"


@pytest.fixture(autouse=True)
def results(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER / "plus")


def test_images_with_the_heart_on_the_wrong_side_are_counted():
    from mirrored import fit, mirrored_share

    def hearts(count, seed):
        images = torch.randint(0, 128, (count, 1, 16, 16), generator=torch.Generator().manual_seed(seed))
        images[:, :, 6:12, 9:13] += 64
        return images.to(torch.uint8)

    weights, others = fit(hearts(200, 0)), hearts(40, 1)
    assert mirrored_share(weights, others) == 0
    assert mirrored_share(weights, others.flip(-1)) == 1
    assert mirrored_share(weights, torch.cat([others[:30], others[30:].flip(-1)])) == 0.25
