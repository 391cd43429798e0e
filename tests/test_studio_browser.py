"""The studio in a real browser, with the keyboard alone: look at a set, train on it, watch, stop, go through time."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("uvicorn", reason="the studio is not installed: pip install 'samgan[studio]'")
pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")

from conftest import REAL_IMAGES
from playwright.sync_api import sync_playwright
from studio import ORIGIN, RUN, held, make_client, make_run, make_worker, train, write_documents

from samgan.data import SetInfo, prepare
from samgan.data.phantom import write_phantoms
from samgan.locks import lock
from samgan.runs import Run
from samgan.runs.readers import ReaderTest
from samgan.sampling import load_model
from samgan.studio import processes
from samgan.studio.catalogue import Catalogue
from samgan.studio.places import Root

pytestmark = pytest.mark.slow
JUDGED = "runs/judged"
"""A run with weights, with a blinded test that is finished and one that is not."""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = (
    *("/", "/data", "/data?set=set", "/prepare", "/train", f"/train?run={RUN}", "/start?set=set", "/time"),
    *(f"/time?run={RUN}&real=1", f"/train/together?run={RUN}&run=runs/second", "/scores", f"/scores?at={RUN}"),
    *(f"/scores/compare?of={RUN}/scores.json&of=runs/second/scores.json", "/audit", f"/audit?at={RUN}", "/balance"),
    *("/balance?at=balanced", "/table2", "/table2?at=sweep", "/card", f"/card?at={RUN}", "/compare"),
    *("/generate", "/generate?model=pneumonia-64", "/generate/walk?model=pneumonia-64"),
    *("/generate/around?model=pneumonia-64", f"/compare?model={JUDGED}"),
)
"""Every page of the studio; `more_pages` has those whose addresses depend on weights and tests."""
SLOW_PARTS = {"/generate/nearest": "#near .pair", "/generate": "#made .shots", "/compare?": "#sides img"}
"""What comes later on pages whose pictures are made first."""
PATIENCE = 120_000
"""Milliseconds that a training may take to begin or to end."""


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_config):
    """A root with a small set, of real X-rays where there are some, else of phantoms; and a document of every kind."""
    folder = tmp_path_factory.mktemp("studio")
    source = folder.parent / "xrays"
    if not REAL_IMAGES.is_dir():
        write_phantoms(source, 30, 32)
    else:
        for name in ("NORMAL", "PNEUMONIA"):
            (source / name).mkdir(parents=True)
            for path in sorted((REAL_IMAGES / name).iterdir())[:30]:
                shutil.copy(path, source / name)
    data = prepare(source, folder / "set", resolution=32, holdout=0.5, workers=1)
    shutil.copytree(source, folder / "radiographs")
    for place in (RUN, "runs/second"):
        make_run(folder / place, tiny_config, sha256=data.sha256, checkpoint=5)
    write_documents(folder, data)
    info = json.loads((folder / "set" / "dataset.json").read_text("utf-8"))
    names = [row.source for row in data.manifest]
    several = [{"files": [f"a/{n}.png", f"b/{n}.png"], "classes": list(data.classes)} for n in range(13)]
    leak = {"what": "patients", "count": 1, "examples": [[names[0], names[-1]]]}
    (folder / "set" / "dataset.json").write_text(
        json.dumps(info | {"contradictions": several, "leaks": [leak]}), "utf-8"
    )
    both = tiny_config.override({"network.num_classes": 2, "data.classes": list(data.classes)})
    train(folder / JUDGED, both, sha256=data.sha256)
    client = make_client(folder, worker=make_worker())
    for reader in ("Ada", "Ben"):
        client.post("/compare/start", data={"model": JUDGED, "reader": reader}, headers=ORIGIN)
    (path,) = (folder / JUDGED / "reader-study").glob("ada-*")
    test = ReaderTest.read(path)
    while test.result is None:
        test = test.answer(said_real=test.answered % 3 == 0, seconds=2.0)
    test.write(path)
    return folder


@pytest.fixture
def more_pages(root):
    """Pages whose addresses depend on weights and tests; for the first two a command and a training run."""
    sha256 = load_model(Run.open(root / JUDGED)).sha256
    tests = sorted(path.stem for path in (root / JUDGED / "reader-study").iterdir())
    log = processes.log_path(Root(root), "audit runs/second")
    log.parent.mkdir(exist_ok=True)
    with open(log, "wb") as file, held(root / "runs" / "second"):
        file.write(b"$ samgan audit runs/second\n")
        file.flush()
        lock(file.fileno())
        yield (
            *("/audit?at=runs/second", "/train?run=runs/second"),
            f"/generate/nearest?model={JUDGED}&kind=seeds&sha256={sha256}&n=1",
            *(f"/compare/test?run={JUDGED}&test={name}" for name in tests),
        )
    log.unlink()


def settle(page, path):
    """Wait for what comes after the page itself."""
    page.wait_for_load_state("networkidle")
    slow = "model=" in path and next((part for start, part in SLOW_PARTS.items() if path.startswith(start)), None)
    if slow:
        page.wait_for_selector(slow, timeout=PATIENCE)
        page.wait_for_load_state("networkidle")


@pytest.fixture(scope="module")
def studio(root):
    """A server as a process of its own, and its link."""
    command = [sys.executable, "-m", "samgan", "studio", str(root), "--port", "0", "--no-browser"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    said = [process.stderr.readline() for _ in range(2)]
    yield process, re.search(r"http://\S+", said[1])[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    process.stderr.close()


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("there is no Chromium on this system")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def enter(browser, studio):
    """Open the link in a new window. Whatever leaves the origin, or is said on the console, is a failure."""
    contexts, wrong = [], []

    def open_link(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page, link = context.new_page(), studio[1]
        base = link.partition("?")[0]
        page.on("request", lambda request: None if request.url.startswith(base) else wrong.append(request.url))
        page.on("response", lambda answer: wrong.append(answer.url) if answer.status >= 400 else None)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(link)
        page.wait_for_url(base)
        return page

    yield open_link
    for context in contexts:
        context.close()
    assert wrong == []


def tab_to(page, selector):
    """Press Tab until an element has the focus, as somebody without a mouse does."""
    for _ in range(300):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement?.matches(wanted)", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def type_into(page, selector, text):
    tab_to(page, selector)
    page.keyboard.press("Control+A")
    page.keyboard.type(text)


def test_a_day_without_a_mouse(enter, studio, root):
    page = enter()
    tab_to(page, "a[href='/data?set=set']")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Data: set')")
    assert page.get_by_text("Pictures of patients are shown here").is_visible()
    before = page.locator("#sheet img").get_attribute("src")
    tab_to(page, "#sheet-more")
    page.keyboard.press("Enter")
    page.wait_for_function("before => document.querySelector('#sheet img').getAttribute('src') !== before", arg=before)
    assert page.evaluate("document.activeElement.id") == "sheet-more"

    page.goto(page.url)  # to the top
    tab_to(page, "a[href='/start?set=set']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#begin")
    type_into(page, "#name", "runs/one")
    type_into(page, "[name='training.batch_size']", "4")
    type_into(page, "[name='training.kimg']", "500")
    type_into(page, "[name='training.snapshot_every_kimg']", "0,04")
    tab_to(page, "#ask-cost")
    page.keyboard.press("Enter")
    page.wait_for_selector(".busy", state="visible")  # torch has to start
    page.wait_for_selector("#cost .outcome:has-text('500 kimg')", timeout=PATIENCE)
    assert not page.locator(".busy").is_visible()
    tab_to(page, "#begin")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Run: runs/one')")
    page.wait_for_selector("#now .state.running", timeout=PATIENCE)
    page.wait_for_selector("#now img", timeout=PATIENCE)
    page.wait_for_selector("#curves canvas", timeout=PATIENCE)
    assert page.locator("#curves figure h3").first.text_content() == "Losses"

    tab_to(page, "#said")
    before = page.locator("#now").get_attribute("hx-get")
    page.wait_for_selector(f"#now:not([hx-get='{before}'])", timeout=PATIENCE)
    assert page.evaluate("document.activeElement.id") == "said"  # the new part has what had the focus in the old one

    deadline = time.monotonic() + PATIENCE / 1000
    while len(list((root / "runs/one/grids").glob("kimg-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    tab_to(page, "#stop")
    page.keyboard.press("Enter")
    page.wait_for_selector("#now .state.stopped", timeout=PATIENCE)
    page.wait_for_selector("#resume", timeout=PATIENCE)  # the process has ended
    assert "stopped by SIGTERM" in page.locator("pre").text_content()

    tab_to(page, "#now figcaption a")
    page.keyboard.press("Enter")
    page.wait_for_selector("#at")
    shown = page.locator("#frame img").get_attribute("src")
    tab_to(page, "#at")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("shown => document.querySelector('#frame img').getAttribute('src') !== shown", arg=shown)
    assert page.evaluate("document.querySelector('#frame img').decode().then(() => true)")
    page.wait_for_function(
        "() => document.querySelector('#curves .u-value')?.textContent.startsWith('0')"
    )  # the cursor
    assert page.locator(".banner").count() == 0
    tab_to(page, "a[href*='real=1']")
    page.keyboard.press("Enter")
    page.wait_for_selector(".banner")


def test_pictures_of_a_model_without_a_mouse(enter):
    page = enter()
    tab_to(page, "a[href='/generate']")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Generate')")
    tab_to(page, "a[href='/generate?model=pneumonia-64']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#made .shots img", timeout=PATIENCE)
    assert page.locator("#made .shots img").count() == 12
    type_into(page, "#wish-seed", "41")
    type_into(page, "#wish-count", "3")
    page.keyboard.press("Enter")
    page.wait_for_selector("#made strong:has-text('Seed 43')", timeout=PATIENCE)
    assert page.locator("#made .shots img").count() == 3
    assert "seed=41&count=3" in page.url  # so the browser can go back to it
    assert page.evaluate("Promise.all([...document.images].map(i => i.decode())).then(() => true)")
    type_into(page, "#wish-truncation", "7")
    page.keyboard.press("Enter")
    page.wait_for_selector("#made [role=alert]:has-text('truncation: expected')")
    page.go_back()
    page.wait_for_selector("#made strong:has-text('Seed 43')", timeout=PATIENCE)
    with page.expect_download() as downloaded:
        tab_to(page, "a[download][href*='format=dicom&'], a[download][href$='format=dicom']")
        page.keyboard.press("Enter")
    assert downloaded.value.suggested_filename.endswith("-seeds-41-43-dicom.zip")

    tab_to(page, "#made a[href^='/generate/walk']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#walk-shown img", timeout=PATIENCE)
    before = page.locator("#walk-shown img").get_attribute("src")
    tab_to(page, "#walk-at")
    page.keyboard.press("ArrowRight")
    assert "1 of 16 steps from seed 41 to seed 42" in page.locator("#walk-words").text_content()
    assert page.locator("#walk-shown img").get_attribute("src") != before


def test_scales_and_attention_of_a_checkpoint_without_a_mouse(enter, root, tiny_config):
    train(root / "runs" / "inside", tiny_config)
    page = enter()
    page.goto(page.url + "time?run=runs/inside")
    tab_to(page, "#show-scales")
    page.keyboard.press("Enter")
    page.wait_for_selector("#inside .rows img", timeout=PATIENCE)
    assert page.locator("#inside .rows img").count() == 4
    tab_to(page, "#show-attention")
    page.keyboard.press("Enter")
    page.wait_for_selector("#inside figcaption:has-text('Attention at 16 px')", timeout=PATIENCE)
    assert page.locator("#inside .rows img").count() == 3
    assert page.evaluate("Promise.all([...document.images].map(i => i.decode())).then(() => true)")
    assert page.locator(".banner").count() == 0


def test_a_reader_without_a_mouse(enter, root, tiny_config):
    info = SetInfo.read(root / "set")
    config = tiny_config.override({"network.num_classes": 2, "data.classes": list(info.classes)})
    if not (root / "runs" / "read").exists():
        train(root / "runs" / "read", config, sha256=info.sha256)
    page = enter()
    tab_to(page, "a[href='/compare']")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Compare')")
    tab_to(page, "a[href*='runs%2Fread']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#sides img", timeout=PATIENCE)
    assert page.get_by_text("Pictures of patients are shown here").is_visible()
    assert page.locator("#sides img").count() == 4
    type_into(page, "#reader", "Reader Ä")
    page.keyboard.press("Enter")
    page.wait_for_selector("#test img", timeout=PATIENCE)
    for n in range(40):
        page.wait_for_selector(f"#test[aria-label='Picture {n + 1} of 40']")
        page.wait_for_function(
            "() => document.getElementById('blind').complete && document.activeElement.id === 'test'"
        )
        if n == 3:  # closed, and opened again
            page.reload()
            page.wait_for_function(
                "() => document.getElementById('blind').complete && document.activeElement.id === 'test'"
            )
        if n == 5:
            tab_to(page, "#say-real")
            page.keyboard.press("Enter")
        else:
            page.keyboard.press("s" if n % 3 else "R")
    page.wait_for_selector("#done")
    (path,) = (root / "runs" / "read" / "reader-study").iterdir()
    test = ReaderTest.read(path)
    assert [shown.said_real for shown in test.pictures] == [n % 3 == 0 or n == 5 for n in range(40)]
    assert f"{test.result.accuracy.count} of 40 right" in page.locator("#done").text_content()
    tab_to(page, "main p > a[href^='/compare?']")
    page.keyboard.press("Enter")
    page.wait_for_selector("th:has-text('Reader Ä')")


def test_nobody_judges_a_picture_that_did_not_come(enter, root):
    (path,) = (root / JUDGED / "reader-study").glob("ben-*")
    page = enter()
    page.route("**/compare/picture.png*", lambda route: route.fulfill(content_type="image/png", body=b""))
    page.goto(f"{page.url}compare/test?run={JUDGED}&test={path.stem}")
    page.wait_for_load_state("networkidle")
    page.keyboard.press("r")
    page.locator("#say-real").click()
    page.wait_for_load_state("networkidle")
    assert ReaderTest.read(path).answered == 0
    page.unroute("**/compare/picture.png*")
    page.reload()
    page.wait_for_function("() => document.getElementById('blind').naturalWidth > 0")
    page.locator("#say-real").click()
    page.wait_for_selector("#test[aria-label='Picture 2 of 40']")


@pytest.mark.parametrize("width", [390, 3840])
def test_every_page_fits_a_phone_and_a_wall_in_the_dark(enter, more_pages, width):
    page = enter(viewport={"width": width, "height": 900}, color_scheme="dark")
    start = page.url.rstrip("/")
    for path in (*more_pages, *PAGES, "/train?run=nothing"):
        page.goto(start + path)
        settle(page, path)
        root = "document.documentElement"
        assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0, path
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"


def test_a_training_goes_on_when_the_studio_is_killed(root):
    script = f"""
from samgan.studio import processes
from samgan.studio.places import Root
processes.start(Root({str(root)!r}), "runs/two", ["train", {str(root / "set")!r}, "--out={root}/runs/two",
    "--training.kimg=500", "--training.batch_size=4", "--training.snapshot_every_kimg=0.04"])
print("started", flush=True)
input()
"""
    server = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "started\n"
    server.kill()
    server.communicate()
    catalogue, end = Catalogue(Root(root)), time.monotonic() + PATIENCE / 1000
    while not (run := catalogue.describe_run("runs/two")).line and time.monotonic() < end:
        time.sleep(0.5)
    assert run.state == "running"
    processes.stop(root / "runs" / "two")
    while catalogue.describe_run("runs/two").state == "running" and time.monotonic() < end:
        time.sleep(0.2)
    assert catalogue.describe_run("runs/two").state == "stopped"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_shuts_anybody_out(enter, more_pages, scheme):
    """By the rules of axe-core, which knows contrast, names, roles and landmarks: no finding is serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = enter(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    start, found = page.url.rstrip("/"), []
    for path in (*more_pages, *PAGES):
        page.goto(start + path)
        settle(page, path)
        if path in more_pages[:2]:
            assert page.locator(".state.running").first.is_visible()
        page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        for finding in axe.Axe().run(page).response["violations"]:
            if finding["impact"] in ("serious", "critical"):
                found.append((path, finding["id"], [node["html"][:200] for node in finding["nodes"]]))
    assert found == []


def test_the_newest_words_of_a_long_output_are_seen_at_once(enter, root):
    log = processes.log_path(Root(root), RUN)
    log.parent.mkdir(exist_ok=True)
    log.write_text("".join(f"line {number}\n" for number in range(200)), "utf-8")
    page = enter()
    page.goto(f"{page.url}train?run={RUN}")
    assert page.evaluate("""() => {
        const box = document.getElementById("said"), text = box.firstChild, last = document.createRange();
        last.setStart(text, text.length - 1);
        last.setEnd(text, text.length);
        const [line, frame] = [last.getBoundingClientRect(), box.getBoundingClientRect()];
        return box.scrollHeight > box.clientHeight && frame.top < line.top && line.bottom <= frame.bottom;
    }""")
    log.unlink()


def test_runs_are_laid_over_each_other_without_a_mouse(enter):
    page = enter()
    page.goto(page.url + "train")
    for place in (RUN, "runs/second"):
        tab_to(page, f"input[type=checkbox][value='{place}']")
        page.keyboard.press("Space")
    tab_to(page, "#together")
    page.keyboard.press("Enter")
    page.wait_for_selector("#curves canvas")
    figure = page.locator("#curves figure", has_text="Losses: generator")
    assert figure.locator("figcaption").text_content().count("0.16 kimg") == 2
    labels = {text.strip(" :") for text in figure.locator(".u-label").all_text_contents()}
    assert {RUN, "runs/second"} <= labels


def test_a_list_of_runs_follows_and_disturbs_nobody(enter, root):
    page = enter(viewport={"width": 390, "height": 844})
    page.goto(page.url + "train")
    box = f"input[type=checkbox][value='{RUN}']"
    tab_to(page, box)
    page.keyboard.press("Space")
    scrolled = "document.querySelector('#list .scroll').scrollLeft"
    page.evaluate(f"{scrolled} = 40")
    shutil.copytree(root / RUN, root / "runs" / "later")
    page.wait_for_selector("#list a:text-is('runs/later')", timeout=PATIENCE)
    assert page.is_checked(box)
    assert page.evaluate("wanted => document.activeElement.matches(wanted)", box)
    assert page.evaluate(scrolled) == 40
    shutil.rmtree(root / "runs" / "later")
    page.wait_for_selector("#list a:text-is('runs/later')", state="detached", timeout=PATIENCE)


def test_near_duplicates_and_contradictions_are_turned_over_without_a_mouse(enter):
    page = enter()
    page.goto(page.url + "data?set=set")
    assert page.locator("#contradictions figure").count() == 12
    for count in (1, 12):
        tab_to(page, "#contradictions-more")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "count => document.querySelectorAll('#contradictions figure').length === count", arg=count
        )
        page.wait_for_function("() => document.activeElement.id === 'contradictions-more'")


def test_a_table_of_a_sweep_is_read_without_a_mouse(enter):
    page = enter()
    tab_to(page, "a[href='/table2']")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Table 2')")
    tab_to(page, "a[href='/table2?at=sweep']")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Table 2: sweep')")
    assert page.locator(".said dt").text_content() == "attention helps: undecided at this scale"
    assert page.locator("td:has-text('1.500')").is_visible()
    page.locator(".strips img").scroll_into_view_if_needed()
    assert page.evaluate("document.querySelector('.strips img').decode().then(() => true)")
    tab_to(page, "main a[href='/table2']")
    page.keyboard.press("Enter")
    page.wait_for_selector("a[href='/table2?at=sweep']")


def test_a_run_is_scored_and_audited_without_a_mouse(enter, root):
    page = enter()
    start = page.url
    for name, button, count, written in (
        ("scores", "#evaluate", "8", "scores.json"),
        ("audit", "#begin-audit", "8", "audit.json"),
    ):
        page.goto(start + name)
        tab_to(page, "#run")
        page.keyboard.type(JUDGED)
        tab_to(page, "#set")
        page.keyboard.type("set")
        type_into(page, "#count", count)
        tab_to(page, button)
        page.keyboard.press("Enter")
        page.wait_for_selector(f"h1:has-text('{JUDGED}')")
        page.wait_for_selector("#job a", timeout=PATIENCE)
        assert (root / JUDGED / written).is_file(), page.locator("#job pre").text_content()
        tab_to(page, "#job a")
        page.keyboard.press("Enter")
        page.wait_for_selector("main section table")
    assert page.get_by_text("Pictures of patients are shown here").is_visible()
    assert page.evaluate("document.querySelector('.pairs img').decode().then(() => true)")


def test_scores_are_compared_without_a_mouse(enter):
    page = enter()
    page.goto(page.url + "scores")
    for place in (RUN, "runs/second"):
        tab_to(page, f"input[type=checkbox][value='{place}/scores.json']")
        page.keyboard.press("Space")
    tab_to(page, "#compare")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Scores beside each other')")
    assert page.locator("svg[role=img]").get_attribute("aria-label").count("runs/second") == 2


def test_an_audit_is_signed_off_without_a_mouse(enter, root):
    page = enter()
    page.goto(page.url + f"audit?at={RUN}")
    assert page.get_by_text("Pictures of patients are shown here").is_visible()
    assert page.evaluate("document.querySelector('.pairs img').decode().then(() => true)")
    type_into(page, "#name", "Ada")
    tab_to(page, "#decision")
    page.keyboard.type("not")
    type_into(page, "#remark", "The first pair.")
    tab_to(page, "#sign")
    page.keyboard.press("Enter")
    page.wait_for_selector("#signed dt:has-text('Ada')")
    assert "not accepted" in page.locator("#signed dt").text_content()
    assert (root / RUN / "audit-sign-offs.json").is_file()


def test_a_folder_is_prepared_without_a_mouse(enter, root):
    page = enter()
    page.goto(page.url + "prepare")
    type_into(page, "#source", "radiographs")
    type_into(page, "#name", "prepared")
    tab_to(page, "#resolution")
    page.keyboard.type("32")
    tab_to(page, "#ask-foresee")
    page.keyboard.press("Enter")
    page.wait_for_selector("#foreseen .outcome:has-text('images would be read')", timeout=PATIENCE)
    assert not (root / "prepared").exists()
    tab_to(page, "#begin-prepare")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Data: prepared')")
    page.wait_for_selector("#job a, section h2:has-text('Counts')", timeout=PATIENCE)
    page.goto(page.url)
    page.wait_for_selector("section h2:has-text('Counts')")
    assert (root / "prepared" / "dataset.json").is_file()


def test_a_card_is_filled_in_advice_is_asked_for_and_a_stage_is_read_without_a_mouse(enter, root):
    page = enter()
    start = page.url
    page.goto(f"{start}card?at={RUN}")
    type_into(page, "textarea[name='answer:licence']", "cc-by-4.0")
    tab_to(page, "#write-card")
    page.keyboard.press("Enter")
    page.wait_for_selector("label.progress:has-text('1 of 2')")
    page.wait_for_selector("#job .stopped, #job a", timeout=PATIENCE)
    assert "samgan card" in page.locator("#job pre").text_content()  # its checkpoint is none, and it says so
    page.goto(f"{start}balance")
    type_into(page, "#target", "40")
    tab_to(page, "#ask-advice")
    page.keyboard.press("Enter")
    page.wait_for_selector("#advice li:has-text('Your set:')", timeout=PATIENCE)
    page.goto(f"{start}balance?at=balanced")
    tab_to(page, "a[href*='scores%2Fclass-']")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Scores: balanced/scores/class-')")


def serve(root, port):
    """A server of its own, and the link that it prints."""
    command = [sys.executable, "-m", "samgan", "studio", str(root), f"--port={port}", "--no-browser"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = [process.stderr.readline() for _ in range(2)]
    return process, re.search(r"http://\S+", said[1])[0]


def test_pages_say_that_the_studio_is_gone_or_was_started_again(browser, tmp_path, tiny_config):
    """One asks by itself (a run that is trained), one never does (Home), one is asked by a button (Prepare)."""
    run = make_run(tmp_path / "root" / "run", tiny_config)
    context, servers = browser.new_context(), []
    try:
        with held(run) as training:
            server, link = serve(run.parent, 0)
            servers.append(server)
            start = link.partition("?")[0]
            first = context.new_page()
            first.goto(link)
            first.wait_for_url(start)
            pages = {path: context.new_page() for path in ("", "prepare", "train?run=run")}
            for path, page in pages.items():
                page.goto(start + path)
                page.wait_for_load_state("networkidle")
                assert page.locator("#contact").is_hidden()
            shown = pages["train?run=run"]
            assert shown.locator("#now .state.running").is_visible()

            server.kill()
            server.wait()
            training.kill()
            training.wait()
            for field in ("#source", "#name"):
                pages["prepare"].locator(field).fill("radiographs")
            pages["prepare"].locator("#ask-foresee").click()
            for page in pages.values():
                page.wait_for_selector("main.old #contact:has-text('The studio does not answer')")
                assert "What stands here is not newer than" in page.locator("#contact").text_content()

            server, link = serve(run.parent, re.search(r":(\d+)/", start)[1])
            servers.append(server)
            for page in pages.values():
                page.wait_for_selector("main.old #contact:has-text('Open the link that samgan studio printed')")
                assert "started again" in page.locator("#contact").text_content()
            assert shown.locator("#now .state.running").is_visible()  # not known better, and called old

            first.goto(link)
            for page in pages.values():
                page.wait_for_selector("main:not(.old) #contact", state="hidden")
            shown.wait_for_selector("#now .state.stopped")
    finally:
        context.close()
        for server in servers:
            server.kill()
            server.communicate()
