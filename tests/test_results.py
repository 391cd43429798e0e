"""Scripts of results/ read documents of samgan: the names they look for are there."""

import argparse
import base64
import csv
import hashlib
import importlib.util
import io
import json
import math
import re
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samgan import api
from samgan.config import Config
from samgan.data import prepare
from samgan.data.fit import fit_image
from samgan.data.phantom import write_phantoms
from samgan.data.subset import subset
from samgan.errors import SamganError
from samgan.metrics.features import FeatureExtractor
from samgan.metrics.legacy import adjacent_ms_ssim
from samgan.metrics.ms_ssim import mean_ms_ssim
from samgan.runs import Collapse, Environment, Run, Start
from samgan.sampling import Origin, Source
from samgan.scoring import Scores, score_images
from samgan.studies import (
    ARMS,
    CLAIMS,
    CLASSICAL,
    CONFIRMED,
    HEADLINE,
    REFUTED,
    ROWS,
    SIGN,
    UNDECIDED,
    BalanceDocument,
    RowDocument,
    ScoredAt,
    TableRequest,
)
from samgan.studies.table2_rows import PAPER_ROWS
from samgan.training import Recipe, Sampler, TrainingState, train_step
from samgan.trust.documents import SkippedPart

FOLDER = Path(__file__).parents[1] / "results"


def load(name, script="runs"):
    spec = importlib.util.spec_from_file_location(f"results_{script}", FOLDER / name / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scores():
    def network(images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)

    features = FeatureExtractor(network, name="stub", sha256="ab" * 32, device=torch.device("cpu"))
    images = torch.randint(0, 256, (120, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return score_images(real=images[:80], fake=images[80:], features=features)


def test_scores_of_curves_are_there(scores):
    runs = load("plus")
    assert set(runs.SCORES) <= set(scores.scores)
    assert set(runs.SCORES) < set(runs.COLUMNS)


@pytest.fixture
def balanced(scores, tmp_path):
    """The folder of a case, and its document."""
    folder = tmp_path / "100-joint"
    (folder / "against-all").mkdir(parents=True)
    (folder / "models" / "class-0").mkdir(parents=True)
    start = Start("all", 5_000)
    command = ("samgan", "balance", "/secret/data")
    Environment(start=start, command=command).write(folder / "models" / "class-0" / "environment.json")
    against_all = replace(scores, generated=Origin("run", images_seen=12_000))
    against_all.write(folder / "against-all" / "scores.json")
    kept = BalanceDocument.read(FOLDER / "balance" / "100-joint" / "balance.json")
    plan = replace(
        kept.plan,
        features="/home/me/FEATURES.pt",
        runs={"": "/home/me/models/joint"},
        method="fine-tuned",
        minutes=30.0,
    )
    screening = replace(kept.screening["NORMAL"], left_out={"near-copy": 2, "failed": 3}, features=None)
    model = replace(kept.training["NORMAL"], path="models/class-0", start=start)
    document = replace(
        kept, plan=plan, screening={"NORMAL": screening}, training={"NORMAL": model}, against_all=against_all
    )
    return folder, document


def test_a_balanced_set_becomes_a_line_of_the_table(balanced):
    runs = load("balance")
    _, document = balanced
    row = runs.describe("100-joint", document)
    assert set(row) == set(runs.COLUMNS)
    difference = round(document.utility.decisions["auc"].mean, 4)
    assert (row["kimg"], row["left_out"], row["auc_difference"]) == (17.0, "failed 3 near-copy 2", difference)
    without = runs.describe("100-joint", replace(document, utility=None))
    assert set(without) < set(runs.COLUMNS)
    assert set(runs.COMPARED.values()) < set(ARMS)
    unaudited = runs.describe("100-joint", replace(document, audit={"NORMAL": None}))
    assert unaudited["closer_than_held_out"] == ""


def test_the_committed_tables_are_those_of_the_committed_documents():
    runs = load("balance")
    documents = {path.parent.name: BalanceDocument.read(path) for path in runs.HERE.glob("*/balance.json")}
    assert len(documents) == 12
    for name, document in documents.items():
        assert BalanceDocument.from_dict(document.to_dict(), name) == document
    ordered = {name: documents[name] for name in runs.CASES if name in documents}
    for file, rows in (
        ("table.csv", [runs.describe(name, document) for name, document in ordered.items()]),
        ("arms.csv", [row for name, document in ordered.items() for row in runs.arms(name, document)]),
    ):
        with open(runs.HERE / file, newline="") as opened:
            kept = list(csv.DictReader(opened))
        assert [{column: str(row.get(column, "")) for column in kept[0]} for row in rows] == kept


def test_what_is_kept_of_a_case_names_no_folder_of_the_machine(balanced, tmp_path, monkeypatch):
    runs = load("balance")
    folder, document = balanced
    skipped = (SkippedPart("features of /secret/data", f"not in {Path.home()}/.cache"),)
    replace(document, skipped=skipped, against_all=None).write(folder / "balance.json")
    monkeypatch.setattr(runs, "HERE", tmp_path / "results")
    runs.HERE.mkdir()
    runs.table(folder.parent)
    kept = (tmp_path / "results" / folder.name / "balance.json").read_text()
    assert "FEATURES.pt" in kept
    assert "not in ~/.cache" in kept
    assert "features of data" in kept
    assert "/home" not in kept
    assert str(Path.home()) not in kept
    assert (tmp_path / "results" / "table.csv").read_text().count("100-joint") == 1
    arms = (tmp_path / "results" / "arms.csv").read_text().splitlines()
    assert arms[0].startswith("case,arm,auc,auc_low,auc_high,balanced_accuracy,")
    auc = document.utility.intervals["real"]["auc"]
    assert arms[1].split(",")[:5] == ["100-joint", "real", *(str(round(x, 4)) for x in (auc.mean, auc.low, auc.high))]
    assert len(arms) == 1 + len(ARMS)
    runs.table(tmp_path / "another-work-folder")
    assert (tmp_path / "results" / "table.csv").read_text().count("100-joint") == 1


def test_what_more_real_patients_are_worth_is_told_with_its_interval(tmp_path, monkeypatch):
    runs = load("balance")
    write_phantoms(tmp_path / "images", 60, resolution=32)
    whole = prepare(tmp_path / "images", tmp_path / "whole", resolution=32, holdout=0.4, workers=1)
    case = runs.Case(["--images", "NORMAL=5"], runs.SHORT)
    monkeypatch.setattr(runs, "CASES", {"few": case})
    monkeypatch.setattr(runs, "HERE", tmp_path)
    part = subset(whole, runs.part_of(case, tmp_path), images={"NORMAL": 5})
    truth = whole.labels(whole.classes)[whole.indices("holdout")]
    asked = []

    def classify(images, labels, of_real, test, arm, classes, *, seed, steps):
        """Of the whole set a classifier knows all, of the part nothing."""
        assert len(test) == len(truth)
        asked.append((len(labels), int((labels == 0).sum()), steps))
        return np.eye(2)[truth] if len(labels) == len(whole.indices("train")) else np.full((len(truth), 2), 0.5)

    monkeypatch.setattr(runs, "classify", classify)
    runs.worth("few", whole.path, tmp_path)
    lines = list(csv.DictReader((tmp_path / "few" / "worth.csv").read_text().splitlines()))
    assert [line["arm"] for line in lines] == list(CLASSICAL)
    assert {(line["auc"], line["auc_of_all"], line["auc_low"], line["auc_high"]) for line in lines} == {
        ("0.5", "1.0", "0.5", "0.5")
    }
    assert {count for count, _, _ in asked} == {len(whole.indices("train")), len(part.indices("train"))}
    assert {steps for _, _, steps in asked} == {250}
    assert {few for _, few, _ in asked} == {len(whole.indices("train", ["NORMAL"])), 5}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_how_often_images_of_a_small_class_repeat_is_told_for_each_way(scores, tiny_config, tmp_path, monkeypatch):
    runs = load("balance")
    write_phantoms(tmp_path / "images", 60, resolution=32)
    data = prepare(tmp_path / "images", tmp_path / "whole", resolution=32, holdout=0.4, workers=1)
    monkeypatch.setattr(runs, "make_part", lambda case, whole, work: whole)
    monkeypatch.setattr(runs, "HERE", tmp_path / "balance")
    runs.HERE.mkdir()
    called = []

    def run(*arguments):
        called.append(" ".join(map(str, arguments)))
        if "train" in arguments:
            alone = arguments[-2] == "--classes"
            settings = {"training.kimg": 0.008, "network.num_classes": 0 if alone else 2}
            settings |= {"data.classes": ["NORMAL"]} if alone else {}
            out = arguments[arguments.index("--out") + 1]
            api.train(tiny_config.override(settings), data, out, device="cpu", quiet=True)
        else:
            folder = arguments[arguments.index("--out") + 1]
            folder.mkdir()
            (folder / "scores.json").write_text(json.dumps(scores.to_dict()))

    monkeypatch.setattr(runs, "run", run)
    for _ in range(2):  # the second time all is there
        runs.collapse(argparse.Namespace(data=data.path, work=tmp_path, features=tmp_path / "FEATURES.pt", seeds=1))
    assert len(called) == 2 * len(runs.WAYS)
    ideas = load("plus", "tried").IDEAS
    assert {name for words, _ in runs.WAYS.values() for name in words.split(",")} <= {"", *ideas}
    lines = list(csv.DictReader((runs.HERE / "collapse.csv").read_text().splitlines()))
    assert [line["minibatch_std"] for line in lines] == list(runs.WAYS)
    assert all(0 <= float(line["duplicates"]) <= 1 for line in lines)


@pytest.mark.parametrize("idea", sorted(load("plus", "tried").IDEAS))
def test_an_idea_changes_what_is_learned(idea):
    network = {"resolution": 32, "max_channels": 8, "mapping_layers": 1, "minibatch_std_group": 2, "num_classes": 2}
    kinds = {"generator_blocks": "modulated", "discriminator_blocks": "residual"}
    settings = {"loss": "relativistic-paired", "augment_target": 0.5, "batch_size": 4, "kimg": 1.0}
    config = Config().override({"network": {**network, **kinds}, "training": settings})
    images = torch.randint(0, 256, (16, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def losses(recipe):
        state = TrainingState(config, torch.device("cpu"), recipe)
        sampler = Sampler(images.numpy(), config, state.device, labels=np.arange(16) // 4 % 2)
        return [float(train_step(state, sampler(step))["loss_discriminator"]) for step in range(3)]

    plain = Recipe.of(config.training)
    changed = losses(load("plus", "tried").IDEAS[idea](plain))
    assert changed != losses(plain)
    assert all(map(math.isfinite, changed))


@pytest.mark.filterwarnings("ignore")
def test_a_run_with_ideas_is_trained_and_scored(tmp_path):
    def network(images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)

    features = tmp_path / "features.pt"
    torch.jit.trace(network, torch.zeros(3, 1, 32, 32, dtype=torch.uint8)).save(str(features))
    write_phantoms(tmp_path / "images", 60, resolution=32)
    data = prepare(tmp_path / "images", tmp_path / "data", resolution=32, holdout=0.4, workers=1)
    names, out = "pixel-shuffle,mixed-groups,fading-classes", tmp_path / "run"
    tried = load("plus", "tried")
    small = ["--network.max_channels=16", "--network.channel_base=512", "--training.kimg=0.032"]
    tried.main([names, "train", str(data.path), "--out", str(out), "--device", "cpu", *small])
    tried.main([names, "evaluate", str(out), "--data", str(data.path), "--features", str(features), "--device", "cpu"])
    assert Scores.read(out / "scores.json").generated.images_seen == 32
    with pytest.raises(SamganError, match="do not fit its configuration"):
        Source.open(out)
    with pytest.raises(SystemExit):
        tried.main(["no-such-idea", "train", str(data.path), "--out", str(out)])


def test_a_cut_square_lies_at_the_same_place_of_every_scale():
    cut_out = load("plus", "tried").cut_out
    pyramid = cut_out([torch.ones(2, 1, side, side) for side in (8, 16, 32)], torch.tensor([[0.5, 0.25], [0.0, 1.0]]))
    assert all(images[0].sum() == 0.75 * images[0].numel() for images in pyramid)
    assert all(images[1].sum() == 15 / 16 * images[1].numel() for images in pyramid)
    assert pyramid[2][0, 0, 8:24, :16].abs().sum() == 0


def package_of_weights(path, values, names, per_shard=5):
    """A package as npm's of the stand-in Inception: names and ranges in one file, bytes as base64 in others."""
    folder = load("", "stand_in").FOLDER
    entries = ",".join(
        f'{{name:"{name}",shape:[{shape}],dtype:"float32",quantization:{{min:{low},scale:{scale},dtype:"uint8"}}}}'
        for name, shape, low, scale in names
    )
    files = {"model.min.js": f"module.exports={{weights:[{entries}]}}"}
    for number, start in enumerate(range(0, len(values), per_shard), start=1):
        text = base64.b64encode(values[start : start + per_shard]).decode()
        files[f"group1-shard{number}of2.min.js"] = f'module.exports="{text}"'
    with tarfile.open(path, "w:gz") as archive:
        for name, content in reversed(files.items()):
            member = tarfile.TarInfo(folder + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def test_weights_of_the_stand_in_inception_are_read_from_its_package(tmp_path):
    stand_in = load("", "stand_in")
    names = [("conv2d_1/kernel", "2,3", "-.5", ".25"), ("dense/bias", "1", "1e-3", "2")]
    package = package_of_weights(tmp_path / "a.tgz", bytes(range(7)), names)
    weights = stand_in.read_weights(package)
    assert weights["conv2d_1/kernel"].tolist() == [[-0.5, -0.25, 0.0], [0.25, 0.5, 0.75]]
    assert weights["dense/bias"] == pytest.approx(12.001)
    with pytest.raises(SystemExit, match="7 bytes of weights, 6 of them named"):
        stand_in.read_weights(package_of_weights(tmp_path / "b.tgz", bytes(range(7)), names[:1]))


def test_the_stand_in_inception_averages_as_keras_does():
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    pool = load("", "stand_in").SamePool(torch.nn.Identity())
    expected = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(pool(torch.nn.functional.avg_pool2d(x, 3, 1, 1)), expected)


def of_the_verdict(verdict, name, seed, part, **changes):
    """A record of a run as the protocol has it, with the scores of a real one."""
    made = RowDocument.read(min((FOLDER / "verdict/rest/rows").glob("*.json")))
    kimg = verdict.PARTS[part].kimg
    config = verdict.expected_config(name, seed, kimg)
    trained = replace(made.trained, config=config.to_dict(), kimg=config.training.kimg)
    copies = ROWS[name].copies

    def scored(length):
        seen = int(1000 * copies * length)
        return tuple(
            replace(one, generated=replace(one.generated, images_seen=seen))
            for one in (made.scores, made.second_scores)
        )

    at = []
    for length in verdict.PARTS[part].score_at:
        scores, second = scored(length)
        at.append(ScoredAt(kimg=length, scores=scores, second_scores=second))
    scores, second = scored(kimg)
    second = None if ROWS[name].colour else second
    row = replace(made, name=name, seed=seed, trained=trained, scores=scores, second_scores=second)
    row = replace(row, key=verdict.key_of(row, kimg), scored_at=tuple(at))
    return replace(row, **changes)


def headline_of(verdict, differences):
    """Records of the headline, seed by seed, with these differences of the logarithm of the Frechet distance."""

    def scored(row, value):
        frechet = replace(row.scores.scores["frechet"], value=value)
        return replace(row, scores=replace(row.scores, scores={**row.scores.scores, "frechet": frechet}))

    return [
        scored(of_the_verdict(verdict, name, seed, "headline"), value)
        for seed, difference in enumerate(differences)
        for name, value in (("samgan-8", (1 + seed / 10) * math.exp(difference)), ("msg-gan-6", 1 + seed / 10))
    ]


def write_rows(folder, rows):
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    for row in rows:
        row.write(folder / "rows" / f"{row.key}.json")


def test_rows_of_the_verdict_are_taken_as_they_were_at_a_length(monkeypatch, tmp_path):
    verdict = load("verdict", "verdict")
    monkeypatch.setattr(verdict, "HERE", tmp_path)
    row = of_the_verdict(verdict, "samgan-8", 0, "headline")
    on_the_way, by_second = (
        replace(one, ms_ssim_real=None) for one in (row.scored_at[0].scores, row.scored_at[0].second_scores)
    )
    alarm = Collapse(step=12500, images_seen=100000, wall_seconds=9.0, reason="alike")
    trained = replace(row.trained, collapse=alarm, gamma={"generator.8": 0.5})
    at = ScoredAt(kimg=100.0, scores=on_the_way, second_scores=by_second)
    row = replace(row, trained=trained, scored_at=(at, row.scored_at[1]))
    write_rows(tmp_path / "headline", [row])
    (found,) = verdict.rows_at(100.0)
    assert (found.scores, found.second_scores) == (on_the_way, by_second)
    assert found.trained.kimg == 100
    assert found.trained.wall_minutes == pytest.approx(row.trained.wall_minutes / 4, abs=0.01)
    assert found.trained.collapse == alarm
    assert found.trained.gamma == {}  # which is that of the end
    assert verdict.rows_at(200.0)[0].scores == row.scored_at[1].scores
    assert not verdict.rows_at(1808.0)
    later = replace(trained, collapse=replace(alarm, images_seen=100008))
    write_rows(tmp_path / "headline", [replace(row, trained=later)])
    assert verdict.rows_at(100.0)[0].trained.collapse is None  # it came later
    assert verdict.rows_at(400.0)[0].trained.collapse
    assert verdict.rows_at(400.0)[0].trained.gamma
    write_rows(tmp_path / "headline", [replace(row, key="again")])
    with pytest.raises(SystemExit, match="expected one run of each row and seed"):
        verdict.rows_at(100.0)
    (tmp_path / "headline" / "rows" / "again.json").unlink()
    other = of_the_verdict(verdict, "samgan-8", 1, "headline")
    write_rows(tmp_path / "headline", [replace(other, scoring=replace(row.scoring, count=7))])
    with pytest.raises(SystemExit, match="expected rows that were scored in one way"):
        verdict.rows_at(100.0)


def test_the_pair_at_full_length_takes_no_ones_place(monkeypatch, tmp_path):
    verdict = load("verdict", "verdict")
    monkeypatch.setattr(verdict, "HERE", tmp_path)
    write_rows(tmp_path / "full", [of_the_verdict(verdict, "samgan-8", 0, "full")])
    assert [len(verdict.rows_at(kimg)) for kimg in verdict.LENGTHS] == [0, 0, 0, 1]
    verdict.write_tables()
    assert "Not finished: 1 of 2 jobs have ended." in (tmp_path / "at-1808" / "table.md").read_text()
    lines = (tmp_path / "full.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["samgan-8", f"{kimg:g}"] for kimg in verdict.LENGTHS]


def test_a_run_that_failed_is_reported(monkeypatch, tmp_path):
    verdict = load("verdict", "verdict")
    monkeypatch.setattr(verdict, "HERE", tmp_path)
    bad = of_the_verdict(verdict, "samgan-8", 0, "headline", trained=None, scores=None, failed="loss is nan")
    write_rows(tmp_path / "headline", [replace(bad, second_scores=None, scored_at=())])
    verdict.write_tables()
    for kimg in verdict.PARTS["headline"].lengths:
        table = (tmp_path / f"at-{kimg:g}" / "table.md").read_text()
        assert "Failed: samgan-8, seed 0: loss is nan" in table
        assert "failed (1)" in table


def test_a_run_that_failed_on_its_way_counts_as_far_as_it_got_and_is_not_waited_for(monkeypatch, tmp_path):
    verdict = load("verdict", "verdict")
    monkeypatch.setattr(verdict, "HERE", tmp_path)
    rows = headline_of(verdict, [-1.0, -1.02, -1.0, -0.98])
    write_rows(tmp_path / "headline", rows)
    verdict.write_tables()
    assert f"* {HEADLINE}: **confirmed**" in (tmp_path / "at-400" / "table.md").read_text()
    got_so_far = replace(rows[0].trained, kimg=240.0)
    lost = {"scores": None, "second_scores": None, "failed": "loss is nan"}
    rows[0] = replace(rows[0], trained=got_so_far, failures=1, **lost)
    write_rows(tmp_path / "headline", rows)
    assert {(row.name, row.seed) for row in verdict.rows_at(200.0)} == {(row.name, row.seed) for row in rows}
    assert all(row.scores and not row.failed for row in verdict.rows_at(200.0))
    verdict.write_tables()
    table = (tmp_path / "at-400" / "table.md").read_text()
    assert "* Claims wait for samgan-8, seed 0.\n" in table, "it is tried again"
    write_rows(tmp_path / "headline", [replace(rows[0], failures=2)])
    verdict.write_tables()
    table = (tmp_path / "at-400" / "table.md").read_text()
    assert "Not finished" not in table
    assert f"* {HEADLINE}: **undecided at this scale**" in table
    assert "; seed 0 of samgan-8 failed, so the other seeds are not compared" in table


def test_claims_wait_for_all_runs_of_their_length(monkeypatch, tmp_path):
    verdict = load("verdict", "verdict")
    monkeypatch.setattr(verdict, "HERE", tmp_path)
    rows = [of_the_verdict(verdict, name, seed, "headline") for name in ("samgan-8", "msg-gan-6") for seed in range(4)]
    for number, row in enumerate(rows):
        frechet = row.scores.scores["frechet"]
        scores = {**row.scores.scores, "frechet": replace(frechet, value=frechet.value + 0.01 * number**2)}
        rows[number] = replace(row, scores=replace(row.scores, scores=scores))
    write_rows(tmp_path / "headline", rows[1:])
    verdict.write_tables()
    table = (tmp_path / "at-400" / "table.md").read_text()
    assert "Not finished: 7 of 8 jobs have ended." in table
    assert "* Claims wait for samgan-8, seed 0.\n" in table
    assert "The paper's claims" not in table
    assert not (tmp_path / "at-400" / "further.md").exists()
    write_rows(tmp_path / "headline", rows[:1])
    verdict.write_tables()
    table = (tmp_path / "at-400" / "table.md").read_text()
    assert "Not finished" not in table
    assert table.count(f"* {HEADLINE}: **confirmed**") == 1
    assert SIGN not in table  # a claim that is judged at 100 kimg
    further = (tmp_path / "at-400" / "further.md").read_text()
    assert "1 - recall: samgan-8 below msg-gan-6" in further
    assert further.count("Frechet distance: samgan-8 below msg-gan-6") == 1  # by the second network
    assert not any(word in further for word in (CONFIRMED, REFUTED, UNDECIDED))
    assert "The paper's claims" not in (tmp_path / "at-200" / "table.md").read_text()  # factors are not there


def test_seeds_that_the_stopping_rule_adds_are_waited_for_and_count_at_their_end_alone(monkeypatch, tmp_path):
    verdict = load("verdict", "verdict")
    monkeypatch.setattr(verdict, "HERE", tmp_path)
    rows = headline_of(verdict, [-1.57, -0.43, -1.57, -0.43, -1.0, -1.0])  # t = -3.04 after four
    write_rows(tmp_path / "headline", rows[:8])
    assert (len(verdict.planned_at(400.0)), verdict.added_at(400.0)) == (8, set())
    assert "8 of 8 of the part headline" in verdict.progress()
    write_rows(tmp_path / "headline", rows[8:10])
    assert (len(verdict.planned_at(400.0)), len(verdict.added_at(400.0))) == (8, 4)
    assert (len(verdict.planned_at(200.0)), verdict.added_at(200.0), len(verdict.rows_at(200.0))) == (8 + 16, set(), 8)
    verdict.write_tables()
    table = (tmp_path / "at-400" / "table.md").read_text()
    assert "Not finished: 10 of 12 jobs have ended." in table
    assert "The paper's claims" not in table
    assert "10 of 12 of the part headline" in verdict.progress()
    write_rows(tmp_path / "headline", rows[10:])
    verdict.write_tables()
    table = (tmp_path / "at-400" / "table.md").read_text()
    assert "* Looked at twice. After the first 4 seeds: undecided at this scale, Frechet distance: samgan-8 " in table
    assert f"* {HEADLINE}: **confirmed**" in table


@pytest.mark.parametrize(
    ("differences", "why"),
    [
        ([-1.0, -1.01, -1.0, -0.99], "confirmed, Frechet distance"),
        ([-1.0, 1.1, -1.0, 1.0], "undecided at this scale, Frechet distance"),
        ([-1.0, -1.01, -1.0], "the first 4 seeds of both rows have not ended"),
    ],
)
def test_seeds_are_added_only_where_the_stopping_rule_says_so(monkeypatch, tmp_path, differences, why):
    verdict = load("verdict", "verdict")
    monkeypatch.setattr(verdict, "HERE", tmp_path)
    write_rows(tmp_path / "headline", headline_of(verdict, differences))
    with pytest.raises(SystemExit, match=why):
        verdict.first_look(verdict.rows_at(400.0))
    write_rows(tmp_path / "headline", headline_of(verdict, [0.0] * 5)[-2:])
    with pytest.raises(SystemExit, match=why):
        verdict.write_tables()


def test_flips_are_described_at_100_kimg_by_all_measures(tmp_path):
    verdict = load("verdict", "verdict")
    rows = [of_the_verdict(verdict, name, 0, "rest") for name in ("msg-gan-2", "msg-gan-3")]
    for kimg in (100.0, 400.0):
        verdict.write_further(tmp_path / f"{kimg:g}.md", kimg, rows, [])
    inception, radiograph = (tmp_path / "100.md").read_text().split("## Radiograph features")
    for measure in ("Frechet distance", "1 - recall", "MS-SSIM of generated pairs"):
        assert f"{measure}: msg-gan-2 below msg-gan-3: " in inception
    assert "Frechet distance: msg-gan-2 below msg-gan-3: " in radiograph
    assert "Flips help" not in (tmp_path / "400.md").read_text()


def test_a_run_begins_only_with_the_set_and_the_features_of_the_protocol(monkeypatch, tmp_path):
    verdict = load("verdict", "verdict")
    write_phantoms(tmp_path / "images", 4, resolution=32)
    data, features = prepare(tmp_path / "images", tmp_path / "data", resolution=32, workers=1), tmp_path / "FEATURES.pt"
    features.write_bytes(b"weights")
    with pytest.raises(SystemExit, match=f"expected the set {verdict.SET} of protocol.md, found {data.sha256}"):
        verdict.check_given(data.path, features)
    monkeypatch.setattr(verdict, "SET", data.sha256)
    with pytest.raises(SystemExit, match=f"expected the file {verdict.STAND_IN} of results/stand_in.py"):
        verdict.check_given(data.path, features)
    monkeypatch.setattr(verdict, "STAND_IN", hashlib.sha256(b"weights").hexdigest())
    verdict.check_given(data.path, features)


def test_each_claim_is_judged_at_one_length():
    """With rows that the protocol has, and as many seeds as it says."""
    verdict = load("verdict", "verdict")
    judged = {kimg: verdict.claims_at(kimg) for kimg in verdict.LENGTHS}
    sentences = [claim.sentence for claims in judged.values() for claim in claims]
    assert sorted(sentences) == sorted(claim.sentence for claim in CLAIMS)
    for kimg, least in {400: 4, 200: 2, 100: 1}.items():
        assert judged[kimg]
        seeds = Counter(name for name, _ in verdict.planned_at(kimg))
        for claim in judged[kimg]:
            for name in (name for pair in claim.pairs for name in (pair.better, pair.worse)):
                assert seeds[name] >= least, (claim.sentence, name)


def test_the_script_of_the_verdict_runs_what_its_tables_expect():
    verdict = load("verdict", "verdict")
    script = (FOLDER / "verdict" / "run.sh").read_text()
    for name, part in verdict.PARTS.items():
        (text,) = re.findall(rf"^{name}\)(.*?);;", script, flags=re.M | re.S)
        rows = " ".join(re.findall(r'rows="([^"]*)"', text)).replace("$rows", "").split()
        rows = dict(row.partition("=")[::2] for row in rows)
        assert {row: int(count.replace("$seeds", "4") or 1) for row, count in rows.items()} == part.seeds
        (length,) = re.findall(r'length="--kimg ([^"]*)"', text)
        numbers = [float(number) for number in re.findall(r"(?<= )\d+|^\d+", length.partition(" --faces")[0])]
        assert (numbers[0], *numbers[1:]) == (part.kimg, *part.score_at), name
    for key, value in verdict.SETTINGS.items():
        assert f"--{key}={value} " in script.replace("\\\n", "")
    assert f"--count {verdict.COUNT} " in script.replace("\\\n", "")
    assert {row for part in verdict.PARTS.values() for row in part.seeds} >= {row.name for row in PAPER_ROWS}


def test_every_run_of_the_verdict_is_one_that_table2_starts_by_its_script(tmp_path):
    """Whatever the row: those of the paper's networks have 32 channels, recipes of our own keep theirs."""
    verdict = load("verdict", "verdict")
    write_phantoms(tmp_path / "images", 4, resolution=64)
    grey, colour = (
        prepare(tmp_path / "images", tmp_path / str(channels), resolution=64, channels=channels, workers=1)
        for channels in (1, 3)
    )
    for name, part in verdict.PARTS.items():
        request = TableRequest(settings=verdict.SETTINGS, kimg=part.kimg, snapshot_every_kimg=20.0)
        for row, seeds in part.seeds.items():
            config = request.config(ROWS[row], colour if ROWS[row].colour else grey, seeds - 1)
            assert config.computed() == verdict.expected_config(row, seeds - 1, part.kimg).computed()
            assert config.training.precision == "fp32"
            made = of_the_verdict(verdict, row, seeds - 1, name)
            verdict.check(made, name, made.key)


def test_a_row_that_is_not_of_the_protocol_is_refused(monkeypatch):
    verdict = load("verdict", "verdict")
    row = of_the_verdict(verdict, "msg-gan-2", 0, "rest")
    verdict.check(row, "rest", row.key)

    def with_setting(section, name, value):
        tree = {**row.trained.config, section: {**row.trained.config[section], name: value}}
        return replace(row, trained=replace(row.trained, config=tree))

    for other, told in (
        (with_setting("network", "max_channels", 64), "expected network.max_channels 32, found 64"),
        (with_setting("training", "learning_rate", 0.001), "expected training.learning_rate 0.003, found 0.001"),
        (with_setting("training", "seed", 3), "expected training.seed 0, found 3"),
        (replace(row, trained=replace(row.trained, ended_early=True)), "expected a run to its end"),
        (replace(row, seed=1), "expected a row and seed of the part"),
        (replace(row, name="samgan-8"), "expected a row and seed of the part"),
        (replace(row, scores=replace(row.scores, count=1000)), "expected images 1500, found 1000"),
        (replace(row, scores=replace(row.scores, features=None)), "expected features"),
        (replace(row, scores=replace(row.scores, data=replace(row.scores.data, sha256="0" * 64))), "expected the set"),
    ):
        with pytest.raises(SystemExit, match=re.escape(f"rest/rows/{row.key}.json: {told}")):
            verdict.check(other, "rest", row.key)
    with pytest.raises(SystemExit, match="expected the key other"):
        verdict.check(row, "rest", "other")
    monkeypatch.setattr("samgan.studies.sweep_job.ARITHMETIC", 0)
    with pytest.raises(SystemExit, match="expected a run of this arithmetic"):
        verdict.check(row, "rest", row.key)


def test_scores_of_the_verdict_are_of_the_length_and_the_networks_that_they_say():
    verdict = load("verdict", "verdict")
    row = of_the_verdict(verdict, "samgan-8", 0, "headline")
    verdict.check(row, "headline", row.key)
    early = replace(row.scores, generated=replace(row.scores.generated, images_seen=8))
    for other, told in (
        (replace(row, scores=early), "expected scores at 400 kimg: images seen 400000.0, found 8"),
        (replace(row, scored_at=(replace(row.scored_at[0], scores=early), row.scored_at[1])), "expected scores at 100"),
        (replace(row, scored_at=row.scored_at[:1]), "expected scores on its way at (100.0, 200.0), found (100.0,)"),
        (replace(row, second_scores=row.scores), f"expected features {verdict.RADIOGRAPH}"),
        (replace(row, scores=replace(row.scores, seed=1)), "expected the protocol and seed"),
    ):
        with pytest.raises(SystemExit, match=re.escape(told)):
            verdict.check(other, "headline", row.key)


def test_how_often_claims_err_is_told_as_it_was_simulated(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER / "verdict")
    rates = load("verdict", "error_rates")
    assert rates.table() in (FOLDER / "verdict" / "protocol.md").read_text()
    tables = [rates.simulated(400, rates.SPREADS["as assumed"], np.random.default_rng(seed)) for seed in range(2)]
    assert [sorted(table) for table in tables] == [["msg-gan-6", "samgan-8"]] * 2
    assert tables[0] != tables[1]


def test_the_tables_of_the_verdict_are_those_of_its_records(tmp_path, monkeypatch):
    verdict = load("verdict", "verdict")
    for part in verdict.PARTS:
        if (FOLDER / "verdict" / part).exists():
            (tmp_path / part).symlink_to(FOLDER / "verdict" / part)
    monkeypatch.setattr(verdict, "HERE", tmp_path)
    verdict.write_tables()
    written = {path.relative_to(FOLDER / "verdict") for path in FOLDER.glob("verdict/at-*/*")}
    assert {path.relative_to(tmp_path) for path in tmp_path.glob("at-*/*")} == written
    for path in written:
        assert (tmp_path / path).read_bytes() == (FOLDER / "verdict" / path).read_bytes(), path
    assert verdict.progress() in (FOLDER / "verdict" / "README.md").read_text()


def test_the_tables_of_sizes_are_those_of_its_records():
    trials = load("sizes", "trials")
    readme = (FOLDER / "sizes" / "README.md").read_text()
    assert trials.table() in readme
    assert trials.attention_table() in readme
    assert trials.judges_table() in readme
    assert trials.parts_table() in readme
    assert trials.audits_table() in readme
    assert trials.short_table() in readme


def test_minutes_of_curves_follow_from_the_paces():
    """Of trials that would be as long by the paces of today; those of a run of its own begin where its share does."""
    trials = load("sizes", "trials")
    lengths = {tuple(row[key] for key in trials.KEYS): int(row["kimg"]) for row in trials.read(trials.TRIALS)}
    compared = 0
    for row in trials.read(trials.CURVES):
        name, minutes = row["variant"], float(row["minutes"])
        options = argparse.Namespace(size=int(row["size"]), minutes=minutes)
        parts = trials.parts_of(name, options)
        if sum(kimg for _, kimg in parts) != lengths[tuple(row[key] for key in trials.KEYS)]:
            continue
        minute = trials.minute_at(float(row["kimg"]), name, options)
        variant = trials.VARIANTS[name]
        begun = 0 if variant.in_one_run else sum(share for _, share in variant.first) * minutes
        assert row["minute"] == f"{minute:.1f}"
        assert begun - 0.5 < minute < minutes + 0.5
        compared += 1
    assert compared > 0


def test_the_spectra_are_those_of_their_records(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER / "sizes")  # where a script of this folder finds the other
    assert load("sizes", "spectrum").table() in (FOLDER / "sizes" / "README.md").read_text()


def test_goals_stand_beside_what_was_reached(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER / "sizes")  # where a script of this folder finds the other
    goals = load("sizes", "goals")
    readme = (FOLDER / "sizes" / "README.md").read_text()
    assert goals.table() in readme
    assert goals.second_table() in readme
    monkeypatch.setattr(goals, "GOALS_FILE", tmp_path / "goals.csv")
    assert goals.GOALS["covid-256"].minutes == goals.GOALS["kermany-128"].minutes == 150
    told = {"goal": "covid-256", "settings": "--training.batch_size=16", "seed": "1", "minutes": "150", "by": "clock"}
    told["arithmetic"] = "bf16"
    scores = {"frechet": ".9", "frechet_floor": ".1", "precision": ".81", "recall": ".4", "coverage": ".5"}
    second = {"radiograph_frechet": "2", "radiograph_frechet_floor": "1", "radiograph_recall": ".3"}
    second["radiograph_coverage"] = ".6"
    goals.write(goals.GOALS_FILE, [{**told, "kimg": "9, 8, 7", **scores, "ms_ssim_gap": "+0.01", **second}])
    line = "| covid-256 | --training.batch_size=16 | 1 | 150 | clock | bf16 | 9, 8, 7 | 9.0 (goal: 10) | 0.810 | "
    assert goals.table().splitlines()[-1] == f"{line}0.400 (goal: 0.35) | 0.500 (goal: 0.6) | +0.01 |"
    told = "| covid-256 | --training.batch_size=16 | 1 | 2.0 | 0.30 | 0.60 |"
    assert goals.second_table().splitlines()[2:] == [told]
    for name, aim in (("hour", " (goal: a distance of 0.07, not 0.900)"), ("quarter", "")):
        rows = [{**row, "goal": f"kermany-64-{name}"} for row in goals.read(goals.GOALS_FILE)]
        goals.write(goals.GOALS_FILE, rows)
        assert f"| 9.0{aim} | 0.810 | 0.400 | 0.500 | +0.01 |" in goals.table()


def test_trials_with_attention_stand_beside_those_without_it(monkeypatch, tmp_path):
    trials = load("sizes", "trials")
    monkeypatch.setattr(trials, "TRIALS", tmp_path / "trials.csv")
    monkeypatch.setattr(trials, "CURVES", tmp_path / "curves.csv")
    key = {"data": "kermany", "size": "128", "seed": "0", "minutes": "20", "arithmetic": "bf16"}
    scores = {"precision": ".9", "recall": ".5", "coverage": ".7"}
    pair = {"samgan-vision": ("44", ".6", "1.5"), "samgan-vision-attention": ("30", ".8", "1.25")}
    trials.write(
        trials.TRIALS,
        [{**key, "variant": name, "kimg": kimg, "frechet": far, **scores} for name, (kimg, far, _) in pair.items()],
    )
    curves = [{**key, "variant": name, "kimg": "20", "thumbnail_frechet": near} for name, (_, _, near) in pair.items()]
    later = {**key, "variant": "samgan-vision", "kimg": "40", "thumbnail_frechet": "1"}
    trials.write(trials.CURVES, [*curves, later])
    told = "| 44, 30 | 0.600, 0.800 | 0.500, 0.500 | 0.700, 0.700 | 20 | 1.50, 1.25 |"
    assert trials.attention_table().splitlines()[2:] == [f"| samgan-vision | kermany, 128 px | 0 | 20 {told}"]


def test_short_trainings_are_counted_together(monkeypatch, tmp_path):
    trials = load("sizes", "trials")
    monkeypatch.setattr(trials, "SHORT", tmp_path / "short.csv")
    key = {"data": "covid", "size": "256", "variant": "as it is", "minutes": "5", "kimg": "9"}
    key |= {"kimg_of_size": "3", "arithmetic": "fp32"}
    sound = {"diverged": "no", "thumbnail_frechet": "1.5", "ms_ssim_gap": "-0.01"}
    bad = {"diverged": "yes", "collapsed": "no", "thumbnail_frechet": "", "ms_ssim_gap": ""}
    rows = [{**sound, "collapsed": "no"}, {**sound, "collapsed": "yes", "ms_ssim_gap": "+0.9"}, bad]
    trials.write(trials.SHORT, [{**key, "seed": seed, **row} for seed, row in enumerate(rows)])
    line = "| covid, 256 px | as it is | 5 | 9, 3 | fp32 | 3 | 1 | 1 | 1.50 to 1.50 | -0.010 to +0.900 |"
    assert trials.short_table().splitlines()[2:] == [line]
    trials.write(trials.SHORT, [*trials.read(trials.SHORT), {**key, "seed": 3, **rows[0], "arithmetic": "bf16"}])
    assert len(trials.short_table().splitlines()) == 4  # not taken together


def test_a_short_training_says_what_its_log_shows():
    trials = load("sizes", "trials")

    def log(alike, count):
        scores = {"kind": "scores", "ms_ssim_real": 0.5, "ms_ssim_generated": 0.5 + alike, "ms_ssim_gap": alike}
        lines = [{**scores, "images_seen": 4000 * i, "step": 500 * i} for i in range(1, count + 1)]
        return [{**line, "thumbnail_frechet": 7.0 / (1 + i)} for i, line in enumerate(lines)]

    assert trials.how_it_ended(log(0.0, 7))["collapsed"] == "no"
    ended = {"collapsed": "yes", "thumbnail_frechet": "1.0000", "ms_ssim_gap": "0.4500"}
    assert trials.how_it_ended(log(0.45, 7)) == ended
    with pytest.raises(SystemExit, match="more --minutes"):
        trials.how_it_ended(log(0.45, 4))


def test_what_is_known_of_a_trial_is_of_its_own_runs(monkeypatch, tmp_path):
    trials = load("sizes", "trials")
    for name in ("PACE", "TRIALS"):
        monkeypatch.setattr(trials, name, tmp_path / f"{name}.csv")
    paces = [{"side": side, "settings": "", "threads": "1", "images_per_second": "50"} for side in ("64", "128")]
    trials.write(trials.PACE, paces)
    options = argparse.Namespace(sets=Path("sets/covid"), size=128, seed=0, minutes=20, arithmetic="bf16")
    assert trials.parts_of("64 px first", options) == [(64, 24), (128, 36)]
    assert trials.parts_of("64 px first, in one run", options) == [(64, 24), (128, 36)]
    with pytest.raises(SystemExit, match=r"no trial covid, 128, 64 px first, 0, 20, bf16: call"):
        trials.recorded("64 px first", options)
    trials.write(trials.TRIALS, [{**trials.described("64 px first", options), "kimg": "61"}])
    with pytest.raises(SystemExit, match="it now has 60"):
        trials.recorded("64 px first", options)
    trials.write(trials.TRIALS, [{**trials.described("64 px first", options), "kimg": "60"}])
    monkeypatch.setattr(trials, "trained", lambda name, options: {tmp_path: 60})
    assert trials.recorded("64 px first", options) == {tmp_path: 60}


def test_lines_of_a_run_are_replaced_when_they_are_known(monkeypatch, tmp_path):
    """What another core adds meanwhile stays."""
    trials = load("sizes", "trials")
    monkeypatch.setattr(trials, "AUDITS", tmp_path / "audits.csv")
    own, other = ({"data": "kermany", "seed": seed} for seed in "01")
    trials.write(trials.AUDITS, [{**own, "auc": "0.5"}])

    def audited(run, data, options):
        trials.replace_lines(trials.AUDITS, other, [{"auc": "0.6"}])
        return {"auc": "0.7"}

    monkeypatch.setattr(trials, "audited", audited)
    monkeypatch.setattr(trials, "recorded", lambda name, options: {tmp_path: 1})
    monkeypatch.setattr(trials, "described", lambda name, options: own)
    trials.audit("as it is", argparse.Namespace(sets=tmp_path, size=64))
    assert trials.read(trials.AUDITS) == [{**other, "auc": "0.6"}, {**own, "auc": "0.7"}]


def test_trials_are_trained_in_the_precision_of_their_paces(monkeypatch, tmp_path):
    trials, called = load("sizes", "trials"), []
    monkeypatch.setattr(trials, "call", lambda core, words: called.append(words))
    options = argparse.Namespace(
        work=tmp_path, sets=tmp_path / "kermany", seed=0, core=0, more=[], classes=["PNEUMONIA"], arithmetic="bf16"
    )
    options.trains = True
    monkeypatch.setattr(trials, "usable_precision", lambda precision, device: precision)
    run = trials.train(64, 1, [], "", options)
    assert "--training.precision=bf16" in called.pop()
    monkeypatch.setattr(trials, "usable_precision", lambda precision, device: "fp32")
    with pytest.raises(SystemExit, match="paces are those of bf16, which this processor cannot compute in"):
        trials.train(64, 1, [], "", options)
    options.arithmetic = "fp32"
    assert trials.train(64, 1, [], "", options) != run
    assert "--training.precision=fp32" in called.pop()
    options.trains = False
    with pytest.raises(SystemExit, match="is not there in full: name the WORK in which it was trained"):
        trials.train(64, 1, [], "", options)
    Run.create(run, Config().override({"data.classes": ["NORMAL"]}), Environment())
    options.arithmetic = "bf16"
    with pytest.raises(SystemExit, match="was trained on NORMAL: name another WORK"):
        trials.train(64, 1, [], "", options)
    assert not called


@pytest.mark.parametrize(
    ("step", "usable", "expected"), [("run", "fp32", "bf16"), ("audit", "fp32", "bf16"), ("short", "fp32", "fp32")]
)
def test_only_short_trainings_go_by_the_processor(monkeypatch, tmp_path, step, usable, expected):
    trials, asked = load("sizes", "trials"), []
    name = {"run": "run", "audit": "audit", "short": "short"}[step]
    monkeypatch.setattr(trials, name, lambda variant, options: asked.append((variant, options)))
    monkeypatch.setattr(trials, "usable_precision", lambda precision, device: usable)
    features = [] if step == "short" else ["--features", "FEATURES.pt"]
    monkeypatch.setattr("sys.argv", ["trials.py", step, "128", "sets", "work", *features])
    trials.main()
    assert {options.arithmetic for _, options in asked} == {expected}
    assert {options.trains for _, options in asked} == {step != "audit"}
    variants = {variant for variant, _ in asked}
    assert "64 px first" in variants
    assert "64 and 128 px first" not in variants
    assert "64 px first, then pretrained eyes that see tiles" not in variants


def test_paces_of_two_processors_are_not_mixed(monkeypatch, tmp_path):
    trials = load("sizes", "trials")
    monkeypatch.setattr(trials, "PACE", tmp_path / "pace.csv")
    monkeypatch.setattr(trials, "check_precision", lambda precision: None)
    trials.write(trials.PACE, [{"side": "64", "settings": "", "threads": "1", "processor": "another"}])
    options = argparse.Namespace(threads=1, only=["as it is"], rounds=1)
    with pytest.raises(SystemExit, match=r"of another processor \(another\); to measure all anew, remove its lines"):
        trials.measure_paces(64, options)


def test_a_trial_trains_what_a_quiet_core_trains_in_its_minutes(monkeypatch, tmp_path):
    trials = load("sizes", "trials")
    monkeypatch.setattr(trials, "PACE", tmp_path / "pace.csv")
    rows = [
        {"side": "64", "settings": "", "threads": "2", "images_per_second": "150"},
        {"side": "64", "settings": "", "threads": "1", "images_per_second": "100"},
    ]
    trials.write(trials.PACE, rows)
    assert trials.kimg_of(64, (), 20) == 120
    assert trials.kimg_of(64, (), 20, threads=2) == 180
    late = trials.VARIANTS["64 px first, then noise in the largest images"]
    assert trials.arguments_of(late, 128) == {64: (), 128: ("--network.noise=all",)}
    with pytest.raises(SystemExit, match="no pace of 128 px"):
        trials.kimg_of(128, (), 20)
    assert trials.read(trials.PACE) == rows


@pytest.fixture
def paper_table(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER / "verdict")  # where a script of this folder finds the other
    return load("verdict", "paper_table")


def test_the_tables_of_the_paper_read_closely_are_those_of_its_presets_and_of_its_records(paper_table):
    page = (FOLDER.parent / "docs" / "reproducing.md").read_text()
    section = page.partition("## The paper's table, read closely")[2].partition("\n## ")[0]
    for table in (
        paper_table.fit_table,
        paper_table.groups_table,
        paper_table.pairs_table,
        paper_table.likeness_table,
    ):
        assert table() in section
    assert {row["reading"] for row in paper_table.read()} == set(paper_table.READINGS)


def test_a_fit_leaves_what_is_known_of_its_rows(paper_table):
    assert paper_table.headline() == pytest.approx(math.log(167.1 / 139.6))
    fitted = paper_table.fit("flips, each rate by itself")
    assert (fitted.degrees, round(fitted.residual, 2)) == (2, 0.50)
    by_flips = [math.log(after / before) for before, after in ((387.2, 243.0), (198.8, 366.2), (282.2, 139.6))]
    # With each rate by itself, all that is left is how much the effect of flips differs between the three rates.
    assert fitted.flips[0] == pytest.approx(np.mean(by_flips))
    assert fitted.residual == pytest.approx(np.std(by_flips, ddof=1) / math.sqrt(2))
    assert fitted.flips[1] == pytest.approx(np.std(by_flips, ddof=1) / math.sqrt(3))


def test_pairs_of_rows_differ_in_what_they_are_named_for_and_have_the_claimed_one_second(paper_table):
    pairs = {(pair.first.name, pair.second.name): pair for pair in paper_table.find_pairs()}
    assert pairs["samgan-4", "samgan-7"].verdict("paper_fid") == "**contradicts**"
    assert pairs["samgan-3", "samgan-6"].verdict("paper_fid") == "agrees"
    assert pairs["msg-gan-7", "msg-gan-11"].claim == "worse"
    assert pairs["msg-gan-11", "samgan-2"].verdict("paper_fid") == "equal"
    assert pairs["msg-gan-4", "msg-gan-6"].switch == "loss"
    for first, second in (("msg-gan-3", "msg-gan-7"), ("msg-gan-6", "samgan-8"), ("msg-gan-11", "samgan-1")):
        assert not {(first, second), (second, first)} & set(pairs)


def pictures(folder, sides):
    """Smooth images with names like the paper's."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, side in enumerate(sides, start=1):
        small = Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"COVID-{number}.png")
    return folder


def test_every_reading_of_ms_ssim_is_measured_once(paper_table, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_table, "LIKENESS", tmp_path / "likeness.csv")
    folder = pictures(tmp_path / "images", [256] * 8 + [224] * 3)
    for _ in range(2):
        for name in paper_table.READINGS:
            paper_table.measure(folder, name)
    rows = {row["reading"]: row for row in paper_table.read()}
    assert list(rows) == list(paper_table.READINGS)
    assert all(-0.1 < float(row["value"]) <= 1 and int(row["pairs"]) >= 3 for row in rows.values())
    values = {name: float(row["value"]) for name, row in rows.items()}
    assert values["64 px, three equal channels"] == values["64 px"]
    paths = [folder / f"COVID-{number}.png" for number in range(1, 12)]
    grey = [np.asarray(Image.open(path), dtype=np.float32)[None] / 255 for path in paths]
    images = torch.from_numpy(np.stack([fit_image(pixels, 64) for pixels in grey]))
    assert values["64 px"] == pytest.approx(mean_ms_ssim(images, pairs=55).mean, abs=1e-4)
    neighbours = float(adjacent_ms_ssim(images).mean())
    assert values["group's code: 64 to 128 px, neighbours by number"] == pytest.approx(neighbours, abs=1e-4)
    by_name = [paths.index(path) for path in sorted(paths)]
    neighbours = float(adjacent_ms_ssim(images[by_name]).mean())
    assert values["group's code: 64 to 128 px, neighbours by name"] == pytest.approx(neighbours, abs=1e-4)
