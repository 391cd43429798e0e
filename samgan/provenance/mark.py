"""The mark of a synthetic image: the model and the seed that made it.

An image can be made again from its mark. Anybody can remove or change a mark: only making the image again proves that
it is true (`samgan.trust.verify`).
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from samgan import __version__
from samgan.errors import SamganError
from samgan.grids import SYNTHETIC
from samgan.seeds import SEEDS

SOFTWARE = f"samgan {__version__}"
OBJECTS = 64
"""In a text, a mark is looked for among so many objects: each one that is damaged may be as long as the text."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """The model and the seed that made an image."""

    model_sha256: str
    """Of the generator's weights."""
    preset: str
    images_seen: int
    seed: int
    class_name: str = ""
    """Empty if the model is not conditional and was trained on several classes."""
    pixels_sha256: str = ""
    """`hash_pixels` of the image; empty if the mark is of several images."""
    software: str = SOFTWARE
    truncation: float = 1.0
    """How far from the mean style the image is, from 0 to 1; 1: not truncated."""
    latent: str = ""
    """Where the latent is, in words that name the seed, if it is not that of the seed; no seed makes such an image."""

    def of(self, image: np.ndarray) -> "Mark":
        """The mark with the hash of `image`."""
        return dataclasses.replace(self, pixels_sha256=hash_pixels(image))

    def entries(self) -> dict[str, str]:
        """The mark as text, as in PNG's text chunks and in JSON."""
        entries = {
            "Description": SYNTHETIC,
            "Synthetic": "true",
            "Software": self.software,
            "Model-SHA256": self.model_sha256,
            "Model-Preset": self.preset,
            "Model-Images-Seen": str(self.images_seen),
            "Seed": f"{self.seed}..." if self.latent else str(self.seed),
        }
        psi = "" if self.truncation == 1 else str(self.truncation)
        optional = {"Latent": self.latent, "Truncation": psi, "Class": self.class_name}
        optional["Pixels-SHA256"] = self.pixels_sha256
        return entries | {key: value for key, value in optional.items() if value}

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> "Mark | None":
        """Read what `entries` wrote; None if there is no mark of samgan.

        Raises:
            SamganError: The mark is incomplete or damaged; the message is the reason.
        """
        if not str(entries.get("Software", "")).startswith("samgan "):
            if entries.get("Description") == SYNTHETIC:
                raise SamganError("it says that samgan made it, but names no model and no seed")
            return None
        latent = str(entries.get("Latent", ""))
        if str(entries.get("Seed", "")).endswith("...") and not latent:
            raise SamganError("a sheet of several images: name the files of the single images instead")
        try:
            mark = cls(
                str(entries["Model-SHA256"]),
                str(entries["Model-Preset"]),
                int(entries["Model-Images-Seen"]),
                int(str(entries["Seed"]).removesuffix("..." if latent else "")),
                str(entries.get("Class", "")),
                str(entries.get("Pixels-SHA256", "")),
                str(entries["Software"]),
                float(entries.get("Truncation", 1)),
                latent,
            )
        except (KeyError, ValueError, TypeError):
            raise SamganError("its mark is damaged: expected a model, a seed and the number of images seen") from None
        if entries.get("Synthetic") != "true":
            raise SamganError("it has a mark of samgan, but does not say that it is synthetic")
        if not re.fullmatch("[0-9a-f]{64}", mark.model_sha256) or not 0 <= mark.seed < SEEDS:
            raise SamganError("its mark is damaged: the hash of the model or the seed is not valid")
        if not 0 <= mark.images_seen < 1 << 62:
            raise SamganError("its mark is damaged: the number of images seen is not valid")
        if not 0 <= mark.truncation <= 1:
            raise SamganError("its mark is damaged: the truncation is not from 0 to 1")
        return mark


class Sample(NamedTuple):
    """One image and its mark."""

    image: np.ndarray
    """uint8 or uint16 [c h w], in the byte order of this machine."""
    mark: Mark

    @property
    def name(self) -> str:
        """Name of its file, without the suffix, in the order of seeds and of steps."""
        words = re.findall("[a-z]+|[0-9]+", self.mark.latent)
        return "-".join([f"seed-{self.mark.seed:08d}", *(word.zfill(2) if word.isdigit() else word for word in words)])


class StoredSample(NamedTuple):
    """A sample as it was read from a file, and what else the file says of it."""

    sample: Sample
    faults: tuple[str, ...] = ()
    """What the file says or shows otherwise than `samgan sample` wrote it, one clause each."""
    notes: tuple[str, ...] = ()
    """What changes the display only, or says more than the mark, one clause each."""


def hash_pixels(image: np.ndarray) -> str:
    """SHA-256 of the type, the shape [c h w] and the values (low byte first)."""
    values = image.astype(image.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{image.dtype.name} {image.shape}\n".encode() + values.tobytes()).hexdigest()


def wrong_description(entries: Mapping[str, Any]) -> tuple[str, ...]:
    """A clause if the text beside a mark is not the one that every synthetic image has."""
    if entries.get("Description") == SYNTHETIC:
        return ()
    return ("its Description is not the one of a synthetic image",)


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a text holds; empty if it holds none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def find_entries(text: str) -> dict[str, Any]:
    """The entries of a mark, written as JSON anywhere in a text; empty if there are none."""
    decoder = json.JSONDecoder()
    for start in itertools.islice(re.finditer(r'\{\s*"', text), OBJECTS):
        try:
            document, _ = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict) and ("Model-SHA256" in document or document.get("Description") == SYNTHETIC):
            return document
    return {}


def is_cut(text: str) -> bool:
    """Whether a text without a whole mark holds the beginning or the end of one."""
    return f'"{SYNTHETIC[:15]}' in text or '"Model-' in text


def channels_first(values: np.ndarray) -> np.ndarray:
    """[h w] or [h w c] to [c h w], in the byte order of this machine."""
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return np.moveaxis(np.atleast_3d(native), -1, 0)
