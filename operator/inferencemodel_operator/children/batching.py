"""Batching parameters in TensorFlow Serving's text form."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferencemodel_operator.spec import Batching


def textproto(batching: Batching) -> str:
    """A BatchingParameters message (session_bundle_config.proto); scalars there are wrapped."""
    wrapped = {
        "max_batch_size": batching.max_batch_size,
        "batch_timeout_micros": batching.batch_timeout_micros,
        "max_enqueued_batches": batching.max_enqueued_batches,
        "num_batch_threads": batching.num_batch_threads,
    }
    fields = [
        f"{name} {{ value: {value} }}" for name, value in wrapped.items() if value is not None
    ]
    fields += [f"allowed_batch_sizes: {size}" for size in batching.allowed_batch_sizes]
    if batching.pad_variable_length_inputs:
        fields.append("pad_variable_length_inputs: true")
    return " ".join(fields)
