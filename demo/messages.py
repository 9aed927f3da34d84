"""TensorFlow Serving's Predict messages, without TensorFlow's libraries.

The generated code asks for TensorFlow's own messages, and importing those runs all of TensorFlow:
0.7 GB of memory for a client that only sends bytes. The messages are plain Python in the same
package, so here a bare module of its name, with its path, stands in while they are imported.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

_FLOAT, _STRING, _INT64 = 1, 7, 9  # DT_FLOAT, DT_STRING, DT_INT64


def _import() -> Any:
    if "tensorflow" in sys.modules:
        from tensorflow_serving.apis import predict_pb2

        return predict_pb2
    found = importlib.util.find_spec("tensorflow")
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError("tensorflow-cpu is not installed; run: make demo")
    bare = ModuleType("tensorflow")
    bare.__path__ = list(found.submodule_search_locations)
    sys.modules["tensorflow"] = bare
    try:
        from tensorflow_serving.apis import predict_pb2
    finally:
        del sys.modules["tensorflow"]
    return predict_pb2


_predict = _import()
PredictResponse: Any = _predict.PredictResponse


def number_request(model: str, inputs: str, number: float) -> Any:
    """A PredictRequest for one number."""
    request = _predict.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs[inputs]
    tensor.dtype = _FLOAT
    tensor.tensor_shape.dim.add(size=1)
    tensor.float_val.append(number)
    return request


def photo_request(model: str, image: bytes) -> Any:
    """A PredictRequest for one picture."""
    request = _predict.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["image_bytes"]
    tensor.dtype = _STRING
    tensor.tensor_shape.dim.add(size=1)
    tensor.string_val.append(image)
    return request


def label_request(model: str, number: int) -> Any:
    """A PredictRequest for the label of one class."""
    request = _predict.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "labels"
    tensor = request.inputs["class_ids"]
    tensor.dtype = _INT64
    tensor.tensor_shape.dim.add(size=1)
    tensor.int64_val.append(number)
    return request
