"""From files of radiographs to a prepared set; phantoms for tests and first tries."""

from samgan.data.dataset import PreparedSet
from samgan.data.documents import DataUsed, ManifestRow, SetInfo
from samgan.data.options import LabelOptions
from samgan.data.phantom import phantoms, write_phantoms
from samgan.data.prepare import prepare

__all__ = ["DataUsed", "LabelOptions", "ManifestRow", "PreparedSet", "SetInfo", "phantoms", "prepare", "write_phantoms"]
