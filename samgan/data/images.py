"""Read the images of a folder or an array, to score, audit or learn from them, as `prepare` reads them."""

import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from samgan.data.dataset import PreparedSet
from samgan.data.fit import fit_image
from samgan.data.readers import HEAD_BYTES, lacks_depth, read_extremes, read_radiograph, strict_decoders
from samgan.data.readers.dicom import is_dicom
from samgan.data.readers.pillow import PIL_FORMATS
from samgan.data.readers.radiograph import GUESSED, BadImageError, Radiograph, Scales
from samgan.data.sources import Source, read_entries, samples_npz
from samgan.data.sources.layout import Entry
from samgan.data.sources.listing import images_in_folder
from samgan.data.survey import Survey, survey_depth
from samgan.errors import WARNING, SamganError, first_line

ARCHIVES = ("samples.npz", "medmnist.npz")
"""What `samgan sample` writes in place of single files."""
ARRAYS = (".npy", ".npz")
MEDMNIST = ("train_images", "val_images", "test_images")
GREY_MODES = ("1", "L", "LA", "La", "I", "F")
"""Of Pillow, beside those that begin with "I;"."""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
DEEP = (".png", ".tif", ".tiff")
"""Suffixes of files whose format may leave the bit depth open."""
DARK = 16
"""A 16-bit image whose largest value is below this, of 255, is nearly black."""
NAMED = 5
"""So many sub-folders are named in a message."""


class Pictures(NamedTuple):
    """The images of a folder or an array."""

    images: UInt8[Tensor, "n c h w"]
    """With one channel or three."""
    names: tuple[str, ...]
    """Of the files; empty for an array."""
    said: tuple[str, ...] = ()
    """What was done to the images, one sentence each."""


class _Stored(NamedTuple):
    """One image as it is stored."""

    data: bytes | np.ndarray
    """The file, or the values [h w] or [h w c]."""
    where: str
    """For messages."""
    is_synthetic: bool = False
    """Whether the archive says so; of a file, its reader tells it."""


class _Image(NamedTuple):
    """One image as it is read."""

    radiograph: Radiograph
    is_colour: bool
    """As it is stored."""
    is_synthetic: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.radiograph.pixels.shape[2], self.radiograph.pixels.shape[1]

    @property
    def kind(self) -> str:
        """Its size and colour in words."""
        return f"{_px(self.size)} {'RGB' if self.is_colour else 'grey'}"


def read_pictures(path: str | Path, like: PreparedSet | None = None) -> Pictures:
    """Read a folder of images in the order of their names, or one .npy or .npz array, one image after the other.

    Files are found and decoded as by `samgan.data.prepare`: EXIF's rotation, DICOM's window, junk of the system and all
    formats are the same. Images of the size of `like` are taken as they are, rounded to 8 bits; 16-bit grey PNG counts
    as 16 bits deep (value / 257). If the images have another size, or if one of them is a file that `like` was prepared
    from, they are real images before preparation: all of them are prepared with the options of `like`. Those that say
    that they are synthetic are never changed.

    Args:
        path: one of

            * a folder of images (its sub-folders are not read);
            * a folder without images that `samgan sample` wrote, in any of its formats;
            * an array of uint8 [n h w], [n c h w] or [n h w c]; in a .npz it is the only one, is named "images", or has
              the names of MedMNIST's.
        like: the set that the images will be compared with; None: they are of one size, and stay as they are.

    Raises:
        SamganError: there is nothing, an image cannot be used or fitted, or sizes are mixed and `like` is None. The
            message names the file.
    """
    path = Path(path)
    files = picture_files(path)
    with strict_decoders():
        if files[0].suffix.lower() in ARRAYS:
            return _read_array(files[0], like)
        images, said = _read_all(len(files), lambda: _open_files(files), like, lambda like: _survey(files, like))
        return Pictures(images, tuple(file.name for file in files), said)


def picture_files(path: Path) -> list[Path]:
    """The image files, or the one .npz or .npy file, that `read_pictures` reads for a path.

    Raises:
        SamganError: there are none.
    """
    if not path.is_dir():
        if path.suffix.lower() not in ARRAYS or not path.exists():
            raise SamganError(f"{path}: expected an existing folder of images, or a .npy or .npz file")
        return [path]
    try:
        if files := images_in_folder(path):
            return files
        if archives := [path / name for name in ARCHIVES if (path / name).is_file()]:
            return archives[:1]
        if (path / "train" / "metadata.csv").is_file() and (files := images_in_folder(path / "train")):
            return files
        below = sorted(each.name for each in path.iterdir() if each.is_dir() and images_in_folder(each))
    except OSError as error:
        raise SamganError(f"{path} cannot be listed: {error.strerror}") from None
    if below:
        names = ", ".join(below[:NAMED]) + (", ..." if len(below) > NAMED else "")
        raise SamganError(f"{path} holds no images itself, but {names} in it: name one of these folders")
    raise SamganError(f"{path} holds no images and no {' or '.join(ARCHIVES)}")


def _open_files(files: Sequence[Path]) -> Iterator[_Stored]:
    """Read one file after the other."""
    for file, data in zip(files, read_entries(files[0].parent, _entries(files)), strict=True):
        if isinstance(data, Exception):
            reason = getattr(data, "strerror", None) or data
            raise SamganError(f"{file} cannot be read ({reason}): remove or replace it")
        yield _Stored(data, str(file))


def _entries(files: Sequence[Path]) -> list[Entry]:
    return [Entry(file.name, file.stat().st_size if file.exists() else 0, 0, "", "") for file in files]


def _read_array(path: Path, like: PreparedSet | None) -> Pictures:
    array, parts, is_synthetic = _load_array(path)
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3) or not array.size:
        raise SamganError(
            f"{path}: expected uint8 images [n h w], [n c h w] or [n h w c] with 1 or 3 channels, got {array.dtype} "
            f"{list(array.shape)}"
        )
    if like is None:
        return Pictures(torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))), ())

    def stored() -> Iterator[_Stored]:
        return (_Stored(image, f"{path}, image {index}", is_synthetic) for index, image in enumerate(array))

    images, said = _read_all(len(array), stored, like, lambda like: Survey(GUESSED, ()))
    together = (f"the {', '.join(parts)} of {path.name} are taken together",) if len(parts) > 1 else ()
    return Pictures(images, (), together + said)


def _load_array(path: Path) -> tuple[np.ndarray, list[str], bool]:
    """The array of images, the names of those that it was joined from, and whether it says that it is synthetic."""
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, [], False
            names = list(loaded.files)
            parts = [name for name in MEDMNIST if name in names]
            parts = [name for name in parts if len(loaded[name])] or parts
            wanted = names if len(names) == 1 else ["images"] if "images" in names else parts
            arrays = [loaded[name] for name in wanted]
            is_synthetic = "provenance" in names and samples_npz.is_synthetic(loaded["provenance"])
            if arrays:
                return np.concatenate(arrays) if len(arrays) > 1 else arrays[0], wanted, is_synthetic
    except Exception as error:  # zip, header and pickle errors have no common class
        raise SamganError(f"{path} is not a readable array: {first_line(error)}") from error
    raise SamganError(f'{path}: expected an array named "images", found {", ".join(names)}')


def _read_all(
    count: int,
    stored: Callable[[], Iterator[_Stored]],
    like: PreparedSet | None,
    survey: Callable[[PreparedSet], Survey],
) -> tuple[Tensor, tuple[str, ...]]:
    """All images as they are; or, from the start, prepared like the set if one of them is found to need that.

    Args:
        count: Number of images, 1 or more.
        stored: Gives all images, from the first, each time it is called.
        like: The set to compare with.
        survey: Finds the bit depth of images whose format does not declare it, before they are prepared.
    """
    if (images := _take_all(count, stored(), like)) is not None:
        return images
    like = _checked(like)
    depth = survey(like)
    fitted, said = _prepare_all(count, stored(), like, depth.scales)
    return fitted, said + depth.sentences


def _take_all(count: int, stored: Iterator[_Stored], like: PreparedSet | None) -> tuple[Tensor, tuple[str, ...]] | None:
    """All images as they are; None if one of them has to be prepared."""
    known = frozenset(row.sha256 for row in like.manifest) if like else frozenset()
    colours = unmarked = dark = guessed = 0
    first: _Image | None = None
    for index, each in enumerate(stored):
        image = _read(each, like.channels if like else None)
        if like and _must_be_prepared(image, each, like, known):
            return None
        if first is None:
            first, first_where = image, Path(each.where).name
            taken = np.empty((count, *image.radiograph.pixels.shape), np.uint8)
        if image.radiograph.pixels.shape != taken.shape[1:]:
            raise SamganError(
                f"{each.where} is {image.kind}, but {first_where} is {first.kind}: convert all images to one size and "
                "kind first"
            )
        taken[index] = _as_stored(image, each)
        colours, unmarked = colours + image.is_colour, unmarked + (not image.is_synthetic)
        if not image.is_synthetic and lacks_depth(
            each.data[:HEAD_BYTES] if isinstance(each.data, bytes) else each.data
        ):
            dark += _is_deep_png(each.data) and int(taken[index].max()) < DARK
            guessed += 8 < image.radiograph.bits < 32 and not _is_deep_png(each.data) and bool(read_extremes(each.data))
    said = list(_of_channels(colours, count, like)) if like else []
    options = like.info.options if like else None
    if like and options and options.normalize != "none" and unmarked:
        said.append(
            f"the images have {_px((like.resolution,) * 2)}, as those of {like.path.name}, and are taken as they are: "
            f"normalize {options.normalize} is not applied to them"
        )
    if dark:
        said.append(
            f"{WARNING}{dark} of {count} images are 16-bit PNG that use less than 1/16 of 16 bits, so they are nearly "
            "black here: if they have fewer bits, save them as 8-bit PNG"
        )
    if guessed:
        said.append(
            f"{guessed} of {count} images do not declare their bit depth: white is the full scale of the smallest "
            "depth that holds each image's largest value. If they have one depth, save them as 8-bit PNG"
        )
    return torch.from_numpy(taken), tuple(said)


def _is_deep_png(data: bytes | np.ndarray) -> bool:
    """Whether this is a PNG of 16-bit grey."""
    return isinstance(data, bytes) and data.startswith(PNG_MAGIC) and data[24:26] == b"\x10\0"


def _survey(files: Sequence[Path], like: PreparedSet) -> Survey:
    """The depth that the set has, if it is known; otherwise that of the files, which is found as `prepare` does."""
    rows = [row.bits for row in like.manifest if Path(row.source).suffix.lower() in DEEP]
    depths = Counter(bits for bits in rows if 8 < bits < 32)
    bits = (like.info.options and like.info.options.bits) or next((bits for bits, _ in depths.most_common(1)), None)
    source = Source("", "", files[0].parent, _entries(files), {})
    with tempfile.TemporaryDirectory() as folder:
        return survey_depth(source, Path(folder), bits, None)


def _prepare_all(
    count: int, stored: Iterator[_Stored], like: PreparedSet, scales: Scales
) -> tuple[Tensor, tuple[str, ...]]:
    """All images prepared with the options of the set; but synthetic ones, which have its size, as they are."""
    options = like.info.options
    assert options is not None
    fitted = np.empty((count, *like.images.shape[1:]), np.uint8)
    sizes: Counter[tuple[int, int]] = Counter()
    colours = 0
    for index, each in enumerate(stored):
        image = _read(each, options.channels, scales)
        if image.is_synthetic:
            _must_be_prepared(image, each, like, frozenset())
            fitted[index] = _as_stored(image, each)
        else:
            fitted[index] = fit_image(image.radiograph.pixels, options.resolution, options.fit, options.normalize)
            sizes[image.size] += 1
        colours += image.is_colour
    return torch.from_numpy(fitted), (*_of_sizes(sizes, like), *_of_channels(colours, count, like))


def _checked(like: PreparedSet | None) -> PreparedSet:
    """The set, which must say how it was prepared."""
    assert like is not None
    if like.info.options is None:
        raise SamganError(
            f"{like.path} does not say how it was prepared, so images of another size than {like.resolution}x"
            f"{like.resolution} px cannot be fitted in the same way: prepare the set again"
        )
    return like


def _read(each: _Stored, channels: int | None, scales: Scales = GUESSED) -> _Image:
    """Decode one image with so many channels; None: as it is stored."""
    is_colour = _is_colour(each.data)
    try:
        radiograph = read_radiograph(each.data, channels or (3 if is_colour else 1), scales=scales, allow_blank=True)
    except BadImageError as error:
        raise SamganError(f"{each.where} cannot be used ({error}): remove or replace it") from None
    return _Image(radiograph, is_colour, each.is_synthetic or radiograph.is_synthetic)


def _is_colour(data: bytes | np.ndarray) -> bool:
    """Whether an image is stored in colour; False if it cannot be told, and `read_radiograph` gives the reason."""
    if isinstance(data, np.ndarray):
        return data.shape[-1] == 3
    try:
        if is_dicom(data[:HEAD_BYTES]):
            import pydicom

            tags = ["SamplesPerPixel", "PhotometricInterpretation"]
            head = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True, specific_tags=tags)
            return head.get("SamplesPerPixel") == 3 or head.get("PhotometricInterpretation") == "PALETTE COLOR"
        with Image.open(io.BytesIO(data), formats=PIL_FORMATS) as image:
            palette = image.getpalette() or [0]
            if image.mode in ("P", "PA"):
                return not palette[::3] == palette[1::3] == palette[2::3]
            return image.mode not in GREY_MODES and not image.mode.startswith("I;")
    except Exception:  # decoders raise nearly anything on damaged input
        return False


def _must_be_prepared(image: _Image, each: _Stored, like: PreparedSet, known: frozenset[str]) -> bool:
    """Whether an image is a real one before preparation.

    Raises:
        SamganError: it has another size than the set, and says that it is synthetic.
    """
    if not image.is_synthetic:
        return image.size != (like.resolution,) * 2 or _sha256(each.data) in known
    if image.size != (like.resolution,) * 2:
        raise SamganError(
            f"{each.where} has {_px(image.size)} and says that it is synthetic, {like.path} has {like.resolution}x"
            f"{like.resolution} px: synthetic images are not resized, so compare them with a set of their own size"
        )
    return False


def _sha256(data: bytes | np.ndarray) -> str:
    """As in a set's manifest."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest()


def _as_stored(image: _Image, each: _Stored) -> UInt8[np.ndarray, "c h w"]:
    """The values of an image without changes, rounded to 8 bits."""
    if _is_deep_png(each.data):
        # 16-bit grey, which was divided by the full scale of the bits in use
        values = np.rint(image.radiograph.pixels.astype(np.float64) * (2**image.radiograph.bits - 1))
        return np.rint(values / 257).astype(np.uint8)
    return np.rint(image.radiograph.pixels * np.float32(255)).clip(0, 255).astype(np.uint8)


def _of_sizes(sizes: Counter[tuple[int, int]], like: PreparedSet) -> Iterator[str]:
    """What was done to the sizes."""
    options, side = like.info.options, like.resolution
    assert options is not None
    how = f"was prepared: {options.fit}, normalize {options.normalize}"
    if set(sizes) - {(side, side)}:
        several = sorted(sizes, key=lambda size: size[0] * size[1])
        of = _px(several[0]) if len(several) == 1 else f"{_px(several[0])} to {_px(several[-1])}"
        smaller = sum(number for size, number in sizes.items() if min(size) < side)
        enlarged = f"; {smaller} were smaller, and are enlarged" if smaller else ""
        yield f"{sizes.total()} images of {of} were fitted to {side}x{side} px as {like.path.name} {how}{enlarged}"
    elif options.normalize != "none":
        yield f"{sizes.total()} images are files that {like.path.name} was prepared from, and were read as it {how}"


def _of_channels(colours: int, count: int, like: PreparedSet) -> Iterator[str]:
    """What was done to the channels."""
    if like.channels == 1 and colours:
        yield f"{colours} images are stored in colour, and were made grey as those of {like.path.name}"
    if like.channels == 3 and colours < count:
        yield f"{count - colours} images are grey, and were given three equal channels as those of {like.path.name}"


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} px"
