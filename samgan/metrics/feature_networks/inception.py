"""The two Inceptions: that of every published FID, and torchvision's, for the legacy protocol."""

import io

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from samgan.metrics.feature_networks.record import FeatureNetwork, Input, StateDict
from samgan.metrics.feature_networks.weights import downloaded, in_hub_folder
from samgan.metrics.weights_here import IMAGENET_INCEPTION_FILE, INCEPTION_FILE, INCEPTION_SHA256


class _First(nn.Module):
    """The first output of a network that gives several."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]


def _build_inception(state: StateDict) -> nn.Module:
    """Make the standard FID network, which takes uint8 and resizes images as TensorFlow does."""
    # The import takes a second, and only these features need it.
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    # The constructor unpickles whatever it is given, so it gets a file of our own that holds only tensors.
    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=file)
    _merge_batch_norms(network)
    return _First(network)


def _build_imagenet_inception(state: StateDict) -> nn.Module:
    """Make torchvision's Inception v3 up to Mixed_6e, as pytorch-fid lays it out, averaged over pixels."""
    from torchvision.models import inception_v3

    whole = inception_v3(weights=None, init_weights=False, transform_input=False)
    whole.load_state_dict(state)
    names = [name for name, _ in whole.named_children()]  # in the order of the forward pass up to here
    layers = [whole.get_submodule(name) for name in names[: names.index("Mixed_6e") + 1]]
    network = nn.Sequential(*layers, _MeanOfPixels()).eval()
    _merge_batch_norms(network)
    return network


class _MeanOfPixels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def _merge_batch_norms(network: nn.Module) -> None:
    """Merge batch norms into convolutions: the same features up to rounding, but faster."""
    for block in network.modules():
        conv, norm = getattr(block, "conv", None), getattr(block, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            block.conv, block.bn = fuse_conv_bn_eval(conv, norm), nn.Identity()


INCEPTION = FeatureNetwork(
    name="inception",
    description="the Inception v3 of every published FID, trained on ImageNet",
    dim=2048,
    input=Input(channels=3),
    url=f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}",
    megabytes=96,
    licence="Apache-2.0",
    sha256=INCEPTION_SHA256,
    build=_build_inception,
    find=downloaded,
)
"""Source: Heusel et al. 2017 (arXiv:1706.08500), with the weights that torch-fidelity converted from TensorFlow."""

IMAGENET_INCEPTION = FeatureNetwork(
    name="imagenet-inception",
    description="torchvision's Inception v3 up to Mixed_6e, trained on ImageNet; for --protocol legacy only",
    dim=768,
    input=Input(channels=3, mean=(127.5,), std=(127.5,), size=299, antialias=False),
    url=f"https://download.pytorch.org/models/{IMAGENET_INCEPTION_FILE}",
    megabytes=109,
    licence="BSD-3-Clause",
    sha256="0cc3c7bd",  # the digits in the file's name
    build=_build_imagenet_inception,
    find=in_hub_folder,
)
