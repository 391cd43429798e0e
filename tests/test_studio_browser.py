"""The studio in a real browser, with the keyboard alone: look at a set, train on it, watch, stop, go through time."""

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
from studio import train

from samgan.data import SetInfo, prepare
from samgan.runs.readers import ReaderTest
from samgan.studio import processes
from samgan.studio.catalogue import Catalogue
from samgan.studio.places import Root

pytestmark = pytest.mark.slow
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 120_000
"""Milliseconds that a training may take to begin or to end."""


@pytest.fixture(scope="module")
def root(tmp_path_factory, twelve_phantoms):
    """A root with a small set: of real X-rays where there are some, else of phantoms."""
    folder, source = tmp_path_factory.mktemp("studio"), twelve_phantoms
    if REAL_IMAGES.is_dir():
        source = folder.parent / "xrays"
        for name in ("NORMAL", "PNEUMONIA"):
            (source / name).mkdir(parents=True)
            for path in sorted((REAL_IMAGES / name).iterdir())[:30]:
                shutil.copy(path, source / name)
    prepare(source, folder / "set", resolution=32, holdout=0.5, workers=1)
    return folder


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
    page.wait_for_selector("#cost .outcome:has-text('500 kimg')", timeout=PATIENCE)
    tab_to(page, "#begin")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Run: runs/one')")
    page.wait_for_selector("#now .state.running", timeout=PATIENCE)
    page.wait_for_selector("#now img", timeout=PATIENCE)
    page.wait_for_selector("#curves canvas", timeout=PATIENCE)
    assert page.locator("#curves figure h3").first.text_content() == "Losses"

    deadline = time.monotonic() + PATIENCE / 1000
    while len(list((root / "runs/one/grids").glob("kimg-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    tab_to(page, "#stop")
    page.keyboard.press("Enter")
    page.wait_for_selector("#now .state.stopped", timeout=PATIENCE)
    assert page.locator("#resume").is_visible()
    assert "stopped by SIGTERM" in page.locator("pre").text_content()

    tab_to(page, "#now figcaption a")
    page.keyboard.press("Enter")
    page.wait_for_selector("#at")
    shown = page.locator("#frame img").get_attribute("src")
    tab_to(page, "#at")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("shown => document.querySelector('#frame img').getAttribute('src') !== shown", arg=shown)
    assert page.evaluate("document.querySelector('#frame img').decode().then(() => true)")
    page.wait_for_function("document.querySelector('#curves .u-value')?.textContent.startsWith('0')")  # the cursor
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
        page.wait_for_function("document.getElementById('blind').complete && document.activeElement.id === 'test'")
        if n == 3:  # closed, and opened again
            page.reload()
            page.wait_for_function("document.getElementById('blind').complete && document.activeElement.id === 'test'")
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


@pytest.mark.parametrize("width", [390, 3840])
def test_every_page_fits_a_phone_and_a_wall_in_the_dark(enter, width):
    page = enter(viewport={"width": width, "height": 900}, color_scheme="dark")
    start = page.url.rstrip("/")
    for path in (
        "/",
        "/data",
        "/data?set=set",
        "/train",
        "/start?set=set",
        "/time",
        "/train?run=nothing",
        "/generate",
        "/generate?model=pneumonia-64",
        "/generate/walk?model=pneumonia-64",
    ):
        page.goto(start + path)
        page.wait_for_load_state()
        if "model=" in path:
            page.wait_for_selector("#made .shots", timeout=PATIENCE)
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
