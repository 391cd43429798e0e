"""Train the generators and classifiers of the pilot and of the map, and keep a record of every classifier.

    python results/balance/map/runs.py pilot SETS WORK [--questions virus] [--patients 25 100] [--only WAY ...]
    python results/balance/map/runs.py pilot-table
    python results/balance/map/runs.py choose
    python results/balance/map/runs.py cells SETS WORK [--questions virus] [--patients 25] [--minutes 60] [--core 0]

`pilot` trains on fold 1 and tests on fold 0, which the map never tests on, and tries every way of ways.py. `choose`
keeps the strongest rival and the best uses of each question whose pilot is complete, in choices.json, which is
committed before `cells` measures those on folds 1 and 2.

Both go on where they stopped: a record is added as soon as a classifier is done (pilot.jsonl, cells.jsonl), and a
generator continues from its last checkpoint. So they can be stopped or killed at any time, and called again, with
--minutes for as long as a machine is to be had. Several may work in one WORK, each with a core and a draw of its own.
On another machine only the records are needed; without WORK its generators are trained again. SETS is the folder that
sets.py wrote.
"""

import argparse
import hashlib
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import records
from draws import Draw, OutOfTime, Place, classified, stay_on
from records import Budget, Cell, Classifier, Key
from ways import RIVALS, USES, WAYS

from samgan import __version__
from samgan.data import PreparedSet
from samgan.errors import SamganError
from samgan.files import atomic_write, locked
from samgan.metrics.classification import scores
from samgan.studies.map_cells import area_and_influence


def main(words: Sequence[str] | None = None) -> None:
    """See the module's text."""
    options = _parser().parse_args(words)
    if options.step == "pilot-table":
        print(pilot_table(records.read(records.PILOT)))
        return
    if options.step == "choose":
        choices = records.choose(records.read(records.PILOT), RIVALS, USES)
        with atomic_write(records.CHOICES) as file:
            file.write(msgspec.json.format(msgspec.json.encode(choices)) + b"\n")
        print(f"{records.CHOICES}: {', '.join(choices) or 'no question, since no pilot is complete'}")
        return
    budget = Budget(options.kimg, options.fine_tuned_kimg, options.steps)
    pilot = options.step == "pilot"
    path = options.records or (records.PILOT if pilot else records.CELLS)
    if budget != Budget() and options.records is None:
        raise SystemExit(f"{budget} is not that of the protocol: name another file with --records, not {path.name}")
    if options.core is not None:
        stay_on(options.core)
    end = time.monotonic() + 60 * options.minutes
    place = Place(options.sets, options.work, budget, options.device, end)
    work = pilot_work(options, place) if pilot else cells_work(options, place)
    try:
        for draw, names in work:
            with_draw(draw, names, options.generators, options.seeds, path)
    except OutOfTime:
        print("time is over; the same command goes on from here")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("pilot", "cells"):
        step = steps.add_parser(name)
        step.add_argument("sets", type=Path)
        step.add_argument("work", type=Path)
        step.add_argument("--questions", nargs="+", choices=records.SMALL, default=list(records.SMALL))
        numbers = sorted({count for counts in records.PATIENTS.values() for count in counts})
        of_all = list(records.PILOT_PATIENTS) if name == "pilot" else numbers
        step.add_argument("--patients", nargs="+", type=int, choices=numbers, default=of_all)
        step.add_argument("--draws", nargs="+", type=int, default=list(range(records.DRAWS)))
        step.add_argument("--generators", nargs="+", type=int, default=list(range(records.GENERATORS)))
        step.add_argument("--seeds", nargs="+", type=int, default=list(range(records.SEEDS)), help="of classifiers")
        if name == "pilot":
            step.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
        else:
            step.add_argument("--sides", nargs="+", type=int, choices=records.PATIENTS, default=list(records.PATIENTS))
        step.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so many")
        step.add_argument("--core", type=int, help="use this core only")
        step.add_argument("--device", default="cpu")
        step.add_argument("--kimg", type=float, default=Budget.kimg)
        step.add_argument("--fine-tuned-kimg", type=float, default=Budget.fine_tuned_kimg)
        step.add_argument("--steps", type=int, default=Budget.steps)
        step.add_argument("--records", type=Path, help="keep records in this file: for trials with another budget")
    for name in ("pilot-table", "choose"):
        steps.add_parser(name)
    return parser


def pilot_work(options: argparse.Namespace, place: Place) -> Iterator[tuple[Draw, Sequence[str]]]:
    """The draws of the pilot, and the ways to try."""
    for question in options.questions:
        for patients in options.patients:
            for number in options.draws:
                yield (
                    Draw(Cell(question, records.PILOT_SIDE, patients), records.PILOT_FOLDS, number, place),
                    options.only,
                )


def cells_work(options: argparse.Namespace, place: Place) -> Iterator[tuple[Draw, Sequence[str]]]:
    """The draws of the map, and the ways that the pilot chose; cell by cell, so that some are soon complete."""
    choices = records.read_choices()
    if missing := [question for question in options.questions if question not in choices]:
        raise SystemExit(
            f"{records.CHOICES.name} has no choice for {', '.join(missing)}: expected a pilot of each question; run "
            "pilot, then choose"
        )
    for cell in records.MAP:
        if cell.question in options.questions and cell.patients in options.patients and cell.side in options.sides:
            choice = choices[cell.question]
            for number in options.draws:
                for folds in records.FOLDS:
                    yield Draw(cell, folds, number, place), (choice.rival, *choice.uses)


def with_draw(draw: Draw, names: Sequence[str], generators: Sequence[int], seeds: Sequence[int], path: Path) -> None:
    """Train and test the classifiers of one draw that have no record yet; not if another process is at it."""
    wanted = [
        Key(draw.cell, draw.folds, draw.number, name, generator, seed, draw.place.budget)
        for name in names
        for generator in (generators if WAYS[name].arm.synthetic else (None,))
        for seed in seeds
    ]
    draw.folder.mkdir(parents=True, exist_ok=True)
    busy = f"{draw.folder}: another process is at it"
    try:
        with locked(draw.folder, busy):
            done = {record.key for record in records.read(path)}
            if left := [key for key in wanted if key not in done]:
                data = draw.open()
                for key in left:
                    draw.place.check()
                    record = tested(draw, data, key)
                    records.add(path, record)
                    print(key.cell, key.folds, key.draw, key.way, key.generator, key.seed, record.scores, flush=True)
    except SamganError as error:
        if str(error) != busy:
            raise
        print(busy)


def tested(draw: Draw, data: PreparedSet, key: Key) -> Classifier:
    """Train one classifier and test it on the held-out patients."""
    predicted = classified(draw, data, WAYS[key.way], key.generator, key.seed)
    index = data.indices("holdout")
    truth = data.labels(data.classes)[index]
    patients = np.unique(data.groups(index), return_inverse=True)[1]
    found = scores(predicted, truth, data.classes.index(draw.small))
    area, influence = area_and_influence(predicted, truth, patients)
    names = "\n".join(data.manifest[i].source for i in index)
    return Classifier(
        key=key,
        scores={name: round(value, 6) for name, value in (found | {"auc": area}).items()},
        influence=tuple(round(value, 7) for value in influence.tolist()),
        held_out=hashlib.sha256(names.encode()).hexdigest()[:12],
        samgan=__version__,
        date=datetime.now(UTC).date().isoformat(),
    )


def pilot_table(found: Sequence[Classifier]) -> str:
    """The mean AUC of each way over draws and classifiers, by question and patients; * with synthetic images."""
    cells = sorted({record.key.cell for record in found})
    if not cells:
        return "The pilot has not been measured."
    lines = ["| way | " + " | ".join(f"{c.question}, {c.patients} patients, {c.side} px" for c in cells) + " |"]
    lines.append("|---|" + "---|" * len(cells))
    for name in WAYS:
        of_cells = [[r.scores["auc"] for r in found if (r.key.cell, r.key.way) == (cell, name)] for cell in cells]
        values = [f"{np.mean(own):.3f} ± {np.std(own):.3f}" if own else "" for own in of_cells]
        if any(values):
            lines.append(f"| {name}{'' if name in RIVALS else ' *'} | " + " | ".join(values) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
