"""Compiled kernels of the optional package `samgan-kernels`, on a CPU; without it, torch does the work.

The package holds one C library per set of instructions and no Python code of its own. Each kernel does in one pass over
memory what would take torch several. What a kernel computes, its callers also compute with torch alone.
"""

import contextlib
import ctypes
import importlib
import os
import warnings
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

VERSION = "0.1.0"
"""The version of samgan-kernels that fits: raised with every change of a kernel's arguments or of what it computes."""
FEW = 16  # numbers that a kernel handles together; a row of an image has a multiple of them
LONGEST = 32768  # numbers of a row, many of which a kernel keeps on the stack
_SUFFIXES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
_SIGNATURES = {  # kernel: numbers of arrays, of sizes, and of factors
    "augment": (6, 4),
    "augment_backward": (5, 4),
    "activate_and_add": (2, 1),
    "activate_and_halve": (2, 4),
    "activate_and_halve_backward": (4, 4),
    "activate_and_normalize": (2, 4),
    "activate_and_normalize_backward": (4, 4),
    "activate_backward": (4, 4),
    "collect_gradients": (5, 1),
    "demodulate": (4, 4, 1),
    "demodulate_backward": (8, 4, 1),
    "head_backward": (7, 4),
    "head_forward": (5, 4),
    "image_backward": (9, 5),
    "image_forward": (7, 5),
    "modulate": (3, 4),
    "modulate_backward": (5, 4),
    "modulated_backward": (9, 5),
    "modulated_forward": (6, 5),
    "scale_weights": (5, 1),
    "slope_and_add": (3, 1),
    "slope_and_halve": (3, 4),
}
SWITCH = "SAMGAN_KERNELS"
"""Environment variable; 0 leaves all work to torch."""
_off = os.environ.get(SWITCH, "") == "0"


@cache
def _library() -> ctypes.CDLL | None:
    """The library for this processor, or None."""
    try:
        package = importlib.import_module("samgan_kernels")
    except ImportError:
        return None
    if package.__version__ != VERSION:
        found = f"samgan-kernels {package.__version__} is not used, since this samgan needs {VERSION}"
        warnings.warn(f"{found}; training is slower until you run: pip install ./kernels", stacklevel=2)
        return None
    path = package.library(torch.backends.cpu.get_cpu_capability())
    return None if path is None else ctypes.CDLL(str(path))


def kernels_version() -> str | None:
    """The version of the kernels that are in use, or None."""
    return None if _off or _library() is None else VERSION


@cache
def _function(name: str, dtype: torch.dtype) -> "ctypes._NamedFuncPointer":
    library = _library()
    assert library is not None
    function = getattr(library, f"{name}_{_SUFFIXES[dtype]}")
    arrays, sizes, *factors = _SIGNATURES[name]
    function.argtypes = [ctypes.c_void_p] * arrays + [ctypes.c_long] * sizes + [ctypes.c_double] * sum(factors)
    function.restype = None
    return function


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Within it, torch does the work of the kernels, as if the package were not installed."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


def has_kernels(x: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether there are kernels for a tensor's device and precision (or `dtype`); `kernels_fit` also asks for sizes.

    There are none for a tensor without numbers, with which torch traces or counts what a network does.
    """
    known = (dtype or x.dtype) in _SUFFIXES and x.device.type == "cpu" and type(x) in (Tensor, torch.nn.Parameter)
    return known and not _off and _library() is not None


def kernels_fit(x: Tensor) -> bool:
    """Whether there are kernels for features like x: [n, c, h, w] on a CPU, in a precision and a size they know.

    They have to lie channels last, as what a convolution returns does.
    """
    if not has_kernels(x):
        return False
    _, channels, _, width = x.shape
    if not x.is_contiguous(memory_format=torch.channels_last):
        return False
    together = channels % FEW == 0 or FEW % channels == 0
    return together and channels * width % FEW == 0 and channels * width <= LONGEST


def run(name: str, dtype: torch.dtype, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel.

    Args:
        name: One of `_SIGNATURES`.
        dtype: Which of its forms.
        arguments: Its arrays (None for one that is not wanted), then its sizes and factors. The caller sees to
            it that features are channels last, and that all are as large as the kernel expects.
    """
    _function(name, dtype)(*[one.data_ptr() if isinstance(one, Tensor) else one for one in arguments])
