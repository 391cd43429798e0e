"""The discriminator: from an image at every scale to one logit."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from samgan.config import NetworkConfig
from samgan.networks.blocks import DISCRIMINATOR_BLOCKS
from samgan.networks.configured import convolutions
from samgan.networks.projected import Eyes
from samgan.networks.pyramid import Pyramid, check_labels


class Discriminator(nn.Module):
    """Map a pyramid to one raw logit per image; the image of each scale enters at its own block, if there is one.

    With classes, the logit of an image with class y is

        C(x, y) = C(x) + <e_y, h(x)>

    where h is the features after the last block, averaged over their pixels. e is initialised and normalised like the
    weight of the logit.

    With projected blocks there are no blocks, but `eyes`, which see through a pretrained network and give a map of
    logits each. With vision blocks, these are beside the blocks, and the logit is that of the blocks.

    Source: Karnewar and Wang 2020 (MSG-GAN), section 2; the combine functions: its section 2.2. Classes: Miyato and
    Koyama 2018, section 3.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.resolutions, self.image_sides = config.resolutions, config.image_sides
        self.enters_anywhere = config.discriminator_blocks == "residual"
        block = DISCRIMINATOR_BLOCKS[config.discriminator_blocks]
        self.blocks = nn.ModuleList(block(config, side) for side in config.resolutions if block)
        self.projections = nn.ModuleDict()  # keys: resolution of the block whose features they take
        self.eyes = Eyes(config, alone=not self.blocks) if config.sees else None
        if config.num_classes and self.blocks:
            _, end = convolutions(config, "discriminator")
            channels = self.blocks[0].get_parameter("to_logit.weight").shape[1]
            self.projections["4"] = end(channels, config.num_classes, 1, bias=False, gain=1.0)

    def rate_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Groups of parameters, each with a factor for the learning rate; here one group of all."""
        return [(list(self.parameters()), 1.0)]

    @property
    def beside(self) -> Eyes | None:
        """Discriminators beside the blocks, which have losses of their own; they are called as this one is."""
        return self.eyes if self.blocks else None

    def forward(
        self, pyramid: Pyramid, labels: Int[Tensor, " m"] | None = None, batches: int = 1
    ) -> Float[Tensor, "n ..."]:
        """Return the logits of a pyramid, given smallest image first; without blocks, maps [n, maps, places] of them.

        Args:
            pyramid: Images [n, channels, side, side] of every scale, or of the largest alone (`network.scales`). With
                residual blocks, the largest scales may be left out, and so are their blocks.
            labels: Class of each image, 0 to num_classes - 1; or, if image i of each batch has the same class, only
                the classes of one batch.
            batches: Number of batches of equal size, one after another in the pyramid. They do not affect each other:
                minibatch std is computed for each batch separately.

        Raises:
            ValueError: The images do not have the sides this network was built for, in that order; labels are missing,
                or were given to a network without classes.
        """
        sides = tuple(image.shape[-1] for image in pyramid)
        if not sides or sides != (self.image_sides[: len(sides)] if self.enters_anywhere else self.image_sides):
            raise ValueError(f"expected images of sides {self.image_sides}, smallest first; got {sides}")
        if self.eyes is not None and not self.blocks:
            return self.eyes(pyramid, labels, batches)
        check_labels(labels, wanted=len(self.projections) > 0)
        if labels is not None:
            labels = labels.repeat(len(pyramid[0]) // len(labels))
        x: Any = None
        images = dict(zip(sides, pyramid, strict=True))
        for block, side in zip(reversed(self.blocks), reversed(self.resolutions), strict=True):
            if side <= sides[-1]:
                x = block(images.get(side), x, labels, batches)
        logits = self.blocks[0].get_submodule("to_logit")(x).flatten()
        if labels is None:
            return logits
        products = self.projections["4"](x.mean(dim=(2, 3), keepdim=True)).flatten(1)  # <e_k, h> for every class k
        return logits + products.gather(1, labels[:, None]).flatten()
