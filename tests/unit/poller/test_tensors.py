"""The tensors of a checkpoint, compared with the checksums in its index."""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_poller.checks.crc32c import masked
from model_poller.checks.variables import check_tensors
from model_poller.errors import BrokenVersionError, ObjectChangedError, StoppedError
from model_poller.status import VersionReason
from model_poller.stores.local import LocalSource
from model_poller.stores.uri import parse_uri
from model_poller.volume.store import Store
from tests.unit.poller.doubles import (
    MemorySource,
    field,
    graph,
    shards_header,
    table,
    table_block,
    varint,
    zipped,
)
from tests.unit.poller.test_bring import bring

if TYPE_CHECKING:
    from pathlib import Path

# What TensorFlow 2.21 wrote for matrices of eight types, one of them empty, words, and a table.
INDEX = zlib.decompress(
    bytes.fromhex(
        "78da636060e3609462e2606490e18f77f67075f60ef0f7f40b7174f2718df777f272750e89770f720cf0e060"
        "17625098cda4f19ed574f3c53c760619e1447d3dc79090204fa7d010d760fd30c7204fb0a630479f50570e46"
        "210e21260e2610d61030f5d19851c2202394844f07bb100b5035b38280c62546d3b0b2d5d7811a92f15bc126"
        "c400d6f288d1f4c6aba6450c327c29f83470027df0885183c374c34c4f3ea0e9a9f814f3419df38a5183cdd4"
        "a2294615a8210d9f062eb00626850f8c1a4ca6f11bce350235a4e3d32004d6c0a8f089111842aa91a6710c12"
        "4225281a4a1293725275b3532b8ba1a1c3a4d0c4a4c169bae1dab20a1136a1b2c49cd2d462a0b72052dda090"
        "f63cc0b2830108184144c56bbb4570ce814f0b373030329732dc66868b19ca73f13e60e678cbcccf401084ff"
        "6ee8562975bf0d00036b7d73"
    )
)
SHARD = zlib.decompress(
    bytes.fromhex(
        "78dadd91414fc2301886dbe1a07e28830f8d89e11710231e3dc946422209271c5c3cd46e74cb1202b12b048c"
        "07aefe33ff8a27fd091644037ad06437bfb479dbb7efd32f4d0959360921ae19662e5d8b3cd3dbf9931222f8"
        "2795231f65dee9ba2eddecde9a9b856bd1dcfd63bc58ccad8df31979b1cf5ecbd7e083cd285261c4421a18c9"
        "210d8dec211d1ab1914a2379a4919102d2d80843aa21cff6d18a38941820a4493c167aaa645ab718852bbc84"
        "d2c0eb75bc56b7cd075eb7df4636102a11c1489ed644e3dcf3fd5ea7d5f7db378ddddc5ff820231f66e48719"
        "7999918f32f2f16ffc1d1cb1229679a8a4d0929b6f9d4c5528c1610758e4c938d18918250f128ed92156f850"
        "a65a4d165f39ac81add7adaa7aa7d5da5c7770a0c84a58d04a84925fd4099c409539e8a452cd92716cae8cc4"
        "74a4cdc12a59de4eae8cca7703b70debe77c07d0bc09fc"
    )
)
SHARD_NAME = "variables/variables.data-00000-of-00001"


def saved(folder: Path, shard: bytes = SHARD, index: bytes = INDEX) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(graph())
    (folder / "variables/variables.index").write_bytes(index)
    (folder / SHARD_NAME).write_bytes(shard)
    return folder


def check(folder: Path) -> None:
    check_tensors(folder, lambda: False)


def damaged(at: int, bits: int = 1) -> bytes:
    shard = bytearray(SHARD)
    shard[at] ^= bits
    return bytes(shard)


def test_what_tensorflow_wrote_passes(tmp_path: Path) -> None:
    check(saved(tmp_path))


@given(at=st.integers(0, len(SHARD) - 1), bits=st.integers(1, 255))
def test_any_other_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, at: int, bits: int
) -> None:
    with pytest.raises(BrokenVersionError, match=r"data-00000-of-00001: the tensor \w+") as caught:
        check(saved(tmp_path_factory.mktemp("v"), damaged(at, bits)))
    assert caught.value.reason is VersionReason.CHECKSUM_MISMATCH


def test_the_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokenVersionError, match=r"the tensor a/\.ATTRIBUTES/VARIABLE_VALUE"):
        check(saved(tmp_path, damaged(3)))


def test_a_tensor_in_a_later_shard_is_looked_at(tmp_path: Path) -> None:
    def entry(shard: int, content: bytes) -> bytes:
        checksum = struct.pack("<L", masked(google_crc32c.value(content)))
        return b"\x08\x01\x18" + varint(shard) + b"\x28" + varint(len(content)) + b"\x35" + checksum

    index = table(
        table_block({b"": shards_header(2), b"a": entry(0, b"one"), b"b": entry(1, b"two")})
    )
    saved(tmp_path, index=index)
    for shard, content in enumerate((b"one", b"two")):
        (tmp_path / f"variables/variables.data-0000{shard}-of-00002").write_bytes(content)
    check(tmp_path)
    (tmp_path / "variables/variables.data-00001-of-00002").write_bytes(b"tWo")
    with pytest.raises(BrokenVersionError, match="data-00001-of-00002: the tensor b "):
        check(tmp_path)


def test_tensors_that_overlap_are_not_read_again_and_again(tmp_path: Path) -> None:
    whole = b"\x08\x01\x28" + varint(len(SHARD)) + b"\x35" + bytes(4)
    blocks = table_block({b"": shards_header(1), b"a": whole, b"b": whole})
    with pytest.raises(BrokenVersionError):
        check(saved(tmp_path, index=table(blocks)))
    right = struct.pack("<L", masked(google_crc32c.value(SHARD)))
    whole = whole[:-4] + right
    blocks = table_block({b"": shards_header(1), **{b"%06d" % n: whole for n in range(100_000)}})
    (tmp_path / "variables/variables.index").write_bytes(table(blocks))
    reads = 0
    pread = os.pread

    def counted(*arguments: int) -> bytes:
        nonlocal reads
        reads += 1
        return pread(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.pread", counted)
        check(tmp_path)
    assert reads == 1


@pytest.mark.parametrize(("dimensions", "is_read"), [(254, True), (255, False), (1_000_000, False)])
def test_a_tensor_of_more_dimensions_than_there_are_is_not_counted(
    tmp_path: Path, dimensions: int, is_read: bool
) -> None:
    """Their product takes as long as anybody likes, and stops all other threads."""
    shape = field(2, b"\x08" + varint((1 << 63) - 1)) * dimensions
    words = b"\x08\x07" + field(2, shape) + b"\x28\x04\x35" + bytes(4)
    whole = b"\x08\x01\x28\x04\x35" + bytes(4)
    blocks = table_block({b"": shards_header(1), b"words": words, b"x": whole})
    saved(tmp_path, b"1234" * 2, table(blocks))
    if is_read:
        # Of so many words nothing is told, and what comes behind them is looked at.
        with pytest.raises(BrokenVersionError, match="the tensor x "):
            check(tmp_path)
    else:
        check(tmp_path)


def test_what_the_index_can_not_tell_is_left_to_the_model_server(tmp_path: Path) -> None:
    check(saved(tmp_path, b"anything", b"no index"))
    (tmp_path / "variables/variables.index").unlink()
    check(tmp_path)


def test_the_check_can_be_given_up(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        check_tensors(saved(tmp_path), lambda: True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "imagenet", tmp_path)
    made.prepare()
    return made


@pytest.mark.parametrize("packed", [False, True])
def test_a_version_that_was_stored_damaged_is_not_taken(
    store: Store, tmp_path: Path, packed: bool
) -> None:
    source = MemorySource()
    saved(tmp_path / "export", damaged(3))
    files = {
        path.relative_to(tmp_path / "export").as_posix(): path.read_bytes()
        for path in (tmp_path / "export").rglob("*")
        if path.is_file()
    }
    if packed:
        source.put("1.zip", zipped(files))
    else:
        source.put_all({f"1/{name}": content for name, content in files.items()})
    with pytest.raises(BrokenVersionError, match="the tensor a/"):
        bring(source, store)
    assert store.scan().complete == set()


def test_a_version_that_is_only_linked_is_looked_at_too(store: Store, tmp_path: Path) -> None:
    saved(tmp_path / "claim/1", damaged(3))
    source = LocalSource(parse_uri(f"file://{tmp_path}/claim"), tmp_path / "claim")
    with pytest.raises(BrokenVersionError, match="the tensor a/"):
        bring(source, store)  # type: ignore[arg-type]
    saved(tmp_path / "claim/2")
    bring(source, store, 2)  # type: ignore[arg-type]
    assert store.scan().complete == {2}


def test_a_version_that_changes_while_it_is_checked_is_not_linked(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "claim/1")
    source = LocalSource(parse_uri(f"file://{tmp_path}/claim"), tmp_path / "claim")

    def rewrite(self: object, *arguments: object, **options: object) -> None:
        (tmp_path / "claim/1" / SHARD_NAME).write_bytes(SHARD)

    monkeypatch.setattr("model_poller.checks.manifest.check", rewrite)
    with pytest.raises(ObjectChangedError):
        bring(source, store)  # type: ignore[arg-type]
    assert store.scan().complete == set()
