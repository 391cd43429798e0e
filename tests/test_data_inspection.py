"""What `samgan inspect` finds in sets that were made to have something wrong, and what its page shows and hides."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import samgan
from samgan.commands.main import main
from samgan.data import PreparedSet, prepare
from samgan.data.inspection import measure
from samgan.data.inspection.page import findings
from samgan.errors import SamganError, UsageError


def write_set(folder, images, name="{patient}_{index}.png"):
    """`images`: class -> list of (patient, uint8 [h, w])."""
    for class_name, found in images.items():
        for index, (patient, image) in enumerate(found):
            path = folder / class_name / name.format(patient=patient, index=index)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


def noise(draw, mean=120, side=40):
    return np.clip(draw.normal(mean, 30, (side, side)), 1, 254).astype(np.uint8)


@pytest.fixture
def plain():
    """Two classes of 20 patients that nothing but noise tells apart."""
    draw = np.random.default_rng(1)
    return {name: [(f"person{40 * c + i}", noise(draw)) for i in range(20)] for c, name in enumerate("AB")}


def inspect(images, tmp_path, **options):
    data = prepare(write_set(tmp_path / "source", images), tmp_path / "set", resolution=32, **options)
    return samgan.inspect(data), data


def test_the_facts_are_those_of_the_pixels_and_of_the_manifest(plain, tmp_path):
    (document, _), data = inspect(plain, tmp_path)
    values = measure(data)
    image = data.images[3, 0].astype(float)
    assert values["brightness"][3] == pytest.approx(image.mean(), rel=1e-5)
    assert values["contrast"][3] == pytest.approx(image.std(), rel=1e-5)
    rough = (abs(image[1:] - image[:-1]).mean() + abs(image[:, 1:] - image[:, :-1]).mean()) / 2
    assert values["sharpness"][3] == pytest.approx(rough, rel=1e-5)
    assert values["black"][3] == (image == 0).mean()
    assert values["white"][3] == (image == 255).mean()
    assert set(values["width"]) == {40}
    assert set(values["bits"]) == {8}
    assert set(values["shape"]) == {1}
    of_a = values["brightness"][[row.class_name == "A" for row in data.manifest]]
    assert document.facts["brightness"]["A"].median == pytest.approx(np.median(of_a))
    assert document.patients == {"A": {"train": 16, "holdout": 4}, "B": {"train": 16, "holdout": 4}}


def test_classes_that_nothing_tells_apart_raise_no_alarm(plain, tmp_path):
    (document, _), _ = inspect(plain, tmp_path)
    assert document.tellings
    assert not any(found.tells for found in document.tellings)
    assert not [line for line in findings(document) if "classifier" in line]


@pytest.mark.parametrize("fact", ["brightness", "sharpness", "black pixels", "width", "width / height"])
def test_a_class_that_a_fact_gives_away_is_named(plain, tmp_path, fact):
    draw = np.random.default_rng(2)
    changed = []
    for patient, image in plain["B"]:
        if fact == "brightness":
            image = noise(draw, 170)
        elif fact == "sharpness":
            image = np.kron(image[::4, ::4], np.ones((4, 4), np.uint8))
        elif fact == "black pixels":
            image = np.pad(image, 8)
        elif fact == "width":
            image = np.kron(image, np.ones((2, 2), np.uint8))
        else:
            image = image[:, :34]
        changed.append((patient, image))
    (document, _), _ = inspect({**plain, "B": changed}, tmp_path)
    lines = [line for line in findings(document) if "A classifier could tell" in line]
    expected = {"width / height": "shape"}.get(fact, fact)
    assert any(f"by {expected} only" in line for line in lines)
    told = next(found for found in document.tellings if found.tells)
    assert told.low <= told.auc <= told.high
    assert told.auc == max(found.auc for found in document.tellings)


def test_images_of_few_patients_say_nothing_about_a_class(tmp_path):
    draw = np.random.default_rng(3)
    dark = {"A": [(f"person{i % 2}", noise(draw, 60)) for i in range(30)]}
    bright = {"B": [(f"person{9 + i}", noise(draw, 190)) for i in range(30)]}
    (document, _), _ = inspect(dark | bright, tmp_path)
    assert document.tellings == ()


def test_near_duplicates_of_two_labels_come_first_and_are_said(plain, tmp_path):
    first, second = plain["A"][0][1], plain["A"][1][1]
    plain["A"].append(("person0", np.clip(first.astype(int) + 2, 0, 255).astype(np.uint8)))
    plain["B"].append(("person77", np.clip(second.astype(int) + 2, 0, 255).astype(np.uint8)))
    (document, page), _ = inspect(plain, tmp_path)
    assert sorted(pair.same_class for pair in document.near_pairs) == [False, True]
    assert any(line.startswith("1 image looks like an earlier image of another class") for line in findings(document))
    text = page.read_text()
    assert text.index(": two labels") < text.index("(A, ", text.index(": two labels") + 300)


def test_what_was_left_out_is_named_with_its_reason(plain, tmp_path):
    write_set(tmp_path / "source", {"A": [("person0", plain["A"][0][1])]}, "copy_of_{patient}.png")
    (tmp_path / "source" / "A" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "source" / "A" / "notes.txt").write_text("x")
    (_, page), _ = inspect(plain, tmp_path, max_bad=0.1)
    text = page.read_text()
    for words in ("copy_of_person0.png", "the same image as", "broken.png", "1 files .txt"):
        assert words in text


def test_the_page_may_be_without_images_and_without_names_of_files_in_html(plain, tmp_path, capsys):
    plain["<b>C"] = plain.pop("B")
    source = write_set(tmp_path / "source", plain)
    prepare(source, tmp_path / "set", resolution=32)
    page = tmp_path / "page.html"
    assert main(["inspect", str(tmp_path / "set"), "--no-pictures", "--out", str(page)]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    text = page.read_text()
    assert "<img" not in text
    assert "<b>C" not in text
    assert "&lt;b&gt;C" in text
    assert main(["inspect", str(tmp_path / "set"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert set(document["counts"]) == {"A", "<b>C"}
    shown = (tmp_path / "set" / "data.html").read_text()
    assert shown.count("<img") == 2
    assert "REAL" in shown


def test_the_same_seed_shows_the_same_images(plain, tmp_path):
    (_, page), data = inspect(plain, tmp_path)
    first = page.read_bytes()
    samgan.inspect(data, seed=1)
    other = page.read_bytes()
    samgan.inspect(data)
    assert page.read_bytes() == first != other


def test_a_folder_is_no_page_and_a_damaged_set_is_refused(plain, tmp_path):
    (_, _), data = inspect(plain, tmp_path)
    with pytest.raises(UsageError, match="is a folder: name a file"):
        samgan.inspect(data, out=tmp_path)
    with open(tmp_path / "set" / "manifest.csv", newline="") as file:
        rows = list(csv.reader(file))
    rows[1][6], rows[-1][6] = rows[-1][6], rows[1][6]
    with open(tmp_path / "set" / "manifest.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    with pytest.raises(SamganError, match="is damaged"):
        samgan.inspect(PreparedSet.open(tmp_path / "set"))


def test_a_page_of_an_older_set_goes_when_the_set_is_replaced(plain, tmp_path):
    (_, page), _ = inspect(plain, tmp_path)
    assert page == Path(tmp_path / "set" / "data.html")
    prepare(tmp_path / "source", tmp_path / "set", resolution=16, replace=True)
    assert not page.exists()
