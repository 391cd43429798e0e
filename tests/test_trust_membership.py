"""What the discriminator says of an image depends on that image only."""

import pytest
import torch

from samgan.errors import SamganError
from samgan.networks import Discriminator
from samgan.trust import judge
from samgan.trust.membership import _group_size, _load, _together


@pytest.mark.parametrize(("classes", "label"), [(0, None), (3, 2)])
def test_logits_do_not_depend_on_what_an_image_lies_beside(tiny_config, classes, label):
    """Groups of an odd size are made full, and the last one begins anew: neither may tell one kind from the other."""
    settings = {"network.minibatch_std_group": 3, "training.batch_size": 6, "network.num_classes": classes}
    config = tiny_config.override(settings)
    torch.manual_seed(0)
    discriminator = Discriminator(config.network).eval()
    images = torch.randint(0, 256, (9, 1, 32, 32), dtype=torch.uint8)
    members, others = judge(discriminator, config, images, images, images, label)
    assert _group_size(config.network, 6) == 3
    assert _group_size(config.override({"network.minibatch_std_group": 0}).network, 6) == (2 if classes else 6)
    assert members.shape == (9, 1)
    torch.testing.assert_close(members, others)


def test_pretrained_eyes_beside_a_discriminator_are_asked_too(tiny_config):
    eyes = {"discriminator_blocks": "vision", "vision_features": "radiograph", "vision_resolution": 64}
    eyes |= {"vision_channels": 8, "generator_attention": [], "discriminator_attention": []}
    config = tiny_config.override({"network": eyes})
    torch.manual_seed(0)
    discriminator = Discriminator(config.network).eval()
    members, others = torch.randint(0, 256, (2, 8, 1, 32, 32), dtype=torch.uint8)
    before = judge(discriminator, config, members, others, members)
    assert before[0].shape == before[1].shape == (8, 2)
    with torch.no_grad():
        for parameter in discriminator.eyes.parameters():
            parameter.mul_(2)
    after = judge(discriminator, config, members, others, members)
    torch.testing.assert_close(after[0][:, 0], before[0][:, 0])
    assert (after[0][:, 1] != before[0][:, 1]).all()


def test_each_judge_counts_by_its_own_spread():
    members, others = torch.randn(2, 50, 2)
    large = torch.tensor([1.0, 1000.0])
    for kind, other in zip(_together(members, others), _together(members * large, others * large), strict=True):
        torch.testing.assert_close(kind, other, rtol=1e-4, atol=1e-4)
    alone = _together(members[:, :1], others[:, :1])
    torch.testing.assert_close(alone[0], members[:, 0].double())
    constant = torch.full((50, 1), 0.3) + 1e-8 * torch.randn(50, 1)  # one that says the same of all
    told = _together(torch.cat([members[:, :1], constant], 1), torch.cat([others[:, :1], constant], 1))
    assert torch.cat(told).argsort().equal(torch.cat([members[:, 0], others[:, 0]]).argsort())


def test_a_discriminator_that_is_damaged_is_refused(tiny_config):
    config = tiny_config.network
    weights = Discriminator(config).state_dict()
    name, value = next(iter(weights.items()))
    _load(config, weights, "step-1.pt")
    with pytest.raises(SamganError, match=f"step-1.pt is damaged: {name} is NaN or infinite"):
        _load(config, {**weights, name: torch.full_like(value, torch.nan)}, "step-1.pt")
    for bad in ({**weights, name: torch.zeros(2)}, {name: value}):
        with pytest.raises(SamganError, match=r"in step-1\.pt does not fit its configuration"):
            _load(config, bad, "step-1.pt")
