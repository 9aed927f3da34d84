"""An S3 server on this machine, and s5cmd, which is said to be the fastest that reads from one."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from demo.errors import ClusterError
from devcluster import build
from devcluster.ports import free_port
from model_poller.stores.credentials import Credentials
from model_poller.stores.s3_upload import S3Uploads
from model_poller.stores.uri import parse_uri

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_START_SECONDS = 20
_BUCKET = "models"
KEYS = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark-secret",
    "AWS_REGION": "us-east-1",
}


class S3Server:
    """versitygw with the bucket ``models``, in a ``with`` block; objects are files in a folder.

    It keeps the checksums that are sent with objects, as S3 does.
    """

    def __init__(self, folder: Path) -> None:
        """Choose a port; ``folder`` has to lie on a file system with extended attributes."""
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = build.ensure(["versitygw"])["versitygw"]
        # A folder is a bucket.
        (self._folder / _BUCKET).mkdir(parents=True)
        log = self._folder.with_suffix(".log")
        with log.open("wb") as written:
            self._process = subprocess.Popen(
                [
                    # Ends with this process, however that ends.
                    *("setpriv", "--pdeathsig=KILL", "--", str(program), "--quiet", "--keep-alive"),
                    *(f"--port=127.0.0.1:{self._port}", "posix", str(self._folder)),
                ],
                stdout=written,
                stderr=written,
                env={
                    "PATH": os.environ["PATH"],
                    "ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"],
                    "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"],
                },
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise ClusterError(f"versitygw does not listen:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def upload(self, key: str, folder: Path) -> None:
        """Store a folder's files below a key, with the checksums that S3's own clients send."""
        uploads = S3Uploads(
            parse_uri(f"s3://{_BUCKET}"),
            endpoint=self.url,
            region=None,
            path_style=True,
            anonymous=False,
            credentials=Credentials(KEYS),
        )
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            with file.open("rb") as content:
                uploads.put_new(
                    f"{key}/{file.relative_to(folder)}",
                    content,
                    file.stat().st_size,
                    progress=lambda _: None,
                )
        uploads.close()
