"""Cards say what the record says, mark the rest as open, and hold no folder names and no markup from outside."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from samgan.commands.main import main
from samgan.data import prepare
from samgan.data.documents import Duplicate, LeftOut
from samgan.data.options import PrepareOptions
from samgan.data.phantom import write_phantoms
from samgan.data.subset import subset
from samgan.networks import Generator
from samgan.runs import Run, TrainedOn, describe_environment, save_checkpoint
from samgan.sampling import Model, Origin, check_origin, load_model, read_model, write_model
from samgan.scoring import FeaturesUsed, MeanOfPairs, Scored, Scores
from samgan.scoring.documents import Counts
from samgan.trust import CHECKLISTS, CLAIM, OPEN, AuditDocument, Record, answers, escape, format_card, read_record
from samgan.trust.card_form import CardForm
from samgan.trust.documents import SkippedPart
from samgan.trust.sign_off import SignOff, add_sign_off, hash_audit
from samgan.trust.utility_document import UtilityDocument

RESULTS = Path(__file__).parents[1] / "results"


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


BALANCE = json.loads((RESULTS / "balance" / "as-it-is" / "balance.json").read_text())
AUDIT = AuditDocument.from_dict(BALANCE["audit"]["NORMAL"], "an audit")


def scores(run, data):
    mean = MeanOfPairs(mean=0.55, low=0.5, high=0.6, standard_error=0.01, pairs=40)
    return Scores(
        protocol="standard",
        resolution=32,
        seed=0,
        count=40,
        counts=Counts(80, 40),
        features=FeaturesUsed("net", "cd" * 32, 8),
        ms_ssim_real=mean,
        ms_ssim_generated=replace(mean, mean=0.58),
        mode_collapse=None,
        scores={name: Scored(0.123, 0.031) for name in ("frechet", "precision", "recall", "coverage")},
        generated=Origin("run", model_sha256=load_model(run).sha256),
        data=data.used(split="train"),
    )


def audit(run, data):
    generated = Origin("run", model_sha256=load_model(run).sha256)
    return replace(AUDIT, verdict="No sign of memorisation: a | b.", generated=generated, data=data.used())


def utility(run, data):
    used = data.used()
    return {
        **BALANCE["utility"],
        "models": {"NORMAL": load_model(run).sha256},
        "data": {"name": used.name, "sha256": used.sha256},
    }


def sections(card):
    return {part.partition("\n")[0]: part for part in card.split("\n## ")}


def test_a_model_card_says_what_the_record_says(run, data, tmp_path, capsys):
    scores(run, data).write(run.path / "scores.json")
    audit(run, data).write(run.path / "audit.json")
    out = tmp_path / "card.md"
    command = ["card", str(run.path), "--data", str(data.path), "--out", str(out), "--json"]
    assert main([*command, "--attribution", "Phantoms, drawn here", "--licence", "cc-by-4.0"]) == 0
    card = out.read_text()
    assert json.loads(capsys.readouterr().out) == {"card": str(out), "open": card.count(OPEN)}
    for words in (
        'license: "cc-by-4.0"',
        load_model(run).sha256,
        "12 thousand images shown",
        "Frechet distance, net 0.123 (real 0.031)",
        "No sign of memorisation: a \\| b.",
        "samgan train data --out run --config=settings.yaml --run NORMAL=other",
        f"| NORMAL | {data.info.counts['NORMAL']['train']} | {data.info.counts['NORMAL']['holdout']} | - |",
        "Phantoms, drawn here",
        "For research only",
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


def test_what_was_left_out_and_how_patients_were_split_is_on_the_card(data):
    left_out = LeftOut((Duplicate("a", "b"),), (), {".txt": 500, ".csv": 2})
    info = replace(data.info, left_out=left_out, options=PrepareOptions(holdout=0.2))
    assert answers.exclusions(Record(data=info)) == (
        "1 exact duplicates, 0 unreadable files, 502 files that are not images"
    )
    assert "at random" not in answers.partitions(Record(data=replace(info, split_by="source")))
    assert "at random, 0.2 held out" in answers.partitions(Record(data=replace(info, split_by="image")))


def test_the_card_says_whether_the_weights_are_averaged(tiny_config):
    for halflife, words in ((10.0, "averaged weights (EMA) after 4"), (0.0, "weights after 4")):
        config = tiny_config.override({"training.ema_halflife_kimg": halflife})
        model = Model(Generator(config.network), config, 4000, "ab" * 32)
        assert answers.selection(Record(model=model)).startswith(words)


def test_a_card_tells_whether_held_out_images_chose_the_checkpoint(run, data, tmp_path):
    model = load_model(run)
    for which, words in (
        ("newest", "whatever their scores"),
        ("best", "compare with held-out"),
        ("", "this is not recorded"),
    ):
        path = tmp_path / f"model{which}.safetensors"
        write_model(dataclasses.replace(model, checkpoint=which), path)
        record = read_record(path, data, {})
        assert words in answers.selection(record)
        notes = check_origin(read_model(path), path, data)
        assert bool(notes) == (which == "best")
    assert load_model(run, str(run.checkpoints()[0])).checkpoint == "named"


def test_the_card_of_an_exported_fine_tuned_model_claims_no_random_start(run, data, tmp_path):
    tuned = dataclasses.replace(load_model(run), trained_on=(data.sha256, "ab" * 32))
    write_model(tuned, tmp_path / "tuned.safetensors")
    record = read_record(tmp_path / "tuned.safetensors", data, {})
    assert "the networks of another run, trained on a prepared set with sha256 abababababab" in answers.initial_weights(
        record
    )
    assert "random" in answers.initial_weights(read_record(run.path, data, {}))


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
    assert (of_file.model.sha256, of_file.model.images_seen) == (of_run.model.sha256, of_run.model.images_seen)
    assert of_file.environment is None
    assert format_card(of_file).count(OPEN) > format_card(of_run).count(OPEN)


def test_a_card_says_what_the_audit_could_not_see_and_which_images_it_is_of(run, data):
    found = replace(audit(run, data), notes=("Only 9 images are held out.",))
    found = replace(found, skipped=(SkippedPart("nearest images by features", "none in /secret/cache"),))
    card = format_card(replace(read_record(run.path, data, {}), audits={"": found}))
    part = sections(card)["Memorisation"]
    assert "b. Only 9 images are held out. Left out of the audit: nearest images by features." in part
    assert "secret" not in card
    assert "whose model" not in part
    of_images = replace(found, generated=Origin("x.npy"))
    for name, start in (("", "Of the images x.npy"), ("NORMAL", "NORMAL, of the images x.npy")):
        words = answers.memorisation(Record(audits={name: of_images}))
        assert words.startswith(f"{start}, whose model is not recorded: No sign of memorisation")


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
    elsewhere = {"sha256": other.sha256, "name": "other"}
    of_run = {"scores": scores(run, data).to_dict(), "audit": audit(run, data).to_dict(), "utility": utility(run, data)}
    for name, change, words in (
        ("scores", {"generated": {"name": "x", "model_sha256": "0" * 64}}, "is about another model"),
        ("audit", {"generated": {"name": "x", "model_sha256": "0" * 64}}, "is about another model"),
        ("utility", {"models": {"NORMAL": "0" * 64}}, "is about another model"),
        ("audit", {"data": elsewhere}, "is about another prepared set"),
        ("utility", {"data": elsewhere}, "is about another prepared set"),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(of_run[name]))
        assert main(["card", str(run.path), f"--{name}", str(path), "--out", str(tmp_path / "card.md")]) == 0
        path.write_text(json.dumps({**of_run[name], **change}))
        capsys.readouterr()
        assert main(["card", str(run.path), f"--{name}", str(path)]) == 2
        assert words in capsys.readouterr().err
    of_hospital = replace(scores(run, data), data=replace(data.used(), sha256=other.sha256))
    of_hospital.write(tmp_path / "scores.json")
    assert main(["card", str(run.path), "--scores", str(tmp_path / "scores.json")]) == 0
    capsys.readouterr()
    assert main(["card", str(tmp_path)]) == 2
    assert "expected a run folder" in capsys.readouterr().err


def test_a_utility_test_is_on_the_card_with_its_interval(run, data):
    record = Record(utility=UtilityDocument.from_dict(utility(run, data), "utility.json"))
    assert answers.baselines(record) == "real, class weights, oversampling, augmentation, augmentation, oversampling"
    words = answers.utility(record)
    decision = BALANCE["utility"]["decisions"]["auc"]
    assert f"{BALANCE['utility']['verdict']}; AUC {decision['mean']:+.4f} [{decision['low']:+.4f}, " in words
    assert f"{BALANCE['utility']['held_out']['patients']} held-out patients" in words


def test_a_sign_off_is_on_the_card_of_the_audit_that_was_signed(run, data, tmp_path, capsys):
    audit(run, data).write(tmp_path / "audit.json")
    documents = {"audit": tmp_path / "audit.json"}
    assert "Sign-off of the audit" not in format_card(read_record(run.path, data, documents))
    own = hash_audit(tmp_path / "audit.json")
    first = SignOff("Dr. <b>A|B</b>", "2026-01-31", "not accepted", "Pair 3\n# is close.", own)
    for sign_off in (first, replace(first, name="C", decision="accepted", remark="")):
        add_sign_off(tmp_path, sign_off)
    part = sections(format_card(read_record(run.path, data, documents)))["Sign-off of the audit"]
    assert "2026-01-31: not accepted (Pair 3 # is close.)" in part.replace("\\#", "#")
    assert f"C, 2026-01-31: accepted; audit.json with SHA-256 {own[:16]}." in part
    assert "<b>" not in part

    replace(audit(run, data), seed=9).write(tmp_path / "audit.json")  # made again: nobody has signed this one
    part = sections(format_card(read_record(run.path, data, documents)))["Sign-off of the audit"]
    assert "Decisions on earlier audits, which do not count here: 2." in part
    assert "accepted" not in part
    (tmp_path / "audit-sign-offs.json").write_text("{", "utf-8")
    command = ["card", str(run.path), "--data", str(data.path), "--out", str(tmp_path / "card.md")]
    assert main([*command, "--audit", str(tmp_path / "audit.json")]) == 1
    assert "audit-sign-offs.json is not valid JSON" in capsys.readouterr().err


def test_what_a_person_adds_is_on_the_card_that_is_written_again(run, data, tmp_path, capsys):
    out = tmp_path / "card.md"
    command = ["card", str(run.path), "--data", str(data.path), "--out", str(out)]
    assert main(command) == 0
    before = CardForm.read(tmp_path / "card.json")
    assert before.left == len(before.items) == out.read_text().count(OPEN)
    assert len({item.key for item in before.items}) == len(before.items)
    written = {item.key: f"answer | {number}" for number, item in enumerate(before.items)}
    replace(before.answered(written), unused={"CLAIM: of another version": "kept"}).write(tmp_path / "card.json")
    assert main(command) == 0
    after, card = CardForm.read(tmp_path / "card.json"), out.read_text()
    assert OPEN not in card
    assert all(f"answer \\| {number}" in card for number in range(1, len(before.items)))
    assert 'license: "answer | 0"' in card
    assert "by a person, 0 left to you" in card
    assert after.left == 0
    assert after.answers == written | {"CLAIM: of another version": "kept"}
    capsys.readouterr()


def test_a_card_that_was_edited_by_hand_is_not_replaced_unasked(run, data, tmp_path, capsys):
    command = ["card", str(run.path), "--out", str(tmp_path / "card.md")]
    assert main(command) == 0
    (tmp_path / "card.md").write_text("mine")
    assert main(command) == 1
    assert "was edited by hand" in capsys.readouterr().err
    assert (tmp_path / "card.md").read_text() == "mine"
    assert main([*command, "--replace"]) == 0
    assert "mine" not in (tmp_path / "card.md").read_text()[:100]
