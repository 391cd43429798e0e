"""How many images each class is to have, and lacks."""

import math
from collections.abc import Mapping, Sequence

from samgan.data import PreparedSet
from samgan.errors import UsageError


def missing_images(counts: Mapping[str, int], target: str) -> dict[str, int]:
    """How many images each class lacks.

    Args:
        counts: Training images by class.
        target: "equal": as many as the largest class has; a whole number: at least that many; a number with a decimal
            point, above 0 and up to 1: that share of the largest class.

    Raises:
        UsageError: The target is none of these, or every class has reached it already.
    """
    largest = max(counts.values())
    try:
        wanted = (
            largest if target == "equal" else int(target) if target.isdigit() else math.ceil(float(target) * largest)
        )
        if wanted < 1 or (not target.isdigit() and wanted > largest):
            raise ValueError
    except (ValueError, OverflowError):
        raise UsageError(
            f"--target {target}: expected equal, a number of images such as 2000, or a share of the largest class "
            "such as 0.5"
        ) from None
    missing = {name: max(0, wanted - count) for name, count in counts.items()}
    if not any(missing.values()):
        there = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(
            f"--target {target}: every class already has {wanted} training images or more ({there}); ask for more"
        )
    return missing


def check_several(data: PreparedSet, names: Sequence[str]) -> None:
    """Refuse a set of one class.

    Raises:
        UsageError: There is only one class.
    """
    if len(names) < 2:
        raise UsageError(
            f"{data.path}: expected two or more classes to balance, found only {', '.join(names)}; name more with "
            "--classes, or prepare a set with more"
        )
