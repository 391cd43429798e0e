"""Whether images are what their marks say."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from samgan.errors import SamganError
from samgan.provenance import hash_pixels, read_stored
from samgan.trust.findings import NOT_OF_A_SEED, WITHOUT_HASH, Finding, with_notes

if TYPE_CHECKING:
    from samgan.sampling import Model
    from samgan.trust.regeneration import Regeneration


def verify_files(files: Sequence[Path], models: "Iterator[Model] | None" = None) -> list[Finding]:
    """Read the marks of files, and compare the images with those that the models make from the same seeds.

    Args:
        files: PNG, DICOM or NPZ.
        models: Models that may have made the images, likely ones first; the rest are read only if they are needed.
            None: only check that the pixels are still those that were marked.

    Returns:
        One finding for each image, in the order of files and rows, and one for each file without a marked image.
    """
    findings: list[Finding] = []
    again: "Regeneration | None" = None
    if models is not None:
        from samgan.trust.regeneration import Regeneration  # needs torch, whose import takes seconds

        again = Regeneration(models)
    for file in dict.fromkeys(files):
        try:
            found = read_stored(file)
        except SamganError as error:
            findings.append(Finding(str(file), None, None, "not checked", str(error)))
            continue
        if not found:
            findings.append(Finding(str(file), None, None, "no mark"))
        for row, stored in enumerate(found):
            image, mark = stored.sample
            unchanged = mark.pixels_sha256 in ("", hash_pixels(image)) and not stored.faults
            number = row if len(found) > 1 else None
            detail = "; ".join((*stored.faults, *stored.notes))
            findings.append(Finding(str(file), number, mark, "marked" if unchanged else "altered", detail))
            if again and not mark.latent:
                again.add(findings[-1], stored)
            elif unchanged and (again or not mark.pixels_sha256):
                why = NOT_OF_A_SEED if again else WITHOUT_HASH
                findings[-1].verdict, findings[-1].detail = "not checked", with_notes(why, stored)
        if again:
            again.compare_if_many()
    if again:
        again.compare()
    return findings
