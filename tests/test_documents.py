"""Typed documents: what is written is read back, and what is not such a document is refused in one line."""

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest

from samgan.documents import Document, read_json
from samgan.errors import SamganError


@dataclass(frozen=True)
class Part:
    value: float
    word: Literal["more", "less"] = "more"


@dataclass(frozen=True, kw_only=True)
class Example(Document):
    SCHEMA: ClassVar[int] = 2
    KIND: ClassVar[str] = "an example"
    MADE_BY: ClassVar[str] = "samgan example"

    count: int
    part: Part | None
    parts: dict[str, Part] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @classmethod
    def upgrade(cls, tree: dict[str, Any], schema: int) -> dict[str, Any]:
        if schema == 0:
            tree["count"] = len(tree.pop("items"))
        return tree


WHOLE = Example(count=3, part=Part(0.5), parts={"a": Part(1.0, "less")}, names=("x", "y"))


def test_what_is_written_is_read_back(tmp_path):
    WHOLE.write(tmp_path / "a.json")
    assert Example.read(tmp_path / "a.json") == WHOLE
    assert json.loads((tmp_path / "a.json").read_text())["schema"] == 2


def test_a_whole_number_may_stand_for_a_float():
    assert Example.from_dict({"schema": 2, "count": 1, "part": {"value": 1}}, "a.json").part == Part(1.0)


def test_fields_that_are_not_known_are_passed_over():
    assert Example.from_dict({**WHOLE.to_dict(), "more": 1}, "a.json") == WHOLE


def test_an_earlier_schema_is_brought_up_to_date():
    assert Example.from_dict({"items": [1, 2], "part": None}, "a.json").count == 2


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1], "expected an example .a JSON object., found list"),
        ({"schema": 3, "count": 1, "part": None}, "schema 2 or lower, found schema 3; use the version of samgan that"),
        ({"schema": "2"}, "found schema '2'"),
        ({"schema": True}, "found schema True"),
        ({"schema": 2, "part": None}, "Object missing required field count"),
        ({"schema": 2, "count": "x", "part": None}, "Expected int, got str - at count; make it again with samgan ex"),
        ({"schema": 2, "count": 1, "part": {"value": "x"}}, "Expected float, got str - at part.value"),
        ({"schema": 2, "count": 1, "part": {"value": 1, "word": "maybe"}}, "Invalid enum value 'maybe' - at part.word"),
        ({"schema": 2, "count": 1, "part": [1]}, "Expected object . null, got array - at part"),
        ({"schema": 2, "count": 1, "part": None, "parts": {"a": None}}, "Expected object, got null - at parts"),
        ({"count": 1, "part": None}, "KeyError: 'items'; make it again"),
        ({"items": 5, "part": None}, "TypeError: object of type 'int' has no len"),
    ],
)
def test_what_is_no_such_document_is_refused_in_one_line(tree, message):
    with pytest.raises(SamganError, match=message) as caught:
        Example.from_dict(tree, "folder/a.json")
    assert str(caught.value).startswith("folder/a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[9223372036854775808]"),
        *(b"[NaN]", b"[-Infinity]", b"[1e999]", b'["\\ud800"]', b'{"\\uDC00": 1}'),
    ],
)
def test_what_is_not_json_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(SamganError, match=r"a\.json is not valid JSON .*; do so") as caught:
        read_json(tmp_path / "a.json", "do so")
    assert "\n" not in str(caught.value)
    with pytest.raises(SamganError, match="does not exist; do so"):
        read_json(tmp_path / "gone.json", "do so")
    with pytest.raises(SamganError, match="cannot be read"):
        read_json(tmp_path, "do so")


def test_a_name_that_is_no_text_is_read_as_it_was_written(tmp_path):
    names = ["\udcff.png", "\U0001fac1", "\\ud800"]
    (tmp_path / "a.json").write_text(json.dumps(names))
    assert read_json(tmp_path / "a.json", "do so") == names
