"""Settings that earlier versions had. Configurations that hold them still load where they mean what is done today."""

from typing import Any, NamedTuple

from samgan.errors import UsageError


class Retired(NamedTuple):
    """A setting that is gone, or values of one that are."""

    same: Any
    """The value that means what is done today, and is accepted; None: there is no such value."""
    advice: str
    values: tuple[Any, ...] = ()
    """The values that are gone, if the setting itself is still there."""
    since: str = "0.1.0"
    """The version from which on it is gone."""
    until: str = "1.0"
    """The version that no longer accepts `same`."""


RETIRED = {
    "network.class_projection": Retired(
        "last", "the discriminator now compares features and class after its last block"
    ),
    "training.augment_kimg": Retired(100.0, "the share of augmented images now takes at least 100 kimg from 0 to 1"),
    "training.penalty": Retired(None, "take r1, r1-r2 or gradient-per-scale", ("r2", "gradient-joint")),
    "training.rmsprop_alpha": Retired(0.99, "RMSprop's smoothing constant is now always 0.99"),
}


def is_retired(key: str, value: Any) -> bool:
    """Whether a setting is gone, and its value means what is done today.

    Raises:
        UsageError: The setting, or this value of it, is gone, and nothing today means the same.
    """
    retired = RETIRED.get(key)
    if retired is None or (retired.values and value not in retired.values):
        return False
    if not retired.values and type(value) in (int, float, str) and value == retired.same:
        return True
    what = "this value" if retired.values else "this setting"
    raise UsageError(f"{key}: {value!r} is not allowed; {what} is gone: {retired.advice}")
