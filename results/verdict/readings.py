"""The readings of "MS-SSIM of the real images" that `paper_table.py likeness` measures."""

import dataclasses
import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from samgan.data.fit import NORMALIZERS, fit_image
from samgan.metrics.legacy import sewar_ms_ssim
from samgan.metrics.ms_ssim import ms_ssim, random_pairs

PAIRS = 2000
Images = Callable[[Path], Tensor]
"""All images of a folder in the order of their numbers, uint8 [n c h w]."""
Couples = Callable[[Path], Tensor]
"""Indices of the two images of each pair [pairs 2]."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to compute "MS-SSIM of the real images"."""

    images: Images
    couples: Couples
    measure: Callable[[Tensor, Tensor], Tensor] = ms_ssim


def files(folder: Path) -> list[Path]:
    """The images of the folder in the order of their numbers: COVID-1, COVID-2, ..."""
    found = sorted(folder.glob("*.png"), key=lambda path: int(re.findall(r"\d+", path.stem)[-1]))
    if len(found) < 3:
        raise SystemExit(f"{folder}: expected three or more files with names like COVID-1.png, found {len(found)}")
    return found


@lru_cache(maxsize=1)
def originals(folder: Path) -> list[np.ndarray]:
    """The images as they are stored, uint8 [h w]."""
    return [np.asarray(Image.open(path).convert("L")) for path in files(folder)]


def resize(image: np.ndarray, side: int, way: str) -> np.ndarray:
    """Resize one image: as `samgan prepare` does, also with one of its NORMALIZERS, or in another way."""
    if way in NORMALIZERS:
        return fit_image(image[None].astype(np.float32) / 255, side, normalize=way)[0]
    if way == "bilinear without antialiasing":  # as OpenCV and older tensor code do
        plane = torch.from_numpy(image.astype(np.float32))[None, None]
        enlarged = F.interpolate(plane, (side, side), mode="bilinear", align_corners=False)
        return enlarged.round().clamp(0, 255).byte().numpy()[0, 0]
    if way == "equalized":
        return np.asarray(ImageOps.equalize(Image.fromarray(resize(image, side, "none"))))
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling[way.upper()]))


@lru_cache(maxsize=4)
def at(folder: Path, side: int, way: str = "none", past: int | None = None) -> Tensor:
    """All images at one size, uint8 [n 1 side side]; `past`: first made so small, and then enlarged."""
    small = originals(folder) if past is None else [image[0].numpy() for image in at(folder, past)]
    return torch.from_numpy(np.stack([resize(image, side, way) for image in small]))[:, None]


def size(side: int, way: str = "none", past: int | None = None) -> Images:
    """Images of one size."""
    return lambda folder: at(folder, side, way, past)


def coloured(side: int, way: str = "none") -> Images:
    """Images with three equal channels."""
    return lambda folder: at(folder, side, way).expand(-1, 3, -1, -1)


def with_mirrored(folder: Path) -> Tensor:
    """The set twice as large: after all images of 64 px all their mirror images."""
    images = at(folder, 64)
    return torch.cat([images, images.flip(3)])


def distinct(folder: Path) -> Tensor:
    """Indices of images without those that equal an earlier one at 64 px."""
    first: dict[bytes, int] = {}
    for index, image in enumerate(at(folder, 64)):
        first.setdefault(image.numpy().tobytes(), index)
    return torch.tensor(list(first.values()))


def everything(folder: Path) -> Tensor:
    """Indices of all images in the order of their numbers."""
    return torch.arange(len(files(folder)))


def alphabetical(folder: Path) -> Tensor:
    """Indices of all images in the order of their names: COVID-1, COVID-10, COVID-100, ..."""
    names = [path.name for path in files(folder)]
    return torch.tensor(sorted(range(len(names)), key=names.__getitem__))


def part(of: Couples, selection: slice) -> Couples:
    """A part of an order."""
    return lambda folder: of(folder)[selection]


def of_side(side: int) -> Couples:
    """Indices of images that are stored with this side."""
    return lambda folder: torch.tensor([i for i, image in enumerate(originals(folder)) if len(image) == side])


def at_random(of: Couples = everything, pairs: int | None = PAIRS) -> Couples:
    """Random pairs with seed 0; without a number, as many as images."""

    def couples(folder: Path) -> Tensor:
        chosen = of(folder)
        return chosen[random_pairs(len(chosen), pairs or len(chosen))]

    return couples


def neighbours(of: Couples = everything) -> Couples:
    """Each image and the next one in this order."""
    return lambda folder: torch.stack([of(folder)[:-1], of(folder)[1:]], dim=1)


def doubled(folder: Path) -> Tensor:
    """Random pairs of the set with its mirror images."""
    return random_pairs(2 * len(files(folder)), PAIRS)


def scaled(factor: float, zero: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    """MS-SSIM of (value - zero) * factor, with the constants of values up to 255."""
    return lambda a, b: ms_ssim((a.float() - zero) * factor, (b.float() - zero) * factor)


def small_window(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM with five scales and a window of 3 px, the largest that pytorch-msssim accepts at 64 px."""
    from pytorch_msssim import ms_ssim as windowed

    return windowed(a.float(), b.float(), data_range=255, size_average=False, win_size=3)


def one_scale(a: Tensor, b: Tensor) -> Tensor:
    """SSIM, of one scale, with scikit-image's defaults: a flat window of 7 px."""
    from skimage.metrics import structural_similarity

    both = zip(a[:, 0].numpy(), b[:, 0].numpy(), strict=True)
    return torch.tensor([structural_similarity(x, y, data_range=255) for x, y in both], dtype=torch.float64)


SEWAR = partial(sewar_ms_ssim, num_scales=5)
FOUR, THREE = partial(sewar_ms_ssim, num_scales=4), partial(sewar_ms_ssim, num_scales=3)
PLAIN, GROUP, SMALL = size(64), size(128, "bicubic"), size(128, "bicubic", past=64)
RANDOM, IN_ORDER, BY_NAME = at_random(), neighbours(), neighbours(alphabetical)
READINGS: dict[str, Reading] = {
    # The definition of samgan.metrics at the paper's size, and files of it
    "64 px, copies left out, a pair per image": Reading(PLAIN, at_random(distinct, None)),
    "64 px, all files, a pair per image": Reading(PLAIN, at_random(pairs=None)),
    "64 px, all files, ten pairs per image": Reading(PLAIN, at_random(pairs=36160)),
    "64 px": Reading(PLAIN, RANDOM),
    "64 px, three equal channels": Reading(coloured(64), RANDOM),
    "64 px, with all mirror images": Reading(with_mirrored, doubled),
    "64 px, files 1 to 1,000": Reading(PLAIN, at_random(part(everything, slice(1000)))),
    "64 px, the last 1,000 files": Reading(PLAIN, at_random(part(everything, slice(-1000, None)))),
    "64 px, the first 1,000 by name": Reading(PLAIN, at_random(part(alphabetical, slice(1000)))),
    "64 px, files stored at 256 px": Reading(PLAIN, at_random(of_side(256))),
    "64 px, files stored at 224 px": Reading(PLAIN, at_random(of_side(224))),
    "64 px, neighbours by number": Reading(PLAIN, IN_ORDER),
    "64 px, neighbours by name": Reading(PLAIN, BY_NAME),
    # Resizing and contrast
    "64 px, Pillow bilinear": Reading(size(64, "bilinear"), RANDOM),
    "64 px, Pillow bicubic": Reading(size(64, "bicubic"), RANDOM),
    "64 px, Pillow bilinear, neighbours by number": Reading(size(64, "bilinear"), IN_ORDER),
    "64 px, Pillow bilinear, neighbours by name": Reading(size(64, "bilinear"), BY_NAME),
    "64 px, Pillow bicubic, neighbours by number": Reading(size(64, "bicubic"), IN_ORDER),
    "64 px, nearest": Reading(size(64, "nearest"), RANDOM),
    "64 px, bilinear without antialiasing": Reading(size(64, "bilinear without antialiasing"), RANDOM),
    "64 px, contrast stretched": Reading(size(64, "percentile"), RANDOM),
    "64 px, adaptive equalization (CLAHE)": Reading(size(64, "clahe"), RANDOM),
    "64 px, histogram equalized": Reading(size(64, "equalized"), RANDOM),
    # Other sizes
    "128 px": Reading(size(128), RANDOM),
    "256 px": Reading(size(256), RANDOM),
    "299 px": Reading(size(299), RANDOM),
    "64 px, then enlarged to 128 px": Reading(SMALL, RANDOM),
    "64 px, then enlarged to 256 px": Reading(size(256, "bicubic", past=64), RANDOM),
    "64 px, then enlarged to 299 px": Reading(size(299, "bicubic", past=64), RANDOM),
    "128 px, neighbours by number": Reading(size(128), IN_ORDER),
    # The group's code
    "group's code: 128 px, neighbours by number": Reading(GROUP, IN_ORDER, SEWAR),
    "group's code: 128 px, neighbours by name": Reading(GROUP, BY_NAME, SEWAR),
    "group's code: 128 px, random order": Reading(GROUP, RANDOM, SEWAR),
    "group's code: 128 px, random order, three equal channels": Reading(coloured(128, "bicubic"), RANDOM, SEWAR),
    "group's code: 64 to 128 px, neighbours by number": Reading(SMALL, IN_ORDER, SEWAR),
    "group's code: 64 to 128 px, neighbours by number, copies left out": Reading(SMALL, neighbours(distinct), SEWAR),
    "group's code: 64 to 128 px, neighbours by name": Reading(SMALL, BY_NAME, SEWAR),
    "group's code: 64 to 128 px, random order": Reading(SMALL, RANDOM, SEWAR),
    "newer sewar, four scales: 128 px, neighbours by number": Reading(GROUP, IN_ORDER, FOUR),
    "newer sewar, four scales: 128 px, random order": Reading(GROUP, RANDOM, FOUR),
    "newer sewar, four scales: 64 to 128 px, random order": Reading(SMALL, RANDOM, FOUR),
    "newer sewar, three scales: 64 px": Reading(PLAIN, RANDOM, THREE),
    "sewar, five scales: 64 px": Reading(PLAIN, RANDOM, SEWAR),
    "sewar, five scales: 64 px, neighbours by number": Reading(PLAIN, IN_ORDER, SEWAR),
    "sewar, five scales: 64 px, Pillow bilinear, neighbours by number": Reading(size(64, "bilinear"), IN_ORDER, SEWAR),
    # Other definitions, and wrong ranges
    "64 px, window of 3 px (pytorch-msssim)": Reading(PLAIN, RANDOM, small_window),
    "64 px, one scale (SSIM of scikit-image)": Reading(PLAIN, RANDOM, one_scale),
    "64 px, values 0 to 1 taken for 0 to 255": Reading(PLAIN, RANDOM, scaled(1 / 255)),
    "64 px, values -1 to 1 taken for 0 to 255": Reading(PLAIN, RANDOM, scaled(2 / 255, 127.5)),
    "64 px, values 0 to 255 taken for 0 to 1": Reading(PLAIN, RANDOM, scaled(255)),
    "64 px, values 0 to 1 taken for a range of 2": Reading(PLAIN, RANDOM, scaled(1 / 2)),
    "64 px, values -1 to 1, range 2": Reading(PLAIN, RANDOM, scaled(1, 127.5)),
    "64 px, values -1 to 1, range 1": Reading(PLAIN, RANDOM, scaled(2, 127.5)),
}
"""By name. Where nothing else is said: the definition of `samgan.metrics.ms_ssim`, PAIRS random pairs of all files with
seed 0, which are the same in all of these, and files resized as `samgan prepare` does."""
