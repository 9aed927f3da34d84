"""A poller as a process of its own, until it has published something."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from demo.errors import OutcomeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TREE = Path(__file__).parent.parent
_START_SECONDS = 60


@contextmanager
def poller(
    scratch: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A poller that has published a version, and the port where it answers.

    Args:
        scratch: a folder for its log and its models.
        arguments: of the poller, beside those for its port, its name and its folder.
        environment: more for it.

    Raises:
        OutcomeError: it publishes nothing; with its log.
    """
    log = scratch / "poller.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "model_poller", "--http-port=0"),
                *("--model-name=idle", f"--models-dir={scratch / 'idle'}"),
                *arguments,
            ],
            stderr=written,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(_TREE / "poller"),
                **(environment or {}),
            },
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            port = re.search(r"listening on port (\d+)", log.read_text())
            if port and _answers(port[1]):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise OutcomeError(f"the poller serves nothing:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield process, port[1]
    finally:
        process.kill()
        process.wait()


def get(port: str, path: str) -> bytes:
    """One answer of a poller."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        content: bytes = answer.read()
    return content


def _answers(port: str) -> bool:
    try:
        return bool(get(port, "/startupz"))
    except urllib.error.URLError:
        return False
