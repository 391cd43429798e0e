"""Train the generators and classifiers of the pilot and of the map, and keep a record of every classifier.

    python results/balance/map/runs.py pilot SETS WORK [--questions virus] [--patients 25] [--only WAY ...]
    python results/balance/map/runs.py pilot-table
    python results/balance/map/runs.py choose
    python results/balance/map/runs.py cells SETS WORK [--questions virus] [--patients 25] [--minutes 60] [--core 0]

`pilot` trains on fold 1 and tests on fold 0, which the map never tests on. In its first cell it tries every way of
ways.py, in the others those without synthetic images. `pilot-table` says how draws and patients spread, and so what the
cells of the map can show. `choose` keeps the strongest rivals and the best use in choices.json, which is committed
before `cells` measures those on folds 1 and 2. What it chose stays; a later call adds cells of the pilot.

Both go on where they stopped: a record is added as soon as a classifier is done (pilot.jsonl, cells.jsonl), and a
generator continues from its last checkpoint. So they can be stopped or killed at any time, and called again, with
--minutes for as long as a machine is to be had. A training that fails, such as one that diverges, is named, and the
others go on; its cell stays open. What diverges with every seed is also listed in a file beside the records
(pilot-lost.jsonl): `choose` takes no such use. Several may work in one WORK, each with a core and a draw of its own.
SETS is the folder that sets.py wrote. Another machine needs the same SETS and the records so far: lines of a draw that
was trained on other images are refused. It does not need WORK; without that, its generators are trained again.
"""

import argparse
import functools
import itertools
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import records
import torch
from draws import (
    NORMAL,
    PRECISION,
    TRIES,
    Diverged,
    Draw,
    Failed,
    OutOfTime,
    Place,
    classified,
    compute_in_full,
    described,
    images_for,
    origins,
    runs_of,
    seconds_of,
    stay_on,
)
from records import Budget, Cell, Classifier, HeldOut, Key, Lost, Machine
from ways import RIVALS, USES, WAYS, Way

from samgan import __version__
from samgan.data import PreparedSet
from samgan.errors import SamganError
from samgan.files import atomic_write, hash_json, locked
from samgan.metrics.classification import scores
from samgan.metrics.feature_networks import FeaturesUnavailable
from samgan.runs import Run, describe_environment
from samgan.studies.classifier import PROCEDURE
from samgan.studies.map_cells import area_and_influence
from samgan.training import ARITHMETIC


def main(words: Sequence[str] | None = None) -> None:
    """See the module's text."""
    options = _parser().parse_args(words)
    if options.step == "pilot-table":
        print(pilot_table(records.read(records.OF_PILOT)))
        return
    if options.step == "choose":
        choose()
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that a training is stopped, too
    budget = Budget(options.kimg, options.fine_tuned_kimg, options.steps)
    pilot = options.step == "pilot"
    path = options.records or (records.OF_PILOT if pilot else records.CELLS)
    if budget != Budget() and options.records is None:
        raise SystemExit(f"{budget} is not that of the protocol: name another file with --records, not {path.name}")
    compute_in_full()
    if options.core is not None:
        stay_on(options.core)
    end = time.monotonic() + 60 * options.minutes
    place = Place(options.sets, options.work, budget, options.device, end)
    work = pilot_work(options, place) if pilot else cells_work(options, place)
    failed: list[str] = []
    try:
        for draw, names in work:
            with_draw(draw, names, options.seeds, path, failed)
    except OutOfTime:
        print("time is over; the same command goes on from here")
    if failed:
        raise SystemExit("\n".join(["failed:", *failed]))


def choose() -> None:
    """Write what the pilot says, and tell what it lacks; what an earlier call chose stays."""
    uses = {name: way.family for name, way in USES.items()}
    found, lost = records.read(records.OF_PILOT), records.read_lost(records.OF_PILOT)
    for cell in records.PILOT:
        lacking = records.missing(found, lost, cell, records.pilot_ways(cell, RIVALS, uses))
        if not any(record.key.cell == cell for record in found):
            print(f"{cell}: the pilot has not begun")
        elif lacking:
            each = "; ".join(f"{way}: {', '.join(map(str, draws))}" for way, draws in lacking.items())
            print(f"{cell}: the pilot is not complete; these ways lack these draws: {each}")
    choices = records.choose(found, RIVALS, uses, lost)
    if choices is None:
        raise SystemExit(f"nothing is chosen: the pilot of {records.WITH_USES} is not complete, or lost every use")
    with atomic_write(records.CHOICES) as file:
        file.write(msgspec.json.format(msgspec.json.encode(choices)) + b"\n")
    print(f"{records.CHOICES}: {', '.join(choices.uses)}; rivals of {len(choices.rivals)} cells of the pilot")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("pilot", "cells"):
        step = steps.add_parser(name)
        step.add_argument("sets", type=Path)
        step.add_argument("work", type=Path)
        step.add_argument("--questions", nargs="+", choices=records.SMALL, default=list(records.SMALL))
        of_step = records.PILOT if name == "pilot" else records.MAP
        for option, values in (("patients", {c.patients for c in of_step}), ("sides", {c.side for c in of_step})):
            allowed = sorted(values)
            step.add_argument(f"--{option}", nargs="+", type=int, choices=allowed, default=allowed)
        step.add_argument("--draws", nargs="+", type=int, help="numbers of draws (default: all)")
        step.add_argument("--seeds", nargs="+", type=int, default=list(range(records.SEEDS)), help="of classifiers")
        if name == "pilot":
            step.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
        step.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so many")
        step.add_argument("--core", type=int, help="use this core only")
        step.add_argument("--device", default="cpu")
        step.add_argument("--kimg", type=float, default=Budget.kimg)
        step.add_argument("--fine-tuned-kimg", type=float, default=Budget.fine_tuned_kimg)
        step.add_argument("--steps", type=int, default=Budget.steps)
        step.add_argument("--records", type=Path, help="keep records in this file: for trials with another budget")
    steps.add_parser("pilot-table")
    steps.add_parser("choose")
    return parser


def pilot_work(options: argparse.Namespace, place: Place) -> Iterator[tuple[Draw, Sequence[str]]]:
    """The draws of the pilot, and the ways to try."""
    for cell in _asked(options, records.PILOT):
        tried = records.pilot_ways(cell, RIVALS, USES)
        names = [name for name in options.only if name in tried]
        for number in _numbers(options, records.PILOT[cell]):
            yield Draw(cell, records.PILOT_FOLDS, number, place), names


def cells_work(options: argparse.Namespace, place: Place) -> Iterator[tuple[Draw, Sequence[str]]]:
    """The draws of the map, and the ways that the pilot chose; family by family, so that some are soon complete.

    Draws whose generators begin with the same one follow each other, so it is seldom trained again if WORK is lost.
    Cells of which the pilot has not chosen yet are named and left out.
    """
    choices = records.read_choices()
    chosen = {cell: choices.rivals_of(cell) if choices else None for cell in _asked(options, records.MAP)}
    for cell, rivals in chosen.items():
        if rivals is None:
            print(f"{cell}: left out, since {records.nearest_pilot(cell)} has no pilot in {records.CHOICES.name} yet")
    if choices is None or not any(chosen.values()):
        raise SystemExit(f"{records.CHOICES.name} has nothing for these cells: run pilot, then choose")
    for family in records.FAMILIES:
        for base, folds, cell in itertools.product(range(records.BASES), records.FOLDS, family.draws):
            if rivals := chosen.get(cell):
                for number in _numbers(options, records.DRAWS[cell]):
                    if number % records.BASES == base:
                        yield Draw(cell, folds, number, place), (*rivals, *choices.uses)


def _numbers(options: argparse.Namespace, count: int) -> list[int]:
    """The draws that are asked for, of those that count in a cell."""
    return [number for number in range(count) if not options.draws or number in options.draws]


def _asked(options: argparse.Namespace, cells: Iterable[Cell]) -> list[Cell]:
    return [
        cell
        for cell in cells
        if cell.question in options.questions and cell.patients in options.patients and cell.side in options.sides
    ]


def with_draw(draw: Draw, names: Sequence[str], seeds: Sequence[int], path: Path, failed: list[str]) -> None:
    """Train and test the classifiers of one draw that have no record yet; not if another process is at it.

    What fails is added to `failed`, and is left out. What diverges with every seed is also `Lost`.
    """
    wanted = [
        Key(draw.cell, draw.folds, draw.number, name, draw.seed() if WAYS[name].arm.synthetic else None, seed, budget)
        for budget in (draw.place.budget,)
        for name in names
        for seed in seeds
    ]
    draw.folder.mkdir(parents=True, exist_ok=True)
    busy = f"{draw.folder}: another process is at it"
    try:
        with locked(draw.folder, busy):
            known = [record for record in records.read(path) if record.machine.procedure == PROCEDURE]
            done = {record.key for record in known}
            lost = {one.key for one in records.read_lost(path)}
            of_draw = (draw.cell, draw.folds, draw.number)
            same = {r.trained_on for r in known if (r.key.cell, r.key.folds, r.key.draw) == of_draw}
            for key in (key for key in wanted if key not in done):
                if key in lost:
                    file = records.lost_beside(path).name
                    failed.append(
                        f"{_named(key)}: diverged with {TRIES} seeds before; remove its line of {file} to try again"
                    )
                    continue
                draw.place.check()
                try:
                    record = tested(draw, key, same)
                except FeaturesUnavailable:
                    raise
                except Diverged as error:
                    failed.append(f"{_named(key)}: diverged with {TRIES} seeds ({error})")
                    records.add(records.lost_beside(path), Lost(key, this_machine(draw.place.device), _today()))
                    continue
                except (Failed, SamganError) as error:
                    failed.append(f"{_named(key)}: {error}")
                    continue
                records.add(path, record)
                print(key.cell, key.folds, key.draw, key.way, key.seed, record.scores, flush=True)
    except SamganError as error:
        if str(error) != busy:
            raise
        print(busy)


def _named(key: Key) -> str:
    return f"{key.cell} {key.folds} {key.draw}, {key.way}"


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def tested(draw: Draw, key: Key, same: Collection[str]) -> Classifier:
    """Train one classifier and test it on the held-out patients, and on another hospital's where there are some.

    Args:
        draw: Whose set it is trained on.
        key: Which classifier.
        same: What the draw's other records were trained on.

    Raises:
        SystemExit: That was another set.
    """
    way, data = WAYS[key.way], draw.open()
    if other := set(same) - {data.sha256}:
        raise SystemExit(
            f"{_named(key)}: expected the training images of the draw's other lines, {other.pop()[:12]}, found "
            f"{data.sha256[:12]} in {data.path}; prepare SETS from the same folders, or remove those lines"
        )
    made = images_for(draw, data, way, key.generator)
    test, elsewhere = data.select("holdout"), draw.elsewhere()
    images = test if elsewhere is None else np.concatenate([test, elsewhere.images])
    own = {name: one.images for name, one in made.items()}
    done = classified(draw, data, way, own, draw.seed(1 + key.seed), images)
    predicted = done.predicted
    index = data.indices("holdout")
    truth = data.labels(data.classes)[index]
    patients = np.unique(data.groups(index), return_inverse=True)[1]
    name = records.name_of(data.manifest[i].source for i in index)
    HeldOut(tuple(data.classes), tuple(truth.tolist()), tuple(patients.tolist())).write(name)
    found = scores(predicted[: len(test)], truth, data.classes.index(draw.small))
    area, _ = area_and_influence(predicted[: len(test)], truth, patients)
    other = None
    if elsewhere is not None:
        other = elsewhere.tested(predicted[len(test) :, data.classes.index(NORMAL)])
    of_generators = provenance(draw, data, way, key.generator, made)
    return Classifier(
        key=key,
        scores={name: round(value, 6) for name, value in (found | {"auc": area}).items()},
        predicted=records.encoded(predicted[: len(test)]),
        held_out=name,
        trained_on=data.sha256,
        seconds=round(done.seconds, 1),
        machine=this_machine(draw.place.device),
        date=_today(),
        other_hospital=other,
        image_seconds=round(sum(one.seconds for one in made.values()), 1),
        **of_generators,
    )


def provenance(draw: Draw, data: PreparedSet, way: Way, generator: int | None, made: Iterable[str]) -> dict[str, Any]:
    """What `Classifier` has of the generators whose images are used."""
    if generator is None:
        return {}
    runs = list(dict.fromkeys(run for name in made for run in runs_of(draw, data, way.images, name, generator)))
    recipes = []
    for run in sorted(set().union(*map(origins, runs))):
        settings = Run.open(run).config.chosen()  # so a setting that is added later makes no other recipe
        settings.pop("training.seed", None)
        recipes.append(hash_json([settings, ARITHMETIC]))
    return {
        "recipe": hash_json(sorted(set(recipes)))[:12],
        "generator_seconds": round(seconds_of(runs), 1),
        "generators": described(runs),
    }


@functools.cache
def this_machine(device: str) -> Machine:
    """Where this runs."""
    known = describe_environment(device, None)
    gpu = f": {torch.cuda.get_device_name()}" if device.startswith("cuda") and torch.cuda.is_available() else ""
    return Machine(
        known.processor,
        f"{device}{gpu}",
        PRECISION,
        __version__,
        known.commit or "",
        str(torch.__version__),
        PROCEDURE,
    )


def pilot_table(found: Sequence[Classifier]) -> str:
    """The mean AUC of each way over draws and classifiers, by question and patients; * with synthetic images.

    Then, of each use: what it gains over the strongest rival, how much that differs between draws and patients, and
    what would be shown with some numbers of draws.
    """
    found = records.of_newest_procedure(found)
    cells = [cell for cell in records.PILOT if any(record.key.cell == cell for record in found)]
    if not cells:
        return "The pilot has not been measured."
    lines = ["| way | " + " | ".join(f"{c.question}, {c.patients} patients, {c.side} px" for c in cells) + " |"]
    lines.append("|---|" + "---|" * len(cells))
    for name in WAYS:
        of_cells = [[r.scores["auc"] for r in found if (r.key.cell, r.key.way) == (cell, name)] for cell in cells]
        values = [f"{np.mean(own):.3f} ± {np.std(own):.3f}" if own else "" for own in of_cells]
        if any(values):
            lines.append(f"| {name}{'' if name in RIVALS else ' *'} | " + " | ".join(values) + " |")
    numbers = (7, 14)
    lines += ["", f"| use | cell | gain | draws | patients | {' | '.join(f'with {n} draws' for n in numbers)} |"]
    lines.append("|---|" + "---|" * (4 + len(numbers)))
    for cell in cells:
        for name, spread in records.pilot_spreads(found, cell, RIVALS, USES).items():
            seen = " | ".join(f"{spread.detectable(n):.3f}" for n in numbers)
            told = f"{spread.gain:+.4f} | {spread.of_draws:.4f} | {spread.of_patients:.4f} | {seen}"
            lines.append(f"| {name} | {cell.question}, {cell.patients} patients | {told} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
