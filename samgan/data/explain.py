"""Show how one file becomes a picture: every step from stored values to the pixels of a prepared set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from samgan.data.fit import fit_image
from samgan.data.options import PrepareOptions
from samgan.data.readers import read_radiograph
from samgan.data.readers.radiograph import MAXIMUM_BYTES, BadImageError, Scale, Scales, Step
from samgan.errors import SamganError, UsageError
from samgan.files import atomic_write


@dataclass(frozen=True)
class Explanation:
    """What was done to one file."""

    file: str
    picture: str
    """Path of the PNG that was written."""
    steps: tuple[Step, ...]
    """From stored values to the picture, in order."""
    notes: tuple[str, ...]
    """What was passed over in the file's metadata."""
    patient_known: bool
    """Whether the file itself says who the patient is; never who it is."""
    view: str
    """DICOM's ViewPosition; empty if there is none."""
    is_synthetic: bool
    """Whether the file says that no patient is shown."""

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        tree: dict[str, Any] = msgspec.to_builtins(self)
        return tree | {"steps": [step._asdict() for step in self.steps]}

    def to_text(self) -> str:
        """The record for a reader, one step a line."""
        width = len(str(len(self.steps)))
        lines = [f"{self.file}"]
        lines += [
            f"  {number:{width}}. {step.what}: {step.low:,.6g} to {step.high:,.6g}"
            for number, step in enumerate(self.steps, 1)
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"patient: {'known from the file' if self.patient_known else 'not known from the file'}")
        lines.append(f"view: {self.view or 'not known from the file'}")
        if self.is_synthetic:
            lines.append("synthetic: the file says that it shows no patient")
        lines.append(f"picture: {self.picture}")
        return "\n".join(lines)


def explain_file(
    file: str | Path,
    out: str | Path | None = None,
    *,
    resolution: int = 64,
    channels: int = 1,
    fit: str = "crop",
    normalize: str = "none",
    bits: int | None = None,
) -> Explanation:
    """Read one file as `prepare` would, describe every step and write the picture as PNG.

    `prepare` takes one bit depth for all images of a source that do not declare it. Of a single file only its own
    values are known, so give `bits` to see such an image as it is in the set.

    Args:
        file: an image; not a folder, nor a member of an archive.
        out: the PNG to write; None: the file's name with .png added, in the current folder. Must not exist.
        resolution: side of the square picture in pixels, a power of two from 8 to 1024.
        channels: 1 (grey) or 3.
        fit: as in `prepare`.
        normalize: as in `prepare`.
        bits: bit depth of an image whose format does not declare it; None: from its own largest value.

    Raises:
        UsageError: an option is out of range, `file` is not a file, or `out` exists.
        SamganError: the image cannot be used; the message has the reason.
    """
    PrepareOptions(resolution=resolution, channels=channels, fit=fit, normalize=normalize, bits=bits).check()
    file = Path(file)
    out = Path(f"{file.name}.png") if out is None else Path(out)
    _check_paths(file, out)
    scale = None if bits is None else Scale(0.0, 2.0**bits - 1, bits, "declared with --bits")
    try:
        radiograph = read_radiograph(file.read_bytes(), channels, explain=True, scales=Scales(scale, None))
    except BadImageError as error:
        raise SamganError(f"{file}: {error}") from error
    plain = fit_image(radiograph.pixels, resolution, fit)
    image = fit_image(radiograph.pixels, resolution, fit, normalize) if normalize != "none" else plain
    height, width = radiograph.pixels.shape[1:]
    shape = f"{width}x{height} to {resolution}x{resolution} pixels, Lanczos"
    steps = [*radiograph.steps, _step(f"fit: {fit}, {shape}", plain / 255)]
    if normalize != "none":
        steps.append(_step(f"normalise: {normalize}", image / 255))
    steps.append(_step("quantise: round(255 * value)", image))
    _write(out, image)
    return Explanation(
        file=str(file),
        picture=str(out),
        steps=tuple(steps),
        notes=radiograph.notes,
        patient_known=bool(radiograph.patient_key),
        view=radiograph.view,
        is_synthetic=radiograph.is_synthetic,
    )


def _check_paths(file: Path, out: Path) -> None:
    """Refuse what is not one image file, and an output that exists or is not a PNG."""
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist" if not file.exists() else "is not a regular file"
        raise UsageError(f"{file} {what}: --explain takes one image file")
    if file.suffix.lower() in (".zip", ".npz"):
        raise UsageError(f"{file} holds many images: --explain takes one image file, so unpack it first")
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out}: expected the name of a .png to write")
    if out.exists():
        raise UsageError(f"{out} exists: name another file, or delete it first")
    if file.stat().st_size > MAXIMUM_BYTES:
        raise SamganError(f"{file}: larger than {MAXIMUM_BYTES // 2**20} MiB")


def _step(what: str, values: np.ndarray) -> Step:
    return Step(what, float(values.min()), float(values.max()))


def _write(out: Path, image: UInt8[np.ndarray, "c r r"]) -> None:
    """Write a picture of a real patient: without samgan's mark of synthetic images."""
    with atomic_write(out) as opened:
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(opened, "PNG")
