"""CUDA graphs: work of many small kernels, launched at once instead of one after the other by Python."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn


class CapturedParts:
    """The parts of a generator function as CUDA graphs: captured once, then replayed on other values of its inputs.

    Captured is what the GPU does, not what Python does beside it: whatever depends on more than the inputs' values (a
    number of Python's, a shape) stays as it was. Between two parts the caller may change the networks in place.

    Args:
        make: From tensors to an iterator, whose parts lie between its yields. A part gives scalars or vectors by name,
            and may leave gradients in the parameters of one network, where it has dropped those that were there.
        inputs: What `make` takes; None stays None.
        networks: For each part the network whose gradients it leaves, or None.

    It runs on the current stream, which must not be the default one. `make` must have run there as it is before, so
    that what libraries set up at first use is there.

    Source: Nguyen et al. 2021 (Accelerating PyTorch with CUDA Graphs), its capture of a whole network.
    """

    def __init__(
        self,
        make: Callable[..., Iterator[dict[str, Tensor]]],
        inputs: Sequence[Tensor | None],
        networks: Sequence[nn.Module | None],
    ) -> None:
        self.inputs = [None if value is None else value.clone() for value in inputs]
        # One pool of memory for all parts: what a part leaves to the next one stays where it is.
        pool, parts = torch.cuda.graph_pool_handle(), make(*self.inputs)
        self.parts: list[tuple[torch.cuda.CUDAGraph, dict[str, Tensor], list[tuple[nn.Parameter, Tensor | None]]]] = []
        for network in networks:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                outputs = next(parts)
            gradients = [] if network is None else [(parameter, parameter.grad) for parameter in network.parameters()]
            self.parts.append((graph, outputs, gradients))

    def __call__(self, inputs: Sequence[Tensor | None]) -> Iterator[dict[str, Tensor]]:
        """What `make(*inputs)` gives, part by part; inputs have the shapes of those of the capture."""
        for own, value in zip(self.inputs, inputs, strict=True):
            if own is not None and value is not None:
                own.copy_(value)
        for graph, outputs, gradients in self.parts:
            graph.replay()
            for parameter, gradient in gradients:
                parameter.grad = gradient
            yield {name: value.clone() for name, value in outputs.items()}  # the next replay writes over them
