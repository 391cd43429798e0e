"""Image pyramids: lists of images of sides 4, 8, ..., resolution, smallest first, float32 around [-1, 1]."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Pyramid = list[Tensor]


def check_labels(labels: Tensor | None, wanted: bool) -> None:
    """Raise a ValueError if labels are missing, or given to a network without classes."""
    if (labels is not None) != wanted:
        raise ValueError("expected labels if, and only if, network.num_classes is not 0")


def image_pyramid(images: Float[Tensor, "n c h w"], resolutions: tuple[int, ...]) -> Pyramid:
    """Average `images` down to every side in `resolutions`, smallest first. Source: MSG-GAN, section 2."""
    pyramid = [images]
    for _ in resolutions[1:]:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return pyramid[::-1]
