"""Ideas of others that samgan-plus does without, each as a few lines over the package, for `ablation.py` to measure.

    python results/plus/tried.py NAME[,NAME] train cxr64 --out RUN ...    # any arguments of samgan behind the names

A run with one of them can only be read with it, and does not resume exactly: what they remember is in no checkpoint.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samgan.training.step as training
from samgan.commands.main import main
from samgan.config import NetworkConfig, TrainingConfig
from samgan.networks import Discriminator, Generator, MinibatchStdDev, blocks, channels_last, upsample
from samgan.training import augment, loop

Pyramid = list[Tensor]
LECAM_WEIGHT, LECAM_DECAY = 0.1, 0.99
FADE_IMAGES = 2000
"""How many images each scale takes to come in, one after the other."""
TOLD_BETWEEN = 10_000, 40_000
"""Images seen when classes begin to be told, and when they are told in full."""


def lecam() -> None:
    """Keep logits of real images near those that generated ones had on average, and the other way round.

    Source: Tseng et al. 2021 (LeCam), eq. 4.
    """
    plain = training.discriminator_loss
    anchors = [0.0, 0.0]  # of real and of generated images

    def loss(config: TrainingConfig, discriminator: Callable[..., Tensor], *batch: Any) -> Any:
        logits: list[Tensor] = []

        def judge(*arguments: Any, **options: Any) -> Tensor:
            logits.append(discriminator(*arguments, **options))
            return logits[-1]

        value, logged, signs = plain(config, judge, *batch)
        halves = logits[0].float().chunk(2)
        for place, half in enumerate(halves):
            anchors[place] += (1 - LECAM_DECAY) * (float(half.detach().mean()) - anchors[place])
        distance = (halves[0] - anchors[1]).square().mean() + (halves[1] - anchors[0]).square().mean()
        return value + LECAM_WEIGHT * distance, logged, signs

    training.discriminator_loss = loss  # type: ignore[assignment]


def cut_out(pyramid: Pyramid, uniform: Tensor) -> Pyramid:
    """Grey out a square of half a side, at the same place of every scale; `uniform` [n, 2] says where its middle is."""

    def cut(images: Tensor) -> Tensor:
        side = images.shape[-1]
        places = (torch.arange(side, device=images.device) + 0.5) / side
        inside = (places[None, None] - uniform[:, :, None]).abs() < 0.25  # [n, 2, side]
        return images * ~(inside[:, :1, :, None] & inside[:, 1:, None, :])

    return [cut(images) for images in pyramid]


def cutout() -> None:
    """Grey out a square of every image. Source: DeVries and Taylor 2017; Zhao et al. 2020 (DiffAugment)."""

    def cut(pyramid: Pyramid, uniform: Tensor, probability: float) -> Pyramid:
        return cut_out(augment(pyramid, uniform, probability), uniform[:, :2])

    training.augment = cut


def diffaugment() -> None:
    """Shift, brighten, stretch and cut out every image from the first step on, adapting to nothing.

    Source: Zhao et al. 2020 (DiffAugment), its translation, cutout and colour.
    """

    def always(pyramid: Pyramid, uniform: Tensor, probability: float) -> Pyramid:
        changes = uniform.clone()
        changes[:, :3] = 1.0  # no flip, no other size, no turn
        return cut_out(augment(pyramid, changes, 1.0), uniform[:, :2])

    training.augment = always


def low_resolution_first() -> None:
    """Let the details of each scale come in when those of the one below are there, in real and generated images alike.

    Source: Karras et al. 2018 (ProGAN), section 2, with all blocks there from the start.
    """
    plain, seen = training.train_step, [0]

    def step(state: training.TrainingState, *arguments: Any) -> Any:
        seen[0] = state.images_seen
        return plain(state, *arguments)

    def fade(pyramid: Pyramid, uniform: Tensor, probability: float) -> Pyramid:
        shown = augment(pyramid, uniform, probability)
        for scale in range(1, len(shown)):
            missing = 1 - min(max(seen[0] / FADE_IMAGES - scale + 1, 0.0), 1.0)
            if missing:
                shown[scale] = torch.lerp(shown[scale], upsample(F.avg_pool2d(shown[scale], 2)), missing)
        return shown

    training.train_step, training.augment = step, fade  # type: ignore[assignment]


class ShuffledHead(nn.Module):
    """The generator's largest scale as four images of half the side, interleaved: no convolution at full size."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        _, end = blocks._convolutions(config, "generator")
        below = config.channels(config.resolution // 2)
        self.attention = nn.Identity()
        self.to_image = end(below, 4 * config.image_channels, 3, padding=1, gain=blocks.IMAGE_GAIN)

    def forward(self, x: Tensor, latents: Tensor, styles: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """As the generator's other blocks."""
        return x, F.pixel_shuffle(self.to_image(x).float(), 2) + upsample(image)


class UnshuffledHead(nn.Module):
    """The discriminator's largest scale: four pixels become four channels of half the side."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        _, end = blocks._convolutions(config, "discriminator")
        below = config.channels(config.resolution // 2)
        self.attention = nn.Identity()
        self.from_image = end(4 * config.image_channels, below, 3, padding=1, gain=1.0)

    def forward(self, image: Tensor, x: None, labels: Tensor | None = None, batches: int = 1) -> Tensor:
        """As the discriminator's other blocks."""
        return blocks.activate(self.from_image(channels_last(F.pixel_unshuffle(image, 2))))


def pixel_shuffle() -> None:
    """No convolution at full size in either network. Source: Shi et al. 2016 (sub-pixel convolution)."""
    kinds: list[tuple[dict[str, Any], str, type[nn.Module]]] = [
        (blocks.GENERATOR_BLOCKS, "modulated", ShuffledHead),
        (blocks.DISCRIMINATOR_BLOCKS, "residual", UnshuffledHead),
    ]
    for kind, name, head in kinds:

        def choose(config: NetworkConfig, side: int, plain: Any = kind[name], head: Any = head) -> nn.Module:
            return head(config) if side == config.resolution else plain(config, side)

        kind[name] = choose


def mixed_groups() -> None:
    """Take the minibatch standard deviation over images of all classes. Source: Karras et al. 2020 (ADA), its code."""
    plain = MinibatchStdDev.forward

    def mixed(layer: MinibatchStdDev, x: Tensor, labels: Tensor | None = None, batches: int = 1) -> Tensor:
        return plain(layer, x, None, batches)

    MinibatchStdDev.forward = mixed  # type: ignore[assignment, method-assign]


class ClassAtEveryScale(Discriminator):
    """Compares an image with its class after every block, not only after the last one."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        _, end = blocks._convolutions(config, "discriminator")
        self.products: list[Tensor] = []
        for side, block in list(zip(self.resolutions, self.blocks, strict=True))[1:]:
            channels = len(block.get_parameter("conv_2.weight"))
            self.projections[str(side)] = end(channels, config.num_classes, 1, bias=False, gain=1.0)
            block.register_forward_hook(lambda _, __, x, side=side: self.compare(side, x))

    def compare(self, side: int, x: Tensor) -> None:
        """Note <e_k, h> of every class k."""
        self.products.append(self.projections[str(side)](x.mean(dim=(2, 3), keepdim=True)).flatten(1))

    def forward(self, pyramid: Pyramid, labels: Tensor, batches: int = 1) -> Tensor:  # type: ignore[override]
        """The logits, with the terms of all scales."""
        self.products.clear()
        logits = super().forward(pyramid, labels, batches)
        own = labels.repeat(len(logits) // len(labels))[:, None]
        return logits + torch.stack([products.gather(1, own).flatten() for products in self.products]).sum(dim=0)


def class_at_every_scale() -> None:
    """Let the class reach each scale's image by its own way. Source: Zhang et al. 2018 (StackGAN++)."""
    training.Discriminator = ClassAtEveryScale  # type: ignore[misc]


def fading_classes() -> None:
    """Tell both networks nothing of classes at first, then more and more of them.

    Source: Shahbazi et al. 2022 (Collapse by Conditioning), section 4, without its second logit.
    """
    plain, seen = training.train_step, [TOLD_BETWEEN[1]]

    def step(state: training.TrainingState, *arguments: Any) -> Any:
        seen[0] = state.images_seen
        return plain(state, *arguments)

    def told() -> float:
        begin, end = TOLD_BETWEEN
        return min(max((seen[0] - begin) / (end - begin), 0.0), 1.0)

    def less_of_class(mapping: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        latent, of_class = arguments[0].chunk(2, dim=1)
        return (torch.cat([latent, told() * of_class], dim=1),)

    def generator(config: NetworkConfig, plain: Any = Generator) -> nn.Module:
        network = plain(config)
        network.mapping[0].register_forward_pre_hook(less_of_class)
        return network

    def discriminator(config: NetworkConfig, plain: Any = Discriminator) -> nn.Module:
        network = plain(config)
        for projection in network.projections.values():
            projection.register_forward_hook(lambda module, arguments, products: told() * products)
        return network

    training.train_step, training.Generator, training.Discriminator = step, generator, discriminator  # type: ignore


IDEAS = {
    "lecam": lecam,
    "cutout": cutout,
    "diffaugment": diffaugment,
    "low-resolution-first": low_resolution_first,
    "pixel-shuffle": pixel_shuffle,
    "mixed-groups": mixed_groups,
    "class-at-every-scale": class_at_every_scale,
    "fading-classes": fading_classes,
}

if __name__ == "__main__":
    names = sys.argv[1].split(",") if len(sys.argv) > 1 else [""]
    if set(names) - set(IDEAS):
        sys.exit(f"{__doc__}\nKnown: {', '.join(IDEAS)}")
    for name in names:
        IDEAS[name]()
    loop.train_step = training.train_step
    loop.captures = lambda device: False  # ideas count and remember in Python, which a replayed graph does not run
    sys.exit(main(sys.argv[2:]))
