"""Graphs of a model: other programs make samgan's images from them, and they say what they are."""

import copy
import dataclasses
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import samgan.sampling.graphs
from samgan import api
from samgan.commands.main import main
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
        elif name.endswith(("bias", "reduce.weight")):
            parameter.normal_(std=0.2)
    # Grey levels in the middle: neither flat nor clipped. Heads are linear, and those of several scales may add up.
    generator.tanh, tanh = False, generator.tanh
    labels = torch.zeros(16, dtype=torch.long) if config.network.num_classes else None
    images = generator(torch.randn(16, generator.latent_size), labels)[-1]
    heads = [block.to_image for block in generator.blocks if block.to_image is not None]
    for head in heads:
        head.weight.mul_(0.4 / images.std())
        if head.bias is not None:
            head.bias.mul_(0.4 / images.std())
    if heads[-1].bias is not None:
        heads[-1].bias.sub_(0.4 * images.mean() / images.std())
    generator.tanh = tanh
    return Model(generator, config, 4000, hash_weights(generator.state_dict()), ("ab" * 32, "cd" * 32), "best")


def tiny(preset, side, classes, **others):
    attention = {"generator_attention": [8, side]} if preset == "samgan-8" and side == 64 else {}
    attention |= {"generator_attention": [8, 32]} if preset == "samgan-8" and side == 256 else {}
    network = {"resolution": side, "max_channels": max(8, side // 8), "num_classes": classes, **attention, **others}
    return preset_config(preset, "cpu").override({"network": network, "data": {"classes": list("abc")[:classes]}})


# Tracing one takes seconds.
TINY = {"samgan-plus at 32 px": tiny("samgan-plus", 32, 3, noise="all")}
MORE = {
    "samgan-alias-free at 32 px": tiny("samgan-alias-free", 32, 3, generator_attention=[8]),
    "samgan-8 at 32 px": tiny("samgan-8", 32, 2),
    "samgan-plus at 256 px": tiny("samgan-plus", 256, 0),
    "samgan-8 at 256 px": tiny("samgan-8", 256, 2),
    "samgan-8 at 64 px": tiny("samgan-8", 64, 0, image_activation="tanh", image_channels=3),
    "r3gan at 64 px": tiny("r3gan", 64, 2, generator_attention=[16]),
    "msg-gan-6 at 64 px": tiny("msg-gan-6", 64, 2),
    "msg-gan-6 at 256 px": tiny("msg-gan-6", 256, 0),
    "linear attention": tiny("samgan-8", 64, 0, attention_kind="linear"),
    "dual attention": tiny("samgan-8", 64, 0, attention_kind="dual", attention_pooled=False),
    "squeeze-excitation": tiny("samgan-8", 64, 0, attention_kind="squeeze-excitation"),
    "cbam": tiny("samgan-8", 64, 2, attention_kind="cbam"),
    "modulated with attention": tiny("samgan-plus", 64, 0, generator_attention=[16, 64], mapping_layers=0),
}
CASES = [pytest.param(config, id=name) for name, config in TINY.items()]
CASES += [pytest.param(config, id=name, marks=pytest.mark.slow) for name, config in MORE.items()]


def images_of(model, suffix, content, seeds, labels):
    latents = latents_of_seeds(seeds, model.generator.latent_size)
    return GRAPHS[suffix].images(content, latents, labels)


@pytest.fixture(scope="module")
def traced():
    """Trace each model once, for both formats."""
    trace, programs = samgan.sampling.graphs._program, {}

    def once(model):
        if model.sha256 not in programs:
            programs[model.sha256] = trace(model)
        return programs[model.sha256]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samgan.sampling.graphs._program", once)
        yield


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("config", CASES)
@pytest.mark.parametrize(
    "suffix", [pytest.param(each, marks=pytest.mark.slow) if each == ".pt2" else each for each in SUFFIXES]
)
def test_a_graph_makes_the_images_of_sample_for_any_number_of_seeds(config, suffix):
    model = model_of(config)
    content = GRAPHS[suffix].encode(model)
    seeds = range(30, 37)
    labels = model.labels(seeds)
    expected = to_uint8(sample(model, seeds, labels)).int()
    assert expected.float().std() > 10
    for count in (7, 1):
        own = None if labels is None else labels[:count]
        found = images_of(model, suffix, content, seeds[:count], own)
        assert found.dtype == torch.uint8
        assert found.shape == expected[:count].shape
        assert (found.int() - expected[:count]).abs().max() <= 1
    if labels is not None:  # the class is not a constant of the graph
        other = images_of(model, suffix, content, seeds, (labels + 1) % len(model.classes))
        assert (other.int() - expected).abs().max() > 5


@pytest.fixture(scope="module")
def small():
    return model_of(tiny("msg-gan-6", 32, 2, latent_dim=20))


@pytest.fixture(scope="module")
def file_of(small, tmp_path_factory):
    """Write the small model as a graph, once for each format."""
    folder = tmp_path_factory.mktemp("graphs")

    def write(suffix):
        path = folder / f"model{suffix}"
        if not path.exists():
            assert write_graph(small, path) <= 1
        return path

    return write


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_graph_says_what_it_is_and_nothing_of_this_machine(small, suffix, file_of):
    path = file_of(suffix)
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
        assert shapes == {"latents": ["n", 20], "labels": ["n"], "images": ["n", 1, 32, 32]}
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


def test_exporting_leaves_the_model_as_it_was(small, file_of):
    file_of(".pt2")
    assert hash_weights(small.generator.state_dict()) == small.sha256
    fresh = Generator(small.config.network)
    for own, other in zip(small.generator.parameters(), fresh.parameters(), strict=True):
        assert own.stride() == other.stride()


def test_a_graph_of_other_images_is_not_written(small, file_of, tmp_path, monkeypatch):
    content = file_of(".pt2").read_bytes()
    other = dataclasses.replace(small, generator=copy.deepcopy(small.generator))
    other.generator.blocks[-1].to_image.bias.add_(0.02)  # two or three grey levels
    wrong = dataclasses.replace(GRAPHS[".pt2"], encode=lambda _: content)
    monkeypatch.setitem(GRAPHS, ".pt2", wrong)
    with pytest.raises(SamganError, match=r"model.pt2 was not written: .* up to 3 grey levels"):
        write_graph(other, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_a_model_that_no_onnx_file_can_hold_is_refused(small, monkeypatch):
    monkeypatch.setattr("samgan.sampling.graphs.ONNX_BYTES", 10_000)
    with pytest.raises(SamganError, match=r"GB of weights and noise: expected .* use \.pt2"):
        GRAPHS[".onnx"].encode(small)


def test_a_shipped_model_and_a_file_are_exported_too(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shipped = open_model(Path("pneumonia-64"))
    assert api.export("pneumonia-64", "copy.safetensors").to_dict() == {
        "model": "copy.safetensors",
        "sha256": shipped.sha256,
        "images_seen": shipped.images_seen,
        "largest_difference": None,
    }
    write_model(small, tmp_path / "model.safetensors")
    assert main(["export", "model.safetensors", "model.pt2"]) == 0
    difference = re.search(
        r"largest difference from images of samgan sample: ([01]) of 255\n$", capsys.readouterr().out
    )
    assert difference
    with pytest.raises(UsageError, match="is not a run folder, so it has no checkpoints"):
        api.export("pneumonia-64", "best.safetensors", checkpoint="best")


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
def test_the_page_makes_the_images_of_seeds_without_torch_and_samgan(small, file_of, tmp_path):
    shutil.copy(file_of(".onnx"), tmp_path / "model.onnx")
    code = example() + "\nimport sys\nassert not {'torch', 'samgan'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=100)
    expected = to_uint8(sample(small, range(8))).numpy()
    assert np.abs(np.load(tmp_path / "images.npy").astype(int) - expected).max() <= 1


@needs_onnx
@pytest.mark.slow
def test_the_page_makes_the_images_of_a_shipped_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "pneumonia-64", "model.onnx"]) == 0
    exec(example(), {})
    expected = to_uint8(sample(open_model(Path("pneumonia-64")), range(8))).numpy()
    assert np.abs(np.load("images.npy").astype(int) - expected).max() <= 1


def test_the_page_names_what_there_is():
    assert all(f"`model{suffix}`" in PAGE for suffix in (".safetensors", *GRAPHS))
    assert f"seeds {CHECKED_SEEDS[0]} to {CHECKED_SEEDS[-1]}" in PAGE
    assert f"`{EXTRA_FILE}`" in PAGE
    assert "docs/sharing.md" in (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
