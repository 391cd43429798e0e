"""The mark of a synthetic image: what it says, the files that carry it, and how it is read back."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samgan.provenance.formats import FORMATS, SET_FORMATS, Format, number_classes
    from samgan.provenance.mark import SOFTWARE, Mark, Sample, StoredSample, hash_pixels
    from samgan.provenance.read import read_samples, read_stored

__all__ = [
    "FORMATS",
    "SET_FORMATS",
    "SOFTWARE",
    "Format",
    "Mark",
    "Sample",
    "StoredSample",
    "hash_pixels",
    "number_classes",
    "read_samples",
    "read_stored",
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

        return getattr(read if name.startswith("read_") else mark, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
