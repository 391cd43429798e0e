"""Marks and pixels after others have stored a file again; and what then shows another picture."""

import io
import json
import shutil
import subprocess
import zlib

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from pydicom.pixels import get_encoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from samgan.networks import Generator
from samgan.pictures import SYNTHETIC
from samgan.provenance import Mark, read_samples, read_stored
from samgan.provenance.mark import find_entries
from samgan.runs import Run, save_checkpoint
from samgan.sampling import load_model, write_samples
from samgan.trust import format_findings, verify_files

JPEG = (
    "Lossless JPEG compression, selection value 1, point transform 0, compression ratio 1.1617 [{}]",
    "Lossless JPEG-LS compression, compression ratio 2.7[{}]",
)


@pytest.fixture(scope="module", params=[1, 3], ids=["grey", "colour"])
def model(request, tiny_config, tmp_path_factory):
    config = tiny_config.override({"network.image_channels": request.param, "data.classes": ["PNEUMONIE à virus"]})
    run = Run.create(tmp_path_factory.mktemp("stored") / "run", config)
    torch.manual_seed(0)
    weights = Generator(config.network).state_dict()
    state = {"config": config.to_dict(), "step": 1, "images_seen": 16, "generator": weights, "ema_generator": weights}
    save_checkpoint(run.checkpoint_path(1), state)
    return load_model(run)


@pytest.fixture(scope="module")
def samples(model, tmp_path_factory):
    """One sample in each format of one file."""
    folder = tmp_path_factory.mktemp("samples")
    grey = ("png16", "dicom16") if model.config.network.image_channels == 1 else ()
    for name in ("png", "dicom", *grey):
        write_samples(model, folder / name, 1, seed=40, file_format=name)
    return {path.parent.name: path for path in sorted(folder.glob("*/seed*"))}


def dicoms(samples):
    return [path for name, path in samples.items() if name.startswith("dicom")]


def check(path, model):
    """The finding with the model, after a check that without it the file is as good or as bad."""
    (alone,) = verify_files([path])
    (finding,) = verify_files([path], iter([model]))
    assert alone.ok == finding.ok
    return finding


def verdict(path, model):
    finding = check(path, model)
    return finding.verdict, finding.detail


def test_dicom_written_in_another_order_of_bytes_is_regenerated(model, samples, tmp_path):
    for path in dicoms(samples):
        for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
            dataset = pydicom.dcmread(path)
            if syntax == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
                dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
            dataset.file_meta.TransferSyntaxUID = syntax
            is_little = syntax != ExplicitVRBigEndian
            dataset.decode()
            pydicom.dcmwrite(
                tmp_path / "a.dcm", dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=is_little
            )
            ((image, _),) = read_samples(tmp_path / "a.dcm")
            assert image.dtype.isnative
            assert verdict(tmp_path / "a.dcm", model) == ("regenerated", "")


def test_dicom_without_preamble_and_meta_information_is_regenerated(model, samples, tmp_path):
    for path in dicoms(samples):
        for implicit in (True, False):
            dataset = pydicom.dcmread(path)
            dataset.decode()
            bare = pydicom.Dataset(dataset)
            pydicom.dcmwrite(tmp_path / "a.dcm", bare, implicit_vr=implicit, little_endian=True)
            assert (tmp_path / "a.dcm").read_bytes()[128:132] != b"DICM"
            assert verdict(tmp_path / "a.dcm", model) == ("regenerated", "")


def test_dicom_compressed_without_loss_is_regenerated(model, samples, tmp_path):
    for path in dicoms(samples):
        for syntax in (RLELossless, JPEG2000Lossless):
            if not get_encoder(syntax).is_available:
                continue
            dataset = pydicom.dcmread(path)
            dataset.compress(syntax, generate_instance_uid=False)
            dataset.DerivationDescription = JPEG[0].format(dataset.DerivationDescription)[:1024]
            dataset.save_as(tmp_path / "a.dcm")
            assert verdict(tmp_path / "a.dcm", model) == ("regenerated", ""), syntax.name


@pytest.mark.parametrize("option", ["--jpeg", "--jpegls", "--rle", "--j2k"])
def test_dicom_compressed_by_gdcm_is_regenerated(model, samples, tmp_path, option):
    if shutil.which("gdcmconv") is None:
        pytest.skip("gdcmconv is not installed")
    for path in dicoms(samples):
        subprocess.run(["gdcmconv", option, path, tmp_path / "a.dcm"], check=True, capture_output=True)
        assert verdict(tmp_path / "a.dcm", model) == ("regenerated", "")


@pytest.mark.parametrize(
    "command",
    ["dcmcjpeg", "dcmcjpeg +e1 +un", "dcmcjpls", "dcmcrle", "dcmconv +te", "dcmconv +tb", "dcmconv +ti", "dcmconv +td"],
)
def test_dicom_stored_again_by_dcmtk_is_regenerated(model, samples, tmp_path, command):
    program, *options = command.split()
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    for path in dicoms(samples):
        subprocess.run([program, *options, path, tmp_path / "a.dcm"], check=True, capture_output=True)
        assert verdict(tmp_path / "a.dcm", model) == ("regenerated", "")


@pytest.mark.parametrize("words", [*JPEG, "{}\\Lossless", "Anonymised\\{}", '{{"a": 1}} {}', "{{ {} }}", 'x {{"', ""])
def test_the_mark_is_found_beside_other_words(model, samples, tmp_path, words):
    path = dicoms(samples)[0]
    dataset = pydicom.dcmread(path)
    own = dataset.DerivationDescription
    dataset.DerivationDescription = words.format(own) if "{}" in words else words
    if "{}" not in words:
        dataset.ImageComments = f"{SYNTHETIC} {own}"
    dataset.save_as(tmp_path / "a.dcm")
    assert read_samples(tmp_path / "a.dcm")[0].mark == read_samples(path)[0].mark
    assert verdict(tmp_path / "a.dcm", model) == ("regenerated", "")


def test_a_mark_that_is_cut_off_is_told(model, samples, tmp_path):
    dataset = pydicom.dcmread(dicoms(samples)[0])
    own = dataset.DerivationDescription
    for cut in (own[:-1], own[: len(own) // 2], own[:60], own[len(own) // 2 :], JPEG[0].format(own)[:400] + "...]"):
        dataset.DerivationDescription = cut
        dataset.save_as(tmp_path / "a.dcm")
        finding = check(tmp_path / "a.dcm", model)
        assert finding.verdict == "not checked"
        assert "its mark is cut off or damaged: the Derivation Description holds only a part" in finding.detail
        assert f"in {len(cut.strip())} characters" in finding.detail
    dataset.DerivationDescription = "Lossless"
    dataset.save_as(tmp_path / "a.dcm")
    finding = check(tmp_path / "a.dcm", model)
    assert "says that samgan made it, but names no model" in finding.detail
    del dataset.ImageComments
    dataset.save_as(tmp_path / "a.dcm")
    assert check(tmp_path / "a.dcm", model).verdict == "no mark"


@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 2**32 - 1), st.text(max_size=12))
def test_entries_are_found_in_any_text(before, after, seed, name):
    entries = Mark("a" * 64, "tiny", 16, seed, name, "b" * 64).entries()
    assert find_entries(before + json.dumps(entries) + after) == entries


def test_a_long_text_of_beginnings_is_searched_quickly():
    assert find_entries('{"a":' * 100_000) == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1 shows it inverted"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "in other colours"),
        ({"PresentationLUTShape": "INVERSE"}, "Presentation LUT Shape shows it inverted"),
        ({"RescaleSlope": -1, "RescaleIntercept": 255}, "changes its values"),
        ({"PixelRepresentation": 1}, "signed"),
        ({"BitsStored": 6, "HighBit": 5}, "hides a part"),
        ({"PatientName": "Doe^Jane"}, "Patient's Name or ID is not SYNTHETIC"),
        ({"PatientID": "1234"}, "Patient's Name or ID is not SYNTHETIC"),
    ],
)
def test_dicom_that_shows_or_says_something_else_is_altered(model, samples, tmp_path, changes, reason):
    for path in dicoms(samples):
        dataset = pydicom.dcmread(path)
        if dataset.SamplesPerPixel == 3 and not reason.startswith("Patient"):
            continue
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(tmp_path / "a.dcm")
        found, detail = verdict(tmp_path / "a.dcm", model)
        hides = "BitsStored" in changes  # decoding hides these bits as well
        assert found == ("differs" if hides else "altered")
        assert reason in detail
        assert hides or detail.startswith("the pixels are right, but ")
        assert "Doe" not in detail


def test_dicom_with_an_overlay_or_with_another_description_is_altered(model, samples, tmp_path):
    for path in dicoms(samples):
        dataset = pydicom.dcmread(path)
        dataset.add_new(0x60003000, "OW", bytes(128))
        dataset.save_as(tmp_path / "a.dcm")
        assert verdict(tmp_path / "a.dcm", model) == (
            "altered",
            "the pixels are right, but an overlay is drawn over it",
        )
        dataset = pydicom.dcmread(path)
        dataset.DerivationDescription = dataset.DerivationDescription.replace(SYNTHETIC, "Miss Doe")
        dataset.save_as(tmp_path / "a.dcm")
        found, detail = verdict(tmp_path / "a.dcm", model)
        assert (found, "its Description is not" in detail) == ("altered", True)


def test_what_changes_the_display_of_dicom_only_is_said(model, samples, tmp_path):
    for path in dicoms(samples):
        dataset = pydicom.dcmread(path)
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", "0"  # change nothing
        dataset.save_as(tmp_path / "a.dcm")
        assert verdict(tmp_path / "a.dcm", model) == ("regenerated", "")
        if dataset.SamplesPerPixel == 3:
            continue
        for center in (None, 10, [10, 20]):
            dataset.WindowCenter = center
            dataset.save_as(tmp_path / "a.dcm")
            found, detail = verdict(tmp_path / "a.dcm", model)
            assert (found, "its window is not the whole range" in detail) == ("regenerated", True)
        dataset.add_new(0x00280120, "US", 0)
        dataset.save_as(tmp_path / "a.dcm")
        assert "a Pixel Padding Value changes the display only" in verdict(tmp_path / "a.dcm", model)[1]


def test_dicom_of_bytes_in_wider_words_is_regenerated(model, samples, tmp_path):
    dataset = pydicom.dcmread(samples["dicom"])
    dataset.PixelData = np.frombuffer(dataset.PixelData, np.uint8).astype("<u2").tobytes()
    dataset.BitsAllocated = 16
    dataset["PixelData"].VR = "OW"
    dataset.save_as(tmp_path / "a.dcm")
    assert verdict(tmp_path / "a.dcm", model) == ("regenerated", "")


# ---- PNG


def save_again(source, target, change=lambda image: image, text=(), **options):
    """The PNG with its text, and with what was changed."""
    with Image.open(source) as image:
        info = PngImagePlugin.PngInfo()
        for key, value in {**image.text, **dict(text)}.items():
            info.add_text(key, value)
        changed = change(image)
    changed.save(target, pnginfo=info, **options)
    return target


def test_a_png_with_another_description_is_altered(model, samples, tmp_path):
    for words in ("X-ray of patient 12345, 2024-03-01", "", SYNTHETIC + " "):
        path = save_again(samples["png"], tmp_path / "a.png", text={"Description": words})
        assert verdict(path, model) == (
            "altered", "the pixels are right, but its Description is not the one of a synthetic image",
        )  # fmt: skip
    finding = check(path, model)
    assert finding.difference == 0
    assert format_findings([finding]).count("\n") == 0
    more = save_again(samples["png"], tmp_path / "a.png", text={"Comment": "of patient 12345\x1b[2J"})
    assert verdict(more, model) == ("regenerated", "it has text beside its mark, which was not checked: Comment")


def test_a_png_that_is_stored_in_another_way_is_regenerated(model, samples, tmp_path):
    channels = len(read_samples(samples["png"])[0].image)
    modes = ("RGB", "RGBA", "LA") if channels == 1 else ("RGBA",)
    for mode in modes:
        path = save_again(samples["png"], tmp_path / "a.png", lambda image, mode=mode: image.convert(mode))
        assert verdict(path, model) == ("regenerated", ""), mode
    if channels == 1:  # `convert` keeps the values of a grey picture and gives it a grey palette
        path = save_again(samples["png"], tmp_path / "a.png", lambda image: image.convert("P"))
        with Image.open(path) as image:
            assert image.mode == "P"
        assert verdict(path, model) == ("regenerated", "")


def test_a_png_that_shows_something_else_is_found(model, samples, tmp_path):
    def inverted(image):
        palette = image.convert("P")
        palette.putpalette([255 - value // 3 for value in range(768)])
        return palette

    if len(read_samples(samples["png"])[0].image) == 1:
        path = save_again(samples["png"], tmp_path / "a.png", inverted)
        with Image.open(path) as image, Image.open(samples["png"]) as own:
            assert np.array_equal(np.asarray(image), np.asarray(own))  # the indices are the values
        assert verdict(path, model)[0] == "differs"
        path = save_again(samples["png16"], tmp_path / "a.png", transparency=3)
        assert "transparent" in verdict(path, model)[1]

    def transparent(image):
        image = image.convert("RGBA")
        image.putalpha(128)
        return image

    path = save_again(samples["png"], tmp_path / "a.png", transparent)
    assert "parts of it are transparent" in verdict(path, model)[1]
    exif = Image.Exif()
    exif[0x0112] = 3
    path = save_again(samples["png"], tmp_path / "a.png", exif=exif)
    assert verdict(path, model) == ("altered", "the pixels are right, but its EXIF orientation 3 turns or mirrors it")
    with Image.open(samples["png"]) as image:
        other = Image.new(image.mode, image.size)
    path = save_again(samples["png"], tmp_path / "a.png", save_all=True, append_images=[other])
    assert verdict(path, model) == ("altered", "the pixels are right, but it is an animation of 2 frames")
    path = save_again(samples["png"], tmp_path / "a.png", icc_profile=b"profile")
    assert verdict(path, model) == ("regenerated", "a gamma or colour profile changes the display only")


def test_png_with_gamma(model, samples, tmp_path):
    data = samples["png"].read_bytes()
    for gamma, said in ((45455, ""), (1000, "a gamma or colour profile changes the display only")):
        body = b"gAMA" + gamma.to_bytes(4, "big")
        chunk = (4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
        assert Image.open(io.BytesIO(data[:33] + chunk + data[33:])).info["gamma"] == gamma / 100_000
        assert verdict(tmp_path / "a.png", model) == ("regenerated", said)


def test_an_archive_with_another_description_is_altered(model, tmp_path):
    write_samples(model, tmp_path / "out", 2, seed=40, file_format="npz")
    path = tmp_path / "out" / "samples.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["provenance"] = np.array(str(arrays["provenance"]).replace(SYNTHETIC, "real"))
    np.savez(path, **arrays)
    assert [stored.faults for stored in read_stored(path)] == [
        ("its Description is not the one of a synthetic image",)
    ] * 2
    assert {finding.verdict for finding in verify_files([path], iter([model]))} == {"altered"}
