"""Names and numbers that are known without torch."""

PERCENTILE = 0.01
"""Share of held-out images that may be as close to a training image as an image that counts as close."""
COPY = 0.001
"""Distance in pixels below which an image is a copy. Real exposures of one patient can be 0.002 apart at 64 px."""
PLAIN_CHANGES = ("blurred, 3x3 mean", "noise, sd 10 of 255")
"""Changes of `samgan.metrics.planted` that move nothing. An audit that misses such copies finds hardly any."""
FEATURES = ("radiograph", "inception", "lite0", "swav", "xrv", "rad-dino", "imagenet-inception")
"""Names of the networks in `samgan.metrics.feature_networks`."""
