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
from samgan.metrics import features as features_module
from samgan.metrics.features import FeatureExtractor, FeaturesUnavailable, extract, load_features


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


def counting_extractor(calls, *, sha256="0" * 64):
    def network(images):
        calls.append(len(images))
        return Moments()(images)

    return FeatureExtractor(network, name="moments", sha256=sha256, device=torch.device("cpu"))


def test_inception_equals_torch_fidelity(inception_file):
    extractor = load_features("inception", inception_weights=inception_file)
    theirs = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(inception_file))
    images = noise(3, 3)
    features = extractor(images)
    torch.testing.assert_close(features, theirs(images)[0])
    assert features.std(dim=0).max() > 0.01
    assert extractor.dim == features.shape[1] == 2048


def test_inception_repeats_one_channel_and_ignores_the_batch_size(inception_file):
    extractor = load_features("inception", inception_weights=inception_file)
    images = noise(5)
    features = extract(extractor, images, batch_size=2, cache=False)
    torch.testing.assert_close(features, extractor(images.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-5)


def test_other_weights_than_the_standard_ones_show_in_the_name(inception_file, monkeypatch):
    sha256 = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    extractor = load_features("inception", inception_weights=inception_file)
    assert extractor.sha256 == sha256
    assert extractor.name == f"inception (non-standard weights sha256:{sha256[:8]})"
    monkeypatch.setattr(features_module, "INCEPTION_SHA256", sha256)
    assert load_features("inception", inception_weights=inception_file).name == "inception"


def test_inception_weights_come_from_the_torch_hub_folder(inception_file, tmp_path, monkeypatch):
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    os.link(inception_file, folder / features_module.INCEPTION_FILE)
    with pytest.raises(FeaturesUnavailable):  # the hash is wrong, and there is no network to fetch the right file
        load_features("inception")
    monkeypatch.setattr(features_module, "INCEPTION_SHA256", hashlib.sha256(inception_file.read_bytes()).hexdigest())
    assert load_features("inception").name == "inception"


def test_inception_without_weights_and_network_is_unavailable():
    with pytest.raises(FeaturesUnavailable, match="--inception-weights"):
        load_features("inception")
    with pytest.raises(FeaturesUnavailable, match="--inception-weights"):
        load_features("imagenet-inception")


@pytest.mark.parametrize("spec", ["inception", "imagenet-inception"])
def test_wrong_weights_are_named_with_both_hashes(spec, inception_file, tmp_path):
    path = tmp_path / "wrong.pth"
    expected = {"inception": features_module.INCEPTION_SHA256, "imagenet-inception": "0cc3c7bd..."}[spec]
    torch.save({"weight": torch.zeros(3)}, path)
    other = path.read_bytes()
    torch.save([1, 2], path)
    for content in (other, path.read_bytes(), inception_file.read_bytes()[:1_000_000], b"<html>", b""):
        path.write_bytes(content)
        with pytest.raises(SamganError) as caught:
            load_features(spec, inception_weights=path)
        assert not isinstance(caught.value, FeaturesUnavailable)
        found = hashlib.sha256(content).hexdigest()
        assert f"{path} does not hold the weights of" in str(caught.value)
        assert f"expected sha256 {expected}, found {found}; fetch https://" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("spec", ["inception", "imagenet-inception"])
def test_weights_that_were_named_but_are_not_there_are_no_matter_of_download(spec, tmp_path):
    for path in (tmp_path, tmp_path / "missing.pth"):
        with pytest.raises(SamganError, match=f"^cannot read {path}: ") as caught:
            load_features(spec, inception_weights=path)
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
            load_features(spec, inception_weights=tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_imagenet_inception_is_laid_out_as_in_pytorch_fid(tmp_path):
    network = randomise(inception_v3(weights=None, init_weights=False)).eval()
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    extractor = load_features("imagenet-inception", inception_weights=path)
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
    with pytest.raises(UsageError, match="inception, imagenet-inception"):
        load_features("resnet")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda images: images.float(), "expected features \\[2, d\\] of 2 images"),
        (lambda images: Moments()(images)[:1], "expected features \\[2, d\\] of 2 images"),
        (lambda images: [1, 2], "expected features \\[2, d\\] of 2 images"),
        (lambda images: Moments()(images) / 0, "not finite"),
        (lambda images: images @ torch.zeros(3), "stub failed on uint8 images"),
    ],
)
def test_a_network_that_gives_no_features_is_named(network, message):
    extractor = FeatureExtractor(network, name="stub", sha256="", device=torch.device("cpu"))
    with pytest.raises(SamganError, match=message):
        extractor(noise(2))


def test_features_are_computed_once(cache):
    calls = []
    images = noise(20)
    first = extract(counting_extractor(calls), images, batch_size=8)
    assert calls == [8, 8, 4]
    torch.testing.assert_close(extract(counting_extractor(calls), images), first)
    assert len(calls) == 3
    extract(counting_extractor(calls), images.flip(0))
    extract(counting_extractor(calls, sha256="1" * 64), images)
    assert len(calls) == 5
    assert len(list(cache.iterdir())) == 3


def test_the_cache_can_be_left_alone(cache):
    calls = []
    for _ in range(2):
        extract(counting_extractor(calls), noise(4), cache=False)
    assert len(calls) == 2
    assert not cache.exists()


def test_an_interrupted_extraction_goes_on_where_it_was(monkeypatch):
    monkeypatch.setattr(features_module, "CACHE_CHUNK", 4)
    images, calls = noise(10), []
    extract(counting_extractor(calls), images[:8])
    extract(counting_extractor(calls), images)
    assert sum(calls) == 10


@pytest.mark.parametrize("damage", [b"", b"not an archive", "half", "flip"])
def test_a_corrupt_cache_file_is_computed_again(damage, cache):
    calls, images = [], noise(20)
    expected = extract(counting_extractor(calls), images)
    (path,) = cache.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "half":
        data = data[: len(data) // 2]
    elif damage == "flip":
        middle = data.find(b"NUMPY") + 140  # within the numbers
        data[middle] ^= 0xFF
    else:
        data = damage
    path.write_bytes(data)
    torch.testing.assert_close(extract(counting_extractor(calls), images), expected)
    assert len(calls) == 2
    torch.testing.assert_close(extract(counting_extractor(calls), images), expected)
    assert len(calls) == 2  # and it is whole again


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.touch()
    monkeypatch.setenv("SAMGAN_CACHE", str(blocker))
    monkeypatch.setattr("samgan.cache._told", [])
    images = noise(4)
    with pytest.warns(UserWarning, match="nothing is cached .*SAMGAN_CACHE"):
        found = extract(counting_extractor([]), images)
    torch.testing.assert_close(found, Moments()(images))


def test_no_images_have_no_features():
    with pytest.raises(SamganError, match="found none"):
        extract(counting_extractor([]), noise(0))
