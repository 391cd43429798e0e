"""How many images each class lacks."""

import pytest

from samgan.errors import UsageError
from samgan.studies import missing_images


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("equal", {"a": 0, "b": 900, "c": 500}),
        ("500", {"a": 0, "b": 400, "c": 0}),
        ("0.5", {"a": 0, "b": 400, "c": 0}),
        ("1.0", {"a": 0, "b": 900, "c": 500}),
        ("1200", {"a": 200, "b": 1100, "c": 700}),
    ],
)
def test_how_many_images_are_missing(target, missing):
    assert missing_images({"a": 1000, "b": 100, "c": 500}, target) == missing


@pytest.mark.parametrize("target", ["0", "1.5", "-3", "nan", "inf", "many", "", "100", "0.1"])
def test_targets_that_are_none_or_reached_are_refused(target):
    with pytest.raises(UsageError, match=f"--target {target}"):
        missing_images({"a": 1000, "b": 100, "c": 500}, target)
