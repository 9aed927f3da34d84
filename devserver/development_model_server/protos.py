"""The protocol buffers that this server speaks, and nothing else of TensorFlow's Python.

The messages of tensorflow-serving-api import ``tensorflow.core.…``, whose parent package would
load all of TensorFlow and Keras: half a gigabyte and four seconds for a few generated files. So
``tensorflow`` is a bare package that only knows where its files are while this module is being
imported, unless the real one is loaded already. Messages that the distribution leaves out are
built here from their published definitions (``config/ssl_config.proto``,
``config/monitoring_config.proto``, ``servables/tensorflow/session_bundle_config.proto``,
``grpc/health/v1/health.proto``).
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    wrappers_pb2,
)


def _enter_bare_tensorflow() -> bool:
    if "tensorflow" in sys.modules:
        return False
    specification = importlib.util.find_spec("tensorflow")
    if specification is None or specification.submodule_search_locations is None:
        raise ImportError("tensorflow-cpu is not installed: pip install tensorflow-cpu")
    package = types.ModuleType("tensorflow", "TensorFlow's generated messages only.")
    package.__path__ = list(specification.submodule_search_locations)
    sys.modules["tensorflow"] = package
    return True


def _leave_bare_tensorflow() -> None:
    for name in [name for name in sys.modules if f"{name}.".startswith("tensorflow.")]:
        del sys.modules[name]


_bare = _enter_bare_tensorflow()

from tensorflow.core.example.example_pb2 import Example  # noqa: E402
from tensorflow.core.example.feature_pb2 import Feature  # noqa: E402
from tensorflow.core.framework.tensor_pb2 import TensorProto  # noqa: E402
from tensorflow.core.framework.types_pb2 import DataType  # noqa: E402
from tensorflow.core.protobuf.config_pb2 import ConfigProto  # noqa: E402
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef  # noqa: E402
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig  # noqa: E402
from tensorflow_serving.apis.classification_pb2 import (  # noqa: E402
    ClassificationRequest,
    ClassificationResponse,
    ClassificationResult,
)
from tensorflow_serving.apis.get_model_metadata_pb2 import (  # noqa: E402
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import (  # noqa: E402
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelVersionStatus,
)
from tensorflow_serving.apis.inference_pb2 import (  # noqa: E402
    MultiInferenceRequest,
    MultiInferenceResponse,
)
from tensorflow_serving.apis.input_pb2 import Input  # noqa: E402
from tensorflow_serving.apis.model_management_pb2 import (  # noqa: E402
    ReloadConfigRequest,
    ReloadConfigResponse,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec  # noqa: E402
from tensorflow_serving.apis.model_service_pb2_grpc import (  # noqa: E402
    ModelServiceServicer,
    add_ModelServiceServicer_to_server,
)
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse  # noqa: E402
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog  # noqa: E402
from tensorflow_serving.apis.prediction_service_pb2_grpc import (  # noqa: E402
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from tensorflow_serving.apis.regression_pb2 import (  # noqa: E402
    RegressionRequest,
    RegressionResponse,
    RegressionResult,
)
from tensorflow_serving.apis.status_pb2 import StatusProto  # noqa: E402
from tensorflow_serving.config.model_server_config_pb2 import (  # noqa: E402
    ModelConfig,
    ModelConfigList,
    ModelServerConfig,
)
from tensorflow_serving.config.platform_config_pb2 import PlatformConfigMap  # noqa: E402

if _bare:
    _leave_bare_tensorflow()

_Field = descriptor_pb2.FieldDescriptorProto


def _message_types(
    package: str, dependencies: list[str], messages: dict[str, dict[str, tuple[int, str]]]
) -> dict[str, Any]:
    """Build message types from ``{message: {field: (number, type)}}``.

    A type is a scalar's name, or a message's full name; ``[…]`` around it means repeated.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"development_model_server/{package}.proto",
        package=package,
        syntax="proto3",
        dependency=dependencies,
    )
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            repeated = kind.startswith("[")
            kind = kind.strip("[]")
            added = message.field.add(
                name=field_name,
                number=number,
                label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL,
            )
            if "." in kind:
                added.type = _Field.TYPE_MESSAGE
                added.type_name = f".{kind}"
            else:
                added.type = _Field.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.Default()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }


_wrappers = wrappers_pb2.DESCRIPTOR.name
_configuration = _message_types(
    "tensorflow.serving",
    [_wrappers, any_pb2.DESCRIPTOR.name],
    {
        "SSLConfig": {
            "server_key": (1, "string"),
            "server_cert": (2, "string"),
            "custom_ca": (3, "string"),
            "client_verify": (4, "bool"),
        },
        "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
        "MonitoringConfig": {"prometheus_config": (1, "tensorflow.serving.PrometheusConfig")},
        "ThreadPoolFactoryConfig": {"thread_pool_factory_config": (1, "google.protobuf.Any")},
        "BatchingParameters": {
            "max_batch_size": (1, "google.protobuf.Int64Value"),
            "batch_timeout_micros": (2, "google.protobuf.Int64Value"),
            "max_enqueued_batches": (3, "google.protobuf.Int64Value"),
            "num_batch_threads": (4, "google.protobuf.Int64Value"),
            "thread_pool_name": (5, "google.protobuf.StringValue"),
            "allowed_batch_sizes": (6, "[int64]"),
            "pad_variable_length_inputs": (7, "bool"),
            "enable_large_batch_splitting": (8, "google.protobuf.BoolValue"),
            "max_execution_batch_size": (9, "google.protobuf.Int64Value"),
        },
    },
)
SSLConfig = _configuration["SSLConfig"]
MonitoringConfig = _configuration["MonitoringConfig"]
ThreadPoolFactoryConfig = _configuration["ThreadPoolFactoryConfig"]
BatchingParameters = _configuration["BatchingParameters"]

_health = _message_types(
    "grpc.health.v1",
    [],
    {
        "HealthCheckRequest": {"service": (1, "string")},
        # An enum on the wire is an int32: SERVING is 1, SERVICE_UNKNOWN 3.
        "HealthCheckResponse": {"status": (1, "int32")},
    },
)
HealthCheckRequest = _health["HealthCheckRequest"]
HealthCheckResponse = _health["HealthCheckResponse"]

__all__ = [
    "BatchingParameters",
    "ClassificationRequest",
    "ClassificationResponse",
    "ClassificationResult",
    "ConfigProto",
    "DataType",
    "Example",
    "Feature",
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
    "HealthCheckRequest",
    "HealthCheckResponse",
    "Input",
    "MetaGraphDef",
    "ModelConfig",
    "ModelConfigList",
    "ModelServerConfig",
    "ModelServiceServicer",
    "ModelSpec",
    "ModelVersionStatus",
    "MonitoringConfig",
    "MultiInferenceRequest",
    "MultiInferenceResponse",
    "PlatformConfigMap",
    "PredictRequest",
    "PredictResponse",
    "PredictionLog",
    "PredictionServiceServicer",
    "RegressionRequest",
    "RegressionResponse",
    "RegressionResult",
    "ReloadConfigRequest",
    "ReloadConfigResponse",
    "RewriterConfig",
    "SSLConfig",
    "SignatureDef",
    "SignatureDefMap",
    "StatusProto",
    "TensorProto",
    "ThreadPoolFactoryConfig",
    "add_ModelServiceServicer_to_server",
    "add_PredictionServiceServicer_to_server",
]
