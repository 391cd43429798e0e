"""The mark of a synthetic image: what it says, the files that carry it, and how it is read back."""

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
