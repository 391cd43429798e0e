"""What `prepare` would do, told from names, folders and tables alone: no image is read, and nothing is written."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from samgan.data.labels import label_source
from samgan.data.options import LabelOptions, PrepareOptions
from samgan.data.prepare import finished_set
from samgan.data.sources import close_sources, open_source
from samgan.errors import UsageError

REASONS = 10
NOT_KNOWN = (
    "Only reading the images tells which are damaged, which are duplicates or nearly so, and, for DICOM, whom they "
    "show. So fewer images may stay, and the split may be another."
)


@dataclass(frozen=True)
class Foreseen:
    """What would become of a source."""

    source: str
    images: int
    """Those that would be read."""
    classes: dict[str, dict[str, int]]
    """Images by class, and in it by the split that the source tells; "" where it tells none."""
    patients: int | None
    """Patients that folders or tables name; None if they name none."""
    left_out: dict[str, int]
    """Images that would be left out for where they lie or what a table says, by reason."""
    ignored: dict[str, int]
    """Files that are no images, by suffix."""
    bytes: int
    """Of images.npy, if every image stays."""
    there: str
    """What is in the folder to be written, in words; empty if it is new."""
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    def to_text(self) -> str:
        """As lines for a reader."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.source}: {self.images:,} images would be read, {self.bytes / 1e6:,.1f} MB as a set"
        for name, splits in self.classes.items():
            told = ", ".join(f"{count:,} {split or 'to be split'}" for split, count in splits.items())
            yield f"  {name}: {told}"
        if self.patients is not None:
            yield f"patients named by folders or tables: {self.patients:,}"
        yield from (f"left out: {count:,} images: {reason}" for reason, count in self.left_out.items())
        if self.ignored:
            named = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in self.ignored.items())
            yield f"ignored, since they are not images: {named}"
        yield from self.warnings
        if self.there:
            yield self.there
        yield NOT_KNOWN


def foresee(source: str | Path, out: Path, options: PrepareOptions, labels: LabelOptions | None = None) -> Foreseen:
    """Say what `samgan.prepare` would do.

    Args:
        source: As for `prepare`.
        out: The folder that would be written.
        options: As for `prepare`.
        labels: As for `prepare`.

    Raises:
        UsageError: An option is out of range, or there is no such source or column of a table.
        SamganError: As for `prepare`, as far as names, folders and tables tell it.
    """
    options.check()
    try:
        opened = open_source(source, "labels" if labels else options.classes_from)
        if labels is not None:
            opened = label_source(opened, labels)
        try:
            there = f"{out} holds a finished set of this source" if finished_set(out, opened) else ""
        except UsageError as error:
            there = f"It would be refused: {error}"
    finally:
        close_sources()
    classes: dict[str, Counter[str]] = {}
    for entry in opened.entries:
        classes.setdefault(entry.class_name, Counter())[entry.split] += 1
    patients = {told for entry in opened.entries if (told := entry.patient_in_table or entry.patient)}
    reasons = Counter(file.reason.split(":")[0] for file in opened.unused)
    return Foreseen(
        source=opened.name,
        images=len(opened.entries),
        classes={name: dict(sorted(classes[name].items())) for name in sorted(classes)},
        patients=len(patients) or None,
        left_out=dict(reasons.most_common(REASONS)),
        ignored=dict(sorted(opened.ignored.items(), key=lambda item: -item[1])[:REASONS]),
        bytes=len(opened.entries) * options.channels * options.resolution**2,
        there=there,
        warnings=opened.warnings,
    )
