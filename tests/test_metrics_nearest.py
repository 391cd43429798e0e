import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist

from samgan.errors import SamganError
from samgan.metrics import nearest as nearest_module
from samgan.metrics.nearest import first_alike, nearest_features, nearest_image
from samgan.metrics.planted import CHANGES, changed_copies


def blobs(n, c=1, size=64, *, seed=0):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(n, c, size, size)), (0, 0, 3, 3))
    return torch.from_numpy((smooth / smooth.std() * 40 + 128).clip(0, 255).astype(np.uint8))


def halved(image):
    c, h, w = image.shape
    return image.reshape(c, h // 2, 2, w // 2, 2).mean(axis=(2, 4)).ravel()


def brute_force(images, references, *, mirrored=True, shift=1, same=False):
    """The docstring's formula, pair by pair and move by move."""
    images, references = images.double().numpy(), references.double().numpy()
    size = images.shape[-1] - 2 * shift
    found = []
    for i, image in enumerate(images):
        best = (np.inf, -1, False)
        for j, reference in enumerate(references):
            if same and i == j:
                continue
            middle = halved(reference[:, shift : shift + size, shift : shift + size])
            for turned in (False, True) if mirrored else (False,):
                a = image[:, :, ::-1] if turned else image
                for y in range(2 * shift + 1):
                    for x in range(2 * shift + 1):
                        distance = 1 - np.corrcoef(halved(a[:, y : y + size, x : x + size]), middle)[0, 1]
                        best = min(best, (distance, j, turned))
        found.append(best)
    return found


@pytest.mark.parametrize(
    ("c", "options"),
    [
        (1, {}),
        (3, {}),
        (1, {"shift": 0}),
        (1, {"shift": 2, "mirrored": False}),
        (1, {"same": True}),
    ],
)
def test_nearest_images_are_those_of_brute_force_in_blocks_of_any_size(c, options, monkeypatch):
    references = blobs(7, c, 16)
    images = references if options.get("same") else torch.cat([blobs(4, c, 16, seed=1), references[2:3].flip(-1)])
    expected = brute_force(images, references, **options)
    for queries, others in ((2, 3), (512, 4096), (3, 1)):
        monkeypatch.setattr(nearest_module, "BLOCK_QUERIES", queries)
        monkeypatch.setattr(nearest_module, "BLOCK_REFERENCES", others)
        nearest = nearest_image(images, references, **options)
        np.testing.assert_allclose(nearest.distance, [distance for distance, _, _ in expected], atol=1e-5)
        assert nearest.index.tolist() == [index for _, index, _ in expected]
        assert nearest.mirrored.tolist() == [mirrored for _, _, mirrored in expected]


@pytest.mark.parametrize("change", [name for name in CHANGES if "3/64" not in name and "5 degrees" not in name])
def test_a_changed_copy_is_found_and_told_from_every_other_image(change):
    references = blobs(40)
    copies = changed_copies(references[[3, 17, 31]], change)
    nearest, others = nearest_image(copies, references), nearest_image(blobs(3, seed=1), references)
    assert nearest.index.tolist() == [3, 17, 31]
    assert nearest.mirrored.tolist() == [change == "mirrored"] * 3
    assert nearest.distance.max() < 0.5 * others.distance.min()


def test_neither_brightness_nor_contrast_counts_and_one_grey_is_near_to_none():
    references = blobs(5)
    assert nearest_image(references // 2 + 20, references).distance.max() < 1e-3
    grey = torch.full((2, 1, 64, 64), 137, dtype=torch.uint8)
    assert nearest_image(grey, torch.cat([references, grey])).distance.min() > 0.9


def test_large_images_are_compared_at_64_px(monkeypatch):
    monkeypatch.setattr(nearest_module, "CHUNK_LARGE", 2)
    images, references = blobs(3, seed=1), blobs(5)
    large = [some.repeat_interleave(2, 2).repeat_interleave(2, 3) for some in (images, references)]
    torch.testing.assert_close(nearest_image(*large).distance, nearest_image(images, references).distance)


def test_what_cannot_be_looked_up_is_refused():
    with pytest.raises(SamganError, match="cannot compare"):
        nearest_image(blobs(2), blobs(2, size=32))
    with pytest.raises(SamganError, match="cannot compare"):
        nearest_image(blobs(1), blobs(1), same=True)
    with pytest.raises(SamganError, match="cannot compare"):
        nearest_features(torch.zeros(2, 3), torch.zeros(2, 4))


def test_nothing_is_nearest_to_no_features():
    nearest = nearest_features(torch.zeros(0, 3), torch.zeros(2, 3))
    assert len(nearest.distance) == len(nearest.index) == len(nearest.mirrored) == 0


def test_nearest_features_are_those_of_scipy(monkeypatch):
    monkeypatch.setattr(nearest_module, "BLOCK_QUERIES", 7)
    random = torch.Generator().manual_seed(0)
    references = 1000 + torch.randn(50, 8, generator=random)  # far from the origin, where squares cancel
    features = torch.cat([1000 + torch.randn(20, 8, generator=random), references[[4, 9]]])
    distances = cdist(features.double(), references.double())
    nearest = nearest_features(features, references)
    np.testing.assert_allclose(nearest.distance, distances.min(axis=1), rtol=1e-6)
    assert nearest.index.tolist() == distances.argmin(axis=1).tolist()
    assert nearest.distance[-2:].tolist() == [0, 0]
    assert not nearest.mirrored.any()


def test_near_copies_are_left_out_in_order(monkeypatch):
    images = blobs(60, size=32)
    for copy, original in ((10, 3), (11, 10), (40, 3), (59, 41)):
        images[copy] = images[original]
    images[50] = changed_copies(images[20:21], "brighter, less contrast")[0]
    images[51] = images[21].flip(-1)
    expected = list(range(60))
    for copy, original in ((10, 3), (11, 3), (40, 3), (59, 41), (50, 20), (51, 21)):
        expected[copy] = original
    for block in (8, 512):
        monkeypatch.setattr(nearest_module, "BLOCK_QUERIES", block)
        assert first_alike(images).tolist() == expected
    expected[51] = 51
    assert first_alike(images, mirrored=False).tolist() == expected
    assert first_alike(images[:1].expand(30, -1, -1, -1)).tolist() == [0] * 30


def test_what_is_kept_is_apart_and_what_is_left_out_is_like_its_original(monkeypatch):
    monkeypatch.setattr(nearest_module, "BLOCK_QUERIES", 16)
    images = blobs(50, size=16)
    place = first_alike(images, distance=0.6)  # of these, many are that near
    kept = torch.unique(place)
    assert 5 < len(kept) < 45
    assert nearest_image(images[kept], images[kept], shift=0, same=True).distance.min() >= 0.6
    for index in set(range(50)) - set(kept.tolist()):
        pair = images[[index, int(place[index])]]
        assert nearest_image(pair[:1], pair[1:], shift=0).distance < 0.6
        assert place[index] < index
