"""Time: the scales of a checkpoint and where its attention looks, made by the process that makes pictures."""

import html
import io
import re

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the studio is not installed: pip install 'samgan[studio]'")
pytest.importorskip("httpx", reason="starlette's client for tests needs httpx")

from studio import make_client, make_worker, train

from samgan.networks import ATTENTION, SelfAttention
from samgan.pictures import image_grid, to_uint8
from samgan.runs import Run
from samgan.sampling import attention_sheet, load_model, scales_sheet
from samgan.studio import models
from samgan.studio.models import FoundModel

PART = {"hx-request": "true"}
ONE = {"run": "run", "checkpoint": "step-00000003.pt", "seed": "5"}


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_config):
    """A run with two checkpoints, and one without attention that makes images of one size only."""
    folder = tmp_path_factory.mktemp("times")
    train(folder / "run", tiny_config)
    train(folder / "run", tiny_config, seed=1, step=9)
    network = {"generator_attention": [], "generator_blocks": "grouped", "num_classes": 2, "scales": "largest"}
    more = {
        "spectral_norm": "none",
        "discriminator_blocks": "grouped",
        "discriminator_attention": [],
        "minibatch_std": "none",
    }
    train(folder / "plain", tiny_config.override({"network": network | more, "data.classes": ["A", "B"]}))
    (folder / "empty" / "checkpoints").mkdir(parents=True)
    (folder / "empty" / "config.json").write_text((folder / "run" / "config.json").read_text("utf-8"), "utf-8")
    return folder


@pytest.fixture(scope="module")
def client(root):
    return make_client(root, worker=make_worker())


def rows(client, **wanted):
    """The part of the page, and its pictures as arrays with their text."""
    page = client.get("/time", params=wanted, headers=PART)
    found = [html.unescape(address) for address in re.findall(r'src="(/time/inside.png[^"]+)"', page.text)]
    opened = [Image.open(io.BytesIO(client.get(address).content)) for address in found]
    return page.text, [(np.asarray(image)[None], image.text) for image in opened]


@pytest.mark.parametrize(("show", "count"), [("scales", 4), ("attention", 3)])
@pytest.mark.parametrize("step", [3, 9])
def test_rows_are_those_of_the_sheets_of_the_chosen_checkpoint(client, root, show, count, step):
    name = f"step-{step:08d}.pt"
    model = load_model(Run.open(root / "run"), str(root / "run" / "checkpoints" / name))
    sheet = (scales_sheet if show == "scales" else attention_sheet)(model, list(range(5, 13)))
    text, pictures = rows(client, run="run", checkpoint=name, seed="5", show=show)
    assert len(pictures) == count
    for (picture, words), row in zip(pictures, to_uint8(sheet).split(8), strict=True):
        np.testing.assert_array_equal(picture, image_grid(row.numpy(), 8))
        assert words["Synthetic"] == "true"
        assert words["Model-SHA256"] == model.sha256
        assert words["Seed"] == "5..."
    shown = [words["Shows"] for _, words in pictures]
    if show == "scales":
        assert shown == [f"images at {side} px" for side in (4, 8, 16, 32)]
    else:
        assert shown == ["the images", "attention at 8 px, gate 0", "attention at 16 px, gate 0"]
    assert f"at {4 * step / 1000:g} kimg" in text
    assert "seeds 5 to 12" in text
    assert "SYNTHETIC IMAGE" in text


def test_the_page_offers_what_is_there_and_makes_nothing_by_itself(root):
    worker = make_worker()
    page = make_client(root, worker=worker).get("/time", params={"run": "run"}).text
    assert page.count('<option value="step-') == 2
    assert '<option value="step-00000009.pt" selected>' in page
    assert "Show where attention looks" in page
    assert "Pictures of patients" not in page
    assert worker.asked == 0


def test_a_generator_of_one_size_without_attention_says_so(client):
    text, pictures = rows(client, run="plain", show="scales", **{"class": "B"})
    assert len(pictures) == 1
    assert pictures[0][1]["Class"] == "B"
    assert "images of one size only" in text
    text, pictures = rows(client, run="plain", show="scales")
    assert "Class" not in pictures[0][1]  # they take turns
    page = client.get("/time", params={"run": "plain"}).text
    assert "show-attention" not in page
    assert "has no attention that compares places" in page
    assert "has no checkpoint yet" in client.get("/time", params={"run": "empty"}).text


def test_without_scripts_a_link_shows_the_rows(client):
    page = client.get("/time", params=ONE | {"show": "scales"})
    assert "inside.png" not in page.text
    (address,) = (html.unescape(found) for found in re.findall(r'<noscript><p><a href="([^"]+)"', page.text))
    assert client.get(address).text.count("/time/inside.png") == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"checkpoint": "step-00000004.pt"}, {"checkpoint": "../../plain/checkpoints/step-00000003.pt"},
        {"show": "x"}, {"seed": "-1"}, {"seed": str(2**32 - 3)}, {"class": "A"}, {"run": "empty"},
        {"run": "plain", "show": "attention"},
    ],
)  # fmt: skip
def test_what_there_is_not_is_refused_in_words(client, wrong):
    asked = ONE | {"show": "scales"} | wrong
    part = client.get("/time", params=asked, headers=PART)
    assert 'class="outcome bad"' in part.text
    assert "<img" not in part.text
    assert client.get("/time/inside.png", params=asked | {"sha256": 64 * "0", "n": "0"}).status_code in (400, 409)


def test_pictures_of_a_checkpoint_that_has_changed_are_not_shown_as_its_own(tmp_path, tiny_config):
    train(tmp_path / "run", tiny_config)
    worker = make_worker()
    client = make_client(tmp_path, worker=worker)
    page = client.get("/time", params={"run": "run", "show": "scales"}, headers=PART).text
    address = html.unescape(re.search(r'src="(/time/inside.png[^"]+)"', page)[1])
    assert client.get(address).status_code == 200
    train(tmp_path / "run", tiny_config, seed=9)
    worker._kept.clear()
    answer = client.get(address)
    assert answer.status_code == 409
    assert "other weights by now" in answer.text


def test_what_is_known_without_torch_is_what_torch_says(tiny_config):
    assert set(models.COMPARING) == {name for name, kind in ATTENTION.items() if issubclass(kind, SelfAttention)}
    for kind in ATTENTION:
        config = tiny_config.override({"network.attention_kind": kind})
        assert FoundModel("", models.SHIPPED, "run", config, 0).attends == (kind in models.COMPARING)
