"""Images are made again from model and seed, and compared bit for bit."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from samgan.pictures import to_integers
from samgan.provenance import Mark, StoredSample
from samgan.sampling import FORWARD_BATCH, Model, sample_batches, truncated
from samgan.trust.findings import Finding, with_notes


class Regeneration:
    """Completes findings by making their images again, many at a time.

    Args:
        models: Models that may have made the images, likely ones first; each is read once, the rest only if needed.
    """

    def __init__(self, models: Iterator[Model]) -> None:
        self.models = models
        self.known: dict[str, Model] = {}
        self.waiting: list[tuple[Finding, StoredSample]] = []

    def add(self, finding: Finding, stored: StoredSample) -> None:
        """An image whose finding waits to be completed."""
        self.waiting.append((finding, stored))

    def compare_if_many(self) -> None:
        """`compare`, if so many wait that more would take memory without a gain."""
        if len(self.waiting) >= FORWARD_BATCH:
            self.compare()

    def compare(self) -> None:
        """Make the images of each model again, in the same batches as `sample`, and complete their findings."""
        groups: dict[tuple[str, float], list[tuple[Finding, StoredSample]]] = {}
        for finding, stored in self.waiting:
            mark = stored.sample.mark
            groups.setdefault((mark.model_sha256, mark.truncation), []).append((finding, stored))
        for (sha256, psi), group in groups.items():
            model = self._find(sha256)
            if model is None:
                for finding, _ in group:
                    finding.verdict = "another model"
                continue
            if psi != 1 and not model.generator.has_styles:
                for finding, stored in group:
                    finding.verdict, finding.detail = (
                        "altered",
                        with_notes("the model makes no truncated images", stored),
                    )
                continue
            model = truncated(model, psi)
            marks = [stored.sample.mark for _, stored in group]
            labels = [_label(model, mark) for mark in marks]
            own = torch.tensor(labels) if model.classes else None
            batches = sample_batches(model, [mark.seed for mark in marks], own)
            images = (image for _, batch in batches for image in batch)
            for (finding, stored), label, image in zip(group, labels, images, strict=True):
                _compare(finding, stored, model, label, image)
        self.waiting = []

    def _find(self, sha256: str) -> Model | None:
        """The model of a hash."""
        while sha256 not in self.known:
            model = next(self.models, None)
            if model is None:
                return None
            self.known[model.sha256] = model
        return self.known[sha256]


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
        finding.detail = with_notes(
            f"the image has {_size(sample.image)}, those of the model have {_size(made)}", stored
        )
        return
    distance = np.abs(made.astype(int) - sample.image.astype(int))
    finding.difference = int(distance.max())
    if finding.difference:
        finding.verdict = "differs"
        share = f"{np.count_nonzero(distance)} of {distance.size} values"
        finding.detail = with_notes(f"by up to {finding.difference} of {2**bits - 1} grey levels, in {share}", stored)
        return
    said, true = sample.mark.entries(), model.mark(sample.mark.seed, label).of(made).entries()
    wrong = [key for key, value in said.items() if key != "Software" and true.get(key) != value]
    faults = [*([f"the mark has wrong entries: {', '.join(wrong)}"] if wrong else []), *stored.faults]
    finding.verdict = "altered" if faults else "regenerated"
    finding.detail = "; ".join([f"the pixels are right, but {fault}" for fault in faults[:1]] + faults[1:])
    finding.detail = "; ".join(filter(None, (finding.detail, *stored.notes)))


def _size(image: np.ndarray) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]} px and {image.shape[0]} channel(s)"
