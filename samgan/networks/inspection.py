"""What the attention layers of a network have learned: gates and maps."""

from typing import Any

from torch import Tensor, nn

from samgan.networks.attention import SelfAttention, SqueezeExcitation
from samgan.networks.discriminator import Discriminator
from samgan.networks.generator import Generator


def attention_gammas(network: Generator | Discriminator) -> dict[int, Tensor]:
    """The gate gamma of each attention layer, by resolution."""
    return {
        side: layer.gamma.detach()
        for side, layer in _layers(network).items()
        if isinstance(layer, SelfAttention | SqueezeExcitation)
    }


def _layers(network: Generator | Discriminator) -> dict[int, nn.Module]:
    """By resolution, what stands where attention may be."""
    if isinstance(network, Discriminator) and network.eyes is not None and not network.blocks:
        return network.eyes.attention
    return {4 << scale: block.get_submodule("attention") for scale, block in enumerate(network.blocks)}


def attention_maps(network: Generator | Discriminator, *inputs: Any, from_centre: bool = False) -> dict[int, Tensor]:
    """Where each layer of self, linear or dual attention looks, for pictures.

    Args:
        network: Either network.
        inputs: The arguments of its forward pass.
        from_centre: Only where the position right below the centre looks. Maps of all positions of an image take
            gigabytes at 256 px.

    Returns:
        By resolution: beta of eq. 3, [n, queries, keys], with positions row by row; with pooling, keys have half the
        side. In alias-free blocks, positions are those of a finer grid, with margins beyond the image. Empty for kinds
        of attention that do not compare positions.
    """
    maps: dict[int, Tensor] = {}
    hooks = []
    for place, found in _layers(network).items():
        if isinstance(found, SelfAttention):  # or a subclass

            def keep(layer: SelfAttention, arguments: tuple[Tensor], side: int = place) -> None:
                height, width = arguments[0].shape[2:]
                centre = height // 2 * width + width // 2
                queries = slice(centre, centre + 1) if from_centre else slice(None)
                maps[side] = layer.attention_maps(arguments[0], queries)

            hooks.append(found.register_forward_pre_hook(keep))
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
