"""The table: what is asked for is what is run, and every number in it is one that was measured."""

import csv
import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import samgan
from samgan import api
from samgan.commands.main import main
from samgan.config import Config
from samgan.data import PreparedSet, prepare
from samgan.data.documents import ManifestRow, SetInfo
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError, UsageError
from samgan.metrics import load_features
from samgan.metrics.feature_networks.inception import INCEPTION
from samgan.metrics.feature_networks.weights import file_name
from samgan.metrics.load_features import Default, default_features
from samgan.networks import Discriminator, Generator
from samgan.presets import PLUS, PRESETS, RECIPES, preset_config
from samgan.scoring import MODE_COLLAPSE, NO_MODE_COLLAPSE
from samgan.studies import (
    CLAIMS,
    COLUMNS,
    HEADLINE,
    REFUTED,
    ROWS,
    UNDECIDED,
    RowDocument,
    Scoring,
    Table,
    TableRequest,
    alarm_lines,
    alarm_summary,
    choose_rows,
    finished,
    jobs_of,
    plan_rows,
    rank_correlations,
    summarise,
    write_table,
)


def score(value, floor):
    return {"value": value, "floor": floor}


def pairs(mean):
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "standard_error": 0.005, "pairs": 100}


def document(name, seed=0, frechet=1.0, generated=0.6, recall=0.4, **trained):
    difference = generated - 0.58
    verdict = MODE_COLLAPSE if difference > 0.03 else NO_MODE_COLLAPSE
    names = ("precision", "recall", "density", "coverage")
    scores = {
        "protocol": "standard",
        "resolution": 64,
        "seed": 0,
        "count": 100,
        "counts": {"real": 200, "fake": 100},
        "features": {"name": "inception", "sha256": "ab", "dim": 2048},
        "ms_ssim_real": pairs(0.58),
        "ms_ssim_generated": pairs(generated),
        "mode_collapse": {"verdict": verdict, "difference": difference, "low": difference, "high": difference},
        "scores": {
            "frechet": score(frechet, 0.03),
            "kid_x1000": score(1.5, 0.0),
            **{key: score(recall, 0.9) for key in names},
            "swd": score(20.0, 6.0),
        },
        "swd_by_level": {"64": score(20.0, 6.0)},
    }
    known = {
        "config": {},
        "processor": "a processor",
        "commit": "abc",
        "device": "cpu",
        "kimg": 40.0 + seed,
        "wall_minutes": 20.0,
        "images_per_second": 33.0,
        "gamma": {"generator_8": 0.1 * (seed + 1), "discriminator_8": -0.1},
        "curves": {"loss_generator": [[1.0, 2.0], [2.0, 3.0]], "ms_ssim_generated": [[2.0, 0.7]], "penalty": []},
        "collapse": None,
    }
    tree = {
        "schema": RowDocument.SCHEMA,
        "name": name,
        "seed": seed,
        "key": f"{name}-seed{seed}-0123abcd",
        "scoring": {"computes": 1},
        "trained": {**known, **trained},
        "scores": scores,
    }
    return RowDocument.from_dict(tree, "row.json")


def failed(**trained):
    row = document("samgan-1", **trained)
    row = dataclasses.replace(row, key="samgan-1-seed0-ffff", scores=None, failed="step 3: loss_generator is <nan>")
    return row if trained else dataclasses.replace(row, trained=None)


FAILED = failed()
SIGN = {"step": 5, "images_seen": 12_000, "wall_seconds": 300.0, "reason": "all alike"}


def test_the_papers_rows_are_the_presets_and_further_rows_change_what_they_say():
    for row in PRESETS:
        assert ROWS[row.name].config("cpu") == preset_config(row.name, "cpu")
        assert ROWS[row.name].paper_fid == row.paper_fid
    configs = [row.config("cpu").override({"preset": "x"}) for row in ROWS.values()]
    assert len(set(map(repr, configs))) == len(ROWS), "two rows would train the same"
    for row in ROWS.values():
        changed = set(row.config("paper").differences(preset_config(row.base, "gpu" if row.is_recipe else "paper")))
        if row.question:
            own = set(row.settings) - {"training.first_sides"}  # of 128 px and more
            assert changed - {"preset", "training.kimg"} == own


@pytest.mark.parametrize("side", [64, 128, 256])
def test_rows_of_the_future_work_differ_in_networks_and_how_these_learn_and_not_in_where_they_begin(side):
    plus = ROWS[PLUS].config("cpu", side)
    for name in RECIPES:
        config = ROWS[name].config("cpu", side)
        assert not config.training.first_sides
        assert config.training.kimg == plus.training.kimg
    changed = ROWS[f"{PLUS}-attention"].config("cpu", side).differences(plus)
    assert set(changed) == {"network.generator_attention", "network.discriminator_attention"}


OTHER_NETWORKS = [row for row in ROWS.values() if not row.is_recipe and any("network." in key for key in row.settings)]


@pytest.mark.parametrize("row", OTHER_NETWORKS, ids=lambda row: row.name)
def test_a_setting_of_a_network_makes_another_network(row):
    """Equalized rates under spectral norm, for example, would not: the layer has none anyway."""

    def networks(config):
        torch.manual_seed(0)
        network = config.override({"network.max_channels": 8}).network
        generator, discriminator = Generator(network), Discriminator(network)
        weights = torch.cat([p.flatten() for part in (generator, discriminator) for p in part.parameters()])
        for name, value in [*generator.named_parameters(), *discriminator.named_parameters()]:
            if name.endswith("gamma"):  # attention begins as the identity
                value.data.fill_(1.0)
        images = generator(torch.randn(4, network.latent_size))
        return weights, discriminator(images)

    own, base = (networks(config) for config in (row.config("cpu"), ROWS[row.base].config("cpu")))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(own, base, strict=True))


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_rows_are_of_one_length(scale):
    assert len({row.config(scale).training.kimg for row in ROWS.values()}) == 1


def test_settings_of_all_rows_do_not_change_what_a_row_is_about_or_our_own_recipe():
    settings = {"training.batch_size": 4, "network": {"max_channels": 32}}
    for row in ROWS.values():
        changed = row.config("cpu", settings=settings).differences(row.config("cpu"))
        assert set(changed) == (set() if row.is_recipe else {"training.batch_size", "network.max_channels"})


def test_rows_are_chosen_by_name_and_by_group():
    paper = [row.name for row in PRESETS if row.data == "X-ray"]
    assert choose_rows([], 1, colour=False) == dict.fromkeys(paper, 1)
    assert len(paper) == 18
    assert list(choose_rows([], 1, colour=True)) == ["msg-gan-1", *paper]
    assert list(choose_rows(["samgan-8", "msg-gan-6"], 1, colour=True)) == ["msg-gan-6", "samgan-8"]
    assert set(choose_rows(["all"], 1, False)) - set(choose_rows(["all"], 1, False, 32)) == {"samgan-8-at-64"}
    assert choose_rows(["all", "samgan-8=3"], 2, colour=False) == dict.fromkeys(list(ROWS)[1:], 2) | {"samgan-8": 3}
    assert set(choose_rows(["future"], 1, colour=False)) == set(RECIPES)
    with pytest.raises(UsageError, match="samgan-9"):
        choose_rows(["samgan-9"], 1, colour=False)
    with pytest.raises(UsageError, match="--faces"):
        choose_rows(["msg-gan-1"], 1, colour=False)


def test_a_line_holds_means_of_its_seeds_and_their_spread():
    documents = [document("msg-gan-6", 0, 1.0, 0.6), document("msg-gan-6", 1, 1.5, 0.7), document("samgan-8"), FAILED]
    lines = {line.row.name: line.columns() for line in summarise(documents)}
    assert list(lines) == ["msg-gan-6", "samgan-1", "samgan-8"]
    assert all(list(line) == list(COLUMNS) for line in lines.values())
    two, one, none = lines["msg-gan-6"], lines["samgan-8"], lines["samgan-1"]
    assert (two["seeds"], two["frechet"], two["frechet_spread"], two["frechet_floor"]) == (2, 1.25, 0.5, 0.03)
    names = [f"ms_ssim_{name}" for name in ("generated", "generated_spread", "generated_low", "real_high")]
    assert [two[name] for name in names] == [0.65, 0.1, 0.64, 0.59]
    assert (two["swd"], two["swd_spread"], two["recall_spread"]) == (20.0, 0.0, 0.0)
    assert (two["collapsed_seeds"], two["paper_fid"], two["kimg"]) == (1, 167.1, 40.5)
    assert two["gamma_generator"] == {"8": 0.15}
    assert (one["seeds"], one["frechet_spread"], one["ms_ssim_generated_spread"]) == (1, None, None)
    assert (none["seeds"], none["failed_seeds"], none["frechet"], none["paper_fid"]) == (0, 1, None, 557.28)


def test_rank_correlation_is_of_the_papers_rows_only():
    names = ["msg-gan-6", "msg-gan-5", "msg-gan-3", "samgan-1"]  # in the order of the paper's FID
    lines = summarise([*(document(name, frechet=k + 1.0) for k, name in enumerate(names)), document("samgan-8-linear")])
    assert rank_correlations(lines)["frechet"] == (1.0, 0.0833, 4)
    assert rank_correlations(lines[:3]) == {}


def test_alarms_are_compared_with_the_end():
    documents = [
        document("samgan-1", generated=0.95, collapse=SIGN),
        document("samgan-2", generated=0.62, collapse=SIGN),
        document("samgan-3", generated=0.95),
        document("samgan-4", generated=0.62),
    ]
    words = {line[0]: line[4] for line in alarm_lines(documents)}
    assert words == {"samgan-1, seed 0": "yes", "samgan-2, seed 0": "false alarm", "samgan-3, seed 0": "missed"}
    assert alarm_lines(documents)[0][1:3] == ("12 kimg, 5 minutes", "40 kimg, 20 minutes")
    summary = alarm_summary([*documents, FAILED])
    ended = document("samgan-5", collapse=SIGN, ended_early=True, kimg=12.0)
    unscored = failed(collapse=SIGN, ended_early=True)
    assert alarm_summary([*documents, FAILED, ended, unscored]) == summary
    assert [line[4] for line in alarm_lines([ended, unscored])] == ["run ended there"]
    whole = document("samgan-5", generated=0.95, collapse=SIGN, ended_early=False)
    assert alarm_lines([whole])[0][4] == "yes"
    assert summary.partition("images. ")[2].startswith(
        "Of 4 runs, 1 had an alarm and were collapsed at their end, 1 had a false alarm, and 1 were collapsed"
    )
    assert summary.endswith("saved 30 of 80 minutes.")


def test_the_table_is_written_in_four_forms_that_agree(tmp_path):
    documents = [document("msg-gan-6"), document("msg-gan-6", 1, 1.5), document("samgan-8"), FAILED]
    (tmp_path / "rows").mkdir()
    Image.fromarray(np.zeros((64, 128), np.uint8)).save(tmp_path / "rows" / f"{documents[0].key}.png")
    table, files = write_table(tmp_path, documents, command="samgan table2 <data>", title="A table", jobs=6)
    assert [file.name for file in files] == ["table.md", "table.csv", "table.json", "table.html"]
    assert Table.read(tmp_path / "table.json") == table
    assert all(len(cells) == len(table.header) for cells in table.cells)
    assert table.notes[0] in (tmp_path / "table.md").read_text()
    lines = table.lines
    asked = {"name", "seeds", "frechet", "frechet_floor", "ms_ssim_real", "ms_ssim_generated", "recall", "coverage"}
    assert asked | {"kimg", "wall_minutes", "paper_fid"} <= set(lines[0])
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["frechet"]) for row in rows if row["frechet"]] == [1.25, 1.0]
    markdown = (tmp_path / "table.md").read_text()
    assert "| msg-gan-6 | 167.1 | 1.250 (spread 0.500) | 0.030 | 0.5 / 0.47 |" in markdown
    assert "samgan-1, seed 0: step 3: loss_generator is <nan>" in markdown
    assert "Not finished: 4 of 6 jobs have ended." in markdown
    assert {line.count("|") for line in markdown.splitlines()[2:7]} == {19}
    assert "| Frechet | floor |" in markdown
    assert "| KID x 1000 | recall | coverage | SWD x 1000 |" in markdown
    page = (tmp_path / "table.html").read_text()
    assert "1.250 (spread 0.500)" in page
    assert "loss_generator is &lt;nan&gt;" in page
    assert "samgan table2 &lt;data&gt;" in page
    assert len(re.findall('src="data:image/png', page)) == 1
    assert "SYNTHETIC" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_floor_at_fewer_images_says_so_in_the_table(tmp_path):
    row = document("samgan-8")
    paper = dataclasses.replace(row.scores, protocol="paper", count=200, floor_count=100)
    table, (markdown, *_) = write_table(tmp_path, [dataclasses.replace(row, scores=paper)], command="", title="A table")
    assert table.lines[0]["floor_count"] == 100
    assert "| 1.000 | 0.030 (at 100) |" in markdown.read_text()
    assert "200 images per set" in markdown.read_text()
    assert "other real images, at 100 images per set" in markdown.read_text()
    table, (markdown, *_) = write_table(tmp_path, [row], command="", title="A table")
    assert table.lines[0]["floor_count"] is None
    assert "| 1.000 | 0.030 |" in markdown.read_text()
    assert "other real images.\n" in markdown.read_text()


def test_claims_are_judged_on_whole_runs_of_the_papers_networks(tmp_path, monkeypatch):
    judged = []

    def judge(runs, claims, failed):
        judged.append((runs, failed))
        return []

    monkeypatch.setattr("samgan.studies.table2_write.judge_claims", judge)
    documents = [document("samgan-8"), document(PLUS), document("msg-gan-1"), FAILED]
    documents += [document("samgan-8", 1, collapse=SIGN, ended_early=True, kimg=12.0)]
    _, files = write_table(tmp_path, documents, command="", title="")
    assert judged == [({"samgan-8": {0: documents[0].scores}}, {FAILED.name: [FAILED.seed]})]
    (cells,) = (line for line in files[0].read_text().splitlines() if line.startswith("| samgan-8 |"))
    assert "| 26.0 (1 ended early) |" in cells


def test_a_table_of_the_future_work_alone_judges_no_claims(tmp_path):
    _, files = write_table(tmp_path, [document(name) for name in RECIPES], command="", title="")
    for file in (files[0], files[-1]):
        text = file.read_text()
        assert all(name in text for name in RECIPES)
        assert not re.search("claims|paper's FID|MR / MG", text)
        assert "Collapses" in text


def test_csv_holds_gates_as_json(tmp_path):
    write_table(tmp_path, [document("samgan-8")], command="", title="")
    with open(tmp_path / "table.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert json.loads(row["gamma_generator"]) == {"8": 0.1}


COMMITTED = Path(__file__).parents[1] / "results" / "table2"
COMMITTED_SHA256 = "0b89fe2f12393afc13c05b04bffe84aaec643f000439a823e147f88b44f09846"
COMMITTED_TABLE = Table.read(COMMITTED / "table.json")
COMMITTED_REQUEST = TableRequest(  # the command in the folder's README.md, without rows that are new since then
    rows=[f"{line['name']}={line['seeds']}" for line in COMMITTED_TABLE.lines],
    classes=("PNEUMONIA",),
    settings={"network.max_channels": 32, "training.batch_size": 8},
    kimg=30.0,
    snapshot_every_kimg=2.0,
    count=500,
)


@pytest.fixture(scope="module")
def committed_jobs():
    """The jobs of the committed table, in their order; of the data only size, classes and hash matter."""
    images = np.broadcast_to(np.uint8(0), (3080, 1, 64, 64))
    info = SetInfo(
        source="kermany",
        images=len(images),
        channels=1,
        resolution=64,
        classes=("NORMAL", "PNEUMONIA"),
        counts={"NORMAL": {}, "PNEUMONIA": {"train": len(images)}},
        split_by="patient",
        fingerprint="",
        sha256=COMMITTED_SHA256,
    )
    manifest = [ManifestRow(0, "a.png", "", 64, 64, 8, "PNEUMONIA", "a", "train")] * len(images)
    return jobs_of(COMMITTED_REQUEST, PreparedSet(Path("cxr64"), info, images, manifest))


@pytest.fixture(scope="module")
def committed_rows(committed_jobs):
    rows = [RowDocument.read(path) for path in COMMITTED.glob("rows/*.json")]
    by_job = {(row.name, row.seed): row for row in rows}
    return [by_job[job.name, job.seed] for job in committed_jobs]


@pytest.fixture
def computed_as_then(monkeypatch):
    """The committed rows were trained and scored when both numbers were 1."""
    monkeypatch.setattr("samgan.studies.sweep_job.ARITHMETIC", 1)
    monkeypatch.setattr("samgan.studies.sweep_job.SCORING", 1)


@pytest.mark.usefixtures("computed_as_then")
def test_committed_rows_are_found_as_done(committed_jobs, committed_rows, tmp_path, monkeypatch):
    """The keys are the names of the files, so the command would train and score nothing again."""
    assert {f"{job.key}.json" for job in committed_jobs} == {path.name for path in COMMITTED.glob("rows/*.json")}
    features = tmp_path / "FEATURES.pt"
    features.touch()
    network = SimpleNamespace(fingerprint=lambda shape: list(committed_rows[0].scoring.features))
    monkeypatch.setattr("samgan.studies.sweep_job.load_features", lambda name: network)
    scoring = Scoring(str(features), None, COMMITTED_REQUEST.count)
    for job, row in zip(committed_jobs, committed_rows, strict=True):
        assert finished(job, COMMITTED, scoring) == row
        assert (COMMITTED / "rows" / f"{job.key}.png").is_file()


def test_what_the_readme_says_of_claims_is_in_the_committed_table():
    claims = {claim.sentence: claim for claim in COMMITTED_TABLE.claims}
    said = " ".join((COMMITTED.parents[1] / "README.md").read_text().split())
    headline, loss = claims[HEADLINE], claims["The relativistic hinge loss beats WGAN-GP"]
    for claim, word, ratio in (
        (headline, "is undecided", "1.56 [0.67, 3.62]"),
        (loss, "contrary", "3.74 [1.61, 8.67]"),
    ):
        assert f"ratio {ratio}" in claim.evidence[0]
        assert ratio in said
        assert word in said
    assert (headline.word, loss.word) == (UNDECIDED, REFUTED)
    assert "these two rows alone: p 0.18)" in loss.evidence[0]
    assert "by these two rows alone p is 0.18" in said


def test_a_schedule_of_a_recipe_lasts_as_long_as_its_rows(data):
    data = PreparedSet.open(data)
    for kimg in (None, 100.0):
        config = TableRequest(rows=["r3gan"], kimg=kimg).config(ROWS["r3gan"], data, 0)
        assert config.training.burn_in_kimg == config.training.kimg == (kimg or 400.0)
    assert TableRequest(budget_minutes=5.0).config(ROWS["r3gan"], data, 0).training.burn_in_kimg == 700


def test_recipes_take_the_precision_that_all_rows_are_given_and_nothing_else(data):
    request = TableRequest(settings={"training.precision": "fp32", "network.max_channels": 32})
    data = PreparedSet.open(data)
    plus, row = (request.config(ROWS[name], data, 0) for name in ("samgan-plus", "samgan-8"))
    assert (plus.training.precision, row.training.precision) == ("fp32", "fp32")
    assert (plus.network.max_channels, row.network.max_channels) == (128, 32)
    assert TableRequest().config(ROWS["samgan-plus"], data, 0).training.precision == "auto"


@pytest.mark.usefixtures("computed_as_then")
def test_keys_of_committed_rows_are_those_of_their_own_configurations(committed_jobs, committed_rows):
    for job, row in zip(committed_jobs, committed_rows, strict=True):
        config = Config.from_dict(row.trained.config)
        asked = config.override({"training.precision": job.config.training.precision})  # the row has what "auto" gave
        assert dataclasses.replace(job, config=asked, data_sha256=row.scores.data.sha256).key == row.key, (
            "the default of a setting has changed, so old keys stand for other settings: raise "
            "samgan.training.step.ARITHMETIC"
        )


def test_the_committed_table_is_that_of_its_rows(committed_rows, tmp_path):
    (tmp_path / "rows").symlink_to(COMMITTED / "rows")
    stored = COMMITTED_TABLE
    table, files = write_table(tmp_path, committed_rows, command=stored.command, title=stored.title)
    markdown, rows, *_ = files
    assert markdown.read_bytes() == (COMMITTED / markdown.name).read_bytes()
    for page in (tmp_path, COMMITTED):
        assert (page / "table.html").read_text().count("below 0: as the claim says") == len(
            [claim for claim in CLAIMS if claim.pairs]
        )
    for part in ("header", "cells", "claims", "ranks", "alarms", "notes"):
        assert getattr(table, part) == getattr(stored, part), "run results/table2/again.py"
    # A score that is new since then has a column here, but no values.
    for line, before in zip(table.lines, stored.lines, strict=True):
        assert {name: line[name] for name in before} == before
        assert not any(line[name] for name in line.keys() - before.keys())
    with open(rows, newline="") as file, open(COMMITTED / rows.name, newline="") as other:
        for line, before in zip(csv.DictReader(file), csv.DictReader(other), strict=True):
            assert {name: line[name] for name in before} == before


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 24, resolution=32)
    return prepare(folder / "images", folder / "data", resolution=32, workers=1).path


@pytest.fixture(autouse=True)
def no_features(monkeypatch):
    monkeypatch.setattr(load_features, "default_features", lambda shape: Default(None, "no weights here"))


def test_the_command_runs_rows_and_goes_on(data, tmp_path, capsys):
    command = ["table2", str(data), "--out", str(tmp_path), "--rows", "msg-gan-7", "--kimg", "0.032", "--json"]
    assert main([*command, "--snapshot-every-kimg", "0.016", "--device", "cpu"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert (line["name"], line["seeds"], line["kimg"], line["frechet"]) == ("msg-gan-7", 1, 0.032, None)
    assert line["ms_ssim_generated"] is not None
    (row,) = (tmp_path / "rows").glob("*.json")
    written = row.stat().st_mtime_ns
    assert main([*command, "--snapshot-every-kimg", "0.016", "--device", "cpu", "--seeds", "2"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert line["seeds"] == 2
    assert row.stat().st_mtime_ns == written
    request = TableRequest(rows=["msg-gan-7=2"], kimg=0.032, device="cpu")  # what is logged and kept does not count
    table, files = samgan.table2(data, tmp_path, request)
    assert table.lines == (line,)
    assert all(file.parent == tmp_path and file.is_file() for file in files)
    assert row.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "samgan-9"], "samgan-9"),
        (["--seeds", "0"], "--seeds 0"),
        (["--rows", "samgan-8=0"], "samgan-8=0"),
        (["--rows", "samgan-8=many"], "samgan-8=many"),
        (["--budget-minutes", "0"], "--budget-minutes 0"),
        (["--budget-minutes", "1", "--kimg", "1"], "both give the length; give only one of them"),
        (["--budget-minutes", "1", "--epochs", "1"], "--budget-minutes and --epochs both give the length"),
        (["--budget-minutes", "1", "--score-at", "1"], "--score-at counts kimg, and --budget-minutes minutes"),
        (["--score-at", "0"], "--score-at 0: expected more than 0"),
        (["--training.epochs=1"], "has the option --epochs for it"),
        (["--rows", "msg-gan-1"], "--faces"),
        (["--training.learning_rate=0.01"], "rows of the table differ in this setting"),
        (["--training.kimg=1"], "has the option --kimg for it"),
        (["--training.batch_sise=4"], "did you mean training.batch_size?"),
        (["--training.batch_size=1"], "training.batch_size: 1 is not allowed"),
        (["--count", "1000"], "--count 1000"),
        (["--features", "typo.pt4"], "--features typo.pt4"),
    ],
)
def test_wrong_use_is_reported_before_anything_is_trained(data, tmp_path, capsys, arguments, words):
    assert main(["table2", str(data), "--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_ways_to_score_reach_the_request(data, tmp_path, monkeypatch):
    asked = []

    def table2(data, out, request):
        asked.append(request)
        raise SamganError("asked")

    monkeypatch.setattr("samgan.studies.table2", table2)
    options = ["--count", "9", "--protocol", "paper", "--features", "lite0", "--second-features", "radiograph"]
    assert main(["table2", str(data), "--out", str(tmp_path), *options]) == 1
    (request,) = asked
    assert (request.count, request.protocol) == (9, "paper")
    assert (request.features, request.second_features) == ("lite0", "radiograph")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scale": "tiny"}, "--scale tiny: expected one of cpu, paper"),
        ({"protocol": "legacy"}, "--protocol legacy: expected one of standard, paper"),
        ({"on_collapse": "cry"}, "--on-collapse cry: expected one of warn, stop, ignore"),
        ({"kimg": 1.0, "budget_minutes": 1.0}, "both give the length"),
        ({"cores_per_job": 0}, "--cores-per-job 0: expected more than 0"),
        ({"settings": {"training.seed": 1}}, "has the option --seeds for it"),
    ],
)
def test_a_request_is_checked_when_it_is_made(wrong, words):
    with pytest.raises(UsageError, match=words):
        TableRequest(**wrong)


def test_scores_of_features_are_not_replaced_by_others_without_being_asked(data, tmp_path, capsys, monkeypatch):
    command = ["table2", str(data), "--out", str(tmp_path), "--rows", "msg-gan-7", "--kimg", "0.032", "--device", "cpu"]
    assert main(command) == 0
    (path,) = (tmp_path / "rows").glob("*.json")
    row = json.loads(path.read_text())
    row["scoring"]["features"] = "inception"
    row["scores"]["features"] = {"name": "inception", "sha256": "ab", "dim": 2048}
    path.write_text(json.dumps(row))
    capsys.readouterr()
    monkeypatch.setattr("pooch.retrieve", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert main(command) == 1
    said, error = capsys.readouterr().err.splitlines()
    assert said == f"samgan: features: inception, as in the rows of {tmp_path}"
    assert "the weights of inception are not in" in error
    assert json.loads(path.read_text()) == row
    row["scoring"]["features"] = [0.5, 0.5]
    path.write_text(json.dumps(row))
    assert main(command) == 2
    assert f"{path} was scored by inception; give --features again" in capsys.readouterr().err
    assert json.loads(path.read_text()) == row


def test_a_table_goes_on_with_the_features_that_it_was_begun_with(data, tmp_path, capsys, monkeypatch, radiograph):
    monkeypatch.setattr(load_features, "default_features", default_features)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("pooch.retrieve", no_network)
    out = tmp_path / "out"
    command = ["table2", str(data), "--out", str(out), "--rows", "msg-gan-7", "--kimg", "0.032", "--device", "cpu"]
    assert main(command) == 0
    assert "features radiograph" in capsys.readouterr().out
    (path,) = (out / "rows").glob("*.json")
    row = RowDocument.read(path)
    assert (row.scoring.features, row.scoring.weights_sha256) == ("radiograph", radiograph)
    assert row.scores.features.name == "radiograph"
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    (folder / file_name(INCEPTION)).touch()  # now it would be the default
    written = path.stat().st_mtime_ns
    assert main(command) == 0
    assert f"samgan: features: radiograph, as in the rows of {out}" in capsys.readouterr().err
    assert path.stat().st_mtime_ns == written


def no_network(*_, **__):
    raise OSError("no network in tests")


def test_a_table_of_failures_is_a_failure(data, tmp_path, capsys, monkeypatch):
    def fails(*_, **__):
        raise SamganError("loss is nan")

    monkeypatch.setattr(api, "train", fails)
    assert main(["table2", str(data), "--out", str(tmp_path), "--rows", "msg-gan-6"]) == 1
    assert "every job failed; the first: loss is nan" in capsys.readouterr().err
    assert (tmp_path / "table.html").exists()


def test_the_plan_of_the_papers_scale_needs_no_data(capsys):
    assert main(["table2", "--dry-run", "--scale", "paper", "--rows", "msg-gan-6", "--seeds", "2", "--json"]) == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert cost["generator_parameters"] == 22_485_765
    assert cost["steps"] == 113_000
    hours = 2 * 113_000 * cost["flops_per_step"] / 20e12 / 3600
    assert cost["gpu_hours"] == pytest.approx(hours, abs=0.01)


@pytest.mark.slow
def test_a_doubled_set_is_shown_as_often_as_another_one(data):
    data = PreparedSet.open(data)
    images = len(data.indices("train"))
    for lengths, expected in (({"kimg": 0.5}, 0.5), ({"epochs": 3.0}, 3 * images / 1000), ({}, 400.0)):
        request = TableRequest(rows=["samgan-8", "samgan-8-doubled"], score_at=(0.1, 0.4, 0.1, 900.0), **lengths)
        jobs = {job.name: job for job in jobs_of(request, data)}
        assert jobs["samgan-8"].config.training.kimg == pytest.approx(expected)
        assert jobs["samgan-8-doubled"].config.training.kimg == pytest.approx(2 * expected)
        assert jobs["samgan-8"].score_at == tuple(kimg for kimg in (0.1, 0.4) if kimg < expected)
        if "epochs" in lengths:  # which needs the set
            planned = plan_rows(dataclasses.replace(request, settings={"network.max_channels": 8}), data)
            assert [row.kimg for row in planned] == pytest.approx([expected, 2 * expected], abs=0.016)


def test_the_order_of_classes_makes_no_other_rows(data):
    data = PreparedSet.open(data)
    keys = [
        [job.key for job in jobs_of(TableRequest(rows=["samgan-8"], classes=classes, kimg=0.1), data)]
        for classes in (("NORMAL", "PNEUMONIA"), ("PNEUMONIA", "NORMAL"), ("NORMAL",))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_the_plan_refuses_what_the_run_would(data, capsys):
    command = ["table2", str(data), "--dry-run", "--rows", "msg-gan-6"]
    for wrong, words in (
        (["--classes", "NOPE"], "unknown class NOPE"),
        (["--faces", "nowhere"], "nowhere"),
        (["--gpus-per-job", "-1"], "expected 0 or more"),
        (["--gpus-per-job", "1"], "it is for jobs on --ray or --slurm"),
    ):
        assert main([*command, *wrong]) != 0
        assert words in capsys.readouterr().err


def test_the_plan_of_epochs_needs_the_data(capsys):
    assert main(["table2", "--dry-run", "--rows", "msg-gan-6", "--epochs", "3"]) == 2
    assert "the length depends on the number of images: name the prepared set" in capsys.readouterr().err


def test_the_plan_of_minutes_is_those_minutes(capsys):
    command = ["table2", "--dry-run", "--rows", "msg-gan-6", "--seeds", "3", "--budget-minutes", "30"]
    assert main([*command, "--json"]) == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert (cost["gpu_hours"], cost["steps"]) == (1.5, None)
    assert main(command) == 0
    assert "TFLOP/s" not in capsys.readouterr().out
