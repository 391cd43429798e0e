"""An audit's sentences say what its numbers say, and its page shows them and nothing that runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from samgan.sampling import Origin
from samgan.trust.audit_page import NO_PICTURES, write_audit_page
from samgan.trust.audit_words import describe_verdict, format_audit, table_rows
from samgan.trust.documents import AuditDocument, Estimate, Membership, SkippedPart

PATH = Path(__file__).parents[1] / "results" / "balance" / "125-patients" / "balance.json"


@pytest.fixture(scope="module")
def document():
    return AuditDocument.from_dict(json.loads(PATH.read_text())["audit"]["NORMAL"], str(PATH))


def with_signs(document, closer, pulled):
    """The document with these signs by every measure."""

    def measured(found):
        return replace(
            found,
            closer=replace(found.closer, found=closer),
            nearest_is_training=replace(found.nearest_is_training, found=pulled),
        )

    return replace(document, pixels=measured(document.pixels), features=measured(document.features))


@pytest.mark.parametrize(
    ("closer", "pulled", "start"),
    [
        (False, False, "No sign of memorisation: 2.2 % [1.7, 2.8] of the synthetic images are closer"),
        (False, True, "A trace of the training images, but no copies seen: 51.0 %"),
        (True, False, "Signs of memorisation: 2.2 %"),
        (True, True, "Signs of memorisation: 2.2 %"),
    ],
)
def test_the_verdict_follows_the_signs_and_says_what_it_does_not_prove(document, closer, pulled, start):
    verdict = describe_verdict(with_signs(document, closer, pulled))
    assert verdict.startswith(start)
    assert ("does not prove that no patient can be recognised" in verdict) == (not closer)
    assert ("Look at the pairs" in verdict) == closer
    assert verdict.count("as their nearest real image") == (2 if pulled else 0)
    assert "The discriminator does not tell training images from held-out ones (AUC 0.527 [0.466, 0.587])" in verdict


def test_the_verdict_warns_of_a_discriminator_that_knows_its_training_images(document):
    knows = replace(document, membership=Membership(Estimate(0.8, 0.7, 0.9), 168, True))
    assert "anybody who has the checkpoint can tell who was in the training set" in describe_verdict(knows)
    assert "discriminator" not in describe_verdict(replace(document, membership=None))


def test_the_table_has_a_row_for_each_number(document):
    rows = table_rows(document)
    assert [row[-1] for row in rows] == ["no sign", "sign", "sign", "sign", "no sign", "-", "-"]
    assert len(table_rows(replace(document, features=None, membership=None))) == 4


def test_what_was_skipped_is_said(document):
    words = format_audit(replace(document, features=None, skipped=(SkippedPart("nearest images by features", "none"),)))
    assert "Skipped: nearest images by features (none)." in words
    assert "by features:" not in words


def test_text_of_others_is_escaped_on_the_page(document, tmp_path):
    named = replace(document, generated=Origin("<script>x</script>"), notes=("<b>bold</b>",))
    write_audit_page(tmp_path / "audit.html", named, None)
    page = (tmp_path / "audit.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert NO_PICTURES in page
    assert page.count("training image (row of the manifest)") >= 4
