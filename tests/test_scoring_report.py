import base64
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from samgan.config import Config
from samgan.errors import SamganError
from samgan.pages import figures
from samgan.pictures import SYNTHETIC, image_grid
from samgan.runs import Environment, TrainedOn
from samgan.scoring import SCORES, Classes, FeaturesUsed, Scored, Scores, report, score_images, words, write_report

VOID = {"meta", "link", "img", "br", "hr", "input"}
HOSTILE = '</style><script>alert(\'x\')</script><img src=x onerror="alert(1)">" onload="x" &amp;$title | {} \x00'


class Page(HTMLParser):
    """What a browser would see; fails on tags that are not balanced."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def draw(count: int, channels: int = 1, resolution: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, resolution, resolution), dtype=np.uint8)


def train_line(step: int, **values: object) -> dict:
    line = {"kind": "train", "step": step, "images_seen": 100 * step, "wall_seconds": 1.0, "images_per_second": 9.0}
    losses = {"loss_discriminator": 2.0, "loss_generator": 1.0, "logit_real": 0.5, "logit_fake": -0.5, "gamma": {}}
    return line | losses | {"sign_real": 0.4, "augment": 0.0} | values


def write(folder: Path, **changes: object) -> tuple[str, Page]:
    arguments = {
        "title": "A run",
        "config": None,
        "stats": [],
        "scores": None,
        "real": draw(9),
        "fake": draw(9, seed=1),
    }
    write_report(folder / "report.html", **(arguments | changes))
    source = (folder / "report.html").read_text()
    return source, Page(source)


def charts(source: str) -> dict[str, ElementTree.Element]:
    found = re.findall(r'<h3>([^<]*)</h3>(<svg class="chart".*?</svg>)', source, re.DOTALL)
    return {title: ElementTree.fromstring(svg) for title, svg in found}


def curves(chart: ElementTree.Element) -> list[list[tuple[float, float]]]:
    paths = [path.get("d", "") for path in chart.iter("path") if (path.get("class") or "axis") != "axis"]
    return [[tuple(map(float, point.split())) for point in path[1:].split("L")] for path in paths]


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score_images(real=draw(40), fake=draw(40, seed=1), features=None, skip_reason="no weights <here>")


@pytest.fixture(scope="module")
def stats() -> list[dict]:
    lines = [train_line(step, penalty=0.1, gamma={"generator_32": 0.01 * step}) for step in range(1, 31)]
    quick = {
        "quick_score": 19.0,
        "swd": 9.0,
        "thumbnail_frechet": 4.0,
        "ms_ssim_real": 0.5,
        "ms_ssim_generated": 0.6,
        "ms_ssim_gap": 0.1,
        "own_score": 3.0,
    }
    return [*lines, {"kind": "scores", "step": 30, "images_seen": 3000, **quick}]


def test_page_holds_everything_and_loads_nothing(tmp_path, scores, stats):
    command = ("samgan", "train", "--name", "a b")
    environment = Environment(samgan="0.1", packages={"torch": "2.6"}, command=command, cores=2)
    config = Config().override({"preset": "samgan-8", "training.kimg": 50})
    notes = ["Phantoms are not patients."]
    source, page = write(
        tmp_path, config=config, stats=iter(stats), scores=scores, environment=environment, notes=notes
    )
    assert "://" not in re.sub(r"base64,[^\"]*", "", source)
    assert "@import" not in source
    assert "url(" not in source
    assert not page.all("script")
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:")
    for text in (*notes, SYNTHETIC, scores.mode_collapse.verdict, "samgan-8", "no weights <here>"):
        assert text in page.text
    rows = {cells[0]: cells for cells in page.cells if cells}
    assert rows["training.kimg"][1] == "50.0 (default: 1808.0)"
    assert rows["network.resolution"][1] == "64"
    assert rows["packages.torch"] == ["packages.torch", "2.6"]
    assert rows["command"] == ["command", "samgan train --name 'a b'"]
    assert set(charts(source)) == {title for title, *_ in report.CHARTS} | {"Self-attention", "own_score"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


def test_page_without_anything_optional(tmp_path):
    source, page = write(tmp_path)
    assert not charts(source)
    assert "Nothing logged." in page.text
    assert "Not scored." in page.text
    assert "Configuration" not in page.text
    assert "Environment" not in page.text
    assert SYNTHETIC in page.text


def test_hostile_texts_come_out_as_text(tmp_path, scores):
    line = train_line(1, gamma={HOSTILE: 1.0})
    _, page = write(
        tmp_path,
        title=HOSTILE,
        notes=[HOSTILE],
        config=Config().override({"preset": HOSTILE, "data.classes": [HOSTILE]}),
        stats=[line, {"kind": "scores", "step": 1, "images_seen": 100, HOSTILE: 2.0}],
        scores=replace(scores, features=FeaturesUsed(HOSTILE, HOSTILE, 8)),
        environment=Environment(
            packages={HOSTILE: HOSTILE}, command=(HOSTILE,), data=TrainedOn("surrogate \udcff", "ab" * 32)
        ),
    )
    assert not page.all("script")
    assert len(page.all("img")) == 2
    assert len(page.all("style")) == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    # Title, heading, note, preset, features and sha, environment's key and value: each arrives letter by letter.
    assert page.text.replace("\ufffd", "\x00").count(HOSTILE) >= 8
    assert "surrogate \\udcff" in page.text.replace("\\\\", "\\")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("resolution", "columns", "count"), [(32, 8, 64), (64, 8, 64), (128, 4, 16)])
def test_grids_show_as_many_real_as_generated_images(tmp_path, channels, resolution, columns, count):
    real, fake = draw(130, channels, resolution), draw(64, channels, resolution, seed=1)
    _, page = write(tmp_path, real=real, fake=fake)
    shown = []
    for image, alt in zip(page.all("img"), ("Real", "Generated"), strict=True):
        assert image["alt"].startswith(alt)
        content = io.BytesIO(base64.b64decode(image["src"].removeprefix("data:image/png;base64,")))
        with Image.open(content) as picture:
            shown.append(np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1))
            assert int(image["width"]) / picture.width in (2, 3)
            assert (SYNTHETIC in picture.text["Description"]) == (alt == "Generated")
    for images, grid in zip((real, fake), shown, strict=True):
        spread = images[[index * len(images) // count for index in range(count)]]
        np.testing.assert_array_equal(grid, image_grid(spread, columns))


def test_fewer_images_of_one_kind_decide_for_both(tmp_path):
    _, page = write(tmp_path, real=draw(3))
    assert [image["alt"] for image in page.all("img")] == [f"{kind}: a grid of 3" for kind in ("Real", "Generated")]


@pytest.mark.parametrize("name", ["real", "fake"])
def test_no_images_is_an_error_and_leaves_the_old_report(tmp_path, name):
    before, _ = write(tmp_path)
    with pytest.raises(SamganError, match="real and generated images"):
        write(tmp_path, **{name: draw(0)})
    assert (tmp_path / "report.html").read_text() == before


def test_score_table_has_every_score_beside_its_floor(tmp_path, scores):
    given = replace(scores, scores={**scores.scores, "frechet": Scored(31.25, 24.5)})
    _, page = write(tmp_path, scores=given)
    rows = {cells[0]: cells[1:] for cells in page.cells if cells}
    assert rows["Frechet distance"] == ["31.250", "24.500", "↓ lower"]
    levels = {f"SWD x 1000 at {level} px": score for level, score in scores.swd_by_level.items()}
    for label, score in {**levels, "SWD x 1000, mean": scores.scores["swd"]}.items():
        assert [float(cell) for cell in rows[label][:2]] == pytest.approx([score.value, score.floor], abs=0.006)
    for skipped in scores.skipped:
        assert skipped.reason in page.text
        assert skipped.score in page.text


@pytest.mark.parametrize("collapsed", [False, True])
def test_mode_collapse_stands_out(tmp_path, collapsed):
    noise, one = draw(40), draw(1, seed=1).astype(int)
    fake = np.clip(one + draw(40, seed=2) % 20, 0, 255).astype(np.uint8) if collapsed else draw(40, seed=3)
    found = score_images(real=noise, fake=fake, features=None)
    _, page = write(tmp_path, scores=found)
    assert [attributes.get("class") for attributes in page.all("p")].count("banner") == 1 + collapsed


def test_every_class_has_its_line_verdict_and_curve(tmp_path):
    images, names = draw(80), np.repeat(["NORMAL", "PNEU | <MONIA>"], 40)
    fake = draw(40, seed=1)
    fake[20:] = fake[20]
    found = score_images(real=images, fake=fake, features=None, classes=Classes(names, names[::2]))
    gaps = [{"NORMAL": 0.1 * step, "PNEU_MONIA": -0.1} for step in (1, 2)]
    lines = [
        {"kind": "scores", "step": k, "images_seen": 100 * k, "ms_ssim_gap_by_class": gap} for k, gap in enumerate(gaps)
    ]
    source, page = write(tmp_path, scores=found, stats=lines)
    rows = {cells[0]: cells[1:] for cells in page.cells if cells}
    assert rows["NORMAL"][0] == rows["PNEU / <MONIA>"][0] == "20"
    banners = [attributes.get("class") for attributes in page.all("p")].count("banner")
    assert banners - 1 == page.text.count(": mode collapse (") >= 1
    assert "Verdict on PNEU / <MONIA>: mode collapse" in page.text
    assert len(curves(charts(source)["MS-SSIM gap by class"])) == 2


def test_scores_read_back_from_json_give_the_same_page(tmp_path, scores):
    read = Scores.from_dict(json.loads(json.dumps(scores.to_dict())), "scores.json")
    assert write(tmp_path, scores=read)[0] == write(tmp_path, scores=scores)[0]


def test_chart_draws_the_values(tmp_path):
    values = [3.0, -1.0, 2.0, 0.5]
    lines = [train_line(step, penalty=value) for step, value in enumerate(values, start=1)]
    chart = charts(write(tmp_path, stats=lines)[0])["Penalty"]
    (curve,) = curves(chart)
    across, up = np.array(curve).T
    kimg = np.arange(1, 5) * 0.1
    # The scale is read off the axis' own labels, as a reader would.
    texts = [(text.text, float(text.get("x")), float(text.get("y"))) for text in chart.iter("text")]
    labels_y = [(y, float(text)) for text, x, y in texts if x == 56]
    labels_x = [(x, float(text)) for text, x, y in texts if y == 250]
    np.testing.assert_allclose(np.polyval(np.polyfit(*zip(*labels_y, strict=True), 1), up), values, atol=0.01)
    np.testing.assert_allclose(np.polyval(np.polyfit(*zip(*labels_x, strict=True), 1), across), kimg, atol=0.001)
    assert "Lowest -1, highest 3" in chart.get("aria-label")


def test_curves_are_thinned_and_keep_their_spikes(tmp_path):
    values = np.sin(np.arange(5001) / 300)
    values[1234], values[4000] = 40.0, -40.0
    lines = [train_line(step, penalty=value) for step, value in enumerate(values.tolist(), start=1)]
    source, _ = write(tmp_path, stats=lines)
    (curve,) = curves(charts(source)["Penalty"])
    across, up = np.array(curve).T
    assert 300 <= len(curve) <= 400
    assert np.all(np.diff(across) >= 0)
    assert np.ptp(up) == pytest.approx(200 / 1.1, abs=0.2)  # the whole height less its margins
    assert len(source) < 200_000


def test_what_is_no_finite_number_is_left_out(tmp_path):
    values = [1.0, math.nan, math.inf, -math.inf, None, "7", True, 10**400, 2.0]
    lines = [train_line(step, penalty=value) for step, value in enumerate(values, start=1)]
    lines.append({"kind": "train", "penalty": 3.0})  # no images_seen
    source, page = write(tmp_path, stats=lines)
    (curve,) = curves(charts(source)["Penalty"])
    assert len(curve) == 2
    assert "nan" not in page.text.lower().split()


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=6))
def test_any_floats_give_a_readable_chart(values):
    line = [{"kind": "train", "images_seen": 1000 * k, "penalty": value} for k, value in enumerate(values)]
    page = "".join(report.curve_charts(line))
    assert not re.search(r"\b(nan|inf)\b", page)
    Page(page)
    for chart in charts(page).values():
        for across, up in curves(chart)[0]:
            assert 64 <= across <= 470
            assert 30 <= up <= 230


@given(st.floats(-1e12, 1e12), st.floats(1e-3, 1e12))
def test_ticks_are_few_round_and_inside(low, span):
    ticks = figures._ticks(low, low + span)
    assert 2 <= len(ticks) <= 9
    steps = np.diff(ticks)
    tolerance = 1e-9 * (abs(low) + span)
    assert ticks[0] >= low - tolerance
    assert ticks[-1] <= low + span + tolerance
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0] * (1 + 1e-9)))
    if span > 1e-6 * abs(low):  # below, the difference of two ticks is rounding noise
        assert min(abs(mantissa - factor) for factor in (1, 2, 5)) < 1e-3


def test_curves_of_one_chart_differ_in_colour_or_dash(tmp_path):
    gammas = {f"{network}_{4 << scale}": 0.1 for network in ("generator", "discriminator") for scale in range(7)}
    chart = charts(write(tmp_path, stats=[train_line(1, gamma=gammas), train_line(2, gamma=gammas)])[0])[
        "Self-attention"
    ]
    styles = [path.get("class") for path in chart.iter("path") if (path.get("class") or "axis") != "axis"]
    assert len(set(styles)) == len(gammas)


def test_colours_can_be_told_from_the_background():
    def luminance(colour: str) -> float:
        digits = colour * 2 if len(colour) == 3 else colour
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    def contrast(one: str, other: str) -> float:
        light, dark = sorted((luminance(one), luminance(other)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    for theme in (
        (Path(figures.__file__).parent / "templates" / "style.css").read_text().split("prefers-color-scheme: dark")
    ):
        colours = dict(re.findall(r"--(\w+): #(\w+)", theme))
        for name, least in {"fore": 7, "faint": 4.5, **{f"c{index}": 3 for index in range(figures.COLOURS)}}.items():
            assert contrast(colours[name], colours["back"]) >= least, name
            assert contrast(colours[name], colours["panel"]) >= least, name
        assert contrast(colours["fore"], colours["warn"]) >= 7


def test_the_outcome_comes_first_in_words(tmp_path, scores):
    given = replace(scores, scores={**scores.scores, "frechet": Scored(30.0, 10.0)})
    source, page = write(tmp_path, scores=given)
    assert "3.0 times its floor (30.000 against 10.000)" in page.text
    assert source.index("times its floor") < source.index("<h3>Real</h3>") < source.index("real against real (floor)")
    found = [attributes.get("class") for attributes in page.all("p")]
    assert "outcome" in found
    assert "outcome bad" not in found


def test_a_floor_at_fewer_images_is_no_yardstick(tmp_path, scores):
    given = replace(scores, scores={**scores.scores, "frechet": Scored(30.0, 10.0)}, count=40, floor_count=20)
    _, page = write(tmp_path, scores=given)
    assert "30.000 at 40 images per set. Real images score 10.000 against other real ones at 20 per set" in page.text
    assert "real against real (floor at 20 images)" in page.text
    assert "at 20 images per set. The generated ones are scored at 40" in page.text
    assert "times its floor" not in page.text
    assert words.FLOOR not in page.text


def test_every_score_says_how_to_read_it(tmp_path, scores):
    given = replace(scores, scores={**dict.fromkeys(SCORES, Scored(1.0, 1.0)), **scores.scores})
    _, page = write(tmp_path, scores=given)
    assert words.READING.keys() == {"MS-SSIM [95 %]", *SCORES}
    for sentence in words.READING.values():
        assert page.text.count(sentence) == 1


def test_snapshots_show_how_training_went(tmp_path):
    grids = []
    for number in range(20):
        grids.append(tmp_path / f"kimg-{number:02d}.png")
        Image.fromarray(image_grid(np.full((64, 1, 64, 64), number, np.uint8))[0]).save(grids[-1])
    grids[0].write_bytes(b"damaged")
    _, page = write(tmp_path, config=Config(), grids=grids)
    (image,) = [image for image in page.all("img") if image["alt"].startswith("How training went")]
    with Image.open(io.BytesIO(base64.b64decode(image["src"].partition("base64,")[2]))) as picture:
        rows = [picture.getpixel((0, 65 * row)) for row in range((picture.height + 1) // 65)]
    assert rows == [2, 5, 8, 10, 13, 16, 19]  # of eight evenly spaced, but for the damaged one
    _, page = write(tmp_path, config=Config(), grids=grids[-1:])
    assert "How training went" not in page.text


def test_a_story_leads_the_reader(tmp_path):
    story = report.Story(
        title="Another", introduction=(HOSTILE,), reference="Drawn", next_steps=(("samgan x", "does y"),)
    )
    _, page = write(tmp_path, config=Config(), story=story)
    for shown in ("Another", HOSTILE[:-1], "Drawn", "samgan x", "does y"):
        assert shown in page.text
    _, page = write(tmp_path, config=Config())
    assert "samgan audit RUN --data DATA" in page.text
    _, page = write(tmp_path)
    assert "What to do next" not in page.text
