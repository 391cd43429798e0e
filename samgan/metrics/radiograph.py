"""The built-in features: a small network that was trained on chest X-rays and on faults planted in them."""

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

SHA256 = "a843e2a22055c1fde3cedfc0de90f217a2000e3124c8f2724f1f269c6cfcbe92"
SMALLEST = 64
"""Side in pixels; smaller images are enlarged to it."""
SIDE = 64
"""Side in pixels at which anatomy is looked at."""
TEXTURE = ((1, 16, 1), (16, 32, 2), (32, 64, 2), (64, 64, 1))
ANATOMY = ((1, 32, 2), (32, 48, 1), (48, 64, 2), (64, 96, 1), (96, 128, 2), (128, 160, 1), (160, 192, 2))
"""Channels in, channels out and stride of each convolution of 3 x 3."""
TEXTURE_FEATURES, ANATOMY_FEATURES = 64, 192
SQUEEZED = 64
MAPS = (7, 11, 13)
"""Place in `anatomy` of the layer after which `maps` takes a map: the last one at each of three sides."""


class Radiograph(nn.Module):
    """From grey images to 256 features: what the pixels are like, and what is where.

    Two stacks of convolutions look at each image. `texture` runs over its own pixels, whatever its size, and is
    averaged over the image, so a grid or grain of one pixel is seen at 64, 128 and 256 px alike. `anatomy` sees the
    image at 64 px, and keeps the places of what it finds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.texture = _stack(TEXTURE)
        self.anatomy = _stack(ANATOMY)
        self.squeeze = nn.Conv2d(ANATOMY[-1][1], SQUEEZED, 1)
        self.texture_out = nn.Linear(TEXTURE[-1][1], TEXTURE_FEATURES)
        self.anatomy_out = nn.Linear(SQUEEZED * (SIDE // 16) ** 2, ANATOMY_FEATURES)

    def forward(self, images: Float32[Tensor, "n 1 h w"]) -> Float32[Tensor, "n 256"]:
        """Run on images from -1 to 1."""
        texture = self.texture_out(self.texture(images).mean((2, 3)))
        found = torch.relu(self.squeeze(self.anatomy(resized(images))))
        return torch.cat([texture, self.anatomy_out(found.flatten(1))], 1)

    def maps(self, images: Float[Tensor, "n 1 h w"]) -> list[Tensor]:
        """Maps of features at a quarter of the side of the images, at an eighth and at a sixteenth.

        Both stacks run over the images as they are: 160 channels of both, then 160 and 192 of `anatomy`.
        """
        found, x = [], images
        for number, layer in enumerate(self.anatomy):
            x = layer(x)
            if number in MAPS:
                found.append(x)
        return [torch.cat([self.texture(images), found[0]], 1), *found[1:]]


def resized(images: Float32[Tensor, "n 1 h w"]) -> Float32[Tensor, "n 1 64 64"]:
    """Images at the side that `anatomy` takes."""
    if images.shape[2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def _stack(layers: tuple[tuple[int, int, int], ...]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for channels, out, stride in layers:
        parts += [nn.Conv2d(channels, out, 3, stride, 1), nn.ReLU()]
    return nn.Sequential(*parts)
