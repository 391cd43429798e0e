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
    words = "The discriminator was not shown to tell training images from held-out ones (AUC 0.527, interval 0.466 to"
    assert words in verdict


def test_the_verdict_warns_of_a_discriminator_that_knows_its_training_images(document):
    knows = replace(document, membership=Membership(Estimate(0.8, 0.7, 0.9), 168, True))
    assert "anybody who has the checkpoint can tell who was in the training set" in describe_verdict(knows)
    assert "discriminator" not in describe_verdict(replace(document, membership=None))
    backwards = describe_verdict(replace(document, membership=Membership(Estimate(0.2, 0.15, 0.25), 168, True)))
    assert (
        "tells training images from held-out ones by lower logits than those of held-out ones (AUC 0.200" in backwards
    )


def test_an_audit_that_misses_planted_copies_gives_no_all_clear(document):
    """Blurred copies are found by neither measure, noisy ones by one of them."""

    def finding(measured, blurred, noisy):
        found = {"blurred, 3x3 mean": blurred, "noise, sd 10 of 255": noisy}
        return replace(measured, planted={**measured.planted, **found})

    unsigned = with_signs(document, False, False)
    parts = {"pixels": finding(unsigned.pixels, 0.3, 0.9), "features": finding(unsigned.features, 0.49, 0)}
    blind = replace(unsigned, **parts)
    assert blind.missed == {"blurred, 3x3 mean": 0.49}
    verdict = describe_verdict(blind)
    assert verdict.startswith("This audit could not have found copies: ")
    assert "it would have found 49 % (blurred, 3x3 mean)" in verdict
    assert "No sign" not in verdict
    assert blind.exceeds(1.0)
    assert not unsigned.missed
    assert not unsigned.exceeds(0.03)
    assert unsigned.exceeds(0.02)


def test_a_copy_is_a_sign_however_few_there_are(document):
    unsigned = with_signs(document, False, False)
    first, *others = unsigned.pixels.pairs

    def with_first(distance, least=0.045):
        distances = replace(
            unsigned.pixels.distances, held_out=replace(unsigned.pixels.distances.held_out, least=least)
        )
        pairs = (replace(first, distance=distance), *others)
        return replace(unsigned, pixels=replace(unsigned.pixels, pairs=pairs, distances=distances))

    copied = with_first(0.0009)
    assert copied.copies == 1
    assert copied.exceeds(1.0)
    verdict = describe_verdict(copied)
    assert verdict.startswith(f"Signs of memorisation: 1 image is a copy (of {document.counts.synthetic}; ")
    assert "those of the copies come first" in verdict
    assert table_rows(copied)[0][1:] == ("1", "0", "sign")
    assert with_first(0.019).copies == 0, "one image is the closest by chance"
    assert with_first(0.0009, least=0.0008).copies == 0, "a held-out image, of another patient, is as close"


def test_the_table_has_a_row_for_each_number(document):
    rows = table_rows(document)
    assert [row[-1] for row in rows] == ["no sign", "no sign", "sign", "sign", "sign", "no sign", "-", "-"]
    assert len(table_rows(replace(document, features=None, membership=None))) == 5


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
