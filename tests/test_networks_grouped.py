"""R3GAN's blocks against the same computations written out, and what their initialisation promises."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.errors import UsageError
from samgan.networks import Discriminator, Generator, image_pyramid
from samgan.networks.grouped import GROUP, GroupedConv2d, Residual
from samgan.training.cost import _Meter

SLOPE = 0.2


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def config_of(**settings):
    given = {"generator_blocks": "grouped", "discriminator_blocks": "grouped", "minibatch_std": "none", "latent_dim": 5}
    return NetworkConfig(**{"resolution": 32, "max_channels": 32, "channel_base": 256, **given, **settings})


def opened(network):
    """In double precision and with random weights where they start at zero, so that every operation counts."""
    for name, parameter in network.double().named_parameters():
        if name.endswith(("reduce.weight", "bias")):
            parameter.data.normal_(std=0.3)
        elif name.endswith("gamma"):
            parameter.data.fill_(0.5)
    return network


def plain_conv(layer, x):
    """A convolution in groups as one of all channels, whose kernel is zero between groups; one channel at a time."""
    weight = layer.effective_weight()
    groups = getattr(layer, "groups", 1)
    own_in, own_out = weight.shape[1], len(weight) // groups
    dense = x.new_zeros(len(weight), x.shape[1], *weight.shape[2:])
    for out in range(len(weight)):
        first = out // own_out * own_in
        dense[out, first : first + own_in] = weight[out]
    return F.conv2d(x, dense, layer.bias, padding=weight.shape[-1] // 2)


def plain_residual(layer, x):
    y = F.leaky_relu(plain_conv(layer.expand, x), SLOPE)
    y = F.leaky_relu(plain_conv(layer.mix, y), SLOPE)
    return x + plain_conv(layer.reduce, y)


def plain_generator(generator, latents):
    z = F.normalize(latents, dim=1) * generator.latent_size**0.5
    images, x = [], None
    for block in generator.blocks:
        if x is None:
            x = block.start * (z @ block.scale.effective_weight().flatten(1).T)[:, :, None, None]
        else:
            x = x if isinstance(block.change, torch.nn.Identity) else plain_conv(block.change, x)
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        for path in block.paths:
            x = plain_residual(path, x)
        if block.to_image is not None:
            images.append(plain_conv(block.to_image, x))
    return images


def plain_discriminator(discriminator, pyramid):
    images, x = {image.shape[-1]: image for image in pyramid}, None
    for block, side in zip(reversed(discriminator.blocks), reversed(discriminator.resolutions), strict=True):
        if side in images:
            features = plain_conv(block.from_image, images[side])
            x = features if x is None else (x + features) / math.sqrt(2)
        for path in block.paths:
            x = plain_residual(path, x)
        if side > 4:
            x = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
            x = x if isinstance(block.change, torch.nn.Identity) else plain_conv(block.change, x)
    weights = discriminator.blocks[0].weights.effective_weight()[:, 0]
    x = torch.stack([(x[:, channel] * weights[channel]).flatten(1).sum(dim=1) for channel in range(x.shape[1])], dim=1)
    return x @ discriminator.blocks[0].to_logit.effective_weight().flatten()


@pytest.mark.parametrize(("channels", "out", "groups"), [(8, 8, 2), (32, 32, 2), (12, 24, 3), (6, 6, 6), (4, 8, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_in_groups_its_gradients_and_theirs(channels, out, groups, bias):
    layer = opened(GroupedConv2d(channels, out, 3, groups=groups, padding=1, bias=bias))
    x = torch.randn(2, channels, 6, 6, dtype=torch.double, requires_grad=True)
    results = []
    for convolve in (layer, lambda x: plain_conv(layer, x)):
        y = F.leaky_relu(convolve(x), SLOPE).square().sum()
        gradients = torch.autograd.grad(y, [x, *layer.parameters()], retain_graph=True)
        (g_x,) = torch.autograd.grad(y, x, create_graph=True)
        seconds = torch.autograd.grad(g_x.square().sum(), layer.weight)
        with torch.no_grad():
            results.append([y, *gradients, g_x, *seconds, convolve(x)])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


def test_gradients_that_are_not_computed_are_not_numbers():
    layer = GroupedConv2d(4, 4, 3, groups=2, padding=1)
    x = torch.randn(1, 4, 4, 4, requires_grad=True)
    for gradient in torch.autograd.grad(layer(x).sum(), list(layer.parameters()), create_graph=True):
        assert gradient.isnan().all()


def test_operations_of_a_convolution_in_groups():
    """Forward, and twice that backward; a group of channels each."""
    layer, x = GroupedConv2d(32, 32, 3, groups=4, padding=1), torch.randn(2, 32, 8, 8, requires_grad=True)
    with _Meter() as meter:
        layer(x).sum().backward()
    assert meter.flops == 3 * 2 * x.numel() * 8 * 9


@pytest.mark.parametrize("channels", [4, 16, 24])
def test_a_residual_path_starts_as_the_identity_and_is_what_is_written(channels):
    layer, x = Residual(channels, paths=10).double(), torch.randn(3, channels, 8, 8, dtype=torch.double)
    assert torch.equal(layer(x), x)
    assert layer.mix.weight.shape == (2 * channels, math.gcd(2 * channels, GROUP), 3, 3)
    torch.testing.assert_close(opened(layer)(x), plain_residual(layer, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("equalized", [True, False])
def test_convolutions_of_a_path_start_smaller_the_more_paths_there_are(equalized):
    """Standard deviation: sqrt(2 / (1 + 0.2^2) / fan_in) L^(-1/4)."""
    for paths in (1, 16):
        layer = Residual(64, paths, equalized=equalized)
        for conv, fan_in in ((layer.expand, 64), (layer.mix, 16 * 9)):
            expected = math.sqrt(2 / 1.04 / fan_in) * paths**-0.25
            assert conv.effective_weight().std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("scales", ["every", "largest"])
@pytest.mark.parametrize("settings", [{}, {"equalized_lr": False, "image_channels": 3, "channel_base": 1024}])
def test_both_networks_are_what_is_written(scales, settings):
    config = config_of(scales=scales, **settings)
    generator, discriminator = opened(Generator(config)), opened(Discriminator(config))
    latents = torch.randn(3, 5, dtype=torch.double)
    pyramid = generator(latents)
    sides = [4, 8, 16, 32] if scales == "every" else [32]
    assert [image.shape for image in pyramid] == [(3, config.image_channels, side, side) for side in sides]
    for ours, plain in zip(pyramid, plain_generator(generator, latents), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    images = image_pyramid(torch.randn(3, config.image_channels, 32, 32, dtype=torch.double), config.image_sides)
    images = [image.requires_grad_() for image in images]
    results = []
    for logits in (discriminator(images), plain_discriminator(discriminator, images)):
        gradients = torch.autograd.grad(logits.sum(), images, create_graph=True)
        discriminator.zero_grad()
        (logits.square().sum() + sum(gradient.square().sum() for gradient in gradients)).backward()
        weights = [parameter.grad.clone() for parameter in discriminator.parameters() if parameter.grad is not None]
        results.append([logits, *gradients, *weights])
    for ours, plain in itertools.zip_longest(*results):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


def test_the_mean_square_of_features_stays_at_the_start():
    config = config_of(resolution=64, max_channels=128, channel_base=2048, scales="every", latent_dim=64)
    pyramid = Generator(config)(torch.randn(16, 64))
    sizes = [image.square().mean().sqrt().item() for image in pyramid]
    assert max(sizes) < 1.6
    assert min(sizes) > 0.2  # enlarging takes some of it away
    logits = Discriminator(config)(image_pyramid(torch.randn(16, 1, 64, 64).sign(), config.image_sides))
    assert 0.01 < logits.std().item() < 2


@pytest.mark.parametrize("kind", ["self", "linear", "dual", "squeeze-excitation", "cbam"])
def test_attention_may_stand_in_both_networks(kind):
    config = config_of(
        scales="largest", generator_attention=(8, 16), discriminator_attention=(4, 32), attention_kind=kind
    )
    generator, discriminator = Generator(config), Discriminator(config)
    plain = Generator(config_of(scales="largest"))
    plain.load_state_dict({n: value for n, value in generator.state_dict().items() if ".attention." not in n})
    latents = torch.randn(2, 5)
    torch.testing.assert_close(generator(latents), plain(latents))  # its gates are closed
    discriminator(opened(generator).float()(latents)).sum().backward()
    for name, parameter in (*generator.named_parameters(), *discriminator.named_parameters()):
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_images_of_half_precision_are_returned_in_single():
    with torch.autocast("cpu", torch.bfloat16):
        pyramid = Generator(config_of())(torch.randn(2, 5))
    assert {images.dtype for images in pyramid} == {torch.float32}


def test_images_of_other_sizes_are_refused():
    discriminator = Discriminator(config_of(scales="largest"))
    with pytest.raises(ValueError, match=r"expected images of sides \(32,\), smallest first; got \(4, 8, 16, 32\)"):
        discriminator(image_pyramid(torch.randn(2, 1, 32, 32), (4, 8, 16, 32)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"generator_blocks": "plain", "scales": "largest"},
            "network.scales: 'largest' is not allowed; exp",
        ),
        ({"spectral_norm": "both"}, "network.spectral_norm: 'both' is not allowed; expected none"),
        ({"generator_blocks": "plain", "spectral_norm": "discriminator"}, "network.spectral_norm: 'discriminator'"),
        ({"minibatch_std": "last"}, "network.minibatch_std: 'last' is not allowed; expected none"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        config_of(**settings)
