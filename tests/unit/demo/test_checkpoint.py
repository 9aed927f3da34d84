"""The weights reader: tensors out of good files, an error out of every other."""

from __future__ import annotations

import collections
import io
import os
import pickle
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from demo.errors import CheckpointError
from demo.model import checkpoint

_MAGIC = 0x1950A86A20F9469CFC6C


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, _Storage) else None


class _Storage:
    def __init__(self, kind: type, key: str, count: int) -> None:
        self.pid = ("storage", kind, key, "cpu", count, None)


class _Tensor:
    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, self.arguments


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Names like PyTorch's, for the writer alone: the reader never imports them."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")

    class FloatStorage:
        pass

    FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"

    def _rebuild_tensor_v2() -> None:
        pass

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch.FloatStorage = FloatStorage  # type: ignore[attr-defined]
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


def _file(state: Any, keys: list[str], numbers: bytes, magic: int = _MAGIC) -> io.BytesIO:
    file = io.BytesIO()
    for value in (magic, 1001, {"little_endian": True}, state, keys):
        _Pickler(file, protocol=2).dump(value)
    file.write(numbers)
    file.seek(0)
    return file


def _numbers(values: np.ndarray[Any, Any]) -> bytes:
    return values.size.to_bytes(8, "little") + values.astype("<f4").tobytes()


def _state(torch: ModuleType, shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> Any:
    storage = _Storage(torch.FloatStorage, "7", 6)
    tensor = _Tensor(storage, offset, shape, stride, False, collections.OrderedDict())
    return collections.OrderedDict(weight=tensor)


def test_a_tensor_is_read_with_its_own_strides(torch: ModuleType) -> None:
    values = np.arange(6)
    file = _file(_state(torch, (2, 3), (1, 2), 0), ["7"], _numbers(values))
    read = checkpoint.read(file)
    np.testing.assert_array_equal(read["weight"], values.reshape(3, 2).T)


def test_a_file_that_would_run_something_is_refused() -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return os.getenv, ("HOME",)

    with pytest.raises(CheckpointError, match=r"os\.getenv"):
        checkpoint.read(_file({"weight": Runs()}, [], b""))


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(torch: ModuleType) -> None:
    file = _file(_state(torch, (2, 3), (3, 1), 1), ["7"], _numbers(np.arange(6)))
    with pytest.raises(CheckpointError, match="reaches beyond"):
        checkpoint.read(file)


def test_a_file_cut_short_is_refused(torch: ModuleType) -> None:
    file = _file(_state(torch, (2, 3), (3, 1), 0), ["7"], _numbers(np.arange(6))[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        checkpoint.read(file)


def test_another_format_is_refused() -> None:
    with pytest.raises(CheckpointError, match="old format"):
        checkpoint.read(_file({}, [], b"", magic=1))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read(io.BytesIO(b"PK\x03\x04 a zip"))
