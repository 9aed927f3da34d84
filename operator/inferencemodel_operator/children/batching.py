"""Batching parameters in TensorFlow Serving's text form."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferencemodel_operator.spec import Batching


def textproto(batching: Batching, threads: int | None) -> str:
    """A BatchingParameters message (session_bundle_config.proto); scalars there are wrapped.

    Args:
        batching: the parameters; those left out have TensorFlow Serving's defaults.
        threads: how many batches run at once if the parameters don't say, because TensorFlow
            Serving itself would count the node's cores. None: leave it to TensorFlow Serving.
    """
    wrapped = {
        "max_batch_size": batching.max_batch_size,
        "batch_timeout_micros": batching.batch_timeout_micros,
        "max_enqueued_batches": batching.max_enqueued_batches,
        "num_batch_threads": batching.num_batch_threads or threads,
    }
    return " ".join(
        [
            *(
                f"{name} {{ value: {value} }}"
                for name, value in wrapped.items()
                if value is not None
            ),
            *(f"allowed_batch_sizes: {size}" for size in batching.allowed_batch_sizes),
            # Always written, so that the message is never empty: that would mean no batching.
            f"pad_variable_length_inputs: {str(batching.pad_variable_length_inputs).lower()}",
        ]
    )
