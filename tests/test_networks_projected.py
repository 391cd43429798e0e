"""Heads on frozen maps: every layer against a plain one, where images and attention enter, what trains and what not."""

import pytest
import torch
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.errors import UsageError
from samgan.networks import Discriminator, EqualizedConv2d, SelfAttention, attention_gammas, attention_maps, projected
from samgan.networks.frozen import Projection
from samgan.networks.projected import BatchNorm, HalvingConv2d, Head


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(**settings):
    own = {"vision_features": "radiograph", "vision_channels": 8, "vision_resolution": 64}
    return NetworkConfig(
        **{"resolution": 32, "max_channels": 8, "discriminator_blocks": "projected", **own, **settings}
    )


def pyramid_of(config, count=4, dtype=torch.float32):
    return [torch.randn(count, config.image_channels, side, side, dtype=dtype) for side in config.resolutions]


def labels_for(config, count=4):
    return torch.arange(count) % config.num_classes if config.num_classes else None


VARIANTS = {
    "32 px": {},
    "64 px, seen smaller": {"resolution": 64, "vision_resolution": 64, "max_channels": 8},
    "128 px, seen smaller": {"resolution": 128, "max_channels": 16},
    "attention": {"discriminator_attention": (4, 8, 16, 32)},
    "attention, linear": {"discriminator_attention": (16,), "attention_kind": "linear", "attention_pooled": False},
    "classes": {"num_classes": 3, "minibatch_std_group": 2},
    "without std": {"minibatch_std": "none"},
    "std every": {"minibatch_std": "every"},
    "128 px, attention and classes": {
        "resolution": 128,
        "max_channels": 16,
        "discriminator_attention": (8, 32),
        "num_classes": 2,
    },
}


def spectral(layer):
    """The weight divided by its largest singular value, by a decomposition."""
    return layer.weight / torch.linalg.svdvals(layer.weight.flatten(1))[0]


def converge(network):
    """Make the estimates of singular values exact."""
    for module in network.modules():
        if isinstance(module, EqualizedConv2d):
            module.power_iteration(3000)


# ---- layers against plain ones


def test_a_halving_convolution_equals_a_plain_one():
    layer = HalvingConv2d(5, 7, 4, spectral=True, spectral_scale="unit").double()
    torch.nn.init.normal_(layer.bias)
    converge(layer)
    x = torch.randn(2, 5, 8, 8, dtype=torch.float64)
    padded = F.pad(x, (1, 1, 1, 1))
    windows = F.unfold(padded, 4, stride=2)  # [n, c * 16, places]
    plain = (spectral(layer).flatten(1) @ windows + layer.bias[:, None]).view(2, 7, 4, 4)
    torch.testing.assert_close(layer(x), plain, rtol=1e-9, atol=1e-9)


def test_a_tile_is_seen_at_full_size_or_the_whole_image_made_smaller():
    images, tiles = torch.randn(6, 2, 64, 64), torch.tensor([-1, 0, 1, 2, 3, -1])
    seen = projected.with_tiles(torch.cat([images, images]), 32, tiles)
    whole = F.avg_pool2d(images, 2)
    cut = [images[1, :, :32, :32], images[2, :, :32, 32:], images[3, :, 32:, :32], images[4, :, 32:, 32:]]
    expected = torch.stack([whole[0], *cut, whole[5]])
    assert torch.equal(seen, torch.cat([expected, expected]))
    assert projected.with_tiles(images, 64, tiles) is images


def test_tiles_are_for_vision_blocks(monkeypatch):
    with pytest.raises(UsageError, match=r"network\.vision_tiles"):
        small(vision_tiles=True)
    config = small(resolution=128, max_channels=16, discriminator_blocks="vision", vision_tiles=True)
    assert projected.tiles_of(config) == 4
    shown = []
    discriminator = Discriminator(config)
    projection = discriminator.eyes.projection
    monkeypatch.setattr(projection, "forward", lambda x, forward=projection.forward: shown.append(x) or forward(x))
    images, tiles = pyramid_of(config), torch.tensor([-1, 3, -1, 0])
    assert discriminator.beside(images, tiles=tiles).shape[:2] == (4, len(projection.sides))
    assert torch.equal(shown[0], projected.with_tiles(images[-1], 64, tiles))


def test_batch_norm_over_processes_equals_that_of_one(monkeypatch):
    """Two processes with a half each; what they would tell each other is computed here."""
    norm, x = BatchNorm(5).double(), torch.randn(8, 5, 4, 4, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    expected = norm(x)
    halves, told = x.chunk(2), []
    monkeypatch.setattr(projected, "world_size", lambda: 2)
    for half, other in (halves, halves[::-1]):
        asked = iter(
            (lambda y: y.mean((0, 2, 3)), lambda y: (y - x.mean((0, 2, 3), keepdim=True)).square().mean((0, 2, 3)))
        )
        monkeypatch.setattr(projected, "gather", lambda own, of=asked, y=other: torch.cat([own, next(of)(y)[None]]))
        told.append(norm(half))
    torch.testing.assert_close(torch.cat(told), expected, rtol=1e-9, atol=1e-9)


def plain_head(head, x, images, labels, group):
    """A head written out, for self-attention and minibatch std over groups."""
    side = x.shape[-1]
    while True:
        for entering in head.entries.get(side, ()):
            image, step = images[entering], entering // side
            parts = [image[:, :, i::step, j::step] for i in range(step) for j in range(step)]
            # Of each channel, the pixels of a square one after another.
            channels = torch.stack(parts, dim=2).flatten(1, 2)
            layer = head.from_image[str(entering)]
            x = x + F.conv2d(channels, spectral(layer), layer.bias, padding=1)
        layer = head.attention[str(side)]
        if isinstance(layer, SelfAttention):
            q, k, v = (F.conv2d(x, spectral(part)) for part in (layer.query, layer.key, layer.value))
            k, v = (F.max_pool2d(part, 2) for part in (k, v)) if layer.pooled else (k, v)
            weights = (q.flatten(2).transpose(1, 2) @ k.flatten(2)).softmax(dim=2)
            o = (weights @ v.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
            x = x + layer.gamma * F.conv2d(o, spectral(layer.out))
        if side == 4:
            break
        layer = head.halve[str(side)]
        x = F.conv2d(x, spectral(layer), stride=2, padding=1)
        norm = head.norm[str(side)]
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
        x = (x - mean) / (variance + 1e-5).sqrt()
        x = F.leaky_relu(norm.weight[:, None, None] * x + norm.bias[:, None, None], 0.2)
        side //= 2
    features = x
    if head.minibatch_std is not None:
        of_group = x.view(group, -1, *x.shape[1:])
        spread = ((of_group - of_group.mean(0)) ** 2).mean(0).add(1e-8).sqrt().mean((1, 2, 3)).repeat(group)
        x = torch.cat([x, spread.view(-1, 1, 1, 1).expand(-1, 1, 4, 4)], dim=1)
    logits = F.conv2d(x, spectral(head.to_logit), head.to_logit.bias, padding=1)[:, 0]
    if labels is not None:
        logits = logits + torch.einsum("nc,nchw->nhw", spectral(head.of_class)[labels][:, :, 0, 0], features)
    return logits.flatten(1)


@pytest.mark.parametrize("std", ["last", "none"])
@pytest.mark.parametrize("entries", [{}, {16: (16,)}, {16: (64, 32), 8: (8,), 4: (4,)}])
@pytest.mark.parametrize("attentive", [(), (16, 4)])
def test_a_head_equals_a_plain_one(entries, attentive, std):
    config = small(minibatch_std=std, image_channels=3, vision_features="lite0")
    head = Head(config, 16, 12, entries, frozenset(attentive)).double()
    for name, parameter in head.named_parameters():
        if name.endswith(("bias", "gamma")) or ".norm." in name or name.startswith("norm."):
            torch.nn.init.normal_(parameter)
    converge(head)
    x = torch.randn(4, 12, 16, 16, dtype=torch.float64)
    images = {side: torch.randn(4, 3, side, side, dtype=torch.float64) for side in (4, 8, 16, 32, 64)}
    found = head(x, images)
    assert found.shape == (4, 16)
    torch.testing.assert_close(found, plain_head(head, x, images, None, 4), rtol=1e-7, atol=1e-7)


def test_a_head_with_classes_equals_a_plain_one():
    head = Head(small(num_classes=3, minibatch_std="none"), 16, 12, {}, frozenset()).double()
    converge(head)
    x, labels = torch.randn(4, 12, 16, 16, dtype=torch.float64), torch.tensor([2, 0, 1, 1])
    torch.testing.assert_close(head(x, {}, labels), plain_head(head, x, {}, labels, 4), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_whole_is_its_heads_on_its_maps(variant):
    config = small(**VARIANTS[variant])
    network = Discriminator(config).double()
    pyramid, labels = pyramid_of(config, dtype=torch.float64), labels_for(config)
    logits = network(pyramid, labels)
    maps = network.eyes.projection(pyramid[-1])
    assert logits.shape == (4, len(maps), 16)
    images = dict(zip(config.resolutions, pyramid, strict=True))
    for place, (head, x) in enumerate(zip(network.eyes.heads, maps, strict=True)):
        torch.testing.assert_close(logits[:, place], head(x, images, labels))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("blocks", ["projected", "vision"])
def test_batches_in_one_pass_do_not_see_each_other(variant, blocks):
    config = small(**VARIANTS[variant], discriminator_blocks=blocks)
    eyes = Discriminator(config).double().eyes
    first, second = (pyramid_of(config, dtype=torch.float64) for _ in range(2))
    labels = labels_for(config)
    both = eyes([torch.cat(images) for images in zip(first, second, strict=True)], labels, batches=2)
    torch.testing.assert_close(both, torch.cat([eyes(first, labels), eyes(second, labels)]))


# ---- where images and attention enter


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_the_image_of_every_scale(variant):
    config = small(**VARIANTS[variant])
    network = Discriminator(config)
    pyramid = [image.requires_grad_() for image in pyramid_of(config)]
    network(pyramid, labels_for(config)).square().sum().backward()
    for side, image in zip(config.resolutions, pyramid, strict=True):
        assert image.grad.flatten(1).abs().sum(1).min() > 0, f"no gradient reaches the image at {side} px"
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_an_image_enters_the_head_whose_map_has_its_side():
    heads = Discriminator(small(resolution=32)).eyes.heads  # maps of 32, 16 and 8 px
    assert [head.entries for head in heads] == [{}, {16: (16,)}, {8: (8,), 4: (4,)}]
    heads = Discriminator(small(resolution=128, max_channels=16)).eyes.heads
    assert [head.entries for head in heads] == [{32: (32, 64, 128)}, {16: (16,)}, {8: (8,), 4: (4,)}]
    heads = Discriminator(small(resolution=128, max_channels=16, vision_resolution=128)).eyes.heads
    assert [head.entries for head in heads] == [{64: (64,)}, {32: (32,)}, {16: (16,), 8: (8,), 4: (4,)}]
    heads = Discriminator(small(discriminator_blocks="vision")).eyes.heads  # they enter the blocks beside it
    assert [head.entries for head in heads] == [{}, {}, {}]


def test_attention_is_in_the_head_whose_map_has_its_side():
    config = small(discriminator_attention=(4, 16, 32))
    network = Discriminator(config)
    where = [
        [int(side) for side, layer in head.attention.items() if isinstance(layer, SelfAttention)]
        for head in network.eyes.heads
    ]
    assert where == [[32], [16], [4]]
    network.eyes.heads[1].attention["16"].gamma.data.fill_(0.25)
    assert {side: gamma.item() for side, gamma in attention_gammas(network).items()} == {4: 0, 16: 0.25, 32: 0}
    shapes = {side: tuple(beta.shape) for side, beta in attention_maps(network, pyramid_of(config)).items()}
    assert shapes == {4: (4, 16, 4), 16: (4, 256, 64), 32: (4, 1024, 256)}


def test_attention_of_vision_blocks_is_in_the_blocks():
    network = Discriminator(small(discriminator_blocks="vision", discriminator_attention=(8, 32)))
    assert sorted(attention_gammas(network)) == [8, 32]
    assert not network.eyes.attention


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 64, "discriminator_attention": (8, 64)}, "expected some of 4, 8, 16, 32, which heads have"),
        ({"image_channels": 3}, "network.vision_features: 'radiograph' is not allowed; expected lite0 for colour"),
        ({"vision_resolution": 32}, "network.vision_resolution: 32 is not allowed"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        small(**settings)


def test_pyramids_and_labels_that_do_not_fit_are_refused():
    config = small()
    network, pyramid = Discriminator(config), pyramid_of(config)
    with pytest.raises(ValueError, match="smallest first"):
        network(pyramid[::-1])
    with pytest.raises(ValueError, match="expected labels if, and only if"):
        network(pyramid, torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="expected labels if, and only if"):
        Discriminator(small(num_classes=2))(pyramid)


# ---- what trains and what not


@pytest.mark.parametrize("blocks", ["projected", "vision"])
def test_frozen_weights_are_neither_trained_nor_kept(blocks):
    network = Discriminator(small(discriminator_blocks=blocks))
    names = [name for name, _ in network.named_parameters() if name.startswith("eyes.projection")]
    assert not names
    held = {name for name in network.state_dict() if name.startswith("eyes.projection")}
    assert held == {f"eyes.projection.{name}" for name in ("seed", "features_sha256", "mixing_sha256")}
    before = {name: buffer.clone() for name, buffer in network.eyes.projection.named_buffers()}
    assert sum(buffer.numel() for buffer in before.values()) > 100_000
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    pyramid = pyramid_of(small())
    (network(pyramid).sum() + network.eyes(pyramid).sum()).backward()
    optimizer.step()
    for name, buffer in network.eyes.projection.named_buffers():
        assert torch.equal(buffer, before[name]), name
        assert not buffer.requires_grad


@pytest.mark.parametrize("blocks", ["projected", "vision"])
def test_every_layer_of_a_head_has_spectral_norm(blocks):
    heads = Discriminator(small(discriminator_blocks=blocks, spectral_norm="none")).eyes.heads
    layers = [module for module in heads.modules() if isinstance(module, EqualizedConv2d)]
    assert layers
    assert all(layer.spectral and layer.scale == 1 for layer in layers)


def test_vision_is_the_residual_discriminator_and_heads_beside_it():
    config = small(discriminator_blocks="vision")
    network, residual = Discriminator(config), Discriminator(small(discriminator_blocks="residual"))
    own = {name: value for name, value in network.state_dict().items() if not name.startswith("eyes.")}
    residual.load_state_dict(own)
    pyramid = pyramid_of(config)
    torch.testing.assert_close(network(pyramid), residual(pyramid))
    assert network.beside is network.eyes
    assert residual.beside is None
    assert Discriminator(small()).beside is None


def test_shapes_alone_are_enough_for_an_estimate():
    with torch.device("meta"):
        projection = Projection(small(vision_features="lite0", vision_file="nowhere.pth"))
    assert projection.channels == [8, 8, 16, 32]
