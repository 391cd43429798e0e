"""The fuzzer of tests/fuzz: 500 damaged inputs, all of which end well; that it notices those that do not; documents."""

import dataclasses
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz import child, mutate
from fuzz.kinds import KINDS, Case
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from samgan.config import Config
from samgan.documents import Document
from samgan.errors import SamganError

ROOT = Path(__file__).parents[1]


def fuzz(*words):
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *map(str, words)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the fuzzer forks processes")
@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_damaged_inputs_end_in_one_line_or_are_right(count, tmp_path):
    result = fuzz("--count", count, "--log", tmp_path / "log", "--keep", tmp_path / "keep")
    assert result.returncode == 0, result.stdout + result.stderr
    verdicts = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [verdict["number"] for verdict in verdicts] == list(range(count))
    if count == 500:
        assert {verdict["kind"] for verdict in verdicts} == {kind.name for kind in KINDS}
    statuses = [verdict["status"] for verdict in verdicts]
    # Both happen often: files that are so damaged that all are refused would try little.
    assert statuses.count(0) > count / 5
    assert len(statuses) - statuses.count(0) > count / 5


def encoded(write, *arguments, **options):
    file = io.BytesIO()
    write(file, *arguments, **options)
    return file.getvalue()


TREE = json.dumps({"a": [1, 2, {"b": None}]}).encode()
ARRAY = encoded(np.save, np.zeros((4, 4), np.uint8))
SOUND = {
    mutate.damage: TREE,
    mutate.damage_json: TREE,
    mutate.damage_lines: TREE + b"\n" + TREE,
    mutate.damage_table: b"a,b\n1,2\n3,4\n",
    mutate.damage_text: b"a: 1\nb:\n  c: 2\n",
    mutate.damage_png: encoded(Image.new("L", (8, 8)).save, format="png"),
    mutate.damage_array: ARRAY,
    mutate.damage_zip: encoded(np.savez, a=np.zeros(3, np.uint8), b=np.ones(3)),
    mutate.damage_safetensors: save({"a": torch.zeros(8)}, {"config": "{}"}),
    mutate.damage_dicom: b"no DICOM",
}


@pytest.mark.parametrize("damage", SOUND, ids=lambda damage: damage.__name__)
def test_damage_is_the_same_for_the_same_seed_and_seldom_none(damage):
    made = [[damage(SOUND[damage], random.Random(seed)) for seed in range(50)] for _ in range(2)]
    assert made[0] == made[1]
    assert sum(changed != SOUND[damage] for changed in made[0]) > 35
    assert len(set(made[0])) > 20


def end(monkeypatch, tmp_path, behave):
    """How the fuzzer judges a command that behaves like that."""
    monkeypatch.setattr(child, "main", lambda words: behave())
    box = tmp_path / "box"
    box.mkdir()
    here = Path.cwd()
    try:
        return child._try(Case("", [], None), box, 0).wrong
    finally:
        os.chdir(here)


def said(text, status):
    sys.stderr.write(text)
    return status


def written(name, text):
    Path(name).write_text(text)
    return 0


BAD_ENDS = {
    "a traceback": (lambda: 1 / 0, "ZeroDivisionError"),
    "a status of its own": (lambda: 3, "status 3"),
    "no reason": (lambda: 1, "no reason"),
    "two lines": (lambda: said("samgan: error: a\nb\n", 1), "several lines"),
    "two errors": (lambda: said("samgan: error: a\nsamgan: error: b\n", 1), "2 lines of errors"),
    "an error and status 0": (lambda: said("samgan: error: a\n", 0), "1 lines of errors"),
    "control characters": (lambda: said("samgan: error: \x1b[2J\n", 1), "control character"),
    "out of memory": (lambda: said("samgan: error: out of memory\n", 1), "out of memory"),
    "a file half-written": (lambda: written(".x.1.tmp", ""), "behind"),
    "NaN in JSON": (lambda: written("x.json", "[NaN]"), "NaN"),
    "JSON cut off": (lambda: written("x.json", "[1"), "cannot be read"),
    "a set cut off": (lambda: written("dataset.json", "{}"), "cannot be read"),
    "a picture cut off": (lambda: written("x.png", "\x89PNG"), "cannot be read"),
    "a script in a page": (lambda: written("x.html", f"<p>{mutate.SCRIPT}"), "a script"),
}


@pytest.mark.parametrize("name", BAD_ENDS)
def test_the_fuzzer_notices(monkeypatch, tmp_path, name):
    behave, word = BAD_ENDS[name]
    assert word in end(monkeypatch, tmp_path, behave)


def test_the_fuzzer_lets_a_refusal_and_a_result_pass(monkeypatch, tmp_path):
    assert end(monkeypatch, tmp_path, lambda: said("samgan: warning: x\nsamgan: error: y\n", 1)) == ""
    (tmp_path / "box").rmdir()
    assert end(monkeypatch, tmp_path, lambda: written("x.json", "[1]")) == ""


def test_the_fuzzer_notices_time_and_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(child, "SECONDS", -1)
    assert end(monkeypatch, tmp_path, lambda: 0).startswith("took")
    monkeypatch.undo()
    (tmp_path / "box").rmdir()
    monkeypatch.setattr(child, "MEMORY", 1 << 20)
    assert end(monkeypatch, tmp_path, lambda: 0).endswith("MB")


def documents_of(kind):
    return [one for sub in kind.__subclasses__() for one in (sub, *documents_of(sub))]


def refusal(read):
    """The message with which something is refused; empty if it is read."""
    try:
        read()
    except SamganError as error:
        return str(error)
    return ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["", "0", "NORMAL"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", documents_of(Document), ids=lambda kind: kind.__name__)
def test_any_json_is_a_document_or_refused_in_one_line(kind):
    names = [field.name for field in dataclasses.fields(kind)]

    @settings(max_examples=25, deadline=None)
    @given(st.dictionaries(st.sampled_from([*names, "schema"]), JSON) | JSON)
    def refused_or_read(tree):
        assert "\n" not in refusal(lambda: kind.from_dict(tree, "file.json").to_dict())

    refused_or_read()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["network", "training", "data", "preset"]), JSON))
def test_any_json_is_a_configuration_or_refused_in_one_line(tree):
    for read in (Config.from_dict, Config().override):
        assert "\n" not in refusal(lambda read=read: read(tree).to_dict())
