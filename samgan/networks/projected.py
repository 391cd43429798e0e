"""Discriminators with pretrained eyes: a small one for each map of a frozen projection."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from samgan.config import NetworkConfig
from samgan.distributed import gather, world_size
from samgan.networks.configured import attention
from samgan.networks.convolutions import EqualizedConv2d, activate, channels_last
from samgan.networks.frozen import Projection, resize
from samgan.networks.minibatch_std import MinibatchStdDev
from samgan.networks.pyramid import Pyramid, check_labels

LAST = 4
"""Side at which a map becomes logits."""
WIDEST = 4
"""A convolution that halves the side doubles the channels, up to this many times `network.vision_channels`."""
EPSILON = 1e-5  # of batch norm, as in torch
# Drawn from N(0, 1), so that the learning rate turns them as far as layers with equalized rates.
spectral_conv = partial(EqualizedConv2d, spectral=True, spectral_scale="unit")


class HalvingConv2d(EqualizedConv2d):
    """A convolution of 4x4 pixels in steps of two, so that the result has half the side."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h/2 w/2"]:
        """Convolve."""
        weight, bias = self.operands()
        return F.conv2d(x, weight, bias, stride=2, padding=1)


halving_conv = partial(HalvingConv2d, spectral=True, spectral_scale="unit")


class BatchNorm(nn.Module):
    """Scale each channel to mean 0 and variance 1 over the pixels of a batch, then by a gain and an offset of its own.

    The batch is the global batch of all processes. There are no running averages: as with minibatch std, an image is
    always judged among others, so a discriminator sees whether the images of a batch differ.

    Source: Ioffe and Szegedy 2015, algorithm 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "n c h w"], batches: int = 1) -> Float[Tensor, "n c h w"]:
        """Normalise; if x holds several batches, each has its own statistics."""
        return torch.cat([self._of_batch(batch) for batch in x.chunk(batches)])

    def _of_batch(self, x: Tensor) -> Tensor:
        if world_size() == 1:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=EPSILON)
        # Processes have equally many images, so a mean over all is the mean of their means.
        mean = gather(x.mean(dim=(0, 2, 3))[None]).mean(dim=0)[:, None, None]
        variance = gather((x - mean).square().mean(dim=(0, 2, 3))[None]).mean(dim=0)[:, None, None]
        scale = self.weight[:, None, None] * (variance + EPSILON).rsqrt()
        return (x - mean) * scale + self.bias[:, None, None]


class Head(nn.Module):
    """A small discriminator of one map, with spectral norm in every layer.

    At each side, from that of the map down, the images that enter here are added; then come attention and a
    convolution that halves the side, with batch norm. At 4 px come minibatch std and a convolution that gives a logit
    at each place. With classes, <e_y, h> of the features h of the place is added to it.

    Args:
        config: The configuration.
        side: Of the map.
        width: Channels of the map.
        entries: Sides of the images that enter at each side. Those larger than the side give their pixels as channels.
        attentive: Sides with attention.

    Source: Sauer et al. 2021, section 3.2 and its code. Differs: 4x4 logits instead of 5x5; minibatch std; the images
        of MSG-GAN enter.
    """

    def __init__(
        self,
        config: NetworkConfig,
        side: int,
        width: int,
        entries: dict[int, tuple[int, ...]],
        attentive: frozenset[int],
    ) -> None:
        super().__init__()
        self.entries = entries
        self.from_image, self.attention = nn.ModuleDict(), nn.ModuleDict()
        self.halve, self.norm = nn.ModuleDict(), nn.ModuleDict()
        while True:
            for image in entries.get(side, ()):
                channels = config.image_channels * (image // side) ** 2
                self.from_image[str(image)] = spectral_conv(channels, width, 3, padding=1)
            self.attention[str(side)] = attention(config, width, spectral_conv, side in attentive)
            if side == LAST:
                break
            wider = min(2 * width, max(width, WIDEST * config.vision_channels))
            self.halve[str(side)] = halving_conv(width, wider, 4, bias=False)
            self.norm[str(side)] = BatchNorm(wider)
            side, width = side // 2, wider
        has_std = config.minibatch_std != "none"
        self.minibatch_std = MinibatchStdDev(config.minibatch_std_group) if has_std else None
        self.to_logit = spectral_conv(width + has_std, 1, 3, padding=1)
        classes = config.num_classes
        self.of_class = spectral_conv(width, classes, 1, bias=False) if classes else None

    def forward(
        self, x: Tensor, images: dict[int, Tensor], labels: Tensor | None = None, batches: int = 1
    ) -> Float[Tensor, "n places"]:
        """Return the logits of a map, place by place."""
        for side, attend in self.attention.items():
            for entering in self.entries.get(int(side), ()):
                image = F.pixel_unshuffle(images[entering], entering // int(side))
                x = x + self.from_image[str(entering)](channels_last(image))
            x = attend(x)
            if side in self.halve:
                x = activate(self.norm[side](self.halve[side](x), batches))
        logits = self.to_logit(self.minibatch_std(x, labels, batches) if self.minibatch_std else x).flatten(1)
        if self.of_class is None or labels is None:
            return logits
        products = self.of_class(x).flatten(2)  # <e_k, h> for every class k and place
        return logits + products[torch.arange(len(labels), device=labels.device), labels]


class Eyes(nn.Module):
    """A head for each map of the projection of the largest image; the smaller images enter the heads.

    An image enters the head whose map has its side; larger ones enter the head of the largest map, and smaller ones
    that of the smallest, where it has their side. The largest image enters only if the pretrained network sees it
    smaller than it is.

    Args:
        config: The configuration.
        alone: Whether these heads are the whole discriminator. If not, no image enters them and they have no attention,
            since the discriminator beside them has both.

    Source: alone: Sauer et al. 2021 (Projected GAN); beside another discriminator: Kumari et al. 2022 (vision-aided
        GAN), there with a choice among several pretrained networks.
    """

    def __init__(self, config: NetworkConfig, *, alone: bool) -> None:
        super().__init__()
        self.projection = Projection(config)
        self.conditional = bool(config.num_classes)
        sides = self.projection.sides
        smaller = [side for side in config.resolutions if side < config.resolution or side > self.projection.seen]
        entries: list[dict[int, tuple[int, ...]]] = [{} for _ in sides]
        attentive: list[set[int]] = [set() for _ in sides]
        for side in smaller if alone else ():
            place, at = _entry(sides, side)
            entries[place][at] = (*entries[place].get(at, ()), side)
        for side in config.discriminator_attention if alone else ():
            attentive[_entry(sides, side)[0]].add(side)
        self.heads = nn.ModuleList(
            Head(config, *values)
            for values in zip(sides, self.projection.channels, entries, map(frozenset, attentive), strict=True)
        )

    @property
    def attention(self) -> dict[int, nn.Module]:
        """The layer at each side of some head: that of attention, if there is one."""
        layers: dict[int, nn.Module] = {}
        for head in self.heads:
            for side, layer in head.get_submodule("attention").named_children():
                if not isinstance(layer, nn.Identity):
                    layers[int(side)] = layer
        return dict(sorted(layers.items()))

    def forward(
        self,
        pyramid: Pyramid,
        labels: Int[Tensor, " m"] | None = None,
        batches: int = 1,
        tiles: Int[Tensor, " k"] | None = None,
    ) -> Float[Tensor, "n maps places"]:
        """Return a map of logits of every head; the arguments are those of `Discriminator`, and of `with_tiles`."""
        check_labels(labels, wanted=self.conditional)
        if labels is not None:
            labels = labels.repeat(len(pyramid[0]) // len(labels))
        images = {image.shape[-1]: image for image in pyramid}
        largest = pyramid[-1] if tiles is None else with_tiles(pyramid[-1], self.projection.seen, tiles)
        maps = self.projection(largest)
        return torch.stack([head(x, images, labels, batches) for head, x in zip(self.heads, maps, strict=True)], dim=1)


def with_tiles(
    images: Float[Tensor, "n c h w"], side: int, tiles: Int[Tensor, " m"]
) -> Float[Tensor, "n c {side} {side}"]:
    """Make images smaller, or take a tile of them as it is, so that detail is seen.

    Args:
        images: Of one side, a power of two; of one batch or several, one after the other.
        side: Of a tile; larger images are made smaller to it.
        tiles: For each image of a batch, the number of its tile, row by row, from 0 to `tiles_of` - 1; -1: the whole.
    """
    along = images.shape[-1] // side
    if along < 2:
        return images
    tiles = tiles.repeat(len(images) // len(tiles))
    apart = images.unflatten(3, (along, side)).unflatten(2, (along, side))  # n, c, rows, side, columns, side
    every = apart.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    chosen = every[torch.arange(len(images), device=images.device), tiles.clamp(min=0) % along**2]
    return torch.where((tiles >= 0).view(-1, 1, 1, 1), chosen, resize(images, side))


def tiles_of(config: NetworkConfig) -> int:
    """How many tiles the largest image has of which the pretrained network sees one at a time; 0: it sees no tiles."""
    along = config.resolution // config.vision_resolution
    return along**2 if config.vision_tiles and along > 1 else 0


def _entry(sides: list[int], side: int) -> tuple[int, int]:
    """The head that an image of this side enters, and at which side."""
    if side >= sides[0]:
        return 0, sides[0]
    return (sides.index(side), side) if side in sides else (len(sides) - 1, side)
