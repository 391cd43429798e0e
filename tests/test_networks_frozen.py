"""Frozen maps: what they are, that nothing trains them, and that a checkpoint knows them again without holding them."""

import copy
import hashlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.errors import SamganError
from samgan.metrics.feature_networks import NETWORKS, FeaturesUnavailable, lite0
from samgan.metrics.feature_networks.lite0 import EfficientNetLite0
from samgan.metrics.load_features import load_network
from samgan.networks.frozen import PRETRAINED, Projection, freeze, load_pretrained, resize

SMALL = {"resolution": 32, "max_channels": 8, "vision_features": "radiograph", "vision_channels": 8}


def small(**settings):
    return NetworkConfig(**{**SMALL, "discriminator_blocks": "projected", "vision_resolution": 64, **settings})


def random_lite0(seed=0):
    """Weights that keep the scale of the activations, and statistics of batch norms that matter."""
    torch.manual_seed(seed)
    network = EfficientNetLite0()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture(scope="module")
def lite0_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lite0") / "lite0.pth"
    torch.save(random_lite0().state_dict(), path)
    return path


# ---- the maps


def plain_maps(projection, network, config, images):
    """The equations, layer by layer, with the weights that the projection has; the network is untouched."""
    taken = NETWORKS[config.vision_features].input
    x = images
    while x.shape[-1] < config.vision_resolution:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    x = F.avg_pool2d(x, x.shape[-1] // config.vision_resolution)
    x = (127.5 * x + 127.5 - taken.mean[0]) / taken.std[0]
    if taken.channels == 3:
        x = x.repeat(1, 3, 1, 1)
        x = F.relu6(network._bn0(network._conv_stem(x)))
        found, ends = [], (3, 5, 11, 16)
        for number, block in enumerate(network._blocks, start=1):
            x = block(x)
            found += [x] if number in ends else []
    else:
        texture, anatomy = x, x
        for layer in network.texture:
            texture = layer(texture)
        found = []
        for layer in network.anatomy:
            anatomy = layer(anatomy)
            found.append(anatomy)
        found = [torch.cat([texture, found[7]], dim=1), found[11], found[13]]
    # A pretrained map is divided by its scale: here that is done to the map, and undone in the weights.
    scales = PRETRAINED[config.vision_features].scales
    y, maps = None, []
    for level in reversed(range(len(found))):
        across, along = projection.get_buffer(f"across_{level}"), projection.get_buffer(f"along_{level}")
        m = torch.einsum("oi,nihw->nohw", across[:, :, 0, 0] * scales[level], found[level] / scales[level])
        y = m if y is None else (m + y) / 2**0.5
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        y = torch.einsum("oi,nihw->nohw", along[:, :, 0, 0], y)
        maps.insert(0, y)
    return maps


@pytest.mark.parametrize("seen", [64, 128])
@pytest.mark.parametrize("side", [32, 128])
def test_maps_of_lite0_equal_the_equations_written_out(lite0_file, side, seen):
    config = small(vision_features="lite0", vision_file=str(lite0_file), vision_resolution=seen)
    projection = Projection(config).double()
    images = torch.randn(2, 1, side, side, dtype=torch.float64)
    network = random_lite0()
    network.merge_batch_norms()  # in single precision, as the projection does
    expected = plain_maps(projection, network.double(), config, images)
    found = projection(images)
    assert projection.sides == [map_.shape[-1] for map_ in found] == [seen // 2, seen // 4, seen // 8, seen // 16]
    assert projection.channels == [map_.shape[1] for map_ in found] == [8, 8, 16, 32]
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


def test_maps_of_the_radiograph_features_equal_the_equations_written_out():
    config = small()
    projection = Projection(config).double()
    images = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    network = load_network(NETWORKS["radiograph"])[0].double()
    for ours, plain in zip(projection(images), plain_maps(projection, network, config, images), strict=True):
        torch.testing.assert_close(ours, plain)
    assert projection.sides == [32, 16, 8]


def test_mixing_keeps_the_mean_square():
    projection = Projection(small(vision_channels=64))
    for level, channels in enumerate((160, 160, 192)):
        x = projection.scales[level] * torch.randn(1, channels, 50, 50)
        mixed = F.conv2d(x, projection.get_buffer(f"across_{level}"))
        assert mixed.square().mean().sqrt().item() == pytest.approx(1, rel=0.1)
        along = projection.get_buffer(f"along_{level}")
        y = F.conv2d(torch.randn(1, along.shape[1], 50, 50), along)
        assert y.square().mean().sqrt().item() == pytest.approx(1, rel=0.2)


def test_images_are_made_smaller_by_averaging_and_larger_smoothly():
    images = torch.randn(1, 1, 8, 8)
    assert resize(images, 8) is images
    torch.testing.assert_close(resize(images, 2), images.unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean((3, 5)))
    torch.testing.assert_close(resize(torch.ones(1, 1, 8, 8), 32), torch.ones(1, 1, 32, 32))


def test_merged_batch_norms_change_nothing():
    network = random_lite0().double()
    merged = copy.deepcopy(network)
    merged.merge_batch_norms()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for ours, plain in zip(merged.maps(images), network.maps(images), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


def test_a_frozen_network_is_the_same_function_without_parameters():
    network = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)).eval()
    images = torch.randn(2, 2, 8, 8)
    expected = network(images)
    frozen = freeze(network)
    torch.testing.assert_close(frozen(images), expected)
    assert not list(frozen.parameters())
    assert not frozen.state_dict()
    assert frozen.double()(images.double()).dtype == torch.float64


# ---- what a checkpoint holds


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("side", [16, 17])
def test_a_strided_convolution_of_each_channel_has_the_gradients_of_torch(kernel, side):
    torch.manual_seed(0)
    conv = lite0._Convolution(6, 6, kernel, 2, groups=6).double()
    x, to, along = (torch.randn(2, 6, side, side, dtype=torch.float64) for _ in range(3))
    to = to[..., : -(-side // 2), : -(-side // 2)]
    found = []
    for constant in (False, True):  # with torch's gradient, and with the fast one
        conv.requires_grad_(not constant)
        own, back = x.clone().requires_grad_(), to.clone().requires_grad_()
        y = conv(own)
        assert ("StridedDepthwise" in y.grad_fn.name()) == constant
        (first,) = torch.autograd.grad(y, own, back, create_graph=True)
        (second,) = torch.autograd.grad((first * along).sum(), back)
        found.append([y.detach(), first.detach(), second])
    torch.testing.assert_close(found[1], found[0])


def test_a_checkpoint_holds_the_seed_and_the_hashes_alone():
    torch.manual_seed(5)
    projection = Projection(small())
    assert not list(projection.parameters())
    state = projection.state_dict()
    assert state.keys() == {"seed", "features_sha256", "mixing_sha256"}
    assert state["seed"] == 5
    assert bytes(state["features_sha256"].tolist()).hex() == NETWORKS["radiograph"].sha256
    digest = hashlib.sha256()
    for level, scale in enumerate(projection.scales):
        for name in ("across", "along"):
            digest.update(projection.get_buffer(f"{name}_{level}").numpy().tobytes())
        assert scale > 0
    assert bytes(state["mixing_sha256"].tolist()) == digest.digest()


def test_the_mixing_is_drawn_from_the_seed_and_drawn_again_from_that_of_a_checkpoint():
    images = torch.randn(2, 1, 32, 32)
    torch.manual_seed(1)
    first = Projection(small())
    torch.rand(3)  # only the seed counts
    again = Projection(small())
    torch.manual_seed(2)
    other = Projection(small())
    for a, b, c in zip(first(images), again(images), other(images), strict=True):
        assert torch.equal(a, b)
        assert not torch.allclose(a, c)
    other.load_state_dict(first.state_dict())
    for a, c in zip(first(images), other(images), strict=True):
        assert torch.equal(a, c)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("features_sha256", "features of weights with SHA-256 ........00.., and those at hand have .*: put back"),
        ("mixing_sha256", "frozen mixing with SHA-256 ........00.., and its seed 3 now gives .*: continue with"),
    ],
)
def test_another_hash_is_told_in_one_line(name, message):
    torch.manual_seed(3)
    state = Projection(small()).state_dict()
    state[name][4] = 0
    with pytest.raises(SamganError, match=message) as caught:
        Projection(small()).load_state_dict(state)
    assert "\n" not in str(caught.value)


def test_a_changed_seed_in_a_checkpoint_is_told_in_one_line():
    torch.manual_seed(3)
    state = Projection(small()).state_dict()
    state["seed"] += 1
    with pytest.raises(SamganError, match=r"frozen mixing .* its seed 4 now gives"):
        Projection(small()).load_state_dict(state)


# ---- where the weights come from


def test_a_missing_network_is_told_in_one_line(monkeypatch, tmp_path):
    def find(network):
        raise FeaturesUnavailable("the weights of lite0 are not installed; give the file with --features-file")

    record = NETWORKS["lite0"]
    monkeypatch.setitem(NETWORKS, "lite0", type(record)(**{**vars(record), "find": find}))
    with pytest.raises(SamganError, match=r"^network.vision_features lite0: .*--network.vision_file$") as caught:
        load_pretrained(small(vision_features="lite0"))
    assert "\n" not in str(caught.value)
    with pytest.raises(SamganError, match=r"vision_features lite0: cannot read .*nowhere.pth: No such file"):
        load_pretrained(small(vision_features="lite0", vision_file=str(tmp_path / "nowhere.pth")))
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(SamganError, match=r"other.pth does not hold the weights of lite0") as caught:
        load_pretrained(small(vision_features="lite0", vision_file=str(tmp_path / "other.pth")))
    assert "\n" not in str(caught.value)


def test_a_file_of_weights_is_known_by_its_hash(lite0_file):
    projection = Projection(small(vision_features="lite0", vision_file=str(lite0_file)))
    expected = hashlib.sha256(lite0_file.read_bytes()).digest()
    assert bytes(projection.features_sha256.tolist()) == expected
