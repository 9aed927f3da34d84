"""The index of a checkpoint."""

from __future__ import annotations

import contextlib
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_poller.checks.variables import shard_sizes
from tests.unit.poller.doubles import shards_header, table, table_block, tensor, variables_index

# What TensorFlow 2.21 wrote for a module with a matrix of [100, 1] and two words.
REAL = zlib.decompress(
    bytes.fromhex(
        "78da636060e3609462e2606490e18f77f67075f60ef0f7f40b7174f2718df777f272750e89770f720cf0e060"
        "17625098c5acf186d1b476c6eb0d40d5a9fa7a8e2121419e4ea121aec1fa618e419e604d618e3ea1ae40d52c"
        "424c1c4c1a5ca60931367d0c726265fa06f8d4330a7100d5a70031a30297c60466d3fb4f75391980801144f0"
        "6ddbb01cce39f069e1060646e67286258c70b117893ca22b1939b631f2331004e1bf1bba554add6f0300e3a8"
        "31bc"
    )
)


def test_what_tensorflow_wrote_is_read() -> None:
    assert shard_sizes(REAL) == [646]


@given(sizes=st.lists(st.integers(0, 1 << 50), min_size=1, max_size=300))
def test_each_shards_least_size_is_read(sizes: list[int]) -> None:
    assert shard_sizes(variables_index(sizes)) == sizes


def test_tensors_may_lie_in_several_blocks_and_behind_one_another() -> None:
    first = table_block({b"": shards_header(2), b"a": tensor(0, 5), b"b": tensor(1, 9)})
    offset = b"\x18\x01\x20\x10\x28\x07"
    assert shard_sizes(table(first, table_block({b"c": offset}))) == [5, 16 + 7]


def test_a_compressed_index_tells_nothing() -> None:
    assert shard_sizes(table(table_block({b"": shards_header(2)}, kind=1))) == []


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"", "its end is missing"),
        (b"x" * 100, "its end is missing"),
        (variables_index([]), "names 0 shards"),
        (variables_index([1] * 3).replace(b"\x18\x02", b"\x18\x03"), "checksum of the block"),
        (REAL[:40] + REAL[41:], "checksum of the block"),
        (bytes(40) + REAL[-8:], "checksum of the block"),
        (b"\0\0\xff\x7f\0".ljust(40, b"\0") + REAL[-8:], "beyond its end"),
        (table(table_block({b"": shards_header(1), b"a": tensor(1, 5)})), "names number 1"),
        (table(table_block({b"": shards_header(1)}), times=99), "its blocks overlap"),
        (table(table_block({b"": shards_header(1 << 40)})), "names 1099511627776 shards"),
        (b"\xff" * 40 + REAL[-8:], "has no end"),
        (table(table_block({b"": shards_header(1), b"k" * (1 << 20): b""})), "a key of more than"),
        (table(table_block({b"": shards_header(1)}, again=1_000_000)), "more than 1000000 entries"),
    ],
)
def test_what_is_no_index_is_refused(index: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shard_sizes(index)


@given(at=st.integers(0, len(REAL) - 1), bits=st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_says_nothing(at: int, bits: int) -> None:
    changed = bytearray(REAL)
    changed[at] ^= bits
    with contextlib.suppress(ValueError):
        assert shard_sizes(bytes(changed)) == [646]


@given(content=st.binary(max_size=100))
@example(content=REAL[: len(REAL) // 2])
def test_no_bytes_fail_otherwise(content: bytes) -> None:
    for index in (content, content + REAL[-48:], content + REAL):
        with contextlib.suppress(ValueError):
            shard_sizes(index)
