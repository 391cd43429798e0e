"""Choose the device and the precision, and set up Lightning Fabric for runs on several devices."""

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

import torch

from samgan.errors import UsageError

if TYPE_CHECKING:
    import lightning_fabric

SLOW = "this processor cannot compute in bf16 at a useful speed"
"""Said of a CPU for which `cpu_has_bf16` is false."""


def choose_device(device: str) -> str:
    """Resolve "auto" to CUDA, else the CPU. MPS is used only if asked for, since nothing has been tested on it.

    Raises:
        UsageError: The device is not available on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available.get(device, False):
        known = ", ".join(name for name, here in available.items() if here)
        raise UsageError(f"--device {device} is not available on this machine; choose one of auto, {known}")
    return device


def choose_precision(precision: str, device: str) -> str:
    """Resolve "auto" for a device ("auto", "cpu", ...): "bf16" if it has instructions for bf16, else "fp32"."""
    if precision != "auto":
        return precision
    device = choose_device(device)
    if device == "cuda":
        native = torch.cuda.get_device_capability() >= (8, 0)  # older GPUs emulate it
    else:
        has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # absent from older versions
        native = device == "cpu" and has_instructions()
    return "bf16" if native else "fp32"


def cpu_has_bf16() -> bool:
    """Whether a CPU computes networks in bf16 at a useful speed: oneDNN needs AVX-512 or AVX-NE-CONVERT for it.

    Elsewhere some of its operations fail, and torch's own convolutions and products are many times slower than in fp32.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", bool)  # absent from builds without oneDNN
    return bool(supported())


def usable_precision(precision: str, device: str) -> str:
    """What a device ("auto", "cpu", ...) computes in if asked for `precision`: fp32 where a CPU is no good at bf16."""
    chosen = choose_precision(precision, device)
    without = chosen == "bf16" and choose_device(device) == "cpu" and not cpu_has_bf16()
    return "fp32" if without else chosen


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor.to(device)`, without waiting for work that a GPU has not finished."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class OneProcess:
    """What a run asks of Lightning Fabric, for a process that trains alone: Fabric itself takes seconds to import.

    Args:
        device: "cpu", "cuda" or "mps"; the first one of its kind.
        precision: "fp32" or "bf16".
    """

    strategy = None
    world_size, global_rank, local_rank, node_rank = 1, 0, 0, 0

    def __init__(self, device: str, precision: str = "fp32") -> None:
        self.device = torch.device(device) if device == "cpu" else torch.device(device, 0)
        self.precision = precision

    def launch(self) -> None:
        """Make the device the current one; there are no processes to start."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Within it, networks compute in the precision."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def make_fabric(
    device: str = "auto", processes: int = 1, hosts: int = 1, precision: str = "fp32"
) -> "OneProcess | lightning_fabric.Fabric":
    """Lightning Fabric for a run, or `OneProcess` in its place.

    Args:
        device: "auto" (CUDA, else CPU), "cpu", "cuda" or "mps".
        processes: Processes (devices) per host.
        hosts: Number of hosts; start the same command on each with MASTER_ADDR, MASTER_PORT and NODE_RANK, or start all
            processes with torchrun or srun.
        precision: "fp32" or "bf16".

    Raises:
        UsageError: The device is not available, or is a CPU that is no good at bf16 (`cpu_has_bf16`); a number is
            below 1, there are fewer GPUs than processes, or a launcher such as torchrun has started another number of
            processes.
    """
    device = choose_device(device)
    if min(processes, hosts) < 1:
        raise UsageError(f"--processes {processes} --hosts {hosts}: expected 1 or more of each")
    if device == "cuda" and processes > torch.cuda.device_count():
        most = torch.cuda.device_count()
        raise UsageError(f"--processes {processes}: expected at most {most}, one process for each GPU of this host")
    if precision == "bf16" and usable_precision(precision, device) != "bf16":
        raise UsageError(f"{precision}: {SLOW}; expected fp32, or a processor with AVX-512, or a GPU")
    if processes * hosts == 1 and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun may have started more
        return OneProcess(device, precision)
    from lightning_fabric import Fabric  # takes two to four seconds

    from samgan.launch import Together, choose_environment, without_overrides

    environment = choose_environment(processes, hosts)
    with without_overrides():
        return Fabric(
            accelerator=device,
            devices=processes,
            num_nodes=hosts,
            strategy=Together() if processes * hosts > 1 else "auto",
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            plugins=[environment],
        )


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for the next allocation, for the rest of the process.

    Otherwise it gives large blocks back to the system after each use, and the system clears them page by page when the
    next step asks for them again. The peak of memory in use does not change.

    Returns:
        Whether the C library accepted the setting; only GNU's does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    mmap_threshold, trim_threshold = -3, -1  # malloc.h
    return bool(mallopt(mmap_threshold, 1 << 30) and mallopt(trim_threshold, (1 << 31) - 1))
