"""A generator as a graph that other programs run without samgan: an ONNX file, or a .pt2 file of torch.export."""

import copy
import importlib.util
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write
from samgan.pictures import RESEARCH_ONLY, to_uint8
from samgan.sampling.images import latents_of_seeds, sample
from samgan.sampling.model import MODEL_SUFFIX, Labels, Model, metadata_of

GRAPH_FORMAT = "samgan graph 1"
DESCRIPTION = f"Generator of synthetic images, made with samgan. Its images show no patients. {RESEARCH_ONLY}"
EXTRA_FILE = "samgan.json"
"""Where a .pt2 file has its metadata: the name among torch.export's extra files."""
CHECKED_SEEDS = range(5)
TOLERANCE = 1
"""Grey levels by which images of a graph may differ from those of `samgan sample`: other kernels round otherwise."""
ONNX_BYTES = 2_000_000_000  # protobuf refuses more than 2^31 - 1 in all


class _Images(nn.Module):
    """The largest images of a generator as grey levels: what the graphs compute.

    The noise of modulated convolutions is a function of the latent, so a graph needs no other input.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map [n, latent] float32 and, with classes, [n] int64 to [n, c, h, w] uint8."""
        return to_uint8(self.generator(latents, labels)[-1])


@dataclass(frozen=True)
class GraphFormat:
    """A file format of graphs."""

    label: str
    encode: Callable[[Model], bytes]
    """The whole file, with its metadata."""
    images: Callable[[bytes, Tensor, Labels], Tensor]
    """What the file makes of latents [n, latent] and labels [n] or None: uint8 [n, c, h, w]."""
    packages: tuple[str, ...] = ()
    """What encoding and checking need; they are in the extra `onnx`."""


def check_suffix(path: Path) -> None:
    """Raise a UsageError if no model file has the suffix of `path`, or if packages for it are missing."""
    if path.suffix not in (MODEL_SUFFIX, *GRAPHS):
        names = ", ".join((MODEL_SUFFIX, *GRAPHS))
        raise UsageError(f"{path}: expected a file name that ends in one of {names}")
    needed = GRAPHS[path.suffix].packages if path.suffix in GRAPHS else ()
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise UsageError(f"{path}: {', '.join(missing)} missing: pip install 'samgan[onnx]'")


def write_graph(model: Model, path: Path) -> int:
    """Write a model as the graph that the suffix of `path` names, after a check that it makes the model's images.

    Args:
        model: From `open_model`.
        path: The file, with a suffix of `GRAPHS`; it is written whole or not at all.

    Returns:
        The largest difference, in grey levels, between images of the file and of `sample`, for `CHECKED_SEEDS`.

    Raises:
        SamganError: The model is too large for the format or truncated, or the images differ by more than `TOLERANCE`.
    """
    graph = GRAPHS[path.suffix]
    content = graph.encode(model)
    labels = model.labels(CHECKED_SEEDS)
    found = graph.images(content, latents_of_seeds(CHECKED_SEEDS, model.generator.latent_size), labels)
    expected = to_uint8(sample(model, CHECKED_SEEDS, labels))
    difference = int((found.int() - expected.int()).abs().max())
    if difference > TOLERANCE:
        raise SamganError(
            f"{path} was not written: as {graph.label} the model makes other images, up to {difference} grey levels "
            f"from its own (at most {TOLERANCE} is expected); try another version of the packages, or .safetensors"
        )
    with atomic_write(path) as file:
        file.write(content)
    return difference


def _metadata(model: Model) -> dict[str, str]:
    network = model.config.network
    latents, side = model.generator.latent_size, network.resolution
    inputs = f"latents float32 [n, {latents}], independent N(0, 1); a seed's latent: docs/sharing.md of samgan"
    if model.classes:
        inputs += f"; labels int64 [n], 0 to {len(model.classes) - 1}: the places of the classes in `classes`"
    return {
        "description": DESCRIPTION,
        "format": GRAPH_FORMAT,
        "inputs": inputs,
        "outputs": f"images uint8 [n, {network.image_channels}, {side}, {side}]",
        "classes": json.dumps(model.classes),
        **metadata_of(model),
    }


def _program(model: Model) -> torch.export.ExportedProgram:
    """The graph, for any number of images. Its nodes name no files of this machine."""
    network = _Images(copy.deepcopy(model.generator).cpu()).eval()
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()  # torch.export.save warns of others
    examples: tuple[Tensor, ...] = (latents_of_seeds((0, 1), model.generator.latent_size),)
    shapes = {"latents": {0: torch.export.Dim("n", min=1)}}
    if model.classes:
        examples += (torch.tensor([0, 1]),)
        shapes["labels"] = shapes["latents"]
    with torch.no_grad():
        program = torch.export.export(network, examples, dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _encode_pt2(model: Model) -> bytes:
    file = io.BytesIO()
    text = json.dumps(_metadata(model), indent=2)
    torch.export.save(_program(model), file, extra_files={EXTRA_FILE: text})
    return file.getvalue()


def _images_of_pt2(content: bytes, latents: Tensor, labels: Labels) -> Tensor:
    inputs = (latents,) if labels is None else (latents, labels)
    with torch.inference_mode():
        return torch.export.load(io.BytesIO(content)).module()(*inputs)


def _encode_onnx(model: Model) -> bytes:
    import onnx

    tensors = (*model.generator.parameters(), *model.generator.buffers())
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > ONNX_BYTES:
        raise SamganError(f"{size / 1e9:.1f} GB of weights and noise: expected 2 GB or less in an ONNX file; use .pt2")
    names = ["latents", "labels"] if model.classes else ["latents"]
    exported = torch.onnx.export(
        _program(model), dynamo=True, input_names=names, output_names=["images"], external_data=False, verbose=False
    )
    assert exported is not None
    proto = exported.model_proto
    number = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    values = (*proto.graph.input, *proto.graph.output, *proto.graph.value_info)
    for dimension in (dimension for value in values for dimension in value.type.tensor_type.shape.dim):
        if dimension.dim_param == number:
            dimension.dim_param = "n"
    for node in proto.graph.node:
        del node.metadata_props[:]  # notes for debugging the exporter, half of the file of a small model
    proto.doc_string = DESCRIPTION
    onnx.helper.set_model_props(proto, _metadata(model))
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def _images_of_onnx(content: bytes, latents: Tensor, labels: Labels) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = {"latents": latents.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
    return torch.from_numpy(session.run(["images"], inputs)[0])


GRAPHS = {
    ".onnx": GraphFormat("ONNX", _encode_onnx, _images_of_onnx, ("onnx", "onnxscript", "onnxruntime")),
    ".pt2": GraphFormat("a graph of torch.export", _encode_pt2, _images_of_pt2),
}
"""By suffix."""
