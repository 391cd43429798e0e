"""Networks for larger images that begin as those of smaller ones."""

import pytest
import torch

from samgan.networks import (
    Discriminator,
    Generator,
    begin_small,
    image_pyramid,
    load_smaller,
    reason_not_to_grow,
    upsample,
)
from samgan.presets import preset_config

SMALL = {
    "network.max_channels": 16,
    "network.channel_base": 512,
    "network.latent_dim": 8,
    "network.num_classes": 0,
}


def network_config(resolution, **settings):
    return preset_config(resolution=resolution).override({**SMALL, **settings}).network


def moved(network):
    """As if trained: no weight is what it was at the start, noise and biases included."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.double()


@pytest.mark.parametrize(
    ("large", "before", "after"),
    [(64, "lower", "lower"), (128, "lower", "lower"), (64, "lower", "all"), (64, "all", "lower"), (64, "none", "all")],
)
def test_a_larger_generator_begins_with_the_images_of_the_smaller_one(large, before, after):
    """Also where one has noise in other blocks than the other."""
    torch.manual_seed(0)
    small = moved(Generator(network_config(32, **{"network.noise": before})))
    grown = Generator(network_config(large, **{"network.noise": after})).double()
    load_smaller(grown, small.state_dict())
    latents = torch.randn(3, 8, dtype=torch.float64)
    before, after = small(latents), grown(latents)
    while len(before) < len(after):
        before.append(upsample(before[-1]))
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-12)


@pytest.mark.parametrize("large", [64, 128])
def test_a_larger_discriminator_begins_with_the_logits_of_the_smaller_one(large):
    torch.manual_seed(0)
    config = network_config(large)
    small, grown = moved(Discriminator(network_config(32))), Discriminator(config).double()
    load_smaller(grown, small.state_dict())
    pyramid = image_pyramid(torch.rand(4, 1, large, large, dtype=torch.float64) - 0.5, config.image_sides)
    torch.testing.assert_close(grown(pyramid), small(pyramid[:4]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("large", [32, 64])
def test_pretrained_eyes_join_a_discriminator_that_has_none(large):
    """Its own logit is what it was, and the heads begin as they were drawn."""
    torch.manual_seed(0)
    eyes = {
        "network.discriminator_blocks": "vision",
        "network.vision_features": "radiograph",
        "network.vision_resolution": 64,
    }
    config = network_config(large, **eyes)
    small, grown = moved(Discriminator(network_config(32))), Discriminator(config).double()
    drawn = {name: value.clone() for name, value in grown.state_dict().items() if name.startswith("eyes.")}
    assert drawn
    load_smaller(grown, small.state_dict())
    pyramid = image_pyramid(torch.rand(4, 1, large, large, dtype=torch.float64) - 0.5, config.image_sides)
    torch.testing.assert_close(grown(pyramid), small(pyramid[:4]), rtol=0, atol=1e-12)
    for name, value in drawn.items():
        torch.testing.assert_close(grown.state_dict()[name], value, rtol=0, atol=0)
    again = Discriminator(config).double()
    load_smaller(again, grown.state_dict())
    for name, value in grown.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{}, {"network.discriminator_attention": [32, 64]}])
def test_blocks_that_join_later_change_nothing_at_first(settings):
    torch.manual_seed(0)
    config = network_config(128, **settings)
    generator, discriminator = moved(Generator(config)), moved(Discriminator(config))
    begin_small(generator, discriminator, [32, 64])
    latents = torch.randn(4, 8, dtype=torch.float64)
    pyramid = generator(latents)
    for scales in (4, 5):
        few = generator(latents, scales=scales)
        assert len(few) == scales
        torch.testing.assert_close(few, pyramid[:scales], rtol=0, atol=1e-12)
    torch.testing.assert_close(pyramid[4:], [upsample(pyramid[3]), upsample(upsample(pyramid[3]))], rtol=0, atol=1e-12)
    real = image_pyramid(torch.rand(4, 1, 128, 128, dtype=torch.float64) - 0.5, config.image_sides)
    for scales in (4, 5):
        torch.testing.assert_close(discriminator(real[:scales]), discriminator(real), rtol=0, atol=1e-12)


def test_only_residual_blocks_can_be_left_out():
    config = network_config(32, **{"network.discriminator_blocks": "plain"})
    real = image_pyramid(torch.rand(4, 1, 32, 32), config.image_sides)
    with pytest.raises(ValueError, match=r"expected images of sides \(4, 8, 16, 32\)"):
        Discriminator(config)(real[:3])


def test_new_blocks_learn():
    torch.manual_seed(0)
    config = network_config(128)
    generator, discriminator = Generator(config), Discriminator(config)
    for network, kind in ((generator, Generator), (discriminator, Discriminator)):
        load_smaller(network, kind(network_config(32)).state_dict())
    optimizer = torch.optim.Adam([*generator.parameters(), *discriminator.parameters()], lr=0.01)
    for _ in range(4):  # one for each block between the image and what starts at zero
        optimizer.zero_grad()
        discriminator(generator(torch.randn(4, 8))).sum().backward()
        optimizer.step()
    silent = [
        name
        for network in (generator, discriminator)
        for name, parameter in network.named_parameters()
        if not parameter.grad.any()
    ]
    assert silent == []


def test_weights_of_the_same_size_are_just_loaded():
    config = network_config(32)
    old, new = Discriminator(config), Discriminator(config)
    load_smaller(new, old.state_dict())
    for name, value in new.state_dict().items():
        assert torch.equal(value, old.state_dict()[name]), name


def test_weights_of_other_networks_are_refused():
    weights = Generator(network_config(32)).state_dict()
    del weights["blocks.1.conv_1.conv.weight"]
    for resolution in (32, 64):
        with pytest.raises(RuntimeError, match=r"blocks\.1\.conv_1\.conv\.weight"):
            load_smaller(Generator(network_config(resolution)), weights)


@pytest.mark.parametrize(
    ("small", "large", "reason"),
    [
        (network_config(32), network_config(64), None),
        (network_config(64), network_config(32), "images of 64 px, which are larger than 32 px"),
        (
            network_config(32),
            network_config(64, **{"network.generator_blocks": "plain", "network.mapping_layers": 0}),
            "network.generator_blocks is plain; only modulated blocks can begin with smaller images",
        ),
        (
            network_config(32, **{"network.spectral_norm": "both"}),
            network_config(64, **{"network.spectral_norm": "both"}),
            "networks with spectral norm cannot begin with smaller images",
        ),
        (
            network_config(32),
            network_config(64, **{"network.channel_base": 256}),
            "at 32 px they have 16 channels, not 8: give both the same network.channel_base",
        ),
        (network_config(32), network_config(64, **{"network.noise": "all"}), None),
        (
            network_config(32),
            network_config(64, **{"network.noise": "none"}),
            "network.noise is none, so what the smaller networks learnt about noise would be lost",
        ),
    ],
)
def test_the_reason_is_told(small, large, reason):
    found = reason_not_to_grow(small, large)
    assert (found is None) == (reason is None)
    if reason:
        assert reason in found
