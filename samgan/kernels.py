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

VERSION = "0.3.0"
"""The version of samgan-kernels that fits: raised with every change of a kernel's arguments or of what it computes."""
FEW = 16  # numbers that a kernel handles together; a row of an image has a multiple of them
LONGEST = 16384  # numbers of a row; a kernel keeps up to twenty of them on the stack, 64 kB each in fp32
_SUFFIXES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
_SIGNATURES = {  # kernel: its arrays, see `_types`; the number of its sizes; that of its factors
    "activate_and_add": ("TT", 1, 0),
    "activate_and_halve": ("TT", 4, 0),
    "activate_and_halve_backward": ("TTTT", 4, 0),
    "activate_and_normalize": ("TA", 4, 0),
    "activate_and_normalize_backward": ("TTAT", 4, 0),
    "activate_backward": ("TTTT", 4, 0),
    "attend": ("TTTTT", 5, 0),
    "attend_backward": ("TTTTTTTTT", 5, 0),
    "augment": ("AAAABA", 4, 0),
    "augment_backward": ("AAABA", 4, 0),
    "collect_gradients": ("IAAII", 1, 0),
    "demodulate": ("TTAA", 4, 1),
    "demodulate_backward": ("ATTAAATT", 4, 1),
    "head_backward": ("ATTTTTA", 4, 0),
    "head_forward": ("TTTAA", 4, 0),
    "image_backward": ("TTTTTTTTT", 5, 0),
    "image_forward": ("TTTTTTT", 5, 0),
    "modulate": ("TTT", 4, 0),
    "modulate_backward": ("TTTTA", 4, 0),
    "modulated_backward": ("TTTATTTTA", 5, 0),
    "modulated_forward": ("TATTTT", 5, 0),
    "power_iteration": ("AIIII", 1, 0),
    "scale_weights": ("ATAII", 1, 0),
    "singular_values": ("AAIIII", 1, 0),
    "slope_and_add": ("TTT", 1, 0),
    "slope_and_halve": ("TTT", 4, 0),
    "spectral_gradients": ("IAAAAIIII", 1, 0),
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
    library = package.library(torch.backends.cpu.get_cpu_capability())
    try:
        return None if library is None else ctypes.CDLL(str(library))
    except OSError as error:  # built for another system, or damaged
        found = f"samgan-kernels cannot be loaded ({error})"
        warnings.warn(
            f"{found}; training is slower until you run: pip install --force-reinstall ./kernels", stacklevel=2
        )
        return None


def kernels_version() -> str | None:
    """The version of the kernels that are in use, or None."""
    return None if _off or _library() is None else VERSION


def _types(arrays: str, dtype: torch.dtype) -> list[torch.dtype]:
    """T: what is stored; A: what is computed in, at least fp32; B: yes or no; I: addresses or places."""
    known = {"T": dtype, "A": torch.promote_types(dtype, torch.float32), "B": torch.bool, "I": torch.int64}
    return [known[letter] for letter in arrays]


@cache
def _function(name: str, dtype: torch.dtype) -> tuple["ctypes._NamedFuncPointer", list[torch.dtype]]:
    """A kernel's form for a precision, and the types of its arrays."""
    library = _library()
    assert library is not None
    function = getattr(library, f"{name}_{_SUFFIXES[dtype]}")
    arrays, sizes, factors = _SIGNATURES[name]
    function.argtypes = [ctypes.c_void_p] * len(arrays) + [ctypes.c_long] * sizes + [ctypes.c_double] * factors
    function.restype = None
    return function, _types(arrays, dtype)


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

    Raises:
        TypeError: An array is of another type than the kernel reads or writes.
    """
    function, types = _function(name, dtype)
    addresses: list[int | float | None] = []
    for one, expected in zip(arguments, types, strict=False):
        if one is None:
            addresses.append(None)
        elif isinstance(one, Tensor) and one.dtype is expected:
            addresses.append(one.data_ptr())
        else:
            found = one.dtype if isinstance(one, Tensor) else type(one).__name__
            raise TypeError(f"{name}: array {len(addresses)} is {found}, expected {expected}")
    function(*addresses, *arguments[len(types) :])
