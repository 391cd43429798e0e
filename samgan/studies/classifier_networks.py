"""The networks of classifiers: from random weights, and from weights that were learnt on photographs."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from samgan.metrics.feature_networks.lite0 import LITE0
from samgan.metrics.load_features import load_network

FINE_TUNED_SIDE = 128
"""In pixels: Lite0 halves images five times, so fewer would leave it a map of 2 x 2."""
FINE_TUNED_DIM = 1280


@dataclass(frozen=True)
class ClassifierNetwork:
    """A network and the rate it learns at."""

    make: Callable[[int, int], nn.Module]
    """From the channels of images and the number of classes; the module takes uint8 images and gives logits."""
    learning_rate: float


class FromScratch(nn.Module):
    """torchvision's ResNet-18 with random weights.

    Source: He et al. 2016.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.network = resnet18(num_classes=classes)
        self.network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits of the classes."""
        logits: Tensor = self.network((images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last))
        return logits


class FineTuned(nn.Module):
    """EfficientNet-Lite0 with the weights of ImageNet, all of which go on learning, and a new last layer.

    Raises:
        FeaturesUnavailable: The weights are not installed (samgan[lite0]).
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.input = replace(LITE0.input, size=FINE_TUNED_SIDE, mode="bilinear")
        self.network, _ = load_network(LITE0)
        self.last = nn.Linear(FINE_TUNED_DIM, classes)

    def forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits of the classes."""
        logits: Tensor = self.last(self.network(self.input(images).contiguous(memory_format=torch.channels_last)))
        return logits


CLASSIFIER_NETWORKS = {
    "resnet18": ClassifierNetwork(FromScratch, 1e-3),
    "lite0": ClassifierNetwork(FineTuned, 3e-4),
}
