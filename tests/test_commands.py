"""The commands as a user types them: documents on standard output, one-line errors, exit statuses."""

import argparse
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samgan.commands.main import COMMANDS, main
from samgan.commands.options import add_on_collapse
from samgan.commands.settings import read_settings, split_settings
from samgan.config import json_schema, settings
from samgan.data import PreparedSet, prepare
from samgan.data.phantom import write_phantoms
from samgan.devices import choose_device
from samgan.errors import UsageError
from samgan.metrics.feature_networks import FeaturesUnavailable
from samgan.presets import PRESETS, preset_config
from samgan.runs import Collapse, Run, describe_environment
from samgan.sampling import load_model
from samgan.training import Cost
from samgan.training.run import ON_COLLAPSE

TINY = [
    "--network.max_channels=8",
    "--training.batch_size=4",
    "--training.kimg=0.04",
    "--training.log_every_kimg=0.008",
]
TINY += ["--training.snapshot_every_kimg=0.02"]


def run(capsys, *arguments):
    """Exit status, parsed standard output and standard error of `samgan *arguments --json`."""
    status = main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return status, json.loads(captured.out) if captured.out else None, captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 24, resolution=32)
    return folder


@pytest.fixture(scope="module")
def data(folder):
    return prepare(folder / "images", folder / "data", resolution=32, workers=1).path


@pytest.fixture(scope="module")
def trained(data, folder):
    assert (
        main(["train", str(data), "--preset", "samgan-8", "--scale", "cpu", "--out", str(folder / "run"), *TINY]) == 0
    )
    return folder / "run"


@pytest.fixture
def cheap(monkeypatch):
    """A cost at once, in place of one that is counted, for tests of what the configuration is."""
    cost = Cost(
        generator_parameters=1, discriminator_parameters=1, flops_per_step=1, memory_bytes=1, steps=1, kimg=0.001
    )
    monkeypatch.setattr("samgan.training.plan", lambda config: cost)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_folders_with_pictures_of_patients_are_for_their_user(data, trained, tmp_path):
    assert main(["subset", str(data), str(tmp_path / "part"), "--images", "NORMAL=5"]) == 0
    for name in ("scores", "audit"):
        command = ["evaluate" if name == "scores" else "audit", str(trained), "--data", str(data), "--split", "all"]
        words = command if name == "scores" else command[:-2]
        assert main([*words, "--count", "8", "--features", "radiograph", "--out", str(tmp_path / name)]) == 0
    for folder in (data, trained, *tmp_path.iterdir()):
        assert folder.stat().st_mode & 0o777 == 0o700, folder


def test_a_run_tells_no_folder_of_the_machine(trained):
    for path in trained.rglob("*"):
        assert not path.is_file() or bytes(trained.parent) not in path.read_bytes(), path


@pytest.mark.parametrize("held", ["x" * 10_000, "word " * 2_000, "\x1b" * 10_000], ids=["word", "words", "escapes"])
def test_an_error_is_short_whatever_a_file_holds(capsys, data, tmp_path, held):
    """The beginning says which file it is, the end what to do."""
    shutil.copytree(data, tmp_path / "set")
    info = json.loads((data / "dataset.json").read_text())
    (tmp_path / "set/dataset.json").write_text(json.dumps({**info, "format": held}))
    assert main(["card", str(tmp_path / "set")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("samgan: error: /")
    assert "[...]" in said
    assert said.endswith(": prepare it again\n")
    assert said.count("\n") == 1
    assert len(said) <= 501


def test_long_paths_lose_their_middle_and_the_sentence_stays(capsys, data, tmp_path):
    folder = tmp_path / "/".join(["f" * 200] * 5)
    folder.mkdir(parents=True)
    (folder / "file").touch()
    assert main(["subset", str(data), str(folder), "--images", "NORMAL=5"]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"samgan: error: /\S*\[\.\.\.\]f+ exists and is not empty; name a new folder\n", said)
    assert len(said) <= 501


def test_a_wrong_word_of_the_command_line_is_short_too(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--resolution", "9" * 10_000])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("samgan prepare: error: argument --resolution: ")
    assert len(last) <= 500


def test_a_full_disk_is_one_line_with_a_remedy(capsys, data, monkeypatch, tmp_path):
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        assert main(["card", str(data), "--out", str(tmp_path / "CARD.md")]) == 1
    said = capsys.readouterr().err
    remedy = "free some space, then run the same command again"
    assert said == f"samgan: error: No space left on device ({tmp_path / 'CARD.md'}): {remedy}\n"
    assert main(["card", str(data), "--out", str(tmp_path / "CARD.md")]) == 0


def test_a_word_with_line_breaks_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["presets", "a\nb\x1b[2J"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "samgan presets: error: unrecognized arguments: a\\nb\\x1b[2J"


def test_an_option_that_is_a_setting_is_named_in_full(capsys):
    for words, meant in ((["--kimg", "50"], "--training.kimg"), (["--seed=3"], "--training.seed")):
        with pytest.raises(SystemExit):
            main(["train", "data", *words])
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"samgan train: error: unrecognized arguments: {words[0]}")
        assert last.endswith(f"; did you mean {meant}?")


def test_prepare_warns_of_patients_on_both_sides_of_the_sources_split(capsys, folder, tmp_path):
    for part in ("train", "test"):
        shutil.copytree(folder / "images", tmp_path / "images" / part)
    arguments = ["prepare", str(tmp_path / "images"), str(tmp_path / "out"), "--duplicates", "keep"]
    assert main([*arguments, "--resolution", "64", "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "split by source (its folders" in text
    assert "WARNING: 48 patients, or groups of near duplicates, are on both sides" in text
    assert "enlarged: 96 images were smaller than 64 px" in text


def test_prepare_says_what_it_left_out_and_how_it_split(capsys, folder, tmp_path):
    shutil.copytree(folder / "images", tmp_path / "images")
    first, second, *_ = sorted((tmp_path / "images" / "NORMAL").iterdir())
    shutil.copy(first, first.with_name("scan-a.png"))
    first.with_name("broken.png").write_bytes(second.read_bytes()[:100])
    first.with_name("notes.txt").write_text("read me")
    Image.fromarray(np.asarray(Image.open(second)) // 2).save(first.with_name("scan-b.png"))
    arguments = ["prepare", str(tmp_path / "images"), str(tmp_path / "out"), "--resolution", "32", "--workers", "1"]
    assert main([*arguments, "--max-bad", "0.1"]) == 0
    text = capsys.readouterr().out
    assert "split by patient (file names; 96 % of images), else image" in text
    assert "left out: 1 exact duplicates" in text
    assert "near duplicates: 1 images" in text
    assert "ignored, since they are not images: 1 .txt" in text
    assert "left out: 1 files that cannot be read" in text
    assert "  NORMAL/broken.png: " in text


def test_presets_json_lists_every_row_with_switches_and_the_papers_scores(capsys):
    status, rows, _ = run(capsys, "presets")
    assert status == 0
    assert [row["name"] for row in rows] == [row.name for row in PRESETS]
    last = rows[-1]
    assert (last["paper_fid"], last["paper_ms_ssim_real"], last["paper_ms_ssim_generated"]) == (139.6, 0.5, 0.5)
    assert all(last[switch] for switch in ("pixel_norm", "spectral_norm", "minibatch_std", "attention", "flip"))


def test_dry_run_json_holds_parameters_flops_and_memory(capsys):
    status, plan, _ = run(capsys, "train", "--preset", "msg-gan-6", "--dry-run")
    assert status == 0
    assert plan["generator_parameters"] == 22_485_765
    assert plan["discriminator_parameters"] == 18_361_601
    assert plan["flops_per_step"] > 1e12
    assert plan["memory_bytes"] > 4 * 4 * (22_485_765 + 18_361_601)
    assert plan["config"]["training"]["learning_rate"] == 0.003
    here = describe_environment(choose_device("auto"), None)  # what a run will say of itself
    assert (plan["device"], plan["processor"]) == (here.device, here.processor)


def test_settings_without_effect_are_named(capsys, cheap, data, tmp_path):
    expected = "training.first_kimg has no effect: training.first_sides is empty"
    status, plan, error = run(capsys, "train", "--dry-run", "--training.first_kimg=30", "--training.seed=3")
    assert (status, plan["unused_settings"]) == (0, [expected])
    assert error.splitlines() == [f"note: {expected}"]
    (tmp_path / "config.json").write_text(json.dumps(plan["config"]))  # whole: nobody chose one of these settings
    _, plan, error = run(capsys, "train", "--dry-run", "--config", tmp_path / "config.json")
    assert (plan["unused_settings"], error) == ([], "")
    _, plan, _ = run(capsys, "train", "--dry-run", "--config", tmp_path / "config.json", "--training.first_kimg=40")
    assert plan["unused_settings"] == [expected]
    (tmp_path / "settings.yaml").write_text("training:\n  first_kimg: 40\n")
    _, plan, _ = run(capsys, "train", "--dry-run", "--config", tmp_path / "settings.yaml")
    assert plan["unused_settings"] == [expected]
    command = ["train", data, "--preset", "samgan-8", "--scale", "cpu", "--out", tmp_path / "run", *TINY]
    _, _, error = run(capsys, *command, "--training.penalty_every=4")
    assert "note: training.penalty_every has no effect: training.penalty is none\n" in error


def test_a_dry_run_may_be_for_the_device_of_another_machine(capsys, cheap):
    assert run(capsys, "train", "--dry-run", "--device", "cuda")[1]["device"] == "cuda"


def test_a_length_is_given_once(capsys, cheap, data, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("training:\n  kimg: 50\n  epochs: 3\n")
    both = "training.kimg and training.epochs both give the length; give only one of them"
    command = ["train", data, "--dry-run", "--network.max_channels=16", "--preset", "samgan-8", "--scale", "cpu"]
    for arguments in (["--config", file], ["--training.kimg=1", "--training.epochs=1"]):
        status, _, error = run(capsys, *command, *arguments)
        assert status == 2
        assert both in error
    _, plan, _ = run(capsys, *command, "--config", file, "--training.kimg=60")
    assert plan["config"]["training"]["kimg"] == 60
    file.write_text("training.kimg: 50\n")
    images = len(PreparedSet.open(data).indices("train"))
    status, plan, _ = run(capsys, *command, "--config", file, "--training.epochs=100")
    assert plan["config"]["training"]["kimg"] == pytest.approx(0.1 * images)
    assert plan["config"]["training"]["epochs"] is None


def test_flags_win_over_yaml_and_yaml_over_the_preset(capsys, cheap, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("training:\n  kimg: 50\n  learning_rate: 1e-3\nnetwork.max_channels: 32\n")
    arguments = [
        "--preset",
        "samgan-8",
        "--config",
        file,
        "--training.kimg=60",
        "--network.generator_attention",
        "8,16",
    ]
    status, plan, _ = run(capsys, "train", "--dry-run", *arguments)
    assert status == 0
    assert plan["config"]["training"]["kimg"] == 60
    assert plan["config"]["training"]["learning_rate"] == 1e-3
    assert plan["config"]["network"]["max_channels"] == 32
    assert plan["config"]["network"]["generator_attention"] == [8, 16]
    assert plan["config"]["network"]["spectral_norm"] == "both"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--training.kmig=5"], ["training.kmig", "5", "training.kimg"]),
        (["--training.kimg=many"], ["training.kimg", "many", "number"]),
        (["--training.loss=mse"], ["training.loss", "mse", "relativistic-average-hinge"]),
        (["--network.max_channels=60"], ["network.max_channels", "60", "one of 8, 16"]),
        (["--training.kimg"], ["training.kimg", "needs a value"]),
        (["--preset", "samgan-9"], ["samgan-9", "samgan-8"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    ],
)
def test_wrong_settings_are_named_in_one_line_with_status_2(capsys, arguments, words):
    status, document, error = run(capsys, "train", "--dry-run", *arguments)
    assert status == 2
    assert document is None
    assert error.count("\n") == 1
    assert all(word in error for word in words)


@pytest.mark.parametrize("text", ["- a\n- b\n", "training: [", "5\n", "[" * 5000, "training: &x {kimg: *x}\n"])
def test_a_yaml_file_that_holds_no_settings_is_refused(tmp_path, text):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"settings\.yaml"):
        read_settings(file)


def test_values_are_json_lists_or_text():
    arguments = ["--a.b=1e-4", "--a.c", "null", "--a.d=[4, 8]", "--a.e=4,8", "--a.f=none", "--a.g=-1"]
    words, flags = split_settings(["train", "a.b", *arguments, "--json"])
    assert words == ["train", "a.b", "--json"]
    assert flags == {
        "a.b": 1e-4,
        "a.c": None,
        "a.d": [4, 8],
        "a.e": [4, 8],
        "a.f": "none",
        "a.g": -1,
    }


def test_the_four_steps_leave_what_they_promise(capsys, data, trained, tmp_path):
    status, document, _ = run(capsys, "sample", trained, "--count", 5, "--seed", 7, "--out", tmp_path / "samples")
    assert status == 0
    files = sorted(path.name for path in (tmp_path / "samples").glob("*.png"))
    assert files == [f"seed-{seed:08d}.png" for seed in range(7, 12)]
    with Image.open(tmp_path / "samples" / files[0]) as image:
        assert image.size == (32, 32)
        assert image.text["Synthetic"] == "true"
        assert image.text["Seed"] == "7"
        assert image.text["Model-SHA256"] == document["Model-SHA256"]

    status, scores, error = run(
        capsys, "evaluate", trained, "--data", data, "--features", _stub(tmp_path), "--count", 16
    )
    assert status == 0, error
    assert scores == json.loads((trained / "scores.json").read_text())
    assert scores["generated"]["model_sha256"] == document["Model-SHA256"]
    assert (scores["generated"]["name"], scores["generated"]["images_seen"]) == ("run", 40)
    assert scores["data"]["classes"] == ["NORMAL", "PNEUMONIA"]
    assert (scores["data"]["split"], len(scores["data"]["sha256"])) == ("train", 64)
    assert {"value", "floor"} <= set(scores["scores"]["frechet"])
    assert scores["mode_collapse"]["verdict"]
    assert "<html" in (trained / "report.html").read_text()


def test_what_cannot_be_scored_is_refused_before_features_are_loaded(capsys, data, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("samgan.metrics.load_features.load_features", lambda *_, **__: pytest.fail("loaded"))
    assert main(["sample", str(trained), "--count", "5", "--out", str(tmp_path / "samples")]) == 0
    capsys.readouterr()
    for source, more in ((tmp_path / "samples", []), (trained, ["--count", "5"])):
        status, _, error = run(capsys, "evaluate", source, "--data", data, *more)
        assert status == 1
        assert "at least 8 generated and 16 real images" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "-1"], ["--seed -1"]),
        (["--seed", "99999999999999999999"], ["--seed 99999999999999999999"]),
        (["--seed", "4294967288", "--count", "10"], ["--seed 4294967288", "2^32 - 10"]),
        (["--count", "1000"], ["--count 1000", "allow at most 19"]),
        (["--count", "1000", "--protocol", "paper"], ["--count 1000", "allow at most 38"]),
        (["--split", "holdout", "--classes", "COVID"], ["COVID"]),
    ],
)
def test_what_cannot_be_scored_as_asked_is_wrong_use(capsys, data, trained, arguments, words):
    status, _, error = run(capsys, "evaluate", trained, "--data", data, *arguments)
    assert status == 2
    assert all(word in error for word in words)


def test_images_have_no_checkpoints_to_choose_from(capsys, data, folder):
    arguments = ["evaluate", folder / "images" / "NORMAL", "--data", data, "--checkpoint", "best"]
    status, _, error = run(capsys, *arguments)
    assert status == 2
    assert "--checkpoint best" in error


def _stub(folder):
    """A feature extractor of the user's own: mean and standard deviation."""
    import torch

    class Stub(torch.nn.Module):
        def forward(self, images):
            pixels = images.float().flatten(1)
            return torch.stack([pixels.mean(dim=1), pixels.std(dim=1)], dim=1)

    path = folder / "stub.pt2"
    if not path.exists():
        example = (torch.zeros(3, 1, 32, 32, dtype=torch.uint8),)
        shapes = {"images": {0: torch.export.Dim("n", min=1, max=10_000)}}
        torch.export.save(torch.export.export(Stub(), example, dynamic_shapes=shapes), path)
    return path


def test_16_bit_npz_and_sheets(capsys, trained, tmp_path):
    assert main(["sample", str(trained), "--count", "2", "--format", "png16", "--out", str(tmp_path / "deep")]) == 0
    with Image.open(tmp_path / "deep" / "seed-00000000.png") as image:
        deep = np.asarray(image)
    assert deep.dtype == np.uint16
    assert deep.max() > 255
    sheets = ["--sheets", "grid", "interpolation", "scales", "attention"]
    assert (
        main(["sample", str(trained), "--count", "2", "--format", "npz", "--out", str(tmp_path / "npz"), *sheets]) == 0
    )
    with np.load(tmp_path / "npz" / "samples.npz", allow_pickle=False) as archive:
        assert archive["images"].shape == (2, 1, 32, 32)
        assert np.abs(archive["images"][0, 0].astype(int) - deep.astype(int) / 257).max() <= 1
        assert "SYNTHETIC" in str(archive["provenance"])
    assert {path.name for path in (tmp_path / "npz" / "sheets").glob("*.png")} == {f"{name}.png" for name in sheets[1:]}


def test_tensorboard_events_are_written_when_asked_for(data, tmp_path):
    assert (
        main(["train", str(data), "--scale", "cpu", "--out", str(tmp_path / "run"), *TINY, "--log", "tensorboard"]) == 0
    )
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_a_sample_folder_in_use_is_left_alone(capsys, trained, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    status, _, error = run(capsys, "sample", trained, "--out", tmp_path)
    assert status == 1
    assert "not empty" in error
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_folder_in_use_is_left_alone(capsys, data, trained):
    before = (trained / "stats.jsonl").read_bytes()
    status, _, error = run(capsys, "train", data, "--scale", "cpu", "--out", trained, *TINY)
    assert status == 1
    assert "--resume" in error
    assert (trained / "stats.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--training.learning_rate=0.1"], ["training.learning_rate", "0.0001", "0.1"]),
        (["--preset", "msg-gan-6", "--scale", "cpu", *TINY], ["network.spectral_norm", "'both'", "'none'"]),
        (["--preset", "samgan-8", *TINY], ["training.ema_halflife_kimg", "2.45", "11.08"]),
        (["--classes", "NORMAL"], ["data.classes", "NORMAL"]),
    ],
)
def test_resume_refuses_other_settings_and_names_them(capsys, data, trained, arguments, words):
    before = (trained / "stats.jsonl").read_bytes()
    status, _, error = run(capsys, "train", data, "--out", trained, "--resume", *arguments)
    assert status == 2
    assert error.count("\n") == 1
    assert all(word in error for word in [*words, "training.kimg"])
    assert (trained / "stats.jsonl").read_bytes() == before


def test_resume_refuses_other_data(capsys, data, trained, folder):
    other = prepare(folder / "images", folder / "other", resolution=32, workers=1, seed=1).path
    status, _, error = run(capsys, "train", other, "--out", trained, "--resume")
    assert status == 2
    assert "other data" in error


def test_resume_can_lengthen_a_finished_run(capsys, data, tmp_path):
    assert main(["train", str(data), "--scale", "cpu", "--out", str(tmp_path / "run"), *TINY]) == 0
    capsys.readouterr()
    status, document, _ = run(capsys, "train", data, "--out", tmp_path / "run", "--resume", "--training.kimg=0.06")
    assert status == 0
    assert document["images_seen"] == 60
    assert document["checkpoint"].endswith("step-00000015.pt")
    training = Run.open(tmp_path / "run").config.training
    assert training.kimg == 0.06
    assert training.precision in ("fp32", "bf16")  # what auto became is what is kept
    file = tmp_path / "longer.yaml"
    file.write_text("training:\n  kimg: 0.08\n")
    status, document, _ = run(capsys, "train", data, "--out", tmp_path / "run", "--resume", "--config", file)
    assert status == 0
    assert document["images_seen"] == 80
    assert document["checkpoint"].endswith("step-00000020.pt")


def test_minutes_end_a_run(capsys, data, tmp_path):
    arguments = ["train", data, "--scale", "cpu", *TINY, "--training.kimg=1000", "--out", tmp_path / "run"]
    status, _, error = run(capsys, *arguments, "--minutes", "0")
    assert status == 2
    assert error == "samgan: error: --minutes 0: expected more than 0\n"
    assert not (tmp_path / "run").exists()
    status, document, _ = run(capsys, *arguments, "--minutes", "0.0001")
    assert status == 0
    assert document["images_seen"] == 8  # until the first line of the log
    assert document["best"]["checkpoint"] == Path(document["checkpoint"]).name == "step-00000002.pt"


def test_a_run_can_start_from_another_one(capsys, data, trained, tmp_path):
    command = ["train", data, "--preset", "samgan-8", "--scale", "cpu", *TINY, "--training.learning_rate=0.01"]
    command += ["--start", trained, "--out", tmp_path / "run"]
    assert run(capsys, *command)[0] == 0
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["start"]["images_seen"] == 40
    assert environment["start"]["data"]["sha256"]
    stats = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in stats if line["kind"] == "scores"] == [0, 5, 10]
    begun = [json.loads(line) for line in (trained / "stats.jsonl").read_text().splitlines()]
    last = [line for line in begun if line["kind"] == "scores"][-1]
    first = next(line for line in stats if line["kind"] == "scores")
    assert {**first, "step": 10, "images_seen": 40} == last
    status, _, error = run(capsys, *command[:-1], tmp_path / "wide", "--network.max_channels=16")
    assert status == 2
    assert "the networks of that run have different settings: network.max_channels is 8, not 16" in error
    assert not (tmp_path / "wide").exists()
    # As if it had been killed before its first snapshot, which is all that holds the other run's networks.
    whole = load_model(Run(tmp_path / "run")).sha256
    (tmp_path / "run" / "stats.jsonl").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    status, _, error = run(capsys, "train", data, "--resume", "--out", tmp_path / "run")
    assert status == 2
    assert "name that run with --start" in error
    assert run(capsys, *command, "--resume")[0] == 0
    assert load_model(Run(tmp_path / "run")).sha256 == whole


def test_a_run_can_start_with_the_networks_of_smaller_images(capsys, data, folder, tmp_path):
    larger = prepare(folder / "images", tmp_path / "larger", resolution=64, workers=1).path
    plus = [
        *TINY,
        "--training.keep_checkpoints=9",
        "--network.channel_base=256",
        "--network.latent_dim=8",
        "--network.num_classes=0",
    ]
    for name, place, begun in (("small", data, []), ("large", larger, ["--start", tmp_path / "small"])):
        assert run(capsys, "train", place, *plus, *begun, "--out", tmp_path / name)[0] == 0
    start = Run(tmp_path / "large").environment.start
    assert (start.run, start.images_seen) == ("small", 40)
    assert Run(tmp_path / "large").best().checkpoint != "step-00000000.pt", "enlarged images of the smaller network"
    small, large = (
        load_model(Run(tmp_path / name), str(sorted((tmp_path / name / "checkpoints").glob("*.pt"))[place])).generator
        for name, place in (("small", -1), ("large", 0))
    )
    latents = torch.randn(2, 8)
    torch.testing.assert_close(large(latents)[:4], small(latents), rtol=0, atol=1e-5)
    status, _, error = run(capsys, "train", data, *plus, "--start", tmp_path / "large", "--out", tmp_path / "again")
    assert status == 2
    assert "images of 64 px, which are larger than 32 px" in error
    again = ["--start", tmp_path / "small", "--training.first_sides=[32]", "--out", tmp_path / "again"]
    status, _, error = run(capsys, "train", larger, *plus, *again)
    assert status == 0
    assert "ends before images of 64 px are trained" not in error
    assert "--start brings networks that have begun: training.first_sides [32] is left out" in error
    assert Run(tmp_path / "again").config.training.first_sides == ()
    assert run(capsys, "train", larger, *plus, *again, "--resume")[0] == 0


def test_a_run_that_ends_before_its_largest_images_says_so(capsys, data, tmp_path):
    begin = ["--network.channel_base=256", "--network.num_classes=0", "--training.first_sides=[16]"]
    status, _, error = run(capsys, "train", data, *TINY, *begin, "--training.first_kimg=1", "--out", tmp_path / "run")
    assert status == 0
    assert "training.kimg 0.04 ends before images of 32 px are trained: those of 16 px are enlarged. Train" in error
    assert Run(tmp_path / "run").best() is None


def test_a_discriminator_can_get_pretrained_eyes_later(capsys, data, tmp_path):
    plus = [*TINY, "--network.channel_base=256", "--network.latent_dim=8", "--network.num_classes=0"]
    eyes = ["--network.discriminator_blocks=vision", "--network.vision_features=radiograph"]
    eyes += ["--network.vision_resolution=64", "--network.vision_channels=32"]
    assert run(capsys, "train", data, *plus, "--out", tmp_path / "before")[0] == 0
    begun = ["--start", tmp_path / "before", "--out", tmp_path / "after"]
    assert run(capsys, "train", data, *plus, *eyes, *begun)[0] == 0
    assert Run(tmp_path / "after").config.network.discriminator_blocks == "vision"
    status, _, error = run(capsys, "train", data, *plus, "--start", tmp_path / "after", "--out", tmp_path / "without")
    assert status == 2
    assert "network.discriminator_blocks is 'vision', not 'residual'" in error


def test_a_run_can_start_from_a_model_which_has_no_discriminator(capsys, data, trained, tmp_path):
    model = tmp_path / "begun.safetensors"
    assert run(capsys, "export", trained, model)[0] == 0
    command = ["train", data, "--preset", "samgan-8", "--scale", "cpu", *TINY, "--start", model, "--out"]
    assert run(capsys, *command, tmp_path / "run")[0] == 0
    begun = json.loads((tmp_path / "run" / "environment.json").read_text())["start"]
    assert (begun["run"], begun["images_seen"]) == ("begun", 40)
    assert Run(tmp_path / "run").trained_on == [Run(trained).environment.data.sha256] * 2
    grids = sorted((tmp_path / "run" / "grids").glob("kimg-*.png"))
    last = sorted((trained / "grids").glob("kimg-*.png"))[-1]
    assert grids[0].read_bytes() == last.read_bytes()  # before the first step
    status, _, error = run(capsys, *command, tmp_path / "wide", "--network.max_channels=16")
    assert status == 2
    assert "the networks of that run have different settings: network.max_channels is 8, not 16" in error
    assert run(capsys, *command[:-2], "none", "--out", tmp_path / "none")[0] == 1


@pytest.mark.filterwarnings("always")
def test_a_collapse_is_told_of_once_or_ends_the_run(capsys, data, tmp_path, monkeypatch):
    found = Collapse(step=5, images_seen=20, wall_seconds=1.0, reason="all alike")
    monkeypatch.setattr("samgan.runs.collapse.find_collapse", lambda stats: found if list(stats) else None)
    command = ["train", data, "--preset", "msg-gan-6", "--scale", "cpu", *TINY, "--out"]
    _, document, error = run(capsys, *command, tmp_path / "on")
    assert document["images_seen"] == 40
    assert error.count("collapsed at 0.02 kimg: all alike; training continues") == 1
    _, document, error = run(capsys, *command, tmp_path / "off", "--on-collapse", "stop")
    assert document["images_seen"] == 20
    assert "all alike; stopped" in error
    _, document, error = run(capsys, *command, tmp_path / "ignored", "--on-collapse", "ignore")
    assert document["images_seen"] == 40
    assert "alike" not in error


def test_the_same_command_with_resume_continues_the_run(capsys, data, trained):
    original = ["train", data, "--preset", "samgan-8", "--scale", "cpu", "--out", trained, *TINY]
    status, document, error = run(capsys, *original, "--resume")
    assert status == 0, error
    assert document["images_seen"] == 40
    status, document, error = run(capsys, *original, "--resume", "--config", trained / "config.json")
    assert status == 0, error


def test_a_run_cannot_be_made_shorter_than_it_is(capsys, data, trained):
    before = (trained / "config.json").read_bytes()
    status, _, error = run(capsys, "train", data, "--out", trained, "--resume", "--training.kimg=0.02")
    assert status == 2
    assert "has already trained for 0.04 kimg" in error
    assert (trained / "config.json").read_bytes() == before


def test_a_runs_config_can_start_another_run_whatever_its_label(capsys, cheap, trained, tmp_path):
    document = json.loads((trained / "config.json").read_text()) | {"preset": "mine"}
    (tmp_path / "config.json").write_text(json.dumps(document))
    status, plan, _ = run(capsys, "train", "--dry-run", "--config", tmp_path / "config.json")
    assert status == 0
    assert plan["config"] == document


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("preset: [a]", ["preset", "['a']", "text"]),
        ("scale: 5", ["scale", "5", "text"]),
        ("preset: samgan-9", ["samgan-9", "samgan-8"]),
        ("training: {kimg: 1, kimg: 2}", ["settings.yaml", "kimg", "twice"]),
    ],
)
def test_yaml_that_says_nonsense_is_refused_in_one_line(capsys, tmp_path, text, words):
    (tmp_path / "settings.yaml").write_text(text)
    status, _, error = run(capsys, "train", "--dry-run", "--config", tmp_path / "settings.yaml")
    assert status == 2
    assert error.count("\n") == 1
    assert all(word in error for word in words)


def test_a_set_that_classes_swallowed_is_pointed_out(capsys, data, tmp_path):
    status, _, error = run(capsys, "train", "--classes", "NORMAL", data, "--out", tmp_path / "run")
    assert status == 2
    assert f"--classes took {data} as a class" in error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("could not create a primitive"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_too_little_memory_is_told_in_one_line(capsys, trained, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("samgan.api.open_model", fail)
    status, _, message = run(capsys, "sample", trained, "--out", tmp_path / "samples")
    assert status == 1
    assert "out of memory" in message
    monkeypatch.setattr("samgan.api.open_model", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a defect of ours is not to be hidden
        run(capsys, "sample", trained, "--out", tmp_path / "samples")


def test_what_an_extension_forgot_to_say_is_memory_only_under_a_limit(capsys, trained, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise SystemError("error return without exception set")

    monkeypatch.setattr("samgan.api.open_model", fail)
    with pytest.raises(SystemError):
        run(capsys, "sample", trained, "--out", tmp_path / "samples")
    monkeypatch.setattr("samgan.commands.main._address_space_is_limited", lambda: True)
    status, _, message = run(capsys, "sample", trained, "--out", tmp_path / "samples")
    assert status == 1
    assert "out of memory: raise ulimit -v" in message


def test_resume_with_dry_run_shows_the_runs_configuration_and_trains_nothing(capsys, cheap, data, trained):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    arguments = ["train", data, "--out", trained, "--resume", "--training.kimg=9", "--dry-run"]
    status, plan, _ = run(capsys, *arguments)
    assert status == 0
    assert (plan["config"]["network"]["max_channels"], plan["config"]["training"]["kimg"]) == (8, 9)
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_a_run_never_changes_its_arithmetic(capsys, data, tmp_path, monkeypatch):
    monkeypatch.setattr("samgan.devices.cpu_has_bf16", lambda: False)
    out = tmp_path / "run"
    command = ["train", data, "--preset", "samgan-8", "--scale", "cpu", "--out", out, *TINY]
    status, _, error = run(capsys, *command, "--training.precision=bf16")
    assert status == 0
    assert "this processor cannot compute in bf16 at a useful speed, so the run computes in fp32" in error
    config = json.loads((out / "config.json").read_text())
    assert config["training"]["precision"] == "fp32"
    assert run(capsys, *command, "--training.precision=bf16", "--resume")[0] == 0  # the same command goes on
    with monkeypatch.context() as patch:  # a machine that would choose another one
        patch.setattr("samgan.devices.cpu_has_bf16", lambda: True)
        assert run(capsys, *command, "--training.precision=auto", "--resume")[0] == 0
    assert json.loads((out / "config.json").read_text())["training"]["precision"] == "fp32"
    config["training"]["precision"] = "bf16"  # as if another machine had begun it
    (out / "config.json").write_text(json.dumps(config))
    status, _, error = run(capsys, "train", data, "--out", out, "--resume")
    assert status == 2
    assert "computes in bf16, and this processor cannot compute in bf16 at a useful speed; continue it on one " in error
    assert f"with --start {out}" in error


def test_a_run_that_is_being_trained_is_left_to_its_process(capsys, data, trained):
    with Run.open(trained).locked():
        status, _, error = run(capsys, "train", data, "--out", trained, "--resume")
    assert status == 1
    assert "another process" in error


def test_a_set_whose_images_were_altered_is_not_trained_on(capsys, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    with open(tmp_path / "data" / "images.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    arguments = ["train", tmp_path / "data", "--scale", "cpu", "--out", tmp_path / "run", *TINY]
    status, _, error = run(capsys, *arguments)
    assert status == 1
    assert "prepare it again" in error
    assert not (tmp_path / "run").exists()
    status, _, error = run(capsys, "evaluate", data.parent / "images" / "NORMAL", "--data", tmp_path / "data")
    assert status == 1
    assert "prepare it again" in error


def test_yaml_can_choose_the_row_and_its_scale(capsys, cheap, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("preset: msg-gan-6\nscale: cpu\n")
    status, plan, _ = run(capsys, "train", "--dry-run", "--config", file)
    assert status == 0
    assert plan["config"] == preset_config("msg-gan-6", "cpu").to_dict()
    status, plan, _ = run(capsys, "train", "--dry-run", "--config", file, "--preset", "samgan-8")
    assert plan["config"] == preset_config("samgan-8", "cpu").to_dict()


def test_nothing_named_is_our_own_recipe(capsys, cheap):
    status, plan, _ = run(capsys, "train", "--dry-run")
    assert status == 0
    assert plan["config"] == preset_config("samgan-plus", "cpu").to_dict()


def test_a_row_with_attention_fits_a_smaller_resolution(capsys, cheap):
    status, plan, _ = run(capsys, "train", "--dry-run", "--preset", "samgan-8", "--network.resolution=32")
    assert status == 0
    assert plan["config"]["network"]["generator_attention"] == [4, 8, 16, 32]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--network.resolution=64"], ["(1, 64, 64)", "(1, 32, 32)"]),
        (["--classes", "COVID"], ["COVID", "PNEUMONIA"]),
        (["--processes", "3"], ["training.batch_size 8", "3 processes"]),
        (["--processes", "0"], ["0 processes"]),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_what_does_not_fit_is_refused_before_a_run_folder_is_made(capsys, data, tmp_path, arguments, words, dry):
    arguments = [*arguments, "--dry-run"] if dry else arguments
    status, _, error = run(capsys, "train", data, "--scale", "cpu", "--out", tmp_path / "run", *arguments)
    assert status == 2
    assert error.count("\n") == 1
    assert all(word in error for word in words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", ["samgan-projected", "samgan-vision"])
def test_pretrained_weights_that_are_not_there_are_asked_for_before_a_run_folder_is_made(
    capsys, data, tmp_path, preset
):
    file = tmp_path / "nowhere.pth"
    arguments = ["train", data, "--preset", preset, "--out", tmp_path / "run", f"--network.vision_file={file}"]
    status, _, error = run(capsys, *arguments)
    assert status
    assert error.count("\n") == 1
    assert f"network.vision_features lite0: cannot read {file}: No such file or directory" in error
    assert not (tmp_path / "run").exists()


def test_tensorboard_that_is_not_installed_is_asked_for(capsys, data, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = ["train", data, "--scale", "cpu", "--out", tmp_path / "run", *TINY, "--log", "tensorboard"]
    status, _, error = run(capsys, *arguments)
    assert status == 2
    assert "samgan[tensorboard]" in error
    assert not (tmp_path / "run").exists()


def test_without_the_inception_scores_are_by_the_features_that_come_with_samgan(
    capsys, data, trained, monkeypatch, tmp_path, radiograph
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", _no_network)  # nothing is downloaded that was not asked for
    status, scores, error = run(capsys, "evaluate", trained, "--data", data, "--out", tmp_path / "scores")
    assert status == 0
    assert list(scores["scores"]) == ["frechet", "kid_x1000", "precision", "recall", "density", "coverage", "swd"]
    assert scores["features"] == {"name": "radiograph", "sha256": radiograph, "dim": 256, "at_least": 64}
    (why,) = error.splitlines()
    assert why.startswith("samgan: features: radiograph, which come with samgan; --features inception downloads ")
    assert why.endswith("images of 32 px are enlarged to 64 px, and how they do on such images is not known")
    main(["evaluate", str(trained), "--data", str(data), "--out", str(tmp_path / "scores")])
    table = capsys.readouterr().out
    assert "| Frechet distance, radiograph |" in table
    assert "| recall, radiograph |" in table
    assert "compare these scores only with others by the same features" in table
    assert "Images of 32 px were enlarged to 64 px" in table


def test_without_features_for_colours_scores_are_skipped_and_said_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", _no_network)
    write_phantoms(tmp_path / "images", 24, resolution=32)
    prepared = prepare(tmp_path / "images", tmp_path / "data", resolution=32, channels=3, workers=1)
    command = ["evaluate", tmp_path / "data-as-images.npy", "--data", prepared.path, "--out", tmp_path / "scores"]
    np.save(tmp_path / "data-as-images.npy", prepared.images)
    status, scores, error = run(capsys, *command)
    assert status == 0
    assert list(scores["scores"]) == ["swd"]
    assert {"frechet", "recall"} <= {skipped["score"] for skipped in scores["skipped"]}
    assert "scores that need features are skipped: radiograph features are of grey images" in error
    assert "--features inception downloads the FID Inception" in error
    for name in ("radiograph", "xrv"):
        status, scores, error = run(capsys, *command, "--features", name)
        assert (status, scores) == (2, None)
        assert f"--features {name}: expected grey images, found 3 channels" in error


def test_weights_without_the_name_of_their_network_are_refused(capsys, data, trained, tmp_path):
    arguments = ["evaluate", trained, "--data", data, "--out", tmp_path / "scores", "--features-file", "weights.pth"]
    status, _, error = run(capsys, *arguments)
    assert status == 2
    assert "--features-file weights.pth: name its network with --features (radiograph, inception, lite0, " in error


def test_features_that_were_named_and_cannot_be_had_are_a_failure(capsys, data, trained, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", _no_network)
    for name in ("inception", "swav", "xrv", "rad-dino", "imagenet-inception"):
        arguments = ["evaluate", trained, "--data", data, "--features", name, "--out", tmp_path / "scores"]
        status, scores, error = run(capsys, *arguments)
        assert status == 1
        assert scores is None
        assert "--features-file" in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "scores").exists()


def _no_network(*_, **__):
    raise OSError("no network")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "nowhere", "--data", "nowhere"], ["nowhere"]),
        (["sample", "nowhere", "--out", "x"], ["nowhere", "run folder"]),
        (["train", "nowhere", "--out", "x"], ["nowhere"]),
        (["prepare", "nowhere", "x"], ["nowhere"]),
    ],
)
def test_what_is_not_there_is_named_without_a_traceback(capsys, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, document, error = run(capsys, *arguments)
    assert status in (1, 2)
    assert document is None
    assert error.startswith("samgan: error: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words)
    assert not list(tmp_path.iterdir())


def test_wrong_use_has_status_2():
    for arguments in (["presets", "--nonsense"], ["presets", "--training.kimg=5"], ["train", "--kimg=5"], []):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_settings_are_for_commands_that_say_so(capsys):
    assert [command.name for command in COMMANDS if command.takes_settings] == ["train", "table2", "balance"]
    with pytest.raises(SystemExit):
        main(["sample", "RUN", "--out", "x", "--training.kimg=5"])
    assert "samgan sample takes no settings; these do: train, table2, balance" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=[command.name for command in COMMANDS])
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command.name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert "(default: )" not in text


def test_options_that_repeat_have_one_text(capsys):
    """An option of several commands reads the same everywhere; those whose meaning differs are named."""
    texts = {}
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        for action in parser._actions:
            for option in action.option_strings:
                texts.setdefault(option, set()).add(action.help)
    differ = {option for option, found in texts.items() if len(found) > 1}
    assert differ <= {
        *("--classes", "--count", "--data", "--kimg", "--minutes", "--out", "--preset", "--run", "--scale", "--seed"),
        *("--seeds", "--dry-run", "--format", "--protocol", "--replace"),
    }
    assert len(texts["--features"]) == len(texts["--device"]) == len(texts["--checkpoint"]) == 1


def test_choices_of_options_are_those_of_the_functions():
    parser = argparse.ArgumentParser()
    add_on_collapse(parser)
    assert parser._actions[-1].choices == ON_COLLAPSE


def test_settings_are_listed_and_printed_as_json_schema(capsys):
    status, document, _ = run(capsys, "settings")
    assert (status, document) == (0, json.loads(json.dumps(json_schema())))
    assert main(["settings"]) == 0
    text = capsys.readouterr().out
    for setting in settings():
        assert f"{setting.key} = {json.dumps(setting.default)}\n    {setting.help}\n    {setting.allowed}\n" in text


def test_help_is_quick_and_does_not_import_torch():
    code = (
        "import sys, time; from samgan.commands.main import main\ntry: main(['--help'])\n"
        "finally: print('torch' in sys.modules, time.process_time())"  # of this process, however busy the machine is
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    imported, seconds = result.stdout.splitlines()[-1].split()
    assert imported == "False"
    assert float(seconds) < 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_ends_quietly():
    command = [sys.executable, "-m", "samgan", "presets"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("samgan: error: ")
    assert result.stderr.count("\n") == 1
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


def test_sampling_that_is_terminated_leaves_nothing_behind(trained, tmp_path):
    command = [sys.executable, "-m", "samgan", "sample", str(trained), "--count", "200000", "--out"]
    process = subprocess.Popen([*command, str(tmp_path / "samples")], stderr=subprocess.PIPE, text=True)
    while not any(tmp_path.glob(".samples*/*.png")) and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(1, 129, id="SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_a_run_that_resume_finishes(data, tmp_path, number, status):
    command = [sys.executable, "-m", "samgan", "train", str(data), "--out", str(tmp_path / "run")]
    start = [*command, "--scale", "cpu", *TINY, "--training.kimg=100", "--training.log_every_kimg=0.004"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=environment)
    stats = tmp_path / "run" / "stats.jsonl"
    while not stats.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status, error
    assert "--resume" in error
    assert "Traceback" not in error
    steps = int(max((tmp_path / "run" / "checkpoints").glob("step-*.pt")).stem.split("-")[1])
    assert main([*command[3:], "--resume", f"--training.kimg={(steps + 3) * 4 / 1000}"]) == 0


@pytest.fixture
def no_weights(monkeypatch):
    """Whoever runs the tests has no use for a download of the Inception's weights."""

    def load_features(*_, **__):
        raise FeaturesUnavailable("no weights here")

    monkeypatch.setattr("samgan.metrics.load_features.load_features", load_features)


def test_what_the_terminal_cannot_show_is_escaped(data, folder, no_weights, monkeypatch):
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", written)
    assert main(["evaluate", str(folder / "images" / "NORMAL"), "--data", str(data), "--out", str(folder / "s")]) == 0
    assert b"\\u2193 lower" in written.buffer.getvalue()


def test_an_exported_model_samples_and_is_scored_like_its_run(capsys, trained, data, no_weights, tmp_path):
    model = tmp_path / "model.safetensors"
    status, document, _ = run(capsys, "export", trained, model)
    assert status == 0
    assert document["model"] == str(model)
    for source, name in ((trained, "a"), (model, "b")):
        assert run(capsys, "sample", source, "--count", 3, "--out", tmp_path / name)[0] == 0
    for one in sorted((tmp_path / "a").iterdir()):
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes()
    scores = []
    for source in (trained, model):
        status, found, _ = run(capsys, "evaluate", source, "--data", data, "--count", 8, "--out", tmp_path / "scores")
        assert status == 0
        assert found["generated"].pop("name") == source.name
        scores.append(found)
    assert scores[0] == scores[1]
    for arguments, message in (
        (["export", trained, model], "exists; name a new file"),
        (["export", trained, tmp_path / "model.pt"], "ends in one of .safetensors, .onnx, .pt2"),
        (["export", tmp_path / "a", tmp_path / "other.safetensors"], "not a run folder"),
        (["sample", model, "--checkpoint", "best", "--out", tmp_path / "c"], "is not a run"),
        (["sample", tmp_path / "none.safetensors", "--out", tmp_path / "c"], "No such file"),
    ):
        status, document, error = run(capsys, *arguments)
        assert status in (1, 2)
        assert document is None
        assert message in error
        assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_of_two_processes_one_tells_what_went_wrong(data, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    command = [sys.executable, "-m", "samgan", "train", str(data), "--out", str(tmp_path), "--scale", "cpu", *TINY]
    command += ["--processes", "2", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("not empty") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_two_processes_from_the_command_line_train_what_one_does(data, tmp_path):
    import torch

    results = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        command = [sys.executable, "-m", "samgan", "train", str(data), "--out", str(out), "--scale", "cpu", *TINY]
        command += ["--processes", str(processes), "--device", "cpu", "--training.precision=fp32", "--json"]
        command += ["--training.loss=non-saturating", "--training.penalty=r1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
        assert result.returncode == 0, result.stderr
        checkpoint = Path(json.loads(result.stdout)["checkpoint"])
        weights = torch.load(checkpoint, weights_only=True)["generator"]
        results.append(torch.cat([weights[name].flatten() for name in sorted(weights)]))
    # Where a gradient is next to nothing, rounding decides which way Adam goes: weights are compared as a whole (ten
    # steps of 0.004 move them by some percent), and not under a relativistic loss, where that is so for the last biases
    # of the discriminator in every step. Step by step that one is compared in test_distributed.
    alone, together = results
    assert (together - alone).norm() < 1e-3 * alone.norm()


def test_names_of_files_and_classes_cannot_control_the_terminal(tmp_path, capsys):
    file = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for number, name in enumerate(
            ("\x1b[31mA/1.png", "\x1b[31mA/\x1b[2J2.png", "B/3.png", "B/4.png", "\x1b]0;5.png")
        ):
            file.seek(0)
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32), np.uint8)).save(file, "PNG")
            archive.writestr(name, file.getvalue() if number != 1 else b"no image")
    words = ["prepare", str(tmp_path / "set.zip"), str(tmp_path / "out"), "--resolution", "32", "--workers", "1"]
    assert main(words) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert r"\x1b[2J2.png: text, not an image" in error
    assert main([*words, "--max-bad", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert all(line.isprintable() for line in [error, *printed.splitlines()])
    assert r"note: the folder \x1b[31mA becomes the class %1B[31mA" in printed
    assert r"left out: \x1b]0;5.png: lies beside the folders" in printed


def test_a_stop_is_not_called_an_error(monkeypatch, capsys):
    def stopped(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("samgan.commands.main._parse", stopped)
    assert main(["presets"]) == 130
    assert capsys.readouterr().err == "samgan: interrupted\n"


def test_a_missing_set_is_called_missing(capsys, tmp_path):
    assert main(["inspect", str(tmp_path / "xrays-64")]) == 1
    assert "no such folder: samgan prepare XRAYS" in capsys.readouterr().err
