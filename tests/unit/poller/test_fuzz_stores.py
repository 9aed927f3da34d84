"""A store that lies by chance in its answers: of a version all is taken as it is, or nothing."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import google_crc32c
import pytest

from model_poller import fetch
from model_poller.bring import Bringer
from model_poller.errors import PollerError
from model_poller.stores import StoredObject
from model_poller.stores.credentials import Credentials
from model_poller.stores.s3 import S3Source
from model_poller.stores.uri import parse_uri
from model_poller.versions import discover
from model_poller.volume.store import Store
from tests.unit.poller.doubles import model

if TYPE_CHECKING:
    from pathlib import Path

SEEDS = 30
FILES = {**model(), **{f"assets/{number}": bytes([number]) * 500 for number in range(24)}}
LIES = [
    *("flipped", "swapped", "cut", "longer", "another", "untold", "range", "refused", "gone"),
    *("hung up", "garbage", "twice"),
]


class Liar:
    """Gives objects as S3 does, and now and then something else."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._rate = self._chance.choice([0.02, 0.1, 0.4])
        self._lies = self._chance.sample(LIES, self._chance.randint(1, len(LIES)))
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Liar:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        with taken, suppress(OSError):
            while asked := taken.recv(65536):
                head, is_last = self._answer(asked.decode())
                taken.sendall(head)
                if is_last:
                    return

    def _answer(self, asked: str) -> tuple[bytes, bool]:
        line, *fields = asked.split("\r\n")
        method, target, _ = line.split(" ")
        headers = dict(field.lower().split(": ", 1) for field in fields if field)
        content = FILES[target.removeprefix("/models/1/")]
        with self._lock:
            lie = self._chance.choice(self._lies) if self._chance.random() < self._rate else ""
            at, other = self._chance.random(), self._chance.choice(list(FILES.values()))
        checksum = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
        told = {"ETag": f'"{tag(content)}"'}
        if "range" not in headers and lie != "untold":
            told |= {"x-amz-checksum-crc32c": checksum, "x-amz-checksum-type": "FULL_OBJECT"}
        body, status, size = content, "200 OK", len(content)
        if wanted := headers.get("range"):
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            body, status = content[first : last + 1], "206 Partial Content"
            shift = 1 if lie == "range" else 0
            told["Content-Range"] = f"bytes {first + shift}-{last + shift}/{size}"
        if lie == "flipped" and body:
            index = int(at * len(body))
            body = body[:index] + bytes([body[index] ^ 1]) + body[index + 1 :]
        elif lie == "swapped":
            body = other
        elif lie == "another":
            told["ETag"] = f'"{tag(other)}"'
        elif lie == "refused":
            body, status = b"", "503 Slow Down"
        elif lie == "gone":
            body, status = b"", "404 Not Found"
        elif lie == "longer":
            body += b"!"
        told["Content-Length"] = str(len(body))
        head = "\r\n".join([f"HTTP/1.1 {status}", *(f"{n}: {v}" for n, v in told.items())])
        whole = f"{head}\r\n\r\n".encode() + (b"" if method == "HEAD" else body)
        if lie == "hung up":
            return b"", True
        if lie == "garbage":
            return b"\0" * int(200 * at + 1) + whole, True
        if lie == "cut":
            return whole[: int(at * len(whole))], True
        return (2 * whole if lie == "twice" else whole), False


def tag(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()[:32]}-2"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_of_a_version_all_is_taken_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    hasty = replace(fetch.RETRIES, first_seconds=0.001, longest_seconds=0.01)
    monkeypatch.setattr(fetch, "RETRIES", hasty)
    root = parse_uri("s3://models")
    listed = [
        StoredObject(root, f"1/{name}", len(content), tag(content))
        for name, content in FILES.items()
    ]
    seen = discover(listed, {})
    version = discover(listed, {1: seen[1].fingerprint})[1]
    store = Store(tmp_path / "model", tmp_path)
    store.prepare()
    with Liar(seed) as liar:
        source = S3Source(
            root,
            endpoint=liar.url,
            region=None,
            path_style=True,
            anonymous=True,
            credentials=Credentials(),
        )
        for _ in range(4):
            with suppress(PollerError):
                Bringer(source, store).bring(
                    version, stopped=threading.Event(), progress=lambda _: None
                )
                break
        source.close()
    folder = tmp_path / ".retained/1"
    if folder.exists():
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        assert found == FILES
    assert not (tmp_path / "model/1").exists(), "nobody has published it"
