"""Audits and screenings of this repository can be read, whatever version wrote them."""

import json
from pathlib import Path

import pytest

from samgan.errors import SamganError
from samgan.trust.documents import AuditDocument, ScreeningDocument

BALANCES = sorted((Path(__file__).parents[1] / "results" / "balance").glob("*/balance.json"))


def test_there_are_documents_to_read():
    assert len(BALANCES) >= 12


@pytest.mark.parametrize("path", BALANCES, ids=lambda path: path.parent.name)
def test_committed_audits_are_read_and_stay_what_they_are(path):
    for name, tree in json.loads(path.read_text())["audit"].items():
        audit = AuditDocument.from_dict(tree, f"{path}: {name}")
        assert audit.verdict == tree["verdict"]
        assert audit.pixels.closer.share.value == tree["pixels"]["closer"]["share"]["value"]
        assert audit.pixels.distances.synthetic.first_percentile == tree["pixels"]["distances"]["synthetic"]["1 %"]
        assert len(audit.pixels.pairs) == len(tree["pixels"]["pairs"])
        of_features = [f"by {tree['features']['name'].partition(' (')[0]} features"] if tree["features"] else []
        assert list(audit.measures) == ["in pixels", *of_features]
        assert AuditDocument.from_dict(json.loads(json.dumps(audit.to_dict())), "again") == audit


@pytest.mark.parametrize("path", BALANCES, ids=lambda path: path.parent.name)
def test_committed_screenings_are_read_and_stay_what_they_are(path):
    tree = json.loads(path.read_text())["screening"]
    screening = ScreeningDocument.from_dict(tree, str(path))
    assert {name: found.kept for name, found in screening.classes.items()} == {
        name: found["kept"] for name, found in tree.items()
    }
    assert ScreeningDocument.from_dict(json.loads(json.dumps(screening.to_dict())), "again") == screening


def test_an_audit_that_was_edited_is_refused_in_one_line():
    tree = next(iter(json.loads(BALANCES[0].read_text())["audit"].values()))
    for damaged in (
        {**tree, "pixels": 3},
        {**tree, "pixels": {"distances": {"synthetic": {}}}},
        {**tree, "counts": None},
        {"verdict": "No sign"},
    ):
        with pytest.raises(SamganError, match=r"audit\.json is not an audit that .*; make it again with") as caught:
            AuditDocument.from_dict(damaged, "audit.json")
        assert "\n" not in str(caught.value)
