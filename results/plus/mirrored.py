"""How many generated X-rays have the heart on the wrong side, as a classifier of real ones tells.

    python results/plus/mirrored.py cxr64 RUN_FOLDER...

The classifier (`samgan.metrics.mirrored`) is fitted to the training images. Its share among held-out patients' images
is what it gets wrong.
"""

import argparse
from pathlib import Path

import torch

from samgan.data import PreparedSet
from samgan.metrics.mirrored import count_mirrored, fit_sides
from samgan.pictures import to_uint8
from samgan.runs import Run
from samgan.sampling import load_model, sample


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_FOLDER")
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    data = PreparedSet.open(options.data)
    print("| images | kimg | mirrored |\n|---|---|---|")
    told = set()
    for path in options.runs:
        run = Run.open(path)
        classes = run.config.data.classes or ("PNEUMONIA",)  # a set of its own, of that class alone
        weights = fit_sides(torch.from_numpy(data.select("train", classes)))
        if classes not in told:
            told.add(classes)
            real = torch.from_numpy(data.select("holdout", classes))
            share = count_mirrored(weights, real) / len(real)
            print(f"| {len(real)} held-out {', '.join(classes)} | | {share:.1%} |")
        model = load_model(run)
        share = count_mirrored(weights, to_uint8(sample(model, range(options.count)))) / options.count
        print(f"| {path.name} | {model.images_seen / 1000:.0f} | {share:.1%} |", flush=True)


if __name__ == "__main__":
    main()
