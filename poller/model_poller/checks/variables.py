"""What ``variables/variables.index`` says about the shards beside it: their sizes and bytes.

The index of a TensorFlow checkpoint is a sorted table of the kind that LevelDB has
(tensorflow/core/lib/io/format.h): blocks of keys and values, a block that lists them, and a footer.
Under the empty key it holds a BundleHeaderProto, under each tensor's name a BundleEntryProto
(tensorflow/core/protobuf/tensor_bundle.proto).
"""

from __future__ import annotations

import math
import os
import struct
from contextlib import suppress
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

from model_poller.checks.crc32c import masked
from model_poller.checks.dtypes import MAX_DIMENSIONS
from model_poller.checks.wire import MAX_FIELDS, fields, varint
from model_poller.errors import BrokenVersionError, StoppedError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INDEX = "variables/variables.index"

MAX_INDEX_BYTES = 64 << 20
"""A larger index is not looked into; it would name a million tensors."""

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_BYTES = 5
_NUM_SHARDS, _ENDIANNESS = 1, 2
_DTYPE, _SHAPE, _SHARD_ID, _OFFSET, _SIZE, _CRC32C, _SLICES = range(1, 8)
_DIM, _DIM_SIZE = 2, 1
"""Of a TensorShapeProto."""
_STRING, _VARIANT = 7, 21
"""Of tensorflow/core/framework/types.proto."""
_MAX_KEY_BYTES = 64 << 10
"""Each is made of the one before, so long ones would be copied a million times."""
_MAX_SHARDS = 100_000
_MAX_WORDS = 1_000_000
"""A tensor of more strings isn't looked into."""
_PIECE_BYTES = 1 << 20


class _Tensor(NamedTuple):
    """Where a tensor lies, and what it has to be."""

    name: str
    is_text: bool
    elements: int
    shard: int
    offset: int
    size: int
    crc32c: int
    """Masked."""


def shard_sizes(index: bytes) -> list[int]:
    """How many bytes each shard has to have, for all the tensors in it.

    An index whose blocks are compressed tells of no shard; TensorFlow writes none.

    Raises:
        ValueError: it is no index; says why.
    """
    header, entries = _entries(index)
    sizes = [0] * header.get(_NUM_SHARDS, 0)
    for _, value in entries:
        told = _numbers(index, value)
        shard = _shard(told, len(sizes))
        sizes[shard] = max(sizes[shard], told.get(_OFFSET, 0) + told.get(_SIZE, 0))
    return sizes


def check_tensors(folder: Path, stopped: Callable[[], bool]) -> None:
    """Compare the bytes of a SavedModel's tensors with the checksums that its index has of them.

    This finds damage that no store tells of, and that TensorFlow would find only when it loads the
    version. What the index can't tell is left to TensorFlow: an index that isn't whole or is
    compressed, tensors of variants, such with more than a million strings.

    Raises:
        BrokenVersionError: a tensor is another one.
        StoppedError
        OSError
    """
    path = folder / INDEX
    if not path.is_file() or path.stat().st_size > MAX_INDEX_BYTES:
        return
    with suppress(ValueError):
        count, tensors = _tensors(path.read_bytes())
        shards = [
            folder / f"variables/variables.data-{shard:05d}-of-{count:05d}"
            for shard in range(count)
        ]
        # Tensors don't overlap, so all of them are read as fast as the shards.
        left = sum(shard.stat().st_size for shard in shards)
        for shard, among in groupby(tensors, key=lambda tensor: tensor.shard):
            with shards[shard].open("rb", buffering=0) as file:
                for tensor in among:
                    if (left := left - tensor.size) < 0:
                        raise ValueError("its tensors overlap")
                    if not _is_whole(tensor, file.fileno(), stopped):
                        raise BrokenVersionError(
                            VersionReason.CHECKSUM_MISMATCH,
                            f"variables/{shards[shard].name}: the tensor {tensor.name[:200]} has"
                            f" not the checksum that {INDEX} says; upload it as it was exported,"
                            " or export the model anew",
                        )


def _is_whole(tensor: _Tensor, file: int, stopped: Callable[[], bool]) -> bool:
    """Whether a tensor's bytes in its shard have its checksum, or that can't be told."""
    checksum, start, end = 0, tensor.offset, tensor.offset + tensor.size
    if tensor.is_text:
        if tensor.elements > _MAX_WORDS:
            return True
        # WriteStringTensor of tensorflow/core/util/tensor_bundle/tensor_bundle.cc: the lengths,
        # their checksum, the bytes. The lengths count as whole numbers of four or eight bytes.
        lengths = os.pread(file, min(tensor.size, 10 * tensor.elements), start)
        position, words = 0, bytearray()
        try:
            for _ in range(tensor.elements):
                length, position = varint(lengths, position, len(lengths))
                words += struct.pack("<L" if length < 1 << 32 else "<Q", length)
        except (ValueError, struct.error):
            return False
        checksum = google_crc32c.value(bytes(words))
        start += position
    while start < end:
        if stopped():
            raise StoppedError("checking the tensors was given up")
        piece = os.pread(file, min(_PIECE_BYTES, end - start), start)
        if not piece:
            return False
        checksum = google_crc32c.extend(checksum, piece)
        start += len(piece)
    return masked(checksum) == tensor.crc32c


def _tensors(index: bytes) -> tuple[int, Iterator[_Tensor]]:
    """The number of shards, and the tensors whose bytes the index has a checksum of."""
    header, entries = _entries(index)
    count = header.get(_NUM_SHARDS, 0)

    def told() -> Iterator[_Tensor]:
        if header.get(_ENDIANNESS):
            return
        for key, value in entries:
            numbers = _numbers(index, value)
            # What lies in slices has its bytes under other keys.
            if _CRC32C not in numbers or numbers.get(_DTYPE) == _VARIANT:
                continue
            is_text = numbers.get(_DTYPE) == _STRING
            yield _Tensor(
                key.decode(errors="replace"),
                is_text,
                _elements(index, value) if is_text else 0,
                _shard(numbers, count),
                numbers.get(_OFFSET, 0),
                numbers.get(_SIZE, 0),
                numbers[_CRC32C],
            )

    return count, told()


def _elements(index: bytes, entry: range) -> int:
    dims: list[int] = []
    for number, shape in fields(index, entry.start, entry.stop):
        if number != _SHAPE or isinstance(shape, int):
            continue
        for inner, dim in fields(index, shape.start, shape.stop):
            if inner == _DIM and isinstance(dim, range):
                if len(dims) == MAX_DIMENSIONS:
                    raise ValueError(f"it has a tensor of more than {MAX_DIMENSIONS} dimensions")
                dims.append(_numbers(index, dim).get(_DIM_SIZE, 0))
    return math.prod(dims)


def _shard(numbers: dict[int, int], count: int) -> int:
    shard = numbers.get(_SHARD_ID, 0)
    if shard >= count:
        raise ValueError(f"it has {count} shards and names number {shard}")
    return shard


def _entries(index: bytes) -> tuple[dict[int, int], Iterator[tuple[bytes, range]]]:
    """The numbers of the header, and all other keys with where their values lie."""
    footer = len(index) - _FOOTER_BYTES
    if footer < 0 or int.from_bytes(index[-8:], "little") != _MAGIC:
        raise ValueError("its end is missing")
    *_, position = _pair(index, range(footer, len(index)))
    start, size, _ = _pair(index, range(position, len(index)))
    listed = [_pair(index, value)[:2] for _, value in _block(index, start, size)]
    if sum(size for _, size in listed) > len(index):
        raise ValueError("its blocks overlap")
    entries = chain.from_iterable(_block(index, start, size) for start, size in listed)
    try:
        _, first = next(entries)
    except StopIteration:
        return {}, iter(())
    header = _numbers(index, first)
    count = header.get(_NUM_SHARDS, 0)
    if not 1 <= count <= _MAX_SHARDS:
        raise ValueError(f"it names {count} shards")
    return header, islice(entries, MAX_FIELDS)


def _block(index: bytes, start: int, size: int) -> Iterator[tuple[bytes, range]]:
    """The keys of one block and where their values lie; none for a compressed block."""
    end = start + size
    if end + _TRAILER_BYTES > len(index):
        raise ValueError("it has a block beyond its end")
    told = int.from_bytes(index[end + 1 : end + _TRAILER_BYTES], "little")
    if told != masked(google_crc32c.value(index[start : end + 1])):
        raise ValueError(f"the checksum of the block at byte {start} is wrong")
    if index[end]:
        return
    restarts = int.from_bytes(index[end - 4 : end], "little")
    last = end - 4 * (restarts + 1)
    position, key, count = start, b"", 0
    while position < last:
        if (count := count + 1) > MAX_FIELDS:
            raise ValueError(f"it has more than {MAX_FIELDS} entries in one block")
        shared, position = varint(index, position, last)
        rest_of_key, length, position = _pair(index, range(position, last))
        value = range(position + rest_of_key, position + rest_of_key + length)
        if value.stop > last:
            raise ValueError(f"it has an entry beyond the block at byte {start}")
        if min(shared, len(key)) + rest_of_key > _MAX_KEY_BYTES:
            raise ValueError(f"it has a key of more than {_MAX_KEY_BYTES} bytes")
        key = key[:shared] + index[position : value.start]
        yield key, value
        position = value.stop


def _pair(index: bytes, where: range) -> tuple[int, int, int]:
    """Two numbers, and the byte behind them."""
    first, position = varint(index, where.start, where.stop)
    second, position = varint(index, position, where.stop)
    return first, second, position


def _numbers(index: bytes, where: range) -> dict[int, int]:
    return {
        number: value
        for number, value in fields(index, where.start, where.stop)
        if isinstance(value, int)
    }
