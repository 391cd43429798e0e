"""What the names of folders say: train or test, masks, patients, or nothing but that images are inside."""

import functools
import os
import re
import unicodedata
from collections.abc import Collection

TRAIN_WORDS = ("train", "training", "trainval", "trn")
VALIDATION_WORDS = ("val", "valid", "validation", "validate", "dev", "devel", "eval", "evaluation")
TEST_WORDS = ("test", "tests", "testing", "tst", "holdout", "heldout")
SPLITS = dict.fromkeys(TRAIN_WORDS, "train") | dict.fromkeys((*VALIDATION_WORDS, *TEST_WORDS), "holdout")
SPLIT_FILLERS = {"set", "sets", "data", "dataset", "split", "splits", "folder", "part", "the", "final", "internal"}
SPLIT_FILLERS |= {"external", "image", "images", "img", "imgs", "file", "files", "png", "jpg", "jpeg", "dicom", "dcm"}
SPLIT_FILLERS |= {"chest", "xray", "xrays", "x", "ray", "rays", "cxr", "scans", "stage", "phase"}
"""Words that may stand beside a split's word: test_set, stage_2_train_images."""
PLAIN_WORDS = {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "file", "files", "data"}
PLAIN_WORDS |= {
    "dataset",
    "png",
    "pngs",
    "jpg",
    "jpgs",
    "jpeg",
    "jpegs",
    "tif",
    "tiff",
    "dicom",
    "dicoms",
    "dcm",
    "all",
}
PLAIN_WORDS |= {"chest", "xray", "xrays", "x", "ray", "rays", "cxr", "cxrs", "radiograph", "radiographs"}
MASK_WORDS = ("segmentation", "segmentations")
MASK_WORDS_BESIDE_IMAGES = ("seg", "segs", "label", "labels", "annotation", "annotations", "gt", "truth", "groundtruth")
NEGATIONS = {"no", "non", "not", "with", "without"}
PERSON = re.compile(
    r"(?:anon[a-z]*|patients?|pat|pt|px|subjects?|subj|sub|persons?|cases?|p|pa|id|pid|mrn)[ _.-]*\d+[a-z]?|"
    r"sub-(?:[a-z]{0,2}\d+|[a-z]+\d{2,})"  # BIDS; BIMCV-COVID19 has sub-S03047
)
IDENTIFIER = re.compile(
    r"\d{5,}|\d+(?:\.\d+){3,}|(?=.*\d)[0-9a-f]{12,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]+|"  # numbers, UIDs, hashes
    r"[a-z]{1,8}\d{4,}|(?:[a-z0-9]+[ _-])*[a-z]+[ _-]\d{3,}"  # CXR0001, LIDC-IDRI-0001
)
STUDY = re.compile(
    r"(?:s|st|study|studies|ser|series|se|exam|visit|view|ses|session|acc|accession|scan|slice)[ _.-]*\d+|"
    r"(?:19|20)\d\d(?:[ _.-]?[01]\d(?:[ _.-]?[0-3]\d)?)?"  # the date of one
)
NOT_A_PERSON = re.compile(
    STUDY.pattern + r"|(?:img|image|class|label|grade|stage|category|type|level|fold|batch|part|version|v)[ _.-]*\d+"
)


@functools.lru_cache(maxsize=4096)  # 100,000 images lie in few folders
def words_of(name: str) -> tuple[str, ...]:
    """The words and numbers of a name, in lower case: ManualMask_2 gives manual, mask, 2."""
    return tuple(re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


@functools.lru_cache(maxsize=4096)
def split_of(name: str) -> str:
    """The split that a folder's whole name stands for: "train", "holdout", or empty."""
    words = [word for word in words_of(name) if word not in SPLIT_FILLERS and not word.isdigit()]
    whole = "".join(words)  # hold-out
    if len(words) == 1:
        whole = re.sub(r"(?:set|data|images?|imgs?)$", "", whole) or whole  # trainset
    return SPLITS.get(whole, "")


def split_and_rest(name: str) -> tuple[str, str]:
    """The split of which a folder's name has one word, and the rest: train_NORMAL, NORMAL-test, trainA, TB_val_1.

    Returns:
        Split and rest; an empty split and the name if there are no such words or several, or nothing else.
    """
    pieces = re.split(r"([\s_.-]+|(?<=[a-z])(?=[A-Z]))", name)  # at even places words, at odd places what is between
    places = [place for place in range(0, len(pieces), 2) if pieces[place].lower() in SPLITS]
    if len(places) != 1:
        return "", name
    place = places[0]
    before, after = "".join(pieces[: max(0, place - 1)]), "".join(pieces[place + 2 :])
    rest = before + (pieces[place - 1] if before and after else "") + after
    return (SPLITS[pieces[place].lower()], rest) if rest else ("", name)


def is_plain(name: str) -> bool:
    """Whether a name says only that images are inside: images, img_2, CXR_png."""
    words = words_of(name)
    return any(word in PLAIN_WORDS and len(word) > 1 for word in words) and all(
        word in PLAIN_WORDS or (word.isdigit() and len(word) < 4) for word in words
    )


def is_mask(name: str, beside: Collection[str] = ()) -> bool:
    """Whether a folder holds masks of organs or findings, and no radiographs.

    Args:
        name: of the folder.
        beside: names of the folders beside it. Beside "images", a folder "labels" holds masks.
    """
    words = [word for word in words_of(name) if not word.isdigit()]
    is_named = bool(words) and (words[-1] in MASK_WORDS or any(word.endswith(("mask", "masks")) for word in words))
    may_be = bool(words) and words[-1] in MASK_WORDS_BESIDE_IMAGES
    if not is_named and not may_be:
        return False
    if any(NEGATIONS & set(words_of(other)) for other in (name, *beside)):  # with_mask, without_mask
        return False
    return is_named or any(map(is_plain, beside))


def mask_of(stem: str) -> str:
    """The name of the image that a file is the mask of, by its name without suffix: 1_mask gives 1; else empty."""
    if NEGATIONS & set(words_of(stem)):
        return ""
    return next((stem.removesuffix(end) for end in ("_mask", "-mask", "_masks", "_seg") if stem.endswith(end)), "")


def are_patients(names: Collection[str]) -> bool:
    """Whether folders of these names are patients: nearly all look like IDs of one kind."""
    lower = [name.lower() for name in names]
    told = [name for name in lower if PERSON.fullmatch(name)]
    if not told:
        told = [name for name in lower if IDENTIFIER.fullmatch(name) and not NOT_A_PERSON.fullmatch(name)]
        letters = {re.sub(r"\d+", "", name) for name in told}
        if len(letters) > 1 and not all(re.fullmatch(r"[0-9a-f-]{12,}", name) for name in told):
            return False  # COVID2019 and SARS2003 are two classes
    return len(told) > 1 and len(told) >= 0.9 * len(lower)


def says_person(name: str) -> bool:
    """Whether a name says itself that it is a person's: patient0001, sub-01; a bare number may be an examination's."""
    return PERSON.fullmatch(name.lower()) is not None


def spelled(name: str) -> str:
    """A name without what differs when one thing is written in two ways: Lung Opacity, lung_opacity, its copy (2)."""
    without_copy = re.sub(r"\bcopy of\b|[ _-]+(?:copy|kopie)\b|\(\d+\)$", " ", plain_class_name(name).casefold())
    return " ".join(re.split(r"[\s_-]+", without_copy)).strip()


def are_studies(names: Collection[str]) -> bool:
    """Whether folders of these names are the studies or series of patients."""
    return all(STUDY.fullmatch(name.lower()) for name in names)


@functools.lru_cache(maxsize=4096)
def plain_class_name(name: str) -> str:
    r"""A folder's name as the name of a class: in NFC, with control characters and bytes that are not UTF-8 as in URLs.

    A class's name goes into PNG, DICOM, JSON, HTML and onto the terminal. caf\xe9 becomes caf%E9.
    """
    characters = []
    for character in unicodedata.normalize("NFC", name):
        if character.isprintable() or unicodedata.category(character) == "Zs":
            characters.append(character)
        else:
            characters += [f"%{byte:02X}" for byte in os.fsencode(character)]
    return "".join(characters)
