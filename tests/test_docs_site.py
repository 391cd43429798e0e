"""The site: its pages hold everything that there is, its links lead somewhere, and it needs no network to be read."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from PIL import Image

import samgan
from samgan.commands.main import COMMANDS
from samgan.config import settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NO_PAGES = {"_build", "pictures"}
PAGES = sorted(path for path in DOCS.rglob("*.md") if NO_PAGES.isdisjoint(path.parts))
OTHERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("results/*/README.md"), *ROOT.glob("samgan/models/*.md")])
"""Documents that are not pages of the site."""
FENCE = re.compile(r"^(`{3,}|:{3,}).*?^\1\s*$", flags=re.S | re.M)
# Where pages of the site may lead; nothing is fetched here.
HOSTS = {
    *("arxiv.org", "doi.org", "docs.kidger.site", "download.pytorch.org", "github.com", "pypi.org", "pytorch.org"),
    *("dl.fbaipublicfiles.com", "huggingface.co", "keepachangelog.com"),
}


def load(name):
    """A module of docs/_site, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"_site/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


diagrams = load("diagrams")


def links(page):
    """Targets of links and pictures of a page, without what stands in blocks of code."""
    text = page.read_text("utf-8")
    pictures = re.findall(r"^```\{image\} (\S+)", text, flags=re.M) + re.findall(r'<img src="([^"]+)"', text)
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))) + pictures


def anchors(page):
    """Anchors of the headings of a page, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert (parts.scheme, parts.netloc in HOSTS) == ("https", True), link
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if parts.fragment:
            assert parts.fragment in anchors(target), link


def test_every_page_is_in_the_table_of_contents():
    text = (DOCS / "index.md").read_text("utf-8")
    trees = re.findall(r"^```\{toctree\}\n(?::[^\n]*\n)*\n(.*?)^```", text, flags=re.S | re.M)
    listed = [re.sub(r".*<(.+)>", r"\1", line) for tree in trees for line in tree.split("\n") if line]
    assert len(set(listed)) == len(listed)
    assert {DOCS / f"{name}.md" for name in listed} == set(PAGES) - {DOCS / "index.md"}


def test_every_public_name_is_described():
    text = (DOCS / "reference/api.md").read_text("utf-8")
    assert sorted(re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)$", text, flags=re.M)) == samgan.__all__


def test_diagrams_are_drawn_from_what_the_pages_say():
    drawn = {name: source for page in PAGES for name, source in diagrams.diagrams_of(page)}
    assert drawn
    for name, source in drawn.items():
        assert diagrams.drawing(name, source), f"{name}: run docs/_site/draw_diagrams.py"
    assert {path.stem for path in diagrams.DIAGRAMS.iterdir()} == set(drawn)


def test_no_address_is_fetched_by_drawings():
    for path in diagrams.DIAGRAMS.iterdir():
        assert set(re.findall(r"https?://[^\"' )]+", path.read_text("utf-8"))) <= {"http://www.w3.org/2000/svg"}


def test_pictures_of_the_studio_are_small_and_say_what_they_show():
    named = {path.name for path in (DOCS / "pictures").glob("studio-*.png")}
    assert named == {Path(link).name for link in links(DOCS / "studio.md") if link.endswith(".png")}
    for name in named:
        path = DOCS / "pictures" / name
        assert path.stat().st_size <= 120_000, name
        with Image.open(path) as picture:
            assert picture.text["Description"].startswith("A page of samgan studio."), name


def test_the_workflow_builds_the_site_as_make_does():
    steps = yaml.safe_load((ROOT / ".github/workflows/docs.yml").read_text("utf-8"))["jobs"]["build"]["steps"]
    assert any(step.get("run") == "make docs" for step in steps)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, in which every warning is an error."""
    for name in ("sphinx", "myst_parser", "furo", "sphinx_copybutton", "sphinx_design"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", str(DOCS), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_needs_no_network(site):
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"(?:https?:)?//[^\"]+", text), page
        assert not re.findall(r"<link[^>]+rel=\"(?:stylesheet|preload|preconnect)\"[^>]+href=\"(?:https?:)?//", text), (
            page
        )
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text("utf-8")), sheet


def test_every_option_and_setting_is_on_its_page(site):
    def words(name):
        return re.sub(r"<[^>]+>", "", (site / "reference" / name).read_text("utf-8"))

    text = words("commands.html")
    for command in COMMANDS:
        assert f"samgan {command.name}" in text
    assert "--patient-regex REGEX" in text
    text = words("settings.html")
    for setting in settings():
        assert setting.key in text


def test_no_mermaid_source_is_left(site):
    for page in site.rglob("*.html"):
        assert "flowchart TD" not in page.read_text("utf-8")
    assert '<svg id="architecture-1"' in (site / "architecture.html").read_text("utf-8")


def test_an_attribute_keeps_its_words(site):
    """Napoleon takes what stands before a colon for a type."""
    text = re.sub(r"<[^>]+>", "", (site / "reference" / "api.html").read_text("utf-8"))
    assert "Classes to train on; none: all." in text
