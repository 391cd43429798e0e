"""Scripts of results/ read documents of samgan: the names they look for are there."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from samgan.evaluation import evaluate
from samgan.metrics.features import FeatureExtractor

FOLDER = Path(__file__).parents[1] / "results"


def load(name):
    spec = importlib.util.spec_from_file_location(f"{name}_runs", FOLDER / name / "runs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scores():
    def network(images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)

    features = FeatureExtractor(network, name="stub", sha256="ab" * 32, device=torch.device("cpu"))
    images = torch.randint(0, 256, (120, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return evaluate(real=images[:80], fake=images[80:], features=features)


def test_scores_of_curves_are_there(scores):
    runs = load("plus")
    assert all({"value", "floor"} <= set(scores[name]) for name in runs.SCORES)
    assert scores["swd"]["mean"]["value"] > 0
    assert "difference" in scores["mode_collapse"]
    assert set(runs.SCORES) < set(runs.COLUMNS)


def test_a_balanced_set_becomes_a_line_of_the_table(scores, tmp_path):
    runs = load("balance")
    (tmp_path / "against-all").mkdir()
    (tmp_path / "against-all" / "scores.json").write_text(json.dumps({**scores, "generated": {"images_seen": 12_000}}))
    area = {"mean": 0.9, "low": 0.8, "high": 1.0}
    document = {
        "counts": {"NORMAL": {"real": 10, "synthetic": 20}},
        "screening": {"NORMAL": {"candidates": 25, "left_out": {"near-copy": 2, "failed": 3}}},
        "audit": {"NORMAL": {"pixels": {"closer": {"share": {"value": 0.01}}}, "membership": {"auc": {"value": 0.5}}}},
        "utility": {
            "intervals": {"real": area, "a": area, "b": area},
            "best_classical": "a",
            "best_synthetic": "b",
            "differences": [{"arm": "b", "against": "a", "mean": 0.01, "low": -0.1, "high": 0.1}],
            "verdict": "no difference shown",
        },
    }
    row = runs.describe("100-joint", document, tmp_path)
    assert set(row) == set(runs.COLUMNS)
    assert (row["kimg"], row["left_out"], row["difference"]) == (12.0, "failed 3 near-copy 2", 0.01)
    without = runs.describe("100-joint", {**document, "utility": {}}, tmp_path)
    assert set(without) < set(runs.COLUMNS)
