"""A part of a prepared set is a prepared set, and holds out whom the whole holds out."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from samgan.commands.main import main
from samgan.data import PreparedSet, prepare
from samgan.data.phantom import write_phantoms
from samgan.data.subset import subset
from samgan.errors import SamganError, UsageError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "images", 30, resolution=32)
    # Three images of each patient.
    for path in sorted((folder / "images").glob("*/*")):
        number = int("".join(character for character in path.stem if character.isdigit()))
        path.rename(path.with_name(f"person{number // 3:03d}_image{number}.png"))
    return prepare(folder / "images", folder / "data", resolution=32, workers=1, patient_regex=r"(person\d+)")


def held_out(prepared, name):
    return [row.sha256 for row in prepared.manifest if (row.split, row.class_name) == ("holdout", name)]


def test_patients_stay_whole_and_the_held_out_ones_are_the_same(data, tmp_path):
    part = subset(data, tmp_path / "part", patients={"NORMAL": 4})
    own = [row for row in part.manifest if (row.class_name, row.split) == ("NORMAL", "train")]
    people = {row.patient for row in own}
    assert len(people) == 4
    before = [row for row in data.manifest if row.patient in people and row.class_name == "NORMAL"]
    assert [row.sha256 for row in own] == [row.sha256 for row in before if row.split == "train"]
    for name in data.classes:
        assert held_out(part, name) == held_out(data, name)
    assert part.info.counts["PNEUMONIA"] == data.info.counts["PNEUMONIA"]
    assert part.info.counts["NORMAL"]["train"] == len(own)
    assert part.info.subset_of.sha256 == data.sha256
    part.verify()
    place = {row.sha256: index for index, row in enumerate(data.manifest)}
    for index, row in enumerate(part.manifest):
        assert row.index == index
        assert np.array_equal(part.images[index], data.images[place[row.sha256]])


def test_synthetic_images_are_no_patients_and_warnings_are_about_the_whole(data, tmp_path):
    rows = [dataclasses.replace(row, synthetic="yes" if n % 3 == 0 else "") for n, row in enumerate(data.manifest)]
    real = {row.patient for row in rows if row.split == "train" and row.class_name == "NORMAL" and not row.synthetic}
    info = dataclasses.replace(data.info, warnings=("WARNING: 5 of 60 are odd", "split at random"), notes={})
    mixed = PreparedSet(data.path, info, data.images, rows)
    with pytest.raises(UsageError, match=f"there are only {len(real)}"):
        subset(mixed, tmp_path / "many", patients={"NORMAL": len(real) + 1})
    part = subset(mixed, tmp_path / "part", patients={"NORMAL": 2}, classes=["NORMAL"])
    assert not any(row.synthetic for row in part.manifest if row.split == "train")
    assert part.info.warnings == ("WARNING: of the whole set: 5 of 60 are odd", "of the whole set: split at random")
    assert subset(part, tmp_path / "again", images={"NORMAL": 2}).info.warnings == part.info.warnings
    with pytest.raises(UsageError, match="a class is named twice"):
        subset(data, tmp_path / "twice", classes=["NORMAL", "NORMAL"])


def test_a_smaller_choice_is_part_of_a_larger_one_of_the_same_seed(data, tmp_path):
    def chosen(count, seed):
        part = subset(data, tmp_path / f"{count}-{seed}", images={"NORMAL": count}, classes=["NORMAL"], seed=seed)
        assert part.classes == ["NORMAL"]
        return {row.sha256 for row in part.manifest if row.split == "train"}

    assert len(chosen(5, 0)) == 5
    assert chosen(3, 0) < chosen(6, 0)
    assert chosen(4, 0) != chosen(4, 1)


def test_parts_have_no_patient_in_common(data, tmp_path):
    def chosen(part):
        taken = subset(data, tmp_path / str(part), patients={"NORMAL": 2}, part=part)
        assert taken.info.subset_of.part == part
        return {row.patient for row in taken.manifest if (row.class_name, row.split) == ("NORMAL", "train")}

    parts = [chosen(part) for part in range(3)]
    first, second = (PreparedSet.open(tmp_path / str(part)).info for part in (0, 1))
    as_before = {"name": "data", "sha256": data.sha256, "seed": 0, "patients": {"NORMAL": 2}, "images": {}}
    as_before |= {"resolution": None}  # sets of earlier versions, which had no parts, keep their name
    assert first.fingerprint == hashlib.sha256(f"{data.sha256} {as_before}".encode()).hexdigest()
    assert first.fingerprint != second.fingerprint
    assert [len(own) for own in parts] == [2, 2, 2]
    assert len(set.union(*parts)) == 6
    with pytest.raises(UsageError, match="NORMAL: patients: 2 were asked for in part 70, but there are only"):
        chosen(70)
    with pytest.raises(UsageError, match="--part -1: expected 0 or more"):
        chosen(-1)
    with pytest.raises(UsageError, match="--part 1: expected a number of patients or of images"):
        subset(data, tmp_path / "whole", part=1)


def test_the_command_writes_what_train_and_subset_open_again(data, tmp_path, capsys):
    command = ["subset", str(data.path), str(tmp_path / "part"), "--images", "NORMAL=7", "--json"]
    assert main(command) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["counts"]["NORMAL"]["train"] == 7
    again = subset(PreparedSet.open(tmp_path / "part"), tmp_path / "less", images={"NORMAL": 2})
    assert again.info.counts["NORMAL"]["train"] == 2
    assert main(command) == 1
    assert "exists and is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"images": {"HEART": 1}}, "unknown class HEART"),
        ({"images": {"NORMAL": 1}, "patients": {"NORMAL": 1}}, "not both"),
        ({"images": {"NORMAL": 1000}}, "1000 were asked for, but there are only"),
        ({"images": {"NORMAL": 1}, "classes": ["PNEUMONIA"]}, "leaves NORMAL out"),
    ],
)
def test_what_cannot_be_taken_is_said(data, tmp_path, given, words):
    with pytest.raises(UsageError, match=words):
        subset(data, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["NORMAL", "NORMAL=", "NORMAL=0", "NORMAL=many", "=3"])
def test_numbers_are_of_a_class(data, tmp_path, capsys, given):
    assert main(["subset", str(data.path), str(tmp_path / "out"), "--patients", given]) == 2
    assert f"--patients {given}: expected CLASS=N" in capsys.readouterr().err


def test_a_damaged_set_is_not_taken_from(data, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("dataset.json", "manifest.csv"):
        (copy / name).write_bytes((data.path / name).read_bytes())
    np.save(copy / "images.npy", 255 - np.asarray(data.images))
    with pytest.raises(SamganError, match="damaged"):
        subset(PreparedSet.open(copy), tmp_path / "out", images={"NORMAL": 1})


def test_of_images_that_are_like_one_that_does_not_stay_the_first_takes_its_place(data, tmp_path):
    kept = sorted(subset(data, tmp_path / "some", images={"NORMAL": 5}).manifest, key=lambda row: row.index)
    sources = {row.source for row in kept if row.class_name == "NORMAL" and row.split == "train"}
    own = [row.index for row in data.manifest if row.class_name == "NORMAL" and row.split == "train"]
    gone = next(index for index in own if data.manifest[index].source not in sources)
    like = [index for index in own if data.manifest[index].source in sources][:3]
    rows = [dataclasses.replace(row, near_duplicate_of=gone) if row.index in like else row for row in data.manifest]
    joined = dataclasses.replace(data, manifest=rows)
    assert len({*joined.groups(like), *joined.groups([gone])}) == 1
    part = subset(joined, tmp_path / "part", images={"NORMAL": 5})
    near = {row.source: row.near_duplicate_of for row in part.manifest}
    first, *others = (data.manifest[index].source for index in like)
    place = next(row.index for row in part.manifest if row.source == first)
    assert near[first] is None
    assert {near[source] for source in others} == {place}
    assert part.info.near_duplicates == 2
    assert len(set(part.groups([row.index for row in part.manifest if row.source in (first, *others)]))) == 1


def test_a_smaller_copy_has_means_of_pixels_and_the_same_split(data, tmp_path, capsys):
    with pytest.raises(SystemExit):  # a size that no network takes
        main(["subset", str(data.path), str(tmp_path / "small"), "--resolution", "8"])
    assert "invalid choice: 8 (choose from 32, 64," in capsys.readouterr().err
    small = subset(data, tmp_path / "small", resolution=8)
    assert (small.info.resolution, small.info.subset_of.resolution) == (8, 8)
    small.verify()
    assert small.manifest == data.manifest
    assert small.info.counts == data.info.counts
    exact = np.array(
        [
            [image[0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean() for y in range(8) for x in range(8)]
            for image in data.images
        ]
    )
    assert np.abs(small.images.reshape(len(exact), -1) - exact).max() <= 0.5


@pytest.mark.parametrize("side", [64, 24, 0])
def test_a_side_that_a_smaller_copy_cannot_have(data, tmp_path, side):
    with pytest.raises(UsageError, match=f"--resolution {side}: expected one of 8, 16, 32, for images of 32 px"):
        subset(data, tmp_path / "part", resolution=side)
    assert not (tmp_path / "part").exists()
