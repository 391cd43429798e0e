"""The table: what is asked for is what is run, and every number in it is one that was measured."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from samgan import api
from samgan.commands.main import main
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError, UsageError
from samgan.metrics import features
from samgan.metrics.features import FeaturesUnavailable
from samgan.networks import Discriminator, Generator
from samgan.presets import PLUS, PRESETS, preset_config
from samgan.scoring import MODE_COLLAPSE as COLLAPSE
from samgan.scoring import NO_MODE_COLLAPSE as NO_COLLAPSE
from samgan.studies import (
    COLUMNS,
    HEADER,
    ROWS,
    alarm_lines,
    alarm_summary,
    choose_rows,
    rank_correlations,
    summarise,
    table2,
    write_table,
)


def score(value, floor):
    return {"value": value, "floor": floor}


def document(name, seed=0, frechet=1.0, generated=0.6, recall=0.4, collapse=None, **more):
    difference = generated - 0.58
    scores = {
        "count": 100,
        "frechet": score(frechet, 0.03),
        "kid_x1000": score(1.5, 0.0),
        **{key: score(recall, 0.9) for key in ("precision", "recall", "density", "coverage")},
        "swd": {"64": score(1.0, 0.5), "mean": score(20.0, 6.0)},
        "ms_ssim_real": {"mean": 0.58, "low": 0.57, "high": 0.59},
        "ms_ssim_generated": {"mean": generated, "low": generated - 0.01, "high": generated + 0.01},
        "mode_collapse": {"verdict": COLLAPSE if difference > 0.03 else NO_COLLAPSE, "difference": difference},
        "features": {"name": "inception"},
    }
    return {
        "name": name,
        "seed": seed,
        "key": f"{name}-seed{seed}-0123abcd",
        "processor": "a processor",
        "commit": "abc",
        "kimg": 40.0 + seed,
        "wall_minutes": 20.0,
        "images_per_second": 33.0,
        "gamma": {"generator_8": 0.1 * (seed + 1), "discriminator_8": -0.1},
        "curves": {"loss_generator": [[1.0, 2.0], [2.0, 3.0]], "ms_ssim_generated": [[2.0, 0.7]], "penalty": []},
        "collapse": collapse,
        "scores": scores,
        **more,
    }


FAILED = {"name": "samgan-1", "seed": 0, "key": "samgan-1-seed0-ffff", "failed": "step 3: loss_generator is <nan>"}
SIGN = {"step": 5, "images_seen": 12_000, "wall_seconds": 300.0, "reason": "all alike"}


def test_the_papers_rows_are_the_presets_and_further_rows_change_what_they_say():
    for row in PRESETS:
        assert ROWS[row.name].config("cpu") == preset_config(row.name, "cpu")
        assert ROWS[row.name].paper_fid == row.paper_fid
    configs = [row.config("cpu").override({"preset": "x"}) for row in ROWS.values()]
    assert len(set(map(repr, configs))) == len(ROWS), "two rows would train the same"
    for row in ROWS.values():
        changed = set(row.config("paper").differences(preset_config(row.base, "gpu" if row.base == PLUS else "paper")))
        if row.question:
            assert changed - {"preset", "training.kimg"} == set(row.settings)


OTHER_NETWORKS = [row for row in ROWS.values() if row.base != PLUS and any("network." in key for key in row.settings)]


@pytest.mark.parametrize("row", OTHER_NETWORKS, ids=lambda row: row.name)
def test_a_setting_of_a_network_makes_another_network(row):
    """Not so for equalized rates under spectral norm, for example: the layer has none already."""

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


def test_settings_of_all_rows_leave_what_a_row_is_about_and_our_own_recipe():
    settings = {"training.batch_size": 4, "network": {"max_channels": 32}}
    for row in ROWS.values():
        changed = row.config("cpu", settings=settings).differences(row.config("cpu"))
        assert set(changed) == (set() if row.base == PLUS else {"training.batch_size", "network.max_channels"})


def test_rows_are_chosen_by_name_and_by_group():
    paper = [row.name for row in PRESETS if row.data == "X-ray"]
    assert choose_rows([], 1, colour=False) == dict.fromkeys(paper, 1)
    assert len(paper) == 18
    assert list(choose_rows([], 1, colour=True)) == ["msg-gan-1", *paper]
    assert list(choose_rows(["samgan-8", "msg-gan-6"], 1, colour=True)) == ["msg-gan-6", "samgan-8"]
    assert set(choose_rows(["all"], 1, False)) - set(choose_rows(["all"], 1, False, 32)) == {"samgan-8-at-64"}
    assert choose_rows(["all", "samgan-8=3"], 2, colour=False) == dict.fromkeys(list(ROWS)[1:], 2) | {"samgan-8": 3}
    with pytest.raises(UsageError, match="samgan-9"):
        choose_rows(["samgan-9"], 1, colour=False)
    with pytest.raises(UsageError, match="--faces"):
        choose_rows(["msg-gan-1"], 1, colour=False)


def test_a_line_holds_means_of_its_seeds_and_their_spread():
    documents = [document("msg-gan-6", 0, 1.0, 0.6), document("msg-gan-6", 1, 1.5, 0.7), document("samgan-8"), FAILED]
    lines = {line["name"]: line for line in summarise(documents)}
    assert list(lines) == ["msg-gan-6", "samgan-1", "samgan-8"]
    assert all(tuple(line) == COLUMNS for line in lines.values())
    two, one, none = lines["msg-gan-6"], lines["samgan-8"], lines["samgan-1"]
    assert (two["seeds"], two["frechet"], two["frechet_spread"], two["frechet_floor"]) == (2, 1.25, 0.5, 0.03)
    names = [f"ms_ssim_{name}" for name in ("generated", "generated_spread", "generated_low", "real_high")]
    assert [two[name] for name in names] == [0.65, 0.1, 0.64, 0.59]
    assert (two["swd"], two["swd_spread"], two["recall_spread"]) == (20.0, 0.0, 0.0)
    assert (two["collapsed_seeds"], two["paper_fid"], two["kimg"]) == (1, 167.1, 40.5)
    assert two["gamma_generator"] == {"8": 0.15}
    assert (one["seeds"], one["frechet_spread"], one["ms_ssim_generated_spread"]) == (1, None, None)
    assert (none["seeds"], none["failed_seeds"], none["frechet"], none["paper_fid"]) == (0, 1, None, 557.28)


def test_rank_correlation_is_of_the_papers_rows_alone():
    names = ["msg-gan-6", "msg-gan-5", "msg-gan-3", "samgan-1"]  # in the order of the paper's FID
    lines = summarise([*(document(name, frechet=k + 1.0) for k, name in enumerate(names)), document("samgan-8-linear")])
    assert rank_correlations(lines)["frechet"] == {"rho": 1.0, "p": 0.0833, "rows": 4}
    assert rank_correlations(lines[:3]) == {}


def test_alarms_are_held_against_the_end():
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
    unscored = {**FAILED, "collapse": SIGN, "ended_early": True}
    assert alarm_summary([*documents, FAILED, ended, unscored]) == summary
    assert [line[4] for line in alarm_lines([ended, unscored])] == ["ended there"]
    whole = document("samgan-5", generated=0.95, collapse=SIGN, ended_early=False)
    assert alarm_lines([whole])[0][4] == "yes"
    assert summary.partition("images. ")[2].startswith(
        "4 runs: 1 with an alarm that were collapsed at their end, 1 false alarms, 1 collapsed"
    )
    assert summary.endswith("saved 30 of 80 minutes.")


def test_the_table_is_written_in_four_forms_that_agree(tmp_path):
    documents = [document("msg-gan-6"), document("msg-gan-6", 1, 1.5), document("samgan-8"), FAILED]
    (tmp_path / "rows").mkdir()
    Image.fromarray(np.zeros((64, 128), np.uint8)).save(tmp_path / "rows" / f"{documents[0]['key']}.png")
    files = write_table(tmp_path, documents, command="samgan table2 <data>", title="A table", jobs=6)
    assert [file.name for file in files] == ["table.md", "table.csv", "table.json", "table.html"]
    lines = json.loads((tmp_path / "table.json").read_text())
    asked = {"name", "seeds", "frechet", "frechet_floor", "ms_ssim_real", "ms_ssim_generated", "recall", "coverage"}
    assert asked | {"kimg", "wall_minutes", "paper_fid"} <= set(lines[0])
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["frechet"]) for row in rows if row["frechet"]] == [1.25, 1.0]
    markdown = (tmp_path / "table.md").read_text()
    assert "| msg-gan-6 | 167.1 | 1.250 (spread 0.500) | 0.030 | 0.5 / 0.47 |" in markdown
    assert "samgan-1, seed 0: step 3: loss_generator is <nan>" in markdown
    assert "Not finished: 4 of 6 jobs have ended." in markdown
    assert all(line.count("|") == len(HEADER) + 1 for line in markdown.splitlines()[2:7])
    page = (tmp_path / "table.html").read_text()
    assert "1.250 (spread 0.500)" in page
    assert "loss_generator is &lt;nan&gt;" in page
    assert "samgan table2 &lt;data&gt;" in page
    assert len(re.findall('src="data:image/png', page)) == 1
    assert "SYNTHETIC" in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_claims_are_judged_on_whole_runs_of_the_papers_networks(tmp_path, monkeypatch):
    judged = []
    monkeypatch.setattr(table2, "judge", lambda runs: judged.append(runs) or [])
    documents = [document("samgan-8"), document(PLUS), document("msg-gan-1"), FAILED]
    documents += [document("samgan-8", 1, collapse=SIGN, ended_early=True, kimg=12.0)]
    files = write_table(tmp_path, documents, command="", title="")
    assert judged == [{"samgan-8": [documents[0]["scores"]]}]
    (cells,) = (line for line in files[0].read_text().splitlines() if line.startswith("| samgan-8 |"))
    assert "| 26.0 (1 ended early) |" in cells


def test_csv_holds_gates_as_json(tmp_path):
    write_table(tmp_path, [document("samgan-8")], command="", title="")
    with open(tmp_path / "table.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert json.loads(row["gamma_generator"]) == {"8": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 24, resolution=32)
    return prepare(folder / "images", folder / "data", resolution=32, workers=1).path


@pytest.fixture(autouse=True)
def no_features(monkeypatch):
    load = features.load_features

    def unavailable(name, **more):
        if name == "inception":
            raise FeaturesUnavailable("no weights here")
        return load(name, **more)

    monkeypatch.setattr(features, "load_features", unavailable)


def test_the_command_runs_rows_and_goes_on(data, tmp_path, capsys):
    command = ["table2", str(data), "--out", str(tmp_path), "--rows", "msg-gan-7", "--kimg", "0.032", "--json"]
    assert main([*command, "--snapshot-every-kimg", "0.016", "--device", "cpu"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["name"], line["seeds"], line["kimg"], line["frechet"]) == ("msg-gan-7", 1, 0.032, None)
    assert line["ms_ssim_generated"] is not None
    (row,) = (tmp_path / "rows").glob("*.json")
    written = row.stat().st_mtime_ns
    assert main([*command, "--snapshot-every-kimg", "0.016", "--device", "cpu", "--seeds", "2"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert line["seeds"] == 2
    assert row.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "samgan-9"], "samgan-9"),
        (["--seeds", "0"], "--seeds 0"),
        (["--rows", "samgan-8=0"], "samgan-8=0"),
        (["--rows", "samgan-8=many"], "samgan-8=many"),
        (["--budget-minutes", "0"], "--budget-minutes 0"),
        (["--budget-minutes", "1", "--kimg", "1"], "one of them is the length"),
        (["--rows", "msg-gan-1"], "--faces"),
        (["--training.learning_rate=0.01"], "rows of the table differ in it"),
        (["--training.kimg=1"], "an option for it, --kimg"),
        (["--training.batch_sise=4"], "did you mean training.batch_size?"),
        (["--training.batch_size=1"], "training.batch_size: 1 is not allowed"),
        (["--count", "1000"], "--count 1000"),
        (["--features", "typo.pt4"], "--features typo.pt4"),
    ],
)
def test_wrong_use_is_told_before_anything_is_trained(data, tmp_path, capsys, arguments, words):
    assert main(["table2", str(data), "--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_scores_of_features_are_not_replaced_by_scores_without(data, tmp_path, capsys):
    command = ["table2", str(data), "--out", str(tmp_path), "--rows", "msg-gan-7", "--kimg", "0.032", "--device", "cpu"]
    assert main(command) == 0
    (path,) = (tmp_path / "rows").glob("*.json")
    row = json.loads(path.read_text())
    row["scoring"]["features"] = "inception"
    row["scores"]["features"] = {"name": "inception"}
    path.write_text(json.dumps(row))
    capsys.readouterr()
    assert main(command) == 1
    assert "has scores of features, which cannot be had now" in capsys.readouterr().err.splitlines()[-1]
    assert json.loads(path.read_text()) == row


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


def test_the_plan_of_minutes_is_these_minutes(capsys):
    command = ["table2", "--dry-run", "--rows", "msg-gan-6", "--seeds", "3", "--budget-minutes", "30"]
    assert main([*command, "--json"]) == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert (cost["gpu_hours"], cost["steps"]) == (1.5, None)
    assert main(command) == 0
    assert "TFLOP/s" not in capsys.readouterr().out
