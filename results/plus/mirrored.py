"""How many generated X-rays have the heart on the wrong side, as a classifier of real ones tells.

    python results/plus/mirrored.py cxr64 RUN_FOLDER...

The classifier is linear in an image minus its mirror image, so an image and its mirror image get opposite answers; it
is fitted to the training images (ridge regression). Its share among held-out patients' images is what it gets wrong.
"""

import argparse
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from samgan.data import PreparedSet
from samgan.pictures import to_uint8
from samgan.runs import Run
from samgan.sampling import load_model, sample

RIDGE = 10.0
"""Weight of the penalty, of images in [0, 1]."""


def asymmetry(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n half"]:
    """The left half of each image minus its mirror image; the right half is the same, negated."""
    values = images.double() / 255
    return (values - values.flip(-1))[..., : images.shape[-1] // 2].flatten(1)


def fit(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " half"]:
    """Weights with which the asymmetry of real images sums to about 1."""
    x = asymmetry(images)
    return torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype), x.sum(0))


def mirrored_share(weights: Float[Tensor, " half"], images: UInt8[Tensor, "n c h w"]) -> float:
    """Share of images that look mirrored."""
    return float((asymmetry(images) @ weights < 0).double().mean())


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
        weights = fit(torch.from_numpy(data.select("train", classes)))
        if classes not in told:
            told.add(classes)
            real = torch.from_numpy(data.select("holdout", classes))
            print(f"| {len(real)} held-out {', '.join(classes)} | | {mirrored_share(weights, real):.1%} |")
        model = load_model(run)
        share = mirrored_share(weights, to_uint8(sample(model, range(options.count))))
        print(f"| {path.name} | {model.images_seen / 1000:.0f} | {share:.1%} |", flush=True)


if __name__ == "__main__":
    main()
