"""Commands that make prepared sets."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from samgan.commands.command import Command, Outcome
from samgan.commands.options import add_classes, add_seed, given
from samgan.config import SIDES
from samgan.errors import WARNING, UsageError, shown

if TYPE_CHECKING:
    from samgan.data import PreparedSet
    from samgan.data.documents import BadFile, LabelsUsed, LeftOut, SetInfo
    from samgan.data.options import LabelOptions

BAD_FILES_SHOWN = 20
NOTES_SHOWN = 5
REASONS_SHOWN = 10
SUFFIXES_SHOWN = 10
ROWS_SHOWN = 5


class _Explain(argparse.Action):
    """Sets the option, and makes the positional argument `out` optional."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        setattr(namespace, self.dest, True)
        # Always optional would not do: `prepare SOURCE --resolution 64 OUT` would then take OUT for a third argument.
        for action in parser._actions:
            if action.dest == "out":
                action.nargs, action.required = "?", False


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    from samgan.data.fit import FITS, NORMALIZERS
    from samgan.data.options import BITS, CLASSES_FROM, DUPLICATES, HELP

    text = "folder (its sub-folders are classes), .zip of such a folder, MedMNIST .npz, or medmnist:NAME; "
    parser.add_argument("source", help=f"{text}with --explain, one image file")
    text = "folder to write; with --explain, the PNG to write (default: the file's name and .png, in this folder)"
    parser.add_argument("out", type=Path, help=text)
    text = "show for one file every step from stored values to the picture, and write the picture; makes no set"
    parser.add_argument("--explain", action=_Explain, nargs=0, default=False, help=text)
    told = {name: text.replace("%", "%%") for name, text in HELP.items()}
    parser.add_argument("--resolution", type=int, default=64, choices=SIDES[3:], help=told["resolution"])
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3), help=told["channels"])
    parser.add_argument("--fit", default="crop", choices=FITS, help=told["fit"])
    parser.add_argument("--normalize", default="none", choices=tuple(NORMALIZERS), help=told["normalize"])
    parser.add_argument("--bits", type=int, choices=BITS, metavar=f"{BITS[0]}-{BITS[-1]}", help=told["bits"])
    parser.add_argument("--duplicates", default="drop", choices=DUPLICATES, help=told["duplicates"])
    parser.add_argument("--holdout", type=float, default=0.2, metavar="SHARE", help=told["holdout"])
    parser.add_argument("--patient-regex", metavar="REGEX", help=told["patient_regex"])
    parser.add_argument("--max-bad", type=float, default=0.01, metavar="SHARE", help=told["max_bad"])
    parser.add_argument("--allow-synthetic", action="store_true", help=told["allow_synthetic"])
    parser.add_argument("--classes-from", choices=CLASSES_FROM, help=told["classes_from"])
    text = "replace a finished set in the folder that was made with other options, or of files that have changed since "
    text += "(runs that were trained on it can then not be continued)"
    parser.add_argument("--replace", action="store_true", help=text)
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: one per core)")
    text = "say what would be read, in which classes, and what is left out, from names, folders and tables; reads no "
    text += "image and writes nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)
    add_seed(parser, HELP["seed"])
    _add_labels(parser)


def _add_labels(parser: argparse.ArgumentParser) -> None:
    from samgan.data.options import SEVERAL, UNCERTAIN

    group = parser.add_argument_group(
        "labels from tables",
        "Columns that are not named are guessed from the header, and the guess is said; `none` stands for no column.",
    )
    text = "table that names each image's labels, instead of folders: .csv, .tsv, .csv.gz or .xlsx; may be repeated, "
    text += "for a split or views in another file"
    group.add_argument("--labels", action="append", default=[], metavar="FILE", help=text)
    text = "column with the file name, path or identifier of the image"
    group.add_argument("--image-column", metavar="NAME", help=text)
    text = "column of labels (several in a cell: A|B, A;B or a list), or several columns, one for each finding, that "
    text += "hold 1, 0, -1 (uncertain) or nothing"
    group.add_argument("--label-column", action="extend", nargs="+", default=[], metavar="NAME", help=text)
    group.add_argument("--patient-column", metavar="NAME", help="column of patients; the set has hashes only")
    group.add_argument("--split-column", metavar="NAME", help="column with train, val, test, ...")
    group.add_argument("--view-column", metavar="NAME", help="column of views")
    text = "keep only images of these views, such as PA AP; frontal and lateral stand for all of theirs"
    group.add_argument("--views", nargs="+", default=[], metavar="VIEW", help=text)
    text = "images with several labels: leave them out, or take the label that comes first in the cell or columns"
    group.add_argument("--several", default="only-single", choices=SEVERAL, help=text)
    text = "images with an uncertain label (-1): leave them out, or read it as 1 or 0"
    group.add_argument("--uncertain", default="drop", choices=UNCERTAIN, help=text)


def _label_options(options: argparse.Namespace) -> "LabelOptions | None":
    from samgan.data.options import LabelOptions

    labels = LabelOptions(
        files=tuple(options.labels),
        label_columns=tuple(options.label_column),
        views=tuple(options.views),
        **given(options, "image_column", "patient_column", "split_column", "view_column", "several", "uncertain"),
    )
    if options.labels:
        return labels
    if labels != LabelOptions(files=()):
        raise UsageError("--image-column, --views and the other options of tables need a table: give --labels FILE")
    return None


def _prepare(options: argparse.Namespace) -> Outcome:
    from samgan.data import explain_file, prepare

    pixels = ("resolution", "channels", "fit", "normalize", "bits")
    if options.explain:
        explanation = explain_file(options.source, options.out, **given(options, *pixels))
        return Outcome(explanation, explanation.to_text())
    decided = ("duplicates", "holdout", "patient_regex", "max_bad", "classes_from", "allow_synthetic", "seed")
    if options.dry_run:
        from samgan.data.foresee import foresee
        from samgan.data.options import PrepareOptions

        own = PrepareOptions(**given(options, *pixels, *decided))
        foreseen = foresee(options.source, options.out, own, _label_options(options))
        return Outcome(foreseen, "\n".join(map(shown, foreseen.to_text().splitlines())))
    asked = given(options, *pixels, *decided, "workers", "replace")
    prepared = prepare(options.source, options.out, **asked, labels=_label_options(options))
    return Outcome(prepared.info, "\n".join(map(shown, _describe_set(prepared))))


def _add_subset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="prepared set")
    parser.add_argument("out", type=Path, help="new folder")
    text = "keep all training images of N random patients"
    parser.add_argument("--patients", nargs="+", default=[], metavar="CLASS=N", help=text)
    parser.add_argument("--images", nargs="+", default=[], metavar="CLASS=N", help="keep N random training images")
    add_classes(parser, "keep only these classes (default: all)")
    parser.add_argument("--resolution", type=int, choices=SIDES[3:], help="side in pixels")
    add_seed(parser, "seed of the random choice")
    text = (
        "which of the choices by one seed, from 0; no patient of a class in --patients is in two (default: %(default)s)"
    )
    parser.add_argument("--part", type=int, default=0, metavar="N", help=text)


def _subset(options: argparse.Namespace) -> Outcome:
    from samgan.data import PreparedSet
    from samgan.data.subset import subset

    prepared = subset(
        PreparedSet.open(options.data),
        options.out,
        patients=_numbers("--patients", options.patients),
        images=_numbers("--images", options.images),
        **given(options, "classes", "seed", "resolution", "part"),
    )
    return Outcome(prepared.info, "\n".join(map(shown, _describe_set(prepared))))


def _numbers(option: str, words: list[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        if not name or not number.isdigit() or int(number) < 1:
            raise UsageError(f"{option} {word}: expected CLASS=N with a whole number from 1, such as NORMAL=125")
        if name in numbers:
            raise UsageError(f"{option} {word}: {name}={numbers[name]} was given already")
        numbers[name] = int(number)
    return numbers


def _describe_set(prepared: "PreparedSet") -> Iterator[str]:
    from samgan.data.findings import told_leaks

    info = prepared.info
    by_source = info.split_by == "source"
    yield (
        f"{prepared.path}: {info.images} images of {prepared.resolution}x{prepared.resolution}, "
        f"{prepared.channels} channel(s), split by {info.split_by}"
        + (f" ({_own_split(info)}; --holdout is not used)" if by_source else "")
    )
    for name, counts in info.counts.items():
        yield f"  {name}: " + ", ".join(f"{count} {split}" for split, count in counts.items())
    if info.near_duplicates:
        where = "" if by_source else ", each in the split of the image that it is like"
        yield f"near duplicates: {info.near_duplicates} images, kept{where}"
    if both := info.groups_on_both_sides:
        yield (
            f"{WARNING}{both} patients, or groups of near duplicates, are on both sides of the split that the source "
            f"has, so scores on held-out images will be too good. {_remedy(info)}"
        )
    yield from (f"{WARNING}{sentence}" for sentence in told_leaks(info.leaks or ()))
    if info.enlarged:
        yield f"enlarged: {info.enlarged} images were smaller than {prepared.resolution} px"
    if info.synthetic:
        yield f"synthetic: {info.synthetic} images, all of them training images"
    if info.labels:
        yield from _describe_labels(info.labels)
    if info.left_out:
        yield from _describe_left_out(info.left_out, prepared.path)
    if info.notes:
        notes = sorted(info.notes.items(), key=lambda note: -note[1])
        more = f", and {len(notes) - NOTES_SHOWN} other things" if len(notes) > NOTES_SHOWN else ""
        named = ", ".join(f"{count} x {note}" for note, count in notes[:NOTES_SHOWN])
        yield f"notes on metadata: {named}{more}; manifest.csv has them for each image"
    for sentence in info.warnings or ():
        yield sentence if sentence.startswith(WARNING) else f"note: {sentence}"


def _tells_split(info: "SetInfo") -> bool:
    """Whether a table tells the split."""
    return any(table.split for table in info.labels.tables) if info.labels else False


def _own_split(info: "SetInfo") -> str:
    """What tells the split that the source has."""
    if _tells_split(info) and info.labels:
        return " and ".join(f"{table.split} of {table.name}" for table in info.labels.tables if table.split)
    is_npz = info.source.endswith(".npz") or info.source.startswith("medmnist:")
    return "its arrays train, val, test" if is_npz else "its folders train, test, ..."


def _remedy(info: "SetInfo") -> str:
    """How to get another split than the one that the source has."""
    if _tells_split(info):
        return "With --split-column none the set is split by patient"
    return "A folder without such a split is split by patient"


def _describe_labels(labels: "LabelsUsed") -> Iterator[str]:
    names = ", ".join(table.name for table in labels.tables)
    yield f"labels: {names}; {labels.rows_matched} of {labels.rows} rows belong to images of the source"
    if labels.rows > labels.rows_matched:
        yield f"rows without an image: {labels.rows - labels.rows_matched}"
        yield from (f"  {row.row}: {row.reason}" for row in labels.unused_rows[:ROWS_SHOWN])
    if labels.several_labels and labels.several == "first":
        yield f"several labels: {labels.several_labels} images; each has the class of its first label"


def _describe_left_out(left_out: "LeftOut", path: Path) -> Iterator[str]:
    if left_out.exact_duplicates:
        yield f"left out: {len(left_out.exact_duplicates)} exact duplicates"
    yield from _describe_unused(left_out.unused, path)
    if left_out.ignored_by_suffix:
        counted = sorted(left_out.ignored_by_suffix.items(), key=lambda item: -item[1])
        named = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in counted[:SUFFIXES_SHOWN])
        others = sum(count for _, count in counted[SUFFIXES_SHOWN:])
        yield f"ignored, since they are not images: {named}" + (f", {others} others" if others else "")
    if bad := left_out.bad_files:
        yield f"left out: {len(bad)} files that cannot be read"
        yield from (f"  {file.source}: {file.reason}" for file in bad[:BAD_FILES_SHOWN])
        if len(bad) > BAD_FILES_SHOWN:
            yield f"  and {len(bad) - BAD_FILES_SHOWN} more; {path / 'dataset.json'} lists all of them"
        yield "  once they can be read, the same command with --replace takes them in"


def _describe_unused(unused: "Sequence[BadFile]", path: Path) -> Iterator[str]:
    """One line for each reason, the most frequent first; what a reason says after a colon differs between its images.

    There may be as many reasons as combinations of labels, and as many files as images.
    """
    by_kind: dict[str, list[BadFile]] = {}
    for file in unused:
        by_kind.setdefault(file.reason.split(":")[0], []).append(file)
    ordered = sorted(by_kind.items(), key=lambda item: -len(item[1]))
    for kind, files in ordered[:REASONS_SHOWN]:
        first = files[0]
        if len(files) == 1:
            yield f"left out: {first.source}: {first.reason}"
        elif len({file.reason for file in files}) == 1:
            yield f"left out: {len(files)} images, such as {first.source}: {first.reason}"
        else:
            own = first.reason.removeprefix(kind).removeprefix(": ")
            yield f"left out: {len(files)} images: {kind}, such as {first.source} ({own})"
    if more := sum(len(files) for _, files in ordered[REASONS_SHOWN:]):
        yield f"left out: {more} images more, for other reasons; {path / 'dataset.json'} lists all of them"


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="prepared set")
    text = "page to write (default: data.html in the folder of the set)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=text)
    parser.add_argument("--no-pictures", action="store_true", help="show no real images in the page")
    add_seed(parser, "seed of the choice of the images that are shown")


def _inspect(options: argparse.Namespace) -> Outcome:
    from samgan.data import PreparedSet
    from samgan.data.inspection import inspect
    from samgan.data.inspection.page import findings

    data, pictures = PreparedSet.open(options.data), not options.no_pictures
    document, page = inspect(data, pictures=pictures, **given(options, "out", "seed"))
    found = list(findings(document)) or ["nothing stands out"]
    return Outcome(document, "\n".join([*found, f"{page}: open it in a browser"]))


COMMANDS = (
    Command("prepare", "make a training set from a folder, .zip or .npz of radiographs", _prepare, _add_prepare),
    Command(
        "inspect",
        "look at a set: counts, what was left out, what could give a class away",
        _inspect,
        _add_inspect,
    ),
    Command(
        "subset",
        "take fewer training images of a prepared set, or smaller ones; who is held out stays",
        _subset,
        _add_subset,
    ),
)
