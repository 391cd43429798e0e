"""List and read the images of a folder, a .zip, a MedMNIST-style .npz, or a MedMNIST set fetched by name."""

import contextlib
import functools
import hashlib
import lzma
import os
import stat
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from samgan.cache import download_folder
from samgan.data.documents import BadFile, LabelsUsed
from samgan.data.readers import HEAD_BYTES, IMAGE_SUFFIXES, MAXIMUM_BYTES, is_recognised
from samgan.errors import SamganError, UsageError, one_line

OTHER_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".pdf", ".xlsx")
MASK_FOLDERS = ("mask", "masks")  # segmentation masks next to the radiographs, as in COVID-19 Radiography Database
SPLITS = {"train": "train", "training": "train"} | dict.fromkeys(
    ("val", "valid", "validation", "test", "testing", "holdout"), "holdout"
)
MEDMNIST_URL = "https://zenodo.org/records/10519652/files/{name}_64.npz?download=1"
MEDMNIST_MD5 = {
    "pneumoniamnist": "8f4eceb4ccffa70c672198ea285246c6",
    "chestmnist": "9de6cd0b934ebb5b7426cfba5efbae16",
}
NPZ_CLASSES = {"pneumoniamnist": ("normal", "pneumonia")}
MAXIMUM_ARRAY_BYTES = 16 * 2**30
DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, ValueError)
"""What zipfile and its decompressors raise on archives that are damaged, encrypted or compressed in an unknown way."""


class Entry(NamedTuple):
    """One image in a source, before it is read."""

    path: str
    """Relative to the source, with forward slashes."""
    size: int
    version: int
    """Modification time in ns; the CRC of a zip member."""
    class_name: str
    split: str
    """"train" or "holdout" if the source itself says so; otherwise empty."""
    patient: str = ""
    """Whom the image shows, if a folder or a table tells it."""
    view: str = ""
    """Such as PA or AP, if a table tells it."""


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
    labels: LabelsUsed | None = None
    """The tables that the classes come from; None if they come from the source itself."""


def open_source(source: str | Path) -> Source:
    """List a source without reading its images.

    Sub-folders are classes; without sub-folders there is one class, named after the folder. If every top folder is
    named like a split (train, val, test, ...), the level below holds the classes and the source's split is kept: train
    stays train, val and test become holdout. The same is true of the arrays of an .npz.

    Args:
        source: a folder, a .zip of one, an .npz with {train,val,test}_{images,labels}, or "medmnist:<name>".

    Raises:
        UsageError: there is no such source.
        SamganError: the source is unsafe, is damaged, cannot be downloaded, or holds no images.
    """
    if str(source).startswith("medmnist:"):
        path = _fetch_medmnist(str(source).removeprefix("medmnist:"))
        name = identity = str(source)
    else:
        path = Path(source).expanduser()
        name = path.resolve().name
        identity = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    if path.is_dir():
        entries, ignored = _list_folder(path)
    elif path.suffix.lower() == ".zip" and path.is_file():
        entries, ignored = _list_zip(path)
    elif path.suffix.lower() == ".npz" and path.is_file():
        entries, ignored = _list_npz(path), {}
    else:
        known = ", ".join(f"medmnist:{known}" for known in MEDMNIST_MD5)
        raise UsageError(f"{source}: expected a folder, a .zip, an .npz or one of {known}")
    if not entries:
        suffixes = " ".join(IMAGE_SUFFIXES)
        raise SamganError(f"{source}: no images found (known suffixes: {suffixes}; DICOM files need none)")
    if {entry.split for entry in entries} != {"train", "holdout"}:  # a single part is not a split
        entries = [entry._replace(split="") for entry in entries]
    return Source(name, identity, path, sorted(entries, key=lambda entry: entry.path), ignored)


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
                yield _load_array(path, path.stat().st_mtime_ns, f"{split}_images")[int(index)]
        except (SamganError, *DAMAGE) as error:
            yield error


def close_sources() -> None:
    """Close the archives and drop the arrays that `read_entries` keeps from one call to the next."""
    _open_zip.cache_clear()
    _load_array.cache_clear()


# folder and zip


def _is_image(path: PurePosixPath, head: bytes | None) -> bool:
    """Decide by the suffix, otherwise by the first bytes of the file (`head`; None if they were not read)."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    return head is not None and is_recognised(head) and path.name.upper() != "DICOMDIR"


def _is_skipped(path: PurePosixPath) -> bool:
    parts = path.parts
    return any(part.startswith((".", "__MACOSX")) for part in parts) or any(
        part.lower() in MASK_FOLDERS for part in parts[1:-1]
    )


def _classify(found: list[tuple[str, int, int]], root_name: str, strip: int = 0) -> list[Entry]:
    """Give every file its class and split by the folders it is in; the first `strip` folders do not count."""
    folders = [PurePosixPath(path).parts[strip:-1] for path, _, _ in found]
    has_splits = all(parts and parts[0].lower() in SPLITS for parts in folders)
    entries = []
    for (path, size, version), parts in zip(found, folders, strict=True):
        split = SPLITS[parts[0].lower()] if has_splits else ""
        parts = parts[1:] if has_splits else parts
        entries.append(Entry(path, size, version, parts[0] if parts else root_name, split))
    return entries


def _list_folder(root: Path) -> tuple[list[Entry], dict[str, int]]:
    found: list[tuple[str, int, int]] = []
    ignored: Counter[str] = Counter()
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_refuse_folder):
        real_folder = os.path.realpath(folder)
        if real_folder in seen:  # a link to a folder above
            subfolders.clear()
            continue
        seen.add(real_folder)
        for name in names:
            file = Path(folder, name)
            path = PurePosixPath(file.relative_to(root).as_posix())
            if _is_skipped(path):
                continue
            looks_other = path.suffix.lower() in OTHER_SUFFIXES
            if _is_image(path, None) or (not looks_other and _is_image(path, _head(file))):
                size, version = 0, 0
                with contextlib.suppress(OSError):  # a broken link is listed, so that reading it gives the reason
                    size, version = file.stat().st_size, file.stat().st_mtime_ns
                found.append((str(path), size, version))
            else:
                ignored[path.suffix.lower()] += 1
    return _classify(found, root.resolve().name), dict(sorted(ignored.items()))


def _refuse_folder(error: OSError) -> None:
    raise SamganError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _head(file: Path) -> bytes | None:
    try:
        if not file.is_file():  # reading a named pipe would wait for ever
            return None
        with open(file, "rb") as opened:
            return opened.read(HEAD_BYTES)
    except OSError:
        return None


def _read_file(file: Path) -> bytes:
    if file.exists() and not file.is_file():
        raise SamganError("not a regular file")
    with open(file, "rb") as opened:
        data = opened.read(MAXIMUM_BYTES + 1)
    if len(data) > MAXIMUM_BYTES:
        raise SamganError(f"larger than {MAXIMUM_BYTES // 2**20} MiB")
    return data


def _list_zip(archive: Path) -> tuple[list[Entry], dict[str, int]]:
    found = []
    ignored: Counter[str] = Counter()
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                _refuse_unsafe(archive, info)
                path = PurePosixPath(info.filename)
                if info.is_dir() or _is_skipped(path):
                    continue
                looks_other = path.suffix.lower() in OTHER_SUFFIXES
                if _is_image(path, None) or (not looks_other and _is_image(path, _member_head(opened, info))):
                    found.append(
                        (info.filename, info.file_size, info.CRC)
                    )  # unchanged: ./A//1.png is found only by this name
                else:
                    ignored[path.suffix.lower()] += 1
    except DAMAGE as error:
        raise SamganError(f"{archive}: not a readable zip archive ({error})") from error
    # `zip -r set.zip set` puts everything into one folder, which is the set and not a class
    tops = {PurePosixPath(path).parts[0] for path, _, _ in found}
    wrapped = len(tops) == 1 and all(len(PurePosixPath(path).parts) > 2 for path, _, _ in found)
    return _classify(found, archive.stem, strip=int(wrapped)), dict(sorted(ignored.items()))


def _refuse_unsafe(archive: Path, info: zipfile.ZipInfo) -> None:
    """Refuse the whole archive if unpacking it would write one member outside its folder."""
    name = info.filename.replace("\\", "/")
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    if is_link or name.startswith("/") or ".." in name.split("/") or name[1:2] == ":":
        kind = "a symbolic link" if is_link else "a path outside the archive"
        raise SamganError(f"{archive} was refused: its member {info.filename!r} is {kind}")


def _member_head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | None:
    try:
        with archive.open(info) as opened:
            return opened.read(HEAD_BYTES)
    except DAMAGE:
        return None


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
            if sum(info.file_size for info in opened.infolist()) > MAXIMUM_ARRAY_BYTES:
                raise SamganError(f"{path}: expected at most {MAXIMUM_ARRAY_BYTES // 2**30} GiB of arrays")
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
    if not entries:
        raise SamganError(f"{path}: expected arrays {{train,val,test}}_{{images,labels}}, found {sorted(names)}")
    return entries


@functools.lru_cache(maxsize=2)
def _load_array(path: Path, version: int, name: str) -> Shaped[np.ndarray, "..."]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array = arrays[name]
    except Exception as error:  # DAMAGE, and whatever numpy raises on a broken header
        raise SamganError(f"{path}: {name} cannot be read ({one_line(error)}); pickles are not allowed") from error
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
