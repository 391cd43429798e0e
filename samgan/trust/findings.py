"""What is found of an image that says where it came from, and how that is told."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from samgan.errors import shown
from samgan.provenance import Mark, StoredSample

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


def with_notes(detail: str, stored: StoredSample) -> str:
    """`detail`, and what else is not as `samgan sample` wrote it."""
    return "; ".join((detail, *stored.faults, *stored.notes))


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
