"""Compiled kernels for samgan: one C library for each set of instructions, and nothing else."""

from pathlib import Path

__version__ = "0.3.0"


def library(instructions: str) -> Path | None:
    """The library for a processor's instructions, as torch names them ("AVX512", "AVX2", ...), or None."""
    for name in (instructions.lower(), "default"):
        path = Path(__file__).with_name(f"kernels_{name}.so")
        if path.exists():
            return path
    return None
