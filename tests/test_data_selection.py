"""Duplicates, patients, and the split."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data_readers import dicom

from samgan.data import phantoms, prepare, write_phantoms
from samgan.data.documents import Duplicate


@pytest.fixture
def folder(tmp_path, twelve_phantoms):
    """Twelve phantoms of two classes, to change at will."""
    return shutil.copytree(twelve_phantoms, tmp_path / "set")


def prepare_here(source, out, **options):
    return prepare(source, out, **{"resolution": 16, "workers": 1} | options)


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


# duplicates


def test_exact_duplicates_are_dropped_and_named(folder, tmp_path):
    shutil.copy(folder / "NORMAL/phantom0001_1.png", folder / "NORMAL/phantom0009_1.png")  # the same file
    with Image.open(folder / "NORMAL/phantom0002_1.png") as image:
        image.save(folder / "NORMAL/phantom0012_2.bmp")  # another file of the same pixels
    prepared = prepare_here(folder, tmp_path / "out")
    assert len(prepared.images) == 12
    assert prepared.info.left_out.exact_duplicates == (
        Duplicate("NORMAL/phantom0009_1.png", same_as="NORMAL/phantom0001_1.png"),
        Duplicate("NORMAL/phantom0012_2.bmp", same_as="NORMAL/phantom0002_1.png"),
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
