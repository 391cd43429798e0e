"""Networks with torchvision's layouts and other people's weights: xrv and swav."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.metrics.feature_networks.record import FeatureNetwork, Input, StateDict
from samgan.metrics.feature_networks.weights import only_given


class _Xrv(nn.Module):
    """The features of torchxrayvision's DenseNet-121."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.features(images)).mean(dim=(2, 3))


def _build_xrv(state: StateDict) -> nn.Module:
    from torchvision.models import densenet121

    state.pop("op_threshs", None)  # thresholds of its classes, which are no part of the network
    with torch.device("meta"):
        network = densenet121(num_classes=18)
        network.features.conv0 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    network.load_state_dict(state, assign=True)
    return _Xrv(network.features)


def _build_swav(state: StateDict) -> nn.Module:
    from torchvision.models import resnet50

    with torch.device("meta"):
        network = resnet50()
        network.fc = nn.Identity()
    names = {name.removeprefix("module."): value for name, value in state.items()}
    heads = ("projection_head.", "prototypes.")  # of training only
    network.load_state_dict({name: value for name, value in names.items() if not name.startswith(heads)}, assign=True)
    return network


XRV = FeatureNetwork(
    name="xrv",
    description="torchxrayvision's DenseNet-121 (densenet121-res224-all), trained to find 18 findings in chest X-rays",
    dim=1024,
    input=Input(channels=1, mean=(127.5,), std=(127.5 / 1024,), size=224),
    url="https://github.com/mlmed/torchxrayvision/releases/download/v1/"
    "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
    megabytes=28,
    licence="Apache-2.0",
    sha256=None,
    build=_build_xrv,
    find=only_given,
    convert="import torchxrayvision as x, safetensors.torch as s; "
    "s.save_file(x.models.DenseNet(weights='densenet121-res224-all').state_dict(), 'xrv.safetensors')",
)
"""Source: Cohen et al. 2022 (arXiv:2111.00595). The published file is a pickled module, which is a program: it is not
loaded, but `convert` writes its tensors, always as the same bytes."""

SWAV = FeatureNetwork(
    name="swav",
    description="SwAV's ResNet-50, trained on ImageNet without labels",
    dim=2048,
    input=Input(
        channels=3, mean=(255 * 0.485, 255 * 0.456, 255 * 0.406), std=(255 * 0.228, 255 * 0.224, 255 * 0.225), size=224
    ),
    url="https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
    megabytes=113,
    licence="CC BY-NC 4.0",
    sha256=None,
    build=_build_swav,
    find=only_given,
)
"""Source: Caron et al. 2020 (arXiv:2006.09882), whose code normalises by 0.228, not by the usual 0.229."""
