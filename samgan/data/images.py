"""Read the images of a folder or an array as they are, to score, audit or learn from them."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from samgan.errors import SamganError, first_line

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
KINDS = {"L": "8-bit grey", "RGB": "8-bit RGB", "I;16": "16-bit grey"}


def load_images(path: str | Path) -> UInt8[Tensor, "n c h w"]:
    """Read a folder of images in the order of their names, or one .npy or .npz array.

    Args:
        path: one of

            * a folder (its sub-folders are not read) of PNG, JPEG or TIFF files of one size, all 8-bit grey, all 8-bit
              RGB, or all 16-bit grey PNG, which are rounded to 8 bits (value / 257);
            * a folder without such files, but with the samples.npz of `samgan sample --format npz`;
            * an array of uint8 [n h w], [n c h w] or [n h w c]; in a .npz it is the only one or is named "images".

    Returns:
        Images with one channel or three.

    Raises:
        SamganError: there is nothing, sizes or kinds are mixed, or a depth is not supported. The message names the
            file.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    if path.suffix not in {".npy", ".npz"} or not path.exists():
        raise SamganError(f"{path}: expected an existing folder of images, or a .npy or .npz file")
    try:
        with open(path, "rb") as file:
            array = np.load(file, allow_pickle=False)
            if path.suffix == ".npz":
                names = array.files
                name = names[0] if len(names) == 1 else "images"
                array = array[name] if name in names else None
    except Exception as error:  # zip, header and pickle errors have no common class
        raise SamganError(f"{path} is not a readable array: {first_line(error)}") from error
    if array is None:
        raise SamganError(f'{path}: expected an array named "images", found {", ".join(names)}')
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] not in (1, 3) or not array.size:
        raise SamganError(
            f"{path}: expected uint8 images [n h w], [n c h w] or [n h w c] with 1 or 3 channels, got {array.dtype} "
            f"{list(array.shape)}"
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def image_files(folder: Path) -> list[Path]:
    """The files of a folder with the suffix of an image, in the order of `load_images`."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)


def _load_folder(folder: Path) -> Tensor:
    """All images of a folder, in the order of their names, or its array of samples if there are no image files."""
    files = image_files(folder)
    if not files:
        if (folder / "samples.npz").is_file():
            return load_images(folder / "samples.npz")
        raise SamganError(f"{folder} holds no PNG, JPEG or TIFF files and no samples.npz")
    images: list[np.ndarray] = []
    expected = ""
    for file in files:
        array, kind = _load_image(file)
        expected = expected or kind
        if kind != expected:
            raise SamganError(
                f"{file} is {kind}, but {files[0].name} is {expected}: convert all images to one size and kind first"
            )
        images.append(array)
    return torch.from_numpy(np.stack(images))


def _load_image(file: Path) -> tuple[UInt8[np.ndarray, "c h w"], str]:
    """One image, and its size and kind in words."""
    try:
        with Image.open(file, formats=("PNG", "JPEG", "TIFF")) as image:
            # A TIFF may hold its 16 bits inverted, and Pillow does not correct that.
            if image.mode not in KINDS or (image.mode == "I;16" and image.format != "PNG"):
                raise SamganError(
                    f"{file}: expected 8-bit grey or RGB, or a 16-bit grey PNG, got {image.format} of mode {image.mode}"
                )
            if image.format == "TIFF" and (pages := getattr(image, "n_frames", 1)) > 1:
                raise SamganError(f"{file}: expected one image, got {pages} pages: save each as a separate file")
            array = np.asarray(image)
            kind = f"{image.width}x{image.height} px {KINDS[image.mode]}"
    except SamganError:
        raise
    except Exception as error:  # on damaged files decoders raise nearly anything
        raise SamganError(f"{file} is not a readable image: {first_line(error)}") from error
    if array.dtype == np.uint16:
        array = np.rint(array / 257).astype(np.uint8)
    return np.atleast_3d(array).transpose(2, 0, 1), kind
