import contextlib
import dataclasses
import hashlib
import os
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models import inception_v3

from samgan.errors import SamganError, UsageError
from samgan.metrics import weights_here
from samgan.metrics.feature_networks import NETWORKS, FeaturesUnavailable
from samgan.metrics.feature_networks.weights import file_name
from samgan.metrics.features import extract
from samgan.metrics.load_features import (
    Default,
    choose_features,
    default_features,
    load_features,
    say_features,
    weights_sha256,
)
from samgan.metrics.weights_here import features_here, torch_hub_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "cache" / "features"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no network in tests")

    monkeypatch.setattr("requests.get", refuse)
    monkeypatch.setattr("requests.sessions.Session.request", refuse)


def noise(n, c=1, size=32, *, seed=0):
    return torch.randint(0, 256, (n, c, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def randomise(network):
    """Weights that keep the scale of the activations, so that features differ between images."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A file of the standard network's shape with random weights."""
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("inception", ["2048"])
    torch.save(randomise(network).state_dict(), path)
    return path


class Moments(nn.Module):
    """Two features: mean and standard deviation."""

    def forward(self, images):
        pixels = images.float().flatten(1)
        return torch.stack([pixels.mean(dim=1), pixels.std(dim=1)], dim=1)


def write_module(module, path):
    if path.suffix == ".pt2":
        shape = {"images": {0: torch.export.Dim("n", min=1, max=10_000)}}
        torch.export.save(torch.export.export(module, (noise(3),), dynamic_shapes=shape), path)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`torch\.jit")  # writing TorchScript is what is deprecated
            torch.jit.trace(module, noise(3)).save(path)
    return path


def pin(monkeypatch, sha256):
    monkeypatch.setitem(NETWORKS, "inception", dataclasses.replace(NETWORKS["inception"], sha256=sha256))


def test_inception_equals_torch_fidelity(inception_file):
    extractor = load_features("inception", features_file=inception_file)
    theirs = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(inception_file))
    images = noise(3, 3)
    features = extractor(images)
    torch.testing.assert_close(features, theirs(images)[0])
    assert features.std(dim=0).max() > 0.01
    assert extractor.dim == features.shape[1] == 2048


def test_inception_repeats_one_channel_and_ignores_the_batch_size(inception_file):
    extractor = load_features("inception", features_file=inception_file)
    images = noise(5)
    features = extract(extractor, images, batch_size=2, cache=False)
    torch.testing.assert_close(features, extractor(images.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-5)


def test_other_weights_than_the_standard_ones_show_in_the_name(inception_file, monkeypatch):
    sha256 = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    extractor = load_features("inception", features_file=inception_file)
    assert extractor.sha256 == sha256
    assert extractor.name == f"inception (non-standard weights sha256:{sha256[:8]})"
    pin(monkeypatch, sha256)
    assert load_features("inception", features_file=inception_file).name == "inception"


def test_inception_weights_come_from_the_torch_hub_folder(inception_file, tmp_path, monkeypatch):
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    os.link(inception_file, folder / file_name(NETWORKS["inception"]))
    with pytest.raises(FeaturesUnavailable):  # the hash is wrong, and there is no network to fetch the right file
        load_features("inception")
    pin(monkeypatch, hashlib.sha256(inception_file.read_bytes()).hexdigest())
    assert load_features("inception").name == "inception"


def test_inception_without_weights_and_network_is_unavailable():
    with pytest.raises(FeaturesUnavailable, match="--features-file"):
        load_features("inception")
    with pytest.raises(FeaturesUnavailable, match="--features-file"):
        load_features("imagenet-inception")


@pytest.mark.parametrize("spec", ["inception", "imagenet-inception"])
def test_wrong_weights_are_named_with_both_hashes(spec, inception_file, tmp_path):
    path = tmp_path / "wrong.pth"
    expected = {"inception": NETWORKS["inception"].sha256, "imagenet-inception": "0cc3c7bd..."}[spec]
    torch.save({"weight": torch.zeros(3)}, path)
    other = path.read_bytes()
    torch.save([1, 2], path)
    for content in (other, path.read_bytes(), inception_file.read_bytes()[:1_000_000], b"<html>", b""):
        path.write_bytes(content)
        with pytest.raises(SamganError) as caught:
            load_features(spec, features_file=path)
        assert not isinstance(caught.value, FeaturesUnavailable)
        found = hashlib.sha256(content).hexdigest()
        assert f"{path} does not hold the weights of" in str(caught.value)
        assert f"expected sha256 {expected}, found sha256 {found}; fetch https://" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("spec", ["inception", "imagenet-inception"])
def test_weights_that_were_named_but_are_not_there_are_no_matter_of_download(spec, tmp_path):
    for path in (tmp_path, tmp_path / "missing.pth"):
        with pytest.raises(SamganError, match=f"^cannot read {path}: ") as caught:
            load_features(spec, features_file=path)
        assert not isinstance(caught.value, FeaturesUnavailable)


@pytest.mark.parametrize("spec", ["inception", "imagenet-inception"])
def test_weights_are_not_unpickled(spec, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    for name, write in {
        "zip.pth": torch.save,
        "plain.pth": lambda obj, path: path.write_bytes(pickle.dumps(obj)),
    }.items():
        write(Payload(), tmp_path / name)
        with pytest.raises(SamganError, match="does not hold the weights"):
            load_features(spec, features_file=tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_imagenet_inception_is_laid_out_as_in_pytorch_fid(tmp_path):
    network = randomise(inception_v3(weights=None, init_weights=False)).eval()
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    extractor = load_features("imagenet-inception", features_file=path)
    images = noise(2)
    x = nn.functional.interpolate(images.repeat(1, 3, 1, 1) / 255, (299, 299), mode="bilinear") * 2 - 1
    maps = []
    network.Mixed_6e.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        network(x)
    torch.testing.assert_close(extractor(images), maps[0].mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    assert extractor.dim == 768
    assert "non-standard weights" in extractor.name


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_module_of_the_user_is_loaded_and_named(suffix, tmp_path):
    path = write_module(Moments(), tmp_path / f"moments{suffix}")
    extractor = load_features(path)
    images = noise(7)
    torch.testing.assert_close(extract(extractor, images, batch_size=4), Moments()(images))
    assert extractor.dim == 2
    assert extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert extractor.name == f"moments{suffix} (sha256:{extractor.sha256[:8]})"


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_file_that_is_no_module_is_named(suffix, tmp_path):
    path = tmp_path / f"text{suffix}"
    path.write_text("not a module")
    with pytest.raises(SamganError, match=f"text{suffix} cannot be loaded"):
        load_features(path)
    with pytest.raises(SamganError, match=f"cannot read .*missing{suffix}"):
        load_features(tmp_path / f"missing{suffix}")


def test_unknown_features_are_a_usage_error():
    with pytest.raises(UsageError, match=r"inception, lite0, .*imagenet-inception, a \.pt file, a \.pt2 file"):
        load_features("resnet")


def put_inception(tmp_path):
    """Somebody has begun to download the Inception: its file is damaged."""
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file_name(NETWORKS["inception"])).touch()
    return folder


@pytest.fixture
def empty_inception(monkeypatch):
    """An empty file counts as the weights of the Inception."""
    empty = hashlib.sha256(b"").hexdigest()
    monkeypatch.setattr(weights_here, "INCEPTION_SHA256", empty)
    return empty


def test_the_default_depends_on_the_folder_of_weights_only(tmp_path, radiograph, empty_inception):
    """There is no network in these tests, and none is needed to decide."""
    grey, colour = default_features((1, 64, 64)), default_features((3, 64, 64))
    assert (grey.name, colour.name) == ("radiograph", None)
    folder = tmp_path / "torch/hub/checkpoints"
    for found in (grey, colour):
        assert "--features inception downloads the FID Inception (96 MB)" in found.why
    assert "enlarged" not in grey.why
    assert "images of 32 px are enlarged to 64 px" in default_features((1, 32, 32)).why
    assert put_inception(tmp_path) == folder
    for shape in ((1, 64, 64), (3, 32, 32)):
        assert default_features(shape) == Default("inception", f"features: inception, whose weights are in {folder}")


def test_a_choice_is_explained_unless_it_was_the_users(radiograph, capsys):
    extractor, why = choose_features(None, (1, 64, 64))
    assert (extractor.name, extractor.sha256) == ("radiograph", radiograph)
    say_features(extractor, why)
    assert capsys.readouterr().err.startswith("samgan: features: radiograph, which come with samgan; --features ")
    extractor, why = choose_features("radiograph", (1, 64, 64))
    assert (extractor.name, why) == ("radiograph", "")
    say_features(extractor, why)
    assert not capsys.readouterr().err
    extractor, why = choose_features("", (3, 64, 64))
    assert extractor is None
    say_features(extractor, why)
    assert capsys.readouterr().err.startswith("samgan: scores that need features are skipped: radiograph features are")


def test_what_was_named_is_never_replaced(radiograph, inception_file, tmp_path):
    with pytest.raises(FeaturesUnavailable, match="--features-file"):
        choose_features("inception", (1, 64, 64))
    extractor, why = choose_features(None, (1, 64, 64), default="imagenet-inception")
    assert extractor is None
    assert "the weights of imagenet-inception are not at" in why
    with pytest.raises(SamganError, match=r"cannot read .*missing\.pth"):
        choose_features(None, (1, 64, 64), default="imagenet-inception", features_file=tmp_path / "missing.pth")
    extractor, _ = choose_features("inception", (1, 64, 64), features_file=inception_file)
    assert extractor.name.startswith("inception (non-standard weights")
    put_inception(tmp_path)
    with pytest.raises(FeaturesUnavailable):  # a damaged file is not passed over in silence
        choose_features("inception", (1, 64, 64))


def test_a_damaged_default_is_no_reason_to_stop_but_is_told(tmp_path, radiograph):
    folder = put_inception(tmp_path)
    extractor, why = choose_features(None, (1, 64, 64))
    assert extractor.name == "radiograph"
    assert f"the weights of inception in {folder} are damaged; --features inception downloads" in why


def test_a_file_needs_the_name_of_its_network(tmp_path):
    with pytest.raises(UsageError, match="name its network with --features"):
        choose_features(None, (1, 64, 64), features_file=tmp_path / "weights.pth")
    path = write_module(Moments(), tmp_path / "moments.pt2")
    with pytest.raises(UsageError, match=f"{path} has its own weights; name one of radiograph, inception"):
        load_features(path, features_file=tmp_path / "weights.pth")


def test_weights_are_known_by_their_hash_before_they_are_loaded(inception_file, radiograph):
    assert weights_sha256("radiograph", None) == radiograph
    assert weights_sha256("inception", None) == NETWORKS["inception"].sha256
    assert weights_sha256("swav", None) is None
    expected = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    assert weights_sha256("inception", inception_file) == expected


def test_damaged_radiograph_weights_are_told(tmp_path, radiograph):
    NETWORKS["radiograph"].find(None).write_bytes(b"damaged")
    with pytest.raises(SamganError, match=r"does not hold the weights of radiograph: .*install samgan again"):
        load_features("radiograph")


def test_radiograph_features_see_small_images_enlarged(radiograph):
    extractor = load_features("radiograph")
    images = noise(3)
    enlarged = (
        nn.functional.interpolate(images.float(), (64, 64), mode="bilinear", antialias=True).round().to(images.dtype)
    )
    torch.testing.assert_close(extractor(images), extractor(enlarged), rtol=0, atol=0.05)
    assert extractor(images).shape == (3, 256)
    assert extractor(noise(2, size=128)).shape == (2, 256)


@pytest.mark.parametrize("there", [False, True])
def test_features_that_are_here_are_those_that_networks_find_without_a_network(there, empty_inception):
    folder = torch_hub_folder()
    found = set()
    for network in NETWORKS.values():
        if there and network.url:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file_name(network)).touch()
        with contextlib.suppress(FeaturesUnavailable):
            known = dataclasses.replace(network, sha256=empty_inception)
            known.find(known)
            found.add(known.name)
    assert set(features_here()) == found
    assert "radiograph" in found
    assert ({"inception", "imagenet-inception"} <= found) == there


def test_a_damaged_file_of_the_inception_is_not_here_until_it_is_whole(tmp_path, monkeypatch):
    """A command would download it."""
    file = put_inception(tmp_path) / file_name(NETWORKS["inception"])
    monkeypatch.setattr(weights_here, "INCEPTION_SHA256", hashlib.sha256(b"whole").hexdigest())
    assert "inception" not in features_here()
    file.write_bytes(b"whole")
    assert "inception" in features_here()
    file.write_bytes(b"not whole")
    assert "inception" not in features_here()


@pytest.mark.parametrize(
    "given", [{"TORCH_HOME": "/a"}, {"TORCH_HOME": "~/a"}, {"XDG_CACHE_HOME": "/b"}, {"XDG_CACHE_HOME": "~/b"}, {}]
)
def test_the_folder_of_torch_hub_is_known_without_torch(given, monkeypatch):
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert str(torch_hub_folder()) == os.path.join(torch.hub.get_dir(), "checkpoints")


def test_loading_features_leaves_the_callers_random_numbers_alone():
    before = torch.get_rng_state()
    load_features("radiograph")
    assert torch.equal(torch.get_rng_state(), before)
