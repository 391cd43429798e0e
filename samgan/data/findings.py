"""What looks wrong in a source: pictures in several classes, and patients on both sides of a split."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

from samgan.data.chunks import Record
from samgan.data.documents import BadFile, Contradiction, Leak, ManifestRow
from samgan.data.options import PrepareOptions
from samgan.data.readers.dicom.settings import NEARLY_ONE_SHADE
from samgan.errors import WARNING, SamganError, shown

EXAMPLES = 3
FEW = 0.01
"""Share of images up to which a fault of single images is only noted in the manifest."""


def check_synthetic(name: str, records: Sequence[Record], options: PrepareOptions) -> None:
    """Raise SamganError if there are synthetic images, unless they are allowed.

    Args:
        name: of the source.
        records: all images.
        options: whether synthetic images are allowed.
    """
    made = [record.entry.path for record in records if record.is_synthetic]
    if made and not options.allow_synthetic:
        raise SamganError(
            f"{name}: {len(made)} of {len(records)} images say that they are synthetic and show no patient, such as "
            f"{shown(made[0])}: remove them, or keep them as training images with --allow-synthetic"
        )


def contradictions(records: Sequence[Record], groups: Sequence[Hashable]) -> list[Contradiction]:
    """The groups with images of more than one class, in order of their first images.

    Args:
        records: images.
        groups: for each its group, such as that of equal images.
    """
    members: dict[Hashable, list[Record]] = defaultdict(list)
    for record, group in zip(records, groups, strict=True):
        members[group].append(record)
    return [
        Contradiction(tuple(record.entry.path for record in found), tuple(record.entry.class_name for record in found))
        for found in members.values()
        if len({record.entry.class_name for record in found}) > 1
    ]


def left_out_for(contradiction: Contradiction) -> Iterator[BadFile]:
    """Each of the files, with the reason why it is left out."""
    for file, own in zip(contradiction.files, contradiction.classes, strict=True):
        other = next(name for name in contradiction.classes if name != own)
        yield BadFile(file, f"the same picture is also in class {other}, so its class is not known")


def find_leaks(rows: Sequence[ManifestRow], kinds: Iterable[tuple[str, Sequence[Hashable]]]) -> list[Leak]:
    """Find what is on both sides of a split.

    Args:
        rows: the manifest.
        kinds: the name of a kind in the plural, and for each row its patient, study or group; empty or None: none.
    """
    leaks = []
    for what, keys in kinds:
        sides: dict[Hashable, dict[str, str]] = defaultdict(dict)
        for row, key in zip(rows, keys, strict=True):
            if key not in ("", None):
                sides[key].setdefault(row.split, row.source)
        both = [found for found in sides.values() if len(found) > 1]
        if both:
            examples = tuple((found["train"], found["holdout"]) for found in both[:EXAMPLES])
            leaks.append(Leak(what, len(both), examples))
    return leaks


def told_leaks(leaks: Iterable[Leak]) -> Iterator[str]:
    """A sentence about each kind that is on both sides of a split."""
    for leak in leaks:
        examples = "; ".join(f"{training} and {held_out}" for training, held_out in leak.examples)
        yield f"on both sides of the split: {leak.count} {leak.what}, such as those of {examples}"


def warn_of_darkness(records: Sequence[Record]) -> Iterator[str]:
    """A sentence about DICOM files that show hardly anything, since no window says which of their values are meant.

    Args:
        records: the images that stay.
    """
    dark = [record.entry.path for record in records if NEARLY_ONE_SHADE in record.notes]
    if len(dark) >= max(1, FEW * len(records)):
        yield (
            f"{WARNING}{len(dark)} of {len(records)} images have no window and use less than 1/16 of their depth, so "
            f"they are nearly one shade, such as {shown(dark[0])}: export them for presentation, or with a window"
        )


def warn_of_classes(
    exact: Sequence[Contradiction], near: Sequence[Contradiction], keep: bool, lost: Iterable[str]
) -> Iterator[str]:
    """Sentences about pictures in several classes.

    Args:
        exact: equal pictures.
        near: near duplicates.
        keep: whether equal pictures are kept.
        lost: classes without an image that is left.
    """
    if exact:
        files = sum(len(found.files) for found in exact)
        fate = "kept, each picture in one split" if keep else "left out (--duplicates keep keeps them)"
        yield (
            f"{WARNING}{len(exact)} pictures lie in more than one class, so their labels contradict each other: their "
            f"{files} files are {fate}: {_name_first(exact)}"
        )
    if near:
        yield (
            f"{WARNING}{len(near)} groups of near duplicates have images of more than one class; they are kept, each "
            f"group in one split: check their classes: {_name_first(near)}"
        )
    for name in lost:
        yield f"{WARNING}class {shown(name)} is not in the set: none of its images is left"


def _name_first(found: Sequence[Contradiction]) -> str:
    named = []
    for contradiction in found[:EXAMPLES]:
        by_class = dict(zip(reversed(contradiction.classes), reversed(contradiction.files), strict=True))
        named.append(" and ".join(sorted(by_class.values())))
    return shown("; ".join(named)) + ("; ..." if len(found) > EXAMPLES else "")


def warn_of_split(rows: Sequence[ManifestRow], groups: Sequence[Hashable], options: PrepareOptions) -> Iterator[str]:
    """Sentences about a split that samgan made and that cannot have the shares that were asked for.

    Args:
        rows: the manifest.
        groups: for each row its patient, or group of patients and duplicates that stay together.
        options: the share to hold out.
    """
    real = [group for row, group in zip(rows, groups, strict=True) if not row.synthetic]
    if not real or not options.holdout:
        return
    ((_, largest),) = Counter(real).most_common(1)
    if all(row.split == "train" for row in rows):
        yield (
            f"{WARNING}no image is held out: all images seem to be of one patient or study, or duplicates. Without "
            "held-out images there is no audit and no test of utility. If there are several patients, name them with "
            "--patient-regex or --patient-column"
        )
    elif len(real) >= 10 and largest > len(real) / 2:
        yield (
            f"{WARNING}{largest} of {len(real)} images stay on one side of the split, since patients, studies or "
            "duplicates join them: the share of held-out images may differ from the one asked for. If an ID stands for "
            "many patients, name the patients with --patient-regex"
        )


def warn_of_synthetic(rows: Sequence[ManifestRow]) -> Iterator[str]:
    """A sentence about synthetic images that were allowed."""
    made = [row.source for row in rows if row.synthetic]
    if made:
        yield (
            f"{len(made)} images are synthetic, such as {shown(made[0])}: they are training images, with all "
            "real images that they are duplicates of, and count as no patient"
        )
