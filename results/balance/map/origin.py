"""How far grey values and borders alone tell a class: where that is far, its images' origin may be what is told.

    python results/balance/map/origin.py SETS

Of each image a linear classifier sees the histogram of its grey values and the mean grey value of each piece of its
border, and so little of the anatomy: a white lung changes the histogram, too. It is trained on all patients of fold 1
and tested on fold 0 (`samgan.studies.probe`); of the adults alone, on every second image. Writes origin.csv beside this
file: the AUC of each class against the others.
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


def grey_and_border(images: np.ndarray) -> np.ndarray:
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
    """The AUC of each class against the others, of held-out images or, if there are none, of every second one."""
    train, test = data.indices("train"), data.indices("holdout")
    if not len(test):
        train, test = train[::2], train[1::2]
    labels = data.labels(data.classes)
    seen, of_test = (grey_and_border(data.take(index)) for index in (train, test))
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
        return "What grey values and borders tell has not been measured."
    lines = ["| set | class | AUC by grey values and borders |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row['set']} | {row['class']} | {float(row['auc']):.3f} |" for row in _rows())])


def sentence(question: str) -> str:
    """What was measured of a question, for the page; empty if it was not."""
    own = [f"{float(row['auc']):.3f} for {row['class']}" for row in _rows() if row["set"] == question]
    return f"By grey values and borders alone, the AUC is {', '.join(own)}." if own else ""


def _rows() -> list[dict[str, str]]:
    if not FILE.exists():
        return []
    with open(FILE, newline="") as file:
        return list(csv.DictReader(file))


def main(words: list[str]) -> None:
    """See the module's text."""
    (sets,) = words
    places = {**{question: f"{question}/1-0/64" for question in ("virus", "three", "covid")}, "adults": "adults/64"}
    rows = [
        f"{name},{of_class},{area:.4f}"
        for name, place in places.items()
        for of_class, area in measured(PreparedSet.open(Path(sets) / place)).items()
    ]
    with atomic_write(FILE) as file:
        file.write("\n".join(["set,class,auc", *rows, ""]).encode())
    print(table())


if __name__ == "__main__":
    main(sys.argv[1:])
