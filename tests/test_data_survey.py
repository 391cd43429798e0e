"""One bit depth for a source, never one for each image."""

import io
import re
import shutil

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_readers import GREY, png, tiff

from samgan.data import prepare, survey
from samgan.data.readers import BadImageError, read_radiograph
from samgan.data.readers.radiograph import BIT_DEPTHS, Scale, Scales, apply_scale, scale_for
from samgan.data.sources import open_source
from samgan.errors import WARNING, SamganError, UsageError

SHAPE = np.linspace(0, 1, 16 * 24).reshape(16, 24)


def exposure(peak, number=0):
    """uint16 values from 0 to `peak`, different for each number."""
    return np.roll((SHAPE * peak).round().astype(np.uint16), number, axis=1)


def write(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(images):
        (folder / f"{number:02}.png").write_bytes(data)  # the content decides, not the name
    return folder


def surveyed(source, partial, bits=None):
    return survey.survey_depth(open_source(source), partial, bits, 2)


@settings(deadline=None, max_examples=100)
@given(
    low=st.integers(-(2**15), 2**15),
    span=st.integers(1, 2**17),
    kind=st.sampled_from([np.int32, np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_scale_agrees_with_float64(low, span, kind, seed):
    values = np.random.default_rng(seed).integers(low, low + span, (5, 7), endpoint=True).astype(kind)
    values.flat[0], values.flat[1] = low, low + span
    scale = scale_for(float(low), float(low + span), kind != np.int32)
    shift = min(low, 0)
    if kind != np.int32 and (low, span) in ((0, 1), (-1, 1), (-1, 2)):
        assert scale == Scale(min(low, 0), 1, 32, scale.origin)
    elif kind != np.int32 and low + span - shift < 16:
        assert scale == Scale(shift, low + span, 32, scale.origin)
    elif scale.bits < 32:
        assert scale.bits == min(bits for bits in BIT_DEPTHS if low + span - shift <= 2**bits - 1)
        assert scale[:2] == (shift, shift + 2**scale.bits - 1)
    else:
        assert low + span - shift > 65535
        assert scale[:2] == (shift, low + span)
    expected = (values.astype(np.float64) - scale.low) / (scale.high - scale.low)
    scaled = apply_scale(values, scale)
    np.testing.assert_array_equal(scaled, expected.astype(np.float32))
    assert scaled.min() >= 0
    assert scaled.max() <= 1


@pytest.mark.parametrize("write_image", [png, tiff, lambda values: tiff(values, compression="zlib")])
@pytest.mark.parametrize(("peaks", "bits"), [((900, 3000, 16012), 14), ((4095, 300), 12), ((5000, 65535), 16)])
def test_every_image_of_a_source_has_the_depth_that_holds_the_largest(tmp_path, write_image, peaks, bits):
    source = write(tmp_path / "set", [write_image(exposure(peak, number)) for number, peak in enumerate(peaks)])
    prepared = prepare(source, tmp_path / "out", resolution=16, fit="stretch", workers=2)
    assert [row.bits for row in prepared.manifest] == [bits] * len(peaks)
    for image, peak in zip(prepared.images, peaks, strict=True):
        assert image.mean() / 255 == pytest.approx(0.5 * peak / (2**bits - 1), abs=0.01)
    largest = f"{max(peaks):,}"
    words = f"depth {bits} bits, since the largest value in the source is {largest}; --bits declares another"
    assert any(words in sentence for sentence in prepared.info.warnings)


def test_a_zip_and_an_npz_have_one_depth_too(tmp_path):
    write(tmp_path / "set", [png(exposure(1000)), png(exposure(9000, 3))])
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "set")
    arrays = tmp_path / "arrays.npz"
    images = np.stack([exposure(1000), exposure(9000, 3)])
    np.savez(arrays, train_images=images, train_labels=np.array([0, 1]))
    for source in (tmp_path / "set", archive, arrays):
        assert surveyed(source, tmp_path / "partial").scales.integers[:3] == (0, 16383, 14)


def test_images_that_declare_their_depth_are_not_read_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "read_entries", None)
    deep_colour = png(np.repeat(exposure(65535)[..., None], 3, axis=2))
    source = write(tmp_path / "set", [png(GREY), png(GREY[::-1].copy()), deep_colour])
    found = surveyed(source, tmp_path / "partial")
    assert found == survey.Survey(Scales(None, None), ())
    assert not (tmp_path / "partial").exists()


def test_eight_bit_tiff_beside_deep_ones_keeps_its_own_depth(tmp_path):
    source = write(tmp_path / "set", [tiff(GREY), tiff(exposure(16000)), tiff(exposure(16000, 5))])
    assert [row.bits for row in prepare(source, tmp_path / "out", resolution=8).manifest] == [8, 14, 14]


def test_restart_does_not_repeat_the_survey_and_another_file_does(tmp_path, monkeypatch):
    source = write(tmp_path / "set", [png(exposure(peak, peak % 7)) for peak in (1000, 2000, 3000)])
    monkeypatch.setattr(survey, "SURVEYED_IMAGES", 2)
    first = surveyed(source, tmp_path / "partial")
    with monkeypatch.context() as patch:
        patch.setattr(survey, "read_extremes", None)
        assert surveyed(source, tmp_path / "partial") == first
    (source / "99.png").write_bytes(png(exposure(60000)))
    assert surveyed(source, tmp_path / "partial").scales.integers.bits == 16


def test_a_declared_depth_holds_for_all_and_larger_values_are_refused_by_name(tmp_path, monkeypatch):
    source = write(tmp_path / "set", [png(exposure(1000)), png(exposure(3000, 2)), png(exposure(5000, 4))])
    monkeypatch.setattr(survey, "read_entries", None)  # unsigned integers need no survey then
    with pytest.raises(
        SamganError, match=r"02.png: holds the value 5,000, outside 12 bits \(0 to 4,095\): declare more"
    ):
        prepare(source, tmp_path / "out", resolution=8, bits=12)
    prepared = prepare(source, tmp_path / "out", resolution=8, bits=16)
    assert [row.bits for row in prepared.manifest] == [16] * 3
    assert prepared.info.options.bits == 16
    with pytest.raises(UsageError, match="bits 7: expected a whole number from 8 to 16"):
        prepare(source, tmp_path / "out", bits=7)


@pytest.mark.parametrize("bits", [None, 12])
def test_negative_values_are_shifted_once_for_the_source(tmp_path, bits):
    values = [
        np.int16(np.roll(SHAPE * span + low, step)) for step, (low, span) in enumerate([(-1000, 900), (200, 2000)])
    ]
    source = write(tmp_path / "set", [tiff(each) for each in values])
    found = surveyed(source, tmp_path / "partial", bits)
    assert found.scales.integers[:3] == (-1000, -1000 + 4095, 12)
    assert "the smallest" in found.sentences[0]
    for each in values:
        pixels = read_radiograph(tiff(each), scales=found.scales).pixels[0]
        np.testing.assert_allclose(pixels, (each.astype(float) + 1000) / 4095, atol=1e-6)


def test_floating_point_within_0_and_1_stays_and_else_has_one_depth(tmp_path):
    unit = [np.float32(SHAPE), np.float32(np.roll(SHAPE, 3) * 0.3)]
    found = surveyed(write(tmp_path / "unit", [tiff(each) for each in unit]), tmp_path / "a", bits=12)
    assert found.scales.floats[:3] == (0, 1, 32)
    np.testing.assert_array_equal(read_radiograph(tiff(unit[1]), scales=found.scales).pixels[0], unit[1])
    mixed = surveyed(write(tmp_path / "mixed", [tiff(unit[0]), tiff(unit[0] * 4000)]), tmp_path / "b")
    assert mixed.scales.floats[:3] == (0, 4095, 12)
    assert "1 of 2 use less than 1/16 of this depth" in mixed.sentences[1]


@pytest.mark.parametrize("bits", [None, 8, 12])
@pytest.mark.parametrize(
    ("low", "high", "black", "white", "words"),
    [
        (-1, 1, -1, 1, "within -1 and 1; -1 is shown black and 1 white"),
        (-0.5, 0.9, -1, 1, "within -1 and 1; -1 is shown black and 1 white"),
        (0, 4.5, 0, 4.5, "white is the largest value in the source, 4.5, since the values span less than 16"),
        (-3, 5, -3, 5, "span less than 16; the smallest value in the source, -3, is shown black"),
    ],
)
def test_floating_point_of_a_small_range_is_never_counted_in_grey_levels(
    tmp_path, low, high, black, white, words, bits
):
    values = [np.float32(np.roll(SHAPE, step) * (high - low) + low) for step in (0, 3)]
    found = surveyed(write(tmp_path / "set", [tiff(each) for each in values]), tmp_path / "partial", bits)
    assert found.scales.floats[:3] == (pytest.approx(black), pytest.approx(white), 32)
    assert [words in sentence for sentence in found.sentences] == [True]
    pixels = read_radiograph(tiff(values[1]), scales=found.scales).pixels[0]
    np.testing.assert_allclose(pixels, (values[1] - black) / (white - black), atol=1e-6)


@pytest.mark.parametrize(
    ("peaks", "mark", "words"),
    [
        (
            4095,
            65535,
            r"23 of 24 use less than 1/16 .* The largest value is in 05.png. .* add --bits 12, which leaves",
        ),
        (16383, 65535, r"23 of 24 use less than a quarter .* in 05.png. .* a burned-in mark.* --bits 14"),
        (4095, 4095, None),
        (40000, 65535, None),
    ],
)
def test_a_mark_burned_into_one_image_that_darkens_all_others_is_named(tmp_path, peaks, mark, words):
    images = [exposure(peaks, number) for number in range(24)]
    images[5][:2, :2] = mark
    sentences = surveyed(write(tmp_path / "set", [png(each) for each in images]), tmp_path / "partial").sentences
    warnings = [sentence for sentence in sentences if sentence.startswith(WARNING)]
    assert len(warnings) == (words is not None)
    for sentence in warnings:
        assert re.search(words, sentence)


def test_where_all_images_turn_black_the_error_says_why(tmp_path):
    images = [(exposure(4095, number).astype(np.uint32)) for number in range(4)]
    images[2][0, 0] = 2**31 - 1
    for name in "AB":
        source = write(tmp_path / "set" / name, [tiff(each) for each in images]).parent
        images = images[:2]
    words = r"expected at least 2 distinct images.*5 of 6 use less than 1/16.* in A/02.png"
    with pytest.raises(SamganError, match=words):
        prepare(source, tmp_path / "out", resolution=8)


def test_a_tiff_of_12_bits_per_sample_declares_them(tmp_path):
    values = exposure(900)
    data = tiff_of_12_bits(values)
    radiograph = read_radiograph(data, scales=Scales(Scale(0, 65535, 16), None))
    assert radiograph.bits == 12
    np.testing.assert_allclose(radiograph.pixels[0], values / 4095, rtol=1e-6)
    source = write(tmp_path / "set", [data, tiff(exposure(60000))])
    assert [row.bits for row in prepare(source, tmp_path / "out", resolution=8).manifest] == [12, 16]


def tiff_of_12_bits(values):
    """Pack two values into three bytes, and say so in the header of a plain 16-bit TIFF."""
    high, low = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], axis=-1).astype(np.uint8).tobytes()
    data = bytearray(tiff(values))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as opened:
        tags = opened.pages[0].tags
        start, bits, size = tags[273].value[0], tags[258].valueoffset, tags[279].valueoffset
    data[start:] = packed
    data[bits : bits + 2] = (12).to_bytes(2, "little")
    data[size : size + 4] = len(packed).to_bytes(4, "little")
    return bytes(data)


def test_a_single_image_that_exceeds_the_scale_is_refused():
    with pytest.raises(BadImageError, match=r"holds the value -3, outside 8 bits \(0 to 255\)"):
        read_radiograph(np.int32(SHAPE * 100 - 3), scales=Scales(Scale(0, 255, 8), None))
