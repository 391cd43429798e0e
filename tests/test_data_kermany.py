"""A real set of 5,216 radiographs is prepared as it always was, where it is at hand."""

import hashlib
import re
from pathlib import Path

import pytest

from samgan.data import prepare
from samgan.data.inspection import inspect
from samgan.data.inspection.documents import FACTS


@pytest.mark.slow
def test_a_real_set_gives_the_same_bytes_as_ever(real_images_folder, tmp_path):
    prepare(real_images_folder, tmp_path)
    assert {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("images.npy", "manifest.csv")
    } == {
        "images.npy": "5f6cb7fcddc60d378c75281ec7140fc74a9e473b2f9e233f0663686866a72356",
        "manifest.csv": "94384c9577fb1101614eab9ef765417b4ef67beb51ba5f44e5dbaab0b247afd2",
    }


@pytest.mark.slow
def test_what_the_page_says_gives_its_classes_away_is_found(real_images_folder, tmp_path):
    document, _ = inspect(prepare(real_images_folder, tmp_path), pictures=False)
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    told = [found for found in document.tellings if found.tells]
    (said,) = re.findall(r"it says so of\s+(.*?)\. The page holds", page, flags=re.S)
    assert [f"{found.auc:.2f}" for found in told] == re.findall(r"\d\.\d\d", said)
    assert all(FACTS[found.fact].name in said for found in told)
