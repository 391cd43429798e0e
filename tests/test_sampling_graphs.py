"""Graphs of a model: other programs make samgan's images from them, and they say what they are."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from samgan import api
from samgan.config import Config
from samgan.errors import SamganError, UsageError
from samgan.networks import Generator
from samgan.pictures import RESEARCH_ONLY, to_uint8
from samgan.presets import preset_config
from samgan.sampling import GRAPHS, Model, hash_weights, latents_of_seeds, open_model, sample, write_graph, write_model
from samgan.sampling.graphs import CHECKED_SEEDS, EXTRA_FILE

MISSING = [name for name in GRAPHS[".onnx"].packages if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (samgan[onnx])")
SUFFIXES = (".pt2", pytest.param(".onnx", marks=needs_onnx))
PAGE = (Path(__file__).parents[1] / "docs" / "sharing.md").read_text(encoding="utf-8")


def model_of(config: Config) -> Model:
    """A model whose gates and noise are open and whose biases are random, so that every operation counts."""
    torch.manual_seed(3)
    generator = Generator(config.network).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith(("gamma", "noise")):
            parameter.fill_(0.5)
        elif name.endswith("bias"):
            parameter.normal_(std=0.2)
    # Grey levels in the middle: neither flat nor clipped. Heads are linear, and those of several scales may add up.
    generator.tanh, tanh = False, generator.tanh
    labels = torch.zeros(16, dtype=torch.long) if config.network.num_classes else None
    images = generator(torch.randn(16, generator.latent_size), labels)[-1]
    for block in generator.blocks:
        block.to_image.weight.mul_(0.4 / images.std())
        block.to_image.bias.mul_(0.4 / images.std())
    generator.blocks[-1].to_image.bias.sub_(0.4 * images.mean() / images.std())
    generator.tanh = tanh
    return Model(generator, config, 4000, hash_weights(generator.state_dict()), ("ab" * 32, "cd" * 32), "best")


def tiny(preset, side, classes, **others):
    attention = {"generator_attention": [8, side]} if preset == "samgan-8" and side == 64 else {}
    attention |= {"generator_attention": [8, 32]} if preset == "samgan-8" and side == 256 else {}
    network = {"resolution": side, "max_channels": max(8, side // 8), "num_classes": classes, **attention, **others}
    return preset_config(preset, "cpu").override({"network": network, "data": {"classes": list("abc")[:classes]}})


TINY = {
    "samgan-plus at 64 px": tiny("samgan-plus", 64, 3, noise="all"),
    "samgan-plus at 256 px": tiny("samgan-plus", 256, 0),
    "samgan-8 at 64 px": tiny("samgan-8", 64, 0, image_activation="tanh", image_channels=3),
    "samgan-8 at 256 px": tiny("samgan-8", 256, 2),
    "msg-gan-6 at 64 px": tiny("msg-gan-6", 64, 2),
    "msg-gan-6 at 256 px": tiny("msg-gan-6", 256, 0),
}


def images_of(model, path, seeds, labels):
    latents = latents_of_seeds(seeds, model.generator.latent_size)
    return GRAPHS[path.suffix].images(path.read_bytes(), latents, labels)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
def test_a_graph_makes_the_images_of_sample_for_any_number_of_seeds(config, suffix, tmp_path):
    model, path = model_of(config), tmp_path / f"model{suffix}"
    assert write_graph(model, path) <= 1
    for seeds in (range(1), range(30, 37)):
        labels = model.labels(seeds)
        expected = to_uint8(sample(model, seeds, labels))
        assert expected.float().std() > 10
        found = images_of(model, path, seeds, labels)
        assert found.dtype == torch.uint8
        assert found.shape == expected.shape
        assert (found.int() - expected.int()).abs().max() <= 1
    if model.classes:  # the class is not a constant of the graph
        other = images_of(model, path, seeds, (labels + 1) % len(model.classes))
        assert (other.int() - expected.int()).abs().max() > 5


@pytest.fixture(scope="module")
def small():
    return model_of(tiny("samgan-plus", 32, 2))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_graph_says_what_it_is_and_nothing_of_this_machine(small, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    write_graph(small, path)
    if suffix == ".onnx":
        import onnx

        proto = onnx.load(path)
        said = {entry.key: entry.value for entry in proto.metadata_props}
        assert proto.doc_string == said["description"]
        values = [*proto.graph.input, *proto.graph.output]
        shapes = {
            value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in values
        }
        assert shapes == {"latents": ["n", 8], "labels": ["n"], "images": ["n", 1, 32, 32]}
    else:
        files = {EXTRA_FILE: ""}
        torch.export.load(path, extra_files=files)
        said = json.loads(files[EXTRA_FILE])
    assert RESEARCH_ONLY in said["description"]
    assert "synthetic" in said["description"]
    assert said["sha256"] == small.sha256
    assert Config.from_dict(json.loads(said["config"])) == small.config
    assert json.loads(said["classes"]) == ["a", "b"]
    origin = [said[key] for key in ("images_seen", "data_sha256", "started_on_data_sha256", "checkpoint")]
    assert origin == ["4000", "ab" * 32, "cd" * 32, "best"]
    assert said["software"].startswith("samgan ")
    content = path.read_bytes()
    for text in (str(Path(api.__file__).parent), "blocks.py", "site-packages", str(Path.home()) + "/"):
        assert text.encode() not in content


def test_exporting_leaves_the_model_as_it_was(small, tmp_path):
    strides = [parameter.stride() for parameter in small.generator.parameters()]
    write_graph(small, tmp_path / "model.pt2")
    assert hash_weights(small.generator.state_dict()) == small.sha256
    assert [parameter.stride() for parameter in small.generator.parameters()] == strides


def test_a_graph_of_other_images_is_not_written(small, tmp_path, monkeypatch):
    other = model_of(tiny("samgan-plus", 32, 2, noise="none"))
    content = GRAPHS[".pt2"].encode(other)
    monkeypatch.setattr("samgan.sampling.graphs._program", lambda _: pytest.fail("not asked for"))
    wrong = type(GRAPHS[".pt2"])("a graph of torch.export", lambda _: content, GRAPHS[".pt2"].images)
    monkeypatch.setitem(GRAPHS, ".pt2", wrong)
    with pytest.raises(SamganError, match=r"model.pt2 was not written: .* up to \d+ grey levels"):
        write_graph(small, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_shipped_model_and_a_file_are_exported_too(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exported = api.export("pneumonia-64", "model.pt2")
    assert exported.sha256 == open_model(Path("pneumonia-64")).sha256
    assert exported.largest_difference <= 1
    write_model(small, tmp_path / "model.safetensors")
    assert api.export("model.safetensors", "other.pt2").sha256 == small.sha256
    assert api.export("model.safetensors", "copy.safetensors").to_dict() == {
        "model": "copy.safetensors",
        "sha256": small.sha256,
        "images_seen": 4000,
        "largest_difference": None,
    }


@pytest.mark.parametrize("name", ["model.pt", "model.onnx.gz", "model", "onnx"])
def test_a_file_of_another_name_is_told_the_names_there_are(name, tmp_path):
    with pytest.raises(UsageError, match=r"ends in one of \.safetensors, \.onnx, \.pt2$"):
        api.export("pneumonia-64", tmp_path / name)


@pytest.mark.parametrize("suffix", [".safetensors", *GRAPHS])
def test_a_file_that_is_there_stays(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"mine")
    with pytest.raises(SamganError, match="exists; name a new file"):
        api.export("pneumonia-64", path)
    assert path.read_bytes() == b"mine"


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UsageError, match=r"model.onnx: onnxscript missing: pip install 'samgan\[onnx\]'$"):
        api.export("pneumonia-64", tmp_path / "model.onnx")


def example():
    (code,) = re.findall(r"```python\n(import json.*?)```", PAGE, flags=re.S)
    return code


@pytest.mark.parametrize("size", [16, 17, 24, 100, 128, 512])
def test_the_page_draws_the_latents_of_seeds(size):
    names = {"np": np}
    exec(example()[example().index("def latent") : example().index("session =")], names)
    for seed in (0, 1, 12345, 2**31, 2**32 - 1):
        np.testing.assert_allclose(names["latent"](seed, size), latents_of_seeds([seed], size)[0], atol=1e-6)
    with pytest.raises(ValueError, match="16 or more"):
        names["latent"](0, 15)


@needs_onnx
@pytest.mark.parametrize("classes", [0, 2])
def test_the_page_makes_the_images_of_seeds_without_torch_and_samgan(classes, tmp_path):
    model = model_of(tiny("samgan-plus", 32, classes, latent_dim=20))
    write_graph(model, tmp_path / "model.onnx")
    code = example() + "\nimport sys\nassert not {'torch', 'samgan'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=100)
    expected = to_uint8(sample(model, range(8))).numpy()
    assert np.abs(np.load(tmp_path / "images.npy").astype(int) - expected).max() <= 1


def test_the_page_names_what_there_is():
    assert all(f"`model{suffix}`" in PAGE for suffix in (".safetensors", *GRAPHS))
    assert f"seeds {CHECKED_SEEDS[0]} to {CHECKED_SEEDS[-1]}" in PAGE
    assert f"`{EXTRA_FILE}`" in PAGE
    assert "docs/sharing.md" in (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
