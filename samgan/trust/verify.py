"""Whether images are what their marks say: they are made again from model and seed, and compared bit for bit."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from samgan.errors import SamganError, shown
from samgan.pictures import to_integers
from samgan.provenance import Mark, StoredSample, hash_pixels, read_stored
from samgan.sampling import FORWARD_BATCH, Model, sample_batches, truncated

VERDICTS = {
    "regenerated": "regenerated bit for bit",
    "marked": "as its mark says; to make it again and compare, give the run with --run",
    "differs": "differs from the image that the model makes from this seed",
    "altered": "altered since it was marked",
    "another model": "made by a model that is not in --run",
    "no mark": "no mark of samgan",
    "not checked": "not checked",
}
"""The verdicts on an image, and the words for each."""
GOOD = ("regenerated", "marked")
"""Verdicts on images that are what they claim to be."""
NOT_OF_A_SEED = "not the image of a seed, so it is not made again"
"""Said of images whose marks say where their latents are."""
WITHOUT_HASH = "its mark has no hash of the pixels; to make it again and compare, give the run with --run"
"""Said of images of which nothing tells whether they are as they were marked."""
ROWS_SHOWN = 20
"""The largest number of rows that `format_findings` lists for one file."""


@dataclasses.dataclass
class Finding:
    """What was found for one image."""

    file: str
    row: int | None
    """The image's row in a file with several images; None if it is the only one."""
    mark: Mark | None
    verdict: str
    """A key of `VERDICTS`."""
    detail: str = ""
    difference: int | None = None
    """The largest difference from the image that the model makes from this seed, in grey levels."""

    @property
    def ok(self) -> bool:
        """Whether the image is what it claims to be, as far as it was checked."""
        return self.verdict in GOOD

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**dataclasses.asdict(self), "ok": self.ok}


def verify_files(files: Sequence[Path], models: Iterator[Model] | None = None) -> list[Finding]:
    """Read the marks of files, and compare the images with those that the models make from the same seeds.

    Args:
        files: PNG, DICOM or NPZ.
        models: Models that may have made the images, likely ones first; the rest are read only if they are needed.
            None: only check that the pixels are still those that were marked.

    Returns:
        One finding for each image, in the order of files and rows, and one for each file without a marked image.
    """
    findings: list[Finding] = []
    waiting: list[tuple[Finding, StoredSample]] = []
    find = _finder(models or iter(()))
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
            if models is not None and not mark.latent:
                waiting.append((findings[-1], stored))
            elif unchanged and (models is not None or not mark.pixels_sha256):
                why = WITHOUT_HASH if models is None else NOT_OF_A_SEED
                findings[-1].verdict, findings[-1].detail = "not checked", _add(why, stored)
        if len(waiting) >= FORWARD_BATCH:
            _make_again(waiting, find)
            waiting = []
    _make_again(waiting, find)
    return findings


def _finder(models: Iterator[Model]) -> Callable[[str], Model | None]:
    """A function that finds the model of a hash; each model is read once."""
    known: dict[str, Model] = {}

    def find(sha256: str) -> Model | None:
        while sha256 not in known:
            model = next(models, None)
            if model is None:
                return None
            known[model.sha256] = model
        return known[sha256]

    return find


def _make_again(waiting: list[tuple[Finding, StoredSample]], find: Callable[[str], Model | None]) -> None:
    """Make the images of each model again, in the same batches as `sample`, and complete their findings."""
    groups: dict[tuple[str, float], list[tuple[Finding, StoredSample]]] = {}
    for finding, stored in waiting:
        mark = stored.sample.mark
        groups.setdefault((mark.model_sha256, mark.truncation), []).append((finding, stored))
    for (sha256, psi), group in groups.items():
        model = find(sha256)
        if model is None:
            for finding, _ in group:
                finding.verdict = "another model"
            continue
        if psi != 1 and not model.generator.has_styles:
            for finding, stored in group:
                finding.verdict, finding.detail = "altered", _add("the model makes no truncated images", stored)
            continue
        model = truncated(model, psi)
        marks = [stored.sample.mark for _, stored in group]
        labels = [_label(model, mark) for mark in marks]
        own = torch.tensor(labels) if model.classes else None
        batches = sample_batches(model, [mark.seed for mark in marks], own)
        images = (image for _, batch in batches for image in batch)
        for (finding, stored), label, image in zip(group, labels, images, strict=True):
            _compare(finding, stored, model, label, image)


def _label(model: Model, mark: Mark) -> int | None:
    """The class that a mark names; if the model has no such class, the one that its seed gets in turn."""
    labels = model.labels([mark.seed], mark.class_name if mark.class_name in model.classes else None)
    return None if labels is None else int(labels)


def _compare(
    finding: Finding, stored: StoredSample, model: Model, label: int | None, image: Float[Tensor, "c h w"]
) -> None:
    """Compare an image with the one that was made again, and its mark with the true one."""
    sample = stored.sample
    bits = 8 * sample.image.itemsize
    made = to_integers(image[None], bits)[0]
    if made.shape != sample.image.shape:
        finding.verdict = "differs"
        finding.detail = _add(f"the image has {_size(sample.image)}, those of the model have {_size(made)}", stored)
        return
    distance = np.abs(made.astype(int) - sample.image.astype(int))
    finding.difference = int(distance.max())
    if finding.difference:
        finding.verdict = "differs"
        share = f"{np.count_nonzero(distance)} of {distance.size} values"
        finding.detail = _add(f"by up to {finding.difference} of {2**bits - 1} grey levels, in {share}", stored)
        return
    said, true = sample.mark.entries(), model.mark(sample.mark.seed, label).of(made).entries()
    wrong = [key for key, value in said.items() if key != "Software" and true.get(key) != value]
    faults = [*([f"the mark has wrong entries: {', '.join(wrong)}"] if wrong else []), *stored.faults]
    finding.verdict = "altered" if faults else "regenerated"
    finding.detail = "; ".join([f"the pixels are right, but {fault}" for fault in faults[:1]] + faults[1:])
    finding.detail = "; ".join(filter(None, (finding.detail, *stored.notes)))


def _add(detail: str, stored: StoredSample) -> str:
    """`detail`, and what else is not as `samgan sample` wrote it."""
    return "; ".join((detail, *stored.faults, *stored.notes))


def _size(image: np.ndarray) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]} px and {image.shape[0]} channel(s)"


def format_findings(findings: Sequence[Finding]) -> str:
    """The findings as text: a line for each file, and a line for each row of an NPZ that is not what it claims."""
    lines = []
    for file, group in itertools.groupby(findings, key=lambda finding: finding.file):
        rows = list(group)
        if len(rows) == 1:
            lines.append(f"{shown(file)}: {_sentence(rows[0])}")
            continue
        lines.append(f"{shown(file)}: {_count(rows)}")
        bad = [finding for finding in rows if not finding.ok]
        lines += [f"  row {finding.row}: {_sentence(finding)}" for finding in bad[:ROWS_SHOWN]]
        lines += [f"  and {len(bad) - ROWS_SHOWN} more rows"] if len(bad) > ROWS_SHOWN else []
        lines += [] if bad else [f"  row 0: {_sentence(rows[0])}"]
    if len({finding.file for finding in findings}) > 1:
        lines.append(f"all: {_count(findings)}")
    return "\n".join(lines)


def _count(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.verdict for finding in findings).items()
    return f"{len(findings)} images: {', '.join(f'{number} {verdict}' for verdict, number in counts)}"


def _sentence(finding: Finding) -> str:
    mark, words = finding.mark, VERDICTS[finding.verdict]
    if mark and mark.latent and finding.verdict == "marked":
        words = f"as its mark says; {NOT_OF_A_SEED}"
    outcome = words + (f": {shown(finding.detail)}" if finding.detail else "")
    if mark is None:
        return outcome
    of_class = f", class {shown(mark.class_name)}" if mark.class_name else ""
    origin = f"preset {shown(mark.preset)}, {mark.images_seen / 1000:g} kimg, model {mark.model_sha256[:12]}"
    of_class += "" if mark.truncation == 1 else f", truncation {mark.truncation:g}"
    place = shown(mark.latent) if mark.latent else f"seed {mark.seed}"
    return f"synthetic, {origin}, {place}{of_class}: {outcome}"
