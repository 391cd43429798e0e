"""List and read the images of a folder, a .zip, a MedMNIST-style .npz, or a MedMNIST set fetched by name."""

import contextlib
import functools
import hashlib
import os
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from samgan.cache import download_folder
from samgan.data.documents import BadFile, LabelsUsed
from samgan.data.readers.radiograph import MAXIMUM_BYTES
from samgan.data.sources import samples_npz
from samgan.data.sources.folder_names import SPLITS, plain_class_name
from samgan.data.sources.hints import hints, no_images, not_a_source
from samgan.data.sources.layout import Entry, arrange
from samgan.data.sources.listing import (
    DAMAGE,
    Listing,
    head_of_file,
    head_of_member,
    is_same_file,
    is_same_member,
    list_folder,
    list_zip,
)
from samgan.errors import SamganError, UsageError, one_line

MEDMNIST_URL = "https://zenodo.org/records/10519652/files/{name}_64.npz?download=1"
MEDMNIST_MD5 = {
    "pneumoniamnist": "8f4eceb4ccffa70c672198ea285246c6",
    "chestmnist": "9de6cd0b934ebb5b7426cfba5efbae16",
}
NPZ_CLASSES = {"pneumoniamnist": ("normal", "pneumonia")}
MAXIMUM_ARRAY_BYTES = 16 * 2**30
HARMLESS_ARRAY_BYTES = 2**30
LARGEST_RATIO = 100
"""An .npz that unpacks to more than `HARMLESS_ARRAY_BYTES` may be so many times as large as the file: radiographs
compress to a half or a fifth, and arrays of zeros, which would only fill the memory, to a thousandth."""


class Source(NamedTuple):
    """The source that `prepare` reads."""

    name: str
    id: str
    """SHA-256 of the resolved path (a shared set must not reveal the path), or the name of a MedMNIST set."""
    path: Path
    entries: list[Entry]
    ignored: dict[str, int]
    """Number of files that are not images, by suffix."""
    unused: tuple[BadFile, ...] = ()
    """Images that are left out for where they lie or what a table says of them, with the reason."""
    warnings: tuple[str, ...] = ()
    """What was decided, or looks wrong; one sentence each."""
    is_synthetic: bool = False
    """Whether the archive says that its images show no patients."""
    labels: LabelsUsed | None = None
    """The tables that the classes come from; None if they come from the source itself."""


def open_source(source: str | Path, classes_from: str | None = None) -> Source:
    """List a source without reading its images.

    `arrange` in layout.py says what the folders mean. The arrays of an .npz are splits: train stays train, val and test
    become holdout.

    Args:
        source: a folder, a .zip of one, an .npz with {train,val,test}_{images,labels} or of `samgan sample`, or
            "medmnist:<name>".
        classes_from: where the classes come from: "folder", "none" or "labels"; None: decide by the folders' names.

    Raises:
        UsageError: there is no such source.
        SamganError: the source is unsafe, is damaged, cannot be downloaded, or holds no images; or its folders do not
            look like classes, and `classes_from` is None.
    """
    if str(source).startswith("medmnist:"):
        path = _fetch_medmnist(str(source).removeprefix("medmnist:"))
        name = identity = str(source)
    else:
        path = Path(source).expanduser()
        name = path.resolve().name
        identity = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    name = plain_class_name(name)
    if path.is_dir():
        opened = _arrange(Source(name, identity, path, [], {}), list_folder(path), classes_from, name)
    elif path.suffix.lower() == ".zip" and path.is_file():
        opened = _arrange(Source(name, identity, path, [], {}), list_zip(path), classes_from, Path(name).stem)
    elif path.suffix.lower() == ".npz" and path.is_file():
        opened = Source(name, identity, path, _list_npz(path), {})
        if classes_from in ("none", "labels"):
            one = plain_class_name(path.stem)
            opened = opened._replace(entries=[entry._replace(class_name=one) for entry in opened.entries])
    else:
        known = ", ".join(f"medmnist:{known}" for known in MEDMNIST_MD5)
        raise UsageError(f"{source}: expected a folder, a .zip, an .npz or one of {known}: {not_a_source(path)}")
    entries = opened.entries
    if {entry.split for entry in entries} != {"train", "holdout"}:  # a single part is not a split
        entries = [entry._replace(split="") for entry in entries]
    made = path.suffix.lower() == ".npz" and path.is_file() and _is_synthetic(path)
    entries = sorted(entries, key=lambda entry: entry.path)
    return opened._replace(entries=entries, is_synthetic=made)


def _arrange(source: Source, listing: Listing, classes_from: str | None, class_name: str) -> Source:
    """Give the files of a folder or archive their classes."""
    path = source.path
    if not listing.files:
        raise SamganError(no_images(path, listing.ignored))
    same = functools.partial(is_same_file, path) if path.is_dir() else is_same_member
    layout = arrange(listing.files, class_name, classes_from, same)
    return source._replace(
        entries=layout.entries,
        ignored=dict(listing.ignored),
        unused=(*listing.unused, *layout.unused),
        warnings=(*listing.warnings, *layout.warnings, *hints(layout.entries, listing.ignored, classes_from)),
    )


def read_entries(path: Path, entries: Sequence[Entry]) -> Iterator[bytes | Shaped[np.ndarray, "..."] | Exception]:
    """Yield each entry's bytes (or array, for an .npz), or the exception that kept it from being read."""
    for entry in entries:
        try:
            if path.is_dir():
                yield _read_file(path / entry.path)
            elif path.suffix.lower() == ".zip":
                yield _read_member(_open_zip(path, path.stat().st_mtime_ns, threading.get_ident()), entry.path)
            else:
                split, index = entry.path.split("/")
                of_samgan = split == samples_npz.IMAGES
                array = _load_array(path, path.stat().st_mtime_ns, split if of_samgan else f"{split}_images")
                yield np.moveaxis(array[int(index)], 0, -1) if of_samgan else array[int(index)]
        except (SamganError, *DAMAGE) as error:
            yield error


def read_heads(path: Path, entries: Sequence[Entry]) -> Iterator[bytes | Shaped[np.ndarray, "..."]]:
    """Yield the first `HEAD_BYTES` bytes of each entry (its array, for an .npz); nothing if it cannot be read."""
    if path.is_dir():
        yield from (head_of_file(path / entry.path) for entry in entries)
    elif path.suffix.lower() == ".zip":
        archive = _open_zip(path, path.stat().st_mtime_ns, threading.get_ident())
        yield from (head_of_member(archive, archive.getinfo(entry.path)) for entry in entries)
    else:
        yield from (b"" if isinstance(data, Exception | bytes) else data for data in read_entries(path, entries))


def close_sources() -> None:
    """Close the archives and drop the arrays that `read_entries` keeps from one call to the next."""
    _open_zip.cache_clear()
    _load_array.cache_clear()


# folder and zip


def _read_file(file: Path) -> bytes:
    if file.exists() and not file.is_file():
        raise SamganError("not a regular file")
    with open(file, "rb") as opened:
        data = opened.read(MAXIMUM_BYTES + 1)
    if len(data) > MAXIMUM_BYTES:
        raise SamganError(f"larger than {MAXIMUM_BYTES // 2**20} MiB")
    return data


@functools.cache
def _open_zip(path: Path, version: int, thread: int) -> zipfile.ZipFile:
    """Keep the archive open: its directory of 100,000 members takes as long to parse as 200 images.

    Each thread opens its own: several threads cannot read from one ZipFile at the same time.
    """
    return zipfile.ZipFile(path)


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read one member into memory; neither its declared nor its actual size may exceed the limit."""
    info = archive.getinfo(name)
    if info.file_size <= MAXIMUM_BYTES:
        with archive.open(info) as opened:
            data = opened.read(MAXIMUM_BYTES + 1)
        if len(data) <= MAXIMUM_BYTES:
            return data
    raise SamganError(f"larger than {MAXIMUM_BYTES // 2**20} MiB")


# npz


def _list_npz(path: Path) -> list[Entry]:
    status = path.stat()
    entries = []
    try:
        with zipfile.ZipFile(path) as opened:
            size = sum(info.file_size for info in opened.infolist())
            if size > MAXIMUM_ARRAY_BYTES or size > max(HARMLESS_ARRAY_BYTES, LARGEST_RATIO * status.st_size):
                raise SamganError(
                    f"{path}: expected arrays of at most {MAXIMUM_ARRAY_BYTES // 2**30} GiB and {LARGEST_RATIO} times "
                    f"the size of the file ({status.st_size:,} bytes), found {size:,} bytes: save the images as PNG"
                )
            names = {info.filename.removesuffix(".npy") for info in opened.infolist()}
    except DAMAGE as error:
        raise SamganError(f"{path}: not a readable .npz ({error})") from error
    for split in ("train", "val", "test"):
        if f"{split}_images" in names and f"{split}_labels" in names:
            labels = _load_array(path, status.st_mtime_ns, f"{split}_labels")
            _check_arrays(path, split, _load_array(path, status.st_mtime_ns, f"{split}_images"), labels)
            class_names = _npz_class_names(labels, path.stem)
            entries += [
                Entry(f"{split}/{index:07d}", status.st_size, status.st_mtime_ns, class_name, SPLITS[split])
                for index, class_name in enumerate(class_names)
            ]
    if not entries and {samples_npz.IMAGES, "provenance"} <= names:
        images = _load_array(path, status.st_mtime_ns, samples_npz.IMAGES)
        classes = _load_array(path, status.st_mtime_ns, "classes") if "classes" in names else None
        try:
            class_names = samples_npz.class_names(images, classes, path.stem)
        except SamganError as error:
            raise SamganError(f"{path}: {error}") from None
        entries = [
            Entry(f"{samples_npz.IMAGES}/{index:07d}", status.st_size, status.st_mtime_ns, class_name, "")
            for index, class_name in enumerate(class_names)
        ]
    if not entries and any({f"{split}_images", f"{split}_labels"} <= names for split in ("train", "val", "test")):
        raise SamganError(f"{path}: expected images, found arrays that hold none: choose another file")
    if not entries:
        raise SamganError(
            f"{path}: expected arrays {{train,val,test}}_{{images,labels}}, found {sorted(names)}: save them under "
            "these names"
        )
    return entries


def _is_synthetic(path: Path) -> bool:
    with contextlib.suppress(SamganError):  # there is none, or somebody else's
        return samples_npz.is_synthetic(_load_array(path, path.stat().st_mtime_ns, "provenance"))
    return False


@functools.lru_cache(maxsize=2)
def _load_array(path: Path, version: int, name: str) -> Shaped[np.ndarray, "..."]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array = arrays[name]
    except Exception as error:  # DAMAGE, and whatever numpy raises on a broken header
        remedy = "save it without pickled objects" if "pickle" in str(error) else "copy or save the file again"
        raise SamganError(f"{path}: {name} cannot be read ({one_line(error)}): {remedy}") from error
    if not isinstance(array, np.ndarray):  # numpy returns a member that is not a .npy file as bytes
        raise SamganError(f"{path}: {name} is not an array: expected a file that numpy.savez wrote")
    return array


def _check_arrays(path: Path, split: str, images: Shaped[np.ndarray, "..."], labels: Shaped[np.ndarray, "..."]) -> None:
    """Refuse anything but grey or colour images, each with one class or one row of findings."""
    is_picture = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if not is_picture or images.dtype.kind != "u" or images.dtype.itemsize > 2:
        raise SamganError(
            f"{path}: expected {split}_images of uint8 or uint16 [n, h, w], [n, h, w, 1] or [n, h, w, 3], found "
            f"{images.dtype} {list(images.shape)}: convert them"
        )
    if labels.dtype.kind not in "biu" or labels.ndim not in (1, 2) or 0 in labels.shape[1:]:
        raise SamganError(
            f"{path}: expected {split}_labels of integers [n] or [n, k], found {labels.dtype} {list(labels.shape)}: "
            "convert them"
        )
    if len(images) != len(labels):
        raise SamganError(
            f"{path}: {len(images)} {split}_images but {len(labels)} {split}_labels: expected one label for each image"
        )


def _npz_class_names(labels: Shaped[np.ndarray, "..."], stem: str) -> list[str]:
    """Name each image's class; several binary labels per image (ChestMNIST) become "finding" or "no_finding"."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        return ["finding" if any_set else "no_finding" for any_set in np.any(labels, axis=1).tolist()]
    known = next((names for name, names in NPZ_CLASSES.items() if stem.startswith(name)), ())
    return [known[label] if 0 <= label < len(known) else f"class_{label}" for label in labels.reshape(-1).tolist()]


def _fetch_medmnist(name: str) -> Path:
    if name not in MEDMNIST_MD5:
        raise UsageError(f"medmnist:{name}: expected one of {', '.join(MEDMNIST_MD5)}")
    import pooch

    try:
        file = pooch.retrieve(
            MEDMNIST_URL.format(name=name),
            known_hash=f"md5:{MEDMNIST_MD5[name]}",
            fname=f"{name}_64.npz",
            path=download_folder(pooch.os_cache("samgan"), f"{name}_64.npz"),
        )
    except Exception as error:  # requests and urllib3 have a dozen kinds, with one remedy
        reason = " ".join(str(error).split())[:200]
        raise SamganError(
            f"medmnist:{name}: cannot be downloaded ({reason}); if you have {name}_64.npz, give its path instead"
        ) from error
    return Path(file)
