"""The mark of a synthetic image: what it says, the files that carry it, and how it is read back."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samgan.provenance.formats import FORMATS, SET_FORMATS, Format, number_classes
    from samgan.provenance.mark import SOFTWARE, Mark, Sample, hash_pixels
    from samgan.provenance.read import read_samples

__all__ = [
    "FORMATS",
    "SET_FORMATS",
    "SOFTWARE",
    "Format",
    "Mark",
    "Sample",
    "hash_pixels",
    "number_classes",
    "read_samples",
]
LIGHT = ("FORMATS", "SET_FORMATS", "Format", "number_classes")
"""Names from `formats`, which does not need torch."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line needs the names of formats, but not torch."""
    if name in LIGHT:
        from samgan.provenance import formats

        return getattr(formats, name)
    if name in __all__:
        from samgan.provenance import mark, read

        return getattr(read if name == "read_samples" else mark, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
