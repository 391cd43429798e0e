"""samgan: self-attention guided multi-scale gradient GANs for radiographs (SAMGAN / MSG-SAGAN)."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["PreparedSet", "evaluate", "export", "prepare", "preset_config", "sample", "train", "verify"]


def __getattr__(name: str) -> Any:
    """Import the public functions when they are first used: torch takes seconds, and `--help` should not."""
    if name in __all__:
        from samgan import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
