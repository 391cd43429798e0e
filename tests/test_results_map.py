"""The map of results/balance: records of classifiers, what is chosen and found from them, and its tables and page."""

import importlib
import itertools
import re
import shutil
import subprocess
import sys
import time
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from samgan import __version__
from samgan.commands.main import main
from samgan.data import PreparedSet, prepare
from samgan.data.phantom import write_phantoms
from samgan.runs import Run
from samgan.studies.map_cells import DrawnGain, area_and_influence, estimate_gains
from samgan.studies.utility_map import PATH, UtilityMap
from samgan.trust.utility_document import HARMS, HELPS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "balance" / "map"
MODULES = ("records", "ways", "draws", "runs", "origin", "table", "sets", "simulate")


@pytest.fixture
def scripts(monkeypatch):
    """The folder's scripts, which find each other as when they are run."""
    monkeypatch.syspath_prepend(FOLDER)
    loaded = {name: importlib.import_module(name) for name in MODULES}
    yield type("Scripts", (), loaded)
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture
def records(scripts, tmp_path, monkeypatch):
    """The records' module, with files of its own."""
    files = {"OF_PILOT": "pilot.jsonl", "CELLS": "cells.jsonl", "CHOICES": "choices.json", "HELD_OUT": "held_out"}
    for name, file in files.items():
        monkeypatch.setattr(scripts.records, name, tmp_path / file)
    scripts.records.HeldOut.read.cache_clear()
    return scripts.records


FOLDS_OF_FOUR = [0, 0, 2, 1]
RIVAL, SECOND = "augmentation, oversampling", "augmentation, oversampling, mixup"
USE = "synthetic fill up"
PATIENTS = 300
TRUTH = np.arange(PATIENTS) % 3 == 0
NOISE = np.random.default_rng(0).normal(size=PATIENTS)
"""What the scores of all classifiers share, so that they differ little."""


def classifiers(records, cell, folds, way, auc, *, draws=3, **changes):
    """The classifier of each of several draws, each a little different."""
    noise = np.random.default_rng([len(way), cell.patients])
    small = records.SMALL[cell.question]
    records.HeldOut(("OTHER", small), tuple(TRUTH.astype(int).tolist()), tuple(range(PATIENTS))).write(f"of-{small}")
    synthetic = way == USE or "synthetic" in way
    for draw in range(draws):
        distance = 2**0.5 * stats.norm.ppf(auc) + 0.003 * noise.normal()
        score = distance * TRUTH + NOISE + 0.02 * noise.normal(size=PATIENTS)
        predicted = 1 / (1 + np.exp(-np.stack([-score, score], 1)))
        yield records.Classifier(
            key=records.Key(cell, folds, draw, way, draw if synthetic else None, 0, records.Budget()),
            scores={"auc": auc + 0.001 * float(noise.normal()), "calibration_error": 0.1 + 0.05 * synthetic},
            predicted=records.encoded(predicted),
            **{
                "held_out": f"of-{small}",
                "trained_on": f"{cell} {folds} {draw}",
                "seconds": 60.0,
                "machine": records.Machine("a processor", "cpu", "bf16", __version__, "", "2", 2),
                "date": "2026-01-01",
                "recipe": "one" if synthetic else "",
                "generator_seconds": 600.0 * synthetic,
                "image_seconds": 120.0 * synthetic,
                **changes,
            },
        )


def cell_records(records, cell, gain, **changes):
    """All records of one cell."""
    for folds in records.FOLDS:
        for way, auc, more in ((RIVAL, 0.75, {}), (SECOND, 0.74, {}), (USE, 0.75 + gain, changes)):
            yield from classifiers(records, cell, folds, way, auc, draws=records.DRAWS[cell], **more)


def chosen(records, question="virus"):
    """Choices of one use and two rivals."""
    cells = [cell for cell in records.PILOT if cell.question == question]
    return records.Choices((USE,), tuple(records.RivalsOf(cell, (RIVAL, SECOND)) for cell in cells))


def test_a_record_is_kept_whole_whatever_was_killed_before(records):
    first, second = itertools.islice(classifiers(records, records.MAP[0], "1-2", RIVAL, 0.7), 2)
    assert records.read(records.CELLS) == []
    records.add(records.CELLS, first)
    with open(records.CELLS, "ab") as file:
        file.write(msgspec.json.encode(second)[:50])  # killed while it wrote
    assert records.read(records.CELLS) == [first]
    records.add(records.CELLS, second)
    records.add(records.CELLS, first)  # as if two machines had done it
    assert records.read(records.CELLS) == [first, second]
    with open(records.CELLS, "ab") as file:
        file.write(b'{"key": 1}\n')
    with pytest.raises(SystemExit, match=r"cells.jsonl, line 4: expected a record of a classifier .* remove it"):
        records.read(records.CELLS)


def test_of_records_of_one_classifier_that_of_the_newest_procedure_counts(records):
    one = next(classifiers(records, records.MAP[0], "1-2", RIVAL, 0.7))
    second, third = (replace(one, machine=replace(one.machine, procedure=number)) for number in (2, 3))
    for record in (second, third, replace(third, seconds=1.0), second):
        records.add(records.CELLS, record)
    assert records.read(records.CELLS) == [third]


def test_probabilities_keep_their_order_even_near_1(records):
    records.HeldOut(("OTHER", "VIRUS"), (0, 1, 1, 0), (0, 1, 2, 3)).write("four")
    p = np.array([1e-9, 1 - 1e-9, 1 - 2e-9, 0.25])
    one = next(classifiers(records, records.MAP[0], "1-2", RIVAL, 0.7))
    record = replace(one, predicted=records.encoded(np.stack([1 - p, p], 1)), held_out="four")
    found = records.probabilities(record)
    np.testing.assert_allclose(found, np.stack([1 - p, p], 1), rtol=0.02)
    assert found[1, 1] > found[2, 1]
    with pytest.raises(SystemExit, match="expected probabilities of 300 images"):
        records.probabilities(replace(record, held_out="of-VIRUS"))
    with pytest.raises(SystemExit, match="expected the held-out images of some records"):
        records.probabilities(replace(record, held_out="none"))


def families(records, monkeypatch, *own):
    """A map of these cells, with three draws in each fold; those of an inner list are a family."""
    monkeypatch.setattr(records, "FAMILIES", tuple(records.Family("a", dict.fromkeys(cells, 3), 0.5) for cells in own))
    monkeypatch.setattr(records, "MAP", [cell for cells in own for cell in cells])
    monkeypatch.setattr(records, "DRAWS", dict.fromkeys(records.MAP, 3))


def test_held_out_images_that_were_prepared_in_another_way_are_refused(records):
    known = records.HeldOut(("A", "B"), (0, 1), (0, 1))
    for _ in range(2):
        known.write("some")
    with pytest.raises(SystemExit, match="expected its classes and patients, found others"):
        replace(known, patients=(0, 0)).write("some")


def test_draws_that_share_a_generator_follow_each_other_and_none_is_beyond_those_that_count(records, scripts):
    records.CHOICES.write_bytes(msgspec.json.encode(chosen(records)))
    place = scripts.draws.Place(Path("sets"), Path("work"), records.Budget())

    def work(*words):
        options = scripts.runs._parser().parse_args(["cells", "sets", "work", *words])
        return [draw for draw, _ in scripts.runs.cells_work(options, place)]

    every = work("--questions", "virus")
    assert len({(draw.cell, draw.folds, draw.number) for draw in every}) == len(every)
    own = {cell: count for cell, count in records.DRAWS.items() if cell.question == "virus"}
    assert len(every) == len(records.FOLDS) * sum(own.values())
    of_first = [(draw.shared, draw.base) for draw in every if draw.cell in records.FAMILIES[0].draws]
    assert len(list(itertools.groupby(of_first))) == len(set(of_first)) == records.BASES * len(records.FOLDS)
    assert {(draw.cell.patients, draw.number) for draw in work("--draws", "6", "--sides", "64")} == {
        *((10, 6), (25, 6), (50, 6))  # of 100 patients there are three draws
    }


def test_a_cell_is_measured_when_all_its_draws_are(records, capsys, monkeypatch):
    cell, other = records.Cell("virus", 64, 25), records.Cell("virus", 64, 10)
    choices = chosen(records)
    families(records, monkeypatch, [cell, other])
    every = list(cell_records(records, cell, 0.03))
    (found,) = records.gains(every, choices)
    assert found.decision is None  # the other cell of its family is not there yet
    families(records, monkeypatch, [cell], [records.Cell("three", 64, 25)])
    (found,) = records.gains(every, choices)
    assert (found.cell, found.use, [rival.way for rival in found.rivals]) == (cell, USE, [RIVAL, SECOND])
    assert [rival.gain.draws for rival in found.rivals] == [6, 6]

    def mean(way, folds, draw, what):
        own = [r for r in every if (r.key.way, r.key.folds, r.key.draw) == (way, folds, draw)]
        truth, patients = TRUTH.astype(int), np.arange(PATIENTS)
        return np.mean([area_and_influence(records.probabilities(r), truth, patients)[what] for r in own], axis=0)

    by_rival = {}
    for rival in found.rivals:
        by_hand = [
            DrawnGain("a", fold, d, *(mean(USE, folds, d, w) - mean(rival.way, folds, d, w) for w in range(2)))
            for fold, folds in enumerate(records.FOLDS)
            for d in range(3)
        ]
        by_rival[rival.way] = by_hand
        expected = replace(estimate_gains(by_hand)[0], cell=rival.gain.cell)
        assert rival.gain.mean == pytest.approx(expected.mean)
        assert rival.gain.error == pytest.approx(expected.error)
    assert found.strongest.way == RIVAL
    assert found.decision.helps
    assert found.calibration == pytest.approx(0.05)
    assert found.minutes == pytest.approx(13)
    assert found.recall.mean > 0.02
    low, high = found.recall.interval()
    assert low < found.recall.mean < high
    assert found.recall.draws == 6
    for missing in (every[0], every[-1]):
        assert records.gains([record for record in every if record != missing], choices) == []
    for rival in found.rivals:
        halves = [np.mean([draw.gain for draw in by_rival[rival.way] if draw.fold == fold]) for fold in (0, 1)]
        assert rival.of_folds == pytest.approx(halves)
    further = [replace(r, key=replace(r.key, draw=3), predicted="") for r in every if r.key.draw == 0]
    assert records.gains([*every, *further], choices) == [found]  # what was added later does not count
    other = [replace(r, key=replace(r.key, budget=records.Budget(kimg=1.0))) for r in every]
    assert records.gains(other, choices) == []
    assert records.gains(every, None) == records.gains(every, chosen(records, "covid")) == []
    with pytest.raises(SystemExit, match="one set of held-out images"):
        records.gains([replace(every[0], held_out="another"), *every[1:]], choices)
    several = rf"1-2, draw 0, {USE} and {RIVAL}: expected one set of training images, found several"
    with pytest.raises(SystemExit, match=several):
        records.gains([replace(every[0], trained_on="another"), *every[1:]], choices)
    assert records.gains([*every[:-1], replace(every[-1], recipe="another")], choices) == []
    assert "left out, since its generators have several recipes" in capsys.readouterr().out
    elsewhere = replace(every[0], machine=replace(every[0].machine, precision="another"))
    assert records.gains([elsewhere, *every[1:]], choices) == []
    assert "left out, since its classifiers were trained in several ways" in capsys.readouterr().out


def test_a_use_that_is_left_out_keeps_its_family_undecided(records, monkeypatch):
    cell, other = records.Cell("virus", 64, 25), records.Cell("virus", 64, 10)
    families(records, monkeypatch, [cell, other])
    every = [*cell_records(records, cell, 0.03), *cell_records(records, other, 0.0)]
    assert all(found.decision for found in records.gains(every, chosen(records)))
    mixed = [*every[:-1], replace(every[-1], recipe="another")]
    assert [(found.cell, found.decision) for found in records.gains(mixed, chosen(records))] == [(cell, None)]


def test_a_gain_over_one_rival_alone_is_no_gain(records, monkeypatch):
    cell = records.Cell("virus", 64, 25)
    families(records, monkeypatch, [cell])
    (found,) = records.gains(list(cell_records(records, cell, -0.004)), chosen(records))
    first, second = (rival.gain for rival in found.rivals)
    assert second.mean > 0 > first.mean
    assert not found.decision.helps
    (worse,) = records.gains(list(cell_records(records, cell, -0.05)), chosen(records))
    assert worse.decision.harms
    assert not worse.decision.helps
    assert worse.decisive.way == RIVAL


def test_the_pilot_chooses_the_best_of_each_kind_and_only_when_it_is_complete(records, scripts):
    def pilot(cell, aucs):
        for way, auc in aucs.items():
            better = 0.2 if (way, cell.patients) == ("linear, SMOTE", 25) else 0.0
            yield from classifiers(records, cell, records.PILOT_FOLDS, way, auc + better, draws=records.PILOT[cell])

    rivals, uses = list(scripts.ways.RIVALS), list(scripts.ways.USES)
    aucs = {way: 0.6 + 0.005 * number for number, way in enumerate([*rivals, *uses])}
    aucs["linear, SMOTE"] = 0.6
    without = {way: aucs[way] for way in rivals}
    first, further, three, covid, _ = records.PILOT
    assert records.choose([], rivals, dict.fromkeys(uses, "")) is None
    for record in [*pilot(first, aucs), *pilot(covid, without), *list(pilot(three, without))[1:]]:
        records.add(records.OF_PILOT, record)
    scripts.runs.main(["choose"])
    choices = records.read_choices()
    older = [replace(record, machine=replace(record.machine, procedure=1)) for record in pilot(further, without)]
    (*mixed,) = [*records.read(records.OF_PILOT), *older]  # classifiers of an older procedure choose nothing
    assert records.choose(mixed, rivals, dict.fromkeys(uses, "")) == choices
    assert scripts.runs.pilot_table(mixed) == scripts.runs.pilot_table(mixed[: -len(older)])
    assert [own.cell for own in choices.rivals] == [first, covid]
    assert choices.rivals_of(records.Cell("virus", 64, 10)) == choices.rivals_of(first) == ("linear, SMOTE", "linear")
    assert choices.rivals_of(records.Cell("virus", 64, 50)) == ("linear, SMOTE", "linear")  # the smaller of two
    assert choices.rivals_of(further) is choices.rivals_of(three) is None
    assert choices.rivals_of(records.Cell("virus", 128, 25)) is None
    families = [scripts.ways.USES[use].family for use in choices.uses]
    assert len(set(families)) == len(families) == records.USES
    assert choices.uses[0] == uses[-1]
    table = scripts.runs.pilot_table(records.read(records.OF_PILOT))
    assert f"| {rivals[0]} | " in table
    assert f"| {uses[-1]} | virus, 25 patients | -0." in table  # against linear, SMOTE
    with pytest.raises(SystemExit, match=r"choices.json has nothing for these cells: run pilot, then choose"):
        scripts.runs.main(["cells", "sets", "work", "--questions", "three"])
    for record in [*pilot(three, without), *pilot(further, without)]:
        records.add(records.OF_PILOT, record)
    scripts.runs.main(["choose"])
    later = records.read_choices()
    assert later.uses == choices.uses
    assert later.rivals[:2] == choices.rivals
    assert {own.cell for own in later.rivals} == {first, further, three, covid}
    assert later.rivals_of(records.Cell("virus", 64, 100)) == ("linear", rivals[-3])


def test_what_the_pilot_lacks_is_named_and_a_use_whose_generator_diverges_is_not_chosen(records, scripts, capsys):
    cell, best = records.WITH_USES, "pretrained, synthetic fill up"
    ways = {name: 0.8 if name == best else 0.7 for name in scripts.ways.WAYS}
    found = [
        record
        for way, auc in ways.items()
        for record in classifiers(records, cell, records.PILOT_FOLDS, way, auc, draws=records.PILOT[cell])
    ]
    lacking = next(record for record in found if (record.key.way, record.key.draw) == (best, 2))
    for record in found:
        if record != lacking:
            records.add(records.OF_PILOT, record)
    with pytest.raises(SystemExit, match=r"nothing is chosen: the pilot of .* is not complete"):
        scripts.runs.main(["choose"])
    told = capsys.readouterr().out
    assert f"{cell}: the pilot is not complete; these ways lack these draws: {best}: 2\n" in told
    assert f"{list(records.PILOT)[1]}: the pilot has not begun" in told
    lost = records.Lost(lacking.key, lacking.machine, lacking.date)
    records.add(records.lost_beside(records.OF_PILOT), lost)
    assert records.read_lost(records.OF_PILOT) == [lost]
    scripts.runs.main(["choose"])
    assert f"{best}: not chosen, since a generator of it diverged with every seed" in capsys.readouterr().out
    assert best not in records.read_choices().uses
    records.CHOICES.unlink()
    records.add(records.OF_PILOT, lacking)  # it could be trained after all
    scripts.runs.main(["choose"])
    assert records.read_choices().uses == (best,)


def test_draws_whose_generators_began_with_the_same_one_count_once(records):
    drawn = [DrawnGain("a", fold, draw, 0.01 * draw, np.full(3, float(draw))) for fold in (0, 1) for draw in range(9)]
    found = records.units(drawn)
    assert [(one.fold, one.draw) for one in found] == [(fold, base) for fold in (0, 1) for base in range(7)]
    assert [one.gain for one in found[:3]] == pytest.approx([0.035, 0.045, 0.02])  # draws 0 and 7, 1 and 8, 2
    assert found[1].influence == pytest.approx(np.full(3, 4.5))
    assert [astuple(one)[:4] for one in records.units(drawn[:7])] == [astuple(one)[:4] for one in drawn[:7]]


def test_the_families_of_the_map_are_those_of_its_page(records, scripts):
    """Draws of a fold have no patient in common, so there have to be enough of them; the shares are of one whole."""
    page = " ".join((FOLDER / "README.md").read_text().split())
    assert " ".join(scripts.table.families_table().split()) in page
    first, budget, folds = records.FAMILIES[0], records.Budget(), len(records.FOLDS)
    draws, bases = folds * sum(first.draws.values()), folds * records.BASES
    counts = (
        f"{bases} generators to begin with ({bases * budget.kimg:,.0f} thousand images), {draws} that are fine-tuned"
    )
    assert f"{counts} ({draws * budget.fine_tuned_kimg:,.0f})" in page
    assert f"and {draws * (records.RIVALS + records.USES)} classifiers" in page
    assert sum(family.share for family in records.FAMILIES) == pytest.approx(1)
    smallest_fold = 353  # patients with the class VIRUS
    assert all(cell.patients * draws <= smallest_fold for cell, draws in records.DRAWS.items())
    trained_on = 386  # the same of fold 1, on which the pilot trains
    assert all(cell.patients * draws <= trained_on for cell, draws in records.PILOT.items())
    assert len(set(records.MAP)) == len(records.MAP)
    assert all(records.nearest_pilot(cell).side == cell.side for cell in records.MAP)


def test_more_draws_and_fewer_differences_show_smaller_gains(records):
    spread = records.Spread(0.0, of_draws=0.02, of_patients=0.005)
    assert spread.detectable(3) > spread.detectable(12) > 2.8 * 0.005 / 2**0.5
    assert replace(spread, of_draws=0.01).detectable(3) < spread.detectable(3)


def test_grey_values_and_borders_are_all_that_is_seen(scripts):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 200, (6, 1, 64, 64), dtype=np.uint8)
    inside = images.copy()
    inside[:, :, 10:50, 10:50] = inside[:, :, 10:50, 10:50][:, :, ::-1, ::-1]  # the same grey values elsewhere
    np.testing.assert_array_equal(scripts.origin.grey_and_border(inside), scripts.origin.grey_and_border(images))
    images[0, :, :4] = 255  # the border
    assert (scripts.origin.grey_and_border(images) != scripts.origin.grey_and_border(inside)).any()


def test_kinds_of_images_and_their_folds(scripts):
    sets = scripts.sets
    names = ["children/PNEUMONIA/person1_virus_2.jpeg", "children/PNEUMONIA/person1_bacteria_2.jpeg"]
    names += ["adults/COVID/a.png", "children/NORMAL/b.jpeg"]
    assert [sets.kind(name) for name in names] == ["VIRUS", "BACTERIA", "COVID", "NORMAL"]
    folds = [sets.fold_of(str(number)) for number in range(300)]
    assert min(folds.count(fold) for fold in range(3)) > 70
    assert folds[:4] == FOLDS_OF_FOUR  # as ever: sets of other machines have the same


def test_sets_are_prepared_from_both_folders(records, scripts, tmp_path, monkeypatch):
    sets = scripts.sets
    write_phantoms(tmp_path / "phantoms", 24, resolution=64)
    normal, ill = (sorted((tmp_path / "phantoms" / name).iterdir()) for name in ("NORMAL", "PNEUMONIA"))
    for number, file in enumerate(normal):
        place = tmp_path / ("children" if number % 2 else "adults") / "NORMAL"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / f"n{number}{file.suffix}")
    for number, file in enumerate(ill):
        folder, name = [("adults/COVID", "c"), ("children/PNEUMONIA", "person_virus_"), ("children/PNEUMONIA", "b")][
            number % 3
        ]
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / folder / f"{name}{number}{file.suffix}")
    (copied,) = (tmp_path / "adults" / "NORMAL").glob("n0*")
    with Image.open(copied) as image:
        image.convert("L").save(tmp_path / "children" / "NORMAL" / "again.jpeg", quality=92)
    monkeypatch.setattr(sets, "SIDES", (64, 32))
    monkeypatch.setattr(sets, "call", lambda *words: main([*map(str, words)]))
    monkeypatch.setattr(sys, "argv", ["sets.py", *(str(tmp_path / name) for name in ("children", "adults", "sets"))])
    sets.main()
    classes = {}
    for question in sets.QUESTIONS:
        trained, tested = (PreparedSet.open(tmp_path / "sets" / question / pair / "32") for pair in ("1-2", "2-1"))
        classes[question] = set(trained.classes)
        for one, other in (("train", "holdout"), ("holdout", "train")):
            names = {trained.manifest[i].source for i in trained.indices(one)}
            assert names == {tested.manifest[i].source for i in tested.indices(other)}
    assert classes == {
        "virus": {"BACTERIA", "VIRUS"},
        "three": {"NORMAL", "BACTERIA", "VIRUS"},
        "covid": {"NORMAL", "PNEUMONIA", "COVID"},
    }
    place = scripts.draws.Place(tmp_path / "sets", tmp_path / "work", scripts.records.Budget())
    elsewhere = scripts.draws.Draw(scripts.records.Cell("three", 32, 10), "1-2", 0, place).elsewhere()
    assert elsewhere.images.shape == (19, 1, 32, 32)  # without a copy of a child's
    found = elsewhere.tested(0.9 - 0.8 * np.array(elsewhere.known.truth))
    assert found.auc == 1
    np.testing.assert_allclose(
        scripts.records.probabilities(found)[:, 1], 0.1 + 0.8 * np.array(elsewhere.known.truth), rtol=0.01
    )
    areas = scripts.origin.measured(PreparedSet.open(tmp_path / "sets" / "adults" / "32"))
    assert set(areas) == {"NORMAL", "COVID"}


def test_simulated_maps_know_their_true_gains(records, scripts, monkeypatch):
    simulate = scripts.simulate
    own = [records.Cell("virus", 64, count) for count in (25, 100)]
    families(records, monkeypatch, own)
    for name in ("FAMILIES", "MAP", "DRAWS"):
        monkeypatch.setattr(simulate, name, getattr(records, name))
    monkeypatch.setattr(simulate, "PATIENTS", dict.fromkeys(simulate.PATIENTS, ((30, 20, 50), (30, 20, 50))))
    truth, of, common = simulate._fold(np.random.default_rng(0), "virus", 0)
    assert len(truth) == len(of) == len(common)
    assert (set(of[truth == 1]), set(of[truth == 0])) == (set(range(50)), set(range(30, 100)))
    found = simulate.simulated(np.random.default_rng(0), (0.0, 0.1))
    assert [len(ranks) for ranks in found] == [2, 2]
    told = [simulate.Told(number, gain, found, d) for number, (gain, d) in enumerate(
        zip((0.0, 0.1), simulate.decisions_of(found), strict=True)
    )]  # fmt: skip
    assert all(abs(one.first.mean - one.gain) < 0.15 for one in told)
    assert all(one.over[1].mean > one.over[0].mean - 0.05 for one in told)
    assert simulate.over_rival(0.1, 1) > simulate.over_rival(0.1, 0) == pytest.approx(0.1)
    row = simulate._row("some", "all", told)
    assert row["cells"] == "2"
    assert row["intervals_that_hold"] == f"{np.mean([one.holds for one in told]):.4f}"
    assert [one.wrong for one in told] == [one.decision.helps and not one.gain for one in told]


def test_the_committed_tables_page_and_verdicts_are_those_of_the_committed_records(scripts, tmp_path, monkeypatch):
    table = scripts.table
    readme, page = ((ROOT / name).read_text() for name in ("results/balance/map/README.md", "docs/balance.md"))
    found = table.measured()
    known = table.utility_map(found)
    assert table.simulation_table() in readme
    assert scripts.origin.table() in readme
    assert table.map_table(found) in readme
    assert table.known_table(known) in page
    assert UtilityMap.read(PATH) == known
    committed = (FOLDER / "map.html").read_text()
    monkeypatch.setattr(table, "PAGE", tmp_path / "map.html")
    monkeypatch.setattr(table, "PATH", tmp_path / "utility_map.json")
    table.main(["write"])

    def without_version(text):
        return re.sub(r"samgan [\d.]+\w*", "samgan", text)

    assert without_version((tmp_path / "map.html").read_text()) == without_version(committed)
    verdicts = [
        verdict for question in known.questions for verdict in question.verdicts if question.name == "pneumonia"
    ]
    earlier = (ROOT / "results/balance/README.md").read_text()
    section = earlier.partition("## Whether they help")[2].partition("Three of these")[0]
    rows = [line for line in section.splitlines() if re.match(r"\| (as|\d)", line)]
    assert len(verdicts) == len(rows)
    assert sum("harms" in row for row in rows) == sum(verdict.verdict == HARMS for verdict in verdicts)
    assert not any("helps" in row for row in rows)
    front = (ROOT / "README.md").read_text()
    for text in (front, page):
        assert f"of {len(verdicts)} cases none shows a gain" in " ".join(text.split())
    hard = any(question.verdicts for question in known.questions if question.difficulty != "easy")
    assert ("On hard questions it is not measured yet." in " ".join(front.split())) is not hard
    assert ("images above 64 px, **nothing is measured**" in " ".join(page.split())) is not hard


def test_a_measured_cell_comes_to_the_table_the_page_and_the_package(records, scripts, tmp_path, monkeypatch):
    table = scripts.table
    monkeypatch.setattr(table, "PAGE", tmp_path / "map.html")
    monkeypatch.setattr(table, "PATH", tmp_path / "utility_map.json")
    of = {
        (side, count): records.Cell("virus", side, count) for side, count in ((64, 10), (64, 25), (64, 50), (128, 25))
    }
    others = [records.Cell(question, 64, 25) for question in ("three", "covid")]
    families(records, monkeypatch, [of[64, 10], of[64, 25], of[64, 50]], [of[128, 25]], others)
    records.CHOICES.write_bytes(msgspec.json.encode(chosen(records)))
    for place, gain in (((64, 25), 0.03), ((64, 50), -0.03), ((128, 25), 0.03)):
        for record in cell_records(records, of[place], gain):
            records.add(records.CELLS, record)
    table.main(["write"])
    (question,) = (q for q in UtilityMap.read(table.PATH).questions if q.name == "virus")
    assert [(found.side, found.patients) for found in question.verdicts] == [(128, 25)]  # a family by itself
    page = (tmp_path / "map.html").read_text()
    assert page.count(" ?</text>") == 2
    assert table.map_table(table.measured()).count("not decided yet") == 2 * records.RIVALS
    for record in cell_records(records, of[64, 10], 0.0):
        records.add(records.CELLS, record)
    table.main(["write"])
    (question,) = (q for q in UtilityMap.read(table.PATH).questions if q.name == "virus")
    verdicts = {(found.side, found.patients): found for found in question.verdicts}
    assert (verdicts[64, 25].verdict, verdicts[64, 50].verdict, verdicts[64, 10].draws) == (HELPS, HARMS, 6)
    assert {verdict.rival for verdict in verdicts.values()} == {RIVAL}
    assert question.open == ()
    page = (tmp_path / "map.html").read_text()
    assert all(f"{verdicts[64, patients].gain:+.3f} *</text>" in page for patients in (25, 50))
    assert page.count("not measured</text>") == len(records.MAP) - 4
    hatched = [table.detectable(one, one.decisive) > table.ENOUGH for one in table.measured()]
    assert page.count('fill="url(#hatch-virus)"') == sum(hatched)
    assert len(table.map_table(table.measured()).splitlines()) == 2 + 4 * records.RIVALS
    helped = next(one for one in table.measured() if one.cell == of[64, 25])
    low, high = helped.recall.interval()
    assert f"| {helped.recall.mean:+.3f} [{low:+.3f}, {high:+.3f}] |" in table.map_table([helped])
    for rival in helped.rivals:
        assert f"| {', '.join(f'{gain:+.4f}' for gain in rival.of_folds)} |" in table.map_table([helped])


@pytest.fixture
def folds(tmp_path):
    """Phantoms for each pair of folds, as sets.py writes them but fewer and smaller."""
    write_phantoms(tmp_path / "phantoms", 20, resolution=32)
    first, second = (tmp_path / "sets" / "virus" / folds / "64" for folds in ("1-2", "1-0"))
    prepare(tmp_path / "phantoms", first, resolution=32, holdout=0.4, workers=1)
    shutil.copytree(first, second)
    return tmp_path / "sets"


@pytest.fixture
def short(records, scripts, monkeypatch):
    """Trains eight images, by networks of eight channels, in this process; what was called."""
    called = []
    small = ["--network.max_channels=8", "--network.mapping_layers=1", "--training.batch_size=8"]

    def call(words, place):
        place.check()
        words = [*map(str, words)]
        called.append(words)
        fresh = words[0] == "train" and "--resume" not in words
        assert main([*words, *(small if fresh else [])]) == 0

    monkeypatch.setattr(scripts.draws, "call", call)
    monkeypatch.setattr(scripts.draws, "POOL", 16)
    for module in (records, scripts.draws):
        monkeypatch.setattr(module, "SMALL", {"virus": "NORMAL"})
    return called


TINY = ["--kimg", "0.008", "--fine-tuned-kimg", "0.008", "--steps", "1", "--patients", "10", "--seeds", "0"]


@pytest.mark.filterwarnings("ignore")
def test_cells_are_measured_once_and_go_on_after_a_stop(records, scripts, folds, short, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records, "FOLDS", ("1-2",))
    records.CHOICES.write_bytes(msgspec.json.encode(chosen(records)))
    words = ["cells", str(folds), str(tmp_path / "work"), "--questions", "virus", "--sides", "64", "--draws", "0"]
    with pytest.raises(SystemExit, match="not that of the protocol: name another file with --records"):
        scripts.runs.main([*words, *TINY])
    words += [*TINY, "--records", str(tmp_path / "trial.jsonl")]
    scripts.runs.main([*words, "--minutes", "0"])
    assert "time is over" in capsys.readouterr().out
    assert records.read(tmp_path / "trial.jsonl") == []
    scripts.runs.main(words)
    found = records.read(tmp_path / "trial.jsonl")
    assert [(r.key.folds, r.key.way, r.key.generator) for r in found] == [
        ("1-2", RIVAL, None),
        ("1-2", SECOND, None),
        ("1-2", USE, scripts.draws.Draw(records.MAP[0], "1-2", 0, None).seed()),
    ]
    for record in found:
        probabilities = records.probabilities(record)
        area, _ = area_and_influence(probabilities, *map(np.array, astuple(records.HeldOut.read(record.held_out))[1:]))
        assert area == pytest.approx(record.scores["auc"], abs=0.01)
    assert [bool(r.recipe) for r in found] == [bool(r.generators) for r in found] == [False, False, True]
    seed = found[-1].key.generator
    assert [(one.run.split("-")[0], one.seed) for one in found[-1].generators] == [("fine", seed), ("others", seed)]
    assert found[-1].generator_seconds > 0
    assert len({r.trained_on for r in found}) == 1
    assert [words[0] for words in short] == ["subset", "train", "train"]  # what it is fine-tuned from, and it
    tested, asked = scripts.runs.tested, []
    monkeypatch.setattr(scripts.runs, "tested", lambda *words: asked.append(words) or tested(*words))
    scripts.runs.main(words)
    assert len(short) == 3
    assert not asked
    assert records.read(tmp_path / "trial.jsonl") == found
    monkeypatch.setattr(scripts.runs, "PROCEDURE", 99)
    scripts.runs.this_machine.cache_clear()
    for _ in range(2):
        scripts.runs.main(words)
        assert len(asked) == 3  # of the newer procedure, and then no more
    newer = records.read(tmp_path / "trial.jsonl")
    assert [(r.key, r.machine.procedure) for r in newer] == [(r.key, 99) for r in found]
    assert len(short) == 3
    (tmp_path / "trial.jsonl").unlink()
    records.add(tmp_path / "trial.jsonl", replace(newer[0], trained_on="another"))
    with pytest.raises(SystemExit, match=r"expected the training images of the draw's other lines, another, found"):
        scripts.runs.main(words)
    assert records.read(tmp_path / "trial.jsonl") == [replace(newer[0], trained_on="another")]


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_diverged_is_tried_again_with_other_seeds_and_records_have_them(
    scripts, folds, short, tmp_path, monkeypatch
):
    draws, call, asked = scripts.draws, scripts.draws.call, []

    def diverging(words, place):
        asked.append([str(word) for word in words if str(word).startswith("--training.seed")])
        if len(asked) <= bad:
            raise draws.Diverged("samgan train: status 1")
        call(words, place)

    place = draws.Place(folds, tmp_path / "work", scripts.records.Budget(kimg=0.008, fine_tuned_kimg=0.008))
    draw = draws.Draw(scripts.records.Cell("virus", 64, 10), "1-2", 0, place)
    data = draw.open()
    monkeypatch.setattr(draws, "call", diverging)
    bad = 1
    run = draws.trained(draw, data, "joint", "NORMAL", 5)
    assert asked == [["--training.seed=5"], ["--training.seed=105"]]
    assert draws.trained(draw, data, "joint", "NORMAL", 5) == run  # known to diverge, and trained: nothing is called
    assert len(asked) == 2
    assert draws.seconds_of([run, run]) == draws.seconds_of([run]) > 0
    asked, bad = [], 1
    run = draws.trained(draw, data, "fine-tuned", "NORMAL", 7)
    assert asked == [["--training.seed=1000"], ["--training.seed=1100"], ["--training.seed=7"]]
    own, base = draws.described([run])
    assert (own.run, own.seed, base.seed) == (run.name, 7, 1100)
    assert own.sha256 != base.sha256
    told = [line for line in Run.open(run).stats() if line["kind"] == "scores"]
    assert (own.swd, own.ms_ssim_gap) == (told[-1]["swd"], told[-1]["ms_ssim_gap"])
    asked, bad = [], 9
    for _ in range(2):
        with pytest.raises(draws.Diverged):
            draws.trained(draw, data, "joint", "NORMAL", 6)
        assert asked == [[f"--training.seed={seed}"] for seed in (6, 106, 206, 306, 406)]


def test_draws_of_all_numbers_of_patients_share_what_has_seen_none_of_them(scripts, folds, tmp_path, monkeypatch):
    draws, trained = scripts.draws, {}

    def train(out, data, kimg, settings, place, start=None):
        if "others-1000-" in out.name:
            raise draws.Diverged("samgan train: status 1")
        trained[out] = (data, kimg, settings[:2], start)
        return out

    monkeypatch.setattr(draws, "train", train)
    monkeypatch.setattr(draws, "SMALL", {"virus": "NORMAL"})
    place = draws.Place(folds, tmp_path / "work", scripts.records.Budget())
    data = {count: SimpleNamespace(path=tmp_path / str(count), classes=["NORMAL", "PNEUMONIA"]) for count in (10, 25)}
    runs = []
    for count, few in data.items():
        draw = draws.Draw(scripts.records.Cell("virus", 64, count), "1-2", 0, place)
        runs += draws.runs_of(draw, few, "fine-tuned", "NORMAL", 5)
        assert runs[-1].parent == draw.folder
        assert runs[-1].name.startswith("fine-tuned-5-")  # it did not diverge, only what it begins with
    base = draw.shared / f"others-1100-{draws.length(draw)}"
    assert trained.pop(base) == (folds / "virus" / "1-2" / "64", 120.0, ["--classes", "PNEUMONIA"], None)
    assert [trained[run] for run in runs] == [
        (few.path, 30.0, ["--classes", "NORMAL"], base) for few in data.values()
    ]  # fmt: skip
    assert len(trained) == 2
    # Of another class it sees all images, so that draws with one base share it.
    shared = draws.runs_of(draw, data[25], "fine-tuned", "PNEUMONIA", 5)
    assert shared == [draw.shared / f"fine-tuned-1000-{draws.length(draw)}-PNEUMONIA"]
    assert trained[shared[0]] == (folds / "virus" / "1-2" / "64", 30.0, ["--classes", "PNEUMONIA"], base)
    assert replace(draw, number=scripts.records.BASES).base == draw.base != replace(draw, number=1).base


def test_a_run_that_draws_share_is_trained_by_one_process_at_a_time(scripts, tmp_path, monkeypatch):
    draws, waited = scripts.draws, []
    place = draws.Place(tmp_path, tmp_path, scripts.records.Budget())
    other = draws.in_turn(tmp_path / "run", place)
    other.__enter__()

    def wait(seconds):
        waited.append(seconds)
        other.__exit__(None, None, None)

    monkeypatch.setattr(draws, "time", SimpleNamespace(sleep=wait, monotonic=time.monotonic))
    with draws.in_turn(tmp_path / "run", place):
        assert waited == [draws.WAIT]


def test_no_seed_of_a_second_try_is_another_seed(scripts):
    """Of a draw, or of a classifier in it."""
    draws = scripts.draws
    first = {draws.Draw(None, folds, number, None).seed() for folds in ("1-2", "2-1", "1-0") for number in range(99)}
    others = {seed + of for seed in first for of in range(50)}
    assert len(first) == 3 * 99
    again = {seed + draws.AGAIN * number for seed in others for number in range(1, draws.TRIES)}
    assert len(again) == len(others) * (draws.TRIES - 1)
    assert not again & others


def test_a_way_of_several_networks_has_the_mean_of_what_they_say(scripts, monkeypatch):
    draws, seeds = scripts.draws, []

    def classify(images, labels, of_real, test, arm, classes, *, seed, **options):
        seeds.append(seed)
        return draws.Classified(np.full((len(test), classes), float(seed)), 2.0)

    monkeypatch.setattr(draws, "classify_timed", classify)
    monkeypatch.setattr(draws, "SMALL", {"virus": "VIRUS"})
    real = {"BACTERIA": np.zeros((6, 1, 32, 32), np.uint8), "VIRUS": np.zeros((2, 1, 32, 32), np.uint8)}
    data = SimpleNamespace(classes=list(real), select=lambda part, names: real[names[0]])
    place = draws.Place(None, None, scripts.records.Budget())
    draw = draws.Draw(scripts.records.Cell("virus", 64, 2), "1-2", 0, place)
    way = scripts.ways.RIVALS["pretrained, augmentation, oversampling, mean of four"]
    found = draws.classified(draw, data, way, {}, draw.seed(1), real["VIRUS"])
    assert seeds == [1001, 1011, 1021, 1031]
    assert (found.predicted == np.mean(seeds)).all()
    assert found.seconds == 8


def test_what_was_made_before_costs_what_it_took_then(scripts, tmp_path, monkeypatch):
    draws, rivals, asked = scripts.draws, scripts.ways.RIVALS, []
    monkeypatch.setenv("SAMGAN_CACHE", str(tmp_path / "cache"))
    trained = "samgan.studies.classifier.train_classifier"
    monkeypatch.setattr(trained, lambda *_, seed, **options: asked.append(seed) or time.sleep(0.01))
    monkeypatch.setattr("samgan.studies.classifier.predict", lambda network, test: np.full((len(test), 2), 0.5))
    monkeypatch.setattr(draws, "SMALL", {"virus": "VIRUS"})
    real = {"BACTERIA": np.zeros((6, 1, 32, 32), np.uint8), "VIRUS": np.zeros((2, 1, 32, 32), np.uint8)}
    data = SimpleNamespace(classes=list(real), select=lambda part, names: real[names[0]])
    place = draws.Place(tmp_path, tmp_path, scripts.records.Budget())
    draw = draws.Draw(scripts.records.Cell("virus", 64, 2), "1-2", 0, place)

    def seconds(name):
        return draws.classified(draw, data, rivals[name], {}, 1, real["VIRUS"]).seconds

    one = seconds("pretrained, augmentation, oversampling")
    four = seconds("pretrained, augmentation, oversampling, mean of four")
    assert seconds("pretrained, augmentation, oversampling, mean of four") == four > one + 0.03
    assert asked == [1, 11, 21, 31]
    draw.folder.mkdir(parents=True)
    made = [draws.kept(draw, "some", lambda: asked.append("made") or time.sleep(0.01) or real["VIRUS"]) for _ in "12"]
    assert asked[4:] == ["made"]
    assert made[0].seconds == made[1].seconds > 0.01
    np.testing.assert_array_equal(made[1].images, real["VIRUS"])


def test_the_time_of_images_has_that_of_choosing_but_not_that_of_training(scripts, tmp_path, monkeypatch):
    draws, done = scripts.draws, []
    monkeypatch.setattr(draws, "runs_of", lambda *_: done.append("trained") or [tmp_path])
    monkeypatch.setattr(draws, "synthetic", lambda *words: np.zeros((words[-1], 1, 32, 32), np.uint8))
    monkeypatch.setattr(draws, "train_classifier", lambda *_, **options: time.sleep(0.05))
    monkeypatch.setattr(draws, "predict", lambda judge, pool: np.full((len(pool), 2), 0.5))
    real = np.zeros((4, 1, 32, 32), np.uint8)
    data = SimpleNamespace(classes=["BACTERIA", "VIRUS"], select=lambda part, names: real)
    place = draws.Place(tmp_path, tmp_path, scripts.records.Budget())
    draw = draws.Draw(scripts.records.Cell("virus", 64, 2), "1-2", 0, place)
    draw.folder.mkdir(parents=True)
    kept = draws.kept

    def after_training(*words):
        assert done
        return kept(*words)

    monkeypatch.setattr(draws, "kept", after_training)
    way = scripts.ways.USES["pretrained, synthetic and real alike: of the boundary"]
    made = draws.chosen(draw, data, way, 5, "VIRUS", 3)
    assert made.images.shape == (3, 1, 32, 32)
    assert made.seconds > 0.05


def test_a_record_tells_its_device_and_networks_compute_in_full_on_every_one(scripts, tmp_path, monkeypatch):
    draws, seen = scripts.draws, []
    gpu, cpu = (scripts.runs.this_machine(device) for device in ("cuda", "cpu"))
    assert gpu != cpu
    assert (gpu.device.split(":")[0], cpu.device) == ("cuda", "cpu")
    rounding = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [of.allow_tf32 for of in rounding]
    try:
        for of in rounding:
            of.allow_tf32 = True
        draws.compute_in_full()
        assert [of.allow_tf32 for of in rounding] == [False, False]
    finally:
        for of, was in zip(rounding, before, strict=True):
            of.allow_tf32 = was

    def begin(command, *, env, **options):
        seen.append(env["NVIDIA_TF32_OVERRIDE"])
        return subprocess.Popen([sys.executable, "-c", ""], env=env, **options)

    monkeypatch.setattr(draws, "subprocess", SimpleNamespace(Popen=begin, DEVNULL=subprocess.DEVNULL))
    draws.call(["train"], draws.Place(tmp_path, tmp_path, scripts.records.Budget()))
    assert seen == ["0"]


def test_only_the_small_class_is_filled_up(scripts, monkeypatch):
    """Others that lack a few images do not get them: these would be drawn as often as all real ones."""
    draws, ways = scripts.draws, scripts.ways
    monkeypatch.setattr(draws, "SMALL", {"covid": "COVID"})
    monkeypatch.setattr(draws, "chosen", lambda draw, data, way, generator, name, count: np.zeros((count, 1, 32, 32)))
    real = {"COVID": 3, "NORMAL": 9, "PNEUMONIA": 10}
    data = SimpleNamespace(classes=list(real), select=lambda part, names: np.zeros((real[names[0]], 1, 32, 32)))
    draw = draws.Draw(scripts.records.Cell("covid", 64, 3), "1-2", 0, None)
    few = draws.images_for(draw, data, ways.USES["synthetic and real alike"], 5)
    assert {name: len(images) for name, images in few.items()} == {"COVID": 7}
    every = draws.images_for(draw, data, ways.USES["synthetic and real alike in every class"], 5)
    assert {name: len(images) for name, images in every.items()} == dict.fromkeys(real, 10)


@pytest.mark.filterwarnings("ignore")
def test_what_fails_is_named_and_the_others_go_on(records, scripts, folds, short, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "FOLDS", ("1-2",))
    records.CHOICES.write_bytes(msgspec.json.encode(replace(chosen(records), uses=(USE, "linear, synthetic fill up"))))
    call = scripts.draws.call

    def failing(words, place):
        if words[0] == "train":
            raise scripts.draws.Failed("samgan train: status 1")
        call(words, place)

    monkeypatch.setattr(scripts.draws, "call", failing)
    words = ["cells", str(folds), str(tmp_path / "work"), "--questions", "virus", "--sides", "64", "--draws", "0"]
    with pytest.raises(SystemExit, match=rf"failed:\n.*{USE}: samgan train: status 1\n.*linear, synthetic"):
        scripts.runs.main([*words, *TINY, "--records", str(tmp_path / "trial.jsonl")])
    assert [record.key.way for record in records.read(tmp_path / "trial.jsonl")] == [RIVAL, SECOND]
    assert records.read_lost(tmp_path / "trial.jsonl") == []

    def diverging(words, place):
        raise scripts.draws.Diverged("samgan train: status 1")

    monkeypatch.setattr(scripts.draws, "call", diverging)
    monkeypatch.setattr(scripts.draws, "_failed", {})
    for _ in range(2):
        with pytest.raises(SystemExit, match=rf"failed:\n.*{USE}: diverged with 5 seeds .*\n.*linear, synthetic"):
            scripts.runs.main([*words, *TINY, "--records", str(tmp_path / "trial.jsonl")])
        lost = records.read_lost(tmp_path / "trial.jsonl")
        assert [one.key.way for one in lost] == [USE, "linear, synthetic fill up"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_synthetic_image_is_made_and_used(records, scripts, folds, short, tmp_path, monkeypatch):
    few = records.Cell("virus", 64, 10)
    monkeypatch.setattr(records, "PILOT", {few: 4})
    monkeypatch.setattr(records, "WITH_USES", few)
    names = ["linear, SMOTE", *scripts.ways.USES]
    words = ["pilot", str(folds), str(tmp_path / "work"), "--questions", "virus", "--draws", "0", *TINY]
    scripts.runs.main([*words, "--records", str(tmp_path / "p.jsonl"), "--only", *names])
    found = records.read(tmp_path / "p.jsonl")
    assert [record.key.way for record in found] == names
    assert [record.key.way for record in found if record.generators] == names[1:]
