"""The built-in features: what they take, that they are what was validated, and what moves them."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from samgan.data import PreparedSet, prepare
from samgan.data.phantom import write_phantoms
from samgan.metrics.features import extract
from samgan.metrics.frechet import frechet_distance
from samgan.metrics.load_features import load_features
from samgan.metrics.prdc import prdc
from samgan.metrics.radiograph import SHA256
from samgan.metrics.weights_here import RADIOGRAPH_FILE

FOLDER = Path(__file__).parents[1] / "results" / "features"


@pytest.fixture(scope="module")
def extractor():
    return load_features("radiograph")


@pytest.fixture(scope="module")
def script():
    """The module of a script of results/features, by its name."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    sys.path.insert(0, str(FOLDER))  # where a script of this folder finds the others
    yield load
    sys.path.remove(str(FOLDER))


def random_images(*shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("size", [64, 100, 128, 256])
def test_images_of_any_size_from_64_px_get_256_features(extractor, size):
    features = extractor(random_images(3, 1, size, size))
    assert features.shape == (3, extractor.dim) == (3, 256)
    assert features.dtype == torch.float32


def test_features_do_not_depend_on_the_batch(extractor):
    images = random_images(5, 1, 64, 64)
    alone = torch.cat([extractor(image[None]) for image in images])
    torch.testing.assert_close(extractor(images), alone, rtol=1e-4, atol=1e-4)


def test_the_file_is_small_and_the_one_that_was_validated(extractor):
    assert RADIOGRAPH_FILE.stat().st_size < 3e6
    assert (extractor.name, extractor.sha256) == ("radiograph", SHA256)
    card = RADIOGRAPH_FILE.with_suffix(".md").read_text(encoding="utf-8")
    assert SHA256 in card
    assert SHA256[:8] in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_other_weights_are_named(tmp_path):
    weights = load_file(RADIOGRAPH_FILE)
    weights["squeeze.bias"] += 1
    save_file(weights, tmp_path / "other.safetensors")
    extractor = load_features("radiograph", features_file=tmp_path / "other.safetensors")
    assert extractor.name.startswith("radiograph (non-standard weights sha256:")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Two hundred phantoms of 64 px, in two halves; phantoms are drawn, so no licence is in the way."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 100, resolution=64)
    data = prepare(folder / "images", folder / "set", resolution=64, workers=1)
    images = torch.from_numpy(data.select(None))
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    return images[::2], images[1::2]


@pytest.mark.slow
def test_faults_move_the_scores_in_the_right_direction(extractor, script, phantoms):
    validate = script("validate")
    real, other = phantoms
    of_real = extract(extractor, real, cache=False)

    def features(what):
        images = validate.to_bytes(validate.PLANTED[what](other.float()))
        return extract(extractor, images, cache=False)

    def distance(what):
        return frechet_distance(of_real, features(what))

    floor = distance(validate.FLOOR)
    for weak, strong in (
        ("blur, sigma 0.5 px", "blur, sigma 2 px"),
        ("noise, std 3 of 255", "noise, std 10 of 255"),
        ("checkerboard, 1 of 255", "checkerboard, 4 of 255"),
        ("turned by 10 degrees", "turned by 90 degrees"),
        ("76 distinct images", "19 distinct images"),
    ):
        assert floor < distance(weak) < distance(strong), weak
    assert distance("mirrored") > 2 * floor
    assert prdc(of_real, features("19 distinct images")).recall < prdc(of_real, features(validate.FLOOR)).recall / 2


def test_batch_norms_are_merged_without_a_change(script):
    train = script("train")
    torch.manual_seed(0)
    trainee = train.Trainee(2)
    for layer in trainee.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.8, 1.2)
    trainee.eval()
    images = random_images(4, 1, 64, 64).float()
    with torch.inference_mode():
        expected = torch.cat(trainee(images, (0, 0)), 1)
        found = trainee.merged()(images / 127.5 - 1)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)  # training computes in bfloat16


def test_every_fault_that_is_taught_changes_an_image_and_says_how_much(script):
    faults = script("faults")
    image = torch.linspace(0, 255, 64 * 64).view(1, 1, 64, 64).roll(32, 3)
    for name, fault in faults.FAULTS.items():
        changes = []
        for strength in (0.0, 1.0):
            generator = torch.Generator().manual_seed(3)
            changed = fault(image, image.flip(3), strength, generator)
            assert changed.shape == image.shape
            changes.append(float((changed - image).abs().mean()))
        assert changes[1] > changes[0], name


def test_training_goes_on_where_it_stopped(script, tmp_path, monkeypatch):
    train = script("train")
    write_phantoms(tmp_path / "images", 10, resolution=64)
    prepare(tmp_path / "images", tmp_path / "set", resolution=64, workers=1)
    monkeypatch.setattr(train, "PICTURES", 2)
    monkeypatch.setattr(train, "EVERY", 1)
    torch.set_num_threads(1)

    def run(work, steps):
        monkeypatch.setattr(sys, "argv", ["train", str(tmp_path / "set"), str(tmp_path / work), "--steps", str(steps)])
        train.main()
        return (tmp_path / work / "radiograph-features.safetensors").read_bytes()

    straight = run("straight", 3)
    step_once = train.loss_of
    calls = []

    def stopped(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return step_once(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "loss_of", stopped)
        with pytest.raises(KeyboardInterrupt):
            run("stopped", 3)
    assert run("stopped", 3) == straight


def test_sets_that_are_compared_share_no_patient(script, tmp_path):
    validate = script("validate")
    write_phantoms(tmp_path / "images", 40, resolution=64)
    data = prepare(tmp_path / "images", tmp_path / "set", resolution=64, workers=1)
    assert isinstance(data, PreparedSet)
    validate.COUNT = 10
    reference, others = validate.halves(data, None, data.classes[0])
    assert not set(data.groups(reference)) & set(data.groups(others))


def test_the_readme_has_the_tables_of_the_committed_numbers(script):
    validate = script("validate")
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert validate.filled(text) == text
    with open(FOLDER / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["count"] for row in rows} == {str(validate.COUNT)}
    assert tuple(rows[0]) == validate.COLUMNS
    planted = {row["what"] for row in rows if (row["part"], row["set"]) == ("planted", "kermany")}
    assert set(validate.PLANTED) < planted
