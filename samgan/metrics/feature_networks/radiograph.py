"""The features that come with samgan."""

from pathlib import Path

from torch import nn

from samgan.metrics.feature_networks.record import FeatureNetwork, Input, StateDict
from samgan.metrics.feature_networks.weights import FeaturesUnavailable
from samgan.metrics.radiograph import ANATOMY_FEATURES, SHA256, SMALLEST, TEXTURE_FEATURES, Radiograph
from samgan.metrics.weights_here import RADIOGRAPH_FILE


def _build(state: StateDict) -> nn.Module:
    network = Radiograph()
    network.load_state_dict(state)
    return network


def _find(network: FeatureNetwork) -> Path:
    if not RADIOGRAPH_FILE.is_file():
        raise FeaturesUnavailable(f"{RADIOGRAPH_FILE} of the {network.name} features is missing; install samgan again")
    return RADIOGRAPH_FILE


RADIOGRAPH = FeatureNetwork(
    name="radiograph",
    description="a small network of our own, trained on chest X-rays of children and on faults planted in them",
    dim=TEXTURE_FEATURES + ANATOMY_FEATURES,
    input=Input(channels=1, mean=(127.5,), std=(127.5,), at_least=SMALLEST),
    url="",
    megabytes=2,
    licence="Apache-2.0",
    sha256=SHA256,
    build=_build,
    find=_find,
)
"""Source: results/features/train.py and samgan/models/radiograph-features.md."""
