"""From files of radiographs to a prepared set; phantoms for tests and first tries."""

from samgan.data.dataset import PreparedSet, check_prepared, take
from samgan.data.documents import DataUsed, ManifestRow, SetInfo
from samgan.data.explain import Explanation, explain_file
from samgan.data.options import LabelOptions
from samgan.data.phantom import phantoms, write_phantoms
from samgan.data.prepare import prepare

__all__ = [
    "DataUsed",
    "Explanation",
    "LabelOptions",
    "ManifestRow",
    "PreparedSet",
    "SetInfo",
    "check_prepared",
    "explain_file",
    "phantoms",
    "prepare",
    "take",
    "write_phantoms",
]
