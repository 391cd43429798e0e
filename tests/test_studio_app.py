"""The pages of the studio on real sets and on runs in every state: what is so is said, and nothing is ever a bug."""

import csv
import hashlib
import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the studio is not installed: pip install 'samgan[studio]'")
pytest.importorskip("httpx", reason="starlette's client for tests needs httpx")
pytest.importorskip("uvicorn", reason="the studio is not installed: pip install 'samgan[studio]'")

from studio import ORIGIN, PROCESSOR, held, line, make_client, make_run

import samgan.studio
from samgan.commands.main import main
from samgan.config import settings
from samgan.data import prepare
from samgan.errors import SamganError, UsageError
from samgan.locks import lock
from samgan.studio import processes, settings_form, worker
from samgan.studio.catalogue import Catalogue
from samgan.studio.places import Root

STATIC = Path(samgan.studio.__file__).with_name("static")


@pytest.fixture(scope="module")
def built(tmp_path_factory, twelve_phantoms, tiny_config):
    """A root with a set, and runs that were trained on it; not to be changed."""
    root = tmp_path_factory.mktemp("studio")
    prepared = prepare(twelve_phantoms, root / "sets" / "phantoms", resolution=32, workers=1)
    make_run(root / "runs" / "first run", tiny_config, sha256=prepared.info.sha256, checkpoint=5)
    return root


@pytest.fixture
def root(built, tmp_path):
    """A copy of it."""
    shutil.copytree(built, tmp_path / "root")
    return tmp_path / "root"


def words(answer):
    """The text of a page, as it is read."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text.partition("<main")[2]))


def test_home_lists_sets_and_runs(built):
    text = words(make_client(built).get("/"))
    assert "sets/phantoms 12 32 px" in text
    assert "runs/first run stopped 0.16 of 0.04" in text


def test_an_empty_root_says_what_to_do(tmp_path):
    client = make_client(tmp_path)
    assert "samgan prepare" in words(client.get("/"))
    for path in ("/data", "/train", "/time"):
        assert "There is none" in words(client.get(path))
    assert "no prepared set" in words(client.get("/start"))


def test_data_shows_counts_sources_and_images_under_a_banner(built):
    client = make_client(built)
    page = client.get("/data", params={"set": "sets/phantoms"})
    text = words(page)
    assert "Pictures of patients are shown here" in text
    rows = list(csv.DictReader((built / "sets/phantoms/manifest.csv").read_text("utf-8").splitlines()))
    for name in {row["class"] for row in rows}:
        count = sum(row["class"] == name for row in rows)
        held_out = sum(row["class"] == name and row["split"] == "holdout" for row in rows)
        assert f"{name} {count - held_out} {held_out} {count}" in text
    source = re.search(r'src="(/data/sheet.png[^"]+)"', page.text)[1].replace("&amp;", "&")
    picture = client.get(source)
    assert picture.content.startswith(b"\x89PNG")
    assert b"Real images of patients" in picture.content
    assert picture.headers["cache-control"] == "no-store"
    assert client.get(source.replace("seed=0", "seed=1")).content != picture.content
    part = client.get("/data/sheet", params={"set": "sets/phantoms", "split": "holdout", "seed": "3"})
    assert part.text.startswith('<div id="sheet">')


@pytest.mark.parametrize("asked", [{"seed": "-1"}, {"seed": "x"}, {"class": "nothing"}, {"split": "nothing"}])
def test_images_that_there_are_not_are_refused(built, asked):
    client = make_client(built)
    for path in ("/data/sheet", "/data/sheet.png", "/data"):
        assert client.get(path, params={"set": "sets/phantoms", **asked}).status_code == 400
    assert client.get("/data/pair.png", params={"set": "sets/phantoms", "a": "0", "b": "99999"}).status_code == 400


def test_near_duplicates_stand_side_by_side_the_wrong_ones_first(root):
    path = root / "sets" / "phantoms" / "manifest.csv"
    rows = list(csv.reader(path.read_text("utf-8").splitlines()))
    near, name = rows[0].index("near_duplicate_of"), rows[0].index("class")
    first = next(row for row in rows[2:] if row[name] == rows[1][name])
    other = next(row for row in rows[2:] if row[name] != rows[1][name])
    first[near] = other[near] = "0"
    split = rows[0].index("split")
    first[split] = other[split] = rows[1][split]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    client = make_client(root)
    page = client.get("/data", params={"set": "sets/phantoms"})
    pairs = re.findall(r'src="(/data/pair.png[^"]+)"', page.text)
    assert [re.search(r"a=(\d+)&amp;b=0", pair)[1] for pair in pairs] == [other[0], first[0]]
    assert "two classes" in words(page)
    assert client.get(pairs[0].replace("&amp;", "&")).content.startswith(b"\x89PNG")


def test_all_contradictions_and_near_duplicates_can_be_seen_part_by_part(root, monkeypatch):
    folder = root / "sets" / "phantoms"
    rows = list(csv.reader((folder / "manifest.csv").read_text("utf-8").splitlines()))
    near, name, source = (rows[0].index(column) for column in ("near_duplicate_of", "class", "source"))
    of_class = {row[name]: row for row in rows[1:]}
    one, other = list(of_class.values())[:2]
    for row in rows[2:]:
        row[near] = "0"
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    info = json.loads((folder / "dataset.json").read_text("utf-8"))
    exact = [{"files": [f"a/{n}.png", f"b/{n}.png"], "classes": [one[name], other[name]]} for n in range(13)]
    alike = {"files": [one[source], other[source]], "classes": [one[name], other[name]]}
    leak = {"what": "patients", "count": 4, "examples": [[one[source], other[source]], ["gone.png", one[source]]]}
    info |= {"contradictions": exact, "near_contradictions": [alike], "leaks": [leak]}
    (folder / "dataset.json").write_text(json.dumps(info), "utf-8")
    client = make_client(root)

    page = client.get("/data", params={"set": "sets/phantoms"})
    assert "14 pictures in more than one class" in words(page)
    beside = f'src="/data/pair.png?set=sets%2Fphantoms&amp;a={one[0]}&amp;b={other[0]}"'
    assert page.text.partition('id="contradictions"')[0].count(beside) == 1  # of the leak
    seen, address = [], "/data?set=sets/phantoms"
    for count in (12, 2):
        part = client.get(address).text.partition('id="contradictions"')[2].partition(">Counts<")[0]
        seen += re.findall(r"([a-z]/[0-9]+[.]png) ", part)
        assert part.count("<figure>") == count
        address = html.unescape(re.search(r'id="contradictions-more" href="([^"#]+)#', part)[1])
    assert seen == [file for found in exact for file in found["files"]]
    assert part.count("left out</strong>") == 1
    assert part.count(beside) == 1
    assert "The first ones again" in part
    assert address == "/data?set=sets%2Fphantoms&contradictions=0"

    monkeypatch.setattr("samgan.studio.pages.data.PAIRS_SHOWN", 4)
    pairs, total = [], len(rows) - 2
    for number in range(-(-total // 4)):
        part = client.get("/data/pairs", params={"set": "sets/phantoms", "pairs": number}).text
        assert part.startswith('<div id="pairs">')
        pairs += re.findall(r"a=(\d+)&amp;b=0", part)
        assert f"of {total}." in part
    assert sorted(map(int, pairs)) == list(range(1, total + 1))
    far = client.get("/data/pairs", params={"set": "sets/phantoms", "pairs": "999"}).text
    assert far == part  # the last ones
    assert client.get("/data/pairs", params={"set": "sets/phantoms", "pairs": "-1"}).status_code == 400


@pytest.mark.parametrize("name", ["manifest.csv", "images.npy", "dataset.json"])
@pytest.mark.parametrize("damage", ["missing", "half", "empty"])
def test_a_damaged_set_is_called_damaged(root, name, damage):
    path = root / "sets" / "phantoms" / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2 if damage == "half" else 0])
    client = make_client(root)
    page = client.get("/data", params={"set": "sets/phantoms"})
    assert page.status_code == 200
    assert client.get("/").status_code == 200
    picture = client.get("/data/sheet.png", params={"set": "sets/phantoms"})
    assert picture.status_code in (404, 409)
    assert re.search("damaged|missing|no prepared set|could not be read|not valid JSON", words(page) + words(picture))


def test_a_run_shows_how_far_it_is(built):
    text = words(make_client(built).get("/train", params={"run": "runs/first run"}))
    assert "Nobody trains here now" in text
    assert "8.0 images/s" in text
    assert "step 5" in text
    assert "Collapse no sign" in text
    assert "sets/phantoms" in text
    assert "SYNTHETIC IMAGE" in text
    assert "training.batch_size 4" in text


def test_the_part_that_changes_is_sent_only_if_it_changed(root):
    client = make_client(root)
    page = client.get("/train", params={"run": "runs/first run"}).text
    address = re.search(r'hx-get="(/train/now[^"]+)"', page)[1].replace("&amp;", "&")
    assert client.get(address).status_code == 204
    with open(root / "runs/first run/stats.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(line(41, images_per_second=77.7)) + "\n")
    part = client.get(address)
    assert "77.7 images/s" in part.text
    assert part.text.count("<html") == 0


def test_curves_come_in_pieces(root):
    client = make_client(root)
    first = client.get("/train/curves", params={"run": "runs/first run"}).json()
    assert (first["again"], first["more"]) == (True, False)
    assert first["curves"]["train"]["kimg"][-1] == 0.16
    since = {"run": "runs/first run", "file": first["file"], "after": first["after"]}
    assert client.get("/train/curves", params=since).json()["curves"]["train"] == {"kimg": []}
    with open(root / "runs/first run/stats.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(line(41)) + "\n")
    then = client.get("/train/curves", params=since).json()
    assert then["again"] is False
    assert then["curves"]["train"]["kimg"] == [0.164]
    assert client.get("/train/curves", params={"run": "runs/none"}).json()["curves"]["train"] == {"kimg": []}
    assert client.get("/train/curves", params={**since, "after": "x"}).status_code == 400


def test_a_collapse_is_an_alarm(root):
    lines = [line(step, images_seen=1000 * step, sign_real=1.0) for step in range(1, 40)]
    bad = {"kind": "scores", "ms_ssim_real": 0.3, "ms_ssim_generated": 0.95, "ms_ssim_gap": 0.65}
    lines += [bad | {"step": step, "images_seen": 1000 * step} for step in range(12, 36, 4)]
    (root / "runs/first run/stats.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), "utf-8")
    page = make_client(root).get("/train", params={"run": "runs/first run"})
    assert 'role="alert">Collapsed at 20 kimg' in page.text


def test_time_goes_through_the_snapshots_and_shows_patients_only_when_asked(built):
    client = make_client(built)
    page = client.get("/time", params={"run": "runs/first run"})
    assert "snapshot 2 of 2" in words(page)
    assert "real.png" not in page.text
    assert "Pictures of patients" not in words(page)
    assert "snapshot 1 of 2" in client.get("/time/frame", params={"run": "runs/first run", "at": "0"}).text
    assert "snapshot 2 of 2" in client.get("/time/frame", params={"run": "runs/first run", "at": "99"}).text
    assert client.get("/time", params={"run": "runs/first run", "at": "x"}).status_code == 400
    real = client.get("/time", params={"run": "runs/first run", "real": "1"})
    assert "Pictures of patients are shown here" in words(real)
    source = re.search(r'src="(/train/grid.png[^"]+real.png)"', real.text)[1].replace("&amp;", "&")
    assert client.get(source).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/train", "/train/now", "/train/curves", "/time", "/time/frame"])
def test_a_run_that_is_deleted_while_it_is_shown_is_no_bug(root, path):
    client = make_client(root)
    assert client.get("/train", params={"run": "runs/first run"}).status_code == 200
    shutil.rmtree(root / "runs" / "first run")
    assert client.get(path, params={"run": "runs/first run"}).status_code == 200
    assert client.get("/train/grid.png", params={"run": "runs/first run", "name": "real.png"}).status_code == 409
    assert "There is no run in this folder" in words(client.get("/train", params={"run": "runs/first run"}))


def test_names_in_any_script_and_signs_of_html_are_text(tmp_path, tiny_config):
    name = "Läufe & <b>Σ日本</b> 'é'"
    make_run(tmp_path / name, tiny_config)
    client = make_client(tmp_path)
    home = client.get("/").text
    assert "<b>" not in home
    address = re.search(r'href="(/train\?run=[^"]+)"', home)[1].replace("&amp;", "&")
    page = client.get(address)
    assert page.status_code == 200
    assert "<b>" not in page.text
    assert "Nobody trains here now" in words(page)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want names of files to be text")
def test_names_that_are_no_text_have_pages(tmp_path, tiny_config):
    make_run(tmp_path / "run-\udcff", tiny_config)
    client = make_client(tmp_path)
    address = re.search(r'href="(/train\?run=[^"]+)"', client.get("/").text)[1]
    assert "Nobody trains here now" in words(client.get(address))


def test_stop_asks_the_process_that_trains(root):
    client, run = make_client(root), root / "runs" / "first run"
    with held(run) as process:
        page = client.get("/train", params={"run": "runs/first run"})
        assert "running" in words(page)
        if "/train/stop" not in page.text:
            pytest.skip("this system does not tell who holds a lock")
        answer = client.post("/train/stop", data={"run": "runs/first run"}, headers=ORIGIN)
        assert (answer.status_code, answer.headers["location"]) == (303, "/train?run=runs%2Ffirst+run")
        process.wait(20)
    assert (run / "stopped").exists()
    again = client.post("/train/stop", data={"run": "runs/first run"}, headers=ORIGIN)
    assert "Nobody is training in this run any more" in words(again)


@pytest.fixture
def started(monkeypatch):
    """Commands that would have been started."""
    commands = []
    monkeypatch.setattr(processes, "start", lambda root, place, words: commands.append((place, list(words))))
    return commands


def test_continue_resumes_a_stopped_run_on_its_own_set(root, started):
    client = make_client(root)
    answer = client.post("/train/resume", data={"run": "runs/first run"}, headers=ORIGIN)
    assert answer.status_code == 303
    out = root / "runs" / "first run"
    assert started == [("runs/first run", ["train", str(root / "sets/phantoms"), f"--out={out}", "--resume"])]
    shutil.rmtree(root / "sets")
    client = make_client(root)
    assert "its set has to be in the folder" in words(client.get("/train", params={"run": "runs/first run"}))
    assert client.post("/train/resume", data={"run": "runs/first run"}, headers=ORIGIN).status_code == 409


@pytest.mark.parametrize(("minutes", "handed_on"), [("30", ["--minutes=30.0"]), ("0.001", [])])
def test_continue_keeps_the_limit_of_the_run_unless_it_is_over(root, started, minutes, handed_on):
    file = root / "runs/first run/environment.json"
    tree = json.loads(file.read_text("utf-8")) | {"command": ["samgan", "train", "set", f"--minutes={minutes}"]}
    file.write_text(json.dumps(tree), "utf-8")
    client = make_client(root)
    page = words(client.get("/train", params={"run": "runs/first run"}))
    assert ("or until it has trained for 30 min in all, as it was begun" in page) == bool(handed_on)
    client.post("/train/resume", data={"run": "runs/first run"}, headers=ORIGIN)
    ((_, command),) = started
    assert command[command.index("--resume") + 1 :] == handed_on


def test_the_form_has_every_setting_but_files_and_sizes(built):
    page = make_client(built).get("/start").text
    names = set(re.findall(r'name="((?:data|network|training)\.[a-z0-9_]+)"', page))
    assert names == {setting.key for setting in settings()} - set(settings_form.HIDDEN)
    for name in names:
        assert f'<label for="{name}"' in page


def test_start_starts_what_the_form_says(root, started):
    form = {
        "set": "sets/phantoms", "name": "runs/second", "preset": "samgan-8", "scale": "cpu", "minutes": "1,5",
        "training.kimg": "2,5", "training.batch_size": "8", "network.generator_attention": "8, 16",
        "network.spectral_norm": "both", "network.pixel_norm": "false", "data.classes": "A b; C",
    }  # fmt: skip
    answer = make_client(root).post("/start", data=form, headers=ORIGIN)
    assert answer.headers["location"] == "/train?run=runs%2Fsecond"
    ((place, command),) = started
    assert place == "runs/second"
    assert command[:2] == ["train", str(root / "sets/phantoms")]
    assert set(command[2:]) == {
        "--preset=samgan-8", "--scale=cpu", "--minutes=1.5", f"--out={root / 'runs/second'}", "--training.kimg=2.5",
        "--training.batch_size=8", "--network.generator_attention=[8, 16]", "--network.spectral_norm=both",
        "--network.pixel_norm=false", '--data.classes=["A b", "C"]',
    }  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("0,5; 0,9", [0.5, 0.9]), ("0,5;0,9", [0.5, 0.9]), ("0.5; 0.9", [0.5, 0.9]), ("0.5, 0.9", [0.5, 0.9]),
        ("0,5, 0,9", [0.5, 0.9]), ("0,5", [0.5]),
    ],
)  # fmt: skip
def test_a_list_of_numbers_may_have_german_commas(typed, meant):
    (field,) = (field for field in settings_form.fields() if field.key == "training.adam_betas")
    assert field.word(typed) == f"--training.adam_betas={json.dumps(meant)}"


def test_a_list_of_names_or_whole_numbers_may_have_either_sign_between():
    fields = {field.key: field for field in settings_form.fields()}
    assert fields["network.generator_attention"].word("8,16, 32") == "--network.generator_attention=[8, 16, 32]"
    assert fields["network.generator_attention"].word("8;16") == "--network.generator_attention=[8, 16]"
    assert fields["data.classes"].word("A, b, C") == '--data.classes=["A", "b", "C"]'
    assert fields["data.classes"].word("A, b; C") == '--data.classes=["A, b", "C"]'


def test_what_was_left_out_is_counted_in_full(root):
    file = root / "sets" / "phantoms" / "dataset.json"
    tree = json.loads(file.read_text("utf-8"))
    tree["left_out"] = {
        "exact_duplicates": [{"source": f"copy {number}", "same_as": "first"} for number in range(5)],
        "unused": [{"source": f"{number}.png", "reason": f"reason {number // 2}"} for number in range(44)],
    }
    file.write_text(json.dumps(tree), "utf-8")
    text = words(make_client(root).get("/data", params={"set": "sets/phantoms"}))
    assert "5 exact duplicates" in text
    assert "copy 2 is the same as first; and 2 more, which dataset.json names" in text
    assert "2 images reason 19, such as 38.png" in text
    assert "4 images more For other reasons; dataset.json names them." in text


def test_a_number_that_could_be_thousands_is_asked_for_again():
    (field,) = (field for field in settings_form.fields() if field.key == "training.kimg")
    with pytest.raises(UsageError, match=r"10,000 can be read in two ways: write 10000, or 10\.0000 for a fraction"):
        field.word("10,000")
    for typed, meant in {"10000": 10000.0, "10.0000": 10.0, "10,0000": 10.0, "0,125": 0.125, "1000,5": 1000.5}.items():
        assert field.word(typed) == f"--training.kimg={meant}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"set": "nothing"}, {"set": ""}, {"name": ""}, {"name": "../out"}, {"name": "runs/first run"}, {"name": ".x"},
        {"preset": "--device=cuda"}, {"scale": "big"}, {"minutes": "-1"}, {"minutes": "1 --resume"},
        {"training.kimg": "many"}, {"training.seed": "1.5"}, {"network.spectral_norm": "some"},
        {"training.kimg": "nan"}, {"training.kimg": "-inf"}, {"training.kimg": "1e999"},
        {"training.kimg": "10,000"}, {"training.kimg": "2.500"}, {"minutes": "1,000"}, {"training.seed": "1.000"},
        {"training.adam_betas": "0.5,0.9"}, {"training.adam_betas": "0,5 0,9"}, {"training.adam_betas": "0.5; nan"},
    ],
)  # fmt: skip
def test_a_wrong_form_comes_back_with_words_and_with_what_was_typed(root, started, wrong):
    form = {"set": "sets/phantoms", "name": "runs/second", "preset": "samgan-plus", "training.log_every_kimg": "0.123"}
    answer = make_client(root).post("/start", data=form | wrong, headers=ORIGIN)
    assert answer.status_code == 409
    assert re.search(r'<p class="outcome bad" role="alert">[^<]{10,}</p>\s*<form', answer.text)  # seen at once
    assert 'value="0.123"' in answer.text
    assert started == []


def test_cost_is_what_the_command_line_says_and_time_what_a_like_run_needed(root, monkeypatch, tiny_config):
    documents, asked = [], []

    def answer(words, seconds):
        asked.append(list(words))
        if not documents:
            raise SamganError("training.kimg: 0.0 is not allowed")
        return json.dumps(documents.pop())

    monkeypatch.setattr(processes, "answer", answer)
    cost = {"generator_parameters": 2000, "discriminator_parameters": 3000, "memory_bytes": 3 << 29}
    unused = ["training.first_kimg has no effect: training.first_sides is empty"]
    cost |= {"device": "cpu", "processor": PROCESSOR, "unused_settings": unused}
    documents.append({"config": tiny_config.override({"training.kimg": 24}).to_dict(), **cost})
    form = {"set": "sets/phantoms", "preset": "samgan-8", "training.kimg": "24"}
    client = make_client(root)
    page = client.post("/start/cost", data=form, headers=ORIGIN | {"hx-request": "true"})
    data = str(root / "sets/phantoms")
    assert asked == [["train", data, "--preset=samgan-8", "--training.kimg=24.0", "--dry-run", "--json"]]
    text = re.sub(r"\s+", " ", page.text)
    assert "24 kimg; 5,000 parameters; about 1.5 GB" in text
    assert "About 50 min, at the speed of runs/first run" in text  # 8 images/s
    assert f"Note: {unused[0]}." in text
    assert "<html" not in text
    for minutes, expected in {
        "12,5": "It ends after 12 min, as the minutes say, at about 6 kimg", "60": "About 50 min, at the speed of"
    }.items():  # fmt: skip
        documents.append({"config": tiny_config.override({"training.kimg": 24}).to_dict(), **cost})
        text = words(client.post("/start/cost", data=form | {"minutes": minutes}, headers=ORIGIN))
        assert expected in text
        assert ("It ends after" in text) == (minutes == "12,5")
    for other in ({"device": "cuda"}, {"processor": "another"}):
        documents.append({"config": tiny_config.override({"training.kimg": 24}).to_dict(), **cost, **other})
        text = words(client.post("/start/cost", data=form | {"minutes": "5"}, headers=ORIGIN))
        assert "how long it takes is not known. It ends after 5 min, as the minutes say, at the latest." in text
    documents.append({"config": tiny_config.override({"network.max_channels": 16}).to_dict(), **cost})
    assert "how long it takes is not known" in words(client.post("/start/cost", data=form, headers=ORIGIN))
    bad = client.post("/start/cost", data=form, headers=ORIGIN)
    assert bad.status_code == 409
    assert "training.kimg: 0.0 is not allowed" in words(bad)


def test_a_process_outlives_the_studio_and_leaves_its_words(root):
    """`samgan settings` stands for a training: it is quick."""
    script = f"""
from samgan.studio import processes
from samgan.studio.places import Root
processes.start(Root({str(root)!r}), "runs/new", ["settings"])
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)  # ends at once; its child goes on
    shown = Root(root)
    end = time.monotonic() + 60
    while "training.keep_checkpoints" not in processes.said(shown, "runs/new") and time.monotonic() < end:
        time.sleep(0.1)
    text = words(make_client(root).get("/train", params={"run": "runs/new"}))
    assert "There is no run in this folder, or not yet" in text
    assert "training.keep_checkpoints" in text
    assert processes.log_path(shown, "a/b") != processes.log_path(shown, "a-b")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("runs/new", "starting The command has begun; the run is not there yet."),
        ("runs/first run", "A command that was started here is still at work: it is about to train, or to end."),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="no child has a lock there")
def test_a_run_whose_command_has_not_begun_to_train_is_not_called_missing_or_stopped(root, place, sentence):
    path, client = processes.log_path(Root(root), place), make_client(root)
    path.parent.mkdir()
    with open(path, "ab") as log:
        lock(log.fileno())
        page = client.get("/train", params={"run": place})
        assert sentence in words(page)
        assert 'hx-trigger="every 4s"' in page.text
        assert 'id="resume"' not in page.text
    page = client.get("/train", params={"run": place})
    assert sentence not in words(page)
    assert ('id="resume"' in page.text) == (place == "runs/first run")


def test_what_a_training_said_has_no_signs_of_the_terminal(root):
    path = processes.log_path(Root(root), "runs/first run")
    path.parent.mkdir()
    path.write_bytes(b"one\r\x1b[2Ktwo\r\x1b[2Kthree\n\x1b[31mred\x1b[0m \xff<b>\n")
    page = make_client(root).get("/train", params={"run": "runs/first run"})
    assert "three\nred" in page.text
    assert "two" not in page.text.partition("<pre")[2].partition("</pre>")[0]
    assert "<b>" not in page.text


def test_a_command_that_cannot_be_started_is_told(root, monkeypatch):
    (root / ".studio").write_text("in the way", "utf-8")  # as a full disk: the log cannot be written
    client = make_client(root)
    answer = client.post("/train/resume", data={"run": "runs/first run"}, headers=ORIGIN)
    assert answer.status_code == 409
    assert "could not be started" in words(answer)


@pytest.mark.parametrize("command", [processes._command(["presets"]), worker.COMMAND])
def test_no_process_imports_what_lies_in_the_current_folder(tmp_path, command):
    """The root of a studio may be a folder of everybody's."""
    for name in ("argparse", "csv", "json", "samgan"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w')", "utf-8")
    subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60, check=True)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "source", "out", "--resolution=16"], "argument --resolution: "),
        (["inspect", "nothing"], "nothing"),
    ],
)
def test_what_a_command_refuses_is_said_without_its_name(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SamganError) as error:
        processes.answer(words, 60.0)
    assert str(error.value).startswith(said)


def test_unknown_pages_are_said_to_be_unknown(built):
    answer = make_client(built).get("/nothing")
    assert answer.status_code == 404
    assert "There is no such page" in words(answer)


def test_a_part_that_cannot_be_made_says_so_in_its_place(built, monkeypatch):
    """A script of the page shows nothing but answers with status 200."""

    def fail(catalogue, place):
        raise RuntimeError

    monkeypatch.setattr(Catalogue, "describe_run", fail)
    client = make_client(built, show_bugs=False)
    now, part = {"run": "runs/first run"}, {"hx-request": "true", "hx-target": "now"}
    answer = client.get("/train/now", params=now | {"seen": "0"}, headers=part)
    assert (answer.status_code, answer.text.count("<html")) == (200, 0)
    assert 'role="alert" id="now"' in answer.text
    assert ">samgan studio made a mistake (RuntimeError)" in answer.text
    assert 'hx-get="/train/now?run=runs%2Ffirst+run" hx-trigger="every' in answer.text  # it goes on asking
    assert "hx-get" not in client.get("/nothing", headers=part).text
    assert "There is no such page" in client.get("/nothing", headers=part).text
    assert client.get("/nothing", headers=part).status_code == 200
    assert "<b>" not in client.get("/nothing", headers=part | {"hx-target": '"><b>'}).text
    page = client.get("/train/now", params=now)
    assert page.status_code == 500
    assert "made a mistake (RuntimeError)" in words(page)


def test_pages_have_landmarks_headings_and_names(built):
    client = make_client(built)
    for path in (
        "/",
        "/data?set=sets/phantoms",
        "/train?run=runs/first run",
        "/start",
        "/time?run=runs/first run",
        "/generate",
        "/generate?model=pneumonia-64",
    ):
        text = client.get(path).text
        for part in ('<html lang="en">', "<header", '<nav aria-label="Pages">', '<main id="main"', "<footer", "<h1>"):
            assert text.count(part) == 1, (path, part)
        assert all('alt="' in image for image in re.findall(r"<img [^>]+>", text))
        assert 'name="viewport"' in text
        assert '<script defer src="/static/contact.js">' in text
        assert 'id="contact" role="alert" hidden></p>' in text
        assert "animation" not in text


def test_vendored_files_are_those_of_the_table():
    table = (STATIC / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \|.*`([\w.]+)` \| `([0-9a-f]{64})` \|$", table, flags=re.M)
    assert {name for name, _, _ in rows} == {path.name for path in STATIC.iterdir() if ".min." in path.name}
    for name, licence, sha256 in rows:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == sha256
        assert (STATIC / licence).is_file()


LIGHT = """
import json, sys
sys.path += sys.argv[2:]
from studio import make_client
client = make_client(sys.argv[1])
for path in ("/", "/data?set=sets/phantoms", "/data/sheet.png?set=sets/phantoms", "/train?run=runs/first run",
             "/train/curves?run=runs/first run", "/start", "/time?run=runs/first run", "/generate",
             "/generate?model=pneumonia-64", "/compare"):
    assert client.get(path).status_code == 200, path
heavy = {"torch", "torchvision", "scipy", "skimage", "pydicom", "lightning_fabric"} & set(sys.modules)
status = open("/proc/self/status").read() if sys.platform == "linux" else "VmRSS: 0"
print(json.dumps([sorted(heavy), int(status.partition("VmRSS:")[2].split()[0]) // 1024]))
"""


def test_no_page_needs_torch(built, run_script):
    installed = Path(importlib.util.find_spec("starlette").origin).parents[1]
    heavy, megabytes = run_script(LIGHT, built, Path(__file__).parent, installed)
    assert heavy == []
    assert megabytes < 300


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--i-know"], None),
        (["--host", "::1", "--i-know"], None),
        (["--host", "192.0.2.1", "--i-know"], "look at the pictures of your patients, and start and stop trainings."),
        (["--host", "192.0.2.1", "--i-know", "--read-only"], "look at the pictures of your patients. Nothing is enc"),
    ],
)
def test_what_an_address_for_others_means_is_said_and_only_then(tmp_path, capsys, monkeypatch, options, said):
    served = []
    monkeypatch.setattr("samgan.studio.serve.serve", lambda root, **how: served.append(how))
    assert main(["studio", str(tmp_path), *options]) == 0
    assert len(served) == 1
    err = capsys.readouterr().err
    assert ("Other machines" in err) == (said is not None)
    assert (said or "") in err


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys, monkeypatch):
    assert main(["studio", str(tmp_path / "nothing")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["studio", str(tmp_path), "--host", "192.0.2.1"]) == 2
    assert "--i-know" in capsys.readouterr().err
    assert main(["studio", str(tmp_path), "--host", "192.0.2.1", "--i-know", "--no-browser"]) == 1
    assert "cannot be used" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "samgan.studio.serve", raising=False)
    assert main(["studio", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "samgan: error: uvicorn is not installed: pip install 'samgan[studio]'\n"
