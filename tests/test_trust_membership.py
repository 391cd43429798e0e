"""What the discriminator says of an image depends on that image only."""

import pytest
import torch

from samgan.errors import SamganError
from samgan.networks import Discriminator
from samgan.trust import judge
from samgan.trust.membership import _group_size, _load


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
    torch.testing.assert_close(members, others)


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
