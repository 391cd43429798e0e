"""Scores, audits, balanced sets, tables, cards and the form to prepare: what the documents say is what pages show."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the studio is not installed: pip install 'samgan[studio]'")
pytest.importorskip("httpx", reason="starlette's client for tests needs httpx")

from PIL import Image
from studio import AUDIT, BALANCE, NAME, ORIGIN, RUN, SCORES, make_client, make_run, write_audit, write_documents

from samgan.commands.main import _parse
from samgan.commands.settings import configuration, given_settings
from samgan.config import Config
from samgan.data import PreparedSet, prepare
from samgan.data.options import PrepareOptions
from samgan.errors import SamganError
from samgan.locks import lock
from samgan.metrics import weights_here
from samgan.metrics.weights_here import INCEPTION_FILE
from samgan.scoring import Scores
from samgan.studies import advise, short_advice
from samgan.studio import prepare_form, processes
from samgan.studio.balance import words_to_continue
from samgan.studio.places import Outside, Root
from samgan.trust import AuditDocument
from samgan.trust.card_form import CardForm
from samgan.trust.sign_off import SignOffs


@pytest.fixture(scope="module")
def built(tmp_path_factory, twelve_phantoms, tiny_config):
    """A root with a set, a run, and a document of every kind; not to be changed."""
    root = tmp_path_factory.mktemp("pages")
    data = prepare(twelve_phantoms, root / "set", resolution=32, workers=1)
    for place in (RUN, "runs/second"):
        make_run(root / place, tiny_config, sha256=data.sha256, checkpoint=5)
    write_documents(root, data)
    return root


@pytest.fixture
def root(built, tmp_path):
    shutil.copytree(built, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def started(monkeypatch):
    """Commands that would have been started."""
    commands = []
    monkeypatch.setattr(processes, "start", lambda root, place, words: commands.append((place, list(words))))
    return commands


def words(answer):
    """The text of a page, as it is read."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text.partition("<main")[2]))


PAGES = {
    "/scores": {},
    "/scores?one": {"at": RUN},
    "/scores/compare": {"of": [f"{RUN}/scores.json", "runs/second/scores.json"]},
    "/audit": {},
    "/audit?one": {"at": RUN},
    "/balance": {},
    "/balance?one": {"at": "balanced"},
    "/balance/now": {"at": "balanced"},
    "/table2": {},
    "/table2?one": {"at": "sweep"},
    "/card": {},
    "/card?one": {"at": RUN},
    "/card?set": {"at": "set"},
    "/prepare": {},
    "/train": {},
    "/train/together": {"run": [RUN, "runs/second"]},
}


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_one_heading_names_its_fields_and_changes_nothing_when_read_only(built, page):
    path, asked = page.partition("?")[0], PAGES[page]
    answer = make_client(built).get(path, params=asked)
    assert answer.status_code == 200
    assert answer.text.count("<h1>") == (0 if path == "/balance/now" else 1)
    named = set(re.findall(r'<label for="([^"]+)"', answer.text))
    fields = re.findall(r"<(?:input|select|textarea)(?! type=\"(?:hidden|checkbox)\")[^>]*>", answer.text)
    assert {re.search(r'\bid="([^"]+)"', field)[1] for field in fields} <= named
    boxes = re.findall(r'<input type="checkbox"[^>]*>', answer.text)
    assert all("aria-label=" in box or 'name="replace"' in box for box in boxes)
    assert "style=" not in answer.text
    closed = make_client(built, read_only=True).get(path, params=asked)
    assert closed.status_code == 200
    assert 'method="post"' not in closed.text


def test_scores_stand_beside_their_floor_in_words_and_by_class(built):
    client = make_client(built)
    text = words(client.get("/scores", params={"at": RUN}))
    frechet = SCORES.scores["frechet"]
    assert f"{frechet.value:.3f} {frechet.floor:.3f}" in text
    assert SCORES.mode_collapse.verdict in text
    assert f"{SCORES.count} images per set" in text
    listed = words(client.get("/scores"))
    assert f"{RUN} {SCORES.count}" in listed
    assert f"(floor {frechet.floor:.3f})" in listed


def test_scores_that_were_taken_in_another_way_are_not_compared(root):
    client = make_client(root)
    both = {"of": [f"{RUN}/scores.json", "runs/second/scores.json"]}
    same = words(client.get("/scores/compare", params=both))
    assert "must not be compared" not in same
    assert f"runs/second {RUN}" not in same  # in the order that was asked for
    dataclasses.replace(SCORES, count=SCORES.count + 1).write(root / "runs/second/scores.json")
    other = words(client.get("/scores/compare", params=both))
    assert f"must not be compared, because they were not taken in the same way: images a set: {SCORES.count}" in other


def test_evaluate_starts_what_the_form_says(root, started):
    form = {"run": RUN, "set": "set", "protocol": "paper", "split": "holdout", "count": "50", "features": "radiograph"}
    answer = make_client(root).post("/scores/evaluate", data=form, headers=ORIGIN)
    assert answer.headers["location"] == "/scores?at=runs%2Ffirst&file=scores-paper.json"
    ((_, command),) = started
    assert command == [
        "evaluate", str(root / RUN), f"--data={root / 'set'}", "--protocol=paper", "--split=holdout", "--count=50",
        "--features=radiograph",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/scores/evaluate", {"run": "nothing"}), ("/scores/evaluate", {"set": "../set"}),
        ("/scores/evaluate", {"protocol": "--out=x"}), ("/scores/evaluate", {"count": "-1"}),
        ("/audit/start", {"run": ".hidden"}), ("/audit/start", {"features": "my.pt"}),
        ("/balance/begin", {"name": "../out"}), ("/balance/begin", {"name": "runs"}),
        ("/balance/begin", {"target": "--device=cuda"}), ("/balance/begin", {"method": "magic"}),
        ("/balance/advise", {"set": "../set"}), ("/balance/advise", {"target": "--device=cuda"}),
        ("/prepare", {"source": "/etc"}), ("/prepare", {"source": "nothing"}), ("/prepare", {"name": "set"}),
        ("/prepare", {"resolution": "65"}), ("/prepare", {"labels": "../labels.csv"}),
        ("/prepare", {"holdout": "half"}), ("/prepare", {"holdout": "nan"}),
    ],
)  # fmt: skip
def test_a_wrong_form_is_refused_in_words_and_starts_nothing(root, started, path, form):
    right = {"run": RUN, "set": "set", "name": "new", "source": "runs"}
    answer = make_client(root).post(path, data=right | form, headers=ORIGIN)
    assert answer.status_code in (400, 409)
    assert re.search(r'<p class="outcome bad" role="alert">[^<]{10,}</p>', answer.text.partition("<form")[0])
    assert started == []


def test_pairs_are_shown_under_a_banner_the_closest_first(built):
    client = make_client(built)
    page = client.get("/audit", params={"at": RUN})
    text = words(page)
    assert "Pictures of patients are shown here" in text
    assert "Counts as close. Closer than 99.5 % of held-out images (distance 0.0100)" in text
    assert text.index("99.5 %") < text.index("90.0 %")
    sources = [found.replace("&amp;", "&") for found in re.findall(r'src="(/audit/pair.png[^"]+)"', page.text)]
    assert len(sources) == 6
    pictures = [client.get(source) for source in sources]
    assert all(picture.headers["cache-control"] == "no-store" for picture in pictures)
    with Image.open(io.BytesIO(pictures[0].content)) as opened:
        pixels = np.asarray(opened)
        assert opened.text["Description"] == "A SYNTHETIC image (left) beside a REAL training image (right)."
    data = PreparedSet.open(built / "set")
    assert (pixels[:, :32] == 80).all()  # place 7 is the second of the file
    assert (pixels[:, 33:] == data.images[0, 0, :, ::-1]).all()  # mirrored for the comparison
    with Image.open(io.BytesIO(pictures[2].content)) as opened:
        assert (np.asarray(opened)[:, :32] == data.images[2, 0]).all()
        assert "REAL held-out" in opened.text["Description"]


@pytest.mark.parametrize("damage", ["missing", "half", "another"])
def test_a_damaged_picture_of_an_audit_is_told(root, damage):
    path = root / RUN / "audit.png"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "half" else content + b"x")
    answer = make_client(root).get("/audit/pair.png", params={"at": RUN, "by": "pixels", "kind": "synthetic", "n": "0"})
    assert answer.status_code == 409
    assert "audit.png is missing or damaged" in words(answer)


def test_an_audit_without_its_set_or_pictures_lists_its_pairs(root):
    client = make_client(root)
    shutil.rmtree(root / "set")
    page = client.get("/audit", params={"at": RUN})
    assert "is not in the folder of this studio, so the pairs are listed without pictures" in words(page)
    assert "training image: row 1 of the manifest" in words(page)
    assert "pair.png" not in page.text
    assert "Pictures of patients" not in words(page)


SIGNED = {"at": RUN, "name": "Dr. <b>Ä</b>", "date": "2026-01-31", "decision": "accepted", "remark": "Looked at all."}


def test_a_sign_off_is_recorded_and_a_changed_audit_makes_it_an_earlier_one(root):
    client = make_client(root)
    own = hashlib.sha256((root / RUN / "audit.json").read_bytes()).hexdigest()
    assert f'value="{own}"' in client.get("/audit", params={"at": RUN}).text
    answer = client.post("/audit/sign", data=SIGNED | {"audit": own}, headers=ORIGIN)
    assert answer.headers["location"] == "/audit?at=runs%2Ffirst#signed"
    (sign_off,) = SignOffs.read(root / RUN / "audit-sign-offs.json").sign_offs
    assert dataclasses.asdict(sign_off) == {
        "name": SIGNED["name"], "date": "2026-01-31", "decision": "accepted", "remark": "Looked at all.",
        "audit_sha256": own,
    }  # fmt: skip
    page = client.get("/audit", params={"at": RUN})
    assert "for an earlier audit" not in words(page)
    assert "<b>" not in page.text
    assert "accepted, Dr." in words(client.get("/audit"))
    write_audit(root / RUN, PreparedSet.open(root / "set"), dataclasses.replace(AUDIT, seed=AUDIT.seed + 1))
    assert "for an earlier audit" in words(client.get("/audit", params={"at": RUN}))
    late = client.post("/audit/sign", data=SIGNED | {"audit": own}, headers=ORIGIN)
    assert late.status_code == 409
    assert "The audit was made again since you opened this page" in words(late)
    new = hashlib.sha256((root / RUN / "audit.json").read_bytes()).hexdigest()
    client.post("/audit/sign", data=SIGNED | {"audit": new, "decision": "not accepted"}, headers=ORIGIN)
    found = SignOffs.read(root / RUN / "audit-sign-offs.json").sign_offs
    assert [each.decision for each in found] == ["accepted", "not accepted"]


@pytest.mark.parametrize(
    "wrong",
    [{"name": " "}, {"date": "yesterday"}, {"date": "2999-01-01"}, {"decision": "maybe"}, {"remark": "x" * 5000}],
)
def test_a_wrong_sign_off_is_refused_and_comes_back(root, wrong):
    own = hashlib.sha256((root / RUN / "audit.json").read_bytes()).hexdigest()
    answer = make_client(root).post("/audit/sign", data=SIGNED | {"audit": own} | wrong, headers=ORIGIN)
    assert answer.status_code == 409
    assert re.search(r'<p class="outcome bad" role="alert">[^<]{10,}</p>', answer.text)
    assert not (root / RUN / "audit-sign-offs.json").exists()


def test_damaged_sign_offs_are_told_and_never_written_over(root):
    path = root / RUN / "audit-sign-offs.json"
    path.write_text("{", "utf-8")
    client = make_client(root)
    assert "audit-sign-offs.json is not valid JSON" in words(client.get("/audit", params={"at": RUN}))
    assert client.get("/audit").status_code == 200
    own = hashlib.sha256((root / RUN / "audit.json").read_bytes()).hexdigest()
    assert client.post("/audit/sign", data=SIGNED | {"audit": own}, headers=ORIGIN).status_code == 409
    assert path.read_text("utf-8") == "{"


DOCUMENTS = {
    f"{RUN}/scores.json": ("/scores", RUN),
    f"{RUN}/audit.json": ("/audit", RUN),
    "balanced/plan.json": ("/balance", "balanced"),
    "balanced/training.json": ("/balance", "balanced"),
    "balanced/screening.json": ("/balance", "balanced"),
    "sweep/table.json": ("/table2", "sweep"),
    f"{RUN}/card.json": ("/card", RUN),
}


@pytest.mark.parametrize("file", DOCUMENTS)
@pytest.mark.parametrize("damage", ["half", "empty", "other", "missing"])
def test_a_document_that_is_damaged_or_gone_is_told_in_words(root, file, damage):
    client, path, (page, place) = make_client(root), root / file, DOCUMENTS[file]
    assert client.get(page, params={"at": place}).status_code == 200
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "other": b'{"schema": 1}'}[damage])
    answer = client.get(page, params={"at": place})
    assert answer.status_code == 200
    if damage != "missing":
        assert re.search("is not valid JSON|that this version of samgan can read|damaged", words(answer))
    assert client.get(page).status_code == 200
    shutil.rmtree(root / place)
    assert client.get(page, params={"at": place}).status_code == 200
    assert client.get(page, params={"at": "../x"}).status_code == 409


def test_stages_of_a_balanced_set_show_their_results_and_the_next_one(root):
    client = make_client(root)
    page = client.get("/balance", params={"at": "balanced"})
    states = re.findall(r"<h2>(\w+) <span class=\"state \w+\">([\w ]+)<", page.text)
    done, waiting = ["Plan", "Models", "Scores", "Screening"], ["Audit", "Set", "Utility", "Report"]
    assert states == [(name, "done") for name in done] + [(name, "waiting") for name in waiting]
    screened = BALANCE.screening[NAME]
    assert f"{screened.kept:,} of {screened.candidates:,} kept" in words(page)
    assert "/scores?at=balanced%2Fscores%2Fclass-" in page.text
    assert "its set has to be in the folder of this studio" in words(page)
    assert "4 of 8 Audit" in words(client.get("/balance"))


def test_a_stage_at_work_is_shown_once_and_sent_again_only_if_it_changed(root, monkeypatch):
    monkeypatch.setattr(processes, "is_running", lambda root, place: place == "balance balanced")
    client = make_client(root)
    page = client.get("/balance", params={"at": "balanced"}).text
    assert re.findall(r"aria-current=\"step\">\s*<h2>(\w+)", page) == ["Audit"]
    assert 'action="/balance/continue"' not in page
    address = re.search(r'hx-get="(/balance/now[^"]+)"', page)[1].replace("&amp;", "&")
    assert client.get(address).status_code == 204
    shutil.copytree(root / RUN, root / "balanced" / "audit" / f"class-{list(BALANCE.plan.classes).index(NAME)}")
    assert "Audit" in client.get(address).text
    assert re.findall(r"aria-current=\"step\">\s*<h2>(\w+)", client.get(address).text) == ["Set"]


def test_a_finished_balanced_set_has_its_report(root):
    BALANCE.write(root / "balanced" / "balance.json")
    text = words(make_client(root).get("/balance", params={"at": "balanced"}))
    assert "All stages are done" in text
    assert BALANCE.utility.verdict in text


def test_continue_asks_for_the_same_as_the_plan(root, started):
    data = PreparedSet.open(root / "set")
    plan = dataclasses.replace(BALANCE.plan, data=data.used(), features="radiograph")
    plan.write(root / "balanced" / "plan.json")
    answer = make_client(root).post("/balance/continue", data={"at": "balanced"}, headers=ORIGIN)
    assert answer.headers["location"] == "/balance?at=balanced"
    ((_, command),) = started
    assert command == words_to_continue(Root(root), plan, root / "set", root / "balanced")
    options = _parse(command)
    assert configuration(given_settings(options), data) == Config.from_dict(plan.config)
    assert (options.target, options.classes, options.minutes) == (plan.target, list(plan.classes), plan.minutes)
    assert (options.seeds, options.steps, options.features) == (plan.utility.seeds, plan.utility.steps, plan.features)


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": "module.pt"}, {"originals": "/etc"}, {"originals": "{root}/runs"}, {"runs": {"": "/tmp/model"}},
        {"runs": {"": "hf:somebody/model"}}, {"runs": {"": "./hf:somebody/model"}}, {"classes": {"--copies": None}},
        {"runs": {"PNEUMONIA": "{root}/runs/first", "": "--features=runs/x.pt"}},
        {"config": {"network": {"vision_file": "/etc/x.pt"}}}, {"config": {"network": {"vision_file": "{root}/x.pt"}}},
    ],
)  # fmt: skip
def test_a_plan_of_somebody_else_names_nothing_that_a_form_may_not_name(root, started, wrong, monkeypatch):
    data = PreparedSet.open(root / "set")
    monkeypatch.chdir(root)
    (root / "runs" / "out").symlink_to("/etc")
    wrong = json.loads(json.dumps(wrong).replace("{root}", str(root)))
    if "config" in wrong:
        wrong = {"config": Config.from_dict(BALANCE.plan.config).override(wrong["config"]).to_dict()}
    if "classes" in wrong:
        wrong = {"classes": {name: next(iter(BALANCE.plan.classes.values())) for name in wrong["classes"]}}
    right = {"data": data.used(), "features": "radiograph"}
    dataclasses.replace(BALANCE.plan, **(right | wrong)).write(root / "balanced" / "plan.json")
    answer = make_client(root).post("/balance/continue", data={"at": "balanced"}, headers=ORIGIN)
    assert answer.status_code == 409
    assert started == []


def test_begin_starts_what_the_form_says(root, started):
    form = {"set": "set", "name": "new", "target": "0,5", "method": "per-class", "minutes": "1,5", "seeds": "0"}
    make_client(root).post("/balance/begin", data=form, headers=ORIGIN)
    ((_, command),) = started
    assert command[:3] == ["balance", str(root / "set"), str(root / "new")]
    assert {"--target=0.5", "--method=per-class", "--minutes=1.5", "--seeds=0"} < set(command)


def test_what_is_known_of_a_set_is_said_before_anything_begins(root, started):
    client = make_client(root)
    assert short_advice().partition(" More:")[0] in words(client.get("/balance"))
    form = {"set": "set", "target": "400"}
    lines = advise(PreparedSet.open(root / "set"), {NAME: 1}).lines
    for headers, whole in (({}, True), ({"hx-request": "true"}, False)):
        answer = client.post("/balance/advise", data=form, headers=ORIGIN | headers)
        assert answer.status_code == 200
        assert lines[-1] in answer.text
        assert f"Your set: {NAME} has" in answer.text
        assert ("<h1>" in answer.text) == whole
    wrong = client.post("/balance/advise", data=form | {"target": "1"}, headers=ORIGIN | {"hx-request": "true"})
    assert "every class already has 1 training images or more" in wrong.text
    assert started == []


def test_the_table_says_what_its_document_says(built):
    client = make_client(built)
    page = client.get("/table2", params={"at": "sweep"})
    for part in ("samgan-8 1.500", "attention helps: undecided at this scale", "+0.1", "One seed of each."):
        assert part in words(page)
    source = re.search(r'src="(/table2/row.png[^"]+)"', page.text)[1].replace("&amp;", "&")
    assert client.get(source).content.startswith(b"\x89PNG")
    assert client.get("/table2/row.png", params={"at": "sweep", "name": "../table.json"}).status_code == 409


def test_answers_are_kept_and_the_card_is_written_again(root, started):
    client = make_client(root)
    page = client.get("/card", params={"at": RUN})
    assert "0 of 2 places are filled in" in words(page)
    seen = re.search(r'name="seen" value="(\w+)"', page.text)[1]
    form = {"at": RUN, "seen": seen, "answer:licence": "cc-by-4.0", "answer:CLAIM: funding": "None\r\nat all"}
    answer = client.post("/card/write", data=form, headers=ORIGIN)
    assert answer.status_code == 303
    kept = CardForm.read(root / RUN / "card.json")
    assert kept.answers == {"licence": "cc-by-4.0", "CLAIM: funding": "None at all"}
    ((_, command),) = started
    assert command == ["card", str(root / RUN), f"--data={root / 'set'}"]
    late = client.post("/card/write", data=form | {"answer:licence": "other"}, headers=ORIGIN)
    assert late.status_code == 409
    assert "changed elsewhere" in words(late)
    assert ">other<" in late.text
    assert CardForm.read(root / RUN / "card.json") == kept


def test_a_card_that_was_edited_by_hand_is_replaced_only_if_that_is_said(root, started):
    (root / RUN / "MODEL_CARD.md").write_text("# Mine", "utf-8")
    client = make_client(root)
    page = client.get("/card", params={"at": RUN})
    assert "edited by hand" in words(page)
    form = {"at": RUN, "seen": re.search(r'name="seen" value="(\w+)"', page.text)[1]}
    assert client.post("/card/write", data=form, headers=ORIGIN).status_code == 409
    assert started == []
    assert client.post("/card/write", data=form | {"replace": "yes"}, headers=ORIGIN).status_code == 303
    assert started[0][1][-1] == "--replace"


def test_the_form_to_prepare_has_every_option(built):
    page = make_client(built).get("/prepare").text
    names = set(re.findall(r'<(?:select|input) id="(\w+)" name="\1"', page))
    options = {field.name for field in dataclasses.fields(PrepareOptions)}
    assert names == options | set(prepare_form.TABLE) | {"source", "name"}


def test_the_command_takes_every_choice_of_the_form_to_prepare():
    choices = [(field, choice) for field in prepare_form.fields() for choice in field.choices]
    for field, choice in choices:
        assert str(getattr(_parse(["prepare", "source", "new", field.word(choice)]), field.name)) == choice
    assert next(choice for field, choice in choices if field.name == "resolution") == "32"


def test_prepare_says_what_would_happen_and_starts_what_the_form_says(root, started, monkeypatch, twelve_phantoms):
    shutil.copytree(twelve_phantoms, root / "xrays")
    (root / "labels.csv").write_text("file,class\n", "utf-8")
    form = {"source": "xrays", "name": "sets/new", "resolution": "32", "holdout": "0,25", "allow_synthetic": "yes"}
    asked = []

    def answer(command, seconds):
        asked.append(list(command))
        done = subprocess.run([sys.executable, "-m", "samgan", *command], capture_output=True, check=True)
        return done.stdout.decode()

    monkeypatch.setattr(processes, "answer", answer)
    client = make_client(root)
    part = client.post("/prepare/foresee", data=form, headers=ORIGIN | {"hx-request": "true"})
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", part.text))
    assert "12 images would be read" in text
    assert not (root / "sets").exists()
    client.post("/prepare", data=form, headers=ORIGIN)
    ((place, command),) = started
    assert place == "prepare sets/new"
    assert [*command, "--dry-run", "--json"] == asked[0]
    assert {"--resolution=32", "--holdout=0.25", "--allow-synthetic"} < set(command)
    table = prepare_form.words(Root(root), {"labels": "labels.csv", "image_column": "file", "label_column": "a, b"})
    assert table == [f"--labels={root / 'labels.csv'}", "--image-column=file", "--label-column=a", "--label-column=b"]


def test_no_column_of_a_form_is_another_option(root):
    (root / "labels.csv").write_text("file,class\n", "utf-8")
    columns = {"label_column": "class, --labels=/etc/passwd, --replace", "image_column": "--replace"}
    typed = {"labels": "labels.csv", **columns}
    options = _parse(["prepare", "source", "new", *prepare_form.words(Root(root), typed)])
    assert options.labels == [str(root / "labels.csv")]
    assert options.label_column == ["class", "--labels=/etc/passwd", "--replace"]
    assert not options.replace


@pytest.mark.skipif(os.name == "nt", reason="no child has a lock there")
@pytest.mark.parametrize(
    ("key", "page", "file", "sentence"),
    [
        ("evaluate {} scores.json", "/scores", "scores.json", "There is no scores.json in"),
        ("audit {}", "/audit", "audit.json", "There is no audit.json in"),
        ("card {}", "/card", "card.json", "There is no card yet."),
    ],
)
def test_what_a_command_is_still_making_is_not_called_missing(root, key, page, file, sentence):
    log, client = processes.log_path(Root(root), key.format(RUN)), make_client(root)
    log.parent.mkdir(exist_ok=True)
    for path in (root / RUN).glob("*_CARD.md"):
        path.unlink()
    (root / RUN / file).unlink(missing_ok=True)
    with open(log, "ab") as held:
        lock(held.fileno())
        text = words(client.get(page, params={"at": RUN}))
        assert "It goes on if you close this page." in text
        assert sentence not in text
    assert sentence in words(client.get(page, params={"at": RUN}))


def test_a_command_that_runs_is_followed_and_not_started_twice(root):
    """`samgan settings` stands for an evaluation: it is quick."""
    shown, client = Root(root), make_client(root)
    processes.start(shown, f"evaluate {RUN} scores.json", ["settings"])
    end = time.monotonic() + 60
    while processes.is_running(shown, f"evaluate {RUN} scores.json") and time.monotonic() < end:
        time.sleep(0.05)
    for child in processes._children:
        child.wait(60)
    page = client.get("/scores", params={"at": RUN})
    assert "training.keep_checkpoints" in words(page)
    assert "What the last command said" in words(page)
    part = client.get("/job", params={"job": f"evaluate {RUN} scores.json", "back": "/scores"})
    assert "Show what it found" in part.text
    for back in ("//evil.example", "/\\evil.example", "/\t/evil.example", "evil"):
        assert client.get("/job", params={"job": "x", "back": back}).status_code == 400


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a child has no lock there")
def test_a_second_command_for_the_same_place_has_to_wait(root):
    log = processes.log_path(Root(root), "evaluate x")
    log.parent.mkdir(exist_ok=True)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(log)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        assert processes.is_running(Root(root), "evaluate x")
        with pytest.raises(Exception, match="still running"):
            processes.start(Root(root), "evaluate x", ["settings"])
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_curves_of_several_runs_are_asked_for_by_their_places(built):
    page = make_client(built).get("/train/together", params={"run": [RUN, "runs/second"]})
    runs = json.loads(re.search(r'data-runs="([^"]+)"', page.text)[1].replace("&#34;", '"').replace("&amp;", "&"))
    assert [name for name, _ in runs] == [RUN, "runs/second"]
    assert make_client(built).get(runs[0][1].replace("\\u0026", "&")).json()["curves"]["train"]["kimg"]
    assert make_client(built).get("/train/together", params={"run": "../x"}).status_code == 409


LIGHT = """
import json, sys
sys.path += sys.argv[2:]
from studio import make_client
client = make_client(sys.argv[1])
for path in ("/scores?at=runs/first", "/scores", "/scores/compare?of=runs/first/scores.json", "/audit?at=runs/first",
             "/audit/pair.png?at=runs/first&by=pixels&kind=synthetic", "/balance?at=balanced", "/balance", "/prepare",
             "/table2?at=sweep", "/card?at=runs/first", "/card", "/train/together?run=runs/first"):
    assert client.get(path).status_code == 200, path
heavy = {"torch", "torchvision", "scipy", "skimage", "pydicom", "lightning_fabric"}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""


def test_no_page_needs_torch(built, run_script):
    import starlette

    assert run_script(LIGHT, built, Path(__file__).parent, Path(starlette.__file__).parents[1]) == []


def test_the_scores_that_pages_read_are_those_of_the_command():
    assert Scores.from_dict(SCORES.to_dict(), "scores") == SCORES
    assert AuditDocument.from_dict(AUDIT.to_dict(), "audit") == AUDIT


@pytest.mark.skipif(sys.platform == "win32", reason="few users may make links there")
@pytest.mark.parametrize("file", ["scores.json", "audit.json", "audit.png", "audit-sign-offs.json", "card.json"])
def test_links_that_lead_out_are_refused_and_the_lists_still_come(root, tmp_path, file):
    secret = tmp_path / "secret.json"
    secret.write_text('{"secret": "of another folder"}', "utf-8")
    (root / RUN / file).unlink(missing_ok=True)
    (root / RUN / file).symlink_to(secret)
    client = make_client(root)
    for page in ("/scores", "/audit", "/card"):
        assert client.get(page).status_code == 200
        one = client.get(page, params={"at": RUN})
        assert one.status_code in (200, 409)
        assert "of another folder" not in one.text
    if file == "audit.png":
        asked = {"at": RUN, "by": "pixels", "kind": "synthetic", "n": "0"}
        assert client.get("/audit/pair.png", params=asked).status_code == 409


@pytest.fixture
def few_weights(tmp_path, monkeypatch):
    """An empty folder of torch.hub; an empty file will count as the weights of the Inception."""
    monkeypatch.setattr(weights_here, "INCEPTION_SHA256", hashlib.sha256(b"").hexdigest())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("page", "action"),
    [("/scores", "/scores/evaluate"), ("/audit", "/audit/start"), ("/balance", "/balance/begin")],
)
def test_only_features_whose_weights_are_here_are_offered_and_taken(root, started, few_weights, page, action):
    """Others would be downloaded by the command."""
    client = make_client(root)

    def offered():
        chosen = re.search(r'<select id="features".*?</select>', client.get(page).text)[0]
        return re.findall(r"<option[^>]*>([\w-]+)</option>", chosen)

    assert "radiograph" in offered()
    assert not {"inception", "imagenet-inception", "swav", "xrv", "rad-dino"} & set(offered())
    form = FORM | {"features": "inception"}
    answer = client.post(action, data=form, headers=ORIGIN)
    assert answer.status_code == 409
    assert "features: expected one of" in words(answer)
    assert started == []
    (few_weights / INCEPTION_FILE).touch()
    assert "inception" in offered()
    assert client.post(action, data=form, headers=ORIGIN).status_code == 303


def test_a_study_is_not_continued_with_features_that_would_be_downloaded(root, started, few_weights):
    plan = dataclasses.replace(BALANCE.plan, data=PreparedSet.open(root / "set").used(), features="inception")
    plan.write(root / "balanced" / "plan.json")
    for status in (409, 303):
        answer = make_client(root).post("/balance/continue", data={"at": "balanced"}, headers=ORIGIN)
        assert answer.status_code == status
        (few_weights / INCEPTION_FILE).touch()
    assert len(started) == 1


def test_a_page_says_that_nothing_leaves_the_machine_only_if_that_is_so(built):
    assert "Nothing leaves this machine." in make_client(built).get("/").text
    page = make_client(built, open_to_others=True).get("/").text
    assert "Nothing leaves this machine." not in page
    assert "Other machines can reach this studio, and nothing is encrypted." in page


LISTS = (
    *("/", "/data", "/prepare", "/train", "/start", "/time", "/compare", "/scores", "/generate", "/audit", "/balance"),
    *("/table2", "/card"),
)
"""Pages that look at everything below the root."""


@pytest.mark.skipif(os.sep == "\\", reason="it separates folders there")
def test_a_name_with_a_backslash_is_a_name(root):
    (root / "odd\\name").mkdir()
    (root / "set").rename(root / "odd\\name" / "set")
    (root / "runs").rename(root / "odd\\runs")
    client = make_client(root)
    assert [client.get(page).status_code for page in LISTS] == [200] * len(LISTS)
    home = client.get("/")
    address = re.search(r'href="(/data\?set=[^"]+)"', home.text)[1].replace("&amp;", "&")
    assert "Pictures of patients are shown here" in words(client.get(address))
    address = re.search(r'href="(/train\?run=[^"]+)"', home.text)[1].replace("&amp;", "&")
    assert "Nobody trains here now" in words(client.get(address))


@pytest.mark.skipif(sys.platform == "win32", reason="few users may make links there")
@pytest.mark.parametrize(
    ("linked", "page", "place"),
    [
        ("other/dataset.json", "/data", {"set": "other"}), (f"{RUN}/MODEL_CARD.md", "/card", {"at": RUN}),
        ("set/DATA_CARD.md", "/card", {"at": "set"}), ("balanced/models", "/balance", {"at": "balanced"}),
    ],
)  # fmt: skip
def test_a_link_that_leads_out_is_told_at_its_place_and_closes_no_other_page(root, tmp_path, linked, page, place):
    if page == "/balance":
        (root / "balanced" / "training.json").unlink()
    (root / "other").mkdir()
    (root / linked).unlink(missing_ok=True)
    (root / linked).symlink_to(tmp_path)
    client = make_client(root)
    assert [client.get(path).status_code for path in LISTS] == [200] * len(LISTS)
    assert f"{linked} is a link to a place outside" in words(client.get(page))
    assert f"{linked} is a link to a place outside" in words(client.get(page, params=place))


def test_a_folder_in_whose_place_a_link_came_meanwhile_is_left_out_with_a_note(root, monkeypatch):
    find = Root.find

    def late(self, place):
        if place in ("set", "sweep", "runs/second"):
            raise Outside(f"{place} is a link to a place outside")
        return find(self, place)

    monkeypatch.setattr(Root, "find", late)
    client = make_client(root)
    assert [client.get(page).status_code for page in LISTS] == [200] * len(LISTS)
    home = words(client.get("/"))
    assert "Not shown: set is a link to a place outside." in home
    assert "Not shown: runs/second is a link" in home
    assert RUN in home


FORM = {"run": RUN, "set": "set", "name": "new", "source": "runs", "at": RUN, "resolution": "32"}
RUN_FILE, SET_FILE = f"{RUN}/checkpoints/step-00000005.pt", "set/images.npy"


@pytest.mark.skipif(sys.platform == "win32", reason="few users may make links there")
@pytest.mark.parametrize(
    ("path", "linked"),
    [
        ("/start", SET_FILE), ("/start", "set/manifest.csv"), ("/start/cost", SET_FILE),
        ("/balance/begin", SET_FILE), ("/balance/advise", SET_FILE), ("/balance/continue", SET_FILE),
        ("/balance/continue", "balanced/models/class-0"),
        ("/scores/evaluate", SET_FILE), ("/scores/evaluate", RUN_FILE),
        ("/audit/start", SET_FILE), ("/audit/start", RUN_FILE),
        ("/train/resume", SET_FILE), ("/train/resume", RUN_FILE),
        ("/card/write", SET_FILE), ("/card/write", f"{RUN}/reader-study"),
        ("/prepare", "runs/deep/er/xrays"), ("/prepare/foresee", "runs/deep/er/xray.png"),
    ],
)  # fmt: skip
def test_no_command_is_started_on_what_a_link_leads_to_outside(root, tmp_path, started, monkeypatch, path, linked):
    """What a page refuses to show, a command that it starts must not read either."""
    asked = []

    def answer(command, seconds):
        asked.append(command)
        raise SamganError("it was asked")

    monkeypatch.setattr(processes, "answer", answer)
    if path == "/balance/continue":
        data = PreparedSet.open(root / "set").used()
        dataclasses.replace(BALANCE.plan, data=data, features="radiograph").write(root / "balanced" / "plan.json")
    form = FORM | ({"at": "balanced"} if path.startswith("/balance") else {})
    if path == "/card/write":
        form["seen"] = re.search(r'name="seen" value="(\w+)"', make_client(root).get("/card", params=form).text)[1]
    make_client(root).post(path, data=form, headers=ORIGIN)
    assert len(started) + len(asked) == 1  # without a link it is done
    inside, outside = root / linked, tmp_path / "outside"
    inside.parent.mkdir(parents=True, exist_ok=True)
    if inside.exists():
        inside.rename(outside)
    else:
        outside.mkdir()
    inside.symlink_to(outside)
    answer = make_client(root).post(path, data=form, headers=ORIGIN)
    assert answer.status_code == 409
    assert "outside of the folder of this studio" in words(answer)
    assert len(started) + len(asked) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="few users may make links there")
def test_links_of_a_source_that_stay_inside_are_followed_to_their_end(root, tmp_path, started):
    (root / "xrays" / ".venv").mkdir(parents=True)
    (root / "xrays" / ".venv" / "python").symlink_to(sys.executable)  # hidden: no command reads it
    (root / "xrays" / "more").symlink_to(root / "others")
    (root / "xrays" / "round").symlink_to(root / "xrays" / "round")
    (root / "others").mkdir()
    (root / "others" / "back").symlink_to(root / "xrays")
    form = FORM | {"source": "xrays"}
    assert make_client(root).post("/prepare", data=form, headers=ORIGIN).status_code == 303
    (root / "others" / "z").symlink_to(tmp_path)
    answer = make_client(root).post("/prepare", data=form | {"name": "newer"}, headers=ORIGIN)
    assert answer.status_code == 409
    assert "others/z is a link" in words(answer) or "more/z is a link" in words(answer)
    assert len(started) == 1


def test_a_run_whose_own_settings_name_a_file_outside_is_not_continued(root, started, tiny_config):
    tree = tiny_config.override({"network.vision_file": "/etc/x.pt"}).to_dict()
    (root / RUN / "config.json").write_text(json.dumps(tree), "utf-8")
    assert make_client(root).post("/train/resume", data={"run": RUN}, headers=ORIGIN).status_code == 409
    assert started == []


def test_a_run_leads_to_what_was_made_of_it(root):
    client = make_client(root)
    page = client.get("/train", params={"run": "runs/second"}).text
    assert 'href="/scores?at=runs%2Fsecond">Scores<' in page
    assert 'href="/audit?run=runs%2Fsecond">Audit it<' in page
    assert 'value="runs/second" selected' in client.get("/audit", params={"run": "runs/second"}).text
    assert "Audit it" not in make_client(root, read_only=True).get("/train", params={"run": "runs/second"}).text


@pytest.mark.parametrize("path", ["/", "/train"])
def test_a_list_asks_for_itself_and_is_sent_again_only_if_it_changed(root, path, monkeypatch):
    now = time.time()
    monkeypatch.setattr("samgan.studio.view.time.time", lambda: now)  # how long ago a run changed is in the list
    client = make_client(root)
    page = client.get(path).text
    address = re.search(r'id="list" hx-get="([^"]+)"', page)[1].replace("&amp;", "&")
    assert client.get(address).status_code == 204
    shutil.copytree(root / RUN, root / "runs" / "third one")
    again = client.get(address + ("&run=runs/second" if path == "/train" else ""))
    assert "runs/third one" in again.text
    assert "<h1>" not in again.text
    assert re.findall(r'value="([^"]+)"[^>]* checked', again.text) == (["runs/second"] if path == "/train" else [])
    identifiers = re.findall(r'\bid="([^"]+)"', again.text)
    assert len(set(identifiers)) == len(identifiers)
    assert set(re.findall(r'\bid="([^"]+)"', page.partition('id="list"')[2])) < set(
        identifiers
    )  # focus finds its place


def test_a_model_of_a_balanced_set_goes_on_with_that_set(root, started):
    shutil.copytree(root / RUN, root / "balanced" / "models" / "one")
    client = make_client(root)
    own = client.get("/train", params={"run": "balanced/models/one"})
    assert "A model of the balanced set balanced" in words(own)
    assert 'href="/balance?at=balanced"' in own.text
    assert 'action="/train/resume"' not in own.text
    answer = client.post("/train/resume", data={"run": "balanced/models/one"}, headers=ORIGIN)
    assert answer.status_code == 409
    assert "continue the balanced set" in words(answer)
    assert not started
    inside = make_client(root / "balanced").get("/train", params={"run": "models/one"})
    assert 'href="/balance?at=."' in inside.text
    assert make_client(root / "balanced").get("/balance", params={"at": "."}).status_code == 200
    assert make_client(root / "balanced" / "models").get("/train", params={"run": "one"}).status_code == 200
    other = client.get("/train", params={"run": RUN})
    assert "balanced set" not in words(other)
    assert 'action="/train/resume"' in other.text


def test_a_root_that_is_gone_is_said_and_not_shown_as_empty(root):
    client = make_client(root)
    root.rename(root.with_name("moved"))
    for path in ("/", "/data", "/train", "/start", "/time", "/scores", "/audit", "/balance", "/table2", "/card",
                 "/compare", "/generate", "/prepare"):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == 409, path
        assert "cannot be read: No such file or directory" in words(answer), path


@pytest.mark.parametrize(
    ("place", "why"), [("gone", "There is no folder gone"), ("demo", "demo is neither a run nor a prepared set")]
)
def test_what_is_neither_run_nor_set_has_no_card(root, started, place, why):
    (root / "demo").mkdir()
    client = make_client(root)
    page = client.get("/card", params={"at": place})
    assert words(page).count(why) == 1
    assert 'action="/card/write"' not in page.text
    answer = client.post("/card/write", data={"at": place}, headers=ORIGIN)
    assert answer.status_code == 409
    assert words(answer).count(why) == 1
    assert started == []


@pytest.mark.parametrize("place", ["gone", "set"])
def test_what_is_no_run_has_no_snapshots_yet_to_come(root, place):
    client = make_client(root)
    text = words(client.get("/time", params={"run": place}))
    assert f"There is no run in {place}, or not any more." in text
    assert "no snapshot yet" not in text
    (root / RUN / "grids").rename(root / "grids")
    assert "This run has no snapshot yet" in words(client.get("/time", params={"run": RUN}))


def test_a_full_disk_is_told_in_words(root, started, monkeypatch):
    def fail(document, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    for kind in (CardForm, SignOffs):
        monkeypatch.setattr(kind, "write", fail)
    monkeypatch.setattr(processes, "start", lambda root, place, words: fail(words, place))
    client = make_client(root)
    own = hashlib.sha256((root / RUN / "audit.json").read_bytes()).hexdigest()
    seen = re.search(r'name="seen" value="(\w+)"', client.get("/card", params={"at": RUN}).text)[1]
    for path, form in (
        ("/audit/sign", SIGNED | {"audit": own}), ("/card/write", {"at": RUN, "seen": seen}),
        ("/prepare", {"source": "runs", "name": "new"}), ("/start", {"set": "set", "name": "runs/new"}),
    ):  # fmt: skip
        answer = client.post(path, data=form, headers=ORIGIN)
        assert answer.status_code == 409
        said = "A file could not be read or written: No space left on device. Free some space, then do it again."
        assert said in words(answer)
        assert "Errno" not in answer.text
    assert started == []
