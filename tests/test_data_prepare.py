"""From a source to a prepared set: pixels, manifest, restart, and what is refused."""

import csv
import errno
import hashlib
import json
import os
import shutil
import threading
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import skimage.exposure
import skimage.transform
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_data_readers import GREY, dicom
from test_data_sources import write_npz

import samgan.files
from samgan.data import PreparedSet, chunks, dataset, phantoms, prepare, write_phantoms
from samgan.data.documents import Duplicate
from samgan.data.fit import FITS, NORMALIZERS, fit_image
from samgan.data.options import PrepareOptions
from samgan.data.prepare import fingerprint_of
from samgan.data.readers import MAXIMUM_PIXELS, BadImageError
from samgan.data.sources import Entry
from samgan.data.subset import subset
from samgan.errors import SamganError, UsageError


@pytest.fixture(scope="module")
def twelve_phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 6, 32)
    return folder


@pytest.fixture
def folder(tmp_path, twelve_phantoms):
    """Twelve phantoms of two classes, to change at will."""
    return shutil.copytree(twelve_phantoms, tmp_path / "set")


def prepare_here(source, out, **options):
    return prepare(source, out, **{"resolution": 16, "workers": 1} | options)


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


# one image


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(8, 90),
    height=st.integers(8, 90),
    resolution=st.sampled_from([8, 16, 64]),
    fit=st.sampled_from(FITS),
    normalize=st.sampled_from(["none", "percentile"]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 3),
)
def test_fit_keeps_shape_range_and_mirror_symmetry(width, height, resolution, fit, normalize, channels, seed):
    pixels = np.random.default_rng(seed).random((channels, height, width), dtype=np.float32)
    fitted = fit_image(pixels, resolution, fit, normalize)
    assert fitted.shape == (channels, resolution, resolution)
    assert fitted.dtype == np.uint8
    if fit != "pad" or (resolution - round(resolution * min(width, height) / max(width, height))) % 2 == 0:
        mirrored = fit_image(np.ascontiguousarray(pixels[:, :, ::-1]), resolution, fit, normalize)
        np.testing.assert_allclose(mirrored[:, :, ::-1].astype(int), fitted, atol=1)


@given(st.floats(0, 1, width=32), st.integers(8, 60), st.integers(8, 60), st.sampled_from(["crop", "stretch"]))
@settings(max_examples=30, deadline=None)
def test_fit_keeps_a_constant(shade, width, height, fit):
    fitted = fit_image(np.full((1, height, width), shade, dtype=np.float32), 16, fit)
    np.testing.assert_allclose(fitted, shade * 255, atol=0.51)


@given(st.integers(8, 90), st.integers(8, 90))
@settings(max_examples=30, deadline=None)
def test_pad_shows_the_whole_image_between_black_bars(width, height):
    fitted = fit_image(np.ones((1, height, width), dtype=np.float32), 32, "pad")[0]
    rows, columns = fitted.any(axis=1).sum(), fitted.any(axis=0).sum()
    assert max(rows, columns) == 32
    assert rows / columns == pytest.approx(height / width, rel=0.51 / (min(rows, columns) - 0.5))
    assert (fitted[fitted > 0] == 255).all()


def test_crop_takes_the_centre_and_stretch_everything():
    pixels = np.zeros((1, 16, 48), dtype=np.float32)
    pixels[:, :, 16:32] = 1
    assert (fit_image(pixels, 16, "crop") == 255).all()
    assert fit_image(pixels, 16, "stretch").mean() == pytest.approx(255 / 3, abs=4)


def test_resizing_is_antialiased():
    checkerboard = np.indices((128, 128)).sum(axis=0)[None] % 2
    fitted = fit_image(checkerboard.astype(np.float32), 16)
    np.testing.assert_allclose(fitted[:, 2:-2, 2:-2], 127.5, atol=2)
    picture = phantoms(1, 128, pneumonia=False)[0, 0] / np.float32(255)
    theirs = skimage.transform.resize(picture, (32, 32), anti_aliasing=True)
    assert np.abs(fit_image(picture[None], 32)[0] / 255 - theirs).mean() < 0.02


def test_percentile_stretches_to_the_full_range():
    pixels = (phantoms(1, 64, pneumonia=False)[0] / 255 * 0.2 + 0.3).astype(np.float32)
    fitted = fit_image(pixels, 64, "crop", "percentile")
    assert np.percentile(fitted, (0.5, 99.5)).tolist() == [0, 255]
    low, high = np.percentile(pixels, (0.5, 99.5))
    np.testing.assert_allclose(fitted, ((pixels - low) / (high - low)).clip(0, 1) * 255, atol=1)


def test_clahe_comes_after_resizing_and_before_the_bars():
    pixels = (phantoms(1, 128, pneumonia=False)[0] / 255).astype(np.float32)
    resized = np.asarray(Image.fromarray(pixels[0]).resize((32, 32), Image.Resampling.LANCZOS)).clip(0, 1)
    expected = skimage.exposure.equalize_adapthist(resized) * 255
    np.testing.assert_allclose(fit_image(pixels, 32, "crop", "clahe")[0], expected, atol=1)
    wide = np.concatenate([pixels, pixels], axis=2)
    assert (fit_image(wide, 32, "pad", "clahe")[0, :8] == 0).all()


@pytest.mark.parametrize("normalize", NORMALIZERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_survives_constant_and_tiny_images(normalize, channels):
    for shade in (0.0, 0.4, 1.0):
        fitted = fit_image(np.full((channels, 8, 300), shade, dtype=np.float32), 8, "pad", normalize)
        assert fitted.shape == (channels, 8, 8)
    fit_image(np.random.default_rng(0).random((channels, 8, 300), dtype=np.float32), 8, "pad", normalize)


# a whole set


def test_prepared_set_holds_what_the_files_show(folder, tmp_path):
    prepared = prepare_here(folder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dataset.json", "images.npy", "manifest.csv"]
    assert (prepared.resolution, prepared.channels, prepared.classes) == (16, 1, ["NORMAL", "PNEUMONIA"])
    assert len(prepared.manifest) == len(prepared.images) == 12
    for number, (row, image) in enumerate(zip(prepared.manifest, prepared.images, strict=True)):
        data = (folder / row.source).read_bytes()
        with Image.open(folder / row.source) as opened:
            pixels = np.asarray(opened, dtype=np.float32)[None] / np.float32(255)
        np.testing.assert_array_equal(image, fit_image(pixels, 16))
        assert row.index == number
        assert row.sha256 == hashlib.sha256(data).hexdigest()
        assert (row.width, row.height, row.bits) == (32, 32, 8)
        assert row.class_name == row.source.split("/")[0]
        assert row.patient == Path(row.source).stem.split("_")[0]
        assert row.near_duplicate_of is None
    info = prepared.info
    counted = Counter((row.class_name, row.split) for row in prepared.manifest)
    assert info.counts == {
        name: {split: counted[name, split] for split in ("train", "holdout")} for name in prepared.classes
    }
    assert info.images == 12
    assert info.split_by == "patient (file names)"
    assert info.matched_share == 1.0
    assert info.options.holdout == 0.2
    content = (tmp_path / "out/images.npy").read_bytes() + (tmp_path / "out/manifest.csv").read_bytes()
    assert prepared.sha256 == hashlib.sha256(content).hexdigest()


def test_zip_of_the_folder_gives_the_same_images(folder, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "set")
    from_folder = prepare_here(folder, tmp_path / "a")
    from_zip = prepare_here(archive, tmp_path / "b")
    np.testing.assert_array_equal(from_folder.images, from_zip.images)
    assert [row.split for row in from_folder.manifest] == [row.split for row in from_zip.manifest]
    assert from_zip.manifest[0].source == "set/NORMAL/phantom0001_1.png"


def test_npz_keeps_its_own_splits(tmp_path):
    write_npz(tmp_path / "pneumoniamnist_64.npz", train=6, val=2, test=3)
    prepared = prepare_here(tmp_path / "pneumoniamnist_64.npz", tmp_path / "out")
    assert prepared.info.split_by == "source"
    assert len(prepared.indices("train")) == 6
    assert len(prepared.indices("holdout")) == 5
    with np.load(tmp_path / "pneumoniamnist_64.npz") as arrays:
        np.testing.assert_array_equal(prepared.select("train")[:, 0], arrays["train_images"])  # 16 px stay as they are
        assert prepared.manifest[prepared.indices("train")[1]].sha256 == (
            hashlib.sha256(arrays["train_images"][1].tobytes()).hexdigest()
        )


def test_patients_on_both_sides_of_the_sources_own_split_are_counted(folder, tmp_path):
    for part in ("train", "test"):
        for name in ("NORMAL", "PNEUMONIA"):
            (tmp_path / "own" / part / name).mkdir(parents=True)
            first, *others = sorted((folder / name).iterdir())
            for file in [first] if part == "test" else others:
                shutil.copy(file, tmp_path / "own" / part / name)
    info = prepare_here(tmp_path / "own", tmp_path / "apart").info
    assert (info.split_by, info.groups_on_both_sides) == ("source", 0)
    shutil.copy(others[0], tmp_path / "own/train/PNEUMONIA" / first.name.replace("_1", "_2"))
    mixed = prepare_here(tmp_path / "own", tmp_path / "mixed", duplicates="keep")
    part = subset(mixed, tmp_path / "part", images={"NORMAL": 3})
    assert mixed.info.groups_on_both_sides == part.info.groups_on_both_sides == 1
    assert subset(mixed, tmp_path / "one", classes=["NORMAL"]).info.groups_on_both_sides == 0


def test_enlarged_images_are_counted(folder, tmp_path):
    assert prepare_here(folder, tmp_path / "a", resolution=32).info.enlarged == 0
    assert prepare_here(folder, tmp_path / "b", resolution=64).info.enlarged == 12


def test_three_channels_on_request(folder, tmp_path):
    one, three = (prepare_here(folder, tmp_path / str(channels), channels=channels) for channels in (1, 3))
    assert three.images.shape == (12, 3, 16, 16)
    np.testing.assert_array_equal(three.images, np.repeat(one.images, 3, axis=1))


def test_result_does_not_depend_on_threads_chunks_or_copying(folder, tmp_path, monkeypatch):
    alone = prepare_here(folder, tmp_path / "alone")
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", 5)
    together = prepare_here(folder, tmp_path / "together", workers=2)
    shutil.copytree(folder, tmp_path / "copy/set", copy_function=shutil.copyfile)
    copied = prepare_here(tmp_path / "copy/set", tmp_path / "copied")
    assert alone.sha256 == together.sha256 == copied.sha256


def test_second_run_returns_at_once_and_other_options_prepare_again(folder, tmp_path, monkeypatch, capsys):
    first = prepare_here(folder, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_prepare_chunk", None)  # nothing is to be read
        assert prepare_here(folder, tmp_path / "out").sha256 == first.sha256
    assert prepare_here(folder, tmp_path / "out", resolution=8).resolution == 8
    (folder / "NORMAL/phantom0001_1.png").unlink()
    assert len(prepare_here(folder, tmp_path / "out").images) == 11
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "replacing it" in captured.err


def test_interrupted_run_is_taken_up_where_it_stopped(folder, tmp_path, monkeypatch):
    expected = prepare_here(folder, tmp_path / "expected").sha256
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", 2)
    done = []
    original = chunks._prepare_chunk

    def interrupted(path, file, *arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(file)
        return original(path, file, *arguments)

    monkeypatch.setattr(chunks, "_prepare_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_here(folder, tmp_path / "out")
    with pytest.raises(SamganError, match="not a finished prepared set"):
        PreparedSet.open(tmp_path / "out")
    again = []
    monkeypatch.setattr(chunks, "_prepare_chunk", lambda *arguments: again.append(arguments[1]) or original(*arguments))
    assert prepare_here(folder, tmp_path / "out").sha256 == expected
    assert len(again) == 2
    assert not (tmp_path / "out/.partial").exists()


def test_a_failure_does_not_wait_for_the_other_threads_chunks(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", 6)
    others_started, failed, fitted = threading.Event(), threading.Event(), []

    def fail_or_fit(pixels, *options):
        if threading.current_thread() is first:
            others_started.wait(20)
            failed.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        others_started.set()
        failed.wait(20)
        time.sleep(0.5)
        fitted.append(1)
        return fit_image(pixels, *options)

    def first_chunk(path, file, *arguments):
        nonlocal first
        first = first or threading.current_thread()
        return original(path, file, *arguments)

    first, original = None, chunks._prepare_chunk
    monkeypatch.setattr(chunks, "_prepare_chunk", first_chunk)
    monkeypatch.setattr(chunks, "fit_image", fail_or_fit)
    with pytest.raises(SamganError, match="No space left"):
        prepare_here(folder, tmp_path / "out", workers=2)
    assert len(fitted) == 1  # of six


def test_decoders_are_strict_around_all_threads_and_the_users_settings_come_back(folder, tmp_path, monkeypatch):
    limits, before = [], (Image.MAX_IMAGE_PIXELS, warnings.filters[:])

    def fit(*arguments):
        limits.append(Image.MAX_IMAGE_PIXELS)  # between one call of read_radiograph and the next
        return fit_image(*arguments)

    monkeypatch.setattr(chunks, "fit_image", fit)
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", 1)
    prepare_here(folder, tmp_path / "out", workers=4)
    assert limits == [MAXIMUM_PIXELS] * 12
    assert before == (Image.MAX_IMAGE_PIXELS, warnings.filters)


@pytest.mark.parametrize("full_at", ["chunk", "images.npy", "manifest.csv", "dataset.json"])
def test_a_full_disk_leaves_nothing_that_counts_as_finished(folder, tmp_path, monkeypatch, full_at):
    original = os.fsync
    written = []

    def fsync(descriptor):
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        written.append(name)
        if full_at in name or (full_at == "chunk" and ".partial" in name):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to know which file is written")
    with monkeypatch.context() as patch:
        patch.setattr(samgan.files.os, "fsync", fsync)
        with pytest.raises(SamganError, match=r"No space left on device.*free some"):
            prepare_here(folder, tmp_path / "out")
    assert written
    assert not (tmp_path / "out/dataset.json").exists()
    assert not list((tmp_path / "out").glob(".*.tmp"))
    assert len(prepare_here(folder, tmp_path / "out").images) == 12


# duplicates


def test_exact_duplicates_are_dropped_and_named(folder, tmp_path):
    shutil.copy(folder / "NORMAL/phantom0001_1.png", folder / "NORMAL/phantom0009_1.png")  # the same file
    with Image.open(folder / "NORMAL/phantom0002_1.png") as image:
        image.save(folder / "PNEUMONIA/phantom0012_2.bmp")  # another file of the same pixels
    prepared = prepare_here(folder, tmp_path / "out")
    assert len(prepared.images) == 12
    assert prepared.info.left_out.exact_duplicates == (
        Duplicate("NORMAL/phantom0009_1.png", same_as="NORMAL/phantom0001_1.png"),
        Duplicate("PNEUMONIA/phantom0012_2.bmp", same_as="NORMAL/phantom0002_1.png"),
    )
    split = {row.patient: row.split for row in prepared.manifest}
    assert split["phantom0012"] == split["phantom0002"]  # joined by the duplicate that is gone


def test_kept_duplicates_stay_in_one_split(folder, tmp_path):
    for number in range(6):
        shutil.copy(folder / f"NORMAL/phantom000{number + 1}_1.png", folder / f"NORMAL/phantom002{number}_1.png")
    prepared = prepare_here(folder, tmp_path / "out", duplicates="keep", holdout=0.5)
    assert len(prepared.images) == 18
    assert prepared.info.left_out.exact_duplicates == ()
    assert_near_duplicates_share_a_split(prepared, 6)


def assert_near_duplicates_share_a_split(prepared, count):
    pairs = [
        (row, prepared.manifest[row.near_duplicate_of])
        for row in prepared.manifest
        if row.near_duplicate_of is not None
    ]
    assert len(pairs) == prepared.info.near_duplicates == count
    assert all(row.split == partner.split and row.index != partner.index for row, partner in pairs)
    assert {row.split for row in prepared.manifest} == {"train", "holdout"}


def test_near_duplicates_are_kept_listed_and_share_a_split(tmp_path):
    write_phantoms(tmp_path / "set", 8, 64)
    for file in list((tmp_path / "set").rglob("*.png")):
        with Image.open(file) as image:
            image.point(lambda value: value * 0.9 + 5).save(file.with_name(f"copy_of_{file.stem}.jpg"), quality=80)
    prepared = prepare_here(tmp_path / "set", tmp_path / "out", resolution=32, holdout=0.5)
    assert len(prepared.images) == 32
    assert_near_duplicates_share_a_split(prepared, 16)
    for row in prepared.manifest:
        if row.near_duplicate_of is not None:
            partner = prepared.manifest[row.near_duplicate_of]
            assert Path(row.source).stem.removeprefix("copy_of_") == Path(partner.source).stem.removeprefix("copy_of_")
    training = prepared.indices("train")
    groups = prepared.groups(training)
    assert len(set(groups)) == len(training) / 2
    assert set(groups) <= {prepared.manifest[index].patient for index in training}
    firsts = [int(index) for index in training if prepared.manifest[index].near_duplicate_of is None]
    assert prepared.groups(firsts) == [prepared.manifest[index].patient for index in firsts]


# patients


def test_patients_are_never_on_both_sides(tmp_path):
    images = phantoms(60, 16, pneumonia=False)
    for number, image in enumerate(images):
        file = tmp_path / "set" / "AB"[number % 2] / f"person{number // 5}_virus_{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(file)
    prepared = prepare_here(tmp_path / "set", tmp_path / "out", holdout=0.3)
    sides = {}
    for row in prepared.manifest:
        sides.setdefault(row.patient, set()).add(row.split)
    assert len(sides) == prepared.info.patients == 12
    assert all(len(side) == 1 for side in sides.values())
    assert 10 <= len(prepared.indices("holdout")) <= 25


@pytest.mark.parametrize(
    ("pattern", "split_by", "share"),
    [
        (None, "image", 0.0),
        (r"(scan\d+)", "patient (file names)", 1.0),
        (r"^A/(\w)", "patient (file names; 50 % of images), else image", 0.5),
    ],
)
def test_split_names_what_told_the_patient(tmp_path, pattern, split_by, share):
    for number, image in enumerate(phantoms(10, 16, pneumonia=False)):
        file = tmp_path / "set" / "AB"[number % 2] / f"scan{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(file)
    info = prepare_here(tmp_path / "set", tmp_path / "out", patient_regex=pattern).info
    assert (info.split_by, info.matched_share) == (split_by, share)


def write_dicoms(folder, patient_ids, names="image{}"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, (patient, image) in enumerate(
        zip(patient_ids, phantoms(len(patient_ids), 16, pneumonia=False), strict=True)
    ):
        data = dicom(image[0].astype(np.uint16) * 16, PatientID=patient)
        (folder / names.format(number)).write_bytes(data)


def test_dicom_patients_split_the_set_and_their_ids_are_not_written(tmp_path):
    write_dicoms(tmp_path / "set", [f"MRN-{number // 4}" for number in range(40)])
    prepared = prepare_here(tmp_path / "set", tmp_path / "out", holdout=0.3)
    assert prepared.info.split_by == "patient (DICOM PatientID)"
    assert prepared.info.patients == 10
    patients = [row.patient for row in prepared.manifest]
    sides = {patient: {row.split for row in prepared.manifest if row.patient == patient} for patient in patients}
    assert all(len(side) == 1 for side in sides.values())
    written = b"".join(files_of(tmp_path / "out").values())
    assert b"MRN" not in written
    for number in range(10):
        assert hashlib.sha256(f"MRN-{number}".encode()).hexdigest()[:16].encode() not in written  # nor without salt


def test_dicom_split_of_a_patient_does_not_hang_on_the_other_patients_ids(tmp_path):
    ids = [f"MRN-{number}" for number in range(40)]
    write_dicoms(tmp_path / "set", ids)
    before = prepare_here(tmp_path / "set", tmp_path / "a", holdout=0.5)
    write_dicoms(tmp_path / "set", [*ids, "new"])
    after = prepare_here(tmp_path / "set", tmp_path / "b", holdout=0.5)
    split = {row.source: row.split for row in after.manifest}
    moved = sum(split[row.source] != row.split for row in before.manifest)
    assert moved <= 4
    assert before.manifest[0].patient != after.manifest[0].patient  # the salt is the set's


def test_dicom_files_without_patient_make_the_split_partial(tmp_path):
    write_dicoms(tmp_path / "set", ["MRN-1", "MRN-2", ""])
    info = prepare_here(tmp_path / "set", tmp_path / "out").info
    assert info.split_by == "patient (DICOM PatientID; 66 % of images), else image"
    assert info.matched_share == pytest.approx(2 / 3)


def test_one_patient_id_for_all_tells_nothing(tmp_path):
    write_dicoms(tmp_path / "set", ["ANONYMOUS"] * 10)
    prepared = prepare_here(tmp_path / "set", tmp_path / "out")
    assert prepared.info.split_by == "image"
    assert len(prepared.indices("holdout")) == 2


def test_asked_for_pattern_goes_before_dicom_ids(tmp_path):
    write_dicoms(tmp_path / "set", [f"MRN-{number}" for number in range(6)], names="ward{}.dcm")
    prepared = prepare_here(tmp_path / "set", tmp_path / "out", patient_regex=r"(ward\d)")
    assert [row.patient for row in prepared.manifest] == [f"ward{number}" for number in range(6)]


def test_twelve_bits_are_recorded_and_not_black(tmp_path):
    write_dicoms(tmp_path / "set", [f"{number}" for number in range(4)])
    for number, image in enumerate(phantoms(4, 16, pneumonia=True)):
        Image.fromarray(image[0].astype(np.uint16) * 16).save(tmp_path / "set" / f"{number}.png")
    prepared = prepare_here(tmp_path / "set", tmp_path / "out")
    assert {row.bits for row in prepared.manifest} == {12}
    assert prepared.images.mean() > 80


# what is refused


def test_bad_files_are_named_and_left_out_up_to_a_share(folder, tmp_path):
    (folder / "NORMAL/a.png").write_bytes(b"no image")
    (folder / "PNEUMONIA/b.png").write_bytes((folder / "NORMAL/phantom0001_1.png").read_bytes()[:300])
    with pytest.raises(SamganError, match=r"2 of 14 files .* max_bad 0.01 .*NORMAL/a.png: not an image"):
        prepare_here(folder, tmp_path / "out")
    prepared = prepare_here(folder, tmp_path / "out", max_bad=0.2)
    assert len(prepared.images) == 12
    bad = prepared.info.left_out.bad_files
    assert [file.source for file in bad] == ["NORMAL/a.png", "PNEUMONIA/b.png"]
    assert "not an image" in bad[0].reason


def test_damaged_archive_members_are_named_with_their_reason(folder, tmp_path, monkeypatch):
    archive = Path(shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "set"))
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo("set/NORMAL/phantom0001_1.png")
    data = bytearray(archive.read_bytes())
    data[info.header_offset + 30 + len(info.filename)] ^= 255
    archive.write_bytes(data)
    prepared = prepare_here(archive, tmp_path / "out", max_bad=0.2)
    (bad,) = prepared.info.left_out.bad_files
    assert bad.source == "set/NORMAL/phantom0001_1.png"
    assert "invalid block type" in bad.reason
    monkeypatch.setattr(chunks, "read_entries", lambda path, entries: [EOFError() for _ in entries])
    with pytest.raises(SamganError, match=r"phantom0001_1.png: EOFError"):
        prepare_here(folder, tmp_path / "other")


def test_bad_files_of_a_failed_run_are_read_again(folder, tmp_path, monkeypatch):
    def no_decoder(data, channels):
        raise BadImageError("no decoder")

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "read_radiograph", no_decoder)
        with pytest.raises(SamganError, match="no decoder"):
            prepare_here(folder, tmp_path / "out")
    assert len(prepare_here(folder, tmp_path / "out").images) == 12


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_fewer_than_two_distinct_images_are_refused(folder, tmp_path, duplicates):
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(folder / "NORMAL/phantom0001_1.png", one / "a.png")
    with pytest.raises(SamganError, match="at least 2 distinct images, found 1 in 1 files"):
        prepare_here(one, tmp_path / "out", duplicates=duplicates)
    for name in "bcd":
        shutil.copy(one / "a.png", one / f"{name}.png")
    with pytest.raises(SamganError, match=r"at least 2 distinct images, found 1 in 4 files \(3 exact duplicates"):
        prepare_here(one, tmp_path / "out", duplicates=duplicates)


def test_a_folder_of_other_things_is_never_written_to(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds other files \(thesis.tex\)"):
        prepare_here(folder, out)
    with pytest.raises(UsageError, match="holds other files"):
        prepare_here(folder, folder)
    with pytest.raises(UsageError, match="not a folder"):
        prepare_here(folder, out / "thesis.tex")
    assert files_of(out) == {"thesis.tex": b"years of work"}


def test_a_set_of_another_source_is_not_replaced(folder, tmp_path):
    prepare_here(folder, tmp_path / "out")
    write_phantoms(tmp_path / "other", 3, 32)
    with pytest.raises(UsageError, match="was prepared from set, not other"):
        prepare_here(tmp_path / "other", tmp_path / "out")


def test_a_set_of_another_source_of_the_same_name_is_not_replaced(folder, tmp_path):
    finished = prepare_here(folder, tmp_path / "out")
    before = files_of(tmp_path / "out")
    other = tmp_path / "hospital 2/set"
    write_phantoms(other, 3, 32)
    with pytest.raises(UsageError, match=r"was prepared from another set, not .*hospital 2/set: choose another folder"):
        prepare_here(other, tmp_path / "out")
    assert files_of(tmp_path / "out") == before
    assert str(tmp_path).encode() not in before["dataset.json"]
    (tmp_path / "link").symlink_to(tmp_path)
    assert prepare_here(tmp_path / "link/set", tmp_path / "out").sha256 == finished.sha256


def test_an_older_set_knows_its_source_by_name_alone(folder, tmp_path):
    prepare_here(folder, tmp_path / "out")
    info = json.loads((tmp_path / "out/dataset.json").read_text())
    del info["source_id"]
    (tmp_path / "out/dataset.json").write_text(json.dumps(info))
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(folder, tmp_path / "elsewhere/set")
    assert len(prepare_here(moved, tmp_path / "out").images) == 12


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"resolution": 48}, "resolution 48 is not one of 8, 16"),
        ({"resolution": 2048}, "resolution"),
        ({"channels": 2}, "channels 2 is not one of 1, 3"),
        ({"fit": "squeeze"}, "fit 'squeeze' is not one of crop, pad, stretch"),
        ({"normalize": "zscore"}, "normalize"),
        ({"duplicates": "maybe"}, "duplicates"),
        ({"holdout": 1.0}, "holdout"),
        ({"holdout": -0.1}, "holdout"),
        ({"max_bad": 1.5}, "max_bad"),
        ({"workers": 0}, "workers"),
        ({"patient_regex": "("}, "not a regular expression"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(tmp_path, option, message):
    with pytest.raises(UsageError, match=message):
        prepare_here(tmp_path / "nowhere", tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()


# PreparedSet


def test_indices_and_select_by_split_and_class(folder, tmp_path):
    prepared = prepare_here(folder, tmp_path / "out", holdout=0.3)
    train, holdout = prepared.indices("train"), prepared.indices("holdout")
    assert sorted([*train, *holdout]) == list(range(12)) == prepared.indices(None).tolist()
    normal = prepared.indices(None, ["NORMAL"])
    assert [prepared.manifest[index].class_name for index in normal] == ["NORMAL"] * 6
    np.testing.assert_array_equal(
        prepared.select("holdout", ["NORMAL"]), prepared.images[np.intersect1d(holdout, normal)]
    )
    for classes in (["NORMAL", "PNEUMONIA"], ["PNEUMONIA"]):
        names = [[*classes, "another"][label] for label in prepared.labels(classes)]
        assert names == [row.class_name if row.class_name in classes else "another" for row in prepared.manifest]
    selected = prepared.select()
    selected[:] = 0
    assert prepared.images[train].any()  # a copy
    with pytest.raises(UsageError, match=r"unknown class COVID: .* has NORMAL, PNEUMONIA"):
        prepared.indices("train", ["NORMAL", "COVID"])
    with pytest.raises(UsageError, match="unknown split 'test'"):
        prepared.indices("test")


def truncate(out):
    data = (out / "images.npy").read_bytes()
    (out / "images.npy").write_bytes(data[:-100])


def shorten_manifest(out):
    lines = (out / "manifest.csv").read_text().splitlines(keepends=True)
    (out / "manifest.csv").write_text("".join(lines[:-1]))


def set_key(name, value):
    def change(out):
        info = json.loads((out / "dataset.json").read_text())
        (out / "dataset.json").write_text(json.dumps(info | {name: value}))

    return change


def replace_by_npz(out):
    np.savez(out / "images.npz", np.load(out / "images.npy"))
    (out / "images.npz").replace(out / "images.npy")


def lengthen_header(out):
    data = (out / "images.npy").read_bytes()
    (out / "images.npy").write_bytes(data[:8] + b"\xff\xff" + data[10:] + bytes(70_000))


def break_header(out):
    data = (out / "images.npy").read_bytes()
    (out / "images.npy").write_bytes(data.replace(b"}", b"{", 1))


DAMAGES = {
    "images cut": (truncate, "damaged"),
    "manifest cut": (shorten_manifest, "manifest.csv 11 rows"),
    "other format": (set_key("format", 2), "expected a prepared set of format 1, found 2"),
    "no json": (lambda out: (out / "dataset.json").write_text("{"), "is not valid JSON"),
    "deep json": (lambda out: (out / "dataset.json").write_text("[" * 100_000), "is not valid JSON"),
    "a list": (lambda out: (out / "dataset.json").write_text("[]"), "found 'list'"),
    "no images": (lambda out: (out / "images.npy").unlink(), "damaged"),
    "pickled images": (lambda out: np.save(out / "images.npy", np.array([{}]), allow_pickle=True), "damaged"),
    "broken header": (break_header, "damaged"),
    "long header": (lengthen_header, "damaged"),
    "empty images": (lambda out: (out / "images.npy").write_bytes(b""), "damaged"),
    "an npz": (replace_by_npz, "damaged"),
    "other images": (lambda out: np.save(out / "images.npy", np.zeros((12, 1, 8, 8), np.uint8)), "images.npy holds"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_set_is_not_opened_and_can_be_prepared_again(folder, tmp_path, name):
    damage, message = DAMAGES[name]
    expected = prepare_here(folder, tmp_path / "out").sha256
    damage(tmp_path / "out")
    with pytest.raises(SamganError, match=message) as caught:
        PreparedSet.open(tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert prepare_here(folder, tmp_path / "out").sha256 == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in ("images", "channels", "resolution", "classes", "counts", "split_by", "sha256")),
        *[("source", None), ("fingerprint", None), ("left_out", "x"), ("options", {"holdout": "0.2"})],
        *[("resolution", "16"), ("channels", True), ("images", 12.5), ("sha256", 1), ("split_by", ["image"])],
        *[("classes", "NORMAL"), ("classes", ["NORMAL", 1]), ("counts", []), ("counts", {"NORMAL": 6})],
        *[("counts", {"NORMAL": {"train": "6"}}), ("counts", {"NORMAL": {"train": 6}}), ("subset_of", {"name": "a"})],
    ],
)
def test_dataset_json_with_wrong_values_is_damaged(folder, tmp_path, name, value):
    prepare_here(folder, tmp_path / "out")
    set_key(name, value)(tmp_path / "out")
    with pytest.raises(SamganError, match=rf"dataset.json is damaged: .*{name}.*: prepare it again") as caught:
        PreparedSet.open(tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../outside", "..", "a/b", ""])
def test_a_class_that_is_a_path_is_damage(folder, tmp_path, name):
    prepare_here(folder, tmp_path / "out")
    set_key("classes", [name])(tmp_path / "out")
    with pytest.raises(SamganError, match="is not the name of a class"):
        PreparedSet.open(tmp_path / "out")


def test_an_older_set_may_lack_what_is_told_since(folder, tmp_path):
    prepared = prepare_here(folder, tmp_path / "out")
    info = json.loads((tmp_path / "out/dataset.json").read_text())
    assert json.loads(json.dumps(prepared.info.to_dict())) == info
    for name in ("source_id", "groups_on_both_sides", "enlarged"):
        del info[name]
    (tmp_path / "out/dataset.json").write_text(json.dumps(info | {"near_duplicates_across_splits": 0}))
    old = PreparedSet.open(tmp_path / "out")
    assert (old.info.source_id, old.info.groups_on_both_sides, old.info.enlarged) == (None, None, None)
    assert json.loads(json.dumps(old.info.to_dict())) == info
    old.verify()


def test_the_fingerprint_of_a_set_never_changes():
    """Else a finished set would be prepared again, and `ALGORITHM` says when that must be."""
    options = PrepareOptions(resolution=64, holdout=0.25, patient_regex=r"(p\d+)")
    entries = [Entry("A/1.png", 1234, 1_700_000_000_000_000_000, "A", ""), Entry("B/2.png", 99, 5, "B", "train")]
    assert fingerprint_of(options, entries) == "1e9dce07a6470ed5348a1e899b31e9afc811975d394a62091c82d805137867ee"


def change_row(name, value):
    def change(out):
        rows = list(csv.DictReader((out / "manifest.csv").read_text().splitlines()))
        rows[3][name] = value
        lines = [",".join(row.values()) for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]]
        (out / "manifest.csv").write_text("\n".join(lines) + "\n")

    return change


MANIFEST_DAMAGES = {
    "a number": (change_row("width", "wide"), r"manifest.csv, line 5: .*'wide'"),
    "a split": (change_row("split", "../.."), r"unknown split '\.\./\.\.'"),
    "a class": (change_row("class", "COVID"), "unknown class 'COVID'"),
    "a neighbour": (change_row("near_duplicate_of", "12"), "unknown near_duplicate_of 12"),
    "a short row": (change_row("patient", "x\n"), "manifest.csv, line 5: tuple index out of range|index out of range"),
    "a column": (lambda out: (out / "manifest.csv").write_text("index,source\n"), "there is no column bits, class"),
    "empty": (lambda out: (out / "manifest.csv").write_text(""), "there is no column bits, class"),
    "no text": (lambda out: (out / "manifest.csv").write_bytes(bytes(100)), "manifest.csv, line 1"),
}


@pytest.mark.parametrize("name", MANIFEST_DAMAGES)
def test_a_manifest_that_was_changed_is_damaged(folder, tmp_path, name):
    prepare_here(folder, tmp_path / "out")
    damage, message = MANIFEST_DAMAGES[name]
    damage(tmp_path / "out")
    with pytest.raises(SamganError, match=f"is damaged: .*{message}.*: prepare it again") as caught:
        PreparedSet.open(tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["images.npy", "manifest.csv"])
def test_changed_bytes_are_found_by_verify_and_prepared_again(folder, tmp_path, name):
    prepared = prepare_here(folder, tmp_path / "out")
    prepared.verify()
    data = bytearray((tmp_path / "out" / name).read_bytes())
    data[-10] ^= 1
    (tmp_path / "out" / name).write_bytes(data)
    changed = PreparedSet.open(tmp_path / "out")
    found = dataset.content_sha256(tmp_path / "out")
    with pytest.raises(SamganError, match=rf"out is damaged: .* {prepared.sha256[:12]}, .* {found[:12]}: prepare it"):
        changed.verify()
    prepare_here(folder, tmp_path / "out").verify()
    (tmp_path / "out" / name).unlink()
    with pytest.raises(SamganError, match=rf"damaged.*{name}.*prepare it again"):
        changed.verify()


def test_odd_file_names_come_through_the_manifest(folder, tmp_path):
    names = ('comma, "quote".png', "new\nline.png", "ümlaut.png", os.fsdecode(b"latin\xe9.png"))
    for number, name in enumerate(names):
        Image.fromarray(np.roll(GREY, number, axis=0)).save(tmp_path / "x.png")
        try:
            shutil.move(tmp_path / "x.png", folder / "NORMAL" / name)
        except OSError:
            pytest.skip("the file system refuses such names")
    prepared = prepare_here(folder, tmp_path / "out")
    assert all((folder / row.source).exists() for row in prepared.manifest)
    assert len(prepared.manifest) == 16


def test_manifest_has_the_columns_in_order(folder, tmp_path):
    prepare_here(folder, tmp_path / "out")
    with open(tmp_path / "out/manifest.csv", newline="") as file:
        header = next(csv.reader(file))
    assert ",".join(header) == "index,source,sha256,width,height,bits,class,patient,split,near_duplicate_of"


def test_real_radiographs(real_images_folder, tmp_path):
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for file in sorted((real_images_folder / name).iterdir())[:300]:
            (tmp_path / "set" / name / file.name).symlink_to(file)
    started = time.perf_counter()
    prepared = prepare(tmp_path / "set", tmp_path / "out", resolution=64, workers=1)
    seconds = time.perf_counter() - started
    assert seconds < 30
    assert prepared.info.split_by == "patient (file names)"
    assert prepared.info.left_out.bad_files == ()
    train, holdout = (
        {prepared.manifest[index].patient for index in prepared.indices(split)} for split in ("train", "holdout")
    )
    assert not train & holdout
    for counts in prepared.info.counts.values():
        assert counts["holdout"] / sum(counts.values()) == pytest.approx(0.2, abs=0.01)
    mean = prepared.images.mean(axis=(0, 1))
    assert mean[20:40, 28:36].mean() > mean[20:40, 14:22].mean() + 30  # spine and heart between the lungs
