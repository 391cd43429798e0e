"""The discriminator: from an image at every scale to one logit."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from samgan.config import NetworkConfig
from samgan.networks.blocks import DISCRIMINATOR_BLOCKS
from samgan.networks.configured import convolutions
from samgan.networks.pyramid import Pyramid, check_labels


class Discriminator(nn.Module):
    """Map a pyramid to one raw logit per image; the image of each scale enters at its own block, if there is one.

    With classes, the logit of an image with class y is

        C(x, y) = C(x) + <e_y, h(x)>

    where h is the features after the last block, averaged over their pixels. e is initialised and normalised like the
    weight of the logit.

    Source: Karnewar and Wang 2020 (MSG-GAN), section 2; the combine functions: its section 2.2. Classes: Miyato and
    Koyama 2018, section 3.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.resolutions, self.image_sides = config.resolutions, config.image_sides
        block = DISCRIMINATOR_BLOCKS[config.discriminator_blocks]
        self.blocks = nn.ModuleList(block(config, side) for side in config.resolutions)
        self.projections = nn.ModuleDict()  # keys: resolution of the block whose features they take
        if config.num_classes:
            _, end = convolutions(config, "discriminator")
            channels = self.blocks[0].get_parameter("to_logit.weight").shape[1]
            self.projections["4"] = end(channels, config.num_classes, 1, bias=False, gain=1.0)

    def rate_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Groups of parameters, each with a factor for the learning rate; here one group of all."""
        return [(list(self.parameters()), 1.0)]

    def forward(
        self, pyramid: Pyramid, labels: Int[Tensor, " m"] | None = None, batches: int = 1
    ) -> Float[Tensor, " n"]:
        """Return the logits of a pyramid, given smallest image first.

        Args:
            pyramid: Images [n, channels, side, side] of every scale, or of the largest alone (`network.scales`).
            labels: Class of each image, 0 to num_classes - 1; or, if image i of each batch has the same class, only
                the classes of one batch.
            batches: Number of batches of equal size, one after another in the pyramid. They do not affect each other:
                minibatch std is computed for each batch separately.

        Raises:
            ValueError: The images do not have the sides this network was built for, in that order; labels are missing,
                or were given to a network without classes.
        """
        check_labels(labels, wanted=len(self.projections) > 0)
        sides = tuple(image.shape[-1] for image in pyramid)
        if sides != self.image_sides:
            raise ValueError(f"expected images of sides {self.image_sides}, smallest first; got {sides}")
        if labels is not None:
            labels = labels.repeat(len(pyramid[0]) // len(labels))
        x: Any = None
        images = dict(zip(sides, pyramid, strict=True))
        for block, side in zip(reversed(self.blocks), reversed(self.resolutions), strict=True):
            x = block(images.get(side), x, labels, batches)
        logits = self.blocks[0].get_submodule("to_logit")(x).flatten()
        if labels is None:
            return logits
        products = self.projections["4"](x.mean(dim=(2, 3), keepdim=True)).flatten(1)  # <e_k, h> for every class k
        return logits + products.gather(1, labels[:, None]).flatten()
