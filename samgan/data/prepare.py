"""Turn a source of radiographs into a prepared set: images.npy, manifest.csv, dataset.json."""

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from samgan.data.chunks import collect, forget_bad, prepare_chunks
from samgan.data.dataset import PreparedSet, content_sha256
from samgan.data.documents import BadFile
from samgan.data.labels import label_source
from samgan.data.options import ALGORITHM, LabelOptions, PrepareOptions
from samgan.data.patient_classes import refuse_patients_as_classes
from samgan.data.readers import strict_decoders
from samgan.data.room import require_disk
from samgan.data.selection import select
from samgan.data.sources import Entry, Source, close_sources, open_source
from samgan.data.survey import forget_survey, survey_depth
from samgan.data.write import CARD, OLDER_CARD, write_set
from samgan.errors import WARNING, SamganError, UsageError, shown
from samgan.files import PRIVATE, hash_json, is_full, is_system_name, locked

PARTIAL = ".partial"


def prepare(  # noqa: PLR0913 - the fields of PrepareOptions as keywords
    source: str | Path,
    out: str | Path,
    *,
    resolution: int = 64,
    channels: int = 1,
    fit: str = "crop",
    normalize: str = "none",
    bits: int | None = None,
    duplicates: str = "drop",
    holdout: float = 0.2,
    patient_regex: str | None = None,
    max_bad: float = 0.01,
    classes_from: str | None = None,
    workers: int | None = None,
    seed: int = 0,
    allow_synthetic: bool = False,
    labels: LabelOptions | None = None,
    replace: bool = False,
) -> PreparedSet:
    """Read, fit, de-duplicate and split a source of radiographs into the folder `out`.

    An interrupted run continues where it stopped. If `out` holds a finished set of the same files and options, that set
    is returned at once, or made again if its images or manifest have changed. With `replace`, it is also made again if
    some of its files could not be read: a decoder may have been installed since.

    Long because it has many options, each described below.

    Args:
        source: a folder with one sub-folder per class, a .zip of one, an .npz, or "medmnist:pneumoniamnist".
        out: folder to write: new, empty, unfinished, or prepared from the same source at the same path.
        resolution: side of the square images in pixels, a power of two from 8 to 1024.
        channels: 1 (grey) or 3.
        fit: "crop" (centre square), "pad" (black bars) or "stretch".
        normalize: "none", "percentile" (0.5 to 99.5 of each image) or "clahe" (adaptive histogram equalisation).
        bits: bit depth of the images whose format does not declare it (16-bit grey PNG and TIFF, arrays), 8 to 16;
            None: the smallest that holds the largest value of all of them.
        duplicates: "drop" leaves exact duplicates out, and all copies of a picture that lies in several classes; "keep"
            keeps them, all in one split.
        holdout: share of each class to hold out, in [0, 1).
        patient_regex: its first non-empty group in a file's relative path is the patient; None: what a folder or a
            label table tells, else DICOM's PatientID, else the naming schemes of common sets. Images of one DICOM study
            stay together in any case.
        max_bad: share of files that may be unreadable, in [0, 1]; if there are more, nothing is written.
        classes_from: "folder" (each folder is a class, whatever it looks like), "none" (one class, named after the
            source) or "labels" (a table tells them); None: the folders, if they look like classes.
        workers: number of threads that read images; None for one per core.
        seed: seed of the split.
        allow_synthetic: whether images that say that they show no patient may be in the set, as training images only.
        labels: tables that tell the classes, and maybe patients, splits and views; None: the source's folders or arrays
            tell the classes.
        replace: whether a finished set of other options, or of files that have changed since, or one that cannot be
            opened, may be replaced. Runs that were trained on it can be continued only if the new set is the same.

    Returns:
        The prepared set, opened.

    Raises:
        UsageError: an option is out of range, there is no such source or column of a table, or `out` holds something
            else, such as a set of other options, and `replace` is False.
        SamganError: there are no images, too many bad ones, fewer than two distinct ones, synthetic ones that were not
            allowed, or no space is left; another process is writing `out`; or the folders do not look like classes, and
            `classes_from` is None.
    """
    options = PrepareOptions(
        resolution=resolution,
        channels=channels,
        fit=fit,
        normalize=normalize,
        bits=bits,
        duplicates=duplicates,
        holdout=holdout,
        patient_regex=patient_regex,
        max_bad=max_bad,
        classes_from=classes_from,
        seed=seed,
        allow_synthetic=allow_synthetic,
        labels=labels,
    )
    options.check()
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers}: expected 1 or more")
    out = Path(out)
    opened = open_source(source, "labels" if labels else classes_from)
    if labels is not None:
        opened = label_source(opened, labels)
        options = dataclasses.replace(options, labels=_publishable(labels, opened))
    fingerprint = fingerprint_of(options, opened.entries)
    finished = finished_set(out, opened, replace=replace)
    if finished and not replace:
        _refuse_another(finished, options, fingerprint)
    if finished and _is_right(finished, fingerprint) and not (replace and _may_be_more(finished)):
        _remove_partial(out)
        return finished
    is_there = finished is not None
    del finished  # Windows replaces no file that is mapped
    held = contextlib.ExitStack()
    try:
        out.mkdir(PRIVATE, parents=True, exist_ok=True)
        held.enter_context(locked(out, _busy(out)))
        by_another = None if is_there else finished_set(out, opened, replace=replace)  # since this call looked
        if by_another and not replace:
            _refuse_another(by_another, options, fingerprint)
        if by_another and _is_right(by_another, fingerprint):
            return by_another
        _require_disk(out, opened, options)
        _forget_bad(out / PARTIAL)
        with strict_decoders():  # once, around all threads
            survey = survey_depth(opened, out / PARTIAL, bits, workers)
            opened = opened._replace(warnings=(*opened.warnings, *survey.sentences))
            chunks = prepare_chunks(opened, out / PARTIAL, options.pixels, survey.scales, workers)
        records, bad_files, no_images = collect(opened, chunks)
        opened = opened._replace(unused=(*opened.unused, *no_images))
        if len(bad_files) > max_bad * len(opened.entries):
            forget_survey(out / PARTIAL)
            raise _too_many_bad(bad_files, len(opened.entries), max_bad)
        if classes_from is None and labels is None and opened.path.suffix.lower() != ".npz":
            refuse_patients_as_classes(opened.name, records, options.patient_regex)
        with _naming(survey.sentences):
            selection = select(opened, records, bad_files, options, fingerprint)
        write_set(out, chunks, selection)
        shutil.rmtree(out / PARTIAL)
    except OSError as error:
        reason, remedy = error.strerror or str(error), "free some space" if is_full(error) else "correct this"
        raise SamganError(
            f"{out} cannot be written ({reason}): {remedy}, then run the same command again; finished images are kept"
        ) from error
    finally:
        close_sources()
        held.close()
    return PreparedSet.open(out)


def _require_disk(out: Path, source: Source, options: PrepareOptions) -> None:
    """Refuse a set that will not fit: at the end, its images are there twice, in chunks and as images.npy."""
    size = len(source.entries) * options.channels * options.resolution**2
    there = sum(chunk.stat().st_size for chunk in (out / PARTIAL).glob("*.npz"))
    what = f"preparing {len(source.entries):,} images of {options.resolution} px"
    remedy = "choose a smaller --resolution, half of which takes a quarter, or a folder on a larger disk"
    require_disk(out, 2 * size - there, what, remedy)


@contextlib.contextmanager
def _naming(sentences: Sequence[str]) -> Iterator[None]:
    """Add the warnings of the bit depth to an error: images that are all black are duplicates of each other."""
    try:
        yield
    except SamganError as error:
        warnings = [sentence.removeprefix(WARNING) for sentence in sentences if sentence.startswith(WARNING)]
        if not warnings:
            raise
        raise SamganError("; ".join([str(error), *warnings])) from error


def _is_right(finished: PreparedSet, fingerprint: str) -> bool:
    return finished.info.fingerprint == fingerprint and content_sha256(finished.path) == finished.sha256


def _refuse_another(finished: PreparedSet, asked: PrepareOptions, fingerprint: str) -> None:
    """Raise UsageError if a finished set is not the one that was asked for, and say in what they differ."""
    if finished.info.fingerprint == fingerprint:
        return
    before, differ = finished.info.options, []
    if before is not None:
        names = [field.name for field in dataclasses.fields(asked) if field.name != "labels"]
        pairs = [(name, getattr(before, name), getattr(asked, name)) for name in names]
        differ = [f"{name} is {old}, not {new}" for name, old, new in pairs if old != new]
        if before.labels != asked.labels:
            differ.append("its labels come from other tables or options")
    reason = "; ".join(differ) or "files of the source have changed since, or another version of samgan made it"
    raise UsageError(
        f"{finished.path} holds another set ({reason}): choose another folder, or replace that set with --replace "
        "(runs that were trained on it can be continued only if the new set is the same)"
    )


def _forget_bad(partial: Path) -> None:
    """Forget what could not be read, and the bit depth that was found without it."""
    if forget_bad(partial):
        forget_survey(partial)


def _remove_partial(out: Path) -> None:
    """Remove what an earlier call left beside a finished set, unless another process is at work there."""
    if (out / PARTIAL).exists():
        with contextlib.suppress(OSError, SamganError), locked(out, _busy(out)):
            shutil.rmtree(out / PARTIAL, ignore_errors=True)


def _busy(out: Path) -> str:
    return f"another samgan prepare is writing {out}: wait until it has finished, then run the same command again"


def fingerprint_of(options: PrepareOptions, entries: list[Entry]) -> str:
    """Hash what determines a prepared set: the algorithm, the options and the files of the source."""
    return hash_json({"algorithm": ALGORITHM, "options": dataclasses.asdict(options), "files": entries})


def _publishable(labels: LabelOptions, labelled: Source) -> LabelOptions:
    """The options as documents have them: without folders, which are private, and with the hash of each table."""
    tables = labelled.labels.tables if labelled.labels else ()
    names, hashes = (tuple(getattr(table, field) for table in tables) for field in ("name", "sha256"))
    return dataclasses.replace(labels, files=names, sha256=hashes)


def _may_be_more(finished: PreparedSet) -> bool:
    """Whether files could not be read when the set was made."""
    return bool(finished.info.left_out and finished.info.left_out.bad_files)


def finished_set(out: Path, source: Source, *, replace: bool = False) -> PreparedSet | None:
    """Return the set that `out` already holds, or None if there is none yet, or if what is there may be replaced.

    Raises:
        UsageError: It is no folder, or holds other files, a set of another source, or one that cannot be opened.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise UsageError(f"{out} is not a folder: choose a new or empty folder")
    try:
        finished = PreparedSet.open(out)
    except SamganError as error:
        foreign = sorted(path.name for path in out.iterdir() if not _is_ours(path.name))
        if foreign:
            raise UsageError(f"{out} holds other files ({shown(foreign[0])}): choose a new or empty folder") from None
        if (out / "dataset.json").exists() and not replace:
            raise UsageError(f"{error} (the same command with --replace writes a new set there)") from None
        return None
    before, remedy = finished.info.source, "choose another folder or remove this one"
    if before != source.name:
        raise UsageError(f"{out} was prepared from {before}, not {source.name}: {remedy}")
    if finished.info.source_id not in (None, source.id):
        path = source.path.resolve()
        raise UsageError(f"{out} was prepared from another source named {before}, not {path}: {remedy}")
    return finished


def _is_ours(name: str) -> bool:
    files = (PARTIAL, ".lock", "images.npy", "manifest.csv", "dataset.json", "data.html", *CARD)
    leftover = name.startswith(".") and name.endswith(".tmp")
    return name in files or leftover or is_system_name(name) or OLDER_CARD.fullmatch(name) is not None


def _too_many_bad(bad_files: list[BadFile], files: int, max_bad: float) -> SamganError:
    named = "; ".join(f"{shown(bad.source)}: {shown(bad.reason)}" for bad in bad_files[:3])
    return SamganError(
        f"{len(bad_files)} of {files} files cannot be used, and --max-bad {max_bad:g} allows fewer: "
        f"{named}{'; ...' if len(bad_files) > 3 else ''}. Repair or remove them, or allow more, such as --max-bad "
        f"{math.ceil(100 * len(bad_files) / files) / 100:g}"
    )
