"""TensorFlow's C API by ctypes: load a SavedModel, run its session.

Why not ``import tensorflow``: the C API calls the very loader and session that TensorFlow Serving
is built on, so results, error codes and messages are the same; no call holds the interpreter's
lock; and a process of it needs a tenth of the private memory, and a second of start-up less.
``libtensorflow_cc`` is part of the tensorflow-cpu wheel; its C API is documented and stable
(``tensorflow/c/c_api.h``, ``tf_tensor.h``, ``tf_tstring.h``).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from development_model_server.errors import Code, ServingError
from development_model_server.tensors import DT_STRING, STORAGE, Tensor, shaped

if TYPE_CHECKING:
    from collections.abc import Sequence

_pointer = ctypes.c_void_p
_STRING_BYTES = 24  # sizeof(TF_TString)
_ALIGNMENT = 64


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    )


_Deallocator = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "TF_Version": (ctypes.c_char_p, ()),
    "TF_NewStatus": (_pointer, ()),
    "TF_DeleteStatus": (None, (_pointer,)),
    "TF_GetCode": (ctypes.c_int, (_pointer,)),
    "TF_Message": (ctypes.c_char_p, (_pointer,)),
    "TF_NewGraph": (_pointer, ()),
    "TF_DeleteGraph": (None, (_pointer,)),
    "TF_GraphOperationByName": (_pointer, (_pointer, ctypes.c_char_p)),
    "TF_OperationNumOutputs": (ctypes.c_int, (_pointer,)),
    "TF_NewSessionOptions": (_pointer, ()),
    "TF_DeleteSessionOptions": (None, (_pointer,)),
    "TF_SetConfig": (None, (_pointer, ctypes.c_char_p, ctypes.c_size_t, _pointer)),
    "TF_NewBuffer": (ctypes.POINTER(_Buffer), ()),
    "TF_NewBufferFromString": (
        ctypes.POINTER(_Buffer),
        (ctypes.c_char_p, ctypes.c_size_t),
    ),
    "TF_DeleteBuffer": (None, (ctypes.POINTER(_Buffer),)),
    "TF_LoadLibrary": (_pointer, (ctypes.c_char_p, _pointer)),
    # What it registered stays.
    "TF_DeleteLibraryHandle": (None, (_pointer,)),
    "TF_LoadSessionFromSavedModel": (
        _pointer,
        (
            _pointer,
            ctypes.POINTER(_Buffer),
            ctypes.c_char_p,
            ctypes.POINTER(ctypes.c_char_p),
            ctypes.c_int,
            _pointer,
            ctypes.POINTER(_Buffer),
            _pointer,
        ),
    ),
    "TF_CloseSession": (None, (_pointer, _pointer)),
    "TF_DeleteSession": (None, (_pointer, _pointer)),
    "TF_SessionRun": (
        None,
        (
            _pointer,
            ctypes.POINTER(_Buffer),
            ctypes.POINTER(_Output),
            ctypes.POINTER(_pointer),
            ctypes.c_int,
            ctypes.POINTER(_Output),
            ctypes.POINTER(_pointer),
            ctypes.c_int,
            _pointer,
            ctypes.c_int,
            _pointer,
            _pointer,
        ),
    ),
    "TF_AllocateTensor": (
        _pointer,
        (ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.c_int, ctypes.c_size_t),
    ),
    "TF_NewTensor": (
        _pointer,
        (
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_int64),
            ctypes.c_int,
            _pointer,
            ctypes.c_size_t,
            _Deallocator,
            _pointer,
        ),
    ),
    "TF_DeleteTensor": (None, (_pointer,)),
    "TF_TensorType": (ctypes.c_int, (_pointer,)),
    "TF_NumDims": (ctypes.c_int, (_pointer,)),
    "TF_Dim": (ctypes.c_int64, (_pointer, ctypes.c_int)),
    "TF_TensorByteSize": (ctypes.c_size_t, (_pointer,)),
    "TF_TensorData": (_pointer, (_pointer,)),
    "TF_StringInit": (None, (_pointer,)),
    "TF_StringCopy": (None, (_pointer, ctypes.c_char_p, ctypes.c_size_t)),
    "TF_StringGetDataPointer": (_pointer, (_pointer,)),
    "TF_StringGetSize": (ctypes.c_size_t, (_pointer,)),
    "TF_StringDealloc": (None, (_pointer,)),
}


@functools.cache
def _library() -> Any:
    """The loaded library with the argument types of every function used here."""
    specification = importlib.util.find_spec("tensorflow")
    locations = specification and specification.submodule_search_locations
    if not locations:
        raise ImportError("tensorflow-cpu is not installed: pip install tensorflow-cpu")
    library = ctypes.CDLL(str(Path(next(iter(locations))) / "libtensorflow_cc.so.2"))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def version() -> str:
    """TensorFlow's version, as in ``2.21.0``."""
    return str(_library().TF_Version().decode())


def load_operations(library: Path) -> None:
    """Register the operations and kernels of a library.

    Raises:
        ServingError: it can't be loaded.
    """
    with _Status() as status:
        handle = _library().TF_LoadLibrary(os.fsencode(library), status.handle)
        if handle:
            _library().TF_DeleteLibraryHandle(handle)


class _Status:
    """A TF_Status that raises ServingError on leaving a block in which a call failed."""

    def __init__(self) -> None:
        self.handle: int = _library().TF_NewStatus()

    def __enter__(self) -> _Status:
        return self

    def __exit__(self, *exception: object) -> None:
        library = _library()
        code = library.TF_GetCode(self.handle)
        message = library.TF_Message(self.handle).decode(errors="replace") if code else ""
        library.TF_DeleteStatus(self.handle)
        if code and exception[0] is None:
            raise ServingError(
                Code(code) if code <= Code.UNAUTHENTICATED else Code.UNKNOWN, message
            )


# Memory that TensorFlow may still read, by address: string tensors live here until the last
# reference to them is gone, which can be long after the call that fed them.
_string_memory: dict[int, tuple[ctypes.Array[ctypes.c_char], int]] = {}
_string_memory_lock = threading.Lock()


def _free_strings(data: int, _length: int, _argument: int) -> None:
    with _string_memory_lock:
        _, count = _string_memory.pop(data)
    dealloc = _library().TF_StringDealloc
    for index in range(count):
        dealloc(data + index * _STRING_BYTES)


# Kept for as long as the library may call it.
_FREE_STRINGS = _Deallocator(_free_strings)


def _new_tensor(tensor: Tensor) -> int:
    library = _library()
    dimensions = (ctypes.c_int64 * len(tensor.shape))(*tensor.shape)
    if tensor.dtype != DT_STRING:
        size = tensor.values.nbytes
        handle: int = library.TF_AllocateTensor(tensor.dtype, dimensions, len(tensor.shape), size)
        if size:
            contiguous = np.ascontiguousarray(tensor.values)
            ctypes.memmove(library.TF_TensorData(handle), contiguous.ctypes.data, size)
        return handle
    count = len(tensor.strings)
    memory = ctypes.create_string_buffer(count * _STRING_BYTES + _ALIGNMENT)
    address = -(-ctypes.addressof(memory) // _ALIGNMENT) * _ALIGNMENT
    for index, value in enumerate(tensor.strings):
        library.TF_StringInit(address + index * _STRING_BYTES)
        library.TF_StringCopy(address + index * _STRING_BYTES, value, len(value))
    with _string_memory_lock:
        _string_memory[address] = (memory, count)
    return int(
        library.TF_NewTensor(
            DT_STRING,
            dimensions,
            len(tensor.shape),
            address,
            count * _STRING_BYTES,
            _FREE_STRINGS,
            None,
        )
    )


def _read_tensor(handle: int) -> Tensor:
    library = _library()
    dtype = library.TF_TensorType(handle)
    shape = tuple(library.TF_Dim(handle, axis) for axis in range(library.TF_NumDims(handle)))
    data = library.TF_TensorData(handle)
    if dtype == DT_STRING:
        count = int(np.prod(shape, dtype=np.int64))
        strings = []
        for index in range(count):
            element = data + index * _STRING_BYTES
            size = library.TF_StringGetSize(element)
            strings.append(ctypes.string_at(library.TF_StringGetDataPointer(element), size))
        return Tensor(dtype, shape, strings=strings)
    storage = STORAGE.get(dtype)
    if storage is None:
        raise ServingError(
            Code.UNIMPLEMENTED,
            f"an output tensor has type number {dtype}, which this development server can't return",
        )
    content = ctypes.string_at(data, library.TF_TensorByteSize(handle)) if data else b""
    return Tensor(dtype, shape, values=shaped(np.frombuffer(content, dtype=storage), shape))


@dataclass(frozen=True)
class TensorName:
    """``operation:index``, as a signature names a tensor."""

    operation: str
    index: int

    @classmethod
    def parse(cls, name: str) -> TensorName:
        """Read ``x:0``, or ``x`` for its first output."""
        operation, colon, index = name.rpartition(":")
        if colon and index.isdigit():
            return cls(operation, int(index))
        return cls(name, 0)


class Session:
    """A loaded SavedModel's session. Safe to run from many threads at once."""

    def __init__(self, path: str, tags: Sequence[str], config: bytes) -> None:
        """Load the SavedModel below ``path``.

        Args:
            path: the version's folder.
            tags: the exact set of tags of the meta graph to load.
            config: a serialized ``tensorflow.ConfigProto``.

        Raises:
            ServingError: with the loader's own code and message.
        """
        library = _library()
        self._graph: int = library.TF_NewGraph()
        self._session: int | None = None
        self._lock = threading.Lock()
        self._endpoints: dict[str, _Output] = {}
        options = library.TF_NewSessionOptions()
        meta_graph = library.TF_NewBuffer()
        try:
            with _Status() as status:
                library.TF_SetConfig(options, config, len(config), status.handle)
            encoded = [tag.encode() for tag in tags]
            with _Status() as status:
                self._session = library.TF_LoadSessionFromSavedModel(
                    options,
                    None,
                    os.fsencode(path),
                    (ctypes.c_char_p * len(encoded))(*encoded),
                    len(encoded),
                    self._graph,
                    meta_graph,
                    status.handle,
                )
            self.meta_graph = _signatures(meta_graph.contents)
        except BaseException:
            self.close()
            raise
        finally:
            library.TF_DeleteBuffer(meta_graph)
            library.TF_DeleteSessionOptions(options)

    def _endpoint(self, name: str, role: str) -> _Output:
        known = self._endpoints.get(name)
        if known is not None:
            return known
        library = _library()
        parsed = TensorName.parse(name)
        operation = library.TF_GraphOperationByName(self._graph, parsed.operation.encode())
        if not operation or parsed.index >= library.TF_OperationNumOutputs(operation):
            raise ServingError(
                Code.NOT_FOUND if not operation else Code.INVALID_ARGUMENT,
                f"{role} {name}: not found in graph",
            )
        found = _Output(operation, parsed.index)
        self._endpoints[name] = found
        return found

    def run(
        self,
        inputs: Sequence[tuple[str, Tensor]],
        outputs: Sequence[str],
        timeout_ms: int = 0,
    ) -> list[Tensor]:
        """Feed the named tensors and fetch others.

        Args:
            inputs: tensor names with what to feed.
            outputs: tensor names to fetch.
            timeout_ms: milliseconds after which the run ends with DEADLINE_EXCEEDED; 0 is never.

        Raises:
            ServingError: with the session's own code and message.
        """
        library = _library()
        feeds = [
            self._endpoint(name, "FeedInputs: unable to find feed output") for name, _ in inputs
        ]
        fetches = [self._endpoint(name, "FetchOutputs node") for name in outputs]
        options = _run_options(timeout_ms)
        values = (_pointer * len(inputs))()
        results = (_pointer * len(outputs))()
        try:
            for index, (_, tensor) in enumerate(inputs):
                values[index] = _new_tensor(tensor)
            with _Status() as status:
                library.TF_SessionRun(
                    self._session,
                    options,
                    (_Output * len(feeds))(*feeds),
                    values,
                    len(feeds),
                    (_Output * len(fetches))(*fetches),
                    results,
                    len(fetches),
                    None,
                    0,
                    None,
                    status.handle,
                )
            return [_read_tensor(handle) for handle in results if handle is not None]
        finally:
            for handle in (*values, *results):
                if handle:
                    library.TF_DeleteTensor(handle)
            if options:
                library.TF_DeleteBuffer(options)

    def close(self) -> None:
        """Free the session and its graph; no run may be under way."""
        library = _library()
        with self._lock:
            session, self._session = self._session, None
            graph, self._graph = self._graph, 0
        if session:
            with _Status() as status:
                library.TF_CloseSession(session, status.handle)
            with _Status() as status:
                library.TF_DeleteSession(session, status.handle)
        if graph:
            library.TF_DeleteGraph(graph)


def _run_options(timeout_ms: int) -> Any:
    if timeout_ms <= 0:
        return None
    # tensorflow.RunOptions{timeout_in_ms = 2}: a tag byte and a varint.
    encoded = bytearray(b"\x10")
    while timeout_ms > 0x7F:
        encoded.append(timeout_ms & 0x7F | 0x80)
        timeout_ms >>= 7
    encoded.append(timeout_ms)
    return _library().TF_NewBufferFromString(bytes(encoded), len(encoded))


def _signatures(meta_graph: _Buffer) -> bytes:
    """The signatures of a serialized MetaGraphDef.

    The graph, often most of it, is skipped without being copied or parsed.
    """
    if not meta_graph.length:
        return b""
    memory = (ctypes.c_ubyte * meta_graph.length).from_address(meta_graph.data)
    view = memoryview(memory).cast("B")
    return b"".join(bytes(view[start:end]) for start, end in _signature_fields(view))


_SIGNATURE_DEF_FIELD = 5  # MetaGraphDef.signature_def


def _signature_fields(message: memoryview) -> list[tuple[int, int]]:
    """Where the signature_def fields of a serialized MetaGraphDef start and end."""
    found = []
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        if tag & 7 == 2:
            length, position = _varint(message, position)
            position += length
        elif tag & 7 == 0:
            _, position = _varint(message, position)
        else:
            position += 8 if tag & 7 == 1 else 4
        if tag >> 3 == _SIGNATURE_DEF_FIELD:
            found.append((start, position))
    return found


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
