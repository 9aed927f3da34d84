"""A store with versions of any size, whose bytes lie on no disk: one block of chance, repeated.

It speaks as much of S3 as a poller asks, and tells a checksum of each object as S3 does.
"""

from __future__ import annotations

import base64
import functools
import random
import re
import struct
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

import google_crc32c

from model_poller.checks.crc32c import combine, masked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

_BLOCK_BYTES = 1 << 20
_BLOCK = random.Random(7).randbytes(_BLOCK_BYTES)  # noqa: S311 - filling
_TWICE = memoryview(2 * _BLOCK)
"""So that a block can begin anywhere."""
_BUCKET = "models"
GRAPH = b"\x08\x01\x12\x06\x0a\x00\x1a\x02\x0a\x00"
"""A SavedModel with an empty graph that restores variables."""
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def version(shards: Sequence[int]) -> dict[str, bytes | int]:
    """The files of a SavedModel whose variables are shards of so many bytes, with checksums."""
    files: dict[str, bytes | int] = {
        f"variables/variables.data-{number:05d}-of-{len(shards):05d}": size
        for number, size in enumerate(shards)
    }
    return {"saved_model.pb": GRAPH, "variables/variables.index": _index(shards), **files}


class Patterned:
    """The store in a ``with`` block; ``files`` are contents, or sizes, by their keys."""

    def __init__(self, files: Mapping[str, bytes | int], host: str = "127.0.0.1") -> None:
        """``host`` is the address that it is asked at."""
        self._files = dict(files)
        self._sent = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def __getattr__(self, name: str) -> object:
                if name == "do_HEAD":
                    return self.do_GET
                raise AttributeError(name)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def sent(self) -> int:
        """Bytes of objects so far."""
        return self._sent

    def put(self, files: Mapping[str, bytes | int]) -> None:
        """Store more."""
        self._files |= files

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        """Answer one request, as its path asks."""
        asked = urlsplit(to.path)
        key = asked.path.removeprefix(f"/{_BUCKET}").lstrip("/")
        if not key:
            body = self._listing(parse_qs(asked.query).get("prefix", [""])[0])
            self._head(to, 200, {"Content-Length": str(len(body))})
            to.wfile.write(body)
            return
        content = self._files.get(key)
        if content is None:
            self._head(to, 404, {"Content-Length": "0"})
            return
        size = content if isinstance(content, int) else len(content)
        told = base64.b64encode(_checksum(content).to_bytes(4, "big")).decode()
        headers = {
            "ETag": f'"{_tag(content)}"',
            "x-amz-checksum-crc32c": told,
            "x-amz-checksum-type": "FULL_OBJECT",
        }
        wanted = _RANGE.fullmatch(to.headers.get("Range", ""))
        start, end = (int(wanted[1]), int(wanted[2]) + 1) if wanted else (0, size)
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        headers["Content-Length"] = str(end - start)
        self._head(to, 206 if wanted else 200, headers)
        if to.command == "GET":
            self._send(to, content, start, end)

    def _send(self, to: BaseHTTPRequestHandler, content: bytes | int, start: int, end: int) -> None:
        with suppress(ConnectionError):
            while start < end:
                if isinstance(content, bytes):
                    piece = memoryview(content)[start:end]
                else:
                    offset = start % _BLOCK_BYTES
                    piece = _TWICE[offset : offset + min(_BLOCK_BYTES, end - start)]
                to.connection.sendall(piece)
                start += len(piece)
                with self._lock:
                    self._sent += len(piece)

    def _head(self, to: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str]) -> None:
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name, value)
        to.end_headers()

    def _listing(self, prefix: str) -> bytes:
        entries = "".join(
            f"<Contents><Key>{quote(key)}</Key><ETag>&quot;{_tag(content)}&quot;</ETag>"
            f"<Size>{content if isinstance(content, int) else len(content)}</Size></Contents>"
            for key, content in sorted(self._files.items())
            if key.startswith(prefix)
        )
        return (
            "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
            f"{entries}</ListBucketResult>"
        ).encode()


def _tag(content: bytes | int) -> str:
    """Of a multipart upload, so that nobody takes it for an MD5."""
    return f"{_checksum(content):08x}-2"


@functools.cache
def _checksum(content: bytes | int) -> int:
    """CRC-32C, of a pattern from that of one block: joined with itself, and again."""
    if isinstance(content, bytes):
        return int(google_crc32c.value(content))
    whole, rest = divmod(content, _BLOCK_BYTES)
    found, block, size = 0, google_crc32c.value(_BLOCK), _BLOCK_BYTES
    while whole:
        if whole & 1:
            found = combine(found, block, size)
        block, size, whole = combine(block, block, size), 2 * size, whole >> 1
    return combine(found, google_crc32c.value(_BLOCK[:rest]), rest) if rest else found


def _index(shards: Sequence[int]) -> bytes:
    """``variables.index`` of one tensor for each shard; see `model_poller.checks.variables`."""
    entries = {b"": b"\x08" + _varint(len(shards)) + b"\x1a\x02\x08\x01"}
    for number, size in enumerate(shards):
        checksum = struct.pack("<L", masked(_checksum(size)))
        told = b"\x08\x04\x18" + _varint(number) + b"\x28" + _varint(size) + b"\x35" + checksum
        entries[b"v%05d" % number] = told
    block = _block(entries)
    listing = _block({b"v99999": _varint(0) + _varint(len(block) - 5)})
    footer = b"\0\0" + _varint(len(block)) + _varint(len(listing) - 5)
    magic = struct.pack("<Q", 0xDB4775248B80FB57)
    return block + listing + footer.ljust(40, b"\0") + magic


def _block(entries: Mapping[bytes, bytes]) -> bytes:
    content = b"".join(
        b"\0" + _varint(len(key)) + _varint(len(value)) + key + value
        for key, value in entries.items()
    )
    content += struct.pack("<LLB", 0, 1, 0)
    return content + struct.pack("<L", masked(google_crc32c.value(content)))


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
