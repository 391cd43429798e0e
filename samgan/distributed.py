"""Batch statistics over all processes, differentiable to any order.

Every process holds a slice of the global batch. Whatever couples the images of a batch (minibatch standard deviation,
the means of a relativistic loss) is computed over the global batch, so that N processes compute the same as one.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, distributed

from samgan.errors import SamganError

P = ParamSpec("P")
T = TypeVar("T")


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


def leave() -> None:
    """Leave the process group, if this process is in one; no message may follow.

    Otherwise Gloo's threads may still run when Python exits, and abort a process that has finished its work.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def on_first_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work` only on the first process; every process returns its result or raises its error.

    If reading or writing fails on one process only, the others would wait for it in their next message.
    """
    if world_size() == 1:
        return work(*args, **kwargs)
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if rank() == 0:
        try:
            outcome[0] = work(*args, **kwargs)
        except Exception as error:
            failure = error
            # Other errors may not survive being sent between processes.
            known = isinstance(error, SamganError | OSError)
            outcome[1] = error if known else SamganError(f"the first process failed: {error!r}")
            outcome[1].on_all_processes = True
    distributed.broadcast_object_list(outcome)
    failure = failure or outcome[1]
    if failure is not None:
        raise failure
    return outcome[0]


class _SumOverProcesses(torch.autograd.Function):
    """y_r = sum_s x_s on every process r. The map is its own adjoint, so it is differentiable to any order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _SumOverProcesses.apply(gradients[0])


def gather(x: Tensor) -> Tensor:
    """Concatenate the `x` of all processes along the first axis, in rank order; all slices must have the same length.

    The gradient that reaches a slice is the sum over processes of the gradients of their losses. If every process
    computes the same global loss L, gradients averaged over processes are dL/dtheta. (torch's own all_gather either
    cuts the graph or cannot be differentiated twice, which gradient penalties need.)
    """
    if world_size() == 1:
        return x
    before = x.new_zeros(rank() * len(x), *x.shape[1:])
    after = x.new_zeros((world_size() - 1 - rank()) * len(x), *x.shape[1:])
    return _SumOverProcesses.apply(torch.cat([before, x, after]))


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes, in one message.

    Used instead of DistributedDataParallel, whose hooks do not survive two discriminator passes before one backward
    together with the double backward of a gradient penalty.
    """
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
