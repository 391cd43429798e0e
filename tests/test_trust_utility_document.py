"""Tests of utility of this repository can be read, whatever version wrote them; those edited by hand are refused."""

import copy
import json
from pathlib import Path

import pytest

from samgan.errors import SamganError
from samgan.studies import BalanceDocument, format_utility
from samgan.trust.utility_document import COMPARED, UTILITY_SCORES, UtilityDocument

BALANCES = sorted((Path(__file__).parents[1] / "results" / "balance").glob("*/balance.json"))


def test_there_are_documents_to_read():
    assert len(BALANCES) >= 12


@pytest.mark.parametrize("path", BALANCES, ids=lambda path: path.parent.name)
def test_committed_tests_of_utility_are_read_and_stay_what_they_are(path):
    tree = json.loads(path.read_text())["utility"]
    document = UtilityDocument.from_dict(copy.deepcopy(tree), str(path))
    assert document.verdict == tree["verdict"]
    assert {name: arm.mean for name, arm in document.arms.items()} == {
        name: arm["mean"] for name, arm in tree["arms"].items()
    }
    for score in COMPARED:
        assert document.decisions[score].mean == tree["decisions"][score]["mean"]
    for found, raw in zip(document.differences, tree["differences"], strict=True):
        own = raw.get("scores", raw)  # before schema numbers they stood beside the names
        assert {score: interval.low for score, interval in found.scores.items()} == {
            score: own[score]["low"] for score in COMPARED
        }
    assert all(label in format_utility(document) for label in UTILITY_SCORES.values())
    assert UtilityDocument.from_dict(document.to_dict(), "again") == document


@pytest.mark.parametrize("path", BALANCES, ids=lambda path: path.parent.name)
def test_committed_balanced_sets_are_read_and_written_again_without_loss(path):
    document = BalanceDocument.read(path)
    assert BalanceDocument.from_dict(document.to_dict(), "again") == document


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree, arm: tree["arms"][arm]["mean"].pop("auc"), "arms, real: expected 'auc'"),
        (lambda tree, arm: tree["arms"][arm]["deviation"].clear(), "arms, real: expected 'auc'"),
        (lambda tree, arm: tree["arms"][arm]["seeds"][0].pop("auc"), "arms, real: expected 'auc'"),
        (lambda tree, arm: tree["arms"].pop(arm), "intervals: found 'real'"),
        (lambda tree, arm: tree["intervals"][arm].pop("auc"), "intervals, real: expected 'auc'"),
        (lambda tree, arm: tree["intervals"].pop(arm), "intervals: expected 'real'"),
        (lambda tree, arm: tree["differences"][0]["scores"].pop("auc"), "differences, .*: expected 'auc'"),
        (lambda tree, arm: tree["decisions"].pop("auc"), "decisions: expected 'auc'"),
        (
            lambda tree, arm: tree["decisions"].update(other=tree["decisions"]["auc"]),
            "found .other., which is unknown",
        ),
        (lambda tree, arm: tree.update(verdict="great"), "at verdict"),
        (lambda tree, arm: tree.update(held_out=None), "at held_out"),
        (lambda tree, arm: tree.update(schema=9), "found schema 9"),
    ],
)
def test_a_document_that_was_edited_is_refused_in_one_line(change, words):
    utility = BalanceDocument.read(BALANCES[0]).utility
    tree = utility.to_dict()
    change(tree, "real")
    with pytest.raises(SamganError, match=rf"^utility\.json.*{words}.*make it again with samgan utility$") as caught:
        UtilityDocument.from_dict(tree, "utility.json")
    assert "\n" not in str(caught.value)
