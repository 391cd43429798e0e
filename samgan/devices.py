"""Which device a network runs on, in which arithmetic, and Lightning Fabric for a run on several."""

import ctypes
from typing import TYPE_CHECKING

import torch

from samgan.errors import UsageError

if TYPE_CHECKING:
    import lightning_fabric


def choose_device(device: str) -> str:
    """Resolve "auto" to CUDA, else the CPU: on MPS nothing has been run, so it is taken where it is asked for alone.

    Raises:
        UsageError: The device is not on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available.get(device, False):
        known = ", ".join(name for name, here in available.items() if here)
        raise UsageError(f"--device {device}: not on this machine; here: auto, {known}")
    return device


def choose_precision(precision: str, device: str) -> str:
    """Resolve "auto" for a device ("auto", "cpu", ...): "bf16" where it has instructions for bf16, else "fp32"."""
    if precision != "auto":
        return precision
    device = choose_device(device)
    if device == "cuda":
        native = torch.cuda.get_device_capability() >= (8, 0)  # older ones emulate it
    else:
        has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # absent from old versions
        native = device == "cpu" and has_instructions()
    return "bf16" if native else "fp32"


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor.to(device)`, without waiting for what a GPU is still doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def make_fabric(
    device: str = "auto", processes: int = 1, hosts: int = 1, precision: str = "fp32"
) -> "lightning_fabric.Fabric":
    """Lightning Fabric for a run.

    Args:
        device: "auto" (CUDA, else CPU), "cpu", "cuda" or "mps".
        processes: Processes (devices) per host.
        hosts: Number of hosts; start the same command on each, as Fabric's documentation tells.
        precision: "fp32" or "bf16".

    Raises:
        UsageError: The device is not on this machine, or a number is below 1.
    """
    device = choose_device(device)
    if min(processes, hosts) < 1:
        raise UsageError(f"--processes {processes} --hosts {hosts}: expected 1 or more of each")
    if device == "cuda" and processes > torch.cuda.device_count():
        raise UsageError(f"--processes {processes}: one each for {torch.cuda.device_count()} GPUs of this host")
    from lightning_fabric import Fabric  # costs a second or two, and only training needs it

    return Fabric(
        accelerator=device,
        devices=processes,
        num_nodes=hosts,
        strategy="ddp" if processes * hosts > 1 else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed for the next allocation; it is told to for the rest of the process.

    It would give large blocks back to the system after each use, which then clears them page by page when the next
    step asks for them again. The largest amount ever in use stays as it is.

    Returns:
        Whether the C library (GNU's alone) took it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    mmap_threshold, trim_threshold = -3, -1  # malloc.h
    return bool(mallopt(mmap_threshold, 1 << 30) and mallopt(trim_threshold, (1 << 31) - 1))
