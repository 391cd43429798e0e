"""From a source to a prepared set: pixels, manifest, restart, and what is refused."""

import errno
import hashlib
import io
import json
import os
import shutil
import sys
import threading
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from test_data_readers import GREY, dicom
from test_data_sources import write_npz

import samgan.files
from samgan.data import PreparedSet, chunks, prepare, write, write_phantoms
from samgan.data.fit import fit_image
from samgan.data.options import PrepareOptions
from samgan.data.prepare import fingerprint_of
from samgan.data.readers import MAXIMUM_PIXELS, BadImageError
from samgan.data.sources import Entry
from samgan.data.subset import subset
from samgan.errors import SamganError, UsageError


@pytest.fixture
def folder(tmp_path, twelve_phantoms):
    """Twelve phantoms of two classes, to change at will."""
    return shutil.copytree(twelve_phantoms, tmp_path / "set")


def prepare_here(source, out, **options):
    return prepare(source, out, **{"resolution": 16, "workers": 1} | options)


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


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


def test_a_second_run_returns_at_once_and_replaces_a_set_only_when_told(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    first = prepare_here(folder, out)
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_prepare_chunk", None)  # nothing is to be read
        assert prepare_here(folder, out).sha256 == first.sha256
        with pytest.raises(UsageError, match=r"set \(resolution is 16, not 8; seed is 0, not 3\): .* --replace"):
            prepare_here(folder, out, resolution=8, seed=3)
    assert PreparedSet.open(out).sha256 == first.sha256
    assert "replacing" not in capsys.readouterr().err
    assert prepare_here(folder, out, resolution=8, replace=True).resolution == 8
    (folder / "NORMAL/phantom0001_1.png").unlink()
    with pytest.raises(UsageError, match="files of the source have changed"):
        prepare_here(folder, out, resolution=8)
    assert len(prepare_here(folder, out, resolution=8, replace=True).images) == 11
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("replacing the set in it") == 2


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


def test_a_set_that_will_not_fit_on_the_disk_is_refused_before_it_is_begun(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * 12 * 1024**2 - 1))
    told = r"preparing 12 images of 1024 px needs .* are free: choose a smaller --resolution"
    with pytest.raises(SamganError, match=told):
        prepare_here(folder, tmp_path / "out", resolution=1024)
    assert not (tmp_path / "out/.partial").exists()
    assert len(prepare_here(folder, tmp_path / "out", resolution=512).images) == 12


def test_the_fingerprint_of_a_set_never_changes():
    """Else a finished set would be prepared again, and `ALGORITHM` says when that must be."""
    options = PrepareOptions(resolution=64, holdout=0.25, patient_regex=r"(p\d+)")
    entries = [Entry("A/1.png", 1234, 1_700_000_000_000_000_000, "A", ""), Entry("B/2.png", 99, 5, "B", "train")]
    assert fingerprint_of(options, entries) == "4279d6e2be50b2aee5cef0f0aa9996269ba8e3ef21e4394cbc42878f5ee663e0"


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


def test_real_radiographs(real_images_folder, tmp_path):
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for file in sorted((real_images_folder / name).iterdir())[:300]:
            (tmp_path / "set" / name / file.name).symlink_to(file)
    prepared = prepare(tmp_path / "set", tmp_path / "out", resolution=64, workers=1)
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


def dicom_file(path, image, kind="1.2.840.10008.5.1.4.1.1.1", **attributes):
    """A DICOM file of 12 bits; a report if there is no image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image is not None:
        path.write_bytes(dicom(image, SOPClassUID=kind, **attributes))
        return
    report = pydicom.dcmread(io.BytesIO(dicom(GREY.astype(np.uint16))))
    del report.PixelData
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = kind
    report.save_as(path, enforce_file_format=True)


def test_reports_beside_radiographs_are_no_damage(tmp_path):
    """Archives export structured reports and presentation states with the images."""
    for number in range(12):
        dicom_file(tmp_path / f"set/{number}.dcm", np.roll(GREY, 5 * number, axis=1).astype(np.uint16) * 16)
        dicom_file(tmp_path / f"set/report{number}.dcm", None, kind="1.2.840.10008.5.1.4.1.1.88.33")
    prepared = prepare_here(tmp_path / "set", tmp_path / "out")
    assert (len(prepared.images), prepared.info.left_out.bad_files) == (12, ())
    assert {file.reason for file in prepared.info.left_out.unused} == {
        "DICOM without pixel data (Comprehensive SR Storage); expected a radiograph"
    }
    dicom_file(tmp_path / "set/empty.dcm", None, kind="1.2.840.10008.5.1.4.1.1.1")  # of a radiograph, without it
    with pytest.raises(SamganError, match=r"1 of 25 files cannot be used.*Computed Radiography Image Storage"):
        prepare_here(tmp_path / "set", tmp_path / "other")


def test_dicom_of_nearly_one_shade_is_a_warning(tmp_path):
    for number in range(12):
        dicom_file(tmp_path / f"set/{number}.dcm", np.roll(GREY, 5 * number, axis=1).astype(np.uint16), bits=16)
    prepared = prepare_here(tmp_path / "set", tmp_path / "out")
    assert any(words.startswith("WARNING: 12 of 12 images have no window") for words in prepared.info.warnings)


def test_files_that_can_be_read_by_now_are_taken_in_when_told(folder, tmp_path, monkeypatch):
    """As when a decoder was installed since."""
    read, out = chunks.read_radiograph, tmp_path / "out"
    unreadable = sorted((folder / "NORMAL").iterdir())[0].read_bytes()

    def lacks_a_decoder(data, *arguments, **options):
        if data == unreadable:
            raise BadImageError("no decoder")
        return read(data, *arguments, **options)

    monkeypatch.setattr(chunks, "read_radiograph", lacks_a_decoder)
    assert len(prepare_here(folder, out, max_bad=0.2).images) == 11
    monkeypatch.undo()
    assert len(prepare_here(folder, out, max_bad=0.2).images) == 11
    assert len(prepare_here(folder, out, max_bad=0.2, replace=True).images) == 12


def test_an_interrupted_run_reads_again_what_it_could_not_read(tmp_path):
    partial = tmp_path / "partial"
    partial.mkdir()
    facts = np.frombuffer(b'[{"bad": "no decoder"}]', np.uint8)
    np.savez(partial / "bad.npz", images=np.zeros((0, 1, 16, 16), np.uint8), facts=facts)
    np.savez(partial / "good.npz", images=np.zeros((1, 1, 16, 16), np.uint8), facts=np.frombuffer(b"[{}]", np.uint8))
    assert chunks.forget_bad(partial)
    assert not chunks.forget_bad(partial)
    assert [file.name for file in partial.iterdir()] == ["good.npz"]


def test_a_file_that_can_be_read_by_now_counts_for_the_bit_depth(tmp_path, monkeypatch):
    """The one with the largest value, of 16 bits."""
    source = tmp_path / "set"
    source.mkdir()
    for number in range(12):
        image = np.roll(GREY, 5 * number, axis=1).astype(np.uint16) * (250 if number == 11 else 3)
        Image.fromarray(image).save(source / f"{number:02}.png")
    whole = (source / "11.png").read_bytes()
    (source / "11.png").write_bytes(whole[:200].ljust(len(whole), b"\0"))
    times = (source / "10.png").stat().st_mtime_ns
    os.utime(source / "11.png", ns=(times, times))

    def stopped(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["samgan.data.prepare"], "select", stopped)  # the name of a function, too
        with pytest.raises(KeyboardInterrupt):
            prepare_here(source, tmp_path / "out", max_bad=0.2)
    (source / "11.png").write_bytes(whole)
    os.utime(source / "11.png", ns=(times, times))
    continued = prepare_here(source, tmp_path / "out", max_bad=0.2)
    assert continued.sha256 == prepare_here(source, tmp_path / "fresh", max_bad=0.2).sha256
    assert len(continued.images) == 12


def test_a_set_stays_whole_if_its_successor_cannot_be_written(folder, tmp_path, monkeypatch):
    before = prepare_here(folder, tmp_path / "out")
    (tmp_path / "out/DATA_CARD.md").write_text("filled in")

    def is_full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(write, "write_images", is_full)
        with pytest.raises(SamganError, match="No space left"):
            prepare_here(folder, tmp_path / "out", seed=3, replace=True)
    assert PreparedSet.open(tmp_path / "out").sha256 == before.sha256
    after = prepare_here(folder, tmp_path / "out", seed=3, replace=True)
    assert after.sha256 != before.sha256
    assert not (tmp_path / "out/DATA_CARD.md").exists()
    assert (tmp_path / "out/older-1-DATA_CARD.md").read_text() == "filled in"
    (tmp_path / "out/DATA_CARD.md").write_text("again")
    prepare_here(folder, tmp_path / "out", seed=4, replace=True)
    kept = [(tmp_path / f"out/older-{number}-DATA_CARD.md").read_text() for number in (1, 2)]
    assert kept == ["filled in", "again"]


# what is refused


def test_bad_files_are_named_and_left_out_up_to_a_share(folder, tmp_path):
    (folder / "NORMAL/a.png").write_bytes(b"\x07" * 40)
    (folder / "PNEUMONIA/b.png").write_bytes((folder / "NORMAL/phantom0001_1.png").read_bytes()[:300])
    with pytest.raises(
        SamganError, match=r"2 of 14 files .* --max-bad 0.01 .*NORMAL/a.png: not an image.*such as --max-bad 0.15"
    ):
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
    def no_decoder(data, channels, **_):
        raise BadImageError("no decoder")

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "read_radiograph", no_decoder)
        with pytest.raises(SamganError, match="no decoder"):
            prepare_here(folder, tmp_path / "out")
    assert len(prepare_here(folder, tmp_path / "out").images) == 12


def test_a_folder_of_bad_files_alone_is_refused_even_if_all_may_be_bad(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.png").write_bytes(b"no image")
    with pytest.raises(SamganError, match=r"found 0 in 1 files \(0 exact duplicates, 1 that cannot be read\)"):
        prepare_here(tmp_path / "set", tmp_path / "out", max_bad=1.0)


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


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", ".directory", "@eaDir"])
def test_files_of_the_system_are_no_other_files(folder, tmp_path, monkeypatch, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).touch()
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["samgan.data.prepare"], "write_set", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare_here(folder, out)
    assert (out / ".partial").is_dir()
    monkeypatch.setattr(chunks, "_prepare_chunk", None)  # what was finished is taken up
    assert len(prepare_here(folder, out).images) == 12
    assert sorted(files.name for files in out.iterdir()) == sorted([name, "dataset.json", "images.npy", "manifest.csv"])


def write_studies(root, patients):
    """One folder for each of `patients`, such as {"DOE": "7"}: two DICOM files with its PatientID."""
    for number, (name, patient) in enumerate(patients.items()):
        (root / name).mkdir(parents=True)
        for image in range(2):
            values = np.roll(GREY.astype(np.uint16), 3 * (2 * number + image), axis=0)
            (root / name / f"{image}.dcm").write_bytes(dicom(values, PatientID=patient))


def test_folders_of_one_patient_each_are_no_classes(tmp_path):
    write_studies(tmp_path / "set", {"DOE": "1", "ROE": "2", "POE": "3"})
    with pytest.raises(SamganError, match=r"each of the 3 folders holds one patient, told by .*--classes-from folder"):
        prepare_here(tmp_path / "set", tmp_path / "out")
    assert prepare_here(tmp_path / "set", tmp_path / "out", classes_from="none").classes == ["set"]
    assert prepare_here(tmp_path / "set", tmp_path / "two", classes_from="folder").classes == ["DOE", "POE", "ROE"]


def test_classes_that_share_patients_or_have_several_stay(tmp_path):
    for name, patients in (("shared", "112"), ("two", "12"), ("anonymous", "111")):
        folders = {f"class {number}": patient for number, patient in enumerate(patients)}
        write_studies(tmp_path / name, folders)
        assert prepare_here(tmp_path / name, tmp_path / f"{name}-out").classes == sorted(folders)


def test_patients_told_by_folders_are_on_one_side(tmp_path):
    rng = np.random.default_rng(0)
    for patient in range(10):
        for study in range(3):
            path = tmp_path / f"set/patient{patient:05}/study{study}/view1.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    prepared = prepare_here(tmp_path / "set", tmp_path / "out", classes_from="none")
    assert prepared.info.split_by.startswith("patient")
    assert {row.patient for row in prepared.manifest} == {f"patient{patient:05}" for patient in range(10)}
    train, holdout = ({prepared.manifest[i].patient for i in prepared.indices(split)} for split in ("train", "holdout"))
    assert holdout
    assert not train & holdout


def test_what_was_left_out_and_decided_is_in_the_document(folder, tmp_path):
    shutil.copy(folder / "NORMAL/phantom0001_1.png", folder / "overview.png")
    shutil.copytree(folder / "NORMAL", folder / "masks")
    (folder / ".cache").mkdir()
    info = prepare_here(folder, tmp_path / "out").info
    assert info.classes == ("NORMAL", "PNEUMONIA")
    assert [file.source for file in info.left_out.unused] == [
        *(f"masks/{path.name}" for path in sorted((folder / "masks").iterdir())),
        "overview.png",
    ]
    assert info.warnings == ("hidden files and folders of the system are left out: .cache",)


def test_a_class_folder_that_is_not_utf8_gets_a_name_that_every_file_can_hold(folder, tmp_path):
    try:
        (folder / "NORMAL").rename(folder / os.fsdecode(b"caf\xe9"))
    except OSError:
        pytest.skip("the file system refuses such names")
    shutil.copy(next((folder / "PNEUMONIA").iterdir()), folder / os.fsdecode(b"stray\xe9.png"))
    (folder / os.fsdecode(b"PNEUMONIA/bad\xe9.png")).write_bytes(b"no image")
    prepared = prepare_here(folder, tmp_path / "out", max_bad=0.5)
    assert prepared.classes == ["PNEUMONIA", "caf%E9"]
    assert "becomes the class caf%E9" in prepared.info.warnings[0]
    assert [os.fsencode(file.source) for file in prepared.info.left_out.unused] == [b"stray\xe9.png"]
    assert [os.fsencode(file.source) for file in prepared.info.left_out.bad_files] == [b"PNEUMONIA/bad\xe9.png"]


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
    words = r"was prepared from another source named set, not .*hospital 2/set: choose another folder"
    with pytest.raises(UsageError, match=words):
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
        ({"resolution": 48}, "--resolution 48: expected one of 8, 16"),
        ({"resolution": 2048}, "resolution"),
        ({"channels": 2}, "--channels 2: expected one of 1, 3"),
        ({"fit": "squeeze"}, "--fit 'squeeze': expected one of crop, pad, stretch"),
        ({"normalize": "zscore"}, "normalize"),
        ({"duplicates": "maybe"}, "duplicates"),
        ({"holdout": 1.0}, "holdout"),
        ({"holdout": -0.1}, "holdout"),
        ({"max_bad": 1.5}, "--max-bad 1.5"),
        ({"workers": 0}, "workers"),
        ({"classes_from": "names"}, "--classes-from 'names': expected one of folder, none, labels"),
        ({"patient_regex": "("}, "not a valid regular expression"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(tmp_path, option, message):
    with pytest.raises(UsageError, match=message):
        prepare_here(tmp_path / "nowhere", tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()
