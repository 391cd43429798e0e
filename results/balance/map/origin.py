"""How far an X-ray's origin tells its class: what a classifier gets that sees no anatomy.

    python results/balance/map/origin.py SETS

Of each image it sees a histogram of grey values and the mean grey value of each piece of the border; a linear
classifier of these is trained on all patients of fold 1 and tested on fold 0 (`samgan.studies.probe`). Writes
origin.csv beside this file: the AUC of each class against the others.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from samgan.data import PreparedSet
from samgan.files import atomic_write
from samgan.metrics.classification import weighted_auc
from samgan.studies.probe import probe

FILE = Path(__file__).parent / "origin.csv"
BINS, BORDER, PIECES = 32, 4, 16
"""Of the histogram; width of the border in pixels; and the number of its pieces on each of the four edges."""


def without_anatomy(images: np.ndarray) -> np.ndarray:
    """What is seen of uint8 images [n, 1, side, side]."""
    grey = images[:, 0].astype(np.float64)
    histograms = np.stack([np.histogram(image, BINS, (0, 256))[0] / image.size for image in grey])
    edges = [
        grey[:, :BORDER],
        grey[:, -BORDER:],
        grey[:, :, :BORDER].swapaxes(1, 2),
        grey[:, :, -BORDER:].swapaxes(1, 2),
    ]
    pieces = [edge.reshape(len(grey), BORDER, PIECES, -1).mean((1, 3)) / 255 for edge in edges]
    return np.concatenate([histograms, *pieces], axis=1)


def measured(data: PreparedSet) -> dict[str, float]:
    """The AUC of each class against the others, of held-out images."""
    train, test = data.indices("train"), data.indices("holdout")
    labels = data.labels(data.classes)
    seen, of_test = (without_anatomy(data.take(index)) for index in (train, test))
    patients = [data.manifest[i].patient for i in train]
    found = probe(seen, labels[train], patients, of_test, len(data.classes))
    areas = {}
    for number, name in enumerate(data.classes):
        against = np.stack([1 - found[:, number], found[:, number]], 1)
        truth = (labels[test] == number).astype(int)
        areas[name] = float(weighted_auc(against, truth, np.ones((1, len(test))))[0])
    return areas


def table() -> str:
    """What was measured."""
    if not FILE.exists():
        return "What origin tells has not been measured."
    lines = ["| question | class | AUC without anatomy |", "|---|---|---|"]
    with open(FILE, newline="") as file:
        lines += [f"| {row['question']} | {row['class']} | {float(row['auc']):.3f} |" for row in csv.DictReader(file)]
    return "\n".join(lines)


def main(words: list[str]) -> None:
    """See the module's text."""
    (sets,) = words
    rows = [
        f"{question},{name},{area:.4f}"
        for question in ("virus", "three", "covid")
        for name, area in measured(PreparedSet.open(Path(sets) / question / "1-0" / "64")).items()
    ]
    with atomic_write(FILE) as file:
        file.write("\n".join(["question,class,auc", *rows, ""]).encode())
    print(table())


if __name__ == "__main__":
    main(sys.argv[1:])
