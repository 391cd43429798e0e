"""Where synthetic images come from, as documents record it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Where synthetic images come from, as documents record it."""

    name: str
    """Name of the run, file or folder, without its parent folders."""
    preset: str | None = None
    images_seen: int | None = None
    model_sha256: str | None = None
