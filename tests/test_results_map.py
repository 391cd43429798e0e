"""The map of results/balance: records of classifiers, what is chosen and found from them, and its tables and page."""

import importlib
import itertools
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from samgan import __version__
from samgan.commands.main import main
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.studies.map_cells import DrawnGain, estimate_gains
from samgan.studies.utility_map import PATH, UtilityMap
from samgan.trust.utility_document import HARMS, HELPS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "balance" / "map"
MODULES = ("records", "ways", "draws", "runs", "table")


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
    for name, file in (("PILOT", "pilot.jsonl"), ("CELLS", "cells.jsonl"), ("CHOICES", "choices.json")):
        monkeypatch.setattr(scripts.records, name, tmp_path / file)
    return scripts.records


RIVAL, USE = "augmentation, oversampling", "synthetic fill up"


def classifiers(records, cell, folds, way, auc, *, draws=2, generator=None, **changes):
    """Two classifiers of each of several draws, each a little different."""
    noise = np.random.default_rng([len(way), cell.patients])
    for draw, seed in itertools.product(range(draws), range(2)):
        yield records.Classifier(
            key=records.Key(cell, folds, draw, way, generator, seed, records.Budget()),
            scores={"auc": auc + 0.001 * float(noise.normal())},
            influence=tuple((1e-4 * noise.normal(size=50)).tolist()),
            held_out="the same",
            samgan=__version__,
            date="2026-01-01",
            **changes,
        )


def cell_records(records, cell, gain, **changes):
    """All records of one cell."""
    for folds in records.FOLDS:
        yield from classifiers(records, cell, folds, RIVAL, 0.75)
        yield from classifiers(records, cell, folds, USE, 0.75 + gain, generator=0, **changes)


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


def test_a_cell_is_measured_when_all_its_draws_are(records):
    cell = records.Cell("virus", 64, 25)
    choices = {"virus": records.Choice(RIVAL, (USE,))}
    every = list(cell_records(records, cell, 0.03))
    (found,) = records.gains(every, choices)
    assert (found.cell, found.use, found.rival, found.gain.draws) == (cell, USE, RIVAL, 4)

    def mean(way, folds, draw, what):
        own = [r for r in every if (r.key.way, r.key.folds, r.key.draw) == (way, folds, draw)]
        return np.mean([r.scores["auc"] if what == "auc" else r.influence for r in own], axis=0)

    by_hand = [
        DrawnGain("a", "25", fold, *(mean(USE, folds, d, w) - mean(RIVAL, folds, d, w) for w in ("auc", "influence")))
        for fold, folds in enumerate(records.FOLDS)
        for d in range(2)
    ]
    assert found.gain == replace(estimate_gains(by_hand)[0], cell=found.gain.cell)
    assert found.gain.mean == pytest.approx(0.03, abs=0.002)
    for missing in (every[0], every[-1]):
        assert records.gains([record for record in every if record != missing], choices) == []
    other = [replace(r, key=replace(r.key, budget=records.Budget(kimg=1.0))) for r in every]
    assert records.gains(other, choices) == []
    assert records.gains(every, {}) == []
    with pytest.raises(SystemExit, match="one set of held-out images"):
        records.gains([replace(every[0], held_out="another"), *every[1:]], choices)


def test_generators_of_a_draw_are_averaged(records):
    cell, choices = records.Cell("covid", 64, 10), {"covid": records.Choice(RIVAL, (USE,))}
    every = list(cell_records(records, cell, 0.02))
    more = [replace(r, key=replace(r.key, generator=1), scores={"auc": 0.0}) for r in every if r.key.way == USE]
    (one,), (two,) = records.gains(every, choices), records.gains([*every, *more], choices)
    assert two.gain.mean == pytest.approx((one.gain.mean - 0.75) / 2, abs=0.002)
    unfinished = [r for r in more if r.key.seed == 0]
    assert records.gains([*every, *unfinished], choices) == records.gains(every, choices)


def test_the_pilot_chooses_the_best_on_average_and_only_when_it_is_complete(records, scripts):
    def pilot(question, aucs):
        for patients in records.PILOT_PATIENTS:
            cell = records.Cell(question, records.PILOT_SIDE, patients)
            for way, auc in aucs.items():
                generator = None if way in scripts.ways.RIVALS else 0
                yield from classifiers(records, cell, records.PILOT_FOLDS, way, auc, generator=generator)

    rivals, uses = list(scripts.ways.RIVALS), list(scripts.ways.USES)
    aucs = {way: 0.6 + 0.01 * number for number, way in enumerate([*rivals, *uses])}
    for record in [*pilot("virus", aucs), *list(pilot("covid", aucs))[1:]]:
        records.add(records.PILOT, record)
    scripts.runs.main(["choose"])
    assert records.read_choices() == {"virus": records.Choice(rivals[-1], tuple(uses[:-4:-1]))}
    assert f"| {rivals[0]} | 0.600 ± 0.00" in scripts.runs.pilot_table(records.read(records.PILOT))
    with pytest.raises(SystemExit, match=r"choices.json has no choice for covid: .* run pilot, then choose"):
        scripts.runs.main(["cells", "sets", "work", "--questions", "virus", "covid"])


def test_the_committed_tables_page_and_verdicts_are_those_of_the_committed_records(scripts, tmp_path, monkeypatch):
    table = scripts.table
    readme, page = ((ROOT / name).read_text() for name in ("results/balance/map/README.md", "docs/balance.md"))
    found = table.measured()
    known = table.utility_map(found)
    assert table.simulation_table() in readme
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
    assert not any(verdict.verdict == HELPS for question in known.questions for verdict in question.verdicts)


def test_a_measured_cell_comes_to_the_table_the_page_and_the_package(records, scripts, tmp_path, monkeypatch):
    table = scripts.table
    monkeypatch.setattr(table, "PAGE", tmp_path / "map.html")
    monkeypatch.setattr(table, "PATH", tmp_path / "utility_map.json")
    choices = {"virus": records.Choice(RIVAL, (USE,))}
    records.CHOICES.write_bytes(msgspec.json.encode(choices))
    for patients, gain in ((25, 0.03), (100, -0.02), (250, 0.0)):
        for record in cell_records(records, records.Cell("virus", 64, patients), gain):
            records.add(records.CELLS, record)
    table.main(["write"])
    (question,) = (q for q in UtilityMap.read(table.PATH).questions if q.name == "virus")
    verdicts = {found.patients: found for found in question.verdicts}
    assert (verdicts[25].verdict, verdicts[100].verdict, verdicts[250].draws) == (HELPS, HARMS, 4)
    assert {cell.patients for cell in question.open if cell.side == 64} == {10, 50}
    page = (tmp_path / "map.html").read_text()
    assert all(f"{verdicts[patients].gain:+.3f} *</text>" in page for patients in (25, 100))
    assert page.count("not measured</text>") == len(records.MAP) - 3
    assert page.count('fill="url(#hatch-virus)"') == sum(found.detectable > table.ENOUGH for found in verdicts.values())
    assert len(table.map_table(table.measured()).splitlines()) == 2 + 3


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
    records.CHOICES.write_bytes(msgspec.json.encode({"virus": records.Choice(RIVAL, (USE,))}))
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
        ("1-2", USE, 0),
    ]
    assert all(0 <= r.scores["auc"] <= 1 and abs(sum(r.influence)) < 1e-5 for r in found)
    assert [words[0] for words in short] == ["subset", "train"]
    scripts.runs.main(words)
    assert len(short) == 2
    assert records.read(tmp_path / "trial.jsonl") == found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_synthetic_image_is_made_and_used(records, scripts, folds, short, tmp_path):
    names = ["linear, SMOTE", *scripts.ways.USES]
    words = ["pilot", str(folds), str(tmp_path / "work"), "--questions", "virus", "--draws", "0", *TINY]
    scripts.runs.main([*words, "--records", str(tmp_path / "p.jsonl"), "--only", *names])
    assert [record.key.way for record in records.read(tmp_path / "p.jsonl")] == names
