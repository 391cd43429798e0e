"""Compare the times of scores, screening and audit with their goals, and scores with torchmetrics and torch-fidelity.

    python benchmarks/bench_metrics.py [--rounds 3] [--json]

Needs the test requirements (pip install 'samgan[test]'). The weights of the Inception network are random, since only
time is measured; both sides read the same file. Ratios are medians over rounds in which both sides take turns.
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from lines import Line, add_json_option, show
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from samgan.data import prepare
from samgan.data.phantom import phantoms
from samgan.metrics.features import extract
from samgan.metrics.frechet import frechet_distance, kernel_distance
from samgan.metrics.load_features import load_features
from samgan.metrics.ms_ssim import mean_ms_ssim, ms_ssim
from samgan.metrics.prdc import prdc
from samgan.trust import Screen, audit

IMAGES = 3616  # as in the paper
TRAINING, HELD_OUT = 5216, 1304
SMALLEST_FOR_TORCHMETRICS = 176  # the five-scale definition with a window of 11 needs 161 px


def seconds(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def times_as_fast(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> float:
    """Median of their time / our time over rounds."""
    ours(), theirs()
    return statistics.median(seconds(theirs) / seconds(ours) for _ in range(rounds))


def noise(count: int, side: int, channels: int = 1) -> torch.Tensor:
    """Random uint8 images."""
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)


def similarity(rounds: int) -> list[Line]:
    """Time MS-SSIM."""
    images = noise(IMAGES, 64)
    taken = statistics.median(seconds(lambda: mean_ms_ssim(images)) for _ in range(rounds))
    side = SMALLEST_FOR_TORCHMETRICS
    a, b = noise(64, side).float(), noise(64, side).float()
    ratio = times_as_fast(
        lambda: ms_ssim(a, b), lambda: multiscale_structural_similarity_index_measure(a, b, data_range=255.0), rounds
    )
    return [
        Line(f"MS-SSIM of {IMAGES} pairs at 64 px", taken, 2.0, " s"),
        Line(f"MS-SSIM of 64 pairs at {side} px: times as fast as torchmetrics", ratio, 10.0, at_least=True),
    ]


def random_inception(path: Path) -> None:
    """Write a weights file with the shapes of the standard network."""
    nothing = mock.Mock(return_value={})
    with (
        mock.patch("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", nothing),
        mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        network = FeatureExtractorInceptionV3("inception", ["2048"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)


def features(rounds: int) -> list[Line]:
    """Time Inception features."""
    images = noise(64, 64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "inception.pth")
        random_inception(path)
        ours = load_features("inception", features_file=path)
        theirs = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
    with torch.no_grad():
        ratio = times_as_fast(lambda: ours(images), lambda: theirs(images.expand(-1, 3, -1, -1)), rounds)
        rate = len(images) / seconds(lambda: ours(images))
        expected = theirs(images.expand(-1, 3, -1, -1))[0]
    difference = float((ours(images) - expected).abs().max() / expected.abs().max())
    note = f"{rate:.1f} images/s, features equal to {difference:.0e}"
    return [Line("Inception features: times as fast as torch-fidelity", ratio, 1.3, at_least=True, note=note)]


def distances() -> list[Line]:
    """Time the scores that are computed from features."""
    real, fake = (torch.randn(IMAGES, 2048).abs() for _ in range(2))
    taken = {f.__name__: seconds(lambda f=f: f(real, fake)) for f in (frechet_distance, kernel_distance, prdc)}
    note = ", ".join(f"{name} {value:.1f} s" for name, value in taken.items())
    name = f"FID + KID + PRDC of {IMAGES} / {IMAGES} features of 2,048"
    return [Line(name, sum(taken.values()), 10.0, " s", note=note)]


def copies() -> list[Line]:
    """Time screening and audit of 3,616 images against 5,216 training images, as in Kermany's set, and 1,304 held out.

    Features cost almost nothing here. Those of an Inception network take longer, but are computed once and kept.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chests, draw = phantoms(256, 64, pneumonia=False), np.random.default_rng(0)
        pairs = draw.choice(len(chests), (TRAINING + HELD_OUT + IMAGES, 2))
        share = draw.uniform(size=(len(pairs), 1, 1, 1))
        images = np.rint(chests[pairs[:, 0]] * share + chests[pairs[:, 1]] * (1 - share)).astype(np.uint8)
        (folder / "images" / "NORMAL").mkdir(parents=True)
        for place, image in enumerate(images[IMAGES:]):
            Image.fromarray(image[0]).save(folder / "images" / "NORMAL" / f"person{place}_1.png")
        data = prepare(folder / "images", folder / "data", resolution=64, holdout=HELD_OUT / (TRAINING + HELD_OUT))
        np.save(folder / "synthetic.npy", images[:IMAGES])
        network = torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(1024, 2048))
        any_number = ({0: torch.export.Dim("n")},)
        program = torch.export.export(Floats(network).eval(), (noise(2, 64),), dynamic_shapes=any_number)
        torch.export.save(program, folder / "features.pt2")
        extractor = load_features(folder / "features.pt2")

        training, own = (torch.from_numpy(part) for part in (data.select("train", ["NORMAL"]), images[:IMAGES]))
        patients = list(map(str, range(len(training))))
        several = functools.partial(extract, extractor, cache=False)

        def screen() -> None:
            of_training = several(training)
            Screen(training, np.arange(len(training)), patients, features=of_training, extract=several)(own)

        def look() -> None:
            with mock.patch.dict("os.environ", {"SAMGAN_CACHE": str(folder / "cache")}):
                audit(folder / "synthetic.npy", data, features=str(folder / "features.pt2"), device="cpu")

        counts = f"{IMAGES} images against {len(training)}"
        taken = {"screening": seconds(screen), "audit": seconds(look)}
    note = ", ".join(f"{name} {value:.1f} s" for name, value in taken.items())
    return [Line(f"screening and audit of {counts}", sum(taken.values()), 60.0, " s", note=note)]


class Floats(torch.nn.Module):
    """A network that takes integer images."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 [n c h w] to features."""
        return self.network(images.float())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    add_json_option(parser)
    options = parser.parse_args()
    torch.manual_seed(0)
    show([*similarity(options.rounds), *features(options.rounds), *distances(), *copies()], options.json)


if __name__ == "__main__":
    main()
