"""Reads the weights of a PyTorch checkpoint of the old (pre-zip) format, without PyTorch.

Such a file is a pickle, and a pickle can run anything. This one is read by an unpickler that
knows three kinds of name and refuses every other, so a file can yield tensors or an error.

Layout: pickles of the magic number, the protocol version, a description of the writing machine,
the state dict and the list of storage keys; then for each key an int64 count and the raw numbers.
"""

from __future__ import annotations

import collections
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demo.errors import CheckpointError

if TYPE_CHECKING:
    from typing import BinaryIO

    from numpy.typing import NDArray

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _View:
    return _View(storage, offset, shape, stride)


class _ClosedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise CheckpointError(f"the weights file names {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, count, _ = pid
        return _Storage(key, dtype, count)


def read(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """The state dict of a checkpoint: arrays by name, in PyTorch's own layouts.

    Raises:
        CheckpointError: the file is of another format, is cut short, or names anything that
            tensors do not need.
    """
    try:
        magic, protocol = _load(file), _load(file)
        if (magic, protocol) != (_MAGIC, _PROTOCOL):
            raise CheckpointError("the weights file is not a PyTorch checkpoint of the old format")
        _load(file)
        views: dict[str, _View] = _load(file)
        keys: list[str] = _load(file)
        dtypes = {view.storage.key: view.storage.dtype for view in views.values()}
        buffers = {key: _numbers(file, dtypes[key]) for key in keys}
        return {name: _array(view, buffers[view.storage.key]) for name, view in views.items()}
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"the weights file is damaged: {error}") from error


def _load(file: BinaryIO) -> Any:
    return _ClosedUnpickler(file).load()


def _numbers(file: BinaryIO, dtype: np.dtype[Any]) -> NDArray[Any]:
    count = int.from_bytes(file.read(8), "little")
    raw = file.read(count * dtype.itemsize)
    if len(raw) != count * dtype.itemsize:
        raise CheckpointError("the weights file is cut short")
    return np.frombuffer(raw, dtype)


def _array(view: _View, buffer: NDArray[Any]) -> NDArray[Any]:
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.stride, strict=True))
    if not 0 <= view.offset <= last < buffer.size:
        raise CheckpointError("the weights file has a tensor that reaches beyond its numbers")
    return np.lib.stride_tricks.as_strided(
        buffer[view.offset :],
        view.shape,
        [stride * buffer.itemsize for stride in view.stride],
        writeable=False,
    )
