"""Prepare the sets of the map: every question, with its patients shared out among three folds.

    python results/balance/map/sets.py KERMANY ADULTS WORK

KERMANY is the folder of Kermany's chest X-rays (NORMAL, PNEUMONIA), ADULTS one of adults' (NORMAL, COVID). Questions:

    virus   the cause of a pneumonia: BACTERIA or VIRUS, which the names of Kermany's files tell
    three   NORMAL, BACTERIA or VIRUS, of the same X-rays
    covid   NORMAL or COVID, of adults; the classes come from different hospitals, so origin alone tells them apart

A third of the patients is fold 0, a third fold 1, a third fold 2. Classifiers that are trained on fold 1 are tested on
fold 2, and the other way round; fold 0 is for choices, and is never tested on afterwards. Images of one patient, and
near duplicates, are in one fold; which one, depends on a hash of the patient's name only. Sets are written to
WORK/QUESTION/FOLD-AGAINST/SIDE: trained on FOLD, held out AGAINST.
"""

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

from samgan.data import PreparedSet

PAIRS = ((1, 2), (2, 1), (1, 0))
"""Folds that are trained on and tested on."""
SIDES = (128, 64)
QUESTIONS = {
    "virus": {"BACTERIA", "VIRUS"},
    "three": {"NORMAL", "BACTERIA", "VIRUS"},
    "covid": {"NORMAL", "COVID"},
}


def main() -> None:
    """See the module's text."""
    kermany, adults, work = (Path(word) for word in sys.argv[1:])
    for question, classes in QUESTIONS.items():
        source = adults if question == "covid" else kermany
        whole = work / "whole" / source.name
        if not (whole / "dataset.json").exists():
            call("prepare", source, whole, "--resolution", 128, "--holdout", 0)
        images = described(PreparedSet.open(whole), classes)
        for train, test in PAIRS:
            make(source, images, (train, test), work / question / f"{train}-{test}")


def described(data: PreparedSet, classes: set[str]) -> list[tuple[str, str, str]]:
    """File, class and patient of each image of the classes; near duplicates count as images of one patient."""
    patients = data.groups(range(len(data.manifest)))
    found = [(row.source, kind(row.class_name, row.source)) for row in data.manifest]
    return [(source, name, patient) for (source, name), patient in zip(found, patients, strict=True) if name in classes]


def kind(class_name: str, source: str) -> str:
    """The class, or the cause of a pneumonia, by the name of the file."""
    if class_name != "PNEUMONIA":
        return class_name
    return "VIRUS" if "virus" in source else "BACTERIA"


def fold_of(patient: str) -> int:
    """The fold of a patient, the same in all questions."""
    return int.from_bytes(hashlib.sha256(f"fold of {patient}".encode()).digest()[:8]) % 3


def make(source: Path, images: list[tuple[str, str, str]], pair: tuple[int, int], out: Path) -> None:
    """Prepare the images of two folds, the second held out."""
    if (out / str(SIDES[-1]) / "dataset.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    table = out / "labels.csv"
    with open(table, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "label", "patient", "split"])
        for name, label, patient in images:
            fold = fold_of(patient)
            if fold in pair:
                writer.writerow([name, label, patient, "train" if fold == pair[0] else "test"])
    columns = ["image", "label", "patient", "split"]
    named = [word for column in columns for word in (f"--{column}-column", column)]
    first, *smaller = SIDES
    call("prepare", source, out / str(first), "--resolution", first, "--labels", table, *named)
    for side in smaller:
        call("subset", out / str(first), out / str(side), "--resolution", side)


def call(*words: object) -> None:
    """Run samgan."""
    subprocess.run([sys.executable, "-m", "samgan", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
