"""The generator and the discriminator that are trained against each other."""

from collections.abc import Callable
from dataclasses import dataclass

from samgan.config import NetworkConfig
from samgan.networks.discriminator import Discriminator
from samgan.networks.generator import Generator


@dataclass(frozen=True)
class Networks:
    """Constructors of the two networks; the default ones read everything else from the configuration."""

    generator: Callable[[NetworkConfig], Generator] = Generator
    discriminator: Callable[[NetworkConfig], Discriminator] = Discriminator
