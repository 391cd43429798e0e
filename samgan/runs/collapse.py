"""Detect a collapse while a run trains, from its log only; no images are needed.

A generator's images are all alike early in training, too, but then they become more diverse; after a collapse they
stay alike. So the first thousands of images are ignored, a sign must show in several snapshots in a row, and the last
of these must be no better than the first.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from samgan.runs.folder import Run

ALIKE = 0.5
"""Above this, generated pairs are too alike; 0: as alike as real pairs, 1: equal images."""
LOST = 0.8
"""On the same scale: above this, no other sign is needed."""
SATURATED = 0.98
"""Above this mean sign (+1 or -1) of real logits, the discriminator counts as never wrong."""
FADING = 0.05
"""Below this ratio of its gradient to the largest gradient so far, the generator no longer learns."""
YOUNG_KIMG = 10.0
"""Snapshots before this are ignored."""
PATIENCE = 3
"""Number of snapshots in a row that must show the sign."""


@dataclass(frozen=True)
class Collapse:
    """The first snapshot at which a collapse shows, and why."""

    step: int
    images_seen: int
    wall_seconds: float
    reason: str


def find_collapse(stats: Iterable[dict[str, Any]]) -> Collapse | None:
    """The first snapshot at which a run has collapsed, or None.

    The likeness of generated pairs is a = (MG - MR) / (1 - MR), where MG and MR are the MS-SSIM of generated and real
    pairs at a snapshot, with the same seeds at every snapshot. 0 means as alike as real pairs, 1 all equal. A run has
    collapsed if, in `PATIENCE` snapshots in a row after the first 10 kimg, a does not become smaller and

        a > 0.8, or
        a > 0.5 while the discriminator is never wrong or the generator's gradient has faded.

    Args:
        stats: Lines of `stats.jsonl`, from `Run.stats`.

    Returns:
        Where and why. The rule only looks back, so its answer does not change as the run continues.

    Source: MG > MR as the sign of a collapse is from the paper; the thresholds are ours, and results/table2 shows how
    often they were right.
    """
    signs: list[float] = []
    largest_gradient = 0.0
    latest: dict[str, Any] = {}
    for line in sorted(stats, key=lambda line: (line["step"], line["kind"] != "train")):
        if line["kind"] == "train":
            latest = line
            largest_gradient = max(largest_gradient, line.get("gradient_generator", 0.0))
        if line["kind"] != "scores" or "ms_ssim_gap" not in line or line["images_seen"] < 1000 * YOUNG_KIMG:
            continue
        alike = line["ms_ssim_gap"] / (1 - line["ms_ssim_real"])
        saturated = latest.get("sign_real", 0.0) > SATURATED
        faded = latest.get("gradient_generator", largest_gradient) < FADING * largest_gradient
        signs.append(alike if alike > LOST or (alike > ALIKE and (saturated or faded)) else 0.0)
        recent = signs[-PATIENCE:]
        if len(recent) == PATIENCE and min(recent) > 0 and recent[-1] >= recent[0] - 0.01:
            reason = f"MS-SSIM is {line['ms_ssim_generated']:.3f} for generated pairs and "
            reason += f"{line['ms_ssim_real']:.3f} for real pairs, in {PATIENCE} snapshots in a row"
            reason += "; the discriminator is never wrong" * saturated + "; the generator's gradient has faded" * faded
            return Collapse(line["step"], line["images_seen"], latest.get("wall_seconds", 0.0), reason)
    return None


class CollapseWatch:
    """Looks for a collapse after every snapshot, and reports it once."""

    def __init__(self, run: Run, stops: bool) -> None:
        self.run, self.stops, self.said = run, stops, False

    def __call__(self) -> bool:
        """Whether to stop the run now."""
        collapse = find_collapse(self.run.stats())
        if collapse is None:
            return False
        if not self.said:
            what = "stopped" if self.stops else "training continues (to end it, use --on-collapse stop)"
            kimg = f"{collapse.images_seen / 1000:g} kimg"
            message = f"{self.run.path} collapsed at {kimg}: {collapse.reason}; {what}"
            warnings.warn(message, stacklevel=2)
            self.said = True
        return self.stops
