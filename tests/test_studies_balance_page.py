"""What the report of a balanced set says of its models."""

import dataclasses
from pathlib import Path

from samgan.scoring import CollapseTest, Scored
from samgan.studies import BalanceDocument
from samgan.studies.balance_words import doubts, sentences

COMMITTED = Path(__file__).parents[1] / "results" / "balance"


def test_a_model_that_failed_as_a_whole_is_told():
    scores = BalanceDocument.read(COMMITTED / "100-joint" / "balance.json").against_all

    def told(swd, difference, low):
        collapse = CollapseTest("mode collapse", difference, low, 1.0)
        return doubts(dataclasses.replace(scores, scores={"swd": Scored(swd, 5.0)}, mode_collapse=collapse))

    assert told(14.0, 0.04, 0.01) == told(14.0, -0.3, -0.4) == told(14.0, 0.06, -0.01) == []
    assert "4.0 times" in told(20.0, 0.0, -1.0)[0]
    assert "+0.060" in told(5.0, 0.06, 0.01)[0]


def test_the_report_names_the_features_of_its_scores():
    document = BalanceDocument.read(COMMITTED / "125-patients" / "balance.json")
    (scores,) = (found for found in document.scores.values() if found)
    assert f"Frechet distance and recall are of {scores.features.name} features." in list(sentences(document))
    without = {name: found and dataclasses.replace(found, features=None) for name, found in document.scores.items()}
    assert "Frechet" not in " ".join(sentences(dataclasses.replace(document, scores=without)))
