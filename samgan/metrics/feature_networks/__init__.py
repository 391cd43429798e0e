"""Networks that turn images into features: `--features NAME`, each a record and a small file."""

from samgan.metrics.feature_networks.inception import IMAGENET_INCEPTION, INCEPTION
from samgan.metrics.feature_networks.lite0 import LITE0
from samgan.metrics.feature_networks.rad_dino import RAD_DINO
from samgan.metrics.feature_networks.radiograph import RADIOGRAPH
from samgan.metrics.feature_networks.record import FeatureNetwork, Input
from samgan.metrics.feature_networks.torchvision_networks import SWAV, XRV
from samgan.metrics.feature_networks.weights import FeaturesUnavailable

NETWORKS = {
    network.name: network for network in (RADIOGRAPH, INCEPTION, LITE0, SWAV, XRV, RAD_DINO, IMAGENET_INCEPTION)
}
"""By name, in the order of docs/features.md."""

__all__ = ["NETWORKS", "FeatureNetwork", "FeaturesUnavailable", "Input"]
