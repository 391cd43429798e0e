"""Compare: both sides of a model, and a blinded test in which nothing but the picture tells what it is."""

import html
import io
import re
import shutil
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the studio is not installed: pip install 'samgan[studio]'")
pytest.importorskip("httpx", reason="starlette's client for tests needs httpx")
pytest.importorskip("uvicorn", reason="the studio is not installed: pip install 'samgan[studio]'")

from PIL import Image
from studio import ORIGIN, held, make_client, make_worker, train

from samgan.data import PreparedSet, prepare
from samgan.data.documents import ManifestRow
from samgan.data.phantom import write_phantoms
from samgan.errors import SamganError
from samgan.runs import Run
from samgan.runs.documents import TrainedOn
from samgan.runs.readers import ReaderTest, Shown, read_reader_tests
from samgan.sampling import load_model, sample
from samgan.studio.blinded import HALF, PICTURES, choose_pictures
from samgan.trust import OPEN, format_card, read_record

PART = {"hx-request": "true"}
CLASSES = ("NORMAL", "PNEUMONIA")


@pytest.fixture(scope="module")
def built(tmp_path_factory, tiny_config):
    """A root with a set of phantoms, a conditional run on it, and one that is not told the class."""
    folder = tmp_path_factory.mktemp("compare")
    write_phantoms(folder / "images", 24, resolution=32)
    data = prepare(folder / "images", folder / "root" / "set", resolution=32, holdout=0.5, workers=1)
    both = tiny_config.override({"network.num_classes": 2, "data.classes": list(data.classes)})
    train(folder / "root" / "both", both, sha256=data.info.sha256)
    train(folder / "root" / "plain", tiny_config.override({"data.classes": ["NORMAL"]}), sha256=data.info.sha256)
    train(folder / "root" / "foreign", tiny_config, sha256="f" * 64)
    return folder / "root"


@pytest.fixture(scope="module")
def worker():
    return make_worker()


@pytest.fixture
def root(built, tmp_path):
    shutil.copytree(built, tmp_path / "root")
    return tmp_path / "root"


def start(client, run="both", reader="R. A."):
    answer = client.post("/compare/start", data={"model": run, "reader": reader}, headers=ORIGIN)
    assert answer.status_code == 303
    return answer.headers["location"], re.search(r"test=([a-z0-9-]+)", answer.headers["location"])[1]


def say(client, name, n, said, run="both", **headers):
    typed = {"run": run, "test": name, "n": str(n), "said": said}
    return client.post("/compare/answer", data=typed, headers=ORIGIN | headers)


def show(client, name, n, run="both"):
    return client.get("/compare/picture.png", params={"run": run, "test": name, "n": str(n)})


def stored(root, name, run="both"):
    return ReaderTest.read(root / run / "reader-study" / f"{name}.json")


def test_models_whose_set_is_elsewhere_are_not_offered(built, worker):
    client = make_client(built, worker=worker)
    page = client.get("/compare").text
    assert ">both</a>" in page
    assert ">foreign</a>" not in page
    assert ">pneumonia-64</a>" not in page
    assert client.get("/compare", params={"model": "foreign"}).status_code == 409


def test_both_sides_are_shown_by_class_under_the_banner(built, worker):
    client = make_client(built, worker=worker)
    page = client.get("/compare", params={"model": "both"})
    assert "Pictures of patients are shown here" in page.text
    part = client.get("/compare", params={"model": "both", "seed": "1"}, headers=PART).text
    for kind, words in (("real", b"Real images of patients"), ("synthetic", b"SYNTHETIC IMAGE")):
        found = [html.unescape(each) for each in re.findall(rf'src="(/compare/{kind}.png[^"]+)"', part)]
        contents = [client.get(each).content for each in found]
        assert len({*contents}) == len(found) == 2
        assert all(words in content for content in contents)
        others = {client.get(each.replace("seed=1", "seed=2")).content for each in found}
        assert not others & {*contents}
    assert "seeds 16 to 31" in part
    assert client.get("/compare/real.png", params={"model": "both", "class": "x"}).status_code == 400


def test_a_whole_test_is_a_document_and_part_of_the_card(root, worker):
    client = make_client(root, worker=worker)
    location, name = start(client)
    assert name.startswith("ra-")
    for n in range(PICTURES):
        if n % 10 == 0:
            assert f"Picture {n + 1} of {PICTURES}" in client.get(location).text
        assert show(client, name, n).status_code == 200
        answer = say(client, name, n, "real" if n < 30 else "synthetic")
        assert answer.headers["location"] == location
    test = stored(root, name)
    kinds = [shown.real for shown in test.pictures]
    right = sum(kinds[:30]) + (10 - sum(kinds[30:]))
    assert (test.result.accuracy.count, test.result.accuracy.total) == (right, PICTURES)
    assert test.result.accuracy.low < right / PICTURES < test.result.accuracy.high
    assert test.result.real_called_real.count == sum(kinds[:30])
    assert set(test.result.classes) == set(CLASSES)
    assert sum(rate.total for rate in test.result.classes.values()) == PICTURES
    assert 0 <= test.result.median_seconds < 60
    assert test.model_sha256 == load_model(Run.open(root / "both")).sha256
    assert ReaderTest.from_dict(test.to_dict(), "a test") == test

    page = client.get(location).text
    assert f"{right} of {PICTURES} right" in page
    assert "Leave the test" not in page
    assert f"{right} of {PICTURES}:" in client.get("/compare", params={"model": "both"}).text
    record = read_record(root / "both")
    assert record.readers == (test,)
    card = format_card(record)
    assert "## Readers" in card
    assert f"{right} of {PICTURES} pictures named rightly" in card
    row = next(line for line in card.splitlines() if "judgement by clinicians" in line)
    assert OPEN not in row
    assert "## Readers" not in format_card(read_record(root / "plain"))
    assert say(client, name, PICTURES, "real").status_code == 303
    assert stored(root, name) == test


def test_tests_of_other_weights_are_counted_and_do_not_count(root, worker, tiny_config):
    config = Run.open(root / "both").config
    client = make_client(root, worker=worker)
    _, name = start(client)
    for n in range(PICTURES):
        say(client, name, n, "real")
    train(root / "both", config, seed=5, step=7)
    record = read_record(root / "both")
    assert (record.readers, record.other_readers) == ((), 1)
    assert "## Readers" not in format_card(record)
    _, other = start(client, reader="B")
    assert "other weights" not in show(client, other, 0).text
    client = make_client(root, worker=worker)  # the pictures of the first test are not kept any more
    _, third = start(client, reader="C")
    train(root / "both", config, seed=6, step=9)
    again = make_client(root, worker=worker)
    for answer in (show(again, third, 0), again.get("/compare/test", params={"run": "both", "test": third})):
        assert answer.status_code == 409
        assert "the run has other weights by now" in answer.text
        assert "start a new test" in answer.text


def test_no_page_asks_about_a_picture_that_cannot_be_shown(root, worker):
    client = make_client(root, worker=worker)
    location, name = start(client)
    (root / "set").rename(root.parent / "set")  # moved out of the root
    other = make_client(root, worker=worker)
    page = other.get(location)
    assert (page.status_code, "say-real" in page.text) == (409, False)
    part = say(other, name, 0, "real", **PART)  # of a page that was open before: it has shown its picture
    assert "set that this model was trained on is not in the folder" in part.text
    assert stored(root, name).answered == 1
    (root.parent / "set").rename(root / "set")
    assert "say-real" in other.get(location).text


def test_nothing_but_the_picture_tells_what_it_is(root, worker):
    client = make_client(root, worker=worker)
    location, name = start(client)
    test = stored(root, name)
    sizes, words, pages, texts = Counter(), Counter(), set(), set()
    data = PreparedSet.open(root / "set")
    model = load_model(Run.open(root / "both"))
    for n, shown in enumerate(test.pictures):
        page = client.get(location).text.replace(f"Picture {n + 1}", "Picture")
        pages.add(re.sub(rf'n={n}"|name="n" value="{n}"|<progress[^>]+>', "", page))
        answer = show(client, name, n)
        assert answer.headers["cache-control"] == "no-store"
        sizes[len(answer.content)] += 1
        texts.add(str({key: value for key, value in answer.headers.items()}))
        with Image.open(io.BytesIO(answer.content)) as picture:
            words[picture.text["Description"]] += 1
            assert set(picture.info) == {"Description"}
            assert picture.mode == "L"
            pixels = np.asarray(picture)
        if shown.real:
            np.testing.assert_array_equal(pixels, data.images[shown.number, 0])
            assert data.manifest[shown.number].class_name == shown.class_name
            assert data.manifest[shown.number].split == test.split
        else:
            label = model.labels([shown.number], shown.class_name)
            made = sample(model, [shown.number], label)
            np.testing.assert_array_equal(pixels, ((made + 1) * 127.5).round().clamp(0, 255).numpy()[0, 0])
        say(client, name, n, "real")
    assert len(sizes) == len(words) == len(pages) == len(texts) == 1


def test_a_test_goes_on_in_another_window_and_another_studio(root, worker):
    client = make_client(root, worker=worker)
    location, name = start(client)
    first = [show(client, name, 0).content, show(client, name, 0).content]
    assert first[0] == first[1]
    say(client, name, 0, "synthetic")
    say(client, name, 0, "real")  # from an old window: passed over
    assert [stored(root, name).pictures[0].said_real, stored(root, name).answered] == [False, 1]
    other = make_client(root, worker=worker)
    assert "1 of 40 answered" in other.get("/compare", params={"model": "both"}).text
    assert "Picture 2 of 40" in other.get(location).text
    assert show(other, name, 1).content == show(client, name, 1).content
    assert show(other, name, 0).content == first[0]
    assert show(other, name, 2).status_code == 400  # not its turn
    part = say(other, name, 1, "real", **PART)
    assert part.text.startswith('<div id="test"')
    assert "Picture 3 of 40" in part.text
    assert client.get("/compare", params={"model": "both"}).text.count("right") < 8


def test_an_answer_without_a_picture_has_no_time(root, worker):
    client = make_client(root, worker=worker)
    _, name = start(client)
    say(client, name, 0, "real")
    show(client, name, 1)
    say(client, name, 1, "real")
    seconds = [shown.seconds for shown in stored(root, name).pictures[:2]]
    assert seconds[0] is None
    assert seconds[1] >= 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"reader": ""}, {"reader": " "}, {"reader": "x" * 61}, {"model": "pneumonia-64"}, {"model": "foreign"},
        {"model": "../x"}, {"model": "set"},
    ],
)  # fmt: skip
def test_a_test_that_cannot_be_started_is_refused(root, worker, wrong):
    client = make_client(root, worker=worker)
    answer = client.post("/compare/start", data={"model": "both", "reader": "A", **wrong}, headers=ORIGIN)
    assert answer.status_code in (400, 409)
    assert not (root / "both" / "reader-study").exists()


def test_a_run_that_is_trained_has_no_test(root, worker):
    with held(root / "both"):
        answer = make_client(root, worker=worker).post(
            "/compare/start", data={"model": "both", "reader": "A"}, headers=ORIGIN
        )
    assert answer.status_code == 409
    assert "being trained" in answer.text


@pytest.mark.parametrize("name", ["../../x", "", "a", "ra-20261129-101500", "RA-20261129-101500", "../config"])
def test_only_tests_are_read(root, worker, name):
    client = make_client(root, worker=worker)
    assert client.get("/compare/test", params={"run": "both", "test": name}).status_code in (400, 409)
    assert show(client, name, 0).status_code in (400, 409)
    assert say(client, name, 0, "real").status_code in (400, 409)


def test_what_is_said_must_be_one_of_two(root, worker):
    client = make_client(root, worker=worker)
    _, name = start(client)
    for said in ("", "maybe"):
        assert say(client, name, 0, said).status_code == 400
    assert say(client, name, "x", "real").status_code == 400
    assert stored(root, name).answered == 0


def test_in_read_only_mode_results_are_shown_and_nothing_is_taken(root, worker):
    client = make_client(root, worker=worker)
    location, name = start(client)
    only = make_client(root, worker=worker, read_only=True)
    page = only.get("/compare", params={"model": "both"}).text
    assert "0 of 40 answered" in page
    assert 'method="post"' not in page
    assert 'method="post"' not in only.get(location).text
    assert say(only, name, 0, "real").status_code == 403
    assert only.post("/compare/start", data={"model": "both", "reader": "A"}, headers=ORIGIN).status_code == 403
    assert stored(root, name).answered == 0


def test_a_damaged_test_is_called_damaged_and_refused_by_the_card(root, worker):
    client = make_client(root, worker=worker)
    location, name = start(client)
    path = root / "both" / "reader-study" / f"{name}.json"
    path.write_text(path.read_text("utf-8").replace('"real"', '"rael"', 1), "utf-8")
    assert "damaged" in client.get("/compare", params={"model": "both"}).text
    assert client.get(location).status_code == 409
    with pytest.raises(SamganError, match="is not a reader's test"):
        read_reader_tests(root / "both")


def rows(counts):
    """A manifest with so many images of (class, split), two of each patient."""
    found = []
    for (name, split), count in counts.items():
        for number in range(count):
            row = ManifestRow(
                len(found), f"{len(found)}.png", "", 32, 32, 8, name, f"{name}{split}{number // 2}", split
            )
            found.append(row)
    return found


def test_pictures_are_chosen_evenly_and_from_as_many_patients_as_there_are():
    manifest = rows({("A", "train"): 60, ("A", "holdout"): 60, ("B", "holdout"): 60, ("C", "holdout"): 9})
    split, pictures = choose_pictures(manifest, ("A", "B"), True, 3)
    assert split == "holdout"
    assert Counter((shown.real, shown.class_name) for shown in pictures) == {
        (real, name): HALF // 2 for real in (True, False) for name in "AB"
    }
    real = [manifest[shown.number] for shown in pictures if shown.real]
    assert len({row.patient for row in real}) == HALF
    assert choose_pictures(manifest, ("A", "B"), True, 3)[1] == pictures
    assert choose_pictures(manifest, ("A", "B"), True, 4)[1] != pictures
    orders = [choose_pictures(manifest, ("A", "B"), True, seed)[1] for seed in range(60)]
    share = np.mean([[shown.real for shown in order] for order in orders], axis=0)
    assert np.abs(share - 0.5).max() < 0.3  # no place is mostly real
    few = rows({("A", "holdout"): 30, ("A", "train"): 20})
    assert choose_pictures(few, (), False, 0)[0] == "holdout"
    few = rows({("A", "holdout"): 19, ("A", "train"): 20})
    assert choose_pictures(few, (), False, 0)[0] == "train"
    with pytest.raises(SamganError, match="too few"):
        choose_pictures(rows({("A", "holdout"): 19, ("A", "train"): 19}), (), False, 0)


def test_a_test_counts_what_was_said():
    pictures = tuple(Shown(n % 2 == 0, n, "A" if n < 2 else "B") for n in range(4))
    test = ReaderTest(
        reader="x", started="", model_sha256="", preset="", images_seen=0, data=TrainedOn("set", ""), split="train",
        seed=0, pictures=pictures,
    )  # fmt: skip
    for said, seconds in ((True, 1.0), (True, 2.0), (True, None), (False, 9.0)):
        assert test.result is None
        test = test.answer(said, seconds)
    assert (test.result.accuracy.count, test.result.median_seconds) == (3, 2.0)
    assert (test.result.classes["A"].count, test.result.classes["B"].count) == (1, 2)
    assert (test.result.real_called_real.count, test.result.synthetic_called_synthetic.count) == (2, 1)
    # Wilson 1927 by hand: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    z2 = 1.959963984540054**2
    half = (z2 * (0.75 * 0.25 / 4 + z2 / 64)) ** 0.5
    assert test.result.accuracy.low == pytest.approx((0.75 + z2 / 8 - half) / (1 + z2 / 4))
    with pytest.raises(SamganError, match="have been answered"):
        test.answer(True, None)
