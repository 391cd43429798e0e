"""Recognise a collapse while a run trains, from what its log holds anyway: nothing here needs the images.

A young generator's images are all alike too, and then differ more and more; a collapsed one's stay alike. So nothing is
said of the first thousands of images, a sign has to show in several snapshots in a row, and the last of these has to
be no better than the first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ALIKE = 0.5
"""Share of the way from the likeness of real pairs (0) to equal images (1) from which generated pairs are too alike."""
LOST = 0.8
"""The same, from which nothing else is asked for."""
SATURATED = 0.98
"""Mean sign of real logits (the other half's counted against it) from which the discriminator is never wrong."""
FADING = 0.05
"""The generator's gradient over its largest so far, below which it learns nothing any more."""
YOUNG_KIMG = 10.0
"""Until here nothing is said."""
PATIENCE = 3
"""Snapshots in a row."""


@dataclass(frozen=True)
class Collapse:
    """The first snapshot at which a collapse shows, and why."""

    step: int
    images_seen: int
    wall_seconds: float
    reason: str


def find_collapse(stats: Iterable[dict[str, Any]]) -> Collapse | None:
    """The first snapshot at which a run has collapsed, or None.

    Generated pairs are alike by a = (MG - MR) / (1 - MR), of MS-SSIM over the fixed seeds of every snapshot: 0 as real
    ones, 1 all equal. A collapse is, in `PATIENCE` snapshots in a row behind the first 10 kimg, a not becoming smaller:

        a > 0.8, or
        a > 0.5 while the discriminator is never wrong or the generator's gradient has faded.

    Args:
        stats: Lines of `stats.jsonl`, from `Run.stats`.

    Returns:
        Where and why. The rule looks back alone, so what it says of a run does not change as the run goes on.

    Source: MG > MR as the sign of a collapse is the paper's; the thresholds are ours, and results/table2 says how often
    they were right.
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
            reason = (
                f"MS-SSIM of generated pairs {line['ms_ssim_generated']:.3f}, of real ones {line['ms_ssim_real']:.3f}"
            )
            reason += f", in {PATIENCE} snapshots in a row"
            reason += "; the discriminator is never wrong" * saturated + "; the generator's gradient has faded" * faded
            return Collapse(line["step"], line["images_seen"], latest.get("wall_seconds", 0.0), reason)
    return None
