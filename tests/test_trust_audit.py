"""Planted copies are found, new patients raise no alarm, and what cannot be looked at is said."""

import dataclasses
import importlib
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from samgan import api
from samgan.commands.main import main
from samgan.data import prepare
from samgan.data.phantom import phantoms, write_phantoms
from samgan.data.subset import subset
from samgan.errors import SamganError, UsageError
from samgan.metrics.feature_networks import FeaturesUnavailable
from samgan.metrics.features import FeatureExtractor
from samgan.metrics.planted import changed_copies
from samgan.runs import Run, record_best
from samgan.sampling import load_model
from samgan.trust import AuditDocument, audit, format_audit
from samgan.trust.real_images import RealImages

module = importlib.import_module("samgan.trust.auditing")

COUNT, PLANTED = 150, 20


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 260, resolution=32)
    return prepare(folder / "images", folder / "data", resolution=32, holdout=0.4, workers=1)


@pytest.fixture(scope="module")
def fresh():
    """Phantoms of patients who are not in the set, both classes."""
    return np.concatenate([phantoms(COUNT // 2, 32, pneumonia=which, first=5000) for which in (False, True)])


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def unavailable(*_, **__):
        raise FeaturesUnavailable("no weights here")

    monkeypatch.setattr("samgan.metrics.load_features.load_features", unavailable)


def audited(images, data, tmp_path, **more):
    np.save(tmp_path / "images.npy", images)
    document, page = audit(tmp_path / "images.npy", data, out=tmp_path / "out", device="cpu", **more)
    assert AuditDocument.read(tmp_path / "out" / "audit.json") == document
    return document, page


def test_new_patients_raise_no_alarm(data, fresh, tmp_path):
    document, page = audited(fresh, data, tmp_path)
    assert document.signs == ()
    assert document.verdict.startswith("No sign of memorisation")
    assert document.pixels.closer.count <= 7  # 1.5 are expected of 150
    shares = [pair.farther for pair in document.pixels.pairs]
    assert shares == sorted(shares, reverse=True)
    assert 0.5 < shares[0] <= 1
    with Image.open(page.with_name(document.images.file)) as opened:
        kept = np.asarray(opened)
        assert "SYNTHETIC" in opened.text["Description"]
    assert list(document.images.places) == sorted({pair.place for pair in document.pixels.pairs[:16]})
    assert (kept[:32, :32] == fresh[document.images.places[0], 0]).all()
    assert "No sign of memorisation" in page.read_text()
    assert [skipped.what for skipped in document.skipped] == [
        "nearest images by features",
        "membership by the discriminator",
    ]
    assert "no weights here" in format_audit(document)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_patients_raise_no_alarm_but_training_patients_do(data, tmp_path, seed):
    """Half of the held-out patients in the place of synthetic images, the other half to compare with."""
    held_out = np.random.default_rng(seed).permutation(data.indices("holdout"))
    aside = sorted(held_out[: len(held_out) // 2].tolist())
    rows = [
        dataclasses.replace(row, split="aside") if index in aside else row for index, row in enumerate(data.manifest)
    ]
    assert len(aside) > 90
    rest = dataclasses.replace(data, manifest=rows)
    document, _ = audited(np.asarray(data.images[aside]), rest, tmp_path)
    assert document.signs == ()
    document, _ = audited(data.select("train")[: len(aside)], rest, tmp_path)
    assert document.signs == ("copies", "pixels.closer", "pixels.nearest_is_training")


def test_one_copy_among_many_images_is_a_sign(data, fresh, tmp_path):
    """Chance would put as many below the 1st percentile, but not at no distance at all."""
    copied = data.indices("train")[3]
    document, _ = audited(np.concatenate([fresh[::3], data.images[[copied]]]), data, tmp_path)
    assert document.signs == ("copies",)
    assert document.verdict.startswith("Signs of memorisation: 1 image is a copy (of 51; ")
    assert (document.pixels.pairs[0].place, document.pixels.pairs[0].training) == (50, copied)
    assert document.exceeds(1.0)


def test_real_images_that_are_as_close_as_copies_are_none_by_chance(data, fresh, tmp_path):
    """In sets whose patients are not known, new images can be closer than 0.02, and one of all is the closest."""
    document, _ = audited(fresh, data, tmp_path)
    pixels, pair = document.pixels, document.pixels.pairs[0]

    def copies(distances, held_out):
        pairs = tuple(dataclasses.replace(pair, distance=distance) for distance in distances)
        spread = dataclasses.replace(
            pixels.distances, held_out=dataclasses.replace(pixels.distances.held_out, least=held_out)
        )
        return dataclasses.replace(document, pixels=dataclasses.replace(pixels, pairs=pairs, distances=spread)).copies

    every, others = document.counts.synthetic, document.counts.held_out.images
    enough = next(k for k in range(1, 99) if math.prod((every - j) / (every + others - j) for j in range(k)) < 0.025)
    assert enough > 2
    assert copies([0.005] * (enough - 1), 0.01) == 0
    assert copies([0.005] * enough, 0.01) == enough
    assert copies([0.0005, 0.005], 0.01) == 1
    assert copies([0.0005] * enough, 0.0001) == 0  # a held-out image is closer


def test_held_out_near_duplicates_of_training_images_set_no_threshold(data, fresh, tmp_path):
    """As from a source's own split; the k-th closest of them would be at no distance."""
    rows, images = list(data.manifest), np.array(data.images)
    of_class = [[data.indices(split, [name])[:3] for split in ("holdout", "train")] for name in data.classes]
    for held_out, training in np.concatenate(of_class, axis=1).T:
        images[held_out] = images[training]
        rows[held_out] = dataclasses.replace(rows[held_out], near_duplicate_of=int(training))
    leaky = dataclasses.replace(data, manifest=rows, images=images)
    noisy = changed_copies(torch.from_numpy(data.select("train")[:COUNT]), "noise, sd 10 of 255").numpy()
    document, _ = audited(noisy, leaky, tmp_path)
    assert document.counts.held_out.images == len(data.indices("holdout")) - 6
    assert "pixels.closer" in document.signs
    assert any(note.startswith("6 held-out images are left out") for note in document.notes)
    unknown = [dataclasses.replace(row, near_duplicate_of=None) for row in rows]
    document, _ = audited(noisy, dataclasses.replace(leaky, manifest=unknown), tmp_path)
    assert document.pixels.closer.count == 0
    assert document.verdict.startswith("This audit could not have found copies")


def test_what_is_close_by_features_only_is_found_and_shown(data, fresh, tmp_path, monkeypatch):
    """The feature is the mean grey: an image that looks like no other one has that of a training image."""

    def network(images):
        return images.float().mean(dim=(1, 2, 3))[:, None]

    extractor = FeatureExtractor(network, name="mean grey", sha256="ab" * 32, device=torch.device("cpu"))
    monkeypatch.setattr(module, "choose_features", lambda *_, **__: (extractor, ""))
    noise = np.random.default_rng(0).permuted(data.select("train")[:PLANTED].reshape(PLANTED, -1), axis=1)
    document, page = audited(np.concatenate([fresh, noise.reshape(PLANTED, 1, 32, 32)]), data, tmp_path)
    assert document.features.name == "mean grey"
    assert document.features.closer.found
    assert not document.pixels.closer.found
    pairs = document.features.pairs
    assert set(range(COUNT, COUNT + PLANTED)) <= {pair.place for pair in pairs}
    assert len(pairs) >= document.features.closer.count >= PLANTED
    assert "closest to a training image, by mean grey features" in page.read_text()


@pytest.mark.parametrize("mirrored", [False, True])
def test_planted_copies_are_all_found(data, fresh, tmp_path, mirrored):
    training = data.indices("train")[::5][:PLANTED]
    copies = np.asarray(data.images[training])
    copies = copies[..., ::-1] if mirrored else copies
    document, page = audited(np.concatenate([fresh, copies]), data, tmp_path)
    assert "pixels.closer" in document.signs
    assert document.verdict.startswith("Signs of memorisation")
    closest = document.pixels.pairs[:PLANTED]
    assert sorted(pair.training for pair in closest) == training.tolist()
    assert {pair.place for pair in closest} == set(range(COUNT, COUNT + PLANTED))
    assert all(pair.mirrored == mirrored for pair in closest)
    assert document.pixels.closer.count >= PLANTED
    assert document.pixels.planted["exact"] == 1
    words = page.read_text()
    assert "REAL training image" in words
    assert "contains REAL training and held-out images" in words


def halves(count, seed, bright_above):
    """Noise that is brighter above or below: an image is always nearest to one of its own class."""
    images = np.random.default_rng(seed).integers(0, 120, (count, 1, 32, 32), dtype=np.uint8)
    images[:, :, 16 * (not bright_above) :][:, :, :16] += 100
    return images


def test_classes_in_other_shares_among_held_out_images_are_no_sign(tmp_path, monkeypatch):
    """Of 40 training images 4 are of one class, of 104 held-out ones 80: those have nothing to be close to."""
    for seed, (name, count) in enumerate({"ABOVE": 200, "BELOW": 60}.items()):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number, image in enumerate(halves(count, seed, name == "ABOVE")):
            Image.fromarray(image[0]).save(tmp_path / "images" / name / f"{number}.png")
    whole = prepare(tmp_path / "images", tmp_path / "whole", resolution=32, holdout=0.4, workers=1)
    few = subset(whole, tmp_path / "few", images={"ABOVE": 4})
    fresh = np.concatenate([halves(24, 2, True), halves(216, 3, False)])
    document, _ = audited(fresh, few, tmp_path)
    assert (document.counts.training.images, document.counts.held_out.images) == (40, 24 + 3)
    assert document.signs == ()
    assert any("as give the classes the same shares" in note for note in document.notes)
    monkeypatch.setattr(RealImages, "with_shares_of", lambda self, other: self)
    document, _ = audited(fresh, few, tmp_path)
    assert document.signs == ("pixels.closer",), "otherwise nothing is tested above"


def test_a_page_may_be_without_pictures(data, fresh, tmp_path):
    _, page = audited(fresh, data, tmp_path, pictures=False)
    words = page.read_text()
    assert "data:image" not in words.replace("data:,", "")
    assert "This page shows no images" in words


@pytest.fixture(scope="module", params=[0, 2], ids=["unconditional", "with class labels"])
def run(request, data, tiny_config, tmp_path_factory):
    config = tiny_config.override({"network.num_classes": request.param, "training.kimg": 0.008, "data.flip": "random"})
    return api.train(config, data, tmp_path_factory.mktemp("run") / "run", device="cpu", quiet=True)


@pytest.mark.filterwarnings("ignore")
def test_of_a_run_the_discriminator_is_asked_too(run, data, tmp_path):
    document, _ = audit(run.path, data, out=tmp_path, count=40, device="cpu")
    membership = document.membership
    assert membership.images == len(data.indices("holdout"))
    assert 0 <= membership.auc.low <= membership.auc.value <= membership.auc.high <= 1
    assert document.generated.model_sha256
    assert document.mirrored.trained_with_flips is True
    assert not any("the best quick scores" in note for note in document.notes)
    record_best(Run.open(run.path), Run.open(run.path).checkpoints()[-1], "quick_score", 1.0)
    document, _ = audit(run.path, data, out=tmp_path, count=40, checkpoint="best", device="cpu")
    assert any("the best quick scores" in note for note in document.notes)
    model = load_model(run)
    for pair in document.pixels.pairs:
        seed, *of_class = re.fullmatch("seed ([0-9]+)(?:, class (NORMAL|PNEUMONIA))?", pair.image).groups()
        assert (int(seed), bool(of_class[0])) == (pair.place, bool(model.classes))
        if of_class[0]:  # classes are in the order of the training set, not in turn
            assert (of_class[0] == "PNEUMONIA") == (pair.place >= 20)
    one_class, _ = audit(run.path, data, out=tmp_path, count=40, classes=["NORMAL"], device="cpu")
    assert one_class.counts.training.images == len(data.indices("train", ["NORMAL"]))
    exported = api.export(run.path, tmp_path / "model.safetensors")
    document, _ = audit(tmp_path / "model.safetensors", data, out=tmp_path, count=40, device="cpu")
    assert document.generated.model_sha256 == exported.sha256
    assert document.membership is None


@pytest.mark.filterwarnings("ignore")
def test_an_attack_takes_images_of_high_logits_for_training_images(run, data, tmp_path, monkeypatch):
    known = {image.tobytes() for image in data.select("train")}
    side = 1.0

    def judged(discriminator, config, members, others, *_):
        return tuple(
            torch.tensor([[side * (image.numpy().tobytes() in known)] for image in images])
            for images in (members, others)
        )

    monkeypatch.setattr("samgan.trust.membership.judge", judged)
    found, _ = audit(run.path, data, out=tmp_path, count=40, device="cpu")
    assert found.membership.auc.value == 1
    assert "membership" in found.signs
    assert "tells training images from held-out ones" in found.verdict
    side = -1.0
    found, _ = audit(run.path, data, out=tmp_path, count=40, device="cpu")
    assert found.membership.auc.value == 0
    assert "membership" in found.signs
    assert "by lower logits" in found.verdict


def test_mirrored_hearts_are_counted(data, tmp_path):
    training = data.select("train")
    turned = training[: len(training) // 2].copy()
    turned[::4] = turned[::4, :, :, ::-1]
    document, _ = audited(turned, data, tmp_path)
    assert document.mirrored.synthetic.value == pytest.approx(0.25, abs=0.05)
    assert document.mirrored.held_out.value < 0.05


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_other_data_is_refused(run, data, tmp_path):
    other = subset(data, tmp_path / "other", images={"NORMAL": 50})
    with pytest.raises(UsageError, match="was trained on other data"):
        audit(run.path, other, device="cpu")


def test_the_command(data, fresh, tmp_path, capsys):
    np.save(tmp_path / "images.npy", np.concatenate([fresh, data.select("train")[:PLANTED]]))
    command = ["audit", str(tmp_path / "images.npy"), "--data", str(data.path), "--device", "cpu"]
    assert main(command) == 0
    assert "Signs of memorisation" in capsys.readouterr().out
    assert (tmp_path / "images-audit" / "audit.html").exists()
    assert main([*command, "--fail-above", "1", "--no-pictures"]) == 1, "copies are too many, however few"
    np.save(tmp_path / "images.npy", fresh)
    assert main([*command, "--fail-above", "0", "--no-pictures"]) == 1
    assert main([*command, "--fail-above", "0.5", "--no-pictures"]) == 0
    capsys.readouterr()
    assert main([*command, "--fail-above", "1.5"]) == 2
    assert "--fail-above 1.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"count": 3}, UsageError, "--count 3"),
        ({"seed": -1}, UsageError, "--seed -1"),
        ({"checkpoint": "best"}, UsageError, "is not a run folder"),
        ({"classes": ["HEART"]}, UsageError, "unknown class HEART"),
        ({"features": "nothing.pt"}, FeaturesUnavailable, "no weights here"),
    ],
)
def test_what_does_not_fit_is_refused(data, fresh, tmp_path, change, error, words):
    with pytest.raises(error, match=words):
        audited(fresh, data, tmp_path, **change)


def test_images_of_another_size_are_refused(data, tmp_path):
    with pytest.raises(SamganError, match="expected at least 8 images of shape"):
        audit(np.zeros((20, 1, 64, 64), np.uint8), data, out=tmp_path, device="cpu")


@pytest.mark.parametrize("change", [np.float32, np.uint16, lambda images: images[:, 0]])
def test_arrays_that_are_not_uint8_images_are_refused(data, fresh, tmp_path, change):
    images = change(fresh)
    with pytest.raises(SamganError, match=r"expected uint8 images \[n c h w\], got"):
        audit(images, data, out=tmp_path, device="cpu")


def test_images_in_memory_are_audited_like_those_of_a_file(data, fresh, tmp_path):
    of_file, _ = audited(fresh, data, tmp_path, count=50, seed=3)
    in_memory, page = audit(fresh, data, out=tmp_path / "memory", count=50, seed=3, device="cpu")
    assert page == tmp_path / "memory" / "audit.html"
    assert in_memory.generated.name == "images"
    words = {name: getattr(of_file, name) for name in ("generated", "notes", "skipped")}  # these name the source
    assert dataclasses.replace(in_memory, **words) == of_file
    with pytest.raises(UsageError, match="images in memory have no folder"):
        audit(fresh, data, device="cpu")


def test_a_set_without_held_out_images_gives_nothing_to_compare_with(data, fresh, tmp_path):
    none = dataclasses.replace(data, manifest=[dataclasses.replace(row, split="train") for row in data.manifest])
    with pytest.raises(SamganError, match="samgan prepare --holdout"):
        audited(fresh, none, tmp_path)


def test_a_seed_of_numpy_is_taken(data, fresh, tmp_path):
    document, _ = audited(fresh, data, tmp_path, seed=np.int64(3))
    assert type(document.seed) is int
    assert document.seed == 3
