"""One file, step by step."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from test_data_readers import GREY, dicom, encode, palette_image, png, tiff

from samgan.commands.main import main
from samgan.data import explain_file, prepare
from samgan.errors import SamganError, UsageError

DEEP = (np.add.outer(np.arange(32), np.arange(48)) * 40).astype(np.uint16)  # up to 3120: 12 bits


def words(explanation):
    return [step.what for step in explanation.steps]


def test_steps_lead_from_stored_values_to_the_picture_of_the_prepared_set(tmp_path):
    (tmp_path / "set").mkdir()
    for number in range(2):
        (tmp_path / f"set/{number}.tif").write_bytes(tiff(np.roll(DEEP, number), photometric="miniswhite"))
    options = {"resolution": 16, "fit": "pad", "normalize": "percentile"}
    explanation = explain_file(tmp_path / "set/0.tif", tmp_path / "out.png", **options)
    prepared = prepare(tmp_path / "set", tmp_path / "prepared", workers=1, **options)
    row = next(row for row in prepared.manifest if row.source == "0.tif")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), prepared.images[row.index][0])
    assert words(explanation) == [
        "stored: TIFF, 16-bit grey, 48x32 pixels",
        "scale: (value - 0) / 4,095, 12 bits (the smallest depth that holds this image's largest value; a set has one "
        "depth for all of its images)",
        "white is zero: 1 - value",
        "fit: pad, 48x32 to 16x16 pixels, Lanczos",
        "normalise: percentile",
        "quantise: round(255 * value)",
    ]
    assert explanation.steps[0][1:] == (0, DEEP.max())
    assert explanation.steps[1][1:] == pytest.approx((0, DEEP.max() / 4095))
    assert explanation.steps[2][1:] == pytest.approx((1 - DEEP.max() / 4095, 1))
    assert explanation.steps[-1].high == prepared.images[row.index].max()


@pytest.mark.parametrize(
    ("data", "step"),
    [
        (encode(Image.fromarray(GREY).convert("RGB")), "grey from colour: 0.299 red + 0.587 green + 0.114 blue"),
        (encode(Image.fromarray(GREY).convert("LA")), "transparency on black: value * alpha / 255"),
        (encode(palette_image()), "stored: PNG, 8-bit palette, 48x32 pixels"),
        (png(DEEP), "scale: (value - 0) / 65,535, 16 bits (declared with --bits)"),
        (encode(Image.fromarray(GREY), "JPEG"), "scale: value / 255, 8 bits (8-bit images always have this scale)"),
    ],
)
def test_every_step_is_named(tmp_path, data, step):
    (tmp_path / "x").write_bytes(data)
    assert step in words(explain_file(tmp_path / "x", tmp_path / "out.png", bits=16))


@pytest.mark.parametrize(
    ("data", "steps"),
    [
        (tiff(GREY, photometric="miniswhite"), [("stored: TIFF, 8-bit grey", 0, 218), ("white is zero: 255", 37, 255)]),
        (
            tiff(GREY > 99, photometric="miniswhite"),
            [("stored: TIFF, black and white", 0, 1), ("white is zero: 1", 0, 1), ("to 8 bits: 255 *", 0, 255)],
        ),
        (
            encode(Image.fromarray(GREY >> 4), bits=4),
            [("stored: PNG, 4-bit grey", 0, 13), ("to 8 bits: 17 * value", 0, 221)],
        ),
        (encode(palette_image()), [("stored: PNG, 8-bit palette", 37, 255), ("palette: the red, green", 0, 218)]),
        (
            encode(Image.merge("CMYK", [Image.fromarray(GREY)] * 3 + [Image.fromarray(GREY * 0)]), "TIFF"),
            [("stored: TIFF, 8-bit CMYK", 0, 218), ("colour from CMYK", 37, 255)],
        ),
    ],
)
def test_what_pillow_does_itself_is_a_step_too(tmp_path, data, steps):
    """So that the values of the first step are those that lie in the file."""
    (tmp_path / "x").write_bytes(data)
    found = explain_file(tmp_path / "x", tmp_path / "out.png").steps
    for (words, low, high), step in zip(steps, found, strict=False):
        assert step.what.startswith(words)
        assert (step.low, step.high) == (low, high)


def test_a_turn_is_named(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "x.jpg").write_bytes(encode(Image.fromarray(GREY), "JPEG", exif=exif))
    assert "turned upright: EXIF orientation 6" in words(explain_file(tmp_path / "x.jpg", tmp_path / "out.png"))


def test_who_the_patient_is_never_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.dcm").write_bytes(dicom(DEEP, PatientID="SECRET-4711", PatientName="Secret^Name"))
    assert main(["prepare", "--explain", "x.dcm", "--resolution", "32"]) == 0
    text = capsys.readouterr().out
    assert "patient: known from the file" in text
    assert "SECRET" not in text.upper()
    assert hashlib.sha256(b"SECRET-4711").hexdigest()[:8] not in text
    with Image.open(tmp_path / "x.dcm.png") as picture:
        assert picture.size == (32, 32)
        assert picture.text == {}  # a real patient: no mark of a synthetic image


def test_nothing_is_overwritten_and_only_one_file_is_taken(tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(png(GREY))
    (tmp_path / "empty.png").touch()
    for file, out, reason in (
        ("x.png", "x.png", "x.png exists: name another file"),
        ("x.png", "folder", "expected the name of a .png"),
        ("nowhere.png", "out.png", "does not exist"),
        (".", "out.png", "is a folder: --explain takes one image file"),
    ):
        with pytest.raises(UsageError, match=reason):
            explain_file(tmp_path / file, tmp_path / out)
    (tmp_path / "set.zip").touch()
    with pytest.raises(UsageError, match="holds many images"):
        explain_file(tmp_path / "set.zip", tmp_path / "out.png")
    with pytest.raises(SamganError, match=r"empty\.png: an empty file"):
        explain_file(tmp_path / "empty.png", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()
    assert main(["prepare", str(tmp_path / "x.png"), "--explain", str(tmp_path / "y.png"), "--json"]) == 0
    assert (tmp_path / "y.png").exists()
    with pytest.raises(SystemExit):
        main(["prepare", str(tmp_path / "x.png")])  # without --explain, OUT is required
    assert "out" in capsys.readouterr().err
