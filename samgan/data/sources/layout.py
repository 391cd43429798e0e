"""What the folders of a source mean: classes, splits and patients; and what looks as if it meant something else."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from samgan.data.documents import BadFile
from samgan.data.sources.folder_names import (
    are_patients,
    are_studies,
    is_mask,
    is_plain,
    mask_of,
    plain_class_name,
    spelled,
    split_and_rest,
    split_of,
)
from samgan.data.sources.listing import Found
from samgan.errors import SamganError, shown

FEW = 5
"""So many images, or 2 % of all, may lie beside the folders and be left out; of so few no class is made unasked."""
MANY_CLASSES = 50
SMALL_CLASSES = 8
"""From so many classes of `FEW` images or fewer, they are taken for something else."""
BIG_CLASS = 50
"""Beside a class of so many images, one of `FEW` or fewer is taken for something else."""
DEEPEST_PATIENT = 4
"""So many levels of folders, from the classes down, are looked at for patients."""
NAMED = 3
"""Names of folders in a message."""

SameFile = Callable[[Found, Found], bool]


class Entry(NamedTuple):
    """One image in a source, before it is read."""

    path: str
    """Relative to the source, as it is stored there."""
    size: int
    version: int
    """Modification time in ns; the CRC of a zip member."""
    class_name: str
    split: str
    """"train" or "holdout" if the source itself says so; otherwise empty."""
    patient: str = ""
    """Whom the image shows, if a folder tells it."""
    view: str = ""
    """Such as PA or AP, if a table tells it."""
    patient_in_table: str = ""
    """Whom the image shows, if a table tells it: a SHA-256 hash of the table's ID."""


class Place(NamedTuple):
    """One image file, and those of its folders whose meaning is not known yet."""

    file: Found
    folders: tuple[str, ...]
    split: str = ""

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return os.path.splitext(self.file.parts[-1])[0]


@dataclass
class Layout:
    """What the folders mean, as far as it is known."""

    source: str
    """Of which one class is made if folders tell none."""
    places: list[Place]
    asked: str | None
    """One of `CLASSES_FROM`, or None: decide."""
    entries: list[Entry] = field(default_factory=list)
    unused: list[BadFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    suspicions: list[str] = field(default_factory=list)
    """What was seen and what it would mean; nothing is prepared with one of these unless `asked` is given."""

    def leave_out(self, places: Sequence[Place], reason: str) -> None:
        """Take these images out, each by name."""
        out = {place.file.path for place in places}
        self.places = [place for place in self.places if place.file.path not in out]
        self.unused += [BadFile(place.file.path, reason) for place in places]


def arrange(files: Sequence[Found], source: str, asked: str | None, is_same: SameFile) -> Layout:
    """Give every image its class, its split and its patient by the folders it lies in.

    Folders that hold everything, and folders such as "images", have no meaning. Folders such as train and test are
    splits, above the classes, below them or in one name with them. Masks, copies of the whole set, and a few images
    beside the folders are left out.

    Args:
        files: of the source.
        source: its name; becomes the class of images in no folder.
        asked: one of `CLASSES_FROM`. "folder": the folders below splits are classes, whatever they look like;
            "none" and "labels": one class; None: decide, and refuse what looks wrong.
        is_same: tells whether two files hold the same bytes.

    Raises:
        SamganError: the folders look as if they were something else than classes, and `asked` is None.
    """
    layout = Layout(source, [Place(file, file.parts[:-1]) for file in files], asked)
    if asked != "folder":
        _leave_masks_out(layout)
    _leave_copies_out(layout, is_same)
    if asked != "folder":
        _forget_plain_names(layout)
    holder = _find_classes(layout)
    _find_splits_below(layout)
    patients = _find_patients(layout.places)
    one_class = asked in ("none", "labels")
    for place, patient in zip(layout.places, patients, strict=True):
        name = source if one_class else (*place.folders, holder or source)[0]
        file = place.file
        class_name = plain_class_name(name)
        layout.entries.append(Entry(file.path, file.size, file.version, class_name, place.split, patient))
    _look_for_suspicions(layout)
    if asked is None and layout.suspicions:
        raise suspicious(source, layout.suspicions)
    if not one_class:
        _say_names(layout)
    _say_splits(layout)
    return layout


def suspicious(source: str, suspicions: Sequence[str]) -> SamganError:
    """Refuse to take folders as classes, and say what can be asked for instead."""
    more = f" (and {len(suspicions) - 2} more such findings)" if len(suspicions) > 2 else ""
    return SamganError(
        f"{shown(source)}: THE FOLDERS MAY NOT BE CLASSES: {'; '.join(suspicions[:2])}{more}. Move or rename what is "
        "in the way, or add one of these: --classes-from folder (each folder is a class), --classes-from none (all "
        "images are one class), --labels TABLE (a table says which class each image has)"
    )


# what is left out


def _common(places: Sequence[Place]) -> int:
    """Number of folders, from the top, that all images share: they hold the set, and tell nothing."""
    first = places[0].folders if places else ()
    depths = range(len(first))
    return next(
        (k for k in depths if any(place.folders[k : k + 1] != first[k : k + 1] for place in places)), len(first)
    )


def _leave_masks_out(layout: Layout) -> None:
    beside: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    names: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for place in layout.places:
        names[place.folders].add(place.stem)
        for depth, name in enumerate(place.folders):
            beside[place.folders[:depth]].add(name)
    found: defaultdict[str, list[Place]] = defaultdict(list)
    common = _common(layout.places)
    if all(mask_of(place.stem) for place in layout.places) and layout.places:
        named = shown(layout.places[0].file.path)
        layout.suspicions.append(f"all files, such as {named}, are named like masks, and masks are not radiographs")
        return
    masks = {
        (*above, name)
        for above, siblings in beside.items()
        for name in siblings
        if len(above) >= common and is_mask(name, siblings)
    }
    for place in layout.places:
        within = range(common, len(place.folders))
        folder = next((place.folders[depth] for depth in within if place.folders[: depth + 1] in masks), "")
        of = mask_of(place.stem)
        if folder:
            found[f"lies in {shown(folder)}, a folder of masks"].append(place)
        elif of in names[place.folders]:
            found["a mask of the image beside it"].append(place)
    if sum(map(len, found.values())) == len(layout.places):
        layout.suspicions += ["all images lie in folders of masks, and masks are not radiographs"] * bool(found)
        return
    for reason, places in found.items():
        layout.leave_out(places, reason)


def _leave_copies_out(layout: Layout, is_same: SameFile) -> None:
    """Leave out a folder that holds what lies beside it once more, as a well-known archive has it."""
    common = _common(layout.places)
    keys = {(*place.folders[common:], place.file.parts[-1]): place for place in layout.places}
    by_top: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for key in keys:
        if len(key) > 1:
            by_top[key[0]].append(key)
    for top in sorted(by_top):
        pairs = ((keys[key].file, keys.get(_inside(key, top))) for key in by_top[top])
        if all(twin is not None and is_same(file, twin.file) for file, twin in pairs):
            places = [keys[key] for key in by_top[top]]
            layout.leave_out(places, f"lies in {shown(top)}, a copy of what is beside it")
            return


def _inside(key: tuple[str, ...], top: str) -> tuple[str, ...]:
    """A path without the folder `top` that it begins with, however often."""
    return key[next(depth for depth, name in enumerate(key) if name != top or depth == len(key) - 1) :]


def _leave_strays_out(layout: Layout) -> None:
    """Leave out the few images that lie beside the folders; many of them are a suspicion."""
    strays = [place for place in layout.places if not place.folders]
    inside = len(layout.places) - len(strays)
    if not strays or not inside:
        return
    few = len(strays) <= min(inside, max(FEW, len(layout.places) // 50))
    if (few and layout.asked != "labels") or layout.asked == "folder":
        layout.leave_out(strays, "lies beside the folders of the classes, in none of them")
    elif not few:
        layout.suspicions.append(
            f"{len(strays)} images, such as {shown(strays[0].file.path)}, lie in no folder of a class, beside "
            f"{_named({place.folders[0] for place in layout.places if place.folders})}"
        )


# where the classes and the splits are


def _forget_plain_names(layout: Layout) -> None:
    """Forget folders that are all named like "images" or "png": the classes lie above or below them."""
    beside: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for place in layout.places:
        for depth, name in enumerate(place.folders):
            beside[place.folders[:depth]].add(name)
    plain = {above for above, names in beside.items() if all(map(is_plain, names))}
    layout.places = [
        place._replace(
            folders=tuple(name for depth, name in enumerate(place.folders) if place.folders[:depth] not in plain)
        )
        for place in layout.places
    ]


def _find_classes(layout: Layout) -> str:
    """Go down to the folders of the classes; splits on the way are taken.

    Returns:
        The name of the last folder that held everything, or empty.
    """
    holder = ""
    while tops := Counter(place.folders[0] for place in layout.places if place.folders):
        before = len(layout.suspicions)
        _leave_strays_out(layout)
        if len(layout.suspicions) > before:
            return holder
        if all(map(split_of, tops)):
            layout.places = [_take_top(place) for place in layout.places]
        elif _are_in_names(tops):
            layout.places = [_split_name(place) for place in layout.places]
        elif len(tops) == 1 and _holds_all(layout.places):
            holder = next(iter(tops))
            layout.places = [place._replace(folders=place.folders[1:]) for place in layout.places]
        else:
            return holder
    return holder


def _take_split(place: Place, split: str, folders: tuple[str, ...]) -> Place:
    return place._replace(folders=folders, split="holdout" if place.split == "holdout" else split)


def _take_top(place: Place) -> Place:
    return _take_split(place, split_of(place.folders[0]), place.folders[1:]) if place.folders else place


def _split_name(place: Place) -> Place:
    if not place.folders:
        return place
    split, rest = split_and_rest(place.folders[0])
    return _take_split(place, split, (rest, *place.folders[1:]))


def _are_in_names(tops: Counter[str]) -> bool:
    """Whether every folder's name holds a split and a class: train_NORMAL and test_NORMAL, but not PCR_test."""
    found = [split_and_rest(name) for name in tops]
    rests = {split: {rest for found_split, rest in found if found_split == split} for split in ("train", "holdout", "")}
    if rests[""]:
        return False
    return not rests["holdout"] or bool(rests["train"] & rests["holdout"])


def _holds_all(places: Sequence[Place]) -> bool:
    """Whether the only folder holds the folders of the classes, and is not itself the class."""
    direct = sum(len(place.folders) == 1 for place in places)
    return direct < len(places) and direct <= min(len(places) - direct, max(FEW, len(places) // 50))


def _find_splits_below(layout: Layout) -> None:
    """Take splits that lie in each class, as in NORMAL/train/1.png."""
    below: defaultdict[str, set[str]] = defaultdict(set)
    for place in layout.places:
        if place.folders:
            below[place.folders[0]].update(place.folders[1:2])
    split_classes = [name for name, names in below.items() if names and all(map(split_of, names))]
    if not split_classes or any(place.split for place in layout.places):
        return
    if len(split_classes) < len(below):
        others = set(below) - set(split_classes)
        layout.suspicions.append(
            f"{_named(split_classes)} has folders like {_named(below[split_classes[0]])}, but not {_named(others)}"
        )
        return
    strays = [place for place in layout.places if len(place.folders) == 1]
    if len(strays) > min(len(layout.places) - len(strays), max(FEW, len(layout.places) // 50)):
        named = shown(strays[0].file.path)
        layout.suspicions.append(f"{len(strays)} images, such as {named}, lie beside the folders of splits, in none")
        return
    layout.leave_out(strays, "lies beside the folders of splits, in none of them")
    layout.places = [
        _take_split(place, split_of(place.folders[1]), (place.folders[0], *place.folders[2:]))
        for place in layout.places
    ]


def _find_patients(places: Sequence[Place]) -> list[str]:
    """The patient of each image whose folders tell it, else empty.

    MIMIC-CXR has p10/p10000032/s50414267: the last of several levels that look like patients is taken, as long as each
    name goes on from the one above.
    """
    depth = 0
    while not are_patients({place.folders[depth] for place in places if len(place.folders) > depth}):
        depth += 1
        if depth == DEEPEST_PATIENT:
            return [""] * len(places)
    while True:
        deeper = [place.folders[depth : depth + 2] for place in places if len(place.folders) > depth + 1]
        if not deeper or not all(name.startswith(above) for above, name in deeper):
            return [place.folders[depth] if len(place.folders) > depth else "" for place in places]
        depth += 1


# what looks wrong


def _look_for_suspicions(layout: Layout) -> None:
    """Note what would make classes of folders that are none."""
    counts = Counter(place.folders[0] for place in layout.places if place.folders)
    if not counts:
        return
    names = sorted(counts)
    small = [name for name in names if counts[name] <= FEW]
    if are_patients(names) or are_studies(names):
        layout.suspicions.append(
            f"the folders {_named(names)} look like patients, studies or other IDs, and would become classes"
        )
    elif len(names) > MANY_CLASSES:
        layout.suspicions.append(f"there would be {len(names)} classes, {_named(names)}, which is more than usual")
    elif len(small) >= SMALL_CLASSES and len(small) > len(names) // 2:
        layout.suspicions.append(
            f"{len(small)} of {len(names)} classes, {_named(small)}, would have {FEW} images or fewer"
        )
    elif small and max(counts.values()) >= BIG_CLASS:
        layout.suspicions.append(
            f"the class {shown(small[0])} would have {counts[small[0]]} image(s), beside one of {max(counts.values())}"
        )
    _look_at_names(layout, names)
    _look_for_two_levels(layout)


def _look_at_names(layout: Layout, names: Sequence[str]) -> None:
    """Note classes that are named like something else."""
    splits = {name for name in names if split_of(name)}
    if splits and splits != set(names):
        others = set(names) - splits
        layout.suspicions.append(f"{_named(others)} would become a class, beside {_named(splits)}, named like splits")
    sides = {split_and_rest(name)[0] for name in names} - {""}
    for name in names:
        split, rest = split_and_rest(name)
        if split and (rest in names or len(sides) == 2):
            layout.suspicions.append(f"{shown(name)} is named like a split, and would become a class")
        elif is_mask(name, names) or is_plain(name):
            what = "masks" if is_mask(name, names) else "any folder of images"
            layout.suspicions.append(f"{shown(name)} is named like {what}, and would become a class")
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[spelled(name)].append(name)
    for same in alike.values():
        if len(same) > 1:
            layout.suspicions.append(f"the classes {_named(same)} differ only in how they are written")


def _look_for_two_levels(layout: Layout) -> None:
    """Note that the same folders lie in several classes, or beside them: hospital_1/NORMAL, hospital_2/NORMAL."""
    classes_of: defaultdict[str, set[str]] = defaultdict(set)
    for place in layout.places:
        for name in place.folders[1:2]:
            classes_of[name].add(place.folders[0])
    tops = {place.folders[0] for place in layout.places if place.folders}
    for name in sorted(tops & set(classes_of)):
        layout.suspicions.append(f"{shown(name)} is a folder beside {_named(classes_of[name])} and one inside it")
    shared = [name for name, classes in classes_of.items() if len(classes) > 1 and not any(map(str.isdigit, name))]
    if len(shared) > 1:
        holders = set.union(*(classes_of[name] for name in shared))
        layout.suspicions.append(
            f"the folders {_named(shared)} lie in each of {_named(holders)}: either may be the classes"
        )


def _named(names: Sequence[str] | set[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(map(shown, ordered[:NAMED])) + more


# what is said


def _say_names(layout: Layout) -> None:
    """Say which names of folders could not be kept; refuse two that became the same."""
    spelled: dict[str, str] = {}
    for name in sorted({place.folders[0] for place in layout.places if place.folders}):
        plain = plain_class_name(name)
        if spelled.setdefault(plain, name) != name:
            raise SamganError(f"{shown(layout.source)}: two folders would become the class {plain}: rename one")
        if plain != name:
            layout.warnings.append(
                f"the folder {shown(name)} becomes the class {plain}: its name has control characters or is not UTF-8"
            )


def _say_splits(layout: Layout) -> None:
    """Say that folders are named like splits, where they do not make one; or that a class is not in training."""
    splits = {place.split for place in layout.places}
    if splits == {"train", "holdout"}:
        classes = {entry.class_name for entry in layout.entries}
        untrained = classes - {entry.class_name for entry in layout.entries if entry.split == "train"}
        if untrained:
            layout.warnings.append(f"the source has no training images of {_named(untrained)}")
        return
    if splits == {""}:
        return
    word = "only folders of training images" if "train" in splits else "only folders of held-out images"
    if "" in splits:
        word = "folders of splits, and images in none of them"
    layout.warnings.append(f"the source has {word}, so its own split is not used, and --holdout decides")
