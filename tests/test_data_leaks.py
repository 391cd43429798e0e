"""Patients, studies, duplicates, contradictions, synthetic images: which side of a split they are on, what is said."""

import dataclasses
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from test_data_readers import dicom

from samgan.commands.main import main
from samgan.data import PreparedSet, phantoms, prepare
from samgan.data.chunks import Record
from samgan.data.curation import near_duplicates
from samgan.data.documents import Contradiction, Leak
from samgan.data.options import PrepareOptions
from samgan.data.selection import find_alike, select
from samgan.data.sources import Entry, Source
from samgan.data.subset import subset
from samgan.errors import SamganError
from samgan.trust import answers
from samgan.trust.cards import format_card
from samgan.trust.record import Record as CardRecord

PICTURES = phantoms(8, 16, seed=5, pneumonia=True)[:, 0]


def key(name):
    return f"{name:>064}" if name else ""


def record(
    path,
    picture=0,
    shade=0,
    *,
    class_name="A",
    split="",
    patient="",
    table="",
    patient_id="",
    study="",
    synthetic=False,
):
    image = np.clip(PICTURES[picture].astype(int) + shade, 0, 255).astype(np.uint8)
    return Record(
        entry=Entry(path, 1, 1, class_name, split, patient, patient_in_table=table),
        sha256=image.tobytes().hex()[:64],
        width=16,
        height=16,
        bits=8,
        patient_key=key(patient_id),
        study_key=key(study),
        view="",
        is_synthetic=synthetic,
        notes=(),
        pixel_hash=image.tobytes(),
        thumbnail=image,
    )


def choose(records, **options):
    source = Source("set", "id", Path("set"), [record.entry for record in records], {})
    return select(source, records, [], PrepareOptions(resolution=16, **options), "fingerprint")


def sides_of(selection, records, key_of):
    split = {row.source: row.split for row in selection.rows}
    sides = defaultdict(set)
    for known in records:
        if known.entry.path in split and key_of(known):
            sides[key_of(known)].add(split[known.entry.path])
    return sides


def assert_on_one_side(selection, records, key_of):
    both = {name: found for name, found in sides_of(selection, records, key_of).items() if len(found) > 1}
    assert not both


# any mixture


@st.composite
def mixtures(draw):
    """Descriptions of images, by path: any patients, studies, classes and copies; some sets have synthetic images."""
    count = draw(st.integers(2, 24))
    some_made = draw(st.sampled_from([False, False, True]))
    has = {name: draw(st.booleans()) for name in ("folder", "table", "patient", "study", "name")}
    described = {}
    for number in range(count):
        person = draw(st.integers(1, 6))
        folder = f"patient{person}" if has["folder"] and draw(st.booleans()) else ""
        table = key(f"table{draw(st.integers(1, 6))}") if has["table"] and draw(st.booleans()) else ""
        name = f"person{person}_x_{number}.png" if has["name"] and draw(st.booleans()) else f"{number}.png"
        class_name = draw(st.sampled_from("AB"))
        described[f"{class_name}/{folder + '/' if folder else ''}{name}"] = {
            "picture": draw(st.integers(0, 7)),
            "shade": draw(st.integers(0, 3)),
            "class_name": class_name,
            "patient": folder,
            "table": table,
            "patient_id": f"id{draw(st.integers(1, 6))}" if has["patient"] and draw(st.booleans()) else "",
            "study": f"study{draw(st.integers(1, 9))}" if has["study"] and draw(st.booleans()) else "",
            "synthetic": some_made and draw(st.integers(0, 4)) == 0,
        }
    return dict(sorted(described.items()))


def records_of(described):
    return [record(path, **own) for path, own in described.items()]


def classes_by_picture(records):
    classes = defaultdict(set)
    for known in records:
        classes[known.pixel_hash].add(known.entry.class_name)
    return classes


def counts(records, of):
    """Whether the IDs of DICOM tell anything: not if there is one alone, at most of the images."""
    real = [of(known) for known in records if not known.is_synthetic]
    told = [name for name in real if name]
    return len(set(told)) > 1 or len(told) <= len(real) / 2


@settings(max_examples=150, deadline=None)
@given(mixtures(), st.sampled_from(["drop", "keep"]), st.floats(0.05, 0.9), st.integers(0, 3))
def test_nothing_is_on_both_sides_and_every_contradiction_is_named(described, duplicates, holdout, seed):
    records = records_of(described)
    classes = classes_by_picture(records)
    unknown = {known.entry.path for known in records if len(classes[known.pixel_hash]) > 1}
    left = {known.pixel_hash for known in records if duplicates == "keep" or known.entry.path not in unknown}
    options = {"duplicates": duplicates, "holdout": holdout, "seed": seed, "allow_synthetic": True}
    if len(left) < 2:
        with pytest.raises(SamganError, match="at least 2 distinct images"):
            choose(records, **options)
        return
    found = choose(records, **options)
    info, split = found.info, {row.source: row.split for row in found.rows}

    # copies
    assert {file for each in info.contradictions for file in each.files} == unknown
    assert all(len(set(each.classes)) > 1 for each in info.contradictions)
    assert any("their labels contradict each other" in words for words in info.warnings) == bool(unknown)
    if duplicates == "drop":
        assert {file.source for file in info.left_out.unused} == unknown
        firsts = {known.pixel_hash: known.entry.path for known in reversed(records) if known.entry.path not in unknown}
        assert set(split) == set(firsts.values())
        away = {file.source for file in info.left_out.exact_duplicates}
        assert away == {known.entry.path for known in records} - unknown - set(split)
    else:
        assert len(split) == len(records)
        assert info.left_out.unused == ()
    groups = near_duplicates(np.stack([known.thumbnail for known in records])).group.tolist()
    by_path = {known.entry.path: group for known, group in zip(records, groups, strict=True)}
    assert_on_one_side(found, records, lambda known: f"group {by_path[known.entry.path]}")

    # patients and studies
    real = [known for known in records if not known.is_synthetic]
    assert_on_one_side(found, real, lambda known: known.entry.patient_in_table)
    by_table = {known.entry.patient for known in real if known.entry.patient_in_table}
    by_folder = {known.entry.patient for known in real if not known.entry.patient_in_table}
    assert_on_one_side(found, real, lambda known: known.entry.patient if known.entry.patient in by_folder else "")
    if not by_table:
        assert_on_one_side(found, real, lambda known: known.entry.patient)
    if counts(records, lambda known: known.study_key):
        assert_on_one_side(found, real, lambda known: known.study_key)
    if counts(records, lambda known: known.patient_key):
        trusted = {known.patient_key for known in real if not (known.entry.patient_in_table or known.entry.patient)}
        assert_on_one_side(found, real, lambda known: known.patient_key if known.patient_key in trusted else "")
    assert {leak.what for leak in info.leaks} <= {"DICOM PatientIDs"}
    assert info.groups_on_both_sides == 0
    rows = {row.source: row for row in found.rows}
    assert_on_one_side(found, real, lambda known: rows[known.entry.path].patient if known.entry.path in rows else "")

    # synthetic images
    made = {known.entry.path for known in records if known.is_synthetic}
    assert {path for path, row in rows.items() if row.synthetic} == made & set(split)
    assert all(split[path] == "train" for path in made & set(split))
    assert info.synthetic == len(made & set(split))
    assert info.patients == len({row.patient for row in found.rows if not row.synthetic})

    # what is published
    published = {row.patient for row in found.rows}
    assert not any(name == known.patient_key or name == known.study_key for name in published for known in records)
    assert not any(name.startswith("0" * 8) for name in published)  # as the keys above do
    for row in found.rows:
        if row.near_duplicate_of is not None:
            assert row.near_duplicate_of < row.index
            assert found.rows[row.near_duplicate_of].split == row.split


@settings(max_examples=40, deadline=None)
@given(mixtures())
def test_alike_images_are_those_that_were_found_without_looking_at_firsts_alone(described):
    records = records_of(described)
    alike = find_alike(records)
    plain = near_duplicates(np.stack([known.thumbnail for known in records]))
    assert alike.near.tolist() == plain.first.tolist()
    assert alike.group.tolist() == plain.group.tolist()


# contradictions


def save(path, image, **texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    note = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        note.add_text(name, text)
    Image.fromarray(image).save(path, **({"pnginfo": note} if path.suffix == ".png" else {}))


@pytest.fixture
def two_labels(tmp_path):
    """Eight different pictures, four in each class; p0 lies in both, as a copy and as a BMP of the same pixels."""
    for number, image in enumerate(PICTURES):
        save(tmp_path / "set" / "AB"[number % 2] / f"p{number}.png", image)
    save(tmp_path / "set/B/p0.png", PICTURES[0])
    save(tmp_path / "set/B/other.bmp", PICTURES[0])
    return tmp_path / "set"


def test_a_picture_in_two_classes_is_left_out_and_named(two_labels, tmp_path, capsys):
    arguments = ["prepare", str(two_labels), str(tmp_path / "out"), "--resolution", "32", "--workers", "1"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    info = PreparedSet.open(tmp_path / "out").info
    assert info.contradictions == (Contradiction(("A/p0.png", "B/other.bmp", "B/p0.png"), ("A", "B", "B")),)
    assert info.images == 7
    assert info.left_out.exact_duplicates == ()
    assert [file.source for file in info.left_out.unused] == ["A/p0.png", "B/other.bmp", "B/p0.png"]
    assert (
        "WARNING: 1 pictures lie in more than one class, so their labels contradict each other: their 3 files are"
        in text
    )
    assert "A/p0.png and B/other.bmp" in text
    assert "left out: A/p0.png: the same picture is also in class B, so its class is not known" in text
    assert "left out: 2 images, such as B/other.bmp: the same picture is also in class A" in text
    card = format_card(CardRecord(data=info))
    assert "1 pictures (3 files), left out" in card
    assert "3 images for other reasons" in card


def test_kept_copies_of_two_classes_are_in_one_split_and_said(two_labels, tmp_path):
    prepared = prepare(two_labels, tmp_path / "out", resolution=32, workers=1, duplicates="keep", holdout=0.5)
    assert len(prepared.images) == 10
    copies = {row.split for row in prepared.manifest if row.source in ("A/p0.png", "B/other.bmp", "B/p0.png")}
    assert len(copies) == 1
    assert any("their 3 files are kept" in words for words in prepared.info.warnings)
    assert answers.contradictions(CardRecord(data=prepared.info)) == "1 pictures (3 files), kept"


def test_near_duplicates_of_two_classes_are_kept_and_said():
    records = [record(f"A/{number}.png", number) for number in range(4)]
    records.append(record("B/near.png", 2, shade=3, class_name="B"))
    found = choose(records)
    assert found.info.near_contradictions == (Contradiction(("A/2.png", "B/near.png"), ("A", "B")),)
    assert found.info.contradictions == ()
    assert len(found.rows) == 5
    assert any(
        "1 groups of near duplicates" in words and "A/2.png and B/near.png" in words for words in found.info.warnings
    )


def test_a_class_that_loses_all_its_images_is_said():
    records = [record(f"A/{number}.png", number) for number in range(4)] + [record("B/0.png", 0, class_name="B")]
    info = choose(records).info
    assert info.classes == ("A",)
    assert "WARNING: class B is not in the set: none of its images is left" in info.warnings


def test_too_few_pictures_with_a_class_are_refused():
    records = [record(f"{name}/{number}.png", number, class_name=name) for name in "AB" for number in range(3)]
    with pytest.raises(SamganError, match=r"found 0 in 6 files .* 6 whose picture lies in more than one class"):
        choose(records)


def test_what_a_picture_that_is_left_out_joined_stays_together():
    """The middle one of three is in two classes; the others are like it, and keep each other's company."""
    shades = {"A/1.png": -40, "A/2.png": 0, "A/3.png": 40}
    records = [record(path, 1, shade) for path, shade in shades.items()]
    records += [record("B/2.png", 1, 0, class_name="B"), *(record(f"B/{n}x.png", n, class_name="B") for n in (4, 5, 6))]
    found = choose(records, holdout=0.5)
    near = {row.source: row.near_duplicate_of for row in found.rows}
    assert set(near) == {"A/1.png", "A/3.png", "B/4x.png", "B/5x.png", "B/6x.png"}
    assert near["A/1.png"] is None
    assert near["A/3.png"] == 0


def test_chains_of_near_duplicates_stay_together():
    """The last is like both of the others, which are not like each other: no image is like an earlier one but it."""
    noise = 8 * np.random.default_rng(0).normal(0, 1, (16, 16))
    images = [PICTURES[2] + noise, PICTURES[2] - noise, PICTURES[2].astype(float), *PICTURES[3:8].astype(float)]
    images = [np.clip(np.rint(image), 0, 255).astype(np.uint8) for image in images]
    records = [
        dataclasses.replace(record(f"A/{number}.png"), pixel_hash=image.tobytes(), thumbnail=image)
        for number, image in enumerate(images)
    ]
    assert [row.near_duplicate_of for row in choose(records).rows] == [None, None, 0, *[None] * 5]
    for seed in range(8):
        assert len({row.split for row in choose(records, holdout=0.5, seed=seed).rows[:3]}) == 1


# patients and studies


def told(records, **options):
    found = choose(records, **options)
    return found.info.split_by, found.info.matched_share


def many(count, **own):
    return [
        record(
            f"A/{number:02}.png", number % 8, 20 * (number // 8), **{name: give(number) for name, give in own.items()}
        )
        for number in range(count)
    ]


def test_split_names_every_way_that_told_patients():
    assert told(many(8)) == ("image", 0.0)
    assert told(many(8, study=lambda n: f"s{n // 2}")) == ("study (DICOM)", 0.0)
    assert told(many(8, study=lambda n: f"s{n}" if n < 4 else "")) == ("study (DICOM; 50 % of images), else image", 0.0)
    assert told(many(8, patient_id=lambda n: f"p{n}", study=lambda n: "one")) == ("patient (DICOM PatientID)", 1.0)
    by_both = many(8, table=lambda n: key(f"t{n}") if n < 2 else "", patient_id=lambda n: f"p{n}")
    assert told(by_both) == ("patient (DICOM PatientID and label table)", 1.0)
    folders = [record(f"A/patient{n // 2}/{n}.png", n, patient=f"patient{n // 2}") for n in range(8)]
    assert told(folders) == ("patient (folders)", 1.0)
    assert told(folders, patient_regex=r"/(\d)\.png") == ("patient (file names)", 1.0)


def test_the_same_patient_everywhere_falls_back_to_studies_and_says_so():
    records = many(8, patient_id=lambda n: "ANON", study=lambda n: f"s{n // 2}")
    found = choose(records, holdout=0.5)
    assert found.info.split_by == "study (DICOM)"
    assert len(found.rows) == 8
    assert {row.split for row in found.rows} == {"train", "holdout"}
    assert_on_one_side(found, records, lambda known: known.study_key)
    assert any("8 of 8 images have the same DICOM PatientID" in words for words in found.info.warnings)


def test_an_image_with_a_study_alone_gets_the_patient_of_the_study():
    records = many(8, patient_id=lambda n: f"p{n}" if n < 7 else "", study=lambda n: "s6" if n > 5 else f"s{n}")
    found = choose(records)
    assert found.rows[7].patient == found.rows[6].patient
    assert (found.info.split_by, found.info.patients) == ("patient (DICOM PatientID)", 7)


def test_an_image_that_a_table_lacks_stays_with_its_patient():
    """One PatientID; the table names the patient of the first image only."""
    records = many(8, table=lambda n: key("t") if n == 0 else "", patient_id=lambda n: "same" if n < 2 else f"p{n}")
    for seed in range(8):
        found = choose(records, holdout=0.5, seed=seed)
        assert found.rows[0].split == found.rows[1].split
        assert found.rows[0].patient == found.rows[1].patient


def test_a_table_goes_before_patient_ids_and_a_pattern_before_both():
    records = many(8, table=lambda n: key(f"t{n}"), patient_id=lambda n: f"p{n // 4}")
    found = choose(records, holdout=0.5)
    assert found.info.patients == 8
    (leak,) = found.info.leaks  # the table decides, but that it contradicts the files is said
    assert (leak.what, leak.count) == ("DICOM PatientIDs", 2)
    asked = choose(records, patient_regex=r"A/(\d)")
    assert {row.patient for row in asked.rows} == {"0"}


def test_folders_of_examinations_are_not_patients():
    records = [record(f"A/7310{n:02}/im.dcm", n, patient=f"7310{n:02}", patient_id=f"p{n // 2}") for n in range(8)]
    for seed in range(8):
        found = choose(records, holdout=0.5, seed=seed)
        assert_on_one_side(found, records, lambda known: known.patient_key)
    assert (found.info.split_by, found.info.patients) == ("patient (DICOM PatientID)", 4)
    assert any("4 DICOM PatientIDs have images in several of them" in words for words in found.info.warnings)


def test_patient_ids_that_stand_for_many_folders_are_placeholders():
    def told_by(folder, patient_id):
        records = [
            record(f"A/{folder(n)}/im.dcm", n % 8, 9 * (n // 8), patient=folder(n), patient_id=patient_id(n))
            for n in range(24)
        ]
        info = choose(records, holdout=0.5).info
        return info.split_by, info.patients, [words for words in info.warnings if "placeholder" in words]

    by_folder, by_id = "patient (folders)", "patient (DICOM PatientID)"
    way, count, (said,) = told_by(lambda n: f"7310{n:02}", lambda n: f"ANON{n % 2}")
    assert (way, count) == (by_folder, 24)
    assert said.startswith("2 of 2 DICOM PatientIDs stand for up to 12 folders each")
    way, count, (said,) = told_by(lambda n: f"7310{n:02}", lambda n: f"p{n}" if n < 12 else "ANON")
    assert (way, count) == (by_folder, 24)
    assert said.startswith("1 of 13 DICOM PatientIDs")
    # Three hospitals, and folders that say themselves that they are of patients.
    assert told_by(lambda n: f"patient{n:02}", lambda n: f"site{n % 3}") == (by_folder, 24, [])
    assert told_by(lambda n: f"7310{n:02}", lambda n: f"p{n // 3}") == (by_id, 8, [])


def test_a_folder_joins_images_of_which_a_table_knows_some():
    records = [
        record(f"A/patient{n // 2}/{n}.png", n, patient=f"patient{n // 2}", table=key(f"t{n // 2}") if n % 2 else "")
        for n in range(8)
    ]
    for seed in range(8):
        found = choose(records, holdout=0.5, seed=seed)
        assert_on_one_side(found, records, lambda known: known.entry.patient)
    assert found.info.patients == 4


def test_names_that_number_the_series_of_each_folder_tell_no_patient():
    """As Horos and OsiriX export: IM, series, image."""
    names = [
        f"{person}/IM-{series:04}-0001.jpg" for person in ("Brown_T", "Lee_N", "Ruiz_A", "Ito_K") for series in (1, 2)
    ]
    records = [record(f"A/{name}", n) for n, name in enumerate(names)]
    found = choose(records)
    assert found.info.split_by == "image"
    assert any("names such as IM-0002-... occur in 4 folders of one class" in words for words in found.info.warnings)
    assert any(words.startswith("WARNING: names such as IM-0002-... occur") for words in found.info.warnings)
    of_kermany = [record(f"chest_xray/chest_xray/train/A/IM-{n // 2:04}-{n}.jpeg", n) for n in range(4)]
    of_kermany += [record(f"chest_xray/train/A/IM-{n // 2:04}-{n}.jpeg", n) for n in range(4, 7)]
    of_kermany.append(record("chest_xray/train/A/checked/IM-0001-9.jpeg", 7))  # one that somebody put aside
    assert told(of_kermany) == ("patient (file names)", 1.0)


def test_studies_of_several_patients_are_said_and_stay_together():
    records = many(8, patient_id=lambda n: f"p{n}", study=lambda n: "s" if n < 2 else f"s{n}")
    for seed in range(8):
        found = choose(records, holdout=0.5, seed=seed)
        assert found.rows[0].split == found.rows[1].split
        assert any("1 DICOM studies" in words for words in found.info.warnings)


def test_one_large_patient_and_one_patient_alone_are_said():
    more = phantoms(20, 16, seed=11, pneumonia=False)[:, 0]
    records = [
        dataclasses.replace(known, pixel_hash=image.tobytes(), thumbnail=image)
        for known, image in zip(many(20, patient_id=lambda n: "p" if n < 15 else f"p{n}"), more, strict=True)
    ]
    large = choose(records)
    assert large.info.near_duplicates == 0
    (said,) = large.info.warnings
    assert said.startswith("WARNING: 15 of 20 images stay on one side of the split")
    alone = choose(many(8, table=lambda n: key("t")))
    assert any(words.startswith("WARNING: no image is held out") for words in alone.info.warnings)
    assert choose(many(8, table=lambda n: key("t")), holdout=0.0).info.warnings == ()


def test_neither_ids_nor_names_of_a_table_are_published():
    records = many(8, table=lambda n: key(f"t{n}") if n < 4 else "Jane Doe", study=lambda n: f"s{n}")
    names = [row.patient for row in choose(records).rows]
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)
    assert len(set(names)) == 5
    other = [row.patient for row in choose(records[:-1]).rows]
    assert not set(names) & set(other)  # the salt is the set's


def test_dicom_studies_split_a_set_without_patient_ids(tmp_path):
    (tmp_path / "set").mkdir()
    for number, image in enumerate(phantoms(12, 16, pneumonia=False)):
        study = {"StudyInstanceUID": f"1.2.3.{number // 3}"}
        (tmp_path / "set" / f"{number:02}").write_bytes(dicom(image[0].astype(np.uint16) * 16, **study))
    prepared = prepare(tmp_path / "set", tmp_path / "out", resolution=16, workers=1, holdout=0.5)
    assert prepared.info.split_by == "study (DICOM)"
    splits = [row.split for row in prepared.manifest]
    assert all(len(set(splits[start : start + 3])) == 1 for start in range(0, 12, 3))
    assert {*splits} == {"train", "holdout"}
    assert b"1.2.3." not in (tmp_path / "out/manifest.csv").read_bytes()


# a split of the source's own


def test_what_the_sources_split_has_on_both_sides_is_counted_and_named(tmp_path, capsys):
    records = [
        record("train/A/a.png", 0, split="train", patient_id="p1"),
        record("test/A/b.png", 1, split="holdout", patient_id="p1"),
        record("train/A/c.png", 2, split="train", study="s1"),
        record("test/A/d.png", 3, split="holdout", study="s1"),
        record("train/A/e.png", 4, split="train", patient_id="p2", study="s2"),
        record("test/A/f.png", 4, 3, split="holdout", patient_id="p3", study="s3"),
        record("train/A/g.png", 5, split="train"),
        record("test/A/h.png", 6, split="holdout"),
    ]
    found = choose(records)
    assert [row.split for row in found.rows] == ["train", "holdout"] * 4
    assert found.info.leaks == (
        Leak("patients", 1, (("train/A/a.png", "test/A/b.png"),)),
        Leak("studies", 1, (("train/A/c.png", "test/A/d.png"),)),
        Leak("groups of near duplicates", 1, (("train/A/e.png", "test/A/f.png"),)),
    )
    assert found.info.groups_on_both_sides == 3
    assert answers.leaks(CardRecord(data=found.info)) == "1 patients, 1 studies, 1 groups of near duplicates"


def test_prepare_names_the_files_of_a_patient_on_both_sides(tmp_path, capsys):
    for number, image in enumerate(PICTURES):
        save(tmp_path / "set" / ("train", "test")[number % 2] / "A" / f"person{number // 2}_x_{number}.png", image)
    assert main(["prepare", str(tmp_path / "set"), str(tmp_path / "out"), "--resolution", "32", "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "WARNING: 4 patients, or groups of near duplicates, are on both sides" in text
    assert "4 patients, such as those of train/A/person0_x_0.png and test/A/person0_x_1.png; train/A/" in text
    info = PreparedSet.open(tmp_path / "out").info
    assert len(info.leaks[0].examples) == 3
    assert main(["inspect", str(tmp_path / "out"), "--no-pictures"]) == 0
    assert "WARNING: on both sides of the split: 4 patients" in capsys.readouterr().out
    assert "on both sides of the split: 4 patients" in (tmp_path / "out/data.html").read_text()
    assert subset(PreparedSet.open(tmp_path / "out"), tmp_path / "part", images={"A": 2}).info.leaks is None


# synthetic images


@pytest.fixture
def with_synthetic(tmp_path):
    """Six real pictures and four that say that they are synthetic: two PNG, a DICOM, and a copy of a real one."""
    for number, image in enumerate(PICTURES[:6]):
        save(tmp_path / "set/A" / f"p{number}.png", image)
    save(tmp_path / "set/A/made1.png", PICTURES[6], Synthetic="true")
    save(tmp_path / "set/A/made2.png", PICTURES[0] // 2 + 9, Synthetic="true")
    save(tmp_path / "set/B/made3.png", np.rot90(PICTURES[7]), Synthetic="true")
    data = dicom(PICTURES[7].astype(np.uint16) * 16, PatientID="SYNTHETIC", SyntheticData="YES")
    (tmp_path / "set/A/made4.dcm").write_bytes(data)
    return tmp_path / "set"


def test_synthetic_images_are_refused_in_one_line(with_synthetic, tmp_path, capsys):
    assert main(["prepare", str(with_synthetic), str(tmp_path / "out"), "--resolution", "32", "--workers", "1"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "4 of 10 images say that they are synthetic and show no patient, such as A/made1.png" in error
    assert "--allow-synthetic" in error
    assert not (tmp_path / "out/dataset.json").exists()


def test_overviews_of_synthetic_images_are_no_images(with_synthetic, tmp_path):
    """`samgan sample --sheets` writes them beside the samples."""
    marked = {"Synthetic": "true", "Software": "samgan 0.1.0"}
    save(with_synthetic / "A/sheets/grid.png", np.tile(PICTURES[3], (2, 2)), Seed="0...", **marked)
    save(with_synthetic / "A/made5.png", PICTURES[3] // 2, Seed="0...", Latent="seed 0 to 1, step 1", **marked)
    prepared = prepare(with_synthetic, tmp_path / "out", resolution=32, workers=1, allow_synthetic=True)
    assert not any("sheets" in row.source for row in prepared.manifest)
    assert any("made5" in row.source for row in prepared.manifest)
    (left_out,) = [file for file in prepared.info.left_out.unused if "sheets" in file.source]
    assert left_out.reason == "an overview of several synthetic images, made by samgan sample --sheets"


@pytest.mark.parametrize("own_split", [False, True])
def test_allowed_synthetic_images_are_training_images_and_no_patients(with_synthetic, tmp_path, own_split, capsys):
    source = with_synthetic
    if own_split:
        (tmp_path / "own").mkdir()
        source.rename(tmp_path / "own/test")
        for number in (3, 4):
            (tmp_path / "own/train/A").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"own/test/A/p{number}.png").rename(tmp_path / f"own/train/A/p{number}.png")
        source = tmp_path / "own"
    arguments = ["prepare", str(source), str(tmp_path / "out"), "--resolution", "32", "--workers", "1"]
    assert main([*arguments, "--holdout", "0.5", "--allow-synthetic"]) == 0
    text = capsys.readouterr().out
    prepared = PreparedSet.open(tmp_path / "out")
    made = {Path(row.source).stem: row.split for row in prepared.manifest if row.synthetic}
    assert made == dict.fromkeys(("made1", "made2", "made3", "made4"), "train")
    assert "holdout" in {row.split for row in prepared.manifest}
    assert prepared.info.synthetic == 4
    assert prepared.info.patients == 6
    assert "synthetic: 4 images, all of them training images" in text
    assert (tmp_path / "out/manifest.csv").read_text().splitlines()[0].endswith(",synthetic")
    if not own_split:  # the picture that a synthetic one resembles
        assert next(row.split for row in prepared.manifest if row.source == "A/p0.png") == "train"
    card = format_card(CardRecord(data=prepared.info))
    assert "Real and synthetic radiographs" in card
    assert "4 of 10, by their files' own words; all are training images" in card
    part = subset(prepared, tmp_path / "part", classes=["A"])
    assert part.info.synthetic == 3


ARCHIVES = {
    "for all": {"Synthetic": "true", "Images": [{"Seed": "1"}]},
    "for each": {"Software": "samgan 1", "Images": [{}, {"Synthetic": "true"}]},
}


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("layout", ["medmnist", "samples"])
def test_an_archive_of_samples_is_synthetic(tmp_path, layout, name):
    provenance = json.dumps(ARCHIVES[name])
    images = PICTURES[:4]
    if layout == "medmnist":
        arrays = {"train_images": images, "train_labels": np.arange(4, dtype=np.uint8)[:, None] % 2}
    else:
        arrays = {"images": images[:, None], "classes": np.array(["A", "B", "A", ""]), "seeds": np.arange(4)}
    np.savez(tmp_path / "s.npz", **arrays, provenance=provenance)
    with pytest.raises(SamganError, match=r"4 of 4 images say that they are synthetic .* (train|images)/0000000"):
        prepare(tmp_path / "s.npz", tmp_path / "out", resolution=16)
    prepared = prepare(tmp_path / "s.npz", tmp_path / "out", resolution=16, allow_synthetic=True)
    np.testing.assert_array_equal(prepared.images[:, 0], images)
    assert prepared.classes == (["class_0", "class_1"] if layout == "medmnist" else ["A", "B", "s"])
    assert (prepared.info.synthetic, prepared.info.patients) == (4, 0)


@pytest.mark.parametrize(
    "provenance", ["", "[]", "made in a hospital", '{"Synthetic": "no"}', "[" * 10_000, 3, [[1], 2]]
)
def test_another_archives_provenance_says_nothing(tmp_path, provenance):
    labels = np.zeros(4, np.uint8)
    array = np.array(provenance, dtype=object) if isinstance(provenance, list) else provenance
    np.savez(tmp_path / "s.npz", train_images=PICTURES[:4], train_labels=labels, provenance=array)
    assert prepare(tmp_path / "s.npz", tmp_path / "out", resolution=16).info.synthetic == 0


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": PICTURES[:4]}, "expected images of uint8 or uint16"),
        ({"images": PICTURES[:4, None].astype(float)}, "expected images of uint8 or uint16"),
        ({"images": PICTURES[:4, None], "classes": np.array(["A"])}, "expected classes as text"),
        ({"images": PICTURES[:4, None], "classes": np.arange(4)}, "expected classes as text"),
        ({"images": PICTURES[:4, None], "classes": np.array(["../x"] * 4)}, "is not the name of a class"),
    ],
)
def test_an_archive_that_samgan_did_not_write_is_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "s.npz", **arrays, provenance='{"Synthetic": "true"}')
    with pytest.raises(SamganError, match=words):
        prepare(tmp_path / "s.npz", tmp_path / "out", resolution=16, allow_synthetic=True)


# older sets, and what is printed


def test_an_older_set_opens_and_makes_a_card(two_labels, tmp_path, capsys):
    prepare(two_labels, tmp_path / "out", resolution=32, workers=1)
    path = tmp_path / "out/dataset.json"
    info = json.loads(path.read_text())
    for name in ("leaks", "contradictions", "near_contradictions", "synthetic", "notes", "warnings"):
        del info[name]
    del info["options"]["allow_synthetic"], info["left_out"]["unused"]
    path.write_text(json.dumps(info))
    old = PreparedSet.open(tmp_path / "out")
    assert (old.info.synthetic, old.info.contradictions) == (None, None)
    assert subset(old, tmp_path / "part", images={"A": 2}).info.synthetic is None
    for folder in ("out", "part"):
        assert main(["card", str(tmp_path / folder)]) == 0
        assert "pictures in several classes" not in (tmp_path / folder / "DATA_CARD.md").read_text()


def test_names_with_control_characters_are_not_printed_raw(tmp_path, capsys):
    name = "a\x1b[31mred.png"
    for number, image in enumerate(PICTURES[:4]):
        save(tmp_path / "set/A" / f"{number}{name}", image)
    save(tmp_path / "set/B" / name, PICTURES[0])
    assert main(["prepare", str(tmp_path / "set"), str(tmp_path / "out"), "--resolution", "32", "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert r"A/0a\x1b[31mred.png" in text
    assert "\x1b" not in text
    card = format_card(CardRecord(data=PreparedSet.open(tmp_path / "out").info))
    assert "\x1b" not in card


def test_what_was_passed_over_is_counted_most_frequent_first(two_labels, tmp_path, capsys, monkeypatch):
    from samgan.data import chunks

    original = chunks.read_radiograph

    def with_notes(data, *arguments, **options):
        notes = ("empty Rescale Slope", *(f"odd {number}" for number in range(6) if data[-200] % 2))
        return original(data, *arguments, **options)._replace(notes=notes)

    monkeypatch.setattr(chunks, "read_radiograph", with_notes)
    assert main(["prepare", str(two_labels), str(tmp_path / "out"), "--resolution", "32", "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "notes on metadata: 7 x empty Rescale Slope, " in text
    assert ", and 2 other things; manifest.csv has them for each image" in text
    info = PreparedSet.open(tmp_path / "out").info
    assert answers.notes(CardRecord(data=info)).startswith("7 x empty Rescale Slope, ")


def test_folders_that_may_be_patients_are_said(tmp_path):
    random = np.random.default_rng(5)
    for name in "AB":
        for person in range(6):
            for number in range(2):
                image = random.integers(0, 256, (16, 16), dtype=np.uint8)
                save(tmp_path / "set" / name / f"Doe {name}{person}" / f"{number}.png", image)
    told = "no patient is known, and the images lie in 12 folders, such as A/Doe A0: if each is one patient, give"
    (said,) = prepare(tmp_path / "set", tmp_path / "out", resolution=32, workers=1).info.warnings
    assert said.startswith(told)
    pattern = said.partition("--patient-regex '")[2].partition("'")[0]
    known = prepare(tmp_path / "set", tmp_path / "known", resolution=32, workers=1, patient_regex=pattern).info
    assert (known.patients, known.warnings) == (12, ())
