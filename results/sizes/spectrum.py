"""Compare the power spectra of synthetic and real images: which detail is missing, and which is a pattern.

    python results/sizes/spectrum.py of RUN SET NAME [--classes NAME ...] [--count 256]
    python results/sizes/spectrum.py table

`of` writes to spectra.csv beside this file, under a name that tells the images, by the period in pixels, the power of
the synthetic images divided by that of real training images: over all directions, and along the axes alone, where
patterns of the pixel grid show. RUN is a run or a model; its newest checkpoint makes the images of the seeds from 0 on.
Real images are drawn with a fixed seed. `table` prints the table of README.md.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from trials import read, write

from samgan.data import PreparedSet
from samgan.pictures import to_uint8
from samgan.sampling import open_model, sample

SPECTRA = Path(__file__).parent / "spectra.csv"
PERIODS = (64.0, 32.0, 16.0, 8.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.0)
"""Ends of the bands, in pixels."""
BANDS = tuple(f"{long:g}-{short:g}" for long, short in itertools.pairwise(PERIODS))
BESIDE_AXIS = 6 / 256
"""How far from an axis, in cycles per pixel, counts as along it."""


def spectrum(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean power of grey images [n, h, h] in each band: over all directions, and along the axes."""
    side = images.shape[-1]
    window = np.hanning(side)[:, None] * np.hanning(side)  # without it, the edges of the image are a cross
    power = np.zeros((side, side))
    for image in images.astype(np.float64):
        power += np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    x, y = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side))
    frequency, axis = np.hypot(x, y), (abs(x) < BESIDE_AXIS) | (abs(y) < BESIDE_AXIS)
    bands = [(frequency >= 1 / long) & (frequency < 1 / short) for long, short in itertools.pairwise(PERIODS)]
    everywhere = np.array([power[band].mean() for band in bands])
    return everywhere, np.array([power[band & axis].mean() for band in bands])


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("of")
    step.add_argument("run", type=Path)
    step.add_argument("data", type=Path, metavar="SET")
    step.add_argument("name")
    step.add_argument("--classes", nargs="+")
    step.add_argument("--count", type=int, default=256)
    steps.add_parser("table")
    options = parser.parse_args()
    if options.step == "of":
        compare(options)
    else:
        print(table())


def compare(options: argparse.Namespace) -> None:
    """Write the two lines of a run, in place of older ones of that name."""
    data = PreparedSet.open(options.data)
    indices = data.indices("train", options.classes or data.classes)
    count = min(options.count, len(indices))
    drawn = np.sort(np.random.default_rng(0).permutation(indices)[:count])
    real = spectrum(np.stack([data.images[i, 0] for i in drawn]))
    model, seeds = open_model(options.run), range(count)
    with torch.no_grad():
        fake = spectrum(to_uint8(sample(model, seeds, model.labels(seeds))).numpy()[:, 0])
    rows = [row for row in read(SPECTRA) if row["images"] != options.name]
    for name, ours, theirs in zip(("all directions", "along the axes"), fake, real, strict=True):
        ratios = (f"{ratio:.2f}" for ratio in ours / theirs)
        rows.append({"images": options.name, "directions": name, **dict(zip(BANDS, ratios, strict=True))})
    write(SPECTRA, rows)


def table() -> str:
    """All that were compared, by the period in pixels."""
    lines = [f"| images, period in px | {' | '.join(BANDS)} |", f"|{'---|' * (1 + len(BANDS))}"]
    for row in read(SPECTRA):
        lines.append(f"| {row['images']}, {row['directions']} | {' | '.join(row[band] for band in BANDS)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
