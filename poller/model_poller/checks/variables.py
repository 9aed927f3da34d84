"""What ``variables/variables.index`` says about the shards beside it.

The index of a TensorFlow checkpoint is a sorted table of the kind that LevelDB has
(tensorflow/core/lib/io/format.h): blocks of keys and values, a block that lists them, and a footer.
Under the empty key it holds a BundleHeaderProto, under each tensor's name a BundleEntryProto
(tensorflow/core/protobuf/tensor_bundle.proto).
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

import google_crc32c

from model_poller.checks.crc32c import masked
from model_poller.checks.wire import MAX_FIELDS, fields, varint

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_INDEX_BYTES = 64 << 20
"""A larger index is not looked into; it would name a million tensors."""

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_BYTES = 5
_NUM_SHARDS = 1
_SHARD_ID, _OFFSET, _SIZE = 3, 4, 5
_MAX_SHARDS = 100_000


def shard_sizes(index: bytes) -> list[int]:
    """How many bytes each shard has to have, for all the tensors in it.

    An index whose blocks are compressed tells of no shard; TensorFlow writes none.

    Raises:
        ValueError: it is no index; says why.
    """
    footer = len(index) - _FOOTER_BYTES
    if footer < 0 or int.from_bytes(index[-8:], "little") != _MAGIC:
        raise ValueError("its end is missing")
    *_, position = _pair(index, range(footer, len(index)))
    start, size, _ = _pair(index, range(position, len(index)))
    listed = [_pair(index, value)[:2] for value in _values(index, start, size)]
    if sum(size for _, size in listed) > len(index):
        raise ValueError("its blocks overlap")
    entries = chain.from_iterable(_values(index, start, size) for start, size in listed)
    try:
        header = _numbers(index, next(entries))
    except StopIteration:
        return []
    count = header.get(_NUM_SHARDS, 0)
    if not 1 <= count <= _MAX_SHARDS:
        raise ValueError(f"it names {count} shards")
    sizes = [0] * count
    for value in islice(entries, MAX_FIELDS):
        told = _numbers(index, value)
        shard = told.get(_SHARD_ID, 0)
        if shard >= count:
            raise ValueError(f"it has {count} shards and names number {shard}")
        sizes[shard] = max(sizes[shard], told.get(_OFFSET, 0) + told.get(_SIZE, 0))
    return sizes


def _values(index: bytes, start: int, size: int) -> Iterator[range]:
    """Where the values of one block lie; none for a compressed block."""
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
    position = start
    while position < last:
        _, position = varint(index, position, last)
        rest_of_key, length, position = _pair(index, range(position, last))
        value = range(position + rest_of_key, position + rest_of_key + length)
        if value.stop > last:
            raise ValueError(f"it has an entry beyond the block at byte {start}")
        yield value
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
