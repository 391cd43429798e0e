"""The layers that blocks of every kind have, as the configuration wants them."""

from collections.abc import Callable
from functools import partial

from torch import nn

from samgan.config import NetworkConfig
from samgan.networks.attention import ATTENTION, SelfAttention
from samgan.networks.convolutions import EqualizedConv2d


def convolutions(config: NetworkConfig, network: str) -> tuple[Callable[..., EqualizedConv2d], ...]:
    """Constructors of a hidden convolution and of a convolution at the network's ends (images, logits)."""
    spectral = config.spectral_norm in (network, "both")
    conv = partial(EqualizedConv2d, equalized=config.equalized_lr, spectral_scale=config.spectral_norm_scale)
    return partial(conv, spectral=spectral), partial(conv, spectral=spectral and config.spectral_norm_layers == "all")


def attention(config: NetworkConfig, channels: int, conv: Callable[..., EqualizedConv2d], used: bool) -> nn.Module:
    """The layer of attention of a block, or none."""
    if not used:
        return nn.Identity()
    kind = ATTENTION[config.attention_kind]
    if not issubclass(kind, SelfAttention):
        return kind(channels, conv, reduction=config.attention_reduction)
    return kind(
        channels,
        conv,
        reduction=config.attention_reduction,
        value_reduction=config.attention_value_reduction,
        pooled=config.attention_pooled,
    )
