"""Recognise the archives of `samgan sample`: which images they hold, and that these are synthetic.

samples.npz holds `images` [n, c, h, w], perhaps `classes` (names), and `provenance`; medmnist.npz has the arrays of
MedMNIST, and `provenance`. That is a JSON object with "Synthetic": "true", for all images or under "Images" for each.
"""

import json
from typing import Any

import numpy as np
from jaxtyping import Shaped

from samgan.errors import SamganError

IMAGES = "images"
"""Array of samples.npz, and the part of an image's path before the slash."""


def is_synthetic(provenance: Shaped[np.ndarray, "..."]) -> bool:
    """Tell whether the array `provenance` says that any image of its archive is synthetic."""
    if provenance.dtype.kind != "U" or provenance.ndim:
        return False
    try:
        document = json.loads(str(provenance))
    except (ValueError, RecursionError):
        return False
    return _says(document) or (isinstance(document, dict) and any(map(_says, _list_in(document))))


def _says(entries: Any) -> bool:
    return isinstance(entries, dict) and str(entries.get("Synthetic")).lower() == "true"


def _list_in(document: dict[str, Any]) -> list[Any]:
    each = document.get("Images")
    return each if isinstance(each, list) else []


def class_names(
    images: Shaped[np.ndarray, "..."], classes: Shaped[np.ndarray, "..."] | None, default: str
) -> list[str]:
    """Check the arrays of samples.npz, and name the class of each image.

    Args:
        images: the array `images`.
        classes: the array `classes`, if there is one.
        default: name of the class of images without one.

    Raises:
        SamganError: they are not what `samgan sample` writes.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype not in (np.uint8, np.uint16):
        raise SamganError(
            f"expected images of uint8 or uint16 [n, 1, h, w] or [n, 3, h, w], as samgan sample writes them, found "
            f"{images.dtype} {list(images.shape)}"
        )
    if classes is None:
        return [default] * len(images)
    if classes.dtype.kind != "U" or classes.shape != images.shape[:1]:
        raise SamganError(
            f"expected classes as text [{len(images)}], one for each image, found {classes.dtype} {list(classes.shape)}"
        )
    names = [str(name) or default for name in classes]
    if odd := next((name for name in names if name in (".", "..") or "/" in name), None):
        raise SamganError(f"{odd!r} is not the name of a class")
    return names
