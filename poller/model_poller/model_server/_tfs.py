"""TensorFlow Serving's GetModelStatus messages, without TensorFlow.

``tensorflow_serving.apis`` imports all of tensorflow (0.7 GB of memory, seconds of start) for one
enum of error codes. Here that enum is declared under its own name in the protobuf pool and the
import is answered by empty modules, which are taken away afterwards. Where tensorflow is already
imported, nothing is replaced.
"""

from __future__ import annotations

import sys
from types import ModuleType

from google.protobuf import descriptor_pb2, descriptor_pool

_CODES = (
    ("OK", 0),
    ("CANCELLED", 1),
    ("UNKNOWN", 2),
    ("INVALID_ARGUMENT", 3),
    ("DEADLINE_EXCEEDED", 4),
    ("NOT_FOUND", 5),
    ("ALREADY_EXISTS", 6),
    ("PERMISSION_DENIED", 7),
    ("UNAUTHENTICATED", 16),
    ("RESOURCE_EXHAUSTED", 8),
    ("FAILED_PRECONDITION", 9),
    ("ABORTED", 10),
    ("OUT_OF_RANGE", 11),
    ("UNIMPLEMENTED", 12),
    ("INTERNAL", 13),
    ("UNAVAILABLE", 14),
    ("DATA_LOSS", 15),
    ("DO_NOT_USE_RESERVED_FOR_FUTURE_EXPANSION_USE_DEFAULT_IN_SWITCH_INSTEAD_", 20),
)
_STUBS = (
    "tensorflow",
    "tensorflow.core",
    "tensorflow.core.protobuf",
    "tensorflow.core.protobuf.error_codes_pb2",
)


def _declare_error_codes() -> None:
    # Equal to tensorflow's own declaration in every field, options too: the pool refuses a second
    # file of one name only where it differs, so tensorflow can still be imported later.
    codes = descriptor_pb2.FileDescriptorProto(
        name="xla/tsl/protobuf/error_codes.proto", package="tensorflow.error", syntax="proto3"
    )
    enum = codes.enum_type.add(name="Code")
    for name, number in _CODES:
        enum.value.add(name=name, number=number)
    codes.options.java_package = "org.tensorflow.framework"
    codes.options.java_outer_classname = "ErrorCodesProtos"
    codes.options.java_multiple_files = True
    codes.options.go_package = "github.com/google/tsl/tsl/go/protobuf/for_core_protos_go_proto"
    codes.options.cc_enable_arenas = True
    forward = descriptor_pb2.FileDescriptorProto(
        name="tensorflow/core/protobuf/error_codes.proto",
        package="tensorflow.error.dummy",
        syntax="proto3",
        dependency=[codes.name],
        public_dependency=[0],
    )
    forward.options.go_package = (
        "github.com/tensorflow/tensorflow/tensorflow/go/core/protobuf/for_core_protos_go_proto"
    )
    pool = descriptor_pool.Default()
    for file in (codes, forward):
        pool.AddSerializedFile(file.SerializeToString())


def _import_without_tensorflow() -> None:
    if "tensorflow" in sys.modules:
        return
    _declare_error_codes()
    stubs = {name: ModuleType(name) for name in _STUBS}
    for name, stub in stubs.items():
        stub.__path__ = []
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(stubs[parent], child, stub)
    # The generated code takes the enum's module from the one that forwards it, but never looks in.
    stubs[_STUBS[-1]].__dict__["xla_dot_tsl_dot_protobuf_dot_error__codes__pb2"] = stubs[_STUBS[0]]
    sys.modules.update(stubs)
    try:
        import tensorflow_serving.apis.get_model_status_pb2  # noqa: F401
    finally:
        for name in stubs:
            del sys.modules[name]


_import_without_tensorflow()

from tensorflow_serving.apis.get_model_status_pb2 import (  # noqa: E402
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelVersionStatus,
)

__all__ = ["GetModelStatusRequest", "GetModelStatusResponse", "ModelVersionStatus"]
