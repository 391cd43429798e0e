import pytest
import torch
from torch import nn

from samgan.errors import SamganError
from samgan.metrics import features as features_module
from samgan.metrics.features import FeatureExtractor, extract


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def noise(n, c=1, size=32, *, seed=0):
    return torch.randint(0, 256, (n, c, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Moments(nn.Module):
    """Two features: mean and standard deviation."""

    def forward(self, images):
        pixels = images.float().flatten(1)
        return torch.stack([pixels.mean(dim=1), pixels.std(dim=1)], dim=1)


def counting_extractor(calls, *, sha256="0" * 64):
    def network(images):
        calls.append(len(images))
        return Moments()(images)

    return FeatureExtractor(network, name="moments", sha256=sha256, device=torch.device("cpu"))


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
