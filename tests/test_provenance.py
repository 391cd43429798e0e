"""Every format: what is written is read back, says that it is synthetic, and is what others expect of such a file."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.pixels import pixel_array

from samgan.commands.main import main
from samgan.data import prepare
from samgan.errors import SamganError, UsageError
from samgan.networks import Generator
from samgan.pictures import SYNTHETIC, to_uint8, to_uint16
from samgan.provenance import FORMATS, Mark, Sample, hash_pixels, number_classes, read_samples
from samgan.sampling import Model, hash_weights, sample, write_samples

SEEDS = range(40, 44)


def untrained(config, seed=0):
    torch.manual_seed(seed)
    generator = Generator(config.network).eval().requires_grad_(False)
    return Model(generator, config, 16, hash_weights(generator.state_dict()))


@pytest.fixture(scope="module")
def model(tiny_config):
    return untrained(tiny_config.override({"preset": "tiny", "data.classes": ["PNEUMONIA"]}))


@pytest.fixture(scope="module")
def colour_model(tiny_config):
    return untrained(tiny_config.override({"network.image_channels": 3, "data.classes": ["face"]}))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Seeds 40 to 43 in every format."""
    folder = tmp_path_factory.mktemp("formats")
    for name in FORMATS:
        write_samples(model, folder / name, len(SEEDS), seed=SEEDS[0], file_format=name)
    return folder


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".dcm", ".npz"))


def of_sample(path, image, mark):
    """A file of one image that `write_samples` would never write."""
    path.parent.mkdir(exist_ok=True)
    suffix = {".png": "png", ".dcm": "dicom"}[path.suffix]
    FORMATS[suffix].write(path.parent, [Sample(image, mark)], 1)
    return path


# ---- every format


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read_back(model, folder, name):
    expected = sample(model, SEEDS)
    expected = to_uint16(expected) if FORMATS[name].bits == 16 else to_uint8(expected).numpy()
    found = [one for path in files(folder / name) for one in read_samples(path)]
    assert len(found) == len(SEEDS)
    for seed, image, (read, mark) in zip(SEEDS, expected, found, strict=True):
        assert read.dtype == image.dtype
        np.testing.assert_array_equal(read, image)
        assert mark == Mark(model.sha256, "tiny", 16, seed, "PNEUMONIA", hash_pixels(image))


@pytest.mark.parametrize("name", ["png", "npz", "dicom", "medmnist", "imagefolder"])
def test_colour_is_read_back(colour_model, tmp_path, name):
    write_samples(colour_model, tmp_path / "out", 2, file_format=name)
    found = [one for path in files(tmp_path / "out") for one in read_samples(path)]
    np.testing.assert_array_equal(np.stack([one.image for one in found]), to_uint8(sample(colour_model, range(2))))
    for name in ("png16", "dicom16"):
        with pytest.raises(UsageError, match=f"--format {name} supports only 1 channel"):
            write_samples(colour_model, tmp_path / "deep", 2, file_format=name)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_seed_gives_the_same_file(model, folder, tmp_path, name):
    write_samples(model, tmp_path / "again", len(SEEDS), seed=SEEDS[0], file_format=name)
    for path in files(folder / name):
        assert (tmp_path / "again" / path.relative_to(folder / name)).read_bytes() == path.read_bytes()


def test_the_command_line_knows_every_format(capsys):
    with pytest.raises(SystemExit):
        main(["sample", "--help"])
    assert f"{{{','.join(FORMATS)}}}" in "".join(capsys.readouterr().out.split())


# ---- marks


def test_a_mark_without_what_it_needs_is_refused():
    entries = Mark("a" * 64, "tiny", 16, 7).entries()
    assert Mark.from_entries(entries) == Mark("a" * 64, "tiny", 16, 7)
    assert Mark.from_entries({}) is None
    assert Mark.from_entries({**entries, "Software": "GIMP"} | {"Description": "a cat"}) is None
    for change, reason in (
        ({"Seed": "many"}, "damaged"),
        ({"Seed": str(1 << 32)}, "the hash of the model or the seed is not valid"),
        ({"Seed": "-1"}, "the hash of the model or the seed is not valid"),
        ({"Seed": "0..."}, "a sheet of several images"),
        ({"Model-SHA256": "abc"}, "the hash of the model"),
        ({"Model-Images-Seen": None}, "damaged"),
        ({"Synthetic": "false"}, "does not say that it is synthetic"),
        ({"Software": ""}, "names no model and no seed"),
    ):
        with pytest.raises(SamganError, match=reason):
            Mark.from_entries({**entries, **change})
    place = {"Seed": "7...", "Latent": "neighbour 2 of seed 7"}
    assert Mark.from_entries(entries | place) == Mark("a" * 64, "tiny", 16, 7, latent="neighbour 2 of seed 7")
    assert Mark.from_entries(entries | place).entries() == entries | place
    del entries["Model-Preset"]
    with pytest.raises(SamganError, match="damaged"):
        Mark.from_entries(entries)


def test_the_hash_of_pixels_sees_values_shape_and_depth():
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    changed = image.copy()
    changed[0, 3, 3] += 1
    images = [image, changed, image.reshape(1, 4, 16), image.astype(np.uint16), image[:, ::-1]]
    assert len({hash_pixels(one) for one in images}) == len(images)
    assert hash_pixels(image.astype(">u2")) == hash_pixels(image.astype("<u2"))


@pytest.mark.parametrize("name", ["png", "dicom", "npz", "medmnist"])
def test_a_truncated_file_is_told_in_one_line(folder, tmp_path, name):
    path = files(folder / name)[0]
    content = path.read_bytes()
    for length in (len(content) // 2, len(content) - 60):
        (tmp_path / path.name).write_bytes(content[:length])
        with pytest.raises(SamganError) as error:
            read_samples(tmp_path / path.name)
        assert str(error.value).startswith("damaged: ")
        assert len(str(error.value).splitlines()) == 1


def test_what_carries_no_mark_has_none(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    np.savez(tmp_path / "a.npz", images=pixels[None])
    np.savez(tmp_path / "b.npz", images=pixels[None], provenance="a museum")
    (tmp_path / "a.txt").write_text("samgan 0.1.0")
    (tmp_path / "empty").write_bytes(b"")
    shutil.copy(pydicom.data.get_testdata_file("CT_small.dcm"), tmp_path / "a.dcm")
    for path in tmp_path.iterdir():
        assert read_samples(path) == [], path
    for path, reason in ((tmp_path / "none.png", "there is no such file"), (tmp_path, "not a file")):
        with pytest.raises(SamganError, match=reason):
            read_samples(path)


def test_nothing_in_an_archive_is_unpickled(tmp_path):
    mark = json.dumps({**Mark("a" * 64, "tiny", 16, 7).entries(), "Images": [{"Seed": "7"}]})
    np.savez(tmp_path / "a.npz", images=np.array([{"a": 1}], dtype=object), provenance=mark)
    with pytest.raises(SamganError, match="damaged"):
        read_samples(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=np.zeros((2, 1, 8, 8), np.uint8), provenance=mark)
    with pytest.raises(SamganError, match="holds 2 images but 1 marks"):
        read_samples(tmp_path / "b.npz")


# ---- DICOM


def read_strictly(path, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    dataset = pydicom.dcmread(path)
    for element in dataset.iterall():  # values are converted, and with it checked, when they are asked for
        assert element.value is not NotImplemented
    return dataset


@pytest.mark.parametrize("depth", ["", "16"])
def test_dicom_has_the_pixels_of_the_png(folder, monkeypatch, depth):
    for seed in SEEDS:
        dataset = read_strictly(folder / f"dicom{depth}" / f"seed-{seed:08d}.dcm", monkeypatch)
        with Image.open(folder / f"png{depth}" / f"seed-{seed:08d}.png") as image:
            values = np.asarray(image)
        pixels = pixel_array(dataset)
        assert (pixels.dtype, dataset.PhotometricInterpretation) == (values.dtype, "MONOCHROME2")
        np.testing.assert_array_equal(pixels, values)
        # the window is the identity: a viewer stretches nothing
        shown = pydicom.pixels.apply_voi_lut(pixels, dataset)
        np.testing.assert_allclose(shown, pixels, atol=0.5)


def test_dicom_of_colour(colour_model, tmp_path, monkeypatch):
    write_samples(colour_model, tmp_path / "out", 1, file_format="dicom")
    dataset = read_strictly(tmp_path / "out" / "seed-00000000.dcm", monkeypatch)
    assert (dataset.PhotometricInterpretation, dataset.PlanarConfiguration) == ("RGB", 0)
    np.testing.assert_array_equal(pixel_array(dataset), to_uint8(sample(colour_model, [0]))[0].permute(1, 2, 0))


def test_dicom_says_what_it_is(model, folder, monkeypatch):
    dataset = read_strictly(folder / "dicom" / "seed-00000041.dcm", monkeypatch)
    assert dataset.SyntheticData == "YES"
    assert dataset.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage == dataset.file_meta.MediaStorageSOPClassUID
    assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
    assert (dataset.ConversionType, dataset.Modality, dataset.BurnedInAnnotation) == ("SYN", "OT", "NO")
    assert (dataset.InstanceNumber, dataset.ImageComments) == (41, SYNTHETIC)
    derivation = json.loads(dataset.DerivationDescription)
    assert (derivation["Model-SHA256"], derivation["Seed"], derivation["Class"]) == (model.sha256, "41", "PNEUMONIA")
    assert dataset.SoftwareVersions.startswith("samgan ")


def test_dicom_has_no_patient(folder, monkeypatch):
    dataset = read_strictly(folder / "dicom" / "seed-00000041.dcm", monkeypatch)
    for element in dataset.iterall():
        assert not element.tag.is_private
        if element.VR in ("DA", "TM", "DT", "AS"):
            assert not element.value, element.keyword
        if element.VR == "PN" or element.tag.group == 0x0010:
            assert element.value in ("", "SYNTHETIC"), element.keyword
    assert dataset.PatientName == dataset.PatientID == "SYNTHETIC"
    assert "PatientBirthDate" in dataset
    assert "PatientAge" not in dataset


def test_uids_belong_to_the_image(model, folder, tiny_config, tmp_path):
    def read(path):
        return pydicom.dcmread(path, stop_before_pixels=True)

    def write(name, model, **options):
        write_samples(model, tmp_path / name, 1, seed=41, **{"file_format": "dicom", **options})
        return read(tmp_path / name / "seed-00000041.dcm")

    first, second = (read(folder / "dicom" / f"seed-{seed:08d}.dcm") for seed in (41, 42))
    again, deep = write("again", model), read(folder / "dicom16" / "seed-00000041.dcm")
    other = write("other", untrained(tiny_config, seed=1))
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert len({dataset.SOPInstanceUID for dataset in (first, second, deep, other)}) == 4
    assert first.SeriesInstanceUID == second.SeriesInstanceUID != deep.SeriesInstanceUID
    assert first.StudyInstanceUID == deep.StudyInstanceUID != other.StudyInstanceUID
    image, mark = np.zeros((1, 8, 8), np.uint8), Mark("a" * 64, "tiny", 16, 7, "NORMAL")
    changed = [{}, {"class_name": "PNEUMONIA"}, {"truncation": 0.5}, {"latent": "beside 7"}, {"software": "samgan 9"}]
    for place, change in enumerate(changed):
        of_sample(tmp_path / f"mark-{place}" / "x.dcm", image, dataclasses.replace(mark, **change))
    of_marks = {read(path).SOPInstanceUID for path in tmp_path.glob("mark-*/*.dcm")}
    assert len(of_marks) == len(changed)
    for dataset in (first, deep, other):
        for uid in (dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID):
            assert pydicom.uid.UID(uid).is_valid
            number = int(uid.removeprefix("2.25."))  # a UUID, as the root asks for: version 5 of the usual variant
            assert number < 1 << 128
            assert (number >> 76 & 15, number >> 62 & 3) == (5, 2)


def validate(path):
    """The errors that dicom3tools' validator finds."""
    tool = Path(sysconfig.get_path("scripts")) / "dciodvfy"
    result = subprocess.run([tool, path], capture_output=True, text=True, check=False, timeout=60)
    lines = (result.stdout + result.stderr).splitlines()
    assert "SCImage" in lines  # as what it was validated
    return [line for line in lines if line.startswith("Error")]


def test_dicom_is_valid(folder, colour_model, tmp_path):
    assert validate(folder / "dicom" / "seed-00000041.dcm") == []
    assert validate(folder / "dicom16" / "seed-00000041.dcm") == []
    write_samples(colour_model, tmp_path / "out", 1, file_format="dicom")
    assert validate(tmp_path / "out" / "seed-00000000.dcm") == []
    dataset = pydicom.dcmread(folder / "dicom" / "seed-00000041.dcm")
    del dataset.ConversionType
    dataset.save_as(tmp_path / "broken.dcm")
    assert any("ConversionType" in line for line in validate(tmp_path / "broken.dcm"))


def test_dicom_of_the_last_seed_and_of_a_preset_of_any_name(tmp_path, monkeypatch):
    image = np.zeros((1, 9, 9), np.uint8)  # an odd number of bytes
    mark = Mark("a" * 64, 'back\\slash "quoted" \u00e9\u4e2d', 16, (1 << 32) - 1, "\u00e9\\n").of(image)
    path = of_sample(tmp_path / "a" / "seed-4294967295.dcm", image, mark)
    dataset = read_strictly(path, monkeypatch)
    assert dataset.InstanceNumber is None  # an integer string ends at 2^31
    ((read, read_mark),) = read_samples(path)
    assert read_mark == mark
    np.testing.assert_array_equal(read, image)
    with pytest.raises(SamganError, match=r"1024: shorten the preset's label"):
        of_sample(tmp_path / "b" / "x.dcm", image, dataclasses.replace(mark, preset="x" * 1000))


def test_a_dicom_that_is_said_not_to_be_synthetic_is_refused(folder, tmp_path):
    dataset = pydicom.dcmread(folder / "dicom" / "seed-00000041.dcm")
    for value in ("NO", ""):
        dataset.SyntheticData = value
        dataset.save_as(tmp_path / "a.dcm")
        with pytest.raises(SamganError, match="does not say that it is synthetic"):
            read_samples(tmp_path / "a.dcm")


# ---- layouts of others


def test_medmnist_has_its_keys_shapes_and_types(folder, colour_model, tmp_path):
    with np.load(folder / "medmnist" / "medmnist.npz", allow_pickle=False) as archive:
        splits = {f"{split}_{kind}" for split in ("train", "val", "test") for kind in ("images", "labels")}
        assert set(archive.files) == {*splits, "provenance"}
        shapes = {name: (archive[name].dtype, archive[name].shape) for name in splits}
        document = json.loads(str(archive["provenance"]))
        assert archive["train_labels"].tolist() == [[1]] * 4  # PneumoniaMNIST's number
    for split, count in (("train", 4), ("val", 0), ("test", 0)):
        assert shapes[f"{split}_images"] == (np.uint8, (count, 32, 32))
        assert shapes[f"{split}_labels"] == (np.uint8, (count, 1))
    assert document["Labels"] == {"PNEUMONIA": 1}
    assert document["Synthetic"] == "true"
    write_samples(colour_model, tmp_path / "out", 2, file_format="medmnist")
    with np.load(tmp_path / "out" / "medmnist.npz", allow_pickle=False) as archive:
        assert archive["train_images"].shape == (2, 32, 32, 3)
        assert archive["train_labels"].tolist() == [[0]] * 2
        assert json.loads(str(archive["provenance"]))["Labels"] == {"face": 0}


def test_labels_that_mean_nothing_are_told(tiny_config, tmp_path):
    with pytest.warns(UserWarning, match="all labels are 0 and mean nothing"):
        write_samples(untrained(tiny_config), tmp_path / "out", 2, file_format="medmnist")
    with np.load(tmp_path / "out" / "medmnist.npz", allow_pickle=False) as archive:
        assert json.loads(str(archive["provenance"]))["Labels"] == {}


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["PNEUMONIA"], [1]),
        (["normal", "pneumonia"], [0, 1]),
        (["class_2", "class_0"], [2, 0]),
        (["class_256"], [0]),
        (["PNEUMONIA", "COVID", "NORMAL"], [2, 0, 1]),
        ([""], [0]),
    ],
)
def test_classes_get_the_numbers_of_the_set_they_are_from(names, numbers):
    assert number_classes(names) == dict(zip(names, numbers, strict=True))


def test_imagefolder_has_a_row_for_each_picture(model, folder):
    with open(folder / "imagefolder" / "train" / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [path.name for path in files(folder / "imagefolder")]
    for seed, row in zip(SEEDS, rows, strict=True):
        del row["file_name"]
        assert row == {"label": "PNEUMONIA", "seed": str(seed), "model_sha256": model.sha256, "synthetic": "true"}
    assert {path.name for path in (folder / "imagefolder").iterdir()} == {"train", "samples.json"}


@pytest.mark.parametrize("source", ["dicom", "png", "medmnist/medmnist.npz", "npz/samples.npz"])
def test_prepare_reads_the_same_pixels(model, folder, tmp_path, source):
    data = prepare(folder / source, tmp_path / "data", resolution=32, workers=1, allow_synthetic=True)
    np.testing.assert_array_equal(data.images, to_uint8(sample(model, SEEDS)))
    assert data.info.left_out.bad_files == ()


def test_prepare_does_not_stretch_what_is_dark(tmp_path):
    images = np.random.default_rng(0).integers(0, 9000, (2, 1, 32, 32)).astype(np.uint16)
    for seed, image in enumerate(images):
        of_sample(tmp_path / "dark" / f"seed-{seed:08d}.dcm", image, Mark("a" * 64, "tiny", 16, seed))
    data = prepare(tmp_path / "dark", tmp_path / "data", resolution=32, workers=1, allow_synthetic=True)
    np.testing.assert_array_equal(data.images, np.rint(images / 65535 * 255))
