"""Folders, archives and arrays: what counts as an image, of which class, and what is unsafe."""

import io
import lzma
import os
import stat
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pooch
import pytest
from PIL import Image

from samgan.data import sources
from samgan.data.sources import close_sources, open_source, read_entries
from samgan.errors import SamganError, UsageError


def png(shade=100, side=16):
    file = io.BytesIO()
    Image.new("L", (side, side), shade).save(file, "PNG")
    return file.getvalue()


def write_tree(root, names, content=None):
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png() if content is None else content)


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, png())


def write_npz(path, **counts):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in counts.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 16, 16), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez(path, **arrays)
    return arrays


def summary(source):
    return {entry.path: (entry.class_name, entry.split) for entry in source.entries}


LAYOUTS = {
    "classes": (["A/1.png", "B/2.JPEG", "B/deep/3.dcm"], {"A/1.png": "A", "B/2.JPEG": "B", "B/deep/3.dcm": "B"}),
    "no sub-folders": (["1.png", "2.tif"], {"1.png": "set", "2.tif": "set"}),
    "an image beside the classes": (["1.png", "A/2.bmp", "B/3.png"], {"A/2.bmp": "A", "B/3.png": "B"}),
    "masks are no radiographs": (
        ["A/images/1.png", "A/masks/1.png", "B/2.png"],
        {"A/images/1.png": "A", "B/2.png": "B"},
    ),
    "masks are no class": (["masks/1.png", "B/1.webp"], {"B/1.webp": "B"}),
    "hidden files": (["A/1.png", "A/._1.png", ".cache/2.png", "__MACOSX/A/1.png"], {"A/1.png": "A"}),
    "train alone is no split": (["train/A/1.png", "train/B/1.png"], {"train/A/1.png": "A", "train/B/1.png": "B"}),
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_gives_classes(tmp_path, kind, name):
    files, classes = LAYOUTS[name]
    if kind == "folder":
        write_tree(tmp_path / "set", files)
        source = open_source(tmp_path / "set")
    else:
        write_zip(tmp_path / "set.zip", files)
        source = open_source(tmp_path / "set.zip")
    assert summary(source) == {path: (class_name, "") for path, class_name in classes.items()}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_split_folders_are_kept_as_splits(tmp_path, kind):
    files = [f"{split}/{name}/1.png" for split in ("train", "val", "test") for name in ("A", "B")]
    if kind == "folder":
        write_tree(tmp_path / "set", files)
        source = open_source(tmp_path / "set")
    else:
        write_zip(tmp_path / "set.zip", [f"set/{file}" for file in files])
        source = open_source(tmp_path / "set.zip")
    kept = {(entry.path.removeprefix("set/"), entry.class_name, entry.split) for entry in source.entries}
    assert kept == {(file, file.split("/")[1], "train" if file.startswith("train") else "holdout") for file in files}


def test_wrapping_folder_of_an_archive_is_no_class(tmp_path):
    write_zip(tmp_path / "set.zip", ["top/", "top/A/", "top/A/1.png", "top/B/2.png"])
    assert summary(open_source(tmp_path / "set.zip")) == {"top/A/1.png": ("A", ""), "top/B/2.png": ("B", "")}


def test_files_that_are_no_images_are_counted_and_left_aside(tmp_path):
    write_tree(tmp_path, ["A/1.png", "A/notes.txt", "A/list.csv", "b.md", "LICENSE", "A/.DS_Store"], content=b"words")
    source = open_source(tmp_path)
    assert list(summary(source)) == ["A/1.png"]  # a text named .png is the reader's affair
    assert source.ignored == {"": 1, ".csv": 1, ".md": 1, ".txt": 1}


def test_dicom_is_known_by_its_preamble_where_the_suffix_does_not_tell(tmp_path):
    write_tree(tmp_path, ["A/IM0001", "A/1.2.840.113", "A/DICOMDIR", "A/notes.txt"], content=bytes(128) + b"DICM rest")
    write_tree(tmp_path, ["A/README"], content=b"words")
    assert list(summary(open_source(tmp_path))) == ["A/1.2.840.113", "A/IM0001"]
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("IM0001", bytes(128) + b"DICM rest")
        archive.writestr("README", b"words")
    assert list(summary(open_source(tmp_path / "set.zip"))) == ["IM0001"]


def test_folder_links_are_followed_once(tmp_path):
    write_tree(tmp_path, ["elsewhere/1.png", "set/A/2.png"])
    (tmp_path / "set/B").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/A/loop").symlink_to(tmp_path / "set")
    assert sorted(entry.class_name for entry in open_source(tmp_path / "set").entries) == ["A", "B"]


def test_what_is_no_regular_file_is_an_error_of_that_file_alone(tmp_path):
    write_tree(tmp_path, ["A/1.png"])
    (tmp_path / "A/2.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "A/3.png")
    os.mkfifo(tmp_path / "A/4")
    source = open_source(tmp_path)
    read = list(read_entries(tmp_path, source.entries))
    assert [isinstance(data, bytes) for data in read] == [True, False, False]


@pytest.mark.parametrize(
    "member", ["/etc/passwd.png", "../up.png", "A/../../up.png", "A\\..\\..\\up.png", "C:\\up.png", "\\\\host\\up.png"]
)
def test_archive_with_a_path_outside_itself_is_refused(tmp_path, member):
    write_zip(tmp_path / "set.zip", ["A/1.png", "A/2.png"])
    with zipfile.ZipFile(tmp_path / "set.zip", "a") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = member
        archive.writestr(info, png())
    with pytest.raises(SamganError, match=r"was refused: its member .* is a path outside"):
        open_source(tmp_path / "set.zip")


def test_archive_with_a_symbolic_link_is_refused(tmp_path):
    write_zip(tmp_path / "set.zip", ["A/1.png"])
    with zipfile.ZipFile(tmp_path / "set.zip", "a") as archive:
        info = zipfile.ZipInfo("A/link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(SamganError, match="symbolic link"):
        open_source(tmp_path / "set.zip")


def test_archive_member_larger_than_the_limit_is_an_error_of_that_member(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAXIMUM_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A/bomb.png", bytes(10_000_000))
        archive.writestr("A/fine.png", png())
    source = open_source(tmp_path / "set.zip")
    bomb, fine = read_entries(source.path, source.entries)
    close_sources()
    assert isinstance(bomb, SamganError)
    assert fine == png()


def test_archive_that_lies_about_a_member_is_an_error_of_that_member(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAXIMUM_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A/bomb.png", bytes(5000))
    data = (tmp_path / "set.zip").read_bytes()
    true_size = (5000).to_bytes(4, "little")
    (tmp_path / "set.zip").write_bytes(data.replace(true_size, (900).to_bytes(4, "little")))
    source = open_source(tmp_path / "set.zip")
    assert source.entries[0].size == 900
    (read,) = read_entries(source.path, source.entries)
    close_sources()
    assert isinstance(read, Exception)


def test_damaged_archive_member_is_an_error_of_that_member(tmp_path):
    write_zip(tmp_path / "set.zip", ["A/1.png", "A/2.png"])
    data = bytearray((tmp_path / "set.zip").read_bytes())
    data[60] ^= 255  # inside the first member's content
    (tmp_path / "set.zip").write_bytes(data)
    source = open_source(tmp_path / "set.zip")
    first, second = read_entries(source.path, source.entries)
    close_sources()
    assert isinstance(first, zipfile.BadZipFile)
    assert second == png()


@pytest.mark.parametrize(
    ("compression", "offset", "error"),
    [(zipfile.ZIP_DEFLATED, 0, zlib.error), (zipfile.ZIP_LZMA, 9, lzma.LZMAError)],  # 9: behind LZMA's properties
)
def test_damage_in_compressed_data_is_an_error_of_that_member(tmp_path, compression, offset, error):
    with zipfile.ZipFile(tmp_path / "set.zip", "w", compression) as archive:
        for name in ("A/1.png", "A/2.png", "A/IM0003"):
            archive.writestr(name, png())
        damaged = [info.header_offset + 30 + len(info.filename) + offset for info in archive.infolist()[::2]]
    data = bytearray((tmp_path / "set.zip").read_bytes())
    for start in damaged:
        data[start : start + 8] = bytes(byte ^ 255 for byte in data[start : start + 8])
    (tmp_path / "set.zip").write_bytes(data)
    source = open_source(tmp_path / "set.zip")
    first, second = read_entries(source.path, source.entries)
    close_sources()
    assert isinstance(first, error)
    assert second == png()
    assert source.ignored == {"": 1}  # without a suffix, and with no start to be known by


def test_archive_member_of_an_odd_path_is_read(tmp_path):
    write_zip(tmp_path / "set.zip", ["./A//1.png", "B/2.png"])
    source = open_source(tmp_path / "set.zip")
    assert [entry.class_name for entry in source.entries] == ["A", "B"]
    assert list(read_entries(source.path, source.entries)) == [png(), png()]
    close_sources()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.zip", b"PK not really", "not a readable zip"),
        ("no.npz", b"PK not really", "not a readable .npz"),
        ("no.rar", b"Rar!", "expected a folder, a .zip, an .npz .*: unpack this .rar and give the folder"),
        ("set.tar.gz", b"\x1f\x8b", "unpack this .tar.gz and give the folder"),
        ("labels.csv", b"a,b", "this is a table: give the folder of its images, and the table with --labels"),
        ("labels.csv.gz", b"\x1f\x8b", "this is a table"),
        ("one.PNG", png(), "this is one image: give the folder that it lies in, or look at it with --explain"),
        ("notes.doc", b"x", "this is another kind of file"),
    ],
)
def test_damaged_and_unknown_sources_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SamganError, match=message):
        open_source(tmp_path / name)


def test_missing_and_empty_sources_are_refused(tmp_path):
    with pytest.raises(UsageError, match="expected a folder"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="there is no such file or folder"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(SamganError, match="no images found: it is empty"):
        open_source(tmp_path)
    write_tree(tmp_path / "JSRT", ["1.IMG", "2.IMG", "CLNDAT.txt", "more.zip"], b"x")
    found = r"no images found, but 2 .img, 1 .txt, 1 .zip \(.*: unpack the archives in it, or give one .zip itself$"
    with pytest.raises(SamganError, match=found):
        open_source(tmp_path / "JSRT")


def test_what_lies_beside_the_images_is_said(tmp_path):
    write_tree(tmp_path / "nih", ["images/1.png", "images/2.png", "Data_Entry.csv"])
    write_tree(tmp_path / "nih", ["images_02.tar.gz", "x.csv.gz"], b"\x1f\x8b")
    said = open_source(tmp_path / "nih").warnings
    assert said == (
        "all images are of one class, nih, since no folders name classes; a table in the source (1 .csv, 1 .csv.gz) "
        "may tell them: --labels FILE",
        "archives in the source are not read (1 .tar.gz): unpack them if they hold images of the set",
    )
    assert open_source(tmp_path / "nih", "none").warnings == said[1:]
    write_tree(tmp_path / "plain", ["A/1.png", "B/2.png", "labels.csv"])
    assert open_source(tmp_path / "plain").warnings == ()


def test_one_folder_in_all_classes_is_said(tmp_path):
    write_tree(tmp_path / "sites", ["site_A/NORMAL/1.png", "site_B/NORMAL/2.png"])
    (said,) = open_source(tmp_path / "sites").warnings
    assert said.startswith("every class, such as site_A, holds one folder, NORMAL, which is passed over")
    assert open_source(tmp_path / "sites", "none").warnings == ()
    for number, names in enumerate((["A/x/1", "B/2"], ["A/x/1", "B/y/2"], ["A/images/1", "B/images/2"], ["A/x/1"])):
        write_tree(tmp_path / str(number), [f"{name}.png" for name in names])
        assert open_source(tmp_path / str(number)).warnings == ()
    write_tree(tmp_path / "splits", ["A/train/1.png", "B/train/2.png", "A/test/1.png", "B/test/2.png"])
    assert open_source(tmp_path / "splits").warnings == ()


def test_labels_at_the_ends_of_file_names_are_noticed(tmp_path):
    write_tree(tmp_path / "Montgomery", ["CXR_png/MCUCXR_0001_0.png", "CXR_png/MCUCXR_0002_1.png"])
    (said,) = open_source(tmp_path / "Montgomery").warnings
    assert said.startswith("the names of all files end in 0 or 1, which may be their labels")
    write_tree(tmp_path / "views", ["a_0.png", "a_1.png", "b_0.png", "b_1.png"])  # two images of each patient
    write_tree(tmp_path / "same", ["a_0.png", "b_0.png"])
    assert open_source(tmp_path / "views").warnings == open_source(tmp_path / "same").warnings == ()


def test_pictures_of_a_viewer_among_dicom_files_are_said(tmp_path):
    write_tree(tmp_path / "media", ["D/1.dcm", "D/2.dcm"])
    assert open_source(tmp_path / "media", "none").warnings == ()
    write_tree(tmp_path / "media", ["VIEWER/logo.png"])
    (said,) = open_source(tmp_path / "media", "none").warnings
    assert said.startswith("1 of 3 images, such as VIEWER/logo.png, are no DICOM files")


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_without_a_suffix_are_said(tmp_path, packed):
    names = ["A/1.png", "B/2.png", "B/3", "B/4.bin", "B/5.txt"]
    write_tree(tmp_path / "set", names)
    write_zip(tmp_path / "set.zip", names)
    source = open_source(tmp_path / ("set.zip" if packed else "set"))
    (said,) = source.warnings
    assert said.startswith("2 file(s), such as B/3, begin like a PNG or JPEG but are not named like one")
    assert (len(source.entries), source.ignored) == (2, {"": 1, ".bin": 1, ".txt": 1})


def test_spaces_behind_a_suffix_do_not_hide_an_image(tmp_path):
    write_tree(tmp_path / "set", ["A/1.png ", "A/2.png", "B/3.JPG "])
    assert len(open_source(tmp_path / "set").entries) == 3


def test_npz_keeps_its_splits_and_names_pneumoniamnist_classes(tmp_path):
    arrays = write_npz(tmp_path / "pneumoniamnist_64.npz", train=4, val=2, test=3)
    source = open_source(tmp_path / "pneumoniamnist_64.npz")
    found = summary(source)
    assert len(found) == 9
    assert found["train/0000001"] == ("pneumonia", "train")
    assert found["val/0000000"] == ("normal", "holdout")
    assert found["test/0000002"] == ("normal", "holdout")
    for entry, image in zip(source.entries, read_entries(source.path, source.entries), strict=True):
        split, index = entry.path.split("/")
        np.testing.assert_array_equal(image, arrays[f"{split}_images"][int(index)])
    close_sources()


def test_npz_of_several_labels_per_image_has_two_classes(tmp_path):
    labels = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 0]])
    images = np.zeros((3, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "chest.npz", train_images=images, train_labels=labels)
    source = open_source(tmp_path / "chest.npz")
    assert [entry.class_name for entry in source.entries] == ["no_finding", "finding", "finding"]
    assert {entry.split for entry in source.entries} == {""}
    close_sources()


def test_npz_with_pickles_or_other_arrays_is_refused(tmp_path):
    trap = np.array([Trap(tmp_path / "sprung")])
    np.savez(tmp_path / "pickle.npz", train_images=trap, train_labels=np.array([1]))
    np.savez(tmp_path / "labels.npz", train_images=np.zeros((1, 8, 8), np.uint8), train_labels=trap)
    for name in ("pickle", "labels"):
        with pytest.raises(SamganError, match="save it without pickled objects"):
            open_source(tmp_path / f"{name}.npz")
    assert not (tmp_path / "sprung").exists()
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(SamganError, match=r"expected arrays .*found \['x'\]"):
        open_source(tmp_path / "other.npz")
    close_sources()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


PICTURES = np.zeros((3, 8, 8), dtype=np.uint8)


def test_npz_that_is_empty_is_called_so(tmp_path):
    np.savez(tmp_path / "none.npz", train_images=np.zeros((0, 8, 8), np.uint8), train_labels=np.zeros(0, int))
    with pytest.raises(SamganError, match=r"none.npz: expected images, found arrays that hold none: choose another"):
        open_source(tmp_path / "none.npz")


def test_npz_of_zeros_that_would_fill_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    write_npz(tmp_path / "set.npz", train=4, test=2)
    zeros = np.zeros((400, 64, 64), np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", train_images=zeros, train_labels=np.zeros(400, int))
    monkeypatch.setattr("samgan.data.sources.HARMLESS_ARRAY_BYTES", 2**10)
    assert len(open_source(tmp_path / "set.npz").entries) == 6
    monkeypatch.setattr("samgan.data.sources._load_array", None)
    words = r"bomb.npz: expected arrays .* 100 times the size .*: save the images as PNG"
    with pytest.raises(SamganError, match=words):
        open_source(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (PICTURES, np.zeros(2, int), "3 train_images but 2 train_labels"),
        (PICTURES, np.zeros(3), r"expected train_labels of integers .* found float64 \[3\]"),
        (PICTURES, np.array(["a", "b", "c"]), "expected train_labels of integers .* found <U1"),
        (PICTURES, np.zeros((3, 1, 1), int), "expected train_labels"),
        (PICTURES, np.zeros((3, 0), int), "expected train_labels"),
        (PICTURES, np.array(1), "expected train_labels"),
        (PICTURES / 255, np.zeros(3, int), r"expected train_images of uint8 or uint16 .* found float64 \[3, 8, 8\]"),
        (PICTURES.astype(np.int16), np.zeros(3, int), "expected train_images"),
        (PICTURES.astype(np.uint32), np.zeros(3, int), "expected train_images"),
        (PICTURES[0], np.zeros(8, int), "expected train_images"),
        (np.array(1, np.uint8), np.zeros(8, int), "expected train_images"),
        (np.zeros((3, 8, 8, 8), np.uint8), np.zeros(3, int), "expected train_images"),
    ],
)
def test_npz_of_other_types_and_shapes_is_refused(tmp_path, images, labels, message):
    np.savez(tmp_path / "odd.npz", train_images=images, train_labels=labels)
    with pytest.raises(SamganError, match=message) as caught:
        open_source(tmp_path / "odd.npz")
    assert "\n" not in str(caught.value)
    close_sources()


def with_member(path, content):
    """Put `content` where the images are."""
    with zipfile.ZipFile(path) as archive:
        labels = archive.read("train_labels.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_labels.npy", labels)
        archive.writestr("train_images.npy", content)


def flip(path, start, count=8):
    data = bytearray(path.read_bytes())
    data[start : start + count] = bytes(byte ^ 255 for byte in data[start : start + count])
    path.write_bytes(data)


HEADER = b"\x93NUMPY\x01\x00\x08\x00"
NPZ_DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "compressed data": lambda path: flip(path, 100),
    "no array": lambda path: with_member(path, b"words"),
    "half a header": lambda path: with_member(path, HEADER + b"{'a': (\n"),
    "cut array": lambda path: with_member(path, HEADER + b"{'descr'"),
    "empty": lambda path: with_member(path, b""),
}


@pytest.mark.parametrize("name", NPZ_DAMAGES)
def test_damaged_npz_is_refused_in_one_line(tmp_path, name):
    arrays = write_npz(tmp_path / "set.npz", train=4, test=2)
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    NPZ_DAMAGES[name](tmp_path / "set.npz")
    with pytest.raises(SamganError, match=r"set\.npz: ") as caught:
        open_source(tmp_path / "set.npz")
    assert "\n" not in str(caught.value)
    close_sources()


def test_medmnist_is_fetched_with_its_checksum(tmp_path, monkeypatch):
    asked = {}

    def retrieve(url, **options):
        asked.update(url=url, **options)
        write_npz(tmp_path / options["fname"], train=4, test=2)
        return str(tmp_path / options["fname"])

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    source = open_source("medmnist:pneumoniamnist")
    assert source.name == "medmnist:pneumoniamnist"
    assert len(source.entries) == 6
    assert asked["url"] == "https://zenodo.org/records/10519652/files/pneumoniamnist_64.npz?download=1"
    assert asked["known_hash"] == "md5:8f4eceb4ccffa70c672198ea285246c6"
    close_sources()


def test_medmnist_without_network_is_one_clear_line(monkeypatch):
    def retrieve(url, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(SamganError, match=r"cannot be downloaded.*give its path") as caught:
        open_source("medmnist:chestmnist")
    assert "\n" not in str(caught.value)


def test_unknown_medmnist_set_is_refused_and_the_known_are_named():
    with pytest.raises(UsageError, match="expected one of pneumoniamnist, chestmnist"):
        open_source("medmnist:bloodmnist")


def test_each_thread_opens_the_archive_for_itself(tmp_path, monkeypatch):
    write_zip(tmp_path / "set.zip", ["A/1.png", "B/2.png"])
    source = open_source(tmp_path / "set.zip")
    archives = []
    monkeypatch.setattr(sources, "_read_member", lambda archive, name: archives.append(archive) or b"")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(list, read_entries(source.path, source.entries)).result()
    list(read_entries(source.path, source.entries))
    assert archives[0] is archives[1]
    assert archives[1] is not archives[-1]
    close_sources()


def test_the_same_place_is_the_same_source_whatever_its_content(tmp_path, monkeypatch):
    write_tree(tmp_path, ["h1/train/A/1.png", "h2/train/A/1.png"])
    first, second = (open_source(tmp_path / name / "train") for name in ("h1", "h2"))
    assert first.name == second.name
    assert first.id != second.id
    write_tree(tmp_path, ["h1/train/A/2.png"])
    monkeypatch.chdir(tmp_path / "h1")
    assert open_source("train").id == first.id
