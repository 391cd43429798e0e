"""Truncation: styles nearer to their mean make images nearer to the mean one, and every image says so."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

from samgan import api
from samgan.commands.main import main
from samgan.errors import SamganError, UsageError
from samgan.networks import Generator
from samgan.pictures import to_uint8, write_png
from samgan.presets import preset_config
from samgan.provenance import Mark, read_samples
from samgan.runs import Run, save_checkpoint
from samgan.sampling import (
    generate,
    interpolate,
    latents_of_seeds,
    load_model,
    sample,
    sample_batches,
    truncated,
    write_model,
)
from samgan.sampling.images import MEAN_SEEDS
from samgan.sampling.sheet_names import SHEET_NAMES
from samgan.sampling.sheets import SHEETS


def run_of(path, preset="samgan-plus", side=32, classes=("a", "b"), **network):
    settings = {"max_channels": max(16, side // 8), "channel_base": 8 * side, "num_classes": len(classes), **network}
    config = preset_config(preset, "cpu", side).override({"network": settings, "data.classes": list(classes)})
    run = Run.create(path, config)
    torch.manual_seed(1)
    weights = Generator(config.network).state_dict()
    for name, value in weights.items():
        if name.endswith("noise"):
            value.fill_(0.1)
    state = {"config": config.to_dict(), "step": 1, "images_seen": 8}
    save_checkpoint(run.checkpoint_path(1), {**state, "generator": weights, "ema_generator": weights})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("truncation") / "run")


@pytest.fixture(scope="module")
def model(run):
    return load_model(run)


def spread(images):
    return images.std(dim=0).mean().item()


def test_less_is_less_varied_and_one_changes_nothing(model):
    labels = torch.zeros(16, dtype=torch.long)
    spreads = [spread(sample(truncated(model, psi), range(16), labels)) for psi in (0.0, 0.3, 0.7, 1.0)]
    assert spreads == sorted(spreads)
    assert spreads[2] < 0.9 * spreads[3]
    assert truncated(model, 1.0) is model


def test_a_style_moves_towards_the_mean_of_its_class(model):
    """Written out: the mapping of [z, e_y], its mean over fixed seeds, and a straight line between."""
    generator = model.generator
    z = torch.nn.functional.normalize(latents_of_seeds(range(MEAN_SEEDS), generator.latent_size), dim=1)
    z = z * generator.latent_size**0.5

    def styles(latents, label):
        table = torch.nn.functional.normalize(generator.embed.weight, dim=1) * generator.latent_size**0.5
        x = torch.cat([latents, table[label].expand(len(latents), -1)], dim=1)
        for layer in generator.mapping:
            x = torch.nn.functional.linear(x, layer.effective_weight().flatten(1), layer.bias)
            x = torch.nn.functional.leaky_relu(x, 0.2)
        return x

    means = torch.stack([styles(z, label).mean(dim=0) for label in (0, 1)])
    psi, found = truncated(model, 0.25).generator.truncation
    assert psi == 0.25
    torch.testing.assert_close(found.flatten(1), means, rtol=1e-4, atol=1e-5)
    seen = []
    hook = generator.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2][0][0]))
    labels = torch.tensor([0, 1, 1])
    truncated(model, 0.25).generator(latents_of_seeds(range(3), generator.latent_size), labels)
    hook.remove()
    own = torch.cat([styles(z[[i]], label) for i, label in enumerate(labels)])
    moved = means[labels] + 0.25 * (own - means[labels])
    weight, bias = generator.modulated[0].style.operands()
    expected = 1 + torch.nn.functional.linear(moved, weight.flatten(1), bias)
    torch.testing.assert_close(seen[0], expected, rtol=1e-3, atol=1e-4)


def test_the_model_itself_stays_as_it_is(model):
    before = sample(model, range(3))
    other = truncated(model, 0.5)
    assert not torch.equal(sample(other, range(3)), before)
    assert torch.equal(sample(model, range(3)), before)
    assert (model.truncation, other.truncation) == (1.0, 0.5)
    assert other.sha256 == model.sha256
    assert other.generator.blocks is model.generator.blocks  # no second copy of the weights


def test_no_file_takes_a_truncated_model(model, tmp_path):
    with pytest.raises(UsageError, match=r"expected a model without truncation, found one of 0\.5"):
        write_model(truncated(model, 0.5), tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_images_in_batches_can_be_learnt_from(model):
    _, images = next(sample_batches(model, [1, 2]))
    assert not images.is_inference()
    layer = torch.nn.Conv2d(images.shape[1], 1, 3)
    layer(images).sum().backward()
    assert layer.weight.grad is not None


def test_sheets_show_truncated_images(model):
    other, labels = truncated(model, 0.3), torch.tensor([0, 1] * 4)
    for name in ("grid", "interpolation", "scales"):
        assert not np.array_equal(SHEETS[name](other, range(8), labels), SHEETS[name](model, range(8), labels))


@pytest.mark.parametrize("psi", [-0.1, 1.5, float("nan")])
def test_what_is_no_truncation_is_refused(model, psi):
    with pytest.raises(UsageError, match=r"--truncation .*: expected a number from 0 \(the mean style\) to 1"):
        truncated(model, psi)


@pytest.mark.parametrize(
    ("preset", "network"), [("r3gan", {}), ("samgan-8", {"channel_base": None}), ("samgan-plus", {"mapping_layers": 0})]
)
def test_a_generator_without_styles_says_what_to_do(preset, network, tmp_path):
    model = load_model(run_of(tmp_path / "run", preset, classes=(), **network))
    assert truncated(model, 1.0) is model
    with pytest.raises(UsageError, match=r"^--truncation 0\.7: .* has no styles .*; leave --truncation out, or take"):
        truncated(model, 0.7)


@pytest.mark.parametrize("file_format", ["png", "dicom16", "npz", "medmnist", "imagefolder"])
def test_truncated_images_are_made_again_from_their_marks(run, tmp_path, file_format):
    for name, psi in (("whole", 1.0), ("some", 0.7), ("mean", 0.0)):
        written = api.sample(run.path, tmp_path / name, 4, file_format=file_format, truncation=psi, device="cpu")
        document = json.loads((tmp_path / name / "samples.json").read_text())
        assert document == written.to_dict()
        assert document.get("Truncation") == {1.0: None, 0.7: "0.7", 0.0: "0.0"}[psi]
        assert document["classes"] == {"a": 2, "b": 2}  # as many images of each class
    files = sorted(path for path in tmp_path.rglob("*") if path.suffix in (".png", ".dcm", ".npz"))
    findings = api.verify(files, run.path, device="cpu")
    assert api.verify(str(files[0]), run.path, device="cpu") == api.verify(files[:1], run.path, device="cpu")
    assert [finding.verdict for finding in findings] == ["regenerated"] * 12
    assert not any(finding.detail for finding in findings)
    assert [finding.mark.truncation for finding in findings] == [0.0] * 4 + [0.7] * 4 + [1.0] * 4


def test_a_false_truncation_is_noticed(run, tmp_path):
    api.sample(run.path, tmp_path / "out", 1, truncation=0.7, device="cpu")
    path = tmp_path / "out" / "seed-00000000.png"
    ((image, mark),) = read_samples(path)
    for psi in (1.0, 0.5):
        with open(path, "wb") as file:
            write_png(file, image, dataclasses.replace(mark, truncation=psi).of(image).entries())
        assert [finding.verdict for finding in api.verify([path], run.path, device="cpu")] == ["differs"]


def test_a_model_that_cannot_truncate_made_no_truncated_image(tmp_path):
    run = run_of(tmp_path / "run", "r3gan", classes=())
    api.sample(run.path, tmp_path / "out", 1, device="cpu")
    path = tmp_path / "out" / "seed-00000000.png"
    ((image, mark),) = read_samples(path)
    with open(path, "wb") as file:
        write_png(file, image, dataclasses.replace(mark, truncation=0.7).of(image).entries())
    (finding,) = api.verify([path], run.path, device="cpu")
    assert (finding.verdict, finding.detail) == ("altered", "the model makes no truncated images")


@pytest.mark.parametrize("value", ["2", "-1", "nan", "x", ""])
def test_a_damaged_truncation_is_refused(value):
    mark = Mark("0" * 64, "tiny", 8, 3, truncation=0.5)
    assert Mark.from_entries(mark.entries()) == mark
    with pytest.raises(SamganError, match="its mark is damaged"):
        Mark.from_entries({**mark.entries(), "Truncation": value})


def test_the_command_line(run, tmp_path, capsys):
    words = ["sample", str(run.path), "--count", "2", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "out"), "--truncation", "0.5"]) == 0
    expected = to_uint8(sample(truncated(load_model(run), 0.5), range(2))).numpy()
    for seed in range(2):
        with Image.open(tmp_path / "out" / f"seed-{seed:08d}.png") as image:
            assert np.array_equal(np.asarray(image), expected[seed, 0])
    assert main(["verify", str(tmp_path / "out" / "seed-00000000.png"), "--run", str(run.path)]) == 0
    assert "seed 0, class a, truncation 0.5: regenerated" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "no"), "--truncation", "7"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_alias_free_generator_has_styles_too(tmp_path):
    model = load_model(run_of(tmp_path / "run", "samgan-alias-free"))
    labels = torch.zeros(8, dtype=torch.long)
    assert spread(sample(truncated(model, 0.0), range(8), labels)) < 1e-5
    assert 0 < spread(sample(truncated(model, 0.5), range(8), labels)) < spread(sample(model, range(8), labels))


@pytest.mark.parametrize("side", [32, 64, 128, 256])
@pytest.mark.parametrize("preset", ["samgan-plus", "r3gan"])
def test_interpolation_at_each_size(side, preset, tmp_path):
    """From the image of one seed to that of the next, in rows of eight; each step is a small one."""
    model = load_model(run_of(tmp_path / "run", preset, side, classes=()))
    path = interpolate(model, [3, 8], 8)
    assert path.shape == (9, 1, side, side)
    torch.testing.assert_close(path[[0, 8]], sample(model, [3, 8]), rtol=1e-3, atol=1e-3)
    whole = (path[0] - path[8]).abs().mean()
    assert max((a - b).abs().mean() for a, b in itertools.pairwise(path)) < 0.7 * whole
    picture = SHEETS["interpolation"](model, range(3), None)
    assert picture.shape[0] == 1
    assert picture.shape[2] >= 8 * side


def test_pyramids_of_one_image_have_one_row_of_scales(tmp_path):
    model = load_model(run_of(tmp_path / "run", "r3gan", classes=()))
    (pyramid,) = generate(model.generator, latents_of_seeds(range(2), model.generator.latent_size))
    assert [images.shape for images in pyramid] == [(2, 1, 32, 32)]
    assert SHEETS["scales"](model, range(2), None).shape[1] < 2 * 32


def test_the_names_of_sheets_are_those_that_there_are():
    assert tuple(SHEETS) == SHEET_NAMES
