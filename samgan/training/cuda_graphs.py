"""CUDA graphs: launch many small kernels at once, instead of one after another from Python."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn


class CapturedParts:
    """The parts of a Python generator as CUDA graphs: captured once, then replayed with new input values.

    Only the GPU's work is captured, not the Python code around it. Only the values of the inputs may change; everything
    else (Python numbers, shapes) stays as it was at capture. Between two parts the caller may change the networks in
    place.

    Args:
        make: Takes tensors and returns an iterator; its parts end at its yields. A part yields scalars or vectors by
            name. It may set gradients in the parameters of one network, if it first drops the old ones.
        inputs: The arguments of `make`; None stays None.
        networks: For each part, the network whose gradients it sets, or None.

    It runs on the current stream, which must not be the default stream. `make` must have run there once without
    capture, so that libraries have finished what they set up at first use.

    Source: Nguyen et al. 2021 (Accelerating PyTorch with CUDA Graphs), capture of a whole network.
    """

    def __init__(
        self,
        make: Callable[..., Iterator[dict[str, Tensor]]],
        inputs: Sequence[Tensor | None],
        networks: Sequence[nn.Module | None],
    ) -> None:
        self.inputs = [None if value is None else value.clone() for value in inputs]
        # One memory pool for all parts: what a part leaves for the next part stays in place.
        pool, parts = torch.cuda.graph_pool_handle(), make(*self.inputs)
        self.parts: list[tuple[torch.cuda.CUDAGraph, dict[str, Tensor], list[tuple[nn.Parameter, Tensor | None]]]] = []
        for network in networks:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                outputs = next(parts)
            gradients = [] if network is None else [(parameter, parameter.grad) for parameter in network.parameters()]
            self.parts.append((graph, outputs, gradients))

    def __call__(self, inputs: Sequence[Tensor | None]) -> Iterator[dict[str, Tensor]]:
        """What `make(*inputs)` yields, part by part; inputs must have the same shapes as at capture."""
        for own, value in zip(self.inputs, inputs, strict=True):
            if own is not None and value is not None:
                own.copy_(value)
        for graph, outputs, gradients in self.parts:
            graph.replay()
            for parameter, gradient in gradients:
                parameter.grad = gradient
            yield {name: value.clone() for name, value in outputs.items()}  # the next replay overwrites them
