"""Read a synthetic image and its mark from PNG: the picture that viewers show, whatever way it is stored."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from samgan.data.readers.pillow import PIL_FORMATS
from samgan.provenance.mark import Mark, Sample, StoredSample, channels_first, hash_pixels, wrong_description

PLAIN = ("L", "RGB", "I;16")
"""Modes in which `samgan sample` writes."""
PLAIN_GAMMA = 0.45455
"""What the specification of PNG recommends, and a viewer without colour management shows."""
ENTRIES = frozenset(
    ["Description", "Synthetic", "Software", "Model-SHA256", "Model-Preset", "Model-Images-Seen", "Seed", "Class"]
) | {"Latent", "Pixels-SHA256", "Truncation"}
"""Names of a mark's entries."""
NAMES_SHOWN = 3


def read_png(path: Path) -> list[StoredSample]:
    """The image of a PNG file with its mark; none if it has no mark of samgan.

    A palette is looked up, and a picture in equal colours may be a grey one: optimisers of PNG store it so.

    Source:
        PNG (third edition), 11.2.2 (palette), 11.3.1 (transparency), 11.3.2 (gamma, profile), 11.3.5 (eXIf), 11.3.6
        (animation).
    """
    with Image.open(path, formats=PIL_FORMATS) as image:
        image.load()  # text may come after the pixels
        text: dict[str, str] = image.text  # type: ignore[attr-defined]
        mark = Mark.from_entries(text)
        if mark is None:
            return []
        faults, notes = list(wrong_description(text)), []
        values, is_opaque = _shown(image)
        if not is_opaque:
            faults.append("parts of it are transparent")
        if (turn := image.getexif().get(ExifTags.Base.Orientation, 1)) != 1:
            faults.append(f"its EXIF orientation {turn} turns or mirrors it")
        if (frames := getattr(image, "n_frames", 1)) != 1:
            faults.append(f"it is an animation of {frames} frames")
        if "icc_profile" in image.info or abs(image.info.get("gamma", PLAIN_GAMMA) - PLAIN_GAMMA) > 0.01:
            notes.append("a gamma or colour profile changes the display only")
        if more := [name for name in text if name not in ENTRIES]:
            names = ", ".join(name[:20] for name in more[:NAMES_SHOWN])
            notes.append(f"it has text beside its mark, which was not checked: {names}")
    return [StoredSample(Sample(_as_marked(values, mark), mark), tuple(faults), tuple(notes))]


def _shown(image: Image.Image) -> tuple[np.ndarray, bool]:
    """The values [c h w] that a viewer shows, without alpha, and whether all of them are opaque."""
    if image.mode in PLAIN and not image.has_transparency_data:
        return channels_first(np.asarray(image)), True
    if image.has_transparency_data and image.mode != "I;16":
        values = channels_first(np.asarray(image.convert("RGBA")))
        return values[:3], bool((values[3] == 255).all())
    if image.mode == "I;16":
        return channels_first(np.asarray(image)), False
    return channels_first(np.asarray(image.convert("L" if image.mode == "1" else "RGB"))), True


def _as_marked(values: np.ndarray, mark: Mark) -> np.ndarray:
    """The first of three equal channels, if that is what was marked."""
    if len(values) == 3 and (values == values[:1]).all() and hash_pixels(values[:1]) == mark.pixels_sha256:
        return values[:1]
    return values
