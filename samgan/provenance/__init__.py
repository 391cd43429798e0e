"""What a synthetic image says of itself, the files that carry it, and how it is read back."""

from samgan.provenance.formats import FORMATS, number_classes, read_samples
from samgan.provenance.mark import SOFTWARE, Mark, Sample, hash_pixels

__all__ = ["FORMATS", "SOFTWARE", "Mark", "Sample", "hash_pixels", "number_classes", "read_samples"]
