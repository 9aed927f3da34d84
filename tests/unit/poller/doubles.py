"""Stand-ins for what lies around the poller: a bucket, a model server, a clock."""

from __future__ import annotations

import io
import struct
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import google_crc32c

from model_poller.checks.crc32c import masked
from model_poller.errors import ObjectChangedError, PollerError
from model_poller.status import ServedVersion
from model_poller.stores import Entry, StoredObject
from model_poller.stores.uri import Location
from model_poller.versions import parse_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


def field(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def graph(
    *,
    saver: bool = True,
    assets: tuple[str, ...] = (),
    tags: tuple[str, ...] = ("serve",),
    signatures: tuple[str, ...] = ("serving_default",),
) -> bytes:
    """A saved_model.pb with the parts that tell what a version needs and how it is asked."""
    meta = field(1, b"".join(field(4, tag.encode()) for tag in tags))
    meta += field(2, b"\x12\x34" * 500)
    for name in signatures:
        meta += field(5, field(1, name.encode()) + field(2, b""))
    if saver:
        meta += field(3, b"\x0a\x04save")
    for asset in assets:
        meta += field(6, field(1, b"\x0a\x01x") + field(2, asset.encode()))
    return b"\x08\x01" + field(2, meta)


def varint(value: int) -> bytes:
    """A number of protobuf's variable length."""
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def table_block(entries: Mapping[bytes, bytes], *, kind: int = 0, again: int = 0) -> bytes:
    """A block of a sorted table, with the kind of its compression and its checksum.

    ``again``: so often does the last key come once more, with nothing.
    """
    content = b"".join(
        b"\0" + varint(len(key)) + varint(len(value)) + key + value
        for key, value in entries.items()
    )
    content += (varint(len(list(entries)[-1])) + b"\0\0") * again if again else b""
    content += struct.pack("<LLB", 0, 1, kind)
    return content + struct.pack("<L", masked(google_crc32c.value(content)))


def table(*blocks: bytes, times: int = 1) -> bytes:
    """A sorted table of blocks, each listed so many times."""
    handles, start = {}, 0
    for number, block in enumerate(blocks):
        for time in range(times):
            handles[b"%d.%d" % (number, time)] = varint(start) + varint(len(block) - 5)
        start += len(block)
    listing = table_block(handles)
    footer = b"\0\0" + varint(start) + varint(len(listing) - 5)
    magic = struct.pack("<Q", 0xDB4775248B80FB57)
    return b"".join(blocks) + listing + footer.ljust(40, b"\0") + magic


def tensor(shard: int, size: int) -> bytes:
    """What a checkpoint's index says of a tensor at the beginning of a shard."""
    return b"\x08\x01\x18" + varint(shard) + b"\x28" + varint(size)


def shards_header(count: int) -> bytes:
    """What a checkpoint's index says of itself."""
    return b"\x08" + varint(count) + b"\x1a\x02\x08\x01"


def variables_index(sizes: Sequence[int]) -> bytes:
    """The index of a checkpoint with one tensor in each shard."""
    tensors = {b"v%05d" % shard: tensor(shard, size) for shard, size in enumerate(sizes)}
    return table(table_block({b"": shards_header(len(sizes)), **tensors}))


def model(content: bytes = b"weights", *, shards: int = 1) -> dict[str, bytes]:
    """The files of a whole SavedModel."""
    return {
        "saved_model.pb": graph(),
        "variables/variables.index": variables_index([len(content) + 1] * shards),
        **{
            f"variables/variables.data-{i:05d}-of-{shards:05d}": content + bytes([i])
            for i in range(shards)
        },
    }


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files in a folder."""
    return {f"{folder}/{name}": content for name, content in files.items()}


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as bundle:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class _Bytes:
    is_listed = True

    def __init__(self, content: bytes, validators: Mapping[str, str]) -> None:
        self._file = io.BytesIO(content)
        self.validators = validators

    def readinto(self, buffer: memoryview) -> int:
        return self._file.readinto(buffer)


ROOT = Location("models", "imagenet")


class MemorySource:
    """A bucket in memory."""

    uri = "gs://models/imagenet"
    locations: tuple[Location, ...] = (ROOT,)
    mount: Path | None = None
    growing = False
    checksums = True
    """Whether listings tell them."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.error: PollerError | None = None
        self.range_errors: list[PollerError] = []
        self._left: int | None = None
        self._after: PollerError | None = None
        self.corrupt = 0
        """So many of the next ranges come damaged."""
        self.refused: dict[str, PollerError] = {}
        """By path: what reading it gives."""
        self.sizes: dict[str, int] = {}
        """By path: what a listing says of it instead of its size."""
        self.requests: list[tuple[str, int, int]] = []
        self._generation = 1000
        self._lock = threading.Lock()

    def put(self, path: str, content: bytes) -> None:
        self._generation += 1
        self.objects[path] = content, self._generation

    def put_all(self, files: Mapping[str, bytes]) -> None:
        for path, content in files.items():
            self.put(path, content)

    def delete(self, path: str) -> None:
        del self.objects[path]

    def fail_after(self, ranges: int | None, error: PollerError | None = None) -> None:
        """Answer so many more ranges, then none; None: answer all."""
        self._left, self._after = ranges, error

    def close(self) -> None:
        pass

    def describe(self, stored: StoredObject) -> StoredObject:
        return stored

    def survey(self) -> Iterator[StoredObject | Entry]:
        yield from self.list()

    def files(self, entry: Entry) -> Iterator[StoredObject]:
        yield from ()

    def list(self) -> list[StoredObject]:
        if self.error:
            raise self.error
        return [
            StoredObject(
                root=self.locations[0],
                path=path,
                size=self.sizes.get(path, len(content)),
                crc32c=google_crc32c.value(content) if self.checksums else None,
                generation=str(generation),
            )
            for path, (content, generation) in self.objects.items()
        ]

    @contextmanager
    def open_range(self, stored: StoredObject, start: int, length: int) -> Iterator[_Bytes]:
        with self._lock:
            self.requests.append((stored.path, start, length))
            if self._left is not None:
                self._left -= 1
                if self._left < 0 and self._after:
                    raise self._after
            if self.range_errors:
                raise self.range_errors.pop(0)
            if stored.path in self.refused:
                raise self.refused[stored.path]
            content, generation = self.objects.get(stored.path, (b"", 0))
            if str(generation) != stored.generation:
                raise ObjectChangedError(stored.url)
            piece = content[start : start + length]
            if self.corrupt and piece:
                self.corrupt -= 1
                piece = bytes([piece[0] ^ 1]) + piece[1:]
        yield _Bytes(piece, {"generation": str(generation), "size": str(len(content))})


class FakeServer:
    """A model server with the policy ``all``: loads what lies in its base path.

    `poll` is one of its looks; versions in ``bad`` end with an error. What left the base path goes
    once another one is loaded that lies there, or none does; until then the highest of it stays.
    What came back before it went is waited for, and nothing else is taken in meanwhile.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.bad: set[int] = set()
        self.slow: set[int] = set()
        """Versions whose load doesn't end."""
        self.deadly: set[int] = set()
        """Versions whose load ends the server; it is up again once none lies there."""
        self.up = True
        self.states: dict[int, tuple[str, str]] = {}
        self.seen: list[dict[str, bytes]] = []
        self.gaps = 0
        """How often nothing answered any more, although the server was up."""
        self._aspired: set[int] = set()
        self._managed: set[int] = set()

    def poll(self) -> None:
        there = {
            number: entry
            for entry in self.base.iterdir()
            if (number := parse_number(entry.name)) is not None
        }
        if self.deadly:
            self.up = not self.deadly & there.keys()
            if not self.up:
                self.restart()
        if not self.up:
            return
        before = self._available()
        self._managed = {n for n in self._managed if n in self._aspired or self._is_held(n)}
        if not (there.keys() & self._managed) - self._aspired:
            self._aspired = set(there)
            for number in there.keys() - self._managed:
                self._load(number, there[number])
        unwanted = sorted(self._available() - self._aspired)
        if self._aspired and not self._available() & self._aspired:
            # One of them stays until another one is loaded; the lowest go first.
            unwanted = unwanted[:-1]
        self.states.update(dict.fromkeys(unwanted, ("END", "")))
        self.gaps += bool(before and not self._available())

    def _load(self, number: int, entry: Path) -> None:
        self._managed.add(number)
        self.seen.append(
            {
                p.relative_to(entry).as_posix(): p.read_bytes()
                for p in entry.rglob("*")
                if p.is_file()
            }
        )
        bad = number in self.bad
        state = "LOADING" if number in self.slow else "AVAILABLE"
        self.states[number] = ("END", "bad graph") if bad else (state, "")

    def _available(self) -> set[int]:
        return {n for n, (state, _) in self.states.items() if state == "AVAILABLE"}

    def _is_held(self, number: int) -> bool:
        return self.states[number][0] != "END"

    def restart(self) -> None:
        self.states.clear()
        self._aspired.clear()
        self._managed.clear()

    def status(self) -> tuple[ServedVersion, ...] | None:
        if not self.up:
            return None
        return tuple(
            ServedVersion(
                version=number,
                state=state,
                error_code="UNKNOWN" if message else "OK",
                error_message=message,
            )
            for number, (state, message) in sorted(self.states.items(), reverse=True)
        )


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
