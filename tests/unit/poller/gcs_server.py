"""A bucket behind the two calls of the JSON API that the poller makes, with faults on demand."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

if TYPE_CHECKING:
    from types import TracebackType


class GcsServer:
    """Serves ``objects`` of the bucket ``models`` on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.gzipped: set[str] = set()
        """Names of objects with ``Content-Encoding: gzip``."""
        self.list_status = 200
        self.list_answer: bytes | None = None
        """Of every listing, whatever there is."""
        self.next_page_token = ""
        """Of every page."""
        self.page = 1000
        """Objects on one."""
        self.packs = False
        """Whether listings are sent packed, where the client takes that."""
        self.token = ""
        """What a request has to prove itself with."""
        self.error_body = ""
        self.get_statuses: list[int] = []
        """Answers of the next reads, before they are served again."""
        self.cut = 0
        """So many of the next reads end in the middle."""
        self.calls: list[str] = []
        self.connections = 0
        owner = self

        class Handler(_Handler):
            bucket = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def put(self, name: str, content: bytes) -> None:
        generation = self.objects.get(name, (b"", 0))[1] + 1
        self.objects[name] = content, generation

    def __enter__(self) -> GcsServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    bucket: GcsServer

    def setup(self) -> None:
        self.bucket.connections += 1
        super().setup()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if self.bucket.token and self.headers["Authorization"] != self.bucket.token:
            self.bucket.calls.append("list" if url.path.endswith("/o") else "get")
            self._answer(401, b"Invalid Credentials")
            return
        if url.path == "/storage/v1/b/models/o":
            self.bucket.calls.append("list")
            self._list(
                query.get("prefix", ""), int(query.get("pageToken", "0").replace("again", "0"))
            )
        elif url.path.startswith("/download/storage/v1/b/models/o/"):
            self.bucket.calls.append("get")
            self._get(unquote(url.path.rpartition("/")[2]), query["generation"])
        else:
            self._answer(404, b"{}")

    def _list(self, prefix: str, begin: int) -> None:
        if self.bucket.list_status != 200:
            message = self.bucket.error_body or "no"
            body: dict[str, Any] = {"error": {"code": self.bucket.list_status, "message": message}}
            self._answer(self.bucket.list_status, json.dumps(body).encode())
            return
        if (told := self.bucket.list_answer) is not None:
            self._answer(200, told, packs=self.bucket.packs)
            return
        items = [
            {
                "name": name,
                "size": str(len(content)),
                "generation": str(generation),
                "crc32c": base64.b64encode(google_crc32c.Checksum(content).digest()).decode(),
                **({"contentEncoding": "gzip"} if name in self.bucket.gzipped else {}),
            }
            for name, (content, generation) in sorted(self.bucket.objects.items())
            if name.startswith(prefix)
        ]
        end = begin + self.bucket.page
        token = self.bucket.next_page_token or (str(end) if end < len(items) else "")
        page = {"items": items[begin:end], **({"nextPageToken": token} if token else {})}
        self._answer(200, json.dumps(page).encode(), packs=self.bucket.packs)

    def _get(self, name: str, generation: str) -> None:
        if self.bucket.get_statuses:
            self._answer(self.bucket.get_statuses.pop(0), self.bucket.error_body.encode())
            return
        content, current = self.bucket.objects.get(name, (b"", 0))
        if generation != str(current):
            self._answer(404, b"no such generation")
            return
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        piece = content[int(first) : int(last) + 1]
        if self.bucket.cut:
            self.bucket.cut -= 1
            self.send_response(206)
            self.send_header("Content-Length", str(len(piece)))
            self.end_headers()
            self.wfile.write(piece[: len(piece) // 2])
            self.close_connection = True
            return
        self._answer(206, piece)

    def _answer(self, status: int, body: bytes, *, packs: bool = False) -> None:
        self.send_response(status)
        if packs and self.headers["Accept-Encoding"] == "gzip":
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
