"""From a trained model to images."""

from typing import TYPE_CHECKING

from samgan.later import import_when_used
from samgan.sampling.origin import Origin

if TYPE_CHECKING:
    from samgan.sampling.graphs import GRAPHS, GraphFormat, check_suffix, write_graph
    from samgan.sampling.images import (
        FORWARD_BATCH,
        forward_batch,
        generate,
        labels_like,
        latents_of_seeds,
        sample,
        sample_batches,
        truncated,
    )
    from samgan.sampling.model import (
        MODEL_SUFFIX,
        Labels,
        Model,
        check_origin,
        find_file,
        hash_weights,
        is_model,
        is_run,
        load_model,
        model_of,
        open_model,
        read_model,
        write_model,
    )
    from samgan.sampling.sheets import attention_sheet, interpolate, neighbours, scales_sheet
    from samgan.sampling.shipped import SHIPPED, ShippedModel
    from samgan.sampling.source import Source
    from samgan.sampling.write import Written, check_format, write_samples, write_sheet

__all__ = [
    "FORWARD_BATCH",
    "GRAPHS",
    "MODEL_SUFFIX",
    "SHIPPED",
    "GraphFormat",
    "Labels",
    "Model",
    "Origin",
    "ShippedModel",
    "Source",
    "Written",
    "attention_sheet",
    "check_format",
    "check_origin",
    "check_suffix",
    "find_file",
    "forward_batch",
    "generate",
    "hash_weights",
    "interpolate",
    "is_model",
    "is_run",
    "labels_like",
    "latents_of_seeds",
    "load_model",
    "model_of",
    "neighbours",
    "open_model",
    "read_model",
    "sample",
    "sample_batches",
    "scales_sheet",
    "truncated",
    "write_graph",
    "write_model",
    "write_samples",
    "write_sheet",
]
# What makes images needs torch; a document about them does not.
__getattr__ = import_when_used(
    __name__,
    (
        "graphs",
        "images",
        "model",
        "sheets",
        "shipped",
        "source",
        "write",
    ),
    __all__,
)
