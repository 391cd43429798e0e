"""Prepare the sets of the map: every question, with its patients shared out among three folds.

    python results/balance/map/sets.py KERMANY ADULTS SETS

KERMANY is the folder of Kermany's chest X-rays of children (NORMAL, PNEUMONIA), ADULTS one of adults' (NORMAL, COVID).
Questions:

    virus   the cause of a pneumonia: BACTERIA or VIRUS, which the names of Kermany's files tell
    three   NORMAL, BACTERIA or VIRUS, of the same X-rays
    covid   NORMAL of both sets, PNEUMONIA of children, COVID of adults; contrast normalised, since origin may tell the
            classes apart (origin.py measures how far)

A third of the patients is fold 0, a third fold 1, a third fold 2. Classifiers that are trained on fold 1 are tested on
fold 2, and the other way round; fold 0 is for choices, and is never tested on afterwards. Images of one patient, and
near duplicates, are in one fold; which one, depends on a hash of the patient's name only. Sets are written to
SETS/QUESTION/FOLD-AGAINST/SIDE: trained on FOLD, held out AGAINST; those of adults alone, to SETS/adults/SIDE.

Among the adults' NORMAL images are copies of the children's. They are left out: they are no adults, are of the same
hospital as the children, and would count twice.
"""

import csv
import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from samgan.data import PreparedSet
from samgan.files import atomic_folder

PAIRS = ((1, 2), (2, 1), (1, 0))
"""Folds that are trained on and tested on."""
SIDES = (128, 64)


@dataclass(frozen=True)
class Images:
    """Which images a question has."""

    classes: dict[str, str]
    """The class of each kind of image (`kind`)."""
    folders: tuple[str, ...] = ("children",)
    normalize: str = "none"


QUESTIONS = {
    "virus": Images({name: name for name in ("BACTERIA", "VIRUS")}),
    "three": Images({name: name for name in ("NORMAL", "BACTERIA", "VIRUS")}),
    "covid": Images(
        {"NORMAL": "NORMAL", "BACTERIA": "PNEUMONIA", "VIRUS": "PNEUMONIA", "COVID": "COVID"},
        ("children", "adults"),
        "percentile",
    ),
}
ADULTS = Images({name: name for name in ("NORMAL", "COVID")}, ("adults",))


def main() -> None:
    """See the module's text."""
    children, adults, sets = (Path(word) for word in sys.argv[1:])
    both = sets / "images"
    if not both.exists():
        with atomic_folder(both) as made:  # of both, in one folder
            shutil.copytree(children, made / "children")
            shutil.copytree(adults, made / "adults")
    whole = sets / "whole"
    if not (whole / "dataset.json").exists():
        call("prepare", both, whole, "--resolution", 128, "--holdout", 0, "--classes-from", "none")
    data = PreparedSet.open(whole)
    for name, question in QUESTIONS.items():
        images = described(data, question)
        for train, test in PAIRS:
            split = {train: "train", test: "test"}
            rows = [(*image, split[fold]) for image in images if (fold := fold_of(image[-1])) in split]
            make(both, rows, sets / name / f"{train}-{test}", question.normalize)
    make(both, [(*image, "train") for image in described(data, ADULTS)], sets / "adults", ADULTS.normalize)


def described(data: PreparedSet, question: Images) -> list[tuple[str, str, str]]:
    """File, class and patient of each image of a question; near duplicates count as images of one patient."""
    rows = list(zip(data.manifest, data.groups(range(len(data.manifest))), strict=True))
    of_children = {patient for row, patient in rows if folder_of(row.source) == "children"}
    found = []
    for row, patient in rows:
        label, folder = question.classes.get(kind(row.source)), folder_of(row.source)
        if label and folder in question.folders and (folder == "children" or patient not in of_children):
            found.append((row.source, label, patient))
    return found


def folder_of(source: str) -> str:
    """Whether an image came with the children's or the adults' X-rays."""
    return source.split("/")[0]


def kind(source: str) -> str:
    """The class, or the cause of a pneumonia, by the folder and the name of the file."""
    name = Path(source).parent.name
    if name != "PNEUMONIA":
        return name
    return "VIRUS" if "virus" in source else "BACTERIA"


def fold_of(patient: str) -> int:
    """The fold of a patient, the same in all questions."""
    return int.from_bytes(hashlib.sha256(f"fold of {patient}".encode()).digest()[:8]) % 3


def make(source: Path, rows: list[tuple[str, str, str, str]], out: Path, normalize: str) -> None:
    """Prepare images, given by file, class, patient and split, at each size."""
    first, *smaller = SIDES
    if (out / str(SIDES[-1]) / "dataset.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    table, columns = out / "labels.csv", ["image", "label", "patient", "split"]
    with open(table, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    named = [word for column in columns for word in (f"--{column}-column", column)]
    if not (out / str(first) / "dataset.json").exists():
        more = ["--resolution", first, "--normalize", normalize, "--labels", table, *named]
        if all(split == "train" for *_, split in rows):
            more += ["--holdout", 0]
        call("prepare", source, out / str(first), *more)
    for side in smaller:
        call("subset", out / str(first), out / str(side), "--resolution", side)


def call(*words: object) -> None:
    """Run samgan."""
    subprocess.run([sys.executable, "-m", "samgan", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
