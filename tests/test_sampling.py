"""Sampling: the same seed, the same bytes, whatever else is asked for; and files that say what they are."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import samgan.grids
import samgan.sampling.images
import samgan.sampling.sheets
from samgan import __version__
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.devices import make_fabric
from samgan.errors import SamganError, UsageError
from samgan.networks import Generator, SelfAttention
from samgan.pictures import SYNTHETIC, to_uint8
from samgan.provenance import hash_pixels
from samgan.runs import Environment, Run, Start, TrainedOn, load_checkpoint, save_checkpoint
from samgan.sampling import (
    FORWARD_BATCH,
    attention_sheet,
    check_origin,
    generate,
    hash_weights,
    interpolate,
    labels_like,
    latents_of_seeds,
    load_model,
    read_model,
    sample,
    scales_sheet,
    write_model,
    write_samples,
)
from samgan.training import Options, train_loop


def trained(folder, config, images):
    run = Run.create(folder, config)
    return run, train_loop(config, images, run, make_fabric("cpu"))


@pytest.fixture(scope="module")
def run_and_state(tiny_config, images, tmp_path_factory):
    config = tiny_config.override({"preset": "tiny", "training.kimg": 0.016})
    return trained(tmp_path_factory.mktemp("sampling") / "run", config, images)


@pytest.fixture(scope="module")
def model(run_and_state):
    model = load_model(run_and_state[0])
    for module in model.generator.modules():
        if isinstance(module, SelfAttention):
            module.gamma.fill_(0.5)
    return model


def pixels(model, seeds):
    return to_uint8(sample(model, seeds)).numpy()


def test_latents_are_standard_normal_and_belong_to_their_seed():
    latents = latents_of_seeds(range(400), 64)
    assert latents.mean().item() == pytest.approx(0, abs=0.02)
    assert latents.std().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(latents_of_seeds([5, 399, 5], 64), latents[[5, 399, 5]])
    assert len({tuple(row.tolist()) for row in latents}) == 400


def test_the_same_seed_gives_the_same_bytes_whatever_count_position_and_order(model):
    count = 2 * FORWARD_BATCH + 3
    all_images = pixels(model, range(count))
    assert all_images.shape == (count, 1, 32, 32)
    for seeds in ([7], [7, 66], [66, 7, 7], list(range(count))[::-1], range(30, 40), range(1, 34)):
        np.testing.assert_array_equal(pixels(model, seeds), all_images[list(seeds)])
    assert len({image.tobytes() for image in all_images}) == count


def test_every_pass_has_the_same_shape(model, monkeypatch):
    shapes = []
    forward = model.generator.forward
    monkeypatch.setattr(model.generator, "forward", lambda z, y: (shapes.append(tuple(z.shape)), forward(z, y))[1])
    pyramids = list(generate(model.generator, torch.randn(FORWARD_BATCH + 1, 8)))
    assert shapes == [(FORWARD_BATCH, 8)] * 2
    assert [[len(images) for images in pyramid] for pyramid in pyramids] == [[FORWARD_BATCH] * 4, [1] * 4]


def test_the_model_is_the_averaged_generator(run_and_state, tmp_path, tiny_config, images):
    run, state = run_and_state
    model = load_model(run)
    weights = state.ema_generator.state_dict()
    assert model.sha256 == hash_weights(weights) != hash_weights(state.generator.state_dict())
    assert (model.images_seen, model.config, model.device.type) == (16, run.config, "cpu")
    assert not any(p.requires_grad for p in model.generator.parameters())
    expected = next(generate(state.ema_generator, latents_of_seeds([3], 8)))[-1]
    assert torch.equal(sample(model, [3]), expected)

    config = tiny_config.override({"training": {"kimg": 0.004, "ema_halflife_kimg": 0}})
    run, state = trained(tmp_path / "run", config, images)
    assert load_model(run).sha256 == hash_weights(state.generator.state_dict())


def test_a_model_file_holds_the_model(run_and_state, tmp_path):
    model, path = load_model(run_and_state[0]), tmp_path / "model.safetensors"
    model = dataclasses.replace(model, trained_on=("abc", "def", "0"))
    write_model(model, path)
    other = read_model(path)
    assert (other.config, other.images_seen, other.sha256) == (model.config, model.images_seen, model.sha256)
    assert other.trained_on == model.trained_on
    assert not any(p.requires_grad for p in other.generator.parameters())
    assert torch.equal(sample(other, [3, 5]), sample(model, [3, 5]))
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["data_sha256"] == "abc"
        assert file.metadata()["started_on_data_sha256"] == "def 0"


def test_a_model_of_other_patients_is_refused_and_what_is_not_known_is_said(run_and_state, tmp_path):
    write_phantoms(tmp_path / "images", 4, resolution=32)
    data = prepare(tmp_path / "images", tmp_path / "data", resolution=32, workers=1)

    def notes(*trained_on):
        return check_origin(dataclasses.replace(load_model(run_and_state[0]), trained_on=trained_on), Path("run"), data)

    own, other = data.sha256, "f" * 64
    assert notes(own) == notes(own, own) == []
    with pytest.raises(UsageError, match="run was trained on other data than"):
        notes(other)
    for begun in ((own, other), (own, own, other)):
        assert "was fine-tuned from a model of other data" in notes(*begun)[0]
    assert "is not known" in notes()[0]


def test_a_run_tells_what_it_and_those_before_it_were_trained_on(tiny_config, tmp_path):
    data = {name: TrainedOn(name, name) for name in "abc"}
    start = Start("b", 8, data["b"], Start("c", 8, data["c"]))
    environment = Environment(data=data["a"], start=start)
    assert Run.create(tmp_path / "run", tiny_config, environment).trained_on == [*"abc"]
    assert Run.create(tmp_path / "unknown", tiny_config).trained_on == []


def test_what_is_no_model_file_is_refused(run_and_state, tmp_path):
    model, path = load_model(run_and_state[0]), tmp_path / "model.safetensors"
    write_model(model, path)
    good = path.read_bytes()
    with safetensors.safe_open(path, "pt") as file:
        metadata, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    some = next(iter(weights))
    files = {
        "cannot be read as a model": good[:1000],
        "is not a samgan model": safetensors.torch.save(weights),
        "is damaged": good[:-1] + bytes([good[-1] ^ 1]),
        "do not fit its configuration": safetensors.torch.save({some: weights[some]}, metadata),
    }
    half = {name: values.bfloat16() for name, values in weights.items()}
    (tmp_path / "half.safetensors").write_bytes(safetensors.torch.save(half, metadata))
    with pytest.raises(SamganError, match="do not fit its configuration"):
        read_model(tmp_path / "half.safetensors")
    wrong = {"config": ("", "[]", "3", '{"training": 3}', "9" * 5000), "images_seen": ("", "x", "-1")}
    # All before the file is written to: the weights are mapped from it.
    headers = [
        safetensors.torch.save(weights, {**metadata, key: value}) for key, values in wrong.items() for value in values
    ]
    for message, content in files.items():
        path.write_bytes(content)
        with pytest.raises(SamganError, match=message):
            read_model(path)
    for content in headers:
        path.write_bytes(content)
        with pytest.raises(SamganError, match=r"its header cannot be read .*; export it again") as caught:
            read_model(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(SamganError, match="cannot be read as a model"):
        read_model(tmp_path / "missing.safetensors")


def test_loading_leaves_the_global_random_state_alone(run_and_state):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load_model(run_and_state[0])
    assert torch.equal(torch.rand(3), expected)


def test_hash_sees_names_shapes_and_values():
    ones = torch.ones(4)
    variants = [{"a": ones}, {"b": ones}, {"a": ones.view(2, 2)}, {"a": ones * 2}, {"a": ones.double()}]
    assert len({hash_weights(weights) for weights in variants}) == len(variants)
    both = {"a": ones, "b": 2 * ones}
    assert hash_weights(both) == hash_weights(dict(reversed(both.items())))


def test_a_checkpoint_is_needed(tmp_path, tiny_config):
    with pytest.raises(SamganError, match="checkpoint"):
        load_model(Run.create(tmp_path / "run", tiny_config))


def test_interpolation_ends_at_the_images_of_the_seeds(model):
    path = interpolate(model, [3, 8, 5], 4)
    assert len(path) == 9
    torch.testing.assert_close(path[[0, 4, 8]], sample(model, [3, 8, 5]), rtol=1e-4, atol=1e-4)


def test_interpolation_moves_evenly_along_the_sphere(model, monkeypatch):
    seen = []
    original = generate
    monkeypatch.setattr(samgan.sampling.sheets, "generate", lambda g, z, y: (seen.append(z), original(g, z, y))[1])
    interpolate(model, [3, 8], 5)
    latents = seen[0]
    torch.testing.assert_close(latents.norm(dim=1), torch.ones(6))
    cosines = [a @ b for a, b in itertools.pairwise(latents)]
    torch.testing.assert_close(torch.stack(cosines), cosines[0].expand(5), rtol=1e-4, atol=1e-4)


def test_interpolation_from_a_seed_to_itself_stands_still(model):
    path = interpolate(model, [3, 3], 3)
    torch.testing.assert_close(path, sample(model, [3, 3, 3, 3]), rtol=1e-3, atol=1e-3)


def test_scales_sheet_shows_every_scale(model):
    sheet = scales_sheet(model, [1, 2])
    assert sheet.shape == (8, 1, 32, 32)
    pyramid = next(generate(model.generator, latents_of_seeds([1, 2], 8)))
    for row, images in enumerate(pyramid):
        factor = 32 // images.shape[-1]
        assert torch.equal(sheet[2 * row : 2 * row + 2, :, ::factor, ::factor], images)


def test_attention_sheet_shows_where_the_centre_looks(model):
    sheet = attention_sheet(model, [1, 2])
    assert sheet.shape == (6, 1, 32, 32)  # the images, then attention at 8 and at 16 px
    assert torch.equal(sheet[:2], sample(model, [1, 2]))
    assert sheet[2:].amax(dim=(1, 2, 3)).tolist() == [1.0] * 4
    assert sheet[2:].min() >= -1


def test_attention_sheet_shows_what_an_alias_free_generator_attends_to_within_the_image(model, monkeypatch):
    """Maps have margins of 5 keys, which are left out; here the centre looks at one key in the image's first corner."""
    network = dataclasses.replace(model.config.network, generator_blocks="alias-free", spectral_norm="none")
    config = dataclasses.replace(model.config, network=network)
    other = dataclasses.replace(model, generator=Generator(network).eval(), config=config)
    sides = {8: 36, 16: 52}
    maps = {side: torch.full((2, 1, canvas**2 // 4), 0.1) for side, canvas in sides.items()}
    for side, canvas in sides.items():
        maps[side][:, 0, 5 * canvas // 2 + 5] = 1.0
    monkeypatch.setattr("samgan.sampling.sheets.attention_maps", lambda *_, **__: maps)
    sheet = attention_sheet(other, [1, 2])
    assert sheet.shape == (6, 1, 32, 32)
    for row, side in ((2, 8), (4, 16)):
        white = sheet[row, 0] == 1
        assert white[0, 0]
        assert white.sum() == (32 // (sides[side] // 2 - 10)) ** 2


# ---- files


@pytest.mark.parametrize("file_format", ["png", "png16"])
def test_pictures_hold_the_seed_and_where_they_come_from(model, tmp_path, file_format):
    document = write_samples(model, tmp_path / "out", 3, seed=40, file_format=file_format).to_dict()
    expected = sample(model, [40, 41, 42])
    for number in range(3):
        with Image.open(tmp_path / "out" / f"seed-{40 + number:08d}.png") as image:
            assert image.text == {
                "Description": SYNTHETIC,
                "Synthetic": "true",
                "Software": f"samgan {__version__}",
                "Model-SHA256": model.sha256,
                "Model-Preset": "tiny",
                "Model-Images-Seen": "16",
                "Seed": str(40 + number),
                "Pixels-SHA256": hash_pixels(np.asarray(image)[None]),
            }
            values = np.asarray(image)
        if file_format == "png":
            np.testing.assert_array_equal(values, to_uint8(expected)[number, 0].numpy())
        else:
            assert values.dtype == np.uint16
            np.testing.assert_allclose(values / 32767.5 - 1, expected[number, 0].clamp(-1, 1), atol=2e-5)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"samples.json", *(f"seed-{seed:08d}.png" for seed in (40, 41, 42))}
    assert json.loads((tmp_path / "out" / "samples.json").read_text()) == document
    assert (document["count"], document["first_seed"], document["last_seed"]) == (3, 40, 42)
    assert document["Model-SHA256"] == model.sha256


def test_archive(model, tmp_path):
    write_samples(model, tmp_path / "out", 3, seed=5, file_format="npz")
    with np.load(tmp_path / "out" / "samples.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["images"], pixels(model, [5, 6, 7]))
        assert archive["seeds"].tolist() == [5, 6, 7]
        assert json.loads(str(archive["provenance"]))["Synthetic"] == "true"


def test_sheets(model, tmp_path):
    write_samples(model, tmp_path / "out", 2, sheets=["grid", "interpolation", "scales", "attention"])
    sizes = {}
    for name in ("grid", "interpolation", "scales", "attention"):
        with Image.open(tmp_path / "out" / "sheets" / f"{name}.png") as image:
            assert image.text["Synthetic"] == "true"
            sizes[name] = image.size
    assert sizes == {"grid": (65, 32), "interpolation": (263, 32), "scales": (65, 131), "attention": (65, 98)}


def test_another_process_writes_the_same_bytes(run_and_state, tmp_path):
    run, _ = run_and_state
    write_samples(load_model(run), tmp_path / "here", 2)
    source = (
        "import sys, torch; torch.set_num_threads(1); from pathlib import Path;"
        "from samgan.runs import Run; from samgan.sampling import load_model, write_samples;"
        "write_samples(load_model(Run(sys.argv[1])), Path(sys.argv[2]), 5)"
    )
    subprocess.run([sys.executable, "-c", source, str(run.path), str(tmp_path / "there")], check=True, timeout=100)
    for seed in (0, 1):
        name = f"seed-{seed:08d}.png"
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_a_folder_that_is_not_empty_is_left_alone(model, tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(SamganError, match="not empty"):
        write_samples(model, tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# ---- classes


@pytest.fixture(scope="module")
def conditional(tiny_config, images, tmp_path_factory):
    settings = {"network.num_classes": 3, "data.classes": ["a", "b", "c"], "training.kimg": 0.004}
    config = tiny_config.override(settings)
    run = Run.create(tmp_path_factory.mktemp("conditional") / "run", config)
    train_loop(config, images, run, make_fabric("cpu"), Options(labels=np.arange(22) % 3))
    return load_model(run)


def test_the_class_of_a_seed_is_the_next_in_turn_or_the_one_asked_for(conditional, model):
    assert (conditional.classes, model.classes) == (("a", "b", "c"), ())
    assert conditional.labels(range(4, 9)).tolist() == [1, 2, 0, 1, 2]
    assert conditional.labels([7, 7, 9], "b").tolist() == [1, 1, 1]
    assert model.labels(range(3)) is None
    for asked, known in ((conditional, r"a, b, c\)"), (model, "none: it was trained without")):
        with pytest.raises(UsageError, match=f"class d: expected one of .*{known}"):
            asked.labels([0], "d")


def test_an_image_is_a_function_of_seed_and_class_alone(conditional):
    count = FORWARD_BATCH + 5
    in_turn = pixels(conditional, range(count))
    for label in range(3):
        own = sample(conditional, range(count), torch.full((count,), label))
        own = to_uint8(own).numpy()
        assert [np.array_equal(*pair) for pair in zip(in_turn, own, strict=True)] == [
            seed % 3 == label for seed in range(count)
        ]
    np.testing.assert_array_equal(pixels(conditional, [35, 7]), in_turn[[35, 7]])


@pytest.mark.parametrize(("count", "total"), [(7, 22), (22, 22), (50, 22), (512, 1000)])
def test_labels_in_the_proportions_of_others(count, total):
    labels = np.random.default_rng(0).choice(4, total, p=[0.5, 0.3, 0.2, 0])
    drawn = labels_like(labels, count)
    assert (len(drawn), drawn.tolist()) == (count, sorted(drawn.tolist()))
    expected = np.bincount(labels, minlength=4) * count / total
    np.testing.assert_allclose(np.bincount(drawn, minlength=4), expected, atol=1)


def test_pictures_say_of_which_class_they_are(conditional, tmp_path):
    for class_name, classes, rule in (
        (None, ["b", "c", "a", "b"], "in turn: seed mod 3"),
        ("c", ["c"] * 4, "c"),
    ):
        out = tmp_path / f"png-{class_name}"
        document = write_samples(conditional, out, 4, seed=4, class_name=class_name).to_dict()
        assert (document["Class"], list(document["classes"])) == (rule, ["a", "b", "c"])
        assert [document["classes"][name] for name in "abc"] == [classes.count(name) for name in "abc"]
        texts = [Image.open(path).text for path in sorted(out.glob("*.png"))]
        assert [(text["Seed"], text["Class"]) for text in texts] == [*zip("4567", classes, strict=True)]
        out = tmp_path / f"npz-{class_name}"
        write_samples(conditional, out, 4, seed=4, class_name=class_name, file_format="npz")
        with np.load(out / "samples.npz", allow_pickle=False) as archive:
            assert archive["classes"].tolist() == classes
            labels = torch.tensor(["abc".index(name) for name in classes])
            np.testing.assert_array_equal(archive["images"], to_uint8(sample(conditional, range(4, 8), labels)).numpy())


def test_sheets_show_one_class_after_the_other(conditional, tmp_path, monkeypatch):
    seen = []
    original = generate
    for module in (samgan.sampling.images, samgan.sampling.sheets):
        monkeypatch.setattr(module, "generate", lambda g, z, y: (seen.append(y.tolist()), original(g, z, y))[1])
    write_samples(conditional, tmp_path / "out", 6, sheets=["grid", "interpolation", "scales", "attention"])
    in_turn, grid, *paths, scales, attention = seen
    assert in_turn == [0, 1, 2, 0, 1, 2]
    assert grid == scales == attention == [0, 0, 1, 1, 2, 2]
    assert paths == [[label] * 9 for label in range(3)]
    with Image.open(tmp_path / "out" / "sheets" / "grid.png") as image:
        first, second = (np.asarray(image)[:32, 33 * column : 33 * column + 32] for column in range(2))
    np.testing.assert_array_equal([first, second], pixels(conditional, [0, 3])[:, 0])


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("draw", [sample, attention_sheet])
def test_a_label_that_is_no_class_is_refused(conditional, draw, label):
    with pytest.raises(
        UsageError, match=f"labels: expected whole numbers from 0 to 2, one for each image, found {label}"
    ):
        draw(conditional, [1, 2], torch.tensor([0, label]))


def test_labels_are_given_to_generators_of_classes_only(conditional, model):
    with pytest.raises(UsageError, match="trained without classes, but labels were given"):
        sample(model, [1], torch.tensor([0]))
    with pytest.raises(UsageError, match="from 0 to 2, one for each image, found none"):
        next(generate(conditional.generator, latents_of_seeds([1], conditional.generator.latent_size)))


def test_a_path_is_of_one_class(conditional):
    path = interpolate(conditional, [4, 8], 3)
    ends = sample(conditional, [4, 8], torch.tensor([1, 1]))
    torch.testing.assert_close(path[[0, 3]], ends, rtol=1e-4, atol=1e-4)
    ends = sample(conditional, [4, 8], torch.tensor([2, 2]))
    torch.testing.assert_close(interpolate(conditional, [4, 8], 3, 2)[[0, 3]], ends, rtol=1e-4, atol=1e-4)


def test_a_model_file_keeps_the_classes(conditional, tmp_path):
    write_model(conditional, tmp_path / "model.safetensors")
    other = read_model(tmp_path / "model.safetensors")
    assert other.classes == conditional.classes
    assert torch.equal(sample(other, [3, 5], torch.tensor([2, 0])), sample(conditional, [3, 5], torch.tensor([2, 0])))


def test_what_cannot_be_drawn_is_refused_before_anything_is_written(model, images, tmp_path, tiny_config):
    config = tiny_config.override({"network.generator_attention": [], "training.kimg": 0.004})
    run, _ = trained(tmp_path / "run", config, images)
    for refused, match in (
        (
            lambda out: write_samples(load_model(run), out, 1, sheets=["attention"]),
            "no layer that makes attention",
        ),
        (lambda out: write_samples(model, out, 1, sheets=["poster"]), "sheet 'poster' is not one of grid"),
        (lambda out: write_samples(model, out, 1, file_format="jpeg"), "file format 'jpeg' is not one of png"),
    ):
        with pytest.raises(UsageError, match=match):
            refused(tmp_path / "out")
    assert os.listdir(tmp_path) == ["run"]


def test_weights_of_another_network_are_refused(run_and_state):
    run, _ = run_and_state
    document = run.config.override({"network.image_activation": "tanh", "network.max_channels": 64}).to_dict()
    state = {**load_checkpoint(run.checkpoints()[-1]).state, "config": document}
    save_checkpoint(run.path / "other.pt", state)
    with pytest.raises(SamganError, match="do not fit its configuration"):
        load_model(run, str(run.path / "other.pt"))


def test_a_failure_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(samgan.grids, "write_png", full)
    with pytest.raises(OSError, match="No space"):
        write_samples(model, tmp_path / "out", 2)
    assert list(tmp_path.iterdir()) == []
