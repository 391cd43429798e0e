"""Cards say what the record says, mark the rest as open, and keep folders and markup of others out."""

import dataclasses
import json
from dataclasses import replace

import pytest
import torch

from samgan.commands.main import main
from samgan.data import prepare
from samgan.data.phantom import write_phantoms
from samgan.data.subset import subset
from samgan.networks import Generator
from samgan.runs import Run, TrainedOn, describe_environment, save_checkpoint
from samgan.sampling import check_origin, load_model, read_model, write_model
from samgan.trust import CHECKLISTS, CLAIM, OPEN, Record, cards, escape, format_card, read_record


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 12, resolution=32)
    return prepare(folder / "images", folder / "data", resolution=32, holdout=0.3, workers=1)


@pytest.fixture(scope="module")
def run(data, tiny_config, tmp_path_factory):
    config = tiny_config.override({"preset": "tiny", "data.classes": ["NORMAL"]})
    command = ["samgan", "train", "/secret/folder/data", "--out", "/secret/run"]
    command += ["--config=/secret/settings.yaml", "--run", "NORMAL=/secret/other"]
    environment = replace(describe_environment("cpu", TrainedOn("data", data.sha256, 9)), command=tuple(command))
    run = Run.create(tmp_path_factory.mktemp("cards") / "run", config, environment)
    torch.manual_seed(0)
    weights = Generator(config.network).state_dict()
    state = {"config": config.to_dict(), "step": 3, "images_seen": 12_000}
    save_checkpoint(run.checkpoint_path(3), {**state, "generator": weights, "ema_generator": weights})
    return run


def scores(run):
    one = {"value": 0.123, "floor": 0.031}
    pairs = {"low": 0.5, "high": 0.6, "standard_error": 0.01, "pairs": 9}
    return {
        **{name: one for name in ("frechet", "precision", "recall", "coverage")},
        "protocol": "standard", "resolution": 32, "seed": 0, "counts": {"real": 80, "fake": 40}, "mode_collapse": None,
        "ms_ssim_real": {"mean": 0.55, **pairs}, "ms_ssim_generated": {"mean": 0.58, **pairs}, "count": 40,
        "data": {"name": "data", "sha256": "ab" * 32, "split": "train"},
        "features": {"name": "net", "sha256": "cd" * 32, "dim": 8},
        "generated": {"name": "run", "model_sha256": load_model(run).sha256},
    }  # fmt: skip


def sections(card):
    return {part.partition("\n")[0]: part for part in card.split("\n## ")}


def test_a_model_card_says_what_the_record_says(run, data, tmp_path, capsys):
    (run.path / "scores.json").write_text(json.dumps(scores(run)))
    (run.path / "audit.json").write_text(json.dumps({"verdict": "No sign of memorisation: a | b.", "generated": {}}))
    out = tmp_path / "card.md"
    command = ["card", str(run.path), "--data", str(data.path), "--out", str(out), "--json"]
    assert main([*command, "--attribution", "Phantoms, drawn here", "--licence", "cc-by-4.0"]) == 0
    card = out.read_text()
    assert json.loads(capsys.readouterr().out) == {"card": str(out), "open": card.count(OPEN)}
    for words in (
        'license: "cc-by-4.0"',
        load_model(run).sha256,
        "12 thousand images shown",
        "Frechet 0.123 (real 0.031)",
        "No sign of memorisation: a \\| b.",
        "samgan train data --out run --config=settings.yaml --run NORMAL=other",
        f"| NORMAL | {data.info.counts['NORMAL']['train']} | {data.info.counts['NORMAL']['holdout']} | - |",
        "Phantoms, drawn here",
        "Research only",
    ):
        assert words in card, words
    assert "secret" not in card
    assert "| PNEUMONIA |" not in card  # it was trained on the other class alone
    assert "not measured" in sections(card)["Whether the images help"]  # no utility.json was there


@pytest.mark.parametrize("name", CHECKLISTS)
def test_every_item_is_there_answered_or_open(run, data, name):
    items, _ = CHECKLISTS[name]
    record = read_record(run.path, data, {})
    part = sections(format_card(record))[name]
    rows = [line for line in part.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(items)
    answered = sum(not row.endswith(f"| {OPEN} |") for row in rows)
    assert f"{answered} of {len(items)} answered from the record, {len(items) - answered} left to you" in part
    assert 0 < answered < len(items)
    for item, row in zip(items, rows, strict=True):
        assert row.startswith(f"| {item.number} | {item.asks} |")
        if item.answer is None:
            assert row.endswith(f"| {OPEN} |")


def test_claim_has_its_44_items():
    assert [item.number for item in CLAIM] == [str(number) for number in range(1, 45)]


def test_nothing_is_answered_without_a_record_of_it():
    """An empty record leaves all open but what samgan says of itself."""
    of_itself = {"40"}
    assert {item.number for item in CLAIM if item.answer and item.answer(Record())} == of_itself


def test_a_data_card_of_a_prepared_set(data, tmp_path, capsys):
    few = subset(data, tmp_path / "few", images={"NORMAL": 4})
    assert main(["card", str(few.path)]) == 0
    assert "left for you to fill in" in capsys.readouterr().out
    card = (few.path / "DATA_CARD.md").read_text()
    assert "# Data card: Radiographs, 32 px" in card
    assert "part of data: NORMAL 4, seed 0" in card
    assert "NORMAL: 4 train" in card
    assert "synthetic" not in card.partition("---\n\n")[0].split("tags:")[1]


def test_what_was_left_out_and_how_patients_were_split_is_told_as_it_is(tmp_path):
    left_out = {"exact_duplicates": [{}], "bad_files": [], "ignored_by_suffix": {".txt": 500, ".csv": 2}}
    assert cards._exclusions(Record(data={"left_out": left_out})).endswith(
        "0 unreadable files, 502 files that are no images"
    )
    own = {"split_by": "source", "options": {"holdout": 0.2}, "counts": {}}
    assert "at random" not in cards._partitions(Record(data=own))
    assert "at random, 0.2 held out" in cards._partitions(Record(data={**own, "split_by": "image"}))


def test_the_weights_are_averaged_where_they_were(tiny_config):
    for halflife, words in ((10.0, "averaged weights (EMA) after 4"), (0.0, "weights after 4")):
        config = tiny_config.override({"training.ema_halflife_kimg": halflife})
        assert cards._selection(Record(config=config, images_seen=4000)).startswith(words)


def test_a_card_tells_whether_held_out_images_chose_the_checkpoint(run, data, tmp_path):
    model = load_model(run)
    for which, words in (("newest", "whatever their scores"), ("best", "against held-out"), ("", "for you to tell")):
        path = tmp_path / f"model{which}.safetensors"
        write_model(dataclasses.replace(model, checkpoint=which), path)
        record = read_record(path, data, {})
        assert words in cards._selection(record)
        notes = check_origin(read_model(path), path, data)
        assert bool(notes) == (which == "best")
    assert load_model(run, str(run.checkpoints()[0])).checkpoint == "named"


def test_the_card_of_an_exported_fine_tuned_model_claims_no_random_start(run, data, tmp_path):
    tuned = dataclasses.replace(load_model(run), trained_on=(data.sha256, "ab" * 32))
    write_model(tuned, tmp_path / "tuned.safetensors")
    record = read_record(tmp_path / "tuned.safetensors", data, {})
    assert "networks of another run, trained on a prepared set of sha256 abababababab" in cards._initial(record)
    assert "random" in cards._initial(read_record(run.path, data, {}))


def test_the_card_of_a_set_with_synthetic_images_tells_of_the_model_as_well(run, data):
    record = dataclasses.replace(read_record(run.path, data, {}), synthetic={"NORMAL": 5})
    card = format_card(record)
    assert "# Data card: Real and synthetic radiographs, 32 px" in card
    assert "samgan preset tiny" in card
    assert "| PNEUMONIA |" in card  # the model saw none of it, the set has it


def test_the_card_of_a_file_knows_less_than_that_of_the_run(run, data, tmp_path):
    assert main(["export", str(run.path), str(tmp_path / "model.safetensors")]) == 0
    of_file = read_record(tmp_path / "model.safetensors", data, {})
    of_run = read_record(run.path, data, {})
    assert (of_file.model_sha256, of_file.images_seen) == (of_run.model_sha256, of_run.images_seen)
    assert not of_file.environment
    assert format_card(of_file).count(OPEN) > format_card(of_run).count(OPEN)


@pytest.mark.parametrize("words", ["a | b", "<script>", "[a](b)", "**bold**", "`x`", "# a\n\n# b", "![i](u)", "a_b_c"])
def test_text_of_others_is_no_markup(words):
    escaped = escape(words)
    assert "\n" not in escaped
    bare = escaped.replace("\\\\", "")
    assert all(bare[place - 1] == "\\" for place, letter in enumerate(bare) if letter in "|<>[]*`#!_")


def test_records_of_another_model_or_set_are_refused(run, data, tmp_path, capsys):
    other = subset(data, tmp_path / "other", images={"NORMAL": 4})
    assert main(["card", str(run.path), "--data", str(other.path)]) == 2
    assert "trained on other data" in capsys.readouterr().err
    wrong = {**scores(run), "generated": {"model_sha256": "0" * 64}}
    (tmp_path / "scores.json").write_text(json.dumps(wrong))
    assert main(["card", str(run.path), "--scores", str(tmp_path / "scores.json")]) == 2
    assert "is of another model" in capsys.readouterr().err
    utility = {"decisions": {"auc": {}}, "verdict": "helps", "held_out": {"patients": 9}}
    for document, words in (
        ({**utility, "data": {"sha256": other.sha256}}, "is of another prepared set"),
        ({**utility, "models": {"NORMAL": "0" * 64}}, "is of another model"),
    ):
        (tmp_path / "utility.json").write_text(json.dumps(document))
        assert main(["card", str(run.path), "--utility", str(tmp_path / "utility.json")]) == 2
        assert words in capsys.readouterr().err
    for name, document in (("scores", []), ("scores", {"verdict": ""}), ("audit", {}), ("utility", scores(run))):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        assert main(["card", str(run.path), f"--{name}", str(tmp_path / f"{name}.json")]) == 1
        assert f"{name}.json cannot be read" in capsys.readouterr().err
    assert main(["card", str(tmp_path)]) == 2
    assert "expected a run folder" in capsys.readouterr().err


def test_a_utility_test_is_told_with_its_interval():
    decision = {"mean": 0.01, "low": -0.02, "high": 0.04, "chosen": [{"classical": "a"}, {"classical": "b"}]}
    utility = {"decisions": {"auc": decision}, "verdict": "no difference shown"}
    record = Record(utility={**utility, "held_out": {"patients": 9}})
    differences = [{"arm": arm, "against": other} for arm in ("a", "b") for other in ("real", "oversampling")]
    assert cards._baselines(Record(utility={"differences": differences})) == "real, oversampling"
    assert "no difference shown; AUC +0.0100 [-0.0200, +0.0400] against 'a' and 'b', 9" in cards._utility_words(record)
