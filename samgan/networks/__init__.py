"""Generator, discriminator and their layers."""

from samgan.networks.alias_free import (
    AliasFreeBlock,
    AliasFreeConv2d,
    FourierFeatures,
    follow_magnitudes,
    observed_magnitudes,
)
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
from samgan.networks.filters import FilteredActivation, Grid
from samgan.networks.frozen import load_pretrained
from samgan.networks.generator import MAPPING_RATE, Generator
from samgan.networks.growth import begin_small, groups_by_part, load_smaller, reason_not_to_grow
from samgan.networks.inspection import attention_gammas, attention_maps
from samgan.networks.minibatch_std import MinibatchStdDev
from samgan.networks.modulated import ModulatedConv2d
from samgan.networks.pair import Networks
from samgan.networks.projected import tiles_of
from samgan.networks.pyramid import Pyramid, image_pyramid

__all__ = [
    "ATTENTION",
    "MAPPING_RATE",
    "AliasFreeBlock",
    "AliasFreeConv2d",
    "Discriminator",
    "EqualizedConv2d",
    "FilteredActivation",
    "FourierFeatures",
    "Generator",
    "Grid",
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
    "begin_small",
    "channels_last",
    "follow_magnitudes",
    "groups_by_part",
    "image_conv",
    "image_pyramid",
    "load_pretrained",
    "load_smaller",
    "observed_magnitudes",
    "pixel_norm",
    "plain_image_conv",
    "plain_upsample_conv",
    "power_iteration",
    "reason_not_to_grow",
    "tiles_of",
    "upsample",
    "upsample_conv",
]
