"""What folders mean: classes, splits, patients, masks; and what is refused because it looks like something else."""

import io
import unicodedata
import zipfile
from collections import Counter
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samgan.data.sources import open_source
from samgan.data.sources.folder_names import are_patients, is_mask, is_plain, plain_class_name, split_and_rest, split_of
from samgan.data.sources.layout import arrange
from samgan.data.sources.listing import Found
from samgan.errors import SamganError


def tree(*folders):
    """Files of folders; "A/B:3" is three files in A/B, and A/B.png one file."""
    files = []
    for folder in folders:
        if folder.endswith(".png"):
            files.append(Found(folder, PurePosixPath(folder).parts, 100 + len(files), 0))
            continue
        path, _, count = folder.partition(":")
        names = [f"{path}/{number}.png".lstrip("/") for number in range(int(count or 6))]
        files += [Found(name, PurePosixPath(name).parts, 100 + len(files), 0) for name in names]
    return files


def arranged(files, asked=None, is_same=lambda left, right: False):
    return arrange(files, "set", asked, is_same)


def counts(layout):
    """Number of images by class and split."""
    return dict(Counter((entry.class_name, entry.split) for entry in layout.entries))


BOTH = {("A", "train"): 6, ("A", "holdout"): 6, ("B", "train"): 6, ("B", "holdout"): 6}
ONE = {("set", ""): 6}
TWO = {("A", ""): 6, ("B", ""): 6}

SILENT = {
    "flat": ([""], ONE),
    "classes": (["A", "B"], TWO),
    "one class": (["A"], {("A", ""): 6}),
    "folders in classes": (["A/2019", "A/2020", "B"], {("A", ""): 12, ("B", ""): 6}),
    "split, class": (["train/A", "train/B", "test/A", "test/B"], BOTH),
    "class, split": (["A/train", "A/test", "B/train", "B/test"], BOTH),
    "class, images": (["A/images", "B/images"], TWO),
    "class, images, split": (["A/images/train", "A/images/val", "B/images/train", "B/images/val"], BOTH),
    "images, split, class": (["images/train/A", "images/train/B", "images/val/A", "images/val/B"], BOTH),
    "images in parts": (["images_001/images", "images_002/images"], {("set", ""): 12}),
    "wrapped": (["set-1.0/data/A", "set-1.0/data/B"], TWO),
    "wrapped in splits": (["x_train/A", "x_train/B", "x_test/A", "x_test/B"], BOTH),
    "wrapped once in each split": (["Train/all/A", "Train/all/B", "TEST/all/A", "TEST/all/B"], BOTH),
    "splits without classes": (["train_images", "test_images"], {("set", "train"): 6, ("set", "holdout"): 6}),
    "splits with numbers": (
        ["stage_2_train_images", "stage_2_test_images"],
        {("set", "train"): 6, ("set", "holdout"): 6},
    ),
    "split in a class's name": (["train_A", "train_B", "A-test", "B-test"], BOTH),
    "split before a capital": (["trainA", "trainB", "testA", "testB"], BOTH),
    "test in a class's name": (
        ["PCR_test_positive", "PCR_test_negative"],
        {("PCR_test_positive", ""): 6, ("PCR_test_negative", ""): 6},
    ),
    "numbers as classes": (["0", "1", "2"], {("0", ""): 6, ("1", ""): 6, ("2", ""): 6}),
    "masks with and without are classes": (
        ["with_mask", "without_mask"],
        {("with_mask", ""): 6, ("without_mask", ""): 6},
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_common_layout_is_taken_without_a_word(name):
    folders, expected = SILENT[name]
    layout = arranged(tree(*folders))
    assert counts(layout) == expected
    assert (layout.unused, layout.warnings) == ([], [])


WORDS = "dev eval evaluation val VALID validation test Testing holdout hold-out test-set test_images images_test valset"


@pytest.mark.parametrize("word", [*WORDS.split(), "TestImages", "test 1", "held_out", "Validation Set"])
def test_each_word_of_a_split_beside_train(word):
    assert counts(arranged(tree("train/A", "train/B", f"{word}/A", f"{word}/B"))) == BOTH


@pytest.mark.parametrize("name", ["TRUE", "latest", "evaluated", "contest", "valvular", "devices", "trained", "NORMAL"])
def test_other_names_are_no_splits(name):
    assert split_of(name) == ""
    assert split_and_rest(name) == ("", name)


LEFT_OUT = {
    "a montage beside the splits": (["train/A", "train/B", "test/A", "test/B", ":1"], BOTH, 1, "beside the folders"),
    "an overview beside the classes": (["A", "B", ":2"], TWO, 2, "beside the folders"),
    "one beside the wrapper, one inside": (["x/A", "x/B", "x:1", ":1"], TWO, 2, "beside the folders"),
    "one beside splits in a class": (["A/train", "A/test", "A:1", "B/train", "B/test"], BOTH, 1, "folders of splits"),
    "masks beside images": (["images", "masks"], ONE, 6, "masks, a folder of masks"),
    "masks in each class": (["A/images", "A/masks", "B/images", "B/masks"], TWO, 12, "folder of masks"),
    "masks of two lungs": (["CXR_png", "ManualMask/leftMask", "ManualMask/rightMask"], ONE, 12, "ManualMask"),
    "masks in each split": (
        ["train/images", "train/labels", "test/images", "test/labels"],
        {("set", "train"): 6, ("set", "holdout"): 6},
        12,
        "labels, a folder of masks",
    ),
    "masks of infections": (["A/images", "A/infection masks", "B/images"], TWO, 6, "infection masks"),
    "segmentations": (["A", "B", "lung_segmentations"], TWO, 6, "lung_segmentations"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_has_no_class_is_left_out_by_name(name):
    folders, expected, number, reason = LEFT_OUT[name]
    layout = arranged(tree(*folders))
    assert counts(layout) == expected
    assert len(layout.unused) == number
    assert all(reason in file.reason for file in layout.unused)
    assert {file.source for file in layout.unused}.isdisjoint(entry.path for entry in layout.entries)


def test_masks_in_the_folder_of_their_images_are_left_out():
    files = [Found(f"A/{name}.png", ("A", f"{name}.png"), 9, 9) for name in ("1", "1_mask", "2", "2-mask", "3_mask")]
    layout = arranged(files)
    assert [file.source for file in layout.unused] == ["A/1_mask.png", "A/2-mask.png"]
    assert counts(layout) == {("A", ""): 3}


COPIES = {
    "splits": ["train/A", "train/B", "test/A", "test/B"],
    "classes": ["A", "B"],
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("wrapper", ["", "set/"])
def test_a_copy_of_the_whole_set_inside_it_is_left_out(name, wrapper):
    folders = COPIES[name]
    every = [f"{wrapper}{copy}{folder}" for copy in ("", "set/", "set/set/") for folder in folders]
    seen = []
    layout = arranged(tree(*every), is_same=lambda left, right: seen.append((left, right)) or True)
    assert counts(layout) == (BOTH if name == "splits" else TWO)
    assert len(layout.unused) == 2 * 6 * len(folders)
    assert all("a copy of what is beside it" in file.reason for file in layout.unused)
    assert all(left.parts[-2:] == right.parts[-2:] for left, right in seen)
    with pytest.raises(SamganError, match="FOLDERS MAY NOT BE CLASSES"):  # the same names, but other images
        arranged(tree(*every))


REFUSED = {
    "patients": ([f"patient{n:05}/study1:1" for n in range(9)], "look like patients"),
    "patients in a split": ([f"train/patient{n:05}/study1:1" for n in range(9)], "patient00000"),
    "MIMIC": (["files/p10/p10000032/s50414267:2", "files/p11/p11000011/s51029426:2"], "p10, p11 look like patients"),
    "a PACS export": ([f"PAT{n}:20" for n in range(4)], "PAT0, PAT1"),
    "DICOM media": (["DICOM/PA000000/ST0/SE0", "DICOM/PA000001/ST0/SE0"], "PA000000"),
    "studies of one patient": (["patient1/study1", "patient1/study2"], "study1, study2"),
    "UIDs": (["1.2.840.113.1", "1.2.840.113.2"], "look like patients"),
    "IDs": (["LIDC-IDRI-0001", "LIDC-IDRI-0002"], "look like patients"),
    "hashes": (["0a1b2c3d4e5f6a7b", "b7a6f5e4d3c2b1a0"], "look like patients"),
    "names of persons": ([f"{name}^JOHN:2" for name in "ABCDEFGHIJ"], "10 of 10 classes.* 5 images or fewer"),
    "too many classes": ([f"{first}{second}" for first in "abcdefgh" for second in "stuvwxy"], "56 classes"),
    "a small folder": (["A:100", "B:100", "examples:3"], "examples would have 3 image"),
    "a split beside classes": (["A", "B", "test"], "A, B would become a class, beside test, named like splits"),
    "splits and something else": (["train/A", "test/A", "extra/A"], "extra would become a class, beside test, train"),
    "split in one name": (["A", "B", "A_test"], "A_test is named like a split"),
    "splits of other classes": (["train_A", "test_B"], "test_B is named like a split"),
    "splits in some classes": (["A/train", "A/test", "B"], "A has folders like test, train, but not B"),
    "images without a class in a split": (["train/A", "train/B", "test"], "6 images, such as test/0.png"),
    "many images above": ([":50", "A:50", "B:50"], "50 images, such as 0.png"),
    "many above splits": (["A/train", "A/test", "A:30", "B/train", "B/test"], "30 images, such as A/0.png"),
    "only masks": (["masks/left", "masks/right", "mask"], "all images lie in folders of masks"),
    "files named like masks": (
        ["A/1_mask.png", "A/2_mask.png"],
        "all files, such as A/1_mask.png, are named like masks",
    ),
    "masks alone": (["masks"], "masks is named like masks"),
    "images beside classes": (["images:50", "A:50", "B:50"], "images is named like any folder of images"),
    "two levels": (["x/A", "x/B", "y/A", "y/B"], "A, B lie in each of x, y"),
    "years": (["A/2019", "A/2020"], "2019, 2020 look like patients, studies"),
    "a copy of other images": (["A", "A - Copy", "B (2)"], "A, A - Copy differ only in how"),
    "one class twice": (["train/Lung Opacity", "train/B", "test/lung_opacity", "test/B"], "differ only in how"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_looks_like_something_else_is_refused_in_one_line(name):
    folders, words = REFUSED[name]
    with pytest.raises(SamganError, match=words) as caught:
        arranged(tree(*folders))
    message = str(caught.value)
    assert message.startswith("set: THE FOLDERS MAY NOT BE CLASSES: ")
    assert all(f"{each} (" in message for each in ("--classes-from folder", "--classes-from none", "--labels TABLE"))
    assert "\n" not in message


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_refused_goes_on_where_the_user_says_so(name):
    files = tree(*REFUSED[name][0])
    for asked in ("none", "labels"):
        layout = arranged(files, asked)
        assert {entry.class_name for entry in layout.entries} == {"set"}
        assert len(layout.entries) + len(layout.unused) == len(files)
    layout = arranged(files, "folder")
    assert {entry.class_name for entry in layout.entries} <= {part for file in files for part in file.parts} | {
        "A",
        "B",
    }
    assert len(layout.entries) + len(layout.unused) == len(files)


def test_folders_are_classes_where_the_user_says_so():
    layout = arranged(tree("masks", "images", "test"), "folder")
    assert counts(layout) == {("masks", ""): 6, ("images", ""): 6, ("test", ""): 6}
    assert layout.unused == []


PATIENTS = {
    "CheXpert": ([f"patient{n:05}/study{s}:2" for n in range(9) for s in (1, 2)], 0),
    "MIMIC": (["p10/p10000032/s1", "p10/p10000048/s2", "p11/p11000011/s3"], 1),
    "MIMIC with images": (["files/p10/p10000032/s1", "files/p10/p10000048/s2", "files/p11/p11000011/s3"], 2),
    "BIDS": (["sub-01/ses-01", "sub-02/ses-01/anat"], 0),
    "BIMCV-COVID19": (["sub-S03047/ses-E07985/mod-rx", "sub-S03048/ses-E07986/mod-rx"], 0),
    "in classes": (["A/case_01", "A/case_02", "B/case_03"], 1),
    "in splits and classes": (["train/A/P1", "train/A/P2", "test/A/P3"], 2),
}


@pytest.mark.parametrize("name", PATIENTS)
def test_folders_tell_the_patients(name):
    folders, level = PATIENTS[name]
    layout = arranged(tree(*folders), "none")
    assert [entry.patient for entry in layout.entries] == [entry.path.split("/")[level] for entry in layout.entries]


def test_other_folders_tell_no_patients():
    for folders in (
        ["A/2019", "A/2020", "B"],
        ["A/1", "A/2", "B/1"],
        ["A/view1", "A/view2"],
        ["COVID2019", "SARS2003"],
    ):
        assert {entry.patient for entry in arranged(tree(*folders), "folder").entries} == {""}


@pytest.mark.parametrize("folders", [["train/A", "train/B"], ["test/A", "val/B"]])
def test_a_split_alone_is_said_and_not_used(folders):
    layout = arranged(tree(*folders))
    assert {entry.class_name for entry in layout.entries} == {"A", "B"}
    (warning,) = layout.warnings
    assert "its own split is not used" in warning


def test_a_class_without_training_images_is_said():
    (warning,) = arranged(tree("train/A", "test/A", "test/B")).warnings
    assert warning == "the source has no training images of B"


@pytest.mark.parametrize(
    ("says", "yes", "no"),
    [
        (is_mask, ["leftMask", "lung masks", "segmentations", "masks_2"], ["masked", "labels", "no_mask", "2"]),
        (lambda name: is_mask(name, ["images", name]), ["labels", "GroundTruth", "seg"], ["images", "A"]),
        (is_plain, ["CXR_png", "images_012", "X-Ray"], ["images of A", "12", "CXR1234", "lungs"]),
        (lambda name: are_patients([name + "1", name + "2"]), ["P", "Case ", "CXR000"], ["grade", "study", "COVID-"]),
    ],
)
def test_names_say_what_they_say(says, yes, no):
    assert [says(name) for name in yes] == [True] * len(yes)
    assert [says(name) for name in no] == [False] * len(no)


def test_class_names_are_safe_everywhere():
    assert plain_class_name("caf\udce9") == "caf%E9"
    assert plain_class_name("a\x1b[31m\u202eb") == "a%1B[31m%E2%80%AEb"
    assert plain_class_name(unicodedata.normalize("NFD", "Größe\u3000大")) == "Größe\u3000大"
    layout = arranged([Found(name, tuple(name.split("/")), 1, 1) for name in ("caf\udce9/1.png", "B/1.png")])
    assert "caf\\xe9 becomes the class caf%E9" in layout.warnings[0]
    both = [Found(name, tuple(name.split("/")), 1, 1) for name in ("caf\udce9/1.png", "caf%E9/1.png")]
    with pytest.raises(SamganError, match="two folders would become the class caf%E9"):
        arranged(both, "folder")


# the same tree as a folder and as an archive

CLASS_NAMES = st.sampled_from(["NORMAL", "PNEUMONIA", "Größe", "ßx", "a b"])
SHAPES = ("{c}", "{s}/{c}", "{c}/{s}", "{c}/images", "{s}/{c}/images", "{s}_{c}", "{c}/{p}")
JUNK = ("__MACOSX/{f}/._1.png", "{f}/.DS_Store", "{f}/@eaDir/1.png/THUMB.jpg", "{f}/Thumbs.db", "$RECYCLE.BIN/1.png")
PIXELS = io.BytesIO()
Image.new("L", (8, 8), 100).save(PIXELS, "PNG")


@st.composite
def layouts(draw):
    """Paths of one set's images, and what is right for each."""
    shape = draw(st.sampled_from(SHAPES))
    right = {}
    for name in draw(st.lists(CLASS_NAMES, min_size=2 if "{p}" in shape else 1, unique=True)):
        for split in ("train", "Test") if "{s}" in shape else ("",):
            for number in range(draw(st.integers(2, 4))):
                patient = f"patient{len(right):04}" if "{p}" in shape else ""
                path = f"{shape.format(c=name, s=split, p=patient)}/{number}.png"
                right[path] = (name, {"train": "train", "Test": "holdout", "": ""}[split], patient)
    return right


def forget_utf8(path):
    """Clear the flag that says that names are UTF-8, as macOS leaves it."""
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(signature)
        while start >= 0:
            data[start + flags + 1] &= ~0x08
            start = data.find(signature, start + 1)
    path.write_bytes(data)


@settings(max_examples=40, deadline=None)
@given(
    right=layouts(),
    wrappers=st.lists(st.sampled_from(["set", "export 1", "chest_xray", "images"]), max_size=2),
    junk=st.lists(st.sampled_from(JUNK), max_size=3, unique=True),
    form=st.sampled_from(["NFC", "NFD"]),
    separator=st.sampled_from(["/", "\\", "//"]),
    flag=st.booleans(),
)
def test_a_folder_and_an_archive_of_it_are_the_same_set(tmp_path_factory, right, wrappers, junk, form, separator, flag):
    root = tmp_path_factory.mktemp("tree")
    top = "".join(f"{wrapper}/" for wrapper in wrappers)
    right = {unicodedata.normalize(form, f"{top}{path}"): what for path, what in right.items()}
    folder_of_junk = next(iter(right)).rpartition("/")[0]
    names = [*right, *(name.format(f=folder_of_junk) for name in junk)]
    (root / "set").mkdir()
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for name in names:
            path = root / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PIXELS.getvalue())
            info = zipfile.ZipInfo("x")
            info.filename = name.replace("/", separator)
            archive.writestr(info, PIXELS.getvalue())
    if not flag:
        forget_utf8(root / "set.zip")
    for source in (open_source(root / "set"), open_source(root / "set.zip")):
        found = {}
        for entry in source.entries:
            path = entry.path
            if not flag and source.path.suffix == ".zip":  # Python shows the bytes as code page 437
                path = path.encode("cp437").decode()
            found[path.replace("\\", "/").replace("//", "/")] = (entry.class_name, entry.split, entry.patient)
        assert found == right
