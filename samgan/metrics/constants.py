"""Names and numbers that are known without torch."""

PERCENTILE = 0.01
"""Share of held-out images that may be as close to a training image as an image that counts as close."""
FEATURES = ("radiograph", "inception", "lite0", "swav", "xrv", "rad-dino", "imagenet-inception")
"""Names of the networks in `samgan.metrics.feature_networks`."""
