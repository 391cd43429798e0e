"""The built-in features: a small network that was trained on chest X-rays and on faults planted in them."""

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.errors import SamganError, first_line
from samgan.metrics.features import FeatureExtractor

FILE = Path(__file__).parents[1] / "models" / "radiograph-features.safetensors"
SHA256 = "a843e2a22055c1fde3cedfc0de90f217a2000e3124c8f2724f1f269c6cfcbe92"
SMALLEST = 64
"""Side in pixels below which images are refused."""
SIDE = 64
"""Side in pixels at which anatomy is looked at."""
TEXTURE = ((1, 16, 1), (16, 32, 2), (32, 64, 2), (64, 64, 1))
ANATOMY = ((1, 32, 2), (32, 48, 1), (48, 64, 2), (64, 96, 1), (96, 128, 2), (128, 160, 1), (160, 192, 2))
"""Channels in, channels out and stride of each convolution of 3 x 3."""
TEXTURE_FEATURES, ANATOMY_FEATURES = 64, 192
SQUEEZED = 64


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


def load_radiograph(path: Path | None = None, device: str | torch.device = "cpu") -> FeatureExtractor:
    """Load the built-in features.

    Args:
        path: weights of the same network; None for those that come with samgan.
        device: where to run the network.

    Returns:
        The extractor, of uint8 images of one channel (or three, which are averaged) and 64 px or more.

    Raises:
        SamganError: the file cannot be read or holds something else, or the one that comes with samgan was changed.
    """
    file, device = path or FILE, torch.device(device)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SamganError(f"cannot read {file}: {error.strerror}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if path is None and sha256 != SHA256:
        raise SamganError(f"{file} was changed: expected sha256 {SHA256}, found {sha256}; install samgan again")
    network = Radiograph()
    try:
        network.load_state_dict({name: weight.float() for name, weight in safetensors.torch.load(data).items()})
    except Exception as error:  # safetensors and torch raise several kinds
        raise SamganError(
            f"{file} does not hold the weights of the radiograph features: {first_line(error)}"
        ) from error
    network = network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)

    def features(images: UInt8[Tensor, "n c h w"]) -> Float32[Tensor, "n 256"]:
        if min(images.shape[2:]) < SMALLEST:
            raise SamganError(f"the radiograph features need images of {SMALLEST} px or more")
        return network(images.float().mean(1, keepdim=True) / 127.5 - 1)

    name = "radiograph" if sha256 == SHA256 else f"radiograph (other weights sha256:{sha256[:8]})"
    dim = TEXTURE_FEATURES + ANATOMY_FEATURES
    return FeatureExtractor(features, name=name, sha256=sha256, device=device, dim=dim)
