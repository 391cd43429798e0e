"""Networks: sizes, the order of the pyramid, and gradient from the logit to every head of the generator."""

import math

import pytest
import torch
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.networks import (
    Discriminator,
    EqualizedConv2d,
    Generator,
    MinibatchStdDev,
    SelfAttention,
    activate_and_normalize,
    attention_gammas,
    image_pyramid,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(**settings):
    return NetworkConfig(**{"resolution": 32, "max_channels": 8, **settings})


def pyramid_of(config, count=3):
    return [torch.randn(count, config.image_channels, side, side) for side in config.resolutions]


VARIANTS = {
    "32 px": {},
    "64 px": {"resolution": 64},
    "128 px": {"resolution": 128, "max_channels": 16},
    "256 px": {"resolution": 256, "max_channels": 32},
    "colour": {"image_channels": 3},
    "colour simple": {"image_channels": 3, "combine": "simple"},
    "colour cat_lin": {"image_channels": 3, "combine": "cat_lin"},
    "simple": {"combine": "simple"},
    "cat_lin": {"combine": "cat_lin"},
    "std none": {"minibatch_std": "none"},
    "std every": {"minibatch_std": "every"},
    "std every simple": {"minibatch_std": "every", "combine": "simple"},
    "std groups": {"minibatch_std_group": 3},
    "tanh": {"image_activation": "tanh"},
    "plain": {"pixel_norm": False, "equalized_lr": False},
    "latent": {"latent_dim": 5},
    "sn both": {"spectral_norm": "both"},
    "own blocks": {"generator_blocks": "modulated", "discriminator_blocks": "residual", "channel_base": 128},
    "own blocks, everything on": {
        "generator_blocks": "modulated",
        "discriminator_blocks": "residual",
        "generator_attention": (4, 32),
        "discriminator_attention": (8, 16),
        "spectral_norm": "both",
        "minibatch_std": "every",
        "image_channels": 3,
        "image_activation": "tanh",
        "latent_dim": 5,
        "mapping_layers": 2,
    },
    "modulated": {"generator_blocks": "modulated", "equalized_lr": False},
    "without noise": {"generator_blocks": "modulated", "noise": "none"},
    "noise at every scale": {"generator_blocks": "modulated", "noise": "all"},
    "alias-free": {"generator_blocks": "alias-free", "equalized_lr": False},
    "alias-free, everything on": {
        "generator_blocks": "alias-free",
        "generator_attention": (4, 16, 32),
        "spectral_norm": "both",
        "image_channels": 3,
        "image_activation": "tanh",
        "latent_dim": 5,
        "mapping_layers": 2,
    },
    "alias-free, 64 px": {"generator_blocks": "alias-free", "resolution": 64},
    "residual": {"discriminator_blocks": "residual", "minibatch_std": "none"},
    "attention": {"generator_attention": (4, 8, 16, 32), "discriminator_attention": (4, 8, 16, 32)},
    **{
        f"{kind} attention": {
            "generator_attention": (4, 16),
            "discriminator_attention": (8, 32),
            "attention_kind": kind,
            "spectral_norm": "both",
        }
        for kind in ("linear", "dual", "squeeze-excitation", "cbam")
    },
    **{
        f"alias-free, {kind} attention": {
            "generator_blocks": "alias-free",
            "generator_attention": (8, 32),
            "attention_kind": kind,
        }
        for kind in ("linear", "dual", "squeeze-excitation", "cbam")
    },
    "classes": {"num_classes": 3},
    "classes, colour": {"num_classes": 3, "combine": "cat_lin", "image_channels": 3},
    "classes, spectral norm": {"num_classes": 2, "spectral_norm": "both"},
    "classes, own blocks": {
        "generator_blocks": "modulated",
        "discriminator_blocks": "residual",
        "mapping_layers": 2,
        "num_classes": 3,
    },
    "classes, alias-free": {"generator_blocks": "alias-free", "mapping_layers": 1, "num_classes": 3},
    "classes, own blocks without mapping": {
        "generator_blocks": "modulated",
        "discriminator_blocks": "residual",
        "num_classes": 3,
        "noise": "all",
    },
    "attention simple": {"discriminator_attention": (8, 16), "combine": "simple", "attention_pooled": False},
}


def labels_for(config, count=3):
    return torch.arange(count) % config.num_classes if config.num_classes else None


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_gradient_to_every_head(variant):
    config = small(**VARIANTS[variant])
    generator, discriminator = Generator(config), Discriminator(config)
    pyramid = generator(torch.randn(3, config.latent_size), labels_for(config))
    assert [tuple(image.shape) for image in pyramid] == [(3, config.image_channels, s, s) for s in config.resolutions]
    logits = discriminator(pyramid, labels_for(config))
    assert logits.shape == (3,)
    for image in pyramid:
        image.retain_grad()
    logits.sum().backward()
    for side, image, block in zip(config.resolutions, pyramid, generator.blocks, strict=True):
        assert image.grad.abs().sum() > 0, f"no gradient reaches the image at {side} px"
        assert block.to_image.weight.grad.abs().sum() > 0, f"no gradient reaches to_image at {side} px"
        assert all(parameter.grad.abs().sum() > 0 for parameter in block.conv_1.parameters())
    for name, parameter in (*generator.named_parameters(), *discriminator.named_parameters()):
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_batches_in_one_pass_do_not_see_each_other(variant):
    config = small(**VARIANTS[variant])
    discriminator = Discriminator(config).double()
    first, second = ([images.double() for images in pyramid_of(config)] for _ in range(2))
    labels = labels_for(config)
    both = discriminator([torch.cat(images) for images in zip(first, second, strict=True)], labels, batches=2)
    torch.testing.assert_close(both, torch.cat([discriminator(first, labels), discriminator(second, labels)]))


def test_each_head_is_reached_by_its_own_way():
    """Cut all scales but one: the gradient of its head is still there, straight from the discriminator."""
    config = small()
    generator, discriminator = Generator(config), Discriminator(config)
    for kept in range(len(config.resolutions)):
        generator.zero_grad()
        pyramid = generator(torch.randn(3, 8))
        discriminator([image if s == kept else image.detach() for s, image in enumerate(pyramid)]).sum().backward()
        for scale, block in enumerate(generator.blocks):
            reached = block.to_image.weight.grad is not None and block.to_image.weight.grad.abs().sum() > 0
            assert reached == (scale == kept)


# facts.md, section 3: 64x64, one channel.
@pytest.mark.parametrize(
    ("width", "generator_millions", "discriminator_millions"), [(512, 22.5, 18.4), (256, 5.6, 4.6), (128, 1.4, 1.15)]
)
def test_parameters_are_those_of_msg_gan(width, generator_millions, discriminator_millions):
    config = NetworkConfig(resolution=64, max_channels=width)
    with torch.device("meta"):
        counts = [sum(p.numel() for p in net(config).parameters()) / 1e6 for net in (Generator, Discriminator)]
    digits = 0.5 * 10 ** -len(str(generator_millions).split(".")[1])
    assert counts[0] == pytest.approx(generator_millions, abs=digits)
    assert counts[1] == pytest.approx(discriminator_millions, abs=0.05)


def test_layers_are_those_of_msg_gan():
    """Widths and kernels as facts.md lists them, from the 4x4 block of the generator to the logit."""
    config = NetworkConfig(resolution=64, max_channels=512)
    with torch.device("meta"):
        generator, discriminator = Generator(config), Discriminator(config)

    def convolutions(block):
        return [tuple(m.weight.shape) for m in block.modules() if isinstance(m, EqualizedConv2d)]

    wide = [(512, 512, 3, 3), (512, 512, 3, 3), (1, 512, 1, 1)]
    assert convolutions(generator.blocks[0]) == [(512, 512, 4, 4), (512, 512, 3, 3), (1, 512, 1, 1)]
    assert [convolutions(block) for block in generator.blocks[1:4]] == [wide] * 3
    assert convolutions(generator.blocks[4]) == [(256, 512, 3, 3), (256, 256, 3, 3), (1, 256, 1, 1)]
    assert convolutions(discriminator.blocks[4]) == [(256, 1, 1, 1), (256, 256, 3, 3), (256, 256, 3, 3)]
    middle = [(256, 1, 1, 1), (512, 512, 3, 3), (256, 512, 3, 3)]
    assert [convolutions(block) for block in discriminator.blocks[1:4]] == [middle] * 3
    last = [(256, 1, 1, 1), (512, 513, 3, 3), (512, 512, 4, 4), (1, 512, 1, 1)]
    assert convolutions(discriminator.blocks[0]) == last
    norms = [[b.activate_1, b.activate_2].count(activate_and_normalize) for b in generator.blocks]
    assert norms == [1, 2, 2, 2, 2]
    stds = [sum(isinstance(m, MinibatchStdDev) for m in block.modules()) for block in discriminator.blocks]
    assert stds == [1, 0, 0, 0, 0]


def test_generator_equals_msg_gan_written_out():
    config = small()
    generator = Generator(config)
    for module in generator.modules():
        if isinstance(module, EqualizedConv2d):
            torch.nn.init.normal_(module.bias)
    latents = torch.randn(2, 8)
    pyramid = generator(latents)

    def norm(x):
        return x / (x**2).mean(dim=1, keepdim=True).add(1e-8).sqrt()

    def conv(x, layer):
        weight = layer.weight * math.sqrt(2 / layer.weight[0].numel())
        return F.conv2d(x, weight, layer.bias, padding=layer.weight.shape[-1] // 2)

    first = generator.blocks[0]
    x = (latents / latents.norm(dim=1, keepdim=True) * math.sqrt(8))[:, :, None, None]
    x = F.conv_transpose2d(x, first.conv_1.weight * math.sqrt(2 / 8), first.conv_1.bias)
    x = norm(F.leaky_relu(conv(F.leaky_relu(x, 0.2), first.conv_2), 0.2))
    images = [conv(x, first.to_image)]
    for block in generator.blocks[1:]:
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = norm(F.leaky_relu(conv(x, block.conv_1), 0.2))
        x = norm(F.leaky_relu(conv(x, block.conv_2), 0.2))
        images.append(conv(x, block.to_image))
    for ours, plain in zip(pyramid, images, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_only_the_direction_of_a_latent_counts():
    generator, latents = Generator(small()), torch.randn(2, 8)
    for a, b in zip(generator(latents), generator(3 * latents), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("combine", ["simple", "lin_cat", "cat_lin"])
def test_combine_functions(combine):
    config = small(combine=combine, image_channels=3)
    block = Discriminator(config).blocks[2]
    image, x = torch.randn(2, 3, 16, 16), torch.randn(2, 4 if combine == "lin_cat" else 8, 16, 16)
    if combine == "simple":
        joined = torch.cat([x, image], dim=1)
        assert not hasattr(block, "from_image")
    elif combine == "lin_cat":
        joined = torch.cat([block.from_image(image), x], dim=1)
    else:
        joined = block.from_image(torch.cat([x, image], dim=1))
    expected = F.leaky_relu(block.conv_2(F.leaky_relu(block.conv_1(joined), 0.2)), 0.2)
    torch.testing.assert_close(block(image, x), F.avg_pool2d(expected, 2))


@pytest.mark.parametrize("resolution", [32, 128])
def test_pyramid_in_another_order_is_refused(resolution):
    config = small(resolution=resolution, max_channels=16)
    discriminator, pyramid = Discriminator(config), pyramid_of(config)
    for wrong in (pyramid[::-1], pyramid[:-1], pyramid[1:], [*pyramid, pyramid[-1]]):
        with pytest.raises(ValueError, match="smallest first"):
            discriminator(wrong)


def test_tanh_stays_within_1_and_linear_does_not():
    for activation in ("tanh", "linear"):
        generator = Generator(small(image_activation=activation))
        for block in generator.blocks:
            torch.nn.init.constant_(block.to_image.weight, 50.0)
        extremes = [image.detach().abs().max().item() for image in generator(torch.randn(4, 8))]
        assert all((extreme <= 1) == (activation == "tanh") for extreme in extremes)


@pytest.mark.parametrize("network", ["generator", "discriminator", "both", "none"])
@pytest.mark.parametrize("layers", ["all", "hidden"])
def test_which_layers_have_spectral_norm(network, layers):
    config = small(spectral_norm=network, spectral_norm_layers=layers, generator_attention=(8,), combine="cat_lin")
    for name, net in (("generator", Generator(config)), ("discriminator", Discriminator(config))):
        for path, module in net.named_modules():
            if isinstance(module, EqualizedConv2d):
                is_end = path.endswith(("to_image", "from_image", "to_logit"))
                assert module.spectral == (network in (name, "both") and not (is_end and layers == "hidden")), path


def test_attention_sits_where_it_is_asked_for():
    config = small(generator_attention=(8, 32), discriminator_attention=(4, 16), attention_reduction=4)
    generator, discriminator = Generator(config), Discriminator(config)
    assert sorted(attention_gammas(generator)) == [8, 32]
    assert sorted(attention_gammas(discriminator)) == [4, 16]
    generator.blocks[1].attention.gamma.data.fill_(0.25)
    assert attention_gammas(generator)[8].item() == 0.25
    layer = generator.blocks[1].attention
    assert isinstance(layer, SelfAttention)
    assert (layer.query.weight.shape[0], layer.value.weight.shape[0], layer.pooled) == (2, 4, True)


def test_channels_by_resolution():
    """MSG-GAN's rule is min(max_channels, base / resolution) with a base of 32 x max_channels."""
    widths = [small(resolution=256, max_channels=64).channels(4 << scale) for scale in range(7)]
    assert widths == [64, 64, 64, 64, 32, 16, 8]
    widths = [small(resolution=64, max_channels=128, channel_base=1024).channels(4 << scale) for scale in range(5)]
    assert widths == [128, 128, 64, 32, 16]


def test_an_image_of_the_modulated_generator_adds_to_the_one_below():
    """With heads that give nothing above 8 px, what is left is the image of 8 px, enlarged."""
    generator = Generator(small(generator_blocks="modulated"))
    for block in generator.blocks[2:]:
        torch.nn.init.zeros_(block.to_image.weight)
    _, at_8, at_16, at_32 = generator(torch.randn(2, 8))
    torch.testing.assert_close(at_16, F.interpolate(at_8, scale_factor=2, mode="bilinear", align_corners=False))
    torch.testing.assert_close(at_32, F.interpolate(at_16, scale_factor=2, mode="bilinear", align_corners=False))


def test_the_latent_reaches_every_modulated_convolution():
    generator = Generator(small(generator_blocks="modulated"))
    for block in generator.blocks[:-1]:
        for conv in (block.conv_1, block.conv_2):
            torch.nn.init.zeros_(conv.style.weight)  # and the strength of noise is 0 at first
    pyramid = generator(torch.randn(2, 8))
    assert torch.equal(pyramid[-2][0], pyramid[-2][1])  # nothing differs below the only layers that still listen
    assert not torch.allclose(pyramid[-1][0], pyramid[-1][1])


@pytest.mark.parametrize(("noise", "with_noise"), [("none", []), ("lower", [4, 8, 16]), ("all", [4, 8, 16, 32])])
def test_noise_is_added_at_the_scales_that_the_setting_names(noise, with_noise):
    generator = Generator(small(generator_blocks="modulated", noise=noise))
    convolutions = {4 << i: (block.conv_1, block.conv_2) for i, block in enumerate(generator.blocks)}
    assert [side for side, both in convolutions.items() if all(c.noise is not None for c in both)] == with_noise
    assert [side for side, both in convolutions.items() if any(c.noise is not None for c in both)] == with_noise


def test_image_pyramid_averages():
    images = torch.randn(2, 3, 32, 32)
    pyramid = image_pyramid(images, (4, 8, 16, 32))
    assert [image.shape[-1] for image in pyramid] == [4, 8, 16, 32]
    assert torch.equal(pyramid[-1], images)
    for image in pyramid:
        factor = 32 // image.shape[-1]
        blocks = images.unflatten(3, (-1, factor)).unflatten(2, (-1, factor)).mean(dim=(3, 5))
        torch.testing.assert_close(image, blocks, rtol=1e-5, atol=1e-6)


def test_discriminator_sees_the_whole_batch_through_minibatch_std_only():
    for std, alone_is_the_same in (("none", True), ("last", False)):
        config = small(minibatch_std=std)
        discriminator, pyramid = Discriminator(config), pyramid_of(config)
        together, alone = discriminator(pyramid)[:1], discriminator([image[:1] for image in pyramid])
        assert torch.allclose(together, alone, atol=1e-6) == alone_is_the_same


def test_modulated_images_add_up_unrounded_in_half_precision():
    config = NetworkConfig(resolution=32, max_channels=8, generator_blocks="modulated")
    with torch.autocast("cpu", torch.bfloat16):
        pyramid = Generator(config)(torch.randn(2, 8))
    assert {images.dtype for images in pyramid} == {torch.float32}


# ---- classes

CLASSES = [name for name in VARIANTS if name.startswith("classes")]


def projected(discriminator):
    """The class vectors that are compared, by resolution."""
    return {int(side): layer.effective_weight()[:, :, 0, 0] for side, layer in discriminator.projections.items()}


def test_without_classes_nothing_is_there_for_them():
    """Same names, same weights from one seed, same results, wherever classes would be compared."""
    for blocks in ({}, {"generator_blocks": "modulated", "discriminator_blocks": "residual", "mapping_layers": 1}):
        weights, logits = [], []
        for settings in ({}, {"num_classes": None}, {"num_classes": 0}):
            torch.manual_seed(5)
            config = small(**blocks, **settings)
            generator, discriminator = Generator(config), Discriminator(config)
            weights.append({**generator.state_dict(), **discriminator.state_dict()})
            logits.append(discriminator(generator(torch.randn(3, 8))))
            assert config.input_size == config.latent_size
        assert not [name for name in weights[0] if "embed" in name or "projection" in name]
        for other in weights[1:]:
            assert other.keys() == weights[0].keys()
            assert all(torch.equal(value, weights[0][name]) for name, value in other.items())
        assert torch.equal(logits[0], logits[1])
        assert torch.equal(logits[0], logits[2])


@pytest.mark.parametrize("variant", CLASSES)
def test_the_class_changes_the_image_and_nothing_else_of_the_batch(variant):
    config = small(**VARIANTS[variant])
    generator = Generator(config)
    latents = torch.randn(1, config.latent_size).expand(4, -1)
    images = generator(latents, torch.tensor([0, 1, 0, 1]))
    for image in images:
        assert torch.equal(image[0], image[2])
        assert torch.equal(image[1], image[3])
        assert (image[0] - image[1]).abs().mean() > 0.01
    alone = generator(latents[:1], torch.tensor([1]))
    torch.testing.assert_close(alone[-1][0], images[-1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", CLASSES)
def test_gradient_reaches_the_vectors_of_the_classes_in_a_batch_alone(variant):
    config = small(**VARIANTS[variant])
    generator, discriminator = Generator(config), Discriminator(config)
    labels = torch.tensor([0, 1, 1])
    discriminator(generator(torch.randn(3, config.latent_size), labels), labels).square().sum().backward()
    tables = [generator.embed.weight.grad, *(layer.weight.grad for layer in discriminator.projections.values())]
    assert len(tables) == 2
    for number, table in enumerate(tables):
        reached = table.flatten(1).abs().sum(dim=1) > 0
        # Dividing by the largest singular value ties all rows of a table together.
        tied = number > 0 and config.spectral_norm == "both"
        assert reached.tolist() == [True, True, tied][: config.num_classes]


def test_only_the_direction_of_a_class_vector_counts():
    generator, latents, labels = Generator(small(num_classes=3)), torch.randn(3, 8), torch.arange(3)
    before = generator(latents, labels)
    generator.embed.weight.data.mul_(7)
    torch.testing.assert_close(generator(latents, labels), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("blocks", ["plain", "residual"])
def test_the_projection_is_an_inner_product_with_the_features(blocks):
    """C(x, y) - C(x, k) = <e_y - e_k, h>; the mean over all classes is what the mean vector gives."""
    config = small(num_classes=3, discriminator_blocks=blocks)
    discriminator = Discriminator(config)
    features = {}
    discriminator.blocks[0].register_forward_hook(lambda _, __, x: features.update({4: x.mean(dim=(2, 3))}))
    pyramid = pyramid_of(config, 2)
    logits = torch.stack([discriminator(pyramid, torch.full((2,), label)) for label in range(3)])
    products = sum(features[side] @ table.T for side, table in projected(discriminator).items()).T
    torch.testing.assert_close(logits - logits[:1], products - products[:1], rtol=1e-4, atol=1e-5)
    means = sum(features[side] @ table.mean(dim=0) for side, table in projected(discriminator).items())
    plain = discriminator.blocks[0].to_logit(torch.zeros_like(features[4])[:, :, None, None])  # its bias
    head = discriminator.blocks[0].to_logit.effective_weight()[0, :, 0, 0]
    torch.testing.assert_close(logits.mean(dim=0), features[4] @ head + plain.flatten() + means, rtol=1e-4, atol=1e-5)


def test_the_names_of_classes_do_not_matter():
    """With rows of all tables and labels permuted alike, images and logits stay."""
    config = small(num_classes=3)
    generator, discriminator = Generator(config), Discriminator(config)
    latents, labels, order = torch.randn(3, 8), torch.tensor([0, 2, 1]), torch.tensor([2, 0, 1])
    before = discriminator(generator(latents, labels), labels)
    for layer in (generator.embed, *discriminator.projections.values()):
        layer.weight.data = layer.weight.data[order]
    renamed = torch.argsort(order)[labels]
    torch.testing.assert_close(discriminator(generator(latents, renamed), renamed), before)


@pytest.mark.parametrize("blocks", ["plain", "residual"])
@pytest.mark.parametrize("settings", [{}, {"equalized_lr": False}, {"spectral_norm": "both"}])
def test_class_vectors_start_as_long_as_the_weight_of_the_logit(settings, blocks):
    network = {"max_channels": 64, "num_classes": 3, "discriminator_blocks": blocks}
    for table in projected(Discriminator(small(**network, **settings))).values():
        if settings.get("spectral_norm"):
            assert torch.linalg.matrix_norm(table, 2).item() == pytest.approx(1, abs=0.15)
        else:
            assert table.norm(dim=1).mean().item() == pytest.approx(1, abs=0.25)


def test_labels_are_wanted_where_there_are_classes_and_only_there():
    for classes, labels in ((0, torch.zeros(3, dtype=torch.long)), (None, torch.zeros(3, dtype=torch.long)), (2, None)):
        config = small(num_classes=classes)
        with pytest.raises(ValueError, match="expected labels if"):
            Generator(config)(torch.randn(3, 8), labels)
        with pytest.raises(ValueError, match="expected labels if"):
            Discriminator(config)(pyramid_of(config), labels)
