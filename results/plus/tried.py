"""Ideas of others that samgan-plus does without, each as a recipe of a few lines, for `ablation.py` to measure.

    python results/plus/tried.py NAME[,NAME] train cxr64 --out RUN [--classes NAME ...] [--minutes N] [--KEY=VALUE ...]
    python results/plus/tried.py NAME[,NAME] evaluate RUN --data cxr64 --features FEATURES.pt [--count N] [--out DIR]

A run with one of them can only be read with the same names, and does not resume exactly: what an idea remembers is not
in the checkpoints.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import samgan
from samgan.commands.settings import split_settings
from samgan.config import NetworkConfig
from samgan.errors import SamganError
from samgan.networks import Discriminator, Generator, MinibatchStdDev, Networks, activate, channels_last, upsample
from samgan.networks.blocks import IMAGE_GAIN, convolutions
from samgan.sampling import Source
from samgan.training import Recipe

Pyramid = list[Tensor]
LECAM_WEIGHT, LECAM_DECAY = 0.1, 0.99
FADE_IMAGES = 2000
"""How many images each scale takes to come in, one after the other."""
TOLD_BETWEEN = 10_000, 40_000
"""Images seen when the networks begin to be told the class, and when they are told it in full."""


def lecam(recipe: Recipe) -> Recipe:
    """Keep logits of real images near those that generated ones had on average, and the other way round.

    Source: Tseng et al. 2021 (LeCam), eq. 4.
    """
    anchors = [0.0, 0.0]  # of real and of generated images

    def distance(real: Tensor, fake: Tensor) -> Tensor:
        for place, logits in enumerate((real, fake)):
            anchors[place] += (1 - LECAM_DECAY) * (float(logits.detach().mean()) - anchors[place])
        return LECAM_WEIGHT * ((real - anchors[1]).square().mean() + (fake - anchors[0]).square().mean())

    return replace(recipe, regularizer=distance, repeatable=False)


def cut_out(pyramid: Pyramid, uniform: Tensor) -> Pyramid:
    """Grey out a square of half a side, at the same place of every scale; `uniform` [n, 2] says where its middle is."""

    def cut(images: Tensor) -> Tensor:
        side = images.shape[-1]
        places = (torch.arange(side, device=images.device) + 0.5) / side
        inside = (places[None, None] - uniform[:, :, None]).abs() < 0.25  # [n, 2, side]
        return images * ~(inside[:, :1, :, None] & inside[:, 1:, None, :])

    return [cut(images) for images in pyramid]


def cutout(recipe: Recipe) -> Recipe:
    """Grey out a square of every image. Source: DeVries and Taylor 2017; Zhao et al. 2020 (DiffAugment)."""
    plain = recipe.augmentation

    def cut(pyramid: Pyramid, uniform: Tensor, probability: float | Tensor) -> Pyramid:
        return cut_out(plain(pyramid, uniform, probability), uniform[:, :2])

    return replace(recipe, augmentation=cut)


def diffaugment(recipe: Recipe) -> Recipe:
    """Shift, brighten, stretch and cut out every image from the first step on, adapting to nothing.

    Source: Zhao et al. 2020 (DiffAugment), its translation, cutout and colour.
    """
    plain = recipe.augmentation

    def always(pyramid: Pyramid, uniform: Tensor, probability: float | Tensor) -> Pyramid:
        changes = uniform.clone()
        changes[:, :3] = 1.0  # no flip, no other size, no turn
        return cut_out(plain(pyramid, changes, 1.0), uniform[:, :2])

    return replace(recipe, augmentation=always)


def low_resolution_first(recipe: Recipe) -> Recipe:
    """Let the details of each scale come in when those of the one below are there, in real and generated images alike.

    Source: Karras et al. 2018 (ProGAN), section 2, with all blocks there from the start.
    """
    plain, seen = recipe.augmentation, [0]

    def fade(pyramid: Pyramid, uniform: Tensor, probability: float | Tensor) -> Pyramid:
        shown = list(plain(pyramid, uniform, probability))
        for scale in range(1, len(shown)):
            missing = 1 - min(max(seen[0] / FADE_IMAGES - scale + 1, 0.0), 1.0)
            if missing:
                shown[scale] = torch.lerp(shown[scale], upsample(F.avg_pool2d(shown[scale], 2)), missing)
        return shown

    return replace(recipe, augmentation=fade, before_step=_both(recipe.before_step, _remember(seen)), repeatable=False)


def _remember(seen: list[int]) -> Callable[[int], None]:
    def remember(images_seen: int) -> None:
        seen[0] = images_seen

    return remember


def _both(first: Callable[[int], None] | None, second: Callable[[int], None]) -> Callable[[int], None]:
    def both(images_seen: int) -> None:
        if first is not None:
            first(images_seen)
        second(images_seen)

    return both


class ShuffledHead(nn.Module):
    """The generator's largest scale as four images of half the side, interleaved: no convolution at full size."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        _, end = convolutions(config, "generator")
        below = config.channels(config.resolution // 2)
        self.attention = nn.Identity()
        self.to_image = end(below, 4 * config.image_channels, 3, padding=1, gain=IMAGE_GAIN)

    def forward(self, x: Tensor, latents: Tensor, styles: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """As the generator's other blocks."""
        return x, F.pixel_shuffle(self.to_image(x).float(), 2) + upsample(image)


class UnshuffledHead(nn.Module):
    """The discriminator's largest scale: four pixels become four channels of half the side."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        _, end = convolutions(config, "discriminator")
        below = config.channels(config.resolution // 2)
        self.attention = nn.Identity()
        self.from_image = end(4 * config.image_channels, below, 3, padding=1, gain=1.0)

    def forward(self, image: Tensor, x: None, labels: Tensor | None = None, batches: int = 1) -> Tensor:
        """As the discriminator's other blocks."""
        return activate(self.from_image(channels_last(F.pixel_unshuffle(image, 2))))


def pixel_shuffle(recipe: Recipe) -> Recipe:
    """No convolution at full size in either network. Source: Shi et al. 2016 (sub-pixel convolution)."""
    plain = recipe.networks

    def generator(config: NetworkConfig) -> Generator:
        network = plain.generator(config)
        network.blocks[-1] = ShuffledHead(config)
        return network

    def discriminator(config: NetworkConfig) -> Discriminator:
        network = plain.discriminator(config)
        network.blocks[-1] = UnshuffledHead(config)
        return network

    return replace(recipe, networks=Networks(generator, discriminator))


class MixedMinibatchStdDev(MinibatchStdDev):
    """The minibatch standard deviation over images of all classes."""

    def forward(self, x: Tensor, labels: Tensor | None = None, batches: int = 1) -> Tensor:
        """As without classes."""
        return super().forward(x, None, batches)


def mixed_groups(recipe: Recipe) -> Recipe:
    """Take the minibatch standard deviation over images of all classes. Source: Karras et al. 2020 (ADA), its code."""
    plain = recipe.networks.discriminator

    def discriminator(config: NetworkConfig) -> Discriminator:
        network = plain(config)
        for block in network.blocks:
            if isinstance(getattr(block, "minibatch_std", None), MinibatchStdDev):
                block.minibatch_std = MixedMinibatchStdDev(config.minibatch_std_group)
        return network

    return replace(recipe, networks=replace(recipe.networks, discriminator=discriminator))


def class_at_every_scale(recipe: Recipe) -> Recipe:
    """Compare an image with its class after every block, as StackGAN++ does (Zhang et al. 2018), not only at the end.

    C(x, y) = C(x) + sum_s <e_sy, h_s(x)>, with h_s the features after block s, averaged over their pixels
    """
    plain = recipe.networks.discriminator

    def discriminator(config: NetworkConfig) -> Discriminator:
        network = plain(config)
        _, end = convolutions(config, "discriminator")
        products: list[Tensor] = []  # of each further scale, <e_sk, h_s> of every class k
        for side, block in list(zip(network.resolutions, network.blocks, strict=True))[1:]:
            channels = len(block.get_parameter("conv_2.weight"))
            projection = end(channels, config.num_classes, 1, bias=False, gain=1.0)
            network.projections[str(side)] = projection
            block.register_forward_hook(
                lambda _, __, x, p=projection: products.append(p(x.mean(dim=(2, 3), keepdim=True)).flatten(1))
            )

        def add(_: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor], logits: Tensor) -> Tensor:
            labels = named["labels"] if "labels" in named else arguments[1]
            own = labels.repeat(len(logits) // len(labels))[:, None]
            terms = torch.stack([found.gather(1, own).flatten() for found in products]).sum(dim=0)
            products.clear()
            return logits + terms

        network.register_forward_hook(add, with_kwargs=True)
        return network

    return replace(recipe, networks=replace(recipe.networks, discriminator=discriminator))


def fading_classes(recipe: Recipe) -> Recipe:
    """Tell both networks nothing of the class at first, then more and more.

    Source: Shahbazi et al. 2022 (Collapse by Conditioning), section 4, without its second logit.
    """
    plain, seen = recipe.networks, [TOLD_BETWEEN[1]]

    def told() -> float:
        begin, end = TOLD_BETWEEN
        return min(max((seen[0] - begin) / (end - begin), 0.0), 1.0)

    def less_of_class(mapping: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        latent, of_class = arguments[0].chunk(2, dim=1)
        return (torch.cat([latent, told() * of_class], dim=1),)

    def generator(config: NetworkConfig) -> Generator:
        network = plain.generator(config)
        network.mapping[0].register_forward_pre_hook(less_of_class)
        return network

    def discriminator(config: NetworkConfig) -> Discriminator:
        network = plain.discriminator(config)
        for projection in network.projections.values():
            projection.register_forward_hook(lambda module, arguments, products: told() * products)
        return network

    before_step = _both(recipe.before_step, _remember(seen))
    return replace(recipe, networks=Networks(generator, discriminator), before_step=before_step, repeatable=False)


IDEAS: dict[str, Callable[[Recipe], Recipe]] = {
    "lecam": lecam,
    "cutout": cutout,
    "diffaugment": diffaugment,
    "low-resolution-first": low_resolution_first,
    "pixel-shuffle": pixel_shuffle,
    "mixed-groups": mixed_groups,
    "class-at-every-scale": class_at_every_scale,
    "fading-classes": fading_classes,
}


def main(arguments: list[str]) -> None:
    """See the module's text."""
    words, settings = split_settings(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME[,NAME]", help=", ".join(IDEAS))
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("data", type=Path)
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--minutes", type=float)
    evaluate = commands.add_parser("evaluate")
    evaluate.add_argument("run", type=Path)
    evaluate.add_argument("--data", type=Path, required=True)
    evaluate.add_argument("--out", type=Path)
    evaluate.add_argument("--count", type=int)
    evaluate.add_argument("--features", type=Path, required=True)
    evaluate.add_argument("--checkpoint", default="newest")
    for command in (train, evaluate):
        command.add_argument("--classes", nargs="+", default=[])
        command.add_argument("--device", default="auto")
    options = parser.parse_args(words)
    names = options.names.split(",")
    if unknown := set(names) - set(IDEAS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(IDEAS)}")
    data = samgan.PreparedSet.open(options.data)
    if options.command == "train":
        config = samgan.preset_config().override({"network.resolution": data.resolution, **settings})
        config = config.override({"network.image_channels": data.channels, "data.classes": options.classes})
        recipe = Recipe.of(config.training)
        for name in names:
            recipe = IDEAS[name](recipe)
        samgan.train(config, data, options.out, minutes=options.minutes, device=options.device, recipe=recipe)
        return
    recipe = Recipe.of(samgan.preset_config().training)  # reading a run asks for its networks only
    for name in names:
        recipe = IDEAS[name](recipe)
    source = Source.open(
        options.run, checkpoint=options.checkpoint, device=options.device, generator=recipe.networks.generator
    )
    samgan.evaluate(
        source,
        data,
        classes=options.classes,
        count=options.count,
        features=str(options.features),
        out=options.out,
        device=options.device,
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SamganError as error:
        sys.exit(f"tried.py: error: {error}")
