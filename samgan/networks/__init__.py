"""Generator, discriminator and their layers."""

from samgan.networks.attention import ATTENTION, LinearAttention, SelfAttention
from samgan.networks.convolutions import (
    EqualizedConv2d,
    activate,
    activate_and_normalize,
    channels_last,
    image_conv,
    pixel_norm,
    plain_image_conv,
    plain_upsample_conv,
    power_iteration,
    upsample,
    upsample_conv,
)
from samgan.networks.discriminator import Discriminator
from samgan.networks.frozen import load_pretrained
from samgan.networks.generator import MAPPING_RATE, Generator
from samgan.networks.inspection import attention_gammas, attention_maps
from samgan.networks.minibatch_std import MinibatchStdDev
from samgan.networks.modulated import ModulatedConv2d
from samgan.networks.pair import Networks
from samgan.networks.pyramid import Pyramid, image_pyramid

__all__ = [
    "ATTENTION",
    "MAPPING_RATE",
    "Discriminator",
    "EqualizedConv2d",
    "Generator",
    "LinearAttention",
    "MinibatchStdDev",
    "ModulatedConv2d",
    "Networks",
    "Pyramid",
    "SelfAttention",
    "activate",
    "activate_and_normalize",
    "attention_gammas",
    "attention_maps",
    "channels_last",
    "image_conv",
    "image_pyramid",
    "load_pretrained",
    "pixel_norm",
    "plain_image_conv",
    "plain_upsample_conv",
    "power_iteration",
    "upsample",
    "upsample_conv",
]
