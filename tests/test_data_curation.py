"""Duplicates, patients, and a split that keeps patients together."""

import io
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import scipy.fft
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from samgan.data import curation, phantoms
from samgan.data.curation import (
    CORRELATION,
    HASH_DISTANCE_BITS,
    connected_groups,
    duplicates_of_first,
    near_duplicates,
    patients_from_names,
    perceptual_hashes,
    split_by_group,
)
from samgan.errors import UsageError


@pytest.fixture(scope="module")
def pictures():
    return [Image.fromarray(image[0]) for image in phantoms(12, 128, seed=3, pneumonia=True)]


def thumbnails(images):
    return np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BOX)) for image in images])


def test_duplicates_point_to_the_first():
    assert duplicates_of_first(["a", "b", "a", "c", "b", "a"]).tolist() == [0, 1, 0, 3, 1, 0]


def test_hash_is_the_sign_of_the_lowest_dct_coefficients(pictures):
    images = thumbnails(pictures)
    for image, hashed in zip(images, perceptual_hashes(images), strict=True):
        low = scipy.fft.dctn(image.astype(float), type=2)[:8, :8].ravel()
        expected = low > np.median(low[1:])
        assert (hashed[1:] == expected[1:]).all()


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


CHANGES = {
    "compressed": lambda image: jpeg(image, 20),
    "half size": lambda image: image.resize((64, 64), Image.Resampling.LANCZOS),
    "double size": lambda image: image.resize((256, 256), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "shifted by a pixel": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_copy_is_a_near_duplicate_of_its_original_alone(pictures, name):
    count = len(pictures)
    both = thumbnails([*pictures, *(CHANGES[name](image) for image in pictures)])
    found = near_duplicates(both)
    assert found.first.tolist() == [-1] * count + list(range(count))
    assert found.group.tolist() == [*range(count)] * 2


def test_different_and_constant_images_are_not_near(pictures):
    different = thumbnails([*pictures, *(picture.rotate(180) for picture in pictures)])
    constant = np.stack([np.full((32, 32), shade, dtype=np.uint8) for shade in range(5)])
    for images in (different, constant):
        found = near_duplicates(images)
        assert (found.first == -1).all()
        assert found.group.tolist() == list(range(len(images)))


def test_near_duplicates_are_found_across_blocks():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4500, 8, 8), dtype=np.uint8)
    images[4321] = images[17]
    images[2500] = images[17]
    found = near_duplicates(images)
    assert {index: found.first[index] for index in np.flatnonzero(found.first >= 0)} == {2500: 17, 4321: 17}
    assert np.flatnonzero(found.group == 17).tolist() == [17, 2500, 4321]


def plain_near_duplicates(images):
    """Every pair by itself: the first near duplicate of each image, and the groups that the pairs join."""
    hashes = perceptual_hashes(images)
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    correlations = flat @ flat.T
    assume((abs(correlations - CORRELATION) > 1e-5).all())  # single precision may decide such a pair otherwise
    first, pairs = [-1] * len(images), []
    for later in range(len(images)):
        for earlier in range(later):
            differing = (hashes[earlier] != hashes[later]).sum()
            if differing <= HASH_DISTANCE_BITS and correlations[earlier, later] >= CORRELATION:
                pairs.append((earlier, later))
                first[later] = earlier if first[later] < 0 else first[later]
    group = list(range(len(images)))
    for earlier, later in pairs:
        low, high = sorted((group[earlier], group[later]))
        group = [low if number == high else number for number in group]
    return first, group


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 5), min_size=1, max_size=40),
    st.sampled_from([0.0, 3.0, 8.0, 14.0]),
    st.sampled_from([1, 50]),
)
def test_streamed_near_duplicates_are_those_of_all_pairs(seed, originals, noise, many):
    """Chains of alike images, over the borders of blocks, by single sums and by one product."""
    rng = np.random.default_rng(seed)
    smooth = phantoms(6, 16, seed=3, pneumonia=True)[:, 0].astype(float)
    images = [smooth[number] + rng.normal(0, noise, (16, 16)) for number in originals]
    walk = [images[0] + step * 0.05 * (smooth[1] - images[0]) for step in range(12)]
    images = np.clip(np.rint([*images, *walk]), 0, 255).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("BLOCK", 7), ("PAIRS_AT_ONCE", 5), ("MANY_PAIRS", many)):
            patch.setattr(curation, name, value)
        found = near_duplicates(images)
    assert (found.first.tolist(), found.group.tolist()) == plain_near_duplicates(images)


def test_thousands_of_alike_images_need_no_gigabytes():
    """3,000 of them have 4.5 million pairs, which would take a gigabyte as a list."""
    rng = np.random.default_rng(0)
    original = phantoms(1, 32, pneumonia=True)[0, 0]
    images = np.clip(original + rng.integers(-4, 5, (3000, 32, 32)), 0, 255).astype(np.uint8)
    tracemalloc.start()
    found = near_duplicates(images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.group == 0).all()
    assert (found.first[1:] == 0).all()
    assert peak < 100e6


@pytest.mark.parametrize(
    ("path", "patient"),
    [
        ("PNEUMONIA/person123_bacteria_456.jpeg", "person123"),
        ("person7_virus_8.png", "person7"),
        ("NORMAL/IM-0115-0001.jpeg", "IM-0115"),
        ("NORMAL/NORMAL2-IM-0115-0001.jpeg", "IM-0115"),
        ("NORMAL/NORMAL2-IM-0587-0001-0002.jpeg", "IM-0587"),
        ("NORMAL/phantom0012_1.png", "phantom0012"),
        ("images/00000001_003.png", "00000001"),
        ("COVID/COVID-12.png", ""),
        ("person12_dir/scan.png", ""),
        ("superperson12_1.png", ""),
    ],
)
def test_default_pattern_knows_the_public_namings(path, patient):
    assert patients_from_names([path]) == [patient]


def test_pattern_takes_its_first_non_empty_group_anywhere_in_the_path():
    pattern = r"(?:study(\d+)|(p\d+))/"
    assert patients_from_names(["A/p12/x.png", "A/study3/y.png", "A/z.png"], pattern) == ["p12", "3", ""]


@pytest.mark.parametrize(("pattern", "message"), [("(", "not a valid regular expression"), (r"p\d+", "has no group")])
def test_unusable_pattern_is_refused(pattern, message):
    with pytest.raises(UsageError, match=message):
        patients_from_names([], pattern)


def test_groups_join_patients_and_chains_of_duplicates():
    groups = connected_groups(["a", "b", "a", "c", "d", "e"], [(2, 3), (3, 4)])
    assert groups[0] == groups[2] == groups[3] == groups[4]
    assert len({groups[0], groups[1], groups[5]}) == 3


names = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["person{}_bacteria_{}.png", "IM-{:04d}-{}.png", "x{}y{}.png"])),
    min_size=2,
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(names, st.randoms(use_true_random=False), st.floats(0, 0.9), st.integers(0, 5))
def test_split_keeps_patients_together_and_ignores_the_order_of_files(parts, random, holdout, seed):
    paths = [template.format(number, index) for index, (number, template) in enumerate(parts)]
    classes = {path: random.choice("AB") for path in paths}

    def split(paths):
        told = patients_from_names(paths)
        patients = [patient or path for patient, path in zip(told, paths, strict=True)]
        splits = split_by_group(
            connected_groups(patients, []), patients, [classes[path] for path in paths], holdout, seed
        )
        return dict(zip(paths, splits, strict=True)), dict(zip(paths, patients, strict=True))

    splits, patients = split(paths)
    by_patient = {}
    for path, patient in patients.items():
        by_patient.setdefault(patient, set()).add(splits[path])
    assert all(len(sides) == 1 for sides in by_patient.values())
    assert "train" in splits.values()
    if len(by_patient) > 1 and holdout > 0:
        assert "holdout" in splits.values()
    if holdout == 0:
        assert set(splits.values()) == {"train"}
    shuffled = list(paths)
    random.shuffle(shuffled)
    assert split(shuffled)[0] == splits


@pytest.mark.parametrize("holdout", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_every_class_gets_its_share(holdout, seed):
    rng = np.random.default_rng(seed)
    patients = [f"p{patient}" for patient in rng.integers(0, 300, 1000)]
    classes = rng.choice(["rare", "common"], 1000, p=[0.05, 0.95]).tolist()
    splits = split_by_group(connected_groups(patients, []), patients, classes, holdout, seed)
    total, held = Counter(classes), Counter(zip(classes, splits, strict=True))
    for name in total:
        assert held[name, "holdout"] == pytest.approx(holdout * total[name], abs=max(1.5, 0.01 * total[name]))


def test_another_seed_gives_another_split():
    patients = [f"p{number}" for number in range(100)]
    splits = [tuple(split_by_group(range(100), patients, ["A"] * 100, 0.2, seed)) for seed in range(5)]
    assert len(set(splits)) == 5
