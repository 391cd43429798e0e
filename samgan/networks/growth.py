"""Networks for larger images that begin as the networks of smaller ones."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from samgan.config import NetworkConfig
from samgan.networks.discriminator import Discriminator
from samgan.networks.generator import Generator

GROWS = {"generator_blocks": ("modulated",), "discriminator_blocks": ("residual", "vision")}
"""The blocks of which a network can begin as that of smaller images, by the setting that chooses them."""
EYES = "eyes."
"""How the names of weights begin that a discriminator with vision blocks has beside its residual blocks."""


def reason_not_to_grow(small: NetworkConfig, large: NetworkConfig) -> str | None:
    """Why networks of these settings cannot begin as those of smaller images, or None if they can."""
    if small.resolution > large.resolution:
        return f"they are for images of {small.resolution} px, which are larger than {large.resolution} px"
    for key, kinds in GROWS.items():
        if getattr(large, key) not in kinds:
            return (
                f"network.{key} is {getattr(large, key)}; only {', '.join(kinds)} blocks can begin with smaller images"
            )
    if large.spectral_norm != "none":
        return "networks with spectral norm cannot begin with smaller images, since new blocks begin with zeros"
    if large.noise == "none" and small.noise != "none":
        return "network.noise is none, so what the smaller networks learnt about noise would be lost"
    widths = {side: (small.channels(side), large.channels(side)) for side in small.resolutions}
    for side, (narrow, wide) in widths.items():
        if narrow != wide:
            return f"at {side} px they have {narrow} channels, not {wide}: give both the same network.channel_base"
    return None


@torch.no_grad()
def _silence(network: Generator | Discriminator, numbers: Sequence[int]) -> None:
    """Set to zero what leads from blocks of these numbers to those below; of a generator, all larger images."""
    if isinstance(network, Generator):
        layers = [block.get_submodule("to_image") for block in itertools.islice(network.blocks, min(numbers), None)]
    else:
        layers = [network.blocks[number].get_submodule(name) for number in numbers for name in ("conv_2", "skip")]
    for layer in layers:
        for parameter in layer.parameters():
            parameter.zero_()


def begin_small(generator: Generator, discriminator: Discriminator, sides: Sequence[int]) -> None:
    """Let the blocks above each of these sides change nothing at first, so that training can begin without them.

    When they join, the generator's larger images are enlargements, and the discriminator's logits are what they were.

    Args:
        generator: With modulated blocks; changed in place.
        discriminator: With residual blocks; changed in place.
        sides: The largest side of each part of the training but the last, one or more.
    """
    for network in (generator, discriminator):
        _silence(network, [network.resolutions.index(side) + 1 for side in sides])


def groups_by_part(network: Generator | Discriminator, sides: Sequence[int]) -> list[tuple[list[nn.Parameter], float]]:
    """The network's `rate_groups`, divided by the part of the training in which a parameter begins to learn."""
    if not sides:
        return network.rate_groups()
    part = {
        id(parameter): sum(resolution > side for side in sides)
        for resolution, block in zip(network.resolutions, network.blocks, strict=False)
        for parameter in block.parameters()
    }
    groups = []
    for parameters, rate in network.rate_groups():
        for number in range(len(sides) + 1):
            own = [parameter for parameter in parameters if part.get(id(parameter), 0) == number]
            groups += [(own, rate)] if own else []
    return groups


def load_smaller(network: Generator | Discriminator, weights: Mapping[str, Tensor]) -> None:
    """Load weights of a network for smaller images, so that the larger one begins as the same function.

    The images of a generator are then those of the smaller one, and enlargements of the largest of them. A
    discriminator gives the logits that the smaller one gives to the smaller scales. What leads from the new blocks to
    the others starts at zero, and learns from the first step on. The heads of vision blocks begin anew if the smaller
    one has none.

    Args:
        network: One whose settings `reason_not_to_grow` accepts; changed in place.
        weights: `state_dict()` of the smaller one, or of one of the same size.

    Raises:
        RuntimeError: They are not of such a network.

    Source: Karras et al. 2018 (ProGAN), section 2, which fades new blocks in; here each block starts at nothing, as
    those of Zhang et al. 2019 (Fixup) do.
    """
    before = 1 + max((int(name.split(".")[1]) for name in weights if name.startswith("blocks.")), default=0)
    new = [f"blocks.{number}" for number in range(before, len(network.blocks))]
    initial = network.state_dict()
    # The block that was the largest had no noise, whose strength starts at zero.
    fresh = {name for name in initial if name.startswith(tuple(new)) or (new and name.endswith(".noise"))}
    if not any(name.startswith(EYES) for name in weights):
        fresh |= {name for name in initial if name.startswith(EYES)}
    network.load_state_dict({**{name: initial[name] for name in fresh}, **weights})
    if not new:
        return
    _silence(network, [before])
    if isinstance(network, Discriminator):
        # Features of an image are joined with those from above as (x + f) / sqrt(2), and without them as f.
        for parameter in network.blocks[before - 1].get_submodule("from_image").parameters():
            parameter.data.mul_(2**0.5)
