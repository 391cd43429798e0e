"""What an evaluation says beside its scores."""

import pytest
import torch

from samgan.metrics.features import FeatureExtractor
from samgan.presets import preset_config
from samgan.scoring.evaluate import flattered


@pytest.mark.parametrize(
    ("preset", "eyes", "features", "told"),
    [
        ("samgan-projected", "lite0", "lite0", True),
        ("samgan-vision", "lite0", "lite0 (non-standard weights sha256:01234567)", True),
        ("samgan-vision", "radiograph", "radiograph", True),
        ("samgan-vision", "lite0", "radiograph", False),
        ("samgan-plus", "lite0", "lite0", False),
    ],
)
def test_scores_by_the_features_a_discriminator_saw_are_said_to_flatter(preset, eyes, features, told):
    config = preset_config(preset).override({"network.vision_features": eyes})
    extractor = FeatureExtractor(torch.nn.Identity(), name=features, sha256="", device=torch.device("cpu"))
    said = flattered(config, extractor)
    assert len(said) == told
    assert all(f"scores by {eyes} flatter this model" in sentence for sentence in said)


def test_images_without_settings_and_scores_without_features_are_not_flattered():
    extractor = FeatureExtractor(torch.nn.Identity(), name="lite0", sha256="", device=torch.device("cpu"))
    assert flattered(None, extractor) == flattered(preset_config("samgan-vision"), None) == []
